//! What people want of a node directly: a task's output, a command inside a task, what the node is. It shares nothing with the running engine but
//! Docker and the sandboxes, so a slow reader is in nobody's way.

use std::{
    io,
    os::fd::OwnedFd,
    path::PathBuf,
    pin::Pin,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use bollard::{
    container::LogOutput,
    exec::StartExecResults,
    models::{ContainerInspectResponse, ExecConfig},
    query_parameters::ResizeExecOptionsBuilder,
};
use futures_util::{Stream, StreamExt};
use rustix::process::{Pid, Signal};
use tokio::{
    io::{AsyncWrite, AsyncWriteExt},
    sync::{Mutex, OwnedSemaphorePermit, Semaphore, mpsc},
};

use super::{
    Settings,
    agent::Seen,
    cgroup,
    docker::{Client, DockerError},
    facts,
    networks::Networks,
    output::OutputReader,
    process::{
        self,
        beside::{self, Form},
        record::{Order, Records},
    },
    sandbox::{self, Output},
    spec,
    vetting::{self, Finding, Part},
};
use crate::model::{
    frame::{self, Channel, Frame, MAX_PAYLOAD_BYTES},
    id::{ClusterId, Owner, TaskId},
    request::Asker,
    resources::Resources,
};

/// Commands at once on this node; one more is refused.
pub const MAX_EXECS: usize = 64;
/// Frames that wait, in each direction.
pub(super) const MAX_WAITING_FRAMES: usize = 16;
/// Docker is asked what it is this often at most.
const FACTS_AGE: Duration = Duration::from_secs(30);
/// A Docker that did not answer is asked again after this long.
const SILENCE_AGE: Duration = Duration::from_secs(5);
/// And this long is waited for its answer.
const FACTS_LIMIT: Duration = Duration::from_secs(2);
/// After its output a command gets this long to have an exit code.
const EXIT_LIMIT: Duration = Duration::from_secs(10);
const EXIT_PAUSE: Duration = Duration::from_millis(20);
/// A command that nobody waits for is looked for this long, with pauses that grow to a second: Docker may be slow, or just be starting again.
const KILL_LIMIT: Duration = Duration::from_secs(600);
const MAX_KILL_PAUSE: Duration = Duration::from_secs(1);
/// How often a terminal is resized before it is left as it is.
const RESIZE_TRIES: u32 = 5;

/// Why a command was not run.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ExecError {
    /// The task has no container that runs.
    #[error("task '{0}' does not run")]
    NotRunning(TaskId),
    /// A command without an image has rights on the node that whoever asks has not.
    #[error("task '{0}' {1}: what runs beside a command without an image has its rights on this node")]
    NotYours(TaskId, &'static str),
    /// The node could not make a process of it.
    #[error("the command cannot be started: {0}")]
    NotStarted(String),
    /// Too many commands.
    #[error("{MAX_EXECS} commands run on this node; end one of them first")]
    TooMany,
    /// A command inside a container is one of the ways out of it.
    #[error("no command is run inside a container: {0}")]
    Vulnerable(String),
    /// Docker said no, or nothing.
    #[error(transparent)]
    Docker(#[from] DockerError),
}

/// This node, for readers.
#[derive(Debug)]
pub struct Access {
    docker_host: String,
    /// From the first time that Docker is there.
    client: OnceLock<Client>,
    work_dir: PathBuf,
    cluster_id: ClusterId,
    total: Resources,
    cgroup: cgroup::Version,
    shim: PathBuf,
    execs: Arc<Semaphore>,
    networks: Networks,
    allow_vulnerable_runtime: bool,
    parts: Mutex<Option<(Instant, Option<Vec<Part>>)>>,
}

/// What the node is.
#[derive(Clone, Debug, PartialEq)]
pub struct Facts {
    /// All that may be used.
    pub total: Resources,
    /// Docker's parts, the engine first; empty: it does not answer.
    pub parts: Vec<Part>,
    /// What is known against them.
    pub findings: Vec<Finding>,
    /// Why containers are neither started nor entered here.
    pub refusal: Option<String>,
    /// The kernel's layout of control groups.
    pub cgroup: cgroup::Version,
}

/// The two ends of a command that runs: frames for it, frames from it.
pub type Conversation = (mpsc::Sender<Frame>, mpsc::Receiver<Frame>);

impl Access {
    /// For the engine that runs with these settings.
    pub fn new(settings: &Settings) -> Self {
        Self {
            docker_host: settings.docker_host.clone(),
            client: OnceLock::new(),
            work_dir: settings.work_dir.clone(),
            cluster_id: settings.cluster_id.clone(),
            // The engine itself does not begin without.
            total: facts::resources(&settings.resources, &settings.work_dir).unwrap_or_default(),
            cgroup: cgroup::Cgroups::detect("/sys/fs/cgroup").version(),
            shim: settings.shim.clone(),
            execs: Arc::new(Semaphore::new(MAX_EXECS)),
            networks: Networks::default(),
            allow_vulnerable_runtime: settings.allow_vulnerable_runtime,
            parts: Mutex::new(None),
        }
    }

    fn client(&self) -> Result<&Client, DockerError> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let client = Client::new(&self.docker_host)?;
        Ok(self.client.get_or_init(|| client))
    }

    /// What this node is. Waits for a Docker that does not answer, but not long.
    pub async fn facts(&self) -> Facts {
        let parts = self.parts().await.unwrap_or_default();
        let refusal = vetting::refusal(&parts).filter(|_| !self.allow_vulnerable_runtime);
        Facts { total: self.total.clone(), findings: vetting::findings(&parts), parts, refusal, cgroup: self.cgroup }
    }

    /// `None`: Docker does not answer.
    async fn parts(&self) -> Option<Vec<Part>> {
        let mut known = self.parts.lock().await;
        let fresh = known.take().filter(|(at, parts)| at.elapsed() < if parts.is_some() { FACTS_AGE } else { SILENCE_AGE });
        let (asked_at, parts) = match fresh {
            Some(fresh) => fresh,
            None => {
                let ask = async { self.client()?.parts().await };
                let answer = tokio::time::timeout(FACTS_LIMIT, ask).await;
                (Instant::now(), answer.ok().and_then(Result::ok))
            }
        };
        *known = Some((asked_at, parts.clone()));
        parts
    }

    /// Opens an output of a task. Blocks for a moment.
    ///
    /// # Errors
    /// See [`OutputReader::open`].
    pub fn open_output(&self, task: &TaskId, output: Output) -> io::Result<OutputReader> {
        OutputReader::open(&self.work_dir, task, output)
    }

    /// True when the container of a task that has ended is gone: that is when all of its output is kept.
    pub async fn is_gone(&self, task: &TaskId) -> bool {
        let (work_dir, wanted) = (self.work_dir.clone(), task.clone());
        let process = tokio::task::spawn_blocking(move || {
            let ended = || Records::of(&work_dir, &wanted).ended();
            sandbox::is_of_process(&work_dir, &wanted)
                .then(|| !process::is_one(&work_dir, &wanted) || ended().is_ok_and(|ended| ended.is_some()))
        });
        if let Some(gone) = process.await.ok().flatten() {
            return gone;
        }
        let Ok(client) = self.client() else { return false };
        match client.inspect(&spec::container_name(task)).await {
            Ok(container) => !self.is_ours(&container),
            Err(error) => matches!(error, DockerError::Missing(_)),
        }
    }

    /// Runs a command (never empty) inside a task, with a terminal of so many columns and lines if that is wanted: in its container, or, where it is a
    /// process, as another process of the task. Whoever drops an end has gone away: the command is killed then.
    ///
    /// # Errors
    /// See [`ExecError`].
    pub async fn exec(
        &self,
        task: &TaskId,
        command: Vec<String>,
        terminal: Option<(u16, u16)>,
        asker: &Asker,
    ) -> Result<Conversation, ExecError> {
        if sandbox::is_of_process(&self.work_dir, task) {
            return self.exec_beside(task, &command, terminal, asker).await;
        }
        let permit = self.execs.clone().try_acquire_owned().map_err(|_| ExecError::TooMany)?;
        if let Some(reason) = self.facts().await.refusal {
            return Err(ExecError::Vulnerable(reason));
        }
        let client = self.client()?.clone();
        let not_running = || ExecError::NotRunning(task.clone());
        let container = match client.inspect(&spec::container_name(task)).await {
            Ok(container) if self.is_ours(&container) => container,
            Ok(_) | Err(DockerError::Missing(_)) => return Err(not_running()),
            Err(error) => return Err(error.into()),
        };
        let id = container.id.filter(|_| container.state.is_some_and(|state| state.running == Some(true))).ok_or_else(not_running)?;
        let config = ExecConfig {
            attach_stdin: Some(true),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            tty: Some(terminal.is_some()),
            cmd: Some(command),
            env: terminal.map(|_| vec!["TERM=xterm".to_owned()]),
            ..ExecConfig::default()
        };
        let exec = match client.raw().create_exec(&id, config).await.map_err(DockerError::sort) {
            Ok(created) => created.id,
            // It ended, or was paused, since it was looked at.
            Err(DockerError::Missing(_) | DockerError::Conflict(_)) => return Err(not_running()),
            Err(error) => return Err(error.into()),
        };
        let options = bollard::exec::StartExecOptions { detach: false, tty: terminal.is_some(), output_capacity: Some(MAX_PAYLOAD_BYTES) };
        let started = client.raw().start_exec(&exec, Some(options)).await.map_err(DockerError::sort)?;
        let StartExecResults::Attached { output, input } = started else {
            return Err(DockerError::Refused("the command was started without a connection to it".to_owned()).into());
        };
        let (to_command, frames) = mpsc::channel(MAX_WAITING_FRAMES);
        let (to_client, from_command) = mpsc::channel(MAX_WAITING_FRAMES);
        let running = Running { client, container: id, exec, to_client, _permit: permit };
        tokio::spawn(running.converse(output, input, frames, terminal));
        Ok((to_command, from_command))
    }

    async fn exec_beside(
        &self,
        task: &TaskId,
        command: &[String],
        terminal: Option<(u16, u16)>,
        asker: &Asker,
    ) -> Result<Conversation, ExecError> {
        let permit = self.execs.clone().try_acquire_owned().map_err(|_| ExecError::TooMany)?;
        let records = Records::of(&self.work_dir, task);
        let (looked, work_dir, wanted) = (records.clone(), self.work_dir.clone(), task.clone());
        let look = move || {
            let owner = OutputReader::open(&work_dir, &wanted, Output::Stdout)?.owner();
            Ok::<_, io::Error>((process::look(&looked)?, looked.order()?, owner))
        };
        let not_started = |error: &dyn std::fmt::Display| ExecError::NotStarted(error.to_string());
        let seen = tokio::task::spawn_blocking(look).await.map_err(|error| not_started(&error))?;
        let Ok((Some(Seen::Running { .. }), Some(order), owner)) = seen else { return Err(ExecError::NotRunning(task.clone())) };
        if let Some(why) = whose_alone(asker, &order, owner.as_ref()) {
            return Err(ExecError::NotYours(task.clone(), why));
        }
        let form = match terminal {
            _ if *asker == Asker::Definition => Form::Quiet,
            Some((columns, lines)) => Form::Terminal { columns, lines },
            None => Form::Pipes,
        };
        beside::begin(&self.shim, &records, form, command, permit).map_err(|error| not_started(&error))
    }

    /// A socket of TCP, not connected and not blocking, in the network of a task's container.
    ///
    /// # Errors
    /// `NotFound`: it has no process that runs. `PermissionDenied`, `Unsupported`: its network is not entered here. Anything else: not now.
    pub async fn socket(&self, task: &TaskId, ipv6: bool) -> io::Result<OwnedFd> {
        self.networks.socket(task, ipv6, self.process_of(task)).await
    }

    /// The first process of a task's container, as this server numbers it; `None`: there is none.
    async fn process_of(&self, task: &TaskId) -> io::Result<Option<i32>> {
        let client = Client::new(&self.docker_host).map_err(io::Error::other)?;
        let container = match client.inspect(&spec::container_name(task)).await {
            Ok(container) if self.is_ours(&container) => container,
            Ok(_) | Err(DockerError::Missing(_)) => return Ok(None),
            Err(error) => return Err(io::Error::other(error)),
        };
        let pid = container.state.and_then(|state| state.pid).and_then(|pid| i32::try_from(pid).ok());
        let (Some(pid), Some(id)) = (pid.filter(|pid| *pid > 1), container.id) else { return Ok(None) };
        // A Docker that is elsewhere, in a container or on a machine of its own, numbers others.
        let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
        if !groups.contains(&id) {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "the container's processes are not to be seen from here"));
        }
        Ok(Some(pid))
    }

    fn is_ours(&self, container: &ContainerInspectResponse) -> bool {
        let labels = container.config.as_ref().and_then(|config| config.labels.as_ref());
        labels.and_then(|labels| labels.get(spec::LABEL_CLUSTER)).is_some_and(|cluster| *cluster == self.cluster_id.as_str())
    }
}

