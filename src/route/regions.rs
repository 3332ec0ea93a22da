//! The requests that patterns tell apart: regions, each with one path that stands for all of its paths.
//!
//! A region is the set of paths that match the same patterns. Patterns that cross each other can make very many, but what
//! decides a request is one rule of each side. Two facts about patterns make it enough to look at few:
//!
//! - The paths that two patterns have in common are those of a pattern ([`Pattern::meet`]).
//! - A placeholder takes more names than any file bears. So a path of a pattern in which every placeholder holds a name that
//!   no rule bears matches as few other patterns as any path of that length can: whatever beats a rule there beats it on all
//!   of those paths.
//!
//! Where a rule of one side and one of the other both decide some path, they therefore decide together at such a path of
//! the pattern that they have in common. Paths below a prefix are looked at in each length in which they can differ.

use std::collections::{BTreeSet, HashSet};

use http::Method;

use super::pattern::{Pattern, Segment};
use super::patterns::{NodeId, Patterns};

/// One rule, as far as it tells requests apart.
#[derive(Clone, Debug)]
pub struct Rule<'r> {
    /// Which paths.
    pub pattern: Pattern,
    /// Which hosts; empty: all.
    pub hosts: &'r [Box<str>],
    /// Which methods; empty: all.
    pub methods: &'r [Method],
}

/// A set of paths that match the same patterns, and hold the same marks.
#[derive(Debug)]
pub struct Region<'s> {
    /// One of its paths, canonical.
    pub path: String,
    /// The rules of all sides whose pattern matches.
    pub rules: Vec<&'s Rule<'s>>,
    /// The groups of marks of which its paths hold one, one bit each.
    pub marks: u8,
    /// How many nodes of patterns lie along its path, of which a look-up passes as many.
    pub work: usize,
    /// Names that no rule of any side bears.
    fresh: &'s Fresh,
}

impl Region<'_> {
    /// The pattern of its paths, apart from those that match further patterns. The same for no other region of these marks.
    pub fn pattern(&self) -> Pattern {
        Pattern::common(self.rules.iter().map(|rule| &rule.pattern))
    }

    /// How many rules there are, and methods that they list: what finding the one for a method may look at.
    pub fn listed(&self) -> usize {
        self.rules.iter().map(|rule| 1 + rule.methods.len()).sum()
    }

    /// The hosts that rules name here, and one that none names, which stands for all others; that one last.
    pub fn hosts(&self) -> Vec<&str> {
        let named: BTreeSet<&str> = self.rules.iter().flat_map(|rule| rule.hosts.iter().map(|host| &**host)).collect();
        named.into_iter().chain([&*self.fresh.host]).collect()
    }

    /// The methods that rules name here, with the HEAD that GET implies, and one that none names, which stands for all
    /// others; that one last.
    pub fn methods(&self) -> Vec<&Method> {
        let (mut named, mut known) = (Vec::new(), HashSet::new());
        for method in self.rules.iter().flat_map(|rule| rule.methods) {
            let implied = (*method == Method::GET).then_some(&Method::HEAD);
            named.extend([method].into_iter().chain(implied).filter(|method| known.insert(*method)));
        }
        named.push(&self.fresh.method);
        named
    }
}

/// Texts such as `;` and `%3B`, of which it is told whether a path holds one. At most eight groups.
pub type Groups = [&'static [&'static str]];

/// Segment, host and method that no rule names.
#[derive(Debug)]
struct Fresh {
    segment: String,
    host: String,
    method: Method,
}

/// The patterns of one side or two, by segments.
#[derive(Debug)]
pub struct Regions<'r> {
    sides: [Vec<Rule<'r>>; 2],
    patterns: Patterns<Id>,
    fresh: Fresh,
}

/// A rule by its side and its number there.
type Id = (usize, usize);

impl<'r> Regions<'r> {
    /// Of these rules; the second side is empty where there is nothing to compare.
    pub fn new(sides: [Vec<Rule<'r>>; 2]) -> Self {
        let mut patterns = Patterns::default();
        let (mut segments, mut hosts, mut methods) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for (side, rules) in sides.iter().enumerate() {
            for (index, rule) in rules.iter().enumerate() {
                segments.extend(rule.pattern.segments().iter().filter_map(literal).map(str::to_owned));
                hosts.extend(rule.hosts.iter().map(ToString::to_string));
                methods.extend(rule.methods.iter().map(|method| method.as_str().to_owned()));
                patterns.insert(&rule.pattern, (side, index));
            }
        }
        let fresh = Fresh::beside(&segments, &hosts, &methods);
        Self { sides, patterns, fresh }
    }

    /// The rules of one side, in the order in which they were given.
    pub fn rules(&self, side: usize) -> &[Rule<'r>] {
        self.sides.get(side).map_or(&[], Vec::as_slice)
    }

    /// The rules of a side that match a path of `pattern`, by their numbers.
    pub fn crossing(&self, pattern: &Pattern, side: usize) -> Vec<usize> {
        self.patterns.crossing(pattern).into_iter().filter(|id| id.0 == side).map(|id| id.1).collect()
    }

    /// The regions of those paths of `pattern` that match as few others as can be, in every length in which that makes a
    /// difference; of paths that hold a mark of the groups `held`, one bit each, and of others that `pattern` itself holds.
    pub fn of<'s>(&'s self, pattern: &Pattern, groups: &Groups, held: u8) -> Vec<Region<'s>> {
        let mut walk = Walk {
            regions: self,
            groups,
            held,
            path: String::new(),
            is_open: false,
            marks: 0,
            at: vec![Patterns::<Id>::ROOT],
            work: 0,
            above: Vec::new(),
            found: Vec::new(),
        };
        walk.along(pattern);
        walk.found
    }

    /// How many nodes of patterns were looked at since this was asked last, for whoever bounds the work.
    pub fn take_work(&self) -> usize {
        self.patterns.take_work()
    }

    fn rule(&self, (side, index): Id) -> Option<&Rule<'r>> {
        self.sides.get(side)?.get(index)
    }
}

