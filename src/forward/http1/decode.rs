//! A response's head, from bytes (RFC 9112 4-6). A pure function; it decides where the response ends.
//!
//! Stricter than it must be wherever a lenient reader beside us could take something else for the end: one length, one
//! coding, never both, every line with its carriage return, no folded lines.

use std::mem::MaybeUninit;

use bytes::Bytes;
use http::{Method, Response, StatusCode, Version, response};
use hyper::ext::ReasonPhrase;

use super::Malformed;
use crate::wire::http1::Framing;
use crate::wire::http1::encode::CRLF;
use crate::wire::http1::fields::{self, elements, number};
use crate::wire::http1::lines::Lines;

/// Fields of a head that are read without more room being made.
const FIELDS_USUAL: usize = 100;

/// Fields of a head, at most.
const FIELDS_MAX: usize = 1000;

/// What bytes come to.
#[expect(clippy::large_enum_variant, reason = "there is one at a time, and a box would cost more than a copy")]
pub enum Step {
    /// They are the beginning of a head.
    More,
    /// An interim response of so many bytes.
    Interim(usize),
    /// The response's head.
    Head(Head),
}

/// A response's head.
pub struct Head {
    /// Status and fields.
    pub parts: response::Parts,
    /// Where its body ends.
    pub framing: Framing,
    /// The fields instead of those in `parts`, where they may be handed on as they are and all of the body is in `rest`.
    pub lines: Option<Lines>,
    /// Whether the server leaves the connection open.
    pub keep_alive: bool,
    /// What came behind it.
    pub rest: Bytes,
}

/// What becomes of the fields of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fields {
    /// They are looked at.
    Map,
    /// They are handed on as they are, where all of the response is there: a map would be made to be written again.
    AsTheyAre,
}

/// What the fields say of the connection and of the end.
#[derive(Default)]
#[expect(clippy::struct_excessive_bools, reason = "what a server may say, each by itself")]
struct Said {
    length: Option<u64>,
    chunked: bool,
    close: bool,
    keep_alive: bool,
    /// `Connection` names something else.
    more: bool,
    dated: bool,
}

/// Reads the head of a response to a request of `method`.
///
/// # Errors
/// What is wrong with it.
pub fn head(bytes: &[u8], method: &Method, fields: Fields) -> Result<Step, Malformed> {
    // empty lines before it, which may be left from something else, are not skipped
    if bytes.first().is_some_and(|&first| first != b'H') {
        return Err(Malformed::Head);
    }
    let mut slots = [const { MaybeUninit::uninit() }; FIELDS_USUAL];
    match parse(bytes, &mut slots, method, fields) {
        Err(httparse::Error::TooManyHeaders) => {
            let mut slots = vec![MaybeUninit::uninit(); FIELDS_MAX];
            parse(bytes, &mut slots, method, fields).unwrap_or(Err(Malformed::TooLarge))
        }
        Err(_) => Err(Malformed::Head),
        Ok(step) => step,
    }
}

fn parse<'b>(
    bytes: &'b [u8],
    slots: &mut [MaybeUninit<httparse::Header<'b>>],
    method: &Method,
    fields: Fields,
) -> Result<Result<Step, Malformed>, httparse::Error> {
    let mut parsed = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    Ok(match config.parse_response_with_uninit_headers(&mut parsed, bytes, slots)? {
        httparse::Status::Partial => Ok(Step::More),
        httparse::Status::Complete(length) => complete(bytes, length, &parsed, method, fields),
    })
}

