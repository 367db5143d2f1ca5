//! Pods, and the generic checks of apps, on the whole way: the HTTP API, the real core and driver, the embedded engine, and a real Docker daemon of the test's own. Needs root; see
//! [`docker`](crate::support::docker).

mod house;

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    os::unix::process::CommandExt,
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use self::house::House;
use crate::support::docker::{Daemon, IMAGE, Options};

fn container(name: &str, command: &str) -> Value {
    json!({
        "name": name,
        "resources": {"cpus": 0.1, "mem": 32},
        "image": {"kind": "DOCKER", "id": IMAGE},
        "exec": {"command": {"shell": command}},
        "lifecycle": {"killGracePeriodSeconds": 0.1},
    })
}

/// Two containers that need each other: one serves what the other writes, and the other asks it on `localhost`.
fn shop() -> Value {
    let mut web = container("web", "until test -e /data/index.html; do sleep 0.1; done; exec httpd -f -p 8080 -h /data");
    web["endpoints"] = json!([{"name": "http", "containerPort": 8080, "hostPort": 0, "protocol": ["tcp"]}]);
    web["volumeMounts"] = json!([{"name": "data", "mountPath": "/data"}]);
    let mut side = container(
        "side",
        "echo hello $MARATHON_CONTAINER_ID > shared/index.html; env > shared/env; \
         until wget -q -O shared/seen http://127.0.0.1:$ENDPOINT_HTTP/index.html; do sleep 0.1; done; exec sleep 1000",
    );
    side["exec"]["command"]["shell"] = json!(format!("cd $MESOS_SANDBOX; {}", side["exec"]["command"]["shell"].as_str().unwrap()));
    side["volumeMounts"] = json!([{"name": "data", "mountPath": "shared"}]);
    json!({
        "id": "/shop/front",
        "networks": [{"mode": "container/bridge"}],
        "containers": [web, side],
        "volumes": [{"name": "data"}],
        "scheduling": {"backoff": {"backoff": 0.1, "backoffFactor": 1, "maxLaunchDelay": 0.1}},
    })
}

