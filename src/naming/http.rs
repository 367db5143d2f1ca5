//! Mesos-DNS' HTTP API: the same names as JSON. A name that is not there is an object of empty texts with status 200, as there.
//!
//! What covers the whole zone (`enumerate`, `axfr`) is made while it is sent, a piece at a time.

use std::{collections::BTreeMap, convert::Infallible, iter, net::SocketAddr, sync::Arc};

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures_util::stream;
use percent_encoding::percent_decode_str;
use serde::Serialize;
use serde_json::{Value, json, ser::PrettyFormatter};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use warp::{
    Filter, Reply,
    filters::BoxedFilter,
    http::{HeaderValue, StatusCode, header::CONTENT_TYPE},
    reply::Response,
};

use super::{
    Running, Settings,
    label::Rule,
    zone::{Budget, Entry, EntryData, Zone},
};

/// Requests for the whole zone that are answered at once. One more gets 503.
pub const MAX_WHOLE_ZONE_REQUESTS: usize = 2;

/// Tasks, or labels, in one piece of an answer about the whole zone.
const ITEMS_A_PIECE: usize = 64;

/// What every request may use.
#[derive(Clone)]
struct Context {
    zone: Arc<ArcSwap<Zone>>,
    settings: Arc<Settings>,
    addresses: Vec<SocketAddr>,
    whole_zone: Arc<Semaphore>,
}

/// The routes, from `/v1` on.
pub fn routes(running: &Running) -> BoxedFilter<(Response,)> {
    let context = Context {
        zone: running.zone.clone(),
        settings: running.settings.clone(),
        addresses: running.addresses.clone(),
        whole_zone: Arc::new(Semaphore::new(MAX_WHOLE_ZONE_REQUESTS)),
    };
    let with = warp::any().map(move || context.clone());
    let version = warp::path!("v1" / "version").map(version);
    let config = warp::path!("v1" / "config").and(with.clone()).map(|context: Context| config(&context));
    let host = warp::path!("v1" / "hosts" / String).and(with.clone()).map(|name: String, context: Context| host(&context, &name));
    let ports = warp::path!("v1" / "hosts" / String / "ports").map(|_| ports());
    let service = warp::path!("v1" / "services" / String).and(with.clone()).map(|name: String, context: Context| service(&context, &name));
    let enumerate = warp::path!("v1" / "enumerate").and(with.clone()).map(|context: Context| whole(&context, enumerate));
    let axfr = warp::path!("v1" / "axfr").and(with).map(|context: Context| whole(&context, axfr));
    let routes = version.or(config).unify().or(host).unify().or(ports).unify();
    let routes = routes.or(service).unify().or(enumerate).unify().or(axfr).unify();
    warp::get().and(routes).boxed()
}

fn version() -> Response {
    answer(&json!({
        "Service": "Mesos-DNS",
        "URL": "https://github.com/mesosphere/mesos-dns",
        "Version": env!("CARGO_PKG_VERSION"),
    }))
}

/// Mesos-DNS' settings with our values, in its spelling.
fn config(context: &Context) -> Response {
    let (settings, zone) = (&context.settings, context.zone.load());
    let plan = zone.plan();
    let first = context.addresses.first();
    let resolvers = settings.resolvers.iter().flatten().map(ToString::to_string).collect::<Vec<_>>();
    answer(&json!({
        "Masters": null,
        "Zk": "",
        "RefreshSeconds": 0,
        "TTL": plan.ttl(),
        "SRVRecordDefaultWeight": 1,
        "Port": first.map(SocketAddr::port),
        "Domain": plan.domain(),
        "Resolvers": resolvers,
        "Timeout": super::forward::FORWARD_TIMEOUT.as_secs(),
        "SOAMname": format!("{}.", plan.mname()),
        "SOARname": format!("{}.", plan.rname()),
        "SOASerial": zone.serial(),
        "SOARefresh": 60,
        "SOARetry": 600,
        "SOAExpire": 86400,
        "SOAMinttl": plan.ttl(),
        "RecurseOn": true,
        "Listener": first.map(|address| address.ip().to_string()),
        "HttpPort": settings.http_port,
        "DnsOn": true,
        "HttpOn": true,
        "ExternalOn": settings.resolvers.as_ref().is_none_or(|resolvers| !resolvers.is_empty()),
        "EnforceRFC952": settings.rule == Rule::Rfc952,
        "SetTruncateBit": true,
        "EnumerationOn": true,
        "IPSources": ["netinfo", "mesos", "host"],
    }))
}

