//! What the engine believes and owes, as a pure state machine: offers, what tasks hold, statuses to be acknowledged, kills, brick releases.
//!
//! It reads no clock and does no I/O: a call or a [`Report`] goes in with a [`Ctx`], [`Action`]s come out, to be carried out in order. It behaves as
//! one Mesos agent with its master would: offers are void after a disconnect, a status with a uuid is repeated until it is acknowledged, what a task
//! held is free again when its terminal status was acknowledged. Nothing in it is stored: [`Report::Listed`] rebuilds it from the containers' labels.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::IpAddr,
    sync::Arc,
};

use uuid::Uuid;

use super::{process, sandbox::Asked};
use crate::model::{
    agent::Attribute,
    cluster::{BrickReport, ClusterCall, ClusterEvent, Launch, Offer, Reason, TaskRef, TaskState, TaskStatus},
    id::{AgentId, BrickName, OfferId, PoolName, TaskId},
    pod,
    resources::{ResourceLimit, Resources, Scalar},
    time::{Instant, Timestamp},
};

mod ledger;
mod pods;
#[cfg(test)]
mod tests;

use ledger::Ledger;

/// An unacknowledged status is sent again after this long (Mesos: 10 s, then longer; here always the same).
pub const RESEND_MS: u64 = 10_000;
/// After a refusal of 0 ms the same resources are offered again no sooner than this, so that two sides cannot chase each other.
pub const MIN_OFFER_PAUSE_MS: u64 = 1_000;
/// SIGKILL is sent again after this long.
pub const KILL_AGAIN_MS: u64 = 10_000;
/// What is offered is what was free when the node's ports were last looked at, at most so long ago.
pub const LOOK_FRESH_MS: u64 = 1_000;
/// A look that takes longer is not waited for.
pub const LOOK_LIMIT_MS: u64 = 2_000;
/// While ports are left out because others use them, and there is nothing else to offer, it is looked this often whether they still do.
pub const LOOK_AGAIN_MS: u64 = 10_000;
/// A signal that did not reach the container is sent again after this long.
pub const SIGNAL_RETRY_MS: u64 = 1_000;
/// A release that did not work is tried again after this long.
pub const RELEASE_RETRY_MS: u64 = 2_000;
/// The same reason for a stuck release is told again after this long.
pub const STUCK_AGAIN_MS: u64 = 30_000;
/// Tasks at once; a launch beyond is dropped.
pub const MAX_TASKS: usize = 4_000;
/// Brick releases that wait; a call beyond is ignored (it is repeated).
pub const MAX_RELEASES: usize = 4_000;
/// Offers replaced lately that may still be accepted, and tasks removed lately whose containers may still be listed.
pub const MAX_REMEMBERED: usize = 1_024;
/// Statuses of one task that wait for acknowledgement.
pub const MAX_UNSETTLED: usize = 8;
/// A status message is cut to this many bytes.
pub const MAX_MESSAGE_BYTES: usize = 10_000;
/// Less than this of both is not offered (Mesos: `MIN_CPUS`, `MIN_MEM`).
const MIN_OFFER_CPUS: Scalar = Scalar(10);
const MIN_OFFER_MEM: Scalar = Scalar::whole(32);

/// Time and identity for one step.
pub struct Ctx<'a> {
    /// Decides.
    pub now: Instant,
    /// Is shown.
    pub wall: Timestamp,
    /// Makes uuids.
    pub uuid: &'a mut dyn FnMut() -> Uuid,
}

/// The node as it is offered.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its id.
    pub id: AgentId,
    /// Its host name.
    pub host: Arc<str>,
    /// Its addresses, the preferred one first; also the addresses of a task with host networking.
    pub addresses: Vec<IpAddr>,
    /// All that may be used.
    pub total: Resources,
    /// For constraints.
    pub attributes: Vec<Attribute>,
    /// Its region; the engine's own, so that it is never a remote one.
    pub region: Option<String>,
    /// Its zone.
    pub zone: Option<String>,
    /// Under which id the scheduler is known.
    pub framework_id: String,
    /// The engine's name for the event stream.
    pub master: String,
    /// Milliseconds between SIGTERM and SIGKILL when neither a kill nor the task's definition names any.
    pub kill_grace_ms: u64,
    /// That a task is being ended is told, too.
    pub task_killing: bool,
    /// There may be containers of ours although Docker has not been listed yet.
    pub may_have_containers: bool,
}

/// Who runs a task.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Runner {
    /// Docker, as a container.
    #[default]
    Docker,
    /// We, as a process with a supervisor.
    Process,
}

/// What a task of ours holds, by its container's labels or its records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holding {
    /// What it takes.
    pub resources: Resources,
    /// Its GPUs.
    pub gpus: Vec<u32>,
    /// Its host ports.
    pub ports: Vec<u16>,
    /// It shares the node's network.
    pub host_network: bool,
    /// It has a brick.
    pub bricks: bool,
    /// Who runs it.
    pub runner: Runner,
    /// It is a container of a pod, in the network of the pod's holder.
    pub in_pod: bool,
    /// What its pod takes besides its containers, if it stands for that.
    pub overhead: Resources,
    /// The memory that it may have; `None`: what it takes.
    pub mem_limit: Option<ResourceLimit>,
    /// Milliseconds between SIGTERM and SIGKILL, by its definition; `None`: the node's.
    pub kill_grace_ms: Option<u64>,
}

impl Holding {
    /// True when nothing outside Docker's own tree is left once the process has ended: no published port, no brick. The end may then be told before
    /// Docker has cleaned up, and a replacement may begin beside that.
    fn ends_with_its_process(&self) -> bool {
        self.host_network && !self.bricks && !self.in_pod
    }
}

/// A container of ours as Docker shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its task.
    pub task: TaskId,
    /// What it holds.
    pub holding: Holding,
    /// How far it is.
    pub state: Seen,
    /// When it was asked to end, if it runs and was.
    pub asked: Option<Asked>,
}

/// How far a container is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Created and never started.
    Created,
    /// It has a process.
    Running {
        /// Its own addresses; empty with host networking.
        addresses: Vec<IpAddr>,
    },
    /// Its process ended.
    Ended(Exit),
}

