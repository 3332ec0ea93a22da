//! When a request may be sent again.
//!
//! Nothing was sent: to the next server, whatever the method. It was sent and the connection was lost before a byte of a
//! response: once, if it is idempotent and has no body (contract 4). Otherwise never: a POST is not charged twice.

use http::Method;

/// Servers tried and connections used for one request, at most.
pub(super) const ATTEMPTS_MAX: usize = 4;

/// A connection on which a request was sent failed before its response.
pub(super) struct Loss {
    /// Bytes that came after the request was sent; over HTTP/2, whether the stream was answered is what counts.
    pub(super) answered: bool,
}

/// Whether a request may be said again if it is lost before an answer.
pub(super) fn may_repeat(method: &Method, has_body: bool) -> bool {
    method.is_idempotent() && !has_body
}

/// Whether the stream that failed may have been acted upon in a way that the server told: a reset other than
/// `REFUSED_STREAM` is an answer (RFC 9113 8.7).
pub(super) fn answered_by_reset(error: &hyper::Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<h2::Error>() {
            return error.is_reset() && error.reason() != Some(h2::Reason::REFUSED_STREAM);
        }
        source = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_idempotent_and_has_no_body_is_said_again() {
        for (name, method, has_body, again) in [
            ("a GET", "GET", false, true),
            ("a HEAD", "HEAD", false, true),
            ("a DELETE", "DELETE", false, true),
            ("a GET with a body", "GET", true, false),
            ("a PUT with a body", "PUT", true, false),
            ("a POST without a body", "POST", false, false),
            ("a PATCH without a body", "PATCH", false, false),
            ("a method we do not know", "PURGE", false, false),
        ] {
            assert_eq!(may_repeat(&method.parse().unwrap(), has_body), again, "{name}");
        }
    }
}
