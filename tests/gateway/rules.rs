//! The commands on rules: check, explain, diff, test, schema; and the rules' own tests (contract 7).

use serde_json::{Value, json};

use crate::support::{Cli, Gateway, Request, Setup, USERS, Upstream};

const RULES: &str = "
bootstrap:
  users: [{ name: user, password: '${USER_PASSWORD:-userpassword}', roles: [user] }]
upstreams: { api: { servers: ['http://127.0.0.1:9'] } }
routes:
  - path: /orders/**
    methods: [GET]
    allow: [user, admin]
    to: api
  - path: /orders/{id}/refund
    methods: [POST]
    allow: [admin]
    strip_prefix: /orders
    to: api
  - { path: /health, allow: anyone, to: api }
  - { path: /me, allow: authenticated, to: api }
";

fn explain(setup: &Setup, arguments: &[&str]) -> Cli {
    let mut all = vec!["explain", "gateway.yaml"];
    all.extend(arguments);
    setup.cli_plain(&all, "")
}

#[test]
fn explain_says_what_a_request_would_get() {
    let setup = Setup::new(RULES);
    for (arguments, code, outcome, status, error, path) in [
        (&["GET", "/orders/7", "--role", "user"][..], 0, "forwarded", Value::Null, Value::Null, json!("/orders/**")),
        (&["HEAD", "/orders/7", "--role", "user"], 0, "forwarded", Value::Null, Value::Null, json!("/orders/**")),
        (
            &["GET", "/orders/7", "--role", "guest"],
            1,
            "refused",
            json!(403),
            json!("insufficient_permissions"),
            json!("/orders/**"),
        ),
        (
            &["GET", "/orders/7", "--anyone"],
            1,
            "refused",
            json!(401),
            json!("missing_credentials"),
            json!("/orders/**"),
        ),
        (
            &["POST", "/orders/7/refund", "--role", "admin"],
            0,
            "forwarded",
            Value::Null,
            Value::Null,
            json!("/orders/{id}/refund"),
        ),
        (&["GET", "/health", "--anyone"], 0, "forwarded", Value::Null, Value::Null, json!("/health")),
        (&["GET", "/me", "--role", "whoever"], 0, "forwarded", Value::Null, Value::Null, json!("/me")),
        (&["GET", "/nowhere", "--anyone"], 1, "refused", json!(404), json!("no_route"), Value::Null),
        (&["GET", "/orders//x", "--role", "user"], 1, "refused", json!(400), json!("bad_request"), Value::Null),
        (
            &["DELETE", "/orders/7", "--role", "admin"],
            1,
            "refused",
            json!(405),
            json!("method_not_allowed"),
            Value::Null,
        ),
    ] {
        let mut all = arguments.to_vec();
        all.push("--json");
        let answer = explain(&setup, &all).expect(code).json();
        assert_eq!(
            (&answer["outcome"], &answer["status"], &answer["error"]),
            (&json!(outcome), &status, &error),
            "{arguments:?}"
        );
        assert_eq!(answer["route"].get("path").unwrap_or(&Value::Null), &path, "{arguments:?}");
        if status == json!(405) {
            assert!(answer["methods"].to_string().contains("GET"), "{answer}");
        }
    }
    let forwarded = explain(&setup, &["POST", "/orders/7/refund", "--role", "admin", "--json"]).json();
    assert_eq!((&forwarded["upstream"], &forwarded["path"]), (&json!("api"), &json!("/orders/7/refund")));
    assert!(forwarded["forwarded_head"].to_string().contains("POST /7/refund"), "{forwarded}");
    let text = explain(&setup, &["GET", "/orders/7", "--role", "guest"]).expect(1).stdout;
    for part in ["/orders/**", "admin", "user", "guest"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    // without a principal: who may
    let who = explain(&setup, &["GET", "/orders/7"]).expect(0).stdout;
    assert!(who.contains("admin") && who.contains("user"), "{who}");
    let reach = explain(&setup, &["--role", "user"]).expect(0).stdout;
    assert!(reach.contains("/orders/**") && !reach.contains("refund"), "{reach}");
}

#[test]
fn explain_agrees_with_the_gateway() {
    let upstream = Upstream::hello();
    let yaml = RULES.replace("http://127.0.0.1:9", &upstream.url());
    let gateway = Gateway::start(&yaml);
    for (method, path) in [
        ("GET", "/orders/7"),
        ("POST", "/orders/7"),
        ("POST", "/orders/7/refund"),
        ("GET", "/orders/7/refund"),
        ("GET", "/health"),
        ("GET", "/me"),
        ("GET", "/x"),
        ("GET", "/orders/%2e%2e/me"),
        ("HEAD", "/orders"),
        ("GET", "/%6frders/7"),
        ("DELETE", "/me"),
        ("GET", "/orders;x"),
    ] {
        for user in [true, false] {
            let who = if user { &["--user", "user"][..] } else { &["--anyone"] };
            let mut arguments = vec![method, path, "--json"];
            arguments.extend(who);
            let said = explain(&gateway.setup, &arguments).json();
            let mut request = Request::new(method, path);
            if user {
                request = request.basic("user", "userpassword");
            }
            let status = gateway.send(&request).status;
            let expected = said["status"].as_u64().unwrap_or(200);
            assert_eq!(u64::from(status), expected, "{method} {path} as user: {user}: {said}");
        }
    }
}

#[test]
fn diff_says_who_gains_and_who_loses() {
    let setup = Setup::new(RULES);
    setup.write("same.yaml", RULES.replace("[user, admin]", "[admin, user]"));
    setup.write("wider.yaml", RULES.replace("[user, admin]", "[user, admin, guest]"));
    setup.write("narrower.yaml", RULES.replace("[user, admin]", "[admin]"));
    setup.write("open.yaml", RULES.replace("allow: [admin]", "allow: anyone"));
    let diff = |new: &str, more: &[&str]| {
        let mut all = vec!["diff", "gateway.yaml", new];
        all.extend(more);
        setup.cli_plain(&all, "")
    };
    assert_eq!(diff("same.yaml", &["--json"]).expect(0).json(), json!([]));
    let wider = diff("wider.yaml", &["--json"]).json();
    assert!(wider[0]["gains"].to_string().contains("guest"), "{wider}");
    assert_eq!(wider[0]["loses"], json!([]));
    assert_eq!(wider[0]["path"], "/orders/**");
    let narrower = diff("narrower.yaml", &["--json"]).json();
    assert!(narrower[0]["loses"].to_string().contains("user"), "{narrower}");
    let open = diff("open.yaml", &["--json"]).json().to_string();
    assert!(open.contains("@anyone"), "{open}");
    diff("wider.yaml", &["--fail-on-widening"]).expect(1);
    diff("open.yaml", &["--fail-on-widening"]).expect(1);
    diff("narrower.yaml", &["--fail-on-widening"]).expect(0);
    diff("missing.yaml", &[]).expect(2);
}

#[test]
fn check_names_every_problem_at_its_place() {
    let setup = Setup::new(RULES);
    setup.cli_plain(&["check", "gateway.yaml"], "").expect(0);
    let bad = "upstreams:
  orders: { servers: ['http://127.0.0.1:9'] }
routes:
  - path: /a
    alow: anyone
    to: orders
  - path: /b
    allow: anyone
    to: ordesr
  - { path: /c/../d, allow: anyone, to: orders }
  - { path: /d, to: orders }
  - { path: /e, allow: anyone, to: orders }
  - { path: /e, allow: anyone, to: orders }
timeouts: { idle: 30 }
${UNSET_NAME}: x
";
    setup.write("bad.yaml", bad);
    let end = setup.cli_plain(&["check", "bad.yaml"], "");
    assert!([Some(1), Some(2)].contains(&end.code), "{end:?}");
    let text = format!("{}{}", end.stdout, end.stderr);
    for part in [
        "bad.yaml:5:5",
        "allow",
        "bad.yaml:9:9",
        "`orders`",
        "bad.yaml:10",
        "bad.yaml:11",
        "bad.yaml:13",
        "bad.yaml:14",
        "^",
    ] {
        assert!(text.contains(part), "{part} is not in:\n{text}");
    }
    for (name, yaml) in [
        ("a duplicate key", RULES.replace("upstreams:", "upstreams: {}\nupstreams:")),
        ("an unset variable", RULES.replace("http://127.0.0.1:9", "${NO_SUCH_NAME}")),
        ("an alias bomb", "a: &a [x, x]\nb: &b [*a, *a]\n".to_owned()),
        ("a tab", "routes:\n\t- x\n".to_owned()),
        ("no file at all", String::new()),
        ("a list", "- a\n".to_owned()),
        ("bytes", "\u{0}\u{1}".to_owned()),
    ] {
        setup.write("bad.yaml", yaml);
        let end = setup.cli_plain(&["check", "bad.yaml"], "");
        assert!([Some(1), Some(2)].contains(&end.code), "{name}: {end:?}");
        assert!(!format!("{}{}", end.stdout, end.stderr).trim().is_empty(), "{name}");
    }
}

#[test]
fn check_warns_of_what_is_probably_a_mistake() {
    let setup = Setup::new(&format!(
        "
listeners: [{{ address: '0.0.0.0:8080' }}]
auth: {{ jwt: {{ keys: [{{ id: k1, algorithm: HS256, secret: a-secret-that-stands-in-the-file-itself }}] }} }}
{USERS}
upstreams: {{ api: {{ servers: ['http://127.0.0.1:9'] }} }}
routes:
  - {{ path: /admin/**, allow: [admin], to: api }}
  - {{ path: /admin/public, allow: anyone, to: api }}
  - {{ path: /x, allow: [nobody-has-this], to: api }}
"
    ));
    let end = setup.cli_plain(&["check", "gateway.yaml"], "").expect(0);
    let text = format!("{}{}", end.stdout, end.stderr);
    for part in ["nobody-has-this", "/admin/public", "0.0.0.0:8080", "secret"] {
        assert!(text.contains(part), "{part} is not in:\n{text}");
    }
    assert!(!text.contains("a-secret-that-stands"), "{text}");
}

#[test]
fn the_rules_own_tests_run_and_refuse_a_start() {
    let upstream = Upstream::hello();
    let rules = RULES.replace("http://127.0.0.1:9", &upstream.url());
    let good = format!(
        "{rules}expect:
  - {{ request: GET /orders/7, as: {{ roles: [user] }}, is: 200 }}
  - {{ request: GET /orders/7, as: {{ roles: [guest] }}, is: 403 }}
  - {{ request: DELETE /orders/7, as: anyone, is: 405 }}
  - {{ request: GET /orders/7, as: anyone, is: 401 }}
"
    );
    let setup = Setup::new(&good);
    setup.cli_plain(&["test", "gateway.yaml"], "").expect(0);
    drop(setup.start());
    setup.configure(&format!("{good}  - {{ request: GET /health, as: anyone, is: 401 }}\n"));
    let end = setup.cli_plain(&["test", "gateway.yaml"], "").expect(1);
    assert!(format!("{}{}", end.stdout, end.stderr).contains("GET /health"), "{end:?}");
    let end = setup.try_start().err().expect("it does not start");
    assert_eq!(end.code, Some(2), "{end:?}");
}

#[test]
fn the_schema_names_every_section() {
    let setup = Setup::new(RULES);
    let schema = setup.cli_plain(&["schema"], "").expect(0).json();
    for section in ["listeners", "routes", "upstreams", "auth", "limits", "tokens", "expect", "bootstrap"] {
        assert!(schema["properties"].get(section).is_some(), "{section}");
    }
}

#[test]
fn the_environment_and_its_file_fill_in_names() {
    let upstream = Upstream::hello();
    let yaml = "
bootstrap: { users: [{ name: '${WHO}', password: { file: secrets/password }, roles: [user] }] }
upstreams: { api: { servers: ['${API}'] } }
routes: [{ path: /x, allow: ['${ROLE:-user}'], to: api }]
";
    let setup = Setup::new(yaml).variable("API", &upstream.url());
    setup.write(".env", "# names\nWHO=ann\nAPI=http://127.0.0.1:1\n");
    setup.write("secrets/password", "ann-password\n");
    let gateway = setup.start();
    gateway.send(&crate::support::get("/x").basic("ann", "ann-password")).expect(200);
}
