//! What makes a readable definition acceptable: Marathon's rules with Marathon's texts, the rules of bricks, host volumes and `@PORT`, and limits.
//!
//! Pure, and about one definition alone. What depends on other apps, claims, bricks or groups is decided where those are known.

mod checks;
mod linux;
pub mod pattern;
mod pods;
mod secrets;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{Arguments, Display},
};

use crate::{
    core::allotment::token,
    model::{
        app::{
            App, BrickVolume, Constraint, Container, ContainerKind, DVDI, DVDI_DRIVER, Docker, Env, EnvValue, ExternalVolume, Fetch, Mode,
            Network, Operator, PersistentVolume, PortMapping, PortNumber, Protocol, UnreachableStrategy, Volume, input::is_single_instance,
        },
        artifact::{MAX_URI_BYTES, is_uri, sandbox_path},
        brick::normal_container_path,
        host_volume::HostVolumeRule,
        id::{Owner, RESERVED_SEGMENTS},
        request::Violation,
        resources::{ResourceLimit, ResourceLimits, Scalar},
    },
};

/// Instances of one app.
pub const MAX_INSTANCES: u32 = 100_000;
/// Variables of `env`, and labels of one kind.
pub const MAX_ENTRIES: usize = 1000;
/// Port definitions or mappings; also one more than the highest index of `@PORT`.
pub const MAX_PORTS: usize = 100;
/// Constraints, volumes, Docker parameters, networks, roles.
pub const MAX_ITEMS: usize = 100;
/// Arguments.
pub const MAX_ARGS: usize = 1000;
/// Bytes of a command, an argument, or a variable with its name: what Linux takes at most.
pub const MAX_TEXT_BYTES: usize = 128 * 1024 - 1;
/// GPUs of one instance.
pub const MAX_GPUS: u32 = 1000;

/// CPUs, MiB of memory, MiB of disk: far beyond any machine, and exact.
pub const MAX_AMOUNT: Scalar = Scalar::whole(1_000_000_000_000);
/// MiB of a brick: room for a file system.
pub const MIN_BRICK_SIZE: u64 = 16;
/// MiB of a brick: 64 TiB.
pub const MAX_BRICK_SIZE: u64 = 64 * 1024 * 1024;
/// Bytes of a pool's name.
pub const MAX_POOL_NAME_BYTES: usize = 63;

/// Who asks, and what the rules depend on besides the definition.
#[derive(Clone, Copy, Debug)]
pub struct Ctx<'a> {
    /// Privileged containers may be used.
    pub privileged: bool,
    /// Raw Docker parameters may be used.
    pub docker_parameters: bool,
    /// The role of apps that name none (`--mesos_role`).
    pub default_role: &'a str,
    /// The role that the app has already, before an update.
    pub existing_role: Option<&'a str>,
    /// The role that the top-level group prescribes.
    pub enforced_role: Option<&'a str>,
    /// Which paths of a node may be mapped.
    pub host_volumes: &'a HostVolumeRule,
    /// Secrets may be named.
    pub secrets: bool,
    /// Whose they have to be; `None`: anybody's.
    pub secrets_of: Option<&'a Owner>,
    /// What has no image can have another network than the node's.
    pub command_networks: bool,
}

/// Everything that is wrong with `app`; nothing: it is acceptable.
pub fn app(app: &App, ctx: Ctx<'_>) -> Vec<Violation> {
    let mut found = Found(Vec::new());
    id(app, &mut found);
    if let Some(pod) = &app.pod {
        roles(app, ctx, &mut found);
        networks(app, &mut found);
        command_networks(app, ctx, &mut found);
        strategies(app, &mut found);
        pods::check(app, pod, ctx, &mut found);
        return found.0;
    }
    what_runs(app, &mut found);
    amounts(app, &mut found);
    limits(app, &mut found);
    secrets::defined(app, ctx, &mut found);
    passable_env("/env", &app.env, &mut found);
    secrets::env("/env", &app.env, app, ctx, &mut found);
    check_sandbox_files("/fetch", &app.fetch, &mut found);
    roles(app, ctx, &mut found);
    for (index, constraint) in app.constraints.iter().enumerate() {
        found.check(format!("/constraints({index})"), check_constraint(constraint));
    }
    port_definitions(app, &mut found);
    networks(app, &mut found);
    command_networks(app, ctx, &mut found);
    strategies(app, &mut found);
    labels(app, &mut found);
    if let Some(found_container) = &app.container {
        container(app, found_container, ctx, &mut found);
    }
    bricks(app, &mut found);
    externals(app, &mut found);
    residency(app, &mut found);
    checks::health(app, &mut found);
    checks::readiness(app, &mut found);
    checks::generic(app, &mut found);
    found.0
}

