//! The seam between bricks and what they are made of. One pool kind a file.
//!
//! Everything here blocks and may be slow. Calls for one brick come one at a time (the brick's lock is held); different bricks come in parallel.

use std::{fmt, path::Path};

use super::{BrickError, lease::Lease, mounts::Holder};
use crate::model::id::{BrickName, PoolName};

pub mod loopback;

/// MiB in bytes.
pub const MIB: u64 = 1024 * 1024;

/// A brick that exists in a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Which.
    pub name: BrickName,
    /// Bytes that were promised.
    pub size: u64,
    /// Bytes that it really takes.
    pub taken: u64,
}

/// How full a pool is; bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// What the pool could hold altogether.
    pub capacity: u64,
    /// What is left.
    pub free: u64,
}

/// A block device that is bound to a brick, by whomever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DeviceNumber(pub u32, pub u32);

/// A block device that we have just bound to a brick. Dropping it gives the brick up, unless it is mounted by then.
pub trait Attached: fmt::Debug {
    /// The block device.
    fn path(&self) -> &Path;
    /// Its number.
    fn number(&self) -> DeviceNumber;
}

/// Where bricks are allocated, and how they become block devices of this machine.
pub trait Pool: fmt::Debug + Send + Sync {
    /// Its name.
    fn name(&self) -> &PoolName;

    /// The bricks, and what is being made (it counts as promised already).
    ///
    /// # Errors
    /// The pool cannot be read.
    fn bricks(&self) -> Result<Vec<Stored>, BrickError>;

    /// How full it is.
    ///
    /// # Errors
    /// The pool cannot be asked.
    fn space(&self) -> Result<Space, BrickError>;

    /// One brick; `None`: it does not exist.
    ///
    /// # Errors
    /// The pool cannot be read.
    fn find(&self, brick: &BrickName) -> Result<Option<Stored>, BrickError>;

    /// Begins a brick of `size` bytes, all zero and taking no space yet. It does not exist before [`Draft::keep`], and is gone when the draft is
    /// dropped or the machine fails before.
    ///
    /// # Errors
    /// The pool cannot be written.
    fn draft(&self, brick: &BrickName, size: u64) -> Result<Box<dyn Draft>, BrickError>;

    /// Makes the brick `size` bytes long; never shorter. It is not attached.
    ///
    /// # Errors
    /// The pool cannot be written.
    fn grow(&self, brick: &BrickName, size: u64) -> Result<(), BrickError>;

    /// Binds the brick to a block device, exclusively: wherever in the pool's reach it is bound already, this fails.
    ///
    /// # Errors
    /// [`BrickError::Busy`] when it is bound already.
    fn attach(&self, brick: &BrickName) -> Result<Box<dyn Attached>, BrickError>;

    /// The block devices that this machine has bound to the brick; normally none or one.
    ///
    /// # Errors
    /// The kernel cannot be asked.
    fn attached(&self, brick: &BrickName) -> Result<Vec<DeviceNumber>, BrickError>;

    /// Unbinds what is bound and proves that nothing is; the brick is not mounted in our mount namespace any more.
    /// `Err(holders)` inside: something keeps it.
    ///
    /// # Errors
    /// The kernel cannot be asked.
    fn detach(&self, brick: &BrickName, target: &Path) -> Result<Result<(), Vec<Holder>>, BrickError>;

    /// Deletes the data of a brick that is not attached. One that does not exist is no error.
    ///
    /// # Errors
    /// The pool cannot be written.
    fn destroy(&self, brick: &BrickName) -> Result<(), BrickError>;

    /// What was seen of the brick's leases, whether it exists or not.
    ///
    /// # Errors
    /// It cannot be read.
    fn lease(&self, brick: &BrickName) -> Result<Lease, BrickError>;

    /// Remembers what was seen, durably.
    ///
    /// # Errors
    /// It cannot be written.
    fn set_lease(&self, brick: &BrickName, lease: Lease) -> Result<(), BrickError>;

    /// The brick's data as a file or block device, for backups and advice to people.
    fn data_path(&self, brick: &BrickName) -> std::path::PathBuf;
}

/// A brick in the making.
pub trait Draft: fmt::Debug {
    /// What will be the brick: a file or block device to make a file system on, or to copy data to.
    fn path(&self) -> &Path;

    /// Binds it to a block device, which is given up when the answer is dropped.
    ///
    /// # Errors
    /// It cannot be bound.
    fn attach(&self) -> Result<Box<dyn Attached>, BrickError>;

    /// Makes it the brick, durably and at once; a brick of that name is replaced.
    ///
    /// # Errors
    /// The pool cannot be written; then nothing has changed.
    fn keep(self: Box<Self>) -> Result<(), BrickError>;
}
