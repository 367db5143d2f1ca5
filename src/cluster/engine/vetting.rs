//! Which versions of Docker's parts let a container out of its confinement, and so out of an ordinary user's hands into the whole node.
//!
//! Facts: the projects' advisories for each CVE. Distributors mend old versions without a new number of the project's own; only they know what is in
//! theirs. So a version with a distributor's mark (`1.1.5+ds1`, `1.1.12-0ubuntu3`) is no reason to refuse, only to say so; one without a mark is what
//! the project released under that number.

use std::{cmp::Ordering, fmt};

/// A part of the engine and its version, as Docker's `GET /version` names them: `runc`, `1.1.5+ds1`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// `Engine`, `containerd`, `runc`, `docker-init`
    pub name: String,
    /// As the part itself says it.
    pub version: String,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.version)
    }
}

/// A way out of a container.
struct Flaw {
    part: &'static str,
    name: &'static str,
    /// From the first number on, before the second.
    affected: &'static [(Number, Number)],
}

/// Major, minor, patch and release candidate.
type Number = (u64, u64, u64, u64);

/// A candidate's place in a release.
const RELEASE: u64 = u64::MAX;
/// Before everything.
const FIRST: Number = (0, 0, 0, 0);

const FLAWS: [Flaw; 6] = [
    Flaw { part: "runc", name: "CVE-2019-5736", affected: &[(FIRST, (1, 0, 0, 7))] },
    Flaw { part: "runc", name: "CVE-2021-30465", affected: &[(FIRST, (1, 0, 0, 95))] },
    Flaw { part: "runc", name: "CVE-2024-21626", affected: &[((1, 0, 0, 93), (1, 1, 12, RELEASE))] },
    Flaw {
        part: "runc",
        name: "CVE-2025-31133",
        affected: &[(FIRST, (1, 2, 8, RELEASE)), ((1, 3, 0, 0), (1, 3, 3, RELEASE)), ((1, 4, 0, 0), (1, 4, 0, 3))],
    },
    // A container in the node's network as root reaches the socket of containerd's shim.
    Flaw { part: "containerd", name: "CVE-2020-15257", affected: &[(FIRST, (1, 3, 9, RELEASE)), ((1, 4, 0, 0), (1, 4, 3, RELEASE))] },
    // Engines so old do not tell what runc they have.
    Flaw { part: "Engine", name: "CVE-2019-5736", affected: &[(FIRST, (18, 6, 2, RELEASE)), ((18, 9, 0, 0), (18, 9, 2, RELEASE))] },
];

/// What was found about one part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Which, and its version.
    pub part: Part,
    /// CVE numbers, the oldest first; never empty.
    pub flaws: Vec<&'static str>,
    /// From which version on, in its line of versions, it has none of them.
    pub mended_in: String,
    /// Its distributor may have mended it.
    pub may_be_mended: bool,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { part, flaws, mended_in, .. } = self;
        write!(f, "{part} lets containers out of their confinement ({}); {mended_in} does not", flaws.join(", "))
    }
}

/// What is known against these parts. A version that cannot be read has nothing against it.
pub fn findings(parts: &[Part]) -> Vec<Finding> {
    parts.iter().filter_map(finding).collect()
}

fn finding(part: &Part) -> Option<Finding> {
    let (number, may_be_mended) = read(&part.version)?;
    let affects = |flaw: &&Flaw| flaw.part == part.name;
    let end = |flaw: &Flaw| flaw.affected.iter().find(|(from, before)| (*from..*before).contains(&number)).map(|(_, before)| *before);
    let found: Vec<(&str, Number)> = FLAWS.iter().filter(affects).filter_map(|flaw| Some((flaw.name, end(flaw)?))).collect();
    let (major, minor, patch, candidate) = found.iter().map(|(_, before)| *before).max()?;
    let mended_in = match candidate {
        RELEASE => format!("{major}.{minor}.{patch}"),
        candidate => format!("{major}.{minor}.{patch}-rc{candidate}"),
    };
    Some(Finding { part: part.clone(), flaws: found.into_iter().map(|(name, _)| name).collect(), mended_in, may_be_mended })
}

/// Why no container is to be started or entered on a node with these parts.
pub fn refusal(parts: &[Part]) -> Option<String> {
    let worst: Vec<String> = findings(parts).iter().filter(|finding| !finding.may_be_mended).map(Finding::to_string).collect();
    (!worst.is_empty()).then(|| {
        let worst = worst.join("; ");
        format!("{worst}. Upgrade it on this node, or start the server with --allow_vulnerable_runtime on")
    })
}

/// The number in a version, and whether there is a distributor's mark behind it.
fn read(version: &str) -> Option<(Number, bool)> {
    let version = version.strip_prefix('v').unwrap_or(version);
    let end = version.find(|c: char| c != '.' && !c.is_ascii_digit()).unwrap_or(version.len());
    let (numbers, rest) = version.split_at(end);
    let mut numbers = numbers.split('.').map(str::parse::<u64>);
    let mut next = || numbers.next().map_or(Some(0), Result::ok);
    let (major, minor, patch) = (next()?, next()?, next()?);
    let (candidate, rest) = match rest.strip_prefix("-rc") {
        Some(rest) => {
            let rest = rest.strip_prefix('.').unwrap_or(rest);
            let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            (rest[..end].parse().ok()?, &rest[end..])
        }
        None => (RELEASE, rest),
    };
    // The projects' own marks: what is built between two releases, and Docker's community edition of old.
    let is_projects = rest.is_empty() || rest.starts_with("+dev") || rest.starts_with("-dev") || rest == "-ce";
    Some(((major, minor, patch, candidate), !is_projects))
}

