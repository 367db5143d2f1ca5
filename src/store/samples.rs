//! Records for tests: one full and one bare of each kind, and proptest strategies for all of them.

use std::sync::Arc;

use indexmap::IndexMap;
use proptest::{collection::vec, option, prelude::*};
use uuid::Uuid;

use crate::model::{
    agent::{Agent, Attribute},
    app::{
        App, Backoff, BrickVolume, Constraint, Container, ContainerKind, Docker, EnvValue, ExternalVolume, Fetch, FileSystem, IpcInfo,
        IpcMode, KillSelection, LinuxInfo, Mode, NamedNetwork, Network, Operator, PersistentVolume, PortDefinition, PortMapping,
        PortNumber, Protocol, Seccomp, Secret, UnreachableStrategy, UpgradeStrategy, VersionInfo, Volume,
    },
    brick::{Brick, Lease, Reservation},
    cluster::TaskState,
    deployment::{Action, ActionKind, AppChange, Deployment, Step},
    group::{Group, GroupChange, RootVersion},
    health::{Check, CheckKind, CheckPort, CheckProtocol, CheckState, HealthCheck, ReadinessCheck},
    id::{AgentId, BrickName, DeploymentId, InstanceId, Owner, PathId, PoolName, TaskId},
    instance::{Condition, ContainerState, Goal, Instance, Placement, TaskFailure},
    pod::Amounts,
    port::{PortClaim, Position},
    record::{AppEntry, Change, Meta, Record},
    resources::{ResourceLimit, ResourceLimits, Scalar},
    time::Timestamp,
    user::{Grants, PasswordHash, Quota, User},
};

mod pods;

const UUID: Uuid = Uuid::from_u128(0x6b0c_d2e8_b243_11e8_8b80_0242_47c0_a575);

/// A moment in 2026.
pub(crate) const WHEN: Timestamp = Timestamp(1_780_000_000_123);

/// Every field filled, every kind of value somewhere; the names are those of the fixtures.
pub(crate) fn full() -> Vec<(&'static str, Record)> {
    vec![
        (
            "meta",
            Record::Meta(Arc::new(Meta { framework_id: Some("6b0cd2e8-b243-11e8-8b80-024247c0a575-0000".into()), ..Meta::default() })),
        ),
        ("app", Record::App(Arc::new(AppEntry { id: path("/prod/db/pg"), owner: Owner::new("zmfsea") }))),
        ("definition", Record::Definition(Arc::new(full_app()))),
        ("definition-large", Record::Definition(Arc::new(large_app()))),
        ("instance", Record::Instance(Arc::new(instance(7)))),
        ("deployment", Record::Deployment(Arc::new(full_deployment()))),
        ("port", Record::Port(Arc::new(full_claim()))),
        ("brick", Record::Brick(Arc::new(full_brick()))),
        ("agent", Record::Agent(Arc::new(full_agent()))),
        ("failure", Record::Failure(Arc::new(full_failure()))),
        ("user", Record::User(Arc::new(full_user()))),
        ("group", Record::Group(Arc::new(full_group()))),
        ("root-version", Record::RootVersion(Arc::new(full_root_version()))),
        ("archived", Record::Archived(Arc::new(full_app()))),
        ("definition-pod", Record::Definition(Arc::new(pods::full()))),
        ("instance-pod", Record::Instance(Arc::new(pods::instance()))),
        ("deployment-pod", Record::Deployment(Arc::new(pods::deployment()))),
    ]
}

/// No optional field filled.
pub(crate) fn bare() -> Vec<(&'static str, Record)> {
    let app = path("/web");
    let definition = bare_app();
    vec![
        ("meta-bare", Record::Meta(Arc::default())),
        ("definition-bare", Record::Definition(Arc::new(definition))),
        ("instance-bare", Record::Instance(Arc::new(bare_instance()))),
        (
            "brick-bare",
            Record::Brick(Arc::new(Brick { home: None, lease: None, last_mounted: None, reservation: None, app, ..full_brick() })),
        ),
        ("group-bare", Record::Group(Arc::new(Group::plain(path("/empty"), Owner::new("zmfsea"))))),
        ("user-bare", Record::User(Arc::new(bare_user()))),
        ("agent-bare", Record::Agent(Arc::new(Agent { attributes: vec![], region: None, zone: None, ..full_agent() }))),
    ]
}

