//! What must always hold, judged from the world's truth and the durable records, never from what the core believes; and what must hold once the
//! world has healed.
//!
//! | rule | what it says |
//! | --- | --- |
//! | `lost-write` | what was committed is there after every restart |
//! | `wrong-write` | an answer "done" means that the records say what was asked; "refused" means that nothing of it was written; nothing else changes apps |
//! | `no-record` | a launch has the durable record of its very incarnation, place, ports and leases |
//! | `launched-twice` | a task id is launched once |
//! | `torn-pod` | the containers of a pod's instance are launched together, each of them, on one node |
//! | `offer-used-twice`, `offer-exceeded` | an offer is answered once, with no more than it holds |
//! | `over-committed` | the containers of a node fit into it |
//! | `port-used-twice`, `foreign-claim`, `wrong-ports` | a port of a node has one wanted holder; a claimed number is used by its app alone; fixed and claimed numbers are what they should be |
//! | `claim-moved`, `claim-lost` | a position keeps its number until someone releases it |
//! | `two-holders`, `lease-ended-early`, `lease-order`, `data-left-behind`, `data-destroyed` | a brick has one mount, a lease ends after it, and the data stays where it is |
//! | `forgot-live-task` | an instance is written off only after the cluster said that its task, or each of a pod, ended, or may have |
//! | `killed-wanted` | only what is told to end is killed, and what a container of its pod has taken along |
//! | `healthy-killed` | a kill for bad health comes after as many counted failures as the definition says, none of them in the grace period or uncertain |
//! | `early-ack` | an acknowledged status is in the records |
//! | `back-off` | nothing is launched while its app has to wait |
//! | `above-maximum`, `below-minimum` | a replacement stays within its bounds by our doing |
//! | `started-early` | within a deployment, an app is started only when what it depends on has come up |
//! | `wrong-past` | the versions of the root that are kept say what there was |
//! | `constraint`, `wrong-role`, `wasted-gpus` | placement rules hold, resources are used by whom they are reserved for, GPUs are kept for what needs them |
//! | `hot-loop` | time goes on |
//! | `progress` | after healing everything becomes as wanted |

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use super::{
    agent::{Phase, Told, is_end},
    disk::Disk,
    master::Pools,
    server::Stepped,
    trace::{short, short_instance},
    workload::{GRACE_S, MAX_FAILURES},
    world::World,
};
use crate::{
    core::{Frame, Input, RequestId, State, group, state::Tables},
    model::{
        app::{App, Network, PortNumber},
        brick::{Brick, BrickMount},
        cluster::{ClusterCall, ClusterEvent, Launch, TaskState},
        deployment::{ActionKind, Deployment},
        group::input::GroupInput,
        health::{Finding, Outcome},
        id::{AgentId, BrickName, InstanceId, PathId, TaskId},
        instance::{Condition, Goal, Instance},
        port::{PortClaim, Position},
        record::{AppEntry, Change, Record, RecordKey},
        request::{KillSelector, Reply, Request, RequestError},
        resources::Resources,
        time::Timestamp,
    },
};

/// Marathon's `--task_launch_timeout`: what does not come up in this time may be killed.
const OVERDUE_MS: u64 = 300_000;

/// A rule that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which; see the table above.
    pub rule: &'static str,
    /// When, milliseconds.
    pub at: u64,
    /// What was seen.
    pub detail: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "[{}] at {}.{:03} s: {}", self.rule, self.at / 1000, self.at % 1000, self.detail)
    }
}

/// What the rules have to remember.
#[derive(Debug, Default)]
pub(super) struct Rules {
    /// Requests on their way, with what the records must say when one is answered with "done".
    asked: BTreeMap<RequestId, Wanted>,
    /// The app entries that were committed.
    entries: BTreeMap<PathId, Timestamp>,
    claims: BTreeMap<(PathId, Position), u16>,
    launched: BTreeSet<TaskId>,
    /// Tasks that a client asked to kill.
    asked_to_kill: BTreeSet<TaskId>,
    /// Of these, those whose kill was acknowledged.
    doomed: BTreeSet<TaskId>,
    delays: BTreeMap<(PathId, Timestamp), Delay>,
    /// Instances that have run, in truth, by app and configuration.
    came_up: BTreeMap<(PathId, Timestamp), BTreeSet<InstanceId>>,
    /// The containers of each launch of a pod that have run, in truth.
    parts_up: BTreeMap<(InstanceId, u32), BTreeSet<TaskId>>,
    /// How the tasks of each launch of an instance ended, as the server was told first.
    ends: BTreeMap<(InstanceId, u32), BTreeMap<TaskId, TaskState>>,
    /// The apps, and their versions, of every version of the root.
    roots: BTreeMap<Timestamp, BTreeMap<PathId, Timestamp>>,
    /// A second opinion on the health of each task.
    health: BTreeMap<TaskId, Health>,
    /// What checks really found, where something else is told.
    honest: BTreeMap<(TaskId, Timestamp), Outcome>,
    /// When the present process began: a grace period begins anew.
    pub booted_at: u64,
    /// Apps whose last deployment was cancelled half-way: what is outdated stays, as in Marathon.
    half_way: BTreeSet<PathId>,
}

/// What an app must look like once a request is done.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wanted {
    pub mark: Option<u32>,
    pub instances: Option<u32>,
}

/// What was said of a task that runs.
#[derive(Clone, Copy, Debug, Default)]
struct Health {
    /// When its record said that it runs.
    since: u64,
    succeeded: bool,
    failures: u32,
}

/// Marathon's back-off, as a second opinion.
#[derive(Clone, Copy, Debug)]
struct Delay {
    wait_ms: f64,
    until: u64,
    forget_ms: u64,
}

impl Rules {
    pub(super) fn asked(&mut self, id: RequestId, wanted: Wanted) {
        self.asked.insert(id, wanted);
    }

    /// A check found this, and something else is told of it.
    pub(super) fn told_otherwise(&mut self, task: &TaskId, at: Timestamp, honest: Outcome) {
        self.honest.insert((task.clone(), at), honest);
    }

    /// A task runs. An instance of a pod has come up when all of its containers have.
    pub(super) fn came_up(&mut self, launch: &Launch) {
        if let Some(pod) = launch.pod.as_ref().and_then(|pod| pod.app.pod.as_ref()) {
            let parts = self.parts_up.entry(launch_of(&launch.task)).or_default();
            parts.insert(launch.task.clone());
            if parts.len() < pod.containers.len() {
                return;
            }
        }
        let key = (launch.app.id.clone(), launch.app.version_info.last_config_change_at);
        self.came_up.entry(key).or_default().insert(launch.task.instance.clone());
    }

