//! What subscribers of `/v2/events` are told.

use serde_json::{Map, Value};

use super::{id::PathId, time::Timestamp};

/// One event, complete but for its encoding.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Marathon's `eventType`, such as `status_update_event`.
    pub kind: &'static str,
    /// When.
    pub timestamp: Timestamp,
    /// The app it is about, for filters and for who may see it.
    pub app: Option<PathId>,
    /// All other fields.
    pub fields: Map<String, Value>,
}

impl Event {
    /// The body: `fields` with `eventType` and `timestamp`.
    pub fn body(&self) -> Value {
        let mut body = self.fields.clone();
        body.insert("eventType".into(), self.kind.into());
        body.insert("timestamp".into(), self.timestamp.to_string().into());
        Value::Object(body)
    }
}
