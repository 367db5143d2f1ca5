use std::{
    io::{Read, Write},
    net::{TcpStream, UdpSocket},
    time::Duration,
};

use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, Query, ResponseCode},
    rr::{Name, RData, RecordType},
};
use tokio::sync::watch;

use super::{fixture::World, *};
use crate::runtime::{handle::Submission, inbox::Inbox};

/// A name server on loopback with a world behind it.
pub(crate) struct Served {
    pub(crate) world: World,
    pub(crate) handle: Handle,
    pub(crate) running: Running,
    revision: u64,
    stop: watch::Sender<bool>,
    _submissions: Inbox<Submission>,
}

impl Served {
    pub(crate) async fn new(world: World, adjust: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = Settings::new("marathon", vec!["10.0.0.100".parse().unwrap()], vec!["127.0.0.1:0".parse().unwrap()]);
        settings.resolvers = Some(vec![]);
        adjust(&mut settings);
        let (handle, submissions) = Handle::new(world.view());
        let (stop, stopped) = watch::channel(false);
        let running = start(settings, handle.clone(), stopped).await.unwrap();
        Self { world, handle, running, revision: 0, stop, _submissions: submissions }
    }

    /// Makes the changes visible, as the driver does.
    pub(crate) fn publish(&mut self) {
        self.revision += 1;
        let changed = std::mem::take(&mut self.world.changed);
        self.handle.publish(self.world.view(), Published { revision: self.revision, events: vec![], changed });
    }

    fn address(&self) -> SocketAddr {
        self.running.addresses[0]
    }

    pub(crate) fn stop(self) {
        self.stop.send(true).unwrap();
        self.running.join();
    }
}

/// `count` tasks of `/many`, each with an address of its own.
fn many(count: u8) -> World {
    let mut world = World::default();
    world.agent("x-S0", &["10.0.0.1"]);
    world.app("/many", "overlay", &["80/tcp"]);
    for number in 1..=count {
        world.run("/many", number.into(), "x-S0", &[&format!("9.0.0.{number}")], &[]);
    }
    world
}

fn question(name: &str, kind: RecordType, payload: Option<u16>) -> Vec<u8> {
    let mut message = Message::new(4711, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    if let Some(payload) = payload {
        let mut edns = Edns::new();
        edns.set_max_payload(payload);
        message.set_edns(edns);
    }
    message.to_vec().unwrap()
}

fn by_udp(server: SocketAddr, packet: &[u8]) -> Vec<u8> {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    // Connected: a reply from any other address is not taken.
    socket.connect(server).unwrap();
    socket.send(packet).unwrap();
    let mut reply = vec![0; 65_536];
    let length = socket.recv(&mut reply).unwrap();
    reply.truncate(length);
    reply
}

fn by_tcp(stream: &mut TcpStream, packet: &[u8]) -> Vec<u8> {
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.write_all(&(packet.len() as u16).to_be_bytes()).unwrap();
    stream.write_all(packet).unwrap();
    let mut length = [0; 2];
    stream.read_exact(&mut length).unwrap();
    let mut reply = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut reply).unwrap();
    reply
}

fn ask(server: SocketAddr, name: &str, kind: RecordType, payload: Option<u16>) -> Message {
    Message::from_vec(&by_udp(server, &question(name, kind, payload))).unwrap()
}

/// Blocking work of a test, beside the runtime that the server's start needs.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

