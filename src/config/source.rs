//! Where a configuration comes from: the file, `.env` beside it, the environment, and `${NAME}` in the scalars.
//!
//! The only place that reads the environment. Everything read is bounded, and nothing read is ever in a message.

use std::collections::HashMap;
use std::io::Read;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::report::{Place, Report, nearest, quoted};
use super::tree::{Node, Value};

/// The largest configuration file, in bytes.
pub const FILE_BYTES_MAX: u64 = 16 << 20;
/// The largest `.env`, secret, key or certificate file, in bytes.
pub const SIDE_FILE_BYTES_MAX: u64 = 1 << 20;
/// What all `${NAME}` of a file may become, in bytes.
const EXPANDED_BYTES_MAX: usize = 64 << 20;

/// Variables by name.
#[derive(Clone, Default)]
pub struct Environment {
    values: HashMap<String, String>,
    /// What `.env` says of those that were set already.
    overruled: HashMap<String, String>,
}

impl Environment {
    /// Those of this process; one that is not UTF-8 is left out.
    pub fn of_process() -> Self {
        let variables = std::env::vars_os();
        variables.filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))).collect()
    }

    /// The value of a variable.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// What `.env` says of a variable that has another origin.
    pub fn overruled(&self, name: &str) -> Option<&str> {
        self.overruled.get(name).map(String::as_str)
    }

    /// What to do about a variable that is not set.
    fn instead_of(&self, name: &str) -> String {
        let mut known: Vec<&str> = self.values.keys().map(String::as_str).collect();
        known.sort_unstable();
        match nearest(name, &known) {
            Some(other) => format!("did you mean `${{{other}}}`?"),
            None => format!("set it, or give a default: `${{{name}:-default}}`"),
        }
    }

    /// Adds what `.env` says: all that is not set, and of a variable that stands there twice the first.
    fn with_defaults(&self, defaults: HashMap<String, String>) -> Self {
        let Self { mut values, .. } = self.clone();
        let (overruled, absent) = defaults.into_iter().partition(|(name, _)| values.contains_key(name));
        values.extend::<HashMap<_, _>>(absent);
        Self { values, overruled }
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(variables: I) -> Self {
        let values = variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        Self { values, overruled: HashMap::new() }
    }
}

impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Environment").field("variables", &self.values.len()).finish_non_exhaustive()
    }
}

/// How long a pipe may be silent.
const WAIT_MAX: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };

/// Reads a file of at most `bytes_max` bytes; the error is for a message, without the path.
///
/// # Errors
/// Where it cannot be read or is larger.
pub fn read(path: &Path, bytes_max: u64) -> Result<Vec<u8>, String> {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the system's other errors speak for themselves")]
    let describe = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => "there is no such file".to_owned(),
        std::io::ErrorKind::PermissionDenied => "this process may not read it".to_owned(),
        std::io::ErrorKind::IsADirectory => "it is a directory".to_owned(),
        _ => error.to_string(),
    };
    // a pipe to which nobody writes would be waited for
    let opened = rustix::fs::open(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty());
    let mut file = std::fs::File::from(opened.map_err(|error| describe(error.into()))?).take(bytes_max + 1);
    let mut bytes = Vec::new();
    while let Err(error) = file.read_to_end(&mut bytes) {
        if error.kind() != std::io::ErrorKind::WouldBlock {
            return Err(describe(error));
        }
        match rustix::event::poll(&mut [PollFd::new(file.get_ref(), PollFlags::IN)], Some(&WAIT_MAX)) {
            Ok(0) => return Err(format!("nothing came out of it for {} seconds", WAIT_MAX.tv_sec)),
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(describe(error.into())),
        }
    }
    let is_pipe = || file.get_ref().metadata().is_ok_and(|metadata| metadata.file_type().is_fifo());
    if bytes.is_empty() && is_pipe() {
        return Err("it is a pipe, and nobody writes to it".to_owned());
    }
    if bytes.len() as u64 > bytes_max {
        return Err(format!("it is larger than {bytes_max} bytes"));
    }
    Ok(bytes)
}

/// `environment` with what `.env` in `directory` adds to it; whether there is such a file.
pub fn with_dotenv(environment: &Environment, directory: &Path, report: &mut Report) -> (Environment, bool) {
    let mut defaults = HashMap::new();
    let path = directory.join(".env");
    if !path.try_exists().unwrap_or(true) {
        return (environment.clone(), false);
    }
    match read(&path, SIDE_FILE_BYTES_MAX).map(String::from_utf8) {
        Err(error) => report.add_elsewhere(format!("`.env` cannot be read: {error}")),
        Ok(Err(_)) => report.add_elsewhere("`.env` is not UTF-8".to_owned()),
        Ok(Ok(text)) => {
            for (number, line) in text.strip_prefix('\u{feff}').unwrap_or(&text).lines().enumerate() {
                match assignment(line) {
                    Ok(None) => {}
                    Ok(Some((name, value))) => {
                        defaults.entry(name.to_owned()).or_insert(value);
                    }
                    Err(what) => report.add_elsewhere(format!("`.env` line {}: {what}", number + 1)),
                }
            }
        }
    }
    (environment.with_defaults(defaults), true)
}

