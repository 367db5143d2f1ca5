//! The name server: Mesos-DNS' names and answers, made from snapshots.
//!
//! [`label`] makes names, [`zone`] is the pure index of what runs and answers questions, [`wire`] reads and writes messages, [`server`] listens,
//! [`forward`] passes on what is not ours for those whom [`clients`] admits, [`http`] is Mesos-DNS' HTTP API. The zone
//! follows the driver's commits and is published through an `ArcSwap`: a question costs one load. All of it but the HTTP API runs on threads of its
//! own, so that names resolve however busy the rest is; when the driver ends, the last names stay.

pub mod clients;
pub mod forward;
pub mod http;
pub mod label;
pub mod server;
pub mod wire;
pub mod zone;

#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
pub(crate) mod tests;

use std::{
    io,
    net::{IpAddr, SocketAddr, TcpListener},
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::Arc,
    thread::{self, JoinHandle},
    time::SystemTime,
};

use arc_swap::ArcSwap;
use tokio::sync::{broadcast, oneshot, watch};
use tracing::{error, info, warn};

use self::{
    clients::{Clients, Gate},
    forward::{Forwarder, Resolvers},
    label::Rule,
    server::{Connections, Service, socket},
    wire::SAFE_UDP_PAYLOAD,
    zone::{Plan, Zone},
};
use crate::{
    model::{record::RecordKey, time::Timestamp},
    runtime::handle::{Handle, Published},
};

/// Commits that are put into the zone before it is published again.
const MAX_COMMITS_AT_ONCE: usize = 256;

/// Domain and framework together; the rest of a name must fit behind them.
const MAX_SUFFIX_BYTES: usize = 100;

/// What the name server needs to know.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The second part of every task's name (`--framework_name`).
    pub framework_name: String,
    /// Where the platform itself is reached: what `leader`, `master` and the framework's own name answer.
    pub node_addresses: Vec<IpAddr>,
    /// Where questions are taken, each over UDP and TCP. Port 0: any free one.
    pub listen: Vec<SocketAddr>,
    /// Everything under it is ours.
    pub domain: String,
    /// Who is asked about other names; `None`: those of `/etc/resolv.conf`; none at all: such questions are refused.
    pub resolvers: Option<Vec<SocketAddr>>,
    /// For whom others are asked.
    pub forward_allow: Clients,
    /// Seconds that an answer may be kept. Mesos-DNS' 60 is the default, which its users know. C libraries keep nothing and so see a move at
    /// once; where a cache stands between (systemd-resolved, dnsmasq, Java), fewer seconds make it follow sooner.
    pub ttl: u32,
    /// How names are sanitised.
    pub rule: Rule,
    /// The longest datagram that is sent, whatever a client says it takes; 512 to 4096.
    pub max_udp_payload: u16,
    /// For bridge mode, SRV records pair a host port with the container's address as Mesos-DNS does, although nothing listens there. Without it the
    /// host port is paired with the host.
    pub srv_targets_like_mesos_dns: bool,
    /// The port in `_leader._tcp`.
    pub leader_port: u16,
    /// The port in `_slave._tcp`.
    pub agent_port: u16,
    /// The port in `_framework._tcp`; `None`: no such record.
    pub framework_port: Option<u16>,
    /// Where the HTTP API is, for `/v1/config`.
    pub http_port: u16,
}

impl Settings {
    /// Mesos-DNS' defaults.
    pub fn new(framework_name: impl Into<String>, node_addresses: Vec<IpAddr>, listen: Vec<SocketAddr>) -> Self {
        Self {
            framework_name: framework_name.into(),
            node_addresses,
            listen,
            domain: "mesos".into(),
            resolvers: None,
            forward_allow: Clients::default(),
            ttl: 60,
            rule: Rule::Rfc1123,
            max_udp_payload: SAFE_UDP_PAYLOAD,
            srv_targets_like_mesos_dns: false,
            leader_port: 8080,
            agent_port: 5051,
            framework_port: None,
            http_port: 8123,
        }
    }

