//! Requests of the API: each is checked as a whole, then written as a whole. Nothing is written before everything is known to be right.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    allotment::{self, Taken},
    deployment::{self, Planned, scale},
    holdings::Usage,
    owned::has_ports,
    ownership::{self, Source},
    quota, status,
    turn::Turn,
    users, validate,
};
use crate::model::{
    app::{App, input::AppInput},
    brick::Brick,
    deployment::{ActionKind, AppChange, Deployment},
    event::Fact,
    id::{BrickName, DeploymentId, InstanceId, Owner, PathId, TaskId},
    image,
    instance::{Condition, Instance},
    port::PortClaim,
    record::{AppEntry, Record, RecordKey},
    request::{KillSelector, Origin, Reply, Request, RequestError, Violation},
    time::Timestamp,
};

pub(super) fn handle(turn: &mut Turn<'_, '_>, origin: &Origin, request: Request) -> Result<Reply, RequestError> {
    match request {
        Request::CreateApp { input, force } => create(turn, origin, &input, force),
        Request::UpdateApps { updates, partial, create, force } => update(turn, origin, &updates, partial, create, force),
        Request::DeleteApp { app, force } => delete(turn, origin, &app, force),
        Request::RestartApp { app, force } => restart(turn, origin, &app, force),
        Request::KillTasks { selection, scale, force, wipe: _ } => kill(turn, origin, &selection, scale, force),
        Request::CancelDeployment { id, force } => cancel(turn, origin, &id, force),
        Request::ResetDelay { app } => reset_delay(turn, origin, &app),
        Request::ReleasePort { port } => release_port(turn, origin, port),
        Request::ReleaseBrick { brick, force } => release_brick(turn, origin, &brick, force),
        Request::FenceBrick { brick, epoch } => fence_brick(turn, origin, &brick, epoch),
        Request::HandOver { what, owner } => ownership::hand_over(turn, origin, &what, &owner),
        Request::PutUser { name, change } => users::put_user(turn, origin, &name, change),
        Request::RemoveUser { name } => users::remove_user(turn, origin, &name),
    }
}

/// One app of a request, ready to be written.
struct Prepared {
    planned: Planned,
    /// `None`: removed, or unchanged.
    definition: Option<Arc<App>>,
    claims: Vec<PortClaim>,
    bricks: Vec<Brick>,
    entry: Option<AppEntry>,
    /// The client's definition, for `api_post_event`.
    posted: bool,
}

// === apps ===

fn create(turn: &mut Turn<'_, '_>, origin: &Origin, input: &AppInput, force: bool) -> Result<Reply, RequestError> {
    let invalid = |text: &str| RequestError::Invalid(vec![Violation::new("/id", text)]);
    let id = PathId::resolve(input.id().ok_or_else(|| invalid("error.path.missing"))?, &PathId::root())
        .map_err(|error| invalid(&error.to_string()))?;
    if turn.state.tables.apps.contains_key(&id) {
        return Err(RequestError::AppExists(id));
    }
    ownership::check_free(turn, origin, &id)?;
    let version = turn.state.next_version(turn.ctx.wall);
    let app = input.create(&id, &turn.state.settings.app_defaults).map_err(RequestError::Invalid)?;
    let prepared = prepare(turn, origin, app, version, Source::Written, &mut Taken::default())?;
    deploy(turn, origin, vec![prepared], version, force)
}

