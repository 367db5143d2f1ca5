//! On real files: equivalence to the memory store, damage, sudden death, figures.

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::process::ExitStatusExt,
    process::{Command, Stdio},
    sync::Arc,
    time::Instant,
};

use proptest::prelude::*;

use super::*;
use crate::{
    model::{port::PortClaim, record::RecordKey},
    store::{
        memory::{Disk, MemoryStore},
        samples::{any_change, bare, full, instance},
    },
};

fn open(path: &Path) -> Result<EmbeddedStore, StoreError> {
    EmbeddedStore::open(&WorkDir::open(path, "docker").unwrap())
}

/// Opens `path`, does something with the store, and closes it.
fn with<T>(path: &Path, action: impl AsyncFnOnce(&mut EmbeddedStore) -> T) -> T {
    let mut store = open(path).unwrap();
    block_on(action(&mut store))
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn records(path: &Path) -> Result<Vec<Record>, StoreError> {
    let mut store = open(path)?;
    block_on(store.load()).map(sorted)
}

fn sorted(mut records: Vec<Record>) -> Vec<Record> {
    records.sort_by_key(Record::key);
    records
}

fn samples() -> Vec<Record> {
    full().into_iter().chain(bare()).map(|(_, record)| record).collect()
}

fn puts(records: &[Record]) -> Vec<Change> {
    records.iter().cloned().map(Change::Put).collect()
}

#[test]
fn what_was_committed_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    with(dir.path(), async |store| {
        assert_eq!(store.load().await.unwrap(), []);
        let epoch = store.elect().await.unwrap();
        store.commit(epoch, &puts(&samples())).await.unwrap();
        store.commit(epoch, &[Change::Delete(RecordKey::Port(1066)), Change::Delete(RecordKey::Port(1))]).await.unwrap();
        store.commit(epoch, &[]).await.unwrap();
    });
    // The last of several samples of one record counts.
    let mut expected: Vec<Record> = Vec::new();
    for record in samples() {
        expected.retain(|other| other.key() != record.key());
        expected.push(record);
    }
    expected.retain(|record| record.key() != RecordKey::Port(1066));
    assert_eq!(records(dir.path()).unwrap(), sorted(expected));
}

#[test]
fn each_election_ends_the_epochs_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let first = with(dir.path(), async |store| {
        assert!(matches!(store.commit(0, &[]).await, Ok(())), "epoch 0 is nobody's, and still the present one");
        let first = store.elect().await.unwrap();
        let second = store.elect().await.unwrap();
        assert!(second > first);
        assert!(matches!(store.commit(first, &puts(&samples())).await, Err(StoreError::Fenced)));
        store.commit(second, &[]).await.unwrap();
        second
    });
    with(dir.path(), async |store| {
        let third = store.elect().await.unwrap();
        assert!(third > first);
        assert!(matches!(store.commit(first, &[]).await, Err(StoreError::Fenced)));
        assert_eq!(store.load().await.unwrap(), []);
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn it_behaves_as_the_memory_store_does(
        lives in prop::collection::vec(prop::collection::vec(prop::collection::vec(any_change(), 0..12), 0..12), 1..4)
    ) {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::new();
        for batches in lives {
            let mut memory = MemoryStore::open(&disk);
            with(dir.path(), async |store| {
                assert_eq!(sorted(store.load().await.unwrap()), memory.load_now().unwrap());
                let epoch = store.elect().await.unwrap();
                assert_eq!(epoch, memory.elect_now().unwrap());
                for batch in &batches {
                    store.commit(epoch, batch).await.unwrap();
                    memory.commit_now(epoch, batch).unwrap();
                }
                assert_eq!(sorted(store.load().await.unwrap()), memory.load_now().unwrap());
            });
        }
    }
}

/// A store with several journals' worth of history in tables, and a part that is in the journal alone.
fn aged_store(path: &Path) {
    with(path, async |store| {
        let epoch = store.elect().await.unwrap();
        store.commit(epoch, &puts(&samples())).await.unwrap();
        for round in 0..12 {
            store.commit(epoch, &instances(round % 2 * 1000, 1000)).await.unwrap();
        }
        store.commit(epoch, &puts(&samples())).await.unwrap();
    });
    // Without the preallocated zeros, which only make copies slow.
    for journal in files_below(path).iter().filter(|path| path.extension().is_some_and(|extension| extension == "jnl")) {
        let used = used_length(&std::fs::read(journal).unwrap());
        std::fs::File::options().write(true).open(journal).unwrap().set_len(used as u64).unwrap();
    }
}

fn instances(first: u128, count: u128) -> Vec<Change> {
    (first..first + count).map(|number| Change::Put(Record::Instance(Arc::new(instance(number))))).collect()
}

/// Without the zeros at the end.
fn used_length(content: &[u8]) -> usize {
    content.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
}

fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &target)
        } else {
            _ = std::fs::copy(entry.path(), target).unwrap()
        }
    }
}

