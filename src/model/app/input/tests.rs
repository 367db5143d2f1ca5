//! Tables of what is read, refused and filled in, and properties over arbitrary JSON.

use proptest::prelude::*;
use serde_json::{Map, json};

use super::*;
use crate::model::app::{
    BrickVolume, Volume,
    output::{self, definition},
};

fn id() -> PathId {
    "/shop/web".parse().unwrap()
}

fn defaults() -> Defaults {
    Defaults { role: "*".into(), network_name: Some("dcos".into()), ..Defaults::default() }
}

fn read(json: &Value) -> AppInput {
    AppInput::read(json).unwrap_or_else(|violations| panic!("{json}: {}", told(&violations)))
}

fn create(json: &Value) -> App {
    read(json).create(&id(), &defaults()).unwrap_or_else(|violations| panic!("{json}: {}", told(&violations)))
}

/// `path: text; path: text`
fn told(violations: &[Violation]) -> String {
    violations.iter().map(|violation| format!("{}: {}", violation.path, violation.text)).collect::<Vec<_>>().join("; ")
}

/// `GET` without what a client cannot send back.
fn without_versions(app: &App) -> Value {
    let mut fields = definition(app);
    fields.remove("version");
    fields.remove("versionInfo");
    Value::Object(fields)
}

/// The network and the ports as `GET` shows them.
fn connection(app: &App) -> String {
    let output = Value::Object(definition(app));
    let network = match &app.network {
        Network::Host => "host".to_owned(),
        Network::Bridge => "bridge".to_owned(),
        Network::Container(networks) => networks
            .iter()
            .map(|network| format!("net {}{:?}", network.name, network.labels))
            .collect::<Vec<_>>()
            .join("+")
            .replace("{}", ""),
    };
    let port = |port: &Value| {
        let host = port.get("hostPort").map(|host| format!("{host}:")).unwrap_or_default();
        let number = port.get("containerPort").or(port.get("port")).unwrap();
        let service =
            port.get("servicePort").filter(|service| **service != json!(0)).map(|service| format!("~{service}")).unwrap_or_default();
        let name = port.get("name").and_then(Value::as_str).map(|name| format!("={name}")).unwrap_or_default();
        let protocol = port["protocol"].as_str().filter(|protocol| *protocol != "tcp").map(|name| format!("/{name}")).unwrap_or_default();
        format!("{host}{number}{protocol}{service}{name}")
    };
    let ports = output.get("portDefinitions").or(output.pointer("/container/portMappings"));
    let ports: Vec<String> = ports.and_then(Value::as_array).unwrap().iter().map(port).collect();
    let kind = output.pointer("/container/type").map_or("no container", |kind| kind.as_str().unwrap());
    format!("{network}, {kind}, [{}]", ports.join(" "))
}

fn docker(fields: Value) -> Value {
    let mut docker = json!({"image": "img"});
    docker.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    docker
}

#[test]
fn wrong_types_are_told_in_the_words_of_play_json() {
    let check = |json: Value, expected: &str| {
        let found = AppInput::read(&json).map_or_else(|violations| told(&violations), |_| "fine".into());
        assert_eq!(found, expected, "{json}");
    };
    check(json!([]), "/: error.expected.jsobject");
    check(json!({"id": 1}), "/id: error.expected.jsstring");
    check(json!({"id": ""}), "/id: error.minLength");
    for (id, expected) in [
        ("/A", "/id: error.pattern"),
        ("/a_b", "/id: error.pattern"),
        ("/a/./b", "/id: error.pattern"),
        ("/a/-b", "/id: error.pattern"),
        ("/a..b", "/id: error.pattern"),
        ("//a.b-c//1/../", "fine"),
        ("../a", "fine"),
        ("/", "fine"),
    ] {
        check(json!({"id": id}), expected);
    }
    check(json!({"executor": "//cmd"}), "fine");
    check(json!({"executor": "/a/b"}), "fine");
    check(json!({"executor": "/a//b"}), "/executor: error.pattern");
    check(json!({"executor": "a/"}), "/executor: error.pattern");
    check(json!({"role": ""}), "/role: error.minLength");
    check(json!({"backoffSeconds": 1.5}), "/backoffSeconds: error.expected.int");
    check(json!({"maxLaunchDelaySeconds": 0.5}), "/maxLaunchDelaySeconds: error.expected.int");
    check(json!({"maxLaunchDelaySeconds": -1}), "/maxLaunchDelaySeconds: error.min");
    check(json!({"taskKillGracePeriodSeconds": 0.5}), "/taskKillGracePeriodSeconds: error.expected.int");
    check(json!({"taskKillGracePeriodSeconds": 5.0}), "fine");
    check(json!({"cmd": ["x"], "args": "x"}), "/cmd: error.expected.jsstring; /args: error.expected.jsarray");
    check(json!({"cmd": ""}), "/cmd: error.minLength");
    check(json!({"args": ["a", 1]}), "/args(1): error.expected.jsstring");
    check(json!({"env": []}), "/env: error.expected.jsobject");
    check(json!({"env": {"A": 1}}), "/env/A: error.expected.jsstring");
    check(json!({"env": {"A": {}}}), "/env/A/secret: error.path.missing");
    check(json!({"labels": {"a": null}}), "/labels/a: error.expected.jsstring");
    check(json!({"instances": 0.1}), "/instances: error.expected.int");
    check(json!({"instances": 2.0}), "fine");
    check(json!({"instances": -1}), "/instances: error.min");
    check(json!({"instances": 2147483647}), "fine");
    check(json!({"instances": 2147483648u32}), "/instances: error.expected.int");
    check(json!({"instances": -2147483649i64}), "/instances: error.expected.int");
    check(json!({"instances": "2"}), "/instances: error.expected.jsnumber");
    check(json!({"cpus": 0}), "/cpus: error.min");
    check(json!({"mem": -0.5, "disk": true, "gpus": 1.5}), "/mem: error.min; /disk: error.expected.jsnumber; /gpus: error.expected.int");
    check(json!({"backoffFactor": 0.9}), "/backoffFactor: error.min");
    check(json!({"taskKillGracePeriodSeconds": 3e9}), "/taskKillGracePeriodSeconds: error.expected.int");
    check(json!({"requirePorts": "yes"}), "/requirePorts: error.expected.jsboolean");
    check(json!({"constraints": [["hostname", "UNIQUE"], ["a", 1]]}), "/constraints(1)(1): error.expected.jsstring");
    check(json!({"constraints": ["hostname"]}), "/constraints(0): error.expected.jsarray");
    check(json!({"killSelection": "oldest_first"}), "fine");
    check(json!({"killSelection": "RANDOM"}), "/killSelection: error.unknown.enum.literal");
    check(json!({"upgradeStrategy": {"minimumHealthCapacity": 1}}), "/upgradeStrategy/maximumOverCapacity: error.path.missing");
    check(
        json!({"upgradeStrategy": {"minimumHealthCapacity": 1.01, "maximumOverCapacity": -0.1}}),
        "/upgradeStrategy/minimumHealthCapacity: error.max; /upgradeStrategy/maximumOverCapacity: error.min",
    );
    check(json!({"unreachableStrategy": "enabled"}), "/unreachableStrategy: error.unknown.enum.literal");
    check(json!({"unreachableStrategy": {"expungeAfterSeconds": -1}}), "/unreachableStrategy/expungeAfterSeconds: error.min");
    check(json!({"version": "now"}), "/version: error.expected.date.isoformat");
    check(json!({"ports": [80, 65536, -1, 3e9]}), "/ports(1): error.max; /ports(2): error.min; /ports(3): error.expected.int");
    check(json!({"ipAddress": {"groups": ["a", 1]}}), "/ipAddress/groups(1): error.expected.jsstring");
    check(json!({"portDefinitions": [{"port": "80"}]}), "/portDefinitions(0)/port: error.expected.jsnumber");
    check(json!({"portDefinitions": [{"port": "@PORT1"}]}), "/portDefinitions(0)/port: must be a number or \"@PORT\"");
    check(json!({"portDefinitions": [{"name": "Http"}]}), "/portDefinitions(0)/name: error.pattern");
    check(
        json!({"portDefinitions": [{"protocol": "sctp"}, 1]}),
        "/portDefinitions(0)/protocol: error.unknown.enum.literal; /portDefinitions(1): error.expected.jsobject",
    );
    check(json!({"networks": [{"mode": "bridge"}]}), "/networks(0)/mode: error.unknown.enum.literal");
    check(json!({"networks": [{"name": "-a"}]}), "/networks(0)/name: error.pattern");
    check(json!({"networks": [{"name": "a".repeat(64)}]}), "/networks(0)/name: error.maxLength");
    check(json!({"container": {"type": "RKT"}}), "/container/type: error.unknown.enum.literal");
    check(json!({"container": {"docker": {}}}), "/container/docker/image: error.path.missing");
    check(
        json!({"container": {"docker": {"image": "", "parameters": [{"key": "a"}]}}}),
        "/container/docker/image: error.minLength; /container/docker/parameters(0)/value: error.path.missing",
    );
    check(
        json!({"container": {"portMappings": [{"containerPort": "80"}]}}),
        "/container/portMappings(0)/containerPort: error.expected.jsnumber",
    );
    check(
        json!({"container": {"portMappings": [{"containerPort": "@PORT"}]}}),
        "/container/portMappings(0)/containerPort: error.expected.jsnumber",
    );
    check(
        json!({"container": {"volumes": [{"containerPath": "/a"}]}}),
        "/container/volumes(0)/hostPath: error.path.missing; /container/volumes(0)/mode: error.path.missing",
    );
    check(
        json!({"container": {"volumes": [{"containerPath": "/a", "brick": {}}]}}),
        "/container/volumes(0)/brick/size: error.path.missing",
    );
    check(
        json!({"container": {"volumes": [{"containerPath": "/a", "brick": {"size": 0.5, "fs": "zfs"}}]}}),
        "/container/volumes(0)/brick/size: error.expected.long; /container/volumes(0)/brick/fs: error.unknown.enum.literal",
    );
    check(json!({"tasksRunning": "any", "nobodys": [1]}), "fine");
}

