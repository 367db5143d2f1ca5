//! Persistent volumes in the sandbox of a task that is a process: bind mounts in a mount namespace of its own, which end with its last process.
//!
//! A new namespace begins with a copy of every mount there is, and would hold every other brick of the node: those are let go of at once. Everything else
//! stays as it is, for the task sees the node's own directories.

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
    path::{Path, PathBuf},
};

use nix::sched::{CloneFlags, unshare};
use rustix::{
    fs::{CWD, Mode, OFlags},
    mount::{MountPropagationFlags, UnmountFlags},
    thread::LinkNameSpaceType,
};

use super::{record::Order, tree::Identity};
use crate::brick::mounts;

/// Makes the calling process, which must have one thread, see the volumes of `order` in its sandbox.
pub(super) fn see(order: &Order) -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    // Nothing that is mounted here is seen outside; what the node unmounts goes here too.
    rustix::mount::mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?;
    for volume in &order.volumes {
        bind(&volume.source, &order.directory, &volume.name)?;
    }
    let own: Vec<PathBuf> = order.volumes.iter().map(|volume| order.directory.join(&volume.name)).collect();
    for mount in mounts::table()?.into_iter().rev() {
        let is_way = order.directory.starts_with(&mount.target);
        if is_brick(&mount) && !is_way && !own.contains(&mount.target) {
            rustix::mount::unmount(&mount.target, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)?;
        }
    }
    Ok(())
}

/// Makes the calling process, which must have one thread, see what the process `other` sees.
pub(super) fn join(other: &Identity) -> io::Result<()> {
    let namespace = rustix::fs::open(format!("/proc/{}/ns/mnt", other.pid), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    // What is open was its own if it is there still.
    if other.open().is_none() {
        return Err(io::Error::other("the task has ended"));
    }
    Ok(rustix::thread::move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Mount))?)
}

/// Also another server's: a file system on a loop device that is mounted for this place alone.
fn is_brick(mount: &mounts::Mount) -> bool {
    /// `Documentation/admin-guide/devices.txt` of the kernel.
    const LOOP_DEVICES: u32 = 7;
    mount.private && mount.device.0 == LOOP_DEVICES && matches!(mount.file_system.as_str(), "ext4" | "xfs")
}

/// What was fetched may have put anything in that place: a link is not followed.
fn bind(source: &Path, sandbox: &Path, name: &str) -> io::Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let sandbox = rustix::fs::openat(CWD, sandbox, flags, Mode::empty())?;
    match rustix::fs::mkdirat(&sandbox, name, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    let place = rustix::fs::openat(&sandbox, name, flags, Mode::empty())?;
    rustix::mount::mount_bind(source, format!("/proc/self/fd/{}", place.as_raw_fd()))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_in_the_place_of_a_volume_is_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let victim = directory.path().join("victim");
        std::fs::create_dir(&victim).unwrap();
        std::os::unix::fs::symlink(&victim, directory.path().join("data")).unwrap();
        std::fs::write(directory.path().join("file"), "").unwrap();
        for name in ["data", "file"] {
            assert!(bind(&victim, directory.path(), name).is_err(), "{name}");
        }
        assert!(mounts::table().unwrap().iter().all(|mount| !mount.target.starts_with(directory.path())));
    }
}
