//! `/v2/events`: what is committed, as server-sent events.
//!
//! Facts (Marathon 1.11): `event: <type>`, then `data: <json>` on one line, then a blank line, all with CR LF (marathon-lb splits at CR LF);
//! `event_type` may be repeated and picks; the first event of a stream is its own `event_stream_attached`; between events there are blank lines as
//! signs of life; without `Accept: text/event-stream` it is 405; a reader who lags by more than 1024 is cut off.
//!
//! Ours: each event but the first has an `id`; who comes back with it as `Last-Event-ID` is told what was missed, as far as that is kept (the last
//! [`MAX_KEPT_EVENTS`](crate::runtime::handle::MAX_KEPT_EVENTS) events of this process). Where it is not, a comment says so and the stream begins with what
//! happens now. `event_stream_attached` of other streams is not told.

use std::{
    convert::Infallible,
    fmt::{self, Write as _},
};

use bytes::Bytes;
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc, watch},
    time::MissedTickBehavior,
};
use tokio_stream::wrappers::ReceiverStream;
use tracing::info;
use warp::{
    http::{
        HeaderName, HeaderValue, StatusCode,
        header::{ACCEPT, CONTENT_TYPE},
    },
    reply::Reply as _,
};

use super::reads_only;
use crate::{
    api::{
        Api,
        access::{End, Session, Told},
        call::Call,
        error::{ApiError, ApiResult},
        identity, wall,
    },
    model::event::{Audience, Event, Fact},
};

/// Frames that wait for a slow connection, beyond those that the fan-out keeps for it.
const MAX_WAITING_FRAMES: usize = 64;

/// A comment: readers skip it, people see it.
const GAP: &[u8] = b": what came after your Last-Event-ID is not kept any more\r\n\r\n";

pub fn route(api: &Api, call: &Call) -> ApiResult {
    reads_only(call)?;
    let streams = |value: &HeaderValue| value.to_str().is_ok_and(|value| value.contains("text/event-stream"));
    if !call.headers.get_all(ACCEPT).iter().any(streams) {
        return Err(ApiError::reason(StatusCode::METHOD_NOT_ALLOWED));
    }
    let permit = api.streams.clone().try_acquire_owned();
    let permit = permit.map_err(|_| ApiError::unavailable("too many event streams are open"))?;
    let (frames, receiver) = mpsc::channel(MAX_WAITING_FRAMES);
    let mut session = identity::session(api, call);
    let last = call.headers.get("last-event-id").and_then(|id| id.to_str().ok()).filter(|id| !id.is_empty());
    let has_gap = last.is_some_and(|id| !EventId::read(id).is_some_and(|id| session.resume(id.process, id.revision, id.place)));
    let stream = Stream {
        remote_address: call.client_ip().to_string(),
        wanted: call.query.all("event_type").map(str::to_owned).collect(),
        process: api.access.process(),
        has_gap,
        session,
        frames,
        heartbeat: api.limits.heartbeat,
        _permit: permit,
    };
    let closing = call.closing();
    if !call.method.eq(&warp::http::Method::HEAD) {
        tokio::spawn(stream.run(closing));
    }
    let mut response = warp::reply::stream(ReceiverStream::new(receiver)).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    Ok(response)
}

struct Stream {
    remote_address: String,
    /// Empty: every type.
    wanted: Vec<String>,
    process: u32,
    /// What the reader missed is not kept.
    has_gap: bool,
    session: Session,
    frames: mpsc::Sender<Result<Bytes, Infallible>>,
    heartbeat: std::time::Duration,
    _permit: OwnedSemaphorePermit,
}

