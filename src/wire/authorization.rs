//! The `Authorization` field as a credential (RFC 9110 11.6.2, RFC 7617, RFC 6750 2.1).
//!
//! In two steps, so that a cache can be asked with the raw bytes: [`presented`] finds scheme and rest without copying,
//! [`Presented::read`] decodes. Nothing here is ever printed.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use zeroize::Zeroizing;

use crate::principal::Scheme;
use crate::rejection::{CredentialsFault, Rejection, TokenFault};
use crate::secret::Secret;

/// The longest credential that is looked at, in bytes behind the scheme. Longer ones are malformed.
pub const CREDENTIAL_BYTES_MAX: usize = 8 * 1024;

/// What a caller proves themselves with.
#[derive(Debug)]
pub enum Credential {
    /// RFC 7617.
    Basic {
        /// Before the first colon.
        user: String,
        /// All behind it.
        password: Secret<String>,
    },
    /// An opaque token.
    Token(Secret<String>),
    /// A JWT.
    Bearer(Secret<String>),
}

/// Why there is no credential to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CredentialError {
    /// More than one `Authorization`.
    #[error("two Authorization headers")]
    Repeated,
    /// A scheme that nobody knows, or none.
    #[error("unsupported scheme")]
    UnsupportedScheme,
    /// Not of the form that the scheme asks for.
    #[error("malformed credential")]
    Malformed(Scheme),
}

impl From<CredentialError> for Rejection {
    fn from(error: CredentialError) -> Self {
        match error {
            CredentialError::Repeated => Self::BadRequest("two Authorization headers"),
            CredentialError::UnsupportedScheme => Self::UnsupportedScheme,
            CredentialError::Malformed(Scheme::Basic) => Self::InvalidCredentials(CredentialsFault::Malformed),
            CredentialError::Malformed(scheme @ (Scheme::Token | Scheme::Bearer)) => {
                Self::InvalidToken(scheme, TokenFault::MalformedHeader)
            }
        }
    }
}

/// A credential as it came, not decoded. At most [`CREDENTIAL_BYTES_MAX`] long and never empty.
#[derive(Clone, Copy)]
pub struct Presented<'a> {
    /// The scheme.
    pub scheme: Scheme,
    /// All behind the scheme and its spaces.
    pub rest: &'a [u8],
}

impl fmt::Debug for Presented<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [secret]", self.scheme.title())
    }
}

/// The credential that a request bears, undecoded; `None` without `Authorization`.
///
/// # Errors
/// For a second field, an unknown scheme, and a credential that is empty or too long.
pub fn presented(headers: &HeaderMap) -> Result<Option<Presented<'_>>, CredentialError> {
    let mut fields = headers.get_all(AUTHORIZATION).iter();
    let Some(field) = fields.next() else { return Ok(None) };
    if fields.next().is_some() {
        return Err(CredentialError::Repeated);
    }
    let value = field.as_bytes();
    // some clients send the field empty where they have no credential
    if value.is_empty() {
        return Ok(None);
    }
    let (name, rest) = value.split_at(value.iter().position(|&byte| byte == b' ').unwrap_or(value.len()));
    let scheme = Scheme::from_name(name).ok_or(CredentialError::UnsupportedScheme)?;
    let rest = rest.split_at(rest.iter().take_while(|&&byte| byte == b' ').count()).1;
    if rest.is_empty() || rest.len() > CREDENTIAL_BYTES_MAX {
        return Err(CredentialError::Malformed(scheme));
    }
    Ok(Some(Presented { scheme, rest }))
}

/// The credential that a request bears; `None` without `Authorization`.
///
/// # Errors
/// As for [`presented`] and [`Presented::read`].
pub fn credential(headers: &HeaderMap) -> Result<Option<Credential>, CredentialError> {
    presented(headers)?.map(Presented::read).transpose()
}

impl Presented<'_> {
    /// Decodes it.
    ///
    /// # Errors
    /// [`CredentialError::Malformed`] where it is not of its scheme's form.
    pub fn read(self) -> Result<Credential, CredentialError> {
        match self.scheme {
            Scheme::Basic => basic(self.rest),
            Scheme::Token => text(self.rest, |byte| byte.is_ascii_graphic()).map(Credential::Token),
            Scheme::Bearer => {
                // b64token: `=` only at the end (RFC 6750 2.1)
                let end = self.rest.iter().rposition(|&byte| byte != b'=').map_or(0, |last| last + 1);
                let (token, _) = self.rest.split_at(end);
                if token.is_empty() || !token.iter().copied().all(is_token68) {
                    None
                } else {
                    text(self.rest, |byte| is_token68(byte) || byte == b'=').map(Credential::Bearer)
                }
            }
        }
        .ok_or(CredentialError::Malformed(self.scheme))
    }
}

const fn is_token68(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'+' | b'/')
}

fn text(bytes: &[u8], allowed: impl Fn(u8) -> bool) -> Option<Secret<String>> {
    if !bytes.iter().copied().all(allowed) {
        return None;
    }
    std::str::from_utf8(bytes).ok().map(|text| Secret::new(text.to_owned()))
}

