//! The audit log: who asked for which change, from where, and what came of it; and every login. JSON lines in a directory of the server's own, readable by
//! its account alone, only ever appended to.
//!
//! Callers reserve their place before they change anything ([`Audit::reserve`]) and wait until their line is in the file before they answer, so that no
//! change is acknowledged whose line could still be lost with the process. The answers of one commit come together, so whoever of them is first writes the
//! lines of all, which takes a few microseconds; what may take longer (a new file, a disk that is full, the disk itself) is a thread's, and so are the lines
//! that come meanwhile. When lines cannot be written or too many wait, changes are refused until that is over; reading goes on. The file is forced to the
//! disk about once a second, not for every line: a power failure may take the last second of it, a crash of the process nothing.
//!
//! Never in it: bodies, queries, headers, passwords, tokens.

mod reading;

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, TryLockError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::{mpsc, oneshot};
use tracing::{error, info};

pub use reading::{Query, read};

use crate::model::time::Timestamp;

/// Lines that wait for the writer, at most.
pub const MAX_WAITING: usize = 1024;

/// Errands that the writer does at once.
const MAX_BATCH: usize = 256;

/// How often who has to wait for a line lets others go first before the writer is asked for it.
const TURNS: usize = 3;

/// The log is continued in a new file when this one has so many bytes.
pub const FILE_BYTES: u64 = 16 * 1024 * 1024;

/// Files that are kept, the present one among them.
pub const FILES: usize = 10;

/// A text of a client is cut to this many bytes; a path has more only when it is no path of ours.
const MAX_TEXT_BYTES: usize = 2048;

/// Names in one line, at most.
const MAX_NAMES: usize = 100;

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
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Entry<'a> {
    /// When it was over.
    pub time: Timestamp,
    /// Who: the user that was recognised, or the name that was given. Empty: nobody was.
    pub user: &'a str,
    /// True: as an administrator.
    pub admin: bool,
    /// An address, or `uid 1000` on a unix socket.
    pub from: &'a str,
    /// What.
    pub what: What<'a>,
}

/// What somebody did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum What<'a> {
    /// A request that may change something, carried out or refused.
    Change {
        /// The method.
        method: &'a str,
        /// The path, without its query.
        path: &'a str,
        /// The apps, bricks, ports or users that it names.
        of: &'a [String],
        /// The status of the answer; absent: the client went away before it.
        status: Option<u16>,
        /// The deployment that began.
        deployment: Option<&'a str>,
    },
    /// Somebody presented a password.
    Login {
        /// Why it was refused; absent: it was right.
        refused: Option<&'a str>,
    },
}

/// What the writer is asked for.
enum Errand {
    /// To write what waits, and to tell who waits for it, if anybody does.
    Write(Option<oneshot::Sender<()>>),
    /// To force the file to the disk.
    Sync,
}

/// The way to the writer. Cheap to clone. The default keeps nothing.
#[derive(Clone, Default)]
pub struct Audit {
    open: Option<Open>,
}

#[derive(Clone)]
struct Open {
    errands: mpsc::Sender<Errand>,
    lines: Arc<Lines>,
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
        let lines = Arc::new(Lines::new(Log::open(directory, file_bytes)?));
        let (errands, arriving) = mpsc::channel(MAX_WAITING);
        let writer = Writer { lines: lines.clone() };
        std::thread::Builder::new().name("audit".into()).spawn(move || writer.run(arriving))?;
        Ok(Self { open: Some(Open { errands, lines, directory: directory.into() }) })
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
        if open.lines.failing.load(Ordering::Acquire) {
            return Err(Unwritable);
        }
        let permit = match open.errands.clone().try_reserve_owned() {
            Ok(permit) => Some(permit),
            Err(_) => tokio::time::timeout(PATIENCE, open.errands.clone().reserve_owned()).await.ok().and_then(Result::ok),
        };
        permit.map(|permit| Place(Some((permit, open.lines.clone())))).ok_or(Unwritable)
    }

    /// Tells of what has been done already. When there is no room it is only logged elsewhere: a login changes nothing, and guessing must not be able to
    /// stop the server.
    pub fn tell(&self, entry: &Entry<'_>) {
        let Some(open) = &self.open else { return };
        match open.errands.try_reserve() {
            Ok(place) => {
                open.lines.add(&line(entry));
                place.send(Errand::Write(None));
            }
            Err(_) => info!(user = %entry.user, from = %entry.from, "A login has no place in the audit log."),
        }
    }
}

