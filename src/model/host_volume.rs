//! Which directories and files of a node may be mapped into containers. A pure rule about paths, applied twice: to the text when a definition is
//! accepted, and by whoever mounts it to the path that it resolves to. Whether the owner's account may read or write it is asked there, too.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Longest path that is accepted, in bytes: Linux' `PATH_MAX`.
pub const MAX_HOST_PATH_BYTES: usize = 4095;

/// Too big to be given away as a whole; files and directories below them may be mapped.
const BIG: [&str; 25] = [
    "/",
    "/bin",
    "/etc",
    "/home",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/lost+found",
    "/media",
    "/mnt",
    "/opt",
    "/sbin",
    "/snap",
    "/srv",
    "/tmp",
    "/usr",
    "/usr/bin",
    "/usr/lib",
    "/usr/local",
    "/usr/sbin",
    "/usr/share",
    "/var",
    "/var/lib",
    "/var/tmp",
];

/// Closed with everything below them: the kernel, devices, the boot loader, sockets, accounts, keys, and the data of container engines.
const CLOSED: [&str; 24] = [
    "/boot",
    "/dev",
    "/etc/docker",
    "/etc/gshadow",
    "/etc/gshadow-",
    "/etc/krb5.keytab",
    "/etc/kubernetes",
    "/etc/security/opasswd",
    "/etc/shadow",
    "/etc/shadow-",
    "/etc/ssh",
    "/etc/ssl/private",
    "/etc/sudoers",
    "/etc/sudoers.d",
    "/proc",
    "/root",
    "/run",
    "/sys",
    "/var/lib/containerd",
    "/var/lib/docker",
    "/var/lib/kubelet",
    "/var/lib/mesos",
    "/var/run",
    "/var/spool/cron",
];

/// Directories that hold keys, wherever they are.
const KEY_DIRECTORIES: [&str; 6] = [".aws", ".docker", ".gnupg", ".kube", ".ssh", ".xtao"];

/// The rule, with what the administrator and the server itself add to it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostVolumeRule {
    /// Open with everything below, whatever the built-in rule says (`--host_volume_allow`). Absolute, normal paths.
    pub allow: Vec<String>,
    /// Closed with everything below, before `allow` (`--host_volume_deny`). Absolute, normal paths.
    pub deny: Vec<String>,
    /// The server's own directories, and those of the engine that it uses: closed, and nobody can open them. Absolute, normal paths.
    pub own: Vec<String>,
}

/// Why a path may not be mapped. The text is shown to the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostVolumeError {
    /// No absolute path, or one with `..` or control characters, or too long.
    Malformed(&'static str),
    /// One of the directories that are closed as such.
    Big(String),
    /// The path, and the closed one which it is, lies in, or contains.
    Closed(String, String),
}

impl std::error::Error for HostVolumeError {}

impl fmt::Display for HostVolumeError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        const HINT: &str = "an administrator can allow paths with --host_volume_allow";
        match self {
            Self::Malformed(what) => write!(out, "{what}"),
            Self::Big(path) => write!(out, "'{path}' must not be mapped as a whole: name a file or directory below it ({HINT})"),
            Self::Closed(path, closed) if path == closed => write!(out, "'{path}' must not be mapped ({HINT})"),
            Self::Closed(path, closed) if is_within(path, closed) => {
                write!(out, "'{path}' must not be mapped: it lies in '{closed}' ({HINT})")
            }
            Self::Closed(path, closed) => write!(out, "'{path}' must not be mapped: it contains '{closed}' ({HINT})"),
        }
    }
}

impl HostVolumeRule {
    /// `path` in its normal form (single slashes, no trailing one, no `.`), when it may be mapped.
    ///
    /// # Errors
    /// See [`HostVolumeError`].
    pub fn check(&self, path: &str) -> Result<String, HostVolumeError> {
        let path = normal_path(path)?;
        let closed = |entry: &str| Err(HostVolumeError::Closed(path.clone(), entry.to_owned()));
        if let Some(entry) = self.own.iter().chain(&self.deny).find(|entry| touches(&path, entry)) {
            return if BIG.contains(&path.as_str()) { Err(HostVolumeError::Big(path)) } else { closed(entry) };
        }
        if self.allow.iter().any(|entry| is_within(&path, entry)) {
            return Ok(path);
        }
        if BIG.contains(&path.as_str()) {
            return Err(HostVolumeError::Big(path));
        }
        if let Some(entry) = CLOSED.iter().find(|entry| touches(&path, entry)) {
            return closed(entry);
        }
        if let Some(end) = key_directory(&path) {
            return closed(&path[..end]);
        }
        if path.ends_with(".sock") || path.ends_with(".socket") {
            return Err(HostVolumeError::Malformed("sockets of the node must not be mapped"));
        }
        Ok(path)
    }
}

