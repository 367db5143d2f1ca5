//! The zone written out: every record of every task, as Mesos-DNS lists them. For those who want all of it, and to test the lookup against.

use std::{net::IpAddr, ops::Bound, sync::Arc};

use super::{Task, Zone, labels_of};
use crate::model::{
    app::{App, Network},
    id::{InstanceId, PathId, TaskId},
    instance::Instance,
};

/// Host ports are listed under both: nobody says which one they are for.
pub(super) const HOST_PORT_PROTOCOLS: [&str; 2] = ["tcp", "udp"];

/// A record, written out.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// With dots, without the last one.
    pub name: String,
    /// What it says.
    pub data: EntryData,
}

/// What a record says.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EntryData {
    /// A or AAAA.
    Address(IpAddr),
    /// SRV: target (without the last dot) and port.
    Service(String, u16),
}

/// A port that a definition declares, as Marathon tells it to Mesos in its `DiscoveryInfo`.
pub(super) struct DeclaredPort<'a> {
    pub name: Option<&'a str>,
    pub protocol: &'static str,
    pub number: u16,
    /// The number is one of the agent's, while the task has an address of its own.
    pub at_agent: bool,
}

/// The declared ports of an instance. Host networking: the host ports. Otherwise each mapping's host port, or without one its container's.
pub(super) fn ports_of<'a>(app: &'a App, instance: &Instance) -> Vec<DeclaredPort<'a>> {
    let mut host_ports = instance.placement.iter().flat_map(|placement| placement.ports.iter().copied());
    let mut ports = Vec::new();
    let mut add = |name: &'a Option<String>, protocols: &[&'static str], number: u16, at_agent: bool| {
        for &protocol in protocols {
            ports.push(DeclaredPort { name: name.as_deref(), protocol, number, at_agent });
        }
    };
    if app.network == Network::Host {
        for (definition, port) in app.port_definitions.iter().zip(&mut host_ports) {
            add(&definition.name, definition.protocol.each(), port, false);
        }
        return ports;
    }
    for mapping in app.port_mappings() {
        match mapping.host_port {
            Some(_) => host_ports.next().into_iter().for_each(|port| add(&mapping.name, mapping.protocol.each(), port, true)),
            None if mapping.container_port == 0 => {}
            None => add(&mapping.name, mapping.protocol.each(), mapping.container_port, false),
        }
    }
    ports
}

impl Zone {
    /// The next tasks, in the order of their instances, after the instance `after`: each with its records. Empty at the end.
    pub fn page(&self, after: Option<&InstanceId>, count: usize) -> Vec<(TaskId, Vec<Entry>)> {
        let start = after.map_or(Bound::Unbounded, |id| Bound::Excluded(id.clone()));
        let members = self.members.range((start, Bound::Unbounded)).map(|(_, member)| member);
        let named = |task: Task<'_>| {
            // Of a pod the first container stands for all: they have the same addresses and ports.
            let first = self.definition(task).and_then(|app| app.containers().next().flatten().map(str::to_owned));
            (task.instance.task_of(first.as_deref()), self.write_task(task))
        };
        members.filter_map(|member| self.task(member)).take(count).map(named).collect()
    }

    /// The records under the next labels after the label `after`, and the last of these labels; `None` at the end.
    pub fn label_page(&self, after: Option<&str>, count: usize) -> Option<(Arc<str>, Vec<Entry>)> {
        let start = after.map_or(Bound::Unbounded, |label| Bound::Included((format!("{label}\0").into(), PathId::root())));
        let mut labels: Vec<&Arc<str>> = Vec::new();
        let mut entries = Vec::new();
        for (label, app) in self.labels.range((start, Bound::Unbounded)) {
            if labels.last().is_none_or(|last| *last != label) {
                if labels.len() == count {
                    break;
                }
                labels.push(label);
            }
            let tasks = self.members_of(app).filter_map(|(_, member)| self.task(member));
            entries.extend(tasks.flat_map(|task| self.write_task_as(task, label)));
        }
        Some((Arc::clone(labels.last()?), entries))
    }

    /// The records that exist whatever runs, and those of the agents.
    pub fn written_out_fixed(&self) -> Vec<Entry> {
        let plan = &*self.plan;
        let address = |name: &str, address: &IpAddr| Entry { name: name.to_owned(), data: EntryData::Address(*address) };
        let mut entries: Vec<Entry> =
            plan.addresses.iter().flat_map(|(name, addresses)| addresses.iter().map(move |at| address(name, at))).collect();
        for (name, targets) in &plan.services {
            let data = targets.iter().map(|(host, port)| EntryData::Service(host.clone(), *port));
            entries.extend(data.map(|data| Entry { name: name.clone(), data }));
        }
        let slave = format!("slave.{}", plan.domain);
        let of_agents: Vec<Entry> = self.agents.values().flat_map(|agent| &agent.addresses).map(|at| address(&slave, at)).collect();
        if !of_agents.is_empty() {
            let data = EntryData::Service(slave, plan.agent_port);
            entries.push(Entry { name: format!("_slave._tcp.{}", plan.domain), data });
        }
        entries.extend(of_agents);
        entries.sort();
        entries.dedup();
        entries
    }

    fn write_task(&self, task: Task<'_>) -> Vec<Entry> {
        let mut entries: Vec<Entry> =
            labels_of(&self.plan, task.instance.app()).flat_map(|label| self.write_task_as(task, &label)).collect();
        entries.sort();
        entries.dedup();
        entries
    }

    fn write_task_as(&self, task: Task<'_>, label: &str) -> Vec<Entry> {
        let plan = &*self.plan;
        let mut entries = Vec::new();
        let canonical = task.canonical(label);
        for (suffix, addresses) in [(&plan.task_suffix, task.addresses()), (&plan.slave_suffix, &task.agent.addresses)] {
            for head in [label, &canonical] {
                let name = format!("{head}{suffix}");
                entries.extend(addresses.iter().map(|at| Entry { name: name.clone(), data: EntryData::Address(*at) }));
            }
        }
        let mut service = |name: String, suffix: &str, port: u16| {
            entries.push(Entry { name, data: EntryData::Service(format!("{canonical}{suffix}"), port) });
        };
        for port in task.instance.placement.iter().flat_map(|placement| &placement.ports) {
            for protocol in HOST_PORT_PROTOCOLS {
                service(format!("_{label}._{protocol}{}", plan.slave_suffix), &plan.slave_suffix, *port);
            }
        }
        for port in self.definition(task).map_or_else(Vec::new, |app| ports_of(app, task.instance)) {
            let at_agent = port.at_agent && !plan.srv_targets_like_mesos_dns;
            let target = if at_agent { &plan.slave_suffix } else { &plan.task_suffix };
            let name = format!("_{label}._{}{}", port.protocol, plan.task_suffix);
            let port_label = port.name.map(|name| plan.rule.label(name)).filter(|label| !label.is_empty());
            if let Some(port_label) = port_label {
                service(format!("_{port_label}.{name}"), target, port.number);
            }
            service(name, target, port.number);
        }
        entries
    }
}
