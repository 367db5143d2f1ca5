//! What the server says of itself: `/v2/info`, the leader's address, names that it answers to.

use serde_json::{Map, Value, json};
use warp::http::HeaderValue;

use crate::core::Settings;

/// The Marathon version whose API this is; some clients look at it before they use newer parts.
pub const MARATHON_VERSION: &str = "1.11.24";

/// Facts about this server, fixed at its start.
#[derive(Clone, Debug, PartialEq)]
pub struct Info {
    /// Our host name, as others reach us (`--hostname`).
    pub hostname: String,
    /// `host:port` of the API. There is one server, so it leads.
    pub leader: String,
    /// True when the API is reached by TLS.
    pub https: bool,
    /// `version` of `/v2/info`.
    pub version: String,
    /// `buildref` of `/v2/info`.
    pub build_ref: String,
    /// `--framework_name`; part of every domain name.
    pub framework_name: String,
    /// The domain of the name server.
    pub domain: String,
    /// Further names under which we may be addressed.
    pub hosts: Vec<String>,
    /// Origins (`https://console.example`) whose pages may change things.
    pub origins: Vec<String>,
    /// `marathon_config` of `/v2/info`.
    pub marathon_config: Map<String, Value>,
    /// `zookeeper_config` of `/v2/info`.
    pub zookeeper_config: Map<String, Value>,
    /// `http_config` of `/v2/info`.
    pub http_config: Map<String, Value>,
    /// What `/config` shows.
    pub config: Map<String, Value>,
    /// Pages of this origin may read.
    pub allow_origin: Option<HeaderValue>,
    /// Answers are compressed for who takes that.
    pub compression: bool,
    /// What the name of every metric begins with.
    pub metrics_prefix: String,
    /// Metrics are served for Prometheus too.
    pub metrics_prometheus: bool,
    /// What is being killed is shown as such (`--enable_features task_killing`), and not as what it was before.
    pub task_killing: bool,
}

impl Info {
    /// A server at `hostname:http_port` with Marathon's defaults and these settings. Everything may be overwritten afterwards.
    pub fn new(hostname: &str, http_port: u16, settings: &Settings) -> Self {
        Self {
            hostname: hostname.to_owned(),
            leader: format!("{hostname}:{http_port}"),
            https: false,
            version: MARATHON_VERSION.into(),
            build_ref: concat!("xtao-", env!("CARGO_PKG_VERSION")).into(),
            framework_name: "marathon".into(),
            domain: "mesos".into(),
            hosts: Vec::new(),
            origins: Vec::new(),
            marathon_config: marathon_config(hostname, settings),
            zookeeper_config: zookeeper_config(settings),
            http_config: fields(json!({ "http_port": http_port, "https_port": null })),
            config: Map::new(),
            allow_origin: None,
            compression: true,
            metrics_prefix: "marathon".into(),
            metrics_prometheus: true,
            task_killing: false,
        }
    }

    /// `X-Marathon-Leader`
    pub fn leader_url(&self) -> String {
        format!("{}://{}", if self.https { "https" } else { "http" }, self.leader)
    }
}

/// The keys of Marathon 1.11, with its defaults where we have no setting of our own.
fn marathon_config(hostname: &str, settings: &Settings) -> Map<String, Value> {
    fields(json!({
        "access_control_allow_origin": null,
        "checkpoint": true,
        "decline_offer_duration": settings.decline_offer_duration_ms,
        "default_network_name": settings.app_defaults.network_name,
        "env_vars_prefix": settings.env_vars_prefix,
        "executor": "//cmd",
        "failover_timeout": 604_800,
        "features": [],
        "framework_name": "marathon",
        "ha": false,
        "hostname": hostname,
        "launch_token": 100,
        "launch_token_refresh_interval": 30_000,
        "leader_proxy_connection_timeout_ms": 5_000,
        "leader_proxy_read_timeout_ms": 10_000,
        "local_port_max": settings.local_port_max,
        "local_port_min": settings.local_port_min,
        "master": null,
        "max_instances_per_offer": settings.max_instances_per_offer,
        "mesos_bridge_name": settings.app_defaults.bridge_name,
        "mesos_heartbeat_failure_threshold": 5,
        "mesos_heartbeat_interval": 15_000,
        "mesos_leader_ui_url": null,
        "mesos_role": settings.app_defaults.role,
        "mesos_user": null,
        "min_revive_offers_interval": 5_000,
        "new_group_enforce_role": if settings.new_group_enforce_role { "top" } else { "off" },
        "offer_matching_timeout": 3_000,
        "on_elected_prepare_timeout": 180_000,
        "reconciliation_initial_delay": 15_000,
        "reconciliation_interval": settings.reconciliation_interval_ms,
        "scale_apps_initial_delay": 15_000,
        "scale_apps_interval": 300_000,
        "store_cache": true,
        "task_launch_confirm_timeout": settings.task_launch_confirm_timeout_ms,
        "task_launch_timeout": settings.task_launch_timeout_ms,
        "task_lost_expunge_initial_delay": 300_000,
        "task_lost_expunge_interval": 30_000,
        "task_reservation_timeout": 20_000,
        "webui_url": null,
        "maintenance_mode": true,
    }))
}

/// There is no ZooKeeper; the keys are there because clients print them one by one.
fn zookeeper_config(settings: &Settings) -> Map<String, Value> {
    fields(json!({
        "zk": null,
        "zk_compression": null,
        "zk_compression_threshold": null,
        "zk_connection_timeout": null,
        "zk_max_node_size": null,
        "zk_max_versions": settings.max_versions,
        "zk_session_timeout": null,
        "zk_timeout": null,
    }))
}

fn fields(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}
