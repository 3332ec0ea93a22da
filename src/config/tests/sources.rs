//! Where text and values come from: the file, the environment, other files; and that no problem shows a secret.

use super::*;
use crate::config::source;
use crate::forward::UpstreamKind;
use crate::route::Allow;
use crate::secret::Secret;

#[test]
fn a_file_that_is_not_utf8_or_not_there_is_said_to_be_so() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("gateway.yaml");
    let missing = crate::config::load(&path, &environment()).unwrap_err();
    assert!(missing.is_unreadable());
    assert!(missing.to_string().ends_with("gateway.yaml: cannot be read: there is no such file\n"), "{missing}");
    std::fs::write(&path, b"a: b\nc: \xc3\xa9\xff\n").unwrap();
    let broken = crate::config::load(&path, &environment()).unwrap_err();
    assert!(!broken.is_unreadable());
    assert!(broken.to_string().contains("gateway.yaml:2:5: a byte here is not UTF-8"), "{broken}");
}

#[test]
fn variables_are_replaced_and_missing_ones_named_at_their_place() {
    let snapshot = with("auth: { realm: 'a ${NAME} ${UNSET:-default} $${NAME}' }");
    assert_eq!(&*snapshot.auth.realm, "a value default ${NAME}");
    let upstreams =
        "upstreams: { a: { servers: ['http://127.0.0.1:${PORT}'], keep_alive: '${EMPTY:-5}' } }\nroutes: []\n";
    let UpstreamKind::Servers(group) = &load(upstreams).unwrap().upstreams[0].kind else { panic!("servers") };
    assert_eq!((group.servers[0].port, group.keep_alive), (9001, 5));
    for (section, place, message) in [
        ("auth: { realm: a ${UNSET} }", "1:18", "the environment variable `UNSET` is not set"),
        ("auth: { realm: '${NAME' }", "1:17", "`${` without `}`"),
        ("auth: { realm: '${NA-ME}' }", "1:17", "expected `${NAME}` or `${NAME:-default}`"),
    ] {
        let printed = problems_of(section);
        assert!(printed.starts_with(&format!("gateway.yaml:{place}: {message}")), "{section}\n{printed}");
    }
}

#[test]
fn text_from_the_environment_is_text_whatever_it_looks_like() {
    assert_eq!(&*with("auth: { realm: '${PORT}' }").auth.realm, "9001");
    assert_eq!(&*with("auth: { realm: ${PORT} }").auth.realm, "9001");
    let least = LEAST.replace("anyone", "[${NAME}, '${EMPTY:-a, b]: #c}']").replace("path: /", "path: /${NAME}");
    let Ok(snapshot) = load(&least) else { panic!("{}", problems(&least)) };
    let route = &snapshot.routes.routes()[0];
    assert_eq!((&*route.name, &route.allow), ("/value", &Allow::Roles(vec!["value".into(), "a, b]: #c".into()])));
    // a variable cannot bring structure either
    let environment: Environment = std::iter::once(("ALLOW", "anyone\n    to: other")).collect();
    let text = "upstreams: { demo: { builtin: echo } }\nroutes: [{ path: /, allow: '${ALLOW}', to: demo }]\n";
    assert!(load_text(text, Path::new("."), "gateway.yaml", &environment).is_err());
}

#[test]
fn dotenv_adds_to_the_environment_and_never_overrides_it() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join(".env"), "NAME=other\nMORE=\"more\"\n").unwrap();
    let path = directory.path().join("gateway.yaml");
    std::fs::write(&path, format!("auth: {{ realm: '${{NAME}} ${{MORE}}' }}\n{LEAST}")).unwrap();
    let snapshot = crate::config::load(&path, &environment()).unwrap();
    assert_eq!(&*snapshot.auth.realm, "value more");
    assert_eq!(snapshot.files, [directory.path().join(".env")]);
    std::fs::write(directory.path().join(".env"), "A=b\nSECRET canary\n").unwrap();
    let printed = crate::config::load(&path, &environment()).unwrap_err().to_string();
    assert!(printed.contains("`.env` line 2: expected NAME=value"), "{printed}");
    assert!(!printed.contains("canary"), "{printed}");
}

