//! `Authorization: Basic` (RFC 7617).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use serde_json::json;

use crate::support::client::basic;
use crate::support::gateway::resident;
use crate::support::outside::run_python;
use crate::support::{Gateway, Setup, USERS, Upstream, get, routes};

fn encoded(text: &[u8]) -> String {
    format!("Basic {}", STANDARD.encode(text))
}

#[test]
fn good_credentials_pass_in_every_spelling_that_the_rfcs_allow() {
    let upstream = Upstream::hello();
    let users = "
bootstrap:
  users:
    - { name: colon, password: 'pa:ss:word', roles: [user] }
    - { name: jürgen, password: pässwörd-€, roles: [user] }
";
    let gateway = Gateway::start(&format!("{users}{}", routes(&upstream)));
    let simple = basic("colon", "pa:ss:word");
    let code = simple.strip_prefix("Basic ").unwrap();
    for (name, value) in [
        ("all after the first colon is the password", simple.clone()),
        ("UTF-8 in both", basic("jürgen", "pässwörd-€")),
        ("the scheme in lower case", format!("basic {code}")),
        ("the scheme in upper case", format!("BASIC {code}")),
        ("several spaces", format!("Basic    {code}")),
    ] {
        let response = gateway.send(&get("/user/x").authorization(&value));
        assert_eq!((response.status, response.text().as_str()), (200, "hello"), "{name}");
    }
}

