//! Pods: what is different when an instance has several tasks.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{World, path, web};
use crate::model::{
    cluster::{ClusterCall, ClusterEvent, Launch, Offer, TaskState},
    group::input::GroupInput,
    health::Outcome,
    id::{AgentId, OfferId, TaskId},
    instance::Condition,
    pod::input::PodInput,
    request::{KillSelector, Reply, Request, RequestError},
    resources::{PortRange, Reserved, Resources, Scalar},
};

fn shop() -> Value {
    json!({
        "id": "/shop",
        "networks": [{"mode": "container/bridge"}],
        "containers": [
            {"name": "web", "resources": {"cpus": 0.5, "mem": 100}, "endpoints": [{"name": "http", "containerPort": 80}],
                "lifecycle": {"killGracePeriodSeconds": 7}},
            {"name": "side", "resources": {"cpus": 0.25, "mem": 50}, "endpoints": [{"name": "admin", "containerPort": 81, "hostPort": 31050}]},
        ],
        "scheduling": {"backoff": {"backoff": 2}},
    })
}

fn create(world: &mut World, pod: &Value) -> Result<Reply, RequestError> {
    world.request(Request::CreatePod { input: Box::new(PodInput::read(pod).unwrap()), force: false })
}

fn update(world: &mut World, pod: &Value) -> Result<Reply, RequestError> {
    let input = PodInput::read(pod).unwrap();
    let id = input.path().unwrap();
    world.request(Request::UpdatePod { pod: id, input: Box::new(input), force: false })
}

/// The tasks of one launch of a pod with two containers.
fn tasks(launches: &[Launch]) -> [TaskId; 2] {
    [0, 1].map(|at| launches[at].task.clone())
}

/// A pod that runs.
fn running(world: &mut World) -> [TaskId; 2] {
    create(world, &shop()).unwrap();
    let launches = world.offer("a", 4, 1000);
    let tasks = tasks(&launches);
    tasks.iter().for_each(|task| _ = world.status(task, TaskState::Running));
    world.calls.clear();
    tasks
}

/// What is reserved for its role serves the executor and the first container, and so on as far as it goes.
#[test]
fn each_container_has_its_own_part_of_what_is_reserved() {
    let part = |cpus: u64, mem: u64, ports: &[u16]| Resources {
        cpus: Scalar(cpus),
        mem: Scalar::whole(mem),
        ports: ports.iter().map(|port| PortRange::new(*port, *port)).collect(),
        ..Resources::default()
    };
    let check = |reserved: Resources, expected: [Option<Resources>; 2]| {
        let mut world = World::new();
        let mut pod = shop();
        (pod["id"], pod["role"]) = (json!("/group/shop"), json!("group"));
        pod["containers"][0]["endpoints"][0]["hostPort"] = json!(31_040);
        create(&mut world, &pod).unwrap();
        let offer = Offer {
            id: OfferId::new("one"),
            agent: AgentId::new("a"),
            host: "a.local".into(),
            addresses: vec!["10.0.0.1".parse().unwrap()],
            resources: Resources { disk: Scalar::whole(1000), ..part(4000, 1000, &[31_040, 31_050]) },
            reserved: vec![Reserved { role: "group".into(), resources: reserved }],
            attributes: Vec::new(),
            region: None,
            zone: None,
        };
        let calls = world.cluster(ClusterEvent::Offers(vec![offer])).calls;
        let launches =
            calls.into_iter().find_map(|call| if let ClusterCall::Accept { launches, .. } = call { Some(launches) } else { None });
        let found: Vec<Option<Resources>> = launches.unwrap().into_iter().map(|launch| launch.reserved.map(|one| one.resources)).collect();
        assert_eq!(found, expected);
    };
    check(part(8000, 1000, &[]), [Some(part(600, 132, &[])), Some(part(250, 50, &[]))]);
    check(part(700, 100, &[31_050]), [Some(part(600, 100, &[])), Some(part(100, 0, &[31_050]))]);
    check(part(600, 132, &[31_040]), [Some(part(600, 132, &[31_040])), None]);
    check(Resources::default(), [None, None]);
}

