//! One key, bound to its one algorithm. It is parsed once, here, and never printed.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair, ParsedPublicKey, RsaEncoding, RsaKeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls::pki_types::pem::{PemObject, SectionKind};
use serde_json::{Map, Value};
use x509_parser::prelude::{FromDer, SubjectPublicKeyInfo};
use x509_parser::public_key::PublicKey;
use zeroize::Zeroizing;

use crate::secret::Secret;

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
pub(super) enum Family {
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
    pub(super) fn family(self) -> Family {
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

pub(super) enum Verifier {
    Hmac(Box<hmac::Key>),
    Public(ParsedPublicKey),
}

/// One key, bound to its one algorithm.
pub struct Key {
    id: Box<str>,
    algorithm: Algorithm,
    signer: Option<Signer>,
    pub(super) verifier: Verifier,
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
    pub(in crate::authenticate) fn public_der(
        id: impl Into<Box<str>>,
        algorithm: Algorithm,
        spki: &[u8],
    ) -> Result<Self, KeyError> {
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
    pub(in crate::authenticate) const fn fingerprint(&self) -> &[u8; 32] {
        &self.fingerprint
    }

    /// As it is published; `None` for HMAC.
    pub(super) const fn jwk(&self) -> Option<&Map<String, Value>> {
        self.jwk.as_ref()
    }

    /// Whether its private part is here.
    pub(super) const fn signs(&self) -> bool {
        self.signer.is_some()
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

    /// # Errors
    /// It has no private part, or the library could not.
    pub(super) fn sign(&self, input: &[u8]) -> Result<Vec<u8>, KeyError> {
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
    pub(in crate::authenticate) fn verifies(&self, input: &[u8], signature: &[u8]) -> bool {
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