/// RFC 7617 2, strictly: canonical base64 with its padding, UTF-8, no control characters, a colon.
fn basic(encoded: &[u8]) -> Option<Credential> {
    let decoded = Zeroizing::new(STANDARD.decode(encoded).ok()?);
    let text = std::str::from_utf8(&decoded).ok()?;
    if text.chars().any(char::is_control) {
        return None;
    }
    let (user, password) = text.split_once(':')?;
    Some(Credential::Basic { user: user.to_owned(), password: Secret::new(password.to_owned()) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    fn headers(fields: &[&[u8]]) -> HeaderMap {
        fields.iter().map(|field| (AUTHORIZATION, HeaderValue::from_bytes(field).unwrap())).collect()
    }

    fn show(result: &Result<Option<Credential>, CredentialError>) -> String {
        match result {
            Ok(None) => "none".into(),
            Ok(Some(Credential::Basic { user, password })) => format!("basic {user} {}", password.expose()),
            Ok(Some(Credential::Token(token))) => format!("token {}", token.expose()),
            Ok(Some(Credential::Bearer(token))) => format!("bearer {}", token.expose()),
            Err(error) => format!("{error:?}"),
        }
    }

    #[test]
    fn a_credential_is_read_or_refused() {
        for (name, fields, expected) in [
            ("no field is no credential", &[][..], "none"),
            ("the scheme is matched in any case", &[&b"bEaReR abc"[..]], "bearer abc"),
            ("any number of spaces follows it", &[b"Token    abc"], "token abc"),
            ("but not a tab", &[b"Bearer\tabc"], "UnsupportedScheme"),
            ("a second field is refused", &[b"Bearer a", b"Bearer b"], "Repeated"),
            ("even the same one", &[b"Bearer a", b"Bearer a"], "Repeated"),
            ("an unknown scheme is named as such", &[b"Digest x"], "UnsupportedScheme"),
            ("an empty field is none", &[b""], "none"),
            ("a space before the scheme is none of ours", &[b" Bearer a"], "UnsupportedScheme"),
            ("a scheme alone", &[b"Bearer"], "Malformed(Bearer)"),
            ("a scheme and spaces", &[b"Token   "], "Malformed(Token)"),
            ("a password may hold a colon", &[b"Basic YTpiOmM="], "basic a b:c"),
            ("a password may be empty", &[b"Basic YTo="], "basic a "),
            ("a user may be empty", &[b"Basic OmI="], "basic  b"),
            ("UTF-8", &["Basic w6k6w6k=".as_bytes()], "basic é é"),
            ("no colon", &[b"Basic YWI="], "Malformed(Basic)"),
            ("no padding", &[b"Basic YTpiOmM"], "Malformed(Basic)"),
            ("too much padding", &[b"Basic YTpi===="], "Malformed(Basic)"),
            ("bits behind the end", &[b"Basic YTpiOmN="], "Malformed(Basic)"),
            ("the alphabet of URLs", &[b"Basic YTpi_-8="], "Malformed(Basic)"),
            ("a space inside", &[b"Basic YTpi OmM="], "Malformed(Basic)"),
            ("a space at the end", &[b"Basic YTpiOmM= "], "Malformed(Basic)"),
            ("Latin-1", &[b"Basic 6Tpi"], "Malformed(Basic)"),
            ("a NUL", &[b"Basic YQA6Yg=="], "Malformed(Basic)"),
            ("a line feed", &[b"Basic YTpiCg=="], "Malformed(Basic)"),
            ("DEL", &[b"Basic YTpifw=="], "Malformed(Basic)"),
            ("a token of visible ASCII", &[b"Token a!b,\"c=~"], "token a!b,\"c=~"),
            ("a token with a parameter", &[b"Token a b=c"], "Malformed(Token)"),
            ("a token of UTF-8", &["Token é".as_bytes()], "Malformed(Token)"),
            ("a JWT", &[b"Bearer aA0-._~+/="], "bearer aA0-._~+/="),
            ("padding inside", &[b"Bearer a=b"], "Malformed(Bearer)"),
            ("padding alone", &[b"Bearer =="], "Malformed(Bearer)"),
            ("two credentials in one field", &[b"Bearer a, Bearer b"], "Malformed(Bearer)"),
            ("a comma", &[b"Bearer a,b"], "Malformed(Bearer)"),
            ("no ASCII at all", &[b"\xff\xfe"], "UnsupportedScheme"),
        ] {
            assert_eq!(show(&credential(&headers(fields))), expected, "{name}");
        }
    }

    #[test]
    fn a_credential_is_at_most_so_long() {
        for (length, fits) in [(CREDENTIAL_BYTES_MAX, true), (CREDENTIAL_BYTES_MAX + 1, false)] {
            let field = format!("Bearer {}", "a".repeat(length));
            assert_eq!(credential(&headers(&[field.as_bytes()])).is_ok(), fits, "{length}");
        }
    }

    #[test]
    fn nothing_of_it_is_printed() {
        let headers = headers(&[b"Basic Y2FuYXJ5OmNhbmFyeQ=="]);
        let presented = presented(&headers).unwrap().unwrap();
        assert_eq!(format!("{presented:?}"), "Basic [secret]");
        assert!(!format!("{:?}", Presented { scheme: Scheme::Token, rest: b"canary" }.read()).contains("canary"));
    }

    proptest! {
        #[test]
        fn no_field_makes_it_panic(bytes: Vec<u8>, scheme in "(Basic|Token|Bearer) {0,2}") {
            let field = [scheme.as_bytes(), &bytes].concat();
            if let Ok(value) = HeaderValue::from_bytes(&field) {
                let headers = HeaderMap::from_iter([(AUTHORIZATION, value)]);
                let _any = credential(&headers);
            }
        }

        #[test]
        fn what_basic_encodes_is_read_back(user in "[a-zé ]{0,8}", password in "[a-z:é\"]{0,8}") {
            let field = format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
            prop_assert_eq!(show(&credential(&headers(&[field.as_bytes()]))), format!("basic {user} {password}"));
        }
    }
}
