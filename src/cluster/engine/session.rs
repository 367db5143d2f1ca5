//! Watches Docker: connects, lists, follows events, and notices when it is gone or hangs. Each connection begins with a listing.

use std::{
    path::Path,
    sync::{Arc, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bollard::models::{ContainerSummary, ContainerSummaryStateEnum as State, EventMessage};
use futures_util::StreamExt;
use tokio::{sync::watch, time::Instant};

use super::{
    agent::{Exit, Found, Report, Seen},
    docker::{Client, DockerError},
    jobs::{self, Context},
    process, sandbox, spec,
    vetting::{self, Part},
};
use crate::model::id::TaskId;

/// Docker is asked whether it is there this often.
const PING_EVERY: Duration = Duration::from_secs(5);
/// Everything is listed again this often.
const LIST_EVERY: Duration = Duration::from_secs(30);
/// The pause between tries to connect grows from the first to the second.
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(2);
/// While Docker stays away the log says so this often.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);
/// So long Docker is waited for before there is a session without it: at the beginning, and when it has gone.
const FIRST_PATIENCE: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(30);
/// Events are asked for from this many seconds before the listing.
const OVERLAP_SECONDS: i64 = 2;
/// Ended containers that are looked at at once.
const MAX_LOOKS: usize = 8;

/// Keeps a session with Docker for ever. `client` holds the client while the session stands.
pub(super) async fn run(context: Arc<Context>, client: watch::Sender<Option<Client>>) {
    let mut pause = RETRY_MIN;
    let mut complained: Option<Instant> = None;
    let mut away = Away::new(FIRST_PATIENCE);
    loop {
        match open(&context).await {
            Ok((docker, found)) => {
                pause = RETRY_MIN;
                complained = None;
                note_docker(&context).await;
                client.send_replace(Some(docker.clone()));
                context.report(Report::Listed(found)).await;
                let reason = follow(&context, &docker).await;
                client.send_replace(None);
                tracing::warn!(%reason, "The session with Docker is over; trying to open a new one.");
                context.report(Report::Lost { reason }).await;
                away = Away::new(PATIENCE);
            }
            Err(error) => {
                if complained.is_none_or(|at| at.elapsed() >= COMPLAIN_EVERY) {
                    complained = Some(Instant::now());
                    let docker_host = &context.settings.docker_host;
                    tracing::warn!(%docker_host, %error, "Docker cannot be reached; still trying. Is the daemon running, and may this server use it?");
                }
                if away.is_due() {
                    list_without(&context, error.to_string()).await;
                }
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(RETRY_MAX);
    }
}

/// How long Docker has been away, and when to list without it.
struct Away {
    due: Instant,
}

impl Away {
    fn new(patience: Duration) -> Self {
        Self { due: Instant::now() + patience }
    }

    fn is_due(&mut self) -> bool {
        let is_due = self.due <= Instant::now();
        if is_due {
            self.due = Instant::now() + LIST_EVERY;
        }
        is_due
    }
}

/// Processes need no Docker: what there is of them, when it stays away.
async fn list_without(context: &Context, reason: String) {
    match processes(context).await {
        Ok(found) => context.report(Report::ListedWithoutDocker { found, reason }).await,
        Err(error) => tracing::warn!(%error, "The tasks without an image could not be listed; trying again later."),
    }
}

async fn processes(context: &Context) -> std::io::Result<Vec<Found>> {
    let (work_dir, cluster) = (context.settings.work_dir.clone(), context.settings.cluster_id.clone());
    tokio::task::spawn_blocking(move || process::list(&work_dir, &cluster)).await.map_err(std::io::Error::other)?
}

/// From now on there may be containers.
async fn note_docker(context: &Context) {
    let work_dir = context.settings.work_dir.clone();
    if let Ok(Err(error)) = tokio::task::spawn_blocking(move || super::note_docker(&work_dir)).await {
        tracing::warn!(%error, "It could not be noted that Docker was used here.");
    }
}

async fn open(context: &Context) -> Result<(Client, Vec<Found>), DockerError> {
    let client = Client::new(&context.settings.docker_host)?;
    client.ping().await?;
    let info = client.info().await?;
    if let Some(root) = info.docker_root_dir.filter(|root| root.starts_with('/')) {
        _ = context.docker_root.set(root);
    }
    vet(context, client.parts().await?);
    let found = list(context, &client).await?;
    tracing::info!(
        version = info.server_version.as_deref().unwrap_or("?"),
        cgroup = %info.cgroup_version.map_or_else(|| "1".to_owned(), |version| version.to_string()),
        live_restore = info.live_restore_enabled.unwrap_or(false),
        containers = found.len(),
        "Connected to Docker."
    );
    Ok((client, found))
}

/// What is known against the parts of this Docker is said, and kept for launches.
fn vet(context: &Context, parts: Vec<Part>) {
    for finding in vetting::findings(&parts) {
        if finding.may_be_mended {
            tracing::warn!(%finding, "Docker has a part that is safe only if its distributor mended it; install what security updates there are.");
        } else if context.settings.allow_vulnerable_runtime {
            tracing::warn!(%finding, "Docker has a part that is not safe; it is used because of --allow_vulnerable_runtime.");
        } else {
            tracing::error!(%finding, "Docker has a part that is not safe: NO CONTAINERS ARE STARTED, those that run go on. Upgrade it, or start the server with --allow_vulnerable_runtime on.");
        }
    }
    let refusal = vetting::refusal(&parts).filter(|_| !context.settings.allow_vulnerable_runtime);
    *context.refusal.lock().unwrap_or_else(PoisonError::into_inner) = refusal;
}

/// Every container of ours, the ended ones with their exit status.
async fn list(context: &Context, client: &Client) -> Result<Vec<Found>, DockerError> {
    let summaries = client.list(&spec::cluster_label(&context.settings.cluster_id)).await?;
    let looks = futures_util::stream::iter(summaries).map(|summary| complete(context, client, summary)).buffer_unordered(MAX_LOOKS);
    let found: Vec<Result<Option<Found>, DockerError>> = looks.collect().await;
    let mut found = found.into_iter().filter_map(Result::transpose).collect::<Result<Vec<_>, _>>()?;
    match processes(context).await {
        Ok(processes) => found.extend(processes),
        // Without them the list would say that they are gone.
        Err(error) => return Err(DockerError::Unreachable(format!("the tasks without an image cannot be listed: {error}"))),
    }
    Ok(found)
}

async fn complete(context: &Context, client: &Client, summary: ContainerSummary) -> Result<Option<Found>, DockerError> {
    let labels = summary.labels.unwrap_or_default();
    let Some(mut found) = spec::found(&labels, Seen::Created) else {
        tracing::warn!(container = ?summary.id, "A container has our label, but not what we write there; it is left alone.");
        return Ok(None);
    };
    found.state = match summary.state {
        Some(State::CREATED) => Seen::Created,
        Some(State::REMOVING) => return Ok(None),
        Some(State::RUNNING | State::PAUSED | State::RESTARTING) => {
            let networks = summary.network_settings.and_then(|settings| settings.networks).unwrap_or_default();
            let own = networks.values().filter_map(|network| network.ip_address.as_ref()?.parse().ok());
            Seen::Running { addresses: spec::pod_addresses(&labels).unwrap_or_else(|| own.collect()) }
        }
        _ => match jobs::look(context, client, &found.task).await {
            Ok(Some(seen)) => seen,
            Ok(None) => return Ok(None),
            Err(error @ DockerError::Unreachable(_)) => return Err(error),
            // A container that Docker itself cannot read must not keep the others from us.
            Err(error) => Seen::Ended(Exit { code: -1, error: error.to_string(), ..Exit::default() }),
        },
    };
    found.asked = jobs::asked(&context.settings.work_dir, &found.task, &found.state);
    Ok(Some(found))
}

/// Follows what happens until Docker is gone; returns why.
async fn follow(context: &Context, client: &Client) -> String {
    let label = spec::cluster_label(&context.settings.cluster_id);
    let began = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let since = i64::try_from(began.as_secs()).unwrap_or(i64::MAX) - OVERLAP_SECONDS;
    let began_ns = i64::try_from(began.as_nanos()).unwrap_or(i64::MAX);
    let mut events = std::pin::pin!(client.events(&label, since));
    let mut pinged = std::pin::pin!(ping(client));
    let mut next_list = Instant::now() + LIST_EVERY;
    // What happened between the first listing and the first event is in the overlap, or in a second listing.
    let mut listing = std::pin::pin!(futures_util::future::Either::Left(std::future::pending()));
    loop {
        tokio::select! {
            event = events.next() => match event {
                Some(Ok(event)) => if let Some(report) = interpret(event, began_ns, &context.settings.work_dir) { context.report(report).await },
                Some(Err(error)) => return DockerError::sort(error).to_string(),
                None => return "it closed the connection".to_owned(),
            },
            outcome = &mut pinged => match outcome {
                Ok(()) => pinged.set(ping(client)),
                Err(error) => return error.to_string(),
            },
            () = tokio::time::sleep_until(next_list) => {
                next_list = Instant::now() + LIST_EVERY;
                listing.set(futures_util::future::Either::Right(list(context, client)));
            }
            found = &mut listing => {
                listing.set(futures_util::future::Either::Left(std::future::pending()));
                match found {
                    Ok(found) => context.report(Report::Listed(found)).await,
                    Err(error) => tracing::warn!(%error, "Docker's containers could not be listed; trying again later."),
                }
            }
        }
    }
}

async fn ping(client: &Client) -> Result<(), DockerError> {
    tokio::time::sleep(PING_EVERY).await;
    client.ping().await
}

/// An end of before `began_ns` (Unix) may be told to someone who has seen more since: it is only a reason to look.
fn interpret(event: EventMessage, began_ns: i64, work_dir: &Path) -> Option<Report> {
    let is_fresh = event.time_nano.is_some_and(|at| at >= began_ns);
    let attributes = event.actor.and_then(|actor| actor.attributes)?;
    let task: TaskId = attributes.get(spec::LABEL_TASK)?.parse().ok()?;
    match event.action.as_deref() {
        Some("die") => {
            let code = attributes.get("exitCode").filter(|_| is_fresh).and_then(|code| code.parse().ok());
            let exit = code.map(|code| Exit { code, killed: sandbox::is_marked_killed(work_dir, &task), ..Exit::default() });
            Some(Report::Died { task, exit })
        }
        Some("oom") => Some(Report::OutOfMemory { task }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use bollard::models::EventActor;

    use super::*;
    use crate::cluster::engine::samples;

    #[test]
    fn only_ends_of_our_tasks_are_heard() {
        let task = samples::task("/web", 1);
        let work_dir = tempfile::tempdir().unwrap();
        let event = |action: &str, task: &str, at: i64, code: &str| {
            let attributes = [(spec::LABEL_TASK, task), ("exitCode", code)].map(|(name, value)| (name.to_owned(), value.to_owned()));
            let actor = Some(EventActor { id: None, attributes: Some(HashMap::from(attributes)) });
            interpret(
                EventMessage { action: Some(action.to_owned()), actor, time_nano: Some(at), ..EventMessage::default() },
                10,
                work_dir.path(),
            )
        };
        let name = task.to_string();
        let died = |exit: Option<Exit>| Some(Report::Died { task: task.clone(), exit });
        let exit = Exit { code: 137, ..Exit::default() };
        assert_eq!(event("die", &name, 10, "137"), died(Some(exit.clone())));
        assert_eq!(event("die", &name, 9, "137"), died(None));
        assert_eq!(event("die", &name, 10, "?"), died(None));
        sandbox::mark_killed(work_dir.path(), &task).unwrap();
        assert_eq!(event("die", &name, 10, "137"), died(Some(Exit { killed: true, ..exit })));
        assert_eq!(event("oom", &name, 10, ""), Some(Report::OutOfMemory { task: task.clone() }));
        assert_eq!(event("start", &name, 10, ""), None);
        assert_eq!(event("die", "no task id", 10, "1"), None);
        assert_eq!(interpret(EventMessage::default(), 10, work_dir.path()), None);
    }
}
