//! What is printed of which documents.

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
  # left out, `PUT /orders/{order-id}/files/{name}.json`: a part of a segment cannot be a placeholder, and `{name}.json` would take any one
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
  # left out, `PUT /orders/{other}/files/{file}`: it would take `/orders/{order-id}/files/{name}.json` too, which asks for something else
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
        ("[{ basic: [x] }, { basic: [y] }]", "allow: [x, y]\n    schemes: [basic]"),
        // y has no way in by basic, and x none by token
        ("[{ basic: [x] }, { key: [y] }]", "allow: [x]\n    schemes: [basic]"),
        ("[{ basic: [x] }, { basic: [y] }, { key: [y, z] }, { key: [y] }]", "allow: [y]\n    schemes: [basic, token]"),
        ("[{ cookie: [] }, { basic: [x] }]", "allow: [x]\n    schemes: [basic]"),
        ("[{ basic: [x] }, { key: [] }]", "allow: [x]\n    schemes: [basic, token]"),
        ("[{ basic: [], oauth: [a] }, { key: [] }]", "allow: authenticated\n    schemes: [token]"),
        ("[{ unheard: [] }]", "allow: authenticated"),
    ] {
        let found = routes_of(&format!("  /a: {{ get: {{ security: {security} }} }}"));
        assert!(found.contains(&format!("methods: [GET]\n    {expected}\n    to:")), "{security}\n{found}");
        let exact =
            ["[{ basic: [] }, { key: [] }]", "[{ oauth: [a] }, { oauth: [a] }]", "[{ basic: [x] }, { basic: [y] }]"];
        assert_eq!(found.contains("  # "), !exact.contains(&security), "{security}\n{found}");
    }
    for security in [
        "[{ basic: [], key: [] }]",
        "[{ cookie: [], basic: [] }]",
        "[{ basic: [x, y] }]",
        "[{ basic: x }]",
        "[{ oauth: null }]",
        "[{ oauth: [7, { a: b }] }]",
        "[basic]",
        "[[]]",
        "{}",
        "{ basic: [] }",
        "basic",
        "null",
        "false",
    ] {
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
    assert!(found.contains("# left out, `HEAD /a/{x}`: GET is another path's, and HEAD with it"), "{found}");
}

/// Whichever comes first in the document.
#[test]
fn of_twins_that_ask_for_different_things_neither_is_let_through() {
    for (open, closed) in [("/users/{id}", "/users/{name}"), ("/%61dmin", "/admin"), ("/admin", "/%61dmin")] {
        let (open_one, closed_one) =
            (format!("  '{open}': {{ get: {{ security: [] }} }}"), format!("  '{closed}': {{ get: {{}} }}"));
        for paths in [format!("{open_one}\n{closed_one}"), format!("{closed_one}\n{open_one}")] {
            let found = routes_of(&format!("{paths}\n  '/{{all}}/{{paths}}': {{ get: {{ security: [] }} }}"));
            let (left_out, why) = (format!("# left out, `GET {open}`"), "which asks for something else");
            assert!(found.contains(&left_out) && found.contains(why), "{paths}\n{found}");
            assert!(found.contains(&format!("# left out, `GET {closed}`")), "{paths}\n{found}");
            let rest = found.replace("path: \"/{all}/{paths}\"\n    methods: [GET]\n    allow: anyone", "");
            assert!(!rest.contains("anyone"), "{paths}\n{found}");
        }
    }
    let alike = routes_of("  '/a/{x}': { get: { security: [] } }\n  '/a/{y}': { get: { security: [] } }");
    assert!(alike.contains("path: \"/a/{x}\"\n    methods: [GET]\n    allow: anyone"), "{alike}");
}

