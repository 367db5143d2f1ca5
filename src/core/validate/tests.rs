//! Tables: a definition and what is said of it.

use serde_json::{Value, json};

use super::*;
use crate::model::{
    app::input::{AppInput, Defaults},
    id::PathId,
};

fn app_of(id: &str, json: &Value) -> App {
    let id: PathId = id.parse().unwrap();
    AppInput::read(json).unwrap().create(&id, &Defaults::default()).unwrap_or_else(|violations| panic!("{json}: {violations:?}"))
}

fn violations(id: &str, json: &Value, admin: bool) -> String {
    let host_volumes = &HostVolumeRule::default();
    let ctx = Ctx {
        privileged: admin,
        docker_parameters: admin,
        default_role: "*",
        existing_role: Some("old"),
        enforced_role: None,
        host_volumes,
        secrets: false,
        secrets_of: None,
        command_networks: true,
    };
    let told = app(&app_of(id, json), ctx).into_iter().map(|violation| format!("{}: {}", violation.path, violation.text));
    told.collect::<Vec<_>>().join("; ")
}

/// `{"cmd": "x"}` with `fields`.
fn check(fields: Value, expected: &str) {
    let mut json = json!({"cmd": "x"});
    json.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    assert_eq!(violations("/shop/web", &json, false), expected, "{json}");
}

/// A Docker container in bridge mode with `fields` in `container`.
fn check_container(fields: Value, expected: &str) {
    let mut container = json!({"docker": {"image": "i"}});
    container.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    check(json!({"container": container, "networks": [{"mode": "container/bridge"}]}), expected);
}

#[test]
fn a_generic_check_asks_a_port_that_there_is_and_no_docker_container() {
    const PORT: &str = "/check/get: check port index must address an element of the ports array or container port mappings.";
    let one = json!([{"port": 0}]);
    let two = json!([{"port": 0}, {"port": 0}]);
    for (ports, asked, expected) in [
        (&one, json!({"http": {"portIndex": 0}}), ""),
        (&one, json!({"http": {"portIndex": 1}}), PORT),
        (&one, json!({"tcp": {"portIndex": 1, "port": 80}}), PORT),
        (&one, json!({"tcp": {"portIndex": 0, "port": 80}}), ""),
        (&one, json!({"tcp": {}}), ""),
        (&two, json!({"tcp": {}}), PORT),
        (&two, json!({"tcp": {"port": 80}}), ""),
        (&json!([]), json!({"tcp": {}}), PORT),
        (&json!([]), json!({"exec": {"command": {"shell": "true"}}}), ""),
        (&one, json!({"http": {"path": "/a b"}}), "/check/http/path: must not contain blanks or control characters"),
        (&one, json!({"exec": {"command": {"argv": ["a", "b\0"]}}}), "/check/exec/command/argv(1): must not contain a NUL character"),
    ] {
        check(json!({"portDefinitions": ports, "check": asked}), expected);
    }
    let exec = json!({"exec": {"command": {"shell": "true"}}});
    let container = |kind: &str| json!({"container": {"type": kind, "docker": {"image": "i"}}, "check": exec});
    check(container("MESOS"), "");
    check(container("DOCKER"), "/: AppDefinition must not use 'checks' if using docker");
}

#[test]
fn an_id_names_an_app_and_no_route() {
    let check = |id: &str, expected: &str| assert_eq!(violations(id, &json!({"cmd": "x"}), false), expected, "{id}");
    check("/web", "");
    check("/tasks/web", "");
    check("/", "/id: Path must contain at least one path element");
    for reserved in ["/restart", "/shop/tasks", "/shop/versions"] {
        check(reserved, "/id: must not end with any of the following reserved keywords: restart, tasks, versions, ., ..");
    }
}

#[test]
fn an_app_says_what_runs() {
    const NOTHING: &str = "/: AppDefinition must either contain one of 'cmd' or 'args', and/or a 'container'.";
    let check = |json: Value, expected: &str| assert_eq!(violations("/web", &json, false), expected, "{json}");
    check(json!({}), NOTHING);
    check(json!({"cmd": "x", "args": ["y"]}), NOTHING);
    check(json!({"cmd": "x", "args": ["y"], "container": {"docker": {"image": "i"}}}), NOTHING);
    check(json!({"container": {"type": "MESOS"}}), NOTHING);
    check(json!({"args": ["y"]}), "");
    check(json!({"cmd": "x", "args": []}), "");
    check(json!({"container": {"docker": {"image": "i"}}}), "");
    check(json!({"container": {"type": "MESOS", "docker": {"image": "i"}}}), "");
    check(json!({"cmd": "x", "container": {"type": "MESOS"}}), "");
    check(json!({"cmd": "a\0b"}), "/cmd: must not contain a NUL character");
    check(json!({"args": ["a".repeat(MAX_TEXT_BYTES + 1)]}), "/args(0): must have at most 131071 bytes");
    check(json!({"cmd": "x", "executor": "//cmd"}), "");
    check(json!({"cmd": "x", "executor": "/opt/executor"}), "/executor: custom executors are not supported yet");
}

