//! Requests of the API: each is checked as a whole, then written as a whole. Nothing is written before everything is known to be right.

mod claims;
mod tasks;

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    allotment::{self, Taken},
    deployment::{
        self,
        plan::{Graph, Planned},
    },
    group,
    holdings::Usage,
    owned::has_ports,
    ownership::{self, Source},
    pod, quota,
    turn::Turn,
    users, validate,
};
use crate::model::{
    app::{
        App, VersionInfo,
        input::{AppInput, Defaults},
    },
    brick::Brick,
    deployment::{ActionKind, AppChange, Deployment, Step},
    event::Fact,
    group::{Group, GroupChange, RootVersion},
    id::{DeploymentId, Owner, PathId},
    image,
    port::PortClaim,
    record::{AppEntry, Record, RecordKey},
    request::{Origin, Reply, Request, RequestError, Violation},
    time::Timestamp,
};

pub(super) fn handle(turn: &mut Turn<'_, '_>, origin: &Origin, request: Request) -> Result<Reply, RequestError> {
    let about = about(&request);
    let outcome = carry_out(turn, origin, request);
    if let (Some(group), Err(error)) = (about, &outcome) {
        refused(turn, origin, group, error);
    }
    outcome
}

/// The group that a change of the tree is about.
fn about(request: &Request) -> Option<PathId> {
    match request {
        Request::CreateApp { input, .. } => Some(PathId::resolve(input.id()?, &PathId::root()).ok()?.parent()),
        Request::UpdateApps { updates, .. } => Some(about_updates(updates)),
        Request::CreatePod { input, .. } => Some(input.path().ok()?.parent()),
        Request::DeleteApp { app: id, .. }
        | Request::UpdatePod { pod: id, .. }
        | Request::DeletePod { pod: id, .. }
        | Request::RestartApp { app: id, .. }
        | Request::DeleteGroup { group: id, .. } => Some(id.parent()),
        Request::UpdateGroup { base, dry_run: false, .. } => Some(base.parent()),
        Request::KillTasks { scale: true, .. } | Request::CancelDeployment { force: false, .. } => Some(PathId::root()),
        _ => None,
    }
}

fn about_updates(updates: &[(PathId, AppInput)]) -> PathId {
    if let [(id, _)] = updates { id.parent() } else { PathId::root() }
}

/// A change that fails is an event too (Marathon 1.11), unless it was not the caller's to make, or its body alone was wrong: that is looked at before, and
/// told by [`deploy`] when it is what the body makes of the tree.
fn refused(turn: &mut Turn<'_, '_>, origin: &Origin, group: PathId, error: &RequestError) {
    use RequestError as E;
    if matches!(error, E::Forbidden | E::Invalid(_) | E::Bad(_) | E::Unprocessable(_) | E::NoPath(_) | E::NoTask(_) | E::NoDeployment(_)) {
        return;
    }
    tell_refused(turn, origin, group, error.to_string());
}

fn tell_refused(turn: &mut Turn<'_, '_>, origin: &Origin, group: PathId, reason: String) {
    let version = turn.state.next_version(turn.ctx.wall);
    turn.event_for(&origin.user, Fact::GroupChangeFailed { group, version, reason });
}

