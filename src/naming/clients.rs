//! Whose questions about other names are passed on. Whoever reaches the listener learns the platform's own names; but a name server that passes
//! on everybody's questions is an open resolver, a tool for attacks on others. So, unless the settings say otherwise, only this machine and the
//! networks attached to it are served: neighbours and containers on its bridges.

use std::{
    io::Read,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// How often the kernel's routes are read again, at most: bridges come and go.
const REREAD_AFTER: Duration = Duration::from_secs(5);

/// What is read of a table of routes, bytes. A router with more shows its attached networks among the first or not at all.
const MAX_TABLE_BYTES: u64 = 1 << 20;

/// `RTF_UP`, `RTF_GATEWAY`, `RTF_REJECT` of `linux/route.h`.
const UP: u32 = 0x1;
const GATEWAY: u32 = 0x2;
const REJECT: u32 = 0x200;

/// A range of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

impl Network {
    /// Those that share the first `prefix` bits with `address`; more bits than there are mean all.
    pub fn new(address: IpAddr, prefix: u8) -> Self {
        Self { address, prefix }
    }

    /// True for an address in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        let shared = |bits: u32, same: u32| u32::from(self.prefix).min(bits) <= same;
        match (self.address, address) {
            (IpAddr::V4(ours), IpAddr::V4(other)) => shared(32, (u32::from(ours) ^ u32::from(other)).leading_zeros()),
            (IpAddr::V6(ours), IpAddr::V6(other)) => shared(128, (u128::from(ours) ^ u128::from(other)).leading_zeros()),
            _ => false,
        }
    }
}

/// Who is served, beside this machine itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clients {
    /// Everybody.
    pub any: bool,
    /// Whoever is on a network that is attached to this machine.
    pub attached: bool,
    /// And these.
    pub networks: Vec<Network>,
}

impl Default for Clients {
    fn default() -> Self {
        Self { any: false, attached: true, networks: Vec::new() }
    }
}

/// Decides, with what the kernel says of the networks at the time.
#[derive(Debug)]
pub struct Gate {
    clients: Clients,
    attached: Mutex<Option<(Instant, Arc<[Network]>)>>,
}

impl Gate {
    /// A gate that has not looked at the networks yet.
    pub fn new(clients: Clients) -> Self {
        Self { clients, attached: Mutex::new(None) }
    }

    /// True when questions of `client` are passed on.
    pub fn admits(&self, client: IpAddr) -> bool {
        let client = client.to_canonical();
        let is_in = |networks: &[Network]| networks.iter().any(|network| network.contains(client));
        self.clients.any
            || client.is_loopback()
            || is_in(&self.clients.networks)
            || self.clients.attached && is_in(&self.attached())
            || is_local(client)
    }

    fn attached(&self) -> Arc<[Network]> {
        let mut known = self.attached.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, networks)) = &*known
            && at.elapsed() < REREAD_AFTER
        {
            return networks.clone();
        }
        let v4 = attached_v4(&table("/proc/net/route"));
        let v6 = attached_v6(&table("/proc/net/ipv6_route"));
        let networks: Arc<[Network]> = v4.into_iter().chain(v6).collect();
        *known = Some((Instant::now(), networks.clone()));
        networks
    }
}

/// True for an address of this machine: only those can be bound.
pub(super) fn is_local(address: IpAddr) -> bool {
    UdpSocket::bind((address, 0)).is_ok()
}

/// What cannot be read has nothing in it: a machine without IPv6.
fn table(path: impl AsRef<Path>) -> String {
    let mut bytes = Vec::new();
    // Read as far as it goes.
    _ = std::fs::File::open(path).and_then(|file| file.take(MAX_TABLE_BYTES).read_to_end(&mut bytes));
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The networks in `/proc/net/route`: routes without a gateway, but not one to everywhere. Addresses stand there as the processor keeps them.
fn attached_v4(text: &str) -> Vec<Network> {
    let number = |word: &str| u32::from_str_radix(word, 16).ok();
    let row = |line: &str| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let (destination, gateway, mask) = (number(words.get(1)?)?, number(words.get(2)?)?, number(words.get(7)?)?);
        let prefix = u32::from_be_bytes(mask.to_ne_bytes()).leading_ones();
        let wanted = gateway == 0 && prefix > 0 && is_attached(number(words.get(3)?)?);
        wanted.then(|| Network::new(Ipv4Addr::from(destination.to_ne_bytes()).into(), prefix as u8))
    };
    text.lines().skip(1).filter_map(row).collect()
}

