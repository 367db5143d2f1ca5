//! `/v2/apps`: apps, their tasks and their versions.
//!
//! Facts (Marathon 1.11):
//! * `POST` answers 201 with the whole app; `PUT` of one 200, or 201 when it was created; every other change 200. `force` is false by default, but true
//!   for `DELETE` of an app.
//! * Ids have any depth, so a route is known by its end: `.../restart`, `.../tasks`, `.../tasks/{task}`, `.../versions`, `.../versions/{version}`;
//!   `.../*` names all apps below a group.
//! * In a list counters and deployments are always there; in a single app also tasks and the last failure.
//! * (Ours:) `embed=endpoints` adds where an app is reached; one that uses `@PORT` or a brick shows it unasked.
//! * (Ours:) `PUT` or `PATCH` of one with `{"owner": "name"}` and nothing else hands it over: an administrator's alone.
//! * `PUT` replaces each key that is written, unless `partialUpdate=false`; the id of the path wins over the body's.

use serde_json::{Value, json};
use warp::http::{Method, StatusCode};

use super::{
    new_owner, path_id, seen, submit,
    tasks::{self, KillFlags},
};
use crate::{
    api::{
        Api, Response,
        access::Seen,
        answer,
        call::Call,
        error::{ApiError, ApiResult},
        query::Embed,
        selector::Selector,
        view::{
            app::Context,
            task::{self, Task},
        },
        wall,
    },
    model::{
        app::{App, input::AppInput},
        id::{PATH_PATTERN_TEXT, PathId},
        request::{KillSelector, Possession, Reply, Request, RequestError, Violation},
        time::{Timestamp, TimestampError},
    },
};

pub async fn route(api: &Api, call: Call, rest: &[&str]) -> ApiResult {
    match rest {
        [] => all(api, call).await,
        ["*"] => below(api, &call, &[]),
        [group @ .., "*"] => below(api, &call, group),
        // To `DELETE` it is an id like any other.
        [id @ .., "restart"] if !id.is_empty() && call.method != Method::DELETE => restart(api, call, id).await,
        [id @ .., "tasks"] if !id.is_empty() => tasks_of(api, call, id).await,
        [id @ .., "tasks", task] if !id.is_empty() => kill_one(api, call, id, task).await,
        [id @ .., "versions"] if !id.is_empty() => versions(api, &call, id),
        [id @ .., "versions", version] if !id.is_empty() => version_of(api, &call, id, version),
        id => one(api, call, id).await,
    }
}

async fn all(api: &Api, call: Call) -> ApiResult {
    match call.method {
        Method::GET | Method::HEAD => list(api, &call),
        Method::POST => create(api, call).await,
        Method::PUT => update_all(api, call, true).await,
        Method::PATCH => update_all(api, call, false).await,
        _ => Err(ApiError::method(&[Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH])),
    }
}

async fn one(api: &Api, call: Call, id: &[&str]) -> ApiResult {
    match call.method {
        Method::GET | Method::HEAD => show(api, &call, id),
        Method::PUT => update(api, call, id, true).await,
        Method::PATCH => update(api, call, id, false).await,
        Method::DELETE => {
            let app = path_id(id).map_err(ApiError::no_app)?;
            let request = Request::DeleteApp { app, force: call.flag("force", true) };
            Ok(changed(submit(api, &call, request).await?))
        }
        _ => Err(ApiError::method(&[Method::GET, Method::HEAD, Method::PUT, Method::PATCH, Method::DELETE])),
    }
}

// === Reading ===

fn list(api: &Api, call: &Call) -> ApiResult {
    let seen = seen(api, call);
    let filter = Filter::read(call)?;
    let context = Context::new(&seen, &api.info, wall());
    let embed = Embed::LIST.and(&call.query);
    let apps = seen.apps().filter(|app| filter.picks(app));
    Ok(answer::list("apps", apps.map(|app| context.app(app, embed))))
}

/// What the query of a list asks for; all of it must hold.
struct Filter {
    id: Option<String>,
    cmd: Option<String>,
    labels: Vec<Selector>,
}

impl Filter {
    fn read(call: &Call) -> Result<Self, ApiError> {
        let lower = |name: &str| call.query.first(name).map(str::to_lowercase);
        let labels = call.query.all("label").map(Selector::read).collect::<Result<_, _>>().map_err(ApiError::unprocessable)?;
        Ok(Self { id: lower("id"), cmd: lower("cmd"), labels })
    }