/// Why `asker` may not have a command run as the task; `None`: may. A task of `owner` runs as an account that is the owner's own, unless administrators
/// wrote as whom it does. The app may be somebody else's by now.
fn whose_alone(asker: &Asker, order: &Order, owner: Option<&Owner>) -> Option<&'static str> {
    match asker {
        Asker::Definition | Asker::Administrator => None,
        Asker::User(_) if !order.no_new_privileges => Some("runs as administrators wrote it, so a command in it is theirs alone"),
        Asker::User(user) if owner != Some(user) => Some("was started for another user, so a command in it is not yours; restart it first"),
        Asker::User(_) => None,
    }
}

type FromCommand = Pin<Box<dyn Stream<Item = Result<LogOutput, bollard::errors::Error>> + Send>>;
type ToCommand = Pin<Box<dyn AsyncWrite + Send>>;

struct Running {
    client: Client,
    container: String,
    exec: String,
    to_client: mpsc::Sender<Frame>,
    _permit: OwnedSemaphorePermit,
}

impl Running {
    async fn converse(self, output: FromCommand, input: ToCommand, frames: mpsc::Receiver<Frame>, terminal: Option<(u16, u16)>) {
        if let Some((columns, lines)) = terminal {
            self.resize(columns, lines).await;
        }
        let ended = tokio::select! {
            ended = self.pass_output(output) => ended,
            // A command that neither reads nor writes must not hide that the client has gone.
            () = self.to_client.closed() => false,
            () = self.pass_input(input, frames) => false,
        };
        if !ended {
            self.kill().await;
            return;
        }
        if let Some(code) = self.exit_code().await {
            // A client that is gone does not want to know.
            _ = self.to_client.send(Frame { channel: Channel::Exit, payload: code.to_string().into_bytes() }).await;
        }
    }

