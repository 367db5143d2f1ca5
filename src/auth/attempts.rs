//! How often one may guess: after some failures in a row each further attempt has to wait twice as long as the one before. A success forgets them.
//!
//! Counted for each user and for each address by itself. A user's longest wait is short, because anyone can cause it; an address has itself to blame.

use std::{
    hash::Hash,
    time::{Duration, Instant},
};

use dashmap::DashMap;

/// Users or addresses that are remembered at once.
pub const MAX_REMEMBERED: usize = 16_384;

/// Failures are forgotten after this long without another one.
pub const FORGOTTEN_AFTER: Duration = Duration::from_secs(900);

/// The rule of one kind of key.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// Failures in a row that cost nothing.
    pub free: u32,
    /// The longest wait.
    pub longest: Duration,
}

#[derive(Clone, Copy)]
struct Count {
    failures: u32,
    last: Instant,
}

/// Failures by key.
pub struct Attempts<K> {
    rule: Rule,
    counts: DashMap<K, Count>,
}

impl<K: Eq + Hash + Clone> Attempts<K> {
    /// Nothing has happened yet.
    pub fn new(rule: Rule) -> Self {
        Self { rule, counts: DashMap::new() }
    }

    /// Counts an attempt as a failure before it is made, so that many at once are no way around; [`Attempts::succeeded`] takes it back.
    ///
    /// # Errors
    /// How long to wait; then nothing is counted.
    pub fn begin(&self, key: &K, now: Instant) -> Result<(), Duration> {
        self.make_room(now);
        let mut count = self.counts.entry(key.clone()).or_insert(Count { failures: 0, last: now });
        if now.saturating_duration_since(count.last) >= FORGOTTEN_AFTER {
            count.failures = 0;
        }
        let until = count.last + self.wait_after(count.failures);
        if until > now {
            return Err(until - now);
        }
        *count = Count { failures: count.failures.saturating_add(1), last: now };
        Ok(())
    }

    /// The attempt was a good one.
    pub fn succeeded(&self, key: &K) {
        self.counts.remove(key);
    }

    /// The attempt was never judged: it does not count.
    pub fn withdraw(&self, key: &K) {
        if let Some(mut count) = self.counts.get_mut(key) {
            count.failures = count.failures.saturating_sub(1);
        }
    }

    fn wait_after(&self, failures: u32) -> Duration {
        match failures.checked_sub(self.rule.free) {
            None => Duration::ZERO,
            Some(beyond) => Duration::from_secs(1 << beyond.min(20)).min(self.rule.longest),
        }
    }

    /// When it is full the old ones go; and if all are young, all go: memory is bounded, and filling it takes an attempt for each entry.
    fn make_room(&self, now: Instant) {
        if self.counts.len() < MAX_REMEMBERED {
            return;
        }
        self.counts.retain(|_, count| now.saturating_duration_since(count.last) < FORGOTTEN_AFTER);
        if self.counts.len() >= MAX_REMEMBERED {
            self.counts.retain(|_, count| count.failures > self.rule.free);
        }
        if self.counts.len() >= MAX_REMEMBERED {
            self.counts.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: Rule = Rule { free: 3, longest: Duration::from_secs(10) };

    /// `+2 -> ok`: two seconds later an attempt may be made (and fails); `+0 -> 3` it must wait three seconds.
    fn check(script: &str) {
        let attempts = Attempts::new(RULE);
        let mut now = Instant::now();
        for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
            if line == "success" {
                attempts.succeeded(&"zm");
                continue;
            }
            let (after, expected) = line.split_once(" -> ").unwrap();
            now += Duration::from_secs(after.parse().unwrap());
            let found = attempts.begin(&"zm", now).map_or_else(|wait| wait.as_secs().to_string(), |()| "ok".into());
            assert_eq!(found, expected, "at: {line} in {script}");
        }
    }

    #[test]
    fn each_further_failure_waits_twice_as_long() {
        check(
            "0 -> ok
             0 -> ok
             0 -> ok
             0 -> 1
             1 -> ok
             1 -> 1
             1 -> ok
             3 -> 1
             1 -> ok
             0 -> 8
             8 -> ok
             0 -> 10
             10 -> ok
             0 -> 10",
        );
    }

    #[test]
    fn a_success_and_a_long_while_forget() {
        check(
            "0 -> ok
             0 -> ok
             0 -> ok
             0 -> 1
             1 -> ok
             success
             0 -> ok
             0 -> ok
             0 -> ok
             0 -> 1
             900 -> ok
             0 -> ok
             0 -> ok
             0 -> 1",
        );
    }

    #[test]
    fn others_are_not_held_up_and_memory_is_bounded() {
        let attempts = Attempts::new(RULE);
        let now = Instant::now();
        (0..10).for_each(|_| _ = attempts.begin(&0, now));
        assert_eq!(attempts.begin(&1, now), Ok(()));
        for key in 2..MAX_REMEMBERED + 10 {
            assert_eq!(attempts.begin(&key, now), Ok(()));
        }
        assert!(attempts.counts.len() <= MAX_REMEMBERED);
    }

    #[test]
    fn what_was_not_judged_does_not_count() {
        let attempts = Attempts::new(RULE);
        let now = Instant::now();
        for _ in 0..20 {
            assert_eq!(attempts.begin(&"zm", now), Ok(()));
            attempts.withdraw(&"zm");
        }
    }
}