    fn picks(&self, app: &App) -> bool {
        let holds = |text: &str, part: &str| text.to_lowercase().contains(part);
        self.id.as_ref().is_none_or(|part| holds(app.id.as_str(), part))
            && self.cmd.as_ref().is_none_or(|part| app.cmd.as_ref().is_some_and(|cmd| holds(cmd, part)))
            && self.labels.iter().all(|selector| selector.picks(&app.labels))
    }
}

fn below(api: &Api, call: &Call, id: &[&str]) -> ApiResult {
    super::reads_only(call)?;
    let seen = seen(api, call);
    let id = group_id(&seen, id)?;
    let context = Context::new(&seen, &api.info, wall());
    let embed = Embed::ONE.and(&call.query);
    Ok(answer::list("*", seen.apps_below(&id).map(|app| context.app(app, embed))))
}

fn show(api: &Api, call: &Call, id: &[&str]) -> ApiResult {
    let seen = seen(api, call);
    let id = path_id(id).map_err(ApiError::no_app)?;
    let app = seen.app(&id).ok_or_else(|| ApiError::no_app(&id))?;
    let context = Context::new(&seen, &api.info, wall());
    Ok(answer::ok(&json!({ "app": context.app(app, Embed::ONE.and(&call.query)) })))
}

fn versions(api: &Api, call: &Call, id: &[&str]) -> ApiResult {
    super::reads_only(call)?;
    let seen = seen(api, call);
    let id = known(&seen, id)?;
    let mut versions: Vec<Timestamp> = seen.versions_of(&id).map(|app| app.version).collect();
    versions.reverse();
    Ok(answer::ok(&json!({ "versions": versions })))
}

fn version_of(api: &Api, call: &Call, id: &[&str], version: &str) -> ApiResult {
    super::reads_only(call)?;
    let version = version.parse().map_err(|error: TimestampError| ApiError::unprocessable(error.to_string()))?;
    let seen = seen(api, call);
    let id = path_id(id).map_err(ApiError::no_app)?;
    let found = seen.app(&id).and_then(|_| seen.definition(&id, version));
    let app = found.ok_or(RequestError::NoVersion(id, version))?;
    let embed = Embed::default().and(&call.query);
    Ok(answer::ok(&Context::new(&seen, &api.info, wall()).definition(app, embed.endpoints)))
}

/// An app that exists.
fn known(seen: &Seen, id: &[&str]) -> Result<PathId, ApiError> {
    let id = path_id(id).map_err(ApiError::no_app)?;
    if seen.app(&id).is_some() { Ok(id) } else { Err(ApiError::no_app(id)) }
}

/// A group that has something in it.
fn group_id(seen: &Seen, id: &[&str]) -> Result<PathId, ApiError> {
    let id = path_id(id).map_err(ApiError::no_group)?;
    if seen.sees_group(&id) { Ok(id) } else { Err(ApiError::no_group(id)) }
}

// === Changing ===

async fn create(api: &Api, mut call: Call) -> ApiResult {
    let input = AppInput::read(&call.json().await?).map_err(|violations| ApiError::unreadable(&violations))?;
    let id = input_id(&input, "")?;
    let request = Request::CreateApp { input: input.into(), force: call.flag("force", false) };
    let Reply::Deployment { id: deployment, version, .. } = submit(api, &call, request).await? else {
        return Ok(answer::empty(StatusCode::CREATED));
    };
    let seen = seen(api, &call);
    let context = Context::new(&seen, &api.info, wall());
    // Someone else may have changed or deleted it since; what was asked for is still what is answered.
    let body = match seen.definition(&id, version) {
        Some(app) => Value::Object(context.created(app, &deployment, Embed::default().and(&call.query))),
        None => json!({ "id": id, "version": version, "deployments": [{ "id": deployment }] }),
    };
    let response = answer::with_deployment(answer::json(StatusCode::CREATED, &body), &deployment);
    Ok(answer::with_location(response, &call.base(&api.info.leader_url()), &id))
}

