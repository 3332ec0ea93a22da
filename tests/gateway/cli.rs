//! The commands on the store, with their exit codes (contract 7).

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::Value;

use crate::support::{Gateway, Setup, Upstream, eventually, get, routes};

fn setup() -> (Setup, Upstream) {
    let upstream = Upstream::hello();
    (Setup::new(&routes(&upstream)), upstream)
}

fn names(list: &Value, member: &str) -> Vec<String> {
    let list = list.as_array().unwrap();
    let mut names: Vec<String> = list.iter().map(|row| row[member].as_str().unwrap().to_owned()).collect();
    names.sort();
    names
}

#[test]
fn users_are_added_shown_changed_and_removed_without_a_gateway() {
    let (setup, _upstream) = setup();
    setup
        .cli(&["user", "add", "ann", "--role", "admin", "--role", "user", "--password-stdin"], "ann-password\n")
        .expect(0);
    setup.cli(&["user", "add", "bob", "--password-stdin"], "bob-password").expect(0);
    setup.cli(&["user", "add", "ann", "--password-stdin"], "ann-password\n").expect(1);
    let list = setup.cli(&["user", "list", "--json"], "").expect(0).json();
    assert_eq!(names(&list, "name"), ["ann", "bob"]);
    let shown = setup.cli(&["user", "show", "ann", "--json"], "").expect(0).json();
    assert_eq!(shown["roles"], serde_json::json!(["admin", "user"]));
    assert_eq!(shown["disabled"], false);
    setup.cli(&["user", "roles", "ann", "guest"], "").expect(0);
    setup.cli(&["user", "disable", "ann"], "").expect(0);
    let shown = setup.cli(&["user", "show", "ann", "--json"], "").expect(0).json();
    assert_eq!((&shown["roles"], &shown["disabled"]), (&serde_json::json!(["guest"]), &Value::Bool(true)));
    setup.cli(&["user", "enable", "ann"], "").expect(0);
    setup.cli(&["user", "password", "ann", "--password-stdin"], "new-password-1\n").expect(0);
    let gateway = setup.start();
    gateway.send(&get("/any/x").basic("ann", "new-password-1")).expect(200);
    gateway.send(&get("/any/x").basic("bob", "bob-password")).expect(200);
    setup.cli(&["user", "remove", "bob"], "").expect(0);
    for command in [
        &["user", "show", "bob"][..],
        &["user", "roles", "bob", "x"],
        &["user", "disable", "bob"],
        &["user", "enable", "bob"],
        &["user", "remove", "bob"],
        &["user", "password", "bob", "--password-stdin"],
        &["token", "issue", "bob"],
        &["client", "rotate", "bob"],
        &["client", "remove", "bob"],
        &["token", "revoke", "--id", "4711"],
    ] {
        let end = setup.cli(command, "some-password\n").expect(1);
        assert!(!end.stderr.trim().is_empty(), "{command:?} says why");
    }
}

#[test]
fn on_a_terminal_it_begins_with_where_it_listens() {
    let (setup, _upstream) = setup();
    let program = setup.command().get_program().to_owned();
    let mut command = Command::new("script");
    command.args(["--quiet", "--return", "--command", program.to_str().unwrap(), "/dev/null"]);
    command.current_dir(setup.path(".")).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("script is on every Debian");
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let said: Vec<String> = lines.by_ref().take_while(|line| !line.contains("portcullis: ready")).collect();
    // Ctrl-C
    child.stdin.take().unwrap().write_all(b"\x03").unwrap();
    assert!(lines.all(|line| !line.contains("panicked")));
    eventually("it ends", || child.try_wait().unwrap().ok_or("it runs"));
    assert!(said.first().is_some_and(|line| line.contains("listening on")), "{said:?}");
}

/// A command at a terminal, as a shell would run it there; and what it and the terminal say afterwards.
struct AtTerminal {
    script: Child,
    said: Arc<Mutex<String>>,
}

