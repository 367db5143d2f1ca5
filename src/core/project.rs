//! Committed changes as the events of `/v2/events`: a pure projection of (before, change). Also the one place that says who may be told of what.

use super::state::Tables;
use crate::model::{
    deployment::{Action, ActionKind, AppChange, Deployment},
    event::{Audience, Event, Fact},
    health::CheckState,
    id::{Owner, PathId},
    instance::{Condition, Instance},
    record::{Change, Record, RecordKey},
    time::Timestamp,
};

/// Adds the events of `change` to `events`; `before` are the tables without it.
pub(super) fn events(before: &Tables, change: &Change, wall: Timestamp, events: &mut Vec<Event>) {
    let mut tell = |app: &PathId, fact| events.push(event(before, wall, Some(app), fact));
    match change {
        Change::Put(Record::Instance(instance)) => {
            let old = before.instances.get(&instance.id);
            // That a task is being ended is its node's to say, not ours: of what we ask for nothing is told before.
            let is_asked = instance.condition == Condition::Killing && !instance.is_seen_to_end();
            if !is_asked && old.is_none_or(|old| (old.condition, old.goal) != (instance.condition, instance.goal)) {
                tell(instance.app(), Fact::InstanceChanged(instance.clone()));
            }
            for (at, check) in instance.checks.iter().enumerate() {
                let was_alive = old.and_then(|old| old.checks.get(at)).is_some_and(CheckState::is_alive);
                // The events of single checks are of apps alone (Marathon 1.11).
                if check.is_alive() != was_alive && instance.containers.is_empty() {
                    tell(instance.app(), Fact::HealthStatusChanged { instance: instance.clone(), alive: check.is_alive() });
                }
            }
            if instance.healthy.is_some() && old.is_none_or(|old| old.healthy != instance.healthy) {
                tell(instance.app(), Fact::InstanceHealthChanged(instance.clone()));
            }
        }
        // One for each request, however many apps it changes.
        Change::Put(Record::RootVersion(root)) if !before.root_versions.contains_key(&root.version) => {
            let fact = Fact::GroupChangeSuccess { group: root.group.clone(), version: root.version };
            let app = if let [change] = root.apps.as_slice() { Some(change.app.clone()) } else { None };
            events.push(Event { timestamp: wall, app, audience: Audience::Owners(root.owners()), fact });
        }
        Change::Put(Record::Deployment(deployment)) => {
            let old = before.deployments.get(&deployment.id);
            if old.is_none_or(|old| old.current_step != deployment.current_step) {
                let actions = deployment.steps.get(deployment.current_step).map_or(&[][..], |step| &step.actions);
                actions.iter().for_each(|action| check_events(before, deployment, action, &mut tell));
            }
        }
        Change::Delete(RecordKey::Deployment(id)) => {
            let old = before.deployments.get(id);
            let replaced = old
                .iter()
                .flat_map(|old| old.steps.iter().flat_map(|step| &step.actions))
                .filter(|action| action.kind == ActionKind::Restart && !action.pod);
            for change in replaced.filter_map(|action| old?.changes.iter().find(|change| change.app == action.app)) {
                removed_checks(before, change, &mut tell);
            }
        }
        _ => {}
    }
}

/// Marathon tells of the checks of a new version when it begins to be launched, and of those of the old one when nothing is left of it; of pods never.
fn check_events(tables: &Tables, deployment: &Deployment, action: &Action, tell: &mut impl FnMut(&PathId, Fact)) {
    if action.pod {
        return;
    }
    let Some(change) = deployment.changes.iter().find(|change| change.app == action.app) else { return };
    match action.kind {
        ActionKind::Stop => removed_checks(tables, change, tell),
        ActionKind::Scale if change.from.is_some() => {}
        ActionKind::Scale | ActionKind::Restart => {
            let definition = change.to.and_then(|version| tables.definitions.get(&change.app, version));
            for check in definition.iter().flat_map(|app| &app.health_checks) {
                let version = definition.map_or_else(Timestamp::default, |app| app.version);
                tell(&change.app, Fact::AddHealthCheck { app: change.app.clone(), version, check: Box::new(check.clone()) });
            }
        }
        ActionKind::Start => {}
    }
}

fn removed_checks(tables: &Tables, change: &AppChange, tell: &mut impl FnMut(&PathId, Fact)) {
    let definition = change.from.and_then(|version| tables.definitions.get(&change.app, version));
    let count = definition.map_or(0, |app| app.health_checks.len());
    (0..count).for_each(|_| tell(&change.app, Fact::RemoveHealthCheck { app: change.app.clone() }));
}

/// An event about `app`, with whoever may be told of it.
pub(super) fn event(tables: &Tables, wall: Timestamp, app: Option<&PathId>, fact: Fact) -> Event {
    Event { timestamp: wall, app: app.cloned(), audience: audience(tables, app, &fact), fact }
}

/// What has no owner that is known for certain is told to administrators only.
fn audience(tables: &Tables, app: Option<&PathId>, fact: &Fact) -> Audience {
    let owner = |owner: Option<&Owner>| owner.map_or(Audience::Administrators, |owner| Audience::Owners(vec![owner.clone()]));
    // By its own definition: the app may be gone, and the id may be another's before it has ended.
    let of = |instance: &Instance| owner(tables.definition_of(instance).and_then(|app| app.owner.as_ref()));
    match fact {
        Fact::ApiPost { definition, .. } => owner(definition.owner.as_ref()),
        Fact::DeploymentFailed { deployment, .. }
        | Fact::DeploymentInfo { deployment }
        | Fact::DeploymentStepSuccess { deployment }
        | Fact::DeploymentSuccess { deployment } => Audience::Owners(deployment.owners()),
        Fact::InstanceChanged(instance)
        | Fact::InstanceHealthChanged(instance)
        | Fact::StatusUpdate { instance, .. }
        | Fact::FailedHealthCheck { instance, .. }
        | Fact::HealthStatusChanged { instance, .. }
        | Fact::UnhealthyInstanceKill { instance, .. } => of(instance),
        Fact::AddHealthCheck { app, .. } | Fact::AppTerminated { app } | Fact::RemoveHealthCheck { app } => owner(tables.owner_of(app)),
        Fact::Pod { .. } | Fact::GroupChangeSuccess { .. } => owner(app.and_then(|app| tables.owner_of(app))),
        Fact::SchedulerDisconnected { .. } | Fact::SchedulerRegistered { .. } | Fact::SchedulerReregistered { .. } => Audience::Everyone,
        // A stream tells it to itself.
        Fact::EventStreamAttached { .. } => Audience::Everyone,
        // Nothing says whose it was; who asked for the change is told by whoever tells it.
        Fact::GroupChangeFailed { .. } | Fact::UnknownInstanceTerminated { .. } => Audience::Administrators,
    }
}
