//! The head of a response as its caller reads it, and how the body behind it is framed. A pure function.
//!
//! Framing is made from the body; what a head says of it is believed only where the body does not know.

use http::header::{CONNECTION, CONTENT_LENGTH, DATE, TRAILER, TRANSFER_ENCODING};
use http::{HeaderValue, Method, StatusCode, request, response};
use http_body::Body as _;
use hyper::ext::ReasonPhrase;

use crate::wire::body::Body;
use crate::wire::http1::encode;
use crate::wire::http1::fields::{elements, number};
use crate::wire::http1::sending::Outward;

/// What of a request matters to the form of its response.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "what a caller may wish, each by itself")]
pub(super) struct Asked {
    /// Over HTTP/1.0.
    pub(super) old: bool,
    /// `HEAD`.
    pub(super) for_head: bool,
    /// Whether the caller leaves the connection open.
    pub(super) keep_alive: bool,
    pub(super) takes_trailers: bool,
}

impl Asked {
    /// Nothing more is taken from who sent what is refused.
    pub(super) fn by_what_is_refused(asked: &request::Parts) -> Self {
        Self { old: false, for_head: asked.method == Method::HEAD, keep_alive: false, takes_trailers: false }
    }

    pub(super) fn new(head: &crate::listen::head::Head) -> Self {
        Self {
            old: head.parts.version < http::Version::HTTP_11,
            for_head: head.parts.method == Method::HEAD,
            keep_alive: head.keep_alive,
            takes_trailers: head.takes_trailers,
        }
    }
}

/// How a response goes on behind its head.
pub(super) struct Form {
    pub(super) framing: Outward,
    /// Whether the connection ends with it.
    pub(super) closes: bool,
}

/// Writes a response's head. `closes`: it is the last one whatever it says.
pub(super) fn write(
    to: &mut Vec<u8>,
    head: &response::Parts,
    body: &Body,
    asked: Asked,
    closes: bool,
    date: &[u8],
) -> Form {
    let upgrades = head.status == StatusCode::SWITCHING_PROTOCOLS;
    let (framing, length) = framing(head, body, asked);
    let mut closes = closes || !asked.keep_alive || matches!(framing, Outward::Close);
    let in_chunks = matches!(framing, Outward::Chunked(_));
    // who takes no trailers is not told of any
    let says_trailers = in_chunks && asked.takes_trailers;
    to.reserve(256 + head.headers.len() * 48 + body.lines().map_or(0, |lines| lines.text.len()));
    status_line(to, head, asked.old);
    let mut dated = false;
    if let Some(lines) = body.lines() {
        to.extend_from_slice(&lines.text);
        dated = lines.dated;
        if let Some(id) = &lines.request_id {
            to.extend_from_slice(b"x-request-id: ");
            to.extend_from_slice(id.as_bytes());
            to.extend_from_slice(encode::CRLF);
        }
    }
    encode::fields(to, &head.headers, |name, value| match *name {
        CONTENT_LENGTH | TRANSFER_ENCODING => false,
        CONNECTION => {
            closes |= says_close(value);
            upgrades
        }
        TRAILER => says_trailers,
        DATE => {
            dated = true;
            true
        }
        _ => true,
    });
    if let Some(length) = length {
        to.extend_from_slice(b"content-length: ");
        encode::decimal(to, length);
        to.extend_from_slice(encode::CRLF);
    } else if in_chunks {
        to.extend_from_slice(b"transfer-encoding: chunked\r\n");
    }
    if upgrades {
        // its own fields say so
    } else if closes {
        to.extend_from_slice(b"connection: close\r\n");
    } else if asked.old {
        to.extend_from_slice(b"connection: keep-alive\r\n");
    }
    if !dated {
        to.extend_from_slice(b"date: ");
        to.extend_from_slice(date);
        to.extend_from_slice(encode::CRLF);
    }
    to.extend_from_slice(encode::CRLF);
    Form { framing, closes }
}

fn status_line(to: &mut Vec<u8>, head: &response::Parts, old: bool) {
    to.extend_from_slice(if old { b"HTTP/1.0 " } else { b"HTTP/1.1 " });
    to.extend_from_slice(head.status.as_str().as_bytes());
    to.push(b' ');
    let own = if head.extensions.is_empty() { None } else { head.extensions.get::<ReasonPhrase>() };
    let usual = || head.status.canonical_reason().unwrap_or_default().as_bytes();
    to.extend_from_slice(own.map_or_else(usual, ReasonPhrase::as_bytes));
    to.extend_from_slice(encode::CRLF);
}

/// How the body is framed, and what `Content-Length` says of it.
fn framing(head: &response::Parts, body: &Body, asked: Asked) -> (Outward, Option<u64>) {
    let said = || {
        let mut values = head.headers.get_all(CONTENT_LENGTH).iter();
        let first = values.next().and_then(|value| number(value.as_bytes()));
        first.filter(|_| values.next().is_none())
    };
    let known = if body.is_end_stream() { Some(0) } else { body.size_hint().exact() };
    if head.status.is_informational() || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        return (Outward::None, None);
    }
    if asked.for_head {
        // what a GET would be told (RFC 9110 9.3.2)
        return (Outward::None, said().or_else(|| known.filter(|&length| length > 0)));
    }
    match known.or_else(said) {
        Some(0) => (Outward::None, Some(0)),
        Some(length) => (Outward::Length(length), Some(length)),
        None if asked.old => (Outward::Close, None),
        None if asked.takes_trailers => (Outward::Chunked(encode::announced(&head.headers)), None),
        None => (Outward::Chunked(Vec::new()), None),
    }
}

fn says_close(options: &HeaderValue) -> bool {
    elements(options.as_bytes()).any(|option| option.eq_ignore_ascii_case(b"close"))
}
