//! How an app is connected: `networks` and its three predecessors (`container.docker.network`, `ipAddress`, `ports`) become one network with port
//! definitions (host) or port mappings (all others).

use std::collections::BTreeSet;

use indexmap::IndexMap;

use super::{
    AppInput, Defaults,
    container::{ContainerInput, LegacyNetwork, read_protocol},
    reader::{Reader, Violations},
};
use crate::model::app::{App, Container, ContainerKind, NamedNetwork, Network, PortDefinition, PortMapping, PortNumber, Protocol};

/// Longest name of a network, as in a host name.
const MAX_NETWORK_NAME: usize = 63;

/// The name of the one port that an app has when it says nothing of ports.
const DEFAULT_PORT: &str = "default";

/// An entry of `networks`.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::model) struct NetworkInput {
    mode: NetworkMode,
    name: Option<String>,
    labels: IndexMap<String, String>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum NetworkMode {
    Container,
    Bridge,
    Host,
}

/// The legacy `ipAddress`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct IpAddressInput {
    network_name: Option<String>,
    labels: IndexMap<String, String>,
    has_discovery: bool,
    discovery_ports: Vec<PortMapping>,
}

pub(in crate::model) fn read(network: &Reader<'_>) -> Option<NetworkInput> {
    if !network.is_object() {
        return None;
    }
    let modes = [("container", NetworkMode::Container), ("container/bridge", NetworkMode::Bridge), ("host", NetworkMode::Host)];
    let mode = network.get("mode").map_or(Some(NetworkMode::Container), |mode| mode.choice(&modes));
    let name = network.get("name").and_then(|name| name.name(MAX_NETWORK_NAME, true));
    let labels = network.get("labels").and_then(|labels| labels.texts()).unwrap_or_default();
    Some(NetworkInput { mode: mode?, name, labels })
}

pub(super) fn read_ip_address(address: &Reader<'_>) -> Option<IpAddressInput> {
    if !address.is_object() {
        return None;
    }
    // Marathon ignores them, too.
    _ = address.get("groups").and_then(|groups| groups.set(Reader::text));
    let discovery = address.get("discovery").filter(Reader::is_object);
    let ports = discovery.as_ref().and_then(|discovery| discovery.get("ports"));
    Some(IpAddressInput {
        network_name: address.get("networkName").and_then(|name| name.some_text()),
        labels: address.get("labels").and_then(|labels| labels.texts()).unwrap_or_default(),
        has_discovery: discovery.is_some(),
        discovery_ports: ports.and_then(|ports| ports.list(read_discovery_port)).unwrap_or_default(),
    })
}

fn read_discovery_port(port: &Reader<'_>) -> Option<PortMapping> {
    if !port.is_object() {
        return None;
    }
    let name = port.required("name").and_then(|name| name.name(usize::MAX, false));
    let protocol = port.get("protocol").map_or(Some(Protocol::Tcp), |protocol| read_protocol(&protocol));
    let read = PortMapping {
        container_port: port.get("number").and_then(|number| number.port()).unwrap_or_default(),
        protocol: protocol.unwrap_or(Protocol::Tcp),
        name,
        labels: port.get("labels").and_then(|labels| labels.texts()).unwrap_or_default(),
        ..dynamic_mapping()
    };
    protocol.map(|_| read)
}

