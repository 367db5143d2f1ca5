//! `xtao task-shim DIRECTORY`: supervises one task that is a process, on its own, whatever becomes of the server.
//!
//! It leads a session of its own and adopts what the task leaves behind (subreaper), keeps the task's output within limits, and writes down how the task
//! began and ended. It holds the lock on the order while it lives. With the first process of the task everything else of it ends: what has gone into the
//! background is killed.
//!
//! | signal | what it does |
//! | --- | --- |
//! | SIGTERM (also HUP, INT, QUIT) | SIGTERM to every process of the task, also in groups and sessions of their own; once, however often it comes |
//! | SIGUSR1 | SIGKILL to every process of the task |
//!
//! Between fork and exec no code of ours may run (that would take `unsafe`), so the task's first process is this program once more
//! (`--enter DIRECTORY`): it goes into the control groups, makes the task's mount namespace if that has volumes, gives up every right that the task should
//! not have, and becomes the task. Its standard input is a socket that closes when that has worked, and otherwise says why not. Before, a NUL says that the
//! namespace is furnished: the first process goes on when the supervisor has opened it ([`volumes`]).
//!
//! With `tty` the task has a pseudo-terminal, and all that comes out of it is kept as its standard output.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::{Read, Write},
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::{net::UnixStream, process::CommandExt},
    },
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    sync::{Arc, Mutex, PoisonError, mpsc},
    time::{Duration, Instant},
};

use nix::sys::signal::{SigSet, Signal as Caught};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, WaitOptions};

use super::{
    beside::{self, Form},
    limits::Groups,
    record::{Ended, Order, Records, Started},
    tree::{self, Identity},
    volumes,
};
use crate::cluster::engine::{
    fetch, idmap,
    sandbox::{Output, Sandbox},
    spec::file_name,
};

/// The name of the command.
pub const COMMAND: &str = "task-shim";
/// What makes a user namespace for the server, for a moment.
pub(in crate::cluster::engine) const IDS: &str = "--ids";
/// What fetches for a task before that begins.
pub(in crate::cluster::engine) const FETCH: &str = "--fetch";
/// How the task's first process is told from the supervisor.
const ENTER: &str = "--enter";
/// And who supervises a command that runs beside it.
pub(super) const BESIDE: &str = "--beside";
/// And that command.
pub(super) const JOIN: &str = "--join";
/// As shells and Docker have it: there is a command, but it cannot be run.
pub(super) const CANNOT_RUN: u8 = 126;
/// Read at once from a task's output.
const PIECE_BYTES: usize = 64 << 10;
/// What the task leaves behind is killed again and again for so long.
const KILL_LIMIT: Duration = Duration::from_secs(10);
/// After the end of all processes the last of the output is waited for so long.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// What the first process and its supervisor say about the mount namespace.
const FURNISHED: u8 = 0;
/// Bytes of a reason.
const MAX_REASON_BYTES: u64 = 4096;
/// Where programs are looked for when the task's environment does not say.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The whole program, after its name and [`COMMAND`].
pub fn main(arguments: &[OsString]) -> ExitCode {
    match arguments {
        [ids] if ids == IDS => idmap::main(),
        [word] if word == FETCH => fetch::main(),
        [directory] => supervise(&Records::at(directory.into())),
        [enter, directory, groups @ ..] if enter == ENTER => {
            let groups = Groups::known(groups.iter().map(PathBuf::from).collect());
            let reason = become_task(&Records::at(directory.into()), &groups);
            // The supervisor passes it on; without one there is nobody to tell.
            _ = std::io::stderr().write_all(reason.as_bytes());
            ExitCode::from(127)
        }
        [beside, directory, form, command @ ..] if beside == BESIDE => match Form::read(form) {
            Some(form) => beside::supervise(&Records::at(directory.into()), form, command),
            None => usage(),
        },
        [join, directory, form, command @ ..] if join == JOIN => {
            let reason = join_task(&Records::at(directory.into()), Form::read(form), command);
            _ = writeln!(std::io::stderr(), "{reason}");
            ExitCode::from(CANNOT_RUN)
        }
        _ => usage(),
    }
}

