//! What is looked up often, kept beside the tables: per app its waiting instances, its victims in order, and how many it has on each node.
//!
//! Every entry follows from the tables; [`AppIndex::change`] is called for each change of an instance, and costs a few tree operations.

use std::collections::{BTreeMap, BTreeSet};

use super::state::Needs;
use crate::model::{
    app::KillSelection,
    id::{AgentId, InstanceId},
    instance::{Condition, Goal, Instance},
    time::Timestamp,
};

/// One app's part of the index.
#[derive(Clone, Debug, Default)]
pub struct AppIndex {
    /// Goal Running, condition Scheduled: to be launched.
    pub scheduled: BTreeSet<InstanceId>,
    /// Goal Running, by version, then by how little is lost with it, then by when it started.
    candidates: BTreeSet<(Timestamp, u8, Timestamp, InstanceId)>,
    /// Instances whose goal is not Running.
    pub leaving: BTreeSet<InstanceId>,
    /// Live instances by node and version, whatever their goal.
    pub on_agents: BTreeMap<AgentId, BTreeMap<Timestamp, Living>>,
}

/// How many there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Living {
    /// That are not out of reach.
    pub in_reach: u32,
    /// That are.
    pub lost: u32,
}

impl Living {
    fn part(&mut self, instance: &Instance) -> &mut u32 {
        let lost = matches!(instance.condition, Condition::Unreachable | Condition::UnreachableInactive | Condition::Unknown);
        if lost { &mut self.lost } else { &mut self.in_reach }
    }
}

/// How little is lost by killing an instance in this condition; the smallest goes first (Marathon 1.11: unreachable, staging, starting, running).
fn rank(instance: &Instance) -> u8 {
    match instance.condition {
        Condition::Scheduled => 0,
        Condition::Unreachable | Condition::UnreachableInactive | Condition::Unknown | Condition::Killing => 1,
        Condition::Provisioned | Condition::Staging => 2,
        Condition::Starting => 3,
        Condition::Running if instance.healthy == Some(false) => 4,
        // Whether that serves depends on what its version asks for: see `serves`.
        _ => RUNS + u8::from(instance.ready) + 2 * u8::from(instance.healthy == Some(true)),
    }
}

/// The first of the four ranks of running instances that no check has found unwell: neither ready nor healthy, ready, healthy, both.
const RUNS: u8 = 5;

const RANKS: u8 = RUNS + 4;

/// True when all of this rank serve, if their version needs this.
fn serves(rank: u8, needs: Needs) -> bool {
    rank.checked_sub(RUNS).is_some_and(|said| (!needs.ready || said & 1 != 0) && (!needs.healthy || said & 2 != 0))
}

impl AppIndex {
    /// True when the app has no instances at all.
    pub fn is_empty(&self) -> bool {
        self.scheduled.is_empty() && self.candidates.is_empty() && self.leaving.is_empty() && self.on_agents.is_empty()
    }

    /// Takes `before` out and `after` in.
    pub fn change(&mut self, before: Option<&Instance>, after: Option<&Instance>) {
        if let Some(instance) = before {
            self.remove(instance);
        }
        if let Some(instance) = after {
            self.add(instance);
        }
    }

    fn add(&mut self, instance: &Instance) {
        if instance.goal == Goal::Running {
            self.candidates.insert(candidate(instance));
            if instance.condition == Condition::Scheduled {
                self.scheduled.insert(instance.id.clone());
            }
        } else {
            self.leaving.insert(instance.id.clone());
        }
        if let Some(placement) = instance.placement.as_ref().filter(|_| instance.condition.is_live()) {
            *self.on_agents.entry(placement.agent.clone()).or_default().entry(instance.version).or_default().part(instance) += 1;
        }
    }

    fn remove(&mut self, instance: &Instance) {
        if instance.goal == Goal::Running {
            self.candidates.remove(&candidate(instance));
            self.scheduled.remove(&instance.id);
        } else {
            self.leaving.remove(&instance.id);
        }
        if let Some(placement) = instance.placement.as_ref().filter(|_| instance.condition.is_live())
            && let Some(versions) = self.on_agents.get_mut(&placement.agent)
        {
            if let Some(count) = versions.get_mut(&instance.version) {
                *count.part(instance) -= 1;
                if *count == Living::default() {
                    versions.remove(&instance.version);
                }
            }
            if versions.is_empty() {
                self.on_agents.remove(&placement.agent);
            }
        }
    }

