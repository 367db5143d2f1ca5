//! A brick as one file, out and in. Works beside a running server and without one: the brick's lock keeps them apart.
//!
//! A backup is taken of a brick that is not mounted, or of one that stands still (frozen) while it is copied; where the pool's disk can share
//! blocks between files, it stands still for a moment only. A restore reads the whole backup first, makes a new image of it, checks that, and
//! puts it in place at once: until then the old data is untouched.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufReader, BufWriter},
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use rustix::fs::{CWD, OFlags, RenameFlags};

pub use self::format::Header;
use self::{
    format::{Reader, Record, Writer},
    freeze::Frozen,
};
use super::{
    BrickError, Settings, durable, file_system,
    local::Local,
    loop_device, mounts, name,
    pool::{Draft, MIB, Pool},
};
use crate::model::{
    app::FileSystem,
    brick::DEFAULT_POOL,
    id::{BrickName, PoolName},
    time::Timestamp,
};

pub mod format;
pub mod freeze;

/// How long a backup or restore waits for a server that is just mounting or releasing the brick.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);

/// Told how far it is, asked whether to go on.
pub trait Watch {
    /// `done` of about `total` bytes.
    fn progress(&mut self, done: u64, total: u64);

    /// True: clean up and end.
    fn is_stopped(&self) -> bool;
}

/// What to back up, and where to.
#[derive(Clone, Debug)]
pub struct Backup {
    /// The server's directory.
    pub work_dir: PathBuf,
    /// Which brick.
    pub brick: BrickName,
    /// The file to make.
    pub file: PathBuf,
    /// Copy it while it is mounted; its service stands still meanwhile.
    pub freeze: bool,
    /// Replace the file if it exists.
    pub force: bool,
}

/// What to restore, and where from.
#[derive(Clone, Debug)]
pub struct Restore {
    /// The server's directory.
    pub work_dir: PathBuf,
    /// Which brick; it may be another than the one that was backed up.
    pub brick: BrickName,
    /// The backup.
    pub file: PathBuf,
    /// Where to make the brick if it does not exist; `None`: as it was.
    pub pool: Option<PoolName>,
}

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// What the backup says of itself.
    pub header: Header,
    /// Bytes of data in it, without holes.
    pub data: u64,
}

impl Backup {
    /// Writes the backup. On any error, and when it is stopped, there is no file, and the brick is not frozen.
    ///
    /// # Errors
    /// The brick is in use, the file exists, the disk is full, and so on.
    pub fn run(&self, watch: &mut dyn Watch) -> Result<Summary, BrickError> {
        let local = existing(&self.work_dir)?;
        name::brick(&self.brick)?;
        self.check_file()?;
        let _lock = local.lock(&self.brick, "backup", LOCK_PATIENCE)?;
        let pool = local.pool_of(&self.brick)?.ok_or_else(|| no_brick(&local, &self.brick))?;
        let target = local.target(&self.brick);
        if local.mounted_device(pool.as_ref(), &self.brick)?.is_none() {
            free_or_busy(pool.as_ref(), &self.brick, &target)?;
            return self.copy(pool.as_ref(), &pool.data_path(&self.brick), false, watch);
        }
        if !self.freeze {
            return Err(BrickError::Refused(format!(
                "brick '{}' is mounted: stop its service first, or let the service stand still for the backup with --freeze",
                self.brick
            )));
        }
        self.check_not_inside(&target)?;
        self.copy_frozen(pool.as_ref(), &target, watch)
    }

    fn copy_frozen(&self, pool: &dyn Pool, target: &Path, watch: &mut dyn Watch) -> Result<Summary, BrickError> {
        let data = pool.data_path(&self.brick);
        let draft = pool.draft(&self.brick, 0)?;
        let frozen = Frozen::begin(target)?;
        let source = if share_blocks(&data, draft.path()).is_ok() {
            frozen.end()?;
            return self.copy(pool, draft.path(), true, watch);
        } else {
            &data
        };
        let done = self.copy(pool, source, true, watch);
        frozen.end()?;
        done
    }

