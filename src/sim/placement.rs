//! What nodes are like, and a second opinion on where instances may go: Marathon's rules over the list of those that are in the way, never what the
//! core counts.

use regex::Regex;

use super::{
    master::Pools,
    rng::Rng,
    trace::short_instance,
    workload::{GROUP_ROLE, host_name},
    world::World,
};
use crate::model::{
    agent::{Attribute, scalar_text},
    app::{App, Constraint, Operator},
    cluster::{Launch, Offer},
    id::InstanceId,
    instance::{Condition, Instance},
    resources::{Reserved, Resources, Scalar},
};

/// Where the master is.
pub const LOCAL_REGION: &str = "west";

/// Where some nodes are.
pub const REMOTE_REGION: &str = "east";

/// How many racks a cluster has.
pub fn racks(agents: u64) -> u64 {
    (agents / 4).clamp(2, 20)
}

/// What constraints can ask of a node, and what it has besides.
#[derive(Clone, Debug)]
pub struct Facts {
    pub(super) host: String,
    pub(super) region: &'static str,
    pub(super) zone: String,
    pub(super) attributes: Vec<Attribute>,
    pub(super) rack: u64,
    pub(super) gpus: u32,
    /// Hundredths of the node that are reserved for one role.
    pub(super) reserved: u64,
}

impl Facts {
    pub(super) fn draw(seed: u64, at: usize, agents: u64) -> Self {
        let mut rng = Rng::part(seed, 1_000_000 + at as u64);
        let rack = at as u64 % racks(agents);
        let region = if rng.chance(120) { REMOTE_REGION } else { LOCAL_REGION };
        let mut attributes = vec![("rack", format!("rack-{rack}"))];
        let mut some = |name, values: &[&str]| {
            if rng.chance(850) {
                attributes.push((name, (*rng.pick(values)).to_owned()));
            }
        };
        some("level", &["1.50", "1.5", "2", "2.00049"]);
        some("jdk", &["[5-7]", "[8-9, 5-6]", "[11-17]"]);
        some("cards", &["{b,a}", "{a, b}", "{c}"]);
        let attributes = attributes.iter().map(|(name, value)| Attribute::read(name, value).expect("the world's attributes are valid"));
        Self {
            host: host_name(at as u64),
            region,
            zone: format!("{region}-{}", rack % 3),
            attributes: attributes.collect(),
            rack,
            gpus: if rng.chance(100) { rng.within(1, 4) as u32 } else { 0 },
            reserved: if rng.chance(200) { rng.within(20, 60) } else { 0 },
        }
    }

    /// Divides what a node has.
    pub(super) fn divide(&self, mut all: Resources) -> Pools {
        all.gpus = self.gpus;
        let part = |amount: Scalar| Scalar(amount.0 * self.reserved / 100);
        let mut reserved = Resources { cpus: part(all.cpus), mem: part(all.mem), disk: part(all.disk), ..Resources::default() };
        if self.reserved > 0 {
            // The last of the ports too.
            let last = all.ports.last().map(|range| range.end);
            reserved.ports = last.into_iter().map(|port| crate::model::resources::PortRange::new(port - 4, port)).collect();
        }
        let reserved = all.draw(&reserved);
        Pools { common: all, reserved: joined(reserved) }
    }

    fn value(&self, field: &str) -> Option<&str> {
        match field {
            "hostname" => Some(&self.host),
            "@region" => Some(self.region),
            "@zone" => Some(&self.zone),
            _ => self.attributes.iter().find(|attribute| attribute.name == field).map(|attribute| attribute.text.as_str()),
        }
    }
}