fn complete(
    bytes: &[u8],
    length: usize,
    parsed: &httparse::Response<'_, '_>,
    method: &Method,
    wanted: Fields,
) -> Result<Step, Malformed> {
    if fields::has_bare_line_feed(bytes.get(..length).unwrap_or_default()) {
        return Err(Malformed::BareLineFeed);
    }
    let status = parsed.code.and_then(|code| StatusCode::from_u16(code).ok()).ok_or(Malformed::Head)?;
    if status == StatusCode::SWITCHING_PROTOCOLS {
        return Err(Malformed::Upgrade);
    }
    if status.is_informational() {
        return Ok(Step::Interim(length));
    }
    let mut said = Said::default();
    parsed.headers.iter().try_for_each(|field| said.hear(field.name.as_bytes(), field.value))?;
    let old = parsed.version == Some(0);
    if said.chunked && said.length.is_some() {
        return Err(Malformed::BothFramings);
    }
    if said.chunked && old {
        return Err(Malformed::Coding);
    }
    let framing = said.framing(status, method);
    let (mut parts, ()) = Response::new(()).into_parts();
    let whole = *method != Method::HEAD
        && !matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
        && said.length.is_some_and(|content| content <= (bytes.len() - length) as u64);
    // one copy, which the fields and a body that came along share
    let (lines, rest) = if whole && !said.more && wanted == Fields::AsTheyAre {
        let (text, rest) = lines(parsed.headers, bytes, length);
        (Some(Lines::new(text, said.dated)), rest)
    } else {
        let shared = Bytes::copy_from_slice(bytes);
        parts.headers = fields::map(parsed.headers, bytes, &shared, |_, _| Ok::<(), Malformed>(()))?;
        (None, shared.slice(length..))
    };
    parts.status = status;
    parts.version = if old { Version::HTTP_10 } else { Version::HTTP_11 };
    if parsed.reason != status.canonical_reason() {
        let reason = parsed.reason.unwrap_or_default().as_bytes();
        parts.extensions.insert(ReasonPhrase::try_from(reason).map_err(|_| Malformed::Head)?);
    }
    // a body that is announced where there can be none might come all the same
    let doubtful = status == StatusCode::NO_CONTENT && (said.chunked || said.length.is_some_and(|length| length > 0));
    let ends_it = framing == Framing::Close || doubtful;
    let keep_alive = if old { said.keep_alive && !said.close } else { !said.close } && !ends_it;
    Ok(Step::Head(Head { parts, framing, lines, keep_alive, rest }))
}

/// The lines of the fields that pass, and what stands behind the head, which ends before `end`.
fn lines(parsed: &[httparse::Header<'_>], bytes: &[u8], end: usize) -> (Bytes, Bytes) {
    let place = |field: &httparse::Header<'_>| field.name.as_ptr().addr() - bytes.as_ptr().addr();
    let mut kept = Vec::with_capacity(bytes.len());
    // each run of lines that pass is copied at once
    let mut run: Option<usize> = None;
    let mut keep = |from: Option<usize>, to: usize| {
        kept.extend_from_slice(from.and_then(|from| bytes.get(from..to)).unwrap_or_default());
    };
    for field in parsed {
        if passes(field.name.as_bytes()) {
            run.get_or_insert(place(field));
        } else {
            keep(run.take(), place(field));
        }
    }
    keep(run, end - CRLF.len());
    let length = kept.len();
    kept.extend_from_slice(bytes.get(end..).unwrap_or_default());
    let mut kept = Bytes::from(kept);
    (kept.split_to(length), kept)
}

/// Whether a field of a response is handed on as it is: none that is of one hop, frames, or is said by the gateway.
fn passes(name: &[u8]) -> bool {
    // asked of every field: few names are as long as one of these
    let others: &[&str] = match name.len() {
        2 => &["te"],
        7 => &["trailer", "upgrade"],
        10 => &["connection", "keep-alive"],
        12 => &["x-request-id"],
        14 => &["content-length", "http2-settings"],
        16 => &["proxy-connection"],
        17 => &["transfer-encoding"],
        18 => &["proxy-authenticate"],
        19 => &["proxy-authorization"],
        _ => &[],
    };
    !others.iter().any(|other| name.eq_ignore_ascii_case(other.as_bytes()))
}

impl Said {
    fn hear(&mut self, name: &[u8], value: &[u8]) -> Result<(), Malformed> {
        if name.eq_ignore_ascii_case(b"content-length") {
            // a list of one number said again is what some servers make of two fields (RFC 9110 8.6)
            for said in elements(value) {
                let length = number(said).ok_or(Malformed::Length)?;
                if self.length.replace(length).is_some_and(|other| other != length) {
                    return Err(Malformed::Length);
                }
            }
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                return Err(Malformed::Coding);
            }
            self.chunked = true;
        } else if name.eq_ignore_ascii_case(b"connection") {
            for option in elements(value) {
                if option.eq_ignore_ascii_case(b"close") {
                    self.close = true;
                } else if option.eq_ignore_ascii_case(b"keep-alive") {
                    self.keep_alive = true;
                } else {
                    self.more = true;
                }
            }
        } else if name.eq_ignore_ascii_case(b"date") {
            self.dated = true;
        }
        Ok(())
    }

    fn framing(&self, status: StatusCode, method: &Method) -> Framing {
        if *method == Method::HEAD || status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED {
            return Framing::Empty;
        }
        match self.length {
            Some(0) => Framing::Empty,
            Some(length) => Framing::Length(length),
            None if self.chunked => Framing::Chunked,
            None => Framing::Close,
        }
    }
}

