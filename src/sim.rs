//! The deterministic world: the real core and the driver's synchronous half on a seeded heap of events, with everything around them that can go
//! wrong. A seed gives a [`Plan`](world::Plan) of requests and faults; a plan has one course; a plan that breaks a rule is made smaller until it can
//! be read.
//!
//! | module | what it is |
//! | --- | --- |
//! | [`workload`], [`owners`], [`faults`] | what is asked, by whom, and what goes wrong: data, drawn from the seed |
//! | [`world`] | the heap, the links, one run |
//! | `master`, `agent` | a cluster as Mesos 1.11 is one: offers, statuses repeated until acknowledged, partitions, bricks |
//! | [`placement`] | what nodes are like, and a second opinion on where instances may go |
//! | `probe` | checks of the tasks, some of them sick |
//! | `server` | the process under test: core, batch, commit, crash, restart, clients |
//! | [`disk`] | the durable store |
//! | [`invariants`] | what must always hold, and what must hold once the world has healed |
//! | [`sabotage`] | faults put in deliberately: each must be found |
//! | [`shrink`] | makes a failing plan smaller |
//! | [`bench`] | measures the core with the real store |

pub mod agent;
pub mod bench;
pub mod cluster;
pub mod disk;
pub mod faults;
pub mod invariants;
pub mod master;
pub mod owners;
pub mod placement;
mod probe;
pub mod rng;
pub mod sabotage;
mod server;
pub mod shrink;
pub mod trace;
pub mod workload;
pub mod world;

#[cfg(test)]
mod tests;

use rng::Rng;
use sabotage::Sabotage;
use trace::Trace;
use world::{Outcome, Plan};

/// What a seed is played with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Nodes; `None`: 2 to 6, by the seed.
    pub agents: Option<u64>,
    /// Instances that are asked for, about; `None`: a few, by the seed.
    pub instances: Option<u64>,
    /// Minutes of the world's time until it heals; `None`: 5 to 15, by the seed.
    pub minutes: Option<u64>,
    /// A fault put in deliberately.
    pub sabotage: Option<Sabotage>,
}

/// The plan of a seed.
pub fn plan(seed: u64, options: Options) -> Plan {
    let mut rng = Rng::part(seed, 0);
    let (agents, minutes) = (rng.within(2, 6), rng.within(5, 15));
    let agents = options.agents.unwrap_or(agents).max(1);
    let chaos_ms = options.minutes.unwrap_or(minutes).max(1) * 60_000;
    // A large cluster gets more of everything, but not in proportion: what is wanted is found among few apps.
    let size = 1 + u64::from(agents.ilog2());
    let mut scale = workload::Scale {
        agents,
        apps: rng.within(2, 3 + 2 * size) as u16,
        ops: rng.within(5, 20 + 10 * size),
        instances: rng.within(2, (4 * size).max(agents / 4)) as u32,
        span_ms: chaos_ms,
        crowd: options.instances.is_some(),
    };
    if let Some(instances) = options.instances {
        scale.apps = rng.within(40, 60) as u16;
        scale.ops = u64::from(scale.apps) + rng.within(20, 60);
        // Some apps have few, because of what they are.
        scale.instances = (instances * 5 / 2 / u64::from(scale.apps)).max(1) as u32;
    }
    let mut ops = workload::draw(&mut rng, scale);
    workload::place(&mut Rng::part(seed, 6), &mut ops, scale);
    workload::pods(&mut Rng::part(seed, 8), &mut ops, scale);
    workload::habits(&mut Rng::part(seed, 9), &mut ops, scale);
    owners::draw(&mut Rng::part(seed, 10), &mut ops, scale);
    let new_groups_enforce = Rng::part(seed, 11).chance(200);
    let noise = faults::Noise::draw(&mut rng);
    let count = *rng.pick(&[0, 2, 5, 10, 20, 30]) * size / 2;
    let faults = faults::draw(&mut rng, count, agents, chaos_ms);
    Plan { seed, agents, noise, ops, faults, chaos_ms, new_groups_enforce, sabotage: options.sabotage }
}

/// Plays one seed.
pub fn play(seed: u64, options: Options, trace: Trace) -> Outcome {
    world::run(&plan(seed, options), trace)
}

/// Lines of a trace that are printed: so many from its beginning, and as many from its end.
const MAX_LINES_SHOWN: usize = 250;

/// How to see a failing seed again, and the smallest plan that breaks the same rule, with its trace.
pub fn explain_failure(seed: u64, options: Options, violation: &invariants::Violation) -> String {
    let mut again = format!("xtao-sim --seed {seed}");
    for (flag, value) in [("agents", options.agents), ("instances", options.instances), ("minutes", options.minutes)] {
        again.extend(value.map(|value| format!(" --{flag} {value}")));
    }
    again.extend(options.sabotage.map(|sabotage| format!(" --sabotage {sabotage}")));
    let (smallest, runs) = shrink::shrink(&plan(seed, options), violation.rule);
    let outcome = shrink::explain(&smallest);
    let mut text =
        format!("again: {again} -v\n\nmade smaller in {runs} runs: {} nodes, heals after {} ms\n", smallest.agents, smallest.chaos_ms);
    let noise = format!("{:?}\n", smallest.noise);
    let ops = smallest.ops.iter().map(|op| {
        let by = op.by.unwrap_or("an administrator");
        format!("op    {:>8} ms {:?} force={} mark={} by {by}\n", op.at, op.ask, op.force, op.mark)
    });
    let faults = smallest.faults.iter().map(|fault| format!("fault {:>8} ms {:?}\n", fault.at, fault.kind));
    text.extend(std::iter::once(noise).chain(ops).chain(faults));
    text.push_str("\ntrace:\n");
    let (begin, rest) = outcome.trace.split_at(outcome.trace.len().min(MAX_LINES_SHOWN));
    let (between, end) = rest.split_at(rest.len().saturating_sub(MAX_LINES_SHOWN));
    let left_out = (!between.is_empty()).then(|| format!("... {} lines ...", between.len()));
    text.extend(begin.iter().chain(&left_out).chain(end).map(|line| format!("{line}\n")));
    text
}
