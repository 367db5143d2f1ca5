//! A cluster in which everything succeeds at once, for the real server: what it costs to show and change very many apps is measured with it.
//!
//! It believes what it is told. A task that is asked after runs where it was last known; a task that is launched runs; one that is killed is gone.
//! Launches go to nodes of its own, each with as many ports as an agent of Mesos has.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use tokio::sync::{mpsc, watch};
use uuid::Uuid;

use crate::model::{
    cluster::{BrickReport, ClusterCall, ClusterEvent, Launch, Offer, Reason, TaskState, TaskStatus},
    id::{AgentId, OfferId, TaskId},
    resources::{PortRange, Resources, Scalar},
    time::Timestamp,
};

/// The ports of a node.
const PORTS: std::ops::RangeInclusive<u16> = 31_000..=32_000;
/// Nodes that take launches.
const NODES: usize = 100;

struct Obedient {
    events: mpsc::Sender<ClusterEvent>,
    /// By node: the ports that are left.
    free: Vec<BTreeSet<u16>>,
    /// Offers so far; each has an id of its own.
    offers: u64,
    suppressed: bool,
}

/// Runs the cluster until `stopping` turns true or the driver is gone.
pub async fn run(mut calls: mpsc::Receiver<ClusterCall>, events: mpsc::Sender<ClusterEvent>, mut stopping: watch::Receiver<bool>) {
    let mut cluster = Obedient { events, free: vec![PORTS.collect(); NODES], offers: 0, suppressed: false };
    let connected = ClusterEvent::Connected { framework_id: "simulated".into(), master: "simulated".into(), region: None };
    cluster.tell(connected).await;
    while !*stopping.borrow() {
        let call = tokio::select! {
            // An error means that whoever could say so is gone.
            told = stopping.changed() => if told.is_ok() { continue } else { return },
            call = calls.recv() => call,
        };
        match call {
            Some(call) => cluster.obey(call).await,
            None => return,
        }
    }
}

impl Obedient {
    async fn obey(&mut self, call: ClusterCall) {
        match call {
            ClusterCall::Accept { launches, .. } => {
                for launch in launches {
                    self.launch(launch).await;
                }
                if !self.suppressed {
                    self.offer().await;
                }
            }
            ClusterCall::Revive => {
                self.suppressed = false;
                self.offer().await;
            }
            ClusterCall::Suppress => self.suppressed = true,
            ClusterCall::Kill { task, agent, .. } => self.status(task, agent, TaskState::Killed).await,
            ClusterCall::Reconcile { tasks, .. } => {
                for known in tasks {
                    self.status(known.task, known.agent, TaskState::Running).await;
                }
            }
            ClusterCall::ReleaseBrick { brick, epoch, agent, .. } => {
                self.tell(ClusterEvent::Brick(BrickReport::Released { brick, epoch, agent })).await;
            }
            ClusterCall::DestroyBrick { brick, epoch, .. } => {
                self.tell(ClusterEvent::Brick(BrickReport::Destroyed { brick, epoch })).await;
            }
            ClusterCall::Decline { .. } | ClusterCall::Acknowledge { .. } | ClusterCall::Teardown => {}
        }
    }

    async fn launch(&mut self, launch: Launch) {
        let node = (0..NODES).find(|at| agent(*at) == launch.agent);
        if let Some(free) = node.and_then(|at| self.free.get_mut(at)) {
            free.retain(|port| !launch.ports.contains(port));
        }
        self.status(launch.task, Some(launch.agent), TaskState::Running).await;
    }

    async fn status(&mut self, task: TaskId, agent: Option<AgentId>, state: TaskState) {
        let status = TaskStatus {
            task,
            agent,
            state,
            reason: Reason::Other,
            message: String::new(),
            timestamp: now(),
            uuid: Some(Uuid::new_v4()),
            healthy: None,
            addresses: vec![[10, 0, 0, 1].into()],
        };
        self.tell(ClusterEvent::Status(status)).await;
    }

    /// Everything that is left of every node.
    async fn offer(&mut self) {
        self.offers += 1;
        let round = self.offers;
        let offers = self.free.iter().enumerate().map(|(at, free)| Offer {
            id: OfferId::new(format!("offer-{round}-{at}")),
            agent: agent(at),
            host: Arc::from(format!("spare{at}")),
            addresses: vec![[10, 1, 0, u8::try_from(at).unwrap_or(u8::MAX)].into()],
            resources: Resources {
                cpus: Scalar::whole(1_000),
                mem: Scalar::whole(1_000_000),
                disk: Scalar::whole(1_000_000),
                gpus: 0,
                ports: ranges(free),
            },
            attributes: Vec::new(),
            reserved: Vec::new(),
            region: None,
            zone: None,
        });
        let offers = offers.collect();
        self.tell(ClusterEvent::Offers(offers)).await;
    }

    async fn tell(&mut self, event: ClusterEvent) {
        // Without a driver there is nobody to tell; the loop ends with its next call.
        _ = self.events.send(event).await;
    }
}

fn agent(at: usize) -> AgentId {
    AgentId::new(format!("spare-{at}"))
}

/// Ports in order, as ranges.
fn ranges(ports: &BTreeSet<u16>) -> Vec<PortRange> {
    let mut ranges: Vec<PortRange> = Vec::new();
    for port in ports {
        match ranges.last_mut() {
            Some(last) if last.end.checked_add(1) == Some(*port) => last.end = *port,
            _ => ranges.push(PortRange::new(*port, *port)),
        }
    }
    ranges
}

fn now() -> Timestamp {
    Timestamp(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{cluster::TaskRef, id::InstanceId};

    #[test]
    fn ports_are_told_as_ranges() {
        let check = |ports: &[u16], expected: &[(u16, u16)]| {
            let found: Vec<(u16, u16)> = ranges(&ports.iter().copied().collect()).iter().map(|range| (range.begin, range.end)).collect();
            assert_eq!(found, expected);
        };
        check(&[], &[]);
        check(&[5], &[(5, 5)]);
        check(&[5, 6, 8, 65_534, 65_535], &[(5, 6), (8, 8), (65_534, 65_535)]);
    }

    #[tokio::test]
    async fn it_does_what_it_is_told() {
        let (call, calls) = mpsc::channel(8);
        let (sender, mut events) = mpsc::channel(8);
        let (stop, stopping) = watch::channel(false);
        let cluster = tokio::spawn(run(calls, sender, stopping));
        assert!(matches!(events.recv().await, Some(ClusterEvent::Connected { .. })));
        call.send(ClusterCall::Revive).await.unwrap();
        let Some(ClusterEvent::Offers(offers)) = events.recv().await else { panic!("no offers") };
        assert_eq!((offers.len(), offers[0].resources.ports.clone()), (NODES, vec![PortRange::new(31_000, 32_000)]));
        let task = TaskId::app(InstanceId::new("/web".parse().unwrap(), Uuid::nil()), 1);
        let known = TaskRef { task: task.clone(), agent: Some(AgentId::new("agent-7")) };
        call.send(ClusterCall::Reconcile { tasks: vec![known], others: true }).await.unwrap();
        call.send(ClusterCall::Kill { task: task.clone(), agent: None, grace_ms: None }).await.unwrap();
        for expected in [TaskState::Running, TaskState::Killed] {
            let Some(ClusterEvent::Status(status)) = events.recv().await else { panic!("no status") };
            assert_eq!((status.task, status.state), (task.clone(), expected));
        }
        stop.send_replace(true);
        cluster.await.unwrap();
    }
}
