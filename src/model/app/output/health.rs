//! Writes `healthChecks` and `readinessChecks`: every default, and of what may be absent only what was given.

use serde_json::{Value, json};

use super::Fields;
use crate::model::health::{CheckProtocol, HealthCheck, ReadinessCheck};

/// One entry of `healthChecks`, also as events show it.
pub fn health_check(check: &HealthCheck) -> Value {
    let mut fields = Fields::default();
    fields.set("gracePeriodSeconds", check.grace_seconds);
    fields.set_some("command", check.command.as_ref().map(|value| json!({ "value": value })));
    // Only those that Marathon runs know of it.
    let is_own_http = matches!(check.protocol, CheckProtocol::Http | CheckProtocol::Https);
    fields.set_some("ignoreHttp1xx", is_own_http.then_some(check.ignore_http_1xx));
    fields.set("intervalSeconds", check.interval_seconds);
    fields.set("maxConsecutiveFailures", check.max_consecutive_failures);
    fields.set_some("path", check.path.clone());
    fields.set_some("port", check.port);
    fields.set_some("portIndex", check.port_index);
    fields.set("protocol", check.protocol.as_str());
    fields.set("ipProtocol", if check.ipv6 { "IPv6" } else { "IPv4" });
    fields.set("timeoutSeconds", check.timeout_seconds);
    fields.set("delaySeconds", check.delay_seconds);
    Value::Object(fields.0)
}

pub(super) fn readiness_check(check: &ReadinessCheck) -> Value {
    json!({
        "name": check.name,
        "protocol": if check.https { "HTTPS" } else { "HTTP" },
        "path": check.path,
        "portName": check.port_name,
        "intervalSeconds": check.interval_seconds,
        "timeoutSeconds": check.timeout_seconds,
        "httpStatusCodesForReady": check.ready_codes,
        "preserveLastResponse": check.preserve_last_response,
    })
}
