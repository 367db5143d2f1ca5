//! The commands as they are typed, against a server that answers by a script, and the screens that they show.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use super::*;
use crate::cli::{
    client::{
        Credentials,
        testing::{Answer, Asked, Fake, answer},
    },
    compute::{self, Manner},
    program::Failure as _,
    words,
};

async fn ask(server: &Fake, line: &str) -> Result<(), Error> {
    let client = Client::at(&server.url, Credentials::None, None).unwrap();
    let words = std::iter::once("xtcli-compute".to_owned()).chain(words::split(&format!("mgmt {line}")).unwrap());
    let cli = compute::parse(words)?;
    let Some(compute::Command::Mgmt(command)) = cli.command else { panic!("no command of ours: {line}") };
    compute::run(*command, &Context { client: &client, manner: Manner { yes: true, ..cli.manner } }).await
}

/// An app with a deployment that the second look does not find any more.
fn deploying() -> impl Fn(&Asked) -> Answer + Send + Sync + 'static {
    let looks = Arc::new(AtomicUsize::new(0));
    move |asked| match asked.line.as_str() {
        line if line.starts_with("GET /v2/events") => answer(
            200,
            "event: status_update_event\r\ndata: {\"appId\": \"/testdb\", \"taskStatus\": \"TASK_RUNNING\", \"host\": \"node1\"}\r\n\r\n\
             event: deployment_success\r\ndata: {\"id\": \"d1\"}\r\n\r\n",
        ),
        "POST /v2/apps" => answer(
            201,
            json!({"id": "/testdb", "deployments": [{"id": "d1"}], "endpoints": [{"host": "testdb.marathon.mesos", "port": 1066}]}),
        ),
        line if line.starts_with("GET /v2/apps/testdb/tasks") => answer(200, json!({"tasks": [{"id": "testdb.instance-7f00ab._app.2"}]})),
        line if line.starts_with("GET /v2/apps/testdb") => {
            let deployments = if looks.fetch_add(1, Ordering::Relaxed) == 0 { json!([{"id": "d1"}]) } else { json!([]) };
            answer(200, json!({"app": {"id": "/testdb", "deployments": deployments, "instances": 1, "tasksRunning": 1}}))
        }
        line if line.contains("/logs?") => answer(200, "line 1\nline 2"),
        _ => answer(200, json!({"version": "v", "deploymentId": "d1"})),
    }
}

#[tokio::test]
async fn each_command_asks_the_server_the_right_thing() {
    let check = async |line: &str, expected: &[&str]| {
        let server = Fake::start(deploying());
        ask(&server, line).await.unwrap();
        let asked: Vec<String> = server.lines().into_iter().filter(|line| !line.contains("/v2/events")).collect();
        assert_eq!(asked, expected, "{line}");
    };
    check("service scale testdb 3", &["PATCH /v2/apps/testdb {\"instances\":3}"]).await;
    check("service scale testdb 3 --force", &["PATCH /v2/apps/testdb?force=true {\"instances\":3}"]).await;
    check("service restart testdb", &["POST /v2/apps/testdb/restart {}"]).await;
    check("service restart testdb --force", &["POST /v2/apps/testdb/restart?force=true {}"]).await;
    check("service destroy testdb", &["DELETE /v2/apps/testdb"]).await;
    check("service destroy shop/web --detach", &["DELETE /v2/apps/shop/web"]).await;
    check("service update --id testdb --mem 64", &["GET /v2/apps/testdb", "PATCH /v2/apps/testdb {\"mem\":64}"]).await;
    let forced = ["GET /v2/apps/testdb", "PATCH /v2/apps/testdb?force=true {\"mem\":64}"];
    check("service update --id testdb --mem 64 --force", &forced).await;
    check("service update --id testdb --mem 64 --dry-run", &["GET /v2/apps/testdb"]).await;
    check(
        "service --id testdb --image i --cpu 0.5",
        &["POST /v2/apps {\"id\":\"/testdb\",\"instances\":1,\"cpus\":0.5,\"networks\":[{\"mode\":\"host\"}],\
          \"container\":{\"type\":\"DOCKER\",\"docker\":{\"image\":\"i\"},\"volumes\":[]}}"],
    )
    .await;
    let logs = "GET /v2/tasks/testdb.instance-7f00ab._app.2/logs?stream=";
    check("service logs testdb", &["GET /v2/apps/testdb/tasks", &format!("{logs}stdout&follow=false")]).await;
    check("service logs testdb -f --stderr --tail 5 --task testdb.instance-7f00ab._app.2", &[&format!("{logs}stderr&tail=5&follow=true")])
        .await;
    check(
        "brick restore db Cargo.toml",
        &["GET /v2/bricks/db", &format!("PUT /v2/bricks/db/backup {}", include_str!("../../../../Cargo.toml").trim_end())],
    )
    .await;
    check("brick release db --force", &["DELETE /v2/bricks/db?force=true"]).await;
    check("brick show a/b", &["GET /v2/bricks/a%2Fb"]).await;
    check("port release 1066", &["DELETE /v2/ports/1066"]).await;
    check("user quota zmfsea", &["GET /v2/auth/users/zmfsea/quota"]).await;
    let quota = "/v2/auth/users/zmfsea/quota";
    check("user quota zmfsea --cpu 8 --ports none", &[&format!("GET {quota}"), &format!("PUT {quota} {{\"cpus\":8}}")]).await;
}

