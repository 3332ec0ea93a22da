//! The head of an HTTP/1.1 request, from bytes (RFC 9112 2-6). Pure functions; they decide where the request ends.
//!
//! What this accepts has one reading only. A server behind us, or a proxy before us, that reads a request otherwise than we
//! do is open to request smuggling; so a head is refused wherever that could be: two lengths, even equal ones, a length
//! beside a coding, any coding but `chunked`, folded lines, a line that ends without its carriage return, a fragment.

use std::mem::MaybeUninit;
use std::ops::Range;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, TE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderName, HeaderValue, Method, Request, Uri, Version, request};

use crate::record::metrics::registered;
use crate::rejection::Rejection;
use crate::wire::http1::Framing;
use crate::wire::http1::fields::{self, Unusable, elements, number};
use crate::wire::target::{self, RawQuery};

/// Fields of a head that are read without more room being made.
const FIELDS_USUAL: usize = 100;

/// What [`Uri`] can hold.
const TARGET_BYTES_MAX: usize = u16::MAX as usize - 1;

/// The largest length: what every other reader can count to as well.
const LENGTH_MAX: u64 = i64::MAX as u64;

const NO_CR: Fault = Fault::Malformed("a line of the head ends without CR");
const MALFORMED: Fault = Fault::Malformed("the request is malformed");
const BOTH_FRAMINGS: Fault = Fault::Malformed("Content-Length beside Transfer-Encoding");

/// Why a request is refused before there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// 400, and what is wrong.
    Malformed(&'static str),
    /// 431.
    TooLarge,
    /// 408.
    TooSlow,
}

impl From<Fault> for Rejection {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Malformed(what) => Self::BadRequest(what),
            Fault::TooLarge => Self::HeadersTooLarge,
            Fault::TooSlow => Self::RequestTimeout,
        }
    }
}

impl From<Unusable> for Fault {
    fn from(unusable: Unusable) -> Self {
        match unusable {
            Unusable::Field => MALFORMED,
            Unusable::TooMany => Self::TooLarge,
        }
    }
}

/// Bounds on a head.
#[derive(Clone, Copy, Debug)]
pub struct HeadBounds {
    /// Bytes, with its request line and the empty line at its end.
    pub bytes_max: usize,
    /// Fields.
    pub fields_max: usize,
}

/// The head of a request.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "what a caller may wish, each by itself")]
pub struct Head {
    /// What it says; boxed, since it is handed on by value, and often.
    pub parts: Box<request::Parts>,
    /// Its bytes.
    pub length: usize,
    pub(crate) framing: Framing,
    /// Whether the caller leaves the connection open.
    pub(crate) keep_alive: bool,
    /// Whether the caller waits for 100 before the body (RFC 9110 10.1.1).
    pub(crate) expects: bool,
    /// Whether the caller asks for another protocol.
    pub(crate) upgrades: bool,
    pub(crate) takes_trailers: bool,
}

impl Head {
    /// Bytes of the body, where that is known.
    pub const fn body_length(&self) -> Option<u64> {
        match self.framing {
            Framing::Empty => Some(0),
            Framing::Length(length) => Some(length),
            Framing::Chunked | Framing::Close => None,
        }
    }
}

/// How many of the first bytes are empty lines, which are ignored before a request (RFC 9112 2.2).
pub fn empty_lines(bytes: &[u8]) -> usize {
    bytes.chunks_exact(2).take_while(|line| *line == b"\r\n").count() * 2
}

