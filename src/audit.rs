//! The audit log: who asked for which change, from where, and what came of it; and every login. JSON lines in a directory of the server's own, readable by
//! its account alone, only ever appended to.
//!
//! Callers reserve their place before they change anything ([`Audit::reserve`]) and wait until their line is in the file before they answer, so that no
//! change is acknowledged whose line could still be lost with the process. Mostly they put it there themselves, which takes a few microseconds; what may
//! take longer (a new file, a disk that is full, the disk itself) is a thread's, and so are the lines that come meanwhile. When lines cannot be written or
//! too many wait, changes are refused until that is over; reading goes on. The file is forced to the disk about once a second, not for every line: a power
//! failure may take the last second of it, a crash of the process nothing.
//!
//! Never in it: bodies, queries, headers, passwords, tokens.

mod reading;

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use serde::Serialize;
use tokio::sync::{mpsc, oneshot};
use tracing::{error, info};

pub use reading::{Query, read};

use crate::model::time::Timestamp;

/// Lines that wait for the writer, at most.
pub const MAX_WAITING: usize = 1024;

/// Lines in one write.
const MAX_BATCH: usize = 256;

/// The log is continued in a new file when this one has so many bytes.
pub const FILE_BYTES: u64 = 16 * 1024 * 1024;

/// Files that are kept, the present one among them.
pub const FILES: usize = 10;

/// A text of a client is cut to this many bytes; a path has more only when it is no path of ours.
const MAX_TEXT_BYTES: usize = 2048;

/// How long a change waits for a place.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long the answer to a change waits for its line.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// Between two attempts to write what could not be written.
const RETRY: Duration = Duration::from_millis(500);

/// Between two times that the file is forced to the disk.
const SYNC_EVERY: Duration = Duration::from_secs(1);

/// Where the log is, in the server's directory.
pub const DIRECTORY: &str = "audit";

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Entry {
    /// When it was over.
    pub time: Timestamp,
    /// Who: the user that was recognised, or the name that was given. Empty: nobody was.
    pub user: String,
    /// True: as an administrator.
    pub admin: bool,
    /// An address, or `uid 1000` on a unix socket.
    pub from: String,
    /// What.
    #[serde(flatten)]
    pub what: What,
}

/// What somebody did.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum What {
    /// A request that may change something, carried out or refused.
    Change {
        /// The method.
        method: String,
        /// The path, without its query.
        path: String,
        /// The apps, bricks, ports or users that it names.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        of: Vec<String>,
        /// The status of the answer; absent: the client went away before it.
        #[serde(skip_serializing_if = "Option::is_none")]
        status: Option<u16>,
        /// The deployment that began.
        #[serde(skip_serializing_if = "Option::is_none")]
        deployment: Option<String>,
    },
    /// Somebody presented a password.
    Login {
        /// Why it was refused; absent: it was right.
        #[serde(skip_serializing_if = "Option::is_none")]
        refused: Option<String>,
    },
}

/// A line, and who waits for it.
struct Waiting {
    /// Empty: only the disk is to be forced.
    line: Vec<u8>,
    written: Option<oneshot::Sender<()>>,
}

/// The way to the writer. Cheap to clone. The default keeps nothing.
#[derive(Clone, Default)]
pub struct Audit {
    open: Option<Open>,
}

#[derive(Clone)]
struct Open {
    queue: mpsc::Sender<Waiting>,
    log: Arc<Mutex<Log>>,
    /// Lines cannot be written at present.
    failing: Arc<AtomicBool>,
    directory: Arc<Path>,
}

/// Why a change has no place in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the audit log cannot be written, so nothing may be changed; is the disk of the work directory full?")]
pub struct Unwritable;

impl Audit {
    /// Opens the log in `directory`, which is made with mode 0700, and starts its writer.
    ///
    /// # Errors
    /// The directory or the file cannot be made, or a thread cannot.
    pub fn open(directory: &Path) -> io::Result<Self> {
        Self::open_with(directory, FILE_BYTES)
    }

