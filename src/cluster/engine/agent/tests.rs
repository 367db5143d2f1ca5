//! One line a step, `input -> what comes out`, in the words of [`World::step`] and [`World::show`]. Tasks are single letters of half a CPU each, on a node
//! of two; `w` has a network of its own, `x` a brick, `p` is a process; `y` and `z` are the containers of a pod in bridge mode, `h` is its holder;
//! `g` has half a minute to end, by its definition; `!` marks a status that is repeated until it is acknowledged.

use super::*;
use crate::{
    cluster::engine::samples,
    model::{
        app::{App, input::Defaults},
        cluster::PodLaunch,
        pod::{HOLDER, input::PodInput},
    },
};

struct World {
    agent: Agent,
    now: u64,
    uuids: u128,
    offers: Vec<OfferId>,
    statuses: BTreeMap<TaskId, Vec<Uuid>>,
    /// What others listen on. `None`: looks are not answered by themselves.
    in_use: Option<BTreeSet<u16>>,
    /// Offers are shown with their ports.
    shows_ports: bool,
}

fn task(letter: &str) -> TaskId {
    let container = match letter {
        "h" => Some(HOLDER),
        "y" | "z" => Some(letter),
        _ => return samples::task(&format!("/{letter}"), 1),
    };
    TaskId { container: container.map(Into::into), ..samples::task("/pod", 1) }
}

fn letter(task: &TaskId) -> String {
    match task.container.as_deref() {
        Some(HOLDER) => "h".to_owned(),
        Some(container) => container.to_owned(),
        None => task.instance.app().as_str()[1..].to_owned(),
    }
}

fn pod() -> App {
    let container = |name: &str| serde_json::json!({"name": name, "resources": {"cpus": 0.5}, "image": {"kind": "DOCKER", "id": "i"}});
    let pod = serde_json::json!({"id": "/pod", "networks": [{"mode": "container/bridge"}], "containers": [container("y"), container("z")]});
    PodInput::read(&pod).unwrap().complete(&"/pod".parse().unwrap(), &Defaults::default()).unwrap()
}

fn exit(code: i64) -> Seen {
    Seen::Ended(Exit { code, ..Exit::default() })
}

fn seen(text: &str) -> Seen {
    match text {
        "created" => Seen::Created,
        "running" => Seen::Running { addresses: Vec::new() },
        "killed" => Seen::Ended(Exit { code: 137, killed: true, ..Exit::default() }),
        code => exit(code.parse().unwrap()),
    }
}

/// `a:running`; `a:running:100/3000`: it was asked to end 100 ms ago, with 3 s for it.
fn found(text: &str) -> Found {
    let (name, state) = text.split_once(':').unwrap();
    let (state, asked) = state.split_once(':').map_or((state, None), |(state, asked)| (state, asked.split_once('/')));
    let asked = asked.map(|(ago, grace)| Asked { ago_ms: ago.parse().unwrap(), grace_ms: grace.parse().unwrap() });
    let launch = samples::launch(&format!("/{name}"), 1);
    let runner = if name == "p" { Runner::Process } else { Runner::Docker };
    let holding = Holding {
        resources: launch.resources,
        gpus: vec![],
        ports: vec![],
        host_network: name != "w",
        bricks: name == "x",
        runner,
        in_pod: matches!(name, "y" | "z"),
        overhead: Resources::default(),
        mem_limit: None,
        kill_grace_ms: (name == "g").then_some(30_000),
    };
    Found { task: task(name), holding, state: seen(state), asked }
}

impl World {
    fn new() -> Self {
        let total = Resources {
            cpus: Scalar::whole(2),
            mem: Scalar::whole(1000),
            ports: vec![crate::model::resources::PortRange::new(31000, 31009)],
            ..Resources::default()
        };
        let node = Node {
            id: AgentId::new("A"),
            host: "node1".into(),
            addresses: vec!["10.0.0.5".parse().unwrap()],
            total,
            attributes: Vec::new(),
            region: None,
            zone: None,
            framework_id: "F".into(),
            master: "docker@node1".into(),
            kill_grace_ms: 10_000,
            task_killing: false,
            may_have_containers: true,
        };
        let (offers, statuses) = (Vec::new(), BTreeMap::new());
        Self { agent: Agent::new(node), now: 0, uuids: 0, offers, statuses, in_use: Some(BTreeSet::new()), shows_ports: false }
    }

