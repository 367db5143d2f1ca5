//! Who listens on this machine, by the kernel's tables of sockets: what ports are not to be given to tasks, and what is in the way of one that was given
//! its ports already.
//!
//! They are those of the server's own network namespace, which is the node's. Of TCP only what listens is read: the kernel lists it first, so that any
//! number of connections costs nothing. Of UDP, where nobody listens, what is bound and not connected; a client's socket is gone in a moment.
//!
//! Facts: `proc(5)` (`/proc/net/tcp`, `/proc/PID/fd`), `net/ipv4/tcp_ipv4.c` and `udp.c` of Linux.

use std::{
    collections::BTreeSet,
    fmt,
    fs::File,
    io::{self, BufRead, BufReader, Read},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use crate::model::{
    app::{EnvValue, Network, Protocol},
    cluster::Launch,
    pod,
    port::token,
    resources::PortRange,
};

/// So much of a table is read, bytes: some 50,000 sockets.
const MAX_BYTES: u64 = 8 << 20;
/// So many open files of all processes are looked at to find out whose a socket is.
const MAX_FILES: usize = 1 << 20;
/// So much of a process's name is told, characters: the kernel keeps fifteen bytes.
const MAX_NAME: usize = 15;
/// States of a socket, as the tables number them.
const SYN_RECEIVED: u8 = 0x03;
const CLOSED: u8 = 0x07;
const LISTENS: u8 = 0x0A;

/// What a table has of one socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Socket {
    address: IpAddr,
    port: u16,
    state: u8,
    /// 0: not told.
    inode: u64,
}

impl Socket {
    /// `  0: 0100007F:0CEA 00000000:0000 0A ...`, the number of the inode in the tenth place; `None`: the heading, or no line of such a table.
    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split_ascii_whitespace();
        let (address, port) = fields.nth(1)?.split_once(':')?;
        let state = fields.nth(1)?;
        let inode = fields.nth(5).and_then(|inode| inode.parse().ok()).unwrap_or(0);
        let port = u16::from_str_radix(port, 16).ok()?;
        Some(Self { address: parse_address(address)?, port, state: u8::from_str_radix(state, 16).ok()?, inode })
    }

    /// True when whoever wants the port on `addresses` too does not get it.
    fn is_in_the_way(&self, addresses: &[IpAddr]) -> bool {
        self.address.is_unspecified() || addresses.contains(&self.address)
    }
}

/// Words of 32 bits, each as it lies in memory.
fn parse_address(text: &str) -> Option<IpAddr> {
    let word = |at: usize| Some(u32::from_str_radix(text.get(at * 8..at * 8 + 8)?, 16).ok()?.to_ne_bytes());
    match text.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let mut bytes = [0; 16];
            for at in 0..4 {
                bytes[at * 4..at * 4 + 4].copy_from_slice(&word(at)?);
            }
            Some(IpAddr::from(Ipv6Addr::from(bytes)).to_canonical())
        }
        _ => None,
    }
}

/// The listening sockets of a table of TCP.
fn listening(table: impl Read) -> io::Result<Vec<Socket>> {
    let mut found = Vec::new();
    for line in BufReader::new(table.take(MAX_BYTES)).lines().skip(1) {
        let Some(socket) = Socket::parse(&line?) else { continue };
        match socket.state {
            LISTENS => found.push(socket),
            // Older kernels list who has just knocked with the one that listens.
            SYN_RECEIVED => {}
            _ => break,
        }
    }
    Ok(found)
}

/// The sockets of a table of UDP that take what comes from anywhere.
fn bound(table: impl Read) -> io::Result<Vec<Socket>> {
    let mut found = Vec::new();
    for line in BufReader::new(table.take(MAX_BYTES)).lines().skip(1) {
        found.extend(Socket::parse(&line?).filter(|socket| socket.state == CLOSED));
    }
    Ok(found)
}

