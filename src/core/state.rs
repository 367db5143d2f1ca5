//! The state that one process owns: the durable [`Tables`], and what is derived from them or forgotten at a restart.

use std::{ops::Bound, sync::Arc};

use imbl::{OrdMap, OrdSet};

use super::{
    definitions::Definitions,
    holdings::{AllHoldings, Concerned},
};
use crate::model::{
    agent::Agent,
    app::App,
    brick::Brick,
    cluster::Offer,
    deployment::Deployment,
    group::{Group, RootVersion},
    health::{CheckResult, ReadinessAnswer},
    id::{AgentId, BrickName, DeploymentId, InstanceId, Owner, PathId},
    instance::{Condition, Goal, Instance, TaskFailure},
    port::PortClaim,
    record::{AppEntry, Change, Meta, Record, RecordKey},
    time::{Instant, Timestamp},
    user::User,
};

/// Every durable record, in persistent maps: a clone costs nothing and stays as it is. Readers get a clone; the core alone applies changes.
#[derive(Clone, Debug, Default)]
pub struct Tables {
    /// What is remembered of the whole.
    pub meta: Arc<Meta>,
    /// The apps that exist.
    pub apps: OrdMap<PathId, Arc<AppEntry>>,
    /// Definitions by app and version; the newest 50 of each app and those that instances or deployments still name.
    pub definitions: Definitions,
    /// Ordered by app first: the instances of one app lie together.
    pub instances: OrdMap<InstanceId, Arc<Instance>>,
    /// The deployments that run.
    pub deployments: OrdMap<DeploymentId, Arc<Deployment>>,
    /// Claims on ports.
    pub ports: OrdMap<u16, Arc<PortClaim>>,
    /// Bricks, also of apps that are gone.
    pub bricks: OrdMap<BrickName, Arc<Brick>>,
    /// Nodes ever seen with tasks of ours.
    pub agents: OrdMap<AgentId, Arc<Agent>>,
    /// The last failure of each app.
    pub failures: OrdMap<PathId, Arc<TaskFailure>>,
    /// The users that somebody has made.
    pub users: OrdMap<Owner, Arc<User>>,
    /// Groups that were made, with or without apps in them; the root only when it depends on something.
    pub groups: OrdMap<PathId, Arc<Group>>,
    /// The latest changes of the tree of groups.
    pub root_versions: OrdMap<Timestamp, Arc<RootVersion>>,
    /// Definitions of apps that are gone which a version of the root names.
    pub archive: OrdMap<(PathId, Timestamp), Arc<App>>,
    /// Derived: the current definition of each app that exists. They are asked for more often than anything else.
    current: OrdMap<PathId, Arc<App>>,
    /// Derived: how many users have a password, the locked ones too.
    pub passwords: usize,
    /// Derived: how many instances of each app are in which condition.
    pub tallies: OrdMap<PathId, Arc<Tally>>,
    /// Derived: what each owner has.
    pub holdings: AllHoldings,
    /// Derived: the persistent volumes that belong to an instance, or did when it was there; without those that are given up.
    pub reserved: OrdMap<InstanceId, OrdSet<BrickName>>,
    /// Derived: MiB of these volumes, by app; only what is not 0.
    pub reserved_size: OrdMap<PathId, u128>,
}

/// Counts of one app's instances. Derived from the instances by [`Tables::apply`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Per version of the definition; at most a handful of versions are alive at once.
    pub by_version: Vec<(Timestamp, Counts)>,
}

/// Counts by condition (index: the condition's place in [`Condition::ALL`]), for instances with goal Running and for the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Goal Running.
    pub wanted: [u32; 15],
    /// Goal Stopped or Decommissioned.
    pub leaving: [u32; 15],
    /// Running, goal Running, by health and readiness: 1 is added to the place of the healthy ones, 2 to that of those that were ready.
    pub serving: [u32; 4],
    /// Running and healthy, whatever their goal.
    pub healthy: u32,
    /// Running and unhealthy, whatever their goal.
    pub unhealthy: u32,
    /// Being killed, whatever their goal, where that is not seen otherwise ([`Instance::is_seen_to_end`]): those that had not started, and those that had.
    pub killed: [u32; 2],
}

/// What a running instance has to be in order to serve.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Its health checks say so.
    pub healthy: bool,
    /// Its readiness check said so.
    pub ready: bool,
}

