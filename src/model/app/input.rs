//! Reads Marathon's app JSON: types, legacy forms, defaults. What cannot be read is a list of [`Violation`]s in Marathon's notation.
//!
//! Two steps, because Marathon answers them differently: [`AppInput::read`] finds wrong types ("Invalid JSON"), and [`AppInput::create`],
//! [`AppInput::update`] and [`AppInput::replace`] find what contradicts itself or is not supported ("Object is not valid"). What a definition
//! means on top of that is `core::validate`'s business.

pub(in crate::model) mod container;
pub(in crate::model) mod health;
pub(in crate::model) mod network;
pub(in crate::model) mod reader;

use indexmap::IndexMap;
use serde_json::Value;

use self::{
    container::ContainerInput,
    network::{IpAddressInput, NetworkInput},
    reader::{Reader, Violations},
};
use super::{
    App, Backoff, Constraint, Env, EnvValue, Fetch, KillSelection, Network, Operator, PortDefinition, PortNumber, Secret,
    UnreachableStrategy, UpgradeStrategy,
};
use crate::model::{
    artifact::{is_uri, names_archive},
    health::{Check, HealthCheck, ReadinessCheck},
    id::PathId,
    pod::{Amounts, input::EXECUTOR},
    port::token,
    request::{RequestError, Violation},
    resources::{ResourceLimit, ResourceLimits, Scalar},
    time::Timestamp,
};

/// `"@PORT"` in place of a number.
pub const WANTED_PORT: &str = "@PORT";

/// The label of an app that must never run twice.
pub const SINGLE_INSTANCE_LABEL: &str = "MARATHON_SINGLE_INSTANCE_APP";

/// The longest time that a definition may name, in seconds: Marathon's times are 32-bit integers.
pub const MAX_SECONDS: u32 = i32::MAX as u32;

/// App JSON whose types are right; not yet a complete definition. Legacy fields are still beside the present ones.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AppInput {
    id: Option<String>,
    version: Option<Timestamp>,
    /// A known key besides `id` and `version` was written.
    has_content: bool,
    /// What was written although nothing carries it out yet.
    unsupported: Vec<Violation>,
    cmd: Option<String>,
    args: Option<Vec<String>>,
    user: Option<String>,
    env: Option<Env>,
    secrets: Option<IndexMap<String, Secret>>,
    fetch: Option<Vec<Fetch>>,
    uris: Option<Vec<String>>,
    instances: Option<u32>,
    cpus: Option<Scalar>,
    mem: Option<Scalar>,
    disk: Option<Scalar>,
    gpus: Option<u32>,
    resource_limits: Option<ResourceLimits>,
    executor: Option<String>,
    constraints: Option<Vec<ConstraintInput>>,
    accepted_resource_roles: Option<Vec<String>>,
    role: Option<String>,
    labels: Option<IndexMap<String, String>>,
    container: Option<ContainerInput>,
    networks: Option<Vec<NetworkInput>>,
    ip_address: Option<IpAddressInput>,
    ports: Option<Vec<u16>>,
    port_definitions: Option<Vec<PortDefinition>>,
    require_ports: Option<bool>,
    backoff_initial_ms: Option<u64>,
    backoff_factor: Option<f64>,
    backoff_max_ms: Option<u64>,
    kill_grace_ms: Option<u64>,
    health_checks: Option<Vec<HealthCheck>>,
    readiness_checks: Option<Vec<ReadinessCheck>>,
    check: Option<Check>,
    kill_selection: Option<KillSelection>,
    upgrade_strategy: Option<UpgradeStrategy>,
    unreachable_strategy: Option<UnreachableStrategy>,
    dependencies: Option<Vec<String>>,
    tty: Option<bool>,
    executor_resources: Option<Amounts>,
    /// What relative paths are relative to; `None`: the root.
    base: Option<PathId>,
}

/// Field, operator as written, value; or what has too few or too many of them.
type ConstraintInput = Vec<String>;

/// What the server's settings contribute to a definition.
#[derive(Clone, Debug, PartialEq)]
pub struct Defaults {
    /// The role of an app that names none.
    pub role: String,
    /// The network of container mode without a name.
    pub network_name: Option<String>,
    /// The network that stands for bridge mode in `ipAddress` (`--mesos_bridge_name`).
    pub bridge_name: String,
}

