//! The server under test: the real core in a process that can die at any point, its durable store, and its clients.
//!
//! The order of a batch is the driver's: drain, step each, one commit, then effects. A commit takes time, and while it does more comes in and is
//! stepped.

use std::collections::VecDeque;

use serde_json::Value;

use super::{
    faults::CrashPoint,
    invariants::Wanted,
    rng::Rng,
    sabotage::Sabotage,
    workload::{AppSpec, Ask, DEEP, GROUP, Op, app_id, host_name, labels},
    world::{What, World},
};
use crate::{
    core::{Ctx, Frame, Input, RequestId, Settings, State},
    model::{
        app::{App, input::AppInput},
        cluster::{ClusterCall, ClusterEvent},
        group::input::GroupInput,
        health::{CheckReport, Finding, Outcome},
        id::{Owner, PathId},
        instance::Instance,
        pod::{input::PodInput, output},
        request::{KillSelector, Origin, Possession, Reply, Request},
        time::Instant,
        user::UserChange,
    },
    runtime::batch::{self, Pipeline},
};

/// Ticks one after the other in the same millisecond: a deadline that a tick does not clear.
const MAX_TICKS_AT_ONCE: u32 = 100;

/// One process.
pub(super) struct Server {
    boot: u64,
    started: u64,
    pub state: State,
    inbox: VecDeque<Input>,
    pipeline: Pipeline<Stepped, Vec<Stepped>>,
    batch_waits: bool,
    tick_token: u64,
    ticks_at_once: (u64, u32),
    rng: Rng,
}

/// One frame, and what caused it.
#[derive(Clone, Debug)]
pub(super) struct Stepped {
    pub cause: Input,
    pub at: u64,
    pub frame: Frame,
}

impl Server {
    /// True when nothing waits to be stepped or committed: memory and disk must be the same.
    pub(super) fn is_idle(&self) -> bool {
        self.inbox.is_empty() && self.pipeline.is_idle()
    }
}

