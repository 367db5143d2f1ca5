//! What the cluster says, and what follows: connection, offers, statuses of tasks, reports on bricks.

use std::sync::Arc;

use super::{
    health,
    instance::{Outcome, condition_of, costs_back_off, is_failure, transition},
    launch,
    owned::Timer,
    pod::{self, News},
    state::BrickUsage,
    step::reconcile_all,
    turn::Turn,
};
use crate::model::{
    agent::Agent,
    app::UnreachableStrategy,
    brick::Brick,
    cluster::{BrickReport, ClusterCall, ClusterEvent, Offer, Reason, TaskStatus},
    event::Fact,
    id::{AgentId, BrickName, InstanceId},
    instance::{Condition, Goal, Instance, MAX_FAILURE_MESSAGE_BYTES, TaskFailure},
    record::{Meta, Record, RecordKey},
};

/// Offers held at once; further ones are declined for a moment (Marathon: `--max_queued_offers`).
pub const MAX_HELD_OFFERS: usize = 8192;

pub(super) fn handle(turn: &mut Turn<'_, '_>, event: ClusterEvent) {
    match event {
        ClusterEvent::Connected { framework_id, master, region } => {
            turn.state.local_region = region;
            connected(turn, framework_id, master);
        }
        ClusterEvent::Disconnected { reason } => disconnected(turn, &reason),
        ClusterEvent::Offers(offers) => offers.into_iter().for_each(|offer| offered(turn, offer)),
        ClusterEvent::Rescinded(offer) => _ = turn.state.offers.remove(&offer),
        ClusterEvent::Status(status) => task_status(turn, status),
        ClusterEvent::AgentLost(agent) => turn.state.offers.retain(|_, offer| offer.agent != agent),
        ClusterEvent::Brick(report) => brick_report(turn, report),
        ClusterEvent::Checked(reports) => reports.into_iter().for_each(|report| health::take(turn, report)),
    }
}

fn connected(turn: &mut Turn<'_, '_>, framework_id: String, master: String) {
    let known = turn.state.tables.meta.framework_id.as_deref() == Some(&framework_id);
    if known {
        turn.event(None, Fact::SchedulerReregistered { master: master.clone() });
    } else {
        turn.event(None, Fact::SchedulerRegistered { framework_id: framework_id.clone(), master: master.clone() });
        let meta = Meta { framework_id: Some(framework_id), ..(*turn.state.tables.meta).clone() };
        turn.put(Record::Meta(meta.into()));
    }
    turn.state.connected_to = Some(master.into());
    turn.state.connected_since = Some(turn.wall());
    turn.state.offers.clear();
    let now = turn.now();
    turn.state.kills.send_all_again(now);
    turn.state.queue.connected();
    reconcile_all(turn);
    let leased: Vec<BrickName> = turn.state.holders.values().flatten().cloned().collect();
    leased.into_iter().for_each(|brick| turn.state.timers.set(Timer::Release(brick), now));
}

fn disconnected(turn: &mut Turn<'_, '_>, reason: &str) {
    turn.state.connected_since = None;
    if turn.state.connected_to.take().is_some() {
        turn.event(None, Fact::SchedulerDisconnected { reason: reason.to_owned() });
    }
    turn.state.offers.clear();
}

fn offered(turn: &mut Turn<'_, '_>, offer: Offer) {
    if turn.state.offers.len() >= MAX_HELD_OFFERS {
        turn.call(ClusterCall::Decline { offers: vec![offer.id], refuse_ms: 5_000 });
        return;
    }
    heard_of(turn, &offer.agent);
    let known = turn.state.tables.agents.get(&offer.agent);
    let agent = Agent {
        id: offer.agent.clone(),
        host: offer.host.to_string(),
        addresses: offer.addresses.clone(),
        attributes: offer.attributes.clone(),
        region: offer.region.clone(),
        zone: offer.zone.clone(),
        seen_at: known.map_or(turn.wall(), |known| known.seen_at),
    };
    if known.is_none_or(|known| **known != agent) {
        turn.put(Record::Agent(agent.into()));
    }
    turn.state.offers.insert(offer.id.clone(), Arc::new(offer));
}

fn heard_of(turn: &mut Turn<'_, '_>, agent: &AgentId) {
    let now = turn.wall();
    // The same moment again costs nothing: many offers and statuses come in one batch.
    if turn.state.heard_of.get(agent) != Some(&now) {
        turn.state.heard_of.insert(agent.clone(), now);
    }
}

