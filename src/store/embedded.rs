//! Records in fjall (an LSM tree with a journal) below the work directory. One thread owns it; a commit is one atomic batch, synced to disk
//! before it is answered.
//!
//! Beyond what fjall checks: the journals are examined before fjall sees them, because it takes damage in the middle of one for the end of it
//! ([`journal`]); a record of the store's own (the head) is part of every batch and knows how many records there are and the sum of their
//! checksums, so that none can vanish or fall back to an earlier value unnoticed; and a small file beside the store remembers how far the
//! head had come, so that a store that is gone, or that was replaced by an older one, is noticed too.
//!
//! A record lies under its own key, a version perhaps in the place of one that went ([`places`]). All the room in the journal that commits need is made
//! before they need it: at the start ([`reopened`]), and while nobody waits ([`ahead`]).
//!
//! After any error nothing more is written: what a failed sync left behind is not known, and only a new process reads it anew.

mod ahead;
mod journal;
mod places;
mod reopened;

use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasherDefault, Hasher},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::JoinHandle,
    time::Duration,
};

use async_trait::async_trait;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use tracing::{debug, warn};
use xxhash_rust::xxh3::xxh3_64;

use self::{
    ahead::Ahead,
    places::{Left, Places},
};
use super::{
    Commit, Epoch, NICENESS, Store, StoreError,
    codec::{self, HEAD_KEY},
    files,
    identity::WorkDir,
};
use crate::model::record::{Change, Record};

/// Where the store is, below the work directory.
pub const STORE_DIRECTORY: &str = "store";

/// What remembers how far the store had come, beside it.
const MARK_FILE: &str = "store.json";

const RECORDS: &str = "records";

/// Memory for what is not yet in a table; up to three times this is held while tables are written.
const WRITE_BUFFER_BYTES: u64 = 4 << 20;

/// Everything is read once, at the start; a cache would only cost memory.
const CACHE_BYTES: u64 = 64 << 10;

/// One thread writes tables and merges them in turn: of two, fjall keeps the first spinning while the second merges.
const WORKERS: usize = 1;

/// Threads that decode while everything is read.
const DECODERS: usize = 2;

/// Entries that are handed to one of them at once.
const ENTRIES_AT_ONCE: usize = 512;

/// Write buffers that may wait to be written. fjall itself stops at four, where it would wait for ever for a worker that died.
const MAX_SEALED_BUFFERS: usize = 2;

/// Tables that may wait to be merged. fjall itself stops at thirty.
const MAX_UNMERGED_TABLES: usize = 20;

/// A [`Store`] in the work directory.
pub struct EmbeddedStore {
    jobs: Option<SyncSender<Job>>,
    thread: Option<JoinHandle<()>>,
}

enum Job {
    Load(oneshot::Sender<Result<Vec<Record>, StoreError>>),
    Commit(Epoch, Vec<Change>, oneshot::Sender<Result<(), StoreError>>),
    Elect(oneshot::Sender<Result<Epoch, StoreError>>),
}

impl EmbeddedStore {
    /// Opens the store of `work_dir`, or makes it, and reads all of it. Blocks while it does.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] and [`StoreError::Damaged`] name what is damaged; nothing is repaired except the end of a journal that a crash
    /// cut off in the middle of a commit which was never acknowledged.
    pub fn open(work_dir: &WorkDir) -> Result<Self, StoreError> {
        let owner = Owner::open(work_dir.path())?;
        // Few calls are under way at once; one more than fits here waits in `send`.
        let (jobs, arriving) = sync_channel(2);
        let spawned = std::thread::Builder::new().name("store".into()).spawn(move || {
            _ = rustix::process::setpriority_process(None, NICENESS);
            owner.run(&arriving);
        });
        let thread = spawned.map_err(|error| files::failed("cannot start the thread of the store", &error))?;
        Ok(Self { jobs: Some(jobs), thread: Some(thread) })
    }

    fn ask<T: Send + 'static>(
        &self,
        job: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Job,
    ) -> impl Future<Output = Result<T, StoreError>> + Send + 'static {
        let gone = || StoreError::Failed { what: "the store".into(), reason: "its thread has ended; see the log".into() };
        let (answer, answered) = oneshot::channel();
        let sent = self.jobs.as_ref().ok_or_else(gone).and_then(|jobs| jobs.send(job(answer)).map_err(|_| gone()));
        async move {
            sent?;
            answered.await.map_err(|_| gone())?
        }
    }
}

