//! Who listens on this machine, by the kernel's tables of sockets: what ports are not to be given to tasks.
//!
//! They are those of the server's own network namespace, which is the node's. Of TCP only what listens is read: the kernel lists it first, so that any
//! number of connections costs nothing. Of UDP, where nobody listens, what is bound and not connected; a client's socket is gone in a moment.
//!
//! Facts: `proc(5)` (`/proc/net/tcp`), `net/ipv4/tcp_ipv4.c` and `udp.c` of Linux.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, BufRead, BufReader, Read},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use crate::model::{cluster::Launch, resources::PortRange};

/// So much of a table is read, bytes: some 50,000 sockets.
const MAX_BYTES: u64 = 8 << 20;
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
}

impl Socket {
    /// `  0: 0100007F:0CEA 00000000:0000 0A ...`; `None`: the heading, or no line of such a table.
    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split_ascii_whitespace();
        let (address, port) = fields.nth(1)?.split_once(':')?;
        let state = fields.nth(1)?;
        let port = u16::from_str_radix(port, 16).ok()?;
        Some(Self { address: parse_address(address)?, port, state: u8::from_str_radix(state, 16).ok()? })
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

/// The ports of `ranges` that are in use, on whatever address. Blocks.
///
/// # Errors
/// A table cannot be read.
pub fn in_use(ranges: &[PortRange]) -> io::Result<BTreeSet<u16>> {
    let mut sockets = listening_on_tcp()?;
    sockets.extend(read("udp", bound)?);
    sockets.extend(read("udp6", bound)?);
    let is_offered = |port: &u16| ranges.iter().any(|range| range.contains(*port));
    Ok(sockets.iter().map(|socket| socket.port).filter(is_offered).collect())
}

/// Why `launch`, with the node's network, could not listen on a port that it was given; `None`: nothing is known against it. Who listens on one address
/// that is none of `addresses`, the node's, leaves the others; and a port of UDP may be shared. Blocks.
pub fn conflict(launch: &Launch, addresses: &[IpAddr]) -> Option<String> {
    // Whoever cannot be looked for is not in the way, as far as is known.
    let listening = listening_on_tcp().unwrap_or_default();
    let is_taken = |port: u16| {
        let mut own = listening.iter().filter(|socket| socket.port == port);
        own.any(|socket| socket.address.is_unspecified() || addresses.contains(&socket.address))
    };
    let wanted = launch.app.port_definitions.iter().zip(&launch.ports);
    let of_tcp = wanted.filter(|(definition, _)| definition.protocol.each().contains(&"tcp"));
    let port = of_tcp.map(|(_, port)| *port).find(|port| is_taken(*port))?;
    Some(format!("port {port} is in use on this node, by somebody who was not given it: stop that, or choose another port"))
}

#[cfg(test)]
mod tests {
    use std::{
        net::{TcpListener, TcpStream, UdpSocket},
        sync::Arc,
    };

    use super::*;
    use crate::{
        cluster::engine::samples,
        model::app::{PortDefinition, PortNumber, Protocol},
    };

    #[test]
    fn a_line_says_who_listens_where() {
        let check = |line: &str, expected: Option<(&str, u16, u8)>| {
            let expected = expected.map(|(address, port, state)| Socket { address: address.parse().unwrap(), port, state });
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

    #[test]
    fn a_launch_learns_who_is_in_its_way() {
        let check = |listens: &str, protocol: Protocol, addresses: &[&str], refused: bool| {
            let listener = TcpListener::bind(listens).unwrap();
            let port = listener.local_addr().unwrap().port();
            let mut launch = samples::launch("/a", 1);
            let definition = |protocol| PortDefinition { port: PortNumber::Dynamic, protocol, name: None, labels: Default::default() };
            Arc::make_mut(&mut launch.app).port_definitions = vec![definition(Protocol::Udp), definition(protocol)];
            launch.ports = vec![1, port];
            let addresses: Vec<IpAddr> = addresses.iter().map(|address| address.parse().unwrap()).collect();
            let words = format!("port {port} is in use on this node, by somebody who was not given it: stop that, or choose another port");
            assert_eq!(conflict(&launch, &addresses), refused.then_some(words), "{listens}");
            drop(listener);
            assert_eq!(conflict(&launch, &addresses), None);
        };
        check("127.0.0.1:0", Protocol::Tcp, &["10.0.0.5", "127.0.0.1"], true);
        check("127.0.0.1:0", Protocol::Both, &["10.0.0.5", "127.0.0.1"], true);
        check("127.0.0.1:0", Protocol::Udp, &["127.0.0.1"], false);
        check("127.0.0.1:0", Protocol::Tcp, &["10.0.0.5"], false);
    }
}
