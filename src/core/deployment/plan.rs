//! Which app waits for which: the tree of groups as a graph, and from it the steps of a plan.
//!
//! Facts (Marathon 1.11, `DeploymentPlan`): removed apps stop first, new ones start with no instances (a marker), then one step for each length of the
//! longest way through the dependencies, the shortest first. An app depends on apps and on groups (all apps below), and on whatever the groups around
//! it depend on. What does not exist is not waited for. Cycles are refused.
//!
//! A group that waits for a group would be an edge from each of its apps to each of the other's. Here a group is two nodes of its own, which have no
//! length: `Inside` (what everything in it waits for) and `All` (all that is in it), so that the graph is no larger than the tree.

use std::{collections::BTreeMap, ops::Bound};

use crate::{
    core::{group::below, state::Tables},
    model::{
        app::App,
        deployment::{Action, ActionKind, AppChange, Step},
        group::Group,
        id::PathId,
        request::{Origin, RequestError, Violation},
    },
};

/// The longest chain of dependencies. Each of its apps is a step of its own, and a step writes the plan down anew.
pub const MAX_LEVELS: usize = 500;

/// Apps that are named when they depend on each other in a circle.
const MAX_NAMED: usize = 10;

/// What is to be done about one app.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::core) struct Planned {
    pub(in crate::core) change: AppChange,
    /// `None`: the app stays as it is.
    pub(in crate::core) kind: Option<ActionKind>,
    /// It is a pod.
    pub(in crate::core) pod: bool,
}

/// The tree as it will be: the tables, and over them what changes. `None`: it is removed.
pub(in crate::core) struct Graph<'a> {
    tables: &'a Tables,
    /// By the text of the id.
    apps: BTreeMap<&'a str, (&'a PathId, Option<&'a App>)>,
    groups: BTreeMap<&'a PathId, Option<&'a Group>>,
    known: BTreeMap<Node, Visit>,
    /// Whose apps are named when something is wrong.
    origin: &'a Origin,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Node {
    App(PathId),
    Inside(PathId),
    All(PathId),
}

#[derive(Clone, Copy, Debug)]
enum Visit {
    Under,
    Done(usize),
}

/// A node whose edges are being followed.
struct Open {
    node: Node,
    edges: Vec<Node>,
    longest: usize,
}

impl<'a> Graph<'a> {
    pub(in crate::core) fn new(
        tables: &'a Tables,
        origin: &'a Origin,
        apps: impl IntoIterator<Item = (&'a PathId, Option<&'a App>)>,
        groups: impl IntoIterator<Item = (&'a PathId, Option<&'a Group>)>,
    ) -> Self {
        let apps = apps.into_iter().map(|(id, app)| (id.as_str(), (id, app))).collect();
        Self { tables, apps, groups: groups.into_iter().collect(), known: BTreeMap::new(), origin }
    }