impl Tally {
    /// Instances in `condition`, of all versions and goals.
    pub fn in_condition(&self, condition: Condition) -> u32 {
        self.by_version.iter().map(|(_, counts)| counts.wanted[condition as usize] + counts.leaving[condition as usize]).sum()
    }

    /// Marathon's `tasksRunning`.
    pub fn running(&self) -> u32 {
        self.in_condition(Condition::Running)
    }

    /// Marathon's `tasksStaged`.
    pub fn staged(&self) -> u32 {
        self.in_condition(Condition::Provisioned) + self.in_condition(Condition::Staging)
    }

    /// Of the instances that are being killed, where that is not seen otherwise, those that had not started and those that had.
    pub fn killed(&self) -> (u32, u32) {
        self.by_version.iter().fold((0, 0), |(staged, running), (_, counts)| (staged + counts.killed[0], running + counts.killed[1]))
    }

    /// Marathon's `tasksHealthy`.
    pub fn healthy(&self) -> u32 {
        self.by_version.iter().map(|(_, counts)| counts.healthy).sum()
    }

    /// Marathon's `tasksUnhealthy`.
    pub fn unhealthy(&self) -> u32 {
        self.by_version.iter().map(|(_, counts)| counts.unhealthy).sum()
    }

    /// Instances with goal Running that run and are what `needs` asks of their version.
    pub fn serving(&self, version: impl Fn(Timestamp) -> bool, needs: impl Fn(Timestamp) -> Needs) -> u32 {
        let of = |(at, counts): &(Timestamp, Counts)| {
            let needs = needs(*at);
            let is = |place: usize| (!needs.healthy || place & 1 != 0) && (!needs.ready || place & 2 != 0);
            (0..counts.serving.len()).filter(|place| is(*place)).map(|place| counts.serving[place]).sum::<u32>()
        };
        self.by_version.iter().filter(|(at, _)| version(*at)).map(of).sum()
    }

    /// Instances with goal Running whose version is at least `version`, by a test of their condition.
    pub fn wanted_since(&self, version: Timestamp, mut test: impl FnMut(Condition) -> bool) -> u32 {
        self.sum(|at| at >= version, |counts| &counts.wanted, &mut test)
    }

    /// Instances with goal Running whose version is below `version`, by a test of their condition.
    pub fn wanted_before(&self, version: Timestamp, mut test: impl FnMut(Condition) -> bool) -> u32 {
        self.sum(|at| at < version, |counts| &counts.wanted, &mut test)
    }

    /// Instances that are to end but have not yet, by a test of their condition.
    pub fn leaving(&self, mut test: impl FnMut(Condition) -> bool) -> u32 {
        self.sum(|_| true, |counts| &counts.leaving, &mut test)
    }

    fn sum(
        &self,
        version: impl Fn(Timestamp) -> bool,
        part: impl Fn(&Counts) -> &[u32; 15],
        test: &mut impl FnMut(Condition) -> bool,
    ) -> u32 {
        let versions = self.by_version.iter().filter(|(at, _)| version(*at));
        versions
            .map(|(_, counts)| Condition::ALL.iter().filter(|condition| test(**condition)).map(|c| part(counts)[*c as usize]).sum::<u32>())
            .sum()
    }

    fn add(&mut self, instance: &Instance) {
        let at = match self.by_version.iter().position(|(version, _)| *version == instance.version) {
            Some(at) => at,
            None => {
                self.by_version.push((instance.version, Counts::default()));
                self.by_version.len() - 1
            }
        };
        for cell in Self::cells(&mut self.by_version[at].1, instance) {
            *cell += 1;
        }
    }

    fn remove(&mut self, instance: &Instance) {
        if let Some(at) = self.by_version.iter().position(|(version, _)| *version == instance.version) {
            let counts = &mut self.by_version[at].1;
            for cell in Self::cells(counts, instance) {
                *cell = cell.saturating_sub(1);
            }
            if *counts == Counts::default() {
                self.by_version.swap_remove(at);
            }
        }
    }

    /// The counts that an instance is part of.
    fn cells<'a>(counts: &'a mut Counts, instance: &Instance) -> impl Iterator<Item = &'a mut u32> {
        let wanted = instance.goal == Goal::Running;
        let Counts { wanted: of_wanted, leaving, serving, healthy, unhealthy, killed } = counts;
        let half = if wanted { of_wanted } else { leaving };
        let runs = instance.condition == Condition::Running;
        let place = usize::from(instance.healthy == Some(true)) | usize::from(instance.ready) << 1;
        let health = match instance.healthy {
            Some(true) => Some(healthy),
            Some(false) => Some(unhealthy),
            None => None,
        };
        let is_killed = instance.condition == Condition::Killing && !instance.is_seen_to_end();
        let cells = [
            Some(&mut half[instance.condition as usize]),
            (runs && wanted).then_some(&mut serving[place]),
            health.filter(|_| runs),
            is_killed.then_some(&mut killed[usize::from(instance.started_at.is_some())]),
        ];
        cells.into_iter().flatten()
    }
}

