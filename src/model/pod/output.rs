//! Writes Marathon's pod JSON: what is always there, and what is left out when it is empty. No nulls.

use serde_json::{Map, Value, json};

use super::{Amounts, Command, Exec, Image, Pod, PodContainer, PodVolume, VolumeMount};
use crate::model::{
    app::{
        App, Network, PortNumber,
        output::{self, Fields},
    },
    health::{Check, CheckProtocol, HealthCheck},
};

/// The definition as `GET` shows it; nothing for what is no pod.
pub fn definition(app: &App) -> Map<String, Value> {
    let Some(pod) = &app.pod else { return Map::new() };
    let mut fields = Fields::default();
    fields.set("id", app.id.as_str());
    fields.set_texts_unless_empty("labels", &app.labels);
    fields.set("version", app.version.to_string());
    fields.set_some("user", app.user.clone());
    fields.set_some("environment", (!app.env.is_empty()).then(|| output::env(&app.env)));
    let containers = (0..pod.containers.len()).map(|place| container(app, pod, place));
    fields.set("containers", containers.collect::<Vec<_>>());
    fields.set_some("volumes", output::some_list(&pod.volumes, |one| volume(app, one)));
    fields.set_some("networks", (!pod.networks_left_out).then(|| output::networks(app)));
    fields.set("scaling", json!({ "kind": "fixed", "instances": app.instances }));
    fields.set_some("secrets", (!app.secrets.is_empty()).then(|| output::secrets(&app.secrets)));
    fields.set("scheduling", scheduling(app));
    fields.set("executorResources", amounts(&pod.executor));
    fields.set("role", app.role.clone());
    fields.set_some("linuxInfo", pod.linux_info.as_ref().map(output::linux_info));
    fields.set_some("legacySharedCgroups", pod.legacy_shared_cgroups.then_some(true));
    fields.into_map()
}

fn scheduling(app: &App) -> Value {
    let mut placement = Fields::default();
    placement.set_some("constraints", output::some_list(&app.constraints, constraint));
    placement.set_some("acceptedResourceRoles", app.accepted_resource_roles.clone());
    let mut fields = Fields::default();
    fields.set(
        "backoff",
        json!({
            "backoff": output::seconds(app.backoff.initial_ms),
            "backoffFactor": output::number(app.backoff.factor),
            "maxLaunchDelay": output::seconds(app.backoff.max_ms),
        }),
    );
    fields.set(
        "upgrade",
        json!({
            "minimumHealthCapacity": output::number(app.upgrade_strategy.minimum_health_capacity),
            "maximumOverCapacity": output::number(app.upgrade_strategy.maximum_over_capacity),
        }),
    );
    let placement = placement.into_map();
    fields.set_some("placement", (!placement.is_empty()).then_some(placement));
    fields.set("killSelection", output::kill_selection(app.kill_selection));
    fields.set("unreachableStrategy", output::unreachable_strategy(app.unreachable_strategy));
    Value::Object(fields.into_map())
}

fn constraint(constraint: &crate::model::app::Constraint) -> Value {
    let mut fields = Fields::default();
    fields.set("fieldName", constraint.field.clone());
    fields.set("operator", output::operator(constraint.operator));
    fields.set_some("value", constraint.value.clone());
    Value::Object(fields.into_map())
}

/// `{"cpus", "mem", "disk"}`
pub(in crate::model) fn amounts(amounts: &Amounts) -> Value {
    json!({ "cpus": amounts.cpus, "mem": amounts.mem, "disk": amounts.disk })
}

/// As [`amounts`], with GPUs.
pub fn resources(amounts: &Amounts) -> Value {
    json!({ "cpus": amounts.cpus, "mem": amounts.mem, "disk": amounts.disk, "gpus": amounts.gpus })
}

fn volume(app: &App, volume: &PodVolume) -> Value {
    let mut fields = Fields::default();
    fields.set("name", volume.name.clone());
    fields.set_some("host", volume.host.clone());
    fields.set_some("secret", volume.secret.clone());
    fields.set_some("persistent", app.persistent_volume(&volume.name).filter(|_| volume.host.is_none()).map(output::persistent));
    Value::Object(fields.into_map())
}

