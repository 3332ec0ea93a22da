//! Where requests begin and end in the bytes of an HTTP/1 connection (RFC 9112), read strictly.
//!
//! The HTTP library behind this is lenient where leniency is how requests are smuggled: it takes a bare LF for a line's
//! end, prefers `Transfer-Encoding` where `Content-Length` stands beside it, and forgets a fragment. A [`Scanner`] sees
//! every byte first and says how many may pass; at the first that has more than one reading, nothing more passes.

use crate::rejection::Rejection;

/// Empty lines that may stand before a request line, as RFC 9112 2.2 asks a server to bear.
const EMPTY_LINES_MAX: u8 = 1;
/// Digits of a `Content-Length`: more would not fit 64 bits.
const LENGTH_DIGITS_MAX: usize = 18;
/// Hexadecimal digits of a chunk's size.
const CHUNK_DIGITS_MAX: usize = 15;
/// Bytes of a chunk's line, with its extensions (RFC 9112 7.1.1), which nobody uses but attackers.
const CHUNK_LINE_MAX: usize = 256;

/// What a head may be at most.
#[derive(Clone, Copy, Debug)]
pub struct HeadBounds {
    /// Bytes, with all line ends.
    pub bytes_max: usize,
    /// Fields.
    pub fields_max: usize,
}

/// Why nothing more passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The bytes have no reading, or more than one; which rule they break.
    Malformed(&'static str),
    /// The head has too many bytes or fields.
    TooLarge,
}

impl From<Fault> for Rejection {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Malformed(what) => Self::BadRequest(what),
            Fault::TooLarge => Self::HeadersTooLarge,
        }
    }
}

/// What may be done with the bytes that were scanned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scanned {
    /// So many of them may pass.
    pub pass: usize,
    /// What comes of the rest.
    pub rest: Rest,
}

/// What comes of the bytes that do not pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// There are none.
    Nothing,
    /// They follow a request that asked to change the protocol: they wait until that has been answered, and go to
    /// [`Scanner::not_upgraded`] or past the scanner.
    Held,
    /// They are refused, with all that follows.
    Refused(Fault),
}

/// The state between two reads of one connection.
#[derive(Debug)]
pub struct Scanner {
    bounds: HeadBounds,
    state: State,
    /// The line that has begun but not ended.
    line: Vec<u8>,
    head: Head,
    /// Whether the request under way asks for another protocol.
    asks: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Before a request line, with so many empty lines seen.
    Start(u8),
    Fields,
    Body {
        left: u64,
    },
    ChunkSize,
    ChunkData {
        left: u64,
    },
    /// The line end behind a chunk's data.
    ChunkEnd,
    Trailers,
    /// Behind a request that asked for another protocol.
    Asked,
    Refused(Fault),
}

/// What the fields of the head under way have said so far.
#[derive(Clone, Copy, Debug, Default)]
struct Head {
    bytes: usize,
    fields: usize,
    http_10: bool,
    connect: bool,
    length: Option<u64>,
    chunked: bool,
    upgrade: bool,
}

impl Scanner {
    /// A scanner at the start of a connection.
    pub fn new(bounds: HeadBounds) -> Self {
        Self { bounds, state: State::Start(0), line: Vec::new(), head: Head::default(), asks: false }
    }

    /// Whether a head has begun and not ended.
    pub fn in_head(&self) -> bool {
        match self.state {
            State::Start(empty_lines) => empty_lines > 0 || !self.line.is_empty(),
            State::Fields => true,
            State::Body { .. }
            | State::ChunkSize
            | State::ChunkData { .. }
            | State::ChunkEnd
            | State::Trailers
            | State::Asked
            | State::Refused(_) => false,
        }
    }

    /// The request that asked for another protocol was answered in this one: what follows is a request again.
    pub fn not_upgraded(&mut self) {
        if self.state == State::Asked {
            self.asks = false;
            self.end_of_request();
        }
    }