fn carry_out(turn: &mut Turn<'_, '_>, origin: &Origin, request: Request) -> Result<Reply, RequestError> {
    match request {
        Request::CreateApp { input, force } => create(turn, origin, &input, force),
        Request::UpdateApps { updates, partial, create, force } => update(turn, origin, &updates, partial, create, force),
        Request::DeleteApp { app, force } => {
            ownership::app(turn, origin, &app)?;
            delete(turn, origin, &app, force)
        }
        Request::CreatePod { input, force } => pod::create(turn, origin, &input, force),
        Request::UpdatePod { pod, input, force } => pod::update(turn, origin, &pod, &input, force),
        Request::DeletePod { pod, force } => pod::delete(turn, origin, &pod, force),
        Request::RestartApp { app, force } => restart(turn, origin, &app, force),
        Request::KillTasks { selection, scale, force, wipe } => tasks::kill(turn, origin, &selection, tasks::Manner { scale, force, wipe }),
        Request::UpdateGroup { base, input, create, force, dry_run } => {
            group::update(turn, origin, &base, &input, group::Manner { create, force, dry_run })
        }
        Request::EnforceRole { group, enforce } => group::enforce_role(turn, origin, &group, enforce),
        Request::DeleteGroup { group, force } => group::delete(turn, origin, &group, force),
        Request::CancelDeployment { id, force } => cancel(turn, origin, &id, force),
        Request::ResetDelay { app } => claims::reset_delay(turn, origin, &app),
        Request::ReleasePort { port } => claims::release_port(turn, origin, port),
        Request::ReleaseBrick { brick, force } => claims::release_brick(turn, origin, &brick, force),
        Request::FenceBrick { brick, epoch } => claims::fence_brick(turn, origin, &brick, epoch),
        Request::HandOver { what, owner } => ownership::hand_over(turn, origin, &what, &owner),
        Request::PutUser { name, change } => users::put_user(turn, origin, &name, change),
        Request::RemoveUser { name } => users::remove_user(turn, origin, &name),
    }
}

/// A change of the tree of groups in the making: everything of it becomes one deployment, or nothing of it is done.
pub(super) struct Draft {
    pub(super) version: Timestamp,
    /// The group that the request is about.
    pub(super) about: PathId,
    pub(super) prepared: Vec<Prepared>,
    /// Groups as they are to be; `None`: without a record.
    pub(super) groups: BTreeMap<PathId, Option<Arc<Group>>>,
    /// Its definitions are told of by `api_post_event`: those of apps are, those of groups are not (Marathon 1.11).
    pub(super) posts: bool,
    /// The request creates one app and nothing else.
    creates: bool,
    taken: Taken,
}

impl Prepared {
    pub(super) fn app(&self) -> &PathId {
        &self.planned.change.app
    }

    /// True when the app did not exist.
    pub(super) fn is_new(&self) -> bool {
        self.planned.kind == Some(ActionKind::Start)
    }

    /// True when the app goes.
    pub(super) fn is_removed(&self) -> bool {
        self.planned.kind == Some(ActionKind::Stop)
    }
}

impl Draft {
    pub(super) fn new(turn: &mut Turn<'_, '_>, about: PathId) -> Self {
        let version = turn.state.next_version(turn.ctx.wall);
        Self { version, about, prepared: Vec::new(), groups: BTreeMap::new(), posts: true, creates: false, taken: Taken::default() }
    }

    /// The role that the group around an app gives it; `None`: it may choose.
    fn enforced_role<'a>(&self, turn: &Turn<'_, '_>, id: &'a PathId) -> Option<&'a str> {
        let mut segments = id.segments();
        let (top, _) = (segments.next()?, segments.next()?);
        let group = id.as_str().get(..=top.len())?;
        let record = match self.groups.get(group) {
            Some(record) => record.as_ref(),
            None => turn.state.tables.groups.get(group),
        };
        let enforces = match record {
            Some(record) => record.enforce_role,
            None => turn.state.settings.new_group_enforce_role && !turn.state.tables.group_exists(&PathId::root().child(top)),
        };
        enforces.then_some(top)
    }

    /// What a definition gets that does not say it.
    pub(super) fn defaults<'a>(&self, turn: &'a Turn<'_, '_>, id: &PathId) -> Cow<'a, Defaults> {
        let defaults = &turn.state.settings.app_defaults;
        match self.enforced_role(turn, id) {
            Some(role) => Cow::Owned(Defaults { role: role.to_owned(), ..defaults.clone() }),
            None => Cow::Borrowed(defaults),
        }
    }

    /// What becomes of the groups.
    fn group_changes(&self, turn: &Turn<'_, '_>) -> Vec<GroupChange> {
        let change = |(id, to): (&PathId, &Option<Arc<Group>>)| {
            let from = turn.state.tables.groups.get(id).cloned();
            (from != *to).then(|| GroupChange { id: id.clone(), from, to: to.clone() })
        };
        self.groups.iter().filter_map(change).collect()
    }
}

