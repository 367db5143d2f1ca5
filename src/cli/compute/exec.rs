//! `mgmt service exec`: a command in a task's container, with this terminal's input, output, size and exit code.

use std::{
    io::{self, IsTerminal, Write},
    os::fd::OwnedFd,
};

use rustix::event::{PollFd, PollFlags, poll};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

use super::Error;
use crate::{
    cli::{
        client::{Client, encode},
        terminal::{self, Mode},
    },
    model::frame::{self, Channel, FrameReader},
};

/// The protocol that the connection is upgraded to.
const PROTOCOL: &str = "xtao-exec";

/// What is read at once, in bytes.
const PART_BYTES: usize = 16 * 1024;

/// Until the command ends. `tty`: with a terminal, if this is one.
pub(super) async fn run(client: &Client, task: &str, command: Vec<String>, tty: bool) -> Result<(), Error> {
    let tty = tty && io::stdin().is_terminal() && io::stdout().is_terminal();
    let (columns, lines) = terminal::size().unwrap_or((80, 24));
    let body = json!({ "cmd": command, "tty": tty, "columns": columns, "lines": lines });
    let duplex = client.upgrade(&format!("/v2/tasks/{}/exec", encode(task)), &body, PROTOCOL).await?;
    let (mut from, mut to) = tokio::io::split(duplex);
    let mode =
        if tty { Some(Mode::raw().map_err(|error| Error::Failed(format!("the terminal cannot be changed: {error}")))?) } else { None };
    let sending = send(&mut to, tty);
    let receiving = receive(&mut from);
    let mut sending = std::pin::pin!(sending);
    let mut receiving = std::pin::pin!(receiving);
    let mut is_sending = true;
    let outcome = loop {
        tokio::select! {
            code = &mut receiving => break code,
            // The input has ended, or nobody takes it any more; the command says the rest.
            _ = &mut sending, if is_sending => is_sending = false,
        }
    };
    drop(mode);
    match outcome? {
        0 => Ok(()),
        code => Err(Error::Exit(code)),
    }
}

/// Input and sizes of the terminal to the command, until the input ends.
async fn send(to: &mut (impl AsyncWriteExt + Unpin), tty: bool) -> io::Result<()> {
    let mut input = Input::open()?;
    let mut resized = signal(SignalKind::window_change())?;
    let mut out = Vec::new();
    let mut is_open = true;
    loop {
        out.clear();
        tokio::select! {
            part = input.read(), if is_open => {
                let part = part?;
                is_open = !part.is_empty();
                frame::write(Channel::Stdin, &part, &mut out);
            }
            _ = resized.recv(), if tty => {
                let (columns, lines) = terminal::size().unwrap_or((80, 24));
                frame::write(Channel::Resize, json!({ "columns": columns, "lines": lines }).to_string().as_bytes(), &mut out);
            }
            else => return Ok(()),
        }
        to.write_all(&out).await?;
        to.flush().await?;
    }
}

/// Output from the command, until its exit code.
async fn receive(from: &mut (impl AsyncReadExt + Unpin)) -> Result<u8, Error> {
    let lost = |why: String| Error::Failed(format!("the connection to the command was lost: {why}"));
    let mut reader = FrameReader::default();
    let mut part = vec![0; PART_BYTES];
    loop {
        let read = from.read(&mut part).await.map_err(|error| lost(error.to_string()))?;
        if read == 0 {
            return Err(lost("it ended without an exit code".to_owned()));
        }
        reader.push(&part[..read]);
        while let Some(frame) = reader.next_frame().map_err(|error| lost(error.to_string()))? {
            match frame.channel {
                Channel::Stdout => write(&mut io::stdout(), &frame.payload),
                Channel::Stderr => write(&mut io::stderr(), &frame.payload),
                Channel::Exit => {
                    let text = String::from_utf8_lossy(&frame.payload).into_owned();
                    let code: i64 = text.trim().parse().map_err(|_| lost(format!("'{}' is no exit code", text.escape_debug())))?;
                    return Ok(u8::try_from(code.clamp(0, 255)).unwrap_or(u8::MAX));
                }
                Channel::End => {
                    let why = String::from_utf8_lossy(&frame.payload).into_owned();
                    return Err(Error::Failed(format!("the command was ended: {}", why.escape_debug())));
                }
                Channel::Stdin | Channel::Resize => {}
            }
        }
    }
}

/// A reader that has gone away (`| head`) is no error: the command goes on, as in a shell.
fn write(to: &mut impl Write, bytes: &[u8]) {
    _ = to.write_all(bytes).and_then(|()| to.flush());
}

/// Pieces of input that wait for a slow connection.
const MAX_WAITING_PARTS: usize = 4;

/// Standard input, read only when there is something: a read that waits would swallow what is typed after the command has ended. A thread watches it until
/// this is dropped.
struct Input {
    parts: mpsc::Receiver<io::Result<Vec<u8>>>,
    /// When this end is closed the thread ends.
    _alive: OwnedFd,
}

impl Input {
    fn open() -> io::Result<Self> {
        let (gone, alive) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        let (sender, parts) = mpsc::channel(MAX_WAITING_PARTS);
        std::thread::Builder::new().name("input".to_owned()).spawn(move || {
            while let Some(part) = next_part(&gone) {
                let is_last = part.as_ref().map_or(true, Vec::is_empty);
                if sender.blocking_send(part).is_err() || is_last {
                    return;
                }
            }
        })?;
        Ok(Self { parts, _alive: alive })
    }

    /// The next bytes; none at the end.
    async fn read(&mut self) -> io::Result<Vec<u8>> {
        self.parts.recv().await.unwrap_or_else(|| Ok(Vec::new()))
    }
}

/// What comes next on standard input; `None` when nobody wants it any more.
fn next_part(gone: &OwnedFd) -> Option<io::Result<Vec<u8>>> {
    loop {
        let stdin = io::stdin();
        let mut watched = [PollFd::new(&stdin, PollFlags::IN), PollFd::new(gone, PollFlags::IN)];
        match poll(&mut watched, None) {
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Some(Err(error.into())),
            Ok(_) => {}
        }
        if !watched[1].revents().is_empty() {
            return None;
        }
        let mut part = vec![0; PART_BYTES];
        return match rustix::io::read(&stdin, &mut part) {
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => continue,
            Err(error) => Some(Err(error.into())),
            Ok(read) => {
                part.truncate(read);
                Some(Ok(part))
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn how_a_command_ended_is_said_in_words() {
        let check = async |channel: Channel, payload: &str, expected: &str| {
            let mut bytes = Vec::new();
            frame::write(channel, payload.as_bytes(), &mut bytes);
            let found = receive(&mut &bytes[..]).await.map_or_else(|error| error.to_string(), |code| code.to_string());
            assert_eq!(found, expected);
        };
        check(Channel::Exit, "0", "0").await;
        check(Channel::Exit, "300", "255").await;
        check(Channel::Exit, "no", "the connection to the command was lost: 'no' is no exit code").await;
        check(Channel::Resize, "", "the connection to the command was lost: it ended without an exit code").await;
        check(Channel::End, "the server stops", "the command was ended: the server stops").await;
        check(Channel::End, "\x1b[2J", "the command was ended: \\u{1b}[2J").await;
    }
}