#[test]
fn what_would_be_sent_is_said_without_any_server() {
    let check = |line: &str, expected: Result<bool, &str>| {
        let words = std::iter::once("xtcli-compute".to_owned()).chain(words::split(&format!("mgmt {line}")).unwrap());
        let Some(compute::Command::Mgmt(mgmt)) = compute::parse(words).unwrap().command else { panic!("no command of ours: {line}") };
        let compute::Mgmt::Service(arguments) = *mgmt else { panic!("nothing about services: {line}") };
        assert_eq!(without_server(&arguments).map_err(|error| error.to_string()), expected.map_err(str::to_owned), "{line}");
    };
    check("service --id testdb --image i --dry-run", Ok(true));
    check("service --id testdb --dry-run", Err("--image: is missing: name the image to run, such as postgresql:latest"));
    check("service --id testdb --image i", Ok(false));
    // What there is has to be asked for.
    check("service update --id testdb --mem 64 --dry-run", Ok(false));
}

#[tokio::test]
async fn a_backup_is_a_file_of_its_owner_alone_and_replaces_none() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("db.brick");
    let server = Fake::start(|_| answer(200, "data"));
    let line = format!("brick backup db {} --freeze", file.display());
    ask(&server, &line).await.unwrap();
    assert_eq!(server.lines(), ["GET /v2/bricks/db/backup?freeze=true"]);
    assert_eq!(std::fs::read(&file).unwrap(), b"data");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let error = ask(&server, &line).await.unwrap_err().to_string();
    assert!(error.contains("exists: name another file, or replace it with --force"), "{error}");
    ask(&server, &format!("{line} --force")).await.unwrap();
    let refusing = Fake::always(409, json!({"message": "brick 'db' is in use"}));
    ask(&refusing, &format!("{line} --force")).await.unwrap_err();
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "no part of a file is left");
}