fn host(context: &Context, name: &str) -> Response {
    let name = domain_name(name);
    let found = context.zone.load().find(&name, Budget::WHOLE, rand::random());
    let v4 = found.v4.iter().map(ToString::to_string);
    let addresses = v4.chain(found.v6.iter().map(ToString::to_string));
    // The name as it is found, as Mesos-DNS does.
    let host = format!("{}.", name.replace(".*", ""));
    let records: Vec<Value> = addresses.map(|ip| json!({"host": host, "ip": ip})).collect();
    answer(&or_empty(records, json!({"host": "", "ip": ""})))
}

fn service(context: &Context, name: &str) -> Response {
    let asked = percent_decode_str(name).decode_utf8_lossy();
    let found = context.zone.load().find(&domain_name(name), Budget::WHOLE, rand::random());
    let records = found.services.iter().flat_map(|target| {
        let addresses = target.v4.iter().map(ToString::to_string).chain(target.v6.iter().map(ToString::to_string));
        addresses.map(|ip| json!({"service": asked, "host": format!("{}.", target.host), "ip": ip, "port": target.port.to_string()}))
    });
    answer(&or_empty(records.collect(), json!({"service": "", "host": "", "ip": "", "port": ""})))
}

fn ports() -> Response {
    warp::reply::with_status("To be implemented...", StatusCode::NOT_IMPLEMENTED).into_response()
}

fn or_empty(records: Vec<Value>, empty: Value) -> Value {
    if records.is_empty() { json!([empty]) } else { Value::Array(records) }
}

/// As names are looked up: decoded, lower case, without the last dot.
fn domain_name(name: &str) -> String {
    let name = percent_decode_str(name).decode_utf8_lossy().to_ascii_lowercase();
    name.strip_suffix('.').unwrap_or(&name).to_owned()
}

fn answer(value: &Value) -> Response {
    as_json(Response::new(pretty(value, 0).into()))
}

fn as_json(mut response: Response) -> Response {
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Indented by one space, and by `depth` more from the second line on.
fn pretty(value: &Value, depth: usize) -> String {
    let mut text = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut text, PrettyFormatter::with_indent(b" "));
    // Into memory, of plain values: there is nothing that can fail.
    _ = value.serialize(&mut serializer);
    String::from_utf8_lossy(&text).replace('\n', &format!("\n{}", " ".repeat(depth)))
}

/// An answer in pieces, if not too many are under way.
fn whole<I: Iterator<Item = String> + Send + Sync + 'static>(context: &Context, pieces: impl Fn(Arc<Zone>) -> I) -> Response {
    let Ok(permit) = context.whole_zone.clone().try_acquire_owned() else {
        let busy = "the whole zone is being read by others; try again in a moment";
        return warp::reply::with_status(busy, StatusCode::SERVICE_UNAVAILABLE).into_response();
    };
    let pieces = Held { pieces: pieces(context.zone.load_full()), _permit: permit };
    let chunks = pieces.map(|piece| Ok::<_, Infallible>(Bytes::from(piece)));
    as_json(warp::reply::stream(stream::iter(chunks)).into_response())
}

/// Pieces, and the right to make them.
struct Held<I> {
    pieces: I,
    _permit: OwnedSemaphorePermit,
}

impl<I: Iterator<Item = String>> Iterator for Held<I> {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        self.pieces.next()
    }
}

