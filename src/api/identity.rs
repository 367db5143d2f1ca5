//! Who asks. The one place where that is found out, once for each request, before anything is looked at or done.
//!
//! | comes through | with credentials | without |
//! | --- | --- | --- |
//! | the administrators' socket | who they say | the peer's account, as an administrator |
//! | the users' socket | who they say | the peer's account; root is an administrator |
//! | TCP, or TLS | who they say | nobody: 401, but see below |
//!
//! Without credentials a TCP request is the administrator in two cases: as long as the server listens on loopback only and nobody has a password
//! ([`Identity::is_open`]), so that Marathon's clients work at once; and with `--authentication off`. Credentials are Basic, `Bearer TOKEN`, or
//! `token=TOKEN` as DC/OS has it. Someone who reads the metrics alone is refused everywhere else. Someone who is locked is refused everywhere. `/ping` is
//! nobody's business and asked of nobody.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Instant,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use tokio::sync::OnceCell;
use tracing::{info, warn};
use warp::{
    Filter,
    filters::BoxedFilter,
    http::{HeaderMap, Method, StatusCode, header::AUTHORIZATION},
};

use super::{
    Api,
    access::{Access, Session},
    call::{Call, Peer},
    error::ApiError,
};
use crate::{
    auth::{
        accounts::AccountError,
        gate::{DEFAULT_TOKEN_LIFETIME, Gate, Known, Refusal},
        token::TokenKey,
    },
    model::{id::Owner, request::Origin, user::User},
};

/// Marathon's default of `--http_realm`.
const DEFAULT_REALM: &str = "Mesosphere";

/// Where a request came in, and what that says of who sent it.
#[derive(Clone, Debug)]
pub enum Source {
    /// Plain TCP.
    Tcp(SocketAddr),
    /// TLS.
    Tls(SocketAddr),
    /// A unix socket: the kernel says whose process is at the other end.
    Unix {
        /// Which one.
        door: Door,
        /// The user id.
        uid: u32,
        /// Its account.
        account: Result<Owner, AccountError>,
    },
}

/// The two unix sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// Whoever may open it is an administrator.
    Administrators,
    /// For everybody on the machine.
    Users,
}

impl Source {
    /// The client's address; `None` on a unix socket.
    pub fn address(&self) -> Option<IpAddr> {
        match self {
            Self::Tcp(address) | Self::Tls(address) => Some(address.ip()),
            Self::Unix { .. } => None,
        }
    }
}

/// How somebody was recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// Not at all: nobody is asked.
    Nothing,
    /// The account at the other end of a unix socket.
    Account,
    /// Name and password.
    Password,
    /// A token.
    Token,
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Who {
    /// The user.
    pub user: Owner,
    /// May do everything.
    pub admin: bool,
    /// Reads the metrics, and nothing else.
    pub monitor: bool,
    /// How that is known.
    pub by: By,
    /// When a token that was presented ends; `None`: nothing ends by itself.
    pub until: Option<Instant>,
}

/// What was decided about somebody who tried to log in, for the audit log. Requests of who is known already are not told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision<'a> {
    /// The name that was given, which may be nobody's; empty for a token that says nothing.
    pub user: &'a str,
    /// Where it came from: an address, or the account at the other end of a socket as `uid 1000`; empty if that is not known.
    pub from: &'a str,
    /// `None`: let in. Otherwise why not.
    pub refused: Option<String>,
}

/// Hears of every login and of every refusal. It is called on a request's way and must not wait.
pub trait AuditSink: Send + Sync {
    /// Takes note.
    fn decided(&self, decision: &Decision<'_>);
}

/// The server's log, until there is something better.
#[derive(Clone, Copy, Debug)]
pub struct LogSink;

impl AuditSink for LogSink {
    fn decided(&self, decision: &Decision<'_>) {
        let Decision { user, from, refused } = decision;
        let user = user.escape_debug();
        match refused {
            None => info!(%user, %from, "Logged in."),
            Some(reason) => warn!(%user, %from, %reason, "Login refused."),
        }
    }
}

/// What is asked of whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// False: `--authentication off`.
    pub authentication: bool,
    /// True when every TCP and TLS listener is on a loopback address.
    pub loopback_only: bool,
}

/// Finds out who asks.
pub struct Identity {
    rules: Rules,
    gate: Gate,
    sink: Arc<dyn AuditSink>,
    challenge: String,
}

impl Default for Identity {
    /// For a server on loopback: tokens end with the process.
    fn default() -> Self {
        let gate = Gate::new(TokenKey::random(), DEFAULT_TOKEN_LIFETIME, None);
        Self::new(Rules { authentication: true, loopback_only: true }, gate, Arc::new(LogSink))
    }
}

impl Identity {
    /// Asks by these rules, and tells `sink`.
    pub fn new(rules: Rules, gate: Gate, sink: Arc<dyn AuditSink>) -> Self {
        Self { rules, gate, sink, challenge: String::new() }.in_realm(DEFAULT_REALM)
    }

    /// With what browsers show when they ask for a password.
    pub fn in_realm(mut self, realm: &str) -> Self {
        self.challenge = format!("Basic realm=\"{realm}\"");
        self
    }