    /// Back-off and unanswered requests end with the process.
    pub(super) fn forget_process(&mut self) {
        self.asked.clear();
        self.delays.clear();
    }
}

// === frames: at the commit, in order ===

impl World<'_> {
    /// Writes one frame to the disk, and judges it.
    pub(super) fn check_frame(&mut self, one: &Stepped) {
        self.learn(&one.cause);
        self.learn_health(one);
        let before = self.running_of(&one.frame);
        for change in &one.frame.changes {
            let old = self.disk.put(change);
            self.check_change(one, change, old);
        }
        self.check_minimum(one, &before);
        self.check_back_off(one);
        self.note_root(&one.frame);
        for (id, reply) in &one.frame.replies {
            let wanted = self.rules.asked.get(id).copied().unwrap_or_default();
            if let Input::Api(_, _, request) = &one.cause {
                self.check_written(request, reply, wanted, &one.frame);
            }
        }
    }

    /// What there is after each change of the tree.
    fn note_root(&mut self, frame: &Frame) {
        for change in &frame.changes {
            if let Change::Put(Record::RootVersion(root)) = change {
                let apps = self.disk.apps().map(|entry| (entry.id.clone(), entry.version)).collect();
                self.rules.roots.insert(root.version, apps);
            }
        }
    }

    /// Every version that is kept can be gone back to.
    fn check_past(&mut self, tables: &Tables) {
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

    /// Within a deployment nothing is started before what it waits for. Not judged by what the records say of tasks, but by what has run.
    fn check_dependencies(&mut self, launch: &Launch) {
        let app = &launch.app;
        let deployment = self.disk.deployments().find(|deployment| deployment.changes.iter().any(|change| change.app == app.id));
        let Some(deployment) = deployment.filter(|deployment| deployment.version == app.version_info.last_config_change_at) else { return };
        let waits_for = |id: &PathId| app.dependencies.iter().any(|one| id == one || id.is_below(one) && self.disk.app(one).is_none());
        let late = deployment.affected_apps().filter(|id| waits_for(id)).filter_map(|id| self.disk.current(id)).find_map(|other| {
            let key = (other.id.clone(), other.version_info.last_config_change_at);
            let up = self.rules.came_up.get(&key).map_or(0, BTreeSet::len);
            (up < other.instances as usize).then(|| format!("{} of {} of {} have run", up, other.instances, other.id))
        });
        if let Some(late) = late {
            let id = short(&launch.task);
            self.violate("started-early", || format!("{id} is launched, but {late}"));
        }
    }

    /// Nothing is launched while its app has to wait.
    fn check_back_off(&mut self, one: &Stepped) {
        let accepts =
            one.frame.calls.iter().filter_map(|call| if let ClusterCall::Accept { launches, .. } = call { Some(launches) } else { None });
        for launch in accepts.flatten() {
            let Some(current) = self.disk.current(&launch.app.id) else { continue };
            let key = (launch.app.id.clone(), current.version_info.last_config_change_at);
            if let Some(until) = self.rules.delays.get(&key).map(|delay| delay.until).filter(|until| one.at < *until) {
                let id = short(&launch.task);
                self.violate("back-off", || format!("{id} has to wait until {}.{:03}", until / 1000, until % 1000));
            }
        }
    }

    /// What the server knows from here on.
    fn learn(&mut self, cause: &Input) {
        match cause {
            Input::Cluster(ClusterEvent::Status(status)) => {
                if is_end(status.state) {
                    let ends = self.rules.ends.entry(launch_of(&status.task)).or_default();
                    ends.entry(status.task.clone()).or_insert(status.state);
                }
                if let Some(task) = self.tasks.get_mut(&status.task) {
                    task.told = match status.state {
                        state if is_end(state) => Told::Gone,
                        TaskState::Unreachable | TaskState::Unknown | TaskState::Lost => Told::Lost,
                        _ => Told::Live,
                    };
                }
            }
            Input::Api(_, _, request) => {
                let asked = tasks_to_kill(&self.disk, request);
                self.rules.asked_to_kill.extend(asked);
                if let Request::ResetDelay { app } = &**request {
                    self.rules.delays.retain(|(of, _), _| of != app);
                }
            }
            _ => {}
        }
    }

    /// What checks said, counted as Marathon says.
    fn learn_health(&mut self, one: &Stepped) {
        let Input::Cluster(ClusterEvent::Checked(reports)) = &one.cause else { return };
        for report in reports {
            let Finding::Health { outcome: told, .. } = &report.finding else { continue };
            let honest = self.rules.honest.remove(&(report.task.clone(), report.at));
            let outcome = honest.as_ref().unwrap_or(told);
            let booted_at = self.rules.booted_at;
            let health = self.rules.health.entry(report.task.clone()).or_default();
            let graced = !health.succeeded && one.at < health.since.max(booted_at) + GRACE_S * 1000;
            match outcome {
                Outcome::Passed => (health.succeeded, health.failures) = (true, 0),
                Outcome::Failed(_) if !graced => health.failures += 1,
                Outcome::Failed(_) | Outcome::Uncertain(_) => {}
            }
        }
    }

    /// The frame of a result ends a task.
    fn check_health_kill(&mut self, one: &Stepped, old: &Instance, new: &Instance) {
        let runs = |instance: &Instance| instance.condition == Condition::Running;
        if !runs(old) && runs(new) {
            for (task, _) in self.disk.tasks_of(new) {
                self.rules.health.entry(task).or_default().since = one.at;
            }
        }
        let by_check = matches!(&one.cause, Input::Cluster(ClusterEvent::Checked(_)));
        if !by_check || !runs(old) || new.condition != Condition::Killing {
            return;
        }
        let tasks: Vec<TaskId> = self.disk.tasks_of(old).into_iter().map(|(task, _)| task).collect();
        let of_tasks = tasks.iter().filter_map(|task| self.rules.health.get(task).copied());
        let worst = of_tasks.max_by_key(|health| health.failures).unwrap_or_default();
        if worst.failures <= MAX_FAILURES {
            self.violate("healthy-killed", || format!("{} is killed: {worst:?}", short_instance(&old.id)));
        }
        self.rules.asked_to_kill.extend(tasks);
    }

    fn check_change(&mut self, one: &Stepped, change: &Change, old: Option<Record>) {
        match (change, old) {
            (Change::Put(Record::App(entry)), _) => {
                self.rules.entries.insert(entry.id.clone(), entry.version);
                self.check_cause(one, &entry.id);
            }
            (Change::Delete(RecordKey::App(app)), _) => {
                self.rules.entries.remove(app);
                self.rules.delays.retain(|(of, _), _| of != app);
                self.check_cause(one, app);
            }
            (Change::Put(Record::Instance(new)), Some(Record::Instance(old))) => self.check_instance(one, &old, Some(new)),
            (Change::Put(Record::Instance(new)), None) if new.condition != Condition::Scheduled => {
                self.violate("no-record", || format!("instance {} begins as {:?}", short_instance(&new.id), new.condition));
            }
            (Change::Delete(RecordKey::Instance(_)), Some(Record::Instance(old))) => self.check_instance(one, &old, None),
            (Change::Put(Record::Deployment(new)), None) => {
                new.affected_apps().for_each(|app| _ = self.rules.half_way.remove(app));
            }
            (Change::Delete(RecordKey::Deployment(_)), Some(Record::Deployment(old))) if matches!(one.cause, Input::Api(..)) => {
                self.rules.half_way.extend(old.affected_apps().cloned());
            }
            (Change::Put(Record::Port(claim)), old) => self.check_claim(claim, old),
            (Change::Delete(RecordKey::Port(port)), Some(Record::Port(old))) => {
                self.rules.claims.remove(&(old.app.clone(), old.position));
                let asked = matches!(&one.cause, Input::Api(_, _, request) if **request == Request::ReleasePort { port: *port });
                if !asked {
                    self.violate("claim-lost", || format!("nobody released port {port} of {}", old.app));
                }
            }
            (Change::Put(Record::Brick(new)), Some(Record::Brick(old))) => self.check_brick(&old, Some(new)),
            (Change::Delete(RecordKey::Brick(_)), Some(Record::Brick(old))) => self.check_brick(&old, None),
            _ => {}
        }
    }

    /// An app's entry changes only in the frame of a request that names the app.
    fn check_cause(&mut self, one: &Stepped, app: &PathId) {
        let Input::Api(_, _, request) = &one.cause else {
            return self.violate("wrong-write", || format!("{app} changes without a request"));
        };
        if !touches(request, app) {
            self.violate("wrong-write", || format!("{app} changes by a request about something else: {request:?}"));
        }
    }

    fn check_instance(&mut self, one: &Stepped, old: &Instance, new: Option<&Instance>) {
        let written_off = old.condition.is_live() && new.is_none_or(|new| !new.condition.is_live() || new.incarnation != old.incarnation);
        if written_off {
            self.check_written_off(old);
            self.note_failure(one, old);
        }
        if let Some(new) = new {
            self.check_health_kill(one, old, new);
            if old.condition == Condition::Scheduled && new.condition == Condition::Provisioned {
                self.check_placed(new);
            }
        }
        if let Some(new) = new
            && new.incarnation < old.incarnation
        {
            self.violate("no-record", || format!("the incarnation of {} falls", short_instance(&new.id)));
        }
    }

    fn check_written_off(&mut self, old: &Instance) {
        let tasks: Vec<TaskId> = self.disk.tasks_of(old).into_iter().map(|(task, _)| task).collect();
        let told = |task: &TaskId| self.tasks.get(task).map(|task| task.told);
        // A node that is out of reach is so for all that is on it.
        if tasks.iter().any(|task| told(task) == Some(Told::Lost)) {
            return;
        }
        let lives = |task: &&TaskId| self.tasks.get(*task).is_some_and(|task| task.alive() && task.told != Told::Gone);
        if let Some(id) = tasks.iter().find(lives) {
            let told = told(id);
            self.violate("forgot-live-task", || format!("{} lives, and nobody said otherwise (told: {told:?})", short(id)));
        }
    }

    /// The second opinion on back-off (Marathon 1.11: doubled, capped, forgotten after a quiet time as long as the cap).
    fn note_failure(&mut self, one: &Stepped, old: &Instance) {
        use TaskState::*;
        let Input::Cluster(ClusterEvent::Status(status)) = &one.cause else { return };
        let is_its = launch_of(&status.task) == (old.id.clone(), old.incarnation);
        if !is_its || !is_end(status.state) || old.goal != Goal::Running {
            return;
        }
        // Of a pod it is enough that one of its containers ended so.
        let mut ends = self.rules.ends.get(&(old.id.clone(), old.incarnation)).into_iter().flat_map(BTreeMap::values);
        if !ends.any(|state| matches!(state, Failed | Error | Dropped | Gone | GoneByOperator | Finished)) {
            return;
        }
        let Some(app) = self.disk.current(old.app()) else { return };
        let key = (app.id.clone(), app.version_info.last_config_change_at);
        // What is about to be replaced says nothing about what comes after it.
        if old.version < key.1 && self.disk.deployments().any(|deployment| deployment.affected_apps().any(|id| *id == app.id)) {
            return;
        }
        let (initial, most) = (app.backoff.initial_ms as f64, app.backoff.max_ms as f64);
        let before = self.rules.delays.get(&key).filter(|delay| one.at <= delay.until + delay.forget_ms);
        let wait_ms = before.map_or(initial, |delay| delay.wait_ms * app.backoff.factor).min(most);
        let delay = Delay { wait_ms, until: one.at + wait_ms as u64, forget_ms: app.backoff.max_ms };
        self.rules.delays.insert(key, delay);
    }

    fn check_claim(&mut self, claim: &PortClaim, old: Option<Record>) {
        let place = (claim.app.clone(), claim.position);
        if let Some(Record::Port(old)) = old
            && (old.app != claim.app || old.position != claim.position)
        {
            self.violate("claim-moved", || format!("port {} goes from {} to {}", claim.port, old.app, claim.app));
        }
        if let Some(before) = self.rules.claims.insert(place, claim.port)
            && before != claim.port
        {
            self.violate("claim-moved", || format!("{:?} of {} had {before}, now {}", claim.position, claim.app, claim.port));
        }
    }

    fn check_brick(&mut self, old: &Brick, new: Option<&Brick>) {
        let name = &old.name;
        if let Some(lease) = &old.lease
            && new.and_then(|new| new.lease.as_ref()) != Some(lease)
        {
            let mounted = self.mounts.get(name).and_then(|nodes| nodes.iter().find(|(_, epoch)| **epoch == lease.epoch));
            if let Some(at) = mounted.map(|(at, _)| *at) {
                self.violate("lease-ended-early", || format!("lease {} of {name} ends, but agent-{at} has it mounted", lease.epoch));
            }
            // A launch that is on its way to its node would still mount.
            let coming = self.tasks.get(&lease.task).is_some_and(|task| task.phase == Phase::Coming && !task.order_lost);
            if coming {
                self.violate("lease-ended-early", || format!("lease {} of {name} ends, but its launch is on its way", lease.epoch));
            }
        }
        let Some(new) = new else { return };
        let lease = new.lease.as_ref();
        if new.epoch < old.epoch || lease.is_some_and(|lease| lease.epoch != new.epoch) {
            self.violate("lease-order", || format!("{name}: epoch {} after {}, lease {lease:?}", new.epoch, old.epoch));
        }
        if lease != old.lease.as_ref() && lease.is_some() && new.epoch == old.epoch {
            self.violate("lease-order", || format!("{name}: two leases under epoch {}", new.epoch));
        }
        if old.home.is_some() && new.home != old.home {
            self.violate("data-left-behind", || format!("{name} moves from {:?} to {:?}", old.home, new.home));
        }
    }

    /// Running and wanted instances of the apps of which the frame ends a running one.
    fn running_of(&self, frame: &Frame) -> BTreeMap<PathId, u32> {
        let ends = frame.changes.iter().filter_map(|change| {
            let Change::Put(Record::Instance(new)) = change else { return None };
            let old = self.disk.instance(&new.id)?;
            let ended = old.goal == Goal::Running && new.goal != Goal::Running && old.condition == Condition::Running;
            (ended && self.serves(new)).then(|| new.app().clone())
        });
        let apps: BTreeSet<PathId> = ends.collect();
        apps.into_iter().map(|app| (app.clone(), self.serving(&app))).collect()
    }

    /// It runs, and is healthy if its version has a check.
    fn serves(&self, instance: &Instance) -> bool {
        let has_check = self.disk.definition(instance.app(), instance.version).is_some_and(|app| !app.health_checks.is_empty());
        instance.condition == Condition::Running && (!has_check || instance.healthy == Some(true))
    }

    /// Wanted instances that serve.
    fn serving(&self, app: &PathId) -> u32 {
        self.disk.instances_of(app).filter(|instance| instance.goal == Goal::Running && self.serves(instance)).count() as u32
    }

    /// Ending a running instance must leave the minimum.
    fn check_minimum(&mut self, one: &Stepped, before: &BTreeMap<PathId, u32>) {
        for (id, before) in before {
            let asked = matches!(&one.cause, Input::Api(_, _, request) if matches!(**request, Request::KillTasks { .. }));
            let Some(app) = self.disk.current(id) else { continue };
            let least = (f64::from(app.instances) * app.upgrade_strategy.minimum_health_capacity).ceil() as u32;
            // None can come on top of those with volumes: one goes first (Marathon 1.11).
            let least = if app.is_resident() && least == app.instances { least.saturating_sub(1) } else { least };
            let left = self.serving(id);
            // What does not serve may go at any time.
            if !asked && left < least && left < *before {
                self.violate("below-minimum", || format!("{id}: {before} running, now {left} of at least {least}"));
            }
        }
    }

    /// An answer and the records say the same.
    fn check_written(&mut self, request: &Request, reply: &Result<Reply, RequestError>, wanted: Wanted, frame: &Frame) {
        if reply.is_err() {
            let written = frame.changes.iter().find(|change| {
                matches!(change.key(), RecordKey::App(_) | RecordKey::Port(_) | RecordKey::Group(_) | RecordKey::RootVersion(_))
                    || matches!(change, Change::Put(Record::Definition(_)))
                    || matches!(change, Change::Put(Record::Brick(brick)) if brick.lease.is_none() && brick.condemned)
            });
            if let Some(change) = written {
                let key = change.key();
                self.violate("wrong-write", || format!("refused ({reply:?}), and yet {key:?} was written"));
            }
            return;
        }
        let mark = wanted.mark.map(|mark| mark.to_string());
        let is_written = |app: &PathId| {
            self.disk.current(app).is_some_and(|app| {
                (mark.is_none() || app.labels.get("mark") == mark.as_ref()) && wanted.instances.is_none_or(|wanted| wanted == app.instances)
            })
        };
        let done = match request {
            Request::CreateApp { input, .. } => input.id().and_then(|id| id.parse().ok()).is_some_and(|id| is_written(&id)),
            Request::CreatePod { input, .. } => input.path().is_ok_and(|id| is_written(&id)),
            Request::UpdatePod { pod, .. } => is_written(pod),
            Request::UpdateApps { updates, .. } => updates.iter().all(|(app, _)| is_written(app)),
            Request::UpdateGroup { base, input, .. } => self.is_group_written(base, input, &is_written),
            Request::DeleteGroup { group, .. } => self.disk.apps().all(|entry| !entry.id.is_below(group)),
            Request::DeleteApp { app, .. } | Request::DeletePod { pod: app, .. } => self.disk.app(app).is_none(),
            Request::RestartApp { app, .. } => self.disk.app(app).is_some(),
            Request::ReleasePort { port } => self.disk.port(*port).is_none(),
            _ => true,
        };
        if !done {
            self.violate("wrong-write", || format!("answered {reply:?}, but the records differ from {request:?}"));
        }
    }
}

