use serde_json::{Value, json};

use crate::{
    core::validate::{self, Ctx},
    model::{app::input::Defaults, host_volume::HostVolumeRule, pod::input::PodInput},
};

/// `path: text` of everything that is wrong, by line. `enabled`: secrets are.
fn violations(enabled: bool, change: &dyn Fn(&mut Value)) -> String {
    let mut written = json!({
        "id": "/some/pod",
        "networks": [{"mode": "host"}],
        "containers": [{
            "name": "ct1",
            "resources": {},
            "exec": {"command": {"shell": "sleep 1"}},
            "endpoints": [{"name": "a", "hostPort": 123}],
            "volumeMounts": [{"name": "volume", "mountPath": "/bla"}],
        }],
        "volumes": [{"name": "volume"}],
        "scheduling": {"placement": {"constraints": [{"fieldName": "foo", "operator": "MAX_PER", "value": "3"}]}},
    });
    change(&mut written);
    let input = PodInput::read(&written).unwrap();
    let app = input.complete(&input.path().unwrap(), &Defaults::default()).unwrap();
    let ctx = Ctx {
        privileged: false,
        docker_parameters: false,
        default_role: "*",
        existing_role: None,
        enforced_role: None,
        host_volumes: &HostVolumeRule::default(),
        secrets: enabled,
        secrets_of: None,
        command_networks: true,
    };
    validate::app(&app, ctx).iter().map(|one| format!("{}: {}", one.path, one.text)).collect::<Vec<_>>().join("\n")
}

