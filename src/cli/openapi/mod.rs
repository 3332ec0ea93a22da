//! `portcullis import openapi SPEC`: routes for the paths of an `OpenAPI` 3.x document, for who begins with a hundred of them.
//!
//! What the document does not say is closed rather than open: a route is for `anyone` only where an operation says itself
//! that it needs no credential. What rules cannot say as the document does is said more narrowly, with a comment beside the
//! route, or left out with one.

mod document;
mod access;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use serde_json::Value;

use self::access::Access;
use self::document::Document;
use super::operator::{CliError, Console};
use super::output;
use crate::config::{Environment, load_text, source};
use crate::route::Pattern;

/// The fields of a path item that are operations.
const METHODS: [&str; 8] = ["get", "put", "post", "delete", "options", "head", "patch", "trace"];
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

/// What is printed, and which requests it is about so far.
struct Routes {
    printed: String,
    /// By shape and method: the path that took it.
    taken: BTreeMap<(String, String), String>,
}

fn routes(document: &Document) -> Result<String, CliError> {
    let (origin, _) = document.server(&[]);
    let printed = format!("upstreams:\n  {UPSTREAM}: {{ servers: [{}] }}\nroutes:\n", quoted(&origin));
    let mut routes = Routes { printed, taken: BTreeMap::new() };
    for (path, item) in document.paths()? {
        if path.starts_with("x-") {
            continue;
        }
        let place = format!("#/paths/{}", document::escaped(path));
        let item = document.resolve(item, &place)?;
        // operations of one path that the same people may use are one route
        let mut alike: BTreeMap<(String, Access), Vec<String>> = BTreeMap::new();
        for method in METHODS {
            let Some(operation) = item.get(method) else { continue };
            let name = method.to_ascii_uppercase();
            let (_, base) = document.server(&[operation, item]);
            let access = access::of(document, operation, &format!("{place}/{method}"))?;
            match access.and_then(|access| place_of(&base, path, access)) {
                Ok(found) => alike.entry(found).or_default().push(name),
                Err(why) => routes.left_out(&format!("{name} {path}"), &why),
            }
        }
        for ((pattern, access), methods) in alike {
            routes.add(path, &pattern, &access, methods);
        }
    }
    let mut printed = routes.printed;
    if !printed.lines().any(|line| line.starts_with("  - ")) {
        printed = printed.replacen("routes:\n", "routes: []\n", 1);
    }
    // what is printed is taken as it is; better no routes than broken ones
    load_text(&printed, Path::new("."), "the routes", &Environment::default())
        .map_err(|problems| CliError::Usage(problems.to_string()))?;
    Ok(printed)
}

/// The pattern of a route, and who may, with all that there is to say of it; or why there can be none.
fn place_of(base: &str, path: &str, mut access: Access) -> Result<(String, Access), String> {
    if !path.starts_with('/') {
        return Err("a path begins with `/`".to_owned());
    }
    if format!("{base}{path}").split('/').any(|segment| segment.contains("**")) {
        return Err("in a rule `**` is everything below, and in the document it is itself".to_owned());
    }
    let (pattern, parts) = pattern(base, path);
    if !parts.is_empty() && access.is_open() {
        return Err("a part of a segment cannot be a placeholder, and this would open every other one".to_owned());
    }
    for part in parts {
        access.note(format!("a part of a segment cannot be a placeholder: {} takes any one", comment(&part)));
    }
    Pattern::parse(&pattern).map_err(|error| error.to_string().replace(char::is_control, "\u{fffd}"))?;
    Ok((pattern, access))
}

impl Routes {
    fn left_out(&mut self, what: &str, why: &str) {
        writeln!(self.printed, "  # left out, {}: {why}", comment(what)).ok();
    }

