//! One launch, from definition to running container: image, host volumes, bricks, create, start, look whether it sees its volumes.
//!
//! A call that brings no answer is repeated after looking what came of it, for as long as Docker is away; a launch ends early only when it is cancelled.
//! Whatever fails leaves no container behind. Bricks stay mounted: the lease is the core's, and ends by its release.

use std::{
    io,
    panic::AssertUnwindSafe,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};

use futures_util::FutureExt;
use tokio::sync::watch;

use super::{
    account::Whom,
    agent::{Report, Seen},
    docker::{Client, DockerError},
    fetch,
    idmap::{self, Ids},
    images::Wanted,
    jobs::{self, Context},
    logins::Logins,
    ports, process, sandbox, secrets,
    spec::{self, Bind, Given},
    volumes::{self, Identity, Pinned},
};
use crate::{
    brick::BrickError,
    model::{
        app::{Mode, Volume},
        brick::BrickMount,
        cluster::{Launch, TaskState},
        id::TaskId,
    },
};

mod external;
pub(super) mod pods;

/// How often a call is repeated that Docker leaves without an answer although it is there.
const MAX_TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(500);
/// How long a launch waits for a brick that is busy, and between two tries.
const BRICK_PATIENCE: Duration = Duration::from_secs(600);
const BRICK_PAUSE: Duration = Duration::from_secs(1);
/// A launch that waits longer than this for its turn says so.
const PATIENCE: Duration = Duration::from_secs(2);

/// Why a launch came to nothing.
pub(super) enum End {
    Cancelled,
    Refused(TaskState, String),
}

impl End {
    pub(super) fn failed(words: impl Into<String>) -> Self {
        Self::Refused(TaskState::Failed, words.into())
    }
}

/// A volume, and what must be seen at its target.
struct Expected {
    target: String,
    identity: Identity,
    what: String,
}

/// Launches a task and reports what came of it.
pub(super) async fn run(context: Arc<Context>, launch: Box<Launch>, cancel: watch::Receiver<bool>) {
    let task = launch.task.clone();
    let _under_way = UnderWay::begin(&context);
    let attempt = async {
        if process::is_meant(&launch) {
            return process::launch(&context, &launch, &cancel).await;
        }
        Attempt { context: &context, task: &task, launch: &launch, cancel: cancel.clone() }.run().await
    };
    let outcome = AssertUnwindSafe(attempt).catch_unwind().await;
    let outcome = outcome.unwrap_or_else(|_| Err(End::failed("the server made an error while launching it; see its log")));
    if outcome.is_err() && secrets::are_wanted(&launch.app) {
        let (work_dir, task) = (context.settings.work_dir.clone(), task.clone());
        _ = tokio::task::spawn_blocking(move || secrets::forget(&work_dir, &task)).await;
    }
    let report = match outcome {
        Ok(seen) => Report::Started { task, seen },
        Err(End::Cancelled) => Report::Cancelled { task },
        Err(End::Refused(state, message)) => {
            tracing::info!(%task, state = state.as_str(), %message, "The task could not be launched.");
            Report::Refused { task, state, message }
        }
    };
    context.report(report).await;
}

/// Counts a launch for as long as it lives.
struct UnderWay(watch::Sender<usize>);

