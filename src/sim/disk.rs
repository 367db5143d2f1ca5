//! The simulated durable store: what survives the server. Also what the invariants call the truth about records.

use std::collections::{BTreeMap, VecDeque};

use uuid::Uuid;

use crate::model::{
    app::App,
    brick::Brick,
    deployment::Deployment,
    group::Group,
    id::{BrickName, InstanceId, Owner, PathId, TaskId},
    instance::{Condition, Goal, Instance},
    port::PortClaim,
    record::{AppEntry, Change, Record, RecordKey},
    time::Timestamp,
    user::User,
};

/// Commits that can be taken back by a disk that lies.
const MAX_UNDO: usize = 4;

/// Records, and counts of each app's instances that are kept as they change.
#[derive(Debug, Default)]
pub struct Disk {
    records: BTreeMap<RecordKey, Record>,
    counts: BTreeMap<PathId, Counts>,
    undo: VecDeque<Vec<(RecordKey, Option<Record>)>>,
}

/// Instances of one app that may have a process within reach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Live, within reach, goal Running.
    pub staying: u32,
    /// Live, within reach, any other goal.
    pub leaving: u32,
    /// Running, goal Running.
    pub running: u32,
}

impl Disk {
    /// Everything, as a store loads it.
    pub fn load(&self) -> Vec<Record> {
        self.records.values().cloned().collect()
    }

    /// Begins a commit; what follows belongs to it.
    pub fn begin(&mut self) {
        if self.undo.len() == MAX_UNDO {
            self.undo.pop_front();
        }
        self.undo.push_back(Vec::new());
    }

    /// Writes one change and answers what was there before.
    pub fn put(&mut self, change: &Change) -> Option<Record> {
        let (key, old) = match change {
            Change::Put(record) => (record.key(), self.records.insert(record.key(), record.clone())),
            Change::Delete(key) => (key.clone(), self.records.remove(key)),
        };
        if let Some(Record::Instance(instance)) = &old {
            self.count(instance, -1);
        }
        if let Change::Put(Record::Instance(instance)) = change {
            self.count(instance, 1);
        }
        if let Some(commit) = self.undo.back_mut() {
            commit.push((key, old.clone()));
        }
        old
    }

    /// Forgets the last `commits`, as a disk does that said "synced" and lied.
    pub fn lose(&mut self, commits: usize) {
        for _ in 0..commits {
            let Some(commit) = self.undo.pop_back() else { return };
            for (key, old) in commit.into_iter().rev() {
                self.put(&old.map_or(Change::Delete(key), Change::Put));
            }
        }
    }

    fn count(&mut self, instance: &Instance, by: i32) {
        let counts = self.counts.entry(instance.app().clone()).or_default();
        let add = |cell: &mut u32| *cell = cell.saturating_add_signed(by);
        let within_reach = instance.condition.is_live()
            && !matches!(instance.condition, Condition::Unreachable | Condition::UnreachableInactive | Condition::Unknown);
        match (within_reach, instance.goal) {
            (true, Goal::Running) => add(&mut counts.staying),
            (true, _) => add(&mut counts.leaving),
            (false, _) => {}
        }
        if instance.condition == Condition::Running && instance.goal == Goal::Running {
            add(&mut counts.running);
        }
    }

    /// The versions of the root that are kept, oldest first.
    pub fn root_versions(&self) -> Vec<Timestamp> {
        let range = self.records.range(RecordKey::RootVersion(Timestamp(i64::MIN))..=RecordKey::RootVersion(Timestamp(i64::MAX)));
        range.filter_map(|(key, _)| if let RecordKey::RootVersion(version) = key { Some(*version) } else { None }).collect()
    }

    /// The counts of one app.
    pub fn counts(&self, app: &PathId) -> Counts {
        self.counts.get(app).copied().unwrap_or_default()
    }

    /// How many records there are.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// True before the first commit.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// One record.
    pub fn get(&self, key: &RecordKey) -> Option<&Record> {
        self.records.get(key)
    }

    /// One instance.
    pub fn instance(&self, id: &InstanceId) -> Option<&Instance> {
        match self.records.get(&RecordKey::Instance(id.clone()))? {
            Record::Instance(instance) => Some(instance),
            _ => None,
        }
    }

    /// One brick.
    pub fn brick(&self, name: &BrickName) -> Option<&Brick> {
        match self.records.get(&RecordKey::Brick(name.clone()))? {
            Record::Brick(brick) => Some(brick),
            _ => None,
        }
    }