/// One app of a request, ready to be written.
pub(super) struct Prepared {
    planned: Planned,
    /// `None`: removed, or unchanged.
    definition: Option<Arc<App>>,
    claims: Vec<PortClaim>,
    bricks: Vec<Brick>,
    /// Of an app that is new.
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
        return Err(if ownership::pod(turn, origin, &id).is_ok() { pod::same_id() } else { RequestError::AppExists(id) });
    }
    ownership::check_free(turn, origin, &id)?;
    let mut draft = Draft::new(turn, id.parent());
    draft.creates = true;
    let app = input.create(&id, &draft.defaults(turn, &id)).map_err(RequestError::Invalid)?;
    prepare(turn, origin, app, Source::Written, &mut draft)?;
    deploy(turn, origin, draft, force)
}

fn update(
    turn: &mut Turn<'_, '_>,
    origin: &Origin,
    updates: &[(PathId, AppInput)],
    partial: bool,
    create: bool,
    force: bool,
) -> Result<Reply, RequestError> {
    let mut draft = Draft::new(turn, about_updates(updates));
    // Of several at once nothing is posted (Marathon 1.11).
    draft.posts = updates.len() == 1;
    let mut named = BTreeSet::new();
    for (id, input) in updates {
        if !named.insert(id) {
            return Err(RequestError::Bad(format!("app '{id}' is given more than once")));
        }
        let defaults = draft.defaults(turn, id);
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
        prepare(turn, origin, app, source, &mut draft)?;
    }
    deploy(turn, origin, draft, force)
}

pub(super) fn definition(turn: &Turn<'_, '_>, id: &PathId, version: Timestamp) -> Result<App, RequestError> {
    let found = turn.state.tables.definition(id, version);
    found.map(|app| (**app).clone()).ok_or_else(|| RequestError::NoApp(id.clone()))
}

pub(super) fn delete(turn: &mut Turn<'_, '_>, origin: &Origin, id: &PathId, force: bool) -> Result<Reply, RequestError> {
    let mut draft = Draft::new(turn, id.parent());
    remove(turn, origin, id, &mut draft)?;
    deploy(turn, origin, draft, force)
}

pub(super) fn remove(turn: &Turn<'_, '_>, origin: &Origin, id: &PathId, draft: &mut Draft) -> Result<(), RequestError> {
    let current = ownership::spec(turn, origin, id)?;
    let owner = turn.state.tables.owner_of(id).cloned();
    let change = AppChange { app: id.clone(), owner, from: Some(current.version), to: None };
    let planned = Planned { change, kind: Some(ActionKind::Stop), pod: current.pod.is_some() };
    draft.prepared.push(Prepared { planned, definition: None, claims: Vec::new(), bricks: Vec::new(), entry: None, posted: false });
    Ok(())
}

fn restart(turn: &mut Turn<'_, '_>, origin: &Origin, id: &PathId, force: bool) -> Result<Reply, RequestError> {
    let current = ownership::app(turn, origin, id)?;
    let mut draft = Draft::new(turn, id.parent());
    let mut app = (*current).clone();
    app.version = draft.version;
    app.version_info = Some(VersionInfo { last_scaling_at: current.last_scaling_at(), last_config_change_at: draft.version });
    app.owner = Some(ownership::owner(turn, origin, id));
    let kind = if app.instances == 0 { ActionKind::Scale } else { ActionKind::Restart };
    draft.prepared.push(changed(app, Some(&current), kind, false));
    deploy(turn, origin, draft, force)
}

