//! How fast the core is with nothing around it: an endless supply of offers and tasks that obey at once, but the real batch and the real store.
//!
//! Wall-clock time and the process' memory are read here: this measures, it decides nothing.

pub mod checks;

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::json;
use uuid::Uuid;

use super::rng::Rng;
use crate::{
    core::{Ctx, Frame, Input, Settings, State},
    model::{
        app::input::AppInput,
        cluster::{ClusterCall, ClusterEvent, Offer, Reason, TaskState, TaskStatus},
        id::{AgentId, IdError, OfferId, Owner, TaskId},
        request::{Origin, Request, Violation},
        resources::{PortRange, Resources, Scalar},
        time::{Instant as Moment, Timestamp},
    },
    runtime::batch,
    store::{Epoch, Store, StoreError, embedded::EmbeddedStore, identity::WorkDir},
};

/// Launches of one measured part.
const PART: usize = 1_000;

/// Statuses that arrive together.
const STATUSES_AT_ONCE: usize = batch::MAX_INPUTS;

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Nodes.
    pub agents: usize,
    /// Instances, spread evenly over the nodes.
    pub instances: usize,
    /// Apps that have them.
    pub apps: usize,
}

/// What was measured.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// From an offer to the durable launch, per [`PART`] launches.
    pub launch_parts: Vec<Duration>,
    /// Creating the apps, without instances.
    pub create: Duration,
    /// Every instance from launched to running.
    pub running: Duration,
    /// Growth of the resident memory from the apps alone to all of their instances running, bytes.
    pub memory: u64,
    /// Opening the store and reading it.
    pub load: Duration,
    /// Making the state from the records.
    pub recover: Duration,
    /// Instances that were running at the end, and again after the restart.
    pub instances: (usize, usize),
}

impl Report {
    /// Launches a second over all.
    pub fn launches_per_second(&self) -> f64 {
        (self.launch_parts.len() * PART) as f64 / self.launch_parts.iter().sum::<Duration>().as_secs_f64()
    }

    /// How much longer the last thousand took than the first: medians of the first and last tenth, so that one disk flush does not decide.
    pub fn last_to_first(&self) -> f64 {
        let tenth = self.launch_parts.len().div_ceil(10);
        median(&self.launch_parts[self.launch_parts.len() - tenth..]) / median(&self.launch_parts[..tenth])
    }
}

fn median(parts: &[Duration]) -> f64 {
    let mut sorted = parts.to_vec();
    sorted.sort();
    sorted.get(sorted.len() / 2).map_or(0.0, Duration::as_secs_f64)
}

/// Runs the measurement in `work_dir`, which must be new.
///
/// # Errors
/// The store fails.
pub async fn run(size: Size, work_dir: &Path) -> Result<Report, StoreError> {
    let mut report = Report::default();
    {
        let mut bench = Bench::open(work_dir, size).await?;
        bench.connect(size).await?;
        report.create = bench.create(size).await?;
        let before = resident_bytes();
        bench.scale(size).await?;
        let tasks = bench.launch(size, &mut report).await?;
        report.running = bench.bring_up(&tasks).await?;
        report.memory = resident_bytes().saturating_sub(before);
        report.instances.0 = running(&bench.state);
    }
    let began = Instant::now();
    let mut store = open(work_dir)?;
    store.elect().await?;
    let records = store.load().await?;
    report.load = began.elapsed();
    let began = Instant::now();
    let state = State::recover(Settings::default(), records, Moment(0), Timestamp(0));
    report.recover = began.elapsed();
    report.instances.1 = running(&state);
    Ok(report)
}

fn running(state: &State) -> usize {
    state.view().tables.tallies.values().map(|tally| tally.running() as usize).sum()
}

fn open(work_dir: &Path) -> Result<EmbeddedStore, StoreError> {
    EmbeddedStore::open(&WorkDir::open(work_dir, "docker")?)
}

struct Bench {
    state: State,
    store: EmbeddedStore,
    epoch: Epoch,
    began: Instant,
    rng: Rng,
}

impl Bench {
    async fn open(work_dir: &Path, size: Size) -> Result<Self, StoreError> {
        let mut store = open(work_dir)?;
        let epoch = store.elect().await?;
        let records = store.load().await?;
        // Every app has its deployment until its instances run.
        let settings = Settings { max_running_deployments: size.apps + 1, ..Settings::default() };
        let state = State::recover(settings, records, Moment(0), Timestamp(0));
        Ok(Self { state, store, epoch, began: Instant::now(), rng: Rng::new(1) })
    }

    /// One batch, as the driver does it: step, commit, publish.
    async fn turn(&mut self, inputs: Vec<Input>) -> Result<Frame, StoreError> {
        let now = Moment(self.began.elapsed().as_millis() as u64);
        let wall = Timestamp(1_704_067_200_000 + now.0 as i64);
        let rng = &mut self.rng;
        let mut random = || rng.bits();
        let mut frame = batch::run(&mut self.state, inputs, &mut Ctx { now, wall, random: &mut random });
        if !frame.changes.is_empty() {
            self.store.commit(self.epoch, std::mem::take(&mut frame.changes)).await?;
        }
        std::hint::black_box(self.state.view());
        Ok(frame)
    }

