//! Groups: what a request makes of the tree, how a deployment of several apps goes its way, and how it is taken back.

use super::*;
use crate::{
    core::group,
    model::{
        group::input::GroupInput,
        id::DeploymentId,
        instance::Goal,
        request::{Origin, Violation},
    },
};

impl World {
    fn group_as(&mut self, origin: Origin, base: &str, body: Value, force: bool) -> Result<Reply, RequestError> {
        let input = GroupInput::read(&body).map_err(RequestError::Invalid)?;
        let request = Request::UpdateGroup { base: path(base), input, create: false, force, dry_run: false };
        self.step(Input::Api(1, origin, Box::new(request))).replies.pop().unwrap().1
    }

    fn group(&mut self, base: &str, body: Value) -> Result<Reply, RequestError> {
        self.group_as(admin(), base, body, false)
    }

    fn delete_group(&mut self, id: &str) -> Result<Reply, RequestError> {
        self.request(Request::DeleteGroup { group: path(id), force: true })
    }

    /// What waits is launched, and comes up.
    fn come_up(&mut self) {
        let launches = self.offer("a", 1000, 1_000_000);
        run(self, &launches);
    }

    /// What was told to end has ended.
    fn go_down(&mut self) {
        for task in self.kills() {
            self.status(&task, TaskState::Killed);
        }
    }

    /// Everything comes up and goes down until nothing moves.
    fn play(&mut self) {
        for _ in 0..50 {
            self.come_up();
            self.wait(1);
            self.go_down();
        }
    }

    /// `step 2 of 3: Scale /a, Restart /b`; one line for each deployment.
    fn deployments(&self) -> Vec<String> {
        let show = |deployment: &Arc<crate::model::deployment::Deployment>| {
            let actions = deployment.steps[deployment.current_step].actions.iter();
            let actions = actions.map(|action| format!("{} {}", action.kind.as_str().replace("Application", ""), action.app));
            let actions = actions.collect::<Vec<_>>().join(", ");
            format!("step {} of {}: {actions}", deployment.current_step + 1, deployment.steps.len())
        };
        self.tables().deployments.values().map(show).collect()
    }

    fn apps(&self) -> String {
        self.tables().apps.keys().map(|id| id.to_string()).collect::<Vec<_>>().join(" ")
    }

    fn groups(&self) -> String {
        let show = |group: &Arc<crate::model::group::Group>| {
            let dependencies: Vec<&str> = group.dependencies.iter().map(PathId::as_str).collect();
            format!("{}{}", group.id, if dependencies.is_empty() { String::new() } else { format!("<-{}", dependencies.join(",")) })
        };
        self.tables().groups.values().map(show).collect::<Vec<_>>().join(" ")
    }
}

fn admin() -> Origin {
    Origin { user: Owner::default_owner(), admin: true, client_ip: "127.0.0.1".into(), uri: "/".into() }
}

fn user(name: &str) -> Origin {
    Origin { user: Owner::new(name), admin: false, client_ip: "127.0.0.1".into(), uri: "/".into() }
}

fn small(id: &str, instances: u32, dependencies: &[&str]) -> Value {
    json!({"id": id, "cmd": "sleep 100", "cpus": 0.1, "mem": 10, "instances": instances, "dependencies": dependencies, "portDefinitions": []})
}

fn id_of(reply: Result<Reply, RequestError>) -> DeploymentId {
    match reply.unwrap() {
        Reply::Deployment { id, .. } => id,
        other => panic!("{other:?}"),
    }
}

fn version_of(reply: Result<Reply, RequestError>) -> Timestamp {
    match reply.unwrap() {
        Reply::Deployment { version, .. } => version,
        other => panic!("{other:?}"),
    }
}

fn texts(reply: Result<Reply, RequestError>) -> Vec<String> {
    match reply {
        Err(RequestError::Invalid(found)) => found.iter().map(|Violation { path, text }| format!("{path}: {text}")).collect(),
        other => panic!("{other:?}"),
    }
}

fn shop() -> Value {
    json!({"id": "/shop", "groups": [
        {"id": "db", "apps": [small("pg", 2, &[])]},
        {"id": "web", "dependencies": ["/shop/db"], "apps": [small("front", 2, &["api"]), small("api", 1, &[])]},
    ]})
}