struct Found(Vec<Violation>);

/// Paths and texts are put together only for what is wrong: nearly always that is nothing.
impl Found {
    fn add(&mut self, path: impl Display, text: impl Display) {
        self.0.push(Violation::new(path.to_string(), text.to_string()));
    }

    fn unless(&mut self, fine: bool, path: impl Display, text: impl Display) {
        if !fine {
            self.add(path, text);
        }
    }

    fn check(&mut self, path: impl Display, result: Result<(), String>) {
        if let Err(text) = result {
            self.add(path, text);
        }
    }

    fn at_most(&mut self, path: impl Display, count: usize, max: usize) {
        self.unless(count <= max, path, format_args!("must have at most {max} entries"));
    }

    /// Texts that reach a program's arguments or environment.
    fn passable(&mut self, path: impl Display, bytes: usize, text: &str) {
        self.unless(!text.contains('\0'), &path, "must not contain a NUL character");
        self.unless(bytes <= MAX_TEXT_BYTES, &path, format_args!("must have at most {MAX_TEXT_BYTES} bytes"));
    }
}

fn id(app: &App, found: &mut Found) {
    let last = app.id.segments().next_back();
    found.unless(last.is_some(), "/id", "Path must contain at least one path element");
    let reserved = last.is_some_and(|last| RESERVED_SEGMENTS.contains(&last));
    found.unless(!reserved, "/id", "must not end with any of the following reserved keywords: restart, tasks, versions, ., ..");
}

fn what_runs(app: &App, found: &mut Found) {
    let (cmd, args) = (app.cmd.is_some(), !app.args.is_empty());
    let has_image = app.container.as_ref().is_some_and(|container| container.docker.is_some());
    found.unless(
        cmd != args || !(cmd && args) && has_image,
        "/",
        "AppDefinition must either contain one of 'cmd' or 'args', and/or a 'container'.",
    );
    if let Some(cmd) = &app.cmd {
        found.unless(!cmd.is_empty(), "/cmd", "must not be empty");
        found.passable("/cmd", cmd.len(), cmd);
    }
    for (index, arg) in app.args.iter().enumerate() {
        found.passable(format_args!("/args({index})"), arg.len(), arg);
    }
    if let Some(user) = &app.user {
        found.passable("/user", user.len(), user);
    }
    // A path would be Mesos' custom executor.
    found.unless(matches!(app.executor.as_str(), "" | "//cmd"), "/executor", "custom executors are not supported yet");
}

fn amounts(app: &App, found: &mut Found) {
    found.unless(app.cpus >= Scalar(1), "/cpus", format_args!("got {}, expected 0.001 or more", app.cpus));
    for (path, amount) in [("/cpus", app.cpus), ("/mem", app.mem), ("/disk", app.disk)] {
        found.unless(amount <= MAX_AMOUNT, path, format_args!("got {amount}, expected {MAX_AMOUNT} or less"));
    }
    let docker = app.container.as_ref().is_some_and(|container| container.kind == ContainerKind::Docker);
    found.unless(app.gpus == 0 || !docker, "/", "GPU resources only work with the Mesos containerizer");
    resource_limits("/resourceLimits", app.resource_limits.as_ref(), app.cpus, app.mem, found);
    found.unless(app.gpus <= MAX_GPUS, "/gpus", format_args!("got {}, expected {MAX_GPUS} or less", app.gpus));
    found.unless(app.instances <= MAX_INSTANCES, "/instances", format_args!("got {}, expected {MAX_INSTANCES} or less", app.instances));
    found.unless(app.backoff.factor >= 1.0, "/backoffFactor", format_args!("got {:?}, expected 1.0 or more", app.backoff.factor));
}

/// Marathon's text, but for the upper end.
fn resource_limits(at: impl Display, limits: Option<&ResourceLimits>, cpus: Scalar, mem: Scalar, found: &mut Found) {
    let Some(limits) = limits else { return };
    for (name, limit, request) in [("cpus", limits.cpus, cpus), ("mem", limits.mem, mem)] {
        let Some(ResourceLimit::At(limit)) = limit else { continue };
        let request_text = request.as_f64();
        let text = format_args!("resource limit must be greater than or equal to requested resource ({request_text:?})");
        found.unless(limit >= request, format_args!("{at}/{name}"), text);
        found.unless(limit <= MAX_AMOUNT, format_args!("{at}/{name}"), format_args!("got {limit}, expected {MAX_AMOUNT} or less"));
    }
}

