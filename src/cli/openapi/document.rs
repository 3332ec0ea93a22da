//! The document itself: JSON or YAML, its references, its servers.

use serde_json::{Map, Value};

use super::super::operator::CliError;
use crate::authenticate::claims::strict_object;
use crate::config::report::Report;
use crate::config::tree::{self, Node, Plain};

/// References that lead to references.
const REFERENCES_MAX: usize = 8;
/// Servers of one list.
const SERVERS_MAX: usize = 64;
/// What may stand beside a `$ref` and says nothing of who may use what.
const BESIDE_A_REFERENCE: [&str; 4] = ["$ref", "summary", "description", "parameters"];
/// Where the API is expected where the document does not say.
const DEFAULT_ORIGIN: &str = "http://127.0.0.1:8000";

/// An `OpenAPI` 3.x document.
#[derive(Debug)]
pub(super) struct Document {
    name: String,
    root: Value,
}

/// What a value stands for, and the references that lead there.
pub(super) struct Followed<'v> {
    /// What it stands for.
    pub(super) value: &'v Value,
    references: Vec<&'v Value>,
}

impl<'v> Followed<'v> {
    /// Whether something stands beside a `$ref` that leads there: tools differ on which of the two counts.
    pub(super) fn is_ambiguous(&self) -> bool {
        let more = |name: &String| !name.starts_with("x-") && !BESIDE_A_REFERENCE.contains(&name.as_str());
        self.references.iter().filter_map(|reference| reference.as_object()).any(|members| members.keys().any(more))
    }

    /// All that it may stand for.
    pub(super) fn meanings(&self) -> impl Iterator<Item = &'v Value> {
        let others = if self.is_ambiguous() { self.references.as_slice() } else { &[] };
        others.iter().copied().chain([self.value])
    }
}

impl Document {
    /// Reads JSON or YAML; `name` is the file's.
    ///
    /// # Errors
    /// It is neither, or no such document.
    pub(super) fn read(text: &str, name: &str) -> Result<Self, CliError> {
        // of a member that stands twice another reader may see the other one
        let root = match strict_object(text.as_bytes()) {
            Some(root) => root.into(),
            None => yaml(text, name)?,
        };
        let document = Self { name: name.to_owned(), root };
        let version = document.root.get("openapi").and_then(Value::as_str).unwrap_or_default();
        if !version.starts_with("3.") {
            return Err(document.wrong("#", "this is not an OpenAPI 3.x document: there is no `openapi: 3.…`"));
        }
        Ok(document)
    }

    /// Its paths.
    pub(super) fn paths(&self) -> Result<&Map<String, Value>, CliError> {
        let paths = self.root.get("paths").and_then(Value::as_object);
        let paths = paths.ok_or_else(|| self.wrong("#", "the document has no `paths`"))?;
        // the paths there may be narrower than those beside it
        if paths.contains_key("$ref") {
            return Err(self.wrong("#/paths", "`paths` cannot be a reference"));
        }
        Ok(paths)
    }

    /// What stands at a pointer such as `/security`.
    pub(super) fn at(&self, pointer: &str) -> Option<&Value> {
        self.root.pointer(pointer)
    }

    /// What a value stands for, which may be a reference within the document; `place` is where it stands.
    ///
    /// # Errors
    /// A reference leads to nothing, out of the document, round and round, or over too many others.
    pub(super) fn follow<'v>(&'v self, value: &'v Value, place: &str) -> Result<Followed<'v>, CliError> {
        let (mut found, mut references) = (value, Vec::new());
        for _ in 0..=REFERENCES_MAX {
            let Some(reference) = found.get("$ref") else { return Ok(Followed { value: found, references }) };
            if references.iter().any(|&before| std::ptr::eq(before, found)) {
                return Err(self.wrong(place, "`$ref` leads round and round"));
            }
            references.push(found);
            let shown = super::comment(reference.as_str().unwrap_or_default());
            let Some(pointer) = reference.as_str().and_then(|text| text.strip_prefix('#')) else {
                let what = format!("`$ref` to {shown} leads out of this document; bundle it into one first");
                return Err(self.wrong(place, &what));
            };
            let pointer = percent_encoding::percent_decode_str(pointer).decode_utf8_lossy();
            let next = self.root.pointer(&pointer);
            found = next.ok_or_else(|| self.wrong(place, &format!("`$ref` to {shown} leads to nothing")))?;
        }
        Err(self.wrong(place, &format!("`$ref` leads over more than {REFERENCES_MAX} references")))
    }

    fn wrong(&self, place: &str, what: &str) -> CliError {
        let place = if place == "#" { String::new() } else { format!(": {}", super::comment(place)) };
        CliError::Usage(format!("{}{place}: {what}", self.name))
    }