#[test]
fn a_pod_is_launched_as_a_whole_and_runs_when_all_of_it_runs() {
    let mut world = World::new();
    create(&mut world, &shop()).unwrap();
    let launches = world.offer("a", 4, 1000);
    let names: Vec<_> = launches.iter().map(|launch| launch.task.container.as_deref().unwrap()).collect();
    assert_eq!(names, ["web", "side"]);
    let [web, side] = [&launches[0], &launches[1]];
    // What the executor takes is held once, besides the containers; the ports are each one's own, and all of them the pod's.
    assert_eq!([web.resources.cpus.0, side.resources.cpus.0, web.overhead().cpus.0, side.overhead().cpus.0], [500, 250, 100, 0]);
    let pod = web.pod.as_ref().unwrap();
    assert_eq!((pod.ports.clone(), side.ports.clone()), (vec![web.ports[0], 31_050], vec![31_050]));
    let [web, side] = tasks(&launches);
    for (task, state, expected) in [
        (&web, TaskState::Staging, "Staging*1"),
        (&web, TaskState::Running, "Provisioned*1"),
        (&side, TaskState::Starting, "Starting*1"),
        (&side, TaskState::Running, "Running*1"),
    ] {
        world.status(task, state);
        // Progress never goes backwards.
        let expected = if expected == "Provisioned*1" { "Staging*1" } else { expected };
        assert_eq!(world.conditions("/shop"), expected, "{task} {state:?}");
    }
    assert!(world.tables().deployments.is_empty());
    assert!(world.events.iter().any(|kind| kind == "pod_created_event") && !world.events.iter().any(|kind| kind == "api_post_event"));
}

#[test]
fn what_fails_takes_the_rest_along_and_the_instance_is_launched_again_after_its_back_off() {
    let mut world = World::new();
    let [web, side] = running(&mut world);
    world.status(&side, TaskState::Failed);
    assert_eq!(world.conditions("/shop"), "Killing*1");
    let grace = |call: &ClusterCall| if let ClusterCall::Kill { grace_ms, .. } = call { *grace_ms } else { None };
    assert!(world.calls.iter().any(|call| grace(call) == Some(7_000)));
    assert_eq!(world.kills(), std::slice::from_ref(&web));
    assert!(world.offer("a", 4, 1000).is_empty());
    world.status(&web, TaskState::Killed);
    assert_eq!(world.conditions("/shop"), "Scheduled*1");
    let failure = world.tables().failures[&path("/shop")].clone();
    assert_eq!((&failure.task, failure.state), (&side, TaskState::Failed));
    assert!(world.offer("a", 4, 1000).is_empty());
    world.wait(2_000);
    let again = tasks(&world.offer("a", 4, 1000));
    assert_eq!(again.each_ref().map(|task| (task.instance.clone(), task.incarnation)), [(web.instance.clone(), 2), (web.instance, 2)]);
}

#[test]
fn what_finishes_leaves_the_rest_alone_until_all_have_finished() {
    let mut world = World::new();
    let [web, side] = running(&mut world);
    world.status(&side, TaskState::Finished);
    assert_eq!((world.conditions("/shop"), world.kills()), ("Running*1".to_owned(), Vec::new()));
    // Only what may live is asked for, also after a restart; and what has ended does not come back to life.
    world.restart();
    world.cluster(crate::model::cluster::ClusterEvent::Connected { framework_id: "f".into(), master: "m".into(), region: None });
    let asked: Vec<TaskId> = world
        .calls
        .iter()
        .flat_map(|call| {
            if let ClusterCall::Reconcile { tasks, .. } = call { tasks.iter().map(|one| one.task.clone()).collect() } else { Vec::new() }
        })
        .collect();
    assert_eq!(asked, std::slice::from_ref(&web));
    world.calls.clear();
    world.status(&side, TaskState::Running);
    assert_eq!(world.kills(), [side]);
    world.status(&web, TaskState::Finished);
    assert_eq!(world.conditions("/shop"), "Scheduled*1");
}

/// What runs of a pod serves nobody while the rest does not come up: it is killed as a whole, and launched again when all of it has ended.
#[test]
fn a_pod_of_which_one_container_does_not_come_up_in_time_is_killed_as_a_whole() {
    let mut world = World::new();
    create(&mut world, &shop()).unwrap();
    let [web, side] = tasks(&world.offer("a", 4, 1000));
    world.status(&web, TaskState::Running);
    world.status(&side, TaskState::Starting);
    world.wait(299_000);
    assert_eq!(world.kills(), []);
    world.wait(1_000);
    assert_eq!(world.kills(), [web.clone(), side.clone()]);
    world.status(&web, TaskState::Killed);
    assert_eq!(world.conditions("/shop"), "Killing*1");
    world.status(&side, TaskState::Killed);
    assert_eq!(world.conditions("/shop"), "Scheduled*1");
}