/// How a container's process ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exit {
    /// As Docker gives it: 128 + n for signal n.
    pub code: i64,
    /// The kernel killed it for want of memory.
    pub oom: bool,
    /// What Docker adds.
    pub error: String,
    /// We had asked for its end, before a restart of ours too.
    pub killed: bool,
    /// The signal that ended it, where that is known.
    pub signal: Option<i32>,
    /// What it was.
    pub runner: Runner,
}

/// A signal for a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// The image's stop signal, SIGTERM unless it says otherwise.
    Stop {
        /// How long it may take then, milliseconds; to be remembered.
        grace_ms: u64,
    },
    /// SIGKILL.
    Kill,
}

/// What the world around reports.
#[derive(Clone, Debug, PartialEq)]
pub enum Report {
    /// Everything of ours was listed, containers and processes. The first one after a (re)connection opens the session.
    Listed(Vec<Found>),
    /// Docker has been out of reach for a while: every process of ours. A session without Docker is opened, if there is none.
    ListedWithoutDocker {
        /// The processes.
        found: Vec<Found>,
        /// Why Docker cannot be reached; for people.
        reason: String,
    },
    /// Docker is out of reach.
    Lost {
        /// For people.
        reason: String,
    },
    /// A launch waits for its image; for people.
    Progress {
        /// The task.
        task: TaskId,
        /// How far it is.
        message: String,
    },
    /// A launch has all it needs: its container is being made.
    Starting {
        /// The task.
        task: TaskId,
    },
    /// The container was started.
    Started {
        /// The task.
        task: TaskId,
        /// As inspected right after.
        seen: Seen,
    },
    /// The launch came to nothing, and no container is left of it.
    Refused {
        /// The task.
        task: TaskId,
        /// `Failed` or `Error`.
        state: TaskState,
        /// For people.
        message: String,
    },
    /// The launch was cancelled, and no container is left of it.
    Cancelled {
        /// The task.
        task: TaskId,
    },
    /// Docker says that its process ended.
    Died {
        /// The task.
        task: TaskId,
        /// How, if Docker said that as well and it happened just now; otherwise it is time to look.
        exit: Option<Exit>,
    },
    /// The kernel killed a process of it for want of memory.
    OutOfMemory {
        /// The task.
        task: TaskId,
    },
    /// The answer to [`Action::Inspect`]; `None`: there is no such container.
    Inspected {
        /// The task.
        task: TaskId,
        /// What was found.
        seen: Option<Seen>,
    },
    /// The answer to [`Action::Signal`].
    Signalled {
        /// The task.
        task: TaskId,
        /// Which one.
        signal: Signal,
        /// It was delivered, or there is nothing left to deliver it to.
        delivered: bool,
    },
    /// The container is gone (or could not be removed yet).
    Removed {
        /// The task.
        task: TaskId,
        /// It is gone.
        gone: bool,
    },
    /// The answer to [`Action::Release`]; `Err`: why not yet.
    Released {
        /// The brick.
        brick: BrickName,
        /// The lease.
        epoch: u64,
        /// Whether it is free.
        outcome: Result<(), String>,
    },
    /// Anything else that a node says of a brick.
    Brick(BrickReport),
    /// The answer to [`Action::LookAtPorts`]; `None`: they cannot be looked at.
    PortsInUse(Option<BTreeSet<u16>>),
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Send this to the core.
    Tell(ClusterEvent),
    /// Pull, mount, create, start.
    Launch(Box<Launch>),
    /// Give a launch up, as early as possible.
    Cancel(TaskId),
    /// Send a signal.
    Signal(TaskId, Signal),
    /// Look at the container.
    Inspect(TaskId),
    /// Remove the container, running or not.
    Remove {
        /// The task.
        task: TaskId,
        /// Nothing waits for it: launches go first.
        at_leisure: bool,
    },
    /// Keep its output from now on (asked more than once for one task).
    Follow(TaskId),
    /// Make sure that the holder has no process, then release.
    Release {
        /// The brick.
        brick: BrickName,
        /// The lease.
        epoch: u64,
        /// The holder; in a pod, the tasks of its containers.
        tasks: Vec<TaskId>,
    },
    /// Delete a brick's data.
    Destroy {
        /// The last lease that it had.
        epoch: u64,
        /// The brick.
        brick: BrickName,
        /// Its pool.
        pool: PoolName,
    },
    /// Find out on which of the offered ports somebody listens.
    LookAtPorts,
}

/// The agent. See the module's description.
#[derive(Debug)]
pub struct Agent {
    node: Node,
    ledger: Ledger,
    tasks: BTreeMap<TaskId, Task>,
    connected: bool,
    /// Why there is no Docker in this session.
    without_docker: Option<String>,
    /// Containers of ours may be there that were never listed: then nobody knows whether an unknown task is one of them.
    unlisted: bool,
    offer: Option<(OfferId, Resources)>,
    replaced: VecDeque<OfferId>,
    refusal: Option<(Instant, Resources)>,
    suppressed: bool,
    /// Since when the ports are being looked at.
    looking: Option<Instant>,
    /// When the last look has ended.
    looked_at: Option<Instant>,
    releases: BTreeMap<(BrickName, u64), Release>,
    removed: VecDeque<TaskId>,
    timers: BTreeSet<(Instant, Due)>,
}

#[derive(Debug)]
struct Task {
    holding: Holding,
    phase: Phase,
    stop: Option<Stop>,
    died: bool,
    oom: bool,
    /// How it ended, while its pod is being closed.
    end: Option<(TaskState, String)>,
    latest: TaskStatus,
    unsettled: VecDeque<TaskStatus>,
    resend_at: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// A launch is under way; it ends with `Started`, `Refused` or `Cancelled`.
    Launching,
    /// The container was seen running.
    Up,
    /// The last of its pod: what held the pod's network is being removed, and the end is told when nothing of the pod is left. `container`: as below.
    Closing { container: bool },
    /// The terminal status was sent. `container`: one is left to be removed.
    Ended { container: bool },
    /// The terminal status was acknowledged; the container is being removed. It holds nothing any more.
    Removing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    /// Asked for; sent when the container is up. `in_flight`: the signal is on its way.
    Wanted { grace_ms: u64, in_flight: bool },
    /// SIGTERM was delivered.
    Asked { kill_at: Instant },
    /// SIGKILL was sent.
    Forced { again_at: Instant },
}