/// A reserved place in the log.
pub struct Place(Option<(mpsc::OwnedPermit<Errand>, Arc<Lines>)>);

impl Place {
    /// Fills it, without waiting.
    pub fn fill(self, entry: &Entry<'_>) -> Written {
        Written(self.0.map(|(permit, lines)| Line { number: lines.add(&line(entry)), permit, lines }))
    }
}

/// A line on its way into the file, and the right to send the writer for it.
struct Line {
    number: u64,
    permit: mpsc::OwnedPermit<Errand>,
    lines: Arc<Lines>,
}

/// Done when the line is in the file. It gets there whether anybody waits or not.
pub struct Written(Option<Line>);

impl Written {
    /// Waits for it; while the disk is full, only for a while, because what was done is done: the line is kept and written later.
    pub async fn done(mut self) {
        for _ in 0..TURNS {
            // Those whose changes were in the same commit go first, and leave their lines, too.
            tokio::task::yield_now().await;
            let Some(line) = &self.0 else { return };
            match line.lines.write_now(line.number) {
                Attempt::Written => return self.0 = None,
                Attempt::WrittenAndDue => return self.send(Errand::Sync),
                Attempt::Busy => {}
                Attempt::Left => break,
            }
        }
        let (written, told) = oneshot::channel();
        self.send(Errand::Write(Some(written)));
        if tokio::time::timeout(LONGEST_WAIT, told).await.is_err() {
            error!("A change is answered before its line in the audit log could be written; it is kept and written when it can be.");
        }
    }

    fn send(&mut self, errand: Errand) {
        if let Some(line) = self.0.take() {
            line.permit.send(errand);
        }
    }
}

impl Drop for Written {
    fn drop(&mut self) {
        if self.0.as_ref().is_some_and(|line| !line.lines.is_written(line.number)) {
            self.send(Errand::Write(None));
        }
    }
}

/// What came of an attempt to write.
enum Attempt {
    /// The line is in the file.
    Written,
    /// So it is, and it is time to force the file to the disk.
    WrittenAndDue,
    /// Somebody else writes at the moment.
    Busy,
    /// This is the writer's.
    Left,
}

/// What callers and the writer share. There are never more lines than [`MAX_WAITING`]: each has a place in the queue of errands.
struct Lines {
    /// Held for a copy alone.
    waiting: Mutex<Waiting>,
    log: Mutex<Log>,
    /// All lines up to the one with this number are in the file.
    written: AtomicU64,
    /// Lines cannot be written at present.
    failing: AtomicBool,
}

/// Lines that nobody has begun to write.
#[derive(Default)]
struct Waiting {
    text: Vec<u8>,
    /// The number of the last one.
    last: u64,
}

impl Lines {
    fn new(log: Log) -> Self {
        Self { waiting: Mutex::default(), log: Mutex::new(log), written: AtomicU64::new(0), failing: AtomicBool::new(false) }
    }

    /// Lays a line down to be written; its number.
    fn add(&self, line: &[u8]) -> u64 {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.text.extend_from_slice(line);
        waiting.last += 1;
        waiting.last
    }

    fn is_written(&self, number: u64) -> bool {
        self.written.load(Ordering::Acquire) >= number
    }

    /// Writes what waits, unless that is the writer's.
    fn write_now(&self, number: u64) -> Attempt {
        if self.is_written(number) {
            return Attempt::Written;
        }
        let mut log = match self.log.try_lock() {
            Ok(log) => log,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return Attempt::Busy,
        };
        if !log.is_open_to_all() || self.write(&mut log).is_err() {
            return Attempt::Left;
        }
        if log.wants_sync() { Attempt::WrittenAndDue } else { Attempt::Written }
    }

