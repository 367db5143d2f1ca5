//! The tree of groups: what a request about a group means for the apps and groups that are there, and what the tree was at an earlier version.
//!
//! Facts (Marathon 1.11): an absent key keeps what is there, a present one replaces it: what it does not name goes. Groups come with their first app and
//! stay when their last one goes. A cancelled deployment takes back what it did to groups, unless others have used them meanwhile.
//!
//! An ordinary user changes the own part of a group: what belongs to others stays as if it were not there.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    deployment::plan::Graph,
    ownership::{self, Source},
    request::{self, Draft},
    state::Tables,
    turn::Turn,
};
use crate::model::{
    app::{App, input::AppInput},
    group::{
        Group, GroupChange,
        input::{GroupInput, beneath, is_top_level},
    },
    id::{Owner, PathId},
    record::Record,
    request::{Origin, Reply, RequestError, Violation},
    time::Timestamp,
};

/// How a group is changed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Manner {
    /// It must not exist.
    pub(super) create: bool,
    pub(super) force: bool,
    /// Nothing is done.
    pub(super) dry_run: bool,
}

const SAME_ID: &str = "Groups and Applications may not have the same identifier.";
const SAME_ID_OF_POD: &str = "Groups and Pods may not have the same identifier.";
const ENFORCE_ALONE: &str =
    "enforceRole cannot be modified in a request that adds, removes or modifies services; please make these changes in separate requests.";

/// The ids below a group are those from the first text up to the second: '0' follows '/'.
pub fn below(group: &PathId) -> (String, String) {
    let prefix = if group.is_root() { "" } else { group.as_str() };
    (format!("{prefix}/"), format!("{prefix}0"))
}

// === requests ===

pub(super) fn update(
    turn: &mut Turn<'_, '_>,
    origin: &Origin,
    base: &PathId,
    input: &GroupInput,
    manner: Manner,
) -> Result<Reply, RequestError> {
    let id = input.resolve(base).map_err(RequestError::Invalid)?;
    input.check(&id).map_err(RequestError::Invalid)?;
    if manner.create {
        if turn.state.tables.group_exists(&id) {
            return Err(RequestError::Conflict(format!("Group {id} is already created. Use PUT to change this group.")));
        }
        if turn.state.tables.apps.contains_key(&id) {
            return Err(RequestError::Conflict(format!("An app with the path {id} already exists.")));
        }
    }
    let mut draft = Draft::new(turn, base.parent());
    draft.posts = false;
    if let Some(version) = input.version {
        roll_back(turn, origin, &id, version, &mut draft)?;
    } else if let Some(factor) = input.scale_by {
        scale(turn, origin, &id, factor, &mut draft)?;
    } else {
        lay_over(turn, origin, &id, input, &mut draft)?;
    }
    if manner.dry_run {
        return request::plan(turn, origin, &mut draft).map(Reply::Planned);
    }
    request::deploy(turn, origin, draft, manner.force)
}

/// No deployment, and no new version of the root: roles are looked at when apps are written.
pub(super) fn enforce_role(turn: &mut Turn<'_, '_>, origin: &Origin, id: &PathId, enforce: Option<bool>) -> Result<Reply, RequestError> {
    if !is_top_level(id) {
        return Err(RequestError::Invalid(vec![Violation::new("/", "Path needs to be top-level")]));
    }
    known(turn, origin, id)?;
    let record = record(turn, origin, id);
    let enforce_role = enforce.unwrap_or(turn.state.settings.new_group_enforce_role);
    if enforce_role != record.enforce_role {
        all_own(turn, origin, id)?;
        turn.put(Record::Group(Group { enforce_role, ..record }.into()));
    }
    Ok(Reply::Done)
}

pub(super) fn delete(turn: &mut Turn<'_, '_>, origin: &Origin, id: &PathId, force: bool) -> Result<Reply, RequestError> {
    known(turn, origin, id)?;
    let tables = &turn.state.tables;
    if tables.apps_below(id).any(|app| !origin.may_touch(tables.owner_of(app))) {
        return Err(RequestError::Forbidden);
    }
    let mut draft = Draft::new(turn, id.parent());
    remove(turn, origin, id, &mut draft)?;
    request::deploy(turn, origin, draft, force)
}

/// The group is there, as far as the origin may know.
fn known(turn: &Turn<'_, '_>, origin: &Origin, id: &PathId) -> Result<(), RequestError> {
    if is_seen(&turn.state.tables, origin, id) { Ok(()) } else { Err(RequestError::NoGroup(id.clone())) }
}

