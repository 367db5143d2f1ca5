//! Follows what a container writes and keeps it in its sandbox, through restarts of Docker and of ours.

use std::{io, path::PathBuf, time::Duration};

use bollard::container::LogOutput;
use futures_util::{StreamExt, stream::BoxStream};
use tokio::sync::watch;

use super::{
    agent::Seen,
    docker::{Client, DockerError},
    sandbox::{Output, Sandbox},
    spec,
};
use crate::model::id::TaskId;

/// Pieces of output that are written at once.
const MAX_PIECES: usize = 64;
/// After a failure it is tried again after this long.
const PAUSE: Duration = Duration::from_secs(1);
/// The length of Docker's time stamps: `2006-01-02T15:04:05.000000000Z`.
pub const STAMP_BYTES: usize = 30;

/// What a follower needs to know.
#[derive(Debug)]
pub struct Follower {
    /// Whose output.
    pub task: TaskId,
    /// The server's directory.
    pub work_dir: PathBuf,
    /// When a file is replaced, bytes.
    pub limit: u64,
    /// Docker, while it can be reached.
    pub docker: watch::Receiver<Option<Client>>,
    /// Ends the following, but not the container.
    pub stop: watch::Receiver<bool>,
}

impl Follower {
    /// Follows until the container has ended and all is kept, or until it is stopped.
    pub async fn run(mut self) {
        let name = spec::container_name(&self.task);
        let mut sandbox = None;
        let mut terminal = None;
        while !*self.stop.borrow() {
            let client = match self.docker.wait_for(Option::is_some).await.as_deref() {
                Ok(Some(client)) => client.clone(),
                _ => break,
            };
            let outcome = match sandbox.take() {
                Some(open) => Ok(open),
                None => self.open().await,
            };
            let again = match outcome {
                Ok(open) => {
                    let (kept, again) = self.follow(&client, &name, open, &mut terminal).await;
                    sandbox = kept;
                    again
                }
                Err(error) => {
                    tracing::warn!(task = %self.task, %error, "The task's output cannot be kept; trying again.");
                    true
                }
            };
            if !again {
                break;
            }
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                _ = self.stop.changed() => {}
            }
        }
        if let Some(mut sandbox) = sandbox {
            _ = tokio::task::spawn_blocking(move || sandbox.save()).await;
        }
    }

    async fn open(&self) -> io::Result<Sandbox> {
        let (work_dir, task, limit) = (self.work_dir.clone(), self.task.clone(), self.limit);
        tokio::task::spawn_blocking(move || Sandbox::open(&work_dir, &task, limit)).await.map_err(io::Error::other)?
    }

    /// Follows one stream to its end. Returns the sandbox, unless its position is no longer certain, and whether there may be more to come. `terminal`:
    /// whether the container has one, once that is known.
    async fn follow(&mut self, client: &Client, name: &str, sandbox: Sandbox, terminal: &mut Option<bool>) -> (Option<Sandbox>, bool) {
        let has_terminal = match *terminal {
            Some(known) => known,
            None => match client.inspect(name).await {
                Ok(container) => container.config.and_then(|config| config.tty).unwrap_or_default(),
                Err(DockerError::Missing(_)) => return (Some(sandbox), false),
                Err(_) => return (Some(sandbox), true),
            },
        };
        *terminal = Some(has_terminal);
        let sandbox = match self.read(client, name, sandbox, has_terminal, true).await {
            (Some(sandbox), true) => sandbox,
            (sandbox, goes_on) => return (sandbox, goes_on),
        };
        // The stream ends with the container, or with the daemon.
        match client.inspect(name).await {
            Ok(container) if matches!(spec::seen(&container, false), Seen::Running { .. }) => (Some(sandbox), true),
            // A last line without an end is not told to who follows (Docker 20.10).
            Ok(_) => {
                let (sandbox, _) = self.read(client, name, sandbox, has_terminal, false).await;
                let again = sandbox.is_none();
                (sandbox, again)
            }
            Err(DockerError::Missing(_)) => (Some(sandbox), false),
            Err(_) => (Some(sandbox), true),
        }
    }

    /// Keeps what comes of one stream. Returns the sandbox as [`Self::follow`] does, and false when this follower is to stop.
    async fn read(&mut self, client: &Client, name: &str, mut sandbox: Sandbox, terminal: bool, follow: bool) -> (Option<Sandbox>, bool) {
        sandbox.rewind();
        let since = sandbox.since();
        let pieces: BoxStream<'_, _> =
            if terminal { client.console(name, since, follow).boxed() } else { client.logs(name, since, follow).boxed() };
        let mut pieces = pieces.ready_chunks(MAX_PIECES);
        loop {
            let batch = tokio::select! {
                batch = pieces.next() => batch,
                _ = self.stop.changed() => return (Some(sandbox), false),
            };
            let Some(batch) = batch else { break };
            let written = tokio::task::spawn_blocking(move || keep(&mut sandbox, batch).map(|ended| (sandbox, ended))).await;
            match written.map_err(io::Error::other).flatten() {
                Ok((kept, interrupted)) => {
                    sandbox = kept;
                    if interrupted {
                        break;
                    }
                }
                Err(error) => {
                    // What was written last is uncertain: the sandbox is opened anew, at the position that was saved.
                    tracing::warn!(task = %self.task, %error, "The task's output could not be written; trying again.");
                    return (None, true);
                }
            }
        }
        (Some(sandbox), true)
    }
}

/// Writes a batch; true when the stream broke within it.
fn keep(sandbox: &mut Sandbox, batch: Vec<Result<LogOutput, bollard::errors::Error>>) -> io::Result<bool> {
    let mut interrupted = false;
    for piece in batch {
        let (output, message) = match piece {
            Ok(LogOutput::StdErr { message }) => (Output::Stderr, message),
            Ok(LogOutput::StdOut { message } | LogOutput::Console { message } | LogOutput::StdIn { message }) => (Output::Stdout, message),
            Err(error) => {
                tracing::debug!(%error, "The output of a task was interrupted.");
                interrupted = true;
                break;
            }
        };
        let (time, text) = split_stamp(&message);
        sandbox.write(output, time, text)?;
    }
    sandbox.save_sometimes()?;
    Ok(interrupted)
}

/// The time and the rest of a piece.
fn split_stamp(message: &[u8]) -> (&str, &[u8]) {
    let stamp = message.split_at_checked(STAMP_BYTES).and_then(|(stamp, rest)| {
        let text = rest.strip_prefix(b" ")?;
        let stamp = std::str::from_utf8(stamp).ok()?;
        (stamp.ends_with('Z') && stamp.as_bytes()[10] == b'T').then_some((stamp, text))
    });
    stamp.unwrap_or(("", message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_is_split_at_its_stamp() {
        let check = |message: &str, time: &str, text: &str| assert_eq!(split_stamp(message.as_bytes()), (time, text.as_bytes()));
        check("2024-05-06T07:08:09.123456789Z hello\n", "2024-05-06T07:08:09.123456789Z", "hello\n");
        check("2024-05-06T07:08:09.123456789Z \n", "2024-05-06T07:08:09.123456789Z", "\n");
        check("no stamp at all\n", "", "no stamp at all\n");
        check("", "", "");
    }
}