    /// Looks at the bytes that come next.
    pub fn scan(&mut self, input: &[u8]) -> Scanned {
        let mut rest = input;
        while !rest.is_empty() {
            let taken = match self.state {
                State::Refused(fault) => return Scanned { pass: input.len() - rest.len(), rest: Rest::Refused(fault) },
                State::Asked => return Scanned { pass: input.len() - rest.len(), rest: Rest::Held },
                State::Body { left } => self.body(left, rest.len()),
                State::ChunkData { left } => self.chunk_data(left, rest.len()),
                State::Start(_) | State::Fields | State::ChunkSize | State::ChunkEnd | State::Trailers => {
                    self.lines(rest)
                }
            };
            match taken {
                Ok(taken) => rest = rest.get(taken..).unwrap_or_default(),
                Err(fault) => self.state = State::Refused(fault),
            }
        }
        Scanned { pass: input.len(), rest: Rest::Nothing }
    }

    fn body(&mut self, left: u64, available: usize) -> Result<usize, Fault> {
        let taken = usize::try_from(left).unwrap_or(usize::MAX).min(available);
        let left = left - taken as u64;
        self.state = State::Body { left };
        if left == 0 {
            self.end_of_request();
        }
        Ok(taken)
    }

    fn chunk_data(&mut self, left: u64, available: usize) -> Result<usize, Fault> {
        let taken = usize::try_from(left).unwrap_or(usize::MAX).min(available);
        let left = left - taken as u64;
        self.state = if left == 0 { State::ChunkEnd } else { State::ChunkData { left } };
        Ok(taken)
    }

    /// Takes what there is of one line.
    fn lines(&mut self, input: &[u8]) -> Result<usize, Fault> {
        let end = memchr::memchr(b'\n', input);
        let taken = end.map_or(input.len(), |end| end + 1);
        self.head.bytes = self.head.bytes.saturating_add(taken);
        let bytes_max = match self.state {
            State::ChunkSize | State::ChunkEnd => CHUNK_LINE_MAX,
            _ => self.bounds.bytes_max,
        };
        if self.head.bytes > bytes_max {
            return Err(match self.state {
                State::ChunkSize | State::ChunkEnd => Fault::Malformed("Chunk line is too long"),
                _ => Fault::TooLarge,
            });
        }
        let piece = input.get(..taken).unwrap_or_default();
        if end.is_none() {
            self.line.extend_from_slice(piece);
            return Ok(taken);
        }
        if self.line.is_empty() {
            self.whole_line(piece)?;
        } else {
            let mut line = std::mem::take(&mut self.line);
            line.extend_from_slice(piece);
            self.whole_line(&line)?;
        }
        Ok(taken)
    }

    /// Acts on a line with its end.
    fn whole_line(&mut self, line: &[u8]) -> Result<(), Fault> {
        let line = line.strip_suffix(b"\r\n").ok_or(Fault::Malformed("Line must end with CR LF"))?;
        match self.state {
            State::Start(empty_lines) if line.is_empty() => {
                if empty_lines == EMPTY_LINES_MAX {
                    return Err(Fault::Malformed("Request line is missing"));
                }
                self.state = State::Start(empty_lines + 1);
            }
            State::Start(_) => {
                self.request_line(line)?;
                self.state = State::Fields;
            }
            State::Fields if line.is_empty() => self.end_of_head()?,
            State::Fields => self.field(line)?,
            State::ChunkSize => self.chunk_size(line)?,
            State::ChunkEnd => {
                if !line.is_empty() {
                    return Err(Fault::Malformed("Chunk is longer than its size"));
                }
                self.state = State::ChunkSize;
                self.head.bytes = 0;
            }
            State::Trailers if line.is_empty() => self.end_of_request(),
            State::Trailers => {
                self.count_field()?;
                split_field(line)?;
            }
            State::Body { .. } | State::ChunkData { .. } | State::Asked | State::Refused(_) => {}
        }
        Ok(())
    }

