//! Tokens of issuers whose keys are served, changed, withheld and poisoned on the spot.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaPair, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair,
    RSA_PKCS1_SHA256, RSA_PKCS1_SHA512, RsaEncoding,
};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::super::ClaimPath;
use super::super::keys::KeyError;
use super::super::tests::Stage;
use super::jwks::{JWKS_BYTES_MAX, JwksError, LeftOut};
use super::*;
use crate::principal::SubjectKind;

const ISSUER: &str = "https://idp.example.com/realms/main";
const OTHER: &str = "https://other.example.com";
const DEADLINE: Duration = Duration::from_secs(30);

type Sign = Box<dyn Fn(&[u8]) -> Vec<u8> + Send + Sync>;

/// A key of an issuer.
struct Signer {
    algorithm: &'static str,
    kid: &'static str,
    sign: Sign,
    jwk: Value,
}

fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

impl Signer {
    fn es256(kid: &'static str) -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
        let jwk = json!({ "kty": "EC", "crv": "P-256", "x": encode(x), "y": encode(y), "kid": kid, "use": "sig" });
        let sign = move |input: &[u8]| pair.sign(&SystemRandom::new(), input).unwrap().as_ref().to_vec();
        Self { algorithm: "ES256", kid, sign: Box::new(sign), jwk }
    }

    fn es384(kid: &'static str) -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap();
        let (x, y) = pair.public_key().as_ref()[1..].split_at(48);
        let jwk = json!({ "kty": "EC", "crv": "P-384", "x": encode(x), "y": encode(y), "kid": kid });
        let sign = move |input: &[u8]| pair.sign(&SystemRandom::new(), input).unwrap().as_ref().to_vec();
        Self { algorithm: "ES384", kid, sign: Box::new(sign), jwk }
    }

    fn eddsa(kid: &'static str) -> Self {
        let pair = Ed25519KeyPair::generate().unwrap();
        let jwk = json!({ "kty": "OKP", "crv": "Ed25519", "x": encode(pair.public_key()), "kid": kid, "alg": "EdDSA" });
        Self { algorithm: "EdDSA", kid, sign: Box::new(move |input| pair.sign(input).as_ref().to_vec()), jwk }
    }

    /// Two of one key: for RS256 and for RS512.
    fn rsa(kid: &'static str) -> [Self; 2] {
        let pair = Arc::new(RsaPair::generate(KeySize::Rsa2048).unwrap());
        let public = pair.public_key();
        let (n, e) = (public.modulus().big_endian_without_leading_zero(), public.exponent());
        let jwk = json!({ "kty": "RSA", "n": encode(n), "e": encode(e.big_endian_without_leading_zero()), "kid": kid });
        let of = |algorithm, encoding: &'static dyn RsaEncoding| {
            let (pair, jwk) = (Arc::clone(&pair), jwk.clone());
            let sign = move |input: &[u8]| {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(encoding, &SystemRandom::new(), input, &mut signature).unwrap();
                signature
            };
            Self { algorithm, kid, sign: Box::new(sign), jwk }
        };
        [of("RS256", &RSA_PKCS1_SHA256), of("RS512", &RSA_PKCS1_SHA512)]
    }

    fn with(&self, header: &Value, claims: &Value) -> String {
        let input = format!("{}.{}", encode(header.to_string()), encode(claims.to_string()));
        let signature = encode((self.sign)(input.as_bytes()));
        format!("{input}.{signature}")
    }

    fn header(&self) -> Value {
        json!({ "alg": self.algorithm, "typ": "JWT", "kid": self.kid })
    }

    fn token(&self, claims: &Value) -> String {
        self.with(&self.header(), claims)
    }
}

fn set<'s>(signers: impl IntoIterator<Item = &'s Signer>) -> String {
    json!({ "keys": signers.into_iter().map(|signer| &signer.jwk).collect::<Vec<_>>() }).to_string()
}

/// Good now, for Ann.
fn ann(stage: &Stage) -> Value {
    let now = stage.clock.unix();
    json!({ "iss": ISSUER, "sub": "ann", "aud": "orders", "iat": now, "exp": now + 900, "jti": "j1",
        "preferred_username": "ann", "realm_access": { "roles": ["user", "admin"] } })
}

fn changed(claims: &Value, name: &str, value: Value) -> Value {
    let mut claims = claims.clone();
    claims[name] = value;
    claims
}

fn issuer_of(name: &str, algorithms: &[Algorithm], jwks: Jwks) -> Issuer {
    let id = IssuerId::of(name);
    let path = |steps: &[&str]| ClaimPath(steps.iter().map(|&step| step.into()).collect());
    Issuer {
        id,
        claims: JwtSettings {
            audience: vec!["orders".into()],
            roles: RoleSource::Claim(path(&["realm_access", "roles"])),
            subject: path(&["preferred_username"]),
            subject_kind: SubjectKind::Foreign(id),
            ..JwtSettings::of(name)
        },
        algorithms: algorithms.to_vec(),
        user_prefix: "".into(),
        jwks,
    }
}

const BOTH: &[Algorithm] = &[Algorithm::ES256, Algorithm::RS256];

