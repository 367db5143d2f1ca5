//! Every refusal, with Marathon's status and body: one object with `message` and sometimes `details` or `deployments`.
//!
//! Facts (Marathon 1.11): malformed JSON is 400 with a text as `details`; JSON of the wrong types is 422 with the same message and a list; what
//! is well-formed but not acceptable is 422 "Object is not valid". A lock is 409 and names the deployments. Too many deployments are 403.

use serde_json::{Value, json};
use warp::http::{
    HeaderName, HeaderValue, Method, StatusCode,
    header::{ALLOW, RETRY_AFTER, WWW_AUTHENTICATE},
};

use super::{Response, answer};
use crate::{
    model::request::{RequestError, Violation},
    runtime::{handle::SubmitError, node::NodeError},
};

/// A refusal on its way to the client.
#[derive(Clone, Debug, PartialEq)]
pub struct ApiError {
    status: StatusCode,
    body: Value,
    header: Option<(HeaderName, HeaderValue)>,
}

/// What a handler comes to.
pub type ApiResult = Result<Response, ApiError>;

impl ApiError {
    /// A status and its message.
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, body: json!({ "message": message.into() }), header: None }
    }

    /// 400 with a message.
    pub fn bad(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// 404 with a message.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    /// 404: nothing is served at this path.
    pub fn no_route() -> Self {
        Self::not_found("URI not found")
    }

    /// 404: `App '/x' does not exist`
    pub fn no_app(app: impl std::fmt::Display) -> Self {
        Self::not_found(format!("App '{app}' does not exist"))
    }

    /// 404: `Pod '/x' does not exist`
    pub fn no_pod(pod: impl std::fmt::Display) -> Self {
        Self::not_found(format!("Pod '{pod}' does not exist"))
    }

    /// 404: `Group '/x' does not exist`
    pub fn no_group(group: impl std::fmt::Display) -> Self {
        Self::not_found(format!("Group '{group}' does not exist"))
    }

    /// 405: the path exists, with other methods.
    pub fn method(allowed: &[Method]) -> Self {
        let allowed = allowed.iter().map(Method::as_str).collect::<Vec<_>>().join(", ");
        Self::reason(StatusCode::METHOD_NOT_ALLOWED).with(ALLOW, &allowed)
    }

    /// A status whose message is its reason phrase (405, 415).
    pub fn reason(status: StatusCode) -> Self {
        Self::new(status, status.canonical_reason().unwrap_or_default())
    }

    /// 422 with a message of its own.
    pub fn unprocessable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, message)
    }

    /// 422: well-formed JSON of the wrong types.
    pub fn wrong_types(violations: &[Violation]) -> Self {
        Self::unprocessable("Invalid JSON").with_details(details(violations))
    }

    /// 422: understood, and not acceptable.
    pub fn invalid(violations: &[Violation]) -> Self {
        Self::unprocessable("Object is not valid").with_details(details(violations))
    }

    /// 422 for what could not be read. Texts of the JSON reader begin with `error.`; any other one is about contradicting fields.
    pub fn unreadable(violations: &[Violation]) -> Self {
        let types = violations.iter().any(|violation| violation.text.starts_with("error."));
        if types { Self::wrong_types(violations) } else { Self::invalid(violations) }
    }

    /// 400: not JSON at all.
    pub fn malformed(reason: impl Into<String>) -> Self {
        Self::bad("Invalid JSON").with_details(reason.into().into())
    }

    /// 400: no body.
    pub fn empty_body() -> Self {
        Self::bad("Please specify data in JSON format").with_details("the body is empty".into())
    }

    /// 503, to be tried again.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, message).with(RETRY_AFTER, "1")
    }

    /// 401 with what may be tried.
    pub fn unauthorized(message: impl Into<String>, challenge: &str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, message).with(WWW_AUTHENTICATE, challenge)
    }

    /// 429: not before `wait` is over.
    pub fn too_many(message: impl Into<String>, wait: std::time::Duration) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, message).with(RETRY_AFTER, &wait.as_secs().max(1).to_string())
    }

    /// The response that says so.
    pub fn response(&self) -> Response {
        let mut response = answer::json(self.status, &self.body);
        if let Some((name, value)) = &self.header {
            response.headers_mut().insert(name, value.clone());
        }
        response
    }

    /// With a header.
    pub fn with(mut self, name: HeaderName, value: &str) -> Self {
        self.header = HeaderValue::from_str(value).ok().map(|value| (name, value));
        self
    }

    fn with_details(mut self, details: Value) -> Self {
        self.body["details"] = details;
        self
    }
}

/// One entry for each path, in the order in which the paths appear.
fn details(violations: &[Violation]) -> Value {
    let mut grouped = indexmap::IndexMap::<&str, Vec<&str>>::new();
    for violation in violations {
        grouped.entry(&violation.path).or_default().push(&violation.text);
    }
    grouped.into_iter().map(|(path, errors)| json!({ "path": path, "errors": errors })).collect()
}

