//! Which server a command talks to, and as whom.
//!
//! On a node it is the server's socket, and nobody is asked: the operating system says who it is. Elsewhere, or when another user is named, it is a
//! log-in: a name, a password, and a token for them that is kept until it ends (see [`tokens`](super::tokens)).
//!
//! A password or token never goes over plain HTTP to another machine, unless `--insecure` says so.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
};

use clap::Args;
use reqwest::Url;
use serde_json::Value;

use super::{
    client::{Client, ClientError, Credentials, Role, Secret, encode},
    terminal::{self, AskError},
    tokens::Tokens,
};

/// Where a server's directory is, unless somebody says otherwise.
pub const WORK_DIR: &str = "/var/lib/xtao";

/// Where a server may listen when it has no socket on this machine: in a container, or as a forwarded port.
const NEAR: &str = "http://127.0.0.1:8080";

/// How often a person may try a password in one command.
const MAX_TRIES: usize = 3;

/// The options of every command that talks to a server.
#[derive(Clone, Debug, Default, Args)]
pub struct Reach {
    /// the address of the operating destination: HOST, HOST:PORT or a URL; without it, the server of this machine
    #[arg(
        short = 'd',
        long = "node",
        alias = "url",
        env = "XTAO_NODE",
        value_name = "NODE",
        num_args = 0..=1,
        default_missing_value = "",
        hide_env_values = true,
        global = true,
        display_order = 1
    )]
    pub node: Option<String>,
    /// the directory of the server on this machine, where its sockets are [default: /var/lib/xtao]
    #[arg(
        long = "work_dir",
        alias = "work-dir",
        env = "XTAO_WORK_DIR",
        value_name = "DIR",
        hide_env_values = true,
        hide_short_help = true,
        global = true,
        help_heading = "Server"
    )]
    pub work_dir: Option<PathBuf>,
    /// log in as this user, also where the account says who it is; the password is asked, or taken from XTAO_PASSWORD
    #[arg(long, env = "XTAO_USER", hide_env_values = true, hide_short_help = true, global = true, help_heading = "Server")]
    pub user: Option<String>,
    /// trust the authorities in this PEM file besides the system's
    #[arg(
        long,
        env = "XTAO_CACERT",
        value_name = "FILE",
        hide_env_values = true,
        hide_short_help = true,
        global = true,
        help_heading = "Server"
    )]
    pub cacert: Option<PathBuf>,
    /// send the password in the clear, when the address is plain HTTP on another machine
    #[arg(long, hide_short_help = true, global = true, help_heading = "Server")]
    pub insecure: bool,
    /// A password that is known already; otherwise XTAO_PASSWORD, or a question.
    #[arg(skip)]
    pub password: Option<Secret>,
}

/// When to ask for a password although nobody has to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogIn {
    /// Only where the server wants one, and no token is there.
    IfNeeded,
    /// A person at a terminal wants to check it: also where a token is there, and on a node when this user has one.
    ToCheck,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The server does not answer, or not as wanted.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A question had no answer.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// Nothing says where a server is.
    #[error(
        "there is no server on this machine (no {}, and nothing answers on {NEAR}): name one with -d NODE, or its directory with --work_dir",
        socket.display()
    )]
    Nowhere {
        /// The socket that is not there.
        socket: PathBuf,
    },
    /// The address cannot be used.
    #[error("{0}")]
    Bad(String),
}

impl Reach {
    /// The server's directory.
    pub fn work_dir(&self) -> &Path {
        self.work_dir.as_deref().unwrap_or(Path::new(WORK_DIR))
    }

