//! `/v2/groups`, read only.
//!
//! Facts (Marathon 1.11): `GET /v2/groups` is the root; `/v2/groups/{id}/apps` lists the group's apps. The existing web page polls
//! `/v2/groups?embed=group.groups&embed=group.apps&...` for its lists. Groups come and go with their apps; changing them is not supported (405).

use super::{path_id, reads_only, seen};
use crate::api::{
    Api, answer,
    call::Call,
    error::{ApiError, ApiResult},
    view::{
        app::Context,
        group::{self, GroupEmbed},
    },
    wall,
};

pub fn route(api: &Api, call: &Call, rest: &[&str]) -> ApiResult {
    reads_only(call)?;
    let seen = seen(api, call);
    let context = Context::new(&seen, &api.info, wall());
    let embed = GroupEmbed::read(&call.query);
    let find = |segments: &[&str]| {
        let id = path_id(segments).map_err(ApiError::no_group)?;
        group::group(&seen, &context, &id, embed).ok_or_else(|| ApiError::no_group(id))
    };
    match rest {
        [group @ .., "apps"] if !group.is_empty() => Ok(answer::ok(&find(group)?.get("apps"))),
        _ => Ok(answer::ok(&find(rest)?)),
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        api::testing::{Server, World, app, at},
        model::id::MAX_PATH_SEGMENTS,
    };

    fn world() -> World {
        let mut world = World::default();
        world.app(app("/top")).app(app("/shop/web").version(at(7))).app(app("/shop/db/pg")).app(app("/shop-2/web"));
        world
    }

    #[tokio::test]
    async fn the_root_is_built_from_the_apps() {
        let server = Server::new(world());
        let query = "embed=group.groups&embed=group.apps&embed=group.apps.deployments&embed=group.apps.counts";
        insta::assert_snapshot!("polled", server.ask(&format!("GET /v2/groups?{query}"), "").await.show());
        let shop = server.ask("GET /v2/groups//shop", "").await.json();
        assert_eq!(
            (&shop["id"], &shop["groups"][0]["id"], &shop["apps"][0]["id"]),
            (&"/shop".into(), &"/shop/db".into(), &"/shop/web".into())
        );
        assert_eq!((&shop["version"], &shop["pods"]), (&at(7).to_string().into(), &serde_json::json!([])));
        assert_eq!(server.ask("GET /v2/groups/shop/apps", "").await.json().as_array().unwrap().len(), 1);
        assert_eq!(server.ask("GET /v2/groups/shop?embed=group.groups", "").await.json().get("apps"), None);
        assert_eq!(server.ask("GET /v2/groups/top", "").await.message(), "Group '/top' does not exist");
        assert_eq!(server.ask("DELETE /v2/groups/shop", "").await.status, 405);
        let empty = Server::new(World::default()).ask("GET /v2/groups", "").await;
        assert_eq!((empty.status.as_u16(), empty.json()["version"].as_str()), (200, Some("1970-01-01T00:00:00.000Z")));
    }

    #[tokio::test]
    async fn the_deepest_path_is_shown() {
        let mut world = World::default();
        world.app(app(&"/a".repeat(MAX_PATH_SEGMENTS)));
        let answer = Server::new(world).ask("GET /v2/groups", "").await;
        // `json` reads it back: it is within what our own clients accept.
        assert_eq!((answer.status.as_u16(), answer.json()["id"].as_str()), (200, Some("/")));
        assert_eq!(answer.body.matches("\"groups\"").count(), MAX_PATH_SEGMENTS);
    }
}