    fn validate(&self) -> Result<(), NamingError> {
        let framework = self.rule.fragment(&self.framework_name);
        if framework.is_empty() {
            return Err(NamingError::Framework(self.framework_name.clone()));
        }
        let domain = self.domain.trim_matches('.').to_ascii_lowercase();
        if domain.is_empty() || Rule::Rfc1123.fragment(&domain) != domain {
            return Err(NamingError::Domain(self.domain.clone()));
        }
        if domain.len() + framework.len() > MAX_SUFFIX_BYTES {
            return Err(NamingError::TooLong { framework, domain });
        }
        if self.listen.is_empty() {
            return Err(NamingError::NoAddress);
        }
        Ok(())
    }
}

/// Why there is no name server.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum NamingError {
    #[error("the framework name '{0}' leaves nothing for a domain name: it needs a letter or a digit (--framework_name)")]
    Framework(String),
    #[error("'{0}' is no domain: it may have letters, digits, dashes, and dots between them")]
    Domain(String),
    #[error("'{framework}' and '{domain}' are too long for names: together {MAX_SUFFIX_BYTES} bytes at most")]
    TooLong { framework: String, domain: String },
    #[error("the name server has no address to listen on: give one with --dns_address")]
    NoAddress,
    #[error("the name server cannot listen on {address} ({transport}): {source}; {}", hint(source, address))]
    Bind { address: SocketAddr, transport: &'static str, source: io::Error },
    #[error("the name server cannot start: {0}")]
    Thread(#[source] io::Error),
}

fn hint(error: &io::Error, address: &SocketAddr) -> String {
    let port = address.port();
    match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "another program has this port (`ss -lnptu 'sport = :{port}'` names it; for 53 often systemd-resolved, dnsmasq or bind9): \
             stop it, or choose another port with --dns_port or another address with --dns_address"
        ),
        io::ErrorKind::PermissionDenied => {
            format!("port {port} needs root or CAP_NET_BIND_SERVICE: grant it, or choose a port from 1024 up with --dns_port")
        }
        io::ErrorKind::AddrNotAvailable => {
            format!("{} is no address of this machine (`ip address` lists them): choose one with --dns_address", address.ip())
        }
        _ => "choose another address with --dns_address or another port with --dns_port".into(),
    }
}

/// A name server that runs.
pub struct Running {
    /// The names, always as of the last commit.
    pub zone: Arc<ArcSwap<Zone>>,
    /// Where it listens, port 0 resolved.
    pub addresses: Vec<SocketAddr>,
    /// What it was started with.
    pub settings: Arc<Settings>,
    thread: JoinHandle<()>,
}

impl Running {
    /// Waits for the end, which `shutdown` brings about. Blocks.
    pub fn join(self) {
        // A panic in there was reported by the thread itself.
        _ = self.thread.join();
    }
}

/// Starts the name server: when this returns, it answers, with the names of the present view. It ends when `shutdown` becomes true or its sender is
/// dropped.
///
/// # Errors
/// Settings that make no names; an address that cannot be bound.
pub async fn start(settings: Settings, handle: Handle, shutdown: watch::Receiver<bool>) -> Result<Running, NamingError> {
    settings.validate()?;
    let mut sockets = Vec::new();
    for address in &settings.listen {
        let bound = socket::bind(*address).map_err(|(transport, source)| NamingError::Bind { address: *address, transport, source })?;
        sockets.push(bound);
    }
    let addresses: Vec<SocketAddr> = sockets.iter().map(|(_, _, address)| *address).collect();
    // First listen to news, then look: nothing is missed in between.
    let news = handle.follow_tasks();
    let plan = Arc::new(Plan::new(&settings, &addresses));
    let zone = Arc::new(ArcSwap::from_pointee(Zone::build(plan, &handle.view(), now())));
    let resolvers = settings.resolvers.clone().map_or_else(|| Resolvers::File(PathBuf::from("/etc/resolv.conf")), Resolvers::Fixed);
    let forwarder = Forwarder::new(resolvers, addresses.clone());
    let gate = Gate::new(settings.forward_allow.clone());
    let service = Arc::new(Service { zone: zone.clone(), forwarder, gate, max_udp_payload: settings.max_udp_payload });

    let follower = Follower { handle, zone: zone.clone() };
    let work = async move {
        spawn_loops(&service, sockets)?;
        Ok(follower.follow(news, shutdown))
    };
    let (ready, started) = oneshot::channel();
    let thread = thread::Builder::new().name("names".into()).spawn(move || run(work, ready)).map_err(NamingError::Thread)?;
    started.await.unwrap_or_else(|_| Err(io::Error::other("its thread ended"))).map_err(NamingError::Thread)?;
    info!(?addresses, domain = settings.domain, "Names are served.");
    Ok(Running { zone, addresses, settings: Arc::new(settings), thread })
}

