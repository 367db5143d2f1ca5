//! Never two holders: whatever keeps a brick keeps everybody else away, and is named.

use super::*;
use crate::brick::loop_device::LoopDevice;

#[tokio::test]
async fn a_container_that_lives_keeps_its_brick_until_it_ends() {
    for make in [brick, xfs] {
        let mut world = World::alone();
        let bricks = world.open().await;
        let data = bricks.mount(&make("db", 1, 300)).await.unwrap();
        let pid = world.contain(&format!("exec 3>'{}/file'; echo before >&3", data.display()), "read line; echo after >&3");

        let error = text(bricks.release(&name("db"), 1).await);
        assert_eq!(error, format!("brick 'db' is still in use: process {pid} (sh)"));
        assert_eq!(world.state("db"), (1, 0), "the unmount has worked, and has proved nothing");
        // Neither the same lease nor a later one gets it.
        assert!(text(bricks.mount(&make("db", 1, 300)).await).contains("is over: lease 1 was seen"));
        assert!(text(bricks.mount(&make("db", 2, 300)).await).contains(&format!("process {pid} (sh)")));
        assert!(text(bricks.destroy(&name("db"), &PoolName::new("datapool")).await).contains("still in use"));

        // It can still write, and what it writes is there afterwards.
        let mut child = world.children.remove(0);
        child.stdin.take().unwrap().write_all(b"\n").unwrap();
        child.wait().unwrap();
        bricks.release(&name("db"), 1).await.unwrap();
        assert!(world.is_free("db"));
        let data = bricks.mount(&make("db", 3, 300)).await.unwrap();
        assert_eq!(fs::read_to_string(data.join("file")).unwrap(), "before\nafter\n");
        bricks.release(&name("db"), 3).await.unwrap();
    }
}

#[tokio::test]
async fn a_stopped_container_keeps_its_brick() {
    let mut world = World::alone();
    let bricks = world.open().await;
    bricks.mount(&brick("db", 1, 32)).await.unwrap();
    let pid = world.contain(":", "kill -STOP $$; read line");
    assert!(text(bricks.release(&name("db"), 1).await).contains(&format!("process {pid} (sh)")));
    assert!(text(bricks.mount(&brick("db", 2, 32)).await).contains("still in use"));
    world.end(pid);
    bricks.release(&name("db"), 1).await.unwrap();
    bricks.mount(&brick("db", 2, 32)).await.unwrap();
    bricks.release(&name("db"), 2).await.unwrap();
}

#[tokio::test]
async fn a_container_outlives_the_server_and_the_next_server_finds_it() {
    let mut world = World::alone();
    let bricks = world.open().await;
    bricks.mount(&brick("db", 4, 32)).await.unwrap();
    let pid = world.contain(":", "read line");
    drop(bricks);

    let bricks = world.open().await;
    let mounted = bricks.mounted().await;
    assert_eq!((mounted.len(), &mounted[0].0, mounted[0].1), (1, &name("db"), 4));
    let data = bricks.mount(&brick("db", 4, 32)).await.unwrap();
    assert!(data.is_dir());
    assert_eq!(world.state("db"), (1, 1), "adopted, not mounted a second time");
    assert!(text(bricks.release(&name("db"), 4).await).contains(&format!("process {pid} (sh)")));
    drop(bricks);

    // The unmount happened, its answer was lost, and the container lives on.
    let bricks = world.open().await;
    assert!(bricks.mounted().await.is_empty());
    assert!(text(bricks.mount(&brick("db", 5, 32)).await).contains(&format!("process {pid} (sh)")));
    world.end(pid);
    bricks.mount(&brick("db", 5, 32)).await.unwrap();
    bricks.release(&name("db"), 5).await.unwrap();
}

#[tokio::test]
async fn a_file_open_on_the_host_keeps_the_brick_and_is_named() {
    let mut world = World::new();
    let bricks = world.open().await;
    let data = bricks.mount(&brick("db", 1, 32)).await.unwrap();
    let child = Command::new("sleep").arg("1000").current_dir(&data).spawn().unwrap();
    let pid = child.id();
    world.children.push(child);
    let error = text(bricks.release(&name("db"), 1).await);
    assert_eq!(error, format!("brick 'db' is still in use: process {pid} (sleep)"));
    assert_eq!(world.state("db"), (1, 1));
    world.end(pid);
    bricks.release(&name("db"), 1).await.unwrap();
}

