//! An instance: the durable record of one copy of an app, from wanted to forgotten.

use std::{net::IpAddr, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{
    health::CheckState,
    id::{AgentId, InstanceId, PathId, TaskId},
    time::Timestamp,
};

/// How far an instance is, in Marathon's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names are Marathon's; the table in core says how one follows another")]
pub enum Condition {
    Scheduled,
    Provisioned,
    Staging,
    Starting,
    Running,
    Finished,
    Failed,
    Killed,
    Killing,
    Error,
    Dropped,
    Gone,
    Unknown,
    Unreachable,
    UnreachableInactive,
}

impl Condition {
    /// Every condition, in the order of the enum.
    pub const ALL: [Self; 15] = [
        Self::Scheduled,
        Self::Provisioned,
        Self::Staging,
        Self::Starting,
        Self::Running,
        Self::Finished,
        Self::Failed,
        Self::Killed,
        Self::Killing,
        Self::Error,
        Self::Dropped,
        Self::Gone,
        Self::Unknown,
        Self::Unreachable,
        Self::UnreachableInactive,
    ];

    /// True when no process of this incarnation can exist any more.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Finished | Self::Failed | Self::Killed | Self::Error | Self::Dropped | Self::Gone)
    }

    /// True when a process exists or may exist: it holds its resources, ports and bricks.
    pub fn is_live(self) -> bool {
        !self.is_terminal() && self != Self::Scheduled
    }

    /// Marathon's text (`UnreachableInactive` and so on).
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Scheduled => "Scheduled",
            Self::Provisioned => "Provisioned",
            Self::Staging => "Staging",
            Self::Starting => "Starting",
            Self::Running => "Running",
            Self::Finished => "Finished",
            Self::Failed => "Failed",
            Self::Killed => "Killed",
            Self::Killing => "Killing",
            Self::Error => "Error",
            Self::Dropped => "Dropped",
            Self::Gone => "Gone",
            Self::Unknown => "Unknown",
            Self::Unreachable => "Unreachable",
            Self::UnreachableInactive => "UnreachableInactive",
        }
    }
}

/// What an instance is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Goal {
    /// It should run; when its task ends it is launched again.
    Running,
    /// Its task should end, its reservation stays.
    Stopped,
    /// Its task should end, and the instance is then forgotten.
    Decommissioned,
}

/// Where and with which ports the current incarnation was launched.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Placement {
    /// The node.
    pub agent: AgentId,
    /// The node's host name at launch.
    pub host: Arc<str>,
    /// One for each port definition, or for each mapping that has a host port, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<u16>,
}

/// One copy of an app. Kept small (about 250 bytes stored): it names its definition's version and does not repeat it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Instance {
    /// Its id, which names its app.
    pub id: InstanceId,
    /// The version of the definition that it was, or will be, launched with.
    pub version: Timestamp,
    /// Launches so far; 0 before the first.
    pub incarnation: u32,
    /// How far it is.
    pub condition: Condition,
    /// What it is for.
    pub goal: Goal,
    /// Since when in this condition.
    pub since: Timestamp,
    /// Set while the instance is live.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement: Option<Placement>,
    /// When the current incarnation was launched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub staged_at: Option<Timestamp>,
    /// When the current incarnation was first seen running.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// The task's own addresses (the container's in bridge mode, the node's in host mode).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<IpAddr>,
    /// What the last health results said; `None` without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthy: Option<bool>,
    /// What is known of each health check of the current incarnation, in the definition's order; empty before the first counted result.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<CheckState>,
    /// The current incarnation said during a deployment that it is ready.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ready: bool,
    /// Of a pod that was launched: its containers, in the definition's order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub containers: Vec<ContainerState>,
}

/// How far one container of a pod is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContainerState {
    /// How far.
    pub condition: Condition,
    /// When it was first seen running.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
}

impl Instance {
    /// True for one of a pod of which a node has said that a container is being ended, or has ended and takes the others along: it is not we alone who
    /// want its end.
    pub fn is_seen_to_end(&self) -> bool {
        let is_end = |condition: Condition| condition == Condition::Killing || condition.is_terminal() && condition != Condition::Finished;
        self.containers.iter().any(|container| is_end(container.condition))
    }

    /// The app.
    pub fn app(&self) -> &PathId {
        self.id.app()
    }

    /// The task of the current incarnation of an app.
    pub fn task(&self) -> TaskId {
        TaskId::app(self.id.clone(), self.incarnation)
    }
}

/// The last failure of an app's tasks, as Marathon's `lastTaskFailure`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskFailure {
    /// The app.
    pub app: PathId,
    /// The task that failed.
    pub task: TaskId,
    /// `TASK_FAILED` and so on.
    pub state: super::cluster::TaskState,
    /// Cut to [`MAX_FAILURE_MESSAGE_BYTES`].
    pub message: String,
    /// The node's host name.
    pub host: String,
    /// The node.
    pub agent: AgentId,
    /// When it was reported.
    pub timestamp: Timestamp,
    /// The definition that it ran.
    pub version: Timestamp,
}

/// Marathon cuts the message of a status to this length.
pub const MAX_FAILURE_MESSAGE_BYTES: usize = 10_000;