#[derive(Debug)]
struct Release {
    task: TaskId,
    in_flight: bool,
    stuck: Option<(Instant, String)>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    Resend(TaskId),
    Stop(TaskId),
    Release(BrickName, u64),
    Offer,
}

// === What goes in ===

impl Agent {
    /// An agent that knows no task yet.
    pub fn new(node: Node) -> Self {
        Self {
            ledger: Ledger::new(node.total.clone()),
            without_docker: None,
            unlisted: node.may_have_containers,
            node,
            tasks: BTreeMap::new(),
            connected: false,
            offer: None,
            replaced: VecDeque::new(),
            refusal: None,
            suppressed: false,
            looking: None,
            looked_at: None,
            releases: BTreeMap::new(),
            removed: VecDeque::new(),
            timers: BTreeSet::new(),
        }
    }

    /// Takes a call of the core.
    pub fn call(&mut self, call: ClusterCall, ctx: &mut Ctx) -> Vec<Action> {
        let mut out = Vec::new();
        match call {
            ClusterCall::Accept { offer, launches } => self.accept(&offer, launches, ctx, &mut out),
            ClusterCall::Decline { offers, refuse_ms } => self.decline(&offers, refuse_ms, ctx),
            ClusterCall::Revive => {
                self.suppressed = false;
                self.refusal = None;
            }
            ClusterCall::Suppress => self.suppressed = true,
            ClusterCall::Kill { task, grace_ms, .. } => self.kill(&task, grace_ms, ctx, &mut out),
            ClusterCall::Acknowledge { task, uuid, .. } => self.acknowledge(&task, uuid, &mut out),
            ClusterCall::Reconcile { tasks, others } => self.reconcile(&tasks, others, ctx, &mut out),
            ClusterCall::ReleaseBrick { brick, epoch, task, .. } => self.release(brick, epoch, task, ctx, &mut out),
            ClusterCall::DestroyBrick { brick, epoch, pool, .. } => out.push(Action::Destroy { brick, epoch, pool }),
            ClusterCall::Teardown => {
                let tasks: Vec<TaskId> = self.tasks.keys().cloned().collect();
                tasks.iter().for_each(|task| self.kill(task, None, ctx, &mut out));
            }
        }
        out
    }

    /// Takes a report of the world around.
    pub fn report(&mut self, report: Report, ctx: &mut Ctx) -> Vec<Action> {
        let mut out = Vec::new();
        match report {
            Report::Listed(found) => self.listed(found, None, ctx, &mut out),
            Report::ListedWithoutDocker { found, reason } => self.listed(found, Some(reason), ctx, &mut out),
            Report::Lost { reason } => self.lost(reason, &mut out),
            Report::Progress { task, message } => self.progress(&task, message, ctx, &mut out),
            Report::Starting { task } => {
                if self.is_launching(&task) {
                    let what = if self.runner(&task) == Some(Runner::Process) { "command" } else { "container" };
                    self.tell_durably(&task, TaskState::Starting, format!("the {what} is being started"), ctx, &mut out);
                }
            }
            Report::Started { task, seen } => self.started(&task, seen, ctx, &mut out),
            Report::Refused { task, state, message } => {
                if self.is_launching(&task) {
                    self.ended(&task, false, state, message, ctx, &mut out);
                }
            }
            Report::Cancelled { task } => {
                if self.is_launching(&task) {
                    self.ended(&task, false, TaskState::Killed, "killed before it was started".to_owned(), ctx, &mut out);
                }
            }
            Report::Died { task, exit } => self.died(&task, exit, ctx, &mut out),
            Report::OutOfMemory { task } => {
                if let Some(known) = self.tasks.get_mut(&task) {
                    known.oom = true;
                }
            }
            Report::Inspected { task, seen } => self.inspected(&task, seen, ctx, &mut out),
            Report::Signalled { task, signal, delivered } => self.signalled(&task, signal, delivered, ctx),
            Report::Removed { task, gone } if pods::is_holder(&task) => self.holder_removed(&task, gone, ctx, &mut out),
            Report::Removed { task, gone } => self.container_removed(&task, gone),
            Report::Released { brick, epoch, outcome } => self.released(brick, epoch, outcome, ctx, &mut out),
            Report::Brick(report) => out.push(Action::Tell(ClusterEvent::Brick(report))),
            Report::PortsInUse(found) => self.looked(found, ctx),
        }
        out
    }

    /// Does what is due.
    pub fn advance(&mut self, ctx: &mut Ctx) -> Vec<Action> {
        let mut out = Vec::new();
        while let Some((at, _)) = self.timers.first()
            && *at <= ctx.now
        {
            let Some((_, due)) = self.timers.pop_first() else { break };
            match due {
                Due::Resend(task) => self.resend(&task, ctx, &mut out),
                Due::Stop(task) => self.pursue_stop(&task, ctx, &mut out),
                Due::Release(brick, epoch) => self.pursue_release(&(brick, epoch), ctx, &mut out),
                Due::Offer => {}
            }
        }
        out
    }

    /// Offers what is free, if an offer is wanted and says something new. To be called once after a batch of calls and reports.
    pub fn offer(&mut self, ctx: &mut Ctx) -> Vec<Action> {
        let mut out = Vec::new();
        if !self.connected || self.suppressed {
            return out;
        }
        let free = self.ledger.free();
        if self.refusal.as_ref().is_some_and(|(until, refused)| *until <= ctx.now || exceeds(&free, refused)) {
            self.refusal = None;
        }
        let is_offered = self.offer.as_ref().is_some_and(|(_, offered)| *offered == free);
        if is_offered || self.refusal.is_some() {
            // A port that becomes free may be what was missing.
            _ = self.ledger.others_use_ports() && self.has_looked(LOOK_AGAIN_MS, ctx, &mut out);
            return out;
        }
        let is_too_little = free.cpus < MIN_OFFER_CPUS && free.mem < MIN_OFFER_MEM;
        if !is_too_little && !self.has_looked(LOOK_FRESH_MS, ctx, &mut out) {
            return out;
        }
        // A task ended or began meanwhile: one offer of everything is worth more than two halves. Who accepts the old one is served all the same.
        if let Some((id, _)) = self.offer.take() {
            out.push(Action::Tell(ClusterEvent::Rescinded(id.clone())));
            remember(&mut self.replaced, id);
        }
        if is_too_little {
            return out;
        }
        let id = OfferId::new((ctx.uuid)().to_string());
        self.offer = Some((id.clone(), free.clone()));
        out.push(Action::Tell(ClusterEvent::Offers(vec![Offer {
            id,
            agent: self.node.id.clone(),
            host: self.node.host.clone(),
            addresses: self.node.addresses.clone(),
            resources: free,
            attributes: self.node.attributes.clone(),
            reserved: Vec::new(),
            region: self.node.region.clone(),
            zone: self.node.zone.clone(),
        }])));
        out
    }

