//! The two forms in which metrics are read: Dropwizard's JSON (`/metrics`) and Prometheus' text (`/metrics/prometheus`).

use std::{
    fmt::{Display, Write as _},
    sync::atomic::Ordering,
    time::Instant,
};

use serde_json::{Map, Value, json};

use super::{CLASSES, Counter, Metrics, TIMED, histogram::Distribution, meter::Rates};
use crate::model::cluster::TaskState;

/// A gauge: its name without the prefix, and its value.
pub type Gauge = (&'static str, f64);

/// Dropwizard's JSON. `prefix` goes before each name (Marathon: `marathon`).
pub fn json(metrics: &Metrics, prefix: &str, gauges: &[Gauge]) -> Value {
    let now = Instant::now();
    let name = |name: &str| format!("{prefix}.{name}");
    let counters = counters(metrics).map(|(key, count)| (name(&key), json!({ "count": count })));
    let gauges = all_gauges(metrics, gauges).map(|(key, value)| (name(key), json!({ "value": value })));
    let meters = CLASSES.iter().zip(&metrics.responses).map(|(key, meter)| (name(key), meter_json(meter.rates(now))));
    let timers = TIMED.iter().zip(&metrics.requests).map(|((key, _), timer)| (name(key), timer_json(timer.read(now))));
    json!({
        "version": "4.0.0",
        "counters": counters.collect::<Map<_, _>>(),
        "gauges": gauges.collect::<Map<_, _>>(),
        "histograms": {},
        "meters": meters.collect::<Map<_, _>>(),
        "timers": timers.collect::<Map<_, _>>(),
    })
}

fn meter_json(rates: Rates) -> Value {
    let Rates { count, m1, m5, m15, mean } = rates;
    json!({ "count": count, "m1_rate": m1, "m5_rate": m5, "m15_rate": m15, "mean_rate": mean, "units": "events/second" })
}

fn timer_json((rates, of): (Rates, Distribution)) -> Value {
    let Rates { count, m1, m5, m15, mean } = rates;
    json!({
        "count": count, "min": of.min, "mean": of.mean, "max": of.max,
        "p50": of.p50, "p75": of.p75, "p95": of.p95, "p98": of.p98, "p99": of.p99, "p999": of.p999, "stddev": of.stddev,
        "m1_rate": m1, "m5_rate": m5, "m15_rate": m15, "mean_rate": mean, "duration_units": "seconds", "rate_units": "calls/second",
    })
}

/// Prometheus' text, with Marathon's names and types.
pub fn prometheus(metrics: &Metrics, prefix: &str, gauges: &[Gauge]) -> String {
    let now = Instant::now();
    let mut text = Text { prefix, lines: String::new() };
    counters(metrics).for_each(|(key, count)| text.value(&key, "", "counter", count));
    all_gauges(metrics, gauges).for_each(|(key, value)| text.value(key, "", "gauge", value));
    for (key, meter) in CLASSES.iter().zip(&metrics.responses) {
        let rates = meter.rates(now);
        text.value(key, "_count", "gauge", rates.count);
        text.rates(key, rates);
    }
    for ((key, _), timer) in TIMED.iter().zip(&metrics.requests) {
        let (rates, of) = timer.read(now);
        text.summary(key, rates.count, of);
        text.rates(key, rates);
    }
    text.lines
}

struct Text<'a> {
    prefix: &'a str,
    lines: String,
}

impl Text<'_> {
    fn name(&self, key: &str) -> String {
        format!("{}_{key}", self.prefix).replace(['.', '-'], "_")
    }

    fn value(&mut self, key: &str, suffix: &str, kind: &str, value: impl Display) {
        let name = self.name(key);
        // Writing into a string does not fail.
        _ = writeln!(self.lines, "# TYPE {name}{suffix} {kind}\n{name}{suffix} {value}");
    }

    fn rates(&mut self, key: &str, rates: Rates) {
        for (suffix, rate) in [("_mean_rate", rates.mean), ("_m1_rate", rates.m1), ("_m5_rate", rates.m5), ("_m15_rate", rates.m15)] {
            self.value(key, suffix, "gauge", format_args!("{rate:?}"));
        }
    }

    fn summary(&mut self, key: &str, count: u64, of: Distribution) {
        let name = self.name(key);
        _ = writeln!(self.lines, "# TYPE {name} summary");
        for (part, value) in [("0.5", of.p50), ("0.75", of.p75), ("0.95", of.p95), ("0.98", of.p98), ("0.99", of.p99), ("0.999", of.p999)] {
            _ = writeln!(self.lines, "{name}{{quantile=\"{part}\"}} {value:.6}");
        }
        _ = writeln!(self.lines, "{name}_count {count}");
        for (suffix, value) in [("_min", of.min), ("_mean", of.mean), ("_max", of.max), ("_stddev", of.stddev)] {
            self.value(key, suffix, "gauge", format_args!("{value:?}"));
        }
    }
}

