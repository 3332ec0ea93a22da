//! What two files may come to where they are served: a comparison reads both in its own environment, in which a variable can
//! have the very value that it takes the place of, or that takes its place.

use std::collections::{BTreeMap, HashMap};

use super::fact::{Change, on_one_line};
use crate::config::snapshot::{Gives, Snapshot, Variable, Variables};

/// Each value that comes from variables as it did not before, or did and does no longer, or from one of which `.env` says
/// something else where the environment of the comparison hides that. What routes ask for is compared by names.
pub(super) fn changes(old: &Snapshot, new: &Snapshot) -> Vec<Change> {
    let (old, new) = (&old.variables, &new.variables);
    let [mut gone, mut fresh] = unlike([old, new]);
    // what is called otherwise is the same; but of a route, that is its path
    fresh.retain(|variable| {
        let renamed = |other: &&Variable| {
            is_new(other, new) && (&other.kind, written(other)) == (&variable.kind, written(variable))
        };
        let before = gone.iter().position(renamed).filter(|_| !variable.is_of_route && is_new(variable, old));
        before.map(|index| gone.remove(index)).is_none()
    });
    let come = fresh.iter().map(|variable| {
        let text = format!(
            "{}: comes from {} now, which may be another where it is served",
            variable.key,
            references(&variable.names)
        );
        Change { text: on_one_line(&text), widens: variable.gives == Gives::FromAVariable }
    });
    let told =
        |variable: &Variable| fresh.iter().any(|other| (&other.key, &other.item) == (&variable.key, &variable.item));
    // what becomes of the requests of a route that is gone is not known; of other items it is that they are gone
    let left = gone.iter().filter(|variable| !told(variable) && (variable.is_of_route || !is_new(variable, new)));
    let went = left.map(|variable| {
        let text = format!(
            "{}: came from {} before, which may be another where it is served",
            variable.key,
            references(&variable.names)
        );
        Change { text: on_one_line(&text), widens: variable.gives != Gives::Nothing }
    });
    come.chain(went).chain(hidden(old, new)).collect()
}

/// What each side has and the other has not.
fn unlike<'v>(sides: [&'v Variables; 2]) -> [Vec<&'v Variable>; 2] {
    let identity = |variable: &'v Variable| (&variable.kind, &variable.item, written(variable));
    let each =
        |side: &'v Variables| side.each.iter().filter(|variable| !variable.is_name && !variable.names.is_empty());
    let counts = sides.map(|side| {
        let mut counts = HashMap::new();
        each(side).for_each(|variable| *counts.entry(identity(variable)).or_insert(0_usize) += 1);
        counts
    });
    let [of_old, of_new] = counts;
    let beyond = |side: &'v Variables, mut other: HashMap<_, usize>| {
        let is_beyond = |variable: &&'v Variable| match other.get_mut(&identity(variable)) {
            Some(count) if *count > 0 => {
                *count -= 1;
                false
            }
            Some(_) | None => true,
        };
        each(side).filter(is_beyond).collect::<Vec<_>>()
    };
    [beyond(sides[0], of_new), beyond(sides[1], of_old)]
}

/// Whether its item has no counterpart among those of the other side.
fn is_new(variable: &Variable, others: &Variables) -> bool {
    variable.item.as_ref().is_some_and(|item| !others.items.contains(item))
}

fn written(variable: &Variable) -> &str {
    variable.written.expose()
}

/// Where `.env` says something else of a variable, and the environment here hides it.
fn hidden(old: &Variables, new: &Variables) -> Vec<Change> {
    let said = |variables: &'_ Variables| -> BTreeMap<String, Option<String>> {
        let each = variables.each.iter();
        each.flat_map(|variable| variable.names.iter().cloned().zip(variable.overruled.expose().iter().cloned()))
            .collect()
    };
    let (before, now) = (said(old), said(new));
    let differs = |name: &&String| before.get(*name).is_some_and(|before| now.get(*name) != Some(before));
    let told = new.each.iter().filter_map(|variable| {
        let differ: Vec<String> = variable.names.iter().filter(differs).cloned().collect();
        let text = format!(
            "{}: `.env` says something else of {} now, which is hidden by the environment here",
            variable.key,
            references(&differ)
        );
        (!differ.is_empty()).then(|| Change { text: on_one_line(&text), widens: variable.gives != Gives::Nothing })
    });
    told.collect()
}

fn references(names: &[String]) -> String {
    names.iter().map(|name| format!("${{{name}}}")).collect::<Vec<_>>().join(" and ")
}