impl World<'_> {
    /// Starts the server from what is durable.
    pub(super) fn boot(&mut self) {
        if self.server.is_some() {
            return;
        }
        let boot = self.fresh();
        self.stats.boots += 1;
        let records = self.disk.load();
        self.note(|| format!("server starts from {} records", records.len()));
        let mut rng = Rng::new(self.rng_server.bits());
        // A process' monotonic clock begins anywhere.
        let started = self.now.saturating_sub(rng.below(3));
        let settings = Settings { new_group_enforce_role: self.plan.new_groups_enforce, ..Settings::default() };
        let state = State::recover(settings, records, Instant(self.now - started), self.wall());
        (self.rules.booted_at, self.rules.booted_wall) = (self.now, self.wall());
        self.check_recovered(&state);
        self.server = Some(Server {
            boot,
            started,
            state,
            inbox: VecDeque::new(),
            pipeline: Pipeline::default(),
            batch_waits: false,
            tick_token: 0,
            ticks_at_once: (0, 0),
            rng,
        });
        self.schedule_tick();
        self.after(20, What::Connect);
    }

    /// The server dies now, and is started again after `ms`.
    pub(super) fn crash(&mut self, ms: u64) {
        if self.server.take().is_none() {
            return;
        }
        self.note(|| "server dies".into());
        self.link.up = false;
        self.void_offers();
        self.sabotage_disk();
        self.rules.forget_process();
        self.after(ms, What::Boot);
    }

    /// Something arrives at the server.
    pub(super) fn deliver(&mut self, event: ClusterEvent) {
        self.input(Input::Cluster(event));
    }

    fn input(&mut self, input: Input) {
        let Some(server) = &mut self.server else { return };
        server.inbox.push_back(input);
        self.wake_server();
    }

    fn wake_server(&mut self) {
        let Some(server) = &mut self.server else { return };
        if !server.batch_waits && server.pipeline.room() > 0 && !server.inbox.is_empty() {
            server.batch_waits = true;
            let boot = server.boot;
            self.after(0, What::Batch { boot });
        }
    }

    pub(super) fn tick(&mut self, boot: u64, token: u64) {
        let Some(server) = self.server.as_mut().filter(|server| server.boot == boot && server.tick_token == token) else { return };
        server.ticks_at_once = if server.ticks_at_once.0 == self.now { (self.now, server.ticks_at_once.1 + 1) } else { (self.now, 0) };
        if server.ticks_at_once.1 > MAX_TICKS_AT_ONCE {
            self.violate("hot-loop", || "a deadline is due again and again".into());
        }
        self.input(Input::Tick);
    }

    fn schedule_tick(&mut self) {
        let Some(server) = &mut self.server else { return };
        server.tick_token += 1;
        let Some(deadline) = server.state.next_deadline() else { return };
        let (boot, token) = (server.boot, server.tick_token);
        let at = (deadline.0 + server.started).max(self.now);
        self.after(at - self.now, What::Tick { boot, token });
    }

    /// Steps what has come in. A commit is under way when this returns.
    pub(super) fn batch(&mut self, boot: u64) {
        let wall = self.wall();
        let now = self.now;
        let Some(server) = self.server.as_mut().filter(|server| server.boot == boot) else { return };
        server.batch_waits = false;
        let inputs: Vec<Input> = server.inbox.drain(..server.inbox.len().min(server.pipeline.room())).collect();
        let inputs: Vec<(Input, Input)> = inputs.into_iter().map(|input| (input.clone(), self.sabotage_input(input))).collect();
        let Some(server) = &mut self.server else { return };
        let mut stepped = Vec::with_capacity(inputs.len());
        for (cause, input) in inputs {
            let mut random = || server.rng.bits();
            let mut ctx = Ctx { now: Instant(now - server.started), wall, random: &mut random };
            let frame = batch::run(&mut server.state, [input], &mut ctx);
            stepped.push(Stepped { cause, at: now, frame });
        }
        self.stats.frames += stepped.len() as u64;
        stepped.iter().for_each(|one| self.note_frame(one));
        if let Some(server) = &mut self.server {
            stepped.into_iter().for_each(|one| server.pipeline.add(one));
        }
        self.begin_commit();
        self.schedule_tick();
    }

    /// Begins the next commit, unless one is under way.
    fn begin_commit(&mut self) {
        let Some(server) = &mut self.server else { return };
        if server.pipeline.under_way().is_some() {
            self.stats.stepped_ahead += 1;
            return;
        }
        server.pipeline.begin(|stepped| stepped);
        let Some(stepped) = server.pipeline.under_way().map(|stepped| stepped.clone()) else { return };
        if let Some((CrashPoint::BeforeCommit, ms)) = self.armed {
            self.armed = None;
            return self.crash(ms);
        }
        self.sabotage_before_commit(&stepped);
        if let Some(server) = &mut self.server {
            let (boot, commit_ms) = (server.boot, server.rng.below(4));
            self.after(commit_ms, What::Committed { boot });
        }
    }

    /// The commit is done, or has failed; after it the effects leave.
    pub(super) fn committed(&mut self, boot: u64) {
        let Some(server) = self.server.as_mut().filter(|server| server.boot == boot) else { return };
        let Some(stepped) = server.pipeline.end() else { return };
        let strikes = stepped.iter().any(|one| !one.frame.changes.is_empty());
        let armed = if strikes { self.armed.take() } else { None };
        if let Some((CrashPoint::CommitLost, ms)) = armed {
            return self.crash(ms);
        }
        self.write(&stepped);
        // The driver gives the store its next batch before the effects of this one leave.
        self.begin_commit();
        if self.server.is_none() {
            return;
        }
        match armed {
            Some((CrashPoint::CommitKept | CrashPoint::BeforeEffects, ms)) => return self.crash(ms),
            Some((CrashPoint::AmongEffects(effects), ms)) => {
                self.effects(&stepped, effects);
                return self.crash(ms);
            }
            _ => self.effects(&stepped, u64::MAX),
        }
        self.wake_server();
    }

    fn write(&mut self, stepped: &[Stepped]) {
        self.stats.commits += 1;
        self.disk.begin();
        for one in stepped {
            let spoilt = self.sabotage_frame(one);
            self.check_frame(spoilt.as_ref().unwrap_or(one));
        }
    }

    /// At most `limit` of the effects leave.
    fn effects(&mut self, stepped: &[Stepped], limit: u64) {
        let mut left = limit;
        let calls: Vec<ClusterCall> = stepped.iter().flat_map(|one| one.frame.calls.iter().cloned()).collect();
        for call in calls {
            if left == 0 || self.violation.is_some() {
                return;
            }
            left -= 1;
            for call in self.sabotage_call(call) {
                self.check_call(&call);
                self.send_call(call);
            }
        }
        for (request, reply) in stepped.iter().flat_map(|one| &one.frame.replies) {
            if left == 0 {
                return;
            }
            left -= 1;
            self.check_reply(*request, reply);
        }
    }

    fn note_frame(&mut self, one: &Stepped) {
        self.trace.add(self.now, || format!("  in  {}", describe(&one.cause)));
        for change in &one.frame.changes {
            self.trace.add(self.now, || format!("    put {}", describe_change(change)));
        }
        for call in &one.frame.calls {
            self.trace.add(self.now, || format!("    out {}", describe_call(call)));
        }
        for (request, reply) in &one.frame.replies {
            self.trace.add(self.now, || format!("    re  {request}: {}", describe_reply(reply)));
        }
    }

    // === clients ===

    /// A client sends a request, if there is a server to send it to.
    pub(super) fn send_op(&mut self, op: &Op) {
        let Some(request) = self.request_of(op) else { return };
        let wanted = match op.ask {
            Ask::Scale { instances, .. } => Wanted { mark: None, instances: Some(instances) },
            _ => Wanted { mark: Some(op.mark), instances: None },
        };
        self.submit(request, wanted, op.by);
    }

    /// Sends a request of a user, or of an administrator; the invariants remember what was asked.
    pub(super) fn submit(&mut self, request: Request, wanted: Wanted, by: Option<&str>) {
        if self.server.is_none() {
            return;
        }
        let id: RequestId = self.fresh();
        self.rules.asked(id, wanted);
        let user = by.map_or_else(Owner::default_owner, Owner::new);
        let origin = Origin { user, admin: by.is_none(), client_ip: "10.9.9.9".into(), uri: "/v2/apps".into() };
        self.input(Input::Api(id, origin, Box::new(request)));
    }

    fn request_of(&mut self, op: &Op) -> Option<Request> {
        let force = op.force;
        let path = |app: u16| app_id(app).parse::<PathId>().expect("the workload's ids are valid");
        let read = |spec: &AppSpec| AppInput::read(&spec.json(op.mark, self.plan.agents));
        let read_pod = |spec: &AppSpec| {
            let input = PodInput::read(&spec.pod_json(op.mark, self.plan.agents));
            Box::new(input.expect("the workload's pods are valid"))
        };
        // A change of a pod is its whole definition once more, changed.
        let change_pod = |pod: &App, change: &dyn Fn(&mut Value)| {
            let mut body = Value::Object(output::definition(pod));
            change(&mut body);
            Some(Request::UpdatePod { pod: pod.id.clone(), input: Box::new(PodInput::read(&body).ok()?), force })
        };
        let pod = |app: u16| self.disk.current(&path(app)).filter(|app| app.pod.is_some());
        let request = match &op.ask {
            Ask::Create(spec) if spec.is_pod() => Request::CreatePod { input: read_pod(spec), force },
            Ask::Create(spec) => Request::CreateApp { input: read(spec).ok()?.into(), force },
            Ask::Replace(spec) if spec.is_pod() => Request::UpdatePod { pod: path(spec.app), input: read_pod(spec), force },
            Ask::Replace(spec) => {
                Request::UpdateApps { updates: vec![(path(spec.app), read(spec).ok()?)], partial: false, create: true, force }
            }
            Ask::Both(one, other) if one.is_pod() || other.is_pod() => return None,
            Ask::Both(one, other) => {
                let updates = vec![(path(one.app), read(one).ok()?), (path(other.app), read(other).ok()?)];
                Request::UpdateApps { updates, partial: false, create: true, force }
            }
            Ask::Patch { app, fate, .. } if pod(*app).is_some() => change_pod(pod(*app)?, &|body| body["labels"] = labels(op.mark, *fate))?,
            Ask::Patch { app, mem, fate } => {
                let body = serde_json::json!({"mem": mem, "labels": labels(op.mark, *fate)});
                Request::UpdateApps { updates: vec![(path(*app), AppInput::read(&body).ok()?)], partial: true, create: false, force }
            }
            Ask::Scale { app, instances } if pod(*app).is_some() => {
                change_pod(pod(*app)?, &|body| body["scaling"]["instances"] = (*instances).into())?
            }
            Ask::Scale { app, instances } => {
                let body = serde_json::json!({"instances": instances});
                Request::UpdateApps { updates: vec![(path(*app), AppInput::read(&body).ok()?)], partial: true, create: false, force }
            }
            Ask::Restart { app } => Request::RestartApp { app: path(*app), force },
            Ask::Destroy { app } if pod(*app).is_some() => Request::DeletePod { pod: path(*app), force },
            Ask::Destroy { app } => Request::DeleteApp { app: path(*app), force },
            Ask::KillApp { app, wipe, .. } if pod(*app).is_some() => {
                let pod = path(*app);
                let instances = self.disk.instances_of(&pod).map(|instance| instance.id.clone()).collect();
                Request::KillTasks { selection: KillSelector::Instances { pod, instances }, scale: false, force, wipe: *wipe }
            }
            Ask::KillApp { app, host, scale, wipe } => {
                let host = host.map(|agent| host_name(agent % self.plan.agents.max(1)));
                Request::KillTasks { selection: KillSelector::App { app: path(*app), host }, scale: *scale, force, wipe: *wipe }
            }
            Ask::KillOne { app, nth, scale: wipe } if pod(*app).is_some() => {
                let pod = path(*app);
                let instances: Vec<_> = self.disk.instances_of(&pod).map(|instance| instance.id.clone()).collect();
                let instances = vec![nth_of(&instances, *nth)?.clone()];
                Request::KillTasks { selection: KillSelector::Instances { pod, instances }, scale: false, force, wipe: *wipe }
            }
            Ask::KillOne { app, nth, scale } => {
                let app = path(*app);
                let tasks: Vec<String> = self.disk.instances_of(&app).map(|instance| instance.task().to_string()).collect();
                let task = nth_of(&tasks, *nth)?.clone();
                Request::KillTasks { selection: KillSelector::Task { app, task }, scale: *scale, force, wipe: false }
            }
            Ask::KillSome { nth, count, scale, wipe } => {
                let apps = self.disk.instances().filter(|instance| instance.condition.is_live() && instance.containers.is_empty());
                let all: Vec<_> = apps.map(Instance::task).collect();
                let first = nth.checked_rem(all.len() as u64)? as usize;
                // Far apart, so that they are of several apps.
                let step = (all.len() / *count as usize).max(1);
                let tasks = all.iter().cycle().skip(first).step_by(step).take((*count as usize).min(all.len())).cloned().collect();
                Request::KillTasks { selection: KillSelector::Tasks(tasks), scale: *scale, force, wipe: *wipe }
            }
            Ask::Group { apps, deep } => {
                let apps_of = |specs: &[AppSpec]| specs.iter().filter(|spec| !spec.is_pod()).cloned().collect::<Vec<_>>();
                let json = |specs: &[AppSpec]| apps_of(specs).iter().map(|spec| spec.json(op.mark, self.plan.agents)).collect::<Value>();
                let mut body = serde_json::json!({"apps": json(apps)});
                if let Some(deep) = deep {
                    body["groups"] = serde_json::json!([{"id": DEEP, "apps": json(deep)}]);
                }
                update_group(&body, force)?
            }
            Ask::ScaleGroup { percent } => update_group(&serde_json::json!({"scaleBy": f64::from(*percent) / 100.0}), force)?,
            Ask::RollBackGroup { nth } => {
                let versions = self.disk.root_versions();
                update_group(&serde_json::json!({ "version": nth_of(&versions, *nth)? }), force)?
            }
            Ask::DestroyGroup { deep } => {
                let group = if *deep { DEEP } else { GROUP }.parse().expect("the workload's ids are valid");
                Request::DeleteGroup { group, force }
            }
            Ask::Cancel { nth } => {
                let running: Vec<_> = self.disk.deployments().map(|deployment| deployment.id.clone()).collect();
                Request::CancelDeployment { id: nth_of(&running, *nth)?.clone(), force }
            }
            Ask::ResetDelay { app } => Request::ResetDelay { app: path(*app) },
            Ask::ReleasePort { nth } => {
                let ports: Vec<u16> = self.disk.ports().map(|claim| claim.port).collect();
                Request::ReleasePort { port: *nth_of(&ports, *nth)? }
            }
            Ask::ReleaseBrick { nth, force } => {
                let bricks: Vec<_> = self.disk.bricks().map(|brick| brick.name.clone()).collect();
                Request::ReleaseBrick { brick: nth_of(&bricks, *nth)?.clone(), force: *force }
            }
            Ask::Fence { nth } => {
                let off = |agent: &str| self.agent_at(agent).is_some_and(|at| !self.agents[at].is_on());
                let held = self.disk.bricks().filter_map(|brick| brick.lease.as_ref().map(|lease| (brick, lease)));
                let off: Vec<_> =
                    held.filter(|(_, lease)| off(lease.agent.as_str())).map(|(brick, lease)| (brick.name.clone(), lease.epoch)).collect();
                let (brick, epoch) = nth_of(&off, *nth)?.clone();
                Request::FenceBrick { brick, epoch }
            }
            Ask::Limit { user, quota } => {
                Request::PutUser { name: Owner::new(*user), change: UserChange { quota: Some(quota.clone()), ..UserChange::default() } }
            }
            Ask::HandOver { app, to } => Request::HandOver { what: Possession::App(path(*app)), owner: Owner::new(*to) },
            Ask::EnforceRole { enforce } => {
                let group = GROUP.parse().expect("the workload's ids are valid");
                Request::EnforceRole { group, enforce: *enforce }
            }
        };
        Some(request)
    }

    /// After healing: what is wanted must fit, or nothing can be said about progress. The largest apps are destroyed until it does.
    pub(super) fn make_room(&mut self) {
        if self.plan.agents > 12 || self.server.is_none() {
            return;
        }
        let smallest =
            |of: fn(&crate::model::resources::Resources) -> u64| self.agents.iter().map(|agent| of(&agent.total.common)).min().unwrap_or(0);
        let (cpus, mem) = (smallest(|total| total.cpus.0), smallest(|total| total.mem.0));
        let demand = |app: &crate::model::app::App| (u64::from(app.instances) * app.cpus.0, u64::from(app.instances) * app.mem.0);
        let apps: Vec<_> = self.disk.apps().filter_map(|entry| self.disk.current(&entry.id)).collect();
        let total = apps.iter().map(|app| demand(app)).fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        if total.0 * 2 <= cpus && total.1 * 2 <= mem {
            return;
        }
        let Some(largest) = apps.iter().max_by_key(|app| demand(app)) else { return };
        let (id, is_pod) = (largest.id.clone(), largest.pod.is_some());
        self.note(|| format!("make room: destroy {id}"));
        let request = if is_pod { Request::DeletePod { pod: id, force: true } } else { Request::DeleteApp { app: id, force: true } };
        self.submit(request, Wanted::default(), None);
        self.after(1_000, What::MakeRoom);
    }

    /// True when acknowledgements are to leave too early.
    pub(super) fn early_acknowledgements(&self) -> bool {
        self.plan.sabotage == Some(Sabotage::EarlyAck)
    }
}

