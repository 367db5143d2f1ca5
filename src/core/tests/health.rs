//! Checks, from their results to what becomes of the tasks.

use super::*;
use crate::model::health::{CheckReport, CheckResult, Finding, Outcome, ReadinessAnswer};

fn checked(instances: u32) -> Value {
    let check = json!({"protocol": "HTTP", "gracePeriodSeconds": 10, "intervalSeconds": 5, "maxConsecutiveFailures": 2});
    json!({"id": "/web", "cmd": "sleep 100", "cpus": 1, "mem": 100, "instances": instances, "healthChecks": [check]})
}

fn failed() -> Outcome {
    Outcome::Failed("500 Internal Server Error".into())
}

impl World {
    pub(super) fn check_at(&mut self, task: &TaskId, check: usize, outcome: Outcome) -> Frame {
        let at = Timestamp(1_600_000_000_000 + self.now as i64);
        let finding = Finding::Health { check, outcome };
        self.cluster(ClusterEvent::Checked(vec![CheckReport { task: task.clone(), at, finding }]))
    }

    fn check(&mut self, task: &TaskId, outcome: Outcome) -> Frame {
        self.check_at(task, 0, outcome)
    }

    fn readiness(&mut self, task: &TaskId, ready: bool) -> Frame {
        let at = Timestamp(1_600_000_000_000 + self.now as i64);
        let status = if ready { 200 } else { 503 };
        let answer = ReadinessAnswer { ready, status, content_type: String::new(), body: String::new() };
        self.cluster(ClusterEvent::Checked(vec![CheckReport { task: task.clone(), at, finding: Finding::Readiness(answer) }]))
    }

    fn generic(&mut self, task: &TaskId, place: usize, result: Option<CheckResult>) -> Frame {
        let at = Timestamp(1_600_000_000_000 + self.now as i64);
        self.cluster(ClusterEvent::Checked(vec![CheckReport { task: task.clone(), at, finding: Finding::Check { place, result } }]))
    }

    /// Running, healthy, unhealthy.
    fn health(&self) -> (u32, u32, u32) {
        let tally = self.tables().tallies.get(&path("/web")).cloned().unwrap_or_default();
        (tally.running(), tally.healthy(), tally.unhealthy())
    }

    /// The kinds of the events since the last look, without those of launches.
    fn health_events(&mut self) -> Vec<String> {
        let events = std::mem::take(&mut self.events);
        events.into_iter().filter(|kind| kind.contains("health") || kind.contains("deployment")).collect()
    }
}

#[test]
fn a_deployment_waits_for_health_and_a_result_that_changes_nothing_costs_no_commit() {
    let mut world = World::new();
    world.create(checked(2)).unwrap();
    assert_eq!(world.health_events(), ["deployment_info", "deployment_step_success", "deployment_info", "add_health_check_event"]);
    let launches = world.offer("a", 9, 1000);
    run(&mut world, &launches);
    assert_eq!((world.health(), world.tables().deployments.len()), ((2, 0, 0), 1));
    world.check(&launches[0].task, Outcome::Passed);
    assert_eq!((world.health(), world.tables().deployments.len()), ((2, 1, 0), 1));
    assert_eq!(world.health_events(), ["health_status_changed_event", "instance_health_changed_event"]);
    world.now += 1000;
    let again = world.check(&launches[0].task, Outcome::Passed);
    assert_eq!((again.changes, again.events), (vec![], vec![]));
    assert_eq!(world.state.view().readings[&launches[0].task.instance].checks[0].last_success, Some(Timestamp(1_600_000_001_000)));
    world.check(&launches[1].task, Outcome::Passed);
    assert_eq!((world.health(), world.tables().deployments.len()), ((2, 2, 0), 0));
}

