//! `xtao task-shim DIRECTORY`: supervises one task that is a process, on its own, whatever becomes of the server.
//!
//! It leads a session of its own and adopts what the task leaves behind (subreaper), keeps the task's output within limits, and writes down how the task
//! began and ended. It holds the lock on the order while it lives. With the first process of the task everything else of it ends: what has gone into the
//! background is killed.
//!
//! | signal | what it does |
//! | --- | --- |
//! | SIGTERM (also HUP, INT, QUIT) | SIGTERM to every process of the task, also in groups and sessions of their own |
//! | SIGUSR1 | SIGKILL to every process of the task |
//!
//! Between fork and exec no code of ours may run (that would take `unsafe`), so the task's first process is this program once more
//! (`--enter DIRECTORY`): it goes into the control groups, gives up every right that the task should not have, and becomes the task. Its standard input
//! is a pipe that closes when that has worked, and otherwise says why not.
//!
//! A `COMMAND` check of the task goes the same way (`--beside DIRECTORY WORD...`): the server waits for its exit code.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::{Read, Write},
    os::{fd::AsFd, unix::process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    sync::{Arc, Mutex, PoisonError, mpsc},
    time::{Duration, Instant},
};

use nix::sys::signal::{SigSet, Signal as Caught};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, WaitOptions};

use super::{
    limits::Groups,
    record::{Ended, Order, Records, Started},
    tree::{self, Identity},
    volumes,
};
use crate::cluster::engine::{
    sandbox::{Output, Sandbox},
    spec::file_name,
};

/// The name of the command.
pub const COMMAND: &str = "task-shim";
/// How the task's first process is told from the supervisor.
const ENTER: &str = "--enter";
/// And a command that runs beside it.
const BESIDE: &str = "--beside";
/// As shells and Docker have it: there is a command, but it cannot be run.
const CANNOT_RUN: u8 = 126;
/// Read at once from a task's output.
const PIECE_BYTES: usize = 64 << 10;
/// What the task leaves behind is killed again and again for so long.
const KILL_LIMIT: Duration = Duration::from_secs(10);
/// After the end of all processes the last of the output is waited for so long.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// Bytes of a reason.
const MAX_REASON_BYTES: u64 = 4096;
/// Where programs are looked for when the task's environment does not say.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The whole program, after its name and [`COMMAND`].
pub fn main(arguments: &[OsString]) -> ExitCode {
    match arguments {
        [directory] => supervise(&Records::at(directory.into())),
        [enter, directory, groups @ ..] if enter == ENTER => {
            let groups = Groups::known(groups.iter().map(PathBuf::from).collect());
            let reason = become_task(&Records::at(directory.into()), &groups);
            // The supervisor passes it on; without one there is nobody to tell.
            _ = std::io::stderr().write_all(reason.as_bytes());
            ExitCode::from(127)
        }
        [beside, directory, command @ ..] if beside == BESIDE => {
            let reason = run_beside(&Records::at(directory.into()), command);
            _ = std::io::stderr().write_all(reason.as_bytes());
            ExitCode::from(CANNOT_RUN)
        }
        _ => {
            _ = writeln!(std::io::stderr(), "the server starts this by itself, for each task without an image");
            ExitCode::from(2)
        }
    }
}

// === The supervisor ===

/// The signals that are waited for instead of being obeyed.
fn signals() -> SigSet {
    let wanted = [Caught::SIGCHLD, Caught::SIGTERM, Caught::SIGHUP, Caught::SIGINT, Caught::SIGQUIT, Caught::SIGUSR1];
    wanted.into_iter().collect()
}

