use std::sync::Arc;

use super::*;
use crate::{
    cluster::engine::samples,
    model::app::{Container, ContainerKind, Docker, EnvValue, NamedNetwork, PortMapping, PortNumber, Protocol},
};

fn mapping(container_port: u16, host_port: Option<u16>, protocol: Protocol) -> PortMapping {
    PortMapping {
        container_port,
        host_port: host_port.map(PortNumber::Fixed),
        service_port: 0,
        protocol,
        name: None,
        labels: Default::default(),
        network_names: Vec::new(),
    }
}

fn shown(launch: &Launch, binds: &[Bind]) -> serde_json::Value {
    let mut settings = samples::settings("/var/lib/xtao".into());
    settings.node_addresses = vec!["10.0.0.5".parse().unwrap(), "fd00::5".parse().unwrap()];
    let mut shown =
        serde_json::to_value(container(launch, &settings, Given { image_id: "sha256:abc", binds, ..Given::default() }).unwrap()).unwrap();
    shown.sort_all_objects(); // Docker's maps have no order of their own.
    shown
}

#[test]
fn a_command_with_host_networking() {
    let mut launch = samples::launch("/shop/web", 1);
    let app = Arc::make_mut(&mut launch.app);
    app.env =
        [("PORT", "1066"), ("EMPTY", "")].map(|(name, value)| (name.to_owned(), EnvValue::Text(value.to_owned()))).into_iter().collect();
    launch.ports = vec![1066];
    insta::assert_json_snapshot!(shown(&launch, &[]));
}

#[test]
fn an_image_with_a_bridge_and_a_brick() {
    let mut launch = samples::launch("/db", 1);
    let app = Arc::make_mut(&mut launch.app);
    app.cmd = None;
    app.args = vec!["--verbose".into()];
    app.user = Some("postgres".into());
    app.network = Network::Bridge;
    let ports = vec![mapping(5432, Some(31067), Protocol::Tcp), mapping(53, Some(0), Protocol::Both), mapping(9, None, Protocol::Udp)];
    app.container.as_mut().unwrap().port_mappings = ports;
    launch.ports = vec![31067, 31500];
    launch.container_ports = vec![5432, 53, 9];
    let binds = [
        Bind { source: "/var/lib/xtao/bricks/db".into(), target: "/data".into(), read_only: false },
        Bind { source: "/var/crash".into(), target: "/var/crash".into(), read_only: true },
    ];
    insta::assert_json_snapshot!(shown(&launch, &binds));
}

#[test]
fn whoever_writes_to_a_user_s_volumes_cannot_change_owners_or_make_devices() {
    let mut launch = samples::launch("/a", 1);
    let image = Arc::make_mut(&mut launch.app).container.as_mut().unwrap().docker.as_mut().unwrap();
    image.parameters = vec![("cap-drop".into(), "KILL".into()), ("group-add".into(), "7".into())];
    let strings = |words: &[&str]| words.iter().map(ToString::to_string).collect::<Vec<_>>();
    let check = |groups: &[u32], writes_as_user: bool, caps: &[&str], added: &[&str]| {
        let given = Given { groups, writes_as_user, ..Given::default() };
        let host = container(&launch, &samples::settings("/w".into()), given).unwrap().host_config.unwrap();
        assert_eq!((host.cap_drop.unwrap(), host.group_add.unwrap()), (strings(caps), strings(added)));
    };
    check(&[], false, &["NET_RAW", "KILL"], &["7"]);
    check(&[27, 100], false, &["NET_RAW", "KILL"], &["7", "27", "100"]);
    check(&[27], true, &["NET_RAW", "KILL", "CHOWN", "MKNOD"], &["7", "27"]);
}

#[test]
fn gpus_are_given_by_number_and_found_again() {
    let mut launch = samples::launch("/train", 1);
    launch.resources.gpus = 2;
    launch.gpus = vec![0, 3];
    let settings = samples::settings("/var/lib/xtao".into());
    let body = container(&launch, &settings, Given { image_id: "sha256:abc", ..Given::default() }).unwrap();
    let host = body.host_config.unwrap();
    insta::assert_json_snapshot!(host.device_requests);
    let found = found(&body.labels.unwrap(), Seen::Created).unwrap();
    assert_eq!((found.holding.gpus, found.holding.resources.gpus), (vec![0, 3], 2));
}

