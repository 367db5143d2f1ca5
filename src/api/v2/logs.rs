//! `/v2/tasks/{id}/logs`: what a task wrote, as a stream of text, also after its end as long as its sandbox is kept. Ours; Marathon leaves this to
//! Mesos' sandboxes.
//!
//! | query | meaning |
//! | --- | --- |
//! | `stream` | `stdout` (also without it) or `stderr` |
//! | `tail` | only the last lines, so many |
//! | `since` | a moment (`2020-01-31T12:00:00Z`) or Unix seconds: files last written before it are left out. Lines carry no time, so it goes by file |
//! | `follow` | `true`: go on until the task has ended and everything was sent, or until the client leaves |

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tracing::debug;
use warp::{
    http::{HeaderName, HeaderValue, Method, header::CONTENT_TYPE},
    reply::Reply as _,
};

use super::{known, reads_only};
use crate::{
    api::{
        Api,
        access::{Access, Session},
        call::Call,
        error::{ApiError, ApiResult},
        identity,
        patience::Hold,
        query::Query,
    },
    model::{id::TaskId, request::Origin, time::Timestamp},
    runtime::node::{LogRange, LogReader, MAX_WAITING_PIECES, NodeError, Output},
};

/// A followed output that has nothing new is looked at again after this long.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

pub async fn route(api: &Api, call: &Call, task: &str) -> ApiResult {
    reads_only(call)?;
    let task = known::task(api, call, task)?;
    let range = range(&call.query)?;
    let place = api.log_streams.clone().try_acquire_owned();
    let place = place.map_err(|_| ApiError::unavailable("too many outputs are being read"))?;
    let origin = identity::origin(call);
    let log = known::nodes(api)?.open_log(task.agent.as_ref(), &task.id, range).await?;
    if !(task.recorded || origin.admin || log.owner().as_ref() == Some(&origin.user)) {
        return Err(NodeError::Missing(format!("nothing is kept of task '{}'", task.id)).into());
    }
    let (pieces, receiver) = mpsc::channel(MAX_WAITING_PIECES);
    let reading = Reading {
        access: api.access.clone(),
        origin,
        task: task.id,
        log,
        follow: call.flag("follow", false),
        pieces,
        closing: call.closing(),
        _hold: call.hold(),
        _place: place,
    };
    if call.method != Method::HEAD {
        tokio::spawn(reading.run(identity::session(api, call)));
    }
    let mut response = warp::reply::stream(ReceiverStream::new(receiver)).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    Ok(response)
}

fn range(query: &Query) -> Result<LogRange, ApiError> {
    let output = match query.first("stream") {
        None | Some("stdout") => Output::Stdout,
        Some("stderr") => Output::Stderr,
        Some(other) => return Err(ApiError::bad(format!("stream must be stdout or stderr, not '{other}'"))),
    };
    let tail =
        query.first("tail").map(|text| text.parse().map_err(|_| ApiError::bad(format!("tail must be a number of lines, not '{text}'"))));
    let since = query.first("since").map(|text| {
        let seconds = text.parse::<i64>().ok().map(|seconds| Timestamp(seconds.saturating_mul(1000)));
        let moment = seconds.or_else(|| text.parse().ok());
        moment.ok_or_else(|| ApiError::bad(format!("since must be a moment such as 2020-01-31T12:00:00Z, or Unix seconds, not '{text}'")))
    });
    Ok(LogRange { output, tail: tail.transpose()?, since: since.transpose()? })
}

/// An output on its way to a client.
struct Reading {
    access: Access,
    origin: Origin,
    task: TaskId,
    log: Box<dyn LogReader>,
    follow: bool,
    pieces: mpsc::Sender<Result<Bytes, NodeError>>,
    closing: watch::Receiver<bool>,
    _hold: Option<Hold>,
    _place: OwnedSemaphorePermit,
}

impl Reading {
    /// Until all is sent, the client is gone or may not go on, or the server stops.
    async fn run(mut self, session: Session) {
        let app = self.task.instance.app().clone();
        tokio::select! {
            // First: nothing that was written after it is sent.
            biased;
            end = session.over(&app) => {
                debug!(?end, task = %self.task, "An output is broken off: its reader may not go on.");
                let Self { pieces, .. } = self;
                // Not taken for the end of the output.
                _ = pieces.send(Err(NodeError::Unavailable("whoever reads may not go on".to_owned()))).await;
            }
            () = self.send_all() => {}
        }
    }

    async fn send_all(&mut self) {
        let mut is_complete = !self.follow;
        while !*self.closing.borrow() {
            match self.log.read().await {
                Ok(Some(piece)) => {
                    if self.pieces.send(Ok(piece)).await.is_err() {
                        return;
                    }
                }
                Ok(None) if is_complete => return,
                Ok(None) => {
                    // What was written before it was complete is read after that was found out.
                    is_complete = !known::is_live(&self.access.seen(&self.origin), &self.task) && self.log.is_complete().await;
                    if !is_complete && !self.wait().await {
                        return;
                    }
                }
                Err(error) => {
                    // The answer has begun: all that can be done is to break it off.
                    _ = self.pieces.send(Err(error)).await;
                    return;
                }
            }
        }
    }