impl Stream {
    /// Until the reader is gone or too slow, or the server stops.
    async fn run(mut self, mut closing: watch::Receiver<bool>) {
        let fact = Fact::EventStreamAttached { remote_address: self.remote_address.clone() };
        let attached = Event { timestamp: wall(), app: None, audience: Audience::Everyone, fact };
        if !self.send(&attached, None).await || self.has_gap && self.frames.send(Ok(Bytes::from_static(GAP))).await.is_err() {
            return;
        }
        let closed = async { closing.wait_for(|closing| *closing).await.is_ok() };
        tokio::pin!(closed);
        let mut waiting_for_end = true;
        // Also while there are events, but none that is wanted here.
        let mut heartbeat = tokio::time::interval_at(tokio::time::Instant::now() + self.heartbeat, self.heartbeat);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let alive = tokio::select! {
                told = &mut closed, if waiting_for_end => { waiting_for_end = false; !told }
                () = self.frames.closed() => false,
                commit = self.session.next() => self.deliver(commit).await,
                _ = heartbeat.tick() => self.frames.send(Ok(Bytes::from_static(b"\r\n"))).await.is_ok(),
            };
            if !alive {
                return;
            }
        }
    }

    /// False when the stream is to end.
    async fn deliver(&mut self, told: Result<Told, End>) -> bool {
        match told {
            Ok(Told { revision, first, events }) => {
                for (place, event) in (first..).zip(&events) {
                    if !self.send(event, Some(EventId { process: self.process, revision, place })).await {
                        return false;
                    }
                }
                true
            }
            Err(End::Lagged(missed)) => {
                info!(client = %self.remote_address, missed, "Event stream closed: its reader is too slow.");
                false
            }
            Err(End::Changed | End::Anothers | End::Expired) => {
                info!(client = %self.remote_address, "Event stream closed: its reader must say anew who it is.");
                false
            }
            Err(End::Closed) => false,
        }
    }

    async fn send(&self, event: &Event, id: Option<EventId>) -> bool {
        if !self.wanted.is_empty() && !self.wanted.iter().any(|kind| kind == event.kind()) {
            return true;
        }
        self.frames.send(Ok(frame(event, id))).await.is_ok()
    }
}

/// Which event of which commit of which process, as its reader saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct EventId {
    process: u32,
    revision: u64,
    place: usize,
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}-{}-{}", self.process, self.revision, self.place)
    }
}

impl EventId {
    fn read(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, '-');
        let process = u32::from_str_radix(parts.next()?, 16).ok()?;
        Some(Self { process, revision: parts.next()?.parse().ok()?, place: parts.next()?.parse().ok()? })
    }
}

