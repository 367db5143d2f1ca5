//! placeholder
use crate::model::{app::App, id::TaskId};
pub fn task_environment(
    _: &App,
    _: &TaskId,
    _: &str,
    _: &[u16],
    _: &[u16],
    _: Option<&str>,
    _: impl Fn(u16) -> Option<u16>,
) -> Vec<(String, String)> {
    Vec::new()
}