#[tokio::test]
async fn refusals_are_explained() {
    let check = async |line: &str, script: fn(&Asked) -> Answer, expected: &str, code: u8| {
        let error = ask(&Fake::start(script), line).await.unwrap_err();
        assert_eq!((error.to_string().as_str(), error.exit_code()), (expected, code), "{line}");
    };
    let exists = |asked: &Asked| match asked.line.as_str() {
        "POST /v2/apps" => answer(409, json!({"message": "An app with id [/web] already exists."})),
        _ => answer(200, json!({"app": {"id": "/web"}})),
    };
    let taken = |asked: &Asked| match asked.line.as_str() {
        "POST /v2/apps" => answer(409, json!({"message": "the id '/web' is taken"})),
        _ => answer(404, json!({"message": "App '/web' does not exist"})),
    };
    let create = "service --id web --image i";
    check(
        create,
        exists,
        "service 'web' is there already: 'mgmt service update --id web ...' changes it, 'mgmt service destroy web' ends it",
        1,
    )
    .await;
    check(create, taken, "the id '/web' is taken", 1).await;
    check("service show web", taken, "App '/web' does not exist", 1).await;
    check(
        "service scale web 2",
        |_| answer(403, json!({"message": "Not Authorized to perform this action!"})),
        "Not Authorized to perform this action!",
        4,
    )
    .await;
    check("service scale web -1", |_| answer(500, ""), "N: '-1' is no number of instances: 0, 1, 2 ...", 2).await;
    check("service scale web two", |_| answer(500, ""), "N: 'two' is no number of instances: 0, 1, 2 ...", 2).await;
    let locked = |_: &Asked| {
        let message = "App is locked by one or more deployments. Override with the option '?force=true'. View details at ...";
        answer(409, json!({ "message": message, "deployments": [{ "id": "d1" }] }))
    };
    let expected =
        "an earlier change to service 'web' is still under way: 'mgmt service show web' tells how far it is, --force gives it up";
    check("service scale web 2", locked, expected, 1).await;
    check("service restart web", locked, expected, 1).await;
    let held = |_: &Asked| answer(200, json!({"app": "/web", "holder": {"task": "web.instance-1._app.1", "host": "node1"}}));
    let expected = "brick 'db' is mounted by web.instance-1._app.1 on node1: stop its service first, with 'mgmt service scale web 0'";
    check("brick restore db Cargo.toml", held, expected, 1).await;
    check(
        "service --id web list",
        |_| answer(500, ""),
        "what describes a service does not go before another command: give its options behind the command",
        2,
    )
    .await;
    let failed = |asked: &Asked| match asked.line.as_str() {
        line if line.starts_with("GET /v2/events") => {
            answer(200, "event: deployment_failed\ndata: {\"id\": \"d1\", \"reason\": \"cancelled\"}\n\n")
        }
        _ => answer(200, json!({"deploymentId": "d1"})),
    };
    check("service restart web", failed, "the change was taken back: cancelled", 1).await;
    // Also who waits for no time at all learns what it waits for, and that it is done.
    let late = |asked: &Asked| match asked.line.as_str() {
        line if line.starts_with("GET /v2/events") => answer(503, json!({"message": "too many event streams are open"})),
        "GET /v2/apps/web" => answer(200, json!({"app": {"id": "/web", "deployments": [{"id": "d1"}]}})),
        "GET /v2/queue" => {
            let summary = json!({"rejectSummaryLastOffers": [{"reason": "InsufficientMemory", "declined": 1}]});
            answer(200, json!({"queue": [{"app": {"id": "/web", "mem": 999_999}, "processedOffersSummary": summary}]}))
        }
        _ => answer(200, json!({"deploymentId": "d1"})),
    };
    check(
        "service restart web --timeout 0",
        late,
        "service 'web' is not done within 0 s (1 node: has not 999999 MB of memory left); it goes on, and 'mgmt service show web' tells how far it is",
        5,
    )
    .await;
    let done = move |asked: &Asked| match asked.line.as_str() {
        "GET /v2/apps/web" => answer(200, json!({"app": {"id": "/web", "deployments": []}})),
        _ => late(asked),
    };
    ask(&Fake::start(done), "service restart web --timeout 0").await.unwrap();
    let tasks = |_: &Asked| answer(200, json!({"tasks": [{"id": "web.instance-1._app.1"}, {"id": "web.instance-2._app.1"}]}));
    check(
        "service exec web -- true",
        tasks,
        "service 'web' has 2 tasks: name one with --task\n  web.instance-1._app.1\n  web.instance-2._app.1",
        1,
    )
    .await;
    check(
        "service exec web -- true",
        |_| answer(200, json!({"tasks": []})),
        "service 'web' has no running task; 'mgmt service show web' says why",
        1,
    )
    .await;
    check(
        "service logs web",
        |asked| if asked.line.ends_with("tasks") { answer(200, json!({"tasks": []})) } else { answer(200, json!({"app": {}})) },
        "service 'web' has no task yet, and so no output",
        1,
    )
    .await;
}

