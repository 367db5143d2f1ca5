//! The embedded engine: the Docker daemon of this machine, and processes without an image, behaving like one Mesos agent with its master.
//!
//! [`agent`] decides (pure), everything else is its hands: [`session`] watches Docker (list, then events; ping), [`launch`] and [`jobs`] change it.
//! Beside them, [`access`] reads tasks' output ([`output`]) and runs commands in them for the API; it shares nothing with the rest but Docker and the
//! sandboxes.
//!
//! Docker itself is the only record: containers carry labels with all that a restart needs, so the state is derived from a listing, after a restart of
//! ours as after one of Docker's. A listing is repeated every half minute, so that a lost event costs time and nothing else.
//!
//! | what | how |
//! | --- | --- |
//! | a task without an image | [`process`]: a supervisor and records of its own; listed beside the containers |
//! | Docker hangs or restarts | `Disconnected`, no verdict about any task; then a listing, what changed since, `Connected` |
//! | Docker is not there at all | after a while a session without it: processes run, launches of containers fail and say why |
//! | container names | derived from the task id: a repeated creation meets the first one |
//! | an ended container | stays until its terminal status is acknowledged |
//! | a call without an answer | its outcome is looked up before it is repeated |
//! | host volumes of ordinary users | [`idmap`]: their containers are the owner's account there, not root |
//! | secrets | [`secrets`]: read at a launch, given to the task, gone with it |
//! | registries of others | [`logins`]: what was fetched, or a `pullConfig` |
//! | networks of containers | [`networks`]: a check's socket is made there |
//! | ports of others | [`ports`]: looked at before an offer is made, and left out of it |

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::{
    sync::{Semaphore, mpsc, watch},
    task::{JoinHandle, JoinSet},
    time::MissedTickBehavior,
};
use uuid::Uuid;

use crate::{
    brick::Bricks,
    model::{
        agent::Attribute,
        cluster::{ClusterCall, ClusterEvent},
        host_volume::HostVolumeRule,
        id::{AgentId, ClusterId, TaskId},
        resources::{PortRange, Scalar},
        time::{Instant, Timestamp},
    },
    registry::platform::Platform,
};

pub mod access;
pub mod account;
pub mod agent;
pub mod cgroup;
mod console;
pub mod docker;
pub mod facts;
mod fetch;
mod holder;
mod idmap;
mod images;
mod jobs;
mod launch;
mod logins;
mod logs;
mod networks;
pub mod output;
mod parameters;
mod ports;
pub mod process;
mod resolved;
pub mod sandbox;
mod secrets;
mod session;
pub mod spec;
pub mod vetting;
pub mod volumes;

#[cfg(test)]
mod samples;

use agent::{Action, Agent, Ctx, Node, Report};
use jobs::Context;

/// Events that wait for the core. Beyond it, what is repeated anyway is left out: statuses, brick reports, answers to a reconciliation.
pub const MAX_OUTBOX: usize = 16_384;
/// Reports of jobs and of Docker that wait for the agent.
pub const MAX_REPORTS: usize = 1_024;
/// Calls and reports that are taken before offers are made.
const MAX_BATCH: usize = 256;
/// Looks, signals and removals at once.
const SMALL_JOBS: usize = 4;
/// How full the mounted bricks are is told this often.
const BRICK_USAGE_EVERY: Duration = Duration::from_secs(30);
/// Old sandboxes are looked for this often.
const COLLECT_EVERY: Duration = Duration::from_secs(3600);
/// At the end, containers that are being started get this long to be running, and followers of output to save what they have.
const FAREWELL: Duration = Duration::from_secs(5);

/// What the engine offers instead of what the machine has.
#[derive(Clone, Debug)]
pub struct ResourceSettings {
    /// CPUs; `None`: all.
    pub cpus: Option<Scalar>,
    /// MiB; `None`: all but what the system keeps.
    pub mem: Option<Scalar>,
    /// MiB; `None`: the file system of the work directory but what the system keeps.
    pub disk: Option<Scalar>,
    /// Whole ones; which there are is not found out by itself.
    pub gpus: u32,
    /// Ports to offer.
    pub ports: Vec<PortRange>,
}