/// Whether one more may go where the field has `here`; `placed`: the values where the others are.
fn allows(constraint: &Constraint, here: Option<&str>, placed: &[Option<&str>], wanted: u32) -> bool {
    let argument = constraint.value.as_deref().unwrap_or_default();
    let Some(here) = here else { return constraint.operator == Operator::Unlike };
    let same = placed.iter().filter(|value| **value == Some(here)).count();
    let matches = || Regex::new(&format!("^(?:{argument})$")).is_ok_and(|regex| regex.is_match(here));
    match constraint.operator {
        Operator::Unique => same == 0,
        Operator::Cluster if argument.is_empty() => placed.first().is_none_or(|first| *first == Some(here)) || same > 0,
        Operator::Cluster => here == argument,
        Operator::Like => matches(),
        Operator::Unlike => !matches(),
        Operator::MaxPer => argument.parse().is_ok_and(|most: usize| same < most),
        Operator::Is => here == argument.parse().map_or_else(|_| argument.to_owned(), scalar_text),
        Operator::GroupBy => fills_a_group(argument.parse().ok(), here, placed, wanted as usize),
    }
}

fn fills_a_group(groups: Option<usize>, here: &str, placed: &[Option<&str>], wanted: usize) -> bool {
    let mut known: Vec<&str> = placed.iter().flatten().copied().collect();
    known.sort_unstable();
    known.dedup();
    let size = |group: &str| placed.iter().filter(|value| **value == Some(group)).count();
    let Some(groups) = groups else { return known.iter().all(|group| size(here) <= size(group)) };
    if !known.contains(&here) {
        return known.len() < groups;
    }
    let (share, over) = (wanted / groups, wanted % groups);
    let taken: usize = known.iter().map(|group| size(group).saturating_sub(share)).sum();
    size(here) < share || size(here) == share && taken < over
}

/// Ports that touch as one range.
fn joined(resources: Resources) -> Resources {
    let mut all = Resources::default();
    super::master::give(&mut all, &resources);
    all
}

fn is_lost(condition: Condition) -> bool {
    matches!(condition, Condition::Unreachable | Condition::UnreachableInactive | Condition::Unknown)
}

impl World<'_> {
    /// The nodes of those that are in the way of one more instance on node `at`: of the same configuration, in reach or on that very node.
    fn in_the_way(&self, at: usize, app: &App, except: Option<&InstanceId>) -> Vec<usize> {
        let config = app.last_config_change_at();
        let counts = |instance: &&Instance| {
            instance.version >= config && instance.condition.is_live() && except.is_none_or(|except| *except != instance.id)
        };
        let node = |instance: &Instance| {
            let node = instance.placement.as_ref().and_then(|place| self.agent_at(place.agent.as_str()))?;
            (!is_lost(instance.condition) || node == at).then_some(node)
        };
        self.disk.instances_of(&app.id).filter(counts).filter_map(node).collect()
    }

    /// The first rule that forbids one more instance on a node.
    fn forbidden_on(&self, at: usize, app: &App, except: Option<&InstanceId>) -> Option<String> {
        let facts = &self.agents[at].facts;
        let asks = |constraint: &Constraint| matches!(constraint.field.as_str(), "@region" | "@zone");
        if facts.region != LOCAL_REGION && !app.constraints.iter().any(asks) {
            return Some("the region".to_owned());
        }
        if app.constraints.is_empty() {
            return None;
        }
        let others = self.in_the_way(at, app, except);
        let wanted = self.disk.current(&app.id).map_or(app.instances, |present| present.instances);
        let broken = app.constraints.iter().find(|constraint| {
            let placed: Vec<Option<&str>> = others.iter().map(|node| self.agents[*node].facts.value(&constraint.field)).collect();
            !allows(constraint, facts.value(&constraint.field), &placed, wanted)
        });
        broken.map(|constraint| {
            format!("{:?} {:?} {:?} with {} others", constraint.field, constraint.operator, constraint.value, others.len())
        })
    }

    /// A launch is being written down.
    pub(super) fn check_placed(&mut self, instance: &Instance) {
        let Some(at) = instance.placement.as_ref().and_then(|place| self.agent_at(place.agent.as_str())) else { return };
        let Some(app) = self.disk.definition(instance.app(), instance.version) else { return };
        if let Some(rule) = self.forbidden_on(at, app, Some(&instance.id)) {
            self.violate("constraint", || format!("{} on agent-{at}: {rule}", short_instance(&instance.id)));
        }
    }

    pub(super) fn constraints_allow(&self, at: usize, app: &App) -> bool {
        self.forbidden_on(at, app, None).is_none()
    }

    /// A launch takes only what its role may have, and GPUs are kept for whom they are for. `left`: of the offer, before this launch.
    pub(super) fn check_roles(&mut self, launch: &Launch, left: &Pools) {
        let app = &launch.app;
        let takes = Pools::of(launch);
        let foreign = launch.reserved.as_ref().is_some_and(|reserved| reserved.role != GROUP_ROLE || !accepts(app, GROUP_ROLE));
        if foreign || !accepts(app, "*") && takes.common != Resources::default() {
            let id = short_instance(&launch.task.instance);
            self.violate("wrong-role", || format!("{id} of role {} takes {takes:?}", app.role));
        }
        if app.gpus == 0 && left.common.gpus > 0 && app.bricks().next().is_none() && !app.is_resident() {
            let id = short_instance(&launch.task.instance);
            self.violate("wasted-gpus", || format!("{id} needs none, its node has {}", left.common.gpus));
        }
    }

    /// What an app may use of what is left of a node; `None`: its GPUs are kept for others. `at_home`: a brick or volume of it is there.
    pub(super) fn usable(app: &App, left: &Pools, at_home: bool) -> Option<Resources> {
        if app.gpus == 0 && left.common.gpus > 0 && !at_home {
            return None;
        }
        let mut usable = Resources::default();
        [("*", &left.common), (GROUP_ROLE, &left.reserved)]
            .into_iter()
            .filter(|(role, _)| accepts(app, role))
            .for_each(|(_, pool)| super::master::give(&mut usable, pool));
        Some(usable)
    }
}

