//! Persistent volumes: an instance goes where its own are, leaves them to its successor, and takes them with it only when it is told to.

use std::collections::BTreeSet;

use super::*;
use crate::model::{brick::Brick, id::InstanceId, pod::input::PodInput};

fn resident(instances: u32) -> Value {
    let volume = json!({"containerPath": "data", "mode": "RW", "persistent": {"size": 100}});
    json!({"id": "/db", "cmd": "sleep 100", "cpus": 1, "mem": 100, "instances": instances, "backoffSeconds": 0,
        "container": {"type": "MESOS", "volumes": [volume]}})
}

impl World {
    /// The nodes do what they are asked about bricks: they release them, and delete their data.
    fn nodes_obey(&mut self) {
        self.wait(0);
        for call in std::mem::take(&mut self.calls) {
            let report = match call {
                ClusterCall::ReleaseBrick { brick, epoch, agent, .. } => BrickReport::Released { brick, epoch, agent },
                ClusterCall::DestroyBrick { brick, epoch, .. } => BrickReport::Destroyed { brick, epoch },
                _ => continue,
            };
            self.cluster(ClusterEvent::Brick(report));
        }
    }

    /// Launches what fits on a node, and says that it runs.
    fn run_on(&mut self, agent: &str) -> Vec<Launch> {
        let launches = self.offer(agent, 9, 9000);
        run(self, &launches);
        launches
    }

    fn end(&mut self, task: &TaskId, state: TaskState) {
        self.status(task, state);
        self.nodes_obey();
    }

    /// Every kill that was sent is obeyed.
    fn kills_work(&mut self) -> Vec<TaskId> {
        let killed = self.kills();
        killed.iter().for_each(|task| self.end(task, TaskState::Killed));
        killed
    }

    fn volumes(&self) -> Vec<Arc<Brick>> {
        self.tables().bricks.values().cloned().collect()
    }
}

/// The volumes that launches mount, by name.
fn mounted(launches: &[Launch]) -> Vec<String> {
    let mut names: Vec<String> = launches.iter().flat_map(|launch| &launch.bricks).map(|mount| mount.name.to_string()).collect();
    names.sort();
    names
}

#[test]
fn a_failed_instance_comes_back_to_its_volume_and_to_nothing_else() {
    let mut world = World::new();
    world.create(resident(1)).unwrap();
    let first = world.run_on("a").remove(0);
    let [mount] = &first.bricks[..] else { panic!("{:?}", first.bricks) };
    assert_eq!((&*mount.container_path, mount.size, mount.read_only), ("data", 100, false));
    let volume = world.volumes().remove(0);
    let uuid = volume.reservation.as_ref().unwrap().uuid;
    assert_eq!(volume.persistence_id().unwrap(), format!("db#data#{uuid}"));
    // The node has not let go of it yet.
    world.status(&first.task, TaskState::Failed);
    assert!(world.offer("a", 9, 9000).is_empty());
    world.nodes_obey();
    world.restart();
    world.cluster(ClusterEvent::Connected { framework_id: "f".into(), master: "m".into(), region: None });
    world.wait(60_000);
    assert!(world.offer("b", 9, 9000).is_empty(), "its volume is elsewhere");
    let entry = world.state.view().queue[&path("/db")].clone();
    assert_eq!(entry.last_unused_offers[&AgentId::new("b")].reasons, [crate::core::state::Reject::NoCorrespondingReservationFound]);
    let second = world.run_on("a").remove(0);
    assert_eq!((&second.task.instance, second.task.incarnation), (&first.task.instance, 2));
    assert_eq!(second.bricks[0].name, mount.name);
    assert!(second.bricks[0].epoch > mount.epoch);
}

/// Whichever of the two is the first by its id.
#[test]
fn what_waits_for_its_node_is_not_in_the_way_of_what_has_no_volume_yet() {
    for random in 1..=8 {
        let mut world = World::new();
        world.random = random;
        world.create(resident(1)).unwrap();
        let first = world.run_on("a").remove(0);
        world.end(&first.task, TaskState::Failed);
        world.wait(60_000);
        world.update("/db", json!({"instances": 2}), false).unwrap();
        assert_eq!(world.conditions("/db"), "Scheduled*2");
        let elsewhere = world.run_on("b");
        assert_eq!(elsewhere.len(), 1, "{random}");
        assert_ne!(elsewhere[0].task.instance, first.task.instance, "{random}");
        assert_eq!(mounted(&world.run_on("a")), mounted(&[first]), "{random}");
    }
}