impl Default for Defaults {
    fn default() -> Self {
        Self { role: "*".into(), network_name: None, bridge_name: "mesos-bridge".into() }
    }
}

impl AppInput {
    /// Checks the types of `value`. Unknown keys are ignored, as Marathon does; null is as good as absent.
    ///
    /// # Errors
    /// Wrong types, unknown enum values, numbers outside their range: Marathon's "Invalid JSON".
    pub fn read(value: &Value) -> Result<Self, Vec<Violation>> {
        let (violations, unsupported) = (Violations::default(), Violations::default());
        let input = read_app(&Reader::root(value, &violations), &unsupported);
        let violations = violations.into_list();
        if violations.is_empty() { Ok(Self { unsupported: unsupported.into_list(), ..input }) } else { Err(violations) }
    }

    /// The same, written in a group: relative paths are relative to it.
    #[must_use]
    pub fn within(&self, group: &PathId) -> Self {
        Self { base: Some(group.clone()), ..self.clone() }
    }

    /// The `id` that was written, unresolved.
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// `Some(version)` when the input, as a partial update, asks for a rollback: it holds `version`, and besides at most `id`.
    ///
    /// # Errors
    /// `version` beside other keys.
    pub fn rollback(&self) -> Result<Option<Timestamp>, RequestError> {
        if self.version.is_some() && self.has_content {
            let violation = Violation::new("/", "The 'version' field may only be combined with the 'id' field.");
            return Err(RequestError::Invalid(vec![violation]));
        }
        Ok(self.version)
    }

    /// A complete definition named `id`, absent keys at their defaults. `version`, `version_info` and what follows from who
    /// asks are left for the caller to set.
    ///
    /// # Errors
    /// What is contradictory or not supported: Marathon's "Object is not valid".
    pub fn create(&self, id: &PathId, defaults: &Defaults) -> Result<App, Vec<Violation>> {
        self.complete(blank(id, defaults), None, defaults)
    }

    /// `current` with the written keys replaced, each as a whole (Marathon's partial update). Ports that are allotted to `current` stay allotted
    /// where their own number is written.
    ///
    /// # Errors
    /// As for [`AppInput::create`].
    pub fn update(&self, current: &App, defaults: &Defaults) -> Result<App, Vec<Violation>> {
        let mut app = self.complete(current.clone(), Some(current), defaults)?;
        keep_allotted(&mut app, current);
        Ok(app)
    }

    /// A complete definition that takes the place of `current` (`partialUpdate=false`): absent keys return to their defaults, allotted ports stay
    /// allotted where their own number is written, and the version stays that of `current`.
    ///
    /// # Errors
    /// As for [`AppInput::create`].
    pub fn replace(&self, current: &App, defaults: &Defaults) -> Result<App, Vec<Violation>> {
        let mut app = self.create(&current.id, defaults)?;
        keep_allotted(&mut app, current);
        app.version = current.version;
        app.version_info = current.version_info;
        app.owner.clone_from(&current.owner);
        app.vouched = current.vouched;
        app.administered = current.administered;
        Ok(app)
    }

    /// `app` with what was written laid over it.
    fn complete(&self, mut app: App, current: Option<&App>, defaults: &Defaults) -> Result<App, Vec<Violation>> {
        let violations = Violations::default();
        for violation in &self.unsupported {
            violations.add(&violation.path, &violation.text);
        }
        self.lay_plain_fields_over(&mut app);
        match (&self.fetch, &self.uris) {
            (Some(fetch), Some(uris)) if !fetch.is_empty() && !uris.is_empty() => {
                violations.add("/uris", "may not be set in conjunction with fetch");
            }
            (_, Some(uris)) if !uris.is_empty() => app.fetch = uris.iter().map(|uri| of_uri(uri)).collect(),
            (Some(fetch), _) => app.fetch.clone_from(fetch),
            (None, _) => {}
        }
        // Those of an update are looked at as what they become, entries of `fetch`.
        for (index, uri) in self.uris.iter().flatten().enumerate().filter(|_| current.is_none()) {
            if !is_uri(uri) {
                violations.add(format!("/uris({index})"), "URI has invalid syntax.");
            }
        }
        if let Some(constraints) = &self.constraints {
            app.constraints = read_operators(constraints, &violations);
        }
        if let Some(dependencies) = &self.dependencies {
            app.dependencies = self.resolve(dependencies, &violations);
        }
        network::connect(self, &mut app, current, defaults, &violations);
        if app.is_resident() && self.unreachable_strategy.is_none() && !current.is_some_and(App::is_resident) {
            app.unreachable_strategy = UnreachableStrategy::Disabled;
        }
        app.upgrade_strategy = self.upgrade_strategy.unwrap_or_else(|| match current {
            None => default_upgrade_strategy(&app),
            Some(current) => kept_upgrade_strategy(current, &app),
        });
        let violations = violations.into_list();
        if violations.is_empty() { Ok(app) } else { Err(violations) }
    }

