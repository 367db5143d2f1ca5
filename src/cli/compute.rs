//! `xtcli-compute`: services, bricks, ports and nodes for the people who use them, as one command or in a shell.
//!
//! It translates options to Marathon's app JSON and speaks the ordinary API; it decides nothing that the server would not decide for any other client.
//!
//! # Who is asked for a password
//! On a node the socket tells who one is, and nobody is asked, whatever the command. One exception: `xtcli-compute -c` alone, typed at a terminal by a user
//! who has a password, asks `User:` and `Password:`, because checking the password is what it is for; without `-c` the shell opens at once. Elsewhere,
//! and with `--user`, a password is asked unless a token is there.

use std::path::PathBuf;

use clap::{Args, CommandFactory, Parser, Subcommand};

use super::{
    client::{Client, ClientError, Role},
    connect::{ConnectError, LogIn, Reach},
    program::{self, Cause, EXIT_FAILED, EXIT_INTERRUPTED, EXIT_LATE, EXIT_USAGE, json},
    terminal::{self, AskError},
    tokens::Tokens,
};

mod brick;
mod complete;
mod exec;
mod node;
mod port;
mod service;
mod shell;
mod sse;
mod user;

pub use shell::PROMPT;

/// The name of the program.
pub const NAME: &str = "xtcli-compute";

const EXAMPLES: &str = "\
Examples:
  xtcli-compute -c                                   open the shell
  xtcli-compute -c mgmt service list                 run one command
  xtcli-compute -d compute1 mgmt service logs web -f talk to another server
  xtcli-compute mgmt service --id web --image zmfsea/web --cpu 0.5 --mem 256 --port @PORT:80

Exit codes: 0 done, 1 failed or refused, 2 wrong words, 3 no server answers, 4 not logged in or not allowed, 5 not done in time, 130 interrupted;
'mgmt service exec' has the code of its command.";

/// Services, storage and ports of the platform: one command, or a shell.
#[derive(Clone, Debug, Parser)]
#[command(name = NAME, version, after_help = EXAMPLES, propagate_version = false)]
pub struct Cli {
    /// connect: open the shell, or run the command that follows; a user with a password who types it alone at a terminal is asked for it
    #[arg(short = 'c', long = "connect", display_order = 0)]
    connect: bool,
    #[command(flatten)]
    reach: Reach,
    #[command(flatten)]
    manner: Manner,
    #[command(subcommand)]
    command: Option<Command>,
}

/// How every command behaves.
#[derive(Clone, Copy, Debug, Default, Args)]
struct Manner {
    /// JSON format output
    #[arg(short, long, global = true, display_order = 2)]
    json: bool,
    /// non-interactive mode: nothing is asked, everything is confirmed
    #[arg(short, long, global = true, display_order = 3)]
    yes: bool,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// manage services, bricks, ports, nodes and the own account
    #[command(subcommand)]
    Mgmt(Box<Mgmt>),
    /// forget the log-in on a server
    Logout,
    /// print the completions for a shell
    #[command(after_help = "Example:\n  xtcli-compute completion bash > /etc/bash_completion.d/xtcli-compute")]
    Completion {
        /// the shell
        shell: clap_complete::Shell,
    },
    /// write the manual pages into a directory
    #[command(hide = true)]
    Man {
        /// the directory
        directory: PathBuf,
    },
}

#[derive(Clone, Debug, Subcommand)]
enum Mgmt {
    /// start a service, or see and change those that are there
    Service(service::Arguments),
    /// storage that outlives its services
    Brick(brick::Arguments),
    /// ports that the platform allotted
    Port(port::Arguments),
    /// the machines
    Node(node::Arguments),
    /// the own account
    User(user::Arguments),
}

