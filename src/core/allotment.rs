//! What stays with an app id for good: the numbers behind `@PORT`, the bricks, and the service ports of a definition.
//!
//! Nothing here changes the state: each function says what would have to be written, so that a request is refused as a whole or not at all.

pub mod token;

use std::collections::BTreeSet;

use super::{owned, turn::Turn};
use crate::model::{
    app::{App, BrickVolume, EnvValue, Network, PortNumber},
    brick::{Brick, brick_name, normal_container_path},
    id::{Owner, PathId},
    port::{PortClaim, Position},
    request::{Origin, RequestError, Violation},
    resources::PortRange,
};

/// What a definition gets besides itself.
#[derive(Clone, Debug, Default)]
pub(super) struct Allotted {
    pub(super) claims: Vec<PortClaim>,
    pub(super) bricks: Vec<Brick>,
}

/// Numbers given out by the request at hand, which are not in the tables yet.
#[derive(Clone, Debug, Default)]
pub(super) struct Taken {
    ports: BTreeSet<u16>,
    service_ports: BTreeSet<u16>,
    /// The last one given out, 0 before the first.
    last_service_port: u16,
}

/// Where `@PORT` stands in the definition: first `env`, each token once, then mappings or definitions, in the order written.
pub fn positions(app: &App) -> Vec<Position> {
    let mut positions = Vec::new();
    for value in app.env.values() {
        let EnvValue::Text(text) = value else { continue };
        for index in token::tokens(text) {
            if !positions.contains(&Position::Env(index)) {
                positions.push(Position::Env(index));
            }
        }
    }
    let is_claim = |port: PortNumber| matches!(port, PortNumber::Wanted | PortNumber::Allotted(_));
    for (at, mapping) in app.port_mappings().iter().enumerate() {
        if mapping.host_port.is_some_and(is_claim) {
            positions.push(Position::PortMapping(at as u16));
        }
    }
    for (at, definition) in app.port_definitions.iter().enumerate() {
        if is_claim(definition.port) {
            positions.push(Position::PortDefinition(at as u16));
        }
    }
    positions
}

/// True when the definition has an `@PORT` at `position`; a claim outlives the line that asked for it.
pub fn is_used(app: &App, position: Position) -> bool {
    let is_claim = |port: PortNumber| matches!(port, PortNumber::Wanted | PortNumber::Allotted(_));
    match position {
        Position::Env(index) => {
            app.env.values().any(|value| matches!(value, EnvValue::Text(text) if token::tokens(text).any(|found| found == index)))
        }
        Position::PortDefinition(at) => app.port_definitions.get(usize::from(at)).is_some_and(|definition| is_claim(definition.port)),
        Position::PortMapping(at) => app.port_mappings().get(usize::from(at)).and_then(|mapping| mapping.host_port).is_some_and(is_claim),
    }
}

/// Fills in every number that the definition leaves to us, and says which claims and bricks go with it.
pub(super) fn allot(
    turn: &mut Turn<'_, '_>,
    app: &mut App,
    current: Option<&App>,
    origin: &Origin,
    taken: &mut Taken,
) -> Result<Allotted, RequestError> {
    let owner = app.owner.clone().unwrap_or_else(|| super::ownership::owner(turn, origin, &app.id));
    keep_own_numbers(turn, app);
    let mut claims = claims_of_written_numbers(turn, app, &owner, origin, taken)?;
    for position in positions(app) {
        if claims.iter().any(|claim| claim.position == position) {
            continue;
        }
        let (port, claim) = claim(turn, app, position, &owner, origin, taken)?;
        claims.extend(claim);
        set_port(app, position, port);
    }
    let bricks = app.bricks().map(|volume| brick(turn, app, volume, &owner, origin)).collect::<Result<Vec<_>, _>>()?;
    // Marathon knows none for pods.
    if app.pod.is_none() {
        front_is_free(turn, app, current, &owner, origin)?;
        service_ports(turn, app, current, taken)?;
    }
    Ok(Allotted { claims, bricks: bricks.into_iter().flatten().collect() })
}

