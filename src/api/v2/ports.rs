//! `/v2/ports`: the numbers that were allotted for `@PORT`. Ours: `GET` answers `{"ports": [...]}`, `DELETE /v2/ports/{port}` 204, 404 for a port
//! that nobody has, 409 while its app exists; `PUT` with `{"owner": "name"}` hands it over (administrators).

use serde_json::json;
use warp::http::{Method, StatusCode};

use super::{new_owner, seen, submit};
use crate::{
    api::{
        Api, answer,
        call::Call,
        error::{ApiError, ApiResult},
        view::storage,
    },
    model::request::{Possession, Request},
};

pub async fn route(api: &Api, mut call: Call, rest: &[&str]) -> ApiResult {
    let unclaimed = |port| ApiError::not_found(format!("Port {port} is not claimed"));
    match (&call.method, rest) {
        (&Method::GET | &Method::HEAD, []) => {
            let seen = seen(api, &call);
            let ports: Vec<_> = seen.ports().map(|claim| storage::port(&seen, claim)).collect();
            Ok(answer::ok(&json!({ "ports": ports })))
        }
        (_, []) => Err(ApiError::method(&[Method::GET, Method::HEAD])),
        (&Method::GET | &Method::HEAD, [port]) => {
            let seen = seen(api, &call);
            let claim = port.parse().ok().and_then(|port| seen.port(port)).ok_or_else(|| unclaimed(port))?;
            Ok(answer::ok(&storage::port(&seen, claim)))
        }
        (&Method::DELETE, [port]) => {
            let port = port.parse().map_err(|_| unclaimed(port))?;
            submit(api, &call, Request::ReleasePort { port }).await?;
            Ok(answer::empty(StatusCode::NO_CONTENT))
        }
        (&Method::PUT, [port]) => {
            let number = port.parse().map_err(|_| unclaimed(port))?;
            let owner = new_owner(&call.json().await?)?;
            submit(api, &call, Request::HandOver { what: Possession::Port(number), owner }).await?;
            let seen = seen(api, &call);
            let claim = seen.port(number).ok_or_else(|| unclaimed(port))?;
            Ok(answer::ok(&storage::port(&seen, claim)))
        }
        (_, [_]) => Err(ApiError::method(&[Method::GET, Method::HEAD, Method::PUT, Method::DELETE])),
        _ => Err(ApiError::no_route()),
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        api::testing::{Server, World, app},
        model::port::Position,
    };

    #[tokio::test]
    async fn claims_are_shown_and_released() {
        let mut world = World::default();
        world.app(app("/testdb")).claim(1066, "/testdb", Position::Env(0)).claim(31_067, "/gone", Position::PortMapping(1));
        let server = Server::new(world);
        for (name, line) in [
            ("list", "GET /v2/ports"),
            ("one", "GET /v2/ports/1066"),
            ("used", "DELETE /v2/ports/1066"),
            ("released", "DELETE /v2/ports/31067"),
            ("unclaimed", "DELETE /v2/ports/31068"),
            ("no_port", "DELETE /v2/ports/70000"),
        ] {
            insta::assert_snapshot!(name, server.ask(line, "").await.show());
        }
    }
}
