//! A node that does what a test wants.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{Notify, mpsc};

use crate::{
    model::{
        frame::{Channel, Frame},
        id::{AgentId, BrickName, Owner, TaskId},
        request::Asker,
        resources::{PortRange, Resources, Scalar},
    },
    runtime::node::{Exec, ExecRequest, LogRange, LogReader, NodeAccess, NodeError, NodeFacts, Pieces},
};

/// An output of a few pieces, a command that repeats what it hears, bricks that are texts.
#[derive(Default)]
pub struct Node {
    pieces: Arc<Mutex<Option<VecDeque<String>>>>,
    complete: Arc<AtomicBool>,
    pub ranges: Mutex<Vec<LogRange>>,
    /// The output was read to its present end.
    pub asked: Arc<Notify>,
    pub asked_whether_complete: Arc<Notify>,
    /// The client of a command has gone away.
    pub left: Arc<Notify>,
    /// Who had commands run.
    pub askers: Mutex<Vec<Asker>>,
    pub restored: Mutex<Vec<String>>,
    /// Whose the tasks were when they were launched.
    pub owner: Option<Owner>,
}

impl Node {
    pub fn with_output(pieces: &[&str]) -> Self {
        let node = Self::default();
        *node.pieces.lock().unwrap() = Some(VecDeque::new());
        pieces.iter().for_each(|piece| node.push(piece));
        node
    }

    pub fn push(&self, piece: &str) {
        self.pieces.lock().unwrap().as_mut().unwrap().push_back(piece.to_owned());
    }

    pub fn complete(&self) {
        self.complete.store(true, Ordering::SeqCst);
    }
}

struct NodeLog {
    pieces: Arc<Mutex<Option<VecDeque<String>>>>,
    complete: Arc<AtomicBool>,
    asked: Arc<Notify>,
    asked_whether_complete: Arc<Notify>,
    owner: Option<Owner>,
    next: usize,
}

#[async_trait]
impl LogReader for NodeLog {
    async fn read(&mut self) -> Result<Option<Bytes>, NodeError> {
        let piece = self.pieces.lock().unwrap().as_ref().unwrap().get(self.next).cloned();
        match piece {
            Some(piece) => {
                self.next += 1;
                Ok(Some(piece.into()))
            }
            None => {
                self.asked.notify_one();
                Ok(None)
            }
        }
    }

    async fn is_complete(&self) -> bool {
        self.asked_whether_complete.notify_one();
        self.complete.load(Ordering::SeqCst)
    }

    fn owner(&self) -> Option<Owner> {
        self.owner.clone()
    }
}

#[async_trait]
impl NodeAccess for Node {
    async fn facts(&self, _agent: &AgentId) -> Option<NodeFacts> {
        let total = Resources {
            cpus: Scalar::from_f64(3.5),
            mem: Scalar::whole(8000),
            disk: Scalar::whole(90_000),
            ports: vec![PortRange::new(31_000, 32_000)],
            ..Resources::default()
        };
        let addresses = vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
        Some(NodeFacts {
            total,
            engine: "docker".into(),
            engine_version: "20.10.24".into(),
            runtime: [("containerd".into(), "1.4.2".into()), ("runc".into(), "1.2.8".into())].into(),
            weaknesses: vec!["containerd 1.4.2 lets containers out of their confinement (CVE-2020-15257); 1.4.3 does not".into()],
            refusal: Some("containerd 1.4.2 is not safe".into()),
            cgroup_version: "v2".into(),
            addresses,
        })
    }

    async fn open_log(&self, _agent: Option<&AgentId>, task: &TaskId, range: LogRange) -> Result<Box<dyn LogReader>, NodeError> {
        self.ranges.lock().unwrap().push(range);
        if self.pieces.lock().unwrap().is_none() {
            return Err(NodeError::Missing(format!("nothing is kept of task '{task}'")));
        }
        let (pieces, complete) = (self.pieces.clone(), self.complete.clone());
        Ok(Box::new(NodeLog {
            pieces,
            complete,
            asked: self.asked.clone(),
            asked_whether_complete: self.asked_whether_complete.clone(),
            owner: self.owner.clone(),
            next: 0,
        }))
    }

    async fn exec(&self, _agent: Option<&AgentId>, _task: &TaskId, request: ExecRequest) -> Result<Exec, NodeError> {
        self.askers.lock().unwrap().push(request.asker);
        let (input, mut frames) = mpsc::channel(1);
        let (sender, output) = mpsc::channel(1);
        let left = self.left.clone();
        tokio::spawn(async move {
            loop {
                let answer = match frames.recv().await {
                    None => return left.notify_one(),
                    Some(Frame { channel: Channel::Stdin, payload }) if payload.is_empty() => break,
                    Some(Frame { channel: Channel::Stdin, payload }) => Frame { channel: Channel::Stdout, payload },
                    Some(Frame { payload, .. }) => Frame { channel: Channel::Stderr, payload },
                };
                sender.send(answer).await.unwrap();
            }
            sender.send(Frame { channel: Channel::Exit, payload: b"0".to_vec() }).await.unwrap();
        });
        Ok(Exec { input, output })
    }

    async fn back_up(&self, _brick: &BrickName, freeze: bool) -> Result<(u64, Pieces), NodeError> {
        if !freeze {
            return Err(NodeError::Conflict("it is mounted".into()));
        }
        let (sender, pieces) = mpsc::channel(2);
        for piece in ["a backup of ", "a frozen brick"] {
            sender.send(Ok(piece.into())).await.unwrap();
        }
        Ok((26, pieces))
    }

    async fn restore(&self, _brick: &BrickName, mut backup: Pieces) -> Result<(), NodeError> {
        let mut bytes = Vec::new();
        while let Some(piece) = backup.recv().await {
            bytes.extend(piece?);
        }
        let text = String::from_utf8(bytes).unwrap();
        if !text.contains("good") {
            return Err(NodeError::Unacceptable("it is no backup".into()));
        }
        self.restored.lock().unwrap().push(text);
        Ok(())
    }
}