#[test]
fn pods_have_marathons_rules_and_texts() {
    let check = |change: &dyn Fn(&mut Value), expected: &str| assert_eq!(violations(false, change), expected);
    let at = |pointer: &'static str, value: Value| move |written: &mut Value| *written.pointer_mut(pointer).unwrap() = value.clone();
    let twice = |pointer: &'static str| {
        move |written: &mut Value| {
            let list = written.pointer_mut(pointer).unwrap().as_array_mut().unwrap();
            list.push(list[0].clone());
        }
    };
    check(&|_| {}, "");
    check(&|written| written["user"] = json!(""), "/user: must not be empty");
    check(&|written| written["containers"][0]["resourceLimits"] = json!({"cpus": "unlimited", "mem": 300}), "");
    check(
        &|written| written["containers"][0]["resourceLimits"] = json!({"cpus": 0.5, "mem": 100}),
        "/containers(0)/resourceLimits/cpus: resource limit must be greater than or equal to requested resource (1.0)\n\
         /containers(0)/resourceLimits/mem: resource limit must be greater than or equal to requested resource (128.0)",
    );
    check(
        &|written| {
            written["legacySharedCgroups"] = json!(true);
            written["containers"][0]["resourceLimits"] = json!({"cpus": "unlimited"});
        },
        "/containers(0)/resourceLimits: resourceLimits cannot be defined if legacySharedCgroups is enabled",
    );
    check(
        &|written| {
            twice("/containers")(written);
            written["containers"][1]["endpoints"] = json!([]);
        },
        "/containers: container names must be unique",
    );
    check(
        &|written| written["containers"][0]["endpoints"] = json!([{"name": "a", "hostPort": 1}, {"name": "a", "hostPort": 2}]),
        "/: endpoint names nust be unique across all containers",
    );
    check(
        &|written| written["containers"][0]["endpoints"] = json!([{"name": "a", "hostPort": 1}, {"name": "b", "hostPort": 1}]),
        "/: host ports must be unique across all containers",
    );
    check(
        &|written| {
            written["networks"] = json!([{"mode": "container", "name": "net"}]);
            written["containers"][0]["endpoints"] = json!([{"name": "a", "containerPort": 1}, {"name": "b", "containerPort": 1}]);
        },
        "/: container ports must be unique across all containers",
    );
    // 0 is as good as none.
    check(
        &|written| {
            written["networks"] = json!([{"mode": "container/bridge"}]);
            written["containers"][0]["endpoints"] = json!([{"name": "a", "containerPort": 0}, {"name": "b", "containerPort": 0}]);
        },
        "",
    );
    check(&twice("/volumes"), "/volumes: volume names must be unique");
    check(
        &|written| written["containers"][0]["volumeMounts"] = json!([]),
        "/volumes(0): volume must be referenced by at least one container",
    );
    check(
        &|written| written["containers"][0]["volumeMounts"][0]["name"] = json!("other"),
        "/volumes(0): volume must be referenced by at least one container\n\
         /containers(0)/volumeMounts(0)/name: Referenced Volume in VolumeMount should exist",
    );
    check(&twice("/containers/0/volumeMounts"), "/containers(0)/volumeMounts(1)/mountPath: '/bla' is used by another volume");
    check(&at("/containers/0/volumeMounts/0/mountPath", json!("../x")), "/containers(0)/volumeMounts(0)/mountPath: must not contain '..'");
    let constraint = |constraint: Value| at("/scheduling/placement/constraints/0", constraint);
    check(
        &constraint(json!({"fieldName": "foo", "operator": "MAX_PER"})),
        "/scheduling/placement/constraints(0): MAX_PER requires an integer value",
    );
    check(
        &constraint(json!({"fieldName": "", "operator": "UNIQUE"})),
        "/scheduling/placement/constraints(0): missing field for constraint declaration",
    );
    check(&|written| written["role"] = json!("other"), "/role: got other, expected one of: [*, some]");
    check(
        &|written| written["scheduling"]["placement"]["acceptedResourceRoles"] = json!(["other"]),
        "/acceptedResourceRoles: acceptedResourceRoles can only contain *",
    );
    check(
        &|written| written["scheduling"]["backoff"] = json!({"backoffFactor": 0.5}),
        "/scheduling/backoff/backoffFactor: got 0.5, expected 1.0 or more",
    );
    check(
        &|written| written["scaling"] = json!({"kind": "fixed", "instances": 100_001}),
        "/scaling/instances: got 100001, expected 100000 or less",
    );
    check(
        &at("/volumes/0", json!({"name": "volume", "persistent": {"size": 0}})),
        "/volumes(0)/persistent/size: got 0, expected more than 0",
    );
    check(
        &at("/volumes/0", json!({"name": "volume", "persistent": {"size": 67_108_865}})),
        "/volumes(0)/persistent/size: got 67108865, expected at most 67108864 MiB",
    );
    let resident = |scheduling: Value| {
        move |written: &mut Value| {
            written["volumes"][0]["persistent"] = json!({"size": 1});
            written["scheduling"] = scheduling.clone();
        }
    };
    check(&resident(json!({})), "");
    check(&resident(json!({"upgrade": {"minimumHealthCapacity": 0.5, "maximumOverCapacity": 0}, "unreachableStrategy": "disabled"})), "");
    check(&resident(json!({"upgrade": {"maximumOverCapacity": 0.1}})), "/upgrade/maximumOverCapacity: got 0.1, expected 0.0");
    check(&resident(json!({"upgrade": {}})), "/upgrade/maximumOverCapacity: got 1.0, expected 0.0");
    check(
        &resident(json!({"unreachableStrategy": {"inactiveAfterSeconds": 1, "expungeAfterSeconds": 2}})),
        "/: unreachableStrategy must be disabled for pods with persistent volumes",
    );
    check(
        &|written| {
            resident(json!({"placement": {"acceptedResourceRoles": ["some"]}}))(written);
            written["id"] = json!("/some/pod");
            written["role"] = json!("some");
        },
        "/acceptedResourceRoles: A resident pod must have `acceptedResourceRoles = [\"*\"]`.",
    );
    let many: Vec<Value> = (0..51)
        .map(|n| json!({"name": format!("c{n}"), "resources": {}, "volumeMounts": [{"name": "volume", "mountPath": "/v"}]}))
        .collect();
    check(&at("/containers", many.into()), "/containers: must have at most 50 entries");
}