    /// When [`Agent::advance`] next has something to do.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Who runs a task that is known.
    pub fn runner(&self, task: &TaskId) -> Option<Runner> {
        self.tasks.get(task).map(|known| known.holding.runner)
    }

    /// The tasks whose sandboxes are in use.
    pub fn tasks(&self) -> impl Iterator<Item = &TaskId> {
        self.tasks.keys()
    }
}

// === Offers ===

impl Agent {
    fn accept(&mut self, offer: &OfferId, launches: Vec<Launch>, ctx: &mut Ctx, out: &mut Vec<Action>) {
        let current = self.offer.as_ref().is_some_and(|(id, _)| id == offer);
        let valid = self.connected && (current || self.replaced.contains(offer));
        if current {
            self.offer = None;
            self.refusal = None;
        }
        for launch in launches {
            let refused = if self.tasks.contains_key(&launch.task) {
                // A call that came twice: what there is to say was said, and is repeated if it was lost.
                continue;
            } else if !valid {
                Some("the offer is no longer valid")
            } else if self.tasks.len() >= MAX_TASKS {
                Some("this node runs as many tasks as it can")
            } else if !self.ledger.fits(&launch.resources, &launch.ports) {
                Some("the resources were given away meanwhile")
            } else {
                None
            };
            match refused {
                Some(reason) => out.push(self.drop_launch(&launch.task, reason, ctx)),
                None => self.begin(launch, ctx, out),
            }
        }
    }

    fn begin(&mut self, mut launch: Launch, ctx: &mut Ctx, out: &mut Vec<Action>) {
        launch.gpus = self.ledger.free_gpus(launch.resources.gpus);
        let holding = Holding {
            resources: Resources { ports: Vec::new(), ..launch.resources.clone() },
            gpus: launch.gpus.clone(),
            ports: launch.ports.clone(),
            host_network: launch.app.network == crate::model::app::Network::Host,
            bricks: !launch.bricks.is_empty(),
            runner: if process::is_meant(&launch) { Runner::Process } else { Runner::Docker },
            in_pod: launch.pod.as_ref().is_some_and(|pod| pod::has_own_network(&pod.app)),
            overhead: launch.overhead(),
            mem_limit: launch.app.resource_limits.and_then(|limits| limits.mem),
            kill_grace_ms: launch.app.kill_grace_ms,
        };
        let runner = holding.runner;
        self.removed.retain(|task| *task != launch.task);
        self.insert(launch.task.clone(), holding, Phase::Launching, TaskState::Staging, ctx);
        match &self.without_docker {
            Some(reason) if runner == Runner::Docker => {
                let message = format!("Docker cannot be reached on this node: {reason}");
                self.ended(&launch.task, false, TaskState::Failed, message, ctx, out);
            }
            _ => out.push(Action::Launch(Box::new(launch))),
        }
    }

    fn drop_launch(&self, task: &TaskId, reason: &str, ctx: &Ctx) -> Action {
        let status = self.status(task, TaskState::Dropped, format!("not launched: {reason}"), ctx.wall);
        Action::Tell(ClusterEvent::Status(status))
    }

    fn decline(&mut self, offers: &[OfferId], refuse_ms: u64, ctx: &mut Ctx) {
        let Some((id, resources)) = self.offer.take() else { return };
        if !offers.contains(&id) {
            self.offer = Some((id, resources));
            return;
        }
        let until = ctx.now.after_ms(refuse_ms.max(MIN_OFFER_PAUSE_MS));
        self.refusal = Some((until, resources));
        self.timers.insert((until, Due::Offer));
    }
}

// === Ports of others ===

impl Agent {
    /// True when what is known of the ports is not older than `max_age_ms`; otherwise they are looked at first. Better an offer with a port too many than
    /// none: one that cannot be looked at, or takes too long, holds nothing up.
    fn has_looked(&mut self, max_age_ms: u64, ctx: &Ctx, out: &mut Vec<Action>) -> bool {
        if let Some(since) = self.looking {
            return ctx.now.ms_since(since) >= LOOK_LIMIT_MS;
        }
        let is_fresh = self.looked_at.is_some_and(|at| ctx.now.ms_since(at) < max_age_ms);
        if !is_fresh {
            self.looking = Some(ctx.now);
            self.ledger.look_begins();
            self.timers.insert((ctx.now.after_ms(LOOK_LIMIT_MS), Due::Offer));
            out.push(Action::LookAtPorts);
        }
        is_fresh
    }

    fn looked(&mut self, found: Option<BTreeSet<u16>>, ctx: &Ctx) {
        self.looking = None;
        self.looked_at = Some(ctx.now);
        if let Some(found) = found {
            self.ledger.found_in_use(found);
        }
        // While it matters whether others still use them, somebody has to look again.
        if self.ledger.others_use_ports() {
            self.timers.insert((ctx.now.after_ms(LOOK_AGAIN_MS), Due::Offer));
        }
    }
}

/// True when any part of `free` is more than it was in `before`.
fn exceeds(free: &Resources, before: &Resources) -> bool {
    let ports = |resources: &Resources| resources.ports.iter().map(|range| range.count()).sum::<usize>();
    free.cpus > before.cpus || free.mem > before.mem || free.disk > before.disk || ports(free) > ports(before)
}

fn remember<T>(ring: &mut VecDeque<T>, entry: T) {
    if ring.len() >= MAX_REMEMBERED {
        ring.pop_front();
    }
    ring.push_back(entry);
}

