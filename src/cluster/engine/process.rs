//! Tasks without an image: processes of this machine, each in a sandbox and control groups of its own and with a supervisor of its own ([`shim`]).
//!
//! | room | what it is |
//! | --- | --- |
//! | [`record`] | what is written down of a task: order, start, end |
//! | [`shim`] | the supervisor: `xtao task-shim` |
//! | [`beside`] | a command beside a task: `exec`, and `COMMAND` checks |
//! | [`limits`] | control groups |
//! | [`tree`] | which process a number means, and who descends from whom |
//! | [`volumes`] | what a task sees besides the node's own directories |
//! | [`who`] | as whom a task runs |
//!
//! The server and a supervisor share nothing but the records and signals, so either may die. What the server does is here: it writes an order and starts
//! the supervisor, looks at the records, waits for the supervisor's end, and sends it signals. Where a supervisor was killed, what it supervised is killed
//! by the server as soon as it sees that.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rustix::process::Signal as Sent;
use tokio::{io::AsyncReadExt, net::unix::pipe::Receiver, sync::watch};

use super::{
    account::Whom,
    agent::{Exit, Found, Holding, Report, Runner, Seen, Signal},
    fetch::{self, Tree},
    jobs::{self, Context},
    launch::{End, mount, pin_host_volumes, pods, ports_are_free, read_secrets},
    sandbox, secrets,
    volumes::Pinned,
};
use crate::model::{
    app::{Mode, Network, Volume},
    artifact::sandbox_path,
    cluster::{Launch, TaskState},
    id::{ClusterId, TaskId},
};

pub mod beside;
pub mod limits;
pub mod record;
pub mod shim;
pub mod tree;
mod volumes;
pub mod who;

use limits::{Groups, Limits};
use record::{Ended, Mounted, Order, Records, Started};

/// A supervisor has this long to say that its task runs.
const START_LIMIT: Duration = Duration::from_secs(60);
/// A supervisor that is just beginning, or just ending, gets this long to write it down.
const SETTLE: Duration = Duration::from_secs(5);
const SETTLE_PAUSE: Duration = Duration::from_millis(20);
/// What a dead supervisor has left is killed again and again for so long.
const KILL_LIMIT: Duration = Duration::from_secs(10);

/// True when `launch` has no image: it is run as a process.
pub fn is_meant(launch: &Launch) -> bool {
    launch.app.container.as_ref().is_none_or(|container| container.docker.is_none())
}

// === Launching ===

/// That the definition can be carried out at all.
///
/// # Errors
/// A sentence for the user.
pub fn check(launch: &Launch) -> Result<(), String> {
    let app = &launch.app;
    if app.cmd.is_none() && app.args.is_empty() {
        return Err("it has neither cmd nor args nor an image: there is nothing to run".to_owned());
    }
    if app.network != Network::Host {
        return Err(
            "a command without an image has the node's network: ask for host networking, or name a container.docker.image".to_owned()
        );
    }
    if app.gpus > 0 {
        return Err("GPUs need an image: use container.type MESOS with a docker.image".to_owned());
    }
    let info = app.container.as_ref().and_then(|container| container.linux_info.as_ref());
    if info.is_some_and(|info| info.ipc_info.is_some()) {
        return Err("a command without an image has the node's shared memory: leave out linuxInfo.ipcInfo, or name an image".to_owned());
    }
    app.container.iter().flat_map(|container| &container.volumes).try_for_each(|volume| match volume {
        Volume::Shared { container_path, mode: Mode::Rw, .. } if below_sandbox(container_path).is_some() => Ok(()),
        Volume::Shared { .. } => {
            Err("a container without an image can write to volumes of the pod itself, at relative paths, and nothing else".to_owned())
        }
        Volume::External(_) => {
            Err("external volumes need a container.docker.image: it is Docker that mounts them, for its containers".to_owned())
        }
        Volume::Secret { container_path, .. } if path_of_secret(container_path).is_some() => Ok(()),
        Volume::Secret { .. } => {
            Err("a command without an image finds its secrets in its sandbox alone: write a relative containerPath".to_owned())
        }
        Volume::Host { .. } | Volume::Persistent(_) | Volume::Brick(_) => Ok(()),
    })
}