    /// A connection on which commands may be sent. Asks what must be asked.
    ///
    /// # Errors
    /// [`ConnectError`]
    pub async fn connect(&self, role: Role, log_in: LogIn, tokens: &Tokens) -> Result<Client, ConnectError> {
        let node = self.node.as_deref().map(str::trim).filter(|node| !node.is_empty());
        match node {
            Some(node) => self.elsewhere(&address(node)?, log_in, tokens).await,
            None if self.work_dir.is_some() || Client::has_socket(self.work_dir()) => self.here(role, log_in).await,
            None => match self.elsewhere(NEAR, log_in, tokens).await {
                Err(ConnectError::Client(error)) if error.is_silence() => {
                    Err(ConnectError::Nowhere { socket: self.work_dir().join("xtao.sock") })
                }
                connected => connected,
            },
        }
    }

    async fn here(&self, role: Role, log_in: LogIn) -> Result<Client, ConnectError> {
        let client = Client::on_node(self.work_dir(), role)?;
        if self.user.is_none() && !(log_in == LogIn::ToCheck && terminal::is_present() && has_password(&client).await?) {
            return Ok(client);
        }
        let (_, token) = self.ask(&client).await?;
        Ok(client.with(Credentials::Token(token)))
    }

    async fn elsewhere(&self, url: &str, log_in: LogIn, tokens: &Tokens) -> Result<Client, ConnectError> {
        let client = Client::at(url, Credentials::None, self.cacert.as_deref())?;
        if let Some((_, token)) = tokens.find(url, self.user.as_deref()).filter(|_| log_in == LogIn::IfNeeded && self.may_send(url)) {
            let known = client.clone().with(Credentials::Token(token));
            match who(&known).await {
                Err(ClientError::Unauthorized(_)) => _ = tokens.forget(url),
                Err(error) => return Err(error.into()),
                Ok(_) => return Ok(known),
            }
        }
        // Before anything is asked: is the server there, and does it want to know?
        match who(&client).await {
            Err(ClientError::Unauthorized(_)) => {}
            Err(error) => return Err(error.into()),
            Ok(_) if self.user.is_none() => return Ok(client),
            Ok(_) => {}
        }
        if !self.may_send(url) {
            return Err(ConnectError::Bad(format!(
                "the password would go to {url} in the clear: use https (-d https://HOST:8443), or allow it with --insecure"
            )));
        }
        let (user, token) = self.ask(&client).await?;
        if let Err(error) = tokens.keep(url, &user, &token) {
            terminal::note(&format!("warning: the log-in cannot be remembered: {error}"));
        }
        Ok(client.with(Credentials::Token(token)))
    }

    fn may_send(&self, url: &str) -> bool {
        let Ok(url) = Url::parse(url) else { return false };
        self.insecure || url.scheme() == "https" || url.host_str().is_some_and(is_loopback)
    }

