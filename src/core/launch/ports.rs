//! The ports of a launch: fixed and claimed ones first, then dynamic ones from what the offer has left.
//!
//! A number that anyone has claimed is never given out as a dynamic one. A claimed number outside the offered range (host mode) is free on a node
//! as long as no other instance of the app that uses it lives there, because no other app can have it.

use crate::{
    core::turn::Turn,
    model::{
        app::{App, Network, PortNumber},
        id::AgentId,
        port::Position,
        resources::Resources,
    },
};

/// What a launch gets.
pub(super) struct Picked {
    /// One for each port definition, or for each mapping that has a host port, in order.
    pub(super) host_ports: Vec<u16>,
    /// The container's port for each mapping, in order.
    pub(super) container_ports: Vec<u16>,
    /// Those that came out of the offer.
    pub(super) taken: Vec<u16>,
}

/// `None` when the offer cannot serve every port.
pub(super) fn pick(turn: &mut Turn<'_, '_>, app: &App, agent: &AgentId, rest: &Resources) -> Option<Picked> {
    let has_claims = app_claims(turn, app).next().is_some();
    if has_claims && is_claim_in_use(turn, app, agent) {
        return None;
    }
    let wanted = wanted(app);
    if wanted.is_empty() && !has_claims {
        return Some(Picked { host_ports: Vec::new(), container_ports: container_ports(turn, app, &[]), taken: Vec::new() });
    }
    let mut left = rest.clone();
    let mut taken = Vec::new();
    let offered = turn.state.settings.bridge_mode_ports;
    let claimed: Vec<u16> = app_claims(turn, app).filter(|port| offered.contains(*port)).collect();
    for port in claimed {
        left.take_port(port).then(|| taken.push(port))?;
    }
    for want in &wanted {
        if let PortNumber::Fixed(port) = want {
            let free = !turn.state.tables.ports.contains_key(port) && left.take_port(*port);
            free.then(|| taken.push(*port))?;
        }
    }
    let mut host_ports = Vec::with_capacity(wanted.len());
    for want in &wanted {
        host_ports.push(match want {
            PortNumber::Fixed(port) | PortNumber::Allotted(port) => *port,
            PortNumber::Dynamic | PortNumber::Wanted => {
                let port = dynamic(turn, &left)?;
                left.take_port(port);
                taken.push(port);
                port
            }
        });
    }
    Some(Picked { container_ports: container_ports(turn, app, &host_ports), host_ports, taken })
}

/// The host ports that are wanted. In host mode a plain number is a service port only, unless ports are required.
fn wanted(app: &App) -> Vec<PortNumber> {
    match app.network {
        Network::Host => app
            .port_definitions
            .iter()
            .map(|definition| match definition.port {
                PortNumber::Fixed(_) if !app.require_ports => PortNumber::Dynamic,
                port => port,
            })
            .collect(),
        Network::Bridge | Network::Container(_) => app.port_mappings().iter().filter_map(|mapping| mapping.host_port).collect(),
    }
}

/// An instance that lives on the node has one of the numbers that the app claims. One of a version that does not use them is in nobody's way.
fn is_claim_in_use(turn: &Turn<'_, '_>, app: &App, agent: &AgentId) -> bool {
    let Some(versions) = turn.state.index.get(&app.id).and_then(|index| index.on_agents.get(agent)) else { return false };
    let uses_one = |other: &App| app_claims(turn, other).any(|port| app_claims(turn, app).any(|own| own == port));
    versions.keys().any(|version| turn.state.tables.definition(&app.id, *version).is_none_or(|other| uses_one(other)))
}

fn app_claims<'a>(turn: &'a Turn<'_, '_>, app: &'a App) -> impl Iterator<Item = u16> + 'a {
    let range = (app.id.clone(), Position::Env(0))..=(app.id.clone(), Position::PortMapping(u16::MAX));
    turn.state.claims.range(range).filter(|((_, position), _)| crate::core::allotment::is_used(app, *position)).map(|(_, port)| *port)
}

/// A random start, so that a port is not used again at once, then the next one that nobody has claimed.
fn dynamic(turn: &mut Turn<'_, '_>, left: &Resources) -> Option<u16> {
    let count: usize = left.ports.iter().map(|range| range.count()).sum();
    if count == 0 {
        return None;
    }
    let start = turn.random_below(count);
    let all = || left.ports.iter().flat_map(|range| range.begin..=range.end);
    all().skip(start).chain(all().take(start)).find(|port| !turn.state.tables.ports.contains_key(port))
}

/// A declared 0 is the same as the host port; without one, any number above the privileged ones.
fn container_ports(turn: &mut Turn<'_, '_>, app: &App, host_ports: &[u16]) -> Vec<u16> {
    let mut hosts = host_ports.iter();
    let declared = |port| host_ports.contains(&port) || app.port_mappings().iter().any(|mapping| mapping.container_port == port);
    let mut ports: Vec<u16> = Vec::new();
    for mapping in app.port_mappings() {
        let host = mapping.host_port.and_then(|_| hosts.next().copied());
        ports.push(match (mapping.container_port, host) {
            (0, Some(port)) => port,
            (0, None) => loop {
                let port = 1025 + turn.random_below(64_000) as u16;
                if !ports.contains(&port) && !declared(port) {
                    break port;
                }
            },
            (port, _) => port,
        });
    }
    ports
}
