//! Host volumes of ordinary users: as whom a container is seen by the files of the node.
//!
//! A container's root is the node's root, with the capabilities that go with it. So what a user's container gets is no plain bind mount but an id-mapped
//! one (Linux 5.12, `mount_setattr(2)`), without set-user-ID programs and devices, which tells the file system other ids:
//!
//! | in the container | on the node |
//! | --- | --- |
//! | root, or the number that the definition has as `user` | the owner's account and its first group |
//! | the account's further groups, which the container's processes are in | the same |
//! | any other id below 65536 | the same, moved into the account's own range ([`Range`]), where nobody is anybody |
//! | [`COMMON`] | the same: what an administrator gives to everybody's containers |
//! | nothing | every other id |
//!
//! The kernel honours no capability on a file of which it cannot tell the ids: what is left is what its mode gives to everybody. It is stricter than for a
//! process of the account in one thing: such a file, or directory, cannot be written whatever its mode says (`HAS_UNMAPPED_ID` of `fs/namei.c`). So a
//! directory of another's that everybody may write is read-only for containers as a whole, and it is said why.
//!
//! Two capabilities are honoured all the same, and containers that may write to such a volume lack them ([`super::spec`]): `CAP_MKNOD`, for a device node
//! that is made here can be opened on the node; and `CAP_CHOWN`, by which root of the file system's own namespace gives an owner to what has none here
//! (`chown_ok` of `fs/attr.c`). Nothing less than a user namespace of the container's own would let it have them, which Docker gives to all or none.
//!
//! What is mounted below a directory does not come along: it is another file system's, whose files the account may reach by their own path.
//!
//! The mounts are below `<work_dir>/volumes`, for as long as a launch takes: the container has a mount of its own once it is started, as long as it lives,
//! whatever becomes of the server or Docker. What a server that was killed has left is removed by the next one.

use std::{
    collections::BTreeSet,
    io,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{io::Errno, mount::UnmountFlags};

use super::{
    account::{Account, Whom},
    spec::file_name,
    volumes::Pinned,
};
use crate::{
    brick::{local::set_immutable, mounts},
    model::id::TaskId,
};

mod kernel;

pub use kernel::main;

/// The user and the group whose files everybody's containers may treat as their own. No account has this number.
pub const COMMON: u32 = FIRST_OWN - 1;
/// Where the ranges of accounts begin that have none in `/etc/subuid`: above what anything else gives out (systemd's `UIDS-GIDS.md`).
const FIRST_OWN: u32 = 1 << 31;
/// Ids of a range.
const RANGE: u32 = 65_536;
/// Accounts with greater numbers need an entry in `/etc/subuid`: ranges end where numbers do.
const MAX_OWN: u32 = 32_766;
/// Ranges of `/etc/subuid` that begin below are taken for a mistake: there are accounts.
const MIN_FIRST: u32 = 65_536;
/// Further groups that a container is in. The kernel takes a map of one page, 4096 bytes.
const MAX_GROUPS: usize = 48;
/// More than any `/etc/subuid` has.
const MAX_FILE_BYTES: u64 = 1 << 20;
/// Mounts on top of each other that are removed; we make one.
const MAX_STACK: usize = 16;

// === Which ids ===

/// Consecutive ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Extent {
    /// On the node.
    disk: u32,
    /// In the container.
    inside: u32,
    count: u32,
}

/// The ids of the node that belong to an account besides its own: id `n` of a container is `first + n`. From `/etc/subuid` and `/etc/subgid` when the
/// account has an entry there, otherwise 2147483648 + 65536 * the account's number. Those who have no account share one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    first: u32,
    count: u32,
}

impl Range {
    /// That of an account which has none in `/etc/subuid`; `None`: its number is too great.
    fn own(account: &Account) -> Option<Self> {
        let slot = if account.is_nobody() { 0 } else { account.uid };
        (slot <= MAX_OWN).then(|| Self { first: FIRST_OWN + RANGE * slot, count: RANGE })
    }

    /// The first usable entry for the account in the text of `/etc/subuid` or `/etc/subgid`: `name or number:first:count`.
    fn find(text: &str, account: &Account) -> Option<Self> {
        let number = account.uid.to_string();
        text.lines().find_map(|line| {
            let mut fields = line.trim().split(':');
            let whose = fields.next()?;
            let (first, count) = (fields.next()?.parse::<u32>().ok()?, fields.next()?.parse::<u32>().ok()?);
            let range = Self { first, count: count.min(RANGE) };
            let is_fine = first >= MIN_FIRST && count > 0 && first.checked_add(range.count).is_some_and(|end| end <= COMMON);
            (fields.next().is_none() && is_fine && !account.is_nobody() && (whose == account.name || whose == number)).then_some(range)
        })
    }

