//! A command beside a task that is a process: what people run in it (`exec`), and its `COMMAND` checks.
//!
//! Each has a supervisor of its own, `xtao task-shim --beside DIRECTORY FORM WORD...`, which the server talks with in [frames](crate::model::frame) over
//! its standard input and output. The command itself is this program once more (`--join`), which becomes everything that the task is (account, control
//! groups, mount namespace, directory, environment) and then the command.
//!
//! | what ends | what follows |
//! | --- | --- |
//! | the command | what it has put into the background is killed, its exit code told |
//! | the server's end of the input: the client has left, or the server has ended | the command is killed with everything that it has begun |
//! | the task, and with it its control groups; or its supervisor | the same |

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::{Read, Write},
    os::fd::{AsFd, OwnedFd},
    path::Path,
    process::{Child, Command, ExitCode, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use nix::sys::{
    signal::{SigSet, Signal as Caught},
    signalfd::{SfdFlags, SignalFd},
};
use rustix::{
    event::{PollFd, PollFlags},
    process::Pid,
    pty::OpenptFlags,
    termios::Winsize,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::{ChildStdin, ChildStdout},
    sync::{OwnedSemaphorePermit, mpsc},
};

use super::{
    limits::Groups,
    record::{Order, Records},
    shim::{self, CANNOT_RUN, Pumps},
};
use crate::{
    cluster::engine::access::{Conversation, MAX_WAITING_FRAMES},
    model::frame::{self, Channel, Frame, FrameReader},
};

/// Read at once, bytes.
const PIECE_BYTES: usize = 16 << 10;
/// After the end of a command the last of its output is passed on for so long at most.
const LAST_WORDS: Duration = Duration::from_secs(60);

/// What a command is connected with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Nothing: only its exit code is of interest.
    Quiet,
    /// Pipes.
    Pipes,
    /// A terminal of its own.
    Terminal {
        /// Its width.
        columns: u16,
        /// Its height.
        lines: u16,
    },
}

impl Form {
    /// What [`Form::word`] wrote.
    pub fn read(word: &OsStr) -> Option<Self> {
        match word.to_str()? {
            "quiet" => Some(Self::Quiet),
            "pipes" => Some(Self::Pipes),
            size => {
                let (columns, lines) = size.split_once('x')?;
                Some(Self::Terminal { columns: columns.parse().ok()?, lines: lines.parse().ok()? })
            }
        }
    }

    /// For a command line.
    pub fn word(self) -> String {
        match self {
            Self::Quiet => "quiet".to_owned(),
            Self::Pipes => "pipes".to_owned(),
            Self::Terminal { columns, lines } => format!("{columns}x{lines}"),
        }
    }
}

// === The server ===

/// Runs `words` (never empty) beside the task with these records. Whoever drops an end of the conversation has gone away: the command is killed then.
///
/// # Errors
/// There is no supervisor.
pub(in crate::cluster::engine) fn begin(
    program: &Path,
    records: &Records,
    form: Form,
    words: &[String],
    permit: OwnedSemaphorePermit,
) -> std::io::Result<Conversation> {
    let mut command = tokio::process::Command::new(program);
    command.arg(shim::COMMAND).arg(shim::BESIDE).arg(records.directory()).arg(form.word()).args(words).env_clear().current_dir("/");
    // Killed it could kill nobody: it ends when its input does.
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(false);
    let child = command.spawn()?;
    let (to_command, frames) = mpsc::channel(MAX_WAITING_FRAMES);
    let (to_client, from_command) = mpsc::channel(MAX_WAITING_FRAMES);
    tokio::spawn(converse(child, frames, to_client, permit));
    Ok((to_command, from_command))
}

async fn converse(
    mut child: tokio::process::Child,
    frames: mpsc::Receiver<Frame>,
    to_client: mpsc::Sender<Frame>,
    _permit: OwnedSemaphorePermit,
) {
    let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else { return };
    tokio::select! {
        () = pass_output(output, &to_client) => {}
        // A command that neither reads nor writes must not hide that the client has gone.
        () = to_client.closed() => {}
        () = pass_input(input, frames) => {}
    }
    drop(to_client);
    _ = child.wait().await;
}