impl World<'_> {
    /// All that is named is there as written, and nothing else where something is named.
    fn is_group_written(&self, id: &PathId, input: &GroupInput, is_written: &dyn Fn(&PathId) -> bool) -> bool {
        let within = |text: Option<&str>| PathId::resolve(text.unwrap_or_default(), id).ok();
        let apps = input.apps.as_ref().is_none_or(|apps| {
            let named: Vec<PathId> = apps.iter().filter_map(|app| within(app.id())).collect();
            let is_pod = |entry: &AppEntry| self.disk.current(&entry.id).is_some_and(|app| app.pod.is_some());
            let is_named = |entry: &AppEntry| entry.id.parent() != *id || named.contains(&entry.id) || is_pod(entry);
            named.iter().all(is_written) && self.disk.apps().all(is_named)
        });
        let groups = input.groups.iter().flatten();
        let mut groups = groups.filter_map(|group| Some((within(group.id.as_deref())?, group)));
        apps && groups.all(|(child, group)| self.is_group_written(&child, group, is_written))
    }
}

fn tasks_to_kill(disk: &Disk, request: &Request) -> Vec<TaskId> {
    let Request::KillTasks { selection, .. } = request else { return Vec::new() };
    let of = |instance: &Instance| disk.tasks_of(instance).into_iter().map(|(task, _)| task);
    match selection {
        KillSelector::App { app, .. } => disk.instances_of(app).flat_map(of).collect(),
        KillSelector::Task { task, .. } => task.parse().into_iter().collect(),
        KillSelector::Tasks(tasks) => tasks.clone(),
        KillSelector::Instances { instances, .. } => instances.iter().filter_map(|id| disk.instance(id)).flat_map(of).collect(),
    }
}

