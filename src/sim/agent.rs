//! The nodes: containers, the ports they bind, the bricks they mount, and the statuses that are repeated until someone acknowledges them.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use uuid::Uuid;

use super::{
    invariants::bound_ports,
    master::Pools,
    placement::Facts,
    rng::Rng,
    trace::short,
    world::{What, World},
};
use crate::model::{
    brick::BrickMount,
    cluster::{BrickReport, Launch, Offer, TaskState, TaskStatus},
    id::{AgentId, BrickName, OfferId, TaskId},
    resources::{PortRange, Resources, Scalar},
};

/// A status without an acknowledgement is sent again after this long (Mesos: 10 s, doubling).
const RESEND_MS: u64 = 10_000;

/// The longest wait between two sendings of one status.
const MAX_RESEND_MS: u64 = 60_000;

/// How often a node looks again whether a brick can be unmounted.
const BRICK_RETRY_MS: u64 = 2_000;

/// Grace of a kill that names none.
const DEFAULT_GRACE_MS: u64 = 3_000;

/// A node.
#[derive(Debug)]
pub struct Agent {
    pub(super) id: AgentId,
    pub(super) host: Arc<str>,
    pub(super) facts: Facts,
    pub(super) total: Pools,
    /// Neither used nor offered, as the master counts.
    pub(super) free: Pools,
    pub(super) registered: bool,
    pub(super) unreachable: bool,
    /// Tells the present connection from earlier ones.
    pub(super) token: u64,
    pub(super) slow_until: u64,
    pub(super) stuck_until: u64,
    pub(super) tasks: BTreeSet<TaskId>,
    pub(super) bound: BTreeMap<u16, TaskId>,
    bricks: BTreeMap<BrickName, NodeBrick>,
    off: u32,
    cut: u32,
    last_order: u64,
    rng: Rng,
}

/// What a node knows of a brick.
#[derive(Debug, Default)]
struct NodeBrick {
    /// The latest lease it has heard of.
    seen: u64,
    /// Leases up to this one are over.
    ended: u64,
    mounted: Option<u64>,
    /// When it is looked again whether it can be unmounted.
    retry_at: u64,
}

/// What a master tells a node.
#[derive(Clone, Debug)]
pub enum AgentMessage {
    /// Start this.
    Run(Arc<Launch>),
    /// End this.
    Kill {
        /// Which task.
        task: TaskId,
        /// Between the first and the last signal.
        grace_ms: Option<u64>,
    },
    /// The status need not be repeated.
    Acknowledge {
        /// Of which task.
        task: TaskId,
        /// Which status.
        uuid: Uuid,
    },
    /// See [`crate::model::cluster::ClusterCall::ReleaseBrick`].
    ReleaseBrick {
        /// The brick.
        brick: BrickName,
        /// The lease.
        epoch: u64,
        /// Its holder.
        task: TaskId,
    },
    /// See [`crate::model::cluster::ClusterCall::DestroyBrick`].
    DestroyBrick {
        /// The brick.
        brick: BrickName,
        /// The last lease of the life that ends.
        epoch: u64,
    },
}

/// How far a container really is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// The order to run it is on its way to the node, or was lost there.
    Coming,
    /// Being made.
    Staging,
    /// Being started.
    Starting,
    /// Running.
    Running,
    /// Told to end.
    Killing,
    /// Gone.
    Ended,
}

/// What the server was last told of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// Nothing yet.
    Nothing,
    /// That it lives.
    Live,
    /// That it is out of reach, or unknown: it may have ended.
    Lost,
    /// That it has ended.
    Gone,
}

/// A task, from the moment its launch reached the master until its end was acknowledged.
#[derive(Debug)]
pub struct Task {
    pub(super) launch: Arc<Launch>,
    pub(super) agent: usize,
    pub(super) phase: Phase,
    /// What the master believes.
    pub(super) known: TaskState,
    /// The master has its resources back.
    pub(super) freed: bool,
    /// Its node lost its memory.
    pub(super) forgotten: bool,
    /// The order to run it never reached the node.
    pub(super) order_lost: bool,
    pub(super) told: Told,
    pub(super) launched_at: u64,
    /// Until then it answers its checks badly.
    pub(super) sick_until: u64,
    /// Not acknowledged yet, oldest first.
    pub(super) updates: VecDeque<TaskStatus>,
    ended_as: TaskState,
    token: u32,
    resend_at: u64,
}

