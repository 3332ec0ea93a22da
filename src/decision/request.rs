//! A request that nobody sent: for who asks what the rules mean without serving.

use bytes::Bytes;
use http::header::HOST;
use http::{HeaderMap, HeaderValue, Method, Uri, Version};

use super::Head;
use crate::listen::head;
use crate::rejection::Rejection;
use crate::wire::target::{HostError, RawQuery, TargetError};

/// The host of a request that names none.
const DEFAULT_HOST: &str = "localhost";

/// The head of a request as HTTP/1.1 has it.
#[derive(Clone, Debug)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// The target.
    pub uri: Uri,
    /// Its query, where that cannot hold it.
    pub raw_query: Option<RawQuery>,
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
            // RFC 9110 4.2.1
            None if https.is_some() && rest.starts_with(['/', '?']) => return Err(HostError::Invalid.into()),
            None if https.is_some() => (rest, "/"),
            // `*` and `host:port` are targets of their own
            None => (DEFAULT_HOST, rest),
        };
        let target = if target.starts_with('?') { format!("/{target}") } else { target.to_owned() };
        let line = Bytes::from(target);
        let (uri, raw_query) = head::target(&line, 0..line.len())?;
        let host = HeaderValue::from_str(host).map_err(|_| HostError::Invalid)?;
        let headers = std::iter::once((HOST, host)).collect();
        Ok(Self { method: method.clone(), uri, raw_query, headers, https })
    }

    /// What of it the rules look at.
    pub const fn head(&self) -> Head<'_> {
        Head { method: &self.method, uri: &self.uri, version: Version::HTTP_11, headers: &self.headers }
    }

    /// Its head, as it would come over HTTP/1.1 without a body.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = format!("{} {}", self.method, self.uri).into_bytes();
        if let Some(query) = &self.raw_query {
            bytes.push(b'?');
            bytes.extend_from_slice(query.as_bytes());
        }
        bytes.extend_from_slice(b" HTTP/1.1\r\n");
        for (name, value) in &self.headers {
            for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
                bytes.extend_from_slice(part);
            }
        }
        bytes.extend_from_slice(b"\r\n");
        bytes
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
            ("/a?b=\"<é>\"", Ok(("localhost", "/a?b=\"<é>\"", None))),
            ("/a?b c", Err("query has a blank or a control character")),
            ("*", Ok(("localhost", "*", None))),
            ("/a#b", Err("target has a fragment")),
            ("http:///pub/x", Err("Host is not valid")),
            ("https://?x", Err("Host is not valid")),
            ("ftp://a/", Err("target has another scheme than http or https")),
            ("/a b", Err("path has a byte that must be percent-encoded")),
        ] {
            let request = Request::parse(&Method::GET, url);
            let found = request.as_ref().map(|request| {
                let host = request.headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap();
                let query = request.raw_query.as_ref().map(|query| String::from_utf8_lossy(query.as_bytes()));
                let query = query.map(|query| format!("?{query}")).unwrap_or_default();
                (host, format!("{}{query}", request.uri), request.https)
            });
            let expected = expected.map(|(host, target, https)| (host, target.to_owned(), https));
            assert_eq!(found.map_err(Rejection::reason), expected, "{url}");
        }
    }
}
