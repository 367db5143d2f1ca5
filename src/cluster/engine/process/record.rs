//! What is written down of a task that is a process: what was ordered, how it began, how it ended. The only record of it, as containers are of theirs.
//!
//! ```text
//! <work_dir>/processes/<task>/order.json  started.json  ended.json
//! ```
//!
//! Each file is complete or not there (written beside, synced, renamed), and for the server's eyes only. Whoever supervises the task holds a lock on the
//! order for as long as it lives, so that nobody has to guess from process numbers whether it does. An order that nobody holds and that has not begun
//! is taken back by removing it under the lock: a supervisor that comes late finds it gone.

use std::{
    fs::File,
    io::{self, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{CWD, FlockOperation, Mode, OFlags},
    io::Errno,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{limits::Limits, tree::Identity};
use crate::{
    cluster::engine::{account::Account, spec::file_name},
    model::{
        id::{ClusterId, TaskId},
        resources::{ResourceLimit, Resources},
    },
};

const ORDER: &str = "order.json";
const STARTED: &str = "started.json";
const ENDED: &str = "ended.json";

/// What to run, complete: the supervisor asks nobody.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Order {
    /// The task.
    pub task: TaskId,
    /// Which installation it belongs to.
    pub cluster: ClusterId,
    /// What it takes.
    pub resources: Resources,
    /// What its pod takes besides its containers, if it stands for that.
    #[serde(default)]
    pub overhead: Resources,
    /// The memory that it may have; `None`: what it takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mem_limit: Option<ResourceLimit>,
    /// Milliseconds between SIGTERM and SIGKILL, by its definition; `None`: the node's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kill_grace_ms: Option<u64>,
    /// Its host ports.
    pub ports: Vec<u16>,
    /// Program and arguments; never empty.
    pub command: Vec<String>,
    /// All of its environment.
    pub environment: Vec<(String, String)>,
    /// As whom it runs; `None`: as the server.
    pub account: Option<Account>,
    /// Programs that give more rights (`sudo`) give none to it.
    pub no_new_privileges: bool,
    /// It has a pseudo-terminal in place of its input and outputs.
    #[serde(default)]
    pub terminal: bool,
    /// Where it runs.
    pub directory: PathBuf,
    /// The server's directory.
    pub work_dir: PathBuf,
    /// A file of its output is replaced when it has so many bytes.
    pub log_file_bytes: u64,
    /// What it may use.
    pub limits: Limits,
    /// What it sees besides the node's own directories.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<Mounted>,
}

/// A volume: what of this node is seen where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mounted {
    /// Where it is on the node.
    pub source: PathBuf,
    /// Where it is seen: a path below the sandbox, or an absolute one.
    #[serde(alias = "name")]
    pub target: PathBuf,
    /// True: not to be written.
    #[serde(default)]
    pub read_only: bool,
    /// Of a host volume, or a pod's own, whose `source` has no links in it: device and inode of what was found and allowed there. `None`: it is a brick.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<(u64, u64)>,
}

/// How it began.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Started {
    /// Its first process, which leads a session and a group of its own.
    pub process: Identity,
    /// Who supervises it.
    pub shim: Identity,
    /// Its control groups; none where there are no limits.
    pub groups: Vec<PathBuf>,
    /// Under which number its supervisor keeps its mount namespace open, if it has one of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<i32>,
    /// Why it has no limits, or not all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unlimited: Option<String>,
}

/// How it ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// The exit status of its first process, if it ended by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<i32>,
    /// The signal that ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// A process of it was killed for want of memory.
    #[serde(default)]
    pub oom: bool,
    /// Why it could not be started, or why its end is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// The directory of all records.
pub fn root(work_dir: &Path) -> PathBuf {
    work_dir.join("processes")
}

/// The records of one task.
#[derive(Clone, Debug)]
pub struct Records {
    directory: PathBuf,
}

impl Records {
    /// Those of `task`, whether there are any or not.
    pub fn of(work_dir: &Path, task: &TaskId) -> Self {
        Self { directory: root(work_dir).join(file_name(task)) }
    }

