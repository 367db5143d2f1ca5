//! Where instances go, why they go nowhere, and which of them go first.

use super::*;
use crate::{
    core::{
        AcceptedResourceRoles,
        state::{QueueEntry, Reject},
    },
    model::{
        agent::Attribute,
        instance::{Goal, Instance},
        resources::Reserved,
    },
};

/// An offer of a node with much of everything, changed by words such as `cpus=1`, `ports=31000-31001`, `shop.mem=64` (reserved for a role),
/// `region=eu`, `zone=eu-1` and `rack:r1` (an attribute). The first word is its name.
fn offer(world: &mut World, text: &str) -> Offer {
    world.offers += 1;
    let mut words = text.split_whitespace();
    let name = words.next().unwrap();
    let much = Scalar::whole(1000);
    let mut offer = Offer {
        id: OfferId::new(world.offers.to_string()),
        agent: AgentId::new(name),
        host: format!("{name}.local").into(),
        addresses: vec!["10.0.0.1".parse().unwrap()],
        resources: Resources { cpus: much, mem: much, disk: much, gpus: 0, ports: vec![PortRange::new(31_000, 31_099)] },
        reserved: Vec::new(),
        attributes: Vec::new(),
        region: None,
        zone: None,
    };
    for word in words {
        if let Some((name, value)) = word.split_once(':') {
            offer.attributes.push(Attribute::read(name, value).unwrap());
            continue;
        }
        let (name, value) = word.split_once('=').unwrap();
        let (pool, name) = match name.split_once('.') {
            Some((role, name)) => (reserved(&mut offer.reserved, role), name),
            None => (&mut offer.resources, name),
        };
        match name {
            "cpus" => pool.cpus = Scalar::whole(value.parse().unwrap()),
            "mem" => pool.mem = Scalar::whole(value.parse().unwrap()),
            "disk" => pool.disk = Scalar::whole(value.parse().unwrap()),
            "gpus" => pool.gpus = value.parse().unwrap(),
            "ports" if value == "none" => pool.ports = Vec::new(),
            "ports" => {
                let (begin, end) = value.split_once('-').unwrap();
                pool.ports = vec![PortRange::new(begin.parse().unwrap(), end.parse().unwrap())];
            }
            "region" => offer.region = Some(value.into()),
            "zone" => offer.zone = Some(value.into()),
            other => panic!("no such word: {other}"),
        }
    }
    offer
}

fn reserved<'a>(reserved: &'a mut Vec<Reserved>, role: &str) -> &'a mut Resources {
    if !reserved.iter().any(|one| one.role == role) {
        reserved.push(Reserved { role: role.into(), resources: Resources::default() });
    }
    &mut reserved.iter_mut().find(|one| one.role == role).unwrap().resources
}

/// Offers several nodes at once; tells who is launched where, as `web@a`, and lets them run.
pub(super) fn offers(world: &mut World, nodes: &[&str]) -> String {
    let offers: Vec<Offer> = nodes.iter().map(|node| offer(world, node)).collect();
    let calls = world.cluster(ClusterEvent::Offers(offers)).calls;
    let launches = calls.into_iter().filter_map(|call| if let ClusterCall::Accept { launches, .. } = call { Some(launches) } else { None });
    let launches: Vec<Launch> = launches.flatten().collect();
    run(world, &launches);
    let mut names: Vec<String> = launches.iter().map(|launch| format!("{}@{}", &launch.app.id.as_str()[1..], launch.agent)).collect();
    names.sort();
    names.join(" ")
}

/// A small app with these fields besides.
pub(super) fn small(id: &str, instances: u32, fields: Value) -> Value {
    let mut app = json!({"id": id, "cmd": "sleep 100", "cpus": 1, "mem": 10, "disk": 1, "instances": instances, "portDefinitions": []});
    app.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    app
}

fn entry(world: &World, app: &str) -> Arc<QueueEntry> {
    world.state.view().queue[&path(app)].clone()
}