fn supervise(records: &Records) -> ExitCode {
    close_what_was_inherited();
    if signals().thread_block().is_err() {
        return ExitCode::FAILURE;
    }
    _ = rustix::process::setsid(); // It may lead one already.
    _ = std::env::set_current_dir("/");
    // Without an order there is nothing to do, and nowhere to say so.
    let Ok(Some((order, _held))) = records.supervise() else { return ExitCode::FAILURE };
    let ended = match run(records, &order) {
        Ok(ended) => ended,
        Err(error) => Ended { error: Some(error), ..Ended::default() },
    };
    let written = records.put_ended(&ended);
    tell_server();
    if written.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What whoever started the server left open is neither ours nor the task's. Before anything of our own is open.
fn close_what_was_inherited() {
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else { return };
    let open: Vec<i32> = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
    for number in open.into_iter().filter(|number| *number > 2) {
        // The list's own is closed already.
        _ = nix::unistd::close(number);
    }
}

/// The server waits for the end of our output.
fn tell_server() {
    if let Ok(null) = File::options().write(true).open("/dev/null") {
        _ = rustix::stdio::dup2_stdout(&null);
    }
}

fn run(records: &Records, order: &Order) -> Result<Ended, String> {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).map_err(|error| format!("cannot supervise: {error}"))?;
    let sandbox = Sandbox::open(&order.work_dir, &order.task, order.log_file_bytes);
    let sandbox = sandbox.map_err(|error| format!("the files for its output cannot be made: {error}"))?;
    let (groups, unlimited) = match Groups::make(&order.limits, &file_name(&order.task)) {
        Ok(groups) => (groups, None),
        Err(reason) => (Groups::known(Vec::new()), Some(reason)),
    };
    let outcome = run_in(records, &groups, unlimited, sandbox);
    // However it came out, nothing of the task is left.
    kill_all(&groups);
    reap_all_but(0);
    groups.remove();
    outcome
}

fn run_in(records: &Records, groups: &Groups, unlimited: Option<String>, sandbox: Sandbox) -> Result<Ended, String> {
    let (reason, status) = std::io::pipe().map_err(|error| format!("cannot make a pipe: {error}"))?;
    let mut command = Command::new("/proc/self/exe");
    command.arg(COMMAND).arg(ENTER).arg(records.directory()).args(groups.directories());
    command.env_clear().current_dir("/").stdin(status).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| format!("cannot start a process: {error}"))?;
    drop(command); // And with it our end of the pipe.
    let pid = i32::try_from(child.id()).map_err(|error| error.to_string())?;
    let output = Pumps::start(sandbox, child.stdout.take(), child.stderr.take());
    let mut words = String::new();
    _ = reason.take(MAX_REASON_BYTES).read_to_string(&mut words);
    if !words.is_empty() {
        _ = child.wait();
        return Err(words);
    }
    let started =
        Started { process: Identity::of(pid).map_err(gone)?, shim: own_identity()?, groups: groups.directories().to_vec(), unlimited };
    records.put_started(&started).map_err(|error| format!("its start cannot be written down: {error}"))?;
    tell_server();
    let mut ended = wait(pid, groups)?;
    kill_all(groups);
    output.finish();
    ended.oom = groups.oom_kills() > 0;
    Ok(ended)
}

fn gone(error: std::io::Error) -> String {
    format!("its first process cannot be looked at: {error}")
}

fn own_identity() -> Result<Identity, String> {
    i32::try_from(std::process::id()).map_err(|error| error.to_string()).and_then(|pid| Identity::of(pid).map_err(gone))
}

/// Waits for the first process, and does what signals ask for.
fn wait(pid: i32, groups: &Groups) -> Result<Ended, String> {
    let first = Pid::from_raw(pid).ok_or("a process without a number")?;
    let signals = signals();
    loop {
        // It is looked at without being reaped: its number, and so the group's, means nobody else until everything of it has been killed.
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        match rustix::process::waitid(WaitId::Pid(first), options) {
            Ok(Some(status)) if status.exited() || status.killed() || status.dumped() => {
                let (code, signal) = (status.exit_status(), status.terminating_signal());
                return Ok(Ended { status: code, signal: signal.filter(|_| code.is_none()), ..Ended::default() });
            }
            Ok(_) => {}
            Err(error) => return Err(format!("its end cannot be waited for: {error}")),
        }
        reap_all_but(pid);
        match signals.wait() {
            Ok(Caught::SIGCHLD) => {}
            Ok(Caught::SIGUSR1) => kill_all(groups),
            Ok(_) => terminate(first),
            Err(error) => return Err(format!("signals cannot be waited for: {error}")),
        }
    }
}

