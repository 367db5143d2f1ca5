//! Where a service is reached: `endpoints` in an app's JSON. Ours; Marathon has nothing like it.
//!
//! Shown unasked for apps that use `@PORT` or bricks, and for every app with `embed=endpoints`: an app that uses nothing of ours looks exactly as on
//! Marathon.
//!
//! Order: allotted ports first, those of the environment before those of definitions and mappings, each in the order written; then the other ports
//! in theirs. So the first endpoint is the one that was asked for with `@PORT`.
//!
//! A port that the offer decides (`0`) is known only while exactly one instance runs; otherwise `port` is absent, because no single number reaches
//! every instance: ask the name server for SRV, or the load balancer for the service port.
//!
//! Names are those of the name server (facts: Mesos-DNS): the id's segments reversed, dots and slashes as dashes, cut to 63 bytes, below the
//! framework's name. Host networking: `<label>.marathon.mesos`. Ports forwarded by the node: `<label>.marathon.slave.mesos`. A port that only the
//! container's own address has: `<label>.marathon.mesos` and the container's port.

use serde::Serialize;

use crate::{
    api::access::Seen,
    model::{
        app::{App, EnvValue, Network, PortNumber, Protocol},
        id::PathId,
        instance::{Condition, Instance},
        port::{PortClaim, Position, token},
    },
    naming::label::Rule,
};

/// One way to reach an app.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// The environment variable that holds the port, or the port's name, or `PORT0` and so on after the variable that Marathon sets.
    pub name: String,
    /// A domain name of the platform.
    pub host: String,
    /// `None`: not known, or different for each instance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// `tcp`, `udp` or `udp,tcp`.
    pub protocol: &'static str,
    /// The port within the container; with host networking the same as `port`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container_port: Option<u16>,
}

/// Below which names the name server answers.
#[derive(Clone, Copy, Debug)]
pub struct Names<'a> {
    /// The framework's name, such as `marathon`.
    pub framework: &'a str,
    /// The domain, such as `mesos`.
    pub domain: &'a str,
}

/// Every way to reach `app`, the most wanted first. `claims` are the app's own. Costs in proportion to the app's ports, claims and instances.
pub fn endpoints(app: &App, claims: &[&PortClaim], seen: &Seen, names: Names<'_>) -> Vec<Endpoint> {
    let framework = Rule::default().fragment(names.framework);
    let label = label(&app.id);
    let host = |part: &str| format!("{label}.{framework}.{part}{}", names.domain);
    let (own, node) = (host(""), host("slave."));
    let main = if app.network == Network::Bridge { &node } else { &own };

    let mut found: Vec<(bool, Endpoint)> = allotted_in_env(app, claims)
        .into_iter()
        .map(|(name, port)| {
            let endpoint = Endpoint { name, host: main.clone(), port: Some(port), protocol: "tcp", container_port: Some(port) };
            (true, endpoint)
        })
        .collect();
    found.extend(declared(app, seen, &own, &node));
    found.sort_by_key(|(allotted, _)| !allotted);
    found.into_iter().map(|(_, endpoint)| endpoint).collect()
}

/// True when the app uses what Marathon does not have: `@PORT` or a brick.
pub fn is_extended(app: &App) -> bool {
    let in_env = |value: &EnvValue| matches!(value, EnvValue::Text(text) if token::tokens(text).next().is_some());
    app.env.values().any(in_env)
        || app.port_definitions.iter().any(|definition| is_allotted(definition.port))
        || app.port_mappings().iter().any(|mapping| mapping.host_port.is_some_and(is_allotted))
        || app.bricks().next().is_some()
}

fn is_allotted(port: PortNumber) -> bool {
    matches!(port, PortNumber::Allotted(_) | PortNumber::Wanted)
}

/// The label of an app below the framework's name: `/shop/v2/api` is `api-v2-shop`.
pub fn label(app: &PathId) -> String {
    Rule::default().label(&app.host_form())
}

/// The ports of definitions or mappings, and whether they are allotted.
fn declared(app: &App, seen: &Seen, own: &str, node: &str) -> Vec<(bool, Endpoint)> {
    let mut placed = Placed::of(app, seen);
    if app.network == Network::Host {
        let definitions = app.port_definitions.iter().enumerate().map(|(index, definition)| {
            let offered = placed.next();
            let port = match definition.port {
                PortNumber::Allotted(port) => Some(port),
                PortNumber::Fixed(port) if app.require_ports && port != 0 => Some(port),
                _ => offered,
            };
            let name = definition.name.clone().unwrap_or_else(|| format!("PORT{index}"));
            let protocol = definition.protocol.as_str();
            (is_allotted(definition.port), Endpoint { name, host: own.to_owned(), port, protocol, container_port: port })
        });
        return definitions.collect();
    }
    let mappings = app.port_mappings().iter().enumerate().map(|(index, mapping)| {
        let declared = Some(mapping.container_port).filter(|port| *port != 0);
        let (host, port) = match mapping.host_port {
            None => (own, declared),
            Some(wanted) => {
                let offered = placed.next();
                let fixed = Some(wanted.number()).filter(|port| *port != 0);
                (node, fixed.or(offered))
            }
        };
        let name = mapping.name.clone().unwrap_or_else(|| format!("PORT{index}"));
        let protocol = Protocol::as_str(mapping.protocol);
        let endpoint = Endpoint { name, host: host.to_owned(), port, protocol, container_port: declared.or(port) };
        (mapping.host_port.is_some_and(is_allotted), endpoint)
    });
    mappings.collect()
}

