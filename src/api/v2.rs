//! The routes. Each file names the facts about Marathon 1.11 that it relies on; bodies are in [`view`](super::view).
//!
//! In common: a trailing slash, doubled slashes and encoded ones change nothing. `force`, `scale` and `wipe` are true only when they say so. A change
//! answers `{"version", "deploymentId"}` and repeats the id in `Marathon-Deployment-Id`. What has been answered is visible to the same client's next
//! read, because a request is answered only after its commit and its snapshot.

use serde_json::Value;
use warp::http::{HeaderValue, Method, header::CONTENT_SECURITY_POLICY};

use super::{
    Api, Response, accept,
    access::Seen,
    answer,
    call::Call,
    describe,
    error::{ApiError, ApiResult},
    guard, identity,
    revalidate::Tag,
    trail::Owed,
};
use crate::model::{
    id::{Owner, PathId},
    request::{Origin, Reply, Request, RequestError, Violation},
    user::user_name,
};

mod apps;
mod audit;
mod auth;
mod backup;
mod bricks;
mod deployments;
mod events;
mod exec;
mod groups;
mod images;
mod info;
mod known;
mod logging;
mod logs;
mod metrics;
mod nodes;
mod pods;
mod ports;
mod queue;
mod quota;
mod tasks;

/// Answers any request. One that may change something has its place in the audit log before, and its line there when it is answered.
pub async fn answer(api: &Api, call: Call) -> Response {
    if (call.is_read() && !images::is_for_a_change(&call)) || call.method == Method::OPTIONS {
        return answer_in_time(api, call).await;
    }
    let place = match api.audit.reserve().await {
        Ok(place) => place,
        Err(unwritable) => return ApiError::unavailable(unwritable.to_string()).response(),
    };
    let owed = Owed::new(place, &call);
    let response = answer_in_time(api, call).await;
    owed.pay(&response).await;
    response
}

async fn answer_in_time(api: &Api, call: Call) -> Response {
    if takes_long(&call) {
        return route(api, call).await.unwrap_or_else(|error| error.response());
    }
    let in_time = tokio::time::timeout(api.limits.request_time, route(api, call)).await;
    let late = || {
        let seconds = api.limits.request_time.as_secs();
        Err(ApiError::unavailable(format!("no answer within {seconds} s; a change that was asked for may still be made")))
    };
    in_time.unwrap_or_else(|_| late()).unwrap_or_else(|error| error.response())
}

/// Requests whose duration depends on how much data there is. What they wait for has limits of its own.
fn takes_long(call: &Call) -> bool {
    matches!(&call.segments[..], [v2, bricks, _, backup] if v2 == "v2" && bricks == "bricks" && backup == "backup")
}

async fn route(api: &Api, mut call: Call) -> ApiResult {
    guard::check(&api.info, call.is_tls(), &call.method, &call.headers)?;
    let segments = call.segments.clone();
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    match segments.as_slice() {
        ["ping"] => return ping(&call),
        ["v2", "auth", "token"] => return Box::pin(auth::token(api, &call)).await,
        ["v2", "registry", "token"] => return Box::pin(images::token(api, call)).await,
        _ => identity::ask(api, &mut call).await?,
    }
    let tag = Tag::of(api, &call, &segments);
    if let Some(tag) = tag.as_ref().filter(|tag| tag.is_known(&call)) {
        return Ok(tag.not_modified());
    }
    let response = known_route(api, call, &segments).await?;
    Ok(match tag {
        Some(tag) => tag.mark(response),
        None => response,
    })
}