/// A running instance as they are stored by the thousand: about 450 bytes in its envelope.
pub(crate) fn instance(number: u128) -> Instance {
    Instance {
        id: InstanceId::new(path("/shop/web"), Uuid::from_u128(UUID.as_u128() ^ (number << 96))),
        version: WHEN,
        incarnation: 3,
        condition: Condition::Running,
        goal: Goal::Running,
        since: Timestamp(WHEN.0 + 7),
        placement: Some(Placement {
            agent: AgentId::new("6b0cd2e8-b243-11e8-8b80-024247c0a575-S0"),
            host: "compute1".into(),
            ports: vec![31_067, 31_068],
        }),
        staged_at: Some(Timestamp(WHEN.0 + 1)),
        started_at: Some(Timestamp(WHEN.0 + 5)),
        addresses: vec!["10.0.0.1".parse().unwrap(), "fe80::1".parse().unwrap()],
        healthy: Some(true),
        checks: vec![CheckState {
            first_success: Some(Timestamp(WHEN.0 + 9)),
            failures: 0,
            last_failure: Some(Timestamp(WHEN.0 + 8)),
            last_failure_cause: "connection refused".into(),
        }],
        ready: true,
        containers: vec![],
    }
}

fn path(text: &str) -> PathId {
    text.parse().unwrap()
}

fn bare_instance() -> Instance {
    Instance {
        incarnation: 0,
        condition: Condition::Scheduled,
        placement: None,
        staged_at: None,
        started_at: None,
        addresses: vec![],
        healthy: None,
        checks: vec![],
        ready: false,
        ..instance(0)
    }
}

/// Marathon's defaults.
pub(crate) fn health_check(protocol: CheckProtocol) -> HealthCheck {
    HealthCheck {
        protocol,
        path: None,
        port: None,
        port_index: None,
        command: None,
        argv: Vec::new(),
        grace_seconds: 300,
        interval_seconds: 60,
        timeout_seconds: 20,
        max_consecutive_failures: 3,
        delay_seconds: 15,
        ignore_http_1xx: false,
        ipv6: false,
    }
}

/// Everything as most apps have it.
pub(crate) fn usual_app() -> App {
    App { unreachable_strategy: UnreachableStrategy::Enabled { inactive_after_seconds: 0, expunge_after_seconds: 0 }, ..bare_app() }
}

/// A version that changed everything.
pub(crate) fn latest_app() -> App {
    App { version_info: None, ..usual_app() }
}

/// A command without a container.
pub(crate) fn bare_app() -> App {
    App {
        id: path("/web"),
        cmd: Some("sleep 1000".into()),
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
        bridge_labels: IndexMap::new(),
        port_definitions: vec![],
        require_ports: false,
        backoff: Backoff { initial_ms: 1000, factor: 1.15, max_ms: 300_000 },
        kill_grace_ms: None,
        dependencies: vec![],
        health_checks: vec![],
        readiness_checks: vec![],
        check: None,
        kill_selection: KillSelection::YoungestFirst,
        upgrade_strategy: UpgradeStrategy { minimum_health_capacity: 1.0, maximum_over_capacity: 1.0 },
        unreachable_strategy: UnreachableStrategy::Disabled,
        version: WHEN,
        version_info: Some(VersionInfo::default()),
        owner: None,
        vouched: false,
        administered: false,
        tty: None,
        executor_resources: None,
        pod: None,
    }
}