impl UnderWay {
    fn begin(context: &Context) -> Self {
        context.launching.send_modify(|count| *count += 1);
        Self(context.launching.clone())
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

struct Attempt<'a> {
    context: &'a Arc<Context>,
    task: &'a TaskId,
    launch: &'a Launch,
    cancel: watch::Receiver<bool>,
}

impl<'a> Attempt<'a> {
    async fn run(mut self) -> Result<Seen, End> {
        // What is wrong with the definition itself is said before anything is fetched, and what is fetched may be needed to pull the image.
        let draft = spec::container(self.launch, &self.context.settings, Given::default());
        let draft = draft.map_err(|words| End::Refused(TaskState::Error, words))?;
        self.vetted().await?;
        let secrets = self.secrets().await?;
        let (sandbox, fetched) = self.sandbox().await?;
        let logins = match &secrets.pull_config {
            Some(config) => Logins::of_pull_config(config).map_err(End::failed)?,
            None => fetched,
        };
        let image_id = self.image(&logins).await?;
        let (pinned, ids) = self.host_volumes(draft.user).await?;
        let mut binds: Vec<Bind> = pinned.iter().map(|pinned| pinned.bind.clone()).collect();
        binds.extend(sandbox);
        binds.extend(self.secret_files(secrets.files).await?);
        let mut expected: Vec<Expected> = pinned.iter().map(expect_host_volume).collect();
        self.bricks(&mut binds, &mut expected).await?;
        binds.extend(self.shared_volumes().await?);
        let external = self.external_volumes().await?;

        let context = self.context;
        self.note_owner().await;
        let _turn = self.turn().await?;
        self.ports_are_free().await?;
        context.report(Report::Starting { task: self.task.clone() }).await;
        let addresses = self.network().await?;
        let in_sandbox = self.begins_in_sandbox(&image_id).await?;
        let given = Given {
            image_id: &image_id,
            binds: &binds,
            external: &external,
            addresses: &addresses,
            secrets: &secrets.variables,
            in_sandbox,
            groups: ids.as_ref().map_or(&[], |ids| &*ids.groups),
            writes_as_user: ids.is_some() && pinned.iter().any(|pinned| !pinned.bind.read_only),
        };
        let body = spec::container(self.launch, &context.settings, given).map_err(End::failed)?;
        let outcome = match self.create(&spec::container_name(self.task), &body).await {
            Ok(()) if self.is_cancelled() => Err(End::Cancelled),
            Ok(()) => self.start_and_check(&pinned, &expected).await,
            Err(end) => Err(end),
        };
        if outcome.is_err() {
            jobs::remove_container(context, self.task).await;
        }
        outcome
    }

    /// Waits for Docker, for as long as it is away, and for what is known against it.
    async fn vetted(&mut self) -> Result<(), End> {
        let context = self.context;
        self.unless_cancelled(context.await_client()).await?;
        match self.context.refusal.lock().unwrap_or_else(PoisonError::into_inner).clone() {
            Some(reason) => Err(End::failed(format!("containers are not started with this Docker: {reason}"))),
            None => Ok(()),
        }
    }

    fn is_cancelled(&self) -> bool {
        *self.cancel.borrow()
    }

    /// Waits for `work` unless the launch is cancelled first.
    async fn unless_cancelled<T>(&mut self, work: impl Future<Output = T>) -> Result<T, End> {
        tokio::select! {
            biased;
            Ok(_) = self.cancel.wait_for(|cancelled| *cancelled) => Err(End::Cancelled),
            done = work => Ok(done),
        }
    }

    /// What a pod publishes in a network of its own is there already when the second of its containers begins: Docker looks after that itself.
    async fn ports_are_free(&self) -> Result<(), End> {
        let is_published = self.launch.pod.as_ref().is_some_and(|shared| crate::model::pod::has_own_network(&shared.app));
        if is_published || !self.context.settings.docker_host.starts_with("unix://") {
            return Ok(());
        }
        ports_are_free(self.context, self.launch).await
    }

    async fn turn(&mut self) -> Result<tokio::sync::SemaphorePermit<'a>, End> {
        let (context, task) = (self.context, self.task.clone());
        let wait = async {
            let waited = tokio::time::timeout(PATIENCE, context.launches.acquire()).await;
            match waited {
                Ok(permit) => permit,
                Err(_) => {
                    context.report(Report::Progress { task, message: "waiting for its turn to be started".to_owned() }).await;
                    context.launches.acquire().await
                }
            }
        };
        self.unless_cancelled(wait).await?.map_err(|_| End::Cancelled)
    }
}

// === What it needs ===

