//! `/metrics` and `/metrics/prometheus`, for administrators and for users who read nothing else: they tell of everybody.
//!
//! Facts (Marathon 1.11): Dropwizard's JSON with `version` 4.0.0; names begin with `--metrics_name_prefix`; the text of Prometheus is 404 with
//! `--disable_metrics_prometheus`.

use super::{Api, ApiError, ApiResult, Call, Seen, answer, origin, reads_only};
use crate::{
    metrics,
    model::{
        id::PathId,
        request::{Origin, RequestError},
    },
};

pub fn route(api: &Api, call: &Call, rest: &[&str]) -> ApiResult {
    let is_text = match rest {
        [] => false,
        ["prometheus"] if api.info.metrics_prometheus => true,
        _ => return Err(ApiError::no_route()),
    };
    reads_only(call)?;
    let origin = origin(call);
    if !origin.admin && !call.who.as_ref().is_some_and(|who| who.monitor) {
        return Err(RequestError::Forbidden.into());
    }
    let (counts, prefix) = (api.access.metrics(), api.info.metrics_prefix.as_str());
    // Sums over all, whoever may read them.
    let mut gauges = gauges(&api.access.seen(&Origin { admin: true, ..origin }));
    let streams = api.limits.event_streams.saturating_sub(api.streams.available_permits());
    gauges.push(("http.event-streams.active.gauge", streams as f64));
    Ok(if is_text {
        answer::text("text/plain; version=0.0.4; charset=utf-8", metrics::prometheus(counts, prefix, &gauges))
    } else {
        answer::ok(&metrics::json(counts, prefix, &gauges))
    })
}