/// `web` and `side` run, the one with a check or both; then come failures (`web!`), successes (`web+`) and ends (`web.`).
#[test]
fn what_has_finished_is_judged_no_more() {
    let check = |checked: &[&str], story: &str, expected: Option<bool>| {
        let mut world = World::new();
        let mut pod = shop();
        for container in pod["containers"].as_array_mut().unwrap() {
            if checked.iter().any(|name| container["name"] == *name) {
                container["healthCheck"] =
                    json!({"exec": {"command": {"shell": "true"}}, "gracePeriodSeconds": 0, "maxConsecutiveFailures": 5});
            }
        }
        create(&mut world, &pod).unwrap();
        let tasks = tasks(&world.offer("a", 4, 1000));
        tasks.iter().for_each(|task| _ = world.status(task, TaskState::Running));
        for word in story.split_whitespace() {
            let (name, what) = word.split_at(word.len() - 1);
            let task = tasks.iter().find(|task| task.container.as_deref() == Some(name)).unwrap();
            let at = checked.iter().position(|checked| *checked == name);
            match what {
                "." => world.status(task, TaskState::Finished),
                "+" => world.check_at(task, at.unwrap(), Outcome::Passed),
                _ => world.check_at(task, at.unwrap(), Outcome::Failed("refused".into())),
            };
        }
        let instance = world.tables().instances.values().next().unwrap();
        assert_eq!((instance.condition, instance.healthy), (Condition::Running, expected), "{checked:?} {story}");
        assert_eq!(world.tables().deployments.is_empty(), expected == Some(true), "{checked:?} {story}");
    };
    check(&["web"], "", None);
    check(&["web"], "web+", Some(true));
    check(&["web"], "web!", Some(false));
    check(&["web"], "web! web.", Some(true));
    check(&["web"], "web.", Some(true));
    check(&["web"], "web. web!", Some(true));
    check(&["web"], "side.", None);
    check(&["web"], "web! side.", Some(false));
    check(&["web", "side"], "web+ side!", Some(false));
    check(&["web", "side"], "web+ side! side.", Some(true));
    check(&["web", "side"], "side! side.", None);
    check(&["web", "side"], "side! side. web+", Some(true));
    check(&["web", "side"], "web! side.", Some(false));
}

#[test]
fn a_status_of_a_container_that_the_pod_does_not_have_is_a_strangers() {
    let mut world = World::new();
    let [web, _] = running(&mut world);
    for stranger in [TaskId { container: Some("other".into()), ..web.clone() }, TaskId { container: None, ..web.clone() }] {
        world.status(&stranger, TaskState::Running);
        assert_eq!(world.kills(), [stranger]);
    }
    assert_eq!(world.conditions("/shop"), "Running*1");
}

/// News of the last launch of a pod that waits for its next one: what lives is killed. Whatever else is answered with a kill would only be told again.
#[test]
fn what_is_heard_of_a_launch_that_is_over() {
    let check = |state: TaskState, killed: bool| {
        let mut world = World::new();
        let tasks = running(&mut world);
        world.status(&tasks[0], TaskState::Failed);
        world.status(&tasks[1], TaskState::Killed);
        assert_eq!(world.conditions("/shop"), "Scheduled*1");
        world.calls.clear();
        world.status(&tasks[1], state);
        assert_eq!(world.kills(), if killed { vec![tasks[1].clone()] } else { vec![] }, "{state:?}");
    };
    for state in [TaskState::Staging, TaskState::Starting, TaskState::Running] {
        check(state, true);
    }
    for state in [TaskState::Unreachable, TaskState::Unknown, TaskState::Gone, TaskState::Failed, TaskState::Killed, TaskState::Finished] {
        check(state, false);
    }
}

#[test]
fn a_pod_whose_node_is_out_of_reach_is_replaced_and_killed_when_it_comes_back() {
    let mut world = World::new();
    let tasks = running(&mut world);
    tasks.iter().for_each(|task| _ = world.status(task, TaskState::Unreachable));
    assert_eq!(world.conditions("/shop"), "Scheduled*1");
    world.calls.clear();
    tasks.iter().for_each(|task| _ = world.status(task, TaskState::Running));
    assert_eq!(world.kills(), tasks);
}