    /// Those in `directory`.
    pub fn at(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// Where they are.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Writes the order down.
    ///
    /// # Errors
    /// The directory or the file cannot be made.
    pub fn put_order(&self, order: &Order) -> io::Result<()> {
        let mut private = std::fs::DirBuilder::new();
        std::os::unix::fs::DirBuilderExt::mode(&mut private, 0o700);
        private.recursive(true).create(&self.directory)?;
        self.put(ORDER, order)?;
        if let Some(parent) = self.directory.parent() {
            File::open(parent)?.sync_all()?;
        }
        Ok(())
    }

    /// Notes that it began.
    ///
    /// # Errors
    /// The file cannot be written; so for what follows.
    pub fn put_started(&self, started: &Started) -> io::Result<()> {
        self.put(STARTED, started)
    }

    /// Notes how it ended.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn put_ended(&self, ended: &Ended) -> io::Result<()> {
        self.put(ENDED, ended)
    }

    /// What was ordered; `None`: nothing.
    ///
    /// # Errors
    /// The file cannot be read, or makes no sense; so for what follows.
    pub fn order(&self) -> io::Result<Option<Order>> {
        self.get(ORDER)
    }

    /// How it began; `None`: it did not yet.
    ///
    /// # Errors
    /// See [`Records::order`].
    pub fn started(&self) -> io::Result<Option<Started>> {
        self.get(STARTED)
    }

    /// How it ended; `None`: it did not yet, or nobody was there to see it.
    ///
    /// # Errors
    /// See [`Records::order`].
    pub fn ended(&self) -> io::Result<Option<Ended>> {
        self.get(ENDED)
    }

    /// True when there is an order.
    pub fn exist(&self) -> bool {
        self.directory.join(ORDER).exists()
    }