fn touches(request: &Request, app: &PathId) -> bool {
    match request {
        Request::CreateApp { input, .. } => input.id().and_then(|id| id.parse::<PathId>().ok()).as_ref() == Some(app),
        Request::UpdateApps { updates, .. } => updates.iter().any(|(id, _)| id == app),
        Request::CreatePod { input, .. } => input.path().is_ok_and(|id| id == *app),
        Request::UpdatePod { pod: named, .. } | Request::DeletePod { pod: named, .. } => named == app,
        Request::DeleteApp { app: named, .. } | Request::RestartApp { app: named, .. } => named == app,
        Request::KillTasks { selection, scale, .. } => {
            *scale
                && match selection {
                    KillSelector::App { app: named, .. } | KillSelector::Task { app: named, .. } => named == app,
                    KillSelector::Instances { pod, .. } => pod == app,
                    KillSelector::Tasks(tasks) => tasks.iter().any(|task| task.instance.app() == app),
                }
        }
        Request::UpdateGroup { base: group, .. } | Request::DeleteGroup { group, .. } => app.is_below(group),
        Request::CancelDeployment { force, .. } => !force,
        _ => false,
    }
}

// === effects: when they leave ===

impl World<'_> {
    /// Judges a call on its way out. All that it builds on must be on disk.
    pub(super) fn check_call(&mut self, call: &ClusterCall) {
        match call {
            ClusterCall::Accept { offer, launches } => self.check_accept(offer, launches),
            ClusterCall::Decline { offers, .. } => offers.iter().for_each(|offer| self.answer_offer(offer)),
            ClusterCall::Kill { task, .. } => self.check_kill(task),
            ClusterCall::Acknowledge { task, uuid, .. } => self.check_acknowledge(task, *uuid),
            _ => {}
        }
    }

    fn answer_offer(&mut self, offer: &crate::model::id::OfferId) {
        let answered = self.master.shown.get_mut(offer).is_some_and(|(_, answered)| std::mem::replace(answered, true));
        if answered {
            self.violate("offer-used-twice", || format!("{offer} was answered before"));
        }
    }

    fn check_accept(&mut self, id: &crate::model::id::OfferId, launches: &[Launch]) {
        self.answer_offer(id);
        let mut left = self.master.shown.get(id).map(|(offer, _)| Pools::of_offer(offer));
        for launch in launches {
            self.check_launch(launch);
            let Some(left) = &mut left else { continue };
            self.check_roles(launch, left);
            let takes = Pools::of(launch);
            if let Err(what) = take(&mut left.common, &takes.common).and_then(|()| take(&mut left.reserved, &takes.reserved)) {
                self.violate("offer-exceeded", || format!("{id} has not enough {what} for {}", short(&launch.task)));
            }
        }
        self.check_whole(launches);
        let agent = self.master.shown.get(id).map(|(offer, _)| offer.agent.clone());
        if let Some(launch) = launches.iter().find(|launch| agent.as_ref().is_some_and(|agent| *agent != launch.agent)) {
            self.violate("no-record", || format!("{} goes to {}, the offer is of {agent:?}", short(&launch.task), launch.agent));
        }
    }

    /// What is launched of a pod is all of it.
    fn check_whole(&mut self, launches: &[Launch]) {
        let mut parts: BTreeMap<(InstanceId, u32), Vec<&Launch>> = BTreeMap::new();
        for launch in launches.iter().filter(|launch| launch.pod.is_some()) {
            parts.entry(launch_of(&launch.task)).or_default().push(launch);
        }
        for (of, launches) in parts {
            let named: Vec<Option<&str>> = launches.iter().map(|launch| launch.task.container.as_deref()).collect();
            let expected: Vec<Option<&str>> = launches[0].pod.as_ref().map(|pod| pod.app.containers().collect()).unwrap_or_default();
            if named != expected || launches.iter().any(|launch| launch.agent != launches[0].agent) {
                return self.violate("torn-pod", || format!("of {} there is {named:?}, not {expected:?}", short_instance(&of.0)));
            }
        }
    }

    fn check_launch(&mut self, launch: &Launch) {
        let id = &launch.task;
        if !self.rules.launched.insert(id.clone()) {
            return self.violate("launched-twice", || format!("{} was launched before", short(id)));
        }
        if let Err(reason) = self.has_record(launch) {
            return self.violate("no-record", || format!("{}: {reason}", short(id)));
        }
        if let Err((rule, reason)) = self.has_right_ports(launch) {
            return self.violate(rule, || format!("{}: {reason}", short(id)));
        }
        self.check_dependencies(launch);
        self.check_maximum(&launch.app.id);
    }

    fn has_record(&self, launch: &Launch) -> Result<(), String> {
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
                lease.task == *id && lease.agent == launch.agent && lease.epoch == mount.epoch && brick.epoch == mount.epoch
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

    fn has_right_ports(&self, launch: &Launch) -> Result<(), (&'static str, String)> {
        for port in bound_ports(launch) {
            if let Some(claim) = self.disk.port(port).filter(|claim| claim.app != launch.app.id) {
                return Err(("foreign-claim", format!("port {port} is claimed by {}", claim.app)));
            }
        }
        if let Some((name, value)) = launch.environment().iter().find(|(_, value)| value.contains("@PORT")) {
            return Err(("wrong-ports", format!("{name} is still {value}")));
        }
        let (app, ports) = whole_of(launch);
        let wanted: Vec<PortNumber> = match app.network {
            Network::Host => app.port_definitions.iter().map(|definition| definition.port).collect(),
            Network::Bridge | Network::Container(_) => app.port_mappings().iter().filter_map(|mapping| mapping.host_port).collect(),
        };
        if wanted.len() != ports.len() {
            return Err(("wrong-ports", format!("{} ports for {}", ports.len(), wanted.len())));
        }
        let required = app.network != Network::Host || app.require_ports;
        for (want, port) in wanted.iter().zip(ports) {
            let exact = match want {
                PortNumber::Fixed(number) if required => Some(*number),
                PortNumber::Allotted(number) => Some(*number),
                _ => None,
            };
            if exact.is_some_and(|exact| exact != *port) {
                return Err(("wrong-ports", format!("{port} instead of {want:?}")));
            }
            let offered = launch.resources.ports.iter().any(|range| range.contains(*port));
            let outside = matches!(want, PortNumber::Allotted(_)) && app.network == Network::Host;
            // Those of a pod's other containers are looked at with them.
            if launch.ports.contains(port) && !offered && !outside {
                return Err(("wrong-ports", format!("{port} is not taken from the offer")));
            }
        }
        Ok(())
    }

    /// True when the records count on this very task.
    fn is_wanted(&self, id: &TaskId) -> bool {
        self.disk.instance(&id.instance).is_some_and(|instance| instance.incarnation == id.incarnation && instance.condition.is_live())
    }

    /// Launching must not lead above the maximum. What leaves counts while a replacement is under way; what was begun for a larger number may
    /// still come when the number falls.
    fn check_maximum(&mut self, id: &PathId) {
        let Some(app) = self.disk.current(id) else { return };
        let before = self.disk.deployments().flat_map(|deployment| &deployment.changes).find(|change| change.app == *id);
        let before = before.and_then(|change| self.disk.definition(id, change.from?));
        let most = most_of(app).max(before.map_or(0, most_of));
        let counts = self.disk.counts(id);
        let present = if self.is_replaced(id) { counts.staying + counts.leaving } else { counts.staying };
        if present > most {
            self.violate("above-maximum", || format!("{id}: {present} with this launch, at most {most}"));
        }
    }

    fn is_replaced(&self, app: &PathId) -> bool {
        self.disk.deployments().any(|deployment| {
            let step = deployment.steps.get(deployment.current_step);
            step.is_some_and(|step| step.actions.iter().any(|action| action.app == *app && action.kind == ActionKind::Restart))
        })
    }

    /// Kills are for what was told to end, for strangers, and for what does not come up.
    fn check_kill(&mut self, id: &TaskId) {
        let Some(instance) = self.disk.instance(&id.instance).filter(|instance| instance.incarnation == id.incarnation) else { return };
        let goal = instance.goal;
        let Some(condition) = self.disk.tasks_of(instance).into_iter().find(|(task, _)| task == id).map(|(_, condition)| condition) else {
            return;
        };
        // A kill that nobody asked for hides behind its condition: only what never came up may be killed by us alone.
        let runs = self.tasks.get(id).is_some_and(|task| task.phase == Phase::Running && task.told == Told::Live);
        let overdue = self.tasks.get(id).is_some_and(|task| self.now - task.launched_at >= OVERDUE_MS);
        let wanted = goal == Goal::Running && (condition == Condition::Running || runs && !overdue);
        let taken_along = id.container.is_some()
            && self.rules.ends.get(&launch_of(id)).is_some_and(|ends| ends.values().any(|state| *state != TaskState::Finished));
        if wanted && !taken_along && !self.rules.asked_to_kill.contains(id) {
            self.violate("killed-wanted", || format!("{} runs, and nobody asked for its end", short(id)));
        }
    }

    fn check_acknowledge(&mut self, id: &TaskId, uuid: uuid::Uuid) {
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

    /// An answer leaves.
    pub(super) fn check_reply(&mut self, id: RequestId, reply: &Result<Reply, RequestError>) {
        self.rules.asked.remove(&id);
        match reply {
            Ok(Reply::Killed(instances)) => {
                let live = instances.iter().filter(|instance| instance.condition.is_live());
                self.rules.doomed.extend(live.flat_map(|instance| self.disk.tasks_of(instance)).map(|(task, _)| task));
                self.stats.accepted += 1;
            }
            Ok(_) => self.stats.accepted += 1,
            Err(_) => self.stats.refused += 1,
        }
    }

    /// What a new process knows is what was committed.
    pub(super) fn check_recovered(&mut self, state: &State) {
        let entries: BTreeMap<PathId, Timestamp> = self.disk.apps().map(|entry| (entry.id.clone(), entry.version)).collect();
        if entries != self.rules.entries {
            let expected = format!("{:?}", self.rules.entries);
            return self.violate("lost-write", || format!("acknowledged {expected}, found {entries:?}"));
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
    }
}

/// Takes `wanted` out of `left`, or says what there is too little of.
fn take(left: &mut Resources, wanted: &Resources) -> Result<(), &'static str> {
    if wanted.cpus > left.cpus {
        return Err("cpus");
    }
    if wanted.mem > left.mem {
        return Err("memory");
    }
    if wanted.disk > left.disk {
        return Err("disk");
    }
    if wanted.gpus > left.gpus {
        return Err("gpus");
    }
    left.take_scalars(wanted);
    let ports = wanted.ports.iter().flat_map(|range| range.begin..=range.end).all(|port| left.take_port(port));
    if ports { Ok(()) } else { Err("ports") }
}

/// The app without room that the present step of a deployment waits for.
fn waits_for<'a>(deployment: &'a Deployment, without_room: &BTreeSet<PathId>) -> Option<&'a PathId> {
    let step = deployment.steps.get(deployment.current_step)?;
    step.actions.iter().map(|action| &action.app).find(|app| without_room.contains(*app))
}