    /// True when the output has come to its end, false when nobody takes it.
    async fn pass_output(&self, mut output: FromCommand) -> bool {
        while let Some(Ok(piece)) = output.next().await {
            let (channel, message) = match piece {
                LogOutput::StdErr { message } => (Channel::Stderr, message),
                LogOutput::StdOut { message } | LogOutput::Console { message } | LogOutput::StdIn { message } => (Channel::Stdout, message),
            };
            for part in message.chunks(MAX_PAYLOAD_BYTES) {
                if self.to_client.send(Frame { channel, payload: part.to_vec() }).await.is_err() {
                    return false;
                }
            }
        }
        true
    }

    /// Ends when the client has gone.
    async fn pass_input(&self, input: ToCommand, mut frames: mpsc::Receiver<Frame>) {
        let mut input = Some(input);
        while let Some(frame) = frames.recv().await {
            match frame.channel {
                Channel::Stdin => {
                    let Some(open) = &mut input else { continue };
                    let is_end = frame.payload.is_empty();
                    let passed = if is_end { open.shutdown().await } else { open.write_all(&frame.payload).await };
                    let flushed = if passed.is_ok() && !is_end { open.flush().await } else { passed };
                    // A command that does not read any more is no reason to stop.
                    if flushed.is_err() && !is_end {
                        input = None;
                    }
                }
                Channel::Resize => {
                    if let Some((columns, lines)) = frame::size(&frame.payload) {
                        self.resize(columns, lines).await;
                    }
                }
                Channel::Stdout | Channel::Stderr | Channel::Exit | Channel::End => {}
            }
        }
    }