fn of_file(signers: &[&Signer], algorithms: &[Algorithm]) -> Jwks {
    Jwks::File(KeySet::parse(set(signers.iter().copied()).as_bytes(), algorithms).unwrap())
}

/// What an issuer's server answers.
#[derive(Clone)]
enum Reply {
    Set(String),
    Raw(Vec<u8>),
    /// A body that never ends, as fast as it is read.
    Endless,
    /// Nothing, ever.
    Silence,
}

/// The server of an issuer's keys.
struct Idp {
    reply: Arc<Mutex<Reply>>,
    fetches: Arc<AtomicUsize>,
    location: Arc<Location>,
}

impl Idp {
    async fn serving(body: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (reply, fetches) = (Arc::new(Mutex::new(Reply::Set(body))), Arc::new(AtomicUsize::new(0)));
        let (of_server, counted) = (Arc::clone(&reply), Arc::clone(&fetches));
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (reply, counted) = (Arc::clone(&of_server), Arc::clone(&counted));
                tokio::spawn(async move { answer(socket, &reply, &counted).await });
            }
        });
        Self { reply, fetches, location: location(port) }
    }

    fn now(&self, reply: Reply) {
        *self.reply.lock().unwrap() = reply;
    }

    fn fetches(&self) -> usize {
        self.fetches.load(Ordering::SeqCst)
    }
}

fn location(port: u16) -> Arc<Location> {
    Arc::new(Location {
        url: format!("http://127.0.0.1:{port}/keys").into(),
        host: "127.0.0.1".into(),
        port,
        authority: format!("127.0.0.1:{port}").into(),
        target: "/keys".into(),
        tls: None,
    })
}

async fn answer(mut socket: TcpStream, reply: &Mutex<Reply>, fetches: &AtomicUsize) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = socket.read_u8().await else { return };
        head.push(byte);
    }
    assert!(head.starts_with(b"GET /keys HTTP/1.1\r\n"));
    fetches.fetch_add(1, Ordering::SeqCst);
    let now = reply.lock().unwrap().clone();
    let bytes = match now {
        Reply::Set(body) => format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes(),
        Reply::Raw(bytes) => bytes,
        Reply::Endless => {
            socket.write_all(b"HTTP/1.1 200 OK\r\n\r\n{\"keys\":[").await.unwrap();
            while socket.write_all(&[b' '; 4096]).await.is_ok() {}
            return;
        }
        Reply::Silence => return std::future::pending().await,
    };
    // whoever has seen enough may be gone
    socket.write_all(&bytes).await.ok();
}

