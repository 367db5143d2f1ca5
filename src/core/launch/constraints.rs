//! Placement constraints, evaluated for one node. Semantics: Marathon 1.11; `GROUP_BY` without a value as its documentation says.

use std::collections::BTreeMap;

use crate::{
    core::validate::pattern::{Pattern, Undecided},
    model::{
        agent::{Agent, Attribute, scalar_text},
        app::{Constraint, Operator},
        cluster::Offer,
    },
};

/// Patterns that are kept compiled; one more empties the store, which costs some time and nothing else.
pub const MAX_PATTERNS: usize = 256;

/// A pattern that tries counts as so many.
const TRYING: usize = 8;

/// Compiled patterns of LIKE and UNLIKE. One that does not compile (it was checked when the app was accepted) matches nothing.
#[derive(Clone, Debug, Default)]
pub struct Patterns {
    known: BTreeMap<String, Known>,
    weight: usize,
}

#[derive(Clone, Debug)]
struct Known {
    pattern: Option<Pattern>,
    /// The last value that it could not be decided for.
    undecided: Option<String>,
}

impl Patterns {
    fn matches(&mut self, text: &str, value: &str) -> Result<bool, Undecided> {
        if !self.known.contains_key(text) {
            let pattern = Pattern::read(text).ok();
            let weight = if pattern.as_ref().is_some_and(Pattern::tries) { TRYING } else { 1 };
            if self.weight + weight > MAX_PATTERNS {
                *self = Self::default();
            }
            self.weight += weight;
            self.known.insert(text.to_owned(), Known { pattern, undecided: None });
        }
        let Some(Known { pattern: Some(pattern), undecided }) = self.known.get_mut(text) else { return Ok(false) };
        let decided = pattern.matches(value);
        if decided.is_err() {
            *undecided = Some(value.to_owned());
        }
        decided
    }

    /// Why a node does not come into question though the constraint might allow it, for people: the expression was given up.
    pub fn undecided(&self, constraint: &Constraint) -> Option<String> {
        let text = constraint.value.as_deref().filter(|_| matches!(constraint.operator, Operator::Like | Operator::Unlike))?;
        let value = self.known.get(text)?.undecided.as_deref()?;
        Some(format!("the expression '{text}' of a constraint takes too long to match '{value}', which therefore does not meet it"))
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
    /// Of the node of an offer.
    pub fn of_offer(offer: &'a Offer) -> Self {
        let (region, zone) = (offer.region.as_deref(), offer.zone.as_deref());
        Self { host: &offer.host, region, zone, attributes: &offer.attributes }
    }

    /// Of a node that is known.
    pub fn of_agent(agent: &'a Agent) -> Self {
        let (region, zone) = (agent.region.as_deref(), agent.zone.as_deref());
        Self { host: &agent.host, region, zone, attributes: &agent.attributes }
    }

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
/// on their nodes; `instances`: how many the app wants. An expression that cannot be decided is not met, by UNLIKE as little as by LIKE.
pub fn is_satisfied(
    constraint: &Constraint,
    value: Option<&str>,
    counts: &BTreeMap<String, u32>,
    instances: u32,
    patterns: &mut Patterns,
) -> bool {
    // An empty value is none, as in Marathon's protobuf.
    let argument = constraint.value.as_deref().filter(|argument| !argument.is_empty());
    let Some(value) = value else { return constraint.operator == Operator::Unlike };
    let here = counts.get(value).copied().unwrap_or(0);
    match constraint.operator {
        Operator::Unique => here == 0,
        Operator::Cluster => argument.map_or(counts.is_empty() || here > 0, |wanted| value == wanted),
        Operator::Like => argument.is_some_and(|pattern| patterns.matches(pattern, value) == Ok(true)),
        Operator::Unlike => argument.is_some_and(|pattern| patterns.matches(pattern, value) == Ok(false)),
        Operator::MaxPer => argument.and_then(|most| most.parse::<u32>().ok()).is_some_and(|most| here < most),
        Operator::Is => argument.is_some_and(|wanted| value == wanted || number(wanted).is_some_and(|wanted| value == wanted)),
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
    if here == 0 {
        return counts.len() < groups as usize;
    }
    let excess: u32 = counts.values().map(|count| count.saturating_sub(quota)).sum();
    here < quota || here == quota && rest > excess
}

/// A number in the form in which nodes' attributes have it.
fn number(text: &str) -> Option<String> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if digits(whole) && digits(decimals) { text.parse().ok().map(scalar_text) } else { None }
}

#[cfg(test)]
mod tests;
