//! The state of the one process that decides: the durable [`Tables`] and everything that follows from them or is forgotten at a restart.
//!
//! [`State::apply`] is the only mutator of durable state, used by every step and by recovery. It also keeps what is derived in step, at a cost that
//! depends on the change alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use imbl::OrdMap;

use super::{
    Settings,
    deployment::Work,
    index::AppIndex,
    kill::Kills,
    launch::queue::Queue,
    state::{BrickUsage, Reading, Readings, Tables, View},
    timers::Timers,
};
use crate::model::{
    app::{App, PortNumber, UnreachableStrategy},
    brick::Brick,
    cluster::Offer,
    deployment::Deployment,
    group::RootVersion,
    id::{AgentId, BrickName, DeploymentId, InstanceId, OfferId, PathId},
    instance::{Condition, Goal, Instance},
    port::{PortClaim, Position},
    record::{Change, Record, RecordKey},
    time::{Instant, Timestamp},
};

/// A launch that nobody has confirmed is asked about after this long, again and again, milliseconds.
pub const CONFIRM_INTERVAL_MS: u64 = 10_000;

/// So long after a restart of ours no launch is overdue, milliseconds (Marathon 1.11: `overdueTaskActorInitialDelay`).
const OVERDUE_AFTER_RESTART_MS: u64 = 30_000;

/// What may be due.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// A launch without any status.
    Confirm(InstanceId),
    /// A launch that was not confirmed, or did not come up, in time.
    Overdue(InstanceId),
    /// An instance that is out of reach.
    Unreachable(InstanceId),
    /// An app whose back-off ends.
    Backoff(PathId),
    /// A lease whose holder is gone.
    Release(BrickName),
    /// A brick whose data should go.
    Destroy(BrickName),
    /// All tasks are compared with the cluster.
    Reconcile,
    /// Offers are asked for again.
    Revive,
}

/// Everything that one process knows. Built by [`State::recover`], changed by [`super::step::step`] alone.
pub struct State {
    pub(super) tables: Tables,
    pub(super) settings: Settings,
    /// The moment of the current step.
    pub(super) now: Instant,
    pub(super) index: BTreeMap<PathId, AppIndex>,
    /// Which deployment has an app.
    pub(super) locks: BTreeMap<PathId, DeploymentId>,
    /// How far the current step of each deployment is.
    pub(super) works: BTreeMap<DeploymentId, Work>,
    /// How many versions of the root name a definition as what was before.
    pub(super) mentions: BTreeMap<(PathId, Timestamp), u32>,
    /// Apps and deployments that the passes have to look at.
    pub(super) dirty: BTreeSet<PathId>,
    pub(super) dirty_deployments: BTreeSet<DeploymentId>,
    pub(super) kills: Kills,
    /// What is killed because it did not come up in time.
    pub(super) overdue: BTreeSet<InstanceId>,
    /// What is killed and whose node has said so: that is told once. A restart of ours forgets it.
    pub(super) killing_told: BTreeSet<InstanceId>,
    pub(super) timers: Timers<Timer>,
    /// The bricks that an instance has a lease of.
    pub(super) holders: BTreeMap<InstanceId, BTreeSet<BrickName>>,
    pub(super) claims: BTreeMap<(PathId, Position), u16>,
    /// The bricks of each app, also of one that is gone.
    pub(super) bricks_of: BTreeMap<PathId, BTreeSet<BrickName>>,
    /// Which apps with ports share a domain name.
    pub(super) labels: BTreeMap<String, BTreeSet<PathId>>,
    /// Which apps name an external volume.
    pub(super) external_volumes: BTreeMap<String, BTreeSet<PathId>>,
    /// Which apps use a service port.
    pub(super) service_ports: BTreeMap<u16, BTreeSet<PathId>>,
    /// Which apps are reached by the name of a virtual host.
    pub(super) virtual_hosts: BTreeMap<String, BTreeSet<PathId>>,
    /// All service ports below, from the first of their range on, are in use.
    pub(super) lowest_service_port: u16,
    /// Where the search for a free number goes on: host mode, bridge mode.
    pub(super) cursors: [u16; 2],
    pub(super) queue: Queue,
    pub(super) patterns: super::launch::constraints::Patterns,
    /// Offers that have not been matched yet.
    pub(super) offers: BTreeMap<OfferId, Arc<Offer>>,
    pub(super) brick_usage: OrdMap<BrickName, Arc<BrickUsage>>,
    pub(super) readings: OrdMap<InstanceId, Arc<Readings>>,
    pub(super) connected_to: Option<Arc<str>>,
    pub(super) connected_since: Option<Timestamp>,
    /// Where the master is.
    pub(super) local_region: Option<String>,
    pub(super) heard_of: OrdMap<AgentId, Timestamp>,
    /// The newest version given out.
    pub(super) last_version: Timestamp,
}