#[test]
fn an_expression_that_is_given_up_is_not_met_and_says_so() {
    let endless = r"(?:a|a)*(?=b)\bb";
    let value = "a".repeat(200);
    for operator in ["LIKE", "UNLIKE"] {
        let mut world = World::new();
        world.create(small("/web", 1, json!({"constraints": [["rack", operator, endless]]}))).unwrap();
        assert!(offers(&mut world, &[&format!("a rack:{value}")]).is_empty());
        let text =
            format!("the expression '{endless}' of a constraint takes too long to match '{value}', which therefore does not meet it");
        assert_eq!(entry(&world, "/web").undecided, Some(text), "{operator}");
    }
}

#[test]
fn every_reason_is_told_as_marathon_does() {
    let check = |fields: Value, node: &str, expected: &str| {
        let mut world = World::new();
        world.state.local_region = Some("eu".into());
        world.create(small("/web", 1, fields.clone())).unwrap();
        let launched = offers(&mut world, &[&format!("a {node}")]);
        let reasons = if launched.is_empty() {
            let entry = entry(&world, "/web");
            let unused = &entry.last_unused_offers[&AgentId::new("a")];
            assert_eq!((entry.processed, entry.unused, entry.rejected.iter().sum::<u64>()), (1, 1, 1));
            assert_eq!(entry.rejected[*unused.reasons.iter().min().unwrap() as usize], 1, "{fields}");
            unused.reasons.iter().map(|reason| reason.as_str()).collect::<Vec<_>>().join(" ")
        } else {
            launched
        };
        assert_eq!(reasons, expected, "{fields} {node}");
    };
    check(json!({}), "", "web@a");
    check(json!({"cpus": 2}), "cpus=1", "InsufficientCpus");
    check(json!({"mem": 65}), "mem=64", "InsufficientMemory");
    check(json!({"disk": 65}), "disk=64", "InsufficientDisk");
    check(json!({"gpus": 2}), "gpus=1", "InsufficientGpus");
    check(json!({"gpus": 2}), "gpus=2", "web@a");
    check(json!({}), "gpus=1", "DeclinedScarceResources");
    check(json!({"labels": {"GPU_SCHEDULING_BEHAVIOR": "unrestricted"}}), "gpus=1", "web@a");
    check(json!({"labels": {"GPU_SCHEDULING_BEHAVIOR": "whatever"}}), "gpus=1", "DeclinedScarceResources");
    check(json!({"constraints": [["rack", "IS", "r1"]]}), "rack:r2", "UnfulfilledConstraint");
    check(json!({"constraints": [["rack", "IS", "r1"]]}), "rack:r1", "web@a");
    check(json!({"constraints": [["rack", "UNLIKE", "^(?!web).*$"]]}), "rack:db-1", "UnfulfilledConstraint");
    check(json!({"constraints": [["rack", "UNLIKE", "^(?!web).*$"]]}), "rack:web-1", "web@a");
    check(json!({"portDefinitions": [{"port": 0}, {"port": 0}]}), "ports=31000-31000", "InsufficientPorts");
    check(json!({"portDefinitions": [{"port": 31_005}], "requirePorts": true}), "ports=31000-31004", "InsufficientPorts");
    check(json!({"portDefinitions": [{"port": 31_005}]}), "ports=31000-31004", "web@a");
    check(json!({"portDefinitions": [{"port": 0}], "cpus": 2}), "ports=none cpus=1", "InsufficientCpus");
    check(json!({"acceptedResourceRoles": ["*"]}), "", "web@a");
    check(
        json!({"cpus": 2, "mem": 2, "disk": 2, "gpus": 1, "constraints": [["hostname", "UNLIKE", "a.*"]]}),
        "cpus=1 mem=1 disk=1",
        "InsufficientCpus InsufficientMemory InsufficientGpus InsufficientDisk UnfulfilledConstraint",
    );
    check(
        json!({}),
        "cpus=0 mem=0 disk=0 ports=none shop.gpus=1",
        "InsufficientCpus InsufficientMemory InsufficientDisk UnfulfilledRole DeclinedScarceResources",
    );
    // Other regions than the master's are for those who ask.
    check(json!({}), "region=eu zone=eu-1", "web@a");
    check(json!({}), "region=us zone=us-1", "UnfulfilledConstraint");
    check(json!({"constraints": [["@region", "IS", "us"]]}), "region=us zone=us-1", "web@a");
    check(json!({"constraints": [["@zone", "UNIQUE"]]}), "region=us zone=us-1", "web@a");
    check(json!({"constraints": [["@zone", "UNIQUE"]]}), "", "UnfulfilledConstraint");
}

