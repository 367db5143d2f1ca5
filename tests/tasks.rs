//! Tasks without an image, on an engine that has no Docker at all: real processes, real supervisors. Needs root.

use std::{
    io::{BufRead, Write},
    path::Path,
};

use xtao::{
    cluster::engine::access::ExecError,
    model::{
        app::{Container, ContainerKind, EnvValue, Fetch, Mode, Secret, Volume},
        cluster::{BrickReport, ClusterEvent, TaskState},
        frame::{Channel, Frame},
        id::{AgentId, BrickName, Owner},
        request::Asker,
        resources::{PortRange, ResourceLimit, ResourceLimits, Scalar},
    },
};

use crate::support::{
    docker::{Daemon, Options},
    rig::{
        self, Rig, check_often, command, grown, held, process, until_no_rest, until_runs, volume, volume_with, with_brick_at,
        with_external, with_volume,
    },
};

/// Where a Docker daemon would be, if there were one.
fn no_docker() -> Daemon {
    Daemon::prepare(Options::default())
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_run_and_end_as_mesos_says_it() {
    let nowhere = no_docker();
    let mut rig = Rig::start(&nowhere).await;
    let hello = rig.launch(process("/hello", "echo out $NAME; echo err >&2; exit 3").env("NAME", "value")).await;
    let ended = rig.status(&hello, TaskState::Failed).await;
    assert_eq!(ended.message, "Command exited with status 3");
    assert_eq!(ended.addresses, rig.addresses());
    assert_eq!(rig.history(&hello), [TaskState::Starting, TaskState::Running, TaskState::Failed]);
    assert_eq!((rig.output(&hello, "stdout").as_str(), rig.output(&hello, "stderr").as_str()), ("out value\n", "err\n"));
    rig.forgotten(&hello).await;

    let cases = [
        ("exit 0", TaskState::Finished, "Command exited with status 0"),
        ("kill -9 $$", TaskState::Failed, "Command terminated with signal Killed"),
        ("kill -11 $$", TaskState::Failed, "Command terminated with signal Segmentation fault"),
        ("exit 137", TaskState::Failed, "Command exited with status 137"),
        ("no-such-command", TaskState::Failed, "Command exited with status 127"),
    ];
    for (cmd, state, message) in cases {
        let task = rig.launch(process("/case", cmd)).await;
        assert_eq!(rig.status(&task, state).await.message, message, "{cmd}");
    }
    let args = rig.launch(process("/args", "").args(&["/bin/echo", "a  b", "$HOME"])).await;
    rig.status(&args, TaskState::Finished).await;
    assert_eq!(rig.output(&args, "stdout"), "a  b $HOME\n");
    let missing = rig.launch(process("/missing", "").args(&["/no/such/program"])).await;
    let message = rig.status(&missing, TaskState::Failed).await.message;
    assert_eq!(message, "cannot run /no/such/program: No such file or directory (os error 2) (this node has no such program)");
    assert_eq!(rig.history(&missing), [TaskState::Starting, TaskState::Failed]);
    rig.all_is_free().await;

    // What needs Docker says so, and holds nothing.
    let image = rig.launch(command("/image", "sleep 1000")).await;
    let message = rig.status(&image, TaskState::Failed).await.message;
    assert!(message.starts_with("Docker cannot be reached on this node: Docker does not answer: the socket "), "{message}");
    rig.all_is_free().await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_sees_its_sandbox_and_nothing_of_the_server() {
    let nowhere = no_docker();
    let mut rig = Rig::start(&nowhere).await;
    let shown = rig
        .launch(
            process("/shown", "pwd; id -u; env | sort; echo x > made; cat /proc/self/oom_score_adj; ls -l /proc/self/fd | wc -l")
                .env("A", "1 2"),
        )
        .await;
    rig.status(&shown, TaskState::Finished).await;
    let text = rig.output(&shown, "stdout");
    let files = nowhere.path("work").join(format!("sandboxes/{shown}/files"));
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(&lines[..2], [files.to_str().unwrap(), "0"]);
    let names: Vec<&str> = lines.iter().filter_map(|line| Some(line.split_once('=')?.0)).collect();
    let expected = [
        "A",
        "HOST",
        "MARATHON_APP_ENFORCE_GROUP_ROLE",
        "MARATHON_APP_ID",
        "MARATHON_APP_LABELS",
        "MARATHON_APP_RESOURCE_CPUS",
        "MARATHON_APP_RESOURCE_DISK",
        "MARATHON_APP_RESOURCE_GPUS",
        "MARATHON_APP_RESOURCE_MEM",
        "MARATHON_APP_VERSION",
        "MESOS_DIRECTORY",
        "MESOS_SANDBOX",
        "MESOS_TASK_ID",
        "PATH",
        "PWD",
    ];
    assert_eq!(names, expected);
    // Three descriptors, the one of the directory that is listed, and a line above them.
    assert_eq!(&lines[lines.len() - 2..], ["0", "5"]);
    assert_eq!(std::fs::read_to_string(files.join("made")).unwrap(), "x\n");

    // Whoever is no administrator is nobody here, and cannot become more.
    let mut guest =
        process("/guest", "id -u; id -G; grep NoNewPrivs /proc/self/status; touch made && ls -ld . made; ls .. ; cat ../stdout");
    guest.app().administered = false;
    let guest = rig.launch(guest.owner("no-such-account-here")).await;
    rig.status(&guest, TaskState::Failed).await;
    let text = rig.output(&guest, "stdout");
    assert!(text.starts_with("65534\n65534\nNoNewPrivs:\t1\ndrwx------ 2 nobody nogroup"), "{text}");
    let errors = rig.output(&guest, "stderr");
    assert_eq!(errors.matches("Permission denied").count(), 2, "{errors}");
    let mut proud = process("/proud", "id");
    proud.app().administered = false;
    proud.app().user = Some("root".into());
    let proud = rig.launch(proud.owner("ann")).await;
    let message = rig.status(&proud, TaskState::Error).await.message;
    assert_eq!(message, "user 'root': only what administrators wrote runs as another account; leave it out, or say 'ann'");
    let mut daemon = process("/daemon", "id -un");
    daemon.app().user = Some("daemon".into());
    let daemon = rig.launch(daemon).await;
    rig.status(&daemon, TaskState::Finished).await;
    assert_eq!(rig.output(&daemon, "stdout"), "daemon\n");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn checks_run_as_the_task_and_end_with_it() {
    let nowhere = no_docker();
    let mut rig = Rig::start(&nowhere).await;
    let mut asked = process("/asked", "echo here > file; echo ready; exec sleep 1000").env("NAME", "value");
    asked.app().user = Some("daemon".into());
    let task = rig.launch(asked).await;
    rig.status(&task, TaskState::Running).await;
    rig.await_output(&task, "ready\n").await;
    let access = rig.access();
    let words = |command: &str| vec!["/bin/sh".to_owned(), "-c".to_owned(), command.to_owned()];
    let check = async |command: Vec<String>| {
        let (_input, output) = access.exec(&task, command, None, &Asker::Definition).await.unwrap();
        let [said, errors, code] = rig::conversation(output).await;
        assert_eq!(said + &errors, "");
        code
    };
    let groups = format!("cat; cmp /proc/self/cgroup /proc/{}/cgroup", rig.pid(&task, "process"));
    for (command, expected) in [
        ("true", "0"),
        ("exit 3", "3"),
        ("kill -9 $$", "137"),
        // Where the task is, as whom, with its environment and in its control groups, with nothing to read.
        ("test \"$(cat file)$NAME\" = herevalue", "0"),
        ("test \"$(id -un)\" = daemon", "0"),
        ("test \"$PWD\" = \"$MESOS_SANDBOX\"", "0"),
        (&groups, "0"),
    ] {
        assert_eq!(check(words(command)).await, expected, "{command}");
    }
    assert_eq!(check(vec!["/no/such/program".into()]).await, "126");
    // What it says is not the task's.
    check(words("echo noise; echo noise >&2")).await;
    assert_eq!(rig.output(&task, "stdout"), "ready\n");
    // Nobody waits for it any more, with all that it has begun; and one that is waited for ends with the task.
    let forgotten = access.exec(&task, words("setsid sleep 654322 & sleep 654322"), None, &Asker::Definition).await.unwrap();
    until_runs("sleep 654322", true).await;
    drop(forgotten);
    until_runs("sleep 654322", false).await;
    assert_eq!(check(words("setsid sleep 654324 & exit 4")).await, "4");
    until_runs("sleep 654324", false).await;
    let (_input, output) = access.exec(&task, words("exec sleep 654323"), None, &Asker::Definition).await.unwrap();
    until_runs("sleep 654323", true).await;
    rig.kill(&task, None).await;
    assert_eq!(rig::conversation(output).await[2], "137");
    rig.status(&task, TaskState::Killed).await;
    let gone = access.exec(&task, words("true"), None, &Asker::Definition).await.unwrap_err().to_string();
    assert_eq!(gone, format!("task '{task}' does not run"));
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn people_run_commands_beside_a_task() {
    let nowhere = no_docker();
    let mut rig = Rig::start(&nowhere).await;
    let mut asked = process("/asked", "echo here > file; echo ready; exec sleep 1000").env("NAME", "value").owner("ann");
    asked.app().administered = false;
    asked.app().user = Some("nobody".into());
    let task = rig.launch(asked).await;
    rig.await_output(&task, "ready\n").await;
    let access = rig.access();
    let ann = Asker::User(Owner::new("ann"));
    let words = |command: &str| vec!["/bin/sh".to_owned(), "-c".to_owned(), command.to_owned()];
    let frame = |channel, text: &str| Frame { channel, payload: text.as_bytes().to_vec() };

    // Input, both outputs and the exit code; in the task's place, as it, within its limits, without a way to more.
    let (input, output) = access.exec(&task, words("cat; echo error >&2; exit 3"), None, &ann).await.unwrap();
    for piece in ["hello ", "you", ""] {
        input.send(frame(Channel::Stdin, piece)).await.unwrap();
    }
    assert_eq!(rig::conversation(output).await, ["hello you", "error\n", "3"]);
    let run = async |command: &str, terminal| {
        let (_input, output) = access.exec(&task, words(command), terminal, &ann).await.unwrap();
        rig::conversation(output).await
    };
    let shown = format!(
        "cat file; echo $NAME $(id -un); test $PWD = $MESOS_SANDBOX && echo there; cmp /proc/self/cgroup /proc/{}/cgroup && echo limited; \
         grep NoNewPrivs /proc/self/status; ls -l /proc/self/fd | wc -l",
        rig.pid(&task, "process")
    );
    let expected = "here\nvalue nobody\nthere\nlimited\nNoNewPrivs:\t1\n5\n";
    assert_eq!(run(&shown, None).await, [expected, "", "0"]);
    // More than all the pipes on the way hold at once.
    let [much, _, code] = run("head -c 3000000 /dev/zero | tr '\\0' x", None).await;
    assert_eq!((much.len(), &*code), (3_000_000, "0"));
    let [_, errors, code] = async {
        let (_input, output) = access.exec(&task, vec!["/no/such/program".into()], None, &ann).await.unwrap();
        rig::conversation(output).await
    }
    .await;
    let missing = "cannot run /no/such/program: No such file or directory (os error 2) (this node has no such program)\n";
    assert_eq!((&*errors, &*code), (missing, "126"));
    assert_eq!(run("kill -9 $$", None).await[2], "137");

    // A terminal: of that size, resized, the command's own to open and to be interrupted by.
    let terminal = Some((80, 24));
    assert_eq!(
        run("stty size; echo $TERM; tty < /dev/tty > /dev/null && echo > $(tty) && exit 5", terminal).await,
        ["24 80\r\nxterm\r\n\r\n", "", "5"]
    );
    let (input, output) = access.exec(&task, words("read x; stty size; exec cat"), terminal, &ann).await.unwrap();
    input.send(frame(Channel::Resize, r#"{"columns": 100, "lines": 40}"#)).await.unwrap();
    input.send(frame(Channel::Stdin, "\n")).await.unwrap();
    input.send(frame(Channel::Stdin, "\x04")).await.unwrap();
    let [shown, errors, code] = rig::conversation(output).await;
    assert!(shown.contains("40 100") && errors.is_empty() && code == "0", "{shown} {errors} {code}");
    let (input, output) = access.exec(&task, words("exec sleep 654332"), terminal, &ann).await.unwrap();
    until_runs("sleep 654332", true).await;
    input.send(frame(Channel::Stdin, "\x03")).await.unwrap();
    assert_eq!(rig::conversation(output).await[2], "130");

    // It is not everybody's to use the task's rights on the node.
    let bob = Asker::User(Owner::new("bob"));
    let refused = access.exec(&task, words("true"), None, &bob).await.unwrap_err();
    assert!(matches!(refused, ExecError::NotYours(..)), "{refused}");
    let administered = rig.launch(process("/administered", "echo ready; exec sleep 1000").owner("ann")).await;
    rig.await_output(&administered, "ready\n").await;
    let refused = access.exec(&administered, words("id"), None, &ann).await.unwrap_err().to_string();
    assert!(refused.contains("runs as administrators wrote it"), "{refused}");
    let (_input, output) = access.exec(&administered, words("id -u"), None, &Asker::Administrator).await.unwrap();
    assert_eq!(rig::conversation(output).await, ["0\n", "", "0"]);

    // Who leaves takes along what was begun, whatever it does with signals, sessions and its input; so does the server's end, and the task's.
    for (number, form) in [(654_333, None), (654_334, terminal)] {
        let command = format!("trap '' TERM HUP; setsid sleep {number} & sleep {number}");
        let left = access.exec(&task, words(&command), form, &ann).await.unwrap();
        until_runs(&format!("sleep {number}"), true).await;
        drop(left);
        until_runs(&format!("sleep {number}"), false).await;
        let (_input, output) = access.exec(&administered, words(&command), form, &Asker::Administrator).await.unwrap();
        until_runs(&format!("sleep {number}"), true).await;
        // The supervisor of the task is killed, so nobody is there to kill its control groups but the server, which does not run.
        if form.is_some() {
            rig.crash().await;
            let shim = rustix::process::Pid::from_raw(rig.pid(&administered, "shim")).unwrap();
            rustix::process::kill_process(shim, rustix::process::Signal::KILL).unwrap();
            assert_eq!(rig::conversation(output).await[2], "137");
            until_runs(&format!("sleep {number}"), false).await;
            rig.begin(&nowhere).await;
        } else {
            drop(output);
            until_runs(&format!("sleep {number}"), false).await;
        }
    }
    let (_input, output) = access.exec(&task, words("setsid sleep 654335 & exec sleep 654335"), None, &ann).await.unwrap();
    until_runs("sleep 654335", true).await;
    rig.kill(&task, None).await;
    assert_eq!(rig::conversation(output).await[2], "137");
    until_runs("sleep 654335", false).await;
    rig.status(&task, TaskState::Killed).await;
    assert_eq!(rig.output(&task, "stdout"), "ready\n");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hundreds_of_checks_of_a_command_leave_nothing_behind() {
    let nowhere = no_docker();
    let mut rig = Rig::start(&nowhere).await;
    let task = rig.launch(process("/asked", "exec sleep 1000")).await;
    rig.status(&task, TaskState::Running).await;
    let access = rig.access();
    let files = || walkdir(&nowhere.path("work"));
    // What is opened once and kept is open from here on.
    check_often(&access, &task, 16).await;
    let (me, before) = ([std::process::id()], (held(&[std::process::id()]), files()));
    check_often(&access, &task, 400).await;
    until_no_rest("this process holds no more than before", || grown(held(&me), before.0)).await;
    assert_eq!(files(), before.1);
    rig.kill(&task, None).await;
    rig.status(&task, TaskState::Killed).await;
    rig.stop().await;
}

/// How many files and directories there are below.
fn walkdir(directory: &Path) -> usize {
    let entries = std::fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok);
    entries.map(|entry| if entry.file_type().is_ok_and(|kind| kind.is_dir()) { 1 + walkdir(&entry.path()) } else { 1 }).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_keep_their_grace_and_leave_nobody() {
    let nowhere = no_docker();
    let mut rig = Rig::start(&nowhere).await;
    let polite = rig.launch(process("/polite", "trap 'echo bye; exit 0' TERM; echo ready; while true; do sleep 0.1; done")).await;
    let stubborn = rig.launch(process("/stubborn", "trap '' TERM; echo ready; while true; do sleep 0.1; done")).await;
    // Children get the signal, too, and one that ignores it does not stay.
    let parent = rig.launch(process("/parent", "(trap '' TERM; exec sleep 654321) & echo ready; wait")).await;
    // A daemon: forked twice, in a session of its own, with the output closed.
    let daemon = "setsid sh -c 'sleep 765432 >/dev/null 2>&1 &' ; echo ready; exec sleep 1000";
    let daemon = rig.launch(process("/daemon", daemon)).await;
    for task in [&polite, &stubborn, &parent, &daemon] {
        rig.status(task, TaskState::Running).await;
        rig.await_output(task, "ready\n").await;
    }
    until_runs("sleep 654321", true).await;
    until_runs("sleep 765432", true).await;
    rig.kill(&polite, Some(60_000)).await;
    rig.kill(&stubborn, Some(500)).await;
    rig.kill(&parent, Some(60_000)).await;
    rig.kill(&daemon, Some(60_000)).await;
    assert_eq!(rig.status(&polite, TaskState::Killed).await.message, "Command exited with status 0");
    assert_eq!(rig.status(&stubborn, TaskState::Killed).await.message, "Command terminated with signal Killed");
    assert_eq!(rig.status(&parent, TaskState::Killed).await.message, "Command terminated with signal Terminated");
    assert_eq!(rig.status(&daemon, TaskState::Killed).await.message, "Command terminated with signal Terminated");
    until_runs("sleep 654321", false).await;
    until_runs("sleep 765432", false).await;
    assert_eq!(rig.output(&polite, "stdout"), "ready\nbye\n");

    // What ends by itself leaves nobody either.
    let leaves = rig.launch(process("/leaves", "setsid sh -c 'sleep 876543 &' ; sleep 876542 & echo done")).await;
    rig.status(&leaves, TaskState::Finished).await;
    until_runs("sleep 876543", false).await;
    until_runs("sleep 876542", false).await;
    assert_eq!(rig.output(&leaves, "stdout"), "done\n");
    for task in [&polite, &stubborn, &parent, &daemon, &leaves] {
        rig.forgotten(task).await;
        for tree in ["cpu", "memory", "pids", ""] {
            assert!(!Path::new("/sys/fs/cgroup").join(tree).join("xtao").join(task.to_string()).exists());
        }
    }
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_dies_and_its_tasks_do_not() {
    let nowhere = no_docker();
    let mut rig = Rig::start(&nowhere).await;
    let lives = rig.launch(process("/lives", "echo begun; trap 'echo bye; exit 0' TERM; while true; do sleep 0.1; done")).await;
    let ends = rig.launch(process("/ends", "while [ ! -e go ]; do sleep 0.02; done; echo last words; exit 7")).await;
    let orphan = rig.launch(process("/orphan", "sleep 987654 & exec sleep 987655")).await;
    let stopping = rig.launch(process("/stopping", "trap '' TERM; echo ready; while true; do sleep 0.1; done")).await;
    for task in [&lives, &ends, &orphan, &stopping] {
        rig.status(task, TaskState::Running).await;
    }
    rig.await_output(&lives, "begun\n").await;
    rig.await_output(&stopping, "ready\n").await;
    rig.kill(&stopping, Some(600_000)).await;
    rig.await_file(&stopping, ".killed").await;
    let pid = rig.pid(&lives, "process");
    rig.crash().await;

    // While nobody looks one ends, one loses its supervisor, and one that was asked to end is killed.
    std::fs::write(nowhere.path("work").join(format!("sandboxes/{ends}/files/go")), "").unwrap();
    let signal =
        |pid: i32| rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), rustix::process::Signal::KILL).unwrap();
    signal(rig.pid(&orphan, "shim"));
    signal(rig.pid(&stopping, "process"));
    let ended = rig.records(&ends).join("ended.json");
    rig::eventually(|| ended.exists() && rig.records(&stopping).join("ended.json").exists()).await;

    rig.begin(&nowhere).await;
    let told = rig.status(&ends, TaskState::Failed).await;
    assert_eq!(told.message, "Command exited with status 7");
    assert_eq!(rig.output(&ends, "stdout"), "last words\n");
    let message = rig.status(&orphan, TaskState::Failed).await.message;
    assert_eq!(message, "The end of the command was not seen: its supervisor was killed");
    until_runs("sleep 987654", false).await;
    until_runs("sleep 987655", false).await;
    assert_eq!(rig.status(&stopping, TaskState::Killed).await.message, "Command terminated with signal Killed");
    // The same process as before, which ends as if nothing had happened.
    assert_eq!(rig.pid(&lives, "process"), pid);
    assert!(Path::new(&format!("/proc/{pid}")).exists());
    rig.kill(&lives, None).await;
    assert_eq!(rig.status(&lives, TaskState::Killed).await.message, "Command exited with status 0");
    assert_eq!(rig.output(&lives, "stdout"), "begun\nbye\n");
    rig.all_is_free().await;

    // What was ordered and never begun is given up.
    let wanted = process("/never", "echo never");
    rig.stop().await;
    rig.order_only(&wanted);
    rig.begin(&nowhere).await;
    let message = rig.status(wanted.task(), TaskState::Dropped).await.message;
    assert_eq!(message, "the server was stopped before the task was started");
    rig.forgotten(wanted.task()).await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_is_asked_once_to_end_and_its_time_goes_on_while_the_server_is_away() {
    let nowhere = no_docker();
    let mut rig = Rig::start(&nowhere).await;
    let mut stubborn = process("/stubborn", "trap 'echo told' TERM; echo ready; while true; do sleep 0.1; done");
    stubborn.app().kill_grace_ms = Some(600_000);
    let task = rig.launch(stubborn).await;
    rig.await_output(&task, "ready\n").await;
    rig.crash().await;
    // As whoever does not know the app any more: it may take as long as it was launched with.
    rig.begin(&nowhere).await;
    rig.kill(&task, None).await;
    rig.await_output(&task, "ready\ntold\n").await;
    rig.asked(&task).await;
    rig.crash().await;
    // Whoever asks again is not passed on.
    rig.begin(&nowhere).await;
    rig.kill(&task, Some(600_000)).await;
    let later = rig.launch(process("/later", "exit 0")).await;
    rig.status(&later, TaskState::Finished).await;
    rig.crash().await;
    // Nor by whoever does not know that it was.
    rig.forget_that_it_was_asked(&task);
    rig.begin(&nowhere).await;
    rig.kill(&task, Some(600_000)).await;
    rig.asked(&task).await;
    let later = rig.launch(process("/later", "exit 0")).await;
    rig.status(&later, TaskState::Finished).await;
    rig.crash().await;
    rig.let_the_grace_pass(&task);
    rig.begin(&nowhere).await;
    assert_eq!(rig.status(&task, TaskState::Killed).await.message, "Command terminated with signal Killed");
    assert_eq!(rig.output(&task, "stdout"), "ready\ntold\n");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_somebody_else_listens_on_is_not_given_to_a_task() {
    let nowhere = no_docker();
    let other = std::net::TcpListener::bind((nowhere.address(), 0)).unwrap();
    let port = other.local_addr().unwrap().port();
    let mut rig = Rig::idle(&nowhere);
    rig.settings().resources.ports = vec![PortRange::new(port, port)];
    rig.begin(&nowhere).await;
    assert_eq!(rig.offered_ports().await, []);
    // Who has been given it all the same, by an older offer, is told.
    let late = rig.launch(process("/late", "exit 0").port(port)).await;
    let message = rig.status(&late, TaskState::Failed).await.message;
    let in_use = |port: u16, holder: &str| format!("port {port} is in use on this node, by {holder}: stop that, or choose another port");
    assert_eq!(message, in_use(port, &rig::own_name()));
    assert_eq!(rig.history(&late), [TaskState::Failed]);
    // Whose it is, is told to administrators alone; and it is all the same where the number comes from.
    let late = rig.launch(process("/late", "exit 0").env("PORT", "@PORT").allotted(port).ordinary()).await;
    assert_eq!(rig.status(&late, TaskState::Failed).await.message, in_use(port, "another process"));
    drop(other);
    // Without anything happening that the engine would know of.
    while rig.offered_ports().await.is_empty() {
        rig.event(|event| matches!(event, ClusterEvent::Offers(_))).await;
    }
    let next = rig.launch(process("/next", "exit 0").port(port)).await;
    rig.status(&next, TaskState::Finished).await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn output_is_kept_within_limits_and_read_to_its_end() {
    let nowhere = no_docker();
    let mut rig = Rig::idle(&nowhere);
    rig.keep_log_bytes(400);
    rig.begin(&nowhere).await;
    let task = rig.launch(process("/counts", "for i in $(seq 1 300); do echo $i; sleep 0.01; done")).await;
    rig.await_output(&task, "1\n").await;
    let expected: Vec<String> = (1..=300).map(|number| number.to_string()).collect();
    assert_eq!(rig.read_to_the_end(&task).await.lines().collect::<Vec<_>>(), expected);
    assert!(rig.output(&task, "stdout").len() <= 400 && rig.output(&task, "stdout.1").len() <= 400);
    // The last of them; and more than a pipe holds at once, in one piece.
    let mut much = process("/much", "head -c 3000000 /dev/zero | tr '\\0' x; echo; echo end >&2");
    much.app().mem = xtao::model::resources::Scalar::whole(64);
    let much = rig.launch(much).await;
    rig.status(&much, TaskState::Finished).await;
    assert_eq!(rig.output(&much, "stderr"), "end\n");
    assert!(rig.output(&much, "stdout").ends_with('\n'));
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_and_processes_are_limited() {
    let nowhere = no_docker();
    let mut rig = Rig::idle(&nowhere);
    rig.settings().pids_limit = 20;
    rig.begin(&nowhere).await;
    let greedy = rig.launch(process("/greedy", "exec dd if=/dev/zero of=/dev/null bs=200M count=1")).await;
    let message = rig.status(&greedy, TaskState::Failed).await.message;
    assert_eq!(message, "Command terminated with signal Killed: out of memory, the limit is 64 MiB; give it more memory");
    let many = rig.launch(process("/many", "for i in $(seq 1 50); do sleep 1000 & done; echo not reached")).await;
    rig.status(&many, TaskState::Failed).await;
    assert!(rig.output(&many, "stderr").contains("ork"), "{}", rig.output(&many, "stderr"));
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_of_the_definition_go_over_what_it_asks_for() {
    let nowhere = no_docker();
    let mut rig = Rig::start(&nowhere).await;
    let at = |units: u64| Some(ResourceLimit::At(Scalar::whole(units)));
    let mut roomy = process("/roomy", "dd if=/dev/zero of=/dev/null bs=200M count=1 && echo fits && exec sleep 1000");
    roomy.app().resource_limits = Some(ResourceLimits { cpus: at(2), mem: at(400) });
    let roomy = rig.launch(roomy).await;
    rig.await_output(&roomy, "fits\n").await;
    let setting = |old: &str, new: &str| {
        let groups = ["cpu", "memory", ""].map(|tree| Path::new("/sys/fs/cgroup").join(tree).join("xtao").join(roomy.to_string()));
        let found = groups.iter().flat_map(|group| [group.join(old), group.join(new)]).find_map(|file| std::fs::read_to_string(file).ok());
        found.unwrap_or_default().trim().to_owned()
    };
    assert_eq!(setting("memory.limit_in_bytes", "memory.max"), (400_u64 << 20).to_string());
    assert_eq!(setting("memory.soft_limit_in_bytes", "memory.low"), (64_u64 << 20).to_string());
    assert!(setting("cpu.cfs_quota_us", "cpu.max").starts_with("200000"));

    let mut narrow = process("/narrow", "exec dd if=/dev/zero of=/dev/null bs=200M count=1");
    narrow.app().resource_limits = Some(ResourceLimits { cpus: None, mem: at(96) });
    let narrow = rig.launch(narrow).await;
    let message = rig.status(&narrow, TaskState::Failed).await.message;
    assert_eq!(message, "Command terminated with signal Killed: out of memory, the limit is 96 MiB; give it more memory");
    let mut boundless = process("/boundless", "exec dd if=/dev/zero of=/dev/null bs=200M count=1");
    boundless.app().resource_limits = Some(ResourceLimits { cpus: Some(ResourceLimit::Unlimited), mem: Some(ResourceLimit::Unlimited) });
    let boundless = rig.launch(boundless).await;
    rig.status(&boundless, TaskState::Finished).await;
    rig.stop().await;
}

/// The plain files below `directory` that have this text in them, in order. What goes away meanwhile has none.
fn with_text(directory: &Path, text: &str) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok) {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => found.extend(with_text(&entry.path(), text)),
            Ok(kind) if kind.is_file() => {
                let content = std::fs::read(entry.path()).unwrap_or_default();
                found.extend(content.windows(text.len()).any(|part| part == text.as_bytes()).then(|| entry.path()));
            }
            _ => {}
        }
    }
    found.sort();
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_finds_its_secrets_in_its_sandbox() {
    let nowhere = no_docker();
    std::fs::set_permissions(nowhere.path(""), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut rig = Rig::idle(&nowhere);
    let secrets = nowhere.path("secrets");
    rig::secret(&secrets, "ann/pw", "hush\n");
    rig.settings().secrets_dir = Some(secrets);
    rig.begin(&nowhere).await;
    let wants = |cmd: &str, path: &str| {
        let mut wanted = process("/wants", cmd);
        wanted.app().secrets.insert("pw".into(), Secret { source: "ann/pw".into() });
        wanted.app().env.insert("PW".into(), EnvValue::Secret { secret: "pw".into() });
        let volume = Volume::Secret { container_path: path.into(), secret: "pw".into() };
        let container =
            Container { kind: ContainerKind::Mesos, docker: None, port_mappings: vec![], volumes: vec![volume], linux_info: None };
        wanted.app().container = Some(container);
        wanted
    };
    let ordinary = |mut wanted: rig::Wanted, owner: &str| {
        wanted.app().administered = false;
        wanted.owner(owner)
    };
    let cmd = "id -u; test $(cat pw)$PW = hushhush && echo known; exec sleep 1000";
    let task = rig.launch(ordinary(wants(cmd, "pw"), "daemon")).await;
    rig.await_output(&task, "1\nknown\n").await;
    let link = rig.file(&task, "files/pw");
    assert!(link.exists());
    let work_dir = rig.settings().work_dir.clone();
    let kept = with_text(&work_dir, "hush");
    assert_eq!(kept, [rig.records(&task).join("order.json"), work_dir.join(format!("secrets/{task}/0"))]);

    // Another user's commands, as whom nothing is kept from anybody, find neither of it; nor can they have a secret.
    let cmd = format!(
        "for file in /proc/{pid}/environ /proc/{pid}/cwd/pw {} {}; do cat $file && echo read; done; ls {} && echo listed; echo done",
        kept[0].display(),
        kept[1].display(),
        work_dir.join("secrets").display(),
        pid = rig.pid(&task, "process"),
    );
    let curious = rig.launch(ordinary(process("/curious", &cmd), "no-such-account-here")).await;
    rig.status(&curious, TaskState::Finished).await;
    assert_eq!(rig.output(&curious, "stdout"), "done\n");
    assert_eq!(rig.output(&curious, "stderr").matches("Permission denied").count(), 5, "{}", rig.output(&curious, "stderr"));
    let homeless = rig.launch(ordinary(wants("true", "pw"), "no-such-account-here")).await;
    let message = rig.status(&homeless, TaskState::Error).await.message;
    assert!(message.starts_with("a command that runs as 'nobody' can keep no secret: "), "{message}");

    rig.kill(&task, None).await;
    rig.status(&task, TaskState::Killed).await;
    rig.forgotten(&task).await;
    // What is kept of the task leads nowhere.
    rig.until(async || !link.exists()).await;
    assert!(link.symlink_metadata().is_ok());
    assert_eq!(with_text(&work_dir, "hush"), Vec::<std::path::PathBuf>::new());
    assert!(!rig.messages(&task).iter().any(|message| message.contains("hush")));

    let elsewhere = rig.launch(wants("true", "/run/pw")).await;
    let message = rig.status(&elsewhere, TaskState::Error).await.message;
    assert_eq!(message, "a command without an image finds its secrets in its sandbox alone: write a relative containerPath");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_may_have_a_terminal() {
    let nowhere = no_docker();
    let mut rig = Rig::start(&nowhere).await;
    let cmd = "for fd in 0 1 2; do test -t $fd && echo $fd; done; echo err >&2; echo $TERM > /dev/tty; exit 3";
    let mut shown = process("/shown", cmd);
    shown.app().tty = Some(true);
    let shown = rig.launch(shown).await;
    assert_eq!(rig.status(&shown, TaskState::Failed).await.message, "Command exited with status 3");
    assert_eq!((rig.output(&shown, "stdout").as_str(), rig.output(&shown, "stderr").as_str()), ("0\r\n1\r\n2\r\nerr\r\nxterm\r\n", ""));

    // It is the account's own, which may open it by its name; and a command that runs on is killed as any other.
    let mut guest = process("/guest", "echo through > $(tty); exec sleep 1000").owner("no-such-account-here");
    guest.app().administered = false;
    guest.app().tty = Some(true);
    let guest = rig.launch(guest).await;
    rig.await_output(&guest, "through\r\n").await;
    rig.kill(&guest, None).await;
    assert_eq!(rig.status(&guest, TaskState::Killed).await.message, "Command terminated with signal Terminated");

    let mut plain = process("/plain", "test -t 1 || echo none");
    plain.app().tty = Some(false);
    let plain = rig.launch(plain).await;
    rig.status(&plain, TaskState::Finished).await;
    assert_eq!(rig.output(&plain, "stdout"), "none\n");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_in_a_session_of_its_own_is_asked_to_end_too() {
    let nowhere = no_docker();
    let mut rig = Rig::start(&nowhere).await;
    let aside = "trap 'echo aside; exit' TERM; echo ready; while :; do sleep 0.05; done";
    let cmd = format!("trap 'echo first' TERM; setsid sh -c \"{aside}\" & wait; wait");
    let task = rig.launch(process("/sessions", &cmd)).await;
    rig.await_output(&task, "ready\n").await;
    rig.kill(&task, Some(60_000)).await;
    rig.status(&task, TaskState::Killed).await;
    let mut words: Vec<String> = rig.output(&task, "stdout").lines().map(str::to_owned).collect();
    words.sort();
    assert_eq!(words, ["aside", "first", "ready"]);
    rig.stop().await;
}

/// Answers each request by its path, and everything else with 404, until the test ends.
fn serve(answers: Vec<(&'static str, Vec<u8>)>) -> std::net::SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut line = String::new();
            std::io::BufReader::new(&stream).read_line(&mut line).unwrap();
            let path = line.split(' ').nth(1).unwrap_or_default();
            let found = answers.iter().find(|(known, _)| *known == path);
            let head = match path {
                "/away" => "302 Found\r\nLocation: http://169.254.169.254/latest\r\nContent-Length: 0".to_owned(),
                "/far" => "302 Found\r\nLocation: file:///etc/passwd\r\nContent-Length: 0".to_owned(),
                _ => format!(
                    "{}\r\nContent-Length: {}",
                    if found.is_some() { "200 OK" } else { "404 Not Found" },
                    found.map_or(0, |(_, body)| body.len())
                ),
            };
            _ = stream.write_all(format!("HTTP/1.1 {head}\r\nConnection: close\r\n\r\n").as_bytes());
            _ = stream.write_all(found.map_or(&[][..], |(_, body)| body));
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_task_fetches_is_there_before_it_starts() {
    let nowhere = no_docker();
    let made = nowhere.path("made");
    std::fs::create_dir_all(made.join("app/bin")).unwrap();
    std::fs::write(made.join("app/bin/hello"), "#!/bin/sh\necho hello from $0\n").unwrap();
    std::fs::create_dir_all(made.join("deps")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", made.join("deps/passwd")).unwrap();
    let tar = |kind: &str, name: &str| {
        std::process::Command::new("tar").arg(kind).arg(made.join("a")).arg("-C").arg(&made).arg(name).status().unwrap();
        std::fs::read(made.join("a")).unwrap()
    };
    let mut packer = lzma_rust2::XzWriter::new(Vec::new(), lzma_rust2::XzOptions::with_preset(0)).unwrap();
    packer.write_all(&tar("-cf", "deps")).unwrap();
    let deps = packer.finish().unwrap();
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packer.write_all(b"words\n").unwrap();
    let words = packer.finish().unwrap();
    let web = serve(vec![
        ("/x/app.tgz?key=secret", tar("-czf", "app")),
        ("/run", b"#!/bin/sh\necho ran\n".to_vec()),
        ("/deps.tar.xz", deps),
        ("/words.gz", words),
    ]);
    let mut rig = Rig::start(&nowhere).await;
    std::fs::create_dir_all(nowhere.path("shared")).unwrap();
    std::fs::write(nowhere.path("shared/note"), "a note\n").unwrap();

    let fetch = |uri: String| Fetch { uri, extract: true, executable: false, cache: false, dest_path: None };
    let local = fetch(format!("file://{}", nowhere.path("shared/note").display()));
    let run = Fetch { executable: true, dest_path: Some("bin/run".into()), ..fetch(format!("http://{web}/run")) };
    let mut wanted = vec![fetch(format!("http://u:hunter2@{web}/x/app.tgz?key=secret")), run, local];
    // Wherever an archive lies, what is in it goes to the root of the sandbox; links in it may lead to what the node has.
    for name in ["deps.tar.xz", "words.gz"] {
        wanted.push(Fetch { dest_path: Some(format!("in/er/{name}")), ..fetch(format!("http://{web}/{name}")) });
    }
    let cmd = "sh app/bin/hello; bin/run; cat note words; grep -o ^root: deps/passwd; ls; ls in/er; stat -c %U . app/bin/hello bin/run";
    let mut all = process("/all", cmd);
    all.app().user = Some("daemon".into());
    all.app().fetch = wanted;
    let all = rig.launch(all).await;
    rig.status(&all, TaskState::Finished).await;
    let expected = [
        "hello from app/bin/hello\nran\na note\nwords\nroot:\n",
        "app\napp.tgz\nbin\ndeps\nin\nnote\nwords\ndeps.tar.xz\nwords.gz\n",
        "daemon\ndaemon\ndaemon\n",
    ];
    assert_eq!(rig.output(&all, "stdout"), expected.concat());
    let told = rig.messages(&all);
    assert!(told.contains(&format!("fetching http://{web}/x/app.tgz")), "{told:?}");
    assert!(!told.iter().any(|message| message.contains("secret") || message.contains("hunter2")), "{told:?}");

    let cases = [
        (true, format!("http://{web}/none"), "the server answers 404 Not Found"),
        (true, format!("http://{web}/away"), "169.254.169.254 is link-local or serves metadata of the machine, which is never fetched"),
        (true, format!("http://{web}/far"), "the server answers 302 Found"),
        (true, "http://169.254.169.254/latest/meta-data".to_owned(), "169.254.169.254 is link-local"),
        (true, "/etc/shadow".to_owned(), "'/etc/shadow' must not be mapped"),
        (true, "file:///no/such/file".to_owned(), "cannot be opened: No such file or directory"),
        (true, "hdfs://a/b".to_owned(), "'hdfs:' cannot be fetched here"),
        (false, format!("http://{web}/run"), "127.0.0.1 is this node itself, which only administrators may fetch from"),
        (false, "http://localhost:1/run".to_owned(), "which only administrators may fetch from"),
    ];
    for (administered, uri, expected) in cases {
        let mut task = process("/case", "true");
        task.app().administered = administered;
        task.app().fetch = vec![fetch(uri.clone())];
        let task = rig.launch(task.owner("ann")).await;
        let message = rig.status(&task, TaskState::Failed).await.message;
        assert!(message.starts_with(&format!("could not fetch {uri}: ")) && message.contains(expected), "{message}");
    }
    // Given up while it comes: nobody reads it any more.
    let slow = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut task = process("/slow", "true");
    task.app().fetch = vec![fetch(format!("http://{}/file", slow.local_addr().unwrap()))];
    let task = rig.launch(task).await;
    let (mut line, _) = slow.accept().await.unwrap();
    // An answer that is there before the question is none.
    assert!(tokio::io::AsyncReadExt::read(&mut line, &mut [0; 4096]).await.unwrap() > 0);
    tokio::io::AsyncWriteExt::write_all(&mut line, b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nabc").await.unwrap();
    rig.kill(&task, None).await;
    assert_eq!(rig.status(&task, TaskState::Killed).await.message, "killed before it was started");
    let rest = async { tokio::io::AsyncReadExt::read_to_end(&mut line, &mut Vec::new()).await };
    // Closed, in whichever way.
    _ = tokio::time::timeout(std::time::Duration::from_secs(20), rest).await.expect("the line is closed");
    // An archive that is none.
    let mut broken = process("/broken", "true");
    broken.app().fetch = vec![Fetch { dest_path: Some("a.tgz".into()), ..fetch(format!("http://{web}/run")) }];
    let broken = rig.launch(broken).await;
    let message = rig.status(&broken, TaskState::Failed).await.message;
    assert!(message.contains("it cannot be unpacked: "), "{message}");
    rig.all_is_free().await;
    rig.stop().await;
}

/// The child of this process that fetches: its number, and what the kernel says of it.
fn fetcher() -> Option<(rustix::process::Pid, String)> {
    let children = std::fs::read_dir("/proc/self/task").unwrap().filter_map(Result::ok);
    let children = children.filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok());
    let children: Vec<i32> =
        children.flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()).collect();
    children.into_iter().find_map(|pid| {
        let of = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}")).ok();
        let words = of("cmdline")?;
        let status = of("status")?;
        words.contains("task-shim\0--fetch").then_some((rustix::process::Pid::from_raw(pid)?, status))
    })
}

/// Answers one question with the beginning of an answer, which stands still then.
async fn begin_an_answer(slow: &tokio::net::TcpListener) -> tokio::net::TcpStream {
    let (mut line, _) = slow.accept().await.unwrap();
    assert!(tokio::io::AsyncReadExt::read(&mut line, &mut [0; 4096]).await.unwrap() > 0);
    tokio::io::AsyncWriteExt::write_all(&mut line, b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nabc").await.unwrap();
    line
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fetches_is_a_process_without_rights() {
    let nowhere = no_docker();
    let mut rig = Rig::start(&nowhere).await;
    let slow = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("http://{}/file", slow.local_addr().unwrap());
    let fetch = Fetch { uri: uri.clone(), extract: true, executable: false, cache: false, dest_path: None };
    let mut task = process("/slow", "true");
    task.app().fetch = vec![fetch.clone()];
    let task = rig.launch(task).await;
    let _line = begin_an_answer(&slow).await;
    let (child, status) = fetcher().expect("there is a process that fetches");
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
    assert_eq!((field("NoNewPrivs:").as_str(), field("Seccomp:").as_str(), field("Seccomp_filters:").as_str()), ("1", "2", "2"));
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
        assert_eq!(field(set), "0000000000000000", "{set}");
    }
    let files = nowhere.path("work").join(format!("sandboxes/{task}/files"));
    let open = std::fs::read_dir(format!("/proc/{}/fd", child.as_raw_nonzero())).unwrap();
    let open = open.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok()).filter(|path| path.is_absolute());
    let (within, outside): (Vec<_>, Vec<_>) = open.partition(|path| path.starts_with(&files));
    assert_eq!((within.len(), outside), (2, Vec::new()), "the sandbox, what is written there, and no file of the server's");
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", child.as_raw_nonzero())).unwrap();
    assert!(limits.lines().any(|line| line.starts_with("Max data size") && line.contains("1073741824")), "{limits}");
    rustix::process::kill_process(child, rustix::process::Signal::KILL).unwrap();
    let message = rig.status(&task, TaskState::Failed).await.message;
    assert_eq!(message, format!("could not fetch {uri}: the process that fetches has ended before it was done (signal: 9 (SIGKILL))"));
    until_no_rest("a process that fetches", || fetcher().map(|(pid, _)| format!("{pid:?}"))).await;
    rig.all_is_free().await;
    rig.stop().await;

    // It ends with who has started it, however that ends.
    let directory = nowhere.path("alone");
    std::fs::create_dir_all(&directory).unwrap();
    let order = serde_json::json!({
        "fetch": [fetch],
        "directory": directory,
        "rule": {"allow": [], "deny": [], "own": []},
        "account": null,
        "trusted": true,
    });
    let mut alone = std::process::Command::new(env!("CARGO_BIN_EXE_xtao"));
    alone.args(["task-shim", "--fetch"]).stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut alone = alone.spawn().unwrap();
    let mut input = alone.stdin.take().unwrap();
    writeln!(input, "{order}").unwrap();
    let _line = begin_an_answer(&slow).await;
    drop(input);
    assert_eq!(tokio::task::spawn_blocking(move || alone.wait()).await.unwrap().unwrap().code(), Some(1));
    // Without an order it says so.
    let mut empty = std::process::Command::new(env!("CARGO_BIN_EXE_xtao"));
    let said = empty.args(["task-shim", "--fetch"]).stdin(std::process::Stdio::null()).output().unwrap();
    assert!(String::from_utf8_lossy(&said.stdout).starts_with("{\"failed\":\"the order cannot be understood: "), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_persistent_volume_goes_from_one_task_to_the_next() {
    let nowhere = no_docker();
    let mut rig = Rig::start(&nowhere).await;
    let (mine, other) = (BrickName::new("mine"), BrickName::new("other"));
    let released = |brick: &BrickName, epoch| BrickReport::Released { brick: brick.clone(), epoch, agent: AgentId::new("node") };

    // The second one begins while the first one's is mounted, and must not hold it.
    let first = rig.launch(with_volume(process("/first", "echo one > data/rows; ls data; exec sleep 1000"), &mine, 1)).await;
    rig.await_output(&first, "rows\n").await;
    let own_mounts = format!("grep -c {}/ /proc/self/mountinfo", rig.settings().work_dir.display());
    let cmd = format!("{own_mounts}; touch data/x && echo fine; exec sleep 1000");
    let mut second = with_volume(process("/second", &cmd), &other, 1);
    second.app().user = Some("nobody".to_owned());
    let second = rig.launch(second).await;
    rig.await_output(&second, "1\nfine\n").await;

    // Its processes keep it, also over a crash of the server.
    rig.crash().await;
    rig.begin(&nowhere).await;
    rig.release(&mine, 1, &first).await;
    assert!(matches!(rig.brick_report_of(&mine).await, BrickReport::Stuck { .. }));
    rig.kill(&first, Some(0)).await;
    rig.status(&first, TaskState::Killed).await;
    assert_eq!(rig.brick_report_of(&mine).await, released(&mine, 1));
    let third = rig.launch(with_volume(process("/third", "cat data/rows"), &mine, 2)).await;
    rig.status(&third, TaskState::Finished).await;
    assert_eq!(rig.output(&third, "stdout"), "one\n");
    for (brick, epoch, task) in [(&mine, 2, &third), (&other, 1, &second)] {
        rig.kill(task, Some(0)).await;
        rig.release(brick, epoch, task).await;
        while rig.brick_report_of(brick).await != released(brick, epoch) {}
    }
    rig.stop().await;
}

/// The supervisors that an older program has started have written less down, or otherwise.
#[tokio::test(flavor = "multi_thread")]
async fn tasks_of_an_older_program_are_taken_over() {
    let nowhere = no_docker();
    let mut rig = Rig::start(&nowhere).await;
    let rows = BrickName::new("rows");
    let plain = process("/plain", "echo here > note; echo ready; exec sleep 1000");
    let data = with_volume(process("/data", "echo one > data/rows; echo ready; exec sleep 1000"), &rows, 1);
    let [plain, data]: [_; 2] = rig.launch_all(vec![plain, data]).await.try_into().unwrap();
    for task in [&plain, &data] {
        // Its beginning is written down by then.
        rig.status(task, TaskState::Running).await;
        rig.await_output(task, "ready\n").await;
    }
    rig.crash().await;
    for task in [&plain, &data] {
        let rewrite = |name: &str, change: fn(&mut serde_json::Value)| {
            let path = rig.records(task).join(name);
            let mut record = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
            change(&mut record);
            // In its place: the supervisor holds a lock on this very file.
            std::fs::write(&path, record.to_string()).unwrap();
        };
        rewrite("order.json", |order| {
            let order = order.as_object_mut().unwrap();
            order.retain(|name, _| !["overhead", "mem_limit", "terminal"].contains(&name.as_str()));
            order["limits"].as_object_mut().unwrap().remove("memory_reservation");
            for volume in order.get_mut("volumes").and_then(|volumes| volumes.as_array_mut()).into_iter().flatten() {
                *volume = serde_json::json!({"source": volume["source"], "name": volume["target"]});
            }
        });
        rewrite("started.json", |started| started.as_object_mut().unwrap().retain(|name, _| name != "namespace" && name != "unlimited"));
    }
    rig.begin(&nowhere).await;
    let access = rig.access();
    for (task, command, expected) in [(&plain, "cat note", "here\n"), (&data, "cat data/rows", "one\n")] {
        let words = ["/bin/sh", "-c", command].map(str::to_owned).to_vec();
        let (_input, output) = access.exec(task, words, None, &Asker::Administrator).await.unwrap();
        assert_eq!(rig::conversation(output).await, [expected, "", "0"]);
        rig.kill(task, None).await;
        rig.status(task, TaskState::Killed).await;
        rig.forgotten(task).await;
    }
    rig.release(&rows, 1, &data).await;
    let released = BrickReport::Released { brick: rows.clone(), epoch: 1, agent: AgentId::new("node") };
    while rig.brick_report_of(&rows).await != released {}
    rig.all_is_free().await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn host_volumes_are_seen_by_a_task_and_by_nobody_else() {
    let nowhere = no_docker();
    let mut rig = Rig::start(&nowhere).await;
    let at = |name: &str| nowhere.path("shared").join(name).to_string_lossy().into_owned();
    let place = nowhere.path("place").to_string_lossy().into_owned();
    for directory in [at("rw"), at("ro"), at("under"), place.clone()] {
        std::fs::create_dir_all(directory).unwrap();
    }
    std::fs::write(at("ro/in"), "from the node\n").unwrap();
    std::fs::write(at("note"), "a note\n").unwrap();
    std::os::unix::fs::symlink("rw", at("link")).unwrap();

    // Writing and reading, relative and absolute, a directory and a file, by a link, and one over another's inside; `/proc` is there no more then.
    let shown = format!(
        "cat note {place}/in; echo made > data/in/made; echo x > {place}/x || echo read-only; echo x > note || echo too; ls; \
         mkdir more; mount -t tmpfs none more; touch more/own; awk '$5 ~ /data.in$|place$/ {{print $6}}' /proc/self/mountinfo; \
         echo ready; exec sleep 654341"
    );
    let wanted = volume(process("/shown", &shown), &at("link"), "data/in");
    let wanted = volume_with(wanted, &at("ro"), &place, Mode::Ro);
    let wanted = volume_with(wanted, &at("note"), "/mnt/mesos/sandbox/note", Mode::Ro);
    let task = rig.launch(wanted).await;
    rig.status(&task, TaskState::Running).await;
    let output = "a note\nfrom the node\nread-only\ntoo\ndata\nnote\nrw,nosuid,nodev,relatime\nro,nosuid,nodev,relatime\nready\n";
    rig.await_lines(&task, output.lines().count()).await;
    assert_eq!(rig.output(&task, "stdout"), output);
    assert_eq!(std::fs::read_to_string(at("rw/made")).unwrap(), "made\n");

    // Who joins it sees what it sees, also what it mounted itself; the node sees nothing of that.
    let access = rig.access();
    let words = |command: &str| vec!["/bin/sh".to_owned(), "-c".to_owned(), command.to_owned()];
    let command = format!("cat {place}/in data/in/made; ls more; echo x > {place}/x");
    let (_input, output) = access.exec(&task, words(&command), None, &Asker::Administrator).await.unwrap();
    let [said, errors, code] = rig::conversation(output).await;
    assert_eq!((&*said, &*code), ("from the node\nmade\nown\n", "2"));
    assert!(errors.contains("Read-only file system"), "{errors}");
    let (_input, output) = access.exec(&task, words("test -e more/own"), None, &Asker::Definition).await.unwrap();
    assert_eq!(rig::conversation(output).await[2], "0");
    let base = nowhere.path("");
    let mounts = || {
        let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        table.lines().filter(|line| line.contains(base.to_str().unwrap())).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(mounts(), Vec::<String>::new());
    assert!(std::fs::read_dir(&place).unwrap().next().is_none());

    // Neither does it when nobody was there to tidy up.
    rig.crash().await;
    let supervisor = rustix::process::Pid::from_raw(rig.pid(&task, "shim")).unwrap();
    rustix::process::kill_process(supervisor, rustix::process::Signal::KILL).unwrap();
    rig.begin(&nowhere).await;
    rig.status(&task, TaskState::Failed).await;
    until_runs("sleep 654341", false).await;
    assert_eq!(mounts(), Vec::<String>::new());
    let namespaces = || {
        let processes = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
        let tables = processes.filter_map(|process| std::fs::read_to_string(process.path().join("mountinfo")).ok());
        tables.filter(|table| table.contains(&place)).count()
    };
    rig::eventually(|| namespaces() == 0).await;

    // What lies over /proc is in nobody's way.
    let blind = volume(volume(process("/blind", "ls /proc; ls p; echo ready; exec sleep 1000"), &at("ro"), "/proc"), &at("rw"), "p");
    let blind = rig.launch(blind).await;
    rig.await_lines(&blind, 3).await;
    assert_eq!(rig.output(&blind, "stdout"), "in\nmade\nready\n");
    let (_input, output) = access.exec(&blind, words("ls /proc; pwd"), None, &Asker::Administrator).await.unwrap();
    let files = nowhere.path("work").join(format!("sandboxes/{blind}/files"));
    assert_eq!(rig::conversation(output).await, [format!("in\n{}\n", files.display()), String::new(), "0".to_owned()]);
    rig.kill(&blind, Some(0)).await;
    rig.status(&blind, TaskState::Killed).await;
    rig.all_is_free().await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn host_volumes_keep_to_the_rule() {
    let nowhere = no_docker();
    let open = |path: &Path| std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    open(&nowhere.path(""));
    let mut rig = Rig::start(&nowhere).await;
    let at = |name: &str| nowhere.path("shared").join(name).to_string_lossy().into_owned();
    for name in ["own", "shown", "secret"] {
        std::fs::create_dir_all(at(name)).unwrap();
    }
    std::os::unix::fs::chown(at("own"), Some(65_534), Some(65_534)).unwrap();
    std::fs::set_permissions(at("secret"), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    std::fs::write(at("file"), "").unwrap();
    std::os::unix::fs::symlink("/etc", at("etc")).unwrap();
    std::os::unix::fs::symlink("/", at("top")).unwrap();
    let work_dir = rig.settings().work_dir.to_string_lossy().into_owned();
    let sandboxes = format!("{work_dir}/sandboxes");
    let refused = |host: &str, target: &str| volume(process("/case", "echo ran"), host, target);
    let user = |host: &str, mode| {
        let mut wanted = volume_with(process("/case", "echo ran > v/made; cat v/made"), host, "v", mode);
        wanted.app().administered = false;
        wanted.account("nobody")
    };
    let over = |outer: &str, inner: &str| volume(volume(process("/case", "echo ran"), &at("own"), inner), &at("shown"), outer);
    for (wanted, words) in [
        (refused("/etc", "v"), "'/etc' must not be mapped as a whole"),
        (refused(&at("etc"), "v"), "'/etc' must not be mapped as a whole"),
        (refused(&at("etc/shadow"), "v"), "'/etc/shadow' must not be mapped"),
        (refused(&work_dir, "v"), "must not be mapped"),
        (
            refused(&at("shown"), &at("none")),
            "No such file or directory (os error 2) (without an image an absolute containerPath has to be there",
        ),
        (refused(&at("shown"), &at("file")), "is no directory, but what is to be seen there is one"),
        (refused(&at("file"), &at("shown")), "is no plain file, but what is to be seen there is one"),
        (refused(&at("shown"), &at("top")), "nothing is mounted over everything"),
        (refused(&at("shown"), &sandboxes), "sandbox"),
        (over("v", "v/w"), "another one hides it"),
        (user(&at("secret"), Mode::Ro), "user 'nobody' may not read it"),
        (user(&at("shown"), Mode::Rw), "user 'nobody' may read it but not write it"),
    ] {
        let task = rig.launch(wanted).await;
        let message = rig.status(&task, TaskState::Failed).await.message;
        assert!(message.contains(words), "{words}: {message}");
        assert_eq!(rig.output(&task, "stdout"), "");
    }
    let external = rig.launch(with_external(process("/case", "true"), "rows", "local", &[])).await;
    let message = rig.status(&external, TaskState::Error).await.message;
    assert!(message.starts_with("external volumes need a container.docker.image"), "{message}");
    let own = rig.launch(user(&at("own"), Mode::Rw)).await;
    rig.status(&own, TaskState::Finished).await;
    assert_eq!(rig.output(&own, "stdout"), "ran\n");
    rig.all_is_free().await;
    rig.stop().await;
}

/// A directory of an ordinary user's, and what that may be told to try with it.
#[tokio::test(flavor = "multi_thread")]
async fn volumes_are_no_way_to_more_rights() {
    let nowhere = no_docker();
    let rights = |path: &Path, mode: u32| std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    rights(&nowhere.path(""), 0o755);
    let mut rig = Rig::start(&nowhere).await;
    let at = |name: &str| nowhere.path("shared").join(name);
    let closed = nowhere.path("closed");
    for directory in [at("own"), at("etc"), at("shown"), closed.clone()] {
        std::fs::create_dir_all(&directory).unwrap();
        std::os::unix::fs::chown(&directory, Some(1), Some(1)).unwrap();
    }
    std::os::unix::fs::chown(&closed, Some(0), Some(0)).unwrap();
    rights(&closed, 0o700);
    // What would make the account root, if anything with root's rights believed it.
    std::fs::write(at("etc/passwd"), "root::1:1::/:/bin/sh\ndaemon::0:0::/:/bin/sh\n").unwrap();
    std::fs::copy("/usr/bin/id", at("own/id")).unwrap();
    rights(&at("own/id"), 0o4755);
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let tries = [
        "su daemon -c true",
        "ls /proc/1/root/",
        "ls /proc/1/fd/",
        "ls /proc/$PPID/root/",
        "ls /proc/$PPID/fd/",
        "cat /proc/$PPID/environ",
        "nsenter --mount=/proc/1/ns/mnt true",
        "nsenter --mount=/proc/$PPID/ns/mnt true",
        "mount -o remount,bind,rw shown",
        "mount --bind v shown",
        "umount shown",
        "umount /etc",
        "mknod v/disk b 7 0",
        "chroot / true",
        "touch shown/x",
        &format!("ls {}", text(&closed)),
        &format!("ls {}", text(&nowhere.path("work/processes"))),
        // As root of a user namespace of its own the mounts are held together still.
        "unshare -Urm umount /etc",
        "unshare -Urm mount -o remount,bind,rw shown",
        "unshare -Urm umount shown",
    ];
    let attempts: String = tries.iter().map(|command| format!("{command} > /dev/null 2>&1 && echo \"got: {command}\"; ")).collect();
    let cmd = format!(
        "id -u; v/id -u; grep NoNewPrivs /proc/self/status; ls /proc/self/fd | wc -l; cat /etc/passwd; {attempts}\
         touch v/made; echo ready; exec sleep 1000"
    );
    let mut wanted = volume(process("/tries", &cmd), &text(&at("own")), "v");
    wanted = volume(wanted, &text(&at("etc")), "/etc");
    wanted = volume_with(wanted, &text(&at("shown")), "shown", Mode::Ro);
    wanted.app().administered = false;
    let task = rig.launch(wanted.account("daemon")).await;
    rig.status(&task, TaskState::Running).await;
    let expected = "1\n1\nNoNewPrivs:\t1\n4\nroot::1:1::/:/bin/sh\ndaemon::0:0::/:/bin/sh\nready\n";
    rig.await_lines(&task, expected.lines().count()).await;
    assert_eq!(rig.output(&task, "stdout"), expected);
    // Whoever joins it is who the task is, whatever the task's own /etc says.
    let access = rig.access();
    for asker in [Asker::User(Owner::new("daemon")), Asker::Administrator] {
        let words = ["/bin/sh", "-c", "id -u; id -G; v/id -u; su daemon -c true > /dev/null 2>&1 && echo got"].map(str::to_owned).to_vec();
        let (_input, output) = access.exec(&task, words, None, &asker).await.unwrap();
        assert_eq!(rig::conversation(output).await[0], "1\n1\n1\n", "{asker:?}");
    }
    let made = std::fs::metadata(at("own/made")).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&made), 1);
    let left = |directory: &str| std::fs::read_dir(at(directory)).unwrap().count();
    assert_eq!((left("own"), left("etc"), left("shown")), (2, 1, 0));

    // An administrator's command may have more rights, but not from a volume.
    let mut administered = volume(process("/administered", "v/id -u"), &text(&at("own")), "v");
    administered.app().user = Some("daemon".to_owned());
    let administered = rig.launch(administered).await;
    rig.status(&administered, TaskState::Finished).await;
    assert_eq!(rig.output(&administered, "stdout"), "1\n");
    rig.stop().await;
}

/// Somebody swaps the directory for a link to a closed one, as often as possible, while tasks are started with it.
#[tokio::test(flavor = "multi_thread")]
async fn a_host_volume_that_is_swapped_meanwhile_is_what_was_allowed_or_nothing() {
    let nowhere = no_docker();
    let mut rig = Rig::idle(&nowhere);
    let at = |name: &str| nowhere.path("shared").join(name);
    std::fs::create_dir_all(at("open")).unwrap();
    std::fs::create_dir_all(nowhere.path("closed")).unwrap();
    std::fs::write(at("open/name"), "open\n").unwrap();
    std::fs::write(nowhere.path("closed/name"), "closed\n").unwrap();
    std::os::unix::fs::symlink(nowhere.path("closed"), at("link")).unwrap();
    rig.settings().host_volume_deny = vec![nowhere.path("closed")];
    rig.begin(&nowhere).await;
    let (one, other) = (at("open"), at("link"));
    let enough = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let until = enough.clone();
    let swaps = std::thread::spawn(move || {
        let mut count = 0_u64;
        while !until.load(std::sync::atomic::Ordering::Relaxed) {
            let flags = rustix::fs::RenameFlags::EXCHANGE;
            rustix::fs::renameat_with(rustix::fs::CWD, &one, rustix::fs::CWD, &other, flags).unwrap();
            count += 1;
            std::thread::yield_now();
        }
        count
    });
    let wanted = |_| volume(process("/swapped", "cat v/name"), &at("open").to_string_lossy(), "v");
    let mut outcomes = std::collections::BTreeMap::<String, usize>::new();
    for _ in 0..4 {
        let tasks = rig.launch_all((0..10).map(wanted).collect()).await;
        for task in tasks {
            while !rig.history(&task).iter().any(|state| matches!(state, TaskState::Finished | TaskState::Failed | TaskState::Error)) {
                rig.event(|event| matches!(event, xtao::model::cluster::ClusterEvent::Status(_))).await;
            }
            let message = rig.messages(&task).pop().unwrap();
            let refused = ["must not be mapped", "it was replaced", "symbolic link", "was moved", "No such file"]
                .iter()
                .any(|words| message.contains(words));
            let output = rig.output(&task, "stdout");
            assert!(output == "open\n" || output.is_empty() && refused, "{output:?} {message}");
            *outcomes.entry(if refused { "refused" } else { "ran" }.to_owned()).or_default() += 1;
        }
    }
    enough.store(true, std::sync::atomic::Ordering::Relaxed);
    assert!(swaps.join().unwrap() > 0 && outcomes.contains_key("refused"), "{outcomes:?}");
    rig.all_is_free().await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_brick_is_held_by_a_task_without_an_image() {
    let nowhere = no_docker();
    let mut rig = Rig::start(&nowhere).await;
    let brick = BrickName::new("rows");
    let released = |epoch| BrickReport::Released { brick: brick.clone(), epoch, agent: AgentId::new("node") };
    let place = nowhere.path("place").to_string_lossy().into_owned();
    std::fs::create_dir_all(&place).unwrap();
    let mut first =
        with_brick_at(process("/db", "echo one > rows/x; stat -c %U rows; exec sleep 1000"), &brick, 1, "/mnt/mesos/sandbox/rows");
    first.app().user = Some("daemon".to_owned());
    let first = rig.launch(first).await;
    rig.await_output(&first, "daemon\n").await;
    rig.crash().await;
    rig.begin(&nowhere).await;
    rig.release(&brick, 1, &first).await;
    assert!(matches!(rig.brick_report_of(&brick).await, BrickReport::Stuck { .. }));
    rig.kill(&first, Some(0)).await;
    rig.status(&first, TaskState::Killed).await;
    assert_eq!(rig.brick_report_of(&brick).await, released(1));
    // Nowhere to see it: it is let go of again.
    let lost = rig.launch(with_brick_at(process("/db", "true"), &brick, 2, "/no/such/place")).await;
    let message = rig.status(&lost, TaskState::Failed).await.message;
    assert!(message.contains("without an image an absolute containerPath has to be there on the node"), "{message}");
    rig.release(&brick, 2, &lost).await;
    assert_eq!(rig.brick_report_of(&brick).await, released(2));
    let second = rig.launch(with_brick_at(process("/db", &format!("cat {place}/x")), &brick, 3, &place)).await;
    rig.status(&second, TaskState::Finished).await;
    assert_eq!(rig.output(&second, "stdout"), "one\n");
    rig.release(&brick, 3, &second).await;
    assert_eq!(rig.brick_report_of(&brick).await, released(3));
    assert!(std::fs::read_dir(&place).unwrap().next().is_none());
    rig.stop().await;
}
