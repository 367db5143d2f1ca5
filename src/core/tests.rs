//! The core as a whole, one story a test: requests and cluster events in, calls and records out.

mod health;

use std::{net::IpAddr, sync::Arc};

use serde_json::{Value, json};

use super::{Ctx, Frame, Input, Settings, State, state::Tables, step::step};
use crate::model::{
    app::{App, input::AppInput},
    cluster::{BrickReport, ClusterCall, ClusterEvent, Launch, Offer, Reason, TaskState, TaskStatus},
    event::Audience,
    id::{AgentId, OfferId, Owner, PathId, TaskId},
    instance::Condition,
    record::{Change, Record, RecordKey},
    request::{KillSelector, Origin, Reply, Request, RequestError},
    resources::{PortRange, Resources, Scalar},
    time::{Instant, Timestamp},
    user::{Grants, Quota, UserChange},
};

mod external;
mod groups;
mod placement;
mod pods;
mod residency;
mod settings;
mod unreachable;

const WALL_BEGIN_MS: i64 = 1_600_000_000_000;

/// The core with a cluster of nodes that do as they are told.
struct World {
    state: State,
    now: u64,
    random: u64,
    offers: u64,
    calls: Vec<ClusterCall>,
    events: Vec<String>,
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            state: State::recover(Settings::default(), Vec::new(), Instant(0), Timestamp(0)),
            now: 0,
            random: 1,
            offers: 0,
            calls: Vec::new(),
            events: Vec::new(),
        };
        world.cluster(ClusterEvent::Connected { framework_id: "f".into(), master: "m".into(), region: None });
        world.calls.clear();
        world
    }

    fn step(&mut self, input: Input) -> Frame {
        let random = &mut self.random;
        let mut bits = || {
            *random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *random ^ (*random >> 33)
        };
        let wall = Timestamp(WALL_BEGIN_MS + self.now as i64);
        let frame = step(&mut self.state, input, &mut Ctx { now: Instant(self.now), wall, random: &mut bits });
        self.calls.extend(frame.calls.iter().cloned());
        self.events.extend(frame.events.iter().map(|event| event.kind().to_owned()));
        frame
    }

    fn cluster(&mut self, event: ClusterEvent) -> Frame {
        self.step(Input::Cluster(event))
    }

    fn request(&mut self, request: Request) -> Result<Reply, RequestError> {
        let origin = Origin { user: Owner::default_owner(), admin: true, client_ip: "127.0.0.1".into(), uri: "/".into() };
        self.step(Input::Api(1, origin, Box::new(request))).replies.pop().unwrap().1
    }

    /// As an ordinary user.
    fn request_by(&mut self, user: &str, request: Request) -> Result<Reply, RequestError> {
        let origin = Origin { user: Owner::new(user), admin: false, client_ip: "127.0.0.1".into(), uri: "/".into() };
        self.step(Input::Api(1, origin, Box::new(request))).replies.pop().unwrap().1
    }

    fn create_by(&mut self, user: &str, app: Value) -> Result<Reply, RequestError> {
        self.request_by(user, Request::CreateApp { input: AppInput::read(&app).unwrap().into(), force: true })
    }

    fn update_by(&mut self, user: &str, id: &str, app: Value) -> Result<Reply, RequestError> {
        let updates = vec![(path(id), AppInput::read(&app).unwrap())];
        self.request_by(user, Request::UpdateApps { updates, partial: true, create: true, force: true })
    }

    fn quota(&mut self, user: &str, quota: Quota) {
        let change = UserChange { quota: Some(quota), ..UserChange::default() };
        self.request(Request::PutUser { name: Owner::new(user), change }).unwrap();
    }

    fn create(&mut self, app: Value) -> Result<Reply, RequestError> {
        self.request(Request::CreateApp { input: AppInput::read(&app).unwrap().into(), force: false })
    }

    fn update(&mut self, id: &str, app: Value, force: bool) -> Result<Reply, RequestError> {
        let updates = vec![(path(id), AppInput::read(&app).unwrap())];
        self.request(Request::UpdateApps { updates, partial: true, create: true, force })
    }

    /// Offers a node and returns what is launched on it.
    fn offer(&mut self, agent: &str, cpus: u64, mem: u64) -> Vec<Launch> {
        self.offers += 1;
        let offer = Offer {
            id: OfferId::new(self.offers.to_string()),
            agent: AgentId::new(agent),
            host: Arc::from(format!("{agent}.local")),
            addresses: vec!["10.0.0.1".parse::<IpAddr>().unwrap()],
            resources: Resources {
                cpus: Scalar::whole(cpus),
                mem: Scalar::whole(mem),
                disk: Scalar::whole(10_000),
                gpus: 0,
                ports: vec![PortRange::new(31_000, 31_099)],
            },
            attributes: Vec::new(),
            reserved: Vec::new(),
            region: None,
            zone: None,
        };
        let calls = self.cluster(ClusterEvent::Offers(vec![offer])).calls;
        calls
            .into_iter()
            .find_map(|call| if let ClusterCall::Accept { launches, .. } = call { Some(launches) } else { None })
            .unwrap_or_default()
    }

    fn status(&mut self, task: &TaskId, state: TaskState) -> Frame {
        self.cluster(ClusterEvent::Status(TaskStatus {
            task: task.clone(),
            agent: Some(AgentId::new("a")),
            state,
            reason: Reason::Other,
            message: format!("{state:?}"),
            timestamp: Timestamp(1_600_000_000_000 + self.now as i64),
            uuid: Some(uuid::Uuid::from_u128(7)),
            healthy: None,
            addresses: Vec::new(),
        }))
    }

    fn wait(&mut self, ms: u64) -> Frame {
        self.now += ms;
        self.step(Input::Tick)
    }

    fn tables(&self) -> &Tables {
        &self.state.tables
    }

    /// `Running*2 Scheduled*1` of an app.
    fn conditions(&self, app: &str) -> String {
        let tally = self.tables().tallies.get(&path(app)).cloned().unwrap_or_default();
        let counts = Condition::ALL.into_iter().filter_map(|condition| {
            let count = tally.in_condition(condition);
            (count > 0).then(|| format!("{}*{count}", condition.as_str()))
        });
        counts.collect::<Vec<_>>().join(" ")
    }

    fn kills(&mut self) -> Vec<TaskId> {
        std::mem::take(&mut self.calls)
            .into_iter()
            .filter_map(|call| if let ClusterCall::Kill { task, .. } = call { Some(task) } else { None })
            .collect()
    }

    /// The server is killed and started again: only what is durable is left.
    fn restart(&mut self) {
        let wall = Timestamp(WALL_BEGIN_MS + self.now as i64);
        self.state = State::recover(Settings::default(), self.records(), Instant(self.now), wall);
        self.calls.clear();
    }

    /// All that is durable.
    fn records(&self) -> Vec<Record> {
        let t = self.tables();
        let mut records: Vec<Record> = Vec::new();
        records.push(Record::Meta(t.meta.clone()));
        records.extend(t.apps.values().cloned().map(Record::App));
        records.extend(t.bricks.values().cloned().map(Record::Brick));
        records.extend(t.definitions.values().cloned().map(Record::Definition));
        records.extend(t.instances.values().cloned().map(Record::Instance));
        records.extend(t.deployments.values().cloned().map(Record::Deployment));
        records.extend(t.ports.values().cloned().map(Record::Port));
        records.extend(t.agents.values().cloned().map(Record::Agent));
        records.extend(t.users.values().cloned().map(Record::User));
        records.extend(t.groups.values().cloned().map(Record::Group));
        records.extend(t.root_versions.values().cloned().map(Record::RootVersion));
        records.extend(t.archive.values().cloned().map(Record::Archived));
        records
    }
}

