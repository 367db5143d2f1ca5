//! HTTP: Marathon's v2 API, errors, views and event streams.
//!
//! A request is read here, turned into one [`Request`](crate::model::request::Request) for the core or into a look at the present snapshot, and
//! answered with Marathon's statuses, headers and JSON. Nothing is decided here about apps, and no state is kept but the number of open streams.
//!
//! | room | what it is |
//! | --- | --- |
//! | [`server`] | the accept loop: connections, limits, time-outs, shutdown |
//! | [`identity`] | who asks: sockets, passwords, tokens |
//! | `guard` | which hosts and origins may speak to us at all |
//! | [`access`] | what a caller may see of what there is; no route reaches anything past it |
//! | `call` | a request taken apart: path, query, body |
//! | [`surround`] | what every answer has: it is counted, limited, opened to other origins, compressed |
//! | `v2` | the routes, one file each |
//! | [`view`] | the JSON bodies, computed from a snapshot alone |
//! | `patience` | which connections may be silent |
//! | `quiet` | that a connection does not wake itself for nothing |
//! | `describe` | what all this is, for programs and for people |
//! | `error` | every refusal, with Marathon's status and text |
//!
//! # Why one warp filter and a hand-written table of routes
//! Marathon's paths end in a suffix after an id of any depth (`/v2/apps/a/b/c/versions/{ts}`), may have doubled and trailing slashes, and tell a
//! wrong method (405) from an unknown route (404). Combinators of path segments express none of this; a `match` on a slice of segments does, and it
//! compiles quickly. warp does the rest: the service, bodies, and the filters that others mount beside ours ([`Api::extra`]).
//!
//! # Where this differs from Marathon 1.11 on purpose
//! * An unknown route is 404, not 500. `Accept` never leads to 406: JSON is sent.
//! * `/v2/tasks` still speaks `text/plain`, as before 1.10.
//! * There is always a leader: this process. `DELETE /v2/leader` ends it, as in Marathon, for a supervisor to start it again; it takes no backup.
//! * `Host` and `Origin` are checked (`guard`).

use std::{sync::Arc, time::Duration};

use tokio::sync::{Notify, Semaphore};
use warp::{
    Filter,
    filters::{BoxedFilter, path::FullPath},
    http::HeaderValue,
};

use crate::{
    audit::Audit,
    model::request::Origin,
    registry::platform::Platform,
    runtime::{handle::Handle, node::NodeAccess},
    telemetry::Levels,
};

mod accept;
pub mod access;
mod answer;
mod call;
mod describe;
mod error;
mod guard;
pub mod identity;
mod info;
mod patience;
mod query;
mod quiet;
mod revalidate;
#[cfg(test)]
mod security;
mod selector;
pub mod server;
pub mod surround;
#[cfg(test)]
pub(crate) mod testing;
mod trail;
mod v2;
pub mod view;

pub use access::Access;
pub use identity::Identity;
pub use info::Info;
pub use server::serve;

/// An HTTP response, as warp makes them.
pub type Response = warp::reply::Response;