#[test]
fn amounts_and_counts_are_limited() {
    check(json!({"instances": 100_000, "cpus": 1e12}), "");
    check(json!({"instances": 100_001}), "/instances: got 100001, expected 100000 or less");
    check(json!({"mem": 1e13}), "/mem: got 10000000000000, expected 1000000000000 or less");
    check(json!({"args": vec![""; 1001], "cmd": null, "container": {"docker": {"image": "i"}}}), "/args: must have at most 1000 entries");
    let many = |count: usize| (0..count).map(|index| (format!("a{index}"), json!(""))).collect::<serde_json::Map<_, _>>();
    check(json!({"env": many(1000), "labels": many(1000)}), "");
    check(json!({"env": many(1001)}), "/env: must have at most 1000 entries");
    check(json!({"labels": many(1001)}), "/labels: must have at most 1000 entries");
    check(json!({"ports": vec![0; 101]}), "/portDefinitions: must have at most 100 entries");
    let constraints: Vec<Value> = (0..101).map(|index| json!([format!("a{index}"), "UNIQUE"])).collect();
    check(json!({"constraints": constraints}), "/constraints: must have at most 100 entries");
    check_container(json!({"portMappings": vec![json!({}); 101]}), "/container/portMappings: must have at most 100 entries");
    check(json!({"portDefinitions": [{"labels": many(1001)}]}), "/portDefinitions(0)/labels: must have at most 1000 entries");
}

/// What is said of `{"cmd": "x"}` with `fields` where secrets are enabled, and those below `ann/` are allowed.
fn check_secrets(fields: Value, expected: &str) {
    let mut json = json!({"cmd": "x"});
    json.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    let (host_volumes, ann) = (&HostVolumeRule::default(), Owner::new("ann"));
    let ctx = Ctx {
        privileged: false,
        docker_parameters: false,
        default_role: "*",
        existing_role: None,
        enforced_role: None,
        host_volumes,
        secrets: true,
        secrets_of: Some(&ann),
        command_networks: true,
    };
    let told = app(&app_of("/web", &json), ctx).into_iter().map(|violation| format!("{}: {}", violation.path, violation.text));
    assert_eq!(told.collect::<Vec<_>>().join("; "), expected, "{json}");
}

#[test]
fn secrets_need_their_feature() {
    const DISABLED: &str = "Feature secrets is not enabled. Enable with --enable_features secrets)";
    let secrets = json!({"s": {"source": "/ann/s"}});
    check(json!({"secrets": {}}), "");
    check(json!({"secrets": secrets}), &format!("/secrets: {DISABLED}"));
    check(
        json!({"env": {"A": {"secret": "s"}}, "secrets": secrets}),
        &format!("/secrets: {DISABLED}; /env: use of secret-references in the environment requires the secrets feature to be enabled"),
    );
    check(
        json!({"env": {"A": {"secret": "s"}}}),
        "/env: use of secret-references in the environment requires the secrets feature to be enabled; \
         /env/A/secret: references an undefined secret",
    );
    check(
        json!({"secrets": secrets, "container": {"type": "MESOS", "volumes": [{"containerPath": "/s", "secret": "s"}]}}),
        &format!(
            "/secrets: {DISABLED}; /container/secretVolumes(container): must be empty; /container/secretVolumes(container): {DISABLED}"
        ),
    );
    check(
        json!({"container": {"type": "MESOS", "docker": {"image": "i", "pullConfig": {"secret": "s"}}}}),
        &format!(
            "/container/docker/pullConfig: must be empty; /container/docker/pullConfig: {DISABLED}; \
             /container/docker/pullConfig: pullConfig.secret must refer to an existing secret"
        ),
    );
    check(
        json!({"container": {"docker": {"image": "i", "pullConfig": {"secret": "s"}}}}),
        "/container/docker/pullConfig: pullConfig is not supported with Docker containerizer",
    );
}