impl Attempt<'_> {
    /// The host volumes, and as whom the container, whose processes begin as `user`, is seen there; `None`: as itself.
    async fn host_volumes(&self, user: Option<String>) -> Result<(Vec<Pinned>, Option<Ids>), End> {
        let mut pinned = pin_host_volumes(self.context, self.launch).await?;
        let account = self.launch.account.clone();
        if pinned.is_empty() || account.is_none() {
            return Ok((pinned, None));
        }
        let settings = &self.context.settings;
        if !settings.docker_host.starts_with("unix://") {
            return Err(End::failed(
                "Docker is on another machine, where nothing is known of a user's account: only administrators map its directories",
            ));
        }
        let (task, work_dir, program) = (self.task.clone(), settings.work_dir.clone(), settings.shim.clone());
        let show = move || {
            let whom = Whom::of(account.as_ref());
            idmap::show(&mut pinned, &whom, user.as_deref(), &task, &work_dir, &program).map(|shown| (pinned, shown))
        };
        let shown = tokio::task::spawn_blocking(show).await.map_err(|error| End::failed(error.to_string()))?;
        let (pinned, shown) = shown.map_err(End::failed)?;
        let Some((ids, notes)) = shown else { return Ok((pinned, None)) };
        for message in notes {
            self.context.report_if_room(Report::Progress { task: self.task.clone(), message });
        }
        Ok((pinned, Some(ids)))
    }

    async fn secrets(&self) -> Result<secrets::Secrets, End> {
        read_secrets(self.context, self.launch).await
    }

    /// The files with secrets, mounted where the container wants them.
    async fn secret_files(&self, files: Vec<(String, Vec<u8>)>) -> Result<Vec<Bind>, End> {
        if files.is_empty() {
            return Ok(Vec::new());
        }
        if !self.context.settings.docker_host.starts_with("unix://") {
            return Err(End::failed("Docker is on another machine, which does not see the files with secrets"));
        }
        let (work_dir, task) = (self.context.settings.work_dir.clone(), self.task.clone());
        let keep = move || secrets::keep(&work_dir, &task, &files, None).map(|kept| (kept, files));
        let kept = tokio::task::spawn_blocking(keep).await.map_err(io::Error::other).flatten();
        let (kept, files) = kept.map_err(|error| End::failed(format!("the files with its secrets cannot be made: {error}")))?;
        let bind = |(source, (path, _)): (PathBuf, &(String, Vec<u8>))| Bind { source, target: spec::in_container(path), read_only: true };
        Ok(kept.into_iter().zip(&files).map(bind).collect())
    }

    async fn image(&mut self, logins: &Logins) -> Result<String, End> {
        let (context, task) = (self.context, self.task);
        let docker = self.launch.app.container.as_ref().and_then(|container| container.docker.as_ref());
        let (image, force) = docker.map_or(("", false), |docker| (&docker.image, docker.force_pull_image));
        let wanted = Wanted { image, force, owner: &self.launch.owner, app: &self.launch.app.id, logins };
        let platform = context.settings.platform.as_deref();
        let tell = |message: String| context.report_if_room(Report::Progress { task: task.clone(), message });
        let resolve = async {
            let mut tries = 0;
            loop {
                let client = context.await_client().await;
                match context.images.resolve(&client, platform, wanted, &tell).await {
                    Err(DockerError::Unreachable(_)) if tries < MAX_TRIES => tries += 1,
                    other => return other,
                }
                tokio::time::sleep(PAUSE).await;
            }
        };
        self.unless_cancelled(resolve).await?.map_err(|error| End::failed(error.to_string()))
    }

    /// Before there is any output. Where it cannot be noted, only administrators read what is kept after the end.
    async fn note_owner(&self) {
        let (work_dir, task, owner) = (self.context.settings.work_dir.clone(), self.task.clone(), self.launch.owner.clone());
        let noted = tokio::task::spawn_blocking(move || sandbox::note_owner(&work_dir, &task, &owner)).await;
        if let Err(error) = noted.map_err(io::Error::other).flatten() {
            tracing::warn!(task = %self.task, %error, "Whose the task is could not be written into its sandbox.");
        }
    }

    /// The task's own files, with what it wants to have in them, where Mesos has them, and how to log in to registries, if they say. Only a daemon of
    /// this machine can see them.
    async fn sandbox(&mut self) -> Result<(Option<Bind>, Logins), End> {
        let docker_host = &self.context.settings.docker_host;
        if !docker_host.starts_with("unix://") {
            let hint = "Docker is on another machine, which does not see what is fetched here";
            return if self.launch.app.fetch.is_empty() { Ok((None, Logins::default())) } else { Err(End::failed(hint)) };
        }
        let (work_dir, task) = (self.context.settings.work_dir.clone(), self.task.clone());
        let failed = |error: std::io::Error| End::failed(format!("its sandbox cannot be made: {error}"));
        let made = tokio::task::spawn_blocking(move || sandbox::make_files(&work_dir, &task, false)).await;
        let files = made.map_err(std::io::Error::other).flatten().map_err(failed)?;
        fetch::run(self.context, self.launch, &files, &self.cancel).await?;
        let logins = self.logins(&files).await;
        sandbox::open_to_all(&files).map_err(failed)?;
        let mut volumes = self.launch.app.container.iter().flat_map(|container| &container.volumes);
        let is_taken = volumes.any(|volume| volume.container_path() == spec::SANDBOX);
        Ok(((!is_taken).then(|| Bind { source: files, target: spec::SANDBOX.to_owned(), read_only: false }), logins))
    }

    /// What cannot be used is told, and done without: most images need no login.
    async fn logins(&self, files: &Path) -> Logins {
        if self.launch.app.fetch.is_empty() {
            return Logins::default();
        }
        let files = files.to_owned();
        let read = tokio::task::spawn_blocking(move || Logins::read(&files)).await;
        read.map_err(|error| error.to_string()).flatten().unwrap_or_else(|why| {
            let message = format!("pulling without a login: {why}");
            self.context.report_if_room(Report::Progress { task: self.task.clone(), message });
            Logins::default()
        })
    }

    async fn bricks(&mut self, binds: &mut Vec<Bind>, expected: &mut Vec<Expected>) -> Result<(), End> {
        for brick in &self.launch.bricks {
            let source = mount(self.context, self.task, &self.cancel, brick).await?;
            let target = spec::in_container(&brick.container_path);
            let identity = volumes::identity(&source)
                .map_err(|error| End::failed(format!("brick '{}' is not where it was mounted: {error}", brick.name)))?;
            let what = format!("the mount of brick '{}'", brick.name);
            expected.push(Expected { target: target.clone(), identity, what });
            binds.push(Bind { source, target, read_only: brick.read_only });
        }
        if !self.launch.bricks.is_empty() {
            tokio::spawn(jobs::brick_usage(self.context.clone()));
        }
        Ok(())
    }
}