fn path(text: &str) -> PathId {
    text.parse().unwrap()
}

fn web(instances: u32) -> Value {
    json!({"id": "/web", "cmd": "sleep 100", "cpus": 1, "mem": 100, "instances": instances, "backoffSeconds": 2})
}

fn database() -> Value {
    json!({"id": "/db", "cpus": 1, "mem": 100, "env": {"DBPORT": "@PORT"}, "portDefinitions": [],
        "container": {"type": "DOCKER", "docker": {"image": "pg"}, "volumes": [{"containerPath": "/data/", "mode": "RW", "brick": {"size": 1024}}]}})
}

fn run(world: &mut World, launches: &[Launch]) {
    for launch in launches {
        world.status(&launch.task, TaskState::Running);
    }
}

#[test]
fn what_does_not_come_up_in_time_is_killed_whatever_it_says_meanwhile() {
    use TaskState::{Running, Staging, Starting};
    // How long it may stay unconfirmed, when it is said how far it is (milliseconds after the launch), and when it is killed.
    let check = |confirm_ms: u64, said: &[(u64, TaskState)], killed_at: Option<u64>| {
        let mut world = World::new();
        world.state.settings.task_launch_confirm_timeout_ms = confirm_ms;
        world.create(json!({"id": "/web", "cmd": "x"})).unwrap();
        let task = world.offer("a", 1, 1000)[0].task.clone();
        let began = world.now;
        let mut said = said.iter().peekable();
        let mut killed = None;
        for at in (0..700_000).step_by(1000) {
            world.now = began + at;
            while let Some((_, state)) = said.next_if(|(when, _)| *when == at) {
                world.status(&task, *state);
            }
            world.step(Input::Tick);
            if world.calls.iter().any(|call| matches!(call, ClusterCall::Kill { .. })) {
                killed = Some(at);
                break;
            }
        }
        assert_eq!(killed, killed_at, "{confirm_ms} {:?}", world.conditions("/web"));
        let counts = |world: &World| (world.state.view().overdue, world.state.view().kill_attempts);
        assert_eq!(counts(&world), (usize::from(killed.is_some()), u64::from(killed.is_some())));
        world.status(&task, TaskState::Killed);
        assert_eq!(counts(&world), (0, 0));
    };
    check(300_000, &[], Some(300_000));
    check(100_000, &[], Some(100_000));
    check(100_000, &[(10_000, Staging)], Some(300_000));
    check(300_000, &[(10_000, Staging)], Some(300_000));
    check(300_000, &[(10_000, Staging), (100_000, Staging), (299_000, Starting)], Some(300_000));
    check(300_000, &[(10_000, Staging), (200_000, Starting), (250_000, Starting)], Some(300_000));
    check(300_000, &[(10_000, Staging), (299_000, Running)], None);
    check(600_000, &[(402_000, Staging)], Some(402_000));
    check(600_000, &[(100_000, Staging)], Some(300_000));
}

#[test]
fn a_launch_has_the_rest_of_its_time_after_a_restart() {
    // How far it is, how long it had before the restart, how the wall clock was set meanwhile, and how long it has then; milliseconds.
    let check = |said: Option<TaskState>, before: u64, jump: i64, rest: u64| {
        let mut world = World::new();
        world.create(json!({"id": "/web", "cmd": "x"})).unwrap();
        let task = world.offer("a", 1, 1000)[0].task.clone();
        world.state.settings.task_launch_confirm_timeout_ms = 100_000;
        said.into_iter().for_each(|state| _ = world.status(&task, state));
        world.now += before;
        let records = world.records();
        let settings = Settings { task_launch_confirm_timeout_ms: 100_000, ..Settings::default() };
        // A process's own clock begins anywhere.
        let (now, wall) = (world.now + 77, Timestamp(WALL_BEGIN_MS + world.now as i64 + jump));
        world.state = State::recover(settings, records, Instant(now), wall);
        world.now = now;
        world.calls.clear();
        world.wait(rest - 1);
        assert_eq!(world.kills(), [], "{said:?} {before} {jump}");
        world.wait(1);
        assert_eq!(world.kills(), [task], "{said:?} {before} {jump}");
    };
    use TaskState::{Staging, Starting};
    check(None, 0, 0, 100_000);
    check(None, 40_000, 0, 60_000);
    check(Some(Staging), 40_000, 0, 260_000);
    check(Some(Starting), 269_000, 0, 31_000);
    // It may have come up meanwhile: that is heard of first.
    check(None, 99_000, 0, 30_000);
    check(Some(Staging), 290_000, 0, 30_000);
    check(Some(Staging), 3_000_000, 0, 30_000);
    check(Some(Staging), 10_000, 86_400_000, 30_000);
    check(Some(Staging), 10_000, -86_400_000, 300_000);
}

