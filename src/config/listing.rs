//! Lines of the file, shown without the secrets that stand in them.
//!
//! Problems end up on terminals, in logs of pipelines and in chats. So what follows a key that looks like a secret's is
//! masked even where the key is misspelt or the file is not YAML, and so are the credentials of URLs.

use std::ops::Range;

use super::report::{Place, distance, is_unseen};
use super::tree::{Node, Value};

/// What stands in the place of a secret; its length says nothing of the secret's.
const MASK: &str = "********";
/// A longer line is cut around the caret.
const LINE_CHARS_MAX: usize = 160;

/// So many characters of base64 without a break are no path; a line of PEM has 64, and one of a short key nearly as many.
const KEY_LINE_CHARS_MIN: usize = 44;
/// A longer line is not shown: it was not written by hand, and each problem in it would cost reading it again.
const LINE_BYTES_MAX: usize = 64 << 10;

/// The text of a file with the ranges of bytes that are not shown.
#[derive(Debug)]
pub struct Listing<'s> {
    text: &'s str,
    starts: Vec<usize>,
    hidden: Vec<Range<usize>>,
}

impl<'s> Listing<'s> {
    /// Of `text`, in which `hidden` are ranges of bytes.
    pub fn new(text: &'s str, hidden: Vec<Range<usize>>) -> Self {
        let ends = memchr::memchr_iter(b'\n', text.as_bytes()).map(|end| end + 1);
        Self { text, starts: std::iter::once(0).chain(ends).collect(), hidden }
    }

    /// Of a file that was understood: the values of secret keys are hidden.
    pub fn of_tree(text: &'s str, root: &Node) -> Self {
        let mut hidden = Vec::new();
        hide(root, false, text, &mut hidden);
        Self::new(text, hidden)
    }

    /// Of a file that is not YAML: whatever follows a word like `secret:` is hidden, and the deeper lines below it.
    pub fn of_broken(text: &'s str) -> Self {
        Self::new(text, guess(text))
    }

    /// The line of `place`, masked, and how many characters stand before its column.
    pub fn show(&self, place: Place) -> Option<(String, usize)> {
        let start = *self.starts.get(place.line.checked_sub(1)?)?;
        let line = self.text.get(start..)?.lines().next().unwrap_or_default();
        if line.len() > LINE_BYTES_MAX {
            return None;
        }
        let end = start + line.len();
        let near: Vec<_> = self.hidden.iter().filter(|range| range.start < end && start < range.end).collect();
        let of_urls = secrets_of_urls(line);
        let mut shown: Vec<char> = Vec::new();
        let mut caret = None;
        let mut masked = false;
        for (column, (offset, letter)) in line.char_indices().enumerate() {
            if column + 1 == place.column {
                caret = Some(shown.len());
            }
            let byte = start + offset;
            let hidden =
                near.iter().any(|range| range.contains(&byte)) || of_urls.iter().any(|range| range.contains(&offset));
            if !hidden {
                shown.push(if is_unseen(letter) { ' ' } else { letter });
            } else if !masked {
                shown.extend(MASK.chars());
            }
            masked = hidden;
        }
        let caret = caret.unwrap_or(shown.len());
        let from = if shown.len() > LINE_CHARS_MAX { caret.saturating_sub(LINE_CHARS_MAX / 2) } else { 0 };
        let shown: String = shown.into_iter().skip(from).take(LINE_CHARS_MAX).collect();
        Some((shown.trim_end().to_owned(), caret - from))
    }
}

/// `user:password` of a URL in `line`, to its last `@`, and what follows `password=` in its query.
fn secrets_of_urls(line: &str) -> Vec<Range<usize>> {
    let Some(start) = line.find("://").map(|at| at + "://".len()) else { return Vec::new() };
    let userinfo = line.rfind('@').map(|end| start..end).filter(|range| !range.is_empty());
    let lower = line.to_ascii_lowercase();
    let queries = lower.match_indices("password=").map(|(at, name)| {
        let from = at + name.len();
        let rest = line.get(from..).unwrap_or_default();
        from..from + rest.find(['&', '\'', '"', ' ']).unwrap_or(rest.len())
    });
    userinfo.into_iter().chain(queries).collect()
}

/// Whether a value under this key should not be seen.
fn is_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    if matches!(key.as_str(), "passwords" | "password_grant") {
        return false;
    }
    key.contains("secret")
        || key.contains("passw")
        || key == "set" // values of header fields, such as an upstream's API key
        || ["secret", "password"].iter().any(|name| key.len() <= 12 && distance(&key, name) <= 2)
}

