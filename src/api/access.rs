//! The one way from the API to what there is: every read, write and event stream passes here with the [`Origin`] of its call.
//!
//! A handler gets [`Seen`], the part of the present snapshot that its caller may see, and cannot get at the rest: the handle on the driver is private
//! to this file. Writes go to the core with their origin, and the core decides once more (`core::ownership`).

mod seen;

use std::sync::Arc;

use tokio::sync::broadcast::{Receiver, error::RecvError};

pub use seen::Seen;

use crate::{
    metrics::Metrics,
    model::{
        event::Event,
        id::Owner,
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
}

impl Access {
    /// Access to what `handle` reaches.
    pub fn new(handle: Handle) -> Self {
        Self { handle }
    }

    /// The present snapshot, as far as `origin` may see it.
    pub fn seen(&self, origin: &Origin) -> Seen {
        Seen::new(self.handle.view_full(), origin)
    }

    /// Asks for a change and waits until it is durable and visible.
    ///
    /// # Errors
    /// See [`SubmitError`].
    pub async fn submit(&self, origin: Origin, request: Request) -> Result<Reply, SubmitError> {
        self.handle.submit(origin, request).await
    }

    /// What is committed from now on, as far as `origin` may be told. `named`: someone who said who that is, and not everybody.
    pub fn follow(&self, origin: &Origin, named: bool) -> Feed {
        let commits = self.handle.follow();
        let standing = self.standing(&origin.user);
        Feed { access: self.clone(), commits, user: origin.user.clone(), admin: origin.admin, named, standing }
    }

    /// What is counted about this process.
    pub fn metrics(&self) -> &Arc<Metrics> {
        self.handle.metrics()
    }

    /// The record of a user, for finding out who asks.
    pub fn user(&self, name: &Owner) -> Option<User> {
        self.handle.view().tables.users.get(name).map(|user| (**user).clone())
    }

    /// True when anybody has a password.
    pub fn has_passwords(&self) -> bool {
        self.handle.view().tables.passwords > 0
    }

    fn standing(&self, name: &Owner) -> Option<Standing> {
        self.handle.view().tables.users.get(name).map(|user| (user.generation, user.admin, user.locked))
    }
}

/// What must stay as it was for a stream to go on: password and lock (by the record's generation), being an administrator, being locked.
type Standing = (u64, bool, bool);

/// The events that one caller may be told.
pub struct Feed {
    access: Access,
    commits: Receiver<Arc<Published>>,
    user: Owner,
    admin: bool,
    named: bool,
    standing: Option<Standing>,
}

/// Why a feed is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeedEnd {
    /// The follower missed this many commits.
    Lagged(u64),
    /// Who follows is not the same any more: locked, removed, with another password, or no administrator any more. A new call shows what it is now.
    Changed,
    /// The process goes down.
    Closed,
}

impl Feed {
    /// The next commit: its number, and its events; none, when it has none for this follower.
    ///
    /// # Errors
    /// There will be no more.
    pub async fn next(&mut self) -> Result<(u64, Vec<Arc<Event>>), FeedEnd> {
        let commit = self.commits.recv().await.map_err(|error| match error {
            RecvError::Lagged(missed) => FeedEnd::Lagged(missed),
            RecvError::Closed => FeedEnd::Closed,
        })?;
        if commit.changed.iter().any(|key| self.is_over(key)) {
            return Err(FeedEnd::Changed);
        }
        let told = commit.events.iter().filter_map(|event| match event.told_to(&self.user, self.admin)? {
            std::borrow::Cow::Borrowed(_) => Some(event.clone()),
            std::borrow::Cow::Owned(part) => Some(Arc::new(part)),
        });
        Ok((commit.revision, told.collect()))
    }

    /// True when a changed record means that the follower must say anew who that is. The snapshot has the change already.
    fn is_over(&self, changed: &RecordKey) -> bool {
        match changed {
            RecordKey::User(_) if !self.named => self.access.has_passwords(),
            RecordKey::User(name) => *name == self.user && self.access.standing(name) != self.standing,
            _ => false,
        }
    }
}