    async fn resize(&self, columns: u16, lines: u16) {
        for _ in 0..RESIZE_TRIES {
            let options = ResizeExecOptionsBuilder::new().w(columns.into()).h(lines.into()).build();
            match self.client.raw().resize_exec(&self.exec, options).await {
                Ok(()) => return,
                // It is just being started, or has just ended.
                Err(error) => tracing::debug!(%error, "A terminal could not be resized."),
            }
            tokio::time::sleep(EXIT_PAUSE).await;
        }
    }

    /// `None`: it is not known.
    async fn exit_code(&self) -> Option<i64> {
        let began = Instant::now();
        while began.elapsed() < EXIT_LIMIT {
            let seen = self.client.raw().inspect_exec(&self.exec).await.ok()?;
            if seen.running != Some(true) {
                return seen.exit_code;
            }
            tokio::time::sleep(EXIT_PAUSE).await;
        }
        None
    }

    /// Docker cannot end a command; where it is a process of this machine, we can. It leads a group of its own.
    async fn kill(&self) {
        let Some(pid) = self.pid().await else { return };
        // Not another one that has got its number since.
        let membership = std::fs::read_to_string(format!("/proc/{}/cgroup", pid.as_raw_nonzero())).unwrap_or_default();
        if membership.contains(&self.container) {
            _ = rustix::process::kill_process_group(pid, Signal::KILL).or_else(|_| rustix::process::kill_process(pid, Signal::KILL));
        }
    }

