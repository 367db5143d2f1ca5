//! What each setting that a flag of Marathon's sets changes, against what is there without it.

use super::{
    placement::{offers, small},
    *,
};

/// A core that has had these settings from its beginning.
fn world(change: impl FnOnce(&mut Settings)) -> World {
    let mut settings = Settings::default();
    change(&mut settings);
    let mut world = World::new();
    world.state = State::recover(settings, Vec::new(), Instant(0), Timestamp(0));
    world.cluster(ClusterEvent::Connected { framework_id: "f".into(), master: "m".into(), region: None });
    world.calls.clear();
    world
}

#[test]
fn so_many_are_launched_on_an_offer() {
    let check = |most: Option<usize>, expected: [usize; 3]| {
        let mut world = world(|settings| settings.max_instances_per_offer = most.unwrap_or(settings.max_instances_per_offer));
        world.create(web(5)).unwrap();
        assert_eq!([(); 3].map(|()| world.offer("a", 9, 1000).len()), expected, "{most:?}");
    };
    check(None, [5, 0, 0]);
    check(Some(2), [2, 2, 1]);
    check(Some(1), [1, 1, 1]);
}

#[test]
fn an_unused_offer_is_refused_for_so_long() {
    let check = |ms: Option<u64>, expected: u64| {
        let mut world = world(|settings| settings.decline_offer_duration_ms = ms.unwrap_or(settings.decline_offer_duration_ms));
        world.offer("a", 1, 1);
        let refused =
            world.calls.iter().find_map(|call| if let ClusterCall::Decline { refuse_ms, .. } = call { Some(*refuse_ms) } else { None });
        assert_eq!(refused, Some(expected));
    };
    check(None, 120_000);
    check(Some(7), 7);
}

#[test]
fn so_many_kills_are_in_flight() {
    let check = |chunk: Option<usize>, expected: &[usize]| {
        let mut world = world(|settings| settings.kill_chunk_size = chunk.unwrap_or(settings.kill_chunk_size));
        world.create(web(5)).unwrap();
        let launches = world.offer("a", 9, 1000);
        run(&mut world, &launches);
        world.request(Request::DeleteApp { app: path("/web"), force: true }).unwrap();
        let mut rounds = Vec::new();
        loop {
            let kills = world.kills();
            if kills.is_empty() {
                break;
            }
            rounds.push(kills.len());
            // Only the last of a round makes room again, so that a round is what is in flight at once.
            kills.iter().for_each(|task| _ = world.status(task, TaskState::Killed));
        }
        assert_eq!(rounds, expected, "{chunk:?}");
        assert!(world.tables().instances.is_empty());
    };
    check(None, &[5]);
    check(Some(2), &[2, 2, 1]);
}

#[test]
fn a_kill_is_repeated_after_so_long() {
    let check = |ms: Option<u64>, expected: u64| {
        let mut world = world(|settings| settings.kill_retry_timeout_ms = ms.unwrap_or(settings.kill_retry_timeout_ms));
        world.create(web(1)).unwrap();
        let launches = world.offer("a", 4, 1000);
        run(&mut world, &launches);
        world.request(Request::DeleteApp { app: path("/web"), force: true }).unwrap();
        assert_eq!(world.kills().len(), 1);
        world.wait(expected - 1);
        assert_eq!(world.kills().len(), 0);
        world.wait(1);
        assert_eq!(world.kills().len(), 1);
    };
    check(None, 30_000);
    check(Some(7000), 7000);
}

#[test]
fn a_launch_that_comes_to_nothing_is_given_up_after_so_long() {
    // `staging`: there is a first word of it, and so another limit.
    let check = |change: fn(&mut Settings), staging: bool, expected: u64| {
        let mut world = world(change);
        world.create(web(1)).unwrap();
        let task = world.offer("a", 4, 1000).remove(0).task;
        if staging {
            world.status(&task, TaskState::Staging);
        }
        world.kills();
        world.wait(expected - 1);
        assert_eq!(world.kills(), []);
        world.wait(1);
        assert_eq!((world.kills(), world.conditions("/web")), (vec![task.clone()], "Killing*1".to_owned()));
        world.status(&task, TaskState::Killed);
        assert_eq!(world.conditions("/web"), "Scheduled*1");
    };
    check(|_| {}, false, 300_000);
    check(|settings| settings.task_launch_confirm_timeout_ms = 7000, false, 7000);
    check(|settings| settings.task_launch_timeout_ms = 7000, false, 300_000);
    check(|_| {}, true, 300_000);
    check(|settings| settings.task_launch_timeout_ms = 7000, true, 7000);
    check(|settings| settings.task_launch_confirm_timeout_ms = 7000, true, 300_000);
}

