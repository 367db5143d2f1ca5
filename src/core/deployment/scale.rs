//! The number of an app's instances: adding, ending, and keeping it when no deployment is at work.

use std::sync::Arc;

use super::balance;
use crate::{
    core::{
        launch::{constraints::NodeFacts, residency},
        status,
        turn::Turn,
    },
    model::{
        app::{App, Operator},
        id::{InstanceId, PathId},
        instance::{Condition, Goal, Instance, Placement},
        record::{Record, RecordKey},
        time::Timestamp,
    },
};

/// Adds `count` instances of the definition, to be launched.
pub(in crate::core) fn add(turn: &mut Turn<'_, '_>, app: &App, count: u32) {
    for _ in 0..count {
        let instance = Instance {
            id: turn.new_instance_id(&app.id),
            version: app.version,
            incarnation: 0,
            condition: Condition::Scheduled,
            goal: Goal::Running,
            since: turn.wall(),
            placement: None,
            staged_at: None,
            started_at: None,
            addresses: Vec::new(),
            healthy: None,
            checks: Vec::new(),
            ready: false,
            containers: Vec::new(),
        };
        turn.put(Record::Instance(instance.into()));
    }
}

/// Ends an instance for good: at once when it has no task, else when its task has ended.
pub(in crate::core) fn decommission(turn: &mut Turn<'_, '_>, id: &InstanceId) {
    let Some(instance) = turn.state.tables.instances.get(id).cloned() else { return };
    let holds_brick = turn.state.holders.contains_key(id);
    let lost = matches!(instance.condition, Condition::Unreachable | Condition::UnreachableInactive | Condition::Unknown);
    if lost && !holds_brick {
        status::forget(turn, &instance, instance.condition);
    } else if instance.goal != Goal::Decommissioned {
        turn.put(Record::Instance(Instance { goal: Goal::Decommissioned, ..(*instance).clone() }.into()));
        if !instance.condition.is_live() {
            turn.delete(RecordKey::Instance(id.clone()));
        }
    }
}

/// Instances that count towards the wanted number: one that has been out of reach for too long does not.
pub(in crate::core) fn counts(condition: Condition) -> bool {
    condition != Condition::UnreachableInactive
}

/// Adds what is missing and ends what is too much. Returns true when the number was right.
pub(in crate::core) fn adjust(turn: &mut Turn<'_, '_>, app: &App) -> bool {
    let present = turn.state.tables.tallies.get(&app.id).map_or(0, |tally| tally.wanted_since(Timestamp(i64::MIN), counts));
    if present < app.instances {
        add(turn, app, app.instances - present);
    } else if present > app.instances {
        let surplus = (present - app.instances) as usize;
        let victims = surplus_of(turn, app, surplus);
        victims.iter().for_each(|id| decommission(turn, id));
    }
    present == app.instances
}

