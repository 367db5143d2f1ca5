//! Rates as Dropwizard has them: means over the last one, five and fifteen minutes, in which older events count exponentially less.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::histogram::{Distribution, Histogram};

/// The means are brought up to date this often.
const TICK: Duration = Duration::from_secs(5);

/// After so many ticks without any event the means are 0 for every purpose.
const MAX_TICKS: u32 = 10_000;

/// How often something happens.
#[derive(Debug)]
pub(super) struct Meter(Mutex<State>);

#[derive(Debug)]
struct State {
    began: Instant,
    ticked: Instant,
    count: u64,
    /// Since the last tick.
    fresh: u64,
    /// Per second; `None` before the first tick.
    means: Option<[f64; 3]>,
}

/// What a meter shows; events per second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Rates {
    pub count: u64,
    pub m1: f64,
    pub m5: f64,
    pub m15: f64,
    pub mean: f64,
}

impl Meter {
    pub(super) fn new(now: Instant) -> Self {
        Self(Mutex::new(State { began: now, ticked: now, count: 0, fresh: 0, means: None }))
    }

    pub(super) fn mark(&self, now: Instant) {
        let mut state = self.state();
        state.tick(now);
        state.count += 1;
        state.fresh += 1;
    }

    pub(super) fn rates(&self, now: Instant) -> Rates {
        let mut state = self.state();
        state.tick(now);
        let [m1, m5, m15] = state.means.unwrap_or_default();
        let seconds = (now - state.began).as_secs_f64();
        let mean = if state.count == 0 || seconds == 0.0 { 0.0 } else { state.count as f64 / seconds };
        Rates { count: state.count, m1, m5, m15, mean }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics between two statements that belong together.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn tick(&mut self, now: Instant) {
        let ticks = (now.saturating_duration_since(self.ticked).as_secs() / TICK.as_secs()).min(u64::from(MAX_TICKS));
        if ticks == u64::from(MAX_TICKS) {
            (self.ticked, self.fresh, self.means) = (now, 0, Some([0.0; 3]));
            return;
        }
        for _ in 0..ticks {
            let rate = std::mem::take(&mut self.fresh) as f64 / TICK.as_secs_f64();
            let weigh = |minutes: f64, mean: f64| mean + (1.0 - (-TICK.as_secs_f64() / 60.0 / minutes).exp()) * (rate - mean);
            self.means = Some(match self.means {
                None => [rate; 3],
                Some([m1, m5, m15]) => [weigh(1.0, m1), weigh(5.0, m5), weigh(15.0, m15)],
            });
            self.ticked += TICK;
        }
    }
}

/// How often something happens and how long it takes.
#[derive(Debug)]
pub(super) struct Timer {
    meter: Meter,
    histogram: Mutex<Histogram>,
}

impl Timer {
    pub(super) fn new(now: Instant) -> Self {
        Self { meter: Meter::new(now), histogram: Mutex::new(Histogram::new(now)) }
    }

    pub(super) fn record(&self, now: Instant, took: Duration) {
        self.meter.mark(now);
        self.histogram.lock().unwrap_or_else(PoisonError::into_inner).record(now, took);
    }

    pub(super) fn read(&self, now: Instant) -> (Rates, Distribution) {
        (self.meter.rates(now), self.histogram.lock().unwrap_or_else(PoisonError::into_inner).distribution(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_follow_what_happens_and_fade() {
        let start = Instant::now();
        let meter = Meter::new(start);
        assert_eq!(meter.rates(start), Rates::default());
        (0..50).for_each(|_| meter.mark(start + Duration::from_secs(1)));
        assert_eq!(meter.rates(start + Duration::from_secs(5)), Rates { count: 50, m1: 10.0, m5: 10.0, m15: 10.0, mean: 10.0 });
        let later = meter.rates(start + Duration::from_secs(65));
        // A minute later the mean over one minute is an e-th.
        assert!((later.m1 - 10.0 / std::f64::consts::E).abs() < 1e-9 && later.m5 > later.m1 && later.m15 > later.m5, "{later:?}");
        assert_eq!(meter.rates(start + Duration::from_secs(1_000_000)).m15, 0.0);
    }
}
