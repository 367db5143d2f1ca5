//! Marathon's flags that mean nothing here (yet): accepted with a warning, so that existing start scripts work, or refused where ignoring one would
//! be dangerous. Names and kinds: Marathon 1.11 and older lines.

/// A flag of Marathon's, and why it is not heeded.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    pub name: &'static str,
    pub takes: Takes,
    pub why: &'static str,
}

/// What follows a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Takes {
    /// One value.
    Value,
    /// Nothing; `--disable_<name>` is its opposite.
    Switch,
}

/// Which flags do what they say only by being refused.
pub(super) const REFUSED: [Known; 5] = [
    value("master", "this version runs tasks with the embedded Docker engine only, not on Mesos; remove the flag, and see --docker_host"),
    value("zk", "this version keeps its state in the embedded store only, not in ZooKeeper; remove the flag, and see --work_dir"),
    value("plugin_dir", "this version has no plugins, so an authenticator or authorizer among them would protect nothing"),
    value("plugin_conf", "this version has no plugins, so an authenticator or authorizer among them would protect nothing"),
    value("internal_store_backend", "this version keeps its state in the embedded store only; remove the flag, and see --work_dir"),
];

/// Variables that Marathon reads besides `MARATHON_*`, and the flag for which each stands.
pub(super) const OTHER_VARIABLES: [(&str, &str); 3] = [
    ("MESOSPHERE_HTTP_CREDENTIALS", "http_credentials"),
    ("MESOSPHERE_KEYSTORE_PATH", "ssl_keystore_path"),
    ("MESOSPHERE_KEYSTORE_PASS", "ssl_keystore_password"),
];

const fn value(name: &'static str, why: &'static str) -> Known {
    Known { name, takes: Takes::Value, why }
}

const fn switch(name: &'static str, why: &'static str) -> Known {
    Known { name, takes: Takes::Switch, why }
}

const ZK: &str = "there is no ZooKeeper: state is kept in --work_dir";
const ONE: &str = "there is one server and no election";
const MESOS: &str = "there is no Mesos: the embedded engine runs the tasks";
const DERIVED: &str = "what it paces happens at once, when there is cause for it";
const FIXED: &str = "the limit is fixed";
const METRICS: &str = "metrics are asked for, at /metrics and /metrics/prometheus, not sent";
const LOGS: &str = "logs go to standard error only";
const GONE: &str = "Marathon itself knows it no longer";
const LATER: &str = "this version does not have it yet";

/// Everything else.
pub(super) const NO_MEANING: [Known; 94] = [
    value("zk_timeout", ZK),
    value("zk_session_timeout", ZK),
    value("zk_connection_timeout", ZK),
    switch("zk_compression", ZK),
    value("zk_compression_threshold", ZK),
    value("zk_max_node_size", ZK),
    value("zk_operation_max_retries", ZK),
    value("zk_operation_base_retry_sleep_ms", ZK),
    value("zk_max_concurrency", ZK),
    value("zk_hosts", GONE),
    value("zk_state", GONE),
    switch("store_cache", "everything is in memory"),
    value("storage_compaction_interval", "the store compacts itself"),
    value("storage_compaction_scan_batch_size", "the store compacts itself"),
    value("group_versions_cache_size", "everything is in memory"),
    value("backup_location", "there is no migration yet before which a backup would be made"),
    switch("ha", ONE),
    value("leader_election_backend", ONE),
    value("on_elected_prepare_timeout", ONE),
    value("leader_proxy_connection_timeout", ONE),
    value("leader_proxy_read_timeout", ONE),
    value("leader_proxy_max_open_connections", ONE),
    switch("leader_proxy_ssl_ignore_hostname", ONE),
    value("http_realm", "the realm is always Mesosphere"),
    value("assets_path", LATER),
    value("failover_timeout", MESOS),
    switch("checkpoint", MESOS),
    value("mesos_user", "containers run as their image says, or as the app's user"),
    switch("mesos_authentication", MESOS),
    value("mesos_authentication_principal", MESOS),
    value("mesos_authentication_secret", MESOS),
    value("mesos_authentication_secret_file", MESOS),
    value("mesos_leader_ui_url", MESOS),
    value("mesos_heartbeat_interval", MESOS),
    value("mesos_heartbeat_failure_threshold", MESOS),
    value("mesos_bridge_name", MESOS),
    switch("mesos_offer_constraints", MESOS),
    value("min_mesos_offer_constraints_update_interval", MESOS),
    value("executor", MESOS),
    value("task_reservation_timeout", MESOS),
    value("reconciliation_initial_delay", DERIVED),
    value("scale_apps_initial_delay", DERIVED),
    value("scale_apps_interval", DERIVED),
    value("task_lost_expunge_initial_delay", DERIVED),
    value("task_lost_expunge_interval", DERIVED),
    value("launch_tokens", DERIVED),
    value("launch_token_refresh_interval", DERIVED),
    value("offer_matching_timeout", DERIVED),
    value("max_parallel_offers", DERIVED),
    value("max_queued_offers", FIXED),
    value("min_revive_offers_interval", DERIVED),
    switch("suppress_offers", DERIVED),
    value("max_queued_root_group_updates", FIXED),
    value("max_apps", "it has no effect in Marathon 1.11 either"),
    value("event_stream_max_outstanding_messages", FIXED),
    value("enable_features", LATER),
    value("deprecated_features", LATER),
    value("draining_seconds", LATER),
    switch("maintenance_mode", LATER),
    value("default_accepted_resource_roles", GONE),
    value("graceful_shutdown_timeout", "it stops at once; tasks go on"),
    value("logstash", LOGS),
    value("sentry", LOGS),
    value("sentry_tags", LOGS),
    switch("metrics_statsd", METRICS),
    value("metrics_statsd_host", METRICS),
    value("metrics_statsd_port", METRICS),
    value("metrics_statsd_transmission_interval_ms", METRICS),
    switch("metrics_datadog", METRICS),
    value("metrics_datadog_protocol", METRICS),
    value("metrics_datadog_host", METRICS),
    value("metrics_datadog_port", METRICS),
    value("metrics_datadog_api_key", METRICS),
    value("metrics_datadog_transmission_interval_ms", METRICS),
    value("metrics_histogram_reservoir_significant_digits", "the last five to ten seconds are shown, to about 3 %"),
    switch("metrics_histogram_reservoir_reset_periodically", "the last five to ten seconds are shown, to about 3 %"),
    value("metrics_histogram_reservoir_resetting_interval_ms", "the last five to ten seconds are shown, to about 3 %"),
    value("metrics_histogram_reservoir_resetting_chunks", "the last five to ten seconds are shown, to about 3 %"),
    value("task_tracker_request_timeout", DERIVED),
    value("launch_queue_request_timeout", DERIVED),
    value("task_operation_notification_timeout", DERIVED),
    value("deployment_manager_request_timeout", DERIVED),
    value("max_parallel_status_updates", DERIVED),
    value("max_queued_status_updates", FIXED),
    switch("revive_offers_for_new_apps", GONE),
    value("revive_offers_repetitions", GONE),
    value("save_tasks_to_launch_timeout", GONE),
    value("reporter_graphite", GONE),
    value("reporter_datadog", GONE),
    value("event_subscriber", GONE),
    value("http_event_endpoints", GONE),
    value("artifact_store", GONE),
    value("task_lost_expunge_gc", GONE),
    value("max_tasks_per_offer", GONE),
];

// Also of older lines, and so rare that a warning that they are unknown does as well: max_tasks_per_offer_cycle, tracing and the further
// http_event_* flags.