#[tokio::test]
async fn a_reply_has_its_records_in_their_sections() {
    let served = Served::new(many(2), |_| {}).await;
    let server = served.address();
    blocking(move || {
        let reply = ask(server, "MANY.Marathon.mesos.", RecordType::A, None);
        assert!(reply.metadata.authoritative && reply.metadata.recursion_available && reply.metadata.recursion_desired);
        assert_eq!((reply.metadata.id, reply.metadata.response_code), (4711, ResponseCode::NoError));
        assert_eq!(reply.queries[0].name().to_ascii(), "MANY.Marathon.mesos.");
        assert_eq!(reply.answers.len(), 2);
        for record in &reply.answers {
            assert_eq!((record.name.to_ascii().as_str(), record.ttl), ("many.marathon.mesos.", 60));
        }

        let reply = ask(server, "_MANY._tcp.marathon.mesos.", RecordType::SRV, None);
        assert_eq!(reply.answers[0].name.to_ascii(), "_MANY._tcp.marathon.mesos.");
        let RData::SRV(service) = &reply.answers[0].data else { panic!("{reply}") };
        assert_eq!((service.priority, service.weight, service.port), (0, 1, 80));
        assert_eq!(reply.additionals.len(), 2);
        assert!(reply.additionals.iter().any(|record| record.name == service.target));

        let reply = ask(server, "Any.mesos.", RecordType::SOA, None);
        assert!(reply.answers.is_empty());
        assert_eq!(reply.authorities[0].name.to_ascii(), "Any.mesos.");
        let RData::SOA(soa) = &reply.authorities[0].data else { panic!("{reply}") };
        assert_eq!((soa.mname.to_ascii().as_str(), soa.rname.to_ascii().as_str()), ("ns1.mesos.", "root.ns1.mesos."));
        assert_eq!((soa.refresh, soa.retry, soa.expire, soa.minimum), (60, 600, 86400, 60));

        let reply = ask(server, "many.marathon.mesos.", RecordType::ANY, Some(4096));
        let kinds: Vec<RecordType> = reply.answers.iter().chain(&reply.authorities).map(|record| record.record_type()).collect();
        assert_eq!(kinds, [RecordType::A, RecordType::A, RecordType::SOA, RecordType::NS]);

        let reply = ask(server, "none.mesos.", RecordType::AAAA, None);
        assert_eq!(reply.metadata.response_code, ResponseCode::NXDomain);
        assert_eq!(reply.authorities[0].record_type(), RecordType::SOA);
    })
    .await;
    served.stop();
}

#[tokio::test]
async fn a_reply_that_is_too_long_is_cut_in_order() {
    let served = Served::new(many(60), |settings| settings.max_udp_payload = 4096).await;
    let server = served.address();
    blocking(move || {
        let check = |kind: RecordType, payload: Option<u16>, expected: (usize, usize, bool)| {
            let name = if kind == RecordType::A { "many.marathon.mesos." } else { "_many._tcp.marathon.mesos." };
            let packet = by_udp(server, &question(name, kind, payload));
            assert!(packet.len() <= payload.unwrap_or(512).max(512).into(), "{} bytes", packet.len());
            let reply = Message::from_vec(&packet).unwrap();
            assert_eq!(reply.edns.is_some(), payload.is_some());
            assert_eq!((reply.answers.len(), reply.additionals.len(), reply.metadata.truncation), expected, "{kind} {payload:?}");
        };
        check(RecordType::A, None, (29, 0, true));
        check(RecordType::A, Some(512), (29, 0, true));
        check(RecordType::A, Some(100), (29, 0, true));
        check(RecordType::A, Some(1232), (60, 0, false));
        check(RecordType::SRV, None, (9, 0, true));
        check(RecordType::SRV, Some(1232), (24, 0, true));
        check(RecordType::SRV, Some(4096), (60, 60, false));

        let mut stream = TcpStream::connect(server).unwrap();
        let reply = by_tcp(&mut stream, &question("_many._tcp.marathon.mesos.", RecordType::SRV, None));
        let reply = Message::from_vec(&reply).unwrap();
        assert_eq!((reply.answers.len(), reply.additionals.len(), reply.metadata.truncation), (60, 60, false));
        // The connection stays for the next question.
        let reply = Message::from_vec(&by_tcp(&mut stream, &question("many.marathon.mesos.", RecordType::A, None))).unwrap();
        assert_eq!(reply.answers.len(), 60);
    })
    .await;
    served.stop();
}