fn accepts(app: &App, role: &str) -> bool {
    match &app.accepted_resource_roles {
        Some(roles) => roles.iter().any(|accepted| accepted == role),
        None => role == "*" || role == app.role,
    }
}

impl Pools {
    pub(super) fn of_offer(offer: &Offer) -> Self {
        let reserved = offer.reserved.first().map_or_else(Resources::default, |reserved| reserved.resources.clone());
        Self { common: offer.resources.clone(), reserved }
    }

    /// As an offer has it.
    pub(super) fn into_offer(self, offer: Offer) -> Offer {
        let reserved = (self.reserved != Resources::default()).then(|| Reserved { role: GROUP_ROLE.into(), resources: self.reserved });
        Offer { resources: self.common, reserved: reserved.into_iter().collect(), ..offer }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_opinion_refuses_too() {
        let check = |operator: Operator, value: Option<&str>, here: &str, placed: &str, expected: bool| {
            let constraint = Constraint { field: "rack".into(), operator, value: value.map(Into::into) };
            let placed: Vec<Option<&str>> = placed.split_whitespace().map(Some).collect();
            let here = (here != "-").then_some(here);
            assert_eq!(allows(&constraint, here, &placed, 5), expected, "{constraint:?} {here:?} {placed:?}");
        };
        use Operator::*;
        check(Unique, None, "a", "b", true);
        check(Unique, None, "a", "b a", false);
        check(Unique, None, "-", "", false);
        check(Unlike, Some("a"), "-", "", true);
        check(Cluster, None, "a", "a", true);
        check(Cluster, None, "a", "b", false);
        check(MaxPer, Some("1"), "a", "a", false);
        check(Is, Some("1.50"), "1.5", "", true);
        check(Is, Some("1.50"), "1.6", "", false);
        check(Like, Some("a|b"), "ab", "", false);
        check(GroupBy, Some("2"), "a", "a a b", true);
        check(GroupBy, Some("2"), "a", "a a a b", false);
        check(GroupBy, Some("2"), "c", "a b", false);
        check(GroupBy, None, "a", "a b b", true);
        check(GroupBy, None, "b", "a b b", false);
    }
}
