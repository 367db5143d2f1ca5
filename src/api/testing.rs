//! A hand-built world for the tests of this room: a view, and a stand-in for the driver that answers requests as plainly as can be.

use std::sync::{Arc, Mutex};

use futures_util::{
    StreamExt,
    stream::{self, BoxStream},
};
use hyper::body::Body as _;
use hyper_util::service::TowerToHyperService;
use indexmap::IndexMap;
use serde_json::Value;
use uuid::Uuid;
use warp::{
    filters::BoxedFilter,
    http::{HeaderMap, Request as HttpRequest, StatusCode},
};

use super::{
    Api, Info, Limits,
    call::Peer,
    describe,
    identity::{By, Source, Who},
    patience::Patience,
    routes,
};
use crate::{
    core::{
        Ctx, Input, Settings, State,
        state::{QueueEntry, View},
        step::step,
    },
    model::{
        agent::Agent,
        app::{
            App, Backoff, Container, ContainerKind, Docker, EnvValue, KillSelection, Network, PortDefinition, PortMapping, PortNumber,
            Protocol, UnreachableStrategy, UpgradeStrategy, VersionInfo, input::Defaults,
        },
        deployment::{Action, ActionKind, AppChange, Deployment, Step},
        event::{Audience, Event, Fact},
        id::{DeploymentId, InstanceId, Owner, PathId},
        instance::{Condition, ContainerState, Goal, Instance, Placement},
        pod::input::PodInput,
        port::{PortClaim, Position},
        record::{AppEntry, Change, Record, RecordKey},
        request::{KillSelector, Origin, Reply, Request, RequestError},
        resources::Scalar,
        time::{Instant, Timestamp},
        user::{Grants, Quota, User},
    },
    registry::platform::Platform,
    runtime::{
        handle::{Handle, Published, Submission},
        inbox::Inbox,
        node::NodeAccess,
    },
};

mod node;

pub use node::Node;

/// A fixed moment, `seconds` after it.
pub fn at(seconds: i64) -> Timestamp {
    Timestamp("2020-01-31T12:00:00.000Z".parse::<Timestamp>().unwrap().0 + seconds * 1000)
}

/// A definition to be varied.
pub struct AppBuilder(pub App);

/// An app with a command and one dynamic port on the host's network.
pub fn app(id: &str) -> AppBuilder {
    let default =
        PortDefinition { port: PortNumber::Fixed(10_000), protocol: Protocol::Tcp, name: Some("default".into()), labels: IndexMap::new() };
    AppBuilder(App {
        id: id.parse().unwrap(),
        cmd: Some("sleep 1000".into()),
        args: Vec::new(),
        user: None,
        env: IndexMap::new(),
        secrets: Default::default(),
        fetch: Vec::new(),
        instances: 1,
        cpus: Scalar::from_f64(0.5),
        mem: Scalar::whole(128),
        disk: Scalar::ZERO,
        gpus: 0,
        resource_limits: None,
        executor: String::new(),
        constraints: Vec::new(),
        accepted_resource_roles: None,
        role: "*".into(),
        labels: IndexMap::new(),
        container: None,
        network: Network::Host,
        bridge_labels: Default::default(),
        port_definitions: vec![default],
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
        version: at(0),
        version_info: Some(VersionInfo { last_scaling_at: at(0), last_config_change_at: at(0) }),
        owner: Some(Owner::default_owner()),
        vouched: false,
        administered: false,
        tty: None,
        executor_resources: None,
        pod: None,
    })
}

/// A pod as it is written.
pub fn pod(json: &Value) -> AppBuilder {
    let input = PodInput::read(json).unwrap();
    let app = input.complete(&input.path().unwrap(), &Defaults::default()).unwrap();
    let version_info = None;
    AppBuilder(App { version: at(0), version_info, owner: Some(Owner::default_owner()), ..app })
}