impl Default for ResourceSettings {
    fn default() -> Self {
        Self { cpus: None, mem: None, disk: None, gpus: 0, ports: vec![facts::DEFAULT_PORTS] }
    }
}

/// How the engine is set up.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `unix:///var/run/docker.sock` or `tcp://host:port`.
    pub docker_host: String,
    /// The server's directory; sandboxes are `<work_dir>/sandboxes/<task>`.
    pub work_dir: PathBuf,
    /// Which installation this is; labels every container.
    pub cluster_id: ClusterId,
    /// Under which id this node is known; the same after a restart.
    pub agent_id: AgentId,
    /// The node's host name, for constraints and offers.
    pub hostname: String,
    /// The node's addresses, the preferred one first; ports are published on each of them and on no other.
    pub node_addresses: Vec<IpAddr>,
    /// What is offered.
    pub resources: ResourceSettings,
    /// For constraints.
    pub attributes: Vec<Attribute>,
    /// The region that this node is in.
    pub region: Option<String>,
    /// The zone that this node is in.
    pub zone: Option<String>,
    /// Host volumes: open with everything below.
    pub host_volume_allow: Vec<PathBuf>,
    /// Host volumes: closed with everything below.
    pub host_volume_deny: Vec<PathBuf>,
    /// Where the files with secrets are.
    pub secrets_dir: Option<PathBuf>,
    /// A task's stdout and stderr grow to this many bytes each before they are replaced; one old file each is kept.
    pub log_file_bytes: u64,
    /// The sandbox of an ended task is kept this long.
    pub sandbox_keep: Duration,
    /// Sandboxes of ended tasks that are kept at most.
    pub sandbox_max: usize,
    /// Containers that are created and started at once. More than 8 only add latency: the daemon is bound by the CPU.
    pub concurrency: usize,
    /// Between SIGTERM and SIGKILL when neither the app nor the call says: `docker stop`'s own 10 s. (Mesos: 3 s. A database wants more.)
    pub kill_grace: Duration,
    /// That a task is being ended is told, too: Marathon's feature `task_killing`.
    pub task_killing: bool,
    /// Processes and threads of one container.
    pub pids_limit: i64,
    /// CPUs are a hard limit too. Off as in Mesos: they are shares, and what others leave idle may be used.
    pub cpu_hard_limit: bool,
    /// Privileged containers and powerful `docker.parameters` are allowed: whoever may post an app then owns this machine.
    pub allow_privileged: bool,
    /// Containers are started also when Docker has a part with a known way out of them.
    pub allow_vulnerable_runtime: bool,
    /// The program that supervises tasks without an image, as `PROGRAM task-shim`: this one.
    pub shim: PathBuf,
    /// The platform's registry and what it knows of images' owners; `None`: images are Docker's business alone.
    pub platform: Option<Arc<Platform>>,
}

impl Settings {
    /// Settings with the defaults for everything that has one.
    pub fn new(
        docker_host: String,
        work_dir: PathBuf,
        cluster_id: ClusterId,
        agent_id: AgentId,
        hostname: String,
        node_addresses: Vec<IpAddr>,
    ) -> Self {
        Self {
            docker_host,
            work_dir,
            cluster_id,
            agent_id,
            hostname,
            node_addresses,
            resources: ResourceSettings::default(),
            attributes: Vec::new(),
            region: None,
            zone: None,
            host_volume_allow: Vec::new(),
            host_volume_deny: Vec::new(),
            secrets_dir: None,
            log_file_bytes: 10 << 20,
            sandbox_keep: Duration::from_secs(7 * 24 * 3600),
            sandbox_max: 1_000,
            concurrency: 8,
            kill_grace: Duration::from_secs(10),
            task_killing: false,
            pids_limit: 8_192,
            cpu_hard_limit: false,
            allow_privileged: false,
            allow_vulnerable_runtime: false,
            // Also when its file has been replaced by a newer one.
            shim: "/proc/self/exe".into(),
            platform: None,
        }
    }
}

