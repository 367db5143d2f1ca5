//! Host volumes: which path of the node a container really gets.
//!
//! A path is resolved with `openat2(2)` (no `/proc` magic links), the rule is applied to what was written and to what it resolves to, and the file found
//! is held open. All this is done as the owner's account where one is asked ([`super::account`]): the kernel says whether it may read and write there,
//! and a directory that is missing is made as its own. Docker opens the path again by itself when the container starts, so a swap in between is
//! possible: after the start the container's own view is compared with what is held open ([`seen_by`]), and one that sees something else is killed. Of an
//! ordinary user's volumes it opens a mount of ours instead ([`super::idmap`]).

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags},
    io::Errno,
};

use super::{account::Whom, idmap::Shown, resolved, spec::Bind};
use crate::model::host_volume::HostVolumeRule;

/// Device and inode: what a path leads to.
pub type Identity = (u64, u64);

/// A directory or file that was resolved, checked, and is held open.
#[derive(Debug)]
pub struct Pinned {
    /// What Docker is asked to mount.
    pub bind: Bind,
    /// Where it really is.
    pub path: PathBuf,
    /// What it leads to.
    pub identity: Identity,
    /// Keeps it open.
    pub(super) open: OwnedFd,
    /// Keeps it mounted where Docker is told to look for it, if that is somewhere else.
    pub(super) shown: Option<Shown>,
}

/// Resolves `host_path`; a directory that is missing is made, as Docker would.
///
/// # Errors
/// The rule forbids it, or it cannot be used: a sentence for the user.
pub fn pin(host_path: &str, target: &str, read_only: bool, rule: &HostVolumeRule, whom: &Whom) -> Result<Pinned, String> {
    let shown = |what: String| format!("host volume '{host_path}': {what}");
    let path = Path::new(host_path);
    if let Some(reason) = refused(path, rule) {
        return Err(shown(reason));
    }
    let find = || match open_path(path) {
        Err(Errno::NOENT) => make_missing(path, rule),
        other => other.map_err(|error| format!("cannot be opened: {}", io::Error::from(error))),
    };
    let open = whom.run(|| find().and_then(|open| whom.check(&open, read_only).map(|()| open))).map_err(shown)?;
    let real = std::fs::read_link(format!("/proc/self/fd/{}", open.as_raw_fd())).map_err(|error| shown(error.to_string()))?;
    if let Some(reason) = refused(&real, rule) {
        return Err(shown(reason));
    }
    let stat = rustix::fs::fstat(&open).map_err(|error| shown(error.to_string()))?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory | FileType::RegularFile => {}
        _ => return Err(shown("is neither a directory nor a plain file".to_owned())),
    }
    let bind = Bind { source: real.clone(), target: target.to_owned(), read_only };
    Ok(Pinned { bind, path: real, identity: (stat.st_dev, stat.st_ino), open, shown: None })
}

/// Opens what `host_path` leads to (without access: `O_PATH`) when the rule allows it and `whom` may read it. Nothing is made.
///
/// # Errors
/// The rule forbids it, or it cannot be used: a sentence for the user.
pub fn find(host_path: &str, rule: &HostVolumeRule, whom: &Whom) -> Result<OwnedFd, String> {
    let path = Path::new(host_path);
    let allowed = |path: &Path| refused(path, rule).map_or(Ok(()), Err);
    allowed(path)?;
    let open = whom.run(|| {
        let open = open_path(path).map_err(|error| format!("cannot be opened: {}", io::Error::from(error)))?;
        whom.check(&open, true).map(|()| open)
    })?;
    let real = std::fs::read_link(format!("/proc/self/fd/{}", open.as_raw_fd())).map_err(|error| error.to_string())?;
    allowed(&real)?;
    Ok(open)
}

