//! Holds what is answered in tests against the description.

use std::sync::LazyLock;

use serde_json::Value;
use warp::http::{HeaderMap, Method, StatusCode, header::CONTENT_TYPE};

use super::{
    FILES, PUBLISHED,
    text::{self, Description, Operation},
};

static DESCRIPTION: LazyLock<Description> = LazyLock::new(|| text::read(FILES).unwrap());

/// # Panics
/// When something was answered that is not described: a path, a method, a status, a header, a media type, a body.
pub fn answered(method: &Method, path: &str, status: StatusCode, headers: &HeaderMap, body: &str) {
    let line = format!("{method} {path}: {}", status.as_u16());
    let json: Option<Value> = serde_json::from_str(body).ok();
    let message = json.as_ref().and_then(|json| json["message"].as_str()).unwrap_or_default();
    let nowhere = status == 404 && message == "URI not found" || status == 405 || *method == Method::OPTIONS;
    let Some(operation) = operation(method, path) else {
        // Whoever is not known, or asks under a wrong name, is not told what there is.
        let unheard_of = !["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"].contains(&method.as_str()) && status.is_client_error();
        assert!(nowhere || unheard_of || matches!(status.as_u16(), 401 | 403 | 429 | 503), "{line} is not described: {body}");
        return;
    };
    if nowhere {
        return;
    }
    let described = &PUBLISHED.document["paths"][operation.path.replace("...}", "}")][operation.method.to_lowercase()]["responses"];
    let answer = described.get(status.as_str()).unwrap_or_else(|| panic!("{line} is not among the answers of {}: {body}", operation.path));
    for header in ["Location", "Marathon-Deployment-Id"].iter().filter(|header| headers.contains_key(**header)) {
        assert!(answer["headers"].get(header).is_some(), "{line}: the header {header} is not described");
    }
    if *method == Method::HEAD {
        return;
    }
    let forms = answer["content"].as_object();
    let Some(kind) = headers.get(CONTENT_TYPE).map(|kind| kind.to_str().unwrap().split(';').next().unwrap()) else {
        assert!(body.is_empty(), "{line}: a body without a type: {body}");
        assert!(forms.is_none(), "{line}: no body, but {forms:?} is described");
        return;
    };
    let form = forms.and_then(|forms| forms.get(kind)).unwrap_or_else(|| panic!("{line}: {kind} is not described"));
    if kind == "application/json" {
        let json = json.unwrap_or_else(|| panic!("{line}: no JSON: {body}"));
        if let Err(error) = fits(&json, &form["schema"], true) {
            panic!("{line}: {error}\n{json:#}");
        }
    }
}

/// The operation that a request is: of several the one with the most segments that are its own.
fn operation(method: &Method, path: &str) -> Option<&'static Operation> {
    let segments = crate::api::call::segments(path);
    let method = if *method == Method::HEAD { "GET" } else { method.as_str() };
    let of_method = DESCRIPTION.operations.iter().filter(|operation| operation.method == method);
    let fitting = of_method.filter(|operation| matches(&pattern(&operation.path), &segments));
    fitting.max_by_key(|operation| pattern(&operation.path).iter().filter(|segment| !segment.starts_with('{')).count())
}

fn pattern(path: &str) -> Vec<&str> {
    path.split('/').filter(|segment| !segment.is_empty()).collect()
}

fn matches(pattern: &[&str], segments: &[String]) -> bool {
    match pattern {
        [] => segments.is_empty(),
        [many, rest @ ..] if many.ends_with("...}") => (1..=segments.len()).any(|length| matches(rest, &segments[length..])),
        [one, rest @ ..] => {
            segments.first().is_some_and(|segment| (one.starts_with('{') || segment == one) && matches(rest, &segments[1..]))
        }
    }
}

/// Does `value` fit `schema`? `closed`: without fields that are not described.
///
/// # Errors
/// Where it does not, and why.
pub fn fits(value: &Value, schema: &Value, closed: bool) -> Result<(), String> {
    if let Some(name) = schema["$ref"].as_str().and_then(|name| name.rsplit('/').next()) {
        let named = PUBLISHED.document["components"]["schemas"].get(name).ok_or_else(|| format!("there is no type {name}"))?;
        return fits(value, named, closed).map_err(|error| format!("{name}{error}"));
    }
    if let Some(shapes) = schema["anyOf"].as_array() {
        let errors: Vec<String> = shapes.iter().filter_map(|shape| fits(value, shape, closed).err()).collect();
        return if errors.len() < shapes.len() { Ok(()) } else { Err(format!(": none of ({})", errors.join("; "))) };
    }
    let wrong = |why: &str| Err(format!(": {} {why} {schema}", value.to_string().chars().take(200).collect::<String>()));
    if schema.get("const").is_some_and(|literal| literal != value) || schema["enum"].as_array().is_some_and(|all| !all.contains(value)) {
        return wrong("is not");
    }
    let is_of = |kind: &str| match kind {
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        "number" => value.is_number(),
        "integer" => value.as_f64().is_some_and(|number| number.fract() == 0.0),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("{other} is no type"),
    };
    if schema["type"].as_str().is_some_and(|kind| !is_of(kind)) {
        return wrong("is not of type");
    }
    let beyond =
        |key: &str, is_beyond: fn(f64, f64) -> bool| value.as_f64().zip(schema[key].as_f64()).is_some_and(|(n, limit)| is_beyond(n, limit));
    if beyond("minimum", |n, limit| n < limit) || beyond("maximum", |n, limit| n > limit) {
        return wrong("is beyond");
    }
    if let (Some(text), Some(pattern)) = (value.as_str(), schema["pattern"].as_str())
        && !regex::Regex::new(pattern).unwrap().is_match(text)
    {
        return wrong("does not match");
    }
    for (at, item) in value.as_array().into_iter().flatten().enumerate() {
        fits(item, schema.get("items").unwrap_or(&Value::Null), closed).map_err(|error| format!("({at}){error}"))?;
    }
    fields(value, schema, closed)
}

