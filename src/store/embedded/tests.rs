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
    model::{
        app::App,
        instance::Instance,
        record::{Meta, RecordKey},
        time::Timestamp,
    },
    store::{
        memory::{Disk, MemoryStore},
        samples::{any_change, bare, bare_app, full, instance},
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
fn after_a_restart_too_commits_do_not_change_the_length_of_the_journal() {
    let dir = tempfile::tempdir().unwrap();
    let length = || std::fs::metadata(dir.path().join(STORE_DIRECTORY).join("0.jnl")).unwrap().len();
    for number in 0..4 {
        with(dir.path(), async |store| {
            let epoch = store.elect().await.unwrap();
            assert_eq!(length(), 64 << 20, "start {number}");
            let record = Record::Instance(Arc::new(instance(number)));
            store.commit(epoch, vec![Change::Put(record)]).await.unwrap();
            assert_eq!(length(), 64 << 20, "start {number}");
        });
        assert_eq!(records(dir.path()).unwrap().len(), usize::try_from(number).unwrap() + 1);
    }
}

#[test]
fn what_was_committed_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    with(dir.path(), async |store| {
        assert_eq!(store.load().await.unwrap(), []);
        let epoch = store.elect().await.unwrap();
        store.commit(epoch, puts(&samples())).await.unwrap();
        store.commit(epoch, vec![Change::Delete(RecordKey::Port(1066)), Change::Delete(RecordKey::Port(1))]).await.unwrap();
        store.commit(epoch, vec![]).await.unwrap();
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
        assert!(matches!(store.commit(0, vec![]).await, Ok(())), "epoch 0 is nobody's, and still the present one");
        let first = store.elect().await.unwrap();
        let second = store.elect().await.unwrap();
        assert!(second > first);
        assert!(matches!(store.commit(first, puts(&samples())).await, Err(StoreError::Fenced)));
        store.commit(second, vec![]).await.unwrap();
        second
    });
    with(dir.path(), async |store| {
        let third = store.elect().await.unwrap();
        assert!(third > first);
        assert!(matches!(store.commit(first, vec![]).await, Err(StoreError::Fenced)));
        assert_eq!(store.load().await.unwrap(), []);
    });
}

fn definition(version: i64) -> Record {
    Record::Definition(Arc::new(App { version: Timestamp(version), ..bare_app() }))
}

#[test]
fn a_version_that_comes_takes_the_place_of_one_that_goes() {
    let dir = tempfile::tempdir().unwrap();
    let keys = |owner: &Owner| owner.records.iter().map(|entry| entry.key().unwrap().to_vec()).collect::<Vec<_>>();
    let key = |version| codec::key_bytes(&definition(version).key());
    let mut owner = Owner::open(dir.path()).unwrap();
    let epoch = owner.elect().unwrap();
    owner.commit(epoch, &[Change::Put(definition(1)), Change::Put(definition(2))]).unwrap();
    for version in 3..7 {
        owner.commit(epoch, &[Change::Put(definition(version)), Change::Delete(definition(version - 2).key())]).unwrap();
        assert_eq!(keys(&owner), [HEAD_KEY.to_vec(), key(1), key(2)], "no third place, and none that was left");
        drop(owner);
        owner = Owner::open(dir.path()).unwrap();
        assert_eq!(owner.load().map(sorted).unwrap(), [definition(version - 1), definition(version)]);
    }
    // Its own place is another's: it gets the one that this other has not taken.
    owner.commit(epoch, &[Change::Put(definition(1)), Change::Put(definition(2))]).unwrap();
    assert_eq!(keys(&owner).len(), 5);
    owner.commit(epoch, &[Change::Delete(definition(5).key()), Change::Delete(definition(2).key())]).unwrap();
    assert_eq!(keys(&owner).len(), 3);
    drop(owner);
    assert_eq!(Owner::open(dir.path()).unwrap().load().map(sorted).unwrap(), [definition(1), definition(6)]);
}