    /// False when nobody listens any more.
    async fn wait(&mut self) -> bool {
        let closing = &mut self.closing;
        let told = async move {
            // A sender that is gone means that nobody will tell: that is no end.
            if closing.wait_for(|closing| *closing).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = tokio::time::sleep(LOOK_AGAIN) => true,
            () = self.pieces.closed() => false,
            () = told => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures_util::StreamExt;

    use super::*;
    use crate::{
        api::{
            Limits,
            access::Seen,
            identity::Who,
            testing::{Node, Server, World, app, who},
        },
        model::{
            id::{InstanceId, Owner},
            instance::{Condition, Goal},
            record::{Change, Record, RecordKey},
        },
        runtime::handle::Published,
    };

    const TASK: &str = "web.instance-00000000-0000-0000-0000-000000000001._app.1";

    fn world() -> World {
        let mut world = World::default();
        world.agent().app(app("/web")).instance("/web", 1, Condition::Running, &[31_001]);
        world
    }

    fn server(node: &Arc<Node>) -> Server {
        let mut server = Server::new(world());
        server.set_nodes(node.clone());
        server
    }

    #[tokio::test]
    async fn an_output_is_sent_as_text() {
        let node = Arc::new(Node::with_output(&["one\n", "two\n"]));
        let server = server(&node);
        let answer = server.ask(&format!("GET /v2/tasks/{TASK}/logs?stream=stderr&tail=7&since=1580472000"), "").await;
        assert_eq!((answer.status.as_u16(), &*answer.body), (200, "one\ntwo\n"));
        assert_eq!(answer.headers["content-type"], "text/plain; charset=utf-8");
        let since = "2020-01-31T12:00:00.000Z".parse().ok();
        assert_eq!(*node.ranges.lock().unwrap(), [LogRange { output: Output::Stderr, tail: Some(7), since }]);
        // Of a task that has ended, and of an incarnation before.
        for task in [TASK.replace(".1", ".7"), TASK.replace("000001.", "000009.")] {
            assert_eq!(server.ask(&format!("GET /v2/tasks/{task}/logs"), "").await.status, 200, "{task}");
        }
    }

    #[tokio::test]
    async fn what_cannot_be_read_is_refused() {
        let node = Arc::new(Node::default());
        let server = server(&node);
        let check = async |line: &str, status: u16, message: &str| {
            let answer = server.ask(line, "").await;
            assert_eq!((answer.status.as_u16(), &*answer.message()), (status, message), "{line}");
        };
        check("GET /v2/tasks/x/logs", 404, "Task 'x' does not exist").await;
        let pod = TASK.replace("_app", "nginx");
        check(&format!("GET /v2/tasks/{pod}/logs"), 404, &format!("Task '{pod}' does not exist")).await;
        check("GET /v2/tasks/..%2f..%2fetc/logs", 404, "URI not found").await;
        check(&format!("GET /v2/tasks/{TASK}/logs"), 404, &format!("nothing is kept of task '{TASK}'")).await;
        check(&format!("GET /v2/tasks/{TASK}/logs?stream=stdin"), 400, "stream must be stdout or stderr, not 'stdin'").await;
        check(&format!("GET /v2/tasks/{TASK}/logs?tail=all"), 400, "tail must be a number of lines, not 'all'").await;
        let since = "since must be a moment such as 2020-01-31T12:00:00Z, or Unix seconds, not 'noon'";
        check(&format!("GET /v2/tasks/{TASK}/logs?since=noon"), 400, since).await;
        check(&format!("PUT /v2/tasks/{TASK}/logs"), 405, "Method Not Allowed").await;
        let bare = Server::new(world());
        assert_eq!(bare.ask(&format!("GET /v2/tasks/{TASK}/logs"), "").await.status, 503);
    }

    #[tokio::test]
    async fn a_followed_output_ends_with_its_task() {
        let node = Arc::new(Node::with_output(&["one\n"]));
        let server = server(&node);
        let followed = tokio::spawn({
            let (service, line) = (server.service(), format!("GET /v2/tasks/{TASK}/logs?follow=true"));
            async move { service.ask(&line).await }
        });
        // It is there as long as the task is, and as long as the task's container is.
        node.asked.notified().await;
        node.push("two\n");
        let mut ended = world().view;
        let mut instance = (**ended.tables.instances.values().next().unwrap()).clone();
        (instance.condition, instance.goal) = (Condition::Killed, Goal::Stopped);
        ended.tables.apply(&Change::Put(Record::Instance(Arc::new(instance.clone()))));
        ended.tables.apply(&Change::Delete(RecordKey::Instance(instance.id)));
        server.handle.publish(ended, Published { revision: 1, events: Vec::new(), changed: Vec::new() });
        node.asked_whether_complete.notified().await;
        node.push("three\n");
        node.complete();
        assert_eq!(followed.await.unwrap().body, "one\ntwo\nthree\n");
    }

    /// All that comes, and whether it was broken off.
    async fn read_all(mut body: futures_util::stream::BoxStream<'static, Result<Bytes, warp::Error>>) -> (String, bool) {
        let mut text = String::new();
        while let Some(piece) = body.next().await {
            match piece {
                Ok(piece) => text += std::str::from_utf8(&piece).unwrap(),
                Err(_) => return (text, true),
            }
        }
        (text, false)
    }

    #[tokio::test]
    async fn a_followed_output_is_broken_off_when_its_reader_may_not_go_on() {
        let line = format!("GET /v2/tasks/{TASK}/logs?follow=true");
        // The token has ended.
        let soon = std::time::Instant::now() + Duration::from_millis(20);
        let body = server(&Arc::new(Node::with_output(&["one\n"]))).open(&Who { until: Some(soon), ..who("root") }, &line).await;
        assert!(read_all(body).await.1);
        // The user is locked.
        let node = Arc::new(Node::with_output(&["one\n"]));
        let server = server(&node);
        let body = server.open(&who("root"), &line).await;
        node.asked.notified().await;
        let mut locked = world();
        locked.user("root", true, true);
        let changed = vec![RecordKey::User(Owner::new("root"))];
        server.handle.publish(locked.view, Published { revision: 1, events: Vec::new(), changed });
        assert_eq!(read_all(body).await, ("one\n".to_owned(), true));
    }

    #[tokio::test]
    async fn an_output_is_broken_off_when_its_app_is_handed_over() {
        let node = Arc::new(Node::with_output(&["one\n"]));
        let server = server_of_ann(node.clone());
        let body = server.open(&who("ann"), &format!("GET /v2/tasks/{TASK}/logs?follow=true")).await;
        node.asked.notified().await;
        let changed = vec![RecordKey::App("/web".parse().unwrap())];
        server.handle.publish(world_of("bob").view, Published { revision: 1, events: Vec::new(), changed });
        node.push("bob's\n");
        assert_eq!(read_all(body).await, ("one\n".to_owned(), true));
    }

    fn world_of(owner: &str) -> World {
        let mut world = World::default();
        world.of(owner).agent().app(app("/web")).instance("/web", 1, Condition::Running, &[31_001]);
        world
    }

    fn server_of_ann(node: Arc<Node>) -> Server {
        let mut server = Server::new(world_of("ann"));
        server.set_nodes(node);
        server
    }

    /// Of an app that had the same id once, wholly released since.
    #[tokio::test]
    async fn what_is_kept_of_a_former_owners_tasks_is_not_read_by_the_ids_next_owner() {
        let old = TASK.replace("000001.", "000009.");
        let check = async |owner: Option<&str>, user: &str, task: &str, expected: &str| {
            let mut node = Node::with_output(&["secret\n"]);
            node.owner = owner.map(Owner::new);
            let node = Arc::new(node);
            let answer = server_of_ann(node).ask_as(user, &format!("GET /v2/tasks/{task}/logs"), "").await;
            let said = if answer.status == 200 { answer.body.clone() } else { answer.message() };
            assert_eq!(said, expected, "{owner:?} {user} {task}");
        };
        let nothing = format!("nothing is kept of task '{old}'");
        check(Some("bob"), "ann", &old, &nothing).await;
        check(None, "ann", &old, &nothing).await;
        check(Some("ann"), "ann", &old, "secret\n").await;
        check(Some("bob"), "root", &old, "secret\n").await;
        check(Some("ann"), "bob", &old, &format!("Task '{old}' does not exist")).await;
        // The records say whose a task that runs is, also after the app was handed over.
        check(Some("bob"), "ann", TASK, "secret\n").await;
    }

    #[tokio::test]
    async fn places_are_limited_and_given_back() {
        let node = Arc::new(Node::with_output(&["one\n"]));
        let mut server = Server::with_limits(world(), Limits { log_streams: 0, ..Limits::default() });
        server.set_nodes(node.clone());
        let answer = server.ask(&format!("GET /v2/tasks/{TASK}/logs"), "").await;
        assert_eq!((answer.status.as_u16(), &*answer.message()), (503, "too many outputs are being read"));
        let mut server = Server::with_limits(world(), Limits { log_streams: 1, ..Limits::default() });
        server.set_nodes(node);
        for _ in 0..2 {
            assert_eq!(server.ask(&format!("GET /v2/tasks/{TASK}/logs"), "").await.body, "one\n");
            while server.api.log_streams.available_permits() == 0 {
                tokio::task::yield_now().await;
            }
        }
    }

    #[test]
    fn a_task_is_live_as_itself_only() {
        let seen = Seen::all_of(&world().view);
        let id = |number: u128, incarnation: u32| {
            TaskId::app(InstanceId::new("/web".parse().unwrap(), uuid::Uuid::from_u128(number)), incarnation)
        };
        assert!(known::is_live(&seen, &id(1, 1)));
        assert!(!known::is_live(&seen, &id(1, 2)));
        assert!(!known::is_live(&seen, &id(2, 1)));
    }
}