#[test]
fn a_secret_that_is_named_is_there_and_may_be_had() {
    let check = check_secrets;
    let secrets = json!({"s": {"source": "/ann/s"}});
    let mesos = |volumes: Value, docker: Value| json!({"type": "MESOS", "volumes": volumes, "docker": docker});
    let pull = json!({"image": "i", "pullConfig": {"secret": "s"}});
    check(json!({"secrets": secrets, "env": {"A": {"secret": "s"}}}), "");
    check(
        json!({"secrets": secrets, "container": mesos(json!([{"containerPath": "/a", "secret": "s"}, {"containerPath": "b", "secret": "s"}]), pull.clone())}),
        "",
    );
    check(json!({"env": {"A": {"secret": "s"}}}), "/env/A/secret: references an undefined secret");
    check(
        json!({"container": mesos(json!([{"containerPath": "/a", "secret": "s"}]), pull)}),
        "/container/docker/pullConfig: pullConfig.secret must refer to an existing secret; \
         /container/volumes(0): volume.secret must refer to an existing secret",
    );
    check(json!({"secrets": {"": {"source": "ann/s"}}}), "/secrets/keys(0): must not be empty");
    let source = |source: &str, expected: &str| check(json!({"secrets": {"s": {"source": source}}}), expected);
    let path = "/secrets/s/source: must be a path below the directory of the secrets, without . and .., of at most 1024 bytes";
    let own = "/secrets/s/source: must begin with 'ann/': the secrets of others are for administrators";
    source("ann/a/b", "");
    source("ann/../bob/s", path);
    source("ann//s", path);
    source("ann/", path);
    source("bob/s", own);
    source("ann", own);
    source("annual/s", own);
    source("//ann/s", path);
    check(
        json!({"secrets": secrets, "container": mesos(json!([{"containerPath": "a/b", "secret": "s"}]), json!(null))}),
        "/container/volumes(0)/containerPath: value must not contain \"/\"",
    );
}

#[test]
fn linux_info_has_marathons_rules() {
    let check = |info: Value, admin: bool, expected: &str| {
        let json = json!({"cmd": "x", "container": {"type": "MESOS", "docker": {"image": "i"}, "linuxInfo": info}});
        assert_eq!(violations("/web", &json, admin), expected, "{json}");
    };
    check(json!({}), false, "");
    check(json!({"ipcInfo": {"mode": "PRIVATE", "shmSize": 64}}), false, "");
    check(json!({"seccomp": {"unconfined": true}}), true, "");
    check(
        json!({"seccomp": {"unconfined": true}}),
        false,
        "/container/linuxInfo/seccomp/unconfined: may be used by administrators only, unless one of them grants it",
    );
    check(json!({"seccomp": {}}), true, "/container/linuxInfo/seccomp: Seccomp unconfined must be true when Profile is NOT defined");
    check(
        json!({"seccomp": {"profileName": "p", "unconfined": true}}),
        true,
        "/container/linuxInfo/seccomp: Seccomp unconfined can NOT be true when Profile is defined",
    );
    check(
        json!({"seccomp": {"profileName": "p"}}),
        true,
        "/container/linuxInfo/seccomp/profileName: the nodes of the embedded engine have no seccomp profiles to name",
    );
    check(
        json!({"ipcInfo": {"mode": "SHARE_PARENT", "shmSize": 64}}),
        true,
        "/container/linuxInfo/ipcInfo: ipcInfo shmSize can NOT be set when mode is SHARE_PARENT; \
         /container/linuxInfo/ipcInfo/mode: apps have no parent to share memory with but the node, and that is not done here",
    );
    check(json!({"ipcInfo": {"mode": "PRIVATE", "shmSize": 0}}), true, "/container/linuxInfo/ipcInfo/shmSize: got 0, expected 1 or more");
    // Marathon forgets it of Docker's containers.
    let docker = json!({"container": {"docker": {"image": "i"}, "linuxInfo": {"seccomp": {}}}});
    assert_eq!(app_of("/web", &docker).container.unwrap().linux_info, None);
}

#[test]
fn limits_are_not_below_what_is_asked_for() {
    check(json!({"cpus": 2, "mem": 256, "resourceLimits": {"cpus": 2, "mem": 300}}), "");
    check(json!({"cpus": 2, "mem": 256, "resourceLimits": {"cpus": "unlimited", "mem": "unlimited"}}), "");
    check(json!({"resourceLimits": {}}), "");
    check(
        json!({"cpus": 2, "mem": 256, "resourceLimits": {"cpus": 1, "mem": 200}}),
        "/resourceLimits/cpus: resource limit must be greater than or equal to requested resource (2.0); \
         /resourceLimits/mem: resource limit must be greater than or equal to requested resource (256.0)",
    );
    check(
        json!({"resourceLimits": {"mem": -1}}),
        "/resourceLimits/mem: resource limit must be greater than or equal to requested resource (128.0)",
    );
    check(json!({"resourceLimits": {"mem": 1e13}}), "/resourceLimits/mem: got 10000000000000, expected 1000000000000 or less");
}