#[test]
fn the_list_of_violations_is_limited() {
    let violations = AppInput::read(&json!({"args": vec![1; 5000]})).unwrap_err();
    assert_eq!(violations.len(), reader::MAX_VIOLATIONS);
}

#[test]
fn null_is_as_good_as_absent() {
    let nulls: Map<String, Value> = CONTENT_KEYS.iter().chain(&["id", "version"]).map(|key| ((*key).to_owned(), Value::Null)).collect();
    assert_eq!(read(&Value::Object(nulls)), read(&json!({})));
    let full = create(&json!({"cmd": "x", "user": "ann", "env": {"A": "1"}}));
    assert_eq!(read(&json!({"cmd": null, "env": null})).update(&full, &defaults()), Ok(full.clone()));
    assert_eq!(read(&json!({"user": ""})).update(&full, &defaults()).unwrap().user, None);
}

#[test]
fn contradictions_are_refused() {
    let check = |json: Value, expected: &str| {
        let found = read(&json).create(&id(), &Defaults::default()).map_or_else(|violations| told(&violations), |app| connection(&app));
        assert_eq!(found, expected, "{json}");
    };
    check(
        json!({"container": {"docker": docker(json!({"network": "HOST"}))}, "networks": [{"mode": "host"}]}),
        "/: must not specify both container.docker.network and networks",
    );
    check(
        json!({"cmd": "x", "ipAddress": {"networkName": "a"}, "networks": [{"mode": "host"}]}),
        "/: must not specify both networks and ipAddress",
    );
    check(json!({"cmd": "x", "ipAddress": {"networkName": "a"}, "ports": [80]}), "/: cannot specify both an IP address and port");
    check(json!({"cmd": "x", "ports": [8081], "portDefinitions": [{"port": 8080}]}), "/: cannot specify both ports and port definitions");
    check(json!({"cmd": "x", "ports": [8080], "portDefinitions": [{"port": 8080, "name": "a"}]}), "host, no container, [8080=a]");
    check(json!({"cmd": "x", "ports": [0, 80, 80, 0]}), "/: ports must be unique");
    check(json!({"container": {}}), "/container/docker: not defined");
    check(
        json!({"container": {"docker": docker(json!({"credential": {"principal": "a"}}))}}),
        "/container/docker/credential: must be empty",
    );
    check(
        json!({"container": {"type": "MESOS", "docker": docker(json!({"network": "BRIDGE", "parameters": [{"key": "a", "value": "b"}], "portMappings": []}))}}),
        "/container/docker/network: must be empty; /container/docker/parameters: must be empty; /container/docker/portMappings: must be empty",
    );
    check(
        json!({"container": {"docker": docker(json!({"network": "NONE"}))}}),
        "/container/docker/network: unsupported docker network type NONE",
    );
    check(
        json!({"container": {"docker": docker(json!({"network": "BRIDGE", "portMappings": [{"containerPort": 80}]})), "portMappings": []}}),
        "/container: cannot specify both portMappings and docker.portMappings",
    );
    check(
        json!({"container": {"type": "MESOS", "portMappings": [{}]}, "ipAddress": {"networkName": "a", "discovery": {"ports": [{"name": "x"}]}}}),
        "/container: container.portMappings and ipAddress.discovery.ports must not both be set",
    );
    check(
        json!({"container": {"docker": docker(json!({}))}, "ipAddress": {"networkName": "a", "discovery": {}}}),
        "/ipAddress: ipAddress/discovery is not allowed for Docker containers",
    );
    check(json!({"cmd": "x", "networks": [{"mode": "host", "name": "a"}]}), "/networks: Host networks may not have names or labels");
    check(json!({"cmd": "x", "networks": [{"mode": "container/bridge", "name": "a"}]}), "/networks: Bridge networks may not have names");
    check(
        json!({"cmd": "x", "networks": [{"mode": "container"}]}),
        "/networks: Network name must be specified when container network is selected.",
    );
    check(
        json!({"cmd": "x", "networks": [{}, {"mode": "host"}]}),
        "/networks: Network name must be specified when container network is selected.; \
         /networks: May specify a single host network, single bridge network, or else 1-to-n container networks",
    );
    check(
        json!({"cmd": "x", "networks": [{}, {}]}),
        "/networks: Duplicate networks are not allowed; /networks: Network name must be specified when container network is selected.",
    );
    check(json!({"cmd": "x", "networks": [{"name": "a"}, {"name": "a"}, {"name": "a"}]}), "/networks: Duplicate networks are not allowed");
    check(
        json!({"cmd": "x", "networks": [{"mode": "host"}, {"name": "a"}]}),
        "/networks: May specify a single host network, single bridge network, or else 1-to-n container networks",
    );
    for wrong in [json!([]), json!(["hostname"]), json!(["a", "b", "c", "d"])] {
        check(json!({"cmd": "x", "constraints": [wrong]}), "/constraints(0): Each constraint must have either 2 or 3 fields");
    }
    check(json!({"cmd": "x", "constraints": [["", "NEAR"]]}), "/constraints(0): illegal constraint specification");
    check(
        json!({"cmd": "x", "uris": ["a", "a b"], "fetch": [{"uri": "a"}]}),
        "/uris: may not be set in conjunction with fetch; /uris(1): URI has invalid syntax.",
    );
    check(
        json!({"cmd": "x", "constraints": [["hostname", "NEAR"]]}),
        "/constraints(0): operator must be one of the following UNIQUE, CLUSTER, GROUP_BY, LIKE, MAX_PER, UNLIKE or IS",
    );
    check(
        json!({"container": {"docker": docker(json!({})), "portMappings": [{}]}, "networks": [{"mode": "container/bridge"}], "portDefinitions": [{"port": "@PORT"}]}),
        "/portDefinitions(0)/port: \"@PORT\" is for host networking here; otherwise it belongs into container.portMappings[].hostPort",
    );
}