fn full_app() -> App {
    let labels = || IndexMap::from([("z".to_owned(), "1".to_owned()), ("a".to_owned(), "ä \"quoted\"\n".to_owned())]);
    App {
        id: path("/prod/db/pg"),
        cmd: None,
        args: vec!["-c".into(), "listen_addresses=*".into()],
        user: Some("postgres".into()),
        env: IndexMap::from([
            ("DBPORT".to_owned(), EnvValue::Text("@PORT".into())),
            ("DBPASSWD".to_owned(), EnvValue::Secret { secret: "pw".into() }),
        ]),
        secrets: IndexMap::from([("pw".to_owned(), Secret { source: "/zmfsea/pw".into() })]),
        cpus: Scalar::from_f64(0.5),
        disk: Scalar::whole(10),
        gpus: 2,
        tty: Some(true),
        executor_resources: Some(Amounts { cpus: Scalar(200), mem: Scalar::whole(32), disk: Scalar::whole(10), gpus: 0 }),
        resource_limits: Some(ResourceLimits { cpus: Some(ResourceLimit::Unlimited), mem: Some(ResourceLimit::At(Scalar::whole(4096))) }),
        executor: "//cmd".into(),
        constraints: vec![
            Constraint { field: "hostname".into(), operator: Operator::Is, value: Some("compute1".into()) },
            Constraint { field: "rack".into(), operator: Operator::GroupBy, value: None },
        ],
        accepted_resource_roles: Some(vec!["*".into()]),
        labels: labels(),
        container: Some(Container {
            kind: ContainerKind::Docker,
            docker: Some(Docker {
                image: "zmfsea/cmp-postgresql".into(),
                force_pull_image: true,
                privileged: true,
                parameters: vec![("hostname".into(), "a.b".into())],
                pull_config: Some("pw".into()),
            }),
            port_mappings: vec![PortMapping {
                container_port: 5432,
                host_port: Some(PortNumber::Allotted(31_067)),
                service_port: 10_000,
                protocol: Protocol::Both,
                name: Some("pg".into()),
                labels: labels(),
                network_names: vec!["overlay".into()],
            }],
            linux_info: Some(LinuxInfo {
                seccomp: Some(Seccomp { profile_name: Some("strict".into()), unconfined: false }),
                ipc_info: Some(IpcInfo { mode: IpcMode::Private, shm_size: Some(128) }),
            }),
            volumes: vec![
                Volume::Secret { container_path: "/run/pw".into(), secret: "pw".into() },
                Volume::Host { container_path: "/var/crash".into(), host_path: "/var/crash".into(), mode: Mode::Ro },
                Volume::Brick(BrickVolume {
                    container_path: "/var/lib/pgsql/9.6/data/".into(),
                    mode: Mode::Rw,
                    size: 131_072,
                    pool: PoolName::new("datapool"),
                    file_system: Some(FileSystem::Xfs),
                }),
                Volume::Persistent(PersistentVolume { container_path: "data".into(), mode: Mode::Rw, size: 100 }),
                Volume::External(ExternalVolume {
                    container_path: "/ext".into(),
                    mode: Mode::Rw,
                    name: "rows".into(),
                    provider: "dvdi".into(),
                    options: [("dvdi/driver".to_owned(), "local".to_owned())].into(),
                    size: Some(5),
                    shared: true,
                }),
            ],
        }),
        network: Network::Container(vec![NamedNetwork { name: "overlay".into(), labels: labels() }]),
        port_definitions: vec![PortDefinition {
            port: PortNumber::Fixed(8080),
            protocol: Protocol::Udp,
            name: Some("http".into()),
            labels: labels(),
        }],
        require_ports: true,
        kill_grace_ms: Some(30_000),
        dependencies: vec![path("/prod/cache"), path("/prod/db/setup")],
        health_checks: vec![
            HealthCheck { path: Some("/ping".into()), port_index: Some(0), ignore_http_1xx: true, ..health_check(CheckProtocol::Https) },
            HealthCheck { port: Some(5432), ipv6: true, ..health_check(CheckProtocol::MesosTcp) },
            HealthCheck { command: Some("pg_isready".into()), ..health_check(CheckProtocol::Command) },
        ],
        readiness_checks: vec![ReadinessCheck {
            name: "ready".into(),
            https: true,
            path: "/ready".into(),
            port_name: "pg".into(),
            interval_seconds: 30,
            timeout_seconds: 10,
            ready_codes: vec![200, 204],
            preserve_last_response: true,
        }],
        check: Some(Check {
            kind: CheckKind::Http { https: true, path: Some("/status".into()), port: CheckPort { port: Some(5433), port_index: Some(0) } },
            interval_seconds: 60,
            timeout_seconds: 20,
            delay_seconds: 15,
        }),
        kill_selection: KillSelection::OldestFirst,
        unreachable_strategy: UnreachableStrategy::Enabled { inactive_after_seconds: 300, expunge_after_seconds: 600 },
        version_info: Some(VersionInfo { last_scaling_at: WHEN, last_config_change_at: WHEN }),
        owner: Some(Owner::new("zmfsea")),
        vouched: true,
        administered: true,
        fetch: vec![Fetch {
            uri: "https://files.example/data.tgz".into(),
            extract: true,
            executable: false,
            cache: true,
            dest_path: Some("data.tgz".into()),
        }],
        ..bare_app()
    }
}

