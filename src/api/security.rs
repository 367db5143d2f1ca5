//! What has been done to orchestrators, as tests of the whole API over the real core: each row of the security table that applies, with the class of the
//! flaw and the CVEs that made it known. Two ordinary users (`ann`, who has things, and `bob`, who wants them) and an administrator (`root`).
//!
//! Others of the same table are tested where they are stopped: symbolic links and swaps of host paths, and the account's rights, in
//! `cluster::engine::volumes`; what a container does in a user's host volumes in `tests/engine/host_volumes.rs`; Docker's parameters in
//! `cluster::engine::parameters`; limits of connections and headers in `api::server`; constant-time comparison, guessing and tokens in `auth`.

use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

use super::{
    access::End,
    describe::PUBLISHED,
    testing::{Answer, Server, who},
};
use crate::{
    cli::client::testing::{Fake, answer},
    core::Settings,
    model::{
        cluster::{ClusterCall, ClusterEvent, Offer, Reason, TaskState, TaskStatus},
        host_volume::HostVolumeRule,
        id::AgentId,
        request::Origin,
        resources::{PortRange, Resources, Scalar},
        time::Timestamp,
    },
    registry::{
        platform::{self, Directory, Platform as Images, Whereabouts},
        token::Authority,
    },
    runtime::driver::Driver,
    store::memory::{Disk, MemoryStore},
};

/// Everything but the containers.
struct Platform {
    server: Server,
    events: mpsc::Sender<ClusterEvent>,
    calls: mpsc::Receiver<ClusterCall>,
    _stop: watch::Sender<bool>,
}

impl Platform {
    async fn new() -> Self {
        let (events, arriving) = mpsc::channel(16);
        let (calls, called) = mpsc::channel(1024);
        let own = vec!["/var/lib/xtao".to_owned(), "/var/run/docker.sock".to_owned()];
        let settings = Settings { host_volumes: HostVolumeRule { own, ..HostVolumeRule::default() }, ..Settings::default() };
        let store = Box::new(MemoryStore::open(&Disk::new()));
        let (driver, handle) = Driver::open(settings, store, arriving, calls).await.unwrap();
        let (stop, stopping) = watch::channel(false);
        tokio::spawn(driver.run(stopping));
        let platform = Self { server: Server::on(handle), events, calls: called, _stop: stop };
        platform.events.send(ClusterEvent::Connected { framework_id: "f".into(), master: "m".into(), region: None }).await.unwrap();
        platform
    }

    /// Ann has a database with a secret that runs, and the remains of another; bob has an app whose name begins as hers does.
    async fn inhabited() -> Self {
        let mut platform = Self::new().await;
        let brick = json!({ "containerPath": "/data", "mode": "RW", "brick": { "size": 64 } });
        let database = json!({
            "id": "/prod/db", "cmd": "serve --key k3y", "cpus": 0.1, "mem": 32,
            "env": { "PORT": "@PORT", "PASSWORD": "s3cret" }, "labels": { "team": "ann-only" },
            "container": { "type": "MESOS", "volumes": [brick] },
        });
        platform.fine("ann", "POST /v2/apps", &database).await;
        platform.launch().await;
        let mut kept = database;
        kept["id"] = json!("/kept");
        platform.fine("ann", "POST /v2/apps", &kept).await;
        platform.fine("ann", "DELETE /v2/apps/kept", &Value::Null).await;
        platform.fine("bob", "POST /v2/apps", &json!({ "id": "/production/web", "cmd": "sleep 1", "cpus": 0.1, "mem": 32 })).await;
        platform
    }

    async fn ask(&self, user: &str, line: &str, body: &Value) -> Answer {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.server.ask_as(user, line, &body).await
    }

    async fn fine(&self, user: &str, line: &str, body: &Value) -> Value {
        let answer = self.ask(user, line, body).await;
        assert!(answer.status.is_success(), "{user}: {line}: {}", answer.show());
        serde_json::from_str(&answer.body).unwrap_or_default()
    }

    /// Status and body.
    async fn said(&self, user: &str, line: &str, body: &Value) -> String {
        let answer = self.ask(user, line, body).await;
        format!("{} {}", answer.status.as_u16(), answer.body)
    }

    /// Offers a node, and lets everything that is launched on it run.
    async fn launch(&mut self) {
        let resources = Resources {
            cpus: Scalar::whole(4),
            mem: Scalar::whole(4096),
            disk: Scalar::whole(10_000),
            gpus: 0,
            ports: vec![PortRange::new(31_000, 31_999)],
        };
        let offer = Offer {
            id: "o".parse().unwrap(),
            agent: AgentId::new("agent-S1"),
            host: "node1".into(),
            addresses: vec!["10.0.0.1".parse().unwrap()],
            resources,
            attributes: Vec::new(),
            reserved: Vec::new(),
            region: None,
            zone: None,
        };
        self.events.send(ClusterEvent::Offers(vec![offer])).await.unwrap();
        let launches = loop {
            if let ClusterCall::Accept { launches, .. } = self.calls.recv().await.unwrap() {
                break launches;
            }
        };
        for launch in launches {
            let status = TaskStatus {
                task: launch.task,
                agent: Some(launch.agent),
                state: TaskState::Running,
                reason: Reason::Other,
                message: String::new(),
                timestamp: Timestamp(1_600_000_000_000),
                uuid: None,
                healthy: None,
                addresses: Vec::new(),
            };
            self.events.send(ClusterEvent::Status(status)).await.unwrap();
        }
        while self.fine("ann", "GET /v2/tasks?status=running", &Value::Null).await["tasks"].as_array().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
    }

    async fn running_task(&self) -> String {
        self.fine("root", "GET /v2/apps/prod/db/tasks", &Value::Null).await["tasks"][0]["id"].as_str().unwrap().to_owned()
    }

    async fn brick_of(&self, app: &str) -> String {
        let bricks = self.fine("root", "GET /v2/bricks", &Value::Null).await;
        let found = bricks["bricks"].as_array().unwrap().iter().find(|brick| brick["app"] == app).unwrap();
        found["name"].as_str().unwrap().to_owned()
    }

    async fn port_of(&self, app: &str) -> u64 {
        let ports = self.fine("root", "GET /v2/ports", &Value::Null).await;
        ports["ports"].as_array().unwrap().iter().find(|port| port["app"] == app).unwrap()["port"].as_u64().unwrap()
    }
}

/// Words that are about ann's things alone.
const ANNS: [&str; 6] = ["s3cret", "k3y", "ann-only", "/prod/db", "prod_db", "/kept"];

/// An app that is fine but for `changes`, given as a container's fields.
fn with_container(container: Value) -> Value {
    let mut whole = json!({ "type": "DOCKER", "docker": { "image": "busybox" } });
    for (key, value) in container.as_object().unwrap() {
        match (key.as_str(), value) {
            ("docker", Value::Object(fields)) => fields.iter().for_each(|(key, value)| whole["docker"][key] = value.clone()),
            (key, value) => whole[key] = value.clone(),
        }
    }
    json!({ "id": "/x", "cmd": "sleep 1", "cpus": 0.1, "mem": 32, "container": whole })
}

fn host_volume(path: &str) -> Value {
    with_container(json!({ "volumes": [{ "hostPath": path, "containerPath": "/mnt/x", "mode": "RW" }] }))
}

fn parameter(key: &str, value: &str) -> Value {
    with_container(json!({ "docker": { "parameters": [{ "key": key, "value": value }] } }))
}