fn files_below(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = entries.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect();
    files.sort();
    files
}

/// Whatever is damaged, either an error says so or nothing is missing. (Some bytes mean nothing: padding, statistics, locks.)
fn check_damage(aged: &Path, expected: &[Record], file: &Path, damage: impl FnOnce(&mut Vec<u8>)) -> Result<(), StoreError> {
    let copy = tempfile::tempdir().unwrap();
    copy_tree(aged, copy.path());
    let target = copy.path().join(file);
    let mut content = std::fs::read(&target).unwrap();
    damage(&mut content);
    std::fs::write(&target, content).unwrap();
    let found = records(copy.path())?;
    assert!(found == expected, "{} records instead of {} without an error", found.len(), expected.len());
    Ok(())
}

#[test]
fn damage_anywhere_is_an_error_or_harmless() {
    let dir = tempfile::tempdir().unwrap();
    aged_store(dir.path());
    let expected = records(dir.path()).unwrap();
    let (mut noticed, mut checked) = (0, 0);
    for file in files_below(&dir.path().join(STORE_DIRECTORY)) {
        let relative = file.strip_prefix(dir.path()).unwrap();
        let content = std::fs::read(&file).unwrap();
        let used = used_length(&content);
        let places = (0..used).step_by((used / 7).max(1)).chain(used.checked_sub(1));
        for place in places {
            let result = check_damage(dir.path(), &expected, relative, |bytes| bytes[place] ^= 0x10);
            noticed += usize::from(result.is_err());
            checked += 1;
            if std::env::var_os("XTAO_SHOW").is_some() {
                println!("{} byte {place} of {used}: {result:?}", relative.display());
            }
        }
        for length in [0, used / 2, used.saturating_sub(1)] {
            let cut = |bytes: &mut Vec<u8>| bytes.truncate(length);
            // A journal that loses its end looks as after a crash; the head then says what is missing, if it ever got further.
            let result = check_damage(dir.path(), &expected, relative, cut);
            if std::env::var_os("XTAO_SHOW").is_some() {
                println!("{} cut to {length} of {used}: {result:?}", relative.display());
            }
        }
    }
    assert!(noticed * 2 > checked, "only {noticed} of {checked}");
}

/// What the design rests on; run with `XTAO_FIGURES=1` and `--nocapture` on an otherwise idle machine.
#[test]
fn figures() {
    if std::env::var_os("XTAO_FIGURES").is_none() {
        return;
    }
    let dir = tempfile::tempdir_in(".").unwrap();
    let before = resident_kib();
    with(dir.path(), async |store| {
        let epoch = store.elect().await.unwrap();
        store.commit(epoch, &instances(0, 20)).await.unwrap();
        println!("{} KiB more with 20 records", resident_kib() - before);
        for size in [1, 16, 128, 1000] {
            let rounds = 300;
            let begun = Instant::now();
            for round in 0..rounds {
                store.commit(epoch, &instances(round * size, size)).await.unwrap();
            }
            let each = begun.elapsed() / rounds as u32;
            println!("{size} records a commit: {each:?}, {:.0} records/s", size as f64 / each.as_secs_f64());
        }
        println!("{} KiB more after {} commits", resident_kib() - before, 1200);
    });
    drop(dir);
    let dir = tempfile::tempdir_in(".").unwrap();
    for rounds in [1, 3, 10] {
        with(dir.path(), async |store| {
            let epoch = store.elect().await.unwrap();
            for round in 0..100 * rounds {
                store.commit(epoch, &instances(round % 100 * 1000, 1000)).await.unwrap();
            }
        });
        for _ in 0..2 {
            let before = resident_kib();
            let begun = Instant::now();
            let mut store = open(dir.path()).unwrap();
            let opened = begun.elapsed();
            let count = block_on(store.load()).unwrap().len();
            println!(
                "{rounds} rounds over {count} records: opened and read in {opened:?}, {} KiB more, then {}",
                resident_kib() - before,
                {
                    std::thread::sleep(Duration::from_secs(1));
                    resident_kib() - before
                }
            );
            let journals = files_below(dir.path())
                .iter()
                .map(|file| (file.file_name().unwrap().to_owned(), file.metadata().unwrap().len()))
                .collect::<Vec<_>>();
            println!("  {journals:?}");
        }
    }
}

fn resident_kib() -> i64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