#[test]
fn variables_can_be_set() {
    check(json!({"env": {"A": "@PORT99 @@PORT100", "lower-case": ""}}), "");
    check(json!({"env": {"B": "1", "": "x"}}), "/env/keys(1): must not be empty");
    check(json!({"env": {"A=B": "x"}}), "/env/keys(0): must not contain '='");
    check(json!({"env": {"A\0": "x"}}), "/env/keys(0): must not contain a NUL character");
    check(json!({"env": {"A": "\0"}}), "/env/A: must not contain a NUL character");
    check(json!({"env": {"A": "x".repeat(MAX_TEXT_BYTES - 2)}}), "");
    check(json!({"env": {"A": "x".repeat(MAX_TEXT_BYTES - 1)}}), "/env/A: must have at most 131071 bytes");
    check(json!({"env": {"A": "@PORT @PORT100"}}), "/env/A: the index of @PORT must be less than 100");
}

#[test]
fn roles_are_the_servers_the_groups_or_the_present_one() {
    let role = |id: &str, role: &str| violations(id, &json!({"cmd": "x", "role": role}), false);
    assert_eq!(role("/shop/web", "shop"), "");
    assert_eq!(role("/shop/web", "old"), "");
    assert_eq!(role("/web", "web"), "/role: got web, expected one of: [*, old]");
    assert_eq!(role("/shop/db/pg", "db"), "/role: got db, expected one of: [*, shop, old]");
    check(json!({"acceptedResourceRoles": ["*"]}), "");
    check(json!({"acceptedResourceRoles": ["*", "shop"], "role": "shop"}), "");
    check(json!({"acceptedResourceRoles": []}), "/acceptedResourceRoles: must not be empty");
    check(json!({"acceptedResourceRoles": ["x"]}), "/acceptedResourceRoles: acceptedResourceRoles can only contain *");
    check(
        json!({"acceptedResourceRoles": ["x"], "role": "shop"}),
        "/acceptedResourceRoles: acceptedResourceRoles can only contain * and shop",
    );
}

#[test]
fn constraints_have_the_value_that_their_operator_takes() {
    let check = |constraint: Value, expected: &str| {
        let expected = if expected.is_empty() { String::new() } else { format!("/constraints(0): {expected}") };
        assert_eq!(violations("/web", &json!({"cmd": "x", "constraints": [constraint]}), false), expected, "{constraint}");
    };
    check(json!(["hostname", "UNIQUE"]), "");
    check(json!(["hostname", "UNIQUE", "x"]), "UNIQUE does not accept a value");
    check(json!(["rack", "CLUSTER"]), "");
    check(json!(["rack", "CLUSTER", "r1"]), "");
    check(json!(["rack", "GROUP_BY"]), "");
    check(json!(["rack", "GROUP_BY", "3"]), "");
    check(json!(["rack", "GROUP_BY", "x"]), "GROUP BY must define an integer value or else no value at all");
    check(json!(["rack", "MAX_PER", "3"]), "");
    check(json!(["rack", "MAX_PER"]), "MAX_PER requires an integer value");
    check(json!(["rack", "MAX_PER", "2.5"]), "MAX_PER requires an integer value");
    check(json!(["rack", "LIKE", r"(?i)rack-\d+\b.*"]), "");
    check(json!(["rack", "LIKE"]), "LIKE and UNLIKE require a non-empty, regular expression value");
    check(json!(["rack", "UNLIKE", "^(?!web).*$"]), "");
    check(json!(["rack", "LIKE", "(?:(?!x)){4000000000}"]), "is not a valid regular expression");
    check(json!(["rack", "UNLIKE", "("]), "is not a valid regular expression");
    check(json!(["rack", "LIKE", "a)|(b"]), "is not a valid regular expression");
    check(json!(["rack", "LIKE", "(?x) a # comment"]), "is not a valid regular expression");
    check(json!(["rack", "LIKE", "((a{1000}){1000}){1000}"]), "is not a valid regular expression");
    check(json!(["rack", "LIKE", "(".repeat(1000) + &")".repeat(1000)]), "is not a valid regular expression");
    check(json!(["rack", "IS", "a/b_c.d-1"]), "");
    check(json!(["rack", "IS"]), "");
    check(
        json!(["rack", "IS", "{a,b}"]),
        "IS only supports Mesos text and float values (see http://mesos.apache.org/documentation/latest/attributes-resources/)",
    );
}

