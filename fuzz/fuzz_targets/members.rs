//! Bodies of endpoints: JSON and forms.
#![no_main]

use http::{HeaderMap, HeaderValue, header::CONTENT_TYPE};
use libfuzzer_sys::fuzz_target;
use portcullis::endpoint::members::{Fields, Members};
use portcullis::wire::body::Body;

fuzz_target!(|bytes: &[u8]| {
    let fields = Fields::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        for media_type in ["application/json", "application/x-www-form-urlencoded"] {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
            let body = Body::full(bytes.to_vec());
            let Ok(members) = Members::read(&fields, &headers, body).await else { continue };
            for name in ["username", "password", "grant_type"] {
                if let Ok(Some(text)) = members.text(name) {
                    assert!(text.len() <= bytes.len());
                }
            }
        }
    });
});