impl AppBuilder {
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.0.env.insert(name.into(), EnvValue::Text(value.into()));
        self
    }

    pub fn label(mut self, name: &str, value: &str) -> Self {
        self.0.labels.insert(name.into(), value.into());
        self
    }

    pub fn version(mut self, version: Timestamp) -> Self {
        self.0.version = version;
        self.0.version_info = None;
        self
    }

    /// Docker on the bridge; host port, container port and name of each mapping. Service ports count from 10100.
    pub fn bridge(mut self, mappings: &[(PortNumber, u16, Option<&str>)]) -> Self {
        let mapping = |(index, (host_port, container_port, name)): (usize, &(PortNumber, u16, Option<&str>))| PortMapping {
            container_port: *container_port,
            host_port: Some(*host_port),
            service_port: 10_100 + index as u16,
            protocol: Protocol::Tcp,
            name: name.map(str::to_owned),
            labels: IndexMap::new(),
            network_names: Vec::new(),
        };
        self.0.cmd = None;
        self.0.network = Network::Bridge;
        self.0.port_definitions = Vec::new();
        self.0.container = Some(Container {
            kind: ContainerKind::Docker,
            docker: Some(Docker {
                image: "zmfsea/web".into(),
                force_pull_image: false,
                privileged: false,
                parameters: Vec::new(),
                pull_config: None,
            }),
            port_mappings: mappings.iter().enumerate().map(mapping).collect(),
            volumes: Vec::new(),
            linux_info: None,
        });
        self
    }
}

/// What there is.
#[derive(Clone, Default)]
pub struct World {
    pub view: View,
    /// Whose everything is that is put in from now on; `None`: the default owner's.
    pub owner: Option<Owner>,
}

impl World {
    pub fn put(&mut self, record: Record) -> &mut Self {
        self.view.tables.apply(&Change::Put(record));
        self
    }

    /// The owner of what follows.
    pub fn of(&mut self, owner: &str) -> &mut Self {
        self.owner = Some(Owner::new(owner));
        self
    }

    pub fn owner(&self) -> Owner {
        self.owner.clone().unwrap_or_else(Owner::default_owner)
    }

    pub fn app(&mut self, app: AppBuilder) -> &mut Self {
        let owner = self.owner();
        let app = App { owner: Some(owner.clone()), ..app.0 };
        self.put(Record::App(Arc::new(AppEntry { id: app.id.clone(), owner })));
        self.put(Record::Definition(Arc::new(app)))
    }

    /// Somebody without a password.
    pub fn user(&mut self, name: &str, admin: bool, locked: bool) -> &mut Self {
        self.put(Record::User(Arc::new(User {
            name: Owner::new(name),
            password: None,
            admin,
            locked,
            monitor: false,
            generation: 1,
            quota: Quota::default(),
            grants: Grants::default(),
            created_at: at(0),
        })))
    }

    pub fn claim(&mut self, port: u16, app: &str, position: Position) -> &mut Self {
        let (app, owner, created_at) = (app.parse().unwrap(), self.owner(), at(0));
        self.put(Record::Port(Arc::new(PortClaim { port, app, position, owner, created_at })))
    }

    /// Instance number `number` of an app, in its current version, on `node1`.
    pub fn instance(&mut self, app: &str, number: u128, condition: Condition, ports: &[u16]) -> &mut Self {
        let app: PathId = app.parse().unwrap();
        let version = self.view.tables.app(&app).unwrap().version;
        let launched = condition != Condition::Scheduled;
        let placement = Placement { agent: "agent-S1".parse().unwrap(), host: "node1".into(), ports: ports.to_vec() };
        let started = matches!(condition, Condition::Running | Condition::Killing | Condition::Unreachable);
        let pod = self.view.tables.app(&app).and_then(|app| app.pod.clone()).filter(|_| launched);
        let container = ContainerState { condition, started_at: started.then(|| at(12)) };
        self.put(Record::Instance(Arc::new(Instance {
            id: InstanceId::new(app, Uuid::from_u128(number)),
            version,
            incarnation: u32::from(launched),
            condition,
            goal: Goal::Running,
            since: at(10),
            placement: launched.then_some(placement),
            staged_at: launched.then(|| at(10)),
            started_at: started.then(|| at(12)),
            addresses: if started { vec!["192.0.2.1".parse().unwrap()] } else { Vec::new() },
            healthy: None,
            checks: Vec::new(),
            ready: false,
            containers: pod.map_or_else(Vec::new, |pod| vec![container; pod.containers.len()]),
        })))
    }

