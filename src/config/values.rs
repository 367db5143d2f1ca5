//! Single values of flags: read, checked, and refused with a sentence that says what is wanted.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
    path::{Component, Path, PathBuf},
};

/// Ports from `first` to `last`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortSpan {
    /// The first port, at least 1.
    pub first: u16,
    /// The last port, not below the first.
    pub last: u16,
}

impl PortSpan {
    /// True when a port lies in both.
    pub fn overlaps(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    /// True when every port of `other` is in this one.
    pub fn contains(self, other: Self) -> bool {
        self.first <= other.first && other.last <= self.last
    }
}

impl fmt::Display for PortSpan {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}-{}", self.first, self.last)
    }
}

/// An attribute of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attribute {
    /// Its name.
    pub name: String,
    /// Its text.
    pub value: String,
}

/// Where a node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Domain {
    /// Zones of one region are near to each other.
    pub region: String,
    /// What fails together.
    pub zone: String,
}

/// What this node offers instead of what it has.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ResourceOverride {
    /// CPUs.
    pub cpus: Option<f64>,
    /// MiB.
    pub mem: Option<u64>,
    /// MiB.
    pub disk: Option<u64>,
    /// Whole ones.
    pub gpus: Option<u32>,
    /// Ports; empty: the default.
    pub ports: Vec<PortSpan>,
}

/// Some of those who may have the name server ask others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DnsClients {
    /// Everybody.
    Any,
    /// The networks that are attached to this machine.
    Attached,
    /// Whoever shares the first bits with an address.
    Network {
        /// The address.
        address: IpAddr,
        /// How many bits: at most 32 or 128.
        prefix: u8,
    },
}

pub(super) fn dns_clients(text: &str) -> Result<DnsClients, String> {
    let wanted = || "must be a network such as 10.1.0.0/16, an address, 'attached' or 'any'".to_owned();
    let (address, prefix) = match text.trim() {
        "any" => return Ok(DnsClients::Any),
        "attached" => return Ok(DnsClients::Attached),
        other => other.split_once('/').map_or((other, None), |(address, prefix)| (address, Some(prefix))),
    };
    let address: IpAddr = address.parse().map_err(|_| wanted())?;
    let bits = if address.is_ipv4() { 32 } else { 128 };
    let prefix = prefix.map_or(Some(bits), |prefix| prefix.parse().ok().filter(|prefix| *prefix <= bits));
    Ok(DnsClients::Network { address, prefix: prefix.ok_or_else(wanted)? })
}

/// A text that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("(hidden)")
    }
}

pub(super) fn on_or_off(text: &str) -> Result<bool, String> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err("must be on or off".into()),
    }
}

pub(super) fn address(text: &str) -> Result<IpAddr, String> {
    if text == "localhost" {
        return Ok(Ipv4Addr::LOCALHOST.into());
    }
    text.parse().map_err(|_| "must be an IP address".into())
}

pub(super) fn node_address(text: &str) -> Result<IpAddr, String> {
    let address: IpAddr = text.parse().map_err(|_| "must be an IP address".to_owned())?;
    if address.is_unspecified() || address.is_multicast() {
        return Err("must be an address of this node that others can reach".into());
    }
    Ok(address)
}

/// Without `.`, doubled and trailing slashes.
pub(super) fn absolute_path(text: &str) -> Result<PathBuf, String> {
    let path = Path::new(text);
    if !path.is_absolute() || path.components().any(|part| part == Component::ParentDir) {
        return Err("must be an absolute path without '..'".into());
    }
    Ok(path.components().collect())
}

pub(super) fn logging_level(text: &str) -> Result<String, String> {
    let level = text.to_ascii_lowercase();
    // Marathon's logback also knows these two.
    let level = match level.as_str() {
        "fatal" => "error",
        "all" => "trace",
        other => other,
    };
    let known = ["off", "error", "warn", "info", "debug", "trace"];
    if known.contains(&level) { Ok(level.into()) } else { Err(format!("must be one of {}", known.join(", "))) }
}

/// The last of several origins, as Marathon takes it.
pub(super) fn origin(text: &str) -> Result<String, String> {
    let origin = text.rsplit(',').map(str::trim).find(|origin| !origin.is_empty()).unwrap_or_default();
    let whole = |rest: &str| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/');
    if origin != "*" && !origin.split_once("://").is_some_and(|(scheme, rest)| matches!(scheme, "http" | "https") && whole(rest)) {
        return Err("must be an origin such as https://console.example, without a path, or *".into());
    }
    Ok(origin.to_owned())
}