fn container(app: &App, pod: &Pod, place: usize) -> Value {
    let container: &PodContainer = &pod.containers[place];
    let mut fields = Fields::default();
    fields.set("name", container.name.clone());
    fields.set_some("exec", container.exec.as_ref().map(exec));
    fields.set("resources", resources(&container.amounts));
    fields.set_some("resourceLimits", container.resource_limits.as_ref().map(output::resource_limits));
    let endpoints: Vec<Value> =
        pod.ports_of(place).zip(&container.protocols).filter_map(|(at, protocols)| endpoint(app, at, protocols)).collect();
    fields.set_some("endpoints", (!endpoints.is_empty()).then_some(endpoints));
    fields.set_some("image", container.image.as_ref().map(image));
    fields.set_some("environment", (!container.environment.is_empty()).then(|| output::env(&container.environment)));
    fields.set_some("user", container.user.clone());
    let check = pod.check_of(place).and_then(|at| app.health_checks.get(at));
    fields.set_some("healthCheck", check.map(|check| health_check(app, check)));
    fields.set_some("check", container.check.as_ref().map(|check| generic_check(app, check)));
    fields.set_some("volumeMounts", output::some_list(&container.volume_mounts, mount));
    fields.set_some("artifacts", output::some_list(&container.artifacts, output::fetch));
    fields.set_texts_unless_empty("labels", &container.labels);
    let grace = container.kill_grace_ms.map(|grace_ms| json!({ "killGracePeriodSeconds": output::seconds(grace_ms) }));
    fields.set_some("lifecycle", grace);
    fields.set_some("tty", container.tty);
    fields.set_some("linuxInfo", container.linux_info.as_ref().map(output::linux_info));
    Value::Object(fields.into_map())
}

/// `{"shell"}` or `{"argv"}`
pub(in crate::model) fn command(command: &Command) -> Value {
    match command {
        Command::Shell(shell) => json!({ "shell": shell }),
        Command::Argv(argv) => json!({ "argv": argv }),
    }
}

fn exec(exec: &Exec) -> Value {
    let mut fields = Fields::default();
    fields.set("command", command(&exec.command));
    fields.set_some("overrideEntrypoint", exec.override_entrypoint);
    Value::Object(fields.into_map())
}

fn image(image: &Image) -> Value {
    let mut fields = Fields::default();
    fields.set("kind", "DOCKER");
    fields.set("id", image.id.clone());
    fields.set_some("forcePull", image.force_pull);
    fields.set_some("pullConfig", image.pull_config.as_ref().map(|secret| json!({ "secret": secret })));
    fields.set_texts_unless_empty("labels", &image.labels);
    Value::Object(fields.into_map())
}

fn mount(mount: &VolumeMount) -> Value {
    let mut fields = Fields::default();
    fields.set("name", mount.name.clone());
    fields.set("mountPath", mount.mount_path.clone());
    fields.set_some("readOnly", mount.read_only);
    Value::Object(fields.into_map())
}

/// The app's port at `at`, as the endpoint that it was written as.
fn endpoint(app: &App, at: usize, protocols: &[String]) -> Option<Value> {
    let mut fields = Fields::default();
    let labels = if app.network == Network::Host {
        let definition = app.port_definitions.get(at)?;
        fields.set_some("name", definition.name.clone());
        fields.set("hostPort", host_port(definition.port));
        &definition.labels
    } else {
        let mapping = app.port_mappings().get(at)?;
        fields.set_some("name", mapping.name.clone());
        fields.set("containerPort", mapping.container_port);
        fields.set_some("hostPort", mapping.host_port.map(host_port));
        fields.set_some("networkNames", output::some_list(&mapping.network_names, |name| json!(name)));
        &mapping.labels
    };
    fields.set_some("protocol", (!protocols.is_empty()).then(|| protocols.to_vec()));
    fields.set_texts_unless_empty("labels", labels);
    Some(Value::Object(fields.into_map()))
}

fn host_port(port: PortNumber) -> u16 {
    port.number()
}

/// The name of the endpoint in this place.
fn endpoint_name(app: &App, place: Option<u16>) -> String {
    place.and_then(|at| Some(app.endpoints().get(usize::from(at))?.name.to_owned())).unwrap_or_default()
}

fn generic_check(app: &App, check: &Check) -> Value {
    output::health::generic_check(check, |fields, port| fields.set("endpoint", endpoint_name(app, port.port_index)))
}

/// As it stands in a container.
pub fn health_check(app: &App, check: &HealthCheck) -> Value {
    let mut fields = Fields::default();
    let name = endpoint_name(app, check.port_index);
    match check.protocol {
        CheckProtocol::Command => {
            let shell = || json!({ "shell": check.command.as_deref().unwrap_or_default() });
            let command = if check.argv.is_empty() { shell() } else { json!({ "argv": check.argv }) };
            fields.set("exec", json!({ "command": command }));
        }
        CheckProtocol::Tcp | CheckProtocol::MesosTcp => fields.set("tcp", json!({ "endpoint": name })),
        CheckProtocol::Http | CheckProtocol::MesosHttp | CheckProtocol::Https | CheckProtocol::MesosHttps => {
            let is_https = matches!(check.protocol, CheckProtocol::Https | CheckProtocol::MesosHttps);
            let mut http = Fields::default();
            http.set("endpoint", name);
            http.set_some("path", check.path.clone());
            http.set("scheme", if is_https { "HTTPS" } else { "HTTP" });
            fields.set("http", http.into_map());
        }
    }
    fields.set("gracePeriodSeconds", check.grace_seconds);
    fields.set("intervalSeconds", check.interval_seconds);
    fields.set("maxConsecutiveFailures", check.max_consecutive_failures);
    fields.set("timeoutSeconds", check.timeout_seconds);
    fields.set("delaySeconds", check.delay_seconds);
    Value::Object(fields.into_map())
}
