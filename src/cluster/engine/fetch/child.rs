//! `xtao task-shim --fetch`: fetches and unpacks for one task, in a process of its own that can do little else ([`confine`]).
//!
//! The [`Order`] is a line of JSON on its standard input, which stays open: when it ends, nobody wants the rest. What happens is told in lines of JSON on
//! its standard output, each a [`Word`]. What it needs of the node is opened before it gives up its rights: the sandbox, the node's files that are
//! wanted, and whom to trust in TLS. Then it goes on the network, and reads the first byte that somebody else has written.

use std::{
    cell::OnceCell,
    io::{self, BufRead, Read, Write},
    path::{Path, PathBuf},
    process::{ExitCode, Stdio},
};

use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt},
    process::Child,
    sync::{Semaphore, SemaphorePermit},
};

use super::{Fetcher, MAX_BYTES, Tree, confine};
use crate::{
    cluster::engine::process::shim::{self, COMMAND},
    model::{app::Fetch, artifact, host_volume::HostVolumeRule, id::Owner},
};

/// Tasks that are fetched for at once. Others wait.
static TURNS: Semaphore = Semaphore::const_new(64);
/// Bytes of an order. More than a definition may have.
const MAX_ORDER_BYTES: u64 = 16 << 20;
/// Bytes of everything that is told about one thing.
const MAX_WORD_BYTES: u64 = 64 << 10;
/// Letters of a reason: however they are escaped, it is no more than [`MAX_WORD_BYTES`].
const MAX_REASON: usize = 10_000;
/// Bytes of what is said on standard error.
const MAX_ERROR_BYTES: u64 = 4 << 10;
/// What of the server's environment says how names are looked up, and whom to trust.
const VARIABLES: [&str; 4] = ["SSL_CERT_FILE", "SSL_CERT_DIR", "RES_OPTIONS", "LOCALDOMAIN"];

/// What is to be fetched.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Order {
    pub(super) fetch: Vec<Fetch>,
    /// The sandbox.
    pub(super) directory: PathBuf,
    /// Which files of the node may be taken, and as whom.
    pub(super) rule: HostVolumeRule,
    pub(super) account: Option<Owner>,
    /// Administrators wrote the definition.
    pub(super) trusted: bool,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Word {
    /// The one with this number is begun.
    Fetching(usize),
    Done,
    /// Nothing more comes: a sentence for the user.
    Failed(String),
}

// === The server ===

/// The right to have a child.
pub(super) async fn turn() -> Option<SemaphorePermit<'static>> {
    TURNS.acquire().await.ok() // It is never closed.
}

/// Has a child of `program` do it; each thing that is begun is told, as it may be shown. The child ends with this future.
///
/// # Errors
/// A sentence for the user.
pub(super) async fn run(program: &Path, order: &Order, tell: impl Fn(String)) -> Result<(), String> {
    let broken = |error: io::Error| format!("the process that fetches cannot be started: {error}");
    let mut command = tokio::process::Command::new(program);
    command.args([COMMAND, shim::FETCH]).env_clear().current_dir("/").kill_on_drop(true);
    command.envs(VARIABLES.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(broken)?;
    let errors = child.stderr.take();
    let log = async {
        let mut said = Vec::new();
        if let Some(errors) = errors {
            _ = errors.take(MAX_ERROR_BYTES).read_to_end(&mut said).await;
        }
        String::from_utf8_lossy(&said).trim().escape_debug().to_string()
    };
    let listen = async {
        let outcome = listen(&mut child, order, tell).await;
        // Nothing is written any more when this is over.
        _ = child.kill().await;
        outcome
    };
    let (outcome, said) = tokio::join!(listen, log);
    if !said.is_empty() {
        tracing::warn!(%said, "The process that fetches for a task complains.");
    }
    outcome
}

async fn listen(child: &mut Child, order: &Order, tell: impl Fn(String)) -> Result<(), String> {
    let (Some(mut input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
        return Err("the process that fetches has no input or output".to_owned());
    };
    let mut line = serde_json::to_vec(order).map_err(|error| format!("it cannot be written down what to fetch: {error}"))?;
    line.push(b'\n');
    // One that has ended says so by its output.
    _ = input.write_all(&line).await;
    let mut current = None;
    let shown = |fetch: &Fetch| artifact::shown(&fetch.uri);
    let limit = MAX_WORD_BYTES * (order.fetch.len() as u64 + 1);
    let mut words = tokio::io::BufReader::new(output.take(limit)).lines();
    while let Ok(Some(line)) = words.next_line().await {
        match serde_json::from_str(&line) {
            Ok(Word::Done) => return Ok(()),
            Ok(Word::Failed(why)) => return Err(why),
            Ok(Word::Fetching(number)) => {
                let Some(fetch) = order.fetch.get(number) else { break };
                current = Some(fetch);
                tell(shown(fetch));
            }
            Err(_) => break,
        }
    }
    _ = child.start_kill();
    let how = child.wait().await.map_or_else(|error| error.to_string(), |status| status.to_string());
    let what = current.map(|fetch| format!("could not fetch {}: ", shown(fetch))).unwrap_or_default();
    Err(format!("{what}the process that fetches has ended before it was done ({how})"))
}

// === The child ===

/// The child.
pub(in crate::cluster::engine) fn main() -> ExitCode {
    shim::close_what_was_inherited();
    let last = match order().and_then(|order| work(&order)) {
        Ok(()) => Word::Done,
        Err(why) => Word::Failed(why.chars().take(MAX_REASON).collect()),
    };
    if say(&last).is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn order() -> Result<Order, String> {
    let mut line = Vec::new();
    io::stdin().lock().take(MAX_ORDER_BYTES).read_until(b'\n', &mut line).map_err(|error| format!("the order cannot be read: {error}"))?;
    serde_json::from_slice(&line).map_err(|error| format!("the order cannot be understood: {error}"))
}

fn say(word: &Word) -> io::Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer(&mut out, word)?;
    out.write_all(b"\n")?;
    out.flush()
}

fn work(order: &Order) -> Result<(), String> {
    confine::limit()?;
    let fetcher = Fetcher {
        tree: Tree::open(&order.directory).map_err(|error| format!("its sandbox cannot be opened: {error}"))?,
        rule: order.rule.clone(),
        account: order.account.clone(),
        trusted: order.trusted,
        client: OnceCell::new(),
    };
    let prepared: Vec<_> = order.fetch.iter().map(|fetch| fetcher.prepare(fetch)).collect();
    // Before there are other threads: each is confined on its own.
    confine::enter(&fetcher.tree)?;
    std::thread::Builder::new().name("wanted".into()).spawn(until_unwanted).map_err(|error| format!("cannot begin: {error}"))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .map_err(|error| format!("cannot begin: {error}"))?;
    runtime.block_on(async {
        let mut left = MAX_BYTES;
        for (number, (fetch, prepared)) in order.fetch.iter().zip(prepared).enumerate() {
            say(&Word::Fetching(number)).map_err(|error| format!("nobody listens: {error}"))?;
            let failed = |why| format!("could not fetch {}: {why}", artifact::shown(&fetch.uri));
            left = left.saturating_sub(fetcher.fetch(prepared.map_err(failed)?, left).await.map_err(failed)?);
        }
        Ok(())
    })
}

/// The other end of the input is closed when the server is gone, or does not want it any more.
fn until_unwanted() {
    while io::stdin().lock().read(&mut [0; 64]).is_ok_and(|length| length > 0) {}
    std::process::exit(1);
}
