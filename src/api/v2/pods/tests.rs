use serde_json::{Value, json};

use crate::{
    api::testing::{Server, World, app, at, pod, queued},
    model::{
        app::FileSystem,
        brick::{Brick, Reservation, volume_name},
        cluster::TaskState,
        deployment::ActionKind,
        id::{DeploymentId, InstanceId, PathId, TaskId},
        instance::{Condition, ContainerState, Instance, TaskFailure},
        record::Record,
    },
};

fn shop() -> Value {
    json!({
        "id": "/shop/front",
        "networks": [{"mode": "container/bridge"}],
        "scaling": {"kind": "fixed", "instances": 2},
        "containers": [
            {
                "name": "web",
                "resources": {"cpus": 0.5, "mem": 64},
                "exec": {"command": {"shell": "httpd -f"}},
                "endpoints": [{"name": "http", "containerPort": 80}, {"name": "admin", "containerPort": 81, "protocol": ["tcp"]}],
                "healthCheck": {"http": {"endpoint": "http"}},
            },
            {"name": "side", "resources": {"cpus": 0.1, "mem": 32}, "exec": {"command": {"argv": ["sync"]}}},
        ],
    })
}

const FIRST: &str = "shop_front.instance-00000000-0000-0000-0000-000000000001";

/// One instance that is well, one whose side has finished while nothing is known of its health, one that waits for its second launch, one for its first.
fn world() -> World {
    let mut world = World::default();
    world.agent().app(pod(&shop())).app(app("/web")).app(pod(&json!({"id": "/plain", "containers": [{"name": "one", "resources": {}}]})));
    world.instance("/shop/front", 1, Condition::Running, &[31_001, 31_002]).instance(
        "/shop/front",
        2,
        Condition::Running,
        &[31_003, 31_004],
    );
    world.instance("/shop/front", 3, Condition::Scheduled, &[]).instance("/shop/front", 4, Condition::Scheduled, &[]);
    change(&mut world, 1, |instance| {
        instance.checks = vec![crate::model::health::CheckState { first_success: Some(at(20)), ..Default::default() }];
        instance.healthy = Some(true);
    });
    change(&mut world, 2, |instance| {
        instance.containers[1] = ContainerState { condition: Condition::Finished, started_at: Some(at(13)) };
    });
    change(&mut world, 3, |instance| instance.incarnation = 1);
    world.put(Record::Failure(std::sync::Arc::new(TaskFailure {
        app: "/shop/front".parse().unwrap(),
        task: TaskId { container: Some("side".into()), ..task(3) },
        state: TaskState::Failed,
        message: "Container exited with status 1".into(),
        host: "node1".into(),
        agent: "agent-S1".parse().unwrap(),
        timestamp: at(9),
        version: at(0),
    })));
    world.queue(queued("/shop/front"));
    world
}

fn task(number: u128) -> TaskId {
    TaskId::app(InstanceId::new("/shop/front".parse().unwrap(), uuid::Uuid::from_u128(number)), 1)
}

fn change(world: &mut World, number: u128, change: impl FnOnce(&mut Instance)) {
    let mut instance = (*world.view.tables.instances[&task(number).instance]).clone();
    change(&mut instance);
    world.put(Record::Instance(std::sync::Arc::new(instance)));
}

#[tokio::test]
async fn bodies_are_marathons() {
    let server = Server::new(world());
    for (name, line, body) in [
        ("list", "GET /v2/pods", Value::Null),
        ("one", "GET /v2/pods//shop/front", Value::Null),
        ("one_missing", "GET /v2/pods/none", Value::Null),
        ("status", "GET /v2/pods/shop/front::status", Value::Null),
        ("statuses", "GET /v2/pods/::status", Value::Null),
        ("versions", "GET /v2/pods/shop/front::versions", Value::Null),
        ("group", "GET /v2/groups/shop?embed=group.pods", Value::Null),
        ("queue", "GET /v2/queue", Value::Null),
        ("kill_one", &format!("DELETE /v2/pods/shop/front::instances/{FIRST}"), Value::Null),
        ("kill_some", "DELETE /v2/pods/shop/front::instances", json!([FIRST, FIRST])),
        ("create", "POST /v2/pods", json!({"id": "/new", "containers": [{"name": "one", "resources": {}}]})),
        ("exists", "POST /v2/pods", shop()),
        ("app_exists", "POST /v2/pods", json!({"id": "/web", "containers": [{"name": "one", "resources": {}}]})),
        ("update", "PUT /v2/pods/plain", json!({"id": "/plain", "containers": [{"name": "one", "resources": {"mem": 64}}]})),
        ("deployments", "GET /v2/deployments", Value::Null),
        ("other_id", "PUT /v2/pods/plain", shop()),
        ("wrong_types", "POST /v2/pods", json!({"id": "/x", "containers": [{"name": "A", "resources": {"cpus": "1"}}]})),
        ("invalid", "POST /v2/pods", json!({"id": "/x", "containers": [{"name": "a", "resources": {}}, {"name": "a", "resources": {}}]})),
    ] {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        insta::assert_snapshot!(name, server.ask(line, &body).await.show());
    }
}