#[test]
fn pods_change_in_deployments_and_go_with_all_their_containers() {
    let mut world = World::new();
    let old = running(&mut world);
    let mut larger = shop();
    larger["scaling"] = json!({"kind": "fixed", "instances": 2});
    larger["containers"][1]["endpoints"] = json!([]);
    update(&mut world, &larger).unwrap();
    let deployment = world.tables().deployments.values().next().unwrap().clone();
    assert_eq!(deployment.affected(true).collect::<Vec<_>>(), [&path("/shop")]);
    assert_eq!(deployment.affected(false).count(), 0);
    let shown = serde_json::to_value(deployment.steps[0].actions[0].show()).unwrap();
    assert_eq!(shown, json!({"action": "RestartPod", "pod": "/shop"}));
    let new = world.offer("a", 4, 1000);
    assert_eq!(new.len(), 4);
    new.iter().for_each(|launch| _ = world.status(&launch.task, TaskState::Running));
    assert_eq!(world.kills(), old);
    old.iter().for_each(|task| _ = world.status(task, TaskState::Killed));
    assert_eq!(world.conditions("/shop"), "Running*2");
    assert!(world.tables().deployments.is_empty());

    // One instance is killed, and launched again; with `wipe` another one takes its place.
    let victim = new[0].task.instance.clone();
    let kill = |wipe: bool| Request::KillTasks {
        selection: KillSelector::Instances { pod: path("/shop"), instances: vec![victim.clone()] },
        scale: false,
        force: false,
        wipe,
    };
    world.request(kill(false)).unwrap();
    assert_eq!(world.kills().len(), 2);
    assert_eq!(world.tables().instances[&victim].condition, Condition::Killing);
    world.request(kill(true)).unwrap();
    new[..2].iter().for_each(|launch| _ = world.status(&launch.task, TaskState::Killed));
    assert!(!world.tables().instances.contains_key(&victim));
    assert_eq!(world.conditions("/shop"), "Scheduled*1 Running*1");

    world.request(Request::DeletePod { pod: path("/shop"), force: true }).unwrap();
    assert_eq!(world.kills().len(), 2);
    new[2..].iter().for_each(|launch| _ = world.status(&launch.task, TaskState::Killed));
    assert!(world.tables().instances.is_empty() && world.tables().definitions.values().next().is_none());
    for kind in ["pod_updated_event", "pod_deleted_event"] {
        assert!(world.events.iter().any(|found| found == kind), "{kind}");
    }
}

#[test]
fn pods_and_apps_do_not_take_each_others_places() {
    let mut world = World::new();
    create(&mut world, &shop()).unwrap();
    world.create(web(1)).unwrap();
    let same = |result: Result<Reply, RequestError>| match result.unwrap_err() {
        RequestError::Invalid(found) => found[0].text.clone(),
        other => other.to_string(),
    };
    const SAME: &str = "Applications and Pods may not share the same id";
    let (mut pod, mut app) = (shop(), web(1));
    pod["id"] = json!("/web");
    app["id"] = json!("/shop");
    assert_eq!(same(create(&mut world, &pod)), SAME);
    assert_eq!(same(update(&mut world, &pod)), SAME);
    assert_eq!(same(world.create(app.clone())), SAME);
    assert_eq!(same(world.update("/shop", app, false)), SAME);
    assert_eq!(same(create(&mut world, &shop())), "A pod with id [/shop] already exists.");
    assert_eq!(same(world.request(Request::DeleteApp { app: path("/shop"), force: true })), "App '/shop' does not exist");
    assert_eq!(same(world.request(Request::RestartApp { app: path("/shop"), force: true })), "App '/shop' does not exist");
    assert_eq!(same(world.request(Request::DeletePod { pod: path("/web"), force: true })), "Pod '/web' does not exist");
}

#[test]
fn groups_keep_their_pods_until_they_go_themselves() {
    let mut world = World::new();
    let mut pod = shop();
    pod["id"] = json!("/g/shop");
    create(&mut world, &pod).unwrap();
    let put = |world: &mut World, body: Value| {
        let input = GroupInput::read(&body).unwrap();
        world.request(Request::UpdateGroup { base: path("/g"), input, create: false, force: true, dry_run: false })
    };
    put(&mut world, json!({"apps": [{"id": "one", "cmd": "x"}]})).unwrap();
    put(&mut world, json!({"apps": []})).unwrap();
    put(&mut world, json!({"scaleBy": 2})).unwrap();
    assert_eq!(world.tables().apps.keys().map(|id| id.as_str()).collect::<Vec<_>>(), ["/g/shop"]);
    assert_eq!(world.tables().app(&path("/g/shop")).unwrap().instances, 1);
    world.request(Request::DeleteGroup { group: path("/g"), force: true }).unwrap();
    assert!(world.tables().apps.is_empty());
}