/// What the secrets of a launch say.
pub(super) async fn read_secrets(context: &Context, launch: &Launch) -> Result<secrets::Secrets, End> {
    if !secrets::are_wanted(&launch.app) {
        return Ok(secrets::Secrets::default());
    }
    let (directory, app) = (context.settings.secrets_dir.clone(), launch.app.clone());
    let read = tokio::task::spawn_blocking(move || secrets::read(directory.as_deref(), &app)).await;
    read.map_err(|error| End::failed(format!("the server made an error: {error}")))?.map_err(End::failed)
}

/// That nobody is in the way of a task on the ports that it was given.
pub(super) async fn ports_are_free(context: &Context, launch: &Launch) -> Result<(), End> {
    let (wanted, addresses) = (launch.clone(), context.settings.node_addresses.clone());
    let conflict = tokio::task::spawn_blocking(move || ports::conflict(&wanted, &addresses)).await.ok().flatten();
    let Some(conflict) = conflict else { return Ok(()) };
    if let Some(holder) = &conflict.holder {
        tracing::info!(task = %launch.task, %holder, "Somebody who is no task uses a port that a task was given.");
    }
    Err(End::failed(conflict.words(launch.owner_is_admin)))
}

/// Resolves the host volumes of a launch and applies the rule, as the account that is asked.
pub(super) async fn pin_host_volumes(context: &Context, launch: &Launch) -> Result<Vec<Pinned>, End> {
    let volumes = launch.app.container.iter().flat_map(|container| &container.volumes);
    let wanted: Vec<(String, String, bool)> = volumes
        .filter_map(|volume| match volume {
            Volume::Host { container_path, host_path, mode } => {
                Some((host_path.clone(), spec::in_container(container_path), *mode == Mode::Ro))
            }
            Volume::Brick(_) | Volume::Persistent(_) | Volume::External(_) | Volume::Shared { .. } | Volume::Secret { .. } => None,
        })
        .collect();
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let mut rule = context.rule.clone();
    rule.own.extend(context.docker_root.get().cloned());
    let user = launch.account.clone();
    let pin = tokio::task::spawn_blocking(move || {
        let whom = Whom::of(user.as_ref());
        wanted.iter().map(|(host, target, read_only)| volumes::pin(host, target, *read_only, &rule, &whom)).collect::<Result<Vec<_>, _>>()
    });
    pin.await.map_err(|error| End::failed(error.to_string()))?.map_err(End::failed)
}

