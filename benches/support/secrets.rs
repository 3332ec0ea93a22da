//! Credentials that gateways and proxies are asked with, and what those need to check them.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use aws_lc_rs::signature::KeyPair as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use sqlx::Connection as _;

use super::keys::{Certificate, Signer, encode};
use super::wait::unix_now;

pub(crate) const HMAC_SECRET: &str = "a-secret-of-a-bench-of-32-bytes-or-more";
pub(crate) const ROLE: &str = "admin";
pub(crate) const USER: &str = "ann";
const PASSWORD: &str = "correct horse battery";
const BCRYPT_COST: u32 = 10;

/// How a request proves who it is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Proof {
    Hs256,
    Rs256,
    Es256,
    Basic,
    Token,
}

/// All of them, in files of one folder.
pub(crate) struct Secrets {
    pub(crate) folder: PathBuf,
    hs256: Signer,
    rs256: Signer,
    es256: Signer,
    pub(crate) tokens: Vec<String>,
    pub(crate) password_hash: String,
}

impl Secrets {
    pub(crate) fn new(folder: &Path, tokens: usize) -> Self {
        let folder = folder.to_path_buf();
        let (hs256, rs256, es256) = (Signer::hs256(HMAC_SECRET), Signer::rs256(), Signer::es256());
        let certificate = Certificate::of(&["localhost"]);
        let password_hash = bcrypt::hash(PASSWORD, BCRYPT_COST).unwrap();
        let secrets = Self { folder, hs256, rs256, es256, tokens: (0..tokens).map(token).collect(), password_hash };
        for (name, text) in [
            ("cert.pem", certificate.cert.clone()),
            ("key.pem", certificate.key.clone()),
            ("both.pem", format!("{}{}", certificate.cert, certificate.key)),
            ("rs256.pem", secrets.rs256.public_pem()),
            ("es256.pem", secrets.es256.public_pem()),
            ("htpasswd", format!("{USER}:{}\n", secrets.password_hash)),
        ] {
            fs::write(secrets.file(name), text).unwrap();
        }
        secrets
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn jwt(&self, proof: Proof, number: usize) -> String {
        let (signer, id) = match proof {
            Proof::Hs256 => (&self.hs256, "hs256"),
            Proof::Rs256 => (&self.rs256, "rs256"),
            Proof::Es256 => (&self.es256, "es256"),
            Proof::Basic | Proof::Token => panic!("{proof:?} is no JWT"),
        };
        let claims =
            json!({ "iss": "bench", "sub": format!("{USER}{number}"), "role": ROLE, "exp": unix_now() + 86_400 });
        signer.sign(&json!({ "alg": signer.algorithm(), "typ": "JWT", "kid": id }), &claims)
    }

    /// The keys of JWTs as a JWK Set (RFC 7517), the secret one among them.
    pub(crate) fn jwks(&self) -> serde_json::Value {
        let (Signer::Rsa(rsa), Signer::Ecdsa(point, _)) = (&self.rs256, &self.es256) else {
            panic!("they were made so")
        };
        // a SEQUENCE of two INTEGERs, the first of 256 bytes behind a zero; an uncompressed point
        let (modulus, point) = (&rsa.public_key().as_ref()[9..265], point.public_key().as_ref());
        json!({ "keys": [
            { "kty": "oct", "kid": "hs256", "alg": "HS256", "k": encode(HMAC_SECRET) },
            { "kty": "RSA", "kid": "rs256", "alg": "RS256", "n": encode(modulus), "e": "AQAB" },
            { "kty": "EC", "kid": "es256", "alg": "ES256", "crv": "P-256", "x": encode(&point[1..33]), "y": encode(&point[33..]) },
        ] })
    }

    /// Good values of `Authorization`, at most `count`.
    pub(crate) fn authorizations(&self, proof: Proof, count: usize) -> Vec<String> {
        match proof {
            Proof::Basic => vec![format!("Basic {}", STANDARD.encode(format!("{USER}:{PASSWORD}")))],
            Proof::Token => {
                let step = (self.tokens.len() / count).max(1);
                self.tokens.iter().step_by(step).take(count).map(|token| format!("Token {token}")).collect()
            }
            Proof::Hs256 | Proof::Rs256 | Proof::Es256 => {
                (0..count).map(|number| format!("Bearer {}", self.jwt(proof, number))).collect()
            }
        }
    }

    /// One that looks like a good one.
    pub(crate) fn wrong(&self, proof: Proof) -> String {
        if proof == Proof::Basic {
            return format!("Basic {}", STANDARD.encode(format!("{USER}:wrong")));
        }
        let mut good = self.authorizations(proof, 1).remove(0);
        let end = if good.ends_with("AAAAAA") { "BBBBBB" } else { "AAAAAA" };
        good.replace_range(good.len() - 6.., end);
        good
    }

    /// Puts the tokens into a store that knows [`USER`], and as many more as make `total`, which nobody has.
    pub(crate) fn fill_store(&self, path: &Path, total: usize) {
        super::load::runtime().block_on(async {
            let mut store = sqlx::SqliteConnection::connect(&format!("sqlite:{}", path.display())).await.unwrap();
            let mut change = store.begin().await.unwrap();
            for token in &self.tokens {
                let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, token.as_bytes());
                let row = "INSERT INTO portcullis_tokens (digest, owner_kind, owner_name) VALUES (?, 'user', ?)";
                sqlx::query(row).bind(digest.as_ref()).bind(USER).execute(&mut *change).await.unwrap();
            }
            let rest = i64::try_from(total.saturating_sub(self.tokens.len())).unwrap();
            let rows = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
                INSERT INTO portcullis_tokens (digest, owner_kind, owner_name)
                SELECT randomblob(32) AS made, 'user', ? FROM n ORDER BY made";
            if rest > 0 {
                sqlx::query(rows).bind(rest).bind(USER).execute(&mut *change).await.unwrap();
            }
            change.commit().await.unwrap();
            store.close().await.unwrap();
        });
    }
}

/// Not of our own form, so that other proxies' tables have them too.
fn token(number: usize) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, format!("token {number}").as_bytes());
    digest.as_ref().iter().take(20).fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}
