//! `/logging`: how much is logged, by logger; for administrators.
//!
//! Facts (Marathon 1.11): `GET` answers each logger with its level, `INFO (inherited)` where it has none of its own; `POST` of
//! `{"logger": "root", "level": "debug", "durationSeconds": 60}` sets one and answers the same; without a duration for good. Loggers here are modules, see
//! [`Levels`](crate::telemetry::Levels).

use std::time::Duration;

use serde_json::{Value, json};
use warp::http::Method;

use super::origin;
use crate::{
    api::{
        Api, answer,
        call::Call,
        error::{ApiError, ApiResult},
    },
    model::request::{RequestError, Violation},
    telemetry::Level,
};

/// Bytes of a logger's name.
const MAX_LOGGER: usize = 200;

pub async fn route(api: &Api, mut call: Call) -> ApiResult {
    if !matches!(call.method, Method::GET | Method::HEAD | Method::POST) {
        return Err(ApiError::method(&[Method::GET, Method::HEAD, Method::POST]));
    }
    if !origin(&call).admin {
        return Err(RequestError::Forbidden.into());
    }
    if call.is_read() {
        return Ok(answer::ok(&api.levels.shown()));
    }
    let change = Change::read(&call.json().await?)?;
    let duration = change.seconds.map(|seconds| Duration::from_secs(u64::from(seconds)));
    api.levels.change(&change.logger, change.level, duration).map_err(|error| ApiError::unprocessable(error.to_string()))?;
    let mut body = json!({ "level": change.level.name(), "logger": change.logger });
    if let Some(seconds) = change.seconds {
        body["durationSeconds"] = seconds.into();
    }
    Ok(answer::ok(&body))
}

struct Change {
    logger: String,
    level: Level,
    seconds: Option<u32>,
}

impl Change {
    fn read(body: &Value) -> Result<Self, ApiError> {
        let wrong = |path: &str, text: &str| ApiError::wrong_types(&[Violation::new(path, text)]);
        let Value::Object(fields) = body else { return Err(wrong("/", "error.expected.jsobject")) };
        let text = |name: &str| match fields.get(name) {
            None | Some(Value::Null) => Err(wrong(&format!("/{name}"), "error.path.missing")),
            Some(value) => value.as_str().ok_or_else(|| wrong(&format!("/{name}"), "error.expected.jsstring")),
        };
        let (logger, level) = (text("logger")?, text("level")?);
        let level = Level::ALL.iter().find(|(name, _)| name.eq_ignore_ascii_case(level));
        let &(_, level) = level.ok_or_else(|| wrong("/level", "error.unknown.enum.literal"))?;
        let seconds = match fields.get("durationSeconds") {
            None | Some(Value::Null) => None,
            Some(seconds) => {
                let seconds =
                    seconds.as_u64().and_then(|seconds| u32::try_from(seconds).ok()).filter(|seconds| *seconds <= i32::MAX as u32);
                Some(seconds.ok_or_else(|| wrong("/durationSeconds", "error.expected.jsnumber"))?)
            }
        };
        if logger.is_empty() || logger.len() > MAX_LOGGER {
            let text = if logger.is_empty() { "must not be empty" } else { "is too long" };
            return Err(ApiError::invalid(&[Violation::new("/logger", text)]));
        }
        Ok(Self { logger: logger.to_owned(), level, seconds })
    }
}

#[cfg(test)]
mod tests {
    use crate::api::testing::{Server, World};

    #[tokio::test]
    async fn levels_are_shown_and_set() {
        let server = Server::new(World::default());
        let check = async |body: &str, status: u16, expected: &str| {
            let answer = server.ask("POST /logging", body).await;
            assert_eq!((answer.status.as_u16(), answer.body.contains(expected)), (status, true), "{body}: {}", answer.body);
        };
        assert_eq!(server.ask("GET /logging", "").await.json()["xtao"], "INFO (inherited)");
        check(r#"{"logger": "xtao.api", "level": "DEBUG"}"#, 200, r#"{"level":"debug","logger":"xtao.api"}"#).await;
        check(r#"{"logger": "root", "level": "warn", "durationSeconds": 60}"#, 200, r#""durationSeconds":60"#).await;
        let shown = server.ask("GET /logging", "").await.json();
        assert_eq!((&shown["ROOT"], &shown["xtao::api"], &shown["xtao"]), (&"WARN".into(), &"DEBUG".into(), &"WARN (inherited)".into()));
        check(r#"{"logger": "", "level": "info"}"#, 422, "must not be empty").await;
        check(r#"{"logger": "x", "level": "loud"}"#, 422, "error.unknown.enum.literal").await;
        check(r#"{"logger": "x"}"#, 422, r#""path":"/level","errors":["error.path.missing"]"#).await;
        check(r#"{"logger": 1, "level": "info"}"#, 422, "error.expected.jsstring").await;
        check(r#"{"logger": "x", "level": "info", "durationSeconds": -1}"#, 422, "/durationSeconds").await;
        check("[]", 422, "error.expected.jsobject").await;
        check("{", 400, "Invalid JSON").await;
        assert_eq!(server.ask("PUT /logging", "{}").await.status, 405);
        assert_eq!(server.ask("GET /logging/x", "").await.status, 404);
        for line in ["GET /logging", "POST /logging"] {
            assert_eq!(server.ask_as("anna", line, r#"{"logger": "root", "level": "trace"}"#).await.status, 403, "{line}");
        }
    }
}
