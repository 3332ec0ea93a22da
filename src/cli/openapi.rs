//! `portcullis import openapi SPEC`: routes for the paths of an `OpenAPI` 3.x document, for who begins with a hundred of them.
//!
//! What the document does not say is closed rather than open: a route is for `anyone` only where an operation says itself
//! that it needs no credential. What rules cannot say as the document does stands as a comment beside the route.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Map, Value};

use super::operator::{CliError, Console};
use super::output;
use crate::config::report::Report;
use crate::config::tree::{self, Node, Plain};
use crate::config::{Environment, load_text, source};
use crate::route::Pattern;

/// The fields of a path item that are operations.
const METHODS: [&str; 8] = ["get", "put", "post", "delete", "options", "head", "patch", "trace"];
/// References that lead to references.
const REFERENCES_MAX: usize = 8;
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
    let printed = routes(&document(&text, &path.display().to_string())?)?;
    output::write(&mut *console.output, &printed)
}

/// JSON or YAML.
fn document(text: &str, name: &str) -> Result<Value, CliError> {
    if let Ok(value) = serde_json::from_str(text) {
        return Ok(value);
    }
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

/// Who may use an operation, as a rule says it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Access {
    allow: String,
    scopes: BTreeSet<String>,
    schemes: BTreeSet<&'static str>,
    /// What the rule does not say as the document does.
    notes: BTreeSet<String>,
}

fn routes(document: &Value) -> Result<String, CliError> {
    let version = document.get("openapi").and_then(Value::as_str).unwrap_or_default();
    if !version.starts_with("3.") {
        return Err(CliError::Usage("this is not an OpenAPI 3.x document: there is no `openapi: 3.…`".to_owned()));
    }
    let Some(paths) = document.get("paths").and_then(Value::as_object) else {
        return Err(CliError::Usage("the document has no `paths`".to_owned()));
    };
    let (server, base) = server(document);
    let mut printed = format!("upstreams:\n  {UPSTREAM}: {{ servers: [{}] }}\nroutes:\n", quoted(&server));
    let mut seen = BTreeMap::new();
    for (path, item) in paths {
        let item = resolve(document, item);
        let (pattern, mut notes) = pattern(&base, path);
        if let Err(error) = Pattern::parse(&pattern) {
            let error = error.to_string().replace(char::is_control, "\u{fffd}");
            writeln!(printed, "  # left out, {}: {error}", comment(path)).ok();
            continue;
        }
        if let Some(other) = seen.insert(shape(&pattern), path) {
            writeln!(printed, "  # left out, {} cannot be told from {}", comment(path), comment(other)).ok();
            continue;
        }
        let mut by_access: BTreeMap<Access, Vec<String>> = BTreeMap::new();
        for method in METHODS {
            if let Some(operation) = item.get(method) {
                by_access.entry(access(document, operation)).or_default().push(method.to_ascii_uppercase());
            }
        }
        for (mut access, methods) in by_access {
            access.notes.append(&mut notes);
            write_route(&mut printed, &pattern, &methods, &access);
        }
    }
    if !printed.contains("  - ") {
        printed = printed.replace("routes:\n", "routes: []\n");
    }
    // what is printed is taken as it is; better no routes than broken ones
    load_text(&printed, Path::new("."), "the routes", &Environment::default())
        .map_err(|problems| CliError::Usage(problems.to_string()))?;
    Ok(printed)
}

fn write_route(printed: &mut String, pattern: &str, methods: &[String], access: &Access) {
    let Access { allow, scopes, schemes, notes } = access;
    for note in notes {
        writeln!(printed, "  # {note}").ok();
    }
    write!(printed, "  - path: {}\n    methods: [{}]\n    allow: {allow}\n", quoted(pattern), methods.join(", ")).ok();
    if !scopes.is_empty() {
        let scopes: Vec<String> = scopes.iter().map(|scope| quoted(scope)).collect();
        writeln!(printed, "    scopes: [{}]", scopes.join(", ")).ok();
    }
    if !schemes.is_empty() {
        writeln!(printed, "    schemes: [{}]", schemes.iter().copied().collect::<Vec<_>>().join(", ")).ok();
    }
    writeln!(printed, "    to: {UPSTREAM}").ok();
}

