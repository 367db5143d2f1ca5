//! The node that is this machine, as the API asks it: the embedded engine's sandboxes and containers, and the bricks of the work directory.

use std::{
    io,
    net::IpAddr,
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::mpsc;

use crate::{
    brick::{
        BrickError,
        spool::{Spool, SpoolError, Spooled},
    },
    cluster::engine::{
        access::{Access, ExecError},
        docker::DockerError,
        output::OutputReader,
        sandbox,
    },
    model::id::{AgentId, BrickName, Owner, TaskId},
    runtime::node::{Exec, ExecRequest, LogRange, LogReader, MAX_WAITING_PIECES, NodeAccess, NodeError, NodeFacts, Output, Pieces},
};

/// A backup is read and sent in pieces of this many bytes.
const PIECE_BYTES: usize = 256 << 10;

/// See the module's description.
pub struct ThisNode {
    /// Its id.
    pub agent: AgentId,
    /// Its addresses, the preferred one first.
    pub addresses: Vec<IpAddr>,
    /// Its tasks.
    pub access: Arc<Access>,
    /// For its bricks.
    pub spool: Spool,
}

/// An output of a task here.
struct Log {
    access: Arc<Access>,
    task: TaskId,
    owner: Option<Owner>,
    /// `None` only while it is read.
    reader: Option<OutputReader>,
}

#[async_trait]
impl LogReader for Log {
    async fn read(&mut self) -> Result<Option<Bytes>, NodeError> {
        let unreadable = |error: io::Error| NodeError::Failed(format!("the task's output cannot be read: {error}"));
        let mut reader = self.reader.take().ok_or_else(|| unreadable(io::Error::other("it failed before")))?;
        let (reader, piece) = blocking(move || {
            let piece = reader.read();
            (reader, piece)
        })
        .await?;
        self.reader = Some(reader);
        piece.map(|piece| piece.map(Bytes::from)).map_err(unreadable)
    }

    async fn is_complete(&self) -> bool {
        self.access.is_gone(&self.task).await
    }

    fn owner(&self) -> Option<Owner> {
        self.owner.clone()
    }
}

#[async_trait]
impl NodeAccess for ThisNode {
    async fn facts(&self, agent: &AgentId) -> Option<NodeFacts> {
        if *agent != self.agent {
            return None;
        }
        let facts = self.access.facts().await;
        let engine = facts.parts.iter().find(|part| part.name == "Engine");
        Some(NodeFacts {
            total: facts.total,
            engine: "docker".to_owned(),
            engine_version: engine.map(|part| part.version.clone()).unwrap_or_default(),
            runtime: facts.parts.into_iter().filter(|part| part.name != "Engine").map(|part| (part.name, part.version)).collect(),
            weaknesses: facts.findings.iter().map(ToString::to_string).collect(),
            refusal: facts.refusal,
            cgroup_version: facts.cgroup.to_string(),
            addresses: self.addresses.clone(),
        })
    }

    async fn open_log(&self, _agent: Option<&AgentId>, task: &TaskId, range: LogRange) -> Result<Box<dyn LogReader>, NodeError> {
        let output = match range.output {
            Output::Stdout => sandbox::Output::Stdout,
            Output::Stderr => sandbox::Output::Stderr,
        };
        let (access, wanted) = (self.access.clone(), task.clone());
        let open = move || {
            let mut reader = access.open_output(&wanted, output)?;
            range.since.map_or(Ok(()), |moment| reader.skip_before(moment))?;
            range.tail.map_or(Ok(()), |lines| reader.skip_to_last(lines))?;
            Ok((reader.owner(), reader))
        };
        let (owner, reader) = blocking(open).await?.map_err(|error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => NodeError::Missing(format!("nothing is kept of task '{task}'")),
            _ => NodeError::Failed(format!("the output of task '{task}' cannot be read: {error}")),
        })?;
        Ok(Box::new(Log { access: self.access.clone(), task: task.clone(), owner, reader: Some(reader) }))
    }

    async fn socket(&self, _agent: Option<&AgentId>, task: &TaskId, ipv6: bool) -> Result<OwnedFd, NodeError> {
        self.access.socket(task, ipv6).await.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => NodeError::Conflict(format!("task '{task}' does not run")),
            io::ErrorKind::PermissionDenied | io::ErrorKind::Unsupported => {
                NodeError::Impossible(format!("the network of task '{task}' is not entered here: {error}"))
            }
            _ => NodeError::Unavailable(format!("the network of task '{task}' cannot be entered: {error}")),
        })
    }

    async fn exec(&self, _agent: Option<&AgentId>, task: &TaskId, request: ExecRequest) -> Result<Exec, NodeError> {
        let begun = self.access.exec(task, request.command, request.terminal, &request.asker).await;
        let (input, output) = begun.map_err(|error| match error {
            ExecError::NotRunning(_) => NodeError::Conflict(error.to_string()),
            ExecError::TooMany | ExecError::NotStarted(_) | ExecError::Docker(DockerError::Unreachable(_)) => {
                NodeError::Unavailable(error.to_string())
            }
            ExecError::NotYours(..) => NodeError::Forbidden(error.to_string()),
            ExecError::Vulnerable(_) => NodeError::Impossible(error.to_string()),
            ExecError::Docker(_) => NodeError::Unacceptable(error.to_string()),
        })?;
        Ok(Exec { input, output })
    }

    async fn back_up(&self, brick: &BrickName, freeze: bool) -> Result<(u64, Pieces), NodeError> {
        let (spool, brick, abandoned) = (self.spool.clone(), brick.clone(), Abandoned::default());
        let flag = abandoned.0.clone();
        let spooled = blocking(move || spool.back_up(&brick, freeze, &|| flag.load(Ordering::Relaxed))).await?.map_err(of_spool)?;
        let length = spooled.length().map_err(|error| NodeError::Failed(error.to_string()))?;
        let (sender, pieces) = mpsc::channel(MAX_WAITING_PIECES);
        tokio::task::spawn_blocking(move || send(spooled, &sender));
        Ok((length, pieces))
    }

    async fn restore(&self, brick: &BrickName, mut backup: Pieces) -> Result<(), NodeError> {
        let spool = self.spool.clone();
        let mut spooled = blocking(move || spool.create()).await?.map_err(of_spool)?;
        while let Some(piece) = backup.recv().await {
            let piece = piece?;
            let (back, written) = blocking(move || {
                let written = spooled.write(&piece);
                (spooled, written)
            })
            .await?;
            written.map_err(of_spool)?;
            spooled = back;
        }
        let (spool, brick, abandoned) = (self.spool.clone(), brick.clone(), Abandoned::default());
        let flag = abandoned.0.clone();
        blocking(move || spool.restore(&brick, &spooled, &|| flag.load(Ordering::Relaxed))).await?.map_err(of_spool)?;
        Ok(())
    }
}

