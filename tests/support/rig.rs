//! A core's side of the seam, for tests: it launches on the offers that come, acknowledges every status, and remembers what was told.

use std::{
    collections::HashMap,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::{mpsc, watch},
    task::JoinHandle,
};
use xtao::{
    brick::Bricks,
    cluster::engine::{
        self, EngineError, Settings,
        access::Access,
        process::record::{Order, Records},
        sandbox, spec,
    },
    model::{
        app::{
            App, Backoff, Container, ContainerKind, Docker, EnvValue, ExternalVolume, FileSystem, KillSelection, Mode, Network,
            PersistentVolume, PortDefinition, PortMapping, PortNumber, Protocol, UnreachableStrategy, UpgradeStrategy, Volume,
            input::Defaults,
        },
        brick::{BrickMount, DEFAULT_POOL},
        cluster::{BrickReport, ClusterCall, ClusterEvent, Launch, Offer, TaskState, TaskStatus},
        frame::{Channel, Frame},
        id::{AgentId, BrickName, ClusterId, InstanceId, Owner, PoolName, TaskId},
        pod::input::PodInput,
        resources::{PortRange, Resources, Scalar},
        time::Timestamp,
    },
};

use crate::support::docker::{Daemon, IMAGE};

/// Longer than anything takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);

/// A launch being put together.
#[derive(Clone)]
pub struct Wanted {
    launch: Launch,
}

pub fn task(app: &str) -> TaskId {
    TaskId::app(InstanceId::new(app.parse().unwrap(), uuid::Uuid::new_v4()), 1)
}

/// A shell command with host networking, a tenth of a CPU and 64 MiB.
pub fn command(app: &str, cmd: &str) -> Wanted {
    let resources = Resources { cpus: Scalar(100), mem: Scalar::whole(64), ..Resources::default() };
    let launch = Launch {
        task: task(app),
        agent: AgentId::new("node"),
        host: "node1".into(),
        app: Arc::new(definition(app, cmd)),
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
    };
    Wanted { launch }
}

/// A pod of two containers with a network of its own, in which the first is published at `host_port`: its containers.
pub fn pod(id: &str, cmd: &str, host_port: u16) -> Vec<Wanted> {
    let container = |name: &str, endpoints: Value| {
        let (exec, image) = (json!({"command": {"shell": cmd}}), json!({"kind": "DOCKER", "id": IMAGE}));
        json!({"name": name, "exec": exec, "image": image, "resources": {"cpus": 0.1, "mem": 32}, "endpoints": endpoints})
    };
    let endpoints = json!([{"name": "http", "containerPort": 80, "hostPort": host_port, "protocol": ["tcp"]}]);
    let containers = [container("web", endpoints), container("side", json!([]))];
    let written = json!({"id": id, "networks": [{"mode": "container/bridge"}], "containers": containers});
    let app = PodInput::read(&written).unwrap().complete(&id.parse().unwrap(), &Defaults::default()).unwrap();
    let launch = Launch { app: app.into(), ports: vec![host_port], container_ports: vec![80], ..command(id, cmd).launch };
    launch.containers().into_iter().map(|launch| Wanted { launch }).collect()
}

/// This process, as a port's holder is named.
pub fn own_name() -> String {
    let name = std::fs::read_to_string("/proc/self/comm").unwrap();
    format!("{} (process {})", name.trim(), std::process::id())
}

/// The same without an image, written by an administrator.
pub fn process(app: &str, cmd: &str) -> Wanted {
    let mut wanted = command(app, cmd);
    wanted.app().container = None;
    wanted.app().administered = true;
    wanted
}

/// The same with a bridge and one published port.
pub fn bridge(app: &str, cmd: &str, container_port: u16, host_port: u16) -> Wanted {
    let mut wanted = command(app, cmd);
    wanted.app().network = Network::Bridge;
    wanted.app().container.as_mut().unwrap().port_mappings = vec![PortMapping {
        container_port,
        host_port: Some(PortNumber::Fixed(host_port)),
        service_port: 0,
        protocol: Protocol::Tcp,
        name: None,
        labels: Default::default(),
        network_names: Vec::new(),
    }];
    wanted.launch.ports = vec![host_port];
    wanted.launch.container_ports = vec![container_port];
    wanted
}

