//! Many patterns by their segments: which of them cover another one, lie in it, or have a path in common with it.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::pattern::{Pattern, Segment};

/// Where a pattern ends or goes on.
pub(super) type NodeId = usize;

/// Values by patterns; several of one pattern are kept.
#[derive(Debug)]
pub struct Patterns<T> {
    nodes: Vec<Node<T>>,
    work: Cell<usize>,
}

#[derive(Debug)]
struct Node<T> {
    literals: BTreeMap<Arc<str>, NodeId>,
    any: Option<NodeId>,
    /// Of patterns that end here.
    exact: Vec<T>,
    /// Of those that match everything below as well.
    prefixes: Vec<T>,
}

impl<T> Default for Node<T> {
    fn default() -> Self {
        Self { literals: BTreeMap::new(), any: None, exact: Vec::new(), prefixes: Vec::new() }
    }
}

impl<T> Default for Patterns<T> {
    fn default() -> Self {
        Self { nodes: vec![Node::default()], work: Cell::new(0) }
    }
}

impl<T: Copy> Patterns<T> {
    /// Where all patterns begin.
    pub(super) const ROOT: NodeId = 0;

    /// Adds one.
    pub fn insert(&mut self, pattern: &Pattern, value: T) {
        let mut at = Self::ROOT;
        for segment in pattern.segments() {
            let next = self.nodes.len();
            let Some(node) = self.nodes.get_mut(at) else { return };
            at = match segment {
                Segment::Literal(text) => *node.literals.entry(text.clone()).or_insert(next),
                Segment::Any(_) => *node.any.get_or_insert(next),
            };
            if at == next {
                self.nodes.push(Node::default());
            }
        }
        let Some(node) = self.nodes.get_mut(at) else { return };
        if pattern.is_prefix() { &mut node.prefixes } else { &mut node.exact }.push(value);
    }

    /// How many nodes were looked at since this was asked last, for whoever bounds the work. One question looks at no more
    /// than there are.
    pub fn take_work(&self) -> usize {
        self.work.take()
    }

    pub(super) fn worked(&self, nodes: usize) {
        self.work.set(self.work.get().saturating_add(nodes));
    }

    /// Those that match a path of `pattern`.
    pub fn crossing(&self, pattern: &Pattern) -> Vec<T> {
        let mut found = Vec::new();
        let mut at = vec![Self::ROOT];
        for segment in pattern.segments() {
            found.extend(at.iter().flat_map(|&node| self.prefixes(node)));
            at = at.iter().flat_map(|&node| self.sharing(node, segment)).collect();
            self.worked(1 + at.len());
        }
        if pattern.is_prefix() {
            self.all_below(at, &mut found);
        } else {
            found.extend(at.iter().flat_map(|&node| self.exact(node).iter().chain(self.prefixes(node))));
        }
        found
    }

    /// Those that match no other paths than `pattern` does.
    pub fn within(&self, pattern: &Pattern) -> Vec<T> {
        let mut found = Vec::new();
        let mut at = vec![Self::ROOT];
        for segment in pattern.segments() {
            at = at.iter().flat_map(|&node| self.narrower(node, segment)).collect();
            self.worked(1 + at.len());
        }
        if pattern.is_prefix() {
            self.all_below(at, &mut found);
        } else {
            found.extend(at.iter().flat_map(|&node| self.exact(node)));
        }
        found
    }

    /// Whether one of them matches all paths that `pattern` matches.
    pub fn cover(&self, pattern: &Pattern) -> bool {
        let mut at = vec![Self::ROOT];
        for segment in pattern.segments() {
            if at.iter().any(|&node| !self.prefixes(node).is_empty()) {
                return true;
            }
            at = match segment {
                Segment::Literal(text) => at.iter().flat_map(|&node| self.matching(node, text)).collect(),
                Segment::Any(_) => at.iter().filter_map(|&node| self.any(node)).collect(),
            };
            self.worked(1 + at.len());
        }
        let ends =
            |&node: &NodeId| !self.prefixes(node).is_empty() || !pattern.is_prefix() && !self.exact(node).is_empty();
        at.iter().any(ends)
    }

