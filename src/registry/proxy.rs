//! The way in for Docker: a registry on 127.0.0.1, which Docker trusts without TLS and without any setting, in front of the platform's own.
//!
//! It reads, and nothing else; whoever comes without a token is sent to `/token` here, as the registry's protocol has it. There the server itself gets
//! everything, with a password that it makes anew at every start and gives Docker with each pull; whoever comes with nothing gets what is for all
//! (`library/...`). It is not the address that is trusted: programs of other users, and containers on the host's network, reach it as well.
//!
//! While the registry does not run, the answer is 503 and says so.

use std::sync::Arc;

use bytes::Bytes;
use data_encoding::BASE64;
use reqwest::header::{
    ACCEPT, ACCEPT_RANGES, AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue,
    IF_NONE_MATCH, LINK, RANGE, WWW_AUTHENTICATE,
};
use ring::digest::{SHA256, digest};
use serde_json::json;
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use warp::{
    Filter,
    filters::BoxedFilter,
    http::{Method, StatusCode},
    reply::{Reply as _, Response},
};

use super::{
    access::{Who, scopes},
    platform::{OWN_NAME, Platform, PlatformError},
    token::{LIFETIME_SECONDS, SERVICE, Token},
};
use crate::model::image::{is_digest, is_repository, is_tag};

/// Answers that are under way at once.
const MAX_AT_ONCE: usize = 64;
/// Pieces of a body that wait for a slow reader.
const WAITING_PIECES: usize = 8;
const ASKED: [HeaderName; 5] = [ACCEPT, AUTHORIZATION, IF_NONE_MATCH, RANGE, HeaderName::from_static("user-agent")];
const ANSWERED: [HeaderName; 8] = [
    ACCEPT_RANGES,
    CONTENT_LENGTH,
    CONTENT_RANGE,
    CONTENT_TYPE,
    ETAG,
    LINK,
    HeaderName::from_static("docker-content-digest"),
    HeaderName::from_static("docker-distribution-api-version"),
];

/// Everything that is served. It never rejects.
///
/// # Errors
/// The operating system refuses what a client needs.
pub fn routes(platform: Arc<Platform>) -> Result<BoxedFilter<(Response,)>, reqwest::Error> {
    // The first one wins; it does not matter whose.
    _ = rustls::crypto::ring::default_provider().install_default();
    let limit = std::time::Duration::from_secs(60);
    let http = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).connect_timeout(limit).read_timeout(limit);
    let proxy = Arc::new(Proxy { platform, http: http.build()?, places: Arc::new(Semaphore::new(MAX_AT_ONCE)) });
    let query = warp::query::raw().or(warp::any().map(String::new)).unify();
    let filter = warp::method().and(warp::path::full()).and(query).and(warp::header::headers_cloned());
    let answer = move |method: Method, path: warp::path::FullPath, query: String, headers: HeaderMap| {
        let proxy = proxy.clone();
        async move { proxy.answer(&method, path.as_str(), &query, &headers).await }
    };
    Ok(filter.then(answer).boxed())
}

struct Proxy {
    platform: Arc<Platform>,
    http: reqwest::Client,
    places: Arc<Semaphore>,
}

/// What a path below `/v2/` asks for.
#[derive(Debug, PartialEq, Eq)]
enum Asked<'a> {
    Base,
    Token,
    Of { repository: &'a str },
    Nothing,
}

/// Only what the protocol knows is passed on: nothing that could lead elsewhere on the registry's machine.
fn asked(path: &str) -> Asked<'_> {
    let rest = match path {
        "/token" => return Asked::Token,
        "/v2" | "/v2/" => return Asked::Base,
        _ => path.strip_prefix("/v2/").unwrap_or_default(),
    };
    let words = rest.rsplit_once('/').and_then(|(head, last)| head.rsplit_once('/').map(|(repository, kind)| (repository, kind, last)));
    match words {
        Some((repository, "manifests", version)) if is_repository(repository) && (is_tag(version) || is_digest(version)) => {
            Asked::Of { repository }
        }
        Some((repository, "blobs", digest)) if is_repository(repository) && is_digest(digest) => Asked::Of { repository },
        Some((repository, "tags", "list")) if is_repository(repository) => Asked::Of { repository },
        _ => Asked::Nothing,
    }
}