/// Reads a head from the beginning of `bytes`, where no empty line stands; `None` where its end has not come. What is wrong
/// in a line is told once that line has come, even if the head has not.
///
/// # Errors
/// What is wrong with it.
pub fn read(bytes: &[u8], bounds: HeadBounds) -> Result<Option<Head>, Fault> {
    match bytes {
        [] | b"\r" => return Ok(None),
        // httparse takes these for empty lines
        [b'\r' | b'\n', ..] => return Err(NO_CR),
        _ => {}
    }
    if let Some(head) = parse(bytes, bounds)? {
        return if head.length > bounds.bytes_max { Err(Fault::TooLarge) } else { Ok(Some(head)) };
    }
    if bytes.len() >= bounds.bytes_max {
        return Err(Fault::TooLarge);
    }
    if let Some(end) = memchr::memrchr(b'\n', bytes) {
        // as if it ended with the last line that is whole
        let lines = [bytes.get(..=end).unwrap_or_default(), b"\r\n"].concat();
        parse(&lines, bounds)?;
    }
    Ok(None)
}

/// What can be read of a head that is refused, so that the refusal suits who asked and whoever looks after the gateway sees
/// who and what it was. Nothing else is decided by it. A target that cannot be read is `*`, and a method `-`: where what is
/// refused is the end of a body that was longer than it said, anything may stand in their places, a credential as well. So
/// there is no target but behind a method that is registered.
pub fn glimpse(bytes: &[u8], bounds: HeadBounds) -> request::Parts {
    let (mut parts, ()) = Request::new(()).into_parts();
    (parts.method, parts.uri) = (Method::from_bytes(b"-").unwrap_or_default(), Uri::from_static("*"));
    let mut words = bytes.split(u8::is_ascii_whitespace);
    if let (Some(method), Some(target)) = (words.next(), words.next())
        && let Some(method) = Method::from_bytes(method).ok().filter(|method| registered(method).is_some())
    {
        parts.method = method;
        if words.next().is_some()
            && let Ok((uri, _)) = target::read(&Bytes::copy_from_slice(target), 0..target.len())
        {
            parts.uri = uri;
        }
    }
    // not the rest, of which more may have been to come
    let whole = memchr::memrchr(b'\n', bytes).and_then(|end| bytes.get(..end)).unwrap_or_default();
    let lines = whole.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii_end).skip(1);
    for line in lines.take_while(|line| !line.is_empty()).take(bounds.fields_max) {
        let Some(colon) = memchr::memchr(b':', line) else { continue };
        let (name, value) = line.split_at(colon);
        let value = value.get(1..).unwrap_or_default().trim_ascii_start();
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            parts.headers.append(name, value);
        }
    }
    parts
}

fn parse(bytes: &[u8], bounds: HeadBounds) -> Result<Option<Head>, Fault> {
    let mut slots = [const { MaybeUninit::uninit() }; FIELDS_USUAL];
    let usual = slots.get_mut(..bounds.fields_max.min(FIELDS_USUAL)).unwrap_or_default();
    match parse_into(bytes, usual) {
        Err(httparse::Error::TooManyHeaders) if bounds.fields_max > FIELDS_USUAL => {
            let mut slots = vec![MaybeUninit::uninit(); bounds.fields_max];
            parse_into(bytes, &mut slots).unwrap_or(Err(Fault::TooLarge))
        }
        Err(httparse::Error::TooManyHeaders) => Err(Fault::TooLarge),
        Err(httparse::Error::Token) if let Some(queried) = Queried::of(bytes) => queried.parse(bytes, bounds),
        Err(_) => Err(if fields::has_bare_line_feed(bytes) { NO_CR } else { MALFORMED }),
        Ok(head) => head,
    }
}

/// A head whose query has bytes outside ASCII. httparse takes a target for text and nothing else, but a query need not be:
/// others still write it in Latin-1. So it is shown a head that has letters in their place.
struct Queried {
    shown: Vec<u8>,
    /// Where the target is.
    target: Range<usize>,
}

impl Queried {
    /// Looks for the query where httparse would: in the second word of the first line.
    #[cold]
    fn of(bytes: &[u8]) -> Option<Self> {
        let start = memchr::memchr(b' ', bytes)? + 1;
        let word = bytes.get(start..)?;
        let length = word.iter().position(|&byte| byte <= b' ').unwrap_or(word.len());
        let query = start + memchr::memchr(b'?', word.get(..length)?)?;
        let mut shown = bytes.to_vec();
        let outside = shown.get_mut(query..start + length)?.iter_mut().filter(|byte| !byte.is_ascii());
        let masked = outside.map(|byte| *byte = b'x').count();
        (masked > 0).then_some(Self { shown, target: start..start + length })
    }

