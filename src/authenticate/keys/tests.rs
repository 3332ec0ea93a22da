//! Every algorithm, and whatever does not fit.

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::signature::RsaKeyPair;
use base64::engine::general_purpose::STANDARD;
use rcgen::{KeyPair as Generated, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};
use serde_json::{Value, json};

use super::super::bearer::{JwtKind, read};
use super::super::tests::{claims, jwt_settings};
use super::key::{Family, Verifier};
use super::*;
use crate::rejection::TokenFault;

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
        ("a private key for HMAC", Key::private_pem("k", Algorithm::HS256, private.as_bytes()), KeyError::WrongType),
        ("a public key for HMAC", Key::public_pem("k", Algorithm::HS256, public.as_bytes()), KeyError::WrongType),
        ("another curve", Key::private_pem("k", Algorithm::ES384, private.as_bytes()), KeyError::WrongType),
        ("another curve, public", Key::public_pem("k", Algorithm::ES384, public.as_bytes()), KeyError::WrongType),
        ("another type", Key::private_pem("k", Algorithm::EdDSA, private.as_bytes()), KeyError::WrongType),
        ("another type, public", Key::public_pem("k", Algorithm::EdDSA, public.as_bytes()), KeyError::WrongType),
        ("RSA of a curve", Key::public_pem("k", Algorithm::RS256, public.as_bytes()), KeyError::WrongType),
        ("a public key to sign with", Key::private_pem("k", Algorithm::ES256, public.as_bytes()), KeyError::NotPrivate),
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
