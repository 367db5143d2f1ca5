//! Questions about other names: passed on to the resolvers of this machine, over the transport they came by, and the reply passed back.
//!
//! Each attempt has a socket of its own, so a random port, and a random id; a reply counts only from the resolver that was asked, with that id and
//! that question. A resolver that is silent is joined by the next one after [`STAGGER`]; the first reply wins, whatever it says.

use std::{
    io::Read,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};
use tracing::debug;

use super::{
    clients::is_local,
    wire::{MAX_UDP_PAYLOAD, Query},
};

/// Questions that are passed on at once. Each holds a socket for each resolver that it waits for.
pub const MAX_FORWARDS: usize = 256;

/// Resolvers that are used, as many as the C library uses.
pub const MAX_RESOLVERS: usize = 3;

/// A question without a reply fails after this long; clients wait about as long.
pub const FORWARD_TIMEOUT: Duration = Duration::from_secs(5);

/// After this long without a reply the next resolver is asked too.
pub const STAGGER: Duration = Duration::from_secs(1);

/// How often `resolv.conf` is read again, at most.
const REREAD_AFTER: Duration = Duration::from_secs(5);

/// What is read of `resolv.conf`, bytes.
const MAX_RESOLV_CONF_BYTES: u64 = 64 << 10;

/// How a question came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Transport {
    Udp,
    Tcp,
}

/// Why there is no reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ForwardError {
    /// Nobody can be asked.
    #[error("no resolver is known")]
    NoResolver,
    /// Those who were asked did not answer.
    #[error("no resolver answered")]
    Failed,
}

/// Who is asked.
#[derive(Clone, Debug)]
pub enum Resolvers {
    /// These, in this order.
    Fixed(Vec<SocketAddr>),
    /// Those of a `resolv.conf`, as it is at the time.
    File(PathBuf),
}

/// Passes questions on.
pub struct Forwarder {
    resolvers: Resolvers,
    ours: Vec<SocketAddr>,
    last_read: Mutex<Option<(Instant, Arc<[SocketAddr]>)>>,
    in_flight: Arc<Semaphore>,
}

impl Forwarder {
    /// `ours` are the addresses on which we listen ourselves: these are never asked.
    pub fn new(resolvers: Resolvers, ours: Vec<SocketAddr>) -> Self {
        Self { resolvers, ours, last_read: Mutex::new(None), in_flight: Arc::new(Semaphore::new(MAX_FORWARDS)) }
    }

    /// The right to pass on one question; `None` when too many are under way.
    pub fn admit(&self) -> Option<OwnedSemaphorePermit> {
        self.in_flight.clone().try_acquire_owned().ok()
    }

    /// Asks about `query`, which was read from `packet`, and gives back the reply under the client's id.
    ///
    /// # Errors
    /// See [`ForwardError`].
    pub async fn ask(&self, packet: &[u8], query: &Query<'_>, transport: Transport) -> Result<Vec<u8>, ForwardError> {
        let resolvers = self.resolvers();
        if resolvers.is_empty() {
            return Err(ForwardError::NoResolver);
        }
        let mut reply = timeout(FORWARD_TIMEOUT, ask_any(&resolvers, packet, query, transport))
            .await
            .map_err(|_| ForwardError::Failed)?
            .ok_or(ForwardError::Failed)?;
        reply[..2].copy_from_slice(&query.id.to_be_bytes());
        Ok(reply)
    }

    fn resolvers(&self) -> Arc<[SocketAddr]> {
        let mut last_read = self.last_read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, resolvers)) = &*last_read
            && (matches!(self.resolvers, Resolvers::Fixed(_)) || at.elapsed() < REREAD_AFTER)
        {
            return resolvers.clone();
        }
        let all = match &self.resolvers {
            Resolvers::Fixed(resolvers) => resolvers.clone(),
            Resolvers::File(path) => {
                let mut text = String::new();
                let read = std::fs::File::open(path).and_then(|file| file.take(MAX_RESOLV_CONF_BYTES).read_to_string(&mut text));
                read.map_or_else(|_| Vec::new(), |_| name_servers(&text))
            }
        };
        let usable: Arc<[SocketAddr]> = all.into_iter().filter(|address| !self.is_ours(*address)).take(MAX_RESOLVERS).collect();
        *last_read = Some((Instant::now(), usable.clone()));
        usable
    }

    fn is_ours(&self, address: SocketAddr) -> bool {
        self.ours.iter().filter(|ours| ours.port() == address.port()).any(|ours| {
            ours.ip() == address.ip() || ours.ip().is_unspecified() && ours.is_ipv4() == address.is_ipv4() && is_local(address.ip())
        })
    }
}