    /// The definition that an app will have.
    pub(in crate::core) fn app(&self, id: &PathId) -> Option<&'a App> {
        match self.apps.get(id.as_str()) {
            Some((_, app)) => *app,
            None => self.tables.app(id).map(|app| &**app),
        }
    }

    /// True when an app will be below this id.
    pub(in crate::core) fn has_apps_below(&self, id: &PathId) -> bool {
        self.tables.apps_below(id).any(|app| !self.apps.contains_key(app.as_str())) || self.written_below(id).next().is_some()
    }

    /// The apps that will be below a group.
    pub(in crate::core) fn apps_below(&self, group: &PathId) -> Vec<PathId> {
        let kept = self.tables.apps_below(group).filter(|id| !self.apps.contains_key(id.as_str()));
        kept.chain(self.written_below(group)).cloned().collect()
    }

    fn written_below(&self, group: &PathId) -> impl Iterator<Item = &'a PathId> {
        let (first, last) = below(group);
        let range = self.apps.range::<str, _>((Bound::Excluded(first.as_str()), Bound::Excluded(last.as_str())));
        range.filter(|(_, (_, app))| app.is_some()).map(|(_, (id, _))| *id)
    }

    /// Every app that has to be looked at for circles: those that change, and those in groups whose dependencies change.
    pub(in crate::core) fn check(&mut self) -> Result<(), RequestError> {
        let changed: Vec<PathId> = self.apps.values().filter(|(_, app)| app.is_some()).map(|(id, _)| (*id).clone()).collect();
        let before = |id: &PathId| self.tables.groups.get(id).map_or(&[][..], |group| &group.dependencies);
        let waits_for_more = |(id, group): &(&&'a PathId, &Option<&'a Group>)| group.is_some_and(|group| group.dependencies != before(id));
        let groups: Vec<PathId> = self.groups.iter().filter(waits_for_more).map(|(id, _)| (*id).clone()).collect();
        let inside: Vec<PathId> = groups.iter().flat_map(|group| self.apps_below(group)).collect();
        changed.into_iter().chain(inside).try_for_each(|id| self.level(&id).map(|_| ()))
    }

    /// How many apps the longest way from here has, this one included.
    fn level(&mut self, app: &PathId) -> Result<usize, RequestError> {
        if self.waits_for_nothing(app) {
            return Ok(1);
        }
        let start = Node::App(app.clone());
        if let Some(Visit::Done(level)) = self.known.get(&start) {
            return Ok(*level);
        }
        // No recursion: a chain may be longer than any stack.
        let mut open = vec![self.open(start)];
        loop {
            let Some(top) = open.last_mut() else { return Ok(0) };
            let Some(next) = top.edges.pop() else {
                let level = top.longest + usize::from(matches!(top.node, Node::App(_)));
                if level > MAX_LEVELS {
                    return Err(invalid(format!("a chain of dependencies has at most {MAX_LEVELS} apps")));
                }
                self.known.insert(top.node.clone(), Visit::Done(level));
                open.pop();
                match open.last_mut() {
                    Some(below) => below.longest = below.longest.max(level),
                    None => return Ok(level),
                }
                continue;
            };
            match self.known.get(&next) {
                Some(Visit::Done(level)) => top.longest = top.longest.max(*level),
                Some(Visit::Under) => return Err(self.circle(&open, &next)),
                None => {
                    let next = self.open(next);
                    open.push(next);
                }
            }
        }
    }

    /// Most apps do not, nor does anything around them.
    fn waits_for_nothing(&self, app: &PathId) -> bool {
        let waits = |group: &str| self.tables.groups.get(group).is_some_and(|group| !group.dependencies.is_empty());
        self.groups.is_empty() && self.app(app).is_none_or(|app| app.dependencies.is_empty()) && !app.around().any(waits)
    }

    fn open(&mut self, node: Node) -> Open {
        self.known.insert(node.clone(), Visit::Under);
        let edges = match &node {
            Node::App(id) => self.app(id).map_or_else(Vec::new, |app| {
                let waits_for = |id: &PathId| if self.app(id).is_some() { Node::App(id.clone()) } else { Node::All(id.clone()) };
                app.dependencies.iter().map(waits_for).chain(self.waiting_from(id.parent())).collect()
            }),
            Node::Inside(id) => {
                let around = if id.is_root() { None } else { self.waiting_from(id.parent()) };
                self.group(id).iter().flat_map(|group| &group.dependencies).cloned().map(Node::All).chain(around).collect()
            }
            Node::All(id) => self.apps_below(id).into_iter().map(Node::App).collect(),
        };
        Open { node, edges, longest: 0 }
    }

    /// The innermost group from `id` on outwards that waits for something.
    fn waiting_from(&self, mut id: PathId) -> Option<Node> {
        if self.groups.is_empty() && self.tables.groups.is_empty() {
            return None;
        }
        while self.group(&id).is_none_or(|group| group.dependencies.is_empty()) {
            if id.is_root() {
                return None;
            }
            id = id.parent();
        }
        Some(Node::Inside(id))
    }

    fn group(&self, id: &PathId) -> Option<&'a Group> {
        match self.groups.get(id) {
            Some(group) => *group,
            None => self.tables.groups.get(id).map(|group| &**group),
        }
    }

    /// Marathon's text, and whom it is about.
    fn circle(&self, open: &[Open], back_to: &Node) -> RequestError {
        let from = open.iter().position(|one| one.node == *back_to).unwrap_or(0);
        let apps = open[from..].iter().filter_map(|one| if let Node::App(id) = &one.node { Some(id) } else { None });
        let is_shown = |id: &&PathId| self.tables.owner_of(id).is_none_or(|owner| self.origin.may_touch(Some(owner)));
        let apps: Vec<&str> = apps.filter(is_shown).map(PathId::as_str).collect();
        let more = if apps.len() > MAX_NAMED { ", ..." } else { "" };
        let names = apps.iter().take(MAX_NAMED).copied().collect::<Vec<_>>().join(", ");
        RequestError::Invalid(vec![
            Violation::new("/", "Dependency graph has cyclic dependencies."),
            Violation::new("/", format!("these wait for each other: {names}{more}")),
        ])
    }

    /// The steps that lead to what is planned.
    pub(in crate::core) fn steps(&mut self, planned: &[Planned]) -> Result<Vec<Step>, RequestError> {
        let marked = |kind: ActionKind| {
            let actions: Vec<Action> = planned.iter().filter(|one| one.kind == Some(kind)).map(|one| action(kind, one)).collect();
            (!actions.is_empty()).then_some(Step { actions })
        };
        let mut levels: BTreeMap<usize, Vec<Action>> = BTreeMap::new();
        for one in planned {
            let kind = match one.kind {
                None | Some(ActionKind::Stop) => continue,
                Some(ActionKind::Start) => ActionKind::Scale,
                Some(kind) => kind,
            };
            let level = self.level(&one.change.app)?;
            levels.entry(level).or_default().push(action(kind, one));
        }
        let first = marked(ActionKind::Stop).into_iter().chain(marked(ActionKind::Start));
        Ok(first.chain(levels.into_values().map(|actions| Step { actions })).collect())
    }
}

fn action(kind: ActionKind, planned: &Planned) -> Action {
    Action { kind, app: planned.change.app.clone(), pod: planned.pod }
}

fn invalid(text: String) -> RequestError {
    RequestError::Invalid(vec![Violation::new("/", text)])
}

#[cfg(test)]
mod tests;
