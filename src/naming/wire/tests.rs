use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use arc_swap::ArcSwap;
use hickory_proto::{
    op::{Edns as HickoryEdns, MessageType},
    rr::{Name, RecordType},
};
use proptest::prelude::*;

use super::*;
use crate::naming::{
    Settings,
    clients::{Clients, Gate},
    fixture::{NOW, World},
    forward::{Forwarder, Resolvers, Transport},
    server::{Heard, Service},
    zone::{Plan, Zone},
};

const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A server that is never started: it only hears.
fn service(tasks: u8) -> Service {
    let mut world = World::default();
    world.agent("x-S0", &["10.0.0.1", "fd00::1"]);
    world.app("/shop/web", "overlay", &["http:80/tcp", "53/udp,tcp"]);
    for number in 1..=tasks {
        world.run("/shop/web", number.into(), "x-S0", &[&format!("9.0.0.{number}"), &format!("fd00::{number}")], &[]);
    }
    let settings = Settings::new("marathon", vec!["10.0.0.1".parse().unwrap()], vec![]);
    let zone = Zone::build(Arc::new(Plan::new(&settings, &[])), &world.view(), NOW);
    Service {
        zone: Arc::new(ArcSwap::from_pointee(zone)),
        forwarder: Forwarder::new(Resolvers::Fixed(vec![]), vec![]),
        gate: Gate::new(Clients::default()),
        max_udp_payload: MAX_UDP_PAYLOAD,
    }
}

fn query(name: &str, kind: RecordType, payload: Option<u16>) -> Vec<u8> {
    let mut message = Message::new(0x1234, MessageType::Query, OpCode::Query);
    message.add_query(Question::query(Name::from_ascii(name).unwrap(), kind));
    if let Some(payload) = payload {
        let mut edns = HickoryEdns::new();
        edns.set_max_payload(payload);
        message.set_edns(edns);
    }
    message.to_vec().unwrap()
}

fn hear(packet: &[u8]) -> Heard {
    service(2).hear(packet, Transport::Udp, CLIENT)
}

#[test]
fn what_is_no_question_gets_a_header_or_nothing() {
    let good = query("web-shop.marathon.mesos.", RecordType::A, None);
    let check = |change: fn(&mut Vec<u8>), expected: Option<(u8, u8)>| {
        let mut packet = good.clone();
        change(&mut packet);
        let expected = expected.map_or(Heard::Nothing, |flags| Heard::Reply(vec![0x12, 0x34, flags.0, flags.1, 0, 0, 0, 0, 0, 0, 0, 0]));
        assert_eq!(hear(&packet), expected, "{packet:?}");
    };
    check(|packet| packet.truncate(0), None);
    check(|packet| packet.truncate(11), None);
    check(|packet| packet[2] |= 0x80, None);
    check(|packet| packet.truncate(12), Some((0x80, 1)));
    check(|packet| packet.truncate(30), Some((0x80, 1)));
    check(|packet| packet[5] = 0, Some((0x80, 1)));
    check(|packet| packet[5] = 2, Some((0x80, 1)));
    check(|packet| packet[11] = 1, Some((0x80, 1)));
    // A name that points into the header.
    check(|packet| drop(packet.splice(12..21, [0xc0, 0x00])), Some((0x80, 1)));
    // NOTIFY and UPDATE.
    check(|packet| packet[2] = 0x20, Some((0xa0, 4)));
    check(|packet| packet[2] = 0x29, Some((0xa9, 4)));
}

#[test]
fn what_cannot_be_answered_is_told_with_the_question() {
    let status = |packet: &[u8]| {
        let Heard::Reply(reply) = hear(packet) else { panic!("no reply") };
        let reply = Message::from_vec(&reply).unwrap();
        assert_eq!(reply.queries.len(), 1);
        u16::from(reply.metadata.response_code)
    };
    let mut chaos = query("version.bind.", RecordType::TXT, None);
    *chaos.last_mut().unwrap() = 3;
    assert_eq!(status(&chaos), 5);
    let mut future = query("web-shop.marathon.mesos.", RecordType::A, Some(1232));
    let version_at = future.len() - 5;
    future[version_at] = 1;
    assert_eq!(status(&future), 16);
}

#[test]
fn names_with_odd_bytes_are_no_names_of_ours() {
    let odd = |label: &[u8]| {
        let mut packet = query("web-shop.marathon.mesos.", RecordType::A, None);
        packet.splice(12..21, [&[label.len() as u8], label].concat());
        Query::read(&packet).unwrap().name
    };
    assert_eq!(odd(b"WEB-Shop"), "web-shop.marathon.mesos");
    assert_eq!(odd(b"web.shop"), "web\\.shop.marathon.mesos");
    assert_eq!(odd(b"a\\b c\xff\0"), "a\\\\b\\032c\\255\\000.marathon.mesos");
}

