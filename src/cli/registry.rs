//! `xtao registry`: makes the platform's registry a service of the platform, and tells how it is.

use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Value, json};

use super::{
    client::{Client, ClientError, Role},
    program, terminal,
};

/// Between two looks at a service that is starting.
const LOOK_EVERY: Duration = Duration::from_millis(300);

/// The registry for the images of the platform's users, which is a service of the platform itself.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "For administrators: root, and the members of the group 'xtao'. It runs as the app 'registry' on the network of its node, with port 5000 and a \
    brick of its own; both stay when it is destroyed and installed again. Its image must be in Docker already: the one image that cannot come from \
    the registry is the registry's own (scripts/make-images registry)."
)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    place: program::Place,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// Make the registry, or bring one that is there up to date, and wait until it runs
    #[command(
        after_help = "Install it again after the server's directory was replaced, or the API has moved to another address: the registry is told anew whom to \
        trust.\n\nExample:\n  xtao registry install --size 102400"
    )]
    Install {
        /// Its image, as this node's Docker has it
        #[arg(long, default_value = "registry")]
        image: String,
        /// MiB of its brick, where all images are kept; it can grow later
        #[arg(long, value_name = "MIB", default_value_t = 20_480)]
        size: u64,
        /// The pool of its brick
        #[arg(long, default_value = "datapool")]
        pool: String,
        /// Cores
        #[arg(long, default_value_t = 0.2)]
        cpu: f64,
        /// MiB of memory
        #[arg(long, default_value_t = 256)]
        mem: u64,
        /// Seconds to wait for it
        #[arg(long, value_name = "SECONDS", default_value_t = 120)]
        timeout: u64,
    },
    /// Where it is, and whether it runs
    Status,
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What the server says.
    #[error(transparent)]
    Client(ClientError),
    /// It does not run in time.
    #[error("{0}")]
    Late(String),
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
    let client = Client::on_node(&arguments.place.work_dir, Role::Admin)?;
    match arguments.command {
        Command::Status => {
            terminal::say(&shown(&about(&client).await?));
            Ok(())
        }
        Command::Install { image, size, pool, cpu, mem, timeout } => {
            let app = app(&about(&client).await?, &image, (size, &pool), (cpu, mem));
            client.call(Method::PUT, "/v2/apps//registry?partialUpdate=false", Some(&app)).await?;
            await_running(&client, Duration::from_secs(timeout)).await
        }
    }
}

async fn about(client: &Client) -> Result<Value, ClientError> {
    client.call(Method::GET, "/v2/registry", None).await
}

/// What people need of what the server says.
fn shown(about: &Value) -> String {
    let known: Value = json!({ "name": about["name"], "state": about["state"], "address": about["address"] });
    serde_json::to_string_pretty(&known).unwrap_or_default()
}

async fn await_running(client: &Client, limit: Duration) -> Result<(), Error> {
    let began = Instant::now();
    loop {
        let app = client.call(Method::GET, "/v2/apps//registry?embed=app.lastTaskFailure", None).await?;
        let app = &app["app"];
        let idle = app["deployments"].as_array().is_none_or(Vec::is_empty);
        let about = about(client).await?;
        if idle && about["state"] == "running" {
            terminal::say(&shown(&about));
            return Ok(());
        }
        if began.elapsed() > limit {
            let why = app["lastTaskFailure"]["message"].as_str().map(|words| format!(": {words}")).unwrap_or_default();
            return Err(Error::Late(format!("the registry does not run after {} s{why}; see the app 'registry'", limit.as_secs())));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// The app, complete: what is not written here has its default.
fn app(about: &Value, image: &str, (size, pool): (u64, &str), (cpu, mem): (f64, u64)) -> Value {
    json!({
        "id": "/registry",
        "cpus": cpu,
        "mem": mem,
        "instances": 1,
        "networks": [{ "mode": "host" }],
        "requirePorts": true,
        "portDefinitions": [{ "port": 5000, "protocol": "tcp", "name": "registry" }],
        "container": {
            "type": "DOCKER",
            "docker": { "image": image },
            "volumes": [{ "containerPath": "/var/lib/registry", "mode": "RW", "brick": { "size": size, "pool": pool } }],
        },
        "env": {
            "REGISTRY_HTTP_ADDR": ":5000",
            "REGISTRY_AUTH_TOKEN_REALM": about["realm"],
            "REGISTRY_AUTH_TOKEN_SERVICE": about["service"],
            "REGISTRY_AUTH_TOKEN_ISSUER": about["issuer"],
            "XTAO_REGISTRY_CERTIFICATE": about["certificate"],
        },
        "upgradeStrategy": { "minimumHealthCapacity": 0, "maximumOverCapacity": 0 },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::app::input::AppInput;

    #[test]
    fn the_registry_is_an_ordinary_app() {
        let about = json!({
            "realm": "http://node1:8080/v2/registry/token", "service": "xtao-registry", "issuer": "xtao",
            "certificate": "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
        });
        let app = app(&about, "registry", (1024, "datapool"), (0.2, 256));
        assert!(AppInput::read(&app).is_ok());
        insta::assert_json_snapshot!("app", app);
    }
}
