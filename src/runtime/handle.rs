//! The handle that every reader and caller holds: load the snapshot, submit a request, follow what is committed.

use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use tokio::sync::{broadcast, mpsc, oneshot};

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
    pub request: Request,
    /// Where the answer goes; a caller that has gone away is no error.
    pub reply: oneshot::Sender<Result<Reply, RequestError>>,
}

/// Shared by all readers and callers; cheap to clone.
#[derive(Clone)]
pub struct Handle {
    view: Arc<ArcSwap<View>>,
    submissions: mpsc::Sender<Submission>,
    published: broadcast::Sender<Arc<Published>>,
    metrics: Arc<Metrics>,
}

impl Handle {
    /// A handle, and the end on which submissions arrive. The holder of that end also publishes ([`Handle::publish`]).
    pub fn new(view: View) -> (Self, mpsc::Receiver<Submission>) {
        let (submissions, arriving) = mpsc::channel(MAX_WAITING_REQUESTS);
        let (published, _) = broadcast::channel(MAX_OUTSTANDING_COMMITS);
        (Self { view: Arc::new(ArcSwap::from_pointee(view)), submissions, published, metrics: Arc::default() }, arriving)
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

    /// Asks for a change and waits until it is durable and visible.
    ///
    /// # Errors
    /// See [`SubmitError`].
    pub async fn submit(&self, origin: Origin, request: Request) -> Result<Reply, SubmitError> {
        let (reply, answer) = oneshot::channel();
        self.submissions.try_send(Submission { origin, request, reply }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => SubmitError::Busy,
            mpsc::error::TrySendError::Closed(_) => SubmitError::Stopped,
        })?;
        Ok(answer.await.map_err(|_| SubmitError::Stopped)??)
    }

    /// Everything that is committed from now on. A receiver that lags by [`MAX_OUTSTANDING_COMMITS`] gets `Lagged`.
    pub fn follow(&self) -> broadcast::Receiver<Arc<Published>> {
        self.published.subscribe()
    }

    /// Makes a commit visible: first the snapshot, then the news of it. The driver's alone.
    pub fn publish(&self, view: View, published: Published) {
        self.view.store(Arc::new(view));
        // Without followers there is nobody to tell.
        _ = self.published.send(Arc::new(published));
    }
}
