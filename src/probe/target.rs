//! Where a check goes and what it asks, from the snapshot.
//!
//! Facts (Marathon 1.11): a place among the ports means the host port where there is one, else the container's port at the container's own address;
//! what Mesos runs speaks to the container's port, and follows where a page leads ([`follow`](super::follow)). A fixed port is taken as it is.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::{
    core::state::Tables,
    model::{
        app::{App, Network},
        health::{Check, CheckKind, CheckProtocol, Finding, HealthCheck, Outcome, ReadinessAnswer, ReadinessCheck},
        id::{AgentId, TaskId},
        instance::{Condition, Instance, Placement},
        pod::{Command, PodContainer},
    },
};

/// Which check of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// The health check in this place.
    Health(usize),
    /// The readiness check.
    Readiness,
    /// The generic check of an app, which is 0, or of the container in this place of a pod.
    Check(usize),
}

/// One run to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Of which launch.
    pub incarnation: u32,
    /// The node it is on.
    pub host: String,
    /// How long it may take.
    pub timeout_seconds: u32,
    /// What to do.
    pub action: Action,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Ask for a page.
    Http(Http),
    /// Connect.
    Tcp(Place),
    /// Run this in the container.
    Command {
        /// The task.
        task: TaskId,
        /// Its node.
        agent: AgentId,
        /// The program and its arguments.
        command: Vec<String>,
    },
}

/// A page and how it is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http {
    /// Where.
    pub place: Place,
    /// With TLS, whoever the server says it is.
    pub tls: bool,
    /// Begins with a slash.
    pub path: String,
    /// An answer 1xx is none.
    pub ignore_1xx: bool,
    /// The codes that mean "ready"; empty for health checks.
    pub ready_codes: Vec<u16>,
    /// The beginning of the answer is of interest.
    pub keep_body: bool,
    /// An answer that leads elsewhere is followed there.
    pub follows: bool,
    /// It is where a page has led: the server there may be one of many.
    pub is_elsewhere: bool,
}

/// An address and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The address, when it is known.
    pub address: Option<IpAddr>,
    /// The name, to be resolved without an address; also what the server is told.
    pub name: String,
    /// The port.
    pub port: u16,
    /// In the network of a task, if that has one of its own; it is tried there first.
    pub within: Option<Within>,
}

/// The network of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Within {
    /// The task.
    pub task: TaskId,
    /// Its node.
    pub agent: AgentId,
    /// How the task is reached from outside.
    pub own: IpAddr,
}

impl Target {
    /// What to do for a check of an instance that runs.
    ///
    /// # Errors
    /// Why there is nothing to do: a port or address that the instance does not have.
    pub fn of(tables: &Tables, instance: &Instance, which: Which) -> Result<Self, String> {
        let app = tables.definition_of(instance).ok_or("its definition is gone")?;
        let placement = instance.placement.as_ref().ok_or("its node is not known")?;
        let ports = Ports { tables, app, instance, placement };
        let runs = |place: Option<usize>| {
            let state = place.and_then(|place| instance.containers.get(place));
            state.is_none_or(|state| state.condition == Condition::Running).then_some(()).ok_or("its container does not run")
        };
        let (timeout_seconds, action) = match which {
            Which::Health(at) => {
                let check = app.health_checks.get(at).ok_or("its definition has no such check")?;
                let container = app.pod.as_ref().and_then(|pod| pod.checked(at));
                let place = container.and_then(|container| app.pod.as_ref()?.place(&container.name));
                runs(place)?;
                (check.timeout_seconds, ports.health(check, container)?)
            }
            Which::Check(place) => {
                let check = app.generic_check(place).ok_or("its definition has no such check")?;
                let container = app.pod.as_ref().and_then(|pod| pod.containers.get(place));
                runs(container.map(|_| place))?;
                let timeout = if check.timeout_seconds == 0 { Check::DEFAULT_TIMEOUT_SECONDS } else { check.timeout_seconds };
                (timeout, ports.generic(check, container)?)
            }
            Which::Readiness => {
                let check = app.readiness_checks.first().ok_or("its definition has no readiness check")?;
                (check.timeout_seconds, Action::Http(ports.readiness(check)?))
            }
        };
        Ok(Self { incarnation: instance.incarnation, host: placement.host.to_string(), timeout_seconds, action })
    }
}