#[test]
fn a_group_comes_up_in_the_order_of_its_dependencies() {
    let mut world = World::new();
    let frame_events = |world: &mut World| std::mem::take(&mut world.events);
    frame_events(&mut world);
    world.group("/", shop()).unwrap();
    assert_eq!(world.deployments(), ["step 2 of 4: Scale /shop/db/pg"]);
    assert_eq!(world.apps(), "/shop/db/pg /shop/web/api /shop/web/front");
    assert_eq!(world.groups(), "/shop /shop/db /shop/web<-/shop/db");
    let events = frame_events(&mut world);
    assert_eq!(events.iter().filter(|kind| *kind == "group_change_success").count(), 1);
    assert!(!events.contains(&"api_post_event".to_owned()));
    assert_eq!((world.conditions("/shop/web/api"), world.conditions("/shop/db/pg")), (String::new(), "Scheduled*2".into()));
    world.come_up();
    assert_eq!(world.deployments(), ["step 3 of 4: Scale /shop/web/api"]);
    world.come_up();
    assert_eq!(world.deployments(), ["step 4 of 4: Scale /shop/web/front"]);
    world.come_up();
    assert!(world.deployments().is_empty());
    assert_eq!(frame_events(&mut world).last().unwrap(), "deployment_success");
}

#[test]
fn what_is_not_named_stays_and_what_is_named_is_replaced() {
    let mut world = World::new();
    world.group("/", shop()).unwrap();
    world.play();
    // Nothing is said of apps and groups.
    world.group("/shop", json!({"dependencies": ["/other"]})).unwrap();
    assert_eq!(world.groups(), "/shop<-/other /shop/db /shop/web<-/shop/db");
    assert!(world.deployments().is_empty());
    // One app of a group is left out, one is new, and one is as it was.
    world.group("/shop/web", json!({"apps": [small("api", 1, &[]), small("new", 1, &[])]})).unwrap();
    assert_eq!(world.apps(), "/shop/db/pg /shop/web/api /shop/web/new");
    world.play();
    // A group that is named no more goes with all that is in it.
    world.group("/", json!({"id": "shop", "groups": [{"id": "/shop/db", "groups": [{"id": "deep"}]}]})).unwrap();
    assert_eq!(world.apps(), "/shop/db/pg");
    assert_eq!(world.groups(), "/shop<-/other /shop/db /shop/db/deep");
    world.play();
    assert!(world.deployments().is_empty());
    // Apps that go leave their groups.
    world.request(Request::DeleteApp { app: path("/shop/db/pg"), force: false }).unwrap();
    assert_eq!(world.groups(), "/shop<-/other /shop/db /shop/db/deep");
    world.delete_group("/shop").unwrap();
    assert_eq!((world.apps(), world.groups()), (String::new(), String::new()));
    assert_eq!(world.delete_group("/shop"), Err(RequestError::NoGroup(path("/shop"))));
}

#[test]
fn a_whole_definition_replaces_an_app_and_the_same_one_changes_nothing() {
    let mut world = World::new();
    world.group("/", shop()).unwrap();
    world.play();
    let versions = |world: &World| world.tables().apps.keys().filter_map(|id| Some(world.tables().app(id)?.version)).collect::<Vec<_>>();
    let before = versions(&world);
    world.group("/", shop()).unwrap();
    assert_eq!((versions(&world), world.deployments().len()), (before, 0));
    let mut api = small("api", 3, &[]);
    api["cmd"] = "sleep 200".into();
    world.group("/shop/web", json!({"apps": [api, small("front", 0, &["api"])]})).unwrap();
    assert_eq!(world.deployments(), ["step 1 of 2: Restart /shop/web/api"]);
    world.play();
    assert_eq!((world.conditions("/shop/web/api"), world.conditions("/shop/web/front")), ("Running*3".into(), String::new()));
    let api = world.tables().app(&path("/shop/web/api")).unwrap();
    assert_eq!(api.cmd.as_deref(), Some("sleep 200"));
}

#[test]
fn scaling_a_group_rounds_up() {
    let mut world = World::new();
    world.group("/", shop()).unwrap();
    world.play();
    world.group("/shop", json!({"scaleBy": 1.5})).unwrap();
    let sizes = |world: &World| world.tables().apps.keys().map(|id| world.tables().app(id).unwrap().instances).collect::<Vec<_>>();
    assert_eq!(sizes(&world), [3, 2, 3]);
    assert_eq!(world.deployments(), ["step 1 of 3: Scale /shop/db/pg"]);
    world.play();
    world.group("/shop/web", json!({"scaleBy": 0})).unwrap();
    assert_eq!(sizes(&world), [3, 0, 0]);
    world.play();
    assert_eq!(world.conditions("/shop/web/front"), "");
    let found = texts(world.group("/shop", json!({"scaleBy": 1e12})));
    assert!(found[0].starts_with("/instances: "), "{found:?}");
}

