//! Follows the framing of HTTP/1.1 requests as bytes come in (RFC 9112), ahead of hyper.
//!
//! hyper hides some of what it accepts: it drops `Content-Length` beside `Transfer-Encoding`, a repeated
//! `Content-Length` of the same value, and a fragment in the target, and takes a bare LF for a line's end. A server behind
//! us that reads such a request otherwise is open to request smuggling, so each is refused here. What this accepts has one
//! reading only, which is also hyper's; all else that is malformed hyper refuses by itself.

use http::header::COOKIE;
use http::{HeaderMap, HeaderValue};
use memchr::{memchr, memchr2};

use crate::rejection::Rejection;

/// Holds the fields of an HTTP/2 request to what [`Scanner`] and hyper hold those of HTTP/1.1 to; h2 has seen to the rest.
///
/// # Errors
/// More fields than `headers_max`, or a value that begins or ends with white space (RFC 9113 8.2.1).
pub fn look_at_http2(fields: &HeaderMap, headers_max: usize) -> Result<(), Fault> {
    // RFC 9113 8.2.3: one field in pieces, bounded by the head's bytes
    let crumbs = fields.get_all(COOKIE).iter().count();
    if fields.len() - crumbs.saturating_sub(1) > headers_max {
        return Err(Fault::TooLarge);
    }
    let is_space = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    let is_padded = |value: &HeaderValue| is_space(value.as_bytes().first()) || is_space(value.as_bytes().last());
    if fields.values().any(is_padded) {
        return Err(Fault::Malformed("a header has white space around its value"));
    }
    Ok(())
}

/// Why a request is refused before hyper has seen its end.
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

/// What a piece of input was found to be. `taken` counts from the piece's start; what follows is not looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scanned {
    /// All of it belongs to the message, and more is to come.
    More,
    /// The message ends after `taken` bytes.
    End {
        /// Bytes of the message.
        taken: usize,
    },
    /// The head is refused; the first `taken` bytes are of an earlier line, or harmless.
    Refused {
        /// Bytes that may be passed on.
        taken: usize,
        /// Why.
        fault: Fault,
    },
    /// The body's framing is broken after `taken` bytes.
    Broken {
        /// Bytes that may be passed on.
        taken: usize,
    },
}

/// Where in a message the next byte is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    RequestLine,
    Field,
    /// Bytes of the body that are to come.
    Sized(u64),
    ChunkSize,
    /// Bytes of the chunk that are to come.
    Chunk(u64),
    ChunkEnd,
    Trailer,
}

/// The longest chunk-size line with its extensions, and the largest trailer section. hyper bounds them likewise.
const CHUNK_LINE_MAX: usize = 4096;
const TRAILERS_MAX: usize = 16 * 1024;

/// Follows one connection's requests.
#[derive(Debug)]
pub struct Scanner {
    place: Place,
    /// The beginning of a line whose end has not come.
    line: Vec<u8>,
    /// Of the head, or of the trailers, so far.
    section_bytes: usize,
    fields: usize,
    length: Option<u64>,
    chunked: bool,
    header_bytes_max: usize,
    headers_max: usize,
}

impl Scanner {
    /// At the start of a connection, with bounds on each head: bytes with its request line, and fields.
    pub const fn new(header_bytes_max: usize, headers_max: usize) -> Self {
        Self {
            place: Place::RequestLine,
            line: Vec::new(),
            section_bytes: 0,
            fields: 0,
            length: None,
            chunked: false,
            header_bytes_max,
            headers_max,
        }
    }

    /// Whether no byte of a message has come; empty lines before one are none.
    pub const fn at_start(&self) -> bool {
        matches!(self.place, Place::RequestLine) && self.line.is_empty()
    }

    /// Whether a head has begun and has not ended.
    pub const fn in_head(&self) -> bool {
        matches!(self.place, Place::RequestLine | Place::Field) && !self.at_start()
    }

    /// Looks at the next piece of input.
    pub fn scan(&mut self, piece: &[u8]) -> Scanned {
        let mut at = 0;
        while let Some(rest) = piece.get(at..).filter(|rest| !rest.is_empty()) {
            match self.place {
                Place::Sized(left) | Place::Chunk(left) => {
                    let passed = left.min(rest.len() as u64);
                    at += usize::try_from(passed).unwrap_or(rest.len());
                    if !self.body_passed(left - passed) {
                        continue;
                    }
                    return self.end(at);
                }
                Place::RequestLine | Place::Field | Place::ChunkSize | Place::ChunkEnd | Place::Trailer => {
                    let Some(end) = memchr(b'\n', rest) else { return self.keep(rest, at) };
                    let (line, taken) = (rest.get(..end).unwrap_or_default(), at);
                    at += end + 1;
                    match self.line(line) {
                        Line::Next => {}
                        Line::MessageEnds => return self.end(at),
                        Line::Refused(fault) => return Scanned::Refused { taken, fault },
                        Line::Broken => return Scanned::Broken { taken },
                    }
                }
            }
        }
        Scanned::More
    }