    fn with<T>(&mut self, step: impl FnOnce(&mut Agent, &mut Ctx) -> T) -> T {
        let uuids = &mut self.uuids;
        let mut uuid = || {
            *uuids += 1;
            Uuid::from_u128(*uuids)
        };
        step(&mut self.agent, &mut Ctx { now: Instant(self.now), wall: Timestamp(0), uuid: &mut uuid })
    }

    fn call(&mut self, call: ClusterCall) -> Vec<Action> {
        self.with(|agent, ctx| agent.call(call, ctx))
    }

    fn report(&mut self, report: Report) -> Vec<Action> {
        self.with(|agent, ctx| agent.report(report, ctx))
    }

    fn step(&mut self, words: &[&str]) -> Vec<Action> {
        let launch = |name: &&str| {
            let mut launch = samples::launch(&format!("/{name}"), 1);
            if matches!(*name, "y" | "z") {
                launch.task = task(name);
                launch.pod = Some(Arc::new(PodLaunch { app: Arc::new(pod()), ports: Vec::new(), container_ports: Vec::new() }));
            }
            if *name == "g" {
                Arc::make_mut(&mut launch.app).kill_grace_ms = Some(30_000);
            }
            if *name == "p" {
                Arc::make_mut(&mut launch.app).container = None;
            }
            launch
        };
        let launches = |names: &[&str]| names.iter().map(launch).collect::<Vec<_>>();
        let last = || self.offers.last().cloned().unwrap_or_else(|| OfferId::new("none"));
        let brick = || BrickName::new("brick");
        match words {
            ["list", items @ ..] => self.report(Report::Listed(items.iter().map(|item| found(item)).collect())),
            ["list-processes", items @ ..] => {
                let found = items.iter().map(|item| found(item)).collect();
                self.report(Report::ListedWithoutDocker { found, reason: "no socket".into() })
            }
            ["lost"] => self.report(Report::Lost { reason: "gone".into() }),
            ["accept", names @ ..] => self.call(ClusterCall::Accept { offer: last(), launches: launches(names) }),
            ["accept-first", names @ ..] => self.call(ClusterCall::Accept { offer: self.offers[0].clone(), launches: launches(names) }),
            ["accept-unknown", names @ ..] => self.call(ClusterCall::Accept { offer: OfferId::new("?"), launches: launches(names) }),
            ["decline", ms] => self.call(ClusterCall::Decline { offers: vec![last()], refuse_ms: ms.parse().unwrap() }),
            ["revive"] => self.call(ClusterCall::Revive),
            ["suppress"] => self.call(ClusterCall::Suppress),
            ["teardown"] => self.call(ClusterCall::Teardown),
            ["kill", name] => self.call(ClusterCall::Kill { task: task(name), agent: None, grace_ms: None }),
            ["kill", name, ms] => self.call(ClusterCall::Kill { task: task(name), agent: None, grace_ms: Some(ms.parse().unwrap()) }),
            ["ack", name] => {
                let uuids = self.statuses.remove(&task(name)).unwrap_or_default();
                let acknowledge = |uuid| ClusterCall::Acknowledge { task: task(name), agent: AgentId::new("A"), uuid };
                uuids.into_iter().flat_map(|uuid| self.call(acknowledge(uuid))).collect()
            }
            ["reconcile", names @ ..] => {
                let agent = |name: &str| AgentId::new(if name.ends_with('\'') { "other" } else { "A" });
                let asked = names.iter().map(|name| TaskRef { task: task(name.trim_end_matches('\'')), agent: Some(agent(name)) });
                self.call(ClusterCall::Reconcile { tasks: asked.collect(), others: true })
            }
            ["release", name] => {
                self.call(ClusterCall::ReleaseBrick { brick: brick(), epoch: 7, agent: AgentId::new("A"), task: task(name) })
            }
            ["released", "ok"] => self.report(Report::Released { brick: brick(), epoch: 7, outcome: Ok(()) }),
            ["released", reason] => self.report(Report::Released { brick: brick(), epoch: 7, outcome: Err((*reason).to_owned()) }),
            ["progress", name, message] => self.report(Report::Progress { task: task(name), message: (*message).to_owned() }),
            ["starting", name] => self.report(Report::Starting { task: task(name) }),
            ["started", name, state] => self.report(Report::Started { task: task(name), seen: seen(state) }),
            ["refused", name] => self.report(Report::Refused { task: task(name), state: TaskState::Failed, message: "no image".into() }),
            ["cancelled", name] => self.report(Report::Cancelled { task: task(name) }),
            ["died", name] => self.report(Report::Died { task: task(name), exit: None }),
            ["died", name, code] => {
                self.report(Report::Died { task: task(name), exit: Some(Exit { code: code.parse().unwrap(), ..Exit::default() }) })
            }
            ["oom", name] => self.report(Report::OutOfMemory { task: task(name) }),
            ["inspected", name, "gone"] => self.report(Report::Inspected { task: task(name), seen: None }),
            ["inspected", name, state] => self.report(Report::Inspected { task: task(name), seen: Some(seen(state)) }),
            ["signalled", name, signal, outcome] => {
                let signal = if *signal == "stop" { Signal::Stop { grace_ms: 0 } } else { Signal::Kill };
                self.report(Report::Signalled { task: task(name), signal, delivered: *outcome == "ok" })
            }
            ["removed", name] => self.report(Report::Removed { task: task(name), gone: true }),
            ["not-removed", name] => self.report(Report::Removed { task: task(name), gone: false }),
            ["in-use", ports @ ..] => self.report(Report::PortsInUse(Some(ports.iter().map(|port| port.parse().unwrap()).collect()))),
            ["cannot-look"] => self.report(Report::PortsInUse(None)),
            ["at", ms] => {
                self.now = ms.parse().unwrap();
                Vec::new()
            }
            other => panic!("no such step: {other:?}"),
        }
    }

