//! Reads Marathon's pod JSON. As with apps there are two steps: [`PodInput::read`] finds wrong types ("Invalid JSON"), and [`PodInput::complete`] finds
//! what contradicts itself in what was written ("Object is not valid"). What a pod means on top of that is `core::validate`'s business.
//!
//! A pod is always written as a whole: absent keys are at their defaults.

mod container;
mod scheduling;

use indexmap::IndexMap;
use serde_json::Value;

use self::{
    container::{CheckInput, ContainerInput, EndpointInput},
    scheduling::Scheduling,
};
use super::{Amounts, Pod, PodContainer, PodVolume};
use crate::model::{
    app::{
        App, Container, ContainerKind, Env, EnvValue, LinuxInfo, Mode, Network, PersistentVolume, PortDefinition, PortMapping, PortNumber,
        Secret, UnreachableStrategy, Volume,
        input::{
            Defaults, blank,
            container::{read_linux_info, read_persistent},
            default_upgrade_strategy,
            network::{self, NetworkInput, canonical_network},
            read_executor_resources, read_secrets,
            reader::{Reader, Violations},
        },
    },
    health::{Check, CheckProtocol, HealthCheck},
    id::PathId,
    request::Violation,
    resources::Scalar,
};

/// Pod JSON whose types are right.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodInput {
    id: Option<String>,
    role: Option<String>,
    user: Option<String>,
    environment: Env,
    labels: IndexMap<String, String>,
    containers: Vec<ContainerInput>,
    volumes: Vec<VolumeInput>,
    networks: Vec<NetworkInput>,
    instances: Option<u32>,
    scheduling: Scheduling,
    executor: Option<Amounts>,
    legacy_shared_cgroups: bool,
    secrets: IndexMap<String, Secret>,
    linux_info: Option<LinuxInfo>,
    /// What was written although it is not carried out here.
    unsupported: Vec<Violation>,
}

#[derive(Clone, Debug, PartialEq)]
struct VolumeInput {
    is: PodVolume,
    /// MiB of a persistent one.
    size: Option<u64>,
}

/// What an executor takes when nothing is written.
pub const EXECUTOR: Amounts = Amounts { cpus: Scalar(100), mem: Scalar::whole(32), disk: Scalar::whole(10), gpus: 0 };

impl PodInput {
    /// Checks the types of `value`. Unknown keys are ignored, as Marathon does; null is as good as absent.
    ///
    /// # Errors
    /// Wrong types, unknown enum values, numbers outside their range: Marathon's "Invalid JSON".
    pub fn read(value: &Value) -> Result<Self, Vec<Violation>> {
        let (violations, unsupported) = (Violations::default(), Violations::default());
        let input = read_pod(&Reader::root(value, &violations), &unsupported);
        let violations = violations.into_list();
        if violations.is_empty() { Ok(Self { unsupported: unsupported.into_list(), ..input }) } else { Err(violations) }
    }

    /// The `id` that was written.
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// The id of the pod.
    ///
    /// # Errors
    /// There is none, or it is not an absolute path: Marathon's "Object is not valid".
    pub fn path(&self) -> Result<PathId, Vec<Violation>> {
        let wrong = |text: &str| Err(vec![Violation::new("/id", text)]);
        match self.id.as_deref() {
            None => wrong("error.path.missing"),
            Some(id) if !id.starts_with('/') => wrong("Path needs to be absolute"),
            Some(id) => match id.parse::<PathId>() {
                Ok(id) if id.is_root() => wrong("Path must contain at least one path element"),
                Ok(id) => Ok(id),
                Err(error) => wrong(&error.to_string()),
            },
        }
    }

