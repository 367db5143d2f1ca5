//! The routes. Each file names the facts about Marathon 1.11 that it relies on; bodies are in [`view`](super::view).
//!
//! In common: a trailing slash, doubled slashes and encoded ones change nothing. `force`, `scale` and `wipe` are true only when they say so. A change
//! answers `{"version", "deploymentId"}` and repeats the id in `Marathon-Deployment-Id`. What has been answered is visible to the same client's next
//! read, because a request is answered only after its commit and its snapshot.

use warp::http::Method;

use super::{
    Api, Response, accept, answer,
    call::Call,
    error::{ApiError, ApiResult},
    guard, identity,
};
use crate::model::{
    id::PathId,
    request::{Reply, Request},
};

mod apps;
mod bricks;
mod deployments;
mod events;
mod groups;
mod info;
mod ports;
mod queue;
mod tasks;

/// Answers any request, in time.
pub async fn answer(api: Api, call: Call) -> Response {
    let in_time = tokio::time::timeout(api.limits.request_time, route(&api, call)).await;
    let late = || {
        let seconds = api.limits.request_time.as_secs();
        Err(ApiError::unavailable(format!("no answer within {seconds} s; a change that was asked for may still be made")))
    };
    in_time.unwrap_or_else(|_| late()).unwrap_or_else(|error| error.response())
}

async fn route(api: &Api, call: Call) -> ApiResult {
    guard::check(&api.info, &call.method, &call.headers)?;
    let segments = call.segments.clone();
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    match segments.as_slice() {
        ["ping"] => ping(&call),
        ["v2", "apps", rest @ ..] => apps::route(api, call, rest).await,
        ["v2", "deployments", rest @ ..] => deployments::route(api, call, rest).await,
        ["v2", "groups", rest @ ..] => groups::route(api, &call, rest),
        ["v2", "tasks", rest @ ..] => tasks::route(api, call, rest).await,
        ["v2", "queue", rest @ ..] => queue::route(api, call, rest).await,
        ["v2", "events"] => events::route(api, &call),
        ["v2", "info"] => info::info(api, &call),
        ["v2", "leader"] => info::leader(api, &call),
        ["v2", "plugins", rest @ ..] => info::plugins(&call, rest),
        ["v2", "ports", rest @ ..] => ports::route(api, call, rest).await,
        ["v2", "bricks", rest @ ..] => bricks::route(api, call, rest).await,
        _ => Err(ApiError::no_route()),
    }
}

/// `pong`: as a text for `*/*`, `text/*` and without `Accept`; as a JSON string for `application/json`; 204 when the client wants neither.
fn ping(call: &Call) -> ApiResult {
    reads_only(call)?;
    Ok(match accept::best(&call.headers, &["text/plain", "application/json"]) {
        Some("application/json") => answer::ok(&"pong"),
        Some(_) => answer::text("text/plain; charset=utf-8", "pong".into()),
        None => answer::empty(warp::http::StatusCode::NO_CONTENT),
    })
}

/// # Errors
/// 405 for anything but GET and HEAD.
fn reads_only(call: &Call) -> Result<(), ApiError> {
    if call.is_read() { Ok(()) } else { Err(ApiError::method(&[Method::GET, Method::HEAD])) }
}

/// Asks the core.
async fn submit(api: &Api, call: &Call, request: Request) -> Result<Reply, ApiError> {
    Ok(api.handle.submit(identity::origin(call), request).await?)
}

/// An id spelled by the segments of a path.
///
/// # Errors
/// The text of the id, for a message, when no app can have it.
fn path_id(segments: &[&str]) -> Result<PathId, String> {
    let text = format!("/{}", segments.join("/"));
    text.parse().map_err(|_| text)
}
