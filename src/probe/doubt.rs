//! Whose fault a failure is. A task is killed for its failures, so what may be ours is not held against it: it is shown, and not counted.
//!
//! * Certain: an answer with a bad status, a command that ends badly. The task itself has said so.
//! * Ours: this machine could not even ask (no file descriptor, no local port, no memory, no route, the node's engine does not answer).
//! * Ours, if this thread did not get to run while the check was under way: whatever then broke off or was not answered in time. That is measured on
//!   the monotonic clock: a beat that comes half a second too late means that the thread, the process or the machine stood still.
//! * Ours, probably, if much fails at once: more than half of the checks that were asked in the last half minute and had succeeded within ten
//!   minutes before, at least three, on at least two nodes of which most fails. Then no connection that is refused, breaks off or is not answered
//!   counts until it is half or less. With a single node this never holds: there, nothing lies between us and the tasks.
//!
//! A check that begins late, because too many others are under way, is as good as any other.

use std::collections::{HashMap, VecDeque};

use crate::model::health::Outcome;

/// A beat that is late by more than this means that we stood still, milliseconds.
const STOOD_STILL_MS: u64 = 500;

/// Stands that are remembered; older ones are longer ago than any check takes.
const MAX_STANDS: usize = 256;

/// Results count for the mass for so long, milliseconds.
const WINDOW_MS: u64 = 30_000;

/// A check that last succeeded longer ago than this tells nothing about the network, milliseconds.
const RECENT_MS: u64 = 600_000;

/// Fewer failures are no mass.
const MIN_MASS: u32 = 3;

/// On fewer nodes it is the node's.
const MIN_HOSTS: usize = 2;

/// What a run came to, before anyone asks whose fault it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Result {
    /// As it should be.
    Passed,
    /// The task answered, and badly.
    Bad(String),
    /// The connection was refused: nobody listens, or something between us says so.
    Refused(String),
    /// It broke off, or nobody answered in time.
    Broken(String),
    /// This machine could not ask.
    Unasked(String),
}

/// See the file.
#[derive(Debug, Default)]
pub struct Doubt {
    /// When we stood still: from, to.
    stands: VecDeque<(u64, u64)>,
    last_beat: u64,
    /// The last result of each check that counts for the mass.
    votes: HashMap<u64, Vote>,
    /// In the order in which they were given; a vote that was given again meanwhile is passed over.
    given: VecDeque<(u64, u64)>,
    hosts: HashMap<String, Tally>,
    all: Tally,
    /// Since when much fails at once.
    mass_since: Option<u64>,
}

#[derive(Debug)]
struct Vote {
    at: u64,
    host: String,
    failed: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    failed: u32,
    total: u32,
}

impl Tally {
    fn add(&mut self, failed: bool) {
        self.failed += u32::from(failed);
        self.total += 1;
    }

    fn remove(&mut self, failed: bool) {
        self.failed = self.failed.saturating_sub(u32::from(failed));
        self.total = self.total.saturating_sub(1);
    }

    fn mostly_fails(self) -> bool {
        self.failed * 2 > self.total
    }
}

impl Doubt {
    /// The regular beat of the thread at `now`, and by how much it came too late.
    pub fn beat(&mut self, now: u64, late_ms: u64) {
        self.last_beat = now;
        if late_ms > STOOD_STILL_MS {
            self.stands.push_back((now.saturating_sub(late_ms), now));
            if self.stands.len() > MAX_STANDS {
                self.stands.pop_front();
            }
        }
    }

    /// A check is over for good.
    pub fn forget(&mut self, slot: u64) {
        if let Some(vote) = self.votes.remove(&slot) {
            self.uncount(&vote);
        }
    }

