//! Problems of a configuration: collected, each at its place, and printed for the person who wrote the file.
//!
//! No message holds the value of a secret, and the lines that are shown go through [`Listing`], which masks them.

use std::collections::HashSet;
use std::fmt;
use std::path::PathBuf;

use super::listing::Listing;

/// Problems that are printed; the others are only counted, so that a hostile file costs little.
const PROBLEMS_MAX: usize = 200;
/// Names longer than this are not compared with others.
const NAME_CHARS_MAX: usize = 64;
/// Known names are listed in a hint where there are no more of them.
const NAMES_LISTED_MAX: usize = 24;

/// A place in the file; both count from 1, columns in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

impl Place {
    /// Where the file begins.
    pub const START: Self = Self { line: 1, column: 1 };
}

/// Whether a file can be used as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// It cannot.
    Error,
    /// It can, but may not mean what was meant.
    Warning,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    place: Place,
    message: String,
    hint: Option<String>,
}

/// The problems found so far.
#[derive(Debug, Default)]
pub struct Report {
    found: Vec<Finding>,
    /// Values that are known to be wrong; what else would be said of them is noise.
    settled: HashSet<Place>,
    /// Values that came from the environment.
    expanded: HashSet<Place>,
    more: usize,
    elsewhere: Vec<String>,
    warnings: Vec<Finding>,
    warnings_more: usize,
}

impl Report {
    /// Something is wrong at `place`.
    pub fn add(&mut self, place: Place, message: impl Into<String>) {
        self.push(place, message.into(), None);
    }

    /// Something is wrong at `place`, and this is what was expected.
    pub fn add_with_hint(&mut self, place: Place, message: impl Into<String>, hint: impl Into<String>) {
        self.push(place, message.into(), Some(hint.into()));
    }

    /// What stands at `place` is no mistake by itself, but probably one.
    pub fn warn(&mut self, place: Place, message: impl Into<String>, hint: impl Into<String>) {
        if self.warnings.len() < PROBLEMS_MAX {
            self.warnings.push(Finding { place, message: message.into(), hint: Some(hint.into()) });
        } else {
            self.warnings_more += 1;
        }
    }

    /// A warning that is printed however many there are; whoever gives it bounds their number.
    pub fn warn_surely(&mut self, place: Place, message: impl Into<String>, hint: impl Into<String>) {
        self.warnings.push(Finding { place, message: message.into(), hint: Some(hint.into()) });
    }

    /// Nothing more is said of what begins at `place`.
    pub fn settle(&mut self, place: Place) {
        self.settled.insert(place);
    }

    /// Whether it is known to be wrong.
    pub fn is_settled(&self, place: Place) -> bool {
        self.settled.contains(&place)
    }

    /// What stands at `place` came from the environment, and is in no message.
    pub fn expanded_at(&mut self, place: Place) {
        self.expanded.insert(place);
    }

    /// Whether it did.
    pub fn is_expanded(&self, place: Place) -> bool {
        self.expanded.contains(&place)
    }

    /// Something is wrong with another file, such as `.env`.
    pub fn add_elsewhere(&mut self, message: String) {
        self.elsewhere.push(message);
    }

