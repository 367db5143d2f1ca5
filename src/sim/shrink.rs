//! Makes a failing plan smaller: fewer faults, fewer requests, less noise, fewer nodes, less time, as long as the same rule is broken.

use super::{
    faults::Noise,
    trace::Trace,
    world::{Outcome, Plan, run},
};

/// Runs that are spent on one plan.
pub const MAX_RUNS: usize = 600;

/// A smaller plan that breaks `rule` as well, and how many runs were spent on it.
pub fn shrink(plan: &Plan, rule: &str) -> (Plan, usize) {
    let mut shrinker = Shrinker { rule, runs: 0, best: plan.clone() };
    loop {
        let before = shrinker.best.clone();
        shrinker.remove(|plan| plan.faults.len(), |plan, at, many| _ = plan.faults.drain(at..at + many));
        shrinker.remove(|plan| plan.ops.len(), |plan, at, many| _ = plan.ops.drain(at..at + many));
        shrinker.less_noise();
        shrinker.less_time();
        shrinker.fewer_agents();
        if shrinker.best == before || shrinker.runs >= MAX_RUNS {
            return (shrinker.best, shrinker.runs);
        }
    }
}

/// Plays a plan once more, with its trace.
pub fn explain(plan: &Plan) -> Outcome {
    run(plan, Trace::kept())
}

struct Shrinker<'a> {
    rule: &'a str,
    runs: usize,
    best: Plan,
}

impl Shrinker<'_> {
    /// Takes the candidate if it breaks the same rule.
    fn try_one(&mut self, candidate: Plan) -> bool {
        if self.runs >= MAX_RUNS || candidate == self.best {
            return false;
        }
        self.runs += 1;
        let broken = run(&candidate, Trace::off()).violation.is_some_and(|violation| violation.rule == self.rule);
        if broken {
            self.best = candidate;
        }
        broken
    }

    /// Removes runs of entries, long ones first.
    fn remove(&mut self, count: impl Fn(&Plan) -> usize, remove: impl Fn(&mut Plan, usize, usize)) {
        let mut many = count(&self.best);
        while many > 0 {
            let mut at = 0;
            while at < count(&self.best) {
                let mut candidate = self.best.clone();
                let here = many.min(count(&candidate) - at);
                remove(&mut candidate, at, here);
                if !self.try_one(candidate) {
                    at += here;
                }
            }
            many /= 2;
        }
    }

    fn less_noise(&mut self) {
        self.try_one(Plan { noise: Noise::NONE, ..self.best.clone() });
        let fields: [fn(&mut Noise); 7] = [
            |noise| noise.call_loss = 0,
            |noise| noise.call_twice = 0,
            |noise| noise.event_loss = 0,
            |noise| noise.event_twice = 0,
            |noise| noise.order_loss = 0,
            |noise| noise.late = 0,
            |noise| noise.launch_fails = 0,
        ];
        for silence in fields {
            let mut candidate = self.best.clone();
            silence(&mut candidate.noise);
            self.try_one(candidate);
        }
    }

    /// Heals earlier; what would come after that is left out.
    fn less_time(&mut self) {
        let last = self.best.ops.iter().map(|op| op.at).chain(self.best.faults.iter().map(|fault| fault.at)).max().unwrap_or(0);
        for chaos_ms in [last + 1_000, last + 60_000, self.best.chaos_ms / 2] {
            if chaos_ms < self.best.chaos_ms {
                let mut candidate = Plan { chaos_ms, ..self.best.clone() };
                candidate.ops.retain(|op| op.at < chaos_ms);
                candidate.faults.retain(|fault| fault.at < chaos_ms);
                self.try_one(candidate);
            }
        }
    }

    fn fewer_agents(&mut self) {
        for agents in [1, 2, 3, self.best.agents / 2, self.best.agents.saturating_sub(1)] {
            if agents >= 1 && agents < self.best.agents {
                self.try_one(Plan { agents, ..self.best.clone() });
            }
        }
    }
}