    /// The claim on one port.
    pub fn port(&self, port: u16) -> Option<&PortClaim> {
        match self.records.get(&RecordKey::Port(port))? {
            Record::Port(claim) => Some(claim),
            _ => None,
        }
    }

    /// One app's entry.
    pub fn app(&self, id: &PathId) -> Option<&AppEntry> {
        match self.records.get(&RecordKey::App(id.clone()))? {
            Record::App(app) => Some(app),
            _ => None,
        }
    }

    /// One version of an app.
    pub fn definition(&self, id: &PathId, version: Timestamp) -> Option<&App> {
        match self.records.get(&RecordKey::Definition(id.clone(), version))? {
            Record::Definition(app) => Some(app),
            _ => None,
        }
    }

    /// The present version of an app that exists.
    pub fn current(&self, id: &PathId) -> Option<&App> {
        let entry = self.app(id)?;
        let range =
            RecordKey::Definition(entry.id.clone(), Timestamp(i64::MIN))..=RecordKey::Definition(entry.id.clone(), Timestamp(i64::MAX));
        self.records.range(range).next_back().and_then(|(_, record)| if let Record::Definition(app) = record { Some(&**app) } else { None })
    }

    /// One user.
    pub fn user(&self, name: &Owner) -> Option<&User> {
        match self.records.get(&RecordKey::User(name.clone()))? {
            Record::User(user) => Some(user),
            _ => None,
        }
    }

    /// One group that has a record.
    pub fn group(&self, id: &PathId) -> Option<&Group> {
        match self.records.get(&RecordKey::Group(id.clone()))? {
            Record::Group(group) => Some(group),
            _ => None,
        }
    }

    /// The apps that exist.
    pub fn apps(&self) -> impl Iterator<Item = &AppEntry> {
        let all = self.records.range(RecordKey::App(PathId::root())..);
        all.map_while(|(_, record)| if let Record::App(app) = record { Some(&**app) } else { None })
    }

    /// The present version of every app that exists.
    pub fn versions(&self) -> BTreeMap<PathId, Timestamp> {
        self.apps().filter_map(|entry| Some((entry.id.clone(), self.current(&entry.id)?.version))).collect()
    }

    /// Every instance.
    pub fn instances(&self) -> impl Iterator<Item = &Instance> {
        self.records
            .range(RecordKey::Instance(InstanceId::new(PathId::root(), Uuid::nil()))..)
            .map_while(|(_, record)| if let Record::Instance(instance) = record { Some(&**instance) } else { None })
    }

    /// The instances of one app.
    pub fn instances_of(&self, app: &PathId) -> impl Iterator<Item = &Instance> {
        let first = RecordKey::Instance(InstanceId::new(app.clone(), Uuid::nil()));
        let last = RecordKey::Instance(InstanceId::new(app.clone(), Uuid::max()));
        self.records
            .range(first..=last)
            .filter_map(|(_, record)| if let Record::Instance(instance) = record { Some(&**instance) } else { None })
    }

    /// The present tasks of an instance, and how far the record says that each is: one, or that of each container of a pod that was launched.
    pub fn tasks_of(&self, instance: &Instance) -> Vec<(TaskId, Condition)> {
        match self.definition(instance.app(), instance.version).filter(|app| app.pod.is_some()) {
            None => vec![(instance.task(), instance.condition)],
            Some(pod) => {
                let states = instance.containers.iter().map(|container| container.condition);
                pod.containers().map(|name| instance.task_of(name)).zip(states).collect()
            }
        }
    }

    /// Every record but instances and definitions: few enough to walk.
    pub fn small(&self) -> impl Iterator<Item = &Record> {
        let first = self.records.range(..RecordKey::Definition(PathId::root(), Timestamp(i64::MIN)));
        let second = self.records.range(RecordKey::Deployment(crate::model::id::DeploymentId::new(""))..);
        first.chain(second).map(|(_, record)| record)
    }

    /// The deployments that run.
    pub fn deployments(&self) -> impl Iterator<Item = &Deployment> {
        let all = self.records.range(RecordKey::Deployment(crate::model::id::DeploymentId::new(""))..);
        all.map_while(|(_, record)| if let Record::Deployment(deployment) = record { Some(&**deployment) } else { None })
    }

    /// Every brick.
    pub fn bricks(&self) -> impl Iterator<Item = &Brick> {
        self.small().filter_map(|record| if let Record::Brick(brick) = record { Some(&**brick) } else { None })
    }

    /// Every claim on a port.
    pub fn ports(&self) -> impl Iterator<Item = &PortClaim> {
        self.small().filter_map(|record| if let Record::Port(claim) = record { Some(&**claim) } else { None })
    }
}
