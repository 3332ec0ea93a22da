//! `portcullis test FILE`: the rules' own tests, each that fails with what the rules do instead, and why.

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

use super::output::{complain, print};
use super::{BROKEN, load};
use crate::config::Snapshot;
use crate::decision::expectations;

/// Runs all expectations: 0 where all are met, 1 where one is not, 2 where the file is broken.
pub fn test(path: &Path, coverage: bool) -> ExitCode {
    let Some(snapshot) = load(path) else { return ExitCode::from(BROKEN) };
    let failed = expectations::problems(&snapshot, &path.display().to_string());
    let (all, failing) = (snapshot.expect.len(), failed.count());
    let mut text = format!("{failed}{}: {} of {all} expectations met\n", path.display(), all - failing);
    if coverage {
        text.push_str(&covered(&snapshot));
    }
    if let Err(error) = print(&text) {
        complain(&format!("portcullis: {error}\n"));
        return ExitCode::from(BROKEN);
    }
    if failing == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn covered(snapshot: &Snapshot) -> String {
    let untouched = expectations::untouched(snapshot);
    let routes = snapshot.routes.routes().len();
    let mut text = format!("{} of {routes} routes are touched by an expectation", routes - untouched.len());
    text.push_str(if untouched.is_empty() { "\n" } else { "; these are not:\n" });
    for route in untouched {
        // writing to a text cannot fail
        writeln!(text, "    {} (line {})", route.name, route.line).ok();
    }
    text
}