fn limits(app: &App, found: &mut Found) {
    found.at_most("/args", app.args.len(), MAX_ARGS);
    found.at_most("/labels", app.labels.len(), MAX_ENTRIES);
    found.at_most("/constraints", app.constraints.len(), MAX_ITEMS);
    found.at_most("/portDefinitions", app.port_definitions.len(), MAX_PORTS);
    found.at_most("/acceptedResourceRoles", app.accepted_resource_roles.as_ref().map_or(0, Vec::len), MAX_ITEMS);
    if let Some(container) = &app.container {
        found.at_most("/container/portMappings", container.port_mappings.len(), MAX_PORTS);
        found.at_most("/container/volumes", container.volumes.len(), MAX_ITEMS);
        let parameters = container.docker.as_ref().map_or(0, |docker| docker.parameters.len());
        found.at_most("/container/docker/parameters", parameters, MAX_ITEMS);
    }
    if let Network::Container(networks) = &app.network {
        found.at_most("/networks", networks.len(), MAX_ITEMS);
    }
    found.at_most("/networks(0)/labels", app.bridge_labels.len(), MAX_ENTRIES);
}

fn passable_env(at: &str, env: &Env, found: &mut Found) {
    found.at_most(at, env.len(), MAX_ENTRIES);
    for (index, (name, value)) in env.iter().enumerate() {
        let key = format_args!("{at}/keys({index})");
        found.unless(!name.is_empty(), key, "must not be empty");
        found.unless(!name.contains('='), key, "must not contain '='");
        found.unless(!name.contains('\0'), key, "must not contain a NUL character");
        let EnvValue::Text(text) = value else { continue };
        found.passable(format_args!("{at}/{name}"), name.len() + 1 + text.len(), text);
        let highest = token::tokens(text).max().map_or(0, usize::from);
        found.unless(highest < MAX_PORTS, format_args!("{at}/{name}"), format_args!("the index of @PORT must be less than {MAX_PORTS}"));
    }
}

/// Marathon asks no more of a URI than that it is one. Where it leads in the sandbox is ours.
fn check_sandbox_files(at: &str, files: &[Fetch], found: &mut Found) {
    found.at_most(at, files.len(), MAX_ITEMS);
    for (index, fetch) in files.iter().enumerate() {
        let path = format!("{at}({index})/uri");
        found.unless(is_uri(&fetch.uri), path.clone(), "URI has invalid syntax.");
        found.unless(fetch.uri.len() <= MAX_URI_BYTES, path, format!("must have at most {MAX_URI_BYTES} bytes"));
        if let Some(name) = &fetch.dest_path {
            found.check(format!("{at}({index})/destPath"), sandbox_path(name).map(drop));
        }
    }
}

fn roles(app: &App, ctx: Ctx<'_>, found: &mut Found) {
    let segments: Vec<&str> = app.id.segments().take(2).collect();
    let group_role = if segments.len() > 1 { segments.first().copied() } else { None };
    let mut valid: Vec<&str> = Vec::new();
    let default_role = if ctx.enforced_role.is_some() { None } else { Some(ctx.default_role) };
    for role in [default_role, group_role, ctx.existing_role].into_iter().flatten() {
        if !valid.contains(&role) {
            valid.push(role);
        }
    }
    found.unless(valid.contains(&app.role.as_str()), "/role", format_args!("got {}, expected one of: [{}]", app.role, valid.join(", ")));
    if let Some(accepted) = &app.accepted_resource_roles {
        found.unless(!accepted.is_empty(), "/acceptedResourceRoles", "must not be empty");
        let mut names = vec!["*", app.role.as_str()];
        names.dedup();
        let known = accepted.iter().all(|role| names.contains(&role.as_str()));
        let text = format_args!("acceptedResourceRoles can only contain {}", names.join(" and "));
        found.unless(known, "/acceptedResourceRoles", text);
        let is_open = accepted.iter().all(|role| role == "*");
        let text =
            format_args!("A resident {} must have `acceptedResourceRoles = [\"*\"]`.", if app.pod.is_some() { "pod" } else { "app" });
        found.unless(is_open || !app.is_resident(), "/acceptedResourceRoles", text);
    }
}

