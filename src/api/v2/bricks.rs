//! `/v2/bricks`: storage that outlives its app. Ours: `GET` answers `{"bricks": [...]}`, `GET /v2/bricks/{name}` one of them,
//! `DELETE /v2/bricks/{name}` 204 (409 while an app uses it; `force=true` never overrides a live holder), `POST /v2/bricks/{name}/fence` with
//! `{"epoch": n}` 204: an administrator's word that the holder of that lease is certainly gone.

use serde_json::{Value, json};
use warp::http::{Method, StatusCode};

use super::submit;
use crate::{
    api::{
        Api, answer,
        call::Call,
        error::{ApiError, ApiResult},
        view::storage,
    },
    model::{
        id::BrickName,
        request::{Request, RequestError, Violation},
    },
};

pub async fn route(api: &Api, mut call: Call, rest: &[&str]) -> ApiResult {
    match (&call.method, rest) {
        (&Method::GET | &Method::HEAD, []) => {
            let view = api.handle.view_full();
            let bricks: Vec<_> = view.tables.bricks.values().map(|brick| storage::brick(&view, brick)).collect();
            Ok(answer::ok(&json!({ "bricks": bricks })))
        }
        (_, []) => Err(ApiError::method(&[Method::GET, Method::HEAD])),
        (&Method::GET | &Method::HEAD, [name]) => one(api, BrickName::new(*name)),
        (&Method::DELETE, [name]) => {
            let request = Request::ReleaseBrick { brick: BrickName::new(*name), force: call.flag("force", false) };
            submit(api, &call, request).await?;
            Ok(answer::empty(StatusCode::NO_CONTENT))
        }
        (_, [_]) => Err(ApiError::method(&[Method::GET, Method::HEAD, Method::DELETE])),
        (&Method::POST, [name, "fence"]) => {
            let epoch = epoch(&call.json().await?)?;
            submit(api, &call, Request::FenceBrick { brick: BrickName::new(*name), epoch }).await?;
            Ok(answer::empty(StatusCode::NO_CONTENT))
        }
        (_, [_, "fence"]) => Err(ApiError::method(&[Method::POST])),
        _ => Err(ApiError::no_route()),
    }
}

fn one(api: &Api, name: BrickName) -> ApiResult {
    let view = api.handle.view_full();
    let brick = view.tables.bricks.get(&name).ok_or_else(|| ApiError::from(RequestError::NoBrick(name)))?;
    Ok(answer::ok(&storage::brick(&view, brick)))
}

fn epoch(body: &Value) -> Result<u64, ApiError> {
    let wrong = |text| ApiError::wrong_types(&[Violation::new("/epoch", text)]);
    match body.get("epoch") {
        None => Err(wrong("error.path.missing")),
        Some(epoch) => epoch.as_u64().ok_or_else(|| wrong("error.expected.jsnumber")),
    }
}