/// `NAME=value`, `export NAME="value"`, a comment or nothing.
fn assignment(line: &str) -> Result<Option<(&str, String)>, &'static str> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let line = line.strip_prefix("export ").unwrap_or(line).trim_start();
    let (name, value) = line.split_once('=').ok_or("expected NAME=value")?;
    let name = name.trim_end();
    if !is_name(name) {
        return Err("a name has letters, digits and `_`, and begins with no digit");
    }
    let value = value.trim_start();
    let value = if let Some(rest) = value.strip_prefix('\'') {
        let (inner, after) = rest.split_once('\'').ok_or("the quote is not closed")?;
        only_comment(after)?;
        inner.to_owned()
    } else if let Some(rest) = value.strip_prefix('"') {
        double_quoted(rest)?
    } else {
        let end = value.find(" #").or_else(|| value.find("\t#")).unwrap_or(value.len());
        value.get(..end).unwrap_or(value).trim_end().to_owned()
    };
    Ok(Some((name, value)))
}

fn double_quoted(rest: &str) -> Result<String, &'static str> {
    let mut value = String::new();
    let mut letters = rest.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '"' => return only_comment(letters.as_str()).map(|()| value),
            '\\' => match letters.next() {
                Some('n') => value.push('\n'),
                Some('r') => value.push('\r'),
                Some('t') => value.push('\t'),
                Some(escaped @ ('"' | '\\' | '$')) => value.push(escaped),
                Some(_) | None => return Err("an unknown escape"),
            },
            other => value.push(other),
        }
    }
    Err("the quote is not closed")
}

fn only_comment(after: &str) -> Result<(), &'static str> {
    let after = after.trim_start();
    if after.is_empty() || after.starts_with('#') { Ok(()) } else { Err("something follows the closing quote") }
}

fn is_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Replaces `${NAME}` and `${NAME:-default}` in all scalars of `node`; `$${` stands for `${`.
pub fn expand(node: &mut Node, environment: &Environment, text: &str, report: &mut Report) {
    let mut bytes_left = EXPANDED_BYTES_MAX;
    expand_node(node, &mut Expansion { environment, text, report, bytes_left: &mut bytes_left });
}

struct Expansion<'e> {
    environment: &'e Environment,
    text: &'e str,
    report: &'e mut Report,
    bytes_left: &'e mut usize,
}

fn expand_node(node: &mut Node, expansion: &mut Expansion<'_>) {
    match &mut node.value {
        Value::List(items) => {
            for item in items {
                expand_node(item, expansion);
            }
        }
        Value::Map(entries) => {
            for entry in entries {
                expand_node(&mut entry.value, expansion);
            }
        }
        Value::Scalar(scalar) if scalar.text.contains("${") => {
            let source = expansion.text.get(node.bytes.clone()).unwrap_or_default();
            match replace(&scalar.text, expansion.environment, expansion.bytes_left) {
                Ok(text) => scalar.written = Some(std::mem::replace(&mut scalar.text, text.into())),
                Err(Wrong { what, hint, reference }) => {
                    expansion.report.add_with_hint(within(node.place, source, &reference), what, hint);
                    expansion.report.settle(node.place);
                    scalar.written = Some(std::mem::take(&mut scalar.text));
                }
            }
            expansion.report.expanded_at(node.place);
        }
        Value::Scalar(_) => {}
    }
}

/// Where `reference` begins in a scalar that stands at `place` on one line; otherwise where the scalar begins.
fn within(place: Place, source: &str, reference: &str) -> Place {
    let before = source.find(reference).and_then(|at| source.get(..at)).unwrap_or_default();
    if before.contains('\n') { place } else { Place { column: place.column + before.chars().count(), ..place } }
}

/// What is wrong with a reference.
#[derive(Debug)]
struct Wrong {
    what: String,
    hint: String,
    reference: String,
}

impl Wrong {
    fn new(what: impl Into<String>, hint: impl Into<String>, reference: String) -> Self {
        Self { what: what.into(), hint: hint.into(), reference }
    }
}

