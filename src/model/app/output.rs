//! Writes Marathon's app JSON: the definition with Marathon's omissions. Status fields are the API's business.

pub(in crate::model) mod health;

use indexmap::IndexMap;
use serde_json::{Map, Value, json};

use super::{
    App, Constraint, Container, ContainerKind, Env, EnvValue, Fetch, IpcMode, KillSelection, LinuxInfo, Mode, NamedNetwork, Network,
    Operator, PersistentVolume, PortDefinition, PortMapping, Secret, UnreachableStrategy, Volume,
};
use crate::model::{
    id::PathId,
    pod,
    resources::{ResourceLimit, ResourceLimits, Scalar},
};

pub use health::health_check;

/// The definition as `GET` shows it: always-present keys, keys dropped when empty, host-mode-only keys (reference: Marathon 1.11). No nulls.
pub fn definition(app: &App) -> Map<String, Value> {
    let mut fields = Fields::default();
    fields.set("id", app.id.as_str());
    fields.set_some("acceptedResourceRoles", app.accepted_resource_roles.as_ref().filter(|roles| !roles.is_empty()).cloned());
    fields.set_some("args", (!app.args.is_empty()).then(|| app.args.clone()));
    fields.set("backoffFactor", number(app.backoff.factor));
    fields.set("backoffSeconds", seconds(app.backoff.initial_ms));
    fields.set_some("cmd", app.cmd.clone());
    fields.set_some("constraints", (!app.constraints.is_empty()).then(|| app.constraints.iter().map(constraint).collect::<Vec<_>>()));
    fields.set_some("container", app.container.as_ref().map(|found| container(found, &app.network)));
    fields.set_some("check", app.check.as_ref().map(health::check));
    fields.set("cpus", scalar(app.cpus));
    fields
        .set_some("dependencies", (!app.dependencies.is_empty()).then(|| app.dependencies.iter().map(PathId::as_str).collect::<Vec<_>>()));
    fields.set("disk", scalar(app.disk));
    fields.set_some("env", (!app.env.is_empty()).then(|| env(&app.env)));
    fields.set("executor", app.executor.clone());
    fields.set_some("fetch", (!app.fetch.is_empty()).then(|| app.fetch.iter().map(fetch).collect::<Vec<_>>()));
    fields.set_some("healthChecks", some_list(&app.health_checks, health_check));
    fields.set("instances", app.instances);
    fields.set("labels", texts(&app.labels));
    fields.set("maxLaunchDelaySeconds", seconds(app.backoff.max_ms));
    fields.set("mem", scalar(app.mem));
    fields.set("gpus", app.gpus);
    fields.set("networks", networks(app));
    if app.network == Network::Host {
        fields.set("portDefinitions", app.port_definitions.iter().map(port_definition).collect::<Vec<_>>());
    }
    fields.set_some("readinessChecks", some_list(&app.readiness_checks, health::readiness_check));
    let residency = || json!({"relaunchEscalationTimeoutSeconds": 3600, "taskLostBehavior": "WAIT_FOREVER"});
    fields.set_some("residency", app.is_resident().then(residency));
    fields.set_some("resourceLimits", app.resource_limits.as_ref().map(resource_limits));
    fields.set("requirePorts", app.require_ports);
    fields.set_some("secrets", (!app.secrets.is_empty()).then(|| secrets(&app.secrets)));
    fields.set_some("taskKillGracePeriodSeconds", app.kill_grace_ms.map(seconds));
    fields.set(
        "upgradeStrategy",
        json!({
            "maximumOverCapacity": number(app.upgrade_strategy.maximum_over_capacity),
            "minimumHealthCapacity": number(app.upgrade_strategy.minimum_health_capacity),
        }),
    );
    fields.set_some("user", app.user.clone());
    fields.set("version", app.version.to_string());
    fields.set(
        "versionInfo",
        json!({
            "lastScalingAt": app.last_scaling_at().to_string(),
            "lastConfigChangeAt": app.last_config_change_at().to_string(),
        }),
    );
    fields.set("killSelection", kill_selection(app.kill_selection));
    fields.set("unreachableStrategy", unreachable_strategy(app.unreachable_strategy));
    fields.set_some("tty", app.tty);
    fields.set_some("executorResources", app.executor_resources.as_ref().map(pod::output::amounts));
    fields.set("role", app.role.clone());
    fields.0
}

/// An object whose optional fields are left out, never null.
#[derive(Default)]
pub(in crate::model) struct Fields(Map<String, Value>);

impl Fields {
    pub(in crate::model) fn into_map(self) -> Map<String, Value> {
        self.0
    }

    pub(in crate::model) fn set(&mut self, key: &str, value: impl Into<Value>) {
        self.0.insert(key.to_owned(), value.into());
    }