    fn request_line(&mut self, line: &[u8]) -> Result<(), Fault> {
        const MALFORMED: Fault = Fault::Malformed("Request line is malformed");
        let mut parts = line.split(|&byte| byte == b' ');
        let (Some(method), Some(target), Some(version), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(MALFORMED);
        };
        if method.is_empty() || !method.iter().all(|&byte| is_token(byte)) {
            return Err(Fault::Malformed("Method is malformed"));
        }
        if target.is_empty() || !target.iter().all(u8::is_ascii_graphic) {
            return Err(Fault::Malformed("Request target is malformed"));
        }
        if memchr::memchr(b'#', target).is_some() {
            return Err(Fault::Malformed("Request target must not contain a fragment"));
        }
        self.head.http_10 = match version {
            b"HTTP/1.1" => false,
            b"HTTP/1.0" => true,
            _ => return Err(Fault::Malformed("HTTP version is not supported")),
        };
        self.head.connect = method == b"CONNECT";
        Ok(())
    }

    fn field(&mut self, line: &[u8]) -> Result<(), Fault> {
        self.count_field()?;
        let (name, value) = split_field(line)?;
        // By length first: nearly every field differs in it, and is not compared at all.
        match name.len() {
            7 if name.eq_ignore_ascii_case(b"upgrade") => self.head.upgrade = true,
            14 if name.eq_ignore_ascii_case(b"content-length") => self.content_length(value)?,
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => self.transfer_encoding(value)?,
            _ => {}
        }
        Ok(())
    }

    fn count_field(&mut self) -> Result<(), Fault> {
        self.head.fields += 1;
        if self.head.fields > self.bounds.fields_max { Err(Fault::TooLarge) } else { Ok(()) }
    }

    /// RFC 9112 6.3 (5): digits only. A second one is refused even where it says the same: some server would add them up.
    fn content_length(&mut self, value: &[u8]) -> Result<(), Fault> {
        const MALFORMED: Fault = Fault::Malformed("Content-Length is malformed");
        if self.head.length.is_some() {
            return Err(Fault::Malformed("Content-Length is given twice"));
        }
        if value.is_empty() || value.len() > LENGTH_DIGITS_MAX {
            return Err(MALFORMED);
        }
        let digits = value.iter().try_fold(0_u64, |length, &byte| {
            byte.is_ascii_digit().then(|| length * 10 + u64::from(byte - b'0')).ok_or(MALFORMED)
        });
        self.head.length = Some(digits?);
        Ok(())
    }

    fn transfer_encoding(&mut self, value: &[u8]) -> Result<(), Fault> {
        if self.head.chunked {
            return Err(Fault::Malformed("Transfer-Encoding is given twice"));
        }
        if !value.eq_ignore_ascii_case(b"chunked") {
            return Err(Fault::Malformed("Transfer-Encoding must be chunked"));
        }
        self.head.chunked = true;
        Ok(())
    }

    fn end_of_head(&mut self) -> Result<(), Fault> {
        let head = self.head;
        if head.chunked && head.length.is_some() {
            return Err(Fault::Malformed("Transfer-Encoding and Content-Length exclude each other"));
        }
        if head.chunked && head.http_10 {
            return Err(Fault::Malformed("Transfer-Encoding is not for HTTP/1.0"));
        }
        self.asks = head.connect || (head.upgrade && !head.http_10);
        self.head = Head::default();
        match head.length {
            _ if head.chunked => self.state = State::ChunkSize,
            None | Some(0) => self.end_of_request(),
            Some(left) => self.state = State::Body { left },
        }
        Ok(())
    }

