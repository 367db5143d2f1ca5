//! Runs a case against a server of its own: the real API, core and driver, with a store in memory and the cluster of [`cluster`](super::cluster).

use std::{collections::HashMap, time::Duration};

use reqwest::{Client, Method};
use serde_json::{Map, Value, json};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
};
use xtao::{
    api::{self, Api, Info},
    core::Settings,
    model::cluster::ClusterEvent,
    runtime::driver::Driver,
    store::memory::{Disk, MemoryStore},
};

use super::{
    cluster,
    hold::{self, Answer},
    table::{Case, Step, Wanted, What},
};

/// How long something is waited for that must come.
const PATIENCE: Duration = Duration::from_secs(20);

struct Server {
    url: String,
    client: Client,
    events: mpsc::UnboundedReceiver<Value>,
    /// The types of the events that this step has passed.
    passed: Vec<String>,
    kept: HashMap<String, String>,
    /// What the server says that it answers: whatever comes is held against it.
    document: Value,
    /// Dropped, it ends the driver and the server.
    _stop: watch::Sender<bool>,
    _events: mpsc::Sender<ClusterEvent>,
}

impl Server {
    async fn start(settings: Settings) -> Self {
        // Another test may have done it already.
        _ = rustls::crypto::ring::default_provider().install_default();
        let (events, arriving) = mpsc::channel(1024);
        let (calls, called) = mpsc::channel(1024);
        let (driver, handle) = Driver::open(settings.clone(), Box::new(MemoryStore::open(&Disk::new())), arriving, calls).await.unwrap();
        let (stop, stopping) = watch::channel(false);
        tokio::spawn(driver.run(stopping.clone()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let mut stopped = stopping;
        let shutdown = async move { _ = stopped.wait_for(|stop| *stop).await };
        tokio::spawn(api::serve(listener, Api::new(handle, Info::new("localhost", 8080, &settings)), shutdown));
        let client = Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        let stream = follow(&client, &url).await;
        let document = client.get(format!("{url}/v2/openapi.json")).send().await.unwrap().json().await.unwrap();
        tokio::spawn(cluster::run(called, events.clone()));
        Self { url, client, events: stream, passed: Vec::new(), kept: HashMap::new(), document, _stop: stop, _events: events }
    }

    async fn ask(&mut self, step: &Step) -> (u16, reqwest::header::HeaderMap, String) {
        let (mut path, mut body) = (step.path.clone(), step.body.clone());
        for (name, value) in &self.kept {
            path = path.replace(&format!("${name}"), value);
            body = body.replace(&format!("${name}"), value);
        }
        let method = Method::from_bytes(step.method.as_bytes()).unwrap();
        let mut request = self.client.request(method, format!("{}{path}", self.url));
        if !body.is_empty() {
            request = request.header("content-type", step.kind.as_deref().unwrap_or("application/json")).body(body);
        }
        if let Some(accept) = &step.accept {
            request = request.header("accept", accept);
        }
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await.unwrap();
        self.is_described(step, &path, status, &headers, &text);
        (status, headers, text)
    }

    fn is_described(&self, step: &Step, path: &str, status: u16, headers: &reqwest::header::HeaderMap, body: &str) {
        let path = path.split('?').next().unwrap().replace("%2F", "/").replace("/service/marathon/", "/").replace("/marathon/", "/");
        let segments: Vec<String> = path.split('/').filter(|segment| !segment.is_empty()).map(str::to_owned).collect();
        let kind = headers.get("content-type").map(|kind| kind.to_str().unwrap().split(';').next().unwrap());
        let headers = ["Location", "Marathon-Deployment-Id"].into_iter().filter(|header| headers.contains_key(*header)).collect();
        let answer = Answer { method: &step.method, segments: &segments, status, kind, headers, body };
        hold::answered(&self.document, &answer).unwrap_or_else(|error| panic!("{error}"));
    }

    async fn event(&mut self, kind: &str, part: &Value) -> Result<(), String> {
        let found = async {
            while let Some(event) = self.events.recv().await {
                let described = hold::fits(&self.document, &event, &self.document["components"]["schemas"]["Event"]);
                described.unwrap_or_else(|error| panic!("Event{error}: {event}"));
                let fits = event["eventType"] == kind && holds(&event, part).is_ok();
                self.passed.push(event["eventType"].as_str().unwrap_or_default().to_owned());
                if fits {
                    return true;
                }
            }
            false
        };
        if tokio::time::timeout(PATIENCE, found).await == Ok(true) {
            Ok(())
        } else {
            Err(format!("no {kind} with {part} came, but {:?}", self.passed))
        }
    }
}

/// The events from now on, as they come.
async fn follow(client: &Client, url: &str) -> mpsc::UnboundedReceiver<Value> {
    let mut response = client.get(format!("{url}/v2/events")).header("accept", "text/event-stream").send().await.unwrap();
    assert_eq!(response.status(), 200);
    let (sender, receiver) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut text = String::new();
        while let Ok(Some(piece)) = response.chunk().await {
            text += &String::from_utf8_lossy(&piece);
            while let Some((line, rest)) = text.split_once("\r\n").map(|(line, rest)| (line.to_owned(), rest.to_owned())) {
                text = rest;
                if let Some(data) = line.strip_prefix("data: ")
                    && sender.send(serde_json::from_str(data).unwrap()).is_err()
                {
                    return;
                }
            }
        }
    });
    receiver
}