/// Mounts a brick. What takes long (the check of a large file system) or is busy for a moment is waited for; an end in between is seen in between.
pub(super) async fn mount(context: &Context, task: &TaskId, cancel: &watch::Receiver<bool>, brick: &BrickMount) -> Result<PathBuf, End> {
    let began = Instant::now();
    loop {
        if *cancel.borrow() {
            return Err(End::Cancelled);
        }
        match context.bricks.mount(brick).await {
            Ok(path) => return Ok(path),
            Err(busy @ BrickError::Busy { .. }) if began.elapsed() < BRICK_PATIENCE => {
                let message = format!("waiting for a brick: {busy}");
                context.report_if_room(Report::Progress { task: task.clone(), message });
            }
            Err(error) => return Err(End::failed(error.to_string())),
        }
        tokio::time::sleep(BRICK_PAUSE).await;
    }
}

fn expect_host_volume(pinned: &Pinned) -> Expected {
    let what = format!("the host volume {}", pinned.path.display());
    Expected { target: pinned.bind.target.clone(), identity: pinned.identity, what }
}

// === The container ===

impl Attempt<'_> {
    /// Creates the container; one that is there already under its name is taken for an earlier try.
    async fn create(&mut self, name: &str, body: &bollard::models::ContainerCreateBody) -> Result<(), End> {
        for _ in 0..MAX_TRIES {
            let client = self.context.await_client().await;
            match client.create(name, body.clone()).await {
                Ok(()) => return Ok(()),
                Err(DockerError::Conflict(words)) => match client.inspect(name).await {
                    Ok(container) if jobs::is_ours(self.context, &container) => return Ok(()),
                    Ok(_) => {
                        let hint = "is in the way and not ours; remove it or give it another name";
                        return Err(End::failed(format!("a container named {name} {hint}")));
                    }
                    Err(DockerError::Missing(_) | DockerError::Unreachable(_)) => {}
                    Err(_) => return Err(End::failed(explain(&words))),
                },
                Err(DockerError::Unreachable(reason)) => tracing::warn!(task = %self.task, %reason, "The creation brought no answer."),
                Err(error) => return Err(End::failed(explain(&error.to_string()))),
            }
            if self.is_cancelled() {
                return Err(End::Cancelled);
            }
            tokio::time::sleep(PAUSE).await;
        }
        Err(End::failed("Docker did not create the container in time"))
    }

    async fn start_and_check(&mut self, pinned: &[Pinned], expected: &[Expected]) -> Result<Seen, End> {
        for pinned in pinned {
            if volumes::identity(&pinned.bind.source).ok() != Some(pinned.identity) {
                return Err(End::failed(format!("the host volume {} was replaced while the container was made", pinned.path.display())));
            }
        }
        let name = spec::container_name(self.task);
        for _ in 0..MAX_TRIES {
            let client = self.context.await_client().await;
            match client.start(&name).await {
                Ok(()) => {}
                Err(DockerError::Unreachable(reason)) => tracing::warn!(task = %self.task, %reason, "The start brought no answer."),
                Err(error) => return Err(End::failed(explain(&error.to_string()))),
            }
            match client.inspect(&name).await {
                Ok(container) => {
                    let seen = spec::seen(&container, false);
                    if seen != Seen::Created {
                        let pid = container.state.and_then(|state| state.pid).unwrap_or(0);
                        self.check_volumes(&client, pid, expected).await?;
                        return Ok(seen);
                    }
                }
                Err(DockerError::Unreachable(_)) => {}
                Err(error) => return Err(End::failed(explain(&error.to_string()))),
            }
            if self.is_cancelled() {
                return Err(End::Cancelled);
            }
            tokio::time::sleep(PAUSE).await;
        }
        Err(End::failed("Docker did not start the container in time"))
    }

    /// Docker mounts by path, in a mount namespace of its own: only the container can show what it really got.
    async fn check_volumes(&self, client: &Client, pid: i64, expected: &[Expected]) -> Result<(), End> {
        if pid <= 0 || !client.is_local() {
            return Ok(());
        }
        for volume in expected {
            match volumes::seen_by(pid, &volume.target) {
                Ok(identity) if identity == volume.identity => {}
                Err(_) if !is_alive(pid) => return Ok(()), // It ended meanwhile; there is nothing left to protect.
                Ok(_) | Err(_) => {
                    return Err(End::failed(format!(
                        "the container does not see {} at {}; is Docker in a mount namespace of its own?",
                        volume.what, volume.target
                    )));
                }
            }
        }
        Ok(())
    }
}