    fn chunk_size(&mut self, line: &[u8]) -> Result<(), Fault> {
        const MALFORMED: Fault = Fault::Malformed("Chunk size is malformed");
        let digits = line.iter().position(|byte| !byte.is_ascii_hexdigit()).unwrap_or(line.len());
        let (digits, extension) = line.split_at_checked(digits).ok_or(MALFORMED)?;
        if digits.is_empty() || digits.len() > CHUNK_DIGITS_MAX {
            return Err(MALFORMED);
        }
        let extension_is_sound = extension.is_empty()
            || extension.first() == Some(&b';')
                && extension.iter().all(|&byte| byte == b' ' || byte.is_ascii_graphic());
        if !extension_is_sound {
            return Err(MALFORMED);
        }
        let size = std::str::from_utf8(digits).ok().and_then(|digits| u64::from_str_radix(digits, 16).ok());
        self.head.bytes = 0;
        self.state = match size.ok_or(MALFORMED)? {
            0 => State::Trailers,
            left => State::ChunkData { left },
        };
        Ok(())
    }

    fn end_of_request(&mut self) {
        self.head = Head::default();
        self.state = if self.asks { State::Asked } else { State::Start(0) };
    }
}

/// A field line to its name and its value without surrounding blanks (RFC 9112 5.1).
fn split_field(line: &[u8]) -> Result<(&[u8], &[u8]), Fault> {
    if matches!(line.first(), Some(b' ' | b'\t')) {
        return Err(Fault::Malformed("Field line is folded"));
    }
    let colon = memchr::memchr(b':', line).ok_or(Fault::Malformed("Field line has no colon"))?;
    let (name, value) = line.split_at_checked(colon).unwrap_or_default();
    if name.is_empty() || !name.iter().all(|&byte| is_token(byte)) {
        return Err(Fault::Malformed("Field name is malformed"));
    }
    let value = trim_blanks(value.get(1..).unwrap_or_default());
    if !value.iter().all(|&byte| is_field_byte(byte)) {
        return Err(Fault::Malformed("Field value has a control character"));
    }
    Ok((name, value))
}