/// The names and states of what Docker has, the held networks among them.
fn containers(daemon: &Daemon) -> Vec<String> {
    let listed = daemon.docker(&["ps", "--all", "--format", "{{.Names}} {{.State}}"]);
    let mut lines: Vec<String> = listed.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

fn ids(status: &Value) -> Vec<String> {
    let containers = status["instances"][0]["containers"].as_array().unwrap();
    containers.iter().map(|container| container["containerId"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_of_a_pod_share_their_network_and_volumes_and_live_and_end_together() {
    let daemon = Daemon::start(Options::default());
    let mut house = House::start(&daemon).await;
    let (status, created) = house.ask(Method::POST, "/v2/pods", Some(shop())).await;
    assert_eq!((status, &created["id"]), (StatusCode::CREATED, &json!("/shop/front")), "{created}");
    let stable = house.stable("/shop/front", 1).await;

    // Reached from outside, and by each other.
    let endpoint = &stable["instances"][0]["containers"][0]["endpoints"][0];
    let url = format!("http://{}:{}/", daemon.address(), endpoint["allocatedHostPort"]);
    house.serves(&url, "hello side\n").await;
    house.serves(&format!("{url}seen"), "hello side\n").await;
    let environment = house.text(&format!("{url}env")).await;
    let port = endpoint["allocatedHostPort"].to_string();
    for line in ["ENDPOINT_HTTP=8080", &format!("EP_HOST_HTTP={port}"), "EP_CONTAINER_HTTP=8080", "MARATHON_CONTAINER_ID=side"] {
        assert!(environment.lines().any(|found| found == line), "{line}: {environment}");
    }
    let first = ids(&stable);
    let instance = stable["instances"][0]["id"].as_str().unwrap().to_owned();
    assert_eq!(first, [format!("{instance}.web.1"), format!("{instance}.side.1")]);
    let named = |container: &str, launch: u32| format!("xtao-{instance}.{container}.{launch} running");
    assert_eq!(containers(&daemon), [named("_pod", 1), named("side", 1), named("web", 1)]);
    // A pod is no app, and its tasks are not listed with those of apps.
    assert_eq!(house.get("/v2/apps").await, json!({"apps": []}));
    assert_eq!(house.get("/v2/tasks").await, json!({"tasks": []}));
    assert_eq!(house.get("/v2/groups").await["groups"][0]["pods"][0]["status"], "STABLE");

    // One fails: all end, and the instance is launched again as a whole.
    daemon.docker(&["kill", &format!("xtao-{instance}.side.1")]);
    let again = house.stable("/shop/front", 2).await;
    assert_eq!(ids(&again), [format!("{instance}.web.2"), format!("{instance}.side.2")]);
    let failure = &again["terminationHistory"][0];
    assert_eq!((&failure["instanceID"], &failure["containers"][0]["lastKnownState"]), (&json!(instance), &json!("TASK_FAILED")), "{again}");
    house.until(async |_| containers(&daemon) == [named("_pod", 2), named("side", 2), named("web", 2)]).await;

    // A restart of ours changes nothing: the containers are taken over as they are.
    let before = daemon.docker(&["ps", "--no-trunc", "--quiet"]);
    house.restart(&daemon).await;
    let adopted = house.stable("/shop/front", 2).await;
    assert_eq!((ids(&adopted), daemon.docker(&["ps", "--no-trunc", "--quiet"])), (ids(&again), before));

    let (status, body) = house.ask(Method::DELETE, "/v2/pods/shop/front", None).await;
    assert_eq!((status, body), (StatusCode::ACCEPTED, json!("")));
    house.until(async |_| containers(&daemon).is_empty()).await;
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_are_upgraded_checked_and_killed_and_get_their_ports_back() {
    let daemon = Daemon::start(Options::default());
    let mut house = House::start(&daemon).await;
    // With the node's network a container listens where it is told to. It is well when it answers.
    let mut web = container("web", "mkdir /tmp/www; echo $GREETING > /tmp/www/index.html; exec httpd -f -p $ENDPOINT_HTTP -h /tmp/www");
    web["endpoints"] = json!([{"name": "http"}]);
    web["healthCheck"] = json!({"http": {"endpoint": "http"}, "intervalSeconds": 2, "timeoutSeconds": 1, "delaySeconds": 0});
    let mut pod = json!({"id": "/host", "networks": [{"mode": "host"}], "environment": {"GREETING": "one"}, "containers": [web]});
    assert_eq!(house.ask(Method::POST, "/v2/pods", Some(pod.clone())).await.0, StatusCode::CREATED);
    let stable = house.stable("/host", 1).await;
    let one = &stable["instances"][0]["containers"][0];
    let endpoint = &one["endpoints"][0];
    assert_eq!((&endpoint["healthy"], &one["conditions"][0]["value"]), (&json!(true), &json!("true")), "{stable}");
    house.serves(&format!("http://{}:{}/", daemon.address(), endpoint["allocatedHostPort"]), "one\n").await;
    assert!(!daemon.docker(&["ps", "--all", "--format", "{{.Names}}"]).contains("_pod"));

    pod["environment"]["GREETING"] = json!("two");
    pod["scaling"] = json!({"kind": "fixed", "instances": 2});
    let (status, updated) = house.ask(Method::PUT, "/v2/pods/host", Some(pod)).await;
    assert_eq!((status, &updated["environment"]["GREETING"]), (StatusCode::OK, &json!("two")), "{updated}");
    house.until(async |house| house.get("/v2/deployments").await == json!([])).await;
    let upgraded = house.stable("/host", 1).await;
    let instances = upgraded["instances"].as_array().unwrap();
    assert_eq!(instances.len(), 2);
    for instance in instances {
        let port = &instance["containers"][0]["endpoints"][0]["allocatedHostPort"];
        house.serves(&format!("http://{}:{port}/", daemon.address()), "two\n").await;
    }
    assert_eq!(house.get("/v2/pods/host::versions").await.as_array().unwrap().len(), 2);

    // A killed instance is launched again under its id.
    let victim = instances[0]["id"].as_str().unwrap();
    let (status, killed) = house.ask(Method::DELETE, &format!("/v2/pods/host::instances/{victim}"), None).await;
    assert_eq!((status, &killed["instanceId"]), (StatusCode::OK, &json!(victim)), "{killed}");
    let again = format!("{victim}.web.2");
    house
        .until(async |house| {
            let status = house.get("/v2/pods/host::status").await;
            status["status"] == "STABLE"
                && status["instances"].as_array().unwrap().iter().any(|one| one["containers"][0]["containerId"] == again)
        })
        .await;

    // A container that has done its work leaves the others alone. A fixed port is free again by the time of the next launch.
    let mut server = container("server", "echo fixed > /tmp/index.html; exec httpd -f -p 80 -h /tmp");
    server["endpoints"] = json!([{"name": "fixed", "containerPort": 80, "hostPort": 31555}]);
    let job = container("job", "exit 0");
    let scheduling = json!({"backoff": {"backoff": 0, "maxLaunchDelay": 0}});
    let fixed = json!({"id": "/fixed", "networks": [{"mode": "container/bridge"}], "containers": [server, job], "scheduling": scheduling});
    assert_eq!(house.ask(Method::POST, "/v2/pods", Some(fixed)).await.0, StatusCode::CREATED);
    let finished = |launch: u32| {
        async move |house: &House| {
            let status = house.get("/v2/pods/fixed::status").await;
            let containers = &status["instances"][0]["containers"];
            let ids = containers[0]["containerId"].as_str().is_some_and(|id| id.ends_with(&format!(".{launch}")));
            status["status"] == "STABLE" && ids && containers[0]["status"] == "TASK_RUNNING" && containers[1]["status"] == "TASK_FINISHED"
        }
    };
    let url = format!("http://{}:31555/", daemon.address());
    for launch in 1..=3 {
        house.until(finished(launch)).await;
        house.serves(&url, "fixed\n").await;
        let instance = house.get("/v2/pods/fixed::status").await["instances"][0]["id"].as_str().unwrap().to_owned();
        daemon.docker(&["kill", &format!("xtao-{instance}.server.{launch}")]);
    }
    house.until(finished(4)).await;

    // Somebody removes what holds the network: the pod cannot be reached any more, and is launched again.
    let instance = house.get("/v2/pods/fixed::status").await["instances"][0]["id"].as_str().unwrap().to_owned();
    daemon.docker(&["rm", "--force", &format!("xtao-{instance}._pod.4")]);
    house.until(finished(5)).await;
    house.serves(&url, "fixed\n").await;
    for pod in ["host", "fixed"] {
        assert_eq!(house.ask(Method::DELETE, &format!("/v2/pods/{pod}"), None).await.0, StatusCode::ACCEPTED);
    }
    house.until(async |_| containers(&daemon).is_empty()).await;
    house.stop().await;
}

/// Commands that check a container run in that very container, and what they find ends the whole instance.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_checks_the_container_that_names_it() {
    let daemon = Daemon::start(Options::default());
    let mut house = House::start(&daemon).await;
    let check = |command: Value| json!({"exec": {"command": command}, "intervalSeconds": 3, "timeoutSeconds": 2, "delaySeconds": 0, "maxConsecutiveFailures": 1});
    let mut marked = container("marked", "touch /tmp/mark; exec sleep 1000");
    marked["healthCheck"] = check(json!({"shell": "test -e /tmp/mark && test $MARATHON_CONTAINER_ID = marked"}));
    let mut plain = container("plain", "exec sleep 1000");
    plain["healthCheck"] = check(json!({"argv": ["sh", "-c", "! test -e /tmp/mark"]}));
    let pod = json!({
        "id": "/checked",
        "networks": [{"mode": "container/bridge"}],
        "containers": [marked, plain, container("unchecked", "exec sleep 1000")],
    });
    assert_eq!(house.ask(Method::POST, "/v2/pods", Some(pod)).await.0, StatusCode::CREATED);
    let stable = house.stable("/checked", 1).await;
    let instance = &stable["instances"][0];
    let healthy: Vec<&Value> = [0, 1].map(|at| &instance["containers"][at]["conditions"][0]["value"]).to_vec();
    assert_eq!((healthy, &instance["containers"][2]["conditions"]), (vec![&json!("true"), &json!("true")], &json!([])), "{stable}");
    house.until(async |house| house.get("/v2/deployments").await == json!([])).await;

    let id = instance["id"].as_str().unwrap();
    daemon.docker(&["exec", &format!("xtao-{id}.marked.1"), "rm", "/tmp/mark"]);
    let again = house.stable("/checked", 2).await;
    let failure = &again["terminationHistory"][0];
    let message = failure["message"].as_str().unwrap();
    assert!(message.starts_with("Task was killed since health check failed. Reason:"), "{again}");
    assert_eq!(failure["containers"][0]["containerId"], format!("{id}.marked.1"));
    house.until(async |_| containers(&daemon).len() == 4).await;
    house.ask(Method::DELETE, "/v2/pods/checked", None).await;
    house.until(async |_| containers(&daemon).is_empty()).await;
    house.stop().await;
}

/// A server on the node that answers every request with the status that is wanted at the moment.
fn moody() -> (u16, Arc<AtomicU16>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (port, status) = (listener.local_addr().unwrap().port(), Arc::new(AtomicU16::new(200)));
    let wanted = status.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            _ = BufReader::new(&stream).read_line(&mut String::new());
            let status = wanted.load(Ordering::Relaxed);
            _ = stream.write_all(format!("HTTP/1.1 {status} So\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").as_bytes());
        }
    });
    (port, status)
}

/// Generic checks of a plain command, of an app with an image, and of containers: what they find is shown, follows what is so, and has no
/// consequences.
#[tokio::test(flavor = "multi_thread")]
async fn what_generic_checks_find_is_shown_and_harms_nobody() {
    let daemon = Daemon::start(Options::default());
    let mut house = House::start(&daemon).await;
    let (port, status) = moody();
    let check = |mut check: Value| {
        check
            .as_object_mut()
            .unwrap()
            .extend(json!({"intervalSeconds": 1, "timeoutSeconds": 5, "delaySeconds": 0}).as_object().unwrap().clone());
        check
    };
    let exec = |text: &str| check(json!({"exec": {"command": {"shell": text}}}));
    let app = |id: &str, check: Value| json!({"id": id, "cmd": "exec sleep 1000", "cpus": 0.1, "mem": 32, "check": check});
    let mut imaged = app("/imaged", exec("test -e /tmp/mark && test $MARATHON_APP_ID = /imaged"));
    imaged["container"] = json!({"type": "MESOS", "docker": {"image": IMAGE}});
    for app in [
        app("/command", exec("test -e mark && test $MARATHON_APP_ID = /command")),
        app("/page", check(json!({"http": {"port": port, "path": "/status"}}))),
        app("/port", check(json!({"tcp": {"portIndex": 0}}))),
        imaged,
    ] {
        assert_eq!(house.ask(Method::POST, "/v2/apps", Some(app.clone())).await.0, StatusCode::CREATED, "{app}");
    }
    let mut one = container("one", "exec sleep 1000");
    one["check"] = exec("test -e /tmp/mark && test $MARATHON_CONTAINER_ID = one");
    let mut two = container("two", "exec httpd -f -p 8080");
    two["endpoints"] = json!([{"name": "http", "containerPort": 8080}]);
    two["check"] = check(json!({"http": {"endpoint": "http", "path": "/none"}}));
    let pod =
        json!({"id": "/pod", "networks": [{"mode": "container/bridge"}], "containers": [one, two, container("three", "exec sleep 1000")]});
    assert_eq!(house.ask(Method::POST, "/v2/pods", Some(pod)).await.0, StatusCode::CREATED);
    let of_pod = async |house: &House| {
        let status = house.get("/v2/pods/pod::status").await;
        [0, 1, 2].map(|at| status["instances"][0]["containers"][at]["checkResult"].clone())
    };
    let of_app = async |house: &House, id: &str| house.get(&format!("/v2/apps{id}/tasks")).await["tasks"][0]["checkResult"].clone();
    let code = |code: i32| json!({"command": {"exitCode": code}});
    let page = |status: u16| json!({"http": {"statusCode": status}});

    for (id, expected) in
        [("/command", code(1)), ("/page", page(200)), ("/port", json!({"tcp": {"succeeded": false}})), ("/imaged", code(1))]
    {
        house.until(async |house| of_app(house, id).await == expected).await;
    }
    house.until(async |house| of_pod(house).await == [code(1), page(404), Value::Null]).await;
    assert_eq!(house.get("/v2/deployments").await, json!([]));

    // Each follows what is so.
    let tasks = house.get("/v2/tasks").await;
    let task = |app: &str| {
        let tasks = tasks["tasks"].as_array().unwrap();
        tasks.iter().find(|task| task["appId"] == app).unwrap()["id"].as_str().unwrap().to_owned()
    };
    std::fs::write(daemon.path("work").join(format!("sandboxes/{}/files/mark", task("/command"))), "").unwrap();
    daemon.docker(&["exec", &format!("xtao-{}", task("/imaged")), "touch", "/tmp/mark"]);
    let instance = house.get("/v2/pods/pod::status").await["instances"][0]["id"].as_str().unwrap().to_owned();
    daemon.docker(&["exec", &format!("xtao-{instance}.one.1"), "touch", "/tmp/mark"]);
    status.store(503, Ordering::Relaxed);
    for (id, expected) in [("/command", code(0)), ("/page", page(503)), ("/imaged", code(0))] {
        house.until(async |house| of_app(house, id).await == expected).await;
    }
    house.until(async |house| of_pod(house).await == [code(0), page(404), Value::Null]).await;

    // A restart of ours forgets, and asks again.
    house.restart(&daemon).await;
    house.until(async |house| of_app(house, "/page").await == page(503) && of_pod(house).await[0] == code(0)).await;
    // All the time nobody was killed, and nobody is well or unwell.
    let listed = house.get("/v2/tasks").await;
    let ids = |tasks: &Value| {
        let mut ids: Vec<String> = tasks["tasks"].as_array().unwrap().iter().map(|task| task["id"].to_string()).collect();
        ids.sort();
        ids
    };
    assert_eq!(ids(&listed), ids(&tasks));
    let counted = house.get("/v2/apps/page").await;
    assert_eq!((&counted["app"]["tasksHealthy"], &counted["app"]["tasksUnhealthy"]), (&json!(0), &json!(0)));
    assert_eq!(house.stable("/pod", 1).await["terminationHistory"], json!([]));
    for app in ["command", "page", "port", "imaged"] {
        assert_eq!(house.ask(Method::DELETE, &format!("/v2/apps/{app}"), None).await.0, StatusCode::OK);
    }
    house.ask(Method::DELETE, "/v2/pods/pod", None).await;
    house.until(async |_| containers(&daemon).is_empty()).await;
    house.until(async |house| house.get("/v2/tasks").await == json!({"tasks": []})).await;
    house.stop().await;
}

/// The pod of Marathon's own system tests: one container of an image, one without, with relative paths, on the node's network. And a directory of the node.
#[tokio::test(flavor = "multi_thread")]
async fn a_container_without_an_image_shares_volumes_with_one_of_an_image() {
    let daemon = Daemon::start(Options::default());
    std::fs::set_permissions(daemon.path(""), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut house = House::start(&daemon).await;
    let mut writer = container("ct1", "while true; do echo tick > ./ct1-v1/clock; sleep 0.1; done");
    writer["volumeMounts"] = json!([{"name": "v1", "mountPath": "ct1-v1"}]);
    let mut reader = container("ct2", "until grep -q tick ./etc/clock; do sleep 0.1; done; cat given/in > etc/seen; exec sleep 1000");
    reader["image"] = Value::Null;
    reader["volumeMounts"] = json!([{"name": "v1", "mountPath": "etc"}, {"name": "given", "mountPath": "given", "readOnly": true}]);
    let given = daemon.path("given");
    std::fs::create_dir(&given).unwrap();
    std::fs::write(given.join("in"), "tock\n").unwrap();
    let volumes = json!([{"name": "v1"}, {"name": "given", "host": given}]);
    let pod = json!({"id": "/clock", "networks": [{"mode": "host"}], "containers": [writer, reader], "volumes": volumes});
    assert_eq!(house.ask(Method::POST, "/v2/pods", Some(pod)).await.0, StatusCode::CREATED);
    let stable = house.stable("/clock", 1).await;
    let instance = stable["instances"][0]["id"].as_str().unwrap();
    let shared = daemon.path("work").join(format!("sandboxes/{instance}._pod.1/files/v1"));
    house.until(async |_| std::fs::read_to_string(shared.join("seen")).unwrap_or_default() == "tock\n").await;
    // It is theirs alone: whatever other accounts of the node know.
    let mut stranger = std::process::Command::new("ls");
    let tried = stranger.arg(&shared).uid(65_534).gid(65_534).output().unwrap();
    assert!(String::from_utf8_lossy(&tried.stderr).contains("Permission denied"), "{tried:?}");
    let before = ids(&stable);
    house.restart(&daemon).await;
    assert_eq!(ids(&house.stable("/clock", 1).await), before);
    house.ask(Method::DELETE, "/v2/pods/clock", None).await;
    house.until(async |_| containers(&daemon).is_empty()).await;
    house.until(async |house| house.get("/v2/pods/::status").await == json!([])).await;
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_share_their_memory_where_they_ask_for_it() {
    let daemon = Daemon::start(Options::default());
    let mut house = House::start(&daemon).await;
    let mut writer = container("writer", "echo shared > /dev/shm/word; exec sleep 1000");
    let mut reader = container("reader", "exec sleep 1000");
    for one in [&mut writer, &mut reader] {
        one["linuxInfo"] = json!({"ipcInfo": {"mode": "SHARE_PARENT"}});
    }
    let pod = json!({
        "id": "/both",
        "networks": [{"mode": "container/bridge"}],
        "containers": [writer, reader],
        "linuxInfo": {"ipcInfo": {"mode": "PRIVATE", "shmSize": 48}},
    });
    let (status, created) = house.ask(Method::POST, "/v2/pods", Some(pod)).await;
    assert_eq!(status, StatusCode::CREATED, "{created}");
    let stable = house.stable("/both", 1).await;
    let instance = stable["instances"][0]["id"].as_str().unwrap();
    let look = "for i in $(seq 100); do test -s /dev/shm/word && break; sleep 0.1; done; cat /dev/shm/word";
    assert_eq!(daemon.docker(&["exec", &format!("xtao-{instance}.reader.1"), "sh", "-c", look]), "shared");
    let size = daemon.docker(&["inspect", "--format", "{{.HostConfig.ShmSize}}", &format!("xtao-{instance}._pod.1")]);
    assert_eq!(size, (48 << 20).to_string());
    house.stop().await;
}

/// A file in a running container; empty while there is none.
fn file(daemon: &Daemon, container: &str, path: &str) -> String {
    daemon.docker(&["exec", &format!("xtao-{container}"), "sh", "-c", &format!("cat {path} 2>/dev/null || true")])
}

/// One container writes a line at each launch, the other sees the lines and cannot write.
fn db(greeting: &str, instances: u32) -> Value {
    let mut writer = container("writer", "echo $GREETING >> /rows/log; exec sleep 1000");
    writer["volumeMounts"] = json!([{"name": "rows", "mountPath": "/rows"}]);
    let mut reader = container(
        "reader",
        "cd $MESOS_SANDBOX; until grep -q . in/rows/log; do sleep 0.1; done; \
         if touch in/rows/x 2>/dev/null; then echo written; else echo refused; fi > seen; exec sleep 1000",
    );
    reader["volumeMounts"] = json!([{"name": "rows", "mountPath": "in/rows", "readOnly": true}]);
    json!({
        "id": "/db",
        "networks": [{"mode": "container/bridge"}],
        "environment": {"GREETING": greeting},
        "containers": [writer, reader],
        "volumes": [{"name": "rows", "persistent": {"size": 32}}],
        "scaling": {"kind": "fixed", "instances": instances},
        "scheduling": {"backoff": {"backoff": 0.1, "backoffFactor": 1, "maxLaunchDelay": 0.1}},
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_persistent_volume_outlives_what_writes_to_it_until_it_is_wiped() {
    let daemon = Daemon::start(Options::default());
    let mut house = House::start(&daemon).await;
    // What the first of both containers finds once the pod has come up with the volume that `status` names.
    let lines = async |house: &House, expected: &str| {
        house.until(async |house| house.get("/v2/deployments").await == json!([])).await;
        let status = house.get("/v2/pods/db::status").await;
        let [writer, reader] = ids(&status).try_into().unwrap();
        house.until(async |_| file(&daemon, &writer, "/rows/log") == expected).await;
        house.until(async |_| file(&daemon, &reader, "/mnt/mesos/sandbox/seen") == "refused").await;
        let instance = &status["instances"][0];
        (instance["id"].as_str().unwrap().to_owned(), instance["localVolumes"].clone())
    };
    let put = async |house: &House, pod: Value| {
        let (status, answer) = house.ask(Method::PUT, "/v2/pods/db", Some(pod)).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
    };
    put(&house, db("one", 1)).await;
    house.stable("/db", 1).await;
    let (instance, volumes) = lines(&house, "one").await;
    assert_eq!((volumes[0]["containerPath"].as_str(), volumes[0]["runSpecId"].as_str()), (Some("rows"), Some("/db")), "{volumes}");

    // One container is killed: both begin again, with what there was.
    daemon.docker(&["kill", &format!("xtao-{instance}.reader.1")]);
    house.stable("/db", 2).await;
    assert_eq!(lines(&house, "one\none").await, (instance.clone(), volumes.clone()));

    // A new version, after a restart of ours: another instance, the same volume.
    house.restart(&daemon).await;
    house.stable("/db", 2).await;
    put(&house, db("two", 1)).await;
    let (second, kept) = lines(&house, "one\none\ntwo").await;
    assert!(second != instance && kept == volumes, "{second} {kept}");

    // Scaled down to nothing, and up again.
    put(&house, db("two", 0)).await;
    house.until(async |_| containers(&daemon).is_empty()).await;
    put(&house, db("two", 1)).await;
    let (third, kept) = lines(&house, "one\none\ntwo\ntwo").await;
    assert_eq!(kept, volumes);

    let (status, killed) = house.ask(Method::DELETE, &format!("/v2/pods/db::instances/{third}?wipe=true"), None).await;
    assert_eq!((status, &killed["instanceId"]), (StatusCode::OK, &json!(third)), "{killed}");
    house
        .until(async |house| {
            let status = house.get("/v2/pods/db::status").await;
            status["status"] == "STABLE" && status["instances"][0]["id"] != third.as_str()
        })
        .await;
    let (_, anew) = lines(&house, "two").await;
    assert_ne!(anew, volumes);
    house.until(async |house| house.get("/v2/bricks").await["bricks"].as_array().unwrap().len() == 1).await;

    house.ask(Method::DELETE, "/v2/pods/db", None).await;
    house.until(async |house| house.get("/v2/bricks").await == json!({"bricks": []})).await;
    assert_eq!(containers(&daemon), [""; 0]);
    let left = std::fs::read_dir(daemon.path("work/pools/datapool")).unwrap().count();
    assert_eq!(left, 0);
    house.stop().await;
}

/// A command without an image sees it in its sandbox, and one with an image where it wants it.
#[tokio::test(flavor = "multi_thread")]
async fn a_persistent_volume_is_shared_by_containers_with_and_without_an_image() {
    let daemon = Daemon::start(Options::default());
    let mut house = House::start(&daemon).await;
    let mut writer =
        container("ct1", "date +%N >> deep/rows/log; test -e deep/rows/seen && cp deep/rows/seen deep/rows/again; exec sleep 1000");
    writer["image"] = Value::Null;
    writer["volumeMounts"] = json!([{"name": "rows", "mountPath": "deep/rows"}]);
    let mut reader = container("ct2", "until grep -q . /rows/log; do sleep 0.1; done; echo tock > /rows/seen; exec sleep 1000");
    reader["volumeMounts"] = json!([{"name": "rows", "mountPath": "/rows"}]);
    let mut pod = json!({
        "id": "/mixed",
        "containers": [writer, reader],
        "volumes": [{"name": "rows", "persistent": {"size": 32}}],
        "scheduling": {"backoff": {"backoff": 0.1, "backoffFactor": 1, "maxLaunchDelay": 0.1}},
    });
    assert_eq!(house.ask(Method::POST, "/v2/pods", Some(pod.clone())).await.0, StatusCode::CREATED);
    let stable = house.stable("/mixed", 1).await;
    let [_, reader] = ids(&stable).try_into().unwrap();
    house.until(async |_| file(&daemon, &reader, "/rows/seen") == "tock").await;
    daemon.docker(&["kill", &format!("xtao-{reader}")]);
    let stable = house.stable("/mixed", 2).await;
    let [_, reader] = ids(&stable).try_into().unwrap();
    house.until(async |_| file(&daemon, &reader, "/rows/again") == "tock").await;
    assert_eq!(file(&daemon, &reader, "/rows/log").lines().count(), 2);
    house.ask(Method::DELETE, "/v2/pods/mixed", None).await;
    house.until(async |house| house.get("/v2/bricks").await == json!({"bricks": []})).await;

    // Outside its sandbox a command without an image sees the node's own directories, and this one is none of them. Its deployment is still under way.
    pod["containers"][0]["volumeMounts"][0]["mountPath"] = json!("/rows");
    house.ask(Method::POST, "/v2/pods", Some(pod)).await;
    house
        .until(async |house| {
            let status = house.get("/v2/pods/mixed::status").await;
            let said = status["terminationHistory"][0]["message"].as_str().unwrap_or_default();
            said.contains("a relative one is made in the sandbox")
        })
        .await;
    house.ask(Method::DELETE, "/v2/pods/mixed?force=true", None).await;
    house.until(async |house| house.get("/v2/bricks").await == json!({"bricks": []})).await;
    house.stop().await;
}
