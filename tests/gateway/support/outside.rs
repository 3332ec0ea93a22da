//! Programs that others wrote, as users would run them: curl, and Python's libraries.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::client::{Response, fields};
use super::gateway::project;

/// Runs curl; its response, with the version of HTTP that was spoken.
pub fn curl(arguments: &[&str]) -> (Response, String) {
    let output = Command::new("curl")
        .args(["--silent", "--show-error", "--include", "--max-time", "20", "--write-out", "\n%{http_version}"])
        .args(arguments)
        .output()
        .expect("curl is installed by tests/run.sh");
    assert!(output.status.success(), "curl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (text, version) = text.rsplit_once('\n').unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let (head, body) = if head.contains(" 100") { body.split_once("\r\n\r\n").unwrap() } else { (head, body) };
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let response = Response { status, headers: fields(lines), body: body.into(), ..Response::default() };
    (response, version.to_owned())
}

/// The interpreter of the tests' own environment.
pub fn python() -> Command {
    let path = std::env::var_os("PORTCULLIS_TEST_PYTHON")
        .map_or_else(|| project().join("target/test-venv/bin/python"), PathBuf::from);
    assert!(path.exists(), "no {}: it is made by tests/run.sh", path.display());
    let mut command = Command::new(path);
    command.env("PYTHONDONTWRITEBYTECODE", "1").stdin(Stdio::null());
    command
}

/// Runs a script with arguments; what it printed.
#[track_caller]
pub fn run_python(script: &str, arguments: &[&str]) -> String {
    let output = python().arg("-c").arg(script).args(arguments).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}