    fn resolve(&self, dependencies: &[String], violations: &Violations) -> Vec<PathId> {
        let root = PathId::root();
        let base = self.base.as_ref().unwrap_or(&root);
        let mut read = std::collections::BTreeSet::new();
        for (index, text) in dependencies.iter().enumerate() {
            match PathId::resolve(text, base) {
                Ok(id) => _ = read.insert(id),
                Err(error) => violations.add(format!("/dependencies({index})"), error.to_string()),
            }
        }
        read.into_iter().collect()
    }

    fn lay_plain_fields_over(&self, app: &mut App) {
        fn set<T: Clone>(field: &mut T, written: &Option<T>) {
            if let Some(written) = written {
                field.clone_from(written);
            }
        }
        set(&mut app.args, &self.args);
        set(&mut app.env, &self.env);
        set(&mut app.secrets, &self.secrets);
        set(&mut app.instances, &self.instances);
        set(&mut app.cpus, &self.cpus);
        set(&mut app.mem, &self.mem);
        set(&mut app.disk, &self.disk);
        set(&mut app.gpus, &self.gpus);
        set(&mut app.executor, &self.executor);
        set(&mut app.role, &self.role);
        set(&mut app.labels, &self.labels);
        set(&mut app.require_ports, &self.require_ports);
        set(&mut app.backoff.initial_ms, &self.backoff_initial_ms);
        set(&mut app.backoff.factor, &self.backoff_factor);
        set(&mut app.backoff.max_ms, &self.backoff_max_ms);
        set(&mut app.health_checks, &self.health_checks);
        set(&mut app.readiness_checks, &self.readiness_checks);
        set(&mut app.kill_selection, &self.kill_selection);
        set(&mut app.unreachable_strategy, &self.unreachable_strategy);
        if self.cmd.is_some() {
            app.cmd.clone_from(&self.cmd);
        }
        if let Some(user) = &self.user {
            app.user = (!user.is_empty()).then(|| user.clone());
        }
        if self.check.is_some() {
            app.check.clone_from(&self.check);
        }
        if self.accepted_resource_roles.is_some() {
            app.accepted_resource_roles.clone_from(&self.accepted_resource_roles);
        }
        app.kill_grace_ms = self.kill_grace_ms.or(app.kill_grace_ms);
        app.resource_limits = self.resource_limits.or(app.resource_limits);
        app.executor_resources = self.executor_resources.or(app.executor_resources);
        app.tty = self.tty.or(app.tty);
    }
}

/// Marathon's defaults.
pub(in crate::model) fn blank(id: &PathId, defaults: &Defaults) -> App {
    App {
        id: id.clone(),
        cmd: None,
        args: Vec::new(),
        user: None,
        env: Env::new(),
        secrets: IndexMap::new(),
        fetch: Vec::new(),
        instances: 1,
        cpus: Scalar::whole(1),
        mem: Scalar::whole(128),
        disk: Scalar::ZERO,
        gpus: 0,
        resource_limits: None,
        executor: String::new(),
        constraints: Vec::new(),
        accepted_resource_roles: None,
        role: defaults.role.clone(),
        labels: IndexMap::new(),
        container: None,
        network: Network::Host,
        bridge_labels: Default::default(),
        port_definitions: Vec::new(),
        require_ports: false,
        backoff: Backoff::default(),
        kill_grace_ms: None,
        dependencies: Vec::new(),
        health_checks: Vec::new(),
        readiness_checks: Vec::new(),
        check: None,
        kill_selection: KillSelection::default(),
        upgrade_strategy: UpgradeStrategy::default(),
        unreachable_strategy: UnreachableStrategy::default(),
        version: Timestamp::default(),
        version_info: None,
        owner: None,
        vouched: false,
        administered: false,
        tty: None,
        executor_resources: None,
        pod: None,
    }
}

