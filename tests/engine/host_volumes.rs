//! Host volumes of ordinary users: whatever their containers do there, it is their account that did it.

use std::{
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::{Path, PathBuf},
};

use xtao::model::{app::Mode, cluster::TaskState};

use crate::support::{
    docker::{Daemon, Options},
    rig::{Rig, Wanted, command, volume, volume_with},
};

/// An account that every machine has, with its number and that of its group.
const ACCOUNT: &str = "daemon";
const ID: u32 = 1;
/// Where its range begins, when the node gives it none.
const RANGE: u32 = (1 << 31) + 65_536 * ID;
/// The user and group that an administrator gives things to for everybody's containers.
const COMMON: u32 = (1 << 31) - 1;

/// Directories and files for a test, made by root.
struct Place<'a>(&'a Daemon);

impl<'a> Place<'a> {
    fn new(daemon: &'a Daemon) -> Self {
        // The account has to get there.
        std::fs::set_permissions(daemon.path(""), PermissionsExt::from_mode(0o755)).unwrap();
        std::fs::create_dir_all(daemon.path("shared")).unwrap();
        Self(daemon)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path("shared").join(name)
    }

    fn directory(&self, name: &str, owner: u32, mode: u32) -> String {
        std::fs::create_dir(self.at(name)).unwrap();
        self.give(name, owner, owner, mode)
    }

    fn file(&self, name: &str, owner: u32, group: u32, mode: u32) -> String {
        std::fs::write(self.at(name), format!("this is {name}\n")).unwrap();
        self.give(name, owner, group, mode)
    }

    fn give(&self, name: &str, owner: u32, group: u32, mode: u32) -> String {
        chown(self.at(name), Some(owner), Some(group)).unwrap();
        std::fs::set_permissions(self.at(name), PermissionsExt::from_mode(mode)).unwrap();
        self.at(name).to_string_lossy().into_owned()
    }

    /// Owner, group and mode.
    fn look(&self, name: &str) -> (u32, u32, u32) {
        let found = std::fs::symlink_metadata(self.at(name)).unwrap();
        (found.uid(), found.gid(), found.mode() & 0o7777)
    }

    fn mounts(&self) -> Vec<PathBuf> {
        let volumes = self.0.path("work/volumes");
        xtao::brick::mounts::table().unwrap().into_iter().map(|mount| mount.target).filter(|target| target.starts_with(&volumes)).collect()
    }
}

