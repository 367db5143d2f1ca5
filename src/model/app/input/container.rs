//! Reads `container`: image, volumes, port mappings, and the network settings that once were Docker's.

use super::{
    WANTED_PORT,
    reader::{Reader, Violations},
};
use crate::model::{
    app::{
        BrickVolume, ContainerKind, Docker, ExternalVolume, FileSystem, Mode, PersistentVolume, PortMapping, PortNumber, Protocol, Volume,
    },
    brick::DEFAULT_POOL,
    id::PoolName,
};

/// Longest name of a network, as in a host name.
pub(in crate::model) const MAX_NETWORK_NAME: usize = 63;

/// `container` as it was written.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ContainerInput {
    pub(super) kind: ContainerKind,
    pub(super) docker: Option<Docker>,
    pub(super) volumes: Vec<Volume>,
    /// `None`: not written, which is not the same as none.
    pub(super) port_mappings: Option<Vec<PortMapping>>,
    pub(super) legacy: LegacyDocker,
}

/// What was moved out of `container.docker` in Marathon 1.5.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct LegacyDocker {
    pub(super) network: Option<LegacyNetwork>,
    pub(super) port_mappings: Option<Vec<PortMapping>>,
    pub(super) credential: bool,
}

/// `container.docker.network`
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum LegacyNetwork {
    Bridge,
    Host,
    None,
    User,
}

pub(super) fn read(container: &Reader<'_>, unsupported: &Violations) -> Option<ContainerInput> {
    if !container.is_object() {
        return None;
    }
    let kinds = [("DOCKER", ContainerKind::Docker), ("MESOS", ContainerKind::Mesos)];
    let kind = container.get("type").map_or(Some(ContainerKind::Docker), |kind| kind.choice(&kinds));
    let docker = container.get("docker");
    let legacy = docker.as_ref().map(read_legacy).unwrap_or_default();
    if let Some(info) = container.get("linuxInfo")
        && !super::is_empty(info.value())
    {
        unsupported.add(info.path(), "linuxInfo is not supported yet");
    }
    let docker = docker.and_then(|docker| read_docker(&docker, unsupported));
    let volumes = container.get("volumes").and_then(|volumes| volumes.list(|volume| read_volume(volume, unsupported)));
    let port_mappings = container.get("portMappings").and_then(|mappings| mappings.list(read_port_mapping));
    Some(ContainerInput { kind: kind?, docker, volumes: volumes.unwrap_or_default(), port_mappings, legacy })
}

fn read_docker(docker: &Reader<'_>, unsupported: &Violations) -> Option<Docker> {
    if !docker.is_object() {
        return None;
    }
    if let Some(config) = docker.get("pullConfig")
        && !super::is_empty(config.value())
    {
        unsupported.add(config.path(), "pullConfig is not supported yet");
    }
    let image = docker.required("image").and_then(|image| image.some_text());
    let flag = |key: &str| docker.get(key).and_then(|flag| flag.boolean()).unwrap_or_default();
    let (force_pull_image, privileged) = (flag("forcePullImage"), flag("privileged"));
    let parameters = docker.get("parameters").and_then(|parameters| parameters.list(read_parameter)).unwrap_or_default();
    Some(Docker { image: image?, force_pull_image, privileged, parameters })
}

fn read_parameter(parameter: &Reader<'_>) -> Option<(String, String)> {
    if !parameter.is_object() {
        return None;
    }
    let key = parameter.required("key").and_then(|key| key.some_text());
    let value = parameter.required("value").and_then(|value| value.text());
    Some((key?, value?))
}

fn read_legacy(docker: &Reader<'_>) -> LegacyDocker {
    let networks =
        [("BRIDGE", LegacyNetwork::Bridge), ("HOST", LegacyNetwork::Host), ("NONE", LegacyNetwork::None), ("USER", LegacyNetwork::User)];
    LegacyDocker {
        network: docker.get("network").and_then(|network| network.choice(&networks)),
        port_mappings: docker.get("portMappings").and_then(|mappings| mappings.list(read_port_mapping)),
        credential: docker.get("credential").is_some(),
    }
}

fn read_port_mapping(mapping: &Reader<'_>) -> Option<PortMapping> {
    if !mapping.is_object() {
        return None;
    }
    let port = |key: &str| mapping.get(key).and_then(|port| port.port()).unwrap_or_default();
    let network_name = |name: &Reader<'_>| name.name(MAX_NETWORK_NAME, true);
    let protocol = mapping.get("protocol").map_or(Some(Protocol::Tcp), |protocol| read_protocol(&protocol));
    let read = PortMapping {
        container_port: port("containerPort"),
        host_port: mapping.get("hostPort").and_then(|port| read_port_number(&port)),
        service_port: port("servicePort"),
        protocol: protocol.unwrap_or(Protocol::Tcp),
        name: mapping.get("name").and_then(|name| name.name(usize::MAX, false)),
        labels: mapping.get("labels").and_then(|labels| labels.texts()).unwrap_or_default(),
        network_names: mapping.get("networkNames").and_then(|names| names.list(network_name)).unwrap_or_default(),
    };
    protocol.map(|_| read)
}

