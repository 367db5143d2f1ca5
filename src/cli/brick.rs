//! `xtao brick`: see, release, back up and restore bricks. The first go through the API; backup and restore work on the server's directory, so they
//! need root on the machine that has the brick, and no server.

use std::{
    io::{self, BufRead, IsTerminal, Write},
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
    cli::client::{Client, ClientError, Credentials, Role},
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
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// All bricks: size, use, app, and who holds them
    List {
        #[command(flatten)]
        server: Server,
        /// Print JSON, as the API answers it
        #[arg(short, long)]
        json: bool,
    },
    /// One brick, everything that is known of it
    Show {
        /// The brick's name, from 'xtao brick list'
        name: BrickName,
        #[command(flatten)]
        server: Server,
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
        #[command(flatten)]
        server: Server,
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
        #[command(flatten)]
        server: Server,
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
        #[command(flatten)]
        place: Place,
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
        #[command(flatten)]
        place: Place,
    },
    /// Check that a backup is whole
    Verify {
        /// The backup
        file: PathBuf,
    },
}

#[derive(Clone, Debug, Args)]
struct Server {
    #[command(flatten)]
    place: Place,
    /// Another server's address, instead of the socket in --work_dir
    #[arg(long, env = "XTAO_URL")]
    url: Option<String>,
}

impl Server {
    fn client(&self) -> Result<Client, ClientError> {
        match &self.url {
            Some(url) => Client::at(url, Credentials::None, None),
            None => Client::on_node(&self.place.work_dir, Role::Admin),
        }
    }
}

#[derive(Clone, Debug, Args)]
struct Place {
    /// The server's directory on this machine
    #[arg(long = "work_dir", alias = "work-dir", env = "XTAO_WORK_DIR", default_value = "/var/lib/xtao")]
    work_dir: PathBuf,
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
    /// The work ended in a panic.
    #[error("{0}")]
    Broken(String),
    /// No, said the person, or could not be asked.
    #[error("{0}")]
    Declined(&'static str),
}

/// Carries out the command and prints what it has to say.
///
/// # Errors
/// See [`Error`].
pub async fn run(arguments: Arguments) -> Result<(), Error> {
    match arguments.command {
        Command::List { server, json } => {
            let answer = server.client()?.call(Method::GET, "/v2/bricks", None).await?;
            say(&if json { pretty(&answer) } else { show::table(&answer) });
        }
        Command::Show { name, server, json } => {
            let answer = server.client()?.call(Method::GET, &path(&name)?, None).await?;
            say(&if json { pretty(&answer) } else { show::one(&answer) });
        }
        Command::Delete { name, force, yes, server } => {
            let path = path(&name)?;
            confirm(yes, &format!("Delete brick '{name}' and all its data? There is no way back."))?;
            let query = if force { "?force=true" } else { "" };
            server.client()?.call(Method::DELETE, &format!("{path}{query}"), None).await?;
            say(&format!("brick '{name}' is being deleted"));
        }
        Command::Fence { name, epoch, yes, server } => {
            let path = path(&name)?;
            confirm(
                yes,
                &format!("Is the holder of brick '{name}' (lease {epoch}) certainly gone? If it still runs, the data will be destroyed."),
            )?;
            server.client()?.call(Method::POST, &format!("{path}/fence"), Some(&json!({ "epoch": epoch }))).await?;
            say(&format!("lease {epoch} of brick '{name}' is over"));
        }
        Command::Backup { name, file, freeze, force, place } => {
            let backup = Backup { work_dir: place.work_dir, brick: name.clone(), file: file.clone(), freeze, force };
            let done = watched("backing up", move |watch| backup.run(watch)).await?;
            say(&format!("brick '{name}' is in {}: {} MiB of data", file.display(), done.data.div_ceil(MIB)));
        }
        Command::Restore { name, file, pool, yes, place } => {
            confirm(yes, &format!("Replace the data of brick '{name}' by that of {}?", file.display()))?;
            let restore = Restore { work_dir: place.work_dir, brick: name.clone(), file, pool };
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

/// Prints; a reader that has gone away (`| head`) is no error.
fn say(text: &str) {
    _ = writeln!(io::stdout(), "{}", text.trim_end());
}

fn confirm(yes: bool, question: &str) -> Result<(), Error> {
    if yes {
        return Ok(());
    }
    if !io::stdin().is_terminal() {
        return Err(Error::Declined("nobody is there to be asked: confirm with -y"));
    }
    _ = write!(io::stderr(), "{question} [y/N] ");
    let mut answer = String::new();
    _ = io::stdin().lock().read_line(&mut answer);
    if matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes") { Ok(()) } else { Err(Error::Declined("nothing was done")) }
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
