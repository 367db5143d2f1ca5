//! The order of the passes, written once.
//!
//! A step takes its input, then does whatever the state calls for: due deadlines, deployments and scale of the apps that were touched, matching of
//! held offers, kills, revive or suppress. Each pass computes from the state, so a lost event costs time, never correctness; each looks only at what
//! is marked dirty or due.

use super::{
    Ctx, Frame, Input, deployment, launch,
    owned::{State, Timer},
    request, status,
    turn::Turn,
};
use crate::model::{
    cluster::{ClusterCall, TaskRef},
    id::{BrickName, InstanceId},
    instance::{Condition, Instance},
    record::{Record, RecordKey},
};

/// Deadlines that one step takes; the rest follows in the next one.
const MAX_DUE: usize = 1024;

/// Rounds of the deployment pass in one step; what is then still dirty waits for the next one.
const MAX_ROUNDS: usize = 16;

/// A release or deletion of a brick that nobody has confirmed is asked for again after this long, milliseconds.
pub const BRICK_RETRY_MS: u64 = 5_000;

/// Takes one input. The state already has the frame's changes when it returns; nothing of the frame may leave before they are durable.
pub fn step(state: &mut State, input: Input, ctx: &mut Ctx<'_>) -> Frame {
    let mut turn = Turn::new(state, ctx);
    match input {
        Input::Api(id, origin, request) => {
            let reply = request::handle(&mut turn, &origin, *request);
            turn.frame.replies.push((id, reply));
        }
        Input::Cluster(event) => status::handle(&mut turn, event),
        Input::Tick => {}
    }
    due(&mut turn);
    settle(&mut turn);
    if launch::matcher::match_offers(&mut turn) {
        settle(&mut turn);
    }
    kills(&mut turn);
    launch::queue::revive_or_suppress(&mut turn);
    turn.frame
}

/// Deployments and scale, for what is dirty, until nothing is.
fn settle(turn: &mut Turn<'_, '_>) {
    for _ in 0..MAX_ROUNDS {
        let apps = std::mem::take(&mut turn.state.dirty);
        for app in &apps {
            if let Some(deployment) = turn.state.locks.get(app).cloned() {
                deployment::scale::hold_back(turn, app);
                if let Some(work) = turn.state.works.get_mut(&deployment) {
                    work.touch(app);
                }
                turn.state.dirty_deployments.insert(deployment);
            } else {
                deployment::scale::keep(turn, app);
            }
            launch::queue::upkeep(turn, app);
        }
        let deployments = std::mem::take(&mut turn.state.dirty_deployments);
        for deployment in &deployments {
            deployment::advance::advance(turn, deployment);
        }
        if turn.state.dirty.is_empty() && turn.state.dirty_deployments.is_empty() {
            break;
        }
    }
}

fn due(turn: &mut Turn<'_, '_>) {
    let mut unconfirmed = Vec::new();
    for _ in 0..MAX_DUE {
        let now = turn.now();
        let Some(timer) = turn.state.timers.pop_due(now) else { break };
        match timer {
            Timer::Confirm(id) => unconfirmed.extend(confirm(turn, &id)),
            Timer::Overdue(id) => overdue(turn, &id),
            Timer::Unreachable(id) => status::unreachable_too_long(turn, &id),
            Timer::Backoff(app) => {
                turn.state.queue.end_delay(&app);
                turn.state.dirty.insert(app);
            }
            Timer::Release(brick) => release(turn, &brick),
            Timer::Destroy(brick) => destroy(turn, &brick),
            Timer::Reconcile => {
                reconcile_all(turn);
                let again = now.after_ms(turn.state.settings.reconciliation_interval_ms);
                turn.state.timers.set(Timer::Reconcile, again);
            }
            Timer::Revive => turn.state.queue.revive_again(),
        }
    }
    if !unconfirmed.is_empty() {
        turn.call(ClusterCall::Reconcile { tasks: unconfirmed, others: false });
    }
}

/// A launch without any status: the cluster is asked about it. Its answer (a state, or that it does not know the task) decides.
fn confirm(turn: &mut Turn<'_, '_>, id: &InstanceId) -> Vec<TaskRef> {
    let Some(instance) = turn.state.tables.instances.get(id).filter(|instance| instance.condition == Condition::Provisioned) else {
        return Vec::new();
    };
    let tasks = task_refs(turn, instance);
    let again = turn.now().after_ms(super::owned::CONFIRM_INTERVAL_MS);
    turn.state.timers.set(Timer::Confirm(id.clone()), again);
    tasks
}

