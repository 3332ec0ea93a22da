//! Keys that sign and verify JWTs: those of the configuration, and our own in the store.
//!
//! An algorithm belongs to a key, never to a token: a token's `alg` and `kid` only choose among the keys we have, so a
//! public key cannot become an HMAC secret (RFC 8725 3.1). Keys are parsed once, here; no key is ever printed.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair, ParsedPublicKey, RsaEncoding, RsaKeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls::pki_types::pem::{PemObject, SectionKind};
use serde_json::{Map, Value, json};
use x509_parser::prelude::{FromDer, SubjectPublicKeyInfo};
use x509_parser::public_key::PublicKey;
use zeroize::Zeroizing;

use super::JwtSettings;
use super::bearer::Header;
use crate::clock::{Clock, UnixSeconds};
use crate::rejection::TokenFault;
use crate::secret::Secret;
use crate::store::{Store, StoreError, StoredKey};

/// What signs a JWT (RFC 7518 3.1, RFC 8037 3.1). `none` is not among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are those of the RFC")]
pub enum Algorithm {
    HS256,
    HS384,
    HS512,
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    EdDSA,
}

/// What an algorithm needs of a key, and how the library names it.
enum Family {
    Hmac(hmac::Algorithm),
    Rsa(&'static dyn RsaEncoding, &'static signature::RsaParameters),
    Ecdsa(&'static signature::EcdsaSigningAlgorithm, &'static signature::EcdsaVerificationAlgorithm, &'static str),
    Ed25519,
}

impl Algorithm {
    /// Every algorithm.
    pub const ALL: [Self; 12] = [
        Self::HS256,
        Self::HS384,
        Self::HS512,
        Self::RS256,
        Self::RS384,
        Self::RS512,
        Self::PS256,
        Self::PS384,
        Self::PS512,
        Self::ES256,
        Self::ES384,
        Self::EdDSA,
    ];

    /// The name in the configuration and in a token's `alg`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::HS256 => "HS256",
            Self::HS384 => "HS384",
            Self::HS512 => "HS512",
            Self::RS256 => "RS256",
            Self::RS384 => "RS384",
            Self::RS512 => "RS512",
            Self::PS256 => "PS256",
            Self::PS384 => "PS384",
            Self::PS512 => "PS512",
            Self::ES256 => "ES256",
            Self::ES384 => "ES384",
            Self::EdDSA => "EdDSA",
        }
    }

    /// The algorithm of this name, in exactly this case (RFC 7515 4.1.1).
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.name() == name)
    }

    /// Whether its key is a secret that both sides know.
    pub const fn is_hmac(self) -> bool {
        matches!(self, Self::HS256 | Self::HS384 | Self::HS512)
    }

    /// Bytes that its secret needs (RFC 7518 3.2): with fewer, whoever has one token can search for the secret at home.
    /// `None` where its key is no secret that both sides know.
    pub fn secret_bytes_min(self) -> Option<usize> {
        match self.family() {
            Family::Hmac(family) => Some(family.digest_algorithm().output_len),
            Family::Rsa(..) | Family::Ecdsa(..) | Family::Ed25519 => None,
        }
    }

    #[rustfmt::skip]
    fn family(self) -> Family {
        match self {
            Self::HS256 => Family::Hmac(hmac::HMAC_SHA256),
            Self::HS384 => Family::Hmac(hmac::HMAC_SHA384),
            Self::HS512 => Family::Hmac(hmac::HMAC_SHA512),
            Self::RS256 => Family::Rsa(&signature::RSA_PKCS1_SHA256, &signature::RSA_PKCS1_2048_8192_SHA256),
            Self::RS384 => Family::Rsa(&signature::RSA_PKCS1_SHA384, &signature::RSA_PKCS1_2048_8192_SHA384),
            Self::RS512 => Family::Rsa(&signature::RSA_PKCS1_SHA512, &signature::RSA_PKCS1_2048_8192_SHA512),
            Self::PS256 => Family::Rsa(&signature::RSA_PSS_SHA256, &signature::RSA_PSS_2048_8192_SHA256),
            Self::PS384 => Family::Rsa(&signature::RSA_PSS_SHA384, &signature::RSA_PSS_2048_8192_SHA384),
            Self::PS512 => Family::Rsa(&signature::RSA_PSS_SHA512, &signature::RSA_PSS_2048_8192_SHA512),
            Self::ES256 => Family::Ecdsa(&signature::ECDSA_P256_SHA256_FIXED_SIGNING, &signature::ECDSA_P256_SHA256_FIXED, "P-256"),
            Self::ES384 => Family::Ecdsa(&signature::ECDSA_P384_SHA384_FIXED_SIGNING, &signature::ECDSA_P384_SHA384_FIXED, "P-384"),
            Self::EdDSA => Family::Ed25519,
        }
    }
}