impl From<RequestError> for ApiError {
    fn from(error: RequestError) -> Self {
        use RequestError as E;
        let text = error.to_string();
        match error {
            E::NoApp(_)
            | E::NoPod(_)
            | E::NoGroup(_)
            | E::NoPath(_)
            | E::NoVersion(..)
            | E::NoTask(_)
            | E::NoDeployment(_)
            | E::NotQueued(_)
            | E::NoPort(_)
            | E::NoBrick(_)
            | E::NoUser(_) => Self::not_found(text),
            E::AppExists(_) | E::PodExists(_) | E::Conflict(_) => Self::new(StatusCode::CONFLICT, text),
            E::Locked(deployments) => {
                let mut error = Self::new(StatusCode::CONFLICT, text);
                error.body["deployments"] = deployments.iter().map(|id| json!({ "id": id })).collect();
                error
            }
            E::TooManyDeployments(_) | E::Forbidden => Self::new(StatusCode::FORBIDDEN, text),
            E::Invalid(violations) => Self::invalid(&violations),
            E::Unprocessable(_) => Self::unprocessable(text),
            E::Bad(_) => Self::bad(text),
            E::ServicePortsExhausted(..) => Self::new(StatusCode::INTERNAL_SERVER_ERROR, text),
        }
    }
}

impl From<NodeError> for ApiError {
    fn from(error: NodeError) -> Self {
        let text = error.to_string();
        match error {
            NodeError::Missing(_) => Self::not_found(text),
            NodeError::Forbidden(_) => Self::new(StatusCode::FORBIDDEN, text),
            NodeError::Conflict(_) => Self::new(StatusCode::CONFLICT, text),
            NodeError::Unacceptable(_) | NodeError::Impossible(_) => Self::unprocessable(text),
            NodeError::NoRoom(_) => Self::new(StatusCode::INSUFFICIENT_STORAGE, text),
            NodeError::Unavailable(_) => Self::unavailable(text),
            NodeError::Failed(_) => Self::new(StatusCode::INTERNAL_SERVER_ERROR, text),
        }
    }
}

impl From<SubmitError> for ApiError {
    fn from(error: SubmitError) -> Self {
        match error {
            SubmitError::Refused(error) => error.into(),
            SubmitError::Busy | SubmitError::Stopped => Self::unavailable(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_of_the_core_have_marathons_statuses_and_bodies() {
        let check = |error: RequestError, status: u16, body: Value| {
            let error = ApiError::from(error);
            assert_eq!((error.status.as_u16(), &error.body), (status, &body));
        };
        let app = || "/x".parse().unwrap();
        check(RequestError::NoApp(app()), 404, json!({"message": "App '/x' does not exist"}));
        check(
            RequestError::NoVersion(app(), "2020-01-31T12:34:56.789Z".parse().unwrap()),
            404,
            json!({"message": "App '/x' does not exist in version 2020-01-31T12:34:56.789Z"}),
        );
        check(RequestError::NoTask("t".into()), 404, json!({"message": "Task 't' does not exist"}));
        check(RequestError::NoDeployment("d".parse().unwrap()), 404, json!({"message": "DeploymentPlan d does not exist"}));
        check(RequestError::NotQueued(app()), 404, json!({"message": "Application /x not found in tasks queue."}));
        check(RequestError::AppExists(app()), 409, json!({"message": "An app with id [/x] already exists."}));
        check(
            RequestError::Locked(vec!["d".parse().unwrap()]),
            409,
            json!({
                "message": "App is locked by one or more deployments. Override with the option '?force=true'. \
                            View details at '/v2/deployments/<DEPLOYMENT_ID>'.",
                "deployments": [{"id": "d"}],
            }),
        );
        check(RequestError::Bad("no".into()), 400, json!({"message": "no"}));
        check(RequestError::Forbidden, 403, json!({"message": "Not Authorized to perform this action!"}));
        check(
            RequestError::ServicePortsExhausted(10_000, 20_000),
            500,
            json!({"message": "All ports in the range [10000-20000) are already in use"}),
        );
        check(
            RequestError::Invalid(vec![Violation::new("/cpus", "a"), Violation::new("/", "b"), Violation::new("/cpus", "c")]),
            422,
            json!({"message": "Object is not valid", "details": [{"path": "/cpus", "errors": ["a", "c"]}, {"path": "/", "errors": ["b"]}]}),
        );
    }

    #[test]
    fn a_busy_server_says_when_to_come_back() {
        let response = ApiError::from(SubmitError::Busy).response();
        assert_eq!((response.status().as_u16(), response.headers()["retry-after"].as_bytes()), (503, b"1".as_slice()));
    }
}
