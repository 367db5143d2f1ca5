//! How durations are distributed, to about 3 %: a counter for each sixteenth of each power of two of a microsecond.
//!
//! Only the last seconds are shown, as with Marathon's `--metrics_histogram_reservoir_resetting_interval_ms` of 5 s: a window that fills, and the one
//! before it.

use std::time::{Duration, Instant};

const WINDOW: Duration = Duration::from_secs(5);

/// Counters in a power of two.
const PARTS: usize = 16;
/// The last counter takes everything above half an hour.
const COUNTERS: usize = 28 * PARTS;

#[derive(Debug)]
pub(super) struct Histogram {
    filling: Window,
    before: Window,
    until: Instant,
}

#[derive(Clone, Debug)]
struct Window {
    counts: Box<[u32; COUNTERS]>,
    count: u64,
    /// Seconds.
    sum: f64,
    squares: f64,
    min: f64,
    max: f64,
}

/// What a histogram shows; seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Distribution {
    pub min: f64,
    pub mean: f64,
    pub max: f64,
    pub p50: f64,
    pub p75: f64,
    pub p95: f64,
    pub p98: f64,
    pub p99: f64,
    pub p999: f64,
    pub stddev: f64,
}

impl Histogram {
    pub(super) fn new(now: Instant) -> Self {
        Self { filling: Window::default(), before: Window::default(), until: now + WINDOW }
    }

    pub(super) fn record(&mut self, now: Instant, value: Duration) {
        self.turn(now);
        self.filling.record(value);
    }

    pub(super) fn distribution(&mut self, now: Instant) -> Distribution {
        self.turn(now);
        let mut both = self.before.clone();
        both.add(&self.filling);
        both.distribution()
    }

    fn turn(&mut self, now: Instant) {
        if now >= self.until {
            let missed = now >= self.until + WINDOW;
            self.before = if missed { Window::default() } else { std::mem::take(&mut self.filling) };
            self.filling = Window::default();
            self.until = now + WINDOW;
        }
    }
}

impl Default for Window {
    fn default() -> Self {
        Self { counts: Box::new([0; COUNTERS]), count: 0, sum: 0.0, squares: 0.0, min: f64::INFINITY, max: 0.0 }
    }
}

impl Window {
    fn record(&mut self, value: Duration) {
        let seconds = value.as_secs_f64();
        let counter = &mut self.counts[place(value)];
        *counter = counter.saturating_add(1);
        self.count += 1;
        self.sum += seconds;
        self.squares += seconds * seconds;
        self.min = self.min.min(seconds);
        self.max = self.max.max(seconds);
    }

    fn add(&mut self, other: &Self) {
        self.counts.iter_mut().zip(other.counts.iter()).for_each(|(ours, theirs)| *ours = ours.saturating_add(*theirs));
        self.count += other.count;
        self.sum += other.sum;
        self.squares += other.squares;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
    }

    fn distribution(&self) -> Distribution {
        if self.count == 0 {
            return Distribution::default();
        }
        let count = self.count as f64;
        let mean = self.sum / count;
        let at = |part: f64| self.quantile(part).clamp(self.min, self.max);
        Distribution {
            min: self.min,
            mean,
            max: self.max,
            p50: at(0.5),
            p75: at(0.75),
            p95: at(0.95),
            p98: at(0.98),
            p99: at(0.99),
            p999: at(0.999),
            stddev: (self.squares / count - mean * mean).max(0.0).sqrt(),
        }
    }

    fn quantile(&self, part: f64) -> f64 {
        let wanted = (part * self.count as f64).ceil() as u64;
        let mut seen = 0;
        let place = self.counts.iter().position(|count| {
            seen += u64::from(*count);
            seen >= wanted
        });
        place.map_or(self.max, middle)
    }
}

/// The counter of a duration.
fn place(value: Duration) -> usize {
    let micros = u64::try_from(value.as_micros()).unwrap_or(u64::MAX);
    if micros < PARTS as u64 {
        return micros as usize;
    }
    let power = micros.ilog2() as usize;
    let part = (micros >> (power - 4)) as usize - PARTS;
    ((power - 3) * PARTS + part).min(COUNTERS - 1)
}

/// The middle of what a counter counts; seconds.
fn middle(place: usize) -> f64 {
    let (row, part) = (place / PARTS, place % PARTS);
    let micros = if row == 0 { part as f64 } else { ((PARTS + part) as f64 + 0.5) * (1_u64 << (row - 1)) as f64 };
    micros / 1e6
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_the_last_seconds_are_shown() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let mut histogram = Histogram::new(start);
        histogram.record(at(1), Duration::from_millis(10));
        histogram.record(at(6), Duration::from_millis(30));
        let both = histogram.distribution(at(6));
        assert_eq!((both.min, both.max), (0.010, 0.030));
        assert!((both.mean - 0.020).abs() < 1e-9 && (both.stddev - 0.010).abs() < 1e-9, "{both:?}");
        assert_eq!(histogram.distribution(at(11)).min, 0.030);
        assert_eq!(histogram.distribution(at(30)), Distribution::default());
    }

    proptest! {
        #[test]
        fn a_quantile_is_right_to_a_few_percent(values in prop::collection::vec(1_u64..1_000_000_000, 1..200)) {
            let mut window = Window::default();
            values.iter().for_each(|micros| window.record(Duration::from_micros(*micros)));
            let mut sorted = values.clone();
            sorted.sort_unstable();
            for part in [0.5, 0.95, 0.999] {
                let exact = sorted[((part * sorted.len() as f64).ceil() as usize).max(1) - 1] as f64 / 1e6;
                let found = window.quantile(part);
                prop_assert!((found - exact).abs() <= exact * 0.04 + 1e-6, "{part}: {found} instead of {exact}");
            }
        }

        #[test]
        fn every_duration_has_a_counter(micros in any::<u64>()) {
            prop_assert!(place(Duration::from_micros(micros)) < COUNTERS);
        }
    }
}
