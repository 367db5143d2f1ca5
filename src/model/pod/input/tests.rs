use serde_json::{Value, json};

use super::*;
use crate::model::{
    app::{Mode, Volume},
    pod::output::definition,
};

fn read(json: &Value) -> App {
    let input = PodInput::read(json).unwrap();
    input.complete(&input.path().unwrap(), &Defaults::default()).unwrap()
}

/// Everything that can be said.
fn full() -> Value {
    json!({
        "id": "/prod/shop",
        "labels": {"team": "blue"},
        "version": "2020-01-31T12:00:00.000Z",
        "user": "root",
        "environment": {"A": "1", "B": "pod"},
        "containers": [
            {
                "name": "web",
                "exec": {"command": {"shell": "httpd -f"}},
                "resources": {"cpus": 0.5, "mem": 64, "disk": 5, "gpus": 0},
                "endpoints": [
                    {"name": "http", "containerPort": 80, "hostPort": 0, "protocol": ["tcp"], "labels": {"VIP_0": "/shop:80"}},
                    {"name": "dns", "containerPort": 53, "hostPort": 5353, "protocol": ["udp", "tcp"]},
                ],
                "image": {"kind": "DOCKER", "id": "busybox:1", "forcePull": true, "labels": {"arch": "amd64"}},
                "environment": {"B": "web"},
                "user": "nobody",
                "healthCheck": {"http": {"endpoint": "http", "path": "/ping", "scheme": "HTTPS"}, "intervalSeconds": 30},
                "volumeMounts": [{"name": "data", "mountPath": "/data", "readOnly": true}],
                "artifacts": [{"uri": "https://files.example/x.tgz", "destPath": "x.tgz"}],
                "labels": {"role": "front"},
                "lifecycle": {"killGracePeriodSeconds": 0.5},
            },
            {
                "name": "side",
                "exec": {"command": {"argv": ["sync", "-x"]}, "overrideEntrypoint": true},
                "resources": {"cpus": 0.1, "mem": 32},
                "endpoints": [{"name": "admin", "containerPort": 0}],
                "image": {"kind": "DOCKER", "id": "sync"},
                "healthCheck": {"exec": {"command": {"argv": ["sync", "--ok"]}}},
                "check": {"http": {"endpoint": "admin", "path": "/status"}, "intervalSeconds": 5},
                "volumeMounts": [{"name": "data", "mountPath": "shared"}, {"name": "logs", "mountPath": "/logs", "readOnly": false},
                    {"name": "rows", "mountPath": "/rows"}],
            },
            {"name": "third", "resources": {}, "healthCheck": {"tcp": {"endpoint": "late"}}, "endpoints": [{"name": "late"}],
                "check": {"exec": {"command": {"shell": "sync --late"}}}},
        ],
        "volumes": [
            {"name": "data"},
            {"name": "logs", "host": "/var/log/shop"},
            {"name": "rows", "persistent": {"type": "root", "size": 100, "constraints": []}},
        ],
        "networks": [{"mode": "container/bridge"}],
        "scaling": {"kind": "fixed", "instances": 3},
        "scheduling": {
            "backoff": {"backoff": 0.5, "backoffFactor": 2, "maxLaunchDelay": 60},
            "upgrade": {"minimumHealthCapacity": 0.5, "maximumOverCapacity": 0.25},
            "placement": {
                "constraints": [{"fieldName": "hostname", "operator": "UNIQUE"}, {"fieldName": "rack", "operator": "LIKE", "value": "a.*"}],
                "acceptedResourceRoles": ["*"],
            },
            "killSelection": "OLDEST_FIRST",
            "unreachableStrategy": {"inactiveAfterSeconds": 10, "expungeAfterSeconds": 20},
        },
        "executorResources": {"cpus": 0.2, "mem": 40, "disk": 10},
        "role": "*",
        "legacySharedCgroups": true,
    })
}

#[test]
fn what_is_written_is_shown_again_with_its_defaults() {
    let app = read(&full());
    insta::assert_json_snapshot!("full", definition(&app));
    let minimal = json!({"id": "/pod", "containers": [{"name": "one", "resources": {}}]});
    insta::assert_json_snapshot!("minimal", definition(&read(&minimal)));
    insta::assert_json_snapshot!("resident", definition(&read(&resident())));
}

