//! `portcullis import openapi SPEC`: routes for the paths of an `OpenAPI` 3.x document, for who begins with a hundred of them.
//!
//! What the document does not say is closed rather than open: a route is for `anyone` only where the document says that no
//! credential is needed. What rules cannot say as the document does is said more narrowly, with a comment beside the
//! route, or left out with one.

mod document;
mod access;
mod closed;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use serde_json::Value;

use self::access::Access;
use self::document::{Document, Followed};
use super::operator::{CliError, Console};
use super::output;
use crate::config::report::is_unseen;
use crate::config::{Environment, load_text, source};
use crate::route::Pattern;

/// The fields of a path item that are operations.
const METHODS: [&str; 8] = ["get", "put", "post", "delete", "options", "head", "patch", "trace"];
/// The same as rules spell them.
const METHODS_OF_RULES: [&str; 8] = ["GET", "PUT", "POST", "DELETE", "OPTIONS", "HEAD", "PATCH", "TRACE"];
/// The upstream that routes are given.
const UPSTREAM: &str = "api";

/// Why nothing is taken of what is a reference and more.
const BESIDE_ITS_REFERENCE: &str = "more stands beside its `$ref`, and tools differ on which of the two counts";

/// Prints the routes.
///
/// # Errors
/// The document cannot be read, or is not an `OpenAPI` 3.x document.
pub(super) fn import(path: &Path, console: &mut Console) -> Result<(), CliError> {
    let bytes = source::read(path, source::FILE_BYTES_MAX)
        .map_err(|error| CliError::Usage(format!("{}: cannot be read: {error}", path.display())))?;
    let text = String::from_utf8(bytes).map_err(|_| CliError::Usage(format!("{}: not UTF-8", path.display())))?;
    let printed = routes(&Document::read(&text, &path.display().to_string())?)?;
    output::write(&mut *console.output, &printed)
}

/// An operation of the document.
struct Operation<'d> {
    path: &'d str,
    method: String,
    /// The pattern of its paths. Or why no request has one of them.
    pattern: Result<String, String>,
    /// Why the pattern takes more than its paths.
    wider: Option<String>,
    /// Who may use it; or why no rule can say it.
    access: Result<Access, String>,
}

/// A path that a route would take too, and who may use it; `None` where that is nobody.
type Taken<'o> = (&'o str, Option<&'o Access>);
/// A path without operations, and its pattern.
type Bare<'d> = (&'d str, String);

fn routes(document: &Document) -> Result<String, CliError> {
    let (operations, bare) = operations(document)?;
    let (origin, _) = document.server(&[]);
    let printed = format!("upstreams:\n  {UPSTREAM}: {{ servers: [{}] }}\nroutes:\n", quoted(&origin));
    let mut routes = Routes { printed, taken: BTreeMap::new(), parts: BTreeMap::new(), gets: BTreeMap::new() };
    for operation in &operations {
        let Ok(pattern) = &operation.pattern else { continue };
        let others = routes.parts.entry((shape(pattern), operation.method.clone())).or_default();
        others.push((operation.path, operation.access.as_ref().ok()));
        if operation.method == "GET" {
            routes.gets.entry(shape(pattern)).or_default().insert(operation.path);
        }
    }
    // a path that is spelt out and that no rule can spell: what it has no operation of is nobody's
    let spelt = operations.iter().filter_map(|operation| Some((operation.path, operation.pattern.as_ref().ok()?)));
    let one_each: BTreeSet<(&str, &String)> = spelt.collect();
    for (path, pattern) in one_each.into_iter().chain(bare.iter().map(|(path, pattern)| (*path, pattern))) {
        if path.contains(['{', '}']) || !pattern.contains('{') {
            continue;
        }
        for method in METHODS_OF_RULES {
            let others = routes.parts.entry((shape(pattern), method.to_owned())).or_default();
            if !others.iter().any(|(other, _)| *other == path) {
                others.push((path, None));
            }
        }
    }
    for of_path in operations.chunk_by(|one, other| one.path == other.path) {
        routes.add(of_path);
    }
    // what is printed is taken as it is; better no routes than broken ones
    let load = |printed: &str| {
        if printed.len() as u64 > source::FILE_BYTES_MAX {
            let most = source::FILE_BYTES_MAX;
            return Err(CliError::Usage(format!("the routes are more than the {most} bytes that a file may have")));
        }
        load_text(printed, Path::new("."), "the routes", &Environment::default())
            .map_err(|problems| CliError::Usage(problems.to_string()))
    };
    let closed = closed::closed(&operations, &bare, &load(&routes.whole())?);
    routes.printed.push_str(&closed);
    let printed = routes.whole();
    load(&printed)?;
    Ok(printed)
}

