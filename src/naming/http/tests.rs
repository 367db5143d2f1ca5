use hyper_util::service::TowerToHyperService;
use warp::http::{Request, StatusCode};

use super::*;
use crate::naming::{fixture::World, tests::Served};

fn world() -> World {
    let mut world = World::default();
    world.agent("x-S0", &["10.0.0.1", "fd00::1"]);
    world.app("/shop/db", "bridge", &["sql:5432/tcp@host"]);
    world.run("/shop/db", 1, "x-S0", &["172.17.0.5"], &[31500]);
    world.app("/web", "host", &["0/tcp"]);
    world.run("/web", 2, "x-S0", &["10.0.0.1"], &[31000]);
    world
}

async fn get(served: &Served, path: &str) -> (StatusCode, String) {
    let response = call(&routes(&served.running), path).await;
    let status = response.status();
    let mut body = std::pin::pin!(response.into_body());
    let mut bytes = Vec::new();
    while let Some(frame) = std::future::poll_fn(|context| hyper::body::Body::poll_frame(body.as_mut(), context)).await {
        bytes.extend_from_slice(&frame.unwrap().into_data().unwrap_or_default());
    }
    (status, String::from_utf8(bytes).unwrap())
}

async fn call(routes: &BoxedFilter<(Response,)>, path: &str) -> Response {
    let service = TowerToHyperService::new(warp::service(routes.clone()));
    let request = Request::get(path).body(String::new()).unwrap();
    hyper::service::Service::call(&service, request).await.unwrap()
}

#[tokio::test]
async fn hosts_and_services_are_found() {
    let served = Served::new(world(), |_| {}).await;
    let mut shown = String::new();
    for path in [
        "/v1/hosts/marathon.mesos",
        "/v1/hosts/DB-shop.marathon.slave.mesos.",
        "/v1/hosts/db-shop.*.marathon.mesos",
        "/v1/hosts/none.marathon.mesos",
        "/v1/hosts/db-shop.marathon.mesos/ports",
        "/v1/services/_DB.shop._tcp.marathon.mesos.",
        "/v1/services/_none._tcp.marathon.mesos",
        "/v1/nothing",
    ] {
        let (status, body) = get(&served, path).await;
        shown.push_str(&format!("GET {path} -> {status}\n{body}\n\n"));
    }
    insta::assert_snapshot!(shown);
    served.stop();
}

#[tokio::test]
async fn the_whole_zone_is_listed() {
    let served = Served::new(world(), |_| {}).await;
    let mut shown = String::new();
    for path in ["/v1/version", "/v1/enumerate", "/v1/axfr"] {
        let (status, body) = get(&served, path).await;
        let value: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(body, pretty(&value, 0), "pieces fit together");
        let serial = served.running.zone.load().serial().to_string();
        shown.push_str(&format!("GET {path} -> {status}\n{}\n\n", body.replace(&serial, "SERIAL")));
    }
    insta::assert_snapshot!(shown);
    served.stop();
}

#[tokio::test]
async fn settings_are_told_as_mesos_dns_tells_them() {
    let served = Served::new(world(), |_| {}).await;
    let (status, body) = get(&served, "/v1/config").await;
    assert_eq!(status, StatusCode::OK);
    let value: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((&value["SOAMname"], &value["TTL"], &value["HttpPort"]), (&json!("ns1.mesos."), &json!(60), &json!(8123)));
    assert_eq!(value["Port"], json!(served.running.addresses[0].port()));
    served.stop();
}

#[tokio::test]
async fn a_large_zone_comes_in_pieces_and_an_empty_one_is_whole_too() {
    let mut large = world();
    for number in 0..300_u128 {
        large.run("/web", 100 + number, "x-S0", &["10.0.0.1"], &[31000]);
        large.run(&format!("/app-{number}"), number, "x-S0", &["10.0.0.1"], &[]);
    }
    for (world, tasks, names) in [(large, 602, 301 * 4 + 300 * 4 + 4), (World::default(), 0, 0)] {
        let served = Served::new(world, |_| {}).await;
        let read = |body: String| serde_json::from_str::<Value>(&body).unwrap();
        let all = read(get(&served, "/v1/enumerate").await.1);
        assert_eq!(all["frameworks"][0]["tasks"].as_array().unwrap().len(), tasks);
        let all = read(get(&served, "/v1/axfr").await.1);
        assert!(all["Records"]["As"].as_object().unwrap().len() >= names / 2);
        served.stop();
    }
}

#[tokio::test]
async fn few_read_the_whole_zone_at_once() {
    let served = Served::new(world(), |_| {}).await;
    let routes = routes(&served.running);
    let first = call(&routes, "/v1/axfr").await;
    let second = call(&routes, "/v1/axfr").await;
    assert_eq!(call(&routes, "/v1/axfr").await.status(), StatusCode::SERVICE_UNAVAILABLE);
    drop((first, second));
    assert_eq!(call(&routes, "/v1/axfr").await.status(), StatusCode::OK);
    served.stop();
}
