//! Results of checks. Facts (Marathon 1.11): a check without a counted result is not listed; times and causes are absent until there is one.
//!
//! A run from which nothing was concluded is told in `lastFailureCause`, because a key that Marathon never sends breaks clients with typed models.

use serde_json::{Value, json};

use crate::{
    api::access::Seen,
    core::state::Reading,
    model::{
        health::CheckState,
        id::PathId,
        instance::Instance,
    },
};

use super::object;

/// `healthCheckResults` of a task.
pub fn results(seen: &Seen, instance: &Instance) -> Value {
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