/// How many instances a replacement may have at once (Marathon 1.11: one more where nothing could move otherwise).
fn most_of(app: &App) -> u32 {
    let strategy = app.upgrade_strategy;
    let least = (f64::from(app.instances) * strategy.minimum_health_capacity).ceil() as u32;
    let most = (f64::from(app.instances) * (1.0 + strategy.maximum_over_capacity)).trunc() as u32;
    if least == most { most + 1 } else { most }
}

/// Which launch of which instance a task is of.
fn launch_of(task: &TaskId) -> (InstanceId, u32) {
    (task.instance.clone(), task.incarnation)
}

/// The definition of all that is launched together, and its host ports.
fn whole_of(launch: &Launch) -> (&App, &[u16]) {
    launch.pod.as_ref().map_or((&launch.app, &launch.ports), |pod| (&pod.app, &pod.ports))
}

/// The ports that a task binds on its node: its host ports, and what the workload's apps read from their environment.
pub(super) fn bound_ports(launch: &Launch) -> BTreeSet<u16> {
    let environment = launch.environment();
    let named = |name: &str| environment.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    let from_url = |url: &str| url.trim_end_matches('/').rsplit(':').next().and_then(|port| port.parse().ok());
    let from_env = [named("DBPORT").and_then(|port| port.parse().ok()), named("URL").and_then(from_url)];
    launch.ports.iter().copied().chain(from_env.into_iter().flatten()).collect()
}