/// Starts a task: it runs then, or has ended already.
pub(super) async fn launch(context: &Arc<Context>, launch: &Launch, cancel: &watch::Receiver<bool>) -> Result<Seen, End> {
    check(launch).map_err(|words| End::Refused(TaskState::Error, words))?;
    let (app, owner) = (launch.app.clone(), launch.owner.clone());
    let rights = blocking(move || who::rights(&app, &owner, rustix::process::geteuid().as_raw())).await?;
    let rights = rights.map_err(|words| End::Refused(TaskState::Error, words))?;
    if rights.are_shared() && secrets::are_wanted(&launch.app) {
        let why = "a command that runs as 'nobody' can keep no secret: so do those of everybody who has no account on this node";
        let hint = format!("create the account '{}' on this node, or use an image", launch.owner);
        return Err(End::Refused(TaskState::Error, format!("{why} ({hint})")));
    }
    let (work_dir, task, owner) = (context.settings.work_dir.clone(), launch.task.clone(), launch.owner.clone());
    let made = move || sandbox::note_owner(&work_dir, &task, &owner).and_then(|()| sandbox::make_files(&work_dir, &task, true));
    let directory = blocking(made).await?.map_err(in_sandbox)?;
    fetch::run(context, launch, &directory, cancel).await?;
    let shared = shared_volumes(context, launch, &directory).await?;
    let read = read_secrets(context, launch).await?;
    let user = rights.account.as_ref().map(|account| (account.uid, account.gid));
    let (work_dir, task, sandbox) = (context.settings.work_dir.clone(), launch.task.clone(), directory.clone());
    let files = read.files;
    blocking(move || link_secrets(&work_dir, &task, &sandbox, &files, user)).await?.map_err(in_sandbox)?;
    let (account, files) = (rights.account.clone(), directory.clone());
    blocking(move || sandbox::hand_over(&files, account.as_ref().map(|account| (account.uid, account.gid)))).await?.map_err(in_sandbox)?;

    // Held open until the task has them: what is there now is meant.
    let pinned = host_volumes(context, launch).await?;
    let mut volumes = bricks(context, launch, cancel, rights.account.as_ref()).await?;
    volumes.extend(shared);
    volumes.extend(pinned.iter().map(|pinned| Mounted {
        source: pinned.bind.source.clone(),
        target: volumes::target(&pinned.bind.target),
        read_only: pinned.bind.read_only,
        host: Some(pinned.identity),
    }));
    let _turn = context.launches.acquire().await.map_err(|_| End::Cancelled)?;
    if *cancel.borrow() {
        return Err(End::Cancelled);
    }
    ports_are_free(context, launch).await?;
    context.report(Report::Starting { task: launch.task.clone() }).await;
    let mut order = Order { volumes, ..order(context, launch, rights, directory) };
    order.environment.retain(|(name, _)| !read.variables.iter().any(|(secret, _)| secret == name));
    order.environment.extend(read.variables);
    let records = Records::of(&context.settings.work_dir, &launch.task);
    let written = records.clone();
    blocking(move || written.put_order(&order)).await?.map_err(|error| End::failed(format!("the task cannot be written down: {error}")))?;
    let outcome = start(context, &launch.task, &records).await;
    if outcome.is_err() {
        blocking(move || remove_now(&records)).await?;
    }
    outcome
}

/// A path of a pod's container, below its sandbox.
fn below_sandbox(container_path: &str) -> Option<String> {
    let inside = container_path.strip_prefix(crate::model::pod::SANDBOX)?.strip_prefix('/')?;
    sandbox_path(inside).ok()
}

/// Where a secret is in the sandbox: of a pod, whose paths are as an image sees them, or of an app.
fn path_of_secret(container_path: &str) -> Option<String> {
    match container_path.starts_with('/') {
        true => below_sandbox(container_path),
        false => sandbox_path(container_path).ok(),
    }
    .filter(|path| !path.is_empty())
}