fn update_group(body: &Value, force: bool) -> Option<Request> {
    let base = GROUP.parse().expect("the workload's ids are valid");
    Some(Request::UpdateGroup { base, input: GroupInput::read(body).ok()?, create: false, force, dry_run: false })
}

fn nth_of<T>(of: &[T], nth: u64) -> Option<&T> {
    of.get(nth.checked_rem(of.len() as u64)? as usize)
}

// === one line each, for the trace ===

fn describe(input: &Input) -> String {
    use super::trace::short;
    match input {
        Input::Api(id, _, request) => {
            let text = format!("{request:?}");
            format!("{id}: {}", text.chars().take(300).collect::<String>())
        }
        Input::Cluster(ClusterEvent::Status(status)) => format!(
            "{} of {} from {:?} {:?}{}",
            status.state.as_str(),
            short(&status.task),
            status.agent,
            status.reason,
            if status.uuid.is_some() { "" } else { " (once)" }
        ),
        Input::Cluster(ClusterEvent::Offers(offers)) => {
            let text: Vec<String> = offers
                .iter()
                .take(8)
                .map(|offer| format!("{}@{} {}/{}", offer.id, offer.agent, offer.resources.cpus, offer.resources.mem))
                .collect();
            format!("{} offers {}", offers.len(), text.join(", "))
        }
        Input::Cluster(ClusterEvent::Checked(reports)) => {
            let passed = |report: &&CheckReport| matches!(report.finding, Finding::Health { outcome: Outcome::Passed, .. });
            let ready = |report: &&CheckReport| matches!(&report.finding, Finding::Readiness(answer) if answer.ready);
            let others = reports.iter().filter(|report| !passed(report) && !ready(report));
            let others: Vec<String> = others.map(|report| format!(", {} {:?}", short(&report.task), report.finding)).collect();
            format!("{} checks passed{}", reports.len() - others.len(), others.concat())
        }
        Input::Cluster(event) => format!("{event:?}"),
        Input::Tick => "tick".into(),
    }
}