fn check_constraint(constraint: &Constraint) -> Result<(), String> {
    let value = constraint.value.as_deref();
    let is_number = |value: &str| value.parse::<i32>().is_ok();
    let fine = |fine: bool, text: &str| if fine { Ok(()) } else { Err(text.to_owned()) };
    match constraint.operator {
        Operator::Unique => fine(value.is_none(), "UNIQUE does not accept a value"),
        Operator::Cluster => Ok(()),
        Operator::GroupBy => fine(value.is_none_or(is_number), "GROUP BY must define an integer value or else no value at all"),
        Operator::MaxPer => fine(value.is_some_and(is_number), "MAX_PER requires an integer value"),
        Operator::Like | Operator::Unlike => {
            let pattern = value.ok_or("LIKE and UNLIKE require a non-empty, regular expression value")?;
            fine(pattern::Pattern::read(pattern).is_ok(), "is not a valid regular expression")
        }
        Operator::Is => {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_/.-".contains(&byte);
            fine(value.unwrap_or_default().bytes().all(plain), IS_TEXT)
        }
    }
}

const IS_TEXT: &str =
    "IS only supports Mesos text and float values (see http://mesos.apache.org/documentation/latest/attributes-resources/)";

fn port_definitions(app: &App, found: &mut Found) {
    let fixed = app.port_definitions.iter().map(|definition| definition.port.number()).filter(|&port| port != 0);
    found.unless(are_unique(fixed), "/portDefinitions", "Ports must be unique.");
    let names = app.port_definitions.iter().filter_map(|definition| definition.name.as_ref());
    found.unless(are_unique(names), "/portDefinitions", "Port names must be unique.");
    for (index, definition) in app.port_definitions.iter().enumerate() {
        found.at_most(format_args!("/portDefinitions({index})/labels"), definition.labels.len(), MAX_ENTRIES);
    }
}

fn networks(app: &App, found: &mut Found) {
    match &app.network {
        Network::Host | Network::Bridge => {}
        Network::Container(networks) => {
            found.unless(!networks.is_empty(), "/networks", "Network name must be specified when container network is selected.");
            found.unless(are_unique(networks.iter().map(|network| &network.name)), "/networks", "Duplicate networks are not allowed");
            let uses_docker = app.container.as_ref().is_some_and(|container| container.kind == ContainerKind::Docker);
            let text = "may only specify a single container network when using the Docker container engine";
            found.unless(!uses_docker || networks.len() <= 1, "/", text);
        }
    }
}

/// True when something of it has no image and is to have another network than the node's.
pub fn has_command_network(app: &App) -> bool {
    app.network != Network::Host
        && app.pod.as_ref().map_or_else(|| is_command(app), |pod| pod.containers.iter().any(|one| one.image.is_none()))
}

fn is_command(app: &App) -> bool {
    app.container.as_ref().is_none_or(|container| container.docker.is_none())
}

/// What Mesos could do by its network plugins, and this node's processes cannot.
fn command_networks(app: &App, ctx: Ctx<'_>, found: &mut Found) {
    if ctx.command_networks || !has_command_network(app) {
        return;
    }
    let Some(pod) = &app.pod else {
        let text = "a command without an image has the node's network: ask for host networking, or name a container.docker.image";
        return found.add("/networks", text);
    };
    for (index, _) in pod.containers.iter().enumerate().filter(|(_, container)| container.image.is_none()) {
        let text = "a container without an image has the node's network: ask for host networking, or name an image";
        found.add(format_args!("/containers({index})"), text);
    }
}

fn strategies(app: &App, found: &mut Found) {
    let strategy = &app.upgrade_strategy;
    let capacities = [
        ("/upgradeStrategy/minimumHealthCapacity", strategy.minimum_health_capacity),
        ("/upgradeStrategy/maximumOverCapacity", strategy.maximum_over_capacity),
    ];
    for (path, capacity) in capacities.into_iter().filter(|_| is_single_instance(app)) {
        found.unless(capacity == 0.0, path, format_args!("got {capacity:?}, expected 0.0"));
    }
    if let UnreachableStrategy::Enabled { inactive_after_seconds: inactive, expunge_after_seconds: expunge } = app.unreachable_strategy {
        let text = format_args!("inactiveAfterSeconds ({inactive}) must be less or equal to expungeAfterSeconds, which is {expunge}");
        found.unless(inactive <= expunge, "/unreachableStrategy/inactiveAfterSeconds", text);
    }
}

fn labels(app: &App, found: &mut Found) {
    let one = !is_single_instance(app) || app.instances <= 1;
    found.unless(one, "/", "Single instance app may only have one instance");
    let label = |name: &str| app.labels.get(name).map(String::as_str).filter(|value| !value.is_empty());
    if let Some(version) = label("DCOS_MIGRATION_API_VERSION") {
        let complete = version == "v1" && label("DCOS_PACKAGE_FRAMEWORK_NAME").is_some() && label("DCOS_MIGRATION_API_PATH").is_some();
        let text = "DCOS_PACKAGE_FRAMEWORK_NAME and DCOS_MIGRATION_API_PATH must be defined when using DCOS_MIGRATION_API_VERSION";
        found.unless(complete, "/", text);
    }
}

