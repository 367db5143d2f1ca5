//! The handle that every reader and caller holds: load the snapshot, submit a request, follow what is committed.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use arc_swap::{ArcSwap, Guard};
use tokio::sync::{broadcast, mpsc, oneshot};

use super::inbox::{self, Inbox};
use crate::{
    core::state::View,
    metrics::Metrics,
    model::{
        event::Event,
        record::RecordKey,
        request::{Origin, Reply, Request, RequestError},
    },
};

/// Requests that may wait for the driver. One more is refused with 503.
pub const MAX_WAITING_REQUESTS: usize = 1024;

/// Commits that a subscriber may lag behind before it is cut off (Marathon: `--event_stream_max_outstanding_messages`).
pub const MAX_OUTSTANDING_COMMITS: usize = 1024;

/// Events that are kept for followers who come back.
pub const MAX_KEPT_EVENTS: usize = 4096;

/// What one commit made visible.
#[derive(Clone, Debug)]
pub struct Published {
    /// Rises by one with each commit of this process.
    pub revision: u64,
    /// The events of the commit, in order.
    pub events: Vec<Arc<Event>>,
    /// The records that changed; the snapshot already has them.
    pub changed: Vec<RecordKey>,
}

/// Why a request got no answer from the core.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// 503 with Retry-After: the driver's queue is full.
    #[error("too many requests are waiting; try again in a moment")]
    Busy,
    /// 503: the process is going down. Whether the request was carried out is not known.
    #[error("the server is shutting down")]
    Stopped,
    /// The core's own answer.
    #[error(transparent)]
    Refused(#[from] RequestError),
}

/// A request on its way to the driver.
pub struct Submission {
    /// Who asks.
    pub origin: Origin,
    /// What is asked.
    pub request: Box<Request>,
    /// Where the answer goes; a caller that has gone away is no error.
    pub reply: oneshot::Sender<Result<Reply, RequestError>>,
}

/// Shared by all readers and callers; cheap to clone.
#[derive(Clone)]
pub struct Handle {
    view: Arc<ArcSwap<View>>,
    submissions: inbox::Sender<Submission>,
    published: broadcast::Sender<Arc<Published>>,
    about_tasks: broadcast::Sender<Arc<Published>>,
    metrics: Arc<Metrics>,
    process: u32,
    history: Arc<Mutex<History>>,
}

/// The last commits that had events.
#[derive(Debug, Default)]
struct History {
    commits: VecDeque<Arc<Published>>,
    events: usize,
    /// The newest commit whose events are kept no more.
    gone: Option<u64>,
}

impl History {
    /// What is kept no more.
    fn push(&mut self, commit: &Arc<Published>) -> Vec<Arc<Published>> {
        let mut gone = Vec::new();
        if commit.events.is_empty() {
            return gone;
        }
        self.events += commit.events.len();
        self.commits.push_back(commit.clone());
        while self.events > MAX_KEPT_EVENTS
            && let Some(oldest) = self.commits.pop_front()
        {
            self.events -= oldest.events.len();
            self.gone = Some(oldest.revision);
            gone.push(oldest);
        }
        gone
    }

    /// From `revision` on, which is part of it; `None`: some of it is gone.
    fn since(&self, revision: u64) -> Option<VecDeque<Arc<Published>>> {
        let complete = self.gone.is_none_or(|gone| gone < revision);
        complete.then(|| self.commits.iter().filter(|commit| commit.revision >= revision).cloned().collect())
    }
}

impl Handle {
    /// A handle, and the end on which submissions arrive. The holder of that end also publishes ([`Handle::publish`]).
    pub fn new(view: View) -> (Self, Inbox<Submission>) {
        let (submissions, arriving) = inbox::channel(MAX_WAITING_REQUESTS);
        let (published, _) = broadcast::channel(MAX_OUTSTANDING_COMMITS);
        let (about_tasks, _) = broadcast::channel(MAX_OUTSTANDING_COMMITS);
        let handle = Self {
            view: Arc::new(ArcSwap::from_pointee(view)),
            submissions,
            published,
            about_tasks,
            metrics: Arc::default(),
            process: uuid::Uuid::new_v4().as_fields().0,
            history: Arc::default(),
        };
        (handle, arriving)
    }

