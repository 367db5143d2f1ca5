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
        let pair = |key: &str| format!("{} of {}", cell(&node["resources"]["used"][key]), cell(&node["resources"]["total"][key]));
        let state = if node["connected"] == true { "connected" } else { "out of reach" };
        let engine = format!("{} {}", cell(&node["engine"]["name"]), cell(&node["engine"]["version"]));
        let addresses: Vec<String> = node["addresses"].as_array().into_iter().flatten().map(cell).collect();
        let engine = if node["engine"].is_object() { engine } else { "-".to_owned() };
        vec![cell(&node["host"]), state.to_owned(), pair("cpus"), pair("mem"), cell(&node["tasks"]), engine, addresses.join(",")]
    });
    table(&["HOST", "STATE", "CPU", "MEM/MB", "TASKS", "ENGINE", "ADDRESSES"], rows)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nodes_are_shown_for_people() {
        let answer = json!({"nodes": [
            {"host": "compute1", "connected": true, "tasks": 3, "addresses": ["192.0.2.1", "2001:db8::1"],
             "resources": {"used": {"cpus": 0.5, "mem": 512}, "total": {"cpus": 8, "mem": 16_000}}, "engine": {"name": "docker", "version": "20.10.24"}},
            {"host": "compute2", "connected": false, "tasks": 0, "addresses": [], "resources": {"used": {"cpus": 0, "mem": 0}}},
        ]});
        insta::assert_snapshot!("list", list(&answer));
        assert_eq!(list(&json!({})), "There are no nodes.");
    }
}