    /// A name and a password, until the server accepts them or the person gives up.
    async fn ask(&self, client: &Client) -> Result<(String, Secret), ConnectError> {
        let given = self.password.clone().or_else(|| std::env::var("XTAO_PASSWORD").ok().map(Secret::new));
        let tries = if terminal::is_present() && given.is_none() { MAX_TRIES } else { 1 };
        let mut tried = 0;
        loop {
            tried += 1;
            let user = match &self.user {
                Some(user) => user.clone(),
                None => terminal::ask("User:")?.trim().to_owned(),
            };
            let password = match &given {
                Some(password) => password.clone(),
                None => terminal::ask_hidden("Password:")?,
            };
            match client.log_in(&user, password).await {
                Ok(login) => return Ok((login.user, login.token)),
                Err(error @ ClientError::Unauthorized(_)) if tried < tries => terminal::note(&format!("{error}")),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Who the server says one is. A server that knows no users serves everybody.
async fn who(client: &Client) -> Result<Value, ClientError> {
    match client.get("/v2/auth/whoami").await {
        Err(ClientError::Refused { status: 404, .. }) => Ok(Value::Null),
        answer => answer,
    }
}

async fn has_password(client: &Client) -> Result<bool, ClientError> {
    let me = who(client).await?;
    let Some(name) = me["user"].as_str() else { return Ok(false) };
    match client.get::<Value>(&format!("/v2/auth/users/{}", encode(name))).await {
        Err(ClientError::Refused { status: 403 | 404, .. }) => Ok(false),
        user => Ok(user?["password"] == true),
    }
}

/// The URL for what a person writes. Without a scheme it is HTTPS, unless it is this machine, or a port other than 8443 is given. Without a port it is
/// 8443 for HTTPS and 8080 otherwise.
///
/// # Errors
/// [`ConnectError::Bad`] names the word.
pub fn address(node: &str) -> Result<String, ConnectError> {
    let bad = |why: &str| ConnectError::Bad(format!("-d '{node}' is no address ({why}): write HOST, HOST:PORT or https://HOST:PORT"));
    if node.contains("://") {
        return Ok(node.trim_end_matches('/').to_owned());
    }
    let (host, port) = match node.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, port)) => (format!("[{host}]"), port.strip_prefix(':')),
        // An IPv6 address without brackets has no port.
        None if node.matches(':').count() > 1 => (format!("[{node}]"), None),
        None => node.split_once(':').map_or((node.to_owned(), None), |(host, port)| (host.to_owned(), Some(port))),
    };
    let port = match port {
        Some(port) => Some(port.parse::<u16>().map_err(|_| bad(&format!("'{port}' is no port")))?),
        None => None,
    };
    let letters = |letter: char| letter.is_ascii_alphanumeric() || ".-_[]:".contains(letter);
    if host.is_empty() || !host.chars().all(letters) {
        return Err(bad(&format!("'{host}' is no name of a machine")));
    }
    let is_plain = match port {
        Some(port) => port != 8443,
        None => is_loopback(&host),
    };
    let (scheme, usual) = if is_plain { ("http", 8080) } else { ("https", 8443) };
    Ok(format!("{scheme}://{host}:{}", port.unwrap_or(usual)))
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cli::client::testing::{Fake, answer};

    #[test]
    fn an_address_is_as_short_as_a_person_writes_it() {
        let check = |node: &str, expected: &str| {
            let found = address(node).unwrap_or_else(|error| error.to_string());
            assert!(found == expected || found.contains(expected) && expected.contains('\''), "{node}: {found}");
        };
        check("compute1", "https://compute1:8443");
        check("compute1:8443", "https://compute1:8443");
        check("compute1:8080", "http://compute1:8080");
        check("localhost", "http://localhost:8080");
        check("127.0.0.1:9000", "http://127.0.0.1:9000");
        check("::1", "http://[::1]:8080");
        check("[::1]:1", "http://[::1]:1");
        check("fd00::7", "https://[fd00::7]:8443");
        check("http://x/", "http://x");
        check("x:y", "'y' is no port");
        check("x:", "'' is no port");
        check("a b", "'a b' is no name of a machine");
        check(":80", "'' is no name of a machine");
        check("a/b", "'a/b' is no name of a machine");
    }

    #[test]
    fn a_password_goes_in_the_clear_to_this_machine_only() {
        let check = |url: &str, expected: bool| assert_eq!(Reach::default().may_send(url), expected, "{url}");
        check("https://compute1:8443", true);
        check("http://compute1:8080", false);
        check("http://127.0.0.1:8080", true);
        check("http://localhost:8080", true);
        check("http://[::1]:8080", true);
        check("http://127.0.0.1.evil.example", false);
        assert!(Reach { insecure: true, ..Reach::default() }.may_send("http://compute1:8080"));
    }

    fn reach(node: &str) -> Reach {
        Reach { node: Some(node.to_owned()), ..Reach::default() }
    }

    fn tokens() -> (tempfile::TempDir, Tokens) {
        let directory = tempfile::tempdir().unwrap();
        let tokens = Tokens::in_file(directory.path().join("tokens.json"));
        (directory, tokens)
    }

    #[tokio::test]
    async fn a_server_that_wants_nobody_is_asked_by_nobody() {
        let (_directory, tokens) = tokens();
        for server in [Fake::always(200, json!({"user": "admin", "admin": true})), Fake::always(404, json!({"message": "URI not found"}))] {
            let client = reach(&server.url).connect(Role::User, LogIn::ToCheck, &tokens).await.unwrap();
            _ = client.call(reqwest::Method::GET, "/v2/apps", None).await;
            assert_eq!(server.lines(), ["GET /v2/auth/whoami", "GET /v2/apps"]);
            assert!(server.asked().iter().all(|asked| asked.header("authorization").is_empty()));
        }
    }

    #[tokio::test]
    async fn a_token_that_is_there_is_used_and_one_that_has_ended_is_forgotten() {
        let (_directory, tokens) = tokens();
        let server = Fake::start(|asked| match (asked.line.as_str(), asked.header("authorization")) {
            ("POST /v2/auth/token", "Basic em1mc2VhOnBAc3N3MHJk") => answer(200, json!({"token": "fresh", "user": "zmfsea"})),
            (_, "Bearer fresh") => answer(200, json!({"user": "zmfsea"})),
            _ => answer(401, json!({"message": "who?"})),
        });
        let kept = || tokens.find(&server.url, None).map(|(user, token)| format!("{user} {}", token.expose()));
        let with = |password: &str| Reach { user: Some("zmfsea".into()), password: Some(Secret::new(password)), ..reach(&server.url) };
        tokens.keep(&server.url, "zmfsea", &Secret::new("old")).unwrap();
        let error = with("wrong").connect(Role::User, LogIn::IfNeeded, &tokens).await.unwrap_err().to_string();
        assert!(error.contains("does not accept user 'zmfsea' with this password (who?)"), "{error}");
        assert_eq!(kept(), None);
        with("p@ssw0rd").connect(Role::User, LogIn::IfNeeded, &tokens).await.unwrap();
        assert_eq!(kept().unwrap(), "zmfsea fresh");
        let before = server.lines().len();
        reach(&server.url).connect(Role::User, LogIn::IfNeeded, &tokens).await.unwrap();
        assert_eq!(server.lines()[before..], ["GET /v2/auth/whoami"]);
    }

    #[tokio::test]
    async fn another_user_on_a_node_logs_in_through_the_socket() {
        let (directory, tokens) = tokens();
        let server = Fake::on_socket(&directory.path().join("xtao.sock"), |_| answer(200, json!({"token": "t", "user": "other"})));
        let here = Reach { work_dir: Some(directory.path().to_owned()), ..Reach::default() };
        here.connect(Role::User, LogIn::IfNeeded, &tokens).await.unwrap();
        assert_eq!(server.lines(), [""; 0]);
        let other = Reach { user: Some("other".into()), password: Some(Secret::new("x")), ..here };
        let client = other.connect(Role::User, LogIn::IfNeeded, &tokens).await.unwrap();
        client.call(reqwest::Method::GET, "/v2/apps", None).await.unwrap();
        assert_eq!(server.lines(), ["POST /v2/auth/token", "GET /v2/apps"]);
        assert_eq!(server.asked()[1].header("authorization"), "Bearer t");
    }

    #[tokio::test]
    async fn what_is_wrong_with_a_server_is_said_before_anything_is_asked() {
        let (directory, tokens) = tokens();
        let check = async |reach: Reach, expected: &str| {
            let error = reach.connect(Role::User, LogIn::IfNeeded, &tokens).await.unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check(reach("127.0.0.1:1"), "cannot reach the server at http://127.0.0.1:1 (connection refused)").await;
        let here = Reach { work_dir: Some(directory.path().to_owned()), ..Reach::default() };
        check(here, "is 'xtao serve' running?").await;
        check(reach("x:y"), "-d 'x:y' is no address ('y' is no port)").await;
    }
}
