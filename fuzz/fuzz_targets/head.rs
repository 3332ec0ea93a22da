//! The head of an HTTP/1.1 request: it does not matter how the network cuts the bytes, and what passes has one end.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis::listen::head::{self, HeadBounds};

const BOUNDS: HeadBounds = HeadBounds { bytes_max: 4096, fields_max: 100 };

/// Where the first head ends, how long its body is, and what it asks for; or that it is refused, or has no end yet.
fn follow(bytes: &[u8]) -> Result<Option<(usize, Option<u64>, String)>, ()> {
    let read = head::read(bytes, BOUNDS).map_err(drop)?;
    Ok(read.map(|head| (head.length, head.body_length(), format!("{:?}", head.parts))))
}

fuzz_target!(|bytes: &[u8]| {
    let bytes = &bytes[head::empty_lines(bytes)..];
    let whole = follow(bytes);
    if let Ok(Some((length, ..))) = &whole {
        assert!(*length <= BOUNDS.bytes_max && bytes[..*length].ends_with(b"\r\n\r\n"));
        assert_eq!(memchr(&bytes[..*length]), None, "an end before the end");
    }
    for step in [1, 2, 7, 64] {
        let mut end = step.min(bytes.len());
        let pieces = loop {
            match follow(&bytes[..end]) {
                Ok(None) if end < bytes.len() => end = (end + step).min(bytes.len()),
                found => break found,
            }
        };
        match (&whole, &pieces) {
            // a line that comes late may be one too many, or one that nobody can read
            (Err(()), _) => assert!(pieces.is_err(), "in pieces of {step}"),
            _ => assert_eq!(pieces, whole, "in pieces of {step}"),
        }
    }
});

/// Where an empty line stands that is not the last.
fn memchr(head: &[u8]) -> Option<usize> {
    let inner = &head[..head.len() - 4];
    inner.windows(4).position(|line| line == b"\r\n\r\n")
}
