//! Password hashes as text: ours, and those that existing tables hold.
//!
//! [`verify`] is total: what is damaged, unknown or would cost more than the bounds below is a plain no before any work is
//! done. Digests are compared in constant time and must have their full length, since a cut one would be matched by more.

use aws_lc_rs::{digest, pbkdf2};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use md5::{Digest, Md5};
use sha_crypt::{PasswordVerifier, ShaCrypt};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::secret::Secret;

/// The longest password that is looked at, in bytes; above every policy, and below what would make hashing it a lever.
pub const PASSWORD_BYTES_MAX: usize = 4_096;

/// The longest hash that is looked at, in bytes.
const HASH_BYTES_MAX: usize = 1_024;

/// Memory of one verification, in KiB.
const MEMORY_KIB_MAX: u64 = 256 * 1_024;

/// Of argon2, memory in KiB times passes: some seconds.
const ARGON2_WORK_MAX: u64 = 4 * 1_024 * 1_024;

/// Lanes of argon2.
const ARGON2_LANES_MAX: u32 = 64;

/// Of scrypt, `N * r * p`: some seconds.
const SCRYPT_WORK_MAX: u64 = 1 << 23;

/// Django's default has reached 1.2 million.
const PBKDF2_ROUNDS_MAX: u32 = 5_000_000;

/// Seconds, each step doubles it.
const BCRYPT_COST_MAX: u32 = 16;

/// Of `$5$` and `$6$`; passlib's default is 656,000.
const SHA_CRYPT_ROUNDS_MAX: u32 = 1_000_000;

/// Of `$5$` and `$6$`, rounds times bytes of the password, since each round hashes it again: some seconds.
const SHA_CRYPT_WORK_MAX: u64 = 1 << 28;

/// What new passwords cost: 19 MiB, two passes, one lane (OWASP's first choice).
const OUR_MEMORY_KIB: u32 = 19_456;
const OUR_PASSES: u32 = 2;
const OUR_LANES: u32 = 1;

/// A hash of ours that no password is known for.
pub(super) const DUMMY: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// Why a password cannot be hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HashError {
    /// Longer than [`PASSWORD_BYTES_MAX`], or it holds a NUL.
    #[error("the password is too long or holds a NUL")]
    Unusable,
    /// The system gives no random bytes, or not enough memory.
    #[error("the system gives no random bytes or memory")]
    System,
}

/// A new hash of `password`: argon2id.
///
/// # Errors
/// The password cannot be verified later, or the system is out of means.
pub fn hash(password: &str) -> Result<Secret<String>, HashError> {
    if !is_usable(password) {
        return Err(HashError::Unusable);
    }
    let mut salt = [0_u8; 16];
    getrandom::fill(&mut salt).map_err(|_| HashError::System)?;
    let mut out = Zeroizing::new([0_u8; 32]);
    let params = argon2::Params::new(OUR_MEMORY_KIB, OUR_PASSES, OUR_LANES, None).map_err(|_| HashError::System)?;
    argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params)
        .hash_password_into(password.as_bytes(), &salt, out.as_mut_slice())
        .map_err(|_| HashError::System)?;
    let (salt, out) = (STANDARD_NO_PAD.encode(salt), Zeroizing::new(STANDARD_NO_PAD.encode(out.as_slice())));
    Ok(Secret::new(format!("$argon2id$v=19$m={OUR_MEMORY_KIB},t={OUR_PASSES},p={OUR_LANES}${salt}${}", out.as_str())))
}

/// Whether `password` is the one that `hash` was made of.
pub fn verify(hash: &str, password: &str) -> bool {
    verdict(hash, password).unwrap_or(false)
}

/// The same; `None` where it was answered without work, since the hash is damaged, unknown or too costly.
pub(super) fn verdict(hash: &str, password: &str) -> Option<bool> {
    if hash.len() > HASH_BYTES_MAX || !is_usable(password) {
        return None;
    }
    matches(hash, password.as_bytes())
}

