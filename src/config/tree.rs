//! YAML to nodes with their places. Duplicate keys are problems; aliases are copied, and counted as if written out. Merge keys
//! and tags are problems too, and reading goes on behind them.
//!
//! Scalars keep their text and style; what a plain one means is decided by who reads it. Nodes, depth and size are bounded.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;

use granit_parser::{ErrorKind, Event, Marker, Options, Parser, ScalarStyle, ScanError, Span, StrInput};

use super::report::{Place, Report, quoted};

/// Nodes of a file, those that aliases stand for included.
const NODES_MAX: usize = 1_000_000;
/// Bytes of the texts and keys that aliases stand for, and that are kept for them.
const COPIED_BYTES_MAX: usize = 64 << 20;
/// Lists and mappings inside each other.
const DEPTH_MAX: usize = 64;

/// A value and where it stands.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its first character.
    pub place: Place,
    /// Its bytes in the file.
    pub bytes: Range<usize>,
    /// What it is.
    pub value: Value,
}

/// What a node is.
#[derive(Clone, Debug)]
pub enum Value {
    /// A text, number, boolean or nothing.
    Scalar(Scalar),
    /// A sequence.
    List(Vec<Node>),
    /// A mapping, in the order of the file.
    Map(Vec<Entry>),
}

/// A key with its value.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The key.
    pub key: Box<str>,
    /// Where the key stands.
    pub place: Place,
    /// What it is given.
    pub value: Node,
}

/// A scalar as it was written.
#[derive(Clone, Debug)]
pub struct Scalar {
    /// Its text, without quotes.
    pub text: Box<str>,
    /// Whether it stands without quotes.
    pub plain: bool,
    /// The text as it stands in the file, where that refers to the environment.
    pub written: Option<Box<str>>,
}

/// What a plain scalar is by the core schema (YAML 1.2.2 10.3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plain {
    /// Nothing, `~`, `null`.
    Null,
    /// `true`, `false`.
    Boolean(bool),
    /// An integer or a float.
    Number,
    /// Any other.
    Text,
}

impl Scalar {
    /// Whether (a part of) it came from the environment; it is a text then, whatever it looks like.
    pub const fn is_expanded(&self) -> bool {
        self.written.is_some()
    }

    /// What it is; anything in quotes or from the environment is a text.
    pub fn kind(&self) -> Plain {
        if !self.plain || self.is_expanded() {
            return Plain::Text;
        }
        match &*self.text {
            "" | "~" | "null" | "Null" | "NULL" => Plain::Null,
            "true" | "True" | "TRUE" => Plain::Boolean(true),
            "false" | "False" | "FALSE" => Plain::Boolean(false),
            text if is_number(text) => Plain::Number,
            _ => Plain::Text,
        }
    }
}

impl Node {
    /// What it is, for a message: `a number`, `a list`.
    pub fn description(&self) -> &'static str {
        match &self.value {
            Value::Scalar(scalar) => match scalar.kind() {
                Plain::Null => "nothing",
                Plain::Boolean(_) => "a boolean",
                Plain::Number => "a number",
                Plain::Text => "text",
            },
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }

    /// Nodes, and bytes of texts and keys.
    fn size(&self) -> (usize, usize) {
        let add = |(nodes, bytes): (usize, usize), (more, longer): (usize, usize)| (nodes + more, bytes + longer);
        match &self.value {
            Value::Scalar(scalar) => (1, scalar.text.len()),
            Value::List(items) => items.iter().map(Self::size).fold((1, 0), add),
            Value::Map(entries) => {
                let sizes = entries.iter().map(|entry| add(entry.value.size(), (0, entry.key.len())));
                sizes.fold((1, 0), add)
            }
        }
    }
}

fn is_number(text: &str) -> bool {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN") {
        return true;
    }
    if let Some(digits) = text.strip_prefix("0x") {
        return !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    }
    if let Some(digits) = text.strip_prefix("0o") {
        return !digits.is_empty() && digits.bytes().all(|byte| matches!(byte, b'0'..=b'7'));
    }
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['-', '+']).unwrap_or(exponent))),
        None => (unsigned, None),
    };
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    !(whole.is_empty() && fraction.is_empty())
        && digits(whole)
        && digits(fraction)
        && exponent.is_none_or(|exponent| !exponent.is_empty() && digits(exponent))
}