/// Why a key, or a ring of them, cannot be used. Holds nothing of the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// No PEM block of a kind we know.
    #[error("it is not a key in PEM form")]
    NotPem,
    /// A public key, or something else, where a private one is needed.
    #[error("it is not a private key")]
    NotPrivate,
    /// A private key, or something else, where a public one is needed.
    #[error("it is not a public key")]
    NotPublic,
    /// Another type or curve than the algorithm's, or not well formed.
    #[error("it is not a key for this algorithm")]
    WrongType,
    /// RSA below 2048 or above 8192 bits.
    #[error("an RSA key needs 2048 to 8192 bits")]
    WrongSize,
    /// An HMAC secret without a byte.
    #[error("the secret is empty")]
    EmptySecret,
    /// A ring needs one key at least.
    #[error("there is no key")]
    NoKey,
    /// Two keys of one id.
    #[error("two keys have the same id")]
    DuplicateId,
    /// The first key cannot sign.
    #[error("the first key signs, and needs its private part")]
    CannotSign,
    /// The library could not sign; a bug, or no randomness.
    #[error("signing failed")]
    SigningFailed,
}

enum Signer {
    Hmac(Box<hmac::Key>),
    Rsa(RsaKeyPair, &'static dyn RsaEncoding),
    Ecdsa(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

enum Verifier {
    Hmac(Box<hmac::Key>),
    Public(ParsedPublicKey),
}

/// One key, bound to its one algorithm.
pub struct Key {
    id: Box<str>,
    algorithm: Algorithm,
    signer: Option<Signer>,
    verifier: Verifier,
    /// As published; `None` for HMAC.
    jwk: Option<Map<String, Value>>,
    /// Of all that decides what it verifies.
    fingerprint: [u8; 32],
    /// A secret of fewer bytes than [`Algorithm::secret_bytes_min`].
    is_short: bool,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("id", &self.id).field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

impl Key {
    /// A secret that both sides know. Short ones are taken, since replaced systems have them.
    ///
    /// # Errors
    /// The algorithm is not HMAC, or the secret is empty.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "the secret is wiped here, so that no copy is left with the caller"
    )]
    pub fn hmac(id: impl Into<Box<str>>, algorithm: Algorithm, secret: Secret<Vec<u8>>) -> Result<Self, KeyError> {
        let Family::Hmac(family) = algorithm.family() else { return Err(KeyError::WrongType) };
        if secret.expose().is_empty() {
            return Err(KeyError::EmptySecret);
        }
        let key = Box::new(hmac::Key::new(family, secret.expose()));
        let id = id.into();
        Ok(Self {
            fingerprint: fingerprint(&id, algorithm, secret.expose()),
            is_short: algorithm.secret_bytes_min().is_some_and(|bytes_min| secret.expose().len() < bytes_min),
            id,
            algorithm,
            signer: Some(Signer::Hmac(key.clone())),
            verifier: Verifier::Hmac(key),
            jwk: None,
        })
    }

    /// A private key in PEM: PKCS#8, PKCS#1 or SEC1.
    ///
    /// # Errors
    /// It is none, or not of the algorithm's type, curve and size.
    pub fn private_pem(id: impl Into<Box<str>>, algorithm: Algorithm, pem: &[u8]) -> Result<Self, KeyError> {
        let (kind, der) = <(SectionKind, Vec<u8>)>::from_pem_slice(pem).map_err(|_| KeyError::NotPem)?;
        let der = Zeroizing::new(der);
        if !matches!(kind, SectionKind::PrivateKey | SectionKind::RsaPrivateKey | SectionKind::EcPrivateKey) {
            return Err(KeyError::NotPrivate);
        }
        Self::from_private_der(id.into(), algorithm, &der)
    }

    /// A private key as PKCS#8 in DER, as the store keeps it.
    ///
    /// # Errors
    /// It is none, or not of the algorithm's type, curve and size.
    pub fn from_pkcs8_der(id: impl Into<Box<str>>, algorithm: Algorithm, der: &[u8]) -> Result<Self, KeyError> {
        Self::from_private_der(id.into(), algorithm, der)
    }

    /// A public key in PEM (`PUBLIC KEY`): it verifies and cannot sign.
    ///
    /// # Errors
    /// It is none, or not of the algorithm's type, curve and size.
    pub fn public_pem(id: impl Into<Box<str>>, algorithm: Algorithm, pem: &[u8]) -> Result<Self, KeyError> {
        let (kind, der) = <(SectionKind, Vec<u8>)>::from_pem_slice(pem).map_err(|_| KeyError::NotPem)?;
        if kind != SectionKind::PublicKey {
            return Err(KeyError::NotPublic);
        }
        Self::with_public(id.into(), algorithm, None, &der)
    }

    /// A public key as `SubjectPublicKeyInfo` in DER.
    ///
    /// # Errors
    /// It is none, or not of the algorithm's type, curve and size.
    pub(super) fn public_der(id: impl Into<Box<str>>, algorithm: Algorithm, spki: &[u8]) -> Result<Self, KeyError> {
        Self::with_public(id.into(), algorithm, None, spki)
    }

    /// The `kid`.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The only algorithm it is used with.
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Whether it is a secret of fewer bytes than [`Algorithm::secret_bytes_min`].
    pub const fn is_short(&self) -> bool {
        self.is_short
    }

    /// Of all that decides what it verifies.
    pub(super) const fn fingerprint(&self) -> &[u8; 32] {
        &self.fingerprint
    }

    fn from_private_der(id: Box<str>, algorithm: Algorithm, der: &[u8]) -> Result<Self, KeyError> {
        let (signer, public) = match algorithm.family() {
            Family::Hmac(_) => return Err(KeyError::WrongType),
            Family::Rsa(encoding, _) => {
                let pair = RsaKeyPair::from_pkcs8(der).or_else(|_| RsaKeyPair::from_der(der)).map_err(wrong_type)?;
                let public = spki(pair.public_key())?;
                (Signer::Rsa(pair, encoding), public)
            }
            Family::Ecdsa(signing, ..) => {
                let pair = EcdsaKeyPair::from_private_key_der(signing, der).map_err(wrong_type)?;
                let public = spki(pair.public_key())?;
                (Signer::Ecdsa(pair), public)
            }
            Family::Ed25519 => {
                let pair = Ed25519KeyPair::from_pkcs8(der).map_err(wrong_type)?;
                let public = spki(pair.public_key())?;
                (Signer::Ed25519(pair), public)
            }
        };
        Self::with_public(id, algorithm, Some(signer), &public)
    }

    /// `public` is a `SubjectPublicKeyInfo` (RFC 5280 4.1.2.7).
    fn with_public(
        id: Box<str>,
        algorithm: Algorithm,
        signer: Option<Signer>,
        public: &[u8],
    ) -> Result<Self, KeyError> {
        let mut jwk = Map::new();
        let parsed = match algorithm.family() {
            Family::Hmac(_) => return Err(KeyError::WrongType),
            Family::Rsa(_, verification) => {
                let (modulus, exponent) = rsa_parts(public)?;
                jwk.insert("kty".into(), "RSA".into());
                jwk.insert("n".into(), URL_SAFE_NO_PAD.encode(modulus).into());
                jwk.insert("e".into(), URL_SAFE_NO_PAD.encode(exponent).into());
                ParsedPublicKey::new(verification, public)
            }
            Family::Ecdsa(_, verification, curve) => {
                let point = point(public)?;
                let coordinates = point.strip_prefix(&[4]).ok_or(KeyError::WrongType)?;
                let (x, y) = coordinates.split_at(coordinates.len() / 2);
                jwk.insert("kty".into(), "EC".into());
                jwk.insert("crv".into(), curve.into());
                jwk.insert("x".into(), URL_SAFE_NO_PAD.encode(x).into());
                jwk.insert("y".into(), URL_SAFE_NO_PAD.encode(y).into());
                ParsedPublicKey::new(verification, public)
            }
            Family::Ed25519 => {
                let point = point(public)?;
                jwk.insert("kty".into(), "OKP".into());
                jwk.insert("crv".into(), "Ed25519".into());
                jwk.insert("x".into(), URL_SAFE_NO_PAD.encode(point).into());
                ParsedPublicKey::new(&signature::ED25519, public)
            }
        };
        jwk.insert("use".into(), "sig".into());
        jwk.insert("alg".into(), algorithm.name().into());
        jwk.insert("kid".into(), (*id).into());
        Ok(Self {
            fingerprint: fingerprint(&id, algorithm, public),
            is_short: false,
            id,
            algorithm,
            signer,
            verifier: Verifier::Public(parsed.map_err(wrong_type)?),
            jwk: Some(jwk),
        })
    }

    fn sign(&self, input: &[u8]) -> Result<Vec<u8>, KeyError> {
        match self.signer.as_ref().ok_or(KeyError::CannotSign)? {
            Signer::Hmac(key) => Ok(hmac::sign(key, input).as_ref().to_vec()),
            Signer::Rsa(pair, encoding) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(*encoding, &SystemRandom::new(), input, &mut signature)
                    .map_err(|_| KeyError::SigningFailed)?;
                Ok(signature)
            }
            Signer::Ecdsa(pair) => pair
                .sign(&SystemRandom::new(), input)
                .map(|signature| signature.as_ref().to_vec())
                .map_err(|_| KeyError::SigningFailed),
            Signer::Ed25519(pair) => Ok(pair.sign(input).as_ref().to_vec()),
        }
    }

    /// In constant time for HMAC. An ECDSA signature has a second valid form (r, n-s): the same claims in another text,
    /// which are looked up and revoked by the same ids, so nothing is gained by it.
    pub(super) fn verifies(&self, input: &[u8], signature: &[u8]) -> bool {
        match &self.verifier {
            Verifier::Hmac(key) => hmac::verify(key, input, signature).is_ok(),
            Verifier::Public(key) => key.verify_sig(input, signature).is_ok(),
        }
    }
}

fn wrong_type<E>(_: E) -> KeyError {
    KeyError::WrongType
}

fn spki(public: &impl AsDer<PublicKeyX509Der<'static>>) -> Result<Vec<u8>, KeyError> {
    public.as_der().map(|der| der.as_ref().to_vec()).map_err(wrong_type)
}

fn point(spki: &[u8]) -> Result<Vec<u8>, KeyError> {
    let (rest, info) = SubjectPublicKeyInfo::from_der(spki).map_err(wrong_type)?;
    if rest.is_empty() { Ok(info.subject_public_key.data.to_vec()) } else { Err(KeyError::WrongType) }
}

/// Modulus and exponent, big-endian without leading zeros (RFC 7518 6.3.1).
fn rsa_parts(spki: &[u8]) -> Result<(Vec<u8>, Vec<u8>), KeyError> {
    let (_, info) = SubjectPublicKeyInfo::from_der(spki).map_err(wrong_type)?;
    let Ok(PublicKey::RSA(key)) = info.parsed() else { return Err(KeyError::WrongType) };
    let trimmed = |bytes: &[u8]| bytes.iter().copied().skip_while(|&byte| byte == 0).collect::<Vec<u8>>();
    let (modulus, exponent) = (trimmed(key.modulus), trimmed(key.exponent));
    let unused = modulus.first().map_or(0, |byte| byte.leading_zeros() as usize);
    if (RSA_BITS_MIN..=RSA_BITS_MAX).contains(&(modulus.len() * 8 - unused)) {
        Ok((modulus, exponent))
    } else {
        Err(KeyError::WrongSize)
    }
}

/// RFC 7518 3.3.
const RSA_BITS_MIN: usize = 2048;

/// Past it, one verification costs milliseconds.
const RSA_BITS_MAX: usize = 8192;

fn fingerprint(id: &str, algorithm: Algorithm, material: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    let mut input = Zeroizing::new(Vec::with_capacity(id.len() + material.len() + 8));
    for part in [id.as_bytes(), b"\0", algorithm.name().as_bytes(), b"\0", material] {
        input.extend_from_slice(part);
    }
    out.copy_from_slice(digest(&SHA256, &input).as_ref());
    out
}

/// Keys of one issuer: the first signs, all verify.
pub struct KeyRing(Vec<Arc<Key>>);

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

