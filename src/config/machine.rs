//! What settings fall back to: this machine's name, its address on the route out, the current directory. Asked once, handed to the pure rest.

use std::{
    net::{IpAddr, Ipv4Addr, UdpSocket},
    path::PathBuf,
};

/// The machine as far as defaults depend on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Its host name.
    pub host_name: String,
    /// Its address on the route out, or any other that is not loopback; `None` without a network.
    pub address: Option<IpAddr>,
    /// Where relative paths begin.
    pub directory: PathBuf,
}

impl Machine {
    /// Looks at this machine. What cannot be found out is left out.
    pub fn detect() -> Self {
        let node_name = rustix::system::uname().nodename().to_string_lossy().into_owned();
        Self {
            host_name: if node_name.is_empty() { "localhost".into() } else { node_name },
            address: route_address().or_else(any_address),
            directory: std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/")),
        }
    }
}

/// The source address that the kernel would use for an address of the Internet. Connecting a UDP socket chooses it and sends nothing.
fn route_address() -> Option<IpAddr> {
    // 198.51.100.1 is reserved for documentation (RFC 5737); it only has to lie behind the default route.
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((Ipv4Addr::new(198, 51, 100, 1), 9)).ok()?;
    socket.local_addr().ok().map(|address| address.ip()).filter(usable)
}

/// Without a route out: an address of this machine, from the kernel's table of local ones.
fn any_address() -> Option<IpAddr> {
    let table = std::fs::read_to_string("/proc/net/fib_trie").ok()?;
    let bridges = docker_networks(&std::fs::read_to_string("/proc/net/route").unwrap_or_default());
    local_addresses(&table)
        .into_iter()
        .find(|address| !bridges.iter().any(|(network, mask)| u32::from(*address) & mask == *network))
        .map(IpAddr::from)
        .filter(usable)
}

fn usable(address: &IpAddr) -> bool {
    !address.is_loopback() && !address.is_unspecified() && !matches!(address, IpAddr::V4(v4) if v4.is_link_local())
}

/// The addresses that `/proc/net/fib_trie` calls `host LOCAL`, loopback and link-local ones left out.
fn local_addresses(table: &str) -> Vec<Ipv4Addr> {
    let mut found = Vec::new();
    let mut last = None;
    for line in table.lines().map(str::trim) {
        if let Some(address) = line.strip_prefix("|-- ") {
            last = address.parse::<Ipv4Addr>().ok();
        } else if line == "/32 host LOCAL"
            && let Some(address) = last
            && !address.is_loopback()
            && !address.is_link_local()
            && !found.contains(&address)
        {
            found.push(address);
        }
    }
    found
}

/// Network and mask of Docker's bridges, from `/proc/net/route` (numbers there are in the byte order of the machine).
fn docker_networks(routes: &str) -> Vec<(u32, u32)> {
    let number = |text: &str| u32::from_str_radix(text, 16).ok().map(|bits| u32::from_be_bytes(bits.to_ne_bytes()));
    let network = |line: &str| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let [interface, destination, _, _, _, _, _, mask, ..] = columns[..] else { return None };
        (interface.starts_with("docker") || interface.starts_with("br-")).then_some(())?;
        Some((number(destination)?, number(mask)?))
    };
    routes.lines().filter_map(network).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_address_is_never_loopback() {
        let machine = Machine::detect();
        assert!(machine.address.is_none_or(|address| !address.is_loopback()), "{machine:?}");
        assert!(!machine.host_name.is_empty() && machine.directory.is_absolute());
    }

    #[test]
    fn local_addresses_are_found_in_the_kernels_table() {
        let table = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\n     |-- 10.1.2.3\n        /32 host LOCAL\n\
                     |-- 10.1.2.255\n /32 link BROADCAST\n |-- 127.0.1.1\n /32 host LOCAL\n |-- 172.17.0.1\n /32 host LOCAL\n\
                     |-- 169.254.1.1\n /32 host LOCAL\nLocal:\n |-- 10.1.2.3\n /32 host LOCAL\n";
        assert_eq!(local_addresses(table), [Ipv4Addr::new(10, 1, 2, 3), Ipv4Addr::new(172, 17, 0, 1)]);
    }

    #[test]
    fn dockers_bridges_are_known_by_their_interfaces() {
        let routes = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n\
                      eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n\
                      docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n";
        let expected = (u32::from(Ipv4Addr::new(172, 17, 0, 0)), u32::from(Ipv4Addr::new(255, 255, 0, 0)));
        assert_eq!(docker_networks(routes), [expected]);
    }
}