#[test]
fn what_is_reserved_for_the_role_goes_first() {
    use AcceptedResourceRoles::*;
    let check = |default: AcceptedResourceRoles, fields: Value, node: &str, expected: &str| {
        let mut world = World::new();
        world.state.settings.accepted_resource_roles = default;
        let fixed = json!({"role": "shop", "cpus": 4, "portDefinitions": [{"port": 0}]});
        let mut app = small("/shop/web", 1, fixed);
        app.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        world.create(app).unwrap();
        let offer = offer(&mut world, &format!("a {node}"));
        let calls = world.cluster(ClusterEvent::Offers(vec![offer])).calls;
        let launch = calls
            .into_iter()
            .find_map(|call| if let ClusterCall::Accept { launches, .. } = call { launches.into_iter().next() } else { None });
        let found = match launch {
            None => entry(&world, "/shop/web").last_unused_offers[&AgentId::new("a")].reasons.iter().min().unwrap().as_str().to_owned(),
            Some(launch) => {
                let of = |resources: &Resources| format!("{}/{}/{}", resources.cpus, resources.mem, resources.ports.len());
                let reserved = launch.reserved.map_or("-".to_owned(), |reserved| format!("{} {}", reserved.role, of(&reserved.resources)));
                format!("{} of {reserved}", of(&launch.resources))
            }
        };
        assert_eq!(found, expected, "{default:?} {fields} {node}");
    };
    let none = || json!({});
    check(Any, none(), "", "4/10/1 of -");
    check(Any, none(), "shop.cpus=1 shop.mem=4", "4/10/1 of shop 1/4/0");
    check(Any, none(), "cpus=3 shop.cpus=1 shop.mem=64 shop.ports=31500-31500", "4/10/1 of shop 1/10/0");
    check(Any, none(), "ports=none shop.cpus=9 shop.ports=31500-31500", "4/10/1 of shop 4/0/1");
    check(Any, none(), "cpus=3 other.cpus=9", "InsufficientCpus");
    check(Unreserved, none(), "cpus=3 shop.cpus=9", "InsufficientCpus");
    check(Unreserved, none(), "shop.cpus=9", "4/10/1 of -");
    check(Reserved, none(), "shop.cpus=9", "InsufficientMemory");
    check(Reserved, none(), "", "UnfulfilledRole");
    check(Reserved, none(), "shop.cpus=9 shop.mem=64 shop.disk=9 shop.ports=1-5", "4/10/1 of shop 4/10/1");
    check(Any, json!({"acceptedResourceRoles": ["shop"]}), "", "UnfulfilledRole");
    check(Reserved, json!({"acceptedResourceRoles": ["*"]}), "shop.cpus=9", "4/10/1 of -");
    check(Reserved, json!({"acceptedResourceRoles": ["*", "shop"]}), "cpus=3 shop.cpus=2", "4/10/1 of shop 2/0/0");
}

