//! A configuration file of any bytes: read, or refused with a place; never a panic, never something in between.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use portcullis::config::{Environment, load_text};

fuzz_target!(|text: &str| {
    // a file could name any other, and a device would be waited for
    if text.contains("/dev") || text.contains("/proc") || text.contains("/sys") {
        return;
    }
    match load_text(text, Path::new("/nonexistent"), "gateway.yaml", &Environment::default()) {
        Ok(snapshot) => {
            assert!(snapshot.routes.routes().iter().all(|route| route.upstream.index() < snapshot.upstreams.len()))
        }
        Err(problems) => assert!(!problems.to_string().is_empty()),
    }
});