fn update(
    turn: &mut Turn<'_, '_>,
    origin: &Origin,
    updates: &[(PathId, AppInput)],
    partial: bool,
    create: bool,
    force: bool,
) -> Result<Reply, RequestError> {
    let version = turn.state.next_version(turn.ctx.wall);
    let mut taken = Taken::default();
    let mut prepared: BTreeMap<&PathId, Prepared> = BTreeMap::new();
    for (id, input) in updates {
        if prepared.contains_key(id) {
            return Err(RequestError::Bad(format!("app '{id}' is given more than once")));
        }
        let defaults = turn.state.settings.app_defaults.clone();
        let current = match ownership::app(turn, origin, id) {
            // What is another's is not there for who only changes, and taken for who would also create.
            Err(_) if !create => return Err(RequestError::NoApp(id.clone())),
            Err(_) => {
                ownership::check_free(turn, origin, id)?;
                None
            }
            Ok(current) => Some(current),
        };
        let stored = partial && current.is_some() && input.rollback()?.is_some();
        let source = if stored { Source::Stored } else { Source::Written };
        let app = match current {
            None => input.create(id, &defaults).map_err(RequestError::Invalid)?,
            Some(current) if partial => match input.rollback()? {
                Some(wanted) => definition(turn, id, wanted)?,
                None => input.update(&current, &defaults).map_err(RequestError::Invalid)?,
            },
            Some(current) => input.replace(&current, &defaults).map_err(RequestError::Invalid)?,
        };
        prepared.insert(id, prepare(turn, origin, app, version, source, &mut taken)?);
    }
    deploy(turn, origin, prepared.into_values().collect(), version, force)
}

fn definition(turn: &Turn<'_, '_>, id: &PathId, version: Timestamp) -> Result<App, RequestError> {
    let found = turn.state.tables.definitions.get(&(id.clone(), version));
    found.map(|app| (**app).clone()).ok_or_else(|| RequestError::NoVersion(id.clone(), version))
}

fn delete(turn: &mut Turn<'_, '_>, origin: &Origin, id: &PathId, force: bool) -> Result<Reply, RequestError> {
    let prepared = removal(turn, origin, id)?;
    let version = turn.state.next_version(turn.ctx.wall);
    deploy(turn, origin, vec![prepared], version, force)
}

fn removal(turn: &Turn<'_, '_>, origin: &Origin, id: &PathId) -> Result<Prepared, RequestError> {
    let current = ownership::app(turn, origin, id)?;
    let owner = turn.state.tables.owner_of(id).cloned();
    let change = AppChange { app: id.clone(), owner, from: Some(current.version), to: None };
    let planned = Planned { change, kind: Some(ActionKind::Stop) };
    Ok(Prepared { planned, definition: None, claims: Vec::new(), bricks: Vec::new(), entry: None, posted: false })
}

fn restart(turn: &mut Turn<'_, '_>, origin: &Origin, id: &PathId, force: bool) -> Result<Reply, RequestError> {
    let current = ownership::app(turn, origin, id)?;
    let version = turn.state.next_version(turn.ctx.wall);
    let mut app = (*current).clone();
    app.version = version;
    app.version_info.last_config_change_at = version;
    app.owner = Some(ownership::owner(turn, origin, id));
    let prepared = changed(app, Some(&current), ActionKind::Restart, false);
    deploy(turn, origin, vec![prepared], version, force)
}

/// Completes and checks a definition, and finds out what it changes.
fn prepare(
    turn: &mut Turn<'_, '_>,
    origin: &Origin,
    mut app: App,
    version: Timestamp,
    source: Source,
    taken: &mut Taken,
) -> Result<Prepared, RequestError> {
    let current = match turn.state.tables.apps.contains_key(&app.id) {
        true => Some(ownership::app(turn, origin, &app.id)?),
        false => None,
    };
    // Whoever runs it is given everybody's tokens.
    if app.id.as_str() == image::REGISTRY_APP && !origin.admin {
        return Err(RequestError::Forbidden);
    }
    app.owner = Some(ownership::owner(turn, origin, &app.id));
    let rights = ownership::rights(turn, origin, &app, current.as_deref(), source);
    app.vouched = rights.vouched;
    app.administered = rights.administered;
    let settings = &turn.state.settings;
    let violations = validate::app(
        &app,
        validate::Ctx {
            privileged: rights.privileged,
            docker_parameters: rights.docker_parameters,
            default_role: &settings.app_defaults.role,
            existing_role: current.as_ref().map(|current| current.role.as_str()),
            host_volumes: &settings.host_volumes,
        },
    );
    if !violations.is_empty() {
        return Err(RequestError::Invalid(violations));
    }
    check_domain_name(turn, origin, &app)?;
    let allotted = allotment::allot(turn, &mut app, current.as_deref(), origin, taken)?;
    let kind = date(turn, &mut app, current.as_deref(), version);
    let mut prepared = match kind {
        Some(kind) => changed(app, current.as_ref(), kind, true),
        None => unchanged(&app),
    };
    (prepared.claims, prepared.bricks) = (allotted.claims, allotted.bricks);
    Ok(prepared)
}