#[test]
fn secrets_of_pods_have_marathons_rules_and_texts() {
    let check = |enabled: bool, change: &dyn Fn(&mut Value), expected: &str| assert_eq!(violations(enabled, change), expected);
    let defined = |written: &mut Value| written["secrets"] = json!({"s": {"source": "/s"}});
    let used = |written: &mut Value| {
        written["environment"] = json!({"A": {"secret": "s"}});
        written["volumes"][0]["secret"] = json!("s");
        written["containers"][0]["environment"] = json!({"B": {"secret": "s"}});
        written["containers"][0]["image"] = json!({"kind": "DOCKER", "id": "i", "pullConfig": {"secret": "s"}});
    };
    check(true, &defined, "");
    check(
        true,
        &|written| {
            defined(written);
            used(written);
        },
        "",
    );
    check(false, &defined, "/secrets: must be empty\n/secrets: Feature secrets is not enabled. Enable with --enable_features secrets)");
    check(
        true,
        &used,
        "/environment/A/secret: references an undefined secret\n\
         /podSecretVolumes(pod): must be empty\n\
         /podSecretVolumes(pod)(0)/secret: volume.secret must refer to an existing secret\n\
         /containers(0)/environment/B/secret: references an undefined secret\n\
         /containers(0)/image/pullConfig: pullConfig.secret must refer to an existing secret",
    );
    check(
        false,
        &|written| {
            defined(written);
            used(written);
        },
        "/environment: use of secret-references in the environment requires the secrets feature to be enabled\n\
         /secrets: must be empty\n\
         /secrets: Feature secrets is not enabled. Enable with --enable_features secrets)\n\
         /podSecretVolumes(pod): must be empty\n\
         /podSecretVolumes(pod): Feature secrets is not enabled. Enable with --enable_features secrets)\n\
         /containers(0)/environment: use of secret-references in the environment requires the secrets feature to be enabled\n\
         /containers(0)/image/pullConfig: must be empty\n\
         /containers(0)/image/pullConfig: Feature secrets is not enabled. Enable with --enable_features secrets)",
    );
}

#[test]
fn linux_info_of_pods_has_marathons_rules() {
    let check = |change: &dyn Fn(&mut Value), expected: &str| assert_eq!(violations(false, change), expected);
    let bridge = |written: &mut Value| {
        written["networks"] = json!([{"mode": "container/bridge"}]);
        written["containers"][0]["endpoints"] = json!([]);
        written["containers"][0]["image"] = json!({"kind": "DOCKER", "id": "i"});
        written["containers"][0]["linuxInfo"] = json!({"ipcInfo": {"mode": "SHARE_PARENT"}});
    };
    check(&|written| written["linuxInfo"] = json!({"ipcInfo": {"mode": "PRIVATE", "shmSize": 64}}), "");
    check(&bridge, "");
    check(
        &|written| {
            bridge(written);
            written["containers"][0]["image"] = json!(null);
        },
        "/containers(0)/linuxInfo/ipcInfo/mode: a container without an image has the node's memory, not the pod's",
    );
    check(
        &|written| written["containers"][0]["linuxInfo"] = json!({"ipcInfo": {"mode": "SHARE_PARENT"}}),
        "/containers(0)/linuxInfo/ipcInfo/mode: the containers of a pod share memory only when they have a network of their own, too",
    );
    check(
        &|written| written["linuxInfo"] = json!({"seccomp": {"unconfined": true}, "ipcInfo": {"mode": "SHARE_PARENT"}}),
        "/linuxInfo/seccomp: Seccomp configuration on executor level is not supported\n\
         /linuxInfo/ipcInfo/mode: pods have no parent to share memory with but the node, and that is not done here",
    );
}
