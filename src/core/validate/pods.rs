//! The rules of pods: Marathon's, with its texts (also the misspelled one), and limits.

use std::collections::BTreeSet;

use super::{
    Ctx, Found, MAX_AMOUNT, MAX_ENTRIES, MAX_GPUS, MAX_INSTANCES, MAX_ITEMS, MAX_PORTS, are_unique, check_constraint,
    check_persistent_size, check_sandbox_files, linux, passable_env, resource_limits, secrets,
};
use crate::model::{
    app::{App, PortNumber, UnreachableStrategy},
    brick::normal_container_path,
    pod::{Pod, PodContainer},
};

/// Containers of one pod.
pub const MAX_CONTAINERS: usize = 50;

pub(super) fn check(app: &App, pod: &Pod, ctx: Ctx<'_>, found: &mut Found) {
    limits(app, pod, found);
    if let Some(user) = &app.user {
        found.unless(!user.is_empty(), "/user", "must not be empty");
        found.passable("/user", user.len(), user);
    }
    passable_env("/environment", &app.env, found);
    secrets::env("/environment", &app.env, app, ctx, found);
    secrets::defined(app, ctx, found);
    secrets::volumes_of_pod(app, ctx, found);
    pod.linux_info.iter().for_each(|info| linux::of_pod(info, found));
    volumes(app, pod, ctx, found);
    residency(app, found);
    found.unless(!pod.containers.is_empty(), "/containers", "must not be empty");
    let names = pod.containers.iter().map(|container| &container.name);
    found.unless(are_unique(names), "/containers", "container names must be unique");
    for (at, container) in pod.containers.iter().enumerate() {
        let path = format!("/containers({at})");
        check_container(&path, pod, container, found);
        secrets::env(&format!("{path}/environment"), &container.environment, app, ctx, found);
        let pull_config = container.image.as_ref().and_then(|image| image.pull_config.as_ref());
        secrets::pull_config(format_args!("{path}/image/pullConfig"), pull_config, app, ctx, found);
        linux::of_container(format_args!("{path}/linuxInfo"), container, app, ctx, found);
    }
    for (at, constraint) in app.constraints.iter().enumerate() {
        let path = format!("/scheduling/placement/constraints({at})");
        if constraint.field.is_empty() {
            found.add(path, "missing field for constraint declaration");
        } else {
            found.check(path, check_constraint(constraint));
        }
    }
    endpoints(app, found);
    for (at, check) in app.health_checks.iter().enumerate() {
        let Some(place) = pod.containers.iter().enumerate().filter(|(_, container)| container.has_health_check).nth(at) else { continue };
        let path = format!("/containers({})/healthCheck", place.0);
        check.command.iter().for_each(|command| found.passable(format!("{path}/exec/command"), command.len(), command));
        check.argv.iter().for_each(|word| found.passable(format!("{path}/exec/command"), word.len(), word));
        super::checks::path(format_args!("{path}/http/path"), check.path.as_deref().unwrap_or_default(), found);
    }
}

fn limits(app: &App, pod: &Pod, found: &mut Found) {
    for (path, amount) in [("cpus", app.cpus), ("mem", app.mem), ("disk", app.disk)] {
        let text = format_args!("all containers together want {amount} {path}, which is more than {MAX_AMOUNT}");
        found.unless(amount <= MAX_AMOUNT, "/containers", text);
    }
    found.unless(app.gpus <= MAX_GPUS, "/containers", format_args!("all containers together want more than {MAX_GPUS} gpus"));
    let text = format_args!("got {}, expected {MAX_INSTANCES} or less", app.instances);
    found.unless(app.instances <= MAX_INSTANCES, "/scaling/instances", text);
    let text = format_args!("got {:?}, expected 1.0 or more", app.backoff.factor);
    found.unless(app.backoff.factor >= 1.0, "/scheduling/backoff/backoffFactor", text);
    found.at_most("/containers", pod.containers.len(), MAX_CONTAINERS);
    found.at_most("/volumes", pod.volumes.len(), MAX_ITEMS);
    found.at_most("/labels", app.labels.len(), MAX_ENTRIES);
    found.at_most("/scheduling/placement/constraints", app.constraints.len(), MAX_ITEMS);
    let roles = app.accepted_resource_roles.as_ref().map_or(0, Vec::len);
    found.at_most("/scheduling/placement/acceptedResourceRoles", roles, MAX_ITEMS);
    found.at_most("/containers", app.port_definitions.len().max(app.port_mappings().len()), MAX_PORTS);
}