/// The networks in `/proc/net/ipv6_route`: destination, its prefix, source, its prefix, next hop, metric, two counters, flags, interface.
fn attached_v6(text: &str) -> Vec<Network> {
    let number = |word: &str| u32::from_str_radix(word, 16).ok();
    let row = |line: &str| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let destination = u128::from_str_radix(words.first()?, 16).ok()?;
        let prefix = u8::from_str_radix(words.get(1)?, 16).ok()?;
        let next_hop = u128::from_str_radix(words.get(4)?, 16).ok()?;
        let wanted = next_hop == 0 && prefix > 0 && is_attached(number(words.get(8)?)?);
        wanted.then(|| Network::new(Ipv6Addr::from(destination).into(), prefix))
    };
    text.lines().filter_map(row).collect()
}

fn is_attached(flags: u32) -> bool {
    flags & UP != 0 && flags & (GATEWAY | REJECT) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Network {
        let (address, prefix) = text.split_once('/').unwrap();
        Network::new(address.parse().unwrap(), prefix.parse().unwrap())
    }

    #[test]
    fn a_network_has_the_addresses_that_share_its_prefix() {
        let check = |text: &str, address: &str, expected: bool| {
            assert_eq!(network(text).contains(address.parse().unwrap()), expected, "{text} {address}");
        };
        check("10.1.0.0/16", "10.1.255.255", true);
        check("10.1.0.0/16", "10.2.0.0", false);
        check("10.1.2.3/32", "10.1.2.3", true);
        check("10.1.2.3/32", "10.1.2.2", false);
        check("0.0.0.0/0", "255.255.255.255", true);
        check("0.0.0.0/0", "::1", false);
        check("10.0.0.0/99", "10.0.0.1", false);
        check("2001:db8::/33", "2001:db8:7fff::1", true);
        check("2001:db8::/33", "2001:db8:8000::1", false);
        check("::/0", "fe80::1", true);
        check("::1/255", "::1", true);
    }

    #[cfg(target_endian = "little")]
    #[test]
    fn attached_networks_are_read_from_the_routes() {
        let text = "\
Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT
eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0
tun0\t00000000\t00000000\t0001\t0\t0\t0\t00000000\t0\t0\t0
eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
eth0\t0000000A\t010200C0\t0003\t0\t0\t0\t000000FF\t0\t0\t0
*\t00000B0A\t00000000\t0201\t0\t0\t0\t0000FFFF\t0\t0\t0
eth1\t0001A8C0\t00000000\t0000\t0\t0\t0\t00FFFFFF\t0\t0\t0
broken line
";
        assert_eq!(attached_v4(text), [network("192.0.2.0/24"), network("172.17.0.0/16")]);
        let zero = "00000000000000000000000000000000";
        let line = |destination: &str, prefix: &str, next: &str, flags: &str| {
            format!("{destination} {prefix} {zero} 00 {next} 00000100 00000001 00000000 {flags}     eth0\n")
        };
        let text = line("fd000000000000000000000000000000", "40", zero, "00000001")
            + &line(zero, "00", "fd000000000000000000000000000001", "00000003")
            + &line("20010db8000000000000000000000000", "20", "fd000000000000000000000000000001", "00000003")
            + &line(zero, "00", zero, "00200200")
            + "broken\n";
        assert_eq!(attached_v6(&text), [network("fd00::/64")]);
    }

    #[test]
    fn this_machine_is_always_served_and_others_by_the_settings() {
        let none = Clients { any: false, attached: false, networks: Vec::new() };
        let check = |clients: &Clients, address: &str, expected: bool| {
            assert_eq!(Gate::new(clients.clone()).admits(address.parse().unwrap()), expected, "{clients:?} {address}");
        };
        for address in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            check(&none, address, true);
            check(&Clients::default(), address, true);
        }
        for stranger in ["198.51.100.7", "2001:db8::7", "8.8.8.8"] {
            check(&none, stranger, false);
            check(&Clients::default(), stranger, false);
            check(&Clients { any: true, ..none.clone() }, stranger, true);
        }
        let some = Clients { networks: vec![network("198.51.100.0/24")], ..none };
        check(&some, "198.51.100.7", true);
        check(&some, "::ffff:198.51.100.7", true);
        check(&some, "198.51.101.7", false);
    }
}
