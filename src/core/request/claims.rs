//! Requests about what apps wait for and what is kept for them: the delay of a launch, ports, bricks.

use crate::{
    core::{allotment, ownership, status, turn::Turn},
    model::{
        brick::Brick,
        id::{BrickName, PathId},
        instance::Condition,
        record::{Record, RecordKey},
        request::{Origin, Reply, RequestError},
    },
};

pub(super) fn reset_delay(turn: &mut Turn<'_, '_>, origin: &Origin, app: &PathId) -> Result<Reply, RequestError> {
    if !turn.state.queue.entries.contains_key(app) || !origin.may_touch(turn.state.tables.owner_of(app)) {
        return Err(RequestError::NotQueued(app.clone()));
    }
    turn.state.queue.reset_delay(app);
    turn.state.dirty.insert(app.clone());
    Ok(Reply::Done)
}

pub(super) fn release_port(turn: &mut Turn<'_, '_>, origin: &Origin, port: u16) -> Result<Reply, RequestError> {
    let claim = ownership::port(turn, origin, port)?;
    let used = turn.state.tables.app(&claim.app).is_some_and(|app| allotment::is_used(app, claim.position));
    if used || turn.state.tables.tallies.contains_key(&claim.app) {
        return Err(RequestError::Conflict(format!("port {port} is used by app '{}'; destroy the app first", claim.app)));
    }
    turn.delete(RecordKey::Port(port));
    Ok(Reply::Done)
}

pub(super) fn release_brick(turn: &mut Turn<'_, '_>, origin: &Origin, name: &BrickName, force: bool) -> Result<Reply, RequestError> {
    let brick = ownership::brick(turn, origin, name)?;
    if let Some(lease) = &brick.lease {
        return Err(RequestError::Conflict(format!(
            "brick '{name}' is held by task '{}' on node '{}' (epoch {}); it can be deleted when it is unmounted there",
            lease.task, lease.agent, lease.epoch
        )));
    }
    if turn.state.tables.apps.contains_key(&brick.app) && !force {
        let text = format!("brick '{name}' belongs to app '{}', which exists; destroy the app first, or use '?force=true'", brick.app);
        return Err(RequestError::Conflict(text));
    }
    turn.put(Record::Brick(Brick { condemned: true, ..(*brick).clone() }.into()));
    Ok(Reply::Done)
}

/// Only for a holder of which nothing is known: one that lives, as far as its node says, can be killed instead.
pub(super) fn fence_brick(turn: &mut Turn<'_, '_>, origin: &Origin, name: &BrickName, epoch: u64) -> Result<Reply, RequestError> {
    let brick = ownership::brick(turn, origin, name)?;
    if !origin.admin {
        return Err(RequestError::Forbidden);
    }
    let Some(lease) = brick.lease.as_ref().filter(|lease| lease.epoch == epoch) else {
        return Err(RequestError::Conflict(format!(
            "brick '{name}' has no lease with epoch {epoch}; its last one has epoch {}",
            brick.epoch
        )));
    };
    let holder =
        turn.state.tables.instances.get(&lease.task.instance).filter(|holder| holder.incarnation == lease.task.incarnation).cloned();
    if let Some(holder) = &holder {
        let lost = matches!(holder.condition, Condition::Unreachable | Condition::UnreachableInactive | Condition::Unknown);
        if holder.condition.is_live() && !lost {
            let text =
                format!("task '{}' holds brick '{name}' and its node '{}' is reachable; kill the task instead", lease.task, lease.agent);
            return Err(RequestError::Conflict(text));
        }
    }
    let now = turn.wall();
    turn.put(Record::Brick(brick.released(now).into()));
    if let Some(holder) = holder.filter(|holder| holder.condition.is_live()) {
        status::forget(turn, &holder, Condition::Gone);
    }
    Ok(Reply::Done)
}
