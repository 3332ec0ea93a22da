//! `Authorization`, of any number of fields.
#![no_main]

use http::{HeaderMap, HeaderValue, header::AUTHORIZATION};
use libfuzzer_sys::fuzz_target;
use portcullis::wire::authorization::{Credential, credential};

fuzz_target!(|bytes: &[u8]| {
    let mut headers = HeaderMap::new();
    for value in bytes.split(|&byte| byte == b'\n').filter_map(|value| HeaderValue::from_bytes(value).ok()) {
        headers.append(AUTHORIZATION, value);
    }
    match credential(&headers) {
        Ok(Some(_)) if headers.len() > 1 => panic!("one of several was taken"),
        Ok(Some(Credential::Basic { user, password })) => {
            assert!(!user.contains(':'));
            assert!(!user.chars().chain(password.expose().chars()).any(char::is_control));
        }
        Ok(Some(Credential::Token(token) | Credential::Bearer(token))) => {
            assert!(!token.expose().is_empty() && !token.expose().contains(char::is_whitespace));
        }
        // one that is empty is as good as none
        Ok(None) => assert!(headers.len() < 2 && headers.values().all(HeaderValue::is_empty)),
        Err(_) => {}
    }
});
