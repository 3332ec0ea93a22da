//! Nodes to values: the kit with which the model reads a file.
//!
//! Each function reports what is wrong at its place and returns `None`, and reading goes on. A mapping is opened with
//! the keys it may have, so that no key is ever ignored.

use std::time::Duration;

use super::report::{Place, Report, alternatives, quoted};
use super::tree::{Node, Plain, Scalar, Value};
use super::units;
use crate::secret::Secret;
use crate::template::{Fault, TemplateError};

/// A value and where it was read.
#[derive(Clone, Debug)]
pub struct Placed<T> {
    /// What.
    pub value: T,
    /// Where.
    pub place: Place,
}

/// A mapping whose keys are all known.
pub struct Section<'t> {
    place: Place,
    entries: Vec<(&'t str, &'t Node)>,
}

impl<'t> Section<'t> {
    /// Opens the mapping `what`, which may have these `keys`; those `later` are known, but refused as not built yet.
    pub fn open(node: &'t Node, what: &str, keys: &[&str], later: &[&str], report: &mut Report) -> Option<Self> {
        #[cfg(test)]
        opened::note(what, keys);
        let Value::Map(found) = &node.value else {
            let hint = match node.description() {
                "nothing" => "leave it out".to_owned(),
                _ => format!("with the {} {}", if keys.len() == 1 { "key" } else { "keys" }, alternatives(keys)),
            };
            report.add_with_hint(node.place, format!("expected a mapping, found {}", node.description()), hint);
            return None;
        };
        let mut entries: Vec<(&str, &Node)> = Vec::with_capacity(found.len());
        for entry in found {
            if later.contains(&&*entry.key) {
                report.add(entry.place, format!("`{}` is not available yet", entry.key));
            } else if !keys.contains(&&*entry.key) {
                report.unknown_key(entry.place, what, &entry.key, keys);
            } else if !entries.iter().any(|(key, _)| *key == &*entry.key) {
                entries.push((&entry.key, &entry.value));
            }
        }
        Some(Self { place: node.place, entries })
    }

    /// Where the mapping begins.
    pub const fn place(&self) -> Place {
        self.place
    }

    /// What `key` is given.
    pub fn node(&self, key: &str) -> Option<&'t Node> {
        self.entries.iter().find(|(name, _)| *name == key).map(|(_, node)| *node)
    }

    /// What `key` is given, read; `None` where it is left out or wrong.
    pub fn read<T>(
        &self,
        key: &str,
        report: &mut Report,
        read: impl FnOnce(&'t Node, &mut Report) -> Option<T>,
    ) -> Option<T> {
        read(self.node(key)?, report)
    }

    /// What `key` is given, read; a problem where it is left out, with what was `expected`.
    pub fn required<T>(
        &self,
        key: &str,
        expected: &str,
        report: &mut Report,
        read: impl FnOnce(&'t Node, &mut Report) -> Option<T>,
    ) -> Option<T> {
        let Some(node) = self.node(key) else {
            report.add_with_hint(self.place, format!("`{key}` is missing"), format!("expected {expected}"));
            return None;
        };
        read(node, report)
    }
}

/// The entries of a mapping whose keys are names of the user's.
pub fn entries<'t>(node: &'t Node, report: &mut Report) -> impl Iterator<Item = (Placed<&'t str>, &'t Node)> + use<'t> {
    let entries = match &node.value {
        Value::Map(entries) => entries.as_slice(),
        Value::List(_) | Value::Scalar(_) => {
            let message = format!("expected a mapping, found {}", node.description());
            report.add_with_hint(node.place, message, "of names with what they stand for, such as `name: value`");
            &[]
        }
    };
    entries.iter().map(|entry| (Placed { value: &*entry.key, place: entry.place }, &entry.value))
}

/// Where each key of a mapping stands.
pub fn key_places(node: &Node) -> Vec<Placed<Box<str>>> {
    // one that is no mapping is reported where it is read
    let entries = entries(node, &mut Report::default());
    entries.map(|(key, _)| Placed { value: key.value.into(), place: key.place }).collect()
}

