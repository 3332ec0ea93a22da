//! `portcullis import openapi SPEC`: routes for the paths of an `OpenAPI` 3.x document, for who begins with a hundred of them.
//!
//! What the document does not say is closed rather than open: a route is for `anyone` only where the document says that no
//! credential is needed. What rules cannot say as the document does is said more narrowly, with a comment beside the
//! route, or left out with one.

mod document;
mod access;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use http::Method;
use serde_json::Value;

use self::access::Access;
use self::document::Document;
use super::operator::{CliError, Console};
use super::output;
use crate::config::{Environment, Snapshot, load_text, source};
use crate::principal::Role;
use crate::route::{Allow, Pattern};
use crate::wire::target::canonical_path;

/// The fields of a path item that are operations.
const METHODS: [&str; 8] = ["get", "put", "post", "delete", "options", "head", "patch", "trace"];
/// The same as rules spell them.
const METHODS_OF_RULES: [&str; 8] = ["GET", "PUT", "POST", "DELETE", "OPTIONS", "HEAD", "PATCH", "TRACE"];
/// The upstream that routes are given.
const UPSTREAM: &str = "api";

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
    /// The pattern of its paths; wider than they are where a part of a segment is a placeholder. Or why there can be none.
    pattern: Result<String, String>,
    /// The first segment of which a part is a placeholder.
    part: Option<String>,
    /// Who may use it; or why no rule can say it.
    access: Result<Access, String>,
}

