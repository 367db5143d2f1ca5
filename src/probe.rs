//! Runs health, readiness and generic checks: HTTP, HTTPS and TCP from here, commands through the node. Results go to the core, which decides what
//! they mean; those of generic checks only when they differ from what is known.
//!
//! One thread of its own: a busy API delays no check. It follows the snapshots to know which tasks there are, and looks each one up again when its
//! check is due, so that it never asks a task that has moved or ended.
//!
//! Spread: each check of each task has a place of its own in its interval, which follows from its name alone. So neither a restart of ours nor a
//! thousand tasks launched at once make checks come in bursts.
//!
//! Whose fault a failure is: see [`doubt`].

pub mod attempt;
pub mod commands;
pub mod doubt;
mod follow;
pub mod schedule;
pub mod target;

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use tokio::{
    sync::{broadcast, mpsc, watch},
    task::JoinSet,
    time::{sleep_until, timeout},
};
use tracing::{info, warn};

use self::{
    attempt::{Attempts, Raw},
    commands::{Commands, Room},
    doubt::Doubt,
    schedule::{Due, Schedule},
    target::{Action, Target, Which},
};
use crate::{
    core::state::View,
    model::{
        cluster::ClusterEvent,
        health::{CheckKind, CheckProtocol, CheckReport, Finding, Outcome},
        id::{DeploymentId, InstanceId, PathId},
        instance::{Condition, Instance},
        record::RecordKey,
        time::Timestamp,
    },
    runtime::{handle::Handle, handle::Published, node::NodeAccess},
};

/// Checks under way at once (Marathon: `--max_concurrent_marathon_health_checks`).
pub const MAX_CONCURRENT: usize = 256;

/// Results are handed on together, after this long at most.
const GATHER: Duration = Duration::from_millis(50);

/// And so many at once at most.
const MAX_GATHERED: usize = 512;

/// Results that wait while the core does not take them. One more pushes out the oldest: the next run says more.
const MAX_WAITING: usize = 32_768;

/// How often it is looked whether this thread gets to run.
const BEAT: Duration = Duration::from_millis(100);

/// The first run of a check follows after this long at most, spread like all others.
const FIRST_RUN_MS: u64 = 5_000;

/// What the prober needs.
pub struct Settings {
    /// Checks under way at once; 0 is 1.
    pub max_concurrent: usize,
    /// Who runs commands in containers; `None`: nobody, and such checks say nothing.
    pub nodes: Option<Arc<dyn NodeAccess>>,
}

/// How it goes, to be looked at from outside.
#[derive(Debug, Default)]
pub struct Punctuality {
    /// Checks begun.
    pub runs: AtomicU64,
    /// Of these, the ones that began more than a tenth of a second after their time.
    pub late: AtomicU64,
    /// By how much the latest of all was late, milliseconds.
    pub worst_ms: AtomicU64,
    /// Failures that were not held against their tasks.
    pub uncertain: AtomicU64,
}

impl Punctuality {
    fn begun(&self, late_ms: u64) {
        self.runs.fetch_add(1, Ordering::Relaxed);
        if late_ms > 100 {
            self.late.fetch_add(1, Ordering::Relaxed);
        }
        self.worst_ms.fetch_max(late_ms, Ordering::Relaxed);
    }
}

/// Starts the prober on a thread of its own; it ends with `stopping`, or when nobody takes results any more.
///
/// # Errors
/// The system gives no thread.
pub fn start(
    settings: Settings,
    handle: Handle,
    results: mpsc::Sender<ClusterEvent>,
    stopping: watch::Receiver<bool>,
) -> std::io::Result<Arc<Punctuality>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let prober = Prober::new(settings, handle, results);
    let punctuality = prober.punctuality.clone();
    std::thread::Builder::new().name("probe".into()).spawn(move || runtime.block_on(prober.run(stopping)))?;
    Ok(punctuality)
}

/// A check of one task, as long as there is cause for it.
#[derive(Clone, Debug)]
struct Slot {
    instance: InstanceId,
    incarnation: u32,
    which: Which,
    /// Run in the container.
    is_command: bool,
    interval_ms: u64,
    phase_ms: u64,
    last_success_ms: Option<u64>,
}

/// A run that has ended.
struct Done {
    slot: u64,
    target: Target,
    due_ms: u64,
    began_ms: u64,
    raw: Raw,
}

