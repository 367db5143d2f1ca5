//! The one loop that owns the state: drain a batch of inputs, step each, one durable commit, publish, send calls, answer callers. While a commit is
//! under way the next batch is stepped already; what it brings waits for its own commit.
//!
//! A failed commit ends the loop, and with it the process: what is in memory is then ahead of what is durable, and nobody has seen it.

use std::{collections::HashMap, time::Duration};

use tokio::sync::{mpsc, oneshot, watch};
use tracing::{debug, error, info};

use super::{
    batch::{self, MAX_INPUTS, Pipeline},
    clock::Clock,
    handle::{Handle, Published, Submission},
    inbox::Inbox,
    metering,
};
use crate::{
    core::{Ctx, Frame, Input, RequestId, Settings, State, state::View, step::step},
    metrics::Counter,
    model::{
        cluster::{ClusterCall, ClusterEvent},
        record::{Change, RecordKey},
        request::{Reply, RequestError},
    },
    store::{Commit, Epoch, Store, StoreError},
};

/// Events of the cluster that may wait for the driver; who sends more waits.
pub const MAX_WAITING_EVENTS: usize = 4096;

/// Calls that may wait for the cluster. One more is dropped and logged: every call is repeated as long as the state calls for it.
pub const MAX_WAITING_CALLS: usize = 65_536;

type Answer = oneshot::Sender<Result<Reply, RequestError>>;

/// A batch whose commit is under way, and what leaves when that is done.
struct Flight {
    /// `None`: nothing of it is durable.
    commit: Option<Commit>,
    view: View,
    changed: Vec<RecordKey>,
    /// Without its changes.
    frame: Frame,
}

/// A commit waits this long at most for callers who are likely to come.
const GATHER: Duration = Duration::from_millis(1);

/// So few callers are no crowd: nobody waits for another.
const MIN_CROWD: usize = 8;

/// How many callers there have been at once lately. Half of a crowd makes a batch, no less and no more: the other half is on its way in or out, or is
/// stepped, while the store syncs, so that neither waits for the other.
#[derive(Debug, Default)]
struct Crowd {
    /// In sixteenths: it fades by one of them with each batch.
    lately: usize,
    /// When a batch that is too small yet begins at the latest.
    until: Option<tokio::time::Instant>,
}

impl Crowd {
    /// Half of it; `None`: it is none.
    fn half(&self) -> Option<usize> {
        (self.lately >= MIN_CROWD * 16).then(|| (self.lately / 32).min(MAX_INPUTS / 2))
    }

    /// How many callers are worth waking the driver for, when there is room for so many in its batch. While a commit is `under_way`, or a batch has an end of
    /// waiting, it is woken soon anyway.
    fn worth_waking(&self, under_way: bool, room: usize) -> usize {
        let soon = under_way || self.until.is_some();
        self.half().filter(|_| soon).map_or(1, |half| half.div_ceil(2).min(room))
    }

    /// May a batch of this many inputs begin, when so many callers wait in all?
    fn is_enough(&mut self, inputs: usize, callers: usize) -> bool {
        self.lately = self.lately.max(callers * 16);
        let wanted = self.half().unwrap_or(1);
        if inputs == 0 {
            self.until = None;
            return false;
        }
        let now = tokio::time::Instant::now();
        if inputs < wanted && *self.until.get_or_insert(now + GATHER) > now {
            return false;
        }
        self.until = None;
        self.lately -= self.lately.div_ceil(16);
        true
    }
}