    fn of(keys: Vec<Arc<Key>>) -> Result<Self, KeyError> {
        let first = keys.first().ok_or(KeyError::NoKey)?;
        if first.signer.is_none() {
            return Err(KeyError::CannotSign);
        }
        if keys.iter().enumerate().any(|(at, key)| keys.iter().skip(at + 1).any(|other| other.id == key.id)) {
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
        let header = json!({ "alg": key.algorithm.name(), "typ": header_typ, "kid": key.id });
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
            let key = self.0.iter().find(|key| *key.id == **kid).ok_or(TokenFault::BadSignature)?;
            if key.algorithm != header.algorithm {
                return Err(TokenFault::Unsupported);
            }
            key.verifies(input, signature)
        } else {
            let mut fitting = self.0.iter().filter(|key| key.algorithm == header.algorithm).peekable();
            if fitting.peek().is_none() {
                return Err(TokenFault::Unsupported);
            }
            fitting.any(|key| key.verifies(input, signature))
        };
        if verified { Ok(()) } else { Err(TokenFault::BadSignature) }
    }

    /// The public keys as a JWK Set (RFC 7517 5). An HMAC secret is not among them.
    pub fn jwks(&self) -> Value {
        let keys: Vec<Value> = self.0.iter().filter_map(|key| key.jwk.clone().map(Value::Object)).collect();
        json!({ "keys": keys })
    }

