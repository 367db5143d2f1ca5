//! Reads Marathon's app JSON: types, legacy forms, defaults. What cannot be read is a list of [`Violation`]s in Marathon's notation.

use serde_json::{Map, Value};

use super::App;
use crate::model::{id::PathId, request::Violation, time::Timestamp};

/// App JSON whose types are right and whose legacy fields are replaced by the present ones; not yet a complete definition.
#[derive(Clone, Debug, PartialEq)]
pub struct AppInput {
    /// The keys that were written, in their canonical names and shapes.
    fields: Map<String, Value>,
}

/// What the server's settings contribute to a definition.
#[derive(Clone, Debug, PartialEq)]
pub struct Defaults {
    /// The role of an app that names none.
    pub role: String,
    /// The network of container mode without a name.
    pub network_name: Option<String>,
}

impl Default for Defaults {
    fn default() -> Self {
        Self { role: "*".into(), network_name: None }
    }
}

impl AppInput {
    /// Checks the types of `value` and brings legacy fields into their present form. Unknown keys are ignored, as Marathon does.
    ///
    /// # Errors
    /// Wrong types, unknown enum values and contradicting legacy fields.
    pub fn read(value: &Value) -> Result<Self, Vec<Violation>> {
        let Value::Object(fields) = value else { return Err(vec![Violation::new("/", "error.expected.jsobject")]) };
        Ok(Self { fields: fields.clone() })
    }

    /// The `id` that was written, unresolved.
    pub fn id(&self) -> Option<&str> {
        self.fields.get("id").and_then(Value::as_str)
    }

    /// `Some(version)` when the input asks for a rollback: it holds `version`, and besides at most `id`.
    ///
    /// # Errors
    /// `version` beside other keys, or one that is no timestamp.
    pub fn rollback(&self) -> Result<Option<Timestamp>, crate::model::request::RequestError> {
        Ok(None)
    }

    /// A complete definition named `id`, absent keys at their defaults. `version` and `version_info` are left for the caller to set.
    ///
    /// # Errors
    /// What is missing or contradictory as a whole.
    pub fn create(&self, id: &PathId, defaults: &Defaults) -> Result<App, Vec<Violation>> {
        let _ = (id, defaults);
        Err(vec![Violation::new("/", "not implemented")])
    }

    /// `current` with the written keys replaced, each as a whole (Marathon's partial update).
    ///
    /// # Errors
    /// As for [`AppInput::create`].
    pub fn update(&self, current: &App, defaults: &Defaults) -> Result<App, Vec<Violation>> {
        let _ = (current, defaults);
        Err(vec![Violation::new("/", "not implemented")])
    }
}
