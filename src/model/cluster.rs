//! The seam to whoever runs the tasks: what it tells us and what we ask of it. Shaped like Mesos' scheduler API, without its encodings.
//!
//! Three sides speak it: the embedded Docker engine, the simulator, and (a translation of) real Mesos.

use std::{net::IpAddr, sync::Arc};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    agent::Attribute,
    app::{App, Mode},
    brick::BrickMount,
    environment::{Place, environment, pod_environment},
    health::CheckReport,
    id::{AgentId, BrickName, OfferId, Owner, TaskId},
    pod::{PodContainer, VolumeMount},
    resources::{PortRange, Reserved, Resources},
    time::Timestamp,
};

/// What the cluster tells us. Any of it may come late, twice, or out of order between nodes; statuses of one task come in order.
#[derive(Clone, Debug, PartialEq)]
pub enum ClusterEvent {
    /// The session stands; offers follow. The scheduler answers with `Reconcile`.
    Connected {
        /// The id under which we are known.
        framework_id: String,
        /// Whom we are connected to, `host:port` or the engine's name.
        master: String,
        /// The master's region, if it has one: nodes of other regions are used only by what asks for a region or a zone.
        region: Option<String>,
    },
    /// The session is gone; what was offered is void.
    Disconnected {
        /// For the log and the event stream.
        reason: String,
    },
    /// Resources that may be used until accepted, declined or rescinded.
    Offers(Vec<Offer>),
    /// An offer is void.
    Rescinded(OfferId),
    /// A task's state. One with a `uuid` is repeated until it is acknowledged.
    Status(TaskStatus),
    /// A node is lost for good or for now; offers of it are void. The states of its tasks come as statuses.
    AgentLost(AgentId),
    /// What a node says of a brick.
    Brick(BrickReport),
    /// What checks of tasks found, in the order in which they ended.
    Checked(Vec<CheckReport>),
}

/// What we ask of the cluster. Each may be lost and is repeated as long as the state calls for it.
#[derive(Clone, Debug, PartialEq)]
pub enum ClusterCall {
    /// Launches on one offer; what it leaves is offered again.
    Accept {
        /// The offer.
        offer: OfferId,
        /// At least one.
        launches: Vec<Launch>,
    },
    /// Nothing for these offers now.
    Decline {
        /// The offers.
        offers: Vec<OfferId>,
        /// The same resources are not offered again for this long; 0: the engine may offer at once.
        refuse_ms: u64,
    },
    /// Offers are wanted again; earlier refusals are void.
    Revive,
    /// No offers are wanted until the next revive.
    Suppress,
    /// The task should end.
    Kill {
        /// The task.
        task: TaskId,
        /// Where it was launched, when known.
        agent: Option<AgentId>,
        /// Milliseconds between SIGTERM and SIGKILL; `None`: the engine's default.
        grace_ms: Option<u64>,
    },
    /// The status is durable; it need not be repeated.
    Acknowledge {
        /// The task.
        task: TaskId,
        /// Who sent the status.
        agent: AgentId,
        /// The status.
        uuid: Uuid,
    },
    /// Tell the state of these tasks. A task that is unknown on a known node is answered with `Gone`, one of an unknown node with `Unknown`.
    Reconcile {
        /// The tasks.
        tasks: Vec<TaskRef>,
        /// Tell also the state of every other task of ours that you know.
        others: bool,
    },
    /// Unmount the brick, if this lease has it mounted, once the holder's container is gone; answer with [`BrickReport::Released`].
    ReleaseBrick {
        /// The brick.
        brick: BrickName,
        /// The lease that ends.
        epoch: u64,
        /// The node of the lease.
        agent: AgentId,
        /// The holder; its container, or all those of the pod's instance, must be gone before the unmount.
        task: TaskId,
    },
    /// Delete the brick's data; answer with [`BrickReport::Destroyed`].
    DestroyBrick {
        /// The brick.
        brick: BrickName,
        /// The last lease that it had; a node that has seen a later one keeps the data.
        epoch: u64,
        /// Its pool.
        pool: super::id::PoolName,
        /// The node that has it; `None`: it was never made, or any node can.
        agent: Option<AgentId>,
    },
    /// The end of the framework: every task of ours is killed.
    Teardown,
}

/// A task and the node where it was last known, for reconciliation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskRef {
    /// The task.
    pub task: TaskId,
    /// Where it was launched.
    pub agent: Option<AgentId>,
}

/// Resources of one node.
#[derive(Clone, Debug, PartialEq)]
pub struct Offer {
    /// Its id.
    pub id: OfferId,
    /// The node.
    pub agent: AgentId,
    /// The node's host name.
    pub host: Arc<str>,
    /// The node's addresses, the preferred one first.
    pub addresses: Vec<IpAddr>,
    /// What is free for everybody (role `*`).
    pub resources: Resources,
    /// What is free for one role only; each role once.
    pub reserved: Vec<Reserved>,
    /// For constraints.
    pub attributes: Vec<Attribute>,
    /// The node's region, if it has one.
    pub region: Option<String>,
    /// The node's zone, if it has one.
    pub zone: Option<String>,
}