    /// Notes what passed of a body or chunk; whether the message is over.
    const fn body_passed(&mut self, left: u64) -> bool {
        let chunk = matches!(self.place, Place::Chunk(_));
        self.place = match (chunk, left) {
            (true, 0) => Place::ChunkEnd,
            (true, left) => Place::Chunk(left),
            (false, left) => Place::Sized(left),
        };
        !chunk && left == 0
    }

    /// Keeps the beginning of a line, within its bound.
    fn keep(&mut self, rest: &[u8], taken: usize) -> Scanned {
        let (length, in_head) = (self.line.len() + rest.len(), matches!(self.place, Place::RequestLine | Place::Field));
        let max = match self.place {
            Place::RequestLine | Place::Field => self.header_bytes_max.saturating_sub(self.section_bytes),
            Place::ChunkEnd => 1,
            Place::ChunkSize => CHUNK_LINE_MAX,
            Place::Trailer => TRAILERS_MAX.saturating_sub(self.section_bytes),
            Place::Sized(_) | Place::Chunk(_) => usize::MAX,
        };
        if length > max {
            return if in_head {
                Scanned::Refused { taken, fault: Fault::TooLarge }
            } else {
                Scanned::Broken { taken }
            };
        }
        self.line.extend_from_slice(rest);
        Scanned::More
    }

    fn line(&mut self, tail: &[u8]) -> Line {
        if self.line.is_empty() {
            return self.whole_line(tail);
        }
        let mut line = std::mem::take(&mut self.line);
        line.extend_from_slice(tail);
        let found = self.whole_line(&line);
        line.clear();
        self.line = line;
        found
    }

    /// Looks at a line without its LF.
    fn whole_line(&mut self, line: &[u8]) -> Line {
        let Some((b'\r', line)) = line.split_last() else {
            return match self.place {
                Place::RequestLine | Place::Field => Line::malformed("a line of the head ends without CR"),
                Place::Sized(_) | Place::ChunkSize | Place::Chunk(_) | Place::ChunkEnd | Place::Trailer => Line::Broken,
            };
        };
        self.section_bytes = self.section_bytes.saturating_add(line.len() + 2);
        match self.place {
            Place::RequestLine | Place::Field if self.section_bytes > self.header_bytes_max => {
                Line::Refused(Fault::TooLarge)
            }
            Place::RequestLine => self.request_line(line),
            Place::Field if line.is_empty() => self.head_ends(),
            Place::Field => self.field(line),
            Place::ChunkSize => self.chunk_size(line),
            Place::ChunkEnd if line.is_empty() => {
                self.place = Place::ChunkSize;
                Line::Next
            }
            Place::Trailer if line.is_empty() => Line::MessageEnds,
            Place::Trailer if self.section_bytes <= TRAILERS_MAX => Line::Next,
            Place::ChunkEnd | Place::Trailer | Place::Sized(_) | Place::Chunk(_) => Line::Broken,
        }
    }

    fn request_line(&mut self, line: &[u8]) -> Line {
        if line.is_empty() {
            return Line::Next; // RFC 9112 2.2: an empty line before a request is ignored
        }
        if memchr(b'#', line).is_some() {
            return Line::malformed("the request target has a fragment");
        }
        self.place = Place::Field;
        Line::Next
    }

    fn field(&mut self, line: &[u8]) -> Line {
        self.fields += 1;
        if self.fields > self.headers_max {
            return Line::Refused(Fault::TooLarge);
        }
        // few names matter here, and the first letter tells most others apart
        let fault = match line.first() {
            Some(b' ' | b'\t') => Some("a header is folded over lines"),
            Some(b'c' | b'C') => self.content_length(line),
            Some(b't' | b'T') => self.transfer_encoding(line),
            Some(_) | None => None,
        };
        fault.map_or(Line::Next, Line::malformed)
    }