/// Asks every process of the task to end, each once: the first one's group as one, and one by one those that have left it (`setsid`).
fn terminate(first: Pid) {
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    let has_left = |pid: &i32| Pid::from_raw(*pid).is_some_and(|pid| rustix::process::getpgid(Some(pid)).is_ok_and(|group| group != first));
    let others = || tree::descendants(own).into_iter().filter(has_left).collect::<Vec<_>>();
    // What only begins in answer to the signal is left alone.
    let found = others();
    _ = rustix::process::kill_process_group(first, Signal::TERM);
    tree::signal_all(found, others, Signal::TERM);
}

/// Reaps what the task's processes left behind.
fn reap_all_but(first: i32) {
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    for pid in tree::ended_children(own).into_iter().filter(|pid| *pid != first) {
        _ = rustix::process::waitpid(Pid::from_raw(pid), WaitOptions::NOHANG);
    }
}

/// Every process of the task; what they leave behind is ours by then, and ends with them.
fn kill_all(groups: &Groups) {
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    let members = || {
        let mut found = groups.members();
        found.extend(tree::descendants(own));
        // What has ended is still in its group until it is reaped.
        found.retain(|pid| tree::is_alive(*pid));
        found.sort_unstable();
        found.dedup();
        found
    };
    // What is in the background is reaped as soon as it is dead; the first process is left to be looked at.
    tree::kill_all(members, KILL_LIMIT, || {});
}

/// Two threads that keep the output.
struct Pumps {
    done: mpsc::Receiver<()>,
    count: usize,
}

impl Pumps {
    fn start(sandbox: Sandbox, stdout: Option<impl Read + Send + 'static>, stderr: Option<impl Read + Send + 'static>) -> Self {
        let sandbox = Arc::new(Mutex::new(sandbox));
        let (sender, done) = mpsc::channel();
        let mut count = 0;
        if let Some(stdout) = stdout {
            count += usize::from(pump(sandbox.clone(), Output::Stdout, stdout, sender.clone()));
        }
        if let Some(stderr) = stderr {
            count += usize::from(pump(sandbox, Output::Stderr, stderr, sender));
        }
        Self { done, count }
    }

    /// Waits for the last of it, but not for ever: a process that nobody could kill may hold a pipe.
    fn finish(self) {
        let until = Instant::now() + LAST_WORDS;
        for _ in 0..self.count {
            if self.done.recv_timeout(until.saturating_duration_since(Instant::now())).is_err() {
                return;
            }
        }
    }
}

