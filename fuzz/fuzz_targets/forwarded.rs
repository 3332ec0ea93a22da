//! What proxies, and those who pretend to be one, say of where a request comes from.
#![no_main]

use std::net::{IpAddr, Ipv4Addr};

use http::{HeaderMap, HeaderName, HeaderValue};
use libfuzzer_sys::fuzz_target;
use portcullis::wire::accept::prefers_problem;
use portcullis::wire::fields::{IdentityNames, keep_trailers, strip_hop_by_hop, strip_untrusted};
use portcullis::wire::forwarded::{TrustedProxies, caller_address, continues_trace, push_forwarded_for, request_id};

fuzz_target!(|bytes: &[u8]| {
    let mut headers = HeaderMap::new();
    for line in bytes.split(|&byte| byte == b'\n').take(64) {
        let mut parts = line.splitn(2, |&byte| byte == b':');
        let name = parts.next().and_then(|name| HeaderName::from_bytes(name).ok());
        let value = parts.next().and_then(|value| HeaderValue::from_bytes(value).ok());
        if let Some((name, value)) = name.zip(value) {
            headers.append(name, value);
        }
    }
    let trusted = TrustedProxies(vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()]);
    let (proxy, stranger) = (IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)));
    assert_eq!(caller_address(stranger, &headers, &trusted), stranger, "a stranger is believed nothing");
    caller_address(proxy, &headers, &trusted);
    assert_eq!(request_id(&headers, false), None);
    request_id(&headers, true);
    for value in headers.get_all("accept") {
        prefers_problem(value.as_bytes());
    }
    let names = IdentityNames::default();
    let mut trailers = headers.clone();
    keep_trailers(&mut trailers);
    assert!(!trailers.contains_key("authorization") && !trailers.contains_key("content-length"));
    strip_hop_by_hop(&mut headers);
    strip_untrusted(&mut headers, &names, false);
    for name in headers.keys() {
        assert!(!names.contains(name) && !name.as_str().contains(['_', '.']), "{name}");
        assert!(!name.as_str().starts_with("x-forwarded-") && name != "forwarded" && name != "connection", "{name}");
    }
    let mut told = Vec::new();
    push_forwarded_for(&mut told, &headers, stranger, true);
    assert!(HeaderValue::from_bytes(&told).is_ok());
    continues_trace(&headers);
});