    fn open_with(directory: &Path, file_bytes: u64) -> io::Result<Self> {
        std::fs::DirBuilder::new().mode(0o700).recursive(true).create(directory)?;
        let log = Arc::new(Mutex::new(Log::open(directory, file_bytes)?));
        let (queue, lines) = mpsc::channel(MAX_WAITING);
        let failing = Arc::new(AtomicBool::new(false));
        let writer = Writer { log: log.clone(), failing: failing.clone() };
        std::thread::Builder::new().name("audit".into()).spawn(move || writer.run(lines))?;
        Ok(Self { open: Some(Open { queue, log, failing, directory: directory.into() }) })
    }

    /// Where the log is; `None`: nothing is kept.
    pub fn directory(&self) -> Option<&Path> {
        self.open.as_ref().map(|open| &*open.directory)
    }

    /// A place for one line, before what it tells of is done.
    ///
    /// # Errors
    /// There is none, or would not be in time.
    pub async fn reserve(&self) -> Result<Place, Unwritable> {
        let Some(open) = &self.open else { return Ok(Place(None)) };
        if open.failing.load(Ordering::Acquire) {
            return Err(Unwritable);
        }
        let permit = match open.queue.clone().try_reserve_owned() {
            Ok(permit) => Some(permit),
            Err(_) => tokio::time::timeout(PATIENCE, open.queue.clone().reserve_owned()).await.ok().and_then(Result::ok),
        };
        permit.map(|permit| Place(Some((permit, open.log.clone())))).ok_or(Unwritable)
    }

    /// Tells of what has been done already. When there is no room it is only logged elsewhere: a login changes nothing, and guessing must not be able to
    /// stop the server.
    pub fn tell(&self, entry: Entry) {
        let Some(open) = &self.open else { return };
        match open.queue.try_reserve() {
            Ok(place) => place.send(Waiting { line: line(entry), written: None }),
            Err(_) => info!(user = %entry.user, from = %entry.from, "A login has no place in the audit log."),
        }
    }
}

/// A reserved place in the log.
pub struct Place(Option<(mpsc::OwnedPermit<Waiting>, Arc<Mutex<Log>>)>);

impl Place {
    /// Fills it, without waiting.
    pub fn fill(self, entry: Entry) -> Written {
        let Some((permit, log)) = self.0 else { return Written(None) };
        let line = line(entry);
        if let Ok(mut log) = log.try_lock()
            && log.write_now(&line)
        {
            if log.wants_sync() {
                permit.send(Waiting { line: Vec::new(), written: None });
            }
            return Written(None);
        }
        let (written, told) = oneshot::channel();
        permit.send(Waiting { line, written: Some(written) });
        Written(Some(told))
    }
}

/// Done when the line is in the file.
pub struct Written(Option<oneshot::Receiver<()>>);

impl Written {
    /// Waits for it; while the disk is full, only for a while, because what was done is done: the line is kept and written later.
    pub async fn done(self) {
        if let Some(told) = self.0
            && tokio::time::timeout(LONGEST_WAIT, told).await.is_err()
        {
            error!("A change is answered before its line in the audit log could be written; it is kept and written when it can be.");
        }
    }
}

fn line(mut entry: Entry) -> Vec<u8> {
    cut(&mut entry.user);
    if let What::Change { method, path, of, .. } = &mut entry.what {
        cut(method);
        cut(path);
        of.truncate(100);
        of.iter_mut().for_each(cut);
    }
    // Strings and numbers are always JSON, and JSON has no line break in it.
    let mut line = serde_json::to_vec(&entry).unwrap_or_default();
    line.push(b'\n');
    line
}

fn cut(text: &mut String) {
    text.truncate(text.floor_char_boundary(MAX_TEXT_BYTES));
}

/// The file with this number; 0 is the present one.
fn path_of(directory: &Path, number: usize) -> PathBuf {
    directory.join(if number == 0 { "audit.jsonl".to_owned() } else { format!("audit.{number}.jsonl") })
}

/// The file that is written to.
struct Log {
    directory: PathBuf,
    file_bytes: u64,
    file: Arc<File>,
    length: u64,
    /// The last line could not be written. Nobody but the writer may then write, lest lines be lost between its attempts.
    failed: bool,
    /// When it was forced to the disk, or that was asked for.
    synced_at: Instant,
}

