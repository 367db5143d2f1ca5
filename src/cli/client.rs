//! A connection to a server: over a unix socket on its own machine, where the operating system tells who asks, or over a URL with a password or a token.
//!
//! It sends JSON, reads JSON, streams bodies both ways and upgrades connections; what the bodies mean is its callers' business. Everything it waits for
//! has a limit, and every error says which server was tried and what can be done. It follows no redirect and uses no proxy: both could carry a password
//! to somebody else.

use std::{
    fmt, io,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream::BoxStream};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{
    Body, Method, RequestBuilder, Response, StatusCode,
    header::{ACCEPT, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, UPGRADE},
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

/// The longest JSON answer that is read, in bytes.
pub const MAX_ANSWER_BYTES: usize = 256 * 1024 * 1024;

/// The longest answer that is looked at when it is a refusal, in bytes.
const MAX_REFUSAL_BYTES: usize = 1024 * 1024;

/// How long a connection may take to come about.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// How long the server may take for its answer; its own limit is 25 s.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// How long an upload may stand still.
const STALL_LIMIT: Duration = Duration::from_secs(60);

/// How long the server may work on something large: before it begins to send it, or after it has all of it.
const WORK_LIMIT: Duration = Duration::from_secs(60 * 60);

const OR_ELSEWHERE: &str = ", or another server with -d NODE";

/// What may stand as it is in one segment of a path or one value of a query.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Something that is never shown: a password, or a token.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credentials {
    /// The socket tells, or the server asks for nothing.
    None,
    /// A name and a password.
    Password(String, Secret),
    /// What a log-in gave.
    Token(Secret),
}

/// Which of the two sockets in the server's directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// `xtao.sock`: who asks is the user of the operating system.
    User,
    /// `admin.sock`: who may open it is an administrator. Who may not is a user.
    Admin,
}

/// What a log-in gives.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct Login {
    /// For [`Credentials::Token`].
    #[serde(deserialize_with = "secret")]
    pub token: Secret,
    /// Who one is now.
    pub user: String,
    /// Whether everything may be done.
    #[serde(default)]
    pub admin: bool,
    /// When the token ends, as the server writes times.
    #[serde(default)]
    pub expires: Option<String>,
}

/// A stream of the bytes of a body.
pub type Bytestream = BoxStream<'static, Result<Bytes, ClientError>>;

/// A connection that has become the caller's own, after a request to upgrade it.
pub type Duplex = reqwest::Upgraded;

/// Why there is no answer, or not the one that was wanted. The text is for the person at the terminal.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// There is no socket, or nobody listens on it.
    #[error("no server answers on {} ({cause}); is 'xtao serve' running? Name its directory with --work_dir{hint}", socket.display())]
    NoServer {
        /// The socket.
        socket: PathBuf,
        /// In short.
        cause: String,
        /// What else may help.
        hint: &'static str,
    },
    /// The server does not answer.
    #[error("cannot reach the server at {server} ({cause}); is it running, and is that its address?")]
    Unreachable {
        /// Its address or socket.
        server: String,
        /// In short.
        cause: String,
    },
    /// The server does not know who asks, or does not believe it.
    #[error("{0}")]
    Unauthorized(String),
    /// The server says no, for the reason that it gives.
    #[error("{message}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The server's own words, with its details.
        message: String,
    },
    /// It is no server of ours, or one that is very different.
    #[error("{server} answers {what}, and not as a server of ours does: is the address right?")]
    Foreign {
        /// Its address or socket.
        server: String,
        /// What came instead.
        what: String,
    },
    /// The answer is too long.
    #[error("the answer of {server} is longer than {MAX_ANSWER_BYTES} bytes")]
    TooLong {
        /// Its address or socket.
        server: String,
    },
    /// The connection broke in the middle.
    #[error("the connection to {server} broke off ({cause})")]
    Broken {
        /// Its address or socket.
        server: String,
        /// In short.
        cause: String,
    },
    /// What was to be sent could not be read.
    #[error("{0}")]
    Source(io::Error),
    /// The address, or the file with certificates, cannot be used.
    #[error("{0}")]
    Bad(String),
}

/// A server, and who asks it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    base: String,
    socket: Option<Arc<Path>>,
    credentials: Credentials,
}