impl Tables {
    /// Puts one change into the tables: the only way in which they ever change.
    pub fn apply(&mut self, change: &Change) {
        let concerned = Concerned::before(self, change);
        self.put_in(change);
        if let Some(concerned) = concerned {
            concerned.after(self);
        }
    }

    fn put_in(&mut self, change: &Change) {
        match change {
            Change::Put(Record::Meta(meta)) => self.meta = meta.clone(),
            Change::Put(Record::App(app)) => {
                self.apps.insert(app.id.clone(), app.clone());
                if !self.current.contains_key(&app.id) {
                    self.find_current(&app.id);
                }
            }
            Change::Put(Record::Definition(app)) => {
                self.definitions.insert(app.clone());
                // Only of an app that exists there is a present one.
                let is_latest = match self.current.get(&app.id) {
                    Some(current) => current.version <= app.version,
                    None => self.apps.contains_key(&app.id),
                };
                if is_latest {
                    self.current.insert(app.id.clone(), app.clone());
                }
            }
            Change::Put(Record::Instance(instance)) => {
                let before = self.instances.insert(instance.id.clone(), instance.clone());
                self.count(instance.app(), before.as_deref(), Some(instance));
            }
            Change::Put(Record::Deployment(deployment)) => _ = self.deployments.insert(deployment.id.clone(), deployment.clone()),
            Change::Put(Record::Port(claim)) => _ = self.ports.insert(claim.port, claim.clone()),
            Change::Put(Record::Brick(brick)) => {
                let before = self.bricks.insert(brick.name.clone(), brick.clone());
                self.reserve(before.as_deref(), Some(brick));
            }
            Change::Put(Record::Agent(agent)) => _ = self.agents.insert(agent.id.clone(), agent.clone()),
            Change::Put(Record::Failure(failure)) => _ = self.failures.insert(failure.app.clone(), failure.clone()),
            Change::Put(Record::User(user)) => {
                let before = self.users.insert(user.name.clone(), user.clone());
                self.count_passwords(before.as_deref(), Some(user));
            }
            Change::Put(Record::Group(group)) => _ = self.groups.insert(group.id.clone(), group.clone()),
            Change::Put(Record::RootVersion(root)) => _ = self.root_versions.insert(root.version, root.clone()),
            Change::Put(Record::Archived(app)) => _ = self.archive.insert((app.id.clone(), app.version), app.clone()),
            Change::Delete(key) => self.delete(key),
        }
    }

    fn delete(&mut self, key: &RecordKey) {
        match key {
            RecordKey::Meta => self.meta = Arc::default(),
            RecordKey::App(app) => {
                self.apps.remove(app);
                self.current.remove(app);
            }
            RecordKey::Definition(app, version) => {
                self.definitions.remove(app, *version);
                if self.current.get(app).is_some_and(|current| current.version == *version) {
                    self.current.remove(app);
                    self.find_current(app);
                }
            }
            RecordKey::Instance(id) => {
                let before = self.instances.remove(id);
                self.count(id.app(), before.as_deref(), None);
            }
            RecordKey::Deployment(id) => _ = self.deployments.remove(id),
            RecordKey::Port(port) => _ = self.ports.remove(port),
            RecordKey::Brick(name) => {
                let before = self.bricks.remove(name);
                self.reserve(before.as_deref(), None);
            }
            RecordKey::Agent(id) => _ = self.agents.remove(id),
            RecordKey::Failure(app) => _ = self.failures.remove(app),
            RecordKey::User(name) => {
                let before = self.users.remove(name);
                self.count_passwords(before.as_deref(), None);
            }
            RecordKey::Group(id) => _ = self.groups.remove(id),
            RecordKey::RootVersion(version) => _ = self.root_versions.remove(version),
            RecordKey::Archived(app, version) => _ = self.archive.remove(&(app.clone(), *version)),
        }
    }

    /// The latest definition of an app that exists is its present one.
    fn find_current(&mut self, app: &PathId) {
        if let Some(latest) = self.definitions.latest(app) {
            self.current.insert(app.clone(), latest.clone());
        }
    }