#[test]
fn a_pull_that_goes_on_is_not_overdue() {
    let check = |agent: Option<&str>, reason: Reason, uuid: Option<u128>, goes_on: bool| {
        let mut world = World::new();
        world.create(json!({"id": "/web", "cmd": "x"})).unwrap();
        let task = world.offer("a", 1, 1000)[0].task.clone();
        world.status(&task, TaskState::Staging);
        let how_far = TaskStatus {
            task,
            agent: agent.map(AgentId::new),
            state: TaskState::Staging,
            reason,
            message: "pulling".into(),
            timestamp: Timestamp(0),
            uuid: uuid.map(uuid::Uuid::from_u128),
            healthy: None,
            addresses: Vec::new(),
        };
        let kills = |world: &World| world.calls.iter().any(|call| matches!(call, ClusterCall::Kill { .. }));
        for _ in 0..5 {
            world.wait(200_000);
            world.cluster(ClusterEvent::Status(how_far.clone()));
        }
        assert_eq!(kills(&world), !goes_on, "{how_far:?}");
        world.wait(299_999);
        assert_eq!(kills(&world), !goes_on, "{how_far:?}");
        world.wait(1);
        assert!(kills(&world), "{how_far:?}");
    };
    check(Some("a"), Reason::Other, None, true);
    check(Some("a"), Reason::Reconciliation, None, false);
    check(Some("a"), Reason::Other, Some(8), false);
    check(None, Reason::Other, None, false);
}

#[test]
fn an_app_is_created_launched_and_destroyed() {
    let mut world = World::new();
    world.create(web(2)).unwrap();
    assert_eq!(world.conditions("/web"), "Scheduled*2");
    assert!(world.calls.contains(&ClusterCall::Revive));
    let launches = world.offer("a", 4, 1000);
    assert_eq!(launches.len(), 2);
    assert_eq!(world.conditions("/web"), "Provisioned*2");
    run(&mut world, &launches);
    assert_eq!(world.conditions("/web"), "Running*2");
    assert!(world.tables().deployments.is_empty());
    assert!(world.calls.contains(&ClusterCall::Suppress));
    world.request(Request::DeleteApp { app: path("/web"), force: true }).unwrap();
    assert_eq!(world.kills().len(), 2);
    assert!(world.tables().apps.is_empty());
    for launch in &launches {
        world.status(&launch.task, TaskState::Killed);
    }
    assert!(
        world.tables().instances.is_empty()
            && world.tables().deployments.is_empty()
            && world.tables().definitions.values().next().is_none()
    );
}

#[test]
fn a_failed_task_is_launched_again_in_the_same_instance_after_its_back_off() {
    let mut world = World::new();
    world.create(web(1)).unwrap();
    let first = world.offer("a", 4, 1000).remove(0);
    world.status(&first.task, TaskState::Running);
    world.status(&first.task, TaskState::Failed);
    assert_eq!(world.conditions("/web"), "Scheduled*1");
    assert_eq!(world.tables().failures[&path("/web")].message, "Failed");
    assert!(world.offer("a", 4, 1000).is_empty());
    world.wait(1999);
    assert!(world.offer("a", 4, 1000).is_empty());
    world.wait(1);
    let second = world.offer("a", 4, 1000).remove(0);
    assert_eq!((second.task.instance.clone(), second.task.incarnation), (first.task.instance, 2));
}

#[test]
fn what_is_being_replaced_does_not_touch_the_back_off_of_its_successor() {
    let mut world = World::new();
    world.create(web(1)).unwrap();
    let old = world.offer("a", 9, 1000).remove(0);
    world.status(&old.task, TaskState::Running);
    world.update("/web", json!({"cpus": 2}), false).unwrap();
    let new = world.offer("a", 9, 1000).remove(0);
    world.status(&new.task, TaskState::Failed);
    world.status(&old.task, TaskState::Failed);
    assert!(world.offer("a", 9, 1000).is_empty());
    world.wait(1999);
    assert!(world.offer("a", 9, 1000).is_empty());
    world.wait(1);
    assert_eq!(world.offer("a", 9, 1000).len(), 1);
}

#[test]
fn an_end_counts_once_however_often_it_is_told() {
    let mut world = World::new();
    world.create(web(1)).unwrap();
    let first = world.offer("a", 4, 1000).remove(0);
    world.status(&first.task, TaskState::Failed);
    let again = world.status(&first.task, TaskState::Failed);
    assert_eq!(again.changes, []);
    assert!(matches!(again.calls[..], [ClusterCall::Acknowledge { .. }]));
    let late = world.status(&first.task, TaskState::Running);
    assert!(late.calls.iter().any(|call| matches!(call, ClusterCall::Kill { task, .. } if *task == first.task)));
}

#[test]
fn a_task_of_nobody_is_killed() {
    let mut world = World::new();
    let task: TaskId = "x.instance-6b0cd2e8-b243-11e8-8b80-024247c0a575._app.1".parse().unwrap();
    world.status(&task, TaskState::Running);
    assert_eq!(world.kills(), std::slice::from_ref(&task));
    world.status(&task, TaskState::Killed);
    assert!(world.kills().is_empty());
    assert!(world.events.contains(&"unknown_instance_terminated_event".to_owned()));
}

#[test]
fn a_kill_is_repeated_until_the_task_has_ended_also_over_a_restart() {
    let mut world = World::new();
    world.create(web(1)).unwrap();
    let first = world.offer("a", 4, 1000).remove(0);
    world.status(&first.task, TaskState::Running);
    world
        .request(Request::KillTasks { selection: KillSelector::Tasks(vec![first.task.clone()]), scale: false, force: false, wipe: false })
        .unwrap();
    assert_eq!(world.kills(), std::slice::from_ref(&first.task));
    world.wait(30_000);
    assert_eq!(world.kills(), std::slice::from_ref(&first.task));
    world.restart();
    world.wait(0);
    assert_eq!(world.kills(), std::slice::from_ref(&first.task));
    world.status(&first.task, TaskState::Killed);
    world.wait(60_000);
    assert!(world.kills().is_empty());
    assert_eq!(world.offer("a", 4, 1000)[0].task.incarnation, 2);
}

#[test]
fn an_upgrade_starts_new_ones_first_by_default() {
    let mut world = World::new();
    world.create(web(2)).unwrap();
    let old = world.offer("a", 9, 1000);
    run(&mut world, &old);
    world.update("/web", json!({"cpus": 2}), false).unwrap();
    assert_eq!(world.conditions("/web"), "Scheduled*2 Running*2");
    assert!(matches!(world.update("/web", json!({"cpus": 3}), false), Err(RequestError::Locked(ids)) if ids.len() == 1));
    let new = world.offer("a", 9, 1000);
    assert!(world.kills().is_empty());
    world.status(&new[0].task, TaskState::Running);
    let killed = world.kills();
    assert_eq!(killed.len(), 1);
    world.restart();
    world.wait(0);
    assert_eq!(world.kills(), killed);
    world.status(&killed[0], TaskState::Killed);
    world.status(&new[1].task, TaskState::Running);
    let killed = world.kills();
    world.status(&killed[0], TaskState::Killed);
    assert_eq!(world.conditions("/web"), "Running*2");
    assert!(world.tables().deployments.is_empty());
}