/// 1/1; 0.5/0 where each instance needs its volumes; 0/0 where a new instance cannot start beside the old one, because a brick, a claimed port or its label
/// allow only one.
pub(in crate::model) fn default_upgrade_strategy(app: &App) -> UpgradeStrategy {
    let one_at_a_time = app.bricks().next().is_some() || wants_port(app) || is_single_instance(app);
    let (minimum_health_capacity, maximum_over_capacity) = match (one_at_a_time, app.is_replaced_in_place()) {
        (true, _) => (0.0, 0.0),
        (false, true) => (0.5, 0.0),
        (false, false) => (1.0, 1.0),
    };
    UpgradeStrategy { minimum_health_capacity, maximum_over_capacity }
}

/// An update that writes no strategy keeps the present one. But one that was only the default, and would not do any more, becomes the new default.
fn kept_upgrade_strategy(current: &App, app: &App) -> UpgradeStrategy {
    let (before, after) = (default_upgrade_strategy(current), default_upgrade_strategy(app));
    let is_default = current.upgrade_strategy == before;
    if is_default && after.maximum_over_capacity < before.maximum_over_capacity { after } else { current.upgrade_strategy }
}

/// True when the label says that the app must never run twice.
pub fn is_single_instance(app: &App) -> bool {
    app.pod.is_none() && app.labels.get(SINGLE_INSTANCE_LABEL).is_some_and(|value| value == "true")
}

fn wants_port(app: &App) -> bool {
    let is_claimed = |port: PortNumber| matches!(port, PortNumber::Wanted | PortNumber::Allotted(_));
    let in_env = |value: &EnvValue| matches!(value, EnvValue::Text(text) if token::tokens(text).next().is_some());
    app.env.values().any(in_env)
        || app.port_definitions.iter().any(|definition| is_claimed(definition.port))
        || app.port_mappings().iter().any(|mapping| mapping.host_port.is_some_and(is_claimed))
}

/// A number written where `current` has the same one allotted means that one.
fn keep_allotted(app: &mut App, current: &App) {
    let keep = |new: &mut PortNumber, old: PortNumber| {
        if let PortNumber::Allotted(port) = old
            && *new == PortNumber::Fixed(port)
        {
            *new = old;
        }
    };
    for (new, old) in app.port_definitions.iter_mut().zip(&current.port_definitions) {
        keep(&mut new.port, old.port);
    }
    let mappings = app.container.iter_mut().flat_map(|container| &mut container.port_mappings);
    for (new, old) in mappings.zip(current.port_mappings()) {
        if let (Some(new), Some(old)) = (&mut new.host_port, old.host_port) {
            keep(new, old);
        }
    }
}

fn read_operators(constraints: &[ConstraintInput], violations: &Violations) -> Vec<Constraint> {
    let mut read: Vec<Constraint> = Vec::new();
    for (index, constraint) in constraints.iter().enumerate() {
        let refuse = |text: &str| violations.add(format!("/constraints({index})"), text);
        let (field, operator, value) = match constraint.as_slice() {
            [field, operator] => (field, operator, None),
            [field, operator, value] => (field, operator, Some(value)),
            _ => {
                refuse("Each constraint must have either 2 or 3 fields");
                continue;
            }
        };
        if field.is_empty() {
            refuse("illegal constraint specification");
            continue;
        }
        let operator = match operator.to_ascii_uppercase().as_str() {
            "UNIQUE" => Operator::Unique,
            "CLUSTER" => Operator::Cluster,
            "GROUP_BY" => Operator::GroupBy,
            "LIKE" => Operator::Like,
            "UNLIKE" => Operator::Unlike,
            "MAX_PER" => Operator::MaxPer,
            "IS" => Operator::Is,
            _ => {
                refuse("operator must be one of the following UNIQUE, CLUSTER, GROUP_BY, LIKE, MAX_PER, UNLIKE or IS");
                continue;
            }
        };
        read.push(Constraint { field: field.clone(), operator, value: value.cloned() });
    }
    read
}