#[test]
fn one_failure_too_many_kills_and_the_task_is_launched_again_without_delay() {
    let mut world = World::new();
    world.create(checked(1)).unwrap();
    let first = world.offer("a", 9, 1000).remove(0);
    world.status(&first.task, TaskState::Running);
    world.check(&first.task, Outcome::Passed);
    world.health_events();
    world.check(&first.task, failed());
    assert_eq!(world.health(), (1, 0, 1));
    let all = ["failed_health_check_event", "health_status_changed_event", "instance_health_changed_event"];
    assert_eq!(world.health_events(), all);
    world.check(&first.task, failed());
    assert!(world.kills().is_empty());
    world.health_events();
    world.check(&first.task, failed());
    assert_eq!(world.kills(), std::slice::from_ref(&first.task));
    assert_eq!(world.health_events(), ["failed_health_check_event", "unhealthy_instance_kill_event"]);
    let failure = world.tables().failures[&path("/web")].clone();
    assert_eq!(failure.message, "Task was killed since health check failed. Reason: 500 Internal Server Error");
    assert_eq!((failure.state, &*failure.host), (TaskState::Killed, "a.local"));
    // What ends is not looked at any more.
    assert_eq!(world.check(&first.task, failed()).events, []);
    world.status(&first.task, TaskState::Killed);
    assert_eq!(world.tables().failures[&path("/web")], failure);
    let second = world.offer("a", 9, 1000).remove(0);
    world.status(&second.task, TaskState::Running);
    assert_eq!((second.task.incarnation, world.health()), (2, (1, 0, 0)));
    // A late result of the first task is nobody's.
    assert_eq!(world.check(&first.task, failed()), Frame::default());
}

#[test]
fn the_grace_period_lasts_until_the_first_success() {
    let mut world = World::new();
    world.create(checked(1)).unwrap();
    let first = world.offer("a", 9, 1000).remove(0);
    world.status(&first.task, TaskState::Running);
    for _ in 0..10 {
        world.now += 999;
        assert_eq!(world.check(&first.task, failed()), Frame::default());
    }
    world.now += 10;
    for _ in 0..2 {
        assert!(!world.check(&first.task, failed()).events.is_empty());
        assert!(world.kills().is_empty());
    }
    world.check(&first.task, failed());
    assert_eq!(world.kills().len(), 1);
}

#[test]
fn what_may_be_our_own_fault_is_shown_and_changes_nothing() {
    let mut world = World::new();
    world.create(checked(1)).unwrap();
    let first = world.offer("a", 9, 1000).remove(0);
    world.status(&first.task, TaskState::Running);
    world.check(&first.task, Outcome::Passed);
    for _ in 0..100 {
        let frame = world.check(&first.task, Outcome::Uncertain("no file descriptor".into()));
        assert_eq!(frame, Frame::default());
    }
    assert_eq!(world.health(), (1, 1, 0));
    let seen = |world: &World| world.state.view().readings[&first.task.instance].checks[0].uncertain.clone();
    assert_eq!(seen(&world).map(|(_, why)| why).as_deref(), Some("no file descriptor"));
    world.check(&first.task, Outcome::Passed);
    assert_eq!(seen(&world), None);
}

#[test]
fn the_result_of_a_generic_check_is_shown_and_told_and_changes_nothing() {
    let mut world = World::new();
    let app = json!({"id": "/web", "cmd": "x", "cpus": 1, "mem": 100, "check": {"exec": {"command": {"shell": "false"}}}});
    world.create(app).unwrap();
    let first = world.offer("a", 9, 1000).remove(0);
    let seen = |world: &World| world.state.view().readings.get(&first.task.instance).and_then(|readings| readings.result(0));
    world.generic(&first.task, 0, Some(CheckResult::Exec(1)));
    assert_eq!(seen(&world), None, "it does not run yet");
    world.status(&first.task, TaskState::Running);
    assert!(world.tables().deployments.is_empty(), "no deployment waits for it");
    world.events.clear();
    for (place, result, expected, is_news) in [
        (0, Some(CheckResult::Exec(1)), Some(CheckResult::Exec(1)), true),
        (0, Some(CheckResult::Exec(137)), Some(CheckResult::Exec(137)), true),
        (0, Some(CheckResult::Exec(137)), Some(CheckResult::Exec(137)), false),
        // There is no such check.
        (1, Some(CheckResult::Exec(0)), Some(CheckResult::Exec(137)), false),
        (usize::MAX, Some(CheckResult::Exec(0)), Some(CheckResult::Exec(137)), false),
        (0, None, None, true),
    ] {
        let frame = world.generic(&first.task, place, result);
        assert_eq!(Frame { events: vec![], ..frame }, Frame::default());
        assert_eq!(seen(&world), expected);
        let told = std::mem::take(&mut world.events);
        assert_eq!(told, if is_news { vec!["status_update_event"] } else { vec![] });
    }
    assert_eq!((world.health(), world.kills()), ((1, 0, 0), vec![]));
    world.generic(&first.task, 0, Some(CheckResult::Exec(0)));
    world.status(&first.task, TaskState::Failed);
    assert_eq!(seen(&world), None, "the next launch is another task");
}

