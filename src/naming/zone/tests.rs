use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::{
    model::record::Change,
    naming::fixture::{NOW, World},
};

fn settings() -> Settings {
    Settings::new("marathon", vec!["10.0.0.100".parse().unwrap()], vec!["10.0.0.100:53".parse().unwrap()])
}

fn plan(settings: &Settings) -> Arc<Plan> {
    Arc::new(Plan::new(settings, &settings.listen))
}

fn zone_of(world: &World) -> Zone {
    Zone::build(plan(&settings()), &world.view(), NOW)
}

/// Two agents; `/web` twice in host mode, `/shop/db` once in bridge mode, `/shop/cache` on a container network.
fn world() -> World {
    let mut world = World::default();
    world.agent("20170724-S0", &["10.0.0.1"]);
    world.agent("20170724-S1", &["10.0.0.2", "fd00::2"]);
    world.app("/web", "host", &["http:0/tcp", "0/udp,tcp"]);
    world.run("/web", 1, "20170724-S0", &["10.0.0.1"], &[31000, 31001]);
    world.run("/web", 2, "20170724-S1", &[], &[31000, 31001]);
    world.app("/shop/db", "bridge", &["my_sql.x:5432/tcp@host"]);
    world.run("/shop/db", 3, "20170724-S0", &["172.17.0.5"], &[31500]);
    world.app("/shop/cache", "overlay", &["6379/tcp", "9000/udp@host"]);
    world.run("/shop/cache", 4, "20170724-S1", &["9.0.0.7"], &[31600]);
    world
}

/// `TYPE name` as one line: outcome, then answers, `|` authority, `+` additional, each part sorted; the hash of a canonical name is left out.
fn ask(zone: &Zone, question: &str) -> String {
    let (kind, name) = question.split_once(' ').unwrap();
    let kind = match kind {
        "A" => Kind::A,
        "AAAA" => Kind::Aaaa,
        "SRV" => Kind::Srv,
        "SOA" => Kind::Soa,
        "NS" => Kind::Ns,
        "ANY" => Kind::Any,
        _ => Kind::Other,
    };
    let Some(answer) = zone.lookup(name, kind, Budget::WHOLE, 7) else { return "not ours".into() };
    let show = |records: &[lookup::Record]| {
        let mut lines: Vec<String> = records.iter().map(|record| show(record, zone)).collect();
        lines.sort();
        lines.join(" ")
    };
    let mut line = format!("{:?} {}", answer.rcode, show(&answer.answers));
    if !answer.authority.is_empty() {
        line.push_str(&format!("| {}", show(&answer.authority)));
    }
    if !answer.additional.is_empty() {
        line.push_str(&format!(" + {}", show(&answer.additional)));
    }
    line.trim_end().to_owned()
}

fn show(record: &lookup::Record, zone: &Zone) -> String {
    let data = match &record.data {
        Data::A(address) => address.to_string(),
        Data::Aaaa(address) => address.to_string(),
        Data::Srv { port, target, .. } => format!("{target}:{port}"),
        Data::Soa(_) => "SOA".into(),
        Data::Ns(name) => format!("NS={name}"),
    };
    let text = match &record.owner {
        Owner::Named(name) => format!("{name}={data}"),
        _ => data,
    };
    zone.members.values().fold(text, |text, member| text.replace(&format!("-{}-", member.hash.as_str()), "-#-"))
}

#[test]
fn tasks_and_agents_have_addresses() {
    let zone = zone_of(&world());
    let check = |question: &str, expected: &str| assert_eq!(ask(&zone, question), expected, "{question}");
    check("A web.marathon.mesos", "NoError 10.0.0.1 10.0.0.2");
    check("AAAA web.marathon.mesos", "NoError fd00::2");
    check("A WEB.Marathon.MESOS", "NoError 10.0.0.1 10.0.0.2");
    check("A web.marathon.slave.mesos", "NoError 10.0.0.1 10.0.0.2");
    check("A db-shop.marathon.mesos", "NoError 172.17.0.5");
    check("A db.shop.marathon.mesos", "NoError 172.17.0.5");
    check("A db-shop.*.marathon.mesos", "NoError 172.17.0.5");
    check("A *.db-shop.marathon.mesos", "NameError | SOA");
    check("A db-shop.marathon.slave.mesos", "NoError 10.0.0.1");
    check("A db.shop.marathon.slave.mesos", "NoError 10.0.0.1");
    check("A cache-shop.marathon.mesos", "NoError 9.0.0.7");
    check("A slave.mesos", "NoError 10.0.0.1 10.0.0.2");
    check("AAAA slave.mesos", "NoError fd00::2");
}

