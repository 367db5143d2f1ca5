//! Looking something up in the log: the newest lines that fit, oldest first.

use std::{io, path::Path};

use serde_json::Value;

use super::{FILES, path_of};
use crate::model::time::Timestamp;

/// Which lines are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// Of this user only.
    pub user: Option<String>,
    /// Not before this moment.
    pub since: Option<Timestamp>,
    /// The newest so many.
    pub limit: usize,
}

/// The lines that fit. Costs at most one reading of all files, of which one at a time is in memory. A line that cannot be read (one that is just being
/// written, or was cut off) is left out.
///
/// # Errors
/// A file cannot be read.
pub fn read(directory: &Path, query: &Query) -> io::Result<Vec<Value>> {
    let mut found = Vec::new();
    for number in 0..FILES {
        let text = match std::fs::read(path_of(directory, number)) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        for line in text.rsplit(|byte| *byte == b'\n') {
            let Ok(entry) = serde_json::from_slice::<Value>(line) else { continue };
            if query.since.is_some_and(|since| time_of(&entry).is_some_and(|time| time < since)) {
                continue;
            }
            if query.user.as_deref().is_some_and(|user| entry["user"] != user) {
                continue;
            }
            found.push(entry);
            if found.len() >= query.limit {
                found.reverse();
                return Ok(found);
            }
        }
    }
    found.reverse();
    Ok(found)
}

fn time_of(entry: &Value) -> Option<Timestamp> {
    entry["time"].as_str()?.parse().ok()
}
