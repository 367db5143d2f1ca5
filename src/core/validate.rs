//! placeholder
use crate::model::{app::App, request::Violation};
pub struct Ctx {
    pub admin: bool,
}
pub fn app(_: &App, _: &Ctx) -> Vec<Violation> {
    Vec::new()
}