    /// `name` is not one of the `known` names; the nearest is suggested, or all where they are few.
    pub fn unknown<'n>(&mut self, place: Place, what: &str, name: &str, known: impl IntoIterator<Item = &'n str>) {
        self.misnamed(place, name, known, || format!("unknown {what} {}", quoted(name)));
    }

    /// The same for a key of the mapping `section`.
    pub fn unknown_key(&mut self, place: Place, section: &str, name: &str, known: &[&str]) {
        self.misnamed(place, name, known.iter().copied(), || format!("unknown key {} in {section}", quoted(name)));
    }

    fn misnamed<'n>(
        &mut self,
        place: Place,
        name: &str,
        known: impl IntoIterator<Item = &'n str>,
        message: impl FnOnce() -> String,
    ) {
        if self.found.len() >= PROBLEMS_MAX {
            self.more += 1; // without looking for a nearest name, which costs the more the longer the file is
            return;
        }
        let known: Vec<&str> = known.into_iter().collect();
        let hint = match nearest(name, &known) {
            Some(nearest) => Some(format!("did you mean `{nearest}`?")),
            None if known.is_empty() || known.len() > NAMES_LISTED_MAX => None,
            None => Some(format!("expected {}", alternatives(&known))),
        };
        self.push(place, message(), hint);
    }

    /// Whether there is no problem.
    pub fn is_empty(&self) -> bool {
        self.found.is_empty() && self.elsewhere.is_empty()
    }

    /// All problems in the order of the file, each once, with the lines where they are.
    pub fn into_problems(mut self, file: &str, listing: &Listing<'_>) -> Problems {
        self.found.sort();
        self.found.dedup(); // what stands behind an alias is read once for each use
        let placed = self.found.into_iter().map(|finding| Problem::of(finding, Severity::Error, file, listing));
        let elsewhere = self.elsewhere.into_iter().map(|message| Problem::whole(file, &message));
        Problems { all: elsewhere.chain(placed).collect(), more: self.more, unreadable: false, files: Vec::new() }
    }

    /// The warnings, in the same way.
    pub fn into_warnings(mut self, file: &str, listing: &Listing<'_>) -> Problems {
        self.warnings.sort();
        self.warnings.dedup();
        let all = self.warnings.into_iter().map(|finding| Problem::of(finding, Severity::Warning, file, listing));
        Problems { all: all.collect(), more: self.warnings_more, unreadable: false, files: Vec::new() }
    }

    fn push(&mut self, place: Place, message: String, hint: Option<String>) {
        if self.settled.contains(&place) {
            return;
        }
        if self.found.len() >= PROBLEMS_MAX {
            self.more += 1;
        } else {
            self.found.push(Finding { place, message, hint });
        }
    }
}

/// `a`, `b` or `c`, each in back quotes.
pub fn alternatives(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    match quoted.split_last() {
        None => String::new(),
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} or {last}", others.join(", ")),
    }
}

/// Whether a terminal or a log would not show this character but do something: a control character, the end of a line, or
/// one that turns the direction of writing, by which a text is read as another (CVE-2021-42574).
pub fn is_unseen(letter: char) -> bool {
    letter.is_control()
        || matches!(
            letter,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}'
        )
}

/// A text of the file inside a message: in back quotes, cut where it is long, without control characters.
pub fn quoted(text: &str) -> String {
    let mut shown: String =
        text.chars().take(NAME_CHARS_MAX).map(|c| if is_unseen(c) { '\u{fffd}' } else { c }).collect();
    if text.chars().nth(NAME_CHARS_MAX).is_some() {
        shown.push('…');
    }
    format!("`{shown}`")
}

/// A message as it is printed: whatever texts of the file are in it, it is one line and nothing is hidden in it.
fn seen(message: &str) -> String {
    message.chars().map(|letter| if is_unseen(letter) { '\u{fffd}' } else { letter }).collect()
}

/// The name that `name` was most likely meant to be: a third of its letters may differ, or one where it is short.
pub fn nearest<'n>(name: &str, known: &[&'n str]) -> Option<&'n str> {
    let name = name.to_lowercase();
    let length = name.chars().count();
    if length > NAME_CHARS_MAX {
        return None;
    }
    let allowed = (length / 3).max(1);
    known
        .iter()
        .filter(|candidate| candidate.chars().count().abs_diff(length) <= allowed)
        .map(|&candidate| (distance(&name, &candidate.to_lowercase()), candidate))
        .filter(|&(distance, _)| distance <= allowed)
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, candidate)| candidate)
}

/// How many letters to insert, delete, replace or swap (optimal string alignment).
pub fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    let mut previous = None;
    for (row, x) in a.chars().enumerate() {
        let mut line = Vec::with_capacity(b.len() + 1);
        line.push(row + 1);
        for (column, &y) in b.iter().enumerate() {
            let at = |cells: &[usize], index: usize| cells.get(index).copied().unwrap_or(usize::MAX - 1);
            let mut cost = (at(&above, column) + usize::from(x != y)).min(at(&above, column + 1) + 1);
            cost = cost.min(at(&line, column) + 1);
            let swapped = column.checked_sub(1).is_some_and(|left| previous == Some(y) && b.get(left) == Some(&x));
            if swapped {
                cost = cost.min(at(&before, column - 1) + 1);
            }
            line.push(cost);
        }
        before = std::mem::replace(&mut above, line);
        previous = Some(x);
    }
    above.last().copied().unwrap_or(0)
}

