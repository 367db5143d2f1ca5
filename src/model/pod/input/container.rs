//! Reads one container of a pod, with its endpoints and its checks.

use indexmap::IndexMap;

use super::{NO_SECRETS, read_environment};
use crate::model::{
    app::{
        Fetch, Network, PortNumber, Protocol,
        input::{
            MAX_SECONDS,
            container::{MAX_NETWORK_NAME, read_port_number},
            health::{path_text, read_check, read_command},
            note_unless_empty, read_fetch, read_seconds,
            reader::{Reader, Violations},
        },
    },
    health::{CheckPort, CheckProtocol},
    pod::{Amounts, Command, Exec, Image, PodContainer, VolumeMount},
    resources::Scalar,
};

/// The most characters of a name.
const MAX_NAME: usize = 63;

/// A container, and what of it becomes the app's. Its generic check names its port by the place among its own endpoints.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ContainerInput {
    pub(super) is: PodContainer,
    pub(super) endpoints: Vec<EndpointInput>,
    pub(super) check: Option<CheckInput>,
}

/// An endpoint as written.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct EndpointInput {
    pub(super) name: String,
    pub(super) container_port: Option<u16>,
    pub(super) host_port: Option<PortNumber>,
    pub(super) protocols: Vec<String>,
    pub(super) labels: IndexMap<String, String>,
    pub(super) network_names: Vec<String>,
}

/// A health check as written.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct CheckInput {
    /// How many ways of checking were written; one is right.
    ways: usize,
    pub(super) protocol: CheckProtocol,
    pub(super) endpoint: Option<String>,
    pub(super) path: Option<String>,
    pub(super) command: Option<String>,
    pub(super) argv: Vec<String>,
    pub(super) grace_seconds: u32,
    pub(super) interval_seconds: u32,
    pub(super) timeout_seconds: u32,
    pub(super) max_consecutive_failures: u32,
    pub(super) delay_seconds: u32,
}

impl EndpointInput {
    /// What is published. No protocol is tcp, as for Mesos; others, such as `http`, only say what the port is for.
    pub(super) fn protocol(&self) -> Protocol {
        let has = |name: &str| self.protocols.iter().any(|protocol| protocol == name);
        match (has("tcp"), has("udp")) {
            (true, true) => Protocol::Both,
            (false, true) => Protocol::Udp,
            _ => Protocol::Tcp,
        }
    }

    pub(super) fn check(&self, path: &str, network: &Network, violations: &Violations) {
        let at = |key: &str| format!("{path}/{key}");
        match network {
            Network::Host if self.container_port.is_some() => {
                violations.add(at("containerPort"), "is not allowed when using host-mode networking");
            }
            Network::Container(_) if self.container_port.is_none() => {
                violations.add(at("containerPort"), "is required when using container-mode networking");
            }
            _ => {}
        }
        if (1..self.protocols.len()).any(|at| self.protocols[..at].contains(&self.protocols[at])) {
            violations.add(at("protocol"), "Duplicate protocols within the same endpoint are not allowed");
        }
        let networks: &[_] = if let Network::Container(networks) = network { networks } else { &[] };
        let names: Vec<&str> = networks.iter().map(|network| network.name.as_str()).collect();
        for (index, name) in self.network_names.iter().enumerate() {
            if !names.contains(&name.as_str()) {
                violations.add(format!("{path}/networkNames({index})"), format!("is not one of ({})", names.join(",")));
            }
        }
        if networks.len() > 1 && self.host_port.is_some() && self.network_names.len() != 1 {
            let text = "networkNames must be a single item list when hostPort is specified and more than 1 container network is defined";
            violations.add(path, text);
        }
    }
}

impl CheckInput {
    /// `known`: the endpoint is one of the container's.
    pub(super) fn validate(&self, path: &str, known: bool, violations: &Violations) {
        if self.ways != 1 {
            return violations.add(path, "Only one of http, tcp, or command may be specified");
        }
        if self.timeout_seconds >= self.interval_seconds {
            let text = format!("got {}, expected less than {}", self.timeout_seconds, self.interval_seconds);
            violations.add(format!("{path}/timeoutSeconds"), text);
        }
        if self.endpoint.is_some() && !known {
            let way = if self.protocol == CheckProtocol::MesosTcp { "tcp" } else { "http" };
            violations.add(format!("{path}/{way}/endpoint"), "contained in the container endpoints");
        }
    }
}

