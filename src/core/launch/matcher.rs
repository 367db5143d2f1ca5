//! Waiting instances meet offers. One matcher serves the embedded engine, real Mesos and the simulator.
//!
//! Each app that is ready gets one instance in turn, so that a large one does not starve the others; what an offer cannot hold is written down as
//! the reason why the app waits.

use std::sync::Arc;

use super::{
    fit::{self, Left, Spread},
    ports, residency,
};
use crate::{
    core::{
        allotment::new_brick,
        ownership, pod,
        state::{MAX_UNUSED_OFFERS, Reject, UnusedOffer},
        turn::Turn,
    },
    model::{
        app::{App, Mode},
        brick::{Brick, BrickMount, Lease, brick_name, normal_container_path},
        cluster::{ClusterCall, Launch, Offer},
        id::{AgentId, InstanceId, OfferId, Owner, PathId, TaskId},
        instance::{Condition, Instance, Placement},
        pod::holder,
        port::Position,
        record::{Meta, Record},
        resources::{PortRange, Resources},
        time::Timestamp,
    },
};

/// Apps that one offer is tried for; the next offer begins after them.
pub const MAX_APPS_PER_OFFER: usize = 1024;

/// An offer that was used is given back once so many apps in a row could not use what is left of it: it is offered again, and begins after them.
const MAX_MISFITS: usize = 64;

/// Versions of one app that are tried for one offer; of more than these, others each time.
const MAX_VERSIONS_PER_OFFER: usize = 8;

/// Uses, or declines, every offer that is held. True when something was launched.
pub(in crate::core) fn match_offers(turn: &mut Turn<'_, '_>) -> bool {
    let mut declined = Vec::new();
    let mut launched = false;
    let mut spread = Spread::default();
    while let Some((id, offer)) = turn.state.offers.pop_first() {
        let launches = match_offer(turn, &offer, &mut spread);
        if launches.is_empty() {
            declined.push(id);
        } else {
            launched = true;
            turn.call(ClusterCall::Accept { offer: id, launches });
        }
    }
    decline(turn, declined);
    launched
}

fn decline(turn: &mut Turn<'_, '_>, offers: Vec<OfferId>) {
    if !offers.is_empty() {
        let refuse_ms = turn.state.settings.decline_offer_duration_ms;
        turn.call(ClusterCall::Decline { offers, refuse_ms });
    }
}

fn match_offer(turn: &mut Turn<'_, '_>, offer: &Arc<Offer>, spread: &mut Spread) -> Vec<Launch> {
    let mut left = Left::of(offer);
    // What is left of it, as it is shown to those who cannot use it.
    let mut rest = Some(offer.clone());
    let mut launches = Vec::new();
    let mut apps = ready_apps(turn);
    let most = turn.state.settings.max_instances_per_offer;
    let (mut launched, mut misfits) = (0, 0);
    let mut is_first_round = true;
    let mut is_done = false;
    while !apps.is_empty() && !is_done {
        apps.retain(|app| {
            if is_done {
                return true;
            }
            if is_first_round {
                // The next offer begins after the last that this one was tried for.
                turn.state.queue.cursor = Some(app.clone());
            }
            let Some(instance) = next_instance(turn, app) else { return false };
            match launch_one(turn, &instance, offer, &mut left, spread) {
                Ok(tasks) => {
                    launches.extend(tasks);
                    (launched, misfits, rest) = (launched + 1, 0, None);
                    is_done = launched >= most;
                    true
                }
                Err(reasons) => {
                    let rest = rest.get_or_insert_with(|| Arc::new(left.rest_of(offer)));
                    note_unused(turn, app, rest, reasons);
                    misfits += 1;
                    is_done = launched > 0 && misfits >= MAX_MISFITS;
                    false
                }
            }
        });
        is_first_round = false;
    }
    launches
}

/// Up to [`MAX_APPS_PER_OFFER`] apps that can use an offer, beginning after the one that came last.
fn ready_apps(turn: &Turn<'_, '_>) -> Vec<PathId> {
    let queue = &turn.state.queue;
    let after = queue.cursor.clone().unwrap_or_else(PathId::root);
    let later = queue.ready.range::<PathId, _>((std::ops::Bound::Excluded(&after), std::ops::Bound::Unbounded));
    let earlier = queue.ready.range::<PathId, _>(..=&after);
    later.chain(earlier).take(MAX_APPS_PER_OFFER).cloned().collect()
}

fn next_instance(turn: &Turn<'_, '_>, app: &PathId) -> Option<Arc<Instance>> {
    let id = turn.state.index.get(app)?.scheduled.first()?;
    turn.state.tables.instances.get(id).cloned()
}