    /// What a run from `began` to `now` of a check on `host` means that last succeeded at `last_success`.
    pub fn judge(&mut self, slot: u64, host: &str, began: u64, now: u64, last_success: Option<u64>, result: Result) -> Outcome {
        let stood_still = self.stood_still(began, now);
        let unreached = matches!(result, Result::Refused(_)) || matches!(result, Result::Broken(_)) && !stood_still;
        let heard = matches!(result, Result::Passed | Result::Bad(_));
        if heard || unreached && self.is_recent(now, last_success) {
            self.vote(slot, host, now, unreached);
        }
        self.expire(now);
        let mass = self.look_for_mass(now);
        match result {
            Result::Passed => Outcome::Passed,
            Result::Bad(why) => Outcome::Failed(why),
            Result::Unasked(why) => Outcome::Uncertain(format!("this machine could not ask: {why}")),
            Result::Broken(why) if stood_still => Outcome::Uncertain(format!("we stood still meanwhile: {why}")),
            Result::Refused(why) | Result::Broken(why) if mass => {
                let Tally { failed, total } = self.all;
                Outcome::Uncertain(format!("{failed} of {total} checks on several nodes fail at once: {why}"))
            }
            Result::Refused(why) | Result::Broken(why) => Outcome::Failed(why),
        }
    }

    /// During the mass, what was well before it counts, however long it lasts.
    fn is_recent(&self, now: u64, last_success: Option<u64>) -> bool {
        last_success.is_some_and(|at| self.mass_since.unwrap_or(now).saturating_sub(at) <= RECENT_MS)
    }

    /// Also while the beat that will say so has not come yet.
    fn stood_still(&self, began: u64, now: u64) -> bool {
        now.saturating_sub(self.last_beat) > STOOD_STILL_MS + 200 || self.stands.iter().any(|(from, to)| *from <= now && began <= *to)
    }

    fn vote(&mut self, slot: u64, host: &str, at: u64, failed: bool) {
        self.forget(slot);
        self.all.add(failed);
        match self.hosts.get_mut(host) {
            Some(tally) => tally.add(failed),
            None => self.hosts.entry(host.to_owned()).or_default().add(failed),
        }
        self.votes.insert(slot, Vote { at, host: host.to_owned(), failed });
        self.given.push_back((at, slot));
    }

    fn uncount(&mut self, vote: &Vote) {
        self.all.remove(vote.failed);
        if let Some(tally) = self.hosts.get_mut(&vote.host) {
            tally.remove(vote.failed);
            if tally.total == 0 {
                self.hosts.remove(&vote.host);
            }
        }
    }

    fn expire(&mut self, now: u64) {
        while let Some((at, slot)) = self.given.front().copied()
            && at + WINDOW_MS < now
        {
            self.given.pop_front();
            if self.votes.get(&slot).is_some_and(|vote| vote.at == at) {
                self.forget(slot);
            }
        }
    }

    fn look_for_mass(&mut self, now: u64) -> bool {
        let many = self.all.failed >= MIN_MASS && self.all.mostly_fails();
        let is = many && self.hosts.values().filter(|tally| tally.mostly_fails()).take(MIN_HOSTS).count() == MIN_HOSTS;
        match (is, self.mass_since) {
            (true, None) => {
                tracing::warn!(
                    failed = self.all.failed,
                    of = self.all.total,
                    "Checks on several nodes fail at once; nothing is counted against tasks."
                );
                self.mass_since = Some(now);
            }
            (false, Some(_)) => self.mass_since = None,
            _ => {}
        }
        is
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused() -> Result {
        Result::Refused("connection refused".into())
    }

    fn broken() -> Result {
        Result::Broken("no answer".into())
    }

    /// `counted`, `uncertain` or `passed`.
    fn name(outcome: &Outcome) -> &'static str {
        match outcome {
            Outcome::Passed => "passed",
            Outcome::Failed(_) => "counted",
            Outcome::Uncertain(_) => "uncertain",
        }
    }

    #[test]
    fn alone_a_failure_is_the_tasks_unless_this_machine_could_not_ask() {
        let check = |result: Result, expected: &str| {
            let mut doubt = Doubt::default();
            doubt.beat(1000, 0);
            assert_eq!(name(&doubt.judge(1, "a", 500, 1000, Some(0), result.clone())), expected, "{result:?}");
        };
        check(Result::Passed, "passed");
        check(Result::Bad("500".into()), "counted");
        check(refused(), "counted");
        check(broken(), "counted");
        check(Result::Unasked("too many open files".into()), "uncertain");
    }

