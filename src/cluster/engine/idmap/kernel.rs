//! The system calls behind id-mapped mounts. All unsafe code of it is here: `mount_setattr(2)`, which no crate wraps.
//!
//! A map is given as a user namespace. A process makes one by going into it and cannot come back, so a child does: `xtao task-shim --ids`. The namespace
//! is there for as long as somebody has it open.
#![allow(unsafe_code)]

use std::{
    fs::File,
    io::{self, Read, Write},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::Path,
    process::{Command, ExitCode, Stdio},
};

use nix::sched::{CloneFlags, unshare};
use rustix::{
    fs::CWD,
    mount::{MoveMountFlags, OpenTreeFlags},
};

use crate::{
    brick::file_system::make_private,
    cluster::engine::process::shim::{COMMAND, IDS},
};

/// What the child says when it is in a namespace of its own.
const READY: u8 = b'+';

/// `struct mount_attr` of `linux/mount.h`.
#[repr(C)]
struct MountAttributes {
    set: u64,
    clear: u64,
    propagation: u64,
    namespace: u64,
}

const MOUNT_ATTR_RDONLY: u64 = 1;
const MOUNT_ATTR_NOSUID: u64 = 2;
const MOUNT_ATTR_NODEV: u64 = 4;
const MOUNT_ATTR_IDMAP: u64 = 0x10_0000;

/// The child: goes into a user namespace of its own, says so, and waits until nobody needs it.
pub fn main() -> ExitCode {
    let said = match unshare(CloneFlags::CLONE_NEWUSER) {
        Ok(()) => io::stdout().write_all(&[READY]),
        Err(error) => io::stdout().write_all(error.desc().as_bytes()),
    };
    _ = said.and_then(|()| io::stdout().flush()).and_then(|()| io::stdin().read(&mut [0]));
    ExitCode::SUCCESS
}

/// A user namespace with these maps. `program` is this one. Blocks.
pub(super) fn namespace(program: &Path, uids: &str, gids: &str) -> io::Result<OwnedFd> {
    let mut command = Command::new(program);
    command.args([COMMAND, IDS]).env_clear().current_dir("/").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn()?;
    let made = child.stdout.take().ok_or_else(|| io::ErrorKind::BrokenPipe.into()).and_then(|mut said| {
        let mut first = [0];
        said.read_exact(&mut first)?;
        if first != [READY] {
            let mut reason = String::from_utf8_lossy(&first).into_owned();
            drop(child.stdin.take());
            said.take(1024).read_to_string(&mut reason)?;
            return Err(io::Error::other(format!("no user namespace can be made ({reason})")));
        }
        // Not waited for yet, so the number is still its own.
        let of_child = |name: &str| format!("/proc/{}/{name}", child.id());
        std::fs::write(of_child("uid_map"), uids)?;
        std::fs::write(of_child("gid_map"), gids)?;
        File::open(of_child("ns/user")).map(OwnedFd::from)
    });
    drop(child.stdin.take());
    child.wait()?;
    made
}

/// A copy of the mount that `open` is in, from there on and without what is mounted below, mapped by `namespace`. It is nowhere yet.
///
/// # Errors
/// `NOSYS`: the kernel is too old. `INVAL`: the file system cannot do that.
pub(super) fn mapped_tree(open: &OwnedFd, namespace: &OwnedFd, read_only: bool) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    let tree = rustix::mount::open_tree(open, "", flags)?;
    let limits = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | if read_only { MOUNT_ATTR_RDONLY } else { 0 };
    let number = u64::try_from(namespace.as_raw_fd()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let attributes = MountAttributes { set: MOUNT_ATTR_IDMAP | limits, clear: 0, propagation: 0, namespace: number };
    // SAFETY: both descriptors are open, the path is an empty C string, and the kernel reads a `struct mount_attr`, which `MountAttributes` mirrors, of the
    // size that is given; all of them outlive the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_fd().as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of::<MountAttributes>(),
        )
    };
    if result == 0 { Ok(tree) } else { Err(io::Error::last_os_error()) }
}

/// Mounts a tree at `place`, where what is mounted and unmounted elsewhere does not come.
pub(super) fn attach(tree: &OwnedFd, place: &Path) -> io::Result<()> {
    rustix::mount::move_mount(tree, "", CWD, place, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    Ok(make_private(place)?)
}
