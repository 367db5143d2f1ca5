//! Claims on ports: numbers that the platform allotted for `@PORT` and that never change.

pub mod token;

use serde::{Deserialize, Serialize};

use super::{
    id::{Owner, PathId},
    time::Timestamp,
};

/// The durable claim of one number in the whole cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortClaim {
    /// The number.
    pub port: u16,
    /// Whose it is; kept when the app is gone.
    pub app: PathId,
    /// Which `@PORT` of the app.
    pub position: Position,
    /// Who may use and release it.
    pub owner: Owner,
    /// When it was allotted.
    pub created_at: Timestamp,
}

/// Where in a definition an `@PORT` stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Position {
    /// `@PORT` (0), `@PORT1` (1) ... in values of `env`. The same token in several values means the same port.
    Env(u16),
    /// `portDefinitions[n].port`
    PortDefinition(u16),
    /// `container.portMappings[n].hostPort`
    PortMapping(u16),
}
