//! `xtao`: the server and its administration.

use std::{net::IpAddr, path::PathBuf, process::ExitCode};

use clap::Parser;

#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    Serve(Serve),
}

#[derive(clap::Args)]
struct Serve {
    #[arg(long = "work_dir")]
    work_dir: PathBuf,
    #[arg(long = "http_port", default_value_t = 8080)]
    http_port: u16,
    #[arg(long = "hostname", default_value = "localhost")]
    hostname: String,
    #[arg(long = "node_address", default_value = "127.0.0.1")]
    node_address: Vec<IpAddr>,
    #[arg(long = "docker_host", default_value = "unix:///var/run/docker.sock")]
    docker_host: String,
    #[arg(long = "dns_address", default_value = "127.0.0.1")]
    dns_address: Vec<IpAddr>,
    #[arg(long = "dns_port", default_value_t = 53)]
    dns_port: u16,
    #[arg(long = "dns_http_port", default_value_t = 8123)]
    dns_http_port: u16,
}

#[tokio::main]
async fn main() -> ExitCode {
    let Command::Serve(serve) = Args::parse().command;
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(tracing_subscriber::EnvFilter::from_default_env()).init();
    let settings = xtao::server::Settings {
        work_dir: serve.work_dir,
        http: ([127, 0, 0, 1], serve.http_port).into(),
        hostname: serve.hostname,
        framework_name: "marathon".into(),
        node_addresses: serve.node_address,
        docker_host: serve.docker_host,
        dns: serve.dns_address.iter().map(|address| (*address, serve.dns_port).into()).collect(),
        dns_http: Some(([127, 0, 0, 1], serve.dns_http_port).into()),
        core: Default::default(),
        resources: Default::default(),
        attributes: Vec::new(),
        brick_overcommit: 4.0,
        brick_reserve: 1024,
    };
    match xtao::server::run(settings).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtao: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}
