//! `/v2/pods`: pods, their status, their versions and their instances.
//!
//! Facts (Marathon 1.11):
//! * `HEAD /v2/pods` says that there are pods. `POST` answers 201, `PUT` 200 (also when it creates), both with the whole pod; `DELETE` 202 without a body
//!   and with the deployment as `Location`.
//! * A question about a pod follows its id after two colons: `{id}::status`, `{id}::versions`, `{id}::versions/{version}`, `{id}::instances`; `::status`
//!   is about all.
//! * The id in the body of a `PUT` has to be that of the path. The 404 of `GET {id}` has JSON for a message.
//!
//! Ours: reads have an `ETag`; a `PUT` that changes nothing restarts nothing; `PUT` with `{"owner": "name"}` and nothing else hands the pod over, as for apps.

use serde_json::{Value, json};
use warp::http::{Method, StatusCode};

use super::{new_owner, path_id, reads_only, seen, submit};
use crate::{
    api::{
        Api, Response,
        access::Seen,
        answer,
        call::Call,
        error::{ApiError, ApiResult},
        view::pod,
    },
    model::{
        id::{DeploymentId, InstanceId, PathId},
        pod::{input::PodInput, output},
        request::{KillSelector, Possession, Reply, Request, RequestError, Violation},
        time::{Timestamp, TimestampError},
    },
};

/// Instances that one request may name.
const MAX_INSTANCES: usize = 10_000;

const INSTANCE_ID: &str = r"must fully match regular expression '^(.+)\.(instance-|marathon-)([^\.]+)$'";

pub async fn route(api: &Api, call: Call, rest: &[&str]) -> ApiResult {
    // The question stands in the last segment, or in the one before it.
    let asked = |last: &str| last.split_once("::").map(|(id, question)| (id.to_owned(), question.to_owned()));
    match rest {
        [] => all(api, call).await,
        ["::status"] => statuses(api, &call),
        [head @ .., last, tail] if last.contains("::") => match asked(last) {
            Some((id, question)) if question == "versions" => version_of(api, &call, &path(head, &id), tail),
            Some((id, question)) if question == "instances" => kill_one(api, call, &path(head, &id), tail).await,
            _ => Err(ApiError::no_route()),
        },
        [head @ .., last] if last.contains("::") => match asked(last) {
            Some((id, question)) if question == "status" => status(api, &call, &path(head, &id)),
            Some((id, question)) if question == "versions" => versions(api, &call, &path(head, &id)),
            Some((id, question)) if question == "instances" => kill_some(api, call, &path(head, &id)).await,
            _ => Err(ApiError::no_route()),
        },
        id => one(api, call, id).await,
    }
}

fn path<'a>(head: &[&'a str], id: &'a str) -> Vec<&'a str> {
    head.iter().copied().chain((!id.is_empty()).then_some(id)).collect()
}

async fn all(api: &Api, call: Call) -> ApiResult {
    match call.method {
        Method::HEAD => Ok(answer::empty(StatusCode::OK)),
        Method::GET => {
            let seen = seen(api, &call);
            Ok(answer::ok(&seen.pods().map(|pod| output::definition(pod)).collect::<Vec<_>>()))
        }
        Method::POST => create(api, call).await,
        _ => Err(ApiError::method(&[Method::GET, Method::HEAD, Method::POST])),
    }
}

async fn one(api: &Api, call: Call, id: &[&str]) -> ApiResult {
    match call.method {
        Method::GET | Method::HEAD => {
            let seen = seen(api, &call);
            let missing = |id: &str| ApiError::not_found(format!("{{\"message\": \"pod with {id} does not exist\"}}"));
            let id = path_id(id).map_err(|text| missing(&text))?;
            let pod = seen.pod(&id).ok_or_else(|| missing(id.as_str()))?;
            Ok(answer::ok(&output::definition(pod)))
        }
        Method::PUT => update(api, call, id).await,
        Method::DELETE => delete(api, call, id).await,
        _ => Err(ApiError::method(&[Method::GET, Method::HEAD, Method::PUT, Method::DELETE])),
    }
}