    fn content_length(&mut self, line: &[u8]) -> Option<&'static str> {
        let digits = value(line, b"content-length")?;
        if self.chunked {
            return Some("Content-Length beside Transfer-Encoding");
        }
        // RFC 9110 8.6 lets a repeated equal value pass; nobody has a good reason to send one
        if self.length.is_some() {
            return Some("Content-Length is repeated");
        }
        self.length = decimal(digits);
        self.length.is_none().then_some("Content-Length is not a number")
    }

    fn transfer_encoding(&mut self, line: &[u8]) -> Option<&'static str> {
        let coding = value(line, b"transfer-encoding")?;
        if self.length.is_some() {
            return Some("Content-Length beside Transfer-Encoding");
        }
        if std::mem::replace(&mut self.chunked, true) {
            return Some("Transfer-Encoding is repeated");
        }
        // hyper decodes the last coding alone, and would hand a gzip-coded body on as if it were the content
        (!coding.eq_ignore_ascii_case(b"chunked")).then_some("a transfer coding other than chunked")
    }

    fn head_ends(&mut self) -> Line {
        self.section_bytes = 0;
        self.place = match self.length {
            _ if self.chunked => Place::ChunkSize,
            None | Some(0) => return Line::MessageEnds,
            Some(length) => Place::Sized(length),
        };
        Line::Next
    }

    /// RFC 9112 7.1: hexadecimal digits, then nothing or extensions.
    fn chunk_size(&mut self, line: &[u8]) -> Line {
        let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let (size, rest) = line.split_at(digits);
        let after = rest.iter().find(|byte| !matches!(byte, b' ' | b'\t'));
        let size = std::str::from_utf8(size).ok().and_then(|size| u64::from_str_radix(size, 16).ok());
        let plain = line.len() <= CHUNK_LINE_MAX && memchr2(b'\r', 0, rest).is_none();
        self.section_bytes = 0;
        self.place = match (size, after) {
            (Some(0), None | Some(b';')) if plain => Place::Trailer,
            (Some(size), None | Some(b';')) if plain => Place::Chunk(size),
            (_, None | Some(_)) => return Line::Broken,
        };
        Line::Next
    }

    fn end(&mut self, taken: usize) -> Scanned {
        self.place = Place::RequestLine;
        (self.section_bytes, self.fields, self.length, self.chunked) = (0, 0, None, false);
        Scanned::End { taken }
    }
}

/// What a line says of the message.
enum Line {
    Next,
    MessageEnds,
    Refused(Fault),
    Broken,
}

impl Line {
    const fn malformed(what: &'static str) -> Self {
        Self::Refused(Fault::Malformed(what))
    }
}

/// The value of the field `name`, without the white space around it. White space before the colon is for hyper to refuse.
fn value<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (found, rest) = line.split_at_checked(name.len())?;
    let value = rest.strip_prefix(b":")?;
    found.eq_ignore_ascii_case(name).then(|| value.trim_ascii())
}

