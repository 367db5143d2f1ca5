//! The embedded engine against a real Docker daemon of its own. Needs root; see [`docker`](crate::support::docker).

mod host_volumes;
mod registry;

use std::{io::Read, time::Duration};

use xtao::{
    cluster::engine::sandbox,
    model::{
        app::{EnvValue, Fetch, IpcInfo, IpcMode, LinuxInfo, Secret, Volume},
        cluster::{BrickReport, ClusterCall, ClusterEvent, Reason, TaskRef, TaskState},
        frame::{Channel, Frame},
        id::{AgentId, BrickName, PoolName},
        request::Asker,
        resources::{ResourceLimit, ResourceLimits, Scalar},
    },
};

use self::registry::Registry;
use crate::support::{
    docker::{Daemon, IMAGE, Options},
    rig::{self, Rig, bridge, command, own_name, parameter, pod, process, volume, with_brick, with_external, with_volume},
};

#[tokio::test(flavor = "multi_thread")]
async fn tasks_run_end_and_leave_their_output() {
    let daemon = Daemon::start(Options::default());
    let mut rig = Rig::start(&daemon).await;

    let hello = rig.launch(command("/hello", "echo out $NAME; echo err >&2; exit 3").env("NAME", "value")).await;
    let ended = rig.status(&hello, TaskState::Failed).await;
    assert_eq!(ended.message, "Container exited with status 3");
    assert_eq!(ended.addresses, rig.addresses());
    rig.removed(&hello).await;
    assert_eq!(rig.output(&hello, "stdout"), "out value\n");
    assert_eq!(rig.output(&hello, "stderr"), "err\n");

    let good = rig.launch(command("/good", "exit 0")).await;
    rig.status(&good, TaskState::Finished).await;

    // The environment is what the launch says, and the user is the one asked for.
    let mut guest = command("/guest", "id -u; env | busybox sort").env("A", "1").env("B", "two words");
    guest.app().user = Some("guest".into());
    let guest = rig.launch(guest).await;
    rig.status(&guest, TaskState::Finished).await;
    rig.removed(&guest).await;
    let shown = rig.output(&guest, "stdout");
    assert!(shown.starts_with("1000\n") && shown.contains("\nA=1\nB=two words\n"), "{shown}");

    // Bridge mode: published on the node's address and nowhere else.
    let web = rig.launch(bridge("/web", "echo hello > /tmp/index.html; exec httpd -f -p 8080 -h /tmp", 8080, 31007)).await;
    let running = rig.status(&web, TaskState::Running).await;
    let own = running.addresses[0].to_string();
    assert_ne!(own, daemon.address());
    assert_eq!(rig::http_get(&format!("{own}:8080")).await, "hello\n");
    assert_eq!(rig::http_get(&format!("{}:31007", daemon.address())).await, "hello\n");
    assert!(std::net::TcpStream::connect("127.0.0.1:31007").is_err());
    let label = daemon.docker(&["ps", "--filter", &format!("label=MESOS_TASK_ID={web}"), "--format", "{{.Names}}"]);
    assert_eq!(label, format!("xtao-{web}"));
    rig.kill(&web, Some(0)).await;
    rig.status(&web, TaskState::Killed).await;
    rig.removed(&web).await;
    assert_eq!(daemon.containers(), Vec::<String>::new());
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_and_commands_run_side_by_side_and_have_a_sandbox() {
    let mut daemon = Daemon::start(Options::default());
    let mut rig = Rig::start(&daemon).await;
    std::fs::create_dir_all(daemon.path("shared")).unwrap();
    std::fs::write(daemon.path("shared/note"), "a note\n").unwrap();
    let uri = daemon.path("shared/note").to_string_lossy().into_owned();
    let fetch = vec![Fetch { uri, extract: true, executable: false, cache: false, dest_path: Some("in/note".into()) }];
    let mut contained = command("/contained", "cat $MESOS_SANDBOX/in/note; pwd; echo $MESOS_SANDBOX; echo made > /mnt/mesos/sandbox/made");
    // The container runtime of Mesos' own means Docker here.
    contained.app().container.as_mut().unwrap().kind = xtao::model::app::ContainerKind::Mesos;
    contained.app().user = Some("guest".into());
    contained.app().fetch = fetch;
    let contained = rig.launch(contained).await;
    rig.status(&contained, TaskState::Finished).await;
    rig.removed(&contained).await;
    assert_eq!(rig.output(&contained, "stdout"), "a note\n/\n/mnt/mesos/sandbox\n");
    let made = sandbox::files(&daemon.path("work"), &contained).join("made");
    assert_eq!(std::fs::read_to_string(made).unwrap(), "made\n");

    // Docker goes: a command goes on, and its end is told although nobody can say anything of the container.
    let container = rig.launch(command("/container", "exec sleep 1000")).await;
    let plain = rig.launch(process("/plain", "while [ ! -e go ]; do sleep 0.05; done; exit 5")).await;
    rig.status(&container, TaskState::Running).await;
    rig.status(&plain, TaskState::Running).await;
    daemon.kill();
    rig.event(|event| matches!(event, ClusterEvent::Disconnected { .. })).await;
    std::fs::write(sandbox::files(&daemon.path("work"), &plain).join("go"), "").unwrap();
    assert_eq!(rig.status(&plain, TaskState::Failed).await.message, "Command exited with status 5");
    daemon.launch();
    rig.event(|event| matches!(event, ClusterEvent::Connected { .. })).await;
    rig.forgotten(&plain).await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_keep_their_grace() {
    let daemon = Daemon::start(Options::default());
    let mut rig = Rig::start(&daemon).await;
    let polite = rig.launch(command("/polite", "trap 'echo bye; exit 0' TERM; echo ready; while true; do sleep 0.1; done")).await;
    let stubborn = rig.launch(command("/stubborn", "trap '' TERM; echo ready; while true; do sleep 0.1; done")).await;
    let paused = rig.launch(command("/paused", "sleep 1000")).await;
    for task in [&polite, &stubborn, &paused] {
        rig.status(task, TaskState::Running).await;
    }
    rig.await_output(&polite, "ready\n").await;
    rig.await_output(&stubborn, "ready\n").await;
    daemon.docker(&["pause", &format!("xtao-{paused}")]);
    rig.kill(&polite, Some(60_000)).await;
    rig.kill(&stubborn, Some(500)).await;
    rig.kill(&paused, Some(100)).await;
    assert_eq!(rig.status(&polite, TaskState::Killed).await.message, "Container exited with status 0");
    for task in [&stubborn, &paused] {
        let killed = rig.status(task, TaskState::Killed).await;
        assert_eq!(killed.message, "Container exited with status 137 (signal 9, SIGKILL)");
    }
    rig.removed(&polite).await;
    assert_eq!(rig.output(&polite, "stdout"), "ready\nbye\n");

    // Killed from outside, a task has failed.
    let victim = rig.launch(command("/victim", "sleep 1000")).await;
    rig.status(&victim, TaskState::Running).await;
    daemon.docker(&["kill", &format!("xtao-{victim}")]);
    rig.status(&victim, TaskState::Failed).await;
    let removed = rig.launch(command("/removed", "sleep 1000")).await;
    rig.status(&removed, TaskState::Running).await;
    daemon.docker(&["rm", "-f", &format!("xtao-{removed}")]);
    rig.status(&removed, TaskState::Failed).await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_say_what_to_do() {
    let daemon = Daemon::start(Options::default());
    let mut rig = Rig::start(&daemon).await;
    let node = daemon.address().to_owned();
    let taken = std::net::TcpListener::bind(format!("{node}:31009")).unwrap();
    let in_use = format!("port 31009 is in use on this node, by {}", own_name());
    let mut cases = vec![
        (command("/bad", "x").image("127.0.0.1:1/none/such"), TaskState::Failed, "could not pull image 127.0.0.1:1/none/such"),
        (command("/bad", "x").image("a/../b"), TaskState::Failed, "'a/../b' is not the name of an image"),
        (command("/bad", "x").args(&["/no/such/command"]), TaskState::Failed, "the image has no such command"),
        (bridge("/bad", "sleep 1000", 80, 31009), TaskState::Failed, &in_use),
        (volume(command("/bad", "x"), "/etc", "/x"), TaskState::Failed, "'/etc' must not be mapped as a whole"),
        (parameter(command("/bad", "x"), "pid", "host"), TaskState::Error, "docker parameter 'pid=host' gives power over the node"),
        (parameter(command("/bad", "x"), "sysctl", "net.x"), TaskState::Error, "NAME=value is wanted"),
    ];
    std::os::unix::fs::symlink("/etc", daemon.path("link")).unwrap();
    let link = daemon.path("link").to_string_lossy().into_owned();
    cases.push((volume(command("/bad", "x"), &link, "/x"), TaskState::Failed, "'/etc' must not be mapped as a whole"));
    for (launch, state, words) in cases {
        let task = rig.launch(launch).await;
        let status = rig.status(&task, state).await;
        assert!(status.message.contains(words), "{words}: {}", status.message);
    }
    // What a pod publishes, Docker alone finds out; who it is, it does not say.
    for task in rig.launch_all(pod("/bad", "sleep 1000", 31009)).await {
        assert!(rig.status(&task, TaskState::Failed).await.message.contains(&in_use));
    }
    drop(taken);
    let free = rig.launch_all(pod("/good", "sleep 1000", 31009)).await;
    for task in &free {
        rig.status(task, TaskState::Running).await;
    }
    for task in &free {
        rig.kill(task, Some(0)).await;
    }
    rig.until(async || daemon.containers().is_empty()).await;

    // A name that someone else uses.
    let clash = command("/clash", "sleep 1000");
    let name = format!("xtao-{}", clash.task());
    daemon.docker(&["create", "--name", &name, IMAGE, "sleep", "1"]);
    let task = rig.launch(clash).await;
    let status = rig.status(&task, TaskState::Failed).await;
    assert!(status.message.contains("is in the way and not ours"), "{}", status.message);
    assert_eq!(daemon.containers(), [format!("{name} created")]);

    // A launch that is given up while its image is pulled: the registry takes the connection and says nothing.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let image = format!("127.0.0.1:{}/a/b", silent.local_addr().unwrap().port());
    let task = rig.launch(command("/slow", "x").image(&image)).await;
    rig.status(&task, TaskState::Staging).await;
    let _connection = silent.accept().await.unwrap();
    rig.kill(&task, None).await;
    assert_eq!(rig.status(&task, TaskState::Killed).await.message, "killed before it was started");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_comes_from_a_registry_and_its_absence_is_explained() {
    let daemon = Daemon::start(Options::default());
    let mut registry = Registry::start(&daemon.path("registry"));
    let at = registry.address().to_owned();
    let image = format!("{at}/zmfsea/tool:1");
    daemon.docker(&["tag", IMAGE, &image]);
    daemon.docker(&["push", &image]);
    let id = daemon.docker(&["image", "inspect", "-f", "{{.Id}}", &image]);
    daemon.docker(&["rmi", &image, IMAGE]);
    assert_eq!(daemon.docker(&["images", "-q"]), "");

    let mut rig = Rig::start(&daemon).await;
    let task = rig.launch(command("/pulled", "echo here; exec sleep 1000").image(&image)).await;
    rig.status(&task, TaskState::Running).await;
    let told = rig.messages(&task);
    assert!(told.iter().any(|message| message.starts_with(&format!("pulling image {image}: "))), "{told:?}");
    // The very image, and by its id: nothing is asked of the registry for the next one.
    assert_eq!(daemon.docker(&["inspect", "-f", "{{.Config.Image}}", &format!("xtao-{task}")]), id);

    let missing = rig.launch(command("/missing", "x").image(&format!("{at}/zmfsea/tool:none"))).await;
    let status = rig.status(&missing, TaskState::Failed).await;
    let words = [format!("could not pull image {at}/zmfsea/tool:none: "), "manifest unknown".into(), "check its name and tag".into()];
    assert!(words.iter().all(|words| status.message.contains(words)), "{}", status.message);

    registry.stop();
    let next = rig.launch(command("/next", "exec sleep 1000").image(&image)).await;
    rig.status(&next, TaskState::Running).await;
    let dead = rig.launch(command("/dead", "x").image(&format!("{at}/zmfsea/tool:2"))).await;
    let status = rig.status(&dead, TaskState::Failed).await;
    let words =
        [format!("could not pull image {at}/zmfsea/tool:2: "), "refused".into(), "the registry cannot be reached from this node".into()];
    assert!(words.iter().all(|words| status.message.contains(words)), "{}", status.message);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_pulled_with_the_login_that_was_fetched() {
    let daemon = Daemon::start(Options::default());
    let (registry, image) = private_registry(&daemon);
    let at = registry.address();
    let shared = daemon.path("shared");
    std::fs::create_dir_all(shared.join("made/.docker")).unwrap();
    let archive = |name: &str, password: &str| {
        let auth = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, format!("ann:{password}"));
        let config = serde_json::json!({"auths": {at: {"auth": auth}}});
        std::fs::write(shared.join("made/.docker/config.json"), config.to_string()).unwrap();
        let mut tar = std::process::Command::new("tar");
        assert!(tar.arg("-czf").arg(shared.join(name)).arg("-C").arg(shared.join("made")).arg(".docker").status().unwrap().success());
        let uri = format!("file://{}", shared.join(name).display());
        vec![Fetch { uri, extract: true, executable: false, cache: false, dest_path: None }]
    };

    let mut rig = Rig::start(&daemon).await;
    for fetch in [Vec::new(), archive("wrong.tar.gz", "???guess")] {
        let mut refused = command("/refused", "x").image(&image);
        refused.app().fetch = fetch;
        let refused = rig.launch(refused).await;
        let message = rig.status(&refused, TaskState::Failed).await.message;
        assert!(message.starts_with(&format!("could not pull image {image}: ")) && message.ends_with(WANTS_LOGIN), "{message}");
    }
    let mut task = command("/pulled", "exec sleep 1000").image(&image);
    task.app().fetch = archive("docker.tar.gz", "???secret");
    let task = rig.launch(task).await;
    rig.status(&task, TaskState::Running).await;
    assert!(!rig.messages(&task).iter().any(|message| message.contains("secret")));
    rig.stop().await;
}

const WANTS_LOGIN: &str =
    "(its registry wants a login, or another one: give it as pullConfig of the image, by a secret, or fetch a docker.tar.gz with it)";

/// A registry that lets nobody in but `ann` with `???secret`, and an image there that the daemon does not have.
fn private_registry(daemon: &Daemon) -> (Registry, String) {
    let mut open = Registry::start(&daemon.path("registry"));
    let pushed = format!("{}/zmfsea/tool:1", open.address());
    daemon.docker(&["tag", IMAGE, &pushed]);
    daemon.docker(&["push", &pushed]);
    daemon.docker(&["rmi", &pushed, IMAGE]);
    open.stop();
    // By bcrypt. Question marks make the difference between the two alphabets of base64.
    let registry = Registry::start_for(&daemon.path("registry"), "ann:$2b$05$abcdefghijklmnopqrstuuC2EGgSfix3kCuDxW6G3idhmE.rB2AUy\n");
    let image = format!("{}/zmfsea/tool:1", registry.address());
    (registry, image)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_pulled_with_the_login_that_a_secret_has() {
    let daemon = Daemon::start(Options::default());
    let (registry, image) = private_registry(&daemon);
    let mut rig = Rig::idle(&daemon);
    let secrets = tempfile::tempdir().unwrap();
    let login = |password: &str| base64::Engine::encode(&base64::engine::general_purpose::STANDARD, format!("ann:{password}"));
    let config = |server: &str, password: &str| serde_json::json!({"auths": {server: {"auth": login(password)}}}).to_string();
    rig::secret(secrets.path(), "ann/good", &config(registry.address(), "???secret"));
    rig::secret(secrets.path(), "ann/wrong", &config(registry.address(), "???guess"));
    rig::secret(secrets.path(), "ann/other", &config("registry.example", "???secret"));
    rig::secret(secrets.path(), "ann/none", "{\"auths\": {}}");
    rig::secret(secrets.path(), "ann/noise", "???secret");
    rig.settings().secrets_dir = Some(secrets.path().to_owned());
    rig.begin(&daemon).await;
    let wants = |source: Option<&str>, cmd: &str| {
        let mut wanted = command("/wants", cmd).image(&image);
        if let Some(source) = source {
            wanted.app().secrets.insert("login".into(), Secret { source: source.into() });
            wanted.app().container.as_mut().unwrap().docker.as_mut().unwrap().pull_config = Some("login".into());
        }
        wanted
    };
    let pull = format!("could not pull image {image}: ");
    for (source, begins, ends) in [
        (None, &*pull, WANTS_LOGIN),
        (Some("ann/wrong"), &*pull, WANTS_LOGIN),
        // It is sent to the registry that it is for, and to no other.
        (Some("ann/other"), &*pull, WANTS_LOGIN),
        (Some("ann/none"), "its pullConfig is no config.json of Docker's with credentials", ""),
        (Some("ann/noise"), "its pullConfig is no JSON: line 1, column 1", ""),
    ] {
        let refused = rig.launch(wants(source, "true")).await;
        let message = rig.status(&refused, TaskState::Failed).await.message;
        assert!(message.starts_with(begins) && message.ends_with(ends), "{source:?}: {message}");
        assert!(!message.contains("???"), "{message}");
    }
    let task = rig.launch(wants(Some("ann/good"), "exec sleep 1000")).await;
    rig.status(&task, TaskState::Running).await;
    assert!(!rig.messages(&task).iter().any(|message| message.contains("???") || message.contains(&login("???secret"))));
    // Neither the server, nor Docker, nor the container has it afterwards.
    let inspected = daemon.docker(&["inspect", &format!("xtao-{task}")]);
    let places = ["work", "data", "exec", "dockerd.log"].map(|name| daemon.path(name));
    for text in ["???secret", &login("???secret")] {
        assert!(!inspected.contains(text));
        let found = std::process::Command::new("grep").args(["-rlFI", "--devices=skip", "-e", text]).args(&places).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&found.stdout), "", "{text}");
    }
    rig.kill(&task, Some(0)).await;
    rig.status(&task, TaskState::Killed).await;
    rig.removed(&task).await;
    daemon.docker(&["rmi", &image]);
    let next = rig.launch(wants(None, "true")).await;
    let message = rig.status(&next, TaskState::Failed).await.message;
    assert!(message.ends_with(WANTS_LOGIN), "{message}");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn output_is_read_over_replacements_to_its_end_and_after_it() {
    let daemon = Daemon::start(Options::default());
    let mut rig = Rig::idle(&daemon);
    rig.keep_log_bytes(400);
    rig.begin(&daemon).await;
    let task = rig.launch(command("/counts", "for i in $(seq 1 300); do echo $i; sleep 0.02; done")).await;
    rig.await_output(&task, "1\n").await;
    let expected: Vec<String> = (1..=300).map(|number| number.to_string()).collect();
    assert_eq!(rig.read_to_the_end(&task).await.lines().collect::<Vec<_>>(), expected);
    // It has ended, and its container is gone; two files are kept.
    let mut reader = rig.access().open_output(&task, sandbox::Output::Stdout).unwrap();
    assert_eq!(reader.owner().map(|owner| owner.to_string()), Some("admin".to_owned()), "whose it was is noted before it starts");
    reader.skip_to_last(100).unwrap();
    let mut last = String::new();
    while let Some(piece) = reader.read().unwrap() {
        last += std::str::from_utf8(&piece).unwrap();
    }
    assert_eq!(last.lines().collect::<Vec<_>>(), expected[200..]);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_runs_in_a_task_and_ends_with_its_client() {
    let daemon = Daemon::start(Options::default());
    let mut rig = Rig::start(&daemon).await;
    let task = rig.launch(command("/t", "exec sleep 1000")).await;
    rig.status(&task, TaskState::Running).await;
    let access = rig.access();
    let words = |text: &[&str]| text.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let frame = |channel, text: &str| Frame { channel, payload: text.as_bytes().to_vec() };

    let (input, output) =
        access.exec(&task, words(&["sh", "-c", "cat; echo error >&2; exit 3"]), None, &Asker::Administrator).await.unwrap();
    input.send(frame(Channel::Stdin, "hello ")).await.unwrap();
    input.send(frame(Channel::Stdin, "you")).await.unwrap();
    input.send(frame(Channel::Stdin, "")).await.unwrap();
    assert_eq!(rig::conversation(output).await, ["hello you", "error\n", "3"]);

    let (input, output) =
        access.exec(&task, words(&["sh", "-c", "read x; busybox stty size"]), Some((80, 24)), &Asker::Administrator).await.unwrap();
    input.send(frame(Channel::Resize, r#"{"columns": 100, "lines": 40}"#)).await.unwrap();
    input.send(frame(Channel::Stdin, "\n")).await.unwrap();
    let [shown, errors, code] = rig::conversation(output).await;
    assert!(shown.contains("40 100") && errors.is_empty() && code == "0", "{shown} {errors} {code}");

    let (_input, output) = access.exec(&task, words(&["/no/such/program"]), None, &Asker::Administrator).await.unwrap();
    let [shown, errors, code] = rig::conversation(output).await;
    assert!((shown + &errors).contains("no such file or directory") && ["126", "127"].contains(&&*code), "{code}");

    // A client that leaves takes its command along. Its number is this run's own: the same test of another checkout may run beside it.
    let seconds = (1_000_000_000 + u64::from(std::process::id())).to_string();
    let ends = access.exec(&task, words(&["sleep", &seconds]), None, &Asker::Administrator).await.unwrap();
    rig::until_runs(&format!("sleep {seconds}"), true).await;
    drop(ends);
    rig::until_runs(&format!("sleep {seconds}"), false).await;
    rig.kill(&task, Some(0)).await;
    rig.status(&task, TaskState::Killed).await;
    let refused = access.exec(&task, words(&["true"]), None, &Asker::Administrator).await.unwrap_err();
    assert_eq!(refused.to_string(), format!("task '{task}' does not run"));
    let parts = access.facts().await.parts;
    assert_eq!((&*parts[0].name, &*parts[0].version), ("Engine", &*daemon.docker(&["version", "-f", "{{.Server.Version}}"])));
    assert!(parts.iter().any(|part| part.name == "runc" && !part.version.is_empty()), "{parts:?}");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_reaches_what_listens_on_loopback_in_a_container() {
    let daemon = Daemon::start(Options::default());
    let mut rig = Rig::start(&daemon).await;
    let task = rig.launch(bridge("/inner", "exec httpd -f -p 127.0.0.1:8080", 8080, 31009)).await;
    let running = rig.status(&task, TaskState::Running).await;
    let access = rig.access();
    let connect = async || {
        let socket = tokio::net::TcpSocket::from_std_stream(access.socket(&task, false).await?.into());
        socket.connect("127.0.0.1:8080".parse().unwrap()).await
    };
    // It may just be starting.
    rig.until(async || connect().await.is_ok()).await;
    let outside = tokio::net::TcpStream::connect((running.addresses[0], 8080)).await;
    assert_eq!(outside.unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
    rig.kill(&task, Some(0)).await;
    rig.status(&task, TaskState::Killed).await;
    rig.removed(&task).await;
    assert_eq!(connect().await.unwrap_err().kind(), std::io::ErrorKind::NotFound);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hundreds_of_checks_of_a_container_leave_nothing_behind() {
    let daemon = Daemon::start(Options::default());
    let mut rig = Rig::start(&daemon).await;
    let task = rig.launch(command("/asked", "exec sleep 1000")).await;
    rig.status(&task, TaskState::Running).await;
    let access = rig.access();
    let inspect = |what: &str| daemon.docker(&["inspect", "-f", what, &format!("xtao-{task}")]).trim().to_owned();
    // What keeps the container, and stands between it and containerd.
    let init = inspect("{{.State.Pid}}");
    let status = std::fs::read_to_string(format!("/proc/{init}/status")).unwrap();
    let shim: u32 = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim().parse().unwrap();
    let me = [std::process::id()];
    let engine: Vec<u32> = daemon.processes().into_iter().chain([shim]).collect();
    // What is opened once and kept is open from here on.
    rig::check_often(&access, &task, 32).await;
    let commands = || Some(inspect("{{.ExecIDs}}")).filter(|ids| !["[]", "<no value>", "<nil>"].contains(&&**ids));
    rig::until_no_rest("no command is the container's any more", commands).await;
    let before = (rig::held(&me), rig::held(&engine));
    rig::check_often(&access, &task, 200).await;
    rig::until_no_rest("no command is the container's any more", commands).await;
    rig::until_no_rest("this process holds no more than before", || rig::grown(rig::held(&me), before.0)).await;
    rig::until_no_rest("Docker holds no more than before", || rig::grown(rig::held(&engine), before.1)).await;
    let within = daemon.docker(&["top", &format!("xtao-{task}"), "-o", "pid,args"]);
    assert_eq!(within.lines().count(), 2, "{within}");
    rig.kill(&task, Some(0)).await;
    rig.status(&task, TaskState::Killed).await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runtime_with_a_known_way_out_is_used_only_when_told() {
    let mut daemon = Daemon::prepare(Options::default());
    // What the daemon asks for a version; containers are run by the machine's own.
    daemon.shadow("runc", "#!/bin/sh\nprintf 'runc version 1.1.4\\ncommit: v1.1.4-0-g5fd4c4d1\\nspec: 1.0.2-dev\\n'\n");
    daemon.launch();
    daemon.import_image();
    let mut rig = Rig::start(&daemon).await;
    let refused = rig.launch(command("/refused", "sleep 1000")).await;
    let told = rig.status(&refused, TaskState::Failed).await.message;
    assert!(told.contains("runc 1.1.4 lets containers out of their confinement (CVE-2024-21626, CVE-2025-31133)"), "{told}");
    assert!(told.ends_with("start the server with --allow_vulnerable_runtime on"), "{told}");
    assert_eq!(daemon.docker(&["ps", "-aq"]), "");
    rig.stop().await;

    rig.settings().allow_vulnerable_runtime = true;
    rig.begin(&daemon).await;
    let task = rig.launch(command("/allowed", "sleep 1000")).await;
    rig.status(&task, TaskState::Running).await;
    // What runs already goes on, but nobody gets in.
    rig.stop().await;
    rig.settings().allow_vulnerable_runtime = false;
    let refused = rig.access().exec(&task, vec!["true".to_owned()], None, &Asker::Administrator).await.unwrap_err().to_string();
    assert!(refused.starts_with("no command is run inside a container: runc 1.1.4 lets"), "{refused}");
    rig.begin(&daemon).await;
    assert_eq!(daemon.docker(&["ps", "--format", "{{.Names}}"]), format!("xtao-{task}"));
    rig.kill(&task, Some(0)).await;
    rig.status(&task, TaskState::Killed).await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_has_an_end() {
    let daemon = Daemon::start(Options::default());
    let mut rig = Rig::start(&daemon).await;
    let hungry = rig.launch(command("/hungry", "exec dd if=/dev/zero of=/dev/null bs=200M")).await;
    let ended = rig.status(&hungry, TaskState::Failed).await;
    assert!(ended.message.contains("out of memory, the limit is 64 MiB; give it more memory"), "{}", ended.message);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_of_the_definition_go_over_what_it_asks_for() {
    let daemon = Daemon::start(Options::default());
    let mut rig = Rig::start(&daemon).await;
    let at = |units: u64| Some(ResourceLimit::At(Scalar::whole(units)));
    let mut roomy = command("/roomy", "dd if=/dev/zero of=/dev/null bs=200M count=1 && echo fits && exec sleep 1000");
    // More processors than there are in any machine are no mistake.
    roomy.app().resource_limits = Some(ResourceLimits { cpus: at(5000), mem: at(400) });
    let roomy = rig.launch(roomy).await;
    rig.await_output(&roomy, "fits\n").await;
    let shown = "{{.HostConfig.CpuShares}} {{.HostConfig.CpuQuota}} {{.HostConfig.Memory}} {{.HostConfig.MemoryReservation}}";
    let found = daemon.docker(&["inspect", "--format", shown, &format!("xtao-{roomy}")]);
    assert_eq!(found, format!("102 500000000 {} {}", 400 << 20, 64 << 20));
    // Also after a restart an end says what the limit was.
    let mut narrow = command("/narrow", "while [ ! -e /tmp/go ]; do sleep 0.05; done; exec dd if=/dev/zero of=/dev/null bs=200M");
    narrow.app().resource_limits = Some(ResourceLimits { cpus: Some(ResourceLimit::Unlimited), mem: at(96) });
    let narrow = rig.launch(narrow).await;
    rig.status(&narrow, TaskState::Running).await;
    rig.crash().await;
    rig.begin(&daemon).await;
    daemon.docker(&["exec", &format!("xtao-{narrow}"), "touch", "/tmp/go"]);
    let message = rig.status(&narrow, TaskState::Failed).await.message;
    assert!(message.contains("out of memory, the limit is 96 MiB; give it more memory"), "{message}");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_given_to_the_task_and_go_with_it() {
    let daemon = Daemon::start(Options::default());
    let mut rig = Rig::idle(&daemon);
    let secrets = daemon.path("secrets");
    rig::secret(&secrets, "ann/pw", "hush\n");
    rig.settings().secrets_dir = Some(secrets.clone());
    rig.begin(&daemon).await;
    let wants = |cmd: &str, source: &str| {
        let mut wanted = command("/wants", cmd);
        wanted.app().secrets.insert("pw".into(), Secret { source: source.into() });
        wanted.app().env.insert("PW".into(), EnvValue::Secret { secret: "pw".into() });
        for path in ["/run/secrets/pw", "pw"] {
            let volume = Volume::Secret { container_path: path.into(), secret: "pw".into() };
            wanted.app().container.as_mut().unwrap().volumes.push(volume);
        }
        wanted
    };
    let cmd = "id -u; cat /run/secrets/pw /mnt/mesos/sandbox/pw; echo $PW; echo x 2>&- > /run/secrets/pw || echo closed; exec sleep 1000";
    let mut guest = wants(cmd, "/ann/pw");
    guest.app().user = Some("guest".into());
    let task = rig.launch(guest).await;
    rig.await_output(&task, "1000\nhush\nhush\nhush\nclosed\n").await;
    let files = daemon.path("work").join(format!("secrets/{task}"));
    assert!(files.join("1").exists());
    assert!(
        !daemon
            .docker(&["inspect", "-f", "{{json .Config.Labels}} {{json .Mounts}} {{json .Args}}", &format!("xtao-{task}")])
            .contains("hush")
    );
    assert!(!rig.messages(&task).iter().any(|message| message.contains("hush")));
    rig.kill(&task, None).await;
    rig.status(&task, TaskState::Killed).await;
    rig.forgotten(&task).await;
    rig.until(async || !files.exists()).await;
    let places = ["work/secrets", "work/processes"].map(|name| daemon.path(name));
    let found = std::process::Command::new("grep").args(["-rlF", "-e", "hush"]).args(&places).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&found.stdout), "");

    let missing = rig.launch(wants("true", "ann/none")).await;
    let message = rig.status(&missing, TaskState::Failed).await.message;
    assert_eq!(message, "secret 'pw' cannot be read from 'ann/none' in the directory of the secrets: there is no such file");
    rig.all_is_free().await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_has_as_much_shared_memory_as_it_asks_for() {
    let daemon = Daemon::start(Options::default());
    let mut rig = Rig::start(&daemon).await;
    let mut shown = command("/shown", "sleep 1000");
    let ipc_info = Some(IpcInfo { mode: IpcMode::Private, shm_size: Some(96) });
    shown.app().container.as_mut().unwrap().linux_info = Some(LinuxInfo { seccomp: None, ipc_info });
    let shown = rig.launch(shown).await;
    rig.status(&shown, TaskState::Running).await;
    let found = daemon.docker(&["inspect", "--format", "{{.HostConfig.IpcMode}} {{.HostConfig.ShmSize}}", &format!("xtao-{shown}")]);
    assert_eq!(found, format!("private {}", 96 << 20));
    rig.kill(&shown, Some(0)).await;
    rig.status(&shown, TaskState::Killed).await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_out_of_a_terminal_is_kept_as_standard_output() {
    let daemon = Daemon::start(Options::default());
    let mut rig = Rig::start(&daemon).await;
    // A line that Docker tells in pieces, and one without an end.
    let cmd = "test -t 0 && test -t 1 && echo yes; echo err >&2; head -c 40000 /dev/zero | tr '\\0' x; echo; printf end; \
               while [ ! -e /tmp/go ]; do sleep 0.05; done; printf ' and more'; exit 3";
    let mut shown = command("/shown", cmd);
    shown.app().tty = Some(true);
    let shown = rig.launch(shown).await;
    let expected = format!("yes\r\nerr\r\n{}\r\n", "x".repeat(40_000));
    rig.await_output(&shown, &expected).await;
    rig.crash().await;
    rig.begin(&daemon).await;
    daemon.docker(&["exec", &format!("xtao-{shown}"), "touch", "/tmp/go"]);
    daemon.docker(&["wait", &format!("xtao-{shown}")]);
    let of_docker = daemon.docker(&["logs", "-t", "--tail", "1", &format!("xtao-{shown}")]);
    rig.status(&shown, TaskState::Failed).await;
    let all = rig.read_to_the_end(&shown).await;
    assert!(
        all == format!("{expected}end and more"),
        "{} bytes end with {:?}; Docker has {of_docker:?}",
        all.len(),
        all.get(all.len().saturating_sub(100)..)
    );
    assert_eq!(rig.output(&shown, "stderr"), "");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_the_server_adopts_what_runs() {
    let daemon = Daemon::start(Options::default());
    let mut rig = Rig::start(&daemon).await;
    let ticks = rig.launch(command("/ticks", "for i in $(seq 1 100000); do echo $i; sleep 0.02; done")).await;
    let quits = rig.launch(command("/quits", "sleep 1000")).await;
    rig.status(&ticks, TaskState::Running).await;
    rig.status(&quits, TaskState::Running).await;
    rig.await_output(&ticks, "1\n2\n3\n").await;
    let id = daemon.docker(&["ps", "-q", "--filter", &format!("name={ticks}")]);
    rig.crash().await;

    daemon.docker(&["kill", &format!("xtao-{quits}")]);
    daemon.docker(&["create", "--name", "bystander", "--label", "xtao.cluster=another", IMAGE, "true"]);
    let half = command("/half", "sleep 1000");
    rig.create_only(&daemon, &half).await;
    rig.begin(&daemon).await;
    rig.status(&quits, TaskState::Failed).await;
    rig.status(half.task(), TaskState::Dropped).await;
    let lost = rig::task("/lost");
    rig.call(ClusterCall::Reconcile { tasks: vec![TaskRef { task: lost.clone(), agent: None }], others: true }).await;
    let gone = rig.status(&lost, TaskState::Gone).await;
    assert_eq!(gone.reason, Reason::Reconciliation);
    rig.status(&ticks, TaskState::Running).await;
    assert_eq!(daemon.docker(&["ps", "-q", "--filter", &format!("name={ticks}")]), id);
    rig.removed(&quits).await;
    rig.removed(half.task()).await;

    // What was written meanwhile is kept once.
    let written = rig.output(&ticks, "stdout").lines().count();
    rig.await_lines(&ticks, written + 20).await;
    let lines: Vec<usize> = rig.output(&ticks, "stdout").lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(lines, (1..=lines.len()).collect::<Vec<_>>());
    // What the adopted task holds is not offered.
    assert_eq!(rig.offered_cpus().await, rig.total_cpus() - 0.1);
    rig.kill(&ticks, Some(0)).await;
    rig.status(&ticks, TaskState::Killed).await;
    rig.removed(&ticks).await;
    assert_eq!(daemon.containers(), ["bystander created"]);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_is_remembered_beyond_a_restart() {
    let daemon = Daemon::start(Options::default());
    let mut rig = Rig::start(&daemon).await;
    let task = rig.launch(command("/t", "trap 'echo told; sleep 1; exit 1' TERM; echo ready; while true; do sleep 0.1; done")).await;
    rig.await_output(&task, "ready\n").await;
    rig.kill(&task, Some(60_000)).await;
    // Docker has been told, too: otherwise the container would not end while nobody looks.
    rig.await_output(&task, "ready\ntold\n").await;
    rig.await_file(&task, ".killed").await;
    rig.crash().await;
    while !daemon.containers().iter().all(|line| line.ends_with("exited")) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    rig.begin(&daemon).await;
    rig.status(&task, TaskState::Killed).await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_is_asked_once_to_end_and_its_time_goes_on_while_the_server_is_away() {
    let daemon = Daemon::start(Options::default());
    let mut rig = Rig::start(&daemon).await;
    let mut stubborn = command("/stubborn", "trap 'echo told' TERM; echo ready; while true; do sleep 0.1; done");
    stubborn.app().kill_grace_ms = Some(600_000);
    let task = rig.launch(stubborn).await;
    rig.await_output(&task, "ready\n").await;
    rig.crash().await;
    // As whoever does not know the app any more: it may take as long as it was launched with.
    rig.begin(&daemon).await;
    rig.kill(&task, None).await;
    rig.await_output(&task, "ready\ntold\n").await;
    rig.asked(&task).await;
    rig.crash().await;
    // Whoever asks again is not passed on.
    rig.begin(&daemon).await;
    rig.kill(&task, Some(600_000)).await;
    let later = rig.launch(command("/later", "exit 0")).await;
    rig.status(&later, TaskState::Finished).await;
    rig.crash().await;
    rig.let_the_grace_pass(&task);
    rig.begin(&daemon).await;
    let killed = rig.status(&task, TaskState::Killed).await;
    assert_eq!(killed.message, "Container exited with status 137 (signal 9, SIGKILL)");
    rig.removed(&task).await;
    assert_eq!(rig.output(&task, "stdout"), "ready\ntold\n");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_is_killed_loses_its_containers_without_live_restore() {
    let mut daemon = Daemon::start(Options::default());
    let mut rig = Rig::start(&daemon).await;
    let task = rig.launch(command("/t", "sleep 1000")).await;
    rig.status(&task, TaskState::Running).await;
    daemon.kill();
    rig.event(|event| matches!(event, ClusterEvent::Disconnected { .. })).await;
    daemon.launch();
    rig.event(|event| matches!(event, ClusterEvent::Connected { .. })).await;
    rig.status(&task, TaskState::Failed).await;
    let next = rig.launch(command("/next", "sleep 1000")).await;
    rig.status(&next, TaskState::Running).await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_is_killed_keeps_its_containers_with_live_restore() {
    let mut daemon = Daemon::start(Options { live_restore: true, ..Options::default() });
    let mut rig = Rig::start(&daemon).await;
    let keeps = rig.launch(command("/keeps", "for i in $(seq 1 100000); do echo $i; sleep 0.05; done")).await;
    let quits = rig.launch(command("/quits", "while ! [ -e /tmp/quit ]; do sleep 0.1; done; exit 5")).await;
    rig.status(&keeps, TaskState::Running).await;
    rig.status(&quits, TaskState::Running).await;
    rig.await_output(&keeps, "1\n2\n").await;
    let pid = daemon.docker(&["inspect", "-f", "{{.State.Pid}}", &format!("xtao-{quits}")]);
    daemon.kill();
    rig.event(|event| matches!(event, ClusterEvent::Disconnected { .. })).await;
    // One ends while nobody looks.
    std::fs::write(format!("/proc/{pid}/root/tmp/quit"), "").unwrap();
    while std::path::Path::new(&format!("/proc/{pid}/root/bin")).exists() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    daemon.launch();
    rig.event(|event| matches!(event, ClusterEvent::Connected { .. })).await;
    let ended = rig.status(&quits, TaskState::Failed).await;
    assert!(ended.message.starts_with("Container exited with status"), "{}", ended.message);
    rig.await_lines(&keeps, rig.output(&keeps, "stdout").lines().count() + 5).await;
    let lines: Vec<usize> = rig.output(&keeps, "stdout").lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(lines, (1..=lines.len()).collect::<Vec<_>>());
    rig.kill(&keeps, Some(100)).await;
    rig.status(&keeps, TaskState::Killed).await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_hangs_is_waited_for() {
    let daemon = Daemon::start(Options::default());
    let mut rig = Rig::start(&daemon).await;
    let runs = rig.launch(command("/runs", "sleep 1000")).await;
    let dies = rig.launch(command("/dies", "sleep 1000")).await;
    rig.status(&runs, TaskState::Running).await;
    rig.status(&dies, TaskState::Running).await;
    let pid = daemon.docker(&["inspect", "-f", "{{.State.Pid}}", &format!("xtao-{dies}")]);
    daemon.freeze();
    let waits = rig.launch(command("/waits", "sleep 1000")).await;
    rig.kill(&runs, Some(100)).await;
    std::process::Command::new("kill").args(["-9", &pid]).status().unwrap();
    tokio::time::sleep(Duration::from_secs(30)).await;
    daemon.thaw();
    rig.event(|event| matches!(event, ClusterEvent::Disconnected { .. })).await;
    rig.event(|event| matches!(event, ClusterEvent::Connected { .. })).await;
    rig.status(&dies, TaskState::Failed).await;
    rig.status(&runs, TaskState::Killed).await;
    rig.status(&waits, TaskState::Running).await;
    let told: Vec<TaskState> = rig.history(&waits);
    assert!(told.iter().all(|state| matches!(state, TaskState::Staging | TaskState::Starting | TaskState::Running)), "{told:?}");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_is_not_there_yet_is_waited_for() {
    let mut daemon = Daemon::prepare(Options::default());
    let mut rig = Rig::idle(&daemon);
    rig.begin_without_waiting(&daemon);
    tokio::time::sleep(Duration::from_millis(500)).await;
    daemon.launch();
    rig.event(|event| matches!(event, ClusterEvent::Connected { .. })).await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_launches_are_all_accounted_for() {
    let daemon = Daemon::start(Options::default());
    let mut rig = Rig::start(&daemon).await;
    let began = std::time::Instant::now();
    let launches: Vec<_> = (0..20).map(|number| command(&format!("/many{number}"), "sleep 1000")).collect();
    let tasks = rig.launch_all(launches).await;
    for task in &tasks {
        rig.status(task, TaskState::Running).await;
    }
    eprintln!("20 launches took {} ms", began.elapsed().as_millis());
    assert_eq!(daemon.containers().len(), 20);
    for task in &tasks {
        rig.kill(task, Some(0)).await;
    }
    for task in &tasks {
        rig.status(task, TaskState::Killed).await;
        rig.removed(task).await;
    }
    assert_eq!(daemon.containers().len(), 0);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_volume_is_seen_in_the_container() {
    let daemon = Daemon::start(Options::default());
    let mut rig = Rig::start(&daemon).await;
    let shared = daemon.path("shared");
    std::fs::create_dir(&shared).unwrap();
    std::fs::write(shared.join("in"), "from the node\n").unwrap();
    let shown = command("/v", "cat /srv/in /mnt/mesos/sandbox/a/b/in; echo back > /srv/out");
    let shown = volume(volume(shown, &shared.to_string_lossy(), "/srv"), &shared.to_string_lossy(), "a/b");
    let task = rig.launch(shown).await;
    rig.status(&task, TaskState::Finished).await;
    rig.removed(&task).await;
    assert_eq!(rig.output(&task, "stdout"), "from the node\nfrom the node\n");
    let mut back = String::new();
    std::fs::File::open(shared.join("out")).unwrap().read_to_string(&mut back).unwrap();
    assert_eq!(back, "back\n");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_external_volume_outlives_its_tasks() {
    let daemon = Daemon::start(Options::default());
    let mut rig = Rig::start(&daemon).await;
    let db = |cmd: &str| with_external(command("/db", cmd), "rows", "local", &[]);
    let first = rig.launch(db("echo one >> /data/rows; exec sleep 1000")).await;
    rig.status(&first, TaskState::Running).await;
    let described = daemon.docker(&["volume", "inspect", "--format", "{{.Driver}} {{index .Labels \"xtao.app\"}}", "rows"]);
    assert_eq!(described.trim(), "local /db");
    rig.kill(&first, Some(0)).await;
    rig.status(&first, TaskState::Killed).await;
    // What comes after it finds its data; so does what comes after a restart of ours.
    let second = rig.launch(db("cat /data/rows; echo two >> /data/rows; exec sleep 1000")).await;
    rig.await_output(&second, "one\n").await;
    rig.crash().await;
    rig.begin(&daemon).await;
    rig.kill(&second, Some(0)).await;
    rig.status(&second, TaskState::Killed).await;
    let third = rig.launch(db("cat /data/rows")).await;
    rig.status(&third, TaskState::Finished).await;
    rig.removed(&third).await;
    assert_eq!(rig.output(&third, "stdout"), "one\ntwo\n");

    // Options are the driver's. An administrator may use what was there before, and others nothing but their own.
    let options = [("dvdi/type", "tmpfs"), ("dvdi/device", "tmpfs"), ("dvdi/o", "size=1m"), ("other/o", "size=2m")];
    let small = rig.launch(with_external(command("/small", "grep ' /data ' /proc/mounts"), "small", "local", &options)).await;
    rig.status(&small, TaskState::Finished).await;
    rig.removed(&small).await;
    let mount = rig.output(&small, "stdout");
    assert!(mount.starts_with("tmpfs /data tmpfs ") && mount.contains("size=1024k"), "{mount}");
    daemon.docker(&["volume", "create", "foreign"]);
    let admitted = rig.launch(with_external(command("/admin", "true"), "foreign", "local", &[])).await;
    rig.status(&admitted, TaskState::Finished).await;
    let own = rig.launch(with_external(command("/own", "echo mine > /data/x"), "bobs", "local", &[]).account("bob")).await;
    rig.status(&own, TaskState::Finished).await;
    let again = rig.launch(with_external(command("/own", "cat /data/x"), "bobs", "local", &[]).account("bob")).await;
    rig.status(&again, TaskState::Finished).await;
    rig.removed(&again).await;
    assert_eq!(rig.output(&again, "stdout"), "mine\n");
    let bob = |name: &str, options: &[(&str, &str)]| with_external(command("/bob", "true"), name, "local", options).account("bob");
    for (launch, words) in [
        (bob("foreign", &[]), "external volume 'foreign': there is one of that name already that was not made for this owner"),
        (bob("rows", &[]), "external volume 'rows': there is one of that name already that was not made for this owner"),
        (bob("etc", &[("dvdi/type", "none"), ("dvdi/o", "bind"), ("dvdi/device", "/etc")]), "an administrator has to write them"),
        (
            with_external(command("/x", "true"), "x", "no-such-driver", &[]),
            "external volume 'x': Docker has no volume driver 'no-such-driver' on this node (",
        ),
        (with_external(command("/x", "true"), "rows", "other", &[]), "there is one of that name already, of the driver 'local'"),
        (with_external(command("/x", "true"), "a b", "local", &[]), "external volume 'a b': "),
    ] {
        let task = rig.launch(launch).await;
        let status = rig.status(&task, TaskState::Failed).await;
        assert!(status.message.contains(words), "{words}: {}", status.message);
    }
    assert_eq!(daemon.containers(), Vec::<String>::new());
    let mut left: Vec<String> = daemon.docker(&["volume", "ls", "--format", "{{.Name}}"]).lines().map(str::to_owned).collect();
    left.sort();
    assert_eq!(left, ["bobs", "foreign", "rows", "small"], "none is deleted, and none is left of what was refused");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_brick_goes_from_one_holder_to_the_next() {
    let daemon = Daemon::start(Options::default());
    let mut rig = Rig::start(&daemon).await;
    let brick = BrickName::new("db");
    let released = |epoch| BrickReport::Released { brick: BrickName::new("db"), epoch, agent: AgentId::new("node") };

    let first = rig.launch(with_brick(command("/first", "echo one > /data/rows; exec sleep 1000"), &brick, 1)).await;
    rig.status(&first, TaskState::Running).await;
    let used = rig.event(|event| matches!(event, ClusterEvent::Brick(BrickReport::Usage { .. }))).await;
    assert!(matches!(used, ClusterEvent::Brick(BrickReport::Usage { size: 30..=64, .. })), "{used:?}");

    // Not before its container is gone, even when its processes stand still.
    daemon.docker(&["kill", "--signal", "STOP", &format!("xtao-{first}")]);
    rig.release(&brick, 1, &first).await;
    assert!(matches!(rig.brick_report().await, BrickReport::Stuck { .. }));
    rig.kill(&first, Some(100)).await;
    rig.status(&first, TaskState::Killed).await;
    assert_eq!(rig.brick_report().await, released(1));

    // A launch under a lease that is over is refused; the next lease finds the data, and so does one after a restart of ours.
    let late = rig.launch(with_brick(command("/late", "true"), &brick, 1)).await;
    assert!(rig.status(&late, TaskState::Failed).await.message.contains("lease 1 of brick 'db' is over"));
    let second = rig.launch(with_brick(command("/second", "cat /data/rows; echo two >> /data/rows; exec sleep 1000"), &brick, 2)).await;
    rig.await_output(&second, "one\n").await;
    rig.crash().await;
    rig.begin(&daemon).await;
    rig.release(&brick, 2, &second).await;
    assert!(matches!(rig.brick_report().await, BrickReport::Stuck { .. }));
    rig.kill(&second, Some(0)).await;
    rig.status(&second, TaskState::Killed).await;
    assert_eq!(rig.brick_report().await, released(2));
    // Asked twice, it is answered twice.
    rig.release(&brick, 2, &second).await;
    assert_eq!(rig.brick_report().await, released(2));

    // A persistent volume is the same, in the sandbox.
    let third = rig.launch(with_volume(command("/third", "cat $MESOS_SANDBOX/data/rows; exec sleep 1000"), &brick, 3)).await;
    rig.await_output(&third, "one\ntwo\n").await;
    rig.kill(&third, Some(0)).await;
    rig.status(&third, TaskState::Killed).await;
    rig.release(&brick, 3, &third).await;
    assert_eq!(rig.brick_report().await, released(3));

    rig.call(ClusterCall::DestroyBrick { brick: brick.clone(), pool: PoolName::new("datapool"), epoch: 3, agent: None }).await;
    assert_eq!(rig.brick_report().await, BrickReport::Destroyed { brick, epoch: 3 });
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_brick_that_docker_does_not_see_stops_its_container() {
    let daemon = Daemon::start(Options { own_mounts: true, ..Options::default() });
    let mut rig = Rig::start(&daemon).await;
    let brick = BrickName::new("db");
    let task = rig.launch(with_brick(command("/t", "sleep 1000"), &brick, 1)).await;
    let status = rig.status(&task, TaskState::Failed).await;
    assert!(status.message.contains("in a mount namespace of its own?"), "{}", status.message);
    assert_eq!(daemon.containers(), Vec::<String>::new());
    rig.release(&brick, 1, &task).await;
    assert!(matches!(rig.brick_report().await, BrickReport::Released { .. }));
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_lets_what_is_being_started_come_up() {
    let daemon = Daemon::start(Options::default());
    let mut rig = Rig::start(&daemon).await;
    let tasks = rig.launch_all((0..3).map(|number| command(&format!("/t{number}"), "sleep 1000")).collect()).await;
    for task in &tasks {
        rig.status(task, TaskState::Starting).await;
    }
    rig.stop().await;
    assert_eq!(daemon.containers().iter().filter(|line| line.ends_with(" running")).count(), 3);
    rig.begin(&daemon).await;
    rig.call(ClusterCall::Reconcile { tasks: Vec::new(), others: true }).await;
    for task in &tasks {
        rig.status(task, TaskState::Running).await;
    }
    rig.stop().await;
}