    fn copy(&self, pool: &dyn Pool, source: &Path, frozen: bool, watch: &mut dyn Watch) -> Result<Summary, BrickError> {
        let failed = |error| BrickError::io(format!("cannot back up {} to {}", source.display(), self.file.display()), error);
        let image = File::open(source).map_err(failed)?;
        image.sync_all().map_err(failed)?;
        let meta = image.metadata().map_err(failed)?;
        let found = file_system::superblock(source).map_err(failed)?;
        let header = Header {
            version: format::VERSION,
            brick: self.brick.clone(),
            pool: pool.name().clone(),
            file_system: found.map_or(FileSystem::Ext4, |found| found.kind),
            size: meta.len(),
            created_at: now(),
            frozen,
        };
        let partial = Partial::create(&self.file).map_err(failed)?;
        let mut writer = Writer::begin(BufWriter::with_capacity(1 << 20, &partial.file), &header).map_err(failed)?;
        let total = meta.blocks() * 512;
        for_each_extent(&image, meta.len(), |offset, bytes| {
            writer.put(offset, bytes)?;
            watch.progress(writer.data(), total);
            if watch.is_stopped() { Err(io::ErrorKind::Interrupted.into()) } else { Ok(()) }
        })
        .map_err(stopped_or(failed))?;
        let data = writer.end().map_err(failed)?;
        partial.keep(&self.file, self.force).map_err(failed)?;
        Ok(Summary { header, data })
    }

    fn check_file(&self) -> Result<(), BrickError> {
        match fs::symlink_metadata(&self.file) {
            Ok(meta) if !meta.is_file() => Err(BrickError::Refused(format!("{} is no plain file", self.file.display()))),
            Ok(_) if !self.force => {
                Err(BrickError::Refused(format!("{} exists: choose another name, or replace it with --force", self.file.display())))
            }
            _ => Ok(()),
        }
    }

    /// Writing to a file system that stands still would wait for ever.
    fn check_not_inside(&self, target: &Path) -> Result<(), BrickError> {
        let failed = |error| BrickError::io(format!("cannot look at the directory of {}", self.file.display()), error);
        let directory = self.file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let is_inside = fs::metadata(directory).map_err(failed)?.dev() == fs::metadata(target).map_err(failed)?.dev();
        if is_inside {
            return Err(BrickError::Refused(format!("{} is on the brick itself, which stands still meanwhile", self.file.display())));
        }
        Ok(())
    }
}

impl Restore {
    /// Replaces the brick's data by the backup's. On any error, and when it is stopped, the old data is untouched.
    ///
    /// # Errors
    /// The backup is damaged, the brick is in use or too small, no room, and so on.
    pub fn run(&self, watch: &mut dyn Watch) -> Result<Summary, BrickError> {
        existing(&self.work_dir)?;
        name::brick(&self.brick)?;
        let summary = verify(&self.file, watch)?;
        self.run_verified(summary, watch)
    }

    /// The same for a backup that was [verified](verify) before.
    ///
    /// # Errors
    /// See [`Restore::run`].
    pub fn run_verified(&self, summary: Summary, watch: &mut dyn Watch) -> Result<Summary, BrickError> {
        let local = existing(&self.work_dir)?;
        name::brick(&self.brick)?;
        let _lock = local.lock(&self.brick, "restore", LOCK_PATIENCE)?;
        let (pool, present) = self.place(&local, &summary.header)?;
        let size = present.unwrap_or(0).max(summary.header.size);
        local.check_room(pool.as_ref(), size - present.unwrap_or(0), summary.data)?;
        let draft = pool.draft(&self.brick, size)?;
        self.fill(draft.as_ref(), &summary, watch)?;
        self.check(draft.as_ref(), &summary.header)?;
        if watch.is_stopped() {
            return Err(stopped());
        }
        draft.keep()?;
        Ok(summary)
    }