/// Long enough to be compressed.
fn large_app() -> App {
    let env = (0..200).map(|n| (format!("VARIABLE_{n}"), EnvValue::Text(format!("value number {n}")))).collect();
    App { id: path("/large"), env, ..bare_app() }
}

fn full_deployment() -> Deployment {
    let action = |kind| Action { kind, app: path("/prod/db/pg"), pod: false };
    Deployment {
        id: DeploymentId::new("867ed450-f6a8-4d33-9b0e-e11c5513990b"),
        version: WHEN,
        changes: vec![
            AppChange { app: path("/prod/db/pg"), owner: Some(Owner::new("zmfsea")), from: None, to: Some(WHEN) },
            AppChange { app: path("/old"), owner: None, from: Some(WHEN), to: None },
        ],
        groups: vec![GroupChange { id: path("/prod"), from: None, to: Some(Arc::new(full_group())) }],
        steps: vec![
            Step { actions: vec![action(ActionKind::Start), action(ActionKind::Stop)] },
            Step { actions: vec![action(ActionKind::Scale), action(ActionKind::Restart)] },
        ],
        current_step: 1,
        started_at: WHEN,
    }
}

fn full_group() -> Group {
    Group { id: path("/prod"), owner: Owner::new("zmfsea"), dependencies: vec![path("/infra"), path("/prod/db")], enforce_role: true }
}

fn full_root_version() -> RootVersion {
    let plain = Group::plain(path("/prod"), Owner::new("zmfsea"));
    RootVersion {
        version: WHEN,
        group: path("/prod"),
        apps: full_deployment().changes,
        groups: vec![GroupChange { id: path("/prod"), from: Some(Arc::new(plain)), to: Some(Arc::new(full_group())) }],
    }
}

fn full_claim() -> PortClaim {
    PortClaim { port: 1066, app: path("/testdb"), position: Position::Env(0), owner: Owner::new("zmfsea"), created_at: WHEN }
}

fn full_brick() -> Brick {
    let task = TaskId::app(InstanceId::new(path("/testdb"), UUID), 3);
    Brick {
        name: BrickName::new("testdb-var-lib-pgsql-9.6-data-0123456789abcdef"),
        app: path("/testdb"),
        container_path: "/var/lib/pgsql/9.6/data".into(),
        size: 131_072,
        pool: PoolName::new("datapool"),
        file_system: FileSystem::Ext4,
        owner: Owner::new("zmfsea"),
        created_at: WHEN,
        home: Some(AgentId::new("S0")),
        epoch: 9,
        lease: Some(Lease { task, agent: AgentId::new("S0"), epoch: 9 }),
        last_mounted: Some(WHEN),
        condemned: false,
        reservation: Some(Reservation { instance: InstanceId::new(path("/testdb"), UUID), uuid: UUID, released_at: Some(WHEN) }),
    }
}

fn full_agent() -> Agent {
    Agent {
        id: AgentId::new("6b0cd2e8-b243-11e8-8b80-024247c0a575-S0"),
        host: "compute1".into(),
        addresses: vec!["10.0.0.1".parse().unwrap()],
        attributes: vec![Attribute { name: "rack".into(), text: "1".into() }],
        region: Some("eu".into()),
        zone: Some("eu-1".into()),
        seen_at: WHEN,
    }
}

fn full_failure() -> TaskFailure {
    TaskFailure {
        app: path("/testdb"),
        task: TaskId::app(InstanceId::new(path("/testdb"), UUID), 3),
        state: TaskState::Failed,
        message: "Container exited with status 1".into(),
        host: "compute1".into(),
        agent: AgentId::new("S0"),
        timestamp: WHEN,
        version: WHEN,
    }
}

fn full_user() -> User {
    let quota = Quota {
        cpus: Some(Scalar::from_f64(2.5)),
        mem: Some(Scalar::whole(4096)),
        brick: Some(1 << 20),
        ports: Some(10),
        instances: Some(20),
    };
    User {
        name: Owner::new("zmfsea"),
        password: Some(PasswordHash::new("$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHQ$aGFzaA")),
        admin: true,
        locked: true,
        monitor: true,
        generation: u64::MAX,
        quota,
        grants: Grants { privileged: true, docker_parameters: true, host_volumes: true },
        created_at: WHEN,
    }
}