#[test]
fn what_is_scaled_down_leaves_its_volume_to_what_is_scaled_up() {
    let mut world = World::new();
    world.create(resident(3)).unwrap();
    let all = world.run_on("a");
    let volumes = mounted(&all);
    assert_eq!((volumes.len(), world.volumes().len()), (3, 3));
    world.update("/db", json!({"instances": 1}), false).unwrap();
    let killed = world.kills_work();
    assert_eq!((killed.len(), world.conditions("/db").as_str(), world.volumes().len()), (2, "Running*1", 3));
    world.update("/db", json!({"instances": 4}), false).unwrap();
    assert!(world.offer("b", 9, 9000).len() <= 1, "at most the one that has no volume yet goes elsewhere");
    let again = world.run_on("a");
    assert_eq!(world.volumes().len(), 4);
    let kept = mounted(&again);
    assert_eq!(kept.iter().filter(|name| volumes.contains(name)).count(), 2, "{kept:?}");
}

#[test]
fn a_new_version_takes_over_the_volume_of_what_it_replaces() {
    let mut world = World::new();
    world.create(resident(2)).unwrap();
    let old = world.run_on("a");
    // One is scaled down first: its volume is older than the one that the new version must get.
    world.update("/db", json!({"instances": 1}), false).unwrap();
    let gone = world.kills_work().remove(0);
    let (gone, stays): (Vec<_>, Vec<_>) = old.into_iter().partition(|launch| launch.task == gone);
    world.wait(1000);
    world.update("/db", json!({"cmd": "sleep 200"}), false).unwrap();
    let killed = world.kills();
    assert_eq!(killed, [stays[0].task.clone()], "none may come on top, so the old one goes first");
    // It has ended, and its node has not let go of the volume yet: the other one is no substitute.
    world.status(&killed[0], TaskState::Killed);
    assert!(world.offer("a", 9, 9000).is_empty());
    world.nodes_obey();
    let new = world.run_on("a").remove(0);
    assert_eq!(new.bricks[0].name, stays[0].bricks[0].name);
    assert_ne!(new.bricks[0].name, gone[0].bricks[0].name);
    assert_ne!(new.task.instance, stays[0].task.instance);
    assert!(world.tables().deployments.is_empty());
    assert_eq!(world.volumes().len(), 2);
}

#[test]
fn a_rolling_upgrade_keeps_half_and_every_volume() {
    let mut world = World::new();
    world.create(resident(4)).unwrap();
    let volumes = mounted(&world.run_on("a"));
    world.update("/db", json!({"cmd": "sleep 200"}), false).unwrap();
    let mut taken = Vec::new();
    for _ in 0..4 {
        let killed = world.kills_work();
        assert!(killed.len() <= 2, "{killed:?}");
        taken.extend(mounted(&world.run_on("a")));
    }
    taken.sort();
    assert_eq!((taken, world.conditions("/db").as_str()), (volumes, "Running*4"));
    assert!(world.tables().deployments.is_empty());
}

#[test]
fn wiping_and_deleting_give_volumes_up() {
    let mut world = World::new();
    world.create(resident(1)).unwrap();
    let first = world.run_on("a").remove(0);
    let kill =
        |wipe: bool| Request::KillTasks { selection: KillSelector::App { app: path("/db"), host: None }, scale: false, force: false, wipe };
    world.request(kill(false)).unwrap();
    world.kills_work();
    let second = world.run_on("a").remove(0);
    assert_eq!(first.bricks[0].name, second.bricks[0].name, "a plain kill wipes nothing");
    world.request(kill(true)).unwrap();
    assert_eq!(world.volumes().len(), 1, "nothing is deleted under a task");
    world.kills_work();
    world.nodes_obey();
    assert!(world.volumes().is_empty());
    let third = world.run_on("b").remove(0);
    assert_ne!(third.bricks[0].name, second.bricks[0].name);
    world.request(Request::DeleteApp { app: path("/db"), force: false }).unwrap();
    assert!(!world.volumes()[0].condemned, "not before its instance is gone");
    world.kills_work();
    world.nodes_obey();
    assert!(world.volumes().is_empty() && world.tables().instances.is_empty() && world.tables().reserved.is_empty());
}

