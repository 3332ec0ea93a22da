//! The configuration file: problems at their place, names filled in from outside (contract 2).

use crate::support::{RULES, Setup, Upstream};

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