/// Every key of an app definition besides `id` and `version`. Others are status, or nobody's.
const CONTENT_KEYS: [&str; 39] = [
    "acceptedResourceRoles",
    "args",
    "backoffFactor",
    "backoffSeconds",
    "check",
    "cmd",
    "constraints",
    "container",
    "cpus",
    "dependencies",
    "disk",
    "env",
    "executor",
    "executorResources",
    "fetch",
    "gpus",
    "healthChecks",
    "instances",
    "ipAddress",
    "killSelection",
    "labels",
    "maxLaunchDelaySeconds",
    "mem",
    "networks",
    "portDefinitions",
    "ports",
    "readinessChecks",
    "requirePorts",
    "residency",
    "resourceLimits",
    "role",
    "secrets",
    "taskKillGracePeriodSeconds",
    "tty",
    "unreachableStrategy",
    "upgradeStrategy",
    "uris",
    "user",
    "versionInfo",
];

fn read_app(app: &Reader<'_>, unsupported: &Violations) -> AppInput {
    if !app.is_object() {
        return AppInput::default();
    }
    if let Some(residency) = app.get("residency") {
        check_residency(&residency);
    }
    AppInput {
        id: app.get("id").and_then(|id| id.path_id()),
        version: app.get("version").and_then(|version| read_timestamp(&version)),
        has_content: app.keys().any(|key| CONTENT_KEYS.contains(&key)),
        unsupported: Vec::new(),
        cmd: app.get("cmd").and_then(|cmd| cmd.some_text()),
        args: app.get("args").and_then(|args| args.list(Reader::text)),
        user: app.get("user").and_then(|user| user.text()),
        fetch: app.get("fetch").and_then(|fetch| fetch.list(read_fetch)),
        uris: app.get("uris").and_then(|uris| uris.list(Reader::short_text)),
        env: app.get("env").and_then(|env| read_env(&env)),
        secrets: app.get("secrets").and_then(|secrets| read_secrets(&secrets)),
        instances: app.get("instances").and_then(|instances| instances.whole(i32::MAX as u32)),
        cpus: app.get("cpus").and_then(|cpus| cpus.number(0.001)).map(Scalar::from_f64),
        mem: app.get("mem").and_then(|mem| mem.number(0.0)).map(Scalar::from_f64),
        disk: app.get("disk").and_then(|disk| disk.number(0.0)).map(Scalar::from_f64),
        gpus: app.get("gpus").and_then(|gpus| gpus.whole(i32::MAX as u32)),
        resource_limits: app.get("resourceLimits").and_then(|limits| read_resource_limits(&limits, unsupported)),
        executor: app.get("executor").and_then(|executor| read_executor(&executor)),
        constraints: app.get("constraints").and_then(|constraints| constraints.set(|constraint| constraint.list(Reader::text))),
        accepted_resource_roles: app.get("acceptedResourceRoles").and_then(|roles| roles.set(Reader::text)),
        role: app.get("role").and_then(|role| role.some_text()),
        labels: app.get("labels").and_then(|labels| labels.texts()),
        container: app.get("container").and_then(|container| container::read(&container, unsupported)),
        networks: app.get("networks").and_then(|networks| networks.list(network::read)),
        ip_address: app.get("ipAddress").and_then(|address| network::read_ip_address(&address)),
        ports: app.get("ports").and_then(|ports| ports.list(Reader::port)),
        port_definitions: app.get("portDefinitions").and_then(|ports| ports.list(read_port_definition)),
        require_ports: app.get("requirePorts").and_then(|require| require.boolean()),
        backoff_initial_ms: app.get("backoffSeconds").and_then(|seconds| read_whole_seconds(&seconds)),
        backoff_factor: app.get("backoffFactor").and_then(|factor| factor.number(1.0)),
        backoff_max_ms: app.get("maxLaunchDelaySeconds").and_then(|seconds| read_whole_seconds(&seconds)),
        kill_grace_ms: app.get("taskKillGracePeriodSeconds").and_then(|seconds| read_whole_seconds(&seconds)),
        health_checks: app.get("healthChecks").and_then(|checks| checks.set(health::read_health_check)),
        readiness_checks: app.get("readinessChecks").and_then(|checks| checks.list(health::read_readiness_check)),
        check: app.get("check").and_then(|check| health::read_check(&check, unsupported, health::read_port)),
        kill_selection: app.get("killSelection").and_then(|selection| read_kill_selection(&selection)),
        upgrade_strategy: app.get("upgradeStrategy").and_then(|strategy| read_upgrade_strategy(&strategy)),
        unreachable_strategy: app.get("unreachableStrategy").and_then(|strategy| read_unreachable_strategy(&strategy)),
        dependencies: app.get("dependencies").and_then(|dependencies| dependencies.list(Reader::text)),
        tty: app.get("tty").and_then(|tty| tty.boolean()),
        executor_resources: app.get("executorResources").and_then(|amounts| read_executor_resources(&amounts)),
        base: None,
    }
}

