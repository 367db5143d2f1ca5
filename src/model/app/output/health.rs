//! Writes `healthChecks`, `readinessChecks` and `check`: every default, and of what may be absent only what was given.

use serde_json::{Value, json};

use super::Fields;
use crate::model::{
    health::{Check, CheckKind, CheckPort, CheckProtocol, HealthCheck, ReadinessCheck},
    pod::output::command,
};

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

/// The generic check of an app.
pub(super) fn check(check: &Check) -> Value {
    generic_check(check, |fields, port| {
        fields.set_some("portIndex", port.port_index);
        fields.set_some("port", port.port);
    })
}

/// A generic check; `say_port` writes which port it asks.
pub(in crate::model) fn generic_check(check: &Check, say_port: impl Fn(&mut Fields, CheckPort)) -> Value {
    let mut asked = Fields::default();
    let name = match &check.kind {
        CheckKind::Http { https, path, port } => {
            say_port(&mut asked, *port);
            asked.set_some("path", path.clone());
            asked.set("scheme", if *https { "HTTPS" } else { "HTTP" });
            "http"
        }
        CheckKind::Tcp { port } => {
            say_port(&mut asked, *port);
            "tcp"
        }
        CheckKind::Exec { command: words } => {
            asked.set("command", command(words));
            "exec"
        }
    };
    let mut fields = Fields::default();
    fields.set(name, asked.0);
    fields.set("intervalSeconds", check.interval_seconds);
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
