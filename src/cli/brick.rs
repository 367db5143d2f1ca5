//! `xtao brick`: see, release, back up and restore bricks. The first go through the API; backup and restore work on the server's directory, so they
//! need root on the machine that has the brick, and no server.

use std::{
    io::{self, IsTerminal, Write},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    brick::{
        BrickError,
        backup::{self, Backup, Restore, Summary, Watch},
        name,
    },
    cli::{
        client::{ClientError, Role},
        connect::{ConnectError, LogIn, Reach},
        terminal::{AskError, confirm, say},
        tokens::Tokens,
    },
    model::id::{BrickName, PoolName},
};

pub(super) mod show;

/// How often progress is shown.
const PROGRESS_EVERY: Duration = Duration::from_millis(500);

const MIB: u64 = 1024 * 1024;

/// Storage that outlives its services: see, release, back up, restore.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "A brick belongs to an app and a directory in its container. It is made when the app starts first, kept when the app is deleted, \
    and mounted again, with its data, when the same app comes back."
)]
pub struct Arguments {
    #[command(flatten)]
    reach: Reach,
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// All bricks: size, use, app, and who holds them
    List {
        /// Print JSON, as the API answers it
        #[arg(short, long)]
        json: bool,
    },
    /// One brick, everything that is known of it
    Show {
        /// The brick's name, from 'xtao brick list'
        name: BrickName,
        /// Print JSON, as the API answers it
        #[arg(short, long)]
        json: bool,
    },
    /// Delete a brick and its data for good
    #[command(
        after_help = "Refused while an app uses the brick. --force deletes it although its app still exists, but never while a service \
        has it mounted."
    )]
    Delete {
        /// The brick's name
        name: BrickName,
        /// Also when its app still exists
        #[arg(long)]
        force: bool,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
    /// Confirm that the holder of a brick is certainly gone, so that its service may start elsewhere
    #[command(
        after_help = "Only when the node that holds the brick is switched off, or will never run that container again: if it still runs, \
        two services write to the brick and destroy its data. 'xtao brick show NAME' tells the node and the epoch."
    )]
    Fence {
        /// The brick's name
        name: BrickName,
        /// The number of the lease that is over, from 'xtao brick show NAME'; nothing happens when it is not the present one
        #[arg(long)]
        epoch: u64,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
    /// Copy a brick to one file
    #[command(
        after_help = "Works while the brick's service is stopped, whether the server runs or not. With --freeze the service may run: its \
        writes wait until the copy is done (only a moment where the disk can share blocks, as xfs and btrfs can), and it goes on also when this \
        command is interrupted or killed. The file has the size of the data, not of the brick.\n\n\
        Examples:\n  xtao brick backup NAME /backup/testdb.brick\n  xtao brick backup --freeze --force NAME /backup/testdb.brick"
    )]
    Backup {
        /// The brick's name
        name: BrickName,
        /// The file to make
        file: PathBuf,
        /// Copy it although it is mounted; its service stands still meanwhile
        #[arg(long)]
        freeze: bool,
        /// Replace the file if it exists
        #[arg(long)]
        force: bool,
    },
    /// Replace a brick's data by that of a backup
    #[command(
        after_help = "The service must be stopped (scale it to 0). The backup is read and checked first, then written to a new image, which is \
        checked and put in place at once: until then the old data is untouched. A brick that does not exist is made; one that is smaller than the \
        backup is refused.\n\nExample:\n  xtao brick restore NAME /backup/testdb.brick"
    )]
    Restore {
        /// The brick's name; it may be another than the one that was backed up
        name: BrickName,
        /// The backup
        file: PathBuf,
        /// Where to make the brick if it does not exist [default: as it was]
        #[arg(long)]
        pool: Option<PoolName>,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
    /// Check that a backup is whole
    Verify {
        /// The backup
        file: PathBuf,
    },
}

