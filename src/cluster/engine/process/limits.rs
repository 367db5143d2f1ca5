//! Control groups of tasks that are processes: one directory a task (v2), or one in each controller's tree (v1), below `xtao`.
//!
//! As for containers: processors are shares, memory is a hard limit without swap, and the number of processes is limited; `resourceLimits` are a quota of
//! the processors and another limit of the memory, of which the amount that was asked for is then reserved. File names and units: the
//! kernel's `cgroup-v1/memory.rst`, `sched-bwc.rst`, `pids.rst` and `cgroup-v2.rst`; the weight for shares is what runc makes of them.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    cluster::engine::cgroup::{Cgroups, Version},
    model::resources::{ResourceLimit, ResourceLimits, Resources, Scalar},
};

/// All groups of ours are below this one.
const PARENT: &str = "xtao";
/// The controllers that are used, and by what name v1 and v2 know them.
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];
/// The period of a hard limit, microseconds.
const PERIOD: u64 = 100_000;
/// Microseconds in each period: more than any machine has processors for, and what the kernel takes.
const MAX_QUOTA: u64 = 10_000_000_000;
/// Mesos' smallest memory limit.
const MIN_MEM: Scalar = Scalar::whole(32);

/// What a task may use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// The control groups' file system; `None`: there are no limits.
    #[serde(default)]
    pub root: Option<PathBuf>,
    /// Shares of the processors, 1024 for each.
    pub cpu_shares: u64,
    /// Microseconds of processor time in each tenth of a second at most.
    #[serde(default)]
    pub cpu_quota: Option<u64>,
    /// Bytes.
    #[serde(default)]
    pub memory: Option<u64>,
    /// Bytes that are left to it when others want memory too.
    #[serde(default)]
    pub memory_reservation: Option<u64>,
    /// Processes and threads.
    pub pids: u64,
}

impl Limits {
    /// For what a task takes, and may take besides.
    pub fn of(resources: &Resources, given: ResourceLimits, cpu_hard_limit: bool, pids: i64, root: Option<PathBuf>) -> Self {
        let (cpus, mem) = (resources.cpus, resources.mem);
        let quota = |cpus: Scalar| (cpus.0.saturating_mul(PERIOD) / 1000).clamp(1000, MAX_QUOTA);
        let bytes = |mem: Scalar| mem.max(MIN_MEM).bytes();
        let requested = (mem > Scalar::ZERO).then(|| bytes(mem));
        Self {
            root,
            cpu_shares: (cpus.0 * 1024 / 1000).clamp(2, 262_144),
            cpu_quota: match given.cpus {
                None => (cpu_hard_limit && cpus > Scalar::ZERO).then(|| quota(cpus)),
                Some(ResourceLimit::Unlimited) => None,
                Some(ResourceLimit::At(limit)) => Some(quota(limit.max(cpus))),
            },
            memory: match given.mem {
                None => requested,
                Some(ResourceLimit::Unlimited) => None,
                Some(ResourceLimit::At(limit)) => Some(bytes(limit.max(mem))),
            },
            memory_reservation: given.mem.and(requested),
            pids: u64::try_from(pids).unwrap_or(u64::MAX),
        }
    }
}

/// That groups can be made below `root`, for whoever asks before the first task.
///
/// # Errors
/// Why not, for people.
pub fn check(root: &Path) -> Result<(), String> {
    parents(root).map(drop)
}

/// Ours in each tree, made if they are missing.
fn parents(root: &Path) -> Result<Vec<PathBuf>, String> {
    let failed = |path: &Path, error: io::Error| format!("{} cannot be written: {error}", path.display());
    let make = |path: PathBuf| match std::fs::create_dir(&path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(failed(&path, error)),
        _ => Ok(path),
    };
    if Cgroups::detect(root).version() == Version::V1 {
        let made = CONTROLLERS.map(|controller| make(root.join(controller).join(PARENT)));
        return made.into_iter().collect();
    }
    let enable = |path: &Path| -> Result<(), String> {
        let file = path.join("cgroup.subtree_control");
        let words = std::fs::read_to_string(&file).map_err(|error| failed(&file, error))?;
        for controller in CONTROLLERS.iter().filter(|wanted| !words.split_whitespace().any(|word| word == **wanted)) {
            std::fs::write(&file, format!("+{controller}")).map_err(|error| failed(&file, error))?;
        }
        Ok(())
    };
    enable(root)?;
    let parent = make(root.join(PARENT))?;
    enable(&parent)?;
    Ok(vec![parent])
}

/// The control groups of one task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Groups {
    directories: Vec<PathBuf>,
}

