//! The zone: every name of ours, as indices over what runs. Pure: it is changed by [`Zone::apply`] and asked by [`Zone::lookup`].
//!
//! No record is stored. A running task is indexed under the labels of its app and under its hash, and the records of a name are made from
//! the tasks found there when it is asked. So a change costs what it touches, an instance costs about a hundred bytes however many names it
//! has, a clone costs nothing, and names that two apps share are merged by themselves. Agents and definitions are looked up in the maps of the
//! view that was applied last: an agent's new address is seen by all its tasks at once.
//!
//! Which names there are: Mesos-DNS `records/generator.go`. `T` is a label of the app (as written, and sanitised), `C = T-hash-agent` its
//! canonical one, `fw` the framework's name. A: `T.fw`, `C.fw` (the task's addresses), `T.fw.slave`, `C.fw.slave` (its agent's). SRV: `_T._proto.fw`
//! and `_port._T._proto.fw` for the declared ports, `_T._tcp.fw.slave` and `_T._udp.fw.slave` for every host port.

mod lookup;
mod records;

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use imbl::{OrdMap, OrdSet};
use uuid::Uuid;

pub use self::{
    lookup::{Answer, Budget, Data, Found, Kind, Owner, Rcode, Record, Soa, Target},
    records::{Entry, EntryData},
};
use super::{
    Settings,
    label::{MAX_LABEL_BYTES, Rule, TaskHash},
};
use crate::{
    core::{
        definitions::Definitions,
        state::{Tables, View},
    },
    model::{
        agent::Agent,
        app::App,
        id::{AgentId, InstanceId, PathId},
        instance::{Condition, Instance},
        record::RecordKey,
        time::Timestamp,
    },
};

/// The longest name that DNS carries, written with dots and without the last one (RFC 1035, 2.3.4).
pub const MAX_NAME_BYTES: usize = 253;

/// The agent's part of a canonical name is cut to this length, so that there is room for the task's.
const MAX_AGENT_TAIL_BYTES: usize = 24;

/// What of the zone depends on settings alone.
#[derive(Debug)]
pub struct Plan {
    domain: String,
    framework: String,
    /// `.marathon.mesos`
    task_suffix: String,
    /// `.marathon.slave.mesos`
    slave_suffix: String,
    rule: Rule,
    srv_targets_like_mesos_dns: bool,
    addresses: HashMap<String, Vec<IpAddr>>,
    services: HashMap<String, Vec<(String, u16)>>,
    agent_port: u16,
    ttl: u32,
    srv_weight: u16,
    mname: Arc<str>,
    rname: Arc<str>,
}

impl Plan {
    /// The names that exist whatever runs: ourselves as leader, master, framework and name server. `bound` is where the name server listens.
    pub fn new(settings: &Settings, bound: &[SocketAddr]) -> Self {
        let rule = settings.rule;
        let domain = settings.domain.trim_matches('.').to_ascii_lowercase();
        let framework = rule.fragment(&settings.framework_name);
        let mname = format!("ns1.{domain}");
        let node = settings.node_addresses.clone();
        let listening = listening_addresses(bound, &node);
        let leader = format!("leader.{domain}");
        let mut addresses = HashMap::from([(mname.clone(), listening)]);
        for name in [leader.clone(), format!("master.{domain}"), format!("master0.{domain}"), format!("{framework}.{domain}")] {
            addresses.entry(name).or_insert_with(|| node.clone());
        }
        let mut services = HashMap::new();
        for protocol in ["tcp", "udp"] {
            services.insert(format!("_leader._{protocol}.{domain}"), vec![(leader.clone(), settings.leader_port)]);
        }
        if let Some(port) = settings.framework_port {
            services.insert(format!("_framework._tcp.{framework}.{domain}"), vec![(format!("{framework}.{domain}"), port)]);
        }
        Self {
            task_suffix: format!(".{framework}.{domain}"),
            slave_suffix: format!(".{framework}.slave.{domain}"),
            rule,
            srv_targets_like_mesos_dns: settings.srv_targets_like_mesos_dns,
            addresses,
            services,
            agent_port: settings.agent_port,
            ttl: settings.ttl,
            srv_weight: 1,
            rname: format!("root.{mname}").into(),
            mname: mname.into(),
            domain,
            framework,
        }
    }

    /// The domain, lower case, without a trailing dot.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The framework's name as it stands in domain names.
    pub fn framework(&self) -> &str {
        &self.framework
    }

    /// Seconds.
    pub fn ttl(&self) -> u32 {
        self.ttl
    }

    /// The name server's own name.
    pub fn mname(&self) -> &str {
        &self.mname
    }

    /// The mailbox of the zone.
    pub fn rname(&self) -> &str {
        &self.rname
    }
}

/// Where our own name server is found: not under an address of this machine alone if there is another, and where it listens everywhere, at the node's.
fn listening_addresses(bound: &[SocketAddr], node: &[IpAddr]) -> Vec<IpAddr> {
    let told: Vec<IpAddr> = bound.iter().map(SocketAddr::ip).filter(|address| !address.is_unspecified()).collect();
    let outside: Vec<IpAddr> = told.iter().copied().filter(|address| !address.is_loopback()).collect();
    [outside, if told.len() < bound.len() { node.to_vec() } else { vec![] }, told]
        .into_iter()
        .find(|some| !some.is_empty())
        .unwrap_or_else(|| node.to_vec())
}

