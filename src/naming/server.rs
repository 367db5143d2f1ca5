//! Listens: UDP and TCP loops around one question ([`Service::hear`]), which is one load of the zone and no waiting.
//!
//! Overload costs answers, never the server: what the kernel cannot queue is lost, connections, their idle time and what is forwarded have limits,
//! and a question that cannot be forwarded is told so at once.

pub mod socket;

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};
use tracing::warn;

use self::socket::UdpSocket;
use super::{
    clients::Gate,
    forward::{ForwardError, Forwarder, Transport},
    wire::{MAX_TCP_MESSAGE, Query, Status, Unreadable},
    zone::{Budget, Zone},
};

/// The longest query that is read. An ordinary one has less than 300 bytes.
pub const MAX_QUERY_BYTES: usize = 4096;

/// Connections at once. One more is closed at once.
pub const MAX_TCP_CONNECTIONS: usize = 128;

/// Of these, from one address.
pub const MAX_TCP_CONNECTIONS_PER_CLIENT: usize = 32;

/// A connection on which nothing is asked is closed after this long.
const TCP_IDLE: Duration = Duration::from_secs(10);

/// The same when more than half of the connections are taken.
const TCP_IDLE_WHEN_BUSY: Duration = Duration::from_secs(1);

/// A query that has begun, and a reply, must be through after this long.
const TCP_TRANSFER: Duration = Duration::from_secs(2);

/// After an error that may last (no file descriptors), so that the loop does not spin.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(50);

/// What all loops share.
pub struct Service {
    /// The names.
    pub zone: Arc<ArcSwap<Zone>>,
    /// Who is asked about the others.
    pub forwarder: Forwarder,
    /// For whom.
    pub gate: Gate,
    /// The longest datagram that is sent.
    pub max_udp_payload: u16,
}

/// What comes of a packet.
#[derive(Debug, PartialEq)]
pub enum Heard {
    /// Nothing is sent.
    Nothing,
    /// This is sent.
    Reply(Vec<u8>),
    /// Not ours: someone else is asked.
    Forward,
}

impl Service {
    /// Answers a packet of `client`, or says that others must. Never waits, never panics: a fault in here is a `SERVFAIL`.
    pub fn hear(&self, packet: &[u8], transport: Transport, client: IpAddr) -> Heard {
        catch_unwind(AssertUnwindSafe(|| self.try_hear(packet, transport, client))).unwrap_or_else(|_| {
            let query = Query::read(packet);
            query.map_or(Heard::Nothing, |query| Heard::Reply(query.status(Status::ServerFailure)))
        })
    }

    fn try_hear(&self, packet: &[u8], transport: Transport, client: IpAddr) -> Heard {
        let query = match Query::read(packet) {
            Ok(query) => query,
            Err(Unreadable::Ignored) => return Heard::Nothing,
            Err(Unreadable::Refused(header)) => return Heard::Reply(header.into()),
        };
        if query.edns.is_some_and(|edns| edns.version != 0) {
            return Heard::Reply(query.status(Status::BadVersion));
        }
        if !query.internet {
            return Heard::Reply(query.status(Status::Refused));
        }
        let (limit, budget) = match transport {
            Transport::Udp => {
                let limit = query.datagram_limit(self.max_udp_payload);
                (limit, Budget::datagram(limit))
            }
            Transport::Tcp => (MAX_TCP_MESSAGE, Budget::WHOLE),
        };
        match self.zone.load().lookup(&query.name, query.kind, budget, rand::random()) {
            Some(answer) => Heard::Reply(query.reply(&answer, limit)),
            None if self.gate.admits(client) => Heard::Forward,
            None => Heard::Reply(query.status(Status::Refused)),
        }
    }

    /// Asks others and makes a reply of what they say.
    async fn forward(&self, packet: &[u8], transport: Transport) -> Option<Vec<u8>> {
        let query = Query::read(packet).ok()?;
        Some(match self.forwarder.ask(packet, &query, transport).await {
            Ok(reply) if transport == Transport::Udp && reply.len() > query.datagram_limit(u16::MAX) => query.truncated(),
            Ok(reply) => reply,
            Err(ForwardError::NoResolver) => query.status(Status::Refused),
            Err(ForwardError::Failed) => query.status(Status::ServerFailure),
        })
    }
}

