//! Permit and request to response: the request as the upstream sees it, the server it goes to, and what comes back.
//!
//! [`Fleet`] knows for the process which servers are up; [`Upstreams`] has one worker's connections. Only a [`Permit`](crate::authorize::Permit) gets
//! a request here. No request is kept, bodies stream, and whatever breaks before a response is a [`Rejection`](crate::rejection::Rejection).

pub mod rewrite;
pub mod balance;
pub mod health;
pub mod pool;
pub mod retry;
pub mod upgrade;
pub mod echo;
mod leash;
mod tunnel;
mod deadline;
mod dial;
mod heirs;
pub mod http1;
mod outgoing;
mod room;
mod send;
#[cfg(test)]
pub(crate) mod tests;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderValue;

use self::http1::decode::Fields;
use crate::route::Route;
use crate::wire::fields::IdentityNames;

pub use dial::connections_max;
pub use health::Fleet;
pub use send::Upstreams;

/// One entry of `upstreams`.
#[derive(Clone, Debug)]
pub struct UpstreamSettings {
    /// Its name; a metrics label.
    pub name: Arc<str>,
    /// What answers.
    pub kind: UpstreamKind,
}

/// What answers for an upstream.
#[derive(Clone, Debug)]
pub enum UpstreamKind {
    /// The gateway itself, with what it received, as JSON.
    Echo,
    /// Servers.
    Servers(Arc<ServerGroup>),
}

/// The servers of an upstream and how they are used.
#[derive(Clone, Debug)]
pub struct ServerGroup {
    /// At least one.
    pub servers: Vec<ServerAddress>,
    /// How one is chosen.
    pub balance: Balance,
    /// Active checks.
    pub health: Option<HealthCheck>,
    /// Idle connections kept per worker and server.
    pub keep_alive: usize,
    /// TLS towards `https://` servers.
    pub tls: Option<UpstreamTls>,
}

/// A server's URL, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerAddress {
    /// As written; a metrics label.
    pub label: Arc<str>,
    /// Host name or address, without brackets.
    pub host: Box<str>,
    /// Port.
    pub port: u16,
    /// What is spoken.
    pub protocol: Protocol,
}

impl ServerAddress {
    /// Host and port, as `Host` bears them (RFC 9110 7.2).
    pub fn authority(&self) -> HeaderValue {
        let Self { host, port, .. } = self;
        let text = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        // a URL was read to make it: what is no host would be none there
        HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("localhost"))
    }
}

/// What is spoken to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// `http://`: HTTP/1.1.
    Http1,
    /// `h2c://`: HTTP/2 without TLS.
    H2c,
    /// `https://`: HTTP/2 or HTTP/1.1 by ALPN.
    Https,
}

/// `balance`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Balance {
    /// In turn.
    RoundRobin,
    /// The one with the fewest requests under way; the default.
    LeastRequests,
    /// The less busy of two picked at random.
    RandomTwoChoices,
}

impl Balance {
    /// All, the default first.
    pub const ALL: [Self; 3] = [Self::LeastRequests, Self::RoundRobin, Self::RandomTwoChoices];

    /// The word in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::RoundRobin => "round_robin",
            Self::LeastRequests => "least_requests",
            Self::RandomTwoChoices => "random_two_choices",
        }
    }
}

/// `health`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// Origin-form target of the probe; 2xx and 3xx are healthy.
    pub path: Box<str>,
    /// Between probes.
    pub interval: Duration,
    /// For one probe.
    pub timeout: Duration,
    /// Failures in a row that take a server out.
    pub unhealthy_after: u32,
    /// Successes in a row that bring it back.
    pub healthy_after: u32,
}

/// `tls` of an upstream: a finished client configuration without ALPN set, and the name to expect.
#[derive(Clone, Debug)]
pub struct UpstreamTls {
    /// Roots and client certificate.
    pub config: Arc<rustls::ClientConfig>,
    /// Instead of the URL's host.
    pub server_name: Option<Box<str>>,
    /// The files that are named in the configuration.
    pub files: TlsFiles,
    /// SHA-256 of what `config` trusts and shows: two of the same are the same settings, though read twice.
    pub content: [u8; 32],
}

impl UpstreamTls {
    /// Whether a connection made by these settings could as well have been made by `other`.
    fn is_as(&self, other: &Self) -> bool {
        self.content == other.content && self.server_name == other.server_name
    }
}

/// Files of `tls` of an upstream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// `ca`; `None`: the system's roots.
    pub ca: Option<FileDigest>,
    /// `cert`; its key fits it.
    pub cert: Option<FileDigest>,
}

/// A file of certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileDigest {
    /// As the configuration names it.
    pub path: Box<str>,
    /// SHA-256 of the certificates in it.
    pub sha256: [u8; 32],
}

/// The section `timeouts`, as far as it is about upstreams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// For a connection (with its TLS handshake) to be made.
    pub connect: Duration,
    /// From the request's end to the response's head.
    pub response_header: Duration,
    /// For an idle kept-alive connection, and for a body that does not move.
    pub idle: Duration,
}

/// What forwarding needs of a configuration.
#[derive(Clone, Copy, Debug)]
pub struct Settings<'a> {
    /// By [`crate::route::UpstreamId`].
    pub upstreams: &'a [UpstreamSettings],
    /// Bounds in time.
    pub timeouts: &'a Timeouts,
    /// How upstreams are told who calls.
    pub identity: &'a IdentityNames,
    /// Whether the caller's connection can hand on fields as they were written: one of HTTP/1, whose response nobody else
    /// looks at.
    pub as_they_are: bool,
}

impl Settings<'_> {
    /// What becomes of the fields of a response over this route.
    fn fields_for(&self, route: &Route) -> Fields {
        let edits = &route.response_fields;
        let untouched = edits.set.is_empty() && edits.remove.is_empty() && route.cors.is_none();
        if self.as_they_are && untouched { Fields::AsTheyAre } else { Fields::Map }
    }
}

/// Where a request comes from, as far as an upstream is told.
#[derive(Clone, Debug)]
pub struct Origin<'a> {
    /// The other end of the socket.
    pub peer: IpAddr,
    /// Whether that is a trusted proxy, whose forwarding fields pass.
    pub trusted: bool,
    /// Whether the caller came over TLS.
    pub https: bool,
    /// The host that the caller asked for, with its port if it gave one.
    pub host: HeaderValue,
    /// The id of the request, sent upstream and back.
    pub request_id: &'a HeaderValue,
    /// For a new `traceparent`.
    pub random: [u8; 24],
}

/// What became of a request on its way, whatever its result; for the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent<'s> {
    /// The upstream.
    pub upstream: &'s Arc<str>,
    /// From the first sending to the response's head; `None` where none came.
    pub took: Option<Duration>,
    /// When that was.
    pub came: Option<Instant>,
}
