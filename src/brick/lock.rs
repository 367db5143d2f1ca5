//! Locks between processes: one for the directory (one server), one for each brick (server, backup, restore). The kernel drops them with the
//! process that holds them, however it ends.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{Read, Seek, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use super::BrickError;

/// How often a lock that is taken is tried again.
const POLL: Duration = Duration::from_millis(20);

/// A lock that is held until it is dropped.
#[derive(Debug)]
pub struct Lock {
    file: File,
    path: PathBuf,
}

/// Somebody else holds the lock: who, as far as is known.
#[derive(Debug)]
pub struct Taken(pub String);

impl Lock {
    /// Takes the lock at `path` for `purpose`, waiting up to `patience`.
    ///
    /// # Errors
    /// The file cannot be used; the inner error: somebody else holds it still.
    pub fn take(path: &Path, purpose: &str, patience: Duration) -> Result<Result<Lock, Taken>, BrickError> {
        let failed = |error| BrickError::io(format!("cannot lock {}", path.display()), error);
        let begun = Instant::now();
        loop {
            let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path).map_err(failed)?;
            match file.try_lock() {
                // The file may have been removed, by a holder that deleted the brick, after we opened it: then the lock is worth nothing.
                Ok(()) if is_at(&file, path) => {
                    file.set_len(0).map_err(failed)?;
                    write!(file, "{purpose}, process {}", std::process::id()).map_err(failed)?;
                    return Ok(Ok(Lock { file, path: path.to_owned() }));
                }
                Ok(()) => {}
                Err(TryLockError::WouldBlock) if begun.elapsed() >= patience => {
                    let mut holder = String::new();
                    // Whoever holds it may be writing its name just now.
                    _ = Read::by_ref(&mut file).take(200).read_to_string(&mut holder);
                    return Ok(Err(Taken(if holder.is_empty() { "another process".to_owned() } else { holder })));
                }
                Err(TryLockError::WouldBlock) => thread::sleep(POLL),
                Err(TryLockError::Error(error)) => return Err(failed(error)),
            }
        }
    }

    /// Gives the lock up for good and removes its file: for a brick that is deleted.
    pub fn remove(self) {
        // A file that stays behind does no harm.
        _ = fs::remove_file(&self.path);
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Only so that a later reader is not misled; closing the file is what unlocks.
        _ = self.file.rewind();
        _ = self.file.set_len(0);
    }
}

fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(open), Ok(named)) => (open.dev(), open.ino()) == (named.dev(), named.ino()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_has_one_holder_and_says_who_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let first = Lock::take(&path, "backup", Duration::ZERO).unwrap().unwrap();
        let Taken(holder) = Lock::take(&path, "server", Duration::ZERO).unwrap().unwrap_err();
        assert_eq!(holder, format!("backup, process {}", std::process::id()));
        first.remove();
        Lock::take(&path, "server", Duration::ZERO).unwrap().unwrap();
        Lock::take(&path, "server", Duration::ZERO).unwrap().unwrap();
    }
}