// === Statuses ===

impl Agent {
    fn insert(&mut self, task: TaskId, holding: Holding, phase: Phase, state: TaskState, ctx: &Ctx) {
        self.ledger.take(&task, &holding);
        let latest = self.status(&task, state, String::new(), ctx.wall);
        let entry =
            Task { holding, phase, stop: None, died: false, oom: false, end: None, latest, unsettled: VecDeque::new(), resend_at: ctx.now };
        self.tasks.insert(task, entry);
    }

    fn status(&self, task: &TaskId, state: TaskState, mut message: String, wall: Timestamp) -> TaskStatus {
        message.truncate(message.floor_char_boundary(MAX_MESSAGE_BYTES));
        let too_much = state == TaskState::Failed && self.tasks.get(task).is_some_and(|known| known.oom);
        TaskStatus {
            task: task.clone(),
            agent: Some(self.node.id.clone()),
            state,
            reason: if too_much { Reason::MemoryLimit } else { Reason::Other },
            message,
            timestamp: wall,
            uuid: None,
            healthy: None,
            addresses: self.tasks.get(task).map(|known| known.latest.addresses.clone()).unwrap_or_default(),
        }
    }

    /// Sends a status and repeats it until it is acknowledged.
    fn tell_durably(&mut self, task: &TaskId, state: TaskState, message: String, ctx: &mut Ctx, out: &mut Vec<Action>) {
        let mut status = self.status(task, state, message, ctx.wall);
        status.uuid = Some((ctx.uuid)());
        let Some(known) = self.tasks.get_mut(task) else { return };
        if known.unsettled.is_empty() {
            known.resend_at = ctx.now.after_ms(RESEND_MS);
            self.timers.insert((known.resend_at, Due::Resend(task.clone())));
        }
        if known.unsettled.len() >= MAX_UNSETTLED {
            known.unsettled.pop_front();
        }
        known.latest = status.clone();
        known.unsettled.push_back(status.clone());
        out.push(Action::Tell(ClusterEvent::Status(status)));
    }

    fn progress(&mut self, task: &TaskId, message: String, ctx: &mut Ctx, out: &mut Vec<Action>) {
        if !self.is_launching(task) {
            return;
        }
        let first = self.tasks.get(task).is_some_and(|known| known.latest.message.is_empty());
        if first {
            return self.tell_durably(task, TaskState::Staging, message, ctx, out);
        }
        let status = self.status(task, TaskState::Staging, message, ctx.wall);
        if let Some(known) = self.tasks.get_mut(task)
            && known.latest.state == TaskState::Staging
        {
            known.latest.message.clone_from(&status.message);
            out.push(Action::Tell(ClusterEvent::Status(status)));
        }
    }

    fn resend(&mut self, task: &TaskId, ctx: &Ctx, out: &mut Vec<Action>) {
        let Some(known) = self.tasks.get_mut(task) else { return };
        if known.unsettled.is_empty() || ctx.now < known.resend_at {
            return;
        }
        out.extend(known.unsettled.iter().map(|status| Action::Tell(ClusterEvent::Status(status.clone()))));
        known.resend_at = ctx.now.after_ms(RESEND_MS);
        self.timers.insert((known.resend_at, Due::Resend(task.clone())));
    }

    fn acknowledge(&mut self, task: &TaskId, uuid: Uuid, out: &mut Vec<Action>) {
        let Some(known) = self.tasks.get_mut(task) else { return };
        let settled = known.latest.uuid == Some(uuid);
        known.unsettled.retain(|status| status.uuid != Some(uuid));
        let Phase::Ended { container } = known.phase else { return };
        if !settled {
            return;
        }
        known.unsettled.clear();
        self.ledger.give_back(task);
        if container {
            known.phase = Phase::Removing;
            out.push(Action::Remove { task: task.clone(), at_leisure: !known.holding.bricks });
        } else {
            self.forget(task);
        }
    }

    fn forget(&mut self, task: &TaskId) {
        self.tasks.remove(task);
        remember(&mut self.removed, task.clone());
    }

    fn reconcile(&mut self, asked: &[TaskRef], others: bool, ctx: &Ctx, out: &mut Vec<Action>) {
        if !self.connected {
            return; // The next session begins with a reconciliation of its own; until then nothing is known for certain.
        }
        // While containers may be there that nobody has listed, an unknown task may be one of them.
        for task in asked.iter().filter(|asked| !self.unlisted && !self.tasks.contains_key(&asked.task)) {
            let elsewhere = task.agent.as_ref().is_some_and(|agent| *agent != self.node.id);
            let state = if elsewhere { TaskState::Unknown } else { TaskState::Gone };
            let mut status = self.status(&task.task, state, "the task is not known on this node".to_owned(), ctx.wall);
            status.reason = Reason::Reconciliation;
            if elsewhere {
                status.agent = None;
            }
            out.push(Action::Tell(ClusterEvent::Status(status)));
        }
        let named: BTreeSet<&TaskId> = asked.iter().map(|asked| &asked.task).collect();
        let is_asked = |task: &TaskId| others || named.contains(task);
        for (_, known) in self.tasks.iter().filter(|(task, known)| known.phase != Phase::Removing && is_asked(task)) {
            let status = TaskStatus { reason: Reason::Reconciliation, uuid: None, ..known.latest.clone() };
            out.push(Action::Tell(ClusterEvent::Status(status)));
        }
    }
}

// === The life of a task ===

impl Agent {
    fn is_launching(&self, task: &TaskId) -> bool {
        self.tasks.get(task).is_some_and(|known| known.phase == Phase::Launching)
    }

    fn started(&mut self, task: &TaskId, seen: Seen, ctx: &mut Ctx, out: &mut Vec<Action>) {
        if !self.is_launching(task) {
            return;
        }
        let addresses = match &seen {
            Seen::Running { addresses } => addresses.clone(),
            _ => Vec::new(),
        };
        self.came_up(task, addresses);
        out.push(Action::Follow(task.clone()));
        self.tell_durably(task, TaskState::Running, String::new(), ctx, out);
        if let Seen::Ended(exit) = seen {
            return self.exited(task, exit, ctx, out);
        }
        let Some(known) = self.tasks.get(task) else { return };
        if known.died {
            out.push(Action::Inspect(task.clone()));
        }
        self.pursue_stop(task, ctx, out);
    }

