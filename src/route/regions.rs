//! The requests that patterns tell apart: finitely many regions, each with one path that stands for all of its paths.
//!
//! Patterns see of a segment only whether it is one of the literals that stand at its place, and of a path only its
//! segments. So a walk over the patterns that takes, at each place, every literal and one segment that is none of them
//! meets every set of patterns that any path can match. What is found at the paths it visits holds for all paths.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use http::Method;

use super::pattern::{Pattern, Segment};

/// One rule, as far as it tells requests apart.
#[derive(Clone, Debug)]
pub struct Rule<'r> {
    /// Which paths.
    pub pattern: Pattern,
    /// Which hosts; empty: all.
    pub hosts: &'r [Box<str>],
    /// Which methods; empty: all.
    pub methods: &'r [Method],
    /// What the rule is and does: two rules of the same number can stand for each other.
    pub meaning: usize,
}

/// A set of paths that match the same patterns, and hold the same marks.
#[derive(Debug)]
pub struct Region<'r, 's> {
    /// One of its paths, canonical.
    pub path: &'s str,
    /// The rules of all sides whose pattern matches.
    pub rules: &'s [&'s Rule<'r>],
    /// The groups of [`Paths::Marked`] of which its paths hold a mark, one bit each.
    pub marks: u8,
    /// Names that no rule of any side bears.
    fresh: &'s Fresh,
}

impl Region<'_, '_> {
    /// The pattern of its paths, apart from those that match further patterns.
    pub fn pattern(&self) -> Pattern {
        Pattern::common(self.rules.iter().map(|rule| &rule.pattern))
    }

    /// The hosts that rules name here, and one that none names, which stands for all others; that one last.
    pub fn hosts(&self) -> Vec<&str> {
        let named: BTreeSet<&str> = self.rules.iter().flat_map(|rule| rule.hosts.iter().map(|host| &**host)).collect();
        named.into_iter().chain([&*self.fresh.host]).collect()
    }

    /// The methods that rules name here, with the HEAD that GET implies, and one that none names, which stands for all
    /// others; that one last.
    pub fn methods(&self) -> Vec<&Method> {
        let mut named: Vec<&Method> = Vec::new();
        for method in self.rules.iter().flat_map(|rule| rule.methods) {
            let implied = (*method == Method::GET).then_some(&Method::HEAD);
            for method in [method].into_iter().chain(implied) {
                if !named.contains(&method) {
                    named.push(method);
                }
            }
        }
        named.push(&self.fresh.method);
        named
    }
}

/// Which paths are walked over.
#[derive(Clone, Copy, Debug)]
pub enum Paths<'m> {
    /// Those where both sides do not have the same rules.
    WhereSidesDiffer,
    /// All.
    All,
    /// All; those that hold a mark of a group, such as `;` and `%3B`, are told from those that do not. At most eight groups.
    Marked(&'m [&'static [&'static str]]),
}

/// There are more regions than was asked to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the patterns tell more than {0} kinds of paths apart")]
pub struct TooMany(pub usize);

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
    nodes: Vec<Node<'r>>,
    fresh: Fresh,
}