impl Fresh {
    fn beside(segments: &BTreeSet<String>, hosts: &BTreeSet<String>, methods: &BTreeSet<String>) -> Self {
        let unused = |stem: &str, taken: &BTreeSet<String>| {
            let numbered = (1_usize..).map(|number| format!("{stem}{number}"));
            // nor does one begin like it: marks are put behind it
            let is_free = |name: &String| taken.range(name.clone()..).next().is_none_or(|next| !next.starts_with(name));
            let mut candidates = std::iter::once(stem.to_owned()).chain(numbered);
            candidates.find(is_free).unwrap_or_else(|| stem.to_owned())
        };
        Self {
            segment: unused("x", segments),
            host: unused("host", hosts),
            method: Method::from_bytes(unused("OTHER", methods).as_bytes()).unwrap_or_default(),
        }
    }
}

/// A walk along one pattern.
struct Walk<'w, 's> {
    regions: &'s Regions<'s>,
    groups: &'w Groups,
    /// The groups of which the path is to hold a mark.
    held: u8,
    path: String,
    /// Whether the path has a segment that no rule names, which holds the marks.
    is_open: bool,
    marks: u8,
    /// The nodes at the end of the path.
    at: Vec<NodeId>,
    /// How many nodes were passed.
    work: usize,
    /// The rules for all that is below a node that was passed.
    above: Vec<Id>,
    found: Vec<Region<'s>>,
}

impl Walk<'_, '_> {
    fn along(&mut self, pattern: &Pattern) {
        for segment in pattern.segments() {
            self.pass();
            match segment {
                Segment::Literal(text) => self.go(text),
                Segment::Any(_) => self.go_anywhere(),
            }
        }
        // nothing is not a path
        if !self.path.is_empty() {
            self.take();
        }
        if pattern.is_prefix() {
            self.below();
        }
    }

    /// Further down, where only what is above and placeholders match.
    fn below(&mut self) {
        loop {
            self.pass();
            // no placeholder takes a trailing slash, but what is above does
            let patterns = &self.regions.patterns;
            if self.at.iter().any(|&node| patterns.any(node).is_some() || patterns.literal(node, "").is_some()) {
                let (at, length) = (self.at.clone(), self.path.len());
                self.go("");
                self.take();
                self.at = at;
                self.path.truncate(length);
            }
            self.go_anywhere();
            self.take();
            // behind the last pattern only what is above decides, and nothing new can be told apart
            if self.at.is_empty() {
                return;
            }
        }
    }

    /// Notes who decides what is below.
    fn pass(&mut self) {
        let patterns = &self.regions.patterns;
        self.above.extend(self.at.iter().flat_map(|&node| patterns.prefixes(node)));
        self.work += 1 + self.at.len();
        patterns.worked(1 + self.at.len());
    }

    fn go(&mut self, text: &str) {
        let patterns = &self.regions.patterns;
        self.at = self.at.iter().flat_map(|&node| patterns.matching(node, text)).collect();
        self.path.push('/');
        self.path.push_str(text);
        self.marks |= marks_in(text, self.groups);
    }

    fn go_anywhere(&mut self) {
        let patterns = &self.regions.patterns;
        self.at = self.at.iter().filter_map(|&node| patterns.any(node)).collect();
        self.path.push('/');
        self.path.push_str(&self.regions.fresh.segment);
        if !self.is_open {
            self.is_open = true;
            let held = self.groups.iter().enumerate().filter(|(group, _)| self.held & 1 << group != 0);
            self.path.extend(held.filter_map(|(_, marks)| marks.first()).copied());
        }
    }

    /// The path up to here is one of a region.
    fn take(&mut self) {
        let marks = self.marks | if self.is_open { self.held } else { 0 };
        if marks & self.held != self.held {
            return;
        }
        let patterns = &self.regions.patterns;
        let here = self.at.iter().flat_map(|&node| patterns.exact(node).iter().chain(patterns.prefixes(node)));
        let rules: Vec<_> = here.chain(&self.above).filter_map(|&id| self.regions.rule(id)).collect();
        patterns.worked(rules.len());
        if !rules.is_empty() {
            let (path, work) = (self.path.clone(), self.work);
            self.found.push(Region { path, rules, marks, work, fresh: &self.regions.fresh });
        }
    }
}