async fn update(api: &Api, mut call: Call, id: &[&str], create: bool) -> ApiResult {
    let id = match path_id(id) {
        Err(text) if create => return Err(bad_id(text, call.json().await?)),
        id => id.map_err(ApiError::no_app)?,
    };
    let mut body = call.json().await?;
    if body.get("owner").is_some() {
        let request = Request::HandOver { what: Possession::App(id), owner: new_owner(&body)? };
        return Ok(changed(submit(api, &call, request).await?));
    }
    let partial = !create || call.flag("partialUpdate", true);
    if !partial || seen(api, &call).app(&id).is_none() {
        give_id(&mut body, id.as_str());
    }
    let input = AppInput::read(&body).map_err(|violations| ApiError::unreadable(&violations))?;
    let request = Request::UpdateApps { updates: vec![(id.clone(), input)], partial, create, force: call.flag("force", false) };
    let reply = submit(api, &call, request).await?;
    match &reply {
        Reply::Deployment { id: deployment, version, created } if created.contains(&id) => {
            let response = answer::deployment(StatusCode::CREATED, deployment, *version);
            Ok(answer::with_location(response, &call.base(&api.info.leader_url()), &id))
        }
        _ => Ok(changed(reply)),
    }
}

/// A whole definition is read with the id of the path, whatever it says of its own.
fn give_id(body: &mut Value, id: &str) {
    if let Some(fields) = body.as_object_mut() {
        fields.insert("id".into(), id.into());
    }
}

/// Of an app that cannot be made, because `text` is no id.
fn bad_id(text: String, mut body: Value) -> ApiError {
    give_id(&mut body, &text);
    match AppInput::read(&body) {
        Err(violations) => ApiError::unreadable(&violations),
        // It is in the pattern, but too long.
        Ok(_) => ApiError::invalid(&[Violation::new("/id", PATH_PATTERN_TEXT)]),
    }
}

async fn update_all(api: &Api, mut call: Call, create: bool) -> ApiResult {
    let body = call.json().await?;
    let Value::Array(items) = &body else {
        return Err(ApiError::wrong_types(&[Violation::new("/", "error.expected.jsarray")]));
    };
    let partial = !create || call.flag("partialUpdate", true);
    let mut updates = Vec::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        let prefix = format!("({index})");
        let input = AppInput::read(item).map_err(|violations| ApiError::unreadable(&beneath(&prefix, violations)))?;
        if partial && input.id().is_none() {
            return Err(ApiError::unprocessable("requirement failed: App Update must have app id set"));
        }
        updates.push((input_id(&input, &prefix)?, input));
    }
    let request = Request::UpdateApps { updates, partial, create, force: call.flag("force", false) };
    Ok(changed(submit(api, &call, request).await?))
}

/// The id that must be in a body, relative to the root. `prefix` is where the body stands in a list.
fn input_id(input: &AppInput, prefix: &str) -> Result<PathId, ApiError> {
    let path = format!("{prefix}/id");
    let Some(text) = input.id() else { return Err(ApiError::wrong_types(&[Violation::new(path, "error.path.missing")])) };
    PathId::resolve(text, &PathId::root()).map_err(|error| ApiError::invalid(&[Violation::new(path, error.to_string())]))
}

/// Violations of an element, as violations of the list.
fn beneath(prefix: &str, mut violations: Vec<Violation>) -> Vec<Violation> {
    for violation in &mut violations {
        let path = if violation.path == "/" { "" } else { violation.path.as_str() };
        violation.path = format!("{prefix}{path}");
    }
    violations
}

async fn restart(api: &Api, call: Call, id: &[&str]) -> ApiResult {
    if call.method != Method::POST {
        return Err(ApiError::method(&[Method::POST]));
    }
    // The web page sends `{"force": true}` as a body; Marathon looks only at the query, and so do we.
    let app = path_id(id).map_err(ApiError::no_app)?;
    let request = Request::RestartApp { app, force: call.flag("force", false) };
    Ok(changed(submit(api, &call, request).await?))
}

/// `{"version", "deploymentId"}`
fn changed(reply: Reply) -> Response {
    match reply {
        Reply::Deployment { id, version, .. } => answer::deployment(StatusCode::OK, &id, version),
        Reply::Planned(_) | Reply::Killed(_) | Reply::Done => answer::ok(&json!({})),
    }
}

// === Tasks ===

