//! The description against the program: what is answered in tests is described, and what is described is there.

use warp::http::{HeaderMap, Method, StatusCode, header::CONTENT_TYPE};

use super::{
    PUBLISHED,
    hold::{self, Answer},
};

/// # Panics
/// When something was answered that is not described.
pub fn answered(method: &Method, path: &str, status: StatusCode, headers: &HeaderMap, body: &str) {
    let kind = headers.get(CONTENT_TYPE).map(|kind| kind.to_str().unwrap().split(';').next().unwrap());
    let headers = ["Location", "Marathon-Deployment-Id"].into_iter().filter(|header| headers.contains_key(*header)).collect();
    let segments = crate::api::call::segments(path);
    let answer = Answer { method: method.as_str(), segments: &segments, status: status.as_u16(), kind, headers, body };
    hold::answered(&PUBLISHED.document, &answer).unwrap_or_else(|error| panic!("{error}"));
}

mod tests {
    use std::collections::BTreeSet;

    use serde_json::{Value, json};

    use super::*;
    use crate::{
        api::testing::{Server, World},
        core::state::Reject,
        model::{cluster::TaskState, instance::Condition},
        telemetry::Level,
    };

    fn types() -> &'static serde_json::Map<String, Value> {
        PUBLISHED.document["components"]["schemas"].as_object().unwrap()
    }

    #[test]
    fn the_document_is_kept() {
        insta::assert_json_snapshot!("openapi", PUBLISHED.document);
    }

    #[test]
    fn every_name_means_something_and_every_type_is_used() {
        let text = PUBLISHED.document.to_string();
        let refs: Vec<&str> = text.split("#/components/schemas/").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
        for name in &refs {
            assert!(types().contains_key(*name), "there is no type {name}");
        }
        // The first two are what further ones are made of; the last one comes in a stream, of which only words tell.
        let unused: Vec<_> = types().keys().filter(|name| !refs.contains(&name.as_str())).collect();
        assert_eq!(unused, ["AppDefinition", "AppInput", "Event"]);
        let mut ids: Vec<_> = text.split("\"operationId\":\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
        let count = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), count, "two operations have the same id");
    }

    #[test]
    fn literals_are_those_of_the_program() {
        let check = |literals: &Value, expected: Vec<&str>| {
            let found: BTreeSet<&str> = literals["enum"].as_array().unwrap().iter().map(|literal| literal.as_str().unwrap()).collect();
            assert_eq!(found, expected.into_iter().collect());
        };
        check(&types()["TaskState"], TaskState::ALL.iter().map(|state| state.as_str()).collect());
        check(&types()["Condition"], Condition::ALL.iter().map(|condition| condition.as_str()).collect());
        check(&types()["RejectReason"], Reject::ALL.iter().map(|reason| reason.as_str()).collect());
        check(&types()["LoggerChange"]["properties"]["level"], Level::ALL.iter().map(|(name, _)| *name).collect());
        // An event has its name only where it is made: it is looked up there.
        let names = include_str!("../../model/event.rs").split("=> \"").skip(1).map(|rest| rest.split('"').next().unwrap());
        check(&types()["EventType"], names.collect());
    }

    #[test]
    fn every_example_fits_its_type() {
        let mut examples = 0;
        for (name, schema) in types() {
            for example in schema["examples"].as_array().into_iter().flatten() {
                hold::fits(&PUBLISHED.document, example, schema).unwrap_or_else(|error| panic!("{name}{error}"));
                examples += 1;
            }
        }
        assert!(examples > 20, "{examples}");
    }

    #[test]
    fn what_does_not_fit_is_found() {
        let check = |value: Value, name: &str, expected: &str| {
            let schema = json!({ "$ref": format!("#/components/schemas/{name}") });
            let error = hold::fits(&PUBLISHED.document, &value, &schema).unwrap_err();
            assert!(error.contains(expected), "{value}: {error}");
        };
        check(json!({"message": "x", "other": 1}), "Error", "/other is not described");
        check(json!({}), "Error", "/message is missing");
        check(json!({"apps": [{"id": 1}]}), "AppList", "/instances is missing");
        check(json!({"ids": [1]}), "TaskIds", "is not of type");
        check(json!("yesterday"), "Timestamp", "does not match");
        check(json!({"logger": "x", "level": "loud"}), "LoggerChange", "is not");
        check(json!({"cpus": 0}), "AppDefinition", "is beyond");
        check(json!({"details": 1, "message": "x"}), "Error", "none of");
    }

    #[test]
    fn what_is_not_described_is_found() {
        let check = |method: Method, path: &str, status: u16, kind: &str, body: &str, expected: &str| {
            let segments = crate::api::call::segments(path);
            let answer = Answer { method: method.as_str(), segments: &segments, status, kind: Some(kind), headers: Vec::new(), body };
            let error = hold::answered(&PUBLISHED.document, &answer).unwrap_err();
            assert!(error.contains(expected), "{error}");
        };
        check(Method::GET, "/v2/new", 200, "application/json", "{}", "GET /v2/new: 200 is not described");
        check(Method::PUT, "/v2/leader", 200, "application/json", "{}", "is not described");
        check(Method::GET, "/v2/leader", 418, "application/json", "{}", "is not among the answers of /v2/leader");
        check(Method::GET, "/v2/leader", 200, "text/plain", "x", "text/plain is not described");
        check(Method::GET, "/v2/leader", 200, "application/json", r#"{"leader": "x", "since": 1}"#, "Leader/since is not described");
    }

    #[test]
    fn requests_are_found_by_their_most_own_path() {
        let check = |method: &str, path: &str, expected: Option<&str>| {
            let segments = crate::api::call::segments(path);
            assert_eq!(hold::operation(&PUBLISHED.document, method, &segments).map(|(path, _)| path), expected, "{path}");
        };
        check("GET", "/v2/apps//a/b/versions/x", Some("/v2/apps/{app}/versions/{version}"));
        check("HEAD", "/marathon/v2/apps/a%2Fb/", Some("/v2/apps/{app}"));
        check("GET", "/v2/apps/a/*", Some("/v2/apps/{group}/*"));
        check("DELETE", "/v2/apps/tasks/tasks", Some("/v2/apps/{app}/tasks"));
        check("GET", "/v2/pods/::status", Some("/v2/pods/::status"));
        check("GET", "/v2/pods/a/b::status", Some("/v2/pods/{pod}::status"));
        check("GET", "/v2/pods/a/b::versions/x", Some("/v2/pods/{pod}::versions/{version}"));
        check("GET", "/v2/pods/a/b", Some("/v2/pods/{pod}"));
        check("POST", "/v2/apps/a", None);
        check("GET", "/v2/nowhere", None);
    }

    /// The other way round: nothing is described that is not there.
    #[tokio::test]
    async fn whatever_is_described_is_served() {
        let server = Server::new(World::default());
        for (path, methods) in PUBLISHED.document["paths"].as_object().unwrap() {
            // What needs other parts than this server has.
            if ["/mesos_dns", "/v2/images", "/v2/registry"].iter().any(|other| path.starts_with(other)) {
                continue;
            }
            for method in methods.as_object().unwrap().keys() {
                let line = format!("{} {}", method.to_uppercase(), path.replace('{', "a-").replace('}', ""));
                let answer = server.ask(&line, "{}").await;
                let is_there = answer.status != 405 && !(answer.status == 404 && answer.message() == "URI not found");
                assert!(is_there || path == "/v2/events", "{line}: {}", answer.status);
            }
        }
    }
}