/// `app` has its owner already.
fn changed(app: App, current: Option<&Arc<App>>, kind: ActionKind, posted: bool) -> Prepared {
    let from = current.map(|current| current.version);
    let change = AppChange { app: app.id.clone(), owner: app.owner.clone(), from, to: Some(app.version) };
    let owner = app.owner.clone().unwrap_or_else(Owner::default_owner);
    let entry = AppEntry { id: app.id.clone(), version: app.version, owner };
    Prepared {
        planned: Planned { change, kind: Some(kind) },
        definition: Some(app.into()),
        claims: Vec::new(),
        bricks: Vec::new(),
        entry: Some(entry),
        posted,
    }
}

fn unchanged(app: &App) -> Prepared {
    let change = AppChange { app: app.id.clone(), owner: app.owner.clone(), from: Some(app.version), to: Some(app.version) };
    Prepared {
        planned: Planned { change, kind: None },
        definition: None,
        claims: Vec::new(),
        bricks: Vec::new(),
        entry: None,
        posted: true,
    }
}

/// Gives the definition its version by what it changes (Marathon 1.11: a change of `instances` alone keeps the configuration's date), and says what
/// has to be done. `None`: nothing has changed, and the version is the present one.
fn date(turn: &Turn<'_, '_>, app: &mut App, current: Option<&App>, version: Timestamp) -> Option<ActionKind> {
    let Some(current) = current else {
        app.version = version;
        app.version_info.last_scaling_at = version;
        app.version_info.last_config_change_at = version;
        return Some(ActionKind::Start);
    };
    let scaled = app.instances != current.instances;
    // Who asks, and whose it is, are no change of what runs.
    let (owner, vouched, administered) = (app.owner.clone(), app.vouched, app.administered);
    let same_but_size = App { instances: app.instances, owner, vouched, administered, ..current.clone() };
    app.version = current.version;
    app.version_info = current.version_info;
    let reconfigured = *app != same_but_size;
    if !scaled && !reconfigured {
        return None;
    }
    app.version = version;
    if reconfigured {
        app.version_info.last_scaling_at = version;
        app.version_info.last_config_change_at = version;
        return Some(ActionKind::Restart);
    }
    app.version_info.last_scaling_at = version;
    let tally = turn.state.tables.tallies.get(&app.id);
    let outdated = tally.is_some_and(|tally| tally.wanted_before(app.version_info.last_config_change_at, |_| true) > 0);
    Some(if outdated { ActionKind::Restart } else { ActionKind::Scale })
}

/// Two paths may have the same domain name (`/b/a` and `/a.b`): only one of them may expose ports.
fn check_domain_name(turn: &Turn<'_, '_>, origin: &Origin, app: &App) -> Result<(), RequestError> {
    let label = app.id.dns_label();
    let other = turn.state.labels.get(&label).and_then(|apps| apps.iter().find(|other| **other != app.id)).filter(|_| has_ports(app));
    match other {
        Some(other) if !origin.may_touch(turn.state.tables.owner_of(other)) => {
            Err(RequestError::Conflict(format!("the domain name '{label}' that app '{}' would have is taken", app.id)))
        }
        Some(other) => Err(RequestError::Conflict(format!("app '{}' would have the same domain name '{label}' as app '{other}'", app.id))),
        None => Ok(()),
    }
}

