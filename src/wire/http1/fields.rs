//! What heads of requests and of responses have in common, from bytes.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

/// Room for the fields that are added to a response: its id, and one that a route sets. The map of a request is read only.
const FIELDS_ADDED: usize = 2;

/// A field whose name or value no field may have, or one too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unusable {
    /// A name or a value.
    Field,
    /// More fields than a map can have.
    TooMany,
}

/// The map of `parsed`, whose values are slices of `bytes`, of which `shared` is a copy. Each field is first shown to `hear`.
pub(crate) fn map<E: From<Unusable>>(
    parsed: &[httparse::Header<'_>],
    bytes: &[u8],
    shared: &Bytes,
    mut hear: impl FnMut(&HeaderName, &[u8]) -> Result<(), E>,
) -> Result<HeaderMap, E> {
    let mut headers = HeaderMap::with_capacity(parsed.len() + FIELDS_ADDED);
    for field in parsed {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| Unusable::Field)?;
        hear(&name, field.value)?;
        let value = if field.value.is_empty() {
            HeaderValue::from_static("")
        } else {
            let at = field.value.as_ptr().addr() - bytes.as_ptr().addr();
            HeaderValue::from_maybe_shared(shared.slice(at..at + field.value.len())).map_err(|_| Unusable::Field)?
        };
        headers.try_append(name, value).map_err(|_| Unusable::TooMany)?;
    }
    Ok(headers)
}

/// Whether a line of `head` ends without its carriage return. Without a branch, so that it is done for many bytes at once: a
/// search for each line's end takes five times as long.
pub(crate) fn has_bare_line_feed(head: &[u8]) -> bool {
    let pairs = head.iter().zip(head.get(1..).unwrap_or_default());
    let bare = pairs.fold(0, |bare, (&before, &byte)| bare | u8::from(byte == b'\n') & u8::from(before != b'\r'));
    bare != 0 || head.first() == Some(&b'\n')
}

/// `1*DIGIT` that fits.
pub(crate) fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

/// The elements of a field that is a list.
pub(crate) fn elements(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_bare_line_feed_is_seen_wherever_it_is(text in "[ab\r\n]{0,80}") {
            let mut bare = false;
            let mut before = None;
            for byte in text.bytes() {
                bare |= byte == b'\n' && before != Some(b'\r');
                before = Some(byte);
            }
            prop_assert_eq!(has_bare_line_feed(text.as_bytes()), bare);
        }
    }
}