#[test]
fn scaling_keeps_the_tasks_and_an_identical_update_does_nothing() {
    let mut world = World::new();
    world.create(web(1)).unwrap();
    let launches = world.offer("a", 9, 1000);
    run(&mut world, &launches);
    world.update("/web", json!({"instances": 3}), false).unwrap();
    assert_eq!(world.conditions("/web"), "Scheduled*2 Running*1");
    let more = world.offer("a", 9, 1000);
    run(&mut world, &more);
    let version = world.tables().app(&path("/web")).unwrap().version;
    world.update("/web", json!({"instances": 3}), false).unwrap();
    assert_eq!(world.tables().app(&path("/web")).unwrap().version, version);
    assert!(world.kills().is_empty());
    world.update("/web", json!({"instances": 1}), false).unwrap();
    assert_eq!(world.kills().len(), 2);
}

#[test]
fn a_rollback_returns_to_what_was_and_a_forced_cancel_stays() {
    let mut world = World::new();
    world.create(web(1)).unwrap();
    let launches = world.offer("a", 9, 1000);
    run(&mut world, &launches);
    let Ok(Reply::Deployment { id, .. }) = world.update("/web", json!({"cpus": 2}), false) else { panic!() };
    world.request(Request::CancelDeployment { id, force: false }).unwrap();
    assert_eq!(world.tables().app(&path("/web")).unwrap().cpus, Scalar::whole(1));
    let Some(id) = world.tables().deployments.keys().next().cloned() else { panic!() };
    assert_eq!(world.request(Request::CancelDeployment { id, force: true }), Ok(Reply::Done));
    assert!(world.tables().deployments.is_empty());
    assert!(world.events.contains(&"deployment_failed".to_owned()));
}

#[test]
fn a_port_stays_with_its_app_for_good() {
    let mut world = World::new();
    world.create(database()).unwrap();
    let launch = world.offer("a", 9, 1000).remove(0);
    assert!(launch.environment().contains(&("DBPORT".into(), "1024".into())), "{:?}", launch.environment());
    world.create(json!({"id": "/other", "cmd": "sleep 9", "env": {"P": "@PORT"}, "portDefinitions": []})).unwrap();
    assert_eq!(world.tables().ports.keys().copied().collect::<Vec<_>>(), [1024, 1025]);
    world.request(Request::DeleteApp { app: path("/db"), force: true }).unwrap();
    world.status(&launch.task, TaskState::Killed);
    world.restart();
    world.create(json!({"id": "/third", "cmd": "sleep 9", "env": {"P": "@PORT"}, "portDefinitions": []})).unwrap();
    assert_eq!(world.tables().ports.keys().copied().collect::<Vec<_>>(), [1024, 1025, 1026]);
    assert!(matches!(world.request(Request::ReleasePort { port: 1025 }), Err(RequestError::Conflict(_))));
    assert_eq!(world.request(Request::ReleasePort { port: 1024 }), Ok(Reply::Done));
}

#[test]
fn a_brick_waits_for_the_release_of_its_last_holder() {
    let mut world = World::new();
    world.create(database()).unwrap();
    let first = world.offer("a", 9, 1000).remove(0);
    let epoch = first.bricks[0].epoch;
    world.status(&first.task, TaskState::Running);
    world.status(&first.task, TaskState::Failed);
    let release =
        ClusterCall::ReleaseBrick { brick: first.bricks[0].name.clone(), epoch, agent: AgentId::new("a"), task: first.task.clone() };
    assert!(world.calls.contains(&release));
    world.calls.clear();
    world.wait(60_000);
    assert!(world.calls.contains(&release), "it is asked for again");
    assert!(world.offer("a", 9, 1000).is_empty());
    assert!(world.state.view().queue[&path("/db")].held_by.as_ref().unwrap().contains("still held by task"));
    let released =
        |epoch| ClusterEvent::Brick(BrickReport::Released { brick: first.bricks[0].name.clone(), epoch, agent: AgentId::new("a") });
    world.cluster(released(epoch - 1));
    assert!(world.offer("a", 9, 1000).is_empty());
    world.cluster(released(epoch));
    assert!(world.offer("b", 9, 1000).is_empty(), "its data is on node a");
    let second = world.offer("a", 9, 1000).remove(0);
    assert_eq!(second.bricks[0].epoch, epoch + 1);
    world.cluster(released(epoch));
    world.cluster(released(epoch + 1));
    assert!(world.tables().bricks.values().all(|brick| brick.lease.is_some()), "a living holder keeps it, whatever a late report says");
}

#[test]
fn a_brick_survives_its_app_and_cannot_shrink() {
    let mut world = World::new();
    world.create(database()).unwrap();
    let first = world.offer("a", 9, 1000).remove(0);
    world.request(Request::DeleteApp { app: path("/db"), force: true }).unwrap();
    world.status(&first.task, TaskState::Killed);
    let name = first.bricks[0].name.clone();
    assert!(matches!(world.request(Request::ReleaseBrick { brick: name.clone(), force: true }), Err(RequestError::Conflict(_))));
    world.cluster(ClusterEvent::Brick(BrickReport::Released {
        brick: name.clone(),
        epoch: first.bricks[0].epoch,
        agent: AgentId::new("a"),
    }));
    let mut smaller = database();
    smaller["container"]["volumes"][0]["brick"]["size"] = 512.into();
    assert!(matches!(world.create(smaller), Err(RequestError::Invalid(_))));
    assert_eq!(world.request(Request::ReleaseBrick { brick: name.clone(), force: false }), Ok(Reply::Done));
    assert!(world.calls.iter().any(|call| matches!(call, ClusterCall::DestroyBrick { brick, .. } if *brick == name)));
    let epoch = world.tables().bricks[&name].epoch;
    world.cluster(ClusterEvent::Brick(BrickReport::Destroyed { brick: name, epoch }));
    assert!(world.tables().bricks.is_empty());
}