    fn came_up(&mut self, task: &TaskId, own: Vec<IpAddr>) {
        let Some(known) = self.tasks.get_mut(task) else { return };
        known.phase = Phase::Up;
        known.latest.addresses = if known.holding.host_network { self.node.addresses.clone() } else { own };
    }

    /// Docker tells of the end first and cleans up then; a look has to wait until it has. So whoever can be judged by the word alone is.
    fn died(&mut self, task: &TaskId, exit: Option<Exit>, ctx: &mut Ctx, out: &mut Vec<Action>) {
        if pods::is_holder(task) {
            return self.holder_gone(task, out);
        }
        let Some(known) = self.tasks.get_mut(task) else { return };
        match (known.phase, exit) {
            (Phase::Launching, _) => known.died = true,
            (Phase::Up, Some(exit)) if known.holding.ends_with_its_process() => self.exited(task, exit, ctx, out),
            (Phase::Up, _) => out.push(Action::Inspect(task.clone())),
            (Phase::Closing { .. } | Phase::Ended { .. } | Phase::Removing, _) => {}
        }
    }

    fn inspected(&mut self, task: &TaskId, seen: Option<Seen>, ctx: &mut Ctx, out: &mut Vec<Action>) {
        if self.tasks.get(task).is_none_or(|known| known.phase != Phase::Up) {
            return;
        }
        match seen {
            Some(Seen::Ended(exit)) => self.exited(task, exit, ctx, out),
            Some(Seen::Running { .. } | Seen::Created) => {}
            None => {
                let killed = self.tasks.get(task).is_some_and(|known| known.stop.is_some());
                let state = if killed { TaskState::Killed } else { TaskState::Failed };
                let what = if self.runner(task) == Some(Runner::Process) { "records are" } else { "container is" };
                let message = format!("its {what} gone; someone else removed what there was");
                self.ended(task, false, state, message, ctx, out);
            }
        }
    }

    fn exited(&mut self, task: &TaskId, mut exit: Exit, ctx: &mut Ctx, out: &mut Vec<Action>) {
        let Some(known) = self.tasks.get_mut(task) else { return };
        exit.oom |= known.oom && exit.code == 137;
        known.oom = exit.oom;
        exit.killed |= known.stop.is_some();
        let (state, message) = verdict(&exit, known.holding.mem_limit.unwrap_or(ResourceLimit::At(known.holding.resources.mem)));
        self.ended(task, true, state, message, ctx, out);
    }

    fn ended(&mut self, task: &TaskId, container: bool, state: TaskState, message: String, ctx: &mut Ctx, out: &mut Vec<Action>) {
        if self.closes_its_pod(task) {
            return self.close(task, container, (state, message), out);
        }
        self.over(task, container, state, message, ctx, out);
    }

    fn over(&mut self, task: &TaskId, container: bool, state: TaskState, message: String, ctx: &mut Ctx, out: &mut Vec<Action>) {
        let Some(known) = self.tasks.get_mut(task) else { return };
        known.phase = Phase::Ended { container };
        known.stop = None;
        self.tell_durably(task, state, message, ctx, out);
        let waiting: Vec<_> =
            self.releases.iter().filter(|(_, release)| pods::is_beside(&release.task, task)).map(|(key, _)| key.clone()).collect();
        waiting.iter().for_each(|key| self.pursue_release(key, ctx, out));
    }

    fn container_removed(&mut self, task: &TaskId, gone: bool) {
        match self.tasks.get_mut(task) {
            Some(known) if gone && known.phase == Phase::Removing => self.forget(task),
            Some(known) if gone && known.phase == (Phase::Ended { container: true }) => known.phase = Phase::Ended { container: false },
            Some(known) if gone && known.phase == (Phase::Closing { container: true }) => known.phase = Phase::Closing { container: false },
            _ => {} // Not gone: the next listing shows it again.
        }
    }
}

/// The state and the words for an end. What was killed on request is killed, whatever its exit status.
fn verdict(exit: &Exit, mem: ResourceLimit) -> (TaskState, String) {
    let state = match exit {
        Exit { killed: true, .. } => TaskState::Killed,
        Exit { code: 0, .. } => TaskState::Finished,
        _ => TaskState::Failed,
    };
    let mut message = match (exit.runner, exit.signal) {
        (Runner::Docker, _) => format!("Container exited with status {}", exit.code),
        // In the words of Mesos' command executor.
        (Runner::Process, Some(signal)) => format!("Command terminated with signal {}", signal_words(signal)),
        (Runner::Process, None) if exit.code < 0 => "The end of the command was not seen".to_owned(),
        (Runner::Process, None) => format!("Command exited with status {}", exit.code),
    };
    if let (Runner::Docker, 129..=192) = (exit.runner, exit.code) {
        message.push_str(&format!(" (signal {}{})", exit.code - 128, signal_name(exit.code - 128)));
    }
    match mem {
        _ if !exit.oom => {}
        ResourceLimit::At(mem) => message.push_str(&format!(": out of memory, the limit is {mem} MiB; give it more memory")),
        ResourceLimit::Unlimited => message.push_str(": out of memory, of which it may have as much as the node has"),
    }
    if !exit.error.is_empty() {
        message.push_str(": ");
        message.push_str(&exit.error);
    }
    (state, message)
}

/// As the C library calls it (`strsignal`).
fn signal_words(number: i32) -> String {
    let words = match number {
        1 => "Hangup",
        2 => "Interrupt",
        3 => "Quit",
        4 => "Illegal instruction",
        5 => "Trace/breakpoint trap",
        6 => "Aborted",
        7 => "Bus error",
        8 => "Floating point exception",
        9 => "Killed",
        10 => "User defined signal 1",
        11 => "Segmentation fault",
        12 => "User defined signal 2",
        13 => "Broken pipe",
        14 => "Alarm clock",
        15 => "Terminated",
        24 => "CPU time limit exceeded",
        25 => "File size limit exceeded",
        31 => "Bad system call",
        other => return format!("Unknown signal {other}"),
    };
    words.to_owned()
}