/// Sets network, container, port definitions and what depends on them. `current`: the app before an update.
pub(super) fn connect(input: &AppInput, app: &mut App, current: Option<&App>, defaults: &Defaults, violations: &Violations) {
    refuse_contradictions(input, current.is_none(), violations);
    let kept = || current.map_or((Network::Host, IndexMap::new()), |current| (current.network.clone(), current.bridge_labels.clone()));
    let (network, bridge_labels) = written_network(input, defaults, violations).unwrap_or_else(kept);
    let definitions = written_definitions(input);
    let (container, mappings) = written_container(input, current, &network, violations);
    app.container = container;
    refuse_wanted(definitions.as_deref().filter(|_| network != Network::Host).unwrap_or_default(), violations);
    let kept = || current.filter(|current| current.network == Network::Host).map(|current| current.port_definitions.clone());
    let definitions = definitions.or_else(kept);
    if network == Network::Host {
        // Mappings that were written all the same say nothing.
        set_mappings(app, Vec::new());
        app.port_definitions = definitions.unwrap_or_else(|| vec![default_definition()]);
    } else {
        let mut mappings = mappings.unwrap_or_else(|| vec![default_mapping()]);
        if app.container.is_some() {
            let count = definitions.map_or(0, |definitions| definitions.len()).max(mappings.len());
            mappings.resize_with(count, dynamic_mapping);
        }
        if network == Network::Bridge {
            mappings.iter_mut().for_each(|mapping| _ = mapping.host_port.get_or_insert(PortNumber::Dynamic));
        }
        app.container.get_or_insert_with(empty_container);
        set_mappings(app, mappings);
        app.port_definitions = Vec::new();
        app.require_ports = false;
    }
    app.network = network;
    app.bridge_labels = bridge_labels;
}

/// `whole`: the input is no update. In an update the legacy ways to write ports have become the present one before anyone compares them.
fn refuse_contradictions(input: &AppInput, whole: bool, violations: &Violations) {
    let networks = input.networks.as_ref().is_some_and(|networks| !networks.is_empty());
    let legacy_network = input.container.as_ref().is_some_and(|container| container.legacy.network.is_some());
    if networks && legacy_network {
        violations.add("/", "must not specify both container.docker.network and networks");
    }
    if networks && input.ip_address.is_some() {
        violations.add("/", "must not specify both networks and ipAddress");
    }
    let numbers = |ports: &[PortDefinition]| ports.iter().map(|definition| definition.port.number()).collect::<Vec<_>>();
    let definitions = input.port_definitions.as_deref();
    let has_ports = input.ports.as_ref().is_some_and(|ports| !ports.is_empty()) || definitions.is_some_and(|ports| !ports.is_empty());
    if whole && input.ip_address.is_some() && has_ports {
        violations.add("/", "cannot specify both an IP address and port");
    }
    if let Some(ports) = input.ports.as_ref().filter(|_| whole) {
        if definitions.is_some_and(|definitions| numbers(definitions) != *ports) {
            violations.add("/", "cannot specify both ports and port definitions");
        }
        let mut fixed: Vec<u16> = ports.iter().copied().filter(|&port| port != 0).collect();
        fixed.sort_unstable();
        if fixed.windows(2).any(|pair| pair[0] == pair[1]) {
            violations.add("/", "ports must be unique");
        }
    }
    if let Some(container) = &input.container {
        refuse_legacy_container(container, input.ip_address.as_ref(), violations);
    }
}

fn refuse_legacy_container(container: &ContainerInput, address: Option<&IpAddressInput>, violations: &Violations) {
    let Some(docker) = &container.docker else { return };
    let legacy = &container.legacy;
    if legacy.credential {
        violations.add("/container/docker/credential", "must be empty");
    }
    match container.kind {
        ContainerKind::Docker if address.is_some_and(|address| address.has_discovery) => {
            violations.add("/ipAddress", "ipAddress/discovery is not allowed for Docker containers");
        }
        ContainerKind::Docker => {}
        ContainerKind::Mesos => {
            for (key, written) in [
                ("network", legacy.network.is_some()),
                ("parameters", !docker.parameters.is_empty()),
                ("portMappings", legacy.port_mappings.is_some()),
            ] {
                if written {
                    violations.add(format!("/container/docker/{key}"), "must be empty");
                }
            }
        }
    }
}