#[test]
fn ports_have_their_own_names_and_numbers() {
    check(json!({"portDefinitions": [{"port": 80, "name": "a"}, {"port": 0, "name": "b"}, {"port": 0}]}), "");
    check(json!({"portDefinitions": [{"port": 80}, {"port": 80}]}), "/portDefinitions: Ports must be unique.");
    check(json!({"portDefinitions": [{"name": "a"}, {"name": "a"}]}), "/portDefinitions: Port names must be unique.");
    check_container(json!({"portMappings": [{"name": "a"}, {"name": "a"}]}), "/container/portMappings: Port names must be unique.");
    check_container(json!({"portMappings": [{"hostPort": 53}, {"hostPort": 53, "protocol": "udp"}, {"hostPort": 0}, {"hostPort": 0}]}), "");
    check_container(
        json!({"portMappings": [{"hostPort": 53}, {"hostPort": 53, "protocol": "udp,tcp"}]}),
        "/container/portMappings: Host ports must be unique for each protocol.",
    );
}

#[test]
fn a_mapping_names_networks_that_there_are() {
    let check_networks = |kind: &str, networks: Value, mapping: Value, expected: &str| {
        let container = json!({"type": kind, "docker": {"image": "i"}, "portMappings": [mapping]});
        check(json!({"container": container, "networks": networks}), expected);
    };
    let two = || json!([{"name": "1"}, {"name": "2"}]);
    check_networks("MESOS", two(), json!({"hostPort": 0, "networkNames": ["1"]}), "");
    check_networks("MESOS", two(), json!({"containerPort": 80}), "");
    check_networks("DOCKER", json!([{"name": "1"}]), json!({"hostPort": 0}), "");
    check_networks(
        "MESOS",
        json!([{"name": "1"}]),
        json!({"networkNames": ["x"]}),
        "/container/portMappings(0)/networkNames(0): is not one of (1)",
    );
    check_networks(
        "MESOS",
        two(),
        json!({"hostPort": 0}),
        "/container/portMappings(0): networkNames must be a single item list when hostPort is specified and more than 1 container network is defined",
    );
    check_networks("DOCKER", two(), json!({}), "/: may only specify a single container network when using the Docker container engine");
}

#[test]
fn strategies_are_in_their_range_and_order() {
    let strategy = |minimum: f64, maximum: f64| json!({"minimumHealthCapacity": minimum, "maximumOverCapacity": maximum});
    check(json!({"upgradeStrategy": strategy(0.0, 1.0)}), "");
    check(json!({"unreachableStrategy": {"inactiveAfterSeconds": 60, "expungeAfterSeconds": 60}}), "");
    check(
        json!({"unreachableStrategy": {"inactiveAfterSeconds": 61, "expungeAfterSeconds": 60}}),
        "/unreachableStrategy/inactiveAfterSeconds: inactiveAfterSeconds (61) must be less or equal to expungeAfterSeconds, which is 60",
    );
    let single = json!({"MARATHON_SINGLE_INSTANCE_APP": "true"});
    check(json!({"labels": single}), "");
    check(json!({"labels": single, "instances": 2}), "/: Single instance app may only have one instance");
    check(json!({"labels": single, "upgradeStrategy": strategy(0.0, 1.0)}), "/upgradeStrategy/maximumOverCapacity: got 1.0, expected 0.0");
    check(
        json!({"labels": {"DCOS_MIGRATION_API_VERSION": "v1"}}),
        "/: DCOS_PACKAGE_FRAMEWORK_NAME and DCOS_MIGRATION_API_PATH must be defined when using DCOS_MIGRATION_API_VERSION",
    );
}

#[test]
fn raw_docker_options_are_for_administrators() {
    let json = |docker: Value| json!({"container": {"docker": docker}});
    let privileged = json(json!({"image": "i", "privileged": true}));
    let parameters = json(json!({"image": "i", "parameters": [{"key": "a", "value": "b"}]}));
    assert_eq!(violations("/web", &privileged, true), "");
    assert_eq!(violations("/web", &parameters, true), "");
    assert_eq!(
        violations("/web", &privileged, false),
        "/container/docker/privileged: may be used by administrators only, unless one of them grants it"
    );
    assert_eq!(
        violations("/web", &parameters, false),
        "/container/docker/parameters: may be used by administrators only, unless one of them grants it"
    );
    let mesos = json!({"container": {"type": "MESOS", "docker": {"image": "i", "privileged": true}}});
    assert_eq!(violations("/web", &mesos, true), "/container/docker/privileged: must be empty");
    check_container(json!({"docker": {"image": "a b"}}), "/container/docker/image: must not contain blanks or control characters");
}