/// Whether a hash is as [`hash`] makes it, and need not be made anew.
pub fn is_ours(hash: &str) -> bool {
    hash.starts_with(&format!("$argon2id$v=19$m={OUR_MEMORY_KIB},t={OUR_PASSES},p={OUR_LANES}$"))
}

/// What a new password must be like, whoever gives it.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Bytes, at least.
    pub min: usize,
    /// Bytes, at most.
    pub max: usize,
}

impl Bounds {
    /// What is wrong with a new password; `None` where it will do. Control characters cannot be sent in Basic (RFC 7617 2),
    /// and some hashes take a NUL for the end.
    pub fn fault(self, password: &str) -> Option<String> {
        let Self { min, max } = self;
        if password.len() < min {
            Some(format!("must have at least {min} bytes"))
        } else if password.len() > max {
            Some(format!("must have at most {max} bytes"))
        } else if password.chars().any(char::is_control) {
            Some("must not have control characters".to_owned())
        } else {
            None
        }
    }
}

/// C libraries end a password at a NUL, so one that holds any is several passwords at once.
pub(super) fn is_usable(password: &str) -> bool {
    password.len() <= PASSWORD_BYTES_MAX && !password.contains('\0')
}

/// Whether this stands for no password at all, as Django and `passwd` write it.
pub(super) fn is_of_nobody(hash: &str) -> bool {
    hash.is_empty() || hash.starts_with(['!', '*'])
}

/// By what the hash begins with; `None` where it is damaged, too costly or of no known form.
fn matches(hash: &str, password: &[u8]) -> Option<bool> {
    let (prefix, rest) = match hash.strip_prefix('$') {
        Some(modular) => modular.split_once('$')?,
        None if hash.starts_with("{SHA}") => ("{SHA}", hash.strip_prefix("{SHA}")?),
        None => hash.split_once(['$', ':'])?,
    };
    match (prefix, hash.starts_with('$')) {
        ("argon2id", true) => argon2(argon2::Algorithm::Argon2id, rest, password),
        ("argon2i", true) => argon2(argon2::Algorithm::Argon2i, rest, password),
        ("argon2d", true) => argon2(argon2::Algorithm::Argon2d, rest, password),
        ("2a" | "2b" | "2y", true) => bcrypt(hash, password),
        ("5" | "6", true) => sha_crypt(hash, rest, password),
        ("apr1", true) => apr1(rest, password),
        ("pbkdf2", true) => passlib_pbkdf2("sha1", rest, password),
        ("pbkdf2-sha256", true) => passlib_pbkdf2("sha256", rest, password),
        ("pbkdf2-sha512", true) => passlib_pbkdf2("sha512", rest, password),
        ("scrypt", false) if hash.starts_with("scrypt:") => werkzeug_scrypt(rest, password),
        ("scrypt", false) => django_scrypt(rest, password),
        ("pbkdf2", false) => werkzeug_pbkdf2(rest, password),
        ("pbkdf2_sha256", false) => django_pbkdf2("sha256", rest, password),
        ("pbkdf2_sha1", false) => django_pbkdf2("sha1", rest, password),
        // these wrap a hash of the modular form, which keeps its own `$`
        ("argon2", false) if rest.starts_with("argon2") => matches(&format!("${rest}"), password),
        ("bcrypt", false) => bcrypt(rest, password),
        ("bcrypt_sha256", false) => bcrypt(rest, hex(digest::digest(&digest::SHA256, password).as_ref()).as_bytes()),
        ("md5", false) => django_md5(rest, password),
        ("{SHA}", false) => htpasswd_sha(rest, password),
        _ => None,
    }
}

