//! A cluster of one node that does at once whatever it is told. What the command of an app, or of a pod's container, says decides what becomes of
//! its tasks:
//!
//! | it begins with | then its tasks |
//! | --- | --- |
//! | `fail` | run, and fail |
//! | `finish` | run, and end well |
//! | `stage` | are taken, and never run |
//! | `sick` | run, and fail every check from the start |
//! | anything else | run, and pass every check |

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

/// Runs until the driver has gone.
pub async fn run(mut calls: mpsc::Receiver<ClusterCall>, events: mpsc::Sender<ClusterEvent>) {
    let mut cluster = Cluster { events, offers: 0, tasks: BTreeMap::new() };
    cluster.tell(ClusterEvent::Connected { framework_id: "framework".into(), master: "node1:5050".into(), region: None }).await;
    cluster.offer().await;
    while let Some(call) = calls.recv().await {
        cluster.take(call).await;
    }
}

struct Cluster {
    events: mpsc::Sender<ClusterEvent>,
    offers: u32,
    /// Those that have not ended.
    tasks: BTreeMap<String, TaskId>,
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
            region: None,
            zone: None,
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
                self.tasks.remove(&task.to_string());
                self.status(&task, TaskState::Killed, "killed").await;
            }
            ClusterCall::ReleaseBrick { brick, epoch, agent, .. } => {
                self.tell(ClusterEvent::Brick(BrickReport::Released { brick, epoch, agent })).await;
            }
            ClusterCall::DestroyBrick { brick, epoch, .. } => self.tell(ClusterEvent::Brick(BrickReport::Destroyed { brick, epoch })).await,
            _ => {}
        }
    }

    async fn launch(&mut self, launch: &Launch) {
        self.tasks.insert(launch.task.to_string(), launch.task.clone());
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

    /// As if the checks had been run: once when all is well, and often enough to be killed when not.
    async fn check(&self, launch: &Launch, well: bool) {
        let at = now();
        // First, so that it is known when a deployment that waits for health is over.
        if let Some((place, check)) = generic_check(launch) {
            let finding = Finding::Check { place, result: Some(result(check, well)) };
            self.tell(ClusterEvent::Checked(vec![CheckReport { task: launch.task.clone(), at, finding }])).await;
        }
        let outcome = || if well { Outcome::Passed } else { Outcome::Failed("connection refused".into()) };
        for (check, of) in checks(launch) {
            let times = if well { 1 } else { of.max_consecutive_failures + 1 };
            for _ in 0..times {
                let finding = Finding::Health { check, outcome: outcome() };
                self.tell(ClusterEvent::Checked(vec![CheckReport { task: launch.task.clone(), at, finding }])).await;
            }
        }
        if !launch.app.readiness_checks.is_empty() {
            let answer = ReadinessAnswer { ready: well, status: 200, content_type: "text/plain".into(), body: "ready".into() };
            let report = CheckReport { task: launch.task.clone(), at, finding: Finding::Readiness(answer) };
            self.tell(ClusterEvent::Checked(vec![report])).await;
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
