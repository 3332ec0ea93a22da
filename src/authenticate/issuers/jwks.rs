//! A JWK Set to keys that verify (RFC 7517, RFC 7518 6, RFC 8037 2).
//!
//! Only public keys for signatures are taken, each for the algorithms that its type and its own `alg` allow and the
//! configuration lists: a shared secret, a private key, a key for encryption or a weak one is left out. A key names no
//! further place to ask (`x5u`, `jku`) that would be followed.

use std::collections::BTreeSet;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::super::bearer::Header;
use super::super::claims::strict_object;
use super::super::keys::{Algorithm, Key, KeyError};
use crate::rejection::TokenFault;

/// The most bytes of a JWK Set.
pub const JWKS_BYTES_MAX: usize = 256 * 1024;

/// The most keys of a set; one that has more is not used.
const KEYS_MAX: usize = 64;

/// How many keys are tried for one token: those of one `kid`, or all that fit where it names none.
const TRIES_MAX: usize = 8;

/// What a public key never has (RFC 7518 6.2.2, 6.3.2, 6.4).
const SECRET_MEMBERS: [&str; 7] = ["d", "p", "q", "dp", "dq", "qi", "k"];

/// Why a text is not used as a JWK Set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwksError {
    /// No JSON object with an array `keys`, or one with a member twice.
    #[error("it is not a JWK Set")]
    NotASet,
    /// More keys than any issuer needs.
    #[error("it has more than 64 keys")]
    TooMany,
    /// There are keys, and none can be used.
    #[error("it has no key that can be used: {0}")]
    NothingUsable(LeftOut),
}

/// Why a key of a set is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeftOut {
    /// A member is missing or of the wrong type.
    #[error("a key is malformed")]
    Malformed,
    /// `kty: oct`.
    #[error("a shared secret is for `auth.jwt.keys`")]
    Secret,
    /// With its private part, anybody who reads the set can sign.
    #[error("a private key is published")]
    Private,
    /// `use` or `key_ops` say that it does not verify signatures.
    #[error("a key is not for signatures")]
    NotForSignatures,
    /// Of a type or for an algorithm that `algorithms` does not list.
    #[error("no key is for one of the `algorithms`")]
    NotListed,
    /// Another reason.
    #[error("{0}")]
    Key(#[from] KeyError),
}

/// The keys of an issuer, as its set has them.
pub struct KeySet {
    keys: Vec<Key>,
    left_out: usize,
}

impl fmt::Debug for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.keys).finish()
    }
}

/// What a set says of a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Match {
    /// It is by one of the keys.
    Good,
    /// It is not.
    Bad(TokenFault),
    /// The key that it names is not in the set, or it names none and is by none.
    UnknownKey,
}

impl KeySet {
    /// The usable keys of a set, each for those of `algorithms` that it is good for. A set without any key is one.
    ///
    /// # Errors
    /// Why the set as a whole cannot be used.
    pub fn parse(json: &[u8], algorithms: &[Algorithm]) -> Result<Self, JwksError> {
        let set = strict_object(json).ok_or(JwksError::NotASet)?;
        let Some(Value::Array(listed)) = set.get("keys") else { return Err(JwksError::NotASet) };
        if listed.len() > KEYS_MAX {
            return Err(JwksError::TooMany);
        }
        let (mut keys, mut left_out) = (Vec::new(), Vec::new());
        for jwk in listed {
            match jwk.as_object().ok_or(LeftOut::Malformed).and_then(|jwk| read(jwk, algorithms)) {
                Ok(read) => keys.extend(read),
                Err(why) => left_out.push(why),
            }
        }
        match left_out.first() {
            Some(&why) if keys.is_empty() => Err(JwksError::NothingUsable(why)),
            Some(_) | None => Ok(Self { keys, left_out: left_out.len() }),
        }
    }

    /// How many keys there are, one for each algorithm of each.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// How many keys of the set were left out.
    pub(super) const fn left_out(&self) -> usize {
        self.left_out
    }

    /// Whether it has a key that `other` has not.
    pub(super) fn has_more_than(&self, other: &Self) -> bool {
        self.keys.iter().any(|key| other.keys.iter().all(|known| known.fingerprint() != key.fingerprint()))
    }

    /// Of each key, in the order of the set; public.
    pub(super) fn fingerprints(&self) -> impl Iterator<Item = &[u8; 32]> {
        self.keys.iter().map(Key::fingerprint)
    }

    /// Of all keys, in no order.
    pub fn content(&self) -> BTreeSet<[u8; 32]> {
        self.fingerprints().copied().collect()
    }

    /// Whether a signature is by one of the keys. A `kid` narrows the choice, and so does `alg`, which the caller has held
    /// against the list; neither makes a key do what it was not read for.
    pub(super) fn verify(&self, header: &Header, input: &[u8], signature: &[u8]) -> Match {
        let named = |key: &&Key| header.kid.as_deref().is_none_or(|kid| !kid.is_empty() && key.id() == kid);
        let fits = |key: &&Key| key.algorithm() == header.algorithm;
        if self.keys.iter().filter(named).filter(fits).take(TRIES_MAX).any(|key| key.verifies(input, signature)) {
            return Match::Good;
        }
        match header.kid {
            Some(_) if self.keys.iter().any(|key| named(&key) && fits(&key)) => Match::Bad(TokenFault::BadSignature),
            Some(_) if self.keys.iter().any(|key| named(&key)) => Match::Bad(TokenFault::Unsupported),
            Some(_) | None => Match::UnknownKey,
        }
    }
}

