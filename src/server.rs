//! `xtao serve`: puts the rooms together, in an order in which nothing is served before it is true, and takes them down again.
//!
//! Up: the work directory is locked, every address is bound, the state is recovered; then driver, names, API and engine begin. The unix sockets come
//! last: who finds one finds a server. The driver and the
//! name server have threads of their own, so that a busy API starves neither. Down: a signal, or the end of the driver, ends all; tasks keep running.

pub mod node;
pub mod sockets;
pub mod tls;

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use tokio::{
    net::{TcpListener, UnixListener},
    signal::unix::{SignalKind, signal},
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
};
use tracing::{error, info};
use warp::Filter;

use crate::{
    api::{
        self, Access, Api, Identity, Info,
        identity::{Door, Rules},
        server::Listener,
    },
    audit::Audit,
    auth::{
        gate::{self, Gate},
        token::TokenKey,
    },
    brick::{self, BrickError, Bricks, spool::Spool},
    cluster::engine::{self, EngineError},
    config::{self, Config, PortSpan},
    core,
    model::{
        agent::Attribute,
        app::input::Defaults,
        cluster::{ClusterCall, ClusterEvent},
        host_volume::HostVolumeRule,
        id::Owner,
        resources::{PortRange, Scalar},
    },
    naming::{
        self, NamingError,
        clients::{Clients, Network},
    },
    probe,
    registry::token::AuthorityError,
    runtime::{
        driver::{Driver, MAX_WAITING_CALLS, MAX_WAITING_EVENTS},
        handle::Handle,
        node::NodeAccess,
    },
    store::{NICENESS, StoreError, embedded::EmbeddedStore, identity::WorkDir},
    telemetry::Levels,
};

mod registry;

use self::node::ThisNode;

/// Between two looks at the free space of the pools.
const POOL_INTERVAL: Duration = Duration::from_secs(60);

/// What the work directory remembers as its engine.
pub const ENGINE: &str = "docker";

/// Connections at once on the administrators' socket. A place of its own: whatever goes on elsewhere, they get in.
const ADMIN_CONNECTIONS: usize = 64;

type NameRoutes = warp::filters::BoxedFilter<(warp::reply::Response,)>;

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
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// An address of the HTTP API cannot be bound.
    #[error("cannot listen on {address} ({what}): {source}; another server may have it, choose another with {option}")]
    Bind {
        address: SocketAddr,
        what: &'static str,
        option: &'static str,
        #[source]
        source: std::io::Error,
    },
    #[error(transparent)]
    Tls(#[from] tls::TlsError),
    /// One of the unix sockets cannot be made.
    #[error("cannot listen on {path}: {source}", path = path.display())]
    Socket {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// The key for tokens cannot be used.
    #[error("{0}")]
    TokenKey(std::io::Error),
    /// An address that others reach, and nobody who could log in.
    #[error(
        "the API cannot listen on {address} yet: nobody could log in. Give a user a password first, with\n    \
         xtao auth password USER --admin --work_dir {work_dir}\n(which works while the server is stopped), or an administrator with \
         --http_credentials USER:PASSWORD; or listen on 127.0.0.1"
    )]
    Nobody { address: SocketAddr, work_dir: String },
    /// The audit log cannot be kept.
    #[error("the audit log in {} cannot be opened: {source}", directory.display())]
    Audit {
        directory: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// Leadership was given up: `DELETE /v2/leader`.
    #[error("leadership was given up, as DELETE /v2/leader asked for; whoever supervises this process starts it again")]
    Abdicated,
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
            Self::Abdicated => 105,
            Self::Tls(_) | Self::Nobody { .. } => config::EXIT_BAD_SETTINGS,
            _ => 1,
        }
    }
}

/// What launches tasks.
pub enum Cluster {
    /// The embedded engine: Docker and processes of this machine.
    Engine,
    /// Another one, made of the driver's calls, the way for its events, and what turns true at the end.
    Other(Box<dyn FnOnce(mpsc::Receiver<ClusterCall>, mpsc::Sender<ClusterEvent>, watch::Receiver<bool>) -> Running + Send>),
}

