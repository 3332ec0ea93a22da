//! The chunked coding, from bytes (RFC 9112 7.1), and with it every other form of a body. Pure functions.
//!
//! Sizes fit into 64 bits, every line ends in CRLF, extensions are skipped within a bound, trailers are read within one.

use bytes::{Buf, Bytes};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::{Framing, Malformed};

/// Hexadecimal digits of a size, leading zeros among them.
const DIGITS_MAX: u8 = 16;

/// Bytes of all extensions and of the blanks before them: with the digits, 4 KiB a line.
const EXTENSION_BYTES_MAX: u32 = 4 * 1024 - DIGITS_MAX as u32;

/// The fields behind the last chunk, at most.
pub const TRAILER_BYTES_MAX: usize = 16 * 1024;
const TRAILERS_MAX: usize = 100;

/// A chunked body as it is read.
#[derive(Debug)]
pub struct Chunks {
    state: State,
    extension_bytes: u32,
    /// What came behind the last chunk, with the line that ends it.
    trailers: Vec<u8>,
    trailer_bytes_max: usize,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Size { value: u64, digits: u8 },
    Blank(u64),
    Extension(u64),
    SizeEnd(u64),
    Data(u64),
    DataCr,
    DataLf,
    Trailers,
    Ended,
}

/// What comes next in some bytes.
#[derive(Debug, PartialEq, Eq)]
enum Unit {
    /// Nothing; all of them are taken.
    More,
    /// `length` bytes of content at `at`.
    Data { at: usize, length: usize },
    /// The end, behind so many bytes.
    End(usize),
}

impl Chunks {
    /// Trailers may have [`TRAILER_BYTES_MAX`], or less.
    const fn new(trailer_bytes_max: usize) -> Self {
        let state = State::Size { value: 0, digits: 0 };
        Self { state, extension_bytes: 0, trailers: Vec::new(), trailer_bytes_max }
    }

    fn next(&mut self, input: &[u8]) -> Result<Unit, Malformed> {
        let mut at = 0;
        while let Some(&byte) = input.get(at) {
            if let State::Data(left) = self.state {
                let room = input.len() - at;
                let length = usize::try_from(left).map_or(room, |left| left.min(room));
                let left = left - length as u64;
                self.state = if left == 0 { State::DataCr } else { State::Data(left) };
                return Ok(Unit::Data { at, length });
            }
            at += 1;
            self.state = self.take(byte)?;
            if matches!(self.state, State::Ended) {
                return Ok(Unit::End(at));
            }
        }
        Ok(Unit::More)
    }

    fn take(&mut self, byte: u8) -> Result<State, Malformed> {
        match (self.state, byte) {
            (State::Size { value, digits }, _) if byte.is_ascii_hexdigit() && digits < DIGITS_MAX => {
                let digit = char::from(byte).to_digit(16).ok_or(Malformed::Chunk)?;
                Ok(State::Size { value: value << 4 | u64::from(digit), digits: digits + 1 })
            }
            (State::Size { value, digits: 1.. } | State::Blank(value) | State::Extension(value), b'\r') => {
                Ok(State::SizeEnd(value))
            }
            (State::Size { value, digits: 1.. } | State::Blank(value), b'\t' | b' ' | b';') => {
                self.extend()?;
                Ok(if byte == b';' { State::Extension(value) } else { State::Blank(value) })
            }
            (State::Extension(value), b'\t' | b' '..=b'~' | 0x80..) => {
                self.extend()?;
                Ok(State::Extension(value))
            }
            (State::SizeEnd(0), b'\n') => Ok(State::Trailers),
            (State::SizeEnd(size), b'\n') => Ok(State::Data(size)),
            (State::DataCr, b'\r') => Ok(State::DataLf),
            (State::DataLf, b'\n') => Ok(State::Size { value: 0, digits: 0 }),
            (State::Trailers, _) => self.take_trailer(byte),
            (
                State::Size { .. }
                | State::Blank(_)
                | State::Extension(_)
                | State::SizeEnd(_)
                | State::Data(_)
                | State::DataCr
                | State::DataLf
                | State::Ended,
                _,
            ) => Err(Malformed::Chunk),
        }
    }

