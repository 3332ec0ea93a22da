//! What a change gives to somebody, by which a pipeline is stopped: `diff --fail-on-widening`, and the audit of a reload.

use serde_json::{Value, json};

use crate::support::{Gateway, RULES, Setup, eventually};

#[test]
fn a_change_by_which_somebody_has_more_fails_and_any_other_does_not() {
    let setup = Setup::new("");
    let issuer = "auth: { issuers: [{ issuer: 'https://i', jwks: 'https://i/k', audience: [a], user_prefix: 'i:' }] }";
    let endpoint = |what: &str| format!("endpoints: [{{ path: /e, action: {what} }}]");
    let [login, register, oauth] = ["login", "register", "oauth_token"].map(endpoint);
    let route = |allow: &str| format!("endpoints: []\nroutes: [{{ path: /e, allow: {allow}, to: api }}]");
    let [to_anyone, to_admins] = ["anyone", "[admin]"].map(route);
    let (tls, redirect) = ("tls: { self_signed: [localhost] }", "redirect: https");
    let listeners =
        |second: &str| format!("listeners: [{{ address: '127.0.0.1:1', {tls} }}, {{ address: '0.0.0.0:2'{second} }}]");
    let (redirects, plain) = (listeners(&format!(", {redirect}")), listeners(""));
    let edited = |edits: &str| format!("routes: [{{ path: /e, allow: anyone, to: api{edits} }}]");
    let answered = |field: &str| edited(&format!(", response_headers: {{ set: {{ {field} }} }}"));
    let sent = |field: &str| edited(&format!(", request_headers: {{ set: {{ {field} }} }}"));
    let (old_key, new_key) = (sent("Authorization: Basic x"), sent("Authorization: Basic y"));
    let expects = "expect: [{ request: GET /e, as: anyone, is: 404 }]";
    for (name, less, more) in [
        ("an endpoint becomes register", &*login, &*register),
        ("a grant", &oauth, "endpoints: [{ path: /e, action: oauth_token, password_grant: true }]"),
        ("an endpoint becomes an open route", &login, &to_anyone),
        ("a new endpoint", "endpoints: []", &register),
        ("a route becomes an endpoint", &to_admins, &register),
        ("an issuer", "", issuer),
        ("a proxy", "trusted_proxies: [10.0.0.0/8]", "trusted_proxies: [0.0.0.0/0]"),
        ("a role for whoever registers", "tokens: { default_role: user }", "tokens: { default_role: admin }"),
        ("an account", "", "bootstrap: { users: [{ name: eve, roles: [admin] }] }"),
        ("no limit of guesses", "", "limits: { unauthenticated: off }"),
        ("looser limits of guesses", "", "limits: { token_endpoints: { per_account: { rate: 6/m, burst: 5 } } }"),
        ("a listener in clear", &redirects, &plain),
        ("an address more", &format!("listeners: [{{ address: '127.0.0.1:1', {tls} }}]"), &plain),
        ("the admin's address", "", "admin: { address: '0.0.0.0:9901' }"),
        ("another store", "", "store: sqlite:other.db"),
        ("a page of another origin", &edited(""), &answered("Access-Control-Allow-Origin: 'https://a'")),
        (
            "pages of all origins",
            &answered("Access-Control-Allow-Origin: 'https://a'"),
            &answered("Access-Control-Allow-Origin: '*'"),
        ),
        ("what the upstream says of CORS", &edited(", cors: { origins: ['https://a'] }"), &edited("")),
        ("what the upstream says of an origin", &answered("Access-Control-Allow-Origin: 'https://a'"), &edited("")),
        (
            "what a preflight allows",
            "routes: [{ path: /e, methods: [PUT], allow: anyone, cors: { origins: ['*'] }, to: api }, { path: /e, methods: [DELETE], allow: anyone, cors: { origins: ['*'] }, to: api }]",
            "routes: [{ path: /e, methods: [PUT, DELETE], allow: anyone, cors: { origins: ['*'] }, to: api }]",
        ),
        ("pages with credentials", &edited(""), &answered("Access-Control-Allow-Credentials: 'true'")),
        ("a credential for whoever passes", &edited(""), &old_key),
    ] {
        let text = |section: &str| {
            let upstreams = "upstreams: { api: { builtin: echo } }";
            let routes = if section.contains("routes:") { "" } else { "routes: []" };
            format!("{upstreams}\n{section}\n{routes}\n")
        };
        setup.write("less.yaml", text(less));
        setup.write("more.yaml", text(more));
        let told = setup.cli_plain(&["diff", "less.yaml", "more.yaml"], "").expect(0);
        let failed = setup.cli_plain(&["diff", "less.yaml", "more.yaml", "--fail-on-widening"], "").expect(1);
        assert!(told.stdout.contains("\n    + "), "{name}: {told:?}");
        assert_eq!(failed.stdout, told.stdout, "{name}");
        assert_eq!(
            failed.stderr,
            "portcullis: more.yaml gives somebody what less.yaml does not: see the lines with a `+`\n"
        );
        let json = setup.cli_plain(&["diff", "less.yaml", "more.yaml", "--json"], "").expect(0).json();
        let widens = |row: &Value| row["widens"].is_array() || row["gains"] != json!([]);
        assert!(json.as_array().unwrap().iter().any(widens), "{name}: {json}");
    }
    for (name, old, new) in [
        ("an expectation is gone", expects, ""),
        ("an expectation more", "", expects),
        ("workers", "workers: 1", "workers: 2"),
        ("an issuer is gone", issuer, ""),
        ("a listener in clear redirects", &plain, &redirects),
        ("sizes and times", "", "limits: { header_bytes: 64KiB }\ntimeouts: { idle: 5m }"),
    ] {
        setup.write("old.yaml", format!("upstreams: {{}}\nroutes: []\n{old}\n"));
        setup.write("new.yaml", format!("upstreams: {{}}\nroutes: []\n{new}\n"));
        let told = setup.cli_plain(&["diff", "old.yaml", "new.yaml", "--fail-on-widening"], "").expect(0);
        assert!(told.stdout.starts_with("/** every method\n    ~ "), "{name}: {told:?}");
        assert!(!told.stdout.contains("+ "), "{name}: {told:?}");
    }
    for (name, file) in [("old", &old_key), ("new", &new_key)] {
        setup.write(&format!("{name}.yaml"), format!("upstreams: {{ api: {{ builtin: echo }} }}\n{file}\n"));
    }
    let renewed = setup.cli_plain(&["diff", "old.yaml", "new.yaml", "--fail-on-widening"], "").expect(0).stdout;
    assert!(renewed.contains("~ request_headers.set.authorization: another value (not shown)"), "{renewed}");
}