#[tokio::test]
async fn without_a_setting_no_datagram_is_longer_than_is_safe() {
    let served = Served::new(many(200), |_| {}).await;
    let server = served.address();
    blocking(move || {
        let packet = by_udp(server, &question("many.marathon.mesos.", RecordType::A, Some(4096)));
        let reply = Message::from_vec(&packet).unwrap();
        assert!(packet.len() <= 1232 && reply.metadata.truncation && reply.answers.len() > 70, "{reply}");
    })
    .await;
    served.stop();
}

#[tokio::test]
async fn a_change_is_answered_as_soon_as_it_is_followed() {
    let mut served = Served::new(many(1), |_| {}).await;
    let server = served.address();
    let id = served.world.run("/many", 9, "x-S0", &["9.0.0.99"], &[]);
    served.publish();
    served.sees(2).await;
    let reply = blocking(move || ask(server, "many.marathon.mesos.", RecordType::A, None)).await;
    assert_eq!(reply.answers.len(), 2);
    served.world.delete(&id);
    served.publish();
    served.sees(1).await;
    served.stop();
}

#[tokio::test]
async fn news_that_were_missed_are_made_up_for() {
    let mut served = Served::new(many(1), |_| {}).await;
    for number in 0..3000_u128 {
        served.world.run("/other", number, "x-S0", &["9.1.0.1"], &[]);
        served.publish();
    }
    served.sees(3001).await;
    served.stop();
}

#[tokio::test]
async fn news_that_are_missed_between_two_looks_are_made_up_for() {
    let mut served = Served::new(many(1), |_| {}).await;
    let mut news = served.handle.follow();
    let zone = Arc::new(ArcSwap::new(served.running.zone.load_full()));
    let follower = Follower { handle: served.handle.clone(), zone: zone.clone() };
    for number in 0..3000_u128 {
        served.world.run("/other", number, "x-S0", &["9.1.0.1"], &[]);
        served.publish();
        if number == 0 {
            assert_eq!(news.recv().await.unwrap().revision, 1);
        }
    }
    let first = Published { revision: 1, events: vec![], changed: vec![] };
    follower.apply(Arc::new(first), &mut news);
    assert_eq!(zone.load().tasks(), 3001);
    served.stop();
}

impl Served {
    async fn sees(&self, tasks: usize) {
        let seen = async {
            while self.running.zone.load().tasks() != tasks {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), seen).await.expect("the zone follows");
    }
}

#[tokio::test]
async fn the_address_that_was_asked_answers() {
    let served = Served::new(many(1), |settings| settings.listen = vec!["0.0.0.0:0".parse().unwrap(), "[::]:0".parse().unwrap()]).await;
    let (v4, v6) = (served.running.addresses[0].port(), served.running.addresses[1].port());
    blocking(move || {
        for server in [format!("127.0.0.1:{v4}"), format!("127.0.0.53:{v4}")] {
            let reply = ask(server.parse().unwrap(), "many.marathon.mesos.", RecordType::A, None);
            assert_eq!(reply.answers.len(), 1);
        }
        let socket = UdpSocket::bind("[::1]:0").unwrap();
        socket.connect(("::1", v6)).unwrap();
        socket.send(&question("many.marathon.mesos.", RecordType::A, None)).unwrap();
        assert!(socket.recv(&mut [0; 512]).unwrap() > 12);
    })
    .await;
    served.stop();
}

#[tokio::test]
async fn other_names_are_asked_of_others() {
    let mut other = many(3);
    other.app("/far", "bridge", &[]);
    let far = Served::new(other, |settings| settings.domain = "example".into()).await;
    let there = far.address();
    let served = Served::new(many(1), |settings| settings.resolvers = Some(vec![settings.listen[0], there])).await;
    let server = served.address();
    blocking(move || {
        let name = "Many.marathon.example.";
        let reply = ask(server, name, RecordType::A, None);
        assert_eq!((reply.metadata.id, reply.answers.len(), reply.queries[0].name().to_ascii().as_str()), (4711, 3, name));
        let mut stream = TcpStream::connect(server).unwrap();
        let reply = Message::from_vec(&by_tcp(&mut stream, &question(name, RecordType::A, None))).unwrap();
        assert_eq!((reply.metadata.id, reply.answers.len()), (4711, 3));
        // The far server refuses what is not its own; that is passed on too.
        assert_eq!(ask(server, "example.org.", RecordType::A, None).metadata.response_code, ResponseCode::Refused);
    })
    .await;
    served.stop();
    far.stop();
}