#[test]
fn every_task_has_a_name_of_its_own() {
    let mut world = world();
    let zone = zone_of(&world);
    let id = world.run("/shop/db", 3, "20170724-S0", &["172.17.0.5"], &[31500]);
    let hash = zone.members[&id].hash;
    let check = |zone: &Zone, name: &str, expected: &str| assert_eq!(ask(zone, &format!("A {name}")), expected, "{name}");
    check(&zone, &format!("db-shop-{}-s0.marathon.mesos", hash.as_str()), "NoError 172.17.0.5");
    check(&zone, &format!("db.shop-{}-s0.marathon.mesos", hash.as_str()), "NoError 172.17.0.5");
    check(&zone, &format!("db-shop-{}-s0.marathon.slave.mesos", hash.as_str()), "NoError 10.0.0.1");
    check(&zone, &format!("db-shop-{}-s1.marathon.mesos", hash.as_str()), "NameError | SOA");
    check(&zone, &format!("web-{}-s0.marathon.mesos", hash.as_str()), "NameError | SOA");
    world.change(&id, |instance| instance.incarnation = 2);
    let zone = zone_of(&world);
    check(&zone, &format!("db-shop-{}-s0.marathon.mesos", hash.as_str()), "NameError | SOA");
}

#[test]
fn services_have_ports() {
    let zone = zone_of(&world());
    let check = |question: &str, expected: &str| assert_eq!(ask(&zone, question), expected, "{question}");
    check(
        "SRV _web._udp.marathon.mesos",
        "NoError web-#-s0.marathon.mesos:31001 web-#-s1.marathon.mesos:31001 \
         + web-#-s0.marathon.mesos=10.0.0.1 web-#-s1.marathon.mesos=10.0.0.2 web-#-s1.marathon.mesos=fd00::2",
    );
    check(
        "SRV _http._web._tcp.marathon.mesos",
        "NoError web-#-s0.marathon.mesos:31000 web-#-s1.marathon.mesos:31000 \
         + web-#-s0.marathon.mesos=10.0.0.1 web-#-s1.marathon.mesos=10.0.0.2 web-#-s1.marathon.mesos=fd00::2",
    );
    // A host port is at the host.
    let at_host = "NoError db-shop-#-s0.marathon.slave.mesos:31500 + db-shop-#-s0.marathon.slave.mesos=10.0.0.1";
    check("SRV _db-shop._tcp.marathon.mesos", at_host);
    check("SRV _my-sql-x._db-shop._tcp.marathon.mesos", at_host);
    check("SRV _db-shop._tcp.marathon.slave.mesos", at_host);
    check("SRV _db-shop._udp.marathon.slave.mesos", at_host);
    check("SRV _db.shop._tcp.marathon.mesos", &at_host.replace("db-shop-#", "db.shop-#"));
    // Without one, the container's port is at the container.
    check("SRV _cache-shop._tcp.marathon.mesos", "NoError cache-shop-#-s1.marathon.mesos:6379 + cache-shop-#-s1.marathon.mesos=9.0.0.7");
    check("SRV _db-shop._udp.marathon.mesos", "NoError");
    check("SRV _other._db-shop._tcp.marathon.mesos", "NoError");
    check("SRV _my-sql-x._db-shop._tcp.marathon.slave.mesos", "NoError");
    check("SRV _slave._tcp.mesos", "NoError slave.mesos:5051 + slave.mesos=10.0.0.1");
}

#[test]
fn a_switch_brings_back_the_pairs_of_mesos_dns() {
    let settings = Settings { srv_targets_like_mesos_dns: true, ..settings() };
    let zone = Zone::build(plan(&settings), &world().view(), NOW);
    let expected = "NoError db-shop-#-s0.marathon.mesos:31500 + db-shop-#-s0.marathon.mesos=172.17.0.5";
    assert_eq!(ask(&zone, "SRV _db-shop._tcp.marathon.mesos"), expected);
}

