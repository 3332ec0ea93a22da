//! What a path is made of, and that there is one reading of it (contract 3).
#![no_main]

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Uri, Version, header::HOST};
use libfuzzer_sys::fuzz_target;
use portcullis::wire::target::{PathPolicy, Target, canonical_path, host, read};

fuzz_target!(|bytes: &[u8]| {
    let policy = PathPolicy::default();
    let line = Bytes::copy_from_slice(bytes);
    if let Ok((uri, raw_query)) = read(&line, 0..line.len())
        && let Ok(target) = Target::parse(&uri, &policy)
    {
        let target = target.with(raw_query.as_ref());
        let mut sent = Vec::new();
        target.write(None, &mut sent);
        let query = bytes.iter().position(|&byte| byte == b'?').map(|at| &bytes[at + 1..]);
        assert_eq!(target.query(), query, "a query stays as it is");
        let whole = [target.path().as_bytes(), &query.map(|query| [b"?", query].concat()).unwrap_or_default()].concat();
        assert_eq!(sent, whole, "what matched is what is sent");
        assert!(!sent.iter().any(|&byte| byte <= b' ' || byte == 0x7f || byte == b'#'), "one word of a line");
        if let Ok(value) = target.path_and_query(None) {
            assert_eq!(value.as_str().as_bytes(), sent, "by every way");
        }
        let line = Bytes::from(sent);
        let (uri, raw_query) = read(&line, 0..line.len()).unwrap();
        assert_eq!(Target::parse(&uri, &policy).unwrap().with(raw_query.as_ref()), target, "read again it is the same");
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(path) = canonical_path(text, &policy) {
        assert!(path.starts_with('/') && path.is_ascii());
        assert!(!path.contains("//") && !path.contains(['\\', ';', '#', '?', '\0']));
        assert!(!path.split('/').any(|segment| segment == "." || segment == ".."));
        assert!(!path.contains("%2F") && !path.contains("%2E") && !path.contains("%5C") && !path.contains("%00"));
        assert_eq!(canonical_path(&path, &policy).as_deref(), Ok(&*path), "twice is once");
    }
    let Ok(uri) = text.parse::<Uri>() else { return };
    let mut headers = HeaderMap::new();
    if let Ok(value) = HeaderValue::from_str(text) {
        headers.insert(HOST, value);
    }
    for uri in [&uri, &Uri::from_static("/")] {
        if let Ok(host) = host(uri, &headers, Version::HTTP_11) {
            assert!(!host.bytes().any(|byte| byte.is_ascii_uppercase() || byte.is_ascii_whitespace()));
        }
    }
});