/// `v=19$m=65536,t=3,p=4$salt$hash`; without `v` it is version 16.
fn argon2(algorithm: argon2::Algorithm, rest: &str, password: &[u8]) -> Option<bool> {
    let (version, rest) = match rest.strip_prefix("v=") {
        Some(rest) => rest.split_once('$')?,
        None => ("16", rest),
    };
    let version = argon2::Version::try_from(number::<u32>(version)?).ok()?;
    let [costs, salt, stored] = parts(rest, '$')?;
    let [memory, passes, lanes] = parts(costs, ',')?;
    let memory: u32 = number(memory.strip_prefix("m=")?)?;
    let passes: u32 = number(passes.strip_prefix("t=")?)?;
    let lanes: u32 = number(lanes.strip_prefix("p=")?)?;
    let work = u64::from(memory).checked_mul(u64::from(passes))?;
    if u64::from(memory) > MEMORY_KIB_MAX || work > ARGON2_WORK_MAX || lanes > ARGON2_LANES_MAX {
        return None;
    }
    let (salt, stored) = (STANDARD_NO_PAD.decode(salt).ok()?, STANDARD_NO_PAD.decode(stored).ok()?);
    if !(16..=64).contains(&stored.len()) {
        return None;
    }
    let params = argon2::Params::new(memory, passes, lanes, Some(stored.len())).ok()?;
    let mut out = Zeroizing::new(vec![0; stored.len()]);
    argon2::Argon2::new(algorithm, version, params).hash_password_into(password, &salt, &mut out).ok()?;
    Some(out.ct_eq(&stored).into())
}

/// `$2b$12$` and 53 characters; the first 72 bytes count. `$2x$` marks a broken algorithm and is not taken.
fn bcrypt(hash: &str, password: &[u8]) -> Option<bool> {
    let [empty, version, cost, _] = parts(hash, '$')?;
    let cost: u32 = number(cost)?;
    if !empty.is_empty() || !matches!(version, "2a" | "2b" | "2y") || cost > BCRYPT_COST_MAX {
        return None;
    }
    ::bcrypt::verify(password, hash).ok()
}

/// `$6$salt$hash` or `$6$rounds=5000$salt$hash`.
fn sha_crypt(hash: &str, rest: &str, password: &[u8]) -> Option<bool> {
    let rounds = match rest.strip_prefix("rounds=") {
        Some(rest) => number::<u32>(rest.split_once('$')?.0)?,
        None => sha_crypt::Params::RECOMMENDED_ROUNDS,
    };
    let work = u64::from(rounds).checked_mul(u64::try_from(password.len()).ok()?)?;
    if rounds > SHA_CRYPT_ROUNDS_MAX || work > SHA_CRYPT_WORK_MAX {
        return None;
    }
    Some(ShaCrypt::default().verify_password(password, hash).is_ok())
}

/// passlib: `29000$salt$hash`, in base64 with `.` for `+` and without padding.
fn passlib_pbkdf2(name: &str, rest: &str, password: &[u8]) -> Option<bool> {
    let [rounds, salt, stored] = parts(rest, '$')?;
    let adapted = |text: &str| STANDARD_NO_PAD.decode(text.replace('.', "+")).ok();
    pbkdf2(name, rounds, &adapted(salt)?, &adapted(stored)?, password)
}

/// Django: `1000000$salt$base64`, the salt as text.
fn django_pbkdf2(name: &str, rest: &str, password: &[u8]) -> Option<bool> {
    let [rounds, salt, stored] = parts(rest, '$')?;
    pbkdf2(name, rounds, salt.as_bytes(), &STANDARD.decode(stored).ok()?, password)
}

/// Werkzeug: `sha256:600000$salt$hex`, the salt as text.
fn werkzeug_pbkdf2(rest: &str, password: &[u8]) -> Option<bool> {
    let [method, salt, stored] = parts(rest, '$')?;
    let (name, rounds) = method.split_once(':')?;
    pbkdf2(name, rounds, salt.as_bytes(), &unhex(stored)?, password)
}

fn pbkdf2(name: &str, rounds: &str, salt: &[u8], stored: &[u8], password: &[u8]) -> Option<bool> {
    let (algorithm, length) = match name {
        "sha1" => (pbkdf2::PBKDF2_HMAC_SHA1, 20),
        "sha256" => (pbkdf2::PBKDF2_HMAC_SHA256, 32),
        "sha384" => (pbkdf2::PBKDF2_HMAC_SHA384, 48),
        "sha512" => (pbkdf2::PBKDF2_HMAC_SHA512, 64),
        _ => return None,
    };
    let rounds: u32 = number(rounds)?;
    if rounds > PBKDF2_ROUNDS_MAX || stored.len() != length {
        return None;
    }
    let rounds = std::num::NonZeroU32::new(rounds)?;
    Some(pbkdf2::verify(algorithm, rounds, salt, password, stored).is_ok())
}

