//! Services for people's eyes, from the API's JSON. Pure.

use serde::{Deserialize, de::IgnoredAny};
use serde_json::{Value, json};

use crate::{
    cli::table::{self, cell, printable},
    model::id::PathId,
};

/// What a list of services needs of `GET /v2/apps`; the rest is not even kept.
#[derive(Debug, Deserialize)]
pub(super) struct Apps {
    apps: Vec<App>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct App {
    id: String,
    instances: u32,
    cpus: f64,
    mem: f64,
    #[serde(default)]
    container: Option<Container>,
    #[serde(default)]
    tasks_running: u32,
    #[serde(default)]
    tasks_unhealthy: u32,
    #[serde(default)]
    deployments: Vec<IgnoredAny>,
    #[serde(default)]
    endpoints: Vec<Endpoint>,
}

#[derive(Debug, Deserialize)]
struct Container {
    #[serde(default)]
    docker: Option<Docker>,
}

#[derive(Debug, Deserialize)]
struct Docker {
    image: String,
}

#[derive(Debug, Deserialize)]
struct Endpoint {
    host: String,
    #[serde(default)]
    port: Option<u16>,
}

impl Apps {
    pub(super) fn ids(self) -> Vec<String> {
        self.apps.into_iter().map(|app| app.id.trim_start_matches('/').to_owned()).collect()
    }
}

/// All services, one a line.
pub(super) fn list(apps: &Apps) -> String {
    if apps.apps.is_empty() {
        return "There are no services.".to_owned();
    }
    let rows = apps.apps.iter().map(|app| {
        let image = app.container.as_ref().and_then(|container| container.docker.as_ref()).map_or("-", |docker| &docker.image);
        let place = app.endpoints.first().map_or_else(
            || "-".to_owned(),
            |endpoint| format!("{}:{}", endpoint.host, endpoint.port.map_or_else(|| "?".to_owned(), |port| port.to_string())),
        );
        vec![
            printable(app.id.trim_start_matches('/')),
            printable(image),
            app.cpus.to_string(),
            app.mem.to_string(),
            format!("{} of {}", app.tasks_running, app.instances),
            status(app.instances, app.tasks_running, app.tasks_unhealthy, !app.deployments.is_empty()).to_owned(),
            printable(&place),
        ]
    });
    table::table(&["ID", "IMAGE", "CPU", "MEM/MB", "RUNNING", "STATUS", "ADDRESS"], rows)
}

/// In the words of Marathon's web page.
fn status(instances: u32, running: u32, unhealthy: u32, is_deploying: bool) -> &'static str {
    match () {
        () if is_deploying => "Deploying",
        () if instances == 0 => "Suspended",
        () if running < instances => "Waiting",
        () if unhealthy > 0 => "Unhealthy",
        () => "Running",
    }
}

/// Where an app is reached: its first endpoint, as `{"host", "port"}`. `None` while the port is not known.
pub(super) fn place(app: &Value) -> Option<Value> {
    let first = &app["endpoints"][0];
    let (host, port) = (first["host"].as_str()?, first["port"].as_u64()?);
    Some(json!({ "host": host, "port": port }))
}

/// True when nothing of it waits.
pub(super) fn is_complete(app: &Value) -> bool {
    let deployments = app["deployments"].as_array().is_some_and(|list| !list.is_empty());
    !deployments && app["tasksRunning"].as_u64() >= app["instances"].as_u64()
}

/// What the queue says of an app.
pub(super) fn queue_entry<'a>(queue: &'a Value, id: &PathId) -> Option<&'a Value> {
    queue["queue"].as_array()?.iter().find(|entry| entry["app"]["id"] == id.as_str())
}

/// One service, a line a field, then its tasks.
pub(super) fn one(app: &Value, queued: Option<&Value>) -> String {
    let number = |field: &str| u32::try_from(app[field].as_u64().unwrap_or(0)).unwrap_or(u32::MAX);
    let (instances, running) = (number("instances"), number("tasksRunning"));
    let deploying = app["deployments"].as_array().is_some_and(|list| !list.is_empty());
    let list = |value: &Value, one: fn(&Value) -> String| -> Vec<String> { value.as_array().into_iter().flatten().map(one).collect() };
    let mut rows = vec![
        ("id", cell(&app["id"]).trim_start_matches('/').to_owned()),
        ("status", format!("{}, {running} of {instances} running", status(instances, running, number("tasksUnhealthy"), deploying))),
        ("image", cell(&app["container"]["docker"]["image"])),
        ("cpu", cell(&app["cpus"])),
        ("mem", format!("{} MB", cell(&app["mem"]))),
    ];
    if let Some(command) = app["cmd"].as_str() {
        rows.push(("command", printable(command)));
    }
    // Not their values: they may be passwords. '-j' has them.
    let variables: Vec<String> = app["env"].as_object().into_iter().flatten().map(|(key, _)| printable(key)).collect();
    if !variables.is_empty() {
        rows.push(("environment", variables.join(", ")));
    }
    rows.extend(list(&app["endpoints"], endpoint).into_iter().map(|text| ("endpoint", text)));
    rows.extend(list(&app["container"]["volumes"], volume).into_iter().map(|text| ("volume", text)));
    rows.extend(list(&app["constraints"], constraint).into_iter().map(|text| ("constraint", text)));
    rows.push(("version", cell(&app["version"])));
    if let Some(reasons) = queued.map(reasons).filter(|reasons| !reasons.is_empty()) {
        rows.push(("waits", reasons));
    }
    let failure = &app["lastTaskFailure"];
    if failure.is_object() {
        let text = format!("{} on {}: {}", cell(&failure["timestamp"]), cell(&failure["host"]), cell(&failure["message"]));
        rows.push(("last failure", text));
    }
    let mut text = table::fields(rows);
    let tasks: Vec<Vec<String>> = app["tasks"].as_array().into_iter().flatten().map(task).collect();
    if !tasks.is_empty() {
        text.push_str("\n\n");
        text.push_str(&table::table(&["TASK", "STATE", "HOST", "PORTS", "STARTED"], tasks));
    }
    text
}