/// A machine beside this one, at one end of a cable: a network namespace with an address on the cable, and one of behind it.
struct Neighbour {
    name: String,
}

impl Neighbour {
    const HERE: &str = "10.77.213.1";
    const ATTACHED: &str = "10.77.213.2";
    const ROUTED: &str = "198.51.100.7";

    fn new() -> Self {
        let neighbour = Self { name: format!("xtao-names-{}", std::process::id()) };
        let (name, cable) = (&neighbour.name, format!("xn{}", std::process::id() % 1_000_000));
        for command in [
            format!("netns add {name}"),
            format!("link add {cable} type veth peer name cable netns {name}"),
            format!("address add {}/24 dev {cable}", Self::HERE),
            format!("link set {cable} up"),
            format!("-n {name} address add {}/24 dev cable", Self::ATTACHED),
            format!("-n {name} address add {}/32 dev cable", Self::ROUTED),
            format!("-n {name} link set cable up"),
            format!("route add {}/32 via {}", Self::ROUTED, Self::ATTACHED),
        ] {
            let done = std::process::Command::new("ip").args(command.split(' ')).output().unwrap();
            assert!(done.status.success(), "ip {command}: {}", String::from_utf8_lossy(&done.stderr));
        }
        neighbour
    }

    /// What kind of answer `source` gets: `NOERROR`, `REFUSED` ...
    fn ask(&self, source: &str, server: SocketAddr, name: &str, option: &str) -> String {
        let port = server.port().to_string();
        let at = format!("@{}", server.ip());
        let question = ["dig", "-b", source, "-p", &port, &at, name, "A", "+tries=1", "+time=10", option];
        let answer = std::process::Command::new("ip").args(["netns", "exec", &self.name]).args(question).output().unwrap();
        let text = String::from_utf8_lossy(&answer.stdout).into_owned();
        let status = text.split_once("status: ").and_then(|(_, rest)| rest.split_once(','));
        status.map_or_else(|| text.clone(), |(status, _)| status.to_owned())
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        // Its end of the cable goes with it, and so does ours, with its address and its route.
        _ = std::process::Command::new("ip").args(["netns", "delete", &self.name]).status();
    }
}

#[tokio::test]
async fn strangers_learn_our_names_and_no_others() {
    let far = Served::new(many(3), |settings| settings.domain = "example".into()).await;
    let there = far.address();
    let neighbour = Neighbour::new();
    let served = Served::new(many(1), |settings| {
        settings.listen = vec![SocketAddr::new(Neighbour::HERE.parse().unwrap(), 0)];
        settings.resolvers = Some(vec![there]);
    })
    .await;
    let server = served.address();
    blocking(move || {
        let check = |source: &str, name: &str, expected: &str| {
            for option in ["+notcp", "+tcp"] {
                assert_eq!(neighbour.ask(source, server, name, option), expected, "{source} {name} {option}");
            }
        };
        check(Neighbour::ATTACHED, "many.marathon.mesos.", "NOERROR");
        check(Neighbour::ATTACHED, "many.marathon.example.", "NOERROR");
        check(Neighbour::ROUTED, "many.marathon.mesos.", "NOERROR");
        check(Neighbour::ROUTED, "none.marathon.mesos.", "NXDOMAIN");
        check(Neighbour::ROUTED, "many.marathon.example.", "REFUSED");
    })
    .await;
    served.stop();
    far.stop();
}