    fn reserve(&mut self, before: Option<&Brick>, after: Option<&Brick>) {
        let whose = |brick: Option<&Brick>| {
            let brick = brick.filter(|brick| !brick.condemned)?;
            Some((brick.reservation.as_ref()?.instance.clone(), brick.name.clone(), brick.size))
        };
        let (before, after) = (whose(before), whose(after));
        if before == after {
            return;
        }
        for (instance, size) in before.iter().map(|(instance, _, size)| (instance, -i128::from(*size))) {
            self.resize_reserved(instance.app(), size);
        }
        for (instance, size) in after.iter().map(|(instance, _, size)| (instance, i128::from(*size))) {
            self.resize_reserved(instance.app(), size);
        }
        if let Some((instance, name, _)) = before
            && let Some(names) = self.reserved.get_mut(&instance)
        {
            names.remove(&name);
            if names.is_empty() {
                self.reserved.remove(&instance);
            }
        }
        if let Some((instance, name, _)) = after {
            self.reserved.entry(instance).or_default().insert(name);
        }
    }

    fn resize_reserved(&mut self, app: &PathId, by: i128) {
        let size = self.reserved_size.get(app).copied().unwrap_or_default().saturating_add_signed(by);
        if size > 0 {
            self.reserved_size.insert(app.clone(), size);
        } else {
            self.reserved_size.remove(app);
        }
    }

    /// The persistent volumes of an instance.
    pub fn volumes_of<'a>(&'a self, instance: &InstanceId) -> impl Iterator<Item = &'a Arc<Brick>> + use<'a> {
        self.reserved.get(instance).into_iter().flatten().filter_map(|name| self.bricks.get(name))
    }

    /// The instances of an app that have persistent volumes, present ones and past ones.
    pub fn reservations_of<'a>(&'a self, app: &PathId) -> impl Iterator<Item = &'a InstanceId> + use<'a> {
        let first = InstanceId::new(app.clone(), uuid::Uuid::nil());
        let last = InstanceId::new(app.clone(), uuid::Uuid::max());
        self.reserved.range(first..=last).map(|(instance, _)| instance)
    }

    fn count_passwords(&mut self, before: Option<&User>, after: Option<&User>) {
        let has_one = |user: Option<&User>| usize::from(user.is_some_and(|user| user.password.is_some()));
        self.passwords = self.passwords + has_one(after) - has_one(before);
    }

    fn count(&mut self, app: &PathId, before: Option<&Instance>, after: Option<&Instance>) {
        let Some(slot) = self.tallies.get_mut(app) else {
            if let Some(instance) = after {
                let mut tally = Tally::default();
                tally.add(instance);
                self.tallies.insert(app.clone(), tally.into());
            }
            return;
        };
        let tally = Arc::make_mut(slot);
        before.into_iter().for_each(|instance| tally.remove(instance));
        after.into_iter().for_each(|instance| tally.add(instance));
        if tally.by_version.is_empty() {
            self.tallies.remove(app);
        }
    }

    /// The current definition of an app that exists.
    pub fn app(&self, id: &PathId) -> Option<&Arc<App>> {
        self.current.get(id)
    }

    /// True for a pod that exists.
    pub fn is_pod(&self, id: &PathId) -> bool {
        self.app(id).is_some_and(|app| app.pod.is_some())
    }

    /// Whose an app is, also while one that was destroyed still has instances. `None`: there is nothing of it, or it was written before apps had
    /// owners.
    pub fn owner_of(&self, id: &PathId) -> Option<&Owner> {
        match self.apps.get(id) {
            Some(entry) => Some(&entry.owner),
            None => self.definitions.latest(id)?.owner.as_ref(),
        }
    }

    /// True when there is anything of an app, if only instances that have not ended yet.
    pub fn has_traces_of(&self, id: &PathId) -> bool {
        self.apps.contains_key(id) || self.tallies.contains_key(id) || self.versions_of(id).next().is_some()
    }

    /// The apps that exist below a group, by whole segments.
    pub fn apps_below<'a>(&'a self, group: &PathId) -> impl Iterator<Item = &'a PathId> + use<'a> {
        let (first, last) = super::group::below(group);
        self.apps.range::<_, str>((Bound::Excluded(first.as_str()), Bound::Excluded(last.as_str()))).map(|(id, _)| id)
    }

    /// The groups with a record below a group.
    pub fn groups_below<'a>(&'a self, group: &PathId) -> impl Iterator<Item = &'a Arc<Group>> + use<'a> {
        let (first, last) = super::group::below(group);
        self.groups.range::<_, str>((Bound::Excluded(first.as_str()), Bound::Excluded(last.as_str()))).map(|(_, group)| group)
    }

    /// True when a group is there: the root, one that was made, one with an app below it.
    pub fn group_exists(&self, id: &PathId) -> bool {
        id.is_root() || self.groups.contains_key(id) || self.groups_below(id).next().is_some() || self.apps_below(id).next().is_some()
    }

    /// True when the top-level group that an app is in prescribes the role of its apps.
    pub fn enforces_role(&self, app: &PathId) -> bool {
        let mut segments = app.segments();
        let (Some(top), Some(_)) = (segments.next(), segments.next()) else { return false };
        app.as_str().get(..=top.len()).and_then(|group| self.groups.get(group)).is_some_and(|group| group.enforce_role)
    }

    /// The version of the root, and of every group. Before there were versions of the root: that of the last definition.
    pub fn root_version(&self) -> Timestamp {
        let latest = self.root_versions.get_max().map(|(version, _)| *version);
        latest.unwrap_or_else(|| self.current.values().map(|app| app.version).max().unwrap_or_default())
    }

    /// One version of an app, also of one that is gone.
    pub fn definition(&self, id: &PathId, version: Timestamp) -> Option<&Arc<App>> {
        self.definitions.get(id, version).or_else(|| self.archive.get(&(id.clone(), version)))
    }

    /// The definition that an instance runs, or will run.
    pub fn definition_of(&self, instance: &Instance) -> Option<&Arc<App>> {
        self.definitions.get(instance.app(), instance.version)
    }

    /// What a running instance of this version of an app needs in order to serve.
    pub fn needs(&self, app: &PathId, version: Timestamp) -> Needs {
        let definition = self.definitions.get(app, version);
        definition
            .map_or_else(Needs::default, |app| Needs { healthy: !app.health_checks.is_empty(), ready: !app.readiness_checks.is_empty() })
    }

    /// The instances of one app, also of one that is being removed.
    pub fn instances_of<'a>(&'a self, app: &PathId) -> impl Iterator<Item = &'a Arc<Instance>> + use<'a> {
        let first = InstanceId::new(app.clone(), uuid::Uuid::nil());
        let last = InstanceId::new(app.clone(), uuid::Uuid::max());
        self.instances.range(first..=last).map(|(_, instance)| instance)
    }

    /// The versions of one app, oldest first.
    pub fn versions_of<'a>(&'a self, app: &PathId) -> impl Iterator<Item = &'a Arc<App>> + use<'a> {
        self.definitions.of(app)
    }
}