#[test]
fn the_audit_of_a_reload_says_by_what_somebody_has_more() {
    let gateway = Gateway::start(RULES);
    let reloaded = |text: &str| -> Vec<Value> {
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.skip_while(|line| line["audit"] != "reloaded").collect()
    };
    gateway.setup.configure(&format!(
        "{RULES}expect: [{{ request: GET /me, as: anyone, is: 401 }}]\nlog: {{ level: debug }}\nadmin: {{ address: '0.0.0.0:0' }}\ntrusted_proxies: [127.0.0.1]\ntimeouts: {{ idle: 1m }}\n"
    ));
    gateway.signal("HUP");
    eventually("the audit of the reload", || {
        let events = reloaded(&gateway.stdout());
        let [process, rule, ..] = events.as_slice() else { return Err(events) };
        let of_admin = "admin.address: 127.0.0.1:0 -> 0.0.0.0:0";
        let good = process["settings"]
            == format!("{of_admin}; log.level: info -> debug; expect `GET /me` as anyone: none -> 401")
            && process["widens"] == of_admin
            && rule["audit"] == "rule_changed"
            && rule["rule"] == "/** every method"
            && rule["changes"] == "trusted_proxies: [] -> [127.0.0.1/32]; timeouts.idle: 75s -> 1m"
            && rule["widens"] == "trusted_proxies: [] -> [127.0.0.1/32]";
        if good { Ok(()) } else { Err(events) }
    });
}
