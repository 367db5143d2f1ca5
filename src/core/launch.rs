//! What a task is launched with.

pub mod environment;
