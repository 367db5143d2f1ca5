use super::*;

const TASK: &str = "web.instance-6b0cd2e8-b243-11e8-8b80-024247c0a575._app.1";

fn task() -> TaskId {
    TASK.parse().unwrap()
}

fn stamp(second: u32) -> String {
    format!("2024-05-06T07:08:{second:02}.000000000Z")
}

fn read(work_dir: &Path, name: &str) -> String {
    std::fs::read_to_string(path(work_dir, &task()).join(name)).unwrap_or_default()
}

#[test]
fn what_comes_again_is_not_kept_twice() {
    let work_dir = tempfile::tempdir().unwrap();
    let mut sandbox = Sandbox::open(work_dir.path(), &task(), 1000).unwrap();
    assert_eq!(sandbox.since(), 0);
    sandbox.write(Output::Stdout, &stamp(1), b"a\n").unwrap();
    sandbox.write(Output::Stdout, &stamp(2), b"b\n").unwrap();
    sandbox.write(Output::Stderr, &stamp(2), b"B\n").unwrap();
    sandbox.save().unwrap();
    // Written, but not saved when the server was killed.
    sandbox.write(Output::Stdout, &stamp(2), b"c\n").unwrap();
    drop(sandbox);

    let mut sandbox = Sandbox::open(work_dir.path(), &task(), 1000).unwrap();
    assert_eq!(sandbox.since(), 1_714_979_280);
    for (second, text) in [(1, "a\n"), (2, "b\n"), (2, "c\n"), (3, "d\n")] {
        sandbox.write(Output::Stdout, &stamp(second), text.as_bytes()).unwrap();
    }
    sandbox.write(Output::Stderr, &stamp(2), b"B\n").unwrap();
    assert_eq!(read(work_dir.path(), "stdout"), "a\nb\nc\nd\n");
    assert_eq!(read(work_dir.path(), "stderr"), "B\n");

    // The stream broke and is asked for again.
    sandbox.rewind();
    for (second, text) in [(2, "b\n"), (2, "c\n"), (3, "d\n"), (3, "e\n")] {
        sandbox.write(Output::Stdout, &stamp(second), text.as_bytes()).unwrap();
    }
    assert_eq!(read(work_dir.path(), "stdout"), "a\nb\nc\nd\ne\n");
}

#[test]
fn a_full_file_is_replaced_and_one_old_one_kept() {
    let work_dir = tempfile::tempdir().unwrap();
    let mut sandbox = Sandbox::open(work_dir.path(), &task(), 10).unwrap();
    for second in 1..=5 {
        sandbox.write(Output::Stdout, &stamp(second), format!("line{second}\n").as_bytes()).unwrap();
    }
    assert_eq!((read(work_dir.path(), "stdout.1"), read(work_dir.path(), "stdout")), ("line4\n".into(), "line5\n".into()));
    sandbox.write(Output::Stdout, &stamp(6), b"longer than the limit\n").unwrap();
    assert_eq!(read(work_dir.path(), "stdout"), "longer than the limit\n");
    drop(sandbox);
    let mut sandbox = Sandbox::open(work_dir.path(), &task(), 10).unwrap();
    sandbox.write(Output::Stdout, &stamp(6), b"longer than the limit\n").unwrap();
    assert_eq!(read(work_dir.path(), "stdout"), "longer than the limit\n");
}

#[test]
fn a_symbolic_link_in_place_of_a_file_is_not_followed() {
    let work_dir = tempfile::tempdir().unwrap();
    let victim = work_dir.path().join("victim");
    std::fs::write(&victim, "precious").unwrap();
    std::fs::create_dir_all(path(work_dir.path(), &task())).unwrap();
    std::os::unix::fs::symlink(&victim, path(work_dir.path(), &task()).join("stdout")).unwrap();
    assert!(Sandbox::open(work_dir.path(), &task(), 10).is_err());
    assert_eq!(std::fs::read_to_string(victim).unwrap(), "precious");
}

#[test]
fn a_kill_is_remembered() {
    let work_dir = tempfile::tempdir().unwrap();
    assert!(!is_marked_killed(work_dir.path(), &task()));
    mark_killed(work_dir.path(), &task()).unwrap();
    mark_killed(work_dir.path(), &task()).unwrap();
    assert!(is_marked_killed(work_dir.path(), &task()));
}

#[test]
fn old_and_surplus_sandboxes_are_removed_unless_they_are_in_use() {
    let work_dir = tempfile::tempdir().unwrap();
    let check = |in_use: &[&str], keep_for: u64, keep_at_most: usize, expected: &[&str]| {
        let root = root(work_dir.path());
        for (age, name) in [(300, "a"), (200, "b"), (100, "c")] {
            std::fs::create_dir_all(root.join(name)).unwrap();
            let file = File::open(root.join(name)).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(age)).unwrap();
        }
        let in_use = in_use.iter().map(|name| (*name).to_owned()).collect();
        let gone = collect(work_dir.path(), &in_use, Duration::from_secs(keep_for), keep_at_most).unwrap();
        let mut left: Vec<_> = std::fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        left.sort();
        assert_eq!((left.iter().map(String::as_str).collect::<Vec<_>>(), gone), (expected.to_vec(), 3 - expected.len()));
    };
    check(&[], 1000, 10, &["a", "b", "c"]);
    check(&[], 150, 10, &["c"]);
    check(&[], 1000, 1, &["c"]);
    check(&["a"], 150, 0, &["a"]);
}