/// Why an offer was not used for an app, in the order in which the tests are made. Marathon's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the names are Marathon's")]
pub enum Reject {
    UnfulfilledRole,
    UnfulfilledConstraint,
    NoCorrespondingReservationFound,
    AgentMaintenance,
    InsufficientCpus,
    InsufficientMemory,
    InsufficientDisk,
    InsufficientGpus,
    InsufficientPorts,
    DeclinedScarceResources,
}

impl Reject {
    /// Every reason, in funnel order.
    pub const ALL: [Self; 10] = [
        Self::UnfulfilledRole,
        Self::UnfulfilledConstraint,
        Self::NoCorrespondingReservationFound,
        Self::AgentMaintenance,
        Self::InsufficientCpus,
        Self::InsufficientMemory,
        Self::InsufficientDisk,
        Self::InsufficientGpus,
        Self::InsufficientPorts,
        Self::DeclinedScarceResources,
    ];

    /// Marathon's text.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UnfulfilledRole => "UnfulfilledRole",
            Self::UnfulfilledConstraint => "UnfulfilledConstraint",
            Self::NoCorrespondingReservationFound => "NoCorrespondingReservationFound",
            Self::AgentMaintenance => "AgentMaintenance",
            Self::InsufficientCpus => "InsufficientCpus",
            Self::InsufficientMemory => "InsufficientMemory",
            Self::InsufficientDisk => "InsufficientDisk",
            Self::InsufficientGpus => "InsufficientGpus",
            Self::InsufficientPorts => "InsufficientPorts",
            Self::DeclinedScarceResources => "DeclinedScarceResources",
        }
    }
}

