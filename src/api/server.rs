//! The accept loop: connections, their limits and their end.
//!
//! HTTP/1.1 over TCP, TLS and unix sockets alike. warp's own server has neither limits nor time-outs, so only its service is used. A connection is
//! closed when nothing has been sent or received for [`Limits::idle`](super::Limits::idle): that covers clients that say nothing, that never finish
//! their headers or body, and that never read their answer. Event streams live on through their signs of life; other connections that may be silent
//! hold their `patience`. A connection that goes on in another protocol (`Upgrade`) leaves this loop and gives its place back: what runs on it has
//! limits of its own.

use std::{
    io,
    pin::{Pin, pin},
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
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::JoinSet,
    time::{Instant, Sleep},
};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, warn};
use warp::filters::BoxedFilter;

use super::{
    Api, Limits, Response,
    call::Peer,
    identity::{Door, Source},
    patience::Patience,
    quiet::Quiet,
    routes,
};
use crate::auth::accounts;

/// After an error of `accept` that is not about one connection (no file descriptors left), the next attempt waits this long.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How many headers hyper takes if it is not told. With this number its lists need no memory of their own for each request.
const HYPERS_HEADERS: usize = 100;

/// What TLS is accepted with; another one when there is another certificate.
pub type Acceptors = watch::Receiver<TlsAcceptor>;

/// Where connections come from.
pub enum Listener {
    /// Plain HTTP.
    Tcp(TcpListener),
    /// HTTP over TLS.
    Tls(TcpListener, Acceptors),
    /// A unix socket: the peer's account comes with the connection.
    Unix(UnixListener, Door),
}

impl From<TcpListener> for Listener {
    fn from(listener: TcpListener) -> Self {
        Self::Tcp(listener)
    }
}

/// Serves until `shutdown` is done; then connections get [`Limits::drain`] to finish, and event streams end at once.
pub async fn serve(listener: impl Into<Listener>, api: Api, shutdown: impl Future<Output = ()>) {
    let limits = api.limits;
    serve_filter(listener, routes(api), limits, shutdown).await;
}

/// Serves any filter in the same way and within the same limits, which are each listener's own: a crowd at one door does not close the others.
pub async fn serve_filter(
    listener: impl Into<Listener>,
    filter: BoxedFilter<(Response,)>,
    limits: Limits,
    shutdown: impl Future<Output = ()>,
) {
    let listener = listener.into();
    let places = Arc::new(Semaphore::new(limits.connections));
    let (stop, closing) = watch::channel(false);
    let mut connections = JoinSet::new();
    tokio::pin!(shutdown);
    loop {
        tokio::select! {
            biased;
            () = &mut shutdown => break,
            Some(_) = connections.join_next() => {}
            (place, caller) = accept(&listener, &places) => {
                connections.spawn(receive(caller, closing.clone(), filter.clone(), limits, place));
            }
        }
    }
    drop((listener, closing));
    // Nobody may be connected.
    _ = stop.send(true);
    let drained = async {
        while connections.join_next().await.is_some() {}
        // Conversations that have left HTTP hold on to it until they have said why they end.
        stop.closed().await;
    };
    if tokio::time::timeout(limits.drain, drained).await.is_err() {
        debug!(connections = connections.len(), "Connections are cut.");
    }
    connections.shutdown().await;
}

/// Somebody who has just connected.
enum Caller {
    Tcp(TcpStream, Source),
    Tls(TcpStream, Source, TlsAcceptor),
    Unix(UnixStream, Door),
}

