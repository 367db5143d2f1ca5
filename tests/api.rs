//! The HTTP API over the real core and driver, with a store in memory and a cluster that never says anything: what a client sees of an app's life as
//! long as nothing can be launched.

use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
};
use xtao::{
    api::{self, Api, Info},
    core::Settings,
    model::cluster::{ClusterCall, ClusterEvent},
    runtime::driver::Driver,
    store::memory::{Disk, MemoryStore},
};

struct Server {
    url: String,
    client: Client,
    /// Dropped, they would end the driver or the server.
    _ends: (watch::Sender<bool>, mpsc::Sender<ClusterEvent>, mpsc::Receiver<ClusterCall>),
}

impl Server {
    async fn start() -> Self {
        // Another test may have done it already.
        _ = rustls::crypto::ring::default_provider().install_default();
        let (events, arriving) = mpsc::channel(16);
        let (calls, called) = mpsc::channel(1024);
        let store = Box::new(MemoryStore::open(&Disk::new()));
        let (driver, handle) = Driver::open(Settings::default(), store, arriving, calls).await.unwrap();
        let (stop, stopping) = watch::channel(false);
        tokio::spawn(driver.run(stopping.clone()));
        let address = std::env::var("XTAO_TEST_API").unwrap_or_else(|_| "127.0.0.1:0".into());
        let listener = TcpListener::bind(address).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let mut stopping = stopping;
        let shutdown = async move { _ = stopping.wait_for(|stop| *stop).await };
        tokio::spawn(api::serve(listener, Api::new(handle, Info::new("localhost", 8080, &Settings::default())), shutdown));
        Self { url, client: Client::builder().no_proxy().build().unwrap(), _ends: (stop, events, called) }
    }

    async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> (StatusCode, Value) {
        let mut request = self.client.request(method, format!("{}{path}", self.url));
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await.unwrap();
        let status = response.status();
        let text = response.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    async fn get(&self, path: &str) -> Value {
        self.ask(Method::GET, path, None).await.1
    }
}

#[tokio::test]
async fn an_app_lives_through_the_real_core() {
    let server = Server::start().await;
    let app = json!({ "id": "web", "cmd": "sleep 1000", "env": { "WEBPORT": "@PORT" } });
    let (status, created) = server.ask(Method::POST, "/v2/apps", Some(app.clone())).await;
    assert_eq!((status, &created["id"]), (StatusCode::CREATED, &json!("/web")), "{created}");
    assert_eq!((created.get("versionInfo"), created.get("tasks")), (None, None));
    let deployment = created["deployments"][0]["id"].clone();

    let shown = server.get("/v2/apps//web").await["app"].clone();
    assert_eq!((&shown["version"], &shown["deployments"][0]["id"]), (&created["version"], &deployment), "{shown}");
    let port = shown["endpoints"][0]["port"].as_u64().unwrap();
    let endpoint = json!({ "name": "WEBPORT", "host": "web.marathon.mesos", "port": port, "protocol": "tcp", "containerPort": port });
    assert_eq!(shown["endpoints"][0], endpoint);
    assert_eq!(server.get("/v2/ports").await["ports"][0]["app"], "/web");
    assert_eq!(server.get("/v2/queue").await["queue"][0]["app"]["id"], "/web");
    assert_eq!(server.get("/v2/deployments").await[0]["id"], deployment);

    let (status, refused) = server.ask(Method::POST, "/v2/apps", Some(app)).await;
    assert_eq!((status, &refused["message"]), (StatusCode::CONFLICT, &json!("An app with id [/web] already exists.")));
    let (status, locked) = server.ask(Method::PUT, "/v2/apps/web", Some(json!({ "mem": 64 }))).await;
    assert_eq!((status, &locked["deployments"][0]["id"]), (StatusCode::CONFLICT, &deployment));
    let (status, updated) = server.ask(Method::PUT, "/v2/apps/web?force=True", Some(json!({ "mem": 64 }))).await;
    assert_eq!((status, updated["deploymentId"].is_string()), (StatusCode::OK, true), "{updated}");
    assert_eq!(server.get("/v2/apps/web/versions").await["versions"].as_array().unwrap().len(), 2);

    let (status, _) = server.ask(Method::DELETE, "/v2/apps/web", None).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(server.get("/v2/apps/web").await["message"], "App '/web' does not exist");
    assert_eq!(
        server.get("/v2/ports").await["ports"][0],
        json!({
            "port": port, "app": "/web", "source": "env", "index": 0, "owner": "admin", "appExists": false,
            "createdAt": server.get("/v2/ports").await["ports"][0]["createdAt"],
        })
    );
    assert_eq!(server.ask(Method::DELETE, &format!("/v2/ports/{port}"), None).await.0, StatusCode::NO_CONTENT);
    assert_eq!(server.get("/v2/ports").await, json!({ "ports": [] }));
}

#[test]
fn what_is_logged_is_as_loud_as_the_flag_says() {
    // A server that warns of a setting without effect, recovers its state, and then cannot listen: every level has something to say.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let check = |level: Option<&str>, expected: &[&str]| {
        let directory = tempfile::tempdir().unwrap();
        let mut server = std::process::Command::new(env!("CARGO_BIN_EXE_xtao"));
        server.args(["serve", "--http_address", "127.0.0.1", "--http_port", "0", "--dns_address", "127.0.0.1", "--dns_http_port", "0"]);
        server.args(["--mesos_authentication", "--docker_host", "unix:///nowhere", "--dns_port", &port.to_string(), "--work_dir"]);
        server.arg(directory.path()).args(level.map(|level| format!("--logging_level={level}"))).env_remove("RUST_LOG");
        let done = server.output().unwrap();
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(!done.status.success(), "{said}");
        let found: Vec<&str> =
            ["ERROR", "WARN", "INFO", "DEBUG"].into_iter().filter(|level| said.contains(&format!(" {level} "))).collect();
        assert_eq!(found, expected, "{level:?}: {said}");
    };
    check(Some("off"), &[]);
    check(Some("error"), &["ERROR"]);
    check(Some("warn"), &["ERROR", "WARN"]);
    check(None, &["ERROR", "WARN", "INFO"]);
    check(Some("info"), &["ERROR", "WARN", "INFO"]);
    check(Some("debug"), &["ERROR", "WARN", "INFO", "DEBUG"]);
}

#[tokio::test]
async fn wrong_definitions_are_refused_as_by_marathon() {
    let server = Server::start().await;
    let check = async |body: Value, status: u16, message: &str, path: &str| {
        let (found, answer) = server.ask(Method::POST, "/v2/apps", Some(body.clone())).await;
        assert_eq!((found.as_u16(), &answer["message"]), (status, &json!(message)), "{body}: {answer}");
        assert!(answer["details"].as_array().unwrap().iter().any(|detail| detail["path"] == path), "{body}: {answer}");
    };
    check(json!({ "id": "/x", "cmd": 1 }), 422, "Invalid JSON", "/cmd").await;
    check(json!({ "cmd": "sleep 1" }), 422, "Invalid JSON", "/id").await;
    check(json!({ "id": "/X", "cmd": "sleep 1" }), 422, "Invalid JSON", "/id").await;
    check(json!({ "id": "/x" }), 422, "Object is not valid", "/").await;
    check(json!({ "id": "/x", "cmd": "sleep 1", "cpus": -1 }), 422, "Invalid JSON", "/cpus").await;
    assert_eq!(server.get("/v2/apps").await, json!({ "apps": [] }));
}