fn decimal(digits: &[u8]) -> Option<u64> {
    let all_digits = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(digits).ok().filter(|_| all_digits)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a request is found to be, fed whole and byte by byte: both must agree.
    fn scan(request: &str) -> String {
        let show = |scanned| match scanned {
            Scanned::More => None,
            Scanned::End { .. } => Some("ends".to_owned()),
            Scanned::Refused { fault: Fault::Malformed(what), .. } => Some(what.to_owned()),
            Scanned::Refused { fault, .. } => Some(format!("{fault:?}")),
            Scanned::Broken { .. } => Some("broken".to_owned()),
        };
        let mut whole = Scanner::new(100, 3);
        let found = whole.scan(request.as_bytes());
        if let Scanned::End { taken } = found {
            assert_eq!(taken, request.len(), "{request:?} ends early");
        }
        let mut scanner = Scanner::new(100, 3);
        let bytewise = request.as_bytes().chunks(1).find_map(|byte| show(scanner.scan(byte)));
        assert_eq!(bytewise, show(found), "{request:?} in pieces");
        bytewise.unwrap_or_else(|| "more".into())
    }

    #[test]
    fn a_request_has_one_reading_or_is_refused() {
        const BOTH: &str = "Content-Length beside Transfer-Encoding";
        let get = "GET / HTTP/1.1\r\n";
        for (name, rest, expected) in [
            ("no fields", "\r\n", "ends"),
            ("a body by length", "Content-Length: 2\r\n\r\nab", "ends"),
            ("a body that is not there yet", "Content-Length: 3\r\n\r\nab", "more"),
            ("a length of zero", "content-length:0\r\n\r\n", "ends"),
            ("chunks", "TRANSFER-ENCODING: Chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n", "ends"),
            (
                "chunks with extension and trailer",
                "Transfer-Encoding: chunked\r\n\r\nA;x=y\r\n0123456789\r\n0\r\nT: 1\r\n\r\n",
                "ends",
            ),
            ("length, then chunks", "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n", BOTH),
            ("chunks, then length", "Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n", BOTH),
            ("the same length twice", "Content-Length: 2\r\nContent-Length: 2\r\n\r\n", "Content-Length is repeated"),
            ("a list of lengths", "Content-Length: 2, 2\r\n\r\n", "Content-Length is not a number"),
            ("a signed length", "Content-Length: +2\r\n\r\n", "Content-Length is not a number"),
            ("no length", "Content-Length:\r\n\r\n", "Content-Length is not a number"),
            ("a length past 64 bits", "Content-Length: 18446744073709551616\r\n\r\n", "Content-Length is not a number"),
            (
                "chunked twice",
                "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
                "Transfer-Encoding is repeated",
            ),
            ("another coding", "Transfer-Encoding: gzip, chunked\r\n\r\n", "a transfer coding other than chunked"),
            ("a folded field", "A: b\r\n c\r\n\r\n", "a header is folded over lines"),
            ("a bare LF after a field", "A: b\n\r\n", "a line of the head ends without CR"),
            ("a bare LF for the empty line", "A: b\r\n\n", "a line of the head ends without CR"),
            ("the most fields", "A: b\r\nA: b\r\nA: b\r\n\r\n", "ends"),
            ("a field more", "A: b\r\nA: b\r\nA: b\r\nA: b\r\n\r\n", "TooLarge"),
            ("a chunk size that is none", "Transfer-Encoding: chunked\r\n\r\nx\r\n", "broken"),
            ("a chunk size past 64 bits", "Transfer-Encoding: chunked\r\n\r\n10000000000000000\r\n", "broken"),
            ("a signed chunk size", "Transfer-Encoding: chunked\r\n\r\n+2\r\n", "broken"),
            ("a chunk longer than it says", "Transfer-Encoding: chunked\r\n\r\n1\r\nab\r\n", "broken"),
            ("a bare LF after a chunk size", "Transfer-Encoding: chunked\r\n\r\n1\nab\r\n", "broken"),
            ("a bare CR in an extension", "Transfer-Encoding: chunked\r\n\r\n1;\rx\r\na\r\n", "broken"),
            ("a bare LF in the trailers", "Transfer-Encoding: chunked\r\n\r\n0\r\nA: b\n\r\n", "broken"),
        ] {
            assert_eq!(scan(&format!("{get}{rest}")), expected, "{name}");
        }
    }

    #[test]
    fn fields_of_http2_are_held_to_the_same() {
        let many = |name: &'static str, count| vec![(name, "b"); count];
        for (name, fields, expected) in [
            ("no fields", vec![], Ok(())),
            ("the most fields", many("a", 3), Ok(())),
            ("a field more", many("a", 4), Err(Fault::TooLarge)),
            ("a cookie in pieces", [many("cookie", 9), many("a", 2)].concat(), Ok(())),
            ("a field more beside a cookie", [many("cookie", 9), many("a", 3)].concat(), Err(Fault::TooLarge)),
            ("space within, and nothing", vec![("a", "b c"), ("d", "")], Ok(())),
        ] {
            let mut map = HeaderMap::new();
            for (name, value) in fields {
                map.append(http::HeaderName::from_static(name), HeaderValue::from_static(value));
            }
            assert_eq!(look_at_http2(&map, 3), expected, "{name}");
        }
        for padded in [" ", " b", "b ", "\tb", "b\t"] {
            let map = HeaderMap::from_iter([(COOKIE, HeaderValue::from_str(padded).unwrap())]);
            assert!(matches!(look_at_http2(&map, 3), Err(Fault::Malformed(_))), "{padded:?}");
        }
    }

    #[test]
    fn the_request_line_is_looked_at() {
        for (name, request, expected) in [
            ("a fragment", "GET /a#b HTTP/1.1\r\n\r\n", "the request target has a fragment"),
            ("a bare LF", "GET / HTTP/1.1\n\r\n", "a line of the head ends without CR"),
            ("empty lines before", "\r\n\r\nGET / HTTP/1.1\r\n\r\n", "ends"),
        ] {
            assert_eq!(scan(request), expected, "{name}");
        }
    }

    #[test]
    fn a_head_may_have_its_bytes_and_not_one_more() {
        for (more, expected) in [(0, "ends"), (1, "TooLarge")] {
            let filler = "x".repeat(100 - "GET / HTTP/1.1\r\nA: \r\n\r\n".len() + more);
            assert_eq!(scan(&format!("GET / HTTP/1.1\r\nA: {filler}\r\n\r\n")), expected, "{more}");
        }
    }

    #[test]
    fn the_next_message_is_left_alone() {
        let mut scanner = Scanner::new(100, 3);
        let two = b"POST / HTTP/1.1\r\nContent-Length: 1\r\n\r\naGET / HTTP/1.1\n";
        assert_eq!(scanner.scan(two), Scanned::End { taken: 39 });
        assert!(scanner.at_start());
        assert!(matches!(scanner.scan(&two[39..]), Scanned::Refused { taken: 0, .. }));
    }
}