#[test]
fn launches_of_one_round_count_for_the_next_offer() {
    let check = |constraint: Value, expected: &str| {
        let mut world = World::new();
        world.create(small("/web", 6, json!({"constraints": [constraint]}))).unwrap();
        let found = offers(&mut world, &["a rack:r1", "b rack:r1", "c rack:r2", "d"]);
        assert_eq!(found, expected, "{constraint}");
    };
    check(json!(["rack", "UNIQUE"]), "web@a web@c");
    check(json!(["hostname", "UNIQUE"]), "web@a web@b web@c web@d");
    check(json!(["rack", "MAX_PER", "2"]), "web@a web@a web@c web@c");
    check(json!(["rack", "CLUSTER"]), "web@a web@a web@a web@a web@a web@a");
    check(json!(["rack", "CLUSTER", "r2"]), "web@c web@c web@c web@c web@c web@c");
    check(json!(["rack", "GROUP_BY", "2"]), "web@a web@a web@a web@c web@c web@c");
    check(json!(["rack", "UNLIKE", "r."]), "web@d web@d web@d web@d web@d web@d");
}

/// What an offer has left once it was used is not tried for everybody: it comes back, and those who were not asked come first then.
#[test]
fn a_used_offer_is_given_back_after_so_many_misfits() {
    let mut world = World::new();
    world.state.settings.max_running_deployments = 200;
    for number in 0..200 {
        world.create(small(&format!("/app{number:03}"), 1, json!({"cpus": 2}))).unwrap();
    }
    let asked = |world: &World| world.state.view().queue.values().filter(|entry| entry.processed > 0).count();
    assert_eq!(offers(&mut world, &["a cpus=5"]), "app000@a app001@a");
    assert_eq!(asked(&world), 64);
    // A round of another node begins after them; nobody is left out.
    assert_eq!(offers(&mut world, &["b cpus=5"]), "app066@b app067@b");
    assert_eq!(offers(&mut world, &["c cpus=5"]), "app132@c app133@c");
    assert_eq!(offers(&mut world, &["d cpus=5"]), "app198@d app199@d");
    // An offer that nobody can use is tried for all, so that each knows why.
    assert_eq!(offers(&mut world, &["e cpus=1"]), "");
    assert_eq!((asked(&world), world.state.view().queue.len()), (192, 192));
}

/// A new version is placed as if the old one were not there; nothing else is.
#[test]
fn only_the_present_configuration_is_in_the_way() {
    let mut world = World::new();
    world.create(small("/web", 2, json!({"constraints": [["hostname", "UNIQUE"]]}))).unwrap();
    assert_eq!(offers(&mut world, &["a", "b"]), "web@a web@b");
    world.update("/web", json!({"cmd": "sleep 200"}), true).unwrap();
    assert_eq!(offers(&mut world, &["a", "b"]), "web@a web@b");
    world.update("/web", json!({"instances": 3}), true).unwrap();
    assert_eq!(offers(&mut world, &["a", "b"]), "");
    assert_eq!(offers(&mut world, &["c"]), "web@c");
}

#[test]
fn what_is_out_of_reach_is_in_the_way_on_its_own_node_only() {
    let mut world = World::new();
    let unreachable = json!({"inactiveAfterSeconds": 10, "expungeAfterSeconds": 1000});
    world.create(small("/web", 1, json!({"constraints": [["rack", "UNIQUE"]], "unreachableStrategy": unreachable}))).unwrap();
    assert_eq!(offers(&mut world, &["a rack:r1"]), "web@a");
    let task = world.tables().instances.values().next().unwrap().task();
    world.status(&task, TaskState::Unreachable);
    world.wait(11_000);
    assert_eq!(world.conditions("/web"), "Scheduled*1 UnreachableInactive*1");
    assert_eq!(offers(&mut world, &["a rack:r1"]), "");
    assert_eq!(offers(&mut world, &["b rack:r1"]), "web@b");
}