impl Log {
    fn open(directory: &Path, file_bytes: u64) -> io::Result<Self> {
        let file = open_file(directory)?;
        let length = file.metadata()?.len();
        let mut log =
            Self { directory: directory.to_owned(), file_bytes, file: file.into(), length, failed: false, synced_at: Instant::now() };
        log.end_last_line()?;
        Ok(log)
    }

    /// What a power failure cut off in the middle must not run into the next line.
    fn end_last_line(&mut self) -> io::Result<()> {
        use std::os::unix::fs::FileExt;
        if self.length == 0 {
            return Ok(());
        }
        let mut last = [0];
        File::open(path_of(&self.directory, 0))?.read_exact_at(&mut last, self.length - 1)?;
        if last != *b"\n" {
            (&*self.file).write_all(b"\n")?;
            self.length += 1;
        }
        Ok(())
    }

    /// Writes it, unless that is the writer's; says whether it has.
    fn write_now(&mut self, line: &[u8]) -> bool {
        !self.failed && self.length < self.file_bytes && self.write(line).is_ok()
    }

    /// True once when it is time to force the file to the disk.
    fn wants_sync(&mut self) -> bool {
        let wants = self.synced_at.elapsed() >= SYNC_EVERY;
        if wants {
            self.synced_at = Instant::now();
        }
        wants
    }

