//! Groups, derived from the ids of the apps: there are no others yet, so a group without an app does not exist.
//!
//! Facts (Marathon 1.11): `{id, apps, pods, groups, dependencies, version, enforceRole}`; any `embed` replaces the default set of `group.groups`,
//! `group.apps` and `group.pods`; a group's version is the root's.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{app::Context, object};
use crate::{
    api::{
        access::Seen,
        query::{Embed, Query},
    },
    model::{app::App, id::PathId, time::Timestamp},
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

/// True when something is below `group`; the root is always there.
pub fn exists(seen: &Seen, group: &PathId) -> bool {
    group.is_root() || seen.apps_below(group).next().is_some()
}

/// A group with everything below it; `None`: there is none.
pub fn group(seen: &Seen, context: &Context<'_>, id: &PathId, embed: GroupEmbed) -> Option<Map<String, Value>> {
    if !exists(seen, id) {
        return None;
    }
    let mut tree = Node::default();
    for app in seen.apps_below(id) {
        let segments: Vec<&str> = app.id.segments().skip(id.segments().count()).collect();
        let (_, groups) = segments.split_last()?;
        let place = groups.iter().fold(&mut tree, |node, segment| node.groups.entry(segment).or_default());
        place.apps.push(app);
    }
    let version = seen.apps().map(|app| app.version).max().unwrap_or_default();
    Some(tree.show(id.as_str(), version, context, embed))
}

#[derive(Default)]
struct Node<'a> {
    apps: Vec<&'a App>,
    groups: BTreeMap<&'a str, Node<'a>>,
}

impl Node<'_> {
    /// As deep as a path has segments ([`MAX_PATH_SEGMENTS`](crate::model::id::MAX_PATH_SEGMENTS)).
    fn show(&self, id: &str, version: Timestamp, context: &Context<'_>, embed: GroupEmbed) -> Map<String, Value> {
        let mut fields = object(json!({ "id": id, "dependencies": [], "version": version, "enforceRole": false }));
        if embed.apps {
            let apps = self.apps.iter().map(|app| Value::Object(context.app(app, embed.app)));
            fields.insert("apps".into(), apps.collect());
        }
        if embed.groups {
            let below = |name: &str| format!("{}/{name}", id.trim_end_matches('/'));
            let groups = self.groups.iter().map(|(name, group)| Value::Object(group.show(&below(name), version, context, embed)));
            fields.insert("groups".into(), groups.collect());
        }
        if embed.pods {
            fields.insert("pods".into(), json!([]));
        }
        fields
    }
}