#[test]
fn a_brick_has_one_holder_and_a_possible_size() {
    let brick = |path: &str, brick: Value| json!({"containerPath": path, "mode": "RW", "brick": brick});
    let check_bricks = |fields: Value, volumes: Value, expected: &str| {
        let mut json = json!({"container": {"docker": {"image": "i"}, "volumes": volumes}});
        json.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        assert_eq!(violations("/db", &json, false), expected, "{json}");
    };
    let one = || json!([brick("/data", json!({"size": 16}))]);
    check_bricks(json!({}), one(), "");
    check_bricks(json!({"instances": 0}), one(), "");
    check_bricks(json!({"instances": 2}), one(), "/instances: apps with a brick can have at most one instance");
    check_bricks(
        json!({"upgradeStrategy": {"minimumHealthCapacity": 0, "maximumOverCapacity": 1}}),
        one(),
        "/upgradeStrategy: apps with a brick need minimumHealthCapacity 0 and maximumOverCapacity 0: only one instance can hold the brick",
    );
    let check_one = |volume: Value, expected: &str| {
        let expected = if expected.is_empty() { String::new() } else { format!("/container/volumes(0){expected}") };
        check_bricks(json!({}), json!([volume]), &expected);
    };
    check_one(brick("/data", json!({"size": 64 << 20, "pool": "Pool-1.x_y"})), "");
    check_one(brick("/data", json!({"size": 15})), "/brick/size: got 15, expected 16 to 67108864 MiB");
    check_one(brick("/data", json!({"size": (64 << 20) + 1})), "/brick/size: got 67108865, expected 16 to 67108864 MiB");
    for pool in ["../etc", ".hidden", "a/b", "a b", "-a", "ä"] {
        check_one(
            brick("/data", json!({"size": 16, "pool": pool})),
            "/brick/pool: must begin with a letter or digit, consist of letters, digits, '-', '_' and '.', and have at most 63 characters",
        );
    }
    check_one(brick("data", json!({"size": 16})), "/containerPath: must be an absolute path");
    check_one(brick("/", json!({"size": 16})), "/containerPath: must not be the root directory");
    check_one(brick("/a/../b", json!({"size": 16})), "/containerPath: must not contain '..'");
    check_bricks(
        json!({}),
        json!([brick("/data", json!({"size": 16})), {"containerPath": "/data/", "hostPath": "/var/log", "mode": "RO"}]),
        "/container/volumes(1)/containerPath: '/data' is used by another volume",
    );
}

#[test]
fn big_directories_of_the_node_are_not_mapped() {
    let check = |host_path: &str, expected: &str| {
        let volume = json!({"containerPath": "/x", "hostPath": host_path, "mode": "RO"});
        let json = json!({"container": {"docker": {"image": "i"}, "volumes": [volume]}});
        assert_eq!(violations("/web", &json, true), expected, "{host_path}");
    };
    check("/var/crash", "");
    check("/etc/my_conf", "");
    check(
        "/etc/",
        "/container/volumes(0)/hostPath: '/etc' must not be mapped as a whole: name a file or directory below it (an administrator can allow paths with --host_volume_allow)",
    );
    check("logs", "/container/volumes(0)/hostPath: must be an absolute path");
}

#[test]
fn a_host_volume_is_seen_at_an_absolute_path_or_in_the_sandbox() {
    let check = |container_paths: &[&str], expected: &str| {
        let volume = |path: &&str| json!({"containerPath": path, "hostPath": "/var/crash", "mode": "RO"});
        let volumes: Vec<_> = container_paths.iter().map(volume).collect();
        for container in [json!({"docker": {"image": "i"}, "volumes": volumes}), json!({"type": "MESOS", "volumes": volumes})] {
            assert_eq!(violations("/web", &json!({"cmd": "true", "container": container}), true), expected, "{container_paths:?}");
        }
    };
    check(&["/x"], "");
    check(&["logs", "a/b", "/logs"], "");
    let outside =
        |path: &str| format!("/container/volumes(0)/containerPath: '{path}' must be a path within the sandbox: relative, and without '..'");
    check(&["../logs"], &outside("../logs"));
    check(&["."], &outside("."));
    check(&["/"], "/container/volumes(0)/containerPath: must not be the root directory");
    check(&["logs", "./logs/"], "/container/volumes(1)/containerPath: 'logs' is used by another volume");
}

