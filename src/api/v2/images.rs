//! Images of the platform's registry. Ours.
//!
//! | request | answer |
//! | --- | --- |
//! | `GET /v2/images` | `{"images": [{"name", "owner", "tags": [...]}]}`, those that the caller may pull |
//! | `GET /v2/images/{name}` | `{"name", "owner", "tags": [{"tag", "digest", "size", "layers", "created", "architecture"}]}` |
//! | `DELETE /v2/images/{name}[:tag]` | 204; without a tag all of them |
//! | `GET /v2/registry` | the registry's name, where it is, and what it must be told to trust our tokens; and who asks |
//! | `GET /v2/registry/token?scope=repository:NAME:pull,push` | a token, in the form that Docker's clients know, and where the registry is |
//!
//! A token without credentials is good for `library/...` alone. Names may have slashes, encoded or not. What one may not pull is 404. While the registry
//! does not run, all but the token is 503.

use serde_json::json;
use warp::http::{Method, StatusCode, header::AUTHORIZATION};

use crate::{
    api::{
        Api, answer,
        call::Call,
        error::{ApiError, ApiResult},
        identity,
    },
    model::{
        image::{ImageName, short},
        request::{Origin, RequestError},
    },
    registry::{
        access::{Access, Who, scopes},
        platform::{Platform, PlatformError, Whereabouts},
        token::{ISSUER, LIFETIME_SECONDS, SERVICE},
    },
};

pub async fn images(api: &Api, call: &Call, rest: &[&str]) -> ApiResult {
    let platform = platform(api)?;
    let who = who(&identity::origin(call));
    match (&call.method, rest) {
        (&Method::GET | &Method::HEAD, []) => Ok(answer::ok(&json!({ "images": platform.list(&who).await? }))),
        (_, []) => Err(ApiError::method(&[Method::GET, Method::HEAD])),
        (&Method::GET | &Method::HEAD, words) => Ok(answer::ok(&platform.show(&who, &name(platform, words)?).await?)),
        (&Method::DELETE, words) => {
            let name = name(platform, words)?;
            let has_version = words.last().is_some_and(|word| word.contains([':', '@']));
            call.trail.note_name(format!("image {}", if has_version { name.to_string() } else { short(name.repository()).to_owned() }));
            platform.delete(&who, &name, !has_version).await?;
            Ok(answer::empty(StatusCode::NO_CONTENT))
        }
        _ => Err(ApiError::method(&[Method::GET, Method::HEAD, Method::DELETE])),
    }
}

pub fn registry(api: &Api, call: &Call, rest: &[&str]) -> ApiResult {
    super::reads_only(call)?;
    let platform = platform(api)?;
    let origin = identity::origin(call);
    match rest {
        [] => {
            let (state, address) = whereabouts(platform);
            Ok(answer::ok(&json!({
                "name": platform.name(),
                "state": state,
                "address": address,
                "issuer": ISSUER,
                "service": SERVICE,
                "realm": platform.realm(),
                "certificate": platform.authority().certificate(),
                "user": origin.user,
                "admin": origin.admin,
            })))
        }
        _ => Err(ApiError::no_route()),
    }
}

/// True for a token that is to be good for more than reading. What is done with it is done at the registry: only here is it seen who changes an image.
pub fn is_for_a_change(call: &Call) -> bool {
    call.segments.iter().map(String::as_str).eq(["v2", "registry", "token"]) && wanted(call).iter().any(is_change)
}

fn wanted(call: &Call) -> Vec<Access> {
    scopes(&call.query.all("scope").map(str::to_owned).collect::<Vec<_>>())
}

fn is_change(access: &Access) -> bool {
    access.kind == "repository" && access.actions.iter().any(|action| action != "pull")
}

/// A token for who asks. Docker asks for one without credentials, too, when nobody has logged in there: such a token is good for what is for all.
pub async fn token(api: &Api, mut call: Call) -> ApiResult {
    super::reads_only(&call)?;
    let platform = platform(api)?;
    match identity::ask(api, &mut call).await {
        Err(error) if call.headers.contains_key(AUTHORIZATION) => return Err(error),
        Err(_) | Ok(()) => {}
    }
    let wanted = wanted(&call);
    let token = platform.authority().token(&who(&identity::origin(&call)), &wanted);
    for access in wanted.iter().filter(|access| is_change(access)) {
        let granted = token.access.iter().any(|granted| granted.name == access.name && is_change(granted));
        call.trail.note_name(format!("image {}{}", short(&access.name), if granted { "" } else { " (not granted)" }));
    }
    let (_, address) = whereabouts(platform);
    Ok(answer::ok(&json!({
        "token": token.text,
        "access_token": token.text,
        "expires_in": LIFETIME_SECONDS,
        "issued_at": token.issued_at,
        "access": token.access,
        "registry": address,
    })))
}