/// Answers datagrams for ever.
pub async fn serve_udp(service: Arc<Service>, socket: Arc<UdpSocket>) {
    let mut buffer = vec![0; MAX_QUERY_BYTES];
    loop {
        let (length, peer) = match socket.receive(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                warn!(%error, "A question could not be received.");
                sleep(PAUSE_AFTER_ERROR).await;
                continue;
            }
        };
        match service.hear(&buffer[..length], Transport::Udp, peer.address.ip()) {
            Heard::Nothing => {}
            // A reply that cannot be sent is a lost datagram: the client asks again.
            Heard::Reply(reply) => _ = socket.send(&reply, peer).await,
            Heard::Forward => {
                let (service, socket, packet) = (service.clone(), socket.clone(), buffer[..length].to_vec());
                let Some(permit) = service.forwarder.admit() else {
                    let refusal = Query::read(&packet).map(|query| query.status(Status::ServerFailure));
                    if let Ok(reply) = refusal {
                        _ = socket.send(&reply, peer).await;
                    }
                    continue;
                };
                tokio::spawn(async move {
                    if let Some(reply) = service.forward(&packet, Transport::Udp).await {
                        _ = socket.send(&reply, peer).await;
                    }
                    drop(permit);
                });
            }
        }
    }
}

/// Takes connections for ever.
pub async fn serve_tcp(service: Arc<Service>, listener: TcpListener, connections: Arc<Connections>) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                if let Some(place) = connections.admit(peer.ip()) {
                    let service = service.clone();
                    tokio::spawn(async move {
                        // However it ends, the client sees it.
                        _ = converse(&service, stream, &place).await;
                    });
                }
            }
            Err(error) => {
                warn!(%error, "A connection with questions could not be taken.");
                sleep(PAUSE_AFTER_ERROR).await;
            }
        }
    }
}

/// Questions of one connection, one after the other.
async fn converse(service: &Service, mut stream: TcpStream, place: &Place) -> io::Result<()> {
    stream.set_nodelay(true)?;
    loop {
        let length = timeout(place.patience(), stream.read_u16()).await??;
        let mut packet = vec![0; usize::from(length)];
        if packet.len() > MAX_QUERY_BYTES {
            return Ok(());
        }
        timeout(TCP_TRANSFER, stream.read_exact(&mut packet)).await??;
        let reply = match service.hear(&packet, Transport::Tcp, place.client) {
            Heard::Nothing => return Ok(()),
            Heard::Reply(reply) => Some(reply),
            Heard::Forward => match service.forwarder.admit() {
                Some(_permit) => service.forward(&packet, Transport::Tcp).await,
                None => Query::read(&packet).ok().map(|query| query.status(Status::ServerFailure)),
            },
        };
        let Some(reply) = reply else { return Ok(()) };
        let mut message = Vec::with_capacity(2 + reply.len());
        message.extend((reply.len().min(MAX_TCP_MESSAGE) as u16).to_be_bytes());
        message.extend(reply);
        timeout(TCP_TRANSFER, stream.write_all(&message)).await??;
    }
}

/// Counts connections, altogether and of each client.
pub struct Connections {
    places: Arc<Semaphore>,
    clients: Mutex<HashMap<IpAddr, usize>>,
}

/// A connection's right to exist.
struct Place {
    connections: Arc<Connections>,
    client: IpAddr,
    _permit: OwnedSemaphorePermit,
}

impl Connections {
    /// None yet.
    pub fn new() -> Arc<Self> {
        Arc::new(Self { places: Arc::new(Semaphore::new(MAX_TCP_CONNECTIONS)), clients: Mutex::default() })
    }

    fn admit(self: &Arc<Self>, client: IpAddr) -> Option<Place> {
        let permit = self.places.clone().try_acquire_owned().ok()?;
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let count = clients.entry(client).or_default();
        if *count >= MAX_TCP_CONNECTIONS_PER_CLIENT {
            return None;
        }
        *count += 1;
        Some(Place { connections: self.clone(), client, _permit: permit })
    }
}

impl Place {
    fn patience(&self) -> Duration {
        if self.connections.places.available_permits() < MAX_TCP_CONNECTIONS / 2 { TCP_IDLE_WHEN_BUSY } else { TCP_IDLE }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut clients = self.connections.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = clients.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                clients.remove(&self.client);
            }
        }
    }
}

/// Where a datagram came from and to which of our addresses, so that the reply leaves from there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The client.
    pub address: SocketAddr,
    /// Ours; `None` when the kernel did not say.
    pub local: Option<IpAddr>,
}
