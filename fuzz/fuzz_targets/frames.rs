//! Frames of a WebSocket: it does not matter how the network cuts the bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis::wire::frames::Frames;

fuzz_target!(|bytes: &[u8]| {
    let mut whole = Frames::default();
    whole.pass(bytes);
    let mut parts = Frames::default();
    for byte in bytes {
        parts.pass(&[*byte]);
    }
    assert_eq!((whole.at_boundary(), whole.closed()), (parts.at_boundary(), parts.closed()));
});
