//! `imgcli`: images in the platform's registry, for the people whose they are. It needs no Docker daemon and no root: archives of `docker save` are read
//! in place, and the registry is spoken to directly, with tokens that the server gives.
//!
//! On a node the account says who one is. Ownership is looked at here, so that a mistake costs no upload, and enforced by the registry.

use std::path::PathBuf;

use clap::{CommandFactory, Parser, Subcommand};
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    client::{Client, ClientError, Role, encode_path},
    connect::{ConnectError, LogIn, Reach},
    program::{self, Cause, EXIT_DENIED, EXIT_FAILED, EXIT_INTERRUPTED, EXIT_SILENCE, EXIT_USAGE},
    table,
    terminal::{self, AskError},
    tokens::Tokens,
};
use crate::{
    model::image::{ImageName, ImageNameError, LIBRARY},
    registry::{archive::ArchiveError, client::RegistryError, pull::PullError, push::PushError},
};

mod known;
mod pull;
mod push;
mod show;
mod tokens;

/// The name of the program.
pub const NAME: &str = "imgcli";

const EXAMPLES: &str = "\
An image's name begins with its user's: zmfsea/cmp-postgresql is zmfsea's, and anna, without a user, is the platform's. Everybody pushes and \
removes the own ones; the platform's are the administrators'. On a node the account says who you are; elsewhere log in with -d NODE --user NAME.

Examples:
  docker save zmfsea/cmp-postgresql > cmp-postgresql.tar    where the image was built
  imgcli push cmp-postgresql.tar                            on a node, as zmfsea
  imgcli push --name zmfsea/pg:15 cmp-postgresql.tar        under another name
  imgcli list
  imgcli pull anna - | docker load                          the platform's base image, into this machine's Docker

Exit codes: 0 done, 1 failed, 2 wrong words, 3 no server answers, 4 not logged in or not allowed, 130 interrupted.";