/// The network that the input itself names, in whatever form, and its labels in bridge mode.
fn written_network(input: &AppInput, defaults: &Defaults, violations: &Violations) -> Option<(Network, IndexMap<String, String>)> {
    let legacy = input.container.as_ref().and_then(|container| container.legacy.network);
    if let Some(networks) = &input.networks
        && !(networks.is_empty() && (legacy.is_some() || input.ip_address.is_some()))
    {
        return Some(canonical_network(networks, defaults, violations));
    }
    let (name, labels) = match &input.ip_address {
        Some(address) => (address.network_name.clone(), address.labels.clone()),
        None => (None, IndexMap::new()),
    };
    let mode = match (legacy, &input.ip_address) {
        (Some(LegacyNetwork::Host), _) => NetworkMode::Host,
        (Some(LegacyNetwork::Bridge), _) => NetworkMode::Bridge,
        (Some(LegacyNetwork::User), _) => NetworkMode::Container,
        (Some(LegacyNetwork::None), _) => {
            violations.add("/container/docker/network", "unsupported docker network type NONE");
            return None;
        }
        (None, Some(_)) if name.as_deref() == Some(defaults.bridge_name.as_str()) => NetworkMode::Bridge,
        (None, Some(_)) => NetworkMode::Container,
        (None, None) => return None,
    };
    let network = match mode {
        NetworkMode::Host => NetworkInput { mode, name: None, labels: IndexMap::new() },
        NetworkMode::Bridge => NetworkInput { mode, name: None, labels },
        NetworkMode::Container => NetworkInput { mode, name, labels },
    };
    Some(canonical_network(&[network], defaults, violations))
}

/// The one network that a list of networks means, and its labels in bridge mode; none is the host's.
pub(in crate::model) fn canonical_network(
    networks: &[NetworkInput],
    defaults: &Defaults,
    violations: &Violations,
) -> (Network, IndexMap<String, String>) {
    let of_mode = |mode: NetworkMode| networks.iter().filter(move |network| network.mode == mode);
    if of_mode(NetworkMode::Host).any(|network| network.name.is_some() || !network.labels.is_empty()) {
        violations.add("/networks", "Host networks may not have names or labels");
    }
    if of_mode(NetworkMode::Bridge).any(|network| network.name.is_some()) {
        violations.add("/networks", "Bridge networks may not have names");
    }
    let named = named_networks(of_mode(NetworkMode::Container), defaults, violations);
    let (hosts, bridges) = (of_mode(NetworkMode::Host).count(), of_mode(NetworkMode::Bridge).count());
    if hosts + bridges > 1 || hosts + bridges == 1 && networks.len() > 1 {
        let text = "May specify a single host network, single bridge network, or else 1-to-n container networks";
        violations.add("/networks", text);
    }
    let no_labels = IndexMap::new();
    match networks.first() {
        None | Some(NetworkInput { mode: NetworkMode::Host, .. }) => (Network::Host, no_labels),
        Some(NetworkInput { mode: NetworkMode::Bridge, labels, .. }) => (Network::Bridge, labels.clone()),
        Some(NetworkInput { mode: NetworkMode::Container, .. }) => (Network::Container(named), no_labels),
    }
}

fn named_networks<'a>(networks: impl Iterator<Item = &'a NetworkInput>, defaults: &Defaults, violations: &Violations) -> Vec<NamedNetwork> {
    let mut names = BTreeSet::new();
    let mut named = Vec::new();
    let (mut nameless, mut repeated) = (false, false);
    for network in networks {
        let name = network.name.as_ref().or(defaults.network_name.as_ref());
        nameless |= name.is_none();
        repeated |= !names.insert(name);
        named.extend(name.map(|name| NamedNetwork { name: name.clone(), labels: network.labels.clone() }));
    }
    if repeated {
        violations.add("/networks", "Duplicate networks are not allowed");
    }
    if nameless {
        violations.add("/networks", "Network name must be specified when container network is selected.");
    }
    named
}