    /// The present snapshot: immutable, as of the last commit.
    pub fn view(&self) -> Guard<Arc<View>> {
        self.view.load()
    }

    /// The present snapshot, to keep.
    pub fn view_full(&self) -> Arc<View> {
        self.view.load_full()
    }

    /// What is counted about this process.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Asks for a change, at once; what is returned waits until it is durable and visible, and is small, because the request is not in it.
    ///
    /// # Errors
    /// See [`SubmitError`].
    pub fn submit(&self, origin: Origin, request: Request) -> impl Future<Output = Result<Reply, SubmitError>> + Send + use<> {
        let (reply, answer) = oneshot::channel();
        let sent = self.submissions.try_send(Submission { origin, request: Box::new(request), reply }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => SubmitError::Busy,
            mpsc::error::TrySendError::Closed(_) => SubmitError::Stopped,
        });
        async move {
            sent?;
            Ok(answer.await.map_err(|_| SubmitError::Stopped)??)
        }
    }

    /// Everything that is committed from now on. A receiver that lags by [`MAX_OUTSTANDING_COMMITS`] gets `Lagged`.
    pub fn follow(&self) -> broadcast::Receiver<Arc<Published>> {
        self.published.subscribe()
    }

    /// As [`Handle::follow`], but only the commits that are about tasks: that change an instance, a node, or the definition or deployment of something that
    /// has instances. Their followers have threads of their own, which are not woken for anything else.
    pub fn follow_tasks(&self) -> broadcast::Receiver<Arc<Published>> {
        self.about_tasks.subscribe()
    }

    /// Tells this process' revisions from those of others.
    pub fn process(&self) -> u32 {
        self.process
    }

    /// The commits with events from `revision` of this `process` on, and everything that is committed after them; `None`: some of it is not kept.
    pub fn follow_since(&self, process: u32, revision: u64) -> Option<(VecDeque<Arc<Published>>, broadcast::Receiver<Arc<Published>>)> {
        // Held until the receiver is there, so that nothing falls between.
        let history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        let commits = history.since(revision).filter(|_| process == self.process)?;
        Some((commits, self.follow()))
    }

    /// Makes a commit visible: first the snapshot, then the news of it. The driver's alone.
    pub fn publish(&self, view: View, published: Published) -> Past {
        let before = self.view.load_full();
        let same = published.changed.is_empty() && before.queue.ptr_eq(&view.queue) && before.readings.ptr_eq(&view.readings);
        let revision = if same { before.revision } else { published.revision };
        let about_tasks = published.changed.iter().any(|key| is_about_tasks(key, &before, &view));
        self.view.store(Arc::new(View { revision, ..view }));
        let published = Arc::new(published);
        let mut history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        let gone = history.push(&published);
        // Without followers there is nobody to tell.
        if about_tasks {
            _ = self.about_tasks.send(published.clone());
        }
        _ = self.published.send(published);
        Past { _view: before, _commits: gone }
    }
}

/// What a commit has taken the place of: the snapshot before, and the commits that are kept no more. To free them takes longer than to publish it, and who
/// waits for the commit need not wait for that.
pub struct Past {
    _view: Arc<View>,
    _commits: Vec<Arc<Published>>,
}

