//! Another reader of request framing (RFC 9112), for tests: it follows the bytes line by line, where [`super::head`] reads a
//! whole head by httparse. It is the one that stood before hyper; what it refuses must stay refused.

use memchr::{memchr, memchr2};

use super::head::Fault;

/// What a piece of input was found to be. `taken` counts from the piece's start; what follows is not looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scanned {
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
pub(super) struct Scanner {
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
    pub(super) const fn new(header_bytes_max: usize, headers_max: usize) -> Self {
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

    /// Looks at the next piece of input.
    pub(super) fn scan(&mut self, piece: &[u8]) -> Scanned {
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
