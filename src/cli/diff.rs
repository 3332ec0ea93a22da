//! `portcullis diff OLD NEW`: who gains and who loses, by what the rules mean.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use serde_json::Value;

use super::BROKEN;
use crate::config::snapshot::Snapshot;
use crate::config::{self, Environment};
use crate::decision::diff::{Printed, Row, diff as compare};

/// `portcullis diff …`
#[derive(Debug, Args)]
pub struct DiffArguments {
    /// The rules as they are
    old: PathBuf,
    /// The rules as they would be
    new: PathBuf,
    /// Answer 1 where anybody gains
    #[arg(long)]
    fail_on_widening: bool,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Prints what differs, and nothing where nothing does: 0; 1 where somebody gains and that was asked for; 2 where a file is
/// broken.
#[expect(clippy::print_stdout, clippy::print_stderr, reason = "this is a command")]
pub fn diff(arguments: &DiffArguments) -> ExitCode {
    let (Some(old), Some(new)) = (load(&arguments.old), load(&arguments.new)) else {
        return ExitCode::from(BROKEN);
    };
    let rows = match compare(&old, &new) {
        Ok(rows) => rows,
        Err(error) => {
            eprintln!("portcullis: {error}");
            return ExitCode::from(BROKEN);
        }
    };
    if arguments.json {
        println!("{:#}", rows.iter().map(Row::json).collect::<Value>());
    } else {
        print!("{}", Printed(&rows));
    }
    if arguments.fail_on_widening && rows.iter().any(|row| !row.gains.is_empty()) {
        eprintln!(
            "portcullis: {} lets somebody pass whom {} does not",
            arguments.new.display(),
            arguments.old.display()
        );
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

#[expect(clippy::print_stderr, reason = "this is a command")]
fn load(path: &Path) -> Option<Snapshot> {
    config::load(path, &Environment::of_process()).map_err(|problems| eprint!("{problems}")).ok()
}
