//! Mounting, releasing, growing, refusing.

use super::*;

#[tokio::test]
async fn a_brick_is_mounted_released_and_mounted_again_with_its_data() {
    for make in [brick, xfs] {
        let world = World::new();
        let bricks = world.open().await;
        let data = bricks.mount(&make("db", 1, 320)).await.unwrap();
        assert_eq!(data, world.target("db").join("data"));
        assert_eq!(fs::read_dir(&data).unwrap().count(), 0, "the container begins with an empty directory");
        assert_eq!(world.state("db"), (1, 1));
        fs::write(data.join("row"), "kept").unwrap();
        assert_eq!(bricks.mount(&make("db", 1, 320)).await.unwrap(), data, "the same lease again changes nothing");
        assert_eq!(world.state("db"), (1, 1));

        bricks.release(&name("db"), 1).await.unwrap();
        assert!(world.is_free("db"));
        bricks.release(&name("db"), 1).await.unwrap();
        let data = bricks.mount(&make("db", 2, 320)).await.unwrap();
        assert_eq!(fs::read_to_string(data.join("row")).unwrap(), "kept");
        bricks.release(&name("db"), 2).await.unwrap();
    }
}

#[tokio::test]
async fn the_mount_gives_no_privileges_and_is_private() {
    let world = World::new();
    let bricks = world.open().await;
    bricks.mount(&brick("db", 1, 32)).await.unwrap();
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let target = world.target("db").to_str().unwrap().replace(' ', "\\040");
    let line = table.lines().find(|line| line.contains(&target)).unwrap();
    assert!(line.contains("nosuid") && line.contains("nodev") && line.contains("noinit_itable"), "{line}");
    assert!(!line.contains("shared:") && !line.contains("master:"), "{line}");
    bricks.release(&name("db"), 1).await.unwrap();
}

#[tokio::test]
async fn a_missing_mount_cannot_fill_the_root_disk() {
    let world = World::new();
    let bricks = world.open().await;
    bricks.mount(&brick("db", 1, 32)).await.unwrap();
    bricks.release(&name("db"), 1).await.unwrap();
    assert!(world.target("db").is_dir());
    let error = fs::write(world.target("db").join("x"), "x").unwrap_err();
    assert_eq!(error.raw_os_error(), Some(1), "immutable: {error}");
}

#[tokio::test]
async fn a_lease_that_ended_never_mounts_again() {
    let world = World::new();
    let bricks = world.open().await;
    bricks.mount(&brick("db", 3, 32)).await.unwrap();
    let error = text(bricks.mount(&brick("db", 2, 32)).await);
    assert_eq!(error, "lease 2 of brick 'db' is over: lease 3 was seen");
    bricks.release(&name("db"), 3).await.unwrap();
    drop(bricks);

    let bricks = world.open().await;
    for epoch in [1, 2, 3] {
        assert!(text(bricks.mount(&brick("db", epoch, 32)).await).ends_with("is over: lease 3 was seen"));
    }
    // Released before it was ever mounted, or even made: the message that would have mounted it comes late.
    bricks.release(&name("late"), 7).await.unwrap();
    assert!(text(bricks.mount(&brick("late", 7, 32)).await).contains("lease 7 was seen"));
    assert!(!world.image("late").exists());
    bricks.mount(&brick("late", 8, 32)).await.unwrap();
    // An old release does not touch the newer holder.
    bricks.release(&name("late"), 7).await.unwrap();
    assert_eq!(world.state("late"), (1, 1));
    assert_eq!(world.lease("late"), Lease { held: 8, released: 7 });
    bricks.release(&name("late"), 8).await.unwrap();
}

#[tokio::test]
async fn what_an_earlier_lease_left_mounted_is_released_first() {
    let world = World::new();
    let bricks = world.open().await;
    let data = bricks.mount(&brick("db", 1, 32)).await.unwrap();
    fs::write(data.join("row"), "kept").unwrap();
    let data = bricks.mount(&brick("db", 2, 32)).await.unwrap();
    assert_eq!(fs::read_to_string(data.join("row")).unwrap(), "kept");
    assert_eq!((world.state("db"), world.lease("db")), ((1, 1), Lease { held: 2, released: 0 }));
    bricks.release(&name("db"), 2).await.unwrap();
}

