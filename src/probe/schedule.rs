//! When each check is due. Every check has a place in its interval that follows from its name: checks of one interval are spread evenly over it, and
//! keep their places whatever happens.

use std::{cmp::Reverse, collections::BinaryHeap};

use xxhash_rust::xxh3::xxh3_64;

/// A check and its moment, milliseconds of the prober's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Due {
    /// When.
    pub at_ms: u64,
    /// Which.
    pub slot: u64,
}

/// What is due, earliest first. A check that is gone stays in here until its time, and is then found to be gone.
#[derive(Clone, Debug, Default)]
pub struct Schedule(BinaryHeap<Reverse<Due>>);

impl Schedule {
    /// One more.
    pub fn add(&mut self, due: Due) {
        self.0.push(Reverse(due));
    }

    /// The earliest moment.
    pub fn next(&self) -> Option<u64> {
        self.0.peek().map(|due| due.0.at_ms)
    }

    /// Takes one that is due at `now`.
    pub fn pop(&mut self, now: u64) -> Option<Due> {
        self.next().filter(|at| *at <= now)?;
        self.0.pop().map(|due| due.0)
    }
}

/// The place of a check in its interval, milliseconds.
pub fn phase(name: &str, interval_ms: u64) -> u64 {
    xxh3_64(name.as_bytes()) % interval_ms.max(1)
}

/// The first moment after `after` that is at a place.
pub fn next_place(after: u64, phase_ms: u64, interval_ms: u64) -> u64 {
    let interval_ms = interval_ms.max(1);
    let begun = after.saturating_sub(phase_ms % interval_ms) / interval_ms * interval_ms + phase_ms % interval_ms;
    if begun > after { begun } else { begun + interval_ms }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_comes_once_in_each_interval() {
        let check = |after: u64, phase: u64, expected: u64| assert_eq!(next_place(after, phase, 10), expected, "{after} {phase}");
        check(0, 0, 10);
        check(0, 3, 3);
        check(3, 3, 13);
        check(4, 3, 13);
        check(12, 3, 13);
        check(13, 3, 23);
        check(29, 9, 39);
        check(28, 9, 29);
    }

    #[test]
    fn places_are_spread_evenly() {
        let mut counts = [0_u32; 10];
        for number in 0..10_000 {
            let place = phase(&format!("shop_web.instance-{number}._app.1 Health(0)"), 10_000);
            counts[(place / 1000) as usize] += 1;
        }
        assert!(counts.iter().all(|count| (900..1100).contains(count)), "{counts:?}");
    }

    #[test]
    fn the_earliest_comes_first_and_nothing_before_its_time() {
        let mut schedule = Schedule::default();
        [(5, 1), (3, 2), (9, 3)].into_iter().for_each(|(at_ms, slot)| schedule.add(Due { at_ms, slot }));
        assert_eq!((schedule.next(), schedule.pop(2)), (Some(3), None));
        let taken: Vec<u64> = std::iter::from_fn(|| schedule.pop(5)).map(|due| due.slot).collect();
        assert_eq!((taken, schedule.next()), (vec![2, 1], Some(9)));
    }
}
