//! The pages in `docs/` that promise to work when they are followed: each is followed here, as it stands.
//!
//! Of a page's blocks, one that begins with `# NAME` is that file, and those of `sh` are typed one after the other, in one
//! shell, in an empty folder. What stands behind `# =>` must be in what the command prints. Only the ports are others.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::support::gateway::project;
use crate::support::wait::within;

/// How long following a page may take: it begins with installing a framework.
const DEADLINE: Duration = Duration::from_mins(10);

/// The ports that pages name: of the gateway, of the API, and of an identity provider.
const PORTS: [&str; 3] = ["8443", "8000", "8090"];

/// What the script of a page begins with.
const PRELUDE: &str = r#"set -eux
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
ready() {
    { set +x; } 2>/dev/null
    for _ in $(seq 600); do
        if (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; then set -x; return; fi
        sleep 0.1
    done
    echo "nothing listens on port $1"
    exit 1
}
told() {
    case $1 in
        *"$2"*) ;;
        *) printf 'expected: %s\ngot: %s\n' "$2" "$1"; exit 1 ;;
    esac
}
"#;

/// The blocks of a page: language and content.
fn blocks(page: &str) -> Vec<(String, String)> {
    let mut blocks = Vec::new();
    let mut open: Option<(String, String)> = None;
    for line in page.lines() {
        match (&mut open, line.strip_prefix("```")) {
            (None, Some(language)) => open = Some((language.to_owned(), String::new())),
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some((_, content)), None) => writeln!(content, "{line}").unwrap(),
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a block without an end");
    blocks
}

/// The page as a script, and how many answers it expects.
fn script(page: &str, ports: [u16; 3]) -> (String, usize) {
    let [gateway, ..] = ports;
    let page =
        PORTS.iter().zip(ports).fold(page.to_owned(), |page, (known, port)| page.replace(known, &port.to_string()));
    let (mut script, mut answers) = (PRELUDE.to_owned(), 0);
    for (language, content) in blocks(&page) {
        let name = content.lines().next().and_then(|line| line.strip_prefix("# "));
        match (language.as_str(), name) {
            ("sh", _) => {
                for line in content.lines() {
                    if let Some((command, answer)) = line.split_once("# => ") {
                        answers += 1;
                        writeln!(script, "told \"$({command})\" '{}'", answer.replace('\'', r"'\''")).unwrap();
                    } else {
                        writeln!(script, "{line}").unwrap();
                    }
                    if line.ends_with(" &") {
                        // what serves names its port, but for the gateway, whose file does
                        let named = ports.into_iter().find(|port| line.contains(&port.to_string()));
                        writeln!(script, "ready {}", named.unwrap_or(gateway)).unwrap();
                    }
                }
            }
            (_, Some(name)) => {
                let folder = PathBuf::from(name).parent().unwrap().display().to_string();
                if !folder.is_empty() {
                    writeln!(script, "mkdir -p '{folder}'").unwrap();
                }
                let own = if name == "gateway.yaml" { sections(gateway) } else { String::new() };
                writeln!(script, "cat > '{name}' <<'END OF FILE'\n{own}{content}END OF FILE").unwrap();
            }
            (language, None) => panic!("a block of {language} that is neither typed nor a file"),
        }
    }
    (script, answers)
}

/// Where the gateway listens, as it does by default but for the ports.
fn sections(port: u16) -> String {
    format!(
        "listeners: [{{ address: '127.0.0.1:{port}', tls: {{ self_signed: [localhost] }} }}]\n\
         admin: {{ address: '127.0.0.1:0' }}\n"
    )
}

/// The shell that follows a page, with all that it started, until it is dropped.
struct Followed(Child);

impl Drop for Followed {
    fn drop(&mut self) {
        // there may be nothing left of the group
        drop(Command::new("kill").args(["-KILL", "--", &format!("-{}", self.0.id())]).stderr(Stdio::null()).status());
        drop(self.0.wait());
    }
}

fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

#[track_caller]
fn follow(name: &str) {
    let page = std::fs::read_to_string(project().join("docs").join(name)).unwrap();
    let (script, answers) = script(&page, [free_port(), free_port(), free_port()]);
    assert!(answers >= 5, "a page that shows little: {answers}");
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    std::fs::write(file("page.sh"), script).unwrap();
    std::fs::create_dir(file("empty")).unwrap();
    let log = std::fs::File::create(file("log")).unwrap();
    let program = PathBuf::from(env!("CARGO_BIN_EXE_portcullis"));
    let path = std::env::var("PATH").unwrap();
    let wheels =
        std::env::var_os("PORTCULLIS_TEST_WHEELS").map_or_else(|| project().join("target/test-wheels"), PathBuf::from);
    assert!(wheels.exists(), "no {}: it is made by tests/run.sh", wheels.display());
    let child = Command::new("bash")
        .arg(file("page.sh"))
        .current_dir(file("empty"))
        .env("PATH", format!("{}:{path}", program.parent().unwrap().display()))
        .env("PIP_NO_INDEX", "1")
        .env("PIP_FIND_LINKS", wheels)
        .env("PIP_DISABLE_PIP_VERSION_CHECK", "1")
        .env("PIP_NO_COMPILE", "1")
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap();
    let mut followed = Followed(child);
    let said = || std::fs::read_to_string(file("log")).unwrap();
    let status = within(DEADLINE, name, || followed.0.try_wait().unwrap().ok_or_else(said));
    assert!(status.success(), "{name}:\n{}", said());
}

#[test]
fn put_it_in_front_of_a_flask_api() {
    follow("flask.md");
}

#[test]
fn put_it_in_front_of_a_django_api() {
    follow("django.md");
}

#[test]
fn use_your_idp() {
    follow("use-your-idp.md");
}
