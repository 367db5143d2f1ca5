//! Backups on their way over the network: files in `<work_dir>/spool`, which live as long as somebody uses them and never take the disk's reserve.
//!
//! A backup is written and checked as a whole before it is sent or taken, because a restore reads it twice, and because a brick that stands still
//! must not wait for a slow client.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use uuid::Uuid;

use super::{
    BrickError,
    backup::{Backup, Restore, Summary, Watch, verify},
    pool::MIB,
};
use crate::model::id::BrickName;

/// The free space is looked at each time that this much was written, bytes.
const LOOK_EVERY: u64 = 16 * MIB;

/// Why a brick did not go over the network.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The disk's reserve would be touched.
    #[error("{path} has only {free} MiB free, and {reserve} MiB stay in reserve: free some space, or lower --brick_reserve")]
    NoRoom {
        /// The directory.
        path: PathBuf,
        /// MiB.
        free: u64,
        /// MiB.
        reserve: u64,
    },
    /// What came is no backup, or damaged, or cut short.
    #[error("{0}")]
    Damaged(String),
    /// The brick is in use, too small, not there, and so on.
    #[error(transparent)]
    Brick(#[from] BrickError),
}

/// Where files are spooled.
#[derive(Clone, Debug)]
pub struct Spool {
    work_dir: PathBuf,
    reserve: u64,
}

/// A file that is removed when it is dropped.
#[derive(Debug)]
pub struct Spooled {
    path: PathBuf,
    file: File,
    written: u64,
    looked_at: u64,
    spool: Spool,
}

impl Spool {
    /// In this server's directory, of whose disk `reserve` MiB stay free. What a server before has left there is removed.
    ///
    /// # Errors
    /// The directory cannot be made.
    pub fn open(work_dir: &Path, reserve: u64) -> Result<Self, BrickError> {
        let spool = Self { work_dir: work_dir.to_owned(), reserve };
        let directory = spool.directory();
        let failed = |error| BrickError::io(format!("cannot use {}", directory.display()), error);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory).map_err(failed)?;
        for entry in fs::read_dir(&directory).map_err(failed)?.filter_map(Result::ok) {
            if let Err(error) = fs::remove_file(entry.path()) {
                tracing::warn!(path = %entry.path().display(), %error, "A backup that was left behind cannot be removed.");
            }
        }
        Ok(spool)
    }

    fn directory(&self) -> PathBuf {
        self.work_dir.join("spool")
    }

    /// # Errors
    /// Less than the reserve would be left after `more` bytes.
    fn check_room(&self, more: u64) -> Result<(), SpoolError> {
        let path = self.directory();
        let stat =
            rustix::fs::statvfs(&path).map_err(|error| BrickError::io(format!("cannot look at {}", path.display()), error.into()))?;
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        if free < (self.reserve * MIB).saturating_add(more) {
            return Err(SpoolError::NoRoom { path, free: free / MIB, reserve: self.reserve });
        }
        Ok(())
    }

    /// A new file, empty.
    ///
    /// # Errors
    /// It cannot be made, or there is no room.
    pub fn create(&self) -> Result<Spooled, SpoolError> {
        self.check_room(0)?;
        let path = self.directory().join(format!("{}.brick", Uuid::new_v4()));
        let made = OpenOptions::new().create_new(true).read(true).write(true).mode(0o600).open(&path);
        let file = made.map_err(|error| BrickError::io(format!("cannot make {}", path.display()), error))?;
        Ok(Spooled { path, file, written: 0, looked_at: 0, spool: self.clone() })
    }

    /// Backs a brick up into a new file; see [`Backup`]. Blocks. It ends when `is_stopped` says so.
    ///
    /// # Errors
    /// See [`SpoolError`].
    pub fn back_up(&self, brick: &BrickName, freeze: bool, is_stopped: &dyn Fn() -> bool) -> Result<Spooled, SpoolError> {
        let mut spooled = self.create()?;
        let file = spooled.path.clone();
        let backup = Backup { work_dir: self.work_dir.clone(), brick: brick.clone(), file, freeze, force: true };
        let mut watch = RoomWatch { spool: self, looked_at: 0, no_room: None, is_stopped };
        let done = backup.run(&mut watch);
        if let Some(no_room) = watch.no_room {
            return Err(no_room);
        }
        done?;
        // The backup was put in the place of the empty file.
        spooled.file =
            File::open(&spooled.path).map_err(|error| BrickError::io(format!("cannot open {}", spooled.path.display()), error))?;
        Ok(spooled)
    }

    /// Puts a file in place of a brick's data; see [`Restore`]. Blocks.
    ///
    /// # Errors
    /// See [`SpoolError`].
    pub fn restore(&self, brick: &BrickName, spooled: &Spooled, is_stopped: &dyn Fn() -> bool) -> Result<Summary, SpoolError> {
        let mut watch = RoomWatch { spool: self, looked_at: 0, no_room: None, is_stopped };
        let verified = verify(&spooled.path, &mut watch);
        if let Some(no_room) = watch.no_room.take() {
            return Err(no_room);
        }
        let summary = match verified {
            Err(BrickError::Refused(reason)) if !is_stopped() => {
                // The client knows no path of ours.
                return Err(SpoolError::Damaged(reason.replace(&*spooled.path.to_string_lossy(), "the backup")));
            }
            other => other?,
        };
        self.check_room(summary.data)?;
        let restore = Restore { work_dir: self.work_dir.clone(), brick: brick.clone(), file: spooled.path.clone(), pool: None };
        let done = restore.run_verified(summary, &mut watch);
        match watch.no_room {
            Some(no_room) => Err(no_room),
            None => Ok(done?),
        }
    }
}

