//! Records in memory, for tests and the simulator. A [`Disk`] outlives the [`MemoryStore`]s on it, as a real one outlives processes, and fails
//! when told to.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;

use super::{Commit, Epoch, Store, StoreError};
use crate::model::record::{Change, Record, RecordKey};

/// How the next commit fails. Either way the process learns no more than that it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing of the batch is on the disk.
    Lost,
    /// The whole batch is on the disk, though the commit is reported as failed: a crash between the sync and its answer.
    Unacknowledged,
}

/// What a crash leaves. Clones are the same disk.
#[derive(Clone, Debug, Default)]
pub struct Disk(Arc<Mutex<Content>>);

#[derive(Debug, Default)]
struct Content {
    records: BTreeMap<RecordKey, Record>,
    epoch: Epoch,
    commits: u64,
    fault: Option<(u64, Fault)>,
}

impl Disk {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// `commits` more commits succeed, the one after them fails.
    pub fn fail_after(&self, commits: u64, fault: Fault) {
        let mut content = self.content();
        content.fault = Some((content.commits + commits, fault));
    }

    /// How many commits are on it.
    pub fn commits(&self) -> u64 {
        self.content().commits
    }

    /// The records on it, in the order of their keys.
    pub fn records(&self) -> Vec<Record> {
        self.content().records.values().cloned().collect()
    }

    fn content(&self) -> MutexGuard<'_, Content> {
        // A panicking test leaves nothing half done: every change of the content is one statement.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One process' view of a [`Disk`].
#[derive(Debug)]
pub struct MemoryStore {
    disk: Disk,
    failed: bool,
}

impl MemoryStore {
    /// Opens `disk`, as a new process does.
    pub fn open(disk: &Disk) -> Self {
        Self { disk: disk.clone(), failed: false }
    }

    /// [`Store::load`] without async.
    ///
    /// # Errors
    /// None; the signature is the trait's.
    pub fn load_now(&mut self) -> Result<Vec<Record>, StoreError> {
        Ok(self.disk.records())
    }

    /// [`Store::commit`] without async.
    ///
    /// # Errors
    /// An epoch that is over, an injected failure, and everything after one.
    pub fn commit_now(&mut self, epoch: Epoch, batch: &[Change]) -> Result<(), StoreError> {
        let failure = |reason: &str| StoreError::Failed { what: "commit".into(), reason: reason.into() };
        if self.failed {
            return Err(failure("an earlier commit failed"));
        }
        let mut content = self.disk.content();
        if epoch != content.epoch {
            return Err(StoreError::Fenced);
        }
        let commits = content.commits;
        let fault = content.fault.take_if(|(at, _)| commits >= *at).map(|(_, fault)| fault);
        if fault != Some(Fault::Lost) {
            content.commits += 1;
            for change in batch {
                match change {
                    Change::Put(record) => _ = content.records.insert(record.key(), record.clone()),
                    Change::Delete(key) => _ = content.records.remove(key),
                }
            }
        }
        self.failed = fault.is_some();
        if self.failed { Err(failure("injected")) } else { Ok(()) }
    }

    /// [`Store::elect`] without async.
    ///
    /// # Errors
    /// Everything after a failure.
    pub fn elect_now(&mut self) -> Result<Epoch, StoreError> {
        if self.failed {
            return Err(StoreError::Failed { what: "election".into(), reason: "an earlier commit failed".into() });
        }
        let mut content = self.disk.content();
        content.epoch += 1;
        Ok(content.epoch)
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn load(&mut self) -> Result<Vec<Record>, StoreError> {
        self.load_now()
    }

    fn commit(&mut self, epoch: Epoch, batch: Vec<Change>) -> Commit {
        Box::pin(std::future::ready(self.commit_now(epoch, &batch)))
    }

    async fn elect(&mut self) -> Result<Epoch, StoreError> {
        self.elect_now()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::samples::full;

    fn put(number: usize) -> [Change; 1] {
        [Change::Put(full().swap_remove(number).1)]
    }

    #[test]
    fn a_higher_epoch_fences_the_lower_one() {
        let disk = Disk::new();
        let (mut old, mut new) = (MemoryStore::open(&disk), MemoryStore::open(&disk));
        let first = old.elect_now().unwrap();
        old.commit_now(first, &put(0)).unwrap();
        let second = new.elect_now().unwrap();
        assert!(second > first);
        assert!(matches!(old.commit_now(first, &put(1)), Err(StoreError::Fenced)));
        new.commit_now(second, &put(1)).unwrap();
        assert_eq!(disk.records().len(), 2);
    }

    #[test]
    fn after_a_failure_every_commit_is_refused_until_reopened() {
        let check = |fault, survivors| {
            let disk = Disk::new();
            disk.fail_after(1, fault);
            let mut store = MemoryStore::open(&disk);
            let epoch = store.elect_now().unwrap();
            store.commit_now(epoch, &put(0)).unwrap();
            for _ in 0..3 {
                assert!(matches!(store.commit_now(epoch, &put(1)), Err(StoreError::Failed { .. })));
            }
            assert!(store.elect_now().is_err());
            let mut store = MemoryStore::open(&disk);
            assert_eq!(store.load_now().unwrap().len(), survivors, "{fault:?}");
            let epoch = store.elect_now().unwrap();
            store.commit_now(epoch, &put(2)).unwrap();
        };
        check(Fault::Lost, 1);
        check(Fault::Unacknowledged, 2);
    }
}
