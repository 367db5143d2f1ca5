//! Groups, with what lies in them.
//!
//! Facts (Marathon 1.11): `{id, apps, pods, groups, dependencies, version, enforceRole}`; any `embed` replaces the default set of `group.groups`,
//! `group.apps` and `group.pods`; a group's version is the root's; only top-level groups have `enforceRole`; a version shows bare definitions.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Map, Value, json};

use super::{app::Context, object};
use crate::{
    api::{
        access::Seen,
        query::{Embed, Query},
    },
    model::{app::App, group::Group, id::PathId, pod::output, time::Timestamp},
};

/// What is shown of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupEmbed {
    groups: bool,
    apps: bool,
    pods: bool,
    app: Embed,
}

impl GroupEmbed {
    /// What the query asks for; everything when it asks for nothing.
    pub fn read(query: &Query) -> Self {
        let none = query.first("embed").is_none();
        let has = |name: &str| none || query.all("embed").any(|value| value.strip_prefix("group.").unwrap_or(value) == name);
        Self { groups: has("groups"), apps: has("apps"), pods: has("pods"), app: Embed::default().and(query) }
    }
}

/// A group with everything below it; `None`: there is none.
pub fn group(seen: &Seen, context: &Context<'_>, id: &PathId, embed: GroupEmbed) -> Option<Map<String, Value>> {
    if !seen.sees_group(id) {
        return None;
    }
    let groups: Vec<&PathId> = seen.groups_below(id).map(|group| &group.id).collect();
    let tree = Node::grow(id, seen.specs_below(id), groups);
    let show = Show { seen, context, embed, version: seen.root_version(), bare: false, record: &|id| seen.group_record(id) };
    Some(show.group(&tree, id.as_str()))
}

/// As [`group`], in a version of the root.
pub fn past(seen: &Seen, context: &Context<'_>, id: &PathId, version: Timestamp, embed: GroupEmbed) -> Option<Map<String, Value>> {
    let (apps, groups) = seen.past_group(id, version)?;
    let tree = Node::grow(id, apps.iter(), groups.keys());
    let record = |id: &str| groups.get(id).map(|group| &**group);
    Some(Show { seen, context, embed, version, bare: true, record: &record }.group(&tree, id.as_str()))
}

#[derive(Default)]
struct Node<'a> {
    apps: Vec<&'a App>,
    groups: BTreeMap<&'a str, Node<'a>>,
}

impl<'a> Node<'a> {
    fn grow(id: &PathId, apps: impl Iterator<Item = &'a Arc<App>>, groups: impl IntoIterator<Item = &'a PathId>) -> Self {
        let depth = id.segments().count();
        let mut tree = Self::default();
        for app in apps {
            let segments: Vec<&str> = app.id.segments().skip(depth).collect();
            let Some((_, groups)) = segments.split_last() else { continue };
            tree.at(groups.iter().copied()).apps.push(app);
        }
        for group in groups {
            tree.at(group.segments().skip(depth));
        }
        tree
    }

    /// The apps, or the pods.
    fn of_kind(&self, pods: bool) -> impl Iterator<Item = &'a App> {
        self.apps.iter().copied().filter(move |app| app.pod.is_some() == pods)
    }

    fn at(&mut self, segments: impl Iterator<Item = &'a str>) -> &mut Self {
        segments.fold(self, |node, segment| node.groups.entry(segment).or_default())
    }
}

struct Show<'a, 'b> {
    seen: &'b Seen,
    context: &'b Context<'a>,
    embed: GroupEmbed,
    version: Timestamp,
    /// Definitions without what became of them.
    bare: bool,
    record: &'b dyn Fn(&str) -> Option<&'b Group>,
}

impl Show<'_, '_> {
    /// As deep as a path has segments ([`MAX_PATH_SEGMENTS`](crate::model::id::MAX_PATH_SEGMENTS)).
    fn group(&self, node: &Node<'_>, id: &str) -> Map<String, Value> {
        let record = (self.record)(id);
        let dependencies = record.map_or(&[][..], |group| &group.dependencies);
        let mut fields = object(json!({ "id": id, "dependencies": dependencies, "version": self.version }));
        if id != "/" && !id[1..].contains('/') {
            fields.insert("enforceRole".into(), record.is_some_and(|group| group.enforce_role).into());
        }
        if self.embed.apps {
            fields.insert("apps".into(), node.of_kind(false).map(|app| Value::Object(self.app(app))).collect());
        }
        if self.embed.groups {
            let below = |name: &str| format!("{}/{name}", id.trim_end_matches('/'));
            let groups = node.groups.iter().map(|(name, group)| Value::Object(self.group(group, &below(name))));
            fields.insert("groups".into(), groups.collect());
        }
        if self.embed.pods {
            fields.insert("pods".into(), node.of_kind(true).map(|pod| self.pod(pod)).collect());
        }
        fields
    }

    fn pod(&self, pod: &App) -> Value {
        if self.bare { output::definition(pod).into() } else { super::pod::status(self.seen, pod) }
    }

    fn app(&self, app: &App) -> Map<String, Value> {
        if self.bare { self.context.definition(app, self.embed.app.endpoints) } else { self.context.app(app, self.embed.app) }
    }
}