fn whereabouts(platform: &Platform) -> (&'static str, Option<String>) {
    match platform.whereabouts() {
        Whereabouts::Absent => ("absent", None),
        Whereabouts::Down => ("down", None),
        Whereabouts::At(address) => ("running", Some(address.to_string())),
    }
}

fn platform(api: &Api) -> Result<&Platform, ApiError> {
    api.images.as_deref().ok_or_else(ApiError::no_route)
}

fn who(origin: &Origin) -> Who {
    let name = origin.user.as_str().to_owned();
    match name.as_str() {
        _ if origin.admin => Who::Administrator(name),
        "" => Who::Nobody,
        _ => Who::User(name),
    }
}

fn name(platform: &Platform, words: &[&str]) -> Result<ImageName, ApiError> {
    platform.parse(&words.join("/")).map_err(|error| ApiError::unprocessable(error.to_string()))
}

impl From<PlatformError> for ApiError {
    fn from(error: PlatformError) -> Self {
        match &error {
            PlatformError::Absent | PlatformError::Down | PlatformError::Registry(_) => Self::unavailable(error.to_string()),
            PlatformError::Missing(_) => Self::not_found(error.to_string()),
            PlatformError::Forbidden => RequestError::Forbidden.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        api::testing::{Server, World},
        registry::{
            platform::{Directory, Settings},
            token::Authority,
        },
    };

    struct Nowhere(Whereabouts);

    impl Directory for Nowhere {
        fn registry(&self) -> Whereabouts {
            self.0
        }

        fn is_user(&self, _name: &str) -> bool {
            false
        }

        fn is_administrator(&self, _name: &str) -> bool {
            false
        }
    }

    fn server(whereabouts: Whereabouts) -> Server {
        let directory = tempfile::tempdir().unwrap();
        let settings = Settings {
            name: "registry.marathon.mesos:5000".into(),
            realm: "http://127.0.0.1:8080/v2/registry/token".into(),
            proxy: "127.0.0.1:5001".parse().unwrap(),
            password: "not to be shown".into(),
        };
        let platform = Platform::new(Authority::open(directory.path()).unwrap(), Box::new(Nowhere(whereabouts)), settings);
        let mut server = Server::new(World::default());
        server.set_images(Arc::new(platform));
        server
    }

    async fn check(server: &Server, line: &str, status: u16, message: &str) {
        let answer = server.ask(line, "").await;
        assert_eq!((answer.status.as_u16(), &*answer.message()), (status, message), "{line}");
    }

    #[tokio::test]
    async fn without_a_registry_it_is_said_how_to_get_one() {
        let absent = "the platform has no registry yet; an administrator makes one with: xtao registry install";
        check(&server(Whereabouts::Absent), "GET /v2/images", 503, absent).await;
        let down = "the platform's registry does not run at the moment: see the app /registry";
        for line in ["GET /v2/images", "GET /v2/images/zmfsea/x", "GET /v2/images/anna:1", "DELETE /v2/images/zmfsea%2Fx"] {
            check(&server(Whereabouts::Down), line, 503, down).await;
        }
    }

    #[tokio::test]
    async fn names_and_methods_are_looked_at_first() {
        let server = server(Whereabouts::Down);
        check(&server, "GET /v2/images/quay.io/x", 404, "Image 'quay.io/x:latest' does not exist").await;
        let bad =
            "'zmfsea/X' is not the name of an image: a name has words of a-z, 0-9, dots, dashes and underscores, separated by slashes";
        check(&server, "GET /v2/images/zmfsea/X", 422, bad).await;
        check(&server, "POST /v2/images", 405, "Method Not Allowed").await;
        check(&server, "PUT /v2/images/x", 405, "Method Not Allowed").await;
        check(&server, "POST /v2/registry/token", 405, "Method Not Allowed").await;
        check(&server, "GET /v2/registry/x", 404, "URI not found").await;
        check(&Server::new(World::default()), "GET /v2/images", 404, "URI not found").await;
    }

    #[tokio::test]
    async fn the_registry_says_where_it_is_and_tokens_what_they_grant() {
        let server = server(Whereabouts::At("10.0.0.5:5000".parse().unwrap()));
        let about: serde_json::Value = serde_json::from_str(&server.ask("GET /v2/registry", "").await.body).unwrap();
        assert_eq!((&about["state"], &about["address"]), (&json!("running"), &json!("10.0.0.5:5000")));
        assert!(about["certificate"].as_str().unwrap().starts_with("-----BEGIN CERTIFICATE-----"));
        assert!(!about.to_string().contains("not to be shown"));
        let answer = server.ask("GET /v2/registry/token?service=x&scope=repository:zmfsea/x:pull,push&scope=repository:a/B:pull", "").await;
        let token: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!(token["access"], json!([{ "type": "repository", "name": "zmfsea/x", "actions": ["pull", "push"] }]));
        assert_eq!((&token["token"], &token["registry"]), (&token["access_token"], &json!("10.0.0.5:5000")));
    }
}