fn bare_user() -> User {
    User {
        name: Owner::new("bo"),
        password: None,
        admin: false,
        locked: false,
        monitor: false,
        generation: 1,
        quota: Quota::default(),
        grants: Grants::default(),
        created_at: WHEN,
    }
}

/// Any record of any kind.
pub(crate) fn any_record() -> BoxedStrategy<Record> {
    prop_oneof![
        option::of(text()).prop_map(|framework_id| Record::Meta(Arc::new(Meta { framework_id, ..Meta::default() }))),
        (any_path(), text()).prop_map(|(id, owner)| Record::App(Arc::new(AppEntry { id, owner: Owner::new(owner) }))),
        any_app().prop_map(|app| Record::Definition(Arc::new(app))),
        any_instance().prop_map(|instance| Record::Instance(Arc::new(instance))),
        any_deployment().prop_map(|deployment| Record::Deployment(Arc::new(deployment))),
        any_claim().prop_map(|claim| Record::Port(Arc::new(claim))),
        any_brick().prop_map(|brick| Record::Brick(Arc::new(brick))),
        any_agent().prop_map(|agent| Record::Agent(Arc::new(agent))),
        any_failure().prop_map(|failure| Record::Failure(Arc::new(failure))),
        any_user().prop_map(|user| Record::User(Arc::new(user))),
        any_path().prop_map(|id| Record::Group(Arc::new(Group::plain(id, Owner::new("zmfsea"))))),
        when().prop_map(|version| Record::RootVersion(Arc::new(RootVersion { version, ..full_root_version() }))),
        any_app().prop_map(|app| Record::Archived(Arc::new(app))),
    ]
    .boxed()
}

/// A small world in which puts and deletes meet the same records again and again.
pub(crate) fn any_change() -> BoxedStrategy<Change> {
    let record = prop_oneof![
        option::of(text()).prop_map(|framework_id| Record::Meta(Arc::new(Meta { framework_id, ..Meta::default() }))),
        (0..6_u128, 0..100_u32).prop_map(|(number, incarnation)| Record::Instance(Arc::new(Instance { incarnation, ..instance(number) }))),
        (0..4_u16, text()).prop_map(|(port, owner)| Record::Port(Arc::new(PortClaim { port, owner: Owner::new(owner), ..full_claim() }))),
        (0..3_u8, text())
            .prop_map(|(n, owner)| { Record::App(Arc::new(AppEntry { id: path(&format!("/app{n}")), owner: Owner::new(owner) })) }),
        // Long values, so that write buffers fill and compression is used.
        (0..3_u8, 0..4_i64, "[a-z]{5000,9000}").prop_map(|(n, version, cmd)| {
            let (id, version) = (path(&format!("/app{n}")), Timestamp(version));
            Record::Definition(Arc::new(App { id, version, cmd: Some(cmd), ..bare_app() }))
        }),
        (0..4_i64, any_path()).prop_map(|(version, group)| Record::RootVersion(Arc::new(RootVersion {
            version: Timestamp(version),
            group,
            ..full_root_version()
        }))),
    ];
    (record, prop::bool::weighted(0.3))
        .prop_map(|(record, delete)| if delete { Change::Delete(record.key()) } else { Change::Put(record) })
        .boxed()
}

fn text() -> BoxedStrategy<String> {
    prop_oneof!["[a-z0-9.-]{1,12}", any::<String>()].boxed()
}

fn texts() -> BoxedStrategy<Vec<String>> {
    vec(text(), 0..3).boxed()
}

fn labels() -> BoxedStrategy<IndexMap<String, String>> {
    vec((text(), text()), 0..3).prop_map(|pairs| pairs.into_iter().collect()).boxed()
}

/// Years 1970 to 9999, as far as the text form goes.
fn when() -> BoxedStrategy<Timestamp> {
    (0..253_402_300_799_999_i64).prop_map(Timestamp).boxed()
}

pub(crate) fn any_path() -> BoxedStrategy<PathId> {
    "(/[a-z0-9]([a-z0-9-]{0,6}[a-z0-9])?(\\.[a-z0-9]{1,3})?){1,4}".prop_map(|text| path(&text)).boxed()
}

fn scalar() -> BoxedStrategy<Scalar> {
    (0..1_u64 << 40).prop_map(Scalar).boxed()
}

fn fraction() -> BoxedStrategy<f64> {
    (0.0..=1.0).boxed()
}

