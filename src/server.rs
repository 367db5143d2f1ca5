//! `xtao serve`: puts the rooms together, in an order in which nothing is served before it is true, and takes them down again.
//!
//! Up: the work directory is locked, every address is bound, the state is recovered; then driver, names, API and engine begin. The driver and the
//! name server have threads of their own, so that a busy API starves neither. Down: a signal, or the end of the driver, ends all; tasks keep running.

mod settings;

use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::{mpsc, oneshot, watch},
};
use tracing::{error, info};

use crate::{
    api::{self, Api, Info},
    brick::{self, BrickError, Bricks},
    cluster::engine::{self, EngineError},
    core,
    model::host_volume::HostVolumeRule,
    naming::{self, NamingError},
    runtime::{
        driver::{Driver, MAX_WAITING_CALLS, MAX_WAITING_EVENTS},
        handle::Handle,
    },
    store::{StoreError, embedded::EmbeddedStore, identity::WorkDir},
};

/// What the work directory remembers as its engine.
const ENGINE: &str = "docker";

type NameRoutes = warp::filters::BoxedFilter<(warp::reply::Response,)>;

/// Everything that `xtao serve` needs to know, checked.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where state, bricks and sandboxes are.
    pub work_dir: PathBuf,
    /// Where the API listens.
    pub http: SocketAddr,
    /// Our host name, as others reach us.
    pub hostname: String,
    /// The second part of every domain name.
    pub framework_name: String,
    /// Where people find the web page, for `/v2/info`; `None`: here.
    pub webui_url: Option<String>,
    /// What names answer, and where ports are published; the preferred one first.
    pub node_addresses: Vec<IpAddr>,
    /// Where Docker listens.
    pub docker_host: String,
    /// Where the name server listens; none: no name server.
    pub dns: Vec<SocketAddr>,
    /// Where the HTTP API of the name server listens, besides `/mesos_dns` of the API; `None`: nowhere.
    pub dns_http: Option<SocketAddr>,
    /// For deployments, launches and allotments.
    pub core: core::Settings,
    /// What the engine offers.
    pub resources: engine::ResourceSettings,
    /// What constraints compare.
    pub attributes: Vec<crate::model::agent::Attribute>,
    /// How far bricks may exceed their pool's disk.
    pub brick_overcommit: f64,
    /// MiB of the pool's disk that bricks leave free.
    pub brick_reserve: u64,
}

/// Why the server did not start, or why it ended by itself.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each wraps the error of one room")]
pub enum ServerError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Brick(#[from] BrickError),
    #[error(transparent)]
    Naming(#[from] NamingError),
    /// An address of the HTTP API cannot be bound.
    #[error("cannot listen on {address} ({what}): {source}; another server may have it, choose another with {option}")]
    Bind {
        address: SocketAddr,
        what: &'static str,
        option: &'static str,
        #[source]
        source: std::io::Error,
    },
    /// Threads or signal handlers cannot be made.
    #[error("the operating system refuses {what}: {source}")]
    System {
        what: &'static str,
        #[source]
        source: std::io::Error,
    },
}

impl ServerError {
    /// The process' exit code: Marathon's where it has one.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Bind { .. } | Self::Naming(NamingError::Bind { .. }) => 111,
            _ => 1,
        }
    }
}

/// Runs the server until a signal asks it to end.
///
/// # Errors
/// See [`ServerError`]. Whatever the error, containers keep running.
pub async fn run(settings: Settings) -> Result<(), ServerError> {
    let work_dir = WorkDir::open(&settings.work_dir, ENGINE)?;
    let listener = bind(settings.http, "HTTP API", "--http_port").await?;
    let dns_listener = match settings.dns_http {
        Some(address) => Some(bind(address, "HTTP API of the name server", "--dns_http_port").await?),
        None => None,
    };
    let store = EmbeddedStore::open(&work_dir)?;
    let (event_sender, events) = mpsc::channel(MAX_WAITING_EVENTS);
    let (call_sender, calls) = mpsc::channel(MAX_WAITING_CALLS);
    let mut core_settings = settings.core.clone();
    core_settings.host_volumes = host_volumes(&core_settings.host_volumes, &settings);
    let (driver, handle) = Driver::open(core_settings, Box::new(store), events, call_sender).await?;
    let bricks = Arc::new(Bricks::open(brick_settings(&settings)).await?);
    let (stop, stopping) = watch::channel(false);

    let names = match settings.dns.is_empty() {
        true => None,
        false => Some(naming::start(naming_settings(&settings), handle.clone(), stopping.clone()).await?),
    };
    let mut driver_ended = start_driver(driver, stopping.clone())?;
    let engine_settings = engine_settings(&settings, &work_dir);
    let mut engine = tokio::spawn(engine::run(engine_settings, bricks, calls, event_sender, stopping.clone()));
    let dns_routes = names.as_ref().map(naming::http::routes);
    let serving = tokio::spawn(api::server::serve(listener, api(&settings, handle.clone(), dns_routes.clone()), stopped(stopping.clone())));
    if let (Some(listener), Some(routes)) = (dns_listener, dns_routes) {
        let mut only_names = api(&settings, handle, None);
        only_names.extra.push(routes);
        tokio::spawn(api::server::serve(listener, only_names, stopped(stopping)));
    }
    info!(http = %settings.http, work_dir = %settings.work_dir.display(), "Serving.");

    let mut engine_ended = false;
    let outcome = tokio::select! {
        outcome = &mut driver_ended => outcome.unwrap_or_else(|_| Err(failed("the driver's thread ended"))).map_err(ServerError::from),
        ended = &mut engine => {
            engine_ended = true;
            ended.unwrap_or_else(|error| Err(EngineError::Settings(format!("the engine failed: {error}")))).map_err(ServerError::from)
        }
        outcome = asked_to_end() => outcome,
    };
    _ = stop.send(true);
    if !engine_ended {
        _ = engine.await;
    }
    _ = serving.await;
    if outcome.is_ok()
        && let Ok(Err(error)) = driver_ended.await
    {
        return Err(error.into());
    }
    info!("Ended; tasks keep running.");
    outcome
}

