//! Where a redirect listener sends its callers: the same URL on https.
//!
//! The location is built from the `Host` that the caller sent, so a host that is anything but a name or an address is
//! refused, and a target that names another host is not followed.

use std::net::Ipv6Addr;

use http::header::HOST;
use http::uri::{Authority, Uri};
use http::{HeaderMap, HeaderValue};

use crate::rejection::Rejection;

/// The URL on https; path and query byte for byte.
pub(super) fn location(uri: &Uri, headers: &HeaderMap, https_port: u16) -> Result<HeaderValue, Rejection> {
    let host = host(uri, headers)?;
    let path = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    if !path.starts_with('/') {
        return Err(Rejection::BadRequest("the request target is not a path"));
    }
    let url =
        if https_port == 443 { format!("https://{host}{path}") } else { format!("https://{host}:{https_port}{path}") };
    HeaderValue::try_from(url).map_err(|_| Rejection::BadRequest("the request target is malformed"))
}

/// The host without its port, from `Host` or `:authority`, which must agree.
fn host<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> Result<&'a str, Rejection> {
    let mut fields = headers.get_all(HOST).iter();
    let named = match (fields.next(), fields.next()) {
        (Some(field), None) => Some(field.to_str().map_err(|_| Rejection::BadRequest("Host is malformed"))?),
        (None, _) => None,
        (Some(_), Some(_)) => return Err(Rejection::BadRequest("Host is repeated")),
    };
    let authority = match (uri.authority().map(Authority::as_str), named) {
        (Some(target), Some(field)) if !target.eq_ignore_ascii_case(field) => {
            return Err(Rejection::BadRequest("Host and the request target name different hosts"));
        }
        (Some(target), _) => target,
        (None, Some(field)) => field,
        (None, None) => return Err(Rejection::BadRequest("Host is missing")),
    };
    without_port(authority).ok_or(Rejection::BadRequest("Host is malformed"))
}

/// `name`, `name:port`, `[v6]` or `[v6]:port`, and nothing else.
fn without_port(authority: &str) -> Option<&str> {
    let host_bytes = if authority.starts_with('[') {
        let end = authority.find(']')?;
        authority.get(1..end)?.parse::<Ipv6Addr>().ok()?;
        end + 1
    } else {
        let end = authority.find(':').unwrap_or(authority.len());
        let name = authority.get(..end)?;
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
        (!name.is_empty() && name.len() <= 253 && name.bytes().all(plain)).then_some(end)?
    };
    let (host, rest) = authority.split_at_checked(host_bytes)?;
    match rest.strip_prefix(':') {
        None => rest.is_empty().then_some(host),
        Some(port) => (port.len() <= 5 && port.bytes().all(|byte| byte.is_ascii_digit())).then_some(host),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(target: &str, hosts: &[&str], port: u16) -> String {
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(HOST, HeaderValue::from_bytes(host.as_bytes()).unwrap());
        }
        match location(&target.parse().unwrap(), &headers, port) {
            Ok(location) => location.to_str().unwrap().to_owned(),
            Err(rejection) => rejection.reason().to_owned(),
        }
    }

    #[test]
    fn a_caller_is_sent_to_the_host_it_named_or_nowhere() {
        for (name, target, hosts, port, expected) in [
            ("the default port is left out", "/a?b=c", &["api.example.com"][..], 443, "https://api.example.com/a?b=c"),
            ("another port is named", "/", &["localhost:8080"], 8443, "https://localhost:8443/"),
            ("path and query stay as they are", "/%2e%2E//x;y?%0d%0a", &["a"], 443, "https://a/%2e%2E//x;y?%0d%0a"),
            ("two slashes name no host", "//evil.example/", &["a"], 443, "https://a//evil.example/"),
            ("an IPv6 address", "/", &["[::1]:80"], 443, "https://[::1]/"),
            ("absolute form that agrees", "http://a:80/x", &["a:80"], 443, "https://a/x"),
            (
                "absolute form that does not",
                "http://evil/x",
                &["a"],
                443,
                "Host and the request target name different hosts",
            ),
            ("no host", "/", &[], 443, "Host is missing"),
            ("two hosts", "/", &["a", "b"], 443, "Host is repeated"),
            ("an empty host", "/", &[""], 443, "Host is malformed"),
            ("user information", "/", &["a@evil.example"], 443, "Host is malformed"),
            ("a path in the host", "/", &["evil.example/x"], 443, "Host is malformed"),
            ("a fragment in the host", "/", &["evil.example#"], 443, "Host is malformed"),
            ("a backslash in the host", "/", &["evil.example\\"], 443, "Host is malformed"),
            ("a port that is none", "/", &["a:b"], 443, "Host is malformed"),
            ("an address that is none", "/", &["[::x]"], 443, "Host is malformed"),
            ("bytes after an address", "/", &["[::1]x"], 443, "Host is malformed"),
            ("a byte outside ASCII", "/", &["é"], 443, "Host is malformed"),
            ("an asterisk", "*", &["a"], 443, "the request target is not a path"),
        ] {
            assert_eq!(show(target, hosts, port), expected, "{name}");
        }
    }
}