/// All operations, those of one path side by side; and the patterns of the paths that have none.
fn operations(document: &Document) -> Result<(Vec<Operation<'_>>, Vec<Bare<'_>>), CliError> {
    let (mut operations, mut bare) = (Vec::new(), Vec::new());
    for (path, item) in document.paths()? {
        if path.starts_with("x-") {
            continue;
        }
        let place = format!("#/paths/{}", document::escaped(path));
        let item = document.follow(item, &place)?;
        if item.is_ambiguous() {
            ambiguous(document, path, &item, &mut operations, &mut bare)?;
            continue;
        }
        let item = item.value;
        let before = operations.len();
        for method in METHODS {
            let Some(operation) = item.get(method) else { continue };
            let place = format!("{place}/{method}");
            // no reference is allowed there, but tools follow it; and what it leads to may ask for more
            let followed = document.follow(operation, &place)?;
            let operation = followed.value;
            let access = if followed.is_ambiguous() {
                Err(BESIDE_ITS_REFERENCE.to_owned())
            } else if !operation.is_object() {
                Err("it is not a mapping".to_owned())
            } else if document.is_elsewhere(&[operation, item]) {
                // what is open there may be closed here
                Err("it is of another server than the document".to_owned())
            } else {
                access::of(document, operation, &place)?
            };
            let bases = followed.meanings().map(|meaning| document.base(&[meaning, item], &place));
            for base in bases.collect::<Result<BTreeSet<_>, _>>()? {
                let ((pattern, wider), access) = (pattern_of(&base, path), access.clone());
                operations.push(Operation { path, method: method.to_ascii_uppercase(), pattern, wider, access });
            }
        }
        let prefix = document.base(&[item], &place)?;
        for method in methods_of_later_versions(item) {
            let (pattern, wider) = pattern_of(&prefix, path);
            let access = Err("what OpenAPI 3.2 adds is not read".to_owned());
            operations.push(Operation { path, method, pattern, wider, access });
        }
        if operations.len() == before {
            bare.extend(pattern_of(&prefix, path).0.map(|pattern| (path.as_str(), pattern)));
        }
    }
    Ok((operations, bare))
}

/// A path with more beside its `$ref`: nothing of it is taken, and what either of the two may mean is closed.
fn ambiguous<'d>(
    document: &'d Document,
    path: &'d str,
    item: &Followed<'d>,
    operations: &mut Vec<Operation<'d>>,
    bare: &mut Vec<Bare<'d>>,
) -> Result<(), CliError> {
    let place = format!("#/paths/{}", document::escaped(path));
    let (mut bases, mut methods) = (BTreeSet::new(), BTreeSet::new());
    for item in item.meanings() {
        bases.insert(document.base(&[item], &place)?);
        methods.extend(methods_of_later_versions(item));
        for method in METHODS {
            let Some(operation) = item.get(method) else { continue };
            let place = format!("{place}/{method}");
            for operation in document.follow(operation, &place)?.meanings() {
                bases.insert(document.base(&[operation, item], &place)?);
            }
            methods.insert(method.to_ascii_uppercase());
        }
    }
    for base in bases {
        let (pattern, wider) = pattern_of(&base, path);
        if methods.is_empty() {
            bare.extend(pattern.clone().map(|pattern| (path, pattern)));
        }
        operations.extend(methods.iter().cloned().map(|method| {
            let (pattern, wider, access) = (pattern.clone(), wider.clone(), Err(BESIDE_ITS_REFERENCE.to_owned()));
            Operation { path, method, pattern, wider, access }
        }));
    }
    Ok(())
}

/// The methods of a path item that `OpenAPI` 3.0 and 3.1 do not know.
fn methods_of_later_versions(item: &Value) -> Vec<String> {
    let more = item.get("additionalOperations").and_then(Value::as_object);
    let named = more.into_iter().flat_map(|more| more.keys().cloned());
    item.get("query").map(|_| "QUERY".to_owned()).into_iter().chain(named).collect()
}

