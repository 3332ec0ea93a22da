//! The JSON Schema, held against what is really taken by a validator that others wrote.

use std::path::Path;

use portcullis::config::report::Report;
use portcullis::config::tree::{self, Node, Value};
use portcullis::config::{Environment, check_text, decode};

use crate::support::RULES;
use crate::support::gateway::project;
use crate::support::outside::run_python;
use crate::support::{Setup, USERS};

/// Every kind of scalar that a file can have.
const KINDS: &str = "
listeners: [{ address: '127.0.0.1:8443', tls: { self_signed: [localhost], min_version: 1.3 } }]
workers: 2
trusted_proxies: [10.0.0.0/8]
admin: { address: '127.0.0.1:9901' }
store: sqlite:a.db
auth: { realm: api, schemes: [basic, bearer], cache: { ttl: 30s, capacity: 1000 }, jwt: { require_exp: true } }
tokens: { refresh_format: jwt, default_role: user }
passwords: { min_bytes: 8 }
identity_headers: remote
errors: { member: msg, messages: { no_route: gone } }
paths: { semicolon: keep, empty_segments: merge }
limits: { unauthenticated: { rate: 20/s, burst: 100 }, header_bytes: 32KiB, headers: 100, connections: auto }
timeouts: { idle: 75s }
endpoints: [{ path: /in, action: login, status: 200 }, { path: /token, action: oauth_token, password_grant: false }]
upstreams:
  api: { servers: ['http://127.0.0.1:9'], balance: round_robin, keep_alive: 8, health: { healthy_after: 2 } }
  demo: { builtin: echo }