/// A list, each item read; items that are wrong are left out.
pub fn list<'t, T>(
    node: &'t Node,
    report: &mut Report,
    mut read: impl FnMut(&'t Node, &mut Report) -> Option<T>,
) -> Option<Vec<T>> {
    let Value::List(items) = &node.value else {
        let hint = match &node.value {
            Value::Map(_) => "each item stands behind a `- ` of its own, or all of them in brackets: `[…, …]`",
            Value::Scalar(scalar) if scalar.kind() == Plain::Null => "an empty one is `[]`",
            Value::Scalar(_) | Value::List(_) => "one alone stands in brackets too: `[…]`, and several as `[…, …]`",
        };
        report.add_with_hint(node.place, format!("expected a list, found {}", node.description()), hint);
        return None;
    };
    Some(items.iter().filter_map(|item| read(item, report)).collect())
}

/// The same, with at least one item.
pub fn some<'t, T>(
    node: &'t Node,
    report: &mut Report,
    read: impl FnMut(&'t Node, &mut Report) -> Option<T>,
) -> Option<Vec<T>> {
    if matches!(&node.value, Value::List(items) if items.is_empty()) {
        report.add(node.place, "this list is empty; it needs at least one item");
        return None;
    }
    list(node, report, read)
}

/// Whether a list has `max` items at most. What is compared with each other, or for each request, is not to be without end.
pub fn is_at_most(max: usize, node: &Node, report: &mut Report) -> bool {
    let further = if let Value::List(items) = &node.value { items.get(max) } else { None };
    if let Some(further) = further {
        report.add(further.place, format!("this list has {max} items at most"));
    }
    further.is_none()
}

/// Free text. A plain scalar that YAML takes for a number, a boolean or nothing is refused: what it would become as a
/// text depends on how it is spelt (`1.10`, `0755`, `null`).
pub fn text<'t>(node: &'t Node, report: &mut Report) -> Option<&'t str> {
    let Value::Scalar(scalar) = &node.value else {
        wrong_type(node, "text", report);
        return None;
    };
    match scalar.kind() {
        Plain::Text => return Some(&scalar.text),
        Plain::Null => wrong_type(node, "text", report),
        Plain::Boolean(_) | Plain::Number => {
            let message = format!("expected text; {} is {}: put it in quotes", scalar.text, node.description());
            report.add(node.place, message);
        }
    }
    None
}

/// Free text that is not empty, with its place.
pub fn placed_text(node: &Node, report: &mut Report) -> Option<Placed<Box<str>>> {
    let text = full_text(node, report)?;
    Some(Placed { value: text.into(), place: node.place })
}

/// Free text that is not empty.
pub fn full_text<'t>(node: &'t Node, report: &mut Report) -> Option<&'t str> {
    let text = text(node, report)?;
    if text.is_empty() {
        report.add(node.place, "this text is empty");
        return None;
    }
    Some(text)
}

/// A number, quantity or word, with quotes or without.
pub fn word<'t>(node: &'t Node, expected: &str, report: &mut Report) -> Option<&'t Scalar> {
    match &node.value {
        Value::Scalar(scalar) if scalar.kind() != Plain::Null => Some(scalar),
        Value::Scalar(_) | Value::List(_) | Value::Map(_) => {
            wrong_type(node, expected, report);
            None
        }
    }
}

fn wrong_type(node: &Node, expected: &str, report: &mut Report) {
    report.add(node.place, format!("expected {expected}, found {}", node.description()));
}

/// A value in a message. What came from the environment is not shown: somebody may have named the wrong variable.
pub fn shown(scalar: &Scalar) -> String {
    if scalar.is_expanded() { "the value of this variable".to_owned() } else { quoted(&scalar.text) }
}

/// Whether a node is a scalar that came from the environment.
pub fn is_expanded(node: &Node) -> bool {
    matches!(&node.value, Value::Scalar(scalar) if scalar.is_expanded())
}

/// A node that is known to be a scalar in a message, by the same rule.
pub fn shown_node(node: &Node) -> String {
    match &node.value {
        Value::Scalar(scalar) => shown(scalar),
        Value::List(_) | Value::Map(_) => "this".to_owned(),
    }
}