/// All names as of one moment. See the module's text.
#[derive(Clone, Debug)]
pub struct Zone {
    plan: Arc<Plan>,
    serial: u32,
    /// The running tasks. Invariant: `hashes` and `labels` are what [`Zone::insert`] makes of these, no more and no less.
    members: OrdMap<InstanceId, Member>,
    hashes: OrdSet<(TaskHash, InstanceId)>,
    labels: OrdSet<(Arc<str>, PathId)>,
    agents: OrdMap<AgentId, Arc<Agent>>,
    definitions: Definitions,
}

#[derive(Clone, Debug, PartialEq)]
struct Member {
    hash: TaskHash,
    instance: Arc<Instance>,
}

impl Member {
    /// `None` for one that has no names.
    fn of(instance: &Arc<Instance>) -> Option<Self> {
        let named = instance.condition == Condition::Running && instance.placement.is_some();
        named.then(|| Self { hash: TaskHash::of(&instance.task().to_string()), instance: instance.clone() })
    }
}

impl Zone {
    /// The zone of a whole view.
    pub fn build(plan: Arc<Plan>, view: &View, now: Timestamp) -> Self {
        let mut zone = Self {
            plan,
            serial: 0,
            members: OrdMap::new(),
            hashes: OrdSet::new(),
            labels: OrdSet::new(),
            agents: OrdMap::new(),
            definitions: Definitions::default(),
        };
        zone.insert_all(view.tables.instances.values());
        zone.refer_to(&view.tables, now);
        zone
    }

    /// The same zone, made anew of a whole view.
    pub fn rebuilt(&self, view: &View, now: Timestamp) -> Self {
        Self::build(self.plan.clone(), view, now)
    }

    /// Follows a change of the records `changed`, of which `view` has the newest values. The same change may come twice, or late.
    pub fn apply<'a>(&mut self, view: &View, changed: impl IntoIterator<Item = &'a RecordKey>, now: Timestamp) {
        for key in changed {
            if let RecordKey::Instance(id) = key {
                self.follow(id, view.tables.instances.get(id));
            }
        }
        self.refer_to(&view.tables, now);
    }

    /// True when a change of this record can change an answer.
    pub fn concerns(key: &RecordKey) -> bool {
        matches!(key, RecordKey::Instance(_) | RecordKey::Agent(_) | RecordKey::Definition(..))
    }

    /// The settings' part.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Unix time of the last change.
    pub fn serial(&self) -> u32 {
        self.serial
    }

    /// How many tasks have names.
    pub fn tasks(&self) -> usize {
        self.members.len()
    }

    /// True when both answer every question alike. For tests: it walks everything.
    pub fn same_as(&self, other: &Self) -> bool {
        self.members == other.members
            && self.hashes == other.hashes
            && self.labels == other.labels
            && self.agents == other.agents
            && self.definitions == other.definitions
    }

    fn refer_to(&mut self, tables: &Tables, now: Timestamp) {
        self.agents = tables.agents.clone();
        self.definitions = tables.definitions.clone();
        self.serial = u32::try_from(now.0 / 1000).unwrap_or(0);
    }

    /// What [`Zone::insert`] does, for many and in the order that is quickest.
    fn insert_all<'a>(&mut self, instances: impl Iterator<Item = &'a Arc<Instance>>) {
        let mut hashes = Vec::new();
        let mut last_app = None;
        for instance in instances {
            let Some(member) = Member::of(instance) else { continue };
            hashes.push((member.hash, instance.id.clone()));
            if last_app != Some(instance.app()) {
                last_app = Some(instance.app());
                self.insert_labels(instance.app());
            }
            self.members.insert(instance.id.clone(), member);
        }
        hashes.sort_unstable();
        self.hashes = hashes.into_iter().collect();
    }

    fn insert_labels(&mut self, app: &PathId) {
        for label in labels_of(&self.plan, app) {
            self.labels.insert((label.into(), app.clone()));
        }
    }

    fn follow(&mut self, id: &InstanceId, instance: Option<&Arc<Instance>>) {
        let before = self.members.get(id);
        if let (Some(before), Some(instance)) = (before, instance)
            && Arc::ptr_eq(&before.instance, instance)
        {
            return;
        }
        let hash_before = before.map(|before| before.hash);
        let after = instance.and_then(Member::of);
        match after {
            // The same task: it is found under the same names.
            Some(after) if hash_before == Some(after.hash) => _ = self.members.insert(id.clone(), after),
            after => {
                self.remove(id);
                after.into_iter().for_each(|after| self.insert(id, after));
            }
        }
    }

    fn insert(&mut self, id: &InstanceId, member: Member) {
        self.hashes.insert((member.hash, id.clone()));
        if !self.has_members(id.app()) {
            self.insert_labels(id.app());
        }
        self.members.insert(id.clone(), member);
    }

    fn remove(&mut self, id: &InstanceId) {
        let Some(member) = self.members.remove(id) else { return };
        self.hashes.remove(&(member.hash, id.clone()));
        if !self.has_members(id.app()) {
            for label in labels_of(&self.plan, id.app()) {
                self.labels.remove(&(label.into(), id.app().clone()));
            }
        }
    }

    fn has_members(&self, app: &PathId) -> bool {
        self.members_of(app).next().is_some()
    }

    fn members_of<'a>(&'a self, app: &PathId) -> impl DoubleEndedIterator<Item = (&'a InstanceId, &'a Member)> + use<'a> {
        self.members.range(InstanceId::new(app.clone(), Uuid::nil())..=InstanceId::new(app.clone(), Uuid::max()))
    }

    /// The members of an app, beginning with one that `random` picks, so that a part of them is not always the same part.
    fn members_from<'a>(&'a self, app: &PathId, random: u64) -> impl Iterator<Item = &'a Member> + use<'a> {
        let mut ends = self.members_of(app).map(|(id, _)| id.uuid().as_u128());
        let first = ends.next().unwrap_or(0);
        let span = ends.next_back().map_or(0, |last| last - first);
        let spread = u128::from(random) << 64 | u128::from(random.rotate_left(32));
        let start = first + spread % span.saturating_add(1);
        let at = InstanceId::new(app.clone(), Uuid::from_u128(start));
        let end = InstanceId::new(app.clone(), Uuid::max());
        let begin = InstanceId::new(app.clone(), Uuid::nil());
        self.members.range(at.clone()..=end).chain(self.members.range(begin..at)).map(|(_, member)| member)
    }

    fn apps_of<'a>(&'a self, label: &'a str) -> impl Iterator<Item = &'a PathId> + use<'a> {
        let first: (Arc<str>, PathId) = (label.into(), PathId::root());
        self.labels.range(first..).take_while(move |(at, _)| &**at == label).map(|(_, app)| app)
    }

    /// A member as names see it; `None` while its agent is not known.
    fn task<'a>(&'a self, member: &'a Member) -> Option<Task<'a>> {
        let agent = &member.instance.placement.as_ref()?.agent;
        Some(Task { hash: member.hash, instance: &member.instance, agent: self.agents.get(agent)? })
    }

    fn definition(&self, task: Task<'_>) -> Option<&App> {
        self.definitions.get(task.instance.app(), task.instance.version).map(|app| &**app)
    }
}