/// Werkzeug: `32768:8:1$salt$hex`, the salt as text.
fn werkzeug_scrypt(rest: &str, password: &[u8]) -> Option<bool> {
    let [costs, salt, stored] = parts(rest, '$')?;
    let [n, r, p] = parts(costs, ':')?;
    scrypt(n, r, p, salt, &unhex(stored)?, password)
}

/// Django: `16384$salt$8$5$base64`, the salt as text.
fn django_scrypt(rest: &str, password: &[u8]) -> Option<bool> {
    let [n, salt, r, p, stored] = parts(rest, '$')?;
    scrypt(n, r, p, salt, &STANDARD.decode(stored).ok()?, password)
}

fn scrypt(n: &str, r: &str, p: &str, salt: &str, stored: &[u8], password: &[u8]) -> Option<bool> {
    let (n, r, p): (u64, u32, u32) = (number(n)?, number(r)?, number(p)?);
    let blocks = n.checked_mul(u64::from(r))?;
    let work = blocks.checked_mul(u64::from(p))?;
    // both libraries make 64 bytes; N is a power of two above one
    if blocks > MEMORY_KIB_MAX * 8 || work > SCRYPT_WORK_MAX || stored.len() != 64 || n < 2 || !n.is_power_of_two() {
        return None;
    }
    let params = scrypt::Params::new(u8::try_from(n.ilog2()).ok()?, r, p).ok()?;
    let mut out = Zeroizing::new([0_u8; 64]);
    scrypt::scrypt(password, salt.as_bytes(), &params, out.as_mut_slice()).ok()?;
    Some(out.ct_eq(stored).into())
}

/// Django: `salt$hex` of MD5 over salt and password.
fn django_md5(rest: &str, password: &[u8]) -> Option<bool> {
    let [salt, stored] = parts(rest, '$')?;
    let made = Md5::new().chain_update(salt).chain_update(password).finalize();
    Some(made.as_slice().ct_eq(&unhex(stored)?).into())
}

/// htpasswd -s: SHA-1 in base64.
fn htpasswd_sha(stored: &str, password: &[u8]) -> Option<bool> {
    let made = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, password);
    Some(made.as_ref().ct_eq(&STANDARD.decode(stored).ok()?).into())
}

/// htpasswd -m: `salt$hash`, a thousand rounds of MD5 (`apr_md5.c` of the Apache runtime).
fn apr1(rest: &str, password: &[u8]) -> Option<bool> {
    let [salt, stored] = parts(rest, '$')?;
    if salt.is_empty() || salt.len() > 8 {
        return None;
    }
    let salt = salt.as_bytes();
    let mixed = Md5::new().chain_update(password).chain_update(salt).chain_update(password).finalize();
    let mut start = Md5::new().chain_update(password).chain_update("$apr1$").chain_update(salt);
    for chunk in password.chunks(mixed.len()) {
        start.update(mixed.get(..chunk.len())?);
    }
    let mut bits = password.len();
    while bits > 0 {
        start.update(if bits & 1 == 1 { &[0][..] } else { password.get(..1)? });
        bits >>= 1;
    }
    let mut last = start.finalize();
    for round in 0..1_000 {
        let mut next = Md5::new();
        next.update(if round & 1 == 1 { password } else { last.as_slice() });
        if round % 3 != 0 {
            next.update(salt);
        }
        if round % 7 != 0 {
            next.update(password);
        }
        next.update(if round & 1 == 1 { last.as_slice() } else { password });
        last = next.finalize();
    }
    Some(crypt_md5_text(last.as_slice()).as_bytes().ct_eq(stored.as_bytes()).into())
}

