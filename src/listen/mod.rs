//! Sockets: bind, accept, cap, drain; TLS; one connection with its protocol and its timeouts.

pub mod tls;
pub mod connection;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// One entry of `listeners`.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where it is bound. Port 0 picks a free one.
    pub address: SocketAddr,
    /// What it speaks and does.
    pub mode: Mode,
}

/// What a listener does with a request.
#[derive(Clone, Debug)]
pub enum Mode {
    /// Serves over TLS.
    Tls(Arc<tls::Settings>),
    /// Serves in clear.
    Plain,
    /// Answers 308 to the same URL on https.
    Redirect {
        /// The port of the first TLS listener; left out of the URL where it is 443.
        https_port: u16,
    },
}

/// The section `timeouts`, as far as it is about callers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// For a TLS handshake.
    pub handshake: Duration,
    /// For a request's head to arrive, from its first byte or from the connection's start.
    pub request_header: Duration,
    /// For a connection without a request.
    pub idle: Duration,
    /// For requests under way when the process is told to end.
    pub drain: Duration,
}

/// Bounds on what a caller may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The largest head, in bytes.
    pub header_bytes_max: usize,
    /// The most fields in a head.
    pub headers_max: usize,
    /// Connections at once over all workers; further ones wait in the listen queue.
    pub connections_max: usize,
}
