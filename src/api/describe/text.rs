//! Reads the description of the API: text files for people, from which everything else is made.
//!
//! Lines at the left margin begin something, indented lines say more of it; what stands behind two blanks is for people; `#` begins a comment.
//!
//! ```text
//! tag Apps  Long-running services
//!
//! GET /v2/apps/{appId...}/versions/{version}  One version of an app
//!   path version: Timestamp                   a parameter of the path; `...` in it: any number of segments
//!                                             (behind it in the last one may stand more: `{pod...}::status`)
//!   query embed: [AppEmbed]  What is shown    a parameter of the query; `= value` is its default
//!   body AppDefinition                        JSON; or `body application/octet-stream`
//!   200 App; Location  The app                a status, the shape of its body, its headers
//!   200 text/plain                            another form of the same answer
//!   404 409                                   statuses with the usual body of errors
//!
//! type App: AppDefinition  An app             an object, with all the fields of another one
//!   id*: PathId  Where it is                  `*`: always there
//!   mode: "RO" | "RW" = "RW"
//!   example {"id": "/web"}
//!
//! type PathId = string(/^[a-z]+$/)
//! ```
//!
//! Shapes: `string`, `integer`, `number`, `boolean`, `null`, `any`, names of types, `"literals"`, `[T]` lists, `{T}` maps with any keys, `A | B`;
//! `string(/regex/)`, `integer(0..10)`, `number(0..)`.

use serde_json::{Map, Value, json};

/// What there is to describe, in the order written.
#[derive(Debug, Default)]
pub struct Description {
    pub tags: Vec<(String, String)>,
    pub operations: Vec<Operation>,
    pub types: Vec<Type>,
}

/// One method of one path.
#[derive(Debug)]
pub struct Operation {
    pub tag: String,
    pub method: String,
    /// As it is written: `/v2/apps/{appId...}`.
    pub path: String,
    pub summary: String,
    pub parameters: Vec<Parameter>,
    pub body: Option<Content>,
    pub answers: Vec<Answer>,
}

/// A parameter of the path or the query.
#[derive(Debug)]
pub struct Parameter {
    pub place: &'static str,
    pub name: String,
    pub shape: Value,
    pub text: String,
    /// Of a path: it may have several segments.
    pub is_many: bool,
}

/// A body: its media type, and its shape when that is JSON.
#[derive(Debug)]
pub struct Content {
    pub media: String,
    pub shape: Option<Value>,
}

/// What may come back.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// `None`: no body.
    pub content: Option<Content>,
    pub headers: Vec<String>,
    pub text: String,
}

/// A named shape.
#[derive(Debug)]
pub struct Type {
    pub name: String,
    pub schema: Map<String, Value>,
    /// Where its fields come from besides its own.
    base: Option<String>,
}

/// What cannot be read, and where.
type Reading<T> = Result<T, String>;

/// Reads files of the form above, one after the other.
///
/// # Errors
/// The line that cannot be read, and why.
pub fn read<'a>(files: impl IntoIterator<Item = &'a str>) -> Reading<Description> {
    let mut description = Description::default();
    let mut last = Last::Nothing;
    for line in files.into_iter().flat_map(str::lines) {
        let read = match line.trim_end() {
            "" => Ok(()),
            line if line.trim_start().starts_with('#') => Ok(()),
            line if line.starts_with(' ') => more(&mut description, &last, line.trim_start()),
            line => begin(&mut description, line).map(|what| last = what),
        };
        read.map_err(|error| format!("{line}: {error}"))?;
    }
    inherit(&mut description)?;
    Ok(description)
}

enum Last {
    Nothing,
    Operation,
    Type,
}

