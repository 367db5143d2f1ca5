//! Responses: JSON, nothing, and the headers that every one of them has.

use serde::Serialize;
use warp::{
    http::{
        HeaderMap, HeaderName, HeaderValue, StatusCode,
        header::{CACHE_CONTROL, CONTENT_TYPE, EXPIRES, LOCATION, PRAGMA, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS, X_XSS_PROTECTION},
    },
    reply::Reply as _,
};

use super::Response;
use crate::model::{
    id::{DeploymentId, PathId},
    time::Timestamp,
};

/// Headers of nearly every response.
const MOST_HEADERS: usize = 12;

/// JSON with a status.
pub fn json(status: StatusCode, body: &impl Serialize) -> Response {
    let mut response = warp::reply::json(body).into_response();
    if response.status() == StatusCode::OK {
        *response.status_mut() = status;
    }
    response
}

/// JSON with 200.
pub fn ok(body: &impl Serialize) -> Response {
    json(StatusCode::OK, body)
}

/// JSON with 200: `{"name": [...]}`. Each item is written as it comes, so that of a long list only the text is ever held.
pub fn list(name: &str, items: impl Iterator<Item: Serialize>) -> Response {
    // What is written to memory, under names that are texts, cannot fail.
    let mut text = Vec::from(b"{");
    _ = serde_json::to_writer(&mut text, name);
    text.extend_from_slice(b":[");
    for (index, item) in items.enumerate() {
        if index > 0 {
            text.push(b',');
        }
        _ = serde_json::to_writer(&mut text, &item);
    }
    text.extend_from_slice(b"]}");
    let mut response = text.into_response();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// A status without a body.
pub fn empty(status: StatusCode) -> Response {
    status.into_response()
}

/// 302: what was asked for is at `location`.
pub fn moved(location: &str) -> Response {
    let mut response = empty(StatusCode::FOUND);
    set(response.headers_mut(), LOCATION, location);
    response
}

/// A text with its media type.
pub fn text(kind: &'static str, body: String) -> Response {
    let mut response = body.into_response();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// Marathon's answer to a change: the version and the deployment that brings it about, the latter in a header too.
pub fn deployment(status: StatusCode, id: &DeploymentId, version: Timestamp) -> Response {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Body<'a> {
        version: Timestamp,
        deployment_id: &'a DeploymentId,
    }
    with_deployment(json(status, &Body { version, deployment_id: id }), id)
}

/// The header that names the deployment that a change has begun.
pub const DEPLOYMENT_ID: HeaderName = HeaderName::from_static("marathon-deployment-id");

/// Adds `Marathon-Deployment-Id`.
pub fn with_deployment(mut response: Response, id: &DeploymentId) -> Response {
    set(response.headers_mut(), DEPLOYMENT_ID, id.as_str());
    response
}

/// Adds `Location`. Marathon gives the app's id as a path of its own host (`http://host:8080/shop/web`), which is no address of the API.
pub fn with_location(response: Response, base: &str, app: &PathId) -> Response {
    with_place(response, &format!("{base}{app}"))
}

/// Adds `Location` as it is.
pub fn with_place(mut response: Response, place: &str) -> Response {
    set(response.headers_mut(), LOCATION, place);
    response
}

/// The headers of every response (Marathon 1.11), and `nosniff`. `leader` is the value of `X-Marathon-Leader`.
pub fn common_headers(leader: Option<HeaderValue>) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(MOST_HEADERS);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, no-store, must-revalidate"));
    headers.insert(PRAGMA, HeaderValue::from_static("no-cache"));
    headers.insert(EXPIRES, HeaderValue::from_static("0"));
    headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(X_XSS_PROTECTION, HeaderValue::from_static("1; mode=block"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Some(leader) = leader {
        headers.insert(HeaderName::from_static("x-marathon-leader"), leader);
    }
    headers
}

/// `response` with the common headers before its own, which give way to them. It is its own few that move, because a map that grows costs more.
pub fn with_common_headers(mut response: Response, common: &HeaderMap) -> Response {
    let own = std::mem::replace(response.headers_mut(), common.clone());
    let mut name = None;
    for (next, value) in own {
        // A further value of the same name comes without it.
        name = next.or(name);
        if let Some(name) = name.as_ref().filter(|name| !common.contains_key(*name)) {
            response.headers_mut().append(name, value);
        }
    }
    response
}

/// A value that is no header's is left out: none of ours has such characters.
fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use warp::http::header::WWW_AUTHENTICATE;

    use super::*;

    #[test]
    fn own_headers_stay_beside_the_common_ones_and_give_way_to_them() {
        let common = common_headers(Some(HeaderValue::from_static("http://node1:8080")));
        let mut response = text("text/plain", "x".into());
        for (name, value) in
            [(WWW_AUTHENTICATE, "Basic"), (WWW_AUTHENTICATE, "Bearer"), (CACHE_CONTROL, "public"), (CACHE_CONTROL, "private")]
        {
            response.headers_mut().append(name, HeaderValue::from_static(value));
        }
        let response = with_common_headers(response, &common);
        let all = |name: HeaderName| response.headers().get_all(name).iter().map(|value| value.to_str().unwrap()).collect::<Vec<_>>();
        assert_eq!(all(WWW_AUTHENTICATE), ["Basic", "Bearer"]);
        assert_eq!(all(CACHE_CONTROL), ["no-cache, no-store, must-revalidate"]);
        assert_eq!(all(CONTENT_TYPE), ["text/plain"]);
        assert_eq!(response.headers().len(), common.len() + 3);
    }
}