/// With the node's network, and nothing said of how it is upgraded and waited for.
fn resident() -> Value {
    json!({
        "id": "/db",
        "containers": [{"name": "one", "resources": {}, "volumeMounts": [{"name": "rows", "mountPath": "rows", "readOnly": true}]}],
        "volumes": [{"name": "rows", "persistent": {"size": 100}}],
    })
}

#[test]
fn what_is_shown_can_be_written_again_without_effect() {
    let host = json!({
        "id": "/pod",
        "networks": [{"mode": "host"}],
        "containers": [{"name": "one", "resources": {}, "endpoints": [{"name": "a"}, {"name": "b", "hostPort": 8080, "protocol": ["udp"]}]}],
    });
    let named = json!({
        "id": "/pod",
        "networks": [{"name": "blue", "labels": {"a": "b"}}, {"name": "red"}],
        "containers": [{
            "name": "one",
            "resources": {},
            "endpoints": [{"name": "a", "containerPort": 80}, {"name": "b", "containerPort": 81, "hostPort": 0, "networkNames": ["red"]}],
        }],
    });
    for written in [full(), host, named, resident(), json!({"id": "/pod", "containers": [{"name": "one", "resources": {}}]})] {
        let app = read(&written);
        assert_eq!(read(&definition(&app).into()), app);
    }
}

#[test]
fn amounts_are_sums_and_ports_and_checks_lie_in_the_order_of_the_containers() {
    let app = read(&full());
    assert_eq!((app.cpus, app.mem, app.disk), (Scalar(1_800), Scalar::whole(264), Scalar::whole(15)));
    let names: Vec<&str> = app.endpoints().iter().map(|endpoint| endpoint.name).collect();
    assert_eq!(names, ["http", "dns", "admin", "late"]);
    let pod = app.pod.as_ref().unwrap();
    assert_eq!([0, 1, 2].map(|place| pod.ports_of(place)), [0..2, 2..3, 3..4]);
    assert_eq!([0, 1, 2].map(|place| pod.check_of(place)), [Some(0), Some(1), Some(2)]);
    let ports: Vec<Option<u16>> = app.health_checks.iter().map(|check| check.port_index).collect();
    assert_eq!(ports, [Some(0), None, Some(3)]);
    // In bridge mode every endpoint has a port of the node.
    assert_eq!(app.host_ports_by_endpoint(&[1, 2, 3, 4]), [Some(1), Some(2), Some(3), Some(4)]);
}

#[test]
fn a_container_is_an_app_of_its_own_for_whoever_runs_it() {
    let app = read(&full());
    let [web, side, third] = [0, 1, 2].map(|place| app.as_container(place).unwrap());
    assert_eq!((web.cmd.as_deref(), web.user.as_deref(), web.kill_grace_ms), (Some("httpd -f"), Some("nobody"), Some(500)));
    let value = |name: &str| web.env[name].clone();
    assert_eq!([value("A"), value("B")], [EnvValue::Text("1".into()), EnvValue::Text("web".into())]);
    assert_eq!(web.labels.keys().collect::<Vec<_>>(), ["team", "role"]);
    let docker = |app: &App| app.container.as_ref().unwrap().docker.clone().unwrap();
    assert!(docker(&web).force_pull_image && docker(&web).parameters.is_empty());
    assert_eq!((side.args.clone(), docker(&side).parameters), (vec!["-x".to_owned()], vec![("entrypoint".to_owned(), "sync".to_owned())]));
    assert_eq!(side.user.as_deref(), Some("root"));
    let volumes = &side.container.as_ref().unwrap().volumes;
    let host_path = "/var/log/shop".to_owned();
    let shared = Volume::Shared { container_path: "/mnt/mesos/sandbox/shared".into(), name: "data".into(), mode: Mode::Rw };
    let persistent = Volume::Persistent(PersistentVolume { container_path: "/rows".into(), mode: Mode::Rw, size: 100 });
    assert_eq!(*volumes, [shared, Volume::Host { container_path: "/logs".into(), host_path, mode: Mode::Rw }, persistent]);
    assert!(third.container.unwrap().docker.is_none());
    assert!(app.as_container(3).is_none());
}

