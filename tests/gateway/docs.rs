//! `openapi` and `docs`: the endpoints described, as programs that others wrote read it: a validator, a fuzzer, a browser.

use serde_json::{Value, json};

use crate::support::outside::{curl, python, run_python};
use crate::support::{Gateway, HS256, Setup, USERS, Upstream, get, post, routes};

const DOCUMENT: &str = "/auth/openapi.json";
const PAGE: &str = "/auth/docs";

fn gateway(rest: &str) -> (Gateway, Upstream) {
    let upstream = Upstream::hello();
    (Gateway::start(&format!("{USERS}{HS256}{rest}{}", routes(&upstream))), upstream)
}

/// Every action, some of them twice, with names and texts that mean something in HTML, in JSON Pointer and in Markdown.
const EVERY_ACTION: &str = r#"
errors: { member: msg, messages: { rate_limited: "<img src=x onerror=window.pwned=1>" } }
endpoints:
  - { path: /oauth/token, action: oauth_token, password_grant: true }
  - { path: /oauth/revoke, action: revoke }
  - { path: /oauth/introspect, action: introspect }
  - { path: /auth/login, action: login }
  - { path: /auth/token, action: login, reply: { token: '{token}', expires_in: '{expires_in}' } }
  - { path: /auth/client, action: client_login, fields: { client_id: key, client_secret: secret } }
  - { path: /auth/refresh, action: refresh }
  - { path: /auth/logout, action: revoke, reply: { message: Logged out } }
  - { path: /auth/register, action: register }
  - path: /it's&more/register
    action: register
    status: 200
    fields: { username: 'e~mail/<b>' }
    reply: { token: '{access}', user: { id: '{user_id}', role: '{role}', roles: '{roles}', as: '{user}!' }, list: [1, '{user}'], html: '<script>window.pwned=2</script>' }
    errors: { member: detail, messages: { username_taken: '[x](javascript:window.pwned=3)' } }
  - { path: /auth/change-password, action: change_password }
  - { path: /.well-known/jwks.json, action: jwks }
  - { path: /.well-known/oauth-authorization-server, action: metadata }
  - { path: /auth/openapi.json, action: openapi }
  - { path: "/it's&more/docs", action: docs }
  - { path: /auth/docs, action: docs }
"#;

fn document(gateway: &Gateway) -> Value {
    let response = gateway.send(&get(DOCUMENT)).expect(200);
    assert_eq!(response.header("Content-Type"), Some("application/json"));
    response.json()
}

#[test]
fn the_document_is_openapi_3_1() {
    for rest in ["", EVERY_ACTION] {
        let (gateway, _upstream) = gateway(rest);
        let document = document(&gateway);
        assert_eq!(document["openapi"], "3.1.0");
        let script = "
import json, sys
from openapi_spec_validator import OpenAPIV31SpecValidator
errors = list(OpenAPIV31SpecValidator(json.load(open(sys.argv[1]))).iter_errors())
print([str(error) for error in errors])
";
        let file = gateway.setup.write("openapi.json", document.to_string());
        assert_eq!(run_python(script, &[file.to_str().unwrap()]), "[]");
    }
}

#[test]
fn the_document_says_what_is_configured() {
    let (gateway, _upstream) = gateway(EVERY_ACTION);
    let document = document(&gateway);
    let paths = document["paths"].as_object().unwrap();
    assert_eq!(paths.len(), 16);
    let register = &paths["/it's&more/register"]["post"];
    let body = &register["requestBody"]["content"]["application/json"]["schema"];
    assert_eq!(body["required"], json!(["e~mail/<b>", "password"]));
    let reply = &register["responses"]["200"]["content"]["application/json"]["schema"]["properties"];
    assert_eq!(reply["token"], json!({ "type": "string" }));
    assert_eq!(reply["user"]["properties"]["role"], json!({ "type": ["null", "string"] }));
    assert_eq!(reply["html"], json!({ "const": "<script>window.pwned=2</script>" }));
    let taken = register["responses"]["400"]["$ref"].as_str().unwrap();
    let taken = document.pointer(taken.strip_prefix('#').unwrap()).unwrap();
    let example = &taken["content"]["application/json"]["examples"]["username_taken"]["value"];
    assert_eq!(example["detail"], "[x](javascript:window.pwned=3)");
    let login = &paths["/auth/login"];
    assert!(login.get("get").is_none(), "a GET is for browsers, and is not held out to programs");
    assert_eq!(login["post"]["security"], json!([{}, { "basic": [] }]));
    let grants = &paths["/oauth/token"]["post"]["requestBody"]["content"]["application/x-www-form-urlencoded"];
    assert_eq!(
        grants["schema"]["properties"]["grant_type"]["enum"],
        json!(["client_credentials", "refresh_token", "password"])
    );
    // who reads this must not learn what runs, or what stands behind
    let text = document.to_string();
    for secret in [env!("CARGO_PKG_VERSION"), "/user/**", "127.0.0.1", "an-hmac-secret"] {
        assert!(!text.contains(secret), "{secret}");
    }
}