fn signal_name(number: i64) -> &'static str {
    match number {
        1 => ", SIGHUP",
        2 => ", SIGINT",
        3 => ", SIGQUIT",
        4 => ", SIGILL",
        6 => ", SIGABRT",
        7 => ", SIGBUS",
        8 => ", SIGFPE",
        9 => ", SIGKILL",
        11 => ", SIGSEGV",
        13 => ", SIGPIPE",
        15 => ", SIGTERM",
        _ => "",
    }
}

// === Kills ===

impl Agent {
    fn kill(&mut self, task: &TaskId, grace_ms: Option<u64>, ctx: &mut Ctx, out: &mut Vec<Action>) {
        let Some(known) = self.tasks.get_mut(task) else {
            if self.connected && !self.unlisted {
                let message = "nothing to kill: the task is not known on this node".to_owned();
                out.push(Action::Tell(ClusterEvent::Status(self.status(task, TaskState::Killed, message, ctx.wall))));
            }
            return;
        };
        // Whoever does not know the definition any more names none.
        let grace_ms = grace_ms.or(known.holding.kill_grace_ms).unwrap_or(self.node.kill_grace_ms);
        match (known.phase, known.stop) {
            (Phase::Closing { .. }, _) => {} // Its end is told soon.
            (Phase::Ended { .. } | Phase::Removing, _) => {
                // It ended by itself; the core learns by the status that is on its way.
                out.push(Action::Tell(ClusterEvent::Status(known.latest.clone())));
            }
            (phase, None) => {
                known.stop = Some(Stop::Wanted { grace_ms, in_flight: false });
                if phase == Phase::Launching {
                    out.push(Action::Cancel(task.clone()));
                } else if self.node.task_killing {
                    self.tell_durably(task, TaskState::Killing, String::new(), ctx, out);
                }
                self.pursue_stop(task, ctx, out);
            }
            (_, Some(Stop::Wanted { grace_ms: before, in_flight })) => {
                known.stop = Some(Stop::Wanted { grace_ms: before.min(grace_ms), in_flight });
            }
            (_, Some(Stop::Asked { kill_at })) => {
                let sooner = ctx.now.after_ms(grace_ms);
                if sooner < kill_at {
                    known.stop = Some(Stop::Asked { kill_at: sooner });
                    self.timers.insert((sooner, Due::Stop(task.clone())));
                }
            }
            (_, Some(Stop::Forced { .. })) => {}
        }
    }

    /// Sends the signal that is due. The grace period begins when SIGTERM was delivered: a Docker that hangs takes nothing away from it.
    fn pursue_stop(&mut self, task: &TaskId, ctx: &Ctx, out: &mut Vec<Action>) {
        let Some(known) = self.tasks.get_mut(task) else { return };
        if known.phase != Phase::Up {
            return;
        }
        match known.stop {
            Some(Stop::Wanted { grace_ms, in_flight: false }) => {
                known.stop = Some(Stop::Wanted { grace_ms, in_flight: true });
                out.push(Action::Signal(task.clone(), Signal::Stop { grace_ms }));
            }
            Some(Stop::Asked { kill_at: at } | Stop::Forced { again_at: at }) if at <= ctx.now => {
                let again_at = ctx.now.after_ms(KILL_AGAIN_MS);
                known.stop = Some(Stop::Forced { again_at });
                self.timers.insert((again_at, Due::Stop(task.clone())));
                out.push(Action::Signal(task.clone(), Signal::Kill));
            }
            _ => {}
        }
    }

    fn signalled(&mut self, task: &TaskId, signal: Signal, delivered: bool, ctx: &Ctx) {
        let Some(known) = self.tasks.get_mut(task) else { return };
        let (stop, at) = match (known.stop, signal) {
            (Some(Stop::Wanted { grace_ms, .. }), Signal::Stop { .. }) if delivered => {
                let kill_at = ctx.now.after_ms(grace_ms);
                (Stop::Asked { kill_at }, kill_at)
            }
            (Some(Stop::Wanted { grace_ms, .. }), Signal::Stop { .. }) => {
                (Stop::Wanted { grace_ms, in_flight: false }, ctx.now.after_ms(SIGNAL_RETRY_MS))
            }
            (Some(Stop::Forced { again_at }), Signal::Kill) if !delivered => {
                let again_at = again_at.min(ctx.now.after_ms(SIGNAL_RETRY_MS));
                (Stop::Forced { again_at }, again_at)
            }
            _ => return,
        };
        known.stop = Some(stop);
        self.timers.insert((at, Due::Stop(task.clone())));
    }
}

// === Docker comes and goes ===

impl Agent {
    /// `without_docker`: why only processes were listed.
    fn listed(&mut self, found: Vec<Found>, without_docker: Option<String>, ctx: &mut Ctx, out: &mut Vec<Action>) {
        let is_complete = without_docker.is_none();
        if is_complete {
            self.unlisted = false;
            // What Docker has is looked at as at the beginning of a session: so this is one.
            if self.without_docker.take().is_some() {
                self.lost("Docker is back".to_owned(), out);
            }
        }
        self.without_docker = without_docker;
        let first = !self.connected;
        if first {
            self.connected = true;
            self.refusal = None;
            self.suppressed = false;
            let (framework_id, master) = (self.node.framework_id.clone(), self.node.master.clone());
            out.push(Action::Tell(ClusterEvent::Connected { framework_id, master, region: self.node.region.clone() }));
        }
        let (holders, found): (Vec<Found>, Vec<Found>) = found.into_iter().partition(|found| pods::is_holder(&found.task));
        let listed: BTreeSet<TaskId> = found.iter().map(|found| found.task.clone()).collect();
        found.into_iter().for_each(|found| self.found(found, ctx, out));
        // A listing may be older than a start that was reported meanwhile: absence is only a reason to look.
        let was_listed = |known: &Task| is_complete || known.holding.runner == Runner::Process;
        let absent = self.tasks.iter().filter(|(task, known)| known.phase == Phase::Up && was_listed(known) && !listed.contains(*task));
        out.extend(absent.map(|(task, _)| Action::Inspect(task.clone())));
        if is_complete {
            self.holders_listed(&holders, ctx, out);
        }
        let gone: Vec<TaskId> = self
            .tasks
            .iter()
            .filter(|(_, known)| known.phase == Phase::Removing && was_listed(known))
            .map(|(task, _)| task.clone())
            .collect();
        gone.iter().filter(|task| !listed.contains(*task)).for_each(|task| self.forget(task));
        let waiting: Vec<_> = self.releases.keys().cloned().collect();
        waiting.iter().for_each(|key| self.pursue_release(key, ctx, out));
    }