impl State {
    /// From what is durable; with no records, an empty one. What is volatile (queue, kills owed, deadlines) is derived here, relative to `now`, which is
    /// `wall` by the wall clock.
    pub fn recover(settings: Settings, records: Vec<Record>, now: Instant, wall: Timestamp) -> Self {
        let cursors = [settings.host_mode_ports.begin, settings.bridge_mode_ports.begin];
        let mut tables = Tables::default();
        records.into_iter().for_each(|record| tables.apply(&Change::Put(record)));
        let mut state = Self {
            tables: tables.clone(),
            settings,
            now,
            index: BTreeMap::new(),
            locks: BTreeMap::new(),
            works: BTreeMap::new(),
            mentions: BTreeMap::new(),
            dirty: BTreeSet::new(),
            dirty_deployments: BTreeSet::new(),
            kills: Kills::default(),
            overdue: BTreeSet::new(),
            killing_told: BTreeSet::new(),
            timers: Timers::default(),
            holders: BTreeMap::new(),
            claims: BTreeMap::new(),
            bricks_of: BTreeMap::new(),
            labels: BTreeMap::new(),
            external_volumes: BTreeMap::new(),
            service_ports: BTreeMap::new(),
            virtual_hosts: BTreeMap::new(),
            lowest_service_port: 0,
            cursors,
            queue: Queue::default(),
            patterns: Default::default(),
            offers: BTreeMap::new(),
            brick_usage: OrdMap::new(),
            readings: OrdMap::new(),
            connected_to: None,
            connected_since: None,
            local_region: None,
            heard_of: OrdMap::new(),
            last_version: tables
                .definitions
                .values()
                .map(|app| app.version)
                .chain(tables.root_versions.keys().copied())
                .max()
                .unwrap_or_default(),
        };
        tables.apps.values().filter_map(|entry| tables.app(&entry.id)).for_each(|app| state.app_changed(&app.id, None, Some(app)));
        tables.instances.values().for_each(|instance| state.instance_changed(&instance.id, None, Some(instance)));
        tables.instances.values().for_each(|instance| state.continue_launch(instance, wall));
        tables.deployments.values().for_each(|deployment| state.deployment_changed(None, Some(deployment)));
        tables.root_versions.values().for_each(|root| state.root_version_changed(None, Some(root)));
        tables.ports.values().for_each(|claim| state.port_changed(None, Some(claim)));
        tables.bricks.values().for_each(|brick| state.brick_changed(None, Some(brick)));
        state.timers.set(Timer::Reconcile, now.after_ms(state.settings.reconciliation_interval_ms));
        state
    }

    /// What readers may see of it. Whoever publishes it gives it its revision.
    pub fn view(&self) -> View {
        View {
            revision: 0,
            tables: self.tables.clone(),
            queue: self.queue.entries.clone(),
            brick_usage: self.brick_usage.clone(),
            readings: self.readings.clone(),
            connected_to: self.connected_to.clone(),
            connected_since: self.connected_since,
            heard_of: self.heard_of.clone(),
            kills_in_flight: self.kills.in_flight(),
            kill_attempts: self.kills.attempts(),
            overdue: self.overdue.len(),
        }
    }

    /// When a tick next has something to do; `None`: only other inputs can change anything.
    pub fn next_deadline(&self) -> Option<Instant> {
        if !self.dirty.is_empty() || !self.dirty_deployments.is_empty() || !self.offers.is_empty() {
            return Some(self.now);
        }
        self.timers.first().into_iter().chain(self.kills.next_deadline()).min()
    }