    /// A complete definition named `id`. `version`, `version_info` and what follows from who asks are left for the caller to set.
    ///
    /// # Errors
    /// What is contradictory or not supported: Marathon's "Object is not valid".
    pub fn complete(&self, id: &PathId, defaults: &Defaults) -> Result<App, Vec<Violation>> {
        let violations = Violations::default();
        self.unsupported.iter().for_each(|one| violations.add(&one.path, &one.text));
        let mut app = blank(id, defaults);
        (app.network, app.bridge_labels) = canonical_network(&self.networks, defaults, &violations);
        app.env = self.environment.clone();
        app.labels = self.labels.clone();
        app.secrets = self.secrets.clone();
        app.user = self.user.clone();
        app.instances = self.instances.unwrap_or(1);
        app.role = self.role.clone().unwrap_or_else(|| defaults.role.clone());
        let executor = self.executor.unwrap_or(EXECUTOR);
        let sum = |amount: fn(&Amounts) -> Scalar| {
            self.containers.iter().map(|container| amount(&container.is.amounts)).fold(amount(&executor), Scalar::plus)
        };
        (app.cpus, app.mem, app.disk) = (sum(|all| all.cpus), sum(|all| all.mem), sum(|all| all.disk));
        app.gpus = self.containers.iter().fold(0, |sum, container| container.is.amounts.gpus.saturating_add(sum));
        self.connect(&mut app, &violations);
        self.check(&mut app, &violations);
        self.keep(&mut app);
        self.scheduling.lay_over(&mut app);
        app.pod = Some(Box::new(Pod {
            containers: self.placed_containers(),
            volumes: self.volumes.iter().map(|volume| volume.is.clone()).collect(),
            executor,
            networks_left_out: self.networks.is_empty(),
            legacy_shared_cgroups: self.legacy_shared_cgroups,
            linux_info: self.linux_info.clone(),
        }));
        app.upgrade_strategy = self.scheduling.upgrade.unwrap_or_else(|| default_upgrade_strategy(&app));
        let violations = violations.into_list();
        if violations.is_empty() { Ok(app) } else { Err(violations) }
    }

    fn endpoints(&self) -> impl Iterator<Item = (String, &EndpointInput)> {
        self.containers.iter().enumerate().flat_map(|(at, container)| {
            let path = move |index: usize| format!("/containers({at})/endpoints({index})");
            container.endpoints.iter().enumerate().map(move |(index, endpoint)| (path(index), endpoint))
        })
    }

    /// The endpoints of all containers become the ports of the app.
    fn connect(&self, app: &mut App, violations: &Violations) {
        for (path, endpoint) in self.endpoints() {
            endpoint.check(&path, &app.network, violations);
        }
        if app.network == Network::Host {
            // Every number is meant for the node.
            app.require_ports = true;
            app.port_definitions = self.endpoints().map(|(_, endpoint)| definition(endpoint)).collect();
        } else {
            let mappings = self.endpoints().map(|(_, endpoint)| mapping(endpoint, &app.network)).collect();
            app.container = Some(Container {
                kind: ContainerKind::Mesos,
                docker: None,
                port_mappings: mappings,
                volumes: Vec::new(),
                linux_info: None,
            });
        }
    }

    /// The persistent volumes become those of the app, by their names. Whoever has some waits for them.
    fn keep(&self, app: &mut App) {
        let volume = |volume: &VolumeInput| {
            Some(Volume::Persistent(PersistentVolume { container_path: volume.is.name.clone(), mode: Mode::Rw, size: volume.size? }))
        };
        let volumes: Vec<Volume> = self.volumes.iter().filter_map(volume).collect();
        if volumes.is_empty() {
            return;
        }
        app.unreachable_strategy = UnreachableStrategy::Disabled;
        match &mut app.container {
            Some(container) => container.volumes = volumes,
            None => {
                app.container =
                    Some(Container { kind: ContainerKind::Mesos, docker: None, port_mappings: Vec::new(), volumes, linux_info: None })
            }
        }
    }

    /// The containers, whose generic checks now name the places of their ports among those of all.
    fn placed_containers(&self) -> Vec<PodContainer> {
        let mut before = 0;
        let mut placed = Vec::with_capacity(self.containers.len());
        for container in &self.containers {
            let mut is = container.is.clone();
            if let Some(port) = is.check.as_mut().and_then(Check::port_mut) {
                port.port_index = port.port_index.and_then(|place| u16::try_from(before + usize::from(place)).ok());
            }
            placed.push(is);
            before += container.endpoints.len();
        }
        placed
    }

    /// The health checks of all containers become those of the app. One that asks an endpoint names its place among the ports.
    fn check(&self, app: &mut App, violations: &Violations) {
        let mut before = 0;
        for (at, container) in self.containers.iter().enumerate() {
            if let Some(check) = &container.check {
                let place = check.endpoint.as_ref().and_then(|name| container.endpoints.iter().position(|one| one.name == *name));
                check.validate(&format!("/containers({at})/healthCheck"), place.is_some(), violations);
                app.health_checks.push(health_check(check, place.map(|place| before + place)));
            }
            before += container.endpoints.len();
        }
    }
}

fn definition(endpoint: &EndpointInput) -> PortDefinition {
    PortDefinition {
        port: endpoint.host_port.unwrap_or(PortNumber::Dynamic),
        protocol: endpoint.protocol(),
        name: Some(endpoint.name.clone()),
        labels: endpoint.labels.clone(),
    }
}