    /// The nodes are known, so that the first launches are measured like all others.
    async fn connect(&mut self, size: Size) -> Result<(), StoreError> {
        let connected = ClusterEvent::Connected { framework_id: "bench".into(), master: "bench".into(), region: None };
        self.turn(vec![Input::Cluster(connected)]).await?;
        let offers = (0..size.agents).map(|at| offer(at, "first", size)).collect();
        self.turn(vec![Input::Cluster(ClusterEvent::Offers(offers))]).await?;
        Ok(())
    }

    async fn create(&mut self, size: Size) -> Result<Duration, StoreError> {
        let began = Instant::now();
        let create = |app: usize| {
            let body = json!({"id": format!("/bench/app{app}"), "cmd": "sleep 1", "cpus": 0.01, "mem": 1, "instances": 0});
            Ok(Request::CreateApp { input: AppInput::read(&body)?.into(), force: false })
        };
        self.ask(size.apps, create).await?;
        Ok(began.elapsed())
    }

    /// The apps get their instances, which wait for offers.
    async fn scale(&mut self, size: Size) -> Result<(), StoreError> {
        let scale = |app: usize| {
            let id = format!("/bench/app{app}").parse().map_err(|error: IdError| vec![Violation::new("/id", error.to_string())])?;
            let input = AppInput::read(&json!({"instances": size.instances / size.apps}))?;
            Ok(Request::UpdateApps { updates: vec![(id, input)], partial: true, create: false, force: false })
        };
        self.ask(size.apps, scale).await
    }

    /// So many requests, as many in one batch as the driver takes.
    async fn ask(&mut self, count: usize, request: impl Fn(usize) -> Result<Request, Vec<Violation>>) -> Result<(), StoreError> {
        let origin = || Origin { user: Owner::default_owner(), admin: true, client_ip: "".into(), uri: "".into() };
        let numbers: Vec<usize> = (0..count).collect();
        for some in numbers.chunks(batch::MAX_INPUTS) {
            let request = |number: &usize| Ok(Input::Api(*number as u64, origin(), Box::new(request(*number)?)));
            let inputs = some
                .iter()
                .map(request)
                .collect::<Result<_, _>>()
                .map_err(|violations: Vec<Violation>| failed(&format!("{violations:?}")))?;
            let frame = self.turn(inputs).await?;
            if let Some(error) = frame.replies.into_iter().find_map(|(_, reply)| reply.err()) {
                return Err(failed(&error.to_string()));
            }
        }
        Ok(())
    }

    /// Offers node after node, a thousand launches at a time.
    async fn launch(&mut self, size: Size, report: &mut Report) -> Result<Vec<(TaskId, AgentId)>, StoreError> {
        let mut tasks = Vec::with_capacity(size.instances);
        let per_agent = size.instances.div_ceil(size.agents);
        let mut at = 0;
        let (mut launched, mut spent) = (0, Duration::ZERO);
        while tasks.len() < size.instances && at < size.agents {
            let agents = at..(at + (PART / per_agent.max(1)).max(1)).min(size.agents);
            at = agents.end;
            let offers = agents.map(|at| offer(at, "second", size)).collect();
            let began = Instant::now();
            let frame = self.turn(vec![Input::Cluster(ClusterEvent::Offers(offers))]).await?;
            spent += began.elapsed();
            for call in frame.calls {
                if let ClusterCall::Accept { launches, .. } = call {
                    launched += launches.len();
                    tasks.extend(launches.into_iter().map(|launch| (launch.task, launch.agent)));
                }
            }
            if launched >= PART {
                report.launch_parts.push(spent * PART as u32 / launched as u32);
                (launched, spent) = (0, Duration::ZERO);
            }
        }
        Ok(tasks)
    }

    /// Every task reports that it runs.
    async fn bring_up(&mut self, tasks: &[(TaskId, AgentId)]) -> Result<Duration, StoreError> {
        let began = Instant::now();
        for some in tasks.chunks(STATUSES_AT_ONCE) {
            let mut inputs = Vec::with_capacity(some.len());
            for (task, agent) in some {
                inputs.push(Input::Cluster(ClusterEvent::Status(TaskStatus {
                    task: task.clone(),
                    agent: Some(agent.clone()),
                    state: TaskState::Running,
                    reason: Reason::Other,
                    message: String::new(),
                    timestamp: Timestamp(1_704_067_200_000),
                    uuid: Some(Uuid::from_u64_pair(self.rng.bits(), self.rng.bits())),
                    healthy: None,
                    addresses: vec![[10, 0, 0, 1].into()],
                })));
            }
            self.turn(inputs).await?;
        }
        Ok(began.elapsed())
    }
}

fn offer(at: usize, round: &str, size: Size) -> Offer {
    let per_agent = size.instances.div_ceil(size.agents) as u64;
    Offer {
        id: OfferId::new(format!("{round}-{at}")),
        agent: AgentId::new(format!("agent-{at}")),
        host: Arc::from(format!("node{at}")),
        addresses: vec![[10, 0, (at / 250) as u8, (at % 250) as u8].into()],
        resources: Resources {
            cpus: Scalar(10 * per_agent),
            mem: Scalar::whole(per_agent),
            disk: Scalar::whole(1_000),
            gpus: 0,
            ports: vec![PortRange::new(31_000, 32_000)],
        },
        attributes: Vec::new(),
        reserved: Vec::new(),
        region: None,
        zone: None,
    }
}

fn failed(reason: &str) -> StoreError {
    StoreError::Failed { what: "the measurement".into(), reason: reason.into() }
}

/// The resident memory of this process (`/proc/self/statm`, second field, pages of 4 KiB); 0 where there is none.
fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4096
}