/// The first server's origin, and the path that stands before all others.
fn server(document: &Value) -> (String, String) {
    let url = document.pointer("/servers/0/url").and_then(Value::as_str).unwrap_or_default();
    let (origin, path) = match url.split_once("://") {
        Some((scheme, rest)) => {
            let (authority, path) = rest.find('/').and_then(|at| rest.split_at_checked(at)).unwrap_or((rest, ""));
            (format!("{scheme}://{authority}"), path)
        }
        None => (String::new(), url),
    };
    let usable = ["http://", "https://"].iter().any(|scheme| origin.starts_with(scheme))
        && !origin.contains(['{', '@', '$', '?', '#']);
    let origin = if usable { origin } else { "http://127.0.0.1:8000".to_owned() };
    let base = path.trim_end_matches('/');
    (origin, if base.starts_with('/') { base.to_owned() } else { String::new() })
}

/// The pattern of a templated path, and what it says otherwise.
fn pattern(base: &str, path: &str) -> (String, BTreeSet<String>) {
    let (mut pattern, mut notes, mut names) = (String::new(), BTreeSet::new(), BTreeSet::new());
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
        let whole_segment = segment.starts_with('{') && segment.find('}') == Some(segment.len() - 1);
        if !whole_segment {
            notes.insert(format!("a part of a segment cannot be a placeholder: {} takes any one", comment(segment)));
        }
        write!(pattern, "{{{name}}}").ok();
        names.insert(name);
    }
    (pattern, notes)
}

/// A pattern whatever its placeholders are called.
fn shape(pattern: &str) -> String {
    pattern
        .split('/')
        .map(|segment| if segment.starts_with('{') { "{}" } else { segment })
        .collect::<Vec<_>>()
        .join("/")
}

fn access(document: &Value, operation: &Value) -> Access {
    let none = Access {
        allow: "authenticated".to_owned(),
        scopes: BTreeSet::new(),
        schemes: BTreeSet::new(),
        notes: BTreeSet::new(),
    };
    let own = operation.get("security").and_then(Value::as_array);
    let Some(alternatives) = own.or_else(|| document.get("security").and_then(Value::as_array)) else {
        let unsaid = "the document says nothing of who may; `allow: anyone` where it is for everyone".to_owned();
        return Access { notes: BTreeSet::from([unsaid]), ..none };
    };
    let is_open = |requirement: &Value| requirement.as_object().is_some_and(Map::is_empty);
    if alternatives.is_empty() || alternatives.iter().any(is_open) {
        return Access { allow: "anyone".to_owned(), ..none };
    }
    let mut access = none;
    let (mut roles, mut scopes_of_each) = (BTreeSet::new(), BTreeSet::new());
    for (name, names) in alternatives.iter().filter_map(Value::as_object).flatten() {
        let scheme =
            document.pointer(&format!("/components/securitySchemes/{}", name.replace('~', "~0").replace('/', "~1")));
        let scheme = scheme.map(|scheme| resolve(document, scheme));
        let kind =
            |member: &str| scheme.and_then(|scheme| scheme.get(member)).and_then(Value::as_str).unwrap_or_default();
        let names: BTreeSet<String> =
            names.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
        let grants_scopes = matches!(kind("type"), "oauth2" | "openIdConnect");
        match (kind("type"), kind("scheme").to_ascii_lowercase().as_str()) {
            ("http", "basic") => drop(access.schemes.insert("basic")),
            ("http", "bearer") | ("oauth2" | "openIdConnect", _) => drop(access.schemes.insert("bearer")),
            ("apiKey", _) if kind("in") == "header" && kind("name").eq_ignore_ascii_case("authorization") => {
                access.schemes.insert("token");
            }
            _ => {
                let foreign = format!("the scheme {} is not one of basic, token and bearer", comment(name));
                access.notes.insert(foreign);
            }
        }
        if grants_scopes {
            access.scopes.extend(names.iter().cloned());
            scopes_of_each.insert(names);
        } else {
            roles.extend(names);
        }
    }
    if scopes_of_each.len() > 1 {
        access
            .notes
            .insert("the document asks for one of several sets of scopes; this asks for all of them".to_owned());
    }
    if !roles.is_empty() {
        access.allow = format!("[{}]", roles.iter().map(|role| quoted(role)).collect::<Vec<_>>().join(", "));
    }
    access
}

