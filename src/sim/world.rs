//! The world: one heap of things that will happen, in virtual milliseconds, and the links between server, master and nodes.
//!
//! Everything that is drawn comes from streams of the plan's seed, one stream for each part, and nothing is kept in a map whose order may change:
//! a plan has one course. Links keep the order of what is sent on them, as TCP does; a message may be lost or come once more only where the
//! protocol allows it, and all that is on its way is lost when its session ends.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    agent::{Agent, AgentMessage, Task},
    disk::Disk,
    faults::{CrashPoint, Fault, FaultKind, Noise},
    invariants::{Rules, Violation},
    master::Master,
    placement::racks,
    rng::Rng,
    sabotage::{Sabotage, Saboteur},
    server::Server,
    trace::Trace,
    workload::Op,
};
use crate::model::{
    cluster::{BrickReport, ClusterCall, ClusterEvent},
    id::{BrickName, OfferId, TaskId},
    time::Timestamp,
};

/// After the world has healed everything is as wanted within this time: two reconciliations, a launch timeout and the longest back-offs.
pub const HEALING_MS: u64 = 45 * 60_000;

/// How often it is looked whether everything is as wanted.
const LOOK_MS: u64 = 20_000;

/// A fault-free moment of a run never handles more than this; more is a loop.
const MAX_EVENTS_IN_ONE_MS: u32 = 200_000;

/// 2024-01-01 UTC: when every world begins.
const WALL_BEGIN_MS: i64 = 1_704_067_200_000;

/// Everything that a run depends on.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Where every random bit comes from.
    pub seed: u64,
    /// Nodes.
    pub agents: u64,
    /// On the links, until the world heals.
    pub noise: Noise,
    /// Requests.
    pub ops: Vec<Op>,
    /// Faults.
    pub faults: Vec<Fault>,
    /// When the world heals, milliseconds.
    pub chaos_ms: u64,
    /// `--new_group_enforce_role=top`
    pub new_groups_enforce: bool,
    /// A fault put in deliberately, to see whether it is found.
    pub sabotage: Option<Sabotage>,
}

/// Counts of a run, to see that it did something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Frames.
    pub frames: u64,
    /// Commits.
    pub commits: u64,
    /// Times that something was stepped while a commit was under way.
    pub stepped_ahead: u64,
    /// Containers started.
    pub launches: u64,
    /// Of these, the ones of pods.
    pub parts: u64,
    /// Instances that a readiness check found ready.
    pub ready: u64,
    /// Volumes given up by kills.
    pub wiped: u64,
    /// Ends of instances that had to be chosen among others of their kind, with `OLDEST_FIRST`.
    pub oldest_first: u64,
    /// Deployments that went back, and of these the ones that went back from going back.
    pub rollbacks: (u64, u64),
    /// Requests that killed tasks of several apps.
    pub killed_across: u64,
    /// Requests refused because of a user's limits.
    pub over_quota: u64,
    /// Definitions written in a group that prescribes their role.
    pub enforced: u64,
    /// Requests carried out.
    pub accepted: u64,
    /// Requests refused.
    pub refused: u64,
    /// Starts of the server.
    pub boots: u64,
    /// Milliseconds from healing until everything was as wanted.
    pub healed_ms: u64,
    /// True when not everything that was wanted had room.
    pub saturated: bool,
}

impl Stats {
    /// Of two runs.
    pub fn plus(self, other: Self) -> Self {
        Self {
            frames: self.frames + other.frames,
            commits: self.commits + other.commits,
            stepped_ahead: self.stepped_ahead + other.stepped_ahead,
            launches: self.launches + other.launches,
            parts: self.parts + other.parts,
            ready: self.ready + other.ready,
            wiped: self.wiped + other.wiped,
            oldest_first: self.oldest_first + other.oldest_first,
            rollbacks: (self.rollbacks.0 + other.rollbacks.0, self.rollbacks.1 + other.rollbacks.1),
            killed_across: self.killed_across + other.killed_across,
            over_quota: self.over_quota + other.over_quota,
            enforced: self.enforced + other.enforced,
            accepted: self.accepted + other.accepted,
            refused: self.refused + other.refused,
            boots: self.boots + other.boots,
            healed_ms: self.healed_ms + other.healed_ms,
            saturated: self.saturated || other.saturated,
        }
    }
}

/// How a run ended.
#[derive(Debug)]
pub struct Outcome {
    /// `None`: all was well.
    pub violation: Option<Violation>,
    /// What happened, when it was kept.
    pub trace: Vec<String>,
    /// Counts.
    pub stats: Stats,
}