impl AtTerminal {
    fn run(setup: &Setup, arguments: &str) -> Self {
        let program = setup.command().get_program().to_str().unwrap().to_owned();
        // the shell waits for what it runs, asks the terminal whether it shows what is typed, and stays until that was read:
        // what is written by one that ends at once may be lost
        let shell = format!(
            "trap : INT QUIT TERM; sh -c 'echo id $$; exec {program} {arguments}'; echo \"ended with $?\"; stty -a; echo over; \
             read -r end"
        );
        let mut command = Command::new("script");
        command.args(["--quiet", "--return", "--command", &shell, "/dev/null"]);
        // the shell `script` asks for, not the one of whoever runs the tests: bash is deaf to SIGQUIT, dash is not
        command.env("SHELL", "/bin/sh");
        command.current_dir(setup.path(".")).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut script = command.spawn().expect("script is on every Debian");
        let (said, mut output) = (Arc::new(Mutex::new(String::new())), script.stdout.take().unwrap());
        let kept = said.clone();
        std::thread::spawn(move || {
            let mut part = [0; 4096];
            while let Ok(count @ 1..) = output.read(&mut part) {
                kept.lock().unwrap().push_str(&String::from_utf8_lossy(&part[..count]));
            }
        });
        Self { script, said }
    }

    /// Waits until this was said; gives all that was.
    fn until(&mut self, what: &str) -> String {
        eventually(what, || {
            let said = self.said.lock().unwrap().clone();
            if said.contains(what) { Ok(said) } else { Err((said, self.script.try_wait())) }
        })
    }

    fn write(&mut self, bytes: &[u8]) {
        self.script.stdin.as_mut().unwrap().write_all(bytes).unwrap();
    }

    /// All that was said, once it has ended.
    fn end(mut self) -> String {
        let said = self.until("over\r\n");
        self.write(b"\n");
        eventually("it ends", || self.script.try_wait().unwrap().ok_or("it runs"));
        said
    }
}

#[test]
fn who_is_asked_for_a_password_does_not_see_it_and_sees_what_is_typed_after() {
    let (setup, _upstream) = setup();
    let mut terminal = AtTerminal::run(&setup, "user add ann --role user");
    terminal.until("New password for ann (empty: generate one): ");
    // with a mistake that is taken back, as a terminal lets its owner do
    terminal.write(b"oops\x15ann-passwordx\x7f\n");
    terminal.until("Again: ");
    terminal.write(b"ann-password\n");
    let said = terminal.end();
    assert!(said.contains("ended with 0") && said.contains(" echo "), "{said}");
    assert!(!said.contains("ann-p") && !said.contains("oops"), "{said}");
    let gateway = setup.start();
    gateway.send(&get("/user/x").basic("ann", "ann-password")).expect(200);
    // what a client has is a secret
    let mut terminal = AtTerminal::run(&gateway.setup, "client add robot");
    terminal.until("New secret for robot (empty: generate one): ");
    terminal.write(b"\n");
    assert!(terminal.end().contains("ended with 0"));
}

#[test]
fn a_signal_at_the_question_leaves_a_terminal_that_shows_what_is_typed() {
    let (setup, _upstream) = setup();
    for (name, code) in [("Ctrl-C", 130), ("Ctrl-\\", 131), ("TERM", 143), ("Ctrl-D", 2), ("two that differ", 2)] {
        let mut terminal = AtTerminal::run(&setup, "user add ann");
        let said = terminal.until("New password for ann (empty: generate one): ");
        match name {
            "Ctrl-C" => terminal.write(b"half\x03"),
            "Ctrl-\\" => terminal.write(b"half\x1c"),
            "Ctrl-D" => terminal.write(b"\x04"),
            "TERM" => {
                let id = said.split("id ").nth(1).unwrap().split_whitespace().next().unwrap();
                assert!(Command::new("sh").args(["-c", &format!("kill -TERM {id}")]).status().unwrap().success());
            }
            _ => {
                terminal.write(b"ann-password\n");
                terminal.until("Again: ");
                terminal.write(b"bob-password\n");
            }
        }
        let said = terminal.end();
        assert!(said.contains(&format!("ended with {code}")) && said.contains(" echo "), "{name}: {said}");
        assert!(!said.contains("half") && !said.contains("panicked"), "{name}: {said}");
    }
    assert_eq!(setup.cli(&["user", "list", "--json"], "").expect(0).json(), serde_json::json!([]));
}

