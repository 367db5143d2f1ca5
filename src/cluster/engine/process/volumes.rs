//! What a task that is a process sees besides the node's own directories: bricks, persistent volumes, host volumes and what the containers of its pod
//! share. Bind mounts in a mount namespace of its own, which ends with its last process.
//!
//! Nothing runs in such a namespace with more rights than the task has, once it is furnished: whose task it is may have put anything anywhere in it. So
//! the task's first process makes it, while that is still this program, and becomes the task there. Its supervisor stays outside, and keeps the namespace
//! open for those who join it later: the task's processes may have made themselves another.
//!
//! A new namespace begins with a copy of every mount there is, and would hold every other brick of the node: those are let go of at once. Everything else
//! stays as it is, for the task sees the node's own directories.
//!
//! Where a volume is seen, as in Mesos (`isolators/volume/host_path.cpp`): a relative path is one in the sandbox, and made; an absolute one has to be there.
//! An ordinary user's task is that user's account, without more rights, from its first instruction on: what it may in a host volume is the kernel's to say,
//! and there is no need for the other ids that containers get ([`crate::cluster::engine::idmap`]).
//!
//! Paths are opened once, what is open is compared with what was allowed, and mounted by its descriptor: a swap in between is seen.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::{Component, Path, PathBuf},
};

use nix::sched::{CloneFlags, unshare};
use rustix::{
    fs::{CWD, FileType, Mode, OFlags, ResolveFlags, StatVfsMountFlags},
    io::Errno,
    mount::{MountFlags, MountPropagationFlags, UnmountFlags},
    thread::LinkNameSpaceType,
};

use super::{
    record::{Mounted, Order},
    tree::Identity,
};
use crate::{
    brick::mounts::{self, Mount},
    cluster::engine::volumes::{self, Identity as Found},
    model::artifact::sandbox_path,
};

/// Makes the calling process, which must have one thread, see the volumes of `order`. Its working directory is anywhere afterwards.
///
/// # Errors
/// A sentence for the user.
pub(super) fn see(order: &Order) -> Result<(), String> {
    let failed = |what: &'static str| move |error: io::Error| format!("{what}: {error}");
    unshare(CloneFlags::CLONE_NEWNS).map_err(|error| format!("cannot have mounts of its own: {error}"))?;
    // Nothing that is mounted here is seen outside; what the node unmounts goes here too.
    rustix::mount::mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)
        .map_err(|error| format!("cannot have mounts of its own: {error}"))?;
    // A volume may lie over /proc: descriptors are named from here.
    std::env::set_current_dir("/proc/self/fd").map_err(failed("cannot enter /proc/self/fd"))?;
    let volumes = order.volumes.iter().map(Volume::open).collect::<Result<Vec<_>, _>>()?;
    let (bricks, others): (Vec<&Volume>, Vec<&Volume>) = volumes.iter().partition(|volume| volume.wanted.host.is_none());
    let own = bricks.into_iter().map(|brick| brick.mount(&order.directory)).collect::<Result<Vec<_>, _>>()?;
    let_go_of_others(order, &own).map_err(failed("cannot let go of other bricks"))?;
    others.into_iter().try_for_each(|volume| volume.mount(&order.directory).map(drop))?;
    volumes.iter().try_for_each(|volume| volume.check_seen(&order.directory))
}

/// Makes the calling process, which must have one thread, see what the task sees whose supervisor keeps its namespace open under this number.
///
/// # Errors
/// It has ended, or the kernel says no.
pub(super) fn join(supervisor: &Identity, number: i32) -> io::Result<()> {
    let namespace = rustix::fs::open(format!("/proc/{}/fd/{number}", supervisor.pid), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    // What is open was its own if it is there still.
    if supervisor.open().is_none() {
        return Err(io::Error::other("the task has ended"));
    }
    Ok(rustix::thread::move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Mount))?)
}