/// Why the engine cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The settings make no sense, or the machine does not say what it has: a sentence that says what to do.
    #[error("{0}")]
    Settings(String),
    /// The directory of the sandboxes cannot be used.
    #[error("the directory {path} cannot be used")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// Runs the engine until `shutdown` turns true (or the core is gone). Tasks keep running then; the next run adopts them.
///
/// It never waits for room in `events` while `calls` come in. A daemon that is not there is waited for.
///
/// # Errors
/// Only at the beginning; see [`EngineError`].
pub async fn run(
    settings: Settings,
    bricks: Arc<Bricks>,
    calls: mpsc::Receiver<ClusterCall>,
    events: mpsc::Sender<ClusterEvent>,
    shutdown: watch::Receiver<bool>,
) -> Result<(), EngineError> {
    let (client, docker) = watch::channel(None);
    let (reports, incoming) = mpsc::channel(MAX_REPORTS);
    let node = prepare(&settings)?;
    let groups = groups();
    let context = Arc::new(Context {
        images: images::Images::default(),
        bricks,
        docker,
        launches: Semaphore::new(settings.concurrency.max(1)),
        launching: watch::Sender::new(0),
        small: Semaphore::new(SMALL_JOBS),
        reports,
        rule: host_volume_rule(&settings),
        groups,
        refusal: std::sync::Mutex::default(),
        docker_root: OnceLock::new(),
        settings,
    });
    let (stop, stopped) = watch::channel(false);
    let mut engine = Engine {
        agent: Agent::new(node),
        outbox: VecDeque::new(),
        jobs: JoinSet::new(),
        launches: HashMap::new(),
        followers: HashMap::new(),
        stopped,
        began: tokio::time::Instant::now(),
        context: context.clone(),
    };
    engine.jobs.spawn(session::run(context, client));
    engine.serve(calls, incoming, events, shutdown).await;
    _ = stop.send(true);
    engine.farewell().await;
    Ok(())
}

/// What the administrator's lists say; our directory and Docker's socket are closed whatever they say. What is closed is closed also where it really is:
/// a volume is compared with the rule when its links have been followed.
fn host_volume_rule(settings: &Settings) -> HostVolumeRule {
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let closed = |path: &Path| {
        let real = std::fs::canonicalize(path).ok().filter(|real| real != path);
        std::iter::once(text(path)).chain(real.map(|real| text(&real))).collect::<Vec<_>>()
    };
    let socket = settings.docker_host.strip_prefix("unix://").map(Path::new);
    let own = [Some(settings.work_dir.as_path()), socket, settings.secrets_dir.as_deref()].into_iter().flatten();
    HostVolumeRule {
        allow: settings.host_volume_allow.iter().map(|path| text(path)).collect(),
        deny: settings.host_volume_deny.iter().flat_map(|path| closed(path)).collect(),
        own: own.flat_map(closed).collect(),
    }
}