    /// Those of one version that are to be launched.
    pub fn scheduled_of(&self, version: Timestamp) -> impl Iterator<Item = &InstanceId> {
        self.rank_of(version, 0).map(|(_, _, _, id)| id)
    }

    /// Up to `count` instances with goal Running, in the order in which they should go: those that serve last. `needs` says what an instance of a
    /// version needs in order to serve; `None`: none of that version is to go.
    pub fn victims(&self, count: usize, selection: KillSelection, needs: impl Fn(Timestamp) -> Option<Needs>) -> Vec<InstanceId> {
        let mut victims = self.victims_that(false, count, selection, &needs);
        victims.extend(self.victims_that(true, count - victims.len(), selection, &needs));
        victims
    }

    /// The same of those that serve, or of those that do not.
    pub fn victims_that(
        &self,
        serve: bool,
        count: usize,
        selection: KillSelection,
        needs: impl Fn(Timestamp) -> Option<Needs>,
    ) -> Vec<InstanceId> {
        let versions: Vec<(Timestamp, Needs)> = self.versions().into_iter().filter_map(|at| Some((at, needs(at)?))).collect();
        let mut victims = Vec::new();
        for rank in 0..RANKS {
            let wanted = count - victims.len();
            if wanted == 0 {
                break;
            }
            let versions = versions.iter().filter(|(_, needs)| serves(rank, *needs) == serve);
            let mut found: Vec<(Timestamp, &InstanceId)> =
                versions.flat_map(|(at, _)| self.of_rank(*at, rank, selection, wanted)).collect();
            match selection {
                KillSelection::YoungestFirst => found.sort_by(|a, b| b.cmp(a)),
                KillSelection::OldestFirst => found.sort(),
            }
            victims.extend(found.into_iter().take(wanted).map(|(_, id)| id.clone()));
        }
        victims
    }

    fn rank_of(&self, version: Timestamp, rank: u8) -> impl DoubleEndedIterator<Item = &(Timestamp, u8, Timestamp, InstanceId)> {
        let nobody = InstanceId::new(crate::model::id::PathId::root(), uuid::Uuid::nil());
        let from = (version, rank, Timestamp(i64::MIN), nobody.clone());
        let to = (version, rank + 1, Timestamp(i64::MIN), nobody);
        self.candidates.range(from..to)
    }

    fn of_rank(&self, version: Timestamp, rank: u8, selection: KillSelection, most: usize) -> Vec<(Timestamp, &InstanceId)> {
        let range = self.rank_of(version, rank).map(|(_, _, started, id)| (*started, id));
        match selection {
            KillSelection::YoungestFirst => range.rev().take(most).collect(),
            KillSelection::OldestFirst => range.take(most).collect(),
        }
    }

    /// The versions of instances with goal Running, oldest first; few.
    pub fn versions(&self) -> Vec<Timestamp> {
        let nobody = InstanceId::new(crate::model::id::PathId::root(), uuid::Uuid::nil());
        let mut versions = Vec::new();
        let mut next = self.candidates.first();
        while let Some((version, ..)) = next {
            versions.push(*version);
            next = self.candidates.range((Timestamp(version.0 + 1), 0, Timestamp(i64::MIN), nobody.clone())..).next();
        }
        versions
    }
}

fn candidate(instance: &Instance) -> (Timestamp, u8, Timestamp, InstanceId) {
    (instance.version, rank(instance), instance.started_at.or(instance.staged_at).unwrap_or_default(), instance.id.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_serves_depends_on_what_its_version_asks_for() {
        let check = |healthy: bool, ready: bool, expected: [bool; 4]| {
            let needs = Needs { healthy, ready };
            let found = [0, 1, 2, 3].map(|said| serves(RUNS + said, needs));
            assert_eq!(found, expected, "{needs:?}");
            assert!((0..RUNS).all(|rank| !serves(rank, needs)));
        };
        check(false, false, [true; 4]);
        check(false, true, [false, true, false, true]);
        check(true, false, [false, false, true, true]);
        check(true, true, [false, false, false, true]);
    }
}