/// The pattern of a path, or why no request has it; and why the pattern takes more than the path.
fn pattern_of(base: &str, path: &str) -> (Result<String, String>, Option<String>) {
    let spelt = path.split(['?', '#']).next().unwrap_or_default();
    let (pattern, wider) = pattern(&format!("{base}{}{spelt}", if path.starts_with('/') { "" } else { "/" }));
    let wider = if !path.starts_with('/') {
        Some("a path begins with `/`".to_owned())
    } else if spelt != path {
        Some("a rule decides by the path, without what begins with `?` or `#`".to_owned())
    } else {
        wider
    };
    let parsed = Pattern::parse(&pattern).map_err(|error| error.to_string().replace(is_unseen, "\u{fffd}"));
    (parsed.map(|pattern| pattern.to_string()), wider)
}

/// What is printed, and which requests it is about so far.
struct Routes<'o> {
    printed: String,
    /// By shape and method: the path that took it.
    taken: BTreeMap<(String, String), String>,
    /// By shape and method: what a route of this shape would take too.
    parts: BTreeMap<(String, String), Vec<Taken<'o>>>,
    /// By shape: the paths of which a GET is.
    gets: BTreeMap<String, BTreeSet<&'o str>>,
}

impl Routes<'_> {
    fn whole(&self) -> String {
        if self.printed.lines().any(|line| line.starts_with("  - ")) {
            return self.printed.clone();
        }
        self.printed.replacen("routes:\n", "routes: []\n", 1)
    }

    fn left_out(&mut self, operation: &Operation<'_>, why: &str) {
        let what = format!("{} {}", operation.method, operation.path);
        writeln!(self.printed, "  # left out, {}: {why}", comment(&what)).ok();
    }

    /// The routes of one path.
    fn add(&mut self, operations: &[Operation<'_>]) {
        // operations that the same people may use are one route
        let mut alike: BTreeMap<(&str, &Access), Vec<&Operation<'_>>> = BTreeMap::new();
        for operation in operations {
            match self.place_of(operation, operations) {
                Ok(found) => alike.entry(found).or_default().push(operation),
                Err(why) => self.left_out(operation, &why),
            }
        }
        for ((pattern, access), operations) in alike {
            let shape = shape(pattern);
            let mut methods: Vec<String> = Vec::new();
            for operation in operations {
                // GET takes HEAD along
                let claimed: &[&str] = if operation.method == "GET" { &["GET", "HEAD"] } else { &[&operation.method] };
                let keys = claimed.iter().map(|method| (shape.clone(), (*method).to_owned()));
                let other = keys.clone().find_map(|key| self.taken.get(&key).filter(|other| *other != operation.path));
                if let Some(other) = other {
                    let why = format!("it cannot be told from {}", comment(other));
                    self.left_out(operation, &why);
                    continue;
                }
                self.taken.extend(keys.map(|key| (key, operation.path.to_owned())));
                methods.push(operation.method.clone());
            }
            if !methods.is_empty() {
                self.write(pattern, access, &methods);
            }
        }
    }

    /// The route of an operation, one of those of its path; or why there can be none.
    fn place_of<'o>(
        &self,
        operation: &'o Operation<'_>,
        all: &[Operation<'_>],
    ) -> Result<(&'o str, &'o Access), String> {
        let (pattern, access) = (operation.pattern.as_ref()?, operation.access.as_ref()?);
        if let Some(wider) = &operation.wider {
            return Err(wider.clone());
        }
        let shape = shape(pattern);
        for method in [operation.method.as_str(), "HEAD"].iter().take(if operation.method == "GET" { 2 } else { 1 }) {
            let parts = self.parts.get(&(shape.clone(), (*method).to_owned()));
            for (path, of_part) in parts.into_iter().flatten().filter(|(path, _)| *path != operation.path) {
                // what anyone may have is not less open where GET takes it along
                let may = |of_part: &&Access| access.is_as(of_part) || *method != operation.method && of_part.is_open();
                if !of_part.as_ref().is_some_and(may) {
                    return Err(format!("it would take {} too, which asks for something else", comment(path)));
                }
            }
        }
        // HEAD is allowed where GET is, and to the same
        let named =
            |method: &str| all.iter().find(|other| other.method == method && other.pattern.as_ref() == Ok(pattern));
        if let ("GET", Some(head)) = (&*operation.method, named("HEAD"))
            && !head.access.as_ref().is_ok_and(|head| head.is_open() || access.is_as(head))
        {
            return Err("HEAD is allowed where GET is, and the document asks for something else for HEAD".to_owned());
        }
        if operation.method == "HEAD" {
            match named("GET") {
                Some(get) if self.place_of(get, all).is_ok() && get.access.as_ref() != Ok(access) => {
                    return Err("HEAD is allowed where GET is, and to the same".to_owned());
                }
                Some(get) if self.place_of(get, all).is_ok() => {}
                // a rule that closes GET closes HEAD
                Some(_) => return Err("GET is left out, and HEAD with it".to_owned()),
                None if self.gets.contains_key(&shape) => {
                    return Err("GET is another path's, and HEAD with it".to_owned());
                }
                None if !pattern.contains('{') => return Err("there is no GET beside it".to_owned()),
                None => {}
            }
        }
        Ok((pattern, access))
    }

    fn write(&mut self, pattern: &str, access: &Access, methods: &[String]) {
        let printed = &mut self.printed;
        for note in access.notes() {
            writeln!(printed, "  # {note}").ok();
        }
        write!(printed, "  - path: {}\n    methods: [{}]\n", quoted(pattern), methods.join(", ")).ok();
        access.write(printed);
        writeln!(printed, "    to: {UPSTREAM}").ok();
    }
}

