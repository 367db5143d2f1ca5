//! Answers: which records a question gets, and how an empty answer looks. The rules are those that Mesos-DNS was observed to follow.

use std::{
    collections::HashSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use uuid::Uuid;

use super::{
    Member, Task, Zone, labels_of,
    records::{HOST_PORT_PROTOCOLS, ports_of},
};
use crate::{
    model::id::{InstanceId, PathId},
    naming::label::TaskHash,
};

/// Tasks that are looked at for each address record that an answer has room for: tasks of one node share its address.
const TASKS_PER_RECORD: usize = 8;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of the record types")]
pub enum Kind {
    A,
    Aaaa,
    Srv,
    Soa,
    Ns,
    Any,
    /// Any other type: there are no such records.
    Other,
}

/// How much work an answer is worth: no more than can be sent.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// Records of one kind.
    pub records: usize,
}

impl Budget {
    /// Records that fill a TCP message; more cannot be sent anyhow.
    pub const WHOLE: Self = Self { records: 4096 };

    /// For a datagram of `bytes`: the smallest record takes 16, and one more than fits shows that something is missing.
    pub fn datagram(bytes: usize) -> Self {
        Self { records: bytes / 16 + 1 }
    }

    fn tasks(self) -> usize {
        self.records * TASKS_PER_RECORD
    }
}

/// The outcome of a question about the domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of RFC 1035")]
pub enum Rcode {
    NoError,
    NameError,
}

/// What is answered, section by section.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the names are those of RFC 1035")]
pub struct Answer {
    pub rcode: Rcode,
    pub answers: Vec<Record>,
    pub authority: Vec<Record>,
    pub additional: Vec<Record>,
    /// Seconds, of every record.
    pub ttl: u32,
}

/// One record, of class IN.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Whose record it is.
    pub owner: Owner,
    /// What it says.
    pub data: Data,
}

/// Whose record it is.
#[derive(Clone, Debug, PartialEq)]
pub enum Owner {
    /// The name in the question, letter for letter.
    Asked,
    /// The name in the question, in lower case.
    AskedLower,
    /// Another name.
    Named(Arc<str>),
}

/// What a record says.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the names are those of the record types and their fields")]
pub enum Data {
    A(Ipv4Addr),
    Aaaa(Ipv6Addr),
    Srv { weight: u16, port: u16, target: Arc<str> },
    Soa(Soa),
    Ns(Arc<str>),
}

/// The zone's own record.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the names are those of RFC 1035")]
pub struct Soa {
    pub mname: Arc<str>,
    pub rname: Arc<str>,
    pub serial: u32,
    pub refresh: u32,
    pub retry: u32,
    pub expire: u32,
    pub minimum: u32,
}

/// Everything a name has.
#[derive(Clone, Debug, Default, PartialEq)]
#[expect(missing_docs, reason = "the types say it")]
pub struct Found {
    pub v4: Vec<Ipv4Addr>,
    pub v6: Vec<Ipv6Addr>,
    pub services: Vec<Target>,
}

/// Where a service is, with the first address of each family.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Target {
    pub host: Arc<str>,
    pub port: u16,
    pub v4: Option<Ipv4Addr>,
    pub v6: Option<Ipv6Addr>,
}

impl Found {
    fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty() && self.services.is_empty()
    }

    fn add_addresses(&mut self, addresses: &[IpAddr]) {
        for address in addresses {
            match address {
                IpAddr::V4(v4) => self.v4.push(*v4),
                IpAddr::V6(v6) => self.v6.push(*v6),
            }
        }
    }

    fn add_service(&mut self, host: impl Into<Arc<str>>, port: u16, addresses: &[IpAddr]) {
        let v4 = addresses.iter().find_map(|address| if let IpAddr::V4(v4) = address { Some(*v4) } else { None });
        let v6 = addresses.iter().find_map(|address| if let IpAddr::V6(v6) = address { Some(*v6) } else { None });
        self.services.push(Target { host: host.into(), port, v4, v6 });
    }

    fn without_repeats(mut self) -> Self {
        self.v4.sort_unstable();
        self.v4.dedup();
        self.v6.sort_unstable();
        self.v6.dedup();
        self.services.sort_unstable();
        self.services.dedup_by(|a, b| a.host == b.host && a.port == b.port);
        self
    }
}

