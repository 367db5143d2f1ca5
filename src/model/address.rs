//! Where nobody is led on behalf of others: what is reached from this node alone, and what answers everybody with secrets (cloud metadata).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// AWS' metadata by IPv6.
const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x0254);
/// Alibaba's and Oracle's metadata, which are not link-local.
const METADATA_V4: [Ipv4Addr; 2] = [Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(192, 0, 0, 192)];

/// Why `address` is refused; `None`: it is not. `trusted`: whoever asks may use this node's own servers.
pub fn refusal(address: IpAddr, trusted: bool) -> Option<&'static str> {
    let address = address.to_canonical();
    let (link_local, metadata) = match address {
        IpAddr::V4(v4) => (v4.is_link_local(), METADATA_V4.contains(&v4)),
        IpAddr::V6(v6) => (v6.is_unicast_link_local(), v6 == METADATA_V6),
    };
    let embedded = match address {
        // 6to4 and NAT64 lead to an address of IPv4; the old compatible form as well.
        IpAddr::V6(v6) => embedded(v6).filter(|v4| refusal((*v4).into(), trusted).is_some()),
        IpAddr::V4(_) => None,
    };
    let unspecified = match address {
        IpAddr::V4(v4) => v4.octets()[0] == 0 || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unspecified(),
    };
    if link_local || metadata {
        Some("is link-local or serves metadata of the machine, which is never fetched")
    } else if unspecified || address.is_multicast() {
        Some("is no address of a server")
    } else if address.is_loopback() && !trusted {
        Some("is this node itself, which only administrators may fetch from")
    } else if embedded.is_some() {
        Some("stands for an address that is refused")
    } else {
        None
    }
}

fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let segments = address.segments();
    let v4 = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match segments {
        [0x2002, high, low, ..] => Some(v4(high, low)),
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0, 0, 0, 0, 0, 0, high, low] if (high, low) != (0, 0) && (high, low) != (0, 1) => {
            Some(v4(high, low))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_this_node_reaches_is_refused() {
        let check = |address: &str, trusted: bool, refused: bool| {
            assert_eq!(refusal(address.parse().unwrap(), trusted).is_some(), refused, "{address} {trusted}");
        };
        for always in [
            "169.254.169.254",
            "169.254.0.1",
            "fe80::1",
            "fd00:ec2::254",
            "100.100.100.200",
            "0.0.0.0",
            "0.1.2.3",
            "255.255.255.255",
            "::",
            "224.0.0.1",
            "ff02::1",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "2002:a9fe:a9fe::1",
            "::169.254.169.254",
        ] {
            check(always, false, true);
            check(always, true, true);
        }
        for own in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1"] {
            check(own, false, true);
            check(own, true, false);
        }
        for fine in ["10.1.2.3", "192.168.0.1", "93.184.216.34", "2606:2800::1", "fd12::1"] {
            check(fine, false, false);
        }
    }
}