/// The mount namespace of a process.
///
/// # Errors
/// It has ended.
pub(super) fn namespace(of: &Identity) -> io::Result<File> {
    let namespace = File::open(format!("/proc/{}/ns/mnt", of.pid))?;
    of.open().map(|_| namespace).ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// Where a command without an image sees what a container would see at `container_path`: the same place in its sandbox, or on the node.
pub(super) fn target(container_path: &str) -> PathBuf {
    let inside = container_path.strip_prefix(crate::cluster::engine::spec::SANDBOX).and_then(|rest| rest.strip_prefix('/'));
    let path = inside.unwrap_or(container_path);
    sandbox_path(path).map_or_else(|_| PathBuf::from(path), PathBuf::from)
}

/// That an absolute target is there, as far as whoever asks can see.
///
/// # Errors
/// A sentence for the user.
pub(super) fn check_target(target: &Path) -> Result<(), String> {
    if !target.is_absolute() {
        return Ok(());
    }
    open(target, ResolveFlags::NO_MAGICLINKS).map(drop).map_err(|error| not_there(target, error))
}

fn not_there(target: &Path, error: Errno) -> String {
    let why = io::Error::from(error);
    let hint = "without an image an absolute containerPath has to be there on the node; a relative one is made in the sandbox";
    format!("containerPath '{}': {why} ({hint})", target.display())
}

fn let_go_of_others(order: &Order, own: &[PathBuf]) -> io::Result<()> {
    for mount in table()?.into_iter().rev() {
        let is_way = order.directory.starts_with(&mount.target);
        if is_brick(&mount) && !is_way && !own.contains(&mount.target) {
            rustix::mount::unmount(&mount.target, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)?;
        }
    }
    Ok(())
}

/// Seen from `/proc/self/fd`.
fn table() -> io::Result<Vec<Mount>> {
    Ok(mounts::parse(&std::fs::read("../mountinfo")?))
}

/// The number of the mount in which something lies.
fn mount_of(open: &OwnedFd) -> io::Result<u64> {
    let text = std::fs::read_to_string(format!("../fdinfo/{}", name(open)))?;
    let number = text.lines().find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok());
    number.ok_or_else(|| io::Error::other("the kernel does not say in which mount it lies"))
}

/// Also another server's: a file system on a loop device that is mounted for this place alone.
fn is_brick(mount: &Mount) -> bool {
    /// `Documentation/admin-guide/devices.txt` of the kernel.
    const LOOP_DEVICES: u32 = 7;
    mount.private && mount.device.0 == LOOP_DEVICES && matches!(mount.file_system.as_str(), "ext4" | "xfs")
}

/// The name of a descriptor in `/proc/self/fd`, which is the working directory.
fn name(open: &OwnedFd) -> String {
    open.as_raw_fd().to_string()
}

fn open(path: &Path, resolve: ResolveFlags) -> Result<OwnedFd, Errno> {
    rustix::fs::openat2(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve)
}

fn found(open: &OwnedFd) -> Result<(Found, FileType), Errno> {
    let stat = rustix::fs::fstat(open)?;
    Ok(((stat.st_dev, stat.st_ino), FileType::from_raw_mode(stat.st_mode)))
}

/// A volume and what it leads to.
struct Volume<'a> {
    wanted: &'a Mounted,
    source: OwnedFd,
    found: Found,
    is_directory: bool,
}

impl<'a> Volume<'a> {
    fn open(wanted: &'a Mounted) -> Result<Self, String> {
        let shown = |what: &dyn std::fmt::Display| format!("volume {}: {what}", wanted.source.display());
        // The links on the way to a host volume are resolved already, and new ones not meant.
        let links = if wanted.host.is_some() { ResolveFlags::NO_SYMLINKS } else { ResolveFlags::empty() };
        let source = open(&wanted.source, links | ResolveFlags::NO_MAGICLINKS).map_err(|error| shown(&io::Error::from(error)))?;
        let (found, kind) = found(&source).map_err(|error| shown(&io::Error::from(error)))?;
        if wanted.host.is_some_and(|allowed| allowed != found) {
            return Err(shown(&"it was replaced while the task was started"));
        }
        Ok(Self { wanted, source, found, is_directory: kind == FileType::Directory })
    }

