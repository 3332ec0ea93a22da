//! A message's bytes: its fields, its chunks, its trailers. What is written was validated by the types it comes in.

use http::header::TRAILER;
use http::{HeaderMap, HeaderName, HeaderValue};

/// Ends a chunk.
pub(crate) const CRLF: &[u8] = b"\r\n";

/// Ends a chunk and the body.
pub(crate) const CRLF_AND_LAST_CHUNK: &[u8] = b"\r\n0\r\n\r\n";

const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// The lines of the fields that are wanted.
pub(crate) fn fields(to: &mut Vec<u8>, headers: &HeaderMap, mut wanted: impl FnMut(&HeaderName, &HeaderValue) -> bool) {
    for (name, value) in headers {
        if wanted(name, value) {
            to.extend_from_slice(name.as_str().as_bytes());
            to.extend_from_slice(b": ");
            to.extend_from_slice(value.as_bytes());
            to.extend_from_slice(CRLF);
        }
    }
}

/// A number.
pub(crate) fn decimal(to: &mut Vec<u8>, number: u64) {
    const DIGITS_MAX: usize = 20;
    let (mut digits, mut at, mut left) = ([0; DIGITS_MAX], DIGITS_MAX, number);
    for (index, digit) in digits.iter_mut().enumerate().rev() {
        *digit = b"0123456789".get(usize::try_from(left % 10).unwrap_or_default()).copied().unwrap_or(b'0');
        (at, left) = (index, left / 10);
        if left == 0 {
            break;
        }
    }
    to.extend_from_slice(digits.get(at..).unwrap_or_default());
}

/// The line before a chunk of so many bytes, at least one.
pub(crate) fn chunk_size(to: &mut Vec<u8>, bytes: usize) {
    let digits = (usize::BITS - bytes.leading_zeros()).div_ceil(4);
    for digit in (0..digits).rev() {
        let nibble = (bytes >> (digit * 4)) & 0xf;
        to.push(b"0123456789abcdef".get(nibble).copied().unwrap_or(b'0'));
    }
    to.extend_from_slice(CRLF);
}

/// The end of a chunked body. Only trailers that were announced are said, as a reader expects no others.
pub(crate) fn last_chunk(to: &mut Vec<u8>, trailers: Option<&HeaderMap>, announced: &[HeaderValue]) {
    let Some(trailers) = trailers else {
        to.extend_from_slice(LAST_CHUNK);
        return;
    };
    to.extend_from_slice(b"0\r\n");
    fields(to, trailers, |name, _| is_announced(announced, name));
    to.extend_from_slice(CRLF);
}

/// The values of `Trailer`.
pub(crate) fn announced(headers: &HeaderMap) -> Vec<HeaderValue> {
    headers.get_all(TRAILER).iter().cloned().collect()
}

fn is_announced(announced: &[HeaderValue], name: &HeaderName) -> bool {
    let mut names = announced.iter().flat_map(|value| value.as_bytes().split(|&byte| byte == b','));
    names.any(|announced| announced.trim_ascii().eq_ignore_ascii_case(name.as_str().as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_of_chunks_are_hexadecimal() {
        for size in [1, 9, 15, 16, 255, 256, 4096, 65_535, usize::MAX] {
            let mut written = Vec::new();
            chunk_size(&mut written, size);
            assert_eq!(String::from_utf8(written).unwrap(), format!("{size:x}\r\n"));
        }
    }

    #[test]
    fn numbers_are_decimal() {
        for number in [0, 1, 9, 10, 99, 100, 1_048_576, u64::MAX] {
            let mut written = Vec::new();
            decimal(&mut written, number);
            assert_eq!(String::from_utf8(written).unwrap(), number.to_string());
        }
    }

    #[test]
    fn trailers_are_said_where_they_were_announced() {
        let mut trailers = HeaderMap::new();
        for name in ["x-a", "x-b", "x-c"] {
            trailers.insert(HeaderName::from_static(name), HeaderValue::from_static("1"));
        }
        for (name, announced, expected) in [
            ("none", &[][..], "0\r\n\r\n"),
            ("one", &["x-a"], "0\r\nx-a: 1\r\n\r\n"),
            ("two, in a list and a field of its own", &["x-z, X-A", "x-b"], "0\r\nx-a: 1\r\nx-b: 1\r\n\r\n"),
            ("one that begins like another", &["x-aa"], "0\r\n\r\n"),
        ] {
            let announced: Vec<HeaderValue> = announced.iter().map(|value| HeaderValue::from_static(value)).collect();
            let mut written = Vec::new();
            last_chunk(&mut written, Some(&trailers), &announced);
            assert_eq!(String::from_utf8(written).unwrap(), expected, "{name}");
        }
    }
}
