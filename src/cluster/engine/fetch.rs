//! What a task wants to have in its sandbox before it starts: fetched by HTTP or from the node, unpacked, made executable.
use super::{jobs::Context, launch::End};
use crate::model::cluster::Launch;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::watch;

pub(super) async fn run(_context: &Arc<Context>, launch: &Launch, _directory: &Path, _cancel: &watch::Receiver<bool>) -> Result<(), End> {
    if launch.app.fetch.is_empty() { Ok(()) } else { Err(End::failed("fetch")) }
}