fn task_status(turn: &mut Turn<'_, '_>, status: TaskStatus) {
    // What the cluster says instead of a node (unreachable, gone) is no sign of life.
    if let (Some(agent), Some(_)) = (&status.agent, status.uuid) {
        heard_of(turn, agent);
    }
    if let (Some(uuid), Some(agent)) = (status.uuid, status.agent.clone()) {
        turn.call(ClusterCall::Acknowledge { task: status.task.clone(), agent, uuid });
    }
    let told = condition_of(&status);
    let instance = turn.state.tables.instances.get(&status.task.instance).cloned();
    let Some(instance) = instance.filter(|instance| instance.incarnation == status.task.incarnation) else {
        return foreign(turn, &status, told);
    };
    match &status.task.container {
        Some(name) => return container_status(turn, &instance, name, &status, told),
        // A pod has no task without a name.
        None if !instance.containers.is_empty() => return foreign(turn, &status, told),
        None => {}
    }
    match transition(instance.condition, told) {
        Outcome::Kill => kill_task(turn, &status),
        Outcome::Keep if told == Condition::Killing && instance.condition == told => {
            // What comes again, or is the answer to a question, is no news.
            if status.reason != Reason::Reconciliation && !turn.state.killing_told.contains(&instance.id) {
                being_killed(turn, &instance, &status);
            }
        }
        Outcome::Keep => refresh(turn, &instance, &status, told, instance.condition),
        Outcome::Become(next) => {
            if next == Condition::Killing {
                turn_into(turn, &instance, &status, next);
                return being_killed(turn, &instance, &status);
            }
            turn.event(Some(instance.app()), Fact::StatusUpdate { status: status.clone().into(), instance: instance.clone() });
            turn_into(turn, &instance, &status, next);
        }
    }
}

/// A node says that it is ending a task: nodes do only when they are to (Marathon: `--enable_features task_killing`).
fn being_killed(turn: &mut Turn<'_, '_>, instance: &Arc<Instance>, status: &TaskStatus) {
    turn.state.killing_told.insert(instance.id.clone());
    turn.event(Some(instance.app()), Fact::StatusUpdate { status: status.clone().into(), instance: instance.clone() });
    if let Some(now) = turn.state.tables.instances.get(&instance.id).cloned() {
        turn.event(Some(now.app()), Fact::InstanceChanged(now.clone()));
    }
}

fn turn_into(turn: &mut Turn<'_, '_>, instance: &Arc<Instance>, status: &TaskStatus, next: Condition) {
    if next.is_terminal() { ended(turn, instance, status, next) } else { lives(turn, instance, status, next) }
}

/// The status of one container of a pod.
fn container_status(turn: &mut Turn<'_, '_>, instance: &Arc<Instance>, name: &str, status: &TaskStatus, told: Condition) {
    let definition = turn.state.tables.definition_of(instance).cloned();
    let place = definition.as_ref().and_then(|app| app.pod.as_ref()?.place(name));
    let (Some(app), Some(place)) = (definition, place) else { return foreign(turn, status, told) };
    let with = |containers| {
        let mut changed = Instance { containers, ..(**instance).clone() };
        if told == Condition::Finished {
            changed.healthy = health::of(&app, &changed);
        }
        changed
    };
    match pod::news(instance, place, told, status.timestamp) {
        News::Kill => kill_task(turn, status),
        News::Keep => {
            let now = instance.containers.get(place).map_or(instance.condition, |container| container.condition);
            refresh(turn, instance, status, told, now);
        }
        News::Inside(containers) => {
            turn.event(Some(instance.app()), pod::status_update(&app, instance, place, status));
            if told.is_terminal() {
                remember_failure(turn, instance, status);
            }
            let addresses = if status.addresses.is_empty() { instance.addresses.clone() } else { status.addresses.clone() };
            let now = Arc::new(Instance { addresses, ..with(containers) });
            turn.put(Record::Instance(now.clone()));
            // We had asked for it, and now the first of its nodes' words says so.
            if now.condition == Condition::Killing && now.is_seen_to_end() && !instance.is_seen_to_end() {
                turn.event(Some(now.app()), Fact::InstanceChanged(now.clone()));
            }
        }
        News::Become(next, containers) => {
            turn.event(Some(instance.app()), pod::status_update(&app, instance, place, status));
            if told.is_terminal() && !next.is_terminal() {
                remember_failure(turn, instance, status);
            }
            let instance = Arc::new(with(containers));
            turn_into(turn, &instance, status, next);
        }
    }
}