/// A scalar read by `parse`, whose error is put behind `… is`.
pub fn parsed<T, E: std::fmt::Display>(
    node: &Node,
    expected: &str,
    report: &mut Report,
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> Option<T> {
    let scalar = word(node, expected, report)?;
    parse(&scalar.text).map_err(|error| report.add(node.place, format!("{} is {error}", shown(scalar)))).ok()
}

/// A duration; zero is one.
pub fn duration(node: &Node, report: &mut Report) -> Option<Duration> {
    parsed(node, units::DURATION, report, units::duration)
}

/// A duration that is not zero.
pub fn some_time(node: &Node, report: &mut Report) -> Option<Duration> {
    parsed(node, units::DURATION, report, |text| match units::duration(text)? {
        Duration::ZERO => Err(units::UnitError::Zero),
        duration => Ok(duration),
    })
}

/// A size in bytes; zero is one.
pub fn size(node: &Node, report: &mut Report) -> Option<u64> {
    parsed(node, units::SIZE, report, units::size)
}

/// A reader of whole numbers from `min` to `max`.
pub fn whole<T>(min: u64, max: u64) -> impl Fn(&Node, &mut Report) -> Option<T>
where
    T: TryFrom<u64>,
{
    move |node, report| {
        let expected = format!("a whole number from {min} to {max}");
        parsed(node, &expected, report, |text| {
            let digits = text.bytes().all(|byte| byte.is_ascii_digit());
            let number = if digits { text.parse().ok() } else { None };
            number
                .filter(|number| (min..=max).contains(number))
                .and_then(|number| T::try_from(number).ok())
                .ok_or_else(|| format!("not {expected}"))
        })
    }
}

/// A size in bytes from `min` to `max`.
pub fn size_within(min: u64, max: u64) -> impl Fn(&Node, &mut Report) -> Option<u64> {
    move |node, report| {
        let bytes = size(node, report)?;
        if !(min..=max).contains(&bytes) {
            report.add(node.place, format!("expected a size from {min} to {max} bytes"));
            return None;
        }
        Some(bytes)
    }
}

/// `true` or `false`.
pub fn boolean(node: &Node, report: &mut Report) -> Option<bool> {
    let value = match &node.value {
        Value::Scalar(scalar) => match (scalar.kind(), &*scalar.text) {
            (Plain::Boolean(value), _) => Some(value),
            (_, "true") if scalar.is_expanded() => Some(true),
            (_, "false") if scalar.is_expanded() => Some(false),
            (Plain::Null | Plain::Number | Plain::Text, _) => None,
        },
        Value::List(_) | Value::Map(_) => None,
    };
    if value.is_none() {
        wrong_type(node, "`true` or `false`", report);
    }
    value
}

/// A reader of one of these words.
pub fn one_of<'w, T: Copy>(words: &'w [(&'w str, T)]) -> impl Fn(&Node, &mut Report) -> Option<T> + 'w {
    move |node, report| {
        let names: Vec<&str> = words.iter().map(|(name, _)| *name).collect();
        let scalar = word(node, &alternatives(&names), report)?;
        let found = words.iter().find(|(name, _)| *name == &*scalar.text).map(|(_, value)| *value);
        if found.is_none() {
            if scalar.is_expanded() {
                report.add(node.place, format!("expected {}", alternatives(&names)));
            } else {
                report.unknown(node.place, "word", &scalar.text, names);
            }
        }
        found
    }
}

/// What is written in the place of other quotes.
pub const FOREIGN_QUOTES: &str = "write `\"` or `'`";

/// Whether a text stands in quotes that are none to YAML, as word processors write them.
pub fn has_foreign_quotes(text: &str) -> bool {
    let is_one = |letter: char| matches!(letter, '“' | '”' | '„' | '‘' | '’' | '‚' | '«' | '»');
    let mut letters = text.chars();
    letters.next().is_some_and(is_one) && letters.next_back().is_some_and(is_one)
}

/// Whether a node is exactly this word.
pub fn is_word(node: &Node, word: &str) -> bool {
    matches!(&node.value, Value::Scalar(scalar) if &*scalar.text == word)
}

/// What `read` gives; for `off`, this.
pub fn or_off<T: Copy>(
    off: T,
    read: impl Fn(&Node, &mut Report) -> Option<T>,
) -> impl Fn(&Node, &mut Report) -> Option<T> {
    move |node, report| if is_word(node, "off") { Some(off) } else { read(node, report) }
}

/// A secret as it is given.
#[derive(Debug)]
pub enum SecretSource {
    /// In the file itself or by the environment.
    Text(Secret<String>),
    /// In another file.
    File(Placed<Box<str>>),
}

/// A secret: a text that is not empty, or `{ file: path }`. No message says anything of the value.
pub fn secret(node: &Node, report: &mut Report) -> Option<SecretSource> {
    match &node.value {
        Value::Scalar(scalar) => match scalar.kind() {
            Plain::Text if scalar.text.is_empty() => {
                report.add(node.place, "this secret is empty");
                None
            }
            Plain::Text => Some(SecretSource::Text(Secret::new(scalar.text.to_string()))),
            Plain::Null | Plain::Boolean(_) | Plain::Number => {
                report.add(node.place, format!("expected text, found {}: put it in quotes", node.description()));
                None
            }
        },
        Value::List(_) => {
            wrong_type(node, "text or `{ file: path }`", report);
            None
        }
        Value::Map(_) => {
            let section = Section::open(node, "a secret", &["file"], &[], report)?;
            section.required("file", "the path of a file that holds it", report, placed_text).map(SecretSource::File)
        }
    }
}

/// Says what is wrong with a template; a placeholder that nobody knows is told with the nearest.
pub fn no_template(place: Place, error: &TemplateError, report: &mut Report) {
    let Fault::Unknown(known) = &error.fault else { return report.add(place, error.to_string()) };
    let known: Vec<String> = known.iter().map(|name| format!("{{{name}}}")).collect();
    report.unknown(place, "placeholder", &format!("{{{}}}", error.placeholder), known.iter().map(String::as_str));
}

/// Any value as JSON: plain scalars by the core schema, everything else as text.
pub fn json(node: &Node, report: &mut Report) -> Option<serde_json::Value> {
    Some(match &node.value {
        Value::Scalar(scalar) => match scalar.kind() {
            Plain::Null => serde_json::Value::Null,
            Plain::Boolean(value) => value.into(),
            Plain::Text => (*scalar.text).into(),
            Plain::Number => {
                let number = serde_json::from_str::<serde_json::Number>(&scalar.text).map_err(|_| {
                    report.add(node.place, format!("{} is no number of JSON; put it in quotes", shown(scalar)));
                });
                number.ok()?.into()
            }
        },
        Value::List(_) => list(node, report, json)?.into(),
        Value::Map(_) => json_map(node, report)?.into(),
    })
}

/// A mapping as a JSON object.
pub fn json_map(node: &Node, report: &mut Report) -> Option<serde_json::Map<String, serde_json::Value>> {
    if !matches!(node.value, Value::Map(_)) {
        wrong_type(node, "a mapping", report);
        return None;
    }
    let entries: Vec<_> = entries(node, report).collect();
    entries.into_iter().map(|(key, value)| Some((key.value.to_owned(), json(value, report)?))).collect()
}

/// Which mappings were opened with which keys, so that a test can hold the schema against what is really read.
#[cfg(test)]
pub(super) mod opened {
    use std::cell::RefCell;
    use std::collections::BTreeSet;

    /// What a mapping is called, and the keys that it may have.
    type Opened = BTreeSet<(String, Vec<String>)>;

    thread_local!(static OPENED: RefCell<Opened> = RefCell::default());

    pub(super) fn note(what: &str, keys: &[&str]) {
        let mut keys: Vec<String> = keys.iter().map(|key| (*key).to_owned()).collect();
        keys.sort();
        OPENED.with_borrow_mut(|opened| opened.insert((what.replace('`', ""), keys)));
    }

    /// All so far, of this thread.
    pub(in crate::config) fn all() -> Opened {
        OPENED.with_borrow(Clone::clone)
    }
}
