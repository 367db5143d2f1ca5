//! `mgmt user`: the own account.

use clap::{Args, Subcommand};
use serde_json::Value;

use super::{Context, Error, json};
use crate::cli::{
    client::encode,
    table::{cell, table},
    terminal::say,
};

/// `mgmt user`
#[derive(Clone, Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// who one is here
    Whoami,
    /// how much the own services take, and how much they may take
    Quota {
        /// another user's; for administrators
        name: Option<String>,
    },
}

pub(super) async fn run(arguments: Arguments, context: &Context<'_>) -> Result<(), Error> {
    let Context { client, manner } = context;
    match arguments.command {
        Command::Whoami => {
            let me: Value = client.get("/v2/auth/whoami").await?;
            let text = || if me["admin"] == true { format!("{} (administrator)", cell(&me["user"])) } else { cell(&me["user"]) };
            say(&if manner.json { json(&me) } else { text() });
        }
        Command::Quota { name } => {
            let name = match name {
                Some(name) => name,
                None => client.get::<Value>("/v2/auth/whoami").await?["user"].as_str().unwrap_or_default().to_owned(),
            };
            let quota: Value = client.get(&format!("/v2/auth/users/{}/quota", encode(&name))).await?;
            say(&if manner.json { json(&quota) } else { show(&quota) });
        }
    }
    Ok(())
}

const ROWS: [(&str, &str); 5] =
    [("cpus", "CPU"), ("mem", "memory, MB"), ("brick", "bricks, MB"), ("ports", "allotted ports"), ("instances", "instances")];

fn show(answer: &Value) -> String {
    let rows = ROWS.iter().map(|(key, what)| {
        let limit = &answer["quota"][*key];
        let limit = if limit.is_null() { "no limit".to_owned() } else { cell(limit) };
        vec![(*what).to_owned(), cell(&answer["used"][*key]), limit]
    });
    format!("user {}\n\n{}", cell(&answer["user"]), table(&["WHAT", "USED", "LIMIT"], rows))
}

#[cfg(test)]
mod tests {
    use serde_json::json as value;

    use super::*;

    #[test]
    fn limits_are_shown_for_people() {
        let answer = value!({"user": "zmfsea", "quota": {"cpus": 8, "mem": 16_384, "brick": 1_000_000}, "used": {"cpus": 0.5, "mem": 512}});
        insta::assert_snapshot!("quota", show(&answer));
    }
}
