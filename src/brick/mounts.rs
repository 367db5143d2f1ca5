//! The kernel's mount table, and who keeps a device from being free. The kernel is asked each time: nothing about mounts is remembered here.
//!
//! Facts: proc(5) for `mountinfo`; a mount namespace keeps its own reference to every mount it was born with, so the host's `umount` succeeds
//! while a container goes on writing.

use std::{
    collections::HashMap,
    ffi::OsString,
    fmt, fs, io,
    os::{
        fd::{AsRawFd, BorrowedFd},
        unix::ffi::OsStringExt,
    },
    path::{Path, PathBuf},
};

/// Holders that are named in a message; the others are counted.
pub const MAX_HOLDERS: usize = 5;

/// One line of a mount table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Its number, which no other mount has at the same time.
    pub id: u64,
    /// Major and minor number of the device.
    pub device: (u32, u32),
    /// Where it is, as that process sees it.
    pub target: PathBuf,
    /// `ext4`, `xfs` ...
    pub file_system: String,
    /// True when the kernel made the file system read-only, or it was mounted so.
    pub read_only: bool,
    /// True when mounts and unmounts elsewhere do not come here, and none go from here.
    pub private: bool,
}

/// The mount table of this process, in the order of mounting.
///
/// # Errors
/// `/proc` cannot be read.
pub fn table() -> io::Result<Vec<Mount>> {
    Ok(parse(&fs::read("/proc/self/mountinfo")?))
}

/// The mount in which something open lies.
///
/// # Errors
/// `/proc` cannot be read, or shows it no more.
pub fn of(open: BorrowedFd<'_>) -> io::Result<Mount> {
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", open.as_raw_fd()))?;
    let number = text.lines().find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse::<u64>().ok());
    table()?.into_iter().find(|mount| Some(mount.id) == number).ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// Reads a mount table; lines that are not understood are left out.
pub fn parse(text: &[u8]) -> Vec<Mount> {
    text.split(|byte| *byte == b'\n').filter_map(parse_line).collect()
}

fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let id = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
    let device = std::str::from_utf8(fields.nth(1)?).ok()?;
    let (major, minor) = device.split_once(':')?;
    let target = unescape(fields.nth(1)?);
    let mut private = true;
    let mut fields = fields
        .skip_while(|field| {
            private &= !field.starts_with(b"shared:") && !field.starts_with(b"master:");
            *field != b"-"
        })
        .skip(1);
    let file_system = String::from_utf8_lossy(fields.next()?).into_owned();
    let options = fields.nth(1)?;
    Some(Mount {
        id,
        device: (major.parse().ok()?, minor.parse().ok()?),
        target,
        file_system,
        read_only: options.split(|byte| *byte == b',').any(|option| option == b"ro"),
        private,
    })
}

/// `\040` and its like stand for blank, tab, newline and backslash.
fn unescape(field: &[u8]) -> PathBuf {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        let code = tail.get(..3).and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        match (first, code) {
            (b'\\', Some(byte)) => {
                plain.push(byte);
                rest = &tail[3..];
            }
            _ => {
                plain.push(*first);
                rest = tail;
            }
        }
    }
    PathBuf::from(OsString::from_vec(plain))
}

/// A process that keeps a device or mount busy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its id in our process namespace.
    pub pid: u32,
    /// The name of its program.
    pub command: String,
    /// The container that it runs in, when its control group names one.
    pub container: Option<String>,
}

impl fmt::Display for Holder {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "process {} ({})", self.pid, self.command)?;
        match &self.container {
            Some(id) => write!(out, " in container {}", &id[..12]),
            None => Ok(()),
        }
    }
}

/// The processes that keep the block device `number` at `path` in use: by a mount in another mount namespace, by files open below `target` in
/// ours, or by the device itself. Looks at every process, so it is for messages only.
pub fn holders(number: (u32, u32), path: &Path, target: &Path) -> Vec<Holder> {
    let own = fs::read_link("/proc/self/ns/mnt").ok();
    let mut mounted_in: HashMap<PathBuf, bool> = HashMap::new();
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let mut found = Vec::new();
    for pid in pids.filter(|pid| *pid != std::process::id()) {
        let Ok(namespace) = fs::read_link(format!("/proc/{pid}/ns/mnt")) else { continue };
        let is_ours = Some(&namespace) == own.as_ref();
        let has_mount = !is_ours
            && *mounted_in.entry(namespace).or_insert_with(|| {
                let text = fs::read(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
                parse(&text).iter().any(|mount| mount.device == number)
            });
        if has_mount || has_open(pid, path, is_ours.then_some(target)) {
            found.push(describe(pid));
        }
    }
    found
}

/// For a message: the first few by name, the others as a number.
pub fn name_holders(holders: &[Holder]) -> String {
    let named: Vec<String> = holders.iter().take(MAX_HOLDERS).map(Holder::to_string).collect();
    match holders.len() {
        0 => "by something that shows no process: a mount namespace kept by a file, a swap file, or a frozen file system".to_owned(),
        count if count > MAX_HOLDERS => format!("{} and {} more", named.join(", "), count - MAX_HOLDERS),
        _ => named.join(", "),
    }
}

fn has_open(pid: u32, device: &Path, target: Option<&Path>) -> bool {
    let holds =
        |link: PathBuf| fs::read_link(link).is_ok_and(|file| file == device || target.is_some_and(|target| file.starts_with(target)));
    let fds = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten().map(|entry| entry.path());
    ["cwd", "root", "exe"].into_iter().map(|name| PathBuf::from(format!("/proc/{pid}/{name}"))).chain(fds).any(holds)
}

fn describe(pid: u32) -> Holder {
    let command = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned();
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    Holder { pid, command, container: container_id(&groups) }
}

/// Docker, containerd and podman name a container's control group after its id: 64 hexadecimal digits, possibly with a prefix and `.scope`.
fn container_id(groups: &str) -> Option<String> {
    groups.split(|letter: char| !letter.is_ascii_hexdigit()).find(|run| run.len() == 64).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_table_is_read_with_its_escapes() {
        let text = b"22 27 0:21 / /proc rw,relatime - proc proc rw\n\
            40 27 7:3 / /srv/a\\040b\\134c rw,nosuid,nodev shared:7 master:2 - ext4 /dev/loop3 ro,errors=remount-ro\n\
            nonsense\n";
        assert_eq!(
            parse(text),
            [
                Mount { id: 22, device: (0, 21), target: "/proc".into(), file_system: "proc".into(), read_only: false, private: true },
                Mount { id: 40, device: (7, 3), target: "/srv/a b\\c".into(), file_system: "ext4".into(), read_only: true, private: false },
            ]
        );
    }

    #[test]
    fn a_container_is_known_by_its_control_group() {
        let id = "0123456789abcdef".repeat(4);
        for line in
            [format!("4:memory:/docker/{id}\n"), format!("0::/system.slice/docker-{id}.scope"), format!("0::/x/cri-containerd-{id}.scope")]
        {
            assert_eq!(container_id(&line), Some(id.clone()), "{line}");
        }
        assert_eq!(container_id("0::/user.slice/session-1.scope"), None);
    }
}