#[test]
fn the_nearest_server_gives_the_base_path() {
    let document = "openapi: 3.0.3\nservers: [{ url: 'https://{region}.example.com/{v}', variables: { region: { default: eu }, \
                    v: { default: v2 } } }]\npaths:\n  /a: { get: {} }\n  /b: { servers: [{ url: /other/ }], get: {}, \
                    put: { servers: [{ url: 'https://eu.example.com/y?z' }] } }\n";
    let found = printed(document);
    assert!(found.contains("servers: [\"https://eu.example.com\"]"), "{found}");
    for path in ["/v2/a", "/other/b", "/y/b"] {
        assert!(found.contains(&format!("path: {path}\n")), "{path}\n{found}");
    }
}

#[test]
fn what_another_server_opens_is_closed_on_this_one() {
    for root in ["servers: [{ url: 'https://api.example.com' }]\n", "servers: [{ url: /v1 }]\n", ""] {
        for url in ["https://public.example.net", "//public.example.net/v2", "https://{any}.example.net"] {
            let server = format!("servers: [{{ url: '{url}', variables: {{ any: {{ default: a }} }} }}]");
            let document = format!(
                "openapi: 3.0.3\n{root}security: []\npaths:\n  /a: {{ {server}, get: {{}} }}\n  /b: {{ get: {{ {server} }} }}\n"
            );
            let found = printed(&document);
            for path in ["/a", "/b"] {
                let closed = format!("# left out, `GET {path}`: it is of another server than the document");
                assert!(found.contains(&closed) && !found.contains("allow: anyone"), "{document}\n{found}");
            }
        }
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
        ("  $ref: '#/x'", "a.yaml: `#/paths`: `paths` cannot be a reference"),
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
fn too_many_references_are_not_said_to_lead_round() {
    let link = |n| format!("  p{n}: {{ $ref: '#/x-items/p{}' }}\n", n + 1);
    let links = (0..5_000).map(link).collect::<Vec<_>>().concat();
    let document = format!(
        "openapi: 3.1.0\npaths: {{ /a: {{ $ref: '#/x-items/p0' }} }}\nx-items:\n{links}  p5000: {{ get: {{}} }}\n"
    );
    let error = tried(&document).unwrap_err();
    assert_eq!(error, "a.yaml: `#/paths/~1a`: `$ref` leads over more than 8 references");
}

#[test]
fn servers_with_different_base_paths_are_refused() {
    let two = "servers: [{ url: / }, { url: /api }]";
    let values = "servers: [{ url: '/{v}', variables: { v: { default: a, enum: [a, b] } } }]";
    for servers in [two, values] {
        for paths in [
            format!("{servers}\npaths: {{ '/{{a}}/{{b}}': {{ get: {{ security: [] }} }}, /secret: {{ get: {{}} }} }}"),
            format!("paths: {{ /a: {{ {servers}, get: {{ security: [] }} }} }}"),
            format!("paths: {{ /a: {{ get: {{ {servers}, security: [] }} }} }}"),
        ] {
            let error = tried(&format!("openapi: 3.1.0\n{paths}\n")).unwrap_err();
            assert!(error.contains("its servers have different base paths, "), "{paths}\n{error}");
        }
    }
    for servers in ["[{ $ref: '#/x' }]", "{ url: /a }", "[{ url: /a }, {}]"] {
        let error =
            tried(&format!("openapi: 3.1.0\nservers: {servers}\npaths: {{ /a: {{ get: {{}} }} }}")).unwrap_err();
        assert!(error.contains("its `servers` is not a list of mappings with a `url`"), "{servers}\n{error}");
    }
    let many = "{ url: /a }, ".repeat(65);
    let error = tried(&format!("openapi: 3.1.0\nservers: [{many}]\npaths: {{ /a: {{ get: {{}} }} }}")).unwrap_err();
    assert!(error.contains("it has more than 64 servers"), "{error}");
    // servers that differ in where they are alone
    let alike = "servers: [{ url: 'https://a.example/v1' }, { url: 'https://{r}.example/v1/', variables: { r: { default: b, \
                 enum: [b, c] } } }]";
    let found = printed(&format!("openapi: 3.1.0\n{alike}\npaths: {{ /a: {{ get: {{}} }} }}"));
    assert!(found.contains("path: /v1/a\n"), "{found}");
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