/// A realm of HTTP: it stands in a header, in quotation marks.
pub(super) fn realm(text: &str) -> Result<String, String> {
    let good = |byte: u8| (byte.is_ascii_graphic() || byte == b' ') && !matches!(byte, b'"' | b'\\');
    if text.is_empty() || text.len() > 200 || !text.bytes().all(good) {
        return Err("must be 1 to 200 plain ASCII characters, without quotation marks and backslashes".into());
    }
    Ok(text.to_owned())
}

/// One label of a domain name.
pub(super) fn label(text: &str) -> Result<String, String> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if text.is_empty() || text.len() > 63 || !text.bytes().all(good) || text.starts_with('-') || text.ends_with('-') {
        return Err("must be 1 to 63 letters, digits and dashes, no dash at either end".into());
    }
    Ok(text.to_ascii_lowercase())
}

pub(super) fn host_name(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > 253 || text.chars().any(|letter| letter.is_whitespace() || letter.is_control() || letter == '/') {
        return Err("must be a host name or an address".into());
    }
    Ok(text.to_owned())
}

pub(super) fn docker_host(text: &str) -> Result<String, String> {
    let wanted = || "must be unix:///path/to/docker.sock or tcp://host:port".to_owned();
    let (scheme, rest) = text.split_once("://").ok_or_else(wanted)?;
    match scheme {
        "unix" if rest.starts_with('/') => Ok(text.to_owned()),
        "tcp" | "http" if rest.trim_end_matches('/').rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) => {
            Ok(text.to_owned())
        }
        _ => Err(wanted()),
    }
}

pub(super) fn attribute(text: &str) -> Result<Attribute, String> {
    match text.trim().split_once(':') {
        Some((name, value)) if !name.is_empty() && !value.is_empty() => Ok(Attribute { name: name.into(), value: value.into() }),
        _ => Err("must be name:value, several separated by semicolons".into()),
    }
}

pub(super) fn domain(text: &str) -> Result<Domain, String> {
    match text.trim().split_once('/') {
        Some((region, zone)) if !region.is_empty() && !zone.is_empty() => Ok(Domain { region: region.into(), zone: zone.into() }),
        _ => Err("must be REGION/ZONE, such as eu-west/eu-west-1a".into()),
    }
}

pub(super) fn resources(text: &str) -> Result<ResourceOverride, String> {
    let mut found = ResourceOverride::default();
    for part in text.split(';').map(str::trim).filter(|part| !part.is_empty()) {
        let (name, amount) = part.split_once(':').ok_or_else(|| format!("'{part}' must be name:amount"))?;
        let whole = || amount.parse::<u64>().map_err(|_| format!("{name} must be a whole number of MiB, not '{amount}'"));
        match name {
            "cpus" => {
                let cpus = amount.parse::<f64>().ok().filter(|cpus| cpus.is_finite() && *cpus > 0.0);
                found.cpus = Some(cpus.ok_or_else(|| format!("cpus must be a number above 0, not '{amount}'"))?);
            }
            "mem" => found.mem = Some(whole()?),
            "disk" => found.disk = Some(whole()?),
            "gpus" => found.gpus = Some(amount.parse().map_err(|_| format!("gpus must be a whole number, not '{amount}'"))?),
            "ports" => {
                let list =
                    amount.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).ok_or("ports must be in brackets: [31000-32000]")?;
                found.ports = list.split(',').map(|span| port_or_span(span.trim())).collect::<Result<_, _>>()?;
                found.ports.sort_by_key(|span| span.first);
                if found.ports.windows(2).any(|pair| pair[0].overlaps(pair[1])) {
                    return Err("the ranges of ports overlap".into());
                }
            }
            other => return Err(format!("'{other}' is none of cpus, mem, disk, gpus, ports")),
        }
    }
    Ok(found)
}

pub(super) fn port_span(text: &str) -> Result<PortSpan, String> {
    let wanted = || "must be FIRST-LAST, with ports from 1 to 65535 in ascending order".to_owned();
    let (first, last) = text.split_once('-').ok_or_else(wanted)?;
    let port = |text: &str| text.trim().parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(wanted);
    let span = PortSpan { first: port(first)?, last: port(last)? };
    if span.first <= span.last { Ok(span) } else { Err(wanted()) }
}

