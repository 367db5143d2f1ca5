//! `GET /v2/audit`: who changed what, and who logged in; for administrators. Ours. `{"entries": [...]}`, the newest `limit` (100, at most 10,000) that fit
//! `user=` and `since=` (a time as everywhere in this API), oldest first.

use serde_json::json;
use tokio::sync::Semaphore;

use super::{origin, reads_only};
use crate::{
    api::{
        Api, answer,
        call::Call,
        error::{ApiError, ApiResult},
    },
    audit::{self, Query},
    model::{request::RequestError, time::TimestampError},
};

/// Entries in one answer unless the query says otherwise, and at most.
const LIMIT: usize = 100;
const MAX_LIMIT: usize = 10_000;

/// Readings of the files at once: each takes one file's length of memory.
static READERS: Semaphore = Semaphore::const_new(2);

pub async fn route(api: &Api, call: &Call) -> ApiResult {
    reads_only(call)?;
    if !origin(call).admin {
        return Err(RequestError::Forbidden.into());
    }
    let query = query(call)?;
    let Some(directory) = api.audit.directory().map(ToOwned::to_owned) else { return Ok(answer::ok(&json!({ "entries": [] }))) };
    let _turn = READERS.try_acquire().map_err(|_| ApiError::unavailable("the audit log is being read by others; try again in a moment"))?;
    let read = tokio::task::spawn_blocking(move || audit::read(&directory, &query)).await;
    let entries = read.map_err(|error| error.to_string()).and_then(|read| read.map_err(|error| error.to_string()));
    let entries = entries.map_err(|error| ApiError::unavailable(format!("the audit log cannot be read: {error}")))?;
    Ok(answer::ok(&json!({ "entries": entries })))
}

fn query(call: &Call) -> Result<Query, ApiError> {
    let since = call.query.first("since").map(str::parse).transpose();
    let since = since.map_err(|error: TimestampError| ApiError::unprocessable(format!("since: {error}")))?;
    let limit = call.query.first("limit").map(str::parse::<usize>).transpose().ok().map(|limit| limit.unwrap_or(LIMIT));
    let limit = limit.filter(|limit| (1..=MAX_LIMIT).contains(limit));
    let limit = limit.ok_or_else(|| ApiError::unprocessable(format!("limit: a number from 1 to {MAX_LIMIT} is expected")))?;
    Ok(Query { user: call.query.first("user").map(str::to_owned), since, limit })
}