fn container(app: &App, container: &Container, ctx: Ctx<'_>, found: &mut Found) {
    match (&container.docker, container.kind) {
        (Some(docker), kind) => {
            check_docker(docker, kind, ctx, found);
            match kind {
                ContainerKind::Docker => {
                    let text = "pullConfig is not supported with Docker containerizer";
                    found.unless(docker.pull_config.is_none(), "/container/docker/pullConfig", text);
                }
                ContainerKind::Mesos => secrets::pull_config("/container/docker/pullConfig", docker.pull_config.as_ref(), app, ctx, found),
            }
        }
        (None, ContainerKind::Docker) => found.add("/container/docker", "not defined"),
        (None, ContainerKind::Mesos) => {}
    }
    port_mappings(app, &container.port_mappings, found);
    for (index, volume) in container.volumes.iter().enumerate() {
        check_volume(format_args!("/container/volumes({index})"), volume, container.kind, ctx, found);
    }
    secrets::volumes(app, container, ctx, found);
    if let Some(info) = &container.linux_info {
        linux::of_app("/container/linuxInfo", info, ctx, found);
    }
    container_paths(container, found);
}

fn check_docker(docker: &Docker, kind: ContainerKind, ctx: Ctx<'_>, found: &mut Found) {
    found.unless(!docker.image.is_empty(), "/container/docker/image", "must not be empty");
    let printable = docker.image.chars().all(|letter| !letter.is_whitespace() && !letter.is_control());
    found.unless(printable, "/container/docker/image", "must not contain blanks or control characters");
    for (path, used, allowed) in [
        ("/container/docker/parameters", !docker.parameters.is_empty(), ctx.docker_parameters),
        ("/container/docker/privileged", docker.privileged, ctx.privileged),
    ] {
        found.unless(!used || kind == ContainerKind::Docker, path, "must be empty");
        found.unless(!used || allowed, path, "may be used by administrators only, unless one of them grants it");
    }
    for (index, (key, value)) in docker.parameters.iter().enumerate() {
        found.passable(format_args!("/container/docker/parameters({index})/key"), key.len(), key);
        found.passable(format_args!("/container/docker/parameters({index})/value"), value.len(), value);
    }
}

fn port_mappings(app: &App, mappings: &[PortMapping], found: &mut Found) {
    const PATH: &str = "/container/portMappings";
    found.unless(are_unique(mappings.iter().filter_map(|mapping| mapping.name.as_ref())), PATH, "Port names must be unique.");
    found.unless(are_unique(mappings.iter().flat_map(fixed_host_ports)), PATH, "Host ports must be unique for each protocol.");
    let networks: &[_] = if let Network::Container(networks) = &app.network { networks } else { &[] };
    let names: Vec<&str> = networks.iter().map(|network| network.name.as_str()).collect();
    for (index, mapping) in mappings.iter().enumerate() {
        found.at_most(format_args!("{PATH}({index})/labels"), mapping.labels.len(), MAX_ENTRIES);
        found.at_most(format_args!("{PATH}({index})/networkNames"), mapping.network_names.len(), MAX_ITEMS);
        let ambiguous = names.len() > 1 && mapping.host_port.is_some() && mapping.network_names.len() != 1;
        let text = "networkNames must be a single item list when hostPort is specified and more than 1 container network is defined";
        found.unless(!ambiguous, format_args!("{PATH}({index})"), text);
        for (at, name) in mapping.network_names.iter().enumerate() {
            let known = names.contains(&name.as_str());
            found.unless(known, format_args!("{PATH}({index})/networkNames({at})"), format_args!("is not one of ({})", names.join(",")));
        }
    }
}

/// The host ports that a mapping names itself, with each protocol.
fn fixed_host_ports(mapping: &PortMapping) -> impl Iterator<Item = (u16, &'static str)> {
    let port = match mapping.host_port {
        Some(PortNumber::Fixed(port) | PortNumber::Allotted(port)) => Some(port),
        Some(PortNumber::Dynamic | PortNumber::Wanted) | None => None,
    };
    let protocols: &[&str] = Protocol::each(mapping.protocol);
    port.into_iter().flat_map(move |port| protocols.iter().map(move |&protocol| (port, protocol)))
}