/// A task that has not come up in time is killed, and launched again when that is confirmed.
fn overdue(turn: &mut Turn<'_, '_>, id: &InstanceId) {
    let Some(instance) = turn.state.tables.instances.get(id).cloned() else { return };
    if matches!(instance.condition, Condition::Provisioned | Condition::Staging | Condition::Starting) {
        let since = turn.wall();
        turn.put(Record::Instance(Instance { condition: Condition::Killing, since, ..(*instance).clone() }.into()));
        turn.state.overdue.insert(id.clone());
    }
}

/// Asks the node to unmount; repeated until it says that it has.
fn release(turn: &mut Turn<'_, '_>, name: &BrickName) {
    let Some(brick) = turn.state.tables.bricks.get(name).cloned() else { return };
    let Some(lease) = &brick.lease else { return };
    let holder = turn.state.tables.instances.get(&lease.task.instance);
    if super::owned::holds(holder.map(|instance| &**instance), lease.task.incarnation) {
        return;
    }
    let (epoch, agent, task) = (lease.epoch, lease.agent.clone(), lease.task.clone());
    turn.call(ClusterCall::ReleaseBrick { brick: name.clone(), epoch, agent, task });
    let again = turn.now().after_ms(BRICK_RETRY_MS);
    turn.state.timers.set(Timer::Release(name.clone()), again);
}

/// Asks for the deletion of a condemned brick; repeated until confirmed.
fn destroy(turn: &mut Turn<'_, '_>, name: &BrickName) {
    let Some(brick) = turn.state.tables.bricks.get(name).filter(|brick| brick.condemned && brick.lease.is_none()).cloned() else { return };
    if brick.home.is_none() {
        turn.delete(RecordKey::Brick(name.clone()));
        return;
    }
    turn.call(ClusterCall::DestroyBrick { brick: name.clone(), epoch: brick.epoch, pool: brick.pool.clone(), agent: brick.home.clone() });
    let again = turn.now().after_ms(BRICK_RETRY_MS);
    turn.state.timers.set(Timer::Destroy(name.clone()), again);
}

fn kills(turn: &mut Turn<'_, '_>) {
    let (now, retry_ms, chunk) = (turn.now(), turn.state.settings.kill_retry_timeout_ms, turn.state.settings.kill_chunk_size);
    for id in turn.state.kills.advance(now, retry_ms, chunk) {
        let Some(instance) = turn.state.tables.instances.get(&id).cloned() else { continue };
        let agent = instance.placement.as_ref().map(|placement| placement.agent.clone());
        let kill = |task, grace_ms| ClusterCall::Kill { task, agent: agent.clone(), grace_ms };
        let definition = turn.state.tables.definition_of(&instance).cloned();
        let Some(pod) = definition.as_ref().and_then(|app| app.pod.as_ref()) else {
            turn.call(kill(instance.task(), definition.and_then(|app| app.kill_grace_ms)));
            continue;
        };
        for (container, _) in pod.containers.iter().zip(&instance.containers).filter(|(_, state)| state.condition.is_live()) {
            turn.call(kill(instance.task_of(Some(&container.name)), container.kill_grace_ms));
        }
    }
}

/// Asks for the state of every task that may live.
pub(super) fn reconcile_all(turn: &mut Turn<'_, '_>) {
    let live = turn.state.tables.instances.values().filter(|instance| instance.condition.is_live());
    let tasks = live.flat_map(|instance| task_refs(turn, instance)).collect();
    turn.call(ClusterCall::Reconcile { tasks, others: true });
}

/// The tasks of an instance that may live: one, or that of each container of a pod.
fn task_refs(turn: &Turn<'_, '_>, instance: &Instance) -> Vec<TaskRef> {
    let reference = |task| TaskRef { task, agent: instance.placement.as_ref().map(|placement| placement.agent.clone()) };
    if instance.containers.is_empty() {
        return vec![reference(instance.task())];
    }
    let definition = turn.state.tables.definition_of(instance);
    let containers = definition.into_iter().flat_map(|app| app.containers()).zip(&instance.containers);
    containers.filter(|(_, state)| state.condition.is_live()).map(|(name, _)| reference(instance.task_of(name))).collect()
}