/// A running task on a known agent.
#[derive(Clone, Copy)]
struct Task<'a> {
    hash: TaskHash,
    instance: &'a Instance,
    agent: &'a Agent,
}

impl<'a> Task<'a> {
    /// The task's own addresses, or its agent's when it has said none.
    fn addresses(&self) -> &'a [IpAddr] {
        if self.instance.addresses.is_empty() { &self.agent.addresses } else { &self.instance.addresses }
    }

    /// The canonical form of one of its labels: a name that it shares with no other task. `label` is cut when the result could not be sent.
    fn canonical(&self, label: &str) -> String {
        let tail = agent_tail(&self.agent.id);
        let room = MAX_LABEL_BYTES - (1 + 5 + 1) - tail.len();
        // Of a name with dots only the last label grows.
        let (parents, last) = label.rsplit_once('.').map_or(("", label), |(parents, last)| (&label[..=parents.len()], last));
        let last = if last.len() > room { last[..room].trim_end_matches('-') } else { last };
        format!("{parents}{last}-{}-{tail}", self.hash.as_str())
    }
}

/// What follows the last dash of an agent's id, made fit for a label.
fn agent_tail(id: &AgentId) -> String {
    let text = id.as_str();
    let mut tail = Rule::Rfc1123.label(text.rsplit_once('-').map_or(text, |(_, last)| last));
    // A dash would be taken for the one in front of the tail.
    tail.retain(|c| c != '-');
    tail.truncate(MAX_AGENT_TAIL_BYTES);
    tail
}

/// The labels under which an app is found: as Marathon writes its task names, and sanitised.
fn labels_of(plan: &Plan, app: &PathId) -> impl Iterator<Item = String> + use<> {
    let raw = app.host_form();
    let sanitised = plan.rule.label(&raw);
    let raw = (raw != sanitised && can_be_asked(plan, &raw)).then_some(raw);
    [Some(sanitised).filter(|label| !label.is_empty()), raw].into_iter().flatten()
}

/// False for a name that DNS could not carry: a label is too long, or the whole is once the rest of a canonical or service name is added.
fn can_be_asked(plan: &Plan, name: &str) -> bool {
    const LONGEST_ADDITION: usize = "_".len() + MAX_LABEL_BYTES + "._._tcp".len();
    name.len() + LONGEST_ADDITION + plan.slave_suffix.len() <= MAX_NAME_BYTES
        && name.split('.').all(|label| !label.is_empty() && label.len() < MAX_LABEL_BYTES)
}

#[cfg(test)]
mod tests;
