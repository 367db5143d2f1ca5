//! Single acts on Docker and on bricks: look, signal, remove, release. Each tells its outcome in a report and decides nothing.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

use tokio::{
    sync::{Semaphore, mpsc, watch},
    task::JoinHandle,
};

use super::{
    Settings,
    agent::{Report, Seen, Signal},
    docker::{Client, DockerError},
    facts,
    images::Images,
    ports, process,
    sandbox::{self, Asked},
    secrets, spec,
};
use crate::{
    brick::Bricks,
    model::{
        cluster::BrickReport,
        host_volume::HostVolumeRule,
        id::{BrickName, PoolName, TaskId},
    },
};

/// A follower gets this long to keep the last of a container's output before the container is removed.
const LAST_WORDS: Duration = Duration::from_secs(10);
/// How often a removal is tried before it is left to the next listing.
const REMOVE_TRIES: u32 = 5;
const REMOVE_PAUSE: Duration = Duration::from_millis(500);
/// A removal that nothing waits for begins this much later: what replaces the task is under way by then.
const HEAD_START: Duration = Duration::from_millis(100);
/// And it waits at most this long for launches to be over.
const LEISURE: Duration = Duration::from_secs(2);

/// What jobs share.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) settings: Settings,
    pub(super) bricks: Arc<Bricks>,
    pub(super) images: Images,
    /// Docker, while it can be reached.
    pub(super) docker: watch::Receiver<Option<Client>>,
    /// Creations and starts at once.
    pub(super) launches: Semaphore,
    /// How many launches are under way.
    pub(super) launching: watch::Sender<usize>,
    /// Everything else at once.
    pub(super) small: Semaphore,
    pub(super) reports: mpsc::Sender<Report>,
    pub(super) rule: HostVolumeRule,
    /// Where control groups of processes can be made, or why they cannot.
    pub(super) groups: Result<PathBuf, String>,
    /// Why no container is started with this Docker.
    pub(super) refusal: Mutex<Option<String>>,
    /// Docker's data directory, as soon as it is known: closed to host volumes.
    pub(super) docker_root: OnceLock<String>,
}

impl Context {
    /// Docker, now; `None` while it is out of reach.
    pub(super) fn client(&self) -> Option<Client> {
        self.docker.borrow().clone()
    }

    /// Docker, as soon as it can be reached.
    pub(super) async fn await_client(&self) -> Client {
        let mut docker = self.docker.clone();
        loop {
            if let Ok(Some(client)) = docker.wait_for(Option::is_some).await.as_deref() {
                return client.clone();
            }
            // The session is over, and so is this job: it is aborted with the others.
            std::future::pending::<()>().await;
        }
    }

    /// For what is said again soon.
    pub(super) fn report_if_room(&self, report: Report) {
        _ = self.reports.try_send(report);
    }

    pub(super) async fn report(&self, report: Report) {
        _ = self.reports.send(report).await; // The other end is gone only when the engine ends.
    }
}

/// Looks at a task's container; says nothing when Docker does not answer.
pub(super) async fn inspect(context: Arc<Context>, task: TaskId) {
    let Some(client) = context.client() else { return };
    let _turn = context.small.acquire().await;
    if let Ok(seen) = look(&context, &client, &task).await {
        context.report(Report::Inspected { task, seen }).await;
    }
}

