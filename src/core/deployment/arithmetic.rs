//! How many instances a replacement may kill and start right now: Marathon's arithmetic as a function of the present counts.
//!
//! Marathon computes it once and then acts on each change; computing it anew from the counts gives the same bounds and survives any restart.

use crate::model::app::UpgradeStrategy;

/// The present counts of an app that is being replaced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// How many are wanted in the end.
    pub target: u32,
    /// Old version, wanted, healthy.
    pub old_healthy: u32,
    /// Old version, wanted, not healthy: waiting, starting, failing.
    pub old_other: u32,
    /// New version, wanted, healthy and ready.
    pub new_healthy: u32,
    /// New version, wanted, not (yet) healthy.
    pub new_other: u32,
    /// Of these, not launched yet.
    pub new_waiting: u32,
    /// Told to end, but still there.
    pub leaving: u32,
}

/// What may be done now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moves {
    /// Old instances to end; those that are not healthy go first.
    pub kill_old: u32,
    /// New instances to end, when there are more than wanted.
    pub kill_new: u32,
    /// New instances to add.
    pub start: u32,
}

/// At least so many stay healthy, and at most so many ever exist. `in_place`: none may come on top, because its volumes would be missing.
pub fn bounds(target: u32, strategy: UpgradeStrategy, in_place: bool) -> (u32, u32) {
    bounds_now(target, u32::MAX, strategy, in_place)
}

/// The same while `healthy` are.
fn bounds_now(target: u32, healthy: u32, strategy: UpgradeStrategy, in_place: bool) -> (u32, u32) {
    let min_healthy = (f64::from(target) * strategy.minimum_health_capacity).ceil() as u32;
    let most = (f64::from(target) * (1.0 + strategy.maximum_over_capacity)).trunc() as u32;
    // Neither may one go nor one come: one comes first, above the limit; where that may not be one goes first, below it (Marathon 1.11).
    match min_healthy == most && most <= healthy {
        true if in_place => (min_healthy.saturating_sub(1), most),
        true => (min_healthy, most + 1),
        false => (min_healthy, most),
    }
}

/// What a replacement may do now.
pub fn moves(counts: Counts, strategy: UpgradeStrategy, in_place: bool) -> Moves {
    let Counts { target, old_healthy, old_other, new_healthy, new_other, new_waiting, leaving } = counts;
    let (min_healthy, most) = bounds_now(target, old_healthy + new_healthy, strategy, in_place);
    let spare = (old_healthy + new_healthy).saturating_sub(min_healthy);
    let kill_old = old_other + old_healthy.min(spare);
    let new = new_healthy + new_other;
    // What is told to end now still counts until it is gone.
    let present = old_healthy + old_other + new + leaving;
    // The target was lowered meanwhile: what waits must not be launched on top.
    let kill_new = new.saturating_sub(target).max(present.saturating_sub(most).min(new_waiting));
    let start = most.saturating_sub(present).min(target.saturating_sub(new));
    Moves { kill_old, kill_new, start }
}