impl Client {
    /// The server of this machine, by the socket in its directory.
    ///
    /// # Errors
    /// [`ClientError::NoServer`] when nobody listens there.
    pub fn on_node(work_dir: &Path, role: Role) -> Result<Self, ClientError> {
        let admin = work_dir.join("admin.sock");
        let everybody = work_dir.join("xtao.sock");
        if role == Role::Admin && UnixStream::connect(&admin).is_ok() {
            return Self::on_socket(&admin);
        }
        match UnixStream::connect(&everybody) {
            Ok(_) => Self::on_socket(&everybody),
            // The commands of administrators are for this machine.
            Err(error) => {
                let hint = if role == Role::Admin { "" } else { OR_ELSEWHERE };
                Err(ClientError::NoServer { socket: everybody, cause: os_text(&error), hint })
            }
        }
    }

    /// True when the directory has a socket at all, whether or not somebody listens.
    pub fn has_socket(work_dir: &Path) -> bool {
        work_dir.join("xtao.sock").exists()
    }

    /// A server by its socket. Nothing is sent yet.
    ///
    /// # Errors
    /// [`ClientError::Bad`]
    pub fn on_socket(socket: &Path) -> Result<Self, ClientError> {
        let http = builder().unix_socket(socket.to_owned()).build().map_err(|error| ClientError::Bad(innermost(&error)))?;
        Ok(Self { http, base: "http://localhost".to_owned(), socket: Some(socket.into()), credentials: Credentials::None })
    }

    /// A server by its URL. `certificates` is a PEM file with authorities to be trusted besides the system's. Nothing is sent yet.
    ///
    /// # Errors
    /// [`ClientError::Bad`] for what is no URL of a server, and for certificates that cannot be read.
    pub fn at(url: &str, credentials: Credentials, certificates: Option<&Path>) -> Result<Self, ClientError> {
        let bad = |why: &str| ClientError::Bad(format!("'{url}' is no address of a server ({why}): write https://HOST:8443 or HOST:PORT"));
        let parsed = reqwest::Url::parse(url).map_err(|error| bad(&error.to_string()))?;
        if !matches!(parsed.scheme(), "http" | "https") || !parsed.has_host() {
            return Err(bad("only http and https are spoken"));
        }
        if !parsed.username().is_empty() || parsed.password().is_some() {
            return Err(ClientError::Bad("a name and password do not belong in an address: give --user".to_owned()));
        }
        let mut builder = builder();
        if let Some(file) = certificates {
            builder = builder.tls_certs_merge(authorities(file)?);
        }
        let http = builder.build().map_err(|error| ClientError::Bad(innermost(&error)))?;
        Ok(Self { http, base: url.trim_end_matches('/').to_owned(), socket: None, credentials })
    }

    /// The same server, asked by somebody else.
    pub fn with(mut self, credentials: Credentials) -> Self {
        self.credentials = credentials;
        self
    }

    /// The server, for messages: its socket or its address.
    pub fn server(&self) -> String {
        self.socket.as_ref().map_or_else(|| self.base.clone(), |socket| socket.display().to_string())
    }

    /// True when the operating system tells the server who asks.
    pub fn is_local(&self) -> bool {
        self.socket.is_some()
    }

    /// Exchanges a password for a token.
    ///
    /// # Errors
    /// [`ClientError::Unauthorized`] when the server does not accept them.
    pub async fn log_in(&self, user: &str, password: Secret) -> Result<Login, ClientError> {
        let asking = self.clone().with(Credentials::Password(user.to_owned(), password));
        asking.send(Method::POST, "/v2/auth/token", None).await
    }

    /// Sends a request with JSON or without a body; the answer is `null` where the server says nothing. Paths begin with `/` and are encoded already
    /// (see [`encode`]).
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, ClientError> {
        self.send(method, path, body).await
    }