#[test]
fn whose_it_was_is_kept() {
    let work_dir = tempfile::tempdir().unwrap();
    let found = || owner(&open_directory(&path(work_dir.path(), &task())).unwrap());
    assert_eq!(found(), None);
    for name in ["someone-with-a-long-name", "ann"] {
        note_owner(work_dir.path(), &task(), &Owner::new(name)).unwrap();
        assert_eq!(found(), Some(Owner::new(name)));
    }
    let file = path(work_dir.path(), &task()).join(OWNER);
    for damaged in [String::new(), "a b".into(), "x".repeat(MAX_NAME_BYTES + 1)] {
        std::fs::write(&file, &damaged).unwrap();
        assert_eq!(found(), None, "{damaged}");
    }
    std::fs::remove_file(&file).unwrap();
    std::os::unix::fs::symlink("/etc/hostname", &file).unwrap();
    assert_eq!(found(), None);
    note_owner(work_dir.path(), &task(), &Owner::new("ann")).unwrap_err();
}

#[test]
fn what_is_handed_over_is_what_is_below_and_no_links_are_followed() {
    use std::os::unix::fs::MetadataExt;
    let place = tempfile::tempdir().unwrap();
    let (files, outside) = (place.path().join("files"), place.path().join("outside"));
    for directory in [files.join("a/b"), outside.join("c")] {
        std::fs::create_dir_all(directory).unwrap();
    }
    for file in [files.join("a/b/file"), outside.join("file")] {
        std::fs::write(file, "").unwrap();
    }
    std::os::unix::fs::symlink(&outside, files.join("a/directory")).unwrap();
    std::os::unix::fs::symlink(outside.join("file"), files.join("a/link")).unwrap();
    rustix::fs::mknodat(CWD, files.join("pipe"), rustix::fs::FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    hand_over(&files, Some((1, 2))).unwrap();
    let owner = |path: PathBuf| std::fs::symlink_metadata(path).map(|meta| (meta.uid(), meta.gid())).unwrap();
    for given in ["", "a", "a/b", "a/b/file", "a/directory", "a/link", "pipe"] {
        assert_eq!(owner(files.join(given)), (1, 2), "{given}");
    }
    for kept in ["", "c", "file"] {
        assert_eq!(owner(outside.join(kept)), (0, 0), "{kept}");
    }
    std::os::unix::fs::symlink(&outside, place.path().join("instead")).unwrap();
    hand_over(&place.path().join("instead"), Some((1, 2))).unwrap_err();
    assert_eq!(owner(outside), (0, 0));
}

#[test]
fn a_directory_that_is_swapped_for_a_link_while_it_is_handed_over_gives_nothing_else_away() {
    use std::{
        os::unix::fs::MetadataExt,
        sync::atomic::{AtomicBool, Ordering},
    };
    let place = tempfile::tempdir().unwrap();
    let (files, victim) = (place.path().join("files"), place.path().join("victim"));
    for directory in [files.join("inner"), victim.clone()] {
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join("name"), "").unwrap();
    }
    std::os::unix::fs::symlink(&victim, files.join("link")).unwrap();
    let (one, other, enough) = (files.join("inner"), files.join("link"), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !enough.load(Ordering::Relaxed) {
                rustix::fs::renameat_with(CWD, &one, CWD, &other, rustix::fs::RenameFlags::EXCHANGE).unwrap();
            }
        });
        let given: Vec<io::Result<()>> = (0..2000).map(|_| hand_over(&files, Some((1, 1)))).collect();
        // Before anything can fail: the other thread waits for it.
        enough.store(true, Ordering::Relaxed);
        given.into_iter().for_each(Result::unwrap);
    });
    assert_eq!(std::fs::metadata(victim.join("name")).unwrap().uid(), 0);
}

#[test]
fn when_a_task_was_asked_to_end_is_remembered() {
    let work_dir = tempfile::tempdir().unwrap();
    let seen = |now_ms: u64| asked(work_dir.path(), &task(), now_ms).map(|asked| (asked.ago_ms, asked.grace_ms));
    assert_eq!(seen(0), None);
    mark_killed(work_dir.path(), &task()).unwrap();
    assert!(is_marked_killed(work_dir.path(), &task()));
    assert_eq!(seen(5_000), None, "nobody knows whether it was asked already");
    note_asked(work_dir.path(), &task(), 30_000, 5_000).unwrap();
    assert_eq!(seen(6_000), Some((1_000, 30_000)));
    assert_eq!(seen(100_000), Some((95_000, 30_000)));
    assert_eq!(seen(4_000), Some((0, 30_000)), "the clock has begun anew");
    // The mark is made again before each signal.
    mark_killed(work_dir.path(), &task()).unwrap();
    assert_eq!(seen(6_000), Some((1_000, 30_000)));
    std::fs::write(path(work_dir.path(), &task()).join(".killed"), "{\"at_ms\":").unwrap();
    assert_eq!(seen(6_000), None);
    assert!(is_marked_killed(work_dir.path(), &task()));
}
