//! Kills: when each is sent and when it is repeated. A kill is owed as long as its instance lives and should not; only its end settles it.
//!
//! Facts: a KILL may be lost; Marathon keeps at most `--kill_chunk_size` in flight and repeats after `--kill_retry_timeout`.

use std::collections::{BTreeMap, BTreeSet};

use super::timers::Timers;
use crate::model::{id::InstanceId, time::Instant};

/// The kills owed: each stays until it is settled.
///
/// Invariant: an instance is in `queued` or in `sent`, never in both. Every step costs in proportion to what it settles or sends.
#[derive(Clone, Debug, Default)]
pub struct Kills {
    /// In the order in which they were first owed.
    queued: BTreeSet<(u64, InstanceId)>,
    turns: BTreeMap<InstanceId, u64>,
    /// Due for repetition.
    sent: Timers<InstanceId>,
    /// How often each of them was sent.
    attempts: BTreeMap<InstanceId, u32>,
    attempts_of_all: u64,
    asked: u64,
}

impl Kills {
    /// Asking twice owes one kill.
    pub fn owe(&mut self, instance: &InstanceId) {
        if self.sent.contains(instance) || self.turns.contains_key(instance) {
            return;
        }
        self.queued.insert((self.asked, instance.clone()));
        self.turns.insert(instance.clone(), self.asked);
        self.asked += 1;
    }

    /// The task has ended, or should live after all. An instance of which no kill is owed is no error.
    pub fn settle(&mut self, instance: &InstanceId) {
        if let Some(turn) = self.turns.remove(instance) {
            self.queued.remove(&(turn, instance.clone()));
        }
        self.sent.clear(instance);
        if let Some(attempts) = self.attempts.remove(instance) {
            self.attempts_of_all -= u64::from(attempts);
        }
    }

    /// How often all kills that are owed have been sent.
    pub fn attempts(&self) -> u64 {
        self.attempts_of_all
    }

    /// How many instances a kill was sent to whose end is not known.
    pub fn in_flight(&self) -> usize {
        self.sent.len()
    }

    /// The connection was lost: what was sent may be lost too.
    pub fn send_all_again(&mut self, now: Instant) {
        let mut again = Vec::new();
        while let Some(instance) = self.sent.pop_due(Instant(u64::MAX)) {
            again.push(instance);
        }
        again.into_iter().for_each(|instance| self.sent.set(instance, now));
    }

    /// What is to be sent at `now`: repeats of kills left unanswered, then new ones while fewer than `chunk` are in flight.
    pub fn advance(&mut self, now: Instant, retry_ms: u64, chunk: usize) -> Vec<InstanceId> {
        let mut due = Vec::new();
        while let Some(instance) = self.sent.pop_due(now) {
            due.push(instance);
        }
        while self.sent.len() + due.len() < chunk
            && let Some((_, instance)) = self.queued.pop_first()
        {
            self.turns.remove(&instance);
            due.push(instance);
        }
        for instance in &due {
            self.sent.set(instance.clone(), now.after_ms(retry_ms));
            let attempts = self.attempts.entry(instance.clone()).or_default();
            self.attempts_of_all += u64::from(*attempts < u32::MAX);
            *attempts = attempts.saturating_add(1);
        }
        due
    }

    /// When `advance` next has something to do; `None` when only answers can change anything.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.sent.first()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One line a step: `owe 1`, `settle 1`, `advance 0 -> 1 2` (the kills sent at that millisecond, two in flight at most), `attempts 3`, `in-flight 2`.
    fn check(script: &str) {
        let id = |text: &str| InstanceId::new("/a".parse().unwrap(), uuid::Uuid::from_u128(text.trim().parse().unwrap()));
        let mut kills = Kills::default();
        for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (verb, rest) = line.split_once(' ').unwrap();
            match verb {
                "owe" => kills.owe(&id(rest)),
                "settle" => kills.settle(&id(rest)),
                "advance" => {
                    let (now, expected) = rest.split_once("->").unwrap();
                    let sent = kills.advance(Instant(now.trim().parse().unwrap()), 30_000, 2);
                    let sent: Vec<String> = sent.iter().map(|id| id.uuid().as_u128().to_string()).collect();
                    assert_eq!(sent.join(" "), expected.trim(), "at: {line}");
                }
                "in-flight" => assert_eq!(kills.in_flight().to_string(), rest.trim()),
                "attempts" => assert_eq!(kills.attempts().to_string(), rest.trim()),
                other => panic!("no such step: {other}"),
            }
        }
    }

    #[test]
    fn a_kill_is_repeated_until_it_is_settled() {
        check(
            "
            owe 1
            owe 1
            advance 0      -> 1
            owe 1
            attempts 1
            advance 29999  ->
            advance 30000  -> 1
            attempts 2
            settle 1
            settle 1
            attempts 0
            advance 90000  ->
        ",
        );
    }

    #[test]
    fn room_is_given_back_by_an_answer() {
        check(
            "
            owe 3
            owe 2
            owe 1
            advance 0 -> 3 2
            attempts 2
            in-flight 2
            advance 1 ->
            settle 2
            in-flight 1
            advance 2 -> 1
            in-flight 2
            advance 30000 -> 3
            attempts 3
        ",
        );
    }
}