    /// Reads one resource.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.send(Method::GET, path, None).await
    }

    /// Reads a resource that may be long or endless, as it comes. `accept` is the media type wanted. There is no limit on its length or duration, but
    /// for the hour until it begins: some are made first.
    ///
    /// # Errors
    /// See [`ClientError`]; later errors are in the stream.
    pub async fn stream(&self, path: &str, accept: &str) -> Result<Bytestream, ClientError> {
        let request = self.request(Method::GET, path).header(ACCEPT, accept);
        let response = self.accepted(self.headers_of(request, WORK_LIMIT).await?).await?;
        let server = self.server();
        let bytes = response.bytes_stream();
        Ok(bytes.map(move |part| part.map_err(|error| ClientError::Broken { server: server.clone(), cause: innermost(&error) })).boxed())
    }

    /// Sends a long body as it comes; `length` in bytes if it is known. The upload is given up when nothing moves for a
    /// minute, and the server may then work for an hour.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn upload<S>(&self, method: Method, path: &str, kind: &str, length: Option<u64>, body: S) -> Result<Value, ClientError>
    where
        S: Stream<Item = io::Result<Bytes>> + Send + 'static,
    {
        let moved = Arc::new(AtomicU64::new(0));
        let (counted, ended) = (moved.clone(), moved.clone());
        let body = body.inspect(move |_| _ = counted.fetch_add(1, Ordering::Relaxed));
        // All of it is on its way: from here on the server works.
        let end = futures_util::stream::poll_fn(move |_| {
            ended.store(u64::MAX, Ordering::Relaxed);
            std::task::Poll::Ready(None)
        });
        let mut request = self.request(method, path).header(CONTENT_TYPE, kind).body(Body::wrap_stream(body.chain(end)));
        if let Some(length) = length {
            request = request.header(CONTENT_LENGTH, length);
        }
        let mut sent = std::pin::pin!(request.send());
        let mut before = moved.load(Ordering::Relaxed);
        let response = loop {
            let limit = if before == u64::MAX { WORK_LIMIT } else { STALL_LIMIT };
            if let Ok(response) = tokio::time::timeout(limit, &mut sent).await {
                break response.map_err(|error| self.broken(&error))?;
            }
            let now = moved.load(Ordering::Relaxed);
            if now == before {
                let cause = format!("nothing happened for {} s", limit.as_secs());
                return Err(ClientError::Broken { server: self.server(), cause });
            }
            before = now;
        };
        self.read(self.accepted(response).await?).await
    }

    /// Asks for a connection of one's own, in the protocol `protocol`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn upgrade(&self, path: &str, body: &Value, protocol: &str) -> Result<Duplex, ClientError> {
        let request = self.request(Method::POST, path).json(body).header(CONNECTION, "Upgrade").header(UPGRADE, protocol);
        let response = self.accepted(self.headers_of(request, ANSWER_LIMIT).await?).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(ClientError::Foreign { server: self.server(), what: response.status().to_string() });
        }
        response.upgrade().await.map_err(|error| self.broken(&error))
    }

    async fn send<T: DeserializeOwned>(&self, method: Method, path: &str, body: Option<&Value>) -> Result<T, ClientError> {
        let mut request = self.request(method, path).timeout(ANSWER_LIMIT);
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await.map_err(|error| self.broken(&error))?;
        self.read(self.accepted(response).await?).await
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.base));
        match &self.credentials {
            Credentials::None => request,
            Credentials::Password(user, password) => request.basic_auth(user, Some(password.expose())),
            Credentials::Token(token) => request.bearer_auth(token.expose()),
        }
    }

    async fn headers_of(&self, request: RequestBuilder, limit: Duration) -> Result<Response, ClientError> {
        match tokio::time::timeout(limit, request.send()).await {
            Ok(response) => response.map_err(|error| self.broken(&error)),
            Err(_) => Err(ClientError::Unreachable { server: self.server(), cause: too_late(limit) }),
        }
    }

    /// The response, unless it is a refusal.
    async fn accepted(&self, mut response: Response) -> Result<Response, ClientError> {
        let status = response.status();
        if status.is_success() || status == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(response);
        }
        let mut text = Vec::new();
        let reading = async {
            while let Ok(Some(part)) = response.chunk().await {
                if text.len() + part.len() > MAX_REFUSAL_BYTES {
                    break;
                }
                text.extend_from_slice(&part);
            }
        };
        _ = tokio::time::timeout(ANSWER_LIMIT, reading).await;
        Err(self.refusal(status, &text))
    }

    async fn read<T: DeserializeOwned>(&self, mut response: Response) -> Result<T, ClientError> {
        let mut text = Vec::new();
        while let Some(part) = response.chunk().await.map_err(|error| self.broken(&error))? {
            if text.len() + part.len() > MAX_ANSWER_BYTES {
                return Err(ClientError::TooLong { server: self.server() });
            }
            text.extend_from_slice(&part);
        }
        let text = if text.is_empty() { b"null".as_slice() } else { &text };
        serde_json::from_slice(text)
            .map_err(|error| ClientError::Foreign { server: self.server(), what: format!("what is no answer ({error})") })
    }

    fn refusal(&self, status: StatusCode, text: &[u8]) -> ClientError {
        let body: Option<Value> = serde_json::from_slice(text).ok();
        let message = body.as_ref().and_then(|body| body["message"].as_str().map(|message| with_details(message, &body["details"])));
        match (status, message) {
            (StatusCode::UNAUTHORIZED, message) => {
                let why = message.map(|message| format!(" ({message})")).unwrap_or_default();
                ClientError::Unauthorized(match &self.credentials {
                    Credentials::None => format!("{} wants a user and password{why}: log in with --user NAME", self.server()),
                    Credentials::Password(user, _) => format!("{} does not accept user '{user}' with this password{why}", self.server()),
                    Credentials::Token(_) => format!("{} does not accept the token any more{why}: log in again", self.server()),
                })
            }
            (_, Some(message)) => ClientError::Refused { status: status.as_u16(), message },
            (_, None) => ClientError::Foreign { server: self.server(), what: status.to_string() },
        }
    }

    fn broken(&self, error: &reqwest::Error) -> ClientError {
        let cause = innermost(error);
        match &self.socket {
            Some(socket) if error.is_connect() => ClientError::NoServer { socket: socket.to_path_buf(), cause, hint: OR_ELSEWHERE },
            None if error.is_connect() => ClientError::Unreachable { server: self.server(), cause },
            _ if error.is_timeout() => ClientError::Unreachable { server: self.server(), cause: too_late(ANSWER_LIMIT) },
            _ => ClientError::Broken { server: self.server(), cause },
        }
    }
}

