//! The one way from the API to what there is: every read, write and event stream passes here with the [`Origin`] of its call.
//!
//! A handler gets [`Seen`], the part of the present snapshot that its caller may see, and cannot get at the rest: the handle on the driver is private
//! to this file. Writes go to the core with their origin, and the core decides once more (`core::ownership`).

mod seen;

use std::{collections::VecDeque, sync::Arc, time::Instant};

use tokio::sync::broadcast::{Receiver, error::RecvError};

pub use seen::Seen;

use crate::{
    metrics::Metrics,
    model::{
        event::Event,
        id::{Owner, PathId},
        record::RecordKey,
        request::{Origin, Reply, Request},
        user::User,
    },
    runtime::handle::{Handle, Published, SubmitError},
};

/// Access to what there is. Cheap to clone.
#[derive(Clone)]
pub struct Access {
    handle: Handle,
    shows_killing: bool,
}

impl Access {
    /// Access to what `handle` reaches. `shows_killing`: see [`Seen::condition`].
    pub fn new(handle: Handle, shows_killing: bool) -> Self {
        Self { handle, shows_killing }
    }

    /// The present snapshot, as far as `origin` may see it.
    pub fn seen(&self, origin: &Origin) -> Seen {
        Seen::new(self.handle.view_full(), origin, self.shows_killing)
    }

    /// Asks for a change, at once; what is returned waits until it is durable and visible.
    ///
    /// # Errors
    /// See [`SubmitError`].
    pub fn submit(&self, origin: Origin, request: Request) -> impl Future<Output = Result<Reply, SubmitError>> + Send + use<> {
        self.handle.submit(origin, request)
    }

    /// Begins an answer that goes on for long. `named`: someone who said who that is, and not everybody. `until`: when what was presented ends.
    pub fn session(&self, origin: &Origin, named: bool, until: Option<Instant>) -> Session {
        let commits = self.handle.follow();
        let standing = self.standing(&origin.user, named);
        let earlier = VecDeque::new();
        Session { access: self.clone(), earlier, told: None, commits, origin: origin.clone(), named, standing, until }
    }

    /// Tells the revisions of this process from those of others.
    pub fn process(&self) -> u32 {
        self.handle.process()
    }

    /// Names the present snapshot: the process, and which one of its snapshots it is.
    pub fn revision(&self) -> (u32, u64) {
        (self.handle.process(), self.handle.view().revision)
    }

    /// What is counted about this process.
    pub fn metrics(&self) -> &Arc<Metrics> {
        self.handle.metrics()
    }

    /// The record of a user, for finding out who asks.
    pub fn user(&self, name: &Owner) -> Option<User> {
        self.handle.view().tables.users.get(name).map(|user| (**user).clone())
    }

    /// True for a user who reads the metrics alone.
    pub fn is_monitor(&self, name: &Owner) -> bool {
        self.handle.view().tables.users.get(name).is_some_and(|user| user.monitor)
    }

    /// True when anybody has a password.
    pub fn has_passwords(&self) -> bool {
        self.handle.view().tables.passwords > 0
    }

    fn standing(&self, name: &Owner, named: bool) -> Standing {
        let view = self.handle.view();
        match view.tables.users.get(name).filter(|_| named) {
            Some(user) => Standing::User(user.generation, user.admin, user.locked, user.monitor),
            None if named => Standing::NoRecord,
            None => Standing::Nobody { passwords: view.tables.passwords > 0 },
        }
    }
}

/// What must stay as it was for a long answer to go on.
#[derive(PartialEq, Eq)]
enum Standing {
    /// Password and lock (by the record's generation), being an administrator, being locked, reading the metrics alone.
    User(u64, bool, bool, bool),
    /// Somebody with an account of the system, and no record.
    NoRecord,
    /// Who did not say who that is: as long as nobody has to.
    Nobody { passwords: bool },
}

/// One caller's long answer: what is committed meanwhile, and whether the caller may go on: as the same person, with the same rights, as long as what
/// was presented is good.
pub struct Session {
    access: Access,
    /// Commits from before, that this caller missed.
    earlier: VecDeque<Arc<Published>>,
    /// Of this commit the caller has been told so many events already.
    told: Option<(u64, usize)>,
    commits: Receiver<Arc<Published>>,
    origin: Origin,
    named: bool,
    standing: Standing,
    until: Option<Instant>,
}