pub fn volume(wanted: Wanted, host_path: &str, container_path: &str) -> Wanted {
    volume_with(wanted, host_path, container_path, Mode::Rw)
}

pub fn volume_with(mut wanted: Wanted, host_path: &str, container_path: &str, mode: Mode) -> Wanted {
    wanted.add(Volume::Host { container_path: container_path.to_owned(), host_path: host_path.to_owned(), mode });
    wanted
}

pub fn parameter(mut wanted: Wanted, key: &str, value: &str) -> Wanted {
    wanted.docker().parameters.push((key.to_owned(), value.to_owned()));
    wanted
}

/// With a brick of 64 MiB at `/data`.
pub fn with_brick(wanted: Wanted, name: &BrickName, epoch: u64) -> Wanted {
    with_brick_at(wanted, name, epoch, "/data")
}

/// With a brick of 64 MiB.
pub fn with_brick_at(mut wanted: Wanted, name: &BrickName, epoch: u64, container_path: &str) -> Wanted {
    wanted.launch.bricks.push(BrickMount {
        name: name.clone(),
        epoch,
        size: 64,
        pool: PoolName::new(DEFAULT_POOL),
        file_system: FileSystem::Ext4,
        container_path: container_path.to_owned(),
        read_only: false,
    });
    wanted
}

/// A secret that the engine reads.
pub fn secret(directory: &Path, source: &str, content: &str) {
    let path = directory.join(source);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, content).unwrap();
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
}

/// With a persistent volume of 64 MiB, `data` in the sandbox.
pub fn with_volume(wanted: Wanted, name: &BrickName, epoch: u64) -> Wanted {
    let mut wanted = with_brick_at(wanted, name, epoch, "data");
    wanted.add(Volume::Persistent(PersistentVolume { container_path: "data".to_owned(), mode: Mode::Rw, size: 64 }));
    wanted
}

/// With an external volume at `/data`.
pub fn with_external(mut wanted: Wanted, name: &str, driver: &str, more: &[(&str, &str)]) -> Wanted {
    let options = more.iter().copied().chain([("dvdi/driver", driver)]);
    wanted.add(Volume::External(ExternalVolume {
        container_path: "/data".to_owned(),
        mode: Mode::Rw,
        name: name.to_owned(),
        provider: "dvdi".to_owned(),
        options: options.map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
        size: None,
        shared: false,
    }));
    wanted
}

impl Wanted {
    pub fn app(&mut self) -> &mut App {
        Arc::make_mut(&mut self.launch.app)
    }

    fn add(&mut self, volume: Volume) {
        let none = Container { kind: ContainerKind::Mesos, docker: None, port_mappings: Vec::new(), volumes: Vec::new(), linux_info: None };
        self.app().container.get_or_insert(none).volumes.push(volume);
    }

    fn docker(&mut self) -> &mut Docker {
        self.app().container.as_mut().unwrap().docker.as_mut().unwrap()
    }

    pub fn task(&self) -> &TaskId {
        &self.launch.task
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.app().env.insert(name.to_owned(), EnvValue::Text(value.to_owned()));
        self
    }

    pub fn image(mut self, image: &str) -> Self {
        self.docker().image = image.to_owned();
        self
    }

    pub fn owner(mut self, owner: &str) -> Self {
        self.launch.owner = Owner::new(owner);
        self
    }

    /// With one port, of TCP.
    pub fn port(mut self, port: u16) -> Self {
        let definition = PortDefinition { port: PortNumber::Dynamic, protocol: Protocol::Tcp, name: None, labels: Default::default() };
        self.app().port_definitions.push(definition);
        self.launch.ports.push(port);
        self
    }

    /// With a number behind `@PORT`.
    pub fn allotted(mut self, port: u16) -> Self {
        self.launch.allotted.push((0, port));
        self
    }

    /// Owned by somebody who is no administrator.
    pub fn ordinary(mut self) -> Self {
        self.launch.owner_is_admin = false;
        self
    }