#[derive(Debug, Default)]
struct Node<'r> {
    literals: BTreeMap<Box<str>, usize>,
    any: Option<usize>,
    end: [Vec<Rule<'r>>; 2],
    below: [Vec<Rule<'r>>; 2],
    /// Whether both sides have the same rules here and further down.
    same: bool,
    same_below: bool,
}

struct Walk<'w, 'r, F> {
    regions: &'w Regions<'r>,
    prune: bool,
    groups: &'w [&'static [&'static str]],
    left: usize,
    path: String,
    /// Nodes passed that have rules for all that is below them.
    above: Vec<usize>,
    visit: F,
}

impl<'r> Regions<'r> {
    /// Of these rules; the second side is empty where there is nothing to compare.
    pub fn new(sides: [Vec<Rule<'r>>; 2]) -> Self {
        let mut nodes = vec![Node::default()];
        let (mut segments, mut hosts, mut methods) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for (side, rules) in sides.into_iter().enumerate() {
            for rule in rules {
                segments.extend(rule.pattern.segments().iter().filter_map(literal).map(str::to_owned));
                hosts.extend(rule.hosts.iter().map(ToString::to_string));
                methods.extend(rule.methods.iter().map(|method| method.as_str().to_owned()));
                place(&mut nodes, side, rule);
            }
        }
        let mut regions = Self { nodes, fresh: Fresh::beside(&segments, &hosts, &methods) };
        regions.compare(0);
        regions
    }

    /// Visits every region; one of several kinds of paths more than once.
    ///
    /// # Errors
    /// There are more than `most` visits.
    pub fn visit(&self, paths: Paths<'_>, most: usize, visit: impl FnMut(&Region<'r, '_>)) -> Result<(), TooMany> {
        let (prune, groups) = match paths {
            Paths::WhereSidesDiffer => (true, &[][..]),
            Paths::All => (false, &[][..]),
            Paths::Marked(groups) => (false, groups),
        };
        let mut walk = Walk { regions: self, prune, groups, left: most, path: String::new(), above: Vec::new(), visit };
        match walk.further(&[0], false, 0) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(TooMany(most)),
        }
    }

    fn node(&self, index: usize) -> Option<&Node<'r>> {
        self.nodes.get(index)
    }

    /// Notes for each node whether the sides have the same rules there. As deep as patterns are long.
    fn compare(&mut self, index: usize) -> bool {
        let Some(node) = self.nodes.get(index) else { return true };
        let children: Vec<usize> = node.literals.values().copied().chain(node.any).collect();
        let below = alike(&node.below);
        let mut same = below && alike(&node.end);
        for child in children {
            same &= self.compare(child);
        }
        if let Some(node) = self.nodes.get_mut(index) {
            (node.same, node.same_below) = (same, below);
        }
        same
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

impl<'r, F: FnMut(&Region<'r, '_>)> Walk<'_, 'r, F> {
    /// The paths that go on behind what was walked so far, at whose end these nodes are. `differs`: the sides have
    /// different rules above; `marks`: what the path holds.
    fn further(&mut self, active: &[usize], differs: bool, marks: u8) -> ControlFlow<()> {
        let regions = self.regions;
        let nodes = || active.iter().filter_map(|&index| regions.node(index));
        if self.prune && !differs && nodes().all(|node| node.same) {
            return ControlFlow::Continue(());
        }
        let differs = differs || nodes().any(|node| !node.same_below);
        let above = self.above.len();
        self.above.extend(active.iter().filter(|&&index| {
            regions.node(index).is_some_and(|node| node.below.iter().any(|rules| !rules.is_empty()))
        }));
        let mut literals: BTreeSet<&str> = nodes().flat_map(|node| node.literals.keys().map(|text| &**text)).collect();
        let anys: Vec<usize> = nodes().filter_map(|node| node.any).collect();
        if !anys.is_empty() && !self.above.is_empty() {
            literals.insert(""); // no placeholder takes a trailing slash, but what is above does
        }
        for text in literals {
            let mut next: Vec<usize> = nodes().filter_map(|node| node.literals.get(text).copied()).collect();
            if !text.is_empty() {
                next.extend(&anys);
            }
            self.segment(text, &next, differs, marks | self.marks_in(text))?;
        }
        if !anys.is_empty() || !self.above.is_empty() {
            let groups = self.groups;
            for held in 0..1_u8 << groups.len() {
                let mut text = regions.fresh.segment.clone();
                let marks_of = groups.iter().enumerate().filter(|(group, _)| held & 1 << group != 0);
                text.extend(marks_of.filter_map(|(_, marks)| marks.first()).copied());
                self.segment(&text, &anys, differs, marks | held)?;
            }
        }
        self.above.truncate(above);
        ControlFlow::Continue(())
    }

    /// One segment more: the path that ends with it, and those that go on. An empty one is the last.
    fn segment(&mut self, text: &str, next: &[usize], differs: bool, marks: u8) -> ControlFlow<()> {
        let length = self.path.len();
        self.path.push('/');
        self.path.push_str(text);
        self.end(next, marks)?;
        // behind the last pattern only what is above decides, and nothing new can be told apart
        if !text.is_empty() && !next.is_empty() {
            self.further(next, differs, marks)?;
        }
        self.path.truncate(length);
        ControlFlow::Continue(())
    }

    fn end(&mut self, active: &[usize], marks: u8) -> ControlFlow<()> {
        let regions = self.regions;
        let at = active.iter().filter_map(|&index| regions.node(index));
        let here = at.flat_map(|node| node.end.iter().chain(&node.below));
        let above = self.above.iter().filter_map(|&index| regions.node(index)).flat_map(|node| &node.below);
        let rules: Vec<&Rule<'r>> = here.chain(above).flatten().collect();
        if rules.is_empty() {
            return ControlFlow::Continue(());
        }
        let Some(left) = self.left.checked_sub(1) else { return ControlFlow::Break(()) };
        self.left = left;
        (self.visit)(&Region { path: &self.path, rules: &rules, marks, fresh: &regions.fresh });
        ControlFlow::Continue(())
    }

    fn marks_in(&self, text: &str) -> u8 {
        let holds = |marks: &&[&str]| marks.iter().any(|mark| text.contains(mark));
        let groups = self.groups.iter().enumerate().filter(|(_, marks)| holds(marks));
        groups.fold(0, |held, (group, _)| held | 1 << group)
    }
}

fn literal(segment: &Segment) -> Option<&str> {
    match segment {
        Segment::Literal(text) => Some(text),
        Segment::Any(_) => None,
    }
}

/// Whether both sides have rules of the same meanings, in whatever order.
fn alike([first, second]: &[Vec<Rule<'_>>; 2]) -> bool {
    let meanings = |rules: &[Rule<'_>]| {
        let mut meanings: Vec<usize> = rules.iter().map(|rule| rule.meaning).collect();
        meanings.sort_unstable();
        meanings
    };
    meanings(first) == meanings(second)
}

fn place<'r>(nodes: &mut Vec<Node<'r>>, side: usize, rule: Rule<'r>) {
    let mut at = 0;
    for segment in rule.pattern.segments() {
        let next = nodes.len();
        let Some(node) = nodes.get_mut(at) else { return };
        at = match segment {
            Segment::Literal(text) => *node.literals.entry(text.clone()).or_insert(next),
            Segment::Any(_) => *node.any.get_or_insert(next),
        };
        if at == next {
            nodes.push(Node::default());
        }
    }
    let Some(node) = nodes.get_mut(at) else { return };
    let rules = if rule.pattern.is_prefix() { &mut node.below } else { &mut node.end };
    if let Some(rules) = rules.get_mut(side) {
        rules.push(rule);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rules(patterns: &[&str]) -> Vec<Rule<'static>> {
        let rule = |(meaning, text): (usize, &&str)| Rule {
            pattern: Pattern::parse(text).unwrap(),
            hosts: &[],
            methods: &[],
            meaning,
        };
        patterns.iter().enumerate().map(rule).collect()
    }

    fn paths(patterns: &[&str], paths: Paths<'_>) -> Vec<(String, u8)> {
        let mut found = Vec::new();
        let regions = Regions::new([rules(patterns), Vec::new()]);
        regions.visit(paths, 1000, |region| found.push((region.path.to_owned(), region.marks))).unwrap();
        found
    }

    #[test]
    fn every_literal_and_one_segment_that_is_none_are_walked() {
        let all = |patterns: &[&str]| paths(patterns, Paths::All).into_iter().map(|(path, _)| path).collect::<Vec<_>>();
        assert_eq!(all(&["/a/b", "/a/{x}"]), ["/a/b", "/a/x"]);
        assert_eq!(all(&["/a/**"]), ["/a", "/a/x"]);
        assert_eq!(all(&["/", "/x"]), ["/", "/x"]);
        assert_eq!(all(&["/**", "/x/{y}"]), ["/x", "/x/", "/x/x1", "/x/x1/x1", "/x1"]);
    }

    #[test]
    fn paths_that_hold_a_mark_are_walked_by_themselves() {
        let groups: &[&[&str]] = &[&[";", "%3B"], &["%2F"]];
        let marked = |patterns: &[&str]| paths(patterns, Paths::Marked(groups));
        let expected = [("/a/x", 0), ("/a/x;", 1), ("/a/x%2F", 2), ("/a/x;%2F", 3), ("/b", 0)];
        assert_eq!(marked(&["/a/{y}", "/b"]), expected.map(|(path, marks)| (path.to_owned(), marks)));
        assert_eq!(marked(&["/a;b"]), [("/a;b".to_owned(), 1)]);
        // no literal begins like the segment that stands for all others
        assert!(marked(&["/x;", "/{y}"]).contains(&("/x1;".to_owned(), 1)));
        let below = marked(&["/a%2Fb/{y}"]);
        assert_eq!(below.iter().map(|(_, marks)| marks).collect::<Vec<_>>(), [&2, &3, &2, &3]);
    }

    #[test]
    fn there_is_a_bound() {
        let regions = Regions::new([rules(&["/a", "/b", "/c"]), Vec::new()]);
        assert_eq!(regions.visit(Paths::All, 2, |_| {}), Err(TooMany(2)));
        assert_eq!(regions.visit(Paths::All, 3, |_| {}), Ok(()));
    }

    proptest! {
        #[test]
        fn what_any_path_matches_is_matched_by_a_path_that_is_walked(
            texts in proptest::collection::btree_set("(/([abx]|[{]q[}])){0,3}(/|/[*][*]|/a)", 1..7),
            path in "(/[abcx]{1,2}){0,4}/?",
        ) {
            let patterns: Vec<Pattern> = texts.iter().filter_map(|text| Pattern::parse(text).ok()).collect();
            let rule = |(meaning, pattern): (usize, &Pattern)| Rule {
                pattern: pattern.clone(), hosts: &[], methods: &[], meaning,
            };
            let all: Vec<Rule<'_>> = patterns.iter().enumerate().map(rule).collect();
            let matched = |path: &str| -> Vec<bool> { patterns.iter().map(|pattern| pattern.matches(path)).collect() };
            let wanted = matched(&path);
            let mut found = !wanted.contains(&true);
            Regions::new([all, Vec::new()]).visit(Paths::All, 100_000, |region| {
                found |= matched(region.path) == wanted;
            }).unwrap();
            prop_assert!(found, "{} in {:?}", path, texts);
        }
    }
}