fn check_volume(path: Arguments<'_>, volume: &Volume, kind: ContainerKind, ctx: Ctx<'_>, found: &mut Found) {
    match volume {
        Volume::Persistent(volume) => return check_persistent(path, volume, found),
        Volume::External(volume) => return check_external(path, volume, kind, found),
        Volume::Secret { container_path, .. } if !container_path.starts_with('/') => {
            return in_sandbox(format_args!("{path}/containerPath"), container_path, found);
        }
        Volume::Host { .. } | Volume::Brick(_) | Volume::Shared { .. } | Volume::Secret { .. } => {}
    }
    let container_path = match volume {
        // As in Mesos: in the sandbox.
        Volume::Host { container_path, .. } if !container_path.starts_with('/') => sandbox_path(container_path),
        _ => normal_container_path(volume.container_path()).map_err(|error| error.to_string()),
    };
    found.check(format_args!("{path}/containerPath"), container_path.map(drop));
    match volume {
        Volume::Persistent(_) | Volume::External(_) | Volume::Secret { .. } => {}
        Volume::Host { host_path, .. } => {
            if let Err(error) = ctx.host_volumes.check(host_path) {
                found.add(format_args!("{path}/hostPath"), error.to_string());
            }
        }
        Volume::Brick(brick) => check_brick(path, brick, found),
        Volume::Shared { .. } => found.add(path, "only pods have volumes that containers share"),
    }
}

/// Marathon's texts, but for the upper limits.
fn check_persistent(path: Arguments<'_>, volume: &PersistentVolume, found: &mut Found) {
    in_sandbox(format_args!("{path}/containerPath"), &volume.container_path, found);
    found.unless(volume.mode == Mode::Rw, format_args!("{path}/mode"), "does not equal RW");
    check_persistent_size(path, volume, found);
}

fn check_persistent_size(path: Arguments<'_>, volume: &PersistentVolume, found: &mut Found) {
    found.unless(volume.size > 0, format_args!("{path}/persistent/size"), format_args!("got {}, expected more than 0", volume.size));
    let text = format_args!("got {}, expected at most {MAX_BRICK_SIZE} MiB", volume.size);
    found.unless(volume.size <= MAX_BRICK_SIZE, format_args!("{path}/persistent/size"), text);
}

/// The name of a volume in the sandbox.
fn in_sandbox(path: Arguments<'_>, name: &str, found: &mut Found) {
    found.unless(!name.contains('/'), path, "value must not contain \"/\"");
    found.unless(!matches!(name, "." | ".."), path, "can not be one of (.,..)");
    let fine = name.len() <= 255 && !name.chars().any(char::is_control);
    found.unless(fine, path, "must have at most 255 bytes and no control characters");
}

/// Marathon's rules (`DVDIProvider`), and limits. What a name says is the driver's affair, as long as Docker's paths can hold it.
fn check_external(path: Arguments<'_>, volume: &ExternalVolume, kind: ContainerKind, found: &mut Found) {
    let container_path = format_args!("{path}/containerPath");
    match volume.container_path.starts_with('/') {
        true => found.check(container_path, normal_container_path(&volume.container_path).map(drop).map_err(|error| error.to_string())),
        false => in_sandbox(container_path, &volume.container_path, found),
    }
    let name = volume.name.as_str();
    found.unless(!name.is_empty(), format_args!("{path}/external/name"), "must not be empty");
    let fine = name.len() <= 255 && !name.chars().any(|letter| letter.is_control() || letter == '/') && !matches!(name, "." | "..");
    let text = "must be no path, and have at most 255 bytes and no control characters";
    found.unless(fine, format_args!("{path}/external/name"), text);
    match volume.provider.as_str() {
        DVDI => {}
        "" => found.add(format_args!("{path}/external/provider"), "not defined"),
        _ => found.add(format_args!("{path}/external/provider"), "is unknown provider"),
    }
    found.unless(volume.size != Some(0), format_args!("{path}/external/size"), "got 0, expected more than 0");
    check_driver_options(path, volume, found);
    match kind {
        ContainerKind::Mesos => found.unless(volume.mode == Mode::Rw, format_args!("{path}/mode"), "does not equal RW"),
        ContainerKind::Docker => {
            let only_driver = volume.options.keys().all(|key| key == DVDI_DRIVER);
            found.unless(only_driver, format_args!("{path}/external/options"), format_args!("must only contain {DVDI_DRIVER}"));
            found.unless(volume.size.is_none(), format_args!("{path}/external/size"), "must be undefined for Docker containers");
        }
    }
}

