//! A cluster of one node that does at once whatever it is told. What the command of an app, or of a pod's container, says decides what becomes of
//! its tasks:
//!
//! | it begins with | then its tasks |
//! | --- | --- |
//! | `fail` | run, and fail |
//! | `finish` | run, and end well |
//! | `stage` | are taken, and never run |
//! | `sick` | run, and fail every check from the start |
//! | `unready` | run, and are not ready |
//! | anything else | run, and pass every check |
//!
//! What a case tells it meanwhile: [`Order`].

use std::collections::BTreeMap;

use tokio::sync::mpsc;
use uuid::Uuid;
use xtao::model::{
    cluster::{BrickReport, ClusterCall, ClusterEvent, Launch, Offer, Reason, TaskState, TaskStatus},
    health::{Check, CheckKind, CheckReport, CheckResult, Finding, HealthCheck, Outcome, ReadinessAnswer},
    id::{AgentId, OfferId, TaskId},
    resources::{PortRange, Resources, Scalar},
    time::Timestamp,
};

/// Where the node is, and what it tells.
#[derive(Clone, Debug, Default)]
pub struct Domain {
    /// The master's, too.
    pub region: Option<String>,
    pub zone: Option<String>,
    /// That a task is being ended.
    pub task_killing: bool,
}

/// What is to become of all tasks of an app.
#[derive(Debug)]
pub struct Order {
    /// `ready`: so says the readiness check. `well`, `sick`: so says every health check, once. `fail`: they do.
    pub word: String,
    pub app: String,
}

/// Runs until the driver has gone.
pub async fn run(
    domain: Domain,
    mut calls: mpsc::Receiver<ClusterCall>,
    mut orders: mpsc::Receiver<Order>,
    events: mpsc::Sender<ClusterEvent>,
) {
    let mut cluster = Cluster { domain, events, offers: 0, tasks: BTreeMap::new() };
    let region = cluster.domain.region.clone();
    cluster.tell(ClusterEvent::Connected { framework_id: "framework".into(), master: "node1:5050".into(), region }).await;
    cluster.offer().await;
    loop {
        tokio::select! {
            call = calls.recv() => match call {
                Some(call) => cluster.take(call).await,
                None => return,
            },
            Some(order) = orders.recv() => cluster.obey(&order).await,
        }
    }
}

struct Cluster {
    domain: Domain,
    events: mpsc::Sender<ClusterEvent>,
    offers: u32,
    /// Those that have not ended.
    tasks: BTreeMap<String, Launch>,
}

impl Cluster {
    async fn tell(&self, event: ClusterEvent) {
        // Nobody listens any more: the case is over.
        _ = self.events.send(event).await;
    }

    async fn offer(&mut self) {
        self.offers += 1;
        let resources = Resources {
            cpus: Scalar::whole(1000),
            mem: Scalar::whole(1_000_000),
            disk: Scalar::whole(1_000_000),
            gpus: 0,
            ports: vec![PortRange::new(31_000, 32_000)],
        };
        let offer = Offer {
            id: OfferId::new(format!("offer-{}", self.offers)),
            agent: agent(),
            host: "node1".into(),
            addresses: vec!["192.0.2.1".parse().unwrap()],
            resources,
            reserved: Vec::new(),
            attributes: Vec::new(),
            region: self.domain.region.clone(),
            zone: self.domain.zone.clone(),
        };
        self.tell(ClusterEvent::Offers(vec![offer])).await;
    }

    async fn take(&mut self, call: ClusterCall) {
        match call {
            ClusterCall::Accept { launches, .. } => {
                for launch in &launches {
                    self.launch(launch).await;
                }
                // When all containers of a pod run: before, nobody listens to what a check says.
                for launch in &launches {
                    self.go_on(launch).await;
                }
                self.offer().await;
            }
            ClusterCall::Revive => self.offer().await,
            ClusterCall::Kill { task, .. } => {
                let known = self.tasks.remove(&task.to_string());
                if self.domain.task_killing {
                    self.status(&task, TaskState::Killing, "").await;
                }
                // One that hangs on to its life shows what is between.
                if !known.is_some_and(|launch| command(&launch).starts_with("deaf")) {
                    self.status(&task, TaskState::Killed, "killed").await;
                }
            }
            ClusterCall::ReleaseBrick { brick, epoch, agent, .. } => {
                self.tell(ClusterEvent::Brick(BrickReport::Released { brick, epoch, agent })).await;
            }
            ClusterCall::DestroyBrick { brick, epoch, .. } => self.tell(ClusterEvent::Brick(BrickReport::Destroyed { brick, epoch })).await,
            _ => {}
        }
    }

    async fn launch(&mut self, launch: &Launch) {
        self.tasks.insert(launch.task.to_string(), launch.clone());
        let state = if command(launch).starts_with("stage") { TaskState::Staging } else { TaskState::Running };
        self.status(&launch.task, state, "").await;
    }