fn fields(value: &Value, schema: &Value, closed: bool) -> Result<(), String> {
    let Some(found) = value.as_object() else { return Ok(()) };
    for required in schema["required"].as_array().into_iter().flatten() {
        let name = required.as_str().unwrap();
        found.get(name).ok_or_else(|| format!("/{name} is missing"))?;
    }
    let (own, others) = (schema["properties"].as_object(), schema.get("additionalProperties"));
    for (name, item) in found {
        match own.and_then(|own| own.get(name)).or(others) {
            Some(shape) => fits(item, shape, closed).map_err(|error| format!("/{name}{error}"))?,
            None if closed && own.is_some() => return Err(format!("/{name} is not described")),
            None => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::testing::{Server, World};

    #[test]
    fn the_document_is_kept() {
        insta::assert_json_snapshot!("openapi", PUBLISHED.document);
    }

    #[test]
    fn every_name_means_something_and_every_type_is_used() {
        let text = PUBLISHED.document.to_string();
        let types = PUBLISHED.document["components"]["schemas"].as_object().unwrap();
        let refs: Vec<&str> = text.split("#/components/schemas/").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
        for name in &refs {
            assert!(types.contains_key(*name), "there is no type {name}");
        }
        // The first comes in a stream, of which only words tell; the others are what further ones are made of.
        let unused: Vec<_> = types.keys().filter(|name| !refs.contains(&name.as_str())).collect();
        assert_eq!(unused, ["AppDefinition", "AppInput", "Event"]);
        let mut ids: Vec<_> = text.split("\"operationId\":\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
        let count = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), count, "two operations have the same id");
    }

    #[test]
    fn every_example_fits_its_type() {
        let mut examples = 0;
        for (name, schema) in PUBLISHED.document["components"]["schemas"].as_object().unwrap() {
            for example in schema["examples"].as_array().into_iter().flatten() {
                fits(example, schema, true).unwrap_or_else(|error| panic!("{name}{error}"));
                examples += 1;
            }
        }
        assert!(examples > 20, "{examples}");
    }

    #[test]
    fn what_does_not_fit_is_found() {
        let check = |value: Value, name: &str, expected: &str| {
            let schema = json!({ "$ref": format!("#/components/schemas/{name}") });
            let error = fits(&value, &schema, true).unwrap_err();
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
    fn requests_are_found_by_their_most_own_path() {
        let check = |method: Method, path: &str, expected: Option<&str>| {
            assert_eq!(operation(&method, path).map(|operation| operation.path.as_str()), expected, "{path}");
        };
        check(Method::GET, "/v2/apps//a/b/versions/x", Some("/v2/apps/{app...}/versions/{version}"));
        check(Method::HEAD, "/marathon/v2/apps/a%2Fb/", Some("/v2/apps/{app...}"));
        check(Method::GET, "/v2/apps/a/*", Some("/v2/apps/{group...}/*"));
        check(Method::DELETE, "/v2/apps/tasks/tasks", Some("/v2/apps/{app...}/tasks"));
        check(Method::POST, "/v2/apps/a", None);
        check(Method::GET, "/v2/nowhere", None);
    }

    /// The other way round: nothing is described that is not there.
    #[tokio::test]
    async fn whatever_is_described_is_served() {
        let server = Server::new(World::default());
        for operation in &DESCRIPTION.operations {
            let path = operation.path.replace("...}", "}").replace('{', "a-").replace('}', "");
            // What needs other parts than this server has.
            if ["/mesos_dns", "/v2/images", "/v2/registry"].iter().any(|other| path.starts_with(other)) {
                continue;
            }
            let answer = server.ask(&format!("{} {path}", operation.method), "{}").await;
            let is_there = answer.status != 405 && !(answer.status == 404 && answer.message() == "URI not found");
            assert!(is_there || path == "/v2/events", "{} {path}: {}", operation.method, answer.status);
        }
    }
}
