//! Where each kind of check goes, by network and port.

use super::*;
use crate::{
    model::{
        app::{PortNumber, input::Defaults},
        id::InstanceId,
        instance::{Condition, ContainerState},
        pod::input::PodInput,
        record::{Change, Record},
    },
    naming::fixture::{NOW, World},
    store::samples::health_check,
};

/// `address:port` of the first check of an app on this network with these ports, one instance of which runs; `address/own:port` in the network of the
/// task; or why there is none.
fn check(network: &str, ports: &[&str], placed: &[u16], change: impl Fn(&mut HealthCheck), protocol: CheckProtocol, expected: &str) {
    let mut world = World::default();
    world.agent("S1", &["192.0.2.1", "2001:db8::1"]);
    world.app("/web", network, ports);
    let mut app = App::clone(world.tables.definitions.get(&"/web".parse().unwrap(), NOW).unwrap());
    let mut asked = HealthCheck { port_index: Some(0), ..health_check(protocol) };
    change(&mut asked);
    app.health_checks = vec![asked];
    for mapping in app.container.iter_mut().flat_map(|container| &mut container.port_mappings) {
        mapping.host_port = mapping.host_port.map(|_| PortNumber::Dynamic);
    }
    world.apply(Change::Put(Record::Definition(app.into())));
    let id: InstanceId = world.run("/web", 1, "S1", &["10.9.0.7", "fd00::7"], placed);
    let target = Target::of(&world.tables, &world.tables.instances[&id], Which::Health(0));
    let place = |place: &Place| {
        let within = place.within.as_ref().map(|within| {
            assert_eq!((within.task.to_string(), within.agent.as_str()), (world.tables.instances[&id].task().to_string(), "S1"));
            format!("/{}", within.own)
        });
        let address = place.address.map_or_else(|| place.name.clone(), |address| address.to_string());
        format!("{address}{}:{}", within.unwrap_or_default(), place.port)
    };
    let found = match target.map(|target| target.action) {
        Ok(Action::Http(http)) => format!("{}{}{}", if http.tls { "https " } else { "" }, place(&http.place), http.path),
        Ok(Action::Tcp(tcp)) => place(&tcp),
        Ok(Action::Command { command, .. }) => command.join(" "),
        Err(why) => why,
    };
    assert_eq!(found, expected, "{network} {ports:?} {protocol:?}");
}

#[test]
fn a_check_goes_where_its_network_and_port_say() {
    use CheckProtocol::*;
    let plain = |_: &mut HealthCheck| {};
    check("host", &["80/tcp", "81/tcp"], &[31_000, 31_001], plain, Http, "192.0.2.1:31000/");
    check("host", &["80/tcp", "81/tcp"], &[31_000, 31_001], |it| it.port_index = Some(1), Tcp, "192.0.2.1:31001");
    check("host", &[], &[], plain, Http, "it has no port number 0");
    check("host", &["80/tcp"], &[31_000], |it| (it.port, it.port_index) = (Some(99), None), Https, "https 192.0.2.1:99/");
    check("host", &["80/tcp"], &[31_000], plain, MesosHttp, "127.0.0.1:31000/");
    check("host", &["80/tcp"], &[31_000], |it| (it.port, it.port_index) = (Some(99), None), MesosTcp, "127.0.0.1:99");
    check("host", &["80/tcp"], &[31_000], |it| it.ipv6 = true, MesosHttps, "https ::1:31000/");
    check("host", &[], &[], plain, MesosTcp, "it has no port number 0");
    check("bridge", &["80/tcp", "81/tcp@host"], &[31_000], |it| it.port_index = Some(1), Http, "192.0.2.1:31000/");
    check("bridge", &["80/tcp@host"], &[31_000], plain, MesosHttp, "127.0.0.1/10.9.0.7:80/");
    check("bridge", &["80/tcp@host"], &[31_000], |it| it.ipv6 = true, MesosTcp, "::1/fd00::7:80");
    check("bridge", &["0/tcp@host"], &[31_000], plain, MesosTcp, "127.0.0.1/10.9.0.7:31000");
    check("overlay", &["80/tcp"], &[], plain, Tcp, "10.9.0.7:80");
    check("overlay", &["80/tcp@host"], &[31_000], plain, Tcp, "192.0.2.1:31000");
    check("overlay", &["80/tcp"], &[], |it| (it.port, it.port_index) = (Some(99), None), Tcp, "10.9.0.7:99");
    check("host", &[], &[], |it| it.command = Some("pg_isready".into()), Command, "/bin/sh -c pg_isready");
}