    /// The settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Puts one change into effect: the tables, and all that is derived from them.
    pub(super) fn apply(&mut self, change: &Change) {
        match change.key() {
            RecordKey::Instance(id) => {
                let before = self.tables.instances.get(&id).cloned();
                self.tables.apply(change);
                let after = match change {
                    Change::Put(Record::Instance(instance)) => Some(instance),
                    _ => None,
                };
                self.instance_changed(&id, before.as_deref(), after);
            }
            RecordKey::App(id) => {
                let before = self.tables.app(&id).cloned();
                self.tables.apply(change);
                let after = self.tables.app(&id).cloned();
                self.app_changed(&id, before.as_deref(), after.as_ref());
            }
            RecordKey::Deployment(id) => {
                let before = self.tables.deployments.get(&id).cloned();
                self.tables.apply(change);
                let after = if let Change::Put(Record::Deployment(deployment)) = change { Some(deployment) } else { None };
                self.deployment_changed(before.as_ref(), after);
            }
            RecordKey::Port(port) => {
                let before = self.tables.ports.get(&port).cloned();
                self.tables.apply(change);
                let after = if let Change::Put(Record::Port(claim)) = change { Some(&**claim) } else { None };
                self.port_changed(before.as_deref(), after);
            }
            RecordKey::Brick(name) => {
                let before = self.tables.bricks.get(&name).cloned();
                self.tables.apply(change);
                let after = if let Change::Put(Record::Brick(brick)) = change { Some(&**brick) } else { None };
                self.brick_changed(before.as_deref(), after);
            }
            RecordKey::RootVersion(version) => {
                let before = self.tables.root_versions.get(&version).cloned();
                self.tables.apply(change);
                let after = if let Change::Put(Record::RootVersion(root)) = change { Some(&**root) } else { None };
                self.root_version_changed(before.as_deref(), after);
            }
            RecordKey::Group(_) | RecordKey::Archived(..) => self.tables.apply(change),
            RecordKey::Definition(id, version) => {
                let current = self.tables.app(&id).cloned();
                self.tables.apply(change);
                // What is older than the present one is no change of the app.
                if current.as_ref().is_none_or(|current| current.version <= version) {
                    let after = self.tables.app(&id).cloned();
                    if current.is_some() || after.is_some() {
                        self.app_changed(&id, current.as_deref(), after.as_ref());
                    }
                }
            }
            RecordKey::Meta | RecordKey::Agent(_) | RecordKey::Failure(_) | RecordKey::User(_) => {
                self.tables.apply(change);
            }
        }
    }

    fn instance_changed(&mut self, id: &InstanceId, before: Option<&Instance>, after: Option<&Arc<Instance>>) {
        let app = id.app();
        let index = self.index.entry(app.clone()).or_default();
        index.change(before, after.map(|instance| &**instance));
        if index.is_empty() {
            self.index.remove(app);
        }
        self.dirty.insert(app.clone());

        match after {
            Some(instance) if is_kill_owed(instance) => self.kills.owe(id),
            _ => self.kills.settle(id),
        }
        if after.is_none_or(|instance| instance.condition != Condition::Killing) {
            self.overdue.remove(id);
            self.killing_told.remove(id);
        }
        self.set_instance_timers(id, before, after.map(|instance| &**instance));
        self.set_readings(id, before, after.map(|instance| &**instance));

        for brick in self.holders.get(id).into_iter().flatten() {
            let lease = self.tables.bricks.get(brick).and_then(|brick| brick.lease.as_ref());
            if lease.is_some_and(|lease| !holds(after.map(|instance| &**instance), lease.task.incarnation)) {
                self.timers.set(Timer::Release(brick.clone()), self.now);
            }
        }
    }