/// Completes and checks a definition, and finds out what it changes.
pub(super) fn prepare(
    turn: &mut Turn<'_, '_>,
    origin: &Origin,
    mut app: App,
    source: Source,
    draft: &mut Draft,
) -> Result<(), RequestError> {
    let current = match ownership::spec(turn, origin, &app.id) {
        Err(error) if turn.state.tables.apps.contains_key(&app.id) => return Err(error),
        current => current.ok(),
    };
    if current.as_ref().is_some_and(|current| current.pod.is_some() != app.pod.is_some()) {
        return Err(pod::same_id());
    }
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
            enforced_role: draft.enforced_role(turn, &app.id),
            host_volumes: &settings.host_volumes,
            secrets: settings.secrets,
            secrets_of: app.owner.as_ref().filter(|_| !rights.all_secrets),
            command_networks: settings.command_networks || is_kept(&app, current.as_deref(), source),
        },
    );
    if !violations.is_empty() {
        return Err(RequestError::Invalid(violations));
    }
    check_domain_name(turn, origin, &app)?;
    let is_pod = app.pod.is_some();
    let allotted = allotment::allot(turn, &mut app, current.as_deref(), origin, &mut draft.taken)?;
    if let Some(current) = &current {
        let violations = validate::resident_update(current, &app);
        if !violations.is_empty() {
            return Err(RequestError::Invalid(violations));
        }
    }
    let kind = date(turn, &mut app, current.as_deref(), draft.version);
    let mut prepared = match kind {
        Some(kind) => changed(app, current.as_ref(), kind, true),
        None => unchanged(&app),
    };
    (prepared.claims, prepared.bricks) = (allotted.claims, allotted.bricks);
    prepared.posted &= draft.posts && !is_pod;
    draft.prepared.push(prepared);
    Ok(())
}

/// What was accepted before the rule may be scaled, suspended and gone back to.
fn is_kept(app: &App, current: Option<&App>, source: Source) -> bool {
    source == Source::Stored || current.is_some_and(|current| validate::has_command_network(current) && current.network == app.network)
}

/// `app` has its owner already.
fn changed(app: App, current: Option<&Arc<App>>, kind: ActionKind, posted: bool) -> Prepared {
    let from = current.map(|current| current.version);
    let change = AppChange { app: app.id.clone(), owner: app.owner.clone(), from, to: Some(app.version) };
    let owner = app.owner.clone().unwrap_or_else(Owner::default_owner);
    let entry = current.is_none().then(|| AppEntry { id: app.id.clone(), owner });
    Prepared {
        planned: Planned { change, kind: Some(kind), pod: app.pod.is_some() },
        definition: Some(app.into()),
        claims: Vec::new(),
        bricks: Vec::new(),
        entry,
        posted,
    }
}

fn unchanged(app: &App) -> Prepared {
    let change = AppChange { app: app.id.clone(), owner: app.owner.clone(), from: Some(app.version), to: Some(app.version) };
    Prepared {
        planned: Planned { change, kind: None, pod: app.pod.is_some() },
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
        app.version_info = None;
        return Some(ActionKind::Start);
    };
    let scaled = app.instances != current.instances;
    app.version = current.version;
    app.version_info = current.version_info;
    // Its size is compared already. Who asks, and whose it is, are no change of what runs; nor is what an executor would take (as in Marathon).
    let own = (app.instances, app.vouched, app.administered, app.executor_resources, app.owner.take());
    (app.instances, app.vouched, app.administered) = (current.instances, current.vouched, current.administered);
    app.executor_resources = current.executor_resources;
    app.owner.clone_from(&current.owner);
    let reconfigured = *app != *current;
    (app.instances, app.vouched, app.administered, app.executor_resources, app.owner) = own;
    if !scaled && !reconfigured && app.executor_resources == current.executor_resources {
        return None;
    }
    app.version = version;
    if reconfigured {
        app.version_info = None;
        return Some(if app.instances == 0 { ActionKind::Scale } else { ActionKind::Restart });
    }
    app.version_info = Some(VersionInfo { last_scaling_at: version, last_config_change_at: current.last_config_change_at() });
    let tally = turn.state.tables.tallies.get(&app.id);
    let outdated = tally.is_some_and(|tally| tally.wanted_before(app.last_config_change_at(), |_| true) > 0);
    Some(if outdated && app.instances > 0 { ActionKind::Restart } else { ActionKind::Scale })
}

