use super::*;

fn account(uid: u32, gid: u32, groups: &[u32]) -> Account {
    Account { name: "ann".to_owned(), uid, gid, groups: groups.to_vec() }
}

fn nobody() -> Account {
    account(Account::NONE, Account::NONE, &[])
}

/// The map of the kernel in one line: its file's lines with commas between.
fn line(extents: &[Extent]) -> String {
    map(extents).trim_end().replace('\n', ", ")
}

#[test]
fn root_of_a_container_is_the_account_and_nobody_else_is_anybody() {
    let check = |account: &Account, user: Option<&str>, uids: &str, gids: &str, groups: &[u32]| {
        let ids = Ids::of(account, user, [Range::own(account), Range::own(account)]);
        assert_eq!((&*line(&ids.uids), &*line(&ids.gids), &*ids.groups), (uids, gids, groups), "{account:?} {user:?}");
    };
    let plain = "1000 0 1, 2147483647 2147483647 1, 2213019649 1 65535";
    check(&account(1000, 1000, &[1000]), None, plain, plain, &[]);
    check(&account(1000, 1000, &[1000]), Some("root"), plain, plain, &[]);
    // A name is the image's, which is not looked into.
    check(&account(1000, 1000, &[1000]), Some("postgres"), plain, plain, &[]);
    // The number of the definition; its group is the image's to say, so the account's is a further one.
    let as_26 = "1000 26 1, 2147483647 2147483647 1, 2213019648 0 26, 2213019675 27 65509";
    let beside = "1000 1000 1, 2147483647 2147483647 1, 2213019648 0 1000, 2213020649 1001 64535";
    check(&account(1000, 1000, &[1000]), Some("26"), as_26, beside, &[1000]);
    check(&account(1000, 1000, &[1000]), Some("26:26"), as_26, as_26, &[26]);
    // The account's own number inside.
    check(&account(1000, 1000, &[1000]), Some("1000"), beside, beside, &[1000]);
    // Further groups are the same inside. Root's is never there.
    let gids = "100 0 1, 27 27 1, 70000 70000 1, 2147483647 2147483647 1, 2213019649 1 26, 2213019676 28 65508";
    check(&account(1000, 100, &[100, 27, 0, 70_000]), None, plain, gids, &[27, 70_000]);
    let unknown = "4294967293 0 1, 2147483647 2147483647 1, 2213019649 1 65535";
    check(&account(1000, 0, &[0, 0]), None, plain, unknown, &[]);
    // Whoever has no account shares a range with others who have none.
    let shared = "4294967293 0 1, 2147483647 2147483647 1, 2147483649 1 65535";
    check(&nobody(), None, shared, shared, &[]);
    // The last account that has a range by its number, and one that has none: only its own ids are there.
    let last = "32766 0 1, 2147483647 2147483647 1, 4294836225 1 65535";
    check(&account(32_766, 32_766, &[]), None, last, last, &[]);
    let alone = "32767 0 1, 2147483647 2147483647 1";
    check(&account(32_767, 32_767, &[]), None, alone, alone, &[]);
}