    pub fn agent(&mut self) -> &mut Self {
        self.put(Record::Agent(Arc::new(Agent {
            id: "agent-S1".parse().unwrap(),
            host: "node1".into(),
            addresses: vec!["192.0.2.1".parse().unwrap()],
            attributes: Vec::new(),
            region: Some("west".into()),
            zone: None,
            seen_at: at(0),
        })))
    }

    pub fn deployment(&mut self, id: &str, app: &str) -> &mut Self {
        let app: PathId = app.parse().unwrap();
        let action = |kind| Step { actions: vec![Action { kind, app: app.clone(), pod: false }] };
        self.put(Record::Deployment(Arc::new(Deployment {
            id: id.parse().unwrap(),
            version: at(0),
            groups: Vec::new(),
            changes: vec![AppChange { owner: self.view.tables.owner_of(&app).cloned(), app: app.clone(), from: None, to: Some(at(0)) }],
            steps: vec![action(ActionKind::Start), action(ActionKind::Scale)],
            current_step: 1,
            started_at: at(0),
        })))
    }

    pub fn queue(&mut self, entry: QueueEntry) -> &mut Self {
        self.view.queue.insert(entry.app.clone(), Arc::new(entry));
        self
    }
}

/// An app that waits without a reason yet.
pub fn queued(app: &str) -> QueueEntry {
    QueueEntry {
        app: app.parse().unwrap(),
        since: at(5),
        not_before: None,
        processed: 0,
        unused: 0,
        last_unused_at: None,
        last_used_at: None,
        rejected: [0; 10],
        last_unused_offers: Default::default(),
        held_by: None,
        undecided: None,
    }
}

/// The API over a world, with a driver that carries requests out at once and remembers them.
pub struct Server {
    pub api: Api,
    pub handle: Handle,
    pub requests: Arc<Mutex<Vec<Request>>>,
    routes: BoxedFilter<(super::Response,)>,
}

/// Who somebody is: `root` an administrator, `watcher` one who reads the metrics alone, anybody else an ordinary user.
pub fn who(user: &str) -> Who {
    Who { user: Owner::new(user), admin: user == "root", monitor: user == "watcher", by: By::Password, until: None }
}

/// A connection on which it is known already who asks.
fn peer(user: &str) -> Peer {
    peer_of(who(user))
}

fn peer_of(who: Who) -> Peer {
    let source = Source::Tcp("127.0.0.1:4711".parse().unwrap());
    let asked = Arc::new(tokio::sync::OnceCell::new_with(Some(Ok(who))));
    Peer { ip: Peer::ip_of(&source), source, asked, closing: tokio::sync::watch::channel(false).1, patience: Patience::default() }
}

pub fn info() -> Info {
    let mut info = Info::new("node1", 8080, &crate::core::Settings::default());
    info.build_ref = "test".into();
    info
}

impl Server {
    pub fn new(world: World) -> Self {
        Self::with_limits(world, Limits::default())
    }

    pub fn with_limits(world: World, limits: Limits) -> Self {
        let (handle, submissions) = Handle::new(world.view.clone());
        let requests = Arc::default();
        let driver = Driver { handle: handle.clone(), world, requests: Arc::clone(&requests), revision: 0 };
        tokio::spawn(driver.run(submissions));
        let api = Api::with_limits(handle.clone(), info(), limits);
        Self { routes: routes(api.clone()), api, handle, requests }
    }

    /// The API before any handle.
    pub fn on(handle: Handle) -> Self {
        let api = Api::new(handle.clone(), info());
        Self { routes: routes(api.clone()), api, handle, requests: Arc::default() }
    }

    /// Says something else of itself from now on.
    pub fn inform(&mut self, change: impl FnOnce(&mut Info)) {
        change(Arc::make_mut(&mut self.api.info));
        self.routes = routes(self.api.clone());
    }

    /// Changes are written down from now on.
    pub fn audited(&mut self, audit: crate::audit::Audit) {
        self.api.audit = audit;
        self.routes = routes(self.api.clone());
    }

    /// As [`Server::ask`], by an ordinary user; `root` is an administrator.
    pub async fn ask_as(&self, user: &str, line: &str, body: &str) -> Answer {
        let (method, uri) = line.split_once(' ').unwrap();
        let request = HttpRequest::builder().method(method).uri(uri).header("host", "localhost").header("content-type", "application/json");
        let mut request = request.body(body.to_owned()).unwrap();
        request.extensions_mut().insert(peer(user));
        self.send(request).await
    }

