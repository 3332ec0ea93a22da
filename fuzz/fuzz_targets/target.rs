//! What a path is made of, and that there is one reading of it (contract 3).
#![no_main]

use http::{HeaderMap, HeaderValue, Uri, Version, header::HOST};
use libfuzzer_sys::fuzz_target;
use portcullis::wire::target::{PathPolicy, Target, canonical_path, host};

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let policy = PathPolicy::default();
    if let Ok(path) = canonical_path(text, &policy) {
        assert!(path.starts_with('/') && path.is_ascii());
        assert!(!path.contains("//") && !path.contains(['\\', ';', '#', '?', '\0']));
        assert!(!path.split('/').any(|segment| segment == "." || segment == ".."));
        assert!(!path.contains("%2F") && !path.contains("%2E") && !path.contains("%5C") && !path.contains("%00"));
        assert_eq!(canonical_path(&path, &policy).as_deref(), Ok(&*path), "twice is once");
    }
    let Ok(uri) = text.parse::<Uri>() else { return };
    if let Ok(target) = Target::parse(&uri, &policy) {
        let again: Uri = target.path_and_query(None).as_str().parse().unwrap();
        let again = Target::parse(&again, &policy).unwrap();
        assert_eq!((again.path(), again.query()), (target.path(), target.query()), "what matched is what is sent");
    }
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