    /// The judge of passwords and tokens.
    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    /// True as long as nobody on TCP is asked for credentials because nobody could have any.
    pub fn is_open(&self, access: &Access) -> bool {
        self.rules.loopback_only && !self.gate.has_credentials() && !access.has_passwords()
    }

    /// Who sent a request with these headers. Without a connection it counts as TCP.
    ///
    /// # Errors
    /// 401 with a challenge: no credentials, or wrong ones. 403: a locked user, or an account without a name. 429: too many wrong ones.
    /// 503: too many logins at once.
    pub async fn who(&self, source: Option<&Source>, headers: &HeaderMap, access: &Access) -> Result<Who, ApiError> {
        let mut who = self.recognise(source, headers, access).await?;
        who.monitor = !who.admin && access.is_monitor(&who.user);
        Ok(who)
    }

    async fn recognise(&self, source: Option<&Source>, headers: &HeaderMap, access: &Access) -> Result<Who, ApiError> {
        let is_unix = matches!(source, Some(Source::Unix { .. }));
        if !is_unix && self.is_open(access) {
            return Ok(everybody());
        }
        if headers.contains_key(AUTHORIZATION) {
            return self.presented(source, headers, access).await.map(|(who, _)| who);
        }
        match source {
            Some(Source::Unix { door, uid, account }) => self.at_the_socket(*door, *uid, account, access),
            _ if !self.rules.authentication => Ok(everybody()),
            _ => Err(self.unauthorized("credentials are required: a user and a password, or a token")),
        }
    }

    /// Someone who logs in: by name and password whatever the rules are, or by the account at the other end of a socket.
    ///
    /// # Errors
    /// As [`Identity::who`]; 403 for a token, which must not prolong itself, and for an account that has no record to log in to.
    pub async fn login(&self, source: Option<&Source>, headers: &HeaderMap, access: &Access) -> Result<Known, ApiError> {
        if headers.contains_key(AUTHORIZATION) {
            let (who, known) = self.presented(source, headers, access).await?;
            if who.by == By::Token {
                return Err(forbidden("a token is given for a password, not for another token"));
            }
            if !known.fresh {
                // Known from an earlier request; but this is a login, and told as one.
                self.sink.decided(&Decision { user: known.user.as_str(), from: &from(source), refused: None });
            }
            return Ok(known);
        }
        let Some(Source::Unix { door, uid, account }) = source else {
            return Err(self.unauthorized("a user and a password are required"));
        };
        let who = self.at_the_socket(*door, *uid, account, access)?;
        let user = find(access, &who.user).ok_or_else(|| {
            forbidden(format!("'{0}' is not a user with a password; an administrator makes one: xtao auth password {0}", who.user))
        })?;
        Ok(Known { admin: user.admin, generation: user.generation, user: user.name, fresh: true, until: None })
    }

    async fn presented(&self, source: Option<&Source>, headers: &HeaderMap, access: &Access) -> Result<(Who, Known), ApiError> {
        let look_up = |name: &Owner| find(access, name);
        let address = source.and_then(Source::address);
        let Some(credentials) = Credentials::read(headers) else {
            return Err(self.unauthorized("credentials that cannot be read: give Basic, 'Bearer TOKEN' or 'token=TOKEN', once"));
        };
        let (name, by, outcome) = match &credentials {
            Credentials::Password(name, password) => {
                (name.as_str(), By::Password, self.gate.password(name, password, address, look_up).await)
            }
            Credentials::Token(token) => ("", By::Token, self.gate.token(token, look_up)),
        };
        let from = from(source);
        let tell = |refused| self.sink.decided(&Decision { user: name, from: &from, refused });
        match outcome {
            Ok(known) => {
                if known.fresh {
                    tell(None);
                }
                Ok((Who { user: known.user.clone(), admin: known.admin, monitor: false, by, until: known.until }, known))
            }
            Err(refusal) => {
                tell(Some(refusal.to_string()));
                Err(self.refuse(refusal))
            }
        }
    }

    /// Root cannot be locked out of its own machine: it could read and change everything anyway.
    fn at_the_socket(&self, door: Door, uid: u32, account: &Result<Owner, AccountError>, access: &Access) -> Result<Who, ApiError> {
        let name = account.clone().map_err(|error| forbidden(error.to_string()))?;
        let user = find(access, &name);
        if uid != 0 && user.as_ref().is_some_and(|user| user.locked) {
            self.sink.decided(&Decision { user: name.as_str(), from: &format!("uid {uid}"), refused: Some(Refusal::Locked.to_string()) });
            return Err(forbidden(format!("user '{name}' is locked")));
        }
        let admin = uid == 0 || door == Door::Administrators || user.is_some_and(|user| user.admin);
        Ok(Who { user: name, admin, monitor: false, by: By::Account, until: None })
    }

    /// [`Identity::who`], once for each request however often it is asked.
    async fn of(&self, peer: Option<&Peer>, headers: &HeaderMap, access: &Access) -> Result<Who, ApiError> {
        match peer {
            Some(peer) => peer.asked.get_or_init(|| self.who(Some(&peer.source), headers, access)).await.clone(),
            None => self.who(None, headers, access).await,
        }
    }
}

