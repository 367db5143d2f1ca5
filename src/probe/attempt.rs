//! One run of one check: a connection of its own, no more read than is needed, no certificate verified (as Marathon does; a check tells nobody
//! anything). Where a page leads is followed for the checks that Mesos makes ([`follow`]), inside the time of the check, with a connection for each step.
//!
//! Those are made in the task's network, as Mesos does. Where nobody is reached in there, or the node does not let anybody in (without root's rights, with
//! a Docker elsewhere), the task's own address is tried from outside.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use hyper::{
    Request,
    body::{Body, Incoming},
    header,
};
use hyper_util::rt::TokioIo;
use rustls::{
    DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::CryptoProvider,
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpSocket, TcpStream},
};
use tokio_rustls::TlsConnector;

use super::{
    doubt, follow,
    target::{Action, Http, Place, Target, Within},
};
use crate::{
    model::{
        frame::{Channel, Frame},
        health::{CheckResult, ReadinessAnswer},
        id::{AgentId, TaskId},
        request::Asker,
    },
    runtime::node::{ExecRequest, NodeAccess, NodeError},
};

/// Of an answer that is to be preserved, so much is, bytes.
const MAX_BODY_BYTES: usize = 16 * 1024;

/// What a run came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Raw {
    /// An answer.
    Answer {
        /// Its status.
        status: u16,
        /// Its media type; may be empty.
        content_type: String,
        /// Its beginning, if that is of interest.
        body: String,
    },
    /// The connection stood.
    Connected,
    /// The command ended.
    Exit(i32),
    /// Nobody answered within this time.
    Silent(Duration),
    /// Something was in the way.
    Fault(doubt::Result),
}

impl Raw {
    fn broken(why: impl ToString) -> Self {
        Self::Fault(doubt::Result::Broken(why.to_string()))
    }

    fn unasked(why: impl ToString) -> Self {
        Self::Fault(doubt::Result::Unasked(why.to_string()))
    }
}

/// What makes attempts.
pub struct Attempts {
    nodes: Option<Arc<dyn NodeAccess>>,
    /// `None`: TLS cannot be set up, which no task can help.
    tls: Option<TlsConnector>,
}

impl Attempts {
    /// Commands run on `nodes`.
    pub fn new(nodes: Option<Arc<dyn NodeAccess>>) -> Self {
        Self { nodes, tls: connector() }
    }

    /// Makes one. Has no limit of time of its own.
    pub async fn run(&self, target: &Target) -> Raw {
        match &target.action {
            Action::Tcp(place) => match self.connect(place).await {
                Ok(_) => Raw::Connected,
                Err(error) => Raw::Fault(sort(&error)),
            },
            Action::Http(http) => self.http(http).await,
            Action::Command { task, agent, command } => self.command(task, agent, command).await,
        }
    }

    async fn http(&self, first: &Http) -> Raw {
        let mut next: Option<Http> = None;
        for _ in 0..=follow::MAX_REDIRECTS {
            let http = next.as_ref().unwrap_or(first);
            let (location, raw) = match self.page(http).await {
                Answer { raw, location: Some(location) } if first.follows => (location, raw),
                Answer { raw, .. } => return raw,
            };
            if !matches!(raw, Raw::Answer { status: 300..400, .. }) {
                return raw;
            }
            next = match follow::to(http, &first.place, &location).await {
                Ok(next) => Some(next),
                Err(result) => return Raw::Fault(result),
            };
        }
        Raw::Fault(doubt::Result::Bad(format!("the page leads on and on, more than {} times", follow::MAX_REDIRECTS)))
    }

    async fn page(&self, http: &Http) -> Answer {
        let stream = match self.connect(&http.place).await {
            Ok(stream) => stream,
            Err(error) => return Raw::Fault(sort(&error)).into(),
        };
        if !http.tls {
            return ask(stream, http).await;
        }
        let Some(tls) = &self.tls else { return Raw::unasked("TLS cannot be set up").into() };
        let address = stream.peer_addr().map_or(IpAddr::from([0, 0, 0, 0]), |address| address.ip());
        // A server elsewhere may have many names. The task itself is told none.
        let name = ServerName::try_from(http.place.name.clone()).ok().filter(|_| http.is_elsewhere);
        match tls.connect(name.unwrap_or(ServerName::IpAddress(address.into())), stream).await {
            Ok(stream) => ask(stream, http).await,
            Err(error) => Raw::Fault(sort_handshake(&error)).into(),
        }
    }

