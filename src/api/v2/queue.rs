//! `/v2/queue`.
//!
//! Facts (Marathon 1.11): `{"queue": [...]}`; `lastUnusedOffers` only with `embed=lastUnusedOffers`; `DELETE /v2/queue/{id}/delay` answers 204, or 404
//! when nothing of the app waits. The command line of DC/OS fails on a null in an entry.

use serde_json::json;
use warp::http::{Method, StatusCode};

use super::{path_id, submit};
use crate::{
    api::{
        Api, answer,
        call::Call,
        error::{ApiError, ApiResult},
        view::{self, app::Context},
        wall,
    },
    model::request::Request,
};

pub async fn route(api: &Api, call: Call, rest: &[&str]) -> ApiResult {
    match (&call.method, rest) {
        (&Method::GET | &Method::HEAD, []) => Ok(list(api, &call)),
        (_, []) => Err(ApiError::method(&[Method::GET, Method::HEAD])),
        (&Method::DELETE, [id @ .., "delay"]) if !id.is_empty() => {
            let unknown = |id| ApiError::not_found(format!("Application {id} not found in tasks queue."));
            let app = path_id(id).map_err(unknown)?;
            submit(api, &call, Request::ResetDelay { app }).await?;
            Ok(answer::empty(StatusCode::NO_CONTENT))
        }
        (_, [id @ .., "delay"]) if !id.is_empty() => Err(ApiError::method(&[Method::DELETE])),
        _ => Err(ApiError::no_route()),
    }
}

fn list(api: &Api, call: &Call) -> crate::api::Response {
    let view = api.handle.view_full();
    let now = wall();
    let context = Context::new(&view, &api.info, now);
    let with_offers = call.query.all("embed").any(|value| value == "lastUnusedOffers");
    let entries = view.queue.values().filter_map(|entry| {
        let app = view.tables.app(&entry.app)?;
        Some(view::queue::entry(&view, &context, entry, app, with_offers, now))
    });
    answer::ok(&json!({ "queue": entries.collect::<Vec<_>>() }))
}