fn describe_change(change: &crate::model::record::Change) -> String {
    use super::trace::short_instance;
    use crate::model::record::{Change, Record, RecordKey};
    match change {
        Change::Put(Record::Instance(instance)) => format!(
            "{}.{} {} goal {:?} v{} at {:?}",
            short_instance(&instance.id),
            instance.incarnation,
            instance.condition.as_str(),
            instance.goal,
            instance.version,
            instance.placement.as_ref().map(|place| (place.agent.as_str(), &place.ports))
        ),
        Change::Put(Record::Definition(app)) => format!("definition {} v{} x{}", app.id, app.version, app.instances),
        Change::Put(record) => {
            let text = format!("{record:?}");
            text.chars().take(400).collect()
        }
        Change::Delete(RecordKey::Instance(id)) => format!("delete {}", short_instance(id)),
        Change::Delete(key) => format!("delete {key:?}"),
    }
}

fn describe_call(call: &ClusterCall) -> String {
    use super::trace::short;
    match call {
        ClusterCall::Accept { offer, launches } => {
            let text: Vec<String> = launches.iter().take(8).map(|launch| format!("{} {:?}", short(&launch.task), launch.ports)).collect();
            format!("accept {offer}: {}", text.join(", "))
        }
        ClusterCall::Kill { task, agent, grace_ms } => format!("kill {} at {agent:?} grace {grace_ms:?}", short(task)),
        ClusterCall::Acknowledge { task, .. } => format!("acknowledge {}", short(task)),
        ClusterCall::Reconcile { tasks, others } => {
            let names: Vec<String> = tasks.iter().take(20).map(|one| short(&one.task)).collect();
            format!("reconcile {}{}: {}", tasks.len(), if *others { " and all others" } else { "" }, names.join(" "))
        }
        ClusterCall::ReleaseBrick { brick, epoch, agent, task } => format!("release {brick} lease {epoch} at {agent} of {}", short(task)),
        other => format!("{other:?}"),
    }
}

fn describe_reply(reply: &Result<Reply, crate::model::request::RequestError>) -> String {
    match reply {
        Ok(Reply::Killed(instances)) => format!("killed {}", instances.len()),
        Ok(reply) => format!("{reply:?}"),
        Err(error) => format!("refused: {error} {error:?}").chars().take(300).collect(),
    }
}
