//! Opaque tokens as text: `pct_…` for the scheme `Token`, `pcr_…` to refresh with.
//!
//! 256 random bits and a checksum that anybody can compute: it keeps typing errors and made-up tokens away from the store
//! and lets scanners tell a leaked token from a look-alike. It proves nothing.

use aws_lc_rs::digest::{SHA256, digest as sha};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

use crate::secret::Secret;

/// SHA-256 of an opaque or refresh token.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenDigest(pub [u8; 32]);

impl std::fmt::Debug for TokenDigest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[token digest]")
    }
}

/// What an opaque token is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpaqueKind {
    /// A credential of the scheme `Token`.
    Token,
    /// A refresh token.
    Refresh,
}

impl OpaqueKind {
    /// What its tokens begin with.
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::Token => "pct_",
            Self::Refresh => "pcr_",
        }
    }
}

/// 32 bytes as base64url without padding.
const BODY_CHARS: usize = 43;

/// 36 bits of checksum.
const CHECKSUM_CHARS: usize = 6;

/// A new token.
///
/// # Errors
/// The operating system gives no random bytes.
pub fn mint(kind: OpaqueKind) -> Result<Secret<String>, getrandom::Error> {
    let mut bits = Zeroizing::new([0_u8; 32]);
    getrandom::fill(bits.as_mut_slice())?;
    let mut text = String::with_capacity(kind.prefix().len() + BODY_CHARS + CHECKSUM_CHARS);
    text.push_str(kind.prefix());
    URL_SAFE_NO_PAD.encode_string(bits.as_slice(), &mut text);
    let sum = checksum(&text);
    text.push_str(&sum);
    Ok(Secret::new(text))
}

/// Whether `text` could be a token of this kind: one that has our prefix needs our form and checksum. A text without
/// our prefix may come from a table that was here before us, and is left to the store.
pub fn plausible(kind: OpaqueKind, text: &str) -> bool {
    let Some(rest) = text.strip_prefix(kind.prefix()) else {
        return !text.starts_with(other(kind).prefix());
    };
    if rest.len() != BODY_CHARS + CHECKSUM_CHARS {
        return false;
    }
    text.split_at_checked(text.len() - CHECKSUM_CHARS).is_some_and(|(signed, sum)| checksum(signed) == sum)
}

/// Whether a text that should be a name may be a token, of ours or a JWT, or the beginning of one.
pub fn looks_like_token(text: &str) -> bool {
    // what a JOSE header in base64url begins with
    let beginnings = [OpaqueKind::Token.prefix(), OpaqueKind::Refresh.prefix(), "eyJ"];
    beginnings.iter().any(|beginning| text.starts_with(beginning))
}

/// What is stored of a token, and looked up by.
pub fn digest(text: &str) -> TokenDigest {
    TokenDigest(sha256(text.as_bytes()))
}

const fn other(kind: OpaqueKind) -> OpaqueKind {
    match kind {
        OpaqueKind::Token => OpaqueKind::Refresh,
        OpaqueKind::Refresh => OpaqueKind::Token,
    }
}

/// Of prefix and body; SHA-256 rather than a CRC since it is at hand, cut to 36 bits.
fn checksum(signed: &str) -> String {
    let mut sum = URL_SAFE_NO_PAD.encode(sha256(signed.as_bytes()));
    sum.truncate(CHECKSUM_CHARS);
    sum
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(sha(&SHA256, bytes).as_ref());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minted_token_is_plausible_for_its_kind_only() {
        for (kind, wrong) in [(OpaqueKind::Token, OpaqueKind::Refresh), (OpaqueKind::Refresh, OpaqueKind::Token)] {
            let token = mint(kind).unwrap();
            assert!(token.expose().starts_with(kind.prefix()));
            assert_eq!(token.expose().len(), 4 + BODY_CHARS + CHECKSUM_CHARS);
            assert!(plausible(kind, token.expose()));
            assert!(!plausible(wrong, token.expose()));
        }
    }

    #[test]
    fn our_prefix_needs_our_form() {
        let good = mint(OpaqueKind::Token).unwrap();
        let good = good.expose();
        let swapped: String = good
            .char_indices()
            .map(|(at, c)| {
                if at != 10 {
                    c
                } else if c == 'A' {
                    'B'
                } else {
                    'A'
                }
            })
            .collect();
        for (name, text, expected) in [
            ("another character", swapped.as_str(), false),
            ("one character less", good.strip_suffix(|_| true).unwrap(), false),
            ("one character more", &format!("{good}A"), false),
            ("the prefix alone", "pct_", false),
            ("several bytes where the checksum begins", &format!("pct_{}é{}", "A".repeat(42), "A".repeat(5)), false),
            ("a text of a foreign table", "abc123", true),
            ("nothing", "", true),
        ] {
            assert_eq!(plausible(OpaqueKind::Token, text), expected, "{name}");
        }
    }

    #[test]
    fn the_digest_is_sha256_of_the_text() {
        // FIPS 180-2, B.1
        assert_eq!(URL_SAFE_NO_PAD.encode(digest("abc").0), "ungWv48Bz-pBQUDeXa4iI7ADYaOWF3qctBD_YfIAFa0");
    }
}