    fn parse(self, bytes: &[u8], bounds: HeadBounds) -> Result<Option<Head>, Fault> {
        let Some(mut head) = parse(&self.shown, bounds)? else { return Ok(None) };
        let line = bytes.get(..self.target.end).map(Bytes::copy_from_slice).unwrap_or_default();
        let (uri, raw_query) = target(&line, self.target)?;
        head.parts.uri = uri;
        head.parts.extensions.clear();
        if let Some(raw_query) = raw_query {
            head.parts.extensions.insert(raw_query);
        }
        Ok(Some(head))
    }
}

fn parse_into<'b>(
    bytes: &'b [u8],
    slots: &mut [MaybeUninit<httparse::Header<'b>>],
) -> Result<Result<Option<Head>, Fault>, httparse::Error> {
    let mut parsed = httparse::Request::new(&mut []);
    let config = httparse::ParserConfig::default();
    Ok(match config.parse_request_with_uninit_headers(&mut parsed, bytes, slots)? {
        httparse::Status::Partial => Ok(None),
        httparse::Status::Complete(length) => complete(bytes.get(..length).unwrap_or_default(), &parsed).map(Some),
    })
}

fn complete(bytes: &[u8], parsed: &httparse::Request<'_, '_>) -> Result<Head, Fault> {
    if fields::has_bare_line_feed(bytes) {
        return Err(NO_CR);
    }
    // `#` may stand in a method (RFC 9110 5.6.2), and in none that exists: the request line is refused wherever it is
    let method = parsed.method.filter(|method| !method.contains('#'));
    let method = method.and_then(|method| Method::from_bytes(method.as_bytes()).ok()).ok_or(MALFORMED)?;
    // one copy, which the target and the fields share
    let shared = Bytes::copy_from_slice(bytes);
    let path = parsed.path.unwrap_or_default();
    let at = path.as_ptr().addr() - bytes.as_ptr().addr();
    let (uri, raw_query) = target(&shared, at..at + path.len())?;
    let old = parsed.version != Some(1);
    let mut said = Said::default();
    let headers = fields::map(parsed.headers, bytes, &shared, |name, value| said.hear(name, value))?;
    if said.chunked && old {
        return Err(Fault::Malformed("Transfer-Encoding over HTTP/1.0"));
    }
    let mut parts = Box::new(Request::new(()).into_parts().0);
    (parts.method, parts.uri, parts.headers) = (method, uri, headers);
    parts.version = if old { Version::HTTP_10 } else { Version::HTTP_11 };
    if let Some(raw_query) = raw_query {
        parts.extensions.insert(raw_query);
    }
    Ok(Head {
        parts,
        length: bytes.len(),
        framing: said.framing(),
        keep_alive: !said.close && (said.keep_alive || !old),
        expects: said.expects && !old,
        upgrades: said.upgrades && !old,
        takes_trailers: said.takes_trailers,
    })
}

/// Reads the target of a request line ([`target::read`]).
///
/// # Errors
/// What is wrong with it; that it is larger than any that is taken.
pub fn target(line: &Bytes, place: Range<usize>) -> Result<(Uri, Option<RawQuery>), Fault> {
    if place.len() > TARGET_BYTES_MAX {
        return Err(Fault::TooLarge);
    }
    target::read(line, place).map_err(|error| Fault::Malformed(error.message()))
}

/// What the fields say of the connection and of the end.
#[derive(Default)]
#[expect(clippy::struct_excessive_bools, reason = "what a caller may wish, each by itself")]
struct Said {
    length: Option<u64>,
    chunked: bool,
    close: bool,
    keep_alive: bool,
    expects: bool,
    upgrades: bool,
    takes_trailers: bool,
}