pub(super) fn read(container: &Reader<'_>, unsupported: &Violations) -> Option<ContainerInput> {
    if !container.is_object() {
        return None;
    }
    for (key, text) in [
        ("linuxInfo", "linuxInfo is not supported yet"),
        ("resourceLimits", "resourceLimits are not supported yet"),
        ("tty", "tty is not supported yet"),
    ] {
        note_unless_empty(container, key, text, unsupported);
    }
    let name = container.required("name").and_then(|name| name.name(MAX_NAME, false));
    let amounts = container.required("resources").and_then(|amounts| read_amounts(&amounts));
    let endpoints: Vec<EndpointInput> = container.get("endpoints").and_then(|list| list.list(read_endpoint)).unwrap_or_default();
    let check = container.get("healthCheck").and_then(|check| read_health_check(&check));
    let generic =
        container.get("check").and_then(|check| read_check(&check, unsupported, |asked| read_asked(asked, &endpoints, unsupported)));
    let lifecycle = container.get("lifecycle").filter(Reader::is_object);
    let is = PodContainer {
        name: name.unwrap_or_default(),
        exec: container.get("exec").and_then(|exec| read_exec(&exec)),
        amounts: amounts.unwrap_or(Amounts { cpus: Scalar::ZERO, mem: Scalar::ZERO, disk: Scalar::ZERO, gpus: 0 }),
        protocols: endpoints.iter().map(|endpoint| endpoint.protocols.clone()).collect(),
        has_health_check: check.is_some(),
        check: generic,
        image: container.get("image").and_then(|image| read_image(&image, unsupported)),
        environment: container.get("environment").and_then(|env| read_environment(&env, unsupported)).unwrap_or_default(),
        user: container.get("user").and_then(|user| user.text()),
        volume_mounts: container.get("volumeMounts").and_then(|mounts| mounts.list(read_mount)).unwrap_or_default(),
        artifacts: container.get("artifacts").and_then(|list| list.list(read_artifact)).unwrap_or_default(),
        labels: container.get("labels").and_then(|labels| labels.texts()).unwrap_or_default(),
        kill_grace_ms: lifecycle.and_then(|lifecycle| lifecycle.get("killGracePeriodSeconds")).and_then(|seconds| read_seconds(&seconds)),
    };
    Some(ContainerInput { is, endpoints, check })
}

/// Which of the container's endpoints a generic check asks.
fn read_asked(asked: &Reader<'_>, endpoints: &[EndpointInput], refused: &Violations) -> Option<CheckPort> {
    let endpoint = asked.required("endpoint")?;
    let name = endpoint.name(MAX_NAME, false)?;
    let place = endpoints.iter().position(|one| one.name == name);
    if place.is_none() {
        refused.add(endpoint.path(), "contained in the container endpoints");
    }
    Some(CheckPort { port: None, port_index: place.and_then(|place| u16::try_from(place).ok()) })
}

fn read_amounts(amounts: &Reader<'_>) -> Option<Amounts> {
    if !amounts.is_object() {
        return None;
    }
    let amount =
        |key: &str, min: f64, default: Scalar| amounts.get(key).map_or(Some(default), |value| value.number(min).map(Scalar::from_f64));
    let (cpus, mem) = (amount("cpus", 0.001, Scalar::whole(1)), amount("mem", 0.001, Scalar::whole(128)));
    let disk = amount("disk", 0.0, Scalar::ZERO);
    let gpus = amounts.get("gpus").map_or(Some(0), |gpus| gpus.whole(i32::MAX as u32));
    Some(Amounts { cpus: cpus?, mem: mem?, disk: disk?, gpus: gpus? })
}

fn read_endpoint(endpoint: &Reader<'_>) -> Option<EndpointInput> {
    if !endpoint.is_object() {
        return None;
    }
    let name = endpoint.required("name").and_then(|name| name.name(MAX_NAME, false));
    let protocol = |protocol: &Reader<'_>| protocol.name(MAX_NAME, false);
    let network_name = |name: &Reader<'_>| name.name(MAX_NETWORK_NAME, true);
    Some(EndpointInput {
        name: name?,
        container_port: endpoint.get("containerPort").and_then(|port| port.port()),
        host_port: endpoint.get("hostPort").and_then(|port| read_port_number(&port)),
        protocols: endpoint.get("protocol").and_then(|list| list.list(protocol)).unwrap_or_default(),
        labels: endpoint.get("labels").and_then(|labels| labels.texts()).unwrap_or_default(),
        network_names: endpoint.get("networkNames").and_then(|names| names.list(network_name)).unwrap_or_default(),
    })
}