/// A number that stands where the app has a claim on just that number is that claim: what `GET` showed can be sent back, also after a destroy.
fn keep_own_numbers(turn: &Turn<'_, '_>, app: &mut App) {
    let id = app.id.clone();
    let own = |position, port: PortNumber| match port {
        PortNumber::Fixed(number) if turn.state.claims.get(&(id.clone(), position)) == Some(&number) => PortNumber::Allotted(number),
        port => port,
    };
    for (at, definition) in app.port_definitions.iter_mut().enumerate() {
        definition.port = own(Position::PortDefinition(at as u16), definition.port);
    }
    for (at, mapping) in app.container.iter_mut().flat_map(|container| &mut container.port_mappings).enumerate() {
        mapping.host_port = mapping.host_port.map(|port| own(Position::PortMapping(at as u16), port));
    }
}

/// A number in the range of host mode, written by an administrator with `requirePorts`, is claimed as if `@PORT` had given it: nodes do not offer it, so
/// nothing else could make sure that it is free. Such is the registry's port 5000, which `@PORT` never gives. (On Marathon such an app would wait for
/// an offer that never comes, and here so does that of another user.)
fn claims_of_written_numbers(
    turn: &Turn<'_, '_>,
    app: &mut App,
    owner: &Owner,
    origin: &Origin,
    taken: &mut Taken,
) -> Result<Vec<PortClaim>, RequestError> {
    let mut claims = Vec::new();
    if !origin.admin || !app.require_ports || app.network != Network::Host {
        return Ok(claims);
    }
    for (at, definition) in app.port_definitions.iter_mut().enumerate() {
        let PortNumber::Fixed(port) = definition.port else { continue };
        if !turn.state.settings.host_mode_ports.contains(port) {
            continue;
        }
        let invalid = |text: String| RequestError::Invalid(vec![Violation::new(format!("/portDefinitions({at})/port"), text)]);
        let position = Position::PortDefinition(at as u16);
        if let Some(kept) = turn.state.claims.get(&(app.id.clone(), position)) {
            return Err(invalid(format!("this app has the port {kept} here for good; release it first (DELETE /v2/ports/{kept})")));
        }
        if let Some(other) = turn.state.tables.ports.get(&port) {
            return Err(invalid(format!("port {port} is claimed by app '{}'", other.app)));
        }
        if !taken.ports.insert(port) {
            return Err(invalid(format!("port {port} is wanted twice")));
        }
        definition.port = PortNumber::Allotted(port);
        claims.push(PortClaim { port, app: app.id.clone(), position, owner: owner.clone(), created_at: turn.wall() });
    }
    Ok(claims)
}

fn set_port(app: &mut App, position: Position, port: u16) {
    match position {
        Position::Env(_) => {}
        Position::PortDefinition(at) => app.port_definitions[usize::from(at)].port = PortNumber::Allotted(port),
        Position::PortMapping(at) => {
            if let Some(container) = &mut app.container {
                container.port_mappings[usize::from(at)].host_port = Some(PortNumber::Allotted(port));
            }
        }
    }
}

/// The number for one position: the one it always had, or the next free one of its range.
fn claim(
    turn: &mut Turn<'_, '_>,
    app: &App,
    position: Position,
    owner: &Owner,
    origin: &Origin,
    taken: &mut Taken,
) -> Result<(u16, Option<PortClaim>), RequestError> {
    if let Some(port) = turn.state.claims.get(&(app.id.clone(), position)).copied() {
        let kept = turn.state.tables.ports.get(&port).is_some_and(|claim| claim.owner == *owner || origin.admin);
        return if kept { Ok((port, None)) } else { Err(RequestError::AppExists(app.id.clone())) };
    }
    let (range, cursor, option) = match app.network {
        Network::Host => (turn.state.settings.host_mode_ports, 0, "host_mode_ports"),
        Network::Bridge | Network::Container(_) => (turn.state.settings.bridge_mode_ports, 1, "bridge_mode_ports"),
    };
    let Some(port) = free_port(turn, range, cursor, taken) else {
        let path = match position {
            Position::Env(_) => "/env".to_owned(),
            Position::PortDefinition(at) => format!("/portDefinitions({at})/port"),
            Position::PortMapping(at) => format!("/container/portMappings({at})/hostPort"),
        };
        let text = format!("no port for @PORT is left in the range {range}: release one, or widen --{option}");
        return Err(RequestError::Invalid(vec![Violation::new(path, text)]));
    };
    taken.ports.insert(port);
    let created_at = turn.wall();
    Ok((port, Some(PortClaim { port, app: app.id.clone(), position, owner: owner.clone(), created_at })))
}