    /// `None`: it has ended, or is no process of this machine. One that is just being started runs a moment before Docker knows its number.
    async fn pid(&self) -> Option<Pid> {
        let (began, mut pause) = (Instant::now(), EXIT_PAUSE);
        while self.client.is_local() && began.elapsed() < KILL_LIMIT {
            match self.client.raw().inspect_exec(&self.exec).await.map_err(DockerError::sort) {
                Ok(seen) => {
                    let pid = seen.pid.and_then(|pid| i32::try_from(pid).ok()).filter(|pid| *pid > 1);
                    match (seen.running, pid) {
                        (Some(true), Some(pid)) => return Pid::from_raw(pid),
                        _ if seen.exit_code.is_some() => return None,
                        _ => {}
                    }
                }
                // It has forgotten the command, or does not run the container any more.
                Err(DockerError::Missing(_) | DockerError::Conflict(_)) => return None,
                Err(error) => tracing::debug!(%error, "A command that nobody waits for cannot be looked for."),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(MAX_KILL_PAUSE);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runs_as_somebody_is_not_everybody_s_to_enter() {
        let check = |asker: &Asker, administered: bool, owner: &str, expected: &str| {
            let order = Order { no_new_privileges: !administered, ..crate::cluster::engine::process::record::sample() };
            let found = whose_alone(asker, &order, Some(&Owner::new(owner)));
            assert!(found.unwrap_or("fine").starts_with(expected), "{asker:?} {administered} {owner}: {found:?}");
        };
        let (ann, bob) = (Asker::User(Owner::new("ann")), Asker::User(Owner::new("bob")));
        check(&ann, false, "ann", "fine");
        check(&bob, false, "ann", "was started for another user");
        for user in [&ann, &bob] {
            check(user, true, "ann", "runs as administrators wrote it");
        }
        for asker in [Asker::Definition, Asker::Administrator] {
            check(&asker, true, "ann", "fine");
            check(&asker, false, "ann", "fine");
        }
    }
}
