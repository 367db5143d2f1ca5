//! What is asked of nodes directly, beside the orchestration: a task's output, a command inside it, a brick's data, what the node is. One trait, so
//! that the API knows no engine: the server wires the embedded one, and a cluster of Mesos agents can be another.
//!
//! Whoever calls has found out that the asking user may reach the task or brick. Only who wants to use a task's rights on a node is checked there.

use std::{collections::BTreeMap, net::IpAddr, os::fd::OwnedFd};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::mpsc;

use crate::model::{
    frame::Frame,
    id::{AgentId, BrickName, Owner, TaskId},
    request::Asker,
    resources::Resources,
    time::Timestamp,
};

/// Pieces that wait between a node and a slow client, in each direction.
pub const MAX_WAITING_PIECES: usize = 16;

/// Why a node did not do it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NodeError {
    /// 404: there is no such thing any more.
    #[error("{0}")]
    Missing(String),
    /// 403: not for whoever asks.
    #[error("{0}")]
    Forbidden(String),
    /// 409: not in this state.
    #[error("{0}")]
    Conflict(String),
    /// 422: what was sent is not acceptable.
    #[error("{0}")]
    Unacceptable(String),
    /// 422: nothing of the kind is done here, and that is not the task's doing.
    #[error("{0}")]
    Impossible(String),
    /// 507: there is no room for it.
    #[error("{0}")]
    NoRoom(String),
    /// 503: not now.
    #[error("{0}")]
    Unavailable(String),
    /// 500: the node tried, and a system call or a tool failed.
    #[error("{0}")]
    Failed(String),
}

/// Which of a task's outputs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Output {
    /// `stdout`
    #[default]
    Stdout,
    /// `stderr`
    Stderr,
}

/// Which part of an output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogRange {
    /// Which output.
    pub output: Output,
    /// Only the last lines, so many; `None`: all that is kept.
    pub tail: Option<u64>,
    /// Files that were last written before this moment are left out.
    pub since: Option<Timestamp>,
}

/// An output being read, from one end to the other. Held open: it goes on over the replacement of files and after the removal of the sandbox.
#[async_trait]
pub trait LogReader: Send {
    /// The next piece; `None`: there is no more at the moment.
    ///
    /// # Errors
    /// It cannot be read.
    async fn read(&mut self) -> Result<Option<Bytes>, NodeError>;

    /// True when nothing will be added any more: the task's container is gone and its output kept.
    async fn is_complete(&self) -> bool;

    /// Whose the task was when it was launched; `None`: that is not known.
    fn owner(&self) -> Option<Owner>;
}

/// A command to run inside a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecRequest {
    /// Program and arguments; never empty.
    pub command: Vec<String>,
    /// With a terminal of this many columns and lines.
    pub terminal: Option<(u16, u16)>,
    /// Who may reach the task may run commands in its container. A task without one has rights on the node itself, be they root's, and who may use
    /// them for anything else than what was written in its definition is for the node to say.
    pub asker: Asker,
}

/// A command that runs. When both ends here are dropped, the client has gone away and the command is ended, as far as that is possible.
#[derive(Debug)]
pub struct Exec {
    /// Frames for it: input and terminal sizes.
    pub input: mpsc::Sender<Frame>,
    /// Frames from it: its output, and its exit code at the end. A channel that closes without it: the command was lost.
    pub output: mpsc::Receiver<Frame>,
}

/// A node as it shows itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeFacts {
    /// All that may be used by tasks.
    pub total: Resources,
    /// The engine and its version: `docker`, `20.10.24`; empty: it does not answer.
    pub engine: String,
    /// See `engine`.
    pub engine_version: String,
    /// What the engine runs containers with, and which version: `runc`, `1.2.8`.
    pub runtime: BTreeMap<String, String>,
    /// What is known against these versions, a sentence each.
    pub weaknesses: Vec<String>,
    /// Why containers are not started on it, if so.
    pub refusal: Option<String>,
    /// `v1` or `v2`.
    pub cgroup_version: String,
    /// Its addresses, the preferred one first.
    pub addresses: Vec<IpAddr>,
}

/// Bytes that come in pieces; an error is the last piece.
pub type Pieces = mpsc::Receiver<Result<Bytes, NodeError>>;

/// See the module's description. Nodes are named where they are known; `None` means wherever it is found.
#[async_trait]
pub trait NodeAccess: Send + Sync {
    /// What is known of a node beyond what it offered; `None`: it cannot be asked.
    async fn facts(&self, agent: &AgentId) -> Option<NodeFacts>;

    /// Opens an output of a task, also of one that has ended, as long as it is kept.
    ///
    /// # Errors
    /// It is not kept, or cannot be read.
    async fn open_log(&self, agent: Option<&AgentId>, task: &TaskId, range: LogRange) -> Result<Box<dyn LogReader>, NodeError>;

    /// A socket of TCP, not connected and not blocking, in the network of a task with one of its own: loopback is the task itself.
    ///
    /// # Errors
    /// The task does not run, its network is not entered on this node, or it cannot be at the moment.
    async fn socket(&self, _agent: Option<&AgentId>, _task: &TaskId, _ipv6: bool) -> Result<OwnedFd, NodeError> {
        Err(NodeError::Impossible("networks of tasks are not entered here".to_owned()))
    }

    /// Runs a command inside a task that runs.
    ///
    /// # Errors
    /// The task does not run; too many commands do.
    async fn exec(&self, agent: Option<&AgentId>, task: &TaskId, request: ExecRequest) -> Result<Exec, NodeError>;

    /// A backup of a brick, as one file. The answer comes when it is complete; its length in bytes, and the pieces. `freeze`: also while it is
    /// mounted; its service stands still for a while.
    ///
    /// # Errors
    /// It is in use, there is no room, and so on.
    async fn back_up(&self, brick: &BrickName, freeze: bool) -> Result<(u64, Pieces), NodeError>;

    /// Replaces a brick's data by that of a backup. On any error the old data is untouched.
    ///
    /// # Errors
    /// The backup is damaged, the brick is in use or too small, there is no room, and so on.
    async fn restore(&self, brick: &BrickName, backup: Pieces) -> Result<(), NodeError>;
}