fn begin(description: &mut Description, line: &str) -> Reading<Last> {
    let (head, text) = halves(line);
    let (word, rest) = head.split_once(' ').ok_or("a word and something behind it are expected")?;
    match word {
        "tag" => {
            description.tags.push((rest.to_owned(), text.to_owned()));
            Ok(Last::Nothing)
        }
        "type" => {
            let (head, equals) = match rest.split_once(" = ") {
                Some((head, shape)) => (head, Some(shape)),
                None => (rest, None),
            };
            let (name, base) = match head.split_once(": ") {
                Some((name, base)) => (name, Some(base.to_owned())),
                None => (head, None),
            };
            let mut schema = match equals {
                Some(shape_text) => object(shape(shape_text)?),
                None => object(json!({ "type": "object", "properties": {} })),
            };
            if !text.is_empty() {
                schema.insert("description".into(), text.into());
            }
            description.types.push(Type { name: name.to_owned(), schema, base });
            Ok(Last::Type)
        }
        "GET" | "HEAD" | "POST" | "PUT" | "PATCH" | "DELETE" => {
            let tag = description.tags.last().map(|(tag, _)| tag.clone()).ok_or("a tag goes first")?;
            let parameters = path_names(rest).map(|(name, is_many)| Parameter {
                place: "path",
                name,
                shape: json!({ "type": "string" }),
                text: String::new(),
                is_many,
            });
            description.operations.push(Operation {
                tag,
                method: word.to_owned(),
                path: rest.to_owned(),
                summary: text.to_owned(),
                parameters: parameters.collect(),
                body: None,
                answers: Vec::new(),
            });
            Ok(Last::Operation)
        }
        _ => Err("tag, type or a method is expected".into()),
    }
}

fn more(description: &mut Description, last: &Last, line: &str) -> Reading<()> {
    match last {
        Last::Operation => {
            let operation = description.operations.last_mut().ok_or("nothing was begun")?;
            if line.starts_with(|first: char| first.is_ascii_digit()) { answer(operation, line) } else { request(operation, line) }
        }
        Last::Type => field(description.types.last_mut().ok_or("nothing was begun")?, line),
        Last::Nothing => Err("nothing was begun".into()),
    }
}

fn request(operation: &mut Operation, line: &str) -> Reading<()> {
    let (head, text) = halves(line);
    let (word, rest) = head.split_once(' ').ok_or("a word and something behind it are expected")?;
    match word {
        "body" => operation.body = Some(content(rest)?),
        "query" | "path" => {
            let (name, shape_text) = rest.split_once(": ").ok_or("a name and a shape are expected")?;
            let shape = with_default(shape_text)?;
            if word == "query" {
                operation.parameters.push(Parameter {
                    place: "query",
                    name: name.to_owned(),
                    shape,
                    text: text.to_owned(),
                    is_many: false,
                });
            } else {
                let known = operation.parameters.iter_mut().find(|parameter| parameter.place == "path" && parameter.name == name);
                let known = known.ok_or("the path has no such parameter")?;
                (known.shape, known.text) = (shape, text.to_owned());
            }
        }
        _ => return Err("path, query, body or a status is expected".into()),
    }
    Ok(())
}

/// `404 409`, or `200 App; Location`, or `200 text/plain`.
fn answer(operation: &mut Operation, line: &str) -> Reading<()> {
    let (head, text) = halves(line);
    let (head, headers) = head.split_once(';').unwrap_or((head, ""));
    let mut words = head.split(' ');
    let statuses: Vec<u16> = words.by_ref().map_while(|word| word.parse().ok()).collect();
    let rest = head.trim_start_matches(|letter: char| letter.is_ascii_digit() || letter == ' ').trim();
    let headers: Vec<String> = headers.split(',').map(str::trim).filter(|header| !header.is_empty()).map(str::to_owned).collect();
    for status in statuses {
        let content = match rest {
            "" if status >= 400 => Some(content("Error")?),
            "" => None,
            rest => Some(content(rest)?),
        };
        operation.answers.push(Answer { status, content, headers: headers.clone(), text: text.to_owned() });
    }
    Ok(())
}

fn content(text: &str) -> Reading<Content> {
    let is_media = text.contains('/') && !text.contains(['[', '{', '"']);
    Ok(match text.split_once(' ').filter(|_| is_media) {
        Some((media, shape_text)) => Content { media: media.to_owned(), shape: Some(shape(shape_text)?) },
        None if is_media => Content { media: text.to_owned(), shape: None },
        None => Content { media: "application/json".into(), shape: Some(shape(text)?) },
    })
}