/// Nothing could be asked.
pub fn no_finding(which: Which, why: &str) -> Finding {
    match which {
        Which::Health(check) => Finding::Health { check, outcome: Outcome::Uncertain(why.to_owned()) },
        Which::Check(place) => Finding::Check { place, result: None },
        Which::Readiness => {
            let body = why.to_owned();
            Finding::Readiness(ReadinessAnswer { ready: false, status: 504, content_type: "text/plain".into(), body })
        }
    }
}

struct Ports<'a> {
    tables: &'a Tables,
    app: &'a App,
    instance: &'a Instance,
    placement: &'a Placement,
}

impl Ports<'_> {
    /// `container`: whose check it is, in a pod.
    fn health(&self, check: &HealthCheck, container: Option<&PodContainer>) -> Result<Action, String> {
        let http = |place: Place, tls: bool| {
            let page = page(place, tls, check.path.as_deref());
            Action::Http(Http { ignore_1xx: check.ignore_http_1xx, follows: check.protocol.is_mesos(), ..page })
        };
        Ok(match check.protocol {
            CheckProtocol::Command => {
                let command = if check.argv.is_empty() { shell(check.command.as_deref()) } else { check.argv.clone() };
                self.command(command, container)
            }
            CheckProtocol::Http => http(self.outside(check)?, false),
            CheckProtocol::Https => http(self.outside(check)?, true),
            CheckProtocol::Tcp => Action::Tcp(self.outside(check)?),
            CheckProtocol::MesosHttp => http(self.inside(check.port, check.port_index, check.ipv6, container)?, false),
            CheckProtocol::MesosHttps => http(self.inside(check.port, check.port_index, check.ipv6, container)?, true),
            CheckProtocol::MesosTcp => Action::Tcp(self.inside(check.port, check.port_index, check.ipv6, container)?),
        })
    }

    /// `container`: whose check it is, in a pod.
    fn generic(&self, check: &Check, container: Option<&PodContainer>) -> Result<Action, String> {
        Ok(match &check.kind {
            CheckKind::Http { https, path, port } => {
                let page = page(self.inside(port.port, port.port_index, false, container)?, *https, path.as_deref());
                Action::Http(Http { follows: true, ..page })
            }
            CheckKind::Tcp { port } => Action::Tcp(self.inside(port.port, port.port_index, false, container)?),
            CheckKind::Exec { command: Command::Shell(text) } => self.command(shell(Some(text)), container),
            CheckKind::Exec { command: Command::Argv(argv) } => self.command(argv.clone(), container),
        })
    }

    fn command(&self, command: Vec<String>, container: Option<&PodContainer>) -> Action {
        let task = self.instance.task_of(container.map(|container| container.name.as_str()));
        Action::Command { task, agent: self.placement.agent.clone(), command }
    }

    fn readiness(&self, check: &ReadinessCheck) -> Result<Http, String> {
        let is = |name: &Option<String>| name.as_ref() == Some(&check.port_name);
        let index = match self.app.port_mappings() {
            [] => self.app.port_definitions.iter().position(|definition| is(&definition.name)),
            mappings => mappings.iter().position(|mapping| is(&mapping.name)),
        };
        let index = index.ok_or_else(|| format!("it has no port named {}", check.port_name))?;
        Ok(Http {
            place: self.numbered(index)?,
            tls: check.https,
            path: absolute(&check.path),
            ignore_1xx: false,
            ready_codes: check.ready_codes.clone(),
            keep_body: check.preserve_last_response,
            follows: false,
            is_elsewhere: false,
        })
    }

    /// As the task is reached from elsewhere.
    fn outside(&self, check: &HealthCheck) -> Result<Place, String> {
        match check.port {
            Some(port) if matches!(self.app.network, Network::Container(_)) => self.container(false, port),
            Some(port) => Ok(self.node(port)),
            None => self.numbered(check.port_index.unwrap_or_default().into()),
        }
    }

    /// As it is reached beside the task, on loopback, as Mesos does; with a network of its own in that.
    fn inside(&self, port: Option<u16>, index: Option<u16>, ipv6: bool, container: Option<&PodContainer>) -> Result<Place, String> {
        let index = usize::from(index.unwrap_or_default());
        let address = if ipv6 { IpAddr::from(Ipv6Addr::LOCALHOST) } else { Ipv4Addr::LOCALHOST.into() };
        let place = |port: u16, within: Option<Within>| Place { address: Some(address), name: written(address), port, within };
        if self.app.network == Network::Host {
            let port = port.map_or_else(|| self.numbered(index).map(|place| place.port), Ok)?;
            return Ok(place(port, None));
        }
        let declared = self.app.port_mappings().get(index).map(|mapping| mapping.container_port).filter(|port| *port != 0);
        // A declared 0 is the same as the host port.
        let port = port.or(declared).map_or_else(|| self.numbered(index).map(|place| place.port), Ok)?;
        let task = self.instance.task_of(container.map(|container| container.name.as_str()));
        Ok(place(port, Some(Within { task, agent: self.placement.agent.clone(), own: self.own_address(ipv6)? })))
    }

    fn numbered(&self, index: usize) -> Result<Place, String> {
        let none = || format!("it has no port number {index}");
        let mappings = self.app.port_mappings();
        if mappings.is_empty() {
            return self.placement.ports.get(index).map(|port| self.node(*port)).ok_or_else(none);
        }
        let mapping = mappings.get(index).ok_or_else(none)?;
        if mapping.host_port.is_none() {
            return self.container(false, mapping.container_port);
        }
        let before = mappings[..index].iter().filter(|mapping| mapping.host_port.is_some()).count();
        self.placement.ports.get(before).map(|port| self.node(*port)).ok_or_else(none)
    }

    fn node(&self, port: u16) -> Place {
        let known = self.tables.agents.get(&self.placement.agent).and_then(|agent| agent.addresses.first().copied());
        Place { address: known.or_else(|| self.placement.host.parse().ok()), name: self.placement.host.to_string(), port, within: None }
    }

    fn container(&self, ipv6: bool, port: u16) -> Result<Place, String> {
        let address = self.own_address(ipv6)?;
        Ok(Place { address: Some(address), name: written(address), port, within: None })
    }

    fn own_address(&self, ipv6: bool) -> Result<IpAddr, String> {
        let address = self.instance.addresses.iter().find(|address| address.is_ipv6() == ipv6).copied();
        Ok(address.or_else(|| self.instance.addresses.first().copied()).ok_or("its own address is not known")?)
    }
}

/// As a URL has it.
fn written(address: IpAddr) -> String {
    if address.is_ipv6() { format!("[{address}]") } else { address.to_string() }
}

fn page(place: Place, tls: bool, path: Option<&str>) -> Http {
    let path = absolute(path.unwrap_or_default());
    Http { place, tls, path, ignore_1xx: false, ready_codes: Vec::new(), keep_body: false, follows: false, is_elsewhere: false }
}

fn shell(text: Option<&str>) -> Vec<String> {
    vec!["/bin/sh".to_owned(), "-c".to_owned(), text.unwrap_or_default().to_owned()]
}

/// With a slash in front, and of characters that may stand in a request.
fn absolute(path: &str) -> String {
    let slash = if path.starts_with('/') { "" } else { "/" };
    let mut text = slash.to_owned();
    for letter in path.chars() {
        if letter.is_ascii_graphic() && !matches!(letter, '"' | '<' | '>' | '\\' | '^' | '`' | '{' | '|' | '}') {
            text.push(letter);
        } else {
            let mut bytes = [0; 4];
            text.extend(letter.encode_utf8(&mut bytes).bytes().map(|byte| format!("%{byte:02X}")));
        }
    }
    text
}

#[cfg(test)]
mod tests;
