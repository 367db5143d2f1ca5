//! What a container uses, read from the kernel: one adapter for cgroup v1 (one tree a controller) and v2 (one tree).
//!
//! File names and units: the kernel's `Documentation/admin-guide/cgroup-v1/memory.rst`, `cpuacct.rst` and `cgroup-v2.rst`. What is hybrid (v1 with an
//! empty v2 tree beside it) counts as v1, because its controllers are there.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

/// v1 writes this, rounded to pages, where there is no limit.
const V1_UNLIMITED: u64 = 0x7fff_ffff_ffff_0000;

/// Which layout this machine has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// One tree a controller.
    V1,
    /// One tree.
    V2,
}

impl fmt::Display for Version {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::V1 => "v1",
            Self::V2 => "v2",
        })
    }
}

/// What one container uses at this moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// CPU time so far, nanoseconds.
    pub cpu_ns: u64,
    /// Memory in use without the page cache that could go at once, bytes.
    pub mem_bytes: u64,
    /// The limit of memory, bytes; `None`: none.
    pub mem_limit_bytes: Option<u64>,
    /// Processes killed for want of memory; `None`: this kernel does not say.
    pub oom_kills: Option<u64>,
    /// Processes and threads.
    pub pids: u64,
}

/// The cgroup file system.
#[derive(Clone, Debug)]
pub struct Cgroups {
    root: PathBuf,
    version: Version,
}

impl Cgroups {
    /// Looks at the file system below `root`, `/sys/fs/cgroup` on every machine.
    pub fn detect(root: impl Into<PathBuf>) -> Self {
        let root = root.into();
        let version = if root.join("cgroup.controllers").exists() { Version::V2 } else { Version::V1 };
        Self { root, version }
    }

    /// Which layout it is.
    pub fn version(&self) -> Version {
        self.version
    }

    /// What the container of process `pid` uses.
    ///
    /// # Errors
    /// The process is gone, or a file is missing.
    pub fn usage(&self, pid: i64) -> io::Result<Usage> {
        self.usage_of(&std::fs::read_to_string(format!("/proc/{pid}/cgroup"))?)
    }

    /// As [`Cgroups::usage`], from the text of `/proc/<pid>/cgroup`.
    fn usage_of(&self, membership: &str) -> io::Result<Usage> {
        match self.version {
            Version::V1 => self.usage_v1(membership),
            Version::V2 => self.usage_v2(membership),
        }
    }

    fn usage_v1(&self, membership: &str) -> io::Result<Usage> {
        let memory = self.directory(membership, "memory")?;
        let limit = number(&memory.join("memory.limit_in_bytes"))?;
        let inactive = field(&memory.join("memory.stat"), "total_inactive_file").unwrap_or(0);
        Ok(Usage {
            cpu_ns: number(&self.directory(membership, "cpuacct")?.join("cpuacct.usage"))?,
            mem_bytes: number(&memory.join("memory.usage_in_bytes"))?.saturating_sub(inactive),
            mem_limit_bytes: (limit < V1_UNLIMITED).then_some(limit),
            oom_kills: field(&memory.join("memory.oom_control"), "oom_kill").ok(),
            pids: self.directory(membership, "pids").and_then(|pids| number(&pids.join("pids.current"))).unwrap_or(0),
        })
    }

    fn usage_v2(&self, membership: &str) -> io::Result<Usage> {
        let group = self.directory(membership, "")?;
        let inactive = field(&group.join("memory.stat"), "inactive_file").unwrap_or(0);
        Ok(Usage {
            cpu_ns: field(&group.join("cpu.stat"), "usage_usec")?.saturating_mul(1000),
            mem_bytes: number(&group.join("memory.current"))?.saturating_sub(inactive),
            mem_limit_bytes: number(&group.join("memory.max")).ok(),
            oom_kills: field(&group.join("memory.events"), "oom_kill").ok(),
            pids: number(&group.join("pids.current")).unwrap_or(0),
        })
    }

