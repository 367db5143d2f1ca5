//! Amounts: scalars in thousandths, as Mesos rounds them, and ranges of ports.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A non-negative amount in thousandths (CPUs, MiB). Mesos rounds every scalar to three decimals; integers keep sums exact.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scalar(pub u64);

impl Scalar {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// A whole amount.
    pub const fn whole(units: u64) -> Self {
        Self(units * 1000)
    }

    /// The nearest thousandth; negative, infinite and undefined amounts become zero.
    pub fn from_f64(units: f64) -> Self {
        Self((units * 1000.0).round() as u64)
    }

    /// The amount in whole units.
    pub fn as_f64(self) -> f64 {
        self.0 as f64 / 1000.0
    }

    /// MiB in bytes; as many as can be counted at most.
    pub fn bytes(self) -> u64 {
        const MIB: u64 = 1 << 20;
        (self.0 / 1000).saturating_mul(MIB).saturating_add(self.0 % 1000 * MIB / 1000)
    }

    /// What is left after taking `other`; never below zero.
    pub fn minus(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// The sum.
    pub fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl fmt::Display for Scalar {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.as_f64())
    }
}

impl fmt::Debug for Scalar {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{self}")
    }
}

/// A JSON number; a whole amount is written without a decimal point, as Marathon does.
impl Serialize for Scalar {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.is_multiple_of(1000) { serializer.serialize_u64(self.0 / 1000) } else { serializer.serialize_f64(self.as_f64()) }
    }
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        f64::deserialize(deserializer).map(Self::from_f64)
    }
}

/// What a task may take beyond what it asks for, where others leave it idle. `None`: as if there were no limits in the definition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResourceLimits {
    /// CPUs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<ResourceLimit>,
    /// MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mem: Option<ResourceLimit>,
}

/// One limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ResourceLimit {
    /// As much as there is.
    Unlimited,
    /// So much at most; not less than what is asked for.
    At(Scalar),
}

/// An inclusive range of ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PortRange {
    /// The first port.
    pub begin: u16,
    /// The last port, included.
    pub end: u16,
}

impl PortRange {
    /// Both ends included.
    pub const fn new(begin: u16, end: u16) -> Self {
        Self { begin, end }
    }

    /// True when `port` lies within.
    pub fn contains(self, port: u16) -> bool {
        (self.begin..=self.end).contains(&port)
    }

    /// How many ports.
    pub fn count(self) -> usize {
        usize::from(self.end) + 1 - usize::from(self.begin)
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}-{}", self.begin, self.end)
    }
}

/// What a node has, offers or has given away.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// CPUs.
    pub cpus: Scalar,
    /// Memory in MiB.
    pub mem: Scalar,
    /// Disk in MiB.
    pub disk: Scalar,
    /// GPUs, whole ones.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub gpus: u32,
    /// Ports that may be used, in ascending order and apart from each other.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PortRange>,
}

/// Resources that only one role may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reserved {
    /// The role.
    pub role: String,
    /// The resources.
    pub resources: Resources,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl Resources {
    /// Takes one port out; true when it was there.
    pub fn take_port(&mut self, port: u16) -> bool {
        let Some(at) = self.ports.iter().position(|range| range.contains(port)) else { return false };
        let range = self.ports.remove(at);
        if port < range.end {
            self.ports.insert(at, PortRange::new(port + 1, range.end));
        }
        if range.begin < port {
            self.ports.insert(at, PortRange::new(range.begin, port - 1));
        }
        true
    }

    /// True when there is nothing at all.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Puts `more` in as well.
    pub fn add(&mut self, more: &Resources) {
        self.cpus = self.cpus.plus(more.cpus);
        self.mem = self.mem.plus(more.mem);
        self.disk = self.disk.plus(more.disk);
        self.gpus = self.gpus.saturating_add(more.gpus);
        self.ports.extend(&more.ports);
        self.ports.sort_unstable();
    }

    /// Takes as much of `wanted` out as there is, and says how much that was.
    pub fn draw(&mut self, wanted: &Resources) -> Resources {
        let mut drawn = Resources {
            cpus: wanted.cpus.min(self.cpus),
            mem: wanted.mem.min(self.mem),
            disk: wanted.disk.min(self.disk),
            gpus: wanted.gpus.min(self.gpus),
            ports: Vec::new(),
        };
        self.take_scalars(&drawn);
        let ports = wanted.ports.iter().flat_map(|range| range.begin..=range.end);
        drawn.ports.extend(ports.filter(|port| self.take_port(*port)).map(|port| PortRange::new(port, port)));
        drawn
    }

    /// Takes the scalar amounts of `other` out; ports are taken one by one.
    pub fn take_scalars(&mut self, other: &Resources) {
        self.cpus = self.cpus.minus(other.cpus);
        self.mem = self.mem.minus(other.mem);
        self.disk = self.disk.minus(other.disk);
        self.gpus = self.gpus.saturating_sub(other.gpus);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taking_a_port_splits_its_range() {
        let check = |ranges: &[(u16, u16)], port: u16, taken: bool, expected: &[(u16, u16)]| {
            let ports = |ranges: &[(u16, u16)]| ranges.iter().map(|&(begin, end)| PortRange::new(begin, end)).collect::<Vec<_>>();
            let mut resources = Resources { ports: ports(ranges), ..Resources::default() };
            assert_eq!(resources.take_port(port), taken);
            assert_eq!(resources.ports, ports(expected));
        };
        check(&[(1, 5)], 3, true, &[(1, 2), (4, 5)]);
        check(&[(1, 5)], 1, true, &[(2, 5)]);
        check(&[(1, 5)], 5, true, &[(1, 4)]);
        check(&[(1, 1), (9, 9)], 9, true, &[(1, 1)]);
        check(&[(65535, 65535)], 65535, true, &[]);
        check(&[(1, 5)], 6, false, &[(1, 5)]);
    }

    #[test]
    fn what_is_drawn_and_what_is_left_are_what_there_was() {
        let of = |cpus: u64, gpus: u32, ports: &[(u16, u16)]| Resources {
            cpus: Scalar::whole(cpus),
            gpus,
            ports: ports.iter().map(|&(begin, end)| PortRange::new(begin, end)).collect(),
            ..Resources::default()
        };
        let mut pool = of(2, 1, &[(1, 3)]);
        assert_eq!(pool.draw(&of(3, 0, &[(2, 2), (9, 9)])), of(2, 0, &[(2, 2)]));
        assert_eq!(pool, of(0, 1, &[(1, 1), (3, 3)]));
        assert!(pool.draw(&of(1, 2, &[(1, 1), (3, 3)])) == of(0, 1, &[(1, 1), (3, 3)]) && pool.is_empty());
        pool.add(&of(1, 1, &[(7, 9)]));
        pool.add(&of(1, 0, &[(1, 2)]));
        assert_eq!(pool, of(2, 1, &[(1, 2), (7, 9)]));
    }

    #[test]
    fn scalars_are_written_as_marathon_writes_numbers() {
        let check = |units: f64, expected: &str| assert_eq!(serde_json::to_string(&Scalar::from_f64(units)).unwrap(), expected);
        check(1.0, "1");
        check(0.1, "0.1");
        check(0.1 + 0.2, "0.3");
        check(-1.0, "0");
    }
}