/// The next connection that there is a place for.
async fn accept(listener: &Listener, places: &Arc<Semaphore>) -> (Option<OwnedSemaphorePermit>, Caller) {
    // The semaphore is never closed.
    let place = places.clone().acquire_owned().await.ok();
    loop {
        let accepted = match listener {
            Listener::Tcp(tcp) => tcp.accept().await.map(|(stream, address)| Caller::Tcp(stream, Source::Tcp(address))),
            Listener::Tls(tcp, acceptors) => {
                tcp.accept().await.map(|(stream, address)| Caller::Tls(stream, Source::Tls(address), acceptors.borrow().clone()))
            }
            Listener::Unix(unix, door) => unix.accept().await.map(|(stream, _)| Caller::Unix(stream, *door)),
        };
        match accepted {
            Ok(caller) => return (place, caller),
            Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) => {}
            Err(error) => {
                warn!(%error, "No connection can be accepted.");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Any kind of connection: one kind for all keeps the service compiled once.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// From a connection to its first request: greets by TLS, or finds out whose process it is.
async fn receive(
    caller: Caller,
    closing: watch::Receiver<bool>,
    filter: BoxedFilter<(Response,)>,
    limits: Limits,
    place: Option<OwnedSemaphorePermit>,
) {
    // Without nodelay small answers may wait for an acknowledgement; with it failing they are only slower.
    let (stream, source): (Box<dyn Stream>, Source) = match caller {
        Caller::Tcp(stream, source) => {
            _ = stream.set_nodelay(true);
            keep_alive(&stream);
            (Box::new(stream), source)
        }
        Caller::Tls(stream, source, acceptor) => {
            _ = stream.set_nodelay(true);
            keep_alive(&stream);
            match tokio::time::timeout(limits.header_time, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => (Box::new(stream), source),
                Ok(Err(error)) => return debug!(%error, ?source, "No TLS."),
                Err(_) => return debug!(?source, "No TLS in time."),
            }
        }
        Caller::Unix(stream, door) => match whose(&stream, door).await {
            Ok(source) => (Box::new(stream), source),
            Err(error) => return warn!(%error, "A peer on a unix socket cannot be told."),
        },
    };
    connection(stream, &source, closing, filter, limits).await;
    drop(place);
}

/// A client that is gone without a word is noticed, also on a connection that may be silent.
fn keep_alive(stream: &TcpStream) {
    let often = TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(15)).with_retries(4);
    // Without it such a connection only stays longer.
    _ = SockRef::from(stream).set_tcp_keepalive(&often);
}

/// The account at the other end, as of the moment of its connect.
async fn whose(stream: &UnixStream, door: Door) -> io::Result<Source> {
    let uid = stream.peer_cred()?.uid();
    // The system's database may be somewhere on the network.
    let account = tokio::task::spawn_blocking(move || accounts::name_of(uid)).await.map_err(io::Error::other)?;
    Ok(Source::Unix { door, uid, account })
}

async fn connection(
    stream: Box<dyn Stream>,
    source: &Source,
    mut closing: watch::Receiver<bool>,
    filter: BoxedFilter<(Response,)>,
    limits: Limits,
) {
    let mut builder = auto::Builder::new(TokioExecutor::new()).http1_only();
    builder.http1().timer(TokioTimer::new()).header_read_timeout(limits.header_time).max_buf_size(limits.header_bytes);
    if limits.headers != HYPERS_HEADERS {
        builder.http1().max_headers(limits.headers);
    }
    let service = TowerToHyperService::new(warp::service(filter));
    let requests_closing = closing.clone();
    let patience = Patience::default();
    let requests_patience = patience.clone();
    let ip = Peer::ip_of(source);
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(Peer {
            source: source.clone(),
            ip: ip.clone(),
            closing: requests_closing.clone(),
            asked: Arc::default(),
            patience: requests_patience.clone(),
        });
        hyper::service::Service::call(&service, request)
    });
    let io = TokioIo::new(Idle::new(stream, limits.idle, patience));
    let connection = pin!(builder.serve_connection_with_upgrades(io, service));
    let mut connection = Quiet::new(connection);
    let told_to_end = async { _ = closing.wait_for(|closing| *closing).await };
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = told_to_end => {
            connection.get_mut().as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(%error, "Connection ended.");
    }
}

/// A stream that fails when nothing has moved for a while. With [`Patience`] it fails only when what is sent is not taken.
struct Idle<S> {
    stream: S,
    limit: Duration,
    patience: Patience,
    moved_at: Instant,
    /// Since when something waits to be sent.
    stuck_since: Option<Instant>,
    alarm: Pin<Box<Sleep>>,
}

impl<S> Idle<S> {
    fn new(stream: S, limit: Duration, patience: Patience) -> Self {
        let now = Instant::now();
        Self { stream, limit, patience, moved_at: now, stuck_since: None, alarm: Box::pin(tokio::time::sleep_until(now + limit)) }
    }

    /// What an operation came to; one that has to wait fails when it has been too long. The alarm is set anew only when it goes off.
    fn watch<T>(&mut self, context: &mut Context<'_>, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.moved_at = Instant::now();
            return outcome;
        }
        loop {
            ready!(self.alarm.as_mut().poll(context));
            let now = Instant::now();
            let since = if self.patience.is_held() { self.stuck_since.unwrap_or(now) } else { self.moved_at };
            let due = since + self.limit;
            if due <= now {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            self.alarm.as_mut().reset(due);
        }
    }
}