#[test]
fn a_reload_changes_the_document() {
    let (gateway, upstream) = gateway("");
    let tag = gateway.send(&get(DOCUMENT)).expect(200).header("ETag").unwrap().to_owned();
    gateway.reload(&format!("{USERS}{HS256}{EVERY_ACTION}{}", routes(&upstream)));
    let changed = gateway.send(&get(DOCUMENT).header("If-None-Match", &tag)).expect(200);
    assert!(changed.json()["paths"]["/auth/register"].is_object());
}

#[test]
fn schemathesis_finds_nothing_wrong() {
    for rest in ["", EVERY_ACTION] {
        let (gateway, _upstream) = gateway(rest);
        let folder = &gateway.setup;
        folder.write("schemathesis.toml", include_str!("docs/schemathesis.toml"));
        let mut command = python();
        command.args(["-m", "schemathesis.cli", "--config-file"]).arg(folder.path("schemathesis.toml"));
        command.args(["run", &gateway.url(DOCUMENT), "--checks", "all", "--mode", "all", "--max-examples", "25"]);
        command.args(["--seed", "20261121", "--continue-on-failure", "--no-color"]);
        let output = command.current_dir(folder.path(".")).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
        // a run that tested nothing is no pass; where it read the document it does not ask again
        let document = document(&gateway);
        let operations = document["paths"].as_object().unwrap().values().map(|item| item.as_object().unwrap().len());
        let tested = operations.sum::<usize>() - 1;
        assert!(said.contains(&format!("{tested} selected / {tested} total")), "{said}");
    }
}

#[test]
fn a_browser_logs_in_and_calls_from_the_page_and_asks_nobody_else() {
    for (rest, page) in [("", PAGE), (EVERY_ACTION, "/it's&more/docs")] {
        let (gateway, upstream) = gateway(rest);
        let origin = gateway.url("");
        let mut command = python();
        command.arg("-c").arg(include_str!("docs/browser.py")).args([&origin, page]);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let seen: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(seen["title"].as_str().unwrap().lines().next(), Some("Authentication"), "{seen:#}");
        assert_eq!(seen["changed"], 200, "{seen:#}");
        let asked: Vec<_> = seen["asked"].as_array().unwrap().iter().map(|url| url.as_str().unwrap()).collect();
        // the browser's own pages are not on the network
        let is_sent = |url: &&&str| ["http", "ws", "ftp"].iter().any(|scheme| url.starts_with(scheme));
        let elsewhere = asked.iter().filter(is_sent).filter(|url| !url.starts_with(&format!("{origin}/")));
        assert_eq!(elsewhere.collect::<Vec<_>>(), [&""; 0]);
        assert!(asked.iter().any(|url| url.ends_with("/auth/change-password")), "{asked:?}");
        assert_eq!(seen["console"], json!([]), "{seen:#}");
        assert_eq!(seen["kept"], json!([[], [], ""]), "the page keeps nothing: {seen:#}");
        assert_eq!((&seen["pwned"], &seen["still_authorised"]), (&Value::Null, &json!(0)));
        // the password that the page set is the user's
        gateway.send(&get("/user/x").basic("user", "another password")).expect(200);
        assert!(!upstream.received().is_empty());
    }
}

/// The paths of what the page loads.
fn parts(gateway: &Gateway) -> Vec<String> {
    let page = gateway.send(&get(PAGE)).expect(200).text();
    let quoted = page.split('"').filter_map(|text| text.strip_prefix("./docs/"));
    quoted.map(|name| format!("{PAGE}/{name}")).collect()
}

