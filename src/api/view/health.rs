//! Results of checks. Facts (Marathon 1.11): a check without a counted result is not listed; times and causes are absent until there is one. A generic
//! check without a result has no `checkResult`.
//!
//! A run from which nothing was concluded is told in `lastFailureCause`, because a key that Marathon never sends breaks clients with typed models.

use serde_json::{Value, json};

use super::object;
use crate::{
    api::access::Seen,
    core::state::Reading,
    model::{
        health::{CheckResult, CheckState},
        id::PathId,
        instance::Instance,
    },
};

/// `healthCheckResults` of a task.
pub fn results(seen: &Seen, instance: &Instance) -> Value {
    if instance.checks.is_empty() {
        return json!([]);
    }
    let readings = seen.readings(&instance.id);
    let none = Reading::default();
    let results = instance.checks.iter().enumerate().filter(|(_, state)| state.has_result()).map(|(at, state)| {
        let reading = readings.and_then(|readings| readings.checks.get(at)).unwrap_or(&none);
        result(instance, state, reading)
    });
    results.collect()
}

fn result(instance: &Instance, state: &CheckState, reading: &Reading) -> Value {
    let mut fields = object(json!({
        "alive": state.is_alive(),
        "consecutiveFailures": state.failures.max(reading.failures),
        "instanceId": instance.id,
    }));
    let mut set = |name: &str, value: Option<Value>| value.into_iter().for_each(|value| _ = fields.insert(name.into(), value));
    set("firstSuccess", state.first_success.map(|at| json!(at)));
    // After a restart of ours the first success is the last one that is known.
    set("lastSuccess", reading.last_success.or(state.first_success).map(|at| json!(at)));
    set("lastFailure", reading.last_failure.or(state.last_failure).map(|at| json!(at)));
    let cause = if reading.last_failure.is_some() { &reading.last_failure_cause } else { &state.last_failure_cause };
    let cause = match &reading.uncertain {
        Some((at, why)) => Some(format!("not counted, at {at}: {why}")),
        None => (!cause.is_empty()).then(|| cause.clone()),
    };
    set("lastFailureCause", cause.map(Value::from));
    Value::Object(fields)
}

/// `checkResult`: what the generic check of an app, which is in place 0, or of a pod's container found last.
pub fn generic(seen: &Seen, instance: &Instance, place: usize) -> Option<Value> {
    Some(match seen.readings(&instance.id)?.result(place)? {
        CheckResult::Http(status) => json!({ "http": { "statusCode": status } }),
        CheckResult::Tcp(succeeded) => json!({ "tcp": { "succeeded": succeeded } }),
        CheckResult::Exec(code) => json!({ "command": { "exitCode": code } }),
    })
}

/// `readinessCheckResults` of an app.
pub fn readiness(seen: &Seen, app: &PathId) -> Value {
    let Some(check) = seen.app(app).and_then(|app| app.readiness_checks.first()) else { return json!([]) };
    let answers = seen.instances_of(app).filter_map(|instance| Some((instance, seen.readings(&instance.id)?.readiness.as_ref()?)));
    let results = answers.map(|(instance, answer)| {
        let mut fields = object(json!({ "name": check.name, "taskId": instance.task(), "ready": answer.ready }));
        if check.preserve_last_response {
            let response = json!({ "status": answer.status, "contentType": answer.content_type, "body": answer.body });
            fields.insert("lastResponse".into(), response);
        }
        Value::Object(fields)
    });
    results.collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        api::testing::{Server, World, app, at},
        core::state::Readings,
        model::{
            health::{CheckProtocol, HealthCheck, ReadinessAnswer, ReadinessCheck},
            instance::Condition,
            record::Record,
            time::Instant,
        },
        store::samples::health_check,
    };

    /// `/web` with two checks and a readiness check, three instances that run: well, unwell, and not asked yet.
    fn world() -> World {
        let mut world = World::default();
        let mut web = app("/web");
        web.0.health_checks = vec![
            HealthCheck { path: Some("/ping".into()), port_index: Some(0), ..health_check(CheckProtocol::Http) },
            HealthCheck { port: Some(99), ..health_check(CheckProtocol::Tcp) },
        ];
        web.0.readiness_checks = vec![ReadinessCheck {
            name: "ready".into(),
            https: false,
            path: "/".into(),
            port_name: "default".into(),
            interval_seconds: 30,
            timeout_seconds: 10,
            ready_codes: vec![200],
            preserve_last_response: true,
        }];
        world.app(web);
        let alive = CheckState { first_success: Some(at(20)), ..CheckState::default() };
        let dead = CheckState { failures: 2, last_failure: Some(at(40)), last_failure_cause: "connection refused".into(), ..alive.clone() };
        for (number, checks) in [(1, vec![alive.clone(), alive.clone()]), (2, vec![alive.clone(), dead]), (3, Vec::new())] {
            world.instance("/web", number, Condition::Running, &[31_000 + number as u16]);
            let id = crate::model::id::InstanceId::new("/web".parse().unwrap(), uuid::Uuid::from_u128(number));
            let instance = Instance::clone(&world.view.tables.instances[&id]);
            let healthy = crate::model::health::overall(&checks, 2);
            world.put(Record::Instance(Instance { checks, healthy, ..instance }.into()));
            let first = Reading { last_success: Some(at(50)), ..Reading::default() };
            let second =
                Reading { uncertain: Some((at(60), "this machine could not ask: too many open files".into())), ..Reading::default() };
            let answer = ReadinessAnswer { ready: number == 1, status: 200, content_type: "text/plain".into(), body: "yes".into() };
            let readings =
                Readings { since: Instant(0), checks: vec![first, second], readiness: (number < 3).then_some(answer), results: Vec::new() };
            world.view.readings.insert(id, Arc::new(readings));
        }
        world
    }

    #[test]
    fn statistics_count_the_well_and_the_unwell() {
        let view = world().view;
        let seen = Seen::all_of(&view);
        let app = seen.app(&"/web".parse().unwrap()).unwrap();
        let stats = super::super::task::stats(&seen, app, at(100));
        assert_eq!(stats["totalSummary"]["stats"]["counts"], json!({"staged": 0, "running": 3, "healthy": 1, "unhealthy": 1}));
    }

    #[tokio::test]
    async fn bodies_are_marathons() {
        let mut deploying = world();
        deploying.deployment("deployment-1", "/web");
        for (name, world, line) in [
            ("tasks", world(), "GET /v2/apps/web/tasks"),
            ("app", world(), "GET /v2/apps/web?embed=app.counts&embed=app.readiness"),
            ("app_in_deployment", deploying.clone(), "GET /v2/apps/web?embed=app.readiness"),
            ("deployments", deploying, "GET /v2/deployments"),
        ] {
            insta::assert_snapshot!(name, Server::new(world).ask(line, "").await.show());
        }
    }
}