    /// A step and all that follows from it.
    fn run(&mut self, line: &str) -> String {
        let mut actions = self.step(&line.split_whitespace().collect::<Vec<_>>());
        actions.extend(self.with(|agent, ctx| agent.advance(ctx)));
        actions.extend(self.with(|agent, ctx| agent.offer(ctx)));
        if let Some(in_use) = self.in_use.clone().filter(|_| actions.last() == Some(&Action::LookAtPorts)) {
            actions.pop();
            actions.extend(self.report(Report::PortsInUse(Some(in_use))));
            actions.extend(self.with(|agent, ctx| agent.offer(ctx)));
        }
        actions.into_iter().map(|action| self.show(action)).collect::<Vec<_>>().join(", ")
    }

    fn show(&mut self, action: Action) -> String {
        match action {
            Action::Tell(ClusterEvent::Connected { .. }) => "connected".to_owned(),
            Action::Tell(ClusterEvent::Disconnected { .. }) => "disconnected".to_owned(),
            Action::Tell(ClusterEvent::Offers(offers)) => {
                self.offers.push(offers[0].id.clone());
                let ports: Vec<String> = offers[0].resources.ports.iter().map(ToString::to_string).collect();
                let ports = if self.shows_ports { format!(" of {}", ports.join(" ")) } else { String::new() };
                format!("offer {}{ports}", offers[0].resources.cpus)
            }
            Action::Tell(ClusterEvent::Rescinded(_)) => "rescind".to_owned(),
            Action::Tell(ClusterEvent::Status(status)) => {
                if let Some(uuid) = status.uuid {
                    let known = self.statuses.entry(status.task.clone()).or_default();
                    known.retain(|other| *other != uuid);
                    known.push(uuid);
                }
                let mark = if status.uuid.is_some() { "!" } else { "" };
                let reason = if status.reason == Reason::Reconciliation { "?" } else { "" };
                format!("{}{mark}{reason} {}", &status.state.as_str()[5..], letter(&status.task))
            }
            Action::Tell(ClusterEvent::Brick(report)) => match report {
                BrickReport::Released { .. } => "released".to_owned(),
                BrickReport::Stuck { .. } => "stuck".to_owned(),
                other => format!("{other:?}"),
            },
            Action::Tell(other) => format!("{other:?}"),
            Action::Launch(launch) => format!("launch {}", letter(&launch.task)),
            Action::Cancel(task) => format!("cancel {}", letter(&task)),
            Action::Signal(task, Signal::Stop { .. }) => format!("stop {}", letter(&task)),
            Action::Signal(task, Signal::Kill) => format!("force {}", letter(&task)),
            Action::Inspect(task) => format!("look {}", letter(&task)),
            Action::Remove { task, .. } => format!("remove {}", letter(&task)),
            Action::Follow(task) => format!("follow {}", letter(&task)),
            Action::Release { .. } => "unmount".to_owned(),
            Action::Destroy { .. } => "destroy".to_owned(),
            Action::LookAtPorts => "ports?".to_owned(),
        }
    }
}

