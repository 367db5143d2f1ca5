//! Waiting for a deployment, with its progress: what the event stream tells, and what the queue says of what is not placed.
//!
//! The stream makes it quick; a look at the app every few seconds makes it sure, because a stream may break off or be refused.

use std::{
    collections::BTreeSet,
    io::{self, IsTerminal, Write},
    time::Duration,
};

use clap::Args;
use futures_util::StreamExt;
use serde_json::Value;
use tokio::time::Instant;

use super::{
    super::{Error, sse::Sse},
    app_path, name, show,
};
use crate::{
    cli::{
        client::{Bytestream, Client},
        table::printable,
    },
    model::id::PathId,
};

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Kinds of passing lines that are remembered where each is printed once.
const MAX_KINDS: usize = 64;

const PLACED: &str = "placed";
const FAILED: &str = "failed";
const TRIED_AGAIN: &str = "; it is tried again";

/// The events that tell of progress.
const EVENTS: &str = "/v2/events?event_type=status_update_event&event_type=instance_changed_event&event_type=instance_health_changed_event\
                      &event_type=deployment_success&event_type=deployment_failed";

/// Whether and how long to wait for a change to be done.
#[derive(Clone, Debug, Default, PartialEq, Args)]
pub(super) struct Waiting {
    /// how long to wait until it is done [default: 300]
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,
    /// do not wait
    #[arg(long)]
    pub(super) detach: bool,
}

/// The stream of events, if there is one.
pub(super) struct Events(Option<(Bytestream, Sse)>);

impl Events {
    /// Opens the stream, if it is wanted. Without one the looks must do.
    pub(super) async fn open(client: &Client, waiting: &Waiting) -> Self {
        if waiting.detach {
            return Self(None);
        }
        Self(client.stream(EVENTS, "text/event-stream").await.ok().map(|stream| (stream, Sse::default())))
    }

    /// The next events; waits for ever once the stream has ended.
    async fn next(&mut self) -> Vec<(String, Value)> {
        let Some((stream, sse)) = &mut self.0 else { return std::future::pending().await };
        match stream.next().await {
            Some(Ok(part)) => {
                let events = sse.push(&part).into_iter();
                events.filter_map(|event| Some((event.kind, serde_json::from_str(&event.data).ok()?))).collect()
            }
            _ => {
                self.0 = None;
                Vec::new()
            }
        }
    }
}

/// A deployment that is under way.
pub(super) struct Deployment<'a> {
    pub(super) client: &'a Client,
    pub(super) app: &'a PathId,
    pub(super) id: &'a str,
}

impl Deployment<'_> {
    /// Until it is done, has failed, or the time is over.
    ///
    /// # Errors
    /// It failed; it is late; Ctrl-C.
    pub(super) async fn watch(&self, mut events: Events, waiting: &Waiting) -> Result<(), Error> {
        if waiting.detach {
            return Ok(());
        }
        let limit = Duration::from_secs(waiting.timeout.unwrap_or(300));
        let late = tokio::time::sleep(limit);
        let mut late = std::pin::pin!(late);
        let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
        // The first look is not at once: most is done before.
        let mut looks = tokio::time::interval_at(Instant::now() + LOOK_EVERY, LOOK_EVERY);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut screen = Screen::default();
        let mut progress = Progress::new(self.app, self.id);
        let name = name(self.app);
        let outcome = loop {
            tokio::select! {
                biased;
                _ = &mut interrupted => break Err(Error::Interrupted(format!(
                    "not waited for any longer; the change to service '{name}' goes on ('mgmt service show {name}' tells how far it is)"
                ))),
                () = &mut late => {
                    // It may be done by now; and whoever waits for less than a look should learn the reason, too.
                    if let Ok(Ok(Some(Step::Done))) = tokio::time::timeout(LOOK_EVERY, self.look(&mut progress)).await {
                        break Ok(());
                    }
                    break Err(Error::Late(format!(
                        "service '{name}' is not done within {} s{}; it goes on, and 'mgmt service show {name}' tells how far it is",
                        limit.as_secs(),
                        progress.last_reason()
                    )));
                }
                told = events.next() => {
                    let mut done = None;
                    for (kind, body) in told {
                        if let Some(step) = progress.event(&kind, &body) {
                            done = screen.show(step).or(done);
                        }
                    }
                    if let Some(done) = done {
                        break done;
                    }
                }
                _ = looks.tick() => match self.look(&mut progress).await {
                    Ok(Some(step)) => if let Some(done) = screen.show(step) {
                        break done;
                    },
                    Ok(None) => {}
                    // A server that is being replaced comes back.
                    Err(error) if error.is_silence() => _ = screen.show(Step::Passing(format!("{error}"))),
                    Err(error) => break Err(error.into()),
                },
            }
        };
        screen.close();
        outcome
    }

    async fn look(&self, progress: &mut Progress<'_>) -> Result<Option<Step>, crate::cli::client::ClientError> {
        let answer: Value = match self.client.get(&app_path(self.app)).await {
            // Its destruction is done, or somebody else's.
            Err(error) if error.status() == Some(404) => return Ok(Some(Step::Done)),
            answer => answer?,
        };
        let mut deployments = answer["app"]["deployments"].as_array().into_iter().flatten();
        if !deployments.any(|deployment| deployment["id"] == self.id) {
            return Ok(Some(Step::Done));
        }
        let queue: Value = self.client.get("/v2/queue").await?;
        Ok(progress.queue(show::queue_entry(&queue, self.app)))
    }
}

