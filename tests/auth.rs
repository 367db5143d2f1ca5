//! Who is who over real connections: TCP, TLS, and unix sockets with peers of another account, over the real core with a store in memory.

use std::{
    io::{Read, Write},
    net::SocketAddr,
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::Path,
    sync::Arc,
};

use reqwest::{Client, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    task::JoinSet,
};
use xtao::{
    api::{
        self, Api, Identity, Info,
        identity::{Door, LogSink, Rules},
        server::Listener,
    },
    auth::{
        gate::{DEFAULT_TOKEN_LIFETIME, Gate},
        token::TokenKey,
    },
    cli::client::{self, Credentials, Secret},
    core::Settings,
    model::cluster::{ClusterCall, ClusterEvent},
    runtime::driver::Driver,
    server::{sockets, tls},
    store::memory::{Disk, MemoryStore},
};

/// A server in a directory of its own, whose records and files outlive it.
struct Server {
    directory: tempfile::TempDir,
    disk: Disk,
    running: Option<Running>,
}

struct Running {
    http: SocketAddr,
    https: SocketAddr,
    stop: watch::Sender<bool>,
    serving: JoinSet<()>,
    _files: Vec<sockets::Bound>,
    /// Dropped, they would end the driver.
    _ends: (mpsc::Sender<ClusterEvent>, mpsc::Receiver<ClusterCall>),
}

impl Server {
    async fn start() -> Self {
        // Another test may have done it already.
        _ = rustls::crypto::ring::default_provider().install_default();
        let directory = tempfile::tempdir().unwrap();
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        std::fs::write(directory.path().join("ca.pem"), made.cert.pem()).unwrap();
        std::fs::write(directory.path().join("server.pem"), made.cert.pem() + &made.signing_key.serialize_pem()).unwrap();
        let mut server = Self { directory, disk: Disk::new(), running: None };
        server.run().await;
        server
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    async fn run(&mut self) {
        let (events, arriving) = mpsc::channel(16);
        let (calls, called) = mpsc::channel(1024);
        let store = Box::new(MemoryStore::open(&self.disk));
        let (driver, handle) = Driver::open(Settings::default(), store, arriving, calls).await.unwrap();
        let (stop, stopping) = watch::channel(false);
        let mut api = Api::new(handle, Info::new("localhost", 8080, &Settings::default()));
        let gate = Gate::new(TokenKey::load(self.path()).unwrap(), DEFAULT_TOKEN_LIFETIME, None);
        api.identity = Arc::new(Identity::new(Rules { authentication: true, loopback_only: true }, gate, Arc::new(LogSink)));
        let (plain, secure) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), TcpListener::bind("127.0.0.1:0").await.unwrap());
        let (http, https) = (plain.local_addr().unwrap(), secure.local_addr().unwrap());
        let (admin, admin_file) = sockets::bind(self.path(), Door::Administrators).unwrap();
        let (users, users_file) = sockets::bind(self.path(), Door::Users).unwrap();
        let mut serving = JoinSet::new();
        for listener in [
            Listener::Tcp(plain),
            Listener::Tls(secure, tls::Watched::open(&self.path().join("server.pem"), None).unwrap().1),
            Listener::Unix(admin, Door::Administrators),
            Listener::Unix(users, Door::Users),
        ] {
            let mut stopping = stopping.clone();
            let shutdown = async move { _ = stopping.wait_for(|stop| *stop).await };
            serving.spawn(api::serve(listener, api.clone(), shutdown));
        }
        serving.spawn(async move { driver.run(stopping).await.unwrap() });
        let _files = vec![admin_file, users_file];
        self.running = Some(Running { http, https, stop, serving, _files, _ends: (events, called) });
    }

    async fn restart(&mut self) {
        let mut running = self.running.take().unwrap();
        running.stop.send(true).unwrap();
        while running.serving.join_next().await.is_some() {}
        drop(running);
        self.run().await;
    }

    fn get(&self, path: &str) -> RequestBuilder {
        Client::builder().no_proxy().build().unwrap().get(format!("http://{}{path}", self.running.as_ref().unwrap().http))
    }

    /// Who a request with these credentials is taken for: `zm`, `#zm`, or a status.
    async fn whoami(&self, dress: impl Fn(RequestBuilder) -> RequestBuilder) -> String {
        let response = dress(self.get("/v2/auth/whoami")).send().await.unwrap();
        if response.status() != StatusCode::OK {
            return response.status().as_str().to_owned();
        }
        taken_for(&response.json().await.unwrap())
    }

    fn administrator(&self) -> client::Client {
        client::Client::on_socket(&self.path().join(sockets::ADMIN_SOCKET)).unwrap()
    }

    async fn put(&self, user: &str, body: Value) {
        self.administrator().call(reqwest::Method::PUT, &format!("/v2/auth/users/{user}"), Some(&body)).await.unwrap();
    }

    async fn log_in(&self, user: &str, password: &str) -> Result<client::Login, client::ClientError> {
        let url = format!("http://{}", self.running.as_ref().unwrap().http);
        client::Client::at(&url, Credentials::None, None).unwrap().log_in(user, Secret::new(password)).await
    }
}