    const fn extend(&mut self) -> Result<(), Malformed> {
        self.extension_bytes += 1;
        if self.extension_bytes > EXTENSION_BYTES_MAX { Err(Malformed::Chunk) } else { Ok(()) }
    }

    fn take_trailer(&mut self, byte: u8) -> Result<State, Malformed> {
        if self.trailers.len() >= self.trailer_bytes_max || (byte == b'\n' && self.trailers.last() != Some(&b'\r')) {
            return Err(Malformed::Trailers);
        }
        self.trailers.push(byte);
        let ended = self.trailers == b"\r\n" || self.trailers.ends_with(b"\r\n\r\n");
        Ok(if ended { State::Ended } else { State::Trailers })
    }

    /// The fields behind the last chunk, where there are any.
    fn trailers(&self) -> Result<Option<HeaderMap>, Malformed> {
        if self.trailers == b"\r\n" {
            return Ok(None);
        }
        let mut slots = [httparse::EMPTY_HEADER; TRAILERS_MAX];
        let Ok(httparse::Status::Complete((_, fields))) = httparse::parse_headers(&self.trailers, &mut slots) else {
            return Err(Malformed::Trailers);
        };
        let mut trailers = HeaderMap::with_capacity(fields.len());
        for field in fields {
            let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| Malformed::Trailers)?;
            let value = HeaderValue::from_bytes(field.value).map_err(|_| Malformed::Trailers)?;
            trailers.try_append(name, value).map_err(|_| Malformed::Trailers)?;
        }
        Ok(Some(trailers))
    }
}

/// A body that has wholly come with its head, taken off `rest`; `None` where it has not, or has trailers.
pub(crate) fn whole(framing: Framing, rest: &mut Bytes) -> Option<Bytes> {
    match framing {
        Framing::Empty => Some(Bytes::new()),
        Framing::Length(length) => {
            let length = usize::try_from(length).ok().filter(|&length| length <= rest.len())?;
            Some(rest.split_to(length))
        }
        Framing::Chunked => {
            let (content, used) = whole_chunks(rest)?;
            *rest = rest.slice(used..);
            Some(content.into())
        }
        Framing::Close => None,
    }
}

/// The content of a chunked body that is wholly here and has no trailers, and the bytes it takes.
pub fn whole_chunks(input: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (mut chunks, mut content, mut used) = (Chunks::new(TRAILER_BYTES_MAX), Vec::new(), 0);
    loop {
        let rest = input.get(used..)?;
        match chunks.next(rest).ok()? {
            Unit::More => return None,
            Unit::Data { at, length } => {
                content.extend_from_slice(rest.get(at..at + length)?);
                used += at + length;
            }
            Unit::End(bytes) => return (chunks.trailers == b"\r\n").then_some((content, used + bytes)),
        }
    }
}

/// What is left of a body.
#[derive(Debug)]
pub enum Decoder {
    /// So many bytes.
    Length(u64),
    /// Chunks.
    Chunked(Chunks),
    /// All until the connection ends.
    Close,
}

/// What came of a body.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece {
    /// Nothing more is at hand.
    More,
    /// Content.
    Data(Bytes),
    /// The end, with trailers.
    Trailers(HeaderMap),
    /// The end.
    End,
}

impl Decoder {
    /// `None` where there is no body.
    pub const fn new(framing: Framing, trailer_bytes_max: usize) -> Option<Self> {
        match framing {
            Framing::Empty => None,
            Framing::Length(length) => Some(Self::Length(length)),
            Framing::Chunked => Some(Self::Chunked(Chunks::new(trailer_bytes_max))),
            Framing::Close => Some(Self::Close),
        }
    }