#[test]
fn what_is_wrong_is_refused_as_a_whole() {
    let mut world = World::new();
    world.group("/", shop()).unwrap();
    world.play();
    let before = (world.apps(), world.groups());
    let check = |world: &mut World, body: Value, expected: &[&str]| {
        let found = texts(world.group("/", body.clone()));
        assert_eq!(found, expected, "{body}");
    };
    check(
        &mut world,
        json!({"id": "/shop/db", "apps": [small("pg", 1, &["../web"])]}),
        &["/: Dependency graph has cyclic dependencies.", "/: these wait for each other: /shop/db/pg, /shop/web/front"],
    );
    check(&mut world, json!({"id": "/shop", "apps": [small("/other/x", 1, &[])]}), &["/apps(0)/id: Identifier is not child of '/shop'"]);
    check(
        &mut world,
        json!({"id": "/shop", "apps": [small("db", 1, &[])]}),
        &["/: Groups and Applications may not have the same identifier."],
    );
    check(&mut world, json!({"id": "/shop/db/pg", "apps": []}), &["/: Groups and Applications may not have the same identifier."]);
    check(
        &mut world,
        json!({"id": "/shop/db/pg/deep", "apps": [small("x", 1, &[])]}),
        &["/: Groups and Applications may not have the same identifier."],
    );
    check(
        &mut world,
        json!({"id": "/n", "apps": [small("x", 1, &[]), {"id": "y"}, small("x", 2, &[])]}),
        &["/apps(2)/id: app '/n/x' is given more than once"],
    );
    check(
        &mut world,
        json!({"id": "/n", "groups": [{"id": "m", "apps": [small("x", 1, &[]), {"id": "y"}]}]}),
        &["/groups(0)/apps(1): AppDefinition must either contain one of 'cmd' or 'args', and/or a 'container'."],
    );
    check(
        &mut world,
        json!({"id": "/shop", "enforceRole": true, "apps": []}),
        &["/enforceRole: enforceRole cannot be modified in a request that adds, removes or modifies services; \
         please make these changes in separate requests."],
    );
    assert_eq!((world.apps(), world.groups()), before);
    let same = world.create(small("/shop", 1, &[]));
    assert_eq!(texts(same), ["/: Groups and Applications may not have the same identifier."]);
    let below = world.create(small("/shop/db/pg/x", 1, &[]));
    assert_eq!(texts(below), ["/: Groups and Applications may not have the same identifier."]);
    // An empty group makes room.
    world.group("/", json!({"id": "/empty", "groups": [{"id": "deep"}]})).unwrap();
    world.create(small("/empty", 1, &[])).unwrap();
    assert_eq!(world.groups(), before.1);
}

#[test]
fn a_group_that_enforces_its_role_gives_it_to_its_apps() {
    let mut world = World::new();
    world.group("/", json!({"id": "/dev", "enforceRole": true, "apps": [small("a", 1, &[])]})).unwrap();
    let role = |world: &World, id: &str| world.tables().app(&path(id)).unwrap().role.clone();
    assert_eq!(role(&world, "/dev/a"), "dev");
    let mut app = small("/dev/deep/b", 1, &[]);
    world.create(app.clone()).unwrap();
    assert_eq!(role(&world, "/dev/deep/b"), "dev");
    app["id"] = "/dev/c".into();
    app["role"] = "*".into();
    assert_eq!(texts(world.create(app.clone())), ["/role: got *, expected one of: [dev]"]);
    let patch = |enforce| Request::EnforceRole { group: path("/dev"), enforce };
    assert_eq!(world.request(patch(Some(false))), Ok(Reply::Done));
    world.create(app).unwrap();
    assert_eq!(world.request(patch(None)), Ok(Reply::Done));
    let below = Request::EnforceRole { group: path("/dev/deep"), enforce: Some(true) };
    assert_eq!(texts(world.request(below)), ["/: Path needs to be top-level"]);
    let unknown = Request::EnforceRole { group: path("/none"), enforce: Some(true) };
    assert_eq!(world.request(unknown), Err(RequestError::NoGroup(path("/none"))));
}