#[test]
fn the_page_may_do_little_and_its_parts_are_kept_for_good() {
    let (gateway, upstream) = gateway("");
    let page = gateway.send(&get(PAGE)).expect(200);
    let policy = page.header("Content-Security-Policy").unwrap();
    for rule in ["default-src 'none'", "script-src 'self';", "style-src 'self';", "connect-src 'self';"] {
        assert!(policy.contains(rule), "{policy}");
    }
    for rule in ["frame-ancestors 'none'", "base-uri 'none'", "form-action 'none'"] {
        assert!(policy.contains(rule), "{policy}");
    }
    assert!(!policy.contains("unsafe") && !policy.contains('*'), "{policy}");
    for (name, value) in [
        ("Content-Type", "text/html; charset=utf-8"),
        ("Cache-Control", "no-cache"),
        ("X-Frame-Options", "DENY"),
        ("X-Content-Type-Options", "nosniff"),
        ("Referrer-Policy", "no-referrer"),
        ("Cross-Origin-Opener-Policy", "same-origin"),
    ] {
        assert_eq!(page.header(name), Some(value));
    }
    let parts = parts(&gateway);
    assert_eq!(parts.len(), 3, "{}", page.text());
    for path in &parts {
        let part = gateway.send(&get(path)).expect(200);
        let of_style = path.contains("/swagger-ui.");
        assert_eq!(part.header("Content-Type"), Some(if of_style { "text/css" } else { "text/javascript" }), "{path}");
        assert_eq!(part.header("Cache-Control"), Some("public, max-age=31536000, immutable"), "{path}");
        assert_eq!(part.header("X-Content-Type-Options"), Some("nosniff"), "{path}");
        // packed for who takes it, and the same
        let packed = gateway.send(&get(path).header("Accept-Encoding", "br, gzip")).expect(200);
        let (plain, _) = curl(&["--compressed", &gateway.url(path)]);
        assert_eq!(plain.body.len(), part.text().len(), "{path}");
        if !path.contains("/start.") {
            assert_eq!(packed.header("Content-Encoding"), Some("gzip"), "{path}");
            assert_eq!(packed.header("Vary"), Some("Accept-Encoding"), "{path}");
            assert_ne!(packed.header("ETag"), part.header("ETag"), "{path}");
            assert!(packed.body.len() * 2 < part.body.len(), "{path}");
        }
    }
    // one that another version had is not here, and no route is asked for it by mistake
    gateway.send(&get(&format!("{PAGE}/swagger-ui.0000000000000000.css"))).refused(404, "no_route");
    assert!(upstream.received().is_empty());
}

#[test]
fn files_are_asked_for_by_get_and_head_and_conditionally() {
    let (gateway, _upstream) = gateway("");
    let mut paths = parts(&gateway);
    paths.extend([PAGE.to_owned(), DOCUMENT.to_owned(), format!("{PAGE}/openapi.json")]);
    for path in &paths {
        let whole = gateway.send(&get(path)).expect(200);
        let tag = whole.header("ETag").unwrap();
        let head = gateway.send(&crate::support::Request::new("HEAD", path)).expect(200);
        assert_eq!(head.header("Content-Length").unwrap(), whole.body.len().to_string(), "{path}");
        assert!(head.body.is_empty());
        for known in [tag.to_owned(), format!("W/{tag}"), format!("\"x\", {tag}"), "*".to_owned()] {
            let same = gateway.send(&get(path).header("If-None-Match", &known)).expect(304);
            assert_eq!((same.header("ETag"), same.body.len()), (Some(tag), 0), "{path}");
            assert_eq!(same.header("Cache-Control"), whole.header("Cache-Control"), "{path}");
        }
        for other in ["\"x\"", "x", &tag[1..], ""] {
            gateway.send(&get(path).header("If-None-Match", other)).expect(200);
        }
        let refused = gateway.send(&post(path).form("a=b")).refused(405, "method_not_allowed");
        assert_eq!(refused.header("Allow"), Some("GET, HEAD"), "{path}");
    }
    assert_eq!(
        gateway.send(&get(DOCUMENT)).body,
        gateway.send(&get(&format!("{PAGE}/openapi.json"))).body,
        "the page shows the document"
    );
}

#[test]
fn the_page_draws_on_the_budget_of_its_address_and_its_parts_do_not() {
    let (gateway, _upstream) = gateway("limits: { token_endpoints: { per_address: { rate: 1/h, burst: 3 } } }\n");
    let parts = parts(&gateway);
    for path in parts.iter().chain(&parts) {
        gateway.send(&get(path)).expect(200);
    }
    gateway.send(&get(PAGE)).expect(200);
    gateway.send(&get(DOCUMENT)).expect(200);
    for path in [PAGE, DOCUMENT] {
        gateway.send(&get(path)).refused(429, "rate_limited");
    }
}

#[test]
fn they_are_there_only_where_they_are_configured() {
    let (gateway, _upstream) = gateway("endpoints: [{ path: /in, action: login }]\n");
    for path in [PAGE, DOCUMENT, "/auth/docs/openapi.json"] {
        gateway.send(&get(path)).refused(404, "no_route");
    }
    let two = "upstreams: { a: { builtin: echo } }\nroutes: []\nendpoints: [{ path: /a, action: docs }, { path: /a/openapi.json, action: login }]\n";
    let setup = Setup::new(two);
    let checked = setup.cli_plain(&["check", "gateway.yaml"], "");
    assert_eq!(checked.code, Some(1), "{checked:?}");
    assert!(checked.stderr.contains("a part of the page at `/a` has this path"), "{checked:?}");
}
