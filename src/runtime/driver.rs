//! The one loop that owns the state: drain a batch of inputs, step each, one durable commit, publish, send calls, answer callers.
//!
//! A failed commit ends the loop, and with it the process: what is in memory is then ahead of what is durable, and nobody has seen it.

use std::collections::HashMap;

use tokio::sync::{mpsc, oneshot, watch};
use tracing::{debug, error, info};

use super::{
    batch::{self, MAX_INPUTS},
    clock::Clock,
    handle::{Handle, Published, Submission},
};
use crate::{
    core::{Ctx, Input, RequestId, Settings, State},
    model::{
        cluster::{ClusterCall, ClusterEvent},
        event::Event,
        record::Change,
        request::{Reply, RequestError},
    },
    store::{Epoch, Store, StoreError},
};

/// Events of the cluster that may wait for the driver; who sends more waits.
pub const MAX_WAITING_EVENTS: usize = 4096;

/// Calls that may wait for the cluster. One more is dropped and logged: every call is repeated as long as the state calls for it.
pub const MAX_WAITING_CALLS: usize = 65_536;

type Answer = oneshot::Sender<Result<Reply, RequestError>>;

/// Owns the state and the store.
pub struct Driver {
    state: State,
    store: Box<dyn Store>,
    epoch: Epoch,
    clock: Clock,
    handle: Handle,
    submissions: mpsc::Receiver<Submission>,
    events: mpsc::Receiver<ClusterEvent>,
    calls: mpsc::Sender<ClusterCall>,
    waiting: HashMap<RequestId, Answer>,
    next_request: RequestId,
    revision: u64,
}

impl Driver {
    /// Takes the store over and recovers the state from it. The handle shows that state at once.
    ///
    /// # Errors
    /// The store cannot be read, is damaged, or belongs to someone else.
    pub async fn open(
        settings: Settings,
        mut store: Box<dyn Store>,
        events: mpsc::Receiver<ClusterEvent>,
        calls: mpsc::Sender<ClusterCall>,
    ) -> Result<(Self, Handle), StoreError> {
        let epoch = store.elect().await?;
        let clock = Clock::default();
        let began = clock.now();
        let records = store.load().await?;
        let count = records.len();
        let state = State::recover(settings, records, clock.now());
        info!(records = count, ms = clock.now().ms_since(began), epoch, "State recovered.");
        let (handle, submissions) = Handle::new(state.view());
        let driver = Self {
            state,
            store,
            epoch,
            clock,
            handle: handle.clone(),
            submissions,
            events,
            calls,
            waiting: HashMap::new(),
            next_request: 0,
            revision: 0,
        };
        Ok((driver, handle))
    }

    /// Runs until `shutdown` says true. What was accepted is finished first; later callers are told that the server is going down.
    ///
    /// # Errors
    /// A commit failed.
    pub async fn run(mut self, mut shutdown: watch::Receiver<bool>) -> Result<(), StoreError> {
        while !*shutdown.borrow() {
            let deadline = self.state.next_deadline().map(|at| self.clock.at(at).into());
            let first = tokio::select! {
                biased;
                _ = shutdown.changed() => break,
                Some(event) = self.events.recv() => Input::Cluster(event),
                Some(submission) = self.submissions.recv() => self.admit(submission),
                () = sleep_until(deadline) => Input::Tick,
            };
            let inputs = self.drain(first);
            self.turn(inputs).await?;
        }
        Ok(())
    }

    /// What has arrived meanwhile joins the batch: the cluster's news and callers in turn, so that neither starves the other.
    fn drain(&mut self, first: Input) -> Vec<Input> {
        let mut inputs = vec![first];
        while inputs.len() < MAX_INPUTS {
            let before = inputs.len();
            inputs.extend(self.events.try_recv().ok().map(Input::Cluster));
            if let Ok(submission) = self.submissions.try_recv() {
                let input = self.admit(submission);
                inputs.push(input);
            }
            if inputs.len() == before {
                break;
            }
        }
        inputs
    }

    fn admit(&mut self, submission: Submission) -> Input {
        self.next_request += 1;
        self.waiting.insert(self.next_request, submission.reply);
        Input::Api(self.next_request, submission.origin, Box::new(submission.request))
    }

    async fn turn(&mut self, inputs: Vec<Input>) -> Result<(), StoreError> {
        let (now, wall) = (self.clock.now(), self.clock.wall());
        let clock = &mut self.clock;
        let mut random = || clock.random();
        let frame = batch::run(&mut self.state, inputs, &mut Ctx { now, wall, random: &mut random });
        if !frame.changes.is_empty() {
            self.store.commit(self.epoch, &frame.changes).await.inspect_err(|error| error!(%error, "Commit failed; the process ends."))?;
        }
        self.publish(frame.events, &frame.changes);
        self.send(frame.calls);
        self.answer(frame.replies);
        Ok(())
    }

    fn publish(&mut self, events: Vec<Event>, changes: &[Change]) {
        self.revision += 1;
        let published = Published {
            revision: self.revision,
            events: events.into_iter().map(Into::into).collect(),
            changed: changes.iter().map(Change::key).collect(),
        };
        self.handle.publish(self.state.view(), published);
    }

    fn send(&mut self, calls: Vec<ClusterCall>) {
        for call in calls {
            debug!(?call, "Call.");
            if let Err(error) = self.calls.try_send(call) {
                error!(%error, "The cluster does not take a call; it is sent again later.");
            }
        }
    }

    fn answer(&mut self, replies: Vec<(RequestId, Result<Reply, RequestError>)>) {
        for (id, reply) in replies {
            if let Some(answer) = self.waiting.remove(&id) {
                // A caller that has gone away does not want to know.
                _ = answer.send(reply);
            }
        }
    }
}

async fn sleep_until(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