#[test]
fn checks_are_shown_with_every_default() {
    let app = create(&json!({
        "cmd": "x",
        "healthChecks": [
            {},
            {"protocol": "https", "path": "/ping", "port": 8443, "ignoreHttp1xx": true},
            {"protocol": "TCP", "portIndex": 0, "gracePeriodSeconds": 1, "intervalSeconds": 2, "timeoutSeconds": 3, "maxConsecutiveFailures": 4},
            {"protocol": "COMMAND", "command": {"value": "true"}, "delaySeconds": 5},
            {},
        ],
        "readinessChecks": [{}],
    }));
    let shown = super::super::output::definition(&app);
    insta::assert_json_snapshot!(json!({"healthChecks": shown["healthChecks"], "readinessChecks": shown["readinessChecks"]}));
    // What is shown can be written again without effect.
    let again = create(&json!({"cmd": "x", "healthChecks": shown["healthChecks"], "readinessChecks": shown["readinessChecks"]}));
    assert_eq!(again, app);
}

#[test]
fn wrong_types_in_checks_are_told() {
    let check = |fields: Value, expected: &str| {
        let found = AppInput::read(&fields).map_or_else(|violations| told(&violations), |_| "fine".into());
        assert_eq!(found, expected, "{fields}");
    };
    check(json!({"healthChecks": {}}), "/healthChecks: error.expected.jsarray");
    check(json!({"healthChecks": [1]}), "/healthChecks(0): error.expected.jsobject");
    check(json!({"healthChecks": [{"protocol": "UDP"}]}), "/healthChecks(0)/protocol: error.unknown.enum.literal");
    check(json!({"healthChecks": [{"intervalSeconds": -1}]}), "/healthChecks(0)/intervalSeconds: error.min");
    check(json!({"healthChecks": [{"command": {}}]}), "/healthChecks(0)/command/value: error.path.missing");
    check(json!({"healthChecks": [{"command": "true"}]}), "/healthChecks(0)/command: error.expected.jsobject");
    check(json!({"healthChecks": [{"portIndex": 70000}]}), "/healthChecks(0)/portIndex: error.max");
    check(json!({"check": []}), "/check: error.expected.jsobject");
    check(json!({"check": {"tcp": 1}}), "/check/tcp: error.expected.jsobject");
    check(json!({"check": {"tcp": {"port": 70000}}}), "/check/tcp/port: error.max");
    check(json!({"check": {"http": {"portIndex": -1}}}), "/check/http/portIndex: error.min");
    check(json!({"check": {"http": {"path": ""}}}), "/check/http/path: error.minLength");
    check(json!({"check": {"http": {"path": "/".repeat(1025)}}}), "/check/http/path: error.maxLength");
    check(json!({"check": {"http": {"scheme": "FTP"}}}), "/check/http/scheme: error.unknown.enum.literal");
    check(json!({"check": {"http": {}, "delaySeconds": -1}}), "/check/delaySeconds: error.min");
    check(json!({"check": {"exec": {}}}), "/check/exec/command: error.path.missing");
    check(json!({"check": {"exec": {"command": "true"}}}), "/check/exec/command: error.expected.jsobject");
    check(json!({"check": {"exec": {"command": {}}}}), "/check/exec/command: error.invalid");
    check(json!({"check": {"exec": {"command": {"shell": ""}}}}), "/check/exec/command/shell: error.minLength");
    check(json!({"check": {"exec": {"command": {"argv": []}}}}), "/check/exec/command/argv: error.minLength");
    check(json!({"readinessChecks": [{"protocol": "TCP"}]}), "/readinessChecks(0)/protocol: error.unknown.enum.literal");
    let readiness = |fields: Value, expected: &str| check(json!({"readinessChecks": [fields]}), &format!("/readinessChecks(0)/{expected}"));
    readiness(json!({"httpStatusCodesForReady": [99]}), "httpStatusCodesForReady(0): error.min");
    readiness(json!({"httpStatusCodesForReady": [1000]}), "httpStatusCodesForReady(0): error.max");
    readiness(json!({"httpStatusCodesForReady": []}), "httpStatusCodesForReady: error.minLength");
    readiness(json!({"name": ""}), "name: error.minLength");
    readiness(json!({"path": ""}), "path: error.minLength");
    readiness(json!({"path": "a".repeat(1025)}), "path: error.maxLength");
    readiness(json!({"portName": ""}), "portName: error.minLength");
    readiness(json!({"intervalSeconds": -1}), "intervalSeconds: error.min");
    readiness(json!({"timeoutSeconds": 0}), "timeoutSeconds: error.min");
    readiness(json!({"timeoutSeconds": 0.5}), "timeoutSeconds: error.expected.int");
    check(json!({"readinessChecks": [{"path": "a".repeat(1024), "timeoutSeconds": 1}]}), "fine");
}

#[test]
fn a_generic_check_is_shown_with_its_defaults_and_can_be_sent_back() {
    let times = json!({"intervalSeconds": 60, "timeoutSeconds": 20, "delaySeconds": 15});
    let check = |written: Value, expected: Value| {
        let app = create(&json!({"cmd": "x", "check": written}));
        let shown = definition(&app)["check"].clone();
        let mut expected = expected;
        for (name, value) in times.as_object().unwrap() {
            expected.as_object_mut().unwrap().entry(name).or_insert(value.clone());
        }
        assert_eq!(shown, expected, "{written}");
        assert_eq!(create(&json!({"cmd": "x", "check": shown})).check, app.check);
    };
    check(json!({"http": {}}), json!({"http": {"scheme": "HTTP"}}));
    check(
        json!({"http": {"portIndex": 0, "path": "/a", "scheme": "HTTPS"}}),
        json!({"http": {"portIndex": 0, "path": "/a", "scheme": "HTTPS"}}),
    );
    check(json!({"tcp": {}}), json!({"tcp": {}}));
    check(json!({"tcp": {"port": 80, "portIndex": 1}}), json!({"tcp": {"port": 80, "portIndex": 1}}));
    check(json!({"exec": {"command": {"shell": "true"}}}), json!({"exec": {"command": {"shell": "true"}}}));
    check(
        json!({"exec": {"command": {"argv": ["a", "b"]}}, "intervalSeconds": 0, "timeoutSeconds": 0, "delaySeconds": 0}),
        json!({"exec": {"command": {"argv": ["a", "b"]}}, "intervalSeconds": 0, "timeoutSeconds": 0, "delaySeconds": 0}),
    );
}

