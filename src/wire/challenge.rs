//! `WWW-Authenticate`, correctly quoted (RFC 9110 11.6.1, RFC 7617 2.1, RFC 6750 3).

use http::HeaderValue;

use crate::principal::Scheme;

/// One challenge.
pub struct Challenge<'a> {
    /// What it asks for.
    pub scheme: Scheme,
    /// The protection space.
    pub realm: &'a str,
    /// A code of RFC 6750 3.1 and its description.
    pub error: Option<(&'a str, &'a str)>,
}

/// The value of the field that bears one challenge.
pub fn challenge(challenge: &Challenge<'_>) -> HeaderValue {
    let Challenge { scheme, realm, error } = challenge;
    let described = error.map_or(0, |(code, description)| code.len() + description.len());
    let mut text = String::with_capacity(64 + 2 * realm.len() + described);
    text.push_str(scheme.title());
    text.push_str(" realm=\"");
    push_quoted(&mut text, realm);
    text.push('"');
    if *scheme == Scheme::Basic {
        text.push_str(", charset=\"UTF-8\"");
    }
    if let Some((code, description)) = error {
        text.push_str(", error=\"");
        push_plain(&mut text, code);
        text.push_str("\", error_description=\"");
        push_plain(&mut text, description);
        text.push('"');
    }
    // Only visible ASCII and spaces were pushed, so this cannot fail; a bare scheme would still be a challenge.
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static(scheme.title()))
}

/// As the inside of a quoted-string (RFC 9110 5.6.4); what is not ASCII is not understood alike everywhere, and replaced.
fn push_quoted(text: &mut String, value: &str) {
    if is_plain(value) {
        return text.push_str(value);
    }
    for char in value.chars() {
        match char {
            '"' | '\\' => text.extend(['\\', char]),
            ' '..='~' => text.push(char),
            _ => text.push('?'),
        }
    }
}

/// As `error` and `error_description` may be, which know no escapes (RFC 6750 3).
fn push_plain(text: &mut String, value: &str) {
    if is_plain(value) {
        return text.push_str(value);
    }
    for char in value.chars() {
        match char {
            '"' => text.push('\''),
            '\\' => text.push('/'),
            ' '..='~' => text.push(char),
            _ => text.push('?'),
        }
    }
}

/// Whether it can stand in quotes as it is: visible ASCII and spaces, without what quotes and escapes. All bytes are looked
/// at, many at once, since texts are short and mostly plain.
#[expect(clippy::needless_bitwise_bool, reason = "what is lazy is looked at byte by byte")]
pub fn is_plain(value: &str) -> bool {
    value.bytes().fold(true, |plain, byte| plain & matches!(byte, b' '..=b'~') & (byte != b'"') & (byte != b'\\'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_is_quoted() {
        for (scheme, realm, error, expected) in [
            (Scheme::Basic, "api", None, r#"Basic realm="api", charset="UTF-8""#),
            (Scheme::Token, "api", None, r#"Token realm="api""#),
            (Scheme::Bearer, "", None, r#"Bearer realm="""#),
            (
                Scheme::Bearer,
                "api",
                Some(("invalid_token", "Invalid or expired token")),
                r#"Bearer realm="api", error="invalid_token", error_description="Invalid or expired token""#,
            ),
            (Scheme::Token, r#"a"b\c, d=e"#, None, r#"Token realm="a\"b\\c, d=e""#),
            (Scheme::Token, "a\r\nX: é", None, r#"Token realm="a??X: ?""#),
            (
                Scheme::Bearer,
                "r",
                Some(("x", "say \"no\" \\ é\n")),
                r#"Bearer realm="r", error="x", error_description="say 'no' / ??""#,
            ),
        ] {
            assert_eq!(challenge(&Challenge { scheme, realm, error }), expected);
        }
    }
}
