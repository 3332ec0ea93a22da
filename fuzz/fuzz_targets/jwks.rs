//! JWK Sets as other issuers publish them (RFC 7517 5): what is taken for a key, and for which algorithms.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis::authenticate::issuers::jwks::KeySet;
use portcullis::authenticate::keys::Algorithm;

const SHARED: [Algorithm; 3] = [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512];

/// The most keys of a set, and the most algorithms that one is good for.
const KEYS_MAX: usize = 64 * 6;

fuzz_target!(|bytes: &[u8]| {
    assert!(!KeySet::parse(bytes, &SHARED).is_ok_and(|set| !set.is_empty()), "what is published is no secret");
    let Ok(all) = KeySet::parse(bytes, &Algorithm::ALL) else { return };
    assert!(all.len() <= KEYS_MAX);
    let mut keys = 0;
    for algorithm in Algorithm::ALL {
        // an error where there are keys, and none for this algorithm
        let Ok(some) = KeySet::parse(bytes, &[algorithm]) else { continue };
        assert!(some.content().is_subset(&all.content()), "a list of algorithms adds no key");
        keys += some.len();
    }
    assert_eq!(keys, all.len(), "each key is for an algorithm of its own");
});
