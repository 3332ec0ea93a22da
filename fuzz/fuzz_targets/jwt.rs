//! Tokens that nobody signed, and claims that somebody did.
#![no_main]

use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use portcullis::authenticate::bearer::{Header, JwtKind, read};
use portcullis::authenticate::claims::Claims;
use portcullis::authenticate::keys::{Algorithm, Key, KeyRing};
use portcullis::authenticate::{ClaimPath, JwtSettings, RoleSource};
use portcullis::secret::Secret;

static SETTINGS: LazyLock<(JwtSettings, Arc<KeyRing>)> = LazyLock::new(|| {
    let key = Key::hmac("k1", Algorithm::HS256, Secret::new(b"nobody who feeds this knows it..".to_vec())).unwrap();
    let ring = Arc::new(KeyRing::new(vec![key]).unwrap());
    let settings = JwtSettings {
        audience: vec!["api".into()],
        roles: RoleSource::Claim(ClaimPath(vec!["realm".into(), "roles".into()])),
        keys: Some(Arc::clone(&ring)),
        ..JwtSettings::of("portcullis")
    };
    (settings, ring)
});

fuzz_target!(|bytes: &[u8]| {
    let (settings, ring) = &*SETTINGS;
    let now = 1_800_000_000;
    if let Ok(token) = std::str::from_utf8(bytes) {
        assert!(read(token, settings, ring, JwtKind::Access, now).is_err(), "nobody signed this");
    }
    let header = Header { algorithm: Algorithm::HS256, kid: None, typ: Some("at+jwt".into()) };
    if let Ok(claims) = Claims::parse(bytes, &header, settings, JwtKind::Access, now) {
        assert_eq!(claims.all.get("iss").and_then(|issuer| issuer.as_str()), Some("portcullis"));
        assert!(claims.expires_at.is_some_and(|end| end.saturating_add(30) > now));
        drop(claims.roles(&ClaimPath(vec!["realm".into(), "roles".into()])));
        assert!(claims.ids().count() <= 2);
    }
});