async fn tasks_of(api: &Api, call: Call, id: &[&str]) -> ApiResult {
    match call.method {
        Method::GET | Method::HEAD => list_tasks(api, &call, id),
        Method::DELETE => {
            let flags = KillFlags::read(&call)?;
            let app = path_id(id).map_err(ApiError::no_app)?;
            // As in Marathon an empty one is the name of no node, so that a script without its variable kills nothing.
            let host = call.query.first("host").map(str::to_owned);
            let reply = tasks::kill(api, &call, KillSelector::App { app, host }, flags).await?;
            Ok(tasks::killed(&seen(api, &call), reply))
        }
        _ => Err(ApiError::method(&[Method::GET, Method::HEAD, Method::DELETE])),
    }
}

fn list_tasks(api: &Api, call: &Call, id: &[&str]) -> ApiResult {
    let seen = seen(api, call);
    let apps: Vec<_> = match id {
        [group @ .., "*"] => seen.apps_below(&group_id(&seen, group)?).collect(),
        _ => seen.app(&known(&seen, id)?).into_iter().collect(),
    };
    if tasks::wants_plain(call) {
        return Ok(answer::text("text/plain; charset=utf-8", task::plain(&seen, apps.into_iter())));
    }
    let live = apps.iter().flat_map(|app| task::live(&seen, &app.id));
    Ok(answer::list("tasks", live.map(|instance| Task::new(&seen, instance))))
}

