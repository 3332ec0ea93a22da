//! Databases on the real servers that `tests/databases.sh` starts.

use std::process::Command;

/// A new database on the server of this variable, called by `purpose`; `None`, and word of it, where tests are run without.
pub fn database(variable: &str, purpose: &str) -> Option<String> {
    let Ok(url) = std::env::var(variable) else {
        let required = ["CI", "PORTCULLIS_TEST_DATABASES"].iter().any(|name| std::env::var_os(name).is_some());
        assert!(!required, "{variable} is not set: run this by tests/databases.sh");
        eprintln!("{variable} is not set: only SQLite was tested (see tests/databases.sh)");
        return None;
    };
    let (server, _) = url.rsplit_once('/').unwrap();
    let name = format!("{purpose}_{}", std::process::id());
    let statement = format!("CREATE DATABASE {name}");
    let mut command = if url.starts_with("postgres") {
        let mut command = Command::new("psql");
        command.args([&*url, "-qc", &*statement]);
        command
    } else {
        let (_, address) = server.rsplit_once('@').unwrap();
        let (host, port) = address.split_once(':').unwrap();
        let mut command = Command::new("mariadb");
        command.args(["--no-defaults", "--protocol=tcp", "-u", "root", "-h", host, "-P", port, "-e", &*statement]);
        command
    };
    assert!(command.status().unwrap().success());
    Some(format!("{server}/{name}"))
}