    fn has(&self, disk: u32) -> bool {
        disk >= self.first && disk - self.first < self.count
    }
}

/// As whom a container is seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ids {
    uids: Vec<Extent>,
    gids: Vec<Extent>,
    /// The groups that the container's processes are in besides their own.
    pub groups: Vec<u32>,
}

impl Ids {
    /// The ids for a container of `account`, whose processes begin as `user` (a name, a number, or two numbers with `:` between them). May block.
    pub fn look_up(account: &Account, user: Option<&str>) -> Self {
        let read = |path| io::read_to_string(io::Read::take(std::fs::File::open(path)?, MAX_FILE_BYTES));
        let range = |path| Range::find(&read(path).unwrap_or_default(), account).or_else(|| Range::own(account));
        Self::of(account, user, [range("/etc/subuid"), range("/etc/subgid")])
    }

    fn of(account: &Account, user: Option<&str>, [uids, gids]: [Option<Range>; 2]) -> Self {
        // Only a number is known here: a name is one of the image's.
        let (uid, gid) = match user.map(|user| user.split_once(':').map_or((user, None), |(uid, gid)| (uid, Some(gid)))) {
            Some((uid, gid)) => (uid.parse().unwrap_or(0), gid.and_then(|gid| gid.parse::<u32>().ok())),
            None => (0, None),
        };
        // A number's group is the image's to say: the account's is one more, then.
        let gid = gid.unwrap_or(if uid == 0 { 0 } else { account.gid });
        // Root's group is nobody's own.
        let own_gid = if account.gid == 0 { Account::NONE } else { account.gid };
        let further = account.groups.iter().filter(|group| **group != 0 && **group != account.gid).take(MAX_GROUPS);
        let further = further.map(|group| (*group, *group));
        let gids = extents(std::iter::once((own_gid, gid)).chain(further).chain([(COMMON, COMMON)]), gids);
        let of_account =
            gids.iter().filter(|extent| extent.count == 1 && account.groups.contains(&extent.disk)).map(|extent| extent.inside);
        let groups = of_account.filter(|inside| (1..COMMON).contains(inside)).collect();
        Self { uids: extents([(account.uid, uid), (COMMON, COMMON)].into_iter(), uids), gids, groups }
    }

    /// True when what belongs to these can be written, as far as its mode allows it.
    fn may_write(&self, uid: u32, gid: u32) -> bool {
        let has = |extents: &[Extent], id: u32| extents.iter().any(|extent| id >= extent.disk && id - extent.disk < extent.count);
        has(&self.uids, uid) && has(&self.gids, gid)
    }
}

/// One to one: of two that want the same id the first one has it.
fn extents(singles: impl Iterator<Item = (u32, u32)>, range: Option<Range>) -> Vec<Extent> {
    let (mut on_disk, mut within) = (BTreeSet::new(), BTreeSet::new());
    let mut extents = Vec::new();
    for (disk, inside) in singles {
        if !on_disk.contains(&disk) && !within.contains(&inside) && range.is_none_or(|range| !range.has(disk)) {
            on_disk.insert(disk);
            within.insert(inside);
            extents.push(Extent { disk, inside, count: 1 });
        }
    }
    let Some(range) = range else { return extents };
    let mut begin = 0;
    for end in within.range(..range.count).copied().chain([range.count]) {
        if begin < end {
            extents.push(Extent { disk: range.first + begin, inside: begin, count: end - begin });
        }
        begin = end + 1;
    }
    extents
}

/// As the kernel takes it: ids of the file system, ids of who looks, how many.
fn map(extents: &[Extent]) -> String {
    extents.iter().map(|extent| format!("{} {} {}\n", extent.disk, extent.inside, extent.count)).collect()
}

// === Mounts ===

/// A mount that lasts as long as this.
#[derive(Debug)]
pub struct Shown(PathBuf);

impl Drop for Shown {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.0) {
            tracing::warn!(path = %self.0.display(), %error, "The mount of a host volume could not be removed; the next start tries it again.");
        }
    }
}