    /// Asked for by an ordinary user.
    pub fn account(mut self, account: &str) -> Self {
        self.launch.account = Some(Owner::new(account));
        self.owner(account)
    }

    pub fn args(mut self, args: &[&str]) -> Self {
        self.app().cmd = None;
        self.app().args = args.iter().map(|arg| (*arg).to_owned()).collect();
        self
    }
}

fn definition(id: &str, cmd: &str) -> App {
    App {
        id: id.parse().unwrap(),
        cmd: Some(cmd.to_owned()),
        args: Vec::new(),
        user: None,
        env: Default::default(),
        secrets: Default::default(),
        fetch: Vec::new(),
        instances: 1,
        cpus: Scalar(100),
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
                image: IMAGE.into(),
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
        unreachable_strategy: UnreachableStrategy::Disabled,
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

/// The engine, and the core that talks to it.
pub struct Rig {
    settings: Settings,
    bricks: Arc<Bricks>,
    running: Option<Running>,
    offer: Option<Offer>,
    told: Vec<TaskStatus>,
    /// How many of `told` a test has looked at, by task.
    looked: HashMap<TaskId, usize>,
}

struct Running {
    engine: JoinHandle<Result<(), EngineError>>,
    calls: mpsc::Sender<ClusterCall>,
    events: mpsc::Receiver<ClusterEvent>,
    shutdown: watch::Sender<bool>,
}

impl Rig {
    /// An engine on `daemon`, connected and with an offer.
    pub async fn start(daemon: &Daemon) -> Self {
        let mut rig = Self::idle(daemon);
        rig.begin(daemon).await;
        rig
    }

    pub fn idle(daemon: &Daemon) -> Self {
        _ = tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env()).with_test_writer().try_init();
        let work_dir = daemon.path("work");
        std::fs::create_dir_all(&work_dir).unwrap();
        let address = daemon.address().parse().unwrap();
        let (cluster, agent) = (ClusterId::new("test"), AgentId::new("node"));
        let mut settings = Settings::new(daemon.host(), work_dir.clone(), cluster, agent, "node1".to_owned(), vec![address]);
        settings.resources.cpus = Some(Scalar::whole(10));
        settings.shim = env!("CARGO_BIN_EXE_xtao").into();
        settings.host_volume_allow = vec![daemon.path("shared"), daemon.path("link")];
        let bricks = xtao::brick::Settings { work_dir, overcommit: 1.0, reserve: 0 };
        let bricks = tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(Bricks::open(bricks))).unwrap();
        Self { settings, bricks: Arc::new(bricks), running: None, offer: None, told: Vec::new(), looked: HashMap::new() }
    }

    /// With a registry of the platform's own.
    pub fn platform(&mut self, platform: Arc<xtao::registry::platform::Platform>) {
        self.settings.platform = Some(platform);
    }

    pub fn begin_without_waiting(&mut self, _daemon: &Daemon) {
        // Small queues, so that a queue that is full happens in every test.
        let (calls, incoming) = mpsc::channel(4);
        let (outgoing, events) = mpsc::channel(4);
        let (shutdown, stopped) = watch::channel(false);
        let engine = tokio::spawn(engine::run(self.settings.clone(), self.bricks.clone(), incoming, outgoing, stopped));
        self.running = Some(Running { engine, calls, events, shutdown });
    }

    pub async fn begin(&mut self, daemon: &Daemon) {
        self.begin_without_waiting(daemon);
        self.event(|event| matches!(event, ClusterEvent::Connected { .. })).await;
        self.offered().await;
    }

    /// Ends the engine as a shutdown does; tasks run on.
    pub async fn stop(&mut self) {
        let Some(running) = self.running.take() else { return };
        running.shutdown.send_replace(true);
        running.engine.await.unwrap().unwrap();
        self.offer = None;
    }

    /// Ends the engine in the middle of whatever it does.
    pub async fn crash(&mut self) {
        let Some(running) = self.running.take() else { return };
        running.engine.abort();
        _ = running.engine.await;
        self.offer = None;
        self.looked.clear();
        self.told.clear();
    }

    pub async fn call(&self, call: ClusterCall) {
        tracing::debug!(?call, "called");
        self.running.as_ref().unwrap().calls.send(call).await.unwrap();
    }

    /// Takes events until one fits; what it says is noted, and statuses are acknowledged.
    pub async fn event(&mut self, mut fits: impl FnMut(&ClusterEvent) -> bool) -> ClusterEvent {
        let search = async {
            loop {
                let event = self.running.as_mut().unwrap().events.recv().await.expect("the engine runs");
                tracing::debug!(?event, "told");
                self.note(&event).await;
                if fits(&event) {
                    return event;
                }
            }
        };
        match tokio::time::timeout(LIMIT, search).await {
            Ok(event) => event,
            Err(_) => panic!("the event did not come; offer: {:?}, told: {:#?}", self.offer, self.told),
        }
    }

    async fn note(&mut self, event: &ClusterEvent) {
        match event {
            ClusterEvent::Offers(offers) => self.offer = offers.first().cloned(),
            ClusterEvent::Rescinded(_) | ClusterEvent::Disconnected { .. } => self.offer = None,
            ClusterEvent::Status(status) => {
                self.told.push(status.clone());
                if let Some(uuid) = status.uuid {
                    let agent = status.agent.clone().unwrap();
                    self.call(ClusterCall::Acknowledge { task: status.task.clone(), agent, uuid }).await;
                }
            }
            _ => {}
        }
    }

    async fn offered(&mut self) -> Offer {
        while self.offer.is_none() {
            self.event(|event| matches!(event, ClusterEvent::Offers(_))).await;
        }
        self.offer.clone().unwrap()
    }

    pub async fn offered_cpus(&mut self) -> f64 {
        let total = self.total_cpus();
        // Everything that ended is acknowledged; the offer that says so may still be on its way.
        loop {
            let cpus = self.offered().await.resources.cpus.as_f64();
            if cpus >= total - 0.1 {
                return cpus;
            }
            self.event(|event| matches!(event, ClusterEvent::Offers(_))).await;
        }
    }

    pub async fn offered_ports(&mut self) -> Vec<PortRange> {
        self.offered().await.resources.ports
    }

    /// Waits until nothing is held any more.
    pub async fn all_is_free(&mut self) {
        while self.offered().await.resources.cpus.as_f64() < self.total_cpus() {
            self.event(|event| matches!(event, ClusterEvent::Offers(_))).await;
        }
    }

    pub fn total_cpus(&self) -> f64 {
        self.settings.resources.cpus.unwrap().as_f64()
    }

    pub fn addresses(&self) -> Vec<IpAddr> {
        self.settings.node_addresses.clone()
    }

    pub async fn launch(&mut self, wanted: Wanted) -> TaskId {
        self.launch_all(vec![wanted]).await.remove(0)
    }

    pub async fn launch_all(&mut self, wanted: Vec<Wanted>) -> Vec<TaskId> {
        let offer = self.offered().await;
        self.offer = None;
        let tasks = wanted.iter().map(|wanted| wanted.task().clone()).collect();
        let launches = wanted.into_iter().map(|wanted| wanted.launch).collect();
        self.call(ClusterCall::Accept { offer: offer.id, launches }).await;
        tasks
    }

    pub async fn kill(&self, task: &TaskId, grace_ms: Option<u64>) {
        self.call(ClusterCall::Kill { task: task.clone(), agent: None, grace_ms }).await;
    }

    /// The next status of `task` in this state, among those not looked at yet.
    pub async fn status(&mut self, task: &TaskId, state: TaskState) -> TaskStatus {
        loop {
            let from = self.looked.get(task).copied().unwrap_or(0);
            let next = self.told.iter().enumerate().skip(from).find(|(_, status)| status.task == *task);
            match next {
                Some((at, status)) => {
                    let status = status.clone();
                    self.looked.insert(task.clone(), at + 1);
                    if status.state == state {
                        return status;
                    }
                    let wrong = is_terminal(status.state);
                    assert!(!wrong, "{task} is {}: {}", status.state.as_str(), status.message);
                }
                None => {
                    let sought = task.clone();
                    self.event(|event| matches!(event, ClusterEvent::Status(status) if status.task == sought)).await;
                }
            }
        }
    }

    pub async fn release(&self, brick: &BrickName, epoch: u64, task: &TaskId) {
        self.call(ClusterCall::ReleaseBrick { brick: brick.clone(), epoch, agent: AgentId::new("node"), task: task.clone() }).await;
    }

    /// The next report about bricks that is not about their usage.
    pub async fn brick_report(&mut self) -> BrickReport {
        let event = self.event(|event| matches!(event, ClusterEvent::Brick(report) if !matches!(report, BrickReport::Usage { .. }))).await;
        let ClusterEvent::Brick(report) = event else { panic!("{event:?}") };
        report
    }

    /// The same of one brick.
    pub async fn brick_report_of(&mut self, wanted: &BrickName) -> BrickReport {
        loop {
            let report = self.brick_report().await;
            match &report {
                BrickReport::Released { brick, .. } | BrickReport::Stuck { brick, .. } | BrickReport::Destroyed { brick, .. }
                    if brick == wanted =>
                {
                    return report;
                }
                _ => {}
            }
        }
    }

    pub fn history(&self, task: &TaskId) -> Vec<TaskState> {
        self.told.iter().filter(|status| status.task == *task).map(|status| status.state).collect()
    }

    /// Files of tasks' output are replaced after so many bytes. Before [`Rig::begin`].
    pub fn keep_log_bytes(&mut self, bytes: u64) {
        self.settings.log_file_bytes = bytes;
    }

    /// This node, as readers see it.
    pub fn access(&self) -> Access {
        Access::new(&self.settings)
    }

    /// Reads what a task writes to stdout until it has ended and everything is read.
    pub async fn read_to_the_end(&mut self, task: &TaskId) -> String {
        let access = self.access();
        let mut reader = access.open_output(task, sandbox::Output::Stdout).unwrap();
        let (mut bytes, mut gone) = (Vec::new(), false);
        self.until(async || {
            let was_gone = gone;
            while let Some(piece) = reader.read().unwrap() {
                bytes.extend(piece);
            }
            gone = access.is_gone(task).await;
            was_gone
        })
        .await;
        String::from_utf8(bytes).unwrap()
    }

    /// What was said of `task`.
    pub fn messages(&self, task: &TaskId) -> Vec<String> {
        self.told.iter().filter(|status| status.task == *task).map(|status| status.message.clone()).collect()
    }

    /// Waits until the container of an ended task is gone, and with it all of its output is kept.
    pub async fn removed(&mut self, task: &TaskId) {
        let docker = bollard::Docker::connect_with_host(&self.settings.docker_host).unwrap();
        let name = spec::container_name(task);
        self.until(async || docker.inspect_container(&name, None).await.is_err()).await;
    }

    /// Waits until nothing is left of an ended task that was a process.
    pub async fn forgotten(&mut self, task: &TaskId) {
        let path = self.records(task);
        self.until(async || !path.exists()).await;
    }

    /// Where it is written down what a process is.
    pub fn records(&self, task: &TaskId) -> PathBuf {
        self.settings.work_dir.join("processes").join(spec::file_name(task))
    }

    /// A number in those records: `"process"` or `"shim"`.
    pub fn pid(&self, task: &TaskId, whose: &str) -> i32 {
        let text = std::fs::read_to_string(self.records(task).join("started.json")).unwrap();
        let started: serde_json::Value = serde_json::from_str(&text).unwrap();
        i32::try_from(started[whose]["pid"].as_i64().unwrap()).unwrap()
    }

    /// Writes down what is to run without starting it, as a server that dies in between leaves it.
    pub fn order_only(&self, wanted: &Wanted) {
        let launch = &wanted.launch;
        let order = Order {
            task: launch.task.clone(),
            cluster: self.settings.cluster_id.clone(),
            resources: launch.resources.clone(),
            overhead: Resources::default(),
            mem_limit: None,
            kill_grace_ms: None,
            terminal: false,
            ports: Vec::new(),
            command: vec!["true".to_owned()],
            environment: Vec::new(),
            account: None,
            no_new_privileges: false,
            directory: "/".into(),
            work_dir: self.settings.work_dir.clone(),
            log_file_bytes: 1000,
            limits: Default::default(),
            volumes: Vec::new(),
        };
        Records::of(&self.settings.work_dir, &launch.task).put_order(&order).unwrap();
    }

    /// Before [`Rig::begin`].
    pub fn settings(&mut self) -> &mut Settings {
        &mut self.settings
    }

    /// Waits for a condition while events go on being taken.
    pub async fn until(&mut self, mut condition: impl AsyncFnMut() -> bool) {
        let began = std::time::Instant::now();
        while !condition().await {
            assert!(began.elapsed() < LIMIT, "it did not come to pass; told: {:#?}", self.told);
            let events = &mut self.running.as_mut().unwrap().events;
            if let Ok(Some(event)) = tokio::time::timeout(Duration::from_millis(20), events.recv()).await {
                self.note(&event).await;
            }
        }
    }

    pub fn file(&self, task: &TaskId, name: &str) -> PathBuf {
        sandbox::path(&self.settings.work_dir, task).join(name)
    }

    pub fn output(&self, task: &TaskId, name: &str) -> String {
        std::fs::read_to_string(self.file(task, name)).unwrap_or_default()
    }

    pub async fn await_output(&mut self, task: &TaskId, beginning: &str) {
        let path = self.file(task, "stdout");
        self.until(async || std::fs::read_to_string(&path).unwrap_or_default().starts_with(beginning)).await;
    }

    pub async fn await_lines(&mut self, task: &TaskId, count: usize) {
        let path = self.file(task, "stdout");
        self.until(async || std::fs::read_to_string(&path).unwrap_or_default().lines().count() >= count).await;
    }

    pub async fn await_file(&mut self, task: &TaskId, name: &str) {
        let path = self.file(task, name);
        self.until(async || path.exists()).await;
    }

    /// Waits until it is written down that a task was asked to end.
    pub async fn asked(&mut self, task: &TaskId) {
        let path = self.file(task, ".killed");
        self.until(async || std::fs::metadata(&path).is_ok_and(|file| file.len() > 0)).await;
    }

    /// While no engine runs: as if it had died between the signal and its note.
    pub fn forget_that_it_was_asked(&self, task: &TaskId) {
        std::fs::write(self.file(task, ".killed"), "").unwrap();
    }

    /// While no engine runs: as if all the time that a task was given had passed.
    pub fn let_the_grace_pass(&self, task: &TaskId) {
        let path = self.file(task, ".killed");
        let mut note: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(note["grace_ms"], 600_000);
        note["grace_ms"] = 1.into();
        std::fs::write(&path, note.to_string()).unwrap();
    }

    /// What Docker is asked for.
    pub fn body(&self, wanted: &Wanted, image_id: &str) -> bollard::models::ContainerCreateBody {
        let given = spec::Given { image_id, ..spec::Given::default() };
        spec::container(&wanted.launch, &self.settings, given).unwrap()
    }

    /// Creates a task's container without starting it, as a server that dies in between leaves it.
    pub async fn create_only(&self, daemon: &Daemon, wanted: &Wanted) {
        let id = daemon.docker(&["image", "inspect", "-f", "{{.Id}}", IMAGE]);
        let body = self.body(wanted, &id);
        let docker = bollard::Docker::connect_with_host(&self.settings.docker_host).unwrap();
        let options = bollard::query_parameters::CreateContainerOptionsBuilder::new().name(&spec::container_name(wanted.task())).build();
        docker.create_container(Some(options), body).await.unwrap();
    }
}