#[async_trait]
impl Store for EmbeddedStore {
    async fn load(&mut self) -> Result<Vec<Record>, StoreError> {
        self.ask(Job::Load).await
    }

    fn commit(&mut self, epoch: Epoch, batch: Vec<Change>) -> Commit {
        Box::pin(self.ask(|answer| Job::Commit(epoch, batch, answer)))
    }

    async fn elect(&mut self) -> Result<Epoch, StoreError> {
        self.ask(Job::Elect).await
    }
}

/// Waits until the store is closed, so that the next one can open it.
impl Drop for EmbeddedStore {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // A panic of that thread was reported when it happened.
            _ = thread.join();
        }
    }
}

/// The store's own record: part of every batch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    epoch: Epoch,
    /// Batches so far.
    commits: u64,
    /// Records there are, this one not counted.
    records: u64,
    /// The sum, modulo 2^64, of the checksums of their envelopes.
    sum: u64,
}

/// How far the head had certainly come.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Mark {
    commits: u64,
}

/// The thread's half.
struct Owner {
    database: Database,
    records: Keyspace,
    work_dir: PathBuf,
    /// After an error nothing is written any more.
    failure: Option<String>,
    head: Head,
    /// Hash of the key and checksum of the envelope of every record.
    sums: HashMap<u64, u64, Hashed>,
    /// The records that lie under another key than their own.
    places: Places,
    /// What was read when the store was opened, until it is asked for.
    loaded: Option<Vec<Record>>,
    /// `None`: the file system does not let us.
    ahead: Option<Ahead>,
}

impl Owner {
    fn open(work_dir: &Path) -> Result<Self, StoreError> {
        let directory = work_dir.join(STORE_DIRECTORY);
        let mark = read_mark(work_dir)?;
        if !directory.exists() {
            if mark.is_some() {
                let reason = format!("it is gone; restore it from a backup, or remove {MARK_FILE} beside it to begin with an empty one");
                return Err(damaged(&directory, &reason));
            }
            create(work_dir)?;
        }
        journal::check(&directory)?;
        let (database, records) = open_database(&directory)?;
        make_room(&directory);
        let mut owner = Self {
            database,
            records,
            work_dir: work_dir.to_owned(),
            failure: None,
            head: Head::default(),
            sums: HashMap::default(),
            places: Places::default(),
            loaded: None,
            ahead: Some(Ahead::new(&directory)),
        };
        owner.loaded = Some(owner.read_all(mark.map_or(0, |mark| mark.commits))?);
        write_mark(work_dir, &owner.head)?;
        Ok(owner)
    }

    fn run(mut self, jobs: &Receiver<Job>) {
        for job in jobs {
            // Nobody waits for the answer of a caller that was dropped.
            match job {
                Job::Load(answer) => _ = answer.send(self.load()),
                Job::Commit(epoch, batch, answer) => {
                    _ = answer.send(self.commit(epoch, &batch));
                    self.fill_ahead();
                }
                Job::Elect(answer) => _ = answer.send(self.elect()),
            }
        }
        if self.failure.is_none()
            && let Err(error) = write_mark(&self.work_dir, &self.head)
        {
            warn!(%error, "The store was closed, but how far it had come was not noted.");
        }
    }

    /// While nobody waits.
    fn fill_ahead(&mut self) {
        if let Some(ahead) = &mut self.ahead
            && let Err(error) = ahead.fill()
        {
            debug!(%error, "The journal is not filled ahead any more: commits take longer.");
            self.ahead = None;
        }
    }

    fn load(&mut self) -> Result<Vec<Record>, StoreError> {
        match self.loaded.take() {
            Some(records) => Ok(records),
            None => self.read_all(self.head.commits),
        }
    }

    fn elect(&mut self) -> Result<Epoch, StoreError> {
        let epoch = self.head.epoch + 1;
        self.write(Head { epoch, ..self.head.clone() }, &[])?;
        Ok(epoch)
    }

    fn commit(&mut self, epoch: Epoch, batch: &[Change]) -> Result<(), StoreError> {
        if epoch != self.head.epoch {
            return Err(StoreError::Fenced);
        }
        self.write(self.head.clone(), batch)
    }

