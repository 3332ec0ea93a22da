//! The form in which a caller reads a refusal.

use http::HeaderMap;
use http::header::{ACCEPT, CONTENT_TYPE};

use crate::wire::accept;

/// The form in which a caller reads a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `application/json`.
    Json,
    /// `application/problem+json` (RFC 9457), for a caller whose `Accept` prefers it.
    Problem,
    /// `grpc-status` and `grpc-message`, for a caller of gRPC; of this media type.
    Grpc(&'static str),
}

/// The media types of gRPC, the plain ones and those of gRPC-Web, which reads no answer of the other's. A caller gets its own
/// back, so that what it said is not repeated; one with another message format the bare one, as a refusal has no message.
const GRPC_TYPES: [&str; 9] = [
    "application/grpc",
    "application/grpc+proto",
    "application/grpc+json",
    "application/grpc-web",
    "application/grpc-web+proto",
    "application/grpc-web+json",
    "application/grpc-web-text",
    "application/grpc-web-text+proto",
    "application/grpc-web-text+json",
];

/// The media type of gRPC that answers this `Content-Type`.
fn grpc_type(content_type: &[u8]) -> Option<&'static str> {
    const START: &[u8] = b"application/grpc";
    // looked at for every request that is refused: mostly this says that it is none
    let start = content_type.get(..START.len())?;
    if !start.eq_ignore_ascii_case(START) {
        return None;
    }
    let essence = content_type.split(|&byte| byte == b';').next()?.trim_ascii();
    let known = GRPC_TYPES.into_iter().find(|known| known.as_bytes().eq_ignore_ascii_case(essence));
    known.or_else(|| {
        let bare = essence.split(|&byte| byte == b'+').next()?;
        GRPC_TYPES.into_iter().find(|known| known.as_bytes().eq_ignore_ascii_case(bare))
    })
}

impl Format {
    /// The one that a caller of these fields reads.
    pub fn of(headers: &HeaderMap) -> Self {
        if let Some(media_type) = headers.get(CONTENT_TYPE).and_then(|value| grpc_type(value.as_bytes())) {
            Self::Grpc(media_type)
        } else if headers.get(ACCEPT).is_some_and(|value| accept::prefers_problem(value.as_bytes())) {
            Self::Problem
        } else {
            Self::Json
        }
    }
}

/// What `Content-Type` says of it.
pub(super) const fn media_type(format: Format) -> &'static str {
    match format {
        Format::Json => "application/json",
        Format::Problem => "application/problem+json",
        Format::Grpc(media_type) => media_type,
    }
}
