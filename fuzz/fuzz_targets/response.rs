//! What a server says: where its response ends does not depend on how the network cuts the bytes, and is where a reader
//! by the letter of RFC 9112 has it.
#![no_main]

use bytes::Bytes;
use http::Method;
use libfuzzer_sys::fuzz_target;
use portcullis::forward::http1::decode::{Fields, Head, Step, head};
use portcullis::wire::http1::Framing;
use portcullis::wire::http1::chunked::{Decoder, Piece, TRAILER_BYTES_MAX, whole_chunks};

/// What came of a body: content, trailers as text, and the bytes behind it; `Err` with what came before the fault, `Ok(None)`
/// before its end.
type Outcome = (Vec<u8>, Result<Option<(String, usize)>, ()>);

fn decode(framing: Framing, bytes: &[u8], piece: usize) -> Outcome {
    let mut content = Vec::new();
    let Some(mut decoder) = Decoder::new(framing, TRAILER_BYTES_MAX) else {
        return (content, Ok(Some((String::new(), bytes.len()))));
    };
    let mut behind = bytes.len();
    for part in bytes.chunks(piece) {
        behind -= part.len();
        let mut at_hand = Bytes::copy_from_slice(part);
        loop {
            match decoder.next(&mut at_hand) {
                Err(_) => return (content, Err(())),
                Ok(Piece::More) => break,
                Ok(Piece::Data(data)) => {
                    assert!(!data.is_empty(), "content is not nothing");
                    content.extend_from_slice(&data);
                }
                Ok(Piece::End) => return (content, Ok(Some((String::new(), behind + at_hand.len())))),
                Ok(Piece::Trailers(trailers)) => {
                    return (content, Ok(Some((format!("{trailers:?}"), behind + at_hand.len()))));
                }
            }
        }
    }
    (content, Ok(None))
}

/// A reader of chunks by the letter, extensions and all; `None` where they have no end, or one of no chunked body.
fn by_the_letter(mut bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    fn line<'b>(bytes: &mut &'b [u8]) -> Option<&'b [u8]> {
        let end = bytes.windows(2).position(|pair| pair == b"\r\n")?;
        let (line, rest) = (&bytes[..end], &bytes[end + 2..]);
        *bytes = rest;
        Some(line)
    }
    let mut content = Vec::new();
    loop {
        let size = line(&mut bytes)?;
        let digits = size.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let size = u64::from_str_radix(std::str::from_utf8(&size[..digits]).ok()?, 16).ok()?;
        if size == 0 {
            while !line(&mut bytes)?.is_empty() {}
            return Some((content, bytes.len()));
        }
        let size = usize::try_from(size).ok()?;
        content.extend_from_slice(bytes.get(..size)?);
        bytes = bytes.get(size..)?.strip_prefix(b"\r\n")?;
    }
}

fn check_head(bytes: &[u8], method: &Method, found: &Head) {
    let said = &bytes[..bytes.len() - found.rest.len()];
    assert!(said.ends_with(b"\r\n\r\n"), "a head ends with an empty line");
    let text = String::from_utf8_lossy(said).to_ascii_lowercase();
    let values = |name: &str| -> Vec<String> {
        let lines = text.split("\r\n").filter_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        lines.map(|value| value.trim_matches([' ', '\t']).to_owned()).collect()
    };
    let (lengths, codings) = (values("content-length"), values("transfer-encoding"));
    assert!(lengths.is_empty() || codings.is_empty(), "two framings");
    assert!(codings.is_empty() || codings == ["chunked"], "codings {codings:?}");
    match found.framing {
        Framing::Length(length) => {
            assert!(!lengths.is_empty());
            let said: Vec<_> = lengths.iter().flat_map(|value| value.split(',')).collect();
            assert!(said.iter().all(|value| value.trim().parse() == Ok(length)), "{length} from {lengths:?}");
        }
        Framing::Chunked => assert_eq!(codings, ["chunked"]),
        Framing::Close => assert!(lengths.is_empty() && codings.is_empty()),
        Framing::Empty => {
            let none = *method == Method::HEAD || matches!(found.parts.status.as_u16(), 204 | 304);
            assert!(none || lengths.iter().all(|value| value.bytes().all(|byte| b"0, \t".contains(&byte))), "{text}");
        }
    }
}

fuzz_target!(|bytes: &[u8]| {
    let method = if bytes.len().is_multiple_of(8) { Method::HEAD } else { Method::GET };
    let whole = head(bytes, &method, Fields::Map);
    // a few places to cut at; all of them would make long inputs slow
    for cut in (0..bytes.len().min(64)).chain((64..bytes.len()).step_by(97)) {
        match (head(&bytes[..cut], &method, Fields::Map), &whole) {
            (Ok(Step::More), _) => {}
            (Err(_), whole) => assert!(whole.is_err(), "what is no head is none with more behind it"),
            (Ok(Step::Interim(length)), Ok(Step::Interim(other))) => assert_eq!(length, *other),
            (Ok(Step::Head(one)), Ok(Step::Head(other))) => {
                assert_eq!(
                    (one.framing, one.keep_alive, one.parts.status),
                    (other.framing, other.keep_alive, other.parts.status)
                );
                assert_eq!(cut - one.rest.len(), bytes.len() - other.rest.len(), "the head ends in one place");
            }
            (Ok(_), _) => panic!("more bytes make another kind of head"),
        }
    }
    let as_they_are = head(bytes, &method, Fields::AsTheyAre);
    let Ok(Step::Head(found)) = whole else {
        assert!(!matches!(as_they_are, Ok(Step::Head(_))), "what is no head is none however its fields are wanted");
        return;
    };
    let Ok(Step::Head(as_they_are)) = as_they_are else { panic!("a head is one however its fields are wanted") };
    let decided = |head: &Head| (head.framing, head.keep_alive, head.parts.status, head.rest.clone());
    assert_eq!(decided(&as_they_are), decided(&found));
    check_head(bytes, &method, &found);
    let outcome = decode(found.framing, &found.rest, usize::MAX);
    for piece in [1, 2, 7, 64] {
        assert_eq!(decode(found.framing, &found.rest, piece), outcome, "in pieces of {piece}");
    }
    let (content, end) = outcome;
    match (found.framing, end) {
        (Framing::Length(length), _) => {
            let whole = usize::try_from(length).is_ok_and(|length| length <= found.rest.len());
            let taken = if whole { usize::try_from(length).unwrap() } else { found.rest.len() };
            assert_eq!(content, found.rest[..taken]);
        }
        (Framing::Close, _) => assert_eq!(content, found.rest),
        (Framing::Chunked, Ok(Some((trailers, behind)))) => {
            assert_eq!(by_the_letter(&found.rest), Some((content.clone(), behind)));
            let at_once = whole_chunks(&found.rest);
            assert_eq!(at_once, trailers.is_empty().then_some((content, found.rest.len() - behind)));
        }
        (Framing::Chunked, _) => assert!(whole_chunks(&found.rest).is_none()),
        (Framing::Empty, _) => assert!(content.is_empty()),
    }
});
