//! OpenAPI 3.1 from a description.

use indexmap::IndexMap;
use serde_json::{Map, Value, json};

use super::text::{Answer, Content, Description, Operation};

/// What may come back to any request, besides what is its own.
const ALWAYS: [(u16, &str); 4] = [
    (401, "Credentials are required, or are wrong"),
    (403, "Not for this user, or not under this name of the server or from pages of this origin"),
    (429, "Too many wrong passwords; see `Retry-After`"),
    (503, "Too busy, or something that is needed does not run; see `Retry-After`"),
];

/// What may come back to a request with JSON in it.
const TO_JSON: [(u16, &str); 4] = [
    (400, "No JSON"),
    (413, "Too long"),
    (415, "Not `application/json`"),
    (422, "Of the wrong types, or not acceptable; `details` say where"),
];

const ABOUT: &str = "Marathon's API, and what this platform has besides. HEAD is answered like GET, without a body. A method that a path does not have is \
    405, a path that there is not 404, headers that are too long 431; wherever an id has several segments its slashes may be encoded. All paths are also \
    served below `/marathon` and `/service/marathon`. Bodies of errors are in JSON, whatever was asked for. A boolean in a query is true when it says \
    `true`, in any case, and false when it says anything else.";

/// The whole document.
pub fn document(description: &Description) -> Value {
    let mut paths: IndexMap<String, Map<String, Value>> = IndexMap::new();
    for operation in &description.operations {
        let path = operation.path.replace("...}", "}");
        paths.entry(path).or_default().insert(operation.method.to_lowercase(), self::operation(operation));
    }
    let tags: Vec<Value> = description.tags.iter().map(|(name, text)| json!({ "name": name, "description": text })).collect();
    let schemas: Map<String, Value> = description.types.iter().map(|one| (one.name.clone(), Value::Object(one.schema.clone()))).collect();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "xtao",
            "version": env!("CARGO_PKG_VERSION"),
            "description": ABOUT,
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "security": [{}, { "password": [] }, { "token": [] }],
        "tags": tags,
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "password": { "type": "http", "scheme": "basic" },
                "token": { "type": "http", "scheme": "bearer", "description": "From `POST /v2/auth/token`. `Authorization: token=TOKEN` is as good." },
            },
        },
    })
}

fn operation(operation: &Operation) -> Value {
    let parameters: Vec<Value> = operation
        .parameters
        .iter()
        .map(|parameter| {
            let mut shown = json!({ "name": parameter.name, "in": parameter.place, "schema": parameter.shape });
            if parameter.place == "path" {
                shown["required"] = true.into();
            }
            if parameter.is_many {
                shown["x-many-segments"] = true.into();
            }
            if !parameter.text.is_empty() {
                shown["description"] = parameter.text.as_str().into();
            }
            shown
        })
        .collect();
    let mut shown = json!({ "tags": [operation.tag], "summary": operation.summary, "operationId": id(operation) });
    if !parameters.is_empty() {
        shown["parameters"] = parameters.into();
    }
    if let Some(body) = &operation.body {
        shown["requestBody"] = json!({ "required": true, "content": media(body) });
    }
    shown["responses"] = answers(operation);
    shown
}

/// `GET /v2/apps/{app...}/versions` is `getAppsAppVersions`.
fn id(operation: &Operation) -> String {
    let words = operation.path.split(['/', '{', '}', '.', '_', ':']).filter(|word| !matches!(*word, "" | "v2"));
    let words = words.map(|word| if word == "*" { "All" } else { word });
    let capitals = words.map(|word| {
        let (first, rest) = word.split_at(1);
        first.to_uppercase() + rest
    });
    operation.method.to_lowercase() + &capitals.collect::<String>()
}

fn answers(operation: &Operation) -> Value {
    let mut shown: IndexMap<String, Value> = IndexMap::new();
    for answer in &operation.answers {
        let entry = shown.entry(answer.status.to_string()).or_insert_with(|| json!({ "description": told(answer) }));
        for header in &answer.headers {
            entry["headers"][header] = json!({ "schema": { "type": "string" } });
        }
        let Some(content) = &answer.content else { continue };
        let (media, form) = (content.media.as_str(), form(content));
        match entry["content"].get_mut(media) {
            // The same media type in several shapes.
            Some(other) => {
                let shapes = [other["schema"].clone(), form["schema"].clone()];
                let shapes = shapes.into_iter().flat_map(|shape| match shape.get("anyOf") {
                    Some(Value::Array(shapes)) => shapes.clone(),
                    _ => vec![shape],
                });
                other["schema"] = json!({ "anyOf": shapes.collect::<Vec<_>>() });
            }
            None => entry["content"][media] = form,
        }
    }
    for (status, text) in implied(operation) {
        let error =
            json!({ "description": text, "content": { "application/json": { "schema": { "$ref": "#/components/schemas/Error" } } } });
        shown.entry(status.to_string()).or_insert(error);
    }
    shown.sort_keys();
    json!(shown)
}

/// What may come back without being written down at the operation.
fn implied(operation: &Operation) -> impl Iterator<Item = (u16, &'static str)> {
    let has_json = operation.body.as_ref().is_some_and(|body| body.media == "application/json");
    ALWAYS.into_iter().chain(TO_JSON.into_iter().filter(move |_| has_json))
}

fn told(answer: &Answer) -> String {
    let usual = match answer.status {
        101 => "The connection goes on in another protocol",
        201 => "Made",
        202 => "Accepted",
        204 => "Done",
        400 => "Contradictory",
        404 => "There is nothing of this name",
        405 => "Not with this method",
        409 => "Something is in the way; see `message`",
        422 => "Not acceptable",
        500 => "It failed",
        507 => "There is no room on the disk",
        _ => "Done",
    };
    if answer.text.is_empty() { usual.to_owned() } else { answer.text.clone() }
}

fn media(content: &Content) -> Value {
    let mut shown = json!({});
    shown[content.media.as_str()] = form(content);
    shown
}

fn form(content: &Content) -> Value {
    match &content.shape {
        Some(shape) => json!({ "schema": shape }),
        None if content.media.starts_with("text/") => json!({ "schema": { "type": "string" } }),
        None => json!({}),
    }
}
