//! What a trusted proxy says of a caller, and what the upstream is told of them.
//!
//! Nothing is believed of anybody else.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderName, HeaderValue};
use ipnet::IpNet;

/// Through which hosts a request came.
pub static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// By which scheme it came to the first of them.
pub static X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// Which host it asked that one for.
pub static X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// The id of a request, in both directions.
pub static X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// W3C Trace Context: the trace, and who called.
pub static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

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
    let fields = headers.get_all(&X_FORWARDED_FOR).iter().rev();
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
        let last = headers.get_all(&X_FORWARDED_PROTO).iter().next_back()?;
        last.as_bytes().rsplit(|&byte| byte == b',').next().map(<[u8]>::trim_ascii)
    };
    match peer_trusted.then(said).flatten() {
        Some(proto) if proto.eq_ignore_ascii_case(b"https") => true,
        Some(proto) if proto.eq_ignore_ascii_case(b"http") => false,
        Some(_) | None => own,
    }
}

/// Writes `X-Forwarded-For`: the peer, behind what a trusted one said, as one field.
pub fn push_forwarded_for(text: &mut Vec<u8>, headers: &HeaderMap, peer: IpAddr, peer_trusted: bool) {
    if peer_trusted {
        for field in headers.get_all(&X_FORWARDED_FOR) {
            text.extend_from_slice(field.as_bytes());
            text.extend_from_slice(b", ");
        }
    }
    push_address(text, peer.to_canonical());
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

/// The id that a trusted proxy gave the request, if it is fit to be logged and sent back.
pub fn request_id(headers: &HeaderMap, peer_trusted: bool) -> Option<&str> {
    if !peer_trusted {
        return None;
    }
    let mut fields = headers.get_all(&X_REQUEST_ID).iter();
    let id = fields.next()?.to_str().ok()?;
    let fit = (1..=REQUEST_ID_BYTES_MAX).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic());
    (fit && fields.next().is_none()).then_some(id)
}

/// Whether there is one valid `traceparent` (W3C Trace Context, version 00). It grants nothing, so anybody may send it; a
/// `tracestate` goes with it.
pub fn continues_trace(headers: &HeaderMap) -> bool {
    let mut fields = headers.get_all(&TRACEPARENT).iter();
    fields.next().is_some_and(|field| is_traceparent(field.as_bytes())) && fields.next().is_none()
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

/// Writes a new `traceparent`. Marked as sampled: with the flag off, the usual samplers of upstreams would record nothing
/// of any request.
pub fn push_traceparent(text: &mut Vec<u8>, mut random: [u8; 24]) {
    let [.., last] = &mut random;
    *last |= 1; // a parent of zeros is invalid
    let [first, ..] = &mut random;
    *first |= 1; // as is a trace of zeros
    let (trace, parent) = random.split_at(16);
    text.extend_from_slice(b"00-");
    push_hex(text, trace);
    text.push(b'-');
    push_hex(text, parent);
    text.extend_from_slice(b"-01");
}

/// A new request id: 128 random bits in hexadecimal.
pub fn new_request_id(random: [u8; 16]) -> HeaderValue {
    let mut text = Vec::with_capacity(32);
    push_hex(&mut text, &random);
    HeaderValue::from_maybe_shared(bytes::Bytes::from(text)).unwrap_or_else(|_| HeaderValue::from_static("-"))
}

/// By hand, eight digits at once: every request has two of these, and the formatting machinery takes ten times as long.
fn push_hex(text: &mut Vec<u8>, bytes: &[u8]) {
    let (words, rest) = bytes.as_chunks::<4>();
    for word in words {
        text.extend_from_slice(&hex(u32::from_be_bytes(*word)));
    }
    for byte in rest {
        let [.., high, low] = hex(u32::from(*byte));
        text.extend_from_slice(&[high, low]);
    }
}

/// The digits of a number.
fn hex(number: u32) -> [u8; 8] {
    // each nibble gets a byte of its own, and then each byte is moved to its digit
    let spread = u64::from(number);
    let spread = (spread | spread << 16) & 0x0000_ffff_0000_ffff;
    let spread = (spread | spread << 8) & 0x00ff_00ff_00ff_00ff;
    let spread = (spread | spread << 4) & 0x0f0f_0f0f_0f0f_0f0f;
    let beyond_nine = (spread + 0x0606_0606_0606_0606) >> 4 & 0x0101_0101_0101_0101;
    (spread + 0x3030_3030_3030_3030 + beyond_nine * u64::from(b'a' - b'9' - 1)).to_be_bytes()
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
        for (fields, peer_trusted, expected) in [
            (&[][..], true, "10.0.0.1"),
            (&["192.0.2.7"], true, "192.0.2.7, 10.0.0.1"),
            (&["a", "b, c"], true, "a, b, c, 10.0.0.1"),
            (&["a", "b, c"], false, "10.0.0.1"),
        ] {
            let mut text = Vec::new();
            let headers = headers(&X_FORWARDED_FOR, fields);
            push_forwarded_for(&mut text, &headers, "::ffff:10.0.0.1".parse().unwrap(), peer_trusted);
            assert_eq!(String::from_utf8(text).unwrap(), expected);
        }
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
            assert_eq!(continues_trace(&headers(&TRACEPARENT, fields)), kept, "{name}");
        }
    }

    #[test]
    fn a_new_trace_is_valid_whatever_the_random_bytes() {
        for byte in [0, 1, 0x80, 0xff] {
            let mut text = Vec::new();
            push_traceparent(&mut text, [byte; 24]);
            assert!(is_traceparent(&text), "{}", String::from_utf8_lossy(&text));
        }
    }

    proptest! {
        #[test]
        fn no_field_makes_it_panic(bytes: Vec<u8>) {
            if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                let headers: HeaderMap = [&X_FORWARDED_FOR, &X_FORWARDED_PROTO, &X_REQUEST_ID, &TRACEPARENT]
                    .into_iter().map(|name| (name.clone(), value.clone())).collect();
                let _any = caller_address("10.0.0.1".parse().unwrap(), &headers, &trusted());
                let _any = (caller_is_https(true, true, &headers), request_id(&headers, true).is_some());
                let mut told = Vec::new();
                push_forwarded_for(&mut told, &headers, "10.0.0.1".parse().unwrap(), true);
                prop_assert!(HeaderValue::from_bytes(&told).is_ok());
                let _any = continues_trace(&headers);
            }
        }
    }
}
