//! `xtao auth`: passwords and users. Through the administrators' socket while a server runs; on the directory of a stopped server otherwise, under
//! its lock and by the same rules ([`crate::core::users`]).

mod offline;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Value, json};

use super::{
    client::{Client, ClientError, Role, encode},
    program,
    table::{self, cell},
    terminal::{self, AskError, say},
};
use crate::{
    auth::password,
    model::{
        id::IdError,
        request::RequestError,
        user::{UserChange, user_name},
    },
};

/// Who may log in: passwords, locks, administrators.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "For administrators: root, and the members of the group 'xtao'. With a running server the commands use the socket in its directory; \
    with a stopped one they work on the directory itself. From the first password on, everybody who comes by HTTP is asked for one."
)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    place: program::Place,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// Give a user a password; the user is made if there is none of that name
    #[command(
        after_help = "Without PASS it is asked for, twice, and not shown; from a pipe, it is the first line. A password on the command line can be \
        seen by everybody on the machine while the command runs. Tokens that were given out before are void afterwards.\n\n\
        Example:\n  xtao auth password zmfsea"
    )]
    Password {
        /// The user; best the name of the account on the machines
        user: String,
        /// The password
        #[arg(allow_hyphen_values = true)]
        pass: Option<String>,
        /// Make the user an administrator, who may do everything
        #[arg(long)]
        admin: bool,
    },
    /// All users that have a password, a limit or a grant
    List {
        /// Print JSON, as the API answers it
        #[arg(short, long)]
        json: bool,
    },
    /// Refuse a user everywhere, at once; services and tokens stay, the tokens without effect
    Lock {
        /// The user
        user: String,
    },
    /// Let a locked user in again, who has to log in anew
    Unlock {
        /// The user
        user: String,
    },
    /// Let a user read the metrics, and nothing else: for monitoring
    #[command(after_help = "The user gets a password with 'xtao auth password'. Metrics are at /metrics and /metrics/prometheus.")]
    Monitor {
        /// The user
        user: String,
        /// Make an ordinary user of it again
        #[arg(long)]
        off: bool,
    },
    /// Forget a user with password, limits and grants; services, ports and bricks stay under the name
    #[command(
        after_help = "Somebody with an account of that name on the machine still gets in through the socket there: lock such a user instead. \
        After the last password is gone, a server on loopback asks nobody who they are."
    )]
    Remove {
        /// The user
        user: String,
    },
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It has been said already, as the answer of `password`.
    #[error("no password was set")]
    Said,
    /// What the running server says.
    #[error(transparent)]
    Client(ClientError),
    /// No server answers, and its directory cannot be worked on either.
    #[error("no server answers on the socket in {work_dir}, and its directory cannot be changed without one: {reason}")]
    Offline {
        /// The directory.
        work_dir: String,
        /// Why not.
        reason: String,
    },
    /// What the rules say.
    #[error("{0}")]
    Request(#[from] RequestError),
    /// The name or the password cannot be one.
    #[error("{0}")]
    Bad(String),
    /// Nobody could be asked.
    #[error(transparent)]
    Ask(#[from] AskError),
}

impl From<IdError> for Error {
    fn from(error: IdError) -> Self {
        Self::Bad(error.to_string())
    }
}

impl From<ClientError> for Error {
    fn from(error: ClientError) -> Self {
        Self::Client(error.to_administrators())
    }
}

/// Runs one command.
///
/// # Errors
/// See [`Error`].
pub async fn run(arguments: Arguments) -> Result<(), Error> {
    let place = Place { work_dir: arguments.place.work_dir };
    match arguments.command {
        Command::Password { user, pass, admin } => {
            let outcome = set_password(&place, &user, pass, admin).await;
            say(&outcome.as_ref().map_or_else(|error| answer(&error.to_string(), 1), |()| answer("success to set the passwd", 0)));
            outcome.map_err(|_| Error::Said)
        }
        Command::List { json } => {
            let users = place.list().await?;
            say(&if json { format!("{users:#}") } else { table(&users) });
            Ok(())
        }
        Command::Lock { user } => {
            place.change(&user, UserChange { locked: Some(true), ..UserChange::default() }, None).await?;
            say(&format!("user '{user}' is locked"));
            Ok(())
        }
        Command::Unlock { user } => {
            place.known(&user).await?;
            place.change(&user, UserChange { locked: Some(false), ..UserChange::default() }, None).await?;
            say(&format!("user '{user}' is unlocked"));
            Ok(())
        }
        Command::Monitor { user, off } => {
            place.change(&user, UserChange { monitor: Some(!off), ..UserChange::default() }, None).await?;
            say(&if off {
                format!("user '{user}' is an ordinary user")
            } else {
                format!("user '{user}' reads the metrics, and nothing else")
            });
            Ok(())
        }
        Command::Remove { user } => {
            place.remove(&user).await?;
            say(&format!("user '{user}' is removed; what '{user}' owns stays"));
            Ok(())
        }
    }
}

async fn set_password(place: &Place, user: &str, pass: Option<String>, admin: bool) -> Result<(), Error> {
    user_name(user)?;
    let pass = match pass {
        Some(pass) => pass,
        None => new_password(user)?,
    };
    password::check(&pass).map_err(|error| Error::Bad(error.to_string()))?;
    let change = UserChange { admin: admin.then_some(true), ..UserChange::default() };
    place.change(user, change, Some(&pass)).await
}

/// Asked for twice where a person types it; from a pipe it is the first line.
fn new_password(user: &str) -> Result<String, Error> {
    let first = terminal::ask_hidden(&format!("New password of {user}: "))?;
    if terminal::is_present() && terminal::ask_hidden("Once more: ")? != first {
        return Err(Error::Bad("the two passwords differ; nothing was changed".into()));
    }
    Ok(first.expose().to_owned())
}

/// The answer of the original product, letter by letter: people have scripts for it.
fn answer(output: &str, error: u8) -> String {
    format!("{{\n     \"output\": {},\n     \"error\": {error}\n}}", Value::from(output))
}

/// Where users are kept.
struct Place {
    work_dir: PathBuf,
}

impl Place {
    /// The server, if one runs.
    fn server(&self) -> Result<Option<Client>, Error> {
        match Client::on_node(&self.work_dir, Role::Admin) {
            Ok(client) => Ok(Some(client)),
            Err(ClientError::NoServer { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    async fn list(&self) -> Result<Value, Error> {
        match self.server()? {
            Some(server) => Ok(server.call(Method::GET, "/v2/auth/users", None).await?),
            None => offline::list(&self.work_dir).await.map_err(|error| self.offline(error)),
        }
    }

    async fn known(&self, user: &str) -> Result<(), Error> {
        let users = self.list().await?;
        let known = users["users"].as_array().into_iter().flatten().any(|known| known["name"] == user);
        if known { Ok(()) } else { Err(RequestError::NoUser(user_name(user)?).into()) }
    }

    async fn change(&self, user: &str, change: UserChange, pass: Option<&str>) -> Result<(), Error> {
        let name = user_name(user)?;
        let Some(server) = self.server()? else {
            let change = UserChange { password: pass.map(password::hash), ..change };
            return offline::put(&self.work_dir, &name, change).await.map_err(|error| self.offline(error));
        };
        let mut body = json!({});
        let flags = [("admin", change.admin), ("locked", change.locked), ("monitor", change.monitor)];
        let fields = std::iter::once(("password", pass.map(Value::from))).chain(flags.map(|(name, flag)| (name, flag.map(Value::from))));
        for (field, value) in fields {
            if let Some(value) = value {
                body[field] = value;
            }
        }
        server.call(Method::PUT, &path(user), Some(&body)).await?;
        Ok(())
    }

    async fn remove(&self, user: &str) -> Result<(), Error> {
        let name = user_name(user)?;
        match self.server()? {
            Some(server) => server.call(Method::DELETE, &path(user), None).await.map(drop).map_err(Error::from),
            None => offline::remove(&self.work_dir, &name).await.map_err(|error| self.offline(error)),
        }
    }

    fn offline(&self, error: offline::Error) -> Error {
        match error {
            offline::Error::Request(error) => Error::Request(error),
            other => Error::Offline { work_dir: self.work_dir.display().to_string(), reason: other.to_string() },
        }
    }
}

fn path(user: &str) -> String {
    format!("/v2/auth/users/{}", encode(user))
}

/// Users for people's eyes.
fn table(users: &Value) -> String {
    let users = users["users"].as_array().map(Vec::as_slice).unwrap_or_default();
    if users.is_empty() {
        return "There are no users with a password yet.".to_owned();
    }
    let row = |user: &Value| {
        let either = |field: &str, yes: &str, no: &str| if user[field] == true { yes } else { no }.to_owned();
        vec![
            cell(&user["name"]),
            if user["monitor"] == true { "metrics only".to_owned() } else { either("admin", "administrator", "user") },
            either("password", "yes", "no"),
            either("locked", "locked", "-"),
            cell(&user["createdAt"]),
        ]
    };
    table::table(&["USER", "ROLE", "PASSWORD", "STATE", "SINCE"], users.iter().map(row))
}

#[cfg(test)]
mod tests;