/// One task to launch, complete: whoever launches it decides nothing any more.
#[derive(Clone, Debug, PartialEq)]
pub struct Launch {
    /// The task.
    pub task: TaskId,
    /// The node; the offer's.
    pub agent: AgentId,
    /// The node's host name.
    pub host: Arc<str>,
    /// The definition, for image, command, volumes, networks and limits.
    pub app: Arc<App>,
    /// Whose app it is.
    pub owner: Owner,
    /// The owner is an administrator, who may be told what others do on the node.
    pub owner_is_admin: bool,
    /// The user whose account on the node must be allowed what the host volumes ask for, and for whom its external volumes must have been made; `None`:
    /// nobody is asked.
    pub account: Option<Owner>,
    /// All that it takes.
    pub resources: Resources,
    /// The part of it, and of what it stands for in a pod ([`Launch::overhead`]), that comes out of what is reserved for its role.
    pub reserved: Option<Reserved>,
    /// Which of its node's GPUs it has, by number. As in Mesos the node chooses: none until it has.
    pub gpus: Vec<u32>,
    /// The host port of each port definition, or of each mapping that has one, in order.
    pub ports: Vec<u16>,
    /// The container's port for each mapping, in order (a declared 0 is filled in).
    pub container_ports: Vec<u16>,
    /// The top-level group that the app is in prescribes its role; the task is told.
    pub enforce_role: bool,
    /// Added in front of the names of HOST and PORT variables.
    pub env_vars_prefix: Option<Arc<str>>,
    /// The numbers behind `@PORT` (0), `@PORT1` (1) ... of the environment, by index.
    pub allotted: Vec<(u16, u16)>,
    /// What to mount before the container starts.
    pub bricks: Vec<BrickMount>,
    /// Set for a container of a pod: what it shares with the others. The rest is then about this container alone.
    pub pod: Option<Arc<PodLaunch>>,
}

/// One instance of a pod that is being launched.
#[derive(Clone, Debug, PartialEq)]
pub struct PodLaunch {
    /// The pod.
    pub app: Arc<App>,
    /// The host ports of all its endpoints that have one, in order.
    pub ports: Vec<u16>,
    /// The container's port of each of its endpoints, in order.
    pub container_ports: Vec<u16>,
}

impl Launch {
    /// The launch of a pod as one of each of its containers, in order.
    pub fn containers(self) -> Vec<Self> {
        let pod = Arc::new(PodLaunch { app: self.app.clone(), ports: self.ports.clone(), container_ports: self.container_ports.clone() });
        let Some(definition) = &self.app.pod else { return Vec::new() };
        let host_ports = self.app.host_ports_by_endpoint(&self.ports);
        let container = |(place, container): (usize, &PodContainer)| {
            let ports: Vec<u16> = definition.ports_of(place).filter_map(|at| *host_ports.get(at)?).collect();
            Some(Self {
                task: TaskId { container: Some(container.name.as_str().into()), ..self.task.clone() },
                app: self.app.as_container(place)?.into(),
                resources: Resources {
                    ports: ports.iter().map(|port| PortRange::new(*port, *port)).collect(),
                    ..container.amounts.resources()
                },
                ports,
                container_ports: Vec::new(),
                bricks: self.bricks_of(container),
                pod: Some(pod.clone()),
                reserved: None,
                ..self.clone()
            })
        };
        let mut launches: Vec<Self> = definition.containers.iter().enumerate().filter_map(container).collect();
        // What is reserved serves one container after the other, for as far as it goes.
        if let Some(Reserved { role, resources: mut left }) = self.reserved.clone() {
            for launch in &mut launches {
                let drawn = left.draw(&launch.taken());
                launch.reserved = (!drawn.is_empty()).then(|| Reserved { role: role.clone(), resources: drawn });
            }
        }
        launches
    }

    /// The bricks that a container of the pod mounts, each where it wants it.
    fn bricks_of(&self, container: &PodContainer) -> Vec<BrickMount> {
        let mounted = |mount: &VolumeMount| {
            let brick = self.bricks.iter().find(|brick| brick.container_path == mount.name)?;
            Some(BrickMount { container_path: mount.path(), read_only: mount.mode() == Mode::Ro, ..brick.clone() })
        };
        container.volume_mounts.iter().filter_map(mounted).collect()
    }

    /// All that is taken of the node's resources with it: its own, and what it stands for ([`Self::overhead`]).
    pub fn taken(&self) -> Resources {
        let mut taken = self.resources.clone();
        taken.add(&self.overhead());
        taken
    }

    /// What the pod takes besides its containers; the launch of its first container stands for it.
    pub fn overhead(&self) -> Resources {
        let pod = self.pod.as_ref().and_then(|pod| pod.app.pod.as_ref());
        let first = pod.filter(|pod| pod.containers.first().map(|first| first.name.as_str()) == self.task.container.as_deref());
        first.map(|pod| pod.executor.resources()).unwrap_or_default()
    }

