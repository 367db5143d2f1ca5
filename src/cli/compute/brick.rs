//! `mgmt brick`: see, release, back up and restore bricks over the API.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, IsTerminal, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use bytes::Bytes;
use clap::{Args, Subcommand};
use futures_util::{Stream, StreamExt};
use reqwest::Method;
use serde_json::Value;

use super::{Context, Error, json};
use crate::{
    cli::{
        brick::show,
        client::{Client, encode},
        table::cell,
        terminal::{self, say},
    },
    model::id::BrickName,
};

/// How often progress is shown.
const PROGRESS_EVERY: Duration = Duration::from_millis(500);

/// What is read of a backup at once, in bytes.
const PART_BYTES: usize = 256 * 1024;

const MIB: u64 = 1024 * 1024;

/// `mgmt brick`
#[derive(Clone, Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// all bricks: size, use, service, and who holds them
    List,
    /// everything about a brick
    Show {
        /// the brick's name, from 'mgmt brick list'
        #[arg(value_name = "BRICK")]
        name: BrickName,
    },
    /// delete a brick and its data for good
    #[command(next_display_order = 10)]
    Release {
        /// the brick's name
        #[arg(value_name = "BRICK")]
        name: BrickName,
        /// also when its service still exists; never while it is mounted
        #[arg(long)]
        force: bool,
    },
    /// copy a brick to a file
    #[command(next_display_order = 10, after_help = "Example:\n  mgmt brick backup NAME testdb.brick --freeze")]
    Backup {
        /// the brick's name
        #[arg(value_name = "BRICK")]
        name: BrickName,
        /// the file to make
        file: PathBuf,
        /// also while its service runs: its writes wait until the copy is done
        #[arg(long)]
        freeze: bool,
        /// replace the file if it exists
        #[arg(long)]
        force: bool,
    },
    /// replace a brick's data by that of a backup; its service must be stopped
    Restore {
        /// the brick's name
        #[arg(value_name = "BRICK")]
        name: BrickName,
        /// the backup
        file: PathBuf,
    },
}

pub(super) async fn run(arguments: Arguments, context: &Context<'_>) -> Result<(), Error> {
    let Context { client, manner } = context;
    match arguments.command {
        Command::List => {
            let answer: Value = client.get("/v2/bricks").await?;
            say(&if manner.json { json(&answer["bricks"]) } else { show::table(&answer) });
        }
        Command::Show { name } => {
            let answer: Value = client.get(&path(&name)).await?;
            say(&if manner.json { json(&answer) } else { show::one(&answer) });
        }
        Command::Release { name, force } => {
            terminal::confirm(manner.yes, &format!("Delete brick '{name}' and all its data? There is no way back."))?;
            let query = if force { "?force=true" } else { "" };
            client.call(Method::DELETE, &format!("{}{query}", path(&name)), None).await?;
            terminal::note(&format!("brick '{name}' is being deleted"));
        }
        Command::Backup { name, file, freeze, force } => {
            let bytes = backup(client, &name, &file, freeze, force).await?;
            terminal::note(&format!("brick '{name}' is in {}: {} MiB", file.display(), bytes.div_ceil(MIB)));
        }
        Command::Restore { name, file } => {
            terminal::confirm(manner.yes, &format!("Replace the data of brick '{name}' by that of {}?", file.display()))?;
            restore(client, &name, &file).await?;
            terminal::note(&format!("brick '{name}' has the data of {}", file.display()));
        }
    }
    Ok(())
}

/// The names of all bricks, for completion.
pub(super) async fn names(client: &Client) -> Result<Vec<String>, Error> {
    let answer: Value = client.get("/v2/bricks").await?;
    Ok(answer["bricks"].as_array().into_iter().flatten().filter_map(|brick| brick["name"].as_str().map(str::to_owned)).collect())
}

fn path(name: &BrickName) -> String {
    format!("/v2/bricks/{}", encode(name.as_str()))
}

