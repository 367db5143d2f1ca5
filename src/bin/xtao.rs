//! `xtao`: the server and its administration.

use std::{io::Write, path::PathBuf, process::ExitCode};

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use tracing::{error, warn};
use xtao::{
    cli,
    cli::{
        program::{EXIT_USAGE, complain, completions, write_manual},
        terminal,
    },
    cluster::engine::process::shim,
    config,
    config::Config,
    server, telemetry,
};

/// Most of what the server allocates in one thread is freed in another, which the C library's allocator is slow at.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// It looks through what each thread keeps for itself once a MiB, not every 64 KiB: that was a twentieth of all work for a change. jemalloc(3), TUNING.
#[expect(unsafe_code, reason = "jemalloc finds its settings by this name")]
#[unsafe(export_name = "_rjem_malloc_conf")]
static ALLOCATOR_SETTINGS: &[u8; 29] = b"tcache_gc_incr_bytes:1048576\0";

/// Worker threads at most: the work is waiting, and each thread has a stack.
const MAX_WORKERS: usize = 4;

/// Open files of the server.
const MAX_FILES: u64 = 65_536;

/// A container service platform: Marathon's API, names that stay, ports that stay, storage that follows.
#[derive(Parser)]
#[command(name = "xtao", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the server
    Serve(Unread),
    /// Makes, locks and removes users, and gives them passwords
    Auth(cli::auth::Arguments),
    /// Shows who changed what, and who logged in
    Audit(cli::audit::Arguments),
    /// Shows, backs up, restores and releases bricks
    Brick(cli::brick::Arguments),
    /// Makes the registry for the users' images, and tells how it is
    Registry(cli::registry::Arguments),
    /// Prints the completions for a shell
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Writes the manual pages into a directory
    #[command(hide = true)]
    Man {
        /// The directory
        directory: PathBuf,
    },
    /// Prints the version
    Version,
}

/// The flags of `serve` are read by the configuration, together with the environment and the file.
#[derive(Args)]
struct Unread {}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args_os().map(|arg| arg.to_string_lossy().into_owned()).collect();
    if args.get(1).is_some_and(|command| command == shim::COMMAND) {
        // Each task without an image has one of these: it does not even read a command line.
        let rest: Vec<_> = std::env::args_os().skip(2).collect();
        return shim::main(&rest);
    }
    if args.get(1).is_some_and(|command| command == "serve") {
        return serve(&args[2..]);
    }
    let cli = command().try_get_matches_from(&args).and_then(|matches| Cli::from_arg_matches(&matches));
    match cli {
        Err(error) => {
            _ = error.print();
            // Of wrong words, as the other programs; that of settings that cannot be used is the server's.
            ExitCode::from(if error.use_stderr() { EXIT_USAGE } else { 0 })
        }
        Ok(Cli { command }) => run(command),
    }
}

/// The whole command line, with the flags of `serve` in their place.
fn command() -> clap::Command {
    Cli::command().mut_subcommand("serve", |_| config::command())
}

fn run(command: Command) -> ExitCode {
    match command {
        Command::Serve(Unread {}) => serve(&[]),
        Command::Auth(args) => auth(args),
        Command::Audit(args) => exit(block_on(async { Ok(cli::audit::run(args).await?) })),
        Command::Brick(args) => exit(block_on(async { Ok(cli::brick::run(args).await?) })),
        Command::Registry(args) => exit(block_on(async { Ok(cli::registry::run(args).await?) })),
        Command::Completion { shell } => {
            terminal::say(&completions(self::command(), shell));
            ExitCode::SUCCESS
        }
        Command::Man { directory } => exit(write_manual(self::command(), &directory).map_err(anyhow::Error::msg)),
        Command::Version => exit(writeln!(std::io::stdout(), "xtao {}", env!("CARGO_PKG_VERSION")).map_err(Into::into)),
    }
}

fn auth(args: cli::auth::Arguments) -> ExitCode {
    match block_on(async { Ok(cli::auth::run(args).await) }) {
        Ok(Err(cli::auth::Error::Said)) => ExitCode::FAILURE,
        Ok(outcome) => exit(outcome.map_err(Into::into)),
        Err(failure) => exit(Err(failure)),
    }
}

fn serve(args: &[String]) -> ExitCode {
    let (config, warnings) = match Config::load(args) {
        Ok(loaded) => loaded,
        Err(error) => return refuse(&error),
    };
    let levels = match telemetry::init(&config.logging_level) {
        Ok(levels) => levels,
        Err(error) => {
            complain(&error.to_string());
            return ExitCode::from(config::EXIT_BAD_SETTINGS);
        }
    };
    for warning in warnings {
        warn!("{warning}");
    }
    more_files();
    match block_on(async { Ok(server::run(config, levels, server::Cluster::Engine).await) }) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(failure)) => {
            error!("{}", chain(&failure));
            ExitCode::from(failure.exit_code())
        }
        Err(failure) => exit(Err(failure)),
    }
}

/// Connections, logs and pipes are all files, and many systems allow a process 1,024 of them unless it asks for more.
fn more_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = maximum.map_or(MAX_FILES, |maximum| maximum.min(MAX_FILES));
    if current.is_some_and(|current| current < wanted)
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum })
    {
        warn!(%error, "The limit of open files stays as it is.");
    }
}

fn block_on<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(cores.clamp(2, MAX_WORKERS)).enable_all().build()?;
    runtime.block_on(future)
}

/// Settings that cannot be used; or help, which was asked for.
fn refuse(error: &config::ConfigError) -> ExitCode {
    match error {
        // It knows where it belongs, and in which colours.
        config::ConfigError::Flags(error) => _ = error.print(),
        other => complain(&other.to_string()),
    }
    ExitCode::from(error.exit_code())
}

fn exit(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&chain(&*error));
            ExitCode::FAILURE
        }
    }
}

/// `error` and what caused it, unless it says so itself.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}