#[test]
fn wrong_types_are_told_in_the_words_of_the_reader() {
    let check = |change: &dyn Fn(&mut Value), expected: &[(&str, &str)]| {
        let mut written = full();
        change(&mut written);
        let found = PodInput::read(&written).unwrap_err();
        let found: Vec<(&str, &str)> = found.iter().map(|one| (one.path.as_str(), one.text.as_str())).collect();
        assert_eq!(found, expected);
    };
    let at = |pointer: &'static str, value: Value| move |written: &mut Value| *written.pointer_mut(pointer).unwrap() = value.clone();
    check(&at("/id", json!(1)), &[("/id", "error.expected.jsstring")]);
    check(&at("/id", Value::Null), &[("/id", "error.path.missing")]);
    check(&at("/containers", json!([])), &[("/containers", "error.minLength")]);
    check(&at("/containers", json!({})), &[("/containers", "error.expected.jsarray")]);
    check(&at("/containers/0/name", json!("Web")), &[("/containers(0)/name", "error.pattern")]);
    check(&at("/containers/0/name", json!("_pod")), &[("/containers(0)/name", "error.pattern")]);
    check(&at("/containers/0/name", json!("x".repeat(64))), &[("/containers(0)/name", "error.maxLength")]);
    check(&at("/containers/0/resources/cpus", json!(0)), &[("/containers(0)/resources/cpus", "error.min")]);
    check(&at("/containers/0/exec/command", json!({"shell": "a", "argv": ["b"]})), &[("/containers(0)/exec/command", "error.invalid")]);
    check(&at("/containers/0/exec/command", json!({"argv": []})), &[("/containers(0)/exec/command/argv", "error.minLength")]);
    check(&at("/containers/0/image/kind", json!("APPC")), &[("/containers(0)/image/kind", "error.unknown.enum.literal")]);
    check(&at("/containers/0/environment", json!({"1A": "x"})), &[("/containers(0)/environment/1A", "error.pattern")]);
    check(&at("/scaling", json!({"kind": "elastic"})), &[("/scaling/kind", "error.unknown.enum.literal")]);
    check(&at("/scaling", json!({"instances": 1})), &[("/scaling/kind", "error.path.missing")]);
    check(&at("/scheduling/upgrade/maximumOverCapacity", json!(1.5)), &[("/scheduling/upgrade/maximumOverCapacity", "error.max")]);
    check(&at("/executorResources/mem", json!(16)), &[("/executorResources/mem", "error.min")]);
    let size = "/volumes(2)/persistent/size";
    check(&at("/volumes/2/persistent", json!({})), &[(size, "error.path.missing")]);
    check(&at("/volumes/2/persistent/size", json!("1")), &[(size, "error.expected.jsnumber")]);
    check(&at("/volumes/2/persistent/type", json!("tape")), &[("/volumes(2)/persistent/type", "error.unknown.enum.literal")]);
    check(
        &at("/scheduling/placement/constraints/0/operator", json!("NEAR")),
        &[("/scheduling/placement/constraints(0)/operator", "error.unknown.enum.literal")],
    );
}