#[test]
fn what_is_no_good_is_refused_and_never_reaches_the_upstream() {
    let upstream = Upstream::hello();
    let gateway = Gateway::start(&format!("{USERS}{}", routes(&upstream)));
    let good = basic("user", "userpassword");
    for (name, value) in [
        ("a wrong password", basic("user", "nope")),
        ("an unknown user", basic("nobody", "userpassword")),
        ("an empty password", basic("user", "")),
        ("an empty name", basic("", "userpassword")),
        ("another's case", basic("User", "userpassword")),
        ("a blank behind the name", basic("user ", "userpassword")),
        ("a NUL behind the password", encoded(b"user:userpassword\0")),
        ("a control character in the name", encoded(b"us\x07er:userpassword")),
        ("no colon", encoded(b"useruserpassword")),
        ("no UTF-8", encoded(b"us\xffer:userpassword")),
        ("no base64", "Basic !!!".to_owned()),
        ("base64 cut short", good[..good.len() - 1].to_owned()),
        ("base64 with something behind", format!("{good} more")),
        ("a hash instead of the password", basic("user", "$argon2id$v=19$m=19456,t=2,p=1$")),
    ] {
        let response = gateway.send(&get("/user/x").authorization(&value)).refused(401, "invalid_credentials");
        assert_eq!(response.member("message"), "Invalid credentials", "{name}");
        assert_eq!(response.all("WWW-Authenticate"), [r#"Basic realm="api", charset="UTF-8""#], "{name}");
    }
    assert!(upstream.received().is_empty());
}

#[test]
fn the_word_alone_is_refused() {
    let upstream = Upstream::hello();
    let gateway = Gateway::start(&format!("{USERS}{}", routes(&upstream)));
    for value in ["Basic", "Basic "] {
        let response = gateway.send(&get("/user/x").authorization(value)).expect(401);
        assert!(response.header("WWW-Authenticate").is_some(), "{value:?}");
    }
    assert!(upstream.received().is_empty());
}

#[test]
fn an_unknown_user_and_a_wrong_password_are_told_the_same_however_often() {
    let upstream = Upstream::hello();
    let gateway = Gateway::start(&format!("{USERS}{}", routes(&upstream)));
    let mut seen = Vec::new();
    for _ in 0..3 {
        for (user, password) in [("user", "nope"), ("nobody", "nope")] {
            let mut response = gateway.send(&get("/user/x").basic(user, password)).expect(401);
            let id = response.member("request_id");
            response.headers.retain(|(name, _)| !["x-request-id", "date"].contains(&name.to_lowercase().as_str()));
            seen.push((response.headers.clone(), response.text().replace(&id, "ID")));
        }
    }
    assert!(seen.windows(2).all(|pair| pair[0] == pair[1]), "{seen:#?}");
}

#[test]
fn a_role_decides_after_the_credentials_hold() {
    let upstream = Upstream::hello();
    let gateway = Gateway::start(&format!("{USERS}{}", routes(&upstream)));
    for (user, path, status) in [
        ("admin", "/admin/x", 200),
        ("user", "/admin/x", 403),
        ("guest", "/admin/x", 403),
        ("admin", "/user/x", 200),
        ("user", "/user/x", 200),
        ("guest", "/user/x", 403),
        ("guest", "/any/x", 200),
    ] {
        let response = gateway.send(&get(path).basic(user, &format!("{user}password")));
        assert_eq!(response.status, status, "{user} on {path}");
    }
    // the wrong password of one who would be forbidden is told as a wrong password
    gateway.send(&get("/admin/x").basic("guest", "nope")).refused(401, "invalid_credentials");
    assert_eq!(upstream.received().len(), 4);
}

#[test]
fn an_unknown_user_takes_as_long_as_a_wrong_password() {
    let upstream = Upstream::hello();
    let gateway = Gateway::start(&format!("{USERS}{}", routes(&upstream)));
    let mut took = [Vec::new(), Vec::new()];
    // turn by turn, so that what else the machine does weighs on both; each password is a new one, so nothing is cached
    for n in 0..15 {
        for (times, user) in took.iter_mut().zip(["user", "nobody"]) {
            let start = std::time::Instant::now();
            gateway.send(&get("/user/x").basic(user, &format!("wrong-{n}"))).expect(401);
            times.push(start.elapsed());
        }
    }
    let [known, unknown] = took.map(|mut times| {
        times.sort_unstable();
        times[times.len() / 2].as_secs_f64()
    });
    let ratio = unknown / known;
    assert!((0.5..2.0).contains(&ratio), "{known} s for a wrong password, {unknown} s for an unknown user");
}

/// A row of the application's that asks for more work than anybody has: it opens nothing, is told of once, and nobody waits
/// for it.
#[test]
fn a_row_that_asks_for_absurd_work_is_refused_told_once_and_harms_nobody() {
    let upstream = Upstream::hello();
    let setup = Setup::new(&format!(
        "store: {{ url: 'sqlite:app.db', users: {{ table: user, id: id, name: username, password: password_hash, role: role }} }}
limits: {{ token_endpoints: off, unauthenticated: off }}
{}",
        routes(&upstream)
    ));
    let good = "{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=";
    let rows = json!([
        ["bcrypt", "$2b$31$abcdefghijklmnopqrstuuKb1mCYTe.3tT5eWq9qqpWxVDHkVXzKe"],
        ["argon2", "$argon2id$v=19$m=4194304,t=1,p=1$c29tZXNhbHQ$iWh06vD8Fy27wf9npn6FXWiCX4K6pW6Ue1Bnzz07Z8A"],
        ["pbkdf2", "pbkdf2:sha256:2000000000$salt$00"],
        ["scrypt", "scrypt:1073741824:8:1$salt$00"],
        ["damaged", "$argon2id$v=19$m=0$$"],
        ["unknown", "$y$j9T$salt$hash"],
        ["nobody", "!unusable"],
        ["good", good],
    ]);
    run_python(
        "
import json, sqlite3, sys
with sqlite3.connect(sys.argv[1]) as database:
    database.execute('CREATE TABLE user (id INTEGER PRIMARY KEY, username TEXT UNIQUE, password_hash TEXT, role TEXT)')
    rows = [(*row, 'user') for row in json.loads(sys.argv[2])]
    database.executemany('INSERT INTO user (username, password_hash, role) VALUES (?, ?, ?)', rows)
",
        &[&setup.path("app.db").display().to_string(), &rows.to_string()],
    );
    let gateway = setup.start();
    let before = resident(&gateway);
    for round in 0..3 {
        for row in rows.as_array().unwrap() {
            let name = row[0].as_str().unwrap();
            // another each time, or what is remembered would answer
            let password = if name == "good" { "password".to_owned() } else { format!("password-{round}") };
            let status = if name == "good" { 200 } else { 401 };
            assert_eq!(gateway.send(&get("/user/x").basic(name, &password)).status, status, "{name}");
        }
    }
    let log = gateway.stderr();
    for row in rows.as_array().unwrap() {
        let [name, hash] = [0, 1].map(|at| row[at].as_str().unwrap());
        let told =
            log.lines().filter(|line| line.contains("cannot be verified") && line.contains(&format!("name={name}")));
        assert_eq!(told.count(), usize::from(!["good", "nobody"].contains(&name)), "{name}: {log}");
        assert!(!log.contains(hash), "{log}");
    }
    assert!(resident(&gateway) < before + (256 << 20), "{} bytes more", resident(&gateway) - before);
}