/// Metasploit's `exploit/linux/http/dcos_marathon`, as it is sent: a container with the node's root directory, to write into its cron from.
#[tokio::test]
async fn the_request_that_takes_a_node_over_is_refused_to_everybody() {
    let platform = Platform::new().await;
    let request = json!({
        "id": "/exploit", "cmd": "/bin/sh", "cpus": 1, "mem": 128, "instances": 1,
        "container": {
            "docker": { "image": "python:3-slim", "network": "HOST" }, "type": "DOCKER",
            "volumes": [{ "hostPath": "/", "containerPath": "/mnt/x", "mode": "RW" }],
        },
    });
    for user in ["bob", "root"] {
        let answer = platform.ask(user, "POST /v2/apps", &request).await;
        assert_eq!(answer.status, 422, "{user}: {}", answer.body);
        assert!(answer.body.contains("/container/volumes(0)/hostPath"), "{}", answer.body);
        assert_eq!(platform.ask(user, "GET /v2/apps/exploit", &Value::Null).await.status, 404);
    }
}

/// Pods are guarded as apps are.
#[tokio::test]
async fn a_pod_is_its_owners_alone_and_cannot_break_out() {
    let platform = Platform::new().await;
    let pod = |volumes: Value, mount: &str| {
        let container = json!({
            "name": "one", "resources": { "cpus": 0.1, "mem": 32 }, "image": { "kind": "DOCKER", "id": "busybox" },
            "environment": { "PASSWORD": "s3cret" }, "volumeMounts": [{ "name": "v", "mountPath": mount }],
        });
        json!({ "id": "/prod/pod", "containers": [container], "volumes": volumes })
    };
    for path in ["/", "/etc", "/proc/1/root", "/var/run/docker.sock", "/var/lib/docker", "/var/lib/xtao", "../../etc", "etc", ""] {
        let answer = platform.ask("root", "POST /v2/pods", &pod(json!([{ "name": "v", "host": path }]), "/mnt/x")).await;
        assert_eq!((answer.status.as_u16(), answer.body.contains("/volumes(0)/host")), (422, true), "{path}: {}", answer.body);
    }
    for mount in ["../x", "/data/../../etc", "/", "a\0b"] {
        let answer = platform.ask("ann", "POST /v2/pods", &pod(json!([{ "name": "v" }]), mount)).await;
        assert_eq!((answer.status.as_u16(), answer.body.contains("mountPath")), (422, true), "{mount}: {}", answer.body);
    }
    for name in ["../x", "_pod", "_app", "a/b", ""] {
        let mut escaping = pod(json!([{ "name": "v" }]), "/v");
        escaping["containers"][0]["name"] = json!(name);
        assert_eq!(platform.ask("ann", "POST /v2/pods", &escaping).await.status, 422, "{name}");
    }
    let fine = pod(json!([{ "name": "v" }]), "/v");
    platform.fine("ann", "POST /v2/pods", &fine).await;
    for line in ["GET /v2/pods", "GET /v2/pods/::status", "GET /v2/groups", "GET /v2/deployments", "GET /v2/queue", "GET /v2/groups/prod"] {
        let said = platform.said("bob", line, &Value::Null).await;
        assert!(!said.contains("/prod/pod") && !said.contains("s3cret"), "{line}: {said}");
        assert!(line.contains("/prod") || platform.said("ann", line, &Value::Null).await.contains("/prod/pod"), "{line}");
    }
    let instance = "prod_pod.instance-00000000-0000-0000-0000-000000000001";
    for (line, body, status) in [
        ("GET /v2/pods/prod/pod".to_owned(), Value::Null, 404),
        ("GET /v2/pods/prod/pod::status".to_owned(), Value::Null, 404),
        ("GET /v2/pods/prod/pod::versions".to_owned(), Value::Null, 404),
        ("DELETE /v2/pods/prod/pod".to_owned(), Value::Null, 404),
        (format!("DELETE /v2/pods/prod/pod::instances/{instance}"), Value::Null, 404),
        (format!("GET /v2/tasks/{instance}.one.1/logs"), Value::Null, 404),
        (format!("GET /v2/tasks/{instance}.._pod.1/logs"), Value::Null, 404),
        ("PUT /v2/pods/prod/pod".to_owned(), json!({ "owner": "bob" }), 404),
        // That an id is taken is said, and no more.
        ("PUT /v2/pods/prod/pod?force=true".to_owned(), fine.clone(), 409),
        ("POST /v2/pods?force=true".to_owned(), fine, 409),
    ] {
        let answer = platform.ask("bob", &line, &body).await;
        assert_eq!(answer.status, status, "{line}: {}", answer.body);
        assert!(!answer.body.contains("s3cret"), "{line}: {}", answer.body);
    }
}

#[tokio::test]
async fn definitions_that_would_break_out_are_refused() {
    let platform = Platform::new().await;
    let check = async |class: &str, cves: &str, app: Value, expected: &str| {
        let answer = platform.ask("bob", "POST /v2/apps", &app).await;
        assert_eq!(answer.status, 422, "{class} ({cves}): {app}: {}", answer.body);
        assert!(answer.body.contains(expected), "{class} ({cves}): {}", answer.body);
    };
    const PATHS: &str = "CVE-2020-28348, CVE-2026-14896, CVE-2017-1002101, CVE-2021-25741";
    for path in [
        "/",
        "//",
        "/./",
        "/etc",
        "/etc/cron.d/..",
        "/proc",
        "/proc/1/root",
        "/sys",
        "/dev",
        "/dev/sda",
        "/root",
        "/root/.ssh",
        "/boot",
        "/run",
        "/var/run/docker.sock",
        "/run/docker.sock",
        "/var/lib/docker",
        "/var/lib/xtao",
        "/var/lib",
        "/home/ann/.ssh",
        "/etc/shadow",
        "/tmp/a.sock",
        "../../etc",
        "etc",
        "",
    ] {
        check("host path", PATHS, host_volume(path), "/container/volumes(0)").await;
    }
    const PARAMETERS: &str = "CVE-2026-14891, CVE-2021-43415, CVE-2021-32575";
    for (key, value) in [
        ("privileged", "true"),
        ("pid", "host"),
        ("ipc", "host"),
        ("uts", "host"),
        ("userns", "host"),
        ("cgroupns", "host"),
        ("network", "host"),
        ("net", "container:x"),
        ("device", "/dev/mem"),
        ("cap-add", "SYS_ADMIN"),
        ("security-opt", "apparmor=unconfined"),
        ("volume", "/:/x"),
        ("v", "/:/x"),
        ("mount", "type=bind,source=/,target=/x"),
        ("volumes-from", "x"),
        ("runtime", "x"),
        ("sysctl", "kernel.core_pattern=|x"),
        ("cgroup-parent", "/"),
        ("add-host", "a:1.2.3.4"),
        ("oom-score-adj", "-1000"),
        ("env", "LD_PRELOAD=x"),
        ("label", "xtao.owner=ann"),
    ] {
        check("engine parameter", PARAMETERS, parameter(key, value), "may be used by administrators only").await;
    }
    check("privileged", PARAMETERS, with_container(json!({ "docker": { "privileged": true } })), "may be used by administrators only")
        .await;
    const NAMES: &str = "CVE-2026-7474, CVE-2020-27195, CVE-2022-24683";
    for id in ["/a b", "/a/..\0", "/%2e%2e", "/a;b", "/ä", "/A", "/a_b", "/-a", "/a/restart", "/$(id)", &format!("/{}", "a".repeat(4096))]
    {
        check("name", NAMES, json!({ "id": id, "cmd": "sleep 1" }), "/id").await;
    }
    for path in ["../x", "x/../y", "/data/../../etc", "", "a\0b"] {
        let volumes = json!({ "volumes": [{ "containerPath": path, "mode": "RW", "brick": { "size": 64 } }] });
        check("brick path", NAMES, with_container(volumes), "/container/volumes(0)").await;
    }
    for pool in ["../../etc", "a/b", "", ".", ".."] {
        let volumes = json!({ "volumes": [{ "containerPath": "/d", "mode": "RW", "brick": { "size": 64, "pool": pool } }] });
        check("pool", NAMES, with_container(volumes), "pool").await;
    }
    assert_eq!(platform.fine("root", "GET /v2/apps", &Value::Null).await, json!({ "apps": [] }));
}