fn check_driver_options(path: Arguments<'_>, volume: &ExternalVolume, found: &mut Found) {
    let options = &volume.options;
    found.at_most(format_args!("{path}/external/options"), options.len(), MAX_ENTRIES);
    for (index, (key, value)) in options.iter().enumerate() {
        let text = format_args!("must match regular expression '{OPTION_PATTERN}'");
        found.unless(is_option_name(key), format_args!("{path}/external/options/keys({index})"), text);
        found.passable(format_args!("{path}/external/options/{key}"), key.len() + value.len(), value);
    }
    let driver = format_args!("{path}/external/options(\"{DVDI_DRIVER}\")");
    match options.get(DVDI_DRIVER) {
        None if volume.provider != DVDI => {}
        None => found.add(driver, "not defined"),
        Some(name) => found.unless(is_label(name), driver, format_args!("must match regular expression '{LABEL_PATTERN}'")),
    }
    if volume.driver() != "rexray" {
        return;
    }
    for (key, value) in options {
        let at = format_args!("{path}/external/options/\"{key}\"");
        match key.as_str() {
            "dvdi/volumetype" | "dvdi/newfstype" => {
                found.unless(is_label(value), at, format_args!("must match regular expression '{LABEL_PATTERN}'"));
            }
            "dvdi/iops" => {
                let text = format_args!("Expected a valid, positive integer instead of {value}");
                found.unless(value.parse::<i64>().is_ok_and(|number| number > 0), at, text);
            }
            "dvdi/overwritefs" => {
                let is_boolean = value.eq_ignore_ascii_case("true") || value.eq_ignore_ascii_case("false");
                found.unless(is_boolean, at, "Expected a valid boolean");
            }
            _ => {}
        }
    }
}

const LABEL_PATTERN: &str = "^[a-z0-9](?:[-a-z0-9]*[a-z0-9])?$";
const OPTION_PATTERN: &str = r"^[a-z0-9](?:[-a-z0-9]*[a-z0-9])?/[A-Za-z0-9](?:[-A-Za-z0-9\._:]*[A-Za-z0-9])?$";

/// As [`LABEL_PATTERN`] has it.
fn is_label(text: &str) -> bool {
    is_word(text, |byte| byte.is_ascii_lowercase() || byte.is_ascii_digit(), b"-")
}

/// As [`OPTION_PATTERN`] has it.
fn is_option_name(text: &str) -> bool {
    text.split_once('/').is_some_and(|(space, name)| is_label(space) && is_word(name, |byte| byte.is_ascii_alphanumeric(), b"-._:"))
}

/// Letters at both ends; within, some other characters too.
fn is_word(text: &str, is_letter: fn(&u8) -> bool, within: &[u8]) -> bool {
    let bytes = text.as_bytes();
    let ends = [bytes.first(), bytes.last()];
    ends.iter().all(|end| end.is_some_and(is_letter)) && bytes.iter().all(|byte| is_letter(byte) || within.contains(byte))
}

fn check_brick(path: Arguments<'_>, brick: &BrickVolume, found: &mut Found) {
    let text = format_args!("got {}, expected {MIN_BRICK_SIZE} to {MAX_BRICK_SIZE} MiB", brick.size);
    found.unless((MIN_BRICK_SIZE..=MAX_BRICK_SIZE).contains(&brick.size), format_args!("{path}/brick/size"), text);
    let pool = brick.pool.as_str().as_bytes();
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
    let fine = pool.len() <= MAX_POOL_NAME_BYTES && pool.first().is_some_and(u8::is_ascii_alphanumeric) && pool.iter().all(plain);
    let text = format_args!(
        "must begin with a letter or digit, consist of letters, digits, '-', '_' and '.', and have at most {MAX_POOL_NAME_BYTES} characters"
    );
    found.unless(fine, format_args!("{path}/brick/pool"), text);
}

/// Each path in the container holds one volume.
fn container_paths(container: &Container, found: &mut Found) {
    let mut earlier = BTreeSet::new();
    for (index, volume) in container.volumes.iter().enumerate() {
        let path = match volume {
            Volume::Persistent(volume) => Some(volume.container_path.clone()),
            Volume::External(volume) if !volume.container_path.starts_with('/') => Some(volume.container_path.clone()),
            Volume::Secret { container_path, .. } if !container_path.starts_with('/') => Some(container_path.clone()),
            Volume::Host { container_path, .. } if !container_path.starts_with('/') => sandbox_path(container_path).ok(),
            other => normal_container_path(other.container_path()).ok(),
        };
        let Some(path) = path else { continue };
        let at = format_args!("/container/volumes({index})/containerPath");
        found.unless(!earlier.contains(&path), at, format_args!("'{path}' is used by another volume"));
        earlier.insert(path);
    }
}