    /// The path that stands before all others, as [`Self::server`] has it; `place` is where it is asked for.
    ///
    /// # Errors
    /// The document does not say which it is, so that nothing could be closed either.
    pub(super) fn base(&self, nearer: &[&Value], place: &str) -> Result<String, CliError> {
        let (_, base) = self.server(nearer);
        if base.contains(['{', '}']) {
            return Err(self.wrong(place, "its server has a variable without a default"));
        }
        let Some(servers) = self.servers(nearer) else { return Ok(base) };
        let servers =
            servers.as_array().filter(|all| all.iter().all(|one| one.get("url").is_some_and(Value::is_string)));
        let servers =
            servers.ok_or_else(|| self.wrong(place, "its `servers` is not a list of mappings with a `url`"))?;
        if servers.len() > SERVERS_MAX {
            return Err(self.wrong(place, &format!("it has more than {SERVERS_MAX} servers")));
        }
        // by one base path a request is of another path than by the other, and who may differs
        let mut others = servers.iter().flat_map(|server| urls(server).into_iter().map(|url| parts(&url).1));
        if let Some(other) = others.find(|other| *other != base) {
            let shown = [&base, &other].map(|base| super::comment(if base.is_empty() { "/" } else { base }));
            let what = format!(
                "its servers have different base paths, {}: leave those with the one that the gateway stands before",
                shown.join(" and ")
            );
            return Err(self.wrong(place, &what));
        }
        Ok(base)
    }

    /// The `servers` that count: the nearest that are not an empty list.
    fn servers<'v>(&'v self, nearer: &[&'v Value]) -> Option<&'v Value> {
        let of =
            |value: &'v Value| value.get("servers").filter(|list| list.as_array().is_none_or(|all| !all.is_empty()));
        nearer.iter().find_map(|value| of(value)).or_else(|| of(&self.root))
    }

    /// Whether the first server of `nearer` is another than the document's. One that says a path alone is the same.
    pub(super) fn is_elsewhere(&self, nearer: &[&Value]) -> bool {
        self.location(nearer).0.is_some_and(|origin| self.location(&[]).0 != Some(origin))
    }

    /// The origin of the first server, and the path that stands before all others: of the first of `nearer` that names
    /// servers, or else of the document.
    pub(super) fn server(&self, nearer: &[&Value]) -> (String, String) {
        let (origin, base) = self.location(nearer);
        let usable = |origin: &String| {
            ["http://", "https://"].iter().any(|scheme| origin.starts_with(scheme))
                && !origin.contains(['{', '@', '$', '?', '#'])
        };
        (origin.filter(usable).unwrap_or_else(|| DEFAULT_ORIGIN.to_owned()), base)
    }

    /// The same, as the document says it; no origin where the server is a path.
    fn location(&self, nearer: &[&Value]) -> (Option<String>, String) {
        let first = self.servers(nearer).and_then(|servers| servers.get(0));
        parts(&first.and_then(|server| urls(server).into_iter().next()).unwrap_or_default())
    }
}

/// The addresses of a server: with the defaults of its variables, and then with each other value that one in the path may
/// have.
fn urls(server: &Value) -> Vec<String> {
    let given = server.get("url").and_then(Value::as_str).unwrap_or_default();
    let variables = || server.get("variables").and_then(Value::as_object).into_iter().flatten();
    let default = |variable: &Value| variable.get("default").and_then(Value::as_str).map(str::to_owned);
    let filled = |other: Option<(&String, &str)>| {
        variables().fold(given.to_owned(), |url, (name, variable)| {
            let value = other.filter(|(of, _)| *of == name).map(|(_, value)| value.to_owned());
            match value.or_else(|| default(variable)) {
                Some(value) => url.replace(&format!("{{{name}}}"), &value),
                None => url,
            }
        })
    };
    let mut all = vec![filled(None)];
    for (name, variable) in variables().filter(|(name, _)| parts(given).1.contains(&format!("{{{name}}}"))) {
        let values = variable.get("enum").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
        // one that differs is enough
        let differs = |value: &&str| default(variable).as_deref() != Some(*value);
        all.extend(values.filter(differs).take(1).map(|value| filled(Some((name, value)))));
    }
    all
}

/// The origin of an address, if it has one, and the path that stands before all others.
fn parts(url: &str) -> (Option<String>, String) {
    // one that leaves the scheme open is another server all the same
    let whole = if url.starts_with("//") { format!(":{url}") } else { url.to_owned() };
    let (origin, path) = match whole.split_once("://") {
        Some((scheme, rest)) => {
            let (authority, path) = rest.find('/').and_then(|at| rest.split_at_checked(at)).unwrap_or((rest, ""));
            (Some(format!("{scheme}://{authority}")), path)
        }
        None => (None, &*whole),
    };
    let path = path.split(['?', '#']).next().unwrap_or_default().trim_end_matches('/');
    let base = if path.is_empty() || path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    (origin, base)
}

/// A name as a part of a JSON pointer (RFC 6901 3).
pub(super) fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

fn yaml(text: &str, name: &str) -> Result<Value, CliError> {
    let mut report = Report::default();
    match tree::parse(text, &mut report) {
        Some(root) if report.is_empty() => Ok(value(&root)),
        Some(_) | None => {
            let listing = crate::config::listing::Listing::of_broken(text);
            Err(CliError::Usage(report.into_problems(name, &listing).to_string()))
        }
    }
}

/// A node as JSON. Numbers stay the texts that they are: none is needed.
fn value(node: &Node) -> Value {
    match &node.value {
        tree::Value::Scalar(scalar) => match scalar.kind() {
            Plain::Null => Value::Null,
            Plain::Boolean(value) => value.into(),
            Plain::Number | Plain::Text => (*scalar.text).into(),
        },
        tree::Value::List(items) => items.iter().map(value).collect(),
        tree::Value::Map(entries) => {
            entries.iter().map(|entry| (entry.key.to_string(), value(&entry.value))).collect::<Map<_, _>>().into()
        }
    }
}
