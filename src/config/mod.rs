//! Text to snapshot: tree (places) to model (types, defaults) to compile (names, files, keys).
//!
//! Each step reports all its problems, each at its place, and goes on; a snapshot exists only if there were none.

pub mod source;
pub mod tree;
pub mod listing;
pub mod report;
pub mod units;
pub mod methods;
pub mod decode;
pub mod model;
pub mod compile;
pub mod snapshot;
pub mod schema;
pub mod reach;
mod variables;
mod warnings;

use std::path::Path;

use listing::Listing;
use report::{Place, Report};

pub use report::Problems;
pub use snapshot::Snapshot;
pub use source::Environment;

/// Reads the configuration in `path`, with `.env` beside it.
///
/// # Errors
/// Everything that is wrong with it.
pub fn load(path: &Path, environment: &Environment) -> Result<Snapshot, Problems> {
    let (name, text) = read(path)?;
    load_text(&text, path.parent().unwrap_or_else(|| Path::new("")), &name, environment)
}

/// As [`load`], for a comparison of what routes ask for: roles and scopes that come from variables have the names of those.
///
/// # Errors
/// Everything that is wrong with it.
pub fn load_by_name(path: &Path, environment: &Environment) -> Result<Snapshot, Problems> {
    let (name, text) = read(path)?;
    load_text_by_name(&text, path.parent().unwrap_or_else(|| Path::new("")), &name, environment)
}

/// Reads the configuration in `path`, and says what of it is probably a mistake (contract 7).
///
/// # Errors
/// Everything that is wrong with it.
pub fn check(path: &Path, environment: &Environment) -> Result<(Snapshot, Problems), Problems> {
    let (name, text) = read(path)?;
    check_text(&text, path.parent().unwrap_or_else(|| Path::new("")), &name, environment)
}

fn read(path: &Path) -> Result<(String, String), Problems> {
    let name = path.display().to_string();
    let bytes = source::read(path, source::FILE_BYTES_MAX)
        .map_err(|error| Problems::unreadable(&name, &format!("cannot be read: {error}")))?;
    match String::from_utf8(bytes) {
        Ok(text) => Ok((name, text)),
        Err(error) => {
            let valid = error.utf8_error().valid_up_to();
            Err(not_utf8(&name, error.as_bytes(), valid))
        }
    }
}

/// Reads the configuration in `text`, called `file_name` in messages; relative paths and `.env` are below `directory`.
///
/// # Errors
/// Everything that is wrong with it.
pub fn load_text(
    text: &str,
    directory: &Path,
    file_name: &str,
    environment: &Environment,
) -> Result<Snapshot, Problems> {
    understand(text, directory, file_name, environment, |_| ()).map(|understood| understood.snapshot)
}

/// As [`load_by_name`], of a text.
///
/// # Errors
/// Everything that is wrong with it.
pub fn load_text_by_name(
    text: &str,
    directory: &Path,
    file_name: &str,
    environment: &Environment,
) -> Result<Snapshot, Problems> {
    understand(text, directory, file_name, environment, variables::name).map(|understood| understood.snapshot)
}

/// As [`load_text`], with what is probably a mistake.
///
/// # Errors
/// Everything that is wrong with it.
pub fn check_text(
    text: &str,
    directory: &Path,
    file_name: &str,
    environment: &Environment,
) -> Result<(Snapshot, Problems), Problems> {
    let Understood { snapshot, root, places, text } = understand(text, directory, file_name, environment, |_| ())?;
    let mut report = Report::default();
    warnings::of_file(&root, &snapshot, &mut report);
    warnings::of_rules(&snapshot, &places, &mut report);
    let warnings = report.into_warnings(file_name, &Listing::of_tree(text, &root));
    Ok((snapshot, warnings))
}

/// A file without problems, and where its parts stand.
struct Understood<'t> {
    snapshot: Snapshot,
    root: tree::Node,
    places: warnings::Places,
    text: &'t str,
}

fn understand<'t>(
    text: &'t str,
    directory: &Path,
    file_name: &str,
    environment: &Environment,
    prepare: impl FnOnce(&mut tree::Node),
) -> Result<Understood<'t>, Problems> {
    let mut report = Report::default();
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let Some(mut root) = tree::parse(text, &mut report) else {
        return Err(report.into_problems(file_name, &Listing::of_broken(text)));
    };
    let (environment, has_dotenv) = source::with_dotenv(environment, directory, &mut report);
    source::expand(&mut root, &environment, text, &mut report);
    prepare(&mut root);
    let model = model::read(&root, &mut report);
    let mut files = compile::Files::below(directory);
    if has_dotenv {
        files.note(directory.join(".env"));
    }
    let places = warnings::Places::of(&model);
    match compile::compile(model, &mut files, &mut report) {
        Some(mut snapshot) if report.is_empty() => {
            snapshot.variables = variables::of(&root, &environment);
            Ok(Understood { snapshot, root, places, text })
        }
        Some(_) | None => Err(report.into_problems(file_name, &Listing::of_tree(text, &root)).naming(files.list())),
    }
}

fn not_utf8(name: &str, bytes: &[u8], valid: usize) -> Problems {
    let shown = String::from_utf8_lossy(bytes);
    let valid = bytes.get(..valid).unwrap_or_default();
    let line = memchr::memchr_iter(b'\n', valid).count() + 1;
    let last = valid.rsplit(|&byte| byte == b'\n').next().unwrap_or_default();
    let column = String::from_utf8_lossy(last).chars().count() + 1;
    let mut report = Report::default();
    report.add_with_hint(Place { line, column }, "a byte here is not UTF-8", "save the file as UTF-8");
    report.into_problems(name, &Listing::of_broken(&shown))
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod mistakes;