/// True when nothing is left to replace.
pub fn is_done(counts: Counts) -> bool {
    counts.new_healthy == counts.target && counts.new_other + counts.old_healthy + counts.old_other + counts.leaving == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strategy(min: f64, over: f64) -> UpgradeStrategy {
        UpgradeStrategy { minimum_health_capacity: min, maximum_over_capacity: over }
    }

    /// `old/new+starting-leaving` of `target`.
    fn check(min: f64, over: f64, target: u32, old: u32, new: u32, starting: u32, leaving: u32, expected: (u32, u32)) {
        let counts = Counts { target, old_healthy: old, new_healthy: new, new_other: starting, leaving, ..Counts::default() };
        let moves = moves(counts, strategy(min, over), false);
        assert_eq!((moves.kill_old, moves.start), expected, "{min}/{over} {counts:?}");
    }

    #[test]
    fn replacement_keeps_to_marathons_bounds() {
        check(1.0, 1.0, 5, 5, 0, 0, 0, (0, 5)); // all new ones at once
        check(1.0, 1.0, 5, 5, 1, 4, 0, (1, 0)); // one old for each new
        check(1.0, 1.0, 5, 0, 5, 0, 0, (0, 0));
        check(0.5, 0.0, 4, 4, 0, 0, 0, (2, 0));
        check(0.5, 0.0, 4, 2, 0, 0, 2, (0, 0)); // waits for the ends
        check(0.5, 0.0, 4, 2, 0, 0, 0, (0, 2));
        check(0.5, 0.0, 4, 2, 2, 0, 0, (2, 0));
        check(1.0, 0.0, 3, 3, 0, 0, 0, (0, 1)); // capacity raised by one
        check(1.0, 0.0, 3, 3, 1, 0, 0, (1, 0));
        check(0.0, 0.0, 1, 1, 0, 0, 0, (1, 0)); // @PORT and bricks
        check(0.0, 0.0, 1, 0, 0, 0, 1, (0, 0));
        check(0.0, 0.0, 1, 0, 0, 0, 0, (0, 1));
        check(0.0, 1.0, 3, 3, 0, 0, 0, (3, 3));
        check(0.25, 0.25, 10, 10, 0, 0, 0, (7, 2));
        check(1.0, 1.0, 2, 5, 0, 0, 0, (3, 0)); // surplus goes at once
        check(0.0, 0.0, 0, 2, 0, 0, 0, (2, 0));
    }

    #[test]
    fn what_waits_is_not_launched_on_top_of_a_lowered_target() {
        let counts = Counts { target: 3, old_healthy: 2, new_other: 2, new_waiting: 1, ..Counts::default() };
        assert_eq!(moves(counts, strategy(0.5, 0.0), false), Moves { kill_old: 0, kill_new: 1, start: 0 });
    }

    #[test]
    fn old_instances_that_are_not_healthy_go_first() {
        let counts = Counts { target: 3, old_healthy: 3, old_other: 2, ..Counts::default() };
        assert_eq!(moves(counts, strategy(1.0, 1.0), false), Moves { kill_old: 2, kill_new: 0, start: 1 });
    }

    /// Marathon's own examples (`RestartStrategyTest`): of `running` old ones, how many go at once, and how many may exist.
    #[test]
    fn marathons_examples() {
        let check = |min: f64, over: f64, target: u32, running: u32, kill: u32, most: u32| {
            let counts = Counts { target, old_healthy: running, ..Counts::default() };
            let (_, found) = bounds_now(target, running, strategy(min, over), false);
            assert_eq!((moves(counts, strategy(min, over), false).kill_old, found), (kill, most), "{min}/{over} {counts:?}");
        };
        check(1.0, 0.0, 1, 1, 0, 2); // exceeded by one
        check(1.0, 0.0, 1, 0, 0, 1); // no need to
        check(0.5, 0.0, 2, 2, 1, 2);
        check(1.0, 0.0, 10, 1, 0, 10);
        check(0.1, 1.0, 10, 10, 9, 20);
        check(1.0, 1.0, 10, 10, 0, 20);
        check(0.5, 0.0, 5, 5, 2, 5);
    }

    /// The same of apps with persistent volumes: none may come on top, so one goes first where neither could.
    #[test]
    fn marathons_examples_of_resident_apps() {
        let check = |min: f64, target: u32, running: u32, kill: u32, most: u32| {
            let counts = Counts { target, old_healthy: running, ..Counts::default() };
            let (_, found) = bounds_now(target, running, strategy(min, 0.0), true);
            assert_eq!((moves(counts, strategy(min, 0.0), true).kill_old, found), (kill, most), "{min} {counts:?}");
        };
        check(1.0, 1, 1, 1, 1);
        check(0.5, 1, 1, 1, 1);
        check(1.0, 10, 10, 1, 10);
        check(0.5, 10, 10, 5, 10);
        check(1.0, 10, 1, 0, 10);
    }

    /// Marathon's formula as the reference words it, for every strategy in twentieths, every size up to 20, and every number that runs.
    #[test]
    fn the_first_moves_are_marathons_for_every_strategy_and_size() {
        let twentieths = || (0..=20).map(|part| f64::from(part) / 20.0);
        for (m, o, n) in twentieths().flat_map(|m| twentieths().flat_map(move |o| (1..=20_u32).map(move |n| (m, o, n)))) {
            for r in 0..=n + 3 {
                let min_healthy = (f64::from(n) * m).ceil() as i64;
                let mut max_capacity = (f64::from(n) * (1.0 + o)) as i64;
                let (running, wanted) = (i64::from(r), i64::from(n));
                let mut kill = (running - min_healthy).max(0);
                if min_healthy == max_capacity && max_capacity <= running {
                    max_capacity += 1;
                }
                if wanted < running {
                    kill = kill.max(running - wanted);
                }
                let start = (max_capacity - running).max(0).min(wanted);
                let counts = Counts { target: n, old_healthy: r, ..Counts::default() };
                let found = moves(counts, strategy(m, o), false);
                assert_eq!((i64::from(found.kill_old), i64::from(found.start)), (kill, start), "m {m} o {o} n {n} r {r}");
            }
        }
    }

    /// Every strategy in tenths, every size up to 12: played to the end with tasks that come up and go down one at a time.
    #[test]
    fn every_replacement_ends_and_never_leaves_its_bounds() {
        let all = (0..=10).flat_map(|min| (0..=10).flat_map(move |over| (0..=12).map(move |target| (min, over, target, false))));
        let in_place = (0..=10).flat_map(|min| (0..=12).map(move |target| (min, 0, target, true)));
        for (min, over, target, in_place) in all.chain(in_place) {
            let strategy = strategy(f64::from(min) / 10.0, f64::from(over) / 10.0);
            let (min_healthy, most) = bounds(target, strategy, in_place);
            let mut counts = Counts { target, old_healthy: target, ..Counts::default() };
            let mut rounds = 0;
            while !is_done(counts) {
                let moves = moves(counts, strategy, in_place);
                counts.old_healthy -= moves.kill_old;
                counts.leaving += moves.kill_old;
                counts.new_other += moves.start;
                let present = counts.old_healthy + counts.new_healthy + counts.new_other + counts.leaving;
                assert!(present <= most.max(target), "{strategy:?} {counts:?}");
                assert!(counts.old_healthy + counts.new_healthy >= min_healthy.min(target), "{strategy:?} {counts:?}");
                if rounds % 2 == 0 && counts.leaving > 0 || counts.new_other == 0 {
                    counts.leaving = counts.leaving.saturating_sub(1);
                } else {
                    counts.new_other -= 1;
                    counts.new_healthy += 1;
                }
                rounds += 1;
                assert!(rounds < 200, "{strategy:?} does not end: {counts:?}");
            }
        }
    }
}