#[test]
fn a_task_is_told_whether_its_role_is_prescribed() {
    let mut world = World::new();
    let told = |world: &mut World, id: &str| {
        world.create(small(id, 1, &[])).unwrap();
        let launches = world.offer("a", 10, 10_000);
        assert_eq!(launches.len(), 1);
        let environment = launches[0].environment();
        environment.into_iter().find(|(name, _)| name == "MARATHON_APP_ENFORCE_GROUP_ROLE").unwrap().1
    };
    world.group("/", json!({"id": "/dev", "enforceRole": true})).unwrap();
    assert_eq!([told(&mut world, "/dev/a"), told(&mut world, "/dev/deep/b")], ["TRUE", "TRUE"]);
    // As one segment begins with the other's name.
    assert_eq!([told(&mut world, "/device/c"), told(&mut world, "/d"), told(&mut world, "/other/e")], ["FALSE", "FALSE", "FALSE"]);
    world.request(Request::EnforceRole { group: path("/dev"), enforce: Some(false) }).unwrap();
    assert_eq!(told(&mut world, "/dev/f"), "FALSE");
}

#[test]
fn a_group_goes_back_to_what_it_was() {
    let mut world = World::new();
    let first = version_of(world.group("/", shop()));
    world.play();
    world.wait(10);
    let mut api = small("api", 1, &[]);
    api["cmd"] = "sleep 200".into();
    let second = version_of(world.group("/shop/web", json!({"dependencies": [], "apps": [api, small("new", 1, &[])]})));
    world.play();
    world.create(small("/elsewhere", 1, &[])).unwrap();
    world.play();
    let gone = version_of(world.delete_group("/shop"));
    world.play();
    assert_eq!(world.tables().definitions.values().filter(|app| app.id.is_below(&path("/shop"))).count(), 0);
    world.restart();
    world.cluster(ClusterEvent::Connected { framework_id: "f".into(), master: "m".into(), region: None });

    let at = |world: &World, version: Timestamp| group::past(world.tables(), &path("/shop"), version).map(|past| past.apps.len());
    assert_eq!((at(&world, first), at(&world, second), at(&world, gone)), (Some(3), Some(3), None));
    assert_eq!(group::versions(world.tables(), &path("/shop/web"), None).len(), 3);
    assert_eq!(group::versions(world.tables(), &PathId::root(), None).len(), 4);

    world.group("/shop", json!({ "version": second })).unwrap();
    assert_eq!(world.apps(), "/elsewhere /shop/db/pg /shop/web/api /shop/web/new");
    assert_eq!(world.groups(), "/shop /shop/db /shop/web");
    world.play();
    world.group("/shop/web", json!({ "version": first })).unwrap();
    assert_eq!(world.apps(), "/elsewhere /shop/db/pg /shop/web/api /shop/web/front");
    assert_eq!(world.groups(), "/shop /shop/db /shop/web<-/shop/db");
    assert_eq!(world.tables().app(&path("/shop/web/api")).unwrap().cmd.as_deref(), Some("sleep 100"));
    world.play();
    assert_eq!((world.conditions("/shop/web/front"), world.deployments().len()), ("Running*2".into(), 0));
    let missing = world.group("/shop", json!({"version": "2001-01-01T00:00:00.000Z"}));
    let text = "Group /shop not available in version 2001-01-01T00:00:00.000Z";
    assert_eq!(missing, Err(RequestError::Unprocessable(text.into())));
}

#[test]
fn versions_of_the_root_are_few_and_take_their_definitions_with_them() {
    let mut world = World::new();
    world.group("/", json!({"id": "/g", "apps": [small("a", 1, &[])]})).unwrap();
    world.delete_group("/g").unwrap();
    assert_eq!((world.tables().archive.len(), world.tables().definitions.values().count()), (1, 0));
    for n in 0..100 {
        world.create(small("/x", n % 2, &[])).or_else(|_| world.update("/x", json!({ "instances": n % 2 }), true)).unwrap();
    }
    assert_eq!((world.tables().root_versions.len(), world.tables().archive.len()), (50, 0));
    assert!(world.tables().definitions.values().count() <= 52, "{}", world.tables().definitions.values().count());
    world.request(Request::DeleteApp { app: path("/x"), force: true }).unwrap();
    assert_eq!(world.tables().definitions.values().count(), 0);
    assert!(world.tables().archive.len() <= 50);
}

