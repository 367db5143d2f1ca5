//! Durable records: one atomic batch at a time, fenced by an epoch.

pub mod codec;
pub mod embedded;
mod files;
pub mod identity;
pub mod memory;
#[cfg(test)]
pub(crate) mod samples;

use std::pin::Pin;

use async_trait::async_trait;

use crate::model::record::{Change, Record};

/// Why the store could not do what it must. Every one of these ends the process: what is not durable may not become visible.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Someone else leads; our epoch is over.
    #[error("another server has taken over this store")]
    Fenced,
    /// A record cannot be read.
    #[error("the record {key} is damaged: {reason}")]
    Corrupt {
        /// Which record.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The files beneath the records cannot be trusted.
    #[error("{what} is damaged: {reason}")]
    Damaged {
        /// Which file or directory.
        what: String,
        /// What is wrong with it, and what to do.
        reason: String,
    },
    /// It was written by a newer version.
    #[error(
        "the store was written by a newer version (format {found}, this program reads up to {known}); start that version, or restore a backup"
    )]
    TooNew {
        /// The format of the store.
        found: u32,
        /// The latest format that is known here.
        known: u32,
    },
    /// It belongs to another cluster or engine, or is in use.
    #[error("{0}")]
    Refused(String),
    /// Writing, syncing or reading failed.
    #[error("{what}: {reason}")]
    Failed {
        /// What was tried.
        what: String,
        /// Why it failed.
        reason: String,
    },
}

/// Rises with each process that takes the store over.
pub type Epoch = u64;

/// A commit under way. It goes on when this is dropped.
pub type Commit = Pin<Box<dyn Future<Output = Result<(), StoreError>> + Send>>;

/// The niceness of the driver's thread and of the one that makes its commits durable: every change passes through them, one after another, so they go
/// before the many that wait for them. Where the system does not allow it they only wait their turn. On Linux it is a thread's own.
pub const NICENESS: i32 = -5;

/// Where records are kept.
#[async_trait]
pub trait Store: Send {
    /// Every record there is, in any order.
    async fn load(&mut self) -> Result<Vec<Record>, StoreError>;

    /// Begins a commit: all of the batch or nothing, durable when the answer says so. Whoever begins the next one before that answer has it
    /// carried out after this one.
    fn commit(&mut self, epoch: Epoch, batch: Vec<Change>) -> Commit;

    /// Takes the store over; every lower epoch is refused from now on.
    async fn elect(&mut self) -> Result<Epoch, StoreError>;
}
