//! Committed changes as the events of `/v2/events`: a pure projection of (before, change). Fields: Marathon 1.11.

use serde_json::{Map, Value, json};

use super::state::Tables;
use crate::model::{
    cluster::TaskStatus,
    deployment::{Action, Deployment},
    event::Event,
    id::PathId,
    instance::Instance,
    record::{Change, Record, RecordKey},
    time::Timestamp,
};

/// Adds the events of `change` to `events`; `before` are the tables without it.
pub(super) fn events(before: &Tables, change: &Change, wall: Timestamp, events: &mut Vec<Event>) {
    let mut tell = |kind, app: &PathId, fields| events.push(Event { kind, timestamp: wall, app: Some(app.clone()), fields });
    match change {
        Change::Put(Record::Instance(instance)) => {
            let old = before.instances.get(&instance.id);
            if old.is_none_or(|old| (old.condition, old.goal) != (instance.condition, instance.goal)) {
                tell("instance_changed_event", instance.app(), instance_changed(instance));
            }
            if let Some(healthy) = instance.healthy
                && old.is_none_or(|old| old.healthy != instance.healthy)
            {
                tell("instance_health_changed_event", instance.app(), instance_health(instance, healthy));
            }
        }
        Change::Put(Record::App(entry)) if before.apps.get(&entry.id) != Some(entry) => {
            tell("group_change_success", &entry.id, group_change(&entry.id, entry.version));
        }
        Change::Delete(RecordKey::App(id)) => tell("group_change_success", id, group_change(id, wall)),
        _ => {}
    }
}

/// `status_update_event`: what a task's node said.
pub(super) fn status_update(status: &TaskStatus, instance: &Instance) -> Map<String, Value> {
    let placement = instance.placement.as_ref();
    let addresses: Vec<Value> = status
        .addresses
        .iter()
        .map(|address| json!({"ipAddress": address.to_string(), "protocol": if address.is_ipv4() { "IPv4" } else { "IPv6" }}))
        .collect();
    super::turn::fields([
        ("slaveId", status.agent.as_ref().or(placement.map(|placement| &placement.agent)).map_or("", |agent| agent.as_str()).into()),
        ("taskId", status.task.to_string().into()),
        ("taskStatus", status.state.as_str().into()),
        ("message", status.message.clone().into()),
        ("appId", instance.app().as_str().into()),
        ("host", placement.map_or("", |placement| &*placement.host).into()),
        ("ipAddresses", addresses.into()),
        ("ports", placement.map_or(&[][..], |placement| &placement.ports).into()),
        ("version", instance.version.to_string().into()),
    ])
}

/// A plan in its light form: ids only.
pub(super) fn plan(deployment: &Deployment) -> Value {
    json!({
        "id": deployment.id.as_str(),
        "version": deployment.version.to_string(),
        "steps": deployment.steps.iter().map(|step| actions(&step.actions)).collect::<Vec<_>>(),
    })
}

/// One step: `{"actions": [{"action", "app"}]}`.
pub(super) fn actions(actions: &[Action]) -> Value {
    json!({"actions": actions.iter().map(|action| json!({"action": action.kind.as_str(), "app": action.app.as_str()})).collect::<Vec<_>>()})
}

fn instance_changed(instance: &Instance) -> Map<String, Value> {
    let placement = instance.placement.as_ref();
    super::turn::fields([
        ("instanceId", instance.id.to_string().into()),
        ("condition", instance.condition.as_str().into()),
        ("runSpecId", instance.app().as_str().into()),
        ("agentId", placement.map(|placement| placement.agent.as_str()).into()),
        ("host", placement.map(|placement| &*placement.host).into()),
        ("runSpecVersion", instance.version.to_string().into()),
    ])
}

fn instance_health(instance: &Instance, healthy: bool) -> Map<String, Value> {
    super::turn::fields([
        ("instanceId", instance.id.to_string().into()),
        ("runSpecId", instance.app().as_str().into()),
        ("runSpecVersion", instance.version.to_string().into()),
        ("healthy", healthy.into()),
    ])
}

fn group_change(app: &PathId, version: Timestamp) -> Map<String, Value> {
    super::turn::fields([("groupId", app.parent().as_str().into()), ("version", version.to_string().into())])
}
