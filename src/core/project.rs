//! Committed changes as the events of `/v2/events`: a pure projection of (before, change).

use super::state::Tables;
use crate::model::{
    event::{Event, Fact},
    id::PathId,
    record::{Change, Record, RecordKey},
    time::Timestamp,
};

/// Adds the events of `change` to `events`; `before` are the tables without it.
pub(super) fn events(before: &Tables, change: &Change, wall: Timestamp, events: &mut Vec<Event>) {
    let mut tell = |app: &PathId, fact| events.push(Event { timestamp: wall, app: Some(app.clone()), fact });
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
        Change::Put(Record::App(entry)) if before.apps.get(&entry.id) != Some(entry) => {
            tell(&entry.id, Fact::GroupChangeSuccess { group: entry.id.parent(), version: entry.version });
        }
        Change::Delete(RecordKey::App(id)) => tell(id, Fact::GroupChangeSuccess { group: id.parent(), version: wall }),
        _ => {}
    }
}