/// Who goes when there are too many: first what does not serve, and among those that do, and among those that do not, whoever makes GROUP_BY more
/// even; then by condition and age. What waits has no place yet and goes before all. Only with GROUP_BY does this look at every instance of the app.
///
/// (Marathon 1.11, `ScalingProposition`, puts evenness before all else: of four that run in one rack and four that are out of reach in another it
/// keeps one of each when two are asked for, so that its own kill leaves half of what is wanted.)
fn surplus_of(turn: &Turn<'_, '_>, app: &App, surplus: usize) -> Vec<InstanceId> {
    let Some(index) = turn.state.index.get(&app.id) else { return Vec::new() };
    let needs = |version| Some(turn.state.tables.needs(&app.id, version));
    let fields: Vec<&str> =
        app.constraints.iter().filter(|constraint| constraint.operator == Operator::GroupBy).map(|it| it.field.as_str()).collect();
    if fields.is_empty() {
        return index.victims(surplus, app.kill_selection, needs);
    }
    let place = |id: &InstanceId| turn.state.tables.instances.get(id).and_then(|instance| instance.placement.as_ref());
    let idle = index.victims_that(false, usize::MAX, app.kill_selection, needs);
    let (waiting, idle): (Vec<_>, Vec<_>) = idle.into_iter().partition(|id| place(id).is_none());
    let serving = index.victims_that(true, usize::MAX, app.kill_selection, needs);
    let value = |place: &Placement, field: &str| {
        let agent = turn.state.tables.agents.get(&place.agent);
        agent.and_then(|agent| NodeFacts::of_agent(agent).value(field).map(str::to_owned))
    };
    let values = |ids: &[InstanceId]| -> Vec<Vec<Option<String>>> {
        ids.iter().map(|id| fields.iter().map(|field| place(id).and_then(|place| value(place, field))).collect()).collect()
    };
    let (idle_values, serving_values) = (values(&idle), values(&serving));
    let mut victims = waiting;
    let evenly = |victims: &mut Vec<InstanceId>, ids: Vec<InstanceId>, values: &[_], others: &[_]| {
        let chosen = balance::choose(values, others, surplus.saturating_sub(victims.len()));
        let (first, rest): (Vec<_>, Vec<_>) = ids.into_iter().enumerate().partition(|(at, _)| chosen.contains(at));
        victims.extend(first.into_iter().chain(rest).map(|(_, id)| id));
    };
    evenly(&mut victims, idle, &idle_values, &serving_values);
    evenly(&mut victims, serving, &serving_values, &[]);
    victims.truncate(surplus);
    victims
}

/// An app whose turn in its deployment has not come yet keeps what runs, but what waits beyond its new size is not launched any more.
pub(in crate::core) fn hold_back(turn: &mut Turn<'_, '_>, id: &PathId) {
    let Some(app) = turn.state.tables.app(id).cloned() else { return };
    let changed = app.last_config_change_at();
    let Some(tally) = turn.state.tables.tallies.get(id) else { return };
    let (_, most) = super::arithmetic::bounds(app.instances, app.upgrade_strategy, app.is_replaced_in_place());
    let of_all = tally.wanted_since(Timestamp(i64::MIN), counts).saturating_sub(most);
    let surplus = tally.wanted_since(changed, counts).saturating_sub(app.instances).max(of_all) as usize;
    let Some(index) = turn.state.index.get(id).filter(|_| surplus > 0) else { return };
    let waiting: Vec<InstanceId> = index.scheduled.iter().take(surplus).cloned().collect();
    waiting.iter().for_each(|id| decommission(turn, id));
}

/// Keeps an app without a deployment at its size, and cleans up after one that is gone.
pub(in crate::core) fn keep(turn: &mut Turn<'_, '_>, id: &PathId) {
    if let Some(app) = turn.state.tables.app(id).cloned() {
        adjust(turn, &app);
        return;
    }
    end_all(turn, id);
    residency::wipe_app(turn, id);
    if !turn.state.tables.tallies.contains_key(id) {
        forget_app(turn, id);
    }
}

/// Ends every instance that is not told to end already; costs nothing when there is none.
pub(in crate::core) fn end_all(turn: &mut Turn<'_, '_>, app: &PathId) {
    let tally = turn.state.tables.tallies.get(app).cloned().unwrap_or_default();
    if tally.wanted_since(Timestamp(i64::MIN), |_| true) > 0 {
        let wanted = turn.state.tables.instances_of(app).filter(|instance| instance.goal == Goal::Running);
        let wanted: Vec<InstanceId> = wanted.map(|instance| instance.id.clone()).collect();
        wanted.iter().for_each(|id| decommission(turn, id));
    }
}

/// The last traces of an app that no longer exists. Its ports and bricks stay; persistent volumes go, as on Marathon.
fn forget_app(turn: &mut Turn<'_, '_>, id: &PathId) {
    let versions: Vec<Arc<App>> = turn.state.tables.versions_of(id).cloned().collect();
    for app in versions {
        let key = (id.clone(), app.version);
        if turn.state.mentions.contains_key(&key) {
            turn.put(Record::Archived(app));
        }
        turn.delete(RecordKey::Definition(key.0, key.1));
    }
    if turn.state.tables.failures.contains_key(id) {
        turn.delete(RecordKey::Failure(id.clone()));
    }
}