    /// The directory of `controller` (v1), or of the one tree when it is empty (v2). Lines are `number:controller,controller:/path`.
    fn directory(&self, membership: &str, controller: &str) -> io::Result<PathBuf> {
        let path = membership.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            let (controllers, path) = (parts.next()?, parts.next()?);
            controllers.split(',').any(|name| name == controller).then_some(path)
        });
        let path = path.ok_or_else(|| io::Error::other(format!("the process is in no cgroup of controller '{controller}'")))?;
        Ok(self.root.join(controller).join(path.trim_start_matches('/')))
    }
}

fn number(path: &Path) -> io::Result<u64> {
    let text = std::fs::read_to_string(path)?;
    text.trim().parse().map_err(|_| io::Error::other(format!("{} has no number", path.display())))
}

/// The number after `name` in a file of lines `name number`.
fn field(path: &Path, name: &str) -> io::Result<u64> {
    let text = std::fs::read_to_string(path)?;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok());
    value.ok_or_else(|| io::Error::other(format!("{} has no {name}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn v1_is_read_from_its_many_trees() {
        let root = tree(&[
            ("cpuacct/docker/c0/cpuacct.usage", "123456789\n"),
            ("memory/docker/c0/memory.usage_in_bytes", "5000000\n"),
            ("memory/docker/c0/memory.limit_in_bytes", "134217728\n"),
            ("memory/docker/c0/memory.stat", "cache 9\ninactive_file 7\ntotal_inactive_file 1000000\n"),
            ("memory/docker/c0/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"),
            ("pids/docker/c0/pids.current", "3\n"),
            ("unified/cgroup.controllers", "\n"),
        ]);
        let cgroups = Cgroups::detect(root.path());
        assert_eq!(cgroups.version(), Version::V1);
        let membership = "12:pids:/docker/c0\n5:memory:/docker/c0\n4:cpuacct,cpu:/docker/c0\n1:name=systemd:/docker/c0\n0::/\n";
        let expected = Usage { cpu_ns: 123_456_789, mem_bytes: 4_000_000, mem_limit_bytes: Some(134_217_728), oom_kills: Some(2), pids: 3 };
        assert_eq!(cgroups.usage_of(membership).unwrap(), expected);
        assert!(cgroups.usage_of("5:memory:/docker/c0\n").is_err());
        std::fs::write(root.path().join("memory/docker/c0/memory.limit_in_bytes"), "9223372036854771712\n").unwrap();
        assert_eq!(cgroups.usage_of(membership).unwrap().mem_limit_bytes, None);
    }

    #[test]
    fn v2_is_read_from_its_one_tree() {
        let root = tree(&[
            ("cgroup.controllers", "cpuset cpu io memory pids\n"),
            ("system.slice/docker-c0.scope/cpu.stat", "usage_usec 1500\nuser_usec 1000\nsystem_usec 500\n"),
            ("system.slice/docker-c0.scope/memory.current", "5000000\n"),
            ("system.slice/docker-c0.scope/memory.max", "max\n"),
            ("system.slice/docker-c0.scope/memory.stat", "anon 4\ninactive_file 1000000\n"),
            ("system.slice/docker-c0.scope/memory.events", "low 0\nhigh 0\nmax 3\noom 1\noom_kill 1\n"),
            ("system.slice/docker-c0.scope/pids.current", "2\n"),
        ]);
        let cgroups = Cgroups::detect(root.path());
        assert_eq!(cgroups.version(), Version::V2);
        let expected = Usage { cpu_ns: 1_500_000, mem_bytes: 4_000_000, mem_limit_bytes: None, oom_kills: Some(1), pids: 2 };
        assert_eq!(cgroups.usage_of("0::/system.slice/docker-c0.scope\n").unwrap(), expected);
        std::fs::write(root.path().join("system.slice/docker-c0.scope/memory.max"), "134217728\n").unwrap();
        assert_eq!(cgroups.usage_of("0::/system.slice/docker-c0.scope\n").unwrap().mem_limit_bytes, Some(134_217_728));
    }
}