/// Images of the platform: push, look, fetch, remove.
#[derive(Clone, Debug, Parser)]
#[command(name = NAME, version, after_help = EXAMPLES, arg_required_else_help = true, propagate_version = false)]
pub struct Cli {
    #[command(flatten)]
    reach: Reach,
    /// JSON format output
    #[arg(short, long, global = true)]
    json: bool,
    /// non-interactive mode: nothing is asked, everything is confirmed
    #[arg(short, long, global = true)]
    yes: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// send the images of an archive that docker save wrote
    #[command(
        after_help = "Every image of the archive is sent under each of its names. Layers that the registry has are not sent again, so a push that broke \
        off goes on where it was, and a second one takes a moment. The archive may be compressed with gzip; a plain one is quicker. A name that is there \
        already means the new image afterwards; services go on with the old one until they are started anew."
    )]
    Push {
        /// the archive
        file: PathBuf,
        /// the name for its one image, instead of those in the archive; several are separated by commas
        #[arg(long, value_name = "NAME[:TAG]", value_delimiter = ',')]
        name: Vec<String>,
    },
    /// the images that you may use
    #[command(visible_alias = "ls")]
    List,
    /// one image with all its tags
    Show {
        /// its name
        name: String,
    },
    /// remove a tag, or an image with all its tags
    #[command(
        after_help = "NAME:TAG removes one tag, NAME all of them. Services that run go on. The room is given back when an administrator lets the \
        registry collect its garbage."
    )]
    Rm {
        /// its name
        #[arg(value_name = "NAME[:TAG]")]
        name: String,
    },
    /// fetch an image into an archive for docker load
    #[command(
        after_help = "Docker then has it under its short name and under its full one: anna, and registry.marathon.mesos:5000/anna.\n\nExample:\n  imgcli pull \
        anna - | docker load"
    )]
    Pull {
        /// its name
        #[arg(value_name = "NAME[:TAG]")]
        name: String,
        /// the archive to write; - is standard output
        file: PathBuf,
    },
    /// print the completions for a shell
    #[command(after_help = "Example:\n  imgcli completion bash > /etc/bash_completion.d/imgcli")]
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
    /// A name is none.
    #[error(transparent)]
    Name(#[from] ImageNameError),
    /// The archive.
    #[error("{}: {error}", file.display())]
    Archive {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        #[source]
        error: ArchiveError,
    },
    /// The registry.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// A push.
    #[error(transparent)]
    Push(#[from] PushError),
    /// A pull.
    #[error(transparent)]
    Pull(#[from] PullError),
    /// It is not one's own.
    #[error("{0}")]
    NotYours(String),
    /// Wrong words, or help, which is no error.
    #[error(transparent)]
    Usage(clap::Error),
    /// A word that cannot be used here.
    #[error("{0}")]
    Word(String),
    /// The name of an image that is not the platform's.
    #[error("{0}")]
    Elsewhere(String),
    /// There is no registry, or it does not run.
    #[error("{0}")]
    NoRegistry(String),
    /// Something else.
    #[error("{0}")]
    Failed(String),
    /// Ctrl-C.
    #[error("interrupted; what was sent completely need not be sent again")]
    Interrupted,
}

impl program::Failure for Error {
    fn usage(error: clap::Error) -> Self {
        Self::Usage(error)
    }

    fn failed(text: String) -> Self {
        Self::Failed(text)
    }

    fn cause(&self) -> Cause<'_> {
        Cause::Own(match self {
            Self::Client(error) => return Cause::Client(error),
            Self::Connect(error) => return Cause::Connect(error),
            Self::Ask(error) => return Cause::Ask(error),
            Self::Usage(error) => return Cause::Usage(error),
            Self::Interrupted => EXIT_INTERRUPTED,
            Self::NoRegistry(_) => EXIT_SILENCE,
            Self::Name(_) | Self::Word(_) | Self::Elsewhere(_) => EXIT_USAGE,
            Self::NotYours(_) | Self::Push(PushError::Token(_)) => EXIT_DENIED,
            Self::Registry(error) | Self::Push(PushError::Registry(error)) | Self::Pull(PullError::Registry(error)) => match error {
                RegistryError::Denied(_) => EXIT_DENIED,
                RegistryError::Unreachable { .. } => EXIT_SILENCE,
                _ => EXIT_FAILED,
            },
            Self::Archive { .. } | Self::Push(_) | Self::Pull(_) | Self::Failed(_) => EXIT_FAILED,
        })
    }

    /// With names out of archives, which may have anything in them.
    fn text(&self) -> String {
        table::printable(&self.to_string())
    }
}

/// What the server says of its registry, and of who asks.
#[derive(Clone, Debug, Deserialize)]
struct About {
    name: String,
    state: String,
    address: Option<String>,
    user: String,
    admin: bool,
}

impl About {
    async fn ask(client: &Client) -> Result<Self, Error> {
        Ok(client.get("/v2/registry").await?)
    }

    /// Where the registry listens.
    fn address(&self) -> Result<&str, Error> {
        match (&self.address, self.state.as_str()) {
            (Some(address), _) => Ok(address),
            (None, "absent") => {
                Err(Error::NoRegistry("the platform has no registry yet; an administrator makes one with: xtao registry install".to_owned()))
            }
            (None, _) => Err(Error::NoRegistry(
                "the platform's registry does not run at the moment; try again later, or look at the service with: xtcli-compute mgmt service show registry"
                    .to_owned(),
            )),
        }
    }

    /// Reads a name; one of another registry cannot be used here.
    fn name(&self, text: &str) -> Result<ImageName, Error> {
        let own: Vec<String> = [Some(self.name.clone()), self.address.clone()].into_iter().flatten().collect();
        let name = ImageName::parse(text, &own)?;
        if name.owner().is_none() {
            return Err(Error::Elsewhere(format!("'{text}' names another registry than the platform's ({})", self.name)));
        }
        Ok(name)
    }

    /// Whether the caller may push or remove it; the registry looks again.
    fn check_owner(&self, name: &ImageName) -> Result<(), Error> {
        let owner = name.owner().unwrap_or_default();
        if self.admin || owner == self.user && owner != LIBRARY {
            return Ok(());
        }
        let (_, last) = name.repository().rsplit_once('/').unwrap_or_default();
        let whose =
            if owner == LIBRARY { "a name without a user is the administrators'".to_owned() } else { format!("it belongs to {owner}") };
        Err(Error::NotYours(format!(
            "you are {}, and may not push or remove {name}: {whose}. An image of your own is called {}/{last}",
            self.user, self.user
        )))
    }
}

/// What a command works with.
struct Context {
    client: Client,
    json: bool,
    yes: bool,
}

/// Runs the program with these words, its own name first, and gives its exit code.
pub fn main(words: impl IntoIterator<Item = String>) -> u8 {
    program::run(words, |cli, runtime| runtime.block_on(program::interruptible(start(cli), Error::Interrupted)))
}

/// The whole command line, for completions and manual pages.
pub fn command() -> clap::Command {
    Cli::command()
}

async fn start(cli: Cli) -> Result<(), Error> {
    let Cli { reach, json, yes, command } = cli;
    match &command {
        Command::Completion { shell } => {
            terminal::say(&program::completions(self::command(), *shell));
            return Ok(());
        }
        Command::Man { directory } => return program::write_manual(self::command(), directory).map_err(Error::Failed),
        _ => {}
    }
    // What is wrong with the archive is said before anybody is asked for anything.
    let archive = match &command {
        Command::Push { file, .. } => Some(push::open(file)?),
        _ => None,
    };
    let client = reach.connect(Role::User, LogIn::IfNeeded, &Tokens::of_user()).await?;
    run(command, archive, &Context { client, json, yes }).await
}

async fn run(command: Command, archive: Option<crate::registry::archive::Archive>, context: &Context) -> Result<(), Error> {
    match (command, archive) {
        (Command::Push { file, name }, Some(archive)) => push::run(&file, archive, &name, context).await,
        (Command::Pull { name, file }, _) => pull::run(&name, &file, context).await,
        (Command::List, _) => {
            let answer = context.client.call(Method::GET, "/v2/images", None).await?;
            context.show(&answer, show::list);
            Ok(())
        }
        (Command::Show { name }, _) => {
            let about = About::ask(&context.client).await?;
            let path = path(&about.name(&name)?, false);
            let answer = context.client.call(Method::GET, &path, None).await?;
            context.show(&answer, show::one);
            Ok(())
        }
        (Command::Rm { name }, _) => remove(&name, context).await,
        (Command::Push { .. } | Command::Completion { .. } | Command::Man { .. }, _) => Ok(()),
    }
}

async fn remove(text: &str, context: &Context) -> Result<(), Error> {
    let about = About::ask(&context.client).await?;
    let name = about.name(text)?;
    about.check_owner(&name)?;
    let one = text.rsplit('/').next().is_some_and(|word| word.contains([':', '@']));
    let what = if one { name.to_string() } else { format!("{text} with all its tags") };
    terminal::confirm(context.yes, &format!("Remove the image {what}?"))?;
    context.client.call(Method::DELETE, &path(&name, one), None).await?;
    let removed = if one { name.to_string() } else { text.to_owned() };
    terminal::say(&if context.json { program::json(&json!({ "removed": removed })) } else { format!("removed {removed}") });
    Ok(())
}

/// Where the API has an image.
fn path(name: &ImageName, with_version: bool) -> String {
    let text = if with_version { name.to_string() } else { name.repository().to_owned() };
    format!("/v2/images/{}", encode_path(&text))
}

impl Context {
    fn show(&self, answer: &Value, text: impl FnOnce(&Value) -> String) {
        terminal::say(&if self.json { program::json(answer) } else { text(answer) });
    }
}

#[cfg(test)]
mod tests;
