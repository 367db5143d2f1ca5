//! Runs a case against a server of its own: the real API, core and driver, with a store in memory and the cluster of [`cluster`](super::cluster).

use std::{cmp::Reverse, collections::BTreeMap, io::Read as _, sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use reqwest::{Client, Method, header::HeaderMap};
use serde_json::{Map, Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
};
use xtao::{
    api::{
        self, Api, Identity, Info,
        identity::{LogSink, Rules},
        surround::MostRequests,
    },
    auth::{
        gate::{Credentials, DEFAULT_TOKEN_LIFETIME, Gate},
        token::TokenKey,
    },
    core::Settings,
    model::{cluster::ClusterEvent, id::Owner},
    runtime::{driver::Driver, handle::Handle},
    store::memory::{Disk, MemoryStore},
};

use super::{
    cluster::{self, Domain, Order},
    hold::{self, Answer},
    table::{self, Case, Step, Wanted, What},
};

/// How long something is waited for that must come.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a case sets; the rest is as by default.
#[derive(Default)]
struct Options {
    core: Settings,
    allow_origin: Option<String>,
    no_compression: bool,
    most_requests: Option<usize>,
    /// `USER:PASSWORD`
    credentials: Option<String>,
    realm: Option<String>,
    node: Domain,
}

impl Options {
    fn read(case: &Case) -> Self {
        let mut options = Self::default();
        for (name, value) in &case.settings {
            let number = || value.parse::<usize>().unwrap_or_else(|_| panic!("{}: no number: {value}", case.name));
            match name.as_str() {
                "max_running_deployments" => options.core.max_running_deployments = number(),
                // Like the embedded engine's.
                "node_command_networks" => options.core.command_networks = number() == 1,
                "secrets" => options.core.secrets = number() == 1,
                "local_port_max" => options.core.local_port_max = number().try_into().unwrap(),
                "enable_features" => options.node.task_killing = value == "task_killing",
                "new_group_enforce_role" => options.core.new_group_enforce_role = value == "top",
                "access_control_allow_origin" => options.allow_origin = Some(value.clone()),
                "disable_http_compression" => options.no_compression = true,
                "http_max_concurrent_requests" => options.most_requests = Some(number()),
                "http_credentials" => options.credentials = Some(value.clone()),
                "http_realm" => options.realm = Some(value.clone()),
                "node_region" => options.node.region = Some(value.clone()),
                "node_zone" => options.node.zone = Some(value.clone()),
                other => panic!("{}: there is no setting {other}", case.name),
            }
        }
        options
    }

    fn api(&self, handle: Handle) -> Api {
        let mut info = Info::new("localhost", 8080, &self.core);
        info.allow_origin = self.allow_origin.as_ref().map(|origin| origin.parse().unwrap());
        info.compression = !self.no_compression;
        info.task_killing = self.node.task_killing;
        let credentials = self.credentials.as_ref().map(|given| {
            let (user, password) = given.split_once(':').unwrap();
            Credentials { user: Owner::new(user), password: password.to_owned() }
        });
        let gate = Gate::new(TokenKey::random(), DEFAULT_TOKEN_LIFETIME, credentials);
        let identity = Identity::new(Rules { authentication: true, loopback_only: true }, gate, Arc::new(LogSink));
        let mut api = Api::new(handle, info);
        api.identity = Arc::new(match &self.realm {
            Some(realm) => identity.in_realm(realm),
            None => identity,
        });
        api.most_requests = self.most_requests.map(MostRequests::new);
        api
    }
}

/// An event, and its id on the stream.
struct Told {
    id: Option<String>,
    event: Value,
}

struct Server {
    url: String,
    client: Client,
    events: mpsc::UnboundedReceiver<Told>,
    /// The events that this step has passed.
    passed: Vec<Value>,
    /// The id of the last event that had one.
    last_id: String,
    kept: BTreeMap<String, String>,
    /// What the server says that it answers: whatever comes is held against it.
    document: Value,
    orders: mpsc::Sender<Order>,
    /// Dropped, it ends the driver and the server.
    _stop: watch::Sender<bool>,
    _events: mpsc::Sender<ClusterEvent>,
}

impl Server {
    async fn start(options: Options) -> Self {
        // Another test may have done it already.
        _ = rustls::crypto::ring::default_provider().install_default();
        let (events, arriving) = mpsc::channel(1024);
        let (calls, called) = mpsc::channel(1024);
        let store = Box::new(MemoryStore::open(&Disk::new()));
        let (driver, handle) = Driver::open(options.core.clone(), store, arriving, calls).await.unwrap();
        let (stop, stopping) = watch::channel(false);
        tokio::spawn(driver.run(stopping.clone()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let mut stopped = stopping;
        let shutdown = async move { _ = stopped.wait_for(|stop| *stop).await };
        tokio::spawn(api::serve(listener, options.api(handle), shutdown));
        let client = Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        let mut own = HeaderMap::new();
        if let Some(credentials) = &options.credentials {
            own.insert("authorization", basic(credentials).parse().unwrap());
        }
        let (_, _, stream) = follow(&client, &format!("{url}/v2/events"), own.clone()).await;
        let document = client.get(format!("{url}/v2/openapi.json")).headers(own).send().await.unwrap().json().await.unwrap();
        let (orders, ordered) = mpsc::channel(16);
        tokio::spawn(cluster::run(options.node, called, ordered, events.clone()));
        Self {
            url,
            client,
            events: stream,
            passed: Vec::new(),
            last_id: String::new(),
            kept: BTreeMap::new(),
            document,
            orders,
            _stop: stop,
            _events: events,
        }
    }

    /// `text` with what was kept in place of `$name`; the longest name goes first.
    fn filled(&self, text: &str) -> String {
        let mut names: Vec<(&String, &String)> = self.kept.iter().collect();
        names.sort_by_key(|(name, _)| Reverse(name.len()));
        names.iter().fold(text.to_owned(), |text, (name, value)| text.replace(&format!("${name}"), value))
    }

    /// The next events come from another stream.
    async fn listen(&mut self, step: &Step) -> (u16, HeaderMap) {
        let url = format!("{}{}", self.url, self.filled(&step.path));
        let (status, headers, events) = follow(&self.client, &url, self.headers(step)).await;
        self.events = events;
        (status, headers)
    }

    fn headers(&self, step: &Step) -> HeaderMap {
        let header = |(name, value): &(String, String)| {
            let value = value.strip_prefix("basic ").map_or_else(|| self.filled(value), basic);
            (name.parse::<reqwest::header::HeaderName>().unwrap(), value.parse().unwrap())
        };
        step.headers.iter().map(header).collect()
    }

    async fn ask(&mut self, step: &Step) -> (u16, HeaderMap, String) {
        let (path, body) = (self.filled(&step.path), self.filled(&step.body));
        let method = Method::from_bytes(step.method.as_bytes()).unwrap();
        let mut request = self.client.request(method, format!("{}{path}", self.url)).headers(self.headers(step));
        if !body.is_empty() {
            request = request.header("content-type", step.kind.as_deref().unwrap_or("application/json")).body(body);
        }
        if let Some(accept) = &step.accept {
            request = request.header("accept", accept);
        }
        let busy = if step.busy { Some(self.occupy().await) } else { None };
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let bytes = response.bytes().await.unwrap();
        drop(busy);
        let mut text = String::new();
        if headers.get("content-encoding").is_some_and(|coding| coding == "gzip") {
            flate2::read::GzDecoder::new(&*bytes).read_to_string(&mut text).unwrap();
        } else {
            text += &String::from_utf8_lossy(&bytes);
        }
        self.is_described(step, &path, status, &headers, &text);
        (status, headers, text)
    }

    /// A request that takes its place among those that are answered, until the connection is dropped: its body is waited for.
    async fn occupy(&self) -> TcpStream {
        let mut stream = TcpStream::connect(self.url.strip_prefix("http://").unwrap()).await.unwrap();
        let head = "POST /v2/apps HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        // Sent once somebody wants to read the body.
        let mut answer = [0; "HTTP/1.1 100 Continue\r\n\r\n".len()];
        tokio::time::timeout(PATIENCE, stream.read_exact(&mut answer)).await.unwrap().unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 100 "), "{}", String::from_utf8_lossy(&answer));
        stream
    }

    fn is_described(&self, step: &Step, path: &str, status: u16, headers: &HeaderMap, body: &str) {
        let path = path.split('?').next().unwrap().replace("%2F", "/").replace("/service/marathon/", "/").replace("/marathon/", "/");
        let segments: Vec<String> = path.split('/').filter(|segment| !segment.is_empty()).map(str::to_owned).collect();
        let kind = headers.get("content-type").map(|kind| kind.to_str().unwrap().split(';').next().unwrap());
        let headers = ["Location", "Marathon-Deployment-Id"].into_iter().filter(|header| headers.contains_key(*header)).collect();
        let answer = Answer { method: &step.method, segments: &segments, status, kind, headers, body };
        hold::answered(&self.document, &answer).unwrap_or_else(|error| panic!("{error}"));
    }

    async fn event(&mut self, wanted: &table::Event) -> Result<(), String> {
        let table::Event { kind, part, only, next } = wanted;
        let mut why = String::new();
        let found = async {
            while let Some(Told { id, event }) = self.events.recv().await {
                let described = hold::fits(&self.document, &event, &self.document["components"]["schemas"]["Event"]);
                described.unwrap_or_else(|error| panic!("Event{error}: {event}"));
                self.last_id = id.unwrap_or_else(|| std::mem::take(&mut self.last_id));
                let fits = if event["eventType"] == *kind { told(&event, part, *only) } else { Err(String::new()) };
                if let Err(error) = &fits
                    && event["eventType"] == *kind
                {
                    why += &format!("\n  {error} in {event}");
                }
                self.passed.push(event);
                if fits.is_ok() || *next {
                    return fits.is_ok();
                }
            }
            false
        };
        if tokio::time::timeout(PATIENCE, found).await == Ok(true) {
            return Ok(());
        }
        let passed: Vec<String> = self.passed.iter().map(brief).collect();
        Err(format!("no {kind} with {part} came, but\n  {}{why}", passed.join("\n  ")))
    }
}

fn basic(credentials: &str) -> String {
    format!("Basic {}", STANDARD.encode(credentials))
}

/// # Errors
/// What an event lacks, or has besides.
fn told(event: &Value, part: &Value, only: bool) -> Result<(), String> {
    if !only {
        return holds(event, part, false);
    }
    let mut fields = normal(event);
    let fields = fields.as_object_mut().unwrap();
    let timestamp = fields.shift_remove("timestamp");
    fields.shift_remove("eventType");
    if timestamp != Some("<time>".into()) {
        return Err(format!("/timestamp is {timestamp:?}"));
    }
    holds(&Value::Object(fields.clone()), part, true)
}

/// An event as people tell it from others.
fn brief(event: &Value) -> String {
    let parts = ["eventType", "taskStatus", "condition", "runSpecId", "appId", "groupId", "currentStep"];
    let parts = parts.iter().filter_map(|key| event.get(*key));
    parts.map(|part| part.as_str().map_or_else(|| part.to_string(), str::to_owned)).collect::<Vec<_>>().join(" ")
}

/// The events from now on, as they come, and how the stream begins.
async fn follow(client: &Client, url: &str, headers: HeaderMap) -> (u16, HeaderMap, mpsc::UnboundedReceiver<Told>) {
    let mut response = client.get(url).header("accept", "text/event-stream").headers(headers).send().await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let (sender, receiver) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let (mut text, mut id) = (String::new(), None);
        while let Ok(Some(piece)) = response.chunk().await {
            text += &String::from_utf8_lossy(&piece);
            while let Some((line, rest)) = text.split_once("\r\n").map(|(line, rest)| (line.to_owned(), rest.to_owned())) {
                text = rest;
                if let Some(of_event) = line.strip_prefix("id: ") {
                    id = Some(of_event.to_owned());
                }
                if let Some(data) = line.strip_prefix("data: ")
                    && sender.send(Told { id: id.take(), event: serde_json::from_str(data).unwrap() }).is_err()
                {
                    return;
                }
            }
        }
    });
    (status, headers, receiver)
}

/// # Errors
/// What came instead of what was wanted.
pub async fn run(case: &Case) -> Result<(), String> {
    let mut server = Server::start(Options::read(case)).await;
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
    let (status, headers, body) = match step.method.as_str() {
        "NODE" => {
            let order = Order { word: step.path.clone(), app: step.body.clone() };
            server.orders.send(order).await.unwrap();
            (0, HeaderMap::new(), String::new())
        }
        "STREAM" => {
            let (status, headers) = server.listen(step).await;
            (status, headers, String::new())
        }
        _ => server.ask(step).await,
    };
    if status != step.status {
        return Err(format!("{status} in place of {}: {body}", step.status));
    }
    let json: Value = serde_json::from_str(&body).unwrap_or_default();
    for wanted in &step.wanted {
        match wanted {
            Wanted::Message(text) if json["message"] == server.filled(text) => {}
            Wanted::Message(_) => return Err(body),
            Wanted::Detail(path, text) => detail(&json, path, &server.filled(text))?,
            Wanted::Is(whole) => holds(&normal(&json), whole, true).map_err(|error| format!("{error}; the body is {}", normal(&json)))?,
            Wanted::Has(part) => holds(&normal(&json), part, false)?,
            Wanted::Lacks(pointer) if json.pointer(pointer).is_none() => {}
            Wanted::Lacks(pointer) => return Err(format!("there is {pointer} in {body}")),
            Wanted::Text(text) if body.contains(text.as_str()) => {}
            Wanted::Text(text) => return Err(format!("{text:?} is not in {body:?}")),
            Wanted::Empty if body.is_empty() => {}
            Wanted::Empty => return Err(format!("there is a body: {body}")),
            Wanted::Header(name, value) => {
                let found = headers.get(name.as_str()).map(|value| value.to_str().unwrap());
                let fits = match value.as_str() {
                    "*" => found.is_some_and(|found| !found.is_empty()),
                    "-" => found.is_none(),
                    value => found == Some(&*server.filled(&value.replace("$url", &server.url))),
                };
                if !fits {
                    return Err(format!("{name} is {found:?}"));
                }
            }
            Wanted::Event(event) => server.event(event).await?,
            Wanted::NoEvent(kind) => {
                if let Some(event) = server.passed.iter().find(|event| event["eventType"] == **kind) {
                    return Err(format!("there came {event}"));
                }
            }
            Wanted::Same(name, pointer) | Wanted::Other(name, pointer) => {
                let (found, kept) = (at(&json, pointer, &[])?, server.kept.get(name).ok_or_else(|| format!("there is no ${name}"))?);
                if (found == *kept) != matches!(wanted, Wanted::Same(..)) {
                    return Err(format!("{pointer} is {found}, and {name} was {kept}"));
                }
            }
            Wanted::Keep(name, pointer, without) => {
                let value = at(&json, pointer, without)?;
                server.kept.insert(name.clone(), value);
            }
            Wanted::Mark(name) => {
                server.kept.insert(name.clone(), server.last_id.clone());
            }
        }
    }
    Ok(())
}

/// What is in a place of a body, as it can be sent back: a text without its quotes.
fn at(body: &Value, pointer: &str, without: &[String]) -> Result<String, String> {
    // The whole, in the tables' way.
    let pointer = if pointer == "/" { "" } else { pointer };
    let mut value = body.pointer(pointer).ok_or_else(|| format!("nothing at {pointer} in {body}"))?.clone();
    for key in without {
        let removed = value.as_object_mut().and_then(|fields| fields.shift_remove(key));
        removed.ok_or_else(|| format!("no {key} at {pointer} in {body}"))?;
    }
    Ok(value.as_str().map_or_else(|| value.to_string(), str::to_owned))
}

fn detail(body: &Value, path: &str, text: &str) -> Result<(), String> {
    let details = body["details"].as_array().map(Vec::as_slice).unwrap_or_default();
    let at = details.iter().filter(|detail| detail["path"] == path).flat_map(|detail| detail["errors"].as_array().into_iter().flatten());
    if at.filter_map(Value::as_str).any(|found| found == text) { Ok(()) } else { Err(format!("{path}: {text:?} is not in {body}")) }
}

/// # Errors
/// Where `part` is not in `whole`, or, with `only`, where there is more. Of a list each item of `part` must be the item in the same place.
fn holds(whole: &Value, part: &Value, only: bool) -> Result<(), String> {
    if part == "<any>" {
        return Ok(());
    }
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => {
            if let Some(key) = whole.keys().find(|key| only && !part.contains_key(*key)) {
                return Err(format!("/{key} is too much"));
            }
            part.iter().try_for_each(|(key, part)| {
                let found = whole.get(key).ok_or_else(|| format!("/{key} is missing"))?;
                holds(found, part, only).map_err(|error| format!("/{key}{error}"))
            })
        }
        (Value::Array(whole), Value::Array(part)) if whole.len() == part.len() => whole
            .iter()
            .zip(part)
            .enumerate()
            .try_for_each(|(at, (whole, part))| holds(whole, part, only).map_err(|error| format!("/{at}{error}"))),
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
