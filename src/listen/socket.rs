//! Listening sockets: one of its own for each worker and address, all bound before anything is served.
//!
//! The kernel spreads connections over the sockets of an address (`SO_REUSEPORT`), so that workers share nothing on accept.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use socket2::{Domain, Protocol, Socket, Type};

use super::tls::{Acceptor, TlsError};
use super::{Mode, Settings};

/// Connections that wait to be accepted, per socket; the kernel's own bound (`somaxconn`) may be lower.
const BACKLOG: i32 = 4096;

/// Why nothing is served.
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

#[expect(clippy::wildcard_enum_match_arm, reason = "the system's errors are many, and three have words of ours")]
fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => "address already in use".into(),
        io::ErrorKind::PermissionDenied => "permission denied".into(),
        io::ErrorKind::AddrNotAvailable => "no such address on this machine".into(),
        _ => error.to_string(),
    }
}

/// A bound socket of one worker, and what is spoken on it.
#[derive(Debug)]
pub struct BoundListener {
    pub(super) socket: TcpListener,
    pub(super) address: SocketAddr,
    pub(super) label: Arc<str>,
    pub(super) speaks: Speaks,
}

/// What is spoken on a listener.
#[derive(Clone, Debug)]
pub(super) enum Speaks {
    Tls(Arc<Acceptor>),
    Plain,
    Redirect { https_port: u16 },
}

impl BoundListener {
    /// The address with the port that was picked.
    pub const fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// What it does TLS with, if it does; shared by the sockets of all workers at this address.
    pub const fn acceptor(&self) -> Option<&Arc<Acceptor>> {
        match &self.speaks {
            Speaks::Tls(acceptor) => Some(acceptor),
            Speaks::Plain | Speaks::Redirect { .. } => None,
        }
    }
}

/// Binds every address for each of `workers`; the outer list is by worker.
///
/// # Errors
/// The first address that cannot be bound, or certificates that cannot be used. Nothing stays bound then.
pub fn bind(settings: &[Settings], workers: usize) -> Result<Vec<Vec<BoundListener>>, BindError> {
    let mut bound: Vec<Vec<BoundListener>> = (0..workers).map(|_| Vec::new()).collect();
    for listener in settings {
        let speaks = match &listener.mode {
            Mode::Tls(tls) => Speaks::Tls(Arc::new(Acceptor::new(tls)?)),
            Mode::Plain => Speaks::Plain,
            Mode::Redirect { https_port } => Speaks::Redirect { https_port: *https_port },
        };
        let sockets = sockets(listener.address, workers)
            .map_err(|error| BindError::Address { address: listener.address, error })?;
        for (worker, (socket, address)) in bound.iter_mut().zip(sockets) {
            worker.push(BoundListener { socket, address, label: address.to_string().into(), speaks: speaks.clone() });
        }
    }
    Ok(bound)
}

/// One listening socket a worker, all on the same port.
///
/// With `SO_REUSEPORT` alone, a second gateway of the same user would bind the same port without an error and take half of
/// the connections. So the port is asked for without it first; `SO_REUSEADDR` lets connections of an earlier process that
/// are in `TIME_WAIT` not count. Between that probe and the first real socket another process could slip in; two that start
/// at the same instant are then not told apart, which is the same as today's nginx, and no reason for a lock file.
fn sockets(address: SocketAddr, workers: usize) -> io::Result<Vec<(TcpListener, SocketAddr)>> {
    if address.port() != 0 {
        let probe = socket(address)?;
        probe.bind(&address.into())?;
        // a bound socket alone does not clash with another that has SO_REUSEADDR; a listening one does
        probe.listen(1)?;
    }
    let mut sockets: Vec<(TcpListener, SocketAddr)> = Vec::with_capacity(workers);
    for _ in 0..workers {
        let address = sockets.first().map_or(address, |(_, picked)| *picked);
        let socket = socket(address)?;
        socket.set_reuse_port(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        let socket = TcpListener::from(socket);
        let picked = socket.local_addr()?;
        sockets.push((socket, picked));
    }
    Ok(sockets)
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

    fn plain(address: SocketAddr) -> Settings {
        Settings { address, mode: Mode::Plain }
    }

    #[test]
    fn all_workers_share_the_port_that_was_picked() {
        let bound = bind(&[plain("127.0.0.1:0".parse().unwrap())], 3).unwrap();
        let ports: Vec<u16> = bound.iter().flatten().map(|listener| listener.local_addr().port()).collect();
        assert_eq!(ports.len(), 3);
        assert!(ports[0] != 0 && ports.iter().all(|port| *port == ports[0]), "{ports:?}");
    }

    #[test]
    fn a_port_in_use_is_an_error_of_one_line() {
        let first = bind(&[plain("127.0.0.1:0".parse().unwrap())], 2).unwrap();
        let address = first[0][0].local_addr();
        let error = bind(&[plain(address)], 2).unwrap_err();
        assert_eq!(error.to_string(), format!("cannot listen on {address}: address already in use"));
        drop(first);
        bind(&[plain(address)], 2).unwrap();
    }

    #[test]
    fn a_foreign_address_is_named() {
        let error = bind(&[plain("192.0.2.1:8443".parse().unwrap())], 1).unwrap_err();
        assert_eq!(error.to_string(), "cannot listen on 192.0.2.1:8443: no such address on this machine");
    }
}
