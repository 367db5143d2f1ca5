//! Records: what was committed stays, memory is what the records say, and what leaves or is acknowledged has its record.

use std::collections::BTreeMap;

use super::super::{
    agent::is_end,
    trace::{short, short_instance},
    world::World,
};
use super::whole_of;
use crate::{
    core::{
        Frame, State, group,
        state::{Tables, Tally},
    },
    model::{
        cluster::{Launch, TaskState},
        id::{PathId, TaskId},
        instance::Condition,
        pod::holder,
        port::Position,
        record::{Change, Record, RecordKey},
    },
};

impl World<'_> {
    /// What a new process knows is what was committed.
    pub(in crate::sim) fn check_recovered(&mut self, state: &State) {
        let versions = self.disk.versions();
        if versions != self.rules.versions {
            let expected = format!("{:?}", self.rules.versions);
            return self.violate("lost-write", || format!("acknowledged {expected}, found {versions:?}"));
        }
        let claims: BTreeMap<(PathId, Position), u16> =
            self.disk.ports().map(|claim| ((claim.app.clone(), claim.position), claim.port)).collect();
        if claims != self.rules.claims {
            return self.violate("lost-write", || format!("the claims on ports are {claims:?}"));
        }
        let tables = state.view().tables;
        self.check_past(&tables);
        self.check_tables(&tables);
    }

    /// The tables in memory are the records on disk.
    pub(super) fn check_tables(&mut self, tables: &Tables) {
        let mut held: Vec<Record> = vec![];
        if self.disk.get(&RecordKey::Meta).is_some() {
            held.push(Record::Meta(tables.meta.clone()));
        }
        held.extend(tables.apps.values().cloned().map(Record::App));
        held.extend(tables.definitions.values().cloned().map(Record::Definition));
        held.extend(tables.instances.values().cloned().map(Record::Instance));
        held.extend(tables.deployments.values().cloned().map(Record::Deployment));
        held.extend(tables.ports.values().cloned().map(Record::Port));
        held.extend(tables.bricks.values().cloned().map(Record::Brick));
        held.extend(tables.agents.values().cloned().map(Record::Agent));
        held.extend(tables.failures.values().cloned().map(Record::Failure));
        held.extend(tables.users.values().cloned().map(Record::User));
        held.extend(tables.groups.values().cloned().map(Record::Group));
        held.extend(tables.root_versions.values().cloned().map(Record::RootVersion));
        held.extend(tables.archive.values().cloned().map(Record::Archived));
        let differs = held.iter().find(|record| self.disk.get(&record.key()) != Some(record)).map(|record| format!("{record:?}"));
        if differs.is_some() || held.len() != self.disk.len() {
            self.violate("lost-write", || format!("memory and disk differ: {differs:?}, {} records", held.len()));
        }
        // What is counted change by change, counted once more from what there is.
        let mut anew = Tables::default();
        held.into_iter().for_each(|record| anew.apply(&Change::Put(record)));
        let sorted = |tables: &Tables| -> BTreeMap<PathId, Tally> {
            let mut tallies: BTreeMap<PathId, Tally> = tables.tallies.iter().map(|(app, tally)| (app.clone(), (**tally).clone())).collect();
            tallies.values_mut().for_each(|tally| tally.by_version.sort_by_key(|(version, _)| *version));
            tallies
        };
        for (app, tally) in &tables.tallies {
            let killed =
                self.disk.instances_of(app).filter(|instance| instance.condition == Condition::Killing && !instance.is_seen_to_end());
            let (running, staged): (Vec<_>, Vec<_>) = killed.partition(|instance| instance.started_at.is_some());
            let expected = (staged.len() as u32, running.len() as u32);
            if tally.killed() != expected {
                return self
                    .violate("wrong-sum", || format!("of {app} {:?} are said to be killed, there are {expected:?}", tally.killed()));
            }
        }
        if sorted(&anew) != sorted(tables) {
            self.violate("wrong-sum", || format!("counted are {:?}, there are {:?}", tables.tallies, anew.tallies));
        }
        if anew.holdings != tables.holdings || anew.reserved != tables.reserved || anew.reserved_size != tables.reserved_size {
            self.violate("wrong-sum", || format!("counted are {:?}, there are {:?}", tables.holdings, anew.holdings));
        }
    }

    /// What there is after each change of the tree.
    pub(super) fn note_root(&mut self, frame: &Frame) {
        for change in &frame.changes {
            if let Change::Put(Record::RootVersion(root)) = change {
                let apps = self.disk.versions();
                self.rules.roots.insert(root.version, apps);
            }
        }
    }

    /// Every version that is kept can be gone back to.
    pub(super) fn check_past(&mut self, tables: &Tables) {
        for version in tables.root_versions.keys() {
            let past = group::past(tables, &PathId::root(), *version).map(|past| past.apps).unwrap_or_default();
            let expected = self.rules.roots.get(version).filter(|expected| **expected != past).cloned();
            if let Some(expected) = expected {
                return self.violate("wrong-past", || format!("{version}: there was {expected:?}, remembered is {past:?}"));
            }
            if let Some((app, at)) = past.iter().find(|(app, at)| tables.definition(app, **at).is_none()) {
                return self.violate("wrong-past", || format!("{version}: the definition of {app} at {at} is gone"));
            }
        }
    }

    pub(super) fn has_record(&self, launch: &Launch) -> Result<(), String> {
        let id = &launch.task;
        let instance = self.disk.instance(&id.instance).ok_or("there is no durable instance")?;
        if instance.incarnation != id.incarnation || !instance.condition.is_live() {
            return Err(format!(
                "the durable instance is {}.{} {:?}",
                short_instance(&instance.id),
                instance.incarnation,
                instance.condition
            ));
        }
        let place = instance.placement.as_ref().ok_or("the durable instance has no place")?;
        let (app, ports) = whole_of(launch);
        if place.agent != launch.agent || place.ports != ports {
            return Err(format!("the durable place is {place:?}"));
        }
        let definition = self.disk.definition(id.instance.app(), launch.app.version);
        if definition != Some(app) {
            return Err("its definition is not durable".into());
        }
        if let Some(name) = &id.container {
            let container = app.pod.as_ref().and_then(|pod| app.as_container(pod.place(name)?));
            if container.as_ref() != Some(&*launch.app) {
                return Err("its container is not that of its definition".into());
            }
        }
        if launch.bricks.len() != launch.app.bricks().count() + launch.app.persistent_volumes().count() {
            return Err("not every brick is mounted".into());
        }
        for mount in &launch.bricks {
            let brick = self.disk.brick(&mount.name).ok_or_else(|| format!("brick {} is not durable", mount.name))?;
            let leased = brick.lease.as_ref().is_some_and(|lease| {
                let is_holder = lease.task == if launch.pod.is_some() { holder(id) } else { id.clone() };
                is_holder && lease.agent == launch.agent && lease.epoch == mount.epoch && brick.epoch == mount.epoch
            });
            if !leased {
                return Err(format!("brick {} is leased to {:?}", mount.name, brick.lease));
            }
            if brick.reservation.as_ref().is_some_and(|reservation| reservation.instance != id.instance) {
                return Err(format!("volume {} is {:?}", mount.name, brick.reservation));
            }
        }
        Ok(())
    }

    pub(super) fn check_acknowledge(&mut self, id: &TaskId, uuid: uuid::Uuid) {
        let Some(task) = self.tasks.get(id) else { return };
        let Some(state) = task.updates.iter().find(|status| status.uuid == Some(uuid)).map(|status| status.state) else { return };
        let Some(instance) = self.disk.instance(&id.instance).filter(|instance| instance.incarnation == id.incarnation) else { return };
        use Condition::*;
        let containers = self.disk.tasks_of(instance);
        let Some(now) = containers.iter().find(|(task, _)| task == id).map(|(_, condition)| *condition) else { return };
        let behind = match state {
            TaskState::Staging => now == Provisioned,
            TaskState::Starting => matches!(now, Provisioned | Staging),
            TaskState::Running => matches!(now, Provisioned | Staging | Starting),
            state if is_end(state) => now.is_live(),
            _ => false,
        };
        if behind {
            self.violate("early-ack", || format!("{} of {} is acknowledged, on disk it is {now:?}", state.as_str(), short(id)));
        }
    }
}
