//! `/metrics` and `/metrics/prometheus`, for administrators: they tell of everybody.
//!
//! Facts (Marathon 1.11): Dropwizard's JSON with `version` 4.0.0; names begin with `--metrics_name_prefix`; the text of Prometheus is 404 with
//! `--disable_metrics_prometheus`.

use super::{Api, ApiError, ApiResult, Call, Seen, answer, origin, reads_only, seen};
use crate::{
    metrics,
    model::{id::PathId, instance::Condition, request::RequestError},
};

pub fn route(api: &Api, call: &Call, rest: &[&str]) -> ApiResult {
    let is_text = match rest {
        [] => false,
        ["prometheus"] if api.info.metrics_prometheus => true,
        _ => return Err(ApiError::no_route()),
    };
    reads_only(call)?;
    if !origin(call).admin {
        return Err(RequestError::Forbidden.into());
    }
    let (counts, prefix) = (api.access.metrics(), api.info.metrics_prefix.as_str());
    let gauges = gauges(&seen(api, call));
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
        let text = server.ask("GET /metrics/prometheus", "").await;
        assert_eq!(text.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
        // The request before this one has been counted.
        assert!(text.body.contains("marathon_http_responses_2xx_rate_meter_count 1\n"), "{}", text.body);
    }
}
