//! Where a service is reached: `endpoints` in an app's JSON. Ours; Marathon has nothing like it.
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
    core::state::Tables,
    model::{
        app::{App, EnvValue, Network, PortNumber, Protocol},
        id::PathId,
        instance::{Condition, Instance},
        port::Position,
    },
};

/// The longest label of a domain name.
const MAX_LABEL_BYTES: usize = 63;

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

/// Every way to reach `app`, the most wanted first. Costs in proportion to the app's own ports, claims and instances.
pub fn endpoints(app: &App, tables: &Tables, names: Names<'_>) -> Vec<Endpoint> {
    let framework: Vec<String> = names.framework.split('.').map(label_of).filter(|part| !part.is_empty()).collect();
    let label = label(&app.id);
    let host = |part: &str| format!("{label}.{}.{part}{}", framework.join("."), names.domain);
    let (own, node) = (host(""), host("slave."));
    let main = if app.network == Network::Bridge { &node } else { &own };

    let mut found: Vec<(bool, Endpoint)> = allotted_in_env(app, tables)
        .into_iter()
        .map(|(name, port)| {
            let endpoint = Endpoint { name, host: main.clone(), port: Some(port), protocol: "tcp", container_port: Some(port) };
            (true, endpoint)
        })
        .collect();
    found.extend(declared(app, tables, &own, &node));
    found.sort_by_key(|(allotted, _)| !allotted);
    found.into_iter().map(|(_, endpoint)| endpoint).collect()
}

/// The label of an app below the framework's name: `/shop/v2/api` is `api-v2-shop`.
pub fn label(app: &PathId) -> String {
    label_of(&app.host_form())
}

/// Mesos-DNS' rule for a label, its refilling after the cut included.
fn label_of(name: &str) -> String {
    let letters = name.bytes().filter_map(|byte| match byte {
        b'A'..=b'Z' => Some(byte.to_ascii_lowercase() as char),
        b'a'..=b'z' | b'0'..=b'9' => Some(byte as char),
        b'-' | b'.' | b'_' => Some('-'),
        _ => None,
    });
    let all: String = letters.collect();
    let all = all.trim_start_matches('-');
    let (head, tail) = all.split_at(all.len().min(MAX_LABEL_BYTES));
    let kept = head.trim_end_matches('-');
    let refill = if kept.len() < head.len() { tail.trim_start_matches('-') } else { "" };
    let room = MAX_LABEL_BYTES - kept.len();
    format!("{kept}{}", &refill[..refill.len().min(room)])
}

/// The ports of definitions or mappings, and whether they are allotted.
fn declared(app: &App, tables: &Tables, own: &str, node: &str) -> Vec<(bool, Endpoint)> {
    let mut placed = Placed::of(app, tables);
    let allotted = |port: PortNumber| matches!(port, PortNumber::Allotted(_) | PortNumber::Wanted);
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
            (allotted(definition.port), Endpoint { name, host: own.to_owned(), port, protocol, container_port: port })
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
        (mapping.host_port.is_some_and(allotted), endpoint)
    });
    mappings.collect()
}

/// The host ports of the only instance that runs, in the order of the definitions or of the mappings that have one.
struct Placed<'a> {
    ports: std::slice::Iter<'a, u16>,
}

impl<'a> Placed<'a> {
    fn of(app: &App, tables: &'a Tables) -> Self {
        let alone = tables.tallies.get(&app.id).is_some_and(|tally| tally.running() == 1);
        let running = |instance: &&std::sync::Arc<Instance>| instance.condition == Condition::Running;
        let only = alone.then(|| tables.instances_of(&app.id).find(running)).flatten();
        let ports = only.and_then(|instance| instance.placement.as_ref()).map_or([].as_slice(), |placement| &placement.ports);
        Self { ports: ports.iter() }
    }

    fn next(&mut self) -> Option<u16> {
        self.ports.next().copied()
    }
}

/// The claims that stand behind the `@PORT`s of the environment: the variable in which each appears first, and its number.
fn allotted_in_env(app: &App, tables: &Tables) -> Vec<(String, u16)> {
    let mut wanted: Vec<(u16, &str)> = Vec::new();
    for (name, value) in &app.env {
        let EnvValue::Text(text) = value else { continue };
        for index in tokens(text) {
            if !wanted.iter().any(|(seen, _)| *seen == index) {
                wanted.push((index, name));
            }
        }
    }
    if wanted.is_empty() {
        return Vec::new();
    }
    let claims: Vec<(u16, u16)> = tables
        .ports
        .values()
        .filter(|claim| claim.app == app.id)
        .filter_map(|claim| if let Position::Env(index) = claim.position { Some((index, claim.port)) } else { None })
        .collect();
    let number = |wanted: u16| claims.iter().find(|(index, _)| *index == wanted).map(|(_, port)| *port);
    wanted.into_iter().filter_map(|(index, name)| Some((name.to_owned(), number(index)?))).collect()
}

/// The numbers of the `@PORT` tokens in a value: 0 for `@PORT`, 1 for `@PORT1`. Not after a word character or another `@`, not before a letter or `_`.
fn tokens(text: &str) -> Vec<u16> {
    let is_word = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let found = text.match_indices("@PORT").filter_map(|(at, token)| {
        let rest = &text[at + token.len()..];
        let digits = rest.len() - rest.trim_start_matches(|letter: char| letter.is_ascii_digit()).len();
        let before = text[..at].chars().next_back();
        let after = rest[digits..].chars().next();
        if before.is_some_and(|letter| letter == '@' || is_word(letter)) || after.is_some_and(is_word) {
            return None;
        }
        if digits == 0 { Some(0) } else { rest[..digits].parse().ok() }
    });
    found.collect()
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

    #[test]
    fn tokens_are_whole_words() {
        let check = |text: &str, expected: &[u16]| assert_eq!(tokens(text), expected, "{text}");
        check("@PORT", &[0]);
        check("http://0.0.0.0:@PORT/", &[0]);
        check("@PORT1,@PORT2 @PORT", &[1, 2, 0]);
        check("user@PORT", &[]);
        check("@PORTAL @PORT_X @PORT1a @@PORT", &[]);
        check("@PORT99999", &[]);
        check("ä@PORTä", &[0]);
    }

    /// `name host port protocol containerPort`, one a line.
    fn check(world: &World, id: &str, expected: &[&str]) {
        let tables = &world.view.tables;
        let app = tables.app(&id.parse().unwrap()).unwrap();
        let names = Names { framework: "marathon", domain: "mesos" };
        let text = |port: Option<u16>| port.map_or("-".into(), |port| port.to_string());
        let found = endpoints(app, tables, names);
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