impl Zone {
    /// Answers a question about `name`, which is written with dots, without the last one; `None`: it is not a name of our domain. `random` shuffles.
    pub fn lookup(&self, name: &str, kind: Kind, budget: Budget, random: u64) -> Option<Answer> {
        let name = name.to_ascii_lowercase();
        if !self.owns(&name) {
            return None;
        }
        let found = self.find(&name, budget, random);
        let exists = !found.is_empty();
        let mut answer = Answer { rcode: Rcode::NoError, answers: vec![], authority: vec![], additional: vec![], ttl: self.plan.ttl };
        self.fill(&mut answer, found, kind, budget, random);
        if answer.answers.is_empty() && matches!(kind, Kind::A | Kind::Aaaa | Kind::Any | Kind::Other) {
            if !exists {
                answer.rcode = Rcode::NameError;
            }
            if kind != Kind::Any {
                answer.authority.push(self.soa());
            }
        }
        Some(answer)
    }

    /// True for the domain and everything beneath. `name` is in lower case.
    pub fn owns(&self, name: &str) -> bool {
        name.strip_suffix(self.plan.domain()).is_some_and(|head| head.is_empty() || head.ends_with('.'))
    }

    /// Everything that a name has, each once, in order. `name` is in lower case.
    pub fn find(&self, name: &str, budget: Budget, random: u64) -> Found {
        let plan = &*self.plan;
        // So `web.*.marathon.mesos` is `web.marathon.mesos`.
        let name = name.replace(".*", "");
        let mut found = Found::default();
        if let Some(addresses) = plan.addresses.get(&name) {
            found.add_addresses(addresses);
        }
        for (host, port) in plan.services.get(&name).into_iter().flatten() {
            found.add_service(host.as_str(), *port, plan.addresses.get(host).map_or(&[], Vec::as_slice));
        }
        self.find_agents(&name, budget, &mut found);
        // A framework may be called `slave`: both readings count.
        for (suffix, on_agent) in [(&plan.task_suffix, false), (&plan.slave_suffix, true)] {
            match name.strip_suffix(suffix.as_str()) {
                Some(head) if head.starts_with('_') => self.find_services(head, on_agent, budget, random, &mut found),
                Some(head) => self.find_tasks(head, on_agent, budget, random, &mut found),
                None => {}
            }
        }
        found.without_repeats()
    }

    fn find_agents(&self, name: &str, budget: Budget, found: &mut Found) {
        match name.strip_suffix(self.plan.domain()) {
            Some("slave.") => self.agents.values().take(budget.tasks()).for_each(|agent| found.add_addresses(&agent.addresses)),
            Some("_slave._tcp.") => {
                if let Some(agent) = self.agents.values().find(|agent| !agent.addresses.is_empty()) {
                    found.add_service(format!("slave.{}", self.plan.domain()), self.plan.agent_port, &agent.addresses);
                }
            }
            _ => {}
        }
    }

    /// `head` is a label of an app, or the canonical name of a task.
    fn find_tasks(&self, head: &str, on_agent: bool, budget: Budget, random: u64, found: &mut Found) {
        let mut add = |task: Task<'_>| found.add_addresses(if on_agent { &task.agent.addresses } else { task.addresses() });
        let members = self.apps_of(head).flat_map(|app| self.members_from(app, random));
        members.take(budget.tasks()).filter_map(|member| self.task(member)).for_each(&mut add);

        let Some(hash) = head.rsplit('-').nth(1).and_then(TaskHash::from_text) else { return };
        let tasks = self.members_with(hash).take(budget.tasks()).filter_map(|member| self.task(member));
        tasks.filter(|task| labels_of(&self.plan, task.instance.app()).any(|label| task.canonical(&label) == head)).for_each(add);
    }

    /// `head` is `_T._proto` or `_port._T._proto`; the latter only for declared ports.
    fn find_services(&self, head: &str, on_agent: bool, budget: Budget, random: u64, found: &mut Found) {
        let Some((rest, protocol)) = head[1..].rsplit_once("._") else { return };
        let (port_name, label) = rest.rsplit_once("._").map_or((None, rest), |(port, label)| (Some(port), label));
        let members = self.apps_of(label).flat_map(|app| self.members_from(app, random)).take(budget.tasks());
        for task in members.filter_map(|member| self.task(member)) {
            if found.services.len() >= budget.records {
                break;
            }
            if !on_agent {
                self.add_declared_ports(task, label, protocol, port_name, found);
            } else if port_name.is_none() && HOST_PORT_PROTOCOLS.contains(&protocol) {
                let ports = task.instance.placement.iter().flat_map(|placement| &placement.ports);
                ports.for_each(|port| self.add_task(task, label, true, *port, found));
            }
        }
    }