#[test]
fn the_cluster_is_asked_about_everything_every_so_often() {
    let check = |ms: Option<u64>, expected: u64| {
        let mut world = world(|settings| settings.reconciliation_interval_ms = ms.unwrap_or(settings.reconciliation_interval_ms));
        world.create(web(1)).unwrap();
        let launches = world.offer("a", 4, 1000);
        run(&mut world, &launches);
        let asked = |world: &mut World| {
            let calls = std::mem::take(&mut world.calls);
            calls.iter().filter(|call| matches!(call, ClusterCall::Reconcile { others: true, .. })).count()
        };
        asked(&mut world);
        for _ in 0..2 {
            world.wait(expected - 1);
            assert_eq!(asked(&mut world), 0);
            world.wait(1);
            assert_eq!(asked(&mut world), 1);
        }
    };
    check(None, 600_000);
    check(Some(7000), 7000);
}

#[test]
fn so_many_versions_of_an_app_are_kept_and_those_that_run_besides() {
    let check = |most: Option<usize>, expected: &[&str]| {
        let mut world = world(|settings| settings.max_versions = most.unwrap_or(settings.max_versions));
        let cmd = |number: usize| json!({"cmd": format!("{number}")});
        world.create(small("/web", 1, cmd(0))).unwrap();
        assert_eq!(offers(&mut world, &["a"]), "web@a");
        for number in 1..=10 {
            world.wait(1000);
            world.update("/web", cmd(number), true).unwrap();
        }
        let kept: Vec<&str> = world.tables().versions_of(&path("/web")).map(|app| app.cmd.as_deref().unwrap()).collect();
        assert_eq!(kept, expected, "{most:?}");
    };
    check(None, &["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10"]);
    // The first one still runs, for nothing has taken its place; and what the last versions of the whole began with can be gone back to.
    check(Some(3), &["0", "6", "7", "8", "9", "10"]);
}

#[test]
fn variables_of_marathons_own_may_have_a_prefix() {
    let check = |prefix: Option<&str>, names: [&str; 3]| {
        let mut world = world(|settings| settings.env_vars_prefix = prefix.map(str::to_owned));
        let mut app = web(1);
        app["env"] = json!({"OWN": "x"});
        world.create(app).unwrap();
        let variables = world.offer("a", 4, 1000).remove(0).environment();
        let found = |wanted: &&str| variables.iter().any(|(name, _)| name == wanted);
        let missing: Vec<&&str> = names.iter().filter(|name| !found(name)).collect();
        assert_eq!(missing, Vec::<&&str>::new(), "{variables:?}");
        assert_eq!(found(&"PORT0"), prefix.is_none());
    };
    check(None, ["PORT0", "HOST", "OWN"]);
    check(Some("P_"), ["P_PORT0", "P_HOST", "OWN"]);
}

#[test]
fn nodes_with_gpus_are_kept_for_what_asks_for_them_unless_they_are_not() {
    let check = |restricted: bool, expected: &str| {
        let mut world = world(|settings| settings.gpus_restricted = restricted);
        world.create(small("/web", 1, json!({}))).unwrap();
        assert_eq!(offers(&mut world, &["a gpus=1"]), expected);
        assert_eq!(offers(&mut world, &["b"]), if expected.is_empty() { "web@b" } else { "" });
    };
    check(true, "");
    check(false, "web@a");
}

#[test]
fn an_app_without_role_or_network_gets_the_servers() {
    let mut world = world(|settings| {
        settings.app_defaults.role = "prod".into();
        settings.app_defaults.network_name = Some("net".into());
    });
    let container = json!({"type": "DOCKER", "docker": {"image": "x"}});
    world.create(small("/web", 1, json!({"networks": [{"mode": "container"}], "container": container}))).unwrap();
    let app = world.tables().app(&path("/web")).unwrap().clone();
    assert_eq!(app.role, "prod");
    let crate::model::app::Network::Container(networks) = &app.network else { panic!("{:?}", app.network) };
    assert_eq!(networks.iter().map(|network| &*network.name).collect::<Vec<_>>(), ["net"]);
    // Without them: everybody's role, and a network has to be named.
    let mut plain = World::new();
    let refused = plain.create(small("/web", 1, json!({"networks": [{"mode": "container"}], "container": container})));
    assert!(matches!(refused, Err(RequestError::Invalid(_))), "{refused:?}");
    plain.create(small("/web", 1, json!({}))).unwrap();
    assert_eq!(plain.tables().app(&path("/web")).unwrap().role, "*");
}