#[test]
fn an_update_keeps_a_generic_check_that_it_does_not_name_and_a_replacement_drops_it() {
    let current = create(&json!({"cmd": "x", "check": {"tcp": {}}}));
    let changed = |update: Value| read(&update).update(&current, &defaults()).unwrap().check;
    assert_eq!(changed(json!({"cmd": "y"})), current.check);
    assert_eq!(changed(json!({"check": null})), current.check);
    assert_ne!(changed(json!({"check": {"tcp": {}, "delaySeconds": 1}})), current.check);
    assert_eq!(read(&json!({"cmd": "x"})).replace(&current, &defaults()).unwrap().check, None);
}

#[test]
fn what_nothing_carries_out_yet_is_refused_unless_empty() {
    let check = |fields: Value, expected: &str| {
        let mut json = json!({"cmd": "x"});
        json.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let found = read(&json).create(&id(), &defaults()).map_or_else(|violations| told(&violations), |_| "fine".into());
        assert_eq!(found, expected, "{json}");
        let update = read(&fields).update(&create(&json!({"cmd": "y"})), &defaults());
        assert_eq!(update.map_or_else(|violations| told(&violations), |_| "fine".into()), expected, "update {fields}");
    };
    check(
        json!({"healthChecks": [], "readinessChecks": [], "fetch": [], "uris": [], "secrets": {}, "dependencies": [], "gpus": 0,
               "tty": false, "resourceLimits": {}, "executorResources": {}, "residency": {"taskLostBehavior": "WAIT_FOREVER"}}),
        "fine",
    );
    const ONE: &str = "/check: illegal RAML Check: expected one of http, tcp or exec checks";
    check(json!({"check": {}}), ONE);
    check(json!({"check": {"intervalSeconds": 5}}), ONE);
    check(json!({"check": {"tcp": {}, "http": {}}}), ONE);
    check(json!({"check": {"tcp": {}}}), "fine");
    check(json!({"fetch": [{"uri": "http://a"}], "uris": []}), "fine");
    check(json!({"fetch": [{"uri": "http://a"}], "uris": ["http://a"]}), "/uris: may not be set in conjunction with fetch");
    check(json!({"gpus": 1}), "fine");
    check(json!({"tty": true}), "fine");
    check(
        json!({"resourceLimits": {"cpus": "Infinity", "mem": "unlimited"}}),
        "/resourceLimits/cpus: 'Infinity' is an invalid resource limit. It must be 'unlimited' or a number",
    );
    check(json!({"executorResources": {"cpus": 0.1}}), "fine");
    check(json!({"ipAddress": {"groups": ["a"]}}), "fine");
    let volume = |volume: Value| json!({"container": {"docker": {"image": "i"}, "volumes": [volume]}});
    check(
        volume(json!({"containerPath": "a", "mode": "RW", "persistent": {"size": 1, "type": "mount"}})),
        "/container/volumes(0)/persistent/type: the nodes of the embedded engine have root disks only",
    );
    check(
        volume(json!({"containerPath": "a", "mode": "RW", "persistent": {"size": 1, "constraints": [["path", "LIKE", "x"]]}})),
        "/container/volumes(0)/persistent: Constraints on root volumes are not supported",
    );
    check(
        volume(json!({"containerPath": "a", "mode": "RW", "persistent": {"size": 1, "type": "root", "maxSize": 2}})),
        "/container/volumes(0)/persistent: Only mount volumes can have maxSize",
    );
    check(
        volume(
            json!({"containerPath": "a", "mode": "RW", "external": {"name": "v", "provider": "csi", "options": {"pluginName": "p", "volumeContext": {}}}}),
        ),
        "/container/volumes(0)/external/provider: volumes of CSI plugins are not supported: use the provider dvdi",
    );
    check(
        volume(json!({"containerPath": "/a", "brick": {"size": 16, "perInstance": true}})),
        "/container/volumes(0)/brick/perInstance: perInstance bricks are not supported yet",
    );
    check(volume(json!({"containerPath": "/a", "brick": {"size": 16, "perInstance": false}})), "fine");
}

#[test]
fn every_way_to_write_a_network_becomes_the_present_one() {
    let check = |json: Value, expected: &str| {
        let app = create(&json);
        assert_eq!(connection(&app), expected, "{json}");
        assert!(app.network == Network::Host || !app.require_ports);
    };
    check(json!({"cmd": "x"}), "host, no container, [0=default]");
    check(json!({"cmd": "x", "networks": []}), "host, no container, [0=default]");
    check(json!({"cmd": "x", "portDefinitions": []}), "host, no container, []");
    check(json!({"cmd": "x", "ports": []}), "host, no container, []");
    check(json!({"cmd": "x", "ports": [0, 8080], "requirePorts": true}), "host, no container, [0 8080]");
    check(
        json!({"cmd": "x", "portDefinitions": [{"port": 53, "protocol": "UDP,TCP", "name": "dns"}, {}]}),
        "host, no container, [53/udp,tcp=dns 0]",
    );
    check(
        json!({"container": {"docker": docker(json!({"network": "HOST", "portMappings": [{"containerPort": 80}]}))}}),
        "host, DOCKER, [0=default]",
    );
    check(json!({"container": {"docker": docker(json!({})), "portMappings": [{"containerPort": 80}]}}), "host, DOCKER, [0=default]");
    check(
        json!({"container": {"type": "MESOS", "portMappings": [{}, {}]}, "networks": [{"mode": "host"}], "ports": [7]}),
        "host, MESOS, [7]",
    );
    check(json!({"container": {"docker": docker(json!({"network": "BRIDGE"}))}, "requirePorts": true}), "bridge, DOCKER, [0:0=default]");
    check(json!({"container": {"docker": docker(json!({"network": "bridge", "portMappings": []}))}}), "bridge, DOCKER, []");
    check(
        json!({"container": {"docker": docker(json!({"network": "BRIDGE", "portMappings": []})), "portMappings": [{}]}}),
        "bridge, DOCKER, [0:0]",
    );
    check(
        json!({"container": {"docker": docker(json!({"network": "BRIDGE", "portMappings": [{"containerPort": 80, "hostPort": 8080, "servicePort": 10019, "name": "http", "protocol": "udp"}]}))}}),
        "bridge, DOCKER, [8080:80/udp~10019=http]",
    );
    check(
        json!({"container": {"docker": docker(json!({"network": "BRIDGE", "portMappings": [{"containerPort": 80}]}))}, "ports": [10001, 10002, 0]}),
        "bridge, DOCKER, [0:80 0:0 0:0]",
    );
    check(json!({"container": {"docker": docker(json!({"network": "USER"}))}}), "net dcos, DOCKER, [0=default]");
    check(
        json!({"container": {"docker": docker(json!({"network": "USER"}))}, "ipAddress": {"networkName": "foo", "labels": {"a": "b"}}}),
        "net foo{\"a\": \"b\"}, DOCKER, [0=default]",
    );
    check(
        json!({"container": {"docker": docker(json!({"network": "HOST"}))}, "ipAddress": {"networkName": "foo"}}),
        "host, DOCKER, [0=default]",
    );
    check(json!({"container": {"docker": docker(json!({"network": "BRIDGE"}))}, "ipAddress": {}}), "bridge, DOCKER, [0:0=default]");
    check(json!({"cmd": "x", "ipAddress": {}}), "net dcos, MESOS, [0=default]");
    check(json!({"cmd": "x", "ipAddress": {"networkName": "mesos-bridge"}}), "bridge, MESOS, [0:0=default]");
    check(
        json!({"cmd": "x", "ipAddress": {"networkName": "n", "discovery": {"ports": [{"number": 80, "name": "http"}, {"number": 81, "name": "b", "protocol": "udp"}]}}}),
        "net n, MESOS, [80=http 81/udp=b]",
    );
    check(json!({"cmd": "x", "networks": [{"mode": "container/bridge"}]}), "bridge, MESOS, [0:0=default]");
    check(json!({"cmd": "x", "networks": [{}]}), "net dcos, MESOS, [0=default]");
    // Definitions are counted where there is a container.
    check(json!({"cmd": "x", "networks": [{}], "ports": [1, 2, 3]}), "net dcos, MESOS, [0=default]");
    check(json!({"cmd": "x", "networks": [{}], "ports": [1, 2], "container": {"type": "MESOS"}}), "net dcos, MESOS, [0=default 0]");
    check(
        json!({"cmd": "x", "networks": [{}], "ports": [1, 2], "container": {"type": "MESOS", "portMappings": []}}),
        "net dcos, MESOS, [0 0]",
    );
    check(
        json!({"cmd": "x", "container": {"type": "MESOS", "portMappings": []}, "networks": [{"name": "a"}, {"name": "b_c"}]}),
        "net a+net b_c, MESOS, []",
    );
    check(
        json!({"container": {"docker": docker(json!({})), "portMappings": [{"containerPort": 5432, "hostPort": "@PORT"}, {"containerPort": 80, "hostPort": 0}, {"containerPort": 81}]}, "networks": [{"name": "n"}]}),
        "net n, DOCKER, [0:5432 0:80 81]",
    );
}