/// Why a command failed. The text is for the person at the terminal.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server says no, or nothing.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// There is no connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// A question had no answer, or the wrong one.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// An option's value means nothing.
    #[error(transparent)]
    Spec(#[from] service::SpecError),
    /// A line means nothing.
    #[error(transparent)]
    Words(#[from] super::words::WordsError),
    /// Wrong words, or help, which is no error.
    #[error(transparent)]
    Usage(clap::Error),
    /// Another word means nothing.
    #[error("{0}")]
    Word(String),
    /// It did not work.
    #[error("{0}")]
    Failed(String),
    /// It was accepted, and is not done yet.
    #[error("{0}")]
    Late(String),
    /// Ctrl-C; what goes on nevertheless, if anything does.
    #[error("{0}")]
    Interrupted(String),
    /// A command in a container ended with this code. It has said what it had to say.
    #[error("the command ended with code {0}")]
    Exit(u8),
}

impl program::Failure for Error {
    fn usage(error: clap::Error) -> Self {
        Self::Usage(error)
    }

    fn failed(text: String) -> Self {
        Self::Failed(text)
    }

    fn cause(&self) -> Cause<'_> {
        match self {
            Self::Client(error) => Cause::Client(error),
            Self::Connect(error) => Cause::Connect(error),
            Self::Ask(error) => Cause::Ask(error),
            Self::Usage(error) => Cause::Usage(error),
            Self::Spec(_) | Self::Words(_) | Self::Word(_) => Cause::Own(EXIT_USAGE),
            Self::Failed(_) => Cause::Own(EXIT_FAILED),
            Self::Late(_) => Cause::Own(EXIT_LATE),
            // Whoever pressed Ctrl-C knows.
            Self::Interrupted(text) if text.is_empty() => Cause::Told(EXIT_INTERRUPTED),
            Self::Interrupted(_) => Cause::Own(EXIT_INTERRUPTED),
            Self::Exit(code) => Cause::Told(*code),
        }
    }
}

/// What a command works with.
struct Context<'a> {
    client: &'a Client,
    manner: Manner,
}

/// Runs the program with these words, its own name first, and gives its exit code.
pub fn main(words: impl IntoIterator<Item = String>) -> u8 {
    program::run(words, start)
}

/// The whole command line, for completions and manual pages.
pub fn command() -> clap::Command {
    Cli::command()
}

#[cfg(test)]
fn parse(words: impl IntoIterator<Item = String>) -> Result<Cli, Error> {
    program::parse(words)
}

fn start(cli: Cli, runtime: &tokio::runtime::Runtime) -> Result<(), Error> {
    let tokens = Tokens::of_user();
    let Cli { connect, reach, manner, command } = cli;
    match command {
        Some(command) => {
            let work = async {
                if let Some(command) = without_server(command, &reach, &tokens)? {
                    let client = reach.connect(Role::User, LogIn::IfNeeded, &tokens).await?;
                    run(command, &Context { client: &client, manner }).await?;
                }
                Ok(())
            };
            runtime.block_on(interruptible(work))
        }
        None => {
            let log_in = if connect { LogIn::ToCheck } else { LogIn::IfNeeded };
            let client = runtime.block_on(reach.connect(Role::User, log_in, &tokens))?;
            shell::run(shell::Session { client, reach, manner, tokens }, runtime)
        }
    }
}

/// Does what needs no server; hands back what does.
fn without_server(command: Command, reach: &Reach, tokens: &Tokens) -> Result<Option<Mgmt>, Error> {
    match command {
        Command::Mgmt(mgmt) => match *mgmt {
            Mgmt::Service(arguments) if service::without_server(&arguments)? => {}
            mgmt => return Ok(Some(mgmt)),
        },
        Command::Completion { shell } => terminal::say(&program::completions(self::command(), shell)),
        Command::Man { directory } => program::write_manual(self::command(), &directory).map_err(Error::Failed)?,
        Command::Logout => {
            let url = super::connect::address(reach.node.as_deref().unwrap_or("127.0.0.1"))?;
            let forgotten = tokens.forget(&url).map_err(|error| Error::Failed(format!("cannot forget the log-in: {error}")))?;
            terminal::say(&if forgotten { format!("logged out of {url}") } else { format!("not logged in on {url}") });
        }
    }
    Ok(None)
}

async fn run(command: Mgmt, context: &Context<'_>) -> Result<(), Error> {
    match command {
        Mgmt::Service(arguments) => service::run(arguments, context).await,
        Mgmt::Brick(arguments) => brick::run(arguments, context).await,
        Mgmt::Port(arguments) => port::run(arguments, context).await,
        Mgmt::Node(arguments) => node::run(arguments, context).await,
        Mgmt::User(arguments) => user::run(arguments, context).await,
    }
}

/// Ctrl-C ends the work.
async fn interruptible(work: impl Future<Output = Result<(), Error>>) -> Result<(), Error> {
    program::interruptible(work, Error::Interrupted(String::new())).await
}

#[cfg(test)]
mod tests;