/// Three bytes to four characters, least significant bits first, in an order of its own.
fn crypt_md5_text(digest: &[u8]) -> Zeroizing<String> {
    const ALPHABET: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    const ORDER: [[Option<usize>; 3]; 6] = [
        [Some(0), Some(6), Some(12)],
        [Some(1), Some(7), Some(13)],
        [Some(2), Some(8), Some(14)],
        [Some(3), Some(9), Some(15)],
        [Some(4), Some(10), Some(5)],
        [None, None, Some(11)],
    ];
    let byte = |at: Option<usize>| at.and_then(|at| digest.get(at)).copied().unwrap_or(0);
    let mut text = Zeroizing::new(String::with_capacity(24));
    for group in ORDER {
        let mut value = group.into_iter().fold(0_u32, |value, at| value << 8 | u32::from(byte(at)));
        for _ in 0..4 {
            text.push(ALPHABET.get((value & 63) as usize).copied().map_or('.', char::from));
            value >>= 6;
        }
    }
    // the last group holds one byte, which takes two characters
    text.truncate(22);
    text
}

/// Exactly `N` parts.
fn parts<const N: usize>(text: &str, separator: char) -> Option<[&str; N]> {
    let mut found = [""; N];
    let mut rest = text.split(separator);
    for part in &mut found {
        *part = rest.next()?;
    }
    rest.next().is_none().then_some(found)
}

/// Digits only: `parse` would take a sign too.
fn number<T: std::str::FromStr>(text: &str) -> Option<T> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