#[tokio::test]
async fn a_brick_grows_with_its_file_system_and_never_shrinks() {
    for (make, small, large) in [(brick as fn(&str, u64, u64) -> BrickMount, 32, 4096), (xfs, 300, 2048)] {
        let world = World::new();
        let bricks = world.open().await;
        let data = bricks.mount(&make("db", 1, small)).await.unwrap();
        fs::write(data.join("row"), "kept").unwrap();
        assert!(span(&data) <= small);
        bricks.release(&name("db"), 1).await.unwrap();
        let error = text(bricks.mount(&make("db", 2, small - 1)).await);
        assert_eq!(error, format!("brick 'db' has {small} MiB and cannot be made smaller ({} MiB were asked for)", small - 1));
        let data = bricks.mount(&make("db", 2, large)).await.unwrap();
        assert!(span(&data) > large * 9 / 10, "{} of {large}", span(&data));
        assert_eq!(fs::read_to_string(data.join("row")).unwrap(), "kept");
        bricks.release(&name("db"), 2).await.unwrap();
        // A crash between growing the image and the file system is made up for at the next mount.
        fs::OpenOptions::new().write(true).open(world.image("db")).unwrap().set_len(2 * large * MIB).unwrap();
        let data = bricks.mount(&make("db", 3, 2 * large)).await.unwrap();
        assert!(span(&data) > 2 * large * 9 / 10, "{} of {}", span(&data), 2 * large);
        bricks.release(&name("db"), 3).await.unwrap();
    }
}

#[tokio::test]
async fn a_brick_is_full_at_its_limit() {
    let world = World::new();
    let bricks = world.open().await;
    let data = bricks.mount(&brick("db", 1, 128)).await.unwrap();
    let mut file = File::create(data.join("big")).unwrap();
    let error = (0..160).try_for_each(|_| file.write_all(&[7; 1024 * 1024]).and_then(|()| file.sync_all())).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
    let [(_, epoch, used, size)] = bricks.mounted().await[..] else { panic!("one is mounted") };
    assert!(epoch == 1 && used >= 100 && used <= size && size <= 128, "{epoch} {used} {size}");
    drop(file);
    // What is deleted goes back to the pool when the brick is released.
    let taken = |status: Vec<PoolStatus>| status[0].taken;
    let before = taken(bricks.pool_status().await);
    fs::remove_file(data.join("big")).unwrap();
    bricks.release(&name("db"), 1).await.unwrap();
    let after = taken(bricks.pool_status().await);
    assert!(after + 80 <= before, "{before} MiB before, {after} MiB after");
}

#[tokio::test]
async fn a_pool_promises_no_more_than_it_may() {
    let world = World::new();
    let capacity = span(&world.directory);
    let bricks = Bricks::open(Settings { overcommit: 1.0, ..world.settings() }).await.unwrap();
    bricks.mount(&brick("a", 1, capacity - 64)).await.unwrap();
    let error = text(bricks.mount(&brick("b", 1, 65)).await);
    assert!(error.contains("65 MiB more were asked for") && error.contains("raise the overcommit limit"), "{error}");
    assert!(!world.image("b").exists());
    bricks.mount(&brick("b", 1, 32)).await.unwrap();
    bricks.release(&name("b"), 1).await.unwrap();
    assert!(text(bricks.mount(&brick("b", 2, 128)).await).contains("96 MiB more were asked for"));
    bricks.mount(&brick("b", 2, 32)).await.unwrap();
    let status = bricks.pool_status().await;
    assert_eq!((status[0].promised, status[0].bricks, status[0].is_low), (capacity - 32, 2, false));
    for (brick, epoch) in [("a", 1), ("b", 2)] {
        bricks.release(&name(brick), epoch).await.unwrap();
    }
}

#[tokio::test]
async fn below_the_reserve_nothing_is_made_or_grown_but_what_exists_goes_on() {
    let world = World::new();
    let bricks = world.open().await;
    bricks.mount(&brick("db", 1, 32)).await.unwrap();
    bricks.release(&name("db"), 1).await.unwrap();
    drop(bricks);
    let bricks = Bricks::open(Settings { reserve: 1 << 40, overcommit: 1e6, ..world.settings() }).await.unwrap();
    let error = text(bricks.mount(&brick("new", 1, 32)).await);
    assert!(error.contains("stay in reserve: free some space, or lower the reserve"), "{error}");
    assert!(text(bricks.mount(&brick("db", 2, 64)).await).contains("stay in reserve"));
    bricks.mount(&brick("db", 2, 32)).await.unwrap();
    assert!(bricks.pool_status().await[0].is_low);
    bricks.release(&name("db"), 2).await.unwrap();
}