/// A status of a task that is not the current one of any instance: it should not exist.
fn foreign(turn: &mut Turn<'_, '_>, status: &TaskStatus, told: Condition) {
    let expected = turn.state.tables.instances.contains_key(&status.task.instance);
    if !told.is_terminal() {
        if !matches!(told, Condition::Unreachable | Condition::Unknown) {
            kill_task(turn, status);
        }
    } else if !expected {
        let app = status.task.instance.app().clone();
        let instance = status.task.instance.clone();
        turn.event(Some(&app), Fact::UnknownInstanceTerminated { instance, condition: told });
    }
}

fn kill_task(turn: &mut Turn<'_, '_>, status: &TaskStatus) {
    turn.call(ClusterCall::Kill { task: status.task.clone(), agent: status.agent.clone(), grace_ms: None });
}

/// The same condition again: perhaps with news of health or addresses, or of how far a pull is.
fn refresh(turn: &mut Turn<'_, '_>, instance: &Arc<Instance>, status: &TaskStatus, told: Condition, now: Condition) {
    if told != now {
        return;
    }
    // What is said once and needs no acknowledgement is how far an image is that takes its time. Nodes of Mesos never say that, and there a pull that
    // takes longer than a launch may is begun again for ever.
    if told == Condition::Staging && status.agent.is_some() && status.uuid.is_none() && status.reason == Reason::Other {
        let again = turn.now().after_ms(turn.state.settings.task_launch_timeout_ms);
        turn.state.timers.set(Timer::Overdue(instance.id.clone()), again);
    }
    let healthy = status.healthy.or(instance.healthy);
    let addresses = if status.addresses.is_empty() { &instance.addresses } else { &status.addresses };
    if told == Condition::Running && (healthy != instance.healthy || *addresses != instance.addresses) {
        turn.put(Record::Instance(Instance { healthy, addresses: addresses.clone(), ..(**instance).clone() }.into()));
    }
}

fn lives(turn: &mut Turn<'_, '_>, instance: &Arc<Instance>, status: &TaskStatus, next: Condition) {
    let lost = matches!(next, Condition::Unreachable | Condition::Unknown);
    if lost && instance.goal != Goal::Running && !turn.state.holders.contains_key(&instance.id) {
        // Nobody waits for it: it is forgotten, and killed as unknown should it come back.
        return forget(turn, instance, next);
    }
    if lost && instance.condition == Condition::Killing && instance.goal == Goal::Running {
        // Its kill was asked for: that must not be lost when it comes back. A new incarnation makes the old task a stranger, which is killed.
        return ended(turn, instance, status, Condition::Gone);
    }
    let started = if next == Condition::Running { instance.started_at.or(Some(status.timestamp)) } else { instance.started_at };
    let addresses = if status.addresses.is_empty() { instance.addresses.clone() } else { status.addresses.clone() };
    let healthy = status.healthy.or(instance.healthy);
    let now = Instance { condition: next, since: turn.wall(), started_at: started, addresses, healthy, ..(**instance).clone() };
    turn.put(Record::Instance(now.into()));
    if lost {
        strike(turn, &instance.id);
    }
}

/// An instance out of reach whose strategy waits for nothing is dealt with at once.
fn strike(turn: &mut Turn<'_, '_>, id: &InstanceId) {
    let instance = turn.state.tables.instances.get(id).cloned();
    let strategy = instance.and_then(|instance| turn.state.unreachable_strategy(&instance));
    if let Some(UnreachableStrategy::Enabled { inactive_after_seconds: 0, .. }) = strategy {
        turn.state.timers.clear(&Timer::Unreachable(id.clone()));
        unreachable_too_long(turn, id);
    }
}

/// The waiting time of an instance out of reach is over: first it counts no more, then it is forgotten.
pub(super) fn unreachable_too_long(turn: &mut Turn<'_, '_>, id: &InstanceId) {
    let Some(instance) = turn.state.tables.instances.get(id).cloned() else { return };
    let Some(UnreachableStrategy::Enabled { inactive_after_seconds, expunge_after_seconds }) = turn.state.unreachable_strategy(&instance)
    else {
        return;
    };
    match instance.condition {
        Condition::Unreachable | Condition::Unknown if expunge_after_seconds > inactive_after_seconds => {
            let since = turn.wall();
            turn.put(Record::Instance(Instance { condition: Condition::UnreachableInactive, since, ..(*instance).clone() }.into()));
        }
        Condition::Unreachable | Condition::Unknown | Condition::UnreachableInactive => forget(turn, &instance, instance.condition),
        _ => {}
    }
}

