//! `mgmt user`: the own account.

use clap::{Args, Subcommand};
use serde_json::{Value, json as value};

use super::{Context, Error, json};
use crate::cli::{
    client::{Client, encode},
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
            let me: Value = client.get("/v2/auth/whoami").await?;
            let name = name.as_deref().or(me["user"].as_str()).unwrap_or_default();
            // Lists hold what one may see, which is only one's own for whoever is no administrator.
            let is_own = me["user"] == name && me["admin"] == false;
            let quota = quota(client, name, is_own).await?;
            say(&if manner.json { json(&quota) } else { show(&quota) });
        }
    }
    Ok(())
}

/// The limits of a user, and what is used of them. Who has no record has no limits.
async fn quota(client: &Client, name: &str, is_own: bool) -> Result<Value, Error> {
    let user: Value = match client.get(&format!("/v2/auth/users/{}", encode(name))).await {
        Err(error) if error.status() == Some(404) => Value::Null,
        answer => answer?,
    };
    let used = match &user["used"] {
        Value::Null if is_own => {
            let (apps, bricks, ports) = (client.get("/v2/apps").await?, client.get("/v2/bricks").await?, client.get("/v2/ports").await?);
            used(&apps, &bricks, &ports)
        }
        told => told.clone(),
    };
    Ok(value!({ "user": name, "quota": user["quota"], "used": used }))
}

/// What these lists sum up to.
fn used(apps: &Value, bricks: &Value, ports: &Value) -> Value {
    let list = |answer: &Value, key: &str| answer[key].as_array().cloned().unwrap_or_default();
    let apps = list(apps, "apps");
    let instances = |app: &Value| app["instances"].as_u64().unwrap_or(0);
    let sum = |key: &str| -> f64 { apps.iter().map(|app| app[key].as_f64().unwrap_or(0.0) * instances(app) as f64).sum() };
    let rounded = |amount: f64| match (amount * 1000.0).round() as u64 {
        thousandths if thousandths.is_multiple_of(1000) => value!(thousandths / 1000),
        thousandths => value!(thousandths as f64 / 1000.0),
    };
    value!({
        "cpus": rounded(sum("cpus")),
        "mem": rounded(sum("mem")),
        "brick": list(bricks, "bricks").iter().map(|brick| brick["size"].as_u64().unwrap_or(0)).sum::<u64>(),
        "ports": list(ports, "ports").len(),
        "instances": apps.iter().map(instances).sum::<u64>(),
    })
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
    use super::*;

    #[test]
    fn limits_are_shown_for_people() {
        let answer = value!({"user": "zmfsea", "quota": {"cpus": 8, "mem": 16_384, "brick": 1_000_000}, "used": {"cpus": 0.5, "mem": 512}});
        insta::assert_snapshot!("quota", show(&answer));
        let apps = value!({"apps": [{"cpus": 0.1, "mem": 64, "instances": 3}, {"cpus": 0.2, "mem": 32.5, "instances": 1}]});
        let used = used(&apps, &value!({"bricks": [{"size": 10}, {"size": 20}]}), &value!({"ports": [{}]}));
        assert_eq!(used, value!({"cpus": 0.5, "mem": 224.5, "brick": 30, "ports": 1, "instances": 4}));
    }
}