#[test]
fn pods_wait_for_what_their_groups_wait_for_and_are_waited_for() {
    let mut world = World::new();
    let group = |world: &mut World, body: Value, dry_run: bool| {
        let input = GroupInput::read(&body).unwrap();
        world.request(Request::UpdateGroup { base: path("/"), input, create: false, force: true, dry_run })
    };
    for id in ["/shop/front", "/db/store"] {
        create(&mut world, &json!({"id": id, "containers": [{"name": "one", "resources": {}}]})).unwrap();
    }
    let web = json!({"id": "web", "cmd": "x", "dependencies": ["front"]});
    let waiting = json!({"groups": [{"id": "db"}, {"id": "shop", "dependencies": ["/db"], "apps": [web]}]});
    group(&mut world, waiting, false).unwrap();
    let version = world.tables().root_version();

    // Only pods lead from one group to the other here.
    let circle = json!({"groups": [{"id": "db", "dependencies": ["/shop"]}, {"id": "shop", "dependencies": ["/db"]}]});
    let Err(RequestError::Invalid(found)) = group(&mut world, circle, true) else { panic!("the circle is accepted") };
    assert_eq!(found[0].text, "Dependency graph has cyclic dependencies.");

    group(&mut world, json!({"groups": []}), false).unwrap();
    assert!(world.tables().apps.is_empty());
    let Ok(Reply::Planned(steps)) = group(&mut world, json!({ "version": version }), true) else { panic!("there is no plan") };
    let shown: Value = steps.iter().map(|step| step.actions.iter().map(|action| action.show()).collect::<Value>()).collect();
    assert_eq!(
        shown,
        json!([
            [
                {"action": "StartPod", "pod": "/db/store"},
                {"action": "StartPod", "pod": "/shop/front"},
                {"action": "StartApplication", "app": "/shop/web"},
            ],
            [{"action": "ScalePod", "pod": "/db/store"}],
            [{"action": "ScalePod", "pod": "/shop/front"}],
            [{"action": "ScaleApplication", "app": "/shop/web"}],
        ])
    );
    group(&mut world, json!({ "version": version }), false).unwrap();
    let first = world.offer("a", 4, 1000);
    assert_eq!(first.iter().map(|launch| launch.app.id.as_str()).collect::<Vec<_>>(), ["/db/store"]);
    world.status(&first[0].task, TaskState::Running);
    let second = world.offer("a", 4, 1000);
    assert_eq!(second.iter().map(|launch| launch.app.id.as_str()).collect::<Vec<_>>(), ["/shop/front"]);
}

/// What the cluster may say of the containers of one launch, in any order, with repetitions.
fn any_story() -> impl Strategy<Value = Vec<(usize, TaskState)>> {
    let state = prop::sample::select(vec![
        TaskState::Staging,
        TaskState::Starting,
        TaskState::Running,
        TaskState::Running,
        TaskState::Finished,
        TaskState::Failed,
        TaskState::Killed,
        TaskState::Error,
        TaskState::Gone,
    ]);
    prop::collection::vec((0..3_usize, state), 0..20)
}

fn is_end(state: TaskState) -> bool {
    !matches!(state, TaskState::Staging | TaskState::Starting | TaskState::Running)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is said: an instance is over when the last of its containers is, and not before; and whatever lives beside one that failed is killed.
    #[test]
    fn an_instance_ends_with_its_last_container(story in any_story()) {
        let mut world = World::new();
        let mut pod = shop();
        pod["containers"].as_array_mut().unwrap().push(json!({"name": "third", "resources": {}}));
        create(&mut world, &pod).unwrap();
        let tasks: Vec<TaskId> = world.offer("a", 4, 1000).into_iter().map(|launch| launch.task).collect();
        let mut ends: [Option<TaskState>; 3] = [None; 3];
        world.calls.clear();
        let mut killed: Vec<TaskId> = Vec::new();
        for (at, state) in story {
            world.status(&tasks[at], state);
            killed.extend(world.kills());
            if is_end(state) && ends.iter().any(Option::is_none) {
                ends[at].get_or_insert(state);
            }
            let over = ends.iter().all(Option::is_some);
            let instance = world.tables().instances[&tasks[0].instance].clone();
            prop_assert_eq!(instance.condition == Condition::Scheduled, over, "{:?}", instance);
            let broken = ends.iter().flatten().any(|end| *end != TaskState::Finished);
            if broken && !over {
                prop_assert_eq!(instance.condition, Condition::Killing);
                let spared = (0..3).find(|at| ends[*at].is_none() && !killed.contains(&tasks[*at]));
                prop_assert_eq!(spared, None);
            }
        }
    }
}