fn protocol() -> BoxedStrategy<Protocol> {
    prop::sample::select(vec![Protocol::Tcp, Protocol::Udp, Protocol::Both]).boxed()
}

fn port_number() -> BoxedStrategy<PortNumber> {
    prop_oneof![
        Just(PortNumber::Dynamic),
        any::<u16>().prop_map(PortNumber::Fixed),
        Just(PortNumber::Wanted),
        any::<u16>().prop_map(PortNumber::Allotted)
    ]
    .boxed()
}

fn instance_id() -> BoxedStrategy<InstanceId> {
    (any_path(), any::<u128>()).prop_map(|(app, bits)| InstanceId::new(app, Uuid::from_u128(bits))).boxed()
}

fn task_id() -> BoxedStrategy<TaskId> {
    (instance_id(), option::of("[a-z0-9-]{1,9}"), any::<u32>())
        .prop_map(|(instance, container, incarnation)| TaskId { instance, container: container.map(Into::into), incarnation })
        .boxed()
}

fn mode() -> impl Strategy<Value = Mode> {
    prop::sample::select(vec![Mode::Ro, Mode::Rw])
}

fn external_volume() -> impl Strategy<Value = Volume> {
    let options = prop::collection::btree_map(text(), text(), 0..3);
    (text(), mode(), text(), text(), options, option::of(any::<u64>()), any::<bool>()).prop_map(
        |(container_path, mode, name, provider, options, size, shared)| {
            Volume::External(ExternalVolume { container_path, mode, name, provider, options, size, shared })
        },
    )
}

fn container() -> BoxedStrategy<Container> {
    let docker = (text(), any::<bool>(), any::<bool>(), vec((text(), text()), 0..2)).prop_map(|(image, pull, privileged, parameters)| {
        Docker { image, force_pull_image: pull, privileged, parameters, pull_config: None }
    });
    let mapping = (any::<u16>(), option::of(port_number()), any::<u16>(), protocol(), option::of(text()), labels(), texts()).prop_map(
        |(container_port, host_port, service_port, protocol, name, labels, network_names)| PortMapping {
            container_port,
            host_port,
            service_port,
            protocol,
            name,
            labels,
            network_names,
        },
    );
    let host = (text(), text(), mode()).prop_map(|(container_path, host_path, mode)| Volume::Host { container_path, host_path, mode });
    let file_system = option::of(prop::sample::select(vec![FileSystem::Ext4, FileSystem::Xfs]));
    let brick = (text(), mode(), any::<u64>(), text(), file_system).prop_map(|(container_path, mode, size, pool, file_system)| {
        Volume::Brick(BrickVolume { container_path, mode, size, pool: PoolName::new(pool), file_system })
    });
    let persistent = (text(), mode(), any::<u64>())
        .prop_map(|(container_path, mode, size)| Volume::Persistent(PersistentVolume { container_path, mode, size }));
    let kind = prop::sample::select(vec![ContainerKind::Docker, ContainerKind::Mesos]);
    (kind, option::of(docker), vec(mapping, 0..3), vec(prop_oneof![host, brick, persistent, external_volume()], 0..3))
        .prop_map(|(kind, docker, port_mappings, volumes)| Container { kind, docker, port_mappings, volumes, linux_info: None })
        .boxed()
}

fn network() -> BoxedStrategy<Network> {
    let named = (text(), labels()).prop_map(|(name, labels)| NamedNetwork { name, labels });
    prop_oneof![Just(Network::Host), Just(Network::Bridge), vec(named, 0..3).prop_map(Network::Container)].boxed()
}