fn usage() -> ExitCode {
    _ = writeln!(std::io::stderr(), "the server starts this by itself, for each task without an image");
    ExitCode::from(2)
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
pub(in crate::cluster::engine) fn close_what_was_inherited() {
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
    let outcome = run_in(records, order.terminal, &groups, unlimited, sandbox);
    // However it came out, nothing of the task is left.
    kill_all(&groups);
    reap_all_but(0);
    groups.remove();
    outcome
}

fn run_in(records: &Records, terminal: bool, groups: &Groups, unlimited: Option<String>, sandbox: Sandbox) -> Result<Ended, String> {
    let (status, its) = UnixStream::pair().map_err(|error| format!("cannot make a socket: {error}"))?;
    let mut command = Command::new("/proc/self/exe");
    command.arg(COMMAND).arg(ENTER).arg(records.directory()).args(groups.directories());
    command.env_clear().current_dir("/").stdin(OwnedFd::from(its)).stdout(Stdio::piped()).stderr(Stdio::piped());
    let screen = if terminal { Some(open_terminal(&mut command)?) } else { None };
    let mut child = command.spawn().map_err(|error| format!("cannot start a process: {error}"))?;
    drop(command); // And with it our copy of its end, and of the task's end of the terminal.
    let pid = i32::try_from(child.id()).map_err(|error| error.to_string())?;
    let mut output = Pumps::default();
    let sandbox = Arc::new(Mutex::new(sandbox));
    let keep = |output: Output| {
        let sandbox = sandbox.clone();
        move |piece: &[u8]| {
            // What a full disk does not take is lost: the task must not stand still for it.
            _ = sandbox.lock().unwrap_or_else(PoisonError::into_inner).write(output, "", piece);
            true
        }
    };
    output.add(Output::Stdout.name(), screen, keep(Output::Stdout));
    output.add(Output::Stdout.name(), child.stdout.take(), keep(Output::Stdout));
    output.add(Output::Stderr.name(), child.stderr.take(), keep(Output::Stderr));
    let heard = Identity::of(pid).map_err(gone).and_then(|process| Ok((hear(&status, &process)?, process)));
    let (namespace, process) = match heard {
        Ok(heard) => heard,
        Err(reason) => {
            _ = child.kill();
            _ = child.wait();
            return Err(reason);
        }
    };
    let number = namespace.as_ref().map(AsRawFd::as_raw_fd);
    let started = Started { process, shim: own_identity()?, groups: groups.directories().to_vec(), namespace: number, unlimited };
    records.put_started(&started).map_err(|error| format!("its start cannot be written down: {error}"))?;
    tell_server();
    let mut ended = wait(pid, groups)?;
    kill_all(groups);
    output.finish(LAST_WORDS);
    ended.oom = groups.oom_kills() > 0;
    Ok(ended)
}

/// A new pseudo-terminal is the output of `command`. What is written to it comes out of the file; reading fails when nobody has it open any more.
fn open_terminal(command: &mut Command) -> Result<File, String> {
    use rustix::pty::{OpenptFlags, openpt, ptsname, unlockpt};
    let failed = |error: rustix::io::Errno| format!("cannot make a terminal: {error}");
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).map_err(failed)?;
    unlockpt(&ours).map_err(failed)?;
    let name = ptsname(&ours, Vec::new()).map_err(failed)?;
    let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY | rustix::fs::OFlags::CLOEXEC;
    let task_s = rustix::fs::open(name.as_c_str(), flags, rustix::fs::Mode::empty()).map_err(failed)?;
    command.stdout(task_s.try_clone().map_err(|error| format!("cannot make a terminal: {error}"))?).stderr(task_s);
    Ok(ours.into())
}

/// Until the first process is the task: its mount namespace, if it has one of its own.
fn hear(mut status: &UnixStream, process: &Identity) -> Result<Option<File>, String> {
    let mut words = Vec::new();
    let read = |words: &mut Vec<u8>| status.take(MAX_REASON_BYTES).read_to_end(words);
    let mut first = [0];
    let namespace = match status.read(&mut first) {
        Ok(1) if first == [FURNISHED] => {
            let namespace = volumes::namespace(process).map_err(gone)?;
            // Where it has ended in between, its words follow.
            _ = status.write_all(&[FURNISHED]);
            Some(namespace)
        }
        Ok(1) => {
            words.extend(first);
            None
        }
        Ok(_) | Err(_) => None,
    };
    _ = read(&mut words);
    if words.is_empty() { Ok(namespace) } else { Err(String::from_utf8_lossy(&words).into_owned()) }
}

