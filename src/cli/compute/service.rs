//! `mgmt service`: start a service; list, show, change, watch and end those that are there.

use std::{
    collections::BTreeMap,
    io::{self, Write},
};

use clap::{Args, Subcommand};
use futures_util::{StreamExt, stream::SelectAll};
use reqwest::Method;
use serde_json::{Value, json};

use super::{Context, Error, exec, json as pretty, sse::Sse};
use crate::{
    cli::{
        client::{Bytestream, Client, ClientError, encode},
        table::printable,
        terminal::{self, say},
    },
    model::id::PathId,
};

mod show;
mod spec;
mod watch;

pub use spec::SpecError;
use spec::{Spec, service_id};
use watch::{Deployment, Events, Waiting};

/// What the server says of an app with a deployment that is not over.
const LOCKED: &str = "App is locked by one or more deployments.";

/// Tasks whose output is followed at once.
const MAX_FOLLOWED: usize = 64;

const EXAMPLES: &str = "\
Without another command it starts a service, and prints where it is reached. The name, the port and the bricks of an id stay the same, also after the
service was destroyed and started again.

Examples:
  mgmt service --id testdb --image zmfsea/cmp-postgresql --cpu 0.5 --mem 512 --env \"DBUSER=zmfsea, DBPORT=@PORT\" --brick 131072:/var/lib/pgsql/9.6/data/
  mgmt service --id web --image zmfsea/web --cpu 0.5 --mem 256 --port @PORT:80
  mgmt service --id web --image zmfsea/web --port 0:80 --instances 3
  mgmt service list
  mgmt service logs web -f";

/// `mgmt service`
#[derive(Clone, Debug, Args)]
#[command(
    after_help = EXAMPLES,
    override_usage = "mgmt service --id ID --image IMAGE [OPTIONS]\n       mgmt service [OPTIONS] <COMMAND>"
)]
pub struct Arguments {
    #[command(flatten)]
    spec: Spec,
    #[command(flatten)]
    change: Change,
    #[command(subcommand)]
    command: Option<Command>,
}

/// How a change is made.
#[derive(Clone, Debug, Default, PartialEq, Args)]
struct Change {
    /// print the JSON that would be sent, and send nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    waiting: Waiting,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// all services
    List,
    /// everything about a service: instances, endpoints, what it waits for, why it failed
    Show {
        /// the service's id
        #[arg(value_name = "SERVICE")]
        id: String,
    },
    /// change a service: what is given replaces what was, the rest stays
    #[command(after_help = "Example:\n  mgmt service update --id testdb --mem 1024")]
    Update(Update),
    /// change the number of instances
    #[command(next_display_order = 10)]
    Scale {
        /// the service's id
        #[arg(value_name = "SERVICE")]
        id: String,
        /// how many; 0 stops it and keeps its name, ports and bricks
        #[arg(value_name = "N", allow_negative_numbers = true)]
        instances: String,
        #[command(flatten)]
        insist: Insist,
        #[command(flatten)]
        waiting: Waiting,
    },
    /// replace all instances by new ones
    #[command(next_display_order = 10)]
    Restart {
        /// the service's id
        #[arg(value_name = "SERVICE")]
        id: String,
        #[command(flatten)]
        insist: Insist,
        #[command(flatten)]
        waiting: Waiting,
    },
    /// end a service; its name, ports and bricks are kept for its id
    #[command(next_display_order = 10)]
    Destroy {
        /// the service's id
        #[arg(value_name = "SERVICE")]
        id: String,
        #[command(flatten)]
        waiting: Waiting,
    },
    /// what the service prints; of the last task that ended, if none runs
    Logs(Logs),
    /// run a command in the service, as and where that runs
    #[command(after_help = "Examples:\n  mgmt service exec testdb -- psql -U zmfsea MYDB\n  mgmt service exec testdb -- cat /etc/hostname")]
    Exec(Exec),
    /// what happens to a service, or to all, as it happens
    Events {
        /// the service's id
        #[arg(value_name = "SERVICE")]
        id: Option<String>,
    },
}

/// What becomes of an earlier change that is not done.
#[derive(Clone, Copy, Debug, Args)]
struct Insist {
    /// give up an earlier change of the service that is still under way, such as one that waits for resources it will never get
    #[arg(long)]
    force: bool,
}

impl Insist {
    fn path(self, path: String) -> String {
        if self.force { path + "?force=true" } else { path }
    }
}

#[derive(Clone, Debug, Args)]
struct Update {
    #[command(flatten)]
    spec: Spec,
    #[command(flatten)]
    insist: Insist,
    #[command(flatten)]
    change: Change,
}