    /// From now on these rules hold.
    pub fn set_identity(&mut self, identity: super::Identity) {
        self.api.identity = Arc::new(identity);
        self.routes = routes(self.api.clone());
    }

    /// `line` is a method and a path; a body that is given is sent as JSON.
    pub async fn ask(&self, line: &str, body: &str) -> Answer {
        self.ask_with(line, &[("host", "localhost:8080"), ("content-type", "application/json")], body).await
    }

    pub async fn ask_with(&self, line: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let (method, uri) = line.split_once(' ').unwrap();
        let mut request = HttpRequest::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request.body(body.to_owned()).unwrap()).await
    }

    /// The body of an answer that goes on for long, piece by piece.
    pub async fn open(&self, who: &Who, line: &str) -> BoxStream<'static, Result<bytes::Bytes, warp::Error>> {
        let (method, uri) = line.split_once(' ').unwrap();
        let request = HttpRequest::builder().method(method).uri(uri).header("host", "localhost").header("accept", "text/event-stream");
        let mut request = request.body(String::new()).unwrap();
        request.extensions_mut().insert(peer_of(who.clone()));
        let service = TowerToHyperService::new(warp::service(self.routes.clone()));
        let response = hyper::service::Service::call(&service, request).await.unwrap();
        assert_eq!(response.status(), 200, "{line}");
        let body = Box::pin(response.into_body());
        stream::unfold(body, |mut body| async {
            let frame = std::future::poll_fn(|context| body.as_mut().poll_frame(context)).await?;
            Some((frame.map(|frame| frame.into_data().unwrap_or_default()), body))
        })
        .boxed()
    }

    /// Whatever comes back is held against the description of the API.
    pub async fn send(&self, request: HttpRequest<String>) -> Answer {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let service = TowerToHyperService::new(warp::service(self.routes.clone()));
        let response = hyper::service::Service::call(&service, request).await.unwrap();
        let (head, body) = response.into_parts();
        let answer = Answer { status: head.status, headers: head.headers, body: collect(body).await };
        describe::check::answered(&method, &path, answer.status, &answer.headers, &answer.body);
        answer
    }
}

/// A client of the routes that is independent of its [`Server`].
pub struct Service(BoxedFilter<(super::Response,)>);

impl Service {
    pub fn of(api: Api) -> Self {
        Self(routes(api))
    }

    pub async fn ask(&self, line: &str) -> Answer {
        let (method, uri) = line.split_once(' ').unwrap();
        let request = HttpRequest::builder().method(method).uri(uri).header("host", "localhost").body(String::new()).unwrap();
        let service = TowerToHyperService::new(warp::service(self.0.clone()));
        let response = hyper::service::Service::call(&service, request).await.unwrap();
        let (head, body) = response.into_parts();
        Answer { status: head.status, headers: head.headers, body: collect(body).await }
    }
}

impl Server {
    /// Wires a node.
    pub fn set_nodes(&mut self, nodes: Arc<dyn NodeAccess>) {
        self.api.nodes = Some(nodes);
        self.routes = routes(self.api.clone());
    }

    /// Wires the platform's registry.
    pub fn set_images(&mut self, images: Arc<Platform>) {
        self.api.images = Some(images);
        self.routes = routes(self.api.clone());
    }

    pub fn service(&self) -> Service {
        Service(self.routes.clone())
    }
}

async fn collect(body: impl hyper::body::Body<Data = bytes::Bytes, Error = warp::Error>) -> String {
    let mut body = std::pin::pin!(body);
    let mut bytes = Vec::new();
    while let Some(frame) = std::future::poll_fn(|context| body.as_mut().poll_frame(context)).await {
        bytes.extend_from_slice(&frame.unwrap().into_data().unwrap_or_default());
    }
    String::from_utf8(bytes).unwrap()
}

