//! Whose what is: who may see and change an app, a port, a brick; what an owner may put into a definition; and how something changes hands.
//!
//! To whom something does not belong it is not there: the errors are those of what does not exist. Only an id that one wants to create is said to be
//! taken, and no more than that.

use std::sync::Arc;

use super::turn::Turn;
use crate::model::{
    app::{App, Volume},
    brick::Brick,
    id::{BrickName, Owner, PathId},
    port::{PortClaim, Position},
    record::{AppEntry, Record},
    request::{Origin, Possession, Reply, RequestError},
};

/// The present definition of an app or a pod that the origin may change.
pub(super) fn spec(turn: &Turn<'_, '_>, origin: &Origin, id: &PathId) -> Result<Arc<App>, RequestError> {
    let tables = &turn.state.tables;
    let found = tables.app(id).filter(|_| origin.admin || origin.may_touch(tables.owner_of(id)));
    found.cloned().ok_or_else(|| RequestError::NoApp(id.clone()))
}

/// The present definition of an app that is no pod.
pub(super) fn app(turn: &Turn<'_, '_>, origin: &Origin, id: &PathId) -> Result<Arc<App>, RequestError> {
    spec(turn, origin, id).ok().filter(|app| app.pod.is_none()).ok_or_else(|| RequestError::NoApp(id.clone()))
}

/// The present definition of a pod.
pub(super) fn pod(turn: &Turn<'_, '_>, origin: &Origin, id: &PathId) -> Result<Arc<App>, RequestError> {
    spec(turn, origin, id).ok().filter(|app| app.pod.is_some()).ok_or_else(|| RequestError::NoPod(id.clone()))
}

/// A brick that the origin may change.
pub(super) fn brick(turn: &Turn<'_, '_>, origin: &Origin, name: &BrickName) -> Result<Arc<Brick>, RequestError> {
    let found = turn.state.tables.bricks.get(name).filter(|brick| origin.may_touch(Some(&brick.owner)));
    found.cloned().ok_or_else(|| RequestError::NoBrick(name.clone()))
}

/// A claim that the origin may change.
pub(super) fn port(turn: &Turn<'_, '_>, origin: &Origin, port: u16) -> Result<Arc<PortClaim>, RequestError> {
    let found = turn.state.tables.ports.get(&port).filter(|claim| origin.may_touch(Some(&claim.owner)));
    found.cloned().ok_or(RequestError::NoPort(port))
}

/// That the origin may create an app of this id. What a destroyed app has left (instances that have not ended, ports, bricks) keeps the id for its
/// owner.
pub(super) fn check_free(turn: &Turn<'_, '_>, origin: &Origin, id: &PathId) -> Result<(), RequestError> {
    let state = &turn.state;
    let left = !state.tables.has_traces_of(id) || origin.may_touch(state.tables.owner_of(id));
    let own_port = |port: &u16| state.tables.ports.get(port).is_none_or(|claim| origin.may_touch(Some(&claim.owner)));
    let own_brick = |name: &BrickName| state.tables.bricks.get(name).is_none_or(|brick| origin.may_touch(Some(&brick.owner)));
    if left && ports_of(turn, id).all(|port| own_port(&port)) && state.bricks_of.get(id).into_iter().flatten().all(own_brick) {
        Ok(())
    } else {
        Err(RequestError::AppExists(id.clone()))
    }
}

fn ports_of(turn: &Turn<'_, '_>, id: &PathId) -> impl Iterator<Item = u16> {
    let first = (id.clone(), Position::Env(0));
    turn.state.claims.range(first..).take_while(move |((app, _), _)| app == id).map(|(_, port)| *port)
}

/// Whose an app is, or will be when the origin creates it.
pub(super) fn owner(turn: &Turn<'_, '_>, origin: &Origin, id: &PathId) -> Owner {
    turn.state.tables.owner_of(id).unwrap_or(&origin.user).clone()
}

/// Where a definition that is to be accepted comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// From the request.
    Written,
    /// From an earlier version.
    Stored,
}

/// What may be in a definition besides the usual.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rights {
    pub(super) privileged: bool,
    pub(super) docker_parameters: bool,
    /// Secrets may be anybody's.
    pub(super) all_secrets: bool,
    /// An administrator answers for the host volumes.
    pub(super) vouched: bool,
    /// Nobody but administrators wrote it: see [`App::administered`].
    pub(super) administered: bool,
}