    /// One route, for those of its methods that no other path of the same shape has.
    fn add(&mut self, path: &str, pattern: &str, access: &Access, mut methods: Vec<String>) {
        let shape = shape(pattern);
        methods.retain(|method| {
            // GET takes HEAD along
            let claimed: &[&str] = if method == "GET" { &["GET", "HEAD"] } else { &[method] };
            let keys = claimed.iter().map(|method| (shape.clone(), (*method).to_owned()));
            let other = keys.clone().find_map(|key| self.taken.get(&key).filter(|other| *other != path).cloned());
            let by_own_get = method == "HEAD" && self.taken.contains_key(&(shape.clone(), method.clone()));
            let why = match other {
                Some(other) => Some(format!("it cannot be told from {}", comment(&other))),
                None if by_own_get => Some("HEAD is allowed where GET is, and to the same".to_owned()),
                None => None,
            };
            match &why {
                None => self.taken.extend(keys.map(|key| (key, path.to_owned()))),
                Some(why) => self.left_out(&format!("{method} {path}"), why),
            }
            why.is_none()
        });
        if !methods.is_empty() {
            self.write(pattern, access, &methods);
        }
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
mod tests {
    use super::*;

    fn tried(text: &str) -> Result<String, String> {
        Document::read(text, "a.yaml").and_then(|document| routes(&document)).map_err(|error| error.to_string())
    }

    fn printed(text: &str) -> String {
        tried(text).unwrap_or_else(|error| panic!("{error}"))
    }

    /// The routes of these paths, with the usual schemes.
    fn routes_of(paths: &str) -> String {
        let document = format!(
            "openapi: 3.1.0\npaths:\n{paths}\ncomponents:\n  securitySchemes:\n    oauth: {{ type: oauth2 }}\n    \
             basic: {{ type: http, scheme: basic }}\n    key: {{ type: apiKey, in: header, name: Authorization }}\n    \
             cookie: {{ type: apiKey, in: cookie, name: sid }}\n"
        );
        printed(&document).split_once("routes:").unwrap().1.to_owned()
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
  "/orders/{other}/files/{file}": { get: {}, put: {} }
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
  # the document asks for `basic [admin]` or `key`; a rule has one set of scopes and of roles, and this asks for all of them
  - path: "/v1/orders/{order_id}/files/{name__json}"
    methods: [PUT]
    allow: [admin]
    schemes: [basic, token]
    to: api
  - path: /v1/health
    methods: [GET]
    allow: anyone
    to: api
  # a credential is optional here, and `anyone` looks at none
  - path: /v1/maybe
    methods: [GET]
    allow: anyone
    to: api
  # left out, `GET /odd/../path`: no request can match the segment `..`: path has a dot segment
  # left out, `PUT /orders/{other}/files/{file}`: it cannot be told from `/orders/{order-id}/files/{name}.json`
  - path: "/v1/orders/{other}/files/{file}"
    methods: [GET]
    allow: authenticated
    scopes: [read]
    schemes: [bearer]
    to: api
  # the scheme `cookie` is not one of basic, token and bearer
  - path: /v1/linked
    methods: [DELETE]
    allow: authenticated
    to: api
"#
        );
    }

    #[test]
    fn a_list_of_alternatives_lets_nobody_pass_whom_the_document_does_not() {
        for (security, expected) in [
            ("[{ basic: [] }, { key: [] }]", "allow: authenticated\n    schemes: [basic, token]"),
            ("[{ oauth: [a] }, { oauth: [a] }]", "allow: authenticated\n    scopes: [a]\n    schemes: [bearer]"),
            ("[{ oauth: [a] }, { oauth: [b] }]", "allow: authenticated\n    scopes: [a, b]\n    schemes: [bearer]"),
            ("[{ oauth: [a] }, { basic: [] }]", "allow: authenticated\n    scopes: [a]\n    schemes: [basic, bearer]"),
            ("[{ basic: [x] }, { key: [y] }]", "allow: [x, y]\n    schemes: [basic, token]"),
            ("[{ basic: [x] }, { key: [] }]", "allow: [x]\n    schemes: [basic, token]"),
            ("[{ basic: [], oauth: [a] }, { key: [] }]", "allow: authenticated\n    schemes: [token]"),
            ("[{ cookie: [], basic: [] }]", "allow: authenticated\n    schemes: [basic]"),
            ("{}", "allow: authenticated"),
            ("[{ unheard: [] }]", "allow: authenticated"),
        ] {
            let found = routes_of(&format!("  /a: {{ get: {{ security: {security} }} }}"));
            assert!(found.contains(&format!("methods: [GET]\n    {expected}\n    to:")), "{security}\n{found}");
            let exact =
                ["[{ basic: [] }, { key: [] }]", "[{ oauth: [a] }, { oauth: [a] }]", "[{ basic: [x] }, { key: [y] }]"];
            assert_eq!(found.contains("  # "), !exact.contains(&security), "{security}\n{found}");
        }
        for security in ["[{ basic: [], key: [] }]", "[{ basic: [x, y] }]"] {
            let found = routes_of(&format!("  /a: {{ get: {{ security: {security} }} }}"));
            assert!(found.starts_with(" []") && found.contains("# left out, `GET /a`: "), "{security}\n{found}");
        }
    }

    #[test]
    fn nothing_opens_more_than_the_document_says() {
        for (paths, expected) in [
            ("  /a/**: { get: { security: [] } }", "# left out, `GET /a/**`: in a rule `**` is everything below"),
            ("  /**: { get: { security: [] } }", "# left out, `GET /**`: "),
            ("  '/a/{x}.css': { get: { security: [] } }", "# left out, `GET /a/{x}.css`: "),
            ("  a: { get: { security: [] } }", "# left out, `GET a`: a path begins with `/`"),
        ] {
            let found = routes_of(paths);
            assert!(found.starts_with(" []") && found.contains(expected), "{paths}\n{found}");
        }
        assert!(routes_of("  x-a: { get: {} }").trim() == "[]");
    }

    #[test]
    fn twins_and_what_get_takes_along_never_tie() {
        let found = routes_of("  '/a/{x}': { get: {}, head: { security: [] } }\n  '/a/{y}': { get: {}, post: {} }");
        assert!(found.contains("# left out, `HEAD /a/{x}`: HEAD is allowed where GET is"), "{found}");
        assert!(found.contains("# left out, `GET /a/{y}`: it cannot be told from `/a/{x}`"), "{found}");
        assert!(found.contains("path: \"/a/{y}\"\n    methods: [POST]"), "{found}");
        let found = routes_of("  '/a/{x}': { head: {} }\n  '/a/{y}': { get: {} }");
        assert!(found.contains("# left out, `GET /a/{y}`: it cannot be told from `/a/{x}`"), "{found}");
    }

    #[test]
    fn the_nearest_server_gives_the_base_path() {
        let document = "openapi: 3.0.3\nservers: [{ url: 'https://{region}.example.com/{v}', variables: { region: { default: eu }, \
                        v: { default: v2 } } }]\npaths:\n  /a: { get: {} }\n  /b: { servers: [{ url: /other/ }], get: {}, \
                        put: { servers: [{ url: 'https://x/y?z' }] } }\n";
        let found = printed(document);
        assert!(found.contains("servers: [\"https://eu.example.com\"]"), "{found}");
        for path in ["/v2/a", "/other/b", "/y/b"] {
            assert!(found.contains(&format!("path: {path}\n")), "{path}\n{found}");
        }
    }

    #[test]
    fn a_reference_that_leads_nowhere_is_told_with_its_place() {
        for (paths, expected) in [
            ("  /a/b: { $ref: '#/nothing' }", "a.yaml: `#/paths/~1a~1b`: `$ref` to `#/nothing` leads to nothing"),
            (
                "  /a: { $ref: 'other.yaml#/a' }",
                "a.yaml: `#/paths/~1a`: `$ref` to `other.yaml#/a` leads out of this document",
            ),
            ("  /a: { $ref: '#/paths/~1a' }", "a.yaml: `#/paths/~1a`: `$ref` leads round and round"),
        ] {
            let error = tried(&format!("openapi: 3.1.0\npaths:\n{paths}\n")).unwrap_err();
            assert!(error.starts_with(expected), "{error}");
        }
        let scheme = "openapi: 3.1.0\npaths: { /a: { get: { security: [{ s: [] }] } } }\n\
                      components: { securitySchemes: { s: { $ref: '#/x' } } }\n";
        let error = tried(scheme).unwrap_err();
        assert!(error.contains("`#/components/securitySchemes/s`: `$ref` to `#/x` leads to nothing"), "{error}");
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
        let scheme =
            r#"{ "openapi": "3.0.3", "paths": { "/a": { "get": { "security": [{ "s\n  - path: /x": ["a\n"] }] } } } }"#;
        assert!(!printed(scheme).contains("\n  - path: /x"));
        for text in ["swagger: '2.0'\npaths: {}", "[]", "openapi: 3.0.0"] {
            assert!(tried(text).is_err(), "{text}");
        }
        assert!(printed("openapi: 3.0.0\npaths: {}").contains("routes: []"));
    }
}