// === deployments ===

fn deploy(
    turn: &mut Turn<'_, '_>,
    origin: &Origin,
    prepared: Vec<Prepared>,
    version: Timestamp,
    force: bool,
) -> Result<Reply, RequestError> {
    let mut in_the_way: Vec<DeploymentId> =
        prepared.iter().filter_map(|one| turn.state.locks.get(&one.planned.change.app).cloned()).collect();
    in_the_way.sort();
    in_the_way.dedup();
    if !in_the_way.is_empty() && !force {
        return Err(RequestError::Locked(in_the_way));
    }
    let foreign = |id: &DeploymentId| turn.state.tables.deployments.get(id).is_some_and(|other| !other.is_all_of(&origin.user));
    if !origin.admin && in_the_way.iter().any(foreign) {
        // An administrator's deployment of several users' apps: forcing it out of the way would stop what is not the caller's.
        return Err(RequestError::Forbidden);
    }
    let most = turn.state.settings.max_running_deployments;
    if turn.state.tables.deployments.len() - in_the_way.len() >= most {
        return Err(RequestError::TooManyDeployments(most));
    }

    check_quota(turn, origin, &prepared)?;

    let id = DeploymentId::new(turn.uuid().to_string());
    let planned: Vec<Planned> = prepared.iter().map(|one| one.planned.clone()).collect();
    let created = planned.iter().filter(|one| one.kind == Some(ActionKind::Start)).map(|one| one.change.app.clone()).collect();
    let changes = planned.iter().filter(|one| one.kind.is_some()).map(|one| one.change.clone()).collect();
    for other in &in_the_way {
        deployment::cancel(turn, other, "a deployment of the same apps was forced");
    }
    prepared.into_iter().for_each(|one| write(turn, origin, one));
    let steps = deployment::plan(&planned);
    deployment::begin(turn, Deployment { id: id.clone(), version, changes, steps, current_step: 0, started_at: turn.ctx.wall });
    Ok(Reply::Deployment { id, version, created })
}

/// Administrators are bound by nobody's quota. An ordinary user's request is about own apps alone.
fn check_quota(turn: &Turn<'_, '_>, origin: &Origin, prepared: &[Prepared]) -> Result<(), RequestError> {
    if origin.admin {
        return Ok(());
    }
    let tables = &turn.state.tables;
    let (mut before, mut after) = (Usage::default(), Usage::default());
    for one in prepared {
        let current = tables.app(&one.planned.change.app).map_or_else(Usage::default, |app| Usage::of_app(app));
        before = before.plus(current);
        after = after.plus(match (&one.definition, one.planned.kind) {
            (Some(definition), _) => Usage::of_app(definition),
            (None, Some(ActionKind::Stop)) => Usage::default(),
            (None, _) => current,
        });
        after.ports += one.claims.len() as u64;
        for brick in &one.bricks {
            let present = tables.bricks.get(&brick.name).map_or(0, |present| present.size);
            after.brick += u128::from(brick.size.saturating_sub(present));
        }
    }
    quota::check(tables, &origin.user, before, after)
}

fn write(turn: &mut Turn<'_, '_>, origin: &Origin, prepared: Prepared) {
    let id = prepared.planned.change.app.clone();
    prepared.claims.into_iter().for_each(|claim| turn.put(Record::Port(claim.into())));
    prepared.bricks.into_iter().for_each(|brick| turn.put(Record::Brick(brick.into())));
    if let Some(definition) = &prepared.definition {
        turn.put(Record::Definition(definition.clone()));
    }
    let posted = prepared.definition.or_else(|| turn.state.tables.app(&id).cloned()).filter(|_| prepared.posted);
    if let Some(app) = posted {
        let (client_ip, uri) = (origin.client_ip.clone(), origin.uri.clone());
        turn.event(Some(&id), Fact::ApiPost { client_ip, uri, definition: app });
    }
    match (prepared.entry, prepared.planned.kind) {
        (Some(entry), _) => turn.put(Record::App(entry.into())),
        (None, Some(ActionKind::Stop)) => turn.delete(RecordKey::App(id.clone())),
        (None, _) => {}
    }
    drop_old_versions(turn, &id);
}

