//! The bricks of this machine, one blocking step after the other. What is mounted and bound is read from the kernel each time, so a crash leaves
//! nothing to repair here: every step can be repeated from wherever the last one stopped.
//!
//! Order of a mount: lease (durable), image, mount point, device, check, mount, growth. Order of a release: lease (durable), unmount, device.

use std::{
    collections::BTreeSet,
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use rustix::{fs::IFlags, io::Errno, mount::UnmountFlags};

use super::{
    BrickError, PoolStatus, Settings, file_system, ioctl,
    lease::Lease,
    lock::{Lock, Taken},
    loop_device::{self, LOOP_MAJOR},
    mounts::{self, Mount},
    name,
    pool::{DeviceNumber, MIB, Pool, Stored, loopback::Loopback},
};
use crate::model::{
    app::FileSystem,
    brick::{BrickMount, DEFAULT_POOL},
    id::{BrickName, PoolName},
};

/// How long a server waits for a backup or restore that has the brick.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);

/// How long another server on the same directory gets to end.
const SERVER_PATIENCE: Duration = Duration::from_secs(1);

/// How long a busy unmount is repeated: a look at the directory by somebody lasts only a moment.
const UNMOUNT_PATIENCE: Duration = Duration::from_secs(1);

/// How long a release may spend on giving unused space back to the pool.
const TRIM_LIMIT: Duration = Duration::from_millis(300);

/// Bytes that a brick may take beyond what its files need, before a release gives some back: the journal's size and some more.
const TRIM_WORTH: u64 = 48 * MIB;

const POLL: Duration = Duration::from_millis(20);

/// Mounts on top of each other that are removed; we make one.
const MAX_STACK: usize = 16;

/// The directory within the file system that the container sees, so that it is empty at first: `lost+found` stays outside (PostgreSQL, for
/// one, refuses a data directory with anything in it).
pub const DATA: &str = "data";

/// The bricks of one work directory.
#[derive(Debug)]
pub struct Local {
    settings: Settings,
    pools: PathBuf,
    targets: PathBuf,
    locks: PathBuf,
    /// Held from counting what is promised until the promise is on the disk.
    allocation: Mutex<()>,
    /// Pools whose lack of space has been told.
    alarmed: Mutex<BTreeSet<PoolName>>,
}

impl Local {
    /// Makes the directories that are missing.
    ///
    /// # Errors
    /// The directory cannot be used.
    pub fn at(settings: Settings) -> Result<Self, BrickError> {
        make_directory(&settings.work_dir)?;
        // The mount table knows directories by their real path.
        let work_dir = settings
            .work_dir
            .canonicalize()
            .map_err(|error| BrickError::io(format!("cannot use {}", settings.work_dir.display()), error))?;
        let (pools, targets) = (work_dir.join("pools"), work_dir.join("bricks"));
        let locks = targets.join(".locks");
        for directory in [&pools, &pools.join(DEFAULT_POOL), &targets, &locks] {
            make_directory(directory)?;
        }
        let settings = Settings { work_dir, ..settings };
        Ok(Self { settings, pools, targets, locks, allocation: Mutex::default(), alarmed: Mutex::default() })
    }

    /// Claims the directory for this one server.
    ///
    /// # Errors
    /// Another server has it.
    pub fn serve_alone(&self) -> Result<Lock, BrickError> {
        Lock::take(&self.locks.join(".server"), "server", SERVER_PATIENCE)?.map_err(|Taken(holder)| {
            BrickError::Refused(format!("the bricks in {} belong to another {holder}: stop it first", self.settings.work_dir.display()))
        })
    }

    /// Removes half-made images, and tells what is mounted.
    ///
    /// # Errors
    /// A pool cannot be read.
    pub fn tidy(&self) -> Result<(), BrickError> {
        for pool in self.loopbacks()? {
            pool.remove_drafts(|brick| !matches!(self.take(brick, "server", Duration::ZERO), Ok(Ok(_))))?;
        }
        for (brick, epoch, ..) in self.mounted()? {
            tracing::info!(%brick, epoch, "the brick is mounted already");
        }
        Ok(())
    }

    /// See [`super::Bricks::mount`].
    ///
    /// # Errors
    /// See there.
    pub fn mount(&self, wanted: &BrickMount) -> Result<PathBuf, BrickError> {
        let brick = &wanted.name;
        name::brick(brick)?;
        let pool = self.pool(&wanted.pool)?;
        let _lock = self.lock(brick, "server", LOCK_PATIENCE)?;
        let lease = self.lease(brick)?;
        if let Some(seen) = lease.later_than(wanted.epoch) {
            return Err(BrickError::Stale { brick: brick.clone(), epoch: wanted.epoch, seen });
        }
        match self.pool_of(brick)? {
            Some(other) if other.name() != pool.name() => {
                return Err(BrickError::Refused(format!("brick '{brick}' is in pool '{}', not in '{}'", other.name(), pool.name())));
            }
            _ => {}
        }
        let is_same_lease = lease.held == wanted.epoch;
        if is_same_lease && let Some(device) = self.mounted_device(pool.as_ref(), brick)? {
            return self.complete(pool.as_ref(), brick, device);
        }
        self.free(Some(pool.as_ref()), brick)?;
        self.provide(pool.as_ref(), wanted)?;
        pool.set_lease(brick, Lease { held: wanted.epoch, ..lease })?;
        self.mount_free(pool.as_ref(), wanted)
    }

    /// See [`super::Bricks::release`].
    ///
    /// # Errors
    /// See there.
    pub fn release(&self, brick: &BrickName, epoch: u64) -> Result<(), BrickError> {
        name::brick(brick)?;
        let _lock = self.lock(brick, "server", LOCK_PATIENCE)?;
        let lease = self.lease(brick)?;
        let pool = self.pool_of(brick)?;
        if lease.released < epoch {
            let over = Lease { released: epoch, ..lease };
            pool.as_deref().map_or_else(|| self.default_pool().set_lease(brick, over), |pool| pool.set_lease(brick, over))?;
        }
        // A later lease has it: nothing of this one can be left.
        if lease.held > epoch { Ok(()) } else { self.free(pool.as_deref(), brick) }
    }

    /// See [`super::Bricks::destroy`].
    ///
    /// # Errors
    /// See there.
    pub fn destroy(&self, brick: &BrickName, pool: &PoolName) -> Result<(), BrickError> {
        name::brick(brick)?;
        name::pool(pool)?;
        let lock = self.lock(brick, "server", LOCK_PATIENCE)?;
        let target = self.target(brick);
        if !self.mounts_at(&target)?.is_empty() {
            return Err(BrickError::Busy { brick: brick.clone(), by: format!("mounted at {}", target.display()) });
        }
        let has_pool = self.pools.join(name::pool(pool)?).is_dir();
        if !has_pool && target.exists() {
            return Err(BrickError::Refused(format!(
                "the data of brick '{brick}' is in pool '{pool}', whose directory {} is missing",
                self.pools.join(name::pool(pool)?).display()
            )));
        }
        self.free(self.pool_of(brick)?.as_deref(), brick)?;
        // The mount point goes first: without it, an image that a crash leaves behind is simply found again.
        self.remove_target(&target)?;
        if has_pool {
            self.pool(pool)?.destroy(brick)?;
        }
        self.default_pool().destroy(brick)?;
        lock.remove();
        Ok(())
    }

    /// The mounted bricks: name, epoch, MiB in use, MiB of the file system.
    ///
    /// # Errors
    /// The mount table or a pool cannot be read.
    pub fn mounted(&self) -> Result<Vec<(BrickName, u64, u64, u64)>, BrickError> {
        let mut found = Vec::new();
        for mount in self.table()? {
            let Ok(Some(brick)) = mount.target.strip_prefix(&self.targets).map(Path::to_str) else { continue };
            let brick = BrickName::new(brick);
            if name::brick(&brick).is_err() {
                continue;
            }
            let usage = rustix::fs::statvfs(&mount.target);
            let (used, size) = usage
                .map_or((0, 0), |usage| ((usage.f_blocks - usage.f_bfree) * usage.f_frsize / MIB, usage.f_blocks * usage.f_frsize / MIB));
            found.push((brick.clone(), self.lease(&brick).unwrap_or_default().held, used, size));
        }
        Ok(found)
    }

    /// See [`super::Bricks::pool_status`].
    ///
    /// # Errors
    /// A pool cannot be read.
    pub fn pool_status(&self) -> Result<Vec<PoolStatus>, BrickError> {
        self.loopbacks()?.iter().map(|pool| self.status_of(pool)).collect()
    }

    /// The bricks of all pools.
    ///
    /// # Errors
    /// A pool cannot be read.
    pub fn names(&self) -> Result<Vec<BrickName>, BrickError> {
        let mut names = Vec::new();
        for pool in self.loopbacks()? {
            names.extend(pool.bricks()?.into_iter().map(|brick| brick.name).filter(|brick| name::brick(brick).is_ok()));
        }
        Ok(names)
    }

    /// The pool that has the brick.
    ///
    /// # Errors
    /// A pool cannot be read.
    pub fn pool_of(&self, brick: &BrickName) -> Result<Option<Box<dyn Pool>>, BrickError> {
        for pool in self.loopbacks()? {
            if pool.find(brick)?.is_some() {
                return Ok(Some(Box::new(pool)));
            }
        }
        Ok(None)
    }

    /// The pool of that name.
    ///
    /// # Errors
    /// There is none.
    pub fn pool(&self, pool: &PoolName) -> Result<Box<dyn Pool>, BrickError> {
        let directory = self.pools.join(name::pool(pool)?);
        if directory.is_dir() {
            return Ok(Box::new(Loopback::new(pool.clone(), directory)));
        }
        let known: Vec<String> = self.loopbacks()?.iter().map(|pool| pool.name().to_string()).collect();
        Err(BrickError::Refused(format!(
            "there is no pool '{pool}' on this machine, only {}: mkdir -m 700 {} makes it (a disk of its own is mounted there)",
            known.join(", "),
            directory.display()
        )))
    }

    /// Where the brick is mounted.
    pub fn target(&self, brick: &BrickName) -> PathBuf {
        self.targets.join(brick.as_str())
    }

    /// Keeps every other process, and every other step, away from the brick.
    ///
    /// # Errors
    /// [`BrickError::Busy`] when somebody has it for longer than `patience`.
    pub fn lock(&self, brick: &BrickName, purpose: &str, patience: Duration) -> Result<Lock, BrickError> {
        self.take(brick, purpose, patience)?.map_err(|Taken(holder)| BrickError::Busy { brick: brick.clone(), by: holder })
    }

    /// Mounted where it belongs, once, from its own device: that device.
    ///
    /// # Errors
    /// The kernel cannot be asked.
    pub fn mounted_device(&self, pool: &dyn Pool, brick: &BrickName) -> Result<Option<DeviceNumber>, BrickError> {
        let mounts = self.mounts_at(&self.target(brick))?;
        let attached = pool.attached(brick)?;
        Ok(match (&mounts[..], &attached[..]) {
            ([mount], [device]) if mount.device == (device.0, device.1) => Some(*device),
            _ => None,
        })
    }

    /// Refuses what the pool has no room for: `promise` more bytes for bricks, of which `cost` are taken at once.
    ///
    /// # Errors
    /// The text says what to do.
    pub fn check_room(&self, pool: &dyn Pool, promise: u64, cost: u64) -> Result<(), BrickError> {
        let space = pool.space()?;
        let promised: u64 = pool.bricks()?.iter().map(|brick| brick.size).sum();
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a limit need not be exact"
        )]
        let limit = (space.capacity as f64 * self.settings.overcommit) as u64;
        if promised.saturating_add(promise) > limit {
            return Err(BrickError::Refused(format!(
                "pool '{}' has promised {} MiB to its bricks and may promise {} MiB ({} times its {} MiB); {} MiB more were asked for: ask for \
                 less, delete bricks that nobody needs, or raise the overcommit limit",
                pool.name(),
                promised / MIB,
                limit / MIB,
                self.settings.overcommit,
                space.capacity / MIB,
                promise / MIB,
            )));
        }
        let reserve = self.settings.reserve * MIB;
        if space.free < reserve.saturating_add(cost) {
            return Err(BrickError::Refused(format!(
                "pool '{}' has only {} MiB of its disk free, and {} MiB stay in reserve: free some space, or lower the reserve",
                pool.name(),
                space.free / MIB,
                self.settings.reserve
            )));
        }
        Ok(())
    }

    /// Makes sure that nothing has the brick: unmounts it here, unbinds its devices, and proves that they are free.
    ///
    /// # Errors
    /// [`BrickError::Busy`], naming who keeps it.
    pub fn free(&self, pool: Option<&dyn Pool>, brick: &BrickName) -> Result<(), BrickError> {
        let target = self.target(brick);
        let busy = |by: String| BrickError::Busy { brick: brick.clone(), by };
        let mut devices = BTreeSet::new();
        for _ in 0..MAX_STACK {
            let Some(mount) = self.mounts_at(&target)?.pop() else { break };
            devices.insert(mount.device);
            if let Some(pool) = pool {
                give_back(pool, brick, &target);
            }
            unmount(&target).map_err(|error| match error {
                Errno::BUSY => {
                    let holders = mounts::holders(mount.device, &loop_device::path(mount.device.1), &target);
                    busy(mounts::name_holders(&holders))
                }
                other => BrickError::io(format!("cannot unmount {}", target.display()), other.into()),
            })?;
        }
        if let Some(pool) = pool
            && let Err(holders) = pool.detach(brick, &target)?
        {
            return Err(busy(self.name_holders(&pool.attached(brick)?, &holders)?));
        }
        self.prove_unbound(devices, &target).map_err(busy)
    }

    /// A mount whose image has been removed or replaced is free too only when its device is.
    fn prove_unbound(&self, devices: BTreeSet<(u32, u32)>, target: &Path) -> Result<(), String> {
        let begun = Instant::now();
        for (major, number) in devices.into_iter().filter(|device| device.0 == LOOP_MAJOR) {
            while self.belongs_here(number) {
                if begun.elapsed() > UNMOUNT_PATIENCE {
                    let holders = mounts::holders((major, number), &loop_device::path(number), target);
                    return Err(mounts::name_holders(&holders));
                }
                thread::sleep(POLL);
            }
        }
        Ok(())
    }

    /// True when the loop device is bound to a removed file of one of our pools. (By now the number may serve somebody else.)
    fn belongs_here(&self, number: u32) -> bool {
        let file = fs::read_to_string(format!("/sys/block/loop{number}/loop/backing_file")).unwrap_or_default();
        Path::new(&file).starts_with(&self.pools) && file.trim_end().ends_with("(deleted)")
    }

    fn name_holders(&self, devices: &[DeviceNumber], holders: &[mounts::Holder]) -> Result<String, BrickError> {
        let elsewhere: Vec<String> = self
            .table()?
            .into_iter()
            .filter(|mount| devices.contains(&DeviceNumber(mount.device.0, mount.device.1)))
            .map(|mount| format!("a mount at {}", mount.target.display()))
            .collect();
        Ok(if elsewhere.is_empty() {
            mounts::name_holders(holders)
        } else {
            elsewhere.into_iter().chain(holders.iter().map(ToString::to_string)).take(mounts::MAX_HOLDERS).collect::<Vec<_>>().join(", ")
        })
    }

    /// Makes the brick, or makes it as large as is wanted.
    fn provide(&self, pool: &dyn Pool, wanted: &BrickMount) -> Result<(), BrickError> {
        let size = wanted.size.checked_mul(MIB).filter(|size| i64::try_from(*size).is_ok());
        let size = size.ok_or_else(|| BrickError::Refused(format!("{} MiB are too much for a brick", wanted.size)))?;
        match pool.find(&wanted.name)? {
            None => self.create(pool, wanted, size),
            Some(Stored { size: present, .. }) if size < present => Err(BrickError::Refused(format!(
                "brick '{}' has {} MiB and cannot be made smaller ({} MiB were asked for)",
                wanted.name,
                present / MIB,
                wanted.size
            ))),
            Some(Stored { size: present, .. }) if size > present => {
                let _allocation = self.allocation.lock().unwrap_or_else(PoisonError::into_inner);
                self.check_room(pool, size - present, 0)?;
                pool.grow(&wanted.name, size)
            }
            Some(_) => Ok(()),
        }
    }

    fn create(&self, pool: &dyn Pool, wanted: &BrickMount, size: u64) -> Result<(), BrickError> {
        let (brick, kind) = (&wanted.name, wanted.file_system);
        if self.target(brick).exists() {
            return Err(BrickError::Refused(format!(
                "the data of brick '{brick}' is missing: it has been mounted before, but {} is not there. Is the pool's disk mounted? \
                 'xtao brick restore' brings a backup back; deleting the brick lets it begin anew",
                pool.data_path(brick).display()
            )));
        }
        if wanted.size < file_system::minimum(kind) {
            return Err(BrickError::Refused(format!(
                "a brick with {} has at least {} MiB ({} were asked for)",
                kind.as_str(),
                file_system::minimum(kind),
                wanted.size
            )));
        }
        let draft = {
            let _allocation = self.allocation.lock().unwrap_or_else(PoisonError::into_inner);
            self.check_room(pool, size, file_system::initial_cost(kind))?;
            pool.draft(brick, size)?
        };
        file_system::make(kind, draft.path(), brick, size)?;
        draft.keep()?;
        tracing::info!(%brick, pool = %pool.name(), size = wanted.size, file_system = kind.as_str(), "made the brick");
        Ok(())
    }

    fn mount_free(&self, pool: &dyn Pool, wanted: &BrickMount) -> Result<PathBuf, BrickError> {
        let (brick, target, data) = (&wanted.name, self.target(&wanted.name), pool.data_path(&wanted.name));
        make_target(&target)?;
        let device = pool.attach(brick)?;
        let failed = |error| BrickError::io(format!("cannot read {}", data.display()), error);
        let found = file_system::superblock(device.path()).map_err(failed)?;
        let kind = found.map_or(wanted.file_system, |found| found.kind);
        file_system::check(kind, device.path(), brick, &data)?;
        if !file_system::can_grow_mounted(kind) && self.is_short(pool, brick, device.path())?.is_some() {
            file_system::check_wholly(kind, device.path(), brick, &data)?;
            file_system::grow(kind, device.path(), &target, brick)?;
        }
        file_system::mount(kind, device.path(), &target, brick, &data)?;
        let done = self.complete(pool, brick, device.number());
        // From here on the mount keeps the device; if something went wrong, nothing should.
        drop(device);
        if done.is_err() {
            _ = unmount(&target);
        }
        done
    }

    /// What is left to do once it is mounted; repeating it changes nothing.
    fn complete(&self, pool: &dyn Pool, brick: &BrickName, device: DeviceNumber) -> Result<PathBuf, BrickError> {
        let target = self.target(brick);
        let failed = |error: io::Error| BrickError::io(format!("cannot prepare {}", target.display()), error);
        file_system::make_private(&target).map_err(|error| failed(error.into()))?;
        let path = loop_device::path(device.1);
        if let Some(kind) = self.is_short(pool, brick, &path)? {
            file_system::grow(kind, &path, &target, brick)?;
        }
        let data = target.join(DATA);
        if !data.is_dir() {
            DirBuilder::new().mode(0o755).create(&data).map_err(failed)?;
            File::open(&target).and_then(|directory| directory.sync_all()).map_err(failed)?;
        }
        if self.mounted_device(pool, brick)? != Some(device) {
            return Err(BrickError::Refused(format!("{} was mounted or unmounted by somebody else just now", target.display())));
        }
        Ok(data)
    }

    /// The kind of the file system, if it is smaller than its brick.
    fn is_short(&self, pool: &dyn Pool, brick: &BrickName, device: &Path) -> Result<Option<FileSystem>, BrickError> {
        let size = pool.find(brick)?.map_or(0, |stored| stored.size);
        let found = file_system::superblock(device).map_err(|error| BrickError::io(format!("cannot read {}", device.display()), error))?;
        Ok(found.filter(|found| found.size + MIB <= size).map(|found| found.kind))
    }

    fn remove_target(&self, target: &Path) -> Result<(), BrickError> {
        if let Ok(directory) = File::open(target) {
            // Where flags are not supported there is none to take away.
            _ = set_immutable(&directory, false);
        }
        match fs::remove_dir(target) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(BrickError::io(format!("cannot remove {}", target.display()), error))
            }
            _ => Ok(()),
        }
    }

    fn status_of(&self, pool: &dyn Pool) -> Result<PoolStatus, BrickError> {
        let (space, bricks) = (pool.space()?, pool.bricks()?);
        let status = PoolStatus {
            pool: pool.name().clone(),
            capacity: space.capacity / MIB,
            free: space.free / MIB,
            promised: bricks.iter().map(|brick| brick.size).sum::<u64>() / MIB,
            taken: bricks.iter().map(|brick| brick.taken).sum::<u64>() / MIB,
            bricks: bricks.iter().filter(|brick| !brick.name.as_str().starts_with('.')).count(),
            // Twice the reserve, so that people hear of it before anything is refused.
            is_low: space.free / MIB < self.settings.reserve.saturating_mul(2),
        };
        self.alarm(&status);
        Ok(status)
    }

    /// Says once that space is low, and once that it is not any more.
    fn alarm(&self, status: &PoolStatus) {
        let mut alarmed = self.alarmed.lock().unwrap_or_else(PoisonError::into_inner);
        if status.is_low && alarmed.insert(status.pool.clone()) {
            tracing::warn!(
                pool = %status.pool, free = status.free, promised = status.promised, reserve = self.settings.reserve,
                "the pool's disk is nearly full: bricks fail with input/output errors when it is; no brick is made or grown below the reserve"
            );
        } else if !status.is_low && alarmed.remove(&status.pool) {
            tracing::info!(pool = %status.pool, free = status.free, "the pool's disk has room again");
        }
    }

    fn take(&self, brick: &BrickName, purpose: &str, patience: Duration) -> Result<Result<Lock, Taken>, BrickError> {
        Lock::take(&self.locks.join(name::brick(brick)?), purpose, patience)
    }

    /// What any pool has seen: a lease may have ended before the brick was made.
    fn lease(&self, brick: &BrickName) -> Result<Lease, BrickError> {
        self.loopbacks()?.iter().try_fold(Lease::default(), |seen, pool| Ok(seen.or(pool.lease(brick)?)))
    }

    fn default_pool(&self) -> Loopback {
        Loopback::new(PoolName::new(DEFAULT_POOL), self.pools.join(DEFAULT_POOL))
    }

    fn loopbacks(&self) -> Result<Vec<Loopback>, BrickError> {
        let failed = |error| BrickError::io(format!("cannot read {}", self.pools.display()), error);
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.pools).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let name = path.file_name().and_then(|name| name.to_str()).map(PoolName::new);
            if let Some(name) = name.filter(|name| name::pool(name).is_ok() && path.is_dir()) {
                found.push(Loopback::new(name, path));
            }
        }
        found.sort_by(|a, b| a.name().cmp(b.name()));
        Ok(found)
    }

    fn mounts_at(&self, target: &Path) -> Result<Vec<Mount>, BrickError> {
        Ok(self.table()?.into_iter().filter(|mount| mount.target == target).collect())
    }

    fn table(&self) -> Result<Vec<Mount>, BrickError> {
        mounts::table().map_err(|error| BrickError::io("cannot read the mount table".to_owned(), error))
    }
}