#[test]
fn another_generic_check_restarts_the_tasks() {
    let mut world = World::new();
    let mut app = json!({"id": "/web", "cmd": "x", "cpus": 1, "mem": 100, "check": {"tcp": {}}});
    world.create(app.clone()).unwrap();
    let first = world.offer("a", 9, 1000).remove(0);
    world.status(&first.task, TaskState::Running);
    assert!(world.tables().deployments.is_empty());
    let changed = |world: &World| world.tables().app(&path("/web")).unwrap().last_config_change_at();
    let before = changed(&world);
    world.now += 1000;
    app["check"]["delaySeconds"] = json!(1);
    world.update("/web", app, false).unwrap();
    assert!(changed(&world) > before);
    assert_eq!(world.tables().deployments.len(), 1);
}

#[test]
fn health_and_counted_failures_survive_a_restart() {
    let mut world = World::new();
    world.create(checked(2)).unwrap();
    let launches = world.offer("a", 9, 1000);
    run(&mut world, &launches);
    launches.iter().for_each(|launch| _ = world.check(&launch.task, Outcome::Passed));
    for _ in 0..2 {
        world.check(&launches[0].task, failed());
    }
    world.restart();
    assert_eq!(world.health(), (2, 1, 1));
    world.check(&launches[0].task, failed());
    assert_eq!(world.kills(), std::slice::from_ref(&launches[0].task));
}

#[test]
fn failures_that_never_kill_are_written_down_once() {
    let mut world = World::new();
    let mut app = checked(1);
    app["healthChecks"][0]["maxConsecutiveFailures"] = json!(0);
    world.create(app).unwrap();
    let first = world.offer("a", 9, 1000).remove(0);
    world.status(&first.task, TaskState::Running);
    world.check(&first.task, Outcome::Passed);
    assert!(!world.check(&first.task, failed()).changes.is_empty());
    for _ in 0..50 {
        let frame = world.check(&first.task, failed());
        assert_eq!((frame.changes.len(), frame.events.len()), (0, 1));
    }
    assert_eq!(world.state.view().readings[&first.task.instance].checks[0].failures, 51);
    assert!(world.kills().is_empty());
}

#[test]
fn a_task_is_healthy_only_when_all_its_checks_are() {
    let mut world = World::new();
    let mut app = checked(1);
    app["healthChecks"] = json!([{"protocol": "HTTP"}, {"protocol": "TCP"}]);
    world.create(app).unwrap();
    let first = world.offer("a", 9, 1000).remove(0);
    world.status(&first.task, TaskState::Running);
    world.check_at(&first.task, 1, Outcome::Passed);
    assert_eq!((world.health(), world.tables().deployments.len()), ((1, 0, 0), 1));
    world.check_at(&first.task, 0, Outcome::Passed);
    assert_eq!((world.health(), world.tables().deployments.len()), ((1, 1, 0), 0));
    world.check_at(&first.task, 1, failed());
    assert_eq!(world.health(), (1, 0, 1));
    assert_eq!(world.check_at(&first.task, 2, failed()), Frame::default());
}

#[test]
fn an_upgrade_gives_up_a_healthy_task_only_for_a_healthy_one() {
    let mut world = World::new();
    world.create(checked(2)).unwrap();
    let old = world.offer("a", 9, 1000);
    run(&mut world, &old);
    old.iter().for_each(|launch| _ = world.check(&launch.task, Outcome::Passed));
    world.health_events();
    world.update("/web", json!({"cpus": 2}), false).unwrap();
    assert_eq!(world.health_events(), ["deployment_info", "add_health_check_event"]);
    let new = world.offer("a", 9, 1000);
    run(&mut world, &new);
    assert!(world.kills().is_empty());
    world.check(&new[0].task, Outcome::Passed);
    let killed = world.kills();
    assert_eq!(killed.len(), 1);
    world.status(&killed[0], TaskState::Killed);
    // The other new one fails for good: nothing more is given up.
    world.now += 20_000;
    world.check(&new[1].task, failed());
    assert!(world.kills().is_empty());
    world.check(&new[1].task, Outcome::Passed);
    let killed = world.kills();
    world.status(&killed[0], TaskState::Killed);
    assert_eq!((world.health(), world.tables().deployments.len()), ((2, 2, 0), 0));
    assert!(world.health_events().contains(&"remove_health_check_event".to_owned()));
}