    async fn connect(&self, place: &Place) -> io::Result<TcpStream> {
        let stream = match (place.address, &place.within) {
            (Some(address), Some(within)) => self.connect_within(within, SocketAddr::new(address, place.port)).await?,
            (Some(address), None) => TcpStream::connect(SocketAddr::new(address, place.port)).await?,
            (None, _) => TcpStream::connect((place.name.as_str(), place.port)).await?,
        };
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    async fn connect_within(&self, within: &Within, address: SocketAddr) -> io::Result<TcpStream> {
        let own = if address.ip().is_loopback() { within.own } else { address.ip() };
        let outside = TcpStream::connect(SocketAddr::new(own, address.port()));
        let Some(nodes) = &self.nodes else { return outside.await };
        match nodes.socket(Some(&within.agent), &within.task, address.is_ipv6()).await {
            // As with Mesos: what listens on the container's own address alone is not well.
            Ok(socket) => TcpSocket::from_std_stream(socket.into()).connect(address).await,
            // Whoever is not reached from outside either may well be there.
            Err(error @ NodeError::Unavailable(_)) => outside.await.map_err(|_| io::Error::other(error)),
            Err(_) => outside.await,
        }
    }

    async fn command(&self, task: &TaskId, agent: &AgentId, command: &[String]) -> Raw {
        let Some(nodes) = &self.nodes else { return Raw::unasked("commands cannot be run on this cluster") };
        let request = ExecRequest { command: command.to_vec(), terminal: None, asker: Asker::Definition };
        let mut exec = match nodes.exec(Some(agent), task, request).await {
            Ok(exec) => exec,
            Err(NodeError::Unacceptable(why)) => return Raw::broken(why),
            Err(error) => return Raw::unasked(error),
        };
        // It has nothing to read. A command that has ended already does not want to know.
        _ = exec.input.send(Frame { channel: Channel::Stdin, payload: Vec::new() }).await;
        while let Some(frame) = exec.output.recv().await {
            if frame.channel == Channel::Exit {
                let code = String::from_utf8_lossy(&frame.payload).trim().parse();
                return code.map_or_else(|_| Raw::unasked("the command ended without an exit code"), Raw::Exit);
            }
        }
        Raw::unasked("the command was lost")
    }
}

/// What a page came to.
struct Answer {
    raw: Raw,
    /// Where it leads, if it does.
    location: Option<String>,
}

impl From<Raw> for Answer {
    fn from(raw: Raw) -> Self {
        Self { raw, location: None }
    }
}

/// Whose fault an error of the system is.
pub(super) fn sort(error: &io::Error) -> doubt::Result {
    let why = error.to_string();
    match error.raw_os_error() {
        Some(libc::ECONNREFUSED) => doubt::Result::Refused("connection refused".into()),
        Some(
            libc::EMFILE
            | libc::ENFILE
            | libc::ENOMEM
            | libc::ENOBUFS
            | libc::EADDRNOTAVAIL
            | libc::EADDRINUSE
            | libc::ENETUNREACH
            | libc::ENETDOWN
            | libc::EACCES
            | libc::EPERM
            | libc::EAGAIN,
        ) => doubt::Result::Unasked(why),
        Some(_) => doubt::Result::Broken(why),
        // Of no system call: the name could not be resolved.
        None => doubt::Result::Unasked(why),
    }
}

/// Whose fault it is that TLS does not come about. Marathon takes the weakest suites there are, and the library here has none of them: a server with nothing
/// else is not ill for that.
fn sort_handshake(error: &io::Error) -> doubt::Result {
    use rustls::{AlertDescription as Alert, Error};
    let of_tls = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    match of_tls {
        Some(
            Error::PeerIncompatible(_)
            | Error::AlertReceived(Alert::HandshakeFailure | Alert::InsufficientSecurity | Alert::ProtocolVersion),
        ) => doubt::Result::Unasked(format!(
            "TLS: {error}: the server has none of the suites that can be checked (TLS 1.3, or TLS 1.2 with ECDHE and AES-GCM or ChaCha20)"
        )),
        _ => doubt::Result::Broken(format!("TLS: {error}")),
    }
}

async fn ask(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, http: &Http) -> Answer {
    let (mut sender, connection) = match hyper::client::conn::http1::handshake(TokioIo::new(stream)).await {
        Ok(both) => both,
        Err(error) => return Raw::broken(error).into(),
    };
    let request = Request::get(http.path.as_str())
        .header(header::HOST, format!("{}:{}", http.place.name, http.place.port))
        .header(header::USER_AGENT, "xtao")
        .header(header::ACCEPT, "*/*")
        .header(header::CONNECTION, "close")
        .body(String::new());
    let request = match request {
        Ok(request) => request,
        Err(error) => return Raw::unasked(error).into(),
    };
    let exchange = async {
        let response = match sender.send_request(request).await {
            Ok(response) => response,
            Err(error) => return Raw::broken(format!("no answer: {}", root(&error))).into(),
        };
        let status = response.status().as_u16();
        let media_type = response.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let content_type = media_type.split(';').next().unwrap_or_default().trim().to_owned();
        let location = response.headers().get(header::LOCATION).map(|location| String::from_utf8_lossy(location.as_bytes()).into_owned());
        let body = if http.keep_body { beginning(response.into_body()).await } else { String::new() };
        Answer { raw: Raw::Answer { status, content_type, body }, location }
    };
    tokio::pin!(connection, exchange);
    tokio::select! {
        biased;
        answer = &mut exchange => answer,
        ended = &mut connection => match ended {
            // What it has received is still to be looked at.
            Ok(()) => exchange.await,
            Err(error) => Raw::broken(format!("no answer: {}", root(&error))).into(),
        },
    }
}

/// The innermost cause, which says most.
fn root(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(cause) = innermost.source() {
        innermost = cause;
    }
    innermost.to_string()
}

async fn beginning(mut body: Incoming) -> String {
    let mut bytes = Vec::new();
    while bytes.len() < MAX_BODY_BYTES {
        match std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
            Some(Ok(frame)) => bytes.extend_from_slice(&frame.into_data().unwrap_or_default()),
            Some(Err(_)) | None => break,
        }
    }
    bytes.truncate(MAX_BODY_BYTES);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What a run of a health check came to; `None`: an answer that is to be ignored.
pub fn outcome(raw: &Raw, action: &Action) -> Option<doubt::Result> {
    Some(match raw {
        Raw::Answer { status: 200..400, .. } | Raw::Connected | Raw::Exit(0) => doubt::Result::Passed,
        Raw::Answer { status: 100..200, .. } if matches!(action, Action::Http(http) if http.ignore_1xx) => return None,
        Raw::Answer { status, .. } => doubt::Result::Bad(status_text(*status)),
        Raw::Exit(code) => doubt::Result::Bad(format!("command exited with status {code}")),
        Raw::Silent(limit) => doubt::Result::Broken(silence(*limit)),
        Raw::Fault(result) => result.clone(),
    })
}

fn silence(limit: Duration) -> String {
    format!("no answer within {} s", limit.as_secs())
}

/// What a run of a generic check found. As with Mesos: who cannot be connected to is a result of a connection alone, and who does not answer in
/// time is none of any.
pub fn result(raw: &Raw, action: &Action) -> Option<CheckResult> {
    match (raw, action) {
        (Raw::Answer { status, .. }, _) => Some(CheckResult::Http(*status)),
        (Raw::Connected, _) => Some(CheckResult::Tcp(true)),
        (Raw::Exit(code), _) => Some(CheckResult::Exec(*code)),
        (Raw::Fault(doubt::Result::Refused(_) | doubt::Result::Broken(_)), Action::Tcp(_)) => Some(CheckResult::Tcp(false)),
        (Raw::Silent(_) | Raw::Fault(_), _) => None,
    }
}

/// `500 Internal Server Error`
fn status_text(status: u16) -> String {
    let reason = hyper::StatusCode::from_u16(status).ok().and_then(|code| code.canonical_reason());
    reason.map_or_else(|| status.to_string(), |reason| format!("{status} {reason}"))
}

/// What a run of a readiness check came to. Marathon shows an answer that did not come as 504.
pub fn readiness(raw: &Raw, http: &Http) -> ReadinessAnswer {
    let absent = |why: &str| ReadinessAnswer {
        ready: false,
        status: 504,
        content_type: "text/plain".into(),
        body: format!(
            "could not query {}://{}:{}{}: {why}",
            if http.tls { "https" } else { "http" },
            http.place.name,
            http.place.port,
            http.path
        ),
    };
    match raw {
        Raw::Answer { status, content_type, body } => ReadinessAnswer {
            ready: http.ready_codes.contains(status),
            status: *status,
            content_type: content_type.clone(),
            body: body.clone(),
        },
        Raw::Fault(doubt::Result::Bad(why) | doubt::Result::Refused(why) | doubt::Result::Broken(why) | doubt::Result::Unasked(why)) => {
            absent(why)
        }
        Raw::Silent(limit) => absent(&silence(*limit)),
        Raw::Fault(doubt::Result::Passed) | Raw::Connected | Raw::Exit(_) => absent("no answer"),
    }
}

fn connector() -> Option<TlsConnector> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = rustls::ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
    let config = versions.ok()?.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(provider)));
    let config = config.with_no_client_auth();
    Some(TlsConnector::from(Arc::new(config)))
}

/// Takes every certificate: a check asks whether the task answers, and trusts it with nothing.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