#[test]
fn we_have_names_ourselves() {
    let zone = zone_of(&world());
    let check = |question: &str, expected: &str| assert_eq!(ask(&zone, question), expected, "{question}");
    for name in ["leader.mesos", "master.mesos", "master0.mesos", "marathon.mesos", "ns1.mesos"] {
        check(&format!("A {name}"), "NoError 10.0.0.100");
    }
    check("SRV _leader._tcp.mesos", "NoError leader.mesos:8080 + leader.mesos=10.0.0.100");
    check("SRV _leader._udp.mesos", "NoError leader.mesos:8080 + leader.mesos=10.0.0.100");
    check("SRV _framework._tcp.marathon.mesos", "NoError");
    check("SRV _master._tcp.mesos", "NoError");
    check("A master1.mesos", "NameError | SOA");
    let settings = Settings { framework_port: Some(8080), framework_name: "Big Marathon.x".into(), ..settings() };
    let zone = Zone::build(plan(&settings), &world().view(), NOW);
    let expected = "NoError bigmarathon.x.mesos:8080 + bigmarathon.x.mesos=10.0.0.100";
    assert_eq!(ask(&zone, "SRV _framework._tcp.bigmarathon.x.mesos"), expected);
    assert_eq!(ask(&zone, "A db-shop.bigmarathon.x.slave.mesos"), "NoError 10.0.0.1");
}

#[test]
fn the_name_server_has_the_address_that_others_can_ask() {
    let check = |bound: &[&str], expected: &str| {
        let bound: Vec<SocketAddr> = bound.iter().map(|text| text.parse().unwrap()).collect();
        let found: Vec<String> = listening_addresses(&bound, &["10.9.9.9".parse().unwrap()]).iter().map(ToString::to_string).collect();
        assert_eq!(found.join(" "), expected, "{bound:?}");
    };
    check(&["127.0.0.1:53", "10.0.0.1:53", "[fd00::1]:53"], "10.0.0.1 fd00::1");
    check(&["127.0.0.1:53"], "127.0.0.1");
    check(&["0.0.0.0:53", "[::]:53"], "10.9.9.9");
    check(&["127.0.0.1:53", "0.0.0.0:54"], "10.9.9.9");
    check(&[], "10.9.9.9");
}

#[test]
fn an_empty_answer_says_whether_the_name_exists() {
    let zone = zone_of(&world());
    let check = |question: &str, expected: &str| assert_eq!(ask(&zone, question), expected, "{question}");
    check("A nothing.marathon.mesos", "NameError | SOA");
    check("AAAA nothing.marathon.mesos", "NameError | SOA");
    check("TXT nothing.marathon.mesos", "NameError | SOA");
    check("SRV nothing.marathon.mesos", "NoError");
    check("AAAA db-shop.marathon.mesos", "NoError | SOA");
    check("TXT db-shop.marathon.mesos", "NoError | SOA");
    check("A _db-shop._tcp.marathon.mesos", "NoError | SOA");
    check("SRV db-shop.marathon.mesos", "NoError");
    check("SOA anything.at.all.mesos", "NoError | SOA");
    check("NS mesos", "NoError | NS=ns1.mesos");
    check("ANY db-shop.marathon.mesos", "NoError 172.17.0.5| NS=ns1.mesos SOA");
    check("ANY nothing.mesos", "NameError | NS=ns1.mesos SOA");
    check("A mesos", "NameError | SOA");
    check("A example.org", "not ours");
    check("A notmesos", "not ours");
}

#[test]
fn only_running_tasks_on_known_agents_have_names() {
    let mut world = world();
    let id = world.run("/shop/db", 3, "20170724-S0", &["172.17.0.5"], &[31500]);
    let check = |world: &World, expected: &str| assert_eq!(ask(&zone_of(world), "A db-shop.marathon.mesos"), expected);
    for condition in Condition::ALL {
        world.change(&id, |instance| instance.condition = condition);
        check(&world, if condition == Condition::Running { "NoError 172.17.0.5" } else { "NameError | SOA" });
    }
    world.change(&id, |instance| instance.condition = Condition::Running);
    world.apply(Change::Delete(RecordKey::Agent(AgentId::new("20170724-S0"))));
    check(&world, "NameError | SOA");
}

#[test]
fn names_that_two_apps_share_are_merged() {
    let mut world = World::default();
    world.agent("S0", &["10.0.0.1"]);
    for (number, path) in [(1, "/b/a"), (2, "/a.b"), (3, "/a-b")] {
        world.app(path, "bridge", &[]);
        world.run(path, number, "S0", &[&format!("172.17.0.{number}")], &[]);
    }
    let mut zone = zone_of(&world);
    assert_eq!(ask(&zone, "A a-b.marathon.mesos"), "NoError 172.17.0.1 172.17.0.2 172.17.0.3");
    assert_eq!(ask(&zone, "A a.b.marathon.mesos"), "NoError 172.17.0.1 172.17.0.2");
    let gone = InstanceId::new("/a.b".parse().unwrap(), Uuid::from_u128(2));
    world.delete(&gone);
    zone.apply(&world.view(), &[RecordKey::Instance(gone)], NOW);
    assert_eq!(ask(&zone, "A a-b.marathon.mesos"), "NoError 172.17.0.1 172.17.0.3");
    assert_eq!(ask(&zone, "A a.b.marathon.mesos"), "NoError 172.17.0.1");
}

