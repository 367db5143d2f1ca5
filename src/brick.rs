//! Storage on this machine: pools, mounts and their rebuilding after a crash. Decides nothing about who may hold a brick: it is told a lease, and
//! refuses one that is older than it has seen.

use std::path::PathBuf;

use crate::model::{
    brick::BrickMount,
    id::{BrickName, PoolName},
};

/// Where bricks live on this machine.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The server's directory: pools are `<work_dir>/pools/<pool>`, mount points `<work_dir>/bricks/<brick>`.
    pub work_dir: PathBuf,
    /// How far the sum of the bricks' sizes may exceed the pool's file system; 1.0 means not at all.
    pub overcommit: f64,
    /// MiB that must stay free on the pool's file system; below it no brick is made or grown.
    pub reserve: u64,
}

/// Why a brick could not be mounted, released or destroyed. The text is shown to the user.
#[derive(Debug, thiserror::Error)]
pub enum BrickError {
    /// A later lease was seen; this one is dead.
    #[error("lease {epoch} of brick '{brick}' is over: lease {seen} was seen")]
    Stale {
        /// The brick.
        brick: BrickName,
        /// What was asked with.
        epoch: u64,
        /// The latest seen.
        seen: u64,
    },
    /// Another lease has it mounted, or its device is still in use.
    #[error("brick '{brick}' is still in use: {by}")]
    Busy {
        /// The brick.
        brick: BrickName,
        /// By whom.
        by: String,
    },
    /// No room, too small, unknown pool, damaged file system, and so on: a sentence that says what to do.
    #[error("{0}")]
    Refused(String),
    /// A system call or a tool failed.
    #[error("{what}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
}

/// The bricks of this machine.
#[derive(Debug)]
pub struct Bricks {
    settings: Settings,
}

impl Bricks {
    /// Reads what is there: image files, mount table, loop devices. Changes nothing but left-over half-made images.
    ///
    /// # Errors
    /// The directory cannot be used.
    pub async fn open(settings: Settings) -> Result<Self, BrickError> {
        Ok(Self { settings })
    }

    /// Makes, checks, grows and mounts as needed, and answers where it is mounted. Repeating it with the same epoch changes nothing.
    ///
    /// # Errors
    /// See [`BrickError`].
    pub async fn mount(&self, brick: &BrickMount) -> Result<PathBuf, BrickError> {
        Err(BrickError::Refused(format!("brick '{}' in {}", brick.name, self.settings.work_dir.display())))
    }

    /// Unmounts what `epoch` (or an earlier one) has mounted, and proves that its loop device is free. Succeeds when there is nothing to do; from
    /// then on `epoch` and everything below it is refused by [`Bricks::mount`].
    ///
    /// # Errors
    /// [`BrickError::Busy`] while anything still holds the device.
    pub async fn release(&self, brick: &BrickName, epoch: u64) -> Result<(), BrickError> {
        let _ = epoch;
        Err(BrickError::Refused(format!("brick '{brick}'")))
    }

    /// Deletes the data. Succeeds when there is none.
    ///
    /// # Errors
    /// [`BrickError::Busy`] while it is mounted.
    pub async fn destroy(&self, brick: &BrickName, pool: &PoolName) -> Result<(), BrickError> {
        Err(BrickError::Refused(format!("brick '{brick}' in {pool}")))
    }

    /// The mounted bricks: name, epoch, MiB in use, MiB of the file system.
    pub async fn mounted(&self) -> Vec<(BrickName, u64, u64, u64)> {
        Vec::new()
    }
}