    fn set_instance_timers(&mut self, id: &InstanceId, before: Option<&Instance>, after: Option<&Instance>) {
        let state = |instance: Option<&Instance>| instance.map(|instance| (instance.condition, instance.incarnation));
        if state(before) == state(after) {
            return;
        }
        let overdue = Timer::Overdue(id.clone());
        let same = before.zip(after).filter(|(before, after)| before.incarnation == after.incarnation);
        let due = same.and_then(|(before, _)| Some((before.condition, self.timers.at(&overdue)?)));
        if let Some(before) = before {
            timers_of(id, before.condition).into_iter().flatten().for_each(|timer| self.timers.clear(&timer));
        }
        let Settings { task_launch_timeout_ms: most, task_launch_confirm_timeout_ms: unconfirmed, .. } = self.settings;
        match after.map(|instance| instance.condition) {
            Some(Condition::Provisioned) => {
                self.timers.set(Timer::Confirm(id.clone()), self.now.after_ms(CONFIRM_INTERVAL_MS));
                self.timers.set(overdue, self.now.after_ms(unconfirmed));
            }
            // Counted from the launch on, whatever is heard of it meanwhile (Marathon 1.11: `stagedAt`); by the clock that does not jump.
            Some(Condition::Staging | Condition::Starting) => {
                let at = match due {
                    Some((Condition::Provisioned, at)) => {
                        let waited = unconfirmed.saturating_sub(at.ms_since(self.now));
                        self.now.after_ms(most.saturating_sub(waited))
                    }
                    Some((_, at)) => at,
                    None => self.now.after_ms(most),
                };
                self.timers.set(overdue, at);
            }
            Some(Condition::Unreachable | Condition::Unknown) => {
                let strategy = after.and_then(|instance| self.unreachable_strategy(instance));
                if let Some(UnreachableStrategy::Enabled { inactive_after_seconds, .. }) = strategy {
                    self.timers.set(Timer::Unreachable(id.clone()), self.now.after_ms(inactive_after_seconds * 1000));
                }
            }
            Some(Condition::UnreachableInactive) => {
                let strategy = after.and_then(|instance| self.unreachable_strategy(instance));
                if let Some(UnreachableStrategy::Enabled { inactive_after_seconds, expunge_after_seconds }) = strategy {
                    let rest = expunge_after_seconds.saturating_sub(inactive_after_seconds);
                    self.timers.set(Timer::Unreachable(id.clone()), self.now.after_ms(rest * 1000));
                }
            }
            _ => {}
        }
    }

    /// At a restart of ours: what was launched before has the rest of its time to come up. The wall clock knows it, which may have been set meanwhile; and
    /// what has come up while nobody listened is heard of first.
    fn continue_launch(&mut self, instance: &Instance, wall: Timestamp) {
        let limit = match instance.condition {
            Condition::Provisioned => self.settings.task_launch_confirm_timeout_ms,
            Condition::Staging | Condition::Starting => self.settings.task_launch_timeout_ms,
            _ => return,
        };
        let waited = instance.staged_at.map_or(0, |at| wall.ms_since(at));
        let rest = limit.saturating_sub(waited).max(limit.min(OVERDUE_AFTER_RESTART_MS));
        self.timers.set(Timer::Overdue(instance.id.clone()), self.now.after_ms(rest));
    }

    /// What checks find is kept while there is a task; the grace period begins whenever it begins to run, and at a restart of ours.
    fn set_readings(&mut self, id: &InstanceId, before: Option<&Instance>, after: Option<&Instance>) {
        let running = |instance: Option<&Instance>| instance.filter(|it| it.condition == Condition::Running).map(|it| it.incarnation);
        let Some(instance) = after.filter(|instance| instance.condition.is_live()) else {
            self.readings.remove(id);
            return;
        };
        if running(after).is_none() || running(before) == running(after) {
            return;
        }
        let Some(app) = self.tables.definition_of(instance) else { return };
        if app.health_checks.is_empty() && app.readiness_checks.is_empty() && app.generic_checks().next().is_none() {
            return;
        }
        let count = app.health_checks.len();
        let known = self.readings.get(id).filter(|_| before.is_some_and(|before| before.incarnation == instance.incarnation));
        let readings = match known {
            Some(known) => Readings { since: self.now, ..(**known).clone() },
            None => Readings { since: self.now, checks: vec![Reading::default(); count], readiness: None, results: Vec::new() },
        };
        self.readings.insert(id.clone(), readings.into());
    }

    /// How long an instance that is out of reach is waited for. One that may hold a brick is waited for until its node is back or fenced: another
    /// could not be started anyway.
    pub(super) fn unreachable_strategy(&self, instance: &Instance) -> Option<UnreachableStrategy> {
        let app = self.tables.definition_of(instance)?;
        if app.bricks().next().is_some() { Some(UnreachableStrategy::Disabled) } else { Some(app.unreachable_strategy) }
    }