/// The document in `text`; `None` where it is no YAML that we take, which is reported then. An empty file is nothing.
pub fn parse(text: &str, report: &mut Report) -> Option<Node> {
    let mut options = Options::default();
    options.emit_comments = false;
    options.disallow_directives = true;
    options.flow_nesting_limit = DEPTH_MAX + 1;
    options.block_nesting_limit = DEPTH_MAX + 1;
    let shield = Shield::over(text);
    let parser = Parser::new_from_str_with_options(&shield.text, options);
    let mut builder = Builder {
        parser,
        shielded: &shield.places,
        anchors: HashMap::new(),
        nodes_left: NODES_MAX,
        copied_bytes_left: COPIED_BYTES_MAX,
        report,
    };
    match builder.document() {
        Ok(root) => Some(root),
        Err(stop) => {
            let Stop { place, message, hint } = stop.at_the_indent(text);
            match hint {
                Some(hint) => report.add_with_hint(place, message, hint),
                None => report.add(place, message),
            }
            None
        }
    }
}

/// How a message of the parser begins.
const NOT_YAML: &str = "not YAML: ";
const NO_TABS: &str = "indent with spaces, not with tabs";
const NO_OTHER_SPACES: &str = "this looks like a space and is another character; type it again";

/// Why reading ended before the end.
struct Stop {
    place: Place,
    message: String,
    hint: Option<&'static str>,
}

impl Stop {
    fn new(place: Place, message: impl Into<String>) -> Self {
        Self { place, message: message.into(), hint: None }
    }
}

impl Stop {
    /// A tab that indents the line, or the one behind it, is what is meant, wherever the parser gave up; and so is a character
    /// that looks like a space.
    fn at_the_indent(self, text: &str) -> Self {
        let lines = text.lines().zip(1..).skip(self.place.line - 1);
        let mut lines = lines.filter(|(line, _)| !line.trim().is_empty());
        let candidates = if self.hint == Some(NO_TABS) { 2 } else { 1 };
        let found = lines.by_ref().take(candidates).find_map(|(line, number)| {
            let indent = line.chars().take_while(|letter| letter.is_whitespace());
            let (letter, column) = indent.zip(1..).find(|(letter, _)| *letter != ' ')?;
            Some((Place { line: number, column }, if letter == '\t' { NO_TABS } else { NO_OTHER_SPACES }))
        });
        match found.filter(|_| self.message.starts_with(NOT_YAML)) {
            Some((place, hint)) => Self { place, hint: Some(hint), ..self },
            None => self,
        }
    }
}

impl From<ScanError> for Stop {
    fn from(error: ScanError) -> Self {
        let place = Place { line: error.marker().line().max(1), column: error.marker().col() + 1 };
        // the parser opens with one mark and closes with another
        let said = error.info().clone();
        let said = match said.strip_suffix('\'') {
            Some(rest) if rest.matches('`').count() == 1 => format!("{rest}`"),
            Some(_) | None => said,
        };
        Self { place, message: format!("{NOT_YAML}{said}"), hint: hint(error.kind()) }
    }
}

/// What most likely went wrong; the parser says only what it could not go on with.
#[expect(clippy::wildcard_enum_match_arm, reason = "the parser's other errors speak for themselves")]
const fn hint(kind: &ErrorKind) -> Option<&'static str> {
    match kind {
        ErrorKind::TabNotAllowed
        | ErrorKind::TabInBlockIndentation
        | ErrorKind::TabAtBlockScalarStart
        | ErrorKind::TabInPlainScalar
        | ErrorKind::TabInIndentation => Some(NO_TABS),
        ErrorKind::InvalidColonPlacement
        | ErrorKind::UnclosedQuotedScalar
        | ErrorKind::UnexpectedEofFlowSequence
        | ErrorKind::UnexpectedEofFlowMapping
        | ErrorKind::UnexpectedEofImplicitFlowMapping
        | ErrorKind::InvalidFlowScalarIndent
        | ErrorKind::InvalidQuotedScalarIndent => Some("is a bracket, a brace or a quote before this not closed?"),
        ErrorKind::ExpectedFlowMappingSeparator | ErrorKind::ExpectedFlowSequenceSeparator => Some(
            "is a comma missing before this, or has a text a brace, a bracket or a comma? put it in quotes: `path: \"/orders/{id}\"`",
        ),
        ErrorKind::MappingValueNotAllowed => {
            Some("is it indented like the keys beside it? a text with `: ` in it stands in quotes")
        }
        ErrorKind::ExpectedBlockMappingKey
        | ErrorKind::ExpectedBlockSequenceEntry
        | ErrorKind::InvalidIndentation
        | ErrorKind::BlockSequenceEntryNotAllowed => Some("indent it like the keys or items beside it"),
        ErrorKind::UnknownAnchor => Some("a text that begins with `*` stands in quotes"),
        ErrorKind::MissingAnchorOrAliasName => Some("a text that begins with `*` or `&` stands in quotes"),
        ErrorKind::UnexpectedCharacter { character: '@' | '`' | '%' } => {
            Some("a text that begins with such a character stands in quotes")
        }
        ErrorKind::SimpleKeyExpected => Some("a key is followed by a colon and a space: `key: value`"),
        _ => None,
    }
}