#[test]
fn a_lost_node_keeps_its_instance_and_its_volume() {
    let mut world = World::new();
    world.create(resident(1)).unwrap();
    let first = world.run_on("a").remove(0);
    world.status(&first.task, TaskState::Unreachable);
    world.wait(100_000_000);
    assert!(world.offer("b", 9, 9000).is_empty());
    assert_eq!(world.conditions("/db"), "Unreachable*1");
    world.status(&first.task, TaskState::Running);
    assert_eq!(world.conditions("/db"), "Running*1");
}

#[test]
fn what_volumes_are_bound_to_does_not_change() {
    let mut world = World::new();
    world.create(resident(1)).unwrap();
    let mut check = |update: Value, expected: &str| {
        let found = match world.update("/db", update, true) {
            Ok(_) => "good".to_owned(),
            Err(RequestError::Invalid(violations)) => format!("{}: {}", violations[0].path, violations[0].text),
            Err(other) => other.to_string(),
        };
        assert!(found.starts_with(expected), "{found}");
    };
    let resources = "Services with persistent volumes configured may not change resource requirements. If you need to make this change, ";
    check(json!({"cpus": 2}), &format!("/cpus: {resources}"));
    check(json!({"mem": 200}), &format!("/mem: {resources}"));
    check(json!({"disk": 1}), &format!("/disk: {resources}"));
    check(json!({"requirePorts": true}), &format!("/requirePorts: {resources}"));
    check(json!({"portDefinitions": [{"port": 7}]}), "/: Services with persistent volumes configured may not change host ports.");
    let volume = |path: &str, size: u64| json!({"container": {"type": "MESOS", "volumes": [{"containerPath": path, "mode": "RW", "persistent": {"size": size}}]}});
    check(volume("data", 200), "/: Persistent volumes can not be changed!");
    check(volume("other", 100), "/: Persistent volumes can not be changed!");
    check(json!({"container": {"type": "MESOS"}}), "/: Persistent volumes can not be changed!");
    check(
        json!({"upgradeStrategy": {"minimumHealthCapacity": 1, "maximumOverCapacity": 1}}),
        "/upgradeStrategy/maximumOverCapacity: got 1.0, expected 0.0",
    );
    let unreachable = json!({"unreachableStrategy": {"inactiveAfterSeconds": 1, "expungeAfterSeconds": 2}});
    check(unreachable, "/: unreachableStrategy must be disabled for resident tasks");
    check(volume("data", 100), "good");
    check(json!({"env": {"A": "b"}}), "good");
}

#[test]
fn volumes_count_in_their_owners_quota() {
    let mut world = World::new();
    world.quota("ann", Quota { brick: Some(250), ..Quota::default() });
    world.create_by("ann", resident(2)).unwrap();
    let refused = world.update_by("ann", "/db", json!({"instances": 3})).unwrap_err();
    let RequestError::Invalid(violations) = refused else { panic!("{refused:?}") };
    assert!(violations[0].text.contains("250 MiB of bricks"), "{violations:?}");
    world.run_on("a");
    world.update_by("ann", "/db", json!({"env": {"A": "b"}})).unwrap();
}

/// What was promised counts before it is there, and what takes the place of what was given up is promised.
#[test]
fn volumes_that_are_still_to_come_count_in_their_owners_quota() {
    let app = |id: &str, size: u64, brick: bool| {
        let mut volume = json!({"containerPath": if brick { "/d" } else { "d" }, "mode": "RW"});
        volume[if brick { "brick" } else { "persistent" }] = json!({"size": size});
        json!({"id": id, "cmd": "x", "cpus": 0.1, "mem": 32, "backoffSeconds": 0, "container": {"type": "MESOS", "volumes": [volume]}})
    };
    let used = |world: &World| world.tables().holdings.get(&Owner::new("ann")).map_or(0, |own| own.usage.brick);
    let check = |first: Value, between: fn(&mut World), second: Value, expected: (bool, u128)| {
        let mut world = World::new();
        world.quota("ann", Quota { brick: Some(250), ..Quota::default() });
        world.create_by("ann", first.clone()).unwrap();
        between(&mut world);
        let accepted = world.create_by("ann", second.clone()).is_ok();
        assert_eq!((accepted, used(&world)), expected, "{first}, {second}");
        // Nothing of that changes when all of it runs, or after a restart.
        world.run_on("a");
        world.run_on("b");
        assert_eq!(used(&world), expected.1, "{first}, {second}: once they run");
        world.restart();
        assert_eq!(used(&world), expected.1, "{first}, {second}: after a restart");
    };
    let release = |world: &mut World| {
        let names: Vec<_> = world.volumes().iter().map(|brick| brick.name.clone()).collect();
        for brick in names {
            world.request_by("ann", Request::ReleaseBrick { brick, force: true }).unwrap();
        }
        world.nodes_obey();
    };
    // One waits while the other comes.
    check(app("/one", 200, false), |_| {}, app("/two", 100, false), (false, 200));
    check(app("/one", 200, false), |_| {}, app("/two", 100, true), (false, 200));
    check(app("/one", 200, false), |_| {}, app("/two", 50, false), (true, 250));
    // No volume is smaller than a file system.
    check(app("/one", 240, false), |_| {}, app("/two", 5, false), (false, 240));
    check(app("/one", 5, false), |_| {}, app("/two", 230, false), (true, 246));
    // A brick of an app that exists comes again.
    check(app("/one", 200, true), release, app("/two", 100, true), (false, 200));
    check(app("/one", 200, true), release, app("/two", 50, false), (true, 250));
    // So does a volume.
    let wipe: fn(&mut World) = |world| {
        let task = world.run_on("a").remove(0).task;
        let selection = KillSelector::Task { app: path("/one"), task: task.to_string() };
        world.request_by("ann", Request::KillTasks { selection, scale: false, force: false, wipe: true }).unwrap();
        world.end(&task, TaskState::Killed);
        world.nodes_obey();
    };
    check(app("/one", 200, false), wipe, app("/two", 100, false), (false, 200));
}

