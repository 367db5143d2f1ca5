//! One file out, one file in.

use std::{
    os::unix::fs::{MetadataExt, PermissionsExt},
    sync::atomic::{AtomicBool, Ordering},
};

use super::*;
use crate::brick::{
    BrickError, backup,
    backup::{Backup, Restore, Summary, Watch, freeze::Frozen},
    spool::{Spool, SpoolError, Spooled},
};

/// Stops after so many steps of progress.
struct Patience {
    steps: usize,
    is_over: AtomicBool,
}

impl Watch for Patience {
    fn progress(&mut self, _: u64, _: u64) {
        self.steps = self.steps.saturating_sub(1);
        self.is_over.store(self.steps == 0, Ordering::Relaxed);
    }

    fn is_stopped(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }
}

fn patient() -> Patience {
    Patience { steps: usize::MAX, is_over: AtomicBool::new(false) }
}

impl World {
    fn backup(&self, brick: &str) -> Backup {
        let file = self.directory.join("backup");
        Backup { work_dir: self.directory.clone(), brick: name(brick), file, freeze: false, force: false }
    }

    fn restore(&self, brick: &str) -> Restore {
        Restore { work_dir: self.directory.clone(), brick: name(brick), file: self.directory.join("backup"), pool: None }
    }
}

fn run(backup: &Backup) -> Result<Summary, BrickError> {
    backup.run(&mut patient())
}

fn put_back(restore: &Restore) -> Result<Summary, BrickError> {
    restore.run(&mut patient())
}