/// The parts with the engine first, for people and programs.
pub fn in_order(mut parts: Vec<Part>) -> Vec<Part> {
    let rank = |part: &Part| if part.name == "Engine" { Ordering::Less } else { Ordering::Equal };
    parts.sort_by(|one, other| rank(one).cmp(&rank(other)).then_with(|| one.name.cmp(&other.name)));
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(text: &str) -> Part {
        let (name, version) = text.split_once(' ').unwrap();
        Part { name: name.to_owned(), version: version.to_owned() }
    }

    #[test]
    fn known_ways_out_are_found_by_version() {
        let check = |text: &str, expected: &str| {
            let found = findings(&[part(text)]);
            let shown = found.iter().map(|found| {
                let mark = if found.may_be_mended { " perhaps" } else { "" };
                format!("{}{mark} until {}", found.flaws.join(" "), found.mended_in)
            });
            assert_eq!(shown.collect::<String>(), expected, "{text}");
        };
        check("runc 1.0.0-rc6", "CVE-2019-5736 CVE-2021-30465 CVE-2025-31133 until 1.2.8");
        check("runc 1.0.0-rc7", "CVE-2021-30465 CVE-2025-31133 until 1.2.8");
        check("runc 1.0.0-rc92", "CVE-2021-30465 CVE-2025-31133 until 1.2.8");
        check("runc 1.0.0-rc93", "CVE-2021-30465 CVE-2024-21626 CVE-2025-31133 until 1.2.8");
        check("runc 1.0.0-rc95", "CVE-2024-21626 CVE-2025-31133 until 1.2.8");
        check("runc 1.1.11", "CVE-2024-21626 CVE-2025-31133 until 1.2.8");
        check("runc 1.1.12", "CVE-2025-31133 until 1.2.8");
        check("runc 1.2.7", "CVE-2025-31133 until 1.2.8");
        check("runc 1.2.8", "");
        check("runc 1.3.0-rc.1", "CVE-2025-31133 until 1.3.3");
        check("runc 1.3.2", "CVE-2025-31133 until 1.3.3");
        check("runc 1.3.3", "");
        check("runc 1.4.0-rc.2", "CVE-2025-31133 until 1.4.0-rc3");
        check("runc 1.4.0-rc.3", "");
        check("runc 1.4.0", "");
        check("runc 2.0.0", "");
        // Marks: a distributor's, the project's own.
        check("runc 1.1.5+ds1", "CVE-2024-21626 CVE-2025-31133 perhaps until 1.2.8");
        check("runc 1.1.12-0ubuntu3.1", "CVE-2025-31133 perhaps until 1.2.8");
        check("runc 1.3.3-0ubuntu1~24.04.3", "");
        check("runc 1.2.6+dev", "CVE-2025-31133 until 1.2.8");
        check("runc v1.2.6", "CVE-2025-31133 until 1.2.8");
        check("containerd 1.3.8", "CVE-2020-15257 until 1.3.9");
        check("containerd 1.3.9", "");
        check("containerd v1.4.2", "CVE-2020-15257 until 1.4.3");
        check("containerd 1.6.20~ds1", "");
        check("Engine 18.06.1-ce", "CVE-2019-5736 until 18.6.2");
        check("Engine 18.09.2", "");
        check("Engine 20.10.24+dfsg1", "");
        // Nothing is known, nothing is held against it.
        check("crun 1.8.1", "");
        check("runc unknown", "");
        check("runc ", "");
        check("runc 99999999999999999999.1.1", "");
    }

    #[test]
    fn a_refusal_says_what_and_what_to_do() {
        let check = |parts: &[&str], expected: Option<&str>| {
            let parts: Vec<Part> = parts.iter().map(|text| part(text)).collect();
            assert_eq!(refusal(&parts).as_deref(), expected);
        };
        check(
            &["Engine 24.0.2", "containerd 1.4.2", "runc 1.1.12"],
            Some(
                "containerd 1.4.2 lets containers out of their confinement (CVE-2020-15257); 1.4.3 does not; \
                 runc 1.1.12 lets containers out of their confinement (CVE-2025-31133); 1.2.8 does not. \
                 Upgrade it on this node, or start the server with --allow_vulnerable_runtime on",
            ),
        );
        check(&["Engine 20.10.24+dfsg1", "containerd 1.6.20~ds1", "runc 1.1.5+ds1"], None);
        check(&[], None);
    }

    #[test]
    fn the_engine_comes_first() {
        let ordered = in_order(["runc 1", "Engine 2", "containerd 3"].map(part).to_vec());
        assert_eq!(ordered, ["Engine 2", "containerd 3", "runc 1"].map(part));
    }
}
