//! UDP sockets that answer from the address that was asked. A socket on all addresses must be told which one, or the kernel picks one by its routes
//! and the client takes the reply for a forgery (`ip(7)` and `ipv6(7)`: `IP_PKTINFO`, `IPV6_PKTINFO`).

use std::{
    io::{self, IoSlice},
    mem::MaybeUninit,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    os::fd::AsRawFd,
};

use socket2::{Domain, MaybeUninitSlice, MsgHdr, MsgHdrMut, Protocol, SockAddr, SockRef, Socket, Type};
use tokio::io::Interest;

use super::Peer;

/// What the kernel may queue for us, bytes. It gives what `net.core.rmem_max` allows.
const RECEIVE_BUFFER_BYTES: usize = 4 << 20;

/// One control message with packet information fits, of either family.
const CONTROL_BYTES: usize = 64;

/// `struct cmsghdr`: length, level, type.
const CONTROL_HEADER_BYTES: usize = size_of::<libc::cmsghdr>();

/// Connections that may wait to be accepted.
const TCP_BACKLOG: i32 = 256;

/// A listening UDP socket.
pub struct UdpSocket(tokio::net::UdpSocket);

/// Binds UDP and TCP at the same address. Port 0: any that is free for both.
///
/// # Errors
/// The one of the bind that failed, with its transport.
pub fn bind(address: SocketAddr) -> Result<(std::net::UdpSocket, TcpListener, SocketAddr), (&'static str, io::Error)> {
    let mut tries = if address.port() == 0 { 16 } else { 1 };
    loop {
        tries -= 1;
        let tcp = bind_tcp(address).map_err(|error| ("tcp", error))?;
        let bound = tcp.local_addr().map_err(|error| ("tcp", error))?;
        match bind_udp(bound) {
            Ok(udp) => return Ok((udp, tcp, bound)),
            Err(error) if tries == 0 => return Err(("udp", error)),
            Err(_) => {}
        }
    }
}

fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(TCP_BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn bind_udp(address: SocketAddr) -> io::Result<std::net::UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // A smaller one only loses more under overload.
    _ = socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES);
    if address.ip().is_unspecified() {
        ask_for_packet_information(&socket, address)?;
    }
    socket.bind(&address.into())?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

#[allow(unsafe_code)]
fn ask_for_packet_information(socket: &Socket, address: SocketAddr) -> io::Result<()> {
    let (level, option) =
        if address.is_ipv4() { (libc::IPPROTO_IP, libc::IP_PKTINFO) } else { (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO) };
    let on: libc::c_int = 1;
    // SAFETY: the descriptor is open, and the option's value is an int that outlives the call and whose size is given.
    let result =
        unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const on).cast(), size_of_val(&on) as libc::socklen_t) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

impl UdpSocket {
    /// Takes a bound socket; inside a runtime.
    ///
    /// # Errors
    /// The runtime cannot watch it.
    pub fn new(socket: std::net::UdpSocket) -> io::Result<Self> {
        tokio::net::UdpSocket::from_std(socket).map(Self)
    }

    /// Waits for a datagram. One that is longer than the buffer is cut.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, Peer)> {
        self.0.async_io(Interest::READABLE, || receive(SockRef::from(&self.0), buffer)).await
    }

    /// Sends a datagram from the address that the peer had asked.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn send(&self, datagram: &[u8], peer: Peer) -> io::Result<()> {
        let control = peer.local.map(packet_information);
        let to = SockAddr::from(peer.address);
        let parts = [IoSlice::new(datagram)];
        let message = || {
            let message = MsgHdr::new().with_addr(&to).with_buffers(&parts);
            if let Some(control) = &control { message.with_control(control) } else { message }
        };
        self.0.async_io(Interest::WRITABLE, || SockRef::from(&self.0).sendmsg(&message(), 0)).await.map(drop)
    }
}

fn receive(socket: SockRef<'_>, buffer: &mut [u8]) -> io::Result<(usize, Peer)> {
    let mut from = SockAddr::from(SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)));
    let mut control = [0; CONTROL_BYTES];
    let mut parts = [MaybeUninitSlice::new(as_uninit(buffer))];
    let mut message = MsgHdrMut::new().with_addr(&mut from).with_buffers(&mut parts).with_control(as_uninit(&mut control));
    let length = socket.recvmsg(&mut message, 0)?;
    let control_length = message.control_len().min(CONTROL_BYTES);
    let address = from.as_socket().ok_or_else(|| io::Error::other("a datagram without a sender"))?;
    Ok((length, Peer { address, local: local_address(&control[..control_length]) }))
}

#[allow(unsafe_code)]
fn as_uninit(bytes: &mut [u8]) -> &mut [MaybeUninit<u8>] {
    // SAFETY: the layout is the same, and `recvmsg`, the only one to write through it, writes initialised bytes only.
    unsafe { &mut *(std::ptr::from_mut(bytes) as *mut [MaybeUninit<u8>]) }
}

/// The address that was asked, from the control messages of a datagram: `in_pktinfo` is (interface, our address for replies, destination),
/// `in6_pktinfo` is (destination, interface).
fn local_address(mut control: &[u8]) -> Option<IpAddr> {
    loop {
        let (header, _) = control.split_at_checked(CONTROL_HEADER_BYTES)?;
        let (length, kind) = header.split_first_chunk::<{ size_of::<usize>() }>()?;
        let length = usize::from_ne_bytes(*length);
        let data = control.get(CONTROL_HEADER_BYTES..length)?;
        if kind == control_kind(libc::IPPROTO_IP, libc::IP_PKTINFO) {
            return data.get(4..)?.first_chunk::<4>().map(|octets| Ipv4Addr::from(*octets).into());
        }
        if kind == control_kind(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) {
            return data.first_chunk::<16>().map(|octets| Ipv6Addr::from(*octets).into());
        }
        control = control.get(length.next_multiple_of(size_of::<usize>())..)?;
    }
}

/// The control message that makes a datagram leave from `local`.
fn packet_information(local: IpAddr) -> Vec<u8> {
    let (kind, data) = match local {
        IpAddr::V4(v4) => (control_kind(libc::IPPROTO_IP, libc::IP_PKTINFO), [&[0; 4][..], &v4.octets(), &[0; 4]].concat()),
        IpAddr::V6(v6) => (control_kind(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO), [&v6.octets()[..], &[0; 4]].concat()),
    };
    let length = CONTROL_HEADER_BYTES + data.len();
    let mut message = [&length.to_ne_bytes()[..], &kind, &data].concat();
    message.resize(length.next_multiple_of(size_of::<usize>()), 0);
    message
}

/// Level and type as they stand in a `cmsghdr`.
fn control_kind(level: libc::c_int, kind: libc::c_int) -> [u8; 8] {
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&level.to_ne_bytes());
    bytes[4..].copy_from_slice(&kind.to_ne_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_from_an_address_is_read_back_as_that_address() {
        for text in ["10.1.2.3", "fd00::7"] {
            let local: IpAddr = text.parse().unwrap();
            let mut control = packet_information(local);
            assert_eq!(local_address(&control), Some(local));
            assert_eq!(local_address(&control[..control.len() - 8]), None, "cut short");
            control[8] ^= 1;
            assert_eq!(local_address(&control), None, "of another level");
        }
        assert_eq!(local_address(&[]), None);
        assert_eq!(local_address(&[0; 64]), None);
    }
}