/// A request whose sender is known.
async fn known_route(api: &Api, call: Call, segments: &[&str]) -> ApiResult {
    // Boxed, so that a request takes the room of its own route, not that of the largest one.
    match segments {
        ["v2", "auth", rest @ ..] => Box::pin(auth::route(api, call, rest)).await,
        ["v2", "apps", rest @ ..] => Box::pin(apps::route(api, call, rest)).await,
        ["v2", "deployments", rest @ ..] => Box::pin(deployments::route(api, call, rest)).await,
        ["v2", "groups", rest @ ..] => Box::pin(groups::route(api, call, rest)).await,
        ["v2", "tasks", task, "logs"] => Box::pin(logs::route(api, &call, task)).await,
        ["v2", "tasks", task, "exec"] => Box::pin(exec::route(api, call, task)).await,
        ["v2", "tasks", rest @ ..] => Box::pin(tasks::route(api, call, rest)).await,
        ["v2", "pods", rest @ ..] => Box::pin(pods::route(api, call, rest)).await,
        ["v2", "queue", rest @ ..] => Box::pin(queue::route(api, call, rest)).await,
        ["v2", "events"] => events::route(api, &call),
        ["v2", "audit"] => Box::pin(audit::route(api, &call)).await,
        ["v2", "info"] => Box::pin(info::info(api, &call)).await,
        ["v2", "leader"] => info::leader(api, &call),
        ["v2", "plugins", rest @ ..] => info::plugins(&call, rest),
        ["v2", "ports", rest @ ..] => Box::pin(ports::route(api, call, rest)).await,
        ["v2", "bricks", name, "backup"] => Box::pin(backup::route(api, call, name)).await,
        ["v2", "images", rest @ ..] => Box::pin(images::images(api, &call, rest)).await,
        ["v2", "registry", rest @ ..] => images::registry(api, &call, rest),
        ["v2", "bricks", rest @ ..] => Box::pin(bricks::route(api, call, rest)).await,
        ["metrics", rest @ ..] => metrics::route(api, &call, rest),
        // Mounted beside ours, for reading alone.
        ["mesos_dns", "v1", _, ..] if call.method != Method::GET => Err(ApiError::method(&[Method::GET])),
        ["help"] => help(&call),
        ["config"] => config(api, &call),
        // Where Marathon has its web page, to which it sends from the root.
        [] => moved(&call, "", "/ui/"),
        ["ui"] => moved(&call, "/ui", "/help"),
        ["v2", "openapi.json"] => openapi(&call),
        ["logging"] => Box::pin(logging::route(api, call)).await,
        ["v2", "nodes"] => Box::pin(nodes::route(api, &call)).await,
        _ => Err(ApiError::no_route()),
    }
}

/// `pong`: as a text for `*/*`, `text/*` and without `Accept`; as HTML for `text/html`; as a JSON string for `application/json`; 204 when the client wants none
/// of these.
fn ping(call: &Call) -> ApiResult {
    reads_only(call)?;
    Ok(match accept::best(&call.headers, &["text/plain", "text/html", "application/json"]) {
        Some("application/json") => answer::ok(&"pong"),
        Some("text/html") => answer::text("text/html; charset=utf-8", "pong".into()),
        Some(_) => answer::text("text/plain; charset=utf-8", "pong".into()),
        None => answer::empty(warp::http::StatusCode::NO_CONTENT),
    })
}

/// What all this is, for people. (Marathon sends them on to a console that it brings along.)
fn help(call: &Call) -> ApiResult {
    reads_only(call)?;
    let mut response = answer::text("text/html; charset=utf-8", describe::PUBLISHED.page.clone());
    let policy = HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'");
    response.headers_mut().insert(CONTENT_SECURITY_POLICY, policy);
    Ok(response)
}

/// What all this is, for programs.
fn openapi(call: &Call) -> ApiResult {
    reads_only(call)?;
    Ok(answer::ok(&describe::PUBLISHED.document))
}

/// Every setting of this server; for administrators. (Marathon shows the settings of its libraries.)
fn config(api: &Api, call: &Call) -> ApiResult {
    reads_only(call)?;
    if !origin(call).admin {
        return Err(RequestError::Forbidden.into());
    }
    Ok(answer::ok(&api.info.config))
}

/// Sends who asks for `from` to `to`, both beneath whatever prefix the request was sent under.
fn moved(call: &Call, from: &str, to: &str) -> ApiResult {
    reads_only(call)?;
    // Neither slashes in front, which would name another host, nor doubled ones.
    let asked = call.path().trim_matches('/');
    let prefix = format!("/{asked}").strip_suffix(from).unwrap_or_default().trim_end_matches('/').to_owned();
    Ok(answer::moved(&format!("{prefix}{to}")))
}

/// # Errors
/// 405 for anything but GET and HEAD.
fn reads_only(call: &Call) -> Result<(), ApiError> {
    if call.is_read() { Ok(()) } else { Err(ApiError::method(&[Method::GET, Method::HEAD])) }
}

/// Who asks.
fn origin(call: &Call) -> Origin {
    identity::origin(call)
}

/// What the caller may see of the present snapshot.
fn seen(api: &Api, call: &Call) -> Seen {
    api.access.seen(&origin(call))
}

/// Asks the core, at once; what is returned waits for its answer.
fn submit(api: &Api, call: &Call, request: Request) -> impl Future<Output = Result<Reply, ApiError>> + Send + use<> {
    call.trail.note(&request);
    let answer = api.access.submit(origin(call), request);
    async move { Ok(answer.await?) }
}

/// The `owner` of a body that says nothing else: something is to be handed over.
///
/// # Errors
/// 422 for anything else.
fn new_owner(body: &Value) -> Result<Owner, ApiError> {
    let wrong = |path: &str, text: &str| ApiError::wrong_types(&[Violation::new(path, text)]);
    let Value::Object(fields) = body else { return Err(wrong("/", "error.expected.jsobject")) };
    let Some(owner) = fields.get("owner") else { return Err(wrong("/owner", "error.path.missing")) };
    if fields.keys().any(|key| !matches!(key.as_str(), "owner" | "id")) {
        let text = "The 'owner' field may only be combined with the 'id' field.";
        return Err(ApiError::invalid(&[Violation::new("/", text)]));
    }
    let Some(owner) = owner.as_str() else { return Err(wrong("/owner", "error.expected.jsstring")) };
    user_name(owner).map_err(|error| ApiError::invalid(&[Violation::new("/owner", error.to_string())]))
}

