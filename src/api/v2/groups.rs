//! `/v2/groups`.
//!
//! Facts (Marathon 1.11): ids have any depth, so a route is known by its end: `.../apps` (all apps below, a bare list; empty for a group that is not
//! there), `.../versions` (a bare list of the root's versions), `.../versions/{version}`. `POST` and `PUT` take the body's id relative to the path;
//! `PUT` with `dryRun` answers the steps; `PATCH` of a top-level group sets `enforceRole` and answers nothing; `force` is false by default, also for
//! `DELETE`. The existing web page polls `/v2/groups?embed=group.groups&embed=group.apps&...` for its lists.

use serde_json::{Value, json};
use warp::http::{Method, StatusCode};

use super::{path_id, seen, submit};
use crate::{
    api::{
        Api, answer,
        call::Call,
        error::{ApiError, ApiResult},
        query::Embed,
        view::{
            app::Context,
            deployment,
            group::{self, GroupEmbed},
        },
        wall,
    },
    model::{
        group::input::GroupInput,
        id::{PATH_PATTERN_TEXT, PathId},
        request::{Reply, Request, Violation},
        time::{Timestamp, TimestampError},
    },
};

pub async fn route(api: &Api, call: Call, rest: &[&str]) -> ApiResult {
    match (&call.method, rest) {
        (&Method::GET | &Method::HEAD, rest) => read(api, &call, rest),
        (&Method::POST, group) => update(api, call, group, true).await,
        (&Method::PUT, group) => update(api, call, group, false).await,
        (&Method::PATCH, group) if !group.is_empty() => enforce_role(api, call, group).await,
        (&Method::DELETE, group) => {
            let group = path_id(group).map_err(ApiError::no_group)?;
            let request = Request::DeleteGroup { group, force: call.flag("force", false) };
            changed(submit(api, &call, request).await?, StatusCode::OK)
        }
        _ => Err(ApiError::method(&[Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])),
    }
}

// === Reading ===

fn read(api: &Api, call: &Call, rest: &[&str]) -> ApiResult {
    let seen = seen(api, call);
    let context = Context::new(&seen, &api.info, wall());
    let embed = GroupEmbed::read(&call.query);
    let id = |segments: &[&str]| path_id(segments).map_err(ApiError::no_group);
    match rest {
        [group @ .., "apps"] => {
            let (id, embed) = (id(group)?, Embed::default().and(&call.query));
            Ok(answer::ok(&seen.apps_below(&id).map(|app| context.app(app, embed)).collect::<Vec<_>>()))
        }
        [group @ .., "versions"] => {
            let id = id(group)?;
            let versions = seen.group_versions(&id).ok_or_else(|| ApiError::no_group(&id))?;
            Ok(answer::ok(&versions))
        }
        [group @ .., "versions", version] => {
            let version: Timestamp = version.parse().map_err(|error: TimestampError| ApiError::unprocessable(error.to_string()))?;
            let id = id(group)?;
            Ok(answer::ok(&group::past(&seen, &context, &id, version, embed).ok_or_else(|| ApiError::no_group(&id))?))
        }
        group => {
            let id = id(group)?;
            Ok(answer::ok(&group::group(&seen, &context, &id, embed).ok_or_else(|| ApiError::no_group(&id))?))
        }
    }
}

// === Changing ===

/// The id that a path spells, for a group that may yet have to be made.
fn new_id(segments: &[&str]) -> Result<PathId, ApiError> {
    path_id(segments).map_err(|_| ApiError::invalid(&[Violation::new("/", PATH_PATTERN_TEXT)]))
}

async fn update(api: &Api, mut call: Call, group: &[&str], create: bool) -> ApiResult {
    let base = new_id(group)?;
    let input = GroupInput::read(&call.json().await?).map_err(|violations| ApiError::unreadable(&violations))?;
    let id = input.resolve(&base).map_err(|violations| ApiError::invalid(&violations))?;
    let dry_run = !create && call.flag("dryRun", false);
    let request = Request::UpdateGroup { base, input, create, force: call.flag("force", false), dry_run };
    let reply = submit(api, &call, request).await?;
    if create {
        return Ok(answer::with_location(changed(reply, StatusCode::CREATED)?, &call.base(&api.info.leader_url()), &id));
    }
    changed(reply, StatusCode::OK)
}

async fn enforce_role(api: &Api, mut call: Call, group: &[&str]) -> ApiResult {
    let group = path_id(group).map_err(ApiError::no_group)?;
    let body = call.json().await?;
    let wrong = |path: &str, text: &str| ApiError::wrong_types(&[Violation::new(path, text)]);
    let Value::Object(fields) = &body else { return Err(wrong("/", "error.expected.jsobject")) };
    let enforce = match fields.get("enforceRole") {
        None | Some(Value::Null) => None,
        Some(Value::Bool(enforce)) => Some(*enforce),
        Some(_) => return Err(wrong("/enforceRole", "error.expected.jsboolean")),
    };
    submit(api, &call, Request::EnforceRole { group, enforce }).await?;
    Ok(answer::empty(StatusCode::OK))
}

fn changed(reply: Reply, status: StatusCode) -> ApiResult {
    Ok(match reply {
        Reply::Deployment { id, version, .. } => answer::deployment(status, &id, version),
        Reply::Planned(steps) => answer::ok(&json!({ "steps": deployment::steps(&steps) })),
        Reply::Killed(_) | Reply::Done => answer::ok(&json!({})),
    })
}