/// Puts what the containers of `whom` get in the place of what was pinned for `task`. `program` is this one; `user` is whom the container's processes begin
/// as. `None`: whom nobody asks, and root, gets the plain directories. With the ids come notes for people. Blocks.
///
/// # Errors
/// A sentence for the user: it cannot be shown so.
pub fn show(
    pinned: &mut [Pinned],
    whom: &Whom,
    user: Option<&str>,
    task: &TaskId,
    work_dir: &Path,
    program: &Path,
) -> Result<Option<(Ids, Vec<String>)>, String> {
    let Whom::Account(account) = whom else { return Ok(None) };
    if account.uid == 0 || pinned.is_empty() {
        return Ok(None);
    }
    let ids = Ids::look_up(account, user);
    let namespace = kernel::namespace(program, &map(&ids.uids), &map(&ids.gids))
        .map_err(|error| format!("host volumes cannot be shown to a container as files of user '{}': {error}", account.name))?;
    let directory = root(work_dir);
    make_root(&directory).map_err(|error| format!("{} cannot be used: {error}", directory.display()))?;
    let mut notes = Vec::new();
    for (number, pinned) in pinned.iter_mut().enumerate() {
        let place = directory.join(format!("{}.{number}", file_name(task)));
        let shown = show_one(pinned, &ids, &namespace, place, &mut notes);
        pinned.shown = Some(shown.map_err(|error| format!("host volume '{}': {error}", pinned.path.display()))?);
    }
    Ok(Some((ids, notes)))
}

fn show_one(pinned: &mut Pinned, ids: &Ids, namespace: &OwnedFd, place: PathBuf, notes: &mut Vec<String>) -> Result<Shown, String> {
    let stat = rustix::fs::fstat(&pinned.open).map_err(|error| io::Error::from(error).to_string())?;
    if !pinned.bind.read_only && !ids.may_write(stat.st_uid, stat.st_gid) {
        pinned.bind.read_only = true;
        notes.push(format!(
            "host volume '{}' is read-only for this container: it belongs to user {} and group {} of the node, and not to the owner's account (an \
             administrator can give it to everybody's containers, which then start without the right to change owners: chown {COMMON}:{COMMON})",
            pinned.path.display(),
            stat.st_uid,
            stat.st_gid
        ));
    }
    let is_directory = rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir();
    let tree = kernel::mapped_tree(&pinned.open, namespace, pinned.bind.read_only).map_err(|error| explain(&error, &pinned.open))?;
    let made = make_place(&place, is_directory);
    let shown = Shown(place);
    made.and_then(|()| kernel::attach(&tree, &shown.0))
        .map_err(|error| format!("it cannot be mounted at {}: {error}", shown.0.display()))?;
    pinned.bind.source.clone_from(&shown.0);
    Ok(shown)
}

fn explain(error: &io::Error, open: &OwnedFd) -> String {
    let instead = "an administrator can grant hostVolumes, or write the volume into the app";
    let why = match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NOSYS) => "the kernel of the node is older than Linux 5.12".to_owned(),
        Some(Errno::INVAL) => {
            let kind = mounts::of(open.as_fd())
                .map_or_else(|_| "its file system".to_owned(), |mount| format!("file system {}", mount.file_system));
            format!("{kind} cannot do that with this kernel; ext4, xfs, btrfs and tmpfs of newer ones can: use a directory on one of them")
        }
        _ => error.to_string(),
    };
    format!("it cannot be shown to a container as files of the user's account: {why}; {instead}")
}

/// Removes what a server that was killed has left.
///
/// # Errors
/// A mount or its place cannot be removed.
pub fn tidy(work_dir: &Path) -> io::Result<()> {
    let entries = match std::fs::read_dir(root(work_dir)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    let left = entries.collect::<io::Result<Vec<_>>>()?;
    left.iter().try_for_each(|entry| remove(&entry.path()))
}

fn root(work_dir: &Path) -> PathBuf {
    work_dir.join("volumes")
}

fn make_root(path: &Path) -> io::Result<()> {
    std::os::unix::fs::DirBuilderExt::mode(std::fs::DirBuilder::new().recursive(true), 0o700).create(path)
}

/// An empty directory or file, which stays so whoever sees it instead of the mount.
fn make_place(place: &Path, is_directory: bool) -> io::Result<()> {
    remove(place)?;
    if is_directory { std::fs::create_dir(place) } else { std::fs::File::create_new(place).map(drop) }?;
    // Where flags are not supported it does without.
    std::fs::File::open(place).map(|open| _ = set_immutable(&open, true))
}

/// Unmounts what is there, and removes its place: who comes later finds nothing rather than something empty. Never what is below.
fn remove(place: &Path) -> io::Result<()> {
    for _ in 0..MAX_STACK {
        match rustix::mount::unmount(place, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            Ok(()) => {}
            Err(Errno::INVAL | Errno::NOENT) => break,
            Err(error) => return Err(error.into()),
        }
    }
    let removed = std::fs::File::open(place).and_then(|open| {
        _ = set_immutable(&open, false);
        if open.metadata()?.is_dir() { std::fs::remove_dir(place) } else { std::fs::remove_file(place) }
    });
    removed.or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

#[cfg(test)]
mod tests;
