//! What a trusted proxy says of a caller, and what the upstream is told of them.
//!
//! Nothing is believed of anybody else. The fields are expected to have passed [`crate::wire::fields::strip_untrusted`]
//! before the upstream's are made.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderName, HeaderValue};
use ipnet::IpNet;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// The longest request id that is taken over, in bytes.
const REQUEST_ID_BYTES_MAX: usize = 128;

/// Networks whose forwarding fields are believed.
#[derive(Clone, Debug, Default)]
pub struct TrustedProxies(pub Vec<IpNet>);

impl TrustedProxies {
    /// Whether `address` is in one of them. An IPv4 address is the same when it comes mapped into IPv6.
    pub fn trusts(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }
}

/// The caller's address: from the right over all `X-Forwarded-For`, the first that is not a trusted proxy's. An entry
/// that is no address ends the search at the last one that was.
pub fn caller_address(peer: IpAddr, headers: &HeaderMap, trusted: &TrustedProxies) -> IpAddr {
    let mut caller = peer.to_canonical();
    if !trusted.trusts(caller) {
        return caller;
    }
    let fields = headers.get_all(X_FORWARDED_FOR).iter().rev();
    for entry in fields.flat_map(|field| field.as_bytes().rsplit(|&byte| byte == b',')) {
        let Some(address) = std::str::from_utf8(entry).ok().and_then(|entry| address(entry.trim_ascii())) else {
            return caller;
        };
        caller = address;
        if !trusted.trusts(caller) {
            return caller;
        }
    }
    caller
}

/// `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:80`: as proxies write them.
fn address(text: &str) -> Option<IpAddr> {
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok().map(IpAddr::V6);
    text.parse()
        .ok()
        .or_else(bracketed)
        .or_else(|| text.parse().ok().map(|address: SocketAddr| address.ip()))
        .map(|address| address.to_canonical())
}

/// Whether the caller came over TLS: what a trusted peer says of it, else how the connection came (`own`).
pub fn caller_is_https(own: bool, peer_trusted: bool, headers: &HeaderMap) -> bool {
    let said = || {
        let last = headers.get_all(X_FORWARDED_PROTO).iter().next_back()?;
        last.as_bytes().rsplit(|&byte| byte == b',').next().map(<[u8]>::trim_ascii)
    };
    match peer_trusted.then(said).flatten() {
        Some(proto) if proto.eq_ignore_ascii_case(b"https") => true,
        Some(proto) if proto.eq_ignore_ascii_case(b"http") => false,
        Some(_) | None => own,
    }
}

/// Adds the peer to `X-Forwarded-For`: behind what a trusted one said, as one field.
pub fn append_forwarded_for(headers: &mut HeaderMap, peer: IpAddr) {
    let mut list: Vec<u8> = Vec::new();
    for field in headers.get_all(X_FORWARDED_FOR) {
        list.extend_from_slice(field.as_bytes());
        list.extend_from_slice(b", ");
    }
    push_address(&mut list, peer.to_canonical());
    // Made of field values, so it is one; if it were not, the peer would be lost, and the field has to go.
    match HeaderValue::from_maybe_shared(bytes::Bytes::from(list)) {
        Ok(value) => drop(headers.insert(X_FORWARDED_FOR, value)),
        Err(_) => drop(headers.remove(X_FORWARDED_FOR)),
    }
}

fn push_address(text: &mut Vec<u8>, address: IpAddr) {
    let IpAddr::V4(address) = address else { return text.extend_from_slice(address.to_string().as_bytes()) };
    for (index, octet) in address.octets().into_iter().enumerate() {
        if index > 0 {
            text.push(b'.');
        }
        // by hand, as in `push_hex`
        if octet >= 100 {
            text.push(b'0' + octet / 100);
        }
        if octet >= 10 {
            text.push(b'0' + octet / 10 % 10);
        }
        text.push(b'0' + octet % 10);
    }
}

/// Sets `X-Forwarded-Proto`, by what [`caller_is_https`] found.
pub fn set_forwarded_proto(headers: &mut HeaderMap, https: bool) {
    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(if https { "https" } else { "http" }));
}

/// Sets `X-Forwarded-Host` to the host that was asked for, with its port, unless a trusted proxy has said it.
pub fn set_forwarded_host(headers: &mut HeaderMap, host: HeaderValue) {
    headers.entry(X_FORWARDED_HOST).or_insert(host);
}

/// The id that a trusted proxy gave the request, if it is fit to be logged and sent back.
pub fn request_id(headers: &HeaderMap, peer_trusted: bool) -> Option<&str> {
    if !peer_trusted {
        return None;
    }
    let mut fields = headers.get_all(X_REQUEST_ID).iter();
    let id = fields.next()?.to_str().ok()?;
    let fit = (1..=REQUEST_ID_BYTES_MAX).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic());
    (fit && fields.next().is_none()).then_some(id)
}