/// What will happen.
#[derive(Clone, Debug)]
pub(super) enum What {
    Op(usize),
    Fault(usize),
    Settle,
    Look,
    MakeRoom,
    Boot,
    Connect,
    MasterUp,
    LinkUp,
    Batch { boot: u64 },
    Committed { boot: u64 },
    Tick { boot: u64, token: u64 },
    Call { session: u64, call: Box<ClusterCall> },
    Event { session: u64, event: Box<ClusterEvent> },
    Probe,
    Allocate,
    OfferTimeout(OfferId),
    OfferForgotten(OfferId),
    FilterEnds(usize),
    PingTimeout { agent: usize, token: u64 },
    Reregister { agent: usize, token: u64 },
    Partitioned { agent: usize, ends: bool },
    AgentUp { agent: usize, forgets: bool },
    ToAgent { agent: usize, message: Box<AgentMessage> },
    TaskStep { task: TaskId, token: u32 },
    Resend { task: TaskId, uuid: uuid::Uuid, after_ms: u64 },
    BrickRetry { agent: usize, brick: BrickName, epoch: u64, task: TaskId },
}

/// The session between server and master.
#[derive(Debug, Default)]
pub(super) struct Link {
    pub session: u64,
    pub up: bool,
    pub cut_until: u64,
    last_call: u64,
    last_event: u64,
}

/// One run in progress.
pub(super) struct World<'a> {
    pub plan: &'a Plan,
    pub now: u64,
    pub trace: Trace,
    pub violation: Option<Violation>,
    pub stats: Stats,
    pub disk: Disk,
    pub server: Option<Server>,
    pub armed: Option<(CrashPoint, u64)>,
    pub link: Link,
    pub master: Master,
    pub agents: Vec<Agent>,
    pub tasks: BTreeMap<TaskId, Task>,
    pub mounts: BTreeMap<BrickName, BTreeMap<usize, u64>>,
    pub data: BTreeMap<BrickName, usize>,
    pub ever: BTreeSet<TaskId>,
    pub rules: Rules,
    pub saboteur: Saboteur,
    pub settled: bool,
    pub rng_server: Rng,
    pub rng_master: Rng,
    pub rng_probe: Rng,
    pub starved_until: u64,
    pub next_id: u64,
    rng_calls: Rng,
    rng_events: Rng,
    wall_jump: i64,
    heap: BTreeMap<(u64, u64), What>,
    turn: u64,
    done: bool,
}

/// Runs a plan to its end, or to the first violation.
pub fn run(plan: &Plan, trace: Trace) -> Outcome {
    let mut world = World::new(plan, trace);
    let mut in_this_ms = 0;
    while !world.done && world.violation.is_none() {
        let Some(((at, _), what)) = world.heap.pop_first() else { break };
        in_this_ms = if at == world.now { in_this_ms + 1 } else { 0 };
        world.now = at;
        if in_this_ms > MAX_EVENTS_IN_ONE_MS {
            world.violate("hot-loop", || "time stands still: everything happens at once, again and again".into());
        }
        world.happen(what);
    }
    if let Some(violation) = world.violation.clone() {
        world.note(|| format!("VIOLATION {violation}"));
    }
    Outcome { violation: world.violation, trace: world.trace.into_lines(), stats: world.stats }
}

impl<'a> World<'a> {
    fn new(plan: &'a Plan, trace: Trace) -> Self {
        let agents = (0..plan.agents as usize).map(|at| Agent::new(plan.seed, at, plan.agents)).collect();
        let mut world = Self {
            plan,
            now: 0,
            trace,
            violation: None,
            stats: Stats::default(),
            disk: Disk::default(),
            server: None,
            armed: None,
            link: Link::default(),
            master: Master::new(plan.agents as usize),
            agents,
            tasks: BTreeMap::new(),
            mounts: BTreeMap::new(),
            data: BTreeMap::new(),
            ever: BTreeSet::new(),
            rules: Rules::default(),
            saboteur: Saboteur::new(plan.sabotage, plan.seed),
            settled: false,
            rng_server: Rng::part(plan.seed, 1),
            rng_master: Rng::part(plan.seed, 2),
            rng_probe: Rng::part(plan.seed, 5),
            starved_until: 0,
            next_id: 0,
            rng_calls: Rng::part(plan.seed, 3),
            rng_events: Rng::part(plan.seed, 4),
            wall_jump: 0,
            heap: BTreeMap::new(),
            turn: 0,
            done: false,
        };
        world.after(0, What::Boot);
        world.after(super::probe::ROUND_MS, What::Probe);
        plan.ops.iter().enumerate().for_each(|(at, op)| world.at(op.at, What::Op(at)));
        plan.faults.iter().enumerate().for_each(|(at, fault)| world.at(fault.at, What::Fault(at)));
        world.at(plan.chaos_ms, What::Settle);
        world
    }

