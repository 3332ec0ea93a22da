//! `portcullis test FILE`: the rules' own tests, each that fails with what the rules do instead, and why.

use std::path::Path;
use std::process::ExitCode;

use super::BROKEN;
use crate::config::{self, Environment};
use crate::decision::expectations;

/// Runs all expectations: 0 where all are met, 1 where one is not, 2 where the file is broken.
#[expect(clippy::print_stdout, clippy::print_stderr, reason = "this is a command")]
pub fn test(path: &Path, coverage: bool) -> ExitCode {
    let snapshot = match config::load(path, &Environment::of_process()) {
        Ok(snapshot) => snapshot,
        Err(problems) => {
            eprint!("{problems}");
            return ExitCode::from(BROKEN);
        }
    };
    let failed = expectations::problems(&snapshot, &path.display().to_string());
    print!("{failed}");
    let (all, failing) = (snapshot.expect.len(), failed.count());
    println!("{}: {} of {all} expectations met", path.display(), all - failing);
    if coverage {
        let untouched = expectations::untouched(&snapshot);
        let routes = snapshot.routes.routes().len();
        println!("{} of {routes} routes are touched by an expectation", routes - untouched.len());
        for route in untouched {
            println!("    {} (line {})", route.name, route.line);
        }
    }
    if failing == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