    #[test]
    fn what_breaks_off_while_we_stand_still_is_ours() {
        let check = |began: u64, now: u64, result: Result, expected: &str| {
            let mut doubt = Doubt::default();
            doubt.beat(1000, 0);
            // From 1100 to 4100.
            doubt.beat(4100, 3000);
            doubt.beat(9_900, 0);
            doubt.beat(now, 0);
            assert_eq!(name(&doubt.judge(1, "a", began, now, Some(0), result.clone())), expected, "{began} {now} {result:?}");
        };
        check(900, 4200, broken(), "uncertain");
        check(2000, 10_000, broken(), "uncertain");
        check(4000, 10_000, broken(), "uncertain");
        check(4200, 10_000, broken(), "counted");
        check(2000, 10_000, Result::Bad("500".into()), "counted");
        check(2000, 10_000, refused(), "counted");
        check(2000, 10_000, Result::Passed, "passed");
    }

    #[test]
    fn a_beat_that_has_not_come_yet_counts_too() {
        let mut doubt = Doubt::default();
        doubt.beat(1000, 0);
        assert_eq!(name(&doubt.judge(1, "a", 900, 21_000, Some(0), broken())), "uncertain");
        doubt.beat(21_000, 0);
        assert_eq!(name(&doubt.judge(1, "a", 20_950, 21_050, Some(0), broken())), "counted");
    }

    /// One result a second of each of `count` checks on the nodes in turn; the first `failing` of them refuse. What the last round came to.
    fn rounds(doubt: &mut Doubt, from_s: u64, rounds: u64, hosts: &[&str], count: u64, failing: u64) -> String {
        let mut last = Vec::new();
        for now in (from_s..from_s + rounds).map(|second| second * 1000) {
            doubt.beat(now, 0);
            last = (0..count)
                .map(|slot| {
                    let host = hosts[slot as usize % hosts.len()];
                    let result = if slot < failing { refused() } else { Result::Passed };
                    name(&doubt.judge(slot, host, now, now, Some(1000), result))
                })
                .collect();
        }
        last.sort_unstable();
        last.dedup();
        last.join(" ")
    }

    #[test]
    fn a_mass_on_several_nodes_is_not_counted() {
        let check = |hosts: &[&str], count: u64, failing: u64, expected: &str| {
            let found = rounds(&mut Doubt::default(), 1, 3, hosts, count, failing);
            assert_eq!(found, expected, "{failing} of {count} on {hosts:?}");
        };
        let (one, four) = (["a"], ["a", "b", "c", "d"]);
        check(&four, 8, 8, "uncertain");
        check(&four, 8, 6, "passed uncertain");
        check(&four, 8, 5, "counted passed"); // most of one node, half of the others
        check(&four, 8, 4, "counted passed"); // half is no mass
        check(&four, 2, 2, "counted"); // too few
        check(&one, 8, 8, "counted"); // nothing lies between
        check(&["a", "a", "a", "b"], 4, 3, "counted passed"); // one node, the other is well
    }

    #[test]
    fn a_mass_lasts_as_long_as_it_lasts_and_ends_at_once() {
        let mut doubt = Doubt::default();
        assert_eq!(rounds(&mut doubt, 1, 3, &["a", "b"], 8, 0), "passed");
        assert_eq!(rounds(&mut doubt, 4, 3600, &["a", "b"], 8, 8), "uncertain");
        assert_eq!(rounds(&mut doubt, 3604, 2, &["a", "b"], 8, 1), "counted passed");
    }

    #[test]
    fn what_has_failed_for_long_does_not_make_a_mass() {
        let mut doubt = Doubt::default();
        for slot in 0..8 {
            let host = if slot % 2 == 0 { "a" } else { "b" };
            doubt.beat(2_000_000, 0);
            assert_eq!(name(&doubt.judge(slot, host, 2_000_000, 2_000_000, Some(0), refused())), "counted");
            assert_eq!(name(&doubt.judge(slot, host, 2_000_000, 2_000_000, None, refused())), "counted");
        }
    }
}
