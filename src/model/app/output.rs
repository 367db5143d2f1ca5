//! Writes Marathon's app JSON: the definition with Marathon's omissions. Status fields are the API's business.

use serde_json::{Map, Value};

use super::App;

/// The definition as `GET` shows it: always-present keys, keys dropped when empty, host-mode-only keys (reference: Marathon 1.11).
pub fn definition(app: &App) -> Map<String, Value> {
    let mut fields = Map::new();
    fields.insert("id".into(), app.id.as_str().into());
    fields
}
