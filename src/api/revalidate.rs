//! `ETag` and `If-None-Match` (ours, not Marathon's): who polls and has the present state already is told so, without it being put together again.
//!
//! A tag names the snapshot, the process that made it, and who asks in which form: what somebody sees follows from these and the address. It is weak,
//! because the same state may be compressed or not. Answers in which time passes (statistics of lifetimes, delays of the queue) have none.

use warp::http::{
    HeaderValue, StatusCode,
    header::{ACCEPT, ETAG, IF_NONE_MATCH},
};
use xxhash_rust::xxh3::xxh3_64;

use super::{Api, Response, answer, call::Call};

/// The tag of what a request reads.
pub struct Tag(HeaderValue);

impl Tag {
    /// To be made before anything is read, so that it is never newer than the answer. `None`: the answer is no function of the snapshot alone.
    pub fn of(api: &Api, call: &Call, segments: &[&str]) -> Option<Self> {
        let lasting = matches!(segments, ["v2", "apps" | "groups" | "pods" | "deployments", ..] | ["v2", "tasks"]);
        if !lasting || !call.is_read() || call.query.all("embed").any(|embed| embed.ends_with("taskStats")) {
            return None;
        }
        let who = call.who.as_ref()?;
        let accept = call.headers.get_all(ACCEPT).iter().flat_map(|value| value.as_bytes().iter().copied().chain([0]));
        let form: Vec<u8> = [u8::from(who.admin)].into_iter().chain(who.user.as_str().bytes()).chain([0]).chain(accept).collect();
        let (process, revision) = api.access.revision();
        HeaderValue::from_str(&format!("W/\"{process:08x}-{revision}-{:016x}\"", xxh3_64(&form))).ok().map(Self)
    }

    /// True when the client has what it would get. `*` is not known: whether there is anything would have to be looked up.
    pub fn is_known(&self, call: &Call) -> bool {
        let tags = call.headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
        let ours = self.0.to_str().unwrap_or_default().trim_start_matches("W/");
        tags.flat_map(|tags| tags.split(',')).map(str::trim).any(|tag| tag.trim_start_matches("W/") == ours)
    }

    /// 304.
    pub fn not_modified(&self) -> Response {
        self.mark(answer::empty(StatusCode::NOT_MODIFIED))
    }

    /// Puts it on a good answer.
    pub fn mark(&self, mut response: Response) -> Response {
        if matches!(response.status(), StatusCode::OK | StatusCode::NOT_MODIFIED) {
            response.headers_mut().insert(ETAG, self.0.clone());
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use warp::http::StatusCode;

    use serde_json::json;

    use crate::{
        api::testing::{Answer, Server, World, app, pod},
        model::instance::Condition,
    };

    #[tokio::test]
    async fn who_has_the_present_state_is_told_so() {
        let mut world = World::default();
        world.app(app("/web")).app(pod(&json!({"id": "/shop/pod", "containers": [{"name": "one", "resources": {}}]})));
        world.instance("/shop/pod", 1, Condition::Running, &[]);
        let server = Server::new(world);
        let tag = |answer: &Answer| answer.headers.get("etag").map(|tag| tag.to_str().unwrap().to_owned());
        for path in [
            "/v2/apps",
            "/v2/apps//web",
            "/v2/apps?embed=apps.tasks",
            "/v2/groups",
            "/v2/tasks",
            "/v2/deployments",
            "/v2/pods",
            "/v2/pods/::status",
            "/v2/pods/shop/pod",
            "/v2/pods/shop/pod::status",
            "/v2/pods/shop/pod::versions",
        ] {
            let line = format!("GET {path}");
            let answer = server.ask(&line, "").await;
            let known = tag(&answer).unwrap_or_else(|| panic!("{path} has no tag"));
            assert_eq!(server.ask(&line, "").await.body, answer.body, "{path} under the same tag");
            let strong = known.trim_start_matches("W/").to_owned();
            for sent in [known.clone(), strong, format!("\"x\", {known}")] {
                let again = server.ask_with(&line, &[("if-none-match", &sent)], "").await;
                assert_eq!(
                    (again.status, tag(&again), again.body.len()),
                    (StatusCode::NOT_MODIFIED, Some(known.clone()), 0),
                    "{path} {sent}"
                );
            }
            for sent in ["*", "\"x\"", "W/\"00000000-1-0\""] {
                assert_eq!(server.ask_with(&line, &[("if-none-match", sent)], "").await.status, StatusCode::OK, "{path} {sent}");
            }
            let other = server.ask_with(&line, &[("accept", "text/plain")], "").await;
            assert_ne!(tag(&other), Some(known), "{path} in another form");
        }
        for path in ["/v2/apps?embed=apps.taskStats", "/v2/queue", "/v2/info", "/ping", "/v2/apps//none"] {
            let answer = server.ask_with(&format!("GET {path}"), &[("if-none-match", "*")], "").await;
            let found = !path.ends_with("none");
            assert_eq!((tag(&answer), answer.status == StatusCode::OK), (None, found), "{path}");
        }
    }

    #[tokio::test]
    async fn a_change_makes_another_state() {
        let server = Server::new(World::default());
        let known = server.ask("GET /v2/apps", "").await.headers["etag"].to_str().unwrap().to_owned();
        assert_eq!(server.ask("POST /v2/apps", r#"{"id": "/web", "cmd": "sleep 1"}"#).await.status, StatusCode::CREATED);
        assert_eq!(server.ask_with("GET /v2/apps", &[("if-none-match", &known)], "").await.status, StatusCode::OK);
    }
}