/// A cluster that runs.
pub type Running = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Runs the server until a signal asks it to end. `levels`: how much is logged.
///
/// # Errors
/// See [`ServerError`]. Whatever the error, containers keep running.
pub async fn run(config: Config, levels: Levels, cluster: Cluster) -> Result<(), ServerError> {
    let work_dir = WorkDir::open(&config.work_dir, ENGINE)?;
    let mut listeners = listeners(&config).await?;
    let dns_http = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), config.dns.http_port);
    let dns_listener = bind(dns_http, "HTTP API of the name server", "--dns_http_port").await?;
    let proxy_listener = bind(config.registry_proxy, "the registry for Docker", "--registry_proxy_port").await?;
    let store = EmbeddedStore::open(&work_dir)?;
    let (event_sender, events) = mpsc::channel(MAX_WAITING_EVENTS);
    let (call_sender, calls) = mpsc::channel(MAX_WAITING_CALLS);
    let core_settings = core_settings(&config);
    let (driver, handle) = Driver::open(core_settings.clone(), Box::new(store), events, call_sender).await?;
    somebody_could_log_in(&config, &handle)?;
    let bricks = Arc::new(Bricks::open(brick_settings(&config)).await?);
    tokio::spawn(watch_pools(bricks.clone()));
    let (stop, stopping) = watch::channel(false);

    let names = naming::start(naming_settings(&config), handle.clone(), stopping.clone()).await?;
    let mut driver_ended = start_driver(driver, stopping.clone())?;
    let images = registry::platform(&config, handle.clone(), &proxy_listener)?;
    let mut engine_settings = engine_settings(&config, &core_settings, &work_dir)?;
    engine_settings.platform = Some(images.clone());
    let node = this_node(&config, &engine_settings)?;
    let node: Arc<dyn NodeAccess> = Arc::new(node);
    let checks = probe::Settings { max_concurrent: config.core.max_concurrent_health_checks, nodes: Some(node.clone()) };
    let threads = |source| ServerError::System { what: "the thread of the checks", source };
    probe::start(checks, handle.clone(), event_sender.clone(), stopping.clone()).map_err(threads)?;
    let mut engine = match cluster {
        Cluster::Engine => tokio::spawn(engine::run(engine_settings, bricks, calls, event_sender, stopping.clone())),
        Cluster::Other(start) => {
            let running = start(calls, event_sender, stopping.clone());
            tokio::spawn(async move {
                running.await;
                Ok(())
            })
        }
    };
    let dns_routes = naming::http::routes(&names);
    let audit = open_audit(&config)?;
    let identity = identity(&config, &audit)?;
    let proxy_routes = registry::routes(images.clone())?;
    let mut api = api(&config, &core_settings, handle.clone(), identity.clone(), dns_routes.clone());
    api.audit = audit;
    api.nodes = Some(node);
    api.images = Some(images);
    api.levels = levels;
    let (admin_socket, _admin_file) = unix_socket(&config, Door::Administrators)?;
    let (users_socket, _users_file) = unix_socket(&config, Door::Users)?;
    listeners.push((Listener::Unix(admin_socket, Door::Administrators), ADMIN_CONNECTIONS));
    listeners.push((Listener::Unix(users_socket, Door::Users), api.limits.connections));
    let mut serving = JoinSet::new();
    for (listener, connections) in listeners {
        let mut api = api.clone();
        api.limits.connections = connections;
        serving.spawn(api::server::serve(listener, api, stopped(stopping.clone())));
    }
    let names_for_all = without_lists(dns_routes, identity.clone(), api.access.clone());
    tokio::spawn(api::server::serve_filter(dns_listener, names_for_all, api::Limits::default(), stopped(stopping.clone())));
    tokio::spawn(api::server::serve_filter(proxy_listener, proxy_routes, api::Limits::default(), stopped(stopping)));
    if identity.is_open(&api.access) {
        info!("No user has a password yet: everybody on this machine is an administrator of the API. See 'xtao auth password'.");
    }
    let addresses = config.http.addresses().map(|address| address.to_string()).collect::<Vec<_>>().join(" ");
    info!(api = %addresses, work_dir = %config.work_dir.display(), "Serving.");

    let mut engine_ended = false;
    let outcome = tokio::select! {
        outcome = &mut driver_ended => outcome.unwrap_or_else(|_| Err(failed("the driver's thread ended"))).map_err(ServerError::from),
        ended = &mut engine => {
            engine_ended = true;
            ended.unwrap_or_else(|error| Err(EngineError::Settings(format!("the engine failed: {error}")))).map_err(ServerError::from)
        }
        outcome = asked_to_end() => outcome,
        () = api.resign.notified() => Err(ServerError::Abdicated),
    };
    _ = stop.send(true);
    if !engine_ended {
        _ = engine.await;
    }
    while serving.join_next().await.is_some() {}
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