#[tokio::test]
async fn where_mounts_are_shared_an_unmount_reaches_the_copies() {
    let mut world = World::alone();
    // As on a machine with systemd, where everything is shared.
    rustix::mount::mount_bind(&world.directory, &world.directory).unwrap();
    rustix::mount::mount_change(&world.directory, rustix::mount::MountPropagationFlags::SHARED).unwrap();
    let bricks = world.open().await;
    bricks.mount(&brick("old", 1, 32)).await.unwrap();
    world.contain_with("slave", ":", "read line");
    bricks.mount(&brick("new", 1, 32)).await.unwrap();
    for brick in ["old", "new"] {
        bricks.release(&name(brick), 1).await.unwrap();
        assert!(world.is_free(brick));
    }
}

#[tokio::test]
async fn a_second_mount_of_the_device_keeps_the_brick() {
    let world = World::new();
    let bricks = world.open().await;
    bricks.mount(&brick("db", 1, 32)).await.unwrap();
    let other = world.directory.join("elsewhere");
    fs::create_dir(&other).unwrap();
    rustix::mount::mount_bind(world.target("db"), &other).unwrap();
    let error = text(bricks.release(&name("db"), 1).await);
    assert_eq!(error, format!("brick 'db' is still in use: a mount at {}", other.display()));
    rustix::mount::unmount(&other, UnmountFlags::empty()).unwrap();
    bricks.release(&name("db"), 1).await.unwrap();
}

#[tokio::test]
async fn one_work_directory_has_one_server() {
    let world = World::new();
    let bricks = world.open().await;
    let error = text(Bricks::open(world.settings()).await);
    assert!(error.contains("belong to another server, process") && error.contains("stop it first"), "{error}");
    drop(bricks);
    world.open().await;
}

#[tokio::test]
async fn an_image_is_bound_to_one_device() {
    let world = World::new();
    let bricks = world.open().await;
    bricks.mount(&brick("db", 1, 32)).await.unwrap();
    assert!(LoopDevice::bind(&world.image("db")).unwrap().is_none());
    // Not even under another name, nor after the server is gone: the kernel has the lock.
    let alias = world.directory.join("alias");
    fs::hard_link(world.image("db"), &alias).unwrap();
    drop(bricks);
    assert!(!loop_device::is_free(&alias).unwrap());
    assert!(LoopDevice::bind(&alias).unwrap().is_none());
    let bricks = world.open().await;
    bricks.release(&name("db"), 1).await.unwrap();
    assert!(loop_device::is_free(&alias).unwrap());
}

#[tokio::test]
async fn what_others_bound_or_locked_is_respected_or_taken_back() {
    let world = World::alone();
    let bricks = world.open().await;
    bricks.mount(&brick("db", 1, 32)).await.unwrap();
    bricks.release(&name("db"), 1).await.unwrap();

    // A forgotten losetup, which nothing uses.
    assert!(Command::new("losetup").arg("--find").arg(world.image("db")).status().unwrap().success());
    assert_eq!(world.state("db"), (1, 0));
    bricks.mount(&brick("db", 2, 32)).await.unwrap();
    assert_eq!(world.state("db"), (1, 1));
    bricks.release(&name("db"), 2).await.unwrap();

    // The device is open in a process.
    assert!(Command::new("losetup").arg("--find").arg(world.image("db")).status().unwrap().success());
    let number = loop_device::bound_to(&world.image("db")).unwrap()[0];
    let mut world = world;
    let pid = world.contain(&format!("exec 3<{}", loop_device::path(number).display()), "read line");
    assert_eq!(text(bricks.mount(&brick("db", 3, 32)).await), format!("brick 'db' is still in use: process {pid} (sh)"));
    world.end(pid);
    bricks.mount(&brick("db", 3, 32)).await.unwrap();
    bricks.release(&name("db"), 3).await.unwrap();

    // The image is locked by another program.
    let file = File::open(world.image("db")).unwrap();
    file.lock().unwrap();
    assert!(text(bricks.mount(&brick("db", 4, 32)).await).contains("still in use"));
    drop(file);
    bricks.mount(&brick("db", 4, 32)).await.unwrap();
    bricks.release(&name("db"), 4).await.unwrap();
}

#[tokio::test]
async fn a_mount_whose_image_was_removed_is_released_too() {
    let mut world = World::alone();
    let bricks = world.open().await;
    bricks.mount(&brick("db", 1, 32)).await.unwrap();
    let pid = world.contain(":", "read line");
    fs::remove_file(world.image("db")).unwrap();
    assert!(text(bricks.release(&name("db"), 1).await).contains(&format!("process {pid} (sh)")));
    world.end(pid);
    bricks.release(&name("db"), 1).await.unwrap();
}
