//! The commands as they are typed, against a server that answers by a script.

use clap::Parser;

use super::*;
use crate::cli::client::testing::Fake;

#[derive(Parser)]
#[command(name = "xtao brick")]
struct Xtao {
    #[command(flatten)]
    arguments: Arguments,
}

fn parse(line: &str) -> Result<Arguments, String> {
    Xtao::try_parse_from(std::iter::once("xtao").chain(line.split_whitespace())).map(|it| it.arguments).map_err(|error| error.to_string())
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
        let server = Fake::always(200, sample());
        run(parse(&format!("{line} --url {}/", server.url)).unwrap()).await.unwrap();
        assert_eq!(server.lines(), ["GET /v2/auth/whoami", expected], "{line}");
    };
    check("list -j", "GET /v2/bricks").await;
    check("show db --json", "GET /v2/bricks/db").await;
    check("delete db -y", "DELETE /v2/bricks/db").await;
    check("delete db --force --yes", "DELETE /v2/bricks/db?force=true").await;
    check("fence db --epoch 3 -y", "POST /v2/bricks/db/fence {\"epoch\":3}").await;
}

#[tokio::test]
async fn errors_say_what_to_do() {
    let check = async |line: &str, expected: &str| {
        let error = run(parse(line).unwrap()).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{line}: {error}");
    };
    check("list --url http://127.0.0.1:1", "(connection refused); is it running, and is that its address?").await;
    check("show ../apps", "is no name of a brick").await;
    check("delete ../apps -y", "is no name of a brick").await;
    check("backup db /tmp/x --work_dir /nowhere", "name the server's directory with --work_dir").await;
    check("backup db /tmp/x --work-dir /nowhere", "name the server's directory with --work_dir").await;
    check("verify /nowhere", "cannot read /nowhere").await;
    let server = Fake::always(409, json!({"message": "brick 'db' is used by app '/db'"}));
    check(&format!("delete db -y --url {}", server.url), "brick 'db' is used by app '/db'").await;
    let server = Fake::always(422, json!({"message": "Object is not valid", "details": [{"path": "/epoch", "errors": ["is not 3"]}]}));
    check(&format!("fence db --epoch 2 -y --url {}", server.url), "Object is not valid: /epoch: is not 3").await;
    let server = Fake::always(502, Value::Null);
    check(&format!("list --url {}", server.url), "is the address right?").await;
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