/// The pattern of a templated path; and why it takes more than that.
fn pattern(path: &str) -> (String, Option<String>) {
    let (mut pattern, mut wider, mut names) = (String::new(), None, BTreeSet::new());
    for segment in path.strip_prefix('/').unwrap_or(path).split('/') {
        pattern.push('/');
        // in a rule `**` is everything below, and here it is itself
        if !segment.contains(['{', '}']) && !segment.contains("**") {
            push_encoded(&mut pattern, segment);
            continue;
        }
        let inner: String = segment.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
        let stem = match inner.trim_matches('_') {
            "" => "segment".to_owned(),
            name if name.starts_with(|first: char| first.is_ascii_digit()) => format!("_{name}"),
            name => name.to_owned(),
        };
        let numbered = (2_usize..).map(|number| format!("{stem}{number}"));
        let name = std::iter::once(stem.clone()).chain(numbered).find(|name| !names.contains(name)).unwrap_or(stem);
        if !(segment.starts_with('{') && segment.find('}') == Some(segment.len() - 1)) {
            let shown = comment(segment);
            let why = if segment.contains(['{', '}']) {
                format!("a part of a segment cannot be a placeholder, and {shown} would take any one")
            } else {
                format!("in a rule `**` is everything below, and in the document {shown} is itself")
            };
            wider.get_or_insert(why);
        }
        write!(pattern, "{{{name}}}").ok();
        names.insert(name);
    }
    (pattern, wider)
}

/// A segment as a request has it: what a path cannot have as it is, percent-encoded (RFC 3986 3.3).
fn push_encoded(pattern: &mut String, segment: &str) {
    let bytes = segment.as_bytes();
    for (index, &byte) in bytes.iter().enumerate() {
        let is_escape = || matches!(bytes.get(index + 1..index + 3), Some([a, b]) if a.is_ascii_hexdigit() && b.is_ascii_hexdigit());
        if byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@".contains(&byte) || byte == b'%' && is_escape() {
            pattern.push(char::from(byte));
        } else {
            write!(pattern, "%{byte:02X}").ok();
        }
    }
}

/// A pattern whatever its placeholders are called.
fn shape(pattern: &str) -> String {
    let segments = pattern.split('/').map(|segment| if segment.starts_with('{') { "{}" } else { segment });
    segments.collect::<Vec<_>>().join("/")
}

/// A text in YAML, whatever is in it. `${` would be read as a variable.
fn quoted(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'-' | b'_' | b'.');
    let is_plain =
        text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '/') && text.bytes().all(plain);
    let word = ["true", "false", "null", "anyone", "authenticated"].iter().any(|word| text.eq_ignore_ascii_case(word));
    if is_plain && !word { text.to_owned() } else { Value::from(text.replace("${", "$${")).to_string() }
}

/// A text of the document inside a comment: on one line.
fn comment(text: &str) -> String {
    crate::config::report::quoted(text)
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod attacks;
