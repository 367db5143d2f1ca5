//! Ports: claims stay with their position, fixed and claimed numbers are kept, and a number of a node has one wanted holder.

use std::collections::BTreeSet;

use super::{
    super::{trace::short, world::World},
    whole_of,
};
use crate::model::{
    app::{Network, PortNumber},
    cluster::Launch,
    id::TaskId,
    port::PortClaim,
    record::Record,
};

impl World<'_> {
    pub(super) fn check_claim(&mut self, claim: &PortClaim, old: Option<Record>) {
        let place = (claim.app.clone(), claim.position);
        if let Some(Record::Port(old)) = old
            && (old.app != claim.app || old.position != claim.position)
        {
            self.violate("claim-moved", || format!("port {} goes from {} to {}", claim.port, old.app, claim.app));
        }
        if let Some(before) = self.rules.claims.insert(place, claim.port)
            && before != claim.port
        {
            self.violate("claim-moved", || format!("{:?} of {} had {before}, now {}", claim.position, claim.app, claim.port));
        }
    }

    pub(super) fn has_right_ports(&self, launch: &Launch) -> Result<(), (&'static str, String)> {
        for port in bound_ports(launch) {
            if let Some(claim) = self.disk.port(port).filter(|claim| claim.app != launch.app.id) {
                return Err(("foreign-claim", format!("port {port} is claimed by {}", claim.app)));
            }
        }
        if let Some((name, value)) = launch.environment().iter().find(|(_, value)| value.contains("@PORT")) {
            return Err(("wrong-ports", format!("{name} is still {value}")));
        }
        let (app, ports) = whole_of(launch);
        let wanted: Vec<PortNumber> = match app.network {
            Network::Host => app.port_definitions.iter().map(|definition| definition.port).collect(),
            Network::Bridge | Network::Container(_) => app.port_mappings().iter().filter_map(|mapping| mapping.host_port).collect(),
        };
        if wanted.len() != ports.len() {
            return Err(("wrong-ports", format!("{} ports for {}", ports.len(), wanted.len())));
        }
        let required = app.network != Network::Host || app.require_ports;
        for (want, port) in wanted.iter().zip(ports) {
            let exact = match want {
                PortNumber::Fixed(number) if required => Some(*number),
                PortNumber::Allotted(number) => Some(*number),
                _ => None,
            };
            if exact.is_some_and(|exact| exact != *port) {
                return Err(("wrong-ports", format!("{port} instead of {want:?}")));
            }
            let offered = launch.resources.ports.iter().any(|range| range.contains(*port));
            let outside = matches!(want, PortNumber::Allotted(_)) && app.network == Network::Host;
            // Those of a pod's other containers are looked at with them.
            if launch.ports.contains(port) && !offered && !outside {
                return Err(("wrong-ports", format!("{port} is not taken from the offer")));
            }
        }
        Ok(())
    }

    /// A port is bound already. By a stranger: that is what happens; by a task that is wanted: that is our fault.
    pub(in crate::sim) fn check_port_holder(&mut self, at: usize, port: u16, holder: &TaskId, newcomer: &TaskId) {
        if self.is_wanted(holder) && self.is_wanted(newcomer) {
            self.violate("port-used-twice", || format!("port {port} of agent-{at}: {} and {}", short(holder), short(newcomer)));
        }
    }

    /// True when the records count on this very task.
    fn is_wanted(&self, id: &TaskId) -> bool {
        self.disk.instance(&id.instance).is_some_and(|instance| instance.incarnation == id.incarnation && instance.condition.is_live())
    }
}

/// The ports that a task binds on its node: its host ports, and what the workload's apps read from their environment.
pub(in crate::sim) fn bound_ports(launch: &Launch) -> BTreeSet<u16> {
    let environment = launch.environment();
    let named = |name: &str| environment.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    let from_url = |url: &str| url.trim_end_matches('/').rsplit(':').next().and_then(|port| port.parse().ok());
    let from_env = [named("DBPORT").and_then(|port| port.parse().ok()), named("URL").and_then(from_url)];
    launch.ports.iter().copied().chain(from_env.into_iter().flatten()).collect()
}