/// The API's TCP listeners, each with the number of connections it takes at once.
async fn listeners(config: &Config) -> Result<Vec<(Listener, usize)>, ServerError> {
    let connections = api::Limits::default().connections;
    let mut listeners = Vec::new();
    if config.http.plain {
        let listener = bind(config.http.address, "HTTP API", "--http_port").await?;
        listeners.push((Listener::Tcp(listener), connections));
    }
    if let Some(tls) = &config.http.tls {
        let (keystore, acceptors) = tls::Watched::open(&tls.keystore, tls.keystore_password.clone())?;
        tokio::spawn(keystore.run(tls::LOOK_EVERY));
        let listener = bind(tls.address, "HTTPS API", "--https_port").await?;
        listeners.push((Listener::Tls(listener, acceptors), connections));
    }
    Ok(listeners)
}

fn unix_socket(config: &Config, door: Door) -> Result<(UnixListener, sockets::Bound), ServerError> {
    let name = if door == Door::Users { sockets::USERS_SOCKET } else { sockets::ADMIN_SOCKET };
    sockets::bind(&config.work_dir, door).map_err(|source| ServerError::Socket { path: config.work_dir.join(name), source })
}

/// Others than this machine's are let in only when there is somebody to let in.
fn somebody_could_log_in(config: &Config, handle: &Handle) -> Result<(), ServerError> {
    let http = &config.http;
    let exposed = http.addresses().find(|address| !address.ip().is_loopback());
    match exposed.filter(|_| http.authentication && http.credentials.is_none() && handle.view().tables.passwords == 0) {
        Some(address) => Err(ServerError::Nobody { address, work_dir: config.work_dir.display().to_string() }),
        None => Ok(()),
    }
}

fn open_audit(config: &Config) -> Result<Audit, ServerError> {
    let directory = config.work_dir.join(crate::audit::DIRECTORY);
    Audit::open(&directory).map_err(|source| ServerError::Audit { directory, source })
}

fn identity(config: &Config, audit: &Audit) -> Result<Arc<Identity>, ServerError> {
    let http = &config.http;
    let key = TokenKey::load(&config.work_dir).map_err(ServerError::TokenKey)?;
    let credentials = http
        .credentials
        .as_ref()
        .map(|given| gate::Credentials { user: Owner::new(given.user.as_str()), password: given.password.reveal().to_owned() });
    let rules = Rules { authentication: http.authentication, loopback_only: http.is_loopback_only() };
    let gate = Gate::new(key, http.token_lifetime, credentials);
    Ok(Arc::new(Identity::new(rules, gate, Arc::new(audit.clone())).in_realm(&http.realm)))
}

/// The name server's own HTTP port asks nobody who they are, as Mesos-DNS' does: it tells of a name what the name server tells anyone anyway. Lists
/// of all names would tell more, namely who has what; they end with the first password. (The API has them too, for who may see them.)
fn without_lists(names: NameRoutes, identity: Arc<Identity>, access: Access) -> NameRoutes {
    let open = warp::any()
        .and_then(move || {
            let is_open = identity.is_open(&access);
            async move { if is_open { Ok(()) } else { Err(warp::reject()) } }
        })
        .untuple_one();
    let refused = warp::path!("v1" / "enumerate").or(warp::path!("v1" / "axfr")).unify().map(|| {
        let text = "{\"message\":\"lists of all names are served by the API alone, under /mesos_dns/v1, since there are users\"}\n";
        warp::http::Response::builder()
            .status(warp::http::StatusCode::FORBIDDEN)
            .header("content-type", "application/json")
            .body(text.into())
            .unwrap_or_default()
    });
    open.and(names.clone()).or(refused).unify().or(names).unify().boxed()
}

/// The routes but for the lists of all names, which then are not there.
fn lookups(names: NameRoutes) -> NameRoutes {
    let is_list = |path: &str| matches!(path.split('/').filter(|segment| !segment.is_empty()).nth(2), Some("enumerate" | "axfr"));
    let no_list = move |path: warp::path::FullPath| std::future::ready(if is_list(path.as_str()) { Err(warp::reject()) } else { Ok(()) });
    warp::path::full().and_then(no_list).untuple_one().and(names).boxed()
}

fn failed(what: &str) -> StoreError {
    StoreError::Failed { what: what.into(), reason: "see the log".into() }
}