fn counters(metrics: &Metrics) -> impl Iterator<Item = (String, u64)> {
    let plain = Counter::ALL.iter().map(|counter| (counter.name().to_owned(), metrics.count(*counter)));
    let updates = TaskState::ALL.iter().zip(&metrics.task_updates).map(|(state, count)| {
        let state = state.as_str().to_ascii_lowercase().replace('_', "-");
        (format!("mesos.task-updates.{state}.counter"), count.load(Ordering::Relaxed))
    });
    // Mesos' operations that only pods and reservations need, and what Marathon itself never counts.
    let never = [
        "mesos.offer-operations.launch-group.counter",
        "mesos.offer-operations.reserve.counter",
        "mesos.task.oom.memory-limit-unfulfillable.counter",
    ];
    plain.chain(updates).chain(never.map(|name| (name.to_owned(), 0)))
}

fn all_gauges(metrics: &Metrics, gauges: &[Gauge]) -> impl Iterator<Item = Gauge> {
    let uptime = metrics.uptime().as_secs_f64();
    let active = metrics.active_requests.load(Ordering::Relaxed) as f64;
    let own = [("uptime.gauge.seconds", uptime), ("leadership.duration.gauge.seconds", uptime), ("http.requests.active.gauge", active)];
    own.into_iter().chain(gauges.iter().copied())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_have_marathons_names_and_types() {
        let metrics = Metrics::default();
        metrics.add(Counter::Deployments, 3);
        metrics.task_update(TaskState::Running);
        metrics.request().end("GET", 200);
        let gauges = [("apps.active.gauge", 2.0)];
        let body = json(&metrics, "marathon", &gauges);
        for (pointer, expected) in [
            ("/version", json!("4.0.0")),
            ("/counters/marathon.deployments.counter/count", json!(3)),
            ("/counters/marathon.mesos.task-updates.task-running.counter/count", json!(1)),
            ("/counters/marathon.mesos.offer-operations.reserve.counter/count", json!(0)),
            ("/gauges/marathon.apps.active.gauge/value", json!(2.0)),
            ("/meters/marathon.http.responses.2xx.rate.meter/count", json!(1)),
            ("/meters/marathon.http.responses.5xx.rate.meter/count", json!(0)),
            ("/timers/marathon.http.requests.get.duration.timer.seconds/count", json!(1)),
            ("/timers/marathon.http.requests.put.duration.timer.seconds/count", json!(0)),
            ("/gauges/marathon.http.requests.active.gauge/value", json!(0.0)),
        ] {
            assert_eq!(body.pointer(pointer), Some(&expected), "{pointer}");
        }
        let text = prometheus(&metrics, "marathon", &gauges);
        let lines: Vec<&str> = text.lines().collect();
        for line in [
            "# TYPE marathon_deployments_counter counter",
            "marathon_deployments_counter 3",
            "# TYPE marathon_apps_active_gauge gauge",
            "marathon_apps_active_gauge 2",
            "# TYPE marathon_http_responses_1xx_rate_meter_count gauge",
            "marathon_http_responses_1xx_rate_meter_count 0",
            "marathon_http_responses_1xx_rate_meter_mean_rate 0.0",
            "marathon_http_responses_1xx_rate_meter_m15_rate 0.0",
            "# TYPE marathon_http_requests_put_duration_timer_seconds summary",
            "marathon_http_requests_put_duration_timer_seconds{quantile=\"0.999\"} 0.000000",
            "marathon_http_requests_put_duration_timer_seconds_count 0",
            "marathon_http_requests_put_duration_timer_seconds_stddev 0.0",
            "marathon_mesos_task_updates_task_gone_by_operator_counter 0",
        ] {
            assert!(lines.contains(&line), "{line}\n{text}");
        }
    }
}