    /// The batch with `head`, brought up to date. After an error every further call is refused.
    fn write(&mut self, head: Head, changes: &[Change]) -> Result<(), StoreError> {
        if let Some(reason) = &self.failure {
            let what = "the store takes no more writes, because one has failed".into();
            return Err(StoreError::Failed { what, reason: reason.clone() });
        }
        let result = catch(&self.directory(), AssertUnwindSafe(|| self.try_write(head, changes)));
        result.inspect_err(|error| self.failure = Some(error.to_string()))
    }

    fn try_write(&mut self, mut head: Head, changes: &[Change]) -> Result<(), StoreError> {
        self.wait_for_room()?;
        // What is needed to read it back, its place in the file too, is synced; times are not, which would cost a second write.
        let mut batch = self.database.batch().durability(Some(PersistMode::SyncData));
        let mut sums = Vec::with_capacity(changes.len());
        let mut left = Left::default();
        let (going, coming): (Vec<Entry<'_>>, Vec<Entry<'_>>) = last_of_each(changes).into_iter().partition(|entry| entry.record.is_none());
        for Entry { name, key, .. } in going {
            // Or it came and went within the batch.
            if let Some(before) = self.sums.get(&name) {
                head.records -= 1;
                head.sum = head.sum.wrapping_sub(*before);
                sums.push((name, None));
                self.places.leave(key, &mut left);
            }
        }
        for Entry { name, key, record } in coming {
            let Some(record) = record else { continue };
            let key = match self.sums.get(&name) {
                Some(before) => {
                    head.sum = head.sum.wrapping_sub(*before);
                    self.places.of(key)
                }
                None => {
                    head.records += 1;
                    self.places.take(key, &mut left)
                }
            };
            let value = codec::encode(&key, record)?;
            let sum = codec::checksum_of(&value);
            head.sum = head.sum.wrapping_add(sum);
            sums.push((name, Some(sum)));
            batch.insert(&self.records, key, value);
        }
        left.untaken().for_each(|key| batch.remove(&self.records, key));
        head.commits += 1;
        batch.insert(&self.records, HEAD_KEY, codec::encode_head(&head)?);
        batch.commit().map_err(|error| translate(&self.directory(), error))?;
        for (name, sum) in sums {
            match sum {
                Some(sum) => _ = self.sums.insert(name, sum),
                None => _ = self.sums.remove(&name),
            }
        }
        self.head = head;
        Ok(())
    }