impl Said {
    fn hear(&mut self, name: &HeaderName, value: &[u8]) -> Result<(), Fault> {
        match *name {
            CONTENT_LENGTH => return self.hear_length(value),
            TRANSFER_ENCODING => return self.hear_coding(value),
            CONNECTION => {
                for option in elements(value) {
                    self.close |= option.eq_ignore_ascii_case(b"close");
                    self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                }
            }
            EXPECT => self.expects |= value.eq_ignore_ascii_case(b"100-continue"),
            TE => self.takes_trailers |= elements(value).any(|option| option.eq_ignore_ascii_case(b"trailers")),
            UPGRADE => self.upgrades = true,
            _ => {}
        }
        Ok(())
    }

    fn hear_length(&mut self, value: &[u8]) -> Result<(), Fault> {
        if self.chunked {
            return Err(BOTH_FRAMINGS);
        }
        // RFC 9110 8.6 lets a repeated equal value pass; nobody has a good reason to send one
        if self.length.is_some() {
            return Err(Fault::Malformed("Content-Length is repeated"));
        }
        let length = number(value).filter(|&length| length <= LENGTH_MAX);
        self.length = Some(length.ok_or(Fault::Malformed("Content-Length is not a number"))?);
        Ok(())
    }

    fn hear_coding(&mut self, value: &[u8]) -> Result<(), Fault> {
        if self.length.is_some() {
            return Err(BOTH_FRAMINGS);
        }
        if self.chunked {
            return Err(Fault::Malformed("Transfer-Encoding is repeated"));
        }
        // with another coding before it, the content would be handed on coded as if it were not
        if !value.eq_ignore_ascii_case(b"chunked") {
            return Err(Fault::Malformed("a transfer coding other than chunked"));
        }
        self.chunked = true;
        Ok(())
    }