/// The persistent volume of the first instance; the second one has none yet.
#[tokio::test]
async fn an_instance_shows_its_volumes() {
    let mut world = World::default();
    let db: PathId = "/db".parse().unwrap();
    world.agent().app(pod(&json!({
        "id": db,
        "containers": [{"name": "one", "resources": {}, "volumeMounts": [{"name": "rows", "mountPath": "/rows"}]}],
        "volumes": [{"name": "rows", "persistent": {"size": 100}}],
    })));
    world.instance("/db", 1, Condition::Running, &[]).instance("/db", 2, Condition::Running, &[]);
    let (instance, uuid) = (InstanceId::new(db.clone(), uuid::Uuid::from_u128(1)), uuid::Uuid::from_u128(9));
    let volume = Brick {
        name: volume_name(&db, "rows", uuid),
        app: db,
        container_path: "rows".into(),
        size: 100,
        pool: "datapool".parse().unwrap(),
        file_system: FileSystem::default(),
        owner: world.owner(),
        created_at: at(10),
        home: None,
        epoch: 0,
        lease: None,
        last_mounted: None,
        condemned: false,
        reservation: Some(Reservation { instance, uuid, released_at: None }),
    };
    world.put(Record::Brick(volume.into()));
    let server = Server::new(world);
    let status = server.ask("GET /v2/pods/db::status", "").await.json();
    let shown = json!({"runSpecId": "/db", "containerPath": "rows", "uuid": uuid, "persistenceId": format!("db#rows#{uuid}")});
    let volumes: Vec<&Value> = [0, 1].map(|at| &status["instances"][at]["localVolumes"]).to_vec();
    assert_eq!(volumes, [&json!([shown]), &json!([])]);
    assert_eq!(status["spec"]["volumes"], json!([{"name": "rows", "persistent": {"size": 100, "type": "root", "constraints": []}}]));
}