/// Why a session is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The follower missed this many commits.
    Lagged(u64),
    /// Who follows is not the same any more: locked, removed, with another password, or no administrator any more. A new call shows what it is now.
    Changed,
    /// What the answer is about has become somebody else's.
    Anothers,
    /// The token that was presented has ended.
    Expired,
    /// The process goes down.
    Closed,
}

/// Events of one commit, for one caller.
#[derive(Debug)]
pub struct Told {
    /// The number of the commit in this process.
    pub revision: u64,
    /// The place of the first of these events among those of the commit that this caller may be told.
    pub first: usize,
    /// The events, in order.
    pub events: Vec<Arc<Event>>,
}

impl Session {
    /// Goes on after the event in this place of this commit, of which process. False: some of what came after it is not kept, and nothing is told of it.
    pub fn resume(&mut self, process: u32, revision: u64, place: usize) -> bool {
        let Some((earlier, commits)) = self.access.handle.follow_since(process, revision) else { return false };
        (self.earlier, self.commits, self.told) = (earlier, commits, Some((revision, place.saturating_add(1))));
        true
    }

    /// The next commit: its number, and its events; none, when it has none that this caller may be told.
    ///
    /// # Errors
    /// There will be no more.
    pub async fn next(&mut self) -> Result<Told, End> {
        if let Some(commit) = self.earlier.pop_front() {
            return Ok(self.told(&commit));
        }
        let commit = tokio::select! {
            biased;
            () = expiry(self.until) => return Err(End::Expired),
            commit = self.commits.recv() => commit,
        };
        let commit = commit.map_err(|error| match error {
            RecvError::Lagged(missed) => End::Lagged(missed),
            RecvError::Closed => End::Closed,
        })?;
        if commit.changed.iter().any(|key| self.concerns(key)) && self.has_changed() {
            return Err(End::Changed);
        }
        Ok(self.told(&commit))
    }

    fn told(&self, commit: &Published) -> Told {
        let told = commit.events.iter().filter_map(|event| match event.told_to(&self.origin.user, self.origin.admin)? {
            std::borrow::Cow::Borrowed(_) => Some(event.clone()),
            std::borrow::Cow::Owned(part) => Some(Arc::new(part)),
        });
        let first = self.told.filter(|(revision, _)| *revision == commit.revision).map_or(0, |(_, count)| count);
        Told { revision: commit.revision, first, events: told.skip(first).collect() }
    }

    /// Waits until the caller may not go on with something of `app`: [`End::Changed`], [`End::Anothers`] or [`End::Expired`]. For who is not interested in
    /// commits, and may miss some.
    pub async fn over(mut self, app: &PathId) -> End {
        loop {
            let commit = tokio::select! {
                biased;
                () = expiry(self.until) => return End::Expired,
                commit = self.commits.recv() => commit,
            };
            let (may_have_changed, may_be_anothers) = match commit {
                Ok(commit) => {
                    // Ports and bricks keep their owner when the app is gone.
                    let says_whose = |key: &RecordKey| match key {
                        RecordKey::App(id) => id == app,
                        key => matches!(key, RecordKey::Port(_) | RecordKey::Brick(_)),
                    };
                    (commit.changed.iter().any(|key| self.concerns(key)), commit.changed.iter().any(says_whose))
                }
                Err(RecvError::Lagged(_)) => (true, true),
                // The server stops, which is told in another way.
                Err(RecvError::Closed) => std::future::pending().await,
            };
            if may_have_changed && self.has_changed() {
                return End::Changed;
            }
            if may_be_anothers && self.access.seen(&self.origin).is_anothers(app) {
                return End::Anothers;
            }
        }
    }

    fn concerns(&self, changed: &RecordKey) -> bool {
        matches!(changed, RecordKey::User(name) if !self.named || *name == self.origin.user)
    }

    /// The snapshot has every change that was told.
    fn has_changed(&self) -> bool {
        self.access.standing(&self.origin.user, self.named) != self.standing
    }
}

async fn expiry(until: Option<Instant>) {
    match until {
        Some(until) => tokio::time::sleep_until(until.into()).await,
        None => std::future::pending().await,
    }
}
