//! A Docker daemon of a test's own, which it may kill, stop and restart: own data root, exec root, socket and bridge, below one temporary directory.
//!
//! Needs root, `dockerd`, `containerd`, `runc`, the `docker` command line, `ip`, and a static `/bin/busybox` (Debian: `docker.io`, `busybox-static`).
//! Dropping it removes its containers, processes, mounts and bridge.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal};

/// The image that every daemon has.
pub const IMAGE: &str = "xtao-test/busybox:1";
const START_LIMIT: Duration = Duration::from_secs(60);
static COUNT: AtomicU32 = AtomicU32::new(0);

/// How a daemon differs from the usual one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Containers survive the daemon's end.
    pub live_restore: bool,
    /// The daemon has a mount namespace of its own, in which later mounts of this machine do not show up.
    pub own_mounts: bool,
}

/// A daemon and what it needs to be started again.
pub struct Daemon {
    directory: tempfile::TempDir,
    bridge: String,
    address: String,
    options: Options,
    namespace: Option<Child>,
    containerd: Option<Child>,
    child: Option<Child>,
}

impl Daemon {
    /// Starts one.
    pub fn start(options: Options) -> Self {
        let mut daemon = Self::prepare(options);
        daemon.launch();
        daemon.import_image();
        daemon
    }

    /// Prepares one without starting it. [`Daemon::launch`] does.
    pub fn prepare(options: Options) -> Self {
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let pid = std::process::id();
        let bridge = format!("xt{pid}n{number}");
        let address = format!("10.{}.{}.1", 180 + (pid / 250) % 60, (pid + number * 7) % 250);
        run("ip", &["link", "add", &bridge, "type", "bridge"]);
        run("ip", &["addr", "add", &format!("{address}/24"), "dev", &bridge]);
        run("ip", &["link", "set", &bridge, "up"]);
        Self { directory: tempfile::tempdir().unwrap(), bridge, address, options, namespace: None, containerd: None, child: None }
    }

    /// The daemon's address, as `--docker_host` takes it.
    pub fn host(&self) -> String {
        format!("unix://{}", self.path("docker.sock").display())
    }