impl<S> Idle<S> {
    fn watch_write<T>(&mut self, context: &mut Context<'_>, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.stuck_since = None;
        } else {
            self.stuck_since.get_or_insert_with(Instant::now);
        }
        self.watch(context, outcome)
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
        self.watch_write(context, outcome)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, context: &mut Context<'_>, parts: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.watch_write(context, outcome)
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

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        sync::oneshot,
    };

    use super::*;
    use crate::api::testing::{Server, World};

    async fn listening(limits: Limits) -> (std::net::SocketAddr, oneshot::Sender<()>, tokio::task::JoinHandle<()>) {
        let api = Server::with_limits(World::default(), limits).api;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        (address, stop, tokio::spawn(serve(listener, api, async { _ = stopped.await })))
    }

    /// What comes back until the server closes the connection.
    async fn exchange(address: std::net::SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // The server may answer, and close, before it has read everything.
        _ = stream.write_all(request.as_bytes()).await;
        let mut answer = Vec::new();
        _ = stream.read_to_end(&mut answer).await;
        String::from_utf8(answer).unwrap()
    }

    #[tokio::test]
    async fn a_connection_that_says_nothing_is_closed() {
        let (address, _stop, _server) = listening(Limits { idle: Duration::from_millis(20), ..Limits::default() }).await;
        assert_eq!(exchange(address, "").await, "");
        assert_eq!(exchange(address, "GET /ping HTTP/1.1\r\nHost: loc").await, "");
    }

    #[tokio::test]
    async fn a_held_connection_may_be_silent_but_must_take_what_is_sent() {
        let limit = Duration::from_millis(20);
        let (ours, _theirs) = tokio::io::duplex(8);
        let patience = Patience::default();
        let hold = patience.hold();
        let mut idle = Idle::new(ours, limit, patience);
        let silence = tokio::time::timeout(limit * 5, idle.read_u8()).await;
        assert!(silence.is_err(), "it was cut: {silence:?}");
        let stuck = idle.write_all(&[0; 100]).await.unwrap_err();
        assert_eq!(stuck.kind(), io::ErrorKind::TimedOut);
        drop(hold);
        assert_eq!(idle.read_u8().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn a_body_that_never_comes_is_not_waited_for() {
        let (address, _stop, _server) = listening(Limits { request_time: Duration::from_millis(20), ..Limits::default() }).await;
        let answer = exchange(address, "POST /v2/apps HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n{").await;
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    }

    #[tokio::test]
    async fn a_body_in_many_pieces_is_read_to_its_end() {
        let (address, _stop, _server) = listening(Limits::default()).await;
        let body = " ".repeat(1 << 20) + "{";
        let chunked = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
        for (header, body) in [(format!("Content-Length: {}", body.len()), &body), ("Transfer-Encoding: chunked".to_owned(), &chunked)] {
            let answer =
                exchange(address, &format!("POST /v2/apps HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{header}\r\n\r\n{body}"))
                    .await;
            assert!(answer.starts_with("HTTP/1.1 400 "), "{header}: {answer}");
        }
    }

    #[tokio::test]
    async fn headers_have_a_limit() {
        let (address, _stop, _server) = listening(Limits::default()).await;
        let many = "X: y\r\n".repeat(200);
        assert!(exchange(address, &format!("GET /ping HTTP/1.1\r\n{many}\r\n")).await.starts_with("HTTP/1.1 431 "));
        // Cut off while it still sends, the client may lose the answer; it is never served.
        let long = "y".repeat(200_000);
        assert!(!exchange(address, &format!("GET /ping HTTP/1.1\r\nX: {long}\r\n\r\n")).await.contains("pong"));
    }

    #[tokio::test]
    async fn a_connection_without_a_place_waits_for_one() {
        let (address, _stop, _server) = listening(Limits { connections: 1, ..Limits::default() }).await;
        let first = TcpStream::connect(address).await.unwrap();
        let second = tokio::spawn(exchange(address, "GET /ping HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"));
        drop(first);
        assert!(second.await.unwrap().ends_with("pong"));
    }

    #[tokio::test]
    async fn the_server_stops_when_it_is_told() {
        let (address, stop, server) = listening(Limits { drain: Duration::from_millis(20), ..Limits::default() }).await;
        let _kept_open = TcpStream::connect(address).await.unwrap();
        assert!(exchange(address, "GET /ping HTTP/1.0\r\n\r\n").await.ends_with("pong"));
        stop.send(()).unwrap();
        server.await.unwrap();
        assert!(TcpStream::connect(address).await.is_err());
    }
}