#[test]
fn no_problem_shows_a_secret() {
    for text in [
        "bootstrap: { clients: [{ id: a, secret: canary, rols: [b] }] }",
        "bootstrap: { clients: [{ id: a, secert: canary }] }",
        "bootstrap: { users: [{ name: a, pasword: canary }] }",
        "bootstrap: { users: [{ name: a, password: [canary] }] }",
        "bootstrap: { users: [{ name: a, password: { value: canary } }] }",
        "bootstrap: { users: [{ name: a, password: \"canary\\u0001\" }] }",
        "bootstrap: { users: [{ name: a, password: 'canary', password: 'canary' }] }",
        "bootstrap:\n  users:\n    - name: a\n      password: |\n        canary\n        canary\n      x: 1",
        "bootstrap:\n  users:\n    - name: a\n      password: \"canary\n",
        "bootstrap:\n  users:\n    - name: a\n      password: can: canary\n",
        "bootstrap: { users: [{ name: a, password: '${UNSET:-canary', x: 1 }] }",
        "bootstrap: { users: [{ name: a, password: '${NONE:-canary}', x: 1 }] }",
        "bootstrap: { users: [{ name: '${CANARY}:' }] }",
        "auth: { jwt: { keys: [{ id: a, algorithm: '${CANARY}', secret: canary }] } }",
        "auth: { jwt: { keys: [{ id: a, algorithm: HS256, secret: canary, private_key: b }] } }",
        "timeouts: { idle: '${CANARY}' }",
        "log: { level: '${CANARY}' }",
        "workers: '${CANARY}'",
        "store: mysql://root:canary@db:x/y",
        "store: { url: mysql://root:canary@db:x/y }",
        "limits: { shared: 'redis://:a#canary@redis' }",
        "limits: { shared: { url: 'http://:canary@redis' } }",
        "listeners: [{ address: '${CANARY}' }]",
        "endpoints: [{ path: '${CANARY}', action: '${CANARY}' }]",
        "errors: { member: '${CANARY}\n' }\nx: 1",
    ] {
        let printed = problems_of(text);
        assert!(!printed.is_empty() && !printed.contains("canary"), "{text}\n{printed}");
    }
    for upstream in ["servers: ['http://root:canary@a']", "servers: ['${CANARY}']"] {
        let printed = problems(&format!("upstreams: {{ a: {{ {upstream} }} }}\nroutes: []"));
        assert!(!printed.is_empty() && !printed.contains("canary"), "{printed}");
    }
    for route in
        ["request_headers: { set: { X_Api_Key: canary } }", "methods: ['${CANARY}']", "strip_prefix: '${CANARY}'"]
    {
        let printed = with_route(&format!("    allow: anyone\n    {route}\n")).unwrap_err().to_string();
        assert!(!printed.contains("canary"), "{printed}");
    }
}

#[test]
fn secrets_come_from_the_file_the_environment_or_another_file() {
    let directory = tempfile::tempdir().unwrap();
    for (name, bytes) in [("good", &b"from file\r\n"[..]), ("empty", b"\n"), ("binary", b"\xff")] {
        std::fs::write(directory.path().join(name), bytes).unwrap();
    }
    let load = |secret: &str| {
        let text = format!("bootstrap: {{ clients: [{{ id: a, secret: {secret} }}] }}\n{LEAST}");
        load_text(&text, directory.path(), "gateway.yaml", &environment())
    };
    for (secret, expected) in [("abc", "abc"), ("'${CANARY}'", "canary"), ("{ file: good }", "from file")] {
        let snapshot = load(secret).unwrap();
        let found = snapshot.bootstrap.clients[0].secret.as_ref().map(Secret::expose);
        assert_eq!(found.map(String::as_str), Some(expected), "{secret}");
    }
    assert_eq!(load("{ file: good }").unwrap().files, [directory.path().join("good")]);
    for (secret, message) in [
        ("{ file: none }", "1:49: the file `none` cannot be read: there is no such file"),
        ("{ file: . }", "1:49: the file `.` cannot be read: it is a directory"),
        ("{ file: empty }", "1:49: the file `empty` is empty, and should hold a secret"),
        ("{ file: binary }", "1:49: the file `binary` is not UTF-8"),
        ("123", "1:41: expected text, found a number: put it in quotes"),
    ] {
        let printed = load(secret).unwrap_err().to_string();
        assert!(printed.contains(message), "{secret}\n{printed}");
    }
}

#[test]
fn files_that_are_named_must_be_there_and_be_what_they_should() {
    for (section, message) in [
        (
            "listeners: [{ address: 127.0.0.1:1, tls: { certificates: [{ cert: a, key: b }] } }]",
            "1:67: the file `a` cannot be read",
        ),
        (
            "auth: { jwt: { keys: [{ id: a, algorithm: HS256, secret: { file: a } }] } }",
            "1:66: the file `a` cannot be read",
        ),
    ] {
        let printed = problems_of(section);
        assert!(printed.contains(message), "{section}\n{printed}");
    }
    let printed = problems("upstreams: { a: { servers: ['https://a'], tls: { ca: none } } }\nroutes: []\n");
    assert!(printed.contains("1:54: the file `none` cannot be read"), "{printed}");
}

#[test]
fn a_pipe_is_read_and_not_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let pipe = directory.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    assert_eq!(source::read(&pipe, 9).unwrap_err(), "it is a pipe, and nobody writes to it");
    // opened for both, it has a writer that writes nothing more
    let mut both = std::fs::File::options().read(true).write(true).open(&pipe).unwrap();
    let reader = std::thread::spawn({
        let pipe = pipe.clone();
        move || source::read(&pipe, 9)
    });
    std::io::Write::write_all(&mut both, b"0123456789").unwrap();
    assert_eq!(reader.join().unwrap().unwrap_err(), "it is larger than 9 bytes");
}