    fn app_changed(&mut self, id: &PathId, before: Option<&App>, after: Option<&Arc<App>>) {
        self.dirty.insert(id.clone());
        self.external_volumes_changed(id, before, after.map(|app| &**app));
        self.virtual_hosts_changed(id, before, after.map(|app| &**app));
        if let (Some(before), Some(after)) = (before, after)
            && has_ports(before) == has_ports(after)
            && service_ports(before).eq(service_ports(after))
        {
            return;
        }
        if let Some(app) = before {
            service_ports(app).for_each(|port| leave(&mut self.service_ports, &port, id));
            if has_ports(app) {
                leave(&mut self.labels, &id.dns_label(), id);
            }
        }
        if let Some(app) = after {
            service_ports(app).for_each(|port| _ = self.service_ports.entry(port).or_default().insert(id.clone()));
            if has_ports(app) {
                self.labels.entry(id.dns_label()).or_default().insert(id.clone());
            }
        }
        // Those that stay in use are no reason to look for a free one from further below.
        let given_back = before.into_iter().flat_map(service_ports).filter(|port| !self.service_ports.contains_key(port)).min();
        self.lowest_service_port = given_back.map_or(self.lowest_service_port, |port| port.min(self.lowest_service_port));
    }

    fn external_volumes_changed(&mut self, id: &PathId, before: Option<&App>, after: Option<&App>) {
        for volume in before.iter().flat_map(|app| app.external_volumes()) {
            leave(&mut self.external_volumes, &volume.name, id);
        }
        for volume in after.iter().flat_map(|app| app.external_volumes()) {
            self.external_volumes.entry(volume.name.clone()).or_default().insert(id.clone());
        }
    }

    fn virtual_hosts_changed(&mut self, id: &PathId, before: Option<&App>, after: Option<&App>) {
        for (_, name) in before.iter().flat_map(|app| virtual_hosts(app)) {
            leave(&mut self.virtual_hosts, &name, id);
        }
        for (_, name) in after.iter().flat_map(|app| virtual_hosts(app)) {
            self.virtual_hosts.entry(name).or_default().insert(id.clone());
        }
    }

    fn deployment_changed(&mut self, before: Option<&Arc<Deployment>>, after: Option<&Arc<Deployment>>) {
        for app in before.iter().flat_map(|deployment| deployment.affected_apps()) {
            self.locks.remove(app);
            self.dirty.insert(app.clone());
        }
        if let Some(deployment) = before {
            self.works.remove(&deployment.id);
        }
        if let Some(deployment) = after {
            for app in deployment.affected_apps() {
                self.locks.insert(app.clone(), deployment.id.clone());
            }
            self.works.insert(deployment.id.clone(), Work::begin(deployment));
            self.dirty_deployments.insert(deployment.id.clone());
        }
    }

    fn root_version_changed(&mut self, before: Option<&RootVersion>, after: Option<&RootVersion>) {
        for change in after.iter().flat_map(|root| &root.apps) {
            if let Some(from) = change.from {
                *self.mentions.entry((change.app.clone(), from)).or_default() += 1;
            }
        }
        for change in before.iter().flat_map(|root| &root.apps) {
            if let Some(from) = change.from {
                decrease(&mut self.mentions, (change.app.clone(), from));
            }
        }
    }

    fn port_changed(&mut self, before: Option<&PortClaim>, after: Option<&PortClaim>) {
        if let Some(claim) = before {
            self.claims.remove(&(claim.app.clone(), claim.position));
        }
        if let Some(claim) = after {
            self.claims.insert((claim.app.clone(), claim.position), claim.port);
        }
    }

    fn brick_changed(&mut self, before: Option<&Brick>, after: Option<&Brick>) {
        if let Some(brick) = before
            && let Some(lease) = &brick.lease
            && let Some(bricks) = self.holders.get_mut(&lease.task.instance)
        {
            bricks.remove(&brick.name);
            if bricks.is_empty() {
                self.holders.remove(&lease.task.instance);
            }
        }
        self.dirty.extend(before.or(after).map(|brick| brick.app.clone()));
        match (before, after) {
            (None, Some(brick)) => _ = self.bricks_of.entry(brick.app.clone()).or_default().insert(brick.name.clone()),
            (Some(brick), None) => {
                if let Some(bricks) = self.bricks_of.get_mut(&brick.app) {
                    bricks.remove(&brick.name);
                    if bricks.is_empty() {
                        self.bricks_of.remove(&brick.app);
                    }
                }
            }
            _ => {}
        }
        let Some(brick) = after else {
            if let Some(brick) = before {
                self.timers.clear(&Timer::Release(brick.name.clone()));
                self.timers.clear(&Timer::Destroy(brick.name.clone()));
                self.brick_usage.remove(&brick.name);
            }
            return;
        };
        if brick.reservation.is_some() && brick.lease.is_none() && before.is_some_and(|before| before.lease.is_some()) {
            // An offer may have been declined for want of it.
            self.queue.revive_again();
        }
        match &brick.lease {
            Some(lease) => {
                self.holders.entry(lease.task.instance.clone()).or_default().insert(brick.name.clone());
                let holder = self.tables.instances.get(&lease.task.instance);
                if !holds(holder.map(|instance| &**instance), lease.task.incarnation) {
                    self.timers.set_earlier(Timer::Release(brick.name.clone()), self.now);
                }
            }
            None => self.timers.clear(&Timer::Release(brick.name.clone())),
        }
        if brick.condemned {
            self.timers.set_earlier(Timer::Destroy(brick.name.clone()), self.now);
        }
    }