fn read(name: &str, sort: fn(File) -> io::Result<Vec<Socket>>) -> io::Result<Vec<Socket>> {
    match File::open(format!("/proc/net/{name}")) {
        Ok(table) => sort(table),
        // A kernel without IPv6.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn listening_on_tcp() -> io::Result<Vec<Socket>> {
    let mut found = read("tcp", listening)?;
    found.extend(read("tcp6", listening)?);
    Ok(found)
}

fn bound_on_udp() -> io::Result<Vec<Socket>> {
    let mut found = read("udp", bound)?;
    found.extend(read("udp6", bound)?);
    Ok(found)
}

/// The ports of `ranges` that are in use, on whatever address. Blocks.
///
/// # Errors
/// A table cannot be read.
pub fn in_use(ranges: &[PortRange]) -> io::Result<BTreeSet<u16>> {
    let mut sockets = listening_on_tcp()?;
    sockets.extend(bound_on_udp()?);
    let is_offered = |port: &u16| ranges.iter().any(|range| range.contains(*port));
    Ok(sockets.iter().map(|socket| socket.port).filter(is_offered).collect())
}

/// A process that has a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    name: String,
    pid: u32,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (process {})", self.name, self.pid)
    }
}

/// A port that a task was given and somebody else uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    port: u16,
    /// Who; `None`: it cannot be seen.
    pub holder: Option<Holder>,
}

impl Conflict {
    /// A sentence for whoever wrote the definition. What others run on the node is told to administrators alone.
    pub fn words(&self, to_admin: bool) -> String {
        let holder = self.holder.as_ref().filter(|_| to_admin).map_or("another process".to_owned(), Holder::to_string);
        format!("port {} is in use on this node, by {holder}: stop that, or choose another port", self.port)
    }
}

/// What stands in the way of `launch` on a port of the node that it was given; `None`: nothing is known against it. Who listens on one address that is
/// none of `addresses`, the node's, leaves the others. Blocks.
pub fn conflict(launch: &Launch, addresses: &[IpAddr]) -> Option<Conflict> {
    let wanted = wanted(launch);
    if wanted.is_empty() {
        return None;
    }
    // Whoever cannot be looked for is not in the way, as far as is known.
    let tables = [("tcp", listening_on_tcp().unwrap_or_default()), ("udp", bound_on_udp().unwrap_or_default())];
    let in_the_way = |(port, protocol): &(u16, Protocol)| {
        let tables = tables.iter().filter(|(name, _)| protocol.each().contains(name));
        tables.flat_map(|(_, sockets)| sockets).find(|socket| socket.port == *port && socket.is_in_the_way(addresses)).copied()
    };
    let socket = wanted.iter().find_map(in_the_way)?;
    Some(Conflict { port: socket.port, holder: holder(socket.inode) })
}

/// The ports of the node that are for this launch alone: of a container in a pod with the node's network its own, of one in a pod with an own network all
/// of the pod.
fn wanted(launch: &Launch) -> Vec<(u16, Protocol)> {
    let (app, ports) = launch.pod.as_ref().map_or((&launch.app, &launch.ports), |shared| (&shared.app, &shared.ports));
    let definitions = app.port_definitions.iter().map(|definition| definition.protocol);
    let protocols = definitions.chain(app.port_mappings().iter().map(|mapping| mapping.protocol));
    let all: Vec<(Option<u16>, Protocol)> = app.host_ports_by_endpoint(ports).into_iter().zip(protocols).collect();
    let own = match &app.pod {
        Some(definition) if !pod::has_own_network(app) => {
            let place = launch.task.container.as_deref().and_then(|name| definition.place(name));
            place.into_iter().flat_map(|place| definition.ports_of(place)).collect()
        }
        Some(_) | None => Vec::from_iter(0..all.len()),
    };
    let mut wanted: Vec<_> =
        own.into_iter().filter_map(|at| all.get(at)).filter_map(|(port, protocol)| Some(((*port)?, *protocol))).collect();
    wanted.extend(behind_tokens(launch).map(|port| (port, Protocol::Tcp)));
    wanted
}

