//! What two files may come to where they are served: a comparison reads both in its own environment, in which a variable can
//! have the very value that it takes the place of.

use std::collections::BTreeMap;

use super::fact::{Change, on_one_line};
use crate::config::snapshot::{Snapshot, Variable};

/// Each value that comes from variables as it did not before, or from a variable of which `.env` says something else where the
/// environment of the comparison hides that.
pub(super) fn changes(old: &Snapshot, new: &Snapshot) -> Vec<Change> {
    let identity = |variable: &Variable| (variable.key.clone(), variable.references.expose().clone());
    let mut known: BTreeMap<_, _> = old.variables.iter().map(|variable| (identity(variable), variable)).collect();
    let from_variables = new.variables.iter().filter(|variable| !variable.names.is_empty());
    let told = from_variables.filter_map(|variable| {
        let Variable { key, names, .. } = variable;
        let (text, widens) = match known.insert(identity(variable), variable) {
            None => {
                let from = references(names.iter());
                (format!("{key}: comes from {from} now, which may be another where it is served"), variable.gives)
            }
            Some(before) => {
                let said = variable.overruled.expose().iter().zip(before.overruled.expose());
                let differ = names.iter().zip(said).filter(|(_, (now, before))| now != before);
                let differ = references(differ.map(|(name, _)| name));
                if differ.is_empty() {
                    return None;
                }
                let text = format!(
                    "{key}: `.env` says something else of {differ} now, which is hidden by the environment here"
                );
                (text, variable.gives_by_dotenv)
            }
        };
        Some(Change { text: on_one_line(&text), widens })
    });
    told.collect()
}

fn references<'n>(names: impl Iterator<Item = &'n String>) -> String {
    names.map(|name| format!("${{{name}}}")).collect::<Vec<_>>().join(" and ")
}