/// What the API works with. Cheap to clone.
#[derive(Clone)]
pub struct Api {
    /// Reads, requests and events, each within what its caller may.
    pub access: Access,
    /// What the server says of itself.
    pub info: Arc<Info>,
    /// Who asks.
    pub identity: Arc<Identity>,
    /// Where changes and logins are written down; by default nowhere.
    pub audit: Audit,
    /// Filters beside our own routes: each is tried for paths that begin with its segment, once it is known who asks, and sees the rest of the path; a
    /// rejection of theirs means "not mine".
    pub extra: Vec<(&'static str, BoxedFilter<(Response,)>)>,
    /// As `extra`, and tried before it, but only for administrators: for others they are not there.
    pub extra_for_administrators: Vec<(&'static str, BoxedFilter<(Response,)>)>,
    /// What one client, and all together, may take.
    pub limits: Limits,
    /// How many requests are answered at once; `None`: as many as there are connections.
    pub most_requests: Option<surround::MostRequests>,
    /// What is asked of nodes directly; `None`: nothing can be.
    pub nodes: Option<Arc<dyn NodeAccess>>,
    /// The platform's registry of images; without it nothing is served about them.
    pub images: Option<Arc<Platform>>,
    /// How much each logger says.
    pub levels: Levels,
    /// Told when the server is to give up its leadership, which ends the process.
    pub resign: Arc<Notify>,
    /// Room for event streams; see [`Limits::event_streams`].
    streams: Arc<Semaphore>,
    /// Room for outputs being read; see [`Limits::log_streams`].
    log_streams: Arc<Semaphore>,
    /// Room for bricks on their way; see [`Limits::brick_streams`].
    brick_streams: Arc<Semaphore>,
}

impl Api {
    /// The API with nothing mounted beside it and the usual limits.
    pub fn new(handle: Handle, info: Info) -> Self {
        Self::with_limits(handle, info, Limits::default())
    }

    /// The API with other limits.
    pub fn with_limits(handle: Handle, info: Info, limits: Limits) -> Self {
        let room = |places: usize| Arc::new(Semaphore::new(places));
        Self {
            access: Access::new(handle, info.task_killing),
            info: Arc::new(info),
            identity: Arc::default(),
            audit: Audit::default(),
            extra: Vec::new(),
            extra_for_administrators: Vec::new(),
            limits,
            most_requests: None,
            nodes: None,
            images: None,
            levels: Levels::default(),
            resign: Arc::default(),
            streams: room(limits.event_streams),
            log_streams: room(limits.log_streams),
            brick_streams: room(limits.brick_streams),
        }
    }
}

/// Limits of the HTTP side. Every one is there so that no client can take memory or places without end.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at once; further ones wait in the kernel's queue.
    pub connections: usize,
    /// Event streams at once; one more is refused with 503, so that streams cannot take every connection.
    pub event_streams: usize,
    /// Tasks' outputs that are read at once, in the same way.
    pub log_streams: usize,
    /// Bricks that are backed up or restored at once, in the same way.
    pub brick_streams: usize,
    /// Bytes of a request's body; more is 413. A brick's backup is not counted: its limit is the disk's reserve.
    pub body_bytes: usize,
    /// Bytes of a request's line and headers; more is 431. hyper looks between two reads, so that up to twice as many may pass.
    pub header_bytes: usize,
    /// Number of headers; more is 431.
    pub headers: usize,
    /// From the first byte of a request, or the end of the last one, to the end of its headers.
    pub header_time: Duration,
    /// From a request's headers to the response's; more is 503. Shorter than `idle`, which would otherwise cut the connection first.
    pub request_time: Duration,
    /// Without a byte in either direction a connection is closed. Marathon: 30 s. While an output is followed or a command runs, a client may be silent
    /// for ever; that it takes what is sent to it is still expected.
    pub idle: Duration,
    /// Between two signs of life on an event stream; shorter than `idle`.
    pub heartbeat: Duration,
    /// How long connections may go on after the server was told to stop.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 2048,
            event_streams: 1024,
            log_streams: 256,
            brick_streams: 2,
            body_bytes: 4 * 1024 * 1024,
            header_bytes: 64 * 1024,
            headers: 100,
            header_time: Duration::from_secs(30),
            request_time: Duration::from_secs(25),
            idle: Duration::from_secs(30),
            heartbeat: Duration::from_secs(10),
            drain: Duration::from_secs(5),
        }
    }
}

/// Everything that is served, with Marathon's headers on every response. It never rejects.
pub fn routes(api: Api) -> BoxedFilter<(Response,)> {
    // An address that no header can carry is left out.
    let common = answer::common_headers(HeaderValue::from_str(&api.info.leader_url()).ok());
    let known = guard::filter(api.info.clone()).and(identity::filter(&api)).boxed();
    let gate = known.clone().map(|_| ()).untuple_one().boxed();
    let is_administrator = |origin: Origin| std::future::ready(if origin.admin { Ok(()) } else { Err(warp::reject()) });
    let narrow_gate = known.and_then(is_administrator).untuple_one().boxed();
    let own = {
        let api = Arc::new(api.clone());
        // Boxed where it is made, so that no filter around it moves it.
        call::filter(api.limits.body_bytes).then(move |call| Box::pin(surround::answer(api.clone(), call)))
    };
    // Without this what is mounted beside would be asked first for every request of ours.
    let segments: Arc<[&str]> = api.extra.iter().chain(&api.extra_for_administrators).map(|(segment, _)| *segment).collect();
    let alone = warp::path::full().and_then(move |path: FullPath| {
        let is_shared = path.as_str().split('/').nth(1).is_some_and(|first| segments.contains(&first));
        std::future::ready(if is_shared { Err(warp::reject()) } else { Ok(()) })
    });
    // The segment goes first: who asks is found out at some cost, and our own routes do it themselves.
    let beside = |gate: &BoxedFilter<()>, (segment, extra): (&'static str, BoxedFilter<(Response,)>), rest: BoxedFilter<(Response,)>| {
        warp::path(segment).and(gate.clone()).and(extra).or(rest).unify().boxed()
    };
    let all = api.extra.into_iter().rev().fold(own.clone().boxed(), |rest, extra| beside(&gate, extra, rest));
    let all = api.extra_for_administrators.into_iter().rev().fold(all, |rest, extra| beside(&narrow_gate, extra, rest));
    alone.untuple_one().and(own).or(all).unify().map(move |response| answer::with_common_headers(response, &common)).boxed()
}

/// The wall clock. Only shown and compared with what is shown, never decided with.
fn wall() -> crate::model::time::Timestamp {
    let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    crate::model::time::Timestamp(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
}