/// # Errors
/// What came instead of what was wanted.
pub async fn run(case: &Case) -> Result<(), String> {
    let mut server = Server::start(settings(case)).await;
    match &case.what {
        What::Shows { definition, pointer, value } => shows(&mut server, case.pods, definition, pointer, value.as_ref()).await,
        What::Refused { definition, message, path, text } => {
            let (status, _, body) = server.ask(&post(case.pods, definition)).await;
            let body: Value = serde_json::from_str(&body).map_err(|error| error.to_string())?;
            if (status, &body["message"]) != (422, &json!(message)) {
                return Err(format!("{status} {body}"));
            }
            detail(&body, path, text)
        }
        What::Steps(steps) => {
            for step in steps {
                self::step(&mut server, step).await.map_err(|error| format!("{} {}: {error}", step.method, step.path))?;
            }
            Ok(())
        }
    }
}

fn settings(case: &Case) -> Settings {
    let mut settings = Settings::default();
    for (name, value) in &case.settings {
        match name.as_str() {
            "max_running_deployments" => settings.max_running_deployments = *value,
            "secrets" => settings.secrets = *value == 1,
            "local_port_max" => settings.local_port_max = *value as u16,
            other => panic!("{}: there is no setting {other}", case.name),
        }
    }
    settings
}

/// Makes an app or a pod; what is not what the line is about is given.
fn post(pods: bool, definition: &Value) -> Step {
    let mut definition = definition.clone();
    if let Some(fields) = definition.as_object_mut() {
        fields.entry("id").or_insert_with(|| json!("/x"));
        if pods {
            fields.entry("containers").or_insert_with(|| json!([{ "name": "one", "resources": {} }]));
        }
    }
    Step { method: "POST".into(), path: route(pods).into(), body: definition.to_string(), ..Step::default() }
}

fn route(pods: bool) -> &'static str {
    if pods { "/v2/pods" } else { "/v2/apps" }
}

async fn shows(server: &mut Server, pods: bool, definition: &Value, pointer: &str, value: Option<&Value>) -> Result<(), String> {
    let (status, _, created) = server.ask(&post(pods, definition)).await;
    if status != 201 {
        return Err(format!("{status} {created}"));
    }
    let id = serde_json::from_str::<Value>(&created).map_err(|error| error.to_string())?["id"].as_str().unwrap_or_default().to_owned();
    let read = Step { method: "GET".into(), path: format!("{}{id}", route(pods)), ..Step::default() };
    let (_, _, body) = server.ask(&read).await;
    let body: Value = serde_json::from_str(&body).map_err(|error| error.to_string())?;
    let shown = normal(if pods { &body } else { &body["app"] });
    if shown.pointer(pointer) == value { Ok(()) } else { Err(format!("{pointer} is {:?} in {shown}", shown.pointer(pointer))) }
}