fn is_alive(pid: i64) -> bool {
    // A process that ended and was not waited for yet has no root any more.
    std::fs::read_link(format!("/proc/{pid}/root")).is_ok()
}

/// Docker's words, and what to do.
fn explain(words: &str) -> String {
    let lower = words.to_lowercase();
    let has = |needles: &[&str]| needles.iter().any(|needle| lower.contains(needle));
    let hint = if has(&["port is already allocated", "address already in use"]) {
        "something else on this node uses the port: stop it, or choose another port"
    } else if has(&["cannot assign requested address"]) {
        "--node_address must be an address of this node"
    } else if has(&["bind source path does not exist"]) {
        "the daemon does not see what this server sees; is it in a mount namespace of its own?"
    } else if has(&["executable file not found", "no such file or directory: unknown", "exec format error"]) {
        "the image has no such command, or it is for another kind of machine"
    } else if has(&["unable to find user", "no matching entries in passwd", "unable to find group"]) {
        "the image has no such user or group"
    } else if has(&["no space left"]) {
        "the disk with Docker's data is full"
    } else if has(&["duplicate mount point"]) {
        "two volumes have the same containerPath"
    } else if lower.contains("network") && lower.contains("not found") {
        "there is no such Docker network on this node"
    } else {
        return words.trim().to_owned();
    };
    format!("{} ({hint})", words.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docker_s_words_come_with_what_to_do() {
        let check = |words: &str, hint: &str| {
            let found = explain(words);
            assert!(found.starts_with(words.trim()) && found.ends_with(hint), "{found}");
        };
        check(
            "driver failed programming external connectivity on endpoint x: Bind for 10.0.0.5:31000 failed: port is already allocated",
            "(something else on this node uses the port: stop it, or choose another port)",
        );
        check("listen tcp4 10.9.9.9:31000: bind: cannot assign requested address", "(--node_address must be an address of this node)");
        check(
            "exec: \"/x\": stat /x: no such file or directory: unknown",
            "(the image has no such command, or it is for another kind of machine)",
        );
        check("unable to find user nobody2: no matching entries in passwd file", "(the image has no such user or group)");
        check("network blue not found", "(there is no such Docker network on this node)");
        check("something new\n", "something new");
    }
}