/// Ends with the supervisor, or when the client takes no more.
async fn pass_output(mut output: ChildStdout, to_client: &mpsc::Sender<Frame>) {
    let mut reader = FrameReader::default();
    let mut piece = vec![0; PIECE_BYTES];
    while let Ok(length @ 1..) = output.read(&mut piece).await {
        reader.push(&piece[..length]);
        while let Ok(Some(frame)) = reader.next_frame() {
            if to_client.send(frame).await.is_err() {
                return;
            }
        }
    }
}

/// Ends when the client has gone. A supervisor that reads no more is just ending.
async fn pass_input(mut input: ChildStdin, mut frames: mpsc::Receiver<Frame>) {
    let mut bytes = Vec::new();
    while let Some(Frame { channel, payload }) = frames.recv().await {
        bytes.clear();
        frame::write(channel, &payload, &mut bytes);
        _ = input.write_all(&bytes).await;
    }
}

// === The command's supervisor ===

/// Until the command has ended.
pub(super) fn supervise(records: &Records, form: Form, words: &[OsString]) -> ExitCode {
    shim::close_what_was_inherited();
    let child_ended: SigSet = [Caught::SIGCHLD].into_iter().collect();
    if child_ended.thread_block().is_err() {
        return ExitCode::FAILURE;
    }
    _ = rustix::process::setsid(); // What a terminal of the server's sends is not for the command.
    _ = std::env::set_current_dir("/");
    let Ok(out) = rustix::io::fcntl_dupfd_cloexec(std::io::stdout().as_fd(), 3) else { return ExitCode::FAILURE };
    let client = Client(Arc::new(Mutex::new(out.into())));
    let code = run(records, form, words, &child_ended, &client).unwrap_or_else(|reason| {
        client.say(Channel::Stderr, format!("{reason}\n").as_bytes());
        i32::from(CANNOT_RUN)
    });
    client.say(Channel::Exit, code.to_string().as_bytes());
    ExitCode::SUCCESS
}

/// The server's end of the conversation, for several threads.
#[derive(Clone)]
struct Client(Arc<Mutex<File>>);

impl Client {
    /// False: it listens no more.
    fn say(&self, channel: Channel, text: &[u8]) -> bool {
        let mut bytes = Vec::new();
        frame::write(channel, text, &mut bytes);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write_all(&bytes).is_ok()
    }
}

/// The exit code, as shells have it.
fn run(records: &Records, form: Form, words: &[OsString], child_ended: &SigSet, client: &Client) -> Result<i32, String> {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).map_err(|error| format!("cannot supervise: {error}"))?;
    let order = shim::order(records)?;
    let task = shim::started(records)?.shim.open().ok_or("the task has ended")?;
    let signals = SignalFd::with_flags(child_ended, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK);
    let signals = signals.map_err(|error| format!("signals cannot be waited for: {error}"))?;
    let mut command = Command::new("/proc/self/exe");
    command.arg(shim::COMMAND).arg(shim::JOIN).arg(records.directory()).arg(form.word()).args(words).env_clear().current_dir("/");
    let (mut child, pumps) = connect(command, form, &order, client).map_err(|error| format!("cannot start a process: {error}"))?;
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or("a process without a number")?;
    let ended = loop {
        if let Some(ended) = shim::ended(pid)? {
            break ended;
        }
        shim::reap_all_but(pid.as_raw_nonzero().get());
        // Of the input only its end is looked at: to read it is another thread's.
        let stdin = std::io::stdin();
        let mut waited = [PollFd::new(&stdin, PollFlags::empty()), PollFd::new(&task, PollFlags::IN), PollFd::new(&signals, PollFlags::IN)];
        match rustix::event::poll(&mut waited, None) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(format!("its end cannot be waited for: {error}")),
        }
        let [left, over, _] = waited.map(|one| !one.revents().is_empty());
        while let Ok(Some(_)) = signals.read_signal() {}
        if left || over {
            shim::kill_all(&nobody_else());
        }
    };
    shim::kill_all(&nobody_else());
    _ = child.wait();
    pumps.finish(LAST_WORDS);
    Ok(ended.status.or_else(|| Some(128 + ended.signal?)).unwrap_or(-1))
}

