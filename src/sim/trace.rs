//! What happened in a run, line by line, for people. Nothing is formatted unless someone wants to read it.

use std::collections::VecDeque;

use crate::model::id::{InstanceId, TaskId};

/// Lines kept; of a longer run the last ones.
pub const MAX_TRACE_LINES: usize = 20_000;

/// Collects lines, or does nothing.
#[derive(Debug, Default)]
pub struct Trace {
    lines: Option<VecDeque<String>>,
    echo: bool,
}

impl Trace {
    /// Keeps nothing.
    pub fn off() -> Self {
        Self::default()
    }

    /// Keeps the last [`MAX_TRACE_LINES`] lines.
    pub fn kept() -> Self {
        Self { lines: Some(VecDeque::new()), echo: false }
    }

    /// Prints each line at once, and keeps none.
    pub fn printed() -> Self {
        Self { lines: None, echo: true }
    }

    /// Adds one line about the moment `now` (milliseconds).
    pub fn add(&mut self, now: u64, line: impl FnOnce() -> String) {
        if !self.echo && self.lines.is_none() {
            return;
        }
        let line = format!("{:>6}.{:03} {}", now / 1000, now % 1000, line());
        if self.echo {
            println!("{line}");
        } else if let Some(lines) = &mut self.lines {
            if lines.len() == MAX_TRACE_LINES {
                lines.pop_front();
            }
            lines.push_back(line);
        }
    }

    /// The lines that were kept.
    pub fn into_lines(self) -> Vec<String> {
        self.lines.unwrap_or_default().into()
    }
}

/// A task in few letters: `/app1#6b0c.2`.
pub fn short(task: &TaskId) -> String {
    format!("{}.{}", short_instance(&task.instance), task.incarnation)
}

/// An instance in few letters: `/app1#6b0c`.
pub fn short_instance(instance: &InstanceId) -> String {
    let uuid = instance.uuid().simple().to_string();
    // Time-based ids of one moment differ in their first letters, random ones everywhere.
    format!("{}#{}", instance.app(), &uuid[..6])
}