/// Where somebody comes from, for the audit log.
fn from(source: Option<&Source>) -> String {
    match source {
        Some(Source::Unix { uid, .. }) => format!("uid {uid}"),
        Some(other) => other.address().map(|address| address.to_string()).unwrap_or_default(),
        None => String::new(),
    }
}

impl Identity {
    fn unauthorized(&self, message: &str) -> ApiError {
        ApiError::unauthorized(message, &self.challenge)
    }

    /// That a user is locked is told only to who was recognised by the kernel: to others it would confirm the password.
    fn refuse(&self, refusal: Refusal) -> ApiError {
        match refusal {
            Refusal::Wrong | Refusal::Locked => self.unauthorized(&Refusal::Wrong.to_string()),
            Refusal::Token => self.unauthorized(&refusal.to_string()),
            Refusal::TooMany(wait) => ApiError::too_many(refusal.to_string(), wait),
            Refusal::Busy => ApiError::unavailable(refusal.to_string()),
        }
    }
}

/// What [`Identity::of`] remembers.
pub type Asked = Arc<OnceCell<Result<Who, ApiError>>>;

/// Finds out who sent `call` and writes it down there.
///
/// # Errors
/// See [`Identity::who`]. 403 also for who reads the metrics alone, and asks for something else.
pub async fn ask(api: &Api, call: &mut Call) -> Result<(), ApiError> {
    let who = api.identity.of(call.peer.as_ref(), &call.headers, &api.access).await?;
    let refused = who.monitor && !is_a_monitors(call, &who.user);
    call.who = Some(who);
    call.trail.of_origin(origin(call));
    if refused { Err(forbidden("this user reads the metrics, and nothing else")) } else { Ok(()) }
}

/// The metrics, who one is, and the own password.
fn is_a_monitors(call: &Call, user: &Owner) -> bool {
    match call.segments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["metrics"] | ["metrics", "prometheus"] | ["v2", "auth", "whoami"] => call.is_read(),
        ["v2", "auth", "users", name] => call.method == Method::PUT && name == user.as_str(),
        _ => false,
    }
}

/// Who asks; nobody without any right before [`ask`] was called.
pub fn origin(call: &Call) -> Origin {
    let (user, admin) = call.who.as_ref().map_or_else(|| (Owner::new(""), false), |who| (who.user.clone(), who.admin));
    Origin { user, admin, client_ip: call.client_ip(), uri: call.path().clone() }
}

/// What an answer to `call` goes on for, when it goes on for long.
pub fn session(api: &Api, call: &Call) -> Session {
    let who = call.who.as_ref();
    api.access.session(&origin(call), who.is_some_and(|who| who.by != By::Nothing), who.and_then(|who| who.until))
}

/// For what is mounted beside our own routes: who asks. Rejects what [`ask`] refuses; our own routes then say so.
pub fn filter(api: &Api) -> BoxedFilter<(Origin,)> {
    let api = (api.identity.clone(), api.access.clone());
    warp::ext::optional::<Peer>()
        .and(warp::header::headers_cloned())
        .and(warp::path::full())
        .and_then(move |peer: Option<Peer>, headers: HeaderMap, path: warp::path::FullPath| {
            let (identity, access) = api.clone();
            async move {
                let who = identity.of(peer.as_ref(), &headers, &access).await.map_err(|_| warp::reject())?;
                if who.monitor {
                    return Err(warp::reject());
                }
                let client_ip = Peer::client_ip(peer.as_ref());
                Ok::<_, warp::Rejection>(Origin { user: who.user, admin: who.admin, client_ip, uri: path.as_str().into() })
            }
        })
        .boxed()
}

fn everybody() -> Who {
    Who { user: Owner::default_owner(), admin: true, monitor: false, by: By::Nothing, until: None }
}

fn find(access: &Access, name: &Owner) -> Option<User> {
    access.user(name)
}

fn forbidden(message: impl Into<String>) -> ApiError {
    ApiError::new(StatusCode::FORBIDDEN, message)
}

/// What the `Authorization` header holds.
enum Credentials {
    Password(String, String),
    Token(String),
}

impl Credentials {
    /// `None`: nothing that we know, or more than one.
    fn read(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let (value, None) = (values.next()?.to_str().ok()?.trim(), values.next()) else { return None };
        if let Some(token) = value.strip_prefix("token=") {
            return Some(Self::Token(token.trim().trim_matches('"').to_owned()));
        }
        let (scheme, rest) = value.split_once(' ')?;
        if scheme.eq_ignore_ascii_case("bearer") {
            return Some(Self::Token(rest.trim().to_owned()));
        }
        if !scheme.eq_ignore_ascii_case("basic") {
            return None;
        }
        let text = String::from_utf8(STANDARD.decode(rest.trim()).ok()?).ok()?;
        let (name, password) = text.split_once(':')?;
        Some(Self::Password(name.to_owned(), password.to_owned()))
    }
}

#[cfg(test)]
mod tests;