fn gone(error: std::io::Error) -> String {
    format!("its first process cannot be looked at: {error}")
}

fn own_identity() -> Result<Identity, String> {
    i32::try_from(std::process::id()).map_err(|error| error.to_string()).and_then(|pid| Identity::of(pid).map_err(gone))
}

/// Waits for the first process, and does what signals ask for. Whoever asks again has not seen that it did before: the task is told once.
fn wait(pid: i32, groups: &Groups) -> Result<Ended, String> {
    let first = Pid::from_raw(pid).ok_or("a process without a number")?;
    let signals = signals();
    let mut told = false;
    loop {
        if let Some(ended) = ended(first)? {
            return Ok(ended);
        }
        reap_all_but(pid);
        match signals.wait() {
            Ok(Caught::SIGCHLD) => {}
            Ok(Caught::SIGUSR1) => kill_all(groups),
            Ok(_) if told => {}
            Ok(_) => {
                told = true;
                terminate(first);
            }
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

/// How a child ended; `None`: it did not yet. It is looked at without being reaped: its number, and so the group's, means nobody else until everything
/// of it has been killed.
pub(super) fn ended(child: Pid) -> Result<Option<Ended>, String> {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
    match rustix::process::waitid(WaitId::Pid(child), options) {
        Ok(Some(status)) if status.exited() || status.killed() || status.dumped() => {
            let (code, signal) = (status.exit_status(), status.terminating_signal());
            Ok(Some(Ended { status: code, signal: signal.filter(|_| code.is_none()), ..Ended::default() }))
        }
        Ok(_) => Ok(None),
        Err(error) => Err(format!("its end cannot be waited for: {error}")),
    }
}

/// Reaps what the task's processes left behind.
pub(super) fn reap_all_but(first: i32) {
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    for pid in tree::ended_children(own).into_iter().filter(|pid| *pid != first) {
        _ = rustix::process::waitpid(Pid::from_raw(pid), WaitOptions::NOHANG);
    }
}

/// Every process of the task; what they leave behind is ours by then, and ends with them.
pub(super) fn kill_all(groups: &Groups) {
    groups.kill();
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

/// Threads that pass on what is said, one for each output.
#[derive(Default)]
pub(super) struct Pumps {
    done: Vec<mpsc::Receiver<()>>,
}

impl Pumps {
    /// Passes everything that comes `from` there on, until that ends or is not taken any more (false).
    pub(super) fn add(
        &mut self,
        name: &str,
        from: Option<impl Read + Send + 'static>,
        mut take: impl FnMut(&[u8]) -> bool + Send + 'static,
    ) {
        let Some(mut from) = from else { return };
        let (sender, done) = mpsc::channel();
        let work = move || {
            // Gone with the thread, however that ends.
            let _sender: mpsc::Sender<()> = sender;
            let mut piece = vec![0; PIECE_BYTES];
            loop {
                match from.read(&mut piece) {
                    Ok(0) => break,
                    Ok(length) if take(&piece[..length]) => {}
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                    Ok(_) | Err(_) => break,
                }
            }
        };
        if std::thread::Builder::new().name(name.to_owned()).spawn(work).is_ok() {
            self.done.push(done);
        }
    }

    /// Waits for the last of it, but not for ever: a process that nobody could kill may hold a pipe. True: that was all.
    pub(super) fn finish(self, limit: Duration) -> bool {
        let until = Instant::now() + limit;
        let is_done = |done: &mpsc::Receiver<()>| {
            let outcome = done.recv_timeout(until.saturating_duration_since(Instant::now()));
            outcome == Err(mpsc::RecvTimeoutError::Disconnected)
        };
        self.done.iter().all(is_done)
    }
}

// === The task's first process ===

/// Returns only when it did not work, with the reason.
fn become_task(records: &Records, groups: &Groups) -> String {
    let status = match rustix::io::fcntl_dupfd_cloexec(std::io::stdin().as_fd(), 3) {
        Ok(status) => status,
        Err(error) => return format!("cannot keep a socket: {error}"),
    };
    let mut status = UnixStream::from(status);
    let reason = try_to_become_task(records, groups, &mut status);
    _ = status.write_all(reason.as_bytes());
    reason
}

fn try_to_become_task(records: &Records, groups: &Groups, status: &mut UnixStream) -> String {
    let settled = order(records).and_then(|order| {
        if order.terminal {
            rustix::stdio::dup2_stdin(rustix::stdio::stdout()).map_err(failed("cannot give it its terminal"))?;
        } else {
            let null = File::options().read(true).open("/dev/null").map_err(|error| format!("/dev/null cannot be opened: {error}"))?;
            rustix::stdio::dup2_stdin(&null).map_err(failed("cannot close the input"))?;
        }
        rustix::process::setsid().map_err(failed("cannot begin a session"))?;
        if order.terminal {
            rustix::process::ioctl_tiocsctty(rustix::stdio::stdin()).map_err(failed("cannot give it its terminal"))?;
            if let Some(account) = &order.account {
                // As `login` does it: programs open their terminal by its name, too.
                let owner = rustix::process::Uid::from_raw(account.uid);
                rustix::fs::fchown(rustix::stdio::stdin(), Some(owner), None).map_err(failed("cannot give it its terminal"))?;
            }
        }
        settle(&order, groups, || {
            volumes::see(&order)?;
            let told = status.write_all(&[FURNISHED]).and_then(|()| status.read_exact(&mut [0]));
            told.map_err(|error| format!("its supervisor is gone: {error}"))
        })?;
        Ok(order)
    });
    match settled {
        Ok(order) => become_program(&order, &order.command),
        Err(reason) => reason,
    }
}

/// Returns only when it did not work, with the reason. Everything of the task's, its control groups too: with the task it ends.
fn join_task(records: &Records, form: Option<Form>, command: &[OsString]) -> String {
    let settled = order(records).and_then(|mut order| {
        let started = started(records)?;
        rustix::process::setsid().map_err(failed("cannot begin a session"))?;
        if let Some(Form::Terminal { .. }) = form {
            rustix::process::ioctl_tiocsctty(rustix::stdio::stdin()).map_err(failed("cannot get its terminal"))?;
            if !order.environment.iter().any(|(name, _)| name == "TERM") {
                order.environment.push(("TERM".to_owned(), "xterm".to_owned()));
            }
        }
        let groups = Groups::known(started.groups.clone());
        settle(&order, &groups, || match started.namespace {
            Some(number) => volumes::join(&started.shim, number).map_err(|error| format!("cannot see its volumes: {error}")),
            // Of a supervisor that kept none yet.
            None => volumes::see(&order),
        })?;
        Ok(order)
    });
    match settled {
        Ok(order) => become_program(&order, command),
        Err(reason) => reason,
    }
}

/// How the task began.
pub(super) fn started(records: &Records) -> Result<Started, String> {
    records.started().map_err(|error| format!("the task's beginning cannot be read: {error}"))?.ok_or("the task has not begun".to_owned())
}

fn failed(what: &'static str) -> impl Fn(rustix::io::Errno) -> String {
    move |error| format!("{what}: {error}")
}

/// What was ordered.
pub(super) fn order(records: &Records) -> Result<Order, String> {
    records.order().map_err(|error| format!("the order cannot be read: {error}"))?.ok_or_else(|| "the order is gone".to_owned())
}

fn become_program(order: &Order, words: &[impl AsRef<OsStr>]) -> String {
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

/// Everything that has to be so before a program of the task begins. Rights go last: they are needed for the rest. `see`: lets it see the task's volumes.
fn settle(order: &Order, groups: &Groups, see: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
    groups.join().map_err(|error| format!("cannot go into its control groups: {error}"))?;
    // The server may be protected from the kernel's search for memory; its tasks are not.
    _ = std::fs::write("/proc/self/oom_score_adj", "0");
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let no_sandbox = |error: std::io::Error| format!("cannot enter the sandbox {}: {error}", order.directory.display());
    let sandbox = volumes::identity(&order.directory).map_err(no_sandbox)?;
    if !order.volumes.is_empty() {
        see()?;
    }
    // As the server: the way there need not be open to the account.
    std::env::set_current_dir(&order.directory).map_err(no_sandbox)?;
    if volumes::identity(Path::new(".")).map_err(no_sandbox)? != sandbox {
        return Err("a volume hides its sandbox".to_owned());
    }
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