/// One thing to show, or the end.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    /// It stays on the screen.
    Lasting(String),
    /// The next one takes its place.
    Passing(String),
    Done,
    Failed(String),
}

/// What is known of a deployment's progress. Pure: events and queue in, steps out.
struct Progress<'a> {
    app: &'a PathId,
    deployment: &'a str,
    reason: String,
    shown: String,
    failure: String,
    failures: u32,
}

impl<'a> Progress<'a> {
    fn new(app: &'a PathId, deployment: &'a str) -> Self {
        Self { app, deployment, reason: String::new(), shown: String::new(), failure: String::new(), failures: 0 }
    }

    /// What an event means, if anything new.
    fn event(&mut self, kind: &str, body: &Value) -> Option<Step> {
        match kind {
            "deployment_success" if body["id"] == self.deployment => return Some(Step::Done),
            "deployment_failed" if body["id"] == self.deployment => {
                let reason = body["reason"].as_str().unwrap_or("the server does not say why");
                return Some(Step::Failed(format!("the change was taken back: {}", printable(reason))));
            }
            _ => {}
        }
        if show::app_of(body) != Some(self.app.as_str()) {
            return None;
        }
        let host = body["host"].as_str().map(printable).unwrap_or_default();
        let step = match kind {
            "instance_changed_event" if body["condition"] == "Provisioned" => Step::Lasting(format!("{PLACED} on {host}")),
            "instance_changed_event" if body["condition"] == "Unreachable" => Step::Lasting(format!("{host} does not answer")),
            "instance_health_changed_event" if body["healthy"] == true => Step::Lasting("healthy".to_owned()),
            "instance_health_changed_event" if body["healthy"] == false => Step::Lasting("not healthy".to_owned()),
            "status_update_event" => status(body, &host)?,
            _ => return None,
        };
        let step = self.without_repetition(step, &host);
        self.news(step)
    }

    /// After a failure the way to the next one is no news, nor is the next one if it is the same.
    fn without_repetition(&mut self, step: Step, host: &str) -> Step {
        match step {
            Step::Lasting(text) if text.starts_with(FAILED) => {
                self.failures += 1;
                if text == self.failure {
                    return Step::Passing(format!("{FAILED} again on {host}, {} times so far", self.failures));
                }
                self.failure.clone_from(&text);
                Step::Lasting(text)
            }
            Step::Lasting(text) if self.failures > 0 && text.starts_with(PLACED) => Step::Passing(text),
            step => step,
        }
    }

    /// What the queue means: why something is not placed.
    fn queue(&mut self, entry: Option<&Value>) -> Option<Step> {
        let reasons = entry.map(show::reasons).unwrap_or_default();
        if reasons == self.reason {
            return None;
        }
        self.reason = reasons;
        if self.reason.is_empty() { None } else { self.news(Step::Passing(format!("waits: {}", self.reason))) }
    }