/// The driver's own thread and runtime: its commits block, and nothing else waits for them. It goes before other threads, as the store's does.
fn start_driver(driver: Driver, stopping: watch::Receiver<bool>) -> Result<oneshot::Receiver<Result<(), StoreError>>, ServerError> {
    let system = |source| ServerError::System { what: "the driver's thread", source };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(system)?;
    let (sender, ended) = oneshot::channel();
    let run = move || {
        _ = rustix::process::setpriority_process(None, NICENESS);
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

/// Looks at the pools from time to time: that is what raises the alarm before a disk is full.
async fn watch_pools(bricks: Arc<Bricks>) {
    loop {
        bricks.pool_status().await;
        tokio::time::sleep(POOL_INTERVAL).await;
    }
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

fn api(config: &Config, core: &core::Settings, handle: Handle, identity: Arc<Identity>, names: NameRoutes) -> Api {
    let http = &config.http;
    let mut info = Info::new(&config.identity.hostname, http.main_address().port(), core);
    info.https = !http.plain;
    info.config.clone_from(&config.shown);
    info.http_config.insert("http_port".into(), http.plain.then(|| http.address.port()).into());
    info.http_config.insert("https_port".into(), http.tls.as_ref().map(|tls| tls.address.port()).into());
    info.framework_name.clone_from(&config.identity.framework_name);
    info.marathon_config.insert("framework_name".into(), config.identity.framework_name.as_str().into());
    info.hosts.extend(config.engine.node_addresses.iter().map(ToString::to_string));
    if let Some(url) = &config.identity.webui_url {
        info.marathon_config.insert("webui_url".into(), url.as_str().into());
    }
    info.marathon_config.insert("features".into(), config.core.features.clone().into());
    info.task_killing = has_feature(config, "task_killing");
    info.allow_origin = config.http.allow_origin.as_deref().and_then(|origin| origin.parse().ok());
    info.marathon_config.insert("access_control_allow_origin".into(), config.http.allow_origin.clone().into());
    info.compression = config.http.compression;
    info.metrics_prefix.clone_from(&config.http.metrics_name_prefix);
    info.metrics_prometheus = config.http.metrics_prometheus;
    let mut api = Api::new(handle, info);
    api.most_requests = config.http.max_concurrent_requests.map(api::surround::MostRequests::new);
    api.identity = identity;
    // What covers all names tells who has what; the rest anybody may ask the name server.
    api.extra.push(("mesos_dns", lookups(names.clone())));
    api.extra_for_administrators.push(("mesos_dns", names));
    api
}

/// Whether `--enable_features` names it.
fn has_feature(config: &Config, name: &str) -> bool {
    config.core.features.iter().any(|feature| feature == name)
}

fn core_settings(config: &Config) -> core::Settings {
    let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let range = |span: PortSpan| PortRange::new(span.first, span.last);
    let given = &config.core;
    core::Settings {
        local_port_min: given.local_port_min,
        local_port_max: given.local_port_max,
        host_mode_ports: range(given.host_mode_ports),
        bridge_mode_ports: range(given.bridge_mode_ports),
        reserved_ports: given.reserved_ports.clone(),
        max_running_deployments: given.max_running_deployments,
        max_versions: given.max_versions,
        task_launch_confirm_timeout_ms: ms(given.task_launch_confirm_timeout),
        task_launch_timeout_ms: ms(given.task_launch_timeout),
        kill_retry_timeout_ms: ms(given.kill_retry_timeout),
        kill_chunk_size: given.kill_chunk_size,
        decline_offer_duration_ms: ms(given.decline_offer_duration),
        max_instances_per_offer: given.max_instances_per_offer,
        reconciliation_interval_ms: ms(given.reconciliation_interval),
        env_vars_prefix: given.env_vars_prefix.clone(),
        host_volumes: host_volumes(config),
        secrets: has_feature(config, "secrets"),
        // The embedded engine runs commands as processes of the node.
        command_networks: false,
        new_group_enforce_role: given.new_group_enforce_role,
        accepted_resource_roles: match given.accepted_resource_roles.as_str() {
            "unreserved" => core::AcceptedResourceRoles::Unreserved,
            "reserved" => core::AcceptedResourceRoles::Reserved,
            _ => core::AcceptedResourceRoles::Any,
        },
        gpus_restricted: given.gpus_restricted,
        app_defaults: Defaults {
            role: given.default_role.clone(),
            network_name: given.default_network_name.clone(),
            bridge_name: given.bridge_name.clone(),
        },
    }
}

fn naming_settings(config: &Config) -> naming::Settings {
    let listen = config.dns.addresses.iter().map(|address| SocketAddr::new(*address, config.dns.port)).collect();
    let mut names = naming::Settings::new(config.identity.framework_name.clone(), config.engine.node_addresses.clone(), listen);
    names.leader_port = config.http.main_address().port();
    names.framework_port = Some(config.http.main_address().port());
    names.http_port = config.dns.http_port;
    names.forward_allow = dns_clients(&config.dns.forward_allow);
    names
}

fn dns_clients(allowed: &[config::DnsClients]) -> Clients {
    let networks = allowed.iter().filter_map(|clients| match clients {
        config::DnsClients::Network { address, prefix } => Some(Network::new(*address, *prefix)),
        config::DnsClients::Any | config::DnsClients::Attached => None,
    });
    let any = allowed.contains(&config::DnsClients::Any);
    let attached = allowed.contains(&config::DnsClients::Attached);
    Clients { any, attached, networks: networks.collect() }
}

fn brick_settings(config: &Config) -> brick::Settings {
    brick::Settings { work_dir: config.work_dir.clone(), overcommit: config.bricks.overcommit, reserve: config.bricks.reserve }
}

fn engine_settings(config: &Config, core: &core::Settings, work_dir: &WorkDir) -> Result<engine::Settings, EngineError> {
    let identity = work_dir.identity();
    let given = &config.engine;
    let paths = |texts: &[String]| texts.iter().map(PathBuf::from).collect();
    let mut engine = engine::Settings::new(
        given.docker_host.clone(),
        config.work_dir.clone(),
        identity.cluster_id.clone(),
        identity.agent_id.clone(),
        config.identity.hostname.clone(),
        given.node_addresses.clone(),
    );
    engine.task_killing = has_feature(config, "task_killing");
    engine.resources.cpus = given.resources.cpus.map(Scalar::from_f64);
    engine.resources.mem = given.resources.mem.map(Scalar::whole);
    engine.resources.disk = given.resources.disk.map(Scalar::whole);
    if !given.resources.ports.is_empty() {
        engine.resources.ports = given.resources.ports.iter().map(|span| PortRange::new(span.first, span.last)).collect();
    }
    engine.resources.gpus = given.resources.gpus.unwrap_or(0);
    let attribute = |attribute: &config::Attribute| {
        let reason = |error| EngineError::Settings(format!("--agent_attributes: {}: {error}", attribute.name));
        Attribute::read(&attribute.name, &attribute.value).map_err(reason)
    };
    engine.attributes = given.attributes.iter().map(attribute).collect::<Result<_, _>>()?;
    (engine.region, engine.zone) = given.domain.clone().map(|domain| (domain.region, domain.zone)).unzip();
    engine.host_volume_allow = paths(&core.host_volumes.allow);
    engine.allow_vulnerable_runtime = given.allow_vulnerable_runtime;
    engine.host_volume_deny = paths(&core.host_volumes.deny);
    engine.secrets_dir.clone_from(&given.secrets_dir);
    Ok(engine)
}

fn this_node(config: &Config, engine: &engine::Settings) -> Result<ThisNode, BrickError> {
    Ok(ThisNode {
        agent: engine.agent_id.clone(),
        addresses: engine.node_addresses.clone(),
        access: Arc::new(engine::access::Access::new(engine)),
        spool: Spool::open(&config.work_dir, config.bricks.reserve)?,
    })
}

/// The administrator's rule, and our own directories, which nobody can open.
fn host_volumes(config: &Config) -> HostVolumeRule {
    let socket = config.engine.docker_host.strip_prefix("unix://").map(Path::new);
    // A socket that lies in a large directory, such as /tmp, closes itself only.
    let directory = socket.and_then(Path::parent).filter(|directory| directory.components().count() > 2);
    let texts = |paths: &[PathBuf]| paths.iter().map(|path| path.to_string_lossy().into_owned()).collect();
    let secrets = config.engine.secrets_dir.as_deref();
    let own =
        [Some(config.work_dir.as_path()), socket, directory, secrets].into_iter().flatten().map(|path| path.to_string_lossy().into_owned());
    HostVolumeRule { allow: texts(&config.engine.host_volume_allow), deny: texts(&config.engine.host_volume_deny), own: own.collect() }
}

#[cfg(test)]
mod tests;