/// GPUs are kept for what asks for them, but not from what has its data beside them.
#[test]
fn a_volume_beside_gpus_is_gone_back_to() {
    let mut world = World::new();
    world.create(resident(1)).unwrap();
    let first = world.run_on("a").remove(0);
    world.end(&first.task, TaskState::Failed);
    world.wait(60_000);
    let offer = Offer {
        id: OfferId::new("gpus"),
        agent: AgentId::new("a"),
        host: Arc::from("a.local"),
        addresses: vec!["10.0.0.1".parse::<IpAddr>().unwrap()],
        resources: Resources {
            cpus: Scalar::whole(9),
            mem: Scalar::whole(9000),
            disk: Scalar::whole(9000),
            gpus: 1,
            ports: vec![PortRange::new(31_000, 31_099)],
        },
        attributes: Vec::new(),
        reserved: Vec::new(),
        region: None,
        zone: None,
    };
    let mut other = resident(1);
    other["id"] = json!("/other");
    world.create(other).unwrap();
    let calls = world.cluster(ClusterEvent::Offers(vec![offer])).calls;
    let launched: Vec<String> = calls
        .iter()
        .filter_map(|call| if let ClusterCall::Accept { launches, .. } = call { Some(launches) } else { None })
        .flatten()
        .map(|launch| launch.app.id.to_string())
        .collect();
    assert_eq!(launched, ["/db"]);
}

#[test]
fn who_cannot_go_home_is_in_nobodys_way() {
    for free in ["a", "b"] {
        let mut world = World::new();
        world.create(resident(2)).unwrap();
        let launches: Vec<Launch> = ["a", "b"].into_iter().flat_map(|node| world.offer(node, 1, 9000)).collect();
        run(&mut world, &launches);
        launches.iter().for_each(|launch| world.end(&launch.task, TaskState::Failed));
        world.wait(60_000);
        let back = world.offer(free, 9, 9000);
        let expected = &launches[usize::from(free == "b")];
        assert_eq!((mounted(&back), back.len()), (mounted(std::slice::from_ref(expected)), 1), "{free}");
    }
}

/// What waits gets a volume of its own as soon as there may be one more, also when it began to wait before the app was scaled.
#[test]
fn what_was_scaled_since_it_began_to_wait_waits_for_the_present_size() {
    // Who is tried first depends on the ids that they are given.
    for random in 1..9 {
        let mut world = World::new();
        world.random = random;
        world.create(resident(1)).unwrap();
        world.update("/db", json!({"instances": 3}), true).unwrap();
        let launched: usize = ["a", "b", "c"].into_iter().map(|node| world.offer(node, 1, 9000).len()).sum();
        assert_eq!((launched, world.conditions("/db").as_str()), (3, "Provisioned*3"), "{random}");
    }
}

