//! Several keys: the first signs, all verify.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};

use super::super::bearer::Header;
use super::key::{Algorithm, Key, KeyError};
use crate::rejection::TokenFault;

/// Keys of one issuer: the first signs, all verify.
pub struct KeyRing(pub(super) Vec<Arc<Key>>);

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter()).finish()
    }
}

impl KeyRing {
    /// A ring of these keys.
    ///
    /// # Errors
    /// There is none, two have the same id, or the first cannot sign.
    pub fn new(keys: Vec<Key>) -> Result<Self, KeyError> {
        Self::of(keys.into_iter().map(Arc::new).collect())
    }

    /// # Errors
    /// As [`KeyRing::new`].
    pub(super) fn of(keys: Vec<Arc<Key>>) -> Result<Self, KeyError> {
        let first = keys.first().ok_or(KeyError::NoKey)?;
        if !first.signs() {
            return Err(KeyError::CannotSign);
        }
        if keys.iter().enumerate().any(|(at, key)| keys.iter().skip(at + 1).any(|other| other.id() == key.id())) {
            return Err(KeyError::DuplicateId);
        }
        Ok(Self(keys))
    }

    /// A JWT in compact form, signed by the first key; the header bears `alg`, `typ` and `kid`.
    ///
    /// # Errors
    /// [`KeyError::SigningFailed`].
    pub fn sign(&self, header_typ: &str, claims: &Map<String, Value>) -> Result<String, KeyError> {
        let key = self.0.first().ok_or(KeyError::NoKey)?;
        let header = json!({ "alg": key.algorithm().name(), "typ": header_typ, "kid": key.id() });
        let mut token = String::with_capacity(512);
        URL_SAFE_NO_PAD.encode_string(header.to_string(), &mut token);
        token.push('.');
        let claims = serde_json::to_vec(claims).map_err(|_| KeyError::SigningFailed)?;
        URL_SAFE_NO_PAD.encode_string(claims, &mut token);
        let signature = key.sign(token.as_bytes())?;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        Ok(token)
    }

    /// Whether `signature` is one of ours. A `kid` picks the key; without one, as in tokens of replaced systems, every
    /// key of the header's algorithm is tried. What the header says beside (`jwk`, `jku`, `x5c`, …) is never used.
    ///
    /// # Errors
    /// [`TokenFault::Unsupported`] where the header's algorithm is not the key's, else [`TokenFault::BadSignature`].
    pub fn verify(&self, header: &Header, input: &[u8], signature: &[u8]) -> Result<(), TokenFault> {
        let verified = if let Some(kid) = &header.kid {
            let key = self.0.iter().find(|key| *key.id() == **kid).ok_or(TokenFault::BadSignature)?;
            if key.algorithm() != header.algorithm {
                return Err(TokenFault::Unsupported);
            }
            key.verifies(input, signature)
        } else {
            let mut fitting = self.0.iter().filter(|key| key.algorithm() == header.algorithm).peekable();
            if fitting.peek().is_none() {
                return Err(TokenFault::Unsupported);
            }
            fitting.any(|key| key.verifies(input, signature))
        };
        if verified { Ok(()) } else { Err(TokenFault::BadSignature) }
    }

    /// The public keys as a JWK Set (RFC 7517 5). An HMAC secret is not among them.
    pub fn jwks(&self) -> Value {
        let keys: Vec<Value> = self.0.iter().filter_map(|key| key.jwk().cloned().map(Value::Object)).collect();
        json!({ "keys": keys })
    }

    /// Each key's id and algorithm, the signing one first.
    pub fn names(&self) -> impl Iterator<Item = (&str, Algorithm)> {
        self.0.iter().map(|key| (key.id(), key.algorithm()))
    }

    /// The keys, the signing one first.
    pub fn iter(&self) -> impl Iterator<Item = &Key> {
        self.0.iter().map(|key| &**key)
    }

    /// The algorithms of the ring, each once, the signing one first.
    pub fn algorithms(&self) -> Vec<Algorithm> {
        let mut found = Vec::new();
        for key in &self.0 {
            if !found.contains(&key.algorithm()) {
                found.push(key.algorithm());
            }
        }
        found
    }

    /// Of each key; not to be printed, for the same reason as [`KeyRing::fingerprint`].
    pub fn fingerprints(&self) -> impl Iterator<Item = &[u8; 32]> {
        self.0.iter().map(|key| key.fingerprint())
    }

    /// Of all that decides what the ring verifies; not to be printed, since an HMAC secret could be guessed from it.
    pub fn fingerprint(&self) -> [u8; 32] {
        let all: Vec<u8> = self.fingerprints().flatten().copied().collect();
        let mut out = [0; 32];
        out.copy_from_slice(digest(&SHA256, &all).as_ref());
        out
    }
}
