//! Path patterns against paths: two lines, a pattern each, and a path.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis::route::Pattern;
use portcullis::wire::target::{PathPolicy, canonical_path};

fuzz_target!(|text: &str| {
    let mut lines = text.splitn(3, '\n');
    let (first, second, path) = (lines.next(), lines.next(), lines.next());
    let (Some(Ok(first)), second) = (first.map(Pattern::parse), second.map(Pattern::parse)) else { return };
    let path = path.and_then(|path| canonical_path(path, &PathPolicy::default()).ok());
    if let Some(path) = &path {
        first.matches(path);
    }
    if let Some(Ok(second)) = second {
        assert_eq!(first.compare(&second), second.compare(&first).reverse());
        if let Some(path) = &path {
            second.matches(path);
        }
    }
});