    /// True while somebody supervises it.
    ///
    /// # Errors
    /// The order cannot be opened.
    pub fn is_supervised(&self) -> io::Result<bool> {
        let Some(order) = self.open_order()? else { return Ok(false) };
        match rustix::fs::flock(&order, FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(false),
            Err(Errno::WOULDBLOCK) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    /// Becomes the supervisor, for as long as the file is held. `None`: there is no such order, or not any more.
    ///
    /// # Errors
    /// The order cannot be opened or read.
    pub fn supervise(&self) -> io::Result<Option<(Order, File)>> {
        let Some(file) = self.open_order()? else { return Ok(None) };
        rustix::fs::flock(&file, FlockOperation::LockExclusive)?;
        if file.metadata()?.nlink() == 0 {
            return Ok(None);
        }
        Ok(self.order()?.map(|order| (order, file)))
    }

    /// Takes an order back that nobody supervises; false: somebody does. None there is success.
    ///
    /// # Errors
    /// A file cannot be removed.
    pub fn remove(&self) -> io::Result<bool> {
        let Some(order) = self.open_order()? else { return Ok(true) };
        match rustix::fs::flock(&order, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        std::fs::remove_file(self.directory.join(ORDER))?;
        std::fs::remove_dir_all(&self.directory)?;
        Ok(true)
    }

    fn open_order(&self) -> io::Result<Option<File>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(CWD, self.directory.join(ORDER), flags, Mode::empty()) {
            Ok(file) => Ok(Some(file.into())),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn get<T: DeserializeOwned>(&self, name: &str) -> io::Result<Option<T>> {
        match std::fs::read(self.directory.join(name)) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn put<T: Serialize>(&self, name: &str, value: &T) -> io::Result<()> {
        let (temporary, path) = (self.directory.join(format!("{name}.new")), self.directory.join(name));
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(rustix::fs::openat(CWD, &temporary, flags, Mode::from_raw_mode(0o600))?);
        file.write_all(&serde_json::to_vec(value)?)?;
        file.sync_all()?;
        std::fs::rename(&temporary, &path)?;
        File::open(&self.directory)?.sync_all()
    }
}

/// Any order.
#[cfg(test)]
pub(in crate::cluster::engine) fn sample() -> Order {
    Order {
        task: crate::cluster::engine::samples::task("/a", 1),
        cluster: ClusterId::new("test"),
        resources: Resources::default(),
        overhead: Resources::default(),
        mem_limit: None,
        kill_grace_ms: Some(30_000),
        terminal: false,
        ports: vec![31000],
        command: vec!["true".into()],
        environment: vec![("A".into(), "b".into())],
        account: None,
        no_new_privileges: true,
        directory: "/d".into(),
        work_dir: "/w".into(),
        log_file_bytes: 1000,
        limits: Limits::default(),
        volumes: vec![Mounted { source: "/m".into(), target: "data".into(), read_only: false, host: None }],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_taken_back_only_while_nobody_supervises_it() {
        let work_dir = tempfile::tempdir().unwrap();
        let wanted = sample();
        let records = Records::of(work_dir.path(), &wanted.task);
        assert!(records.remove().unwrap() && !records.exist() && records.order().unwrap().is_none());
        records.put_order(&wanted).unwrap();
        assert!(records.exist() && !records.is_supervised().unwrap());
        let (found, held) = records.supervise().unwrap().unwrap();
        assert_eq!(found, wanted);
        assert!(records.is_supervised().unwrap() && !records.remove().unwrap() && records.exist());
        let ended = Ended { status: Some(3), ..Ended::default() };
        records.put_ended(&ended).unwrap();
        assert_eq!(records.ended().unwrap(), Some(ended));
        drop(held);
        assert!(!records.is_supervised().unwrap() && records.remove().unwrap());
        assert!(!records.exist() && records.supervise().unwrap().is_none());
    }

    #[test]
    fn a_supervisor_that_comes_late_finds_its_order_gone() {
        let work_dir = tempfile::tempdir().unwrap();
        let wanted = sample();
        let records = Records::of(work_dir.path(), &wanted.task);
        records.put_order(&wanted).unwrap();
        // It has opened the file, and waits for the lock that the removal holds.
        let opened = records.open_order().unwrap().unwrap();
        assert!(records.remove().unwrap());
        assert_eq!(opened.metadata().unwrap().nlink(), 0);
    }

    /// The forms that the records have had, the present one last. Supervisors outlive the server that started them, so whoever changes the form adds a file,
    /// and keeps the others readable.
    const FORMS: [&str; 6] = [
        include_str!("fixtures/1.json"),
        include_str!("fixtures/2.json"),
        include_str!("fixtures/3.json"),
        include_str!("fixtures/4.json"),
        include_str!("fixtures/5.json"),
        include_str!("fixtures/6.json"),
    ];

    #[derive(Debug, Serialize, Deserialize)]
    struct Form {
        order: Order,
        started: Started,
        ended: Ended,
    }

    #[test]
    fn records_of_older_programs_stay_readable() {
        let [first, pods, volumes, host_volumes, limited, present] = FORMS.map(|text| serde_json::from_str::<Form>(text).unwrap());
        let limits = |order: &Order| Limits { memory_reservation: None, memory: Some(64 << 20), ..order.limits.clone() };
        let expected = Order { kill_grace_ms: None, ..present.order };
        assert_eq!(limited.order, expected);
        let expected = Order { mem_limit: None, terminal: false, limits: limits(&expected), ..expected };
        assert_eq!(host_volumes.order, expected);
        let brick = Mounted { source: "/w/bricks/rows".into(), target: "data".into(), read_only: false, host: None };
        let expected = Order { volumes: vec![brick], ..expected };
        assert_eq!(volumes.order, expected);
        let expected = Order { volumes: Vec::new(), ..expected };
        assert_eq!(pods.order, expected);
        assert_eq!(first.order, Order { overhead: Resources::default(), ..expected });

        assert_eq!(limited.started, present.started);
        let expected = Started { unlimited: None, ..present.started };
        assert_eq!(host_volumes.started, expected);
        let expected = Started { namespace: None, ..expected };
        for older in [volumes.started, pods.started, first.started] {
            assert_eq!(older, expected);
        }
        assert_eq!(first.ended, Ended { status: Some(3), ..Ended::default() });
        assert_eq!((present.ended.signal, present.ended.oom), (Some(9), true));
    }

    #[test]
    fn the_last_form_is_the_one_that_is_written() {
        let text = FORMS[FORMS.len() - 1];
        let read: Form = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_value(read).unwrap(), serde_json::from_str::<serde_json::Value>(text).unwrap());
    }
}