    /// Mounts it, and tells where that really is.
    fn mount(&self, sandbox: &Path) -> Result<PathBuf, String> {
        let shown =
            |error: &dyn std::fmt::Display| format!("volume {} at {}: {error}", self.wanted.source.display(), self.wanted.target.display());
        let place = place(sandbox, &self.wanted.target, self.is_directory)?;
        let real = std::fs::read_link(name(&place)).map_err(|error| shown(&error))?;
        if real == Path::new("/") {
            return Err(shown(&"nothing is mounted over everything"));
        }
        self.mount_at(&place, &real).map_err(|error| shown(&error))?;
        Ok(real)
    }

    fn mount_at(&self, place: &OwnedFd, real: &Path) -> io::Result<()> {
        let before: Vec<u64> = table()?.into_iter().map(|mount| mount.id).collect();
        rustix::mount::mount_bind_recursive(name(&self.source), name(place))?;
        let mut limits = MountFlags::BIND | MountFlags::NOSUID | MountFlags::NODEV;
        limits.set(MountFlags::RDONLY, self.wanted.read_only);
        // What is mounted below it came along.
        let new = table()?.into_iter().filter(|mount| !before.contains(&mount.id) && mount.target.starts_with(real)).collect::<Vec<_>>();
        // Whoever may write in the sandbox can move the place meanwhile: then nothing is found there, or something else.
        let moved = || io::Error::other("it was moved while the task was started");
        if !new.iter().any(|mount| mount.target == real) {
            return Err(moved());
        }
        let is_covered = |at: usize| new[at + 1..].iter().any(|later| later.target == new[at].target);
        for (_, mount) in new.iter().enumerate().filter(|(at, _)| !is_covered(*at)) {
            let there = open(&mount.target, ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS)?;
            if mount_of(&there)? != mount.id {
                return Err(moved());
            }
            // What is mounted there on the node later would have no such limits.
            rustix::mount::mount_change(name(&there), MountPropagationFlags::PRIVATE)?;
            rustix::mount::mount_remount(name(&there), limits | limits_of(&there)?, "")?;
        }
        Ok(())
    }

    /// One volume may lie over another.
    fn check_seen(&self, sandbox: &Path) -> Result<(), String> {
        let target = sandbox.join(&self.wanted.target);
        let seen = open(&target, ResolveFlags::NO_MAGICLINKS).and_then(|there| found(&there));
        match seen {
            Ok((seen, _)) if seen == self.found => Ok(()),
            Ok(_) | Err(_) => {
                Err(format!("volume {} is not seen at {}: another one hides it", self.wanted.source.display(), target.display()))
            }
        }
    }
}

/// What a mount is kept from already.
fn limits_of(open: &OwnedFd) -> io::Result<MountFlags> {
    let flags = rustix::fs::fstatvfs(open)?.f_flag;
    let known = [
        (StatVfsMountFlags::NOEXEC, MountFlags::NOEXEC),
        (StatVfsMountFlags::NOSUID, MountFlags::NOSUID),
        (StatVfsMountFlags::NODEV, MountFlags::NODEV),
        (StatVfsMountFlags::RDONLY, MountFlags::RDONLY),
    ];
    Ok(known.into_iter().filter(|(has, _)| flags.contains(*has)).map(|(_, limit)| limit).collect())
}

/// Opens, and in the sandbox makes, what a volume is mounted over. What was fetched, or the task's user, may have put anything into the sandbox: no link is
/// followed there.
fn place(sandbox: &Path, target: &Path, is_directory: bool) -> Result<OwnedFd, String> {
    let shown = |error: &dyn std::fmt::Display| format!("containerPath '{}': {error}", target.display());
    let place = match target.is_absolute() {
        true => open(target, ResolveFlags::NO_MAGICLINKS).map_err(|error| not_there(target, error))?,
        false => make(sandbox, target, is_directory).map_err(|error| shown(&error))?,
    };
    let (_, kind) = found(&place).map_err(|error| shown(&io::Error::from(error)))?;
    match (is_directory, kind) {
        (true, FileType::Directory) | (false, FileType::RegularFile) => Ok(place),
        (true, _) => Err(shown(&"is no directory, but what is to be seen there is one")),
        (false, _) => Err(shown(&"is no plain file, but what is to be seen there is one")),
    }
}