    pub(in crate::model) fn set_some(&mut self, key: &str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.set(key, value);
        }
    }

    pub(in crate::model) fn set_texts_unless_empty(&mut self, key: &str, values: &IndexMap<String, String>) {
        if !values.is_empty() {
            self.set(key, texts(values));
        }
    }
}

/// What is dropped when it is empty.
pub(in crate::model) fn some_list<T>(items: &[T], show: impl Fn(&T) -> Value) -> Option<Vec<Value>> {
    (!items.is_empty()).then(|| items.iter().map(show).collect())
}

/// A whole number without a decimal point.
pub(in crate::model) fn number(number: f64) -> Value {
    // Up to 2^53 whole numbers are exact.
    if number.fract() == 0.0 && number.abs() <= 9_007_199_254_740_992.0 { json!(number as i64) } else { json!(number) }
}

fn scalar(amount: Scalar) -> Value {
    number(amount.as_f64())
}

pub(in crate::model) fn seconds(milliseconds: u64) -> Value {
    if milliseconds.is_multiple_of(1000) { json!(milliseconds / 1000) } else { json!(milliseconds as f64 / 1000.0) }
}

pub(in crate::model) fn secrets(secrets: &IndexMap<String, Secret>) -> Value {
    Value::Object(secrets.iter().map(|(name, secret)| (name.clone(), json!({ "source": secret.source }))).collect())
}

pub(in crate::model) fn linux_info(info: &LinuxInfo) -> Value {
    let mut fields = Fields::default();
    if let Some(seccomp) = &info.seccomp {
        let mut shown = Fields::default();
        shown.set_some("profileName", seccomp.profile_name.clone());
        shown.set("unconfined", seccomp.unconfined);
        fields.set("seccomp", shown.0);
    }
    if let Some(ipc) = &info.ipc_info {
        let mut shown = Fields::default();
        shown.set(
            "mode",
            match ipc.mode {
                IpcMode::Private => "PRIVATE",
                IpcMode::ShareParent => "SHARE_PARENT",
            },
        );
        shown.set_some("shmSize", ipc.shm_size);
        fields.set("ipcInfo", shown.0);
    }
    Value::Object(fields.0)
}

pub(in crate::model) fn resource_limits(limits: &ResourceLimits) -> Value {
    let limit = |limit: ResourceLimit| match limit {
        ResourceLimit::Unlimited => json!("unlimited"),
        ResourceLimit::At(amount) => scalar(amount),
    };
    let mut fields = Fields::default();
    fields.set_some("cpus", limits.cpus.map(limit));
    fields.set_some("mem", limits.mem.map(limit));
    Value::Object(fields.0)
}

fn texts(values: &IndexMap<String, String>) -> Value {
    Value::Object(values.iter().map(|(key, value)| (key.clone(), Value::String(value.clone()))).collect())
}

pub(in crate::model) fn env(env: &Env) -> Value {
    let value = |value: &EnvValue| match value {
        EnvValue::Text(text) => Value::String(text.clone()),
        EnvValue::Secret { secret } => json!({ "secret": secret }),
    };
    Value::Object(env.iter().map(|(name, found)| (name.clone(), value(found))).collect())
}

pub(in crate::model) fn fetch(fetch: &Fetch) -> Value {
    let mut fields = Fields::default();
    fields.set("uri", fetch.uri.clone());
    fields.set("extract", fetch.extract);
    fields.set("executable", fetch.executable);
    fields.set("cache", fetch.cache);
    fields.set_some("destPath", fetch.dest_path.clone());
    Value::Object(fields.0)
}

fn constraint(constraint: &Constraint) -> Value {
    let texts = [Some(constraint.field.as_str()), Some(operator(constraint.operator)), constraint.value.as_deref()];
    texts.into_iter().flatten().collect()
}

pub(in crate::model) fn operator(operator: Operator) -> &'static str {
    match operator {
        Operator::Unique => "UNIQUE",
        Operator::Cluster => "CLUSTER",
        Operator::GroupBy => "GROUP_BY",
        Operator::Like => "LIKE",
        Operator::Unlike => "UNLIKE",
        Operator::MaxPer => "MAX_PER",
        Operator::Is => "IS",
    }
}

pub(in crate::model) fn networks(app: &App) -> Vec<Value> {
    let named = |network: &NamedNetwork| {
        let mut fields = Fields::default();
        fields.set("name", network.name.clone());
        fields.set("mode", "container");
        fields.set_texts_unless_empty("labels", &network.labels);
        Value::Object(fields.0)
    };
    match &app.network {
        Network::Host => vec![json!({"mode": "host"})],
        Network::Bridge => {
            let mut fields = Fields::default();
            fields.set("mode", "container/bridge");
            fields.set_texts_unless_empty("labels", &app.bridge_labels);
            vec![Value::Object(fields.0)]
        }
        Network::Container(networks) => networks.iter().map(named).collect(),
    }
}

