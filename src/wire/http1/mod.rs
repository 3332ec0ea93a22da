//! HTTP/1.1 framing (RFC 9112) as both sides of the gateway need it: what is read strictly, what is written, and the
//! buffers for both. `fields`, [`chunked`] and `encode` are pure; sockets are in `sending` and `intake`.

pub mod chunked;
pub(crate) mod encode;
pub(crate) mod fields;
pub(crate) mod intake;
pub mod lines;
pub(crate) mod sending;
pub(crate) mod spares;

/// What is wrong with a body that comes in chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// A chunk's line.
    #[error("malformed chunk")]
    Chunk,
    /// The fields behind the last chunk.
    #[error("malformed trailers")]
    Trailers,
}

/// Where a message ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// With its head.
    Empty,
    /// After so many bytes, at least one.
    Length(u64),
    /// With the last chunk.
    Chunked,
    /// With the connection.
    Close,
}
