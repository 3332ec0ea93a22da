//! Where a redirect listener sends its callers: the same URL on https.
//!
//! The location is built from the `Host` that the caller sent, so a host that is anything but a name or an address is
//! refused, and a target that names another host is not followed.

use std::net::SocketAddr;

use http::uri::Uri;
use http::{HeaderMap, HeaderValue, Version};

use super::{Mode, Settings};
use crate::rejection::Rejection;
use crate::wire::target::{self, RawQuery};

/// The port to which listeners redirect: that of the first with TLS.
pub fn https_port<'m>(listeners: impl IntoIterator<Item = (&'m Mode, SocketAddr)>) -> Option<u16> {
    let mut listeners = listeners.into_iter();
    listeners.find(|(mode, _)| matches!(mode, Mode::Tls(_))).map(|(_, address)| address.port())
}

/// The port of https to which a caller in clear at `port` is sent, for who asks without a socket; `None` where it is served.
/// At a port where nobody listens, another takes its connections, and they come to any of the listeners in clear.
pub fn https_port_from(listeners: &[Settings], port: u16) -> Option<u16> {
    let in_clear = || listeners.iter().filter(|listener| !matches!(listener.mode, Mode::Tls(_)));
    let mut asked: Vec<&Settings> = in_clear().filter(|listener| listener.address.port() == port).collect();
    if asked.is_empty() {
        asked = in_clear().collect();
    }
    if asked.is_empty() || asked.iter().any(|listener| listener.mode != Mode::Redirect) {
        return None;
    }
    https_port(listeners.iter().map(|listener| (&listener.mode, listener.address)))
}

/// The URL on https; path and query byte for byte.
///
/// # Errors
/// A host that is none, or another than that of the target; a target that is no path.
pub fn location(
    uri: &Uri,
    raw_query: Option<&RawQuery>,
    headers: &HeaderMap,
    https_port: u16,
) -> Result<HeaderValue, Rejection> {
    // a caller of any version has to name a host here, by `Host` or in the target, as in HTTP/2
    let host = target::host(uri, headers, Version::HTTP_2)?;
    let path = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    if !path.starts_with('/') {
        return Err(Rejection::BadRequest("the request target is not a path"));
    }
    let port = if https_port == 443 { String::new() } else { format!(":{https_port}") };
    let mut url = format!("https://{host}{port}{path}").into_bytes();
    if let Some(query) = raw_query {
        url.push(b'?');
        url.extend_from_slice(query.as_bytes());
    }
    HeaderValue::try_from(url).map_err(|_| Rejection::BadRequest("the request target is malformed"))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::header::HOST;

    use super::*;

    fn show(target: &str, hosts: &[&str], port: u16) -> String {
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(HOST, HeaderValue::from_bytes(host.as_bytes()).unwrap());
        }
        let target = Bytes::copy_from_slice(target.as_bytes());
        let (uri, raw_query) = target::read(&target, 0..target.len()).unwrap();
        match location(&uri, raw_query.as_ref(), &headers, port) {
            Ok(location) => String::from_utf8(location.as_bytes().to_vec()).unwrap(),
            Err(rejection) => rejection.reason().to_owned(),
        }
    }

    #[test]
    fn a_caller_is_sent_to_the_host_it_named_or_nowhere() {
        for (name, target, hosts, port, expected) in [
            ("the default port is left out", "/a?b=c", &["api.example.com"][..], 443, "https://api.example.com/a?b=c"),
            ("another port is named", "/", &["localhost:8080"], 8443, "https://localhost:8443/"),
            ("path and query stay as they are", "/%2e%2E//x;y?%0d%0a", &["a"], 443, "https://a/%2e%2E//x;y?%0d%0a"),
            ("so does a query that is no URI's", "/a?<b>=\"é\"", &["a"], 443, "https://a/a?<b>=\"é\""),
            ("two slashes name no host", "//evil.example/", &["a"], 443, "https://a//evil.example/"),
            ("an IPv6 address", "/", &["[::1]:80"], 443, "https://[::1]/"),
            ("absolute form that agrees", "http://a:80/x", &["a:80"], 443, "https://a/x"),
            ("absolute form that does not", "http://evil/x", &["a"], 443, "Host differs from the target"),
            ("no host", "/", &[], 443, "Host header is missing"),
            ("two hosts", "/", &["a", "b"], 443, "more than one Host header"),
            ("an empty host", "/", &[""], 443, "Host is not valid"),
            ("user information", "/", &["a@evil.example"], 443, "Host is not valid"),
            ("a path in the host", "/", &["evil.example/x"], 443, "Host is not valid"),
            ("a fragment in the host", "/", &["evil.example#"], 443, "Host is not valid"),
            ("a backslash in the host", "/", &["evil.example\\"], 443, "Host is not valid"),
            ("a port that is none", "/", &["a:b"], 443, "Host is not valid"),
            ("an address that is none", "/", &["[::x]"], 443, "Host is not valid"),
            ("bytes after an address", "/", &["[::1]x"], 443, "Host is not valid"),
            ("a byte outside ASCII", "/", &["é"], 443, "Host is not valid"),
            ("an asterisk", "*", &["a"], 443, "the request target is not a path"),
        ] {
            assert_eq!(show(target, hosts, port), expected, "{name}");
        }
    }
}