#[test]
fn what_is_fetched_stays_in_the_sandbox() {
    let uri = |uri: &str, expected: &str| check(json!({"fetch": [{"uri": uri}]}), expected);
    uri("http://example.com/a.tgz?x=%20y#z", "");
    uri("/opt/a.tgz", "");
    uri("hdfs://a:9000/b", "");
    for wrong in ["d://\\not-a-uri", "http://a b", "http://a/%2", "http://a/%zz", "a\nb", "<a>"] {
        uri(wrong, "/fetch(0)/uri: URI has invalid syntax.");
    }
    let dest = |path: &str, expected: &str| check(json!({"fetch": [{"uri": "http://a/b", "destPath": path}]}), expected);
    dest("a", "");
    dest("./a//b/", "");
    for wrong in ["/etc/passwd", "..", "a/../../b", "a/..", ".", "./"] {
        dest(wrong, &format!("/fetch(0)/destPath: '{wrong}' must be a path within the sandbox: relative, and without '..'"));
    }
    dest("a\0b", "/fetch(0)/destPath: must not contain control characters");
    dest(&"a".repeat(256), "/fetch(0)/destPath: is too long for a path");
    let many: Vec<Value> = (0..101).map(|_| json!({"uri": "http://a/b"})).collect();
    check(json!({"fetch": many}), "/fetch: must have at most 100 entries");
}

#[test]
fn persistent_volumes_are_marathons() {
    let app = |volume: Value, more: Value| {
        let mut json = json!({"container": {"type": "MESOS", "volumes": [volume]}});
        json.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json
    };
    let volume = |path: &str, mode: &str, size: u64| json!({"containerPath": path, "mode": mode, "persistent": {"size": size}});
    let data = || volume("data", "RW", 100);
    check(app(data(), json!({"instances": 3})), "");
    check(app(volume("da ta", "RW", 1), json!({})), "");
    check(app(volume("/data", "RW", 1), json!({})), "/container/volumes(0)/containerPath: value must not contain \"/\"");
    check(app(volume("..", "RW", 1), json!({})), "/container/volumes(0)/containerPath: can not be one of (.,..)");
    check(app(volume("data", "RO", 1), json!({})), "/container/volumes(0)/mode: does not equal RW");
    check(app(volume("data", "RW", 0), json!({})), "/container/volumes(0)/persistent/size: got 0, expected more than 0");
    check(
        app(volume("data", "RW", 1 << 40), json!({})),
        "/container/volumes(0)/persistent/size: got 1099511627776, expected at most 67108864 MiB",
    );
    check(
        app(data(), json!({"upgradeStrategy": {"minimumHealthCapacity": 1, "maximumOverCapacity": 0.5}})),
        "/upgradeStrategy/maximumOverCapacity: got 0.5, expected 0.0",
    );
    check(
        app(data(), json!({"unreachableStrategy": {"inactiveAfterSeconds": 0, "expungeAfterSeconds": 0}})),
        "/: unreachableStrategy must be disabled for resident tasks",
    );
    check(
        json!({"container": {"type": "MESOS", "volumes": [data(), data()]}}),
        "/container/volumes(1)/containerPath: 'data' is used by another volume",
    );
}

