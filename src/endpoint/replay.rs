//! The answer to the use of a refresh token, kept for a retry of the same request (contract 5).
//!
//! Sealed with a key that only the used token gives, so that the store, which knows the token's digest alone, cannot read
//! the new tokens: AES-256-GCM under HMAC-SHA256 of the token, a random nonce, and the digest as associated data.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hmac;
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::issue::Tokens;
use crate::secret::Secret;
use crate::store::{TokenDigest, digest};

/// Keeps this use of HMAC under the token apart from any other.
const LABEL: &[u8] = b"portcullis refresh replay 1";

/// The tokens, sealed with the refresh token that was used for them; `None` where the system gives no random bytes.
pub(super) fn seal(used: &Secret<String>, tokens: &Tokens, scope: &str) -> Option<Vec<u8>> {
    let shown = |token: &Option<Secret<String>>| token.as_ref().map(|token| token.expose().clone());
    let plain = json!({
        "access": shown(&tokens.access),
        "refresh": shown(&tokens.refresh),
        "token": shown(&tokens.token),
        "expires_in": tokens.expires_in,
        "scope": scope,
    });
    let mut nonce = [0_u8; NONCE_LEN];
    getrandom::fill(&mut nonce).ok()?;
    let mut sealed = Zeroizing::new(plain.to_string().into_bytes());
    key(used)?
        .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad(&digest(used.expose())), &mut *sealed)
        .ok()?;
    Some([&nonce[..], &sealed[..]].concat())
}

/// The tokens and their scope, opened with the refresh token that was used for them; `None` where it is another, or where
/// what was kept is not what was sealed.
pub(super) fn open(used: &Secret<String>, kept: &[u8]) -> Option<(Tokens, String)> {
    let (nonce, sealed) = kept.split_first_chunk::<NONCE_LEN>()?;
    let mut sealed = Zeroizing::new(sealed.to_vec());
    let plain = key(used)?
        .open_in_place(Nonce::assume_unique_for_key(*nonce), aad(&digest(used.expose())), &mut sealed)
        .ok()?;
    let mut members: Map<String, Value> = serde_json::from_slice(plain).ok()?;
    let mut text = |name: &str| match members.remove(name)? {
        Value::String(text) => Some(text),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => None,
    };
    let scope = text("scope")?;
    let [access, refresh, token] = ["access", "refresh", "token"].map(|name| text(name).map(Secret::new));
    let expires_in = members.get("expires_in")?.as_u64()?;
    Some((Tokens { access, refresh, token, expires_in }, scope))
}

fn key(used: &Secret<String>) -> Option<LessSafeKey> {
    let token = hmac::Key::new(hmac::HMAC_SHA256, used.expose().as_bytes());
    let derived = hmac::sign(&token, LABEL);
    UnboundKey::new(&AES_256_GCM, derived.as_ref()).map(LessSafeKey::new).ok()
}

fn aad(digest: &TokenDigest) -> Aad<[u8; 32]> {
    Aad::from(digest.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Secret<String> {
        Secret::new(text.to_owned())
    }

    #[test]
    fn only_the_used_token_opens_what_it_sealed() {
        let tokens = Tokens { access: Some(secret("A")), refresh: Some(secret("R")), token: None, expires_in: 900 };
        let kept = seal(&secret("used"), &tokens, "a b").unwrap();
        let (opened, scope) = open(&secret("used"), &kept).unwrap();
        assert_eq!(opened.access.unwrap().expose(), "A");
        assert_eq!(opened.refresh.unwrap().expose(), "R");
        assert!(opened.token.is_none());
        assert_eq!((opened.expires_in, scope.as_str()), (900, "a b"));
        assert!(open(&secret("other"), &kept).is_none());
        for place in [0, NONCE_LEN, kept.len() - 1] {
            let mut bent = kept.clone();
            bent[place] ^= 1;
            assert!(open(&secret("used"), &bent).is_none(), "{place}");
        }
        for cut in [0, 1, NONCE_LEN, kept.len() - 1] {
            assert!(open(&secret("used"), &kept[..cut]).is_none(), "{cut}");
        }
    }

    #[test]
    fn the_same_tokens_are_never_sealed_alike_or_readable() {
        let tokens = Tokens { access: Some(secret("canary")), refresh: None, token: None, expires_in: 1 };
        let (one, two) = (seal(&secret("used"), &tokens, "").unwrap(), seal(&secret("used"), &tokens, "").unwrap());
        assert_ne!(one, two);
        assert!(!one.windows(6).any(|bytes| bytes == b"canary"));
    }
}