#[test]
fn a_map_is_one_to_one_and_never_has_root() {
    let ranges =
        [None, Some(Range { first: 100_000, count: 65_536 }), Some(Range { first: 65_536, count: 10 }), Range::own(&account(1, 1, &[]))];
    let accounts =
        [account(1, 1, &[]), account(1000, 0, &[0, 100_005, 5, 5, 1000, COMMON]), account(70_000, 70_000, &[65_536, 3]), nobody()];
    let users = [None, Some("0"), Some("1"), Some("65535:7"), Some("100000"), Some("2147483647"), Some("x:y"), Some(":")];
    let cases = accounts.iter().flat_map(|account| users.iter().map(move |user| (account, *user)));
    for ((account, user), range) in cases.flat_map(|case| ranges.map(|range| (case, range))) {
        let ids = Ids::of(account, user, [range, range]);
        for extents in [&ids.uids, &ids.gids] {
            let crossed = |one: u32, other: u32, first: &Extent, second: &Extent| {
                u64::from(one) < u64::from(other) + u64::from(second.count) && u64::from(other) < u64::from(one) + u64::from(first.count)
            };
            for (at, extent) in extents.iter().enumerate() {
                assert!(extent.disk > 0 && extent.count > 0, "{account:?} {user:?} {range:?}: {extents:?}");
                for other in &extents[..at] {
                    let is_twice = crossed(extent.disk, other.disk, extent, other) || crossed(extent.inside, other.inside, extent, other);
                    assert!(!is_twice, "{account:?} {user:?} {range:?}: {extents:?}");
                }
            }
            // The most that can be written at once.
            assert!(map(extents).len() < 4096);
        }
    }
    let many: Vec<u32> =
        (1..500).map(|number| 1_000_000_000 + 2 * number).chain((1..500).map(|number| 60_000 + 2 * number)).rev().collect();
    let ids = Ids::of(&account(1000, 1000, &many), None, [Range::own(&account(1000, 1000, &[])); 2]);
    assert_eq!(ids.groups.len(), MAX_GROUPS);
    assert!(map(&ids.gids).len() < 4096);
}

#[test]
fn an_account_has_the_range_that_the_node_gave_it() {
    let check = |text: &str, expected: Option<(u32, u32)>| {
        let found = Range::find(text, &account(1000, 1000, &[]));
        assert_eq!(found.map(|range| (range.first, range.count)), expected, "{text}");
    };
    check("", None);
    check("bob:100000:65536\nann:165536:65536\nann:300000:65536\n", Some((165_536, 65_536)));
    check("# ann\n1000:200000:1000000000", Some((200_000, 65_536)));
    check("ann:200000:10\n", Some((200_000, 10)));
    // What would make a container somebody, and what is no range at all.
    for text in ["ann:0:65536", "ann:1000:1", "ann:65535:1", "ann:2147483646:2", "ann:4294967290:65536", "ann:200000:0"] {
        check(text, None);
    }
    for text in ["ann", "ann:x:1", "ann:200000", "ann:200000:1:1", "anna:200000:1", "ann:-1:5", "ann:99999999999:1"] {
        check(text, None);
    }
    assert_eq!(Range::find("ann:200000:10\n4294967293:200000:10", &nobody()), None);
}

#[test]
fn what_is_another_s_cannot_be_written() {
    let ids = Ids::of(&account(1000, 100, &[100, 27]), None, [Range::own(&account(1000, 100, &[])); 2]);
    for (uid, gid) in [(1000, 100), (1000, 27), (2_213_019_674, 100), (COMMON, COMMON), (2_213_085_183, 2_213_019_649)] {
        assert!(ids.may_write(uid, gid), "{uid} {gid}");
    }
    for (uid, gid) in [(0, 0), (1000, 0), (0, 100), (1001, 100), (1000, 33), (2_213_085_184, 100), (2_213_019_648, 100)] {
        assert!(!ids.may_write(uid, gid), "{uid} {gid}");
    }
}

#[test]
fn what_a_killed_server_left_is_removed_and_nothing_below() {
    let work = tempfile::tempdir().unwrap();
    tidy(work.path()).unwrap();
    let (place, file, data) = (root(work.path()).join("task.0"), root(work.path()).join("task.1"), work.path().join("data"));
    std::fs::create_dir_all(&place).unwrap();
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("kept"), "").unwrap();
    std::fs::write(&file, "").unwrap();
    // Twice, as a launch that is tried again after a crash would have it.
    for (from, to) in [(&data, &place), (&data, &place), (&data.join("kept"), &file)] {
        rustix::mount::mount_bind(from, to).unwrap();
    }
    tidy(work.path()).unwrap();
    assert_eq!(std::fs::read_dir(root(work.path())).unwrap().count(), 0);
    assert!(data.join("kept").exists());
    assert!(!mounts::table().unwrap().iter().any(|mount| mount.target.starts_with(root(work.path()))));
}