pub(super) fn port_or_span(text: &str) -> Result<PortSpan, String> {
    if text.contains('-') {
        return port_span(text);
    }
    let port = text.trim().parse::<u16>().ok().filter(|port| *port > 0);
    let port = port.ok_or_else(|| "must be a port from 1 to 65535, or a range FIRST-LAST".to_owned())?;
    Ok(PortSpan { first: port, last: port })
}

pub(super) fn overcommit(text: &str) -> Result<f64, String> {
    text.parse::<f64>().ok().filter(|factor| factor.is_finite() && *factor >= 1.0).ok_or_else(|| "must be a number of at least 1".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text<T: fmt::Debug>(result: Result<T, String>) -> String {
        result.map_or_else(|error| error, |value| format!("{value:?}"))
    }

    #[test]
    fn resources_are_read_as_mesos_writes_them() {
        let check = |input: &str, expected: &str| {
            let found = text(resources(input));
            assert!(found.contains(expected), "{input}: {found}");
        };
        check("", "cpus: None, mem: None, disk: None, gpus: None, ports: []");
        check("cpus:0.5; mem:8192 ;disk:1;", "cpus: Some(0.5), mem: Some(8192), disk: Some(1)");
        check("ports:[31500-32000, 31000]", "PortSpan { first: 31000, last: 31000 }, PortSpan { first: 31500, last: 32000 }");
        check("ports:[1-5,5-6]", "overlap");
        check("ports:1-5", "in brackets");
        check("ports:[0-5]", "from 1 to 65535");
        check("mem:1.5", "mem must be a whole number of MiB, not '1.5'");
        check("cpus:-1", "cpus must be a number above 0");
        check("cpus:NaN", "cpus must be a number above 0");
        check("gpus:2", "gpus: Some(2)");
        check("gpus:0.5", "gpus must be a whole number, not '0.5'");
        check("fpgas:1", "'fpgas' is none of");
        check("mem", "'mem' must be name:amount");
    }

    #[test]
    fn small_values_are_checked() {
        let check = |found: String, expected: &str| assert!(found.contains(expected), "{found}");
        check(text(port_span("31000-32000")), "first: 31000, last: 32000");
        check(text(port_span("5-4")), "ascending");
        check(text(port_span("80")), "FIRST-LAST");
        check(text(port_span("1-65536")), "65535");
        check(text(port_or_span("80")), "first: 80, last: 80");
        check(text(docker_host("unix:///run/docker.sock")), "unix:///run");
        check(text(docker_host("tcp://10.0.0.1:2375")), "tcp://");
        check(text(docker_host("/run/docker.sock")), "must be unix");
        check(text(docker_host("tcp://10.0.0.1")), "must be unix");
        check(text(origin("https://a, http://b:80 ,")), "\"http://b:80\"");
        check(text(origin("*")), "\"*\"");
        check(text(origin("https://a/")), "must be an origin");
        check(text(origin("console.example")), "must be an origin");
        check(text(label("Marathon")), "\"marathon\"");
        check(text(label("a.b")), "letters, digits");
        check(text(label("-a")), "letters, digits");
        check(text(logging_level("FATAL")), "\"error\"");
        check(text(logging_level("loud")), "must be one of");
        check(text(node_address("0.0.0.0")), "others can reach");
        check(text(address("localhost")), "127.0.0.1");
        check(text(attribute("rack:1:2")), "value: \"1:2\"");
        check(text(attribute("rack")), "name:value");
        check(text(domain("eu/eu-1")), "region: \"eu\", zone: \"eu-1\"");
        check(text(domain("eu")), "REGION/ZONE");
        check(text(domain("eu/")), "REGION/ZONE");
        check(text(dns_clients("any")), "Any");
        check(text(dns_clients(" attached")), "Attached");
        check(text(dns_clients("10.1.0.0/16")), "Network { address: 10.1.0.0, prefix: 16 }");
        check(text(dns_clients("10.1.2.3")), "prefix: 32");
        check(text(dns_clients("2001:db8::/33")), "prefix: 33");
        check(text(dns_clients("10.1.0.0/33")), "must be a network such as");
        check(text(dns_clients("10.1.0.0/-1")), "must be a network such as");
        check(text(dns_clients("everybody")), "must be a network such as");
        check(text(overcommit("0.5")), "at least 1");
        check(text(overcommit("inf")), "at least 1");
        check(text(absolute_path("bin/fence")), "absolute");
        check(text(absolute_path("/a/../b")), "without '..'");
        check(text(absolute_path("/a/.//b/")), "\"/a/b\"");
    }
}