fn check(script: &str) {
    check_in(World::new(), script);
}

fn check_in(mut world: World, script: &str) {
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (input, expected) = line.split_once("->").unwrap();
        assert_eq!(world.run(input), expected.trim(), "at: {line}");
    }
}

#[test]
fn a_task_is_launched_runs_ends_and_gives_back_what_it_held() {
    check(
        "
        list                -> connected, offer 2
        accept a            -> launch a, offer 1.5
        starting a          -> STARTING! a
        started a running   -> follow a, RUNNING! a
        ack a               ->
        died a              -> look a
        inspected a 3       -> FAILED! a
        ack a               -> remove a, rescind, offer 2
        removed a           ->
        reconcile a         -> GONE? a
    ",
    );
}

#[test]
fn a_launch_on_an_offer_that_is_not_known_is_dropped() {
    check(
        "
        list                -> connected, offer 2
        accept-unknown a    -> DROPPED a
        accept a b c d      -> launch a, launch b, launch c, launch d, offer 0
        accept a            -> offer 0
        accept-first e      -> DROPPED e
        lost                -> disconnected
        accept e            -> DROPPED e
    ",
    );
}

#[test]
fn an_offer_that_was_replaced_is_honoured_while_its_resources_are_free() {
    check(
        "
        list a:running b:running c:running -> connected, follow a, follow b, follow c, offer 0.5
        died a              -> look a
        inspected a 0       -> FINISHED! a
        ack a               -> remove a, rescind, offer 1
        accept-first d e f  -> launch d, launch e, DROPPED f, rescind, offer 0
    ",
    );
}

#[test]
fn what_is_refused_is_withheld_until_its_time_or_until_there_is_more() {
    check(
        "
        list b:running      -> connected, follow b, offer 1.5
        decline 5000        ->
        at 4999             ->
        at 5000             -> offer 1.5
        decline 0           ->
        at 5999             ->
        at 6000             -> offer 1.5
        decline 60000       ->
        revive              -> offer 1.5
        decline 60000       ->
        inspected b 0       -> FINISHED! b
        ack b               -> remove b, offer 2
        decline 60000       ->
        suppress            ->
        at 70000            ->
        revive              -> offer 2
    ",
    );
}