#[derive(Clone, Debug, Args)]
#[command(next_display_order = 10)]
struct Logs {
    /// the service's id
    #[arg(value_name = "SERVICE")]
    id: String,
    /// go on with what comes
    #[arg(short, long)]
    follow: bool,
    /// standard error instead of standard output
    #[arg(long)]
    stderr: bool,
    /// only the last N lines
    #[arg(long, value_name = "N")]
    tail: Option<u32>,
    /// only this task
    #[arg(long, value_name = "TASK")]
    task: Option<String>,
}

#[derive(Clone, Debug, Args)]
#[command(next_display_order = 10)]
struct Exec {
    /// the service's id
    #[arg(value_name = "SERVICE")]
    id: String,
    /// in this task; needed when there are several
    #[arg(long, value_name = "TASK")]
    task: Option<String>,
    /// without a terminal, even if there is one
    #[arg(short = 'T', long)]
    no_tty: bool,
    /// the command and its arguments, after '--'
    #[arg(value_name = "COMMAND", required = true, last = true)]
    command: Vec<String>,
}

pub(super) async fn run(arguments: Arguments, context: &Context<'_>) -> Result<(), Error> {
    let Arguments { spec, change, command } = arguments;
    let Context { client, manner } = context;
    if command.is_some() && (spec != Spec::default() || change != Change::default()) {
        return Err(Error::Word(
            "what describes a service does not go before another command: give its options behind the command".to_owned(),
        ));
    }
    match command {
        None => create(&spec, &change, client).await,
        Some(Command::Update(Update { spec, insist, change })) => update(&spec, insist, &change, client).await,
        Some(Command::List) if manner.json => {
            let answer: Value = client.get("/v2/apps").await?;
            say(&pretty(&answer["apps"]));
            Ok(())
        }
        Some(Command::List) => {
            say(&show::list(&client.get::<show::Apps>("/v2/apps").await?));
            Ok(())
        }
        Some(Command::Show { id }) => show_one(&service_id("SERVICE", &id)?, context).await,
        Some(Command::Scale { id, instances, insist, waiting }) => {
            let (id, instances) = (service_id("SERVICE", &id)?, spec::count("N", &instances)?);
            let body = json!({ "instances": instances });
            let what = format!("service '{}' has {instances} instance{} now", name(&id), if instances == 1 { "" } else { "s" });
            deploy(client, &id, &waiting, Method::PATCH, &insist.path(app_path(&id)), Some(&body), &what).await
        }
        Some(Command::Restart { id, insist, waiting }) => {
            let id = service_id("SERVICE", &id)?;
            let path = insist.path(format!("{}/restart", app_path(&id)));
            deploy(client, &id, &waiting, Method::POST, &path, Some(&json!({})), &format!("service '{}' has been restarted", name(&id)))
                .await
        }
        Some(Command::Destroy { id, waiting }) => {
            let id = service_id("SERVICE", &id)?;
            terminal::confirm(manner.yes, &format!("Destroy service '{}'? Its name, ports and bricks are kept for this id.", name(&id)))?;
            deploy(client, &id, &waiting, Method::DELETE, &app_path(&id), None, &format!("service '{}' is gone", name(&id))).await
        }
        Some(Command::Logs(logs)) => follow_logs(&logs, client).await,
        Some(Command::Exec(arguments)) => {
            let id = service_id("SERVICE", &arguments.id)?;
            let task = match arguments.task {
                Some(task) => task,
                None => only_task(client, &id).await?,
            };
            exec::run(client, &task, arguments.command, !arguments.no_tty).await
        }
        Some(Command::Events { id }) => {
            let id = id.map(|id| service_id("SERVICE", &id)).transpose()?;
            follow_events(client, id.as_ref(), manner.json).await
        }
    }
}

/// The ids of all services, for completion.
pub(super) async fn ids(client: &Client) -> Result<Vec<String>, Error> {
    Ok(client.get::<show::Apps>("/v2/apps").await?.ids())
}

/// Does what needs no server: says what would be sent for a new service. False if that is not what is wanted.
pub(super) fn without_server(arguments: &Arguments) -> Result<bool, Error> {
    let wanted = arguments.command.is_none() && arguments.change.dry_run;
    if wanted {
        say(&pretty(&arguments.spec.app()?));
    }
    Ok(wanted)
}