/// A deployment that came and went in one commit has had nothing to do.
fn is_about_tasks(key: &RecordKey, before: &View, after: &View) -> bool {
    match key {
        RecordKey::Instance(_) | RecordKey::Agent(_) => true,
        RecordKey::Definition(app, _) => after.tables.tallies.contains_key(app),
        RecordKey::Deployment(id) => [before, after].iter().any(|view| view.tables.deployments.contains_key(id)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::state::Readings;
    use crate::model::{
        deployment::Deployment,
        event::{Audience, Fact},
        id::{AgentId, DeploymentId, InstanceId, PathId},
        time::Timestamp,
    };

    #[test]
    fn who_follows_tasks_is_not_woken_for_what_is_not_about_any() {
        let (handle, _submissions) = Handle::new(View::default());
        let (web, idle): (PathId, PathId) = ("/web".parse().unwrap(), "/idle".parse().unwrap());
        let deployment = |name: &str| RecordKey::Deployment(DeploymentId::new(name));
        let mut view = View::default();
        view.tables.tallies.insert(web.clone(), Arc::default());
        let begun = Arc::new(Deployment {
            id: DeploymentId::new("begun"),
            version: Timestamp(0),
            changes: Vec::new(),
            groups: Vec::new(),
            steps: Vec::new(),
            current_step: 0,
            started_at: Timestamp(0),
        });
        let mut begin = view.clone();
        begin.tables.deployments.insert(DeploymentId::new("begun"), begun);
        let agent = RecordKey::Agent(AgentId::new("a"));
        let instance = RecordKey::Instance(InstanceId::new(web.clone(), uuid::Uuid::nil()));
        // In order: a deployment is told of when it begins and when it ends.
        let table = [
            (&view, vec![], false),
            (&view, vec![RecordKey::Meta, RecordKey::App(web.clone()), RecordKey::RootVersion(Timestamp(0))], false),
            (&view, vec![RecordKey::Definition(idle, Timestamp(0)), deployment("came and went")], false),
            (&view, vec![RecordKey::Meta, RecordKey::Definition(web, Timestamp(0))], true),
            (&view, vec![instance], true),
            (&view, vec![agent], true),
            (&begin, vec![deployment("begun")], true),
            (&begin, vec![deployment("another")], false),
            (&view, vec![deployment("begun")], true),
            (&view, vec![deployment("begun")], false),
        ];
        let (mut all, mut tasks) = (handle.follow(), handle.follow_tasks());
        for (revision, (view, changed, expected)) in table.into_iter().enumerate() {
            handle.publish(view.clone(), Published { revision: revision as u64, events: Vec::new(), changed: changed.clone() });
            assert!(all.try_recv().is_ok());
            assert_eq!(tasks.try_recv().is_ok(), expected, "{revision}: {changed:?}");
        }
    }

    #[test]
    fn a_snapshot_has_another_revision_when_it_is_another() {
        let (handle, _submissions) = Handle::new(View::default());
        let publish = |revision: u64, changed: Vec<RecordKey>, view: View| {
            handle.publish(view, Published { revision, events: Vec::new(), changed });
            handle.view().revision
        };
        assert_eq!(publish(1, vec![], View::clone(&handle.view())), 0, "nothing has changed");
        assert_eq!(publish(2, vec![RecordKey::Meta], View::clone(&handle.view())), 2, "a record");
        assert_eq!(publish(3, vec![], View::clone(&handle.view())), 2, "nothing has changed");
        let nothing = Readings { since: crate::model::time::Instant(0), checks: Vec::new(), readiness: None, results: Vec::new() };
        let mut view = View::clone(&handle.view());
        view.readings.insert(crate::model::id::InstanceId::new("/web".parse().unwrap(), uuid::Uuid::nil()), nothing.into());
        assert_eq!(publish(4, vec![], view), 4, "a reading");
    }

    #[test]
    fn history_is_complete_or_nothing() {
        let commit = |revision: u64, events: usize| {
            let event = || Event {
                timestamp: Timestamp(0),
                app: None,
                audience: Audience::Everyone,
                fact: Fact::SchedulerReregistered { master: "m".into() },
            };
            Arc::new(Published { revision, events: (0..events).map(|_| Arc::new(event())).collect(), changed: Vec::new() })
        };
        let mut history = History::default();
        let revisions = |history: &History, since: u64| {
            history.since(since).map(|commits| commits.iter().map(|commit| commit.revision).collect::<Vec<_>>())
        };
        assert_eq!(revisions(&history, 5), Some(vec![]));
        for (revision, events) in [(1, 3), (2, 0), (3, MAX_KEPT_EVENTS - 3)] {
            history.push(&commit(revision, events));
        }
        assert_eq!(revisions(&history, 1), Some(vec![1, 3]));
        assert_eq!(revisions(&history, 2), Some(vec![3]));
        history.push(&commit(4, 1));
        assert_eq!(revisions(&history, 1), None);
        assert_eq!(revisions(&history, 2), Some(vec![3, 4]));
        history.push(&commit(5, MAX_KEPT_EVENTS + 1));
        assert_eq!((revisions(&history, 5), revisions(&history, 6)), (None, Some(vec![])));
    }
}
