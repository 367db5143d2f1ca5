//! Groups: the folders of apps, their durable records, and the log of what each change of the tree did.
//!
//! A group exists when it has a record or when an app lies below it; the root always does. Facts: Marathon 1.11, where every change of an app or a group
//! makes a new version of the root, and the versions of a group are those of the root.

pub mod input;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{
    deployment::AppChange,
    id::{Owner, PathId},
    time::Timestamp,
};

/// What a group is besides what lies in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// Absolute; the root only when it depends on something.
    pub id: PathId,
    /// Who made it. It may be changed by whoever owns everything in it.
    pub owner: Owner,
    /// Groups whose apps come up before those of this one. Absolute, each once; what names no group waits for nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dependencies: Vec<PathId>,
    /// Top-level groups: their apps have the group's name as their role. Always false for others.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub enforce_role: bool,
}

impl Group {
    /// A group with nothing special about it.
    pub fn plain(id: PathId, owner: Owner) -> Self {
        Self { id, owner, dependencies: Vec::new(), enforce_role: false }
    }
}

/// One group before and after a change; `None`: it has no record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupChange {
    /// The group.
    pub id: PathId,
    /// As it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Arc<Group>>,
    /// As it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Arc<Group>>,
}

/// One version of the root: what it changed. An earlier root is found by undoing the later versions, so that a version costs what it changes and not
/// what there is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RootVersion {
    /// Its name, and the version of every definition that it made.
    pub version: Timestamp,
    /// The group that the request was about, for `group_change_success`.
    pub group: PathId,
    /// Each app at most once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub apps: Vec<AppChange>,
    /// Each group at most once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<GroupChange>,
}

impl RootVersion {
    /// Whose apps and groups it changed, each once.
    pub fn owners(&self) -> Vec<Owner> {
        let of_groups = self.groups.iter().filter_map(|change| change.to.as_ref().or(change.from.as_ref())).map(|group| &group.owner);
        let mut owners: Vec<Owner> = self.apps.iter().filter_map(|change| change.owner.as_ref()).chain(of_groups).cloned().collect();
        owners.sort();
        owners.dedup();
        owners
    }
}
