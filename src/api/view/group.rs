//! Groups, with what lies in them.
//!
//! Facts (Marathon 1.11): `{id, apps, pods, groups, dependencies, version, enforceRole}`; any `embed` replaces the default set of `group.groups`,
//! `group.apps` and `group.pods`, and what is not embedded is an empty list; a group's version is the root's; only top-level groups have `enforceRole`; a
//! version shows bare definitions.

use std::{collections::BTreeMap, sync::Arc};

use serde::{
    Serialize, Serializer,
    ser::{SerializeMap, SerializeSeq},
};
use serde_json::Value;

use super::app::Context;
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
pub fn group<'b, 'a>(seen: &'b Seen, context: &'b Context<'a>, id: &PathId, embed: GroupEmbed) -> Option<Shown<'b, 'a>> {
    if !seen.sees_group(id) {
        return None;
    }
    let groups: Vec<&PathId> = seen.groups_below(id).map(|group| &group.id).collect();
    let tree = Node::grow(id, seen.specs_below(id).cloned(), groups);
    let show = Show { seen, context, embed, version: seen.root_version(), past: None };
    Some(Shown { show, tree, id: id.to_string() })
}

/// As [`group`], in a version of the root.
pub fn past<'b, 'a>(seen: &'b Seen, context: &'b Context<'a>, id: &PathId, version: Timestamp, embed: GroupEmbed) -> Option<Shown<'b, 'a>> {
    let (apps, groups) = seen.past_group(id, version)?;
    let tree = Node::grow(id, apps, groups.keys());
    let past = groups.into_iter().map(|(id, group)| (id.to_string(), group)).collect();
    Some(Shown { show: Show { seen, context, embed, version, past: Some(past) }, tree, id: id.to_string() })
}

/// A group to be shown. Its parts are made when they are written, one after the other.
pub struct Shown<'b, 'a> {
    show: Show<'b, 'a>,
    tree: Node,
    id: String,
}

impl Serialize for Shown<'_, '_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        One { show: &self.show, node: &self.tree, id: &self.id }.serialize(serializer)
    }
}

#[derive(Default)]
struct Node {
    apps: Vec<Arc<App>>,
    groups: BTreeMap<String, Node>,
}

impl Node {
    fn grow<'a>(id: &PathId, apps: impl IntoIterator<Item = Arc<App>>, groups: impl IntoIterator<Item = &'a PathId>) -> Self {
        let depth = id.segments().count();
        let mut tree = Self::default();
        for app in apps {
            let segments: Vec<&str> = app.id.segments().skip(depth).collect();
            let Some((_, groups)) = segments.split_last() else { continue };
            tree.at(groups.iter().copied()).apps.push(app.clone());
        }
        for group in groups {
            tree.at(group.segments().skip(depth));
        }
        tree
    }

    /// The apps, or the pods.
    fn of_kind(&self, pods: bool) -> impl Iterator<Item = &App> {
        self.apps.iter().map(|app| &**app).filter(move |app| app.pod.is_some() == pods)
    }

    fn at<'a>(&mut self, segments: impl Iterator<Item = &'a str>) -> &mut Self {
        segments.fold(self, |node, segment| node.groups.entry(segment.to_owned()).or_default())
    }
}

struct Show<'b, 'a> {
    seen: &'b Seen,
    context: &'b Context<'a>,
    embed: GroupEmbed,
    version: Timestamp,
    /// The groups of a version of the past, by id; definitions are shown without what became of them then. `None`: the present.
    past: Option<BTreeMap<String, Arc<Group>>>,
}

impl Show<'_, '_> {
    fn record(&self, id: &str) -> Option<&Group> {
        match &self.past {
            Some(past) => past.get(id).map(|group| &**group),
            None => self.seen.group_record(id),
        }
    }

    fn pod(&self, pod: &App) -> Value {
        match self.past {
            Some(_) => output::definition(pod).into(),
            None => super::pod::status(self.seen, pod),
        }
    }
}

/// One group of a tree. As deep as a path has segments ([`MAX_PATH_SEGMENTS`](crate::model::id::MAX_PATH_SEGMENTS)).
struct One<'c, 'b, 'a> {
    show: &'c Show<'b, 'a>,
    node: &'c Node,
    id: &'c str,
}

impl Serialize for One<'_, '_, '_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { show, node, id } = *self;
        let record = show.record(id);
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("id", id)?;
        map.serialize_entry("dependencies", record.map_or(&[][..], |group| &group.dependencies))?;
        map.serialize_entry("version", &show.version)?;
        if id != "/" && !id[1..].contains('/') {
            map.serialize_entry("enforceRole", &record.is_some_and(|group| group.enforce_role))?;
        }
        let none: [(); 0] = [];
        match show.embed.apps {
            true => map.serialize_entry("apps", &Apps { show, node })?,
            false => map.serialize_entry("apps", &none)?,
        }
        match show.embed.groups {
            true => map.serialize_entry("groups", &Groups { show, node, id })?,
            false => map.serialize_entry("groups", &none)?,
        }
        match show.embed.pods {
            true => map.serialize_entry("pods", &node.of_kind(true).map(|pod| show.pod(pod)).collect::<Vec<_>>())?,
            false => map.serialize_entry("pods", &none)?,
        }
        map.end()
    }
}

struct Apps<'c, 'b, 'a> {
    show: &'c Show<'b, 'a>,
    node: &'c Node,
}

impl Serialize for Apps<'_, '_, '_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Show { context, embed, past, .. } = self.show;
        let apps = self.node.of_kind(false);
        match past {
            Some(_) => serializer.collect_seq(apps.map(|app| context.definition(app, embed.app.endpoints))),
            None => serializer.collect_seq(apps.map(|app| context.app(app, embed.app))),
        }
    }
}

struct Groups<'c, 'b, 'a> {
    show: &'c Show<'b, 'a>,
    node: &'c Node,
    id: &'c str,
}

impl Serialize for Groups<'_, '_, '_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut groups = serializer.serialize_seq(Some(self.node.groups.len()))?;
        for (name, node) in &self.node.groups {
            let id = format!("{}/{name}", self.id.trim_end_matches('/'));
            groups.serialize_element(&One { show: self.show, node, id: &id })?;
        }
        groups.end()
    }
}