/// Files with secrets are links in the sandbox, which is kept when the task has ended: they lead nowhere then.
fn link_secrets(work_dir: &Path, task: &TaskId, sandbox: &Path, files: &[(String, Vec<u8>)], user: Option<(u32, u32)>) -> io::Result<()> {
    if files.is_empty() {
        return Ok(());
    }
    let kept = secrets::keep(work_dir, task, files, Some(user))?;
    for (source, (path, _)) in kept.iter().zip(files) {
        let Some(inside) = path_of_secret(path) else { continue };
        // What was fetched may have links on the way, and an earlier try of the same launch has put this one there.
        Tree::open(sandbox)?.symlink(&inside, source)?;
    }
    Ok(())
}

/// The volumes of a pod that a command without an image uses, and sees in its sandbox. They are mounted, because no account of the node may go the way
/// there. A server that is not root can mount nothing, but runs everything as itself: then they are links.
async fn shared_volumes(context: &Context, launch: &Launch, directory: &Path) -> Result<Vec<Mounted>, End> {
    let wanted = pods::shared(launch);
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let (work_dir, task, owner) = (context.settings.work_dir.clone(), launch.task.clone(), launch.owner.clone());
    let directory = directory.to_owned();
    let make = move || {
        let mut mounted = Vec::new();
        for one in &wanted {
            let Some(inside) = below_sandbox(&one.target) else { continue };
            let source = pods::make_shared(&work_dir, &task, &owner, one)?.source;
            if !rustix::process::geteuid().is_root() {
                // What was fetched may have links on the way, and an earlier try of the same launch has put this one there.
                Tree::open(&directory)?.symlink(&inside, &source)?;
                continue;
            }
            // The server's directory may be called by a link.
            let source = std::fs::canonicalize(source)?;
            let host = Some(volumes::identity(&source)?);
            mounted.push(Mounted { source, target: inside.into(), read_only: false, host });
        }
        Ok(mounted)
    };
    blocking(make).await?.map_err(in_sandbox)
}