impl ClientError {
    /// The HTTP status of a refusal.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            Self::Unauthorized(_) => Some(401),
            _ => None,
        }
    }

    /// What a command of administrators says where the server says no more than that the caller may not.
    pub fn to_administrators(self) -> Self {
        match self {
            Self::Refused { status: 403, message } if message == "Not Authorized to perform this action!" => Self::Refused {
                status: 403,
                message: "this is for administrators: root, the members of the group 'xtao', and users who are administrators".to_owned(),
            },
            other => other,
        }
    }

    /// True when no answer came: another attempt may get one.
    pub fn is_silence(&self) -> bool {
        matches!(self, Self::NoServer { .. } | Self::Unreachable { .. } | Self::Broken { .. })
    }
}

/// One segment of a path, or one value of a query, as it may stand in a URL.
pub fn encode(text: &str) -> String {
    utf8_percent_encode(text, PLAIN).to_string()
}

/// Several segments; their slashes stay.
pub fn encode_path(path: &str) -> String {
    path.split('/').map(encode).collect::<Vec<_>>().join("/")
}

impl Secret {
    /// Hides `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, to be sent or compared and nothing else.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

fn secret<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Secret, D::Error> {
    String::deserialize(deserializer).map(Secret)
}

fn builder() -> reqwest::ClientBuilder {
    // The first one wins; it does not matter whose.
    _ = rustls::crypto::ring::default_provider().install_default();
    let agent = concat!("xtao/", env!("CARGO_PKG_VERSION"));
    reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).connect_timeout(CONNECT_LIMIT).user_agent(agent)
}

fn authorities(file: &Path) -> Result<Vec<reqwest::Certificate>, ClientError> {
    let bad = |why: String| ClientError::Bad(format!("cannot use the certificates in {}: {why}", file.display()));
    let text = std::fs::read(file).map_err(|error| bad(os_text(&error)))?;
    let found = reqwest::Certificate::from_pem_bundle(&text).map_err(|error| bad(innermost(&error)))?;
    if found.is_empty() { Err(bad("there are none in it; it must be PEM".to_owned())) } else { Ok(found) }
}

/// `Object is not valid: /cpus: must be positive; /mem: ...`. Details are a list of paths with errors, or one text.
fn with_details(message: &str, details: &Value) -> String {
    let one = |detail: &Value| {
        let path = detail["path"].as_str().filter(|path| !matches!(*path, "" | "/"));
        let errors: Vec<&str> = detail["errors"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let errors = errors.join(", ");
        path.map_or_else(|| errors.clone(), |path| format!("{path}: {errors}"))
    };
    let details = match details {
        Value::String(text) => text.clone(),
        Value::Array(list) => list.iter().map(one).filter(|text| !text.is_empty()).collect::<Vec<_>>().join("; "),
        _ => String::new(),
    };
    let text = if details.is_empty() { message.to_owned() } else { format!("{message}: {details}") };
    // What another user wrote may come along; it moves no cursor.
    text.chars().map(|letter| if letter.is_control() && letter != '\n' { '?' } else { letter }).collect()
}

fn too_late(limit: Duration) -> String {
    format!("no answer within {} s", limit.as_secs())
}

/// What really went wrong: `connection refused`, not `error sending request`.
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    match cause.downcast_ref::<io::Error>() {
        Some(error) => os_text(error),
        None => cause.to_string(),
    }
}

/// The system's text without its number.
fn os_text(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
}

#[cfg(test)]
pub(crate) mod testing;

#[cfg(test)]
mod tests;