/// Becomes true when whoever waits has gone away.
#[derive(Default)]
struct Abandoned(Arc<AtomicBool>);

impl Drop for Abandoned {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn send(mut spooled: Spooled, sender: &mpsc::Sender<Result<Bytes, NodeError>>) {
    let mut at = 0;
    loop {
        let piece = spooled.read(at, PIECE_BYTES).map_err(|error| NodeError::Failed(format!("the backup cannot be read: {error}")));
        let length = piece.as_ref().map_or(0, Vec::len);
        at += length as u64;
        let is_last = piece.is_err();
        // An empty piece is the end; a client that is gone is one, too.
        if piece.as_ref().is_ok_and(Vec::is_empty) || sender.blocking_send(piece.map(Bytes::from)).is_err() || is_last {
            return;
        }
    }
}

fn of_spool(error: SpoolError) -> NodeError {
    let text = error.to_string();
    match error {
        SpoolError::NoRoom { .. } => NodeError::NoRoom(text),
        SpoolError::Damaged(_) => NodeError::Unacceptable(text),
        SpoolError::Brick(BrickError::Busy { .. } | BrickError::Refused(_) | BrickError::Stale { .. }) => NodeError::Conflict(text),
        SpoolError::Brick(BrickError::Io { source, .. }) if source.kind() == io::ErrorKind::StorageFull => NodeError::NoRoom(text),
        SpoolError::Brick(BrickError::Io { .. }) => NodeError::Failed(text),
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, NodeError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| NodeError::Failed(format!("the server made an error: {error}")))
}