impl Groups {
    /// Makes the groups named `name`, with limits and without processes.
    ///
    /// # Errors
    /// Why they cannot be made, for people; what was made is removed.
    pub fn make(limits: &Limits, name: &str) -> Result<Self, String> {
        let Some(root) = &limits.root else { return Err("control groups are not to be used".to_owned()) };
        let groups = Self { directories: parents(root)?.into_iter().map(|parent| parent.join(name)).collect() };
        let version = Cgroups::detect(root).version();
        groups.set_up(version, limits).inspect_err(|_| groups.remove())?;
        Ok(groups)
    }

    /// Those that were made before.
    pub fn known(directories: Vec<PathBuf>) -> Self {
        Self { directories }
    }

    /// Where they are.
    pub fn directories(&self) -> &[PathBuf] {
        &self.directories
    }

    fn set_up(&self, version: Version, limits: &Limits) -> Result<(), String> {
        for directory in &self.directories {
            match std::fs::create_dir(directory) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(format!("{}: {error}", directory.display())),
                _ => {}
            }
        }
        let settings = match version {
            Version::V1 => v1(limits),
            Version::V2 => v2(limits),
        };
        for (name, value, needed) in settings {
            // In v1 each controller's files are in its own tree; where swap is not counted its file is missing.
            let Some(path) = self.file(name) else {
                if needed {
                    return Err(format!("this kernel has no {name}"));
                }
                continue;
            };
            std::fs::write(&path, &value).map_err(|error| format!("{} does not take {value}: {error}", path.display()))?;
        }
        Ok(())
    }

    fn file(&self, name: &str) -> Option<PathBuf> {
        self.directories.iter().map(|directory| directory.join(name)).find(|path| path.exists())
    }

    /// Takes the calling process in, with all threads that it has.
    ///
    /// # Errors
    /// A group does not take it.
    pub fn join(&self) -> io::Result<()> {
        self.directories.iter().try_for_each(|directory| std::fs::write(directory.join("cgroup.procs"), "0"))
    }

    /// The processes in it.
    pub fn members(&self) -> Vec<i32> {
        let lists = self.directories.iter().filter_map(|directory| std::fs::read_to_string(directory.join("cgroup.procs")).ok());
        let mut pids: Vec<i32> = lists.flat_map(|list| list.lines().filter_map(|line| line.parse().ok()).collect::<Vec<_>>()).collect();
        pids.sort_unstable();
        pids.dedup();
        pids
    }

    /// Kills everything in it at once, where the kernel can (v2, since Linux 5.14): what forks all the time and never stays gets away from nobody then.
    pub fn kill(&self) {
        for directory in &self.directories {
            let file = std::fs::OpenOptions::new().write(true).open(directory.join("cgroup.kill"));
            // Without it they are killed one by one.
            _ = file.and_then(|mut file| file.write_all(b"1"));
        }
    }

    /// How often the kernel killed one of its processes for want of memory.
    pub fn oom_kills(&self) -> u64 {
        let field = |file: &str| {
            let text = std::fs::read_to_string(self.file(file)?).ok()?;
            text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
        };
        field("memory.events").or_else(|| field("memory.oom_control")).unwrap_or(0)
    }

    /// Removes groups that nobody is in any more.
    pub fn remove(&self) {
        for directory in &self.directories {
            _ = std::fs::remove_dir(directory);
        }
    }
}

