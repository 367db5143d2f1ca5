//! Storage on this machine: pools, mounts and their rebuilding after a crash. Decides nothing about who may hold a brick: it is told a lease, and
//! refuses one that is older than it has seen.
//!
//! | part | what it does |
//! | --- | --- |
//! | [`local`] | the steps themselves, blocking; state is read from the kernel each time |
//! | [`pool`] | where bricks are allocated and how they become block devices; one file a kind |
//! | [`loop_device`] | image files as block devices, bound at most once |
//! | [`file_system`] | ext4 and xfs: make, check, mount, grow |
//! | [`mounts`] | the mount table, and who keeps a device busy |
//! | [`lease`] | which leases were seen, durably |
//! | [`lock`] | one server a directory; server, backup and restore one after the other |
//! | [`backup`] | one file out, one file in |
//! | [`spool`] | backups on their way over the network |
//! | [`name`], [`durable`], [`tool`], [`ioctl`] | names as file names, atomic files, running tools, system calls |
//!
//! Never two holders, from the inside out: the kernel keeps the `flock` of an image as long as a loop device is bound to it; steps for a brick
//! come one at a time, across processes; a lease that ended is remembered on the disk; and a release is believed only when the device is free.

use std::{
    collections::HashMap,
    io,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use self::{local::Local, lock::Lock};
use crate::model::{
    brick::BrickMount,
    id::{BrickName, PoolName},
};

pub mod backup;
pub mod durable;
pub mod file_system;
pub mod ioctl;
pub mod lease;
pub mod local;
pub mod lock;
pub mod loop_device;
pub mod mounts;
pub mod name;
pub mod pool;
pub mod spool;
pub mod tool;

#[cfg(test)]
mod tests;

/// How long a caller waits for an answer. What takes longer, such as the check of a large damaged file system, goes on; the caller asks again.
pub const ANSWER_LIMIT: Duration = Duration::from_secs(60);

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
    /// Another lease has it mounted, or its device is still in use. Asking again later may help.
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
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

impl BrickError {
    fn io(what: impl Into<String>, source: io::Error) -> Self {
        Self::Io { what: what.into(), source }
    }
}

/// How full a pool is. Sizes in MiB.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolStatus {
    /// Its name.
    pub pool: PoolName,
    /// What its disk holds altogether.
    pub capacity: u64,
    /// What is left on its disk.
    pub free: u64,
    /// The sum of the bricks' sizes.
    pub promised: u64,
    /// What the bricks really take.
    pub taken: u64,
    /// How many bricks.
    pub bricks: usize,
    /// True when less than twice the reserve is free: time to act.
    pub is_low: bool,
}

/// The bricks of this machine. At most one in a work directory at a time.
#[derive(Debug)]
pub struct Bricks {
    inner: Arc<Inner>,
    /// One gate a brick, so that steps for it come one at a time; entries that nobody waits at are removed.
    gates: Mutex<HashMap<BrickName, Arc<tokio::sync::Mutex<()>>>>,
}

#[derive(Debug)]
struct Inner {
    local: Local,
    _alone: Lock,
}

impl Bricks {
    /// Reads what is there: image files, mount table, loop devices. Changes nothing but left-over half-made images.
    ///
    /// # Errors
    /// The directory cannot be used, or another server uses it.
    pub async fn open(settings: Settings) -> Result<Self, BrickError> {
        let inner = blocking(move || {
            let local = Local::at(settings)?;
            let alone = local.serve_alone()?;
            local.tidy()?;
            Ok(Inner { local, _alone: alone })
        })
        .await?;
        Ok(Self { inner: Arc::new(inner), gates: Mutex::default() })
    }

    /// Makes, checks, grows and mounts as needed, and answers the directory to give to the container (`data` on the brick's file system).
    /// Repeating it with the same epoch changes nothing. What an earlier lease has left mounted is released first.
    ///
    /// # Errors
    /// See [`BrickError`].
    pub async fn mount(&self, brick: &BrickMount) -> Result<PathBuf, BrickError> {
        let wanted = brick.clone();
        self.step(&brick.name, "mounting it", move |local| local.mount(&wanted)).await
    }

    /// Unmounts what `epoch` (or an earlier one) has mounted, and proves that its loop device is free. Succeeds when there is nothing to do; from
    /// then on `epoch` and everything below it is refused by [`Bricks::mount`] (also when this fails).
    ///
    /// # Errors
    /// [`BrickError::Busy`] while anything still holds the device; repeat it.
    pub async fn release(&self, brick: &BrickName, epoch: u64) -> Result<(), BrickError> {
        let name = brick.clone();
        self.step(brick, "releasing it", move |local| local.release(&name, epoch)).await
    }

    /// Deletes the data. Succeeds when there is none. Afterwards the name is as if it had never been used.
    ///
    /// # Errors
    /// [`BrickError::Busy`] while it is mounted.
    pub async fn destroy(&self, brick: &BrickName, pool: &PoolName) -> Result<(), BrickError> {
        let (name, pool) = (brick.clone(), pool.clone());
        self.step(brick, "deleting it", move |local| local.destroy(&name, &pool)).await
    }

    /// The mounted bricks: name, epoch, MiB in use, MiB of the file system.
    pub async fn mounted(&self) -> Vec<(BrickName, u64, u64, u64)> {
        self.look(Local::mounted).await
    }

    /// How full the pools are. Logs a warning when one becomes low: to be asked now and then.
    pub async fn pool_status(&self) -> Vec<PoolStatus> {
        self.look(Local::pool_status).await
    }

    async fn look<T: Send + 'static>(&self, look: fn(&Local) -> Result<Vec<T>, BrickError>) -> Vec<T> {
        let inner = self.inner.clone();
        match tokio::time::timeout(ANSWER_LIMIT, blocking(move || look(&inner.local))).await {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => {
                tracing::warn!(%error, "cannot look at the bricks");
                Vec::new()
            }
            Err(_) => {
                tracing::warn!("the disk does not answer: the bricks cannot be looked at");
                Vec::new()
            }
        }
    }

    async fn step<T, Step>(&self, brick: &BrickName, what: &str, step: Step) -> Result<T, BrickError>
    where
        T: Send + 'static,
        Step: FnOnce(&Local) -> Result<T, BrickError> + Send + 'static,
    {
        name::brick(brick)?;
        let slow = |by: String| BrickError::Busy { brick: brick.clone(), by };
        let turn = tokio::time::timeout(ANSWER_LIMIT, self.gate(brick).lock_owned());
        let turn = turn.await.map_err(|_| slow("by a step that has not ended yet, such as the check of its file system".to_owned()))?;
        let inner = self.inner.clone();
        let running = blocking(move || {
            let done = step(&inner.local);
            // Also when nobody waits for the answer any more: the next step begins only now.
            drop(turn);
            done
        });
        match tokio::time::timeout(ANSWER_LIMIT, running).await {
            Ok(done) => done,
            Err(_) => Err(slow(format!("by {what}, which takes more than {} s; it goes on", ANSWER_LIMIT.as_secs()))),
        }
    }

    fn gate(&self, brick: &BrickName) -> Arc<tokio::sync::Mutex<()>> {
        let mut gates = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
        gates.retain(|_, gate| Arc::strong_count(gate) > 1);
        gates.entry(brick.clone()).or_default().clone()
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, BrickError> + Send + 'static) -> Result<T, BrickError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => Err(BrickError::io("a step was broken off", io::Error::other(error))),
    }
}