/// Ends the record of an instance whose task may still live somewhere: when it is heard of again it is unknown, and killed.
pub(super) fn forget(turn: &mut Turn<'_, '_>, instance: &Arc<Instance>, condition: Condition) {
    let since = turn.wall();
    turn.put(Record::Instance(Instance { goal: Goal::Decommissioned, condition, since, ..(**instance).clone() }.into()));
    turn.delete(RecordKey::Instance(instance.id.clone()));
}

/// The task is over. With goal Running the instance waits for its next launch, otherwise it is over too.
fn ended(turn: &mut Turn<'_, '_>, instance: &Arc<Instance>, status: &TaskStatus, condition: Condition) {
    remember_failure(turn, instance, status);
    let since = turn.wall();
    turn.put(Record::Instance(Instance { condition, since, ..(**instance).clone() }.into()));
    if instance.goal != Goal::Running {
        turn.delete(RecordKey::Instance(instance.id.clone()));
        return;
    }
    if costs_back_off(condition) && status.reason != Reason::AgentDraining {
        launch::queue::delay(turn, instance);
    }
    let version = turn.state.tables.app(instance.app()).map_or(instance.version, |app| {
        // An outdated instance stays what it is: its deployment replaces it.
        if instance.version >= app.last_config_change_at() { app.version } else { instance.version }
    });
    let next = Instance {
        condition: Condition::Scheduled,
        since,
        version,
        placement: None,
        staged_at: None,
        started_at: None,
        addresses: Vec::new(),
        healthy: None,
        checks: Vec::new(),
        ready: false,
        containers: Vec::new(),
        ..(**instance).clone()
    };
    turn.put(Record::Instance(next.into()));
}

fn remember_failure(turn: &mut Turn<'_, '_>, instance: &Arc<Instance>, status: &TaskStatus) {
    if !is_failure(status.state) || !turn.state.tables.apps.contains_key(instance.app()) {
        return;
    }
    let placement = instance.placement.as_ref();
    let agent = status.agent.clone().or_else(|| placement.map(|placement| placement.agent.clone()));
    let mut message = status.message.clone();
    message.truncate(message.floor_char_boundary(MAX_FAILURE_MESSAGE_BYTES));
    let failure = TaskFailure {
        app: instance.app().clone(),
        task: status.task.clone(),
        state: status.state,
        message,
        host: placement.map_or_else(String::new, |placement| placement.host.to_string()),
        agent: agent.unwrap_or_else(|| AgentId::new("")),
        timestamp: status.timestamp,
        version: instance.version,
    };
    turn.put(Record::Failure(failure.into()));
}

fn brick_report(turn: &mut Turn<'_, '_>, report: BrickReport) {
    match report {
        BrickReport::Released { brick, epoch, agent } => {
            let Some(record) = turn.state.tables.bricks.get(&brick).cloned() else { return };
            if record.lease.as_ref().is_some_and(|lease| lease.epoch == epoch && lease.agent == agent) && !is_held(turn, &record) {
                let now = turn.wall();
                turn.put(Record::Brick(record.released(now).into()));
                turn.state.brick_usage.remove(&brick);
            }
        }
        BrickReport::Destroyed { brick, epoch } => {
            if turn.state.tables.bricks.get(&brick).is_some_and(|record| record.condemned && record.epoch == epoch) {
                turn.delete(RecordKey::Brick(brick));
            }
        }
        BrickReport::Usage { brick, used, size } => {
            if turn.state.tables.bricks.contains_key(&brick) {
                let usage = BrickUsage { used: Some(used), size: Some(size), stuck: None };
                turn.state.brick_usage.insert(brick, usage.into());
            }
        }
        BrickReport::Stuck { brick, reason } => {
            if turn.state.tables.bricks.get(&brick).is_some_and(|record| record.lease.is_some()) {
                let usage = turn.state.brick_usage.get(&brick).map(|usage| (**usage).clone()).unwrap_or_default();
                turn.state.brick_usage.insert(brick.clone(), BrickUsage { stuck: Some(reason), ..usage }.into());
                let app = turn.state.tables.bricks.get(&brick).map(|record| record.app.clone());
                turn.state.dirty.extend(app);
            }
        }
    }
}

/// True when the lease's own task still lives: a release that speaks of it must be an old one.
fn is_held(turn: &Turn<'_, '_>, brick: &Brick) -> bool {
    brick.lease.as_ref().is_some_and(|lease| {
        let holder = turn.state.tables.instances.get(&lease.task.instance);
        super::owned::holds(holder.map(|instance| &**instance), lease.task.incarnation)
    })
}
