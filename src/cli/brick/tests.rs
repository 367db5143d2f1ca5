//! The commands as they are typed, against a server that answers by a script.

use clap::Parser;
use warp::Filter;

use super::*;

#[derive(Parser)]
#[command(name = "xtao brick")]
struct Xtao {
    #[command(flatten)]
    arguments: Arguments,
}

fn parse(line: &str) -> Result<Arguments, String> {
    Xtao::try_parse_from(std::iter::once("xtao").chain(line.split_whitespace())).map(|it| it.arguments).map_err(|error| error.to_string())
}

/// A server that answers everything with this status and body; answers its address and what it was asked.
fn server(status: u16, body: Value) -> (String, Arc<std::sync::Mutex<Vec<String>>>) {
    let asked = Arc::new(std::sync::Mutex::new(Vec::new()));
    let log = asked.clone();
    let route = warp::method()
        .and(warp::path::full())
        .and(warp::query::raw().or(warp::any().map(String::new)).unify())
        .and(warp::body::bytes())
        .map(move |method: warp::http::Method, path: warp::path::FullPath, query: String, sent: bytes::Bytes| {
            log.lock().unwrap().push(format!("{method} {} {query} {}", path.as_str(), String::from_utf8_lossy(&sent)).trim().to_owned());
            let text = if body.is_null() { String::new() } else { body.to_string() };
            warp::http::Response::builder().status(status).body(text).unwrap()
        });
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(warp::serve(route).incoming(tokio::net::TcpListener::from_std(listener).unwrap()).run());
    (format!("http://{address}"), asked)
}

fn sample() -> Value {
    json!({
        "name": "testdb-var-lib-0123456789abcdef", "app": "/testdb", "appExists": true, "containerPath": "/var/lib", "size": 131_072,
        "fileSystem": "ext4", "pool": "datapool", "owner": "admin", "createdAt": "2020-01-31T12:34:56.789Z", "epoch": 3, "used": 512,
        "fileSystemSize": 128_000, "lastMounted": "2020-01-31T12:34:57.000Z", "home": {"agent": "a1", "host": "compute1"},
        "holder": {"agent": "a1", "host": "compute1", "task": "testdb.instance-x._app.1", "epoch": 3}
    })
}

#[test]
fn bricks_are_shown_for_people() {
    let other = json!({"name": "shop-data-fedcba9876543210", "app": "/shop", "appExists": false, "size": 64, "fileSystem": "xfs",
        "pool": "fast", "owner": "zm\u{1b}[31mfsea", "stuck": "process 7 (postgres) in container 0123456789ab"});
    insta::assert_snapshot!("list", show::table(&json!({ "bricks": [sample(), other] })));
    insta::assert_snapshot!("one", show::one(&sample()));
    insta::assert_snapshot!("deleted_app", show::one(&other));
    assert_eq!(show::table(&json!({ "bricks": [] })), "There are no bricks.");
}

#[tokio::test]
async fn each_command_asks_the_server_the_right_thing() {
    let check = async |line: &str, expected: &str| {
        let (url, asked) = server(200, sample());
        run(parse(&format!("{line} --url {url}/")).unwrap()).await.unwrap();
        assert_eq!(asked.lock().unwrap().as_slice(), [expected], "{line}");
    };
    check("list -j", "GET /v2/bricks").await;
    check("show db --json", "GET /v2/bricks/db").await;
    check("delete db -y", "DELETE /v2/bricks/db").await;
    check("delete db --force --yes", "DELETE /v2/bricks/db force=true").await;
    check("fence db --epoch 3 -y", "POST /v2/bricks/db/fence  {\"epoch\":3}").await;
}

#[tokio::test]
async fn errors_say_what_to_do() {
    let check = async |line: &str, expected: &str| {
        let error = run(parse(line).unwrap()).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{line}: {error}");
    };
    check("list --url http://127.0.0.1:1", "is it running? Name another with --url").await;
    check("show ../apps", "is no name of a brick").await;
    check("delete ../apps -y", "is no name of a brick").await;
    check("backup db /tmp/x --work_dir /nowhere", "name the server's directory with --work_dir").await;
    check("backup db /tmp/x --work-dir /nowhere", "name the server's directory with --work_dir").await;
    check("verify /nowhere", "cannot read /nowhere").await;
    let (url, _) = server(409, json!({"message": "brick 'db' is used by app '/db'"}));
    check(&format!("delete db -y --url {url}"), "brick 'db' is used by app '/db'").await;
    let (url, _) = server(422, json!({"message": "Object is not valid", "details": [{"path": "/epoch", "errors": ["is not 3"]}]}));
    check(&format!("fence db --epoch 2 -y --url {url}"), "Object is not valid: is not 3").await;
    let (url, _) = server(502, Value::Null);
    check(&format!("list --url {url}"), "is the address right?").await;
}

#[test]
fn what_is_missing_is_named() {
    for (line, expected) in
        [("fence db", "--epoch"), ("backup db", "<FILE>"), ("restore", "<NAME>"), ("list --bad", "--bad"), ("", "backup")]
    {
        let error = parse(line).unwrap_err();
        assert!(error.contains(expected), "{line}: {error}");
    }
}
