//! From a socket to a kill: the prober, the driver and the core, and a cluster that does as it is told.

use std::sync::atomic::AtomicBool;

use serde_json::json;

use super::*;
use crate::{
    core::Settings as CoreSettings,
    model::{
        app::input::AppInput,
        cluster::{ClusterCall, Launch, Offer, Reason, TaskState, TaskStatus},
        id::Owner,
        request::{Origin, Request},
        resources::{PortRange, Resources, Scalar},
    },
    runtime::driver::Driver,
    store::memory::{Disk, MemoryStore},
};

/// A server that says 200 while it is well and 500 otherwise.
async fn moody_server(well: Arc<AtomicBool>) -> u16 {
    let answer = move || match well.load(Ordering::Relaxed) {
        true => "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
        false => "HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n",
    };
    serve(answer, |stream| async { Some(stream) }).await
}

struct Cluster {
    events: mpsc::Sender<ClusterEvent>,
    calls: mpsc::Receiver<ClusterCall>,
    offers: u32,
}

impl Cluster {
    /// Offers the loopback node with this one port, and returns what is launched.
    async fn launch(&mut self, port: u16) -> Launch {
        let resources = Resources {
            cpus: Scalar::whole(4),
            mem: Scalar::whole(4096),
            disk: Scalar::whole(10_000),
            gpus: 0,
            ports: vec![PortRange::new(port, port)],
        };
        self.offers += 1;
        let offer = Offer {
            id: self.offers.to_string().parse().unwrap(),
            agent: AgentId::new("S1"),
            host: "node1".into(),
            addresses: vec!["127.0.0.1".parse().unwrap()],
            resources,
            attributes: Vec::new(),
            reserved: Vec::new(),
            region: None,
            zone: None,
        };
        self.events.send(ClusterEvent::Offers(vec![offer])).await.unwrap();
        loop {
            if let ClusterCall::Accept { launches, .. } = self.calls.recv().await.unwrap() {
                return launches.into_iter().next().unwrap();
            }
        }
    }

    async fn say(&self, task: &TaskId, state: TaskState) {
        let status = TaskStatus {
            task: task.clone(),
            agent: Some(AgentId::new("S1")),
            state,
            reason: Reason::Other,
            message: String::new(),
            timestamp: wall(),
            uuid: None,
            healthy: None,
            addresses: Vec::new(),
        };
        self.events.send(ClusterEvent::Status(status)).await.unwrap();
    }

    async fn next_kill(&mut self) -> TaskId {
        loop {
            if let ClusterCall::Kill { task, .. } = self.calls.recv().await.unwrap() {
                return task;
            }
        }
    }
}

/// Waits for a commit after which the view is so.
async fn until(handle: &Handle, what: impl Fn(&View) -> bool) {
    let mut published = handle.follow();
    while !what(&handle.view()) {
        published.recv().await.unwrap();
    }
}

#[tokio::test]
async fn a_task_that_turns_bad_is_killed_and_its_successor_checked() {
    let well = Arc::new(AtomicBool::new(true));
    let port = moody_server(well.clone()).await;
    let (events, arriving) = mpsc::channel(64);
    let (calls, called) = mpsc::channel(1024);
    let store = Box::new(MemoryStore::open(&Disk::new()));
    let (driver, handle) = Driver::open(CoreSettings::default(), store, arriving, calls).await.unwrap();
    let (_stop, stopping) = watch::channel(false);
    start(Settings { max_concurrent: 4, nodes: None }, handle.clone(), events.clone(), stopping.clone()).unwrap();
    tokio::spawn(driver.run(stopping));
    let mut cluster = Cluster { events, calls: called, offers: 0 };
    cluster.events.send(ClusterEvent::Connected { framework_id: "f".into(), master: "m".into(), region: None }).await.unwrap();

    let check = json!({"path": "/", "intervalSeconds": 1, "timeoutSeconds": 5, "gracePeriodSeconds": 0, "maxConsecutiveFailures": 1});
    let app = json!({"id": "/web", "cmd": "serve", "cpus": 1, "mem": 32, "portDefinitions": [{"port": 0}], "healthChecks": [check]});
    let origin = Origin { user: Owner::default_owner(), admin: true, client_ip: "".into(), uri: "".into() };
    let request = Request::CreateApp { input: AppInput::read(&app).unwrap().into(), force: false };
    handle.submit(origin, request).await.unwrap();
    let web: PathId = "/web".parse().unwrap();
    let health = |view: &View| view.tables.tallies.get(&web).map_or((0, 0), |tally| (tally.healthy(), tally.unhealthy()));

    let first = cluster.launch(port).await;
    cluster.say(&first.task, TaskState::Running).await;
    until(&handle, |view| health(view) == (1, 0) && view.tables.deployments.is_empty()).await;
    well.store(false, Ordering::Relaxed);
    assert_eq!(cluster.next_kill().await, first.task);
    cluster.say(&first.task, TaskState::Killed).await;
    well.store(true, Ordering::Relaxed);
    let second = cluster.launch(port).await;
    assert_eq!((second.task.instance.clone(), second.task.incarnation), (first.task.instance, 2));
    cluster.say(&second.task, TaskState::Running).await;
    until(&handle, |view| health(view) == (1, 0)).await;
    let failure = handle.view().tables.failures[&web].message.clone();
    assert_eq!(failure, "Task was killed since health check failed. Reason: 500 Internal Server Error");
}