/// Two paths may have the same domain name (`/b/a` and `/a.b`): only one of them may expose ports.
fn check_domain_name(turn: &Turn<'_, '_>, origin: &Origin, app: &App) -> Result<(), RequestError> {
    if !has_ports(app) {
        return Ok(());
    }
    let label = app.id.dns_label();
    let other = turn.state.labels.get(&label).and_then(|apps| apps.iter().find(|other| **other != app.id));
    match other {
        Some(other) if !origin.may_touch(turn.state.tables.owner_of(other)) => {
            Err(RequestError::Conflict(format!("the domain name '{label}' that app '{}' would have is taken", app.id)))
        }
        Some(other) => Err(RequestError::Conflict(format!("app '{}' would have the same domain name '{label}' as app '{other}'", app.id))),
        None => Ok(()),
    }
}

// === deployments ===

/// Begins the deployment that the draft asks for.
pub(super) fn deploy(turn: &mut Turn<'_, '_>, origin: &Origin, draft: Draft, force: bool) -> Result<Reply, RequestError> {
    let group = draft.about.clone();
    let outcome = begin(turn, origin, draft, force);
    if let Err(RequestError::Invalid(violations)) = &outcome {
        let violations: Vec<String> = violations.iter().map(|one| format!("{}: {}", one.path, one.text)).collect();
        tell_refused(turn, origin, group, format!("Validation failed: {}", violations.join(", ")));
    }
    outcome
}

fn begin(turn: &mut Turn<'_, '_>, origin: &Origin, mut draft: Draft, force: bool) -> Result<Reply, RequestError> {
    // Before anything else, so that what is in the way counts although it could be forced out of it (Marathon 1.11).
    let most = turn.state.settings.max_running_deployments;
    if turn.state.tables.deployments.len() >= most {
        return Err(RequestError::TooManyDeployments(most));
    }
    let steps = plan(turn, origin, &mut draft)?;
    // What stays as it is does not have to wait for anybody.
    let changing = draft.prepared.iter().filter(|one| one.planned.kind.is_some());
    let in_the_way: BTreeSet<DeploymentId> = changing.filter_map(|one| turn.state.locks.get(&one.planned.change.app).cloned()).collect();
    if !in_the_way.is_empty() && !force {
        return Err(RequestError::Locked(in_the_way.into_iter().collect()));
    }
    let foreign = |id: &DeploymentId| turn.state.tables.deployments.get(id).is_some_and(|other| !other.is_all_of(&origin.user));
    if !origin.admin && in_the_way.iter().any(foreign) {
        // An administrator's deployment of several users' apps: forcing it out of the way would stop what is not the caller's.
        return Err(RequestError::Forbidden);
    }
    check_quota(turn, origin, &draft.prepared)?;
    check_external_volumes(turn, origin, &draft.prepared)?;

    let id = DeploymentId::new(turn.uuid().to_string());
    let planned = || draft.prepared.iter().map(|one| &one.planned);
    let created = planned().filter(|one| one.kind == Some(ActionKind::Start)).map(|one| one.change.app.clone()).collect();
    let changes: Vec<AppChange> = planned().filter(|one| one.kind.is_some()).map(|one| one.change.clone()).collect();
    let groups = draft.group_changes(turn);
    for other in &in_the_way {
        deployment::cancel(turn, other);
    }
    let Draft { version, about, prepared, creates, .. } = draft;
    prepared.into_iter().for_each(|one| write(turn, origin, one, creates));
    write_groups(turn, RootVersion { version, group: about, apps: changes.clone(), groups: groups.clone() });
    deployment::begin(turn, Deployment { id: id.clone(), version, changes, groups, steps, current_step: 0, started_at: turn.ctx.wall });
    Ok(Reply::Deployment { id, version, created })
}

