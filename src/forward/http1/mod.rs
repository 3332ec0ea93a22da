//! HTTP/1.1 towards servers, on a socket that the request itself holds.
//!
//! `exchange` writes a request and reads its response within the future that awaits it: no task, no channel, one write
//! and one read for a small request. What a server says is read strictly: a response that two readers could take apart
//! differently is none. [`decode`] is pure; sockets are in `connection` and `incoming`.

mod connection;
pub mod decode;
mod incoming;
#[cfg(test)]
mod tests;

use std::io;

use tokio::io::{AsyncRead, AsyncWrite};

use crate::wire::body::BodyError;
use crate::wire::http1;
use crate::wire::http1::fields::Unusable;
use crate::wire::http1::intake::Broken;
use crate::wire::http1::sending::Unsent;

pub(super) use connection::{Expected, Failed, Means, exchange};

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
    /// The response's body is none.
    #[error("malformed response body")]
    Content(#[source] http1::Malformed),
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
}

impl From<Unusable> for Malformed {
    fn from(unusable: Unusable) -> Self {
        match unusable {
            Unusable::Field => Self::Head,
            Unusable::TooMany => Self::TooLarge,
        }
    }
}

impl From<Unsent> for Error {
    fn from(unsent: Unsent) -> Self {
        match unsent {
            Unsent::Io(error) => Self::Io(error),
            Unsent::Body(error) => Self::Body(error),
            Unsent::Length => Self::Length,
        }
    }
}

impl From<Broken> for Error {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::Io(error) => Self::Io(error),
            Broken::Closed => Self::Closed,
            Broken::Malformed(malformed) => Self::Content(malformed),
        }
    }
}