#[test]
fn an_app_whose_brick_was_released_by_force_starts_with_a_new_one() {
    let mut world = World::new();
    world.create(json!({"id": "/web", "cmd": "sleep 9"})).unwrap();
    world.create(database()).unwrap();
    let name = world.tables().bricks.keys().next().unwrap().clone();
    let first = world.offer("a", 9, 1000).into_iter().find(|launch| !launch.bricks.is_empty()).unwrap();
    world.status(&first.task, TaskState::Failed);
    let epoch = first.bricks[0].epoch;
    world.cluster(ClusterEvent::Brick(BrickReport::Released { brick: name.clone(), epoch, agent: AgentId::new("a") }));
    world.request(Request::ReleaseBrick { brick: name.clone(), force: true }).unwrap();
    world.wait(60_000);
    assert!(world.offer("a", 9, 1000).is_empty());
    world.cluster(ClusterEvent::Brick(BrickReport::Destroyed { brick: name, epoch }));
    let second = world.offer("b", 9, 1000).remove(0);
    assert!(second.bricks[0].epoch > epoch);
}

#[test]
fn an_app_with_a_brick_is_replaced_one_after_the_other() {
    let mut world = World::new();
    world.create(database()).unwrap();
    let first = world.offer("a", 9, 1000).remove(0);
    world.status(&first.task, TaskState::Running);
    world.update("/db", json!({"mem": 200}), false).unwrap();
    assert_eq!(world.kills(), std::slice::from_ref(&first.task));
    assert_eq!(world.conditions("/db"), "Running*1");
    world.status(&first.task, TaskState::Killed);
    assert_eq!(world.conditions("/db"), "Scheduled*1");
    world.cluster(ClusterEvent::Brick(BrickReport::Released {
        brick: first.bricks[0].name.clone(),
        epoch: first.bricks[0].epoch,
        agent: AgentId::new("a"),
    }));
    let second = world.offer("a", 9, 1000).remove(0);
    world.status(&second.task, TaskState::Running);
    assert!(world.tables().deployments.is_empty());
    assert_eq!(
        first.environment().iter().find(|(name, _)| name == "DBPORT"),
        second.environment().iter().find(|(name, _)| name == "DBPORT")
    );
}

#[test]
fn a_lost_node_is_replaced_but_never_the_holder_of_a_brick() {
    let mut world = World::new();
    world.create(web(1)).unwrap();
    world.create(database()).unwrap();
    let launches = world.offer("a", 9, 1000);
    run(&mut world, &launches);
    for launch in &launches {
        world.status(&launch.task, TaskState::Unreachable);
    }
    assert_eq!((world.conditions("/web"), world.conditions("/db")), ("Scheduled*1".into(), "Unreachable*1".into()));
    let brick = world.tables().bricks.values().next().unwrap().clone();
    assert_eq!(world.request(Request::FenceBrick { brick: brick.name.clone(), epoch: brick.epoch }), Ok(Reply::Done));
    assert_eq!(world.conditions("/db"), "Scheduled*1");
    world.calls.clear();
    run(&mut world, &launches);
    assert_eq!(world.kills().len(), 2, "both are strangers now");
}

#[test]
fn what_does_not_fit_waits_with_the_reason() {
    let mut world = World::new();
    world.create(json!({"id": "/big", "cmd": "sleep 9", "cpus": 64, "mem": 100_000})).unwrap();
    assert!(world.offer("a", 4, 1000).is_empty());
    let entry = world.state.view().queue[&path("/big")].clone();
    assert_eq!(
        entry.last_unused_offers[&AgentId::new("a")].reasons,
        [super::state::Reject::InsufficientCpus, super::state::Reject::InsufficientMemory]
    );
    assert!(world.calls.iter().any(|call| matches!(call, ClusterCall::Decline { .. })));
}

#[test]
fn unconfirmed_launches_are_asked_about_together_and_nothing_else() {
    let mut world = World::new();
    world.create(web(60)).unwrap();
    let launches = world.offer("a", 100, 10_000);
    run(&mut world, &launches[..20]);
    world.calls.clear();
    world.wait(10_000);
    let asked: Vec<usize> = world
        .calls
        .iter()
        .filter_map(|call| if let ClusterCall::Reconcile { tasks, others: false } = call { Some(tasks.len()) } else { None })
        .collect();
    assert_eq!(asked, [40]);
}

#[test]
fn an_unconfirmed_launch_is_asked_about_and_given_up_only_when_the_cluster_says_so() {
    let mut world = World::new();
    world.create(web(1)).unwrap();
    let launch = world.offer("a", 4, 1000).remove(0);
    world.calls.clear();
    world.wait(10_000);
    assert!(world.calls.iter().any(|call| matches!(call, ClusterCall::Reconcile { tasks, others: false } if tasks.len() == 1)));
    assert_eq!(world.conditions("/web"), "Provisioned*1");
    world.status(&launch.task, TaskState::Gone);
    assert_eq!(world.conditions("/web"), "Scheduled*1");
}

#[test]
fn a_launch_that_stays_unconfirmed_is_killed() {
    let mut world = World::new();
    world.create(web(1)).unwrap();
    let launch = world.offer("a", 4, 1000).remove(0);
    world.wait(299_000);
    assert_eq!(world.conditions("/web"), "Provisioned*1");
    world.wait(1_000);
    assert_eq!((world.conditions("/web").as_str(), world.kills()), ("Killing*1", vec![launch.task.clone()]));
    // Only the cluster's word makes room for another.
    world.status(&launch.task, TaskState::Gone);
    assert_eq!(world.conditions("/web"), "Scheduled*1");
    // A confirmed one has its own time to come up.
    world.wait(10_000);
    let launch = world.offer("a", 4, 1000).remove(0);
    world.status(&launch.task, TaskState::Staging);
    world.wait(299_000);
    assert_eq!(world.conditions("/web"), "Staging*1");
}