/// `portDefinitions`, or what `ports` says of them.
fn written_definitions(input: &AppInput) -> Option<Vec<PortDefinition>> {
    let from_number = |&port: &u16| PortDefinition {
        port: if port == 0 { PortNumber::Dynamic } else { PortNumber::Fixed(port) },
        name: None,
        ..default_definition()
    };
    input.port_definitions.clone().or_else(|| input.ports.as_ref().map(|ports| ports.iter().map(from_number).collect()))
}

/// The container without its mappings, and the mappings that are said for `network`: written, or kept from before an update.
fn written_container(
    input: &AppInput,
    current: Option<&App>,
    network: &Network,
    violations: &Violations,
) -> (Option<Container>, Option<Vec<PortMapping>>) {
    let discovery = input.ip_address.as_ref().map(|address| address.discovery_ports.clone()).filter(|ports| !ports.is_empty());
    let Some(container) = &input.container else {
        let kept = current.and_then(|current| current.container.clone());
        let stays = current.is_some_and(|current| current.network != Network::Host) && *network != Network::Host;
        let mappings = kept.as_ref().filter(|_| stays).map(|container| container.port_mappings.clone());
        let container = kept.or_else(|| input.ip_address.as_ref().map(|_| empty_container()));
        return (container, discovery.or(mappings));
    };
    if container.kind == ContainerKind::Docker && container.docker.is_none() {
        violations.add("/container/docker", "not defined");
    }
    // An old client leaves Docker's mappings standing when it switches to the host's network; Marathon drops them.
    let legacy = container.legacy.port_mappings.as_ref().filter(|_| *network != Network::Host);
    let mappings = match (&container.port_mappings, legacy) {
        (Some(_), Some(legacy)) if !legacy.is_empty() => {
            violations.add("/container", "cannot specify both portMappings and docker.portMappings");
            None
        }
        (Some(mappings), _) => Some(mappings),
        (None, legacy) => legacy,
    };
    if discovery.is_some() && mappings.is_some_and(|mappings| !mappings.is_empty()) {
        violations.add("/container", "container.portMappings and ipAddress.discovery.ports must not both be set");
    }
    let read = Container {
        kind: container.kind,
        docker: container.docker.clone(),
        port_mappings: Vec::new(),
        volumes: container.volumes.clone(),
        linux_info: container.linux_info.clone(),
    };
    (Some(read), discovery.or_else(|| mappings.cloned()))
}

/// Outside the host's network definitions only count, so that one which wants a port would be forgotten silently.
fn refuse_wanted(definitions: &[PortDefinition], violations: &Violations) {
    for (index, definition) in definitions.iter().enumerate() {
        if definition.port == PortNumber::Wanted {
            let text = "\"@PORT\" is for host networking here; otherwise it belongs into container.portMappings[].hostPort";
            violations.add(format!("/portDefinitions({index})/port"), text);
        }
    }
}

fn set_mappings(app: &mut App, mappings: Vec<PortMapping>) {
    if let Some(container) = &mut app.container {
        container.port_mappings = mappings;
    }
}

/// What an app with its own network has when it names no container.
fn empty_container() -> Container {
    Container { kind: ContainerKind::Mesos, docker: None, port_mappings: Vec::new(), volumes: Vec::new(), linux_info: None }
}

fn default_definition() -> PortDefinition {
    PortDefinition { port: PortNumber::Dynamic, protocol: Protocol::Tcp, name: Some(DEFAULT_PORT.into()), labels: IndexMap::new() }
}

fn default_mapping() -> PortMapping {
    PortMapping { name: Some(DEFAULT_PORT.into()), ..dynamic_mapping() }
}

fn dynamic_mapping() -> PortMapping {
    PortMapping {
        container_port: 0,
        host_port: None,
        service_port: 0,
        protocol: Protocol::Tcp,
        name: None,
        labels: IndexMap::new(),
        network_names: Vec::new(),
    }
}
