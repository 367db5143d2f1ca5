//! The JSON bodies: functions of a snapshot, the server's [`Info`](super::Info) and the time, and of nothing else.
//!
//! Marathon's conventions: no `null` anywhere but in `/v2/info`, absent means unset; times in UTC with milliseconds.

pub mod app;
pub mod deployment;
pub mod endpoints;
pub mod group;
pub mod health;
pub mod node;
pub mod pod;
pub mod queue;
pub mod storage;
pub mod task;

use serde_json::{Map, Value};

/// The fields of an object literal.
fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}