#[test]
fn external_volumes_are_marathons() {
    let volume = |more: Value| {
        let mut volume = json!({"containerPath": "/data", "mode": "RW",
            "external": {"name": "v", "provider": "dvdi", "options": {"dvdi/driver": "rexray"}}});
        for (key, value) in more.as_object().unwrap() {
            match volume["external"].get(key).is_some() || matches!(key.as_str(), "size" | "shared") {
                true => volume["external"][key] = value.clone(),
                false => volume[key] = value.clone(),
            }
        }
        volume
    };
    let app = |kind: &str, volume: Value| json!({"container": {"type": kind, "docker": {"image": "i"}, "volumes": [volume]}});
    let mesos = |more: Value| app("MESOS", volume(more));
    let docker = |more: Value| app("DOCKER", volume(more));
    let options = |more: Value| {
        let mut options = json!({"dvdi/driver": "rexray"});
        options.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"options": options})
    };
    check(mesos(json!({})), "");
    check(docker(json!({})), "");
    check(mesos(json!({"size": 5, "containerPath": "data"})), "");
    check(mesos(options(json!({"dvdi/iops": "100", "dvdi/newfstype": "xfs", "dvdi/overwritefs": "False", "other/a.b": "C d"}))), "");
    check(mesos(json!({"name": "name=team,secret_key=k,size=5"})), "");

    check(mesos(json!({"name": ""})), "/container/volumes(0)/external/name: must not be empty");
    check(mesos(json!({"name": null})), "/container/volumes(0)/external/name: must not be empty");
    let no_path = "/container/volumes(0)/external/name: must be no path, and have at most 255 bytes and no control characters";
    check(mesos(json!({"name": "../a"})), no_path);
    check(mesos(json!({"name": ".."})), no_path);
    check(mesos(json!({"name": "a".repeat(256)})), no_path);
    check(mesos(json!({"provider": null})), "/container/volumes(0)/external/provider: not defined");
    check(mesos(json!({"provider": "qaz"})), "/container/volumes(0)/external/provider: is unknown provider");
    check(mesos(json!({"size": 0})), "/container/volumes(0)/external/size: got 0, expected more than 0");
    check(mesos(json!({"options": {}})), "/container/volumes(0)/external/options(\"dvdi/driver\"): not defined");
    check(mesos(json!({"options": null})), "/container/volumes(0)/external/options(\"dvdi/driver\"): not defined");
    let label =
        |at: &str| format!("/container/volumes(0)/external/options{at}: must match regular expression '^[a-z0-9](?:[-a-z0-9]*[a-z0-9])?$'");
    for bad in ["", "Rexray", "-a", "a-", "a_b"] {
        check(mesos(json!({"options": {"dvdi/driver": bad}})), &label("(\"dvdi/driver\")"));
    }
    for bad in ["driver", "dvdi/", "Dvdi/a", "dvdi/-a", "dvdi/a/b"] {
        let index = usize::from(bad > "dvdi/driver");
        check(
            mesos(options(json!({bad: "x"}))),
            &format!(
                "/container/volumes(0)/external/options/keys({index}): must match regular expression \
                 '^[a-z0-9](?:[-a-z0-9]*[a-z0-9])?/[A-Za-z0-9](?:[-A-Za-z0-9\\._:]*[A-Za-z0-9])?$'"
            ),
        );
    }
    // Marathon knows one driver's options.
    check(mesos(options(json!({"dvdi/volumetype": "io1 "}))), &label("/\"dvdi/volumetype\""));
    check(mesos(options(json!({"dvdi/newfstype": ""}))), &label("/\"dvdi/newfstype\""));
    let iops = |value: &str| {
        format!("/container/volumes(0)/external/options/\"dvdi/iops\": Expected a valid, positive integer instead of {value}")
    };
    check(mesos(options(json!({"dvdi/iops": "0"}))), &iops("0"));
    check(mesos(options(json!({"dvdi/iops": "b"}))), &iops("b"));
    check(
        mesos(options(json!({"dvdi/overwritefs": "b"}))),
        "/container/volumes(0)/external/options/\"dvdi/overwritefs\": Expected a valid boolean",
    );
    check(mesos(json!({"options": {"dvdi/driver": "other", "dvdi/iops": "b"}})), "");

    check(mesos(json!({"mode": "RO"})), "/container/volumes(0)/mode: does not equal RW");
    check(docker(json!({"mode": "RO"})), "");
    check(docker(json!({"size": 5})), "/container/volumes(0)/external/size: must be undefined for Docker containers");
    check(docker(options(json!({"dvdi/iops": "1"}))), "/container/volumes(0)/external/options: must only contain dvdi/driver");
    check(mesos(json!({"containerPath": ".."})), "/container/volumes(0)/containerPath: can not be one of (.,..)");
    check(mesos(json!({"containerPath": "a/b"})), "/container/volumes(0)/containerPath: value must not contain \"/\"");
    check(mesos(json!({"containerPath": "/a/../b"})), "/container/volumes(0)/containerPath: must not contain '..'");

    let with = |more: Value| {
        let mut app = mesos(json!({}));
        app.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        app
    };
    check(with(json!({"instances": 0})), "");
    check(with(json!({"instances": 2})), "/: Number of instances is limited to 1 when declaring DVDI volumes in app [/shop/web]");
    check(
        with(json!({"upgradeStrategy": {"minimumHealthCapacity": 0, "maximumOverCapacity": 0.5}})),
        "/upgradeStrategy/maximumOverCapacity: got 0.5, expected 0.0",
    );
    check(with(json!({"upgradeStrategy": {"minimumHealthCapacity": 1, "maximumOverCapacity": 0}})), "");
    let two = |shared: bool| {
        let second = volume(json!({"containerPath": "/more", "shared": shared}));
        json!({"container": {"type": "MESOS", "docker": {"image": "i"}, "volumes": [volume(json!({"shared": shared})), second]}})
    };
    check(two(true), "/container/volumes: Volume names must be unique");
    check(
        two(false),
        "/: Requested DVDI volume 'v' is declared more than once within app /shop/web; /container/volumes: Volume names must be unique",
    );
}