#[tokio::test]
async fn a_pod_that_a_deployment_ends_is_terminal_since_the_first_that_does() {
    let mut world = World::default();
    let one = |id: &str| pod(&json!({"id": id, "containers": [{"name": "one", "resources": {}}]}));
    world.agent().app(one("/ends")).app(one("/rests")).app(one("/starts"));
    for (id, app, kind, seconds) in [
        ("d1", "/starts", ActionKind::Restart, 1),
        ("d2", "/ends", ActionKind::Stop, 50),
        ("d3", "/ends", ActionKind::Stop, 60),
        ("d4", "/other", ActionKind::Stop, 70),
    ] {
        world.deployment(id, app);
        let mut deployment = (*world.view.tables.deployments[&DeploymentId::new(id)]).clone();
        deployment.steps[1].actions[0].kind = kind;
        deployment.started_at = at(seconds);
        world.put(Record::Deployment(deployment.into()));
    }
    let answer = Server::new(world).ask("GET /v2/pods/::status", "").await.json();
    let shown: Vec<String> = answer.as_array().unwrap().iter().map(|one| format!("{} {}", one["id"], one["status"])).collect();
    assert_eq!(shown, [r#""/ends" "TERMINAL""#, r#""/rests" "DEGRADED""#, r#""/starts" "DEGRADED""#]);
    assert_eq!(answer[0]["statusSince"], json!(at(50)));
}

#[tokio::test]
async fn every_route_has_its_status() {
    let server = Server::new(world());
    let check = async |line: &str, body: &str, status: u16, message: &str| {
        let answer = server.ask(line, body).await;
        assert_eq!(answer.status, status, "{line}: {}", answer.body);
        if !message.is_empty() {
            assert_eq!(answer.message(), message, "{line}");
        }
    };
    check("HEAD /v2/pods", "", 200, "").await;
    check("GET /v2/pods/", "", 200, "").await;
    check("GET /service/marathon/v2/pods/::status", "", 200, "").await;
    check("GET /v2/pods/shop/front", "", 200, "").await;
    check("GET /v2/pods/web", "", 404, "{\"message\": \"pod with /web does not exist\"}").await;
    check("GET /v2/pods/web::status", "", 404, "Pod '/web' does not exist").await;
    check("GET /v2/pods/::versions", "", 404, "").await;
    check("GET /v2/pods/shop/front::nothing", "", 404, "URI not found").await;
    check("GET /v2/pods/none::versions", "", 404, "Pod '/none' does not exist").await;
    check("GET /v2/pods/shop/front::versions/2020-01-31T12:00:00.000Z", "", 200, "").await;
    check("GET /v2/pods/shop/front::versions/2020-01-01T00:00:00.000Z", "", 404, "Pod '/shop/front' does not exist").await;
    check(
        "GET /v2/pods/shop/front::versions/yesterday",
        "",
        422,
        "Invalid timestamp provided 'yesterday'. Expecting ISO-8601 datetime string.",
    )
    .await;
    check("POST /v2/pods/shop/front::status", "", 405, "Method Not Allowed").await;
    check("GET /v2/pods/shop/front::instances", "", 405, "Method Not Allowed").await;
    check("PATCH /v2/pods/shop/front", "{}", 405, "Method Not Allowed").await;
    check("PUT /v2/pods", "[]", 405, "Method Not Allowed").await;
    check("POST /v2/pods", "", 400, "Please specify data in JSON format").await;
    check("POST /v2/pods", "{", 400, "Invalid JSON").await;
    check("POST /v2/pods", "{}", 422, "Invalid JSON").await;
    check("POST /v2/pods", r#"{"id": "x", "containers": [{"name": "a", "resources": {}}]}"#, 422, "Object is not valid").await;
    check("DELETE /v2/pods/none", "", 404, "Pod '/none' does not exist").await;
    check("DELETE /v2/pods/web", "", 404, "Pod '/web' does not exist").await;
    let missing = "shop_front.instance-00000000-0000-0000-0000-000000000009";
    check(&format!("DELETE /v2/pods/none::instances/{FIRST}"), "", 404, "Path '/none' does not exist").await;
    let unknown = format!("Task '{missing}' does not exist");
    check(&format!("DELETE /v2/pods/shop/front::instances/{missing}"), "", 404, &unknown).await;
    check("DELETE /v2/pods/shop/front::instances/nonsense", "", 422, "Object is not valid").await;
    check("DELETE /v2/pods/shop/front::instances", "{}", 422, "Invalid JSON").await;
    check("DELETE /v2/pods/shop/front::instances", "[1]", 422, "Invalid JSON").await;
    check("DELETE /v2/pods/shop/front::instances", &format!("[\"{missing}\"]"), 200, "").await;
    // Pods are no apps.
    check("GET /v2/apps/shop/front", "", 404, "App '/shop/front' does not exist").await;
    check("GET /v2/apps/shop/front/tasks", "", 404, "App '/shop/front' does not exist").await;
    let answer = server.ask("GET /v2/tasks", "").await.json();
    assert_eq!(answer, json!({"tasks": []}));
}

#[tokio::test]
async fn a_change_names_its_deployment() {
    let server = Server::new(world());
    let created = server.ask("POST /v2/pods", r#"{"id": "/new", "containers": [{"name": "one", "resources": {}}]}"#).await;
    let deployment = created.headers["marathon-deployment-id"].to_str().unwrap().to_owned();
    assert!(created.headers["location"].to_str().unwrap().ends_with("/new"));
    assert_eq!(server.ask("GET /v2/deployments", "").await.json()[0]["id"], deployment);
    let deleted = server.ask("DELETE /v2/pods/new?force=true", "").await;
    assert_eq!((deleted.status.as_u16(), deleted.body.as_str()), (202, ""));
    let deployment = deleted.headers["marathon-deployment-id"].to_str().unwrap();
    assert!(deleted.headers["location"].to_str().unwrap().ends_with(&format!("/{deployment}")));
}
