//! Launches and settings for tests.

use std::{path::PathBuf, sync::Arc};

use super::Settings;
use crate::model::{
    app::{App, Backoff, Container, ContainerKind, Docker, KillSelection, Network, UnreachableStrategy, UpgradeStrategy},
    cluster::Launch,
    id::{AgentId, ClusterId, InstanceId, Owner, PathId, TaskId},
    resources::{Resources, Scalar},
    time::Timestamp,
};

pub(super) fn task(app: &str, incarnation: u32) -> TaskId {
    TaskId::app(InstanceId::new(app.parse().unwrap(), uuid::Uuid::nil()), incarnation)
}

pub(super) fn launch(app: &str, incarnation: u32) -> Launch {
    let resources = Resources { cpus: Scalar::from_f64(0.5), mem: Scalar::whole(64), ..Resources::default() };
    Launch {
        task: task(app, incarnation),
        agent: AgentId::new("A"),
        host: "node1".into(),
        app: Arc::new(definition(app.parse().unwrap())),
        owner: Owner::default_owner(),
        owner_is_admin: true,
        account: None,
        resources,
        reserved: None,
        gpus: Vec::new(),
        ports: Vec::new(),
        container_ports: Vec::new(),
        enforce_role: false,
        env_vars_prefix: None,
        allotted: Vec::new(),
        bricks: Vec::new(),
        pod: None,
    }
}

fn definition(id: PathId) -> App {
    App {
        id,
        cmd: Some("sleep 100".into()),
        args: Vec::new(),
        user: None,
        env: Default::default(),
        secrets: Default::default(),
        fetch: Vec::new(),
        instances: 1,
        cpus: Scalar::from_f64(0.5),
        mem: Scalar::whole(64),
        disk: Scalar::ZERO,
        gpus: 0,
        resource_limits: None,
        executor: String::new(),
        constraints: Vec::new(),
        accepted_resource_roles: None,
        role: "*".into(),
        labels: Default::default(),
        container: Some(Container {
            kind: ContainerKind::Docker,
            docker: Some(Docker {
                image: "busybox".into(),
                force_pull_image: false,
                privileged: false,
                parameters: Vec::new(),
                pull_config: None,
            }),
            port_mappings: Vec::new(),
            volumes: Vec::new(),
            linux_info: None,
        }),
        network: Network::Host,
        bridge_labels: Default::default(),
        port_definitions: Vec::new(),
        require_ports: false,
        backoff: Backoff { initial_ms: 1000, factor: 1.15, max_ms: 300_000 },
        kill_grace_ms: None,
        dependencies: Vec::new(),
        health_checks: Vec::new(),
        readiness_checks: Vec::new(),
        check: None,
        kill_selection: KillSelection::YoungestFirst,
        upgrade_strategy: UpgradeStrategy { minimum_health_capacity: 1.0, maximum_over_capacity: 1.0 },
        unreachable_strategy: UnreachableStrategy::Enabled { inactive_after_seconds: 0, expunge_after_seconds: 0 },
        version: Timestamp(0),
        version_info: None,
        owner: None,
        vouched: true,
        administered: false,
        tty: None,
        executor_resources: None,
        pod: None,
    }
}

pub(super) fn settings(work_dir: PathBuf) -> Settings {
    let address = "10.0.0.5".parse().unwrap();
    let docker_host = "unix:///var/run/docker.sock".to_owned();
    Settings::new(docker_host, work_dir, ClusterId::new("test"), AgentId::new("A"), "node1".to_owned(), vec![address])
}
