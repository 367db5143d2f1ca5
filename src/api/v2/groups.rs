//! `/v2/groups`.
//!
//! Facts (Marathon 1.11): ids have any depth, so a route is known by its end: `.../apps` (all apps below, a bare list; empty for a group that is not
//! there), `.../versions` (a bare list of the root's versions), `.../versions/{version}`. `POST` and `PUT` take the body's id relative to the path;
//! `PUT` with `dryRun` answers the steps; `PATCH` of a top-level group sets `enforceRole` and answers nothing; `force` is false by default, also for
//! `DELETE`. The existing web page polls `/v2/groups?embed=group.groups&embed=group.apps&...` for its lists.

use serde_json::{Value, json};
use warp::http::{Method, StatusCode};

use super::{path_id, seen, submit};
use crate::{
    api::{
        Api, answer,
        call::Call,
        error::{ApiError, ApiResult},
        query::Embed,
        view::{
            app::Context,
            deployment,
            group::{self, GroupEmbed},
        },
        wall,
    },
    model::{
        group::input::GroupInput,
        id::{PATH_PATTERN_TEXT, PathId},
        request::{Reply, Request, Violation},
        time::{Timestamp, TimestampError},
    },
};

pub async fn route(api: &Api, call: Call, rest: &[&str]) -> ApiResult {
    match (&call.method, rest) {
        (&Method::GET | &Method::HEAD, rest) => read(api, &call, rest),
        (&Method::POST, group) => update(api, call, group, true).await,
        (&Method::PUT, group) => update(api, call, group, false).await,
        (&Method::PATCH, group) if !group.is_empty() => enforce_role(api, call, group).await,
        (&Method::DELETE, group) => {
            let group = path_id(group).map_err(ApiError::no_group)?;
            let request = Request::DeleteGroup { group, force: call.flag("force", false) };
            changed(submit(api, &call, request).await?, StatusCode::OK)
        }
        _ => Err(ApiError::method(&[Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])),
    }
}

// === Reading ===

fn read(api: &Api, call: &Call, rest: &[&str]) -> ApiResult {
    let seen = seen(api, call);
    let context = Context::new(&seen, &api.info, wall());
    let embed = GroupEmbed::read(&call.query);
    let id = |segments: &[&str]| path_id(segments).map_err(ApiError::no_group);
    match rest {
        [group @ .., "apps"] => {
            let (id, embed) = (id(group)?, Embed::default().and(&call.query));
            Ok(answer::ok(&seen.apps_below(&id).map(|app| context.app(app, embed)).collect::<Vec<_>>()))
        }
        [group @ .., "versions"] => {
            let id = id(group)?;
            let versions = seen.group_versions(&id).ok_or_else(|| ApiError::no_group(&id))?;
            Ok(answer::ok(&versions))
        }
        [group @ .., "versions", version] => {
            let version: Timestamp = version.parse().map_err(|error: TimestampError| ApiError::unprocessable(error.to_string()))?;
            let id = id(group)?;
            Ok(answer::ok(&group::past(&seen, &context, &id, version, embed).ok_or_else(|| ApiError::no_group(&id))?))
        }
        group => {
            let id = id(group)?;
            Ok(answer::ok(&group::group(&seen, &context, &id, embed).ok_or_else(|| ApiError::no_group(&id))?))
        }
    }
}

// === Changing ===

/// The id that a path spells, for a group that may yet have to be made.
fn new_id(segments: &[&str]) -> Result<PathId, ApiError> {
    path_id(segments).map_err(|_| ApiError::invalid(&[Violation::new("/", PATH_PATTERN_TEXT)]))
}

async fn update(api: &Api, mut call: Call, group: &[&str], create: bool) -> ApiResult {
    let base = new_id(group)?;
    let input = GroupInput::read(&call.json_of_a_script().await?).map_err(|violations| ApiError::unreadable(&violations))?;
    let id = input.resolve(&base).map_err(|violations| ApiError::invalid(&violations))?;
    let dry_run = !create && call.flag("dryRun", false);
    let request = Request::UpdateGroup { base, input, create, force: call.flag("force", false), dry_run };
    let reply = submit(api, &call, request).await?;
    if create {
        return Ok(answer::with_location(changed(reply, StatusCode::CREATED)?, &call.base(&api.info.leader_url()), &id));
    }
    changed(reply, StatusCode::OK)
}

async fn enforce_role(api: &Api, mut call: Call, group: &[&str]) -> ApiResult {
    let group = path_id(group).map_err(ApiError::no_group)?;
    let body = call.json_of_a_script().await?;
    let wrong = |path: &str, text: &str| ApiError::wrong_types(&[Violation::new(path, text)]);
    let Value::Object(fields) = &body else { return Err(wrong("/", "error.expected.jsobject")) };
    let enforce = match fields.get("enforceRole") {
        None | Some(Value::Null) => None,
        Some(Value::Bool(enforce)) => Some(*enforce),
        Some(_) => return Err(wrong("/enforceRole", "error.expected.jsboolean")),
    };
    submit(api, &call, Request::EnforceRole { group, enforce }).await?;
    Ok(answer::empty(StatusCode::OK))
}