#[test]
fn where_no_terminal_asks_a_password_is_generated_and_printed() {
    let (setup, _upstream) = setup();
    let added = setup.cli(&["user", "add", "ann", "--role", "user"], "").expect(0);
    let password = added.stdout.split_whitespace().last().unwrap().to_owned();
    assert!(password.len() >= 16, "{}", added.stdout);
    let gateway = setup.start();
    gateway.send(&get("/user/x").basic("ann", &password)).expect(200);
}

#[test]
fn new_passwords_and_names_are_held_to_the_rules() {
    let (setup, _upstream) = setup();
    for (name, password) in
        [("ann", "short"), ("a:b", "long-enough-1"), ("", "long-enough-1"), ("a\u{7}b", "long-enough-1")]
    {
        let end = setup.cli(&["user", "add", name, "--password-stdin"], password);
        assert!([Some(1), Some(2)].contains(&end.code), "{name:?} {password:?}: {end:?}");
    }
    assert_eq!(setup.cli(&["user", "list", "--json"], "").expect(0).json(), serde_json::json!([]));
}

#[test]
fn clients_get_secrets_that_work() {
    let (setup, _upstream) = setup();
    let added = setup.cli(&["client", "add", "robot", "--role", "user", "--scope", "orders:read"], "").expect(0);
    let secret = added.stdout.split_whitespace().last().unwrap().to_owned();
    setup.cli(&["client", "add", "told", "--secret-stdin"], "told-secret-1\n").expect(0);
    assert_eq!(names(&setup.cli(&["client", "list", "--json"], "").expect(0).json(), "id"), ["robot", "told"]);
    let gateway = setup.start();
    let ask = |id: &str, secret: &str| {
        let form = crate::support::post("/oauth/token").form("grant_type=client_credentials");
        gateway.send(&form.basic(id, secret)).status
    };
    assert_eq!((ask("robot", &secret), ask("told", "told-secret-1"), ask("told", "x")), (200, 200, 401));
    setup.cli(&["client", "disable", "told"], "").expect(0);
    setup.cli(&["client", "enable", "told"], "").expect(0);
    setup.cli(&["client", "remove", "told"], "").expect(0);
    setup.cli(&["client", "remove", "told"], "").expect(1);
}

#[test]
fn tokens_are_issued_listed_and_never_shown_again() {
    let (setup, _upstream) = setup();
    setup.cli(&["user", "add", "ann", "--role", "user", "--password-stdin"], "ann-password\n").expect(0);
    let token = setup.cli(&["token", "issue", "ann", "--ttl", "1h"], "").expect(0).stdout.trim().to_owned();
    assert!(token.starts_with("pct_") && !token.contains(char::is_whitespace), "{token}");
    let list = setup.cli(&["token", "list", "--json"], "").expect(0);
    let rows = list.json();
    assert_eq!(rows.as_array().unwrap().len(), 1);
    assert!(!list.stdout.contains(&token[4..30]), "{}", list.stdout);
    setup.cli(&["user", "add", "bob", "--password-stdin"], "bob-password\n").expect(0);
    let none = setup.cli(&["token", "list", "--user", "bob", "--json"], "").expect(0);
    assert_eq!(none.json(), serde_json::json!([]));
    let gateway = setup.start();
    gateway.send(&get("/user/x").token(&token)).expect(200);
    setup.cli(&["token", "issue", "ann", "--ttl", "soon"], "").expect(2);
}

#[test]
fn an_htpasswd_file_is_imported() {
    let (setup, _upstream) = setup();
    // bcrypt of `password-1`, apr1 and SHA-1 of the same, as htpasswd writes them
    let hashes: Value = serde_json::from_slice(
        &std::fs::read(crate::support::gateway::project().join("tests/data/hashes.json")).unwrap(),
    )
    .unwrap();
    let good = |prefix: &str| {
        let rows = hashes["hashes"].as_array().unwrap();
        let row = rows.iter().find(|row| {
            let plain = row["password"].as_str().unwrap_or("");
            row["hash"].as_str().is_some_and(|hash| hash.starts_with(prefix))
                && row["good"] == true
                && !plain.is_empty()
                && !plain.chars().any(char::is_control)
        });
        let row = row.unwrap_or_else(|| panic!("no {prefix}"));
        (row["hash"].as_str().unwrap().to_owned(), row["password"].as_str().unwrap().to_owned())
    };
    let users: Vec<(String, (String, String))> =
        ["$2y$", "$apr1$", "{SHA}"].iter().map(|prefix| (format!("u{}", prefix.len()), good(prefix))).collect();
    let text: String = users.iter().map(|(name, (hash, _))| format!("{name}:{hash}\n")).collect();
    setup.write("htpasswd", format!("# a comment\n\n{text}"));
    setup.cli(&["import", "htpasswd", "htpasswd"], "").expect(0);
    let gateway = setup.start();
    for (name, (_, password)) in &users {
        gateway.send(&get("/any/x").basic(name, password)).expect(200);
        gateway.send(&get("/any/x").basic(name, "nope")).refused(401, "invalid_credentials");
    }
    setup.cli(&["import", "htpasswd", "missing"], "").expect(2);
}