/// One problem, ready to print.
#[derive(Debug)]
pub struct Problem {
    /// The file.
    pub file: Box<str>,
    /// Where in it; `None` where it is about the file as a whole.
    pub place: Option<Place>,
    /// Whether the file can be used all the same.
    pub severity: Severity,
    /// What is wrong.
    pub message: String,
    /// What was expected.
    pub hint: Option<String>,
    /// The line, masked, and how many characters stand before the caret.
    line: Option<(String, usize)>,
}

impl Problem {
    /// An error that was found by trying the file; `detail` may have several lines.
    pub fn found(file: &str, place: Place, message: &str, detail: &str) -> Self {
        let lines: Vec<String> = detail.lines().map(seen).collect();
        Self { place: Some(place), hint: Some(lines.join("\n")), ..Self::whole(file, message) }
    }

    fn of(finding: Finding, severity: Severity, file: &str, listing: &Listing<'_>) -> Self {
        Self {
            file: file.into(),
            place: Some(finding.place),
            severity,
            message: seen(&finding.message),
            hint: finding.hint.filter(|hint| !hint.is_empty()).map(|hint| seen(&hint)),
            line: listing.show(finding.place),
        }
    }

    fn whole(file: &str, message: &str) -> Self {
        let message = seen(message);
        Self { file: file.into(), place: None, severity: Severity::Error, message, hint: None, line: None }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(Place { line, column }) = self.place {
            write!(f, ":{line}:{column}")?;
        }
        let kind = if self.severity == Severity::Warning { "warning: " } else { "" };
        writeln!(f, ": {kind}{}", self.message)?;
        let hint = self.hint.as_deref().unwrap_or_default();
        if let Some((line, before)) = &self.line {
            let pointer = format!("{:before$}^ {hint}", "");
            return writeln!(f, "    {line}\n    {}", pointer.trim_end());
        }
        hint.lines().try_for_each(|line| writeln!(f, "    {line}"))
    }
}

/// Everything that is wrong with a configuration.
#[derive(Debug)]
pub struct Problems {
    all: Vec<Problem>,
    more: usize,
    unreadable: bool,
    files: Vec<PathBuf>,
}

impl Problems {
    /// The file could not be read at all.
    pub fn unreadable(file: &str, message: &str) -> Self {
        Self { all: vec![Problem::whole(file, message)], more: 0, unreadable: true, files: Vec::new() }
    }

    /// With the files that the configuration names; one of them may be what is to be mended.
    #[must_use]
    pub fn naming(self, files: Vec<PathBuf>) -> Self {
        Self { files, ..self }
    }

    /// The files that the configuration names, as far as it could be read.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// Whether there is no file to judge, rather than a bad one.
    pub const fn is_unreadable(&self) -> bool {
        self.unreadable
    }

    /// How many there are, those that are not printed included.
    pub fn count(&self) -> usize {
        self.all.len() + self.more
    }

    /// Those that are printed, in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.all.iter()
    }

    /// How many are not printed.
    pub const fn more(&self) -> usize {
        self.more
    }
}

impl From<Vec<Problem>> for Problems {
    fn from(all: Vec<Problem>) -> Self {
        Self { all, more: 0, unreadable: false, files: Vec::new() }
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.all.iter().try_for_each(|problem| write!(f, "{problem}"))?;
        if self.more > 0 {
            writeln!(f, "and {} more", self.more)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_distance_counts_letters_and_swaps() {
        for (a, b, expected) in
            [("", "", 0), ("a", "", 1), ("orders", "ordesr", 1), ("path", "paths", 1), ("kitten", "sitting", 3)]
        {
            assert_eq!(distance(a, b), expected, "{a} {b}");
            assert_eq!(distance(b, a), expected, "{b} {a}");
        }
    }

    #[test]
    fn only_a_close_name_is_suggested() {
        let known = ["orders", "users", "to", "nope"];
        for (name, expected) in [
            ("ordesr", Some("orders")),
            ("Orders", Some("orders")),
            ("usr", None),
            ("home", None),
            ("uesrs", Some("users")),
            ("something", None),
            ("ot", Some("to")),
        ] {
            assert_eq!(nearest(name, &known), expected, "{name}");
        }
    }

    #[test]
    fn problems_past_the_bound_are_counted() {
        let mut report = Report::default();
        for line in 1..=PROBLEMS_MAX + 3 {
            report.add(Place { line, column: 1 }, "wrong");
        }
        let problems = report.into_problems("a.yaml", &Listing::new("", Vec::new()));
        assert_eq!(problems.count(), PROBLEMS_MAX + 3);
        assert!(problems.to_string().ends_with("and 3 more\n"));
    }
}
