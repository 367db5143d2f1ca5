//! Persistent volumes: each instance of an app that has them goes where its own are, and an instance that has none yet takes over those of one that is
//! gone before it gets new ones.
//!
//! So what was scaled down, or ended for a new version, leaves its data to its successor (on Marathon the stopped instance itself comes back), and there
//! are never more sets of volumes than the app has ever had instances at once. Volumes are bricks with one more thing to know: whose they are
//! ([`crate::model::brick::Reservation`]). Leases, fences and deletion are those of bricks.

use std::{cmp::Reverse, sync::Arc};

use crate::{
    core::{
        state::{Reject, Tables},
        turn::Turn,
    },
    model::{
        app::{App, FileSystem, PersistentVolume},
        brick::{Brick, DEFAULT_POOL, Reservation, volume_name},
        id::{AgentId, InstanceId, Owner, PathId, PoolName},
        instance::Instance,
        record::Record,
        time::Timestamp,
    },
};

/// The volumes with which the instance can be launched on this node; those that it lacks are made.
pub(super) fn find(turn: &Turn<'_, '_>, app: &App, instance: &Instance, agent: &AgentId) -> Result<Vec<Arc<Brick>>, Reject> {
    if !app.is_resident() {
        return Ok(Vec::new());
    }
    let tables = &turn.state.tables;
    let set = |id: &InstanceId| tables.volumes_of(id).cloned().collect::<Vec<_>>();
    let is_usable =
        |set: &[Arc<Brick>]| set.iter().all(|brick| brick.lease.is_none() && brick.home.as_ref().is_none_or(|home| home == agent));
    let own = set(&instance.id);
    if !own.is_empty() {
        return if is_usable(&own) { Ok(own) } else { Err(Reject::NoCorrespondingReservationFound) };
    }
    let waiting =
        turn.state.index.get(&app.id).map_or(0, |index| index.scheduled.iter().filter(|id| !tables.reserved.contains_key(*id)).count());
    let mut left: Vec<_> = tables.reservations_of(&app.id).filter(|id| !tables.instances.contains_key(*id)).map(set).collect();
    // What was left last is what an upgrade has just given up: it is waited for, also while its last holder is not quite gone.
    let age = |set: &Vec<Arc<Brick>>| Reverse(set.iter().map(|brick| left_at(brick)).max());
    left.sort_by_key(age);
    // Of what was left at one moment any will do.
    if let Some(last) = left.get(waiting.saturating_sub(1)).map(age) {
        left.retain(|set| age(set) <= last);
    }
    // What was scaled since it began to wait waits for the present size.
    let wanted = tables.app(&app.id).map_or(app.instances, |present| present.instances);
    let missing = left.len() < waiting && tables.reservations_of(&app.id).count() < wanted as usize;
    match left.into_iter().find(|set| is_usable(set)) {
        Some(set) => Ok(set),
        None if missing => Ok(Vec::new()),
        None => Err(Reject::NoCorrespondingReservationFound),
    }
}

/// What is still held comes after everything.
fn left_at(brick: &Brick) -> (bool, Option<Timestamp>) {
    (brick.lease.is_some(), brick.reservation.as_ref().and_then(|reservation| reservation.released_at))
}

/// The volume as it is, in the hands of `instance`; or a new one.
pub(super) fn taken_over(
    turn: &mut Turn<'_, '_>,
    app: &App,
    volume: &PersistentVolume,
    kept: &[Arc<Brick>],
    owner: &Owner,
    instance: &InstanceId,
) -> Brick {
    let present = kept.iter().find(|brick| brick.container_path == volume.container_path);
    let uuid = present.and_then(|brick| brick.reservation.as_ref()).map_or_else(|| turn.uuid(), |reservation| reservation.uuid);
    let reservation = Some(Reservation { instance: instance.clone(), uuid, released_at: None });
    if let Some(present) = present {
        return Brick { reservation, ..(**present).clone() };
    }
    Brick {
        name: volume_name(&app.id, &volume.container_path, uuid),
        app: app.id.clone(),
        container_path: volume.container_path.clone(),
        size: size_of(volume),
        pool: PoolName::new(DEFAULT_POOL),
        file_system: FileSystem::default(),
        owner: owner.clone(),
        created_at: turn.wall(),
        home: None,
        epoch: turn.state.tables.meta.last_epoch,
        lease: None,
        last_mounted: None,
        condemned: false,
        reservation,
    }
}

/// Gives up the volumes of an instance: they are deleted as soon as nobody holds them.
pub(in crate::core) fn wipe(turn: &mut Turn<'_, '_>, instance: &InstanceId) {
    let volumes: Vec<Arc<Brick>> = turn.state.tables.volumes_of(instance).cloned().collect();
    volumes.iter().for_each(|volume| turn.put(Record::Brick(Brick { condemned: true, ..(**volume).clone() }.into())));
}

/// Gives up the volumes of an app that is gone, each as soon as its instance is.
pub(in crate::core) fn wipe_app(turn: &mut Turn<'_, '_>, app: &PathId) {
    let tables = &turn.state.tables;
    let left: Vec<InstanceId> = tables.reservations_of(app).filter(|id| !tables.instances.contains_key(*id)).cloned().collect();
    left.iter().for_each(|instance| wipe(turn, instance));
}

/// MiB of a volume. Marathon takes any size; a file system needs some room.
fn size_of(volume: &PersistentVolume) -> u64 {
    volume.size.max(crate::core::validate::MIN_BRICK_SIZE)
}

/// MiB of the volumes that an app still has to get for all its instances.
pub(in crate::core) fn missing_size(tables: &Tables, app: &App) -> u128 {
    let wanted: u128 = app.persistent_volumes().map(|volume| u128::from(size_of(volume))).sum::<u128>() * u128::from(app.instances);
    wanted.saturating_sub(tables.reserved_size.get(&app.id).copied().unwrap_or_default())
}