fn port_definition(definition: &PortDefinition) -> Value {
    let mut fields = Fields::default();
    fields.set("port", definition.port.number());
    fields.set_texts_unless_empty("labels", &definition.labels);
    fields.set_some("name", definition.name.clone());
    fields.set("protocol", definition.protocol.as_str());
    Value::Object(fields.0)
}

fn port_mapping(mapping: &PortMapping) -> Value {
    let mut fields = Fields::default();
    fields.set("containerPort", mapping.container_port);
    fields.set_some("hostPort", mapping.host_port.map(|port| port.number()));
    fields.set("labels", texts(&mapping.labels));
    fields.set_some("name", mapping.name.clone());
    fields.set("protocol", mapping.protocol.as_str());
    fields.set("servicePort", mapping.service_port);
    fields.set_some("networkNames", (!mapping.network_names.is_empty()).then(|| mapping.network_names.clone()));
    Value::Object(fields.0)
}

fn container(container: &Container, network: &Network) -> Value {
    let mut fields = Fields::default();
    fields.set(
        "type",
        match container.kind {
            ContainerKind::Docker => "DOCKER",
            ContainerKind::Mesos => "MESOS",
        },
    );
    if let Some(docker) = &container.docker {
        let parameters: Vec<Value> = docker.parameters.iter().map(|(key, value)| json!({"key": key, "value": value})).collect();
        let mut shown = Fields::default();
        shown.set("forcePullImage", docker.force_pull_image);
        shown.set("image", docker.image.as_str());
        shown.set("parameters", parameters);
        shown.set("privileged", docker.privileged);
        shown.set_some("pullConfig", docker.pull_config.as_ref().map(|secret| json!({ "secret": secret })));
        fields.set("docker", shown.0);
    }
    fields.set_some("linuxInfo", container.linux_info.as_ref().map(linux_info));
    fields.set("volumes", container.volumes.iter().map(volume).collect::<Vec<_>>());
    if *network != Network::Host {
        fields.set("portMappings", container.port_mappings.iter().map(port_mapping).collect::<Vec<_>>());
    }
    Value::Object(fields.0)
}

fn volume(volume: &Volume) -> Value {
    let mode = |mode: &Mode| match mode {
        Mode::Ro => "RO",
        Mode::Rw => "RW",
    };
    match volume {
        Volume::Host { container_path, host_path, mode: access } => {
            json!({"containerPath": container_path, "hostPath": host_path, "mode": mode(access)})
        }
        // Of pods, which are shown in another form.
        Volume::Shared { container_path, name, mode: access } => {
            json!({"containerPath": container_path, "name": name, "mode": mode(access)})
        }
        Volume::Brick(brick) => {
            let mut fields = Fields::default();
            fields.set("size", brick.size);
            fields.set("pool", brick.pool.as_str());
            fields.set_some("fs", brick.file_system.map(|file_system| file_system.as_str()));
            json!({"containerPath": brick.container_path, "mode": mode(&brick.mode), "brick": fields.0})
        }
        Volume::Persistent(volume) => {
            json!({"containerPath": volume.container_path, "mode": mode(&volume.mode), "persistent": persistent(volume)})
        }
        Volume::Secret { container_path, secret } => json!({"containerPath": container_path, "secret": secret}),
        Volume::External(volume) => {
            let mut fields = Fields::default();
            fields.set("name", volume.name.as_str());
            fields.set("provider", volume.provider.as_str());
            fields.set_some("options", (!volume.options.is_empty()).then(|| json!(volume.options)));
            fields.set_some("size", volume.size);
            fields.set("shared", volume.shared);
            json!({"containerPath": volume.container_path, "mode": mode(&volume.mode), "external": fields.0})
        }
    }
}

/// What is shown of a persistent volume besides its place.
pub(in crate::model) fn persistent(volume: &PersistentVolume) -> Value {
    json!({"size": volume.size, "type": "root", "constraints": []})
}

pub(in crate::model) fn kill_selection(selection: KillSelection) -> &'static str {
    match selection {
        KillSelection::YoungestFirst => "YOUNGEST_FIRST",
        KillSelection::OldestFirst => "OLDEST_FIRST",
    }
}

/// `"disabled"`, or both times.
pub fn unreachable_strategy(strategy: UnreachableStrategy) -> Value {
    match strategy {
        UnreachableStrategy::Disabled => json!("disabled"),
        UnreachableStrategy::Enabled { inactive_after_seconds, expunge_after_seconds } => {
            json!({"inactiveAfterSeconds": inactive_after_seconds, "expungeAfterSeconds": expunge_after_seconds})
        }
    }
}
