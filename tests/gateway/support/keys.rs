//! Keys, certificates and tokens made on the spot. Tokens are put together by hand, so that wrong ones can be made too.

use std::sync::Arc;

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256};
use aws_lc_rs::{hmac, rsa};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use serde_json::{Value, json};

use super::wait::unix_now;

/// A key that signs tokens.
pub enum Signer {
    Hmac(&'static str, Vec<u8>),
    Rsa(Box<rsa::KeyPair>),
    Ecdsa(Box<EcdsaKeyPair>, Vec<u8>),
    Ed25519(Box<Ed25519KeyPair>, Vec<u8>),
}

impl Signer {
    pub fn hs256(secret: &str) -> Self {
        Self::Hmac("HS256", secret.as_bytes().to_vec())
    }

    pub fn hs512(secret: &str) -> Self {
        Self::Hmac("HS512", secret.as_bytes().to_vec())
    }

    pub fn rs256() -> Self {
        Self::Rsa(Box::new(rsa::KeyPair::generate(rsa::KeySize::Rsa2048).unwrap()))
    }

    pub fn es256() -> Self {
        let der = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new()).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der.as_ref()).unwrap();
        Self::Ecdsa(Box::new(pair), der.as_ref().to_vec())
    }

    pub fn eddsa() -> Self {
        let der = Ed25519KeyPair::generate_pkcs8v1(&SystemRandom::new()).unwrap();
        Self::Ed25519(Box::new(Ed25519KeyPair::from_pkcs8(der.as_ref()).unwrap()), der.as_ref().to_vec())
    }

    pub fn algorithm(&self) -> &'static str {
        match self {
            Self::Hmac(name, _) => name,
            Self::Rsa(_) => "RS256",
            Self::Ecdsa(..) => "ES256",
            Self::Ed25519(..) => "EdDSA",
        }
    }

    /// The private key as PKCS#8 in PEM.
    pub fn pem(&self) -> String {
        let der = match self {
            Self::Hmac(..) => panic!("a secret has no PEM"),
            Self::Rsa(pair) => AsDer::<aws_lc_rs::encoding::Pkcs8V1Der<'_>>::as_der(&**pair).unwrap().as_ref().to_vec(),
            Self::Ecdsa(_, der) | Self::Ed25519(_, der) => der.clone(),
        };
        pem("PRIVATE KEY", &der)
    }

    /// The public key as `SubjectPublicKeyInfo` in PEM, for the attack that takes it as an HMAC secret.
    pub fn public_pem(&self) -> String {
        let der = match self {
            Self::Hmac(..) => panic!("a secret has no public key"),
            Self::Rsa(pair) => {
                AsDer::<aws_lc_rs::encoding::PublicKeyX509Der<'_>>::as_der(pair.public_key()).unwrap().as_ref().to_vec()
            }
            Self::Ecdsa(pair, _) => {
                AsDer::<aws_lc_rs::encoding::PublicKeyX509Der<'_>>::as_der(pair.public_key()).unwrap().as_ref().to_vec()
            }
            Self::Ed25519(pair, _) => {
                AsDer::<aws_lc_rs::encoding::PublicKeyX509Der<'_>>::as_der(pair.public_key()).unwrap().as_ref().to_vec()
            }
        };
        pem("PUBLIC KEY", &der)
    }

    /// The public key as a JWK Set; of Ed25519.
    pub fn jwks(&self, kid: &str) -> Value {
        let Self::Ed25519(pair, _) = self else { panic!("only of Ed25519") };
        json!({ "keys": [{ "kty": "OKP", "crv": "Ed25519", "x": encode(pair.public_key()), "kid": kid, "use": "sig" }] })
    }

    /// A token with this header and these claims, whatever they say.
    pub fn sign(&self, header: &Value, claims: &Value) -> String {
        let text = format!("{}.{}", encode(header.to_string()), encode(claims.to_string()));
        let signature = match self {
            Self::Hmac(name, secret) => {
                let algorithm = if *name == "HS512" { hmac::HMAC_SHA512 } else { hmac::HMAC_SHA256 };
                hmac::sign(&hmac::Key::new(algorithm, secret), text.as_bytes()).as_ref().to_vec()
            }
            Self::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), text.as_bytes(), &mut signature).unwrap();
                signature
            }
            Self::Ecdsa(pair, _) => pair.sign(&SystemRandom::new(), text.as_bytes()).unwrap().as_ref().to_vec(),
            Self::Ed25519(pair, _) => pair.sign(text.as_bytes()).as_ref().to_vec(),
        };
        format!("{text}.{}", encode(signature))
    }

    /// A token with the usual header and these claims.
    pub fn token(&self, claims: &Value) -> String {
        self.sign(&json!({ "alg": self.algorithm(), "typ": "JWT", "kid": "k1" }), claims)
    }

    /// A token of `subject` that is good for an hour.
    pub fn good(&self, subject: &str) -> String {
        self.token(&claims(subject))
    }
}

/// Claims of `subject` as our gateways want them by default.
pub fn claims(subject: &str) -> Value {
    json!({ "iss": "portcullis", "sub": subject, "iat": unix_now() - 1, "exp": unix_now() + 3600 })
}

/// The claims of a token, unverified.
pub fn claims_of(token: &str) -> Value {
    part(token, 1)
}

/// The header of a token, unverified.
pub fn header_of(token: &str) -> Value {
    part(token, 0)
}

fn part(token: &str, at: usize) -> Value {
    let part = token.split('.').nth(at).unwrap_or_else(|| panic!("not a JWT: {token}"));
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

pub fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

/// A self-signed certificate for some names.
pub struct Certificate {
    pub cert: String,
    pub key: String,
}

impl Certificate {
    pub fn of(names: &[&str]) -> Self {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        Self { cert: made.cert.pem(), key: made.signing_key.serialize_pem() }
    }

    pub fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.cert.as_bytes()).unwrap()
    }
}

/// A TLS client that takes any certificate, and tells which it was shown.
#[derive(Debug)]
pub struct Trusting {
    provider: Arc<rustls::crypto::CryptoProvider>,
    shown: std::sync::Mutex<Option<CertificateDer<'static>>>,
}

impl Trusting {
    pub fn new() -> Arc<Self> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        Arc::new(Self { provider, shown: std::sync::Mutex::default() })
    }

    /// For these versions and protocols.
    pub fn config(
        self: &Arc<Self>,
        versions: &[&'static rustls::SupportedProtocolVersion],
        protocols: &[&str],
    ) -> Arc<rustls::ClientConfig> {
        let builder = rustls::ClientConfig::builder_with_provider(self.provider.clone());
        let builder = builder.with_protocol_versions(versions).unwrap().dangerous();
        let mut config = builder.with_custom_certificate_verifier(self.clone()).with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config)
    }

    pub fn shown(&self) -> CertificateDer<'static> {
        self.shown.lock().unwrap().clone().expect("a handshake")
    }
}

impl rustls::client::danger::ServerCertVerifier for Trusting {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        *self.shown.lock().unwrap() = Some(certificate.clone().into_owned());
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