#[test]
fn wrong_usage_ends_with_2_and_help_with_0() {
    let (setup, _upstream) = setup();
    for arguments in [
        &["bogus"][..],
        &["user"],
        &["user", "add"],
        &["user", "bogus"],
        &["token", "revoke"],
        &["--bogus"],
        &["user", "add", "ann", "--password", "in-the-argument"],
        &["check"],
        &["check", "missing.yaml"],
        &["user", "list", "--config", "missing.yaml"],
        &["run", "--config", "missing.yaml"],
    ] {
        let end = setup.cli_plain(arguments, "").expect(2);
        assert!(!end.stderr.trim().is_empty(), "{arguments:?}");
    }
    for arguments in [&["--help"][..], &["--version"], &["user", "--help"]] {
        assert!(!setup.cli_plain(arguments, "").expect(0).stdout.is_empty());
    }
}

#[test]
fn bootstrap_makes_what_is_absent_and_changes_nothing_later() {
    let upstream = Upstream::hello();
    let yaml = |password: &str| {
        format!(
            "bootstrap: {{ users: [{{ name: ann, password: {password}, roles: [user] }}, {{ name: gen, roles: [user] }}] }}\n{}",
            routes(&upstream)
        )
    };
    let gateway = Gateway::start(&yaml("first-password"));
    let printed = format!("{}{}", gateway.stdout(), gateway.stderr());
    assert!(printed.contains("gen") && !printed.contains("first-password"), "{printed}");
    let setup = gateway.setup.beside();
    drop(gateway);
    setup.configure(&yaml("second-password"));
    let gateway = setup.start();
    gateway.send(&get("/user/x").basic("ann", "first-password")).expect(200);
    gateway.send(&get("/user/x").basic("ann", "second-password")).expect(401);
    let again = format!("{}{}", gateway.stdout(), gateway.stderr());
    assert!(!again.contains("gen "), "a generated password is printed once: {again}");
}

#[test]
fn an_echo_answers_with_what_it_was_asked() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
    let mut child = command.args(["echo", "--listen", "127.0.0.1:0"]).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stderr.as_mut().unwrap()).read_line(&mut line).unwrap();
    let address = line.trim().rsplit_once("http://").unwrap().1.parse().unwrap();
    let request = crate::support::post("/a?b=c").header("X-Own", "1").body("hello");
    let response = crate::support::Connection::plain(address).send(&request);
    child.kill().unwrap();
    child.wait().unwrap();
    let said = response.expect(200).json();
    for (member, expected) in [("method", "POST"), ("path", "/a"), ("query", "b=c"), ("body", "hello")] {
        assert_eq!(said[member], expected, "{said}");
    }
    assert_eq!(said["headers"]["x-own"], "1", "{said}");
}

#[test]
fn a_file_that_is_given_to_run_is_told_where_it_belongs() {
    let (setup, _upstream) = setup();
    for arguments in [&["run", "other.yaml"][..], &["other.yaml"], &["other.yml"], &["run", "a/b"]] {
        let end = setup.cli_plain(arguments, "").expect(2);
        let file = arguments.last().unwrap();
        assert!(end.stderr.contains(&format!("`--config {file}`")), "{arguments:?}: {}", end.stderr);
    }
    let end = setup.cli_plain(&["runn"], "").expect(2);
    assert!(!end.stderr.contains("`--config runn`"), "{}", end.stderr);
}
