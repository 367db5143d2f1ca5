//! Tasks. Only live ones are shown: what waits for an offer is in the queue, and clients such as Prometheus take every task listed for a target.
//!
//! Facts (Marathon 1.11): `servicePorts` is filled only in `/v2/tasks`; a launched task without a status shows as `TASK_STAGING`.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::object;
use crate::{
    api::access::Seen,
    model::{
        app::{App, Network},
        brick::Brick,
        id::PathId,
        instance::{Condition, Instance},
        time::Timestamp,
    },
};

/// The live instances of one app.
pub fn live<'a>(seen: &'a Seen, app: &PathId) -> impl Iterator<Item = &'a Arc<Instance>> + use<'a> {
    seen.instances_of(app).filter(|instance| instance.condition.is_live())
}

/// One task.
pub fn task(seen: &Seen, instance: &Instance) -> Map<String, Value> {
    let mut fields = object(json!({
        "appId": instance.app(),
        "id": instance.task(),
        "state": state(instance.condition),
        "version": instance.version,
        "ipAddresses": addresses(instance),
        "servicePorts": [],
        "healthCheckResults": super::health::results(seen, instance),
        "localVolumes": seen.volumes_of(&instance.id).map(|volume| local_volume(volume)).collect::<Vec<_>>(),
    }));
    let mut set = |name: &str, value: Option<Value>| value.into_iter().for_each(|value| _ = fields.insert(name.into(), value));
    let placement = instance.placement.as_ref();
    set("host", placement.map(|placement| json!(&*placement.host)));
    set("slaveId", placement.map(|placement| json!(placement.agent)));
    set("ports", Some(placement.map_or_else(|| json!([]), |placement| json!(placement.ports))));
    set("stagedAt", instance.staged_at.map(|at| json!(at)));
    set("startedAt", instance.started_at.map(|at| json!(at)));
    let agent = placement.and_then(|placement| seen.agent(&placement.agent));
    set("region", agent.and_then(|agent| agent.region.as_deref()).map(Value::from));
    set("zone", agent.and_then(|agent| agent.zone.as_deref()).map(Value::from));
    set("role", seen.definition_of(instance).map(|app| json!(app.role)));
    fields
}

fn local_volume(volume: &Brick) -> Value {
    let uuid = volume.reservation.as_ref().map(|reservation| reservation.uuid);
    json!({ "runSpecId": volume.app, "containerPath": volume.container_path, "uuid": uuid, "persistenceId": volume.persistence_id() })
}

/// One task as `/v2/tasks` shows it.
pub fn with_service_ports(seen: &Seen, instance: &Instance) -> Map<String, Value> {
    let mut fields = task(seen, instance);
    let ports = seen.definition_of(instance).map(|app| service_ports(app)).unwrap_or_default();
    fields.insert("servicePorts".into(), json!(ports));
    fields
}

/// One service port for each definition, or for each mapping.
pub fn service_ports(app: &App) -> Vec<u16> {
    if app.network == Network::Host {
        app.port_definitions.iter().map(|definition| definition.port.number()).collect()
    } else {
        app.port_mappings().iter().map(|mapping| mapping.service_port).collect()
    }
}

/// Mesos' name for a condition.
pub fn state(condition: Condition) -> &'static str {
    match condition {
        Condition::Scheduled | Condition::Provisioned | Condition::Staging => "TASK_STAGING",
        Condition::Starting => "TASK_STARTING",
        Condition::Running => "TASK_RUNNING",
        Condition::Finished => "TASK_FINISHED",
        Condition::Failed => "TASK_FAILED",
        Condition::Killed => "TASK_KILLED",
        Condition::Killing => "TASK_KILLING",
        Condition::Error => "TASK_ERROR",
        Condition::Dropped => "TASK_DROPPED",
        Condition::Gone => "TASK_GONE",
        Condition::Unknown => "TASK_UNKNOWN",
        Condition::Unreachable | Condition::UnreachableInactive => "TASK_UNREACHABLE",
    }
}

fn addresses(instance: &Instance) -> Value {
    let protocol = |address: &std::net::IpAddr| if address.is_ipv4() { "IPv4" } else { "IPv6" };
    instance.addresses.iter().map(|address| json!({ "ipAddress": address, "protocol": protocol(address) })).collect()
}

/// The list that haproxy bridges read: for each app and service port one line of the id with `_` for `/`, the port, and every `host:port`, each
/// followed by a tab. An app without ports has a blank for a port and bare hosts.
pub fn plain<'a>(seen: &Seen, apps: impl Iterator<Item = &'a Arc<App>>) -> String {
    let mut text = String::new();
    for app in apps {
        let id = app.id.safe_form();
        let placements = seen.instances_of(&app.id).filter(|instance| instance.condition == Condition::Running);
        let placements: Vec<_> = placements.filter_map(|instance| instance.placement.as_ref()).collect();
        let ports = service_ports(app);
        if ports.is_empty() {
            let hosts: String = placements.iter().map(|placement| format!("{}\t", placement.host)).collect();
            text += &format!("{id}\t \t{hosts}\n");
        }
        for (index, port) in ports.iter().enumerate() {
            let reached = placements.iter().filter_map(|placement| Some((&placement.host, placement.ports.get(index)?)));
            let reached: String = reached.map(|(host, port)| format!("{host}:{port}\t")).collect();
            text += &format!("{id}\t{port}\t{reached}\n");
        }
    }
    text
}

/// `tasksStats`: what the live tasks of one app do, in four overlapping groups; a group without tasks is absent.
pub fn stats(seen: &Seen, app: &App, now: Timestamp) -> Value {
    let groups: [(&str, &dyn Fn(&Instance) -> bool); 4] = [
        ("startedAfterLastScaling", &|instance| instance.version >= app.version_info.last_scaling_at),
        ("withLatestConfig", &|instance| instance.version >= app.version_info.last_config_change_at),
        ("withOutdatedConfig", &|instance| instance.version < app.version_info.last_config_change_at),
        ("totalSummary", &|_| true),
    ];
    let mut stats = Map::new();
    for (name, belongs) in groups {
        let tasks: Vec<&Instance> = live(seen, &app.id).map(|instance| &**instance).filter(|instance| belongs(instance)).collect();
        if !tasks.is_empty() {
            stats.insert(name.into(), json!({ "stats": group_stats(&tasks, now) }));
        }
    }
    Value::Object(stats)
}

fn group_stats(tasks: &[&Instance], now: Timestamp) -> Value {
    let count = |test: fn(Condition) -> bool| tasks.iter().filter(|task| test(task.condition)).count();
    let staged = count(|condition| matches!(condition, Condition::Provisioned | Condition::Staging));
    let running = count(|condition| condition == Condition::Running);
    let health = |wanted: bool| tasks.iter().filter(|task| task.condition == Condition::Running && task.healthy == Some(wanted)).count();
    let mut stats = json!({ "counts": { "staged": staged, "running": running, "healthy": health(true), "unhealthy": health(false) } });
    let mut ages: Vec<f64> = tasks.iter().filter_map(|task| Some(now.ms_since(task.started_at?) as f64 / 1000.0)).collect();
    if !ages.is_empty() {
        ages.sort_by(f64::total_cmp);
        let middle = ages.len() / 2;
        let median = if ages.len() % 2 == 1 { ages[middle] } else { (ages[middle - 1] + ages[middle]) / 2.0 };
        stats["lifeTime"] = json!({ "averageSeconds": ages.iter().sum::<f64>() / ages.len() as f64, "medianSeconds": median });
    }
    stats
}
