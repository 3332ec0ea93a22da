//! The framing of HTTP/1.1: it does not matter how the network cuts the bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis::listen::head::{Scanned, Scanner};

/// Where messages end, and how it ends with them.
fn follow(bytes: &[u8], piece: usize) -> (Vec<usize>, &'static str) {
    let mut scanner = Scanner::new(4096, 100);
    let (mut ends, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        let part = &bytes[at..bytes.len().min(at + piece)];
        match scanner.scan(part) {
            Scanned::More => at += part.len(),
            Scanned::End { taken } => {
                assert!(taken <= part.len());
                at += taken;
                ends.push(at);
            }
            Scanned::Refused { taken, .. } => {
                assert!(taken <= part.len());
                return (ends, "refused");
            }
            Scanned::Broken { taken } => {
                assert!(taken <= part.len());
                return (ends, "broken");
            }
        }
    }
    (ends, "more")
}

fuzz_target!(|bytes: &[u8]| {
    let whole = follow(bytes, usize::MAX / 2);
    for piece in [1, 2, 7, 64] {
        assert_eq!(follow(bytes, piece), whole, "in pieces of {piece}");
    }
});
