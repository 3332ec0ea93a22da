//! Opaque tokens: what is plausible has one spelling.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis::wire::opaque::{OpaqueKind, digest, plausible};

fuzz_target!(|text: &str| {
    for kind in [OpaqueKind::Token, OpaqueKind::Refresh] {
        plausible(kind, text);
        if text.starts_with(kind.prefix()) && plausible(kind, text) {
            assert!(text.is_ascii() && !plausible(kind, &format!("{text}A")) && !plausible(kind, &text.to_uppercase()));
        }
    }
    digest(text);
});