/// True when a group is there for the origin: an own one, or one with anything own in it.
fn is_seen(tables: &Tables, origin: &Origin, id: &PathId) -> bool {
    if origin.admin || id.is_root() {
        return tables.group_exists(id);
    }
    let own = |group: &Arc<Group>| group.owner == origin.user;
    tables.groups.get(id).is_some_and(own)
        || tables.apps_below(id).any(|app| origin.may_touch(tables.owner_of(app)))
        || tables.groups_below(id).any(own)
}

/// That nothing in the group, nor the group, belongs to others.
fn all_own(turn: &Turn<'_, '_>, origin: &Origin, id: &PathId) -> Result<(), RequestError> {
    let tables = &turn.state.tables;
    let others = tables.apps_below(id).any(|app| !origin.may_touch(tables.owner_of(app)));
    let own = !id.is_root() && tables.groups.get(id).is_none_or(|group| group.owner == origin.user);
    if origin.admin || own && !others { Ok(()) } else { Err(RequestError::Forbidden) }
}

/// The record of a group as it is, or as it would be made.
fn record(turn: &Turn<'_, '_>, origin: &Origin, id: &PathId) -> Group {
    if let Some(group) = turn.state.tables.groups.get(id) {
        return (**group).clone();
    }
    let enforce_role = is_top_level(id) && turn.state.settings.new_group_enforce_role && !turn.state.tables.group_exists(id);
    Group { enforce_role, ..Group::plain(id.clone(), origin.user.clone()) }
}

// === what is written over what is there ===

/// Everything that the input says, with where each app stands in it.
#[derive(Default)]
struct Written<'a> {
    apps: BTreeMap<PathId, (&'a AppInput, PathId, String)>,
    gone: BTreeSet<PathId>,
    violations: Vec<Violation>,
}

fn lay_over(turn: &mut Turn<'_, '_>, origin: &Origin, id: &PathId, input: &GroupInput, draft: &mut Draft) -> Result<(), RequestError> {
    let mut written = Written::default();
    read_group(turn, origin, id, input, "", input.changes_apps(), &mut written, draft)?;
    if !written.violations.is_empty() {
        return Err(RequestError::Invalid(written.violations));
    }
    for app in &written.gone {
        request::remove(turn, origin, app, draft)?;
    }
    let mut violations = Vec::new();
    for (app, (input, group, at)) in written.apps {
        match write_app(turn, origin, &app, &input.within(&group), draft) {
            Err(RequestError::Invalid(found)) => {
                violations.extend(found.into_iter().map(|one| Violation { path: beneath(&at, &one.path), text: one.text }));
            }
            other => other?,
        }
        if violations.len() > MAX_VIOLATIONS {
            break;
        }
    }
    if violations.is_empty() { Ok(()) } else { Err(RequestError::Invalid(violations)) }
}

/// More of what is wrong helps nobody.
const MAX_VIOLATIONS: usize = 100;

/// A whole definition, in the place of what is there.
fn write_app(turn: &mut Turn<'_, '_>, origin: &Origin, id: &PathId, input: &AppInput, draft: &mut Draft) -> Result<(), RequestError> {
    let defaults = draft.defaults(turn, id);
    let app = match ownership::app(turn, origin, id) {
        Ok(current) => input.replace(&current, &defaults),
        Err(_) => {
            ownership::check_free(turn, origin, id)?;
            input.create(id, &defaults)
        }
    };
    request::prepare(turn, origin, app.map_err(RequestError::Invalid)?, Source::Written, draft)
}

fn read_group<'a>(
    turn: &Turn<'_, '_>,
    origin: &Origin,
    id: &PathId,
    input: &'a GroupInput,
    at: &str,
    changes_apps: bool,
    written: &mut Written<'a>,
    draft: &mut Draft,
) -> Result<(), RequestError> {
    read_record(turn, origin, id, input, at, changes_apps, written, draft)?;
    if let Some(apps) = &input.apps {
        read_apps(turn, origin, id, apps, at, written);
    }
    if let Some(groups) = &input.groups {
        let mut named = BTreeSet::new();
        for (index, group) in groups.iter().enumerate() {
            let at = format!("{at}/groups({index})");
            let child = group.resolve(id).map_err(RequestError::Invalid)?;
            if !named.insert(child.clone()) {
                written.violations.push(Violation::new(format!("{at}/id"), format!("group '{child}' is given more than once")));
            }
            read_group(turn, origin, &child, group, &at, changes_apps, written, draft)?;
        }
        for child in children(&turn.state.tables, id).into_iter().filter(|child| !named.contains(child)) {
            forget(turn, origin, &child, written, draft);
        }
    }
    Ok(())
}

