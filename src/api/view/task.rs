//! Tasks. Only live ones are shown: what waits for an offer is in the queue, and clients such as Prometheus take every task listed for a target.
//!
//! Facts (Marathon 1.11): `servicePorts` is filled only in `/v2/tasks`; a launched task without a status shows as `TASK_STAGING`.

use std::{net::IpAddr, sync::Arc};

use serde::{Serialize, Serializer, ser::SerializeMap};
use serde_json::{Map, Value, json};

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

/// One task. It is written as it is, without a [`Value`] between: there may be a hundred thousand in one answer.
pub struct Task<'a> {
    seen: &'a Seen,
    instance: &'a Instance,
    definition: Option<&'a App>,
    with_service_ports: bool,
}

impl<'a> Task<'a> {
    /// A task.
    pub fn new(seen: &'a Seen, instance: &'a Instance) -> Self {
        let definition = seen.definition_of(instance).map(|app| &**app);
        Self { seen, instance, definition, with_service_ports: false }
    }

    /// A task of `app`: its definition need not be looked for when it is the present one.
    pub fn of(seen: &'a Seen, instance: &'a Instance, app: &'a App) -> Self {
        if instance.version != app.version {
            return Self::new(seen, instance);
        }
        Self { seen, instance, definition: Some(app), with_service_ports: false }
    }

    /// As `/v2/tasks` shows it.
    pub fn with_service_ports(self) -> Self {
        Self { with_service_ports: true, ..self }
    }
}

impl Serialize for Task<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { seen, instance, definition, with_service_ports } = *self;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("appId", instance.app())?;
        map.serialize_entry("id", &instance.task())?;
        map.serialize_entry("state", state(seen.condition(instance)))?;
        map.serialize_entry("version", &instance.version)?;
        map.serialize_entry("ipAddresses", &Addresses(&instance.addresses))?;
        let service_ports = definition.filter(|_| with_service_ports).map(service_ports);
        map.serialize_entry("servicePorts", service_ports.as_deref().unwrap_or_default())?;
        map.serialize_entry("healthCheckResults", &super::health::results(seen, instance))?;
        if let Some(result) = definition.filter(|app| app.check.is_some()).and_then(|_| super::health::generic(seen, instance, 0)) {
            map.serialize_entry("checkResult", &result)?;
        }
        map.serialize_entry("localVolumes", &seen.volumes_of(&instance.id).map(|volume| local_volume(volume)).collect::<Value>())?;
        let placement = instance.placement.as_ref();
        if let Some(placement) = placement {
            map.serialize_entry("host", &*placement.host)?;
            map.serialize_entry("slaveId", &placement.agent)?;
        }
        map.serialize_entry("ports", placement.map_or(&[][..], |placement| &placement.ports))?;
        if let Some(at) = instance.staged_at {
            map.serialize_entry("stagedAt", &at)?;
        }
        if let Some(at) = instance.started_at {
            map.serialize_entry("startedAt", &at)?;
        }
        let agent = placement.and_then(|placement| seen.agent(&placement.agent));
        if let Some(region) = agent.and_then(|agent| agent.region.as_deref()) {
            map.serialize_entry("region", region)?;
        }
        if let Some(zone) = agent.and_then(|agent| agent.zone.as_deref()) {
            map.serialize_entry("zone", zone)?;
        }
        if let Some(app) = definition {
            map.serialize_entry("role", &app.role)?;
        }
        map.end()
    }
}

struct Addresses<'a>(&'a [IpAddr]);

impl Serialize for Addresses<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Address<'a> {
            ip_address: &'a IpAddr,
            protocol: &'static str,
        }
        let protocol = |address: &IpAddr| if address.is_ipv4() { "IPv4" } else { "IPv6" };
        serializer.collect_seq(self.0.iter().map(|address| Address { ip_address: address, protocol: protocol(address) }))
    }
}

/// A persistent volume of an instance.
pub fn local_volume(volume: &Brick) -> Value {
    let uuid = volume.reservation.as_ref().map(|reservation| reservation.uuid);
    json!({ "runSpecId": volume.app, "containerPath": volume.container_path, "uuid": uuid, "persistenceId": volume.persistence_id() })
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
        ("startedAfterLastScaling", &|instance| instance.version >= app.last_scaling_at()),
        ("withLatestConfig", &|instance| instance.version >= app.last_config_change_at()),
        ("withOutdatedConfig", &|instance| instance.version < app.last_config_change_at()),
        ("totalSummary", &|_| true),
    ];
    let mut stats = Map::new();
    for (name, belongs) in groups {
        let tasks: Vec<&Instance> = live(seen, &app.id).map(|instance| &**instance).filter(|instance| belongs(instance)).collect();
        if !tasks.is_empty() {
            stats.insert(name.into(), json!({ "stats": group_stats(seen, &tasks, now) }));
        }
    }
    Value::Object(stats)
}

fn group_stats(seen: &Seen, tasks: &[&Instance], now: Timestamp) -> Value {
    let count = |test: fn(Condition) -> bool| tasks.iter().filter(|task| test(seen.condition(task))).count();
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