    fn found(&mut self, found: Found, ctx: &mut Ctx, out: &mut Vec<Action>) {
        let Found { task, holding, state, asked } = found;
        let Some(known) = self.tasks.get_mut(&task) else {
            return match state {
                _ if self.removed.contains(&task) => out.push(Action::Remove { task, at_leisure: false }),
                _ => {
                    self.adopt(task.clone(), holding, state, ctx, out);
                    self.was_asked(&task, asked, ctx);
                }
            };
        };
        match (known.phase, state) {
            (Phase::Launching, _) => {}
            (Phase::Up, Seen::Ended(exit)) => self.exited(&task, exit, ctx, out),
            (Phase::Up, Seen::Running { addresses }) if known.latest.addresses.is_empty() => self.came_up(&task, addresses),
            (Phase::Up, _) => {}
            // A start that we had given up worked after all: its end was told already.
            (Phase::Ended { container: false } | Phase::Removing, _) => out.push(Action::Remove { task, at_leisure: false }),
            (Phase::Closing { .. } | Phase::Ended { container: true }, _) => {}
        }
    }

    /// A container of ours that we know nothing of: we were restarted, or lost a race.
    fn adopt(&mut self, task: TaskId, holding: Holding, state: Seen, ctx: &mut Ctx, out: &mut Vec<Action>) {
        match state {
            Seen::Running { addresses } => {
                self.insert(task.clone(), holding, Phase::Up, TaskState::Running, ctx);
                self.came_up(&task, addresses);
                out.push(Action::Follow(task));
            }
            Seen::Ended(exit) => {
                self.insert(task.clone(), holding, Phase::Up, TaskState::Running, ctx);
                out.push(Action::Follow(task.clone()));
                self.exited(&task, exit, ctx, out);
            }
            Seen::Created => {
                self.insert(task.clone(), holding, Phase::Launching, TaskState::Staging, ctx);
                out.push(Action::Remove { task: task.clone(), at_leisure: false });
                let message = "the server was stopped before the task was started".to_owned();
                self.ended(&task, true, TaskState::Dropped, message, ctx, out);
            }
        }
    }

    /// An adopted task that was asked to end before our restart: its time goes on.
    fn was_asked(&mut self, task: &TaskId, asked: Option<Asked>, ctx: &Ctx) {
        let Some(known) = self.tasks.get_mut(task).filter(|known| known.phase == Phase::Up) else { return };
        let Some(asked) = asked else { return };
        let kill_at = ctx.now.after_ms(asked.grace_ms.saturating_sub(asked.ago_ms));
        known.stop = Some(Stop::Asked { kill_at });
        self.timers.insert((kill_at, Due::Stop(task.clone())));
    }

    fn lost(&mut self, reason: String, out: &mut Vec<Action>) {
        if !self.connected {
            return;
        }
        self.connected = false;
        self.offer = None;
        self.replaced.clear();
        out.push(Action::Tell(ClusterEvent::Disconnected { reason }));
    }
}

// === Bricks ===

impl Agent {
    fn release(&mut self, brick: BrickName, epoch: u64, task: TaskId, ctx: &mut Ctx, out: &mut Vec<Action>) {
        let key = (brick, epoch);
        if !self.releases.contains_key(&key) {
            if self.releases.len() >= MAX_RELEASES {
                return;
            }
            self.releases.insert(key.clone(), Release { task, in_flight: false, stuck: None });
        }
        self.pursue_release(&key, ctx, out);
    }

    fn pursue_release(&mut self, key: &(BrickName, u64), ctx: &mut Ctx, out: &mut Vec<Action>) {
        let Some(release) = self.releases.get(key) else { return };
        if release.in_flight || !self.connected {
            return;
        }
        let holder = release.task.clone();
        let is_up = |task: &TaskId| self.tasks.get(task).is_some_and(|known| matches!(known.phase, Phase::Launching | Phase::Up));
        let mut tasks: Vec<TaskId> = self.beside(&holder).cloned().collect();
        if let Some(task) = tasks.iter().find(|task| is_up(task)) {
            return self.stuck(key, format!("the container of task {task} is still there"), ctx, out);
        }
        // What holds a pod's network mounts nothing.
        if !pods::is_holder(&holder) && !tasks.contains(&holder) {
            tasks.push(holder);
        }
        if let Some(release) = self.releases.get_mut(key) {
            release.in_flight = true;
        }
        out.push(Action::Release { brick: key.0.clone(), epoch: key.1, tasks });
    }

    fn released(&mut self, brick: BrickName, epoch: u64, outcome: Result<(), String>, ctx: &mut Ctx, out: &mut Vec<Action>) {
        let key = (brick, epoch);
        match outcome {
            Ok(()) => {
                self.releases.remove(&key);
                let report = BrickReport::Released { brick: key.0, epoch, agent: self.node.id.clone() };
                out.push(Action::Tell(ClusterEvent::Brick(report)));
            }
            Err(reason) => {
                if let Some(release) = self.releases.get_mut(&key) {
                    release.in_flight = false;
                }
                self.timers.insert((ctx.now.after_ms(RELEASE_RETRY_MS), Due::Release(key.0.clone(), epoch)));
                self.stuck(&key, reason, ctx, out);
            }
        }
    }

    fn stuck(&mut self, key: &(BrickName, u64), reason: String, ctx: &Ctx, out: &mut Vec<Action>) {
        let Some(release) = self.releases.get_mut(key) else { return };
        if release.stuck.as_ref().is_some_and(|(at, before)| *before == reason && ctx.now.ms_since(*at) < STUCK_AGAIN_MS) {
            return;
        }
        release.stuck = Some((ctx.now, reason.clone()));
        out.push(Action::Tell(ClusterEvent::Brick(BrickReport::Stuck { brick: key.0.clone(), reason })));
    }
}