#[cfg(test)]
mod tests {
    use http::header::{CONNECTION, CONTENT_LENGTH, DATE};
    use proptest::prelude::*;

    use super::*;
    use crate::wire::fields::strip_hop_by_hop;
    use crate::wire::forwarded::X_REQUEST_ID;

    fn show(said: &str, method: &Method) -> String {
        match head(said.as_bytes(), method, Fields::Map) {
            Err(malformed) => format!("{malformed:?}"),
            Ok(Step::More) => "More".to_owned(),
            Ok(Step::Interim(length)) => format!("Interim {length}"),
            Ok(Step::Head(head)) => {
                let kept = if head.keep_alive { " kept" } else { "" };
                format!("{} {:?}{kept} +{}", head.parts.status.as_u16(), head.framing, head.rest.len())
            }
        }
    }

    #[test]
    fn a_heads_end_and_the_responses_are_found() {
        for (name, said, expected) in [
            ("a length", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "200 Length(2) kept +2"),
            ("no length", "HTTP/1.1 200 OK\r\n\r\n", "200 Close +0"),
            ("a length of nothing", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "200 Empty kept +0"),
            (
                "the largest length",
                "HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551615\r\n\r\n",
                "200 Length(18446744073709551615) kept +0",
            ),
            ("one more", "HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551616\r\n\r\n", "Length"),
            (
                "the same length again",
                "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n",
                "200 Length(2) kept +0",
            ),
            ("the same in a list", "HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\n", "200 Length(2) kept +0"),
            ("another length", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n", "Length"),
            ("another in a list", "HTTP/1.1 200 OK\r\nContent-Length: 2, 3\r\n\r\n", "Length"),
            ("a signed length", "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\n", "Length"),
            ("a negative length", "HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\n", "Length"),
            ("a hexadecimal length", "HTTP/1.1 200 OK\r\nContent-Length: 0x2\r\n\r\n", "Length"),
            ("two numbers", "HTTP/1.1 200 OK\r\nContent-Length: 2 2\r\n\r\n", "Length"),
            ("a length of no digit", "HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n", "Length"),
            ("a comma behind", "HTTP/1.1 200 OK\r\nContent-Length: 2,\r\n\r\n", "Length"),
            ("chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n", "200 Chunked kept +0"),
            (
                "chunks twice",
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
                "Coding",
            ),
            ("a list of codings", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", "Coding"),
            ("another coding", "HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n", "Coding"),
            ("identity", "HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\nContent-Length: 2\r\n\r\n", "Coding"),
            ("a coding of no name", "HTTP/1.1 200 OK\r\nTransfer-Encoding:\r\n\r\n", "Coding"),
            ("a coding behind a vertical tab", "HTTP/1.1 200 OK\r\nTransfer-Encoding: \x0bchunked\r\n\r\n", "Head"),
            ("a coding over HTTP/1.0", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "Coding"),
            ("both", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n", "BothFramings"),
            (
                "both, turned",
                "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
                "BothFramings",
            ),
            ("no content", "HTTP/1.1 204 No Content\r\n\r\n", "204 Empty kept +0"),
            ("no content with a length", "HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\n", "204 Empty +0"),
            ("not modified", "HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\n", "304 Empty kept +0"),
            ("close", "HTTP/1.1 200 OK\r\nConnection: x, CLOSE\r\nContent-Length: 0\r\n\r\n", "200 Empty +0"),
            ("an old server", "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n", "200 Length(2) +0"),
            (
                "one that keeps",
                "HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 2\r\n\r\n",
                "200 Length(2) kept +0",
            ),
            ("an interim response", "HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP", "Interim 37"),
            ("an upgrade", "HTTP/1.1 101 Switching Protocols\r\n\r\n", "Upgrade"),
            ("no reason", "HTTP/1.1 299\r\nContent-Length: 0\r\n\r\n", "299 Empty kept +0"),
            ("the beginning of one", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n", "More"),
            ("nothing", "", "More"),
            ("a line of nothing before", "\r\nHTTP/1.1 200 OK\r\n\r\n", "Head"),
            ("another protocol", "SSH-2.0-x\r\n", "Head"),
            ("one of ours in its tongue", "HTTX/1.1 200 OK\r\n\r\n", "Head"),
            ("another version", "HTTP/2.0 200 OK\r\n\r\n", "Head"),
            ("a status of two digits", "HTTP/1.1 20 OK\r\n\r\n", "Head"),
            ("a status below all", "HTTP/1.1 099 OK\r\n\r\n", "Head"),
            ("a status with a letter", "HTTP/1.1 2x0 OK\r\n\r\n", "Head"),
            ("a folded line", "HTTP/1.1 200 OK\r\nX-A: b\r\n c\r\n\r\n", "Head"),
            ("a blank before the colon", "HTTP/1.1 200 OK\r\nX-A : b\r\n\r\n", "Head"),
            ("a blank before the name", "HTTP/1.1 200 OK\r\n X-A: b\r\n\r\n", "Head"),
            ("a field without a colon", "HTTP/1.1 200 OK\r\nX-A\r\n\r\n", "Head"),
            ("a field without a name", "HTTP/1.1 200 OK\r\n: b\r\n\r\n", "Head"),
            ("a bare carriage return", "HTTP/1.1 200 OK\r\nX-A: b\rX-B: c\r\n\r\n", "Head"),
            ("a bare line feed", "HTTP/1.1 200 OK\r\nX-A: b\nX-B: c\r\n\r\n", "BareLineFeed"),
            ("line feeds alone", "HTTP/1.1 200 OK\nContent-Length: 0\n\n", "BareLineFeed"),
            ("a NUL", "HTTP/1.1 200 OK\r\nX-A: b\0c\r\n\r\n", "Head"),
        ] {
            assert_eq!(show(said, &Method::GET), expected, "{name}");
        }
    }

    #[test]
    fn a_head_has_no_body_and_is_read_as_strictly() {
        for (name, said, expected) in [
            ("a length", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", "200 Empty kept +0"),
            ("chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "200 Empty kept +0"),
            ("neither", "HTTP/1.1 200 OK\r\n\r\n", "200 Empty kept +0"),
            ("two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\nContent-Length: 8\r\n\r\n", "Length"),
        ] {
            assert_eq!(show(said, &Method::HEAD), expected, "{name}");
        }
    }

    #[test]
    fn fields_come_as_they_were_said() {
        let said =
            "HTTP/1.1 200 Fine\r\nX-Empty:\r\nSet-Cookie: a=1\r\nX-Wide: \t b c \t\r\nset-cookie: b=2\r\n\r\nrest";
        let Ok(Step::Head(head)) = head(said.as_bytes(), &Method::GET, Fields::Map) else { panic!() };
        let fields: Vec<(&str, &[u8])> =
            head.parts.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        assert_eq!(fields, [("x-empty", &b""[..]), ("set-cookie", b"a=1"), ("set-cookie", b"b=2"), ("x-wide", b"b c")]);
        assert_eq!(head.parts.extensions.get::<ReasonPhrase>().unwrap().as_bytes(), b"Fine");
        assert_eq!(head.rest, "rest");
    }

    /// What a caller is told by lines: each field's name and value, by name.
    fn fields_of(lines: &[u8]) -> Vec<(String, Vec<u8>)> {
        let mut slots = [httparse::EMPTY_HEADER; 64];
        let whole = [lines, b"\r\n"].concat();
        let Ok(httparse::Status::Complete((length, fields))) = httparse::parse_headers(&whole, &mut slots) else {
            panic!("{:?}", String::from_utf8_lossy(lines))
        };
        assert_eq!(length, whole.len());
        sorted(fields.iter().map(|field| (field.name.to_ascii_lowercase(), field.value.to_vec())))
    }

    fn sorted(fields: impl Iterator<Item = (String, Vec<u8>)>) -> Vec<(String, Vec<u8>)> {
        let mut fields: Vec<_> = fields.collect();
        // not the values: those of one name keep their order
        fields.sort_by(|(one, _), (other, _)| one.cmp(other));
        fields
    }

    #[test]
    fn fields_are_handed_on_as_they_are_where_all_of_the_response_is_there() {
        for (name, said, expected) in [
            ("whole", "Server: s\r\nContent-Length: 2\r\nX-A:b \r\n\r\nok", Some(("Server: s\r\nX-A:b \r\n", false))),
            ("nothing", "Content-Length: 0\r\n\r\n", Some(("", false))),
            ("dated", "DATE: d\r\nContent-Length: 2\r\n\r\nok", Some(("DATE: d\r\n", true))),
            (
                "of one hop, or ours",
                "Keep-Alive: timeout=5\r\nConnection: keep-alive\r\nX: 1\r\nY: 2\r\nx-request-ID: 3\r\nTE: x\r\n\
                 Upgrade: x\r\nTrailer: x\r\nContent-Length: 2\r\nZ: 3\r\n\r\nok",
                Some(("X: 1\r\nY: 2\r\nZ: 3\r\n", false)),
            ),
            ("a field that the hop names", "Connection: x\r\nX: 1\r\nContent-Length: 2\r\n\r\nok", None),
            ("the body's beginning", "Content-Length: 3\r\n\r\nok", None),
            ("chunks", "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", None),
            ("no length", "Server: s\r\n\r\n", None),
        ] {
            let said = format!("HTTP/1.1 200 OK\r\n{said}");
            let Ok(Step::Head(found)) = head(said.as_bytes(), &Method::GET, Fields::AsTheyAre) else {
                panic!("{name}")
            };
            let lines = found.lines.as_ref().map(|lines| (str::from_utf8(&lines.text).unwrap(), lines.dated));
            assert_eq!(lines, expected, "{name}");
            assert_eq!(lines.is_some(), found.parts.headers.is_empty(), "{name}");
            assert!(said.as_bytes().ends_with(&found.rest), "{name}");
        }
        for (status, method) in
            [("204 No Content", Method::GET), ("304 Not Modified", Method::GET), ("200 OK", Method::HEAD)]
        {
            let said = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
            let Ok(Step::Head(found)) = head(said.as_bytes(), &method, Fields::AsTheyAre) else { panic!("{status}") };
            assert_eq!(found.lines, None, "{status}");
        }
    }

    proptest! {
        #[test]
        fn fields_say_the_same_as_they_are_and_looked_at(
            fields in proptest::collection::vec((
                prop_oneof![
                    Just("Date"), Just("connection"), Just("Keep-Alive"), Just("TE"), Just("trailer"), Just("Set-Cookie"),
                    Just("X-Request-Id"), Just("x-a"), Just("Upgrade"), Just("Proxy-Connection"), Just("Proxy-Authenticate"),
                    Just("Proxy-Authorization"), Just("http2-settings"), Just("x-request-ip"), Just("Transfer-Encodings")
                ],
                prop_oneof![Just(":"), Just(": "), Just(":\t ")],
                prop_oneof![Just("close"), Just("keep-alive"), Just("x-a"), Just(""), Just("a b"), Just("\u{e4}")],
                prop_oneof![Just(""), Just(" "), Just("\t")],
            ), 0..8),
            at in 0..8_usize,
        ) {
            let mut lines: Vec<String> =
                fields.iter().map(|(name, colon, value, blank)| format!("{name}{colon}{value}{blank}\r\n")).collect();
            lines.insert(at.min(lines.len()), "Content-Length: 2\r\n".to_owned());
            let said = format!("HTTP/1.1 200 OK\r\n{}\r\nok", lines.concat());
            let [one, other] = [Fields::AsTheyAre, Fields::Map].map(|fields| {
                let Ok(Step::Head(found)) = head(said.as_bytes(), &Method::GET, fields) else { panic!("{said}") };
                found
            });
            prop_assert_eq!(one.keep_alive, other.keep_alive);
            prop_assert_eq!(&one.rest, "ok");
            let mut headers = other.parts.headers;
            prop_assert_eq!(one.lines.is_some(), headers.get_all(CONNECTION).iter().all(|value| {
                elements(value.as_bytes()).all(|option| matches!(option, b"close" | b"keep-alive"))
            }));
            let Some(lines) = one.lines else { return Ok(()) };
            prop_assert_eq!(lines.dated, headers.contains_key(DATE));
            // as a map of them is rewritten for the caller
            strip_hop_by_hop(&mut headers);
            headers.remove(CONTENT_LENGTH);
            headers.remove(&X_REQUEST_ID);
            let expected = headers.iter().map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec()));
            prop_assert_eq!(fields_of(&lines.text), sorted(expected));
        }
    }

    #[test]
    fn as_many_fields_pass_as_there_may_be() {
        for (count, expected) in [
            (FIELDS_USUAL, "200 Close +0"),
            (FIELDS_USUAL + 1, "200 Close +0"),
            (FIELDS_MAX, "200 Close +0"),
            (FIELDS_MAX + 1, "TooLarge"),
        ] {
            let said = format!("HTTP/1.1 200 OK\r\n{}\r\n", "X-A: b\r\n".repeat(count));
            assert_eq!(show(&said, &Method::GET), expected, "{count}");
        }
    }
}