#[test]
fn what_this_engine_does_not_do_is_refused_in_words() {
    let check = |change: fn(&mut crate::model::app::App), expected: &str| {
        let mut launch = samples::launch("/web", 1);
        change(Arc::make_mut(&mut launch.app));
        assert_eq!(container(&launch, &samples::settings("/w".into()), Given::default()).unwrap_err(), expected);
    };
    check(|app| app.container = None, "it has no container.docker.image");
    check(
        |app| {
            app.container =
                Some(Container { kind: ContainerKind::Mesos, docker: None, port_mappings: vec![], volumes: vec![], linux_info: None })
        },
        "it has no container.docker.image",
    );
    check(|app| docker(app).privileged = true, "privileged containers are not allowed here");
    check(
        |app| docker(app).parameters = vec![("volume".into(), "/:/x".into())],
        "docker parameter 'volume' is not supported; use container.volumes",
    );
    check(
        |app| app.network = Network::Container(vec![network("a"), network("b")]),
        "it names several container networks, and this engine connects a container to one",
    );
}

fn docker(app: &mut crate::model::app::App) -> &mut Docker {
    app.container.as_mut().unwrap().docker.as_mut().unwrap()
}

fn network(name: &str) -> NamedNetwork {
    NamedNetwork { name: name.into(), labels: Default::default() }
}

#[test]
fn labels_say_what_a_container_holds() {
    let mut launch = samples::launch("/shop/web", 3);
    launch.ports = vec![1066];
    let limits = ResourceLimits { cpus: None, mem: Some(ResourceLimit::Unlimited) };
    let app = std::sync::Arc::make_mut(&mut launch.app);
    (app.resource_limits, app.kill_grace_ms) = (Some(limits), Some(30_000));
    let body = container(&launch, &samples::settings("/w".into()), Given::default()).unwrap();
    let seen = Seen::Running { addresses: Vec::new() };
    let found = found(body.labels.as_ref().unwrap(), seen.clone()).unwrap();
    let holding = Holding {
        resources: launch.resources.clone(),
        gpus: vec![],
        ports: vec![1066],
        host_network: true,
        bricks: false,
        runner: Runner::Docker,
        in_pod: false,
        overhead: Resources::default(),
        mem_limit: Some(ResourceLimit::Unlimited),
        kill_grace_ms: Some(30_000),
    };
    assert_eq!(found, Found { task: launch.task, holding, state: seen.clone(), asked: None });
    assert_eq!(super::found(&HashMap::new(), seen), None);
}

#[test]
fn a_long_task_id_has_a_short_name_of_its_own() {
    let name = |app: &str, incarnation: u32| container_name(&samples::launch(app, incarnation).task);
    let short = name("/shop/web", 1);
    assert!(short.starts_with("xtao-shop_web.instance-") && short.ends_with("._app.1"), "{short}");
    let long = format!("/{}", "a".repeat(400));
    assert_eq!(name(&long, 1).len(), 5 + MAX_NAME_BYTES);
    assert_ne!(name(&long, 1), name(&long, 2));
    assert_ne!(name(&long, 1), name(&format!("{long}a"), 1));
}

#[test]
fn limits_follow_mesos() {
    let check = |cpus: f64, mem: f64, shares: i64, bytes: Option<i64>| {
        let resources = Resources { cpus: Scalar::from_f64(cpus), mem: Scalar::from_f64(mem), ..Resources::default() };
        let found = limits(&resources, ResourceLimits::default(), false);
        assert_eq!((found.cpu_shares, found.memory, found.memory_swap, found.nano_cpus), (Some(shares), bytes, bytes, None));
    };
    check(1.0, 128.0, 1024, Some(134_217_728));
    check(0.5, 512.0, 512, Some(536_870_912));
    check(0.001, 1.0, 2, Some(33_554_432));
    check(0.0, 0.0, 2, None);
    let resources = Resources { cpus: Scalar::from_f64(0.5), ..Resources::default() };
    assert_eq!(limits(&resources, ResourceLimits::default(), true).nano_cpus, Some(500_000_000));
}

