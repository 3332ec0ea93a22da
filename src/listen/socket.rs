//! Listening sockets: one of its own for each worker and address.
//!
//! The kernel spreads connections over the sockets of an address (`SO_REUSEPORT`), so that workers share nothing on accept.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;

#[cfg(target_os = "linux")]
use socket2::SockRef;
use socket2::{Domain, Protocol, Socket, Type};

use super::tls::TlsError;

/// Connections that wait to be accepted, per socket; the kernel's own bound (`somaxconn`) may be lower.
const BACKLOG: i32 = 4096;

/// Why a listener cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {}", reason(.error))]
    Address {
        /// The address as configured.
        address: SocketAddr,
        /// What the system says.
        error: io::Error,
    },
    /// Certificates cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// Why an address cannot be listened on, in words for people.
#[expect(clippy::wildcard_enum_match_arm, reason = "the system's errors are many, and three have words of ours")]
pub fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => "address already in use".into(),
        io::ErrorKind::PermissionDenied => "permission denied".into(),
        io::ErrorKind::AddrNotAvailable => "no such address on this machine".into(),
        _ => error.to_string(),
    }
}

/// One listening socket a worker, all on the same port.
///
/// With `SO_REUSEPORT` alone, a second gateway of the same user would bind the same port without an error and take half of
/// the connections. So the port is asked for without it first; `SO_REUSEADDR` lets connections of an earlier process that
/// are in `TIME_WAIT` not count. Between that probe and the first real socket another process could slip in; two that start
/// at the same instant are then not told apart, which is the same as today's nginx, and no reason for a lock file.
///
/// `ours`: we listen on this port already, at an address that covers this one or is covered by it. The probe would find
/// ourselves, and is left out.
pub(super) fn sockets(address: SocketAddr, workers: usize, ours: bool) -> io::Result<(Vec<TcpListener>, SocketAddr)> {
    if address.port() != 0 && !ours {
        let probe = socket(address)?;
        probe.bind(&address.into())?;
        // a bound socket alone does not clash with another that has SO_REUSEADDR; a listening one does
        probe.listen(1)?;
    }
    let (mut sockets, mut picked): (Vec<TcpListener>, _) = (Vec::with_capacity(workers), address);
    for _ in 0..workers {
        let socket = socket(picked)?;
        socket.set_reuse_port(true)?;
        socket.bind(&picked.into())?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        let socket = TcpListener::from(socket);
        picked = socket.local_addr()?;
        sockets.push(socket);
    }
    Ok((sockets, picked))
}

/// Begins no handshake on this listening socket any more: what asks for a connection is dropped, as if it had been lost on
/// the way, so that its sender asks again in a second and is refused once the socket is closed. Handshakes that are under
/// way end in the queue. A closed socket resets them, and with them whatever came into the queue since the last look at it.
///
/// # Errors
/// What the system says where it cannot.
#[cfg(target_os = "linux")]
pub(super) fn begin_no_more(socket: impl AsFd) -> io::Result<()> {
    use socket2::SockFilter;
    const LOAD_BYTE: u16 = 0x30;
    const JUMP_IF_ANY: u16 = 0x45;
    const RETURN: u16 = 0x06;
    // it sees a segment from the TCP header on, whose flags are its byte 13 (RFC 9293 3.1). Connections inherit it, and
    // never get SYN
    const FLAGS_AT: u32 = 13;
    const SYN: u32 = 0x02;
    SockRef::from(&socket).attach_filter(&[
        SockFilter::new(LOAD_BYTE, 0, 0, FLAGS_AT),
        SockFilter::new(JUMP_IF_ANY, 0, 1, SYN),
        SockFilter::new(RETURN, 0, 0, 0),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
    ])
}

/// Elsewhere than on Linux there is no way to that.
///
/// # Errors
/// Always.
#[cfg(not(target_os = "linux"))]
pub(super) fn begin_no_more(_socket: impl AsFd) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Whether both cannot be bound at once by two who know nothing of each other: the same port, and the same address or one
/// that stands for all.
pub fn meet(a: SocketAddr, b: SocketAddr) -> bool {
    a.port() != 0 && a.port() == b.port() && (a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified())
}

fn socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // `[::]` and `0.0.0.0` are two listeners, whatever the system's default is
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_workers_share_the_port_that_was_picked() {
        let (sockets, picked) = sockets("127.0.0.1:0".parse().unwrap(), 3, false).unwrap();
        let ports: Vec<u16> = sockets.iter().map(|socket| socket.local_addr().unwrap().port()).collect();
        assert_eq!(ports.len(), 3);
        assert!(picked.port() != 0 && ports.iter().all(|port| *port == picked.port()), "{ports:?}");
    }

    #[test]
    fn a_port_in_use_is_an_error_unless_it_is_ours() {
        let (first, address) = sockets("127.0.0.1:0".parse().unwrap(), 2, false).unwrap();
        assert_eq!(sockets(address, 2, false).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        let all = SocketAddr::from(([0, 0, 0, 0], address.port()));
        assert_eq!(sockets(all, 2, false).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(sockets(all, 2, true).unwrap());
        drop(first);
        sockets(address, 2, false).unwrap();
        let another = TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = another.local_addr().unwrap();
        assert_eq!(sockets(taken, 2, true).unwrap_err().kind(), io::ErrorKind::AddrInUse, "not ours after all");
    }

    #[test]
    fn a_refused_address_is_told_in_one_line() {
        let address = "192.0.2.1:8443".parse().unwrap();
        let error = BindError::Address { address, error: sockets(address, 1, false).unwrap_err() };
        assert_eq!(error.to_string(), "cannot listen on 192.0.2.1:8443: no such address on this machine");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_socket_can_be_emptied_before_it_is_closed() {
        use std::io::{Read, Write};
        use std::net::TcpStream;
        use std::time::Duration;
        for address in ["127.0.0.1:0", "[::1]:0"] {
            // a machine may be without IPv6
            let Ok((sockets, address)) = sockets(address.parse().unwrap(), 1, false) else { continue };
            let mut before = TcpStream::connect(address).unwrap();
            begin_no_more(&sockets[0]).unwrap();
            before.write_all(b"a").unwrap();
            let late = TcpStream::connect_timeout(&address, Duration::from_millis(300)).unwrap_err();
            assert_eq!(late.kind(), io::ErrorKind::TimedOut, "{address}: neither taken nor refused");
            let (mut taken, _) = sockets[0].accept().unwrap();
            assert_eq!(sockets[0].accept().unwrap_err().kind(), io::ErrorKind::WouldBlock, "{address}");
            drop(sockets);
            let mut byte = [0];
            taken.read_exact(&mut byte).unwrap();
            taken.write_all(&byte).unwrap();
            before.read_exact(&mut byte).unwrap();
            assert_eq!(TcpStream::connect(address).unwrap_err().kind(), io::ErrorKind::ConnectionRefused, "{address}");
        }
    }

    #[test]
    fn addresses_meet_where_one_covers_the_other() {
        for (a, b, expected) in [
            ("127.0.0.1:80", "127.0.0.1:80", true),
            ("0.0.0.0:80", "127.0.0.1:80", true),
            ("127.0.0.1:80", "[::]:80", true),
            ("127.0.0.1:80", "127.0.0.2:80", false),
            ("127.0.0.1:80", "127.0.0.1:81", false),
            ("127.0.0.1:0", "127.0.0.1:0", false),
        ] {
            assert_eq!(meet(a.parse().unwrap(), b.parse().unwrap()), expected, "{a} {b}");
        }
    }
}