/// What `@PORT` stands for in the environment, where that is a port of the node. Which of a pod's containers it is for, nobody knows: another one may
/// listen there already.
fn behind_tokens(launch: &Launch) -> impl Iterator<Item = u16> + '_ {
    let containers = launch.pod.as_ref().and_then(|shared| shared.app.pod.as_ref()).map_or(1, |pod| pod.containers.len());
    let is_meant = launch.app.network == Network::Host && containers == 1;
    let texts = launch.app.env.values().filter_map(|value| if let EnvValue::Text(text) = value { Some(text) } else { None });
    let mut indexes: BTreeSet<u16> = texts.flat_map(|text| token::tokens(text)).collect();
    indexes.retain(|_| is_meant);
    launch.allotted.iter().filter(move |(index, _)| indexes.contains(index)).map(|(_, port)| *port)
}

/// The process that has a socket open, the oldest of several; `None`: it cannot be seen, or is gone.
fn holder(inode: u64) -> Option<Holder> {
    let mut pids: Vec<u32> = std::fs::read_dir("/proc").ok()?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
    pids.sort_unstable();
    let link = format!("socket:[{inode}]");
    let mut left = MAX_FILES;
    let has_it = |pid: &u32| {
        let files = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().take(left).flatten();
        let (mut seen, mut found) = (0, false);
        for file in files {
            seen += 1;
            found = std::fs::read_link(file.path()).is_ok_and(|to| to.as_os_str() == link.as_str());
            if found {
                break;
            }
        }
        left -= seen;
        found
    };
    let pid = pids.into_iter().find(has_it).filter(|_| inode != 0)?;
    let name = String::from_utf8_lossy(&std::fs::read(format!("/proc/{pid}/comm")).ok()?).trim().to_owned();
    // Whoever has the process has given it its name.
    let name = name.chars().take(MAX_NAME).map(|letter| if letter.is_control() { '?' } else { letter }).collect();
    Some(Holder { name, pid })
}

#[cfg(test)]
mod tests {
    use std::{
        net::{TcpListener, TcpStream, UdpSocket},
        sync::Arc,
    };

    use serde_json::{Value, json};

    use super::*;
    use crate::{
        cluster::engine::samples,
        model::{
            app::input::Defaults,
            app::{App, PortDefinition, PortMapping, PortNumber},
            pod::input::PodInput,
        },
    };

    #[test]
    fn a_line_says_who_listens_where() {
        let check = |line: &str, expected: Option<(&str, u16, u8)>| {
            let expected = expected.map(|(address, port, state)| Socket { address: address.parse().unwrap(), port, state, inode: 645 });
            assert_eq!(Socket::parse(line), expected, "{line}");
        };
        // As a processor with the low byte first writes it.
        let (v4, v6) = if cfg!(target_endian = "little") { ("0100007F", "01000000") } else { ("7F000001", "00000001") };
        let rest = "00000000:00000000 00:00000000 00000000     0        0 645 1 000000002501c92f 100 0 0 10 0";
        check(&format!("   0: {v4}:0CEA 00000000:0000 0A {rest}"), Some(("127.0.0.1", 3306, LISTENS)));
        check(&format!(" 120: 00000000:7918 00000000:0000 07 {rest}"), Some(("0.0.0.0", 31000, CLOSED)));
        let none = "00000000000000000000000000000000";
        check(&format!("   1: {none}:7918 {none}:0000 0A {rest}"), Some(("::", 31000, LISTENS)));
        check(&format!("   1: 000000000000000000000000{v6}:FFFF {none}:0000 01 {rest}"), Some(("::1", 65535, 1)));
        check("  sl  local_address rem_address   st tx_queue rx_queue", None);
        check("   0: 0100007F 00000000:0000 0A", None);
        check("   0: 0100007F0:0CEA 00000000:0000 0A", None);
        check("   0: 0100007F:0CEA", None);
        check("   0: ü100007:0CEA 00000000:0000 0A", None);
        check("", None);
    }

