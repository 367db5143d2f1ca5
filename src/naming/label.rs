//! How a name becomes a label: Mesos-DNS' two sanitisers, and the hash that tells tasks of one name apart.
//!
//! Facts: Mesos-DNS `records/labels` and `hashString` (the first five characters of zbase32 over SHA-1), and its published test vectors.

use serde::{Deserialize, Serialize};
use sha1::{Digest, Sha1};

use crate::model::id::PathId;

/// The longest label that DNS carries, bytes (RFC 1035, 2.3.4).
pub const MAX_LABEL_BYTES: usize = 63;

/// Which names are let through (`EnforceRFC952`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rule {
    /// At most 63 bytes, digits may come first. The default.
    #[default]
    Rfc1123,
    /// At most 24 bytes, a letter comes first.
    Rfc952,
}

impl Rule {
    /// The whole name as one label: dots and underscores become dashes, what DNS does not know is left out. May be empty. What is too long is cut,
    /// so that two long names may share a label.
    pub fn label(self, name: &str) -> String {
        let mapped: String = name.chars().filter_map(mapped).collect();
        let (text, limit) = match self {
            Self::Rfc1123 => (mapped.trim_start_matches('-'), MAX_LABEL_BYTES),
            Self::Rfc952 => (mapped.trim_start_matches(|c: char| c == '-' || c.is_ascii_digit()), 24),
        };
        let size = text.len().min(limit);
        let head = text[..size].trim_end_matches('-');
        // Dashes at the cut make room: what follows them moves up.
        let refill = if head.len() < size { text[size..].trim_start_matches('-') } else { "" };
        let refill = &refill[..refill.len().min(size - head.len())];
        format!("{head}{refill}")
    }

    /// A name with dots as several labels, each made by [`Rule::label`]; empty ones are left out.
    pub fn fragment(self, name: &str) -> String {
        name.split('.').map(|part| self.label(part)).filter(|label| !label.is_empty()).collect::<Vec<_>>().join(".")
    }
}

/// The name under which an app is found: at its tasks' own addresses, or (`at_agent`) at their agents'. Host networking calls for the first,
/// host ports of a container for the second.
pub fn host_name(rule: Rule, app: &PathId, framework_name: &str, domain: &str, at_agent: bool) -> String {
    let place = if at_agent { ".slave" } else { "" };
    format!("{}.{}{place}.{domain}", rule.label(&app.host_form()), rule.fragment(framework_name))
}

fn mapped(c: char) -> Option<char> {
    match c {
        'A'..='Z' => Some(c.to_ascii_lowercase()),
        'a'..='z' | '0'..='9' => Some(c),
        '-' | '.' | '_' => Some('-'),
        _ => None,
    }
}

/// What tells the tasks of one name apart, in their canonical names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskHash([u8; 5]);

impl TaskHash {
    /// The hash of a task's id.
    pub fn of(task_id: &str) -> Self {
        const ZBASE32: &[u8; 32] = b"ybndrfg8ejkmcpqxot1uwisza345h769";
        let digest = Sha1::digest(task_id.as_bytes());
        // Five characters take 25 bits.
        let bits = u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]) >> 7;
        Self(std::array::from_fn(|at| ZBASE32[(bits >> (20 - 5 * at) & 31) as usize]))
    }

    /// Reads it out of a name; `None` when it has another length.
    pub fn from_text(text: &str) -> Option<Self> {
        text.as_bytes().try_into().ok().map(Self)
    }

    /// Its five characters.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_becomes_one_label() {
        let check = |name: &str, rfc1123: &str, rfc952: &str| {
            assert_eq!(Rule::Rfc1123.label(name), rfc1123, "RFC 1123: {name}");
            assert_eq!(Rule::Rfc952.label(name), rfc952, "RFC 952: {name}");
        };
        let dashes = |count: usize| "-".repeat(count);
        let check_both = |name: &str, label: &str| check(name, label, label);
        check_both("", "");
        check_both("-", "");
        check_both("a---", "a");
        check_both("---a---b", "a---b");
        check_both("-abc123-", "abc123");
        check_both("a.c.d_de.", "a-c-d-de");
        check_both("api.v2.shop", "api-v2-shop");
        check_both("Grün", "grn");
        check("4abc123", "4abc123", "abc123");
        check("-4abc123", "4abc123", "abc123");
        check("123", "123", "");
        check("fd%gsf---gs7-f$gs", "fdgsf---gs7-fgs", "fdgsf---gs7-fgs");
        check("fd%gsf---gs7-f$gs--d7fddg-123", "fdgsf---gs7-fgs--d7fddg-123", "fdgsf---gs7-fgs--d7fddg1");
        check("89fdgsf---gs7-fgs--d7fddg---123", "89fdgsf---gs7-fgs--d7fddg---123", "fdgsf---gs7-fgs--d7fddg1");
        check("chronos with a space AND----------MIXED--", "chronoswithaspaceand----------mixed", "chronoswithaspaceandmixe");
        let long = format!("hello{}f", dashes(56));
        check(&long, &long, "hellof");
        check_both(&format!("hello{}f", dashes(58)), "hellof");
        check(
            "%%fdgsf---gs7-fgs--d7fddg123456789012345678901234567890123456789---123",
            "fdgsf---gs7-fgs--d7fddg1234567890123456789012345678901234567891",
            "fdgsf---gs7-fgs--d7fddg1",
        );
    }

    #[test]
    fn a_domain_keeps_its_dots() {
        let check = |name: &str, rfc1123: &str, rfc952: &str| {
            assert_eq!(Rule::Rfc1123.fragment(name), rfc1123, "RFC 1123: {name}");
            assert_eq!(Rule::Rfc952.fragment(name), rfc952, "RFC 952: {name}");
        };
        check("...", "", "");
        check("a..c.", "a.c", "a.c");
        check("MiXeDcase.CoM", "mixedcase.com", "mixedcase.com");
        check("(@ host . com", "host.com", "host.com");
        check("Marathon_B 1.9", "marathon-b1.9", "marathon-b1");
        check("pod_123$abc.marathon-0.6.0-dev.mesos", "pod-123abc.marathon-0.6.0-dev.mesos", "pod-123abc.marathon-0.dev.mesos");
    }

    #[test]
    fn tasks_are_told_apart_by_five_characters() {
        assert_eq!(TaskHash::of("test").as_str(), "iffe9");
        assert_eq!(TaskHash::from_text("iffe9"), Some(TaskHash::of("test")));
        assert_eq!(TaskHash::from_text("iffe"), None);
    }

    #[test]
    fn an_app_has_a_name_for_each_way_to_reach_it() {
        let name = |path: &str, at_agent| host_name(Rule::Rfc1123, &path.parse().unwrap(), "marathon", "mesos", at_agent);
        assert_eq!(name("/testdb", false), "testdb.marathon.mesos");
        assert_eq!(name("/testdb2", true), "testdb2.marathon.slave.mesos");
        assert_eq!(name("/shop/v2/api", false), "api-v2-shop.marathon.mesos");
    }

    proptest! {
        #[test]
        fn every_label_can_be_sent(name in "\\PC*") {
            for rule in [Rule::Rfc1123, Rule::Rfc952] {
                let label = rule.label(&name);
                prop_assert!(label.len() <= MAX_LABEL_BYTES);
                prop_assert!(label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-'));
                prop_assert!(!label.starts_with('-'));
            }
        }
    }
}
