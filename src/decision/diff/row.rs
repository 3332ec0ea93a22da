//! One difference, and how it is said: for people, for tools, and in the log of a reload.

use std::collections::HashMap;
use std::fmt::{self, Write as _};

use serde_json::{Value, json};

use super::fact::Change;
use super::names::Names;
use super::people::People;

/// Exceptions of one row that are printed; JSON has them all.
const EXCEPTIONS_PRINTED_MAX: usize = 8;

/// A difference. What it says is so for every request that it is about, and no two rows say different things of one request,
/// but for the row of what holds for all requests alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The pattern of its paths.
    pub path: String,
    /// Patterns below it for whose paths it does not hold.
    pub except: Vec<String>,
    /// Marks such as `;` that its paths hold, which the two files do not treat alike. Those of a row without them hold none
    /// of these.
    pub holding: Vec<String>,
    /// For which hosts.
    pub hosts: Names,
    /// For which methods.
    pub methods: Names,
    /// Who is let through by the new rules and was not by the old: roles, `@anyone`, `@authenticated`.
    pub gains: People,
    /// Who was and is not any more.
    pub loses: People,
    /// What else changes, by the keys and values of the file.
    pub changes: Vec<Change>,
}

impl Row {
    /// Whether somebody gains, or has something by a change that he had not.
    pub fn widens(&self) -> bool {
        !self.gains.is_empty() || self.widening().next().is_some()
    }

    /// The changes by which somebody has something that he had not.
    pub fn widening(&self) -> impl Iterator<Item = &Change> {
        self.changes.iter().filter(|change| change.widens)
    }

    /// For tools, with the members of contract 7, and `except`, `holding` and `widens` where there are any.
    pub fn json(&self) -> Value {
        let texts = |changes: Vec<&Change>| changes.iter().map(|change| &*change.text).collect::<Value>();
        let mut row = json!({
            "path": self.path,
            "hosts": self.hosts.list(),
            "methods": self.methods.list(),
            "gains": self.gains.names().collect::<Value>(),
            "loses": self.loses.names().collect::<Value>(),
            "changes": texts(self.changes.iter().collect()),
        });
        let mut add = |name: &str, list: Value| {
            if let (Some(row), Some(false)) = (row.as_object_mut(), list.as_array().map(Vec::is_empty)) {
                row.insert(name.to_owned(), list);
            }
        };
        add("except", self.except.clone().into());
        add("holding", self.holding.clone().into());
        add("widens", texts(self.widening().collect()));
        row
    }

    /// Where it applies, in one line.
    pub fn place(&self) -> String {
        let mut place = format!("{} {}", self.path, self.methods.words("every method"));
        if self.hosts != Names::all() {
            place.push_str(" on ");
            place.push_str(&self.hosts.words("every host"));
        }
        if !self.holding.is_empty() {
            place.push_str(", where the path has ");
            place.push_str(&self.holding.join(" and "));
        }
        let (shown, further) = self.except.split_at(self.except.len().min(EXCEPTIONS_PRINTED_MAX));
        if !shown.is_empty() {
            place.push_str(", except ");
            place.push_str(&shown.join(", "));
        }
        if !further.is_empty() {
            // writing to a text cannot fail
            write!(place, " and {} more", further.len()).ok();
        }
        place
    }

    /// What it is, each in one line; `+` for all by which somebody has more than before.
    pub fn effect(&self) -> Vec<String> {
        let people = |sign: char, some: &People| (!some.is_empty()).then(|| format!("{sign} {}", some.words()));
        let (gains, loses) = (people('+', &self.gains), people('-', &self.loses));
        let sign = |change: &Change| if change.widens { '+' } else { '~' };
        let changes = self.changes.iter().map(|change| format!("{} {}", sign(change), change.text));
        gains.into_iter().chain(loses).chain(changes).collect()
    }
}

/// All rows for people; those of the same effect stand together.
#[derive(Debug)]
pub struct Printed<'r>(pub &'r [Row]);

impl fmt::Display for Printed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut groups: Vec<(Vec<String>, Vec<String>)> = Vec::new();
        let mut known: HashMap<Vec<String>, usize> = HashMap::new();
        for row in self.0 {
            let next = groups.len();
            let index = *known.entry(row.effect()).or_insert(next);
            match groups.get_mut(index) {
                Some((_, places)) => places.push(row.place()),
                None => groups.push((row.effect(), vec![row.place()])),
            }
        }
        for (effect, places) in groups {
            places.iter().try_for_each(|place| writeln!(f, "{place}"))?;
            effect.iter().try_for_each(|line| writeln!(f, "    {line}"))?;
        }
        Ok(())
    }
}