fn make_directory(path: &Path) -> Result<(), BrickError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|error| BrickError::io(format!("cannot make the directory {}", path.display()), error))
}

/// An empty directory that nothing can be written to while nothing is mounted on it.
fn make_target(target: &Path) -> Result<(), BrickError> {
    make_directory(target)?;
    let failed = |error| BrickError::io(format!("cannot use {}", target.display()), error);
    if !fs::symlink_metadata(target).map_err(failed)?.is_dir() || fs::read_dir(target).map_err(failed)?.next().is_some() {
        return Err(BrickError::Refused(format!("{} is no empty directory: move away what is there", target.display())));
    }
    let directory = File::open(target).map_err(failed)?;
    match set_immutable(&directory, true) {
        Ok(()) => {}
        Err(error @ (Errno::NOTTY | Errno::OPNOTSUPP | Errno::PERM | Errno::INVAL)) => {
            tracing::warn!(directory = %target.display(), %error, "the mount point cannot be made immutable");
        }
        Err(error) => return Err(failed(error.into())),
    }
    Ok(())
}

/// Makes what is open immutable, or no longer so. The other flags stay: to ext4, leaving one out means to change it.
///
/// # Errors
/// The file system has no such flags, or the kernel says no.
pub(crate) fn set_immutable(directory: &File, is_immutable: bool) -> Result<(), Errno> {
    let mut flags = rustix::fs::ioctl_getflags(directory)?;
    if flags.contains(IFlags::IMMUTABLE) == is_immutable {
        return Ok(());
    }
    flags.set(IFlags::IMMUTABLE, is_immutable);
    rustix::fs::ioctl_setflags(directory, flags)
}

fn unmount(target: &Path) -> Result<(), Errno> {
    let begun = Instant::now();
    loop {
        match rustix::mount::unmount(target, UnmountFlags::NOFOLLOW) {
            Err(Errno::BUSY) if begun.elapsed() < UNMOUNT_PATIENCE => thread::sleep(POLL),
            done => return done,
        }
    }
}

/// Gives what the file system does not use back to the pool, if that is worth the time and as far as it reaches. Not being able to is no error.
fn give_back(pool: &dyn Pool, brick: &BrickName, target: &Path) {
    const STEP: u64 = 1024 * MIB;
    let (Ok(Some(stored)), Ok(usage)) = (pool.find(brick), rustix::fs::statvfs(target)) else { return };
    let used = (usage.f_blocks - usage.f_bfree) * usage.f_frsize;
    if stored.taken < used + used / 16 + TRIM_WORTH {
        return;
    }
    let Ok(directory) = File::open(target) else { return };
    // What was deleted counts as unused only once the deletion is written.
    _ = rustix::fs::syncfs(&directory);
    let begun = Instant::now();
    let mut start = 0;
    while begun.elapsed() < TRIM_LIMIT && ioctl::trim(&directory, start, STEP).is_ok() {
        start += STEP;
    }
}
