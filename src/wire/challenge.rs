//! `WWW-Authenticate`, correctly quoted (RFC 9110 11.6.1, RFC 7617 2.1, RFC 6750 3).

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

/// Writes the value of the field that bears one challenge: visible ASCII and spaces.
pub fn push_challenge(text: &mut Vec<u8>, challenge: &Challenge<'_>) {
    let Challenge { scheme, realm, error } = challenge;
    text.extend_from_slice(scheme.title().as_bytes());
    text.extend_from_slice(b" realm=\"");
    push_quoted(text, realm);
    text.push(b'"');
    if *scheme == Scheme::Basic {
        text.extend_from_slice(b", charset=\"UTF-8\"");
    }
    if let Some((code, description)) = error {
        text.extend_from_slice(b", error=\"");
        push_plain(text, code);
        text.extend_from_slice(b"\", error_description=\"");
        push_plain(text, description);
        text.push(b'"');
    }
}

/// As the inside of a quoted-string (RFC 9110 5.6.4); what is not ASCII is not understood alike everywhere, and replaced.
fn push_quoted(text: &mut Vec<u8>, value: &str) {
    if is_plain(value) {
        return text.extend_from_slice(value.as_bytes());
    }
    for char in value.chars() {
        match u8::try_from(char) {
            Ok(byte @ (b'"' | b'\\')) => text.extend_from_slice(&[b'\\', byte]),
            Ok(byte @ b' '..=b'~') => text.push(byte),
            Ok(_) | Err(_) => text.push(b'?'),
        }
    }
}

/// As `error` and `error_description` may be, which know no escapes (RFC 6750 3).
fn push_plain(text: &mut Vec<u8>, value: &str) {
    if is_plain(value) {
        return text.extend_from_slice(value.as_bytes());
    }
    for char in value.chars() {
        text.push(match u8::try_from(char) {
            Ok(b'"') => b'\'',
            Ok(b'\\') => b'/',
            Ok(byte @ b' '..=b'~') => byte,
            Ok(_) | Err(_) => b'?',
        });
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
            let mut text = Vec::new();
            push_challenge(&mut text, &Challenge { scheme, realm, error });
            assert_eq!(str::from_utf8(&text), Ok(expected));
        }
    }
}