/// Characters that YAML gives a meaning to inside `${NAME:-default}`, and what stands for them while it is parsed: each
/// one character of three bytes, so that columns stay what they are.
const SHIELDED: [(char, char); 7] = [
    ('{', '\u{e000}'),
    ('}', '\u{e001}'),
    ('[', '\u{e002}'),
    (']', '\u{e003}'),
    (',', '\u{e004}'),
    (':', '\u{e005}'),
    ('#', '\u{e006}'),
];
/// How many bytes longer a character is that stands for another.
const SHIELD_BYTES: usize = 2;

/// A text in which references can stand without quotes, as in `{ secret: ${NAME} }`, where YAML takes `{` for a mapping.
struct Shield<'t> {
    text: Cow<'t, str>,
    /// The bytes of `text` where a character was replaced, ascending.
    places: Vec<usize>,
}

impl<'t> Shield<'t> {
    fn over(text: &'t str) -> Self {
        if !text.contains("${") {
            return Self { text: Cow::Borrowed(text), places: Vec::new() };
        }
        let mut shielded = String::with_capacity(text.len());
        let mut places = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            shielded.push_str(before);
            shielded.push('$');
            // a reference is on one line and has no quotes; all else is left as it is, to be reported where it is read
            let length = after.find(['}', '\n', '"', '\'']).filter(|&end| after.as_bytes().get(end) == Some(&b'}'));
            let Some((inner, after)) = length.and_then(|length| after.split_at_checked(length + 1)) else {
                shielded.push('{');
                rest = after;
                continue;
            };
            for letter in std::iter::once('{').chain(inner.chars()) {
                let stand_in = SHIELDED.iter().find(|(shown, _)| *shown == letter);
                if stand_in.is_some() {
                    places.push(shielded.len());
                }
                shielded.push(stand_in.map_or(letter, |(_, stand_in)| *stand_in));
            }
            rest = after;
        }
        shielded.push_str(rest);
        Self { text: Cow::Owned(shielded), places }
    }
}

/// The text of a scalar as it was written.
fn unshield(text: Cow<'_, str>) -> Box<str> {
    if !text.contains(SHIELDED.map(|(_, stand_in)| stand_in)) {
        return text.into();
    }
    let letters = text
        .chars()
        .map(|letter| SHIELDED.iter().find(|(_, stand_in)| *stand_in == letter).map_or(letter, |(shown, _)| *shown));
    letters.collect::<String>().into()
}

struct Builder<'s, 'r> {
    parser: Parser<'s, StrInput<'s>>,
    shielded: &'s [usize],
    anchors: HashMap<usize, Node>,
    nodes_left: usize,
    copied_bytes_left: usize,
    report: &'r mut Report,
}