    /// The pool, and the size of the brick that is replaced.
    fn place(&self, local: &Local, header: &Header) -> Result<(Box<dyn Pool>, Option<u64>), BrickError> {
        let target = local.target(&self.brick);
        let is_mounted = || mounts::table().map(|table| table.iter().any(|mount| mount.target == target));
        if is_mounted().map_err(|error| BrickError::io("cannot read the mount table", error))? {
            return Err(BrickError::Refused(format!("brick '{}' is mounted: stop its service first", self.brick)));
        }
        let Some(pool) = local.pool_of(&self.brick)? else {
            let pool = self.pool.clone().unwrap_or_else(|| header.pool.clone());
            let known = local.pool(&pool);
            return match (known, &self.pool) {
                (Err(_), None) => Ok((local.pool(&PoolName::new(DEFAULT_POOL))?, None)),
                (known, _) => Ok((known?, None)),
            };
        };
        free_or_busy(pool.as_ref(), &self.brick, &target)?;
        let present = pool.find(&self.brick)?.map_or(0, |stored| stored.size);
        if present < header.size {
            return Err(BrickError::Refused(format!(
                "brick '{}' has {} MiB, the backup needs {}: give the service a brick of that size and start it once, or delete the brick first",
                self.brick,
                present / MIB,
                header.size.div_ceil(MIB)
            )));
        }
        Ok((pool, Some(present)))
    }

    fn fill(&self, draft: &dyn Draft, expected: &Summary, watch: &mut dyn Watch) -> Result<(), BrickError> {
        let failed = |error| BrickError::io(format!("cannot restore {} to {}", self.file.display(), draft.path().display()), error);
        let image = OpenOptions::new().write(true).open(draft.path()).map_err(failed)?;
        let found = read(&self.file, watch, |offset, bytes| image.write_all_at(bytes, offset))?;
        image.sync_all().map_err(failed)?;
        if found == *expected { Ok(()) } else { Err(BrickError::Refused(format!("{} changed while it was read", self.file.display()))) }
    }

    fn check(&self, draft: &dyn Draft, header: &Header) -> Result<(), BrickError> {
        let (path, kind) = (draft.path(), header.file_system);
        if kind == FileSystem::Xfs {
            // Only mounting empties its log.
            let device = draft.attach()?;
            file_system::settle_xfs(device.path(), &self.brick)?;
            drop(device);
            wait_until_free(path)?;
            if header.brick != self.brick {
                file_system::renew_xfs_id(path, &self.brick)?;
            }
        }
        file_system::check_wholly(kind, path, &self.brick, path)
    }
}

/// Reads a backup from end to end.
///
/// # Errors
/// It is no backup, damaged or cut short.
pub fn verify(file: &Path, watch: &mut dyn Watch) -> Result<Summary, BrickError> {
    read(file, watch, |_, _| Ok(()))
}

fn read(file: &Path, watch: &mut dyn Watch, mut take: impl FnMut(u64, &[u8]) -> io::Result<()>) -> Result<Summary, BrickError> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::InvalidData => BrickError::Refused(format!("{} cannot be restored: {error}", file.display())),
        _ => BrickError::io(format!("cannot read {}", file.display()), error),
    };
    let source = File::open(file).map_err(failed)?;
    let total = source.metadata().map_err(failed)?.len();
    let mut reader = Reader::begin(BufReader::with_capacity(1 << 20, source)).map_err(failed)?;
    let mut buffer = Vec::new();
    loop {
        match reader.next(&mut buffer).map_err(failed)? {
            Record::Data { offset } => {
                take(offset, &buffer).map_err(|error| BrickError::io("cannot write the image", error))?;
                watch.progress(reader.data(), total);
            }
            Record::End => return Ok(Summary { header: reader.header().clone(), data: reader.data() }),
        }
        if watch.is_stopped() {
            return Err(stopped());
        }
    }
}

/// The work directory of a server that exists; limits on promises are the server's, a restore is a person's will.
fn existing(work_dir: &Path) -> Result<Local, BrickError> {
    if !work_dir.join("pools").is_dir() {
        return Err(BrickError::Refused(format!(
            "there are no bricks in {}: name the server's directory with --work_dir",
            work_dir.display()
        )));
    }
    Local::at(Settings { work_dir: work_dir.to_owned(), overcommit: f64::INFINITY, reserve: 64 })
}

