//! `portcullis diff OLD NEW`: who gains and who loses, by what the rules mean, and what else changes.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde::Serializer as _;

use super::output::{complain, print_by};
use super::{BROKEN, load, read};
use crate::config::{self, Environment, Snapshot};
use crate::decision::diff::{Printed, Row, beyond, diff as compare};

/// `portcullis diff …`
#[derive(Debug, Args)]
pub struct DiffArguments {
    /// The rules as they are
    old: PathBuf,
    /// The rules as they would be
    new: PathBuf,
    /// Answer 1 where anybody gains: wherever the text has a `+`
    #[arg(long)]
    fail_on_widening: bool,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Prints what differs, and nothing where nothing does: 0; 1 where somebody gains by it and that was asked for; 2 where a file
/// is broken.
pub fn diff(arguments: &DiffArguments) -> ExitCode {
    let (Some(old), Some(new)) = (load(&arguments.old), load(&arguments.new)) else {
        return ExitCode::from(BROKEN);
    };
    let asks_by_name = |snapshot: &Snapshot| snapshot.variables.each.iter().any(|variable| variable.is_name);
    let by_name = if asks_by_name(&old) || asks_by_name(&new) {
        let read = |file| read(config::load_by_name(file, &Environment::of_process()));
        let (Some(old), Some(new)) = (read(&arguments.old), read(&arguments.new)) else {
            return ExitCode::from(BROKEN);
        };
        Some((old, new))
    } else {
        None
    };
    let compared = compare(&old, &new).and_then(|mut rows| {
        if let Some((old, new)) = &by_name {
            rows.extend(beyond(&rows, old, new)?);
        }
        Ok(rows)
    });
    let rows = match compared {
        Ok(rows) => rows,
        Err(error) => {
            complain(&format!("portcullis: {error}\n"));
            return ExitCode::from(BROKEN);
        }
    };
    let printed = print_by(|output| {
        if !arguments.json {
            return write!(output, "{}", Printed(&rows));
        }
        // one row may name all roles of a large file
        serde_json::Serializer::pretty(&mut *output).collect_seq(rows.iter().map(Row::json))?;
        writeln!(output)
    });
    if let Err(error) = printed {
        complain(&format!("portcullis: {error}\n"));
        return ExitCode::from(BROKEN);
    }
    if arguments.fail_on_widening && rows.iter().any(Row::widens) {
        let (old, new) = (arguments.old.display(), arguments.new.display());
        complain(&format!("portcullis: {new} gives somebody what {old} does not: see the lines with a `+`\n"));
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
