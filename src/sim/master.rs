//! The master: who is registered, what is offered, where calls go. Behaves as Mesos 1.11 does with a PARTITION_AWARE framework; what the embedded
//! engine does is a part of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    agent::{AgentMessage, Phase, Task},
    placement::LOCAL_REGION,
    trace::short,
    world::{What, World},
};
use crate::model::{
    cluster::{BrickReport, ClusterCall, ClusterEvent, Launch, Offer, Reason, TaskRef, TaskState, TaskStatus},
    id::{AgentId, BrickName, OfferId, TaskId},
    resources::{PortRange, Resources, Scalar},
};

/// Between two rounds of offers.
const ALLOCATION_MS: u64 = 500;

/// An offer without an answer is taken back after this long (Mesos: `--offer_timeout`).
const OFFER_TIMEOUT_MS: u64 = 60_000;

/// How long an offer that is void is remembered, to judge late uses of it.
const OFFER_MEMORY_MS: u64 = 300_000;

/// The master and what it remembers; what it remembers of tasks lies in [`Task`].
#[derive(Debug)]
pub struct Master {
    pub(super) up: bool,
    suppressed: bool,
    offers: BTreeMap<OfferId, (usize, Pools)>,
    /// Every offer as it was shown, for the invariants, and whether the server has answered it.
    pub(super) shown: BTreeMap<OfferId, (Offer, bool)>,
    offerable: BTreeSet<usize>,
    filters: Vec<Option<(u64, Pools)>>,
    allocating: bool,
}

/// What a node has, or has left: for everybody, and for one role.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pools {
    /// Role `*`.
    pub common: Resources,
    /// Role [`GROUP_ROLE`](super::workload::GROUP_ROLE).
    pub reserved: Resources,
}

impl Pools {
    /// What a launch takes of each.
    pub(super) fn of(launch: &Launch) -> Self {
        let reserved = launch.reserved.as_ref().map_or_else(Resources::default, |reserved| reserved.resources.clone());
        let mut common = launch.taken();
        common.take_scalars(&reserved);
        common.ports.retain(|range| !reserved.ports.contains(range));
        Self { common, reserved }
    }

    pub(super) fn give(&mut self, more: &Self) {
        give(&mut self.common, &more.common);
        give(&mut self.reserved, &more.reserved);
    }

    fn take(&mut self, wanted: &Self) {
        self.common.draw(&wanted.common);
        self.reserved.draw(&wanted.reserved);
    }

    fn exceeds(&self, refused: &Self) -> bool {
        exceeds(&self.common, &refused.common) || exceeds(&self.reserved, &refused.reserved)
    }

    /// Less than Mesos offers.
    fn is_little(&self) -> bool {
        let little = |pool: &Resources| pool.cpus < Scalar(10) || pool.mem < Scalar::whole(1);
        little(&self.common) && little(&self.reserved)
    }
}

impl Master {
    pub(super) fn new(agents: usize) -> Self {
        Self {
            up: true,
            suppressed: false,
            offers: BTreeMap::new(),
            shown: BTreeMap::new(),
            offerable: (0..agents).collect(),
            filters: vec![None; agents],
            allocating: false,
        }
    }

    pub(super) fn forget_offer(&mut self, offer: &OfferId) {
        self.shown.remove(offer);
    }
}