fn field(of: &mut Type, line: &str) -> Reading<()> {
    if let Some(example) = line.strip_prefix("example ") {
        let example: Value = serde_json::from_str(example).map_err(|error| format!("no JSON: {error}"))?;
        let examples = of.schema.entry("examples").or_insert_with(|| json!([]));
        examples.as_array_mut().ok_or("examples are a list")?.push(example);
        return Ok(());
    }
    let (head, text) = halves(line);
    let (name, shape_text) = head.split_once(": ").ok_or("a name and a shape are expected")?;
    let mut shape = with_default(shape_text)?;
    if !text.is_empty() {
        shape["description"] = text.into();
    }
    let name = match name.strip_suffix('*') {
        // A name of one star is a name.
        Some(name) if !name.is_empty() => {
            let required = of.schema.entry("required").or_insert_with(|| json!([]));
            required.as_array_mut().ok_or("required is a list")?.push(name.into());
            name
        }
        Some(_) | None => name,
    };
    of.schema["properties"][name] = shape;
    Ok(())
}

/// The fields of each base, before its own.
fn inherit(description: &mut Description) -> Reading<()> {
    for at in 0..description.types.len() {
        let Some(base) = description.types[at].base.take() else { continue };
        let base = description.types[..at]
            .iter()
            .find(|other| other.name == base)
            .ok_or_else(|| format!("{base}: no such type before this one"))?;
        let (properties, required) = (base.schema.get("properties").cloned(), base.schema.get("required").cloned());
        let schema = &mut description.types[at].schema;
        let mut all = properties.map(object).unwrap_or_default();
        all.extend(schema.remove("properties").map(object).unwrap_or_default());
        schema.insert("properties".into(), all.into());
        let lists = [required, schema.remove("required")];
        let all: Vec<Value> = lists.into_iter().flatten().filter_map(|list| list.as_array().cloned()).flatten().collect();
        if !all.is_empty() {
            schema.insert("required".into(), all.into());
        }
    }
    Ok(())
}

// === Shapes ===

fn with_default(text: &str) -> Reading<Value> {
    let Some((shape_text, default)) = text.split_once(" = ") else { return shape(text) };
    let mut shape = shape(shape_text)?;
    shape["default"] = serde_json::from_str(default).map_err(|error| format!("no JSON: {error}"))?;
    Ok(shape)
}

/// JSON Schema for a shape.
fn shape(text: &str) -> Reading<Value> {
    let alternatives = alternatives(text);
    if alternatives.len() == 1 {
        return one(alternatives[0]);
    }
    let shapes = alternatives.into_iter().map(one).collect::<Reading<Vec<_>>>()?;
    let literals: Option<Vec<Value>> = shapes.iter().map(|shape| shape.get("const").cloned()).collect();
    Ok(match literals {
        Some(literals) => json!({ "type": "string", "enum": literals }),
        None => json!({ "anyOf": shapes }),
    })
}

