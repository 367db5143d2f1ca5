//! ext4 and xfs: making, checking, mounting and growing. Works on image files and block devices alike.
//!
//! Facts: a sparse image of 128 GiB costs 1 GiB at once with ext4's default journal, 6 MiB with the options below; xfs costs 65 MiB
//! (measured). Exit codes of `e2fsck`: e2fsck(8). `mkfs.xfs` refuses less than 300 MiB since xfsprogs 5.19.

use std::{fs::File, io, os::unix::fs::FileExt, path::Path, time::Duration};

use rustix::{
    io::Errno,
    mount::{MountFlags, MountPropagationFlags},
};

use super::{BrickError, pool::MIB, tool};
use crate::model::{app::FileSystem, id::BrickName};

/// Making and growing are quick; this is for a disk that hardly answers.
const MAKE_LIMIT: Duration = Duration::from_secs(300);

/// A full check of a large damaged file system takes its time.
const CHECK_LIMIT: Duration = Duration::from_secs(4 * 3600);

/// What a superblock says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// Which kind.
    pub kind: FileSystem,
    /// Bytes that the file system spans.
    pub size: u64,
}

/// The smallest brick, in MiB.
pub fn minimum(kind: FileSystem) -> u64 {
    match kind {
        FileSystem::Ext4 => 16,
        FileSystem::Xfs => 300,
    }
}

/// Bytes that an empty file system really takes, roughly.
pub fn initial_cost(kind: FileSystem) -> u64 {
    match kind {
        FileSystem::Ext4 => 8 * MIB,
        FileSystem::Xfs => 68 * MIB,
    }
}

/// Makes a file system on a file or device of `size` bytes that is all zero.
///
/// # Errors
/// Too small, or the tool is missing or failed.
pub fn make(kind: FileSystem, path: &Path, brick: &BrickName, size: u64) -> Result<(), BrickError> {
    let path_text = path.to_string_lossy();
    let uuid = uuid::Uuid::new_v4().to_string();
    let label = label(kind, brick);
    let (tool, arguments) = match kind {
        FileSystem::Ext4 => {
            let journal = format!("size={}", (size / MIB / 16).clamp(4, 32));
            let extended = "lazy_itable_init=1,lazy_journal_init=1,nodiscard,root_owner=0:0";
            let fixed = ["-q", "-F", "-b", "4096", "-m", "0", "-e", "remount-ro", "-E", extended];
            let own = ["-J", &journal, "-L", &label, "-U", &uuid, &path_text].map(str::to_owned);
            ("mkfs.ext4", fixed.map(str::to_owned).into_iter().chain(own).collect::<Vec<_>>())
        }
        FileSystem::Xfs => {
            let uuid = format!("uuid={uuid}");
            ("mkfs.xfs", ["-q", "-f", "-K", "-L", &label, "-m", &uuid, &path_text].map(str::to_owned).to_vec())
        }
    };
    let ended = tool::run(tool, &arguments, MAKE_LIMIT)?;
    match ended.status {
        0 => Ok(()),
        status => Err(BrickError::Refused(format!(
            "no file system could be made for brick '{brick}': {tool} ended with {status}: {}",
            ended.output
        ))),
    }
}

/// The end of the brick's name, which is what tells bricks apart; ext4 has room for 16 bytes, xfs for 12.
fn label(kind: FileSystem, brick: &BrickName) -> String {
    let room = match kind {
        FileSystem::Ext4 => 16,
        FileSystem::Xfs => 12,
    };
    let name = brick.as_str();
    name[name.len().saturating_sub(room)..].to_owned()
}