async fn step(server: &mut Server, step: &Step) -> Result<(), String> {
    server.passed.clear();
    let (status, headers, body) = server.ask(step).await;
    if status != step.status {
        return Err(format!("{status} in place of {}: {body}", step.status));
    }
    let json: Value = serde_json::from_str(&body).unwrap_or_default();
    for wanted in &step.wanted {
        match wanted {
            Wanted::Message(text) if json["message"] == *text => {}
            Wanted::Message(_) => return Err(body),
            Wanted::Detail(path, text) => detail(&json, path, text)?,
            Wanted::Is(whole) if normal(&json) == *whole => {}
            Wanted::Is(_) => return Err(format!("the body is {}", normal(&json))),
            Wanted::Has(part) => holds(&normal(&json), part)?,
            Wanted::Lacks(pointer) if json.pointer(pointer).is_none() => {}
            Wanted::Lacks(pointer) => return Err(format!("there is {pointer} in {body}")),
            Wanted::Text(text) if body.contains(text.as_str()) => {}
            Wanted::Text(text) => return Err(format!("{text:?} is not in {body:?}")),
            Wanted::Empty if body.is_empty() => {}
            Wanted::Empty => return Err(format!("there is a body: {body}")),
            Wanted::Header(name, value) => {
                let found = headers.get(name.as_str()).and_then(|value| value.to_str().ok()).unwrap_or_default();
                let value = value.replace("$url", &server.url);
                let fits = if value == "*" { !found.is_empty() } else { found == value };
                if !fits {
                    return Err(format!("{name} is {found:?}"));
                }
            }
            Wanted::Event(kind, part) => server.event(kind, part).await?,
            Wanted::NoEvent(kind) if !server.passed.contains(kind) => {}
            Wanted::NoEvent(kind) => return Err(format!("{kind} came: {:?}", server.passed)),
            Wanted::Keep(name, pointer) => {
                let value = json.pointer(pointer).and_then(Value::as_str).ok_or_else(|| format!("no text at {pointer} in {body}"))?;
                server.kept.insert(name.clone(), value.to_owned());
            }
        }
    }
    Ok(())
}

fn detail(body: &Value, path: &str, text: &str) -> Result<(), String> {
    let details = body["details"].as_array().map(Vec::as_slice).unwrap_or_default();
    let at = details.iter().filter(|detail| detail["path"] == path).flat_map(|detail| detail["errors"].as_array().into_iter().flatten());
    if at.filter_map(Value::as_str).any(|found| found.contains(text)) { Ok(()) } else { Err(format!("{path}: {text:?} is not in {body}")) }
}

/// # Errors
/// Where `part` is not in `whole`. Of a list each item of `part` must be the item in the same place.
fn holds(whole: &Value, part: &Value) -> Result<(), String> {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => part.iter().try_for_each(|(key, part)| {
            let found = whole.get(key).ok_or_else(|| format!("/{key} is missing"))?;
            holds(found, part).map_err(|error| format!("/{key}{error}"))
        }),
        (Value::Array(whole), Value::Array(part)) if whole.len() == part.len() => whole
            .iter()
            .zip(part)
            .enumerate()
            .try_for_each(|(at, (whole, part))| holds(whole, part).map_err(|error| format!("/{at}{error}"))),
        _ if whole == part => Ok(()),
        _ => Err(format!(": {whole} in place of {part}")),
    }
}

/// Without what is different every time: times are `<time>`, ids made of random numbers `<uuid>`.
fn normal(value: &Value) -> Value {
    match value {
        Value::Array(items) => items.iter().map(normal).collect(),
        Value::Object(fields) => Value::Object(fields.iter().map(|(key, value)| (key.clone(), normal(value))).collect::<Map<_, _>>()),
        Value::String(text) => Value::String(normal_text(text)),
        other => other.clone(),
    }
}

fn normal_text(text: &str) -> String {
    let found = (0..text.len()).find_map(|at| {
        let rest = text.get(at..)?;
        let fits = |length: usize, test: fn(&str) -> bool| rest.get(..length).is_some_and(test);
        if fits(24, is_time) {
            Some((at, "<time>", 24))
        } else if fits(36, is_uuid) {
            Some((at, "<uuid>", 36))
        } else {
            None
        }
    });
    match found {
        Some((at, name, length)) => format!("{}{name}{}", &text[..at], normal_text(&text[at + length..])),
        None => text.to_owned(),
    }
}

/// As `2020-01-31T12:34:56.789Z`.
fn is_time(text: &str) -> bool {
    text.starts_with("20") && text.ends_with('Z') && text.as_bytes()[10] == b'T'
}

fn is_uuid(text: &str) -> bool {
    text.bytes().enumerate().all(|(at, byte)| if [8, 13, 18, 23].contains(&at) { byte == b'-' } else { byte.is_ascii_hexdigit() })
}