    const fn framing(&self) -> Framing {
        match self.length {
            _ if self.chunked => Framing::Chunked,
            None | Some(0) => Framing::Empty,
            Some(length) => Framing::Length(length),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: HeadBounds = HeadBounds { bytes_max: 100, fields_max: 3 };

    /// Where it ends and how it goes on, or what is wrong with it; `None` where its end has not come.
    fn show(bytes: &[u8]) -> Option<Result<(usize, String), String>> {
        match read(bytes, BOUNDS) {
            Ok(None) => None,
            Ok(Some(head)) => Some(Ok((head.length, format!("{:?}", head.framing)))),
            Err(Fault::Malformed(what)) => Some(Err(what.to_owned())),
            Err(fault) => Some(Err(format!("{fault:?}"))),
        }
    }

    #[test]
    fn of_a_head_that_is_refused_is_seen_what_is_plain() {
        for (name, head, expected) in [
            ("a whole one", "PUT /a?b HTTP/1.1\r\nA: b\r\nA:c \r\n\r\nD: e\r\n", "PUT /a a=b a=c"),
            ("lines without CR", "PUT /a HTTP/1.1\nA: b\n\n", "PUT /a a=b"),
            (
                "more fields than there may be",
                "PUT /a HTTP/1.1\r\nA: 1\r\nA: 2\r\nA: 3\r\nA: 4\r\n",
                "PUT /a a=1 a=2 a=3",
            ),
            ("a line that has not ended", "PUT /a HTTP/1.1\r\nA: b\r\nB: 10.0.0.", "PUT /a a=b"),
            ("fields that are none", "PUT /a HTTP/1.1\r\nA : b\r\nD: \x01\r\nE: f\r\n\r\n", "PUT /a e=f"),
            ("a target that has not ended", "PUT /a", "PUT *"),
            ("a method that has not ended", "PU", "- *"),
            ("a fragment", "PUT /a#b HTTP/1.1\r\n\r\n", "PUT *"),
            ("no target", "PUT \r\n", "PUT *"),
            ("another protocol", "\x16\x03\x01 \x00 \x00", "- *"),
            ("nothing", "", "- *"),
            ("a method of nobody", "pct_a /b HTTP/1.1\r\nA : b\r\n", "- *"),
            ("the end of a body", "pct_a x\r\n\r\n", "- *"),
        ] {
            let parts = glimpse(head.as_bytes(), BOUNDS);
            let fields = parts.headers.iter().map(|(name, value)| format!(" {name}={}", value.to_str().unwrap()));
            assert_eq!(
                format!("{} {}{}", parts.method, parts.uri.path(), fields.collect::<String>()),
                expected,
                "{name}"
            );
        }
    }

    /// What a request is found to be, whole; and byte by byte, where it is the same, or refused as well.
    fn found(request: &str) -> String {
        let bytes = request.as_bytes();
        let whole = show(bytes);
        let crumbs = (0..=bytes.len()).find_map(|end| show(&bytes[..end]));
        match (&whole, &crumbs) {
            (Some(Err(_)), Some(Err(_))) => {}
            (whole, crumbs) => assert_eq!(whole, crumbs, "{request:?} byte by byte"),
        }
        match whole {
            None => "more".to_owned(),
            Some(Ok((length, framing))) => format!("{framing} +{}", bytes.len() - length),
            Some(Err(what)) => what,
        }
    }

    #[test]
    fn a_request_has_one_reading_or_is_refused() {
        const BOTH: &str = "Content-Length beside Transfer-Encoding";
        const NUMBER: &str = "Content-Length is not a number";
        const CODING: &str = "a transfer coding other than chunked";
        const ANY: &str = "the request is malformed";
        for (name, rest, expected) in [
            ("no fields", "\r\n", "Empty +0"),
            ("a length", "Content-Length: 2\r\n\r\nab", "Length(2) +2"),
            ("a length of zero", "content-length:0\r\n\r\n", "Empty +0"),
            ("zeros before it", "content-length: 007\r\n\r\n", "Length(7) +0"),
            ("the largest length", "Content-Length: 9223372036854775807\r\n\r\n", "Length(9223372036854775807) +0"),
            ("one more", "Content-Length: 9223372036854775808\r\n\r\n", NUMBER),
            ("chunks", "TRANSFER-ENCODING: Chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n", "Chunked +12"),
            ("length, then chunks", "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n", BOTH),
            ("chunks, then length", "Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n", BOTH),
            ("the same length twice", "Content-Length: 2\r\nContent-Length: 2\r\n\r\n", "Content-Length is repeated"),
            ("a list of lengths", "Content-Length: 2, 2\r\n\r\n", NUMBER),
            ("a signed length", "Content-Length: +2\r\n\r\n", NUMBER),
            ("a negative length", "Content-Length: -2\r\n\r\n", NUMBER),
            ("a length with a blank", "Content-Length: 2 2\r\n\r\n", NUMBER),
            ("no length", "Content-Length:\r\n\r\n", NUMBER),
            ("a length past 64 bits", "Content-Length: 18446744073709551616\r\n\r\n", NUMBER),
            ("a blank before the colon", "Content-Length : 2\r\n\r\nab", ANY),
            (
                "chunked twice",
                "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
                "Transfer-Encoding is repeated",
            ),
            ("another coding before", "Transfer-Encoding: gzip, chunked\r\n\r\n", CODING),
            ("another coding behind", "Transfer-Encoding: chunked, gzip\r\n\r\n", CODING),
            ("no coding", "Transfer-Encoding:\r\n\r\n", CODING),
            ("a quoted coding", "Transfer-Encoding: \"chunked\"\r\n\r\n", CODING),
            ("a coding behind a vertical tab", "Transfer-Encoding: \x0bchunked\r\n\r\n", ANY),
            ("a folded field", "A: b\r\n c\r\n\r\n", ANY),
            ("a folded first field", " A: b\r\n\r\n", ANY),
            ("no colon", "abc\r\n\r\n", ANY),
            ("no name", ": b\r\n\r\n", ANY),
            ("a name with a blank", "A b: c\r\n\r\n", ANY),
            ("a NUL in a value", "A: \0\r\n\r\n", ANY),
            ("a bare CR in a value", "A: b\rc\r\n\r\n", ANY),
            ("a bare LF after a field", "A: b\n\r\n", "a line of the head ends without CR"),
            ("a bare LF for the empty line", "A: b\r\n\n", "a line of the head ends without CR"),
            ("the most fields", "A: b\r\nA: b\r\nA: b\r\n\r\n", "Empty +0"),
            ("a field more", "A: b\r\nA: b\r\nA: b\r\nA: b\r\n\r\n", "TooLarge"),
            ("the beginning", "A: b\r\n", "more"),
        ] {
            assert_eq!(found(&format!("GET / HTTP/1.1\r\n{rest}")), expected, "{name}");
        }
    }

    #[test]
    fn the_request_line_is_looked_at() {
        const ANY: &str = "the request is malformed";
        for (name, request, expected) in [
            ("nothing", "", "more"),
            ("half an empty line", "\r", "more"),
            ("a fragment", "GET /a#b HTTP/1.1\r\n\r\n", "target has a fragment"),
            ("a bare LF", "GET / HTTP/1.1\n\r\n", "a line of the head ends without CR"),
            ("a bare LF before", "\nGET / HTTP/1.1\r\n\r\n", "a line of the head ends without CR"),
            ("a bare CR before", "\rGET / HTTP/1.1\r\n\r\n", "a line of the head ends without CR"),
            ("two blanks", "GET  / HTTP/1.1\r\n\r\n", ANY),
            ("a blank in the target", "GET /a b HTTP/1.1\r\n\r\n", ANY),
            ("a tab", "GET\t/ HTTP/1.1\r\n\r\n", ANY),
            ("a blank behind", "GET / HTTP/1.1 \r\n\r\n", ANY),
            ("no target", "GET HTTP/1.1\r\n\r\n", ANY),
            ("no version", "GET /\r\n\r\n", ANY),
            ("another version", "GET / HTTP/1.2\r\n\r\n", ANY),
            ("a version in lower case", "GET / http/1.1\r\n\r\n", ANY),
            ("a byte that no method has", "G(T / HTTP/1.1\r\n\r\n", ANY),
            ("a fragment's mark in the method", "#GET / HTTP/1.1\r\n\r\n", ANY),
            ("an old version", "GET / HTTP/1.0\r\n\r\n", "Empty +0"),
            (
                "chunks over an old version",
                "GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
                "Transfer-Encoding over HTTP/1.0",
            ),
        ] {
            assert_eq!(found(request), expected, "{name}");
        }
    }

    #[test]
    fn a_query_may_be_anything_that_has_one_end() {
        const PATH: &str = "path has a byte that must be percent-encoded";
        const ANY: &str = "the request is malformed";
        for (target, expected) in [
            (&b"/a?b=\"c\""[..], Ok(("/a", &b"b=\"c\""[..]))),
            (b"/a?\xe9", Ok(("/a", b"\xe9"))),
            (b"/a?\xff?\xfe\"", Ok(("/a", b"\xff?\xfe\""))),
            ("/a?é".as_bytes(), Ok(("/a?é", b""))),
            (b"/a?x", Ok(("/a?x", b""))),
            (b"/\xe9?x", Err(ANY)),
            (b"/\xe9?\xe9", Err(ANY)),
            (b"/<?x", Err(PATH)),
            (b"/<?\xe9", Err(PATH)),
            (b"/a?\xe9#b", Err("target has a fragment")),
            (b"/a?\xe9\x7f", Err(ANY)),
            (b"/a?\xe9 b", Err(ANY)),
        ] {
            let said = [b"GET ".as_slice(), target, b" HTTP/1.1\r\nHost: \xe9?\r\n\r\n"].concat();
            let bounds = HeadBounds { bytes_max: 1_000, fields_max: 3 };
            let (whole, cut) =
                (read(&said, bounds), (0..said.len()).find_map(|end| read(&said[..end], bounds).transpose()));
            assert!(cut.is_none_or(|cut| cut.is_err() && whole.is_err()), "{target:?}");
            let found = whole.map(|head| *head.unwrap().parts);
            let shown = found.as_ref().map(|parts| {
                assert_eq!(parts.headers["host"], &b"\xe9?"[..], "what stands elsewhere is as it was");
                (parts.uri.to_string(), parts.extensions.get().map(RawQuery::as_bytes).unwrap_or_default())
            });
            let expected = expected.map(|(uri, raw)| (uri.to_owned(), raw)).map_err(Fault::Malformed);
            assert_eq!(shown.map_err(|fault| *fault), expected, "{target:?}");
        }
    }

    #[test]
    fn empty_lines_before_a_request_are_told_from_it() {
        for (bytes, expected) in [("", 0), ("\r", 0), ("\r\n", 2), ("\r\n\r\nGET", 4), ("GET\r\n", 0), ("\r\n\n", 2)] {
            assert_eq!(empty_lines(bytes.as_bytes()), expected, "{bytes:?}");
        }
    }

    #[test]
    fn a_head_may_have_its_bytes_and_not_one_more() {
        for (more, expected) in [(0, "Empty +0"), (1, "TooLarge")] {
            let filler = "x".repeat(100 - "GET / HTTP/1.1\r\nA: \r\n\r\n".len() + more);
            assert_eq!(found(&format!("GET / HTTP/1.1\r\nA: {filler}\r\n\r\n")), expected, "{more}");
        }
        assert_eq!(found(&"x".repeat(99)), "more");
        assert_eq!(found(&"x".repeat(100)), "TooLarge");
    }

    #[test]
    fn more_fields_than_usual_pass_where_they_may() {
        for (count, fits) in [(FIELDS_USUAL, true), (FIELDS_USUAL + 1, true), (200, true), (201, false)] {
            let said = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(count));
            let read = read(said.as_bytes(), HeadBounds { bytes_max: 10_000, fields_max: 200 });
            assert_eq!(read.map(|head| head.map(|head| head.parts.headers.len())).ok(), fits.then_some(Some(count)));
        }
    }

    #[test]
    fn what_a_caller_wishes_is_heard() {
        for (head, expected) in [
            ("HTTP/1.1\r\n", "keep"),
            ("HTTP/1.1\r\nConnection: x, Close\r\n", ""),
            ("HTTP/1.1\r\nConnection: close\r\nConnection: keep-alive\r\n", ""),
            ("HTTP/1.0\r\n", ""),
            ("HTTP/1.0\r\nConnection: Keep-Alive\r\n", "keep"),
            ("HTTP/1.1\r\nExpect: 100-Continue\r\n", "keep expects"),
            ("HTTP/1.0\r\nExpect: 100-continue\r\n", ""),
            ("HTTP/1.1\r\nExpect: else\r\n", "keep"),
            ("HTTP/1.1\r\nUpgrade: websocket\r\n", "keep upgrades"),
            ("HTTP/1.0\r\nUpgrade: websocket\r\n", ""),
            ("HTTP/1.1\r\nTE: gzip, trailers\r\n", "keep trailers"),
        ] {
            let said = format!("GET / {head}\r\n");
            let Ok(Some(head)) = read(said.as_bytes(), BOUNDS) else { panic!("{said:?}") };
            let wishes = [
                (head.keep_alive, "keep"),
                (head.expects, "expects"),
                (head.upgrades, "upgrades"),
                (head.takes_trailers, "trailers"),
            ];
            let wishes: Vec<&str> = wishes.into_iter().filter(|(wished, _)| *wished).map(|(_, name)| name).collect();
            assert_eq!(wishes.join(" "), expected, "{said:?}");
        }
    }
}