/// An id that climbs is resolved before it is anybody's: it never names something outside the tree, and never somebody else's.
#[tokio::test]
async fn a_path_that_climbs_ends_at_the_root() {
    let platform = Platform::inhabited().await;
    for (line, expected) in
        [("GET /v2/apps/production/../prod/db", 404), ("GET /v2/apps/..%2f..%2fprod/db", 404), ("GET /v2/bricks/..%2f..", 404)]
    {
        assert_eq!(platform.ask("bob", line, &Value::Null).await.status, expected, "{line}");
    }
    let taken = platform.said("bob", "POST /v2/apps", &json!({ "id": "/production/../prod/db", "cmd": "x" })).await;
    assert_eq!(taken, r#"409 {"message":"An app with id [/prod/db] already exists."}"#);
}

/// Class "authorisation skipped on some way in" (CVE-2023-3300, CVE-2025-0937, CVE-2019-12741, CVE-2025-1296): no list and no counter tells of others.
#[tokio::test]
async fn no_list_shows_what_is_anothers() {
    let platform = Platform::inhabited().await;
    let lists = [
        "/v2/apps",
        "/v2/apps?embed=apps.tasks&embed=apps.lastTaskFailure&embed=endpoints",
        "/v2/apps?id=prod&cmd=serve&label=team",
        "/v2/apps/*",
        "/v2/apps/*/tasks",
        "/v2/groups",
        "/v2/groups?embed=group.groups&embed=group.apps&embed=group.apps.tasks",
        "/v2/tasks",
        "/v2/tasks?status=running",
        "/v2/queue",
        "/v2/queue?embed=lastUnusedOffers",
        "/v2/deployments",
        "/v2/ports",
        "/v2/nodes",
        "/v2/bricks",
        "/v2/info",
        "/v2/leader",
        "/v2/plugins",
        "/v2/auth/whoami",
        "/v2/auth/users/bob/quota",
        "/ping",
    ];
    let mut hers = String::new();
    for path in lists {
        let line = format!("GET {path}");
        let body = platform.ask("bob", &line, &Value::Null).await.body;
        for word in ANNS {
            assert!(!body.contains(word), "{path} shows '{word}' to bob: {body}");
        }
        hers += &platform.ask("ann", &line, &Value::Null).await.body;
        assert!(!platform.ask("ann", &line, &Value::Null).await.body.contains("/production"), "{path} shows bob's to ann");
    }
    let plain = [("host", "localhost"), ("accept", "text/plain")];
    assert!(platform.server.ask_with("GET /v2/tasks", &plain, "").await.body.contains("prod_db"), "to an administrator");
    for word in ANNS {
        assert!(hers.contains(word) || word == "prod_db", "nothing shows '{word}' to ann herself");
    }
    let groups = platform.fine("bob", "GET /v2/groups", &Value::Null).await;
    let names: Vec<&str> = groups["groups"].as_array().unwrap().iter().map(|group| group["id"].as_str().unwrap()).collect();
    assert_eq!(names, ["/production"]);
    for (user, count) in [("ann", 2), ("bob", 0), ("root", 2)] {
        for list in ["bricks", "ports"] {
            let found = platform.fine(user, &format!("GET /v2/{list}"), &Value::Null).await;
            assert_eq!(found[list].as_array().unwrap().len(), count, "{user} {list}");
        }
    }
}

/// A route that comes later is held to the same rule without anybody thinking of it: whatever the API's description has, asked with ann's names.
#[tokio::test]
async fn whatever_is_described_tells_and_gives_others_nothing() {
    let platform = Platform::inhabited().await;
    let (task, brick, port) =
        (platform.running_task().await, platform.brick_of("/prod/db").await, platform.port_of("/prod/db").await.to_string());
    let deployment = platform.fine("ann", "PUT /v2/apps/prod/db", &json!({ "cmd": "serve --key k3y --more" })).await;
    let deployment = deployment["deploymentId"].as_str().unwrap().to_owned();
    let version = platform.fine("ann", "GET /v2/apps/prod/db/versions", &Value::Null).await["versions"][0].as_str().unwrap().to_owned();
    let pod = json!({ "id": "/prod/pod", "containers": [{
        "name": "c", "resources": { "cpus": 0.1, "mem": 32 }, "exec": { "command": { "shell": "serve --key k3y" } },
        "image": { "kind": "DOCKER", "id": "busybox" }, "environment": { "PASSWORD": "s3cret" },
    }] });
    platform.fine("ann", "POST /v2/pods", &pod).await;
    let status = platform.fine("ann", "GET /v2/pods/prod/pod::status", &Value::Null).await;
    let instance = status["instances"][0]["id"].as_str().unwrap_or("prod_pod.instance-00000000-0000-0000-0000-000000000001").to_owned();
    let names: [(&str, &str); 11] = [
        ("{app}", "prod/db"),
        ("{pod}", "prod/pod"),
        ("{instance}", &instance),
        ("{group}", "prod"),
        ("{task}", &task),
        ("{brick}", &brick),
        ("{port}", &port),
        ("{deployment}", &deployment),
        ("{version}", &version),
        ("{user}", "ann"),
        ("{plugin}", "ann"),
    ];
    // Asked in tests of their own: what goes on for ever, and what needs parts that this server has not.
    let elsewhere = ["/v2/events", "/v2/registry", "/v2/images", "/mesos_dns"];
    let mut told_to_ann = Vec::new();
    for (path, methods) in PUBLISHED.document["paths"].as_object().unwrap() {
        if elsewhere.iter().any(|other| path.starts_with(other)) {
            continue;
        }
        let filled = names.iter().fold(path.clone(), |path, (name, value)| path.replace(name, value));
        assert!(!filled.contains('{'), "{path}: what is it called that ann has?");
        // A moment is nobody's.
        let hers = path.replace("{version}", "").contains('{');
        for method in methods.as_object().unwrap().keys().map(|method| method.to_uppercase()) {
            // A group is whose apps are in it: everybody may have some in one of that name.
            if path == "/v2/groups/{group}" && matches!(method.as_str(), "PUT" | "POST") {
                continue;
            }
            let line = format!("{method} {filled}");
            let answer = platform.server.ask_as("bob", &line, if method == "GET" { "" } else { "{}" }).await;
            if hers {
                let nothing = answer.status.is_client_error() || method == "GET" && answer.body == "[]";
                assert!(nothing, "{line}: {}", answer.show());
            }
            // What was asked for may be named in the answer.
            for word in ANNS.iter().filter(|word| method == "GET" && !(hers && word.contains("prod"))) {
                assert!(!answer.body.contains(word), "{line} shows '{word}' to bob: {}", answer.body);
            }
            if method == "GET" && platform.server.ask_as("ann", &line, "").await.status == 200 {
                told_to_ann.push(path.as_str());
            }
        }
    }
    for path in [
        "/v2/apps/{app}",
        "/v2/apps/{app}/versions/{version}",
        "/v2/pods/{pod}",
        "/v2/pods/{pod}::status",
        "/v2/pods/::status",
        "/v2/groups/{group}",
        "/v2/bricks/{brick}",
        "/v2/ports/{port}",
        "/v2/queue",
    ] {
        assert!(told_to_ann.contains(&path), "{path} is not answered to ann herself: {told_to_ann:?}");
    }
    assert_eq!(platform.running_task().await, task);
    let versions = platform.fine("ann", "GET /v2/apps/prod/db/versions", &Value::Null).await;
    assert_eq!(versions["versions"][0], version);
}

/// What is not one's own is answered letter by letter as what does not exist (CVE-2025-4922: matching by prefix; CVE-2023-1782).
#[tokio::test]
async fn what_is_anothers_is_answered_as_what_is_not_there() {
    let platform = Platform::inhabited().await;
    let (task, brick, port) =
        (platform.running_task().await, platform.brick_of("/prod/db").await, platform.port_of("/prod/db").await.to_string());
    let other_task = task.replace("prod_db", "prod_dx");
    let deployment = platform.fine("ann", "PUT /v2/apps/prod/db", &json!({ "cmd": "serve --key k3y --more" })).await;
    let deployment = deployment["deploymentId"].as_str().unwrap().to_owned();
    let version = platform.fine("ann", "GET /v2/apps/prod/db/versions", &Value::Null).await["versions"][0].as_str().unwrap().to_owned();
    let pairs: [(&str, &str, &str); 6] = [
        ("APP", "prod/db", "prod/dx"),
        ("TASK", &task, &other_task),
        ("BRICK", &brick, "no-such-brick"),
        ("PORT", &port, "1999"),
        ("DEPLOYMENT", &deployment, "d0d0d0d0-0000-0000-0000-000000000000"),
        ("GROUP", "prod", "prox"),
    ];
    let filled = |text: &str, there: bool| {
        pairs.iter().fold(text.to_owned(), |text, (name, ours, nothing)| text.replace(name, if there { ours } else { nothing }))
    };
    let ids = json!({ "ids": ["TASK"] }).to_string();
    let rows: Vec<(String, String)> = [
        ("GET /v2/apps/APP", ""),
        ("GET /v2/apps/APP?embed=app.tasks", ""),
        ("GET /v2/apps/APP/tasks", ""),
        ("GET /v2/apps/APP/versions", ""),
        ("GET /v2/apps/GROUP/*", ""),
        ("GET /v2/apps/GROUP/*/tasks", ""),
        ("GET /v2/groups/GROUP", ""),
        ("GET /v2/groups/GROUP/apps", ""),
        ("GET /v2/groups/GROUP/versions", ""),
        ("DELETE /v2/groups/GROUP?force=true", ""),
        ("PATCH /v2/groups/GROUP", r#"{"enforceRole": true}"#),
        ("PATCH /v2/apps/APP", r#"{"cmd": "x"}"#),
        ("PATCH /v2/apps", r#"[{"id": "/APP", "cmd": "x"}]"#),
        ("PUT /v2/apps/APP", r#"{"owner": "bob"}"#),
        ("DELETE /v2/apps/APP", ""),
        ("DELETE /v2/apps/APP?force=true", ""),
        ("POST /v2/apps/APP/restart?force=true", ""),
        ("DELETE /v2/apps/APP/tasks", ""),
        ("DELETE /v2/apps/APP/tasks?host=node1&scale=true", ""),
        ("DELETE /v2/apps/APP/tasks/TASK", ""),
        ("POST /v2/tasks/delete", &ids),
        ("GET /v2/tasks/TASK/logs", ""),
        ("POST /v2/tasks/TASK/exec", r#"{"command": ["id"]}"#),
        ("GET /v2/bricks/BRICK/backup?freeze=true", ""),
        ("PUT /v2/bricks/BRICK/backup", ""),
        ("DELETE /v2/queue/APP/delay", ""),
        ("DELETE /v2/deployments/DEPLOYMENT", ""),
        ("DELETE /v2/deployments/DEPLOYMENT?force=true", ""),
        ("GET /v2/ports/PORT", ""),
        ("PUT /v2/ports/PORT", r#"{"owner": "bob"}"#),
        ("DELETE /v2/ports/PORT", ""),
        ("GET /v2/bricks/BRICK", ""),
        ("PUT /v2/bricks/BRICK", r#"{"owner": "bob"}"#),
        ("DELETE /v2/bricks/BRICK?force=true", ""),
        ("POST /v2/bricks/BRICK/fence", r#"{"epoch": 1}"#),
    ]
    .map(|(line, body)| (line.to_owned(), body.to_owned()))
    .into_iter()
    .chain([(format!("GET /v2/apps/APP/versions/{version}"), String::new())])
    .collect();
    for (line, body) in rows {
        let ask = async |there: bool| {
            let answer = platform.server.ask_as("bob", &filled(&line, there), &filled(&body, there)).await;
            // Names are put back, so that only a difference of substance is one.
            let text = pairs.iter().fold(answer.body, |text, (name, ours, nothing)| text.replace(ours, name).replace(nothing, name));
            (answer.status.as_u16(), text)
        };
        let (hers, nothing) = (ask(true).await, ask(false).await);
        assert_eq!(hers, nothing, "{line}");
        let empty = line.starts_with("POST /v2/tasks/delete") || hers == (200, "[]".into());
        assert!(hers.0 == 404 || empty, "{line}: {hers:?}");
    }
    // Nothing of it had an effect.
    assert_eq!(platform.running_task().await, task);
    for (user, line) in
        [("ann", "GET /v2/apps/prod/db"), ("ann", &*format!("GET /v2/ports/{port}")), ("ann", &*format!("GET /v2/bricks/{brick}"))]
    {
        platform.fine(user, line, &Value::Null).await;
    }
}

/// The platform's registry with an image of ann's, one of bob's and one for all.
fn platforms_registry(directory: &std::path::Path) -> std::sync::Arc<Images> {
    let registry = Fake::start(|asked| match asked.line.split('?').next().unwrap() {
        "GET /v2/_catalog" => answer(200, json!({ "repositories": ["ann/db", "bob/web", "library/anna"] })),
        "GET /v2/ann/db/tags/list" | "GET /v2/bob/web/tags/list" | "GET /v2/library/anna/tags/list" => {
            answer(200, json!({ "tags": ["s3cret-tag"] }))
        }
        _ => answer(404, json!({ "errors": [{ "code": "NAME_UNKNOWN" }] })),
    });
    struct Here(std::net::SocketAddr);
    impl Directory for Here {
        fn registry(&self) -> Whereabouts {
            Whereabouts::At(self.0)
        }
        fn is_user(&self, _: &str) -> bool {
            true
        }
        fn is_administrator(&self, name: &str) -> bool {
            name == "root"
        }
    }
    let settings = platform::Settings {
        name: "registry.marathon.mesos:5000".into(),
        realm: "http://127.0.0.1:8080/v2/registry/token".into(),
        proxy: "127.0.0.1:5001".parse().unwrap(),
        password: "not to be shown".into(),
    };
    let here = Here(registry.url.strip_prefix("http://").unwrap().parse().unwrap());
    std::sync::Arc::new(Images::new(Authority::open(directory).unwrap(), Box::new(here), settings))
}

/// The registry's own catalog and tokens obey the same rule as everything else (CVE-2019-16097: a push under another's name).
#[tokio::test]
async fn images_are_their_owners_and_the_platforms_are_everybodys() {
    let directory = tempfile::tempdir().unwrap();
    let mut platform = Platform::new().await;
    platform.server.set_images(platforms_registry(directory.path()));
    for (user, expected) in [("ann", "ann/db anna"), ("bob", "bob/web anna"), ("carl", "anna"), ("root", "ann/db bob/web anna")] {
        let listed = platform.fine(user, "GET /v2/images", &Value::Null).await;
        let names: Vec<&str> = listed["images"].as_array().unwrap().iter().map(|image| image["name"].as_str().unwrap()).collect();
        assert_eq!(names.join(" "), expected, "{user}");
    }
    for line in
        ["GET /v2/images/ann/NAME", "GET /v2/images/ann%2FNAME", "DELETE /v2/images/ann/NAME", "DELETE /v2/images/ann/NAME:s3cret-tag"]
    {
        let ask = async |name: &str| platform.said("bob", &line.replace("NAME", name), &Value::Null).await.replace(name, "NAME");
        let (hers, nothing) = (ask("db").await, ask("dx").await);
        assert_eq!(hers, nothing, "{line}");
        assert!(hers.starts_with("404"), "{line}: {hers}");
    }
    for (user, line, status) in [
        ("bob", "DELETE /v2/images/anna", 403),
        ("bob", "DELETE /v2/images/library/anna", 403),
        ("bob", "PUT /v2/images/bob/web", 405),
        ("bob", "POST /v2/registry", 405),
    ] {
        assert_eq!(platform.ask(user, line, &Value::Null).await.status, status, "{user} {line}");
    }
    let scope = "scope=repository:ann/db:pull,push&scope=repository:bob/web:pull,push&scope=repository:library/anna:pull,push&scope=registry:catalog:*";
    for (user, expected) in [
        ("bob", "bob/web pull push, library/anna pull"),
        ("carl", "library/anna pull"),
        ("root", "ann/db pull push, bob/web pull push, library/anna pull push, catalog *"),
    ] {
        let token = platform.fine(user, &format!("GET /v2/registry/token?service=x&{scope}"), &Value::Null).await;
        let granted = token["access"].as_array().unwrap().iter().map(|access| {
            let actions = access["actions"].as_array().unwrap().iter().map(|action| action.as_str().unwrap());
            std::iter::once(access["name"].as_str().unwrap()).chain(actions).collect::<Vec<_>>().join(" ")
        });
        assert_eq!(granted.collect::<Vec<_>>().join(", "), expected, "{user}");
    }
    let about = platform.fine("bob", "GET /v2/registry", &Value::Null).await.to_string();
    assert!(!about.contains("not to be shown") && !about.contains("PRIVATE KEY"), "{about}");
}

/// A name that would own what is the platform's.
#[tokio::test]
async fn nobody_is_called_as_the_platforms_images_are() {
    let platform = Platform::new().await;
    for name in ["library", "localhost"] {
        let said = platform.said("root", &format!("PUT /v2/auth/users/{name}"), &json!({ "password": "long enough" })).await;
        assert!(said.starts_with("422") && said.contains("cannot be a user"), "{said}");
        let said = platform.said("root", "PUT /v2/bricks/x", &json!({ "owner": name })).await;
        assert!(said.starts_with("422") && said.contains("cannot be a user"), "{said}");
    }
}

#[tokio::test]
async fn an_id_that_is_taken_is_said_to_be_taken_and_no_more() {
    let platform = Platform::inhabited().await;
    for id in ["/prod/db", "/kept"] {
        let app = json!({ "id": id, "cmd": "sleep 1", "cpus": 0.1, "mem": 32 });
        let taken = format!(r#"409 {{"message":"An app with id [{id}] already exists."}}"#);
        assert_eq!(platform.said("bob", "POST /v2/apps", &app).await, taken);
        assert_eq!(platform.said("bob", "POST /v2/apps?force=true", &app).await, taken);
        assert_eq!(platform.said("bob", &format!("PUT /v2/apps{id}"), &app).await, taken);
        assert_eq!(platform.said("bob", "PUT /v2/apps?force=true", &json!([app])).await, taken);
    }
    // By its name, too: `/db.prod` would be `db.prod` to the name server... but not tell whose that is.
    let same_name = json!({ "id": "/db.prod", "cmd": "sleep 1", "cpus": 0.1, "mem": 32 });
    let said = platform.said("bob", "POST /v2/apps", &same_name).await;
    assert!(!said.contains("/prod/db"), "{said}");
    // Its owner, and an administrator, may have it back, with the same port and brick.
    let (port, brick) = (platform.port_of("/kept").await, platform.brick_of("/kept").await);
    let again = json!({
        "id": "/kept", "cmd": "sleep 1", "cpus": 0.1, "mem": 32, "env": { "PORT": "@PORT" },
        "container": { "type": "MESOS", "volumes": [{ "containerPath": "/data", "mode": "RW", "brick": { "size": 64 } }] },
    });
    platform.fine("ann", "POST /v2/apps", &again).await;
    assert_eq!((platform.port_of("/kept").await, platform.brick_of("/kept").await), (port, brick));
    platform.fine("ann", "DELETE /v2/apps/kept", &Value::Null).await;
    platform.fine("root", "POST /v2/apps?force=true", &again).await;
}

/// CVE-2025-4922: a rule about `/prod` must say nothing about `/production`.
#[tokio::test]
async fn one_groups_name_is_not_the_beginning_of_anothers() {
    let platform = Platform::inhabited().await;
    for (user, line, status) in [
        ("ann", "GET /v2/groups/prod", 200),
        ("ann", "GET /v2/groups/production", 404),
        ("bob", "GET /v2/groups/prod", 404),
        ("bob", "GET /v2/groups/production", 200),
        ("bob", "GET /v2/apps/prod/*", 404),
        ("bob", "GET /v2/apps/production/*", 200),
        ("bob", "GET /v2/apps/pro/*", 404),
    ] {
        assert_eq!(platform.ask(user, line, &Value::Null).await.status, status, "{user} {line}");
    }
}

/// CVE-2023-3300, CVE-2025-0937: the event stream obeys the same rule, from the first event of an app to its last.
#[tokio::test]
async fn events_are_told_to_their_owners_and_to_administrators() {
    let mut platform = Platform::new().await;
    let origin = |user: &str| Origin { user: who(user).user, admin: who(user).admin, client_ip: "".into(), uri: "".into() };
    let mut feeds = ["ann", "bob", "root"].map(|user| platform.server.api.access.session(&origin(user), true, None));
    let app = |cmd: &str| json!({ "id": "/prod/db", "cmd": cmd, "cpus": 0.1, "mem": 32, "env": { "PASSWORD": "s3cret" } });
    platform.fine("ann", "POST /v2/apps", &app("one")).await;
    platform.launch().await;
    platform.fine("ann", "DELETE /v2/apps/prod/db", &Value::Null).await;
    // An administrator's deployment of apps of both: each is told the own part.
    platform.fine("bob", "POST /v2/apps", &json!({ "id": "/production/web", "cmd": "sleep 1", "instances": 0 })).await;
    platform.fine("ann", "POST /v2/apps", &json!({ "id": "/ann", "cmd": "sleep 1", "instances": 0 })).await;
    platform.fine("root", "PATCH /v2/apps", &json!([{ "id": "/production/web", "mem": 33 }, { "id": "/ann", "mem": 33 }])).await;
    platform.fine("root", "POST /v2/apps", &json!({ "id": "/the-end", "cmd": "sleep 1", "instances": 0 })).await;

    let mut told: Vec<String> = Vec::new();
    for feed in &mut feeds {
        let mut text = String::new();
        // The last commit of a stream cannot be awaited by who is not told of it; so all are read until none is left.
        while let Ok(next) = tokio::time::timeout(std::time::Duration::from_millis(200), feed.next()).await {
            for event in next.unwrap().events {
                text += &format!("{} {}\n", event.kind(), event.body());
            }
        }
        told.push(text);
    }
    let [ann, bob, root] = told.try_into().unwrap();
    for word in ["api_post_event", "s3cret", "status_update_event", "instance_changed_event", "deployment_success", "group_change_success"]
    {
        assert!(ann.contains(word), "ann is not told of {word}: {ann}");
        assert!(root.contains(word), "an administrator is not told of {word}");
    }
    // Also while the app is being destroyed.
    let deleting = ann.split_once("StopApplication").unwrap().1;
    assert!(deleting.contains("instance_changed_event"), "{deleting}");
    for word in ["s3cret", "prod/db", "prod_db", "/ann"] {
        assert!(!bob.contains(word), "bob is told of {word}: {bob}");
    }
    assert!(bob.contains("ScaleApplication") && bob.contains("/production/web") && !ann.contains("/production"), "{bob}\n{ann}");
    assert!(root.contains("/the-end") && !ann.contains("/the-end") && !bob.contains("/the-end"));
}

#[tokio::test]
async fn a_stream_ends_when_its_reader_is_not_the_same_any_more() {
    let platform = Platform::new().await;
    let follow = |user: &str, named: bool| {
        let who = who(user);
        let origin = Origin { user: who.user, admin: who.admin, client_ip: "".into(), uri: "".into() };
        platform.server.api.access.session(&origin, named, None)
    };
    let put = async |user: &str, body: Value| platform.fine("root", &format!("PUT /v2/auth/users/{user}"), &body).await;
    put("ann", json!({ "quota": { "cpus": 2 } })).await;
    let (mut ann, mut bob, mut nobody) = (follow("ann", true), follow("bob", true), follow("root", false));
    put("ann", json!({ "quota": { "cpus": 3 } })).await;
    assert!(ann.next().await.is_ok(), "another quota is no other person");
    put("ann", json!({ "locked": true })).await;
    assert_eq!(ann.next().await.err(), Some(End::Changed));
    assert!(bob.next().await.is_ok() && bob.next().await.is_ok());
    assert!(nobody.next().await.is_ok() && nobody.next().await.is_ok());
    put("carl", json!({ "password": "a long enough password" })).await;
    assert_eq!(nobody.next().await.err(), Some(End::Changed), "from the first password on, nobody is everybody");
}

/// CVE-2025-1296 and the like: what is secret is not in any output, nor in what is logged of a request.
#[tokio::test]
async fn secrets_are_in_no_output() {
    let platform = Platform::new().await;
    platform.fine("root", "PUT /v2/auth/users/ann", &json!({ "password": "pass-of-ann-1234" })).await;
    for line in ["GET /v2/auth/users", "GET /v2/auth/users/ann", "GET /v2/info", "GET /v2/auth/users/ann/quota", "GET /v2/audit"] {
        let body = platform.ask("root", line, &Value::Null).await.body;
        assert!(!body.contains("pass-of-ann") && !body.contains("argon2"), "{line}: {body}");
    }
    assert_eq!(platform.ask("bob", "GET /v2/auth/users", &Value::Null).await.status, 403);
    assert_eq!(platform.ask("bob", "GET /v2/auth/users/ann", &Value::Null).await.status, 404);
    assert_eq!(platform.ask("bob", "GET /v2/auth/users/ann/quota", &Value::Null).await.status, 404);
    assert_eq!(platform.ask("bob", "PUT /v2/auth/users/bob/quota", &json!({ "cpus": 99 })).await.status, 403);
    assert_eq!(platform.ask("bob", "GET /v2/audit", &Value::Null).await.status, 403);
    for line in ["GET /metrics", "GET /metrics/prometheus"] {
        assert_eq!(platform.ask("bob", line, &Value::Null).await.status, 403, "{line}: it counts everybody's");
        assert_eq!(platform.ask("root", line, &Value::Null).await.status, 200, "{line}");
    }
}

/// CVE-2018-11793 (nesting), CVE-2022-24685 (costly input), CVE-2020-7218 and the registry's unbounded bodies.
#[tokio::test]
async fn input_has_limits() {
    let platform = Platform::new().await;
    let many = |count: usize| (0..count).map(|number| (number.to_string(), json!("x"))).collect::<serde_json::Map<_, _>>();
    let check = async |body: String, status: u16| {
        let answer = platform.server.ask_as("bob", "POST /v2/apps", &body).await;
        assert_eq!(answer.status, status, "{}...: {}", &body[..body.len().min(60)], answer.body);
    };
    check("[".repeat(100_000), 400).await;
    check(format!("{}1{}", r#"{"env":"#.repeat(10_000), "}".repeat(10_000)), 400).await;
    check(json!({ "id": "/x", "cmd": "x", "env": many(1001) }).to_string(), 422).await;
    check(json!({ "id": "/x", "cmd": "x", "labels": many(1001) }).to_string(), 422).await;
    check(json!({ "id": "/x", "cmd": "x", "instances": 1_000_001 }).to_string(), 422).await;
    check(json!({ "id": "/x", "cmd": "x", "constraints": [["hostname", "LIKE", "(a{1000}){1000}"]] }).to_string(), 422).await;
    check(format!(r#"{{"id": "/x", "cmd": "{}"}}"#, "x".repeat(5 * 1024 * 1024)), 413).await;
}

/// DNS rebinding and requests across origins, from a page in the browser of somebody who may do more than the page's author.
#[tokio::test]
async fn pages_of_others_can_do_nothing() {
    let platform = Platform::inhabited().await;
    let check = async |class: &str, line: &str, headers: &[(&str, &str)], body: &str, status: u16| {
        let answer = platform.server.ask_with(line, headers, body).await;
        assert_eq!(answer.status, status, "{class}: {}", answer.body);
        assert!(!answer.body.contains("s3cret"), "{class}");
        assert_eq!(answer.headers["x-content-type-options"], "nosniff", "CVE-2020-10944");
        assert_eq!(answer.headers["x-frame-options"], "DENY", "{class}");
    };
    let app = r#"{"id": "/x", "cmd": "sleep 1"}"#;
    check("rebinding", "GET /v2/apps/prod/db", &[("host", "evil.example")], "", 403).await;
    check("rebinding", "GET /v2/apps/prod/db", &[("host", "localhost.evil.example:8080")], "", 403).await;
    check("CSRF", "POST /v2/apps", &[("host", "localhost"), ("origin", "https://evil.example")], app, 403).await;
    check("CSRF", "DELETE /v2/apps/prod/db", &[("host", "localhost"), ("origin", "null")], "", 403).await;
    check("CSRF", "DELETE /v2/apps/prod/db", &[("host", "localhost"), ("sec-fetch-site", "cross-site")], "", 403).await;
    check("CSRF by a form", "POST /v2/apps", &[("host", "localhost"), ("content-type", "text/plain")], app, 415).await;
    // Scripts may send groups as anything, pages may not.
    let page = [("host", "localhost"), ("content-type", "text/plain"), ("referer", "http://localhost/page")];
    check("CSRF by a form", "POST /v2/groups", &page, r#"{"id": "/x"}"#, 415).await;
}

/// CVE-2020-8554: nobody takes over what reaches another. Ports, bricks and names are claims of their owner, also when the app is gone.
#[tokio::test]
async fn what_reaches_an_app_cannot_be_taken_over() {
    let platform = Platform::inhabited().await;
    let (port, brick) = (platform.port_of("/kept").await, platform.brick_of("/kept").await);
    for user in ["bob"] {
        assert_eq!(platform.ask(user, &format!("DELETE /v2/ports/{port}"), &Value::Null).await.status, 404);
        assert_eq!(platform.ask(user, &format!("DELETE /v2/bricks/{brick}"), &Value::Null).await.status, 404);
    }
    // The owner may ask, but not decide that a holder is gone, nor give it away.
    for (line, body) in [
        (format!("POST /v2/bricks/{brick}/fence"), json!({ "epoch": 0 })),
        (format!("PUT /v2/bricks/{brick}"), json!({ "owner": "bob" })),
        (format!("PUT /v2/ports/{port}"), json!({ "owner": "bob" })),
        ("PUT /v2/apps/prod/db".to_owned(), json!({ "owner": "bob" })),
    ] {
        let said = platform.said("ann", &line, &body).await;
        assert_eq!(said, r#"403 {"message":"Not Authorized to perform this action!"}"#, "{line}");
    }
    // An administrator does, and then it is bob's.
    platform.fine("root", &format!("PUT /v2/bricks/{brick}"), &json!({ "owner": "bob" })).await;
    platform.fine("root", &format!("PUT /v2/ports/{port}"), &json!({ "owner": "bob" })).await;
    assert_eq!(platform.ask("ann", &format!("GET /v2/bricks/{brick}"), &Value::Null).await.status, 404);
    platform.fine("bob", &format!("DELETE /v2/ports/{port}"), &Value::Null).await;
    platform.fine("bob", &format!("DELETE /v2/bricks/{brick}"), &Value::Null).await;
}

/// CVE-2020-8554 again, by a load balancer: what leads to an app from outside is the first one's, whichever group or port of a node the second one has.
#[tokio::test]
async fn what_a_load_balancer_leads_by_cannot_be_taken_over() {
    let platform = Platform::inhabited().await;
    let mapped = |id: &str, service_port: u16| {
        let mapping = json!({ "containerPort": 80, "hostPort": 0, "servicePort": service_port });
        let mut app = with_container(json!({ "portMappings": [mapping] }));
        (app["id"], app["networks"], app["instances"]) = (json!(id), json!([{ "mode": "container/bridge" }]), json!(0));
        app
    };
    let defined = |id: &str, port: u64| json!({ "id": id, "cmd": "x", "instances": 0, "portDefinitions": [{ "port": port }] });
    let labelled =
        |id: &str, label: &str, text: &str| json!({ "id": id, "cmd": "x", "instances": 0, "ports": [], "labels": { label: text } });
    platform.fine("ann", "POST /v2/apps", &mapped("/front", 10_100)).await;
    platform.fine("ann", "POST /v2/apps", &labelled("/shop", "HAPROXY_0_VHOST", "shop.example,www.shop.example")).await;
    let claimed = platform.port_of("/kept").await;
    let refused = [
        (mapped("/x", 10_100), "/container/portMappings(0)/servicePort"),
        (defined("/x", 10_100), "/portDefinitions(0)/port"),
        (defined("/x", claimed), "/portDefinitions(0)/port"),
        (labelled("/x", "HAPROXY_0_VHOST", "shop.example"), "/labels(HAPROXY_0_VHOST)"),
        (labelled("/x", "HAPROXY_13_VHOST", "a.example, WWW.Shop.Example"), "/labels(HAPROXY_13_VHOST)"),
    ];
    for (app, place) in &refused {
        let answer = platform.ask("bob", "POST /v2/apps", app).await;
        assert!(answer.status == 422 && answer.body.contains(place) && answer.body.contains("is another user's"), "{app}: {}", answer.body);
        assert!(ANNS.iter().all(|word| !answer.body.contains(word)) && !answer.body.contains("/front"), "{}", answer.body);
        let mut below = app.clone();
        below["id"] = json!("x");
        let answer = platform.ask("bob", "PUT /v2/groups", &json!({ "id": "/bobs", "apps": [below] })).await;
        assert!(answer.status == 422 && answer.body.contains("is another user's"), "{app}: {}", answer.body);
    }
    // By a change, too; and what is there already may stay when something else is changed.
    platform.fine("bob", "POST /v2/apps", &mapped("/mine", 10_101)).await;
    let container = &mapped("/mine", 10_100)["container"];
    assert_eq!(platform.ask("bob", "PUT /v2/apps/mine?force=true", &json!({ "container": container })).await.status, 422);
    platform.fine("bob", "PUT /v2/apps/mine?force=true", &json!({ "mem": 33 })).await;
    // Among the own ones, and for an administrator, they may be shared as in Marathon; from then on the others keep it.
    platform.fine("ann", "POST /v2/apps", &mapped("/front2", 10_100)).await;
    platform.fine("ann", "POST /v2/apps", &labelled("/shop2", "HAPROXY_0_VHOST", "shop.example")).await;
    platform.fine("root", "PUT /v2/apps/mine?force=true", &json!({ "container": container })).await;
    platform.fine("bob", "PUT /v2/apps/mine?force=true", &json!({ "container": container, "mem": 34 })).await;
    // With the last app that has it, it is free.
    for id in ["shop", "shop2"] {
        platform.fine("ann", &format!("DELETE /v2/apps/{id}?force=true"), &Value::Null).await;
    }
    platform.fine("bob", "POST /v2/apps", &labelled("/x", "HAPROXY_0_VHOST", "shop.example")).await;
}

#[tokio::test]
async fn an_app_that_is_handed_over_goes_with_all_that_it_has() {
    let platform = Platform::inhabited().await;
    let wrong = platform.ask("root", "PUT /v2/apps/prod/db", &json!({ "owner": "bob", "cmd": "x" })).await;
    assert_eq!(wrong.status, 422, "{}", wrong.body);
    assert_eq!(platform.ask("root", "PUT /v2/apps/prod/db", &json!({ "owner": "a/b" })).await.status, 422);
    while !platform
        .fine("root", "GET /v2/deployments", &Value::Null)
        .await
        .as_array()
        .unwrap()
        .iter()
        .all(|d| !d.to_string().contains("prod/db"))
    {
        tokio::task::yield_now().await;
    }
    platform.fine("root", "PUT /v2/apps/prod/db", &json!({ "owner": "bob" })).await;
    assert_eq!(platform.ask("ann", "GET /v2/apps/prod/db", &Value::Null).await.status, 404);
    let app = platform.fine("bob", "GET /v2/apps/prod/db", &Value::Null).await;
    assert_eq!(app["app"]["tasks"].as_array().unwrap().len(), 1, "it goes on running");
    for list in ["bricks", "ports"] {
        let found = platform.fine("bob", &format!("GET /v2/{list}"), &Value::Null).await;
        assert_eq!((found[list].as_array().unwrap().len(), &found[list][0]["owner"]), (1, &json!("bob")), "{list}");
    }
    let used = |quota: &Value| (quota["used"]["instances"].clone(), quota["used"]["ports"].clone(), quota["used"]["brick"].clone());
    let bob = platform.fine("bob", "GET /v2/auth/users/bob/quota", &Value::Null).await;
    assert_eq!(used(&bob), (json!(2), json!(1), json!(64)));
    let ann = platform.fine("ann", "GET /v2/auth/users/ann/quota", &Value::Null).await;
    assert_eq!(used(&ann), (json!(0), json!(1), json!(64)), "of what was destroyed");
}

/// A force that an ordinary user applies reaches no further than the user's own things.
#[tokio::test]
async fn force_does_not_reach_what_is_anothers() {
    let platform = Platform::inhabited().await;
    let both = json!([{ "id": "/prod/db", "mem": 33 }, { "id": "/production/web", "mem": 33 }]);
    let deployment = platform.fine("root", "PATCH /v2/apps?force=true", &both).await["deploymentId"].as_str().unwrap().to_owned();
    let shown = platform.fine("bob", "GET /v2/deployments", &Value::Null).await;
    assert_eq!(shown[0]["affectedApps"], json!(["/production/web"]), "{shown}");
    for line in [format!("DELETE /v2/deployments/{deployment}"), format!("DELETE /v2/deployments/{deployment}?force=true")] {
        assert_eq!(platform.ask("bob", &line, &Value::Null).await.status, 403, "{line}");
    }
    assert_eq!(platform.ask("bob", "PUT /v2/apps/production/web?force=true", &json!({ "mem": 34 })).await.status, 403);
    assert_eq!(platform.ask("bob", "PUT /v2/apps/production/web", &json!({ "mem": 34 })).await.status, 409);
}

#[tokio::test]
async fn what_an_administrator_grants_may_be_used() {
    let platform = Platform::new().await;
    let privileged = with_container(json!({ "docker": { "privileged": true } }));
    let parameters = parameter("ulimit", "nofile=10");
    let grant = async |grants: Value| platform.fine("root", "PUT /v2/auth/users/bob", &json!({ "grants": grants })).await;
    let status = async |app: &Value| platform.ask("bob", "PUT /v2/apps/x?force=true", app).await.status.as_u16();
    grant(json!({ "dockerParameters": true })).await;
    assert_eq!((status(&privileged).await, status(&parameters).await), (422, 201));
    grant(json!({ "privileged": true })).await;
    assert_eq!((status(&privileged).await, status(&parameters).await), (200, 422));
    grant(json!({})).await;
    let changed = |mut app: Value| {
        app["cmd"] = json!("sleep 2");
        app
    };
    assert_eq!((status(&changed(privileged)).await, status(&parameters).await), (422, 422));
    // What is there stays, and its size may still be changed.
    assert_eq!(platform.ask("bob", "PUT /v2/apps/x?force=true", &json!({ "instances": 2 })).await.status, 200);
}

/// A push goes to the registry, and is seen here by the token that it needs; a token for reading is no change.
#[tokio::test]
async fn who_may_push_an_image_is_in_the_audit_log() {
    let directory = tempfile::tempdir().unwrap();
    let mut platform = Platform::new().await;
    platform.server.set_images(platforms_registry(directory.path()));
    platform.server.audited(crate::audit::Audit::open(&directory.path().join("audit")).unwrap());
    for (user, scope) in [
        ("ann", "repository:ann/db:pull,push"),
        ("bob", "repository:ann/db:pull,push"),
        ("bob", "repository:library/anna:pull"),
        ("root", "repository:library/anna:delete"),
    ] {
        platform.fine(user, &format!("GET /v2/registry/token?service=x&scope={scope}"), &Value::Null).await;
    }
    platform.ask("bob", "DELETE /v2/images/anna:1", &Value::Null).await;
    let entries = platform.fine("root", "GET /v2/audit", &Value::Null).await;
    let line = |entry: &Value| format!("{} {} {} {} {}", entry["user"], entry["method"], entry["path"], entry["of"], entry["status"]);
    let lines: Vec<String> = entries["entries"].as_array().unwrap().iter().map(line).collect();
    insta::assert_snapshot!(lines.join("\n").replace('"', ""), @r"
    ann GET /v2/registry/token [image ann/db] 200
    bob GET /v2/registry/token [image ann/db (not granted)] 200
    root GET /v2/registry/token [image anna] 200
    bob DELETE /v2/images/anna:1 [image anna:1] 403
    ");
}

#[tokio::test]
async fn every_change_is_in_the_audit_log_with_its_outcome() {
    let directory = tempfile::tempdir().unwrap();
    let mut platform = Platform::new().await;
    platform.server.audited(crate::audit::Audit::open(directory.path()).unwrap());
    let app = json!({ "id": "/web", "cmd": "serve --key k3y", "env": { "PASSWORD": "s3cret" } });
    platform.fine("ann", "POST /v2/apps", &app).await;
    platform.ask("bob", "DELETE /v2/apps/web?token=t0ken", &Value::Null).await;
    platform.ask("bob", "POST /v2/tasks/delete", &json!({ "ids": [] })).await;
    platform.ask("ann", "GET /v2/apps", &Value::Null).await;
    platform.fine("root", "PUT /v2/auth/users/ann", &json!({ "password": "pass-of-ann-1234" })).await;
    let answer = platform.fine("root", "GET /v2/audit", &Value::Null).await;
    let lines: Vec<String> = answer["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| {
            let text = |name: &str| entry[name].as_str().unwrap_or("-").to_owned();
            let deployment = if entry["deployment"].is_string() { "deployment" } else { "-" };
            format!(
                "{} {} {} {} {} {} {deployment}",
                text("user"),
                entry["admin"],
                text("method"),
                text("path"),
                entry["of"],
                entry["status"]
            )
        })
        .collect();
    insta::assert_snapshot!(lines.join("\n"), @r#"
    ann false POST /v2/apps ["/web"] 201 deployment
    bob false DELETE /v2/apps/web ["/web"] 404 -
    bob false POST /v2/tasks/delete null 200 -
    root true PUT /v2/auth/users/ann ["user ann"] 200 -
    "#);
    let all = std::fs::read_to_string(directory.path().join("audit.jsonl")).unwrap();
    for secret in ["s3cret", "k3y", "t0ken", "pass-of-ann", "argon2"] {
        assert!(!all.contains(secret), "{secret} is in the audit log");
    }
    let count = async |query: &str| {
        platform.fine("root", &format!("GET /v2/audit?{query}"), &Value::Null).await["entries"].as_array().unwrap().len()
    };
    assert_eq!((count("user=bob").await, count("limit=1").await, count("since=2999-01-01T00:00:00.000Z").await), (2, 1, 0));
    for query in ["limit=0", "limit=x", "limit=10001", "since=yesterday"] {
        assert_eq!(platform.ask("root", &format!("GET /v2/audit?{query}"), &Value::Null).await.status, 422, "{query}");
    }
}