fn marks_in(text: &str, groups: &Groups) -> u8 {
    let holds = |marks: &&[&str]| marks.iter().any(|mark| text.contains(mark));
    let groups = groups.iter().enumerate().filter(|(_, marks)| holds(marks));
    groups.fold(0, |held, (group, _)| held | 1 << group)
}

fn literal(segment: &Segment) -> Option<&str> {
    match segment {
        Segment::Literal(text) => Some(text),
        Segment::Any(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::patterns::tests::some_pattern;
    use super::*;
    use proptest::prelude::*;

    fn rule(text: &str) -> Rule<'static> {
        Rule { pattern: Pattern::parse(text).unwrap(), hosts: &[], methods: &[] }
    }

    fn regions(patterns: &[&str]) -> Regions<'static> {
        Regions::new([patterns.iter().map(|text| rule(text)).collect(), Vec::new()])
    }

    fn paths(regions: &Regions<'_>, pattern: &str, groups: &Groups, held: u8) -> Vec<(String, u8)> {
        let found = regions.of(&Pattern::parse(pattern).unwrap(), groups, held);
        found.into_iter().map(|region| (region.path, region.marks)).collect()
    }

    #[test]
    fn a_pattern_is_walked_by_names_that_no_rule_bears_in_each_length_that_matters() {
        for (patterns, pattern, expected) in [
            (&["/a/b", "/a/{x}"][..], "/a/{x}", &["/a/x"][..]),
            (&["/a/b", "/a/{x}"], "/a/b", &["/a/b"]),
            (&["/x", "/{y}"], "/{y}", &["/x1"]),
            (&["/a/**"], "/a/**", &["/a", "/a/x"]),
            (&["/a/**", "/a/"], "/a/**", &["/a", "/a/", "/a/x"]),
            (&["/**", "/x/{y}"], "/**", &["/x1"]),
            (&["/**", "/{x}/{y}/z"], "/**", &["/", "/x", "/x/", "/x/x", "/x/x/x"]),
            // another rule's name is none of these
            (&["/**", "/{x}/{y}/z"], "/{x}/**", &["/x", "/x/", "/x/x", "/x/x/x"]),
        ] {
            let found = paths(&regions(patterns), pattern, &[], 0);
            assert_eq!(found.iter().map(|(path, _)| path).collect::<Vec<_>>(), expected, "{pattern} of {patterns:?}");
        }
    }

    #[test]
    fn paths_hold_the_marks_that_are_asked_for_where_they_can() {
        let groups: &Groups = &[&[";", "%3B"], &["%2F"]];
        for (patterns, pattern, held, expected) in [
            (&["/a/{y}"][..], "/a/{y}", 0, &[("/a/x", 0)][..]),
            (&["/a/{y}"], "/a/{y}", 1, &[("/a/x;", 1)]),
            (&["/a/{y}/{z}"], "/a/{y}/{z}", 3, &[("/a/x;%2F/x", 3)]),
            (&["/a;b"], "/a;b", 0, &[("/a;b", 1)]),
            (&["/a;b"], "/a;b", 1, &[("/a;b", 1)]),
            (&["/a;b"], "/a;b", 2, &[]),
            (&["/a;b/{y}"], "/a;b/{y}", 2, &[("/a;b/x%2F", 3)]),
            (&["/a/**"], "/a/**", 1, &[("/a/x;", 1)]),
            // no literal begins like the segment that stands for all others
            (&["/x;", "/{y}"], "/{y}", 1, &[("/x1;", 1)]),
        ] {
            let expected = expected.iter().map(|&(path, marks)| (path.to_owned(), marks)).collect::<Vec<_>>();
            assert_eq!(paths(&regions(patterns), pattern, groups, held), expected, "{pattern} with {held}");
        }
    }

    proptest! {
        /// The law on which all rests.
        #[test]
        fn what_matches_a_path_that_stands_for_others_matches_all_of_its_length(
            patterns in proptest::collection::vec(some_pattern(), 1..7),
            path in "(/[abcx]{1,2}){0,4}/?",
        ) {
            let rules = patterns.iter().map(|pattern| Rule { pattern: pattern.clone(), hosts: &[], methods: &[] });
            let regions = Regions::new([rules.collect(), Vec::new()]);
            for (one, other) in patterns.iter().zip(patterns.iter().cycle().skip(1)) {
                let Some(both) = one.meet(other).filter(|both| both.matches(&path)) else { continue };
                let found = regions.of(&both, &[], 0);
                for region in &found {
                    let matching = patterns.iter().filter(|pattern| pattern.matches(&region.path)).count();
                    prop_assert_eq!(matching, region.rules.len(), "{} of {}", region.path, both);
                }
                let stands_for = |region: &Region<'_>| region.rules.iter().all(|rule| rule.pattern.matches(&path));
                prop_assert!(found.iter().any(stands_for), "{} of {}: {:?}", path, both, found);
            }
        }
    }
}