fn read_record(
    turn: &Turn<'_, '_>,
    origin: &Origin,
    id: &PathId,
    input: &GroupInput,
    at: &str,
    changes_apps: bool,
    written: &mut Written<'_>,
    draft: &mut Draft,
) -> Result<(), RequestError> {
    let before = record(turn, origin, id);
    let mut group = before.clone();
    if let Some(dependencies) = &input.dependencies {
        let read: Result<BTreeSet<PathId>, _> = dependencies.iter().map(|one| PathId::resolve(one, id)).collect();
        // Checked with the input.
        group.dependencies = read.unwrap_or_default().into_iter().collect();
    }
    if let Some(enforce) = input.enforce_role.filter(|_| is_top_level(id)) {
        group.enforce_role = enforce;
    }
    if group != before && turn.state.tables.group_exists(id) {
        if group.enforce_role != before.enforce_role && changes_apps {
            written.violations.push(Violation::new(format!("{at}/enforceRole"), ENFORCE_ALONE));
        }
        all_own(turn, origin, id)?;
    }
    // The root has no record of its own while there is nothing to say.
    let record = if id.is_root() && group.dependencies.is_empty() { None } else { Some(Arc::new(group)) };
    draft.groups.insert(id.clone(), record);
    Ok(())
}

fn read_apps<'a>(turn: &Turn<'_, '_>, origin: &Origin, id: &PathId, apps: &'a [AppInput], at: &str, written: &mut Written<'a>) {
    for (index, input) in apps.iter().enumerate() {
        let at = format!("{at}/apps({index})");
        let app = match PathId::resolve(input.id().unwrap_or_default(), id) {
            Ok(app) if !app.is_root() && app.parent() == *id => app,
            Ok(_) => {
                written.violations.push(Violation::new(format!("{at}/id"), format!("Identifier is not child of '{id}'")));
                continue;
            }
            Err(error) => {
                written.violations.push(Violation::new(format!("{at}/id"), error.to_string()));
                continue;
            }
        };
        let place = format!("{at}/id");
        if written.apps.insert(app.clone(), (input, id.clone(), at)).is_some() {
            written.violations.push(Violation::new(place, format!("app '{app}' is given more than once")));
        }
    }
    let tables = &turn.state.tables;
    // Pods cannot be written here: they stay.
    let gone = tables.apps_below(id).filter(|app| app.parent() == *id && !written.apps.contains_key(*app) && !tables.is_pod(app));
    let own: Vec<PathId> = gone.filter(|app| origin.may_touch(tables.owner_of(app))).cloned().collect();
    written.gone.extend(own);
}

/// A group that is named no more goes, as far as it is the origin's.
fn forget(turn: &Turn<'_, '_>, origin: &Origin, id: &PathId, written: &mut Written<'_>, draft: &mut Draft) {
    let tables = &turn.state.tables;
    written.gone.extend(tables.apps_below(id).filter(|app| origin.may_touch(tables.owner_of(app))).cloned());
    forget_records(turn, origin, id, draft);
}

fn remove(turn: &Turn<'_, '_>, origin: &Origin, id: &PathId, draft: &mut Draft) -> Result<(), RequestError> {
    for app in turn.state.tables.apps_below(id) {
        request::remove(turn, origin, app, draft)?;
    }
    forget_records(turn, origin, id, draft);
    Ok(())
}

/// The records of a group and those below, but for others' groups.
fn forget_records(turn: &Turn<'_, '_>, origin: &Origin, id: &PathId, draft: &mut Draft) {
    let tables = &turn.state.tables;
    let records = tables.groups.get(id).into_iter().chain(tables.groups_below(id));
    for group in records.filter(|group| origin.may_touch(Some(&group.owner))) {
        draft.groups.insert(group.id.clone(), None);
    }
}

/// The groups directly in a group.
fn children(tables: &Tables, id: &PathId) -> BTreeSet<PathId> {
    let depth = id.segments().count();
    // An app directly in the group is no group in it.
    let of_apps = tables.apps_below(id).map(PathId::parent).filter(|group| group.segments().count() > depth);
    let groups = of_apps.chain(tables.groups_below(id).map(|group| group.id.clone()));
    groups.filter_map(|group| Some(id.child(group.segments().nth(depth)?))).collect()
}