#[test]
fn an_update_replaces_each_written_key_as_a_whole() {
    let check = |current: &Value, update: Value, key: &str, expected: Value| {
        let app = read(&update).update(&create(current), &defaults()).unwrap();
        assert_eq!(without_versions(&app).pointer(key).cloned().unwrap_or_default(), expected, "{update} on {current}");
    };
    let app = json!({"cmd": "x", "instances": 3, "labels": {"a": "1", "b": "2"}, "env": {"A": "1"}, "constraints": [["hostname", "unique"]],
        "upgradeStrategy": {"minimumHealthCapacity": 0.5, "maximumOverCapacity": 0.2}, "acceptedResourceRoles": ["*"]});
    check(&app, json!({}), "", without_versions(&create(&app)));
    check(&app, json!({"labels": {"c": "3"}}), "/labels", json!({"c": "3"}));
    check(&app, json!({"labels": {"c": "3"}}), "/instances", json!(3));
    check(&app, json!({"env": {}}), "/env", Value::Null);
    check(&app, json!({"instances": 5}), "/constraints", json!([["hostname", "UNIQUE"]]));
    check(&app, json!({"instances": 5}), "/upgradeStrategy", json!({"maximumOverCapacity": 0.2, "minimumHealthCapacity": 0.5}));
    check(&app, json!({"container": {"docker": {"image": "i"}}}), "/container/docker/image", json!("i"));
    let full = json!({"container": {"docker": {"image": "i", "forcePullImage": true}, "volumes": [{"containerPath": "/a", "hostPath": "/b", "mode": "RO"}]}});
    check(&full, json!({"container": {"docker": {"image": "j"}}}), "/container/volumes", json!([]));
    check(&full, json!({"mem": 64}), "/container/docker/forcePullImage", json!(true));
}

#[test]
fn an_update_decides_the_network_by_what_it_writes() {
    let check = |current: &Value, update: Value, expected: &str| {
        let found = read(&update).update(&create(current), &defaults());
        assert_eq!(found.map_or_else(|violations| told(&violations), |app| connection(&app)), expected, "{update} on {current}");
    };
    let host = json!({"container": {"docker": {"image": "i"}}, "portDefinitions": [{"port": 8080, "name": "a"}, {"port": 8081}]});
    let bridge = json!({"container": {"docker": {"image": "i"}, "portMappings": [{"containerPort": 80, "hostPort": 8080}]}, "networks": [{"mode": "container/bridge"}]});
    check(&host, json!({"cmd": "x"}), "host, DOCKER, [8080=a 8081]");
    check(&bridge, json!({"cmd": "x"}), "bridge, DOCKER, [8080:80]");
    check(&host, json!({"ports": [1]}), "host, DOCKER, [1]");
    check(&host, json!({"portDefinitions": []}), "host, DOCKER, []");
    check(&host, json!({"networks": [{"mode": "container/bridge"}]}), "bridge, DOCKER, [0:0=default 0:0]");
    check(&host, json!({"networks": [{"mode": "container/bridge"}], "ports": []}), "bridge, DOCKER, [0:0=default]");
    check(&host, json!({"ports": [1, 1]}), "host, DOCKER, [1 1]");
    check(&host, json!({"ports": [1], "portDefinitions": [{"port": 2}]}), "host, DOCKER, [2]");
    check(&bridge, json!({"networks": [{"mode": "host"}]}), "host, DOCKER, [0=default]");
    check(&bridge, json!({"networks": []}), "host, DOCKER, [0=default]");
    check(&bridge, json!({"networks": [{"name": "n"}]}), "net n, DOCKER, [8080:80]");
    check(&bridge, json!({"ports": [1]}), "bridge, DOCKER, [8080:80]");
    check(&bridge, json!({"ports": [1, 1]}), "bridge, DOCKER, [8080:80 0:0]");
    check(&bridge, json!({"portDefinitions": [{"port": 1}, {}, {}]}), "bridge, DOCKER, [8080:80 0:0 0:0]");
    check(
        &bridge,
        json!({"portDefinitions": [{"port": "@PORT"}]}),
        "/portDefinitions(0)/port: \"@PORT\" is for host networking here; otherwise it belongs into container.portMappings[].hostPort",
    );
    check(&bridge, json!({"portDefinitions": []}), "bridge, DOCKER, [8080:80]");
    check(&host, json!({"container": {"docker": {"image": "i"}, "portMappings": [{}]}}), "host, DOCKER, [8080=a 8081]");
    check(&bridge, json!({"container": {"docker": {"image": "j"}}}), "bridge, DOCKER, [0:0=default]");
    check(&bridge, json!({"container": {"docker": {"image": "j"}, "portMappings": []}}), "bridge, DOCKER, []");
    check(
        &host,
        json!({"container": {"docker": docker(json!({"network": "BRIDGE", "portMappings": [{"containerPort": 1}]}))}}),
        "bridge, DOCKER, [0:1 0:0]",
    );
    check(&bridge, json!({"container": {"docker": docker(json!({"network": "HOST"}))}}), "host, DOCKER, [0=default]");
    check(&bridge, json!({"ipAddress": {"networkName": "n"}}), "net n, DOCKER, [8080:80]");
}