/// True when the thread runs.
fn pump(sandbox: Arc<Mutex<Sandbox>>, output: Output, mut from: impl Read + Send + 'static, done: mpsc::Sender<()>) -> bool {
    let work = move || {
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            match from.read(&mut piece) {
                Ok(0) => break,
                // What a full disk does not take is lost: the task must not stand still for it.
                Ok(length) => _ = sandbox.lock().unwrap_or_else(PoisonError::into_inner).write(output, "", &piece[..length]),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        _ = done.send(());
    };
    std::thread::Builder::new().name(output.name().to_owned()).spawn(work).is_ok()
}

// === The task's first process ===

/// Returns only when it did not work, with the reason.
fn become_task(records: &Records, groups: &Groups) -> String {
    let status = match rustix::io::fcntl_dupfd_cloexec(std::io::stdin().as_fd(), 3) {
        Ok(status) => status,
        Err(error) => return format!("cannot keep a pipe: {error}"),
    };
    let reason = try_to_become_task(records, groups);
    _ = rustix::io::write(&status, reason.as_bytes());
    reason
}

fn try_to_become_task(records: &Records, groups: &Groups) -> String {
    match order(records) {
        Ok(order) => become_program(&order, groups, &order.command),
        Err(reason) => reason,
    }
}

/// Returns only when it did not work, with the reason. Everything of the task's, its control groups too: with the task it ends.
fn run_beside(records: &Records, command: &[OsString]) -> String {
    let groups = match records.started() {
        Ok(Some(started)) => Groups::known(started.groups),
        Ok(None) => return "the task has not begun".to_owned(),
        Err(error) => return format!("the task's beginning cannot be read: {error}"),
    };
    match order(records) {
        Ok(order) => become_program(&order, &groups, command),
        Err(reason) => reason,
    }
}

fn order(records: &Records) -> Result<Order, String> {
    records.order().map_err(|error| format!("the order cannot be read: {error}"))?.ok_or_else(|| "the order is gone".to_owned())
}

fn become_program(order: &Order, groups: &Groups, words: &[impl AsRef<OsStr>]) -> String {
    if let Err(reason) = settle(order, groups) {
        return reason;
    }
    let Some((program, arguments)) = words.split_first() else { return "there is nothing to run".to_owned() };
    let mut command = Command::new(program);
    command.args(arguments).env_clear().envs(order.environment.iter().map(|(name, value)| (name, value)));
    let error = command.exec();
    let hint = match error.kind() {
        std::io::ErrorKind::NotFound => " (this node has no such program)",
        std::io::ErrorKind::PermissionDenied => " (it may not be run by the task's user)",
        _ => "",
    };
    format!("cannot run {}: {error}{hint}", program.as_ref().display())
}

/// Everything that has to be so before the task's program begins. Rights go last: they are needed for the rest.
fn settle(order: &Order, groups: &Groups) -> Result<(), String> {
    let failed = |what: &'static str| move |error: rustix::io::Errno| format!("{what}: {error}");
    let null = File::options().read(true).open("/dev/null").map_err(|error| format!("/dev/null cannot be opened: {error}"))?;
    rustix::stdio::dup2_stdin(&null).map_err(failed("cannot close the input"))?;
    rustix::process::setsid().map_err(failed("cannot begin a session"))?;
    groups.join().map_err(|error| format!("cannot go into its control groups: {error}"))?;
    // The server may be protected from the kernel's search for memory; its tasks are not.
    _ = std::fs::write("/proc/self/oom_score_adj", "0");
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    if !order.volumes.is_empty() {
        volumes::see(order).map_err(|error| format!("cannot see its volumes: {error}"))?;
    }
    // As the server: the way there need not be open to the account.
    std::env::set_current_dir(&order.directory)
        .map_err(|error| format!("cannot enter the sandbox {}: {error}", order.directory.display()))?;
    if let Some(account) = &order.account {
        become_account(account).map_err(|error| format!("cannot become user '{}': {error}", account.name))?;
    }
    if order.no_new_privileges {
        rustix::thread::set_no_new_privs(true).map_err(failed("cannot give up rights"))?;
    }
    SigSet::empty().thread_set_mask().map_err(|error| format!("signals cannot be unblocked: {error}"))
}

/// Groups first: afterwards the right to change them is gone. Real, effective and saved ids, so that there is no way back.
fn become_account(account: &crate::cluster::engine::account::Account) -> nix::Result<()> {
    use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
    let groups: Vec<Gid> = account.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
    let (uid, gid) = (Uid::from_raw(account.uid), Gid::from_raw(account.gid));
    setgroups(&groups)?;
    setresgid(gid, gid, gid)?;
    setresuid(uid, uid, uid)
}

/// The command that supervises what is ordered in `directory`.
pub fn command(program: &Path, directory: &Path) -> tokio::process::Command {
    let mut command = tokio::process::Command::new(program);
    command.arg(COMMAND).arg(directory).env_clear().current_dir("/").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    command.kill_on_drop(false);
    command
}

/// The command that runs `words` beside the task whose records are in `directory`. What it says is of no interest.
pub fn beside(program: &Path, directory: &Path, words: &[String]) -> tokio::process::Command {
    let mut command = tokio::process::Command::new(program);
    command.arg(COMMAND).arg(BESIDE).arg(directory).args(words).env_clear().current_dir("/");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    command
}