#[expect(clippy::wildcard_enum_match_arm, reason = "what else the parser may tell of is refused")]
impl<'s> Builder<'s, '_> {
    fn document(&mut self) -> Result<Node, Stop> {
        let mut root = None;
        while let Some((event, span)) = self.next()? {
            match event {
                Event::StreamEnd => break,
                Event::DocumentStart(..) if root.is_some() => {
                    return Err(Stop::new(place(&span), "a second document begins here; one is expected"));
                }
                Event::StreamStart | Event::DocumentStart(..) | Event::DocumentEnd => {}
                event => root = Some(self.node(event, &span, 0)?),
            }
        }
        Ok(root.unwrap_or_else(|| Node {
            place: Place::START,
            bytes: 0..0,
            value: Value::Scalar(Scalar { text: "".into(), plain: true, written: None }),
        }))
    }

    fn next(&mut self) -> Result<Option<(Event<'s>, Span)>, Stop> {
        self.parser.next_event().transpose().map_err(Stop::from)
    }

    fn node(&mut self, event: Event<'s>, span: &Span, depth: usize) -> Result<Node, Stop> {
        let place = place(span);
        if depth > DEPTH_MAX {
            return Err(Stop::new(place, format!("nested deeper than {DEPTH_MAX} levels")));
        }
        let tagged = event.tag().map(|tag| tag.core_suffix().is_some());
        if tagged.is_some() {
            self.refuse_tag(span);
        }
        self.count(place, 1)?;
        let anchor = event.anchor_id();
        let mut bytes = self.bytes(span);
        let value = match event {
            Event::Scalar(text, style, ..) => {
                let plain = style == ScalarStyle::Plain;
                Value::Scalar(Scalar { text: unshield(text), plain, written: None })
            }
            Event::SequenceStart(..) => Value::List(self.list(&mut bytes, depth)?),
            Event::MappingStart(..) => Value::Map(self.map(place, &mut bytes, depth)?),
            Event::Alias(id) => return self.alias(id, place),
            _ => return Err(Stop::new(place, "not YAML: a value is missing here")),
        };
        let node = Node { place, bytes, value };
        match tagged {
            None => {}
            // a tag of YAML's own is about this value, and what stands in it is what it looks like
            Some(true) if !matches!(node.value, Value::Scalar(_)) => {}
            Some(true | false) => self.settle(&node),
        }
        if let Some(id) = anchor {
            let size = node.size();
            self.count_copy(place, size)?;
            self.anchors.insert(id, node.clone());
        }
        Ok(node)
    }

    fn list(&mut self, bytes: &mut Range<usize>, depth: usize) -> Result<Vec<Node>, Stop> {
        let mut items = Vec::new();
        while let Some((event, span)) = self.next()? {
            if event == Event::SequenceEnd {
                bytes.end = self.bytes(&span).end;
                break;
            }
            items.push(self.node(event, &span, depth + 1)?);
        }
        Ok(items)
    }

    fn map(&mut self, start: Place, bytes: &mut Range<usize>, depth: usize) -> Result<Vec<Entry>, Stop> {
        let mut entries = Vec::new();
        let mut merged = Vec::new();
        let mut lines: HashMap<Box<str>, usize> = HashMap::new();
        while let Some((event, span)) = self.next()? {
            let place = place(&span);
            if event == Event::MappingEnd {
                bytes.end = self.bytes(&span).end;
                break;
            }
            if event.tag().is_some() {
                self.refuse_tag(&span);
            }
            let key: Box<str> = match event {
                Event::Scalar(key, ..) => unshield(key),
                _ => return Err(Stop::new(place, "a key must be a plain word or a quoted text")),
            };
            let Some((event, span)) = self.next()? else { break };
            let value = self.node(event, &span, depth + 1)?;
            if &*key == "<<" {
                self.report.add(place, "merge keys (`<<`) are not supported; write the keys out");
                merged.push(value);
                continue;
            }
            if let Some(line) = lines.get(&key) {
                self.report.add(place, format!("duplicate key {}; it is given on line {line} already", quoted(&key)));
            } else {
                lines.insert(key.clone(), place.line);
            }
            // a duplicate is kept, so that a secret in it is known as one
            entries.push(Entry { key, place, value });
        }
        for value in merged {
            let sources = if let Value::List(items) = value.value { items } else { vec![value] };
            for source in sources {
                match source.value {
                    // what is merged stands behind the mapping's own keys, of which the first counts
                    Value::Map(more) => entries.extend(more),
                    // what would be merged is not known, and so not what is missing
                    Value::List(_) | Value::Scalar(_) => self.report.settle(start),
                }
            }
        }
        Ok(entries)
    }

    fn refuse_tag(&mut self, span: &Span) {
        let start = span.tag_start().unwrap_or(span.start);
        let hint = "write the value itself; one from the environment is `${NAME}`";
        self.report.add_with_hint(place_of(&start), "tags (`!…`) are not supported", hint);
    }

    /// What a tag would have made of a value is not known, and what it is without it says nothing.
    fn settle(&mut self, node: &Node) {
        self.report.settle(node.place);
        match &node.value {
            Value::Scalar(_) => {}
            Value::List(items) => items.iter().for_each(|item| self.settle(item)),
            Value::Map(entries) => {
                for entry in entries {
                    self.report.settle(entry.place);
                    self.settle(&entry.value);
                }
            }
        }
    }

    fn alias(&mut self, id: usize, place: Place) -> Result<Node, Stop> {
        let Some(node) = self.anchors.get(&id) else {
            return Err(Stop::new(place, "this alias stands inside what it refers to"));
        };
        // a large copy is not made to be refused
        let size = node.size();
        self.count_copy(place, size)?;
        self.anchors.get(&id).cloned().ok_or_else(|| Stop::new(place, "this alias stands for nothing"))
    }

    /// The bytes of the file that a span stands for.
    fn bytes(&self, span: &Span) -> Range<usize> {
        let original = |byte| byte - SHIELD_BYTES * self.shielded.partition_point(|&place| place < byte);
        let range = span.byte_range().unwrap_or_default();
        original(range.start)..original(range.end)
    }

    fn count_copy(&mut self, place: Place, (nodes, bytes): (usize, usize)) -> Result<(), Stop> {
        self.copied_bytes_left = self.copied_bytes_left.checked_sub(bytes).ok_or_else(|| {
            Stop::new(place, format!("aliases stand for more than {COPIED_BYTES_MAX} bytes of text in all"))
        })?;
        self.count(place, nodes)
    }

    fn count(&mut self, place: Place, nodes: usize) -> Result<(), Stop> {
        self.nodes_left = self.nodes_left.checked_sub(nodes).ok_or_else(|| {
            Stop::new(place, format!("more than {NODES_MAX} values, those that aliases stand for included"))
        })?;
        Ok(())
    }
}

