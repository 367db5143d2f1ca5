//! The sandbox as a tree in which things are made: names are resolved by the kernel below its root, and no link on the way is followed.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    sync::Arc,
};

use rustix::{
    fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags},
    io::Errno,
};

use crate::cluster::engine::resolved;

/// A directory that nothing made through this leaves.
#[derive(Clone, Debug)]
pub(in crate::cluster::engine) struct Tree {
    root: Arc<OwnedFd>,
}

impl AsFd for Tree {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }
}

impl Tree {
    pub(in crate::cluster::engine) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(Self { root: Arc::new(rustix::fs::openat(CWD, path, flags, Mode::empty())?) })
    }

    /// Opens what is there, to be read.
    pub(in crate::cluster::engine) fn read(&self, path: &str) -> io::Result<File> {
        let (parent, name) = self.parent(path, false)?;
        // Without NONBLOCK a pipe in its place would be waited for.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&parent, name, flags, Mode::empty())?.into())
    }

    /// A new file, in the place of one that is there, with the directories that it needs.
    pub(super) fn create(&self, path: &str, mode: u32) -> io::Result<File> {
        let (parent, name) = self.parent(path, true)?;
        make_room(&parent, name)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&parent, name, flags, Mode::from_raw_mode(0o600))?;
        // Whatever this process' umask says.
        rustix::fs::fchmod(&file, Mode::from_raw_mode(mode & 0o777 | 0o600))?;
        Ok(file.into())
    }

    /// A directory, if there is none.
    pub(super) fn directory(&self, path: &str, mode: u32) -> io::Result<()> {
        let (parent, name) = self.parent(path, true)?;
        let made = below(&parent, name, true)?;
        rustix::fs::chmodat(&parent, name, Mode::from_raw_mode(mode & 0o777 | 0o700), AtFlags::empty())?;
        drop(made);
        Ok(())
    }

    /// A symbolic link, wherever it leads: nothing here goes through it.
    pub(in crate::cluster::engine) fn symlink(&self, path: &str, target: impl AsRef<Path>) -> io::Result<()> {
        let (parent, name) = self.parent(path, true)?;
        make_room(&parent, name)?;
        Ok(rustix::fs::symlinkat(target.as_ref(), &parent, name)?)
    }

    /// A second name for a plain file of the tree.
    pub(super) fn link(&self, path: &str, target: &str) -> io::Result<()> {
        let (from, from_name) = self.parent(target, false)?;
        let stat = rustix::fs::statat(&from, from_name, AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(io::Error::other("the target of a hard link is no plain file"));
        }
        let (parent, name) = self.parent(path, true)?;
        make_room(&parent, name)?;
        Ok(rustix::fs::linkat(&from, from_name, &parent, name, AtFlags::empty())?)
    }

    /// The directory in which the last part of `path` is, made if it is missing and `make` is set, and that part.
    fn parent<'a>(&self, path: &'a str, make: bool) -> io::Result<(OwnedFd, &'a str)> {
        let (folders, name) = path.rsplit_once('/').unwrap_or(("", path));
        if name.is_empty() || name == "." || name == ".." {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut at = self.root.as_ref().try_clone()?;
        for folder in folders.split('/').filter(|folder| !folder.is_empty() && *folder != ".") {
            at = below(&at, folder, make)?;
        }
        Ok((at, name))
    }
}

/// The directory `name` in `parent`; the kernel refuses `..` and links.
fn below(parent: &OwnedFd, name: &str, make: bool) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW;
    let open = || resolved::open(parent, name, flags, ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS).map(OwnedFd::from);
    match open() {
        Err(Errno::NOENT) if make => {
            match rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
            Ok(open()?)
        }
        Err(Errno::LOOP | Errno::NOTDIR) => Err(io::Error::other("the way to it goes through a link, or through a file")),
        other => Ok(other?),
    }
}

fn make_room(parent: &OwnedFd, name: &str) -> io::Result<()> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