    /// Waits while the workers are behind, so that fjall never waits inside a commit: there it does not notice that they have died.
    fn wait_for_room(&self) -> Result<(), StoreError> {
        while self.records.sealed_memtable_count() >= MAX_SEALED_BUFFERS || self.records.l0_table_count() >= MAX_UNMERGED_TABLES {
            // Says so when a worker has failed.
            self.database.persist(PersistMode::Buffer).map_err(|error| translate(&self.directory(), error))?;
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Every record; checks that they are what the head says, and that the head had come at least as far as `commits`.
    fn read_all(&mut self, commits: u64) -> Result<Vec<Record>, StoreError> {
        let directory = self.directory();
        let read = catch(&directory, AssertUnwindSafe(|| self.scan()))?;
        let Scan { head, records, sums, places } = read;
        let head = head.ok_or_else(|| damaged(&directory, "its head record is missing"))?;
        let found =
            Head { records: records.len() as u64, sum: sums.iter().fold(0, |sum, (_, one)| sum.wrapping_add(*one)), ..head.clone() };
        if found != head {
            let reason = format!("it should hold {} records, and these do not have the right sum", head.records);
            let reason = if found.records == head.records {
                reason
            } else {
                format!("it holds {} records instead of {}", found.records, head.records)
            };
            return Err(damaged(&directory, &reason));
        }
        if head.commits < commits {
            let reason = format!("it ends with commit {}, though commit {commits} was seen in it before", head.commits);
            return Err(damaged(&directory, &reason));
        }
        (self.head, self.sums, self.places) = (head, sums.into_iter().collect(), Places::default());
        if self.sums.len() != records.len() {
            return Err(damaged(&directory, "it holds a record twice"));
        }
        places.iter().for_each(|(own, key)| self.places.found(own, key));
        Ok(records)
    }

    /// This thread reads and checks blocks, others decode what is in them: most of the time goes there.
    fn scan(&self) -> Result<Scan, StoreError> {
        let (raw, arriving) = sync_channel::<Vec<fjall::KvPair>>(2 * DECODERS);
        let arriving = Mutex::new(arriving);
        std::thread::scope(|scope| {
            let decoders: Vec<_> = (0..DECODERS).map(|_| scope.spawn(|| decode_all(&arriving))).collect();
            let read = self.read_entries(&raw);
            drop(raw);
            let mut scan = Scan::default();
            for decoder in decoders {
                scan.add(decoder.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
            }
            read.map(|()| scan)
        })
    }

    fn read_entries(&self, decoders: &SyncSender<Vec<fjall::KvPair>>) -> Result<(), StoreError> {
        let mut entries = self.records.iter().peekable();
        while entries.peek().is_some() {
            let chunk = entries.by_ref().take(ENTRIES_AT_ONCE).map(fjall::Guard::into_inner).collect::<Result<Vec<_>, _>>();
            if decoders.send(chunk.map_err(|error| translate(&self.directory(), error))?).is_err() {
                // They have all met damage, and say so.
                break;
            }
        }
        Ok(())
    }

    fn directory(&self) -> PathBuf {
        self.work_dir.join(STORE_DIRECTORY)
    }
}

#[derive(Default)]
struct Scan {
    head: Option<Head>,
    records: Vec<Record>,
    /// Hash of the key, checksum of the envelope.
    sums: Vec<(u64, u64)>,
    /// Keys of records, and where these lie instead.
    places: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Scan {
    fn add(&mut self, other: Self) {
        self.head = self.head.take().or(other.head);
        self.records.extend(other.records);
        self.sums.extend(other.sums);
        self.places.extend(other.places);
    }
}

fn decode_all(arriving: &Mutex<Receiver<Vec<fjall::KvPair>>>) -> Result<Scan, StoreError> {
    let mut scan = Scan::default();
    loop {
        // The guard must not outlive the wait, so that the other decoders get theirs.
        let next = arriving.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(entries) = next else { return Ok(scan) };
        for (key, value) in entries {
            if *key == *HEAD_KEY {
                scan.head = Some(codec::decode_head(&value)?);
            } else {
                let record = codec::decode(&key, &value)?;
                let own = codec::key_bytes(&record.key());
                scan.sums.push((xxh3_64(&own), codec::checksum_of(&value)));
                scan.records.push(record);
                if own != *key {
                    scan.places.push((own, key.to_vec()));
                }
            }
        }
    }
}

/// One record of a batch.
struct Entry<'a> {
    /// Hash of the key.
    name: u64,
    /// The record's own.
    key: Vec<u8>,
    /// `None`: deleted.
    record: Option<&'a Record>,
}

/// Of several changes of one record the last one counts.
fn last_of_each(changes: &[Change]) -> Vec<Entry<'_>> {
    let mut seen = HashSet::with_capacity_and_hasher(changes.len(), Hashed::default());
    let mut entries = Vec::with_capacity(changes.len());
    for change in changes.iter().rev() {
        let key = codec::key_bytes(&change.key());
        let name = xxh3_64(&key);
        if seen.insert(name) {
            let record = match change {
                Change::Put(record) => Some(record),
                Change::Delete(_) => None,
            };
            entries.push(Entry { name, key, record });
        }
    }
    entries
}

/// For maps whose keys are hashes already.
type Hashed = BuildHasherDefault<AsItIs>;

/// Takes a `u64` as its own hash.
#[derive(Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3_64(bytes);
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// An empty store, complete before it has its name.
fn create(work_dir: &Path) -> Result<(), StoreError> {
    let (unfinished, directory) = (work_dir.join("store.new"), work_dir.join(STORE_DIRECTORY));
    let failed = |error: std::io::Error| files::failed(&format!("cannot make the store {}", directory.display()), &error);
    if unfinished.exists() {
        std::fs::remove_dir_all(&unfinished).map_err(failed)?;
    }
    files::create_directory(&unfinished)?;
    let fill = || {
        let database = builder(&unfinished).open()?;
        let records = database.keyspace(RECORDS, keyspace_options)?;
        let mut batch = database.batch().durability(Some(PersistMode::SyncAll));
        let head = codec::encode_head(&Head::default()).map_err(|error| fjall::Error::Io(std::io::Error::other(error)))?;
        batch.insert(&records, HEAD_KEY, head);
        batch.commit()
    };
    catch(&directory, AssertUnwindSafe(|| fill().map_err(|error| translate(&directory, error))))?;
    std::fs::rename(&unfinished, &directory).and_then(|()| files::sync_directory(work_dir)).map_err(failed)
}

/// In the journal that is gone on with. Without it commits take longer.
fn make_room(directory: &Path) {
    match ahead::newest(directory).and_then(|number| reopened::make_room(&directory.join(format!("{number}.jnl")))) {
        Ok(made) => debug!(made, "The journal is open."),
        Err(error) => debug!(%error, "The journal is appended to: commits take longer until there is a new one."),
    }
}

fn open_database(directory: &Path) -> Result<(Database, Keyspace), StoreError> {
    let open = || {
        let database = builder(directory).open().map_err(|error| translate(directory, error))?;
        if !database.keyspace_exists(RECORDS) {
            return Err(damaged(directory, "it has no records"));
        }
        let records = database.keyspace(RECORDS, keyspace_options).map_err(|error| translate(directory, error))?;
        Ok((database, records))
    };
    catch(directory, AssertUnwindSafe(open))
}

fn builder(directory: &Path) -> fjall::DatabaseBuilder<Database> {
    Database::builder(directory)
        .cache_size(CACHE_BYTES)
        .worker_threads(WORKERS)
        .max_cached_files(Some(64))
        .max_journaling_size(64 << 20)
        // Large values are compressed already; and fjall's checksum of a compressed entry depends on the compressor's version.
        .journal_compression(fjall::CompressionType::None)
}

fn keyspace_options() -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default().max_memtable_size(WRITE_BUFFER_BYTES)
}

fn read_mark(work_dir: &Path) -> Result<Option<Mark>, StoreError> {
    let path = work_dir.join(MARK_FILE);
    let Some(content) = files::read(&path)? else { return Ok(None) };
    serde_json::from_slice(&content).map(Some).map_err(|error| StoreError::Damaged {
        what: format!("the file {}", path.display()),
        reason: format!("{error}; it only remembers how far the store had come: remove it if the store beside it is the right one"),
    })
}

fn write_mark(work_dir: &Path, head: &Head) -> Result<(), StoreError> {
    files::replace(&work_dir.join(MARK_FILE), format!("{{\"commits\":{}}}\n", head.commits).as_bytes())
}

/// Runs `action`, in which fjall may panic about what it finds.
fn catch<T>(directory: &Path, action: AssertUnwindSafe<impl FnOnce() -> Result<T, StoreError>>) -> Result<T, StoreError> {
    catch_unwind(action).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
        Err(damaged(directory, text.unwrap_or("it cannot be used")))
    })
}

/// fjall's error in our words.
fn translate(directory: &Path, error: fjall::Error) -> StoreError {
    let what = || format!("cannot use the store {}", directory.display());
    match error {
        fjall::Error::Io(error) | fjall::Error::Storage(fjall::LsmError::Io(error)) => match error.kind() {
            std::io::ErrorKind::NotFound | std::io::ErrorKind::UnexpectedEof | std::io::ErrorKind::InvalidData => {
                damaged(directory, &format!("a file of it is missing or cut off: {error}"))
            }
            _ => files::failed(&what(), &error),
        },
        fjall::Error::Poisoned if files::is_full(directory) => files::failed(&what(), &std::io::ErrorKind::StorageFull.into()),
        fjall::Error::Poisoned => StoreError::Failed {
            what: what(),
            reason: "an earlier write failed in the background (is the disk failing?); the log says how".into(),
        },
        fjall::Error::Locked => StoreError::Refused(format!("another process has the store {} open", directory.display())),
        other => damaged(directory, &format!("{other:?}")),
    }
}

fn damaged(directory: &Path, reason: &str) -> StoreError {
    StoreError::Damaged { what: format!("the store {}", directory.display()), reason: reason.to_owned() }
}

#[cfg(test)]
mod tests;