fn hex(bytes: &[u8]) -> Zeroizing<String> {
    const DIGITS: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
    let digit = |value: u8| DIGITS.get(usize::from(value)).copied().unwrap_or('0');
    Zeroizing::new(bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect())
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|value| u8::try_from(value).ok());
    pairs.iter().map(|&[high, low]| Some(digit(high)? << 4 | digit(low)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize)]
    struct Seeds {
        hashes: Vec<Seed>,
    }

    #[derive(serde::Deserialize)]
    struct Seed {
        format: String,
        hash: String,
        password: String,
        good: bool,
        note: Option<String>,
    }

    #[test]
    fn what_the_libraries_wrote_is_read_as_they_read_it() {
        let seeds: Seeds = serde_json::from_str(include_str!("../../../tests/data/hashes.json")).unwrap();
        assert!(seeds.hashes.len() > 100);
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        std::thread::scope(|scope| {
            for share in seeds.hashes.chunks(seeds.hashes.len().div_ceil(threads)) {
                scope.spawn(move || {
                    for seed in share {
                        let verdict = verify(&seed.hash, &seed.password);
                        assert_eq!(verdict, seed.good, "{} {:?}: {}", seed.format, seed.note, seed.hash);
                    }
                });
            }
        });
    }

    #[test]
    fn a_new_hash_verifies_its_password_alone() {
        let made = hash("Tr0ub4dor&3").unwrap();
        assert!(made.expose().starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
        assert!(verify(made.expose(), "Tr0ub4dor&3"));
        assert!(!verify(made.expose(), "Tr0ub4dor&4"));
        assert_ne!(made.expose(), hash("Tr0ub4dor&3").unwrap().expose(), "each has its own salt");
    }

    #[test]
    fn the_dummy_costs_what_a_hash_of_ours_costs() {
        let made = hash("Tr0ub4dor&3").unwrap();
        let form = |hash: &str| {
            hash.split('$').map(|part| (part.len(), part.contains("m=").then(|| part.to_owned()))).collect::<Vec<_>>()
        };
        assert_eq!(form(DUMMY), form(made.expose()));
        assert_eq!(matches(DUMMY, b""), Some(false), "it is worked on, not refused");
    }

    /// Each of these would take minutes, or memory that is not there, if any work were done.
    #[test]
    fn absurd_costs_are_refused_at_once() {
        let clock = crate::clock::Clock::system();
        let started = clock.now();
        let hex64 = "00".repeat(64);
        let base64 = STANDARD.encode([0; 64]);
        let crypt = ".".repeat(86);
        for hash in [
            format!("$argon2id$v=19$m={},t=1,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAA", MEMORY_KIB_MAX + 1),
            "$argon2id$v=19$m=4096,t=4294967295,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAA".to_owned(),
            "$argon2id$v=19$m=4096,t=1,p=500$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAA".to_owned(),
            format!("scrypt:4194304:8:1$salt${hex64}"),
            format!("scrypt:2:4294967295:4294967295$salt${hex64}"),
            format!("scrypt:16:1:4294967295$salt${hex64}"),
            format!("scrypt:3:8:1$salt${hex64}"),
            format!("scrypt:1:8:1$salt${hex64}"),
            format!("scrypt:0:8:1$salt${hex64}"),
            format!("scrypt$16384$salt$8$100000$${base64}"),
            format!("scrypt$4194304$salt$8$1${base64}"),
            format!("pbkdf2:sha512:{}$salt${hex64}", PBKDF2_ROUNDS_MAX + 1),
            format!("pbkdf2_sha256$4294967295$salt${}", STANDARD.encode([0; 32])),
            format!("$pbkdf2-sha512$4294967295$c2FsdA${crypt}"),
            format!("$2b$17${}", ".".repeat(53)),
            format!("$6$rounds={}$salt${crypt}", SHA_CRYPT_ROUNDS_MAX + 1),
            format!("$6$rounds=99999999999$salt${crypt}"),
        ] {
            assert!(!verify(&hash, "x"), "{hash}");
        }
        let long = "a".repeat(PASSWORD_BYTES_MAX);
        assert!(!verify(&format!("$6$rounds={SHA_CRYPT_ROUNDS_MAX}$salt${crypt}"), &long));
        assert!(clock.now() - started < std::time::Duration::from_secs(1));
    }

    #[test]
    fn a_password_that_cannot_be_one_is_refused_everywhere() {
        let empty_md5 = "md5$$d41d8cd98f00b204e9800998ecf8427e";
        assert!(verify(empty_md5, ""));
        let sha = |password: &str| {
            let made = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, password.as_bytes());
            format!("{{SHA}}{}", STANDARD.encode(made))
        };
        let (longest, longer) = ("a".repeat(PASSWORD_BYTES_MAX), "a".repeat(PASSWORD_BYTES_MAX + 1));
        for (name, password, good) in [
            ("the longest", longest.as_str(), true),
            ("one byte more", &longer, false),
            ("a NUL behind", "abc\0", false),
            ("a NUL within", "a\0c", false),
            ("a NUL alone", "\0", false),
        ] {
            assert_eq!(verify(&sha(password), password), good, "{name}");
            assert_eq!(hash(password).is_ok(), good, "{name}");
        }
    }

    #[test]
    fn hashes_that_look_alike_are_no_match() {
        let zero32 = STANDARD.encode([0; 32]);
        for hash in [
            "$2x$06$rZOMFCGtD.ye45wpz.HFaeuNEiRTf/Etsk9XWreBL8Jc54DJtKTju",
            "$2b$+6$rZOMFCGtD.ye45wpz.HFaeuNEiRTf/Etsk9XWreBL8Jc54DJtKTju",
            "bcrypt$2b$06$rZOMFCGtD.ye45wpz.HFaeuNEiRTf/Etsk9XWreBL8Jc54DJtKTju",
            "argon2$argon2$argon2id$v=19$m=8,t=1,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAA",
            "$md5$$d41d8cd98f00b204e9800998ecf8427e",
            "{SHA}",
            "{sha}h0Vy56WuaklGamrFeLmK26eMaqY=",
            "pbkdf2_sha256$",
            "pbkdf2:sha256:1000$salt",
            "$$$$$$",
            "$",
            ":",
            "$apr1$toolongsalt$oS1ieisW6MjBpDHfveaLr1",
            &format!("pbkdf2_sha256$1${}${zero32}", "é"),
        ] {
            assert!(!verify(hash, "Tr0ub4dor&3"), "{hash}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_answered(hash in "(\\$|\\{SHA\\}|scrypt|pbkdf2|argon2|md5|bcrypt|:|\\$2b\\$04\\$|\\$6\\$|apr1|[0-9]|rounds=|é|.){0,24}", password in ".{0,8}") {
            proptest::prop_assert!(!verify(&hash, &password) || hash.len() > 20);
        }
    }
}
