//! The process' clocks and its source of random bits: the only place from which the core gets either.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::model::time::{Instant, Timestamp};

/// Monotonic time since this was made, the wall clock, and random bits.
#[derive(Debug)]
pub struct Clock {
    start: std::time::Instant,
    random: u64,
}

impl Default for Clock {
    fn default() -> Self {
        Self { start: std::time::Instant::now(), random: uuid::Uuid::new_v4().as_u64_pair().0 }
    }
}

impl Clock {
    /// Milliseconds since the start, rounded up: a deadline that was waited for has passed.
    pub fn now(&self) -> Instant {
        Instant(u64::try_from(self.start.elapsed().as_micros().div_ceil(1000)).unwrap_or(u64::MAX))
    }

    /// The wall clock.
    pub fn wall(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    /// The moment for a runtime's timer.
    pub fn at(&self, instant: Instant) -> std::time::Instant {
        self.start + Duration::from_millis(instant.0)
    }

    /// 64 random bits (SplitMix64, seeded by the operating system).
    pub fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.random;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }
}