    fn add_declared_ports(&self, task: Task<'_>, label: &str, protocol: &str, port_name: Option<&str>, found: &mut Found) {
        let Some(app) = self.definition(task) else { return };
        for port in ports_of(app, task.instance) {
            let named = port_name.is_none_or(|name| port.name.is_some_and(|of_port| self.plan.rule.label(of_port) == name));
            if named && port.protocol == protocol {
                let at_agent = port.at_agent && !self.plan.srv_targets_like_mesos_dns;
                self.add_task(task, label, at_agent, port.number, found);
            }
        }
    }

    fn add_task(&self, task: Task<'_>, label: &str, at_agent: bool, port: u16, found: &mut Found) {
        let (suffix, addresses) =
            if at_agent { (&self.plan.slave_suffix, &*task.agent.addresses) } else { (&self.plan.task_suffix, task.addresses()) };
        found.add_service(format!("{}{suffix}", task.canonical(label)), port, addresses);
    }

    fn members_with(&self, hash: TaskHash) -> impl Iterator<Item = &Member> {
        let first = InstanceId::new(PathId::root(), Uuid::nil());
        let same = self.hashes.range((hash, first)..).take_while(move |(at, _)| *at == hash);
        same.filter_map(|(_, id)| self.members.get(id))
    }

    fn fill(&self, answer: &mut Answer, mut found: Found, kind: Kind, budget: Budget, random: u64) {
        let mut shuffle = Shuffle(random);
        if matches!(kind, Kind::Srv | Kind::Any) {
            shuffle.pick(&mut found.services, budget.records);
            self.fill_services(answer, &found.services);
        }
        if matches!(kind, Kind::A | Kind::Any) {
            shuffle.pick(&mut found.v4, budget.records);
            answer.answers.extend(found.v4.iter().map(|v4| Record { owner: Owner::AskedLower, data: Data::A(*v4) }));
        }
        if matches!(kind, Kind::Aaaa | Kind::Any) {
            shuffle.pick(&mut found.v6, budget.records);
            answer.answers.extend(found.v6.iter().map(|v6| Record { owner: Owner::AskedLower, data: Data::Aaaa(*v6) }));
        }
        if matches!(kind, Kind::Soa | Kind::Any) {
            answer.authority.push(self.soa());
        }
        if matches!(kind, Kind::Ns | Kind::Any) {
            answer.authority.push(Record { owner: Owner::Asked, data: Data::Ns(self.plan.mname.clone()) });
        }
    }

    fn fill_services(&self, answer: &mut Answer, services: &[Target]) {
        let mut told = HashSet::new();
        for Target { host, port, v4, v6 } in services {
            let data = Data::Srv { weight: self.plan.srv_weight, port: *port, target: host.clone() };
            answer.answers.push(Record { owner: Owner::Asked, data });
            if told.insert(host.clone()) {
                let data = v4.iter().map(|v4| Data::A(*v4)).chain(v6.iter().map(|v6| Data::Aaaa(*v6)));
                answer.additional.extend(data.map(|data| Record { owner: Owner::Named(host.clone()), data }));
            }
        }
    }

    fn soa(&self) -> Record {
        let data = Data::Soa(Soa {
            mname: self.plan.mname.clone(),
            rname: self.plan.rname.clone(),
            serial: self.serial,
            refresh: 60,
            retry: 600,
            expire: 86_400,
            minimum: self.plan.ttl,
        });
        Record { owner: Owner::Asked, data }
    }
}

/// A small generator for the order of answers: nothing depends on its being hard to guess.
struct Shuffle(u64);

impl Shuffle {
    /// Leaves `count` items at most, any of them, in any order.
    fn pick<T>(&mut self, items: &mut Vec<T>, count: usize) {
        for at in 0..items.len().min(count) {
            let other = at + (self.next() % (items.len() - at) as u64) as usize;
            items.swap(at, other);
        }
        items.truncate(count);
    }

    /// SplitMix64.
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