/// Into a file beside the one that is wanted, which takes its place when it is whole and durable.
async fn backup(client: &Client, name: &BrickName, file: &Path, freeze: bool, force: bool) -> Result<u64, Error> {
    if !force && file.exists() {
        return Err(Error::Failed(format!("{} exists: name another file, or replace it with --force", file.display())));
    }
    let mut stream = client.stream(&format!("{}/backup?freeze={freeze}", path(name)), "application/octet-stream").await?;
    let mut part = Part::create(file)?;
    let mut progress = Progress::new("backing up", None);
    while let Some(bytes) = stream.next().await {
        let bytes = bytes?;
        part.write(&bytes)?;
        progress.add(bytes.len());
    }
    progress.close();
    let done = progress.done;
    part.finish(file)?;
    Ok(done)
}

/// A file that is not whole yet; it goes when it is dropped.
struct Part {
    file: File,
    path: PathBuf,
    is_done: bool,
}

impl Part {
    fn create(wanted: &Path) -> Result<Self, Error> {
        let mut name = wanted.file_name().unwrap_or_default().to_owned();
        name.push(format!(".part-{}", std::process::id()));
        let path = wanted.with_file_name(name);
        let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let file = opened.map_err(|error| Error::Failed(format!("cannot make {}: {error}", path.display())))?;
        Ok(Self { file, path, is_done: false })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.file.write_all(bytes).map_err(|error| Error::Failed(format!("cannot write {}: {error}", self.path.display())))
    }

    fn finish(mut self, wanted: &Path) -> Result<(), Error> {
        let placed = self.file.sync_all().and_then(|()| fs::rename(&self.path, wanted));
        placed.map_err(|error| Error::Failed(format!("cannot write {}: {error}", wanted.display())))?;
        self.is_done = true;
        Ok(())
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.is_done {
            _ = fs::remove_file(&self.path);
        }
    }
}

async fn restore(client: &Client, name: &BrickName, file: &Path) -> Result<(), Error> {
    let cannot = |error: io::Error| Error::Failed(format!("cannot read {}: {error}", file.display()));
    let opened = tokio::fs::File::open(file).await.map_err(cannot)?;
    let about = opened.metadata().await.map_err(cannot)?;
    if !about.is_file() {
        return Err(Error::Failed(format!("{} is no file", file.display())));
    }
    // The server would refuse it too, but only after it has been sent for a while.
    let brick: Value = client.get(&path(name)).await?;
    if brick["holder"].is_object() {
        return Err(Error::Failed(format!(
            "brick '{name}' is mounted by {} on {}: stop its service first, with 'mgmt service scale {} 0'",
            cell(&brick["holder"]["task"]),
            cell(&brick["holder"]["host"]),
            cell(&brick["app"]).trim_start_matches('/')
        )));
    }
    let progress = Progress::new("restoring", Some(about.len()));
    client
        .upload(Method::PUT, &format!("{}/backup", path(name)), "application/octet-stream", Some(about.len()), parts(opened, progress))
        .await?;
    Ok(())
}

fn parts(file: tokio::fs::File, progress: Progress) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    futures_util::stream::try_unfold((file, progress), |(mut file, mut progress)| async move {
        let mut part = vec![0; PART_BYTES];
        let read = tokio::io::AsyncReadExt::read(&mut file, &mut part).await?;
        if read == 0 {
            progress.close();
            return Ok(None);
        }
        part.truncate(read);
        progress.add(read);
        Ok(Some((Bytes::from(part), (file, progress))))
    })
}

/// On standard error, if that is a terminal.
struct Progress {
    what: &'static str,
    done: u64,
    total: Option<u64>,
    shown: Option<Instant>,
}

impl Progress {
    fn new(what: &'static str, total: Option<u64>) -> Self {
        Self { what, done: 0, total, shown: None }
    }

    fn add(&mut self, bytes: usize) {
        self.done += bytes as u64;
        if self.shown.is_some_and(|at| at.elapsed() < PROGRESS_EVERY) || !io::stderr().is_terminal() {
            return;
        }
        self.shown = Some(Instant::now());
        let percent = self.total.filter(|total| *total > 0).map(|total| format!(", {} %", self.done * 100 / total)).unwrap_or_default();
        _ = write!(io::stderr(), "\r\x1b[K{}: {} MiB{percent}", self.what, self.done / MIB);
    }

    fn close(&mut self) {
        if self.shown.take().is_some() {
            _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}