    /// Why it is late, as far as that is known: what failed last, and what it waits for now.
    fn last_reason(&self) -> String {
        let known = [self.failure.trim_end_matches(TRIED_AGAIN), &self.reason];
        let known: Vec<&str> = known.into_iter().filter(|text| !text.is_empty()).collect();
        if known.is_empty() { String::new() } else { format!(" ({})", known.join("; ")) }
    }

    /// The step, unless it says what was said last.
    fn news(&mut self, step: Step) -> Option<Step> {
        let (Step::Lasting(text) | Step::Passing(text)) = &step else { return Some(step) };
        if *text == self.shown {
            return None;
        }
        self.shown.clone_from(text);
        Some(step)
    }
}

fn status(body: &Value, host: &str) -> Option<Step> {
    let message = body["message"].as_str().unwrap_or_default();
    let because = if message.is_empty() { String::new() } else { format!(": {}", printable(message)) };
    Some(match body["taskStatus"].as_str().unwrap_or_default() {
        "TASK_STAGING" if !message.is_empty() => Step::Passing(pulling(message)),
        "TASK_STARTING" => Step::Passing("starting".to_owned()),
        "TASK_RUNNING" => Step::Lasting(format!("started on {host}")),
        "TASK_KILLING" => Step::Passing(format!("stopping on {host}")),
        "TASK_KILLED" => Step::Lasting(format!("stopped on {host}")),
        "TASK_FAILED" | "TASK_ERROR" | "TASK_DROPPED" | "TASK_GONE" => Step::Lasting(format!("{FAILED} on {host}{because}{TRIED_AGAIN}")),
        "TASK_FINISHED" => Step::Lasting(format!("ended on {host}{because}; it is started again")),
        _ => return None,
    })
}

/// `pulling image x: 12 of 48 MiB, 3 layers` with its percentage.
fn pulling(message: &str) -> String {
    let message = printable(message);
    let parts = || {
        let (before, rest) = message.split_once(" of ")?;
        let total: u64 = rest.split_once(' ')?.0.parse().ok().filter(|total| *total > 0)?;
        let (head, done) = before.rsplit_once(' ')?;
        let done: u64 = done.parse().ok()?;
        let percent = (done.min(total) * 100) / total;
        Some(format!("{head} {percent} % ({done} of {rest})"))
    };
    parts().unwrap_or(message)
}

/// Standard error: passing lines replace one another on a terminal. Elsewhere each is printed once, whatever its numbers.
#[derive(Default)]
struct Screen {
    is_open: bool,
    seen: BTreeSet<String>,
}

impl Screen {
    /// Shows a step; says how it ended, if it did.
    fn show(&mut self, step: Step) -> Option<Result<(), Error>> {
        let mut stderr = io::stderr();
        let is_terminal = stderr.is_terminal();
        match step {
            Step::Done => return Some(Ok(())),
            Step::Failed(why) => return Some(Err(Error::Failed(why))),
            Step::Passing(text) if is_terminal => {
                // One line, so that the next one can take its place.
                let width = crate::cli::terminal::size().map_or(80, |(columns, _)| usize::from(columns));
                let text: String = text.chars().take(width.saturating_sub(1)).collect();
                _ = write!(stderr, "\r\x1b[K{text}").and_then(|()| stderr.flush());
                self.is_open = true;
            }
            Step::Passing(text) => {
                let words: String = text.chars().filter(|letter| !letter.is_ascii_digit()).collect();
                if self.seen.len() < MAX_KINDS && self.seen.insert(words) {
                    _ = writeln!(stderr, "{text}");
                }
            }
            Step::Lasting(text) => {
                self.clear();
                _ = writeln!(stderr, "{text}");
            }
        }
        None
    }

    fn clear(&mut self) {
        if std::mem::take(&mut self.is_open) {
            _ = write!(io::stderr(), "\r\x1b[K");
        }
    }