/// Makes sure that there is one valid `traceparent` (W3C Trace Context, version 00): the caller's, else one of `random`.
/// It grants nothing, so anybody may send it; a `tracestate` goes with it.
pub fn traceparent(headers: &mut HeaderMap, random: [u8; 24]) {
    let mut fields = headers.get_all(TRACEPARENT).iter();
    if fields.next().is_some_and(|field| is_traceparent(field.as_bytes())) && fields.next().is_none() {
        return;
    }
    headers.remove(TRACESTATE);
    headers.insert(TRACEPARENT, new_traceparent(random));
}

/// `00-<32 hex>-<16 hex>-<2 hex>`, lower case, neither id zero.
fn is_traceparent(value: &[u8]) -> bool {
    let mut parts = value.split(|&byte| byte == b'-');
    let mut part = |length: usize| {
        let hex = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        parts.next().filter(|part| part.len() == length && part.iter().all(hex))
    };
    let zero = |id: &[u8]| id.iter().all(|&byte| byte == b'0');
    let known = part(2) == Some(b"00")
        && part(32).is_some_and(|trace| !zero(trace))
        && part(16).is_some_and(|parent| !zero(parent))
        && part(2).is_some();
    known && parts.next().is_none()
}

/// Marked as sampled: with the flag off, the usual samplers of upstreams would record nothing of any request.
fn new_traceparent(mut random: [u8; 24]) -> HeaderValue {
    let [.., last] = &mut random;
    *last |= 1; // a parent of zeros is invalid
    let [first, ..] = &mut random;
    *first |= 1; // as is a trace of zeros
    let (trace, parent) = random.split_at(16);
    let mut text = Vec::with_capacity(55);
    text.extend_from_slice(b"00-");
    push_hex(&mut text, trace);
    text.push(b'-');
    push_hex(&mut text, parent);
    text.extend_from_slice(b"-01");
    HeaderValue::from_maybe_shared(bytes::Bytes::from(text)).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// A new request id: 128 random bits in hexadecimal.
pub fn new_request_id(random: [u8; 16]) -> HeaderValue {
    let mut text = Vec::with_capacity(32);
    push_hex(&mut text, &random);
    HeaderValue::from_maybe_shared(bytes::Bytes::from(text)).unwrap_or_else(|_| HeaderValue::from_static("-"))
}

/// By hand: every request has two of these, and the formatting machinery takes ten times as long.
fn push_hex(text: &mut Vec<u8>, bytes: &[u8]) {
    let digit = |nibble: u8| if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 };
    for byte in bytes {
        text.extend_from_slice(&[digit(byte >> 4), digit(byte & 0xf)]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn headers(name: &HeaderName, values: &[&str]) -> HeaderMap {
        values.iter().map(|value| (name.clone(), HeaderValue::from_str(value).unwrap())).collect()
    }

    fn trusted() -> TrustedProxies {
        TrustedProxies(vec!["10.0.0.0/8".parse().unwrap(), "2001:db8::/32".parse().unwrap()])
    }

    #[test]
    fn the_caller_is_the_first_that_is_not_trusted() {
        for (name, peer, fields, expected) in [
            ("no field", "10.0.0.1", &[][..], "10.0.0.1"),
            ("a stranger says it", "192.0.2.1", &["127.0.0.1"], "192.0.2.1"),
            ("a trusted proxy says it", "10.0.0.1", &["192.0.2.7"], "192.0.2.7"),
            ("what a caller made up stands to the left", "10.0.0.1", &["127.0.0.1, 192.0.2.7"], "192.0.2.7"),
            ("a chain", "10.0.0.1", &["1.1.1.1, 192.0.2.7,10.0.0.3 , 10.0.0.2"], "192.0.2.7"),
            ("over two fields", "10.0.0.1", &["127.0.0.1", "192.0.2.7", "10.0.0.2"], "192.0.2.7"),
            ("trusted all the way", "10.0.0.1", &["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
            ("rubbish ends it", "10.0.0.1", &["192.0.2.7, unknown, 10.0.0.2"], "10.0.0.2"),
            ("an empty field", "10.0.0.1", &[""], "10.0.0.1"),
            ("with a port", "10.0.0.1", &["192.0.2.7:4711"], "192.0.2.7"),
            ("IPv6", "10.0.0.1", &["2001:db9::1"], "2001:db9::1"),
            ("IPv6 in brackets", "10.0.0.1", &["[2001:db9::1]"], "2001:db9::1"),
            ("IPv6 with a port", "2001:db8::1", &["[2001:db9::1]:80"], "2001:db9::1"),
            ("a mapped peer", "::ffff:10.0.0.1", &["192.0.2.7"], "192.0.2.7"),
            ("a mapped entry", "10.0.0.1", &["192.0.2.7, ::ffff:10.0.0.2"], "192.0.2.7"),
            ("a mapped stranger", "::ffff:192.0.2.1", &["127.0.0.1"], "192.0.2.1"),
        ] {
            let found = caller_address(peer.parse().unwrap(), &headers(&X_FORWARDED_FOR, fields), &trusted());
            assert_eq!(found, expected.parse::<IpAddr>().unwrap(), "{name}");
        }
    }

    proptest! {
        #[test]
        fn addresses_and_ids_are_written_as_everybody_writes_them(address: std::net::Ipv4Addr, random: [u8; 16]) {
            let mut text = Vec::new();
            push_address(&mut text, IpAddr::V4(address));
            prop_assert_eq!(String::from_utf8(text).unwrap(), address.to_string());
            let id = new_request_id(random);
            prop_assert_eq!(id.to_str().unwrap(), format!("{:032x}", u128::from_be_bytes(random)));
        }
    }

    #[test]
    fn nobody_is_trusted_by_default() {
        assert!(!TrustedProxies::default().trusts("127.0.0.1".parse().unwrap()));
    }

    #[test]
    fn only_a_trusted_peer_says_https() {
        for (own, peer_trusted, fields, expected) in [
            (false, true, &["https"][..], true),
            (false, true, &["HTTPS"], true),
            (true, true, &["http"], false),
            (false, false, &["https"], false),
            (true, false, &["http"], true),
            (true, true, &[], true),
            (false, true, &["gopher"], false),
            (true, true, &["https, http"], false),
            (true, true, &["https", "http"], false),
        ] {
            let headers = headers(&X_FORWARDED_PROTO, fields);
            assert_eq!(caller_is_https(own, peer_trusted, &headers), expected, "{own} {peer_trusted} {fields:?}");
        }
    }

    #[test]
    fn the_upstream_is_told_the_whole_way() {
        for (fields, expected) in
            [(&[][..], "10.0.0.1"), (&["192.0.2.7"], "192.0.2.7, 10.0.0.1"), (&["a", "b, c"], "a, b, c, 10.0.0.1")]
        {
            let mut headers = headers(&X_FORWARDED_FOR, fields);
            append_forwarded_for(&mut headers, "::ffff:10.0.0.1".parse().unwrap());
            assert_eq!(headers.get_all(X_FORWARDED_FOR).iter().collect::<Vec<_>>(), [expected]);
        }
        let mut headers = headers(&X_FORWARDED_PROTO, &["gopher", "http"]);
        set_forwarded_proto(&mut headers, true);
        set_forwarded_host(&mut headers, HeaderValue::from_static("a:8443"));
        set_forwarded_host(&mut headers, HeaderValue::from_static("b"));
        assert_eq!(headers.get_all(X_FORWARDED_PROTO).iter().collect::<Vec<_>>(), ["https"]);
        assert_eq!(headers.get_all(X_FORWARDED_HOST).iter().collect::<Vec<_>>(), ["a:8443"]);
    }

    #[test]
    fn a_request_id_is_taken_over_from_a_trusted_proxy() {
        let (longest, too_long) = ("x".repeat(128), "x".repeat(129));
        for (fields, peer_trusted, expected) in [
            (&["abc"][..], true, Some("abc")),
            (&["abc"], false, None),
            (&[""], true, None),
            (&["a b"], true, None),
            (&["a\tb"], true, None),
            (&["a", "a"], true, None),
            (&[&*longest], true, Some(&*longest)),
            (&[&*too_long], true, None),
            (&[], true, None),
        ] {
            assert_eq!(request_id(&headers(&X_REQUEST_ID, fields), peer_trusted), expected, "{fields:?}");
        }
    }

    #[test]
    fn a_valid_trace_is_continued() {
        const VALID: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
        for (name, fields, kept) in [
            ("valid", &[VALID][..], true),
            ("none", &[], false),
            ("two", &[VALID, VALID], false),
            ("upper case", &["00-4BF92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"], false),
            ("no trace", &["00-00000000000000000000000000000000-00f067aa0ba902b7-01"], false),
            ("no parent", &["00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01"], false),
            ("version ff", &["ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"], false),
            ("something behind", &["00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-"], false),
            ("too short", &["00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01"], false),
        ] {
            let mut headers = headers(&TRACEPARENT, fields);
            headers.insert(TRACESTATE, HeaderValue::from_static("a=b"));
            traceparent(&mut headers, [0; 24]);
            let value = headers.get(TRACEPARENT).unwrap();
            assert_eq!(value == VALID, kept, "{name}");
            assert_eq!(headers.contains_key(TRACESTATE), kept, "{name}");
            assert!(is_traceparent(value.as_bytes()), "{name}: {value:?}");
            assert_eq!(headers.get_all(TRACEPARENT).iter().count(), 1, "{name}");
        }
    }

    proptest! {
        #[test]
        fn no_field_makes_it_panic(bytes: Vec<u8>) {
            if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                let mut headers: HeaderMap = [X_FORWARDED_FOR, X_FORWARDED_PROTO, X_REQUEST_ID, TRACEPARENT]
                    .into_iter().map(|name| (name, value.clone())).collect();
                let _any = caller_address("10.0.0.1".parse().unwrap(), &headers, &trusted());
                let _any = (caller_is_https(true, true, &headers), request_id(&headers, true).is_some());
                append_forwarded_for(&mut headers, "10.0.0.1".parse().unwrap());
                traceparent(&mut headers, [0; 24]);
            }
        }
    }
}