#[test]
fn the_queue_remembers_the_last_unused_offer_of_each_node() {
    let mut world = World::new();
    world.create(small("/web", 9, json!({"cpus": 2}))).unwrap();
    assert_eq!(offers(&mut world, &["a cpus=1", "b cpus=1 mem=1", "c cpus=5"]), "web@c web@c");
    world.now += 1000;
    assert_eq!(offers(&mut world, &["a mem=1"]), "");
    let entry = entry(&world, "/web");
    // Two that were used, three that were not (of one of them the rest), one more.
    assert_eq!((entry.processed, entry.unused), (6, 4));
    let told: Vec<String> = entry
        .last_unused_offers
        .values()
        .map(|unused| format!("{} {} {:?} {}", unused.offer.agent, unused.offer.resources.cpus, unused.reasons, unused.at.0 % 10_000))
        .collect();
    let expected = ["a 1000 [InsufficientMemory] 1000", "b 1 [InsufficientCpus, InsufficientMemory] 0", "c 1 [InsufficientCpus] 0"];
    assert_eq!(told, expected);
    let many: Vec<String> = (0..300).map(|node| format!("n{node} cpus=1")).collect();
    offers(&mut world, &many.iter().map(String::as_str).collect::<Vec<_>>());
    let last = world.state.view().queue[&path("/web")].clone();
    assert_eq!((last.processed, last.last_unused_offers.len()), (306, crate::core::state::MAX_UNUSED_OFFERS));
    assert!(last.last_unused_offers.contains_key(&AgentId::new("n299")));
}

fn victims(world: &mut World) -> String {
    let kills = world.kills();
    let place = |task: &TaskId| world.tables().instances[&task.instance].placement.clone().unwrap().agent;
    let mut agents: Vec<String> = kills.iter().map(|task| place(task).to_string()).collect();
    agents.sort();
    agents.join(" ")
}

#[test]
fn whoever_makes_group_by_more_even_goes_first() {
    let check = |fields: Value, expected: &str| {
        let mut world = World::new();
        world.create(small("/web", 2, fields.clone())).unwrap();
        assert_eq!(offers(&mut world, &["a rack:r1 cpus=1", "b rack:r2 cpus=1"]), "web@a web@b");
        world.wait(1000);
        // Racks become uneven only when the rule comes later.
        world.update("/web", json!({"instances": 4}), true).unwrap();
        assert_eq!(offers(&mut world, &["c rack:r1 cpus=1", "d rack:r1 cpus=1"]), "web@c web@d");
        let config = world.tables().app(&path("/web")).unwrap().clone();
        let mut changed = (*config).clone();
        changed.constraints =
            vec![crate::model::app::Constraint { field: "rack".into(), operator: crate::model::app::Operator::GroupBy, value: None }];
        if fields.get("even").is_some() {
            world.state.apply(&Change::Put(Record::Definition(changed.into())));
        }
        world.calls.clear();
        world.update("/web", json!({"instances": 2}), true).unwrap();
        assert_eq!(victims(&mut world), expected, "{fields}");
    };
    check(json!({}), "c d");
    check(json!({"killSelection": "OLDEST_FIRST"}), "a b");
    check(json!({"even": true}), "c d");
    check(json!({"even": true, "killSelection": "OLDEST_FIRST"}), "a c");
}