#[test]
fn long_names_are_cut_and_still_found() {
    let mut world = World::default();
    let long = "x".repeat(80);
    let path = format!("/{long}");
    world.agent("6b0cd2e8-b243-11e8-8b80-024247c0a575", &["10.0.0.1"]);
    world.app(&path, "host", &["0/tcp"]);
    world.run(&path, 1, "6b0cd2e8-b243-11e8-8b80-024247c0a575", &["10.0.0.1"], &[31000]);
    let zone = zone_of(&world);
    let label = &long[..63];
    assert_eq!(ask(&zone, &format!("A {label}.marathon.mesos")), "NoError 10.0.0.1");
    let target = zone.find(&format!("_{label}._tcp.marathon.mesos"), Budget::WHOLE, 0).services[0].host.clone();
    assert_eq!(target.split('.').next().unwrap().len(), 63, "{target}");
    assert_eq!(ask(&zone, &format!("A {target}")), "NoError 10.0.0.1");
}

#[test]
fn a_part_of_many_is_not_always_the_same_part() {
    let mut world = World::default();
    world.agent("S0", &["10.0.0.1"]);
    world.app("/many", "bridge", &["80/tcp"]);
    for number in 0..2000_u128 {
        let address = format!("172.17.{}.{}", number / 256, number % 256);
        world.run("/many", number * 1000, "S0", &[&address], &[]);
    }
    let zone = zone_of(&world);
    let mut seen = BTreeSet::new();
    for random in 0..200_u64 {
        let random = random.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let answer = zone.lookup("many.marathon.mesos", Kind::A, Budget::datagram(512), random).unwrap();
        assert_eq!(answer.answers.len(), 33);
        seen.extend(answer.answers.iter().map(|record| show(record, &zone)));
    }
    assert!(seen.len() > 1500, "of 2000 only {} were ever answered", seen.len());
    let whole = zone.lookup("many.marathon.mesos", Kind::A, Budget::WHOLE, 1).unwrap();
    assert_eq!(whole.answers.len(), 2000);
}

/// The records of the zone as a table, made by the other way: every task written out.
fn written_out(zone: &Zone) -> BTreeMap<String, BTreeSet<EntryData>> {
    let mut entries = zone.written_out_fixed();
    let mut last = None;
    loop {
        let page = zone.page(last.as_ref(), 3);
        let Some((task, _)) = page.last() else { break };
        last = Some(task.instance.clone());
        entries.extend(page.into_iter().flat_map(|(_, entries)| entries));
    }
    let mut by_label = Vec::new();
    let mut label: Option<Arc<str>> = None;
    while let Some((last, entries)) = zone.label_page(label.as_deref(), 2) {
        by_label.extend(entries);
        label = Some(last);
    }
    let table = |entries: Vec<Entry>| {
        let mut table: BTreeMap<String, BTreeSet<EntryData>> = BTreeMap::new();
        entries.into_iter().for_each(|entry| _ = table.entry(entry.name).or_default().insert(entry.data));
        table
    };
    let by_task = table(entries);
    by_label.extend(zone.written_out_fixed());
    assert_eq!(table(by_label), by_task, "the same by label and by task");
    by_task
}

fn looked_up(zone: &Zone, name: &str) -> BTreeSet<EntryData> {
    let found = zone.find(name, Budget::WHOLE, 3);
    let addresses = found.v4.into_iter().map(IpAddr::from).chain(found.v6.into_iter().map(IpAddr::from)).map(EntryData::Address);
    let services = found.services.into_iter().map(|target| EntryData::Service(target.host.to_string(), target.port));
    addresses.chain(services).collect()
}

fn check_against_written_out(zone: &Zone) {
    let table = written_out(zone);
    for (name, data) in &table {
        assert_eq!(&looked_up(zone, name), data, "{name}");
        for entry in data {
            if let EntryData::Service(target, _) = entry {
                assert!(table.contains_key(target), "{target} has an address");
            }
        }
    }
}

#[test]
fn what_is_written_out_is_what_is_found() {
    check_against_written_out(&zone_of(&world()));
}

