//! `/v2/apps`: apps, their tasks and their versions.
//!
//! Facts (Marathon 1.11):
//! * `POST` answers 201 with the whole app; `PUT` of one 200, or 201 when it was created; every other change 200. `force` is false by default, but true
//!   for `DELETE` of an app.
//! * Ids have any depth, so a route is known by its end: `.../restart`, `.../tasks`, `.../tasks/{task}`, `.../versions`, `.../versions/{version}`;
//!   `.../*` names all apps below a group.
//! * In a list counters and deployments are always there; in a single app also tasks and the last failure.
//! * `PUT` replaces each key that is written, unless `partialUpdate=false`; the id of the path wins over the body's.

use serde_json::{Value, json};
use warp::http::{Method, StatusCode};

use super::{
    path_id, submit,
    tasks::{self, KillFlags},
};
use crate::{
    api::{
        Api, Response, answer,
        call::Call,
        error::{ApiError, ApiResult},
        query::Embed,
        selector::Selector,
        view::{app::Context, group, task},
        wall,
    },
    core::state::Tables,
    model::{
        app::{App, input::AppInput},
        id::{PATH_PATTERN_TEXT, PathId},
        request::{KillSelector, Reply, Request, RequestError, Violation},
        time::{Timestamp, TimestampError},
    },
};

pub async fn route(api: &Api, call: Call, rest: &[&str]) -> ApiResult {
    match rest {
        [] => all(api, call).await,
        ["*"] => below(api, &call, &[]),
        [group @ .., "*"] => below(api, &call, group),
        [id @ .., "restart"] if !id.is_empty() => restart(api, call, id).await,
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
    let view = api.handle.view_full();
    let filter = Filter::read(call)?;
    let context = Context::new(&view, &api.info, wall());
    let embed = Embed::LIST.and(&call.query);
    let apps = view.tables.apps.keys().filter_map(|id| view.tables.app(id)).filter(|app| filter.picks(app));
    Ok(answer::ok(&json!({ "apps": apps.map(|app| context.app(app, embed)).collect::<Vec<_>>() })))
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
    let view = api.handle.view_full();
    let id = group_id(&view.tables, id)?;
    let context = Context::new(&view, &api.info, wall());
    let embed = Embed::LIST.and(&call.query);
    let apps: Vec<_> = group::apps_below(&view.tables, &id).map(|app| context.app(app, embed)).collect();
    Ok(answer::ok(&json!({ "*": apps })))
}

fn show(api: &Api, call: &Call, id: &[&str]) -> ApiResult {
    let view = api.handle.view_full();
    let id = path_id(id).map_err(ApiError::no_app)?;
    let app = view.tables.app(&id).ok_or_else(|| ApiError::no_app(&id))?;
    let context = Context::new(&view, &api.info, wall());
    Ok(answer::ok(&json!({ "app": context.app(app, Embed::ONE.and(&call.query)) })))
}

fn versions(api: &Api, call: &Call, id: &[&str]) -> ApiResult {
    super::reads_only(call)?;
    let view = api.handle.view_full();
    let id = known(&view.tables, id)?;
    let mut versions: Vec<Timestamp> = view.tables.versions_of(&id).map(|app| app.version).collect();
    versions.reverse();
    Ok(answer::ok(&json!({ "versions": versions })))
}

fn version_of(api: &Api, call: &Call, id: &[&str], version: &str) -> ApiResult {
    super::reads_only(call)?;
    let version = version.parse().map_err(|error: TimestampError| ApiError::unprocessable(error.to_string()))?;
    let view = api.handle.view_full();
    let id = known(&view.tables, id)?;
    let app = view.tables.definitions.get(&(id.clone(), version)).ok_or(RequestError::NoVersion(id, version))?;
    Ok(answer::ok(&Context::new(&view, &api.info, wall()).definition(app)))
}

/// An app that exists.
fn known(tables: &Tables, id: &[&str]) -> Result<PathId, ApiError> {
    let id = path_id(id).map_err(ApiError::no_app)?;
    if tables.apps.contains_key(&id) { Ok(id) } else { Err(ApiError::no_app(id)) }
}

/// A group that has something in it.
fn group_id(tables: &Tables, id: &[&str]) -> Result<PathId, ApiError> {
    let id = path_id(id).map_err(ApiError::no_group)?;
    if group::exists(tables, &id) { Ok(id) } else { Err(ApiError::no_group(id)) }
}

// === Changing ===

async fn create(api: &Api, mut call: Call) -> ApiResult {
    let input = AppInput::read(&call.json().await?).map_err(|violations| ApiError::unreadable(&violations))?;
    let id = input_id(&input, "")?;
    let request = Request::CreateApp { input, force: call.flag("force", false) };
    let Reply::Deployment { id: deployment, version, .. } = submit(api, &call, request).await? else {
        return Ok(answer::empty(StatusCode::CREATED));
    };
    let view = api.handle.view_full();
    let context = Context::new(&view, &api.info, wall());
    // Someone else may have changed or deleted it since; what was asked for is still what is answered.
    let body = match view.tables.definitions.get(&(id.clone(), version)) {
        Some(app) => Value::Object(context.created(app, &deployment)),
        None => json!({ "id": id, "version": version, "deployments": [{ "id": deployment }] }),
    };
    let response = answer::with_deployment(answer::json(StatusCode::CREATED, &body), &deployment);
    Ok(answer::with_location(response, &call.base(&api.info.leader_url()), &id))
}

async fn update(api: &Api, mut call: Call, id: &[&str], create: bool) -> ApiResult {
    let bad_id = |_| ApiError::invalid(&[Violation::new("/id", PATH_PATTERN_TEXT)]);
    let id = path_id(id).map_err(|text| if create { bad_id(text) } else { ApiError::no_app(text) })?;
    let input = AppInput::read(&call.json().await?).map_err(|violations| ApiError::unreadable(&violations))?;
    let partial = !create || call.flag("partialUpdate", true);
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

async fn update_all(api: &Api, mut call: Call, create: bool) -> ApiResult {
    let body = call.json().await?;
    let Value::Array(items) = &body else {
        return Err(ApiError::wrong_types(&[Violation::new("/", "error.expected.jsarray")]));
    };
    let mut updates = Vec::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        let prefix = format!("({index})");
        let input = AppInput::read(item).map_err(|violations| ApiError::unreadable(&beneath(&prefix, violations)))?;
        updates.push((input_id(&input, &prefix)?, input));
    }
    let partial = !create || call.flag("partialUpdate", true);
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
        Reply::Killed(_) | Reply::Done => answer::ok(&json!({})),
    }
}