    async fn go_on(&mut self, launch: &Launch) {
        let (task, cmd) = (&launch.task, command(launch));
        if cmd.starts_with("stage") || !self.tasks.contains_key(&task.to_string()) {
            return;
        }
        self.check(launch, !cmd.starts_with("sick")).await;
        for (word, state, message) in [("fail", TaskState::Failed, "exit status 1"), ("finish", TaskState::Finished, "")] {
            if cmd.starts_with(word) {
                self.tasks.remove(&task.to_string());
                self.status(task, state, message).await;
            }
        }
    }

    /// As if the checks had been run: once when all is well, and often enough to be killed when not. Whether it is ready is told before: of that
    /// there are no events, and so who has heard of the health knows of that, too.
    async fn check(&self, launch: &Launch, well: bool) {
        self.readiness(launch, well && !command(launch).starts_with("unready")).await;
        // First, so that it is known when a deployment that waits for health is over.
        if let Some((place, check)) = generic_check(launch) {
            self.found(launch, Finding::Check { place, result: Some(result(check, well)) }).await;
        }
        for (check, of) in checks(launch) {
            let times = if well { 1 } else { of.max_consecutive_failures + 1 };
            for _ in 0..times {
                self.health(launch, check, well).await;
            }
        }
    }

    async fn health(&self, launch: &Launch, check: usize, well: bool) {
        let outcome = if well { Outcome::Passed } else { Outcome::Failed("connection refused".into()) };
        self.found(launch, Finding::Health { check, outcome }).await;
    }

    async fn readiness(&self, launch: &Launch, ready: bool) {
        if launch.app.readiness_checks.is_empty() {
            return;
        }
        let (status, body) = if ready { (200, "ready") } else { (503, "starting") };
        let answer = ReadinessAnswer { ready, status, content_type: "text/plain".into(), body: body.into() };
        self.found(launch, Finding::Readiness(answer)).await;
    }

    async fn found(&self, launch: &Launch, finding: Finding) {
        self.tell(ClusterEvent::Checked(vec![CheckReport { task: launch.task.clone(), at: now(), finding }])).await;
    }

    async fn obey(&mut self, order: &Order) {
        let of_app: Vec<Launch> = self.tasks.values().filter(|launch| launch.app.id.as_str() == order.app).cloned().collect();
        assert!(!of_app.is_empty(), "{order:?}: there are no tasks");
        for launch in of_app {
            match order.word.as_str() {
                "ready" => self.readiness(&launch, true).await,
                "well" | "sick" => {
                    for (check, _) in checks(&launch) {
                        self.health(&launch, check, order.word == "well").await;
                    }
                }
                "fail" => {
                    self.tasks.remove(&launch.task.to_string());
                    self.status(&launch.task, TaskState::Failed, "exit status 1").await;
                }
                other => panic!("a node knows no {other}"),
            }
        }
    }

    async fn status(&self, task: &TaskId, state: TaskState, message: &str) {
        self.tell(ClusterEvent::Status(TaskStatus {
            task: task.clone(),
            agent: Some(agent()),
            state,
            reason: Reason::Other,
            message: message.into(),
            timestamp: now(),
            uuid: Some(Uuid::new_v4()),
            healthy: None,
            addresses: vec!["192.0.2.7".parse().unwrap()],
        }))
        .await;
    }
}

fn command(launch: &Launch) -> &str {
    launch.app.cmd.as_deref().unwrap_or_default()
}

/// The health checks of a task, with their places in the whole definition.
fn checks(launch: &Launch) -> Vec<(usize, &HealthCheck)> {
    let Some(pod) = &launch.pod else { return launch.app.health_checks.iter().enumerate().collect() };
    let definition = pod.app.pod.as_ref().unwrap();
    let place = definition.place(launch.task.container.as_deref().unwrap()).unwrap();
    definition.check_of(place).map(|at| (at, &pod.app.health_checks[at])).into_iter().collect()
}

/// The generic check of a task, with its place.
fn generic_check(launch: &Launch) -> Option<(usize, &Check)> {
    let Some(pod) = &launch.pod else { return Some((0, launch.app.check.as_ref()?)) };
    let place = pod.app.pod.as_ref()?.place(launch.task.container.as_deref()?)?;
    Some((place, pod.app.generic_check(place)?))
}

fn result(check: &Check, well: bool) -> CheckResult {
    match &check.kind {
        CheckKind::Http { .. } => CheckResult::Http(if well { 200 } else { 500 }),
        CheckKind::Tcp { .. } => CheckResult::Tcp(well),
        CheckKind::Exec { .. } => CheckResult::Exec(i32::from(!well)),
    }
}

fn agent() -> AgentId {
    "agent-S0".parse().unwrap()
}

fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Timestamp(since.as_millis() as i64)
}