/// One change of a small world.
#[derive(Clone, Debug)]
enum Step {
    Put { app: usize, number: u128, agent: usize, incarnation: u32, condition: usize, address: u8 },
    Delete { app: usize, number: u128 },
    Agent { agent: usize, address: Option<u8> },
    Definition { app: usize, there: bool },
}

const APPS: [&str; 6] = ["/a", "/a/b", "/b.a", "/b-a", "/c/a.b", "/0123456789012345678901234567890123456789012345678901234567890123456789"];
const AGENTS: [&str; 3] = ["x-S0", "x-S1", "weird.id-"];

fn step() -> impl Strategy<Value = Step> {
    let put = (0..APPS.len(), 0..4_u128, 0..AGENTS.len(), 1..4_u32, 0..Condition::ALL.len() * 2, 0..4_u8).prop_map(
        |(app, number, agent, incarnation, condition, address)| Step::Put { app, number, agent, incarnation, condition, address },
    );
    prop_oneof![
        6 => put,
        2 => (0..APPS.len(), 0..4_u128).prop_map(|(app, number)| Step::Delete { app, number }),
        1 => (0..AGENTS.len(), proptest::option::of(0..4_u8)).prop_map(|(agent, address)| Step::Agent { agent, address }),
        1 => (0..APPS.len(), any::<bool>()).prop_map(|(app, there)| Step::Definition { app, there }),
    ]
}

fn take(world: &mut World, step: &Step) {
    let id = |app: usize, number: u128| InstanceId::new(APPS[app].parse().unwrap(), Uuid::from_u128(number));
    match *step {
        Step::Put { app, number, agent, incarnation, condition, address } => {
            let own = format!("172.17.0.{address}");
            let addresses: &[&str] = if address == 0 { &[] } else { &[&own] };
            world.run(APPS[app], number, AGENTS[agent], addresses, &[31000, 31001]);
            world.change(&id(app, number), |instance| {
                instance.incarnation = incarnation;
                // Half of them run.
                instance.condition = Condition::ALL.get(condition).copied().unwrap_or(Condition::Running);
            });
        }
        Step::Delete { app, number } => world.delete(&id(app, number)),
        Step::Agent { agent, address: Some(address) } => world.agent(AGENTS[agent], &[&format!("10.0.0.{address}")]),
        Step::Agent { agent, address: None } => world.apply(Change::Delete(RecordKey::Agent(AgentId::new(AGENTS[agent])))),
        Step::Definition { app, there: true } => world.app(APPS[app], "bridge", &["p_1:80/udp,tcp@host", "81/tcp"]),
        Step::Definition { app, there: false } => {
            world.apply(Change::Delete(RecordKey::Definition(APPS[app].parse().unwrap(), NOW)));
        }
    }
}

proptest! {
    #[test]
    fn a_zone_that_followed_every_change_is_the_zone_made_anew(
        steps in proptest::collection::vec((step(), any::<bool>()), 1..60),
        rule in prop_oneof![Just(Rule::Rfc1123), Just(Rule::Rfc952)],
    ) {
        let plan = plan(&Settings { rule, ..settings() });
        let mut world = World::default();
        let mut zone = Zone::build(plan.clone(), &world.view(), NOW);
        for (step, publish) in &steps {
            take(&mut world, step);
            // The view may be ahead of the news, and news may come in one or in many pieces.
            if *publish {
                let changed = std::mem::take(&mut world.changed);
                let (first, second) = changed.split_at(changed.len() / 2);
                zone.apply(&world.view(), first, NOW);
                zone.apply(&world.view(), second, NOW);
            }
        }
        zone.apply(&world.view(), &world.changed, NOW);
        let anew = Zone::build(plan, &world.view(), NOW);
        prop_assert!(zone.same_as(&anew));
        check_against_written_out(&zone);
    }

    #[test]
    fn any_name_has_an_answer(name in "([a-z0-9_.*-]|\\PC){0,80}(\\.marathon|\\.marathon\\.slave)?\\.mesos") {
        let zone = zone_of(&world());
        for kind in [Kind::A, Kind::Srv, Kind::Any, Kind::Other] {
            prop_assert!(zone.lookup(&name, kind, Budget::datagram(512), 5).is_some());
        }
    }
}

#[test]
fn the_agent_part_of_a_name_is_the_end_of_its_id() {
    let check = |id: &str, expected: &str| assert_eq!(agent_tail(&AgentId::new(id)), expected, "{id}");
    check("20170724-0-S17", "s17");
    check("node1", "node1");
    check("x-A_b.c", "abc");
    check("x-", "");
    check(&format!("x-{}", "9".repeat(40)), &"9".repeat(24));
}