/// What a local reference stands for.
fn resolve<'v>(document: &'v Value, value: &'v Value) -> &'v Value {
    let mut found = value;
    for _ in 0..REFERENCES_MAX {
        let reference = found.get("$ref").and_then(Value::as_str).and_then(|text| text.strip_prefix('#'));
        match reference.and_then(|pointer| document.pointer(pointer)) {
            Some(next) => found = next,
            None => break,
        }
    }
    found
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
mod tests {
    use super::*;

    fn printed(text: &str) -> String {
        document(text, "a.yaml").and_then(|document| routes(&document)).unwrap_or_else(|error| panic!("{error}"))
    }

    const ORDERS: &str = r#"
openapi: 3.1.0
info: { title: Orders, version: 1.10 }
servers: [{ url: https://orders.example.com/v1/ }]
security: [{ oauth: [read] }]
paths:
  /orders:
    get: { responses: {} }
    post: { security: [{ oauth: [write] }], responses: {} }
  /orders/{order-id}/files/{name}.json:
    parameters: []
    put: { security: [{ basic: [admin] }, { key: [] }], responses: {} }
  /health:
    get: { security: [], responses: {} }
  /maybe:
    get: { security: [{}, { oauth: [] }], responses: {} }
  /odd/../path: { get: {} }
  "/orders/{other}/files/{file}": { get: {} }
  /linked: { $ref: '#/components/pathItems/linked' }
components:
  pathItems: { linked: { delete: { security: [{ cookie: [] }] } } }
  securitySchemes:
    oauth: { type: oauth2, flows: {} }
    basic: { type: http, scheme: Basic }
    key: { type: apiKey, in: header, name: Authorization }
    cookie: { type: apiKey, in: cookie, name: sid }
"#;

    #[test]
    fn paths_methods_and_requirements_become_routes() {
        assert_eq!(
            printed(ORDERS),
            r#"upstreams:
  api: { servers: ["https://orders.example.com"] }
routes:
  - path: /v1/orders
    methods: [GET]
    allow: authenticated
    scopes: [read]
    schemes: [bearer]
    to: api
  - path: /v1/orders
    methods: [POST]
    allow: authenticated
    scopes: [write]
    schemes: [bearer]
    to: api
  # a part of a segment cannot be a placeholder: `{name}.json` takes any one
  - path: "/v1/orders/{order_id}/files/{name__json}"
    methods: [PUT]
    allow: [admin]
    schemes: [basic, token]
    to: api
  - path: /v1/health
    methods: [GET]
    allow: anyone
    to: api
  - path: /v1/maybe
    methods: [GET]
    allow: anyone
    to: api
  # left out, `/odd/../path`: no request can match the segment `..`: path has a dot segment
  # left out, `/orders/{other}/files/{file}` cannot be told from `/orders/{order-id}/files/{name}.json`
  # the scheme `cookie` is not one of basic, token and bearer
  - path: /v1/linked
    methods: [DELETE]
    allow: authenticated
    to: api
"#
        );
    }

    #[test]
    fn what_the_document_does_not_say_stays_closed() {
        let found = printed(r#"{ "openapi": "3.0.3", "paths": { "/a": { "get": {} } } }"#);
        assert!(found.contains("allow: authenticated") && found.contains("says nothing of who may"), "{found}");
        assert!(found.contains("http://127.0.0.1:8000"), "{found}");
    }

    #[test]
    fn a_document_cannot_bring_rules_of_its_own() {
        let odd = "/a\\n    allow: anyone\\n#";
        let found = printed(&format!(
            r#"{{ "openapi": "3.0.3", "paths": {{ "{odd}": {{ "get": {{}} }}, "/${{HOME}}": {{ "get": {{}} }} }} }}"#
        ));
        assert!(!found.contains("\n    allow: anyone"), "{found}");
        for text in ["swagger: '2.0'\npaths: {}", "[]", "openapi: 3.0.0"] {
            assert!(document(text, "a").and_then(|document| routes(&document)).is_err(), "{text}");
        }
        assert!(printed("openapi: 3.0.0\npaths: {}").contains("routes: []"));
    }
}
