//! Hostile documents, and documents of every kind against another reading of them: what is printed lets nobody pass whom
//! the document does not.

use std::collections::BTreeMap;
use std::path::Path;

use http::Method;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::document::Document;
use super::routes;
use crate::config::snapshot::Snapshot;
use crate::config::{Environment, load_text};
use crate::decision::{Request, claimed, decide};
use crate::principal::{Principal, Scheme, Subject};
use crate::route::{Allow, Route};

fn tried(text: &str) -> Result<String, String> {
    Document::read(text, "a.yaml").and_then(|document| routes(&document)).map_err(|error| error.to_string())
}

/// What is printed, taken by `check`.
fn loaded(text: &str) -> (String, Snapshot) {
    let printed = tried(text).unwrap_or_else(|error| panic!("{text}\n{error}"));
    let snapshot = load_text(&printed, Path::new("."), "a.yaml", &Environment::default());
    let snapshot = snapshot.unwrap_or_else(|problems| panic!("{printed}\n{problems}"));
    (printed, snapshot)
}

/// Somebody who asks: nobody, or a principal with these roles and scopes by a scheme.
type Who = Option<(Scheme, Vec<&'static str>, Vec<&'static str>)>;

fn passes(snapshot: &Snapshot, method: &str, path: &str, who: &Who) -> bool {
    let request = Request::parse(&Method::from_bytes(method.as_bytes()).unwrap(), path).unwrap();
    let decision = decide(snapshot, request.head(), |schemes, _| match who {
        None => Ok(crate::authenticate::Caller::Anyone),
        Some((scheme, roles, scopes)) => {
            let roles = roles.iter().map(|&role| role.into()).collect();
            let scopes = scopes.iter().map(|&scope| scope.into()).collect();
            let principal = Principal { subject: Subject::user("u"), user_id: None, roles, scopes };
            claimed(schemes, &principal, Some(*scheme))
        }
    });
    decision.outcome.is_ok_and(|permit| permit.is_some())
}

/// Whether a document lets somebody pass, read by the words of the specification and not by ours: a path that is spelt out
/// is matched before a templated one; an operation's `security` stands instead of the document's; of the alternatives one is
/// enough, and of one all that it names is needed. Where it says nothing, everybody may. HEAD is allowed where GET is, as
/// everywhere in HTTP. Which of several templates decides is left to the tool: here the one that is spelt out further from
/// the left, of those that have the method.
fn says(document: &Value, method: &str, path: &str, who: &Who) -> bool {
    let paths = document["paths"].as_object().unwrap();
    let method = method.to_ascii_lowercase();
    let of_method = |item: &'_ Value| -> Option<Value> {
        item.get(&method).or_else(|| item.get("get").filter(|_| method == "head")).cloned()
    };
    let operations: Vec<Value> = if let Some(item) = paths.get(path) {
        of_method(item).into_iter().collect()
    } else {
        let wide = |known: &str| -> Vec<bool> {
            known.split('/').map(|segment| segment.contains('{') || segment.contains("**")).collect()
        };
        let fitting = paths.iter().filter(|(known, _)| fits(known, path));
        let all: Vec<_> = fitting.filter_map(|(known, item)| Some((wide(known), of_method(item)?))).collect();
        let narrowest = all.iter().map(|(wide, _)| wide).min().cloned();
        all.into_iter().filter(|(wide, _)| Some(wide) == narrowest.as_ref()).map(|(_, operation)| operation).collect()
    };
    operations.iter().any(|operation| {
        let Some(list) = operation.get("security").or_else(|| document.get("security")) else { return true };
        let list = list.as_array().unwrap();
        list.is_empty()
            || list.iter().any(|one| one.as_object().unwrap().iter().all(|(name, names)| meets(name, names, who)))
    })
}

fn meets(name: &str, names: &Value, who: &Who) -> bool {
    let Some((scheme, roles, scopes)) = who else { return false };
    let of_scheme = match name {
        "basic" => *scheme == Scheme::Basic,
        "key" => *scheme == Scheme::Token,
        "jwt" | "oauth" => *scheme == Scheme::Bearer,
        // a cookie: whoever we know may have one
        _ => true,
    };
    let held = if name == "oauth" { scopes } else { roles };
    of_scheme && names.as_array().unwrap().iter().all(|one| held.contains(&one.as_str().unwrap()))
}