impl Proxy {
    async fn answer(&self, method: &Method, path: &str, query: &str, headers: &HeaderMap) -> Response {
        if !matches!(*method, Method::GET | Method::HEAD) {
            return refusal(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", "images are pulled here, and pushed with imgcli push");
        }
        let has_token = headers.get(AUTHORIZATION).is_some_and(|value| value.as_bytes().to_ascii_lowercase().starts_with(b"bearer "));
        match asked(path) {
            Asked::Token => self.token(query, headers),
            Asked::Base if has_token => with_version(warp::reply::json(&json!({})).into_response()),
            Asked::Base => self.challenge(None),
            Asked::Of { repository } if !has_token => self.challenge(Some(repository)),
            Asked::Of { repository } => self.forward(method, path, query, headers, repository).await,
            Asked::Nothing => refusal(StatusCode::NOT_FOUND, "UNSUPPORTED", "there is nothing here"),
        }
    }

    fn token(&self, query: &str, headers: &HeaderMap) -> Response {
        let Some(token) = self.granted(query, headers) else {
            return refusal(
                StatusCode::UNAUTHORIZED,
                "UNAUTHORIZED",
                "nobody logs in here; images of users are pulled by the platform, or with imgcli pull",
            );
        };
        let body = json!({ "token": token.text, "access_token": token.text, "expires_in": LIFETIME_SECONDS, "issued_at": token.issued_at });
        warp::reply::json(&body).into_response()
    }

    /// What is given to who comes with these headers; `None` for wrong credentials.
    fn granted(&self, query: &str, headers: &HeaderMap) -> Option<Token> {
        let wanted: Vec<String> = query.split('&').filter_map(|pair| pair.strip_prefix("scope=")).map(decoded).collect();
        Some(self.platform.authority().token(&self.who(headers)?, &scopes(&wanted)))
    }

    /// The server itself, or nobody; `None` for wrong credentials.
    fn who(&self, headers: &HeaderMap) -> Option<Who> {
        let Some(value) = headers.get(AUTHORIZATION) else { return Some(Who::Nobody) };
        let encoded = value.to_str().ok()?.strip_prefix("Basic ")?;
        let given = BASE64.decode(encoded.trim().as_bytes()).ok()?;
        let own = format!("{OWN_NAME}:{}", self.platform.password());
        // Sums are compared, so that the time taken says nothing about the password.
        let is_own = digest(&SHA256, &given).as_ref() == digest(&SHA256, own.as_bytes()).as_ref();
        is_own.then(|| Who::Administrator(OWN_NAME.to_owned()))
    }

    fn challenge(&self, repository: Option<&str>) -> Response {
        let scope = repository.map(|repository| format!(",scope=\"repository:{repository}:pull\"")).unwrap_or_default();
        let value = format!("Bearer realm=\"http://{}/token\",service=\"{SERVICE}\"{scope}", self.platform.proxy());
        let mut response = refusal(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "authentication required");
        if let Ok(value) = HeaderValue::from_str(&value) {
            response.headers_mut().insert(WWW_AUTHENTICATE, value);
        }
        with_version(response)
    }

    async fn forward(&self, method: &Method, path: &str, query: &str, headers: &HeaderMap, repository: &str) -> Response {
        let unavailable = |words: &str| refusal(StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE", words);
        let registry = match self.platform.registry() {
            Ok(registry) => registry,
            Err(error @ (PlatformError::Absent | PlatformError::Down)) => return unavailable(&error.to_string()),
            Err(error) => return refusal(StatusCode::BAD_GATEWAY, "UNKNOWN", &error.to_string()),
        };
        let Ok(place) = self.places.clone().try_acquire_owned() else { return unavailable("too many images are being pulled at once") };
        let query = if query.is_empty() { String::new() } else { format!("?{query}") };
        let mut request = self.http.request(method.clone(), format!("http://{}{path}{query}", registry.address()));
        for name in ASKED {
            for value in headers.get_all(&name) {
                request = request.header(&name, value);
            }
        }
        let mut upstream = match request.send().await {
            Ok(upstream) => upstream,
            Err(error) if error.is_connect() => return unavailable("the platform's registry does not answer"),
            Err(_) => return refusal(StatusCode::BAD_GATEWAY, "UNKNOWN", "the platform's registry broke off"),
        };
        if upstream.status() == StatusCode::UNAUTHORIZED {
            return self.challenge(Some(repository));
        }
        let (status, answered) = (upstream.status(), upstream.headers().clone());
        let (sender, receiver) = mpsc::channel::<Result<Bytes, std::io::Error>>(WAITING_PIECES);
        tokio::spawn(async move {
            let _place = place;
            loop {
                let piece = match upstream.chunk().await {
                    Ok(Some(piece)) => Ok(piece),
                    Ok(None) => return,
                    Err(error) => Err(std::io::Error::other(error)),
                };
                let broken = piece.is_err();
                // A reader that has gone away ends it.
                if sender.send(piece).await.is_err() || broken {
                    return;
                }
            }
        });
        let mut response = match *method {
            Method::HEAD => warp::reply().into_response(),
            _ => warp::reply::stream(ReceiverStream::new(receiver)).into_response(),
        };
        *response.status_mut() = status;
        response.headers_mut().remove(CONTENT_TYPE);
        for name in ANSWERED {
            if let Some(value) = answered.get(&name) {
                response.headers_mut().insert(name, value.clone());
            }
        }
        response
    }
}

/// In the form of the registry's own errors: Docker shows the message.
fn refusal(status: StatusCode, code: &str, message: &str) -> Response {
    let body = json!({ "errors": [{ "code": code, "message": message }] });
    warp::reply::with_status(warp::reply::json(&body), status).into_response()
}

fn with_version(mut response: Response) -> Response {
    let name = HeaderName::from_static("docker-distribution-api-version");
    response.headers_mut().insert(name, HeaderValue::from_static("registry/2.0"));
    response
}

fn decoded(text: &str) -> String {
    percent_encoding::percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::{
        platform::{Directory, Settings, Whereabouts},
        token::Authority,
    };

    struct Down;

    impl Directory for Down {
        fn registry(&self) -> Whereabouts {
            Whereabouts::Down
        }

        fn is_user(&self, _: &str) -> bool {
            true
        }

        fn is_administrator(&self, name: &str) -> bool {
            name == "root"
        }
    }

    fn proxy(directory: &std::path::Path) -> Proxy {
        _ = rustls::crypto::ring::default_provider().install_default();
        let settings = Settings {
            name: "registry.marathon.mesos:5000".into(),
            realm: "http://127.0.0.1:8080/v2/registry/token".into(),
            proxy: "127.0.0.1:5001".parse().unwrap(),
            password: "made at the start".into(),
        };
        let platform = Arc::new(Platform::new(Authority::open(directory).unwrap(), Box::new(Down), settings));
        Proxy { platform, http: reqwest::Client::builder().build().unwrap(), places: Arc::new(Semaphore::new(1)) }
    }

    #[tokio::test]
    async fn images_of_users_are_for_the_server_alone() {
        let directory = tempfile::tempdir().unwrap();
        let proxy = proxy(directory.path());
        let query =
            "service=x&scope=repository%3Azmfsea%2Fdb%3Apull%2Cpush&scope=repository:library/anna:pull&scope=repository:zmfsea/db:delete";
        let check = async |credentials: Option<String>, expected: Option<&str>| {
            let headers: HeaderMap = credentials.iter().map(|value| (AUTHORIZATION, HeaderValue::from_str(value).unwrap())).collect();
            let granted = proxy.granted(query, &headers).map(|token| {
                let access = token.access.iter().map(|access| format!("{} {}", access.name, access.actions.join(",")));
                access.collect::<Vec<_>>().join("; ")
            });
            assert_eq!(granted.as_deref(), expected, "{credentials:?}");
            let status = if expected.is_some() { 200 } else { 401 };
            assert_eq!(proxy.answer(&Method::GET, "/token", query, &headers).await.status(), status, "{credentials:?}");
        };
        let basic = |text: String| Some(format!("Basic {}", BASE64.encode(text.as_bytes())));
        check(None, Some("library/anna pull")).await;
        check(basic(format!("{OWN_NAME}:made at the start")), Some("zmfsea/db pull,push; library/anna pull; zmfsea/db delete")).await;
        for wrong in ["", "made at the star", "made at the start ", "Made at the start"] {
            check(basic(format!("{OWN_NAME}:{wrong}")), None).await;
        }
        // No user's name leads further here, an administrator's neither.
        for user in ["zmfsea", "root", "", "library"] {
            check(basic(format!("{user}:made at the start")), None).await;
        }
        for malformed in ["Basic", "Basic !", "basic x", "Bearer made at the start", "made at the start"] {
            check(Some(malformed.to_owned()), None).await;
        }
    }

    #[tokio::test]
    async fn nothing_is_sent_without_a_token_and_nothing_is_written() {
        let directory = tempfile::tempdir().unwrap();
        let proxy = proxy(directory.path());
        let manifest = "/v2/zmfsea/db/manifests/latest";
        for (method, path, token, status) in [
            (Method::GET, manifest, None, 401),
            (Method::HEAD, manifest, None, 401),
            (Method::GET, "/v2/", None, 401),
            (Method::GET, "/v2/", Some("Bearer x"), 200),
            // What a token is worth is the registry's to say, which does not run here.
            (Method::GET, manifest, Some("bearer x"), 503),
            (Method::PUT, manifest, Some("Bearer x"), 405),
            (Method::DELETE, manifest, Some("Bearer x"), 405),
            (Method::POST, "/v2/zmfsea/db/blobs/uploads/", Some("Bearer x"), 405),
            (Method::GET, "/v2/_catalog", Some("Bearer x"), 404),
        ] {
            let headers: HeaderMap = token.iter().map(|value| (AUTHORIZATION, HeaderValue::from_static(value))).collect();
            let answer = proxy.answer(&method, path, "", &headers).await;
            assert_eq!(answer.status(), status, "{method} {path} {token:?}");
            let challenge = answer.headers().get(WWW_AUTHENTICATE).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default();
            assert_eq!(
                challenge.starts_with("Bearer realm=\"http://127.0.0.1:5001/token\""),
                status == 401,
                "{method} {path}: {challenge}"
            );
        }
    }

    #[test]
    fn only_what_the_protocol_knows_is_passed_on() {
        let check = |path: &str, expected: Asked<'_>| assert_eq!(asked(path), expected, "{path}");
        let digest = format!("sha256:{}", "0f".repeat(32));
        check("/v2/", Asked::Base);
        check("/v2", Asked::Base);
        check("/token", Asked::Token);
        check("/v2/zmfsea/x/manifests/latest", Asked::Of { repository: "zmfsea/x" });
        check(&format!("/v2/zmfsea/x/manifests/{digest}"), Asked::Of { repository: "zmfsea/x" });
        check(&format!("/v2/anna/blobs/{digest}"), Asked::Of { repository: "anna" });
        check("/v2/a/manifests/manifests/1", Asked::Of { repository: "a/manifests" });
        check("/v2/anna/tags/list", Asked::Of { repository: "anna" });
        for nothing in [
            "/",
            "/v1/x",
            "/v2/_catalog",
            "/v2/zmfsea/x",
            "/v2/manifests/latest",
            "/v2/zmfsea/x/blobs/uploads/",
            "/v2/../debug/manifests/x",
            "/v2/a%2Fb/manifests/x",
            "/v2/a/manifests/..",
            "/v2/a/manifests/x/y",
            "/v2//manifests/x",
            "/token/",
            "/debug/vars",
        ] {
            check(nothing, Asked::Nothing);
        }
    }
}