#[test]
fn that_a_task_is_being_killed_is_told_once() {
    let mut world = World::new();
    world.create(web(1)).unwrap();
    let task = world.offer("a", 4, 1000).remove(0).task;
    world.status(&task, TaskState::Running);
    world.calls.clear();
    // What is told of it: by its uuid, or as an answer.
    let mut check = |uuid: Option<u128>, reason: Reason, expected: &[&str]| {
        world.events.clear();
        world.cluster(ClusterEvent::Status(TaskStatus {
            task: task.clone(),
            agent: Some(AgentId::new("a")),
            state: TaskState::Killing,
            reason,
            message: String::new(),
            timestamp: Timestamp(0),
            uuid: uuid.map(uuid::Uuid::from_u128),
            healthy: None,
            addresses: Vec::new(),
        }));
        assert_eq!(world.events, expected, "{uuid:?} {reason:?}");
        let acknowledged = world.calls.drain(..).filter(|call| matches!(call, ClusterCall::Acknowledge { .. })).count();
        assert_eq!(acknowledged, usize::from(uuid.is_some()));
    };
    check(Some(1), Reason::Other, &["status_update_event", "instance_changed_event"]);
    check(Some(1), Reason::Other, &[]);
    check(Some(2), Reason::Other, &[]);
    check(None, Reason::Reconciliation, &[]);
    // We ask ourselves, and its node says so after that.
    let mut world = World::new();
    world.create(web(1)).unwrap();
    let task = world.offer("a", 4, 1000).remove(0).task;
    world.status(&task, TaskState::Running);
    let selection = KillSelector::Tasks(vec![task.clone()]);
    world.request(Request::KillTasks { selection, scale: false, force: false, wipe: false }).unwrap();
    for expected in [&["status_update_event", "instance_changed_event"][..], &[]] {
        world.events.clear();
        world.status(&task, TaskState::Killing);
        assert_eq!(world.events, expected);
    }
}

#[test]
fn every_change_is_in_the_frame() {
    let mut world = World::new();
    let origin = Origin { user: Owner::default_owner(), admin: true, client_ip: "".into(), uri: "".into() };
    let input = AppInput::read(&web(3)).unwrap();
    let frame = world.step(Input::Api(1, origin, Box::new(Request::CreateApp { input: input.into(), force: false })));
    let mut tables = Tables::default();
    frame.changes.iter().for_each(|change| tables.apply(change));
    assert_eq!(tables.apps, world.tables().apps);
    assert_eq!(tables.instances, world.tables().instances);
    assert_eq!(tables.deployments, world.tables().deployments);
    assert!(frame.changes.iter().all(|change| matches!(change, Change::Put(_))));
}

#[test]
fn a_change_of_an_app_is_one_definition() {
    let mut world = World::new();
    world.create(json!({"id": "/web", "cmd": "sleep 100", "instances": 0})).unwrap();
    let input = AppInput::read(&json!({"labels": {"n": "1"}})).unwrap();
    let origin = Origin { user: Owner::default_owner(), admin: true, client_ip: "".into(), uri: "".into() };
    let update = Request::UpdateApps { updates: vec![(path("/web"), input)], partial: true, create: false, force: false };
    let frame = world.step(Input::Api(1, origin, Box::new(update)));
    let keys: Vec<RecordKey> = frame.changes.iter().map(Change::key).filter(|key| !matches!(key, RecordKey::Deployment(_))).collect();
    let version = world.tables().app(&path("/web")).unwrap().version;
    assert_eq!(keys, [RecordKey::Definition(path("/web"), version), RecordKey::RootVersion(version)]);
}

/// In whatever order they are read back.
#[test]
fn the_latest_definition_of_an_app_is_its_present_one() {
    let mut world = World::new();
    world.create(web(0)).unwrap();
    world.update("/web", json!({"cmd": "sleep 2"}), false).unwrap();
    world.update("/web", json!({"cmd": "sleep 3"}), false).unwrap();
    let entry = Change::Put(Record::App(world.tables().apps[&path("/web")].clone()));
    let versions: Vec<Arc<App>> = world.tables().versions_of(&path("/web")).cloned().collect();
    let [_, second, third] = &versions[..] else { panic!("{versions:?}") };
    let changes: Vec<Change> = versions.iter().cloned().map(Record::Definition).map(Change::Put).chain([entry]).collect();
    let orders = (0..256).map(|bits| [bits & 3, bits >> 2 & 3, bits >> 4 & 3, bits >> 6]);
    let orders: Vec<[usize; 4]> = orders.filter(|order| (0..4).all(|at| order.contains(&at))).collect();
    assert_eq!(orders.len(), 24);
    for order in orders {
        let mut tables = Tables::default();
        order.iter().for_each(|at| tables.apply(&changes[*at]));
        let present = |tables: &Tables| tables.app(&path("/web")).cloned();
        assert_eq!(present(&tables).as_ref(), Some(third), "{order:?}");
        tables.apply(&Change::Delete(RecordKey::Definition(path("/web"), third.version)));
        assert_eq!(present(&tables).as_ref(), Some(second), "{order:?}");
        tables.apply(&Change::Delete(RecordKey::App(path("/web"))));
        assert_eq!(present(&tables), None, "{order:?}");
    }
}

#[test]
fn what_is_killed_is_counted_by_whether_it_had_started() {
    let killing = |world: &World| world.tables().tallies.get(&path("/web")).map(|tally| tally.killed());
    let check = |told: &[TaskState], expected: (u32, u32)| {
        let mut world = World::new();
        world.create(web(told.len() as u32)).unwrap();
        let launches = world.offer("a", 10, 10_000);
        for (launch, state) in launches.iter().zip(told) {
            world.status(&launch.task, *state);
        }
        assert_eq!(killing(&world), Some((0, 0)), "{told:?}");
        launches.iter().for_each(|launch| _ = world.status(&launch.task, TaskState::Killing));
        assert_eq!(killing(&world), Some(expected), "{told:?}");
        world.restart();
        assert_eq!(killing(&world), Some(expected), "{told:?}, after a restart");
        launches.iter().for_each(|launch| _ = world.status(&launch.task, TaskState::Killed));
        assert_eq!(killing(&world), Some((0, 0)), "{told:?}");
    };
    use TaskState::*;
    check(&[Running, Staging], (1, 1));
    check(&[Running, Running, Running], (0, 3));
    check(&[Staging, Starting, Running], (2, 1));
}

// === Who may what ===

/// What is wrong with a request, each limit a line.
fn refused(outcome: Result<Reply, RequestError>) -> String {
    match outcome {
        Ok(_) => "accepted".into(),
        Err(RequestError::Invalid(found)) => found.iter().map(|one| format!("{}: {}", one.path, one.text)).collect::<Vec<_>>().join("\n"),
        Err(other) => other.to_string(),
    }
}