/// The thread of the name server: a runtime of its own, so that no other work is in its way.
fn run<F: Future<Output = ()>>(begin: impl Future<Output = io::Result<F>>, ready: oneshot::Sender<io::Result<()>>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).thread_name("names").enable_all().build();
    let begun = runtime.and_then(|runtime| Ok((runtime.block_on(begin)?, runtime)));
    match begun {
        Ok((work, runtime)) => {
            _ = ready.send(Ok(()));
            runtime.block_on(work);
            runtime.shutdown_background();
        }
        Err(error) => _ = ready.send(Err(error)),
    }
}

type Sockets = Vec<(std::net::UdpSocket, TcpListener, SocketAddr)>;

fn spawn_loops(service: &Arc<Service>, sockets: Sockets) -> io::Result<()> {
    let connections = Connections::new();
    for (udp, tcp, _) in sockets {
        let (udp, tcp) = (socket::UdpSocket::new(udp)?, tokio::net::TcpListener::from_std(tcp)?);
        tokio::spawn(server::serve_udp(service.clone(), Arc::new(udp)));
        tokio::spawn(server::serve_tcp(service.clone(), tcp, connections.clone()));
    }
    Ok(())
}

/// Keeps the zone as new as the view.
struct Follower {
    handle: Handle,
    zone: Arc<ArcSwap<Zone>>,
}

impl Follower {
    async fn follow(self, mut news: broadcast::Receiver<Arc<Published>>, mut shutdown: watch::Receiver<bool>) {
        // True while the zone may lack something, after a fault of our own.
        let mut incomplete = false;
        loop {
            let received = tokio::select! {
                _ = shutdown.wait_for(|stop| *stop) => return,
                received = news.recv() => received,
            };
            let closed = matches!(received, Err(broadcast::error::RecvError::Closed));
            let work = || match received {
                Ok(published) if !incomplete => self.apply(published, &mut news),
                Ok(_) => self.rebuild(),
                Err(broadcast::error::RecvError::Lagged(commits)) => self.make_up_for(commits),
                Err(broadcast::error::RecvError::Closed) => {}
            };
            incomplete = catch_unwind(AssertUnwindSafe(work)).is_err();
            if incomplete {
                error!("The names could not be brought up to date; those before stay until the next change.");
            }
            if closed {
                // Nothing changes any more; the last names stay until we are told to end.
                _ = shutdown.wait_for(|stop| *stop).await;
                return;
            }
        }
    }

    /// Takes what else is there already, so that many small commits cost one publication.
    fn apply(&self, first: Arc<Published>, news: &mut broadcast::Receiver<Arc<Published>>) {
        let mut batch = vec![first];
        while batch.len() < MAX_COMMITS_AT_ONCE {
            match news.try_recv() {
                Ok(published) => batch.push(published),
                Err(broadcast::error::TryRecvError::Lagged(commits)) => return self.make_up_for(commits),
                Err(_) => break,
            }
        }
        let changed: Vec<&RecordKey> = batch.iter().flat_map(|published| &published.changed).filter(|key| Zone::concerns(key)).collect();
        if changed.is_empty() {
            return;
        }
        let mut zone = Zone::clone(&self.zone.load());
        zone.apply(&self.handle.view(), changed, now());
        self.zone.store(Arc::new(zone));
    }

    fn make_up_for(&self, missed: u64) {
        warn!(missed, "The names lag behind and are made anew.");
        self.rebuild();
    }

    fn rebuild(&self) {
        let zone = self.zone.load().rebuilt(&self.handle.view(), now());
        self.zone.store(Arc::new(zone));
    }
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