/// What it wrote when it ended well.
async fn output(rig: &mut Rig, wanted: Wanted) -> String {
    let task = rig.launch(wanted).await;
    rig.status(&task, TaskState::Finished).await;
    rig.removed(&task).await;
    rig.output(&task, "stdout")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_user_s_container_leaves_is_the_account_s() {
    let daemon = Daemon::start(Options::default());
    let place = Place::new(&daemon);
    let own = place.directory("own", ID, 0o755);
    let shown = place.directory("shown", 0, 0o755);
    place.directory("own/closed", 0, 0o700);
    place.file("own/secret", 0, 0, 0o600);
    place.file("own/open", 0, 0, 0o666);
    place.file("own/team", 0, ID, 0o640);
    place.file("shown/secret", 0, 0, 0o600);
    let single = place.file("single", ID, ID, 0o600);
    let mut rig = Rig::start(&daemon).await;

    let tries = [
        "busybox cat /v/secret",
        "busybox ls /v/closed",
        "busybox touch /v/closed/x",
        "echo x > /v/open",
        "busybox mv /v/open /v/moved",
        "busybox rm -f /v/secret",
        "busybox ln /v/secret /v/link",
        "busybox chown 0:0 /v/secret",
        "busybox chown 0 /v/secret",
        "busybox chown :0 /v/secret",
        "busybox chown 0:0 /v/team",
        "busybox chown 26 /v/file",
        "busybox chmod 666 /v/secret",
        "busybox mknod /v/disk b 8 0",
        "busybox mknod /v/null c 1 3",
        "busybox cat /r/secret",
        "busybox touch /r/x",
        "busybox mount -o remount,bind,rw,suid,dev /v",
    ];
    let attempts: String = tries.iter().map(|command| format!("{command} > /dev/null 2>&1 && echo \"got: {command}\"; ")).collect();
    let cmd = format!(
        "echo mine > /v/file; busybox cp /bin/busybox /v/id; busybox chmod 4755 /v/id; busybox chmod 777 /v; busybox su -s /bin/sh guest -c 'touch /v/other'; \
         cat /v/open /v/team /f; echo more >> /f; {attempts} \
         busybox grep -oE ' /(v|r|f) [a-z,]*' /proc/self/mountinfo | busybox sort; busybox stat -c '%n %u:%g' /v/file /v/secret"
    );
    let wanted = volume_with(volume(volume(command("/tries", &cmd), &own, "/v"), &single, "/f"), &shown, "/r", Mode::Ro);
    let written = output(&mut rig, wanted.account(ACCOUNT)).await;
    let mounts = " /f rw,nosuid,nodev,idmapped\n /r ro,idmapped\n /v rw,nosuid,nodev,idmapped\n";
    let expected = format!("this is own/open\nthis is own/team\nthis is single\n{mounts}/v/file 0:0\n/v/secret 65534:65534\n");
    assert_eq!(written.replace(",relatime", "").replace(",noatime", ""), expected);
    assert_eq!(place.look("own/file"), (ID, ID, 0o644));
    assert_eq!(place.look("own/id"), (ID, ID, 0o4755));
    assert_eq!(place.look("own/other"), (RANGE + 1000, RANGE + 1000, 0o644));
    assert_eq!(place.look("own/secret"), (0, 0, 0o600));
    assert_eq!(std::fs::read_to_string(place.at("own/open")).unwrap(), "this is own/open\n");
    assert_eq!(std::fs::read_to_string(&single).unwrap(), "this is single\nmore\n");
    let mut left: Vec<_> = std::fs::read_dir(&own).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    left.sort();
    assert_eq!(left, ["closed", "file", "id", "open", "other", "secret", "team"]);

    // Another container of the user's sees the same, and has what the first one's other users left. Its own program is no way to be root either.
    let cmd = "busybox stat -c '%n %u:%g' /v/file /v/other; cat /v/file; rm /v/other; busybox su -s /bin/sh guest -c '/v/id -u'";
    let second = output(&mut rig, volume(command("/second", cmd), &own, "/v").account(ACCOUNT)).await;
    assert_eq!(second, "/v/file 0:0\n/v/other 1000:1000\nmine\n1000\n");
    // A service that runs as a number from the beginning is the account as that, its groups included; root is nobody then.
    let mut numbered = volume(command("/numbered", "busybox id -u; cat /v/team; echo 26 > /v/numbered"), &own, "/v").account(ACCOUNT);
    numbered.app().user = Some("26".to_owned());
    assert_eq!(output(&mut rig, numbered).await, "26\nthis is own/team\n");
    assert_eq!((place.look("own/numbered").0, place.look("own/numbered").2), (ID, 0o644));

    // Nobody is asked for what an administrator wrote: it is as ever.
    let cmd = "cat /v/secret; echo root > /v/root; busybox grep -c ' /v .*idmapped' /proc/self/mountinfo; busybox mknod /v/null c 1 3";
    assert_eq!(output(&mut rig, volume(command("/admin", cmd), &own, "/v")).await, "this is own/secret\n0\n");
    assert_eq!(place.look("own/root"), (0, 0, 0o644));
    assert_eq!(place.mounts(), Vec::<PathBuf>::new());
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_for_everybody_is_given_to_their_containers_by_an_administrator() {
    let daemon = Daemon::start(Options::default());
    let place = Place::new(&daemon);
    let crash = place.directory("crash", 0, 0o1777);
    place.file("crash/dump", 0, 0, 0o600);
    let mut rig = Rig::start(&daemon).await;
    // As the manual's database: begun by root, then somebody else.
    let cmd = "busybox su -s /bin/sh guest -c 'echo of guest > /var/crash/guest'; echo of root > /var/crash/root; cat /var/crash/dump";
    let wanted = |account: &str| volume(command("/testdb", &format!("{cmd}; exit 0")), &crash, "/var/crash").account(account);
    // It is root's: they see it, and keep all their rights elsewhere, over what a brick holds for instance.
    let tries =
        "busybox chown 26 /tmp; cat /v/dump; touch /v/x; busybox chown 0:0 /v/dump; busybox chown 0 /v; ls /v; busybox stat -c %u /tmp";
    let task = rig.launch(volume(command("/seen", tries), &crash, "/v").account(ACCOUNT)).await;
    rig.status(&task, TaskState::Finished).await;
    rig.removed(&task).await;
    assert_eq!(rig.output(&task, "stdout"), "dump\n26\n");
    let note = format!("host volume '{crash}' is read-only for this container: it belongs to user 0 and group 0 of the node, and not to");
    let (told, hint) = (rig.messages(&task), format!(": chown {COMMON}:{COMMON})"));
    assert!(told.iter().any(|message| message.starts_with(&note) && message.ends_with(&hint)), "{told:?}");
    assert_eq!((place.look("crash"), place.look("crash/dump")), ((0, 0, 0o1777), (0, 0, 0o600)));

    place.give("crash", COMMON, COMMON, 0o1777);
    assert_eq!(output(&mut rig, wanted(ACCOUNT)).await, "");
    assert_eq!((place.look("crash/root"), place.look("crash/guest")), ((ID, ID, 0o644), (RANGE + 1000, RANGE + 1000, 0o644)));
    // Whoever has no account is another one, who gets nothing of it.
    let stranger = volume(command("/stranger", "rm -f /v/root; echo x > /v/root; cat /v/root; touch /v/new"), &crash, "/v");
    assert_eq!(output(&mut rig, stranger.account("no-such-account-here")).await, "of root\n");
    assert_eq!(std::fs::read_to_string(place.at("crash/root")).unwrap(), "of root\n");
    assert_eq!(place.look("crash/new").0, u32::MAX - 2);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_s_volume_stays_with_its_container_and_goes_with_it() {
    let mut daemon = Daemon::start(Options { live_restore: true, ..Options::default() });
    let place = Place::new(&daemon);
    let own = place.directory("own", ID, 0o755);
    let (own_path, left) = (place.at("own"), daemon.path("work/volumes/left.0"));
    let below = place.at("own/below");
    std::fs::create_dir(&below).unwrap();
    rustix::mount::mount("none", &below, "tmpfs", rustix::mount::MountFlags::empty(), None).unwrap();
    std::fs::write(below.join("inner"), "").unwrap();
    let _unmounted = Unmount(&below);
    let mut rig = Rig::start(&daemon).await;
    // What is mounted below is another file system's.
    let cmd = "ls /v/below; while [ ! -e /v/go ]; do sleep 0.05; done; echo on > /v/on; exec sleep 1000";
    let task = rig.launch(volume(command("/stays", cmd), &own, "/v").account(ACCOUNT)).await;
    rig.status(&task, TaskState::Running).await;
    rig.crash().await;
    daemon.kill();
    // As if it had been killed while something was started.
    std::fs::create_dir_all(&left).unwrap();
    rustix::mount::mount_bind(&own_path, &left).unwrap();
    daemon.launch();
    rig.begin(&daemon).await;
    assert!(!left.exists() && own_path.exists());
    std::fs::write(own_path.join("go"), "").unwrap();
    let on = own_path.join("on");
    rig.until(async || std::fs::metadata(&on).is_ok_and(|found| found.len() > 0)).await;
    assert_eq!(std::fs::metadata(&on).unwrap().uid(), ID);
    rig.kill(&task, Some(0)).await;
    rig.status(&task, TaskState::Killed).await;
    rig.removed(&task).await;
    assert_eq!(rig.output(&task, "stdout"), "");
    assert_eq!(std::fs::read_dir(daemon.path("work/volumes")).unwrap().count(), 0);
    rig.stop().await;
}

struct Unmount<'a>(&'a Path);

impl Drop for Unmount<'_> {
    fn drop(&mut self) {
        _ = rustix::mount::unmount(self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_s_volume_that_cannot_be_shown_stops_its_launch() {
    let daemon = Daemon::start(Options { own_mounts: true, ..Options::default() });
    let place = Place::new(&daemon);
    let own = place.directory("own", ID, 0o755);
    let mut rig = Rig::start(&daemon).await;
    // Docker does not see it: neither is the plain directory given instead.
    let task = rig.launch(volume(command("/unseen", "touch /v/x; exec sleep 1000"), &own, "/v").account(ACCOUNT)).await;
    let message = rig.status(&task, TaskState::Failed).await.message;
    assert!(message.contains("in a mount namespace of its own?"), "{message}");
    assert_eq!(std::fs::read_dir(daemon.path("work/volumes")).unwrap().count(), 0);
    // A file system without such mounts.
    let over = place.at("over");
    for name in ["over", "lower", "upper", "steps"] {
        place.directory(name, ID, 0o755);
    }
    let at = |name: &str| place.at(name).display().to_string();
    let options = std::ffi::CString::new(format!("lowerdir={},upperdir={},workdir={}", at("lower"), at("upper"), at("steps"))).unwrap();
    rustix::mount::mount("none", &over, "overlay", rustix::mount::MountFlags::empty(), &*options).unwrap();
    let _unmounted = Unmount(&over);
    let task = rig.launch(volume_with(command("/unable", "true"), &at("over"), "/v", Mode::Ro).account(ACCOUNT)).await;
    let message = rig.status(&task, TaskState::Failed).await.message;
    let why = format!(
        "host volume '{}': it cannot be shown to a container as files of the user's account: file system overlay cannot do that",
        at("over")
    );
    assert!(
        message.starts_with(&why) && message.ends_with("; an administrator can grant hostVolumes, or write the volume into the app"),
        "{message}"
    );
    assert_eq!((place.mounts(), daemon.containers()), (Vec::new(), Vec::<String>::new()));
    rig.stop().await;
}