#[test]
fn a_path_is_made_fit_for_a_request() {
    let check = |path: &str, expected: &str| assert_eq!(absolute(path), expected, "{path}");
    check("", "/");
    check("ping", "/ping");
    check("/a?b=c&d=%20#e", "/a?b=c&d=%20#e");
    check("/ä b\r\n", "/%C3%A4%20b%0D%0A");
    check("/<\"{}>", "/%3C%22%7B%7D%3E");
}

#[test]
fn the_check_of_a_pods_container_is_made_in_it_as_long_as_it_runs() {
    let pod = serde_json::json!({
        "id": "/pod",
        "containers": [
            {"name": "plain", "resources": {}},
            {"name": "one", "resources": {}, "healthCheck": {"exec": {"command": {"shell": "true"}}},
                "check": {"exec": {"command": {"argv": ["one", "1"]}}}},
            {"name": "two", "resources": {}, "endpoints": [{"name": "a"}, {"name": "b"}],
                "healthCheck": {"exec": {"command": {"argv": ["check", "-v"]}}}},
            {"name": "three", "resources": {}, "endpoints": [{"name": "c"}], "healthCheck": {"tcp": {"endpoint": "c"}},
                "check": {"http": {"endpoint": "c", "path": "/x"}, "timeoutSeconds": 0}},
        ],
    });
    let app = PodInput::read(&pod).unwrap().complete(&"/pod".parse().unwrap(), &Defaults::default()).unwrap();
    let mut world = World::default();
    world.agent("S1", &["10.0.0.1"]);
    world.apply(Change::Put(Record::Definition(App { version: NOW, ..app }.into())));
    let id = world.run("/pod", 1, "S1", &["10.0.0.1"], &[31_000, 31_001, 31_002]);
    let state = |condition| ContainerState { condition, started_at: None };
    world.change(&id, |instance| {
        let running = state(Condition::Running);
        instance.containers = vec![running.clone(), running.clone(), running, state(Condition::Finished)];
    });
    let check = |world: &World, at: usize| {
        let target = Target::of(&world.tables, &world.tables.instances[&id], Which::Health(at));
        match target.map(|target| target.action) {
            Ok(Action::Command { task, command, .. }) => format!("{}: {}", task.container.as_deref().unwrap_or("_app"), command.join(" ")),
            Ok(other) => format!("{other:?}"),
            Err(why) => why,
        }
    };
    assert_eq!([0, 1, 2].map(|at| check(&world, at)), ["one: /bin/sh -c true", "two: check -v", "its container does not run"]);
    let generic = |world: &World, place: usize| {
        let target = Target::of(&world.tables, &world.tables.instances[&id], Which::Check(place));
        match target.map(|target| (target.timeout_seconds, target.action)) {
            Ok((seconds, Action::Command { task, command, .. })) => {
                format!("{}: {} ({seconds} s)", task.container.as_deref().unwrap_or("_app"), command.join(" "))
            }
            Ok((seconds, Action::Http(http))) => format!("{}{} ({seconds} s)", http.place.port, http.path),
            Ok(other) => format!("{other:?}"),
            Err(why) => why,
        }
    };
    let none = "its definition has no such check";
    assert_eq!([0, 1, 2, 3, 4].map(|place| generic(&world, place)), [none, "one: one 1 (20 s)", none, "its container does not run", none]);
    world.change(&id, |instance| instance.containers[3] = state(Condition::Running));
    assert_eq!(generic(&world, 3), "31002/x (20 s)");
    let target = Target::of(&world.tables, &world.tables.instances[&id], Which::Health(2)).unwrap();
    assert!(matches!(target.action, Action::Tcp(place) if place.port == 31_002));
}