#[tokio::test]
async fn a_backup_brings_the_data_back_with_and_without_a_server() {
    for make in [brick, xfs] {
        let world = World::new();
        let bricks = world.open().await;
        let data = bricks.mount(&make("db", 1, 300)).await.unwrap();
        let noise: Vec<u8> = (0..3_000_000_u32).flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        fs::write(data.join("rows"), &noise).unwrap();
        let error = text(run(&world.backup("db")));
        assert!(error.contains("is mounted: stop its service first, or let the service stand still"), "{error}");
        bricks.release(&name("db"), 1).await.unwrap();

        // The server runs, the service does not.
        let summary = run(&world.backup("db")).unwrap();
        let file = fs::metadata(world.directory.join("backup")).unwrap();
        assert_eq!(file.permissions().mode() & 0o777, 0o600);
        assert!(file.len() < 90 * MIB && summary.data >= 12_000_000, "{} of {}", file.len(), summary.data);
        assert!(text(run(&world.backup("db"))).contains("exists: choose another name, or replace it with --force"));
        run(&Backup { force: true, ..world.backup("db") }).unwrap();

        let data = bricks.mount(&make("db", 2, 300)).await.unwrap();
        fs::write(data.join("rows"), "spoilt").unwrap();
        assert!(text(put_back(&world.restore("db"))).contains("is mounted: stop its service first"));
        bricks.release(&name("db"), 2).await.unwrap();
        drop(bricks);

        // No server runs.
        assert_eq!(put_back(&world.restore("db")).unwrap().header.brick, name("db"));
        let bricks = world.open().await;
        let data = bricks.mount(&make("db", 3, 300)).await.unwrap();
        assert_eq!(fs::read(data.join("rows")).unwrap(), noise);
        assert!(fs::metadata(world.image("db")).unwrap().blocks() * 512 < 90 * MIB, "holes stay holes");

        // As another brick, while the first is mounted; its image is larger.
        put_back(&world.restore("copy")).unwrap();
        let copy = bricks.mount(&make("copy", 1, 512)).await.unwrap();
        assert_eq!(fs::read(copy.join("rows")).unwrap(), noise);
        assert!(span(&copy) > 400);
        for (brick, epoch) in [("db", 3), ("copy", 1)] {
            bricks.release(&name(brick), epoch).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_service_that_stands_still_is_backed_up_while_it_is_mounted() {
    for make in [brick, xfs] {
        let world = World::new();
        let bricks = world.open().await;
        let data = bricks.mount(&make("db", 1, 300)).await.unwrap();
        fs::write(data.join("row"), "before").unwrap();
        let frozen = Backup { freeze: true, ..world.backup("db") };
        let inside = Backup { file: data.join("backup"), ..frozen.clone() };
        assert!(text(run(&inside)).contains("is on the brick itself"));
        assert!(run(&frozen).unwrap().header.frozen);
        fs::write(data.join("row"), "after").unwrap();

        // Stopped in the middle: nothing is left, and the service goes on.
        fs::remove_file(world.directory.join("backup")).unwrap();
        let error = text(frozen.run(&mut Patience { steps: 2, ..patient() }));
        assert_eq!(error, "stopped; nothing has changed");
        fs::write(data.join("row"), "after").unwrap();
        let left: Vec<_> = fs::read_dir(&world.directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(left.iter().all(|file| file == "pools" || file == "bricks"), "{left:?}");

        run(&frozen).unwrap();
        bricks.release(&name("db"), 1).await.unwrap();
        bricks.destroy(&name("db"), &PoolName::new("datapool")).await.unwrap();
        put_back(&world.restore("db")).unwrap();
        let data = bricks.mount(&make("db", 1, 300)).await.unwrap();
        assert_eq!(fs::read_to_string(data.join("row")).unwrap(), "after");
        bricks.release(&name("db"), 1).await.unwrap();
    }
}

#[tokio::test]
async fn a_frozen_service_goes_on_when_whoever_froze_it_is_killed() {
    let world = World::new();
    let bricks = world.open().await;
    let data = bricks.mount(&brick("db", 1, 32)).await.unwrap();
    let frozen = Frozen::begin(&world.target("db")).unwrap();
    assert!(text(Frozen::begin(&world.target("db"))).contains("is frozen already"));
    // Its process is gone, without a word to the helper.
    frozen.lose();
    fs::write(data.join("row"), "goes on").unwrap();
    Frozen::begin(&world.target("db")).unwrap().end().unwrap();
    fs::write(data.join("row"), "goes on").unwrap();
    bricks.release(&name("db"), 1).await.unwrap();
}

#[tokio::test]
async fn backup_and_server_wait_for_each_other() {
    let world = World::new();
    let bricks = world.open().await;
    bricks.mount(&brick("db", 1, 32)).await.unwrap();
    bricks.release(&name("db"), 1).await.unwrap();
    let lock = super::super::local::Local::at(world.settings()).unwrap().lock(&name("db"), "backup", std::time::Duration::ZERO).unwrap();
    let error = text(bricks.mount(&brick("db", 2, 32)).await);
    assert_eq!(error, format!("brick 'db' is still in use: backup, process {}", std::process::id()));
    drop(lock);
    bricks.mount(&brick("db", 2, 32)).await.unwrap();
    bricks.release(&name("db"), 2).await.unwrap();
}

#[tokio::test]
async fn a_restore_that_fails_leaves_the_old_data() {
    let world = World::new();
    let bricks = world.open().await;
    let data = bricks.mount(&brick("db", 1, 64)).await.unwrap();
    fs::write(data.join("row"), vec![b'x'; 2_000_000]).unwrap();
    bricks.release(&name("db"), 1).await.unwrap();
    run(&world.backup("db")).unwrap();
    let good = fs::read(world.directory.join("backup")).unwrap();

    let check = |contents: &[u8], expected: &str| {
        fs::write(world.directory.join("backup"), contents).unwrap();
        let error = text(put_back(&world.restore("db")));
        assert!(error.contains(expected), "{error}");
    };
    check(b"something else", "it is no backup of a brick");
    check(&good[..good.len() / 2], "it ends too early");
    let mut damaged = good.clone();
    damaged[good.len() / 2] ^= 1;
    check(&damaged, "its checksum is wrong");
    fs::write(world.directory.join("backup"), &good).unwrap();
    assert_eq!(backup::verify(&world.directory.join("backup"), &mut patient()).unwrap().header.size, 64 * MIB);

    // Stopped while it writes.
    let steps = usize::try_from(backup::verify(&world.directory.join("backup"), &mut patient()).unwrap().data / (256 * 1024)).unwrap();
    let error = text(world.restore("db").run(&mut Patience { steps: steps + 4, ..patient() }));
    assert_eq!(error, "stopped; nothing has changed");

    // Into a smaller one, an unknown one, an unknown pool.
    bricks.mount(&brick("small", 1, 32)).await.unwrap();
    bricks.release(&name("small"), 1).await.unwrap();
    assert!(text(put_back(&world.restore("small"))).contains("has 32 MiB, the backup needs 64"));
    assert!(text(put_back(&Restore { pool: Some(PoolName::new("fast")), ..world.restore("new") })).contains("there is no pool 'fast'"));
    assert!(text(put_back(&world.restore("../x"))).contains("is no name of a brick"));
    assert!(text(run(&Backup { force: true, ..world.backup("dc") })).contains("there is no brick 'dc' on this machine; there are "));
    assert!(text(run(&Backup { work_dir: "/nowhere".into(), ..world.backup("db") })).contains("there are no bricks in /nowhere"));

    let data = bricks.mount(&brick("db", 2, 64)).await.unwrap();
    assert_eq!(fs::read(data.join("row")).unwrap().len(), 2_000_000);
    bricks.release(&name("db"), 2).await.unwrap();
    let left = fs::read_dir(world.directory.join("pools/datapool")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert!(left.into_iter().all(|file| !file.starts_with('.')));
}

#[tokio::test]
async fn a_container_that_lives_on_keeps_a_restore_away() {
    let mut world = World::alone();
    let bricks = world.open().await;
    bricks.mount(&brick("db", 1, 32)).await.unwrap();
    let pid = world.contain(":", "read line");
    bricks.release(&name("db"), 1).await.unwrap_err();
    fs::write(world.directory.join("backup"), "").unwrap();
    assert!(text(run(&Backup { force: true, ..world.backup("db") })).contains(&format!("process {pid} (sh)")));
    world.end(pid);
    run(&Backup { force: true, ..world.backup("db") }).unwrap();
    let pid = world.contain(":", "read line");
    put_back(&world.restore("db")).unwrap();
    world.end(pid);
}

#[tokio::test]
async fn a_backup_goes_over_the_network_by_way_of_the_spool() {
    let world = World::new();
    let bricks = world.open().await;
    let spool = Spool::open(&world.directory, 64).unwrap();
    let go_on = || false;
    let data = bricks.mount(&brick("db", 1, 300)).await.unwrap();
    fs::write(data.join("row"), "kept").unwrap();
    assert!(matches!(spool.back_up(&name("db"), false, &go_on), Err(SpoolError::Brick(BrickError::Refused(_)))));
    let mut out = spool.back_up(&name("db"), true, &go_on).unwrap();
    fs::write(data.join("row"), "spoilt").unwrap();
    bricks.release(&name("db"), 1).await.unwrap();

    let whole = out.read(0, 100 << 20).unwrap();
    assert_eq!(whole.len() as u64, out.length().unwrap());
    let take = |bytes: &[u8]| -> Spooled {
        let mut spooled = spool.create().unwrap();
        bytes.chunks(1 << 20).for_each(|piece| spooled.write(piece).unwrap());
        spooled
    };
    let damaged = |bytes: &[u8]| match spool.restore(&name("db"), &take(bytes), &go_on) {
        Err(SpoolError::Damaged(reason)) => reason,
        other => panic!("{other:?}"),
    };
    assert!(damaged(&whole[..whole.len() / 2]).starts_with("the backup cannot be restored: "));
    assert!(damaged(b"no backup at all").starts_with("the backup cannot be restored: "));
    assert!(matches!(spool.restore(&name("db"), &take(&whole), &|| true), Err(SpoolError::Brick(BrickError::Refused(_)))));
    drop(out);
    let (kept, tight) = (take(&whole), Spool::open(&world.directory, 1 << 40).unwrap());
    drop(kept);
    assert!(matches!(tight.back_up(&name("db"), false, &go_on), Err(SpoolError::NoRoom { .. })));
    // After all that the data is as it was.
    let data = bricks.mount(&brick("db", 2, 300)).await.unwrap();
    assert_eq!(fs::read_to_string(data.join("row")).unwrap(), "spoilt");
    bricks.release(&name("db"), 2).await.unwrap();

    spool.restore(&name("db"), &take(&whole), &go_on).unwrap();
    let data = bricks.mount(&brick("db", 3, 300)).await.unwrap();
    assert_eq!(fs::read_to_string(data.join("row")).unwrap(), "kept");
    bricks.release(&name("db"), 3).await.unwrap();
}