fn volumes(app: &App, pod: &Pod, ctx: Ctx<'_>, found: &mut Found) {
    found.unless(are_unique(pod.volumes.iter().map(|volume| &volume.name)), "/volumes", "volume names must be unique");
    let mounted: BTreeSet<&str> =
        pod.containers.iter().flat_map(|container| &container.volume_mounts).map(|mount| mount.name.as_str()).collect();
    for (at, volume) in pod.volumes.iter().enumerate() {
        let used = mounted.contains(volume.name.as_str());
        found.unless(used, format_args!("/volumes({at})"), "volume must be referenced by at least one container");
        if let Some(host) = &volume.host
            && let Err(error) = ctx.host_volumes.check(host)
        {
            found.add(format_args!("/volumes({at})/host"), error.to_string());
        }
        if let Some(persistent) = app.persistent_volume(&volume.name) {
            check_persistent_size(format_args!("/volumes({at})"), persistent, found);
        }
    }
}

/// Facts (Marathon 1.11): as of apps, a role other than `*` is asked for there; a size of 0 is let through, and never placed.
fn residency(app: &App, found: &mut Found) {
    if !app.is_resident() {
        return;
    }
    let over = app.upgrade_strategy.maximum_over_capacity;
    found.unless(over == 0.0, "/upgrade/maximumOverCapacity", format_args!("got {over:?}, expected 0.0"));
    let is_disabled = app.unreachable_strategy == UnreachableStrategy::Disabled;
    found.unless(is_disabled, "/", "unreachableStrategy must be disabled for pods with persistent volumes");
}

fn check_container(path: &str, pod: &Pod, container: &PodContainer, found: &mut Found) {
    let limits = format_args!("{path}/resourceLimits");
    resource_limits(limits, container.resource_limits.as_ref(), container.amounts.cpus, container.amounts.mem, found);
    let clash = pod.legacy_shared_cgroups && container.resource_limits.is_some();
    found.unless(!clash, limits, "resourceLimits cannot be defined if legacySharedCgroups is enabled");
    found.at_most(format_args!("{path}/labels"), container.labels.len(), MAX_ENTRIES);
    found.at_most(format_args!("{path}/volumeMounts"), container.volume_mounts.len(), MAX_ITEMS);
    if let Some(user) = &container.user {
        found.passable(format_args!("{path}/user"), user.len(), user);
    }
    passable_env(&format!("{path}/environment"), &container.environment, found);
    check_sandbox_files(&format!("{path}/artifacts"), &container.artifacts, found);
    if let Some(exec) = &container.exec {
        super::checks::words(&format!("{path}/exec/command"), &exec.command, found);
    }
    if let Some(check) = &container.check {
        super::checks::asked(&format!("{path}/check"), check, found);
    }
    if let Some(image) = &container.image {
        found.at_most(format_args!("{path}/image/labels"), image.labels.len(), MAX_ENTRIES);
        let printable = image.id.chars().all(|letter| !letter.is_whitespace() && !letter.is_control());
        found.unless(printable, format_args!("{path}/image/id"), "must not contain blanks or control characters");
    }
    let mut earlier = BTreeSet::new();
    for (at, mount) in container.volume_mounts.iter().enumerate() {
        let at = format_args!("{path}/volumeMounts({at})");
        let known = pod.volumes.iter().any(|volume| volume.name == mount.name);
        found.unless(known, format_args!("{at}/name"), "Referenced Volume in VolumeMount should exist");
        match normal_container_path(&mount.path()) {
            Ok(path) => {
                found.unless(!earlier.contains(&path), format_args!("{at}/mountPath"), format_args!("'{path}' is used by another volume"));
                earlier.insert(path);
            }
            Err(error) => found.add(format_args!("{at}/mountPath"), error.to_string()),
        }
    }
}

/// Over all containers, because they share one network.
fn endpoints(app: &App, found: &mut Found) {
    let all = app.endpoints();
    found.unless(are_unique(all.iter().map(|one| one.name)), "/", "endpoint names nust be unique across all containers");
    let container_ports = all.iter().filter_map(|one| one.container_port).filter(|port| *port != 0);
    found.unless(are_unique(container_ports), "/", "container ports must be unique across all containers");
    let of_host = app.port_definitions.iter().map(|definition| definition.port);
    let mapped = app.port_mappings().iter().filter_map(|mapping| mapping.host_port);
    let host_ports = of_host.chain(mapped).map(PortNumber::number).filter(|port| *port != 0);
    found.unless(are_unique(host_ports), "/", "host ports must be unique across all containers");
    let labels = app.port_definitions.iter().map(|one| one.labels.len()).chain(app.port_mappings().iter().map(|one| one.labels.len()));
    found.at_most("/containers", labels.max().unwrap_or_default(), MAX_ENTRIES);
}

#[cfg(test)]
mod tests;
