//! Plain data: ids, times, amounts, definitions, durable records, and the two enums of the cluster seam. No I/O, no clock, no decisions.
//!
//! Marathon's JSON is read and written here too ([`app::input`], [`app::output`]), so that one place knows its defaults and omissions.

pub mod address;
pub mod agent;
pub mod app;
pub mod artifact;
pub mod brick;
pub mod cluster;
pub mod deployment;
pub mod environment;
pub mod event;
pub mod frame;
pub mod group;
pub mod health;
pub mod host_volume;
pub mod id;
pub mod image;
pub mod instance;
pub mod pod;
pub mod port;
pub mod record;
pub mod request;
pub mod resources;
pub mod time;
pub mod user;