/// The host ports of the only instance that runs, in the order of the definitions or of the mappings that have one.
struct Placed<'a> {
    ports: std::slice::Iter<'a, u16>,
}

impl<'a> Placed<'a> {
    fn of(app: &App, seen: &'a Seen) -> Self {
        let alone = seen.tally(&app.id).is_some_and(|tally| tally.running() == 1);
        let running = |instance: &&std::sync::Arc<Instance>| instance.condition == Condition::Running;
        let only = alone.then(|| seen.instances_of(&app.id).find(running)).flatten();
        let ports = only.and_then(|instance| instance.placement.as_ref()).map_or([].as_slice(), |placement| &placement.ports);
        Self { ports: ports.iter() }
    }

    fn next(&mut self) -> Option<u16> {
        self.ports.next().copied()
    }
}

/// The claims that stand behind the `@PORT`s of the environment: the variable in which each appears first, and its number.
fn allotted_in_env(app: &App, claims: &[&PortClaim]) -> Vec<(String, u16)> {
    let number = |index: u16| claims.iter().find(|claim| claim.position == Position::Env(index)).map(|claim| claim.port);
    let mut found: Vec<(String, u16)> = Vec::new();
    for (name, value) in &app.env {
        let EnvValue::Text(text) = value else { continue };
        for port in token::tokens(text).filter_map(number) {
            if !found.iter().any(|(_, known)| *known == port) {
                found.push((name.clone(), port));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::testing::{World, app};

    #[test]
    fn a_label_is_made_as_the_name_server_makes_it() {
        let check = |id: &str, expected: &str| assert_eq!(label(&id.parse().unwrap()), expected, "{id}");
        check("/testdb", "testdb");
        check("/shop/v2/api", "api-v2-shop");
        check("/a.b", "a-b");
        check(&format!("/{}", "x".repeat(70)), &"x".repeat(63));
        check(&format!("/y/{}", "x".repeat(62)), &format!("{}y", "x".repeat(62)));
    }

    /// `name host port protocol containerPort`, one a line.
    fn check(world: &World, id: &str, expected: &[&str]) {
        let (tables, seen) = (&world.view.tables, Seen::all_of(&world.view));
        let app = tables.app(&id.parse().unwrap()).unwrap();
        let names = Names { framework: "marathon", domain: "mesos" };
        let text = |port: Option<u16>| port.map_or("-".into(), |port| port.to_string());
        let claims: Vec<&PortClaim> = tables.ports.values().map(|claim| &**claim).filter(|claim| claim.app == app.id).collect();
        let found = endpoints(app, &claims, &seen, names);
        let lines = found.iter().map(|e| format!("{} {} {} {} {}", e.name, e.host, text(e.port), e.protocol, text(e.container_port)));
        assert_eq!(lines.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn the_environments_ports_come_first() {
        let mut world = World::default();
        world.app(app("/testdb").env("DBUSER", "x").env("WEB", "http://@PORT1/").env("DBPORT", "@PORT").env("AGAIN", "@PORT"));
        world.claim(1066, "/testdb", Position::Env(0)).claim(1067, "/testdb", Position::Env(1)).claim(1068, "/other", Position::Env(0));
        let own = "testdb.marathon.mesos";
        check(
            &world,
            "/testdb",
            &[&format!("WEB {own} 1067 tcp 1067"), &format!("DBPORT {own} 1066 tcp 1066"), "default testdb.marathon.mesos - tcp -"],
        );
    }

    #[test]
    fn allotted_mappings_come_before_others_and_dynamic_ones_need_a_single_instance() {
        let mut world = World::default();
        let bridged = app("/shop/db").bridge(&[
            (PortNumber::Dynamic, 80, Some("http")),
            (PortNumber::Fixed(31_500), 81, None),
            (PortNumber::Allotted(31_067), 5432, None),
        ]);
        world.app(bridged);
        let host = "db-shop.marathon.slave.mesos";
        let (fixed, first) = (format!("PORT1 {host} 31500 tcp 81"), format!("PORT2 {host} 31067 tcp 5432"));
        check(&world, "/shop/db", &[&first, &format!("http {host} - tcp 80"), &fixed]);
        world.instance("/shop/db", 1, Condition::Running, &[31_001, 31_500, 31_067]);
        check(&world, "/shop/db", &[&first, &format!("http {host} 31001 tcp 80"), &fixed]);
        world.instance("/shop/db", 2, Condition::Running, &[31_002, 31_500, 31_067]);
        check(&world, "/shop/db", &[&first, &format!("http {host} - tcp 80"), &fixed]);
    }

    #[test]
    fn required_ports_are_known_beforehand() {
        let mut world = World::default();
        let mut web = app("/web");
        web.0.require_ports = true;
        web.0.port_definitions[0].port = PortNumber::Fixed(8088);
        world.app(web);
        check(&world, "/web", &["default web.marathon.mesos 8088 tcp 8088"]);
    }
}