fn scale(turn: &mut Turn<'_, '_>, origin: &Origin, id: &PathId, factor: f64, draft: &mut Draft) -> Result<(), RequestError> {
    if !turn.state.tables.group_exists(id) {
        draft.groups.insert(id.clone(), Some(record(turn, origin, id).into()));
    }
    let tables = &turn.state.tables;
    let own = tables.apps_below(id).filter(|app| origin.may_touch(tables.owner_of(app))).filter_map(|app| tables.app(app));
    let own: Vec<Arc<App>> = own.filter(|app| app.pod.is_none()).cloned().collect();
    for app in own {
        // Too many is refused by the check of the definition.
        let instances = (f64::from(app.instances) * factor).ceil() as u32;
        request::prepare(turn, origin, App { instances, ..(*app).clone() }, Source::Stored, draft)?;
    }
    Ok(())
}

// === versions ===

/// The tree below and at a group, as it was.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Past {
    /// The apps and their versions.
    pub apps: BTreeMap<PathId, Timestamp>,
    /// The groups with a record.
    pub groups: BTreeMap<PathId, Arc<Group>>,
}

/// The group in a version of the root; `None`: it did not exist, or the version is not kept. The later versions are undone one by one.
pub fn past(tables: &Tables, id: &PathId, version: Timestamp) -> Option<Past> {
    if version != tables.root_version() && !tables.root_versions.contains_key(&version) {
        return None;
    }
    let covers = |other: &PathId| other == id || other.is_below(id);
    let mut past = Past {
        apps: tables.apps_below(id).filter_map(|app| Some((app.clone(), tables.app(app)?.version))).collect(),
        groups: tables.groups.get(id).into_iter().chain(tables.groups_below(id)).map(|group| (group.id.clone(), group.clone())).collect(),
    };
    let later = tables.root_versions.range(Timestamp(version.0.saturating_add(1))..).rev();
    for (_, root) in later {
        for change in root.apps.iter().filter(|change| change.app.is_below(id)) {
            match change.from {
                Some(from) => _ = past.apps.insert(change.app.clone(), from),
                None => _ = past.apps.remove(&change.app),
            }
        }
        for change in root.groups.iter().filter(|change| covers(&change.id)) {
            match &change.from {
                Some(from) => _ = past.groups.insert(change.id.clone(), from.clone()),
                None => _ = past.groups.remove(&change.id),
            }
        }
    }
    (id.is_root() || !past.apps.is_empty() || !past.groups.is_empty()).then_some(past)
}

/// The versions of the root in which the group existed, oldest first. `own`: only what concerns this owner is told of.
pub fn versions(tables: &Tables, id: &PathId, own: Option<&Owner>) -> Vec<Timestamp> {
    let concerns = |version: &Timestamp| {
        let root = tables.root_versions.get(version);
        own.is_none_or(|own| root.is_none_or(|root| root.owners().contains(own)))
    };
    let all = tables.root_versions.keys().copied();
    let all: Vec<Timestamp> = if tables.root_versions.is_empty() { vec![tables.root_version()] } else { all.collect() };
    all.into_iter().filter(|version| concerns(version) && past(tables, id, *version).is_some()).collect()
}

fn roll_back(turn: &mut Turn<'_, '_>, origin: &Origin, id: &PathId, version: Timestamp, draft: &mut Draft) -> Result<(), RequestError> {
    let tables = &turn.state.tables;
    let missing = || RequestError::Unprocessable(format!("Group {id} not available in version {version}"));
    let was_own = |past: &Past| {
        let mut apps = past.apps.iter().filter_map(|(id, version)| tables.definition(id, *version));
        apps.any(|app| origin.may_touch(app.owner.as_ref())) || past.groups.values().any(|group| origin.may_touch(Some(&group.owner)))
    };
    // Also of a group that is gone by now.
    let past = past(tables, id, version).filter(|past| origin.admin || was_own(past)).ok_or_else(missing)?;
    let now: Vec<PathId> = tables.apps_below(id).filter(|app| origin.may_touch(tables.owner_of(app))).cloned().collect();
    let groups = tables.groups.get(id).into_iter().chain(tables.groups_below(id));
    let groups: Vec<Arc<Group>> = groups.filter(|group| origin.may_touch(Some(&group.owner))).cloned().collect();
    for group in groups {
        draft.groups.insert(group.id.clone(), past.groups.get(&group.id).cloned());
    }
    for (id, group) in &past.groups {
        if origin.may_touch(Some(&group.owner)) && !draft.groups.contains_key(id) && !turn.state.tables.groups.contains_key(id) {
            draft.groups.insert(id.clone(), Some(group.clone()));
        }
    }
    for app in now.iter().filter(|app| !past.apps.contains_key(*app)) {
        request::remove(turn, origin, app, draft)?;
    }
    for (app, version) in past.apps {
        let same = turn.state.tables.app(&app).is_some_and(|current| current.version == version);
        let definition = request::definition(turn, &app, version)?;
        if same || !origin.may_touch(definition.owner.as_ref()) {
            continue;
        }
        match turn.state.tables.apps.contains_key(&app) {
            true if ownership::spec(turn, origin, &app).is_err() => continue,
            true => {}
            false => ownership::check_free(turn, origin, &app)?,
        }
        request::prepare(turn, origin, definition, Source::Stored, draft)?;
    }
    Ok(())
}

