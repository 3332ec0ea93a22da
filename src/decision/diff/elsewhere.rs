//! What two files may come to where they are served: a comparison reads both in its own environment, in which a variable can
//! have the very value that it takes the place of.

use std::collections::BTreeSet;

use super::fact::{Change, on_one_line};
use crate::config::snapshot::{Snapshot, Variable};

/// Each value that comes from variables as it did not before.
pub(super) fn changes(old: &Snapshot, new: &Snapshot) -> Vec<Change> {
    let identity = |variable: &Variable| (variable.key.clone(), variable.references.expose().clone());
    let mut known: BTreeSet<_> = old.variables.iter().map(identity).collect();
    let fresh = new.variables.iter().filter(|variable| !variable.names.is_empty() && known.insert(identity(variable)));
    let told = fresh.map(|Variable { key, names, gives, .. }| {
        let names: Vec<String> = names.iter().map(|name| format!("${{{name}}}")).collect();
        let text = format!("{key}: comes from {} now, which may be another where it is served", names.join(" and "));
        Change { text: on_one_line(&text), widens: *gives }
    });
    told.collect()
}
