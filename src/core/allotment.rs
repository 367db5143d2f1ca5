//! Port numbers and bricks that stay with an app id.

pub mod token;