/// The next number after the last one given out, around the range once. What was just released is thereby not given to someone else at once.
fn free_port(turn: &mut Turn<'_, '_>, range: PortRange, cursor: usize, taken: &Taken) -> Option<u16> {
    let start = turn.state.cursors[cursor].clamp(range.begin, range.end);
    let is_free = |port: &u16| {
        !turn.state.tables.ports.contains_key(port) && !taken.ports.contains(port) && !turn.state.settings.reserved_ports.contains(port)
    };
    let port = (start..=range.end).chain(range.begin..start).find(is_free)?;
    turn.state.cursors[cursor] = if port == range.end { range.begin } else { port + 1 };
    Some(port)
}

/// The brick that a volume asks for: made when it is new, larger when more is asked for, else as it is (`None`).
fn brick(turn: &Turn<'_, '_>, app: &App, volume: &BrickVolume, owner: &Owner, origin: &Origin) -> Result<Option<Brick>, RequestError> {
    let at = app
        .container
        .iter()
        .flat_map(|container| &container.volumes)
        .position(|other| matches!(other, crate::model::app::Volume::Brick(brick) if brick.container_path == volume.container_path));
    let invalid = |field: &str, text: String| {
        RequestError::Invalid(vec![Violation::new(format!("/container/volumes({})/{field}", at.unwrap_or(0)), text)])
    };
    let path = normal_container_path(&volume.container_path).map_err(|error| invalid("containerPath", error.to_string()))?;
    let name = brick_name(&app.id, &path);
    let Some(present) = turn.state.tables.bricks.get(&name) else { return Ok(Some(new_brick(turn, app, volume, path, owner))) };
    if present.owner != *owner && !origin.admin {
        return Err(RequestError::AppExists(app.id.clone()));
    }
    if present.condemned {
        return Err(RequestError::Conflict(format!("brick '{name}' is being deleted; try again when it is gone")));
    }
    if volume.size < present.size {
        let text = format!("brick '{name}' has {} MiB already; a brick cannot shrink (asked for: {} MiB)", present.size, volume.size);
        return Err(invalid("brick/size", text));
    }
    if volume.pool != present.pool {
        return Err(invalid("brick/pool", format!("brick '{name}' lies in pool '{}' and cannot move to '{}'", present.pool, volume.pool)));
    }
    if volume.file_system.is_some_and(|wanted| wanted != present.file_system) {
        return Err(invalid("brick/fs", format!("brick '{name}' has {} and keeps it", present.file_system.as_str())));
    }
    Ok((volume.size > present.size).then(|| Brick { size: volume.size, ..(**present).clone() }))
}

/// A brick that has no data yet.
pub(super) fn new_brick(turn: &Turn<'_, '_>, app: &App, volume: &BrickVolume, container_path: String, owner: &Owner) -> Brick {
    Brick {
        name: brick_name(&app.id, &container_path),
        app: app.id.clone(),
        container_path,
        size: volume.size,
        pool: volume.pool.clone(),
        file_system: volume.file_system.unwrap_or_default(),
        owner: owner.clone(),
        created_at: turn.wall(),
        home: None,
        epoch: turn.state.tables.meta.last_epoch,
        lease: None,
        last_mounted: None,
        condemned: false,
        reservation: None,
    }
}