#[test]
fn the_default_upgrade_strategy_depends_on_what_can_run_twice() {
    let strategy = |app: &App| (app.upgrade_strategy.minimum_health_capacity, app.upgrade_strategy.maximum_over_capacity);
    let check = |json: Value, expected: f64| assert_eq!(strategy(&create(&json)), (expected, expected), "{json}");
    let brick = json!({"docker": {"image": "i"}, "volumes": [{"containerPath": "/d", "mode": "RW", "brick": {"size": 100}}]});
    check(json!({"cmd": "x"}), 1.0);
    check(json!({"cmd": "x", "env": {"A": "user@PORTAL @@PORT"}}), 1.0);
    check(json!({"cmd": "x", "env": {"A": "x:@PORT2"}}), 0.0);
    check(json!({"cmd": "x", "portDefinitions": [{"port": "@PORT"}]}), 0.0);
    check(
        json!({"container": {"docker": {"image": "i"}, "portMappings": [{"hostPort": "@PORT"}]}, "networks": [{"mode": "container/bridge"}]}),
        0.0,
    );
    check(json!({"container": brick}), 0.0);
    check(json!({"cmd": "x", "labels": {SINGLE_INSTANCE_LABEL: "true"}}), 0.0);
    check(json!({"cmd": "x", "labels": {SINGLE_INSTANCE_LABEL: "false"}}), 1.0);
    check(json!({"cmd": "x", "env": {"A": "@PORT"}, "upgradeStrategy": {"minimumHealthCapacity": 0.5, "maximumOverCapacity": 0.5}}), 0.5);

    let update = |current: Value, update: Value| strategy(&read(&update).update(&create(&current), &defaults()).unwrap());
    let own = |capacity: f64| json!({"minimumHealthCapacity": capacity, "maximumOverCapacity": capacity});
    assert_eq!(update(json!({"cmd": "x"}), json!({"env": {"A": "@PORT"}})), (0.0, 0.0));
    assert_eq!(update(json!({"cmd": "x"}), json!({"container": brick})), (0.0, 0.0));
    assert_eq!(update(json!({"cmd": "x", "upgradeStrategy": own(0.5)}), json!({"env": {"A": "@PORT"}})), (0.5, 0.5));
    assert_eq!(update(json!({"cmd": "x", "env": {"A": "@PORT"}, "upgradeStrategy": own(1.0)}), json!({"mem": 1})), (1.0, 1.0));
    assert_eq!(update(json!({"cmd": "x", "env": {"A": "@PORT"}}), json!({"env": {}})), (0.0, 0.0));
    assert_eq!(update(json!({"cmd": "x", "env": {"A": "@PORT"}}), json!({"upgradeStrategy": own(1.0)})), (1.0, 1.0));
}

#[test]
fn an_apps_own_allotted_number_stays_allotted_at_its_place() {
    let allot = |app: &mut App| {
        app.port_definitions.iter_mut().for_each(|definition| definition.port = PortNumber::Allotted(1066));
        let mappings = app.container.iter_mut().flat_map(|container| &mut container.port_mappings);
        mappings.for_each(|mapping| mapping.host_port = Some(PortNumber::Allotted(31067)));
    };
    let bridge = |port: Value| json!({"container": {"docker": {"image": "i"}, "portMappings": [{"containerPort": 80, "hostPort": port}]}, "networks": [{"mode": "container/bridge"}]});
    let host = |port: Value| json!({"cmd": "x", "portDefinitions": [{"port": port}]});
    let ports = |app: &App| {
        let mapped = app.port_mappings().iter().filter_map(|mapping| mapping.host_port);
        app.port_definitions.iter().map(|definition| definition.port).chain(mapped).collect::<Vec<_>>()
    };
    let check = |current: Value, update: Value, expected: &[PortNumber]| {
        let mut current = create(&current);
        allot(&mut current);
        let input = read(&update);
        assert_eq!(ports(&input.update(&current, &defaults()).unwrap()), expected, "{update}");
        assert_eq!(ports(&input.replace(&current, &defaults()).unwrap()), expected, "{update}");
    };
    check(host(json!("@PORT")), host(json!(1066)), &[PortNumber::Allotted(1066)]);
    check(host(json!("@PORT")), host(json!(1067)), &[PortNumber::Fixed(1067)]);
    check(host(json!("@PORT")), host(json!("@PORT")), &[PortNumber::Wanted]);
    check(host(json!("@PORT")), host(json!(0)), &[PortNumber::Dynamic]);
    check(bridge(json!("@PORT")), bridge(json!(31067)), &[PortNumber::Allotted(31067)]);
    check(bridge(json!("@PORT")), bridge(json!(1066)), &[PortNumber::Fixed(1066)]);
    check(
        host(json!("@PORT")),
        json!({"cmd": "x", "portDefinitions": [{"port": 0}, {"port": 1066}]}),
        &[PortNumber::Dynamic, PortNumber::Fixed(1066)],
    );
}

#[test]
fn a_replacement_returns_what_is_absent_to_its_default() {
    let mut current = create(&json!({"cmd": "x", "instances": 4, "env": {"A": "1"}}));
    current.version = Timestamp(7);
    let replaced = read(&json!({"cmd": "y", "version": "2020-01-31T12:34:56.789Z"})).replace(&current, &defaults()).unwrap();
    assert_eq!(replaced, App { version: Timestamp(7), ..create(&json!({"cmd": "y"})) });
}

#[test]
fn a_version_alone_asks_for_a_rollback() {
    let check = |json: Value, expected: Option<&str>| {
        let found = read(&json).rollback();
        match expected {
            None => assert_eq!(found, Ok(None), "{json}"),
            Some("refused") => {
                let Err(RequestError::Invalid(violations)) = found else { panic!("{json}: {found:?}") };
                assert_eq!(told(&violations), "/: The 'version' field may only be combined with the 'id' field.");
            }
            Some(version) => assert_eq!(found, Ok(Some(version.parse().unwrap())), "{json}"),
        }
    };
    let version = "2020-01-31T12:34:56.789Z";
    check(json!({"cmd": "x"}), None);
    check(json!({}), None);
    check(json!({"version": version}), Some(version));
    check(json!({"version": version, "id": "/a", "cmd": null, "tasksRunning": 1}), Some(version));
    check(json!({"version": version, "instances": 1}), Some("refused"));
    check(json!({"version": version, "versionInfo": {}}), Some("refused"));
}

#[test]
fn the_definition_is_written_as_marathon_writes_it() {
    let check = |name: &str, json: Value| {
        let mut app = create(&json);
        app.version = "2020-01-31T12:34:56.789Z".parse().unwrap();
        app.version_info = Some(crate::model::app::VersionInfo { last_scaling_at: app.version, last_config_change_at: Timestamp(0) });
        insta::assert_json_snapshot!(name, Value::Object(output::definition(&app)));
    };
    check("least", json!({"cmd": "sleep 100"}));
    check(
        "host_with_everything",
        json!({
            "id": "web", "args": ["-v", "x"], "user": "ann", "env": {"Z": "@PORT", "A": "2"}, "instances": 0, "cpus": 0.25, "mem": 64.5, "disk": 10,
            "executor": "//cmd", "constraints": [["hostname", "like", "srv.*"], ["rack", "GROUP_BY"]], "acceptedResourceRoles": ["*"], "role": "shop",
            "labels": {"b": "1", "a": "2"}, "requirePorts": true,
            "portDefinitions": [{"port": 8080, "name": "http", "labels": {"VIP_0": "/web:80"}}, {"port": "@PORT", "protocol": "udp"}],
            "backoffSeconds": 2, "backoffFactor": 2, "maxLaunchDelaySeconds": 60, "taskKillGracePeriodSeconds": 30,
            "killSelection": "OLDEST_FIRST", "upgradeStrategy": {"minimumHealthCapacity": 0.5, "maximumOverCapacity": 0},
            "unreachableStrategy": "disabled",
            "container": {"docker": {"image": "web:1", "privileged": true, "parameters": [{"key": "hostname", "value": "a"}]},
                "volumes": [{"containerPath": "/logs", "hostPath": "/var/log/web", "mode": "RO"}]},
        }),
    );
    check(
        "bridge_with_brick",
        json!({
            "container": {
                "type": "DOCKER",
                "docker": {"image": "zmfsea/cmp-postgresql", "network": "BRIDGE", "portMappings": [{"containerPort": 5432, "hostPort": "@PORT"}]},
                "volumes": [
                    {"containerPath": "/var/lib/pgsql/9.6/data/", "mode": "RW", "brick": {"size": 131072, "pool": "datapool"}},
                    {"containerPath": "/more", "mode": "ro", "brick": {"size": 64, "fs": "XFS"}},
                ],
            },
            "unreachableStrategy": {"inactiveAfterSeconds": 60},
        }),
    );
    check(
        "named_networks",
        json!({
            "cmd": "x",
            "container": {"type": "MESOS", "docker": {"image": "i"}, "portMappings": [{"containerPort": 80, "hostPort": 0, "networkNames": ["b"], "labels": {"l": "v"}}, {"name": "x"}]},
            "networks": [{"name": "a", "labels": {"k": "v"}}, {"mode": "container", "name": "b"}],
        }),
    );
}