    /// An address of this machine on which ports may be published: that of the bridge.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// A file or directory beside the daemon's own.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Puts a program before those of the machine that the daemon would run. Before [`Daemon::launch`].
    pub fn shadow(&self, name: &str, script: &str) {
        let path = self.path("bin").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, script).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }

    /// Starts the daemon and waits until it answers. Also after [`Daemon::kill`]. Its containerd is a process of its own, as Debian has it: it stays when
    /// the daemon is killed.
    pub fn launch(&mut self) {
        if self.containerd.is_none() {
            self.namespace = self.options.own_mounts.then(|| {
                let child = Command::new("unshare").args(["--mount", "--propagation", "private", "sleep", "infinity"]).spawn().unwrap();
                let own = std::fs::read_link("/proc/self/ns/mnt").unwrap();
                let began = Instant::now();
                while std::fs::read_link(format!("/proc/{}/ns/mnt", child.id())).unwrap() == own {
                    assert!(began.elapsed() < START_LIMIT, "unshare did not work");
                    std::thread::sleep(Duration::from_millis(5));
                }
                child
            });
            self.containerd = Some(self.launch_containerd());
        }
        let log = self.log("dockerd.log");
        let mut command = self.program("dockerd");
        command
            .arg("--containerd")
            .arg(self.path("containerd.sock"))
            .arg("--data-root")
            .arg(self.path("data"))
            .arg("--exec-root")
            .arg(self.path("exec"))
            .arg("--pidfile")
            .arg(self.path("dockerd.pid"))
            .args(["-H", &self.host(), "--bridge", &self.bridge, "--iptables=false", "--ip-masq=false", "--ip-forward=false"])
            .env("PATH", format!("{}:{}", self.path("bin").display(), std::env::var("PATH").unwrap()))
            .args(["--exec-opt", "native.cgroupdriver=cgroupfs", "--containerd-namespace", &self.bridge])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        if self.options.live_restore {
            command.arg("--live-restore");
        }
        _ = std::fs::remove_file(self.path("dockerd.pid"));
        self.child = Some(command.spawn().expect("dockerd can be started"));
        let began = Instant::now();
        while !self.answers() {
            if began.elapsed() > START_LIMIT {
                let log = std::fs::read_to_string(self.path("dockerd.log")).unwrap_or_default();
                panic!("dockerd did not start:\n{}", &log[log.len().saturating_sub(4000)..]);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn launch_containerd(&self) -> Child {
        let config = "version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\", \"io.containerd.internal.v1.opt\"]\n";
        std::fs::write(self.path("containerd.toml"), config).unwrap();
        let log = self.log("containerd.log");
        let mut command = self.program("containerd");
        for (flag, name) in
            [("--config", "containerd.toml"), ("--root", "containerd"), ("--state", "state"), ("--address", "containerd.sock")]
        {
            command.arg(flag).arg(self.path(name));
        }
        let child = command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().expect("containerd can be started");
        let began = Instant::now();
        while std::os::unix::net::UnixStream::connect(self.path("containerd.sock")).is_err() {
            assert!(began.elapsed() < START_LIMIT, "containerd did not start; its log is {}", self.path("containerd.log").display());
            std::thread::sleep(Duration::from_millis(20));
        }
        child
    }

    fn program(&self, name: &str) -> Command {
        let Some(namespace) = &self.namespace else { return Command::new(name) };
        let mut command = Command::new("nsenter");
        command.arg(format!("--mount=/proc/{}/ns/mnt", namespace.id())).arg("--").arg(name);
        command
    }

    fn log(&self, name: &str) -> File {
        File::options().create(true).append(true).open(self.path(name)).unwrap()
    }

    fn answers(&self) -> bool {
        let status = self.command(&["version"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    }

    /// The numbers of the daemon's processes, those of its own containerd among them.
    pub fn processes(&self) -> Vec<u32> {
        [&self.child, &self.containerd].into_iter().flatten().map(Child::id).collect()
    }

    /// Ends the daemon with SIGKILL; its containers run on.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Ends the daemon with SIGTERM, as the system does when it updates it.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            self.signal(&child, Signal::TERM);
            child.wait().unwrap();
        }
    }

    /// Freezes the daemon: it takes connections and does not answer.
    pub fn freeze(&self) {
        self.signal(self.child.as_ref().unwrap(), Signal::STOP);
    }

    /// Lets a frozen daemon go on.
    pub fn thaw(&self) {
        self.signal(self.child.as_ref().unwrap(), Signal::CONT);
    }

    fn signal(&self, child: &Child, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Runs the `docker` command line on it and returns what it prints.
    ///
    /// # Panics
    /// The command fails.
    pub fn docker(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "docker {arguments:?}: {error}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command.arg("-H").arg(self.host()).args(arguments);
        command
    }

    /// Gives it [`IMAGE`]; [`Daemon::start`] does.
    pub fn import_image(&self) {
        let root = self.path("image");
        for directory in ["bin", "etc", "tmp"] {
            std::fs::create_dir_all(root.join(directory)).unwrap();
        }
        std::fs::copy("/bin/busybox", root.join("bin/busybox")).expect("busybox-static is installed");
        for applet in [
            "sh", "sleep", "echo", "cat", "httpd", "tail", "head", "seq", "env", "id", "ls", "kill", "true", "false", "touch", "rm", "dd",
            "nc",
        ] {
            std::os::unix::fs::symlink("busybox", root.join("bin").join(applet)).unwrap();
        }
        std::fs::write(root.join("etc/passwd"), "root:x:0:0::/:/bin/sh\nguest:x:1000:1000::/:/bin/sh\n").unwrap();
        std::fs::write(root.join("etc/group"), "root:x:0:\nguest:x:1000:\n").unwrap();
        let tar = self.path("image.tar");
        run("tar", &["-C", &root.to_string_lossy(), "-cf", &tar.to_string_lossy(), "."]);
        self.docker(&["import", "--change", "ENV PATH=/bin", &tar.to_string_lossy(), IMAGE]);
    }

    /// The state of every container, by name: `name status`.
    pub fn containers(&self) -> Vec<String> {
        self.docker(&["ps", "-a", "--format", "{{.Names}} {{.State}}"]).lines().map(str::to_owned).collect()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(child) = &self.child {
            self.signal(child, Signal::CONT);
            if let Ok(output) = self.command(&["ps", "-aq"]).output() {
                let ids = String::from_utf8_lossy(&output.stdout).into_owned();
                let ids: Vec<&str> = ids.split_whitespace().collect();
                if !ids.is_empty() {
                    _ = self.command(&["rm", "-f"]).args(&ids).output();
                }
            }
        }
        self.stop();
        if let Some(mut containerd) = self.containerd.take() {
            self.signal(&containerd, Signal::TERM);
            _ = containerd.wait();
        }
        end_processes_below(self.directory.path());
        if let Some(mut namespace) = self.namespace.take() {
            _ = namespace.kill();
            _ = namespace.wait();
        }
        unmount_below(self.directory.path());
        free_bricks_below(self.directory.path());
        _ = Command::new("ip").args(["link", "del", &self.bridge]).status();
    }
}

/// Ends what a daemon that was killed left behind: shims and proxies, which name its directory, and the processes in its containers' cgroups.
fn end_processes_below(directory: &Path) {
    let mut needles = vec![directory.to_string_lossy().into_owned()];
    let containers = std::fs::read_dir(directory.join("data/containers")).into_iter().flatten().filter_map(Result::ok);
    needles.extend(containers.map(|entry| entry.file_name().to_string_lossy().into_owned()));
    for entry in std::fs::read_dir("/proc").unwrap().filter_map(Result::ok) {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw) else { continue };
        let text = ["cmdline", "cgroup"].map(|name| std::fs::read(entry.path().join(name)).unwrap_or_default()).concat();
        let text = String::from_utf8_lossy(&text);
        if needles.iter().any(|needle| text.contains(needle)) && pid != rustix::process::getpid() {
            _ = rustix::process::kill_process(pid, Signal::KILL);
        }
    }
}

/// Unmounts what lies in `directory`, the latest mount first.
pub fn unmount_below(directory: &Path) {
    let table = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    for target in table.lines().rev().filter_map(|line| line.split(' ').nth(1)).filter(|target| Path::new(target).starts_with(directory)) {
        _ = rustix::mount::unmount(target, rustix::mount::UnmountFlags::DETACH);
    }
}

/// Frees the loop devices of images in `directory` and makes it possible to remove it: mount points of bricks are immutable.
fn free_bricks_below(directory: &Path) {
    for number in 0..256 {
        let file = std::fs::read_to_string(format!("/sys/block/loop{number}/loop/backing_file")).unwrap_or_default();
        if Path::new(&file).starts_with(directory) {
            _ = Command::new("losetup").args(["-d", &format!("/dev/loop{number}")]).status();
        }
    }
    _ = Command::new("chattr").args(["-R", "-f", "-i"]).arg(directory).stderr(Stdio::null()).status();
}

fn run(program: &str, arguments: &[&str]) {
    let status = Command::new(program).args(arguments).status().unwrap();
    assert!(status.success(), "{program} {arguments:?}");
}