impl World<'_> {
    /// The server's session begins: old offers, filters and suppression are void.
    pub(super) fn subscribe(&mut self) {
        self.void_offers();
        self.master.suppressed = false;
        self.master.filters.iter_mut().for_each(|filter| *filter = None);
        self.master.offerable = (0..self.agents.len()).collect();
        self.send_event(ClusterEvent::Connected {
            framework_id: "framework-1".into(),
            master: "master:5050".into(),
            region: Some(LOCAL_REGION.into()),
        });
        self.wake_allocator();
    }

    pub(super) fn failover(&mut self, ms: u64) {
        self.break_session("the master is gone");
        self.void_offers();
        self.master.up = false;
        for at in 0..self.agents.len() {
            self.agents[at].registered = false;
        }
        self.after(ms, What::MasterUp);
    }

    pub(super) fn master_up(&mut self) {
        if self.master.up {
            return;
        }
        self.note(|| "a master is up".into());
        self.master.up = true;
        for agent in 0..self.agents.len() {
            let token = self.agents[agent].next_token();
            if self.agents[agent].reachable() {
                let ms = self.rng_master.within(1, 10_000);
                self.after(ms, What::Reregister { agent, token });
            } else {
                self.after(75_000, What::PingTimeout { agent, token });
            }
        }
        self.after(50, What::Connect);
    }

    /// Puts a node among those that may have something to offer.
    pub(super) fn offerable(&mut self, agent: usize) {
        self.master.offerable.insert(agent);
        self.wake_allocator();
    }

    fn wake_allocator(&mut self) {
        if !self.master.allocating {
            self.master.allocating = true;
            self.after(ALLOCATION_MS, What::Allocate);
        }
    }

    pub(super) fn allocate(&mut self) {
        self.master.allocating = false;
        if !self.link.up || !self.master.up || self.master.suppressed {
            return;
        }
        let candidates = std::mem::take(&mut self.master.offerable);
        let offers: Vec<Offer> = candidates.into_iter().filter_map(|agent| self.offer_of(agent)).collect();
        if offers.is_empty() {
            return;
        }
        for offer in &offers {
            self.master.shown.insert(offer.id.clone(), (offer.clone(), false));
            self.after(OFFER_TIMEOUT_MS, What::OfferTimeout(offer.id.clone()));
        }
        self.send_event(ClusterEvent::Offers(offers));
    }

    fn offer_of(&mut self, at: usize) -> Option<Offer> {
        let id = OfferId::new(format!("offer-{}", self.next_id + 1));
        let agent = &mut self.agents[at];
        if !agent.registered || agent.unreachable || agent.free.is_little() {
            return None;
        }
        if let Some((until, refused)) = &self.master.filters[at]
            && self.now < *until
            && !agent.free.exceeds(refused)
        {
            return None;
        }
        let pools = std::mem::take(&mut agent.free);
        let offer = agent.offer(id.clone(), pools.clone());
        self.fresh();
        self.master.filters[at] = None;
        self.master.offers.insert(id, (at, pools));
        Some(offer)
    }

    /// Takes an offer back, if it is still out.
    pub(super) fn rescind(&mut self, offer: &OfferId) {
        let Some((agent, pools)) = self.master.offers.remove(offer) else { return };
        self.agents[agent].free.give(&pools);
        self.after(OFFER_MEMORY_MS, What::OfferForgotten(offer.clone()));
        self.send_event(ClusterEvent::Rescinded(offer.clone()));
        self.offerable(agent);
    }

    pub(super) fn rescind_all(&mut self) {
        let all: Vec<OfferId> = self.master.offers.keys().cloned().collect();
        all.iter().for_each(|offer| self.rescind(offer));
    }

    /// Rescinds the offers of one node.
    pub(super) fn rescind_of(&mut self, agent: usize) {
        let of: Vec<OfferId> = self.master.offers.iter().filter(|(_, (at, _))| *at == agent).map(|(id, _)| id.clone()).collect();
        of.iter().for_each(|offer| self.rescind(offer));
    }

    /// Forgets every offer without a word: the session in which they were made is over.
    pub(super) fn void_offers(&mut self) {
        for (id, (agent, pools)) in std::mem::take(&mut self.master.offers) {
            self.agents[agent].free.give(&pools);
            self.master.offerable.insert(agent);
            self.after(OFFER_MEMORY_MS, What::OfferForgotten(id));
        }
    }

    pub(super) fn on_call(&mut self, session: u64, call: ClusterCall) {
        if session != self.link.session || !self.master.up {
            return;
        }
        match call {
            ClusterCall::Accept { offer, launches } => self.accept(&offer, launches),
            ClusterCall::Decline { offers, refuse_ms } => offers.iter().for_each(|offer| self.decline(offer, refuse_ms)),
            ClusterCall::Revive => {
                self.master.suppressed = false;
                self.master.filters.iter_mut().for_each(|filter| *filter = None);
                self.master.offerable.extend(0..self.agents.len());
                self.wake_allocator();
            }
            ClusterCall::Suppress => self.master.suppressed = true,
            ClusterCall::Kill { task, agent, grace_ms } => self.route_kill(task, agent, grace_ms),
            ClusterCall::Acknowledge { task, uuid, .. } => self.on_acknowledge(&task, uuid),
            ClusterCall::Reconcile { tasks, others } => self.reconcile(&tasks, others),
            ClusterCall::ReleaseBrick { brick, epoch, agent, task } => {
                if let Some(at) = self.agent_at(agent.as_str()) {
                    self.order(at, AgentMessage::ReleaseBrick { brick, epoch, task });
                }
            }
            ClusterCall::DestroyBrick { brick, epoch, agent, .. } => self.route_destroy(brick, epoch, agent),
            ClusterCall::Teardown => self.violate("teardown", || "nobody asked for a teardown".into()),
        }
    }

    fn decline(&mut self, offer: &OfferId, refuse_ms: u64) {
        let Some((agent, pools)) = self.master.offers.remove(offer) else { return };
        self.after(OFFER_MEMORY_MS, What::OfferForgotten(offer.clone()));
        self.agents[agent].free.give(&pools);
        if refuse_ms > 0 {
            self.master.filters[agent] = Some((self.now + refuse_ms, pools));
            self.after(refuse_ms, What::FilterEnds(agent));
        }
        self.offerable(agent);
    }

    fn accept(&mut self, offer: &OfferId, launches: Vec<Launch>) {
        let Some((at, mut pools)) = self.master.offers.remove(offer) else {
            for launch in launches.iter().filter(|launch| !self.ever.contains(&launch.task)).collect::<Vec<_>>() {
                self.note(|| format!("master: {} is dropped, its offer is void", short(&launch.task)));
                self.master_says(launch.task.clone(), Some(launch.agent.clone()), TaskState::Dropped, Reason::Other);
            }
            return;
        };
        self.after(OFFER_MEMORY_MS, What::OfferForgotten(offer.clone()));
        for launch in launches {
            pools.take(&Pools::of(&launch));
            self.stats.launches += 1;
            self.stats.parts += u64::from(launch.pod.is_some());
            self.ever.insert(launch.task.clone());
            let launch = Arc::new(launch);
            self.tasks.insert(launch.task.clone(), Task::new(launch.clone(), at));
            self.agents[at].tasks.insert(launch.task.clone());
            self.order(at, AgentMessage::Run(launch));
        }
        self.agents[at].free.give(&pools);
        self.offerable(at);
    }

    fn route_kill(&mut self, task: TaskId, agent: Option<AgentId>, grace_ms: Option<u64>) {
        match self.tasks.get(&task) {
            Some(known) if self.agents[known.agent].registered && !self.agents[known.agent].unreachable => {
                let at = known.agent;
                self.order(at, AgentMessage::Kill { task, grace_ms });
            }
            _ => self.reconcile_one(&TaskRef { task, agent }),
        }
    }

    fn reconcile(&mut self, asked: &[TaskRef], others: bool) {
        asked.iter().for_each(|one| self.reconcile_one(one));
        if !others {
            return;
        }
        let named: BTreeSet<&TaskId> = asked.iter().map(|one| &one.task).collect();
        let others: Vec<TaskRef> = self
            .tasks
            .iter()
            // Implicit reconciliation says nothing of tasks on unreachable nodes.
            .filter(|(id, task)| !named.contains(id) && !self.agents[task.agent].unreachable)
            .map(|(id, task)| TaskRef { task: id.clone(), agent: Some(self.agents[task.agent].id.clone()) })
            .collect();
        others.iter().for_each(|one| self.reconcile_one(one));
    }

    fn reconcile_one(&mut self, asked: &TaskRef) {
        let answer = match self.tasks.get(&asked.task) {
            Some(task) => {
                let agent = &self.agents[task.agent];
                let id = Some(agent.id.clone());
                match (agent.unreachable, agent.registered) {
                    (true, _) => Some((id, TaskState::Unreachable)),
                    (false, true) => Some((id, task.known)),
                    // A master that has just come says nothing of nodes that have not registered with it yet.
                    (false, false) => None,
                }
            }
            None => match asked.agent.as_ref().and_then(|agent| self.agent_at(agent.as_str())) {
                Some(at) if self.agents[at].unreachable => Some((asked.agent.clone(), TaskState::Unreachable)),
                Some(at) if self.agents[at].registered => Some((asked.agent.clone(), TaskState::Gone)),
                Some(_) => None,
                None => Some((None, TaskState::Unknown)),
            },
        };
        if let Some((agent, state)) = answer {
            self.master_says(asked.task.clone(), agent, state, Reason::Reconciliation);
        }
    }

    fn route_destroy(&mut self, brick: BrickName, epoch: u64, agent: Option<AgentId>) {
        match agent.as_ref().and_then(|agent| self.agent_at(agent.as_str())) {
            Some(at) => self.order(at, AgentMessage::DestroyBrick { brick, epoch }),
            None => self.report(BrickReport::Destroyed { brick, epoch }),
        }
    }

    /// A status that the master makes up itself: not repeated.
    pub(super) fn master_says(&mut self, task: TaskId, agent: Option<AgentId>, state: TaskState, reason: Reason) {
        let status = TaskStatus {
            task,
            agent,
            state,
            reason,
            message: String::new(),
            timestamp: self.wall(),
            uuid: None,
            healthy: None,
            addresses: Vec::new(),
        };
        self.send_event(ClusterEvent::Status(status));
    }

    /// The master learns that a task has ended: its resources are free again.
    pub(super) fn free_resources(&mut self, task: &TaskId) {
        let Some(known) = self.tasks.get_mut(task) else { return };
        if std::mem::replace(&mut known.freed, true) {
            return;
        }
        let (agent, launch) = (known.agent, known.launch.clone());
        self.agents[agent].free.give(&Pools::of(&launch));
        self.offerable(agent);
    }

    /// A node has answered no ping for too long.
    pub(super) fn ping_timeout(&mut self, at: usize, token: u64) {
        let agent = &mut self.agents[at];
        if agent.token != token || agent.reachable() || agent.unreachable || !self.master.up {
            return;
        }
        agent.unreachable = true;
        agent.registered = false;
        let id = agent.id.clone();
        self.note(|| format!("master: {id} is unreachable"));
        self.rescind_of(at);
        for task in self.agents[at].tasks.iter().cloned().collect::<Vec<_>>() {
            let known = self.tasks.get_mut(&task).expect("a node's tasks are among all tasks");
            if !known.freed {
                known.known = TaskState::Unreachable;
                self.master_says(task, Some(id.clone()), TaskState::Unreachable, Reason::AgentRemoved);
            }
        }
        self.send_event(ClusterEvent::AgentLost(id));
    }

    /// A node registers (again) and says what it runs.
    pub(super) fn reregister(&mut self, at: usize, token: u64) {
        let agent = &mut self.agents[at];
        if agent.token != token || !agent.reachable() || !self.master.up {
            return;
        }
        agent.registered = true;
        let was_lost = std::mem::take(&mut agent.unreachable);
        let id = agent.id.clone();
        self.note(|| format!("master: {id} is registered"));
        for task in self.agents[at].tasks.iter().cloned().collect::<Vec<_>>() {
            self.register_task(&task, was_lost);
        }
        self.offerable(at);
    }

    fn register_task(&mut self, id: &TaskId, was_lost: bool) {
        let task = self.tasks.get_mut(id).expect("a node's tasks are among all tasks");
        let agent = self.agents[task.agent].id.clone();
        if task.phase == Phase::Coming || task.forgotten {
            // The node does not know it. What is still on its way was sent on a connection that is gone.
            let state = if task.forgotten { TaskState::Gone } else { TaskState::Dropped };
            self.free_resources(id);
            self.drop_task(id);
            self.master_says(id.clone(), Some(agent), state, Reason::Other);
            return;
        }
        task.known = task.real();
        if was_lost && task.alive() {
            let state = task.known;
            self.master_says(id.clone(), Some(agent), state, Reason::Other);
        }
        if self.tasks[id].known_ended() {
            self.free_resources(id);
        }
        self.forward(id);
    }
}

