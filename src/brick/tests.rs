//! Bricks on real loop devices and real mounts: these tests need root, and say so loudly where they have not got it.

use std::{
    fs::{self, File},
    io::Write,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use rustix::mount::UnmountFlags;

use super::{Bricks, PoolStatus, Settings, lease::Lease, loop_device, mounts, pool::MIB};
use crate::model::{
    app::FileSystem,
    brick::BrickMount,
    id::{BrickName, PoolName},
};

mod backups;
mod holders;
mod mounting;
mod repair;

/// A work directory of its own, which leaves no mount, loop device, process or file behind, however the test ends.
struct World {
    directory: PathBuf,
    children: Vec<Child>,
    turn: Turn,
}

/// A mount namespace copies every mount, also those of another test's bricks: a test that makes one runs alone.
static TURNS: RwLock<()> = RwLock::new(());

enum Turn {
    Alone { _guard: RwLockWriteGuard<'static, ()> },
    Beside { _guard: RwLockReadGuard<'static, ()> },
}

impl World {
    fn new() -> Self {
        Self::with(Turn::Beside { _guard: TURNS.read().unwrap_or_else(PoisonError::into_inner) })
    }

    /// For tests that call [`World::contain`].
    fn alone() -> Self {
        Self::with(Turn::Alone { _guard: TURNS.write().unwrap_or_else(PoisonError::into_inner) })
    }

    fn with(turn: Turn) -> Self {
        assert!(rustix::process::geteuid().is_root(), "the brick tests mount file systems: run them as root");
        // Not a `TempDir`: it could not remove immutable directories.
        let directory = tempfile::Builder::new().prefix("xtao brick ").tempdir().unwrap().keep();
        Self { directory, children: Vec::new(), turn }
    }

    fn settings(&self) -> Settings {
        Settings { work_dir: self.directory.clone(), overcommit: 4.0, reserve: 64 }
    }

    async fn open(&self) -> Bricks {
        Bricks::open(self.settings()).await.unwrap()
    }

    fn image(&self, brick: &str) -> PathBuf {
        self.directory.join(format!("pools/datapool/{brick}.img"))
    }

    fn target(&self, brick: &str) -> PathBuf {
        self.directory.join("bricks").join(brick)
    }

    fn lease(&self, brick: &str) -> Lease {
        Lease::read(&self.directory.join(format!("pools/datapool/{brick}.epoch"))).unwrap()
    }

    /// The loop devices of the brick, and the mounts at its place.
    fn state(&self, brick: &str) -> (usize, usize) {
        let mounts = mounts::table().unwrap().iter().filter(|mount| mount.target == self.target(brick)).count();
        (loop_device::bound_to(&self.image(brick)).unwrap().len(), mounts)
    }

    fn is_free(&self, brick: &str) -> bool {
        self.state(brick) == (0, 0) && loop_device::is_free(&self.image(brick)).unwrap()
    }

    /// A process in a mount namespace of its own, with a copy of every mount: what a container is to a brick. Answers its id once it has done
    /// `first`; `then` comes after that.
    fn contain(&mut self, first: &str, then: &str) -> u32 {
        self.contain_with("private", first, then)
    }

    fn contain_with(&mut self, propagation: &str, first: &str, then: &str) -> u32 {
        assert!(matches!(self.turn, Turn::Alone { .. }));
        let mut child = Command::new("unshare")
            .args(["--mount", "--propagation", propagation, "sh", "-c", &format!("{first}; echo here; {then}")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = [0; 5];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut line).unwrap();
        let pid = child.id();
        self.children.push(child);
        // Bricks of other tests, in other processes, are none of its business.
        let others = mounts::table().unwrap().into_iter().filter(|mount| mount.device.0 == loop_device::LOOP_MAJOR);
        for mount in others.filter(|mount| !mount.target.starts_with(&self.directory)) {
            let enter = ["--target", &pid.to_string(), "--mount", "umount"].map(str::to_owned);
            _ = Command::new("nsenter").args(enter).arg(&mount.target).stderr(Stdio::null()).status();
        }
        pid
    }

    /// Ends what [`World::contain`] began.
    fn end(&mut self, pid: u32) {
        let index = self.children.iter().position(|child| child.id() == pid).unwrap();
        let mut child = self.children.remove(index);
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for mut child in self.children.drain(..) {
            _ = child.kill();
            _ = child.wait();
        }
        for mount in mounts::table().unwrap_or_default().iter().rev().filter(|mount| mount.target.starts_with(&self.directory)) {
            _ = File::open(&mount.target).map(|directory| super::ioctl::thaw(&directory));
            _ = rustix::mount::unmount(&mount.target, UnmountFlags::DETACH);
        }
        for number in 0..256 {
            let file = fs::read_to_string(format!("/sys/block/loop{number}/loop/backing_file")).unwrap_or_default();
            if Path::new(&file).starts_with(&self.directory) {
                _ = loop_device::clear(number);
            }
        }
        _ = Command::new("chattr").args(["-R", "-i"]).arg(&self.directory).stderr(Stdio::null()).status();
        if let Err(error) = fs::remove_dir_all(&self.directory) {
            eprintln!("{} stays behind: {error}", self.directory.display());
        }
    }
}

fn brick(name: &str, epoch: u64, size: u64) -> BrickMount {
    BrickMount {
        name: BrickName::new(name),
        epoch,
        size,
        pool: PoolName::new("datapool"),
        file_system: FileSystem::Ext4,
        container_path: "/data".to_owned(),
        read_only: false,
    }
}

fn xfs(name: &str, epoch: u64, size: u64) -> BrickMount {
    BrickMount { file_system: FileSystem::Xfs, ..brick(name, epoch, size) }
}

fn name(text: &str) -> BrickName {
    BrickName::new(text)
}

fn text<T: std::fmt::Debug>(result: Result<T, super::BrickError>) -> String {
    result.unwrap_err().to_string()
}

/// MiB of the file system that `path` is on.
fn span(path: &Path) -> u64 {
    let found = rustix::fs::statvfs(path).unwrap();
    found.f_blocks * found.f_frsize / MIB
}

fn write_at(path: &Path, offset: u64, bytes: &[u8]) {
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(bytes, offset).unwrap();
    file.sync_all().unwrap();
}