#[test]
fn limits_of_the_definition_go_over_what_it_asks_for() {
    const MIB: i64 = 1_048_576;
    let at = |units: f64| Some(ResourceLimit::At(Scalar::from_f64(units)));
    let unlimited = Some(ResourceLimit::Unlimited);
    let check = |cpus, mem, hard: bool, quota: Option<i64>, memory: Option<i64>, reserved: Option<i64>| {
        let resources = Resources { cpus: Scalar::from_f64(0.5), mem: Scalar::whole(64), ..Resources::default() };
        let found = limits(&resources, ResourceLimits { cpus, mem }, hard);
        assert_eq!(found.cpu_shares, Some(512));
        assert_eq!((found.cpu_quota, found.cpu_period), (quota, quota.map(|_| 100_000)));
        assert_eq!((found.memory, found.memory_swap, found.memory_reservation), (memory, memory, reserved));
        assert_eq!(found.nano_cpus, (hard && cpus.is_none()).then_some(500_000_000));
    };
    check(at(2.0), None, false, Some(200_000), Some(64 * MIB), None);
    check(at(0.5), at(256.0), true, Some(50_000), Some(256 * MIB), Some(64 * MIB));
    check(unlimited, unlimited, true, None, None, Some(64 * MIB));
    check(None, unlimited, true, None, None, Some(64 * MIB));
    check(at(1e12), at(1e12), false, Some(10_000_000_000), Some(1_000_000_000_000 * MIB), Some(64 * MIB));
    // Nothing is reserved for what asks for no memory.
    let greedy = limits(&Resources::default(), ResourceLimits { cpus: at(0.001), mem: at(40.0) }, false);
    assert_eq!((greedy.cpu_quota, greedy.memory, greedy.memory_reservation), (Some(1_000), Some(40 * MIB), None));
}

#[test]
fn memory_is_a_container_s_own_or_its_pod_s() {
    let check = |ipc: IpcInfo, expected: (&str, Option<i64>)| {
        let mut launch = samples::launch("/web", 1);
        let info = LinuxInfo { seccomp: None, ipc_info: Some(ipc) };
        Arc::make_mut(&mut launch.app).container.as_mut().unwrap().linux_info = Some(info);
        let body = container(&launch, &samples::settings("/w".into()), Given::default()).unwrap();
        let host = body.host_config.unwrap();
        assert_eq!((host.ipc_mode.as_deref(), host.shm_size), (Some(expected.0), expected.1));
    };
    check(IpcInfo { mode: IpcMode::Private, shm_size: None }, ("private", None));
    check(IpcInfo { mode: IpcMode::Private, shm_size: Some(128) }, ("private", Some(128 << 20)));
    let holder = format!("container:{}", container_name(&pod::holder(&samples::launch("/web", 1).task)));
    check(IpcInfo { mode: IpcMode::ShareParent, shm_size: None }, (&holder, None));
}

#[test]
fn secrets_are_variables_and_go_over_others() {
    let launch = samples::launch("/web", 1);
    let secrets = [("PW".to_owned(), "hush".to_owned()), ("HOST".to_owned(), "own".to_owned())];
    let body = container(&launch, &samples::settings("/w".into()), Given { secrets: &secrets, ..Given::default() }).unwrap();
    let env = body.env.unwrap();
    assert!(env.contains(&"PW=hush".to_owned()), "{env:?}");
    assert_eq!(env.iter().filter(|variable| variable.starts_with("HOST=")).collect::<Vec<_>>(), ["HOST=own"]);
    assert!(!body.labels.unwrap().values().any(|value| value.contains("hush")));
}

#[test]
fn an_external_volume_is_docker_s_own() {
    let launch = samples::launch("/db", 1);
    let settings = samples::settings("/w".into());
    let external = [External { name: "rows".into(), target: "/data".into(), read_only: true }];
    let body = container(&launch, &settings, Given { image_id: "i", external: &external, ..Given::default() }).unwrap();
    let mounts = serde_json::to_value(body.host_config.unwrap().mounts).unwrap();
    assert_eq!(mounts, serde_json::json!([{"Target": "/data", "Source": "rows", "Type": "volume", "ReadOnly": true}]));

    let labels = volume_labels(&launch, &settings.cluster_id);
    assert!(is_own_volume(&labels, &launch, &settings.cluster_id));
    let mut other = samples::launch("/db", 1);
    other.owner = crate::model::id::Owner::new("bob");
    assert!(!is_own_volume(&labels, &other, &settings.cluster_id));
    assert!(!is_own_volume(&labels, &launch, &ClusterId::new("elsewhere")));
    assert!(!is_own_volume(&HashMap::new(), &launch, &settings.cluster_id));
}
