//! `/v2/tasks`, and killing tasks anywhere.
//!
//! Facts (Marathon 1.11): `status` and `status[]` pick `running` or `staging`, other values mean nothing. `POST /v2/tasks/delete` skips unknown ids but
//! refuses, with 400, a text that is no task id; `scale` with `wipe` is 400. A kill answers the killed tasks, one with `scale=true` a deployment.
//! From before 1.10: with `Accept: text/plain` the list is one line a service port.

use serde_json::{Value, json};
use warp::http::{Method, StatusCode};

use super::submit;
use crate::{
    api::{
        Api, Response, accept, answer,
        call::Call,
        error::{ApiError, ApiResult},
        view::task,
    },
    core::state::{Tables, View},
    model::{
        id::{InstanceId, TaskId},
        instance::{Condition, Instance},
        request::{KillSelector, Reply, Request, Violation},
    },
};

/// The media type of the old list.
pub const PLAIN: &str = "text/plain";

pub async fn route(api: &Api, mut call: Call, rest: &[&str]) -> ApiResult {
    match (&call.method, rest) {
        (&Method::GET | &Method::HEAD, []) => Ok(list(api, &call)),
        (_, []) => Err(ApiError::method(&[Method::GET, Method::HEAD])),
        (&Method::POST, ["delete"]) => {
            let flags = KillFlags::read(&call)?;
            let tasks = ids(&api.handle.view_full().tables, &call.json().await?)?;
            let reply = kill(api, &call, KillSelector::Tasks(tasks), flags).await?;
            Ok(killed(&api.handle.view_full(), reply))
        }
        (_, ["delete"]) => Err(ApiError::method(&[Method::POST])),
        _ => Err(ApiError::no_route()),
    }
}

/// What a kill does besides killing.
#[derive(Clone, Copy, Debug)]
pub struct KillFlags {
    scale: bool,
    force: bool,
    wipe: bool,
}

impl KillFlags {
    /// # Errors
    /// 400 for `scale` with `wipe`.
    pub fn read(call: &Call) -> Result<Self, ApiError> {
        let flags = Self { scale: call.flag("scale", false), force: call.flag("force", false), wipe: call.flag("wipe", false) };
        if flags.scale && flags.wipe {
            return Err(ApiError::bad("You cannot use scale and wipe at the same time."));
        }
        Ok(flags)
    }
}

/// Asks the core to kill.
pub async fn kill(api: &Api, call: &Call, selection: KillSelector, flags: KillFlags) -> Result<Reply, ApiError> {
    let KillFlags { scale, force, wipe } = flags;
    submit(api, call, Request::KillTasks { selection, scale, force, wipe }).await
}

/// What a kill of any number of tasks answers.
pub fn killed(view: &View, reply: Reply) -> Response {
    match reply {
        Reply::Deployment { id, version, .. } => answer::deployment(StatusCode::OK, &id, version),
        Reply::Killed(instances) => {
            let tasks: Vec<_> = instances.iter().map(|instance| task::task(&view.tables, instance)).collect();
            answer::ok(&json!({ "tasks": tasks }))
        }
        Reply::Done => answer::ok(&json!({ "tasks": [] })),
    }
}

fn list(api: &Api, call: &Call) -> Response {
    let view = api.handle.view_full();
    let tables = &view.tables;
    if wants_plain(call) {
        let apps = tables.apps.keys().filter_map(|id| tables.app(id));
        return answer::text("text/plain; charset=utf-8", task::plain(tables, apps));
    }
    let statuses: Vec<&str> = ["status", "status[]"].iter().flat_map(|name| call.query.all(name)).collect();
    let has = |wanted: &str| statuses.iter().any(|status| status.eq_ignore_ascii_case(wanted));
    let (running, staging) = (has("running"), has("staging"));
    let picked = |instance: &Instance| match instance.condition {
        _ if !running && !staging => true,
        Condition::Running => running,
        Condition::Provisioned | Condition::Staging => staging,
        _ => false,
    };
    let live = tables.instances.values().filter(|instance| instance.condition.is_live() && picked(instance));
    let tasks: Vec<_> = live.map(|instance| task::with_service_ports(tables, instance)).collect();
    answer::ok(&json!({ "tasks": tasks }))
}

/// True when the client prefers the old list to JSON.
pub fn wants_plain(call: &Call) -> bool {
    accept::best(&call.headers, &["application/json", PLAIN]) == Some(PLAIN)
}

fn ids(tables: &Tables, body: &Value) -> Result<Vec<TaskId>, ApiError> {
    let wrong = |path: &str, text: &str| ApiError::wrong_types(&[Violation::new(path, text)]);
    let Some(ids) = body.get("ids") else { return Err(wrong("/ids", "error.path.missing")) };
    let Value::Array(ids) = ids else { return Err(wrong("/ids", "error.expected.jsarray")) };
    let mut tasks = Vec::with_capacity(ids.len());
    for (index, id) in ids.iter().enumerate() {
        let Value::String(id) = id else { return Err(wrong(&format!("/ids({index})"), "error.expected.jsstring")) };
        tasks.extend(task_id(tables, id)?);
    }
    Ok(tasks)
}

/// A task id, or an instance id for its present task. `None`: an id in an older form, which nothing here has.
fn task_id(tables: &Tables, text: &str) -> Result<Option<TaskId>, ApiError> {
    if let Ok(task) = text.parse() {
        return Ok(Some(task));
    }
    if let Ok(instance) = text.parse::<InstanceId>() {
        return Ok(tables.instances.get(&instance).map(|instance| instance.task()));
    }
    match text.rsplit_once(['.', '_']) {
        Some((head, tail)) if !head.is_empty() && !tail.is_empty() => Ok(None),
        _ => Err(ApiError::bad(format!("Invalid task id '{text}'. ['{text}' is not a task id]"))),
    }
}