fn in_sandbox(error: io::Error) -> End {
    End::failed(format!("its sandbox cannot be made: {error}"))
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, End> {
    tokio::task::spawn_blocking(work).await.map_err(|error| End::failed(format!("the server made an error: {error}")))
}

fn order(context: &Context, launch: &Launch, rights: who::Rights, directory: PathBuf) -> Order {
    let settings = &context.settings;
    let command = match &launch.app.cmd {
        Some(cmd) => vec!["/bin/sh".to_owned(), "-c".to_owned(), cmd.clone()],
        None => launch.app.args.clone(),
    };
    let root = context.groups.as_ref().ok().cloned();
    Order {
        task: launch.task.clone(),
        cluster: settings.cluster_id.clone(),
        resources: crate::model::resources::Resources { ports: Vec::new(), ..launch.resources.clone() },
        overhead: launch.overhead(),
        mem_limit: launch.app.resource_limits.and_then(|limits| limits.mem),
        kill_grace_ms: launch.app.kill_grace_ms,
        ports: launch.ports.clone(),
        command,
        environment: environment(launch, &directory),
        account: rights.account,
        no_new_privileges: rights.no_new_privileges,
        terminal: launch.app.tty == Some(true),
        directory,
        work_dir: settings.work_dir.clone(),
        log_file_bytes: settings.log_file_bytes,
        limits: Limits::of(
            &launch.resources,
            launch.app.resource_limits.unwrap_or_default(),
            settings.cpu_hard_limit,
            settings.pids_limit,
            root,
        ),
        volumes: Vec::new(),
    }
}

/// The host volumes, resolved and allowed. What they are to be seen at is looked for with the same eyes.
async fn host_volumes(context: &Context, launch: &Launch) -> Result<Vec<Pinned>, End> {
    let pinned = pin_host_volumes(context, launch).await?;
    let targets: Vec<PathBuf> = pinned.iter().map(|pinned| volumes::target(&pinned.bind.target)).collect();
    let user = launch.account.clone();
    let check = move || {
        let whom = Whom::of(user.as_ref());
        targets.iter().try_for_each(|target| whom.run(|| volumes::check_target(target)))
    };
    blocking(check).await?.map_err(End::failed)?;
    Ok(pinned)
}

/// Mounts the task's bricks and persistent volumes; their top directories are its account's, as in Mesos.
async fn bricks(
    context: &Arc<Context>,
    launch: &Launch,
    cancel: &watch::Receiver<bool>,
    account: Option<&super::account::Account>,
) -> Result<Vec<Mounted>, End> {
    let mut volumes = Vec::new();
    for brick in &launch.bricks {
        let source = mount(context, &launch.task, cancel, brick).await?;
        if let Some((uid, gid)) = account.filter(|_| !brick.read_only).map(|account| (account.uid, account.gid)) {
            let top = source.clone();
            let given = blocking(move || std::os::unix::fs::chown(&top, Some(uid), Some(gid))).await?;
            given.map_err(|error| End::failed(format!("brick '{}' cannot be given to the task's user: {error}", brick.name)))?;
        }
        volumes.push(Mounted { source, target: volumes::target(&brick.container_path), read_only: brick.read_only, host: None });
    }
    if !volumes.is_empty() {
        tokio::spawn(jobs::brick_usage(context.clone()));
    }
    Ok(volumes)
}

/// What Marathon gives, and what Mesos' command executor adds. Nothing of the server's own. The launch's variables win.
fn environment(launch: &Launch, directory: &Path) -> Vec<(String, String)> {
    let sandbox = directory.to_string_lossy().into_owned();
    let own = [("PATH", shim::DEFAULT_PATH.to_owned()), ("MESOS_SANDBOX", sandbox.clone()), ("MESOS_DIRECTORY", sandbox)];
    // What Docker says to containers that have a terminal.
    let terminal = (launch.app.tty == Some(true)).then(|| ("TERM", "xterm".to_owned()));
    let mut variables = launch.environment();
    let missing = own.into_iter().chain(terminal).filter(|(name, _)| !variables.iter().any(|(known, _)| known == name)).collect::<Vec<_>>();
    variables.extend(missing.into_iter().map(|(name, value)| (name.to_owned(), value)));
    variables
}

async fn start(context: &Arc<Context>, task: &TaskId, records: &Records) -> Result<Seen, End> {
    let mut child = shim::command(&context.settings.shim, records.directory())
        .spawn()
        .map_err(|error| End::failed(format!("its supervisor cannot be started: {error}")))?;
    if let Some(mut said) = child.stdout.take() {
        // It says nothing: it closes this when the task runs, or when it never will.
        let mut nothing = Vec::new();
        if tokio::time::timeout(START_LIMIT, said.read_to_end(&mut nothing)).await.is_err() {
            tracing::warn!(%task, "The supervisor of a task takes long to start it.");
        }
    }
    // Reaped whenever it ends; its end is heard of by other means.
    tokio::spawn(async move { child.wait().await });
    let looked = records.clone();
    let seen = blocking(move || look(&looked).map(|seen| (seen, looked.started().ok().flatten(), looked.ended().ok().flatten()))).await?;
    let (seen, started, ended) = seen.map_err(|error| End::failed(format!("the task's records cannot be read: {error}")))?;
    if let Some(reason) = started.as_ref().and_then(|started| started.unlimited.as_ref()) {
        tracing::warn!(%task, %reason, "The task runs WITHOUT LIMITS of processor and memory: no control groups could be made for it.");
    }
    match (seen, started) {
        (Some(Seen::Running { .. }), _) => Ok(Seen::Running { addresses: Vec::new() }),
        (Some(seen @ Seen::Ended(_)), Some(_)) => Ok(seen),
        (Some(Seen::Ended(exit)), None) => Err(End::failed(ended.and_then(|ended| ended.error).unwrap_or(exit.error))),
        (Some(Seen::Created) | None, _) => Err(End::failed("its supervisor ended before it had begun")),
    }
}

// === Looking ===

/// How far a task is; `None`: there is none. Blocks, for seconds where a supervisor is just beginning or was killed.
///
/// # Errors
/// A record cannot be read.
pub fn look(records: &Records) -> io::Result<Option<Seen>> {
    let began = std::time::Instant::now();
    loop {
        if !records.exist() {
            return Ok(None);
        }
        // The lock first: whoever lets go of it has written everything down before.
        let supervised = records.is_supervised()?;
        if let Some(ended) = records.ended()? {
            return Ok(Some(Seen::Ended(exit(&ended))));
        }
        match (records.started()?, supervised) {
            (Some(_), true) => return Ok(Some(Seen::Running { addresses: Vec::new() })),
            (Some(started), false) => {
                let ended = orphaned(&started);
                records.put_ended(&ended)?;
                return Ok(Some(Seen::Ended(exit(&ended))));
            }
            (None, true) if began.elapsed() > SETTLE => return Ok(Some(Seen::Running { addresses: Vec::new() })),
            (None, true) => std::thread::sleep(SETTLE_PAUSE),
            (None, false) => return Ok(Some(Seen::Created)),
        }
    }
}

/// The supervisor is gone and has written nothing: what is left of the task ends too, because nobody would see its end.
fn orphaned(started: &Started) -> Ended {
    if started.process.is_of_another_boot() {
        return Ended { error: Some("the node was restarted".to_owned()), ..Ended::default() };
    }
    let groups = Groups::known(started.groups.clone());
    groups.kill();
    let members = || {
        let mut found = groups.members();
        found.extend(tree::session(&started.process));
        found.retain(|pid| tree::is_alive(*pid));
        found.sort_unstable();
        found.dedup();
        found
    };
    let all = tree::kill_all(members, KILL_LIMIT, || {});
    let oom = groups.oom_kills() > 0;
    groups.remove();
    let error = if all { "its supervisor was killed" } else { "its supervisor was killed, and not all of its processes could be" };
    Ended { error: Some(error.to_owned()), oom, ..Ended::default() }
}

/// As a container's end is told.
fn exit(ended: &Ended) -> Exit {
    let code = match (ended.status, ended.signal) {
        (Some(status), _) => i64::from(status),
        (None, Some(signal)) => 128 + i64::from(signal),
        (None, None) => -1,
    };
    Exit {
        code,
        signal: ended.signal,
        oom: ended.oom,
        error: ended.error.clone().unwrap_or_default(),
        killed: false,
        runner: Runner::Process,
    }
}

/// As [`look`], with whether we had asked for the end.
pub fn look_at(work_dir: &Path, task: &TaskId) -> io::Result<Option<Seen>> {
    Ok(look(&Records::of(work_dir, task))?.map(|seen| match seen {
        Seen::Ended(exit) => Seen::Ended(Exit { killed: sandbox::is_marked_killed(work_dir, task), ..exit }),
        other => other,
    }))
}

/// Every task of ours that is a process. What makes no sense is left alone. Blocks.
///
/// # Errors
/// The directory cannot be read.
pub fn list(work_dir: &Path, cluster: &ClusterId) -> io::Result<Vec<Found>> {
    let entries = match std::fs::read_dir(record::root(work_dir)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let records = Records::at(entry?.path());
        let order = match records.order() {
            Ok(Some(order)) => order,
            Ok(None) => continue,
            Err(error) => {
                tracing::warn!(path = %records.directory().display(), %error, "The records of a task cannot be read; they are left alone.");
                continue;
            }
        };
        if order.cluster != *cluster {
            continue;
        }
        match look_at(work_dir, &order.task) {
            Ok(Some(state)) => {
                let asked = jobs::asked(work_dir, &order.task, &state);
                found.push(Found { holding: holding(&order), task: order.task, state, asked });
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(task = %order.task, %error, "A task cannot be looked at; it is left alone."),
        }
    }
    Ok(found)
}

fn holding(order: &Order) -> Holding {
    Holding {
        resources: order.resources.clone(),
        gpus: Vec::new(),
        ports: order.ports.clone(),
        host_network: true,
        bricks: order.volumes.iter().any(|volume| volume.host.is_none()),
        runner: Runner::Process,
        in_pod: false,
        overhead: order.overhead.clone(),
        mem_limit: order.mem_limit,
        kill_grace_ms: order.kill_grace_ms,
    }
}

/// True when a task is, or was not long ago, a process.
pub fn is_one(work_dir: &Path, task: &TaskId) -> bool {
    Records::of(work_dir, task).exist()
}

// === Acting ===

/// Waits for the end of a task, and tells of it. Ends early when it is told to.
pub(super) async fn watch(context: Arc<Context>, task: TaskId, mut stop: watch::Receiver<bool>) {
    let records = Records::of(&context.settings.work_dir, &task);
    let handle = tokio::task::spawn_blocking(move || records.started().ok().flatten()?.shim.open()).await.ok().flatten();
    // A handle is no pipe, but is waited for like one, and never read.
    if let Some(handle) = handle.and_then(|handle| Receiver::from_file_unchecked(handle.into()).ok()) {
        tokio::select! {
            // A handle can be read when its process has ended.
            _ = handle.readable() => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
    let (work_dir, ended) = (context.settings.work_dir.clone(), task.clone());
    let seen = tokio::task::spawn_blocking(move || look_at(&work_dir, &ended)).await.ok().and_then(Result::ok).flatten();
    if let Some(Seen::Ended(exit)) = seen {
        context.report(Report::Died { task, exit: Some(exit) }).await;
    }
}

/// Looks at a task, and tells what it is.
pub(super) async fn inspect(context: Arc<Context>, task: TaskId) {
    let (work_dir, wanted) = (context.settings.work_dir.clone(), task.clone());
    match tokio::task::spawn_blocking(move || look_at(&work_dir, &wanted)).await {
        Ok(Ok(seen)) => context.report(Report::Inspected { task, seen }).await,
        Ok(Err(error)) => tracing::warn!(%task, %error, "The task cannot be looked at."),
        Err(error) => tracing::warn!(%task, %error, "The task cannot be looked at."),
    }
}

/// Passes a signal on to the supervisor; one that has ended counts as reached.
pub(super) async fn signal(context: Arc<Context>, task: TaskId, signal: Signal) {
    let (work_dir, wanted) = (context.settings.work_dir.clone(), task.clone());
    let reached = tokio::task::spawn_blocking(move || {
        if let Err(error) = sandbox::mark_killed(&work_dir, &wanted) {
            tracing::warn!(task = %wanted, %error, "The kill could not be noted; after a restart the task may count as failed.");
        }
        let Some(started) = Records::of(&work_dir, &wanted).started().ok().flatten() else { return false };
        let sent = match signal {
            Signal::Stop { .. } => Sent::TERM,
            Signal::Kill => Sent::USR1,
        };
        let reached = started.shim.signal(sent);
        if signal == Signal::Kill {
            // One that was stopped could do nothing.
            started.shim.signal(Sent::CONT);
        }
        if reached {
            jobs::note_asked(&work_dir, &wanted, signal);
        }
        reached
    });
    if !reached.await.unwrap_or(false) {
        context.report(Report::Died { task: task.clone(), exit: None }).await;
    }
    context.report(Report::Signalled { task, signal, delivered: true }).await;
}

/// Forgets a task, and ends it first if it runs.
pub(super) async fn remove(context: Arc<Context>, task: TaskId) {
    let records = Records::of(&context.settings.work_dir, &task);
    let (work_dir, removed) = (context.settings.work_dir.clone(), task.clone());
    let remove = move || remove_now(&records).then(|| secrets::forget(&work_dir, &removed)).is_some();
    let gone = tokio::task::spawn_blocking(remove).await.unwrap_or(false);
    if !gone {
        tracing::warn!(%task, "The task could not be removed; it is tried again later.");
    }
    context.report(Report::Removed { task, gone }).await;
}

/// True when nothing is left of it. Blocks until its supervisor has ended, but not for ever.
fn remove_now(records: &Records) -> bool {
    let began = std::time::Instant::now();
    // What a dead supervisor has left is killed by looking.
    _ = look(records);
    loop {
        match records.remove() {
            Ok(true) => return true,
            Ok(false) if began.elapsed() < KILL_LIMIT + SETTLE => {
                if let Ok(Some(started)) = records.started() {
                    started.shim.signal(Sent::USR1);
                }
                std::thread::sleep(SETTLE_PAUSE);
            }
            Ok(false) => return false,
            Err(error) => {
                tracing::warn!(path = %records.directory().display(), %error, "The records of a task could not be removed.");
                return false;
            }
        }
    }
}
