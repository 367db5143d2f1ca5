//! `mgmt user`: the own account.

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::Value;

use super::{Context, Error, json};
use crate::cli::{
    client::{ClientError, encode},
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
    /// how much the own services take, and how much they may take; administrators change it
    #[command(
        after_help = "With options it changes the limits of a user, which is for administrators: what is given replaces what was, the rest stays.\n\n\
        Examples:\n  mgmt user quota\n  mgmt user quota zmfsea --cpu 8 --mem 16384 --instances none"
    )]
    Quota {
        /// another user's; for administrators
        #[arg(value_name = "USER")]
        name: Option<String>,
        #[command(flatten)]
        limits: Limits,
    },
}

/// What a user may have in all.
#[derive(Clone, Debug, Default, PartialEq, Args)]
#[command(next_display_order = 10)]
struct Limits {
    /// CPUs in all, e.g. 8; none: no limit
    #[arg(long, value_name = "LIMIT", allow_negative_numbers = true)]
    cpu: Option<String>,
    /// memory in all, in MB
    #[arg(long, value_name = "LIMIT", allow_negative_numbers = true)]
    mem: Option<String>,
    /// storage in all, in MB
    #[arg(long, value_name = "LIMIT", allow_negative_numbers = true)]
    brick: Option<String>,
    /// allotted ports
    #[arg(long, value_name = "LIMIT", allow_negative_numbers = true)]
    ports: Option<String>,
    /// instances of all services
    #[arg(long, value_name = "LIMIT", allow_negative_numbers = true)]
    instances: Option<String>,
}

impl Limits {
    /// The quota `present` with what was given in place of what was.
    fn change(&self, present: &Value) -> Result<Value, Error> {
        let mut quota = present.as_object().cloned().unwrap_or_default();
        for (key, option, text) in [
            ("cpus", "cpu", &self.cpu),
            ("mem", "mem", &self.mem),
            ("brick", "brick", &self.brick),
            ("ports", "ports", &self.ports),
            ("instances", "instances", &self.instances),
        ] {
            match text.as_deref().map(str::trim) {
                None => {}
                Some("none") => _ = quota.remove(key),
                Some(text) => _ = quota.insert(key.to_owned(), limit(option, text)?),
            }
        }
        Ok(Value::Object(quota))
    }
}

/// A number that is not below 0; whole but for CPUs and memory.
fn limit(option: &str, text: &str) -> Result<Value, Error> {
    let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let whole = text.parse::<u64>().ok().filter(|_| is_digits(text)).map(Value::from);
    let parts = text.split_once('.').filter(|(whole, rest)| is_digits(whole) && is_digits(rest) && matches!(option, "cpu" | "mem"));
    let broken = || parts.and_then(|_| text.parse::<f64>().ok()).map(Value::from);
    whole.or_else(broken).ok_or_else(|| Error::Word(format!("--{option}: '{text}' is no limit: write a number, such as 8, or none")))
}

pub(super) async fn run(arguments: Arguments, context: &Context<'_>) -> Result<(), Error> {
    let Context { client, manner } = context;
    match arguments.command {
        Command::Whoami => {
            let me: Value = client.get("/v2/auth/whoami").await?;
            let text = || if me["admin"] == true { format!("{} (administrator)", cell(&me["user"])) } else { cell(&me["user"]) };
            say(&if manner.json { json(&me) } else { text() });
        }
        Command::Quota { name, limits } => {
            let changes = limits != Limits::default();
            let name = match name {
                Some(name) => name,
                None if changes => {
                    return Err(Error::Word("whose limits are to be changed? Name the user: mgmt user quota USER ...".to_owned()));
                }
                None => client.get::<Value>("/v2/auth/whoami").await?["user"].as_str().unwrap_or_default().to_owned(),
            };
            let path = format!("/v2/auth/users/{}/quota", encode(&name));
            let mut quota: Value = client.get(&path).await?;
            if changes {
                let wanted = limits.change(&quota["quota"])?;
                quota = client.call(Method::PUT, &path, Some(&wanted)).await.map_err(ClientError::to_administrators)?;
            }
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

    #[test]
    fn a_limit_is_a_number_or_none() {
        let check = |option: &str, text: &str, expected: &str| {
            let found = limit(option, text).map_or_else(|error| error.to_string(), |limit| limit.to_string());
            assert!(found == expected || found.contains(expected) && expected.contains("is no limit"), "--{option} {text}: {found}");
        };
        check("cpu", "8", "8");
        check("cpu", "0.5", "0.5");
        check("mem", "0", "0");
        check("ports", "1.5", "--ports: '1.5' is no limit");
        for text in ["", "-1", "1e3", "inf", ".5", "5.", "8 cores", "None"] {
            check("cpu", text, "is no limit: write a number, such as 8, or none");
        }
        let present = value!({"cpus": 8, "ports": 3});
        let limits = Limits { cpu: Some("none".into()), mem: Some(" 512 ".into()), ..Limits::default() };
        assert_eq!(limits.change(&present).unwrap(), value!({"mem": 512, "ports": 3}));
    }
}
