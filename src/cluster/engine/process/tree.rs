//! Processes of this machine: which one a number means, who descends from whom, and signals that reach nobody else.
//!
//! A number is given to another process when its own has ended, so a process is known by number, start time and boot. A signal goes through a handle of
//! the process (pidfd) that was opened before its identity was looked at: it reaches that process or none.
//!
//! Facts: `proc(5)`, `pidfd_open(2)`.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use rustix::process::{Pid, PidfdFlags, Signal};
use serde::{Deserialize, Serialize};

/// Between two looks whether killed processes are gone.
const PAUSE: Duration = Duration::from_millis(5);

/// A process, for good.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Its number.
    pub pid: i32,
    /// When it began, in the kernel's ticks since the boot.
    pub start_time: u64,
    /// Which boot of the machine.
    pub boot: String,
}

impl Identity {
    /// Of the process that has the number `pid` now.
    ///
    /// # Errors
    /// There is none.
    pub fn of(pid: i32) -> io::Result<Self> {
        let stat = Stat::of(pid).ok_or(io::ErrorKind::NotFound)?;
        Ok(Self { pid, start_time: stat.start_time, boot: boot()? })
    }

    /// A handle of it; `None`: it has ended, whoever has its number now.
    pub fn open(&self) -> Option<OwnedFd> {
        let pid = Pid::from_raw(self.pid).filter(|_| self.pid > 1)?;
        // The handle first: what has the right start time afterwards is what the handle means.
        let handle = rustix::process::pidfd_open(pid, PidfdFlags::NONBLOCK).ok()?;
        (Self::of(self.pid).ok().as_ref() == Some(self)).then_some(handle)
    }

    /// Sends it a signal; false: it has ended.
    pub fn signal(&self, signal: Signal) -> bool {
        self.open().is_some_and(|handle| rustix::process::pidfd_send_signal(&handle, signal).is_ok())
    }

    /// True when it was of an earlier boot of the machine.
    pub fn is_of_another_boot(&self) -> bool {
        boot().is_ok_and(|boot| boot != self.boot)
    }
}

/// Names this boot of the machine.
fn boot() -> io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// What `/proc/<pid>/stat` says, as far as it is needed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stat {
    state: char,
    parent: i32,
    session: i32,
    start_time: u64,
}

impl Stat {
    fn of(pid: i32) -> Option<Self> {
        Self::parse(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// The name of the program stands in parentheses and may have anything in it, parentheses included.
    fn parse(text: &str) -> Option<Self> {
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let number = |at: usize| fields.get(at)?.parse().ok();
        Some(Self {
            state: fields.first()?.chars().next()?,
            parent: number(1)?,
            session: number(3)?,
            start_time: fields.get(19)?.parse().ok()?,
        })
    }

    fn is_over(&self) -> bool {
        matches!(self.state, 'Z' | 'X')
    }
}

/// Every process by its number.
fn all() -> BTreeMap<i32, Stat> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return BTreeMap::new() };
    let numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    numbers.filter_map(|pid| Some((pid, Stat::of(pid)?))).collect()
}

/// What descends from process `ancestor` and has not ended.
pub fn descendants(ancestor: i32) -> Vec<i32> {
    let processes = all();
    let mut found = BTreeSet::from([ancestor]);
    loop {
        let before = found.len();
        found.extend(processes.iter().filter(|(_, stat)| found.contains(&stat.parent)).map(|(pid, _)| *pid).collect::<Vec<_>>());
        if found.len() == before {
            break;
        }
    }
    found.into_iter().filter(|pid| *pid != ancestor && processes.get(pid).is_some_and(|stat| !stat.is_over())).collect()
}

/// True while the process `pid` has not ended.
pub fn is_alive(pid: i32) -> bool {
    Stat::of(pid).is_some_and(|stat| !stat.is_over())
}

/// Children of `parent` that have ended and wait to be reaped.
pub fn ended_children(parent: i32) -> Vec<i32> {
    all().into_iter().filter(|(_, stat)| stat.parent == parent && stat.state == 'Z').map(|(pid, _)| pid).collect()
}