fn prepare(settings: &Settings) -> Result<Node, EngineError> {
    if settings.node_addresses.iter().all(IpAddr::is_unspecified) {
        return Err(EngineError::Settings("the engine needs an address of this node to publish ports on: give --node_address".to_owned()));
    }
    let may_have_containers = may_have_containers(&settings.work_dir);
    // Sandboxes are to be passed through, not looked into: each says itself who may go in.
    for (path, mode) in [(sandbox::root(&settings.work_dir), 0o711), (process::record::root(&settings.work_dir), 0o700)] {
        let permissions = std::os::unix::fs::PermissionsExt::from_mode(mode);
        let made = std::fs::create_dir_all(&path).and_then(|()| std::fs::set_permissions(&path, permissions));
        made.map_err(|source| EngineError::Directory { path, source })?;
    }
    if let Err(error) = idmap::tidy(&settings.work_dir) {
        tracing::warn!(%error, "Mounts of host volumes that an earlier run has left could not be removed.");
    }
    fetch::warn_unless_confined();
    let total = facts::resources(&settings.resources, &settings.work_dir).map_err(EngineError::Settings)?;
    let cgroup = cgroup::Cgroups::detect("/sys/fs/cgroup").version();
    tracing::info!(cpus = %total.cpus, mem = %total.mem, disk = %total.disk, ports = ?total.ports, %cgroup, "This node offers its resources.");
    Ok(Node {
        id: settings.agent_id.clone(),
        host: settings.hostname.as_str().into(),
        addresses: settings.node_addresses.clone(),
        total,
        attributes: settings.attributes.clone(),
        region: settings.region.clone(),
        zone: settings.zone.clone(),
        framework_id: settings.cluster_id.to_string(),
        master: format!("docker@{}", settings.hostname),
        kill_grace_ms: u64::try_from(settings.kill_grace.as_millis()).unwrap_or(u64::MAX),
        task_killing: settings.task_killing,
        may_have_containers,
    })
}

/// Where the control groups of processes are, when they can be made.
fn groups() -> Result<PathBuf, String> {
    let root = PathBuf::from("/sys/fs/cgroup");
    let checked = process::limits::check(&root).map(|()| root);
    if let Err(reason) = &checked {
        tracing::warn!(%reason, "Tasks without an image run WITHOUT LIMITS of processor and memory on this node: no control groups can be made.");
    }
    checked
}

/// In the work directory: Docker was used here.
const DOCKER_USED: &str = "docker-used";

fn note_docker(work_dir: &std::path::Path) -> std::io::Result<()> {
    let path = work_dir.join(DOCKER_USED);
    if path.exists() { Ok(()) } else { std::fs::write(path, "containers of this server may be in Docker\n") }
}

/// True when Docker was used here. Servers before this was noted left nothing but sandboxes.
fn may_have_containers(work_dir: &std::path::Path) -> bool {
    let has_sandboxes = || std::fs::read_dir(sandbox::root(work_dir)).is_ok_and(|mut entries| entries.next().is_some());
    work_dir.join(DOCKER_USED).exists() || !process::record::root(work_dir).exists() && has_sandboxes()
}

struct Engine {
    agent: Agent,
    outbox: VecDeque<ClusterEvent>,
    jobs: JoinSet<()>,
    /// How to give up the launches that are under way.
    launches: HashMap<TaskId, watch::Sender<bool>>,
    followers: HashMap<TaskId, JoinHandle<()>>,
    stopped: watch::Receiver<bool>,
    began: tokio::time::Instant,
    context: Arc<Context>,
}

impl Engine {
    async fn serve(
        &mut self,
        mut calls: mpsc::Receiver<ClusterCall>,
        mut reports: mpsc::Receiver<Report>,
        events: mpsc::Sender<ClusterEvent>,
        mut shutdown: watch::Receiver<bool>,
    ) {
        let mut usage = tokio::time::interval(BRICK_USAGE_EVERY);
        let mut collect = tokio::time::interval(COLLECT_EVERY);
        usage.set_missed_tick_behavior(MissedTickBehavior::Delay);
        collect.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !*shutdown.borrow() {
            let deadline = self.agent.next_deadline().map(|at| self.began + Duration::from_millis(at.0));
            tokio::select! {
                changed = shutdown.changed() => if changed.is_err() { break },
                call = calls.recv() => match call {
                    Some(call) => self.call(call),
                    None => break,
                },
                Some(report) = reports.recv() => self.report(report),
                room = events.reserve(), if !self.outbox.is_empty() => match room {
                    Ok(room) => if let Some(event) = self.outbox.pop_front() { room.send(event) },
                    Err(_) => break,
                },
                () = sleep_until(deadline) => {}
                _ = usage.tick() => self.spawn(jobs::brick_usage(self.context.clone())),
                _ = collect.tick() => self.collect_sandboxes(),
                Some(_) = self.jobs.join_next(), if !self.jobs.is_empty() => {}
            }
            self.drain(&mut calls, &mut reports, &events);
        }
    }

