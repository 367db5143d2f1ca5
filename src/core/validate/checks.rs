//! The rules of `healthChecks`, `readinessChecks` and `check`: Marathon's, and limits.

use super::{Found, MAX_ARGS, MAX_ITEMS};
use crate::model::{
    app::{App, ContainerKind},
    health::{Check, CheckKind, CheckProtocol, HealthCheck, ReadinessCheck},
    pod::Command,
};

/// The most codes that mean "ready".
const MAX_CODES: usize = 100;

pub(super) fn health(app: &App, found: &mut Found) {
    found.at_most("/healthChecks", app.health_checks.len(), MAX_ITEMS);
    for (index, check) in app.health_checks.iter().enumerate() {
        let at = format_args!("/healthChecks({index})");
        let protocol = check.protocol.as_str();
        match (&check.command, check.protocol == CheckProtocol::Command) {
            (Some(_), false) => found.add(at, format_args!("illegal protocol {protocol} specified with command")),
            (None, true) => found.add(at, format_args!("illegal protocol {protocol} for non-command health check")),
            _ => {}
        }
        if let Some(command) = &check.command {
            found.unless(!command.is_empty(), format_args!("{at}/command/value"), "must not be empty");
            found.passable(format_args!("{at}/command/value"), command.len(), command);
        }
        let text = "Health check port indices must address an element of the ports array or container port mappings.";
        found.unless(port_exists(app, check), at, text);
        let both = check.port.is_some() && check.port_index.is_some();
        found.unless(!both, at, "HealthCheck must specify either a port or a portIndex");
        let of_container = matches!(check.protocol, CheckProtocol::MesosHttp | CheckProtocol::MesosHttps | CheckProtocol::MesosTcp);
        let is_docker = is_docker(app);
        let text = "IPv6 can only be used for container type DOCKER and Mesos http/https/tcp health checks";
        found.unless(!check.ipv6 || of_container && is_docker, at, text);
        path(format_args!("{at}/path"), check.path.as_deref().unwrap_or_default(), found);
    }
    let of_mesos = app.health_checks.iter().filter(|check| check.command.is_none() && check.protocol.is_mesos());
    found.unless(of_mesos.count() <= 1, "/", "AppDefinition can contain at most one Mesos health check");
}

/// Those that Mesos runs may name a port that is not declared.
fn port_exists(app: &App, check: &HealthCheck) -> bool {
    check.command.is_some() || check.protocol.is_mesos() || check.port_index.is_none_or(|index| usize::from(index) < port_count(app))
}

fn port_count(app: &App) -> usize {
    if app.port_mappings().is_empty() { app.port_definitions.len() } else { app.port_mappings().len() }
}

fn is_docker(app: &App) -> bool {
    app.container.as_ref().is_some_and(|container| container.kind == ContainerKind::Docker)
}

pub(super) fn generic(app: &App, found: &mut Found) {
    let Some(check) = &app.check else { return };
    found.unless(!is_docker(app), "/", "AppDefinition must not use 'checks' if using docker");
    if let Some(port) = check.port() {
        let count = port_count(app);
        let exists = port.port_index.map_or(port.port.is_some() || count == 1, |index| usize::from(index) < count);
        // The path is as odd as Marathon's: what it looks into is an option.
        let text = "check port index must address an element of the ports array or container port mappings.";
        found.unless(exists, "/check/get", text);
    }
    asked("/check", check, found);
}

/// What a generic check sends or runs.
pub(super) fn asked(at: &str, check: &Check, found: &mut Found) {
    match &check.kind {
        CheckKind::Http { path: asked, .. } => path(format_args!("{at}/http/path"), asked.as_deref().unwrap_or_default(), found),
        CheckKind::Tcp { .. } => {}
        CheckKind::Exec { command } => words(&format!("{at}/exec/command"), command, found),
    }
}

/// A command's.
pub(super) fn words(at: &str, command: &Command, found: &mut Found) {
    match command {
        Command::Shell(shell) => found.passable(format_args!("{at}/shell"), shell.len(), shell),
        Command::Argv(argv) => {
            found.at_most(format_args!("{at}/argv"), argv.len(), MAX_ARGS);
            for (place, word) in argv.iter().enumerate() {
                found.passable(format_args!("{at}/argv({place})"), word.len(), word);
            }
        }
    }
}

pub(super) fn readiness(app: &App, found: &mut Found) {
    let count = app.readiness_checks.len();
    found.unless(count <= 1, "/readinessChecks/size", format_args!("got {count}, expected 1 or less"));
    for (index, check) in app.readiness_checks.iter().enumerate() {
        let ReadinessCheck { interval_seconds: interval, timeout_seconds: timeout, .. } = check;
        let at = format_args!("/readinessChecks({index})");
        let text = format_args!("No port definition reference for portName {}", check.port_name);
        found.unless(port_names(app).any(|name| *name == check.port_name), format_args!("{at}/portName"), text);
        found.unless(timeout < interval, format_args!("{at}/timeoutSeconds"), format_args!("got {timeout}, expected less than {interval}"));
        found.at_most(format_args!("{at}/httpStatusCodesForReady"), check.ready_codes.len(), MAX_CODES);
        path(format_args!("{at}/path"), &check.path, found);
    }
}

fn port_names(app: &App) -> Box<dyn Iterator<Item = &String> + '_> {
    match app.port_mappings() {
        [] => Box::new(app.port_definitions.iter().filter_map(|definition| definition.name.as_ref())),
        mappings => Box::new(mappings.iter().filter_map(|mapping| mapping.name.as_ref())),
    }
}

/// It stands in the first line of a request.
pub(super) fn path(at: std::fmt::Arguments<'_>, path: &str, found: &mut Found) {
    found.passable(at, path.len(), path);
    found.unless(
        !path.chars().any(|letter| letter.is_whitespace() || letter.is_control()),
        at,
        "must not contain blanks or control characters",
    );
}
