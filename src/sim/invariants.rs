//! What must always hold, judged from the world's truth and the durable records, never from what the core believes; and what must hold once the
//! world has healed.
//!
//! | rule | what it says | where |
//! | --- | --- | --- |
//! | `lost-write` | what was committed is there after every restart | `durability` |
//! | `wrong-write` | an answer "done" means that the records say what was asked; "refused" means that nothing of it was written; nothing else changes apps | `answers` |
//! | `no-record` | a launch has the durable record of its very incarnation, place, ports and leases | `durability` |
//! | `launched-twice` | a task id is launched once | `launches` |
//! | `torn-pod` | the containers of a pod's instance are launched together, each of them, on one node | `launches` |
//! | `offer-used-twice`, `offer-exceeded` | an offer is answered once, with no more than it holds | `offers` |
//! | `over-committed` | the containers of a node fit into it | `offers` |
//! | `port-used-twice`, `foreign-claim`, `wrong-ports` | a port of a node has one wanted holder; a claimed number is used by its app alone; fixed and claimed numbers are what they should be | `ports` |
//! | `claim-moved`, `claim-lost` | a position keeps its number until someone releases it | `ports` |
//! | `two-holders`, `lease-ended-early`, `lease-order`, `data-left-behind`, `data-destroyed`, `data-forgotten` | a brick has one mount, a lease ends after it, the data stays where it is, and goes before its record | `bricks` |
//! | `forgot-live-task` | an instance is written off only after the cluster said that its task, or each of a pod, ended, or may have | `ends` |
//! | `killed-wanted` | only what is told to end is killed, and what a container of its pod has taken along | `ends` |
//! | `healthy-killed` | a kill for bad health comes after as many counted failures as the definition says, none of them in the grace period or uncertain | `ends` |
//! | `early-ack` | an acknowledged status is in the records | `durability` |
//! | `back-off` | nothing is launched while its app has to wait | `launches` |
//! | `above-maximum`, `below-minimum` | a replacement stays within its bounds by our doing | `bounds` |
//! | `kill-selection` | of equals the youngest goes first, or the oldest | `bounds` |
//! | `quota` | nobody comes above a limit but by what an administrator does | `owners` |
//! | `foreign-write` | an ordinary user changes and ends only what is the user's own | `owners` |
//! | `group-role` | what is written into a group that prescribes a role has it | `owners` |
//! | `wrong-sum` | what is counted beside the tables is what one would count anew | `durability` |
//! | `started-early` | within a deployment, an app is started only when what it depends on has come up | `launches` |
//! | `wrong-past` | the versions of the root that are kept say what there was | `durability` |
//! | `constraint`, `wrong-role`, `wasted-gpus` | placement rules hold, resources are used by whom they are reserved for, GPUs are kept for what needs them | [`super::placement`] |
//! | `hot-loop` | time goes on, and nobody is told the same thing again and again | [`super::world`], `ends` |
//! | `progress` | after healing everything becomes as wanted | `progress` |

mod answers;
mod bounds;
mod bricks;
mod durability;
mod ends;
mod launches;
mod offers;
mod owners;
mod ports;
mod progress;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

pub(super) use ports::bound_ports;