/// Whether a template matches, each placeholder being at least one character of a segment.
fn fits(template: &str, path: &str) -> bool {
    let (templates, segments): (Vec<_>, Vec<_>) = (template.split('/').collect(), path.split('/').collect());
    let fit = |template: &str, segment: &str| match template.split_once('{') {
        None => template == segment,
        Some((before, rest)) => {
            let after = rest.split_once('}').unwrap().1;
            segment.len() > before.len() + after.len() && segment.starts_with(before) && segment.ends_with(after)
        }
    };
    templates.len() == segments.len()
        && templates.iter().zip(segments).all(|(template, segment)| fit(template, segment))
}

fn some_document() -> impl Strategy<Value = Value> {
    let path = "(/(a|b|é|[*][*]|[{]x[}]|[{]x[}][.](c|d))){1,2}";
    let names = |some: [&'static str; 2]| proptest::sample::subsequence(some.to_vec(), 0..=2);
    let of_scheme = prop_oneof![("(basic|key|jwt|cookie)", names(["r", "s"])), ("oauth", names(["v", "w"])),];
    let alternative = proptest::collection::btree_map("", Just(()), 0..1)
        .prop_flat_map(move |_| proptest::collection::vec(of_scheme.clone(), 0..3))
        .prop_map(|parts| parts.into_iter().map(|(name, names)| (name, json!(names))).collect::<Value>());
    let security = proptest::option::weighted(0.8, proptest::collection::vec(alternative, 0..4));
    let method = "(get|put|head|delete)";
    let operations = proptest::collection::btree_map(method, security.clone(), 1..4);
    let paths = proptest::collection::btree_map(path, operations, 1..6);
    (security, paths).prop_map(|(security, paths)| {
        let with = |security: Option<Vec<Value>>| {
            security.map_or_else(|| json!({}), |security| json!({ "security": security }))
        };
        let mut document = with(security);
        document["openapi"] = "3.1.0".into();
        let item = |operations: BTreeMap<String, Option<Vec<Value>>>| {
            operations.into_iter().map(|(method, security)| (method, with(security))).collect::<Value>()
        };
        document["paths"] = paths.into_iter().map(|(path, operations)| (path, item(operations))).collect();
        document["components"] = json!({ "securitySchemes": {
            "basic": { "type": "http", "scheme": "basic" },
            "key": { "type": "apiKey", "in": "header", "name": "authorization" },
            "jwt": { "type": "http", "scheme": "Bearer" },
            "oauth": { "type": "oauth2", "flows": {} },
            "cookie": { "type": "apiKey", "in": "cookie", "name": "sid" },
        } });
        document
    })
}

fn everybody() -> Vec<Who> {
    let sets = |some: [&'static str; 2]| [vec![], vec![some[0]], vec![some[1]], some.to_vec()];
    let mut all = vec![None];
    for scheme in Scheme::ALL {
        for roles in sets(["r", "s"]) {
            all.extend(sets(["v", "w"]).map(|scopes| Some((scheme, roles.clone(), scopes))));
        }
    }
    all
}

/// Documents of templates that have paths in common, some of whose operations no rule can say.
fn some_crossing_document() -> impl Strategy<Value = Value> {
    let security =
        prop_oneof![Just(json!([])), Just(json!([{ "basic": [], "key": [] }])), Just(json!([{ "key": ["r"] }])),];
    let operation = security.prop_map(|security| json!({ "security": security }));
    let operations = proptest::collection::btree_map("(get|get|put|head)", operation, 1..3);
    let paths = proptest::collection::btree_map("(/(a|b|[{]x[}])){2,3}", operations, 2..7);
    paths.prop_map(|paths| {
        json!({ "openapi": "3.1.0", "paths": paths, "components": { "securitySchemes": {
            "basic": { "type": "http", "scheme": "basic" },
            "key": { "type": "apiKey", "in": "header", "name": "authorization" },
        } } })
    })
}

fn lets_nobody_pass(
    document: &Value,
    paths: &[impl AsRef<str>],
    methods: &[&str],
    all: &[Who],
) -> Result<(), TestCaseError> {
    let (printed, snapshot) = loaded(&document.to_string());
    for path in paths.iter().map(AsRef::as_ref) {
        let sent = path.replace('é', "%C3%A9");
        for method in methods {
            for who in all {
                prop_assert!(
                    !passes(&snapshot, method, &sent, who) || says(document, method, path, who),
                    "{} {} {:?}\n{:#}\n{}",
                    method,
                    path,
                    who,
                    document,
                    printed
                );
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn nobody_passes_whom_the_document_does_not_let(document in some_document()) {
        let paths = ["/a", "/b", "/z", "/z.c", "/a/a", "/a/b", "/b/a", "/a/z", "/z/a", "/z/b", "/z/z", "/a/z.c", "/z.c/a", "/z.c/z.c", "/z.d", "/a/z.d", "/z.d/z.c", "/é", "/a/é", "/é/z", "/z/é", "/**", "/a/**", "/**/z"];
        let methods = ["GET", "HEAD", "PUT", "DELETE", "POST", "OPTIONS", "TRACE"];
        lets_nobody_pass(&document, &paths, &methods, &everybody())?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]
    #[test]
    fn nobody_passes_where_templates_cross(document in some_crossing_document()) {
        let of = |parts: &[String]| -> Vec<String> {
            parts.iter().flat_map(|before| ["a", "b", "z"].map(|last| format!("{before}/{last}"))).collect()
        };
        let two = of(&of(&[String::new()]));
        let paths: Vec<String> = of(&two).into_iter().chain(two).collect();
        let all = [None, Some((Scheme::Basic, vec!["r"], vec![])), Some((Scheme::Token, vec![], vec![]))];
        lets_nobody_pass(&document, &paths, &["GET", "HEAD", "PUT"], &all)?;
    }
}

/// What such a document should print is not nothing: the usual ones are said in full.
#[test]
fn what_a_rule_can_say_is_said() {
    let document = json!({
        "openapi": "3.1.0", "security": [{ "oauth": ["v"] }],
        "paths": {
            "/a": { "get": {}, "put": { "security": [{ "oauth": ["w"] }] } },
            "/a/{x}": { "get": {}, "delete": { "security": [{ "basic": ["r"] }, { "key": ["r"] }] } },
            "/open": { "get": { "security": [] }, "head": { "security": [] } },
            "/b/{x}.c": { "get": {} }, "/b/{x}": { "get": {} },
        },
        "components": { "securitySchemes": {
            "oauth": { "type": "oauth2" }, "basic": { "type": "http", "scheme": "basic" },
            "key": { "type": "apiKey", "in": "header", "name": "Authorization" },
        } },
    });
    let (printed, snapshot) = loaded(&document.to_string());
    for path in ["/a", "/a/z", "/open", "/b/z", "/b/z.c", "/c"] {
        for method in ["GET", "HEAD", "PUT", "DELETE"] {
            for who in everybody() {
                let expected = says(&document, method, path, &who);
                assert_eq!(passes(&snapshot, method, path, &who), expected, "{method} {path} {who:?}\n{printed}");
            }
        }
    }
}

#[test]
fn what_is_left_out_does_not_fall_to_a_wider_route() {
    let schemes = "components: { securitySchemes: { basic: { type: http, scheme: basic } } }";
    let open = "get: { security: [] }, delete: { security: [] }";
    for (name, paths, closed) in [
        ("an operation that no rule can say", "/a/me: { get: { security: [{ basic: [x, y] }] } }", "GET /a/me"),
        ("an operation that there is not", "/a/me: { get: {} }", "DELETE /a/me"),
        ("an operation that is none", "/a/me: { get: null, delete: 7 }", "GET /a/me"),
        ("a path without operations of its own", "/a/me: { put: {} }", "HEAD /a/me"),
        ("a template that is narrower", "'/a/{n}.json': { get: { security: [{ basic: [x] }] } }", "GET /a/7.json"),
        ("letters that a path has escaped", "/a/café: { get: { security: [{ basic: [y] }] } }", "GET /a/caf%C3%A9"),
        ("a blank", "'/a/b c': { get: { security: [{ basic: [y] }] } }", "GET /a/b%20c"),
        ("a percent sign", "'/a/100%': { get: { security: [{ basic: [y] }] } }", "GET /a/100%25"),
        ("escapes in another spelling", "'/a/%6d%c3%a9': { get: { security: [{ basic: [y] }] } }", "GET /a/m%C3%A9"),
        ("stars", "'/a/**': { get: { security: [{ basic: [y] }] } }", "GET /a/**"),
        ("a query", "'/a/me?b': { get: { security: [{ basic: [y] }] } }", "GET /a/me?b"),
        ("a fragment", "'/a/me#b': { get: { security: [{ basic: [y] }] } }", "GET /a/me"),
        ("no slash", "a/me: { get: { security: [{ basic: [y] }] } }", "GET /a/me"),
        ("a path of which there is nothing", "/a/me: {}", "GET /a/me"),
        ("nothing at all", "/a/me: null", "GET /a/me"),
        ("a method of a later version", "/a/me: { query: { security: [] } }", "GET /a/me"),
        ("HEAD", "/a/me: { get: { security: [] }, head: { security: [{ basic: [x, y] }] } }", "HEAD /a/me"),
    ] {
        let text = format!("openapi: 3.0.0\n{schemes}\npaths:\n  {paths}\n  '/a/{{id}}': {{ {open} }}\n");
        let (printed, snapshot) = loaded(&text);
        let (method, path) = closed.split_once(' ').unwrap();
        assert!(!passes(&snapshot, method, path, &None), "{name}\n{printed}");
        assert!(!passes(&snapshot, method, path, &Some((Scheme::Basic, vec!["x"], vec![]))), "{name}\n{printed}");
    }
    // a role of that name in the document is not the one that nobody has
    let text = format!(
        "openapi: 3.0.0\n{schemes}\npaths:\n  /a/me: {{ get: {{ security: [{{ basic: [nobody] }}] }} }}\n  '/a/{{id}}': {{ {open} }}\n"
    );
    let (printed, snapshot) = loaded(&text);
    assert!(printed.contains("allow: [nobody2]"), "{printed}");
    assert!(!passes(&snapshot, "DELETE", "/a/me", &Some((Scheme::Basic, vec!["nobody"], vec![]))), "{printed}");
}

/// By their order `/y/b/{c}` decides what it has in common with `/y/{a}/c`, also where it is left out.
#[test]
fn what_is_left_out_does_not_fall_to_a_route_that_crosses_it() {
    let schemes =
        "components: { securitySchemes: { b: { type: http, scheme: basic }, k: { type: http, scheme: bearer } } }";
    for (name, paths, expected) in [
        ("one crosses it", "/y/{a}/c: { get: OPEN }, /y/b/{c}: { get: BOTH }", "GET /y/b/{c}"),
        ("one that it would not decide before", "/y/b/{c}: { get: OPEN }, /y/{a}/c: { get: BOTH }", ""),
        ("one of another method", "/y/{a}/c: { put: OPEN }, /y/b/{c}: { get: BOTH }", ""),
        ("one that has no path of it", "/y/{a}/c: { get: OPEN }, /y/b/{c}/d: { get: BOTH }", ""),
        ("all in common is another's", "/y/{a}/c: { get: OPEN }, /y/b/c: { get: OPEN }, /y/b/{c}: { get: BOTH }", ""),
        (
            "of two, one is another's",
            "/{a}/c: { get: OPEN }, /{a}/d: { get: OPEN }, /b/c: { get: OPEN }, /b/{c}: { get: BOTH }",
            "GET /b/{c}",
        ),
        ("HEAD alone", "/y/{a}/c: { head: OPEN }, /y/b/{c}: { get: BOTH }", "HEAD /y/b/{c}"),
        ("HEAD alone, of a wider one", "/y/{a}/{c}: { head: OPEN }, /y/b/{c}: { get: BOTH }", "HEAD /y/b/{c}"),
        (
            "some methods",
            "/{a}/c: { get: OPEN, put: OPEN }, /b/{c}: { get: BOTH, put: BOTH, delete: BOTH }",
            "GET PUT /b/{c}",
        ),
        (
            "each by another",
            "/{a}/c: { get: OPEN }, /{a}/d: { put: OPEN }, /b/{c}: { get: BOTH, put: BOTH }",
            "GET PUT /b/{c}",
        ),
        (
            "what has the same paths",
            "/{a}/c: { get: OPEN }, /b/{c}: { get: OPEN }, /b/{d}: { get: BOTH }",
            "GET /b/{c}",
        ),
    ] {
        let paths = paths.replace("OPEN", "{ security: [] }").replace("BOTH", "{ security: [{ b: [], k: [] }] }");
        let paths = paths.split(", /").map(|one| one.trim_start_matches('/').replacen(": ", "': ", 1));
        let paths = paths.fold(String::new(), |paths, one| format!("{paths}\n  '/{one}"));
        let (printed, snapshot) = loaded(&format!("openapi: 3.1.0\npaths:{paths}\n{schemes}\n"));
        let is_nobodys = |route: &&Route| matches!(&route.allow, Allow::Roles(roles) if roles[0].as_str() == "nobody");
        let shown = |route: &Route| {
            let methods = route.methods.iter().map(Method::as_str);
            methods.chain([&*route.name]).collect::<Vec<_>>().join(" ")
        };
        let closed: Vec<String> = snapshot.routes.routes().iter().filter(is_nobodys).map(shown).collect();
        assert_eq!(closed.join("; "), expected, "{name}\n{printed}");
    }
}

#[test]
fn what_stands_beside_a_reference_opens_nothing() {
    let wide = "'/{y}/{x}': { get: { security: [] }, delete: { security: [] } }";
    let closed_item = "p: { get: { security: [{ jwt: [] }] } }";
    let open_item = "p: { get: { security: [] } }";
    for (paths, items, requests) in [
        (
            "'/a/{x}': { $ref: '#/x-items/p', delete: { security: [{ jwt: [admin] }] } }",
            closed_item,
            "GET /a/1, DELETE /a/1",
        ),
        ("'/a/b': { $ref: '#/x-items/p', get: { security: [{ jwt: [admin] }] } }", open_item, "GET /a/b, HEAD /a/b"),
        ("'/c': { $ref: '#/x-items/p', servers: [{ url: /b }] }", open_item, "GET /c, GET /b/c, DELETE /b/c"),
        (
            "'/c': { $ref: '#/x-items/q' }",
            "p: { get: { security: [] } }, q: { $ref: '#/x-items/p', get: {} }",
            "GET /c",
        ),
        ("'/a/b': { $ref: '#/x-items/p', servers: [] }", "p: {}", "GET /a/b, DELETE /a/b"),
        ("'/a/b': { $ref: '#/x-items/p', query: {} }", open_item, "GET /a/b"),
        ("/c: { get: { $ref: '#/x-items/p/get', security: [{ jwt: [admin] }] } }", open_item, "GET /c"),
        ("/c: { get: { $ref: '#/x-items/p/get', servers: [{ url: /b }] } }", open_item, "GET /c, GET /b/c"),
        ("/c: { get: { security: [{ two: [] }] } }", open_item, "GET /c"),
    ] {
        let schemes =
            "jwt: { type: http, scheme: bearer }, two: { $ref: '#/components/securitySchemes/jwt', type: oauth2 }";
        let text = format!(
            "openapi: 3.1.0\npaths: {{ {wide}, {paths} }}\nx-items: {{ {items} }}\n\
             components: {{ securitySchemes: {{ {schemes} }} }}\n"
        );
        let (printed, snapshot) = loaded(&text);
        for (method, path) in requests.split(", ").filter_map(|request| request.split_once(' ')) {
            for who in [None, Some((Scheme::Bearer, vec!["admin"], vec![]))] {
                assert!(!passes(&snapshot, method, path, &who), "{method} {path} {who:?}\n{text}\n{printed}");
            }
        }
        let is_said = printed.contains("beside its `$ref`") || items == "p: {}";
        assert!(is_said && passes(&snapshot, "GET", "/y/x", &None), "{text}\n{printed}");
    }
    let text = "openapi: 3.1.0\npaths: { /a: { $ref: '#/x-p', summary: s, description: d, parameters: [], x-y: 1 } }\n\
                x-p: { get: { security: [] } }\n";
    let (printed, snapshot) = loaded(text);
    assert!(passes(&snapshot, "GET", "/a", &None) && !printed.contains("# left out"), "{printed}");
}

#[test]
fn hostile_documents_are_refused_or_closed() {
    let open = "security: []";
    for (name, text, expected) in [
        (
            "a variable of the server",
            format!("openapi: 3.0.0\n{open}\nservers: [{{ url: '/{{v}}' }}]\npaths: {{ /a: {{ get: {{}} }} }}"),
            "`#/paths/~1a/get`: its server has a variable without a default",
        ),
        (
            "dots in the server",
            format!("openapi: 3.0.0\n{open}\nservers: [{{ url: /v1/.. }}]\npaths: {{ /a: {{ get: {{}} }} }}"),
            "# left out, `GET /a`: ",
        ),
        (
            "a prefix as the server",
            format!("openapi: 3.0.0\n{open}\nservers: [{{ url: '/**' }}]\npaths: {{ /a: {{ get: {{}} }} }}"),
            "# left out, `GET /a`: in a rule `**`",
        ),
        (
            "two parts of a segment",
            format!("openapi: 3.0.0\n{open}\npaths: {{ '/{{a}}.{{b}}': {{ get: {{}} }} }}"),
            "# left out, `GET /{a}.{b}`: a part",
        ),
        (
            "two in a row",
            format!("openapi: 3.0.0\n{open}\npaths: {{ '/{{a}}{{b}}': {{ get: {{}} }} }}"),
            "# left out, `GET /{a}{b}`: a part",
        ),
        (
            "a brace that is not closed",
            format!("openapi: 3.0.0\n{open}\npaths: {{ '/{{a': {{ get: {{}} }} }}"),
            "# left out, `GET /{a`: a part",
        ),
        (
            "a query in a path",
            format!("openapi: 3.0.0\n{open}\npaths: {{ '/a?b': {{ get: {{}} }} }}"),
            "# left out, `GET /a?b`: ",
        ),
        (
            "an operation that is a reference",
            format!(
                "openapi: 3.0.0\n{open}\npaths: {{ /a: {{ get: {{ $ref: '#/x' }} }} }}\nx: {{ security: [{{ s: [r] }}] }}"
            ),
            "allow: [r]",
        ),
        (
            "an operation that leads out",
            format!("openapi: 3.0.0\n{open}\npaths: {{ /a: {{ get: {{ $ref: 'file:///etc/passwd' }} }} }}"),
            "leads out of this document",
        ),
        (
            "a path that leads out",
            "openapi: 3.0.0\npaths: { /a: { $ref: 'https://evil.example/a' } }".to_owned(),
            "leads out of this document",
        ),
        (
            "a reference to itself",
            "openapi: 3.0.0\npaths: { /a: { get: { $ref: '#/paths/~1a/get' } } }".to_owned(),
            "leads round and round",
        ),
        (
            "two that lead to each other",
            "openapi: 3.0.0\npaths: { /a: { $ref: '#/x' } }\nx: { $ref: '#/y' }\ny: { $ref: '#/x' }".to_owned(),
            "leads round and round",
        ),
        (
            "a requirement that is a reference",
            format!("openapi: 3.0.0\n{open}\npaths: {{ /a: {{ get: {{ security: [{{ $ref: '#/x' }}] }} }} }}"),
            "# left out, `GET /a`: ",
        ),
        (
            "all of `security` is a reference",
            format!("openapi: 3.0.0\n{open}\npaths: {{ /a: {{ get: {{ security: {{ $ref: '#/x' }} }} }} }}"),
            "# left out, `GET /a`: its `security` is not a list",
        ),
        (
            "the document's is none",
            "openapi: 3.0.0\nsecurity: {}\npaths: { /a: { get: {} } }".to_owned(),
            "# left out, `GET /a`: its `security` is not a list",
        ),
        (
            "a member twice, in JSON",
            r#"{ "openapi": "3.0.0", "paths": { "/a": { "get": { "security": [{ "s": [] }], "security": [] } } } }"#
                .to_owned(),
            "security",
        ),
        (
            "a member twice, in YAML",
            "openapi: 3.0.0\npaths: { /a: { get: { security: [{ s: [] }], security: [] } } }".to_owned(),
            "security",
        ),
        ("another version", "openapi: 2.0\npaths: {}".to_owned(), "not an OpenAPI 3.x document"),
        ("no text at all", String::new(), "a.yaml"),
        ("no document", "openapi: 3.1.0".to_owned(), "has no `paths`"),
        ("a byte order mark", "\u{feff}openapi: 3.1.0\npaths: { /a: { get: {} } }".to_owned(), "path: /a\n"),
        (
            "a method of a later version",
            format!(
                "openapi: 3.2.0\n{open}\npaths: {{ /a: {{ query: {{}}, additionalOperations: {{ COPY: {{}} }}, x-get: {{}}, parameters: [] }} }}"
            ),
            "routes: []\n  # left out, `QUERY /a`: what OpenAPI 3.2 adds is not read\n  # left out, `COPY /a`: ",
        ),
        (
            "trace",
            "openapi: 3.0.0\npaths: { /a: { trace: {} } }".to_owned(),
            "methods: [TRACE]\n    allow: authenticated",
        ),
        ("line ends of other systems", "openapi: 3.0.0\r\npaths:\r\n  /a:\r\n    get: {}\r\n".to_owned(), "path: /a\n"),
    ] {
        let said = tried(&text).unwrap_or_else(|error| error);
        assert!(said.contains(expected), "{name}: {said}");
        assert!(!said.contains("\n    allow: anyone"), "{name}: {said}");
    }
    // nested as deep as anybody likes
    let bomb = |n| format!("y{n}: &a{} [{}]\n", n + 1, format!("*a{n}, ").repeat(9));
    for deep in [
        format!("{{ \"openapi\": \"3.0.0\", \"paths\": {}{} }}", "{\"a\":".repeat(100_000), "}".repeat(100_000)),
        format!("openapi: 3.0.0\npaths: {}{}", "[".repeat(100_000), "]".repeat(100_000)),
        format!("openapi: 3.0.0\nx: &a0 [1]\n{}paths: {{}}", (0..30).map(bomb).collect::<Vec<_>>().concat()),
    ] {
        let said = tried(&deep).err().unwrap_or_default();
        assert!(!said.is_empty() && said.len() < 2000, "{said}");
    }
}

#[test]
fn thousands_of_paths_are_read() {
    let mut paths = serde_json::Map::new();
    for n in 0..5_000 {
        let operations = if n < 1000 { json!({ "get": {}, "post": {} }) } else { json!({ "get": {} }) };
        paths.insert(format!("/a{}/{{id}}/r{n}", n % 100), operations);
        paths.insert(format!("/a{}/x/r{n}", n % 100), json!({ "get": { "security": [] } }));
    }
    let (_, snapshot) = loaded(&json!({ "openapi": "3.0.0", "paths": paths }).to_string());
    // POST of what is spelt out falls to nobody
    assert_eq!(snapshot.routes.routes().len(), 11_000);
    assert!(!passes(&snapshot, "POST", "/a7/x/r7", &Some((Scheme::Basic, vec!["r"], vec![]))));
    assert!(passes(&snapshot, "POST", "/a7/y/r7", &Some((Scheme::Basic, vec!["r"], vec![]))));
}
