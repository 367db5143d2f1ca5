//! Committed changes as the events of `/v2/events`: a pure projection of (before, change). Also the one place that says who may be told of what.

use super::state::Tables;
use crate::model::{
    event::{Audience, Event, Fact},
    id::{Owner, PathId},
    instance::Instance,
    record::{Change, Record},
    time::Timestamp,
};

/// Adds the events of `change` to `events`; `before` are the tables without it.
pub(super) fn events(before: &Tables, change: &Change, wall: Timestamp, events: &mut Vec<Event>) {
    let mut tell = |app: &PathId, fact| events.push(event(before, wall, Some(app), fact));
    match change {
        Change::Put(Record::Instance(instance)) => {
            let old = before.instances.get(&instance.id);
            if old.is_none_or(|old| (old.condition, old.goal) != (instance.condition, instance.goal)) {
                tell(instance.app(), Fact::InstanceChanged(instance.clone()));
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
        _ => {}
    }
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
        Fact::InstanceChanged(instance) | Fact::InstanceHealthChanged(instance) | Fact::StatusUpdate { instance, .. } => of(instance),
        Fact::AppTerminated { app } => owner(tables.owner_of(app)),
        Fact::GroupChangeSuccess { .. } => owner(app.and_then(|app| tables.owner_of(app))),
        Fact::SchedulerDisconnected { .. } | Fact::SchedulerRegistered { .. } | Fact::SchedulerReregistered { .. } => Audience::Everyone,
        // A stream tells it to itself.
        Fact::EventStreamAttached { .. } => Audience::Everyone,
        // Nothing says whose it was.
        Fact::UnknownInstanceTerminated { .. } => Audience::Administrators,
    }
}
