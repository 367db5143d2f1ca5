//! The page for people: one piece of HTML, with nothing from elsewhere and no scripts.

use std::fmt::Write as _;

use serde_json::Value;

use super::text::Description;

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222;background:#fff}\
code,pre{font:13px/1.5 ui-monospace,monospace}pre{background:#f4f4f4;padding:.6rem;overflow-x:auto}\
summary{cursor:pointer;padding:.2rem 0}summary b{display:inline-block;min-width:4.2rem}summary span{color:#666}\
details>div{margin:0 0 .8rem 4.2rem}table{border-collapse:collapse}td{padding:.1rem .8rem .1rem 0;vertical-align:top}\
@media(prefers-color-scheme:dark){body{color:#ddd;background:#181818}pre{background:#262626}a{color:#8bf}summary span{color:#999}}";

/// HTML.
pub fn page(description: &Description, document: &Value) -> String {
    let mut html = Html(String::new());
    html.raw("<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>xtao: the API</title><style>");
    html.raw(STYLE);
    html.raw("</style><h1>The API</h1><p>");
    html.text(document["info"]["description"].as_str().unwrap_or_default());
    html.raw("</p><p>For programs: <a href=\"v2/openapi.json\">OpenAPI 3.1</a></p>");
    for (tag, about) in &description.tags {
        html.raw("<h2>");
        html.text(tag);
        html.raw("</h2><p>");
        html.text(about);
        html.raw("</p>");
        for (path, methods) in document["paths"].as_object().into_iter().flatten() {
            for (method, operation) in
                methods.as_object().into_iter().flatten().filter(|(_, operation)| operation["tags"][0] == tag.as_str())
            {
                html.operation(method, path, operation);
            }
        }
    }
    html.raw("<h2>Types</h2>");
    for one in &description.types {
        html.named(&one.name, &Value::Object(one.schema.clone()));
    }
    html.raw("</html>\n");
    html.0
}

struct Html(String);

impl Html {
    fn raw(&mut self, html: &str) {
        self.0.push_str(html);
    }

    fn text(&mut self, text: &str) {
        for (at, part) in text.split('`').enumerate() {
            let part = part.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;");
            // Every other piece stood between two marks.
            // Writing into a string does not fail.
            _ = if at % 2 == 1 { write!(self.0, "<code>{part}</code>") } else { write!(self.0, "{part}") };
        }
    }

    fn operation(&mut self, method: &str, path: &str, operation: &Value) {
        self.raw("<details><summary><b>");
        self.text(&method.to_uppercase());
        self.raw("</b><code>");
        self.text(path);
        self.raw("</code> <span>");
        self.text(operation["summary"].as_str().unwrap_or_default());
        self.raw("</span></summary><div><table>");
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            self.row(parameter["name"].as_str().unwrap_or_default(), &parameter["schema"], &parameter["description"]);
        }
        for (media, content) in operation["requestBody"]["content"].as_object().into_iter().flatten() {
            self.row("body", &content["schema"], &media.as_str().into());
        }
        for (status, answer) in operation["responses"].as_object().into_iter().flatten() {
            let forms = answer["content"].as_object();
            let shape = forms.and_then(|forms| forms.values().next()).map_or(&Value::Null, |form| &form["schema"]);
            self.row(status, shape, &answer["description"]);
        }
        self.raw("</table></div></details>");
    }

    fn row(&mut self, name: &str, schema: &Value, about: &Value) {
        self.raw("<tr><td><code>");
        self.text(name);
        self.raw("</code></td><td>");
        self.shape(schema);
        self.raw("</td><td>");
        self.text(about.as_str().unwrap_or_default());
        self.raw("</td></tr>");
    }

    fn named(&mut self, name: &str, schema: &Value) {
        self.raw(&format!("<h3 id=\"{name}\">"));
        self.text(name);
        self.raw("</h3><p>");
        self.text(schema["description"].as_str().unwrap_or_default());
        self.raw("</p>");
        match schema["properties"].as_object() {
            Some(fields) => {
                let required = schema["required"].as_array();
                self.raw("<table>");
                for (field, shape) in fields {
                    let always = required.is_some_and(|names| names.iter().any(|name| name == field.as_str()));
                    self.row(&format!("{field}{}", if always { "*" } else { "" }), shape, &shape["description"]);
                }
                self.raw("</table>");
            }
            None => self.shape(schema),
        }
        for example in schema["examples"].as_array().into_iter().flatten() {
            self.raw("<pre>");
            self.text(&serde_json::to_string_pretty(example).unwrap_or_default());
            self.raw("</pre>");
        }
    }

    /// A shape in short, with links to those that have names.
    fn shape(&mut self, schema: &Value) {
        if let Some(name) = schema["$ref"].as_str().and_then(|name| name.rsplit('/').next()) {
            self.raw(&format!("<a href=\"#{name}\">{name}</a>"));
        } else if let Some(shapes) = schema["anyOf"].as_array() {
            for (at, shape) in shapes.iter().enumerate() {
                self.raw(if at > 0 { " | " } else { "" });
                self.shape(shape);
            }
        } else if let Some(literals) = schema["enum"].as_array() {
            let literals: Vec<String> = literals.iter().map(Value::to_string).collect();
            self.text(&literals.join(" | "));
        } else if let Some(literal) = schema.get("const") {
            self.text(&literal.to_string());
        } else if schema["type"] == "array" {
            self.raw("list of ");
            self.shape(&schema["items"]);
        } else if let Some(values) = schema.get("additionalProperties") {
            self.raw("map of ");
            self.shape(values);
        } else {
            self.text(schema["type"].as_str().unwrap_or_default());
        }
        if let Some(default) = schema.get("default") {
            self.text(&format!(" = `{default}`"));
        }
    }
}