fn endpoint(endpoint: &Value) -> String {
    let inside = endpoint["containerPort"].as_u64().filter(|inside| Some(*inside) != endpoint["port"].as_u64());
    let inside = inside.map(|inside| format!(" -> {inside}")).unwrap_or_default();
    let port = endpoint["port"].as_u64().map_or_else(|| "?".to_owned(), |port| port.to_string());
    format!("{}:{port}{inside} {} ({})", cell(&endpoint["host"]), cell(&endpoint["protocol"]), cell(&endpoint["name"]))
}

fn volume(volume: &Value) -> String {
    let path = cell(&volume["containerPath"]);
    if volume["brick"].is_object() {
        return format!("{path}: brick of {} MB in pool {}", cell(&volume["brick"]["size"]), cell(&volume["brick"]["pool"]));
    }
    let read_only = if volume["mode"] == "RO" { ", read only" } else { "" };
    format!("{path}: {} of the node{read_only}", cell(&volume["hostPath"]))
}

fn constraint(constraint: &Value) -> String {
    constraint.as_array().into_iter().flatten().map(cell).collect::<Vec<_>>().join(" ")
}

fn task(task: &Value) -> Vec<String> {
    let ports: Vec<String> = task["ports"].as_array().into_iter().flatten().map(cell).collect();
    let ports = if ports.is_empty() { "-".to_owned() } else { ports.join(",") };
    let state = cell(&task["state"]).trim_start_matches("TASK_").to_lowercase();
    vec![cell(&task["id"]), state, cell(&task["host"]), ports, cell(&task["startedAt"])]
}

/// Why something waits, as a sentence; empty when there is no reason.
pub(super) fn reasons(entry: &Value) -> String {
    let mut found: Vec<String> = entry["reason"].as_str().map(printable).into_iter().collect();
    let seconds = entry["delay"]["timeLeftSeconds"].as_u64().unwrap_or(0);
    if seconds > 0 {
        found.push(format!("the next try is in {seconds} s"));
    }
    let app = &entry["app"];
    let stages = entry["processedOffersSummary"]["rejectSummaryLastOffers"].as_array();
    let declined = stages.into_iter().flatten().filter(|stage| stage["declined"].as_u64().unwrap_or(0) > 0);
    found.extend(declined.map(|stage| {
        let nodes = stage["declined"].as_u64().unwrap_or(0);
        let nodes = if nodes == 1 { "1 node".to_owned() } else { format!("{nodes} nodes") };
        let why = match stage["reason"].as_str().unwrap_or_default() {
            "InsufficientCpus" => format!("has not {} CPU left", cell(&app["cpus"])),
            "InsufficientMemory" => format!("has not {} MB of memory left", cell(&app["mem"])),
            "InsufficientDisk" => "has not enough disk left".to_owned(),
            "InsufficientGpus" => "has not enough GPUs left".to_owned(),
            "InsufficientPorts" => "has not the ports free".to_owned(),
            "UnfulfilledConstraint" => "is not one of those it may run on".to_owned(),
            "UnfulfilledRole" => "has nothing for its role".to_owned(),
            other => printable(other),
        };
        format!("{nodes}: {why}")
    }));
    found.join("; ")
}

/// The app that an event is about.
pub(super) fn app_of(event: &Value) -> Option<&str> {
    ["appId", "runSpecId"]
        .iter()
        .find_map(|field| event[*field].as_str())
        .or_else(|| event["appDefinition"]["id"].as_str())
        .or_else(|| event["currentStep"]["actions"][0]["app"].as_str())
        .or_else(|| event["plan"]["steps"][0]["actions"][0]["app"].as_str())
}

/// An event on one line.
pub(super) fn event(kind: &str, event: &Value) -> String {
    let kind = kind.trim_end_matches("_event").replace('_', " ");
    let about = app_of(event).map(|app| printable(app.trim_start_matches('/'))).unwrap_or_default();
    let state = event["taskStatus"].as_str().map(|state| state.trim_start_matches("TASK_").to_lowercase());
    let health = event["healthy"].as_bool().map(|healthy| if healthy { "healthy" } else { "not healthy" }.to_owned());
    let host = event["host"].as_str().filter(|host| !host.is_empty()).map(|host| format!("on {host}"));
    let texts = ["condition", "message", "reason"].iter().filter_map(|field| event[*field].as_str()).filter(|text| !text.is_empty());
    let details: Vec<String> =
        state.into_iter().chain(health).chain(host).chain(texts.map(str::to_owned)).map(|text| printable(&text)).collect();
    let parts = [cell(&event["timestamp"]), kind, about, details.join(", ")];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("  ")
}