fn changed(reply: Reply, status: StatusCode) -> ApiResult {
    Ok(match reply {
        Reply::Deployment { id, version, .. } => answer::deployment(status, &id, version),
        Reply::Planned(steps) => answer::ok(&json!({ "steps": deployment::steps(&steps) })),
        Reply::Killed(_) | Reply::Done => answer::ok(&json!({})),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use crate::{
        api::testing::{Server, World, app, at},
        model::{group::Group, id::MAX_PATH_SEGMENTS, record::Record},
    };

    fn world() -> World {
        let mut world = World::default();
        world.app(app("/top")).app(app("/shop/web").version(at(7))).app(app("/shop/db/pg")).app(app("/shop-2/web"));
        world
    }

    fn group(world: &mut World, id: &str, dependencies: &[&str], enforce_role: bool) {
        let dependencies = dependencies.iter().map(|id| id.parse().unwrap()).collect();
        world.put(Record::Group(Arc::new(Group { id: id.parse().unwrap(), owner: world.owner(), dependencies, enforce_role })));
    }

    #[tokio::test]
    async fn the_root_is_built_from_apps_and_groups() {
        let mut world = world();
        group(&mut world, "/empty/deep", &[], false);
        group(&mut world, "/shop", &["/empty"], true);
        let server = Server::new(world);
        let query = "embed=group.groups&embed=group.apps&embed=group.apps.deployments&embed=group.apps.counts";
        insta::assert_snapshot!("polled", server.ask(&format!("GET /v2/groups?{query}"), "").await.show());
        let shop = server.ask("GET /v2/groups//shop/", "").await.json();
        assert_eq!(
            (&shop["id"], &shop["groups"][0]["id"], &shop["apps"][0]["id"]),
            (&"/shop".into(), &"/shop/db".into(), &"/shop/web".into())
        );
        assert_eq!((&shop["version"], &shop["pods"]), (&at(7).to_string().into(), &json!([])));
        assert_eq!((&shop["enforceRole"], &shop["dependencies"]), (&true.into(), &json!(["/empty"])));
        assert_eq!((shop["groups"][0].get("enforceRole"), shop["apps"][0].get("tasksRunning")), (None, None));
        let apps = |answer: serde_json::Value| answer.as_array().unwrap().iter().map(|app| app["id"].clone()).collect::<Vec<_>>();
        assert_eq!(apps(server.ask("GET /v2/groups/shop/apps", "").await.json()), ["/shop/db/pg", "/shop/web"]);
        assert_eq!(apps(server.ask("GET /v2/groups/apps", "").await.json()).len(), 4);
        assert_eq!(apps(server.ask("GET /v2/groups/none/apps", "").await.json()).len(), 0);
        assert_eq!(server.ask("GET /v2/groups/shop?embed=group.groups", "").await.json()["apps"], json!([]));
        assert_eq!(server.ask("GET /v2/groups/top", "").await.message(), "Group '/top' does not exist");
        assert_eq!(server.ask("GET /v2/apps/empty/*", "").await.json(), json!({"*": []}));
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

    const SHOP: &str = r#"{"id": "/new", "dependencies": ["/shop"], "groups": [
        {"id": "db", "apps": [{"id": "pg", "cmd": "sleep 1"}]},
        {"id": "web", "dependencies": ["db", "../db"], "apps": [{"id": "front", "cmd": "sleep 1", "dependencies": ["api"]}, {"id": "api", "cmd": "sleep 1"}]}]}"#;

    #[tokio::test]
    async fn bodies_are_marathons() {
        let server = Server::new(world());
        for (name, line, body) in [
            ("dry_run", "PUT /v2/groups?dryRun=true", SHOP),
            ("created", "POST /v2/groups", SHOP),
            ("created_again", "POST /v2/groups/", SHOP),
            ("created_on_an_app", "POST /v2/groups", r#"{"id": "/top"}"#),
            ("shown", "GET /v2/groups/new?embed=group.groups", ""),
            ("shown_apps", "GET /v2/groups/new/db", ""),
            ("deployments", "GET /v2/deployments", ""),
            ("locked", "PUT /v2/groups/new/db", r#"{"apps": []}"#),
            ("replaced", "PUT /v2/groups/new?force=true", r#"{"groups": [{"id": "db"}]}"#),
            (
                "circle",
                "PUT /v2/groups/new",
                r#"{"apps": [{"id": "a", "cmd": "x1", "dependencies": ["b"]}, {"id": "b", "cmd": "x1", "dependencies": ["a"]}]}"#,
            ),
            ("wrong_types", "PUT /v2/groups/new", r#"{"apps": [{"id": "a", "cpus": "x"}, {}], "scaleBy": "2"}"#),
            ("invalid", "PUT /v2/groups/new", r#"{"groups": [{"id": "/elsewhere", "apps": [{"id": "a"}]}]}"#),
            ("invalid_app", "PUT /v2/groups/new", r#"{"groups": [{"id": "more", "apps": [{"id": "a"}]}]}"#),
            ("pods", "PUT /v2/groups/new", r#"{"pods": [{"id": "a"}]}"#),
            ("scaled", "PUT /v2/groups/new?force=true", r#"{"scaleBy": 2}"#),
            ("versions", "GET /v2/groups/new/versions", ""),
            ("versions_of_nothing", "GET /v2/groups/none/versions", ""),
            ("version", "GET /v2/groups/new/versions/2020-01-31T12:03:21.000Z", ""),
            ("version_of_nothing", "GET /v2/groups/new/versions/2020-01-31T12:00:00.000Z", ""),
            ("version_that_is_none", "GET /v2/groups/versions/yesterday", ""),
            ("rolled_back", "PUT /v2/groups/new?force=true", r#"{"version": "2020-01-31T12:03:21.000Z"}"#),
            ("rolled_back_to_nothing", "PUT /v2/groups/new", r#"{"version": "2020-01-31T12:00:00.000Z"}"#),
            ("enforced", "PATCH /v2/groups/new", r#"{"enforceRole": true}"#),
            ("enforced_below", "PATCH /v2/groups/new/db", r#"{"enforceRole": true}"#),
            ("deleted", "DELETE /v2/groups/new?force=true", ""),
            ("deleted_again", "DELETE /v2/groups/new", ""),
            ("deleted_root", "DELETE /v2/groups?force=true", ""),
            ("wrong_method", "PATCH /v2/groups", "{}"),
        ] {
            let answer = server.ask(line, body).await;
            insta::assert_snapshot!(name, answer.show());
        }
    }

    #[tokio::test]
    async fn a_user_sees_the_own_part_of_the_tree() {
        let mut world = World::default();
        world.of("ann").app(app("/shared/a"));
        group(&mut world, "/shared", &[], false);
        group(&mut world, "/anns", &[], false);
        world.of("bob").app(app("/shared/b")).app(app("/shared/deep/b"));
        let server = Server::new(world);
        let ids = |answer: &crate::api::testing::Answer| {
            let mut ids: Vec<String> =
                answer.body.split("\"id\":\"").skip(1).map(|part| part.split('"').next().unwrap().to_owned()).collect();
            ids.retain(|id| id.starts_with('/'));
            ids
        };
        let check = async |user: &str, line: &str, status: u16, expected: &[&str]| {
            let answer = server.ask_as(user, line, "").await;
            assert_eq!(
                (answer.status.as_u16(), ids(&answer)),
                (status, expected.iter().map(|id| (*id).to_owned()).collect()),
                "{user} {line}"
            );
        };
        check("ann", "GET /v2/groups", 200, &["/", "/anns", "/shared", "/shared/a"]).await;
        check("bob", "GET /v2/groups", 200, &["/", "/shared", "/shared/b", "/shared/deep", "/shared/deep/b"]).await;
        check("carl", "GET /v2/groups", 200, &["/"]).await;
        check("bob", "GET /v2/groups/anns", 404, &[]).await;
        check("ann", "GET /v2/groups/shared/deep", 404, &[]).await;
        check("carl", "GET /v2/groups/shared/apps", 200, &[]).await;
        check("bob", "DELETE /v2/groups/shared", 403, &[]).await;
        check("carl", "DELETE /v2/groups/shared", 404, &[]).await;
        check("ann", "GET /v2/groups/shared/deep/versions", 404, &[]).await;
        let body = json!({"apps": [{"id": "b2", "cmd": "sleep 1"}]}).to_string();
        assert_eq!(server.ask_as("bob", "PUT /v2/groups/shared", &body).await.status, 200);
        check("bob", "GET /v2/groups/shared", 200, &["/shared", "/shared/b2", "/shared/deep", "/shared/deep/b"]).await;
        check("ann", "GET /v2/groups/shared", 200, &["/shared", "/shared/a"]).await;
        let versions = server.ask_as("bob", "GET /v2/groups/versions", "").await.json();
        assert_eq!((versions.as_array().unwrap().len(), server.ask_as("carl", "GET /v2/groups/versions", "").await.json()), (1, json!([])));
        let version = versions[0].as_str().unwrap().to_owned();
        check("ann", &format!("GET /v2/groups/versions/{version}"), 200, &["/", "/anns", "/shared", "/shared/a"]).await;
    }
}