/// Apart at each `|` that is in no brackets, quotation marks or regular expression.
fn alternatives(text: &str) -> Vec<&str> {
    let (mut depth, mut quoted, mut start) = (0, false, 0);
    let mut found = Vec::new();
    for (at, letter) in text.char_indices() {
        match letter {
            '"' => quoted = !quoted,
            '[' | '{' | '(' if !quoted => depth += 1,
            ']' | '}' | ')' if !quoted => depth -= 1,
            '|' if !quoted && depth == 0 => {
                found.push(text[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    found.push(text[start..].trim());
    found
}

fn one(text: &str) -> Reading<Value> {
    let within = |open: char, close: char| text.strip_prefix(open).and_then(|rest| rest.strip_suffix(close));
    if let Some(item) = within('[', ']') {
        return Ok(json!({ "type": "array", "items": shape(item)? }));
    }
    if let Some(value) = within('{', '}') {
        return Ok(json!({ "type": "object", "additionalProperties": shape(value)? }));
    }
    if let Some(literal) = within('"', '"') {
        return Ok(json!({ "const": literal }));
    }
    let (name, limits) = match text.split_once('(') {
        Some((name, limits)) => (name, limits.strip_suffix(')').ok_or("a bracket is not closed")?),
        None => (text, ""),
    };
    match name {
        "any" => Ok(json!({})),
        "null" | "boolean" => Ok(json!({ "type": name })),
        "string" => {
            let mut schema = json!({ "type": "string" });
            if let Some(pattern) = limits.strip_prefix('/').and_then(|limits| limits.strip_suffix('/')) {
                schema["pattern"] = pattern.into();
            } else if !limits.is_empty() {
                return Err("a text is limited by a /regular expression/".into());
            }
            Ok(schema)
        }
        "integer" | "number" => {
            let mut schema = json!({ "type": name });
            if let Some((low, high)) = limits.split_once("..") {
                for (key, limit) in [("minimum", low), ("maximum", high)] {
                    if !limit.is_empty() {
                        schema[key] = serde_json::from_str(limit).map_err(|error| format!("no number: {error}"))?;
                    }
                }
            }
            Ok(schema)
        }
        name if name.starts_with(|first: char| first.is_ascii_uppercase()) && limits.is_empty() => {
            Ok(json!({ "$ref": format!("#/components/schemas/{name}") }))
        }
        _ => Err(format!("'{text}' is no shape")),
    }
}

// === Pieces ===

/// What is said, and what is said to people.
fn halves(line: &str) -> (&str, &str) {
    line.split_once("  ").map_or((line, ""), |(head, text)| (head.trim_end(), text.trim()))
}

/// The names in a path, and whether dots say that they may have several segments.
fn path_names(path: &str) -> impl Iterator<Item = (String, bool)> {
    path.split('/').filter_map(|segment| {
        let (name, _) = segment.strip_prefix('{')?.split_once('}')?;
        Some((name.trim_end_matches('.').to_owned(), name.ends_with("...")))
    })
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_become_schemas() {
        let check = |text: &str, expected: Value| assert_eq!(with_default(text).unwrap(), expected, "{text}");
        check("string", json!({"type": "string"}));
        check("string(/^a|b$/)", json!({"type": "string", "pattern": "^a|b$"}));
        check("integer(0..65535)", json!({"type": "integer", "minimum": 0, "maximum": 65535}));
        check("number(0.001..) = 1", json!({"type": "number", "minimum": 0.001, "default": 1}));
        check("[Task]", json!({"type": "array", "items": {"$ref": "#/components/schemas/Task"}}));
        check("{string}", json!({"type": "object", "additionalProperties": {"type": "string"}}));
        check("\"RO\" | \"RW\" = \"RW\"", json!({"type": "string", "enum": ["RO", "RW"], "default": "RW"}));
        check("string | {any}", json!({"anyOf": [{"type": "string"}, {"type": "object", "additionalProperties": {}}]}));
        for bad in ["text", "string(1)", "[string", "integer(a..)", "string = x"] {
            assert!(with_default(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn types_take_over_fields_and_operations_their_parts() {
        let text = "tag A  about\n\ntype Base\n  id*: string\ntype More: Base  text\n  n: integer  how many\n  example {\"id\": \"x\"}\n\n\
                    PUT /v2/x/{id...}/{n}  does it\n  path n: integer\n  query force: boolean = false  at once\n  body More\n  \
                    200 More; Location, X  done\n  200 text/plain\n  204\n  404 409\n";
        let description = read([text]).unwrap();
        let more = &description.types[1].schema;
        assert_eq!(more["properties"], json!({"id": {"type": "string"}, "n": {"type": "integer", "description": "how many"}}));
        assert_eq!((&more["required"], &more["examples"], &more["description"]), (&json!(["id"]), &json!([{"id": "x"}]), &json!("text")));
        let operation = &description.operations[0];
        let parameters: Vec<_> = operation.parameters.iter().map(|parameter| (parameter.place, parameter.name.as_str())).collect();
        assert_eq!(parameters, [("path", "id"), ("path", "n"), ("query", "force")]);
        let answers: Vec<_> =
            operation.answers.iter().map(|answer| (answer.status, answer.content.as_ref().map(|content| content.media.as_str()))).collect();
        let json = Some("application/json");
        assert_eq!(answers, [(200, json), (200, Some("text/plain")), (204, None), (404, json), (409, json)]);
        assert_eq!(operation.answers[0].headers, ["Location", "X"]);
        for bad in ["  x: string", "GET /x  y", "type X: Y  z", "tag A  b\nGET /x  y\n  query x", "tag A  b\nGET /x  y\n  path x: string"] {
            assert!(read([bad]).is_err(), "{bad}");
        }
    }
}
