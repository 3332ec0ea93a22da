//! `examples/start` as whoever runs it meets it: what it says, and what it leaves behind, which is nothing.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::example::{Started, cases};
use crate::support::gateway::project;
use crate::support::{Upstream, eventually, get, post};

/// What is in a folder.
fn content(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
}

#[track_caller]
fn leaves_nothing(folder: &Path) {
    eventually("nothing is left", || match content(folder) {
        left if left.is_empty() => Ok(()),
        left => Err(left),
    });
}

#[test]
fn whatever_ends_it_nothing_is_left() {
    let (path, _) = cases();
    let upstream = Upstream::hello();
    for signal in ["TERM", "INT", "HUP", "KILL"] {
        let place = TempDir::new().unwrap();
        let mut started = Started::in_folder("S4d", &upstream.url(), &path, Some(place.path()));
        assert_eq!(content(place.path()).len(), 1, "its database");
        started.send(&get("/auth/combined-user").basic("user", "userpassword")).expect(200);
        started.signal(signal);
        let status = started.wait();
        assert_eq!(status.code(), if signal == "KILL" { None } else { Some(0) }, "{signal}");
        eventually("its port is free", || match std::net::TcpListener::bind(started.address) {
            Ok(_) => Ok(()),
            Err(error) => Err(error.to_string()),
        });
        leaves_nothing(place.path());
    }
}

#[test]
fn two_of_one_system_stand_side_by_side() {
    let (path, _) = cases();
    let upstream = Upstream::hello();
    let place = TempDir::new().unwrap();
    let start = || Started::in_folder("S2", &upstream.url(), &path, Some(place.path()));
    let [one, other] =
        std::thread::scope(|scope| [scope.spawn(start), scope.spawn(start)].map(|one| one.join().unwrap()));
    let user = json!({ "username": "somebody", "password": "Secret-1!" });
    for gateway in [&one, &other] {
        // each has users of its own
        gateway.send(&post("/register").json(&user)).expect(201);
        gateway.send(&post("/register").json(&user)).expect(400);
    }
    drop(one);
    other.send(&post("/login").json(&user)).expect(200);
    drop(other);
    leaves_nothing(place.path());
}

/// Runs it to its end; what it says on standard error.
fn fails(arguments: &[&str], place: &Path) -> (Option<i32>, String) {
    let child: Child = Command::new(project().join("examples/start"))
        .args(arguments)
        .env("PORTCULLIS", env!("CARGO_BIN_EXE_portcullis"))
        .env("TMPDIR", place)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let Output { status, stderr, .. } = child.wait_with_output().unwrap();
    (status.code(), String::from_utf8(stderr).unwrap())
}

#[test]
fn what_is_wrong_is_said_and_nothing_is_left() {
    let (path, _) = cases();
    let place = TempDir::new().unwrap();
    let files = TempDir::new().unwrap();
    let file = |name: &str, users: Value| {
        let path = files.path().join(name);
        let all = json!({ "systems": { "S2": { "fixtures": { "jwt_secret": "x".repeat(32), "users": users } } } });
        std::fs::write(&path, all.to_string()).unwrap();
        path.display().to_string()
    };
    let (good, busy) = (path.display().to_string(), std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    let (taken, free) = (busy.local_addr().unwrap().port().to_string(), "1".to_owned());
    let nameless = file("nameless", json!([{ "password": "secret-of-them" }]));
    let twice = file("twice", json!([{ "name": "a", "password": "b" }, { "name": "a", "password": "b" }]));
    let hash = file("hash", json!([{ "name": "a", "password": "b", "stored": "md5" }]));
    let garbage = files.path().join("garbage").display().to_string();
    std::fs::write(&garbage, "[]").unwrap();
    let api = "http://127.0.0.1:9";
    for (name, arguments, words) in [
        ("a port that is taken", ["S2", &taken, api, &good], "in use"),
        ("no port", ["S2", "65536", api, &good], "invalid port value: '65536'"),
        ("no number", ["S2", "http", api, &good], "invalid port value: 'http'"),
        ("no such system", ["S9", &free, api, &good], "invalid choice: 'S9'"),
        ("no URL", ["S2", &free, "ftp://api", &good], "a server's URL begins with `http://`"),
        ("no such file", ["S2", &free, api, "nowhere.json"], "nowhere.json"),
        ("no such system in the file", ["S3", &free, api, &nameless], "no fixtures of S3"),
        ("no cases", ["S2", &free, api, &garbage], "no fixtures of S2"),
        ("a user without a name", ["S2", &free, api, &nameless], "cannot be loaded: KeyError('name')"),
        ("two of a name", ["S2", &free, api, &twice], "UNIQUE constraint failed"),
        ("a hash that nobody knows", ["S2", &free, api, &hash], "unknown hash 'md5'"),
    ] {
        let [system, port, upstream, cases] = arguments;
        let (code, said) = fails(&[system, "--port", port, "--upstream", upstream, "--cases", cases], place.path());
        assert!(code.is_some_and(|code| code != 0), "{name}: {code:?}");
        assert!(said.contains(words) && !said.contains("Traceback"), "{name}: {said}");
        assert!(!said.contains("secret-of-them"), "{name}: {said}");
        leaves_nothing(place.path());
    }
}