/// Instances on two racks, by what they are: `r` runs, `u` is out of reach. Evenness is looked at among those that are no loss, then among the others:
/// no kill of ours leaves fewer that serve than are wanted as long as others can go.
#[test]
fn what_does_not_serve_goes_before_group_by_is_made_even() {
    let unreachable = json!({"inactiveAfterSeconds": 100, "expungeAfterSeconds": 1000});
    let fields = json!({"constraints": [["rack", "GROUP_BY", "2"]], "unreachableStrategy": unreachable});
    let check = |a: &str, b: &str, wanted: u32, expected: (&str, &str)| {
        let mut world = World::new();
        world.create(small("/web", (a.len() + b.len()) as u32, fields.clone())).unwrap();
        offers(&mut world, &["a rack:r1", "b rack:r2"]);
        let on = |world: &World, node: &str| -> Vec<Arc<Instance>> {
            let all = world.tables().instances.values().filter(|instance| instance.goal == Goal::Running);
            all.filter(|instance| instance.placement.as_ref().unwrap().agent == AgentId::new(node)).cloned().collect()
        };
        for (node, states) in [("a", a), ("b", b)] {
            let placed = on(&world, node);
            assert_eq!(placed.len(), states.len(), "on {node}");
            for (instance, _) in placed.iter().zip(states.chars()).filter(|(_, state)| *state == 'u') {
                world.status(&instance.task(), TaskState::Unreachable);
            }
        }
        world.update("/web", json!({"instances": wanted}), true).unwrap();
        let left = |node: &str| {
            let letter = |instance: &Arc<Instance>| if instance.condition == Condition::Running { 'r' } else { 'u' };
            let mut left: Vec<char> = on(&world, node).iter().map(letter).collect();
            left.sort_unstable();
            left.into_iter().collect::<String>()
        };
        assert_eq!((left("a").as_str(), left("b").as_str()), expected, "{a} {b} to {wanted}");
    };
    check("rrrr", "uuuu", 2, ("rr", ""));
    check("rrrr", "uuuu", 4, ("rrrr", ""));
    check("rrrr", "uuuu", 6, ("rrrr", "uu"));
    check("ruuu", "rrrr", 4, ("r", "rrr"));
    check("rruu", "rruu", 6, ("rru", "rru"));
    check("rruu", "rruu", 2, ("r", "r"));
    check("rrrr", "rrru", 6, ("rrr", "rrr"));
    check("uuuu", "uuuu", 4, ("uu", "uu"));
}

#[test]
fn what_cannot_be_met_any_more_is_in_nobodys_way() {
    let mut world = World::new();
    world.create(small("/web", 2, json!({"constraints": [["rack", "GROUP_BY", "2"]]}))).unwrap();
    assert_eq!(offers(&mut world, &["a rack:r1", "b rack:r1"]), "web@a", "the other one waits for another rack");
    world.update("/web", json!({"instances": 3}), true).unwrap();
    assert_eq!(offers(&mut world, &["a rack:r1", "b rack:r1"]), "web@a", "of three, two may share one");
    assert_eq!(entry(&world, "/web").last_unused_offers[&AgentId::new("b")].reasons, [Reject::UnfulfilledConstraint]);
}

/// Three versions of an app, each for another rack; one instance waits of the first and one of the second, because what the third depends on does not
/// come up.
#[test]
fn whichever_version_fits_is_launched() {
    let check = |rack: &str, expected: Option<&str>| {
        let mut world = World::new();
        let put = |world: &mut World, apps: &[(&str, Value)]| {
            let updates = apps.iter().map(|(id, app)| (path(id), AppInput::read(app).unwrap())).collect();
            world.request(Request::UpdateApps { updates, partial: false, create: true, force: true }).unwrap();
        };
        let slow = |text: &str| ("/slow", small("/slow", 1, json!({"cmd": text, "constraints": [["rack", "IS", "nowhere"]]})));
        let web = |rack: &str, instances: u32, after: &[&str]| {
            ("/web", small("/web", instances, json!({"constraints": [["rack", "IS", rack]], "dependencies": after})))
        };
        put(&mut world, &[web("r1", 1, &[])]);
        put(&mut world, &[slow("1"), web("r2", 2, &["/slow"])]);
        // Without a deployment of its own it gets what is missing.
        put(&mut world, &[slow("2")]);
        put(&mut world, &[slow("3"), web("r3", 2, &["/slow"])]);
        assert_eq!(world.conditions("/web"), "Scheduled*2");
        let offer = offer(&mut world, &format!("a rack:{rack}"));
        let calls = world.cluster(ClusterEvent::Offers(vec![offer])).calls;
        let launched = calls.iter().find_map(|call| if let ClusterCall::Accept { launches, .. } = call { Some(launches) } else { None });
        let wanted_by = |launch: &Launch| launch.app.constraints[0].value.clone().unwrap();
        assert_eq!(launched.map(|launches| launches.iter().map(wanted_by).collect::<Vec<_>>().join(" ")).as_deref(), expected);
    };
    check("r1", Some("r1"));
    check("r2", Some("r2"));
    check("r3", None);
}

