//! Deadlines: each key has at most one. Derived from state; nothing here is stored.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::time::Instant;

/// Keys with the moment at which each is due.
#[derive(Clone, Debug)]
pub struct Timers<K> {
    by_time: BTreeSet<(Instant, K)>,
    by_key: BTreeMap<K, Instant>,
}

impl<K> Default for Timers<K> {
    fn default() -> Self {
        Self { by_time: BTreeSet::new(), by_key: BTreeMap::new() }
    }
}

impl<K: Ord + Clone> Timers<K> {
    /// Makes `key` due at `at`, whenever it was due before.
    pub fn set(&mut self, key: K, at: Instant) {
        if let Some(before) = self.by_key.insert(key.clone(), at) {
            self.by_time.remove(&(before, key.clone()));
        }
        self.by_time.insert((at, key));
    }

    /// Makes `key` due at `at` unless it is due earlier.
    pub fn set_earlier(&mut self, key: K, at: Instant) {
        if self.by_key.get(&key).is_none_or(|before| at < *before) {
            self.set(key, at);
        }
    }

    /// `key` is due no more.
    pub fn clear(&mut self, key: &K) {
        if let Some(at) = self.by_key.remove(key) {
            self.by_time.remove(&(at, key.clone()));
        }
    }

    /// When `key` is due.
    pub fn at(&self, key: &K) -> Option<Instant> {
        self.by_key.get(key).copied()
    }

    /// True when `key` has a deadline.
    pub fn contains(&self, key: &K) -> bool {
        self.by_key.contains_key(key)
    }

    /// Takes one key that is due at `now`.
    pub fn pop_due(&mut self, now: Instant) -> Option<K> {
        let (at, _) = self.by_time.first()?;
        if *at > now {
            return None;
        }
        let (_, key) = self.by_time.pop_first()?;
        self.by_key.remove(&key);
        Some(key)
    }

    /// The earliest deadline.
    pub fn first(&self) -> Option<Instant> {
        self.by_time.first().map(|(at, _)| *at)
    }

    /// How many keys have a deadline.
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// True when nothing is due, ever.
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_one_deadline() {
        let mut timers = Timers::default();
        timers.set("a", Instant(5));
        timers.set("b", Instant(3));
        timers.set("a", Instant(1));
        timers.set_earlier("b", Instant(9));
        assert_eq!(timers.first(), Some(Instant(1)));
        assert_eq!(timers.pop_due(Instant(0)), None);
        assert_eq!(timers.pop_due(Instant(4)), Some("a"));
        assert_eq!(timers.pop_due(Instant(4)), Some("b"));
        assert_eq!(timers.pop_due(Instant(4)), None);
        timers.set("c", Instant(1));
        timers.clear(&"c");
        assert!(timers.is_empty());
    }
}