#[test]
fn a_quota_bounds_the_sum_of_what_a_user_has() {
    let mut world = World::new();
    let limits = Quota { cpus: Some(Scalar::whole(2)), mem: Some(Scalar::whole(100)), instances: Some(3), ..Quota::default() };
    world.quota("ann", limits);
    let app = |id: &str, instances: u32| json!({"id": id, "cmd": "x", "cpus": 0.5, "mem": 20, "instances": instances});
    assert_eq!(refused(world.create_by("ann", app("/one", 2))), "accepted");
    insta::assert_snapshot!(refused(world.create_by("ann", json!({"id": "/two", "cmd": "x", "cpus": 1.5, "mem": 80, "instances": 2}))), @r"
    /cpus: the quota of user 'ann' is 2 CPUs in all: 1 are in use, and with this it would be 4
    /mem: the quota of user 'ann' is 100 MiB of memory in all: 40 are in use, and with this it would be 200
    /instances: the quota of user 'ann' is 3 instances in all: 2 are in use, and with this it would be 4
    ");
    assert_eq!(refused(world.create_by("ann", app("/two", 1))), "accepted");
    assert!(refused(world.update_by("ann", "/two", json!({"instances": 2}))).starts_with("/instances: "));
    // Room is made by going down, and by destroying; another user has a quota of one's own, and an administrator is not bound.
    assert_eq!(refused(world.update_by("ann", "/one", json!({"instances": 1}))), "accepted");
    assert_eq!(refused(world.update_by("ann", "/two", json!({"instances": 2}))), "accepted");
    assert_eq!(refused(world.create_by("bob", app("/bob", 50))), "accepted");
    assert_eq!(refused(world.update("/two", json!({"instances": 20}), true)), "accepted");
    // Above the limit one can still go down, and change what takes nothing.
    assert_eq!(refused(world.update_by("ann", "/two", json!({"instances": 10}))), "accepted");
    assert_eq!(refused(world.update_by("ann", "/two", json!({"labels": {"a": "b"}}))), "accepted");
    assert!(refused(world.update_by("ann", "/two", json!({"instances": 11}))).starts_with("/cpus: "));
    assert_eq!(refused(world.request_by("ann", Request::DeleteApp { app: path("/two"), force: true })), "accepted");
    assert_eq!(refused(world.create_by("ann", app("/three", 2))), "accepted");
}

#[test]
fn kept_ports_and_bricks_count_until_they_are_released() {
    let mut world = World::new();
    world.quota("ann", Quota { ports: Some(1), brick: Some(100), ..Quota::default() });
    let app = |id: &str, size: u64| {
        json!({"id": id, "cmd": "x", "env": {"P": "@PORT"},
            "container": {"type": "MESOS", "volumes": [{"containerPath": "/d", "mode": "RW", "brick": {"size": size}}]}})
    };
    assert_eq!(refused(world.create_by("ann", app("/one", 60))), "accepted");
    insta::assert_snapshot!(refused(world.create_by("ann", app("/two", 60))), @r"
    /container/volumes: the quota of user 'ann' is 100 MiB of bricks in all: 60 are in use, and with this it would be 120
    /: the quota of user 'ann' is 1 claimed ports in all: 1 are in use, and with this it would be 2
    ");
    assert_eq!(refused(world.request_by("ann", Request::DeleteApp { app: path("/one"), force: true })), "accepted");
    assert!(refused(world.create_by("ann", app("/two", 60))).starts_with("/container/volumes: "));
    // What was kept is used again without counting twice, and may grow as far as the quota goes.
    assert_eq!(refused(world.create_by("ann", app("/one", 100))), "accepted");
    assert!(refused(world.update_by("ann", "/one", app("/one", 101))).starts_with("/container/volumes: "));
}

#[test]
fn sums_are_the_same_after_a_restart() {
    let mut world = World::new();
    world.create_by("ann", json!({"id": "/one", "cmd": "x", "cpus": 0.5, "mem": 20, "instances": 3})).unwrap();
    world.create_by("bob", json!({"id": "/two", "cmd": "x", "env": {"P": "@PORT"}})).unwrap();
    let before = world.tables().holdings.clone();
    assert_eq!(before.len(), 2);
    world.restart();
    assert_eq!(world.tables().holdings, before);
}

#[test]
fn instances_of_a_destroyed_app_are_still_their_owners() {
    let mut world = World::new();
    world.create_by("ann", json!({"id": "/db", "cmd": "x", "env": {"PASSWORD": "s3cret"}})).unwrap();
    let task = world.offer("a", 4, 4096)[0].task.clone();
    world.status(&task, TaskState::Running);
    world.request_by("ann", Request::DeleteApp { app: path("/db"), force: true }).unwrap();
    let owner = Owner::new("ann");
    assert_eq!(world.tables().owner_of(&path("/db")), Some(&owner));
    world.restart();
    assert_eq!(world.tables().owner_of(&path("/db")), Some(&owner));
    assert_eq!(refused(world.create_by("bob", json!({"id": "/db", "cmd": "x"}))), "An app with id [/db] already exists.");
    let events = world.status(&task, TaskState::Killed).events;
    assert!(events.len() >= 4, "{events:?}");
    for event in events {
        assert_eq!(event.audience, Audience::Owners(vec![owner.clone()]), "{}", event.kind());
    }
    assert_eq!(world.tables().owner_of(&path("/db")), None);
    assert_eq!(refused(world.create_by("bob", json!({"id": "/db", "cmd": "x"}))), "accepted");
}

#[test]
fn the_owners_account_is_asked_unless_an_administrator_wrote_the_volumes() {
    let mut world = World::new();
    let app = |path: &str| json!({"id": "/a", "cmd": "x", "container": {"type": "MESOS", "volumes": [{"hostPath": path, "containerPath": "/x", "mode": "RO"}]}});
    // Whose account the next launches ask for; what is replaced ends.
    let asked = |world: &mut World| {
        let mut accounts = Vec::new();
        for _ in 0..10 {
            for launch in world.offer("a", 16, 16_384) {
                accounts.push(launch.account.clone().map(|account| account.to_string()));
                world.status(&launch.task, TaskState::Running);
            }
            world.kills().iter().for_each(|task| _ = world.status(task, TaskState::Killed));
        }
        accounts.dedup();
        assert_eq!(accounts.len(), 1, "{accounts:?}");
        accounts.remove(0)
    };
    world.create_by("ann", app("/srv/a")).unwrap();
    assert_eq!(asked(&mut world), Some("ann".into()));
    // Who restarts or resizes a user's app does not answer for what the user wrote in it.
    for change in [json!({"instances": 2}), json!({"labels": {"a": "b"}, "instances": 3})] {
        world.update("/a", change, true).unwrap();
        assert_eq!(asked(&mut world), Some("ann".into()));
    }
    world.update("/a", app("/srv/b"), true).unwrap();
    assert_eq!(asked(&mut world), None);
    // Nor does an old version of the user's become an administrator's by being taken up again.
    let first = world.tables().versions_of(&path("/a")).next().unwrap().version;
    world.update("/a", json!({"version": first.to_string()}), true).unwrap();
    assert_eq!(asked(&mut world), Some("ann".into()));
    let change = UserChange { grants: Some(Grants { host_volumes: true, ..Grants::default() }), ..UserChange::default() };
    world.request(Request::PutUser { name: Owner::new("ann"), change }).unwrap();
    world.update("/a", app("/srv/c"), true).unwrap();
    world.update_by("ann", "/a", app("/srv/d")).unwrap();
    assert_eq!(asked(&mut world), None);
}

#[test]
fn a_definition_is_administered_while_nobody_but_administrators_wrote_it() {
    let mut world = World::new();
    let administered = |world: &World, app: &str| world.tables().app(&path(app)).unwrap().administered;
    world.create_by("ann", json!({"id": "/a", "cmd": "x"})).unwrap();
    assert!(!administered(&world, "/a"));
    // Laid over what a user wrote; unless it says as whom that shall run.
    world.update("/a", json!({"env": {"A": "b"}}), true).unwrap();
    assert!(!administered(&world, "/a"));
    let users = world.tables().app(&path("/a")).unwrap().version;
    world.update("/a", json!({"user": "postgres"}), true).unwrap();
    assert!(administered(&world, "/a"));
    world.update("/a", json!({"cmd": "y"}), true).unwrap();
    assert!(administered(&world, "/a"));
    // The user may resize it, and takes it back with anything else; an old version is what it was.
    world.update_by("ann", "/a", json!({"instances": 2})).unwrap();
    assert!(administered(&world, "/a"));
    world.update_by("ann", "/a", json!({"cmd": "z"})).unwrap();
    assert!(!administered(&world, "/a"));
    world.update("/a", json!({"version": users.to_string()}), true).unwrap();
    assert!(!administered(&world, "/a"));
    world.create(json!({"id": "/b", "cmd": "x"})).unwrap();
    assert!(administered(&world, "/b"));
}

#[test]
fn a_number_that_an_administrator_requires_is_claimed() {
    let mut world = World::new();
    let app = |id: &str, port: u16| {
        json!({"id": id, "cmd": "sleep 9", "requirePorts": true, "networks": [{"mode": "host"}], "portDefinitions": [{"port": port}],
               "upgradeStrategy": {"minimumHealthCapacity": 0, "maximumOverCapacity": 0}})
    };
    world.create(app("/registry", 5000)).unwrap();
    assert_eq!(world.tables().ports.keys().copied().collect::<Vec<_>>(), [5000]);
    // It is in no offer, and is given all the same.
    let launch = world.offer("a", 9, 1000).remove(0);
    assert_eq!((launch.ports.as_slice(), launch.resources.ports.len()), ([5000].as_slice(), 0));
    assert!(launch.environment().contains(&("PORT0".into(), "5000".into())), "{:?}", launch.environment());
    // The same again changes nothing; nobody else gets it; another number does not replace it.
    world.status(&launch.task, TaskState::Running);
    world.update("/registry", app("/registry", 5000), false).unwrap();
    let text = |error: RequestError| match error {
        RequestError::Invalid(violations) => violations.into_iter().map(|violation| violation.text).collect::<Vec<_>>().join("; "),
        other => other.to_string(),
    };
    assert_eq!(text(world.create(app("/other", 5000)).unwrap_err()), "port 5000 is claimed by app '/registry'");
    assert_eq!(
        text(world.update("/registry", app("/registry", 5001), true).unwrap_err()),
        "this app has the port 5000 here for good; release it first (DELETE /v2/ports/5000)"
    );
    // Other users' numbers are taken from offers, and the registry is not theirs to write.
    let origin = Origin { user: Owner::new("zmfsea"), admin: false, client_ip: "".into(), uri: "".into() };
    let mut ask = |app: Value| {
        let request = Request::CreateApp { input: AppInput::read(&app).unwrap().into(), force: false };
        world.step(Input::Api(1, origin.clone(), Box::new(request))).replies.pop().unwrap().1
    };
    assert_eq!(ask(app("/sub/registry", 5002)).map(|_| ()), Ok(()));
    assert_eq!(ask(app("/registry", 5002)).map(|_| ()).unwrap_err().to_string(), "An app with id [/registry] already exists.");
    assert_eq!(world.tables().ports.keys().copied().collect::<Vec<_>>(), [5000]);
    world.request(Request::DeleteApp { app: path("/registry"), force: true }).unwrap();
    world.status(&launch.task, TaskState::Killed);
    let again = Request::CreateApp { input: AppInput::read(&app("/registry", 5002)).unwrap().into(), force: false };
    assert_eq!(
        world.step(Input::Api(1, origin, Box::new(again))).replies.pop().unwrap().1.map(|_| ()),
        Err(RequestError::AppExists(path("/registry")))
    );
    // Nor is it theirs before there ever was one.
    let again = Request::CreateApp { input: AppInput::read(&app("/registry", 5002)).unwrap().into(), force: false };
    let origin = Origin { user: Owner::new("zmfsea"), admin: false, client_ip: "".into(), uri: "".into() };
    let reply = World::new().step(Input::Api(1, origin, Box::new(again))).replies.pop().unwrap().1;
    assert_eq!(reply.map(|_| ()), Err(RequestError::Forbidden));
}

#[test]
fn a_command_that_had_a_network_before_that_was_refused_can_be_changed_and_gone_back_to() {
    let mut world = World::new();
    let bridge = json!([{"mode": "container/bridge"}]);
    world.create(json!({"id": "/old", "cmd": "a", "networks": bridge})).unwrap();
    let first = world.tables().app(&path("/old")).unwrap().version;
    world.state.settings.command_networks = false;
    let refused =
        |outcome: Result<Reply, RequestError>| matches!(outcome, Err(RequestError::Invalid(found)) if found[0].path == "/networks");
    assert!(refused(world.create(json!({"id": "/new", "cmd": "a", "networks": bridge}))));
    world.wait(1000);
    for change in [json!({"instances": 0}), json!({"cmd": "b"}), json!({"networks": [{"mode": "host"}], "cmd": "c"})] {
        world.update("/old", change, true).unwrap();
    }
    assert!(refused(world.update("/old", json!({"networks": bridge}), true)));
    world.update("/old", json!({"version": first}), true).unwrap();
    assert_eq!(world.tables().app(&path("/old")).unwrap().cmd.as_deref(), Some("a"));
}