/// Marathon itself says that it has no effect. It is shown of every app with persistent volumes, always the same.
fn check_residency(residency: &Reader<'_>) {
    if residency.is_object() {
        _ = residency.get("relaunchEscalationTimeoutSeconds").and_then(|seconds| seconds.long(i64::MAX as u64));
        let behaviours = [("WAIT_FOREVER", ()), ("RELAUNCH_AFTER_TIMEOUT", ())];
        _ = residency.get("taskLostBehavior").and_then(|behaviour| behaviour.choice(&behaviours));
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::String(text) => text.is_empty(),
        Value::Bool(true) | Value::Number(_) => false,
    }
}

/// An element of the legacy `uris`: unpacked when its name says that it can be.
fn of_uri(uri: &str) -> Fetch {
    Fetch { uri: uri.to_owned(), extract: names_archive(uri), executable: false, cache: false, dest_path: None }
}

pub(in crate::model) fn read_fetch(fetch: &Reader<'_>) -> Option<Fetch> {
    if !fetch.is_object() {
        return None;
    }
    let flag = |key: &str, default| fetch.get(key).map_or(Some(default), |flag| flag.boolean());
    let uri = fetch.required("uri").and_then(|uri| uri.short_text());
    let (extract, executable, cache) = (flag("extract", true), flag("executable", false), flag("cache", false));
    let dest_path = fetch.get("destPath").or_else(|| fetch.get("outputFile")).and_then(|path| path.short_text());
    Some(Fetch { uri: uri?, extract: extract?, executable: executable?, cache: cache?, dest_path })
}

fn read_timestamp(version: &Reader<'_>) -> Option<Timestamp> {
    let timestamp = version.text()?.parse().ok();
    if timestamp.is_none() {
        version.reject("error.expected.date.isoformat");
    }
    timestamp
}

fn read_env(env: &Reader<'_>) -> Option<Env> {
    let read = |(name, value): (&str, Reader<'_>)| {
        if !value.value().is_object() {
            return Some((name.to_owned(), EnvValue::Text(value.text()?)));
        }
        let secret = value.required("secret")?;
        Some((name.to_owned(), EnvValue::Secret { secret: secret.text()? }))
    };
    Some(env.entries()?.into_iter().filter_map(read).collect())
}

pub(in crate::model) fn read_secrets(secrets: &Reader<'_>) -> Option<IndexMap<String, Secret>> {
    let read = |(name, value): (&str, Reader<'_>)| {
        let source = if value.is_object() { value.required("source")?.some_text()? } else { return None };
        Some((name.to_owned(), Secret { source }))
    };
    Some(secrets.entries()?.into_iter().filter_map(read).collect())
}

/// The name of a secret, as `{"secret": name}`.
pub(in crate::model) fn read_pull_config(config: &Reader<'_>) -> Option<String> {
    if !config.is_object() {
        return None;
    }
    config.required("secret").and_then(|secret| secret.some_text())
}

/// An object without a limit is kept as one.
pub(in crate::model) fn read_resource_limits(limits: &Reader<'_>, unsupported: &Violations) -> Option<ResourceLimits> {
    if !limits.is_object() {
        return None;
    }
    let limit = |key: &str| limits.get(key).and_then(|limit| read_resource_limit(&limit, unsupported));
    Some(ResourceLimits { cpus: limit("cpus"), mem: limit("mem") })
}