    /// Takes what else is there without waiting, then does what is due and makes offers once for all of it.
    fn drain(
        &mut self,
        calls: &mut mpsc::Receiver<ClusterCall>,
        reports: &mut mpsc::Receiver<Report>,
        events: &mpsc::Sender<ClusterEvent>,
    ) {
        for _ in 0..MAX_BATCH {
            match (calls.try_recv(), reports.try_recv()) {
                (Err(_), Err(_)) => break,
                (call, report) => {
                    call.into_iter().for_each(|call| self.call(call));
                    report.into_iter().for_each(|report| self.report(report));
                }
            }
        }
        let due = self.step(|agent, ctx| agent.advance(ctx));
        self.perform(due);
        let offers = self.step(|agent, ctx| agent.offer(ctx));
        self.perform(offers);
        while let Some(event) = self.outbox.pop_front() {
            match events.try_send(event) {
                Ok(()) => {}
                Err(mpsc::error::TrySendError::Full(event) | mpsc::error::TrySendError::Closed(event)) => {
                    self.outbox.push_front(event);
                    break;
                }
            }
        }
    }

    fn call(&mut self, call: ClusterCall) {
        let actions = self.step(|agent, ctx| agent.call(call, ctx));
        self.perform(actions);
    }

    fn report(&mut self, report: Report) {
        if let Report::Started { task, .. } | Report::Refused { task, .. } | Report::Cancelled { task } = &report {
            self.launches.remove(task);
        }
        let actions = self.step(|agent, ctx| agent.report(report, ctx));
        self.perform(actions);
    }