/// What load balancers lead to an app by is nobody else's: a second user who writes the same service port or the same virtual host would be given a part
/// of the first one's requests. Between apps of one user, and for administrators, it is as in Marathon, where apps may share them; what an app has
/// already, it keeps.
fn front_is_free(turn: &Turn<'_, '_>, app: &App, current: Option<&App>, owner: &Owner, origin: &Origin) -> Result<(), RequestError> {
    if origin.admin {
        return Ok(());
    }
    let (state, tables) = (&turn.state, &turn.state.tables);
    let is_anothers = |apps: Option<&BTreeSet<PathId>>| {
        apps.into_iter().flatten().any(|other| tables.owner_of(other).is_some_and(|other| other != owner))
    };
    let kept_ports: BTreeSet<u16> = current.into_iter().flat_map(owned::service_ports).collect();
    let is_taken = |port: u16| {
        let is_claimed = tables.ports.get(&port).is_some_and(|claim| claim.owner != *owner);
        port != 0 && !kept_ports.contains(&port) && (is_claimed || is_anothers(state.service_ports.get(&port)))
    };
    let written = |port: PortNumber| if let PortNumber::Fixed(port) = port { port } else { 0 };
    let definitions = app.port_definitions.iter().enumerate().map(|(at, one)| (format!("/portDefinitions({at})/port"), written(one.port)));
    let mappings = app.port_mappings().iter().enumerate();
    let mappings = mappings.map(|(at, one)| (format!("/container/portMappings({at})/servicePort"), one.service_port));
    let ports = definitions.chain(mappings).filter(|(_, port)| is_taken(*port));
    let ports = ports.map(|(path, port)| Violation::new(path, format!("service port {port} is another user's; 0 stands for a free one")));
    let kept_hosts: BTreeSet<String> = current.into_iter().flat_map(owned::virtual_hosts).map(|(_, host)| host).collect();
    let hosts = owned::virtual_hosts(app).filter(|(_, host)| !kept_hosts.contains(host) && is_anothers(state.virtual_hosts.get(host)));
    let hosts = hosts.map(|(label, host)| Violation::new(format!("/labels({label})"), format!("virtual host '{host}' is another user's")));
    let violations: Vec<Violation> = ports.chain(hosts).collect();
    if violations.is_empty() { Ok(()) } else { Err(RequestError::Invalid(violations)) }
}

/// Gives every port a service port that is unique in the cluster. As in Marathon those that the app had and does not name are used first, in their order,
/// then the lowest free ones.
fn service_ports(turn: &mut Turn<'_, '_>, app: &mut App, current: Option<&App>, taken: &mut Taken) -> Result<(), RequestError> {
    let (min, max) = (turn.state.settings.local_port_min, turn.state.settings.local_port_max);
    let given: BTreeSet<u16> = owned::service_ports(app).collect();
    let before: Vec<u16> = current.map(|current| owned::service_ports(current).collect()).unwrap_or_default();
    let mut kept = before.into_iter().filter(|port| (min..=max).contains(port) && !given.contains(port));
    taken.service_ports.extend(&given);
    let mut next = || kept.next().map_or_else(|| free_service_port(turn, taken), Ok);
    for definition in &mut app.port_definitions {
        if definition.port == PortNumber::Dynamic {
            definition.port = PortNumber::Fixed(next()?);
        }
    }
    let Some(container) = &mut app.container else { return Ok(()) };
    for mapping in container.port_mappings.iter_mut().filter(|mapping| mapping.service_port == 0) {
        mapping.service_port = next()?;
    }
    Ok(())
}

fn free_service_port(turn: &mut Turn<'_, '_>, taken: &mut Taken) -> Result<u16, RequestError> {
    let (min, max) = (turn.state.settings.local_port_min, turn.state.settings.local_port_max);
    let used = &turn.state.service_ports;
    let first = turn.state.lowest_service_port.max(min);
    let first = (first..=max).find(|port| !used.contains_key(port)).ok_or(RequestError::ServicePortsExhausted(min, max))?;
    // A request's own come one after the other.
    let is_free = |port: &u16| !used.contains_key(port) && !taken.service_ports.contains(port);
    let mut candidates = first.max(taken.last_service_port.saturating_add(1))..=max;
    let port = candidates.find(is_free).ok_or(RequestError::ServicePortsExhausted(min, max))?;
    turn.state.lowest_service_port = first;
    taken.service_ports.insert(port);
    taken.last_service_port = port;
    Ok(port)
}