    /// All of it, or, after an error, nothing of it.
    fn write(&mut self, text: &[u8]) -> io::Result<()> {
        self.failed = true;
        if self.length >= self.file_bytes {
            self.rotate()?;
        }
        if let Err(error) = (&*self.file).write_all(text) {
            // Half a line must not stay; when even that fails, the next attempt comes here again.
            self.file.set_len(self.length)?;
            return Err(error);
        }
        self.length += text.len() as u64;
        self.failed = false;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        sync(&self.file);
        for number in (0..FILES - 1).rev() {
            match std::fs::rename(path_of(&self.directory, number), path_of(&self.directory, number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        self.file = open_file(&self.directory)?.into();
        self.length = self.file.metadata()?.len();
        Ok(())
    }
}

fn open_file(directory: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path_of(directory, 0))
}

fn sync(file: &File) {
    if let Err(error) = file.sync_data() {
        error!(%error, "The audit log cannot be forced to the disk.");
    }
}

/// The thread's side.
struct Writer {
    log: Arc<Mutex<Log>>,
    failing: Arc<AtomicBool>,
}

impl Writer {
    fn run(self, mut lines: mpsc::Receiver<Waiting>) {
        let mut batch = Vec::new();
        while lines.blocking_recv_many(&mut batch, MAX_BATCH) > 0 {
            let text = batch.iter().map(|waiting| waiting.line.as_slice()).collect::<Vec<_>>().concat();
            while let Err((error, directory)) = self.write(&text) {
                if !self.failing.swap(true, Ordering::AcqRel) {
                    error!(%error, directory = %directory.display(), "The audit log cannot be written: changes are refused until it can.");
                }
                if lines.is_closed() {
                    return;
                }
                std::thread::sleep(RETRY);
            }
            if self.failing.swap(false, Ordering::AcqRel) {
                info!("The audit log can be written again.");
            }
            // Who waited may be gone.
            let asked = batch.iter().any(|waiting| waiting.line.is_empty());
            batch.drain(..).filter_map(|waiting| waiting.written).for_each(|written| _ = written.send(()));
            if asked || self.log().wants_sync() {
                self.sync();
            }
        }
        self.sync();
    }

    fn log(&self) -> std::sync::MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, text: &[u8]) -> Result<(), (io::Error, PathBuf)> {
        let mut log = self.log();
        log.write(text).map_err(|error| (error, log.directory.clone()))
    }

    /// Without holding up those who write meanwhile.
    fn sync(&self) {
        let file = self.log().file.clone();
        sync(&file);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn change(user: &str, path: &str) -> Entry {
        let what = What::Change { method: "PUT".into(), path: path.into(), of: vec!["/web".into()], status: Some(200), deployment: None };
        Entry { time: Timestamp(1_000), user: user.into(), admin: false, from: "uid 1000".into(), what }
    }

    async fn write(audit: &Audit, entry: &Entry) {
        audit.reserve().await.unwrap().fill(entry.clone()).done().await;
    }

    fn query() -> Query {
        Query { user: None, since: None, limit: 1000 }
    }

    #[tokio::test]
    async fn a_line_is_there_when_its_writer_has_waited_for_it() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("audit");
        let audit = Audit::open(&log).unwrap();
        write(&audit, &change("ann", "/v2/apps/web")).await;
        let text = std::fs::read_to_string(log.join("audit.jsonl")).unwrap();
        insta::assert_snapshot!(text, @r#"{"time":"1970-01-01T00:00:01.000Z","user":"ann","admin":false,"from":"uid 1000","kind":"change","method":"PUT","path":"/v2/apps/web","of":["/web"],"status":200}"#);
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&log), mode(&log.join("audit.jsonl"))), (0o700, 0o600));
    }

    #[tokio::test]
    async fn a_line_that_was_cut_off_does_not_run_into_the_next() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("audit.jsonl"), "{\"time\":\"19").unwrap();
        write(&Audit::open(directory.path()).unwrap(), &change("ann", "/")).await;
        assert_eq!(read(directory.path(), &query()).unwrap().len(), 1);
    }

    #[tokio::test]
    async fn files_are_rotated_by_size_and_the_oldest_goes() {
        let directory = tempfile::tempdir().unwrap();
        let audit = Audit::open_with(directory.path(), 100).unwrap();
        for number in 0..FILES + 5 {
            write(&audit, &change(&format!("user{number}"), "/")).await;
        }
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), FILES);
        let found = read(directory.path(), &query()).unwrap();
        let users: Vec<_> = found.iter().map(|entry| entry["user"].as_str().unwrap().to_owned()).collect();
        assert_eq!(users, (5..FILES + 5).map(|number| format!("user{number}")).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_disk_that_is_full_refuses_changes_and_loses_no_line() {
        let directory = tempfile::tempdir().unwrap();
        let audit = Audit::open_with(directory.path(), 1).unwrap();
        write(&audit, &change("before", "/")).await;
        // Rotation fails as long as there are directories in its way.
        let obstacles = [8, 9].map(|number| path_of(directory.path(), number));
        obstacles.iter().for_each(|obstacle| std::fs::create_dir_all(obstacle.join("x")).unwrap());
        let held = audit.reserve().await.unwrap().fill(change("held", "/"));
        while audit.reserve().await.is_ok() {
            tokio::task::yield_now().await;
        }
        assert_eq!(audit.reserve().await.err(), Some(Unwritable));
        obstacles.iter().for_each(|obstacle| std::fs::remove_dir_all(obstacle).unwrap());
        held.done().await;
        write(&audit, &change("after", "/")).await;
        let users: Vec<_> = read(directory.path(), &query()).unwrap().iter().map(|entry| entry["user"].clone()).collect();
        assert_eq!(users, ["before", "held", "after"]);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn lines_of_many_at_once_are_all_there_and_whole() {
        let directory = tempfile::tempdir().unwrap();
        // So small that the file is changed again and again meanwhile.
        let audit = Audit::open_with(directory.path(), 20_000).unwrap();
        let mut callers = tokio::task::JoinSet::new();
        for caller in 0..8 {
            let audit = audit.clone();
            callers.spawn(async move {
                for number in 0..100 {
                    write(&audit, &change(&format!("{caller}-{number}"), "/v2/apps/web")).await;
                }
            });
        }
        callers.join_all().await;
        let users = read(directory.path(), &query()).unwrap().into_iter().map(|entry| entry["user"].as_str().unwrap().to_owned());
        let found: std::collections::BTreeSet<String> = users.collect();
        let expected = (0..8).flat_map(|caller| (0..100).map(move |number| format!("{caller}-{number}"))).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn long_texts_are_cut_and_lines_stay_lines() {
        let entry = change("a\nb\u{2028}\"", &"ä".repeat(5000));
        let line = String::from_utf8(line(entry.clone())).unwrap();
        assert!(line.len() < 3000 && line.ends_with('\n') && line.matches('\n').count() == 1, "{line}");
    }
}
