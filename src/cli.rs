//! The command lines: clients of the API, one file a command.

pub mod audit;
pub mod auth;
pub mod brick;
pub mod client;