#[test]
fn a_reply_counts_only_for_its_question() {
    let packet = query("Example.org.", RecordType::A, None);
    let question = Query::read(&packet).unwrap();
    let mut reply = question.status(Status::NoError);
    assert!(question.is_answered_by(&reply, 0x1234));
    assert!(!question.is_answered_by(&reply, 0x1235));
    assert!(!question.is_answered_by(&packet, 0x1234));
    assert!(!question.is_answered_by(&reply[..reply.len() - 1], 0x1234));
    reply[13] ^= 1;
    assert!(!question.is_answered_by(&reply, 0x1234));
}

#[test]
fn a_name_that_cannot_be_sent_leaves_its_record_out() {
    let packet = query("x.mesos.", RecordType::SRV, None);
    let service = |target: &str| Record { owner: Owner::Asked, data: Data::Srv { weight: 1, port: 1, target: target.into() } };
    let long = "x".repeat(64);
    let answers = vec![service("a.mesos"), service(&format!("ok.{long}.mesos")), service("a..mesos"), service("ok.mesos")];
    let glue = Record { owner: Owner::Named("ok.mesos".into()), data: Data::A([10, 0, 0, 1].into()) };
    let answer = Answer { rcode: Rcode::NoError, answers, authority: vec![], additional: vec![glue], ttl: 60 };
    let reply = Message::from_vec(&Query::read(&packet).unwrap().reply(&answer, 512)).unwrap();
    let targets: Vec<String> = reply.answers.iter().map(|record| record.data.to_string()).collect();
    assert_eq!(targets, ["0 1 1 a.mesos.", "0 1 1 ok.mesos."]);
    assert_eq!(reply.additionals[0].name.to_ascii(), "ok.mesos.");
}

fn kinds() -> impl Strategy<Value = RecordType> {
    use RecordType::{A, AAAA, ANY, MX, NS, PTR, SOA, SRV, TXT};
    prop_oneof![Just(A), Just(AAAA), Just(SRV), Just(SOA), Just(NS), Just(ANY), Just(TXT), Just(MX), Just(PTR)]
}

const NAMES: [&str; 8] = [
    "web-shop.marathon.mesos.",
    "WEB.shop.marathon.mesos.",
    "_web-shop._tcp.marathon.mesos.",
    "_http._Web.Shop._tcp.marathon.mesos.",
    "web-shop.marathon.slave.mesos.",
    "mesos.",
    "no.such.name.mesos.",
    "_leader._tcp.mesos.",
];

proptest! {
    #[test]
    fn a_datagram_never_grows_beyond_what_was_allowed(packet in proptest::collection::vec(any::<u8>(), 0..300)) {
        if let Heard::Reply(reply) = hear(&packet) {
            // Hardly any of these is a question; the others get their header back.
            prop_assert!(reply.len() == HEADER_BYTES || reply.len() <= MAX_UDP_PAYLOAD.into());
            prop_assert_eq!(&reply[..2], &packet[..2]);
            prop_assert!(packet[2] & 0x80 == 0 && reply[2] & 0x80 != 0);
        }
    }

    #[test]
    fn a_damaged_question_does_no_harm(
        name in 0..NAMES.len(),
        kind in kinds(),
        payload in proptest::option::of(any::<u16>()),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let mut packet = query(NAMES[name], kind, payload);
        for (at, byte) in damage {
            let at = at.index(packet.len());
            packet[at] = byte;
        }
        if let Some(cut) = cut {
            packet.truncate(cut.index(packet.len()));
        }
        for transport in [Transport::Udp, Transport::Tcp] {
            if let Heard::Reply(reply) = service(40).hear(&packet, transport, CLIENT) {
                let limit = Query::read(&packet).map_or(HEADER_BYTES, |query| query.datagram_limit(MAX_UDP_PAYLOAD));
                prop_assert!(transport == Transport::Tcp || reply.len() <= limit);
                let read = Message::from_vec(&reply);
                prop_assert!(read.is_ok(), "{:?}", read);
            }
        }
    }

    #[test]
    fn every_reply_is_read_as_it_was_meant(
        tasks in 0..80_u8,
        name in 0..NAMES.len(),
        kind in kinds(),
        payload in proptest::option::of(512..5000_u16),
    ) {
        let service = service(tasks);
        let packet = query(NAMES[name], kind, payload);
        let Heard::Reply(whole) = service.hear(&packet, Transport::Tcp, CLIENT) else { panic!("no reply") };
        let whole = Message::from_vec(&whole).unwrap();
        prop_assert!(!whole.metadata.truncation);
        let Heard::Reply(reply) = service.hear(&packet, Transport::Udp, CLIENT) else { panic!("no reply") };
        let reply = Message::from_vec(&reply).unwrap();
        prop_assert_eq!(reply.metadata.response_code, whole.metadata.response_code);
        prop_assert_eq!(reply.authorities.len(), whole.authorities.len());
        prop_assert_eq!(reply.metadata.truncation, reply.answers.len() + reply.additionals.len() < whole.answers.len() + whole.additionals.len());
        prop_assert!(reply.additionals.is_empty() || reply.answers.len() == whole.answers.len());
        for record in reply.answers.iter().chain(&reply.additionals) {
            prop_assert!(whole.answers.contains(record) || whole.additionals.contains(record), "{}", record);
        }
    }
}
