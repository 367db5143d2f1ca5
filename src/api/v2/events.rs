//! `/v2/events`: what is committed, as server-sent events.
//!
//! Facts (Marathon 1.11): `event: <type>`, then `data: <json>` on one line, then a blank line, all with CR LF (marathon-lb splits at CR LF);
//! `event_type` may be repeated and picks; the first event of a stream is its own `event_stream_attached`; between events there are blank lines as
//! signs of life; without `Accept: text/event-stream` it is 405; a reader who lags by more than 1024 is cut off.
//!
//! Ours: `id` is the number of the commit in this process. `event_stream_attached` of other streams is not told.

use std::{convert::Infallible, fmt::Write as _, sync::Arc};

use bytes::Bytes;
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, broadcast, mpsc, watch};
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
        call::Call,
        error::{ApiError, ApiResult},
        wall,
    },
    model::event::Event,
    runtime::handle::Published,
};

/// Frames that wait for a slow connection, beyond those that the fan-out keeps for it.
const MAX_WAITING_FRAMES: usize = 64;

pub fn route(api: &Api, call: &Call) -> ApiResult {
    reads_only(call)?;
    let streams = |value: &HeaderValue| value.to_str().is_ok_and(|value| value.contains("text/event-stream"));
    if !call.headers.get_all(ACCEPT).iter().any(streams) {
        return Err(ApiError::reason(StatusCode::METHOD_NOT_ALLOWED));
    }
    let permit = api.streams.clone().try_acquire_owned();
    let permit = permit.map_err(|_| ApiError::unavailable("too many event streams are open"))?;
    let (frames, receiver) = mpsc::channel(MAX_WAITING_FRAMES);
    let stream = Stream {
        remote_address: call.client_ip(),
        wanted: call.query.all("event_type").map(str::to_owned).collect(),
        commits: api.handle.follow(),
        frames,
        heartbeat: api.limits.heartbeat,
        _permit: permit,
    };
    // A request without a connection has nobody to tell it of the end; it ends with its reader.
    let closing = call.peer.as_ref().map_or_else(|| watch::channel(false).1, |peer| peer.closing.clone());
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
    commits: broadcast::Receiver<Arc<Published>>,
    frames: mpsc::Sender<Result<Bytes, Infallible>>,
    heartbeat: std::time::Duration,
    _permit: OwnedSemaphorePermit,
}

impl Stream {
    /// Until the reader is gone or too slow, or the server stops.
    async fn run(mut self, mut closing: watch::Receiver<bool>) {
        let attached = Event {
            kind: "event_stream_attached",
            timestamp: wall(),
            app: None,
            fields: serde_json::Map::from_iter([("remoteAddress".to_owned(), json!(self.remote_address))]),
        };
        if !self.send(&attached, None).await {
            return;
        }
        let closed = async { closing.wait_for(|closing| *closing).await.is_ok() };
        tokio::pin!(closed);
        let mut waiting_for_end = true;
        loop {
            let alive = tokio::select! {
                told = &mut closed, if waiting_for_end => { waiting_for_end = false; !told }
                () = self.frames.closed() => false,
                commit = self.commits.recv() => self.deliver(commit).await,
                () = tokio::time::sleep(self.heartbeat) => self.frames.send(Ok(Bytes::from_static(b"\r\n"))).await.is_ok(),
            };
            if !alive {
                return;
            }
        }
    }

    /// False when the stream is to end.
    async fn deliver(&mut self, commit: Result<Arc<Published>, broadcast::error::RecvError>) -> bool {
        match commit {
            Ok(commit) => {
                for event in &commit.events {
                    if !self.send(event, Some(commit.revision)).await {
                        return false;
                    }
                }
                true
            }
            Err(broadcast::error::RecvError::Lagged(missed)) => {
                info!(client = %self.remote_address, missed, "Event stream closed: its reader is too slow.");
                false
            }
            Err(broadcast::error::RecvError::Closed) => false,
        }
    }

    async fn send(&self, event: &Event, revision: Option<u64>) -> bool {
        if !self.wanted.is_empty() && !self.wanted.iter().any(|kind| kind == event.kind) {
            return true;
        }
        self.frames.send(Ok(frame(event, revision))).await.is_ok()
    }
}

fn frame(event: &Event, revision: Option<u64>) -> Bytes {
    let mut text = format!("event: {}\r\n", event.kind);
    if let Some(revision) = revision {
        // Writing to a String does not fail.
        _ = write!(text, "id: {revision}\r\n");
    }
    _ = write!(text, "data: {}\r\n\r\n", event.body());
    text.into()
}