    /// What follows where this segment stands.
    pub(super) fn matching(&self, node: NodeId, text: &str) -> impl Iterator<Item = NodeId> + use<T> {
        let any = self.any(node).filter(|_| !text.is_empty());
        self.literal(node, text).into_iter().chain(any)
    }

    /// What follows where a pattern has this segment.
    pub(super) fn literal(&self, node: NodeId, text: &str) -> Option<NodeId> {
        self.nodes.get(node)?.literals.get(text).copied()
    }

    /// What follows where a pattern has a placeholder.
    pub(super) fn any(&self, node: NodeId) -> Option<NodeId> {
        self.nodes.get(node)?.any
    }

    /// Of the patterns that end here.
    pub(super) fn exact(&self, node: NodeId) -> &[T] {
        self.nodes.get(node).map_or(&[], |node| &node.exact)
    }

    /// Of those that match everything below as well.
    pub(super) fn prefixes(&self, node: NodeId) -> &[T] {
        self.nodes.get(node).map_or(&[], |node| &node.prefixes)
    }

    /// What follows where a segment may stand that `segment` matches too.
    fn sharing(&self, node: NodeId, segment: &Segment) -> Vec<NodeId> {
        match segment {
            Segment::Literal(text) => self.matching(node, text).collect(),
            Segment::Any(_) => self.narrower(node, segment),
        }
    }

    /// What follows where no other segment may stand than `segment` matches.
    fn narrower(&self, node: NodeId, segment: &Segment) -> Vec<NodeId> {
        match segment {
            Segment::Literal(text) => self.literal(node, text).into_iter().collect(),
            Segment::Any(_) => {
                let Some(node) = self.nodes.get(node) else { return Vec::new() };
                let literals = node.literals.iter().filter(|(text, _)| !text.is_empty()).map(|(_, &child)| child);
                literals.chain(node.any).collect()
            }
        }
    }

    fn all_below(&self, mut at: Vec<NodeId>, found: &mut Vec<T>) {
        while let Some(node) = at.pop().and_then(|node| self.nodes.get(node)) {
            found.extend(node.exact.iter().chain(&node.prefixes));
            at.extend(node.literals.values().copied().chain(node.any));
            self.worked(1);
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Patterns that often meet.
    pub(in crate::route) fn some_pattern() -> impl Strategy<Value = Pattern> {
        "(/([abx]|[{]q[}])){0,3}(/|/[*][*]|/a|/[{]r[}])"
            .prop_filter_map("a name twice", |text| Pattern::parse(&text).ok())
    }

    proptest! {
        #[test]
        fn all_are_asked_at_once_what_each_would_say(
            patterns in proptest::collection::vec(some_pattern(), 0..7),
            pattern in some_pattern(),
        ) {
            let mut all = Patterns::default();
            for (index, one) in patterns.iter().enumerate() {
                all.insert(one, index);
            }
            let those = |is: &dyn Fn(&Pattern) -> bool| {
                patterns.iter().enumerate().filter(|(_, one)| is(one)).map(|(index, _)| index).collect::<Vec<_>>()
            };
            let sorted = |mut found: Vec<usize>| {
                found.sort_unstable();
                found
            };
            prop_assert_eq!(sorted(all.crossing(&pattern)), those(&|one| one.meet(&pattern).is_some()));
            prop_assert_eq!(sorted(all.within(&pattern)), those(&|one| pattern.covers(one)));
            prop_assert_eq!(all.cover(&pattern), !those(&|one| one.covers(&pattern)).is_empty());
        }

        #[test]
        fn patterns_meet_and_cover_as_their_paths_do(
            one in some_pattern(),
            other in some_pattern(),
            paths in proptest::collection::vec("(/[abcx]){0,4}/?", 20),
        ) {
            let (meet, covers) = (one.meet(&other), one.covers(&other));
            prop_assert_eq!(meet.as_ref().map(Pattern::shape), other.meet(&one).as_ref().map(Pattern::shape));
            prop_assert_eq!(covers, meet.as_ref().is_some_and(|meet| meet.shape() == other.shape()));
            for path in paths {
                let both = one.matches(&path) && other.matches(&path);
                prop_assert_eq!(meet.as_ref().is_some_and(|meet| meet.matches(&path)), both, "{}", path);
                prop_assert!(!covers || both || !other.matches(&path), "{}", path);
            }
        }
    }
}
