//! `xtao brick`: bricks seen, backed up, restored and released, as a client of the API.

/// What follows `xtao brick`.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {}

/// Runs the command.
///
/// # Errors
/// What the API or the file says.
pub async fn run(args: Args) -> anyhow::Result<()> {
    anyhow::bail!("there is no such command yet: {args:?}")
}