    /// Each key's id and algorithm, the signing one first.
    pub fn names(&self) -> impl Iterator<Item = (&str, Algorithm)> {
        self.0.iter().map(|key| (&*key.id, key.algorithm))
    }

    /// The keys, the signing one first.
    pub fn iter(&self) -> impl Iterator<Item = &Key> {
        self.0.iter().map(|key| &**key)
    }

    /// The algorithms of the ring, each once, the signing one first.
    pub fn algorithms(&self) -> Vec<Algorithm> {
        let mut found = Vec::new();
        for key in &self.0 {
            if !found.contains(&key.algorithm) {
                found.push(key.algorithm);
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

/// Why the keys of the store could not be read.
#[derive(Clone, Debug, thiserror::Error)]
pub enum KeysError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A stored key is not usable.
    #[error("a signing key in the store: {0}")]
    Key(#[from] KeyError),
    /// A stored key has an algorithm of a newer version.
    #[error("a signing key in the store has an unknown algorithm")]
    UnknownAlgorithm,
}

/// Our own keys, as the store has them; the ring turns by itself when a key's time comes or ends.
pub struct Keys {
    store: Arc<dyn Store>,
    clock: Clock,
    stored: ArcSwap<Stored>,
}

struct Stored {
    keys: Vec<TimedKey>,
    ring: Arc<KeyRing>,
    /// When the ring must be made anew, in unix seconds.
    until: UnixSeconds,
}

#[derive(Clone)]
struct TimedKey {
    key: Arc<Key>,
    signs_from: UnixSeconds,
    verifies_until: Option<UnixSeconds>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Keys").field(&self.stored.load().ring).finish()
    }
}

impl Keys {
    /// The keys of the store; the first one is made where it has none.
    ///
    /// # Errors
    /// The store fails, or holds a key that cannot be used.
    pub async fn load(store: Arc<dyn Store>, clock: Clock) -> Result<Self, KeysError> {
        let stored = ArcSwap::from_pointee(read(&*store, &clock).await?);
        Ok(Self { store, clock, stored })
    }

    /// Reads them again. Whoever hears of `Change::Keys` calls this first and notes the change afterwards: in the other
    /// order a token of a removed key could be verified by the old ring and be remembered as looked up after the change.
    ///
    /// # Errors
    /// As [`Keys::load`]; the keys of before stay.
    pub async fn reload(&self) -> Result<(), KeysError> {
        self.stored.store(Arc::new(read(&*self.store, &self.clock).await?));
        Ok(())
    }

    /// The keys to sign and verify with under `settings`: those of the file, else those of the store.
    pub fn ring(&self, settings: &JwtSettings) -> Arc<KeyRing> {
        if let Some(ring) = &settings.keys {
            return Arc::clone(ring);
        }
        let stored = self.stored.load();
        let now = self.clock.unix();
        if now < stored.until {
            return Arc::clone(&stored.ring);
        }
        // where every key has ended none is left, and nothing verifies: `reload` brings the next
        let turned = Stored::at(stored.keys.clone(), now).unwrap_or_else(|_| Stored::none());
        let ring = Arc::clone(&turned.ring);
        // only over what was read above: a reload in between has newer keys
        self.stored.compare_and_swap(&stored, Arc::new(turned));
        ring
    }
}

/// A new `EdDSA` key for the store.
///
/// # Errors
/// No randomness.
pub fn generate(signs_from: UnixSeconds) -> Result<StoredKey, KeyError> {
    let pair = Ed25519KeyPair::generate().map_err(|_| KeyError::SigningFailed)?;
    let pkcs8 = pair.to_pkcs8v1().map_err(|_| KeyError::SigningFailed)?;
    let id = URL_SAFE_NO_PAD.encode(digest(&SHA256, pair.public_key().as_ref()).as_ref().split_at(9).0);
    Ok(StoredKey {
        id: id.into(),
        algorithm: Algorithm::EdDSA.name().into(),
        private_key: Secret::new(pkcs8.as_ref().to_vec()),
        signs_from,
        verifies_until: None,
    })
}

async fn read(store: &dyn Store, clock: &Clock) -> Result<Stored, KeysError> {
    let mut keys = store.keys(clock.unix()).await?;
    if keys.is_empty() {
        // where another process is first, its key is the one that the store has then
        let _another_was_first = store.add_first_key(generate(clock.unix())?).await?;
        keys = store.keys(clock.unix()).await?;
    }
    let keys = keys.iter().map(parse).collect::<Result<_, _>>()?;
    Ok(Stored::at(keys, clock.unix())?)
}

fn parse(stored: &StoredKey) -> Result<TimedKey, KeysError> {
    let algorithm = Algorithm::from_name(&stored.algorithm).ok_or(KeysError::UnknownAlgorithm)?;
    let key = Key::from_pkcs8_der(&*stored.id, algorithm, stored.private_key.expose())?;
    Ok(TimedKey { key: Arc::new(key), signs_from: stored.signs_from, verifies_until: stored.verifies_until })
}

impl Stored {
    /// No key at all, until the next reload.
    fn none() -> Self {
        Self { keys: Vec::new(), ring: Arc::new(KeyRing(Vec::new())), until: UnixSeconds::MAX }
    }

    /// The ring at `now`: of the keys that sign already, the newest; those that have ended are left out.
    fn at(mut keys: Vec<TimedKey>, now: UnixSeconds) -> Result<Self, KeyError> {
        keys.retain(|key| key.verifies_until.is_none_or(|until| now < until));
        let rank = |key: &TimedKey| (key.verifies_until.is_none(), key.signs_from);
        let signer = keys
            .iter()
            .filter(|key| key.signs_from <= now)
            .max_by_key(|key| rank(key))
            // none has begun (our clock is behind the one that made it): the one that begins first
            .or_else(|| keys.iter().min_by_key(|key| key.signs_from))
            .ok_or(KeyError::NoKey)?;
        let signer = Arc::clone(&signer.key);
        let rest = keys.iter().map(|key| &key.key).filter(|key| !Arc::ptr_eq(key, &signer)).cloned();
        let ring = Arc::new(KeyRing::of(std::iter::once(Arc::clone(&signer)).chain(rest).collect())?);
        let turns = keys.iter().flat_map(|key| [Some(key.signs_from), key.verifies_until]).flatten();
        let until = turns.filter(|&turn| turn > now).min().unwrap_or(UnixSeconds::MAX);
        Ok(Self { keys, ring, until })
    }
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::STANDARD;
    use rcgen::{KeyPair as Generated, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};

    use super::super::bearer::{JwtKind, read};
    use super::super::tests::{claims, jwt_settings};
    use super::*;

    fn rsa_pem() -> String {
        use aws_lc_rs::encoding::Pkcs8V1Der;
        let pair = RsaKeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).unwrap();
        let der: Pkcs8V1Der<'_> = pair.as_der().unwrap();
        format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", STANDARD.encode(der.as_ref()))
    }

    fn public_of(key: &Key) -> String {
        let Verifier::Public(public) = &key.verifier else { panic!("a secret") };
        let der: PublicKeyX509Der<'_> = public.as_der().unwrap();
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(der.as_ref()))
    }

    fn hmac(id: &str, algorithm: Algorithm) -> Key {
        Key::hmac(id, algorithm, Secret::new(b"canary".to_vec())).unwrap()
    }

    #[test]
    fn a_secret_is_short_that_has_fewer_bytes_than_its_hash() {
        for (algorithm, bytes_min) in [(Algorithm::HS256, 32), (Algorithm::HS384, 48), (Algorithm::HS512, 64)] {
            for (bytes, is_short) in [(1, true), (bytes_min - 1, true), (bytes_min, false), (bytes_min + 1, false)] {
                let key = Key::hmac("k", algorithm, Secret::new(vec![b'x'; bytes])).unwrap();
                assert_eq!(key.is_short(), is_short, "{algorithm:?}, {bytes} bytes");
            }
        }
        assert_eq!(Algorithm::EdDSA.secret_bytes_min(), None);
    }

    #[test]
    fn every_algorithm_signs_what_it_verifies_and_its_public_key_verifies_too() {
        let rsa = rsa_pem();
        let [p256, p384, ed25519] = [&PKCS_ECDSA_P256_SHA256, &PKCS_ECDSA_P384_SHA384, &PKCS_ED25519]
            .map(|algorithm| Generated::generate_for(algorithm).unwrap().serialize_pem());
        for algorithm in Algorithm::ALL {
            let key = match algorithm.family() {
                Family::Hmac(_) => hmac("k", algorithm),
                Family::Rsa(..) => Key::private_pem("k", algorithm, rsa.as_bytes()).unwrap(),
                Family::Ecdsa(_, _, "P-256") => Key::private_pem("k", algorithm, p256.as_bytes()).unwrap(),
                Family::Ecdsa(..) => Key::private_pem("k", algorithm, p384.as_bytes()).unwrap(),
                Family::Ed25519 => Key::private_pem("k", algorithm, ed25519.as_bytes()).unwrap(),
            };
            let mut rings = Vec::new();
            if !algorithm.is_hmac() {
                let public = Key::public_pem("k", algorithm, public_of(&key).as_bytes()).unwrap();
                assert_eq!(KeyRing::new(vec![public]).unwrap_err(), KeyError::CannotSign);
                let public = Key::public_pem("k", algorithm, public_of(&key).as_bytes()).unwrap();
                rings.push(KeyRing::new(vec![hmac("signs", Algorithm::HS256), public]).unwrap());
            }
            let ring = KeyRing::new(vec![key]).unwrap();
            let all = claims(json!({ "iss": "portcullis", "sub": "ann", "exp": 2_000_000_000 }));
            let token = ring.sign("at+jwt", &all).unwrap();
            rings.push(ring);
            for ring in &rings {
                let settings = jwt_settings();
                let found = read(&token, &settings, ring, JwtKind::Access, 1_800_000_000).unwrap();
                assert_eq!(&*found.subject.name, "ann", "{algorithm:?}");
                let (head, rest) = token.split_at(token.find('.').unwrap() + 5);
                let other = if rest.starts_with('A') { "B" } else { "A" };
                let forged = format!("{head}{other}{}", rest.split_at(1).1);
                let fault = read(&forged, &settings, ring, JwtKind::Access, 1_800_000_000).unwrap_err();
                assert_eq!(fault, TokenFault::BadSignature, "{algorithm:?}");
            }
        }
    }

    #[test]
    fn a_key_that_does_not_fit_is_refused() {
        let p256 = Generated::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let (private, public) = (p256.serialize_pem(), p256.public_key_pem());
        for (name, result, expected) in [
            ("an empty secret", Key::hmac("k", Algorithm::HS256, Secret::new(Vec::new())), KeyError::EmptySecret),
            ("a secret for RSA", Key::hmac("k", Algorithm::RS256, Secret::new(vec![1])), KeyError::WrongType),
            (
                "a private key for HMAC",
                Key::private_pem("k", Algorithm::HS256, private.as_bytes()),
                KeyError::WrongType,
            ),
            ("a public key for HMAC", Key::public_pem("k", Algorithm::HS256, public.as_bytes()), KeyError::WrongType),
            ("another curve", Key::private_pem("k", Algorithm::ES384, private.as_bytes()), KeyError::WrongType),
            ("another curve, public", Key::public_pem("k", Algorithm::ES384, public.as_bytes()), KeyError::WrongType),
            ("another type", Key::private_pem("k", Algorithm::EdDSA, private.as_bytes()), KeyError::WrongType),
            ("another type, public", Key::public_pem("k", Algorithm::EdDSA, public.as_bytes()), KeyError::WrongType),
            ("RSA of a curve", Key::public_pem("k", Algorithm::RS256, public.as_bytes()), KeyError::WrongType),
            (
                "a public key to sign with",
                Key::private_pem("k", Algorithm::ES256, public.as_bytes()),
                KeyError::NotPrivate,
            ),
            (
                "a private key to verify with",
                Key::public_pem("k", Algorithm::ES256, private.as_bytes()),
                KeyError::NotPublic,
            ),
            ("no PEM", Key::private_pem("k", Algorithm::ES256, b"secret"), KeyError::NotPem),
            ("RSA of 1024 bits", Key::public_pem("k", Algorithm::RS256, RSA_1024.as_bytes()), KeyError::WrongSize),
        ] {
            assert_eq!(result.unwrap_err(), expected, "{name}");
        }
    }

    const RSA_1024: &str = "-----BEGIN PUBLIC KEY-----\n\
        MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDewZJUi1Df8/o374DYzAjY8f7K\n\
        882Rr0+d3IX/LRi/fslCyvwkXWyeJZNjAUzqowV5PWmeEfzICJIreIsft7G/ky2/\n\
        qe2kpWzSCpn5qXv+vXHbmkLOwEzGZAfjzcpwiwXM8tPDQylEAx2ZHvpgxkr9gCUz\n\
        9oKZSnf91KjZvTKtGQIDAQAB\n\
        -----END PUBLIC KEY-----\n";

    #[test]
    fn a_ring_needs_keys_that_can_be_told_apart() {
        assert_eq!(KeyRing::new(Vec::new()).unwrap_err(), KeyError::NoKey);
        let twice = vec![hmac("k", Algorithm::HS256), hmac("k", Algorithm::HS512)];
        assert_eq!(KeyRing::new(twice).unwrap_err(), KeyError::DuplicateId);
    }

    #[test]
    fn public_keys_are_published_and_nothing_else() {
        let [p256, ed25519] = [&PKCS_ECDSA_P256_SHA256, &PKCS_ED25519]
            .map(|algorithm| Generated::generate_for(algorithm).unwrap().serialize_pem());
        let ring = KeyRing::new(vec![
            hmac("secret", Algorithm::HS256),
            Key::private_pem("ec", Algorithm::ES256, p256.as_bytes()).unwrap(),
            Key::private_pem("ed", Algorithm::EdDSA, ed25519.as_bytes()).unwrap(),
            Key::private_pem("rsa", Algorithm::PS256, rsa_pem().as_bytes()).unwrap(),
        ])
        .unwrap();
        let jwks = ring.jwks();
        let members: Vec<Vec<&String>> =
            jwks["keys"].as_array().unwrap().iter().map(|key| key.as_object().unwrap().keys().collect()).collect();
        assert_eq!(
            members,
            [
                &["kty", "crv", "x", "y", "use", "alg", "kid"][..],
                &["kty", "crv", "x", "use", "alg", "kid"],
                &["kty", "n", "e", "use", "alg", "kid"]
            ]
        );
        for (at, member, length) in [(0, "x", 43), (0, "y", 43), (1, "x", 43), (2, "n", 342), (2, "e", 4)] {
            assert_eq!(jwks["keys"][at][member].as_str().unwrap().len(), length, "{member}");
        }
        assert_eq!(
            format!("{ring:?}"),
            "[Key { id: \"secret\", algorithm: HS256, .. }, Key { id: \"ec\", algorithm: ES256, .. }, \
             Key { id: \"ed\", algorithm: EdDSA, .. }, Key { id: \"rsa\", algorithm: PS256, .. }]"
        );
    }

    /// `jsonwebtoken`, which shares the cryptography with us but nothing else.
    #[test]
    fn another_library_reads_our_tokens_and_we_read_its() {
        use jsonwebtoken::jwk::JwkSet;
        use jsonwebtoken::{Algorithm as Theirs, DecodingKey, EncodingKey, Header, Validation, decode, encode};

        type Encode = fn(&[u8]) -> jsonwebtoken::errors::Result<EncodingKey>;

        let pem = |algorithm| Generated::generate_for(algorithm).unwrap().serialize_pem();
        for (ours, theirs, pem, encoding) in [
            (Algorithm::ES256, Theirs::ES256, pem(&PKCS_ECDSA_P256_SHA256), EncodingKey::from_ec_pem as Encode),
            (Algorithm::ES384, Theirs::ES384, pem(&PKCS_ECDSA_P384_SHA384), EncodingKey::from_ec_pem),
            (Algorithm::EdDSA, Theirs::EdDSA, pem(&PKCS_ED25519), EncodingKey::from_ed_pem),
            (Algorithm::RS256, Theirs::RS256, rsa_pem(), EncodingKey::from_rsa_pem),
            (Algorithm::PS256, Theirs::PS256, rsa_pem(), EncodingKey::from_rsa_pem),
        ] {
            let ring = KeyRing::new(vec![Key::private_pem("k1", ours, pem.as_bytes()).unwrap()]).unwrap();
            let said = claims(json!({ "iss": "portcullis", "sub": "ann", "iat": 1, "exp": 4_000_000_000_i64 }));

            let jwks: JwkSet = serde_json::from_value(ring.jwks()).unwrap();
            let key = DecodingKey::from_jwk(jwks.find("k1").unwrap()).unwrap();
            let token = ring.sign("JWT", &said).unwrap();
            let read_back = decode::<Value>(&token, &key, &Validation::new(theirs)).unwrap();
            assert_eq!(read_back.claims["sub"], "ann", "{theirs:?}");

            let token = encode(&Header::new(theirs), &said, &encoding(pem.as_bytes()).unwrap()).unwrap();
            let read_by_us = read(&token, &jwt_settings(), &ring, JwtKind::Access, 1_800_000_000).unwrap();
            assert_eq!(&*read_by_us.subject.name, "ann", "{theirs:?}");
        }
    }
}