#[test]
fn what_others_listen_on_is_not_offered() {
    let world = || World { in_use: None, shows_ports: true, ..World::new() };
    // It is looked before an offer is made, and not again for one that follows soon.
    check_in(
        world(),
        "
        list b:running      -> connected, follow b, ports?
        accept-unknown a    -> DROPPED a
        in-use 31000 31004  -> offer 1.5 of 31001-31003 31005-31009
        accept a            -> launch a, offer 1 of 31001-31003 31005-31009
        at 1000             ->
        refused a           -> FAILED! a
        ack a               -> ports?
        in-use 31000        -> rescind, offer 1.5 of 31001-31009
    ",
    );
    // What was refused is offered as soon as others have left a port, and not for one that they take.
    check_in(
        world(),
        "
        list                -> connected, ports?
        in-use 31000 31001  -> offer 2 of 31002-31009
        decline 120000      ->
        at 9999             ->
        at 10000            -> ports?
        in-use 31000 31001 31002 ->
        at 20000            -> ports?
        in-use              -> offer 2 of 31000-31009
        decline 120000      ->
        at 60000            ->
        suppress            ->
        revive              -> ports?
        in-use 31005        -> offer 2 of 31000-31004 31006-31009
        at 70000            -> ports?
        in-use              -> rescind, offer 2 of 31000-31009
        at 90000            ->
    ",
    );
    // A look that does not end, or cannot be had, keeps nothing back for long.
    check_in(
        world(),
        "
        list                -> connected, ports?
        at 1999             ->
        at 2000             -> offer 2 of 31000-31009
        in-use 31009        -> rescind, offer 2 of 31000-31008
        at 4000             ->
        accept a            -> launch a, ports?
        cannot-look         -> offer 1.5 of 31000-31008
    ",
    );
}

#[test]
fn a_status_is_repeated_until_it_is_acknowledged() {
    check(
        "
        list                -> connected, offer 2
        accept a            -> launch a, offer 1.5
        starting a          -> STARTING! a
        at 5000             ->
        started a running   -> follow a, RUNNING! a
        at 9999             ->
        at 10000            -> STARTING! a, RUNNING! a
        at 19999            ->
        at 20000            -> STARTING! a, RUNNING! a
        ack a               ->
        at 30000            ->
        inspected a 0       -> FINISHED! a
        at 39999            ->
        at 40000            -> FINISHED! a
    ",
    );
}

#[test]
fn progress_is_told_and_only_its_first_word_is_repeated() {
    check(
        "
        list                -> connected, offer 2
        accept a            -> launch a, offer 1.5
        progress a pulling  -> STAGING! a
        progress a more     -> STAGING a
        starting a          -> STARTING! a
        progress a late     ->
        refused a           -> FAILED! a
        ack a               -> rescind, offer 2
    ",
    );
}

#[test]
fn a_kill_waits_for_its_grace_and_then_repeats_itself() {
    check(
        "
        list a:running      -> connected, follow a, offer 1.5
        kill a 3000         -> stop a
        kill a 3000         ->
        signalled a stop ok ->
        at 2999             ->
        at 3000             -> force a
        at 13000            -> force a
        signalled a kill no ->
        at 14000            -> force a
        inspected a 137     -> KILLED! a
        at 23999            ->
        kill a              -> KILLED! a
    ",
    );
}

#[test]
fn the_grace_begins_when_the_signal_was_delivered() {
    check(
        "
        list a:running      -> connected, follow a, offer 1.5
        kill a 3000         -> stop a
        lost                -> disconnected
        signalled a stop no ->
        at 1000             -> stop a
        at 30000            ->
        signalled a stop ok ->
        at 32999            ->
        at 33000            -> force a
    ",
    );
}

#[test]
fn a_grace_goes_on_over_a_restart() {
    check(
        "
        list a:running:100/3000 b:running:3000/3000 -> connected, follow a, follow b, force b, offer 1
        kill a 3000         ->
        at 2899             ->
        at 2900             -> force a
        inspected a 143     -> KILLED! a
        inspected b 137     -> KILLED! b
    ",
    );
    // Whoever asks again may ask for less, and nobody gets more than what there was.
    check(
        "
        list a:running:0/60000 b:3:0/60000 -> connected, follow a, follow b, FAILED! b, offer 1
        list a:running:0/60000 b:3:0/60000 ->
        kill a 1000         ->
        at 1000             -> force a
    ",
    );
    check(
        "
        list p:running:5000/60000 -> connected, follow p, offer 1.5
        at 54999            ->
        at 55000            -> force p
    ",
    );
}