    fn happen(&mut self, what: What) {
        match what {
            What::Op(at) => self.send_op(&self.plan.ops[at]),
            What::Fault(at) => self.strike(self.plan.faults[at].kind),
            What::Settle => self.settle(),
            What::Look => self.look(),
            What::MakeRoom => self.make_room(),
            What::Boot => self.boot(),
            What::Connect => self.connect(),
            What::MasterUp => self.master_up(),
            What::LinkUp => {
                let ms = self.rng_master.within(10, 500);
                self.after(ms, What::Connect);
            }
            What::Batch { boot } => self.batch(boot),
            What::Committed { boot } => self.committed(boot),
            What::Tick { boot, token } => self.tick(boot, token),
            What::Call { session, call } => self.on_call(session, *call),
            What::Event { session, event } => self.on_event(session, *event),
            What::Probe => self.probe(),
            What::Allocate => self.allocate(),
            What::OfferTimeout(offer) => self.rescind(&offer),
            What::OfferForgotten(offer) => self.master.forget_offer(&offer),
            What::FilterEnds(agent) => self.offerable(agent),
            What::PingTimeout { agent, token } => self.ping_timeout(agent, token),
            What::Reregister { agent, token } => self.reregister(agent, token),
            What::Partitioned { agent, ends } => self.partition(agent, ends),
            What::AgentUp { agent, forgets } => self.agent_up(agent, forgets),
            What::ToAgent { agent, message } => self.on_agent_message(agent, *message),
            What::TaskStep { task, token } => self.task_step(&task, token),
            What::Resend { task, uuid, after_ms } => self.resend(&task, uuid, after_ms),
            What::BrickRetry { agent, brick, epoch, task } => self.release_brick(agent, brick, epoch, task),
        }
    }

    /// Lets something happen in `ms` milliseconds.
    pub fn after(&mut self, ms: u64, what: What) {
        self.at(self.now + ms, what);
    }

    fn at(&mut self, at: u64, what: What) {
        self.turn += 1;
        self.heap.insert((at, self.turn), what);
    }

    /// One line of the trace.
    pub fn note(&mut self, line: impl FnOnce() -> String) {
        self.trace.add(self.now, line);
    }

    /// The first violation ends the run.
    pub fn violate(&mut self, rule: &'static str, detail: impl FnOnce() -> String) {
        if self.violation.is_none() {
            self.violation = Some(Violation { rule, at: self.now, detail: detail() });
        }
    }

    /// The wall clock.
    pub fn wall(&self) -> Timestamp {
        Timestamp(WALL_BEGIN_MS + self.now as i64 + self.wall_jump)
    }