/// What a command wrote to its two outputs, and its exit code; empty when it had none.
pub async fn conversation(mut output: mpsc::Receiver<Frame>) -> [String; 3] {
    let mut texts = [const { String::new() }; 3];
    while let Some(Frame { channel, payload }) = tokio::time::timeout(LIMIT, output.recv()).await.expect("it ends") {
        let at = match channel {
            Channel::Stdout => 0,
            Channel::Stderr => 1,
            Channel::Exit => 2,
            other => panic!("{other:?}"),
        };
        texts[at] += std::str::from_utf8(&payload).unwrap();
    }
    texts
}

/// Waits for something that no event tells.
pub async fn eventually(mut condition: impl FnMut() -> bool) {
    let began = std::time::Instant::now();
    while !condition() {
        assert!(began.elapsed() < LIMIT, "it did not come to pass");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until a process with this command line runs on the machine, or none does any more.
pub async fn until_runs(command: &str, expected: bool) {
    let wanted = command.replace(' ', "\0") + "\0";
    let runs = || {
        let processes = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
        processes.into_iter().any(|entry| std::fs::read_to_string(entry.path().join("cmdline")).is_ok_and(|line| line == wanted))
    };
    let began = std::time::Instant::now();
    while runs() != expected {
        assert!(began.elapsed() < LIMIT, "{command}: {}", !expected);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// What processes hold: how many descriptors, and how many children, those that nobody has reaped among them.
pub fn held(processes: &[u32]) -> (usize, usize) {
    let descriptors = |pid: &u32| std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
    let parent = |pid: std::ffi::OsString| {
        let status = std::fs::read_to_string(format!("/proc/{}/status", pid.to_str()?)).ok()?;
        status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse::<u32>().ok()
    };
    let all = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok).map(|entry| entry.file_name());
    (processes.iter().map(descriptors).sum(), all.filter_map(parent).filter(|pid| processes.contains(pid)).count())
}

/// `None`: what is held now has not grown with the number of checks. A few come and go at any time, with housekeeping and tests beside this one.
pub fn grown(now: (usize, usize), before: (usize, usize)) -> Option<String> {
    (now.0 > before.0 + 20 || now.1 > before.1 + 20).then(|| format!("descriptors and children were {before:?} and are {now:?}"))
}

/// Checks the task again and again, a few at once, as the prober does: most end by themselves, with `exit 3`, and nobody waits for the rest, which
/// would go on.
pub async fn check_often(access: &Access, task: &TaskId, times: usize) {
    // Its number is this run's own: the same test of another checkout may run beside it.
    let endless = format!("sleep {}", 1_000_000_000 + u64::from(std::process::id()));
    let once = async |time: usize| {
        let forgotten = time % 8 == 7;
        let text = if forgotten { format!("exec {endless}") } else { "exit 3".to_owned() };
        let (input, mut output) = access
            .exec(task, vec!["/bin/sh".to_owned(), "-c".to_owned(), text], None, &xtao::model::request::Asker::Definition)
            .await
            .unwrap();
        if forgotten {
            return;
        }
        _ = input.send(Frame { channel: Channel::Stdin, payload: Vec::new() }).await;
        let mut last = output.recv().await;
        while let Some(frame) = last.take_if(|frame| frame.channel != Channel::Exit) {
            drop(frame);
            last = output.recv().await;
        }
        assert_eq!(last.unwrap().payload, b"3");
    };
    futures_util::stream::iter(0..times).map(once).buffer_unordered(16).collect::<Vec<()>>().await;
    until_runs(&endless, false).await;
}

/// Waits until nothing is left of what `rest` tells. Long enough for Docker, whose runtime closes what it lost sight of every two minutes.
pub async fn until_no_rest(what: &str, rest: impl Fn() -> Option<String>) {
    let began = std::time::Instant::now();
    while let Some(rest) = rest() {
        assert!(began.elapsed() < 3 * LIMIT, "{what}: {rest}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn is_terminal(state: TaskState) -> bool {
    !matches!(state, TaskState::Staging | TaskState::Starting | TaskState::Running | TaskState::Killing)
}

/// The body that a web server at `address` answers with; it may just be starting.
pub async fn http_get(address: &str) -> String {
    let began = std::time::Instant::now();
    loop {
        match try_http_get(address).await {
            Ok(body) if !body.is_empty() => return body,
            answer if began.elapsed() > LIMIT => panic!("{address}: {answer:?}"),
            _ => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

async fn try_http_get(address: &str) -> std::io::Result<String> {
    let mut stream = tokio::net::TcpStream::connect(address).await?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
}