// === nodes: when something happens there ===

impl World<'_> {
    /// The containers of a node fit into it.
    pub(super) fn check_room(&mut self, at: usize) {
        let total = &self.agents[at].total;
        let mut left = total.common.clone();
        super::master::give(&mut left, &total.reserved);
        left.ports.clear();
        for id in &self.agents[at].tasks {
            let task = &self.tasks[id];
            let wanted = Resources { ports: Vec::new(), ..task.launch.resources.clone() };
            if task.alive()
                && let Err(what) = take(&mut left, &wanted)
            {
                let agent = self.agents[at].id.clone();
                return self.violate("over-committed", || format!("{agent} has not enough {what}"));
            }
        }
    }

    /// A port is bound already. By a stranger: that is what happens; by a task that is wanted: that is our fault.
    pub(super) fn check_port_holder(&mut self, at: usize, port: u16, holder: &TaskId, newcomer: &TaskId) {
        if self.is_wanted(holder) && self.is_wanted(newcomer) {
            self.violate("port-used-twice", || format!("port {port} of agent-{at}: {} and {}", short(holder), short(newcomer)));
        }
    }

    /// Nobody else has the brick mounted, and its data is here.
    pub(super) fn check_mount(&mut self, at: usize, mount: &BrickMount, task: &TaskId) {
        let name = &mount.name;
        let other = self.mounts.get(name).and_then(|nodes| nodes.iter().next().map(|(at, epoch)| (*at, *epoch)));
        if let Some((other, epoch)) = other {
            let (new, id) = (mount.epoch, short(task));
            self.violate("two-holders", || format!("{name}: agent-{other} under lease {epoch}, agent-{at} under lease {new} for {id}"));
        }
        if let Some(data) = self.data.get(name).copied().filter(|data| *data != at) {
            self.violate("data-left-behind", || format!("the data of {name} is on agent-{data}, it is mounted on agent-{at}"));
        }
    }

    /// Data is deleted only when its brick was given up.
    pub(super) fn check_destroy(&mut self, at: usize, name: &BrickName) {
        let kept = self.disk.brick(name).is_some_and(|brick| !brick.condemned);
        if kept && self.data.get(name) == Some(&at) {
            self.violate("data-destroyed", || format!("agent-{at} deletes the data of {name}, which is wanted"));
        }
    }
}

