//! `/metrics` and `/metrics/prometheus`, for administrators and for users who read nothing else: they tell of everybody.
//!
//! Facts (Marathon 1.11): Dropwizard's JSON with `version` 4.0.0; names begin with `--metrics_name_prefix`; the text of Prometheus is 404 with
//! `--disable_metrics_prometheus`.

use super::{Api, ApiError, ApiResult, Call, Seen, answer, origin, reads_only};
use crate::{
    metrics,
    model::{
        id::PathId,
        instance::Condition,
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
    let (mut apps, mut pods, mut running, mut staged, mut killing) = (0, 0, 0, 0, 0);
    let mut groups = std::collections::BTreeSet::from([PathId::root()]);
    for app in seen.apps().chain(seen.pods()) {
        *(if app.pod.is_some() { &mut pods } else { &mut apps }) += 1;
        let mut group = app.id.parent();
        while groups.insert(group.clone()) {
            group = group.parent();
        }
        let Some(tally) = seen.tally(&app.id) else { continue };
        running += tally.running();
        staged += tally.staged();
        killing += tally.leaving(Condition::is_live) + tally.in_condition(Condition::Killing);
    }
    let deployments = seen.deployments().count() as u32;
    [
        ("apps.active.gauge", apps),
        ("pods.active.gauge", pods),
        ("groups.active.gauge", groups.len() as u32),
        ("deployments.active.gauge", deployments),
        ("instances.running.gauge", running),
        ("instances.staged.gauge", staged),
        ("instances.inflight-kills.gauge", killing),
    ]
    .map(|(name, count)| (name, f64::from(count)))
    .to_vec()
}

#[cfg(test)]
mod tests {
    use crate::{
        api::testing::{Server, World, app},
        model::instance::Condition,
    };

    #[tokio::test]
    async fn gauges_are_of_the_present_snapshot() {
        let mut world = World::default();
        world.app(app("/shop/web")).app(app("/shop/db")).instance("/shop/web", 1, Condition::Running, &[31_001]);
        world.instance("/shop/db", 2, Condition::Staging, &[]);
        let server = Server::new(world);
        let body: serde_json::Value = serde_json::from_str(&server.ask("GET /metrics", "").await.body).unwrap();
        for (name, expected) in [("apps.active", 2.0), ("groups.active", 2.0), ("instances.running", 1.0), ("instances.staged", 1.0)] {
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