#[test]
fn volumes_keep_what_was_written() {
    let app = create(&json!({"container": {"docker": {"image": "i"}, "volumes": [{"containerPath": "/d/", "brick": {"size": 20}}]}}));
    let expected = BrickVolume {
        container_path: "/d/".into(),
        mode: crate::model::app::Mode::Rw,
        size: 20,
        pool: crate::model::id::PoolName::new("datapool"),
        file_system: None,
    };
    assert_eq!(app.container.unwrap().volumes, [Volume::Brick(expected)]);
}

/// JSON that no one thought of.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        prop_oneof![Just("@PORT"), Just("disabled"), Just("HOST"), Just("BRIDGE"), Just("")].prop_map(Value::from),
        ".{0,6}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((any_key(), inner), 0..5).prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

fn any_key() -> impl Strategy<Value = String> {
    let nested = [
        "id",
        "version",
        "type",
        "docker",
        "image",
        "network",
        "portMappings",
        "volumes",
        "containerPath",
        "hostPath",
        "mode",
        "brick",
        "size",
        "pool",
        "perInstance",
        "hostPort",
        "containerPort",
        "protocol",
        "name",
        "discovery",
        "networkName",
        "secret",
        "minimumHealthCapacity",
        "maximumOverCapacity",
        "inactiveAfterSeconds",
        "parameters",
        "key",
        "value",
        "port",
        "networkNames",
    ];
    let keys: Vec<String> = CONTENT_KEYS.iter().chain(&nested).map(|key| (*key).to_owned()).collect();
    prop_oneof![4 => prop::sample::select(keys), 1 => "[a-z]{1,3}"]
}

/// A definition that is accepted.
fn good_app() -> impl Strategy<Value = Value> {
    let port = || prop_oneof![Just(json!(0)), (1u16..).prop_map(|port| json!(port)), Just(json!("@PORT"))];
    let protocol = || prop::sample::select(vec!["tcp", "udp", "udp,tcp"]);
    let labels = || prop::collection::hash_map("[a-zA-Z_. ]{1,5}", ".{0,5}", 0..3).prop_map(|labels| json!(labels));
    let definition =
        (port(), protocol(), labels()).prop_map(|(port, protocol, labels)| json!({"port": port, "protocol": protocol, "labels": labels}));
    let mapping = (port(), any::<u16>(), any::<u16>(), protocol(), any::<bool>(), labels()).prop_map(
        |(host, container, service, protocol, has_host, labels)| {
            let host = if has_host { host } else { Value::Null };
            json!({"hostPort": host, "containerPort": container, "servicePort": service, "protocol": protocol, "labels": labels})
        },
    );
    let volume = prop_oneof![
        ("/[a-z]{1,4}/?", "/[a-z]{1,4}").prop_map(|(path, host)| json!({"containerPath": path, "hostPath": host, "mode": "RO"})),
        ("/[a-z]{1,4}/?", 16u64..1 << 26, prop::option::of(prop::sample::select(vec!["ext4", "xfs"])))
            .prop_map(|(path, size, fs)| json!({"containerPath": path, "mode": "RW", "brick": {"size": size, "fs": fs, "pool": "p1"}})),
    ];
    let networks = prop::sample::select(vec![
        json!(null),
        json!([{"mode": "host"}]),
        json!([{"mode": "container/bridge"}]),
        json!([{"name": "a"}, {"name": "b"}]),
    ]);
    let amounts = (0.001..1e6f64, 0.0..1e9f64, 0u32..1000, 0u32..100_000, 1.0..10.0f64);
    let lists = (
        prop::option::of(prop::collection::vec(definition, 0..3)),
        prop::option::of(prop::collection::vec(mapping, 0..3)),
        prop::collection::vec(volume, 0..3),
    );
    (networks, amounts, lists, labels(), prop::collection::hash_map("[A-Z]{1,4}", "[@PORT1:. ]{0,9}", 0..4), prop::bool::ANY).prop_map(
        |(networks, (cpus, mem, instances, backoff, factor), (definitions, mappings, volumes), labels, env, single)| {
            let is_host = networks.is_null() || networks[0]["mode"] == "host";
            let mut app = json!({
                "container": {"docker": {"image": "i", "forcePullImage": single}, "volumes": volumes},
                "networks": networks, "cpus": cpus, "mem": mem, "instances": instances, "backoffSeconds": backoff, "backoffFactor": factor,
                "labels": labels, "env": env, "requirePorts": single,
            });
            match (is_host, definitions, mappings) {
                (true, Some(definitions), _) => app["portDefinitions"] = json!(definitions),
                (false, _, Some(mappings)) => app["container"]["portMappings"] = json!(mappings),
                _ => {}
            }
            app
        },
    )
}

proptest! {
    #[test]
    fn no_json_makes_it_panic(fields in prop::collection::vec((any_key(), any_json()), 0..8), other in any_json()) {
        let json = Value::Object(fields.into_iter().collect());
        let current = create(&json!({"cmd": "x"}));
        for json in [json, other] {
            if let Ok(input) = AppInput::read(&json) {
                let _ = (input.id(), input.rollback());
                let _ = input.replace(&current, &defaults());
                if let Ok(app) = input.update(&current, &defaults()) {
                    prop_assert_eq!(read(&without_versions(&app)).update(&app, &defaults()).map_err(|violations| told(&violations)), Ok(app));
                }
            }
        }
    }

    #[test]
    fn what_get_shows_is_the_app(json in good_app()) {
        let mut app = create(&json);
        // Before a definition is kept, each wanted port gets its number.
        let mut next = 1024;
        let mut allot = |port: &mut PortNumber| {
            if *port == PortNumber::Wanted {
                next += 1;
                *port = PortNumber::Allotted(next);
            }
        };
        app.port_definitions.iter_mut().for_each(|definition| allot(&mut definition.port));
        app.container.iter_mut().flat_map(|container| &mut container.port_mappings).filter_map(|mapping| mapping.host_port.as_mut()).for_each(&mut allot);
        let shown = read(&without_versions(&app));
        prop_assert_eq!(shown.update(&app, &defaults()).map_err(|violations| told(&violations)), Ok(app.clone()));
        prop_assert_eq!(shown.replace(&app, &defaults()).map_err(|violations| told(&violations)), Ok(app.clone()));
        // For a new app the numbers are ordinary ones.
        let fix = |port: &mut PortNumber| if let PortNumber::Allotted(number) = *port { *port = PortNumber::Fixed(number) };
        app.port_definitions.iter_mut().for_each(|definition| fix(&mut definition.port));
        app.container.iter_mut().flat_map(|container| &mut container.port_mappings).filter_map(|mapping| mapping.host_port.as_mut()).for_each(fix);
        prop_assert_eq!(shown.create(&id(), &defaults()).map_err(|violations| told(&violations)), Ok(app));
    }
}