    /// A version that is newer than any given out, and not before `wall`.
    pub(super) fn next_version(&mut self, wall: Timestamp) -> Timestamp {
        self.last_version = wall.max(Timestamp(self.last_version.0 + 1));
        self.last_version
    }
}

/// True when the instance is the living holder of a lease that was given to its `incarnation`.
pub(super) fn holds(instance: Option<&Instance>, incarnation: u32) -> bool {
    instance.is_some_and(|instance| instance.incarnation == incarnation && instance.condition.is_live())
}

/// The timers that an instance in this condition may have; see [`State::set_instance_timers`].
fn timers_of(id: &InstanceId, condition: Condition) -> [Option<Timer>; 2] {
    match condition {
        Condition::Provisioned => [Some(Timer::Confirm(id.clone())), Some(Timer::Overdue(id.clone()))],
        Condition::Staging | Condition::Starting => [Some(Timer::Overdue(id.clone())), None],
        Condition::Unreachable | Condition::Unknown | Condition::UnreachableInactive => [Some(Timer::Unreachable(id.clone())), None],
        _ => [None, None],
    }
}

/// A kill is owed to a live instance that was told to end, by its goal or by a kill of its task; one out of reach cannot be killed now.
fn is_kill_owed(instance: &Instance) -> bool {
    let asked = instance.goal != Goal::Running || instance.condition == Condition::Killing;
    let reachable = !matches!(instance.condition, Condition::Unreachable | Condition::UnreachableInactive | Condition::Unknown);
    asked && reachable && instance.condition.is_live()
}

/// The service ports of a definition, each once for each place where it stands.
pub(super) fn service_ports(app: &App) -> impl Iterator<Item = u16> + '_ {
    let definitions = app.port_definitions.iter().filter_map(|definition| match definition.port {
        PortNumber::Fixed(port) => Some(port),
        PortNumber::Dynamic | PortNumber::Wanted | PortNumber::Allotted(_) => None,
    });
    definitions.chain(app.port_mappings().iter().map(|mapping| mapping.service_port)).filter(|port| *port != 0)
}

/// True when the app exposes anything under its domain name.
pub(super) fn has_ports(app: &App) -> bool {
    !app.port_definitions.is_empty() || !app.port_mappings().is_empty()
}

/// The names of virtual hosts that load balancers in the manner of marathon-lb read from the labels of an app, each with its label.
pub(super) fn virtual_hosts(app: &App) -> impl Iterator<Item = (&str, String)> {
    let is_for_hosts = |label: &str| {
        let index = label.strip_prefix("HAPROXY_").and_then(|rest| rest.strip_suffix("_VHOST"));
        index.is_some_and(|index| !index.is_empty() && index.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let labels = app.labels.iter().filter(move |(label, _)| is_for_hosts(label));
    let names = |text: &str| text.split(',').map(|name| name.trim().to_ascii_lowercase()).collect::<Vec<_>>();
    labels
        .flat_map(move |(label, text)| names(text).into_iter().map(move |name| (label.as_str(), name)))
        .filter(|(_, name)| !name.is_empty())
}

/// Takes an app out of those that have something in common.
fn leave<K: Ord>(apps: &mut BTreeMap<K, BTreeSet<PathId>>, key: &K, id: &PathId) {
    if let Some(left) = apps.get_mut(key) {
        left.remove(id);
        if left.is_empty() {
            apps.remove(key);
        }
    }
}

fn decrease<K: Ord>(counts: &mut BTreeMap<K, u32>, key: K) {
    if let Some(count) = counts.get_mut(&key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&key);
        }
    }
}