    /// A number that no other thing of this world has.
    pub fn fresh(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// The noise of this moment.
    pub fn noise(&self) -> Noise {
        if self.settled { Noise::NONE } else { self.plan.noise }
    }

    /// Sends a call to the master, through whatever the link does to it.
    pub fn send_call(&mut self, call: ClusterCall) {
        let noise = self.noise();
        let (lost, twice) = (self.rng_calls.chance(noise.call_loss), self.rng_calls.chance(noise.call_twice));
        let delay = delay(&mut self.rng_calls, noise);
        if !self.link.up {
            return;
        }
        if lost {
            self.note(|| "    (that call is lost)".into());
            return;
        }
        let session = self.link.session;
        let at = (self.now + delay).max(self.link.last_call);
        self.link.last_call = at;
        if twice {
            let later = at + self.rng_calls.within(1, 10_000);
            self.at(later, What::Call { session, call: Box::new(call.clone()) });
        }
        self.at(at, What::Call { session, call: Box::new(call) });
    }

    /// Sends an event to the server, through whatever the link does to it.
    pub fn send_event(&mut self, event: ClusterEvent) {
        let noise = self.noise();
        let (lost, twice) = (self.rng_events.chance(noise.event_loss), self.rng_events.chance(noise.event_twice));
        let delay = delay(&mut self.rng_events, noise);
        let repeated = matches!(event, ClusterEvent::Status(_) | ClusterEvent::Brick(_));
        if !self.link.up || (lost && repeated) {
            return;
        }
        let Some(event) = self.sabotage_event(event) else { return };
        let session = self.link.session;
        let at = (self.now + delay).max(self.link.last_event);
        self.link.last_event = at;
        if twice && repeated {
            let later = at + self.rng_events.within(1, 10_000);
            self.at(later, What::Event { session, event: Box::new(event.clone()) });
        }
        self.at(at, What::Event { session, event: Box::new(event) });
    }

    /// A report of a brick.
    pub fn report(&mut self, report: BrickReport) {
        self.send_event(ClusterEvent::Brick(report));
    }

    fn strike(&mut self, kind: FaultKind) {
        if self.settled {
            return;
        }
        self.note(|| format!("FAULT {kind:?}"));
        let node = |agent: u64| (agent % self.plan.agents.max(1)) as usize;
        match kind {
            FaultKind::ServerCrash { point: CrashPoint::Idle, ms } => self.crash(ms),
            FaultKind::ServerCrash { point, ms } => self.armed = Some((point, ms)),
            FaultKind::LinkDown { ms } => self.link_down(ms),
            FaultKind::Failover { ms } => self.failover(ms),
            FaultKind::Partition { agent, ms } => self.begin_partition(node(agent), ms),
            FaultKind::RackOut { rack, ms } => self.rack_out(rack, ms),
            FaultKind::AgentCrash { agent, ms, forgets } => self.agent_crash(node(agent), ms, forgets),
            FaultKind::TaskFails { nth } => self.fail_some_task(nth),
            FaultKind::TaskSick { nth, ms } => self.sicken_some_task(nth, ms),
            FaultKind::ProberStarved { ms } => self.starved_until = self.starved_until.max(self.now + ms),
            FaultKind::SlowAgent { agent, ms } => self.agents[node(agent)].slow_until = self.now + ms,
            FaultKind::StuckUnmount { agent, ms } => self.agents[node(agent)].stuck_until = self.now + ms,
            FaultKind::RescindAll => self.rescind_all(),
            FaultKind::WallJump { by } => self.wall_jump += by,
        }
    }

    /// All nodes of one rack are cut off.
    fn rack_out(&mut self, rack: u64, ms: u64) {
        let rack = rack % racks(self.plan.agents);
        let nodes: Vec<usize> = (0..self.agents.len()).filter(|at| self.agents[*at].facts.rack == rack).collect();
        nodes.into_iter().for_each(|at| self.begin_partition(at, ms));
    }

    fn link_down(&mut self, ms: u64) {
        self.link.cut_until = self.link.cut_until.max(self.now + ms);
        self.break_session("the link is down");
        self.after(ms, What::LinkUp);
    }

    /// Ends the session: what is on its way is lost, the server is told, offers are void.
    pub fn break_session(&mut self, reason: &str) {
        if !self.link.up {
            return;
        }
        self.link.up = false;
        self.link.session += 1;
        self.void_offers();
        let reason = reason.to_owned();
        self.note(|| format!("session ends: {reason}"));
        self.deliver(ClusterEvent::Disconnected { reason });
    }

    /// A new session, if server, link and master are all there.
    pub fn connect(&mut self) {
        if self.link.up || self.server.is_none() || self.now < self.link.cut_until || !self.master.up {
            return;
        }
        self.link.up = true;
        self.link.session += 1;
        self.link.last_call = self.now;
        self.link.last_event = self.now;
        let session = self.link.session;
        self.note(|| format!("session {session} begins"));
        self.subscribe();
    }

    fn on_event(&mut self, session: u64, event: ClusterEvent) {
        if session == self.link.session && self.link.up {
            self.deliver(event);
        }
    }

    /// The chaos ends: everything that is broken is repaired, no noise, no more faults.
    fn settle(&mut self) {
        self.note(|| "HEAL".into());
        self.settled = true;
        self.starved_until = 0;
        self.armed = None;
        self.link.cut_until = self.now;
        self.heal_agents();
        if !self.master.up {
            self.master_up();
        }
        if self.server.is_none() {
            self.boot();
        }
        self.after(100, What::Connect);
        self.after(5_000, What::MakeRoom);
        self.after(LOOK_MS, What::Look);
    }

    fn look(&mut self) {
        let waited = self.now - self.plan.chaos_ms;
        match self.unsettled() {
            Ok(saturated) => {
                self.stats.healed_ms = waited;
                self.stats.saturated = saturated;
                self.done = true;
            }
            Err(reason) if waited >= HEALING_MS => {
                self.violate("progress", || format!("{} minutes after healing: {reason}", waited / 60_000));
            }
            Err(_) => self.after(LOOK_MS, What::Look),
        }
    }
}

fn delay(rng: &mut Rng, noise: Noise) -> u64 {
    let (late, brief, long) = (rng.chance(noise.late), rng.within(1, 5), rng.within(0, noise.late_ms));
    if late { brief + long } else { brief }
}
