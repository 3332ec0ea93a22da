//! A route's `cors`.

use http::{HeaderName, HeaderValue, Uri};

use super::super::decode::{self, Section};
use super::super::report::Report;
use super::super::tree::Node;
use super::routes;
use crate::route::{Cors, Origins};

/// What a browser remembers longest; past it, it is a mistake.
const MAX_AGE_SECONDS_MAX: u64 = 7 * 24 * 60 * 60;

/// Reads the section.
pub(super) fn cors(node: &Node, report: &mut Report) -> Option<Cors> {
    let section = Section::open(node, "`cors`", &["origins", "headers", "max_age", "credentials"], &[], report)?;
    let origins = section.required("origins", "a list such as `[https://app.example.com]`", report, origins);
    let headers = section.read("headers", report, |node, report| decode::list(node, report, routes::field_name));
    let max_age = section.read("max_age", report, |node, report| {
        let seconds = decode::duration(node, report)?.as_secs();
        if seconds > MAX_AGE_SECONDS_MAX {
            report.add(node.place, "no browser remembers a preflight for so long; 7d at most");
            return None;
        }
        Some(HeaderValue::from(seconds))
    });
    let credentials = section.read("credentials", report, decode::boolean).unwrap_or_default();
    let origins = origins?;
    if let (Origins::Any, true, Some(node)) = (&origins, credentials, section.node("credentials")) {
        let message = "`credentials: true` with the origin `*` would let every page act as its visitor";
        report.add_with_hint(node.place, message, "list the origins");
        return None;
    }
    Some(Cors { origins, headers: headers.and_then(|names| joined(&names)), max_age, credentials })
}

fn joined(names: &[HeaderName]) -> Option<HeaderValue> {
    let list = names.iter().map(HeaderName::as_str).collect::<Vec<_>>().join(", ");
    HeaderValue::try_from(list).ok().filter(|list| !list.is_empty())
}

/// A list of origins, or `*` alone.
fn origins(node: &Node, report: &mut Report) -> Option<Origins> {
    let mut any = None;
    let listed = decode::some(node, report, |item, report| {
        let text = decode::full_text(item, report)?;
        if text == "*" {
            any = Some(item.place);
            return None;
        }
        let origin = origin(text);
        if origin.is_none() {
            let message = format!("{} is not an origin as browsers write it", decode::shown_node(item));
            let hint = "expected one such as `https://app.example.com`: lower case, no path, no default port; or `*`";
            report.add_with_hint(item.place, message, hint);
        }
        origin
    })?;
    match any {
        Some(place) if !listed.is_empty() => {
            report.add(place, "`*` lets every origin in; the others in the list say nothing");
            None
        }
        Some(_) => Some(Origins::Any),
        None => Some(Origins::Listed(listed)),
    }
}

/// An origin in its one spelling (RFC 6454 6.2), since it is compared byte for byte. Not `null`, which any sandboxed
/// document has.
fn origin(text: &str) -> Option<HeaderValue> {
    let (scheme, rest) = text.split_once("://")?;
    let uri: Uri = text.parse().ok()?;
    let authority = uri.authority()?;
    let host = authority.host();
    let port = match rest.strip_prefix(host)? {
        "" => None,
        port => Some(port.strip_prefix(':')?),
    };
    // also no `*.example.com`, which would match nothing
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_[]:".contains(&byte);
    let port_is_plain = port.is_none_or(|port| {
        let default = matches!((scheme, port), ("http", "80") | ("https", "443"));
        !default && port.parse::<u16>().is_ok_and(|number| number.to_string() == port)
    });
    let scheme_is_lower = !scheme.bytes().any(|byte| byte.is_ascii_uppercase());
    let good = scheme_is_lower && !host.is_empty() && host.bytes().all(plain) && port_is_plain;
    HeaderValue::from_str(text).ok().filter(|_| good)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_has_one_spelling() {
        for (text, is_origin) in [
            ("https://app.example.com", true),
            ("http://localhost:3000", true),
            ("http://[::1]:3000", true),
            ("https://app.example.com:8443", true),
            ("capacitor://localhost", true),
            ("https://app.example.com/", false),
            ("https://app.example.com/a", false),
            ("https://app.example.com?a", false),
            ("https://App.example.com", false),
            ("HTTPS://app.example.com", false),
            ("https://app.example.com:443", false),
            ("http://app.example.com:80", false),
            ("https://app.example.com:", false),
            ("https://app.example.com:99999", false),
            ("https://app.example.com:08443", false),
            ("https://a@app.example.com", false),
            ("https://*.example.com", false),
            ("https://", false),
            ("app.example.com", false),
            ("null", false),
            ("", false),
        ] {
            assert_eq!(origin(text).is_some(), is_origin, "{text}");
        }
    }
}