// === Reading ===

fn statuses(api: &Api, call: &Call) -> ApiResult {
    reads_only(call)?;
    let seen = seen(api, call);
    Ok(answer::ok(&seen.pods().map(|one| pod::status(&seen, one)).collect::<Vec<_>>()))
}

fn status(api: &Api, call: &Call, id: &[&str]) -> ApiResult {
    reads_only(call)?;
    let seen = seen(api, call);
    let id = known(&seen, id)?;
    let one = seen.pod(&id).ok_or_else(|| ApiError::no_pod(&id))?;
    Ok(answer::ok(&pod::status(&seen, one)))
}

/// A pod that exists.
fn known(seen: &Seen, id: &[&str]) -> Result<PathId, ApiError> {
    let id = path_id(id).map_err(ApiError::no_pod)?;
    if seen.pod(&id).is_some() { Ok(id) } else { Err(ApiError::no_pod(id)) }
}

fn versions(api: &Api, call: &Call, id: &[&str]) -> ApiResult {
    reads_only(call)?;
    let seen = seen(api, call);
    let id = known(&seen, id)?;
    let mut versions: Vec<Timestamp> = seen.versions_of(&id).map(|pod| pod.version).collect();
    versions.reverse();
    Ok(answer::ok(&versions))
}

fn version_of(api: &Api, call: &Call, id: &[&str], version: &str) -> ApiResult {
    reads_only(call)?;
    let version = version.parse().map_err(|error: TimestampError| ApiError::unprocessable(error.to_string()))?;
    let seen = seen(api, call);
    let id = known(&seen, id)?;
    let pod = seen.definition(&id, version).filter(|pod| pod.pod.is_some()).ok_or_else(|| ApiError::no_pod(id))?;
    Ok(answer::ok(&output::definition(pod)))
}

// === Changing ===

async fn create(api: &Api, mut call: Call) -> ApiResult {
    let input = read(&call.json().await?)?;
    let id = input.path().map_err(|violations| ApiError::invalid(&violations))?;
    let request = Request::CreatePod { input: Box::new(input), force: call.flag("force", false) };
    let reply = submit(api, &call, request).await?;
    let response = written(api, &call, &id, &reply, StatusCode::CREATED);
    Ok(answer::with_location(response, &call.base(&api.info.leader_url()), &id))
}

async fn update(api: &Api, mut call: Call, id: &[&str]) -> ApiResult {
    let id = path_id(id).map_err(|text| ApiError::invalid(&[Violation::new("/id", format!("'{text}' is not the id of a pod"))]))?;
    let body = call.json().await?;
    if body.get("owner").is_some() {
        // Not of an app by its id.
        seen(api, &call).pod(&id).ok_or_else(|| ApiError::no_pod(&id))?;
        submit(api, &call, Request::HandOver { what: Possession::App(id), owner: new_owner(&body)? }).await?;
        return Ok(answer::ok(&json!({})));
    }
    let input = read(&body)?;
    let written_id = input.path().map_err(|violations| ApiError::invalid(&violations))?;
    if written_id != id {
        let text = input.id().unwrap_or_default();
        return Err(ApiError::bad(format!("'{id}' does not match definition's id ('{text}')")));
    }
    let request = Request::UpdatePod { pod: id.clone(), input: Box::new(input), force: call.flag("force", false) };
    let reply = submit(api, &call, request).await?;
    Ok(written(api, &call, &id, &reply, StatusCode::OK))
}

fn read(body: &Value) -> Result<PodInput, ApiError> {
    PodInput::read(body).map_err(|violations| ApiError::unreadable(&violations))
}

/// The pod that was written. Someone else may have changed or deleted it since; what was asked for is still what is answered.
fn written(api: &Api, call: &Call, id: &PathId, reply: &Reply, status: StatusCode) -> Response {
    let Reply::Deployment { id: deployment, version, .. } = reply else { return answer::empty(status) };
    let seen = seen(api, call);
    let body = match seen.definition(id, *version).or_else(|| seen.pod(id)) {
        Some(pod) => Value::Object(output::definition(pod)),
        None => json!({ "id": id, "version": version }),
    };
    answer::with_deployment(answer::json(status, &body), deployment)
}