fn read_exec(exec: &Reader<'_>) -> Option<Exec> {
    if !exec.is_object() {
        return None;
    }
    let command = exec.required("command").and_then(|command| read_command(&command));
    let override_entrypoint = exec.get("overrideEntrypoint").and_then(|flag| flag.boolean());
    Some(Exec { command: command?, override_entrypoint })
}

fn read_image(image: &Reader<'_>, unsupported: &Violations) -> Option<Image> {
    if !image.is_object() {
        return None;
    }
    image.required("kind").and_then(|kind| kind.choice(&[("DOCKER", ())]));
    if let Some(config) = image.get("pullConfig") {
        unsupported.add(config.path(), "must be empty");
        unsupported.add(config.path(), NO_SECRETS);
    }
    let id = image.required("id").and_then(|id| path_text(&id));
    let force_pull = image.get("forcePull").and_then(|flag| flag.boolean());
    let labels = image.get("labels").and_then(|labels| labels.texts()).unwrap_or_default();
    Some(Image { id: id?, force_pull, labels })
}

fn read_mount(mount: &Reader<'_>) -> Option<VolumeMount> {
    if !mount.is_object() {
        return None;
    }
    let name = mount.required("name").and_then(|name| name.name(MAX_NAME, false));
    let mount_path = mount.required("mountPath").and_then(|path| path_text(&path));
    let read_only = mount.get("readOnly").and_then(|flag| flag.boolean());
    Some(VolumeMount { name: name?, mount_path: mount_path?, read_only })
}

fn read_artifact(artifact: &Reader<'_>) -> Option<Fetch> {
    if let Some(uri) = artifact.get("uri").filter(|uri| uri.value().is_string()) {
        path_text(&uri);
    }
    read_fetch(artifact)
}

fn read_health_check(check: &Reader<'_>) -> Option<CheckInput> {
    if !check.is_object() {
        return None;
    }
    let seconds = |key: &str, default: u32| check.get(key).and_then(|seconds| seconds.whole(MAX_SECONDS)).unwrap_or(default);
    let (http, tcp, exec) = (check.get("http"), check.get("tcp"), check.get("exec"));
    let ways = [&http, &tcp, &exec].into_iter().flatten().count();
    let mut read = CheckInput {
        ways,
        protocol: CheckProtocol::Command,
        endpoint: None,
        path: None,
        command: None,
        argv: Vec::new(),
        grace_seconds: seconds("gracePeriodSeconds", 300),
        interval_seconds: seconds("intervalSeconds", 60),
        timeout_seconds: seconds("timeoutSeconds", 20),
        max_consecutive_failures: seconds("maxConsecutiveFailures", 3),
        delay_seconds: seconds("delaySeconds", 15),
    };
    let endpoint = |way: &Reader<'_>| way.required("endpoint").and_then(|name| name.name(MAX_NAME, false));
    if let Some(http) = http.filter(Reader::is_object) {
        let schemes = [("HTTP", CheckProtocol::MesosHttp), ("HTTPS", CheckProtocol::MesosHttps)];
        let scheme = http.get("scheme").map_or(Some(CheckProtocol::MesosHttp), |scheme| scheme.choice(&schemes));
        read.protocol = scheme.unwrap_or(CheckProtocol::MesosHttp);
        read.endpoint = endpoint(&http);
        read.path = http.get("path").and_then(|path| path_text(&path));
    } else if let Some(tcp) = tcp.filter(Reader::is_object) {
        read.protocol = CheckProtocol::MesosTcp;
        read.endpoint = endpoint(&tcp);
    } else if let Some(exec) = exec.filter(Reader::is_object) {
        match exec.required("command").and_then(|command| read_command(&command)) {
            Some(Command::Shell(shell)) => read.command = Some(shell),
            Some(Command::Argv(argv)) => read.argv = argv,
            None => {}
        }
    }
    Some(read)
}