/// What waits to be launched of one app, and why it still waits. Forgotten at a restart, then derived anew.
#[derive(Clone, Debug, PartialEq)]
pub struct QueueEntry {
    /// The app.
    pub app: PathId,
    /// Since when something of it waits.
    pub since: Timestamp,
    /// Back-off: not launched before this moment; `None`: at once.
    pub not_before: Option<Timestamp>,
    /// Offers that were looked at since.
    pub processed: u64,
    /// Of these, not used.
    pub unused: u64,
    /// When an offer was last not used.
    pub last_unused_at: Option<Timestamp>,
    /// When an offer was last used.
    pub last_used_at: Option<Timestamp>,
    /// Refusals of the current launch attempt, by reason (index: the reason's place in [`Reject::ALL`]).
    pub rejected: [u64; 10],
    /// The last offer of each node that was not used, of at most [`MAX_UNUSED_OFFERS`] nodes.
    pub last_unused_offers: OrdMap<AgentId, UnusedOffer>,
    /// What else holds it up, for people: a brick whose holder is not known to be gone, a node that is pinned and missing.
    pub held_by: Option<String>,
    /// An expression of its constraints was given up, for people; the last offers were not used for that.
    pub undecided: Option<String>,
}

/// Of how many nodes the last unused offer is remembered for an app. One more takes the place of another, whichever.
pub const MAX_UNUSED_OFFERS: usize = 128;

/// An offer that was not used, and every reason.
#[derive(Clone, Debug, PartialEq)]
pub struct UnusedOffer {
    /// The offer as it was looked at.
    pub offer: Arc<Offer>,
    /// Why not.
    pub reasons: Vec<Reject>,
    /// When.
    pub at: Timestamp,
}

/// How full a brick is, as its node last said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BrickUsage {
    /// MiB in use.
    pub used: Option<u64>,
    /// MiB that the file system has.
    pub size: Option<u64>,
    /// Why its release is stuck.
    pub stuck: Option<String>,
}

/// What this process has seen of the checks of one task. Forgotten at a restart.
#[derive(Clone, Debug, PartialEq)]
pub struct Readings {
    /// Since when the task runs, as far as this process knows; the grace period counts from here.
    pub since: Instant,
    /// One for each health check of its definition.
    pub checks: Vec<Reading>,
    /// The last answer to its readiness check.
    pub readiness: Option<ReadinessAnswer>,
    /// What its generic checks found, by their places as far as there was any result.
    pub results: Vec<Option<CheckResult>>,
}

impl Readings {
    /// What the generic check in this place found.
    pub fn result(&self, place: usize) -> Option<CheckResult> {
        self.results.get(place).copied().flatten()
    }

    /// The same, as it is now. The definition has a check in this place.
    pub fn set_result(&mut self, place: usize, result: Option<CheckResult>) {
        self.results.resize(self.results.len().max(place + 1), None);
        self.results[place] = result;
    }
}

/// What this process has seen of one health check of one task.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    /// The last one.
    pub last_success: Option<Timestamp>,
    /// The last one that was counted.
    pub last_failure: Option<Timestamp>,
    /// Why; empty without one.
    pub last_failure_cause: String,
    /// In a row.
    pub failures: u32,
    /// The last run was of no use, and why: nothing was concluded from it.
    pub uncertain: Option<(Timestamp, String)>,
}

/// What readers see: durable tables as of one commit, and the volatile rest as of the same moment.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// Another number than the one before when records, the queue or readings differ from it.
    pub revision: u64,
    /// Everything durable.
    pub tables: Tables,
    /// Apps with something to launch.
    pub queue: OrdMap<PathId, Arc<QueueEntry>>,
    /// Reports on bricks.
    pub brick_usage: OrdMap<BrickName, Arc<BrickUsage>>,
    /// What checks have found, of tasks whose app has any.
    pub readings: OrdMap<InstanceId, Arc<Readings>>,
    /// Whom we are connected to; `None`: nobody.
    pub connected_to: Option<Arc<str>>,
    /// Since when; `None`: not connected.
    pub connected_since: Option<Timestamp>,
    /// When each node last offered something or told of a task, since this process began.
    pub heard_of: OrdMap<AgentId, Timestamp>,
    /// Instances to which a kill was sent and whose end is not known.
    pub kills_in_flight: usize,
    /// How often kills were sent of all instances that are to end and have not.
    pub kill_attempts: u64,
    /// Instances that are killed because they did not come up in time. Those of before a restart are not known.
    pub overdue: usize,
}
