//! A server without its process: API, driver and engine on a Docker daemon, with a store that survives a restart.

use std::{path::PathBuf, sync::Arc, time::Duration};

use reqwest::{Client, Method, StatusCode};
use serde_json::Value;
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    task::JoinHandle,
};
use xtao::{
    api::{self, Api, Info},
    brick::{Bricks, spool::Spool},
    cluster::engine,
    core::Settings,
    model::{
        id::{AgentId, ClusterId},
        resources::Scalar,
    },
    probe,
    runtime::driver::Driver,
    server::node::ThisNode,
    store::memory::{Disk, MemoryStore},
};

use crate::support::docker::Daemon;

/// Longer than anything takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(50);

pub struct House {
    disk: Disk,
    bricks: Arc<Bricks>,
    client: Client,
    running: Option<Running>,
}

struct Running {
    url: String,
    stop: watch::Sender<bool>,
    parts: Vec<JoinHandle<()>>,
}

impl House {
    pub async fn start(daemon: &Daemon) -> Self {
        _ = rustls::crypto::ring::default_provider().install_default();
        _ = tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env()).with_test_writer().try_init();
        let work_dir = daemon.path("work");
        std::fs::create_dir_all(&work_dir).unwrap();
        let bricks = Bricks::open(xtao::brick::Settings { work_dir, overcommit: 1.0, reserve: 0 }).await.unwrap();
        let client = Client::builder().no_proxy().build().unwrap();
        let mut house = Self { disk: Disk::new(), bricks: Arc::new(bricks), client, running: None };
        house.begin(daemon).await;
        house
    }

    async fn begin(&mut self, daemon: &Daemon) {
        let (events, arriving) = mpsc::channel(64);
        let (calls, called) = mpsc::channel(64);
        let store = Box::new(MemoryStore::open(&self.disk));
        let (driver, handle) = Driver::open(Settings::default(), store, arriving, calls).await.unwrap();
        let (stop, stopping) = watch::channel(false);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let mut ends = stopping.clone();
        let shutdown = async move { _ = ends.wait_for(|stop| *stop).await };
        let settings = settings(daemon, daemon.path("work"));
        let (bricks, to_engine) = (self.bricks.clone(), stopping.clone());
        let node = ThisNode {
            agent: settings.agent_id.clone(),
            addresses: settings.node_addresses.clone(),
            access: Arc::new(engine::access::Access::new(&settings)),
            spool: Spool::open(&settings.work_dir, 0).unwrap(),
        };
        let checks = probe::Settings { max_concurrent: 16, nodes: Some(Arc::new(node)) };
        probe::start(checks, handle.clone(), events.clone(), stopping.clone()).unwrap();
        let parts = vec![
            tokio::spawn(async move { engine::run(settings, bricks, called, events, to_engine).await.unwrap() }),
            tokio::spawn(async move { driver.run(stopping).await.map(drop).unwrap() }),
            tokio::spawn(async move {
                _ = api::serve(listener, Api::new(handle, Info::new("localhost", 8080, &Settings::default())), shutdown).await
            }),
        ];
        self.running = Some(Running { url, stop, parts });
    }

    /// Ends everything but the tasks.
    pub async fn stop(&mut self) {
        let Some(running) = self.running.take() else { return };
        running.stop.send_replace(true);
        for part in running.parts {
            part.await.unwrap();
        }
    }

    pub async fn restart(&mut self, daemon: &Daemon) {
        self.stop().await;
        self.begin(daemon).await;
    }

    pub async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> (StatusCode, Value) {
        let url = format!("{}{path}", self.running.as_ref().unwrap().url);
        let mut request = self.client.request(method, url);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await.unwrap();
        let status = response.status();
        let text = response.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    pub async fn get(&self, path: &str) -> Value {
        self.ask(Method::GET, path, None).await.1
    }

    /// What some server says; empty while it says nothing.
    pub async fn text(&self, url: &str) -> String {
        match self.client.get(url).send().await {
            Ok(response) if response.status().is_success() => response.text().await.unwrap_or_default(),
            _ => String::new(),
        }
    }

    /// Waits until a server says this.
    pub async fn serves(&self, url: &str, text: &str) {
        self.until(async |house| house.text(url).await == text).await;
    }

    pub async fn until(&self, holds: impl AsyncFn(&Self) -> bool) {
        let wait = async {
            while !holds(self).await {
                tokio::time::sleep(PAUSE).await;
            }
        };
        if tokio::time::timeout(LIMIT, wait).await.is_err() {
            panic!("it never came to be; pods: {:#}", self.get("/v2/pods/::status").await);
        }
    }

    /// The status of a pod when it is stable with every container in this launch.
    pub async fn stable(&self, id: &str, launch: u32) -> Value {
        let path = format!("/v2/pods{id}::status");
        let end = format!(".{launch}");
        let fits = |status: &Value| {
            let containers = status["instances"].as_array().into_iter().flatten().flat_map(|one| one["containers"].as_array()).flatten();
            let ids = containers.filter_map(|container| container["containerId"].as_str());
            status["status"] == "STABLE" && ids.into_iter().all(|id| id.ends_with(&end))
        };
        self.until(async |house| fits(&house.get(&path).await)).await;
        self.get(&path).await
    }
}

fn settings(daemon: &Daemon, work_dir: PathBuf) -> engine::Settings {
    let address = daemon.address().parse().unwrap();
    let (cluster, agent) = (ClusterId::new("test"), AgentId::new("node"));
    let mut settings = engine::Settings::new(daemon.host(), work_dir, cluster, agent, "node1".to_owned(), vec![address]);
    settings.resources.cpus = Some(Scalar::whole(10));
    settings.shim = env!("CARGO_BIN_EXE_xtao").into();
    settings
}
