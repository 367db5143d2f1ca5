//! A node of the cluster, as far as it is remembered.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{id::AgentId, time::Timestamp};

/// A node on which something was offered to us. Durable, so that names resolve before it has spoken again after a restart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Agent {
    /// As the cluster names it.
    pub id: AgentId,
    /// Its host name.
    pub host: String,
    /// Its addresses, the preferred one first; what `.slave` names answer.
    pub addresses: Vec<IpAddr>,
    /// For constraints.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attributes: Vec<Attribute>,
    /// `None` outside any fault domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// `None` outside any fault domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// When it was first seen.
    pub seen_at: Timestamp,
}

/// An attribute of a node, in the text form that constraints compare.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attribute {
    /// Its name.
    pub name: String,
    /// Its text form.
    pub text: String,
}