#[test]
fn a_deployment_of_a_group_is_taken_back_as_a_whole() {
    let mut world = World::new();
    world.group("/", shop()).unwrap();
    world.play();
    let body = json!({"id": "/shop/web", "dependencies": ["/shop/more"], "groups": [{"id": "deep", "apps": [small("x", 1, &[])]}],
        "apps": [small("api", 2, &[])]});
    let id = id_of(world.group("/", body));
    assert_eq!(world.groups(), "/shop /shop/db /shop/web<-/shop/more /shop/web/deep");
    world.restart();
    world.cluster(ClusterEvent::Connected { framework_id: "f".into(), master: "m".into(), region: None });
    world.request(Request::CancelDeployment { id, force: false }).unwrap();
    assert_eq!(world.groups(), "/shop /shop/db /shop/web<-/shop/db");
    assert_eq!(world.apps(), "/shop/db/pg /shop/web/api /shop/web/front");
    world.play();
    assert_eq!((world.conditions("/shop/web/front"), world.conditions("/shop/web/api")), ("Running*2".into(), "Running*1".into()));
    assert!(world.deployments().is_empty());
}

#[test]
fn what_others_did_to_a_group_stays_when_a_deployment_is_taken_back() {
    let mut world = World::new();
    let id = id_of(world.group("/", json!({"id": "/a", "dependencies": ["/x"], "groups": [{"id": "b"}], "apps": [small("one", 1, &[])]})));
    world.create(small("/a/b/two", 1, &[])).unwrap();
    world.request(Request::CancelDeployment { id, force: false }).unwrap();
    assert_eq!((world.apps(), world.groups()), ("/a/b/two".into(), "/a /a/b".into()));
    // The one that is cancelled by force stays where it is.
    let id = id_of(world.group("/", json!({"id": "/c", "apps": [small("one", 1, &[])]})));
    assert_eq!(world.request(Request::CancelDeployment { id, force: true }), Ok(Reply::Done));
    assert_eq!((world.apps(), world.groups()), ("/a/b/two /c/one".into(), "/a /a/b /c".into()));
}

#[test]
fn conflicts_are_about_the_apps_that_change() {
    let mut world = World::new();
    world.group("/", shop()).unwrap();
    let locked = world.group("/shop/db", json!({"apps": [small("pg", 5, &[])]}));
    let lock = world.tables().deployments.keys().next().unwrap().clone();
    assert_eq!(locked, Err(RequestError::Locked(vec![lock.clone()])));
    // A new app in the same group, and everything that is as it was, is in nobody's way.
    world.group("/shop/db", json!({"apps": [small("pg", 2, &[]), small("redis", 1, &[])]})).unwrap();
    assert_eq!(world.tables().deployments.len(), 2);
    world.group_as(admin(), "/shop/db", json!({"apps": [small("pg", 5, &[]), small("redis", 1, &[])]}), true).unwrap();
    assert!(!world.tables().deployments.contains_key(&lock));
    world.play();
    assert_eq!(
        (world.deployments().len(), world.conditions("/shop/db/pg"), world.conditions("/shop/web/front")),
        (0, "Running*5".into(), "Running*2".into())
    );
}

#[test]
fn too_many_deployments_are_refused() {
    let mut world = World::new();
    world.state.settings.max_running_deployments = 1;
    world.group("/", json!({"id": "/a", "apps": [small("x", 1, &[])]})).unwrap();
    let refused = world.group("/", json!({"id": "/b", "apps": [small("x", 1, &[])]}));
    assert_eq!(refused, Err(RequestError::TooManyDeployments(1)));
    assert_eq!(world.groups(), "/a");
}

/// At every step the server is killed, and goes on from what is durable.
#[test]
fn a_deployment_goes_on_after_a_restart_at_any_step() {
    for crash_at in 0..8 {
        let mut world = World::new();
        world.group("/", shop()).unwrap();
        let mut steps = Vec::new();
        for round in 0..12 {
            if round == crash_at {
                world.restart();
                world.cluster(ClusterEvent::Connected { framework_id: "f".into(), master: "m".into(), region: None });
            }
            steps.extend(world.deployments().first().map(|step| step[..6].to_owned()));
            world.come_up();
        }
        steps.dedup();
        assert_eq!(steps, ["step 2", "step 3", "step 4"], "killed at {crash_at}");
        assert_eq!(world.conditions("/shop/web/front"), "Running*2");
    }
}