/// The rights with which `app` is to take the place of `current`. Whoever changes nothing but the number of instances needs none. An administrator
/// answers for host volumes written in the request at hand, not for those that a user wrote and that only stay, or come back with an old version.
pub(super) fn rights(turn: &Turn<'_, '_>, origin: &Origin, app: &App, current: Option<&App>, source: Source) -> Rights {
    let as_it_is = |current: &App| App {
        instances: current.instances,
        owner: current.owner.clone(),
        vouched: current.vouched,
        administered: current.administered,
        ..app.clone()
    };
    let kept_administered = current.is_some_and(|current| current.administered);
    let kept_vouched = current.is_some_and(|current| current.vouched);
    if origin.admin {
        let wrote = source == Source::Written && current.is_none_or(|current| !has_same_host_volumes(current, app));
        let vouched = wrote || if source == Source::Stored { app.vouched } else { kept_vouched };
        // What is written anew as a whole is an administrator's; what is laid over a user's definition is not, unless it says as whom that shall run.
        let names_user = app.users().any(|user| user.is_some());
        let wrote_user = source == Source::Written && current.is_none_or(|current| names_user && !current.users().eq(app.users()));
        let administered = wrote_user || if source == Source::Stored { app.administered } else { kept_administered };
        return Rights { privileged: true, docker_parameters: true, all_secrets: true, vouched, administered };
    }
    if current.is_some_and(|current| as_it_is(current) == *current) {
        let (vouched, administered) = (kept_vouched, kept_administered);
        return Rights { privileged: true, docker_parameters: true, all_secrets: true, vouched, administered };
    }
    let grants = turn.state.tables.users.get(&origin.user).map(|user| user.grants).unwrap_or_default();
    Rights { privileged: grants.privileged, docker_parameters: grants.docker_parameters, ..Rights::default() }
}

/// The user whose account on the node must be allowed what the host volumes of `app` ask for, and whose its external volumes must be. `None`: nobody is
/// asked, because an administrator wrote them, or the owner is one, or may do as one.
pub(super) fn account(turn: &Turn<'_, '_>, app: &App, owner: &Owner) -> Option<Owner> {
    let free = turn.state.tables.users.get(owner).is_some_and(|user| user.admin || user.grants.host_volumes);
    (!app.vouched && !free).then(|| owner.clone())
}

/// True when the owner of an app may know what others do on the nodes. Who has no record is an ordinary user, but for whom everybody is as long as
/// nobody is asked who they are.
pub(super) fn is_admin(turn: &Turn<'_, '_>, owner: &Owner) -> bool {
    turn.state.tables.users.get(owner).map_or(*owner == Owner::default_owner(), |user| user.admin)
}

fn has_same_host_volumes(one: &App, other: &App) -> bool {
    let of_pod = |app: &App| {
        let pod = app.pod.as_ref()?;
        let mounts: Vec<_> = pod.containers.iter().map(|container| container.volume_mounts.clone()).collect();
        Some((pod.volumes.clone(), mounts))
    };
    host_volumes(one).eq(host_volumes(other)) && of_pod(one) == of_pod(other)
}

fn host_volumes(app: &App) -> impl Iterator<Item = &Volume> {
    let volumes = app.container.iter().flat_map(|container| &container.volumes);
    volumes.filter(|volume| matches!(volume, Volume::Host { .. } | Volume::External(_)))
}

/// Gives something to another user. An administrator's alone; for anybody else it is forbidden, or not there.
pub(super) fn hand_over(turn: &mut Turn<'_, '_>, origin: &Origin, what: &Possession, to: &Owner) -> Result<Reply, RequestError> {
    match what {
        Possession::App(id) => {
            spec(turn, origin, id)?;
            administrator(origin)?;
            hand_over_app(turn, id, to)?;
        }
        Possession::Port(number) => {
            let claim = port(turn, origin, *number)?;
            administrator(origin)?;
            turn.put(Record::Port(PortClaim { owner: to.clone(), ..(*claim).clone() }.into()));
        }
        Possession::Brick(name) => {
            let record = brick(turn, origin, name)?;
            administrator(origin)?;
            turn.put(Record::Brick(Brick { owner: to.clone(), ..(*record).clone() }.into()));
        }
    }
    Ok(Reply::Done)
}

fn administrator(origin: &Origin) -> Result<(), RequestError> {
    if origin.admin { Ok(()) } else { Err(RequestError::Forbidden) }
}

/// The entry, every version that is kept, and what the former owner has claimed for the app.
fn hand_over_app(turn: &mut Turn<'_, '_>, id: &PathId, to: &Owner) -> Result<(), RequestError> {
    if let Some(lock) = turn.state.locks.get(id) {
        return Err(RequestError::Locked(vec![lock.clone()]));
    }
    let Some(entry) = turn.state.tables.apps.get(id).cloned() else { return Err(RequestError::NoApp(id.clone())) };
    let versions: Vec<Arc<App>> = turn.state.tables.versions_of(id).cloned().collect();
    for definition in versions {
        turn.put(Record::Definition(App { owner: Some(to.clone()), ..(*definition).clone() }.into()));
    }
    turn.put(Record::App(AppEntry { id: id.clone(), owner: to.clone() }.into()));
    for port in ports_of(turn, id).collect::<Vec<_>>() {
        if let Some(claim) = turn.state.tables.ports.get(&port).filter(|claim| claim.owner == entry.owner).cloned() {
            turn.put(Record::Port(PortClaim { owner: to.clone(), ..(*claim).clone() }.into()));
        }
    }
    for name in turn.state.bricks_of.get(id).cloned().unwrap_or_default() {
        if let Some(brick) = turn.state.tables.bricks.get(&name).filter(|brick| brick.owner == entry.owner).cloned() {
            turn.put(Record::Brick(Brick { owner: to.clone(), ..(*brick).clone() }.into()));
        }
    }
    Ok(())
}