/// Single slashes, no trailing one, no `.`.
fn normal_path(text: &str) -> Result<String, HostVolumeError> {
    if !text.starts_with('/') {
        return Err(HostVolumeError::Malformed("must be an absolute path"));
    }
    if text.len() > MAX_HOST_PATH_BYTES || text.chars().any(char::is_control) {
        return Err(HostVolumeError::Malformed("must have at most 4095 bytes and no control characters"));
    }
    let segments: Vec<&str> = text.split('/').filter(|segment| !segment.is_empty() && *segment != ".").collect();
    if segments.contains(&"..") {
        return Err(HostVolumeError::Malformed("must not contain '..'"));
    }
    Ok(format!("/{}", segments.join("/")))
}

/// True when `path` is `directory` or lies in it, by whole segments.
fn is_within(path: &str, directory: &str) -> bool {
    let directory = directory.trim_end_matches('/');
    path.strip_prefix(directory).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// True when one of both lies in the other: mapping `path` would give access to something of `closed`.
fn touches(path: &str, closed: &str) -> bool {
    is_within(path, closed) || is_within(closed, path)
}

/// Where the first directory of keys in `path` ends.
fn key_directory(path: &str) -> Option<usize> {
    let mut end = 0;
    path[1..].split('/').find_map(|segment| {
        end += 1 + segment.len();
        KEY_DIRECTORIES.contains(&segment).then_some(end)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rule() -> HostVolumeRule {
        let paths = |paths: &[&str]| paths.iter().map(|path| (*path).to_owned()).collect();
        HostVolumeRule {
            allow: paths(&["/opt", "/dev/fuse", "/run/shared/", "/data/open"]),
            deny: paths(&["/data", "/opt/secret"]),
            own: paths(&["/var/lib/xtao", "/srv/docker"]),
        }
    }

    #[test]
    fn small_places_may_be_mapped_and_big_or_closed_ones_not() {
        let check = |path: &str, expected: &str| {
            let found = rule()
                .check(path)
                .unwrap_or_else(|error| error.to_string().replace(" (an administrator can allow paths with --host_volume_allow)", ""));
            assert_eq!(found, expected, "{path}");
        };
        for fine in [
            "/var/crash",
            "/var/log",
            "/etc/my_conf",
            "/home/zmfsea/data",
            "/usr/share/zoneinfo",
            "/tmp/x",
            "/mnt/disk1",
            "/x",
            "/etc/sshd",
        ] {
            check(fine, fine);
        }
        check("/var//log/./", "/var/log");
        for big in ["/", "/etc", "/home", "/usr", "/var", "/var/lib", "/usr/lib", "/srv"] {
            check(big, &format!("'{big}' must not be mapped as a whole: name a file or directory below it"));
        }
        check("//etc/.", "'/etc' must not be mapped as a whole: name a file or directory below it");
        for closed in ["/boot", "/dev", "/proc", "/root", "/run", "/sys", "/etc/shadow", "/var/run", "/var/lib/docker"] {
            check(closed, &format!("'{closed}' must not be mapped"));
        }
        check("/proc/1/root", "'/proc/1/root' must not be mapped: it lies in '/proc'");
        check("/var/run/docker.sock", "'/var/run/docker.sock' must not be mapped: it lies in '/var/run'");
        check("/etc/ssl", "'/etc/ssl' must not be mapped: it contains '/etc/ssl/private'");
        check("/home/ann/.ssh/id_rsa", "'/home/ann/.ssh/id_rsa' must not be mapped: it lies in '/home/ann/.ssh'");
        check("/tmp/a.sock", "sockets of the node must not be mapped");
        check("data", "must be an absolute path");
        check("", "must be an absolute path");
        check("/var/log/../../etc", "must not contain '..'");
        check("/a\0b", "must have at most 4095 bytes and no control characters");
    }

    #[test]
    fn settings_extend_and_narrow_the_rule() {
        let check = |path: &str, allowed: bool| assert_eq!(rule().check(path).is_ok(), allowed, "{path}");
        check("/opt", false); // contains what is denied
        check("/opt/app", true);
        check("/opt/secret", false);
        check("/opt/secret/x", false);
        check("/opt/secrets", true);
        check("/dev/fuse", true);
        check("/dev/fuse2", false);
        check("/run/shared/a.sock", true);
        check("/data/open", false); // deny goes before allow
        check("/srv/docker", false);
        check("/srv/web", true);
        let mut all = rule();
        all.allow.push("/".into());
        assert!(all.check("/etc").is_ok());
        assert!(all.check("/").is_err());
        assert!(all.check("/var/lib/xtao/bricks").is_err());
        assert!(all.check("/var/lib").is_err());
    }

    proptest! {
        #[test]
        fn an_accepted_path_is_normal_and_stays_accepted(path in "[/a-z.]{0,30}") {
            if let Ok(normal) = rule().check(&path) {
                prop_assert_eq!(rule().check(&normal), Ok(normal.clone()));
                prop_assert!(normal.starts_with('/') && !normal.contains("//"));
            }
        }
    }
}