#[test]
fn what_is_fetched_has_defaults_and_a_legacy_form() {
    let shown = |json: Value| {
        let app = create(&json);
        serde_json::to_string(&super::super::output::definition(&app).get("fetch").cloned().unwrap_or_default()).unwrap()
    };
    let check = |fetch: Value, expected: &str| {
        let mut json = json!({"cmd": "x"});
        json.as_object_mut().unwrap().extend(fetch.as_object().unwrap().clone());
        assert_eq!(shown(json), expected, "{fetch}");
    };
    let element = |uri: &str, extract: bool| format!(r#"{{"uri":"{uri}","extract":{extract},"executable":false,"cache":false}}"#);
    check(json!({"fetch": [{"uri": "http://a/b"}]}), &format!("[{}]", element("http://a/b", true)));
    check(
        json!({"fetch": [{"uri": "http://a/b", "extract": false, "executable": true, "cache": true, "destPath": "c/d"}]}),
        r#"[{"uri":"http://a/b","extract":false,"executable":true,"cache":true,"destPath":"c/d"}]"#,
    );
    assert!(AppInput::read(&json!({"cmd": "x", "fetch": [{"uri": "\u{1F600}".repeat(512)}]})).is_ok());
    for (uri, extract) in
        [("http://a/b.tgz?x=1#y", true), ("a.tar.bz2", true), ("b.gz", true), ("c.zip", true), ("d.TGZ", false), ("e.jar", false)]
    {
        check(json!({"uris": [uri]}), &format!("[{}]", element(uri, extract)));
        check(json!({"uris": [uri], "fetch": []}), &format!("[{}]", element(uri, extract)));
    }
    check(json!({"uris": []}), "null");
    // An empty legacy list says nothing, an empty list empties.
    let current = create(&json!({"cmd": "x", "fetch": [{"uri": "http://a/b"}]}));
    let left = |json: Value| read(&json).update(&current, &defaults()).unwrap().fetch.len();
    assert_eq!((left(json!({"uris": []})), left(json!({"fetch": []})), left(json!({"uris": ["c", "d"]}))), (1, 0, 2));
    for (wrong, expected) in [
        (json!({"cmd": "x", "fetch": [{}]}), "/fetch(0)/uri: error.path.missing"),
        (json!({"cmd": "x", "fetch": ["a"]}), "/fetch(0): error.expected.jsobject"),
        (json!({"cmd": "x", "fetch": [{"uri": "a", "extract": 1}]}), "/fetch(0)/extract: error.expected.jsboolean"),
        (json!({"cmd": "x", "fetch": [{"uri": "a", "destPath": ""}]}), "/fetch(0)/destPath: error.minLength"),
        (
            json!({"cmd": "x", "fetch": [{"uri": "", "destPath": "a".repeat(1025)}]}),
            "/fetch(0)/uri: error.minLength; /fetch(0)/destPath: error.maxLength",
        ),
        (json!({"cmd": "x", "fetch": [{"uri": "\u{1F600}".repeat(513)}]}), "/fetch(0)/uri: error.maxLength"),
        (json!({"cmd": "x", "uris": [1, ""]}), "/uris(0): error.expected.jsstring; /uris(1): error.minLength"),
    ] {
        assert_eq!(told(&AppInput::read(&wrong).unwrap_err()), expected);
    }
}

#[test]
fn an_app_with_persistent_volumes_is_resident() {
    let volume = json!({"containerPath": "data", "mode": "RW", "persistent": {"size": 100}});
    let json = json!({"cmd": "x", "container": {"type": "MESOS", "volumes": [volume]}});
    let app = create(&json);
    assert!(app.is_resident());
    let shown = Value::Object(crate::model::app::output::definition(&app));
    assert_eq!(shown["residency"], json!({"relaunchEscalationTimeoutSeconds": 3600, "taskLostBehavior": "WAIT_FOREVER"}));
    assert_eq!(shown["upgradeStrategy"], json!({"maximumOverCapacity": 0, "minimumHealthCapacity": 0.5}));
    assert_eq!(shown["unreachableStrategy"], json!("disabled"));
    let volume = json!({"containerPath": "data", "mode": "RW", "persistent": {"size": 100, "type": "root", "constraints": []}});
    assert_eq!(shown["container"]["volumes"], json!([volume]));
    // What is shown can be sent back.
    assert_eq!(read(&shown).update(&app, &defaults()).unwrap(), app);
    let plain = Value::Object(crate::model::app::output::definition(&create(&json!({"cmd": "x"}))));
    assert_eq!(plain.get("residency"), None);
    let wrong = |residency: Value| AppInput::read(&json!({"cmd": "x", "residency": residency})).is_err();
    assert!(wrong(json!({"taskLostBehavior": "RUN"})) && wrong(json!({"relaunchEscalationTimeoutSeconds": -1})));
    assert!(!wrong(json!({"taskLostBehavior": "RELAUNCH_AFTER_TIMEOUT", "relaunchEscalationTimeoutSeconds": 10})));
}

#[test]
fn an_external_volume_is_read_and_shown() {
    let app = |external: Value| {
        let volume = json!({"containerPath": "data", "mode": "RW", "external": external});
        create(&json!({"cmd": "x", "container": {"type": "MESOS", "volumes": [volume]}}))
    };
    let shown = |external: Value| {
        let app = app(external);
        let shown = Value::Object(crate::model::app::output::definition(&app));
        assert_eq!(read(&shown).update(&app, &defaults()).unwrap(), app, "what is shown can be sent back");
        assert_eq!(shown["upgradeStrategy"], json!({"maximumOverCapacity": 0, "minimumHealthCapacity": 0.5}));
        assert_eq!((&shown["unreachableStrategy"]["inactiveAfterSeconds"], shown.get("residency")), (&json!(0), None));
        shown["container"]["volumes"][0]["external"].clone()
    };
    let plain = json!({"name": "v", "provider": "dvdi", "options": {"dvdi/driver": "local"}});
    let full = json!({"name": "v", "provider": "dvdi", "options": {"dvdi/driver": "local"}, "shared": false});
    assert_eq!(shown(plain), full);
    let more = json!({"name": "v", "provider": "dvdi", "options": {"dvdi/driver": "d", "dvdi/type": " nfs ", "dvdi/size": "7", "other/x": "y"},
        "size": 5, "shared": true});
    assert_eq!(shown(more.clone()), more);
    let found = app(more);
    let volume = found.external_volumes().next().unwrap();
    let told: Vec<String> = volume.driver_options().iter().map(|(key, value)| format!("{key}={value}")).collect();
    assert_eq!((volume.driver(), told.join(" ")), ("d", "size=5 type=nfs".to_owned()));
    let wrong = |external: Value| {
        let volume = json!({"containerPath": "data", "mode": "RW", "external": external});
        told_of(&json!({"cmd": "x", "container": {"type": "MESOS", "volumes": [volume]}}))
    };
    assert_eq!(wrong(json!("x")), "/container/volumes(0)/external: error.expected.jsobject");
    assert_eq!(wrong(json!({"name": 1})), "/container/volumes(0)/external/name: error.expected.jsstring");
    assert_eq!(wrong(json!({"size": -1})), "/container/volumes(0)/external/size: error.min");
    assert_eq!(wrong(json!({"shared": "true"})), "/container/volumes(0)/external/shared: error.expected.jsboolean");
    assert_eq!(wrong(json!({"options": {"a": 1}})), "/container/volumes(0)/external/options/a: error.expected.jsstring");
}

fn told_of(json: &Value) -> String {
    told(&AppInput::read(json).unwrap_err())
}
