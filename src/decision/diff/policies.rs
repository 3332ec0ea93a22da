//! What a path can hold that `paths` says something of, and where two files do not say the same.

use super::facts;
use crate::config::snapshot::Snapshot;

/// What a path can hold that `paths` says something of, in the order of [`facts::of_paths`]. The last is no mark within a
/// segment.
pub(super) const MARKS: [&[&str]; 4] = [&["%2F"], &["%3F", "%23"], &[";", "%3B"], &["//"]];

/// Where the two files do not treat ambiguous paths alike.
pub(super) struct Policies {
    /// What the paths hold, and what changes for them.
    differing: Vec<(&'static [&'static str], String)>,
    /// The marks among them that stand within a segment.
    within: Vec<&'static [&'static str]>,
}

impl Policies {
    pub(super) fn of(old: &Snapshot, new: &Snapshot) -> Self {
        let both = facts::of_paths(old.paths).into_iter().zip(facts::of_paths(new.paths)).zip(MARKS);
        let differing = both.filter(|((old, new), _)| old != new);
        let differing: Vec<_> =
            differing.map(|(((key, old), (_, new)), marks)| (marks, format!("{key}: {old} -> {new}"))).collect();
        let within = differing.iter().map(|(marks, _)| *marks).filter(|marks| !marks.contains(&"//")).collect();
        Self { differing, within }
    }

    /// The marks within segments of which the two files do not think alike.
    pub(super) fn groups(&self) -> &[&'static [&'static str]] {
        &self.within
    }

    /// All that the paths of one kind may hold of what the files do not treat alike, one bit each.
    pub(super) fn kinds(&self) -> std::ops::Range<u8> {
        0..1 << self.differing.len()
    }

    /// What of it a path holds within its segments.
    pub(super) fn within(&self, marks: u8) -> u8 {
        marks & ((1 << self.within.len()) - 1)
    }

    /// A canonical path, in a spelling that holds the rest of it as well.
    pub(super) fn spelled(&self, path: &str, marks: u8) -> String {
        if self.within(marks) == marks { path.to_owned() } else { format!("/{path}") }
    }

    pub(super) fn held(&self, marks: u8) -> impl Iterator<Item = &(&'static [&'static str], String)> {
        self.differing.iter().enumerate().filter(move |(bit, _)| marks & 1 << bit != 0).map(|(_, held)| held)
    }
}
