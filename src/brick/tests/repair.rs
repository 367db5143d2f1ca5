//! Crashes and damage.

use super::*;
use crate::brick::{file_system, loop_device::LoopDevice};

/// Files are written while the image is copied from below the mount: such a copy is what a power failure leaves.
async fn crash_image(world: &World, bricks: &Bricks, make: fn(&str, u64, u64) -> BrickMount) -> PathBuf {
    let data = bricks.mount(&make("db", 1, 300)).await.unwrap();
    for index in 0..50 {
        fs::write(data.join(format!("file{index}")), index.to_string()).unwrap();
    }
    rustix::fs::syncfs(File::open(&data).unwrap()).unwrap();
    fs::remove_file(data.join("file7")).unwrap();
    let copy = world.directory.join("copy");
    assert!(Command::new("cp").arg("--sparse=always").arg(world.image("db")).arg(&copy).status().unwrap().success());
    bricks.release(&name("db"), 1).await.unwrap();
    copy
}

#[tokio::test]
async fn a_file_system_that_was_not_unmounted_is_repaired_before_it_is_used() {
    for make in [brick, xfs] {
        let world = World::new();
        let bricks = world.open().await;
        let copy = crash_image(&world, &bricks, make).await;
        fs::rename(&copy, world.image("db")).unwrap();
        let data = bricks.mount(&make("db", 2, 300)).await.unwrap();
        assert_eq!(fs::read_to_string(data.join("file49")).unwrap(), "49");
        bricks.release(&name("db"), 2).await.unwrap();
    }
}

#[tokio::test]
async fn a_superblock_that_is_gone_is_refused_in_clear_words() {
    let world = World::new();
    let bricks = world.open().await;
    bricks.mount(&brick("db", 1, 300)).await.unwrap();
    bricks.release(&name("db"), 1).await.unwrap();
    write_at(&world.image("db"), 1024, &[0xAB; 1024]);
    let error = text(bricks.mount(&brick("db", 2, 300)).await);
    assert!(error.contains("the file system of brick 'db' is damaged and is not mounted"), "{error}");
    assert!(error.contains("e2fsck -f") && error.contains("xtao brick restore db FILE") && error.contains("db.img"), "{error}");
    assert!(world.is_free("db"), "nothing stays bound");
    // Doing as the text says works: the copies of the superblock are still there.
    let fsck =
        Command::new("e2fsck").args(["-f", "-y"]).arg(world.image("db")).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
    assert!(matches!(fsck.code(), Some(0..=3)), "{fsck}");
    bricks.mount(&brick("db", 3, 300)).await.unwrap();
    bricks.release(&name("db"), 3).await.unwrap();
}

#[tokio::test]
async fn damage_that_is_not_safely_repaired_is_left_to_a_person() {
    let world = World::new();
    let bricks = world.open().await;
    let data = bricks.mount(&brick("db", 1, 32)).await.unwrap();
    fs::write(data.join("row"), "x").unwrap();
    bricks.release(&name("db"), 1).await.unwrap();
    // The root directory's inode becomes a plain file, and the file system is marked as having errors.
    let debugfs = |command: &str| {
        let done = Command::new("debugfs").args(["-w", "-R", command]).arg(world.image("db")).output().unwrap();
        assert!(done.status.success(), "{done:?}");
    };
    debugfs("set_inode_field <2> mode 0100644");
    debugfs("set_super_value state 2");
    let error = text(bricks.mount(&brick("db", 2, 32)).await);
    assert!(error.contains("is damaged and is not mounted"), "{error}");
    assert!(world.is_free("db"));
}

#[tokio::test]
async fn a_damaged_xfs_is_repaired_from_its_copies() {
    let world = World::new();
    let bricks = world.open().await;
    let data = bricks.mount(&xfs("db", 1, 300)).await.unwrap();
    fs::write(data.join("row"), "kept").unwrap();
    bricks.release(&name("db"), 1).await.unwrap();
    write_at(&world.image("db"), 0, &[0xAB; 512]);
    let data = bricks.mount(&xfs("db", 2, 300)).await.unwrap();
    assert_eq!(fs::read_to_string(data.join("row")).unwrap(), "kept");
    bricks.release(&name("db"), 2).await.unwrap();
}

#[tokio::test]
async fn a_crash_between_any_two_steps_is_made_up_for() {
    let world = World::new();
    let bricks = world.open().await;
    // While the image was being made.
    let draft = world.directory.join("pools/datapool/.db.img.new");
    File::create(&draft).unwrap().set_len(32 * MIB).unwrap();
    drop(bricks);
    let bricks = world.open().await;
    assert!(!draft.exists());

    // Between lease and image, between image and device.
    Lease { held: 1, released: 0 }.write(&world.directory.join("pools/datapool/db.epoch")).unwrap();
    bricks.mount(&brick("db", 1, 32)).await.unwrap();
    bricks.release(&name("db"), 1).await.unwrap();

    // Between device and mount: the device goes with the process that held it, or is found unused.
    let device = LoopDevice::bind(&world.image("db")).unwrap().unwrap();
    assert_eq!(world.state("db"), (1, 0));
    drop(device);
    assert!(world.is_free("db"));

    // Between mount and the rest.
    let device = LoopDevice::bind(&world.image("db")).unwrap().unwrap();
    file_system::mount(FileSystem::Ext4, &device.path(), &world.target("db"), &name("db"), &world.image("db")).unwrap();
    fs::remove_dir(world.target("db").join("data")).unwrap();
    drop(device);
    Lease { held: 2, released: 1 }.write(&world.directory.join("pools/datapool/db.epoch")).unwrap();
    assert_eq!(world.state("db"), (1, 1));
    assert!(bricks.mount(&brick("db", 2, 32)).await.unwrap().is_dir());

    // Between the word that the lease is over and the unmount.
    Lease { held: 2, released: 2 }.write(&world.directory.join("pools/datapool/db.epoch")).unwrap();
    drop(bricks);
    let bricks = world.open().await;
    assert!(text(bricks.mount(&brick("db", 2, 32)).await).contains("is over"));
    bricks.release(&name("db"), 2).await.unwrap();
    assert!(world.is_free("db"));

    // In the middle of deleting.
    assert!(Command::new("chattr").arg("-i").arg(world.target("db")).status().unwrap().success());
    fs::remove_dir(world.target("db")).unwrap();
    bricks.destroy(&name("db"), &PoolName::new("datapool")).await.unwrap();
    assert!(!world.image("db").exists());
}

#[tokio::test]
async fn mounts_on_top_of_each_other_are_all_removed() {
    let world = World::new();
    let bricks = world.open().await;
    bricks.mount(&brick("db", 1, 32)).await.unwrap();
    rustix::mount::mount_bind(world.target("db"), world.target("db")).unwrap();
    assert_eq!(world.state("db"), (1, 2));
    bricks.mount(&brick("db", 1, 32)).await.unwrap();
    assert_eq!(world.state("db"), (1, 1));
    bricks.release(&name("db"), 1).await.unwrap();
    assert!(world.is_free("db"));
}