#[tokio::test]
async fn names_and_sizes_that_make_no_sense_are_refused() {
    let world = World::new();
    let bricks = world.open().await;
    for bad in ["../x", "a/b", ".locks", "", "x\ny"] {
        assert!(text(bricks.mount(&brick(bad, 1, 32)).await).contains("is no name of a brick"), "{bad:?}");
        assert!(text(bricks.release(&name(bad), 1).await).contains("is no name of a brick"), "{bad:?}");
        assert!(text(bricks.destroy(&name(bad), &PoolName::new("datapool")).await).contains("is no name of a brick"), "{bad:?}");
    }
    let in_pool = |pool: &str| BrickMount { pool: PoolName::new(pool), ..brick("db", 1, 32) };
    assert!(text(bricks.mount(&in_pool("../pools/datapool")).await).contains("is no name of a pool"));
    assert!(text(bricks.mount(&in_pool("fast")).await).contains("there is no pool 'fast' on this machine, only datapool"));
    assert!(text(bricks.mount(&brick("db", 1, 15)).await).contains("has at least 16 MiB"));
    assert!(text(bricks.mount(&xfs("db", 1, 299)).await).contains("has at least 300 MiB"));
    assert!(text(bricks.mount(&brick("db", 1, u64::MAX)).await).contains("are too much"));
    assert!(text(bricks.mount(&brick("db", 1, u64::MAX >> 22)).await).contains("may promise"));
    assert!(bricks.mounted().await.is_empty());
    // A second pool is a directory.
    fs::create_dir(world.directory.join("pools/fast")).unwrap();
    bricks.mount(&in_pool("fast")).await.unwrap();
    bricks.release(&name("db"), 1).await.unwrap();
    assert_eq!(text(bricks.mount(&brick("db", 2, 32)).await), "brick 'db' is in pool 'fast', not in 'datapool'");
}

#[tokio::test]
async fn a_deleted_brick_begins_anew() {
    let world = World::new();
    let bricks = world.open().await;
    let pool = PoolName::new("datapool");
    let data = bricks.mount(&brick("db", 5, 32)).await.unwrap();
    fs::write(data.join("row"), "old").unwrap();
    assert!(text(bricks.destroy(&name("db"), &pool).await).contains("still in use: mounted at"));
    bricks.release(&name("db"), 5).await.unwrap();
    bricks.destroy(&name("db"), &pool).await.unwrap();
    bricks.destroy(&name("db"), &pool).await.unwrap();
    assert_eq!(fs::read_dir(world.directory.join("pools/datapool")).unwrap().count(), 0);
    assert!(!world.target("db").exists());
    let data = bricks.mount(&brick("db", 1, 32)).await.unwrap();
    assert!(!data.join("row").exists());
    bricks.release(&name("db"), 1).await.unwrap();
}

#[tokio::test]
async fn data_that_should_be_there_is_not_replaced_by_an_empty_brick() {
    let world = World::new();
    let bricks = world.open().await;
    bricks.mount(&brick("db", 1, 32)).await.unwrap();
    bricks.release(&name("db"), 1).await.unwrap();
    fs::remove_file(world.image("db")).unwrap();
    let error = text(bricks.mount(&brick("db", 2, 32)).await);
    assert!(error.contains("the data of brick 'db' is missing") && error.contains("Is the pool's disk mounted?"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_bricks_at_once_get_a_device_each() {
    let world = World::new();
    let bricks = std::sync::Arc::new(world.open().await);
    let tasks: Vec<_> = (0..12)
        .map(|index| {
            let bricks = bricks.clone();
            // Two tasks for each brick: the same lease twice is one mount.
            tokio::spawn(async move { bricks.mount(&brick(&format!("db{}", index / 2), 1, 32)).await.unwrap() })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(bricks.mounted().await.len(), 6);
    for index in 0..6 {
        let brick = format!("db{index}");
        assert_eq!(world.state(&brick), (1, 1));
        bricks.release(&name(&brick), 1).await.unwrap();
        assert!(world.is_free(&brick));
    }
}
