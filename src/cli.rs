//! The command lines: clients of the API, one file a command.

pub mod auth;
pub mod brick;
pub mod client;
