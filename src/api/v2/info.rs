//! `/v2/info`, `/v2/leader`, `/v2/plugins`.
//!
//! Facts (Marathon 1.11): `/v2/info` is the one body with nulls. (Ours:) `embed=engine` adds what containers run on; typed clients fail on a key that
//! they do not know, so it is not there unasked. The existing web page starts polling only when `/v2/plugins` has answered, and needs
//! `{"plugins": []}`. `DELETE /v2/leader` is answered, and half a second later the leader gives up, which ends the process; whoever supervises it starts it
//! again. With `backup` or `restore` the next leader would save or restore what is kept; nothing like it exists here, and 422 says so.

use std::time::Duration;

use serde_json::{Map, Value, json};
use warp::http::Method;

use super::{origin, reads_only};
use crate::api::{
    Api,
    access::Seen,
    answer,
    call::Call,
    error::{ApiError, ApiResult},
    view::node,
};
use crate::model::request::RequestError;

pub async fn info(api: &Api, call: &Call) -> ApiResult {
    reads_only(call)?;
    let info = &api.info;
    let seen = super::seen(api, call);
    let mut marathon_config = info.marathon_config.clone();
    marathon_config.insert("framework_name".into(), info.framework_name.as_str().into());
    let mut fields = json!({
        "name": "marathon",
        "version": info.version,
        "buildref": info.build_ref,
        "elected": true,
        "leader": info.leader,
        "frameworkId": seen.framework_id(),
        "marathon_config": marathon_config,
        "zookeeper_config": info.zookeeper_config,
        "http_config": info.http_config,
    });
    if call.query.all("embed").any(|value| value == "engine") {
        fields["engines"] = engines(api, &seen).await;
    }
    Ok(answer::ok(&fields))
}

/// By node: what containers run on.
async fn engines(api: &Api, seen: &Seen) -> Value {
    let mut engines = Map::new();
    for agent in seen.agents() {
        if let Some(access) = &api.nodes
            && let Some(facts) = access.facts(&agent.id).await
        {
            engines.insert(agent.host.to_string(), node::engine(&facts));
        }
    }
    Value::Object(engines)
}

/// From the answer of `DELETE /v2/leader` to the end.
const ABDICATION_DELAY: Duration = Duration::from_millis(500);

pub fn leader(api: &Api, call: &Call) -> ApiResult {
    if call.method == Method::DELETE {
        return abdicate(api, call);
    }
    if !call.is_read() {
        return Err(ApiError::method(&[Method::GET, Method::HEAD, Method::DELETE]));
    }
    Ok(answer::ok(&json!({ "leader": api.info.leader })))
}

fn abdicate(api: &Api, call: &Call) -> ApiResult {
    if !origin(call).admin {
        return Err(RequestError::Forbidden.into());
    }
    if let Some(name) = ["backup", "restore"].into_iter().find(|name| call.query.first(name).is_some()) {
        let text =
            format!("{name}: this server keeps its state in its work directory alone, and neither saves nor restores it on this way");
        return Err(ApiError::unprocessable(text));
    }
    let resign = api.resign.clone();
    tokio::spawn(async move {
        tokio::time::sleep(ABDICATION_DELAY).await;
        resign.notify_one();
    });
    Ok(answer::ok(&json!({ "message": "Leadership abdicated" })))
}

pub fn plugins(call: &Call, rest: &[&str]) -> ApiResult {
    if let [plugin, ..] = rest {
        return Err(ApiError::not_found(format!("No plugin with this pluginId: {plugin}")));
    }
    reads_only(call)?;
    Ok(answer::ok(&json!({ "plugins": [] })))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::api::testing::{Node, Server, World};

    #[tokio::test]
    async fn bodies_are_marathons() {
        let mut world = World::default();
        world.agent();
        let mut server = Server::new(world);
        server.set_nodes(Arc::new(Node::default()));
        for (name, line) in [
            ("info", "GET /v2/info"),
            ("info_with_engines", "GET /v2/info?embed=engine"),
            ("leader", "GET /v2/leader"),
            ("plugins", "GET /v2/plugins/"),
            ("no_plugin", "GET /v2/plugins/x/main.js"),
            ("no_backup", "DELETE /v2/leader?backup=file:///backup.tar"),
            ("no_such_method", "PUT /v2/leader"),
        ] {
            insta::assert_snapshot!(name, server.ask(line, "").await.show());
        }
    }

    #[tokio::test]
    async fn leadership_is_given_up_by_administrators_after_the_answer() {
        let server = Server::new(World::default());
        let resigned = server.api.resign.clone();
        assert_eq!(server.ask_as("anna", "DELETE /v2/leader", "").await.status, 403);
        let answer = server.ask("DELETE /v2/leader", "").await;
        assert_eq!((answer.status.as_u16(), &*answer.message()), (200, "Leadership abdicated"));
        resigned.notified().await;
    }
}