async fn create(spec: &Spec, change: &Change, client: &Client) -> Result<(), Error> {
    let (id, app) = (spec.id()?, spec.app()?);
    // Before the request, so that nothing is missed.
    let events = Events::open(client, &change.waiting).await;
    let answer = match client.call(Method::POST, "/v2/apps", Some(&app)).await {
        Err(error) if error.status() == Some(409) && is_mine(client, &id).await => {
            let name = name(&id);
            return Err(Error::Failed(format!(
                "service '{name}' is there already: 'mgmt service update --id {name} ...' changes it, 'mgmt service destroy {name}' ends it"
            )));
        }
        answer => answer?,
    };
    let waited = match answer["deployments"][0]["id"].as_str() {
        Some(deployment) => {
            terminal::note(&format!("service '{}' is accepted", name(&id)));
            Deployment { client, app: &id, id: deployment }.watch(events, &change.waiting).await
        }
        None => Ok(()),
    };
    // Wherever the service is by now, this is where it will be reached.
    let place = match show::place(&answer) {
        Some(place) => Ok(place),
        // Whoever pressed Ctrl-C waits for nothing more.
        None if matches!(waited, Err(Error::Interrupted(_))) => return waited,
        None => client.get(&format!("{}?embed=endpoints", app_path(&id))).await.map(|answer: Value| {
            let app = &answer["app"];
            // A port that the node chooses is not known before the service runs there.
            show::place(app).unwrap_or_else(|| json!({ "host": app["endpoints"][0]["host"], "port": null }))
        }),
    };
    match place {
        Ok(place) => say(&pretty(&place)),
        // The service was taken back while it was waited for.
        Err(_) if waited.is_err() => {}
        Err(error) => return Err(error.into()),
    }
    waited
}

async fn is_mine(client: &Client, id: &PathId) -> bool {
    client.get::<Value>(&app_path(id)).await.is_ok()
}

async fn update(spec: &Spec, insist: Insist, change: &Change, client: &Client) -> Result<(), Error> {
    let id = spec.id()?;
    let present: Value = client.get(&app_path(&id)).await?;
    let body = spec.update(&present["app"])?;
    if change.dry_run {
        say(&pretty(&body));
        return Ok(());
    }
    let done = format!("service '{}' is updated", name(&id));
    deploy(client, &id, &change.waiting, Method::PATCH, &insist.path(app_path(&id)), Some(&body), &done).await
}

/// Sends a change and waits for its deployment. (A PATCH, unlike a PUT, never makes an app that is not there.)
async fn deploy(
    client: &Client,
    id: &PathId,
    waiting: &Waiting,
    method: Method,
    path: &str,
    body: Option<&Value>,
    done: &str,
) -> Result<(), Error> {
    let events = Events::open(client, waiting).await;
    let answer = client.call(method, path, body).await.map_err(|error| unless_locked(error, id))?;
    if let Some(deployment) = answer["deploymentId"].as_str() {
        Deployment { client, app: id, id: deployment }.watch(events, waiting).await?;
    }
    if waiting.detach {
        terminal::note(&format!("accepted; 'mgmt service show {}' tells how far it is", name(id)));
    } else {
        terminal::note(done);
    }
    Ok(())
}

/// The server speaks of its API to everybody; here there is an option.
fn unless_locked(error: ClientError, id: &PathId) -> Error {
    match &error {
        ClientError::Refused { status: 409, message } if message.starts_with(LOCKED) => {
            let name = name(id);
            Error::Failed(format!(
                "an earlier change to service '{name}' is still under way: 'mgmt service show {name}' tells how far it is, --force gives it up"
            ))
        }
        _ => error.into(),
    }
}

async fn show_one(id: &PathId, context: &Context<'_>) -> Result<(), Error> {
    let answer: Value = context.client.get(&format!("{}?embed=endpoints", app_path(id))).await?;
    let app = &answer["app"];
    if context.manner.json {
        say(&pretty(app));
        return Ok(());
    }
    // Only who waits has something in the queue.
    let queue = if show::is_complete(app) { Value::Null } else { context.client.get("/v2/queue").await? };
    say(&show::one(app, show::queue_entry(&queue, id)));
    Ok(())
}

async fn tasks(client: &Client, id: &PathId) -> Result<Vec<String>, Error> {
    let answer: Value = client.get(&format!("{}/tasks", app_path(id))).await?;
    Ok(answer["tasks"].as_array().into_iter().flatten().filter_map(|task| task["id"].as_str().map(str::to_owned)).collect())
}

async fn only_task(client: &Client, id: &PathId) -> Result<String, Error> {
    let mut tasks = tasks(client, id).await?;
    match tasks.len() {
        0 => Err(Error::Failed(format!("service '{0}' has no running task; 'mgmt service show {0}' says why", name(id)))),
        1 => Ok(tasks.remove(0)),
        count => Err(Error::Failed(format!(
            "service '{}' has {count} tasks: name one with --task\n{}",
            name(id),
            tasks.iter().map(|task| format!("  {}", printable(task))).collect::<Vec<_>>().join("\n")
        ))),
    }
}