/// What a process sees at `target`, in its own mount namespace and below its own root.
///
/// # Errors
/// It is gone, or has nothing there.
pub fn seen_by(pid: i64, target: &str) -> io::Result<Identity> {
    let root = rustix::fs::open(format!("/proc/{pid}/root"), OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let flags = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let there = resolved::open(&root, target, OFlags::PATH, flags)?;
    let stat = rustix::fs::fstat(&there)?;
    Ok((stat.st_dev, stat.st_ino))
}

/// What a path of the node leads to.
///
/// # Errors
/// It does not exist.
pub fn identity(path: &Path) -> io::Result<Identity> {
    let stat = rustix::fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok((stat.st_dev, stat.st_ino))
}

fn open_path(path: &Path) -> Result<OwnedFd, Errno> {
    rustix::fs::openat2(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::NO_MAGICLINKS)
}

/// Makes the missing directories below the longest part that exists, without following anything that appears meanwhile.
fn make_missing(path: &Path, rule: &HostVolumeRule) -> Result<OwnedFd, String> {
    let mut missing = Vec::new();
    let mut existing = path;
    let mut open = loop {
        let (Some(parent), Some(name)) = (existing.parent(), existing.file_name()) else { return Err("does not exist".to_owned()) };
        missing.push(name);
        existing = parent;
        match open_path(existing) {
            Err(Errno::NOENT) => {}
            other => break other.map_err(|error| format!("cannot be opened: {}", io::Error::from(error)))?,
        }
    };
    let mut real = std::fs::read_link(format!("/proc/self/fd/{}", open.as_raw_fd())).map_err(|error| error.to_string())?;
    real.extend(missing.iter().rev());
    if let Some(reason) = refused(&real, rule) {
        return Err(reason);
    }
    for name in missing.iter().rev() {
        match rustix::fs::mkdirat(&open, *name, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(format!("cannot be made: {}", io::Error::from(error))),
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::DIRECTORY | OFlags::CLOEXEC;
        open = rustix::fs::openat(&open, *name, flags, Mode::empty())
            .map_err(|error| format!("cannot be made: {}", io::Error::from(error)))?;
    }
    Ok(open)
}

/// Why `path` may not be mapped; `None`: it may. About the text alone.
fn refused(path: &Path, rule: &HostVolumeRule) -> Option<String> {
    match path.to_str() {
        Some(text) => rule.check(text).err().map(|error| error.to_string()),
        None => Some("its name is not UTF-8".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::{super::account::Account, *};
    use crate::model::id::Owner;

    fn open_rule(directory: &Path) -> HostVolumeRule {
        HostVolumeRule { allow: vec![directory.to_string_lossy().into_owned()], ..HostVolumeRule::default() }
    }

    #[test]
    fn the_rule_holds_for_what_a_path_leads_to() {
        let directory = tempfile::tempdir().unwrap();
        let rule = open_rule(directory.path());
        let at = |name: &str| directory.path().join(name).to_string_lossy().into_owned();
        symlink("/etc", at("etc")).unwrap();
        symlink("/", at("top")).unwrap();
        std::fs::create_dir(at("data")).unwrap();
        symlink("data", at("fine")).unwrap();
        let check = |path: String, expected: &str| {
            let found =
                pin(&path, "/x", false, &rule, &Whom::Server).map_or_else(|error| error, |pinned| pinned.bind.source.display().to_string());
            assert!(found.contains(expected), "{path}: {found}");
        };
        check(at("fine"), &at("data"));
        check(at("etc"), "'/etc' must not be mapped as a whole: name a file or directory below it");
        check(at("top"), "'/' must not be mapped as a whole: name a file or directory below it");
        check(at("top/etc/shadow"), "'/etc/shadow' must not be mapped");
        check(at("top/proc/self/root"), "cannot be opened: Too many levels of symbolic links (os error 40)");
        check("/proc/self/root/etc".to_owned(), "'/proc/self/root/etc' must not be mapped: it lies in '/proc'");
        check("relative".to_owned(), "must be an absolute path");
    }

    #[test]
    fn a_missing_directory_is_made_where_it_is_allowed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a/b");
        let pinned = pin(&path.to_string_lossy(), "/x", true, &open_rule(directory.path()), &Whom::Server).unwrap();
        assert_eq!((pinned.bind.source, pinned.bind.read_only), (path.clone(), true));
        assert_eq!(identity(&path).unwrap(), pinned.identity);
        symlink("/boot", directory.path().join("boot")).unwrap();
        let refused =
            pin(&directory.path().join("boot/x").to_string_lossy(), "/x", false, &open_rule(directory.path()), &Whom::Server).unwrap_err();
        assert!(refused.contains("'/boot/x' must not be mapped"), "{refused}");
        assert!(!Path::new("/boot/x").exists());
    }

    #[test]
    fn a_socket_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let refused = pin(&path.to_string_lossy(), "/x", false, &open_rule(directory.path()), &Whom::Server).unwrap_err();
        assert!(refused.ends_with("is neither a directory nor a plain file"), "{refused}");
    }

    #[test]
    fn a_process_is_asked_what_it_sees() {
        let directory = tempfile::tempdir().unwrap();
        let own = i64::from(std::process::id());
        assert_eq!(seen_by(own, &directory.path().to_string_lossy()).unwrap(), identity(directory.path()).unwrap());
        assert!(seen_by(own, "/no/such/thing").is_err());
    }

    /// `nobody`, who owns nothing here but what is given to it.
    fn nobody() -> Whom {
        Whom::Account(Account { name: "nobody".into(), uid: 65_534, gid: 65_534, groups: vec![65_534] })
    }

    #[test]
    fn a_user_gets_what_the_own_account_may_have() {
        let directory = tempfile::tempdir().unwrap();
        let rule = open_rule(directory.path());
        let mode = |path: &Path, mode: u32| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        mode(directory.path(), 0o755);
        let make = |name: &str, owner: u32, bits: u32| {
            let path = directory.path().join(name);
            std::fs::create_dir(&path).unwrap();
            std::os::unix::fs::chown(&path, Some(owner), Some(owner)).unwrap();
            mode(&path, bits);
        };
        make("own", 65_534, 0o700);
        make("shown", 0, 0o755);
        make("secret", 0, 0o700);
        make("secret/open", 0, 0o777);
        std::fs::write(directory.path().join("key"), "k").unwrap();
        mode(&directory.path().join("key"), 0o600);
        let check = |whom: &Whom, name: &str, read_only: bool, expected: &str| {
            let path = directory.path().join(name).to_string_lossy().into_owned();
            let found = pin(&path, "/x", read_only, &rule, whom).map_or_else(|error| error, |_| "fine".to_owned());
            assert!(found.contains(expected), "{name} {read_only}: {found}");
        };
        let nobody = nobody();
        check(&nobody, "own", false, "fine");
        check(&nobody, "shown", true, "fine");
        check(&nobody, "shown", false, "user 'nobody' may read it but not write it; ask for it read-only (\"mode\": \"RO\")");
        check(&nobody, "secret", true, "user 'nobody' may not read it");
        check(&nobody, "secret/open", true, "cannot be opened: Permission denied");
        check(&nobody, "key", true, "user 'nobody' may not read it");
        check(&nobody, "shown/new", false, "cannot be made: Permission denied");
        assert!(!directory.path().join("shown/new").exists());
        check(&nobody, "own/new", false, "fine");
        assert_eq!(std::fs::metadata(directory.path().join("own/new")).unwrap().uid(), 65_534);
        for name in ["secret", "key"] {
            check(&Whom::Server, name, false, "fine");
        }
        // Whoever has no account gets what everybody may have.
        let stranger = Whom::of(Some(&Owner::new("no-such-account-here")));
        check(&stranger, "shown", true, "fine");
        check(&stranger, "own", true, "user 'no-such-account-here' may not read it");
        // This thread is what it was.
        assert_eq!(rustix::process::geteuid().as_raw(), 0);
    }
}