#[test]
fn how_long_a_task_may_take_is_told_with_the_signal() {
    let check = |kill: &[&str], grace_ms: u64| {
        let stop = [Action::Signal(task(kill[1]), Signal::Stop { grace_ms })];
        let mut adopted = World::new();
        adopted.step(&["list", "a:running", "g:running"]);
        assert_eq!(adopted.step(kill), stop, "{kill:?}");
        let mut launched = World::new();
        for line in ["list", "accept a g", "started a running", "started g running"] {
            launched.run(line);
        }
        assert_eq!(launched.step(kill), stop, "{kill:?}");
    };
    // What the kill says, else the definition, else the node.
    check(&["kill", "g", "3000"], 3_000);
    check(&["kill", "g"], 30_000);
    check(&["kill", "a"], 10_000);
}

#[test]
fn a_later_kill_may_shorten_the_grace() {
    check(
        "
        list a:running      -> connected, follow a, offer 1.5
        kill a 60000        -> stop a
        signalled a stop ok ->
        kill a 0            -> force a
    ",
    );
}

#[test]
fn a_kill_during_a_launch_cancels_it_or_meets_it_when_it_is_up() {
    check(
        "
        list                -> connected, offer 2
        accept a b          -> launch a, launch b, offer 1
        kill a              -> cancel a
        cancelled a         -> KILLED! a
        kill b              -> cancel b
        started b running   -> follow b, RUNNING! b, stop b
    ",
    );
}

#[test]
fn a_kill_of_an_unknown_task_is_answered_once_everything_is_known() {
    check(
        "
        kill a              ->
        list                -> connected, offer 2
        kill a              -> KILLED a
    ",
    );
}

#[test]
fn teardown_kills_everything() {
    check(
        "
        list a:running b:running -> connected, follow a, follow b, offer 1
        teardown            -> stop a, stop b
    ",
    );
}

#[test]
fn reconciliation_answers_what_was_asked_and_all_that_is_known() {
    check(
        "
        reconcile a         ->
        list a:running b:3  -> connected, follow a, follow b, FAILED! b, offer 1
        reconcile a c d'    -> GONE? c, UNKNOWN? d, RUNNING? a, FAILED? b
    ",
    );
}