#[test]
fn a_record_in_two_places_is_damage() {
    let dir = tempfile::tempdir().unwrap();
    let mut owner = Owner::open(dir.path()).unwrap();
    let epoch = owner.elect().unwrap();
    owner.commit(epoch, &[Change::Put(definition(1))]).unwrap();
    let other = codec::key_bytes(&definition(2).key());
    let envelope = codec::encode(&other, &definition(1)).unwrap();
    let (head, sum) = (owner.head.clone(), codec::checksum_of(&envelope));
    owner.records.insert(other, envelope).unwrap();
    owner.write(Head { records: 2, sum: head.sum.wrapping_add(sum), ..head }, &[]).unwrap();
    drop(owner);
    match Owner::open(dir.path()) {
        Err(StoreError::Damaged { reason, .. }) => assert_eq!(reason, "it holds a record twice"),
        other => panic!("{:?}", other.map(|_| ())),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

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
                    store.commit(epoch, batch.clone()).await.unwrap();
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
        store.commit(epoch, puts(&samples())).await.unwrap();
        for round in 0..32 {
            store.commit(epoch, large_records(round)).await.unwrap();
        }
        store.commit(epoch, puts(&samples())).await.unwrap();
    });
    // Without the preallocated zeros, which only make copies slow.
    for journal in files_below(path).iter().filter(|path| path.extension().is_some_and(|extension| extension == "jnl")) {
        let used = used_length(&std::fs::read(journal).unwrap());
        std::fs::File::options().write(true).open(journal).unwrap().set_len(used as u64).unwrap();
    }
}

/// 40 records of some KiB, which differ from round to round: they fill write buffers and are few to read.
fn large_records(round: usize) -> Vec<Change> {
    let app = |n: usize| App { id: format!("/large/{n}").parse().unwrap(), cmd: Some(format!("{round:04}").repeat(800)), ..bare_app() };
    (0..40).map(|n| Change::Put(Record::Definition(Arc::new(app(n))))).collect()
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

/// How many records each commit of [`a_child_that_commits`] changes; all of them carry the number of the commit.
const GROUP: u128 = 40;

/// Not a test of its own: [`no_acknowledged_commit_is_lost_by_sudden_death`] runs this in a process which it kills. Commits 1, 2, 3 ... after
/// what is there, and prints each number when it is acknowledged.
#[test]
fn a_child_that_commits() {
    let Some(path) = std::env::var_os("XTAO_STORE_CHILD") else { return };
    with(Path::new(&path), async |store| {
        let mut number = last_commit(&store.load().await.unwrap());
        let epoch = store.elect().await.unwrap();
        loop {
            number += 1;
            let group = (0..GROUP).map(|n| Instance { incarnation: number, ..instance(n) });
            let group: Vec<Change> = group.map(|instance| Change::Put(Record::Instance(Arc::new(instance)))).collect();
            store.commit(epoch, group).await.unwrap();
            // The test harness catches what print! writes.
            writeln!(std::io::stdout(), "acknowledged {number}").unwrap();
        }
    });
}

/// The number that all records carry; 0 without records.
fn last_commit(records: &[Record]) -> u32 {
    let numbers: HashSet<u32> = records
        .iter()
        .map(|record| match record {
            Record::Instance(instance) => instance.incarnation,
            other => panic!("{other:?}"),
        })
        .collect();
    assert!(numbers.len() <= 1, "half a commit: {numbers:?}");
    assert!(records.is_empty() || records.len() == GROUP as usize);
    numbers.into_iter().next().unwrap_or(0)
}

#[test]
fn no_acknowledged_commit_is_lost_by_sudden_death() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = 0;
    // How many commits each life lasts; the kill then meets the next one at some point of its way.
    for commits in [1, 30, 2, 200, 7, 3, 90, 1, 11, 47] {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "store::embedded::tests::a_child_that_commits", "--nocapture"])
            .env("XTAO_STORE_CHILD", dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let mut number = |line: String| line.split_once("acknowledged ").map(|(_, number)| number.parse::<u32>().unwrap());
        lines.by_ref().filter_map(&mut number).take(commits).for_each(|number| acknowledged = number);
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(9));
        lines.filter_map(&mut number).for_each(|number| acknowledged = number);
        let found = last_commit(&records(dir.path()).unwrap());
        assert!(found == acknowledged || found == acknowledged + 1, "{acknowledged} was acknowledged, {found} is there");
        acknowledged = found;
    }
}

#[test]
fn a_store_that_is_gone_or_older_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let (store, older) = (dir.path().join(STORE_DIRECTORY), dir.path().join("older"));
    let grow = || {
        with(dir.path(), async |store| {
            let epoch = store.elect().await.unwrap();
            store.commit(epoch, puts(&samples())).await.unwrap();
        });
    };
    grow();
    copy_tree(&store, &older);
    grow();
    std::fs::remove_dir_all(&store).unwrap();
    let error = records(dir.path()).unwrap_err().to_string();
    assert!(error.contains("it is gone; restore it from a backup"), "{error}");
    copy_tree(&older, &store);
    let error = records(dir.path()).unwrap_err().to_string();
    assert!(error.contains("it ends with commit 2, though commit 4 was seen in it before"), "{error}");
    std::fs::remove_file(dir.path().join(MARK_FILE)).unwrap();
    assert!(!records(dir.path()).unwrap().is_empty());
}

