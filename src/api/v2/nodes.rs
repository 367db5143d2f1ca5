//! `/v2/nodes`: every node that is remembered, from the snapshot, and what it says of itself. Ours; Marathon leaves this to Mesos.

use serde_json::json;

use super::{reads_only, seen};
use crate::{
    api::{Api, answer, call::Call, error::ApiResult, view::node},
    runtime::node::NodeFacts,
};

pub async fn route(api: &Api, call: &Call) -> ApiResult {
    reads_only(call)?;
    let seen = seen(api, call);
    let mut used = node::used(&seen);
    let mut nodes = Vec::new();
    for agent in seen.agents() {
        let facts: Option<NodeFacts> = match &api.nodes {
            Some(access) => access.facts(&agent.id).await,
            None => None,
        };
        nodes.push(node::node(&seen, agent, &used.remove(&agent.id).unwrap_or_default(), facts.as_ref()));
    }
    Ok(answer::ok(&json!({ "nodes": nodes })))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::{
        api::testing::{Node, Server, World, app, at},
        model::instance::Condition,
    };

    fn world() -> World {
        let mut world = World::default();
        world.agent().app(app("/web")).app(app("/db"));
        world.instance("/web", 1, Condition::Running, &[31_001]).instance("/web", 2, Condition::Staging, &[31_000]);
        world.instance("/db", 3, Condition::Failed, &[31_002]).instance("/db", 4, Condition::Scheduled, &[]);
        world.view.connected_to = Some("docker@node1".into());
        world.view.connected_since = Some(at(1));
        world.view.heard_of.insert("agent-S1".parse().unwrap(), at(9));
        world
    }

    #[tokio::test]
    async fn nodes_are_shown_with_what_they_have_and_what_is_used() {
        let mut server = Server::new(world());
        insta::assert_snapshot!("unasked", server.ask("GET /v2/nodes", "").await.show());
        server.set_nodes(Arc::new(Node::default()));
        insta::assert_snapshot!("asked", server.ask("GET /v2/nodes/", "").await.show());
        assert_eq!(server.ask("POST /v2/nodes", "{}").await.status, 405);
        assert_eq!(server.ask("GET /v2/nodes/agent-S1", "").await.status, 404);
        insta::assert_snapshot!("none", Server::new(World::default()).ask("GET /v2/nodes", "").await.show());
    }
}
