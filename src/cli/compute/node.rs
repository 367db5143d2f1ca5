//! `mgmt node`: the machines that services run on.

use clap::{Args, Subcommand};
use serde_json::Value;

use super::{Context, Error, json};
use crate::cli::{
    client::Client,
    table::{cell, table},
    terminal::say,
};

/// `mgmt node`
#[derive(Clone, Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// all nodes: what they have, and what is taken
    List,
}

pub(super) async fn run(arguments: Arguments, context: &Context<'_>) -> Result<(), Error> {
    let Command::List = arguments.command;
    let answer: Value = context.client.get("/v2/nodes").await?;
    say(&if context.manner.json { json(&answer["nodes"]) } else { list(&answer) });
    Ok(())
}

/// The names of all nodes, for completion.
pub(super) async fn names(client: &Client) -> Result<Vec<String>, Error> {
    let answer: Value = client.get("/v2/nodes").await?;
    let nodes = answer["nodes"].as_array().into_iter().flatten();
    Ok(nodes.filter_map(|node| node["host"].as_str().map(str::to_owned)).collect())
}

fn list(answer: &Value) -> String {
    let nodes = answer["nodes"].as_array().map(Vec::as_slice).unwrap_or_default();
    if nodes.is_empty() {
        return "There are no nodes.".to_owned();
    }
    let rows = nodes.iter().map(|node| {
        let pair = |key: &str| format!("{} / {}", cell(&node["used"][key]), cell(&node["resources"][key]));
        vec![cell(&node["host"]), cell(&node["state"]), pair("cpus"), pair("mem"), cell(&node["tasks"])]
    });
    table(&["HOST", "STATE", "CPU", "MEM/MB", "TASKS"], rows)
}