fn taken_for(whoami: &Value) -> String {
    format!("{}{}", if whoami["admin"] == true { "#" } else { "" }, whoami["user"].as_str().unwrap())
}

#[tokio::test]
async fn from_the_first_password_on_everybody_is_asked() {
    let server = Server::start().await;
    assert_eq!(server.whoami(|request| request).await, "#admin");
    assert_eq!(server.whoami(|request| request.basic_auth("any", Some("thing"))).await, "#admin");
    server.put("zm", json!({"password": "p@ssw0rd"})).await;
    let refused = server.get("/v2/apps").send().await.unwrap();
    assert_eq!((refused.status().as_u16(), refused.headers()["www-authenticate"].as_bytes()), (401, &b"Basic realm=\"Mesosphere\""[..]));
    for path in ["/v2/info", "/v2/events", "/v2/leader", "/v2/auth/users", "/nowhere", "/", "/v2/queue", "/v2/bricks"] {
        assert_eq!(server.get(path).send().await.unwrap().status(), 401, "{path}");
    }
    assert_eq!(server.get("/ping").send().await.unwrap().text().await.unwrap(), "pong");
    assert_eq!(server.whoami(|request| request.basic_auth("zm", Some("p@ssw0rd"))).await, "zm");
    assert_eq!(server.whoami(|request| request.basic_auth("zm", Some("wrong"))).await, "401");
    server.administrator().call(reqwest::Method::DELETE, "/v2/auth/users/zm", None).await.unwrap();
    assert_eq!(server.whoami(|request| request).await, "#admin");
}

#[tokio::test]
async fn a_token_outlives_a_restart_but_no_change_of_its_user() {
    let mut server = Server::start().await;
    server.put("zm", json!({"password": "first"})).await;
    let login = server.log_in("zm", "first").await.unwrap();
    assert_eq!((login.user.as_str(), login.admin), ("zm", false));
    let token = login.token.expose().to_owned();
    let bearer = async |server: &Server, token: &str| server.whoami(|request| request.bearer_auth(token)).await;
    assert_eq!(bearer(&server, &token).await, "zm");
    assert_eq!(server.whoami(|request| request.header("authorization", format!("token={token}"))).await, "zm");
    server.restart().await;
    assert_eq!(bearer(&server, &token).await, "zm");
    server.put("zm", json!({"quota": {"cpus": 1}})).await;
    assert_eq!(bearer(&server, &token).await, "zm");

    server.put("zm", json!({"password": "second"})).await;
    assert_eq!(bearer(&server, &token).await, "401");
    assert!(server.log_in("zm", "first").await.is_err());
    let token = server.log_in("zm", "second").await.unwrap().token.expose().to_owned();
    server.put("zm", json!({"locked": true})).await;
    assert_eq!(bearer(&server, &token).await, "401");
    assert_eq!(server.whoami(|request| request.basic_auth("zm", Some("second"))).await, "401");
    server.put("zm", json!({"locked": false})).await;
    assert_eq!(bearer(&server, &token).await, "401", "also after the lock is gone");
    let token = server.log_in("zm", "second").await.unwrap().token.expose().to_owned();
    server.administrator().call(reqwest::Method::DELETE, "/v2/auth/users/zm", None).await.unwrap();
    server.put("zm", json!({"password": "second"})).await;
    assert_eq!(bearer(&server, &token).await, "401", "also when the user is made again");
}

#[tokio::test]
async fn users_change_their_own_password_by_the_present_one() {
    let server = Server::start().await;
    server.put("zm", json!({"password": "first"})).await;
    server.put("bo", json!({"password": "other"})).await;
    let url = format!("http://{}", server.running.as_ref().unwrap().http);
    let put = async |credentials: Credentials, user: &str, body: Value| {
        let client = client::Client::at(&url, credentials, None).unwrap();
        let outcome = client.call(reqwest::Method::PUT, &format!("/v2/auth/users/{user}"), Some(&body)).await;
        outcome.map_or_else(|error| error.status().unwrap(), |_| 200)
    };
    let zm = || Credentials::Password("zm".into(), Secret::new("first"));
    let token = Credentials::Token(server.log_in("zm", "first").await.unwrap().token);
    assert_eq!(put(token, "zm", json!({"password": "new"})).await, 403);
    assert_eq!(put(zm(), "bo", json!({"password": "new"})).await, 403);
    assert_eq!(put(zm(), "zm", json!({"password": "new", "admin": true})).await, 403);
    assert_eq!(put(zm(), "zm", json!({"admin": true})).await, 403);
    assert_eq!(put(zm(), "new", json!({"password": "new"})).await, 403);
    assert_eq!(put(zm(), "zm", json!({"password": "new"})).await, 200);
    assert_eq!(put(zm(), "zm", json!({"password": "newer"})).await, 401);
    let asking = client::Client::at(&url, Credentials::Password("zm".into(), Secret::new("new")), None).unwrap();
    assert_eq!(asking.get::<Value>("/v2/auth/users/zm").await.unwrap()["name"], "zm");
    assert_eq!(asking.get::<Value>("/v2/auth/users/bo").await.unwrap_err().status(), Some(404));
    assert_eq!(asking.get::<Value>("/v2/auth/users").await.unwrap_err().status(), Some(403));
}