/// Why the command failed. The text is for the person at the terminal.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What a pool, file or disk says.
    #[error(transparent)]
    Brick(#[from] BrickError),
    /// What the server says, or why it says nothing.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// There is no connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The work ended in a panic.
    #[error("{0}")]
    Broken(String),
    /// No, said the person, or could not be asked.
    #[error(transparent)]
    Ask(#[from] AskError),
}

/// Carries out the command and prints what it has to say.
///
/// # Errors
/// See [`Error`].
pub async fn run(arguments: Arguments) -> Result<(), Error> {
    let Arguments { reach, command } = arguments;
    let work_dir = reach.work_dir().to_owned();
    let tokens = Tokens::of_user();
    let connect = || reach.connect(Role::Admin, LogIn::IfNeeded, &tokens);
    match command {
        Command::List { json } => {
            let answer = connect().await?.call(Method::GET, "/v2/bricks", None).await?;
            say(&if json { pretty(&answer) } else { show::table(&answer) });
        }
        Command::Show { name, json } => {
            let path = path(&name)?;
            let answer = connect().await?.call(Method::GET, &path, None).await?;
            say(&if json { pretty(&answer) } else { show::one(&answer) });
        }
        Command::Delete { name, force, yes } => {
            let path = path(&name)?;
            confirm(yes, &format!("Delete brick '{name}' and all its data? There is no way back."))?;
            let query = if force { "?force=true" } else { "" };
            connect().await?.call(Method::DELETE, &format!("{path}{query}"), None).await?;
            say(&format!("brick '{name}' is being deleted"));
        }
        Command::Fence { name, epoch, yes } => {
            let path = path(&name)?;
            confirm(
                yes,
                &format!("Is the holder of brick '{name}' (lease {epoch}) certainly gone? If it still runs, the data will be destroyed."),
            )?;
            connect().await?.call(Method::POST, &format!("{path}/fence"), Some(&json!({ "epoch": epoch }))).await?;
            say(&format!("lease {epoch} of brick '{name}' is over"));
        }
        Command::Backup { name, file, freeze, force } => {
            let backup = Backup { work_dir, brick: name.clone(), file: file.clone(), freeze, force };
            let done = watched("backing up", move |watch| backup.run(watch)).await?;
            say(&format!("brick '{name}' is in {}: {} MiB of data", file.display(), done.data.div_ceil(MIB)));
        }
        Command::Restore { name, file, pool, yes } => {
            confirm(yes, &format!("Replace the data of brick '{name}' by that of {}?", file.display()))?;
            let restore = Restore { work_dir, brick: name.clone(), file, pool };
            let done = watched("restoring", move |watch| restore.run(watch)).await?;
            let (brick, at) = (&done.header.brick, done.header.created_at);
            say(&format!("brick '{name}' has the data that '{brick}' had at {at}: {} MiB", done.data.div_ceil(MIB)));
        }
        Command::Verify { file } => {
            let shown = file.display().to_string();
            let done = watched("reading", move |watch| backup::verify(&file, watch)).await?;
            say(&show::backup(&shown, &done));
        }
    }
    Ok(())
}

fn path(name: &BrickName) -> Result<String, Error> {
    // Its letters mean nothing in a URL.
    Ok(format!("/v2/bricks/{}", name::brick(name)?))
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default()
}

/// Runs what takes long, shows how far it is, and lets it clean up when a signal asks us to end.
async fn watched<Work>(what: &'static str, work: Work) -> Result<Summary, Error>
where
    Work: FnOnce(&mut dyn Watch) -> Result<Summary, BrickError> + Send + 'static,
{
    let is_stopped = Arc::new(AtomicBool::new(false));
    let signals = tokio::spawn(watch_signals(is_stopped.clone()));
    let mut watch = Terminal { what, is_stopped, shown: None };
    let done = tokio::task::spawn_blocking(move || {
        let done = work(&mut watch);
        watch.clear();
        done
    });
    let done = done.await.map_err(|error| Error::Broken(format!("{what} was broken off: {error}")))?;
    signals.abort();
    Ok(done?)
}

async fn watch_signals(is_stopped: Arc<AtomicBool>) {
    let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
    let Ok(signals) = kinds.into_iter().map(signal).collect::<io::Result<Vec<_>>>() else { return };
    let waits = signals.into_iter().map(|mut signal| Box::pin(async move { signal.recv().await }));
    futures_util::future::select_all(waits).await;
    is_stopped.store(true, Ordering::Relaxed);
}

struct Terminal {
    what: &'static str,
    is_stopped: Arc<AtomicBool>,
    shown: Option<Instant>,
}

impl Terminal {
    fn clear(&self) {
        if self.shown.is_some() {
            _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

impl Watch for Terminal {
    fn progress(&mut self, done: u64, total: u64) {
        if self.shown.is_some_and(|at| at.elapsed() < PROGRESS_EVERY) || !io::stderr().is_terminal() {
            return;
        }
        self.shown = Some(Instant::now());
        let percent = (done.saturating_mul(100) / total.max(1)).min(100);
        _ = write!(io::stderr(), "\r\x1b[K{}: {} MiB, {percent} %", self.what, done / MIB);
    }

    fn is_stopped(&self) -> bool {
        self.is_stopped.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests;
