//! `mgmt port`: the ports that the platform allotted, and letting them go.

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::Value;

use super::{Context, Error, json};
use crate::cli::{
    client::Client,
    table::{cell, table},
    terminal::{self, say},
};

/// `mgmt port`
#[derive(Clone, Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// all ports that services have for good
    List,
    /// let a port go; its service must be gone
    Release {
        /// the port's number
        #[arg(value_name = "PORT")]
        port: u16,
    },
}

pub(super) async fn run(arguments: Arguments, context: &Context<'_>) -> Result<(), Error> {
    let Context { client, manner } = context;
    match arguments.command {
        Command::List => {
            let answer: Value = client.get("/v2/ports").await?;
            say(&if manner.json { json(&answer["ports"]) } else { list(&answer) });
        }
        Command::Release { port } => {
            terminal::confirm(manner.yes, &format!("Release port {port}? Its service will get another one."))?;
            client.call(Method::DELETE, &format!("/v2/ports/{port}"), None).await?;
            terminal::note(&format!("port {port} is free"));
        }
    }
    Ok(())
}

/// The numbers of all ports, for completion.
pub(super) async fn numbers(client: &Client) -> Result<Vec<String>, Error> {
    let answer: Value = client.get("/v2/ports").await?;
    Ok(answer["ports"].as_array().into_iter().flatten().map(|port| cell(&port["port"])).collect())
}

fn list(answer: &Value) -> String {
    let ports = answer["ports"].as_array().map(Vec::as_slice).unwrap_or_default();
    if ports.is_empty() {
        return "There are no allotted ports.".to_owned();
    }
    let rows = ports.iter().map(|port| {
        let app = cell(&port["app"]);
        let app = app.trim_start_matches('/');
        let app = if port["appExists"] == false { format!("({app})") } else { app.to_owned() };
        let place = format!("{} {}", cell(&port["source"]), cell(&port["index"]));
        vec![cell(&port["port"]), app, place, cell(&port["owner"]), cell(&port["createdAt"])]
    });
    table(&["PORT", "SERVICE", "PLACE", "OWNER", "SINCE"], rows)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ports_are_shown_for_people() {
        let answer = json!({"ports": [
            {"port": 1066, "app": "/testdb", "source": "env", "index": 0, "owner": "zmfsea", "createdAt": "2020-01-31T12:00:00.000Z", "appExists": true},
            {"port": 31067, "app": "/shop/gone", "source": "portMapping", "index": 1, "owner": "admin", "createdAt": "2020-01-31T12:00:00.000Z",
             "appExists": false},
        ]});
        insta::assert_snapshot!("list", list(&answer));
        assert_eq!(list(&json!({"ports": []})), "There are no allotted ports.");
    }
}