fn gauges(seen: &Seen) -> Vec<(&'static str, f64)> {
    let (mut apps, mut pods, mut running, mut staged) = (0, 0, 0, 0);
    let mut groups = std::collections::BTreeSet::from([PathId::root()]);
    for app in seen.apps().chain(seen.pods()) {
        *(if app.pod.is_some() { &mut pods } else { &mut apps }) += 1;
        let mut group = app.id.parent();
        while groups.insert(group.clone()) {
            group = group.parent();
        }
        let (app_staged, app_running) = seen.staged_and_running(&app.id);
        (staged, running) = (staged + app_staged, running + app_running);
    }
    let deployments = seen.deployments().count() as u32;
    let mut gauges = [
        ("apps.active.gauge", apps),
        ("pods.active.gauge", pods),
        ("groups.active.gauge", groups.len() as u32),
        ("deployments.active.gauge", deployments),
        ("instances.running.gauge", running),
        ("instances.staged.gauge", staged),
    ]
    .map(|(name, count)| (name, f64::from(count)))
    .to_vec();
    gauges.push(("instances.inflight-kills.gauge", seen.kills_in_flight() as f64));
    gauges.push(("instances.inflight-kill-attempts.gauge", seen.kill_attempts() as f64));
    gauges.push(("instances.launch-overdue.gauge", seen.overdue() as f64));
    gauges
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use crate::{
        api::testing::{Server, World, app},
        model::instance::Condition,
    };

    #[tokio::test]
    async fn gauges_are_of_the_present_snapshot() {
        let mut world = World::default();
        (world.view.kills_in_flight, world.view.kill_attempts, world.view.overdue) = (4, 5, 3);
        world.app(app("/shop/web")).app(app("/shop/db")).instance("/shop/web", 1, Condition::Running, &[31_001]);
        world.instance("/shop/db", 2, Condition::Staging, &[]);
        let server = Server::new(world);
        let body: serde_json::Value = serde_json::from_str(&server.ask("GET /metrics", "").await.body).unwrap();
        for (name, expected) in [
            ("apps.active", 2.0),
            ("groups.active", 2.0),
            ("instances.running", 1.0),
            ("instances.staged", 1.0),
            ("instances.inflight-kills", 4.0),
            ("instances.inflight-kill-attempts", 5.0),
            ("instances.launch-overdue", 3.0),
        ] {
            assert_eq!(body["gauges"][format!("marathon.{name}.gauge")]["value"], expected, "{name}");
        }
        assert_eq!(server.ask_as("anna", "GET /metrics", "").await.status, 403);
        let watched = server.ask_as("watcher", "GET /metrics", "").await.json();
        assert_eq!(watched["gauges"]["marathon.apps.active.gauge"]["value"], 2.0);
        let text = server.ask("GET /metrics/prometheus", "").await;
        assert_eq!(text.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
        // The request before this one has been counted.
        assert!(text.body.contains("marathon_http_responses_2xx_rate_meter_count 2\n"), "{}", text.body);
    }

    const JVM: &str = "there is no Java machine";
    const VERSIONS: &str = "old versions go with the write that makes a new one: there are no runs";

    /// What Marathon 1.11 documents (with the endings that its program has), and why it is not here.
    const DOCUMENTED: [(&str, Option<&str>); 75] = [
        ("apps.active.gauge", None),
        ("deployments.active.gauge", None),
        ("deployments.counter", None),
        ("deployments.dismissed.counter", None),
        ("groups.active.gauge", None),
        ("instances.running.gauge", None),
        ("instances.staged.gauge", None),
        ("leadership.duration.gauge.seconds", None),
        ("persistence.gc.runs.counter", Some(VERSIONS)),
        ("persistence.gc.compaction.duration.timer.seconds", Some(VERSIONS)),
        ("persistence.gc.scan.duration.timer.seconds", Some(VERSIONS)),
        ("pods.active.gauge", None),
        ("tasks.launched.counter", None),
        ("uptime.gauge.seconds", None),
        ("instances.launch-overdue.gauge", None),
        ("instances.inflight-kills.gauge", None),
        ("instances.inflight-kill-attempts.gauge", None),
        ("mesos.calls.revive.counter", None),
        ("mesos.calls.suppress.counter", None),
        ("mesos.offer-operations.launch-group.counter", None),
        ("mesos.offer-operations.launch.counter", None),
        ("mesos.offer-operations.reserve.counter", None),
        ("mesos.offers.declined.counter", None),
        ("mesos.offers.incoming.counter", None),
        ("mesos.offers.used.counter", None),
        ("mesos.task-updates.task-running.counter", None),
        ("mesos.task-updates.task-failed.counter", None),
        ("mesos.task.oom.memory-limit-unfulfillable.counter", None),
        ("mesos.task.oom.memory-limit-exceeded.counter", None),
        ("http.responses.event-stream.size.counter.bytes", None),
        ("http.requests.size.counter.bytes", None),
        ("http.responses.size.counter.bytes", None),
        ("http.responses.size.gzipped.counter.bytes", None),
        ("http.requests.active.gauge", None),
        ("http.responses.1xx.rate.meter", None),
        ("http.responses.2xx.rate.meter", None),
        ("http.responses.3xx.rate.meter", None),
        ("http.responses.4xx.rate.meter", None),
        ("http.responses.5xx.rate.meter", None),
        ("http.requests.duration.timer.seconds", None),
        ("http.requests.get.duration.timer.seconds", None),
        ("http.requests.post.duration.timer.seconds", None),
        ("http.requests.put.duration.timer.seconds", None),
        ("http.requests.delete.duration.timer.seconds", None),
        ("jvm.buffers.mapped.gauge", Some(JVM)),
        ("jvm.buffers.mapped.capacity.gauge.bytes", Some(JVM)),
        ("jvm.buffers.mapped.memory.used.gauge.bytes", Some(JVM)),
        ("jvm.buffers.direct.gauge", Some(JVM)),
        ("jvm.buffers.direct.capacity.gauge.bytes", Some(JVM)),
        ("jvm.buffers.direct.memory.used.gauge.bytes", Some(JVM)),
        ("jvm.gc.<gc>.collections.gauge", Some(JVM)),
        ("jvm.gc.<gc>.collections.duraration.gauge.seconds", Some(JVM)),
        ("jvm.memory.total.init.gauge.bytes", Some(JVM)),
        ("jvm.memory.total.used.gauge.bytes", Some(JVM)),
        ("jvm.memory.total.max.gauge.bytes", Some(JVM)),
        ("jvm.memory.total.committed.gauge.bytes", Some(JVM)),
        ("jvm.memory.heap.init.gauge.bytes", Some(JVM)),
        ("jvm.memory.heap.used.gauge.bytes", Some(JVM)),
        ("jvm.memory.heap.max.gauge.bytes", Some(JVM)),
        ("jvm.memory.heap.committed.gauge.bytes", Some(JVM)),
        ("jvm.memory.heap.usage.gauge", Some(JVM)),
        ("jvm.memory.non-heap.init.gauge.bytes", Some(JVM)),
        ("jvm.memory.non-heap.used.gauge.bytes", Some(JVM)),
        ("jvm.memory.non-heap.max.gauge.bytes", Some(JVM)),
        ("jvm.memory.non-heap.committed.gauge.bytes", Some(JVM)),
        ("jvm.memory.non-heap.usage.gauge", Some(JVM)),
        ("jvm.threads.active.gauge", Some(JVM)),
        ("jvm.threads.daemon.gauge", Some(JVM)),
        ("jvm.threads.deadlocked.gauge", Some(JVM)),
        ("jvm.threads.new.gauge", Some(JVM)),
        ("jvm.threads.runnable.gauge", Some(JVM)),
        ("jvm.threads.blocked.gauge", Some(JVM)),
        ("jvm.threads.timed-waiting.gauge", Some(JVM)),
        ("jvm.threads.waiting.gauge", Some(JVM)),
        ("jvm.threads.terminated.gauge", Some(JVM)),
    ];

    /// What is counted besides: ours, and what Marathon has without documenting it.
    const BESIDES: [&str; 2] = ["persistence.commits.counter", "http.event-streams.active.gauge"];

    #[tokio::test]
    async fn what_marathon_documents_is_there_or_has_no_meaning_here() {
        let server = Server::new(World::default());
        let body = server.ask("GET /metrics", "").await.json();
        let sections = ["counters", "gauges", "histograms", "meters", "timers"];
        let shown: BTreeSet<String> = sections.iter().flat_map(|section| body[section].as_object().unwrap().keys().cloned()).collect();
        let text = server.ask("GET /metrics/prometheus", "").await.body;
        let in_text: BTreeSet<&str> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
        let mut known = BTreeSet::new();
        for (name, why_not) in DOCUMENTED {
            let name = format!("marathon.{name}");
            assert_eq!(shown.contains(&name), why_not.is_none(), "{name}");
            let series = name.replace(['.', '-'], "_");
            let is_there = in_text.iter().any(|line| line.strip_prefix(&series).is_some_and(|rest| rest.is_empty() || rest == "_count"));
            assert_eq!(is_there, why_not.is_none(), "{series}");
            assert!(known.insert(name.clone()), "{name} is listed twice");
        }
        known.extend(BESIDES.map(|name| format!("marathon.{name}")));
        let others: Vec<_> = shown.difference(&known).filter(|name| !name.starts_with("marathon.mesos.task-updates.")).collect();
        assert!(others.is_empty(), "not in the lists: {others:?}");
    }

    #[tokio::test]
    async fn names_begin_as_wanted_and_prometheus_may_be_shut_out() {
        let mut server = Server::new(World::default());
        server.inform(|info| info.metrics_prefix = "prod".to_owned());
        let text = server.ask("GET /metrics/prometheus", "").await.body;
        let mut names = text.lines().filter(|line| !line.starts_with('#'));
        assert!(text.contains("prod_apps_active_gauge") && names.all(|name| name.starts_with("prod_")), "{text}");
        let body = server.ask("GET /metrics", "").await.json();
        assert!(body["gauges"].as_object().unwrap().keys().all(|name| name.starts_with("prod.")), "{body}");
        server.inform(|info| info.metrics_prometheus = false);
        assert_eq!(server.ask("GET /metrics/prometheus", "").await.status, 404);
        assert_eq!(server.ask("GET /metrics", "").await.status, 200);
    }

    #[tokio::test]
    async fn who_reads_the_metrics_reads_nothing_else() {
        let mut world = World::default();
        world.app(app("/web"));
        let server = Server::new(world);
        let check = async |line: &str, body: &str, status: u16| {
            let answer = server.ask_as("watcher", line, body).await;
            assert_eq!(answer.status, status, "{line}: {}", answer.body);
        };
        for line in ["GET /metrics", "GET /metrics/prometheus", "GET /v2/auth/whoami"] {
            check(line, "", 200).await;
        }
        for line in [
            "GET /v2/apps",
            "GET /v2/apps/web",
            "GET /v2/info",
            "GET /v2/events",
            "GET /logging",
            "GET /config",
            "GET /v2/auth/users/watcher",
            "GET /nowhere",
        ] {
            check(line, "", 403).await;
        }
        for line in ["POST /v2/apps", "POST /metrics", "DELETE /v2/apps/web", "PUT /v2/auth/users/anna", "PUT /v2/apps/x"] {
            check(line, r#"{"id": "/x", "cmd": "x"}"#, 403).await;
        }
        // The own password may be changed; this body changes nothing.
        check("PUT /v2/auth/users/watcher", r#"{"passwort": ""}"#, 422).await;
    }
}
