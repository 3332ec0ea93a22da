//! Where a claim is: a path into the claims of a token.

use std::fmt;

/// Steps, at most.
const DEPTH_MAX: usize = 16;

/// A path into claims, such as `realm_access.roles`; it may go into JSON text inside a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimPath(pub Vec<Box<str>>);

impl ClaimPath {
    /// Reads a path that is written as one text: names with dots between them. What has `://` in it is one name, dots and
    /// all: so are the names called that cannot meet another's (RFC 7519 4.2), and nobody nests by them.
    ///
    /// `None`: a name is empty, or there are too many.
    pub fn parse(text: &str) -> Option<Self> {
        if text.contains("://") { Self::of([text]) } else { Self::of(text.split('.')) }
    }

    /// Takes names as they are, from the outermost on.
    ///
    /// `None`: a name is empty, or there are none or too many.
    pub fn of<'n>(names: impl IntoIterator<Item = &'n str>) -> Option<Self> {
        let names: Vec<Box<str>> = names.into_iter().map(Into::into).collect();
        let is_good = (1..=DEPTH_MAX).contains(&names.len()) && names.iter().all(|name| !name.is_empty());
        is_good.then_some(Self(names))
    }
}

/// As it is written in a configuration: the text, or the list of names where the text would be another path.
impl fmt::Display for ClaimPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.join(".");
        if !text.starts_with('[') && Self::parse(&text).is_some_and(|path| path == *self) {
            f.write_str(&text)
        } else {
            serde_json::json!(self.0).fmt(f)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_names_with_dots_between_them_or_one_url() {
        for (text, expected) in [
            ("roles", Some(&["roles"][..])),
            ("realm_access.roles", Some(&["realm_access", "roles"])),
            ("https://example.com/roles", Some(&["https://example.com/roles"])),
            ("cognito:groups", Some(&["cognito:groups"])),
            ("", None),
            (".", None),
            ("a..b", None),
            ("a.", None),
        ] {
            let names = ClaimPath::parse(text).map(|path| path.0);
            let expected = expected.map(|names| names.iter().map(|&name| name.into()).collect::<Vec<Box<str>>>());
            assert_eq!(names, expected, "{text}");
        }
        assert!(ClaimPath::parse(&["a"; DEPTH_MAX].join(".")).is_some());
        assert!(ClaimPath::parse(&["a"; DEPTH_MAX + 1].join(".")).is_none());
        assert!(ClaimPath::of([]).is_none());
    }

    #[test]
    fn no_two_paths_are_shown_alike() {
        for (names, shown) in [
            (&["a", "b"][..], "a.b"),
            (&["a.b"], r#"["a.b"]"#),
            (&["https://a.b/c"], "https://a.b/c"),
            (&["https://a.b/c", "d"], r#"["https://a.b/c","d"]"#),
            (&["https://a", "b/c"], r#"["https://a","b/c"]"#),
            (&[r#"["a"#, r#"b"]"#], r#"["[\"a","b\"]"]"#),
        ] {
            assert_eq!(ClaimPath::of(names.iter().copied()).unwrap().to_string(), shown, "{names:?}");
        }
    }
}
