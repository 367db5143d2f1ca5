//! `/v2/bricks`: storage that outlives its app. Ours: `GET` answers `{"bricks": [...]}`, `GET /v2/bricks/{name}` one of them,
//! `PUT` of it with `{"owner": "name"}` hands it over (administrators), `DELETE /v2/bricks/{name}` 204 (409 while an app uses it; `force=true` never
//! overrides a live holder), `POST /v2/bricks/{name}/fence` with `{"epoch": n}` 204: an administrator's word that the holder of that lease is certainly gone.

use serde_json::{Value, json};
use warp::http::{Method, StatusCode};

use super::{new_owner, seen, submit};
use crate::{
    api::{
        Api, answer,
        call::Call,
        error::{ApiError, ApiResult},
        view::storage,
    },
    model::{
        id::BrickName,
        request::{Possession, Request, RequestError, Violation},
    },
};

pub async fn route(api: &Api, mut call: Call, rest: &[&str]) -> ApiResult {
    match (&call.method, rest) {
        (&Method::GET | &Method::HEAD, []) => {
            let seen = seen(api, &call);
            let bricks: Vec<_> = seen.bricks().map(|brick| storage::brick(&seen, brick)).collect();
            Ok(answer::ok(&json!({ "bricks": bricks })))
        }
        (_, []) => Err(ApiError::method(&[Method::GET, Method::HEAD])),
        (&Method::GET | &Method::HEAD, [name]) => one(api, &call, BrickName::new(*name)),
        (&Method::DELETE, [name]) => {
            let request = Request::ReleaseBrick { brick: BrickName::new(*name), force: call.flag("force", false) };
            submit(api, &call, request).await?;
            Ok(answer::empty(StatusCode::NO_CONTENT))
        }
        (&Method::PUT, [name]) => {
            let (brick, owner) = (BrickName::new(*name), new_owner(&call.json().await?)?);
            submit(api, &call, Request::HandOver { what: Possession::Brick(brick.clone()), owner }).await?;
            one(api, &call, brick)
        }
        (_, [_]) => Err(ApiError::method(&[Method::GET, Method::HEAD, Method::PUT, Method::DELETE])),
        (&Method::POST, [name, "fence"]) => {
            let epoch = epoch(&call.json().await?)?;
            submit(api, &call, Request::FenceBrick { brick: BrickName::new(*name), epoch }).await?;
            Ok(answer::empty(StatusCode::NO_CONTENT))
        }
        (_, [_, "fence"]) => Err(ApiError::method(&[Method::POST])),
        _ => Err(ApiError::no_route()),
    }
}

fn one(api: &Api, call: &Call, name: BrickName) -> ApiResult {
    let seen = seen(api, call);
    let brick = seen.brick(&name).ok_or_else(|| ApiError::from(RequestError::NoBrick(name)))?;
    Ok(answer::ok(&storage::brick(&seen, brick)))
}

fn epoch(body: &Value) -> Result<u64, ApiError> {
    let wrong = |text| ApiError::wrong_types(&[Violation::new("/epoch", text)]);
    match body.get("epoch") {
        None => Err(wrong("error.path.missing")),
        Some(epoch) => epoch.as_u64().ok_or_else(|| wrong("error.expected.jsnumber")),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        api::testing::{Server, World, app, at},
        core::state::BrickUsage,
        model::{
            app::FileSystem,
            brick::{Brick, Lease, brick_name},
            id::{InstanceId, Owner, TaskId},
            record::Record,
        },
    };

    fn world() -> World {
        let mut world = World::default();
        world.app(app("/testdb")).agent();
        let brick = |id: &str, lease: Option<Lease>| Brick {
            name: brick_name(&id.parse().unwrap(), "/var/lib/data"),
            app: id.parse().unwrap(),
            container_path: "/var/lib/data".into(),
            size: 131_072,
            pool: "datapool".parse().unwrap(),
            file_system: FileSystem::Ext4,
            owner: Owner::default_owner(),
            created_at: at(0),
            home: lease.as_ref().map(|lease| lease.agent.clone()),
            epoch: if lease.is_some() { 3 } else { 0 },
            last_mounted: lease.as_ref().map(|_| at(8)),
            lease,
            condemned: false,
            reservation: None,
        };
        let task = TaskId::app(InstanceId::new("/testdb".parse().unwrap(), uuid::Uuid::from_u128(1)), 2);
        let held = brick("/testdb", Some(Lease { task, agent: "agent-S1".parse().unwrap(), epoch: 3 }));
        let usage = BrickUsage { used: Some(40), size: Some(131_000), stuck: Some("the device is still in use".into()) };
        world.view.brick_usage.insert(held.name.clone(), Arc::new(usage));
        world.put(Record::Brick(Arc::new(held))).put(Record::Brick(Arc::new(brick("/gone", None))));
        world
    }

    #[tokio::test]
    async fn bricks_are_shown_released_and_fenced() {
        let server = Server::new(world());
        let name = brick_name(&"/testdb".parse().unwrap(), "/var/lib/data");
        for (snapshot, line, body) in [
            ("list", "GET /v2/bricks".to_owned(), ""),
            ("one", format!("GET /v2/bricks/{name}"), ""),
            ("unknown", "GET /v2/bricks/none".into(), ""),
            ("released", format!("DELETE /v2/bricks/{name}?force=true"), ""),
            ("fenced", format!("POST /v2/bricks/{name}/fence"), r#"{"epoch": 3}"#),
            ("fence_without_epoch", format!("POST /v2/bricks/{name}/fence"), "{}"),
            ("fence_with_text", format!("POST /v2/bricks/{name}/fence"), r#"{"epoch": "3"}"#),
        ] {
            insta::assert_snapshot!(snapshot, server.ask(&line, body).await.show());
        }
        let requests = server.requests.lock().unwrap();
        assert_eq!(*requests, [Request::ReleaseBrick { brick: name.clone(), force: true }, Request::FenceBrick { brick: name, epoch: 3 }]);
    }
}