/// The name servers of a `resolv.conf` (`resolv.conf(5)`). An address with a zone is left out.
fn name_servers(text: &str) -> Vec<SocketAddr> {
    let lines = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    let words = lines.filter(|rest| rest.starts_with([' ', '\t'])).filter_map(|rest| rest.split_whitespace().next());
    words.filter_map(|word| word.parse().ok()).map(|address: IpAddr| SocketAddr::new(address, 53)).collect()
}

/// `None` when every resolver failed.
async fn ask_any(resolvers: &[SocketAddr], packet: &[u8], query: &Query<'_>, transport: Transport) -> Option<Vec<u8>> {
    let mut waiting = resolvers.iter();
    let mut asked = FuturesUnordered::new();
    loop {
        if asked.is_empty() {
            asked.push(ask_one(*waiting.next()?, packet, query, transport));
        }
        let next_is_due = async { if waiting.len() > 0 { sleep(STAGGER).await } else { std::future::pending().await } };
        tokio::select! {
            Some(outcome) = asked.next() => match outcome {
                Ok(reply) => return Some(reply),
                Err(error) => debug!(%error, "A resolver failed."),
            },
            () = next_is_due => asked.extend(waiting.next().map(|resolver| ask_one(*resolver, packet, query, transport))),
        }
    }
}

async fn ask_one(resolver: SocketAddr, packet: &[u8], query: &Query<'_>, transport: Transport) -> std::io::Result<Vec<u8>> {
    let id: u16 = rand::random();
    let mut question = packet.to_vec();
    question[..2].copy_from_slice(&id.to_be_bytes());
    match transport {
        Transport::Udp => ask_by_datagram(resolver, &question, query, id).await,
        Transport::Tcp => ask_by_stream(resolver, &question, query, id).await,
    }
}

async fn ask_by_datagram(resolver: SocketAddr, question: &[u8], query: &Query<'_>, id: u16) -> std::io::Result<Vec<u8>> {
    let any: SocketAddr = if resolver.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
    let socket = tokio::net::UdpSocket::bind(any).await?;
    socket.connect(resolver).await?;
    socket.send(question).await?;
    // A byte more than any client gets, so that a longer reply is noticed.
    let mut reply = vec![0; usize::from(MAX_UDP_PAYLOAD) + 1];
    loop {
        let length = socket.recv(&mut reply).await?;
        if query.is_answered_by(&reply[..length], id) {
            reply.truncate(length);
            return Ok(reply);
        }
    }
}

async fn ask_by_stream(resolver: SocketAddr, question: &[u8], query: &Query<'_>, id: u16) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(resolver).await?;
    let length = u16::try_from(question.len()).map_err(std::io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), question].concat()).await?;
    let length = stream.read_u16().await?;
    let mut reply = vec![0; length.into()];
    stream.read_exact(&mut reply).await?;
    if query.is_answered_by(&reply, id) { Ok(reply) } else { Err(std::io::Error::other("a reply to another question")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_are_read_from_resolv_conf() {
        let text = "# local\nsearch example\n nameserver 10.0.0.1 \nnameserver\t2001:db8::1 # second\n;nameserver 1.1.1.1\nnameserver fe80::1%eth0\nnameservers 9.9.9.9\nnameserver\n";
        let found: Vec<String> = name_servers(text).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["10.0.0.1:53", "[2001:db8::1]:53"]);
    }

    #[test]
    fn we_never_ask_ourselves() {
        let usable = |ours: &str, resolvers: &[&str]| {
            let resolvers = Resolvers::Fixed(resolvers.iter().map(|text| text.parse().unwrap()).collect());
            let found = Forwarder::new(resolvers, vec![ours.parse().unwrap()]).resolvers();
            found.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(usable("127.0.0.1:53", &["127.0.0.1:53", "127.0.0.53:53"]), "127.0.0.53:53");
        assert_eq!(usable("0.0.0.0:53", &["127.0.0.53:53", "127.0.0.1:54", "192.0.2.1:53"]), "127.0.0.1:54 192.0.2.1:53");
        assert_eq!(
            usable("192.0.2.9:53", &["192.0.2.1:53", "192.0.2.2:53", "192.0.2.3:53", "192.0.2.4:53"]).split(' ').count(),
            MAX_RESOLVERS
        );
    }

    #[test]
    fn a_file_that_is_missing_names_nobody() {
        let forwarder = Forwarder::new(Resolvers::File("/nonexistent/resolv.conf".into()), vec![]);
        assert!(forwarder.resolvers().is_empty());
    }
}