fn enumerate(zone: Arc<Zone>) -> impl Iterator<Item = String> + Send + Sync {
    let framework = Value::from(zone.plan().framework());
    let head = format!("{{\n \"frameworks\": [\n  {{\n   \"name\": {framework},\n   \"tasks\": [");
    let mut last = None;
    let mut separator = "";
    let tasks = iter::from_fn(move || {
        let page = zone.page(last.as_ref(), ITEMS_A_PIECE);
        last = Some(page.last()?.0.instance.clone());
        let mut piece = String::new();
        for (task, entries) in page {
            let records: Vec<Value> = entries.iter().map(enumerated).collect();
            let name = task.instance.app().host_form();
            let task = json!({"name": name, "id": task.to_string(), "records": records});
            piece.extend([separator, "\n    ", &pretty(&task, 4)]);
            separator = ",";
        }
        Some(piece)
    });
    iter::once(head).chain(tasks).chain(iter::once("\n   ]\n  }\n ]\n}".to_owned()))
}

fn enumerated(entry: &Entry) -> Value {
    let kind = match &entry.data {
        EntryData::Address(address) if address.is_ipv4() => "A",
        EntryData::Address(_) => "AAAA",
        EntryData::Service(..) => "SRV",
    };
    json!({"name": format!("{}.", entry.name), "host": written(&entry.data), "rtype": kind})
}

fn written(data: &EntryData) -> String {
    match data {
        EntryData::Address(address) => address.to_string(),
        EntryData::Service(target, port) => format!("{target}.:{port}"),
    }
}

fn axfr(zone: Arc<Zone>) -> impl Iterator<Item = String> + Send + Sync {
    let plan = zone.plan();
    let head = json!({
        "TTL": plan.ttl(),
        "Serial": zone.serial(),
        "RefreshSeconds": 0,
        "Mname": format!("{}.", plan.mname()),
        "Rname": format!("{}.", plan.rname()),
        "Domain": plan.domain(),
    });
    let head = pretty(&head, 0);
    let head = format!("{},\n \"Records\": {{", head.trim_end_matches("\n}"));
    let section = move |name: &str, end: &'static str, wanted: fn(&EntryData) -> bool| {
        let begin = iter::once(format!("\n  \"{name}\": {{"));
        begin.chain(record_sets(zone.clone(), wanted)).chain(iter::once(format!("\n  }}{end}")))
    };
    let v4 = section("As", ",", |data| matches!(data, EntryData::Address(address) if address.is_ipv4()));
    let v6 = section("AAAAs", ",", |data| matches!(data, EntryData::Address(address) if address.is_ipv6()));
    let services = section("SRVs", "\n }\n}", |data| matches!(data, EntryData::Service(..)));
    iter::once(head).chain(v4).chain(v6).chain(services)
}

/// All records of one kind, by name. Names that tasks share stand together: they go by label.
fn record_sets(zone: Arc<Zone>, wanted: fn(&EntryData) -> bool) -> impl Iterator<Item = String> + Send + Sync {
    let mut fixed = Some(zone.written_out_fixed());
    let mut last: Option<Arc<str>> = None;
    let mut separator = "";
    iter::from_fn(move || {
        let entries = match fixed.take() {
            Some(entries) => entries,
            None => {
                let (label, entries) = zone.label_page(last.as_deref(), ITEMS_A_PIECE)?;
                last = Some(label);
                entries
            }
        };
        let mut sets: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for entry in entries.iter().filter(|entry| wanted(&entry.data)) {
            sets.entry(format!("{}.", entry.name)).or_default().push(written(&entry.data));
        }
        let mut piece = String::new();
        for (name, mut records) in sets {
            records.sort();
            records.dedup();
            piece.extend([separator, "\n   ", &Value::from(name).to_string(), ": ", &pretty(&json!(records), 3)]);
            separator = ",";
        }
        Some(piece)
    })
}

#[cfg(test)]
mod tests;
