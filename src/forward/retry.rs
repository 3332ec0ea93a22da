//! When a request may be sent again.
//!
//! Nothing was sent: to the next server, whatever the method. It was sent and the connection was lost before a byte of a
//! response: once, if it is idempotent and has no body (contract 4). Otherwise never: a POST is not charged twice.

use http::{HeaderMap, Method, Uri, request};

/// Servers tried and connections used for one request, at most.
pub(super) const ATTEMPTS_MAX: usize = 4;

/// A connection on which a request was sent failed before its response.
pub(super) struct Loss {
    /// Bytes that came after the request was sent; over HTTP/2, whether the stream was answered is what counts.
    pub(super) answered: bool,
}

/// What is needed to say a request again.
///
/// Made before it is sent, since the connection takes the head: 170 ns for ten fields, and only for requests that may be
/// repeated. Without it, each connection that a server closes just as it is used would be an error to some caller.
pub(super) struct Copy {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
}

impl Copy {
    /// `None` for a request that may not be sent twice.
    pub(super) fn of(head: &request::Parts, has_body: bool) -> Option<Self> {
        (head.method.is_idempotent() && !has_body).then(|| Self {
            method: head.method.clone(),
            uri: head.uri.clone(),
            headers: head.headers.clone(),
        })
    }

    /// The request's head once more, if the loss allows it.
    pub(super) fn again(self, loss: &Loss) -> Option<request::Parts> {
        if loss.answered {
            return None;
        }
        let (mut head, ()) = http::Request::new(()).into_parts();
        head.method = self.method;
        head.uri = self.uri;
        head.headers = self.headers;
        Some(head)
    }
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
    fn only_what_is_idempotent_and_has_no_body_and_got_no_byte_is_said_again() {
        for (name, method, has_body, answered, again) in [
            ("a lost GET", "GET", false, false, true),
            ("a lost HEAD", "HEAD", false, false, true),
            ("a lost DELETE", "DELETE", false, false, true),
            ("a GET that was answered in part", "GET", false, true, false),
            ("a GET with a body", "GET", true, false, false),
            ("a PUT with a body", "PUT", true, false, false),
            ("a POST without a body", "POST", false, false, false),
            ("a PATCH without a body", "PATCH", false, false, false),
            ("a method we do not know", "PURGE", false, false, false),
        ] {
            let (head, ()) = http::Request::builder().method(method).uri("/a?b").body(()).unwrap().into_parts();
            let repeated = Copy::of(&head, has_body).and_then(|copy| copy.again(&Loss { answered }));
            assert_eq!(repeated.is_some(), again, "{name}");
            if let Some(repeated) = repeated {
                assert_eq!((repeated.method, repeated.uri), (head.method, head.uri), "{name}");
            }
        }
    }
}