fn routes(document: &Document) -> Result<String, CliError> {
    let operations = operations(document)?;
    let (origin, _) = document.server(&[]);
    let printed = format!("upstreams:\n  {UPSTREAM}: {{ servers: [{}] }}\nroutes:\n", quoted(&origin));
    let mut routes = Routes { printed, taken: BTreeMap::new(), parts: BTreeMap::new(), gets: BTreeMap::new() };
    for operation in &operations {
        let Ok(pattern) = &operation.pattern else { continue };
        if operation.part.is_some() {
            routes.parts.entry((shape(pattern), operation.method.clone())).or_insert(operation);
        }
        if operation.method == "GET" {
            routes.gets.entry(shape(pattern)).or_default().insert(operation.path);
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
    let closed = closed(&operations, &load(&routes.whole())?);
    routes.printed.push_str(&closed);
    let printed = routes.whole();
    load(&printed)?;
    Ok(printed)
}

/// All operations, those of one path side by side.
fn operations(document: &Document) -> Result<Vec<Operation<'_>>, CliError> {
    let mut operations = Vec::new();
    for (path, item) in document.paths()? {
        if path.starts_with("x-") {
            continue;
        }
        let place = format!("#/paths/{}", document::escaped(path));
        let item = document.resolve(item, &place)?;
        for method in METHODS {
            let Some(operation) = item.get(method) else { continue };
            let place = format!("{place}/{method}");
            // no reference is allowed there, but tools follow it; and what it leads to may ask for more
            let operation = document.resolve(operation, &place)?;
            let (_, base) = document.server(&[operation, item]);
            let (pattern, part) = pattern_of(&base, path);
            let access = if operation.is_object() {
                access::of(document, operation, &place)?
            } else {
                Err("it is not a mapping".to_owned())
            };
            operations.push(Operation { path, method: method.to_ascii_uppercase(), pattern, part, access });
        }
    }
    Ok(operations)
}

/// The pattern of a path, or why there can be none; and the first segment of which a part is a placeholder.
fn pattern_of(base: &str, path: &str) -> (Result<String, String>, Option<String>) {
    let why = if !path.starts_with('/') {
        "a path begins with `/`"
    } else if format!("{base}{path}").split('/').any(|segment| segment.contains("**")) {
        "in a rule `**` is everything below, and in the document it is itself"
    } else if base.contains(['{', '}']) {
        "its server has a variable without a default"
    } else {
        let (pattern, parts) = pattern(base, path);
        let parsed = Pattern::parse(&pattern).map_err(|error| error.to_string().replace(char::is_control, "\u{fffd}"));
        return (parsed.map(|_| pattern), parts.into_iter().next());
    };
    (Err(why.to_owned()), None)
}

/// What is printed, and which requests it is about so far.
struct Routes<'o> {
    printed: String,
    /// By shape and method: the path that took it.
    taken: BTreeMap<(String, String), String>,
    /// By shape and method: what a placeholder for the whole segment would take too.
    parts: BTreeMap<(String, String), &'o Operation<'o>>,
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
        if let Some(part) = &operation.part {
            let part = comment(part);
            return Err(format!("a part of a segment cannot be a placeholder, and {part} would take any one"));
        }
        let shape = shape(pattern);
        for method in [operation.method.as_str(), "HEAD"].iter().take(if operation.method == "GET" { 2 } else { 1 }) {
            let Some(part) = self.parts.get(&(shape.clone(), (*method).to_owned())) else { continue };
            if !part.access.as_ref().is_ok_and(|of_part| access.is_as(of_part)) {
                return Err(format!("it would take {} too, which asks for something else", comment(part.path)));
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

/// Routes that nobody may use, for requests that a wider route would take though the document does not mean it to: for a
/// path without placeholders, every method that it has no operation of (a path that is spelt out is matched first, `OpenAPI`
/// "Paths Object"); for others, what was left out.
fn closed(operations: &[Operation<'_>], snapshot: &Snapshot) -> String {
    // a segment that no rule spells out
    let length = operations.iter().map(|operation| operation.path.len()).max().unwrap_or_default();
    let filler = "z".repeat(length + 1);
    let mut all: BTreeMap<String, (&str, BTreeSet<&str>)> = BTreeMap::new();
    for operation in operations {
        let Ok(pattern) = &operation.pattern else { continue };
        let (_, methods) = all.entry(shape(pattern)).or_insert_with(|| (pattern, BTreeSet::new()));
        if pattern.contains('{') {
            methods.insert(&operation.method);
        } else {
            methods.extend(METHODS_OF_RULES);
        }
    }
    let roles: BTreeSet<&str> = (snapshot.routes.routes().iter())
        .flat_map(|route| match &route.allow {
            Allow::Anyone | Allow::Authenticated => &[],
            Allow::Roles(roles) => roles.as_slice(),
        })
        .map(Role::as_str)
        .collect();
    let nobody = (1..).map(|number| format!("nobody{}", if number > 1 { number.to_string() } else { String::new() }));
    let nobody = nobody.into_iter().find(|name| !roles.contains(name.as_str())).unwrap_or_default();
    let mut printed = String::new();
    for (shape_of, (pattern, methods)) in all {
        let path: Vec<&str> =
            pattern.split('/').map(|segment| if segment.starts_with('{') { &*filler } else { segment }).collect();
        let path = path.join("/");
        let Ok(path) = canonical_path(&path, &snapshot.paths) else { continue };
        let taken = |method: &&&str| {
            let method = Method::from_bytes(method.as_bytes());
            let found = method.ok().and_then(|method| snapshot.routes.find("localhost", &method, &path).ok());
            found.is_some_and(|route| shape(&route.name) != shape_of)
        };
        let methods: Vec<&str> = methods.iter().filter(taken).copied().collect();
        if !methods.is_empty() {
            let (path, methods) = (quoted(pattern), methods.join(", "));
            writeln!(
                printed,
                "  # closed: a wider route would take this, which the document does not say; nobody has this role"
            )
            .ok();
            write!(printed, "  - path: {path}\n    methods: [{methods}]\n    allow: [{nobody}]\n    to: {UPSTREAM}\n")
                .ok();
        }
    }
    printed
}

/// The pattern of a templated path, and the segments of which a part is a placeholder.
fn pattern(base: &str, path: &str) -> (String, Vec<String>) {
    let (mut pattern, mut parts, mut names) = (String::new(), Vec::new(), BTreeSet::new());
    let whole = format!("{base}{path}");
    for segment in whole.strip_prefix('/').unwrap_or(&whole).split('/') {
        pattern.push('/');
        if !segment.contains(['{', '}']) {
            pattern.push_str(segment);
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
            parts.push(segment.to_owned());
        }
        write!(pattern, "{{{name}}}").ok();
        names.insert(name);
    }
    (pattern, parts)
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