/// Launches the instance, or another of its app that waits too and fits where it does not. The reasons are those of the newest version that waits.
fn launch_one(
    turn: &mut Turn<'_, '_>,
    instance: &Arc<Instance>,
    offer: &Arc<Offer>,
    left: &mut Left,
    spread: &mut Spread,
) -> Result<Vec<Launch>, Vec<Reject>> {
    let mut outcome = try_launch(turn, instance, offer, left, spread);
    if outcome.is_ok() {
        return outcome;
    }
    let mut shown = instance.version;
    for other in others(turn, instance, &offer.agent) {
        let next = try_launch(turn, &other, offer, left, spread);
        if next.is_ok() {
            return next;
        }
        if other.version >= shown {
            (outcome, shown) = (next, other.version);
        }
    }
    outcome
}

/// Others that wait and may fit where `instance` does not, the newest first: what cannot be met is in nobody's way. Of each version one is enough,
/// but for persistent volumes: one whose own are on this node, and one that has none.
fn others(turn: &mut Turn<'_, '_>, instance: &Instance, agent: &AgentId) -> Vec<Arc<Instance>> {
    let Some(index) = turn.state.index.get(instance.app()) else { return Vec::new() };
    let mut versions = index.versions();
    versions.reverse();
    if versions.len() > MAX_VERSIONS_PER_OFFER {
        let first = turn.random_below(versions.len());
        versions.rotate_left(first);
        versions.truncate(MAX_VERSIONS_PER_OFFER);
    }
    let tables = &turn.state.tables;
    let Some(index) = turn.state.index.get(instance.app()) else { return Vec::new() };
    let is_bound = |id: &InstanceId| tables.reserved.contains_key(id);
    let is_here = |brick: &Arc<Brick>| brick.lease.is_none() && brick.home.as_ref() == Some(agent);
    let at_home = |id: &&InstanceId| is_bound(id) && tables.volumes_of(id).all(is_here);
    let unbound = |id: &&InstanceId| !is_bound(id);
    let of_version = |version: Timestamp| {
        let ids = || index.scheduled_of(version);
        match tables.definition(instance.app(), version) {
            Some(app) if app.is_resident() => [ids().find(at_home), ids().find(unbound)],
            _ if version == instance.version => [None, None],
            _ => [ids().next(), None],
        }
    };
    let ids = versions.into_iter().flat_map(of_version).flatten().filter(|id| **id != instance.id);
    ids.filter_map(|id| tables.instances.get(id)).cloned().collect()
}

fn note_unused(turn: &mut Turn<'_, '_>, app: &PathId, offer: &Arc<Offer>, reasons: Vec<Reject>) {
    let wall = turn.wall();
    let definition = turn.state.tables.app(app).filter(|_| reasons.contains(&Reject::UnfulfilledConstraint));
    let undecided = definition.and_then(|app| app.constraints.iter().find_map(|constraint| turn.state.patterns.undecided(constraint)));
    let Some(entry) = turn.state.queue.entries.get_mut(app).map(Arc::make_mut) else { return };
    entry.undecided = undecided;
    entry.processed += 1;
    entry.unused += 1;
    entry.last_unused_at = Some(wall);
    // An offer counts once: at the first test that it failed.
    if let Some(first) = reasons.iter().min() {
        entry.rejected[*first as usize] += 1;
    }
    let kept = &mut entry.last_unused_offers;
    if kept.len() >= MAX_UNUSED_OFFERS && !kept.contains_key(&offer.agent) {
        let next = kept.get_next(&offer.agent).or_else(|| kept.get_min().map(|(agent, offer)| (agent, offer)));
        let next = next.map(|(agent, _)| agent.clone());
        next.into_iter().for_each(|agent| _ = kept.remove(&agent));
    }
    kept.insert(offer.agent.clone(), UnusedOffer { offer: offer.clone(), reasons, at: wall });
}

fn note_used(turn: &mut Turn<'_, '_>, app: &PathId) {
    let wall = turn.wall();
    if let Some(entry) = turn.state.queue.entries.get_mut(app).map(Arc::make_mut) {
        entry.processed += 1;
        entry.last_used_at = Some(wall);
    }
}

