//! Reads `healthChecks`, `readinessChecks` and `check`. A health check that names neither a port nor a place gets the first place, as in Marathon.

use super::{
    MAX_SECONDS,
    reader::{Reader, Violations},
};
use crate::model::{
    health::{Check, CheckKind, CheckPort, CheckProtocol, HealthCheck, ReadinessCheck},
    pod::Command,
};

/// The most characters of a path or URI.
const MAX_PATH: usize = 1024;

pub(super) fn read_health_check(check: &Reader<'_>) -> Option<HealthCheck> {
    if !check.is_object() {
        return None;
    }
    let protocols = CheckProtocol::ALL.map(|protocol| (protocol.as_str(), protocol));
    let protocol = check.get("protocol").map_or(Some(CheckProtocol::Http), |protocol| protocol.choice(&protocols));
    let ipv6 = check.get("ipProtocol").map_or(Some(false), |ip| ip.choice(&[("IPv4", false), ("IPv6", true)]));
    // `Some(None)`: there is one that cannot be read.
    let value = |command: Reader<'_>| command.required("value").and_then(|value| value.text());
    let command = check.get("command").map(|command| if command.is_object() { value(command) } else { None });
    let path = check.get("path").and_then(|path| path.text());
    let port = |key: &str| check.get(key).and_then(|port| port.port());
    let (port, port_index) = (port("port"), port("portIndex"));
    let read = HealthCheck {
        protocol: protocol.unwrap_or(CheckProtocol::Http),
        path,
        port,
        port_index: port_index.or((port.is_none() && protocol != Some(CheckProtocol::Command)).then_some(0)),
        command: command.clone().flatten(),
        argv: Vec::new(),
        grace_seconds: seconds(check, "gracePeriodSeconds", 300),
        interval_seconds: seconds(check, "intervalSeconds", 60),
        timeout_seconds: seconds(check, "timeoutSeconds", 20),
        max_consecutive_failures: seconds(check, "maxConsecutiveFailures", 3),
        delay_seconds: seconds(check, "delaySeconds", 15),
        ignore_http_1xx: check.get("ignoreHttp1xx").and_then(|ignore| ignore.boolean()).unwrap_or_default(),
        ipv6: ipv6.unwrap_or_default(),
    };
    (protocol.is_some() && ipv6.is_some() && command != Some(None)).then_some(read)
}

pub(super) fn read_readiness_check(check: &Reader<'_>) -> Option<ReadinessCheck> {
    if !check.is_object() {
        return None;
    }
    let text = |key: &str, default: &str| check.get(key).map_or(Some(default.to_owned()), |value| value.text());
    let https = check.get("protocol").map_or(Some(false), |scheme| scheme.choice(&[("HTTP", false), ("HTTPS", true)]));
    let codes = check.get("httpStatusCodesForReady").map_or(Some(vec![200]), |codes| codes.set(read_code));
    let (name, path) = (text("name", "readinessCheck"), text("path", "/"));
    let port_name = check.get("portName").map_or(Some("http-api".to_owned()), |name| name.name(usize::MAX, false));
    let read = ReadinessCheck {
        name: name?,
        https: https?,
        path: path?,
        port_name: port_name?,
        interval_seconds: seconds(check, "intervalSeconds", 30),
        timeout_seconds: seconds(check, "timeoutSeconds", 10),
        ready_codes: codes?,
        preserve_last_response: check.get("preserveLastResponse").and_then(|keep| keep.boolean()).unwrap_or_default(),
    };
    Some(read)
}

/// A generic check, of an app or of a pod's container. `port` reads which port the object of a page or a connection names.
pub(in crate::model) fn read_check(
    check: &Reader<'_>,
    refused: &Violations,
    port: impl Fn(&Reader<'_>) -> Option<CheckPort>,
) -> Option<Check> {
    if !check.is_object() {
        return None;
    }
    let (interval_seconds, timeout_seconds) =
        (seconds(check, "intervalSeconds", 60), seconds(check, "timeoutSeconds", Check::DEFAULT_TIMEOUT_SECONDS));
    let delay_seconds = seconds(check, "delaySeconds", 15);
    let kind = match (check.get("http"), check.get("tcp"), check.get("exec")) {
        (Some(http), None, None) => read_http(&http, port),
        (None, Some(tcp), None) if tcp.is_object() => port(&tcp).map(|port| CheckKind::Tcp { port }),
        (None, None, Some(exec)) if exec.is_object() => {
            let command = exec.required("command").and_then(|command| read_command(&command));
            command.map(|command| CheckKind::Exec { command })
        }
        (None, Some(_), None) | (None, None, Some(_)) => None,
        _ => {
            refused.add(check.path(), "illegal RAML Check: expected one of http, tcp or exec checks");
            None
        }
    };
    Some(Check { kind: kind?, interval_seconds, timeout_seconds, delay_seconds })
}

fn read_http(http: &Reader<'_>, port: impl Fn(&Reader<'_>) -> Option<CheckPort>) -> Option<CheckKind> {
    if !http.is_object() {
        return None;
    }
    let https = http.get("scheme").map_or(Some(false), |scheme| scheme.choice(&[("HTTP", false), ("HTTPS", true)]));
    let (path, port) = (http.get("path").and_then(|path| path_text(&path)), port(http));
    Some(CheckKind::Http { https: https?, path, port: port? })
}

/// Of an app.
pub(super) fn read_port(asked: &Reader<'_>) -> Option<CheckPort> {
    let port = |key: &str| asked.get(key).and_then(|port| port.port());
    Some(CheckPort { port: port("port"), port_index: port("portIndex") })
}

/// Exactly one of `shell` and `argv`.
pub(in crate::model) fn read_command(command: &Reader<'_>) -> Option<Command> {
    if !command.is_object() {
        return None;
    }
    match (command.get("shell"), command.get("argv")) {
        (Some(shell), None) => shell.some_text().map(Command::Shell),
        (None, Some(argv)) => {
            let words = argv.list(Reader::text)?;
            if words.is_empty() {
                argv.reject("error.minLength");
                return None;
            }
            Some(Command::Argv(words))
        }
        _ => {
            command.reject("error.invalid");
            None
        }
    }
}

/// A text of 1 to 1024 characters.
pub(in crate::model) fn path_text(text: &Reader<'_>) -> Option<String> {
    let found = text.some_text()?;
    if found.chars().count() > MAX_PATH {
        text.reject("error.maxLength");
    }
    Some(found)
}

fn seconds(check: &Reader<'_>, key: &str, default: u32) -> u32 {
    check.get(key).and_then(|seconds| seconds.whole(MAX_SECONDS)).unwrap_or(default)
}

fn read_code(code: &Reader<'_>) -> Option<u16> {
    let number = code.whole(999)?;
    if number < 100 {
        code.reject("error.min");
    }
    u16::try_from(number).ok()
}
