//! What goes wrong, and when: a schedule drawn from a seed, and the noise on every link. All of it is data.

use super::rng::Rng;

/// One fault, and when it strikes.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    /// Milliseconds of the world's time.
    pub at: u64,
    /// What happens.
    pub kind: FaultKind,
}

/// What happens. `agent` counts modulo the nodes there are; `ms` is how long it lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// The server dies at this point of its work, and is started again `ms` after.
    ServerCrash {
        /// Where in the work.
        point: CrashPoint,
        /// How long until it is started again.
        ms: u64,
    },
    /// The session with the cluster breaks; what was on its way is lost.
    LinkDown {
        /// How long.
        ms: u64,
    },
    /// Another master takes over: it knows nothing until the nodes have registered again.
    Failover {
        /// How long there is none.
        ms: u64,
    },
    /// A node is cut off; its tasks go on.
    Partition {
        /// Which.
        agent: u64,
        /// How long.
        ms: u64,
    },
    /// All nodes of a rack are cut off; their tasks go on.
    RackOut {
        /// Which, modulo those there are.
        rack: u64,
        /// How long.
        ms: u64,
    },
    /// A node dies with everything on it, and comes back empty.
    AgentCrash {
        /// Which.
        agent: u64,
        /// How long it is off.
        ms: u64,
        /// True: it comes back without any memory of its tasks.
        forgets: bool,
    },
    /// One of the running tasks fails.
    TaskFails {
        /// Which, modulo those there are.
        nth: u64,
    },
    /// One of the running tasks answers its checks badly.
    TaskSick {
        /// Which, modulo those there are.
        nth: u64,
        /// How long.
        ms: u64,
    },
    /// The prober does not get to run, and says of every check that it does not know.
    ProberStarved {
        /// How long.
        ms: u64,
    },
    /// A node is slow to start anything.
    SlowAgent {
        /// Which.
        agent: u64,
        /// How long.
        ms: u64,
    },
    /// What a node has mounted cannot be released.
    StuckUnmount {
        /// Which.
        agent: u64,
        /// How long.
        ms: u64,
    },
    /// Every offer is taken back.
    RescindAll,
    /// The wall clock jumps.
    WallJump {
        /// By so many milliseconds.
        by: i64,
    },
}

/// Where the server dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrashPoint {
    /// Between two batches.
    Idle,
    /// After the steps of a batch, before its commit.
    BeforeCommit,
    /// The commit fails, and nothing of it is on disk.
    CommitLost,
    /// The commit fails, and yet it is on disk.
    CommitKept,
    /// After the commit, before any effect.
    BeforeEffects,
    /// After so many of the batch's effects.
    AmongEffects(u64),
}

/// Chances (in a thousand) and delays on the links.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Noise {
    /// A call is lost between server and cluster.
    pub call_loss: u32,
    /// A call arrives once more, later.
    pub call_twice: u32,
    /// An event that may be lost is lost: any status (one with a uuid is repeated), any report of a brick.
    pub event_loss: u32,
    /// A status or report arrives once more, later.
    pub event_twice: u32,
    /// A kill or an order about a brick is lost between master and node.
    pub order_loss: u32,
    /// A message is late, and everything behind it on its link.
    pub late: u32,
    /// How late at most, milliseconds.
    pub late_ms: u64,
    /// A launch fails on its node.
    pub launch_fails: u32,
}

impl Noise {
    /// No noise at all.
    pub const NONE: Self =
        Self { call_loss: 0, call_twice: 0, event_loss: 0, event_twice: 0, order_loss: 0, late: 0, late_ms: 0, launch_fails: 0 };

    /// From calm to rough.
    pub fn draw(rng: &mut Rng) -> Self {
        let level = *rng.pick(&[0, 0, 1, 1, 2, 5]);
        let mut upto = |most: u64| rng.below(most * level + 1) as u32;
        Self {
            call_loss: upto(20),
            call_twice: upto(20),
            event_loss: upto(30),
            event_twice: upto(30),
            order_loss: upto(30),
            late: upto(20),
            late_ms: u64::from(upto(4000)),
            launch_fails: upto(15),
        }
    }
}

/// A schedule of faults within `span_ms`.
pub fn draw(rng: &mut Rng, count: u64, agents: u64, span_ms: u64) -> Vec<Fault> {
    let mut faults: Vec<Fault> =
        (0..count).map(|_| Fault { at: rng.within(5_000, span_ms.max(5_000)), kind: draw_kind(rng, agents) }).collect();
    faults.sort_by_key(|fault| fault.at);
    faults
}

fn draw_kind(rng: &mut Rng, agents: u64) -> FaultKind {
    let agent = rng.below(agents);
    let brief = rng.within(100, 20_000);
    let long = rng.within(1_000, 400_000);
    match rng.below(100) {
        0..30 => FaultKind::ServerCrash { point: draw_point(rng), ms: rng.within(0, 30_000) },
        30..37 => FaultKind::LinkDown { ms: brief },
        37..42 => FaultKind::Failover { ms: brief },
        42..48 => FaultKind::Partition { agent, ms: brief },
        48..57 => FaultKind::Partition { agent, ms: long },
        57..60 => FaultKind::RackOut { rack: agent, ms: long },
        60..70 => FaultKind::AgentCrash { agent, ms: long, forgets: rng.chance(400) },
        70..79 => FaultKind::TaskFails { nth: rng.bits() },
        79..84 => FaultKind::TaskSick { nth: rng.bits(), ms: rng.within(1_000, 120_000) },
        84..86 => FaultKind::ProberStarved { ms: long },
        86..90 => FaultKind::SlowAgent { agent, ms: long * 2 },
        90..94 => FaultKind::StuckUnmount { agent, ms: long },
        94..97 => FaultKind::RescindAll,
        _ => FaultKind::WallJump { by: rng.within(0, 7_200_000) as i64 - 3_600_000 },
    }
}

fn draw_point(rng: &mut Rng) -> CrashPoint {
    match rng.below(8) {
        0 => CrashPoint::Idle,
        1 => CrashPoint::BeforeCommit,
        2 => CrashPoint::CommitLost,
        3 => CrashPoint::CommitKept,
        4 | 5 => CrashPoint::BeforeEffects,
        _ => CrashPoint::AmongEffects(rng.within(1, 6)),
    }
}