/// Keeps the newest versions, and older ones as long as something names them.
fn drop_old_versions(turn: &mut Turn<'_, '_>, id: &PathId) {
    let surplus = turn.state.versions.get(id).map_or(0, |count| count.saturating_sub(turn.state.settings.max_versions));
    if surplus == 0 {
        return;
    }
    let versions: Vec<Timestamp> = turn.state.tables.versions_of(id).map(|app| app.version).take(surplus).collect();
    let running = turn.state.tables.tallies.get(id).cloned().unwrap_or_default();
    let lock = turn.state.locks.get(id).and_then(|lock| turn.state.tables.deployments.get(lock)).cloned();
    let is_named = |version: &Timestamp| {
        running.by_version.iter().any(|(at, _)| at == version)
            || lock.iter().flat_map(|lock| &lock.changes).any(|change| change.from == Some(*version) || change.to == Some(*version))
    };
    let current = turn.state.tables.apps.get(id).map(|entry| entry.version);
    let old = versions.into_iter().filter(|version| !is_named(version) && Some(*version) != current);
    old.collect::<Vec<_>>().into_iter().for_each(|version| turn.delete(RecordKey::Definition(id.clone(), version)));
}

fn cancel(turn: &mut Turn<'_, '_>, origin: &Origin, id: &DeploymentId, force: bool) -> Result<Reply, RequestError> {
    let deployment = turn.state.tables.deployments.get(id).cloned().ok_or_else(|| RequestError::NoDeployment(id.clone()))?;
    if !origin.admin && !deployment.is_all_of(&origin.user) {
        let sees_some = deployment.owners().contains(&origin.user);
        return Err(if sees_some { RequestError::Forbidden } else { RequestError::NoDeployment(id.clone()) });
    }
    if force {
        deployment::cancel(turn, id, "The deployment was cancelled.");
        return Ok(Reply::Done);
    }
    let version = turn.state.next_version(turn.ctx.wall);
    let mut taken = Taken::default();
    let mut prepared = Vec::new();
    for change in &deployment.changes {
        match change.from {
            Some(before) => {
                let app = definition(turn, &change.app, before)?;
                prepared.push(prepare(turn, origin, app, version, Source::Stored, &mut taken)?);
            }
            None if turn.state.tables.apps.contains_key(&change.app) => prepared.push(removal(turn, origin, &change.app)?),
            None => {}
        }
    }
    deploy(turn, origin, prepared, version, true)
}

// === tasks ===

fn kill(turn: &mut Turn<'_, '_>, origin: &Origin, selection: &KillSelector, scale: bool, force: bool) -> Result<Reply, RequestError> {
    let victims = select(turn, origin, selection)?;
    if !scale {
        victims.iter().for_each(|victim| kill_one(turn, victim));
        return Ok(Reply::Killed(victims.iter().map(|victim| (**victim).clone()).collect()));
    }
    let version = turn.state.next_version(turn.ctx.wall);
    let mut sizes: BTreeMap<PathId, u32> = BTreeMap::new();
    victims.iter().for_each(|victim| *sizes.entry(victim.app().clone()).or_default() += 1);
    let mut prepared = Vec::new();
    for (id, killed) in sizes {
        let current = ownership::app(turn, origin, &id)?;
        let app = App { instances: current.instances.saturating_sub(killed), ..(*current).clone() };
        prepared.push(prepare(turn, origin, app, version, Source::Stored, &mut Taken::default())?);
    }
    let reply = deploy(turn, origin, prepared, version, force)?;
    victims.iter().for_each(|victim| scale::decommission(turn, &victim.id));
    Ok(reply)
}