/// File, value, and whether there is no limit without it.
type Setting = (&'static str, String, bool);

fn v1(limits: &Limits) -> Vec<Setting> {
    let mut settings = vec![("cpu.shares", limits.cpu_shares.to_string(), true), ("pids.max", limits.pids.to_string(), true)];
    if let Some(quota) = limits.cpu_quota {
        settings.push(("cpu.cfs_period_us", PERIOD.to_string(), true));
        settings.push(("cpu.cfs_quota_us", quota.to_string(), true));
    }
    if let Some(memory) = limits.memory {
        settings.push(("memory.limit_in_bytes", memory.to_string(), true));
        settings.push(("memory.memsw.limit_in_bytes", memory.to_string(), false));
    }
    settings.extend(limits.memory_reservation.map(|bytes| ("memory.soft_limit_in_bytes", bytes.to_string(), false)));
    settings
}

fn v2(limits: &Limits) -> Vec<Setting> {
    let weight = 1 + (limits.cpu_shares - 2) * 9999 / 262_142;
    let mut settings = vec![("cpu.weight", weight.to_string(), true), ("pids.max", limits.pids.to_string(), true)];
    if let Some(quota) = limits.cpu_quota {
        settings.push(("cpu.max", format!("{quota} {PERIOD}"), true));
    }
    if let Some(memory) = limits.memory {
        settings.push(("memory.max", memory.to_string(), true));
        settings.push(("memory.swap.max", "0".to_owned(), false));
    }
    settings.extend(limits.memory_reservation.map(|bytes| ("memory.low", bytes.to_string(), false)));
    settings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(root: &Path) -> Limits {
        let resources = Resources { cpus: Scalar(500), mem: Scalar::whole(64), ..Resources::default() };
        Limits::of(&resources, ResourceLimits::default(), true, 100, Some(root.to_owned()))
    }

    /// A tree like the kernel's, in which the files of a group are there as soon as it is made by the test.
    fn shown(directory: &Path, names: &[&str]) -> String {
        let read = |name: &&str| format!("{name}={}", std::fs::read_to_string(directory.join(name)).unwrap_or_else(|_| "-".into()));
        names.iter().map(read).collect::<Vec<_>>().join(" ")
    }

    fn files(root: &Path, paths: &[&str]) {
        for path in paths {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
    }

    #[test]
    fn v1_has_a_group_in_each_tree() {
        let root = tempfile::tempdir().unwrap();
        files(
            root.path(),
            &[
                "cpu/xtao/t/cpu.shares",
                "cpu/xtao/t/cpu.cfs_period_us",
                "cpu/xtao/t/cpu.cfs_quota_us",
                "memory/xtao/t/memory.limit_in_bytes",
                "pids/xtao/t/pids.max",
            ],
        );
        let groups = Groups::make(&limits(root.path()), "t").unwrap();
        assert_eq!(groups.directories().len(), 3);
        assert_eq!(shown(&root.path().join("cpu/xtao/t"), &["cpu.shares", "cpu.cfs_quota_us"]), "cpu.shares=512 cpu.cfs_quota_us=50000");
        assert_eq!(shown(&root.path().join("memory/xtao/t"), &["memory.limit_in_bytes"]), "memory.limit_in_bytes=67108864");
        assert_eq!(shown(&root.path().join("pids/xtao/t"), &["pids.max"]), "pids.max=100");
        files(root.path(), &["memory/xtao/t/memory.oom_control", "cpu/xtao/t/cgroup.procs", "memory/xtao/t/cgroup.procs"]);
        std::fs::write(root.path().join("memory/xtao/t/memory.oom_control"), "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n").unwrap();
        std::fs::write(root.path().join("cpu/xtao/t/cgroup.procs"), "7\n8\n").unwrap();
        std::fs::write(root.path().join("memory/xtao/t/cgroup.procs"), "8\n9\n").unwrap();
        assert_eq!((groups.oom_kills(), groups.members()), (2, vec![7, 8, 9]));
    }

    #[test]
    fn v2_has_one_group_and_enables_its_controllers() {
        let root = tempfile::tempdir().unwrap();
        let group = ["cpu.weight", "cpu.max", "memory.max", "memory.swap.max", "pids.max"].map(|name| format!("xtao/t/{name}"));
        files(root.path(), &group.iter().map(String::as_str).collect::<Vec<_>>());
        files(root.path(), &["cgroup.subtree_control", "xtao/cgroup.subtree_control"]);
        std::fs::write(root.path().join("cgroup.controllers"), "cpu memory pids\n").unwrap();
        let groups = Groups::make(&limits(root.path()), "t").unwrap();
        let found = shown(&groups.directories()[0], &["cpu.weight", "cpu.max", "memory.max", "memory.swap.max", "pids.max"]);
        assert_eq!(found, "cpu.weight=20 cpu.max=50000 100000 memory.max=67108864 memory.swap.max=0 pids.max=100");
        assert_eq!(shown(root.path(), &["cgroup.subtree_control"]), "cgroup.subtree_control=+pids");
    }

    #[test]
    fn limits_of_the_definition_go_over_what_it_asks_for() {
        let at = |units: u64| Some(ResourceLimit::At(Scalar::whole(units)));
        let check = |cpus, mem, on_v1: &str, on_v2: &str| {
            let resources = Resources { cpus: Scalar(500), mem: Scalar::whole(64), ..Resources::default() };
            let limits = Limits::of(&resources, ResourceLimits { cpus, mem }, true, 100, None);
            let shown =
                |settings: Vec<Setting>| settings.iter().map(|(name, value, _)| format!("{name}={value}")).collect::<Vec<_>>().join(" ");
            assert_eq!((shown(v1(&limits)).as_str(), shown(v2(&limits)).as_str()), (on_v1, on_v2));
        };
        check(
            at(2),
            at(256),
            "cpu.shares=512 pids.max=100 cpu.cfs_period_us=100000 cpu.cfs_quota_us=200000 memory.limit_in_bytes=268435456 \
             memory.memsw.limit_in_bytes=268435456 memory.soft_limit_in_bytes=67108864",
            "cpu.weight=20 pids.max=100 cpu.max=200000 100000 memory.max=268435456 memory.swap.max=0 memory.low=67108864",
        );
        check(
            Some(ResourceLimit::Unlimited),
            Some(ResourceLimit::Unlimited),
            "cpu.shares=512 pids.max=100 memory.soft_limit_in_bytes=67108864",
            "cpu.weight=20 pids.max=100 memory.low=67108864",
        );
        check(
            None,
            at(100),
            "cpu.shares=512 pids.max=100 cpu.cfs_period_us=100000 cpu.cfs_quota_us=50000 memory.limit_in_bytes=104857600 \
             memory.memsw.limit_in_bytes=104857600 memory.soft_limit_in_bytes=67108864",
            "cpu.weight=20 pids.max=100 cpu.max=50000 100000 memory.max=104857600 memory.swap.max=0 memory.low=67108864",
        );
    }

    #[test]
    fn what_cannot_be_limited_is_said() {
        let root = tempfile::tempdir().unwrap();
        let error = Groups::make(&limits(root.path()), "t").unwrap_err();
        assert!(error.contains("cpu/xtao cannot be written: No such file or directory"), "{error}");
        files(root.path(), &["cpu/x", "memory/x", "pids/x"]);
        assert_eq!(Groups::make(&limits(root.path()), "t").unwrap_err(), "this kernel has no cpu.shares");
        assert!(!root.path().join("cpu/xtao/t").exists());
        assert!(Groups::make(&Limits::default(), "t").is_err());
    }

    /// Does `work` on a thread with mounts of its own, among them the kernel's v2 hierarchy, wherever this machine has that, or not.
    fn with_real_v2(work: impl FnOnce(&Path) + Send + 'static) {
        let beside = move || {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
            rustix::mount::mount_change("/", rustix::mount::MountPropagationFlags::PRIVATE | rustix::mount::MountPropagationFlags::REC)
                .unwrap();
            let place = tempfile::tempdir().unwrap();
            rustix::mount::mount("none", place.path(), "cgroup2", rustix::mount::MountFlags::empty(), None).unwrap();
            work(place.path());
            rustix::mount::unmount(place.path(), rustix::mount::UnmountFlags::DETACH).unwrap();
        };
        std::thread::spawn(beside).join().unwrap();
    }

    /// What is wanted comes to pass, but no event tells.
    fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
        let began = std::time::Instant::now();
        while !is_so() {
            assert!(began.elapsed() < std::time::Duration::from_secs(60), "{what}");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    #[test]
    fn a_real_group_of_v2_takes_in_counts_and_kills_what_never_stays() {
        with_real_v2(|root| {
            let directory = root.join(format!("xtao-test-{}", std::process::id()));
            std::fs::create_dir(&directory).unwrap();
            let groups = Groups::known(vec![directory.clone()]);
            assert_eq!((groups.members(), groups.oom_kills()), (Vec::new(), 0));
            // Two that have left their session, and a chain of which each one starts the next and ends. It comes to its end by itself, but not soon.
            let script = "echo 0 > \"$1/cgroup.procs\"; setsid sleep 1000 & setsid sleep 1000 & \
                          next() { test $1 -gt 0 && next $(($1 - 1)) & }; next 100000; exec sleep 1000";
            let mut child = std::process::Command::new("sh").args(["-c", script, "sh"]).arg(&directory).spawn().unwrap();
            let pid = i32::try_from(child.id()).unwrap();
            eventually("it is taken in", || groups.members().contains(&pid));
            let began = groups.members();
            eventually("the chain goes on", || groups.members().iter().any(|pid| !began.contains(pid)));
            groups.kill();
            eventually("all of it ends", || groups.members().is_empty());
            assert!(!child.wait().unwrap().success());
            groups.remove();
            assert!(!directory.exists());
            // Neither is an error when there is no group any more.
            groups.kill();
            groups.remove();
        });
    }

    #[test]
    fn the_kernels_own_v2_hierarchy_has_the_limits_or_says_why_not() {
        with_real_v2(|root| {
            let controllers = std::fs::read_to_string(root.join("cgroup.controllers")).unwrap();
            let has_all = CONTROLLERS.iter().all(|wanted| controllers.split_whitespace().any(|found| found == *wanted));
            let name = format!("test-{}", std::process::id());
            let made = Groups::make(&limits(root), &name);
            let directory = root.join(PARENT).join(&name);
            if has_all {
                let groups = made.unwrap();
                let files = ["cpu.max", "memory.max", "pids.max"];
                assert_eq!(shown(&directory, &files).replace('\n', ""), "cpu.max=50000 100000 memory.max=67108864 pids.max=100");
                groups.remove();
            } else {
                // The older layout holds them.
                let error = made.unwrap_err();
                assert!(error.starts_with(&format!("{} cannot be written: ", root.join("cgroup.subtree_control").display())), "{error}");
            }
            assert!(!directory.exists());
        });
    }
}
