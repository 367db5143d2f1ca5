//! Everything durable: one enum of records, one of their keys. A [`Change`] carries the whole new value of one record.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{
    agent::Agent,
    app::App,
    brick::Brick,
    deployment::Deployment,
    group::{Group, RootVersion},
    id::{AgentId, BrickName, DeploymentId, InstanceId, Owner, PathId},
    instance::{Instance, TaskFailure},
    port::PortClaim,
    time::Timestamp,
    user::User,
};

/// An app that exists, and whose it is. The definitions are records of their own ([`RecordKey::Definition`]); the latest one is the present one, so that
/// a change of it is one record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AppEntry {
    /// The app.
    pub id: PathId,
    /// Who may change it.
    pub owner: Owner,
}

/// What is remembered of the whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Meta {
    /// The id under which the cluster knows us, once it has given one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub framework_id: Option<String>,
    /// The epoch of the last lease of any brick. One counter for all, which outlives them: a brick made again under the same name is above every
    /// lease of its predecessor, whatever the clock says.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub last_epoch: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Names one record.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "one for each kind of record below")]
pub enum RecordKey {
    Meta,
    App(PathId),
    Definition(PathId, Timestamp),
    Instance(InstanceId),
    Deployment(DeploymentId),
    Port(u16),
    Brick(BrickName),
    Agent(AgentId),
    Failure(PathId),
    User(Owner),
    Group(PathId),
    RootVersion(Timestamp),
    Archived(PathId, Timestamp),
}

/// The value of one record.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the types say it")]
pub enum Record {
    Meta(Arc<Meta>),
    App(Arc<AppEntry>),
    Definition(Arc<App>),
    Instance(Arc<Instance>),
    Deployment(Arc<Deployment>),
    Port(Arc<PortClaim>),
    Brick(Arc<Brick>),
    Agent(Arc<Agent>),
    Failure(Arc<TaskFailure>),
    User(Arc<User>),
    Group(Arc<Group>),
    RootVersion(Arc<RootVersion>),
    /// A definition of an app that is gone, as long as a version of the root names it.
    Archived(Arc<App>),
}

impl Record {
    /// The key under which it is stored.
    pub fn key(&self) -> RecordKey {
        match self {
            Self::Meta(_) => RecordKey::Meta,
            Self::App(app) => RecordKey::App(app.id.clone()),
            Self::Definition(app) => RecordKey::Definition(app.id.clone(), app.version),
            Self::Instance(instance) => RecordKey::Instance(instance.id.clone()),
            Self::Deployment(deployment) => RecordKey::Deployment(deployment.id.clone()),
            Self::Port(claim) => RecordKey::Port(claim.port),
            Self::Brick(brick) => RecordKey::Brick(brick.name.clone()),
            Self::Agent(agent) => RecordKey::Agent(agent.id.clone()),
            Self::Failure(failure) => RecordKey::Failure(failure.app.clone()),
            Self::User(user) => RecordKey::User(user.name.clone()),
            Self::Group(group) => RecordKey::Group(group.id.clone()),
            Self::RootVersion(root) => RecordKey::RootVersion(root.version),
            Self::Archived(app) => RecordKey::Archived(app.id.clone(), app.version),
        }
    }
}

/// The new value of one record, or its end.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Change {
    Put(Record),
    Delete(RecordKey),
}

impl Change {
    /// The record that changes.
    pub fn key(&self) -> RecordKey {
        match self {
            Self::Put(record) => record.key(),
            Self::Delete(key) => key.clone(),
        }
    }
}
