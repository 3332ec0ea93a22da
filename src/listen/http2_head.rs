//! Holds the head of an HTTP/2 request to what that of HTTP/1.1 is held to; h2 has seen to the rest.
//!
//! h2 refuses what is larger than it was told to take by itself, in no words at all. So it is told to take more, and what is
//! too large for us is refused here, in ours.

use http::header::COOKIE;
use http::{HeaderValue, request};

use super::Bounds;
use super::head::Fault;

/// What h2 counts for each field beside its bytes (RFC 9113 6.5.2), for as many as a head may have.
const OVERHEAD_BYTES: usize = 64 * 1024;

/// The largest head that h2 is to take, as it counts: all that we may take, and twice as much, to say so.
pub(super) fn list_bytes_max(bounds: &Bounds) -> u32 {
    let bytes_max = bounds.header_bytes_max.saturating_mul(2).saturating_add(OVERHEAD_BYTES);
    u32::try_from(bytes_max).unwrap_or(u32::MAX)
}

/// Looks at the head of a request.
///
/// # Errors
/// More bytes or fields than there may be, or a value that begins or ends with white space (RFC 9113 8.2.1).
pub(super) fn look_at(head: &request::Parts, bounds: &Bounds) -> Result<(), Fault> {
    let fields = &head.headers;
    // RFC 9113 8.2.3: one field in pieces
    let crumbs = fields.get_all(COOKIE).iter().count();
    if fields.len() - crumbs.saturating_sub(1) > bounds.headers_max || bytes(head) > bounds.header_bytes_max {
        return Err(Fault::TooLarge);
    }
    let is_space = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    let is_padded = |value: &HeaderValue| is_space(value.as_bytes().first()) || is_space(value.as_bytes().last());
    if fields.values().any(is_padded) {
        return Err(Fault::Malformed("a header has white space around its value"));
    }
    Ok(())
}

/// How large the head would be in HTTP/1.1.
fn bytes(head: &request::Parts) -> usize {
    let uri = &head.uri;
    let target = uri.path_and_query().map_or(0, |target| target.as_str().len());
    let host = uri.authority().map_or(0, |authority| "host: \r\n".len() + authority.as_str().len());
    let line = head.method.as_str().len() + target + "  HTTP/1.1\r\n".len();
    let cookie = if head.headers.contains_key(COOKIE) { "cookie: ".len() } else { 0 };
    let fields = head.headers.iter().map(|(name, value)| {
        let name = if name == COOKIE { 0 } else { name.as_str().len() + ": ".len() };
        name + value.len() + "\r\n".len()
    });
    line + host + cookie + fields.sum::<usize>() + "\r\n".len()
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn head(fields: &[(&'static str, &str)]) -> request::Parts {
        let mut request = Request::get("http://a/x");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn bounds(header_bytes_max: usize, headers_max: usize) -> Bounds {
        Bounds { header_bytes_max, headers_max, connections_max: 1 }
    }

    #[test]
    fn fields_are_counted_as_in_http1() {
        let many = |name: &'static str, count| vec![(name, "b"); count];
        for (name, fields, expected) in [
            ("no fields", vec![], Ok(())),
            ("the most fields", many("a", 3), Ok(())),
            ("a field more", many("a", 4), Err(Fault::TooLarge)),
            ("a cookie in pieces", [many("cookie", 9), many("a", 2)].concat(), Ok(())),
            ("a field more beside a cookie", [many("cookie", 9), many("a", 3)].concat(), Err(Fault::TooLarge)),
            ("space within, and nothing", vec![("a", "b c"), ("d", "")], Ok(())),
        ] {
            assert_eq!(look_at(&head(&fields), &bounds(1_000, 3)), expected, "{name}");
        }
        for padded in [" ", " b", "b ", "\tb", "b\t"] {
            let looked = look_at(&head(&[("cookie", padded)]), &bounds(1_000, 3));
            assert!(matches!(looked, Err(Fault::Malformed(_))), "{padded:?}");
        }
    }

    #[test]
    fn bytes_are_counted_as_in_http1() {
        for (fields, text) in [
            (&[][..], "GET /x HTTP/1.1\r\nhost: a\r\n\r\n"),
            (&[("b", "cd"), ("e", "")], "GET /x HTTP/1.1\r\nhost: a\r\nb: cd\r\ne: \r\n\r\n"),
            (
                &[("cookie", "a=1"), ("cookie", "b=2"), ("f", "g")],
                "GET /x HTTP/1.1\r\nhost: a\r\ncookie: a=1; b=2\r\nf: g\r\n\r\n",
            ),
        ] {
            let head = head(fields);
            assert_eq!(bytes(&head), text.len(), "{text:?}");
            assert_eq!(look_at(&head, &bounds(text.len(), 9)), Ok(()));
            assert_eq!(look_at(&head, &bounds(text.len() - 1, 9)), Err(Fault::TooLarge));
        }
    }
}