#[test]
fn what_is_lost_while_others_come_up_is_started_again() {
    let mut world = World::new();
    world.group("/", shop()).unwrap();
    let launches = world.offer("a", 1000, 1_000_000);
    run(&mut world, &launches);
    assert_eq!(world.deployments(), ["step 3 of 4: Scale /shop/web/api"]);
    world.status(&launches[0].task, TaskState::Unreachable);
    assert_eq!(world.conditions("/shop/db/pg"), "Scheduled*1 Running*1");
    world.play();
    assert_eq!((world.conditions("/shop/db/pg"), world.deployments().len()), ("Running*2".into(), 0));
}

#[test]
fn a_user_changes_the_own_part_of_a_group() {
    let mut world = World::new();
    let app = |id: &str| small(id, 1, &[]);
    world.group_as(user("ann"), "/", json!({"id": "/shared", "apps": [app("a1"), app("a2")]}), false).unwrap();
    world
        .group_as(user("bob"), "/", json!({"id": "/shared", "apps": [app("b1")], "groups": [{"id": "bobs", "apps": [app("b2")]}]}), false)
        .unwrap();
    world.play();
    assert_eq!(world.apps(), "/shared/a1 /shared/a2 /shared/b1 /shared/bobs/b2");
    // Replacing, scaling, and dropping groups touch what is one's own.
    world.group_as(user("ann"), "/shared", json!({"apps": [app("a1")], "groups": []}), false).unwrap();
    assert_eq!(world.apps(), "/shared/a1 /shared/b1 /shared/bobs/b2");
    world.play();
    world.group_as(user("bob"), "/shared", json!({"scaleBy": 3}), false).unwrap();
    let size = |world: &World, id: &str| world.tables().app(&path(id)).unwrap().instances;
    assert_eq!((size(&world, "/shared/a1"), size(&world, "/shared/b1"), size(&world, "/shared/bobs/b2")), (1, 3, 3));
    world.play();
    // Another's id is taken; another's group is not there, or not one's own to change.
    let taken = world.group_as(user("ann"), "/shared", json!({"apps": [app("a1"), app("b1")]}), false);
    assert_eq!(taken, Err(RequestError::AppExists(path("/shared/b1"))));
    let delete = |group: &str| Request::DeleteGroup { group: path(group), force: true };
    assert_eq!(world.request_by("ann", delete("/shared/bobs")), Err(RequestError::NoGroup(path("/shared/bobs"))));
    assert_eq!(world.request_by("ann", delete("/shared")), Err(RequestError::Forbidden));
    assert_eq!(world.request_by("ann", delete("/")), Err(RequestError::Forbidden));
    let depends = world.group_as(user("ann"), "/shared", json!({"dependencies": ["/x"]}), false);
    assert_eq!(depends, Err(RequestError::Forbidden));
    assert_eq!(world.group_as(user("bob"), "/", json!({"dependencies": ["/x"]}), false), Err(RequestError::Forbidden));
    world.group_as(user("bob"), "/shared/bobs", json!({"dependencies": ["/x"]}), false).unwrap();
    world.request_by("bob", delete("/shared/bobs")).unwrap();
    assert_eq!(world.groups(), "/shared");
    // What was another's at the time does not come back for somebody else.
    let versions = group::versions(world.tables(), &path("/shared"), None);
    world.play();
    world.group_as(user("ann"), "/shared", json!({ "version": versions[1] }), false).unwrap();
    assert_eq!(world.apps(), "/shared/a1 /shared/a2 /shared/b1");
    let told = group::versions(world.tables(), &path("/shared"), Some(&Owner::new("bob")));
    assert_eq!(told.len(), 4);
}

#[test]
fn a_group_of_ten_thousand_apps_is_one_frame_and_one_deployment() {
    let mut world = World::new();
    let apps: Vec<Value> = (0..10_000).map(|n| small(&format!("app{n}"), 1, &[])).collect();
    let groups = json!([{"id": "db", "apps": apps[..5000]}, {"id": "web", "dependencies": ["/large/db"], "apps": apps[5000..]}]);
    world.group("/", json!({"id": "/large", "groups": groups})).unwrap();
    assert_eq!((world.tables().apps.len(), world.tables().deployments.len()), (10_000, 1));
    let launches = world.offer("a", 100_000, 100_000_000);
    assert!(!launches.is_empty());
    run(&mut world, &launches);
    let running = world.tables().instances.values().filter(|instance| instance.condition == Condition::Running).count();
    assert_eq!(running, launches.len());
    world.delete_group("/large").unwrap();
    assert_eq!(world.tables().apps.len(), 0);
    assert!(world.tables().instances.values().all(|instance| instance.goal == Goal::Decommissioned));
}