use super::{server::Stepped, trace::short_instance, world::World};
use crate::{
    core::{Input, RequestId, holdings::Usage},
    model::{
        app::App,
        cluster::{ClusterCall, Launch, TaskState},
        health::Outcome,
        id::{DeploymentId, InstanceId, Owner, PathId, TaskId},
        instance::{Condition, Instance},
        port::Position,
        record::{Change, Record, RecordKey},
        request::{KillSelector, Reply, Request},
        time::Timestamp,
    },
};

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
    /// The present versions that were committed.
    versions: BTreeMap<PathId, Timestamp>,
    claims: BTreeMap<(PathId, Position), u16>,
    launched: BTreeMap<TaskId, u64>,
    /// For each task that was killed: when that was counted anew, and how often since.
    kills: BTreeMap<TaskId, (u64, u32)>,
    /// Tasks that a client asked to kill.
    asked_to_kill: BTreeSet<TaskId>,
    /// Of these, those whose kill was acknowledged.
    doomed: BTreeSet<TaskId>,
    delays: BTreeMap<(PathId, Timestamp), Delay>,
    /// Instances that have run, in truth, by app and configuration.
    came_up: BTreeMap<(PathId, Timestamp), BTreeSet<InstanceId>>,
    /// Of those whose app has a readiness check, the ones that said that they are ready.
    ready: BTreeMap<(PathId, Timestamp), BTreeSet<InstanceId>>,
    /// Deployments that go back.
    rollbacks: BTreeSet<DeploymentId>,
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
    /// What every owner has and was promised.
    owned: BTreeMap<Owner, Usage>,
    /// When the present process began: a grace period begins anew.
    pub booted_at: u64,
    /// And by the wall clock.
    pub booted_wall: Timestamp,
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
        let key = (launch.app.id.clone(), launch.app.last_config_change_at());
        self.came_up.entry(key).or_default().insert(launch.task.instance.clone());
    }

    /// A task says that it is ready.
    pub(super) fn is_ready(&mut self, launch: &Launch) {
        let key = (launch.app.id.clone(), launch.app.last_config_change_at());
        self.ready.entry(key).or_default().insert(launch.task.instance.clone());
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
        let ended = self.ended_by(one);
        let roles = self.roles_before(&one.frame);
        for change in &one.frame.changes {
            let old = self.disk.put(change);
            self.check_change(one, change, old);
        }
        self.check_minimum(one, &before);
        self.check_selection(&ended);
        self.check_killed(one);
        self.check_quota(one);
        self.check_group_role(one, &roles);
        self.count_over_quota(one);
        self.count(one);
        self.check_back_off(one);
        self.note_root(&one.frame);
        for (id, reply) in &one.frame.replies {
            let wanted = self.rules.asked.get(id).copied().unwrap_or_default();
            if let Input::Api(_, origin, request) = &one.cause {
                self.check_written(origin, request, reply, wanted, &one.frame);
            }
        }
    }

    /// What is counted of requests, to see that they were made.
    fn count(&mut self, one: &Stepped) {
        let Input::Api(_, _, request) = &one.cause else { return };
        match (&**request, &one.frame.replies[..]) {
            (Request::CancelDeployment { id, force: false }, [(_, Ok(Reply::Deployment { id: back, .. }))]) => {
                self.stats.rollbacks.0 += 1;
                self.stats.rollbacks.1 += u64::from(self.rules.rollbacks.contains(id));
                self.rules.rollbacks.insert(back.clone());
            }
            (Request::KillTasks { selection: KillSelector::Tasks(tasks), .. }, [(_, Ok(_))]) => {
                let apps: BTreeSet<&PathId> = tasks.iter().map(|task| task.instance.app()).collect();
                self.stats.killed_across += u64::from(apps.len() > 1);
            }
            _ => {}
        }
    }

    fn note_version(&mut self, app: &PathId) {
        if let Some(version) = self.disk.current(app).map(|app| app.version) {
            self.rules.versions.insert(app.clone(), version);
        }
    }

    fn check_change(&mut self, one: &Stepped, change: &Change, old: Option<Record>) {
        match (change, old) {
            (Change::Put(Record::App(entry)), old) => {
                let before = if let Some(Record::App(old)) = &old { &old.owner } else { &entry.owner };
                self.check_own(one, &[before, &entry.owner], &|| entry.id.to_string());
                self.note_version(&entry.id);
                self.check_cause(one, &entry.id);
            }
            (Change::Put(Record::Definition(app)), _) => {
                let owner = self.disk.app(&app.id).map(|entry| entry.owner.clone());
                let owners: Vec<&Owner> = owner.iter().chain(&app.owner).collect();
                self.check_own(one, &owners, &|| app.id.to_string());
                self.note_version(&app.id);
                self.check_cause(one, &app.id);
            }
            (Change::Delete(RecordKey::App(app)), old) => {
                if let Some(Record::App(old)) = &old {
                    self.check_own(one, &[&old.owner], &|| app.to_string());
                }
                self.rules.versions.remove(app);
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
            (Change::Put(Record::Port(claim)), old) => {
                self.check_own(one, &[&claim.owner], &|| format!("port {}", claim.port));
                self.check_claim(claim, old);
            }
            (Change::Delete(RecordKey::Port(port)), Some(Record::Port(old))) => {
                self.check_own(one, &[&old.owner], &|| format!("port {port}"));
                self.rules.claims.remove(&(old.app.clone(), old.position));
                let asked = matches!(&one.cause, Input::Api(_, _, request) if **request == Request::ReleasePort { port: *port });
                if !asked {
                    self.violate("claim-lost", || format!("nobody released port {port} of {}", old.app));
                }
            }
            (Change::Put(Record::Brick(new)), Some(Record::Brick(old))) => {
                let by_kill = matches!(&one.cause, Input::Api(_, _, request) if matches!(**request, Request::KillTasks { .. }));
                self.stats.wiped += u64::from(by_kill && new.condemned && !old.condemned);
                if new.condemned && !old.condemned {
                    self.check_own(one, &[&old.owner], &|| format!("brick {}", old.name));
                }
                self.check_brick(&old, Some(new));
            }
            (Change::Delete(RecordKey::Brick(_)), Some(Record::Brick(old))) => self.check_brick(&old, None),
            _ => {}
        }
    }

    fn check_instance(&mut self, one: &Stepped, old: &Instance, new: Option<&Instance>) {
        let written_off = old.condition.is_live() && new.is_none_or(|new| !new.condition.is_live() || new.incarnation != old.incarnation);
        if written_off {
            self.check_written_off(old);
            self.note_failure(one, old);
        }
        if let Some(new) = new {
            self.stats.ready += u64::from(new.ready && !old.ready);
            self.check_health_kill(one, old, new);
            self.note_overdue(old, new);
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
}

/// What a call launches.
fn launches_of(call: &ClusterCall) -> &[Launch] {
    if let ClusterCall::Accept { launches, .. } = call { launches } else { &[] }
}

/// Which launch of which instance a task is of.
fn launch_of(task: &TaskId) -> (InstanceId, u32) {
    (task.instance.clone(), task.incarnation)
}

/// The definition of all that is launched together, and its host ports.
fn whole_of(launch: &Launch) -> (&App, &[u16]) {
    launch.pod.as_ref().map_or((&launch.app, &launch.ports), |pod| (&pod.app, &pod.ports))
}