// === Tasks ===

async fn tasks_of(api: &Api, call: Call, id: &[&str]) -> ApiResult {
    match call.method {
        Method::GET | Method::HEAD => list_tasks(api, &call, id),
        Method::DELETE => {
            let flags = KillFlags::read(&call)?;
            let app = path_id(id).map_err(ApiError::no_app)?;
            let host = call.query.first("host").filter(|host| !matches!(*host, "*" | "")).map(str::to_owned);
            let reply = tasks::kill(api, &call, KillSelector::App { app, host }, flags).await?;
            Ok(tasks::killed(&api.handle.view_full(), reply))
        }
        _ => Err(ApiError::method(&[Method::GET, Method::HEAD, Method::DELETE])),
    }
}

fn list_tasks(api: &Api, call: &Call, id: &[&str]) -> ApiResult {
    let view = api.handle.view_full();
    let tables = &view.tables;
    let apps: Vec<_> = match id {
        [group @ .., "*"] => group::apps_below(tables, &group_id(tables, group)?).collect(),
        _ => tables.app(&known(tables, id)?).into_iter().collect(),
    };
    if tasks::wants_plain(call) {
        return Ok(answer::text("text/plain; charset=utf-8", task::plain(tables, apps.into_iter())));
    }
    let live = apps.iter().flat_map(|app| task::live(tables, &app.id));
    Ok(answer::ok(&json!({ "tasks": live.map(|instance| task::task(tables, instance)).collect::<Vec<_>>() })))
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
            Ok(answer::ok(&json!({ "task": task::task(&api.handle.view_full().tables, instance) })))
        }
        reply => Ok(changed(reply)),
    }
}