    /// Everything the container's environment gets, with `@PORT` replaced; names are unique. Follows from the rest, and is made where it is needed.
    pub fn environment(&self) -> Vec<(String, String)> {
        let place = Place {
            task: &self.task,
            host: &self.host,
            ports: &self.ports,
            container_ports: &self.container_ports,
            enforce_role: self.enforce_role,
        };
        let allotted = |wanted| self.allotted.iter().find(|(index, _)| *index == wanted).map(|(_, port)| *port);
        let prefix = self.env_vars_prefix.as_deref();
        match &self.pod {
            Some(pod) => pod_environment(&self.app, pod, place, prefix, allotted),
            None => environment(&self.app, place, prefix, allotted),
        }
    }
}

/// Mesos' task states.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[expect(missing_docs, reason = "the names are Mesos'")]
pub enum TaskState {
    #[serde(rename = "TASK_STAGING")]
    Staging,
    #[serde(rename = "TASK_STARTING")]
    Starting,
    #[serde(rename = "TASK_RUNNING")]
    Running,
    #[serde(rename = "TASK_KILLING")]
    Killing,
    #[serde(rename = "TASK_FINISHED")]
    Finished,
    #[serde(rename = "TASK_FAILED")]
    Failed,
    #[serde(rename = "TASK_KILLED")]
    Killed,
    #[serde(rename = "TASK_ERROR")]
    Error,
    #[serde(rename = "TASK_LOST")]
    Lost,
    #[serde(rename = "TASK_DROPPED")]
    Dropped,
    #[serde(rename = "TASK_UNREACHABLE")]
    Unreachable,
    #[serde(rename = "TASK_GONE")]
    Gone,
    #[serde(rename = "TASK_GONE_BY_OPERATOR")]
    GoneByOperator,
    #[serde(rename = "TASK_UNKNOWN")]
    Unknown,
}

impl TaskState {
    /// Every state.
    pub const ALL: [Self; 14] = [
        Self::Staging,
        Self::Starting,
        Self::Running,
        Self::Killing,
        Self::Finished,
        Self::Failed,
        Self::Killed,
        Self::Error,
        Self::Lost,
        Self::Dropped,
        Self::Unreachable,
        Self::Gone,
        Self::GoneByOperator,
        Self::Unknown,
    ];

    /// `TASK_RUNNING` and so on.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Staging => "TASK_STAGING",
            Self::Starting => "TASK_STARTING",
            Self::Running => "TASK_RUNNING",
            Self::Killing => "TASK_KILLING",
            Self::Finished => "TASK_FINISHED",
            Self::Failed => "TASK_FAILED",
            Self::Killed => "TASK_KILLED",
            Self::Error => "TASK_ERROR",
            Self::Lost => "TASK_LOST",
            Self::Dropped => "TASK_DROPPED",
            Self::Unreachable => "TASK_UNREACHABLE",
            Self::Gone => "TASK_GONE",
            Self::GoneByOperator => "TASK_GONE_BY_OPERATOR",
            Self::Unknown => "TASK_UNKNOWN",
        }
    }
}

/// Why a status was sent, as far as it makes a difference.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reason {
    /// Any other.
    #[default]
    Other,
    /// The answer to `Reconcile`.
    Reconciliation,
    /// The node is not connected.
    AgentDisconnected,
    /// The node was removed.
    AgentRemoved,
    /// The node is being drained; costs no back-off.
    AgentDraining,
    /// The task was ended because it took more memory than its limit.
    MemoryLimit,
}

/// One report of a task's state.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskStatus {
    /// The task.
    pub task: TaskId,
    /// Who says so; `None` for what a master makes up itself.
    pub agent: Option<AgentId>,
    /// The state.
    pub state: TaskState,
    /// Why.
    pub reason: Reason,
    /// For people; at most 10,000 bytes.
    pub message: String,
    /// When it happened.
    pub timestamp: Timestamp,
    /// Set when it is repeated until acknowledged.
    pub uuid: Option<Uuid>,
    /// Health as the executor sees it.
    pub healthy: Option<bool>,
    /// The task's own addresses.
    pub addresses: Vec<IpAddr>,
}

/// What a node says of a brick.
#[derive(Clone, Debug, PartialEq)]
pub enum BrickReport {
    /// The lease's mount is gone: container ended, unmounted, loop or block device released. Also the answer when it never was mounted.
    Released {
        /// The brick.
        brick: BrickName,
        /// The lease that ended.
        epoch: u64,
        /// The node.
        agent: AgentId,
    },
    /// The data is deleted.
    Destroyed {
        /// The brick.
        brick: BrickName,
        /// As it was asked for.
        epoch: u64,
    },
    /// How full it is; not durable.
    Usage {
        /// The brick.
        brick: BrickName,
        /// MiB in use within the file system.
        used: u64,
        /// MiB that the file system has now.
        size: u64,
    },
    /// Releasing did not work yet; it is tried again. For the log, the event stream and `GET /v2/bricks`.
    Stuck {
        /// The brick.
        brick: BrickName,
        /// What is in the way.
        reason: String,
    },
}