routes:
  - { path: /a/**, methods: [GET], hosts: [localhost], allow: [user], scopes: [w], schemes: [basic], strip_prefix: /a, to: api }
  - { path: /b, allow: anyone, forward_credentials: false, timeout: 5s, body_bytes: 0, end_streams_on: [expiry], to: demo }
  - { path: /c, allow: authenticated, cors: { origins: ['*'], max_age: 10m, credentials: false }, to: demo }
  - { path: /d, allow: anyone, request_headers: { set: { X-A: b }, remove: [X-B] }, rate: { rate: 10/s, by: address }, to: demo }
expect: [{ request: GET /a/7, as: { roles: [user], scopes: [w], scheme: basic }, is: 200 }, { request: GET /x, as: anyone, is: 404 }]
log: { access: off, level: warn }
bootstrap: { users: [{ name: ann, roles: [user] }], clients: [{ id: c, secret: '${SECRET:-secret-of-c}', scopes: [w] }] }
";

/// Whether the schema takes each of these files.
fn judged(schema: &str, files: &[String]) -> Vec<bool> {
    let folder = tempfile::tempdir().unwrap();
    let documents: Vec<serde_json::Value> = files
        .iter()
        .map(|text| {
            let mut report = Report::default();
            let root = tree::parse(text, &mut report).unwrap_or_else(|| panic!("no YAML: {text}"));
            decode::json(&root, &mut report).unwrap_or_else(|| panic!("no JSON: {text}"))
        })
        .collect();
    let (schema_file, documents_file) = (folder.path().join("schema.json"), folder.path().join("files.json"));
    std::fs::write(&schema_file, schema).unwrap();
    std::fs::write(&documents_file, serde_json::to_vec(&documents).unwrap()).unwrap();
    let said = run_python(
        "
import json, sys
from jsonschema import Draft202012Validator
schema = json.load(open(sys.argv[1]))
Draft202012Validator.check_schema(schema)
validator = Draft202012Validator(schema)
print(' '.join(str(validator.is_valid(document)) for document in json.load(open(sys.argv[2]))))
",
        &[schema_file.to_str().unwrap(), documents_file.to_str().unwrap()],
    );
    let said: Vec<bool> = said.split_whitespace().map(|word| word == "True").collect();
    assert_eq!(said.len(), files.len());
    said
}

fn schema() -> String {
    Setup::new(RULES).cli_plain(&["schema"], "").expect(0).stdout
}

fn shipped() -> String {
    std::fs::read_to_string(project().join("gateway.yaml")).unwrap()
}

/// What stands in `examples/`.
fn examples() -> Vec<String> {
    paths_of_examples().iter().map(|path| std::fs::read_to_string(path).unwrap()).collect()
}

fn paths_of_examples() -> Vec<std::path::PathBuf> {
    let folder = std::fs::read_dir(project().join("examples")).unwrap();
    let paths = folder.map(|entry| entry.unwrap().path());
    let files: Vec<_> = paths.filter(|path| path.extension().is_some_and(|extension| extension == "yaml")).collect();
    assert!(files.len() >= 9, "{files:?}");
    files
}

/// Each file that we ship is good as it is, given what `examples/README.md` says that it takes from the environment; and
/// without that, `check` says what is missing.
#[test]
fn every_file_that_is_shipped_is_taken_by_check() {
    let variables = [
        ("JWT_SECRET_KEY", "a-secret-of-more-than-32-bytes-for-hs256"),
        ("API_CLIENT_ID", "robot"),
        ("API_CLIENT_SECRET", "a-secret-of-a-robot"),
    ];
    let mut files = paths_of_examples();
    files.push(project().join("gateway.yaml"));
    for file in files {
        let check = |given: &[(&str, &str)]| {
            let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_portcullis"));
            command.arg("check").arg(&file).envs(given.iter().copied());
            let end = command.env_remove("DATABASE_URL").output().unwrap();
            (end.status.code(), String::from_utf8(end.stdout).unwrap(), String::from_utf8(end.stderr).unwrap())
        };
        let (code, stdout, stderr) = check(&variables);
        assert_eq!((code, &*stderr), (Some(0), ""), "{}", file.display());
        assert!(stdout.contains(": ok ("), "{stdout}");
        let text = std::fs::read_to_string(&file).unwrap();
        let needed: Vec<&str> =
            variables.iter().map(|(name, _)| *name).filter(|name| text.contains(&format!("${{{name}}}"))).collect();
        let (code, _, stderr) = check(&[]);
        assert_eq!(code, Some(i32::from(!needed.is_empty())), "{}: {stderr}", file.display());
        for name in needed {
            let said = format!("the environment variable `{name}` is not set");
            assert!(stderr.contains(&said), "{}: {stderr}", file.display());
        }
    }
}

#[test]
fn the_schema_names_every_section() {
    let schema: serde_json::Value = serde_json::from_str(&schema()).unwrap();
    for section in ["listeners", "routes", "upstreams", "auth", "limits", "tokens", "expect", "bootstrap"] {
        assert!(schema["properties"].get(section).is_some(), "{section}");
    }
}

#[test]
fn an_independent_validator_takes_the_schema_and_judges_by_it() {
    let (schema, shipped) = (schema(), shipped());
    assert!(shipped.starts_with("# yaml-language-server: $schema="), "editors find the schema by the first line");
    let kept = std::fs::read_to_string(project().join("gateway.schema.json")).unwrap();
    assert!(kept == schema, "gateway.schema.json is not what `portcullis schema` prints");
    let bad = |text: &str, other: &str| RULES.replace(text, other);
    let rest = "upstreams: { a: { builtin: echo } }\nroutes: []\n";
    let listener = |more: &str| format!("listeners: [{{ address: '127.0.0.1:1', {more} }}]\n{rest}");
    let key = |more: &str| format!("auth: {{ jwt: {{ keys: [{{ id: a, algorithm: HS256, {more} }}] }} }}\n{rest}");
    let mut files = vec![
        (shipped, true),
        (RULES.to_owned(), true),
        (KINDS.to_owned(), true),
        (USERS.to_owned() + "upstreams: { a: { builtin: echo } }\nroutes: []\n", true),
        (bad("methods", "method"), false),
        (bad("allow: [admin]", "allow: admin"), false),
        (bad("    to: api\n", ""), false),
        (bad("upstreams:", "timeouts: { idle: 30 }\nupstreams:"), false),
        (bad("upstreams:", "upstream:"), false),
        (KINDS.replace("is: 404", "is: 402"), false),
        (KINDS.replace("round_robin", "round"), false),
        (KINDS.replace("min_version: 1.3", "min_version: 1.1"), false),
        (KINDS.replace("methods: [GET]", "methods: [get]"), false),
        (KINDS.replace("methods: [GET]", "methods: ['*']"), false),
        (KINDS.replace("methods: [GET]", "methods: [ANY]"), false),
        (KINDS.replace("methods: [GET]", "methods: [M-SEARCH, '${M:-get}']"), true),
        (KINDS.replace("allow: [user]", "allow: ['@anyone']"), false),
        (KINDS.replace("allow: [user]", "allow: [authenticated]"), false),
        (KINDS.replace("allow: [user]", "allow: [authenticated2, a@b, '${A:-@}']"), true),
        (KINDS.replace("default_role: user", "default_role: '@user'"), false),
        (KINDS.replace("name: ann, roles: [user]", "name: ann, roles: ['@user']"), false),
        (KINDS.replace("request: GET /x", "request: /x"), false),
        ("upstreams: { a: {} }\nroutes: []\n".to_owned(), false),
        ("upstreams: { a: { builtin: echo, servers: [http://a] } }\nroutes: []\n".to_owned(), false),
        ("listeners: []\nupstreams: { a: { builtin: echo } }\nroutes: []\n".to_owned(), false),
        (listener("tls: {}"), false),
        (listener("tls: { self_signed: [a], certificates: [{ cert: a, key: b }] }"), false),
        (listener("tls: { self_signed: [a] }, redirect: https"), false),
        (listener("tls: { self_signed: [a] }"), true),
        (listener("redirect: https"), true),
        (key("secret: a, private_key: b"), false),
        (key(""), false),
        (key("secret: { file: a }"), true),
        (KINDS.replace("as: { roles: [user]", "as: { roles: ['@user']"), false),
    ];
    files.extend(examples().into_iter().map(|text| (text, true)));
    let texts: Vec<String> = files.iter().map(|(text, _)| text.clone()).collect();
    for ((text, expected), said) in files.iter().zip(judged(&schema, &texts)) {
        assert_eq!(said, *expected, "{text}");
    }
}

#[test]
fn an_independent_validator_takes_what_check_says_in_sarif() {
    let setup = Setup::new(RULES);
    let good = "upstreams: { a: { builtin: echo } }\nroutes:\n  - { path: /a, allow: anyone, to: a }\n";
    setup.write("good.yaml", good);
    setup.write("bad.yaml", good.replace("allow", "alow"));
    setup.write("warned about.yaml", format!("{good}listeners: [{{ address: '0.0.0.0:80' }}]\n"));
    setup.write("b a:d,%\u{fc}.yaml", "routes: [\n");
    setup.write("expects.yaml", format!("{good}expect: [{{ request: GET /a, as: anyone, is: 401 }}]\n"));
    let schema = project().join("tests/data/sarif-2.1.0.json");
    for (name, file, code, results) in [
        ("nothing", "good.yaml", 0, 0),
        ("errors", "bad.yaml", 1, 2),
        ("a warning", "warned about.yaml", 0, 1),
        ("a name that is no URI", "b a:d,%\u{fc}.yaml", 1, 1),
        ("an expectation that is not met", "expects.yaml", 1, 1),
        ("no file", "missing.yaml", 2, 1),
    ] {
        let said = setup.cli_plain(&["check", file, "--format", "sarif"], "").expect(code);
        assert_eq!(said.json()["runs"][0]["results"].as_array().unwrap().len(), results, "{name}: {}", said.stdout);
        let document = setup.write("said.json", &said.stdout);
        run_python(
            "
import json, sys
from jsonschema import Draft4Validator
schema = json.load(open(sys.argv[1]))
Draft4Validator.check_schema(schema)
Draft4Validator(schema, format_checker=Draft4Validator.FORMAT_CHECKER).validate(json.load(open(sys.argv[2])))
",
            &[schema.to_str().unwrap(), document.to_str().unwrap()],
        );
    }
}

/// The places of scalars that are values.
fn scalars(node: &Node, found: &mut Vec<std::ops::Range<usize>>) {
    match &node.value {
        Value::Scalar(_) => found.push(node.bytes.clone()),
        Value::List(items) => items.iter().for_each(|item| scalars(item, found)),
        Value::Map(entries) => entries.iter().for_each(|entry| scalars(&entry.value, found)),
    }
}

#[test]
fn whatever_check_takes_from_the_environment_the_schema_takes() {
    let environment: Environment = std::iter::empty::<(String, String)>().collect();
    let is_good = |text: &str| check_text(text, Path::new("/nowhere"), "a.yaml", &environment).is_ok();
    let mut variants = Vec::new();
    for text in [shipped(), KINDS.to_owned()].into_iter().chain(examples()) {
        let root = tree::parse(&text, &mut Report::default()).unwrap();
        // an example may name files that only its reader has
        let whole = check_text(&text, Path::new("/nowhere"), "a.yaml", &environment);
        assert!(whole.is_ok() || text != KINDS, "{}", whole.unwrap_err());
        let mut found = Vec::new();
        scalars(&root, &mut found);
        for range in found {
            let value = text[range.clone()].trim_matches(['\'', '"']);
            if value.contains(['$', '}', '"', '\\']) || value.is_empty() {
                continue;
            }
            // the whole of it, and a part
            let (first, rest) = value.split_at(value.chars().next().map_or(0, char::len_utf8));
            for reference in
                [format!("\"${{PORTCULLIS_NONE:-{value}}}\""), format!("\"{first}${{PORTCULLIS_NONE:-{rest}}}\"")]
            {
                let variant = format!("{}{reference}{}", &text[..range.start], &text[range.end..]);
                if is_good(&variant) {
                    variants.push(variant);
                }
            }
        }
    }
    assert!(variants.len() > 150, "only {} variants were taken", variants.len());
    for (variant, said) in variants.iter().zip(judged(&schema(), &variants)) {
        assert!(said, "check takes it, the schema does not:\n{variant}");
    }
}