    fn close(&mut self) {
        self.clear();
        _ = io::stderr().flush();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shown(step: Option<Step>) -> String {
        match step {
            None => "-".to_owned(),
            Some(Step::Lasting(text)) => text,
            Some(Step::Passing(text)) => format!("~ {text}"),
            Some(Step::Done) => "done".to_owned(),
            Some(Step::Failed(why)) => format!("failed: {why}"),
        }
    }

    #[test]
    fn events_become_the_progress_of_one_deployment() {
        let app: PathId = "/testdb".parse().unwrap();
        let mut progress = Progress::new(&app, "d1");
        let mut check = |kind: &str, body: Value, expected: &str| assert_eq!(shown(progress.event(kind, &body)), expected, "{kind} {body}");
        let status = |state: &str, message: &str| json!({"appId": "/testdb", "taskStatus": state, "message": message, "host": "node1"});
        check("instance_changed_event", json!({"runSpecId": "/testdb", "condition": "Scheduled"}), "-");
        check("instance_changed_event", json!({"runSpecId": "/other", "condition": "Provisioned", "host": "node1"}), "-");
        check("instance_changed_event", json!({"runSpecId": "/testdb", "condition": "Provisioned", "host": "node1"}), "placed on node1");
        check("status_update_event", status("TASK_STAGING", ""), "-");
        let pulling = "pulling image zmfsea/cmp-postgresql: 12 of 48 MiB, 3 layers";
        check(
            "status_update_event",
            status("TASK_STAGING", pulling),
            "~ pulling image zmfsea/cmp-postgresql: 25 % (12 of 48 MiB, 3 layers)",
        );
        check("status_update_event", status("TASK_STAGING", pulling), "-");
        check("status_update_event", status("TASK_STAGING", "waiting to pull image x"), "~ waiting to pull image x");
        check("status_update_event", status("TASK_STARTING", ""), "~ starting");
        check("status_update_event", status("TASK_RUNNING", ""), "started on node1");
        check("instance_health_changed_event", json!({"runSpecId": "/testdb", "healthy": true}), "healthy");
        check("status_update_event", status("TASK_FAILED", "exit\u{1b} 1"), "failed on node1: exit? 1; it is tried again");
        check("instance_changed_event", json!({"runSpecId": "/testdb", "condition": "Provisioned", "host": "node1"}), "~ placed on node1");
        check("status_update_event", status("TASK_FAILED", "exit\u{1b} 1"), "~ failed again on node1, 2 times so far");
        check("status_update_event", status("TASK_FAILED", "exit 2"), "failed on node1: exit 2; it is tried again");
        check("deployment_success", json!({"id": "d2"}), "-");
        check("deployment_success", json!({"id": "d1"}), "done");
        check(
            "deployment_failed",
            json!({"id": "d1", "reason": "cancelled by admin"}),
            "failed: the change was taken back: cancelled by admin",
        );
        check("unheard_of", json!({"appId": "/testdb"}), "-");
        check("status_update_event", json!(null), "-");
        assert_eq!(progress.last_reason(), " (failed on node1: exit 2)");
        progress.queue(Some(&json!({"delay": {"timeLeftSeconds": 2}})));
        assert_eq!(progress.last_reason(), " (failed on node1: exit 2; the next try is in 2 s)");
    }

    #[test]
    fn the_queue_says_why_something_waits_and_says_it_once() {
        let app: PathId = "/testdb".parse().unwrap();
        let mut progress = Progress::new(&app, "d1");
        let entry = |delay: u64, declined: u64| {
            json!({
                "app": {"id": "/testdb", "cpus": 0.5, "mem": 512},
                "delay": {"timeLeftSeconds": delay},
                "processedOffersSummary": {"rejectSummaryLastOffers": [
                    {"reason": "UnfulfilledConstraint", "declined": 1}, {"reason": "InsufficientCpus", "declined": declined},
                    {"reason": "InsufficientMemory", "declined": 0},
                ]},
            })
        };
        let waits = "~ waits: 1 node: is not one of those it may run on; 2 nodes: has not 0.5 CPU left";
        assert_eq!(shown(progress.queue(Some(&entry(0, 2)))), waits);
        assert_eq!(shown(progress.queue(Some(&entry(0, 2)))), "-");
        assert_eq!(progress.last_reason(), " (1 node: is not one of those it may run on; 2 nodes: has not 0.5 CPU left)");
        assert_eq!(shown(progress.queue(None)), "-");
        assert_eq!(progress.last_reason(), "");
        let held = json!({"reason": "brick 'b' may still be held on node2", "delay": {"timeLeftSeconds": 7}});
        assert_eq!(shown(progress.queue(Some(&held))), "~ waits: brick 'b' may still be held on node2; the next try is in 7 s");
    }
}