    /// Takes from what is at hand.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn next(&mut self, at_hand: &mut Bytes) -> Result<Piece, Malformed> {
        match self {
            Self::Length(0) => Ok(Piece::End),
            Self::Length(_) | Self::Close if at_hand.is_empty() => Ok(Piece::More),
            Self::Length(left) => {
                let length = usize::try_from(*left).map_or(at_hand.len(), |left| left.min(at_hand.len()));
                *left -= length as u64;
                Ok(Piece::Data(at_hand.split_to(length)))
            }
            Self::Close => Ok(Piece::Data(std::mem::take(at_hand))),
            Self::Chunked(chunks) => match chunks.next(at_hand)? {
                Unit::More => {
                    *at_hand = Bytes::new();
                    Ok(Piece::More)
                }
                Unit::Data { at, length } => {
                    at_hand.advance(at);
                    Ok(Piece::Data(at_hand.split_to(length)))
                }
                Unit::End(used) => {
                    at_hand.advance(used);
                    Ok(chunks.trailers()?.map_or(Piece::End, Piece::Trailers))
                }
            },
        }
    }

    /// Whether all of it has come, though nobody was told so.
    pub(crate) const fn has_ended(&self) -> bool {
        matches!(self, Self::Length(0))
    }

    /// Whether the end of the connection is the end of the body.
    pub(crate) const fn ends_with_connection(&self) -> bool {
        matches!(self, Self::Close)
    }

    /// Bytes that are left, where that is known.
    pub(crate) const fn left(&self) -> Option<u64> {
        match self {
            Self::Length(left) => Some(*left),
            Self::Chunked(_) | Self::Close => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Everything that was said, one piece after the other: content, trailers, what is left, or the fault.
    fn read(pieces: &[&[u8]]) -> String {
        let mut decoder = Decoder::new(Framing::Chunked, TRAILER_BYTES_MAX).unwrap();
        let mut content = String::new();
        for (index, piece) in pieces.iter().enumerate() {
            let mut at_hand = Bytes::copy_from_slice(piece);
            loop {
                match decoder.next(&mut at_hand) {
                    Err(malformed) => return format!("{content} {malformed:?}"),
                    Ok(Piece::More) => break,
                    Ok(Piece::Data(data)) => content += &String::from_utf8_lossy(&data),
                    Ok(end @ (Piece::Trailers(_) | Piece::End)) => {
                        let fields = if let Piece::Trailers(fields) = end { fields.len() } else { 0 };
                        let left = at_hand.len() + pieces[index + 1..].iter().map(|piece| piece.len()).sum::<usize>();
                        return format!("{content} {fields} +{left}");
                    }
                }
            }
        }
        format!("{content} More")
    }

    #[test]
    fn chunks_are_read_however_they_come_and_nothing_else_is() {
        let long = |text: &str, count: usize| text.repeat(count);
        let cases: Vec<(&str, String, &str)> = vec![
            ("one chunk", "2\r\nok\r\n0\r\n\r\n".into(), "ok 0 +0"),
            ("two", "2\r\nok\r\n3\r\nyes\r\n0\r\n\r\n".into(), "okyes 0 +0"),
            ("none", "0\r\n\r\n".into(), " 0 +0"),
            ("hexadecimal", "00A\r\n0123456789\r\n000\r\n\r\n".into(), "0123456789 0 +0"),
            ("something behind", "2\r\nok\r\n0\r\n\r\nHTTP".into(), "ok 0 +4"),
            ("an extension", "2;a=\"b\";c\r\nok\r\n0;x\r\n\r\n".into(), "ok 0 +0"),
            ("blanks behind the size", "2 \t\r\nok\r\n0 ;x\r\n\r\n".into(), "ok 0 +0"),
            ("trailers", "2\r\nok\r\n0\r\nX-A: b\r\nX-B: c\r\n\r\n".into(), "ok 2 +0"),
            ("the beginning", "5\r\nab".into(), "ab More"),
            ("no end", "2\r\nok\r\n".into(), "ok More"),
            ("half an end", "2\r\nok\r\n0\r\n".into(), "ok More"),
            ("the largest size", "ffffffffffffffff\r\nok".into(), "ok More"),
            ("a larger one", "10000000000000000\r\nok".into(), " Chunk"),
            ("zeros without an end", "00000000000000002\r\nok".into(), " Chunk"),
            ("no size", "\r\nok".into(), " Chunk"),
            ("an extension alone", ";a\r\nok".into(), " Chunk"),
            ("a blank before the size", " 2\r\nok".into(), " Chunk"),
            ("a sign", "+2\r\nok".into(), " Chunk"),
            ("0x", "0x2\r\nok".into(), " Chunk"),
            ("two sizes", "2 2\r\nok".into(), " Chunk"),
            ("a bare line feed", "2\nok\r\n".into(), " Chunk"),
            ("a bare line feed in an extension", "2;a\nok\r\n".into(), " Chunk"),
            ("a bare carriage return", "2\rok\r\n".into(), " Chunk"),
            ("a NUL in an extension", "2;\0\r\nok\r\n".into(), " Chunk"),
            ("more than the size says", "2\r\nokk\r\n0\r\n\r\n".into(), "ok Chunk"),
            ("less than the size says", "3\r\nok\r\n0\r\n\r\n".into(), "ok\r Chunk"),
            ("a line feed behind the data", "2\r\nok\n0\r\n\r\n".into(), "ok Chunk"),
            ("a folded trailer", "0\r\nX-A: b\r\n c\r\n\r\n".into(), " Trailers"),
            ("a bare line feed in a trailer", "0\r\nX-A: b\nX-B: c\r\n\r\n".into(), " Trailers"),
            ("a bare line feed for the end", "0\r\n\n".into(), " Trailers"),
            ("a bare carriage return in a trailer", "0\r\nX-A: b\rc\r\n\r\n".into(), " Trailers"),
            ("a response for a trailer", "0\r\nHTTP/1.1 200 OK\r\n\r\n".into(), " Trailers"),
            ("extensions up to the bound", format!("2;{}\r\nok\r\n0\r\n\r\n", long("x", 4080 - 1)), "ok 0 +0"),
            ("and beyond", format!("2;{}\r\nok\r\n0\r\n\r\n", long("x", 4080)), " Chunk"),
            ("trailers beyond the bound", format!("0\r\nX-A: {}\r\n\r\n", long("x", 16 * 1024)), " Trailers"),
            ("many trailers", format!("0\r\n{}\r\n", long("X-A: b\r\n", 100)), " 100 +0"),
            ("too many trailers", format!("0\r\n{}\r\n", long("X-A: b\r\n", 101)), " Trailers"),
        ];
        for (name, said, expected) in cases {
            let said = said.as_bytes();
            assert_eq!(read(&[said]), expected, "{name}");
            let bytes: Vec<&[u8]> = said.chunks(1).collect();
            assert_eq!(read(&bytes), expected, "{name}, byte by byte");
            for at in 0..said.len().min(64) {
                let (one, two) = said.split_at(at);
                assert_eq!(read(&[one, two]), expected, "{name}, cut at {at}");
            }
        }
    }

    #[test]
    fn what_is_whole_is_told_from_what_is_not() {
        for (said, expected) in [
            ("2\r\nok\r\n1\r\n!\r\n0\r\n\r\n", Some(("ok!", 18))),
            ("2\r\nok\r\n0\r\n\r\nHTTP", Some(("ok", 12))),
            ("2\r\nok\r\n0\r\n", None),
            ("2\r\nok\r\n0\r\nX-A: b\r\n\r\n", None),
            ("zz\r\n", None),
            ("", None),
        ] {
            let expected = expected.map(|(content, used): (&str, usize)| (content.as_bytes().to_vec(), used));
            assert_eq!(whole_chunks(said.as_bytes()), expected, "{said:?}");
        }
    }

    #[test]
    fn a_length_is_kept_to() {
        let mut decoder = Decoder::new(Framing::Length(3), TRAILER_BYTES_MAX).unwrap();
        let mut at_hand = Bytes::from_static(b"ab");
        assert_eq!(decoder.next(&mut at_hand), Ok(Piece::Data("ab".into())));
        assert_eq!(decoder.next(&mut at_hand), Ok(Piece::More));
        assert!(!decoder.has_ended());
        at_hand = Bytes::from_static(b"cHTTP");
        assert_eq!(decoder.next(&mut at_hand), Ok(Piece::Data("c".into())));
        assert!(decoder.has_ended());
        assert_eq!(decoder.next(&mut at_hand), Ok(Piece::End));
        assert_eq!(at_hand, "HTTP");
    }
}