/// What the command has begun, and not the whole task.
fn nobody_else() -> Groups {
    Groups::known(Vec::new())
}

/// Starts the command with what its form says, and the threads that pass on what is said on both sides.
fn connect(mut command: Command, form: Form, order: &Order, client: &Client) -> std::io::Result<(Child, Pumps)> {
    let mut pumps = Pumps::default();
    let tell = |channel: Channel| {
        let client = client.clone();
        move |piece: &[u8]| client.say(channel, piece)
    };
    let child = match form {
        Form::Quiet => command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?,
        Form::Pipes => {
            let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
            pumps.add("stdout", child.stdout.take(), tell(Channel::Stdout));
            pumps.add("stderr", child.stderr.take(), tell(Channel::Stderr));
            listen(child.stdin.take().map(|input| File::from(OwnedFd::from(input))), None)?;
            child
        }
        Form::Terminal { columns, lines } => {
            let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
            let ours = rustix::pty::openpt(flags)?;
            rustix::pty::grantpt(&ours)?;
            rustix::pty::unlockpt(&ours)?;
            let theirs = rustix::pty::ioctl_tiocgptpeer(&ours, flags)?;
            if let Some(account) = &order.account {
                let user = rustix::fs::Uid::from_raw(account.uid);
                rustix::fs::fchown(&theirs, Some(user), None)?;
            }
            let ours = File::from(ours);
            resize(&ours, columns, lines);
            command.stdin(theirs.try_clone()?).stdout(theirs.try_clone()?).stderr(theirs);
            let child = command.spawn()?;
            drop(command); // And with it our copies of its end: it is over when nobody else has one.
            pumps.add("terminal", Some(ours.try_clone()?), tell(Channel::Stdout));
            listen(Some(ours.try_clone()?), Some(ours))?;
            child
        }
    };
    Ok((child, pumps))
}

/// Passes on what the client says, in a thread of its own: a command need not read.
fn listen(mut input: Option<File>, terminal: Option<File>) -> std::io::Result<()> {
    let work = move || {
        let mut reader = FrameReader::default();
        let mut piece = vec![0; PIECE_BYTES];
        let mut from = std::io::stdin();
        while let Ok(length @ 1..) = from.read(&mut piece) {
            reader.push(&piece[..length]);
            while let Ok(Some(Frame { channel, payload })) = reader.next_frame() {
                match (channel, &terminal) {
                    // A terminal has no end of input but the one that is typed.
                    (Channel::Stdin, None) if payload.is_empty() => input = None,
                    // A command that does not read any more is no reason to stop.
                    (Channel::Stdin, _) if input.as_mut().is_some_and(|input| input.write_all(&payload).is_err()) => input = None,
                    (Channel::Resize, Some(terminal)) => {
                        if let Some((columns, lines)) = frame::size(&payload) {
                            resize(terminal, columns, lines);
                        }
                    }
                    _ => {}
                }
            }
        }
    };
    std::thread::Builder::new().name("stdin".to_owned()).spawn(work).map(drop)
}

fn resize(terminal: &File, columns: u16, lines: u16) {
    // It may just have ended.
    _ = rustix::termios::tcsetwinsize(terminal, Winsize { ws_row: lines, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_goes_through_a_command_line() {
        for form in [Form::Quiet, Form::Pipes, Form::Terminal { columns: 80, lines: 24 }, Form::Terminal { columns: 65_535, lines: 1 }] {
            assert_eq!(Form::read(form.word().as_ref()), Some(form));
        }
        for word in ["", "80", "x", "80x", "x24", "80x70000", "-1x2", "Quiet"] {
            assert_eq!(Form::read(word.as_ref()), None, "{word}");
        }
    }
}