fn any_app() -> BoxedStrategy<App> {
    let value = prop_oneof![text().prop_map(EnvValue::Text), text().prop_map(|secret| EnvValue::Secret { secret })];
    let operator = prop::sample::select(vec![
        Operator::Unique,
        Operator::Cluster,
        Operator::GroupBy,
        Operator::Like,
        Operator::Unlike,
        Operator::MaxPer,
        Operator::Is,
    ]);
    let constraint = (text(), operator, option::of(text())).prop_map(|(field, operator, value)| Constraint { field, operator, value });
    let definition = (port_number(), protocol(), option::of(text()), labels()).prop_map(|(port, protocol, name, labels)| PortDefinition {
        port,
        protocol,
        name,
        labels,
    });
    let what = (any_path(), option::of(text()), texts(), option::of(text()), vec((text(), value), 0..3), any::<u32>());
    let needs = (scalar(), scalar(), scalar(), text(), vec(constraint, 0..3), option::of(texts()), text(), labels());
    let wires = (option::of(container()), network(), vec(definition, 0..3), any::<bool>());
    let unreachable = prop_oneof![
        Just(UnreachableStrategy::Disabled),
        (any::<u64>(), any::<u64>()).prop_map(|(inactive_after_seconds, expunge_after_seconds)| UnreachableStrategy::Enabled {
            inactive_after_seconds,
            expunge_after_seconds
        })
    ];
    let selection = prop::sample::select(vec![KillSelection::YoungestFirst, KillSelection::OldestFirst]);
    let ways = (any::<u64>(), 1.0..1000.0_f64, any::<u64>(), option::of(any::<u64>()), selection, fraction(), fraction(), unreachable);
    (what, needs, wires, ways, (when(), when(), when()))
        .prop_map(|(what, needs, wires, ways, times)| App {
            id: what.0,
            cmd: what.1,
            args: what.2,
            user: what.3,
            env: what.4.into_iter().collect(),
            secrets: IndexMap::new(),
            fetch: Vec::new(),
            instances: what.5,
            cpus: needs.0,
            mem: needs.1,
            disk: needs.2,
            gpus: needs.0.0 as u32 % 3,
            resource_limits: None,
            executor: needs.3,
            constraints: needs.4,
            accepted_resource_roles: needs.5,
            role: needs.6,
            labels: needs.7,
            container: wires.0,
            network: wires.1,
            bridge_labels: IndexMap::new(),
            port_definitions: wires.2,
            require_ports: wires.3,
            backoff: Backoff { initial_ms: ways.0, factor: ways.1, max_ms: ways.2 },
            kill_grace_ms: ways.3,
            dependencies: vec![],
            health_checks: vec![],
            readiness_checks: vec![],
            check: None,
            kill_selection: ways.4,
            upgrade_strategy: UpgradeStrategy { minimum_health_capacity: ways.5, maximum_over_capacity: ways.6 },
            unreachable_strategy: ways.7,
            version: times.0,
            version_info: (times.1 > times.2).then_some(VersionInfo { last_scaling_at: times.1, last_config_change_at: times.2 }),
            owner: None,
            vouched: false,
            administered: false,
            tty: None,
            executor_resources: None,
            pod: None,
        })
        .boxed()
}

fn any_instance() -> BoxedStrategy<Instance> {
    let placement = (text(), text(), vec(any::<u16>(), 0..3)).prop_map(|(agent, host, ports)| Placement {
        agent: AgentId::new(agent),
        host: host.into(),
        ports,
    });
    let goal = prop::sample::select(vec![Goal::Running, Goal::Stopped, Goal::Decommissioned]);
    let state = (
        prop::sample::select(Condition::ALL.to_vec()),
        goal,
        any::<u32>(),
        option::of(placement),
        option::of(any::<bool>()),
        any::<bool>(),
    );
    let times = (when(), when(), option::of(when()), option::of(when()));
    let check =
        (option::of(when()), any::<u32>(), option::of(when()), text()).prop_map(|(first_success, failures, last_failure, cause)| {
            CheckState { first_success, failures, last_failure, last_failure_cause: cause }
        });
    let container = (prop::sample::select(Condition::ALL.to_vec()), option::of(when()))
        .prop_map(|(condition, started_at)| ContainerState { condition, started_at });
    (instance_id(), state, times, vec(any::<std::net::IpAddr>(), 0..3), vec(check, 0..3), vec(container, 0..3))
        .prop_map(|(id, state, times, addresses, checks, containers)| Instance {
            id,
            version: times.0,
            incarnation: state.2,
            condition: state.0,
            goal: state.1,
            since: times.1,
            placement: state.3,
            staged_at: times.2,
            started_at: times.3,
            addresses,
            healthy: state.4,
            checks,
            ready: state.5,
            containers,
        })
        .boxed()
}