fn app(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn services_are_shown_for_people() {
    let testdb = json!({
        "id": "/testdb", "instances": 1, "cpus": 0.5, "mem": 512, "tasksRunning": 0, "tasksUnhealthy": 0, "version": "2020-01-31T12:00:00.000Z",
        "container": {"docker": {"image": "zmfsea/cmp-postgresql"}, "volumes": [
            {"containerPath": "/var/lib/data", "mode": "RW", "brick": {"size": 131_072, "pool": "datapool"}},
            {"containerPath": "/etc/conf", "hostPath": "/etc/my_conf", "mode": "RO"}]},
        "env": {"DBUSER": "zmfsea", "DBPASSWD": "123456", "DBPORT": "@PORT"},
        "constraints": [["hostname", "CLUSTER", "node1"]],
        "deployments": [{"id": "d1"}],
        "endpoints": [{"name": "DBPORT", "host": "testdb.marathon.mesos", "port": 1066, "protocol": "tcp", "containerPort": 1066},
                      {"name": "http", "host": "testdb.marathon.mesos", "protocol": "tcp", "containerPort": 80}],
        "lastTaskFailure": {"timestamp": "2020-01-31T12:00:09.000Z", "host": "node1", "message": "exit status 1"},
        "tasks": [{"id": "testdb.instance-7f00ab._app.2", "state": "TASK_STAGING", "host": "node1", "ports": [31_001, 31_002]}],
    });
    let queued = json!({"app": {"id": "/testdb"}, "reason": "brick 'b' is held", "delay": {"timeLeftSeconds": 0}});
    insta::assert_snapshot!("show", show::one(&testdb, Some(&queued)));
    insta::assert_snapshot!("show_least", show::one(&json!({"id": "/x", "instances": 0}), None));
    let mut other = testdb.clone();
    for (key, value) in [
        ("id", json!("/shop/web")),
        ("deployments", json!([])),
        ("instances", json!(3)),
        ("tasksRunning", json!(2)),
        ("endpoints", json!([])),
        ("container", Value::Null),
    ] {
        other[key] = value;
    }
    let list = |apps: Value| show::list(&serde_json::from_value(json!({ "apps": apps })).unwrap());
    insta::assert_snapshot!("list", list(json!([testdb, other])));
    assert_eq!(list(json!([])), "There are no services.");
}

#[test]
fn events_are_shown_a_line_each() {
    let line = |kind: &str, text: &str| show::event(kind, &app(text));
    let lines = [
        line(
            "status_update_event",
            r#"{"timestamp": "T", "appId": "/web", "taskStatus": "TASK_FAILED", "host": "node1", "message": "exit 1"}"#,
        ),
        line("instance_changed_event", r#"{"timestamp": "T", "runSpecId": "/web", "condition": "Provisioned", "host": "node1"}"#),
        line("instance_health_changed_event", r#"{"timestamp": "T", "runSpecId": "/web", "healthy": false}"#),
        line(
            "deployment_success",
            r#"{"timestamp": "T", "id": "d1", "plan": {"steps": [{"actions": [{"action": "StartApplication", "app": "/web"}]}]}}"#,
        ),
        line("event_stream_attached", r#"{"timestamp": "T", "remoteAddress": "127.0.0.1"}"#),
        line("odd", "null"),
    ];
    insta::assert_snapshot!("events", lines.join("\n"));
}

#[test]
fn the_answer_is_the_manuals() {
    let place = show::place(&json!({"endpoints": [{"name": "DBPORT", "host": "testdb.marathon.mesos", "port": 1066}]})).unwrap();
    assert_eq!(pretty(&place), "{\n    \"host\": \"testdb.marathon.mesos\",\n    \"port\": 1066\n}");
    assert_eq!(show::place(&json!({"endpoints": [{"host": "x"}]})), None);
    assert_eq!(show::place(&json!({})), None);
}

#[test]
fn tasks_are_told_apart_by_the_end_of_their_ids() {
    assert_eq!(short("testdb.instance-4a54e2e3-b243-11e8-8b80-024247c0a575._app.2"), "c0a575.2");
    assert_eq!(short("x"), "x.1");
}