/// What Docker says of a task's container; `None`: there is none that is ours.
pub(super) async fn look(context: &Context, client: &Client, task: &TaskId) -> Result<Option<Seen>, DockerError> {
    match client.inspect(&spec::container_name(task)).await {
        Ok(container) if is_ours(context, &container) => {
            let killed = sandbox::is_marked_killed(&context.settings.work_dir, task);
            Ok(Some(spec::seen(&container, killed)))
        }
        Ok(_) | Err(DockerError::Missing(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// True when the container carries our cluster's label.
pub(super) fn is_ours(context: &Context, container: &bollard::models::ContainerInspectResponse) -> bool {
    let labels = container.config.as_ref().and_then(|config| config.labels.as_ref());
    labels.and_then(|labels| labels.get(spec::LABEL_CLUSTER)).is_some_and(|cluster| *cluster == context.settings.cluster_id.as_str())
}

/// Sends a signal; a container that is not running any more counts as reached.
pub(super) async fn signal(context: Arc<Context>, task: TaskId, signal: Signal) {
    let _turn = context.small.acquire().await;
    if let Err(error) = sandbox::mark_killed(&context.settings.work_dir, &task) {
        tracing::warn!(%task, %error, "The kill could not be noted; after a restart the task may count as failed.");
    }
    let outcome = match context.client() {
        Some(client) => send_signal(&client, &spec::container_name(&task), signal).await,
        None => Err(DockerError::Unreachable("it is out of reach".to_owned())),
    };
    let delivered = match &outcome {
        Ok(()) => {
            note_asked(&context.settings.work_dir, &task, signal);
            true
        }
        Err(DockerError::Missing(_) | DockerError::Conflict(_)) => {
            context.report(Report::Died { task: task.clone(), exit: None }).await;
            true
        }
        Err(error) => {
            tracing::warn!(%task, ?signal, %error, "The signal could not be sent; trying again.");
            false
        }
    };
    context.report(Report::Signalled { task, signal, delivered }).await;
}

/// Notes that a task has got a signal, so that a restart takes nothing from its time, and adds nothing to it.
pub(super) fn note_asked(work_dir: &Path, task: &TaskId, signal: Signal) {
    let grace_ms = match signal {
        Signal::Stop { grace_ms } => grace_ms,
        Signal::Kill => 0,
    };
    let Some(now_ms) = facts::uptime_ms() else { return };
    if let Err(error) = sandbox::note_asked(work_dir, task, grace_ms, now_ms) {
        tracing::warn!(%task, %error, "It could not be noted that the task was asked to end; after a restart it is asked again.");
    }
}

/// When a task that runs was asked to end.
pub(super) fn asked(work_dir: &Path, task: &TaskId, seen: &Seen) -> Option<Asked> {
    match seen {
        Seen::Running { .. } => sandbox::asked(work_dir, task, facts::uptime_ms()?),
        Seen::Created | Seen::Ended(_) => None,
    }
}

async fn send_signal(client: &Client, name: &str, signal: Signal) -> Result<(), DockerError> {
    let wanted = match signal {
        Signal::Kill => "SIGKILL".to_owned(),
        Signal::Stop { .. } => {
            let container = client.inspect(name).await?;
            container
                .config
                .and_then(|config| config.stop_signal)
                .filter(|signal| !signal.is_empty())
                .unwrap_or_else(|| "SIGTERM".to_owned())
        }
    };
    match client.kill(name, &wanted).await {
        Err(DockerError::Conflict(words)) if words.contains("paused") => {
            client.unpause(name).await?;
            client.kill(name, &wanted).await
        }
        other => other,
    }
}

/// Removes a container once its output is kept. Docker is bound by the processor, and a removal costs a third of a start: `at_leisure` one leaves
/// launches the precedence.
pub(super) async fn remove(context: Arc<Context>, task: TaskId, follower: Option<JoinHandle<()>>, at_leisure: bool) {
    if at_leisure {
        tokio::time::sleep(HEAD_START).await;
        let mut launching = context.launching.subscribe();
        // Whichever comes first: nothing is launched any more, or it has waited long enough.
        _ = tokio::time::timeout(LEISURE, launching.wait_for(|count| *count == 0)).await;
    }
    if let Some(mut follower) = follower
        && tokio::time::timeout(LAST_WORDS, &mut follower).await.is_err()
    {
        follower.abort();
    }
    let gone = remove_container(&context, &task).await;
    context.report(Report::Removed { task, gone }).await;
}

/// Removes a task's container, if it is ours, as soon as Docker can be reached; true when it is gone.
pub(super) async fn remove_container(context: &Context, task: &TaskId) -> bool {
    let name = spec::container_name(task);
    for _ in 0..REMOVE_TRIES {
        let client = context.await_client().await;
        let _turn = context.small.acquire().await;
        let outcome = match client.inspect(&name).await {
            Ok(container) if is_ours(context, &container) => client.remove(&name).await,
            Ok(_) | Err(DockerError::Missing(_)) => Ok(()),
            Err(error) => Err(error),
        };
        match outcome {
            Ok(()) => {
                let (work_dir, task) = (context.settings.work_dir.clone(), task.clone());
                _ = tokio::task::spawn_blocking(move || secrets::forget(&work_dir, &task)).await;
                return true;
            }
            Err(error) => tracing::debug!(%task, %error, "The container could not be removed yet."),
        }
        drop(_turn);
        tokio::time::sleep(REMOVE_PAUSE).await;
    }
    tracing::warn!(%task, "The container could not be removed; it is tried again later.");
    false
}

/// Releases a brick when its holder has no process any more.
pub(super) async fn release(context: Arc<Context>, brick: BrickName, epoch: u64, tasks: Vec<TaskId>) {
    let outcome = try_release(&context, &brick, epoch, &tasks).await;
    context.report(Report::Released { brick, epoch, outcome }).await;
}

async fn try_release(context: &Context, brick: &BrickName, epoch: u64, tasks: &[TaskId]) -> Result<(), String> {
    for task in tasks {
        check_ended(context, task).await?;
    }
    context.bricks.release(brick, epoch).await.map_err(|error| error.to_string())
}

/// That nothing of the task runs.
async fn check_ended(context: &Context, task: &TaskId) -> Result<(), String> {
    let (work_dir, wanted) = (context.settings.work_dir.clone(), task.clone());
    let looked = tokio::task::spawn_blocking(move || (process::look_at(&work_dir, &wanted), super::may_have_containers(&work_dir)));
    let (process, may_have_containers) = looked.await.map_err(|error| error.to_string())?;
    if matches!(process.map_err(|error| error.to_string())?, Some(Seen::Running { .. })) {
        return Err(format!("the process of task {task} still runs"));
    }
    match context.client() {
        Some(client) => match look(context, &client, task).await {
            Ok(Some(Seen::Running { .. })) => return Err(format!("the container of task {task} still runs")),
            Ok(_) => {}
            Err(error) => return Err(error.to_string()),
        },
        None if may_have_containers => return Err("Docker does not answer, so nobody knows whether its container still runs".to_owned()),
        None => {}
    }
    Ok(())
}

/// Deletes a brick's data.
pub(super) async fn destroy(context: Arc<Context>, brick: BrickName, epoch: u64, pool: PoolName) {
    let report = match context.bricks.destroy(&brick, &pool).await {
        Ok(()) => BrickReport::Destroyed { brick, epoch },
        Err(error) => BrickReport::Stuck { brick, reason: error.to_string() },
    };
    context.report(Report::Brick(report)).await;
}

/// Tells how full the mounted bricks are.
pub(super) async fn brick_usage(context: Arc<Context>) {
    for (brick, _, used, size) in context.bricks.mounted().await {
        context.report(Report::Brick(BrickReport::Usage { brick, used, size })).await;
    }
}

/// Finds out on which of the offered ports somebody listens.
pub(super) async fn look_at_ports(context: Arc<Context>) {
    let ranges = context.settings.resources.ports.clone();
    let found = tokio::task::spawn_blocking(move || ports::in_use(&ranges)).await.map_err(std::io::Error::other).flatten();
    let found = found.inspect_err(|error| tracing::warn!(%error, "It cannot be seen which ports of this node are in use.")).ok();
    context.report(Report::PortsInUse(found)).await;
}
