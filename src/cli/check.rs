//! `portcullis check FILE`: everything that is wrong with a configuration, in one run.

use std::path::Path;
use std::process::ExitCode;

use crate::config::{self, Environment, Snapshot};

/// There is no file to judge.
const USAGE: u8 = 2;

/// Prints all problems to standard error and answers 1, or that there are none to standard output and 0; 2 where the
/// file cannot be read at all.
#[expect(clippy::print_stdout, clippy::print_stderr, reason = "this is a command")]
pub fn check(path: &Path) -> ExitCode {
    match config::load(path, &Environment::of_process()) {
        Ok(snapshot) => {
            println!("{}", summary(path, &snapshot));
            ExitCode::SUCCESS
        }
        Err(problems) => {
            eprint!("{problems}");
            if problems.is_unreadable() { ExitCode::from(USAGE) } else { ExitCode::FAILURE }
        }
    }
}

fn summary(path: &Path, snapshot: &Snapshot) -> String {
    let count = |number: usize, what: &str| format!("{number} {what}{}", if number == 1 { "" } else { "s" });
    let routes = count(snapshot.routes.routes().len(), "route");
    let upstreams = count(snapshot.upstreams.len(), "upstream");
    format!("{}: ok ({routes}, {upstreams})", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_good_is_counted() {
        let text = "upstreams: { a: { builtin: echo } }\nroutes:\n  - { path: /a, allow: anyone, to: a }\n  \
                    - { path: /b, allow: anyone, to: a }\n";
        let snapshot = config::load_text(text, Path::new("."), "a.yaml", &Environment::default())
            .unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(summary(Path::new("a.yaml"), &snapshot), "a.yaml: ok (2 routes, 1 upstream)");
    }
}