/// Owns the state and the store.
pub struct Driver {
    state: State,
    store: Box<dyn Store>,
    epoch: Epoch,
    clock: Clock,
    handle: Handle,
    submissions: Inbox<Submission>,
    events: mpsc::Receiver<ClusterEvent>,
    calls: mpsc::Sender<ClusterCall>,
    pipeline: Pipeline<Frame, Flight>,
    crowd: Crowd,
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
        let state = State::recover(settings, records, clock.now(), clock.wall());
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
            pipeline: Pipeline::default(),
            crowd: Crowd::default(),
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
        let mut stopping = *shutdown.borrow();
        while !(stopping && self.pipeline.is_idle()) {
            let deadline = self.state.next_deadline().map(|at| self.clock.at(at).into());
            let room = self.room();
            let listens = !stopping && room > 0;
            let enough = self.crowd.worth_waking(self.pipeline.is_under_way(), room);
            let first = tokio::select! {
                biased;
                durable = landed(self.pipeline.under_way()) => {
                    durable.inspect_err(|error| error!(%error, "Commit failed; the process ends."))?;
                    let flight = self.pipeline.end();
                    // The store is given its next batch before anything else, so that it never waits for us.
                    self.take_off();
                    flight.into_iter().for_each(|flight| self.land(flight));
                    continue;
                }
                _ = shutdown.changed(), if !stopping => {
                    stopping = true;
                    continue;
                }
                Some(event) = self.events.recv(), if listens => Input::Cluster(event),
                () = self.submissions.wait(enough), if listens => match self.submissions.take() {
                    Some(submission) => self.admit(submission),
                    None => continue,
                },
                () = sleep_until(deadline), if listens => Input::Tick,
                () = sleep_until(self.crowd.until) => {
                    self.take_off();
                    continue;
                }
                // With the other ends gone only what is under way is left.
                else => break,
            };
            self.drain(first).into_iter().for_each(|input| self.step(input));
            self.take_off();
        }
        Ok(())
    }

    /// What has arrived meanwhile joins the batch: the cluster's news and callers in turn, so that neither starves the other.
    fn drain(&mut self, first: Input) -> Vec<Input> {
        let room = self.room();
        let mut inputs = vec![first];
        while inputs.len() < room {
            let before = inputs.len();
            inputs.extend(self.events.try_recv().ok().map(Input::Cluster));
            if let Some(submission) = self.submissions.take() {
                let input = self.admit(submission);
                inputs.push(input);
            }
            if inputs.len() == before {
                break;
            }
        }
        inputs
    }

    /// How many more inputs the present batch takes.
    fn room(&self) -> usize {
        let most = self.crowd.half().unwrap_or(MAX_INPUTS);
        self.pipeline.room().min(most.saturating_sub(self.pipeline.waiting()))
    }

    fn admit(&mut self, submission: Submission) -> Input {
        self.next_request += 1;
        self.waiting.insert(self.next_request, submission.reply);
        Input::Api(self.next_request, submission.origin, submission.request)
    }

    fn step(&mut self, input: Input) {
        if let Input::Cluster(event) = &input {
            metering::event(self.handle.metrics(), event);
        }
        let (now, wall) = (self.clock.now(), self.clock.wall());
        let clock = &mut self.clock;
        let mut random = || clock.random();
        self.pipeline.add(step(&mut self.state, input, &mut Ctx { now, wall, random: &mut random }));
    }

    /// Begins the next commit, unless one is under way. What readers will see of it is laid aside as it is now.
    fn take_off(&mut self) {
        if self.pipeline.is_under_way() || !self.crowd.is_enough(self.pipeline.waiting(), self.waiting.len() + self.submissions.waiting()) {
            return;
        }
        let (store, view) = (&mut self.store, || self.state.view());
        self.pipeline.begin(|frames| {
            let mut frame = batch::merge(frames);
            let changes = std::mem::take(&mut frame.changes);
            let changed = changes.iter().map(Change::key).collect();
            let commit = (!changes.is_empty()).then(|| store.commit(self.epoch, changes));
            Flight { commit, view: view(), changed, frame }
        });
    }

    /// A commit is durable: its effects leave.
    fn land(&mut self, flight: Flight) {
        self.revision += 1;
        if flight.commit.is_some() {
            self.handle.metrics().add(Counter::Commits, 1);
        }
        let events = flight.frame.events.into_iter().map(Into::into).collect();
        let past = self.handle.publish(flight.view, Published { revision: self.revision, events, changed: flight.changed });
        self.send(flight.frame.calls);
        self.answer(flight.frame.replies);
        drop(past);
    }

    fn send(&mut self, calls: Vec<ClusterCall>) {
        for call in calls {
            debug!(?call, "Call.");
            metering::call(self.handle.metrics(), &call);
            if let Err(error) = self.calls.try_send(call) {
                error!(%error, "The cluster does not take a call; it is sent again later.");
            }
        }
    }

    fn answer(&mut self, replies: Vec<(RequestId, Result<Reply, RequestError>)>) {
        for (id, reply) in replies {
            metering::reply(self.handle.metrics(), &reply);
            if let Some(answer) = self.waiting.remove(&id) {
                // A caller that has gone away does not want to know.
                _ = answer.send(reply);
            }
        }
    }
}

/// Waits for the commit that is under way; for ever, if there is none.
async fn landed(flight: Option<&mut Flight>) -> Result<(), StoreError> {
    match flight {
        Some(Flight { commit: Some(commit), .. }) => commit.await,
        Some(Flight { commit: None, .. }) => Ok(()),
        None => std::future::pending().await,
    }
}

async fn sleep_until(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_a_crowd_makes_a_batch() {
        let check = |callers: usize, inputs: usize, begins: bool, half: Option<usize>| {
            let mut crowd = Crowd::default();
            assert_eq!(crowd.is_enough(inputs, callers), begins, "{inputs} of {callers}");
            assert_eq!(crowd.until.is_some(), inputs > 0 && !begins, "{inputs} of {callers}: a batch that waits has an end of waiting");
            let before_fading = Crowd { lately: callers * 16, until: None };
            assert_eq!(before_fading.half(), half, "{callers}");
        };
        check(1, 1, true, None);
        check(MIN_CROWD - 1, 1, true, None);
        check(MIN_CROWD, MIN_CROWD / 2 - 1, false, Some(MIN_CROWD / 2));
        check(MIN_CROWD, MIN_CROWD / 2, true, Some(MIN_CROWD / 2));
        check(64, 0, false, Some(32));
        check(64, 31, false, Some(32));
        check(64, 32, true, Some(32));
        check(100_000, MAX_INPUTS / 2, true, Some(MAX_INPUTS / 2));
    }

    #[test]
    fn several_of_a_crowd_wake_the_driver_once_when_it_is_woken_soon_anyway() {
        let check = |callers: usize, under_way: bool, waits: bool, room: usize, expected: usize| {
            let until = waits.then(tokio::time::Instant::now);
            let crowd = Crowd { lately: callers * 16, until };
            assert_eq!(crowd.worth_waking(under_way, room), expected, "{callers}, {under_way}, {waits}, {room}");
        };
        check(1, true, true, 256, 1);
        check(MIN_CROWD - 1, true, true, 256, 1);
        check(MIN_CROWD, true, false, 4, MIN_CROWD / 4);
        check(64, false, false, 32, 1);
        check(64, true, false, 32, 16);
        check(64, false, true, 32, 16);
        // What is missing in a batch is enough.
        check(64, false, true, 7, 7);
        check(64, true, true, 1, 1);
        check(100_000, true, true, 256, MAX_INPUTS / 4);
    }

    #[test]
    fn a_crowd_that_has_gone_is_forgotten() {
        let mut crowd = Crowd { lately: 64 * 16, until: None };
        for _ in 0..100 {
            // As many as are wanted, of few callers.
            let inputs = crowd.half().unwrap_or(1);
            assert!(crowd.is_enough(inputs, 1));
        }
        assert_eq!(crowd.half(), None);
    }
}