async fn follow_logs(logs: &Logs, client: &Client) -> Result<(), Error> {
    let id = service_id("SERVICE", &logs.id)?;
    let mut tasks = match &logs.task {
        Some(task) => vec![task.clone()],
        None => tasks(client, &id).await?,
    };
    if tasks.is_empty() {
        let answer: Value = client.get(&app_path(&id)).await?;
        let failed = answer["app"]["lastTaskFailure"]["taskId"].as_str();
        let Some(task) = failed else { return Err(Error::Failed(format!("service '{}' has no task yet, and so no output", name(&id)))) };
        terminal::note(&format!("no task runs; this is what {} left", printable(task)));
        tasks.push(task.to_owned());
    }
    tasks.truncate(MAX_FOLLOWED);
    let mut streams: SelectAll<_> = SelectAll::new();
    let prefixed = tasks.len() > 1;
    for task in &tasks {
        let tail = logs.tail.map(|tail| format!("&tail={tail}")).unwrap_or_default();
        let stream = if logs.stderr { "stderr" } else { "stdout" };
        let path = format!("/v2/tasks/{}/logs?stream={stream}{tail}&follow={}", encode(task), logs.follow);
        let bytes = client.stream(&path, "text/plain, */*").await?;
        streams.push(tagged(if prefixed { short(task) } else { String::new() }, bytes));
    }
    let mut lines: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    while let Some((tag, part)) = streams.next().await {
        let part = part?;
        let written = if prefixed { write_lines(&tag, lines.entry(tag.clone()).or_default(), &part) } else { write(&part) };
        // A reader that has gone away wants no more.
        if written.is_err() {
            return Ok(());
        }
    }
    for (tag, rest) in lines.into_iter().filter(|(_, rest)| !rest.is_empty()) {
        _ = write(&[tag.as_bytes(), b" | ", &rest, b"\n"].concat());
    }
    Ok(())
}

fn tagged(tag: String, bytes: Bytestream) -> futures_util::stream::BoxStream<'static, (String, Result<bytes::Bytes, ClientError>)> {
    bytes.map(move |part| (tag.clone(), part)).boxed()
}

/// Longest line that is kept until its end comes, in bytes.
const MAX_LINE_BYTES: usize = 64 * 1024;

/// Writes whole lines with a tag in front; the rest waits in `line`.
fn write_lines(tag: &str, line: &mut Vec<u8>, part: &[u8]) -> io::Result<()> {
    for piece in part.split_inclusive(|byte| *byte == b'\n') {
        line.extend_from_slice(piece);
        if piece.ends_with(b"\n") || line.len() >= MAX_LINE_BYTES {
            let end: &[u8] = if piece.ends_with(b"\n") { b"" } else { b"\n" };
            write(&[tag.as_bytes(), b" | ", line, end].concat())?;
            line.clear();
        }
    }
    Ok(())
}

fn write(bytes: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes)?;
    stdout.flush()
}

/// What tells the tasks of a service apart: the end of the instance's id, and the attempt.
fn short(task: &str) -> String {
    let (_, rest) = task.split_once(".instance-").unwrap_or(("", task));
    let (instance, attempt) = rest.split_once("._app.").unwrap_or((rest, "1"));
    let end: String = instance.chars().rev().take(6).collect::<Vec<_>>().into_iter().rev().collect();
    printable(&format!("{end}.{attempt}"))
}

async fn follow_events(client: &Client, id: Option<&PathId>, json: bool) -> Result<(), Error> {
    if let Some(id) = id {
        // Says so at once when there is no such service.
        client.get::<Value>(&app_path(id)).await?;
    }
    let mut stream = client.stream("/v2/events", "text/event-stream").await?;
    let mut sse = Sse::default();
    while let Some(part) = stream.next().await {
        for event in sse.push(&part?) {
            let Ok(body) = serde_json::from_str::<Value>(&event.data) else { continue };
            let about = show::app_of(&body);
            if id.is_some_and(|id| about != Some(id.as_str())) {
                continue;
            }
            let line = if json { event.data.clone() } else { show::event(&event.kind, &body) };
            if write(format!("{line}\n").as_bytes()).is_err() {
                return Ok(());
            }
        }
    }
    Err(Error::Failed(format!("{} has ended the stream of events", client.server())))
}

fn app_path(id: &PathId) -> String {
    // Its letters mean nothing in a URL.
    format!("/v2/apps{}", id.as_str())
}

/// An id as people write it: without the slash in front, when there is no other.
fn name(id: &PathId) -> &str {
    id.as_str().trim_start_matches('/')
}

#[cfg(test)]
mod tests;
