//! `/v2/tasks`, and killing tasks anywhere.
//!
//! Facts (Marathon 1.11): `status` and `status[]` pick `running` or `staging`, other values mean nothing. `POST /v2/tasks/delete` skips unknown ids but
//! refuses, with 400, a text that is no task id; `scale` with `wipe` is 400. A kill answers the killed tasks, one with `scale=true` a deployment.
//! From before 1.10: with `Accept: text/plain` the list is one line a service port.

use serde_json::{Value, json};
use warp::http::{Method, StatusCode};

use super::{seen, submit};
use crate::{
    api::{
        Api, Response, accept,
        access::Seen,
        answer,
        call::Call,
        error::{ApiError, ApiResult},
        view::task::{self, Task},
    },
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
            let tasks = ids(&seen(api, &call), &call.json().await?)?;
            let reply = kill(api, &call, KillSelector::Tasks(tasks), flags).await?;
            Ok(killed(&seen(api, &call), reply))
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
pub fn killed(seen: &Seen, reply: Reply) -> Response {
    match reply {
        Reply::Deployment { id, version, .. } => answer::deployment(StatusCode::OK, &id, version),
        Reply::Killed(instances) => answer::list("tasks", instances.iter().map(|instance| Task::new(seen, instance))),
        Reply::Done | Reply::Planned(_) => answer::ok(&json!({ "tasks": [] })),
    }
}

fn list(api: &Api, call: &Call) -> Response {
    let seen = seen(api, call);
    if wants_plain(call) {
        return answer::text("text/plain; charset=utf-8", task::plain(&seen, seen.apps()));
    }
    let statuses: Vec<&str> = ["status", "status[]"].iter().flat_map(|name| call.query.all(name)).collect();
    let has = |wanted: &str| statuses.iter().any(|status| status.eq_ignore_ascii_case(wanted));
    let (running, staging) = (has("running"), has("staging"));
    let picked = |instance: &Instance| match seen.condition(instance) {
        _ if !running && !staging => true,
        Condition::Running => running,
        Condition::Provisioned | Condition::Staging => staging,
        _ => false,
    };
    // Those of pods are shown with their pods.
    let live = seen.instances().filter(|instance| instance.condition.is_live() && instance.containers.is_empty() && picked(instance));
    answer::list("tasks", live.map(|instance| Task::new(&seen, instance).with_service_ports()))
}

/// True when the client prefers the old list to JSON.
pub fn wants_plain(call: &Call) -> bool {
    accept::best(&call.headers, &["application/json", PLAIN]) == Some(PLAIN)
}

fn ids(seen: &Seen, body: &Value) -> Result<Vec<TaskId>, ApiError> {
    let wrong = |path: &str, text: &str| ApiError::wrong_types(&[Violation::new(path, text)]);
    let Some(ids) = body.get("ids") else { return Err(wrong("/ids", "error.path.missing")) };
    let Value::Array(ids) = ids else { return Err(wrong("/ids", "error.expected.jsarray")) };
    let mut tasks = Vec::with_capacity(ids.len());
    for (index, id) in ids.iter().enumerate() {
        let Value::String(id) = id else { return Err(wrong(&format!("/ids({index})"), "error.expected.jsstring")) };
        tasks.extend(task_id(seen, id)?);
    }
    Ok(tasks)
}

/// A task id, or an instance id for its present task. `None`: an id in an older form, which nothing here has.
fn task_id(seen: &Seen, text: &str) -> Result<Option<TaskId>, ApiError> {
    if let Ok(task) = text.parse() {
        return Ok(Some(task));
    }
    if let Ok(instance) = text.parse::<InstanceId>() {
        return Ok(seen.instance(&instance).map(|instance| instance.task()));
    }
    match text.rsplit_once(['.', '_']) {
        Some((head, tail)) if !head.is_empty() && !tail.is_empty() => Ok(None),
        _ => Err(ApiError::bad(format!("Invalid task id '{text}'. ['{text}' is not a task id]"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::testing::{Server, World, app},
        model::app::PortNumber,
    };

    fn world() -> World {
        let mut world = World::default();
        world.app(app("/prod/web").bridge(&[(PortNumber::Dynamic, 80, None), (PortNumber::Dynamic, 81, None)]));
        world.instance("/prod/web", 1, Condition::Running, &[31_001, 31_002]);
        world.instance("/prod/web", 2, Condition::Running, &[31_003, 31_004]);
        world.instance("/prod/web", 3, Condition::Provisioned, &[31_005, 31_006]);
        let mut portless = app("/portless");
        portless.0.port_definitions.clear();
        world.app(portless).instance("/portless", 4, Condition::Running, &[]).instance("/portless", 5, Condition::Unreachable, &[]);
        world.instance("/portless", 6, Condition::Scheduled, &[]);
        world
    }

    #[tokio::test]
    async fn bodies_are_marathons() {
        let server = Server::new(world());
        insta::assert_snapshot!("running", server.ask("GET /v2/tasks?status[]=running&status=unheard-of", "").await.show());
        for (name, line) in [("plain", "GET /v2/tasks"), ("plain_of_app", "GET /v2/apps/prod/web/tasks")] {
            insta::assert_snapshot!(name, server.ask_with(line, &[("accept", "text/plain")], "").await.show());
        }
    }

    #[tokio::test]
    async fn the_list_is_picked_by_status() {
        let server = Server::new(world());
        let check = async |query: &str, expected: usize| {
            let tasks = server.ask(&format!("GET /v2/tasks/?{query}"), "").await.json();
            assert_eq!(tasks["tasks"].as_array().unwrap().len(), expected, "{query}");
        };
        check("", 5).await;
        check("status=running", 3).await;
        check("status=staging", 1).await;
        check("status=running&status=staging", 4).await;
        check("status%5B%5D=staging", 1).await;
        check("status=bogus", 5).await;
    }

    #[tokio::test]
    async fn a_kill_names_its_tasks() {
        let server = Server::new(world());
        let check = async |line: &str, body: &str, status: u16, expected: &str| {
            let answer = server.ask(line, body).await;
            assert_eq!((answer.status.as_u16(), answer.body.contains(expected)), (status, true), "{line} {body}: {}", answer.body);
        };
        let id = "prod_web.instance-00000000-0000-0000-0000-000000000001";
        check("POST /v2/tasks/delete", &format!(r#"{{"ids": ["{id}._app.1"]}}"#), 200, id).await;
        check("POST /v2/tasks/delete", &format!(r#"{{"ids": ["{id}"]}}"#), 200, id).await;
        check("POST /v2/tasks/delete?scale=True", &format!(r#"{{"ids": ["{id}._app.1"]}}"#), 200, "deploymentId").await;
        check("POST /v2/tasks/delete", r#"{"ids": ["old.6b0cd2e8-b243-11e8-8b80-024247c0a575"]}"#, 200, r#"{"tasks":[]}"#).await;
        check("POST /v2/tasks/delete", r#"{"ids": []}"#, 200, r#"{"tasks":[]}"#).await;
        check("POST /v2/tasks/delete", r#"{"ids": ["nonsense"]}"#, 400, "Invalid task id 'nonsense'. [").await;
        check("POST /v2/tasks/delete", r#"{"ids": [1]}"#, 422, "/ids(0)").await;
        check("POST /v2/tasks/delete", r#"{"ids": "x"}"#, 422, "error.expected.jsarray").await;
        check("POST /v2/tasks/delete", "{}", 422, "error.path.missing").await;
        check("POST /v2/tasks/delete?scale=true&wipe=true", "{}", 400, "You cannot use scale and wipe at the same time.").await;
        check("GET /v2/tasks/delete", "", 405, "Method Not Allowed").await;
        check("GET /v2/tasks/other", "", 404, "URI not found").await;
    }
}
