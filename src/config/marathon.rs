//! Every command-line flag of Marathon 1.11 and of older lines, in one table: whether it works here, or why it has no meaning. What works is declared
//! in [`flags`](super::flags); what has no meaning is accepted with a warning, so that existing start scripts work, or refused where ignoring it would be
//! dangerous. A test walks the table. `--x_y` may come as `MARATHON_X_Y` too, and as `x_y` in the configuration file.

/// A flag of Marathon's.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    pub name: &'static str,
    pub takes: Takes,
    pub meaning: Meaning,
}

/// What follows a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Takes {
    /// One value.
    Value,
    /// Nothing; `--disable_<name>` is its opposite.
    Switch,
}

/// What a flag does here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// What it does in Marathon. With a value that differs from the default, for the test; of a switch: `disable`, if that is what differs.
    Works(&'static str),
    /// Nothing, because of this. Said in a warning.
    Nothing(&'static str),
    /// The server does not start, because of this.
    Refused(&'static str),
}

impl Known {
    /// What is declared as a flag that does something.
    pub(super) fn works(&self) -> bool {
        matches!(self.meaning, Meaning::Works(_))
    }
}

/// Flags that are accepted, or refused, without being declared elsewhere.
pub(super) fn unheeded() -> impl Iterator<Item = &'static Known> {
    TABLE.iter().filter(|known| !known.works())
}

/// Variables that Marathon reads besides `MARATHON_*`, and the flag for which each stands.
pub(super) const OTHER_VARIABLES: [(&str, &str); 3] = [
    ("MESOSPHERE_HTTP_CREDENTIALS", "http_credentials"),
    ("MESOSPHERE_KEYSTORE_PATH", "ssl_keystore_path"),
    ("MESOSPHERE_KEYSTORE_PASS", "ssl_keystore_password"),
];

const fn works(name: &'static str, sample: &'static str) -> Known {
    Known { name, takes: Takes::Value, meaning: Meaning::Works(sample) }
}

const fn works_switch(name: &'static str, sample: &'static str) -> Known {
    Known { name, takes: Takes::Switch, meaning: Meaning::Works(sample) }
}

const fn value(name: &'static str, why: &'static str) -> Known {
    Known { name, takes: Takes::Value, meaning: Meaning::Nothing(why) }
}

const fn switch(name: &'static str, why: &'static str) -> Known {
    Known { name, takes: Takes::Switch, meaning: Meaning::Nothing(why) }
}

const fn refused(name: &'static str, why: &'static str) -> Known {
    Known { name, takes: Takes::Value, meaning: Meaning::Refused(why) }
}

const ZK: &str = "there is no ZooKeeper: state is kept in --work_dir";
const STORE: &str = "this version keeps its state in the embedded store only, not in ZooKeeper; remove the flag, and see --work_dir";
const PLUGINS: &str = "this version has no plugins, so an authenticator or authorizer among them would protect nothing";
const ONE: &str = "there is one server and no election";
const MESOS: &str = "there is no Mesos: the embedded engine runs the tasks";
const MAINTENANCE: &str = "only Mesos announces maintenance of agents, and there is no Mesos";
const DERIVED: &str = "what it paces happens at once, when there is cause for it";
const FIXED: &str = "the limit is fixed";
const THREADS: &str = "there are no pools of threads to be sized";
const METRICS: &str = "metrics are asked for, at /metrics and /metrics/prometheus, not sent";
const HISTOGRAMS: &str = "the last five to ten seconds are shown, to about 3 %";
const LOGS: &str = "logs go to standard error only";
const GONE: &str = "Marathon itself knows it no longer";

/// The table, in the order of Marathon's documentation.
pub(super) const TABLE: [Known; 152] = [
    // Where the cluster and the state are.
    refused("master", "this version runs tasks with the embedded Docker engine only, not on Mesos; remove the flag, and see --docker_host"),
    refused("zk", STORE),
    value("zk_timeout", ZK),
    value("zk_session_timeout", ZK),
    value("zk_connection_timeout", ZK),
    works("zk_max_versions", "7"),
    switch("zk_compression", ZK),
    value("zk_compression_threshold", ZK),
    value("zk_max_node_size", ZK),
    value("zk_operation_max_retries", ZK),
    value("zk_operation_base_retry_sleep_ms", ZK),
    value("zk_max_concurrency", ZK),
    refused("internal_store_backend", STORE),
    switch("store_cache", "everything is in memory"),
    value("storage_compaction_interval", "the store compacts itself"),
    value("storage_compaction_scan_batch_size", "the store compacts itself"),
    value("group_versions_cache_size", "everything is in memory"),
    value("backup_location", "there is no migration yet before which a backup would be made"),
    // The leader.
    switch("ha", ONE),
    value("leader_election_backend", ONE),
    value("on_elected_prepare_timeout", ONE),
    value("leader_proxy_connection_timeout", ONE),
    value("leader_proxy_read_timeout", ONE),
    value("leader_proxy_max_open_connections", ONE),
    switch("leader_proxy_ssl_ignore_hostname", ONE),
    // HTTP.
    works("hostname", "node7"),
    works("http_address", "127.0.0.7"),
    works("http_port", "8081"),
    works_switch("http", "disable"),
    works("https_address", "127.0.0.7"),
    works("https_port", "8444"),
    works("ssl_keystore_path", "/etc/xtao/other.pem"),
    works("ssl_keystore_password", "sesame"),
    works("http_credentials", "boss:sesame"),
    works("http_realm", "Compute"),
    works_switch("http_compression", "disable"),
    works("http_max_concurrent_requests", "7"),
    works("access_control_allow_origin", "https://console.example"),
    value("assets_path", "there is no web page whose files could be replaced"),
    works("webui_url", "https://console.example"),
    value("event_stream_max_outstanding_messages", FIXED),
    // The framework.
    works("framework_name", "prod"),
    value("failover_timeout", MESOS),
    switch("checkpoint", MESOS),
    works("mesos_role", "prod"),
    value("mesos_user", "tasks run as their image, or the app's user, says"),
    switch("mesos_authentication", MESOS),
    value("mesos_authentication_principal", MESOS),
    value("mesos_authentication_secret", MESOS),
    value("mesos_authentication_secret_file", MESOS),
    value("mesos_leader_ui_url", MESOS),
    value("mesos_heartbeat_interval", MESOS),
    value("mesos_heartbeat_failure_threshold", MESOS),
    value("executor", MESOS),
    // Apps.
    works("env_vars_prefix", "P_"),
    works("default_network_name", "net"),
    works("mesos_bridge_name", "br"),
    works("local_port_min", "10001"),
    works("local_port_max", "19999"),
    works("new_group_enforce_role", "top"),
    works("accepted_resource_roles_default_behavior", "reserved"),
    value("default_accepted_resource_roles", GONE),
    works("enable_features", "vips,task_killing"),
    value("deprecated_features", "what they bring back is always there (tasks as text/plain), or nowhere"),
    value("max_apps", "it has no effect in Marathon 1.11 either"),
    // Scheduling.
    works("task_launch_timeout", "7"),
    works("task_launch_confirm_timeout", "7"),
    value("task_reservation_timeout", MESOS),
    value("reconciliation_initial_delay", DERIVED),
    works("reconciliation_interval", "7"),
    value("scale_apps_initial_delay", DERIVED),
    value("scale_apps_interval", DERIVED),
    value("task_lost_expunge_initial_delay", DERIVED),
    value("task_lost_expunge_interval", DERIVED),
    works("max_instances_per_offer", "7"),
    value("launch_tokens", DERIVED),
    value("launch_token_refresh_interval", DERIVED),
    value("offer_matching_timeout", DERIVED),
    value("max_parallel_offers", DERIVED),
    value("max_queued_offers", FIXED),
    works("decline_offer_duration", "7"),
    value("min_revive_offers_interval", DERIVED),
    switch("suppress_offers", DERIVED),
    switch("mesos_offer_constraints", MESOS),
    value("min_mesos_offer_constraints_update_interval", MESOS),
    works("kill_chunk_size", "7"),
    works("kill_retry_timeout", "7"),
    value("killsPerBatch", "kills are limited by --kill_chunk_size"),
    value("killBatchDuration", "kills are limited by --kill_chunk_size"),
    works("max_running_deployments", "7"),
    value("max_queued_root_group_updates", FIXED),
    works("max_concurrent_marathon_health_checks", "7"),
    value("draining_seconds", MAINTENANCE),
    switch("maintenance_mode", MAINTENANCE),
    works("gpu_scheduling_behavior", "unrestricted"),
    value("graceful_shutdown_timeout", "it stops at once; tasks go on"),
    // Plugins.
    refused("plugin_dir", PLUGINS),
    refused("plugin_conf", PLUGINS),
    // Logs and metrics.
    works("logging_level", "debug"),
    value("logstash", LOGS),
    value("sentry", LOGS),
    value("sentry_tags", LOGS),
    switch("metrics", GONE),
    works("metrics_name_prefix", "prod"),
    works_switch("metrics_prometheus", "disable"),
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
    value("metrics_histogram_reservoir_significant_digits", HISTOGRAMS),
    value("metrics_histogram_reservoir_highest_trackable_value", HISTOGRAMS),
    switch("metrics_histogram_reservoir_reset_periodically", HISTOGRAMS),
    value("metrics_histogram_reservoir_resetting_interval_ms", HISTOGRAMS),
    value("metrics_histogram_reservoir_resetting_chunks", HISTOGRAMS),
    // Hidden.
    value("task_tracker_request_timeout", DERIVED),
    value("launch_queue_request_timeout", DERIVED),
    value("task_operation_notification_timeout", DERIVED),
    value("deployment_manager_request_timeout", DERIVED),
    value("group_manager_request_timeout", DERIVED),
    value("task_update_request_timeout", DERIVED),
    value("max_actor_startup_time", DERIVED),
    value("max_parallel_status_updates", DERIVED),
    value("max_queued_status_updates", FIXED),
    value("instance_tracker_num_parallel_loads", THREADS),
    value("instance_tracker_num_parallel_updates", THREADS),
    value("instance_tracker_update_queue_size", FIXED),
    value("app_info_module_execution_context_size", THREADS),
    value("default_info_service_execution_context_size", THREADS),
    value("group_manager_execution_context_size", THREADS),
    value("scheduler_actions_execution_context_size", THREADS),
    // Of older lines; Marathon 1.11 does not start with them.
    switch("revive_offers_for_new_apps", GONE),
    value("revive_offers_repetitions", GONE),
    value("save_tasks_to_launch_timeout", GONE),
    value("reporter_graphite", GONE),
    value("reporter_datadog", GONE),
    value("event_subscriber", GONE),
    value("http_event_endpoints", GONE),
    value("http_event_callback_slow_consumer_timeout", GONE),
    value("http_event_request_timeout", GONE),
    value("artifact_store", GONE),
    value("task_lost_expunge_gc", GONE),
    value("max_tasks_per_offer", GONE),
    value("max_tasks_per_offer_cycle", GONE),
    switch("tracing", GONE),
    value("zk_hosts", GONE),
    value("zk_state", GONE),
];