/// In bridge mode every endpoint has a port of the node.
fn mapping(endpoint: &EndpointInput, network: &Network) -> PortMapping {
    PortMapping {
        container_port: endpoint.container_port.unwrap_or_default(),
        host_port: endpoint.host_port.or((*network == Network::Bridge).then_some(PortNumber::Dynamic)),
        service_port: 0,
        protocol: endpoint.protocol(),
        name: Some(endpoint.name.clone()),
        labels: endpoint.labels.clone(),
        network_names: endpoint.network_names.clone(),
    }
}

fn health_check(check: &CheckInput, place: Option<usize>) -> HealthCheck {
    HealthCheck {
        protocol: check.protocol,
        path: check.path.clone(),
        port: None,
        port_index: place.and_then(|place| u16::try_from(place).ok()).filter(|_| check.protocol != CheckProtocol::Command),
        command: check.command.clone(),
        argv: check.argv.clone(),
        grace_seconds: check.grace_seconds,
        interval_seconds: check.interval_seconds,
        timeout_seconds: check.timeout_seconds,
        max_consecutive_failures: check.max_consecutive_failures,
        delay_seconds: check.delay_seconds,
        ignore_http_1xx: false,
        ipv6: false,
    }
}

fn read_pod(pod: &Reader<'_>, unsupported: &Violations) -> PodInput {
    if !pod.is_object() {
        return PodInput::default();
    }
    let containers = pod.required("containers");
    if containers.as_ref().is_some_and(|containers| containers.value().as_array().is_some_and(Vec::is_empty)) {
        pod.get("containers").iter().for_each(|containers| containers.reject("error.minLength"));
    }
    PodInput {
        id: pod.required("id").and_then(|id| id.path_id()),
        role: pod.get("role").and_then(|role| role.some_text()),
        user: pod.get("user").and_then(|user| user.text()),
        environment: pod.get("environment").and_then(|env| read_environment(&env)).unwrap_or_default(),
        labels: pod.get("labels").and_then(|labels| labels.texts()).unwrap_or_default(),
        containers: containers.and_then(|list| list.list(|container| container::read(container, unsupported))).unwrap_or_default(),
        volumes: pod.get("volumes").and_then(|list| list.list(|volume| read_volume(volume, unsupported))).unwrap_or_default(),
        networks: pod.get("networks").and_then(|list| list.list(network::read)).unwrap_or_default(),
        instances: pod.get("scaling").and_then(|scaling| scheduling::read_scaling(&scaling)),
        scheduling: pod.get("scheduling").and_then(|policy| scheduling::read(&policy)).unwrap_or_default(),
        executor: pod.get("executorResources").and_then(|amounts| read_executor_resources(&amounts)),
        legacy_shared_cgroups: pod.get("legacySharedCgroups").and_then(|flag| flag.boolean()).unwrap_or_default(),
        secrets: pod.get("secrets").and_then(|secrets| read_secrets(&secrets)).unwrap_or_default(),
        linux_info: pod.get("linuxInfo").and_then(|info| read_linux_info(&info)),
        unsupported: Vec::new(),
    }
}

/// Names are letters, digits and `_`, none of them first a digit, and at most 254.
fn read_environment(env: &Reader<'_>) -> Option<Env> {
    let mut read = Env::new();
    for (name, value) in env.entries()? {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let first = name.bytes().next();
        if !name.bytes().all(plain) || first.is_none_or(|byte| byte.is_ascii_digit()) || name.len() > 254 {
            value.reject("error.pattern");
        }
        if !value.value().is_object() {
            read.extend(value.text().map(|text| (name.to_owned(), EnvValue::Text(text))));
            continue;
        }
        let Some(secret) = value.required("secret").and_then(|secret| secret.text()) else { continue };
        read.insert(name.to_owned(), EnvValue::Secret { secret });
    }
    Some(read)
}

fn read_volume(volume: &Reader<'_>, unsupported: &Violations) -> Option<VolumeInput> {
    if !volume.is_object() {
        return None;
    }
    let name = volume.required("name").and_then(|name| name.name(63, false));
    let host = volume.get("host").and_then(|host| host.text());
    let persistent = volume.get("persistent");
    if persistent.is_some() && host.is_some() {
        unsupported.add(volume.path(), "a volume is either of the host or persistent");
    }
    let secret = volume.get("secret").and_then(|secret| secret.some_text());
    let size = persistent.map(|persistent| read_persistent(&persistent, unsupported));
    Some(VolumeInput { is: PodVolume { name: name?, host, secret }, size: size.flatten() })
}

#[cfg(test)]
mod tests;
