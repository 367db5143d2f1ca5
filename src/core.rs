//! The pure core: [`step`](step::step) turns one input into a [`Frame`] of durable changes and effects.
//!
//! No clock, no randomness, no I/O, no async in here: time and ids come in through [`Ctx`]. A frame's changes are already applied to the state
//! when it is returned; the driver makes them durable before anything else of the frame leaves.

pub mod allotment;
pub mod definitions;
mod deployment;
pub mod group;
mod health;
pub mod holdings;
mod index;
pub mod instance;
mod kill;
pub mod launch;
mod owned;
mod ownership;
mod pod;
mod project;
mod quota;
mod request;
pub mod state;
mod status;
pub mod step;
#[cfg(test)]
mod tests;
pub mod timers;
mod turn;
pub mod users;
pub mod validate;

pub use owned::State;

use crate::model::{
    cluster::{ClusterCall, ClusterEvent},
    event::Event,
    record::Change,
    request::{Origin, Reply, Request, RequestError},
    time::{Instant, Timestamp},
};

/// Names a caller who waits for an answer; chosen by the driver.
pub type RequestId = u64;

/// One thing that happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// Someone asks for a change.
    Api(RequestId, Origin, Box<Request>),
    /// The cluster says something.
    Cluster(ClusterEvent),
    /// A deadline may have passed.
    Tick,
}

/// The time of a step and its source of ids.
pub struct Ctx<'a> {
    /// For every timer.
    pub now: Instant,
    /// For what is shown and for versions.
    pub wall: Timestamp,
    /// Uniformly distributed bits, for ids and the choice of ports.
    pub random: &'a mut dyn FnMut() -> u64,
}

/// What a step decided.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Frame {
    /// Durable, in order.
    pub changes: Vec<Change>,
    /// Sent after the commit.
    pub calls: Vec<ClusterCall>,
    /// Published after the commit.
    pub events: Vec<Event>,
    /// Answered after the commit.
    pub replies: Vec<(RequestId, Result<Reply, RequestError>)>,
}

/// The settings that decisions depend on. The defaults are Marathon's.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Service ports: first.
    pub local_port_min: u16,
    /// Service ports: one past the last.
    pub local_port_max: u16,
    /// `@PORT` of apps with host networking.
    pub host_mode_ports: crate::model::resources::PortRange,
    /// `@PORT` of apps in bridge mode; inside the range that nodes offer.
    pub bridge_mode_ports: crate::model::resources::PortRange,
    /// Never allotted: the platform's own and well-known ones.
    pub reserved_ports: Vec<u16>,
    /// Deployments that may run at once.
    pub max_running_deployments: usize,
    /// Versions kept of each app.
    pub max_versions: usize,
    /// A launch without any status is given up after this long, milliseconds.
    pub task_launch_confirm_timeout_ms: u64,
    /// A task that is not running is killed after this long, milliseconds.
    pub task_launch_timeout_ms: u64,
    /// A kill without a terminal status is repeated after this long, milliseconds.
    pub kill_retry_timeout_ms: u64,
    /// Kills in flight at once.
    pub kill_chunk_size: usize,
    /// How long an unused offer is refused, milliseconds.
    pub decline_offer_duration_ms: u64,
    /// Launches on one offer at most. (Marathon: 5; here the whole offer is used.)
    pub max_instances_per_offer: usize,
    /// Between two reconciliations, milliseconds.
    pub reconciliation_interval_ms: u64,
    /// Added in front of HOST and PORT variables.
    pub env_vars_prefix: Option<String>,
    /// Which paths of a node may be mapped into containers.
    pub host_volumes: crate::model::host_volume::HostVolumeRule,
    /// Definitions may name secrets (`--enable_features secrets`).
    pub secrets: bool,
    /// What has no image can have another network than the node's, as with Mesos and its network plugins.
    pub command_networks: bool,
    /// New top-level groups prescribe their name as the role of their apps (`--new_group_enforce_role top`).
    pub new_group_enforce_role: bool,
    /// Which resources are used by what names no `acceptedResourceRoles` (`--accepted_resource_roles_default_behavior`).
    pub accepted_resource_roles: AcceptedResourceRoles,
    /// Nodes with GPUs are kept for what asks for GPUs (`--gpu_scheduling_behavior restricted`).
    pub gpus_restricted: bool,
    /// The role and network of apps that name none.
    pub app_defaults: crate::model::app::input::Defaults,
}

/// Marathon's `AcceptedResourceRolesDefaultBehavior`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcceptedResourceRoles {
    /// What is reserved for the app's role, and what everybody may use.
    Any,
    /// What everybody may use (role `*`).
    Unreserved,
    /// What is reserved for the app's role.
    Reserved,
}

impl Default for Settings {
    fn default() -> Self {
        use crate::model::resources::PortRange;
        Self {
            local_port_min: 10_000,
            local_port_max: 20_000,
            host_mode_ports: PortRange::new(1024, 9999),
            bridge_mode_ports: PortRange::new(31_000, 32_000),
            reserved_ports: vec![2181, 2375, 2376, 3306, 5000, 5050, 5051, 5432, 6379, 8053, 8080, 8123, 8443, 9090],
            max_running_deployments: 100,
            max_versions: 50,
            task_launch_confirm_timeout_ms: 300_000,
            task_launch_timeout_ms: 300_000,
            kill_retry_timeout_ms: 30_000,
            kill_chunk_size: 100,
            decline_offer_duration_ms: 120_000,
            max_instances_per_offer: 1000,
            reconciliation_interval_ms: 600_000,
            env_vars_prefix: None,
            host_volumes: Default::default(),
            secrets: false,
            command_networks: true,
            new_group_enforce_role: false,
            accepted_resource_roles: AcceptedResourceRoles::Any,
            gpus_restricted: true,
            app_defaults: Default::default(),
        }
    }
}
