//! Placement constraints, evaluated for one node. Semantics: Marathon 1.11; `GROUP_BY` without a value as its documentation says.

use std::collections::BTreeMap;

use regex::Regex;

use crate::{
    core::validate::constraint_regex,
    model::{
        agent::Attribute,
        app::{Constraint, Operator},
    },
};

/// Patterns that are kept compiled; one more empties the store, which costs some time and nothing else.
pub const MAX_PATTERNS: usize = 256;

/// Compiled patterns of LIKE and UNLIKE. A pattern that does not compile (it was checked when the app was accepted) matches nothing.
#[derive(Clone, Debug, Default)]
pub struct Patterns(BTreeMap<String, Option<Regex>>);

impl Patterns {
    fn matches(&mut self, pattern: &str, value: &str) -> bool {
        if self.0.len() >= MAX_PATTERNS && !self.0.contains_key(pattern) {
            self.0.clear();
        }
        let regex = self.0.entry(pattern.to_owned()).or_insert_with(|| constraint_regex(pattern).ok());
        regex.as_ref().is_some_and(|regex| regex.is_match(value))
    }
}

/// What a constraint's field may be compared with, on one node.
#[derive(Clone, Copy, Debug)]
pub struct NodeFacts<'a> {
    /// `hostname`
    pub host: &'a str,
    /// `@region`
    pub region: Option<&'a str>,
    /// `@zone`
    pub zone: Option<&'a str>,
    /// All others.
    pub attributes: &'a [Attribute],
}

impl<'a> NodeFacts<'a> {
    /// The field's value on this node; `None` when it has none.
    pub fn value(&self, field: &str) -> Option<&'a str> {
        match field {
            "hostname" | "@hostname" => Some(self.host),
            "@region" => self.region,
            "@zone" => self.zone,
            _ => self.attributes.iter().find(|attribute| attribute.name == field).map(|attribute| attribute.text.as_str()),
        }
    }
}

/// True when a further instance may go to a node whose field has `value`. `counts`: instances of the present configuration by the field's value
/// on their nodes; `instances`: how many the app wants.
pub fn is_satisfied(
    constraint: &Constraint,
    value: Option<&str>,
    counts: &BTreeMap<String, u32>,
    instances: u32,
    patterns: &mut Patterns,
) -> bool {
    let argument = constraint.value.as_deref();
    let Some(value) = value else { return constraint.operator == Operator::Unlike };
    let here = counts.get(value).copied().unwrap_or(0);
    match constraint.operator {
        Operator::Unique => here == 0,
        Operator::Cluster => match argument {
            Some(wanted) if !wanted.is_empty() => value == wanted,
            _ => counts.is_empty() || here > 0,
        },
        Operator::Like => argument.is_some_and(|pattern| patterns.matches(pattern, value)),
        Operator::Unlike => argument.is_some_and(|pattern| !patterns.matches(pattern, value)),
        Operator::MaxPer => argument.and_then(|most| most.parse::<u32>().ok()).is_some_and(|most| here < most),
        Operator::Is => argument.is_some_and(|wanted| is_equal(wanted, value)),
        Operator::GroupBy => group_by(argument, here, counts, instances),
    }
}

/// `groups` expected: each takes its share, and the first ones to grow take what does not divide evenly.
fn group_by(argument: Option<&str>, here: u32, counts: &BTreeMap<String, u32>, instances: u32) -> bool {
    let groups = argument.and_then(|groups| groups.parse::<u32>().ok()).filter(|groups| *groups > 0);
    let Some(groups) = groups else {
        return counts.values().all(|count| here <= *count);
    };
    let (quota, rest) = (instances / groups, instances % groups);
    if here == 0 && counts.len() >= groups as usize {
        return false;
    }
    let excess: u32 = counts.values().map(|count| count.saturating_sub(quota)).sum();
    here < quota || here == quota && rest.saturating_sub(excess) > 0
}

/// Text equality; numbers are compared as numbers with three decimals.
fn is_equal(wanted: &str, value: &str) -> bool {
    let number = |text: &str| text.parse::<f64>().ok().map(|number| (number * 1000.0).round());
    wanted == value || number(wanted).is_some_and(|wanted| Some(wanted) == number(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `counts` as `a=2 b=1`; the offer's value or `-` for none.
    fn check(operator: Operator, argument: Option<&str>, counts: &str, instances: u32, value: &str, expected: bool) {
        let constraint = Constraint { field: "rack".into(), operator, value: argument.map(Into::into) };
        let counts =
            counts.split_whitespace().map(|pair| pair.split_once('=').unwrap()).map(|(v, n)| (v.to_owned(), n.parse().unwrap())).collect();
        let value = (value != "-").then_some(value);
        assert_eq!(
            is_satisfied(&constraint, value, &counts, instances, &mut Patterns::default()),
            expected,
            "{constraint:?} {counts:?} {value:?}"
        );
    }

    #[test]
    fn operators_decide_as_marathon_does() {
        use Operator::*;
        check(Unique, None, "a=1", 3, "a", false);
        check(Unique, None, "a=1", 3, "b", true);
        check(Unique, None, "", 3, "-", false);
        check(Cluster, Some("a"), "", 3, "a", true);
        check(Cluster, Some("a"), "", 3, "b", false);
        check(Cluster, None, "", 3, "b", true);
        check(Cluster, None, "b=2", 3, "b", true);
        check(Cluster, None, "b=2", 3, "a", false);
        check(Like, Some("r[12]"), "", 3, "r1", true);
        check(Like, Some("r[12]"), "", 3, "r12", false);
        check(Like, Some("a|bc"), "", 3, "abc", false);
        check(Unlike, Some("r[12]"), "", 3, "r3", true);
        check(Unlike, Some("r[12]"), "", 3, "-", true);
        check(Unlike, Some("r[12]"), "", 3, "r2", false);
        check(MaxPer, Some("2"), "a=1", 9, "a", true);
        check(MaxPer, Some("2"), "a=2", 9, "a", false);
        check(MaxPer, Some("x"), "", 9, "a", false);
        check(Is, Some("4"), "", 9, "4.0", true);
        check(Is, Some("east"), "", 9, "east", true);
        check(Is, Some("east"), "", 9, "eas", false);
    }

    #[test]
    fn groups_fill_evenly() {
        use Operator::GroupBy;
        check(GroupBy, Some("3"), "a=1 b=1", 5, "a", true);
        check(GroupBy, Some("3"), "a=2 b=2", 5, "a", false);
        check(GroupBy, Some("3"), "a=2 b=1", 5, "b", true);
        check(GroupBy, Some("3"), "a=2 b=2", 5, "c", true);
        check(GroupBy, Some("2"), "a=2 b=2", 5, "c", false);
        check(GroupBy, None, "a=1 b=2", 5, "a", true);
        check(GroupBy, None, "a=1 b=2", 5, "b", false);
        check(GroupBy, None, "a=1 b=1", 5, "c", true);
    }
}