fn read(jwk: &Map<String, Value>, algorithms: &[Algorithm]) -> Result<Vec<Key>, LeftOut> {
    let kty = required(jwk, "kty")?;
    if kty == "oct" {
        return Err(LeftOut::Secret);
    }
    if SECRET_MEMBERS.iter().any(|member| jwk.contains_key(*member)) {
        return Err(LeftOut::Private);
    }
    if text(jwk, "use")?.is_some_and(|of| of != "sig") || !may_verify(jwk)? {
        return Err(LeftOut::NotForSignatures);
    }
    let (spki, fitting) = match kty {
        "RSA" => (rsa(&bytes(jwk, "n")?, &bytes(jwk, "e")?), RSA),
        "EC" => match required(jwk, "crv")? {
            "P-256" => (point(P256, &bytes(jwk, "x")?, &bytes(jwk, "y")?, 32)?, &[Algorithm::ES256][..]),
            "P-384" => (point(P384, &bytes(jwk, "x")?, &bytes(jwk, "y")?, 48)?, &[Algorithm::ES384][..]),
            _ => return Err(LeftOut::NotListed),
        },
        "OKP" if required(jwk, "crv")? == "Ed25519" => (edwards(&bytes(jwk, "x")?)?, &[Algorithm::EdDSA][..]),
        _ => return Err(LeftOut::NotListed),
    };
    let id = text(jwk, "kid")?.unwrap_or_default();
    let own = text(jwk, "alg")?;
    let of = |algorithm: &&Algorithm| algorithms.contains(algorithm) && own.is_none_or(|name| name == algorithm.name());
    let keys: Result<Vec<_>, _> =
        fitting.iter().filter(of).map(|&algorithm| Key::public_der(id, algorithm, &spki)).collect();
    let keys = keys?;
    if keys.is_empty() { Err(LeftOut::NotListed) } else { Ok(keys) }
}

const RSA: &[Algorithm] =
    &[Algorithm::RS256, Algorithm::RS384, Algorithm::RS512, Algorithm::PS256, Algorithm::PS384, Algorithm::PS512];

fn text<'a>(jwk: &'a Map<String, Value>, name: &str) -> Result<Option<&'a str>, LeftOut> {
    jwk.get(name).map(|value| value.as_str().ok_or(LeftOut::Malformed)).transpose()
}

fn required<'a>(jwk: &'a Map<String, Value>, name: &str) -> Result<&'a str, LeftOut> {
    text(jwk, name)?.ok_or(LeftOut::Malformed)
}

fn bytes(jwk: &Map<String, Value>, name: &str) -> Result<Vec<u8>, LeftOut> {
    URL_SAFE_NO_PAD.decode(required(jwk, name)?).map_err(|_| LeftOut::Malformed)
}

/// RFC 7517 4.3.
fn may_verify(jwk: &Map<String, Value>) -> Result<bool, LeftOut> {
    match jwk.get("key_ops") {
        None => Ok(true),
        Some(Value::Array(operations)) => Ok(operations.iter().any(|operation| operation == "verify")),
        Some(_) => Err(LeftOut::Malformed),
    }
}

// DER of `SubjectPublicKeyInfo` (RFC 5280 4.1.2.7), which is what keys are parsed from.

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
/// `rsaEncryption` with its NULL (RFC 3279 2.3.1).
const RSA_ENCRYPTION: &[u8] = &[0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1, 0x05, 0];
/// `id-ecPublicKey` with `prime256v1` (RFC 5480 2.1.1).
const P256: &[u8] = &[0x06, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 0x06, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];
/// `id-ecPublicKey` with `secp384r1`.
const P384: &[u8] = &[0x06, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 0x06, 5, 0x2b, 0x81, 0x04, 0, 0x22];
/// `id-Ed25519` (RFC 8410 3).
const ED25519: &[u8] = &[0x06, 3, 0x2b, 0x65, 0x70];

fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut out = vec![tag];
    if let Some(short) = u8::try_from(length).ok().filter(|&length| length < 0x80) {
        out.push(short);
    } else {
        let long: Vec<u8> = length.to_be_bytes().into_iter().skip_while(|&byte| byte == 0).collect();
        // a length has eight bytes at most
        out.push(0x80 | u8::try_from(long.len()).unwrap_or_default());
        out.extend(long);
    }
    out.extend(parts.iter().copied().flatten());
    out
}

fn spki(algorithm: &[u8], key: &[&[u8]]) -> Vec<u8> {
    // no unused bits
    let mut bits: Vec<&[u8]> = vec![&[0]];
    bits.extend(key);
    der(SEQUENCE, &[&der(SEQUENCE, &[algorithm]), &der(BIT_STRING, &bits)])
}

fn rsa(modulus: &[u8], exponent: &[u8]) -> Vec<u8> {
    let integer = |bytes: &[u8]| {
        let trimmed: Vec<u8> = bytes.iter().copied().skip_while(|&byte| byte == 0).collect();
        // else it would be negative
        let sign: &[u8] = if trimmed.first().is_none_or(|&first| first >= 0x80) { &[0] } else { &[] };
        der(INTEGER, &[sign, &trimmed])
    };
    spki(RSA_ENCRYPTION, &[&der(SEQUENCE, &[&integer(modulus), &integer(exponent)])])
}

/// Uncompressed; whether it is on the curve is looked at where the key is parsed.
fn point(curve: &[u8], x: &[u8], y: &[u8], coordinate_bytes: usize) -> Result<Vec<u8>, LeftOut> {
    if x.len() != coordinate_bytes || y.len() != coordinate_bytes {
        return Err(LeftOut::Malformed);
    }
    Ok(spki(curve, &[&[4], x, y]))
}

fn edwards(x: &[u8]) -> Result<Vec<u8>, LeftOut> {
    if x.len() == 32 { Ok(spki(ED25519, &[x])) } else { Err(LeftOut::Malformed) }
}
