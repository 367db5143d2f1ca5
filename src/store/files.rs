//! Small files that must never be half there, and file errors in plain words.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, ErrorKind, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::Path,
};

use super::StoreError;

/// With less than this a file system counts as full: a table of the store has some MiB.
const NEXT_TO_NOTHING_BYTES: u64 = 8 << 20;

/// For its owner alone.
const PRIVATE: u32 = 0o700;

/// Everybody may pass, nobody else may look.
const PASSAGE: u32 = 0o711;

/// Replaces the content of `path` at once: whoever reads it, also after a crash, sees the old content or the new one.
///
/// # Errors
/// See [`failed`].
pub(super) fn replace(path: &Path, content: &[u8]) -> Result<(), StoreError> {
    let new = path.with_extension("new");
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(content)?;
        file.sync_all()?;
        std::fs::rename(&new, path)?;
        sync_directory(path.parent().unwrap_or(path))
    };
    write().map_err(|error| failed(&format!("cannot write {}", path.display()), &error))
}

/// The content of `path`; `None` when there is no such file.
///
/// # Errors
/// See [`failed`].
pub(super) fn read(path: &Path) -> Result<Option<Vec<u8>>, StoreError> {
    match std::fs::read(path) {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(&format!("cannot read {}", path.display()), &error)),
    }
}

/// Makes `path` and what is missing above it, for the owner alone. One that exists is left as it is.
///
/// # Errors
/// See [`failed`].
pub(super) fn create_directory(path: &Path) -> Result<(), StoreError> {
    create(path, PRIVATE)
}

/// As [`create_directory`], but everybody may pass through `path` and what is made above it.
///
/// # Errors
/// See [`failed`].
pub(super) fn create_passage(path: &Path) -> Result<(), StoreError> {
    create(path, PASSAGE)
}

fn create(path: &Path, mode: u32) -> Result<(), StoreError> {
    let create = || {
        DirBuilder::new().recursive(true).mode(mode).create(path)?;
        path.parent().map_or(Ok(()), sync_directory)
    };
    create().map_err(|error| failed(&format!("cannot create the directory {}", path.display()), &error))
}

/// Makes `path` a passage, and what lies directly in it its owner's alone; links, and what they lead to, stay as they are, and so do sockets.
///
/// # Errors
/// See [`failed`].
pub(super) fn make_private(path: &Path) -> Result<(), StoreError> {
    let set = |path: &Path, mode: u32| fs::set_permissions(path, fs::Permissions::from_mode(mode));
    let close = || -> io::Result<()> {
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let (kind, mode) = (entry.file_type()?, entry.metadata()?.mode() & 0o7777);
            if (kind.is_dir() || kind.is_file()) && mode & 0o077 != 0 {
                set(&entry.path(), mode & 0o700)?;
            }
        }
        if fs::metadata(path)?.mode() & 0o7777 != PASSAGE { set(path, PASSAGE) } else { Ok(()) }
    };
    close().map_err(|error| failed(&format!("cannot close {} to others", path.display()), &error))
}

/// Makes the names in `path` durable.
pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    // A relative path of one segment has the empty path above it.
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    File::open(path)?.sync_all()
}

/// True when the file system of `path` has next to nothing left.
pub(super) fn is_full(path: &Path) -> bool {
    rustix::fs::statvfs(path).is_ok_and(|file_system| file_system.f_bavail.saturating_mul(file_system.f_frsize) < NEXT_TO_NOTHING_BYTES)
}

/// `error` with what to do about it.
pub(super) fn failed(what: &str, error: &io::Error) -> StoreError {
    let hint = match error.kind() {
        ErrorKind::StorageFull => "; free some space on that file system and start again",
        ErrorKind::QuotaExceeded => "; raise the quota or free some space, and start again",
        ErrorKind::PermissionDenied => "; run as the owner of that directory (usually root), or choose another --work_dir",
        ErrorKind::ReadOnlyFilesystem => {
            "; remount it for writing (the kernel's log says why it is read-only), or choose another --work_dir"
        }
        ErrorKind::NotADirectory | ErrorKind::AlreadyExists => "; something else is in the way: move it, or choose another --work_dir",
        _ if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => "; the disk may be failing: see the kernel's log",
        _ => "",
    };
    StoreError::Failed { what: what.to_owned(), reason: format!("{error}{hint}") }
}
