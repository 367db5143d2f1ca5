//! A small world for tests: agents, apps and instances, and the view of them.

use std::sync::Arc;

use indexmap::IndexMap;
use uuid::Uuid;

use crate::{
    core::state::{Tables, View},
    model::{
        agent::Agent,
        app::{
            App, Backoff, Container, ContainerKind, KillSelection, NamedNetwork, Network, PortDefinition, PortMapping, PortNumber,
            Protocol, UnreachableStrategy, UpgradeStrategy,
        },
        id::{AgentId, InstanceId, PathId},
        instance::{Condition, Goal, Instance, Placement},
        record::{Change, Record, RecordKey},
        resources::Scalar,
        time::Timestamp,
    },
};

/// When everything in this world happens.
pub(crate) const NOW: Timestamp = Timestamp(1_700_000_000_000);

/// Tables, and what changed since they were last looked at.
#[derive(Default)]
pub(crate) struct World {
    pub(crate) tables: Tables,
    pub(crate) changed: Vec<RecordKey>,
}

impl World {
    pub(crate) fn view(&self) -> View {
        View { tables: self.tables.clone(), ..View::default() }
    }

    pub(crate) fn apply(&mut self, change: Change) {
        self.tables.apply(&change);
        self.changed.push(change.key());
    }

    pub(crate) fn agent(&mut self, id: &str, addresses: &[&str]) {
        let agent = Agent {
            id: AgentId::new(id),
            host: id.to_lowercase(),
            addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
            attributes: vec![],
            region: None,
            zone: None,
            seen_at: NOW,
        };
        self.apply(Change::Put(Record::Agent(Arc::new(agent))));
    }

    /// Ports are written `80/tcp`, `http:80/tcp`, and `80/tcp@host` for one with a host port. With host networking the number means nothing.
    pub(crate) fn app(&mut self, path: &str, network: &str, ports: &[&str]) {
        let mut app = plain_app(path);
        app.network = match network {
            "host" => Network::Host,
            "bridge" => Network::Bridge,
            name => Network::Container(vec![NamedNetwork { name: name.into(), labels: IndexMap::new() }]),
        };
        let ports = ports.iter().map(|text| port(text));
        if app.network == Network::Host {
            app.port_definitions = ports.map(as_definition).collect();
        } else {
            app.container = Some(Container {
                kind: ContainerKind::Docker,
                docker: None,
                port_mappings: ports.collect(),
                volumes: vec![],
                linux_info: None,
            });
        }
        self.apply(Change::Put(Record::Definition(Arc::new(app))));
    }

    /// The instance `number` of an app, running.
    pub(crate) fn run(&mut self, path: &str, number: u128, agent: &str, addresses: &[&str], ports: &[u16]) -> InstanceId {
        let instance = Instance {
            id: InstanceId::new(path.parse().unwrap(), Uuid::from_u128(number)),
            version: NOW,
            incarnation: 1,
            condition: Condition::Running,
            goal: Goal::Running,
            since: NOW,
            placement: Some(Placement { agent: AgentId::new(agent), host: agent.into(), ports: ports.to_vec() }),
            staged_at: Some(NOW),
            started_at: Some(NOW),
            addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
            healthy: None,
            checks: Vec::new(),
            ready: false,
            containers: Vec::new(),
        };
        let id = instance.id.clone();
        self.apply(Change::Put(Record::Instance(Arc::new(instance))));
        id
    }

    pub(crate) fn change(&mut self, id: &InstanceId, change: impl FnOnce(&mut Instance)) {
        let mut instance = Instance::clone(&self.tables.instances[id]);
        change(&mut instance);
        self.apply(Change::Put(Record::Instance(Arc::new(instance))));
    }

    pub(crate) fn delete(&mut self, id: &InstanceId) {
        self.apply(Change::Delete(RecordKey::Instance(id.clone())));
    }
}

fn plain_app(path: &str) -> App {
    App {
        id: path.parse::<PathId>().unwrap(),
        cmd: None,
        args: vec![],
        user: None,
        env: IndexMap::new(),
        secrets: Default::default(),
        fetch: Vec::new(),
        instances: 1,
        cpus: Scalar::whole(1),
        mem: Scalar::whole(128),
        disk: Scalar::ZERO,
        gpus: 0,
        resource_limits: None,
        executor: String::new(),
        constraints: vec![],
        accepted_resource_roles: None,
        role: "*".into(),
        labels: IndexMap::new(),
        container: None,
        network: Network::Host,
        bridge_labels: Default::default(),
        port_definitions: vec![],
        require_ports: false,
        backoff: Backoff { initial_ms: 1000, factor: 1.15, max_ms: 300_000 },
        kill_grace_ms: None,
        dependencies: Vec::new(),
        health_checks: Vec::new(),
        readiness_checks: Vec::new(),
        check: None,
        kill_selection: KillSelection::YoungestFirst,
        upgrade_strategy: UpgradeStrategy { minimum_health_capacity: 1.0, maximum_over_capacity: 1.0 },
        unreachable_strategy: UnreachableStrategy::Disabled,
        version: NOW,
        version_info: None,
        owner: None,
        vouched: false,
        administered: false,
        tty: None,
        executor_resources: None,
        pod: None,
    }
}

fn port(text: &str) -> PortMapping {
    let (text, host_port) = text.strip_suffix("@host").map_or((text, None), |text| (text, Some(PortNumber::Dynamic)));
    let (text, protocol) = text.split_once('/').unwrap();
    let (name, number) = text.split_once(':').map_or((None, text), |(name, number)| (Some(name.to_owned()), number));
    PortMapping {
        container_port: number.parse().unwrap(),
        host_port,
        service_port: 0,
        protocol: match protocol {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            _ => Protocol::Both,
        },
        name,
        labels: IndexMap::new(),
        network_names: vec![],
    }
}

fn as_definition(mapping: PortMapping) -> PortDefinition {
    PortDefinition { port: PortNumber::Dynamic, protocol: mapping.protocol, name: mapping.name, labels: IndexMap::new() }
}