/// Any text is of the right type; only one is right.
fn read_resource_limit(limit: &Reader<'_>, unsupported: &Violations) -> Option<ResourceLimit> {
    match limit.value().as_str() {
        Some("unlimited") => Some(ResourceLimit::Unlimited),
        Some(other) => {
            let text = format!("'{other}' is an invalid resource limit. It must be 'unlimited' or a number");
            unsupported.add(limit.path(), text);
            None
        }
        None => limit.number(f64::MIN).map(|number| ResourceLimit::At(Scalar::from_f64(number))),
    }
}

/// What is not written is what a pod's executor takes.
pub(in crate::model) fn read_executor_resources(amounts: &Reader<'_>) -> Option<Amounts> {
    if !amounts.is_object() {
        return None;
    }
    let amount =
        |key: &str, min: f64, default: Scalar| amounts.get(key).map_or(Some(default), |value| value.number(min).map(Scalar::from_f64));
    let (cpus, mem, disk) = (amount("cpus", 0.1, EXECUTOR.cpus), amount("mem", 32.0, EXECUTOR.mem), amount("disk", 10.0, EXECUTOR.disk));
    Some(Amounts { cpus: cpus?, mem: mem?, disk: disk?, gpus: 0 })
}

/// `//cmd`, a path without empty segments, or nothing.
fn read_executor(executor: &Reader<'_>) -> Option<String> {
    let text = executor.text()?;
    let path = text.strip_prefix('/').unwrap_or(&text);
    if !matches!(text.as_str(), "" | "//cmd") && path.split('/').any(str::is_empty) {
        executor.reject("error.pattern");
    }
    Some(text)
}

fn read_port_definition(definition: &Reader<'_>) -> Option<PortDefinition> {
    if !definition.is_object() {
        return None;
    }
    let port = definition.get("port").map_or(Some(PortNumber::Dynamic), |port| container::read_port_number(&port));
    let protocol = definition.get("protocol").map_or(Some(super::Protocol::Tcp), |protocol| container::read_protocol(&protocol));
    let name = definition.get("name").and_then(|name| name.name(usize::MAX, false));
    let labels = definition.get("labels").and_then(|labels| labels.texts()).unwrap_or_default();
    Some(PortDefinition { port: port?, protocol: protocol?, name, labels })
}

/// Seconds as milliseconds.
fn read_whole_seconds(seconds: &Reader<'_>) -> Option<u64> {
    seconds.whole(MAX_SECONDS).map(|seconds| u64::from(seconds) * 1000)
}

/// Seconds, also broken ones, as milliseconds.
pub(in crate::model) fn read_seconds(seconds: &Reader<'_>) -> Option<u64> {
    let number = seconds.number(0.0)?;
    if number > f64::from(MAX_SECONDS) {
        seconds.reject("error.max");
    }
    Some((number * 1000.0).round() as u64)
}

pub(in crate::model) fn read_kill_selection(selection: &Reader<'_>) -> Option<KillSelection> {
    selection.choice(&[("YOUNGEST_FIRST", KillSelection::YoungestFirst), ("OLDEST_FIRST", KillSelection::OldestFirst)])
}

fn read_upgrade_strategy(strategy: &Reader<'_>) -> Option<UpgradeStrategy> {
    if !strategy.is_object() {
        return None;
    }
    let (minimum, maximum) = (strategy.required("minimumHealthCapacity"), strategy.required("maximumOverCapacity"));
    let (minimum, maximum) = (minimum.and_then(|capacity| capacity.share()), maximum.and_then(|capacity| capacity.share()));
    Some(UpgradeStrategy { minimum_health_capacity: minimum?, maximum_over_capacity: maximum? })
}

pub(in crate::model) fn read_unreachable_strategy(strategy: &Reader<'_>) -> Option<UnreachableStrategy> {
    if strategy.value().is_string() {
        return strategy.choice(&[("disabled", UnreachableStrategy::Disabled)]);
    }
    if !strategy.is_object() {
        return None;
    }
    let seconds = |key: &str| strategy.get(key).map_or(Some(0), |seconds| seconds.long(u64::from(MAX_SECONDS)));
    let (inactive, expunge) = (seconds("inactiveAfterSeconds"), seconds("expungeAfterSeconds"));
    Some(UnreachableStrategy::Enabled { inactive_after_seconds: inactive?, expunge_after_seconds: expunge? })
}

#[cfg(test)]
mod tests;