/// Collects the scalars below secret keys. One that only names variables holds no secret itself.
fn hide(node: &Node, secret: bool, text: &str, hidden: &mut Vec<Range<usize>>) {
    match &node.value {
        Value::Scalar(_) => {
            let source = text.get(node.bytes.clone()).unwrap_or_default();
            if is_key_material(source) || secret && !only_names_variables(source) {
                hidden.push(node.bytes.clone());
            }
        }
        Value::List(items) => {
            for item in items {
                hide(item, secret, text, hidden);
            }
        }
        Value::Map(entries) => {
            for entry in entries {
                let a_path = secret && &*entry.key == "file";
                hide(&entry.value, !a_path && (secret || is_secret(&entry.key)), text, hidden);
            }
        }
    }
}

/// A private key that was pasted where its path belongs, whole or a line of it.
pub(super) fn is_key_material(source: &str) -> bool {
    let text = source.trim().trim_matches(['"', '\'']);
    let base64 = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=');
    text.contains("PRIVATE KEY") || text.len() >= KEY_LINE_CHARS_MIN && text.bytes().all(base64)
}

fn only_names_variables(source: &str) -> bool {
    let inner = source.trim().trim_matches(['"', '\'']);
    inner
        .strip_prefix("${")
        .and_then(|rest| rest.strip_suffix('}'))
        .is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'))
}

fn guess(text: &str) -> Vec<Range<usize>> {
    let mut hidden = Vec::new();
    let mut below: Option<usize> = None;
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let range = start..start + line.len();
        start = range.end;
        let body = line.trim_start_matches([' ', '\t', '-']);
        let indent = line.len() - body.len();
        if is_key_material(body) || below.is_some_and(|outer| indent > outer || body.trim().is_empty()) {
            hidden.push(range);
            continue;
        }
        below = None;
        if let Some(after) = secret_key_end(line) {
            hidden.push(range.start + after..range.end);
            below = Some(indent);
        }
    }
    hidden
}

/// Where the value begins that follows the first secret key of the line.
fn secret_key_end(line: &str) -> Option<usize> {
    line.match_indices([':', '=']).map(|(colon, _)| colon).find_map(|colon| {
        let before = line.get(..colon)?.trim_end().trim_end_matches(['"', '\'']);
        let from = before.rfind(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '-')).map_or(0, |at| at + 1);
        let key = before.get(from..).unwrap_or_default();
        is_secret(key).then_some(colon + 1)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken(text: &str, line: usize) -> String {
        Listing::of_broken(text).show(Place { line, column: 1 }).unwrap().0
    }

    #[test]
    fn a_file_that_is_not_yaml_shows_no_secret_either() {
        for (name, text, line, expected) in [
            ("a value is masked", "a:\n  secret: canary", 2, "  secret:********"),
            ("so is one in braces", "- { id: x, secret: canary, roles", 1, "- { id: x, secret:********"),
            ("and one with a misspelt key", "pasword: canary", 1, "pasword:********"),
            ("and a quoted key", "\"secret\": canary", 1, "\"secret\":********"),
            ("and what goes on below", "secret: |\n  canary\nb: c", 2, "********"),
            ("a key that was pasted", "private_key: |\n  -----BEGIN PRIVATE KEY-----", 2, "********"),
            (
                "and each of its lines",
                "private_key: |\n  MC4CAQAwBQYDK2VwBCIEIFcanaryFcanaryFcanaryFcanaryFcanaryFcanaryA",
                2,
                "********",
            ),
            ("what comes after it is shown", "secret: |\n  canary\nb: c", 3, "b: c"),
            ("a section of settings is shown", "passwords: { min_bytes: 8", 1, "passwords: { min_bytes: 8"),
            ("credentials of a URL are masked", "store: mysql://root:canary@db/x", 1, "store: mysql://********@db/x"),
        ] {
            assert_eq!(broken(text, line), expected, "{name}");
        }
    }

    #[test]
    fn the_caret_follows_its_column_past_a_mask() {
        let listing = Listing::new("{ secret: abc, x: 1 }", std::iter::once(10..13).collect());
        for (column, caret) in [(3, 2), (11, 10), (16, 20), (99, 26)] {
            assert_eq!(listing.show(Place { line: 1, column }).unwrap().1, caret, "{column}");
        }
    }

    #[test]
    fn a_long_line_is_cut_around_the_caret() {
        let line = format!("{}x{}", " ".repeat(1000), "y".repeat(1000));
        let (shown, caret) = Listing::new(&line, Vec::new()).show(Place { line: 1, column: 1001 }).unwrap();
        assert_eq!(shown.chars().nth(caret), Some('x'));
        assert!(shown.len() <= LINE_CHARS_MAX);
        for (bytes, is_shown) in [(LINE_BYTES_MAX, true), (LINE_BYTES_MAX + 1, false)] {
            let line = "x".repeat(bytes);
            assert_eq!(Listing::new(&line, Vec::new()).show(Place::START).is_some(), is_shown, "{bytes}");
        }
    }
}