/// One instance of an app waits of each of these versions, whichever of them is the first by its id.
fn waiting(random: u64, versions: &[Value]) -> World {
    let mut world = World::new();
    world.random = random;
    let put = |world: &mut World, apps: &[(&str, &Value)]| {
        let updates = apps.iter().map(|(id, app)| (path(id), AppInput::read(app).unwrap())).collect();
        world.request(Request::UpdateApps { updates, partial: false, create: true, force: true }).unwrap();
    };
    for (at, version) in versions.iter().enumerate() {
        let slow = |part: u32| small("/slow", 1, json!({"cmd": format!("{at} {part}"), "constraints": [["rack", "IS", "nowhere"]]}));
        let mut web = small("/web", at as u32 + 1, version.clone());
        web["dependencies"] = if at > 0 { json!(["/slow"]) } else { json!([]) };
        put(&mut world, &[("/slow", &slow(0)), ("/web", &web)]);
        // Without a deployment of its own it gets what is missing.
        put(&mut world, &[("/slow", &slow(1))]);
    }
    assert_eq!(world.conditions("/web"), format!("Scheduled*{}", versions.len()));
    world
}

#[test]
fn the_reasons_shown_are_those_of_the_newest_version_that_waits() {
    let check = |versions: [Value; 2], expected: Reject| {
        for random in 1..=8 {
            let mut world = waiting(random, &versions);
            assert_eq!(offers(&mut world, &["a rack:r2"]), "");
            assert_eq!(entry(&world, "/web").last_unused_offers[&AgentId::new("a")].reasons, [expected], "{random} {versions:?}");
        }
    };
    let (elsewhere, large) = (json!({"constraints": [["rack", "IS", "r1"]]}), json!({"cpus": 5000}));
    check([elsewhere.clone(), large.clone()], Reject::InsufficientCpus);
    check([large, elsewhere], Reject::UnfulfilledConstraint);
}

/// More versions wait than are tried for one offer: each comes up some time.
#[test]
fn of_many_versions_that_wait_none_is_left_out() {
    let versions: Vec<Value> = (0..12).map(|at| json!({"constraints": [["rack", "IS", format!("r{at}")]]})).collect();
    for at in 0..versions.len() {
        let mut world = waiting(1, &versions);
        let found = (0..100).any(|_| {
            world.wait(10_000);
            offers(&mut world, &[&format!("a rack:r{at}")]) == "web@a"
        });
        assert!(found, "r{at}");
    }
}

/// An upgrade that was given up half-way leaves two versions side by side; the older one has failed and comes back to the node of the newer one.
#[test]
fn a_claimed_number_is_in_use_where_a_version_that_uses_it_lives() {
    let check = |old: Value, new: Value, expected: &str| {
        let mut world = World::new();
        let strategy = json!({"minimumHealthCapacity": 1, "maximumOverCapacity": 1});
        world.create(small("/web", 1, json!({"env": old, "upgradeStrategy": strategy, "backoffSeconds": 0}))).unwrap();
        assert_eq!(offers(&mut world, &["a"]), "web@a");
        let first = world.tables().instances.values().next().unwrap().task();
        let Ok(Reply::Deployment { id, .. }) = world.update("/web", json!({"env": new, "instances": 2}), true) else { panic!() };
        assert_eq!(offers(&mut world, &["b cpus=1"]), "web@b");
        world.request(Request::CancelDeployment { id, force: true }).unwrap();
        world.status(&first, TaskState::Failed);
        world.wait(10_000);
        assert_eq!(offers(&mut world, &["b"]), expected, "{old} {new}");
    };
    check(json!({"A": "@PORT"}), json!({}), "web@b");
    check(json!({"A": "@PORT"}), json!({"A": "@PORT", "B": "x"}), "");
    check(json!({"A": "@PORT"}), json!({"A": "@PORT", "B": "@PORT1"}), "");
    check(json!({"A": "@PORT", "B": "@PORT1"}), json!({"A": "@PORT"}), "");
}