fn place(span: &Span) -> Place {
    place_of(&span.start)
}

fn place_of(mark: &Marker) -> Place {
    Place { line: mark.line().max(1), column: mark.col() + 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_may_stand_without_quotes_and_places_stay() {
        let text = "{ é: ${A}, b: [x${B:-[1, 2]: #3}], c: \"${C}\" }";
        let root = parse(text, &mut Report::default()).unwrap();
        let Value::Map(entries) = &root.value else { panic!("a mapping") };
        let found: Vec<_> = entries.iter().map(|entry| (&*entry.key, entry.place.column)).collect();
        assert_eq!(found, [("é", 3), ("b", 12), ("c", 36)]);
        let scalar = |node: &Node| {
            let Value::Scalar(scalar) = &node.value else { panic!("a scalar") };
            (scalar.text.to_string(), text.get(node.bytes.clone()).unwrap().to_owned())
        };
        assert_eq!(scalar(&entries[0].value), ("${A}".to_owned(), "${A}".to_owned()));
        let Value::List(items) = &entries[1].value.value else { panic!("a list") };
        assert_eq!(scalar(&items[0]).0, "x${B:-[1, 2]: #3}");
        assert_eq!(scalar(&items[0]).1, "x${B:-[1, 2]: #3}");
        assert_eq!(scalar(&entries[2].value), ("${C}".to_owned(), "\"${C}\"".to_owned()));
    }

    #[test]
    fn a_plain_scalar_is_what_the_core_schema_says() {
        for (kind, texts) in [
            (Plain::Null, &["", "~", "null", "NULL"][..]),
            (Plain::Boolean(true), &["true", "TRUE"]),
            (Plain::Number, &["0", "-1", "+1.5", "1e3", "0x1F", "0o17", ".5", "5.", ".inf", "-.INF", ".nan"]),
            (Plain::Text, &["yes", "no", "on", "off", "1.2.3", "10s", "0xg", "-", ".", "e1", "1e", "nUll", "0o8"]),
        ] {
            for text in texts {
                let scalar = |plain, expanded: bool| Scalar {
                    text: (*text).into(),
                    plain,
                    written: expanded.then(|| "${A}".into()),
                };
                assert_eq!(scalar(true, false).kind(), kind, "{text}");
                assert_eq!(scalar(false, false).kind(), Plain::Text, "quoted {text}");
                assert_eq!(scalar(true, true).kind(), Plain::Text, "expanded {text}");
            }
        }
    }
}
