//! What changes between two configurations, by what their rules mean: who gains, who loses, what else.
//!
//! Exact, not sampled: both are asked, by the function that serves requests, about a request of every kind for which a rule
//! of one and a rule of the other can decide together ([`regions`]). What differs is then said by patterns, each for exactly
//! the requests for which it is so.
//!
//! [`regions`]: crate::route::regions

mod effort;
mod fact;
mod meaning;
mod facts;
mod accounts;
mod whole;
mod elsewhere;
mod names;
mod people;
mod policies;
mod sides;
mod judge;
mod survey;
mod cover;
mod row;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod agreement;
#[cfg(test)]
mod every_key;

use std::collections::BTreeSet;

use self::cover::cover;
use self::effort::{Bounds, Effort};
use self::policies::Policies;
use self::sides::Side;
use self::survey::Survey;
use crate::config::snapshot::Snapshot;
use crate::route::regions::Regions;

pub use effort::TooMuch;
pub use fact::{Change, joined};
pub use names::Names;
pub use people::People;
pub use row::{Printed, Row};

/// All that differs, what lets more people through first; last, what no rule is about.
///
/// # Errors
/// More differs than can be compared in reasonable time and memory.
pub fn diff(old: &Snapshot, new: &Snapshot) -> Result<Vec<Row>, TooMuch> {
    let mut rows = by_rule(old, new, &Effort::within(Bounds::COMMAND))?;
    let mut changes = of_all_requests(old, new);
    changes.extend(beside(old, new));
    changes.extend(elsewhere::changes(old, new));
    changes.extend(fact::changes(&whole::of_start(old), &whole::of_start(new)));
    rows.extend(everywhere(changes));
    Ok(rows)
}

/// What differs for requests, within what a process may take that serves meanwhile.
///
/// # Errors
/// As [`diff`], but sooner.
pub fn for_requests(old: &Snapshot, new: &Snapshot) -> Result<Vec<Row>, TooMuch> {
    let mut rows = by_rule(old, new, &Effort::within(Bounds::RELOAD))?;
    rows.extend(everywhere(of_all_requests(old, new)));
    Ok(rows)
}

/// What the rules of two files that were [read by name](crate::config::load_by_name) mean, beyond what is `known` of them by
/// value: a role that comes from a variable is the one that it has here, and elsewhere another.
///
/// # Errors
/// As [`diff`].
pub fn beyond(known: &[Row], old: &Snapshot, new: &Snapshot) -> Result<Vec<Row>, TooMuch> {
    let known: BTreeSet<String> = known.iter().map(|row| Printed(std::slice::from_ref(row)).to_string()).collect();
    let mut rows = by_rule(old, new, &Effort::within(Bounds::COMMAND))?;
    rows.retain(|row| !known.contains(&Printed(std::slice::from_ref(row)).to_string()));
    Ok(rows)
}

/// What the process does otherwise beside answering requests: where it listens, what is logged, what it expects of rules.
pub fn beside(old: &Snapshot, new: &Snapshot) -> Vec<Change> {
    fact::changes(&whole::of_process(old), &whole::of_process(new))
}

fn of_all_requests(old: &Snapshot, new: &Snapshot) -> Vec<Change> {
    fact::changes(&whole::of_requests(old), &whole::of_requests(new))
}

/// The row of what holds for all requests alike, or for none of them.
fn everywhere(changes: Vec<Change>) -> Option<Row> {
    (!changes.is_empty()).then(|| Row {
        path: "/**".to_owned(),
        except: Vec::new(),
        holding: Vec::new(),
        hosts: Names::all(),
        methods: Names::all(),
        gains: People::none(),
        loses: People::none(),
        changes,
    })
}

fn by_rule(old: &Snapshot, new: &Snapshot, effort: &Effort) -> Result<Vec<Row>, TooMuch> {
    let sides = Side::both(old, new, effort)?;
    let regions = Regions::new(sides.each_ref().map(Side::rules));
    let policies = Policies::of(old, new);
    let mut survey = Survey::of(&sides, &regions, &policies, effort);
    let spots = survey.spots()?;
    let statements = cover(spots, effort, |spot, block| survey.against(spot, block))?;
    let rows = statements.into_iter().map(|statement| survey.judge.row(statement, &policies));
    let mut rows: Vec<Row> = rows.filter_map(Result::transpose).collect::<Result<_, _>>()?;
    let widens_least = |row: &Row| (row.gains.is_empty(), !row.widens(), row.loses.is_empty(), row.path.clone());
    rows.sort_by_cached_key(widens_least);
    Ok(rows)
}