/// Adds `more` to `free`; port ranges stay in order, apart and joined where they touch.
pub fn give(free: &mut Resources, more: &Resources) {
    free.cpus = free.cpus.plus(more.cpus);
    free.mem = free.mem.plus(more.mem);
    free.disk = free.disk.plus(more.disk);
    free.gpus += more.gpus;
    free.ports.extend(&more.ports);
    free.ports.sort_unstable();
    let mut joined: Vec<PortRange> = Vec::with_capacity(free.ports.len());
    for range in &free.ports {
        match joined.last_mut() {
            Some(last) if u32::from(last.end) + 1 >= u32::from(range.begin) => last.end = last.end.max(range.end),
            _ => joined.push(*range),
        }
    }
    free.ports = joined;
}

fn exceeds(free: &Resources, refused: &Resources) -> bool {
    let ports = |of: &Resources| of.ports.iter().map(|range| range.count()).sum::<usize>();
    free.cpus > refused.cpus
        || free.mem > refused.mem
        || free.disk > refused.disk
        || free.gpus > refused.gpus
        || ports(free) > ports(refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_back_joins_what_is_free() {
        let ports = |ranges: &[(u16, u16)]| ranges.iter().map(|&(begin, end)| PortRange::new(begin, end)).collect::<Vec<_>>();
        let mut free = Resources { cpus: Scalar(500), ports: ports(&[(1, 2), (5, 9)]), ..Resources::default() };
        give(&mut free, &Resources { cpus: Scalar(250), ports: ports(&[(3, 3), (10, 10), (20, 21)]), ..Resources::default() });
        assert_eq!(free, Resources { cpus: Scalar(750), ports: ports(&[(1, 3), (5, 10), (20, 21)]), ..Resources::default() });
    }
}
