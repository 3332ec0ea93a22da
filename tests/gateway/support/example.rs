//! The examples, started as anybody would start them.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use serde_json::Value;
use tempfile::NamedTempFile;

use super::client::{Connection, Request, Response};
use super::gateway::project;
use super::outside::python;
use super::wait::eventually;

/// The cases of `tests/data/cases.json`, and where they are.
pub fn cases() -> (PathBuf, Value) {
    let path = project().join("tests/data/cases.json");
    let cases = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    (path, cases)
}

/// `examples/start` as it runs.
pub struct Started {
    child: Child,
    pub address: SocketAddr,
    _told: NamedTempFile,
}

impl Started {
    pub fn new(system: &str, upstream: &str, cases: &Path) -> Self {
        Self::in_folder(system, upstream, cases, None)
    }

    /// The same with another folder for what is temporary.
    pub fn in_folder(system: &str, upstream: &str, cases: &Path, temporary: Option<&Path>) -> Self {
        let command = || {
            let mut command = Command::new(project().join("examples/start"));
            command.envs(temporary.map(|folder| ("TMPDIR", folder)));
            command
        };
        Self::by(command, system, upstream, cases)
    }

    /// The same with the system's tables in an empty database of a server, and its file in `place`.
    pub fn on_server(system: &str, upstream: &str, cases: &Path, (database, place): (&str, &Path)) -> Self {
        let command = || {
            let mut command = python();
            command.arg("-c").arg(include_str!("../libraries/example_on_server.py"));
            command.env("START", project().join("examples/start")).env("TABLES", project().join("tests/data/tables"));
            command.env("DATABASE", database).env("PLACE", place);
            command
        };
        Self::by(command, system, upstream, cases)
    }

    fn by(command: impl Fn() -> Command, system: &str, upstream: &str, cases: &Path) -> Self {
        // somebody else may take the port before the gateway does
        for _ in 0..5 {
            let told = NamedTempFile::new().unwrap();
            let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
            let mut child = command()
                .args([system, "--port", &address.port().to_string(), "--upstream", upstream, "--cases"])
                .arg(cases)
                .env("PORTCULLIS", env!("CARGO_BIN_EXE_portcullis"))
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(told.reopen().unwrap())
                .spawn()
                .unwrap();
            let ended = eventually("the example serves or ends", || {
                if std::net::TcpStream::connect(address).is_ok() {
                    return Ok(None);
                }
                child.try_wait().unwrap().map(Some).ok_or("neither")
            });
            let Some(status) = ended else { return Self { child, address, _told: told } };
            let told = std::fs::read_to_string(told.path()).unwrap();
            assert!(told.contains("in use"), "{status}: {told}");
        }
        panic!("no port was free long enough");
    }

    pub fn send(&self, request: &Request) -> Response {
        Connection::plain(self.address).send(request)
    }

    /// Sends a signal by its name, such as `TERM`.
    pub fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &id]).status().unwrap().success());
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        eventually("it ends", || self.child.try_wait().unwrap().ok_or("it goes on"))
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        // it may have ended already
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