fn frame(event: &Event, id: Option<EventId>) -> Bytes {
    let mut text = format!("event: {}\r\n", event.kind());
    if let Some(id) = id {
        // Writing to a String does not fail.
        _ = write!(text, "id: {id}\r\n");
    }
    _ = write!(text, "data: {}\r\n\r\n", event.body());
    text.into()
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use futures_util::StreamExt;
    use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};

    use super::*;
    use crate::{
        api::{
            Limits,
            identity::Who,
            serve,
            testing::{Server, World, at, who},
        },
        model::request::Origin,
        runtime::handle::{Handle, Published},
    };

    /// The API on a real listener.
    struct Running {
        url: String,
        handle: Handle,
        stop: oneshot::Sender<()>,
        server: JoinHandle<()>,
    }

    async fn running(limits: Limits) -> Running {
        let Server { api, handle, .. } = Server::with_limits(World::default(), limits);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (stop, stopped) = oneshot::channel::<()>();
        let server = tokio::spawn(serve(listener, api, async { _ = stopped.await }));
        Running { url, handle, stop, server }
    }

    fn client() -> reqwest::Client {
        // Set up already when another test was quicker.
        _ = rustls::crypto::ring::default_provider().install_default();
        reqwest::Client::builder().no_proxy().build().unwrap()
    }

    async fn subscribe(server: &Running, query: &str) -> Frames {
        open(client().get(format!("{}/v2/events{query}", server.url))).await
    }

    async fn subscribe_after(server: &Running, id: &str) -> Frames {
        open(client().get(format!("{}/v2/events", server.url)).header("last-event-id", id)).await
    }

    async fn open(request: reqwest::RequestBuilder) -> Frames {
        let request = request.header("accept", "text/event-stream");
        let response = request.send().await.unwrap();
        assert_eq!(
            (response.status().as_u16(), response.headers()["content-type"].to_str().unwrap()),
            (200, "text/event-stream; charset=utf-8")
        );
        Frames { bytes: response.bytes_stream().boxed(), text: String::new() }
    }

    struct Frames {
        bytes: futures_util::stream::BoxStream<'static, reqwest::Result<Bytes>>,
        text: String,
    }

    impl Frames {
        /// The next event with its blank line; `None` at the end of the stream. Signs of life are skipped.
        async fn next(&mut self) -> Option<String> {
            loop {
                self.text = self.text.trim_start().to_owned();
                if let Some(end) = self.text.find("\r\n\r\n") {
                    return Some(self.text.drain(..end + 4).collect());
                }
                self.text += std::str::from_utf8(&self.bytes.next().await?.ok()?).unwrap();
            }
        }
    }

    fn origin(user: &str) -> Origin {
        let Who { user, admin, .. } = who(user);
        Origin { user, admin, client_ip: "".into(), uri: "".into() }
    }

    fn lost() -> Fact {
        Fact::SchedulerDisconnected { reason: "gone".into() }
    }

    fn back() -> Fact {
        Fact::SchedulerReregistered { master: "m".into() }
    }

    fn ended() -> Fact {
        Fact::AppTerminated { app: "/x".parse().unwrap() }
    }

    fn publish(handle: &Handle, revision: u64, facts: &[Fact]) {
        let event = |fact: &Fact| Event { timestamp: at(1), app: None, audience: Audience::Everyone, fact: fact.clone() };
        let events = facts.iter().map(|fact| Arc::new(event(fact))).collect();
        handle.publish(handle.view_full().as_ref().clone(), Published { revision, events, changed: Vec::new() });
    }

    #[tokio::test]
    async fn events_come_in_marathons_frames() {
        let server = running(Limits::default()).await;
        let mut frames = subscribe(&server, "").await;
        let attached = frames.next().await.unwrap();
        assert!(attached.starts_with("event: event_stream_attached\r\ndata: {\"remoteAddress\":\"127.0.0.1\","), "{attached}");
        publish(&server.handle, 7, &[lost(), back()]);
        let data = r#""timestamp":"2020-01-31T12:00:01.000Z"}"#;
        for (kind, fields) in [("scheduler_disconnected_event", r#""reason":"gone""#), ("scheduler_reregistered_event", r#""master":"m""#)]
        {
            let place = usize::from(kind.contains("reregistered"));
            let id = EventId { process: server.handle.process(), revision: 7, place };
            let expected = format!("event: {kind}\r\nid: {id}\r\ndata: {{{fields},\"eventType\":\"{kind}\",{data}\r\n\r\n");
            assert_eq!(frames.next().await.unwrap(), expected);
        }
    }

    #[tokio::test]
    async fn only_the_wanted_types_are_sent() {
        let server = running(Limits::default()).await;
        let mut frames = subscribe(&server, "?event_type=app_terminated_event&event_type=scheduler_disconnected_event").await;
        publish(&server.handle, 1, &[back(), ended()]);
        publish(&server.handle, 2, &[back(), lost()]);
        assert!(frames.next().await.unwrap().starts_with("event: app_terminated_event\r\n"));
        assert!(frames.next().await.unwrap().starts_with("event: scheduler_disconnected_event\r\n"));
    }

    #[tokio::test]
    async fn who_comes_back_is_told_what_was_missed() {
        let server = running(Limits::default()).await;
        publish(&server.handle, 1, &[ended(), lost(), back()]);
        publish(&server.handle, 2, &[ended()]);
        let id = |revision, place| EventId { process: server.handle.process(), revision, place }.to_string();
        let first_after = async |id: &str| {
            let mut frames = subscribe_after(&server, id).await;
            frames.next().await.unwrap();
            frames.next().await.unwrap()
        };
        let check = async |after: &str, expected: &str, is: &str| {
            let frame = first_after(after).await;
            assert!(frame.starts_with(expected) && frame.contains(is), "{after}: {frame}");
        };
        check(&id(1, 0), "event: scheduler_disconnected_event", &id(1, 1)).await;
        check(&id(1, 2), "event: app_terminated_event", &id(2, 0)).await;
        check("00000000-1-0", ": what came after your Last-Event-ID is not kept", "").await;
        check("7", ": what came after your Last-Event-ID is not kept", "").await;
        let mut frames = subscribe_after(&server, &id(2, 0)).await;
        frames.next().await.unwrap();
        publish(&server.handle, 3, &[lost()]);
        assert!(frames.next().await.unwrap().contains(&id(3, 0)));
    }

    #[tokio::test]
    async fn a_post_is_announced() {
        let server = running(Limits::default()).await;
        let mut frames = subscribe(&server, "?event_type=api_post_event").await;
        let post = client().post(format!("{}//v2/apps/", server.url)).body(r#"{"id": "/x", "cmd": "sleep 1"}"#);
        let response = post.send().await.unwrap();
        assert_eq!(response.status(), 201);
        assert_eq!(response.headers()["location"].to_str().unwrap(), format!("{}/x", server.url));
        assert!(frames.next().await.unwrap().contains(r#""uri":"//v2/apps/""#));
    }

    #[tokio::test]
    async fn a_stream_shows_signs_of_life() {
        let server = running(Limits { heartbeat: Duration::from_millis(1), ..Limits::default() }).await;
        let mut frames = subscribe(&server, "?event_type=none").await;
        assert_eq!(frames.bytes.next().await.unwrap().unwrap(), "\r\n");
        assert_eq!(frames.bytes.next().await.unwrap().unwrap(), "\r\n");
    }

    #[tokio::test]
    async fn a_slow_reader_is_cut_off() {
        let server = Server::new(World::default());
        let (frames, mut receiver) = mpsc::channel(1);
        let stream = Stream {
            remote_address: "192.0.2.7".into(),
            wanted: Vec::new(),
            process: 0,
            has_gap: false,
            session: server.api.access.session(&origin("root"), true, None),
            frames,
            heartbeat: Duration::from_secs(1000),
            _permit: server.api.streams.clone().try_acquire_owned().unwrap(),
        };
        let (_stop, closing) = watch::channel(false);
        let stream = tokio::spawn(stream.run(closing));
        let commits = crate::runtime::handle::MAX_OUTSTANDING_COMMITS as u64 * 2;
        (0..commits).for_each(|revision| publish(&server.handle, revision, &[back()]));
        let mut received = 0;
        while receiver.recv().await.is_some() {
            received += 1;
        }
        stream.await.unwrap();
        assert!(received < commits, "{received}");
    }

    #[tokio::test]
    async fn a_stream_ends_with_the_token_that_opened_it() {
        let server = Server::new(World::default());
        let soon = std::time::Instant::now() + Duration::from_millis(20);
        let mut response = server.open(&Who { until: Some(soon), ..who("ann") }, "GET /v2/events").await;
        let mut text = String::new();
        while let Some(piece) = response.next().await {
            text += std::str::from_utf8(&piece.unwrap()).unwrap();
        }
        assert!(text.starts_with("event: event_stream_attached"), "{text}");
    }

    #[tokio::test]
    async fn streams_end_when_the_server_stops() {
        let server = running(Limits::default()).await;
        let mut frames = subscribe(&server, "").await;
        frames.next().await.unwrap();
        server.stop.send(()).unwrap();
        assert_eq!(frames.next().await, None);
        server.server.await.unwrap();
    }

    #[tokio::test]
    async fn streams_need_their_type_and_a_place() {
        let server = running(Limits { event_streams: 1, ..Limits::default() }).await;
        let answer = client().get(format!("{}/v2/events", server.url)).header("accept", "application/json").send().await.unwrap();
        assert_eq!(answer.status(), 405);
        let open_streams = async || {
            let metrics = client().get(format!("{}/metrics", server.url)).send().await.unwrap().text().await.unwrap();
            let metrics: serde_json::Value = serde_json::from_str(&metrics).unwrap();
            metrics["gauges"]["marathon.http.event-streams.active.gauge"]["value"].as_f64()
        };
        assert_eq!(open_streams().await, Some(0.0));
        let frames = subscribe(&server, "").await;
        assert_eq!(open_streams().await, Some(1.0));
        let again = || client().get(format!("{}/v2/events", server.url)).header("accept", "text/event-stream").send();
        assert_eq!(again().await.unwrap().status(), 503);
        drop(frames);
        while again().await.unwrap().status() != 200 {
            tokio::task::yield_now().await;
        }
    }
}