/// What is in the session that `leader` led and has not ended. Only when `leader` itself is there still, or has left its number to nobody.
pub fn session(leader: &Identity) -> Vec<i32> {
    if leader.is_of_another_boot() {
        return Vec::new();
    }
    let processes = all();
    if processes.get(&leader.pid).is_some_and(|stat| stat.start_time != leader.start_time) {
        return Vec::new();
    }
    let began_later = |stat: &Stat| stat.start_time >= leader.start_time;
    processes.iter().filter(|(_, stat)| stat.session == leader.pid && began_later(stat) && !stat.is_over()).map(|(pid, _)| *pid).collect()
}

/// Sends `signal` to those of `found` of whom `members` tells still when their handles have been opened.
pub fn signal_all(found: Vec<i32>, members: impl Fn() -> Vec<i32>, signal: Signal) {
    let open = |pid: i32| rustix::process::pidfd_open(Pid::from_raw(pid).filter(|_| pid > 1)?, PidfdFlags::empty()).ok();
    let handles: Vec<(i32, OwnedFd)> = found.into_iter().filter_map(|pid| Some((pid, open(pid)?))).collect();
    let still: BTreeSet<i32> = members().into_iter().collect();
    for (_, handle) in handles.iter().filter(|(pid, _)| still.contains(pid)) {
        _ = rustix::process::pidfd_send_signal(handle, signal);
    }
}

/// Kills what `members` tells until it tells nothing, or until `limit` has passed; true: nobody is left. A process is killed only if it is still a member
/// when its handle has been opened.
pub fn kill_all(members: impl Fn() -> Vec<i32>, limit: Duration, mut between: impl FnMut()) -> bool {
    let began = Instant::now();
    loop {
        let found = members();
        if found.is_empty() {
            return true;
        }
        if began.elapsed() > limit {
            return false;
        }
        signal_all(found, &members, Signal::KILL);
        between();
        std::thread::sleep(PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_stat_line_is_read_whatever_the_program_is_called() {
        let check = |name: &str| {
            let line = format!("42 ({name}) S 7 42 40 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 123456 1000 2\n");
            assert_eq!(Stat::parse(&line), Some(Stat { state: 'S', parent: 7, session: 40, start_time: 123_456 }), "{line}");
        };
        check("sleep");
        check("a b) R 1 2");
        check("((()");
        assert_eq!(Stat::parse("42 (cut"), None);
        assert_eq!(Stat::parse(""), None);
    }

    #[test]
    fn a_number_that_means_another_process_by_now_is_left_alone() {
        let mut child = Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn().unwrap();
        let own = Identity::of(i32::try_from(child.id()).unwrap()).unwrap();
        for other in [
            Identity { start_time: own.start_time + 1, ..own.clone() },
            Identity { boot: "another".into(), ..own.clone() },
            Identity { pid: 1, ..own.clone() },
        ] {
            assert!(other.open().is_none() && !other.signal(Signal::KILL), "{other:?}");
        }
        assert!(child.try_wait().unwrap().is_none());
        assert!(own.signal(Signal::KILL));
        assert!(!child.wait().unwrap().success());
        assert!(!own.signal(Signal::KILL));
    }

    #[test]
    fn descendants_are_found_and_killed_to_the_last() {
        let mut child = Command::new("sh").args(["-c", "sleep 1001 & sh -c 'sleep 1002 & wait' & wait"]).spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let began = Instant::now();
        while descendants(pid).len() < 3 {
            assert!(began.elapsed() < Duration::from_secs(20));
            std::thread::yield_now();
        }
        assert!(descendants(i32::try_from(std::process::id()).unwrap()).contains(&pid));
        let members = || {
            let mut found = descendants(pid);
            found.extend(Stat::of(pid).filter(|stat| !stat.is_over()).map(|_| pid));
            found
        };
        assert!(kill_all(members, Duration::from_secs(20), || {}));
        child.wait().unwrap();
    }
}