impl Task {
    pub(super) fn new(launch: Arc<Launch>, agent: usize) -> Self {
        Self {
            launch,
            agent,
            phase: Phase::Coming,
            known: TaskState::Staging,
            freed: false,
            forgotten: false,
            order_lost: false,
            told: Told::Nothing,
            launched_at: 0,
            sick_until: 0,
            updates: VecDeque::new(),
            ended_as: TaskState::Lost,
            token: 0,
            resend_at: 0,
        }
    }

    /// True while there is, or may be, a process.
    pub fn alive(&self) -> bool {
        !matches!(self.phase, Phase::Coming | Phase::Ended)
    }

    pub(super) fn real(&self) -> TaskState {
        match self.phase {
            Phase::Coming | Phase::Staging => TaskState::Staging,
            Phase::Starting => TaskState::Starting,
            Phase::Running | Phase::Killing => TaskState::Running,
            Phase::Ended => self.ended_as,
        }
    }

    pub(super) fn known_ended(&self) -> bool {
        is_end(self.known)
    }

    fn next_token(&mut self) -> u32 {
        self.token += 1;
        self.token
    }
}

/// True for states after which a task has no process.
pub fn is_end(state: TaskState) -> bool {
    use TaskState::*;
    matches!(state, Finished | Failed | Killed | Error | Dropped | Gone | GoneByOperator)
}

impl Agent {
    pub(super) fn new(seed: u64, at: usize, agents: u64) -> Self {
        let mut rng = Rng::part(seed, 1000 + at as u64);
        let ports = *rng.pick(&[20, 1000, 1000]);
        let total = Resources {
            cpus: Scalar::whole(rng.within(2, 6)),
            mem: Scalar::whole(rng.within(1, 6) * 512),
            disk: Scalar::whole(10_000),
            gpus: 0,
            ports: vec![PortRange::new(31_000, 31_000 + ports)],
        };
        let facts = Facts::draw(seed, at, agents);
        let total = facts.divide(total);
        Self {
            id: AgentId::new(format!("agent-{at}")),
            host: facts.host.as_str().into(),
            facts,
            free: total.clone(),
            total,
            registered: true,
            unreachable: false,
            token: 0,
            slow_until: 0,
            stuck_until: 0,
            tasks: BTreeSet::new(),
            bound: BTreeMap::new(),
            bricks: BTreeMap::new(),
            off: 0,
            cut: 0,
            last_order: 0,
            rng,
        }
    }

    pub(super) fn reachable(&self) -> bool {
        self.off == 0 && self.cut == 0
    }

    /// True when the machine has power.
    pub(super) fn is_on(&self) -> bool {
        self.off == 0
    }

    pub(super) fn next_token(&mut self) -> u64 {
        self.token += 1;
        self.token
    }

    fn address(&self) -> IpAddr {
        let number: u32 = self.id.as_str()["agent-".len()..].parse().unwrap_or(0);
        IpAddr::V4(Ipv4Addr::from(0x0a00_0001 + number))
    }

    pub(super) fn offer(&self, id: OfferId, pools: Pools) -> Offer {
        pools.into_offer(Offer {
            id,
            agent: self.id.clone(),
            host: self.host.clone(),
            addresses: vec![self.address()],
            resources: Resources::default(),
            reserved: Vec::new(),
            attributes: self.facts.attributes.clone(),
            region: Some(self.facts.region.into()),
            zone: Some(self.facts.zone.clone()),
        })
    }
}

