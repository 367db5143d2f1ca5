//! A pod with every field filled, its instance and its deployment.

use indexmap::IndexMap;

use super::{WHEN, bare_app, full_deployment, health_check, instance as app_instance, path};
use crate::model::{
    app::{App, Container, ContainerKind, EnvValue, Fetch, IpcInfo, IpcMode, LinuxInfo, Network, PortMapping, PortNumber, Protocol},
    deployment::{Action, ActionKind, Deployment, Step},
    health::{Check, CheckKind, CheckPort, CheckProtocol, HealthCheck},
    instance::{Condition, ContainerState, Instance},
    pod::{Amounts, Command, Exec, Image, Pod, PodContainer, PodVolume, VolumeMount},
    resources::{ResourceLimit, ResourceLimits, Scalar},
};

fn texts(name: &str, value: &str) -> IndexMap<String, String> {
    IndexMap::from([(name.to_owned(), value.to_owned())])
}

fn generic(kind: CheckKind) -> Check {
    Check { kind, interval_seconds: 30, timeout_seconds: 10, delay_seconds: 5 }
}

pub(super) fn full() -> App {
    let amounts = Amounts { cpus: Scalar(100), mem: Scalar::whole(32), disk: Scalar::whole(10), gpus: 1 };
    let endpoint = PortMapping {
        container_port: 80,
        host_port: Some(PortNumber::Fixed(8080)),
        service_port: 0,
        protocol: Protocol::Both,
        name: Some("http".into()),
        labels: texts("VIP_0", "/web:80"),
        network_names: Vec::new(),
    };
    let web = PodContainer {
        name: "web".into(),
        exec: Some(Exec { command: Command::Argv(vec!["httpd".into(), "-f".into()]), override_entrypoint: Some(true) }),
        amounts,
        resource_limits: Some(ResourceLimits { cpus: Some(ResourceLimit::At(Scalar(1500))), mem: None }),
        protocols: vec![vec!["udp".into(), "tcp".into()]],
        has_health_check: true,
        check: Some(generic(CheckKind::Tcp { port: CheckPort { port: None, port_index: Some(0) } })),
        image: Some(Image {
            id: "busybox:1".into(),
            force_pull: Some(true),
            labels: texts("arch", "amd64"),
            pull_config: Some("pw".into()),
        }),
        environment: [("A".to_owned(), EnvValue::Text("1".into()))].into(),
        user: Some("nobody".into()),
        volume_mounts: vec![VolumeMount { name: "data".into(), mount_path: "/data".into(), read_only: Some(true) }],
        artifacts: vec![Fetch {
            uri: "https://files.example/data.tgz".into(),
            extract: true,
            executable: false,
            cache: false,
            dest_path: Some("data.tgz".into()),
        }],
        labels: texts("role", "front"),
        kill_grace_ms: Some(500),
        tty: Some(true),
        linux_info: Some(LinuxInfo { seccomp: None, ipc_info: Some(IpcInfo { mode: IpcMode::ShareParent, shm_size: None }) }),
    };
    let side = PodContainer {
        name: "side".into(),
        exec: Some(Exec { command: Command::Shell("sleep 1000".into()), override_entrypoint: None }),
        amounts,
        resource_limits: None,
        protocols: Vec::new(),
        has_health_check: false,
        check: Some(generic(CheckKind::Exec { command: Command::Argv(vec!["true".into()]) })),
        image: None,
        environment: IndexMap::new(),
        user: None,
        volume_mounts: Vec::new(),
        artifacts: Vec::new(),
        labels: IndexMap::new(),
        kill_grace_ms: None,
        tty: None,
        linux_info: None,
    };
    let volumes = vec![
        PodVolume { name: "data".into(), host: None, secret: None },
        PodVolume { name: "logs".into(), host: Some("/var/log".into()), secret: None },
        PodVolume { name: "pw".into(), host: None, secret: Some("pw".into()) },
    ];
    App {
        id: path("/prod/pod"),
        cmd: None,
        container: Some(Container {
            kind: ContainerKind::Mesos,
            docker: None,
            port_mappings: vec![endpoint],
            volumes: vec![],
            linux_info: None,
        }),
        network: Network::Bridge,
        bridge_labels: IndexMap::from([("zone".to_owned(), "inner".to_owned())]),
        health_checks: vec![HealthCheck { argv: vec!["true".into()], ..health_check(CheckProtocol::Command) }],
        pod: Some(Box::new(Pod {
            containers: vec![web, side],
            volumes,
            executor: amounts,
            networks_left_out: true,
            legacy_shared_cgroups: true,
            linux_info: Some(LinuxInfo { seccomp: None, ipc_info: Some(IpcInfo { mode: IpcMode::Private, shm_size: Some(64) }) }),
        })),
        ..bare_app()
    }
}

pub(super) fn instance() -> Instance {
    let containers = vec![
        ContainerState { condition: Condition::Running, started_at: Some(WHEN) },
        ContainerState { condition: Condition::Starting, started_at: None },
    ];
    Instance { condition: Condition::Starting, containers, ..app_instance(9) }
}

pub(super) fn deployment() -> Deployment {
    let action = Action { kind: ActionKind::Restart, app: path("/prod/pod"), pod: true };
    Deployment { steps: vec![Step { actions: vec![action] }], current_step: 0, ..full_deployment() }
}
