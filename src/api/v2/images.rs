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
//! Names may have slashes, encoded or not. What one may not pull is 404. While the registry does not run, all but the token is 503.

use serde_json::json;
use warp::http::{Method, StatusCode};

use crate::{
    api::{
        Api, answer,
        call::Call,
        error::{ApiError, ApiResult},
        identity,
    },
    model::{
        image::ImageName,
        request::{Origin, RequestError},
    },
    registry::{
        access::{Who, scopes},
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
                "realm": format!("{}/v2/registry/token", api.info.leader_url()),
                "certificate": platform.authority().certificate(),
                "user": origin.user,
                "admin": origin.admin,
            })))
        }
        ["token"] => {
            let wanted: Vec<String> = call.query.all("scope").map(str::to_owned).collect();
            let token = platform.authority().token(&who(&origin), &scopes(&wanted));
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
        _ => Err(ApiError::no_route()),
    }
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
    if origin.admin { Who::Administrator(name) } else { Who::User(name) }
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