/// Asks over a unix socket as the account `uid`, on a thread that has become that account: a status and who one is taken for, or why not.
fn ask_as(uid: u32, socket: &Path) -> String {
    let socket = socket.to_owned();
    let asking = move || -> std::io::Result<String> {
        let (user, group) = (rustix::process::Uid::from_raw(uid), rustix::process::Gid::from_raw(uid));
        // Of this thread alone; the other threads of the process stay who they are.
        rustix::thread::set_thread_groups(&[])?;
        rustix::thread::set_thread_res_gid(group, group, group)?;
        rustix::thread::set_thread_res_uid(user, user, user)?;
        let mut stream = UnixStream::connect(socket)?;
        stream.write_all(b"GET /v2/auth/whoami HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let body: Value = serde_json::from_str(body).unwrap();
        let status = head.split(' ').nth(1).unwrap();
        Ok(if status == "200" { taken_for(&body) } else { format!("{status} {}", body["message"].as_str().unwrap()) })
    };
    std::thread::spawn(asking).join().unwrap().unwrap_or_else(|error| error.kind().to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sockets_tell_accounts_apart() {
    if !rustix::process::geteuid().is_root() {
        // Only root can be somebody else.
        return;
    }
    const DAEMON: u32 = 1;
    let server = Server::start().await;
    let (admin, users) = (server.path().join(sockets::ADMIN_SOCKET), server.path().join(sockets::USERS_SOCKET));
    let ask = async |uid, socket: &Path| {
        let socket = socket.to_owned();
        tokio::task::spawn_blocking(move || ask_as(uid, &socket)).await.unwrap()
    };
    assert_eq!(ask(0, &admin).await, "#root");
    assert_eq!(ask(0, &users).await, "#root");
    assert_eq!(ask(DAEMON, &users).await, "daemon", "before any password exists");
    assert_eq!(ask(DAEMON, &admin).await, "permission denied");
    assert_eq!(ask(54_321, &users).await, "403 user id 54321 has no account on this machine");
    server.put("daemon", json!({"locked": true})).await;
    assert_eq!(ask(DAEMON, &users).await, "403 user 'daemon' is locked");
    server.put("daemon", json!({"locked": false, "admin": true})).await;
    assert_eq!(ask(DAEMON, &users).await, "#daemon");
    server.put("root", json!({"locked": true})).await;
    assert_eq!(ask(0, &users).await, "#root", "nobody locks root out of its own machine");
}

#[tokio::test]
async fn tls_is_spoken_and_its_host_may_have_any_name() {
    let server = Server::start().await;
    server.put("zm", json!({"password": "p@ssw0rd"})).await;
    let running = server.running.as_ref().unwrap();
    let pem = std::fs::read(server.path().join("ca.pem")).unwrap();
    let trusting = || Client::builder().no_proxy().tls_certs_merge([reqwest::Certificate::from_pem(&pem).unwrap()]);
    let client = trusting().resolve("compute1.example", running.https).build().unwrap();
    let url = format!("https://localhost:{}/v2/auth/whoami", running.https.port());
    let answer: Value = client.get(&url).basic_auth("zm", Some("p@ssw0rd")).send().await.unwrap().json().await.unwrap();
    assert_eq!(taken_for(&answer), "zm");
    let other = client.get(&url).header("host", "compute1.example").basic_auth("zm", Some("p@ssw0rd")).send().await.unwrap();
    assert_eq!(other.status(), 200);
    assert_eq!(client.get(&url).send().await.unwrap().status(), 401);
    let stranger = Client::builder().no_proxy().build().unwrap();
    assert!(stranger.get(&url).send().await.unwrap_err().is_connect(), "the certificate is nobody's");
    // Plain HTTP at the TLS port ends, and does not hang.
    assert!(stranger.get(url.replace("https", "http")).send().await.is_err());
}