#[tokio::test]
async fn the_next_resolver_is_asked_when_one_is_silent_or_dead() {
    let far = Served::new(many(3), |settings| settings.domain = "example".into()).await;
    let there = far.address();
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let dead = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let resolvers = vec![dead, silent.local_addr().unwrap(), there];
    let served = Served::new(many(1), move |settings| settings.resolvers = Some(resolvers)).await;
    let server = served.address();
    let reply = blocking(move || ask(server, "many.marathon.example.", RecordType::A, None)).await;
    assert_eq!(reply.answers.len(), 3);
    served.stop();
    far.stop();
}

#[tokio::test]
async fn a_question_that_nobody_can_answer_fails_at_once() {
    let refused = |resolvers: Vec<SocketAddr>| async move {
        let served = Served::new(many(1), |settings| settings.resolvers = Some(resolvers)).await;
        let server = served.address();
        let reply = blocking(move || ask(server, "example.org.", RecordType::A, None)).await;
        served.stop();
        assert!(!reply.metadata.recursion_available);
        reply.metadata.response_code
    };
    assert_eq!(refused(vec![]).await, ResponseCode::Refused);
    let dead = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert_eq!(refused(vec![dead]).await, ResponseCode::ServFail);
}

#[tokio::test]
async fn a_taken_port_is_named_with_what_to_do() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let attempt = |listen: SocketAddr, name: &'static str| async move {
        let (handle, _submissions) = Handle::new(World::default().view());
        let (_stop, stopped) = watch::channel(false);
        let result = start(Settings::new(name, vec![], vec![listen]), handle, stopped).await;
        result.map(drop).unwrap_err().to_string()
    };
    let error = attempt(address, "marathon").await;
    let expected =
        format!("the name server cannot listen on {address} (tcp): Address already in use (os error 98); another program has this port");
    assert!(error.starts_with(&expected) && error.contains("--dns_port"), "{error}");
    let error = attempt("192.0.2.1:0".parse().unwrap(), "marathon").await;
    assert!(error.contains("192.0.2.1 is no address of this machine"), "{error}");
    let error = attempt("127.0.0.1:0".parse().unwrap(), "$$$").await;
    assert!(error.starts_with("the framework name '$$$' leaves nothing"), "{error}");
}

#[tokio::test]
async fn connections_have_a_limit_and_datagrams_go_on() {
    let served = Served::new(many(1), |_| {}).await;
    let server = served.address();
    blocking(move || {
        let idle: Vec<TcpStream> = (0..server::MAX_TCP_CONNECTIONS_PER_CLIENT).map(|_| TcpStream::connect(server).unwrap()).collect();
        let mut one_more = TcpStream::connect(server).unwrap();
        assert_eq!(one_more.read(&mut [0; 1]).unwrap_or(0), 0, "closed at once");
        assert_eq!(ask(server, "many.marathon.mesos.", RecordType::A, None).answers.len(), 1);
        drop(idle);
        // A query that is too long ends the connection; so does something that is no query.
        for bytes in [&[0xff, 0xff][..], &[0, 3, 1, 2, 3]] {
            let mut stream = loop {
                let mut stream = TcpStream::connect(server).unwrap();
                if by_tcp_or_closed(&mut stream) {
                    break stream;
                }
            };
            stream.write_all(bytes).unwrap();
            assert_eq!(stream.read(&mut [0; 1]).unwrap_or(0), 0, "closed");
        }
    })
    .await;
    served.stop();
}

/// False when the connection was refused a place, which happens until those before are seen to be gone.
fn by_tcp_or_closed(stream: &mut TcpStream) -> bool {
    let packet = question("many.marathon.mesos.", RecordType::A, None);
    let message = [&(packet.len() as u16).to_be_bytes()[..], &packet].concat();
    stream.write_all(&message).is_ok() && stream.read_exact(&mut [0; 14]).is_ok() && {
        let mut rest = [0; 512];
        stream.read(&mut rest).is_ok()
    }
}