/// Reads the superblock; `None`: there is none that makes sense.
///
/// # Errors
/// The file or device cannot be read.
pub fn superblock(path: &Path) -> io::Result<Option<Superblock>> {
    let mut block = [0; 2048];
    match File::open(path)?.read_exact_at(&mut block, 0) {
        Ok(()) => Ok(parse_superblock(&block)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

/// xfs: `XFSB`, block size (u32) and number of blocks (u64), big endian, at 0. ext4: at 1024, little endian, blocks (u32) at 4, block size as a
/// shift of 1024 at 24, magic 0xEF53 at 56, high half of the blocks at 336 when the feature `64bit` (0x80 at 96) is set.
fn parse_superblock(block: &[u8; 2048]) -> Option<Superblock> {
    let word = |at: usize| <[u8; 4]>::try_from(&block[at..at + 4]).unwrap_or_default();
    if &block[..4] == b"XFSB" {
        let blocks = u64::from_be_bytes(<[u8; 8]>::try_from(&block[8..16]).unwrap_or_default());
        let size = blocks.checked_mul(u64::from(u32::from_be_bytes(word(4))))?;
        return Some(Superblock { kind: FileSystem::Xfs, size });
    }
    if block[1024 + 56..1024 + 58] == [0x53, 0xEF] {
        let little = |at: usize| u64::from(u32::from_le_bytes(word(1024 + at)));
        let high = if little(96) & 0x80 != 0 { little(336) << 32 } else { 0 };
        let shift = u32::try_from(little(24)).ok().filter(|shift| *shift <= 6)?;
        let size = (little(4) | high).checked_mul(1024 << shift)?;
        return Some(Superblock { kind: FileSystem::Ext4, size });
    }
    None
}

/// Makes an ext4 that was not unmounted fit for use. xfs repairs itself when it is mounted; see [`mount`].
///
/// # Errors
/// It is damaged beyond what can be repaired without a person: the text says what to do.
pub fn check(kind: FileSystem, device: &Path, brick: &BrickName, data: &Path) -> Result<(), BrickError> {
    match kind {
        FileSystem::Ext4 => {
            let ended = tool::run("e2fsck", &[Path::new("-p"), device], CHECK_LIMIT)?;
            match ended.status {
                0 => Ok(()),
                1..=3 => {
                    tracing::warn!(%brick, output = ended.output, "the file system was repaired");
                    Ok(())
                }
                _ => Err(damaged(brick, &ended.output, "e2fsck -f", data)),
            }
        }
        FileSystem::Xfs => Ok(()),
    }
}

fn damaged(brick: &BrickName, output: &str, by_hand: &str, data: &Path) -> BrickError {
    BrickError::Refused(format!(
        "the file system of brick '{brick}' is damaged and is not mounted: {output}. Copy {data} somewhere, then repair it with '{by_hand} {data}', \
         or restore a backup with 'xtao brick restore {brick} FILE'",
        data = data.display()
    ))
}

/// Mounts the device; nothing on it may be a device node or gain privileges. The mount is private: mounts beneath it, and copies of it in
/// containers, stay where they were made. (The mount table above it is left as it is: where it is shared, an unmount reaches the copies that
/// were made by sharing.)
///
/// # Errors
/// Damaged (see [`check`]), or the kernel refuses.
pub fn mount(kind: FileSystem, device: &Path, target: &Path, brick: &BrickName, data: &Path) -> Result<(), BrickError> {
    match mount_once(kind, device, target) {
        Err(Errno::UCLEAN | Errno::BADMSG | Errno::INVAL | Errno::IO) if kind == FileSystem::Xfs => {
            let ended = tool::run("xfs_repair", &[device], CHECK_LIMIT)?;
            if ended.status != 0 {
                return Err(damaged(brick, &ended.output, "xfs_repair", data));
            }
            tracing::warn!(%brick, output = ended.output, "the file system was repaired");
            mount_once(kind, device, target)
        }
        done => done,
    }
    .map_err(|error| {
        let hint = match error {
            Errno::NODEV => format!(" (the kernel has no {}: modprobe {})", kind.as_str(), kind.as_str()),
            Errno::PERM => " (run the server as root)".to_owned(),
            _ => String::new(),
        };
        BrickError::io(format!("cannot mount brick '{brick}' at {}{hint}", target.display()), error.into())
    })
}

fn mount_once(kind: FileSystem, device: &Path, target: &Path) -> rustix::io::Result<()> {
    let options = match kind {
        FileSystem::Ext4 => c"noinit_itable,errors=remount-ro",
        FileSystem::Xfs => c"",
    };
    rustix::mount::mount(device, target, kind.as_str(), MountFlags::NOSUID | MountFlags::NODEV, options)?;
    make_private(target)
}

/// Sets the mount apart from every other; repeating it changes nothing.
///
/// # Errors
/// As the kernel says.
pub fn make_private(target: &Path) -> rustix::io::Result<()> {
    rustix::mount::mount_change(target, MountPropagationFlags::PRIVATE)
}

/// True when [`grow`] may wait until the file system is mounted. That is better, because a crash in the middle does no harm; but the kernel lets
/// only the holder of `CAP_SYS_RESOURCE` grow a mounted ext4, which service managers like to take away.
pub fn can_grow_mounted(kind: FileSystem) -> bool {
    let has_capability =
        || rustix::thread::capabilities(None).is_ok_and(|sets| sets.effective.contains(rustix::thread::CapabilitySet::SYS_RESOURCE));
    kind == FileSystem::Xfs || has_capability()
}

/// Grows the file system to the size of its device; mounted or, if it is an ext4 that has just been checked wholly, not.
///
/// # Errors
/// The tool is missing or failed.
pub fn grow(kind: FileSystem, device: &Path, target: &Path, brick: &BrickName) -> Result<(), BrickError> {
    let (tool, path) = match kind {
        FileSystem::Ext4 => ("resize2fs", device),
        FileSystem::Xfs => ("xfs_growfs", target),
    };
    let ended = tool::run(tool, &[path], MAKE_LIMIT)?;
    match ended.status {
        0 => {
            tracing::info!(%brick, output = ended.output, "the file system has grown");
            Ok(())
        }
        status => Err(BrickError::Refused(format!(
            "the file system of brick '{brick}' could not grow: {tool} ended with {status}: {}",
            ended.output
        ))),
    }
}

/// Mounts the xfs on `device` nowhere and unmounts it, which brings what is in its log to its place. Another file system of the same identity
/// may be mounted meanwhile.
///
/// # Errors
/// The kernel refuses.
pub fn settle_xfs(device: &Path, brick: &BrickName) -> Result<(), BrickError> {
    use rustix::mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen,
    };
    let settle = || {
        let context = fsopen("xfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_set_string(&context, "source", device)?;
        fsconfig_set_flag(&context, "nouuid")?;
        fsconfig_create(&context)?;
        fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
    };
    settle().map(drop).map_err(|error| BrickError::io(format!("the file system for brick '{brick}' cannot be mounted"), error.into()))
}

/// Gives the xfs an identity of its own: the kernel mounts each only once.
///
/// # Errors
/// The tool is missing or failed.
pub fn renew_xfs_id(path: &Path, brick: &BrickName) -> Result<(), BrickError> {
    let ended = tool::run("xfs_db", &[Path::new("-x"), Path::new("-c"), Path::new("uuid generate"), path], MAKE_LIMIT)?;
    match ended.status {
        0 => Ok(()),
        status => Err(BrickError::Refused(format!("no new identity for brick '{brick}': xfs_db ended with {status}: {}", ended.output))),
    }
}

/// Checks a file system that is not mounted from end to end. ext4 is repaired where that is safe; of xfs, whose log must be empty, nothing is
/// changed.
///
/// # Errors
/// See [`check`].
pub fn check_wholly(kind: FileSystem, device: &Path, brick: &BrickName, data: &Path) -> Result<(), BrickError> {
    let device = device.to_string_lossy();
    let (tool, arguments, worst): (_, &[&str], _) = match kind {
        FileSystem::Ext4 => ("e2fsck", &["-f", "-p", &device], 3),
        FileSystem::Xfs => ("xfs_repair", &["-n", &device], 0),
    };
    let ended = tool::run(tool, arguments, CHECK_LIMIT)?;
    if (0..=worst).contains(&ended.status) { Ok(()) } else { Err(damaged(brick, &ended.output, tool, data)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_superblock_says_kind_and_size() {
        let directory = tempfile::tempdir().unwrap();
        let brick = BrickName::new("db-data-0123456789abcdef");
        for (kind, mib) in [(FileSystem::Ext4, 16), (FileSystem::Ext4, 131_072), (FileSystem::Xfs, 300), (FileSystem::Xfs, 4096)] {
            let path = directory.path().join(format!("{mib}.{}", kind.as_str()));
            File::create(&path).unwrap().set_len(mib * MIB).unwrap();
            make(kind, &path, &brick, mib * MIB).unwrap();
            assert_eq!(superblock(&path).unwrap(), Some(Superblock { kind, size: mib * MIB }), "{kind:?} {mib}");
            let taken = std::os::unix::fs::MetadataExt::blocks(&std::fs::metadata(&path).unwrap()) * 512;
            assert!(taken <= initial_cost(kind), "{kind:?} of {mib} MiB takes {taken} bytes at once");
        }
    }

    #[test]
    fn what_is_no_file_system_has_no_superblock() {
        assert_eq!(parse_superblock(&[0; 2048]), None);
        assert_eq!(parse_superblock(&[0xff; 2048]), None);
        let mut absurd = [0xff; 2048];
        absurd[1024 + 56..1024 + 58].copy_from_slice(&[0x53, 0xEF]);
        assert_eq!(parse_superblock(&absurd), None);
        absurd[..4].copy_from_slice(b"XFSB");
        assert_eq!(parse_superblock(&absurd), None);
    }

    #[test]
    fn too_small_a_file_system_is_the_tools_error() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("small");
        File::create(&path).unwrap().set_len(100 * MIB).unwrap();
        let error = make(FileSystem::Xfs, &path, &BrickName::new("x"), 100 * MIB).unwrap_err().to_string();
        assert!(error.contains("mkfs.xfs ended with"), "{error}");
    }
}
