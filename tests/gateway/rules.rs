//! The commands on rules: check, explain, test; and the rules' own tests (contract 7).

use serde_json::{Value, json};

use crate::support::{Cli, Gateway, RULES, Request, Setup, USERS, Upstream, eventually};

pub(crate) fn explain(setup: &Setup, arguments: &[&str]) -> Cli {
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

/// Each option changes the answer, or is refused where it could not.
#[test]
fn scopes_schemes_and_addresses_are_those_of_the_caller() {
    let setup = Setup::new(
        "
trusted_proxies: [192.0.2.0/24]
upstreams: { api: { servers: ['http://127.0.0.1:9'] } }
routes:
  - { path: /a, allow: [user], scopes: [r, w], schemes: [bearer], to: api }
  - { path: /b, allow: authenticated, schemes: [basic, token], to: api }
",
    );
    for (arguments, code, error, lacks) in [
        (&["/a", "--role", "user"][..], 1, "insufficient_permissions", json!(["r", "w"])),
        (&["/a", "--role", "user", "--scope", "w"], 1, "insufficient_permissions", json!(["r"])),
        (&["/a", "--role", "user", "--scope", "w", "--scope", "r"], 0, "", json!([])),
        (&["/a", "--scope", "w", "--scope", "r"], 1, "insufficient_permissions", json!([])),
        (
            &["/a", "--role", "user", "--scope", "w", "--scope", "r", "--scheme", "basic"],
            1,
            "unsupported_scheme",
            json!([]),
        ),
        (&["/b", "--scheme", "bearer"], 1, "unsupported_scheme", json!([])),
        (&["/b", "--scheme", "token"], 0, "", json!([])),
    ] {
        let mut all = vec!["GET"];
        all.extend(arguments);
        all.push("--json");
        let said = explain(&setup, &all).expect(code).json();
        assert_eq!((said["error"].as_str().unwrap_or_default(), &said["lacks"]["scopes"]), (error, &lacks), "{said}");
    }
    let said = explain(&setup, &["GET", "/b", "--scheme", "token", "--json"]).json();
    assert_eq!(said["caller"]["scheme"], "token");
    assert!(said["forwarded_head"].as_str().unwrap().contains("x-auth-scheme: token\r\n"), "{said}");
    for (address, told) in [
        ("198.51.100.7", "x-forwarded-for: 198.51.100.7\r\nx-forwarded-proto: http\r\n"),
        ("2001:db8::7", "x-forwarded-for: 2001:db8::7\r\nx-forwarded-proto: http\r\n"),
        ("192.0.2.7", "x-forwarded-for: 203.0.113.1, 192.0.2.7\r\nx-forwarded-proto: https\r\n"),
    ] {
        let fields = ["--header", "X-Forwarded-For: 203.0.113.1", "--header", "X-Forwarded-Proto: https"];
        let mut all = vec!["GET", "http://localhost/b", "--role", "x", "--json", "--address", address];
        all.extend(fields);
        let said = explain(&setup, &all).expect(0).json();
        assert!(said["forwarded_head"].as_str().unwrap().contains(told), "{address}: {said}");
    }
    let reached = |arguments: &[&str]| -> Vec<Value> {
        let mut all = arguments.to_vec();
        all.push("--json");
        let list = explain(&setup, &all).expect(0).json();
        list.as_array().unwrap().iter().map(|row| row["path"].clone()).collect()
    };
    assert_eq!(reached(&["--role", "user"]), ["/a", "/b"]);
    assert_eq!(reached(&["--role", "user", "--scheme", "basic"]), ["/b"]);
    assert_eq!(reached(&["--role", "introspect"]), ["/b", "/oauth/introspect"]);
    let text = explain(&setup, &["--role", "user"]).expect(0).stdout;
    assert!(text.contains("/a (line 5)") && text.contains("(the credential must bear r, w)"), "{text}");
    // what would change nothing is no question
    for arguments in [
        &["GET", "/b", "--anyone", "--scope", "r"][..],
        &["GET", "/b", "--anyone", "--scheme", "basic"],
        &["GET", "/b", "--anyone", "--role", "r"],
        &["GET", "/b", "--authorization", "Basic x", "--scope", "r"],
        &["GET", "/b", "--authorization", "Basic x", "--scheme", "basic"],
        &["GET", "/b", "--address", "nowhere"],
        &["GET", "/b", "--scheme", "digest"],
        &["--role", "r", "--header", "A: b"],
        &["--role", "r", "--address", "192.0.2.1"],
        &["--anyone"],
        &["--authorization", "Basic x"],
        &[],
    ] {
        explain(&setup, arguments).expect(2);
    }
}

#[test]
fn explain_says_what_is_wrong_with_a_method_and_with_a_role() {
    let setup = Setup::new(
        "
upstreams: { api: { builtin: echo } }
bootstrap: { users: [{ name: ann, roles: [staff] }] }
routes:
  - { path: /a, methods: [GET], allow: [user], to: api }
  - { path: /b, allow: authenticated, to: api }
  - { path: /b, methods: [POST], allow: anyone, to: api }
",
    );
    for (method, url, told) in [
        ("get", "/a", "methods are written in upper case; did you mean `GET`?"),
        ("get", "/b", "methods are written in upper case; did you mean `GET`?"),
        ("PSOT", "/b", "`PSOT` is not a registered method; did you mean `POST`?"),
        ("ANY", "/a", "`ANY` is not a method that anybody sends"),
    ] {
        let said = explain(&setup, &[method, url, "--role", "user"]);
        assert!(said.stdout.contains(&format!("method    {told}\n")), "{method} {url}: {}", said.stdout);
        assert!(!said.stdout.contains("it names no methods"), "{method} {url}: {}", said.stdout);
        let json = explain(&setup, &[method, url, "--role", "user", "--json"]).json();
        let status = if method == "get" { json!(400) } else { json!({ "/a": 405 })[url].clone() };
        assert_eq!(json["status"], status, "{json}");
        // one that is refused whatever the rules are is not refused by any of them
        assert!(method != "get" || !said.stdout.contains("not       /"), "{}", said.stdout);
    }
    for method in ["GET", "PROPFIND", "PURGE"] {
        let said = explain(&setup, &[method, "/b", "--role", "user"]).expect(0).stdout;
        assert!(!said.contains("method    "), "{said}");
    }
    for (arguments, code, paths, told) in [
        (&["--role", "user"][..], 0, json!(["/a", "/b", "/b"]), ""),
        (&["--role", "staff"], 0, json!(["/b", "/b"]), ""),
        (&["--role", "introspect"], 0, json!(["/b", "/b", "/oauth/introspect"]), ""),
        (
            &["--role", "usr"],
            1,
            json!(["/b", "/b"]),
            "no rule or account of this file names the role `usr`: did you mean `user`?\n",
        ),
        (
            &["--role", "user", "--role", "nope"],
            1,
            json!(["/a", "/b", "/b"]),
            "no rule or account of this file names the role `nope`\n",
        ),
        (&["--scheme", "basic"], 0, json!(["/b", "/b"]), ""),
    ] {
        let mut all = arguments.to_vec();
        all.push("--json");
        let said = explain(&setup, &all).expect(code);
        let found: Vec<Value> = said.json().as_array().unwrap().iter().map(|row| row["path"].clone()).collect();
        assert_eq!(json!(found), paths, "{arguments:?}");
        assert!(
            said.stderr.ends_with(told) && said.stderr.is_empty() == told.is_empty(),
            "{arguments:?}: {}",
            said.stderr
        );
        let text = explain(&setup, arguments).expect(code);
        assert!(text.stdout.contains("/b (line 6)") && text.stderr == said.stderr, "{arguments:?} {text:?}");
    }
    let closed = Setup::new("upstreams: { api: { builtin: echo } }\nroutes: [{ path: /a, allow: [admin], to: api }]\n");
    let said = explain(&closed, &["--role", "amin"]).expect(1);
    assert_eq!(said.stdout, "nothing\n");
    assert!(said.stderr.contains("did you mean `admin`?"), "{said:?}");
    assert_eq!(explain(&closed, &["--role", "amin", "--json"]).expect(1).json(), json!([]));
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
fn diff_says_who_gains_and_who_loses() {
    let setup = Setup::new(RULES);
    let rules = std::fs::read_to_string(setup.path("gateway.yaml")).unwrap();
    setup.write("same.yaml", rules.replace("[user, admin]", "[admin, user]"));
    setup.write("wider.yaml", rules.replace("[user, admin]", "[user, admin, guest]"));
    setup.write("narrower.yaml", rules.replace("[user, admin]", "[admin]"));
    setup.write("open.yaml", rules.replace("allow: [admin]", "allow: anyone"));
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

/// `@anyone` and `@authenticated` are what `diff` calls everybody. Nothing takes them for roles, which nobody could have.
#[test]
fn everybody_is_no_role() {
    let rules = |allow: &str, more: &str| {
        format!(
            "endpoints: []\nupstreams: {{ api: {{ builtin: echo }} }}\nroutes: [{{ path: /a, allow: {allow}, to: api }}]\n{more}"
        )
    };
    let setup = Setup::new("");
    for (name, allow) in [("roles", "[x]"), ("authenticated", "authenticated"), ("anyone", "anyone")] {
        setup.write(&format!("{name}.yaml"), rules(allow, ""));
    }
    let diff = |old: &str, new: &str| {
        let (old, new) = (format!("{old}.yaml"), format!("{new}.yaml"));
        let rows = setup.cli_plain(&["diff", &old, &new, "--json"], "").expect(0).json();
        (rows[0]["gains"].clone(), rows[0]["loses"].clone())
    };
    assert_eq!(diff("roles", "anyone"), (json!(["@anyone", "@authenticated"]), json!([])));
    assert_eq!(diff("roles", "authenticated"), (json!(["@authenticated"]), json!([])));
    assert_eq!(diff("anyone", "authenticated"), (json!([]), json!(["@anyone"])));
    // whom they stand for can be asked about
    for (file, anyone, principal) in
        [("roles.yaml", 401, 403), ("authenticated.yaml", 401, 200), ("anyone.yaml", 200, 200)]
    {
        for (argument, status) in [(&["--anyone"][..], anyone), (&["--scheme", "basic"], principal)] {
            let mut arguments = vec!["explain", file, "GET", "/a", "--json"];
            arguments.extend(argument);
            let said = setup.cli_plain(&arguments, "").expect(i32::from(status != 200)).json();
            assert_eq!(said["status"], if status == 200 { json!(null) } else { json!(status) }, "{file} {argument:?}");
        }
    }
    for name in ["@anyone", "@authenticated", "@x"] {
        for arguments in
            [&["explain", "roles.yaml", "GET", "/a", "--role", name][..], &["explain", "roles.yaml", "--role", name]]
        {
            let said = setup.cli_plain(arguments, "").expect(2);
            assert!(said.stderr.contains("the name of a role does not begin with `@`: `--anyone` asks"), "{said:?}");
        }
        let expectation = format!("expect: [{{ request: GET /a, as: {{ roles: ['{name}'] }}, is: 403 }}]\n");
        setup.write("expect.yaml", rules("[x]", &expectation));
        setup.write("allow.yaml", rules(&format!("['{name}']"), ""));
        for arguments in [
            &["test", "expect.yaml"][..],
            &["diff", "roles.yaml", "expect.yaml"],
            &["diff", "roles.yaml", "allow.yaml"],
            &["explain", "allow.yaml", "GET", "/a"],
        ] {
            let said = setup.cli_plain(arguments, "").expect(2);
            assert!(said.stderr.contains("the name of a role does not begin with `@`"), "{arguments:?} {said:?}");
        }
    }
    setup.write("bare.yaml", rules("[x]", "expect: [{ request: GET /a, as: '@anyone', is: 401 }]\n"));
    let said = setup.cli_plain(&["test", "bare.yaml"], "").expect(2);
    assert!(said.stderr.contains("expected `anyone` or a principal such as `{ roles: [user] }`"), "{said:?}");
}

#[test]
fn check_speaks_to_people_tools_and_workflows() {
    let setup = Setup::new(RULES);
    setup.write("bad.yaml", RULES.replace("methods: [GET]", "method: [GET]"));
    let check = |format: &str| setup.cli_plain(&["check", "bad.yaml", "--format", format], "").expect(1);
    assert!(check("text").stderr.contains("bad.yaml:7:5: unknown key `method` in a route"));
    assert_eq!(check("json").json()[0]["line"], 7);
    assert!(check("github").stdout.starts_with("::error file=bad.yaml,line=7,col=5::unknown key `method`"));
    let sarif = check("sarif").json();
    assert_eq!(sarif["runs"][0]["results"][0]["level"], "error");
    // a tool shows no line of the file: what is wrong is in the message itself
    setup.write(
        "bad.yaml",
        "auth: { realm: '${PORTCULLIS_RELM}', jwt: { keys: [{ id: k, algorithm: ES256, private_key: keys/none.pem }] } }\n\
         upstreams: { api: { builtin: echo } }\nroutes: [{ path: /a, to: api }]\n",
    );
    let setup = setup.variable("PORTCULLIS_REALM", "canary");
    let check = |format: &str| setup.cli_plain(&["check", "bad.yaml", "--format", format], "").expect(1);
    let told = [
        ("the environment variable `PORTCULLIS_RELM` is not set", "did you mean `${PORTCULLIS_REALM}`?"),
        ("the file `keys/none.pem` cannot be read: there is no such file", ""),
        ("`allow` is missing", "expected `anyone`, `authenticated` or a list of roles such as `[user, admin]`"),
    ];
    let (json, github, sarif) = (check("json").json(), check("github").stdout, check("sarif").json());
    for (n, (message, hint)) in told.into_iter().enumerate() {
        let expected = if hint.is_empty() { json!(null) } else { json!(hint) };
        assert_eq!((&json[n]["message"], &json[n]["hint"]), (&json!(message), &expected));
        assert!(github.lines().nth(n).unwrap().contains(&format!("::{message}")), "{github}");
        let text = sarif["runs"][0]["results"][n]["message"]["text"].as_str().unwrap();
        assert_eq!(text, format!("{message}\n{hint}").trim_end());
    }
    assert!(!github.contains("canary"), "{github}");
    // a file that is not there has no line to point to
    let missing = |format: &str| setup.cli_plain(&["check", "missing.yaml", "--format", format], "").expect(2);
    let expected = "missing.yaml: cannot be read: there is no such file";
    assert_eq!(missing("text").stderr, format!("{expected}\n"));
    assert_eq!(missing("github").stdout, format!("::error file=missing.yaml::{expected}\n"));
    assert_eq!(missing("sarif").json()["runs"][0]["results"][0]["message"]["text"], expected);
    assert_eq!(missing("json").json()[0]["file"], "missing.yaml");
}

#[test]
fn explain_proves_a_credential_and_shows_none() {
    let upstream = Upstream::hello();
    let rules = RULES
        .replace("http://127.0.0.1:9", &upstream.url())
        .replace("allow: authenticated", "allow: authenticated, forward_credentials: true");
    let gateway = Gateway::start(&rules);
    let good = "Basic dXNlcjp1c2VycGFzc3dvcmQ=";
    let answer = explain(&gateway.setup, &["GET", "/me", "--authorization", good]).expect(0).stdout;
    assert!(answer.contains("x-auth-user: user") && answer.contains("authorization: Basic ********"), "{answer}");
    assert!(!answer.contains("dXNlcj"), "{answer}");
    let refused = explain(&gateway.setup, &["GET", "/me", "--authorization", "Basic dXNlcjp4", "--json"]).expect(1);
    assert_eq!((&refused.json()["status"], &refused.json()["error"]), (&json!(401), &json!("invalid_credentials")));
    explain(&gateway.setup, &["GET", "/me", "--user", "nobody"]).expect(1);
    explain(&gateway.setup, &["GET"]).expect(2);
    explain(&gateway.setup, &[]).expect(2);
    gateway.cli(&["user", "disable", "user"], "").expect(0);
    assert_eq!(explain(&gateway.setup, &["GET", "/me", "--user", "user", "--json"]).expect(1).json()["status"], 401);
}

/// The events of the audit so far.
fn audited(gateway: &Gateway) -> Vec<Value> {
    let text = gateway.stdout();
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["audit"].is_string()).collect()
}

#[test]
fn what_a_reload_changes_is_audited_in_the_words_of_diff() {
    let gateway = Gateway::start(RULES);
    let orders = "    allow: [user, admin]\n";
    for (name, rules, expected) in [
        (
            "opened to anyone",
            RULES.replace(orders, "    allow: anyone\n"),
            ("/orders/** GET, HEAD", "callers without credentials, principals of any other role", "", ""),
        ),
        (
            "closed again, for one role",
            RULES.replace(orders, "    allow: [admin]\n"),
            ("/orders/** GET, HEAD", "", "callers without credentials, principals of any other role", ""),
        ),
        (
            "a new rule for anyone",
            RULES.replace(orders, "    allow: [admin]\n") + "  - { path: /new, allow: anyone, to: api }\n",
            ("/new every method", "anyone", "", ""),
        ),
        (
            "for any principal instead",
            RULES.replace(orders, "    allow: [admin]\n") + "  - { path: /new, allow: authenticated, to: api }\n",
            ("/new every method", "", "callers without credentials", ""),
        ),
        ("and gone", RULES.replace(orders, "    allow: [admin]\n"), ("/new every method", "", "any principal", "")),
        (
            "what holds for all",
            RULES.replace(orders, "    allow: [admin]\n") + "tokens: { access_ttl: 5m, refresh_grace: 0s }\n",
            ("/** every method", "", "", "tokens.access_ttl: 15m -> 5m; tokens.refresh_grace: 10s -> 0ms"),
        ),
    ] {
        gateway.setup.write("before.yaml", std::fs::read_to_string(gateway.setup.path("gateway.yaml")).unwrap());
        let known = audited(&gateway).len();
        gateway.reload(&rules);
        let changed = eventually(name, || {
            let told = audited(&gateway).split_off(known);
            let changed: Vec<Value> = told.iter().filter(|event| event["audit"] == "rule_changed").cloned().collect();
            if changed.is_empty() { Err(told) } else { Ok(changed) }
        });
        let (rule, gains, loses, changes) = expected;
        assert_eq!(changed.len(), 1, "{name}: {changed:?}");
        for (member, expected) in [("rule", rule), ("gains", gains), ("loses", loses), ("changes", changes)] {
            assert_eq!(changed[0][member], expected, "{name}: {changed:?}");
        }
        // and these are the words that `diff` prints
        let printed = gateway.setup.cli_plain(&["diff", "before.yaml", "gateway.yaml"], "").expect(0).stdout;
        let mut lines = printed.lines();
        assert_eq!(lines.next(), Some(rule), "{name}");
        let said: Vec<String> = lines.map(|line| line.trim_start().to_owned()).collect();
        let signed = [("+", gains), ("-", loses)].into_iter().filter(|(_, who)| !who.is_empty());
        let mut expected: Vec<String> = signed.map(|(sign, who)| format!("{sign} {who}")).collect();
        expected.extend(changes.split("; ").filter(|change| !change.is_empty()).map(|change| format!("~ {change}")));
        assert_eq!(said, expected, "{name}");
        assert!(gateway.stderr().contains("rule changed"), "{}", gateway.stderr());
    }
    // without effect on a rule
    let known = audited(&gateway).len();
    let same = RULES.replace(orders, "    allow: [admin]\n") + "tokens: { refresh_grace: 0ms, access_ttl: 300s }\n";
    gateway.reload(&format!("# the same\n{same}"));
    let told = eventually("the audit of the reload", || {
        let told = audited(&gateway).split_off(known);
        if told.is_empty() { Err(gateway.stderr()) } else { Ok(told) }
    });
    assert_eq!((told.len(), &told[0]["audit"], &told[0]["rules"]), (1, &json!("reloaded"), &json!("unchanged")));
    assert_eq!(told[0].get("settings"), None, "{told:?}");
    // and the end of the audit is in the audit
    let known = audited(&gateway).len();
    gateway.reload(&format!("{same}log: {{ audit: off, level: warn }}\n"));
    let told = eventually("the last of the audit", || {
        let told = audited(&gateway).split_off(known);
        if told.is_empty() { Err(gateway.stderr()) } else { Ok(told) }
    });
    assert_eq!(told[0]["settings"], "log.audit: json -> off; log.level: info -> warn", "{told:?}");
    gateway.reload(&format!("{same}log: {{ audit: json }}\n"));
    eventually("that it begins again", || {
        let told = audited(&gateway).split_off(known + 1);
        let begun =
            told.first().is_some_and(|event| event["settings"] == "log.audit: off -> json; log.level: warn -> info");
        if begun { Ok(()) } else { Err(told) }
    });
}

#[test]
fn coverage_lists_the_routes_that_no_expectation_touches() {
    let setup = Setup::new(RULES);
    let covered = |expect: &str, code: i32| {
        setup.configure(&format!("{RULES}{expect}"));
        setup.cli_plain(&["test", "gateway.yaml", "--coverage"], "").expect(code).stdout
    };
    // of the file as it is written, with what the harness adds at its end
    let line = |path: &str| {
        let written = std::fs::read_to_string(setup.path("gateway.yaml")).unwrap();
        1 + written.lines().position(|line| line.contains(&format!("path: {path}"))).unwrap()
    };
    let listed =
        |paths: &[&str]| paths.iter().map(|path| format!("    {path} (line {})\n", line(path))).collect::<String>();
    let found = covered("", 0);
    let expected = listed(&["/orders/**", "/orders/{id}/refund", "/health", "/me"]);
    assert_eq!(
        found,
        format!(
            "gateway.yaml: 0 of 0 expectations met\n0 of 4 routes are touched by an expectation; these are not:\n{expected}"
        )
    );
    // one that is refused touches its route, for its method too; one of a path for which there is none touches none
    let found = covered(
        "expect:
  - { request: GET /orders/7, as: anyone, is: 401 }
  - { request: DELETE /orders/7/refund, as: anyone, is: 405 }
  - { request: GET /nowhere, as: anyone, is: 404 }
  - { request: GET /%6de, as: { roles: [x] }, is: 200 }
  - { request: POST /auth/login, as: anyone, is: 200 }
",
        0,
    );
    let expected = listed(&["/health"]);
    assert_eq!(
        found,
        format!(
            "gateway.yaml: 5 of 5 expectations met\n3 of 4 routes are touched by an expectation; these are not:\n{expected}"
        )
    );
    let all = "expect:
  - { request: GET /orders/7, as: anyone, is: 200 }
  - { request: POST /orders/7/refund, as: { roles: [admin] }, is: 200 }
  - { request: GET /health, as: anyone, is: 200 }
  - { request: GET /me, as: anyone, is: 401 }
";
    let found = covered(all, 1);
    assert!(
        found.ends_with("gateway.yaml: 3 of 4 expectations met\n4 of 4 routes are touched by an expectation\n"),
        "{found}"
    );
    assert!(found.contains("`GET /orders/7` as anyone: expected 200, but it gets 401"), "{found}");
}

#[test]
fn a_reload_tells_what_it_changes() {
    let gateway = Gateway::start(RULES);
    gateway.reload(&RULES.replace("[user, admin]", "[user, admin, guest]"));
    eventually("the audit of the change", || {
        let text = gateway.stdout();
        let lines: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let changed = lines.iter().find(|line| line["audit"] == "rule_changed");
        match changed {
            Some(line) if line["gains"] == "guest" && line["rule"] == "/orders/** GET, HEAD" => Ok(()),
            _ => Err(text),
        }
    });
    assert!(gateway.stderr().contains("rule changed"), "{}", gateway.stderr());
}