#[test]
fn a_restart_adopts_what_runs_and_reports_what_ended() {
    check("
        list a:running b:0 c:created d:killed -> connected, follow a, follow b, FINISHED! b, remove c, DROPPED! c, follow d, KILLED! d, offer 0
        removed c           ->
        ack b               -> remove b, rescind, offer 0.5
        ack c               -> rescind, offer 1
        ack d               -> remove d, rescind, offer 1.5
    ");
}

#[test]
fn a_restart_of_docker_tells_no_state_before_it_was_looked_at() {
    check(
        "
        list a:running b:running -> connected, follow a, follow b, offer 1
        lost                -> disconnected
        lost                ->
        list a:running b:137 -> connected, FAILED! b, offer 1
        lost                -> disconnected
        list b:137          -> connected, look a, offer 1
        inspected a gone    -> FAILED! a
    ",
    );
}

#[test]
fn a_container_that_ends_while_its_start_is_reported_is_looked_at() {
    check(
        "
        list                -> connected, offer 2
        accept a b          -> launch a, launch b, offer 1
        died a              ->
        started a running   -> follow a, RUNNING! a, look a
        inspected a 1       -> FAILED! a
        started b 0         -> follow b, RUNNING! b, FINISHED! b
    ",
    );
}

#[test]
fn an_end_is_told_at_once_where_docker_has_nothing_left_to_give_back() {
    check(
        "
        list a:running b:running w:running x:running -> connected, follow a, follow b, follow w, follow x, offer 0
        died a 137          -> FAILED! a
        died a 137          ->
        kill b              -> stop b
        died b 0            -> KILLED! b
        died w 137          -> look w
        died x 137          -> look x
        inspected w 137     -> FAILED! w
        inspected x 0       -> FINISHED! x
    ",
    );
}

#[test]
fn a_listing_cannot_bring_back_what_was_told_to_be_over() {
    check(
        "
        list                -> connected, offer 2
        accept a b          -> launch a, launch b, offer 1
        refused a           -> FAILED! a
        list a:running b:created -> remove a
        ack a               -> rescind, offer 1.5
        list a:running b:created -> remove a
        started b running   -> follow b, RUNNING! b
        list b:running      ->
        ack b               ->
        list b:5            -> FAILED! b
        list b:5            ->
        ack b               -> remove b, rescind, offer 2
        not-removed b       ->
        list b:5            -> remove b
        list                ->
        reconcile b         -> GONE? b
    ",
    );
}

#[test]
fn a_brick_is_released_when_its_holder_is_gone() {
    check(
        "
        release a           ->
        list a:running      -> connected, follow a, stuck, offer 1.5
        release a           ->
        inspected a 0       -> FINISHED! a, unmount
        release a           ->
        released busy       -> stuck
        at 1999             ->
        at 2000             -> unmount
        released busy       ->
        lost                -> disconnected
        at 4000             ->
        list a:0            -> connected, unmount, offer 1.5
        released ok         -> released
        release b           -> unmount
    ",
    );
    // What an instance of a pod has is mounted by any of its containers.
    check(
        "
        list h:running y:running z:running -> connected, follow y, follow z, offer 1
        release h           -> stuck
        inspected z 3       -> FAILED! z
        inspected y 143     -> remove h
        removed h           -> FAILED! y, unmount
        released ok         -> released
    ",
    );
}

#[test]
fn the_words_of_an_end_say_what_happened() {
    let check = |exit: Exit, state: TaskState, expected: &str| {
        assert_eq!(verdict(&exit, ResourceLimit::At(Scalar::whole(128))), (state, expected.to_owned()))
    };
    let code = |code: i64| Exit { code, ..Exit::default() };
    check(code(0), TaskState::Finished, "Container exited with status 0");
    check(code(3), TaskState::Failed, "Container exited with status 3");
    check(code(143), TaskState::Failed, "Container exited with status 143 (signal 15, SIGTERM)");
    check(Exit { killed: true, ..code(0) }, TaskState::Killed, "Container exited with status 0");
    check(
        Exit { oom: true, ..code(137) },
        TaskState::Failed,
        "Container exited with status 137 (signal 9, SIGKILL): out of memory, the limit is 128 MiB; give it more memory",
    );
    check(Exit { error: "no shim".into(), ..code(255) }, TaskState::Failed, "Container exited with status 255: no shim");
}

#[test]
fn a_kernel_that_kills_for_memory_is_named() {
    let mut world = World::new();
    for line in ["list a:running", "oom a"] {
        world.step(&line.split(' ').collect::<Vec<_>>());
    }
    let actions = world.step(&["inspected", "a", "137"]);
    let Some(Action::Tell(ClusterEvent::Status(status))) = actions.first() else { panic!("{actions:?}") };
    assert!(status.message.contains("out of memory, the limit is 64 MiB"), "{}", status.message);
    assert_eq!(status.reason, Reason::MemoryLimit);
    assert_eq!(status.addresses, ["10.0.0.5".parse::<IpAddr>().unwrap()]);
}

#[test]
fn that_a_task_is_being_ended_is_told_when_it_is_to_be() {
    for (told, expected) in [(false, "stop a"), (true, "KILLING! a, stop a")] {
        let mut world = World::new();
        world.agent.node.task_killing = told;
        world.step(&["list", "a:running"]);
        let actions = world.step(&["kill", "a"]);
        let shown: Vec<String> = actions.into_iter().map(|action| world.show(action)).collect();
        assert_eq!(shown.join(", "), expected);
    }
}

#[test]
fn without_docker_processes_run_and_nothing_is_said_of_containers() {
    check(
        "
        list-processes      -> connected, offer 2
        accept a p          -> FAILED! a, launch p, offer 1
        ack a               -> rescind, offer 1.5
        started p running   -> follow p, RUNNING! p
        ack p               ->
        reconcile b p       -> RUNNING? p
        kill b              ->
        list-processes p:running ->
        list p:running b:running -> disconnected, connected, follow b, offer 1
        reconcile c         -> GONE? c, RUNNING? b, RUNNING? p
        lost                -> disconnected
        list-processes p:running -> connected, offer 1
        list-processes      -> look p
        reconcile b         -> RUNNING? b, RUNNING? p
    ",
    );
}

#[test]
fn the_end_of_a_command_is_told_in_mesos_words() {
    let check = |exit: Exit, expected: &str| {
        let (state, message) = verdict(&Exit { runner: Runner::Process, ..exit }, ResourceLimit::At(Scalar::whole(64)));
        assert_eq!(format!("{} {message}", state.as_str()), expected);
    };
    check(Exit::default(), "TASK_FINISHED Command exited with status 0");
    check(Exit { code: 3, ..Exit::default() }, "TASK_FAILED Command exited with status 3");
    check(Exit { code: 137, ..Exit::default() }, "TASK_FAILED Command exited with status 137");
    check(Exit { code: 137, signal: Some(9), ..Exit::default() }, "TASK_FAILED Command terminated with signal Killed");
    check(Exit { code: 143, signal: Some(15), killed: true, ..Exit::default() }, "TASK_KILLED Command terminated with signal Terminated");
    check(Exit { code: 0, killed: true, ..Exit::default() }, "TASK_KILLED Command exited with status 0");
    check(Exit { code: 172, signal: Some(44), ..Exit::default() }, "TASK_FAILED Command terminated with signal Unknown signal 44");
    let oom = Exit { code: 137, signal: Some(9), oom: true, ..Exit::default() };
    check(oom, "TASK_FAILED Command terminated with signal Killed: out of memory, the limit is 64 MiB; give it more memory");
    let boundless = Exit { code: 137, oom: true, ..Exit::default() };
    let (_, message) = verdict(&boundless, ResourceLimit::Unlimited);
    assert!(message.ends_with(": out of memory, of which it may have as much as the node has"), "{message}");
    let unseen = Exit { code: -1, error: "the node was restarted".into(), ..Exit::default() };
    check(unseen, "TASK_FAILED The end of the command was not seen: the node was restarted");
}

#[test]
fn the_last_of_a_pod_ends_when_the_holder_is_gone() {
    check(
        "
        list                -> connected, offer 2
        accept y z          -> launch y, launch z, offer 0.9
        started y running   -> follow y, RUNNING! y
        ack y               ->
        started z running   -> follow z, RUNNING! z
        ack z               ->
        died y              -> look y
        inspected y 3       -> FAILED! y
        ack y               -> remove y, rescind, offer 1.5
        removed y           ->
        kill z              -> stop z
        signalled z stop ok ->
        died z              -> look z
        inspected z 143     -> remove h
        kill z              ->
        died h              ->
        not-removed h       ->
        list h:running z:143 -> remove h
        removed h           -> KILLED! z
        removed h           ->
        ack z               -> remove z, rescind, offer 2
    ",
    );
}

#[test]
fn a_pod_that_could_not_be_launched_leaves_no_holder() {
    check(
        "
        list                -> connected, offer 2
        accept y z          -> launch y, launch z, offer 0.9
        refused y           -> FAILED! y
        kill z              -> cancel z
        cancelled z         -> remove h
        removed h           -> KILLED! z
        ack y               -> rescind, offer 1.5
        ack z               -> rescind, offer 2
    ",
    );
}

#[test]
fn pods_are_adopted_and_what_is_left_of_them_removed() {
    check(
        "
        list h:running y:running z:3 -> connected, follow y, follow z, FAILED! z, offer 1
        kill y              -> stop y
        died y              -> look y
        inspected y 143     -> remove h
        list y:143 z:3      -> KILLED! y
    ",
    );
    check("list h:running -> connected, remove h, offer 2");
}

#[test]
fn without_its_holder_a_pod_ends() {
    check(
        "
        list h:running y:running z:running -> connected, follow y, follow z, offer 1
        died h              -> force y, force z
        list y:running z:running -> force y, force z
        list h:137 y:running z:running -> force y, force z
        died y              -> look y
        inspected y 137     -> FAILED! y
        inspected z 137     -> remove h
        removed h           -> FAILED! z
    ",
    );
}