// === after healing ===

impl World<'_> {
    /// Whether everything is as wanted: `Err` says what is not. `Ok(true)`: all but what there is no room for.
    pub(super) fn unsettled(&mut self) -> Result<bool, String> {
        let Some(server) = &self.server else { return Err("the server is down".into()) };
        if !self.link.up {
            return Err("the server is not connected".into());
        }
        let tables = server.state.view().tables;
        let idle = server.is_idle();
        self.no_leftovers()?;
        self.bricks_consistent()?;
        let saturated = self.apps_complete()?;
        if idle {
            self.check_past(&tables);
            self.check_tables(&tables);
        }
        if self.violation.is_some() {
            return Err("memory and disk differ".into());
        }
        Ok(saturated)
    }

    fn no_leftovers(&self) -> Result<(), String> {
        for (id, task) in &self.tasks {
            if task.alive() && self.rules.doomed.contains(id) {
                return Err(format!("{} still lives, although its kill was acknowledged", short(id)));
            }
            let wanted = self.disk.instance(&id.instance).is_some_and(|instance| {
                instance.incarnation == id.incarnation && instance.goal == Goal::Running && instance.condition == Condition::Running
            });
            if task.alive() && !wanted {
                return Err(format!("{} lives, and the records do not want it", short(id)));
            }
            if !task.updates.is_empty() {
                return Err(format!("a status of {} was never acknowledged", short(id)));
            }
        }
        for instance in self.disk.instances() {
            if self.disk.app(instance.app()).is_none() {
                return Err(format!("instance {} of an app that is gone: {:?}", short_instance(&instance.id), instance.condition));
            }
            if instance.goal != Goal::Running {
                return Err(format!("instance {} should be gone: {:?}", short_instance(&instance.id), instance.condition));
            }
        }
        Ok(())
    }

    fn bricks_consistent(&self) -> Result<(), String> {
        for (name, nodes) in &self.mounts {
            for (at, epoch) in nodes {
                let leased = self.disk.brick(name).and_then(|brick| brick.lease.as_ref()).is_some_and(|lease| lease.epoch == *epoch);
                if !leased {
                    return Err(format!("agent-{at} has {name} mounted under lease {epoch}, which is not in the records"));
                }
            }
        }
        for brick in self.disk.bricks() {
            if brick.condemned {
                return Err(format!("{} was given up and is still there", brick.name));
            }
            if let Some(lease) = &brick.lease
                && !self.tasks.get(&lease.task).is_some_and(super::agent::Task::alive)
            {
                return Err(format!("{} is leased to {}, which is gone", brick.name, short(&lease.task)));
            }
        }
        Ok(())
    }

    fn apps_complete(&mut self) -> Result<bool, String> {
        let mut without_room: BTreeSet<PathId> = BTreeSet::new();
        let mut unfinished: Vec<(&App, String)> = Vec::new();
        for app in self.disk.apps().filter_map(|entry| self.disk.current(&entry.id)) {
            if let Err(state) = self.is_complete(app) {
                if self.has_room_for_more(app) {
                    unfinished.push((app, state));
                } else {
                    without_room.insert(app.id.clone());
                }
            }
        }
        let mut waiting = Vec::new();
        for (app, state) in unfinished {
            match self.has_to_wait(app, &without_room) {
                Some(reason) => waiting.push(format!("{} waits for {reason}", app.id)),
                None => return Err(format!("{}: {state}", app.id)),
            }
        }
        let stuck = self.disk.deployments().find(|deployment| waits_for(deployment, &without_room).is_none());
        if let Some(deployment) = stuck {
            return Err(format!("deployment {} does not end at step {}: {:?}", deployment.id, deployment.current_step, deployment.steps));
        }
        waiting.into_iter().for_each(|line| self.note(|| line));
        let saturated = !without_room.is_empty();
        without_room.iter().for_each(|app| self.note(|| format!("{app} has no room")));
        Ok(saturated)
    }

    /// An app may wait for ever, as in Marathon, for its turn in a deployment in which an earlier step cannot be done for lack of room. Says for
    /// whom it waits. Meanwhile it keeps what it has: whatever it has must run, or have no room.
    fn has_to_wait(&self, app: &App, without_room: &BTreeSet<PathId>) -> Option<String> {
        let deployment = self.disk.deployments().find(|deployment| deployment.changes.iter().any(|change| change.app == app.id))?;
        let blocking = waits_for(deployment, without_room)?;
        let mut later = deployment.steps.iter().skip(deployment.current_step + 1).flat_map(|step| &step.actions);
        let keeps = |instance: &Instance| {
            let lives = self.lives(instance);
            let no_room = || self.disk.definition(&app.id, instance.version).is_some_and(|version| !self.has_room_for(version));
            instance.condition == Condition::Running && lives || instance.condition == Condition::Scheduled && no_room()
        };
        let its_turn_comes = later.any(|action| action.app == app.id);
        (its_turn_comes && self.disk.instances_of(&app.id).all(keeps)).then(|| blocking.to_string())
    }

    /// Its task runs, or those of a pod that have not done their work.
    fn lives(&self, instance: &Instance) -> bool {
        let runs = |task: &TaskId| self.tasks.get(task).is_some_and(|task| task.phase == Phase::Running);
        self.disk.tasks_of(instance).iter().all(|(task, condition)| *condition == Condition::Finished || runs(task))
    }

    fn is_complete(&self, app: &App) -> Result<(), String> {
        let config = app.version_info.last_config_change_at;
        let half_way = self.rules.half_way.contains(&app.id);
        let instances: Vec<&Instance> = self.disk.instances_of(&app.id).collect();
        let runs = |instance: &&&Instance| {
            instance.condition == Condition::Running && (instance.version >= config || half_way) && self.lives(instance)
        };
        let running = instances.iter().filter(runs).count();
        if running == app.instances as usize && instances.len() == running {
            return Ok(());
        }
        let states = instances.iter().map(|instance| format!("{} {:?}", short_instance(&instance.id), instance.condition));
        let states = states.collect::<Vec<_>>().join(", ");
        let queue = self.server.as_ref().and_then(|server| server.state.view().queue.get(&app.id).cloned());
        let why =
            queue.map(|entry| format!("not before {:?}, rejected {:?}, held by {:?}", entry.not_before, entry.rejected, entry.held_by));
        Err(format!("{running} of {} run ({states}); queue: {}", app.instances, why.unwrap_or_else(|| "not in it".into())))
    }

    /// True when one that waits has room, each by its own version, or one that should wait.
    fn has_room_for_more(&self, app: &App) -> bool {
        let present = self.disk.instances_of(&app.id).count();
        let waiting = self.disk.instances_of(&app.id).filter(|instance| instance.condition == Condition::Scheduled);
        let versions: BTreeSet<Timestamp> = waiting.map(|instance| instance.version).collect();
        let now = versions.is_empty() || versions.contains(&app.version) || present < app.instances as usize;
        let mut outdated = versions.iter().filter(|version| **version != app.version);
        let has_room = |version: &Timestamp| self.disk.definition(&app.id, *version).is_some_and(|version| self.has_room_for(version));
        now && self.has_room_for(app) || outdated.any(has_room)
    }

    /// True when some node could take one more instance, as the world is.
    fn has_room_for(&self, app: &App) -> bool {
        let home =
            app.bricks().next().and_then(|_| self.disk.bricks().find(|brick| brick.app == app.id)).and_then(|brick| brick.home.clone());
        let volumes = self.volumes_waited_for(app);
        (0..self.agents.len()).any(|at| {
            let agent = &self.agents[at];
            let mut left = agent.total.clone();
            for task in agent.tasks.iter().map(|id| &self.tasks[id]).filter(|task| task.phase != Phase::Ended) {
                let takes = Pools::of(&task.launch);
                if take(&mut left.common, &takes.common).and_then(|()| take(&mut left.reserved, &takes.reserved)).is_err() {
                    return false;
                }
            }
            let waited_for = volumes.as_ref().is_some_and(|homes| homes.contains(&agent.id));
            let at_home = home.as_ref().is_some_and(|home| *home == agent.id);
            let Some(mut usable) = Self::usable(app, &left, at_home || waited_for) else { return false };
            let scalars = Resources { cpus: app.cpus, mem: app.mem, disk: app.disk, gpus: app.gpus, ..Resources::default() };
            take(&mut usable, &scalars).is_ok()
                && (home.is_none() || at_home)
                && (volumes.is_none() || waited_for)
                && self.ports_free(at, app, &usable)
                && self.constraints_allow(at, app)
        })
    }

    /// Where the next instance of an app has to go because a volume waits for it there; `None`: anywhere.
    fn volumes_waited_for(&self, app: &App) -> Option<BTreeSet<AgentId>> {
        let volumes: Vec<_> = self.disk.bricks().filter(|brick| brick.app == app.id && brick.reservation.is_some()).collect();
        if !app.is_resident() || volumes.len() < app.instances as usize {
            return None;
        }
        let holder = |brick: &Brick| brick.reservation.as_ref().and_then(|reservation| self.disk.instance(&reservation.instance));
        let (own, mut left): (Vec<_>, Vec<_>) = volumes.iter().partition(|brick| holder(brick).is_some());
        // Whoever has none yet takes over what was left last, and nothing else.
        let present = self.disk.instances_of(&app.id).count().max(app.instances as usize);
        left.sort_by_key(|brick: &&Brick| {
            Reverse((brick.lease.is_some(), brick.reservation.as_ref().and_then(|reservation| reservation.released_at)))
        });
        left.truncate(present.saturating_sub(own.len()));
        let free = own.into_iter().chain(left).filter(|brick| brick.lease.is_none());
        Some(free.filter_map(|brick| brick.home.clone()).collect())
    }

    fn ports_free(&self, at: usize, app: &App, left: &Resources) -> bool {
        let agent = &self.agents[at];
        let claims = self.disk.ports().filter(|claim| claim.app == app.id);
        if claims.into_iter().any(|claim| agent.bound.contains_key(&claim.port)) {
            return false;
        }
        let numbers = app.port_definitions.iter().map(|definition| definition.port);
        let numbers = numbers.chain(app.port_mappings().iter().filter_map(|mapping| mapping.host_port));
        let mut dynamic = 0;
        for number in numbers {
            match number {
                PortNumber::Fixed(port) if app.require_ports || app.network != Network::Host => {
                    let offered = left.ports.iter().any(|range| range.contains(port));
                    if !offered || self.disk.port(port).is_some() {
                        return false;
                    }
                }
                // Of a bridge it comes with the offer, of what the app may use.
                PortNumber::Allotted(port) if app.network != Network::Host && !left.ports.iter().any(|range| range.contains(port)) => {
                    return false;
                }
                PortNumber::Allotted(_) => {}
                _ => dynamic += 1,
            }
        }
        let free = left.ports.iter().flat_map(|range| range.begin..=range.end).filter(|port| self.disk.port(*port).is_none());
        free.take(dynamic).count() == dynamic
    }
}
