//! `/v2/deployments`.
//!
//! Facts (Marathon 1.11): the list is bare. `DELETE` without `force` starts a deployment that takes the apps back (200 and its id); with `force=true`
//! it only stops: 202 without a body.

use warp::http::{Method, StatusCode};

use super::{seen, submit};
use crate::{
    api::{
        Api, answer,
        call::Call,
        error::{ApiError, ApiResult},
        view,
    },
    model::{
        id::DeploymentId,
        request::{Reply, Request},
    },
};

pub async fn route(api: &Api, call: Call, rest: &[&str]) -> ApiResult {
    match (&call.method, rest) {
        (&Method::GET | &Method::HEAD, []) => {
            let seen = seen(api, &call);
            let list: Vec<_> = seen.deployments().map(|deployment| view::deployment::deployment(&seen, &deployment)).collect();
            Ok(answer::ok(&list))
        }
        (_, []) => Err(ApiError::method(&[Method::GET, Method::HEAD])),
        (&Method::DELETE, [id]) => cancel(api, &call, DeploymentId::new(*id)).await,
        (_, [_]) => Err(ApiError::method(&[Method::DELETE])),
        _ => Err(ApiError::no_route()),
    }
}

async fn cancel(api: &Api, call: &Call, id: DeploymentId) -> ApiResult {
    let force = call.flag("force", false);
    Ok(match submit(api, call, Request::CancelDeployment { id, force }).await? {
        Reply::Deployment { id, version, .. } if !force => answer::deployment(StatusCode::OK, &id, version),
        _ => answer::empty(StatusCode::ACCEPTED),
    })
}

#[cfg(test)]
mod tests {
    use crate::api::testing::{Server, World, app};

    #[tokio::test]
    async fn bodies_are_marathons() {
        let mut world = World::default();
        world.app(app("/web")).deployment("deployment-1", "/web");
        let server = Server::new(world);
        for (name, line) in [
            ("list", "GET /v2/deployments/"),
            ("rolled_back", "DELETE /v2/deployments/deployment-1"),
            ("cancelled", "DELETE /v2/deployments/deployment-1?force=True"),
            ("unknown", "DELETE /v2/deployments/none"),
            ("wrong_method", "PUT /v2/deployments/deployment-1"),
        ] {
            insta::assert_snapshot!(name, server.ask(line, "").await.show());
        }
    }
}
