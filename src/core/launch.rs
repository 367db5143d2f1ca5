//! From waiting to launched: the queue with its back-off, the matcher, and what a launch carries.

pub mod constraints;
mod fit;
pub mod matcher;
mod ports;
pub mod queue;
pub(in crate::core) mod residency;