/// Two volumes that were given up at the same moment are equally good: one on a node with room is taken.
#[test]
fn of_volumes_that_were_left_together_any_will_do() {
    for free in ["a", "b"] {
        let mut world = World::new();
        world.create(resident(2)).unwrap();
        let launches: Vec<Launch> = ["a", "b"].into_iter().flat_map(|node| world.offer(node, 1, 9000)).collect();
        run(&mut world, &launches);
        world.update("/db", json!({"instances": 0}), false).unwrap();
        assert_eq!(world.kills_work().len(), 2);
        world.update("/db", json!({"instances": 1}), false).unwrap();
        let back = world.offer(free, 9, 9000);
        let expected = &launches[usize::from(free == "b")];
        assert_eq!(mounted(&back), mounted(std::slice::from_ref(expected)), "{free}");
    }
}

// === Pods ===

fn resident_pod(instances: u32) -> Value {
    json!({
        "id": "/shop",
        "containers": [
            {"name": "web", "resources": {"cpus": 0.5, "mem": 100}, "volumeMounts": [{"name": "rows", "mountPath": "/data"}]},
            {"name": "side", "resources": {"cpus": 0.25, "mem": 50},
                "volumeMounts": [{"name": "rows", "mountPath": "in/rows", "readOnly": true}, {"name": "logs", "mountPath": "logs"}]},
            {"name": "bare", "resources": {"cpus": 0.25, "mem": 50}, "volumeMounts": [{"name": "scratch", "mountPath": "/tmp/x"}]},
        ],
        "volumes": [{"name": "scratch"}, {"name": "rows", "persistent": {"size": 100}}, {"name": "logs", "persistent": {"size": 50, "type": "root"}}],
        "scaling": {"kind": "fixed", "instances": instances},
        "scheduling": {"backoff": {"backoff": 0, "maxLaunchDelay": 0}},
    })
}

impl World {
    fn put_pod(&mut self, pod: &Value) -> Result<Reply, RequestError> {
        let input = PodInput::read(pod).unwrap();
        let id = input.path().unwrap();
        self.request(Request::UpdatePod { pod: id, input: Box::new(input), force: true })
    }

    fn kill_instance(&mut self, instance: &InstanceId, wipe: bool) {
        let selection = KillSelector::Instances { pod: path("/shop"), instances: vec![instance.clone()] };
        self.request(Request::KillTasks { selection, scale: false, force: false, wipe }).unwrap();
    }
}

#[test]
fn each_container_of_a_pod_mounts_what_it_names_and_the_instance_holds_it() {
    let mut world = World::new();
    world.put_pod(&resident_pod(1)).unwrap();
    let launches = world.run_on("a");
    let mounts: Vec<Vec<(&str, u64, bool)>> = launches
        .iter()
        .map(|launch| launch.bricks.iter().map(|mount| (&*mount.container_path, mount.size, mount.read_only)).collect())
        .collect();
    let sandbox = |path: &str| format!("/mnt/mesos/sandbox/{path}");
    let (rows, logs) = (sandbox("in/rows"), sandbox("logs"));
    assert_eq!(mounts, [vec![("/data", 100, false)], vec![(&*rows, 100, true), (&*logs, 50, false)], vec![]]);
    let of_instance = [launches[0].bricks[0].name.clone(), launches[1].bricks[1].name.clone()];
    assert_eq!((launches[1].bricks[0].name.clone(), launches[1].bricks[0].epoch), (of_instance[0].clone(), launches[0].bricks[0].epoch));
    let ids: Vec<String> = world.volumes().iter().map(|volume| volume.persistence_id().unwrap()).collect();
    assert!(
        ids.iter().any(|id| id.starts_with("shop#rows#")) && ids.iter().any(|id| id.starts_with("shop#logs#")) && ids.len() == 2,
        "{ids:?}"
    );

    // One container fails. Nothing is let go of while another one may still write.
    world.status(&launches[0].task, TaskState::Failed);
    world.status(&launches[1].task, TaskState::Killed);
    world.nodes_obey();
    assert!(world.volumes().iter().all(|volume| volume.lease.is_some()));
    assert!(world.offer("a", 9, 9000).is_empty());
    world.end(&launches[2].task, TaskState::Killed);
    assert!(world.volumes().iter().all(|volume| volume.lease.is_none()));
    assert!(world.offer("b", 9, 9000).is_empty(), "its volumes are elsewhere");
    let again = world.run_on("a");
    assert_eq!((&again[0].task.instance, again[0].task.incarnation), (&launches[0].task.instance, 2));
    assert_eq!(mounted(&again), mounted(&launches));
}