fn make(sandbox: &Path, target: &Path, is_directory: bool) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut open = rustix::fs::openat(CWD, sandbox, flags | OFlags::DIRECTORY, Mode::empty())?;
    let mut parts = target.components().peekable();
    while let Some(part) = parts.next() {
        let Component::Normal(part) = part else { return Err(io::Error::other("is no path in the sandbox")) };
        let is_last = parts.peek().is_none();
        let made = match is_last && !is_directory {
            true => {
                let new = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                rustix::fs::openat(&open, part, new, Mode::from_raw_mode(0o644)).map(drop)
            }
            false => rustix::fs::mkdirat(&open, part, Mode::from_raw_mode(0o755)),
        };
        match made {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        open = rustix::fs::openat(&open, part, if is_last { flags } else { flags | OFlags::DIRECTORY }, Mode::empty())?;
    }
    Ok(open)
}

/// What the directory `path` is, to tell later whether it is still seen there.
pub(super) fn identity(path: &Path) -> io::Result<Found> {
    volumes::identity(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_s_path_means_the_sandbox_or_the_node() {
        let check = |container_path: &str, expected: &str| assert_eq!(target(container_path), Path::new(expected));
        check("data", "data");
        check("a/b", "a/b");
        check("./a//b/", "a/b");
        check("/mnt/mesos/sandbox/a/b", "a/b");
        check("/mnt/mesos/sandboxes", "/mnt/mesos/sandboxes");
        check("/srv/data", "/srv/data");
    }

    #[test]
    fn places_are_made_in_the_sandbox_alone_and_no_link_is_followed_there() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let sandbox = at("sandbox");
        std::fs::create_dir_all(sandbox.join("there")).unwrap();
        std::fs::create_dir(at("victim")).unwrap();
        std::fs::write(sandbox.join("file"), "").unwrap();
        std::os::unix::fs::symlink(at("victim"), sandbox.join("link")).unwrap();
        std::os::unix::fs::symlink(at("victim"), at("known")).unwrap();
        let check = |target: &Path, is_directory: bool, expected: &str| {
            let found = place(&sandbox, target, is_directory).map_or_else(
                |error| error,
                |open| std::fs::read_link(format!("/proc/self/fd/{}", open.as_raw_fd())).unwrap().display().to_string(),
            );
            assert!(found.ends_with(expected), "{}: {found}", target.display());
        };
        check(Path::new("there"), true, "/sandbox/there");
        check(Path::new("a/b"), true, "/sandbox/a/b");
        check(Path::new("a/c"), false, "/sandbox/a/c");
        check(Path::new("file"), false, "/sandbox/file");
        check(Path::new("file"), true, "is no directory, but what is to be seen there is one");
        check(Path::new("there"), false, "is no plain file, but what is to be seen there is one");
        check(Path::new("file/x"), true, "Not a directory (os error 20)");
        check(Path::new("link"), true, "is no directory, but what is to be seen there is one");
        check(Path::new("link"), false, "is no plain file, but what is to be seen there is one");
        check(Path::new("link/x"), true, "Not a directory (os error 20)");
        check(Path::new("../victim"), true, "is no path in the sandbox");
        // A path of the node is whatever the node says.
        check(&at("known"), true, "/victim");
        check(&at("none"), true, "a relative one is made in the sandbox)");
        check(Path::new("/proc/self/root"), true, "a relative one is made in the sandbox)");
        assert!(!at("none").exists() && std::fs::read_dir(at("victim")).unwrap().next().is_none());
    }

    #[test]
    fn a_host_volume_that_was_replaced_is_not_mounted() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        std::fs::create_dir(at("data")).unwrap();
        std::os::unix::fs::symlink("data", at("link")).unwrap();
        let real = volumes::identity(&at("data")).unwrap();
        let check = |name: &str, host: Option<Found>, expected: &str| {
            let wanted = Mounted { source: at(name), target: "v".into(), read_only: true, host };
            let found = Volume::open(&wanted).map_or_else(|error| error, |_| "fine".to_owned());
            assert!(found.ends_with(expected), "{name}: {found}");
        };
        check("data", Some(real), "fine");
        check("data", Some((real.0, real.1 + 1)), "it was replaced while the task was started");
        check("link", Some(real), "Too many levels of symbolic links (os error 40)");
        // The way to bricks is the server's own.
        check("link", None, "fine");
        check("none", None, "No such file or directory (os error 2)");
    }
}
