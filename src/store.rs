//! Durable records: one atomic batch at a time, fenced by an epoch.
