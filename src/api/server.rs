//! The accept loop: connections, their limits and their end.
//!
//! HTTP/1.1 without TLS, as Marathon's plain port. warp's own server has neither limits nor time-outs, so only its service is used. A connection is
//! closed when nothing has been sent or received for [`Limits::idle`](super::Limits::idle): that covers clients that say nothing, that never finish
//! their headers or body, and that never read their answer. Event streams live on through their signs of life.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::JoinSet,
    time::{Instant, Sleep},
};
use tracing::{debug, warn};
use warp::filters::BoxedFilter;

use super::{Api, Limits, Response, call::Peer, routes};

/// After an error of `accept` that is not about one connection (no file descriptors left), the next attempt waits this long.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until `shutdown` is done; then connections get [`Limits::drain`] to finish, and event streams end at once.
pub async fn serve(listener: TcpListener, api: Api, shutdown: impl Future<Output = ()>) {
    let limits = api.limits;
    let filter = routes(api);
    let places = Arc::new(Semaphore::new(limits.connections));
    let (stop, closing) = watch::channel(false);
    let mut connections = JoinSet::new();
    tokio::pin!(shutdown);
    loop {
        tokio::select! {
            biased;
            () = &mut shutdown => break,
            Some(_) = connections.join_next() => {}
            (place, stream, address) = accept(&listener, &places) => {
                let peer = Peer { address, closing: closing.clone() };
                connections.spawn(connection(stream, peer, filter.clone(), limits, place));
            }
        }
    }
    drop(listener);
    // Nobody may be connected.
    _ = stop.send(true);
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(limits.drain, drained).await.is_err() {
        debug!(connections = connections.len(), "Connections are cut.");
    }
    connections.shutdown().await;
}

/// The next connection that there is a place for.
async fn accept(listener: &TcpListener, places: &Arc<Semaphore>) -> (Option<OwnedSemaphorePermit>, TcpStream, std::net::SocketAddr) {
    // The semaphore is never closed.
    let place = places.clone().acquire_owned().await.ok();
    loop {
        match listener.accept().await {
            Ok((stream, address)) => return (place, stream, address),
            Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) => {}
            Err(error) => {
                warn!(%error, "No connection can be accepted.");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, peer: Peer, filter: BoxedFilter<(Response,)>, limits: Limits, place: Option<OwnedSemaphorePermit>) {
    let _place = place;
    // Without it small answers may wait for an acknowledgement; with it failing they are only slower.
    _ = stream.set_nodelay(true);
    let mut builder = auto::Builder::new(TokioExecutor::new()).http1_only();
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_time)
        .max_buf_size(limits.header_bytes)
        .max_headers(limits.headers);
    let service = TowerToHyperService::new(warp::service(filter));
    let mut closing = peer.closing.clone();
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(peer.clone());
        hyper::service::Service::call(&service, request)
    });
    let io = TokioIo::new(Idle::new(stream, limits.idle));
    let connection = builder.serve_connection(io, service);
    tokio::pin!(connection);
    let told_to_end = async { _ = closing.wait_for(|closing| *closing).await };
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = told_to_end => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(%error, "Connection ended.");
    }
}

/// A stream that fails when nothing has moved for a while.
struct Idle<S> {
    stream: S,
    limit: Duration,
    moved_at: Instant,
    alarm: Pin<Box<Sleep>>,
}

impl<S> Idle<S> {
    fn new(stream: S, limit: Duration) -> Self {
        let now = Instant::now();
        Self { stream, limit, moved_at: now, alarm: Box::pin(tokio::time::sleep_until(now + limit)) }
    }

    /// What an operation came to; one that has to wait fails when it has been too long. The alarm is set anew only when it goes off.
    fn watch<T>(&mut self, context: &mut Context<'_>, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.moved_at = Instant::now();
            return outcome;
        }
        loop {
            ready!(self.alarm.as_mut().poll(context));
            let due = self.moved_at + self.limit;
            if due <= Instant::now() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            self.alarm.as_mut().reset(due);
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Idle<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.watch(context, outcome)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Idle<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watch(context, outcome)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, context: &mut Context<'_>, parts: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.watch(context, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