/// Decides whether the instance fits into what is left of the offer, and if so writes its launch down: the record first, the leases of its bricks
/// after it, the call last. One launch, or one for each container of a pod.
fn try_launch(
    turn: &mut Turn<'_, '_>,
    instance: &Arc<Instance>,
    offer: &Arc<Offer>,
    left: &mut Left,
    spread: &mut Spread,
) -> Result<Vec<Launch>, Vec<Reject>> {
    let Some(app) = turn.state.tables.definition_of(instance).cloned() else { return Err(Vec::new()) };
    let found = residency::find(turn, &app, instance, &offer.agent);
    let volumes_here = found.as_ref().is_ok_and(|volumes| !volumes.is_empty());
    let mut reasons = fit::misfits(turn, &app, offer, left, spread, volumes_here);
    let volumes = found.unwrap_or_else(|reason| {
        reasons.push(reason);
        Vec::new()
    });
    if !reasons.is_empty() {
        return Err(reasons);
    }
    let default = turn.state.settings.accepted_resource_roles;
    let picked = ports::pick(turn, &app, &offer.agent, &left.usable(&app, default)).ok_or_else(|| vec![Reject::InsufficientPorts])?;
    let resources = Resources {
        cpus: app.cpus,
        mem: app.mem,
        disk: app.disk,
        gpus: app.gpus,
        ports: picked.taken.iter().map(|port| PortRange::new(*port, *port)).collect(),
    };
    let reserved = left.take(&app, default, &resources);
    spread.add(&app, offer);

    note_used(turn, &app.id);
    let launched = launched(turn, instance, &app, offer, &picked.host_ports);
    let task = launched.task();
    turn.put(Record::Instance(launched.into()));
    let owner = turn.state.tables.owner_of(&app.id).cloned().unwrap_or_else(Owner::default_owner);
    // Of a pod no one container holds them.
    let holder = if app.pod.is_some() { holder(&task) } else { task.clone() };
    let mut bricks = lease_bricks(turn, &app, &owner, &holder, &offer.agent);
    bricks.extend(lease_volumes(turn, &app, &owner, &holder, &offer.agent, &volumes));
    let allotted = allotted(turn, &app.id);
    let enforce_role = turn.state.tables.enforces_role(&app.id);
    let launch = Launch {
        task,
        agent: offer.agent.clone(),
        host: offer.host.clone(),
        account: ownership::account(turn, &app, &owner),
        app,
        owner_is_admin: ownership::is_admin(turn, &owner),
        owner,
        resources,
        reserved,
        gpus: Vec::new(),
        ports: picked.host_ports,
        container_ports: picked.container_ports,
        enforce_role,
        env_vars_prefix: turn.state.settings.env_vars_prefix.as_deref().map(Into::into),
        allotted,
        bricks,
        pod: None,
    };
    Ok(if launch.app.pod.is_some() { launch.containers() } else { vec![launch] })
}

/// The numbers behind `@PORT`, `@PORT1` ... of the app's environment.
fn allotted(turn: &Turn<'_, '_>, app: &PathId) -> Vec<(u16, u16)> {
    let of_env = (app.clone(), Position::Env(0))..=(app.clone(), Position::Env(u16::MAX));
    let number = |((_, position), port): (&(PathId, Position), &u16)| match position {
        Position::Env(index) => Some((*index, *port)),
        Position::PortDefinition(_) | Position::PortMapping(_) => None,
    };
    turn.state.claims.range(of_env).filter_map(number).collect()
}

fn launched(turn: &Turn<'_, '_>, instance: &Instance, app: &App, offer: &Offer, ports: &[u16]) -> Instance {
    Instance {
        incarnation: instance.incarnation + 1,
        condition: Condition::Provisioned,
        since: turn.wall(),
        placement: Some(Placement { agent: offer.agent.clone(), host: offer.host.clone(), ports: ports.to_vec() }),
        staged_at: Some(turn.wall()),
        started_at: None,
        addresses: Vec::new(),
        healthy: None,
        containers: pod::launched(app),
        ..instance.clone()
    }
}

/// Gives the task a lease of each of its bricks, with a higher epoch than any before.
fn lease_bricks(turn: &mut Turn<'_, '_>, app: &App, owner: &Owner, task: &TaskId, agent: &AgentId) -> Vec<BrickMount> {
    let mut mounts = Vec::new();
    for volume in app.bricks() {
        let Ok(path) = normal_container_path(&volume.container_path) else { continue };
        // Released by force while the app exists: it starts with a new one.
        let present = turn.state.tables.bricks.get(&brick_name(&app.id, &path)).map(|brick| (**brick).clone());
        let brick = present.unwrap_or_else(|| new_brick(turn, app, volume, path.clone(), owner));
        mounts.push(lease(turn, brick, task, agent, volume.mode == Mode::Ro));
    }
    mounts
}

/// The same for the instance's persistent volumes.
fn lease_volumes(
    turn: &mut Turn<'_, '_>,
    app: &App,
    owner: &Owner,
    task: &TaskId,
    agent: &AgentId,
    kept: &[Arc<Brick>],
) -> Vec<BrickMount> {
    let mut mounts = Vec::new();
    for volume in app.persistent_volumes() {
        let brick = residency::taken_over(turn, app, volume, kept, owner, &task.instance);
        mounts.push(lease(turn, brick, task, agent, false));
    }
    mounts
}

fn lease(turn: &mut Turn<'_, '_>, brick: Brick, task: &TaskId, agent: &AgentId, read_only: bool) -> BrickMount {
    let epoch = turn.state.tables.meta.last_epoch.max(brick.epoch) + 1;
    turn.put(Record::Meta(Meta { last_epoch: epoch, ..(*turn.state.tables.meta).clone() }.into()));
    let mount = BrickMount {
        name: brick.name.clone(),
        epoch,
        size: brick.size,
        pool: brick.pool.clone(),
        file_system: brick.file_system,
        container_path: brick.container_path.clone(),
        read_only,
    };
    let leased = Brick {
        epoch,
        home: Some(agent.clone()),
        lease: Some(Lease { task: task.clone(), agent: agent.clone(), epoch }),
        last_mounted: Some(turn.wall()),
        ..brick
    };
    turn.put(Record::Brick(leased.into()));
    mount
}
