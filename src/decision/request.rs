//! A request that nobody sent: for who asks what the rules mean without serving.

use http::header::HOST;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Uri, Version};

use super::Head;
use crate::rejection::Rejection;
use crate::wire::target::{HostError, TargetError};

/// The host of a request that names none.
const DEFAULT_HOST: &str = "localhost";

/// The head of a request as HTTP/1.1 has it.
#[derive(Clone, Debug)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// The target.
    pub uri: Uri,
    /// `Host`, and what was added.
    pub headers: HeaderMap,
    /// Whether the URL says that it comes over TLS; `None` where it says nothing.
    pub https: Option<bool>,
}

impl Request {
    /// A request for `url`: a path, `host/path`, or a whole URL.
    ///
    /// # Errors
    /// The refusal that a request with such a target gets.
    pub fn parse(method: &Method, url: &str) -> Result<Self, Rejection> {
        if url.contains('#') {
            return Err(TargetError::Fragment.into());
        }
        let (https, rest) = match url.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => (Some(true), rest),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => (Some(false), rest),
            Some((scheme, _)) if !scheme.contains('/') => return Err(TargetError::ForeignScheme.into()),
            Some(_) | None => (None, url),
        };
        let slash = rest.find(['/', '?']).filter(|&at| at > 0 || https.is_none());
        let (host, target) = match slash.and_then(|at| rest.split_at_checked(at)) {
            Some(("", target)) => (DEFAULT_HOST, target),
            Some((host, target)) => (host, target),
            None if https.is_some() => (rest, "/"),
            // `*` and `host:port` are targets of their own
            None => (DEFAULT_HOST, rest),
        };
        let target = if target.starts_with('?') { format!("/{target}") } else { target.to_owned() };
        let uri = if target.starts_with('/') {
            PathAndQuery::try_from(target).map(Uri::from).map_err(|_| TargetError::InvalidByte)?
        } else {
            target.parse().map_err(|_| TargetError::NoLeadingSlash)?
        };
        let host = HeaderValue::from_str(host).map_err(|_| HostError::Invalid)?;
        Ok(Self { method: method.clone(), uri, headers: std::iter::once((HOST, host)).collect(), https })
    }

    /// What of it the rules look at.
    pub const fn head(&self) -> Head<'_> {
        Head { method: &self.method, uri: &self.uri, version: Version::HTTP_11, headers: &self.headers }
    }

    /// The host that it names, with its port.
    pub fn host(&self) -> HeaderValue {
        self.headers.get(HOST).cloned().unwrap_or_else(|| HeaderValue::from_static(DEFAULT_HOST))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_a_path_or_has_a_host() {
        for (url, expected) in [
            ("/a?b=c", Ok(("localhost", "/a?b=c", None))),
            ("//a", Ok(("localhost", "//a", None))),
            ("api.example.com/a", Ok(("api.example.com", "/a", None))),
            ("https://api.example.com:8443/a//b", Ok(("api.example.com:8443", "/a//b", Some(true)))),
            ("HTTP://a", Ok(("a", "/", Some(false)))),
            ("http://a?b", Ok(("a", "/?b", Some(false)))),
            ("/a?u=http://b/", Ok(("localhost", "/a?u=http://b/", None))),
            ("*", Ok(("localhost", "*", None))),
            ("/a#b", Err("target has a fragment")),
            ("ftp://a/", Err("target has another scheme than http or https")),
            ("/a b", Err("path has a byte that must be percent-encoded")),
        ] {
            let request = Request::parse(&Method::GET, url);
            let found = request.as_ref().map(|request| {
                let host = request.headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap();
                (host, request.uri.to_string(), request.https)
            });
            let expected = expected.map(|(host, target, https)| (host, target.to_owned(), https));
            assert_eq!(found.map_err(Rejection::reason), expected, "{url}");
        }
    }
}