fn bricks(app: &App, found: &mut Found) {
    if app.bricks().next().is_none() {
        return;
    }
    found.unless(app.instances <= 1, "/instances", "apps with a brick can have at most one instance");
    let strategy = &app.upgrade_strategy;
    let zero = strategy.minimum_health_capacity == 0.0 && strategy.maximum_over_capacity == 0.0;
    let text = "apps with a brick need minimumHealthCapacity 0 and maximumOverCapacity 0: only one instance can hold the brick";
    found.unless(zero, "/upgradeStrategy", text);
}

fn externals(app: &App, found: &mut Found) {
    let mut earlier = BTreeMap::new();
    for volume in app.external_volumes() {
        let alone = earlier.insert(&volume.name, volume.shared).is_none_or(|shared| shared && volume.shared);
        let text = format_args!("Requested DVDI volume '{}' is declared more than once within app {}", volume.name, app.id);
        found.unless(alone, "/", text);
    }
    let count = app.external_volumes().count();
    if count == 0 {
        return;
    }
    found.unless(earlier.len() == count, "/container/volumes", "Volume names must be unique");
    let text = format_args!("Number of instances is limited to 1 when declaring DVDI volumes in app [{}]", app.id);
    found.unless(app.instances <= 1, "/", text);
    let over = app.upgrade_strategy.maximum_over_capacity;
    if !app.is_resident() {
        found.unless(over == 0.0, "/upgradeStrategy/maximumOverCapacity", format_args!("got {over:?}, expected 0.0"));
    }
}

/// Facts (Marathon 1.11): there a role other than `*` is asked for too, because Mesos reserves for roles. The embedded engine's volumes need none.
fn residency(app: &App, found: &mut Found) {
    if !app.is_resident() {
        return;
    }
    let over = app.upgrade_strategy.maximum_over_capacity;
    let path = "/upgradeStrategy/maximumOverCapacity";
    found.unless(over == 0.0 || is_single_instance(app), path, format_args!("got {over:?}, expected 0.0"));
    let is_disabled = app.unreachable_strategy == UnreachableStrategy::Disabled;
    found.unless(is_disabled, "/", "unreachableStrategy must be disabled for resident tasks");
    found.unless(app.bricks().next().is_none(), "/container/volumes", "an app has either bricks or persistent volumes");
}

/// What an update of an app or pod with persistent volumes may not change: its volumes are where its resources are.
pub fn resident_update(from: &App, to: &App) -> Vec<Violation> {
    const RESOURCES: &str = "Services with persistent volumes configured may not change resource requirements. \
                             If you need to make this change, please create a new service.";
    const PORTS: &str = "Services with persistent volumes configured may not change host ports. \
                         If you need to make this change, please create a new service.";
    let mut found = Found(Vec::new());
    if !from.is_resident() && !to.is_resident() {
        return found.0;
    }
    let volumes =
        |app: &App| app.persistent_volumes().cloned().map(|volume| (volume.container_path.clone(), volume)).collect::<BTreeMap<_, _>>();
    let ports = |app: &App| {
        let mapped = app.port_mappings().iter().filter_map(|mapping| mapping.host_port);
        app.port_definitions.iter().map(|definition| definition.port).chain(mapped).map(PortNumber::number).collect::<BTreeSet<_>>()
    };
    let (has_same_volumes, has_same_ports) = (volumes(from) == volumes(to), ports(from) == ports(to));
    let amounts =
        [("cpus", from.cpus == to.cpus), ("mem", from.mem == to.mem), ("disk", from.disk == to.disk), ("gpus", from.gpus == to.gpus)];
    if to.pod.is_some() {
        found.unless(has_same_volumes, "/", "persistent volumes cannot be updated");
        for (name, is_same) in amounts {
            found.unless(is_same, "/", format_args!("{name} cannot be updated if a pod has persistent volumes"));
        }
        found.unless(has_same_ports, "/", "host ports cannot be updated if a pod has persistent volumes");
        return found.0;
    }
    found.unless(has_same_volumes, "/", "Persistent volumes can not be changed!");
    for (name, is_same) in amounts {
        found.unless(is_same, format_args!("/{name}"), RESOURCES);
    }
    found.unless(from.require_ports == to.require_ports, "/requirePorts", RESOURCES);
    found.unless(has_same_ports, "/", PORTS);
    found.0
}

fn are_unique<T: Ord>(items: impl IntoIterator<Item = T>) -> bool {
    let mut seen = BTreeSet::new();
    items.into_iter().all(|item| seen.insert(item))
}

#[cfg(test)]
mod tests;