#[test]
fn the_unhealthy_old_task_goes_first() {
    let mut world = World::new();
    world.create(checked(2)).unwrap();
    let old = world.offer("a", 9, 1000);
    run(&mut world, &old);
    old.iter().for_each(|launch| _ = world.check(&launch.task, Outcome::Passed));
    world.check(&old[0].task, failed());
    world.update("/web", json!({"upgradeStrategy": {"minimumHealthCapacity": 0.5, "maximumOverCapacity": 0}}), false).unwrap();
    assert_eq!(world.kills(), std::slice::from_ref(&old[0].task));
}

#[test]
fn a_deployment_waits_until_the_new_task_is_ready() {
    let mut world = World::new();
    let app = json!({"id": "/web", "cmd": "sleep 100", "cpus": 1, "mem": 100, "portDefinitions": [{"port": 0, "name": "http-api"}],
        "readinessChecks": [{}]});
    world.create(app).unwrap();
    let first = world.offer("a", 9, 1000).remove(0);
    world.status(&first.task, TaskState::Running);
    assert_eq!(world.tables().deployments.len(), 1);
    let not_yet = world.readiness(&first.task, false);
    assert_eq!((not_yet.changes.len(), world.tables().deployments.len()), (0, 1));
    world.restart();
    world.readiness(&first.task, true);
    assert_eq!(world.tables().deployments.len(), 0);
    // Nobody asks without a deployment, so an answer is a late one.
    assert_eq!(world.readiness(&first.task, false), Frame::default());
}

#[test]
fn scaling_down_does_not_wait_for_what_was_not_well_before() {
    let mut world = World::new();
    world.create(checked(2)).unwrap();
    let launches = world.offer("a", 9, 1000);
    run(&mut world, &launches);
    launches.iter().for_each(|launch| _ = world.check(&launch.task, Outcome::Passed));
    launches.iter().for_each(|launch| _ = world.check(&launch.task, failed()));
    world.update("/web", json!({"instances": 1}), false).unwrap();
    let killed = world.kills();
    world.status(&killed[0], TaskState::Killed);
    assert_eq!((world.health(), world.tables().deployments.len()), ((1, 0, 1), 0));
}

#[test]
fn checks_that_contradict_themselves_are_refused() {
    let check = |checks: Value, expected: &[&str]| {
        let mut app = checked(1);
        app["healthChecks"] = checks.clone();
        let Err(RequestError::Invalid(violations)) = World::new().create(app) else { panic!("taken: {checks}") };
        let found: Vec<String> = violations.iter().map(|violation| format!("{} {}", violation.path, violation.text)).collect();
        assert_eq!(found, expected, "{checks}");
    };
    let index = "/healthChecks(0) Health check port indices must address an element of the ports array or container port mappings.";
    check(json!([{"portIndex": 1}]), &[index]);
    check(json!([{"protocol": "TCP", "portIndex": 7}]), &[index]);
    check(json!([{"command": {"value": "true"}}]), &["/healthChecks(0) illegal protocol HTTP specified with command"]);
    check(json!([{"protocol": "COMMAND"}]), &["/healthChecks(0) illegal protocol COMMAND for non-command health check"]);
    check(json!([{"protocol": "MESOS_HTTP"}, {"protocol": "MESOS_TCP"}]), &["/ AppDefinition can contain at most one Mesos health check"]);
    let ipv6 = "/healthChecks(0) IPv6 can only be used for container type DOCKER and Mesos http/https/tcp health checks";
    check(json!([{"ipProtocol": "IPv6"}]), &[ipv6]);
    check(json!([{"path": "/a b"}]), &["/healthChecks(0)/path must not contain blanks or control characters"]);
}

#[test]
fn a_readiness_check_names_a_declared_port_and_ends_before_the_next() {
    let mut app = checked(1);
    app["readinessChecks"] = json!([{"portName": "x", "intervalSeconds": 5, "timeoutSeconds": 5}, {"portName": "y"}]);
    let Err(RequestError::Invalid(violations)) = World::new().create(app) else { panic!("taken") };
    let found: Vec<String> = violations.iter().map(|violation| format!("{} {}", violation.path, violation.text)).collect();
    assert_eq!(
        found,
        [
            "/readinessChecks/size got 2, expected 1 or less",
            "/readinessChecks(0)/portName No port definition reference for portName x",
            "/readinessChecks(0)/timeoutSeconds got 5, expected less than 5",
            "/readinessChecks(1)/portName No port definition reference for portName y",
        ]
    );
}
