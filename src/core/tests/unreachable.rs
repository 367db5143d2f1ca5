//! Instances out of reach: when they count no more, when they are forgotten, and when they come back. And nodes that are drained.

use super::{placement::small, *};

/// An app of one instance, which was running on node `a` and is out of reach since this moment.
fn lost(strategy: &Value) -> (World, TaskId) {
    let mut world = World::new();
    world.create(small("/web", 1, json!({"unreachableStrategy": strategy}))).unwrap();
    let launches = world.offer("a", 4, 1000);
    run(&mut world, &launches);
    let task = launches[0].task.clone();
    world.calls.clear();
    world.status(&task, TaskState::Unreachable);
    (world, task)
}

#[test]
fn what_stays_out_of_reach_counts_no_more_and_is_forgotten_in_the_end() {
    let check = |strategy: Value, story: &[(u64, &str)]| {
        let (mut world, _) = lost(&strategy);
        for (ms, expected) in story {
            let passed = world.now;
            world.wait(ms - passed);
            assert_eq!(world.conditions("/web"), *expected, "{strategy} after {ms} ms");
        }
        assert_eq!(world.kills(), [], "nobody could hear of it");
    };
    let seconds = |inactive: u64, expunge: u64| json!({"inactiveAfterSeconds": inactive, "expungeAfterSeconds": expunge});
    check(
        seconds(10, 30),
        &[
            (0, "Unreachable*1"),
            (9_999, "Unreachable*1"),
            (10_000, "Scheduled*1 UnreachableInactive*1"),
            (29_999, "Scheduled*1 UnreachableInactive*1"),
            (30_000, "Scheduled*1"),
            (1_000_000, "Scheduled*1"),
        ],
    );
    // Both at once.
    check(seconds(10, 10), &[(9_999, "Unreachable*1"), (10_000, "Scheduled*1")]);
    check(
        seconds(0, 20),
        &[(0, "Scheduled*1 UnreachableInactive*1"), (19_999, "Scheduled*1 UnreachableInactive*1"), (20_000, "Scheduled*1")],
    );
    // Marathon's default.
    check(seconds(0, 0), &[(0, "Scheduled*1")]);
    check(json!("disabled"), &[(0, "Unreachable*1"), (1_000_000_000, "Unreachable*1")]);
}

#[test]
fn the_time_until_it_is_forgotten_goes_on_over_a_restart_from_anew() {
    let (mut world, _) = lost(&json!({"inactiveAfterSeconds": 10, "expungeAfterSeconds": 30}));
    world.wait(10_000);
    world.restart();
    world.wait(19_999);
    assert_eq!(world.conditions("/web"), "Scheduled*1 UnreachableInactive*1");
    world.wait(1);
    assert_eq!(world.conditions("/web"), "Scheduled*1");
}

#[test]
fn who_comes_back_lives_on_until_it_is_forgotten_and_is_killed_afterwards() {
    let check = |ms: u64, expected: &str, is_killed: bool| {
        let (mut world, task) = lost(&json!({"inactiveAfterSeconds": 10, "expungeAfterSeconds": 30}));
        // In two steps, as the moments come.
        world.wait(ms.min(10_000));
        world.wait(ms.saturating_sub(10_000));
        world.calls.clear();
        world.status(&task, TaskState::Running);
        assert_eq!(world.conditions("/web"), expected, "after {ms} ms");
        assert_eq!(world.kills() == [task], is_killed, "after {ms} ms");
    };
    check(5_000, "Running*1", false);
    check(29_999, "Running*1", false);
    check(30_000, "Scheduled*1", true);
}

#[test]
fn a_task_that_goes_because_its_node_is_drained_is_replaced_at_once() {
    let check = |state: TaskState, reason: Reason, is_at_once: bool| {
        let mut world = World::new();
        world.create(web(1)).unwrap();
        let first = world.offer("a", 4, 1000).remove(0);
        world.status(&first.task, TaskState::Running);
        world.cluster(ClusterEvent::Status(TaskStatus {
            task: first.task.clone(),
            agent: Some(AgentId::new("a")),
            state,
            reason,
            message: String::new(),
            timestamp: Timestamp(1_600_000_000_000),
            uuid: None,
            healthy: None,
            addresses: Vec::new(),
        }));
        assert_eq!(world.conditions("/web"), "Scheduled*1");
        let second = world.offer("b", 4, 1000);
        assert_eq!(second.len(), usize::from(is_at_once), "{state:?} {reason:?}");
        assert!(second.iter().all(|launch| launch.task.instance == first.task.instance && launch.task.incarnation == 2));
        world.wait(2000);
        assert_eq!(world.offer("b", 4, 1000).len(), usize::from(!is_at_once), "{state:?} {reason:?}");
    };
    for state in [TaskState::Failed, TaskState::Gone, TaskState::GoneByOperator, TaskState::Lost] {
        check(state, Reason::AgentDraining, true);
        check(state, Reason::Other, false);
    }
    // A kill costs nothing anyhow.
    check(TaskState::Killed, Reason::AgentDraining, true);
    check(TaskState::Killed, Reason::Other, true);
}
