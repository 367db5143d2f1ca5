//! What is counted about this process. Names and shapes are Marathon 1.11's (which are Dropwizard's), so that existing exporters, dashboards and
//! alerts go on as they are; what has no meaning here (the JVM, garbage collection) is left out.
//!
//! Counting takes an atomic addition or a short lock. Gauges are not kept: whoever exports computes them from a snapshot.

mod export;
mod histogram;
mod meter;

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

pub use self::export::{json, prometheus};
use self::meter::{Meter, Timer};
use crate::model::cluster::TaskState;

/// What is counted since the start of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// Deployments begun.
    Deployments,
    /// Deployments refused because too many ran.
    DeploymentsDismissed,
    /// Tasks launched.
    TasksLaunched,
    /// Calls for offers.
    Revives,
    /// Calls against offers.
    Suppresses,
    /// Launches as operations on offers.
    Launches,
    /// Offers that came.
    OffersIncoming,
    /// Offers that were used.
    OffersUsed,
    /// Offers that were declined.
    OffersDeclined,
    /// Tasks that ended because they took more memory than their limit.
    OutOfMemory,
    /// Bytes of requests' bodies, as announced.
    RequestBytes,
    /// Bytes of answers' bodies.
    ResponseBytes,
    /// Bytes of compressed answers' bodies.
    GzippedBytes,
    /// Bytes sent on event streams.
    StreamBytes,
    /// Batches made durable. (Ours.)
    Commits,
}

impl Counter {
    /// Every counter.
    pub const ALL: [Self; 15] = [
        Self::Deployments,
        Self::DeploymentsDismissed,
        Self::TasksLaunched,
        Self::Revives,
        Self::Suppresses,
        Self::Launches,
        Self::OffersIncoming,
        Self::OffersUsed,
        Self::OffersDeclined,
        Self::OutOfMemory,
        Self::RequestBytes,
        Self::ResponseBytes,
        Self::GzippedBytes,
        Self::StreamBytes,
        Self::Commits,
    ];

    /// Marathon's name, without the prefix.
    pub fn name(self) -> &'static str {
        match self {
            Self::Deployments => "deployments.counter",
            Self::DeploymentsDismissed => "deployments.dismissed.counter",
            Self::TasksLaunched => "tasks.launched.counter",
            Self::Revives => "mesos.calls.revive.counter",
            Self::Suppresses => "mesos.calls.suppress.counter",
            Self::Launches => "mesos.offer-operations.launch.counter",
            Self::OffersIncoming => "mesos.offers.incoming.counter",
            Self::OffersUsed => "mesos.offers.used.counter",
            Self::OffersDeclined => "mesos.offers.declined.counter",
            Self::OutOfMemory => "mesos.task.oom.memory-limit-exceeded.counter",
            Self::RequestBytes => "http.requests.size.counter.bytes",
            Self::ResponseBytes => "http.responses.size.counter.bytes",
            Self::GzippedBytes => "http.responses.size.gzipped.counter.bytes",
            Self::StreamBytes => "http.responses.event-stream.size.counter.bytes",
            Self::Commits => "persistence.commits.counter",
        }
    }
}

/// The methods whose requests are timed apart, and all together.
const TIMED: [(&str, Option<&str>); 5] = [
    ("http.requests.duration.timer.seconds", None),
    ("http.requests.get.duration.timer.seconds", Some("GET")),
    ("http.requests.post.duration.timer.seconds", Some("POST")),
    ("http.requests.put.duration.timer.seconds", Some("PUT")),
    ("http.requests.delete.duration.timer.seconds", Some("DELETE")),
];

/// The hundreds of statuses, from 1xx on.
const CLASSES: [&str; 5] = [
    "http.responses.1xx.rate.meter",
    "http.responses.2xx.rate.meter",
    "http.responses.3xx.rate.meter",
    "http.responses.4xx.rate.meter",
    "http.responses.5xx.rate.meter",
];

/// The counts of one process.
#[derive(Debug)]
pub struct Metrics {
    began: Instant,
    counters: [AtomicU64; Counter::ALL.len()],
    task_updates: [AtomicU64; TaskState::ALL.len()],
    responses: [Meter; CLASSES.len()],
    requests: [Timer; TIMED.len()],
    active_requests: AtomicU64,
}

impl Default for Metrics {
    fn default() -> Self {
        let began = Instant::now();
        Self {
            began,
            counters: Default::default(),
            task_updates: Default::default(),
            responses: std::array::from_fn(|_| Meter::new(began)),
            requests: std::array::from_fn(|_| Timer::new(began)),
            active_requests: AtomicU64::new(0),
        }
    }
}

impl Metrics {
    /// Adds to a counter.
    pub fn add(&self, counter: Counter, count: u64) {
        self.counters[counter as usize].fetch_add(count, Ordering::Relaxed);
    }

    /// What a counter has come to.
    pub fn count(&self, counter: Counter) -> u64 {
        self.counters[counter as usize].load(Ordering::Relaxed)
    }

    /// A status of a task came.
    pub fn task_update(&self, state: TaskState) {
        if let Some(at) = TaskState::ALL.iter().position(|known| *known == state) {
            self.task_updates[at].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A request begins; it ends with [`Request::end`], or unanswered when that is dropped.
    pub fn request(&self) -> Request<'_> {
        self.active_requests.fetch_add(1, Ordering::Relaxed);
        Request { metrics: self, began: Instant::now() }
    }

    /// How long the process has run.
    pub fn uptime(&self) -> Duration {
        self.began.elapsed()
    }
}

/// A request that is being answered.
#[derive(Debug)]
pub struct Request<'a> {
    metrics: &'a Metrics,
    began: Instant,
}

impl Request<'_> {
    /// It is answered with `status`.
    pub fn end(self, method: &str, status: u16) {
        let now = Instant::now();
        if let Some(meter) = usize::from(status / 100).checked_sub(1).and_then(|class| self.metrics.responses.get(class)) {
            meter.mark(now);
        }
        for ((_, only), timer) in TIMED.iter().zip(&self.metrics.requests) {
            if only.is_none_or(|only| only == method) {
                timer.record(now, now - self.began);
            }
        }
    }
}

impl Drop for Request<'_> {
    fn drop(&mut self) {
        self.metrics.active_requests.fetch_sub(1, Ordering::Relaxed);
    }
}