impl Spooled {
    /// Appends.
    ///
    /// # Errors
    /// The disk is full, or its reserve would be touched.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), SpoolError> {
        self.written += bytes.len() as u64;
        if self.written - self.looked_at >= LOOK_EVERY {
            self.looked_at = self.written;
            self.spool.check_room(0)?;
        }
        self.file.write_all(bytes).map_err(|error| BrickError::io("cannot keep the backup", error).into())
    }

    /// Its length, bytes.
    ///
    /// # Errors
    /// It cannot be looked at.
    pub fn length(&self) -> io::Result<u64> {
        self.file.metadata().map(|meta| meta.len())
    }

    /// Reads on; an empty piece is the end.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read(&mut self, at: u64, bytes: usize) -> io::Result<Vec<u8>> {
        let mut piece = vec![0; bytes];
        let length = std::os::unix::fs::FileExt::read_at(&self.file, &mut piece, at)?;
        piece.truncate(length);
        Ok(piece)
    }
}

impl Drop for Spooled {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "A backup that is not needed any more cannot be removed.");
        }
    }
}

struct RoomWatch<'a> {
    spool: &'a Spool,
    looked_at: u64,
    no_room: Option<SpoolError>,
    is_stopped: &'a dyn Fn() -> bool,
}

impl Watch for RoomWatch<'_> {
    fn progress(&mut self, done: u64, _total: u64) {
        if done.abs_diff(self.looked_at) >= LOOK_EVERY {
            self.looked_at = done;
            self.no_room = self.no_room.take().or_else(|| self.spool.check_room(0).err());
        }
    }

    fn is_stopped(&self) -> bool {
        self.no_room.is_some() || (self.is_stopped)()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spooled_file_goes_with_its_user_and_leftovers_with_the_server() {
        let directory = tempfile::tempdir().unwrap();
        let spool = Spool::open(directory.path(), 0).unwrap();
        let mut spooled = spool.create().unwrap();
        spooled.write(b"some ").unwrap();
        spooled.write(b"data").unwrap();
        assert_eq!(spooled.length().unwrap(), 9);
        assert_eq!((spooled.read(5, 100).unwrap(), spooled.read(9, 100).unwrap()), (b"data".to_vec(), Vec::new()));
        let files = || fs::read_dir(directory.path().join("spool")).unwrap().count();
        assert_eq!(files(), 1);
        drop(spooled);
        assert_eq!(files(), 0);
        fs::write(directory.path().join("spool/left.brick"), "x").unwrap();
        Spool::open(directory.path(), 0).unwrap();
        assert_eq!(files(), 0);
    }

    #[test]
    fn the_reserve_stays_free() {
        let directory = tempfile::tempdir().unwrap();
        let spool = Spool::open(directory.path(), 1 << 40).unwrap();
        let error = spool.create().unwrap_err().to_string();
        assert!(error.contains("MiB stay in reserve: free some space, or lower --brick_reserve"), "{error}");
    }
}