/// A response.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    pub fn message(&self) -> String {
        self.json()["message"].as_str().unwrap_or_default().to_owned()
    }

    /// Status, the headers that depend on the request, and the body, for snapshots.
    pub fn show(&self) -> String {
        let mut text = format!("{}\n", self.status);
        for name in ["allow", "content-type", "location", "marathon-deployment-id", "retry-after", "www-authenticate"] {
            if let Some(value) = self.headers.get(name) {
                text += &format!("{name}: {}\n", value.to_str().unwrap());
            }
        }
        let body = serde_json::from_str::<Value>(&self.body);
        text + "\n" + &body.map_or_else(|_| self.body.clone(), |body| serde_json::to_string_pretty(&body).unwrap())
    }
}

struct Driver {
    handle: Handle,
    world: World,
    requests: Arc<Mutex<Vec<Request>>>,
    revision: u64,
}

impl Driver {
    async fn run(mut self, mut submissions: Inbox<Submission>) {
        loop {
            let Some(submission) = submissions.take() else {
                submissions.wait(1).await;
                continue;
            };
            self.requests.lock().unwrap().push((*submission.request).clone());
            let outcome = self.carry_out(*submission.request, &submission.origin);
            self.revision += 1;
            let posted = Event {
                timestamp: at(self.revision as i64),
                app: None,
                audience: Audience::Administrators,
                fact: Fact::ApiPost {
                    client_ip: submission.origin.client_ip,
                    uri: submission.origin.uri,
                    definition: Arc::new(app("/posted").0),
                    created: false,
                },
            };
            let published = Published { revision: self.revision, events: vec![Arc::new(posted)], changed: vec![RecordKey::Meta] };
            self.handle.publish(self.world.view.clone(), published);
            // The client may be gone.
            _ = submission.reply.send(outcome);
        }
    }

    /// By the core itself, from the records of the world.
    fn carry_out_for_real(&mut self, request: Request, origin: &Origin) -> Result<Reply, RequestError> {
        let tables = &self.world.view.tables;
        let mut records: Vec<Record> = Vec::new();
        records.extend(tables.apps.values().cloned().map(Record::App));
        records.extend(tables.definitions.values().cloned().map(Record::Definition));
        records.extend(tables.archive.values().cloned().map(Record::Archived));
        records.extend(tables.instances.values().cloned().map(Record::Instance));
        records.extend(tables.deployments.values().cloned().map(Record::Deployment));
        records.extend(tables.groups.values().cloned().map(Record::Group));
        records.extend(tables.root_versions.values().cloned().map(Record::RootVersion));
        records.extend(tables.users.values().cloned().map(Record::User));
        let mut state = State::recover(Settings::default(), records, Instant(0), Timestamp(0));
        let mut bits = self.revision;
        let mut random = || {
            bits += 1;
            bits
        };
        let mut ctx = Ctx { now: Instant(0), wall: at(200 + self.revision as i64), random: &mut random };
        let frame = step(&mut state, Input::Api(1, origin.clone(), Box::new(request)), &mut ctx);
        frame.changes.iter().for_each(|change| self.world.view.tables.apply(change));
        frame.replies.into_iter().next().unwrap().1
    }