/// A number, or `"@PORT"`.
pub(in crate::model) fn read_port_number(port: &Reader<'_>) -> Option<PortNumber> {
    match port.value().as_str() {
        Some(WANTED_PORT) => Some(PortNumber::Wanted),
        Some(text) if text.starts_with('@') => {
            port.reject("must be a number or \"@PORT\"");
            None
        }
        _ => port.port().map(|port| if port == 0 { PortNumber::Dynamic } else { PortNumber::Fixed(port) }),
    }
}

pub(super) fn read_protocol(protocol: &Reader<'_>) -> Option<Protocol> {
    protocol.choice(&[("tcp", Protocol::Tcp), ("udp", Protocol::Udp), ("udp,tcp", Protocol::Both)])
}

fn read_volume(volume: &Reader<'_>, unsupported: &Violations) -> Option<Volume> {
    if !volume.is_object() {
        return None;
    }
    let container_path = volume.required("containerPath").and_then(|path| path.some_text());
    let modes = [("RO", Mode::Ro), ("RW", Mode::Rw)];
    if let Some(brick) = volume.get("brick") {
        let mode = volume.get("mode").map_or(Some(Mode::Rw), |mode| mode.choice(&modes));
        return read_brick(&brick, container_path, mode, unsupported).map(Volume::Brick);
    }
    if let Some(persistent) = volume.get("persistent") {
        let mode = volume.required("mode").and_then(|mode| mode.choice(&modes));
        let size = read_persistent(&persistent, unsupported);
        return Some(Volume::Persistent(PersistentVolume { container_path: container_path?, mode: mode?, size: size? }));
    }
    if let Some(external) = volume.get("external") {
        let mode = volume.required("mode").and_then(|mode| mode.choice(&modes));
        return read_external(&external, container_path, mode, unsupported).map(Volume::External);
    }
    if let Some(secret) = volume.get("secret") {
        unsupported.add(secret.path(), "secrets are not supported yet");
        return None;
    }
    let host_path = volume.required("hostPath").and_then(|path| path.some_text());
    let mode = volume.required("mode").and_then(|mode| mode.choice(&modes));
    Some(Volume::Host { container_path: container_path?, host_path: host_path?, mode: mode? })
}

fn read_brick(brick: &Reader<'_>, path: Option<String>, mode: Option<Mode>, unsupported: &Violations) -> Option<BrickVolume> {
    if !brick.is_object() {
        return None;
    }
    if let Some(per_instance) = brick.get("perInstance")
        && per_instance.boolean() == Some(true)
    {
        unsupported.add(per_instance.path(), "perInstance bricks are not supported yet");
    }
    let file_systems = [("ext4", FileSystem::Ext4), ("xfs", FileSystem::Xfs)];
    let size = brick.required("size").and_then(|size| size.long(MAX_WHOLE));
    let pool = brick.get("pool").map_or(Some(DEFAULT_POOL.to_owned()), |pool| pool.some_text());
    let file_system = brick.get("fs").and_then(|name| name.choice(&file_systems));
    Some(BrickVolume { container_path: path?, mode: mode?, size: size?, pool: PoolName::new(pool?), file_system })
}

/// The size of a persistent volume in MiB.
///
/// Facts (Marathon 1.11): the type is `root` unless said otherwise; `maxSize` is for mount disks, `constraints` are for path and mount disks.
pub(in crate::model) fn read_persistent(persistent: &Reader<'_>, unsupported: &Violations) -> Option<u64> {
    if !persistent.is_object() {
        return None;
    }
    let size = persistent.required("size").and_then(|size| size.long(MAX_WHOLE));
    let is_root = persistent.get("type").map_or(Some(true), |kind| kind.choice(&[("root", true), ("path", false), ("mount", false)]));
    if is_root == Some(false) {
        unsupported.add(format!("{}/type", persistent.path()), "the nodes of the embedded engine have root disks only");
    }
    let has_some = |key: &str| persistent.get(key).is_some_and(|value| !super::is_empty(value.value()));
    for (key, text) in [
        ("constraints", "Constraints on root volumes are not supported"),
        ("maxSize", "Only mount volumes can have maxSize"),
        ("profileName", "the disks of the embedded engine have no profiles"),
    ] {
        if is_root == Some(true) && has_some(key) {
            unsupported.add(persistent.path(), text);
        }
    }
    size
}

/// What is missing is left empty: Marathon notes it among the other rules, not among the errors of form.
fn read_external(external: &Reader<'_>, path: Option<String>, mode: Option<Mode>, unsupported: &Violations) -> Option<ExternalVolume> {
    if !external.is_object() {
        return None;
    }
    let provider = external.get("provider").map_or(Some(String::new()), |provider| provider.text());
    if provider.as_deref() == Some("csi") {
        // Its options have another form.
        unsupported.add(format!("{}/provider", external.path()), "volumes of CSI plugins are not supported: use the provider dvdi");
        return None;
    }
    let name = external.get("name").map_or(Some(String::new()), |name| name.text());
    let options = external.get("options").map_or(Some(Default::default()), |options| options.texts());
    let size = external.get("size").map_or(Some(None), |size| size.long(MAX_WHOLE).map(Some));
    let shared = external.get("shared").map_or(Some(false), |shared| shared.boolean());
    let options = options?.into_iter().collect();
    Some(ExternalVolume { container_path: path?, mode: mode?, name: name?, provider: provider?, options, size: size?, shared: shared? })
}

/// Up to here every whole number is exact in JSON.
const MAX_WHOLE: u64 = 1 << 53;