    fn step(&mut self, step: impl FnOnce(&mut Agent, &mut Ctx) -> Vec<Action>) -> Vec<Action> {
        let now = Instant(u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX));
        step(&mut self.agent, &mut Ctx { now, wall: wall_clock(), uuid: &mut Uuid::new_v4 })
    }

    fn perform(&mut self, actions: Vec<Action>) {
        for action in actions {
            let context = self.context.clone();
            match action {
                Action::Tell(event) => self.tell(event),
                Action::Launch(launch) => {
                    let (cancel, cancelled) = watch::channel(false);
                    self.launches.insert(launch.task.clone(), cancel);
                    self.spawn(launch::run(context, launch, cancelled));
                }
                Action::Cancel(task) => {
                    if let Some(cancel) = self.launches.get(&task) {
                        cancel.send_replace(true);
                    }
                }
                Action::Signal(task, signal) if self.is_process(&task) => self.spawn(process::signal(context, task, signal)),
                Action::Signal(task, signal) => self.spawn(jobs::signal(context, task, signal)),
                Action::Inspect(task) if self.is_process(&task) => self.spawn(process::inspect(context, task)),
                Action::Inspect(task) => self.spawn(jobs::inspect(context, task)),
                Action::Remove { task, .. } if self.is_process(&task) => self.spawn(process::remove(context, task)),
                Action::Remove { task, at_leisure } => {
                    let follower = self.followers.remove(&task);
                    self.spawn(jobs::remove(context, task, follower, at_leisure));
                }
                Action::Follow(task) if self.is_process(&task) => self.watch(task),
                Action::Follow(task) => self.follow(task),
                Action::Release { brick, epoch, tasks } => self.spawn(jobs::release(context, brick, epoch, tasks)),
                Action::Destroy { brick, epoch, pool } => self.spawn(jobs::destroy(context, brick, epoch, pool)),
                Action::LookAtPorts => self.spawn(jobs::look_at_ports(context)),
            }
        }
    }

    /// True when a task is run by ourselves. One that is not known any more has left records if it was.
    fn is_process(&self, task: &TaskId) -> bool {
        match self.agent.runner(task) {
            Some(runner) => runner == agent::Runner::Process,
            None => process::is_one(&self.context.settings.work_dir, task),
        }
    }

    fn watch(&mut self, task: TaskId) {
        if self.followers.get(&task).is_some_and(|follower| !follower.is_finished()) {
            return;
        }
        let watching = process::watch(self.context.clone(), task.clone(), self.stopped.clone());
        self.followers.retain(|_, follower| !follower.is_finished());
        self.followers.insert(task, tokio::spawn(watching));
    }

    fn tell(&mut self, event: ClusterEvent) {
        let repeated = matches!(event, ClusterEvent::Status(_) | ClusterEvent::Brick(_));
        if repeated && self.outbox.len() >= MAX_OUTBOX {
            tracing::warn!("The core is too slow to take events; some are left out and repeated later.");
            return;
        }
        self.outbox.push_back(event);
    }

    fn spawn(&mut self, job: impl Future<Output = ()> + Send + 'static) {
        self.jobs.spawn(job);
    }

    fn follow(&mut self, task: TaskId) {
        if self.followers.get(&task).is_some_and(|follower| !follower.is_finished()) {
            return;
        }
        let follower = logs::Follower {
            task: task.clone(),
            work_dir: self.context.settings.work_dir.clone(),
            limit: self.context.settings.log_file_bytes,
            docker: self.context.docker.clone(),
            stop: self.stopped.clone(),
        };
        self.followers.retain(|_, follower| !follower.is_finished());
        self.followers.insert(task, tokio::spawn(follower.run()));
    }

    fn collect_sandboxes(&mut self) {
        // The volumes of a pod are in the sandbox of its holder.
        let in_use: std::collections::HashSet<String> =
            self.agent.tasks().flat_map(|task| [spec::file_name(task), spec::file_name(&crate::model::pod::holder(task))]).collect();
        let settings = &self.context.settings;
        let (work_dir, keep, max) = (settings.work_dir.clone(), settings.sandbox_keep, settings.sandbox_max);
        self.jobs.spawn_blocking(move || {
            secrets::collect(&work_dir, &in_use);
            match sandbox::collect(&work_dir, &in_use, keep, max) {
                Ok(0) => {}
                Ok(count) => tracing::info!(count, "Old sandboxes were removed."),
                Err(error) => tracing::warn!(%error, "Old sandboxes could not be looked for."),
            }
        });
    }

    async fn farewell(mut self) {
        // A container that is created but not started would be removed by the next run.
        self.context.launches.close();
        let concurrency = self.context.settings.concurrency.max(1);
        let started = async { while self.context.launches.available_permits() < concurrency && self.jobs.join_next().await.is_some() {} };
        _ = tokio::time::timeout(FAREWELL, started).await;
        self.jobs.abort_all();
        let followers = futures_util::future::join_all(self.followers.drain().map(|(_, follower)| follower));
        _ = tokio::time::timeout(FAREWELL, followers).await;
    }
}

async fn sleep_until(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

fn wall_clock() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_closed_to_host_volumes_is_closed_where_its_links_lead_too() {
        let place = tempfile::tempdir().unwrap();
        let (real, link) = (place.path().join("real"), place.path().join("link"));
        for name in ["work", "secrets", "denied", "open"] {
            std::fs::create_dir_all(real.join(name)).unwrap();
        }
        std::fs::write(real.join("docker"), "").unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        let host = format!("unix://{}", link.join("docker").display());
        let mut settings = Settings::new(host, link.join("work"), ClusterId::new("c"), AgentId::new("a"), "node1".to_owned(), Vec::new());
        settings.secrets_dir = Some(link.join("secrets"));
        settings.host_volume_deny = vec![link.join("denied")];
        settings.host_volume_allow = vec![place.path().to_owned()];
        let rule = host_volume_rule(&settings);
        for closed in ["work", "work/sandboxes", "secrets/ann", "denied/x", "docker"] {
            for way in [&real, &link] {
                assert!(rule.check(&way.join(closed).to_string_lossy()).is_err(), "{closed} by {}", way.display());
            }
        }
        assert!(rule.check(&real.join("open").to_string_lossy()).is_ok());
        assert!(rule.check(&real.to_string_lossy()).is_err(), "it contains what is closed");
    }
}