/// Completes the draft (the groups around new apps, those that an app takes the place of), looks at the tree as a whole, and says which steps lead to it.
pub(super) fn plan(turn: &Turn<'_, '_>, origin: &Origin, draft: &mut Draft) -> Result<Vec<Step>, RequestError> {
    let started = |draft: &Draft| {
        let new = draft.prepared.iter().filter(|one| one.planned.kind == Some(ActionKind::Start));
        new.map(|one| one.planned.change.app.clone()).collect::<Vec<_>>()
    };
    for app in started(draft) {
        group::around(turn, origin, &app, draft);
    }
    let changes = draft.prepared.iter().filter(|one| one.planned.kind.is_some());
    let apps = changes.map(|one| (&one.planned.change.app, one.definition.as_deref()));
    let groups = draft.groups.iter().map(|(id, group)| (id, group.as_deref()));
    let mut graph = Graph::new(&turn.state.tables, origin, apps, groups);
    group::check_names(turn, draft, &graph)?;
    graph.check()?;
    let planned: Vec<Planned> = draft.prepared.iter().map(|one| one.planned.clone()).collect();
    graph.steps(&planned)
}

/// The groups, and the new version of the root; the oldest goes when there are too many.
fn write_groups(turn: &mut Turn<'_, '_>, root: RootVersion) {
    for change in &root.groups {
        match &change.to {
            Some(group) => turn.put(Record::Group(group.clone())),
            None => turn.delete(RecordKey::Group(change.id.clone())),
        }
    }
    if root.apps.is_empty() && root.groups.is_empty() {
        let fact = Fact::GroupChangeSuccess { group: root.group, version: root.version };
        return turn.event(None, fact);
    }
    turn.put(Record::RootVersion(root.into()));
    while turn.state.tables.root_versions.len() > turn.state.settings.max_versions.max(1)
        && let Some((version, oldest)) = turn.state.tables.root_versions.get_min().cloned()
    {
        turn.delete(RecordKey::RootVersion(version));
        for change in &oldest.apps {
            let Some(from) = change.from else { continue };
            let key = (change.app.clone(), from);
            if !turn.state.mentions.contains_key(&key) && turn.state.tables.archive.contains_key(&key) {
                turn.delete(RecordKey::Archived(key.0, key.1));
            }
        }
    }
}

/// Administrators are bound by nobody's quota. An ordinary user's request is about own apps alone.
fn check_quota(turn: &Turn<'_, '_>, origin: &Origin, prepared: &[Prepared]) -> Result<(), RequestError> {
    if origin.admin {
        return Ok(());
    }
    let tables = &turn.state.tables;
    let (mut before, mut after) = (Usage::default(), Usage::default());
    for one in prepared {
        let current = tables.app(&one.planned.change.app).map_or_else(Usage::default, |app| Usage::of_app(tables, app));
        before = before.plus(current);
        after = after.plus(match (&one.definition, one.planned.kind) {
            (Some(definition), _) => Usage::of_app(tables, definition),
            (None, Some(ActionKind::Stop)) => Usage::default(),
            (None, _) => current,
        });
        after.ports += one.claims.len() as u64;
        // Those that are not there count with their definition.
        let grown = one.bricks.iter().filter_map(|brick| Some(brick.size.saturating_sub(tables.bricks.get(&brick.name)?.size)));
        after.brick += grown.map(u128::from).sum::<u128>();
    }
    quota::check(tables, &origin.user, before, after)
}