/// An id spelled by the segments of a path.
///
/// # Errors
/// The text of the id, for a message, when no app can have it.
fn path_id(segments: &[&str]) -> Result<PathId, String> {
    let text = segments.iter().fold(String::with_capacity(64), |text, segment| text + "/" + segment);
    text.parse().map_err(|_| text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::{
        api::{
            Limits, routes,
            testing::{Node, Server, World, app},
        },
        model::{instance::Condition, port::Position},
    };

    #[tokio::test]
    async fn every_response_has_marathons_headers() {
        let server = Server::new(World::default());
        for line in ["GET /v2/apps", "GET /nowhere", "POST /v2/apps", "GET /ping"] {
            let headers = server.ask(line, "").await.headers;
            for (name, value) in [
                ("cache-control", "no-cache, no-store, must-revalidate"),
                ("pragma", "no-cache"),
                ("expires", "0"),
                ("x-marathon-leader", "http://node1:8080"),
                ("x-frame-options", "DENY"),
                ("x-xss-protection", "1; mode=block"),
                ("x-content-type-options", "nosniff"),
            ] {
                assert_eq!(headers[name], value, "{line}");
            }
        }
    }

    #[tokio::test]
    async fn what_is_not_served_is_404_and_wrong_methods_are_405() {
        let server = Server::new(World::default());
        for line in ["GET /v2", "GET /v2/eventSubscriptions", "GET /v2/info/x", "GET /metrics/x"] {
            assert_eq!(
                server.ask(line, "").await.show(),
                "404 Not Found\ncontent-type: application/json\n\n{\n  \"message\": \"URI not found\"\n}"
            );
        }
        let answer = server.ask("PUT /v2/info", "").await;
        assert_eq!(
            (answer.status.as_u16(), &answer.headers["allow"], &*answer.message()),
            (405, &"GET, HEAD".parse().unwrap(), "Method Not Allowed")
        );
    }

    #[tokio::test]
    async fn ping_is_answered_in_the_clients_type() {
        let server = Server::new(World::default());
        let check = async |headers: &[(&str, &str)], status: u16, body: &str| {
            let answer = server.ask_with("GET /ping", headers, "").await;
            assert_eq!((answer.status.as_u16(), answer.body.as_str()), (status, body), "{headers:?}");
        };
        check(&[], 200, "pong").await;
        check(&[("accept", "text/html")], 200, "pong").await;
        check(&[("accept", "application/json")], 200, "\"pong\"").await;
        check(&[("accept", "image/png")], 204, "").await;
    }

    #[tokio::test]
    async fn strangers_are_turned_away() {
        let server = Server::new(World::default());
        let check = async |line: &str, headers: &[(&str, &str)], body: &str, status: u16| {
            let answer = server.ask_with(line, headers, body).await;
            assert_eq!(answer.status, status, "{line} {headers:?}: {}", answer.body);
        };
        let host = ("host", "localhost");
        check("GET /v2/apps", &[("host", "evil.example")], "", 403).await;
        check("GET /nowhere", &[("host", "evil.example")], "", 403).await;
        check("POST /v2/apps", &[host, ("origin", "https://evil.example")], "{}", 403).await;
        check("POST /v2/apps", &[host, ("content-type", "text/plain")], r#"{"id": "/x"}"#, 415).await;
        check("POST /v2/apps", &[host, ("content-type", "application/x-www-form-urlencoded")], r#"{"id": "/x"}"#, 415).await;
        check("POST /v2/apps", &[host], r#"{"id": "/x", "cmd": "sleep 1"}"#, 201).await;
    }

    #[tokio::test]
    async fn bodies_have_a_limit() {
        let server = Server::with_limits(World::default(), Limits { body_bytes: 100, ..Limits::default() });
        let check = async |headers: &[(&str, &str)], body: &str, status: u16| {
            assert_eq!(server.ask_with("POST /v2/apps", headers, body).await.status, status);
        };
        check(&[], &format!(r#"{{"id": "/x", "cmd": "{}"}}"#, "x".repeat(50)), 201).await;
        check(&[], &" ".repeat(101), 413).await;
        check(&[("content-length", "101")], "", 413).await;
        check(&[("content-length", "99999999999999999999999")], "", 400).await;
    }

    #[tokio::test]
    async fn filters_beside_ours_come_first_and_are_guarded_too() {
        use warp::{Filter as _, Reply as _};
        let mut api = Server::new(World::default()).api;
        let extra = |name: &'static str| (name, warp::path::end().map(move || name.into_response()).boxed());
        api.extra = vec![extra("one"), extra("two")];
        let ask = async |path: &str, host: &str| {
            let service = hyper_util::service::TowerToHyperService::new(warp::service(routes(api.clone())));
            let request = warp::http::Request::get(path).header("host", host).body(String::new()).unwrap();
            hyper::service::Service::call(&service, request).await.unwrap().status().as_u16()
        };
        assert_eq!(ask("/one", "localhost").await, 200);
        assert_eq!(ask("/two", "localhost").await, 200);
        assert_eq!(ask("/three", "localhost").await, 404);
        assert_eq!(ask("/v2/apps", "localhost").await, 200);
        assert_eq!(ask("/one", "evil.example").await, 403);
    }

    const METHODS: &[&str] = &["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "BREW"];
    const PIECES: &[&str] = &[
        "v2",
        "apps",
        "tasks",
        "delete",
        "queue",
        "delay",
        "deployments",
        "groups",
        "versions",
        "restart",
        "pods",
        "::status",
        "web::status",
        "web::versions",
        "web::instances",
        "*",
        "..",
        ".",
        "ports",
        "1066",
        "bricks",
        "fence",
        "backup",
        "nodes",
        "logs",
        "exec",
        "web.instance-00000000-0000-0000-0000-000000000001._app.1",
        "web",
        "shop",
        "events",
        "info",
        "leader",
        "plugins",
        "ping",
        "marathon",
        "%2F",
        "%",
        "%ff",
        "",
        "2020-01-31T12:00:00.000Z",
        "9999999999999",
        "-1",
        "Ä%C3%84",
    ];
    const QUERIES: &[&str] = &[
        "",
        "?",
        "?force=true",
        "?embed=tasks&embed=taskStats",
        "?label=a==b",
        "?label=%00",
        "?status[]=running",
        "?scale=true&wipe=true",
        "?host=*",
        "?id=%ff&cmd=",
        "?partialUpdate=false",
        "?stream=stderr&tail=5&follow=false",
        "?tail=-1&since=never",
        "?freeze=true",
    ];

    /// Pieces of real requests, shuffled, and pure noise.
    fn line() -> impl Strategy<Value = (String, String)> {
        let piece = prop_oneof![4 => prop::sample::select(PIECES).prop_map(str::to_owned), 1 => "[ -~]{0,12}"];
        let path = prop::collection::vec(piece, 0..6).prop_map(|pieces| pieces.join("/"));
        let path = (any::<bool>(), path).prop_map(|(v2, path)| if v2 { format!("/v2/{path}") } else { format!("/{path}") });
        (prop::sample::select(METHODS), path, prop::sample::select(QUERIES))
            .prop_map(|(method, path, query)| (method.to_owned(), format!("{path}{query}")))
    }

    fn body() -> impl Strategy<Value = String> {
        let value = prop_oneof![
            Just(serde_json::json!(null)),
            any::<i64>().prop_map(|number| number.into()),
            any::<f64>().prop_map(|number| number.into()),
            "\\PC{0,8}".prop_map(|text| text.into()),
            Just(serde_json::json!(["/web", "x.y", "_", ""])),
        ];
        let key = prop::sample::select(&["id", "cmd", "ids", "epoch", "cpus", "env", "container", "version", "ports", "networks", "x"][..]);
        let object = prop::collection::vec((key, value.clone()), 0..5)
            .prop_map(|fields| serde_json::Value::Object(fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()));
        let json = prop_oneof![object.clone(), value, prop::collection::vec(object, 0..3).prop_map(serde_json::Value::Array)];
        prop_oneof![3 => json.prop_map(|json| json.to_string()), 1 => ".{0,40}", 1 => Just(String::new())]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn no_input_makes_the_server_fail((method, uri) in line(), body in body(), kind in prop::sample::select(&["application/json", "text/plain", "\u{7f}"][..])) {
            let Ok(uri) = uri.parse::<warp::http::Uri>() else { return Ok(()) };
            let mut request = warp::http::Request::builder().method(method.as_str()).uri(uri.clone());
            if let Ok(kind) = warp::http::HeaderValue::from_str(kind) {
                request = request.header("content-type", kind);
            }
            let request = request.body(body.clone()).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let status = runtime.block_on(async {
                let mut world = World::default();
                world.app(app("/web")).claim(1066, "/web", Position::Env(0)).instance("/web", 1, Condition::Running, &[31_001]);
                let mut server = Server::new(world);
                server.set_nodes(std::sync::Arc::new(Node::with_output(&["a line\n"])));
                server.send(request).await.status
            });
            prop_assert!(!status.is_server_error(), "{} {} {}: {}", method, uri, body, status);
        }
    }
}