/// Takes back what a deployment did to groups. They are not locked: what others have done since stays.
pub(super) fn revert(turn: &Turn<'_, '_>, changes: &[GroupChange], draft: &mut Draft) {
    let tables = &turn.state.tables;
    let removed: BTreeSet<PathId> = draft.prepared.iter().filter(|one| one.is_removed()).map(|one| one.app().clone()).collect();
    let coming: Vec<PathId> = draft.prepared.iter().filter(|one| one.is_new()).map(|one| one.app().clone()).collect();
    // Inner ones first.
    for change in changes.iter().rev() {
        let now = tables.groups.get(&change.id);
        match (&change.from, &change.to) {
            (Some(from), None) => {
                let group = now.map_or_else(|| (**from).clone(), |now| with(now, &from.dependencies, &[]));
                draft.groups.insert(change.id.clone(), Some(group.into()));
            }
            (Some(from), Some(to)) => {
                let Some(now) = now else { continue };
                let mut group = with(now, &from.dependencies, &to.dependencies);
                if now.enforce_role == to.enforce_role {
                    group.enforce_role = from.enforce_role;
                }
                draft.groups.insert(change.id.clone(), Some(group.into()));
            }
            (None, Some(to)) => {
                let Some(now) = now else { continue };
                let stays = |id: &PathId| !matches!(draft.groups.get(id), Some(None));
                let used = tables.apps_below(&change.id).any(|app| !removed.contains(app))
                    || coming.iter().any(|app| app.is_below(&change.id))
                    || tables.groups_below(&change.id).any(|group| stays(&group.id));
                let group = (used || now.dependencies != to.dependencies).then(|| with(now, &[], &to.dependencies));
                draft.groups.insert(change.id.clone(), group.map(Arc::new));
            }
            (None, None) => {}
        }
    }
}

/// A group that depends on `more` besides, and not on what is only in `less`.
fn with(group: &Group, more: &[PathId], less: &[PathId]) -> Group {
    let kept = group.dependencies.iter().filter(|one| more.contains(one) || !less.contains(one));
    let all: BTreeSet<PathId> = kept.chain(more.iter()).cloned().collect();
    Group { dependencies: all.into_iter().collect(), ..group.clone() }
}

// === names ===

/// The groups around a new app come with it, and an empty group makes room for an app of its name.
pub(super) fn around(turn: &Turn<'_, '_>, origin: &Origin, app: &PathId, draft: &mut Draft) {
    for group in app.ancestors() {
        if draft.groups.get(&group).is_some_and(Option::is_some) {
            // Those around it were seen to with it, or will be.
            continue;
        }
        let is_kept = !draft.groups.contains_key(&group) && turn.state.tables.groups.contains_key(&group);
        if !is_kept {
            draft.groups.insert(group.clone(), Some(record(turn, origin, &group).into()));
        }
    }
    let empty = turn.state.tables.groups.get(app).into_iter().chain(turn.state.tables.groups_below(app));
    for group in empty {
        draft.groups.entry(group.id.clone()).or_insert(None);
    }
}

/// No app and no pod has the id of a group. What was so before is left alone.
pub(super) fn check_names(turn: &Turn<'_, '_>, draft: &Draft, graph: &Graph<'_>) -> Result<(), RequestError> {
    let same = |id: &PathId| {
        let text = if graph.app(id).is_some_and(|app| app.pod.is_some()) { SAME_ID_OF_POD } else { SAME_ID };
        Err(RequestError::Invalid(vec![Violation::new("/", text)]))
    };
    for new in draft.prepared.iter().filter(|one| one.is_new()) {
        let is_group = draft.groups.get(new.app()).is_some_and(Option::is_some);
        if is_group || graph.has_apps_below(new.app()) {
            return same(new.app());
        }
    }
    // The groups around new apps are among them.
    let new = |id: &PathId| !turn.state.tables.groups.contains_key(id) && !turn.state.tables.apps_below(id).any(|_| true);
    let made = draft.groups.iter().filter(|(id, group)| group.is_some() && new(id));
    let mut around = made.flat_map(|(id, _)| id.ancestors().chain([id.clone()]));
    around.find(|id| graph.app(id).is_some()).map_or(Ok(()), |id| same(&id))
}