struct Prober {
    handle: Handle,
    results: mpsc::Sender<ClusterEvent>,
    attempts: Arc<Attempts>,
    max_concurrent: usize,
    began: Instant,
    slots: HashMap<u64, Slot>,
    /// The slots of each instance, and of which incarnation they are.
    watched: HashMap<InstanceId, (u32, Vec<u64>)>,
    deployments: HashMap<DeploymentId, HashSet<PathId>>,
    schedule: Schedule,
    /// Of commands: they have room of their own, so that slow ones hold up nothing else.
    commands: Commands,
    doubt: Doubt,
    running: JoinSet<Done>,
    next_slot: u64,
    gathered: std::collections::VecDeque<CheckReport>,
    gathering_since: Option<Instant>,
    punctuality: Arc<Punctuality>,
}

impl Prober {
    fn new(settings: Settings, handle: Handle, results: mpsc::Sender<ClusterEvent>) -> Self {
        Self {
            handle,
            results,
            attempts: Arc::new(Attempts::new(settings.nodes)),
            max_concurrent: settings.max_concurrent.max(1),
            began: Instant::now(),
            slots: HashMap::new(),
            watched: HashMap::new(),
            deployments: HashMap::new(),
            schedule: Schedule::default(),
            commands: Commands::default(),
            doubt: Doubt::default(),
            running: JoinSet::new(),
            next_slot: 0,
            gathered: std::collections::VecDeque::new(),
            gathering_since: None,
            punctuality: Arc::default(),
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn at(&self, ms: u64) -> tokio::time::Instant {
        (self.began + Duration::from_millis(ms)).into()
    }

    async fn run(mut self, mut stopping: watch::Receiver<bool>) {
        // Before the first look, so that nothing falls between the two.
        let mut published = self.handle.follow_tasks();
        self.look_at_all();
        let results = self.results.clone();
        let mut beat = Instant::now() + BEAT;
        while !*stopping.borrow() {
            self.begin_due();
            let due = self.next_due();
            let wake = due.map_or_else(|| self.at(u64::MAX >> 20), |due| self.at(due));
            let gathered = self.gathering_since.map(|since| since + GATHER);
            let hand_on = self.gathered.len() >= MAX_GATHERED || gathered.is_some_and(|at| at <= Instant::now());
            let gathered = gathered.map_or(wake, Into::into);
            tokio::select! {
                changed = stopping.changed() => if changed.is_err() { return },
                news = published.recv() => match news {
                    Ok(news) => self.learn(&news),
                    Err(broadcast::error::RecvError::Lagged(_)) => self.look_at_all(),
                    Err(broadcast::error::RecvError::Closed) => return,
                },
                Some(done) = self.running.join_next(), if !self.running.is_empty() => match done {
                    Ok(done) => self.ended(done),
                    Err(error) => warn!(%error, "A check was lost."),
                },
                permit = results.reserve(), if hand_on => match permit {
                    Ok(permit) => permit.send(ClusterEvent::Checked(self.take_gathered())),
                    Err(_) => return,
                },
                () = sleep_until(beat.into()) => {
                    let now = Instant::now();
                    self.doubt.beat(self.now_ms(), u64::try_from((now - beat).as_millis()).unwrap_or(u64::MAX));
                    beat = now + BEAT;
                }
                () = sleep_until(wake) => {}
                () = sleep_until(gathered), if !hand_on => {}
            }
        }
    }

    /// When the next check is due for which there is room.
    fn next_due(&self) -> Option<u64> {
        if self.running.len() >= self.max_concurrent {
            return None;
        }
        self.schedule.next().into_iter().chain(self.commands.next()).min()
    }

    fn take_gathered(&mut self) -> Vec<CheckReport> {
        let count = self.gathered.len().min(MAX_GATHERED);
        let taken = self.gathered.drain(..count).collect();
        self.gathering_since = (!self.gathered.is_empty()).then(Instant::now);
        taken
    }

    // === what there is to check ===

    fn look_at_all(&mut self) {
        let view = self.handle.view_full();
        self.deployments.clear();
        view.tables.deployments.values().for_each(|deployment| {
            self.deployments.insert(deployment.id.clone(), deployment.affected_apps().cloned().collect());
        });
        let gone: Vec<InstanceId> = self.watched.keys().filter(|id| !view.tables.instances.contains_key(*id)).cloned().collect();
        gone.iter().for_each(|id| self.forget(id));
        view.tables.instances.values().for_each(|instance| self.look_at(&view, instance));
        if !self.slots.is_empty() {
            info!(checks = self.slots.len(), "Checks are under way.");
        }
    }

    fn learn(&mut self, news: &Published) {
        let view = self.handle.view_full();
        let deployments = news.changed.iter().filter_map(|key| if let RecordKey::Deployment(id) = key { Some(id) } else { None });
        for id in deployments {
            let apps: HashSet<PathId> =
                view.tables.deployments.get(id).map(|deployment| deployment.affected_apps().cloned().collect()).unwrap_or_default();
            if apps.is_empty() {
                self.deployments.remove(id);
            } else if self.deployments.insert(id.clone(), apps.clone()).is_none() {
                let asks = |app: &&PathId| view.tables.app(app).is_some_and(|app| !app.readiness_checks.is_empty());
                for instance in apps.iter().filter(asks).flat_map(|app| view.tables.instances_of(app)) {
                    self.look_at(&view, instance);
                }
            }
        }
        for key in &news.changed {
            let RecordKey::Instance(id) = key else { continue };
            match view.tables.instances.get(id) {
                Some(instance) => self.look_at(&view, instance),
                None => self.forget(id),
            }
        }
    }

    fn forget(&mut self, id: &InstanceId) {
        for slot in self.watched.remove(id).into_iter().flat_map(|(_, slots)| slots) {
            self.slots.remove(&slot);
            self.doubt.forget(slot);
        }
    }

    fn look_at(&mut self, view: &View, instance: &Instance) {
        let known = self.watched.get(&instance.id).map(|(incarnation, _)| *incarnation);
        if instance.condition != Condition::Running || known.is_some_and(|incarnation| incarnation != instance.incarnation) {
            self.forget(&instance.id);
        }
        if instance.condition != Condition::Running {
            return;
        }
        let Some(app) = view.tables.definition_of(instance) else { return };
        if app.health_checks.is_empty() && app.readiness_checks.is_empty() && app.generic_checks().next().is_none() {
            return;
        }
        if !self.watched.contains_key(&instance.id) {
            for (at, check) in app.health_checks.iter().enumerate() {
                let alive = instance.checks.get(at).is_some_and(|state| state.is_alive());
                let delay_ms = if check.protocol.is_mesos() { u64::from(check.delay_seconds) * 1000 } else { 0 };
                let is_command = check.protocol == CheckProtocol::Command;
                self.add(instance, Which::Health(at), is_command, check.interval_seconds, alive, delay_ms);
            }
            for (place, check) in app.generic_checks() {
                let is_command = matches!(check.kind, CheckKind::Exec { .. });
                self.add(instance, Which::Check(place), is_command, check.interval_seconds, false, u64::from(check.delay_seconds) * 1000);
            }
        }
        let (_, slots) = self.watched.entry(instance.id.clone()).or_insert_with(|| (instance.incarnation, Vec::new()));
        let asked = slots.iter().any(|slot| self.slots.get(slot).is_some_and(|slot| slot.which == Which::Readiness));
        if let Some(check) = app.readiness_checks.first().filter(|_| !asked && self.wants_readiness(instance)) {
            self.add(instance, Which::Readiness, false, check.interval_seconds, false, 0);
        }
    }

    fn wants_readiness(&self, instance: &Instance) -> bool {
        !instance.ready && self.deployments.values().any(|apps| apps.contains(instance.app()))
    }

    fn add(&mut self, instance: &Instance, which: Which, is_command: bool, interval_seconds: u32, known_alive: bool, delay_ms: u64) {
        let now = self.now_ms();
        let interval_ms = u64::from(interval_seconds.max(1)) * 1000;
        let phase_ms = schedule::phase(&format!("{} {which:?}", instance.task()), interval_ms);
        let due = match which {
            // Nothing is known of it, and a deployment waits.
            Which::Readiness => now,
            // It is well, and need not be asked sooner than it would have been.
            Which::Health(_) if known_alive => schedule::next_place(now, phase_ms, interval_ms),
            Which::Health(_) | Which::Check(_) => now + delay_ms + phase_ms % interval_ms.min(FIRST_RUN_MS),
        };
        let id = self.next_slot;
        self.next_slot += 1;
        let last_success_ms = known_alive.then_some(now);
        let (instance_id, incarnation) = (instance.id.clone(), instance.incarnation);
        self.slots.insert(id, Slot { instance: instance_id, incarnation, which, is_command, interval_ms, phase_ms, last_success_ms });
        self.watched.entry(instance.id.clone()).or_insert_with(|| (instance.incarnation, Vec::new())).1.push(id);
        self.set_due(Due { at_ms: due, slot: id }, is_command);
    }

    fn set_due(&mut self, due: Due, is_command: bool) {
        if is_command { self.commands.add(due) } else { self.schedule.add(due) }
    }

    // === running ===

    fn begin_due(&mut self) {
        let now = self.now_ms();
        while self.running.len() < self.max_concurrent
            && let Some(due) = self.schedule.pop(now)
        {
            self.begin(due, now, None);
        }
        while self.running.len() < self.max_concurrent
            && let Some((due, room)) = self.commands.take(now, |slot| self.slots.get(&slot).map(|slot| slot.instance.app().clone()))
        {
            self.begin(due, now, Some(room));
        }
    }

    /// `room` is given back when the run is over, however that comes.
    fn begin(&mut self, due: Due, now: u64, room: Option<Room>) {
        let Some(slot) = self.slots.get(&due.slot) else { return };
        let view = self.handle.view();
        let instance = view.tables.instances.get(&slot.instance);
        let instance = instance.filter(|it| it.incarnation == slot.incarnation && it.condition == Condition::Running);
        let wanted = |instance: &&Arc<Instance>| slot.which != Which::Readiness || self.wants_readiness(instance);
        let Some(instance) = instance.filter(wanted) else {
            self.slots.remove(&due.slot);
            self.doubt.forget(due.slot);
            return;
        };
        let target = match Target::of(&view.tables, instance, slot.which) {
            Ok(target) => target,
            Err(why) => {
                // A place that is not known yet (or never) says nothing about the task.
                let finding = target::no_finding(slot.which, &why);
                let report = CheckReport { task: instance.task(), at: wall(), finding };
                let next = schedule::next_place(now, slot.phase_ms, slot.interval_ms);
                let is_command = slot.is_command;
                self.set_due(Due { at_ms: next, slot: due.slot }, is_command);
                if is_news(&view, &report) {
                    self.report(report);
                }
                return;
            }
        };
        self.punctuality.begun(now.saturating_sub(due.at_ms));
        let (attempts, limit) = (self.attempts.clone(), Duration::from_secs(u64::from(target.timeout_seconds.max(1))));
        self.running.spawn(async move {
            let _room = room;
            let raw = timeout(limit, attempts.run(&target)).await.unwrap_or(Raw::Silent(limit));
            Done { slot: due.slot, target, due_ms: due.at_ms, began_ms: now, raw }
        });
    }

    fn ended(&mut self, done: Done) {
        let now = self.now_ms();
        let Some(slot) = self.slots.get_mut(&done.slot) else { return };
        let (which, instance, interval, phase) = (slot.which, slot.instance.clone(), slot.interval_ms, slot.phase_ms);
        let is_command = slot.is_command;
        let recently = slot.last_success_ms;
        let next = match which {
            // Counted from the answer, as Marathon does: it is over when the answer is "ready".
            Which::Readiness => now + interval,
            Which::Health(_) | Which::Check(_) => schedule::next_place((done.due_ms + interval / 2).max(now), phase, interval),
        };
        self.set_due(Due { at_ms: next, slot: done.slot }, is_command);
        let finding = match (which, &done.target.action) {
            (Which::Health(check), action) => {
                let Some(result) = attempt::outcome(&done.raw, action) else { return };
                let result = self.doubt.judge(done.slot, &done.target.host, done.began_ms, now, recently, result);
                match &result {
                    Outcome::Passed => {
                        if let Some(slot) = self.slots.get_mut(&done.slot) {
                            slot.last_success_ms = Some(now);
                        }
                    }
                    Outcome::Failed(_) => {}
                    Outcome::Uncertain(_) => _ = self.punctuality.uncertain.fetch_add(1, Ordering::Relaxed),
                }
                Finding::Health { check, outcome: result }
            }
            (Which::Check(place), action) => Finding::Check { place, result: attempt::result(&done.raw, action) },
            (Which::Readiness, Action::Http(http)) => Finding::Readiness(attempt::readiness(&done.raw, http)),
            (Which::Readiness, _) => return,
        };
        let task = crate::model::id::TaskId::app(instance, done.target.incarnation);
        let report = CheckReport { task, at: wall(), finding };
        if is_news(&self.handle.view(), &report) {
            self.report(report);
        }
    }

    fn report(&mut self, report: CheckReport) {
        if self.gathered.len() >= MAX_WAITING {
            self.gathered.pop_front();
        }
        self.gathered.push_back(report);
        self.gathering_since.get_or_insert_with(Instant::now);
    }
}

/// False for a generic check that found what readers see already: a run of such a check is then no work for the core.
fn is_news(view: &View, report: &CheckReport) -> bool {
    let Finding::Check { place, result } = report.finding else { return true };
    view.readings.get(&report.task.instance).and_then(|readings| readings.result(place)) != result
}

fn wall() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests;