async fn delete(api: &Api, call: Call, id: &[&str]) -> ApiResult {
    let pod = path_id(id).map_err(ApiError::no_pod)?;
    let reply = submit(api, &call, Request::DeletePod { pod, force: call.flag("force", false) }).await?;
    let accepted = answer::empty(StatusCode::ACCEPTED);
    Ok(match &reply {
        Reply::Deployment { id, .. } => {
            let base = call.base(&api.info.leader_url());
            answer::with_place(answer::with_deployment(accepted, id), &place(&base, id))
        }
        _ => accepted,
    })
}

/// Jersey takes a bare id for a path of the server.
fn place(base: &str, deployment: &DeploymentId) -> String {
    format!("{base}/{deployment}")
}

// === Instances ===

async fn kill_one(api: &Api, call: Call, id: &[&str], instance: &str) -> ApiResult {
    if call.method != Method::DELETE {
        return Err(ApiError::method(&[Method::DELETE]));
    }
    let wanted = instance_id(instance, "/")?;
    let killed = kill(api, &call, id, wanted.into_iter().collect()).await?;
    let one = killed.first().ok_or_else(|| RequestError::NoTask(instance.to_owned()))?;
    Ok(answer::ok(one))
}

async fn kill_some(api: &Api, mut call: Call, id: &[&str]) -> ApiResult {
    if call.method != Method::DELETE {
        return Err(ApiError::method(&[Method::DELETE]));
    }
    let body = call.json().await?;
    let wrong = |path: &str, text: &str| ApiError::wrong_types(&[Violation::new(path, text)]);
    let Value::Array(items) = &body else { return Err(wrong("/", "error.expected.jsarray")) };
    if items.len() > MAX_INSTANCES {
        return Err(ApiError::unprocessable(format!("at most {MAX_INSTANCES} instances can be named at once")));
    }
    let mut wanted = Vec::with_capacity(items.len());
    for (at, item) in items.iter().enumerate() {
        let Value::String(text) = item else { return Err(wrong(&format!("({at})"), "error.expected.jsstring")) };
        wanted.extend(instance_id(text, &format!("({at})"))?);
    }
    wanted.sort();
    wanted.dedup();
    Ok(answer::ok(&kill(api, &call, id, wanted).await?))
}

/// `None`: an id in the form of older versions, which nothing here has.
fn instance_id(text: &str, path: &str) -> Result<Option<InstanceId>, ApiError> {
    if let Ok(id) = text.parse() {
        return Ok(Some(id));
    }
    let tail = [".instance-", ".marathon-"].iter().find_map(|between| text.rsplit_once(between));
    match tail {
        Some((head, tail)) if !head.is_empty() && !tail.is_empty() && !tail.contains('.') => Ok(None),
        _ => Err(ApiError::invalid(&[Violation::new(path, INSTANCE_ID)])),
    }
}

/// The instances that there were, as they were before.
async fn kill(api: &Api, call: &Call, id: &[&str], instances: Vec<InstanceId>) -> Result<Vec<Value>, ApiError> {
    let missing = |id: &str| ApiError::not_found(format!("Path '{id}' does not exist"));
    let pod = path_id(id).map_err(|text| missing(&text))?;
    if seen(api, call).pod(&pod).is_none() {
        return Err(missing(pod.as_str()));
    }
    let selection = KillSelector::Instances { pod, instances };
    let request = Request::KillTasks { selection, scale: false, force: false, wipe: call.flag("wipe", false) };
    let Reply::Killed(killed) = submit(api, call, request).await? else { return Ok(Vec::new()) };
    let seen = seen(api, call);
    Ok(killed.iter().map(|instance| pod::instance(&seen, instance)).collect())
}

#[cfg(test)]
mod tests;