fn any_deployment() -> BoxedStrategy<Deployment> {
    let kind = prop::sample::select(vec![ActionKind::Start, ActionKind::Stop, ActionKind::Scale, ActionKind::Restart]);
    let action = (kind, any_path(), any::<bool>()).prop_map(|(kind, app, pod)| Action { kind, app, pod });
    let step = vec(action, 1..3).prop_map(|actions| Step { actions });
    let change = (any_path(), option::of(when()), option::of(when())).prop_map(|(app, from, to)| AppChange { app, owner: None, from, to });
    (text(), when(), vec(change, 0..3), vec(step, 0..3), any::<u32>(), when())
        .prop_map(|(id, version, changes, steps, current_step, started_at)| Deployment {
            id: DeploymentId::new(id),
            version,
            changes,
            groups: vec![],
            steps,
            current_step: current_step as usize,
            started_at,
        })
        .boxed()
}

fn any_claim() -> BoxedStrategy<PortClaim> {
    let position = prop_oneof![
        any::<u16>().prop_map(Position::Env),
        any::<u16>().prop_map(Position::PortDefinition),
        any::<u16>().prop_map(Position::PortMapping)
    ];
    (any::<u16>(), any_path(), position, text(), when())
        .prop_map(|(port, app, position, owner, created_at)| PortClaim { port, app, position, owner: Owner::new(owner), created_at })
        .boxed()
}

fn any_brick() -> BoxedStrategy<Brick> {
    let lease = (task_id(), text(), any::<u64>()).prop_map(|(task, agent, epoch)| Lease { task, agent: AgentId::new(agent), epoch });
    let what = (text(), any_path(), text(), any::<u64>(), text(), text());
    let file_system = prop::sample::select(vec![FileSystem::Ext4, FileSystem::Xfs]);
    let reservation = (any_path(), any::<u128>(), any::<u128>(), option::of(when())).prop_map(|(app, instance, uuid, released_at)| {
        let instance = InstanceId::new(app, Uuid::from_u128(instance));
        Reservation { instance, uuid: Uuid::from_u128(uuid), released_at }
    });
    (what, file_system, when(), option::of(text()), any::<u64>(), option::of(lease), option::of(when()), option::of(reservation))
        .prop_map(|(what, file_system, created_at, home, epoch, lease, last_mounted, reservation)| Brick {
            name: BrickName::new(what.0),
            app: what.1,
            container_path: what.2,
            size: what.3,
            pool: PoolName::new(what.4),
            file_system,
            owner: Owner::new(what.5),
            created_at,
            home: home.map(AgentId::new),
            epoch,
            lease,
            last_mounted,
            condemned: what.3.is_multiple_of(2),
            reservation,
        })
        .boxed()
}

fn any_agent() -> BoxedStrategy<Agent> {
    let attribute = (text(), text()).prop_map(|(name, text)| Attribute { name, text });
    let addresses = vec(any::<std::net::IpAddr>(), 0..3);
    (text(), text(), addresses, vec(attribute, 0..3), option::of(text()), option::of(text()), when())
        .prop_map(|(id, host, addresses, attributes, region, zone, seen_at)| Agent {
            id: AgentId::new(id),
            host,
            addresses,
            attributes,
            region,
            zone,
            seen_at,
        })
        .boxed()
}

fn any_failure() -> BoxedStrategy<TaskFailure> {
    let state = prop::sample::select(TaskState::ALL.to_vec());
    (any_path(), task_id(), state, text(), text(), text(), when(), when())
        .prop_map(|(app, task, state, message, host, agent, timestamp, version)| TaskFailure {
            app,
            task,
            state,
            message,
            host,
            agent: AgentId::new(agent),
            timestamp,
            version,
        })
        .boxed()
}

fn any_user() -> BoxedStrategy<User> {
    let quota = (option::of(scalar()), option::of(scalar()), option::of(any::<u64>()), option::of(any::<u32>()), option::of(any::<u32>()))
        .prop_map(|(cpus, mem, brick, ports, instances)| Quota { cpus, mem, brick, ports, instances });
    let grants = (any::<bool>(), any::<bool>(), any::<bool>()).prop_map(|(privileged, docker_parameters, host_volumes)| Grants {
        privileged,
        docker_parameters,
        host_volumes,
    });
    (text(), option::of(text()), any::<bool>(), any::<bool>(), any::<bool>(), any::<u64>(), quota, grants, when())
        .prop_map(|(name, password, admin, locked, monitor, generation, quota, grants, created_at)| User {
            name: Owner::new(name),
            password: password.map(PasswordHash::new),
            admin,
            locked,
            monitor,
            generation,
            quota,
            grants,
            created_at,
        })
        .boxed()
}