fn no_brick(local: &Local, brick: &BrickName) -> BrickError {
    let known = local.names().unwrap_or_default();
    let known: Vec<&str> = known.iter().map(BrickName::as_str).take(20).collect();
    BrickError::Refused(match &known[..] {
        [] => format!("there is no brick '{brick}' on this machine, nor any other"),
        _ => format!("there is no brick '{brick}' on this machine; there are {}", known.join(", ")),
    })
}

fn free_or_busy(pool: &dyn Pool, brick: &BrickName, target: &Path) -> Result<(), BrickError> {
    match pool.detach(brick, target)? {
        Ok(()) => Ok(()),
        Err(holders) => Err(BrickError::Busy { brick: brick.clone(), by: mounts::name_holders(&holders) }),
    }
}

fn wait_until_free(image: &Path) -> Result<(), BrickError> {
    let failed = |error| BrickError::io(format!("cannot look at {}", image.display()), error);
    for _ in 0..500 {
        if loop_device::is_free(image).map_err(failed)? {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Err(BrickError::Refused(format!("{} is still in use by a loop device", image.display())))
}

/// Makes `copy` share all blocks of `image`; only some file systems can (xfs, btrfs).
fn share_blocks(image: &Path, copy: &Path) -> io::Result<()> {
    let (from, to) = (File::open(image)?, OpenOptions::new().write(true).open(copy)?);
    from.sync_all()?;
    Ok(rustix::fs::ioctl_ficlone(&to, &from)?)
}

/// Calls `each` with what is not zero, in order.
fn for_each_extent(image: &File, size: u64, mut each: impl FnMut(u64, &[u8]) -> io::Result<()>) -> io::Result<()> {
    let mut buffer = vec![0; format::MAX_RECORD_BYTES];
    let mut at = 0;
    while let Some((begin, end)) = next_extent(image, at, size)? {
        at = begin;
        while at < end {
            let length = usize::try_from(end - at).unwrap_or(usize::MAX).min(buffer.len());
            let bytes = &mut buffer[..length];
            image.read_exact_at(bytes, at)?;
            if bytes.iter().any(|byte| *byte != 0) {
                each(at, bytes)?;
            }
            at += length as u64;
        }
    }
    Ok(())
}

fn next_extent(image: &File, at: u64, size: u64) -> io::Result<Option<(u64, u64)>> {
    use rustix::{
        fs::{SeekFrom, seek},
        io::Errno,
    };
    if at >= size {
        return Ok(None);
    }
    match seek(image, SeekFrom::Data(at)) {
        Ok(begin) => Ok(Some((begin, seek(image, SeekFrom::Hole(begin))?.min(size)))),
        Err(Errno::NXIO) => Ok(None),
        // A block device, or a file system without holes.
        Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok(Some((at, size))),
        Err(error) => Err(error.into()),
    }
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

fn stopped() -> BrickError {
    BrickError::Refused("stopped; nothing has changed".to_owned())
}

fn stopped_or(failed: impl Fn(io::Error) -> BrickError) -> impl Fn(io::Error) -> BrickError {
    move |error| if error.kind() == io::ErrorKind::Interrupted { stopped() } else { failed(error) }
}

/// A file that is there only once it is complete.
struct Partial {
    file: File,
    path: PathBuf,
}

impl Partial {
    fn create(file: &Path) -> io::Result<Self> {
        let name = file.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_string_lossy();
        let path = file.with_file_name(format!(".{name}.partial"));
        let open =
            |options: &mut OpenOptions| options.write(true).mode(0o600).custom_flags(OFlags::NOFOLLOW.bits().cast_signed()).open(&path);
        // One that a killed backup left behind is used again.
        let file = open(OpenOptions::new().create(true).truncate(false))?;
        file.try_lock().map_err(|_| io::Error::other("another backup is just writing it"))?;
        file.set_len(0)?;
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
        Ok(Self { file, path })
    }

    fn keep(self, file: &Path, force: bool) -> io::Result<()> {
        self.file.sync_all()?;
        let flags = if force { RenameFlags::empty() } else { RenameFlags::NOREPLACE };
        rustix::fs::renameat_with(CWD, &self.path, CWD, file, flags)?;
        durable::sync_parent(file)
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // Gone already when it was kept.
        _ = fs::remove_file(&self.path);
    }
}
