//! Password hashes as tables hold them: ours (PHC), and those of others. No damaged hash is anybody's.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis::authenticate::password::verify;

/// Hashes may ask for seconds of work, within bounds that have tests of their own; here only the cheap ones are followed.
fn is_cheap(hash: &str) -> bool {
    let numbers = hash.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse::<u64>().ok());
    let max = if hash.starts_with("$2") || hash.contains("scrypt") { 8 } else { 300 };
    numbers.take(8).all(|number| number <= max)
}

fuzz_target!(|text: &str| {
    let (hash, password) = text.split_once('\n').unwrap_or((text, "password"));
    if is_cheap(hash) {
        verify(hash, password);
    }
});
