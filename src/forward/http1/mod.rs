//! HTTP/1.1 towards servers, on a socket that the request itself holds.
//!
//! `exchange` writes a request and reads its response within the future that awaits it: no task, no channel, one write
//! and one read for a small request. What a server says is read strictly: a response that two readers could take apart
//! differently is none. `encode`, [`decode`] and [`chunked`] are pure; sockets are in `sending`, `connection` and `incoming`.

pub mod chunked;
mod connection;
pub mod decode;
mod encode;
mod incoming;
mod sending;
mod spares;
#[cfg(test)]
mod tests;

use std::io;

use tokio::io::{AsyncRead, AsyncWrite};

use crate::wire::body::BodyError;

pub(super) use connection::{Failed, exchange};
pub(super) use spares::Spares;

/// The largest head of a response.
pub(super) const RESPONSE_HEAD_BYTES_MAX: usize = 256 * 1024;

/// A connection to a server.
pub(super) trait Transport: AsyncRead + AsyncWrite + Unpin + 'static {
    /// Whether it lives and nothing came over it that nobody has asked for. Asks the socket only where something is known
    /// to have happened on it.
    fn is_quiet(&mut self) -> bool;
}

/// Why there is no response, or not all of one.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The socket.
    #[error("connection failed")]
    Io(#[source] io::Error),
    /// The server hung up before the end.
    #[error("connection closed")]
    Closed,
    /// The server said what is no response.
    #[error("malformed response")]
    Malformed(#[from] Malformed),
    /// The request's own body.
    #[error("request body failed")]
    Body(#[source] BodyError),
    /// The request's own body is not what its head says.
    #[error("request body is not as long as its head says")]
    Length,
}

/// What is wrong with a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The head is none.
    #[error("no head")]
    Head,
    /// A line ends without its carriage return.
    #[error("bare line feed")]
    BareLineFeed,
    /// The head has no end within the bound, or too many fields.
    #[error("head too large")]
    TooLarge,
    /// `Content-Length` is no number, or more than one.
    #[error("unclear length")]
    Length,
    /// `Transfer-Encoding` is not `chunked`, once and over HTTP/1.1.
    #[error("unclear coding")]
    Coding,
    /// Both of them.
    #[error("both length and coding")]
    BothFramings,
    /// A protocol that nobody asked for.
    #[error("unasked upgrade")]
    Upgrade,
    /// No end of interim responses.
    #[error("too many interim responses")]
    Interim,
    /// A chunk's line.
    #[error("malformed chunk")]
    Chunk,
    /// The fields behind the last chunk.
    #[error("malformed trailers")]
    Trailers,
}