    #[test]
    fn connections_are_not_read() {
        struct Unreadable;
        impl Read for Unreadable {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                panic!("it is read on after the first connection");
            }
        }
        let line = |port: &str, state: &str| format!("   0: 00000000:{port} 00000000:0000 {state} 0 0\n");
        let text = format!("heading\n{}{}{}{}", line("7918", "0A"), line("7918", "03"), line("7919", "0A"), line("791A", "01"));
        let found = listening(text.as_bytes().chain(Unreadable)).unwrap();
        assert_eq!(found.iter().map(|socket| socket.port).collect::<Vec<_>>(), [31000, 31001]);
        let text = format!("heading\n{}{}{}", line("7918", "07"), line("7919", "01"), line("791A", "07"));
        assert_eq!(bound(text.as_bytes()).unwrap().iter().map(|socket| socket.port).collect::<Vec<_>>(), [31000, 31002]);
    }

    #[test]
    fn who_listens_is_seen_and_who_has_ended_is_not() {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(tcp.local_addr().unwrap()).unwrap();
        let ports = [tcp.local_addr().unwrap().port(), udp.local_addr().unwrap().port(), client.local_addr().unwrap().port()];
        let look = || ports.map(|port| in_use(&[PortRange::new(port, port)]).unwrap().contains(&port));
        assert_eq!(look(), [true, true, false]);
        assert!(in_use(&[]).unwrap().is_empty());
        // The connection stays in TIME_WAIT, on the port of the one that listened.
        drop((tcp.accept().unwrap(), tcp, udp));
        drop(client);
        assert_eq!(look(), [false, false, false]);
    }

    fn definition(protocol: Protocol) -> PortDefinition {
        PortDefinition { port: PortNumber::Dynamic, protocol, name: None, labels: Default::default() }
    }

    #[test]
    fn a_launch_learns_who_is_in_its_way() {
        let own = std::process::id();
        let name = std::fs::read_to_string("/proc/self/comm").unwrap();
        let holder = Holder { name: name.trim().to_owned(), pid: own };
        let check = |port: u16, protocol: Protocol, addresses: &[&str], refused: bool| {
            let mut launch = samples::launch("/a", 1);
            Arc::make_mut(&mut launch.app).port_definitions = vec![definition(Protocol::Both), definition(protocol)];
            launch.ports = vec![1, port];
            let addresses: Vec<IpAddr> = addresses.iter().map(|address| address.parse().unwrap()).collect();
            let expected = refused.then(|| Conflict { port, holder: Some(holder.clone()) });
            assert_eq!(conflict(&launch, &addresses), expected, "{protocol:?} {addresses:?}");
        };
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let (on_tcp, on_udp) = (tcp.local_addr().unwrap().port(), udp.local_addr().unwrap().port());
        check(on_tcp, Protocol::Tcp, &["10.0.0.5", "127.0.0.1"], true);
        check(on_tcp, Protocol::Both, &["10.0.0.5", "127.0.0.1"], true);
        check(on_tcp, Protocol::Udp, &["127.0.0.1"], false);
        check(on_tcp, Protocol::Tcp, &["10.0.0.5"], false);
        check(on_udp, Protocol::Udp, &["127.0.0.1"], true);
        check(on_udp, Protocol::Both, &["127.0.0.1"], true);
        check(on_udp, Protocol::Tcp, &["127.0.0.1"], false);
        check(on_udp, Protocol::Udp, &["10.0.0.5"], false);
        drop((tcp, udp));
        let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        check(gone, Protocol::Both, &["127.0.0.1"], false);
    }

    #[test]
    fn who_is_in_the_way_is_an_administrator_s_to_know() {
        let known = Conflict { port: 31000, holder: Some(Holder { name: "nginx".to_owned(), pid: 812 }) };
        let check = |conflict: &Conflict, to_admin: bool, holder: &str| {
            assert_eq!(
                conflict.words(to_admin),
                format!("port 31000 is in use on this node, by {holder}: stop that, or choose another port")
            );
        };
        check(&known, true, "nginx (process 812)");
        check(&known, false, "another process");
        check(&Conflict { holder: None, ..known }, true, "another process");
    }

    fn shown(launch: &Launch) -> String {
        let ports = wanted(launch).into_iter().map(|(port, protocol)| format!("{port}/{}", protocol.each().join(",")));
        ports.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn every_port_that_a_launch_was_given_on_the_node_is_looked_at() {
        let check = |change: &dyn Fn(&mut Launch), expected: &str| {
            let mut launch = samples::launch("/a", 1);
            launch.allotted = vec![(0, 1024), (1, 1025)];
            change(&mut launch);
            assert_eq!(shown(&launch), expected);
        };
        let app = |launch: &mut Launch, change: &dyn Fn(&mut App)| change(Arc::make_mut(&mut launch.app));
        let with_tokens = |app: &mut App| _ = app.env.insert("URL".to_owned(), EnvValue::Text("http://:@PORT1/@@PORT".to_owned()));
        let mapping = |host_port: Option<PortNumber>, protocol: Protocol| PortMapping {
            container_port: 80,
            host_port,
            service_port: 0,
            protocol,
            name: None,
            labels: Default::default(),
            network_names: Vec::new(),
        };
        let with_mappings = |app: &mut App| {
            app.network = Network::Bridge;
            let (none, some) = (None, Some(PortNumber::Dynamic));
            let mappings = vec![mapping(none, Protocol::Tcp), mapping(some, Protocol::Udp), mapping(some, Protocol::Both)];
            app.container.as_mut().unwrap().port_mappings = mappings;
        };
        check(&|_| (), "");
        check(&|launch| app(launch, &with_tokens), "1025/tcp");
        check(
            &|launch| {
                app(launch, &|app| app.port_definitions = vec![definition(Protocol::Both), definition(Protocol::Udp)]);
                app(launch, &with_tokens);
                launch.ports = vec![31000, 31001];
            },
            "31000/udp,tcp 31001/udp 1025/tcp",
        );
        check(
            &|launch| {
                app(launch, &with_mappings);
                // The number is one of the container's own network.
                app(launch, &with_tokens);
                launch.ports = vec![31000, 31001];
            },
            "31000/udp 31001/udp,tcp",
        );
    }

    #[test]
    fn of_a_pod_each_container_has_its_own() {
        let check = |network: &str, ports: &[u16], expected: &[&str]| {
            let endpoint = |name: &str, protocol: &str| match network {
                "host" => json!({"name": name, "hostPort": 0, "protocol": [protocol]}),
                _ => json!({"name": name, "containerPort": 80, "hostPort": 0, "protocol": [protocol]}),
            };
            let container = |name: &str, endpoints: Value| {
                let exec = json!({"command": {"shell": "x"}});
                json!({"name": name, "exec": exec, "resources": {"cpus": 1, "mem": 1}, "endpoints": endpoints})
            };
            let one = container("one", json!([endpoint("web", "tcp")]));
            let two = container("two", json!([endpoint("dns", "udp"), endpoint("api", "tcp")]));
            let networks = json!([{"mode": network}]);
            let written = json!({"id": "/p", "networks": networks, "environment": {"A": "@PORT"}, "containers": [one, two]});
            let app = PodInput::read(&written).unwrap().complete(&"/p".parse().unwrap(), &Defaults::default()).unwrap();
            let launch = Launch { app: app.into(), ports: ports.to_vec(), allotted: vec![(0, 1024)], ..samples::launch("/p", 1) };
            let found: Vec<String> = launch.containers().iter().map(shown).collect();
            assert_eq!(found, expected, "{network}");
        };
        check("host", &[31000, 31001, 31002], &["31000/tcp", "31001/udp 31002/tcp"]);
        check("container/bridge", &[31000, 31001, 31002], &["31000/tcp 31001/udp 31002/tcp"; 2]);
    }
}