#[test]
fn a_store_that_was_half_made_is_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("store.new")).unwrap();
    std::fs::write(dir.path().join("store.new/0.jnl"), "half").unwrap();
    assert_eq!(records(dir.path()).unwrap(), []);
    assert!(!dir.path().join("store.new").exists());
}

#[test]
fn after_an_error_every_commit_is_refused_until_reopened() {
    let dir = tempfile::tempdir().unwrap();
    with(dir.path(), async |store| {
        let epoch = store.elect().await.unwrap();
        store.commit(epoch, instances(0, 1)).await.unwrap();
        let meta = Meta { framework_id: Some("x".repeat(codec::MAX_RECORD_BYTES + 1)), ..Meta::default() };
        let mut batch = instances(1, 1);
        batch.push(Change::Put(Record::Meta(Arc::new(meta))));
        assert!(store.commit(epoch, batch).await.unwrap_err().to_string().contains("the record meta cannot be written"));
        for result in [store.commit(epoch, instances(2, 1)).await, store.elect().await.map(drop)] {
            assert!(result.unwrap_err().to_string().starts_with("the store takes no more writes, because one has failed: the record meta"));
        }
    });
    assert_eq!(records(dir.path()).unwrap().len(), 1);
}

/// Not a test of its own: [`a_full_disk_ends_in_words_and_loses_nothing`] runs this on a file system of a few MiB.
#[test]
fn a_child_that_fills_its_disk() {
    let Some(path) = std::env::var_os("XTAO_STORE_FILL") else { return };
    let (path, ballast) = (Path::new(&path), Path::new(&path).join("ballast"));
    std::fs::write(&ballast, vec![1_u8; 4 << 20]).unwrap();
    let mut acknowledged = 0;
    let error = with(path, async |store| {
        let epoch = store.elect().await.unwrap();
        loop {
            let batch = large_records(acknowledged + 1);
            if let Err(error) = store.commit(epoch, batch).await {
                assert!(store.commit(epoch, vec![]).await.is_err());
                break error.to_string();
            }
            acknowledged += 1;
        }
    });
    writeln!(std::io::stdout(), "failed: {error}").unwrap();
    let full = records(path).map(|records| records.len());
    writeln!(std::io::stdout(), "full: {full:?}").unwrap();
    std::fs::remove_file(&ballast).unwrap();
    let found = records(path).unwrap();
    let expected =
        |round| large_records(round).into_iter().filter(|change| matches!(change, Change::Put(record) if found.contains(record)));
    assert!([acknowledged, acknowledged + 1].into_iter().any(|round| expected(round).count() == 40), "{acknowledged} is not there");
    writeln!(std::io::stdout(), "nothing lost").unwrap();
}

/// Needs root, to have a small file system; without it, it checks nothing.
#[test]
fn a_full_disk_ends_in_words_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    // The mount is private to the child and goes with it.
    let script =
        "mount -t tmpfs -o size=16m tmpfs \"$1\" && exec \"$2\" --exact store::embedded::tests::a_child_that_fills_its_disk --nocapture";
    let mut command = Command::new("unshare");
    command.args(["--mount", "--", "sh", "-c", script, "sh"]).arg(dir.path()).arg(std::env::current_exe().unwrap());
    let Ok(output) = command.env("XTAO_STORE_FILL", dir.path()).output() else { return };
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if !output.status.success() && out.is_empty() {
        eprintln!("not checked: {err}");
        return;
    }
    assert!(out.contains("free some space on that file system and start again"), "{out}{err}");
    assert!(out.contains("nothing lost"), "{out}{err}");
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
        store.commit(epoch, instances(0, 20)).await.unwrap();
        println!("{} KiB more with 20 records", resident_kib() - before);
        for size in [1, 16, 128, 1000] {
            let rounds = 300;
            let begun = Instant::now();
            for round in 0..rounds {
                store.commit(epoch, instances(round * size, size)).await.unwrap();
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
                store.commit(epoch, instances(round % 100 * 1000, 1000)).await.unwrap();
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