    fn carry_out(&mut self, request: Request, origin: &Origin) -> Result<Reply, RequestError> {
        match request {
            Request::CreateApp { input, .. } => {
                let id = PathId::resolve(input.id().unwrap(), &PathId::root()).unwrap();
                if self.world.view.tables.apps.contains_key(&id) {
                    return Err(RequestError::AppExists(id));
                }
                self.create(&id);
                Ok(self.deployed(vec![id]))
            }
            Request::UpdateApps { updates, create, force, .. } => {
                let missing: Vec<_> = updates.iter().map(|(id, _)| id).filter(|id| self.exists(id).is_err()).cloned().collect();
                if let Some(id) = missing.first().filter(|_| !create) {
                    return Err(RequestError::NoApp(id.clone()));
                }
                for (id, _) in &updates {
                    self.unlocked(id, force)?;
                }
                missing.iter().for_each(|id| self.create(id));
                Ok(self.deployed(missing))
            }
            Request::DeleteApp { app, force } => {
                self.exists(&app)?;
                self.unlocked(&app, force)?;
                self.world.view.tables.apply(&Change::Delete(RecordKey::App(app)));
                Ok(self.deployed(Vec::new()))
            }
            Request::RestartApp { app, force } => {
                self.exists(&app)?;
                self.unlocked(&app, force)?;
                Ok(self.deployed(Vec::new()))
            }
            Request::KillTasks { selection: KillSelector::Instances { .. }, .. } => self.carry_out_for_real(request, origin),
            Request::KillTasks { selection, scale, .. } => {
                let killed = self.select(selection)?;
                Ok(if scale { self.deployed(Vec::new()) } else { Reply::Killed(killed) })
            }
            // What a request means for a tree of groups, or for a pod, only the core knows.
            Request::CreatePod { .. }
            | Request::UpdatePod { .. }
            | Request::DeletePod { .. }
            | Request::UpdateGroup { .. }
            | Request::EnforceRole { .. }
            | Request::DeleteGroup { .. } => self.carry_out_for_real(request, origin),
            Request::CancelDeployment { id, force } => {
                let found = self.world.view.tables.deployments.contains_key(&id);
                let done = || if force { Reply::Done } else { self.deployed(Vec::new()) };
                if found { Ok(done()) } else { Err(RequestError::NoDeployment(id)) }
            }
            Request::ResetDelay { app } => self.world.view.queue.remove(&app).map(|_| Reply::Done).ok_or(RequestError::NotQueued(app)),
            Request::ReleasePort { port } => {
                let claim = self.world.view.tables.ports.get(&port).cloned().ok_or(RequestError::NoPort(port))?;
                match self.exists(&claim.app) {
                    Ok(()) => Err(RequestError::Conflict(format!("Port {port} is used by app '{}'.", claim.app))),
                    Err(_) => Ok(Reply::Done),
                }
            }
            Request::HandOver { .. } => Ok(Reply::Done),
            Request::ReleaseBrick { brick, .. } | Request::FenceBrick { brick, .. } => {
                let found = self.world.view.tables.bricks.contains_key(&brick);
                if found { Ok(Reply::Done) } else { Err(RequestError::NoBrick(brick)) }
            }
            Request::PutUser { .. } => Ok(Reply::Done),
            Request::RemoveUser { name } => {
                let found = self.world.view.tables.users.contains_key(&name);
                if found { Ok(Reply::Done) } else { Err(RequestError::NoUser(name)) }
            }
        }
    }

    fn exists(&self, app: &PathId) -> Result<(), RequestError> {
        let found = self.world.view.tables.apps.contains_key(app);
        if found { Ok(()) } else { Err(RequestError::NoApp(app.clone())) }
    }

    fn unlocked(&self, app: &PathId, force: bool) -> Result<(), RequestError> {
        let deployments = self.world.view.tables.deployments.values();
        let locks: Vec<_> = deployments.filter(|d| d.affected_apps().any(|id| id == app)).map(|d| d.id.clone()).collect();
        if force || locks.is_empty() { Ok(()) } else { Err(RequestError::Locked(locks)) }
    }

    fn create(&mut self, id: &PathId) {
        self.world.app(app(id.as_str()).version(at(100)));
    }

    fn deployed(&self, created: Vec<PathId>) -> Reply {
        Reply::Deployment { id: DeploymentId::new("97c136bf-5a28-4821-9d94-480d9fbb01c8"), version: at(100), created }
    }

    fn select(&self, selection: KillSelector) -> Result<Vec<Instance>, RequestError> {
        let tables = &self.world.view.tables;
        let live = |app: &PathId| tables.instances_of(app).filter(|instance| instance.condition.is_live()).map(|i| (**i).clone());
        match selection {
            KillSelector::App { app, host } => {
                self.exists(&app)?;
                let on = |instance: &Instance| instance.placement.as_ref().is_some_and(|at| host.as_ref().is_none_or(|h| **h == *at.host));
                Ok(live(&app).filter(on).collect())
            }
            KillSelector::Task { app, task } => {
                self.exists(&app)?;
                let found: Vec<_> = live(&app).filter(|instance| instance.task().to_string() == task).collect();
                if found.is_empty() { Err(RequestError::NoTask(task)) } else { Ok(found) }
            }
            KillSelector::Instances { pod, .. } => Err(RequestError::NoPod(pod)),
            KillSelector::Tasks(tasks) => {
                Ok(tasks.iter().filter_map(|task| tables.instances.get(&task.instance)).map(|instance| (**instance).clone()).collect())
            }
        }
    }
}