async fn kill_one(api: &Api, call: Call, id: &[&str], task: &str) -> ApiResult {
    if call.method != Method::DELETE {
        return Err(ApiError::method(&[Method::DELETE]));
    }
    let flags = KillFlags::read(&call)?;
    let app = path_id(id).map_err(ApiError::no_app)?;
    let selection = KillSelector::Task { app, task: task.to_owned() };
    match tasks::kill(api, &call, selection, flags).await? {
        Reply::Killed(killed) => {
            let instance = killed.first().ok_or_else(|| RequestError::NoTask(task.to_owned()))?;
            Ok(answer::ok(&json!({ "task": Task::new(&seen(api, &call), instance) })))
        }
        reply => Ok(changed(reply)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::testing::{Server, World, app, at},
        model::{
            app::PortNumber,
            cluster::TaskState,
            id::{InstanceId, TaskId},
            instance::{Condition, TaskFailure},
            port::Position,
            record::Record,
        },
    };

    /// Two groups, a service with an allotted port and one locked by a deployment.
    fn world() -> World {
        let mut world = World::default();
        world.agent();
        world.app(app("/testdb").env("DBPORT", "@PORT").label("tier", "db")).claim(1066, "/testdb", Position::Env(0));
        world.app(app("/testdb").env("DBPORT", "@PORT").label("tier", "db").version(at(50)));
        world.instance("/testdb", 1, Condition::Running, &[31_001]);
        world.app(app("/shop/web").bridge(&[(PortNumber::Dynamic, 80, Some("http"))])).deployment("deployment-1", "/shop/web");
        world.instance("/shop/web", 2, Condition::Running, &[31_002]);
        world.instance("/shop/web", 3, Condition::Staging, &[31_003]);
        world.instance("/shop/web", 4, Condition::Scheduled, &[]);
        world.instance("/shop/web", 5, Condition::Failed, &[31_004]);
        world.app(app("/shop/api/v1").label("tier", "web"));
        world.app(app("/shopping"));
        world.put(Record::Failure(std::sync::Arc::new(TaskFailure {
            app: "/testdb".parse().unwrap(),
            task: TaskId::app(InstanceId::new("/testdb".parse().unwrap(), uuid::Uuid::from_u128(1)), 1),
            state: TaskState::Failed,
            message: "exit status 1".into(),
            host: "node1".into(),
            agent: "agent-S1".parse().unwrap(),
            timestamp: at(9),
            version: at(0),
        })));
        world
    }

    #[tokio::test]
    async fn bodies_are_marathons() {
        let server = Server::new(world());
        for (name, line, body) in [
            ("list", "GET /v2/apps", ""),
            ("one", "GET /v2/apps//testdb/", ""),
            ("one_bridged", "GET /v2/apps/shop/web?embed=app.readiness&embed=endpoints", ""),
            ("one_plain", "GET /v2/apps/shopping", ""),
            ("below", "GET /v2/apps/shop/*", ""),
            ("versions", "GET /v2/apps/testdb/versions", ""),
            ("version", "GET /v2/apps/testdb/versions/2020-01-31T12:00:00.000Z", ""),
            ("tasks", "GET /v2/apps/shop/web/tasks", ""),
            ("create", "POST /v2/apps", r#"{"id": "new", "cmd": "sleep 1"}"#),
            ("update", "PUT /v2/apps/testdb", r#"{"cpus": 1}"#),
            ("update_creates", "PUT /v2/apps/shop/new", r#"{"cmd": "sleep 1"}"#),
            ("update_all", "PUT /v2/apps", r#"[{"id": "/testdb", "cpus": 1}]"#),
            ("delete", "DELETE /v2/apps/testdb", ""),
            ("kill", "DELETE /v2/apps/shop/web/tasks?host=node1", ""),
            ("kill_one", "DELETE /v2/apps/shop/web/tasks/shop_web.instance-00000000-0000-0000-0000-000000000002._app.1", ""),
            ("kill_and_scale", "DELETE /v2/apps/shop/web/tasks?scale=True", ""),
            ("exists", "POST /v2/apps", r#"{"id": "/shopping", "cmd": "sleep 1"}"#),
            ("locked", "PUT /v2/apps/shop/web", r#"{"cpus": 1}"#),
            ("wrong_types", "PUT /v2/apps", r#"[{"id": "/testdb"}, {"cmd": "sleep 1"}, 1]"#),
        ] {
            insta::assert_snapshot!(name, server.ask(line, body).await.show());
        }
    }

    #[tokio::test]
    async fn every_route_has_its_status() {
        let server = Server::new(world());
        let check = async |line: &str, body: &str, status: u16, message: &str| {
            let answer = server.ask(line, body).await;
            assert_eq!(answer.status, status, "{line}: {}", answer.body);
            if !message.is_empty() {
                assert_eq!(answer.message(), message, "{line}");
            }
        };
        check("GET /v2/apps/", "", 200, "").await;
        check("HEAD /v2/apps", "", 200, "").await;
        check("GET /service/marathon/v2/apps", "", 200, "").await;
        check("GET /marathon/v2/apps/%2Fshop%2Fweb", "", 200, "").await;
        check("DELETE /v2/apps", "", 405, "Method Not Allowed").await;
        check("GET /v2/apps/none", "", 404, "App '/none' does not exist").await;
        check("GET /v2/apps/NONE", "", 404, "App '/NONE' does not exist").await;
        check("GET /v2/apps/shop", "", 404, "App '/shop' does not exist").await;
        check("GET /v2/apps/none/*", "", 404, "Group '/none' does not exist").await;
        check("GET /v2/apps/testdb/*", "", 404, "Group '/testdb' does not exist").await;
        check("GET /v2/apps/*", "", 200, "").await;
        check("POST /v2/apps/shop/*", "", 405, "Method Not Allowed").await;
        check("GET /v2/apps/none/versions", "", 404, "App '/none' does not exist").await;
        check(
            "GET /v2/apps/testdb/versions/yesterday",
            "",
            422,
            "Invalid timestamp provided 'yesterday'. Expecting ISO-8601 datetime string.",
        )
        .await;
        check(
            "GET /v2/apps/testdb/versions/2020-01-01T00:00:00.000Z",
            "",
            404,
            "App '/testdb' does not exist in version 2020-01-01T00:00:00.000Z",
        )
        .await;
        check("GET /v2/apps/none/tasks", "", 404, "App '/none' does not exist").await;
        check("GET /v2/apps/shop/*/tasks", "", 200, "").await;
        check("GET /v2/apps?label=a%3Db", "", 422, "Can not parse label selector a=b. Reason: '=b' is not expected here").await;
        check("POST /v2/apps", "", 400, "Please specify data in JSON format").await;
        check("POST /v2/apps", "{", 400, "Invalid JSON").await;
        check("POST /v2/apps", &"[".repeat(100_000), 400, "Invalid JSON").await;
        check("POST /v2/apps", "[]", 422, "Invalid JSON").await;
        check("POST /v2/apps", "{}", 422, "Invalid JSON").await;
        check("POST /v2/apps", r#"{"id": "Bad_Id"}"#, 422, "Invalid JSON").await;
        check("PUT /v2/apps/Bad_Id", "{}", 422, "Invalid JSON").await;
        check(&format!("PUT /v2/apps/{}", "a/".repeat(60)), "{}", 422, "Object is not valid").await;
        check("PUT /v2/apps", "{}", 422, "Invalid JSON").await;
        check("PATCH /v2/apps", r#"[{"id": "/none"}]"#, 404, "App '/none' does not exist").await;
        check("PATCH /v2/apps/none", "{}", 404, "App '/none' does not exist").await;
        check("PATCH /v2/apps/testdb", "{}", 200, "").await;
        check("PUT /v2/apps/shop/web?force=true", "{}", 200, "").await;
        check("DELETE /v2/apps/shop/web?force=false", "", 409, LOCKED).await;
        check("DELETE /v2/apps/none", "", 404, "App '/none' does not exist").await;
        check("POST /v2/apps/testdb/restart", r#"{"force": false}"#, 200, "").await;
        check("POST /v2/apps/shop/web/restart", "", 409, LOCKED).await;
        check("GET /v2/apps/testdb/restart", "", 405, "Method Not Allowed").await;
        check("DELETE /v2/apps/none/tasks", "", 404, "App '/none' does not exist").await;
        check("DELETE /v2/apps/testdb/tasks/none", "", 404, "Task 'none' does not exist").await;
        check("DELETE /v2/apps/testdb/tasks?scale=true&wipe=true", "", 400, "You cannot use scale and wipe at the same time.").await;
        check("GET /v2/apps/testdb/tasks/x", "", 405, "Method Not Allowed").await;
    }

    const LOCKED: &str = "App is locked by one or more deployments. Override with the option '?force=true'. \
                          View details at '/v2/deployments/<DEPLOYMENT_ID>'.";

    #[tokio::test]
    async fn a_list_is_filtered_by_all_that_is_asked() {
        let server = Server::new(world());
        let check = async |query: &str, expected: &[&str]| {
            let answer = server.ask(&format!("GET /v2/apps?{query}"), "").await.json();
            let ids: Vec<_> = answer["apps"].as_array().unwrap().iter().map(|app| app["id"].as_str().unwrap()).collect();
            assert_eq!(ids, expected, "{query}");
        };
        check("", &["/shop/api/v1", "/shop/web", "/shopping", "/testdb"]).await;
        check("id=SHOP", &["/shop/api/v1", "/shop/web", "/shopping"]).await;
        check("cmd=SLEEP", &["/shop/api/v1", "/shopping", "/testdb"]).await;
        check("label=tier", &["/shop/api/v1", "/testdb"]).await;
        check("label=tier%3D%3Ddb", &["/testdb"]).await;
        check("label=tier+in+(db,web)&id=shop", &["/shop/api/v1"]).await;
        check("id=nothing", &[]).await;
    }

    #[tokio::test]
    async fn requests_reach_the_core_as_they_were_meant() {
        let server = Server::new(world());
        let check = async |line: &str, body: &str, expected: &dyn Fn(&Request) -> bool| {
            server.ask(line, body).await;
            let request = server.requests.lock().unwrap().pop().unwrap();
            assert!(expected(&request), "{line}: {request:?}");
        };
        let update = |partial: bool, create: bool, force: bool| {
            move |request: &Request| {
                matches!(request, Request::UpdateApps { updates, partial: p, create: c, force: f }
                    if updates.len() == 1 && updates[0].0.as_str() == "/testdb" && (*p, *c, *f) == (partial, create, force))
            }
        };
        check("PUT /v2/apps/testdb", "{}", &update(true, true, false)).await;
        check("PUT /v2/apps/testdb?partialUpdate=False&force=True", "{}", &update(false, true, true)).await;
        check("PATCH /v2/apps/testdb", "{}", &update(true, false, false)).await;
        check("PUT /v2/apps/testdb", r#"{"id": "/other"}"#, &update(true, true, false)).await;
        check("PATCH /v2/apps", r#"[{"id": "testdb"}]"#, &update(true, false, false)).await;
        check(
            "DELETE /v2/apps/testdb/tasks?host=*",
            "",
            &|request| matches!(request, Request::KillTasks { selection: KillSelector::App { host: Some(host), .. }, .. } if host == "*"),
        )
        .await;
        check("DELETE /v2/apps/testdb", "", &|request| matches!(request, Request::DeleteApp { force: true, .. })).await;
    }
}