fn select(turn: &Turn<'_, '_>, origin: &Origin, selection: &KillSelector) -> Result<Vec<Arc<Instance>>, RequestError> {
    let tables = &turn.state.tables;
    match selection {
        KillSelector::App { app, host } => {
            ownership::app(turn, origin, app)?;
            let on_host = |instance: &Instance| {
                let placed = instance.placement.as_ref().map(|placement| &*placement.host);
                host.as_deref().is_none_or(|host| host == "*" || placed == Some(host))
            };
            Ok(tables.instances_of(app).filter(|instance| instance.condition.is_live() && on_host(instance)).cloned().collect())
        }
        KillSelector::Task { app, task } => {
            ownership::app(turn, origin, app)?;
            let missing = || RequestError::NoTask(task.clone());
            let by_task = task.parse::<TaskId>().ok().map(|id| (id.instance, Some(id.incarnation)));
            let (id, incarnation) = by_task.or_else(|| Some((task.parse::<InstanceId>().ok()?, None))).ok_or_else(missing)?;
            let found = tables.instances.get(&id).filter(|instance| instance.app() == app && instance.condition.is_live());
            let found = found.filter(|instance| incarnation.is_none_or(|incarnation| incarnation == instance.incarnation));
            found.map(|instance| vec![instance.clone()]).ok_or_else(missing)
        }
        KillSelector::Tasks(ids) => {
            let found =
                ids.iter().filter_map(|id| tables.instances.get(&id.instance).filter(|instance| instance.incarnation == id.incarnation));
            // What is another's is skipped as what is not there.
            let own = |instance: &&Arc<Instance>| origin.may_touch(tables.owner_of(instance.app()));
            Ok(found.filter(|instance| instance.condition.is_live()).filter(own).cloned().collect())
        }
    }
}

/// The task ends; its instance is launched again. Durable by its condition, so that a restart does not forget it.
fn kill_one(turn: &mut Turn<'_, '_>, victim: &Arc<Instance>) {
    let lost = matches!(victim.condition, Condition::Unreachable | Condition::UnreachableInactive | Condition::Unknown);
    if lost && !turn.state.holders.contains_key(&victim.id) {
        status::forget(turn, victim, victim.condition);
    } else {
        let since = turn.wall();
        turn.put(Record::Instance(Instance { condition: Condition::Killing, since, ..(**victim).clone() }.into()));
    }
}

// === queue, ports, bricks ===

fn reset_delay(turn: &mut Turn<'_, '_>, origin: &Origin, app: &PathId) -> Result<Reply, RequestError> {
    if !turn.state.queue.entries.contains_key(app) || !origin.may_touch(turn.state.tables.owner_of(app)) {
        return Err(RequestError::NotQueued(app.clone()));
    }
    turn.state.queue.reset_delay(app);
    turn.state.dirty.insert(app.clone());
    Ok(Reply::Done)
}

fn release_port(turn: &mut Turn<'_, '_>, origin: &Origin, port: u16) -> Result<Reply, RequestError> {
    let claim = ownership::port(turn, origin, port)?;
    let used = turn.state.tables.app(&claim.app).is_some_and(|app| allotment::is_used(app, claim.position));
    if used || turn.state.tables.tallies.contains_key(&claim.app) {
        return Err(RequestError::Conflict(format!("port {port} is used by app '{}'; destroy the app first", claim.app)));
    }
    turn.delete(RecordKey::Port(port));
    Ok(Reply::Done)
}

fn release_brick(turn: &mut Turn<'_, '_>, origin: &Origin, name: &BrickName, force: bool) -> Result<Reply, RequestError> {
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
fn fence_brick(turn: &mut Turn<'_, '_>, origin: &Origin, name: &BrickName, epoch: u64) -> Result<Reply, RequestError> {
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
    turn.put(Record::Brick(Brick { lease: None, ..(*brick).clone() }.into()));
    if let Some(holder) = holder.filter(|holder| holder.condition.is_live()) {
        status::forget(turn, &holder, Condition::Gone);
    }
    Ok(Reply::Done)
}
