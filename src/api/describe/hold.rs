//! Holds an answer against a description, which it knows from the OpenAPI document alone. For tests, of this program and from outside.

use serde_json::Value;

/// An answer to a request.
pub struct Answer<'a> {
    pub method: &'a str,
    /// Of the path, decoded, without empty ones and without the prefixes that mean nothing.
    pub segments: &'a [String],
    pub status: u16,
    /// The media type of the body, without parameters.
    pub kind: Option<&'a str>,
    /// Of `Location` and `Marathon-Deployment-Id` those that are there.
    pub headers: Vec<&'a str>,
    pub body: &'a str,
}

/// # Errors
/// What was answered without being described: a path, a method, a status, a header, a media type, a field of a body.
pub fn answered(document: &Value, answer: &Answer<'_>) -> Result<(), String> {
    let Answer { method, segments, status, kind, headers, body } = answer;
    let (status, line) = (*status, format!("{method} /{}: {status}", segments.join("/")));
    let json: Option<Value> = serde_json::from_str(body).ok();
    let message = json.as_ref().and_then(|json| json["message"].as_str()).unwrap_or_default();
    let nowhere = status == 404 && message == "URI not found" || status == 405 || *method == "OPTIONS";
    let Some((path, operation)) = operation(document, method, segments) else {
        let unheard_of = !["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"].contains(method) && (400..500).contains(&status);
        // Whoever is not known, or asks under a wrong name, is not told what there is.
        let refused = matches!(status, 401 | 403 | 429 | 503);
        return if nowhere || unheard_of || refused { Ok(()) } else { Err(format!("{line} is not described: {body}")) };
    };
    if nowhere {
        return Ok(());
    }
    let described = operation["responses"].get(status.to_string());
    let described = described.ok_or_else(|| format!("{line} is not among the answers of {path}: {body}"))?;
    if let Some(header) = headers.iter().find(|header| described["headers"].get(header).is_none()) {
        return Err(format!("{line}: the header {header} is not described"));
    }
    if *method == "HEAD" {
        return Ok(());
    }
    let forms = described["content"].as_object();
    let Some(kind) = kind else {
        return if body.is_empty() && forms.is_none() {
            Ok(())
        } else {
            Err(format!("{line}: {body:?} without a type, {forms:?} is described"))
        };
    };
    let form = forms.and_then(|forms| forms.get(*kind)).ok_or_else(|| format!("{line}: {kind} is not described"))?;
    if *kind == "application/json" {
        let json = json.ok_or_else(|| format!("{line}: no JSON: {body}"))?;
        fits(document, &json, &form["schema"]).map_err(|error| format!("{line}: {error}\n{json:#}"))?;
    }
    Ok(())
}

/// The path and the operation that a request is: of several the one with the most segments that are its own.
pub fn operation<'a>(document: &'a Value, method: &str, segments: &[String]) -> Option<(&'a str, &'a Value)> {
    let method = if method == "HEAD" { "get".to_owned() } else { method.to_lowercase() };
    let paths = document["paths"].as_object()?.iter();
    let of_method = paths.filter_map(|(path, methods)| Some((path.as_str(), methods.get(&method)?)));
    let fitting = of_method.filter(|(path, operation)| matches(operation, &pattern(path), segments));
    fitting.max_by_key(|(path, _)| pattern(path).iter().filter(|segment| !segment.ends_with('}')).count())
}

fn pattern(path: &str) -> Vec<&str> {
    path.split('/').filter(|segment| !segment.is_empty()).collect()
}

fn matches(operation: &Value, pattern: &[&str], segments: &[String]) -> bool {
    let is_many = |name: &str| {
        let parameters = operation["parameters"].as_array().into_iter().flatten();
        parameters.into_iter().any(|one| one["name"] == *name && one["x-many-segments"] == true)
    };
    let [one, rest @ ..] = pattern else { return segments.is_empty() };
    // What stands behind the name of a parameter ends its last segment.
    let Some((name, end)) = one.strip_prefix('{').and_then(|one| one.split_once('}')) else {
        return segments.first().is_some_and(|segment| segment == one && matches(operation, rest, &segments[1..]));
    };
    let most = if is_many(name) { segments.len() } else { segments.len().min(1) };
    let ends = |segment: &String| segment.strip_suffix(end).is_some_and(|before| !before.is_empty());
    (1..=most).any(|length| ends(&segments[length - 1]) && matches(operation, rest, &segments[length..]))
}

/// Does `value` fit `schema`, without a field that is not described?
///
/// # Errors
/// Where it does not, and why.
pub fn fits(document: &Value, value: &Value, schema: &Value) -> Result<(), String> {
    if let Some(name) = schema["$ref"].as_str().and_then(|name| name.rsplit('/').next()) {
        let named = document["components"]["schemas"].get(name).ok_or_else(|| format!("there is no type {name}"))?;
        return fits(document, value, named).map_err(|error| format!("{name}{error}"));
    }
    if let Some(shapes) = schema["anyOf"].as_array() {
        let errors: Vec<String> = shapes.iter().filter_map(|shape| fits(document, value, shape).err()).collect();
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
        _ => value.is_object(),
    };
    if schema["type"].as_str().is_some_and(|kind| !is_of(kind)) {
        return wrong("is not of type");
    }
    let beyond =
        |key: &str, is_beyond: fn(f64, f64) -> bool| value.as_f64().zip(schema[key].as_f64()).is_some_and(|(n, limit)| is_beyond(n, limit));
    if beyond("minimum", |n, limit| n < limit) || beyond("maximum", |n, limit| n > limit) {
        return wrong("is beyond");
    }
    if let (Some(text), Some(pattern)) = (value.as_str(), schema["pattern"].as_str()) {
        let pattern = regex::Regex::new(pattern).map_err(|error| format!(": {error}"))?;
        if !pattern.is_match(text) {
            return wrong("does not match");
        }
    }
    for (at, item) in value.as_array().into_iter().flatten().enumerate() {
        fits(document, item, schema.get("items").unwrap_or(&Value::Null)).map_err(|error| format!("({at}){error}"))?;
    }
    fields(document, value, schema)
}

fn fields(document: &Value, value: &Value, schema: &Value) -> Result<(), String> {
    let Some(found) = value.as_object() else { return Ok(()) };
    let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
    if let Some(missing) = required.into_iter().find(|name| !found.contains_key(*name)) {
        return Err(format!("/{missing} is missing"));
    }
    let (own, others) = (schema["properties"].as_object(), schema.get("additionalProperties"));
    for (name, item) in found {
        match own.and_then(|own| own.get(name)).or(others) {
            Some(shape) => fits(document, item, shape).map_err(|error| format!("/{name}{error}"))?,
            None if own.is_some() => return Err(format!("/{name} is not described")),
            None => {}
        }
    }
    Ok(())
}