/// The text with its references replaced.
fn replace(text: &str, environment: &Environment, bytes_left: &mut usize) -> Result<String, Wrong> {
    let mut replaced = String::with_capacity(text.len());
    for part in parts(text) {
        let Reference { written, name, default } = match part {
            Part::Text(text) => {
                replaced.push_str(text);
                continue;
            }
            Part::Reference(reference) => reference,
            Part::Unclosed => {
                let hint = "`$${` stands for the characters themselves";
                return Err(Wrong::new("`${` without `}`", hint, "${".to_owned()));
            }
        };
        let wrong = |what: String, hint: String| Err(Wrong::new(what, hint, written.to_owned()));
        if !is_name(name) {
            let what = "expected `${NAME}` or `${NAME:-default}`".to_owned();
            return wrong(what, "a name has letters, digits and `_`, and begins with no digit".to_owned());
        }
        // as in a shell, an empty variable takes the default too
        let value = match (environment.value(name), default) {
            (None | Some(""), Some(default)) => default,
            (Some(value), _) => value,
            (None, None) => {
                let what = format!("the environment variable {} is not set", quoted(name));
                return wrong(what, environment.instead_of(name));
            }
        };
        let Some(left) = bytes_left.checked_sub(value.len()) else {
            return wrong(format!("the variables of the file exceed {EXPANDED_BYTES_MAX} bytes"), String::new());
        };
        *bytes_left = left;
        replaced.push_str(value);
    }
    Ok(replaced)
}

/// A part of a text, as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part<'t> {
    /// What stands for itself.
    Text(&'t str),
    /// What stands for a variable.
    Reference(Reference<'t>),
    /// A reference that does not end.
    Unclosed,
}

/// `${NAME}`, or `${NAME:-default}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reference<'t> {
    /// All of it.
    pub written: &'t str,
    /// The variable's name, if it is one.
    pub name: &'t str,
    /// What is taken where it is not set.
    pub default: Option<&'t str>,
}

/// The parts of a text; `$${` stands for `${`.
pub fn parts(text: &str) -> Vec<Part<'_>> {
    let (mut parts, mut rest) = (Vec::new(), text);
    while let Some(at) = rest.find("${") {
        let (before, reference) = rest.split_at(at);
        if let Some(before) = before.strip_suffix('$') {
            let (itself, after) = reference.split_at("${".len());
            parts.extend([Part::Text(before), Part::Text(itself)]);
            rest = after;
            continue;
        }
        parts.push(Part::Text(before));
        let Some(end) = reference.find('}') else {
            parts.push(Part::Unclosed);
            return parts;
        };
        let (written, after) = reference.split_at(end + 1);
        let inner = written.strip_prefix("${").and_then(|inner| inner.strip_suffix('}')).unwrap_or_default();
        let (name, default) = inner.split_once(":-").map_or((inner, None), |(name, default)| (name, Some(default)));
        parts.push(Part::Reference(Reference { written, name, default }));
        rest = after;
    }
    parts.push(Part::Text(rest));
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_dotenv_is_read_as_by_a_shell() {
        for (line, expected) in [
            ("A=b", Ok(Some(("A", "b")))),
            ("  export A = b c # note", Ok(Some(("A", "b c")))),
            ("A=b#c", Ok(Some(("A", "b#c")))),
            ("A=", Ok(Some(("A", "")))),
            ("A='b # \\n' # note", Ok(Some(("A", "b # \\n")))),
            (r#"A="b\n\"c\"""#, Ok(Some(("A", "b\n\"c\"")))),
            ("# note", Ok(None)),
            ("", Ok(None)),
            ("A", Err("expected NAME=value")),
            ("1A=b", Err("a name has letters, digits and `_`, and begins with no digit")),
            ("A='b", Err("the quote is not closed")),
            ("A='b'c", Err("something follows the closing quote")),
        ] {
            let expected =
                expected.map(|found: Option<(&str, &str)>| found.map(|(name, value)| (name, value.to_owned())));
            assert_eq!(assignment(line), expected, "{line}");
        }
    }

    #[test]
    fn references_are_replaced_inside_texts() {
        let environment: Environment = [("A", "x"), ("EMPTY", ""), ("NESTED", "${A}")].into_iter().collect();
        for (text, expected) in [
            ("${A}", Some("x")),
            ("a-${A}-${A}.", Some("a-x-x.")),
            ("${EMPTY}", Some("")),
            ("${EMPTY:-d}", Some("d")),
            ("${UNSET:-d:-e}", Some("d:-e")),
            ("${UNSET:-}", Some("")),
            ("$${A}", Some("${A}")),
            ("$A $", Some("$A $")),
            ("${NESTED}", Some("${A}")),
            ("${UNSET}", None),
            ("${A", None),
            ("${A b}", None),
            ("${}", None),
        ] {
            assert_eq!(replace(text, &environment, &mut 1000).ok().as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn what_references_become_is_bounded() {
        let environment: Environment = std::iter::once(("A", "xx")).collect();
        assert!(replace("${A}${A}", &environment, &mut 4).is_ok());
        assert!(replace("${A}${A}", &environment, &mut 3).is_err());
    }
}