impl World<'_> {
    /// The node with this id.
    pub(super) fn agent_at(&self, id: &str) -> Option<usize> {
        id.strip_prefix("agent-")?.parse().ok().filter(|at| *at < self.agents.len())
    }

    /// Sends an order to a node; kills and orders about bricks and acknowledgements may be lost.
    pub(super) fn order(&mut self, at: usize, message: AgentMessage) {
        let noise = self.noise();
        let agent = &mut self.agents[at];
        let lost = agent.rng.chance(noise.order_loss) && !matches!(message, AgentMessage::Run(_));
        let arrives = (self.now + agent.rng.within(1, 5)).max(agent.last_order);
        agent.last_order = arrives;
        if !lost {
            self.after(arrives - self.now, What::ToAgent { agent: at, message: Box::new(message) });
        }
    }

    pub(super) fn on_agent_message(&mut self, at: usize, message: AgentMessage) {
        if !self.agents[at].reachable() {
            if let AgentMessage::Run(launch) = message
                && let Some(task) = self.tasks.get_mut(&launch.task)
            {
                task.order_lost = true;
            }
            return;
        }
        match message {
            AgentMessage::Run(launch) => self.start_task(at, &launch),
            AgentMessage::Kill { task, grace_ms } => self.kill_task(&task, grace_ms),
            AgentMessage::Acknowledge { task, uuid } => self.acknowledged(&task, uuid),
            AgentMessage::ReleaseBrick { brick, epoch, task } => self.release_brick(at, brick, epoch, task),
            AgentMessage::DestroyBrick { brick, epoch } => self.destroy_brick(at, &brick, epoch),
        }
    }

    // === containers ===

    fn start_task(&mut self, at: usize, launch: &Arc<Launch>) {
        let id = launch.task.clone();
        match self.tasks.get_mut(&id) {
            // It was dropped from the master's books meanwhile.
            None => return,
            Some(task) if task.phase != Phase::Coming => return,
            Some(task) => {
                task.phase = Phase::Staging;
                task.launched_at = self.now;
            }
        }
        self.note(|| format!("agent-{at} starts {}", short(&id)));
        self.check_room(at);
        if let Err(reason) = self.bind_ports(at, launch).and_then(|()| self.mount_bricks(at, launch)) {
            self.end_task(&id, TaskState::Failed, &reason);
            return;
        }
        let noise = self.noise();
        let agent = &mut self.agents[at];
        if agent.rng.chance(noise.launch_fails) {
            self.end_task(&id, TaskState::Failed, "the image cannot be pulled");
            return;
        }
        let slow = if self.now < agent.slow_until { agent.rng.within(60_000, 400_000) } else { 0 };
        let ms = slow + agent.rng.within(10, 2_000);
        if agent.rng.chance(300) {
            self.update(&id, TaskState::Staging, "");
        }
        self.step_later(&id, ms);
    }

    fn step_later(&mut self, id: &TaskId, ms: u64) {
        if let Some(task) = self.tasks.get_mut(id) {
            let token = task.next_token();
            self.after(ms, What::TaskStep { task: id.clone(), token });
        }
    }

    pub(super) fn task_step(&mut self, id: &TaskId, token: u32) {
        let Some(task) = self.tasks.get_mut(id).filter(|task| task.token == token) else { return };
        let at = task.agent;
        match task.phase {
            Phase::Staging => {
                task.phase = Phase::Starting;
                self.update(id, TaskState::Starting, "");
                let ms = self.agents[at].rng.within(10, 2_000);
                self.step_later(id, ms);
            }
            Phase::Starting => {
                task.phase = Phase::Running;
                self.rules.came_up(&task.launch);
                self.update(id, TaskState::Running, "");
                let fate = self.tasks[id].launch.app.labels.get("fate").cloned();
                match fate.as_deref() {
                    Some("crash" | "finish") if !self.settled => {
                        let ms = self.agents[at].rng.within(100, 30_000);
                        self.step_later(id, ms);
                    }
                    _ => {}
                }
            }
            Phase::Running if !self.settled => {
                let crash = task.launch.app.labels.get("fate").is_some_and(|fate| fate == "crash");
                let (state, message) = if crash { (TaskState::Failed, "exit code 1") } else { (TaskState::Finished, "exit code 0") };
                self.end_task(id, state, message);
            }
            Phase::Killing => {
                let state = match self.agents[at].rng.below(20) {
                    0 => TaskState::Failed,
                    1 => TaskState::Finished,
                    _ => TaskState::Killed,
                };
                self.end_task(id, state, "killed");
            }
            _ => {}
        }
    }

    fn kill_task(&mut self, id: &TaskId, grace_ms: Option<u64>) {
        let Some(task) = self.tasks.get_mut(id).filter(|task| task.alive() && task.phase != Phase::Killing) else { return };
        task.phase = Phase::Killing;
        let at = task.agent;
        let grace = grace_ms.unwrap_or(DEFAULT_GRACE_MS);
        let agent = &mut self.agents[at];
        // Most obey at once, some only when they must.
        let ms = if agent.rng.chance(200) { grace } else { agent.rng.within(1, 300).min(grace) };
        let tells = agent.rng.chance(300);
        self.note(|| format!("agent-{at} ends {} in {ms} ms", short(id)));
        if tells {
            self.update(id, TaskState::Killing, "");
        }
        self.step_later(id, ms);
    }

    /// The process is gone; the node says so.
    fn end_task(&mut self, id: &TaskId, state: TaskState, message: &str) {
        let Some(task) = self.tasks.get_mut(id) else { return };
        task.phase = Phase::Ended;
        task.ended_as = state;
        task.next_token();
        let at = task.agent;
        self.agents[at].bound.retain(|_, holder| holder != id);
        self.note(|| format!("agent-{at}: {} is {} ({message})", short(id), state.as_str()));
        self.update(id, state, message);
    }

    pub(super) fn fail_some_task(&mut self, nth: u64) {
        let running: Vec<&TaskId> = self.tasks.iter().filter(|(_, task)| task.phase == Phase::Running).map(|(id, _)| id).collect();
        if !running.is_empty() {
            let id = running[(nth % running.len() as u64) as usize].clone();
            self.end_task(&id, TaskState::Failed, "killed by someone else");
        }
    }

    fn bind_ports(&mut self, at: usize, launch: &Launch) -> Result<(), String> {
        for port in bound_ports(launch) {
            if let Some(holder) = self.agents[at].bound.get(&port).cloned() {
                self.check_port_holder(at, port, &holder, &launch.task);
                return Err(format!("port {port} is in use"));
            }
            self.agents[at].bound.insert(port, launch.task.clone());
        }
        Ok(())
    }

    // === statuses ===

    /// A node notes a status, to be repeated until it is acknowledged.
    fn update(&mut self, id: &TaskId, state: TaskState, message: &str) {
        let timestamp = self.wall();
        let up = self.master.up;
        let Some(task) = self.tasks.get_mut(id) else { return };
        let agent = &mut self.agents[task.agent];
        task.updates.push_back(TaskStatus {
            task: id.clone(),
            agent: Some(agent.id.clone()),
            state,
            reason: Default::default(),
            message: message.to_owned(),
            timestamp,
            uuid: Some(Uuid::from_u64_pair(agent.rng.bits(), agent.rng.bits())),
            healthy: None,
            addresses: vec![agent.address()],
        });
        if agent.reachable() && agent.registered && up {
            task.known = state;
            if is_end(state) {
                self.free_resources(id);
            }
        }
        if self.tasks[id].updates.len() == 1 {
            self.forward(id);
        }
    }

    /// Sends the oldest status that is not acknowledged, and again later.
    pub(super) fn forward(&mut self, id: &TaskId) {
        self.send_oldest(id, RESEND_MS);
    }

    fn send_oldest(&mut self, id: &TaskId, again_ms: u64) {
        let Some(task) = self.tasks.get_mut(id) else { return };
        let Some(status) = task.updates.front().cloned() else { return };
        task.resend_at = self.now + again_ms;
        let agent = &self.agents[task.agent];
        let connected = agent.reachable() && agent.registered && self.master.up;
        if connected {
            task.known = task.real();
            if task.phase == Phase::Ended {
                self.free_resources(id);
            }
        }
        if let Some(uuid) = status.uuid {
            self.after(again_ms, What::Resend { task: id.clone(), uuid, after_ms: (again_ms * 2).min(MAX_RESEND_MS) });
        }
        if connected {
            self.send_event(crate::model::cluster::ClusterEvent::Status(status));
        }
    }

    pub(super) fn resend(&mut self, id: &TaskId, uuid: Uuid, after_ms: u64) {
        let due = self
            .tasks
            .get(id)
            .is_some_and(|task| task.resend_at == self.now && task.updates.front().is_some_and(|status| status.uuid == Some(uuid)));
        if due {
            self.send_oldest(id, after_ms);
        }
    }

    pub(super) fn on_acknowledge(&mut self, id: &TaskId, uuid: Uuid) {
        if let Some(at) = self.tasks.get(id).map(|task| task.agent) {
            self.order(at, AgentMessage::Acknowledge { task: id.clone(), uuid });
        }
    }

    fn acknowledged(&mut self, id: &TaskId, uuid: Uuid) {
        let Some(task) = self.tasks.get_mut(id) else { return };
        if task.updates.front().is_none_or(|status| status.uuid != Some(uuid)) {
            return;
        }
        let status = task.updates.pop_front().expect("there is one in front");
        if is_end(status.state) {
            self.drop_task(id);
        } else {
            self.forward(id);
        }
    }

    /// A task of which nobody will speak again.
    pub(super) fn drop_task(&mut self, id: &TaskId) {
        if let Some(task) = self.tasks.remove(id) {
            self.agents[task.agent].tasks.remove(id);
        }
    }

    // === nodes ===

    pub(super) fn begin_partition(&mut self, at: usize, ms: u64) {
        self.agents[at].cut += 1;
        self.lose_contact(at);
        self.after(ms, What::Partitioned { agent: at, ends: true });
    }

    pub(super) fn partition(&mut self, at: usize, ends: bool) {
        if ends && self.agents[at].cut > 0 {
            self.agents[at].cut -= 1;
            self.regain_contact(at);
        }
    }

    fn lose_contact(&mut self, at: usize) {
        let token = self.agents[at].next_token();
        let ms = self.agents[at].rng.within(10_000, 75_000);
        self.after(ms, What::PingTimeout { agent: at, token });
    }

    fn regain_contact(&mut self, at: usize) {
        if self.agents[at].reachable() {
            let token = self.agents[at].next_token();
            let ms = self.agents[at].rng.within(100, 5_000);
            self.after(ms, What::Reregister { agent: at, token });
        }
    }

    /// The machine dies: every process and every mount is gone.
    pub(super) fn agent_crash(&mut self, at: usize, ms: u64, forgets: bool) {
        self.agents[at].off += 1;
        self.after(ms, What::AgentUp { agent: at, forgets });
        self.rescind_of(at);
        self.lose_contact(at);
        for id in self.agents[at].tasks.iter().cloned().collect::<Vec<_>>() {
            if self.tasks[&id].alive() {
                self.end_task(&id, TaskState::Failed, "the node was restarted");
            }
        }
        let names: Vec<BrickName> = self.agents[at].bricks.keys().cloned().collect();
        for name in names {
            self.unmount(at, &name);
        }
    }

    pub(super) fn agent_up(&mut self, at: usize, forgets: bool) {
        if self.agents[at].off == 0 {
            return;
        }
        self.agents[at].off -= 1;
        if self.agents[at].off > 0 {
            return;
        }
        self.note(|| format!("agent-{at} is up again{}", if forgets { ", without memory" } else { "" }));
        if forgets {
            for id in self.agents[at].tasks.iter().cloned().collect::<Vec<_>>() {
                let task = self.tasks.get_mut(&id).expect("a node's tasks are among all tasks");
                task.forgotten = true;
                task.updates.clear();
            }
        }
        self.regain_contact(at);
    }

    pub(super) fn heal_agents(&mut self) {
        for at in 0..self.agents.len() {
            let agent = &mut self.agents[at];
            (agent.slow_until, agent.stuck_until) = (0, 0);
            if !agent.reachable() {
                (agent.off, agent.cut) = (0, 0);
                self.regain_contact(at);
            }
        }
    }

    // === bricks ===

    fn mount_bricks(&mut self, at: usize, launch: &Launch) -> Result<(), String> {
        launch.bricks.iter().try_for_each(|mount| self.mount(at, mount, &launch.task))
    }

    fn mount(&mut self, at: usize, mount: &BrickMount, task: &TaskId) -> Result<(), String> {
        let brick = self.agents[at].bricks.entry(mount.name.clone()).or_default();
        if mount.epoch <= brick.ended || mount.epoch < brick.seen {
            return Err(format!("lease {} of brick {} is over", mount.epoch, mount.name));
        }
        brick.seen = mount.epoch;
        self.check_mount(at, mount, task);
        let brick = self.agents[at].bricks.get_mut(&mount.name).expect("made above");
        match brick.mounted {
            // By another container of the pod.
            Some(epoch) if epoch == mount.epoch => return Ok(()),
            Some(other) => return Err(format!("brick {} is mounted under lease {other}", mount.name)),
            None => {}
        }
        brick.mounted = Some(mount.epoch);
        self.mounts.entry(mount.name.clone()).or_default().insert(at, mount.epoch);
        self.data.insert(mount.name.clone(), at);
        self.note(|| format!("agent-{at} mounts {} under lease {}", mount.name, mount.epoch));
        Ok(())
    }

    /// The task, or those of its pod's instance in the same launch.
    pub(super) fn launched_with<'b>(&'b self, task: &'b TaskId) -> impl Iterator<Item = (&'b TaskId, &'b Task)> {
        let first = TaskId { container: None, incarnation: 0, ..task.clone() };
        let of_instance = self.tasks.range(first..).take_while(|(other, _)| other.instance == task.instance);
        of_instance.filter(|(other, _)| other.incarnation == task.incarnation)
    }

    fn unmount(&mut self, at: usize, name: &BrickName) {
        if let Some(brick) = self.agents[at].bricks.get_mut(name)
            && let Some(epoch) = brick.mounted.take()
        {
            self.note(|| format!("agent-{at} unmounts {name} of lease {epoch}"));
        }
        if let Some(nodes) = self.mounts.get_mut(name) {
            nodes.remove(&at);
        }
    }

    pub(super) fn release_brick(&mut self, at: usize, name: BrickName, epoch: u64, task: TaskId) {
        if !self.agents[at].is_on() {
            return;
        }
        let stuck = self.now < self.agents[at].stuck_until;
        let brick = self.agents[at].bricks.entry(name.clone()).or_default();
        brick.seen = brick.seen.max(epoch);
        if brick.mounted.is_some_and(|mounted| mounted <= epoch) {
            let in_use = self.launched_with(&task).any(|(_, task)| task.alive());
            if stuck || in_use {
                if self.agents[at].rng.chance(100) {
                    let reason = if stuck { "the device is busy" } else { "the container runs" };
                    self.report(BrickReport::Stuck { brick: name.clone(), reason: reason.into() });
                }
                self.retry_release(at, name, epoch, task);
                return;
            }
            self.unmount(at, &name);
        }
        let brick = self.agents[at].bricks.get_mut(&name).expect("made above");
        brick.ended = brick.ended.max(epoch);
        let agent = self.agents[at].id.clone();
        if self.agents[at].reachable() {
            self.report(BrickReport::Released { brick: name, epoch, agent });
        }
    }

    /// One look a time, however often it is asked for.
    fn retry_release(&mut self, at: usize, name: BrickName, epoch: u64, task: TaskId) {
        let retry_at = self.now + BRICK_RETRY_MS;
        let brick = self.agents[at].bricks.entry(name.clone()).or_default();
        if brick.retry_at <= self.now {
            brick.retry_at = retry_at;
            self.after(BRICK_RETRY_MS, What::BrickRetry { agent: at, brick: name, epoch, task });
        }
    }

    fn destroy_brick(&mut self, at: usize, name: &BrickName, epoch: u64) {
        let brick = self.agents[at].bricks.entry(name.clone()).or_default();
        if brick.mounted.is_some_and(|mounted| mounted <= epoch) {
            self.report(BrickReport::Stuck { brick: name.clone(), reason: "it is mounted".into() });
            return;
        }
        let later = brick.seen > epoch;
        brick.ended = brick.ended.max(epoch);
        if !later {
            self.note(|| format!("agent-{at} destroys {name}"));
            self.check_destroy(at, name);
            if self.data.get(name) == Some(&at) {
                self.data.remove(name);
            }
        }
        self.report(BrickReport::Destroyed { brick: name.clone(), epoch });
    }
}