/// Without surrounding SP and HTAB, which alone are blanks (RFC 9110 5.6.3).
fn trim_blanks(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// RFC 9110 5.6.2.
const fn is_token(byte: u8) -> bool {
    const TOKEN: [bool; 256] = {
        let mut table = [false; 256];
        let mut byte = 0_u8;
        while byte < 128 {
            table[byte as usize] = byte.is_ascii_alphanumeric()
                || matches!(
                    byte,
                    b'!' | b'#'
                        | b'$'
                        | b'%'
                        | b'&'
                        | b'\''
                        | b'*'
                        | b'+'
                        | b'-'
                        | b'.'
                        | b'^'
                        | b'_'
                        | b'`'
                        | b'|'
                        | b'~'
                );
            byte += 1;
        }
        table
    };
    TOKEN[byte as usize]
}

/// RFC 9110 5.5: visible, blank or obs-text.
const fn is_field_byte(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BOUNDS: HeadBounds = HeadBounds { bytes_max: 200, fields_max: 4 };

    fn scan(input: &[u8]) -> Scanned {
        Scanner::new(BOUNDS).scan(input)
    }

    fn refused(input: &[u8]) -> Option<Fault> {
        match scan(input).rest {
            Rest::Refused(fault) => Some(fault),
            Rest::Nothing | Rest::Held => None,
        }
    }

    #[test]
    fn sound_requests_pass_whole() {
        for (name, input) in [
            ("a head", &b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..]),
            ("HTTP/1.0", b"GET / HTTP/1.0\r\n\r\n"),
            ("an empty line before", b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
            ("a sized body and another request", b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcGET / HTTP/1.1\r\n\r\n"),
            ("a body that looks like a head", b"POST / HTTP/1.1\r\ncontent-length:5\r\n\r\n a\nb\r"),
            (
                "chunks, extensions and trailers",
                b"POST / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n3;a=b\r\nabc\r\nA\r\n0123456789\r\n0\r\nx: y\r\n\r\nGET / HTTP/1.1\r\n\r\n",
            ),
            ("an empty value", b"GET / HTTP/1.1\r\nX:\r\n\r\n"),
            ("obs-text", b"GET / HTTP/1.1\r\nX: \xff\r\n\r\n"),
            ("half a line", b"GET / HT"),
        ] {
            assert_eq!(scan(input), Scanned { pass: input.len(), rest: Rest::Nothing }, "{name}");
        }
    }

    #[test]
    fn what_has_two_readings_is_refused() {
        let chunked = |body: &str| format!("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{body}").into_bytes();
        let field = |line: &str| format!("GET / HTTP/1.1\r\n{line}\r\n\r\n").into_bytes();
        for (name, input) in [
            ("a bare LF in the request line", b"GET / HTTP/1.1\nHost: a\r\n\r\n".to_vec()),
            ("a bare LF in a field", b"GET / HTTP/1.1\r\nHost: a\n\r\n".to_vec()),
            ("a bare CR", field("X: a\rb")),
            ("a NUL", field("X: a\0b")),
            ("two empty lines before", b"\r\n\r\nGET / HTTP/1.1\r\n\r\n".to_vec()),
            ("HTTP/0.9", b"GET /\r\n\r\n".to_vec()),
            ("another version", b"GET / HTTP/1.2\r\n\r\n".to_vec()),
            ("a lower case version", b"GET / http/1.1\r\n\r\n".to_vec()),
            ("two blanks", b"GET  / HTTP/1.1\r\n\r\n".to_vec()),
            ("a tab", b"GET\t/ HTTP/1.1\r\n\r\n".to_vec()),
            ("a blank in the target", b"GET /a b HTTP/1.1\r\n\r\n".to_vec()),
            ("a byte beyond ASCII in the target", b"GET /\xc3\xa4 HTTP/1.1\r\n\r\n".to_vec()),
            ("a fragment", b"GET /a#b HTTP/1.1\r\n\r\n".to_vec()),
            ("a method that is no token", b"G(T / HTTP/1.1\r\n\r\n".to_vec()),
            ("a folded field", field("X: a\r\n b: c")),
            ("a field before any", b"GET / HTTP/1.1\r\n X: a\r\n\r\n".to_vec()),
            ("a blank before the colon", field("Content-Length : 3")),
            ("no colon", field("Content-Length 3")),
            ("no name", field(": a")),
            ("a signed length", field("Content-Length: +3")),
            ("a negative length", field("Content-Length: -3")),
            ("a list of lengths", field("Content-Length: 3, 3")),
            ("two lengths", field("Content-Length: 3\r\nContent-Length: 3")),
            ("a length past 64 bits", field("Content-Length: 18446744073709551617")),
            ("an empty length", field("Content-Length:")),
            ("a hexadecimal length", field("Content-Length: 0x3")),
            ("both framings", field("Content-Length: 3\r\nTransfer-Encoding: chunked")),
            ("both framings the other way", field("Transfer-Encoding: chunked\r\nContent-Length: 3")),
            ("another coding", field("Transfer-Encoding: gzip")),
            ("a coding behind chunked", field("Transfer-Encoding: chunked, identity")),
            ("chunked twice", field("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked")),
            ("a coding that only looks like chunked", field("Transfer-Encoding: \x0bchunked")),
            ("a coding in quotes", field("Transfer-Encoding: \"chunked\"")),
            ("a coding for HTTP/1.0", b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec()),
            ("a chunk size past 64 bits", chunked("10000000000000003\r\nabc\r\n")),
            ("a signed chunk size", chunked("+3\r\nabc\r\n")),
            ("a chunk size with 0x", chunked("0x3\r\nabc\r\n")),
            ("a blank before the chunk size", chunked(" 3\r\nabc\r\n")),
            ("no chunk size", chunked("\r\nabc\r\n")),
            ("a bare LF behind the chunk size", chunked("3\nabc\r\n")),
            ("a bare LF in a chunk extension", chunked("3;a\nabc\r\n")),
            ("a chunk longer than its size", chunked("3\r\nabcd\r\n")),
            ("an extension without end", chunked(&format!("3;{}\r\nabc\r\n", "a".repeat(CHUNK_LINE_MAX)))),
            ("a folded trailer", chunked("0\r\n x: y\r\n\r\n")),
            ("a form feed for a blank", field("Transfer-Encoding:\x0cchunked")),
        ] {
            assert!(matches!(refused(&input), Some(Fault::Malformed(_))), "{name}: {:?}", scan(&input));
        }
    }

    #[test]
    fn the_largest_head_passes_and_one_byte_or_field_more_does_not() {
        let head = |bytes: usize| {
            let frame = b"GET / HTTP/1.1\r\nX: \r\n\r\n".len();
            format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "a".repeat(bytes - frame)).into_bytes()
        };
        assert_eq!(refused(&head(BOUNDS.bytes_max)), None);
        assert_eq!(refused(&head(BOUNDS.bytes_max + 1)), Some(Fault::TooLarge));
        let fields = |count: usize| format!("GET / HTTP/1.1\r\n{}\r\n", "X: a\r\n".repeat(count)).into_bytes();
        assert_eq!(refused(&fields(BOUNDS.fields_max)), None);
        assert_eq!(refused(&fields(BOUNDS.fields_max + 1)), Some(Fault::TooLarge));
        let endless = vec![b'a'; BOUNDS.bytes_max + 1];
        assert_eq!(refused(&endless), Some(Fault::TooLarge));
    }

    #[test]
    fn what_is_behind_an_upgrade_waits_for_the_answer() {
        let head = b"GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n";
        let mut scanner = Scanner::new(BOUNDS);
        let input = [&head[..], b"GET /admin HTTP/1.1\r\n\r\n"].concat();
        assert_eq!(scanner.scan(&input), Scanned { pass: head.len(), rest: Rest::Held });
        scanner.not_upgraded();
        assert_eq!(scanner.scan(b"GET /a#b HTTP/1.1\r\n").pass, 0);
        let with_body = b"POST / HTTP/1.1\r\nUpgrade: h2c\r\nContent-Length: 3\r\n\r\nabc";
        let input = [&with_body[..], b"G"].concat();
        assert_eq!(scan(&input), Scanned { pass: with_body.len(), rest: Rest::Held });
    }

    #[test]
    fn what_came_before_the_fault_passes() {
        let sound = b"GET / HTTP/1.1\r\n\r\n";
        let input = [&sound[..], b"GET / HTTP/1.1\n\n"].concat();
        let scanned = scan(&input);
        assert_eq!(scanned.pass, sound.len());
        assert!(matches!(scanned.rest, Rest::Refused(_)));
    }

    proptest! {
        #[test]
        fn how_the_bytes_are_cut_changes_nothing(
            input in proptest::collection::vec(prop_oneof![
                Just(b"GET / HTTP/1.1\r\n".to_vec()), Just(b"\r\n".to_vec()), Just(b"\n".to_vec()), Just(b"X: a\r\n".to_vec()),
                Just(b"Content-Length: 3\r\n".to_vec()), Just(b"Transfer-Encoding: chunked\r\n".to_vec()), Just(b"3\r\n".to_vec()),
                Just(b"abc".to_vec()), Just(b"0\r\n".to_vec()), proptest::collection::vec(any::<u8>(), 0..4)], 0..12),
            cut in 1_usize..7,
        ) {
            let input = input.concat();
            let whole = scan(&input);
            let mut scanner = Scanner::new(BOUNDS);
            let mut passed = 0;
            let mut rest = Rest::Nothing;
            for piece in input.chunks(cut) {
                let scanned = scanner.scan(piece);
                passed += scanned.pass;
                rest = scanned.rest;
                if rest != Rest::Nothing {
                    break;
                }
            }
            // Cut into pieces, a line may pass in part before its fault is known; never its end.
            prop_assert!(passed >= whole.pass);
            prop_assert_eq!(matches!(rest, Rest::Refused(_)), matches!(whole.rest, Rest::Refused(_)));
            let ends = |bytes: &[u8]| bytes.windows(4).filter(|window| window == b"\r\n\r\n").count();
            if matches!(rest, Rest::Refused(_)) {
                prop_assert!(ends(&input[..passed]) <= ends(&input[..whole.pass]) + 1);
            }
        }
    }
}