/// An external volume is one app's, unless every app that names it says that it is shared.
fn check_external_volumes(turn: &Turn<'_, '_>, origin: &Origin, prepared: &[Prepared]) -> Result<(), RequestError> {
    let tables = &turn.state.tables;
    let changes = prepared.iter().filter(|one| one.planned.kind.is_some() || one.definition.is_some());
    let after: BTreeMap<&PathId, Option<&App>> = changes.map(|one| (&one.planned.change.app, one.definition.as_deref())).collect();
    let is_shared = |app: &App, name: &str| app.external_volumes().all(|volume| volume.name != name || volume.shared);
    let mut named: BTreeMap<&str, Vec<&App>> = BTreeMap::new();
    for app in after.values().flatten() {
        app.external_volumes().for_each(|volume| named.entry(&volume.name).or_default().push(app));
    }
    let mut violations = Vec::new();
    for (name, mut apps) in named {
        let present = turn.state.external_volumes.get(name).into_iter().flatten().filter(|id| !after.contains_key(id));
        apps.extend(present.filter_map(|id| tables.app(id)).map(|app| &**app));
        for app in &apps {
            // As Marathon words it: whoever does not share is in the way of all others.
            let others = apps.iter().filter(|other| other.id != app.id && !is_shared(other, name));
            let (own, foreign): (Vec<_>, Vec<_>) =
                others.partition(|other| origin.may_touch(tables.owner_of(&other.id)) || after.contains_key(&other.id));
            if !own.is_empty() && origin.may_touch(tables.owner_of(&app.id)) {
                let others: Vec<&str> = own.iter().map(|other: &&&App| other.id.as_str()).collect();
                let others = others.join(", ");
                let text = format!("Volume name '{name}' in {} conflicts with volume(s) of same name in app(s): {others}", app.id);
                violations.push(Violation::new("/container", text));
            } else if !own.is_empty() || !foreign.is_empty() {
                violations.push(Violation::new("/container", format!("Volume name '{name}' is taken")));
            }
        }
    }
    violations.dedup();
    if violations.is_empty() { Ok(()) } else { Err(RequestError::Invalid(violations)) }
}

fn write(turn: &mut Turn<'_, '_>, origin: &Origin, prepared: Prepared, created: bool) {
    let id = prepared.planned.change.app.clone();
    prepared.claims.into_iter().for_each(|claim| turn.put(Record::Port(claim.into())));
    prepared.bricks.into_iter().for_each(|brick| turn.put(Record::Brick(brick.into())));
    if let Some(definition) = &prepared.definition {
        turn.put(Record::Definition(definition.clone()));
    }
    let posted = prepared.definition.or_else(|| turn.state.tables.app(&id).cloned()).filter(|_| prepared.posted);
    if let Some(app) = posted {
        let (client_ip, uri) = (origin.client_ip.clone(), origin.uri.clone());
        turn.event(Some(&id), Fact::ApiPost { client_ip, uri, definition: app, created });
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
    let surplus = turn.state.tables.definitions.count(id).saturating_sub(turn.state.settings.max_versions);
    if surplus == 0 {
        return;
    }
    let versions: Vec<Timestamp> = turn.state.tables.versions_of(id).map(|app| app.version).take(surplus).collect();
    let running = turn.state.tables.tallies.get(id).cloned().unwrap_or_default();
    let lock = turn.state.locks.get(id).and_then(|lock| turn.state.tables.deployments.get(lock)).cloned();
    let is_named = |version: &Timestamp| {
        turn.state.mentions.contains_key(&(id.clone(), *version))
            || running.by_version.iter().any(|(at, _)| at == version)
            || lock.iter().flat_map(|lock| &lock.changes).any(|change| change.from == Some(*version) || change.to == Some(*version))
    };
    let current = turn.state.tables.app(id).map(|app| app.version);
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
        deployment::cancel(turn, id);
        return Ok(Reply::Done);
    }
    let mut draft = Draft::new(turn, PathId::root());
    draft.posts = false;
    for change in &deployment.changes {
        match change.from {
            Some(before) => {
                let app = definition(turn, &change.app, before)?;
                prepare(turn, origin, app, Source::Stored, &mut draft)?;
            }
            None if turn.state.tables.apps.contains_key(&change.app) => remove(turn, origin, &change.app, &mut draft)?,
            None => {}
        }
    }
    group::revert(turn, &deployment.groups, &mut draft);
    deploy(turn, origin, draft, true)
}