#[test]
fn a_pod_leaves_its_volumes_to_the_next_instance_and_the_next_version_and_wiping_gives_them_up() {
    let mut world = World::new();
    world.put_pod(&resident_pod(2)).unwrap();
    let all = world.run_on("a");
    let volumes: BTreeSet<String> = mounted(&all).into_iter().collect();
    assert_eq!((all.len(), volumes.len()), (6, 4));
    world.put_pod(&resident_pod(1)).unwrap();
    assert_eq!((world.kills_work().len(), world.conditions("/shop").as_str(), world.volumes().len()), (3, "Running*1", 4));
    world.put_pod(&resident_pod(2)).unwrap();
    assert!(world.offer("b", 9, 9000).is_empty());
    assert!(mounted(&world.run_on("a")).iter().all(|name| volumes.contains(name)));

    let mut changed = resident_pod(2);
    changed["environment"] = json!({"A": "b"});
    world.put_pod(&changed).unwrap();
    let mut taken = BTreeSet::new();
    for _ in 0..2 {
        assert_eq!(world.kills_work().len(), 3, "none may come on top, so one goes first");
        taken.extend(mounted(&world.run_on("a")));
    }
    assert_eq!((&taken, world.conditions("/shop").as_str()), (&volumes, "Running*2"));
    assert!(world.tables().deployments.is_empty());

    let victim = world.tables().instances.values().next().unwrap().clone();
    world.kill_instance(&victim.id, false);
    assert_eq!(world.kills_work().len(), 3);
    let back = world.run_on("a");
    assert_eq!((&back[0].task.instance, back[0].task.incarnation), (&victim.id, victim.incarnation + 1), "a plain kill wipes nothing");
    let lost: BTreeSet<String> = mounted(&back).into_iter().collect();
    world.kill_instance(&victim.id, true);
    assert_eq!(world.volumes().len(), 4, "nothing is deleted under a task");
    world.kills_work();
    world.nodes_obey();
    assert_eq!(world.volumes().len(), 2);
    let anew = world.run_on("b");
    assert!(anew[0].task.instance != victim.id && mounted(&anew).iter().all(|name| !lost.contains(name) && !volumes.contains(name)));

    world.request(Request::DeletePod { pod: path("/shop"), force: false }).unwrap();
    world.kills_work();
    world.nodes_obey();
    assert!(world.volumes().is_empty() && world.tables().instances.is_empty() && world.tables().reserved.is_empty());
}

#[test]
fn what_volumes_of_a_pod_are_bound_to_does_not_change() {
    let mut world = World::new();
    world.put_pod(&resident_pod(1)).unwrap();
    let mut check = |pointer: &str, value: Value, expected: &str| {
        let mut pod = resident_pod(1);
        *pod.pointer_mut(pointer).unwrap() = value;
        let found = match world.put_pod(&pod) {
            Ok(_) => "good".to_owned(),
            Err(RequestError::Invalid(violations)) => format!("{}: {}", violations[0].path, violations[0].text),
            Err(other) => other.to_string(),
        };
        assert_eq!(found, expected);
    };
    check("/containers/0/resources", json!({"cpus": 3, "mem": 100}), "/: cpus cannot be updated if a pod has persistent volumes");
    check("/containers/0/resources", json!({"cpus": 0.5, "mem": 3}), "/: mem cannot be updated if a pod has persistent volumes");
    check(
        "/containers/0/resources",
        json!({"cpus": 0.5, "mem": 100, "disk": 3}),
        "/: disk cannot be updated if a pod has persistent volumes",
    );
    check(
        "/containers/0/resources",
        json!({"cpus": 0.5, "mem": 100, "gpus": 3}),
        "/: gpus cannot be updated if a pod has persistent volumes",
    );
    check("/volumes/1/persistent/size", json!(2), "/: persistent volumes cannot be updated");
    check("/volumes/1", json!({"name": "rows"}), "/: persistent volumes cannot be updated");
    let with_port = json!({"name": "bare", "resources": {"cpus": 0.25, "mem": 50}, "endpoints": [{"name": "x", "hostPort": 31_001}],
        "volumeMounts": [{"name": "scratch", "mountPath": "/tmp/x"}]});
    check("/containers/2", with_port, "/: host ports cannot be updated if a pod has persistent volumes");
    // The sum is what was reserved.
    check("/containers/0/resources", json!({"cpus": 0.5, "mem": 100}), "good");
    check("/scheduling/backoff/backoff", json!(1), "good");
}
