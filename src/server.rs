//! `xtao serve`: puts the rooms together.

use std::net::SocketAddr;

use crate::config::Config;

/// Why the server ended.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A port is taken, or may not be used.
    #[error("cannot listen on {address} for {purpose}: {source}")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// Who wanted to: `the API`, `names`.
        purpose: &'static str,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// Anything else.
    #[error(transparent)]
    Failed(#[from] anyhow::Error),
}

/// Runs until the process is told to stop.
///
/// # Errors
/// See [`ServeError`].
pub async fn run(config: Config) -> Result<(), ServeError> {
    Err(anyhow::anyhow!("there is nothing to run yet in {}", config.work_dir.display()).into())
}