/// Waits for what other tasks bring about.
async fn until(what: &str, mut met: impl FnMut() -> bool) {
    let waited = tokio::time::timeout(DEADLINE, async {
        while !met() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("not within {DEADLINE:?}: {what}"));
}

impl Stage {
    async fn believing(issuers: Vec<Issuer>) -> Self {
        let mut stage = Self::new().await;
        stage.believe(issuers);
        stage
    }

    fn believe(&mut self, issuers: Vec<Issuer>) {
        self.settings.issuers = issuers.into();
        self.authenticator.configure(&self.settings, &Handle::current());
    }

    /// Waits until a token fares so.
    async fn becomes(&self, token: &str, outcome: &str) {
        let asked = async {
            while self.of(token).await != outcome {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(DEADLINE, asked).await.unwrap_or_else(|_| panic!("not {outcome} within {DEADLINE:?}"));
    }

    async fn of(&self, token: &str) -> &'static str {
        self.outcome(&format!("Bearer {token}")).await
    }
}

#[test]
fn a_set_gives_public_keys_for_signatures_and_no_others() {
    let (ec, larger) = (Signer::es256("k").jwk, Signer::es384("k").jwk);
    let [rsa, _] = Signer::rsa("k").map(|signer| signer.jwk);
    let ed = Signer::eddsa("k").jwk;
    let with = |jwk: &Value, name: &str, value: Value| changed(jwk, name, value);
    let all = super::super::keys::Algorithm::ALL.into_iter().filter(|one| !one.is_hmac()).collect::<Vec<_>>();
    let size = |bytes: usize| encode([&[0xc1][..], &vec![0x35; bytes - 1]].concat());
    for (name, jwk, expected) in [
        ("EC", ec.clone(), Ok(1)),
        ("EC, a larger curve", larger, Ok(1)),
        ("Ed25519", ed.clone(), Ok(1)),
        ("RSA, for each of its algorithms", rsa.clone(), Ok(6)),
        ("RSA for one", with(&rsa, "alg", "PS384".into()), Ok(1)),
        ("without kid", with(&ec, "kid", "".into()), Ok(1)),
        ("what we do not know beside", with(&ec, "x5t", "a".into()), Ok(1)),
        ("a shared secret", json!({ "kty": "oct", "k": "c2VjcmV0", "alg": "HS256" }), Err(LeftOut::Secret)),
        ("a public key said to be for HMAC", with(&rsa, "alg", "HS256".into()), Err(LeftOut::NotListed)),
        ("an algorithm of another type", with(&ec, "alg", "RS256".into()), Err(LeftOut::NotListed)),
        ("an algorithm of another curve", with(&ec, "alg", "ES384".into()), Err(LeftOut::NotListed)),
        ("alg none", with(&ec, "alg", "none".into()), Err(LeftOut::NotListed)),
        ("a private key", with(&ec, "d", "AA".into()), Err(LeftOut::Private)),
        ("an RSA key with a prime", with(&rsa, "p", "AA".into()), Err(LeftOut::Private)),
        ("for encryption", with(&ec, "use", "enc".into()), Err(LeftOut::NotForSignatures)),
        ("use a list", with(&ec, "use", json!(["sig"])), Err(LeftOut::Malformed)),
        ("only to encrypt", with(&rsa, "key_ops", json!(["encrypt"])), Err(LeftOut::NotForSignatures)),
        ("to verify", with(&rsa, "key_ops", json!(["verify"])), Ok(6)),
        ("another curve", with(&ec, "crv", "P-521".into()), Err(LeftOut::NotListed)),
        ("the curve of other coordinates", with(&ec, "crv", "P-384".into()), Err(LeftOut::Malformed)),
        ("X25519", with(&ed, "crv", "X25519".into()), Err(LeftOut::NotListed)),
        ("a point that is not on the curve", with(&ec, "y", ec["x"].clone()), Err(KeyError::WrongType.into())),
        (
            "the point at infinity",
            with(&with(&ec, "x", encode([0; 32]).into()), "y", encode([0; 32]).into()),
            Err(KeyError::WrongType.into()),
        ),
        ("a coordinate too short", with(&ec, "x", encode([1; 31]).into()), Err(LeftOut::Malformed)),
        ("a coordinate that is no base64url", with(&ec, "x", "+/==".into()), Err(LeftOut::Malformed)),
        ("a coordinate missing", json!({ "kty": "EC", "crv": "P-256", "x": ec["x"] }), Err(LeftOut::Malformed)),
        ("RSA of 1024 bits", with(&rsa, "n", size(128).into()), Err(KeyError::WrongSize.into())),
        (
            "RSA of 2047 bits",
            with(&rsa, "n", encode([&[0x41][..], &[0x35; 255]].concat()).into()),
            Err(KeyError::WrongSize.into()),
        ),
        ("RSA of 16384 bits", with(&rsa, "n", size(2048).into()), Err(KeyError::WrongSize.into())),
        ("RSA of nothing", with(&rsa, "n", "".into()), Err(KeyError::WrongSize.into())),
        ("RSA with an exponent of 1", with(&rsa, "e", "AQ".into()), Err(KeyError::WrongType.into())),
        ("kty missing", json!({ "kid": "k" }), Err(LeftOut::Malformed)),
        ("kty unknown", json!({ "kty": "AKP" }), Err(LeftOut::NotListed)),
        (
            "a certificate to follow",
            json!({ "kty": "RSA", "x5u": "https://attacker.example/" }),
            Err(LeftOut::Malformed),
        ),
        ("no object", json!("key"), Err(LeftOut::Malformed)),
    ] {
        let found = KeySet::parse(json!({ "keys": [jwk] }).to_string().as_bytes(), &all);
        let found = found.map(|keys| keys.len()).map_err(|error| match error {
            JwksError::NothingUsable(why) => why,
            JwksError::NotASet | JwksError::TooMany => panic!("{name}: {error}"),
        });
        assert_eq!(found, expected, "{name}");
    }
    // of a few keys those that are good
    let mixed =
        json!({ "keys": [ec, { "kty": "oct", "k": "c2VjcmV0" }, 7, with(&rsa, "use", "enc".into())] }).to_string();
    let keys = KeySet::parse(mixed.as_bytes(), &all).unwrap();
    assert_eq!((keys.len(), keys.left_out()), (1, 3));
    assert_eq!(
        KeySet::parse(mixed.as_bytes(), &[Algorithm::RS256]).unwrap_err(),
        JwksError::NothingUsable(LeftOut::NotListed)
    );
}

#[test]
fn a_set_is_one_object_of_a_few_keys() {
    let key = Signer::es256("k").jwk;
    let of = |count: usize| json!({ "keys": vec![&key; count] }).to_string();
    for (name, text, expected) in [
        ("none", r#"{"keys":[]}"#.to_owned(), Ok(0)),
        ("as many as may be", of(64), Ok(64)),
        ("one more", of(65), Err(JwksError::TooMany)),
        ("no list", r#"{"keys":{}}"#.to_owned(), Err(JwksError::NotASet)),
        ("no keys", r#"{"error":"down"}"#.to_owned(), Err(JwksError::NotASet)),
        ("a list", "[]".to_owned(), Err(JwksError::NotASet)),
        ("two lists", format!(r#"{{"keys":[],"keys":[{key}]}}"#), Err(JwksError::NotASet)),
        ("HTML", "<html>".to_owned(), Err(JwksError::NotASet)),
        ("nothing", String::new(), Err(JwksError::NotASet)),
        ("deep", format!("{{\"keys\":{}", "[".repeat(100_000)), Err(JwksError::NotASet)),
    ] {
        assert_eq!(KeySet::parse(text.as_bytes(), BOTH).map(|keys| keys.len()), expected, "{name}");
    }
}

#[tokio::test]
async fn a_token_of_an_issuer_opens_by_that_issuers_keys_and_nothing_else() {
    let (ec, another, ed) = (Signer::es256("ec"), Signer::es256("ec"), Signer::eddsa("ed"));
    let [rs256, rs512] = Signer::rsa("rsa");
    let (unnamed, theirs) = (Signer::es256(""), Signer::es256("theirs"));
    let mut stage = Stage::believing(vec![
        issuer_of(ISSUER, BOTH, of_file(&[&ec, &rs256, &unnamed], BOTH)),
        issuer_of(OTHER, BOTH, of_file(&[&theirs], BOTH)),
    ])
    .await;
    // the secret of our own ring is known to this test; a ring with an issuer's public key as secret is what is attacked
    stage.settings.cache.negative_ttl = Duration::ZERO;
    let good = ann(&stage);
    let mac = |secret: &[u8], header: Value, claims: &Value| {
        let input = format!("{}.{}", encode(header.to_string()), encode(claims.to_string()));
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
        format!("{input}.{}", encode(hmac::sign(&key, input.as_bytes())))
    };
    let spki: PublicKeyX509Der<'_> = RsaPair::generate(KeySize::Rsa2048).unwrap().public_key().as_der().unwrap();
    let x = URL_SAFE_NO_PAD.decode(ec.jwk["x"].as_str().unwrap()).unwrap();
    let header = |alg: &str, kid: &str| json!({ "alg": alg, "kid": kid });
    let jwk = |signer: &Signer| changed(&signer.header(), "jwk", theirs.jwk.clone());
    let jku = |url: &str| changed(&theirs.header(), "jku", url.into());
    for (name, token, expected) in [
        ("by its EC key", ec.token(&good), "ok"),
        ("by its RSA key", rs256.token(&good), "ok"),
        ("without a kid", ec.with(&json!({ "alg": "ES256" }), &good), "ok"),
        ("without a kid, by a key without one", unnamed.with(&json!({ "alg": "ES256" }), &good), "ok"),
        ("of RFC 9068", ec.with(&changed(&ec.header(), "typ", "at+jwt".into()), &good), "ok"),
        ("an algorithm that is not listed, by a listed key", rs512.token(&good), "unsupported"),
        ("a type that is not listed", ed.token(&good), "unsupported"),
        ("another key under the same kid", another.token(&good), "bad_signature"),
        ("another key without a kid", another.with(&json!({ "alg": "ES256" }), &good), "bad_signature"),
        ("an empty kid", unnamed.with(&header("ES256", ""), &good), "bad_signature"),
        ("a kid that is a path", ec.with(&header("ES256", "../../ec"), &good), "bad_signature"),
        ("a kid for SQL", ec.with(&header("ES256", "ec' OR '1'='1"), &good), "bad_signature"),
        ("the kid of a key of another type", ec.with(&header("ES256", "rsa"), &good), "unsupported"),
        ("the key of another issuer", theirs.token(&good), "bad_signature"),
        ("the key of another issuer, in its name", ec.token(&changed(&good, "iss", OTHER.into())), "bad_signature"),
        ("a key in the token", another.with(&jwk(&another), &good), "bad_signature"),
        ("a key elsewhere", theirs.with(&jku("https://attacker.example/"), &good), "bad_signature"),
        ("HMAC with the coordinate as secret", mac(&x, header("HS256", "ec"), &good), "unsupported"),
        ("HMAC with a public key as secret", mac(spki.as_ref(), header("HS256", "rsa"), &good), "unsupported"),
        (
            "HMAC with the published text",
            mac(ec.jwk.to_string().as_bytes(), header("HS256", "ec"), &good),
            "unsupported",
        ),
        ("HMAC with our own secret", mac(super::super::tests::SECRET, header("HS256", "k1"), &good), "unsupported"),
        ("in our name by its key", ec.token(&changed(&good, "iss", "portcullis".into())), "bad_signature"),
        (
            "an issuer that begins like it",
            ec.token(&changed(&good, "iss", format!("{ISSUER}/").into())),
            "bad_signature",
        ),
        ("an issuer in capitals", ec.token(&changed(&good, "iss", ISSUER.to_uppercase().into())), "bad_signature"),
        ("two issuers", ec.token(&changed(&good, "iss", json!([ISSUER]))), "bad_signature"),
        ("alg none", format!("{}.{}.", encode(r#"{"alg":"none"}"#), encode(good.to_string())), "malformed"),
        ("no signature", format!("{}.", ec.token(&good).rsplit_once('.').unwrap().0), "bad_signature"),
        ("crit", ec.with(&changed(&ec.header(), "crit", json!(["exp"])), &good), "unsupported"),
    ] {
        // of what is no token at all nobody's `iss` is read: our own keys refuse it, each in its words
        let found = stage.of(&token).await;
        let expected = if name == "alg none" { "unsupported" } else { expected };
        assert_eq!(found, expected, "{name}");
    }
}

#[tokio::test]
async fn what_its_tokens_say_is_held_against_its_settings() {
    let key = Signer::es256("k");
    let stage = Stage::believing(vec![issuer_of(ISSUER, BOTH, of_file(&[&key], BOTH))]).await;
    let (good, now) = (ann(&stage), stage.clock.unix());
    let without = |name: &str| {
        let mut claims = good.clone();
        claims.as_object_mut().unwrap().remove(name);
        claims
    };
    let typ = |typ: &str| key.with(&changed(&key.header(), "typ", typ.into()), &good);
    for (name, token, expected) in [
        ("good", key.token(&good), "ok"),
        ("one of its audiences", key.token(&changed(&good, "aud", json!(["account", "orders"]))), "ok"),
        ("another audience", key.token(&changed(&good, "aud", "account".into())), "wrong_audience"),
        ("no audience", key.token(&without("aud")), "wrong_audience"),
        ("expired within the leeway", key.token(&changed(&good, "exp", (now - 20).into())), "ok"),
        ("expired past it", key.token(&changed(&good, "exp", (now - 31).into())), "expired"),
        ("no end", key.token(&without("exp")), "missing_claim"),
        ("not yet", key.token(&changed(&good, "nbf", (now + 60).into())), "not_yet_valid"),
        ("issued in the future", key.token(&changed(&good, "iat", (now + 60).into())), "not_yet_valid"),
        ("no name", key.token(&without("preferred_username")), "missing_subject"),
        ("an empty name", key.token(&changed(&good, "preferred_username", "".into())), "missing_subject"),
        ("a name of 256 bytes", key.token(&changed(&good, "preferred_username", "a".repeat(256).into())), "malformed"),
        ("a name of 255 bytes", key.token(&changed(&good, "preferred_username", "a".repeat(255).into())), "ok"),
        ("a name that is a list", key.token(&changed(&good, "preferred_username", json!(["ann"]))), "malformed"),
        ("a log-out token", typ("logout+jwt"), "wrong_type"),
        ("a refresh token", typ("rt+jwt"), "wrong_type"),
        ("an ID token of Keycloak", key.token(&changed(&good, "typ", "ID".into())), "wrong_type"),
        ("a refresh token of Keycloak", key.token(&changed(&good, "typ", "Refresh".into())), "wrong_type"),
        ("an access token of Keycloak", key.token(&changed(&good, "typ", "Bearer".into())), "ok"),
        ("an ID token of Cognito", key.token(&changed(&good, "token_use", "id".into())), "wrong_type"),
        ("claims of ours, which mean nothing there", key.token(&changed(&good, "sv", "five".into())), "ok"),
        ("two names", key.token(&good).clone(), "ok"),
    ] {
        assert_eq!(stage.of(&token).await, expected, "{name}");
    }
}

#[tokio::test]
async fn nobody_is_taken_for_another_of_the_same_name() {
    let (key, theirs) = (Signer::es256("k"), Signer::es256("k"));
    let mut prefixed = issuer_of(OTHER, BOTH, of_file(&[&theirs], BOTH));
    prefixed.user_prefix = "other:".into();
    let stage = Stage::believing(vec![issuer_of(ISSUER, BOTH, of_file(&[&key], BOTH)), prefixed]).await;
    let identity = async |credential: String| stage.ask(&credential).await.unwrap();
    // whatever claims say of kind and of us
    let mut claims = ann(&stage);
    for (name, value) in
        [("sub_type", json!("client")), ("client_id", json!("ann")), ("sv", json!(1)), ("sid", json!("f"))]
    {
        claims[name] = value;
    }
    let ours = identity(stage.bearer(json!({}))).await;
    let main = identity(format!("Bearer {}", key.token(&claims))).await;
    let other = identity(format!("Bearer {}", theirs.token(&changed(&claims, "iss", OTHER.into())))).await;
    assert_eq!(ours.principal.subject, Subject::user("ann"));
    assert_eq!(main.principal.subject, Subject::foreign(IssuerId::of(ISSUER), "ann"));
    assert_eq!(other.principal.subject, Subject::foreign(IssuerId::of(OTHER), "other:ann"));
    assert_eq!((main.user_field.as_bytes(), other.user_field.as_bytes()), (&b"ann"[..], &b"other:ann"[..]));
    assert_eq!(main.roles_field.as_bytes(), b"user,admin");
    assert_eq!((ours.principal.user_id.as_deref(), &main.principal.user_id), (Some("7"), &None));
    // Ann of our store is disabled: that is another Ann
    stage.change(&Change::Subject(Subject::user("ann")), |tables| super::super::tests::row(tables).disabled = true);
    assert_eq!(stage.outcome(&stage.bearer(json!({}))).await, "disabled");
    assert_eq!(stage.of(&key.token(&claims)).await, "ok");
}

#[tokio::test]
async fn who_is_refused_is_named_as_who_is_let_in() {
    let key = Signer::es256("k");
    let mut prefixed = issuer_of(ISSUER, BOTH, of_file(&[&key], BOTH));
    prefixed.user_prefix = "idp:".into();
    let stage = Stage::believing(vec![prefixed]).await;
    let (good, now) = (ann(&stage), stage.clock.unix());
    let gone = stage.settings.issuers[0].revocation_id("gone");
    stage.change(&Change::Session(Arc::clone(&gone)), |tables| assert!(tables.revoked.insert(gone)));
    let expired = changed(&good, "exp", (now - 900).into());
    let (named, longest) = (Some("idp:ann".to_owned()), "a".repeat(NAME_BYTES_MAX));
    let called = |claims: &Value, name: String| changed(claims, "preferred_username", name.into());
    for (claims, reason, whose) in [
        (expired.clone(), "expired", named.clone()),
        (changed(&good, "aud", "account".into()), "wrong_audience", named.clone()),
        (changed(&good, "jti", "gone".into()), "revoked", named.clone()),
        (changed(&good, "realm_access", json!({ "roles": 7 })), "malformed", named),
        (called(&expired, longest.clone()), "expired", Some(format!("idp:{longest}"))),
        (called(&expired, format!("{longest}a")), "expired", None),
        (called(&changed(&good, "jti", "gone".into()), format!("{longest}a")), "malformed", None),
        (called(&expired, "a\nb".into()), "malformed", None),
    ] {
        let (rejection, owner) = stage.refusal(&format!("Bearer {}", key.token(&claims))).await;
        let whose = whose.map(|name| Subject::foreign(IssuerId::of(ISSUER), name));
        assert_eq!((rejection.reason(), owner), (reason, whose), "{claims}");
    }
    let token = key.token(&good);
    let (claims, _) = stage.authenticator.read_foreign(&stage.settings, &token).await.unwrap().unwrap();
    assert_eq!(claims.subject, stage.ask(&format!("Bearer {token}")).await.unwrap().principal.subject);
}

#[tokio::test]
async fn a_token_is_revoked_by_its_id_and_its_issuer() {
    let (key, theirs) = (Signer::es256("k"), Signer::es256("k"));
    let stage = Stage::believing(vec![
        issuer_of(ISSUER, BOTH, of_file(&[&key], BOTH)),
        issuer_of(OTHER, BOTH, of_file(&[&theirs], BOTH)),
    ])
    .await;
    let good = ann(&stage);
    let (token, other) = (key.token(&good), theirs.token(&changed(&good, "iss", OTHER.into())));
    let ours = stage.bearer(json!({ "jti": "j1" }));
    for id in ["j1".into(), stage.settings.issuers[1].revocation_id("j1")] {
        assert_eq!((stage.of(&token).await, stage.of(&other).await), ("ok", "ok"));
        stage.change(&Change::Session(Arc::clone(&id)), |tables| assert!(tables.revoked.insert(id)));
        assert_eq!(stage.of(&token).await, "ok");
    }
    assert_eq!((stage.of(&other).await, stage.outcome(&ours).await), ("revoked", "revoked"));
    let (_, id) = stage.authenticator.read_foreign(&stage.settings, &token).await.unwrap().unwrap();
    stage.change(&Change::Session(id.clone().unwrap()), |tables| assert!(tables.revoked.insert(id.unwrap())));
    assert_eq!(stage.of(&token).await, "revoked");
    stage.store.down.store(true, Ordering::SeqCst);
    assert_eq!(stage.of(&key.token(&changed(&good, "jti", "j2".into()))).await, "store_unavailable");
}

#[tokio::test]
async fn keys_are_fetched_once_and_again_when_others_are_named() {
    let [first, second, third, fourth] = ["1", "2", "3", "4"].map(Signer::es256);
    let idp = Idp::serving(set([&first])).await;
    let stage = Stage::believing(vec![issuer_of(ISSUER, BOTH, Jwks::Remote(Arc::clone(&idp.location)))]).await;
    let good = ann(&stage);
    until("keys are fetched before they are needed", || idp.fetches() == 1).await;
    assert_eq!(stage.of(&first.token(&good)).await, "ok");
    assert_eq!(idp.fetches(), 1);
    // each change is seen with the first token by the new key, however soon
    for (now, keys) in [(&second, vec![&first, &second]), (&third, vec![&second, &third])] {
        idp.now(Reply::Set(set(keys)));
        assert_eq!(stage.of(&now.token(&good)).await, "ok", "{}", now.kid);
    }
    assert_eq!(idp.fetches(), 3);
    // what was verified by a key that is gone is not remembered
    assert_eq!(stage.of(&first.token(&good)).await, "bad_signature");
    let before = idp.fetches();
    // a flood: one fetch, and none more until the pause is over
    let tokens: Vec<_> =
        (0..300).map(|n| fourth.with(&json!({ "alg": "ES256", "kid": format!("x{n}") }), &good)).collect();
    for found in futures_util::future::join_all(tokens.iter().map(|token| stage.of(token))).await {
        assert!(["bad_signature", "unauthenticated"].contains(&found), "{found}");
    }
    assert!(idp.fetches() <= before + 1, "{} fetches", idp.fetches() - before);
    // those who know a key that is known are not held up
    assert_eq!(stage.of(&third.token(&changed(&good, "jti", "j3".into()))).await, "ok");
    idp.now(Reply::Set(set([&fourth])));
    stage.clock.advance(Pace::USUAL.cool_down);
    assert_eq!(stage.of(&fourth.token(&good)).await, "ok");
}

/// Whatever tokens name, and however long they come: also the fetch that a pause has put off begins another.
#[tokio::test]
async fn unknown_keys_cause_one_fetch_a_pause() {
    let [first, second] = ["1", "2"].map(Signer::es256);
    let idp = Idp::serving(set([&first])).await;
    let mut stage = Stage::new().await;
    let pace = Pace { cool_down: Duration::from_millis(200), ..Pace::USUAL };
    let issuers = Issuers::new(Arc::clone(&stage.changes), stage.clock.clone(), Arc::clone(&stage.metrics)).paced(pace);
    stage.with_issuers(Arc::new(issuers));
    stage.believe(vec![issuer_of(ISSUER, BOTH, Jwks::Remote(Arc::clone(&idp.location)))]);
    let good = ann(&stage);
    assert_eq!(stage.of(&first.token(&good)).await, "ok");
    let (before, begun) = (idp.fetches(), stage.clock.now());
    for n in 0..80 {
        let token = second.with(&json!({ "alg": "ES256", "kid": format!("x{n}") }), &good);
        assert_eq!(stage.of(&token).await, "bad_signature");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (fetches, pauses) = (idp.fetches() - before, (stage.clock.now() - begun).as_millis() / 200);
    assert!(fetches > 1, "what a pause has put off was never done");
    assert!(fetches <= usize::try_from(pauses).unwrap() + 1, "{fetches} fetches in {pauses} pauses");
}

#[tokio::test]
async fn a_token_without_a_kid_finds_a_new_key_too() {
    let [first, second] = ["1", "2"].map(Signer::es256);
    let idp = Idp::serving(set([&first])).await;
    let stage = Stage::believing(vec![issuer_of(ISSUER, BOTH, Jwks::Remote(Arc::clone(&idp.location)))]).await;
    let (good, header) = (ann(&stage), json!({ "alg": "ES256" }));
    assert_eq!(stage.of(&first.with(&header, &good)).await, "ok");
    idp.now(Reply::Set(set([&second])));
    assert_eq!(stage.of(&second.with(&header, &good)).await, "ok");
}

#[tokio::test]
async fn keys_are_kept_where_none_come() {
    let [first, second] = ["1", "2"].map(Signer::es256);
    let idp = Idp::serving(set([&first])).await;
    let mut stage = Stage::believing(vec![issuer_of(ISSUER, BOTH, Jwks::Remote(Arc::clone(&idp.location)))]).await;
    stage.settings.cache.negative_ttl = Duration::ZERO;
    stage.believe(vec![issuer_of(ISSUER, BOTH, Jwks::Remote(Arc::clone(&idp.location)))]);
    let good = ann(&stage);
    assert_eq!(stage.of(&first.token(&good)).await, "ok");
    let head = |head: &str| Reply::Raw(format!("HTTP/1.1 {head}\r\n\r\n").into_bytes());
    let of_length = |bytes: usize| format!("200 OK\r\nContent-Length: {bytes}");
    let good_but = |head: &str| {
        let body = set([&second]);
        Reply::Raw(format!("HTTP/1.1 {head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes())
    };
    let padded = format!("{{\"keys\":[{}],\"pad\":\"{}\"}}", second.jwk, "x".repeat(10 << 20));
    for (name, reply) in [
        ("down", good_but("503 Service Unavailable")),
        ("not found", good_but("404 Not Found")),
        ("a redirect", good_but(&format!("302 Found\r\nLocation: {}", idp.location.url))),
        ("a permanent redirect", good_but("308 Permanent Redirect\r\nLocation: https://attacker.example/")),
        ("another success", good_but("206 Partial Content")),
        ("ten megabytes", Reply::Set(padded)),
        ("one byte more than may be", head(&of_length(JWKS_BYTES_MAX + 1))),
        ("a body without end", Reply::Endless),
        ("a head without end", Reply::Raw(format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(1 << 20)).into_bytes())),
        ("half a body", Reply::Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"keys\":[".to_vec())),
        ("a page", Reply::Set("<html>maintenance</html>".into())),
        ("only unusable keys", Reply::Set(json!({ "keys": [{ "kty": "oct", "k": "AA" }] }).to_string())),
        ("no HTTP", Reply::Raw(b"SSH-2.0-OpenSSH\r\n\r\n".to_vec())),
        ("nothing at all", Reply::Raw(Vec::new())),
    ] {
        idp.now(reply);
        stage.clock.advance(Pace::USUAL.cool_down);
        let before = idp.fetches();
        let claims = changed(&good, "jti", name.into());
        assert_eq!(stage.of(&second.token(&claims)).await, "bad_signature", "{name}");
        assert!(idp.fetches() > before, "{name}: nobody asked");
        assert_eq!(stage.of(&first.token(&claims)).await, "ok", "{name}");
    }
    let metrics = stage.metrics.text().unwrap();
    let failed = format!("portcullis_jwks_fetches_total{{issuer=\"{ISSUER}\",result=\"failed\"}}");
    assert!(metrics.lines().any(|line| line.starts_with(&failed)), "{metrics}");
    assert!(metrics.contains(&format!("portcullis_jwks_keys{{issuer=\"{ISSUER}\"}} 1")), "{metrics}");
}

#[tokio::test]
async fn an_empty_set_is_a_set() {
    let key = Signer::es256("1");
    let idp = Idp::serving(set([&key])).await;
    let stage = Stage::believing(vec![issuer_of(ISSUER, BOTH, Jwks::Remote(Arc::clone(&idp.location)))]).await;
    let good = ann(&stage);
    assert_eq!(stage.of(&key.token(&good)).await, "ok");
    idp.now(Reply::Set(set([])));
    assert_eq!(stage.of(&Signer::es256("2").token(&good)).await, "bad_signature");
    assert_eq!(stage.of(&key.token(&good)).await, "bad_signature", "what was remembered by a key that is gone");
}

#[tokio::test]
async fn without_keys_nobody_can_say() {
    let key = Signer::es256("1");
    let idp = Idp::serving(set([&key])).await;
    idp.now(Reply::Silence);
    let mut stage = Stage::new().await;
    let issuers = Arc::new(
        Issuers::new(Arc::clone(&stage.changes), stage.clock.clone(), Arc::clone(&stage.metrics)).paced(Pace {
            timeout: Duration::from_millis(50),
            retry: Duration::from_millis(20),
            ..Pace::USUAL
        }),
    );
    stage.with_issuers(issuers);
    stage.believe(vec![issuer_of(ISSUER, BOTH, Jwks::Remote(Arc::clone(&idp.location)))]);
    let good = ann(&stage);
    // neither refused nor let in, and not the store's fault
    assert_eq!(stage.of(&key.token(&good)).await, "issuer_unavailable");
    assert_eq!(stage.outcome(&stage.bearer(json!({}))).await, "ok");
    // it comes back by itself
    idp.now(Reply::Set(set([&key])));
    let before = idp.fetches();
    until("the keys are asked for again", || idp.fetches() > before).await;
    stage.becomes(&key.token(&good), "ok").await;
}

#[tokio::test]
async fn keys_are_fetched_ahead_of_need() {
    let [first, second] = ["1", "2"].map(Signer::es256);
    let (idp, other) = (Idp::serving(set([&first])).await, Idp::serving(set([&first])).await);
    let mut stage = Stage::new().await;
    let (least, refresh) = (Duration::from_millis(20), Duration::from_millis(20));
    let pace = Pace { refresh, refresh_min: least, ..Pace::USUAL };
    let issuers = Issuers::new(Arc::clone(&stage.changes), stage.clock.clone(), Arc::clone(&stage.metrics)).paced(pace);
    stage.with_issuers(Arc::new(issuers));
    let remote = |name, idp: &Idp| issuer_of(name, BOTH, Jwks::Remote(Arc::clone(&idp.location)));
    stage.believe(vec![remote(ISSUER, &idp), remote(OTHER, &other)]);
    let token = first.token(&ann(&stage));
    assert_eq!(stage.of(&token).await, "ok");
    // nobody presents a token by the new key, and the old one ends by itself
    idp.now(Reply::Set(set([&second])));
    stage.becomes(&token, "bad_signature").await;
    // as long as its server says they are good for, they are not asked for
    let body = set([&first]);
    let reply = format!(
        "HTTP/1.1 200 OK\r\nCache-Control: public, max-age=600\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    idp.now(Reply::Raw(reply.into_bytes()));
    stage.becomes(&token, "ok").await;
    let (settled, others) = (idp.fetches(), other.fetches());
    until("one that does not say is asked again and again", || other.fetches() > others + 5).await;
    assert!(idp.fetches() <= settled + 1, "{} fetches", idp.fetches() - settled);
}

#[tokio::test]
async fn a_reload_keeps_the_keys_of_issuers_that_stay_as_they_are() {
    let key = Signer::es256("1");
    let idp = Idp::serving(set([&key])).await;
    let remote = |name| issuer_of(name, BOTH, Jwks::Remote(Arc::clone(&idp.location)));
    let mut stage = Stage::believing(vec![remote(ISSUER)]).await;
    let token = key.token(&ann(&stage));
    assert_eq!(stage.of(&token).await, "ok");
    idp.now(Reply::Silence);
    // its audience may change, and others come
    let mut changed = remote(ISSUER);
    changed.claims.audience.push("more".into());
    stage.believe(vec![changed, issuer_of("https://other.example.com", BOTH, of_file(&[&key], BOTH))]);
    assert_eq!((stage.of(&token).await, idp.fetches()), ("ok", 1));
    // what no longer fits is asked again, and an issuer that is gone is nobody
    let mut narrower = remote(ISSUER);
    narrower.claims.audience = vec!["more".into()];
    stage.believe(vec![narrower]);
    assert_eq!(stage.of(&token).await, "wrong_audience");
    stage.believe(Vec::new());
    assert_eq!(stage.of(&token).await, "bad_signature");
    assert!(!stage.metrics.text().unwrap().contains("portcullis_jwks_keys{"));
}