    /// Writes what waits. After an error all of it still does, in its order.
    fn write(&self, log: &mut Log) -> io::Result<()> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        log.unwritten.append(&mut waiting.text);
        let last = waiting.last;
        drop(waiting);
        log.write()?;
        self.written.store(last, Ordering::Release);
        Ok(())
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is not there is left out. Put together from the keys as they stand here, because each change waits for its line.
fn line(entry: &Entry<'_>) -> Vec<u8> {
    let mut line = Vec::with_capacity(512);
    put(&mut line, br#"{"time":""#, entry.time.text().as_str());
    put_text(&mut line, br#"","user":"#, entry.user);
    line.extend_from_slice(if entry.admin { br#","admin":true"# } else { br#","admin":false"# });
    put_text(&mut line, br#","from":"#, entry.from);
    match entry.what {
        What::Change { method, path, of, status, deployment } => {
            put_text(&mut line, br#","kind":"change","method":"#, method);
            put_text(&mut line, br#","path":"#, path);
            for (at, name) in of.iter().take(MAX_NAMES).enumerate() {
                put_text(&mut line, if at == 0 { br#","of":["# } else { b"," }, name);
            }
            line.extend_from_slice(if of.is_empty() { b"" } else { b"]" });
            if let Some(status) = status {
                put(&mut line, br#","status":"#, &status.to_string());
            }
            if let Some(deployment) = deployment {
                put_text(&mut line, br#","deployment":"#, deployment);
            }
        }
        What::Login { refused } => {
            line.extend_from_slice(br#","kind":"login""#);
            if let Some(refused) = refused {
                put_text(&mut line, br#","refused":"#, refused);
            }
        }
    }
    line.extend_from_slice(b"}\n");
    line
}

fn put(line: &mut Vec<u8>, before: &[u8], text: &str) {
    line.extend_from_slice(before);
    line.extend_from_slice(text.as_bytes());
}

/// As a JSON string, which has no line break in it.
fn put_text(line: &mut Vec<u8>, before: &[u8], text: &str) {
    line.extend_from_slice(before);
    let text = &text[..text.floor_char_boundary(MAX_TEXT_BYTES)];
    // All are looked at, so that many are at a time.
    if !text.bytes().fold(false, |special, byte| special | (byte < b' ') | (byte == b'"') | (byte == b'\\')) {
        put(line, b"\"", text);
        line.push(b'"');
    } else {
        // A string is always JSON, and a vector takes everything.
        _ = serde_json::to_writer(line, text);
    }
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
    /// What is to be written next.
    unwritten: Vec<u8>,
    /// It could not be written. Then only the writer tries again, who waits in between.
    failed: bool,
    /// When it was forced to the disk, or that was asked for.
    synced_at: Instant,
}

impl Log {
    fn open(directory: &Path, file_bytes: u64) -> io::Result<Self> {
        let file = open_file(directory)?;
        let length = file.metadata()?.len();
        let (directory, file) = (directory.to_owned(), file.into());
        let mut log = Self { directory, file_bytes, file, length, unwritten: Vec::new(), failed: false, synced_at: Instant::now() };
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

    /// True when writing takes a few microseconds, as far as can be told.
    fn is_open_to_all(&self) -> bool {
        !self.failed && self.length < self.file_bytes
    }

    /// True once when it is time to force the file to the disk.
    fn wants_sync(&mut self) -> bool {
        let wants = self.synced_at.elapsed() >= SYNC_EVERY;
        if wants {
            self.synced_at = Instant::now();
        }
        wants
    }

    /// Writes what is unwritten: all of it or, after an error, nothing of it.
    fn write(&mut self) -> io::Result<()> {
        if self.unwritten.is_empty() {
            return Ok(());
        }
        if std::mem::replace(&mut self.failed, true) {
            // What was cut off in the middle, and could not be taken back then.
            self.file.set_len(self.length)?;
        }
        if self.length >= self.file_bytes {
            self.rotate()?;
        }
        if let Err(error) = (&*self.file).write_all(&self.unwritten) {
            self.file.set_len(self.length)?;
            return Err(error);
        }
        self.length += self.unwritten.len() as u64;
        self.unwritten.clear();
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
    lines: Arc<Lines>,
}

impl Writer {
    fn run(self, mut errands: mpsc::Receiver<Errand>) {
        let mut batch = Vec::new();
        while errands.blocking_recv_many(&mut batch, MAX_BATCH) > 0 {
            while let Err((error, directory)) = self.write() {
                if !self.lines.failing.swap(true, Ordering::AcqRel) {
                    error!(%error, directory = %directory.display(), "The audit log cannot be written: changes are refused until it can.");
                }
                if errands.is_closed() {
                    return;
                }
                std::thread::sleep(RETRY);
            }
            if self.lines.failing.swap(false, Ordering::AcqRel) {
                info!("The audit log can be written again.");
            }
            let asked = batch.iter().any(|errand| matches!(errand, Errand::Sync));
            for errand in batch.drain(..) {
                if let Errand::Write(Some(written)) = errand {
                    // Who waited may be gone.
                    _ = written.send(());
                }
            }
            if asked || self.lines.log().wants_sync() {
                self.sync();
            }
        }
        self.sync();
    }

    fn write(&self) -> Result<(), (io::Error, PathBuf)> {
        let mut log = self.lines.log();
        self.lines.write(&mut log).map_err(|error| (error, log.directory.clone()))
    }

    /// Without holding up those who write meanwhile.
    fn sync(&self) {
        let file = self.lines.log().file.clone();
        sync(&file);
    }
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::PermissionsExt, sync::LazyLock};

    use super::*;

    static WEB: LazyLock<[String; 1]> = LazyLock::new(|| ["/web".to_owned()]);

    fn change<'a>(user: &'a str, path: &'a str) -> Entry<'a> {
        let what = What::Change { method: "PUT", path, of: &*WEB, status: Some(200), deployment: None };
        Entry { time: Timestamp(1_000), user, admin: false, from: "uid 1000", what }
    }

    async fn write(audit: &Audit, entry: &Entry<'_>) {
        audit.reserve().await.unwrap().fill(entry).done().await;
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

    #[test]
    fn a_line_says_what_is_known() {
        let check = |what: What<'_>, expected: &str| {
            let text = String::from_utf8(line(&Entry { what, ..change("a\"n\n", "/") })).unwrap();
            let head = r#"{"time":"1970-01-01T00:00:01.000Z","user":"a\"n\n","admin":false,"from":"uid 1000","#;
            assert_eq!(text, format!("{head}{expected}}}\n"));
        };
        let apps = ["/a", "/b"].map(str::to_owned);
        let of = |of, status, deployment| What::Change { method: "POST", path: "/v2/apps", of, status, deployment };
        check(
            of(&apps, Some(201), Some("id")),
            r#""kind":"change","method":"POST","path":"/v2/apps","of":["/a","/b"],"status":201,"deployment":"id""#,
        );
        check(of(&[], None, None), r#""kind":"change","method":"POST","path":"/v2/apps""#);
        check(What::Login { refused: None }, r#""kind":"login""#);
        check(What::Login { refused: Some("locked") }, r#""kind":"login","refused":"locked""#);
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
        let held = tokio::spawn(audit.reserve().await.unwrap().fill(&change("held", "/")).done());
        while audit.reserve().await.is_ok() {
            tokio::task::yield_now().await;
        }
        assert_eq!(audit.reserve().await.err(), Some(Unwritable));
        obstacles.iter().for_each(|obstacle| std::fs::remove_dir_all(obstacle).unwrap());
        held.await.unwrap();
        write(&audit, &change("after", "/")).await;
        let users: Vec<_> = read(directory.path(), &query()).unwrap().iter().map(|entry| entry["user"].clone()).collect();
        assert_eq!(users, ["before", "held", "after"]);
    }

    #[tokio::test]
    async fn the_first_who_waits_writes_the_lines_of_all() {
        let directory = tempfile::tempdir().unwrap();
        let audit = Audit::open(directory.path()).unwrap();
        let mut written = Vec::new();
        for user in ["ann", "bob", "cleo"] {
            written.push(audit.reserve().await.unwrap().fill(&change(user, "/")));
        }
        assert_eq!(read(directory.path(), &query()).unwrap().len(), 0);
        written.remove(1).done().await;
        let users: Vec<_> = read(directory.path(), &query()).unwrap().iter().map(|entry| entry["user"].clone()).collect();
        assert_eq!(users, ["ann", "bob", "cleo"]);
    }

    #[tokio::test]
    async fn a_line_that_nobody_waits_for_is_written() {
        let directory = tempfile::tempdir().unwrap();
        let audit = Audit::open(directory.path()).unwrap();
        drop(audit.reserve().await.unwrap().fill(&change("ann", "/")));
        while read(directory.path(), &query()).unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
        // One whose waiting is given up.
        let mut waits = Box::pin(audit.reserve().await.unwrap().fill(&change("bob", "/")).done());
        assert!(futures_util::poll!(waits.as_mut()).is_pending());
        drop(waits);
        while read(directory.path(), &query()).unwrap().len() < 2 {
            tokio::task::yield_now().await;
        }
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
        let path = "ä".repeat(5000);
        let line = String::from_utf8(line(&change("a\nb\u{2028}\"", &path))).unwrap();
        assert!(line.len() < 3000 && line.ends_with('\n') && line.matches('\n').count() == 1, "{line}");
    }
}
