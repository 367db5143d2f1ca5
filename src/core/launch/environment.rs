//! placeholder
#![allow(missing_docs)]
use crate::model::{app::App, id::TaskId};
pub struct Place<'a> {
    pub task: &'a TaskId,
    pub host: &'a str,
    pub ports: &'a [u16],
    pub container_ports: &'a [u16],
}
pub fn environment(_: &App, _: Place<'_>, _: Option<&str>, _: impl Fn(u16) -> Option<u16>) -> Vec<(String, String)> {
    Vec::new()
}