async fn bind(address: SocketAddr, what: &'static str, option: &'static str) -> Result<TcpListener, ServerError> {
    TcpListener::bind(address).await.map_err(|source| ServerError::Bind { address, what, option, source })
}

fn failed(what: &str) -> StoreError {
    StoreError::Failed { what: what.into(), reason: "see the log".into() }
}

/// The driver's own thread and runtime: its commits block, and nothing else waits for them.
fn start_driver(driver: Driver, stopping: watch::Receiver<bool>) -> Result<oneshot::Receiver<Result<(), StoreError>>, ServerError> {
    let system = |source| ServerError::System { what: "the driver's thread", source };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(system)?;
    let (sender, ended) = oneshot::channel();
    let run = move || {
        let outcome = runtime.block_on(driver.run(stopping));
        if let Err(error) = &outcome {
            error!(%error, "The driver ended.");
        }
        // Without a receiver the server is ending already.
        _ = sender.send(outcome);
    };
    std::thread::Builder::new().name("driver".into()).spawn(run).map_err(system)?;
    Ok(ended)
}

async fn stopped(mut stopping: watch::Receiver<bool>) {
    // An error means that the sender is gone, which is an end as well.
    _ = stopping.wait_for(|stop| *stop).await;
}

async fn asked_to_end() -> Result<(), ServerError> {
    let system = |source| ServerError::System { what: "signal handlers", source };
    let mut terminate = signal(SignalKind::terminate()).map_err(system)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(system)?;
    tokio::select! {
        _ = terminate.recv() => info!("SIGTERM: ending."),
        _ = interrupt.recv() => info!("SIGINT: ending."),
    }
    Ok(())
}

fn api(settings: &Settings, handle: Handle, names: Option<NameRoutes>) -> Api {
    let mut info = Info::new(&settings.hostname, settings.http.port(), &settings.core);
    info.framework_name.clone_from(&settings.framework_name);
    info.marathon_config.insert("framework_name".into(), settings.framework_name.as_str().into());
    if let Some(url) = &settings.webui_url {
        info.marathon_config.insert("webui_url".into(), url.as_str().into());
    }
    info.hosts.extend(settings.node_addresses.iter().map(ToString::to_string));
    let mut api = Api::new(handle, info);
    api.extra.extend(names.map(|routes| warp::Filter::boxed(warp::Filter::and(warp::path("mesos_dns"), routes))));
    api
}

fn naming_settings(settings: &Settings) -> naming::Settings {
    let mut names = naming::Settings::new(settings.framework_name.clone(), settings.node_addresses.clone(), settings.dns.clone());
    names.leader_port = settings.http.port();
    names.framework_port = Some(settings.http.port());
    if let Some(http) = settings.dns_http {
        names.http_port = http.port();
    }
    names
}

fn brick_settings(settings: &Settings) -> brick::Settings {
    brick::Settings { work_dir: settings.work_dir.clone(), overcommit: settings.brick_overcommit, reserve: settings.brick_reserve }
}

fn engine_settings(settings: &Settings, work_dir: &WorkDir) -> engine::Settings {
    let identity = work_dir.identity();
    let paths = |texts: &[String]| texts.iter().map(PathBuf::from).collect();
    let mut engine = engine::Settings::new(
        settings.docker_host.clone(),
        settings.work_dir.clone(),
        identity.cluster_id.clone(),
        identity.agent_id.clone(),
        settings.hostname.clone(),
        settings.node_addresses.clone(),
    );
    engine.resources = settings.resources.clone();
    engine.attributes.clone_from(&settings.attributes);
    engine.host_volume_allow = paths(&settings.core.host_volumes.allow);
    engine.host_volume_deny = paths(&settings.core.host_volumes.deny);
    engine
}

/// The administrator's rule, and our own directories, which nobody can open.
fn host_volumes(rule: &HostVolumeRule, settings: &Settings) -> HostVolumeRule {
    let absolute = std::path::absolute(&settings.work_dir).unwrap_or_else(|_| settings.work_dir.clone());
    let socket = settings.docker_host.strip_prefix("unix://").and_then(|socket| Path::new(socket).parent()).map(Path::to_path_buf);
    // A socket that lies in a large directory, such as /tmp, closes itself only.
    let socket = socket.filter(|directory| directory.components().count() > 2);
    let own = [Some(absolute), socket].into_iter().flatten().map(|path| path.to_string_lossy().into_owned());
    HostVolumeRule { own: rule.own.iter().cloned().chain(own).collect(), ..rule.clone() }
}