#[test]
fn what_contradicts_itself_is_told_in_marathons_words() {
    let check = |change: &dyn Fn(&mut Value), expected: &[(&str, &str)]| {
        let mut written = full();
        change(&mut written);
        let input = PodInput::read(&written).unwrap();
        let found = input.complete(&"/prod/shop".parse().unwrap(), &Defaults::default()).unwrap_err();
        let found: Vec<(&str, &str)> = found.iter().map(|one| (one.path.as_str(), one.text.as_str())).collect();
        assert_eq!(found, expected);
    };
    let at = |pointer: &'static str, value: Value| move |written: &mut Value| *written.pointer_mut(pointer).unwrap() = value.clone();
    let networks = |networks: Value| at("/networks", networks);
    let host = "is not allowed when using host-mode networking";
    check(
        &networks(json!([{"mode": "host"}])),
        &[
            ("/containers(0)/endpoints(0)/containerPort", host),
            ("/containers(0)/endpoints(1)/containerPort", host),
            ("/containers(1)/endpoints(0)/containerPort", host),
        ],
    );
    check(
        &networks(json!([{"name": "blue"}])),
        &[("/containers(2)/endpoints(0)/containerPort", "is required when using container-mode networking")],
    );
    check(
        &networks(json!([{"mode": "host"}, {"mode": "host", "name": "x"}])),
        &[
            ("/networks", "Host networks may not have names or labels"),
            ("/networks", "May specify a single host network, single bridge network, or else 1-to-n container networks"),
            ("/containers(0)/endpoints(0)/containerPort", host),
            ("/containers(0)/endpoints(1)/containerPort", host),
            ("/containers(1)/endpoints(0)/containerPort", host),
        ],
    );
    check(
        &at("/containers/0/endpoints/0/protocol", json!(["tcp", "tcp"])),
        &[("/containers(0)/endpoints(0)/protocol", "Duplicate protocols within the same endpoint are not allowed")],
    );
    let health = |check: Value| at("/containers/0/healthCheck", check);
    check(
        &health(json!({"http": {"endpoint": "http"}, "tcp": {"endpoint": "http"}})),
        &[("/containers(0)/healthCheck", "Only one of http, tcp, or command may be specified")],
    );
    check(&health(json!({})), &[("/containers(0)/healthCheck", "Only one of http, tcp, or command may be specified")]);
    let generic = |check: Value| move |written: &mut Value| written["containers"][0]["check"] = check.clone();
    check(
        &generic(json!({"http": {"endpoint": "http"}, "exec": {"command": {"shell": "true"}}})),
        &[("/containers(0)/check", "illegal RAML Check: expected one of http, tcp or exec checks")],
    );
    check(
        &generic(json!({"http": {"endpoint": "admin"}})),
        &[("/containers(0)/check/http/endpoint", "contained in the container endpoints")],
    );
    check(
        &health(json!({"http": {"endpoint": "http"}, "timeoutSeconds": 60})),
        &[("/containers(0)/healthCheck/timeoutSeconds", "got 60, expected less than 60")],
    );
    check(
        &health(json!({"tcp": {"endpoint": "admin"}})),
        &[("/containers(0)/healthCheck/tcp/endpoint", "contained in the container endpoints")],
    );
    let secrets = "Feature secrets is not enabled. Enable with --enable_features secrets)";
    check(&|written| written["secrets"] = json!({"s": {"source": "/s"}}), &[("/secrets", "must be empty"), ("/secrets", secrets)]);
    check(
        &at("/environment", json!({"A": {"secret": "s"}})),
        &[
            ("/environment", "use of secret-references in the environment requires the secrets feature to be enabled"),
            ("/environment", secrets),
        ],
    );
    check(&at("/volumes/0", json!({"name": "data", "secret": "s"})), &[("/volumes(0)/secret", secrets)]);
    let volume = |persistent: Value| at("/volumes/2", json!({"name": "rows", "persistent": persistent}));
    let path = "/volumes(2)/persistent";
    check(
        &volume(json!({"size": 1, "type": "path"})),
        &[("/volumes(2)/persistent/type", "the nodes of the embedded engine have root disks only")],
    );
    check(&volume(json!({"size": 1, "maxSize": 2})), &[(path, "Only mount volumes can have maxSize")]);
    check(&volume(json!({"size": 1, "profileName": "fast"})), &[(path, "the disks of the embedded engine have no profiles")]);
    let constraints = json!([["path", "LIKE", "a.*"]]);
    check(&volume(json!({"size": 1, "constraints": constraints})), &[(path, "Constraints on root volumes are not supported")]);
    check(
        &at("/volumes/2", json!({"name": "rows", "host": "/x", "persistent": {"size": 1}})),
        &[("/volumes(2)", "a volume is either of the host or persistent")],
    );
}

#[test]
fn an_id_is_an_absolute_path() {
    let check = |id: &str, expected: Result<&str, &str>| {
        let input = PodInput::read(&json!({"id": id, "containers": [{"name": "one", "resources": {}}]})).unwrap();
        let found = input.path();
        let found = found.as_ref().map(|path| path.as_str()).map_err(|violations| violations[0].text.as_str());
        assert_eq!(found, expected, "{id}");
    };
    check("/a/b", Ok("/a/b"));
    check("/", Err("Path must contain at least one path element"));
    check("some/foo", Err("Path needs to be absolute"));
}
