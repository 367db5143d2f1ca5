//! Reads `scaling` and `scheduling`.

use crate::model::app::{
    App, Backoff, Constraint, KillSelection, Operator, UnreachableStrategy, UpgradeStrategy,
    input::{read_kill_selection, read_seconds, read_unreachable_strategy, reader::Reader},
};

/// `scheduling`; `None`: the default.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Scheduling {
    backoff: Option<Backoff>,
    pub(super) upgrade: Option<UpgradeStrategy>,
    constraints: Vec<Constraint>,
    accepted_resource_roles: Vec<String>,
    kill_selection: Option<KillSelection>,
    unreachable: Option<UnreachableStrategy>,
}

impl Scheduling {
    /// All of it but the upgrade strategy, whose default depends on the rest.
    pub(super) fn lay_over(&self, app: &mut App) {
        app.backoff = self.backoff.unwrap_or(app.backoff);
        app.constraints.clone_from(&self.constraints);
        app.accepted_resource_roles = (!self.accepted_resource_roles.is_empty()).then(|| self.accepted_resource_roles.clone());
        app.kill_selection = self.kill_selection.unwrap_or(app.kill_selection);
        app.unreachable_strategy = self.unreachable.unwrap_or(app.unreachable_strategy);
    }
}

/// The number of instances.
pub(super) fn read_scaling(scaling: &Reader<'_>) -> Option<u32> {
    if !scaling.is_object() {
        return None;
    }
    scaling.required("kind").and_then(|kind| kind.choice(&[("fixed", ())]));
    scaling.get("instances").map_or(Some(1), |instances| instances.whole(i32::MAX as u32))
}

pub(super) fn read(policy: &Reader<'_>) -> Option<Scheduling> {
    if !policy.is_object() {
        return None;
    }
    let placement = policy.get("placement").filter(Reader::is_object);
    let placed = |key: &str| placement.as_ref().and_then(|placement| placement.get(key));
    Some(Scheduling {
        backoff: policy.get("backoff").and_then(|backoff| read_backoff(&backoff)),
        upgrade: policy.get("upgrade").and_then(|upgrade| read_upgrade(&upgrade)),
        constraints: placed("constraints").and_then(|list| list.set(read_constraint)).unwrap_or_default(),
        accepted_resource_roles: placed("acceptedResourceRoles").and_then(|roles| roles.set(Reader::text)).unwrap_or_default(),
        kill_selection: policy.get("killSelection").and_then(|selection| read_kill_selection(&selection)),
        unreachable: policy.get("unreachableStrategy").and_then(|strategy| read_unreachable_strategy(&strategy)),
    })
}

fn read_backoff(backoff: &Reader<'_>) -> Option<Backoff> {
    if !backoff.is_object() {
        return None;
    }
    let seconds = |key: &str, default_ms: u64| backoff.get(key).map_or(Some(default_ms), |seconds| read_seconds(&seconds));
    let (initial, most) = (seconds("backoff", 1_000), seconds("maxLaunchDelay", 300_000));
    let factor = backoff.get("backoffFactor").map_or(Some(1.15), |factor| factor.number(0.0));
    Some(Backoff { initial_ms: initial?, factor: factor?, max_ms: most? })
}

fn read_upgrade(upgrade: &Reader<'_>) -> Option<UpgradeStrategy> {
    if !upgrade.is_object() {
        return None;
    }
    let capacity = |key: &str| upgrade.get(key).map_or(Some(1.0), |capacity| capacity.share());
    let (minimum, maximum) = (capacity("minimumHealthCapacity"), capacity("maximumOverCapacity"));
    Some(UpgradeStrategy { minimum_health_capacity: minimum?, maximum_over_capacity: maximum? })
}

fn read_constraint(constraint: &Reader<'_>) -> Option<Constraint> {
    if !constraint.is_object() {
        return None;
    }
    let operators = [
        ("UNIQUE", Operator::Unique),
        ("CLUSTER", Operator::Cluster),
        ("GROUP_BY", Operator::GroupBy),
        ("LIKE", Operator::Like),
        ("UNLIKE", Operator::Unlike),
        ("MAX_PER", Operator::MaxPer),
        ("IS", Operator::Is),
    ];
    let field = constraint.required("fieldName").and_then(|field| field.text());
    let operator = constraint.required("operator").and_then(|operator| operator.choice(&operators));
    let value = constraint.get("value").and_then(|value| value.text());
    Some(Constraint { field: field?, operator: operator?, value })
}
