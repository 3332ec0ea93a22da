//! A trie by segments, laid out for look-ups in a large one: small nodes in one piece, and one table for the edges of all.
//!
//! A look-up of a segment touches a byte and a number of that table, the segment's text and the node that it leads to.

use std::hash::BuildHasher as _;
use std::num::NonZeroU32;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

/// Which node; the root is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct NodeId(u32);

/// A trie with a value at each node.
#[derive(Debug)]
pub(super) struct Trie<T> {
    /// The first is the root.
    nodes: Vec<Node<T>>,
    /// Where literals lead, by the node that they start from and their text, both of which the node knows that they lead to.
    literals: HashTable<u32>,
    /// The literals that lead to nodes, one behind the other.
    texts: String,
    /// Seeded at random: who calls chooses what is looked up.
    hasher: RandomState,
}

#[derive(Debug)]
struct Node<T> {
    parent: u32,
    /// Where its literal stands in the texts.
    text: (u32, u32),
    /// Whether literals lead on from here.
    branches: bool,
    /// Where any segment leads; the root is nobody's child.
    any: Option<NonZeroU32>,
    value: T,
}

impl<T: Default> Trie<T> {
    pub(super) const ROOT: NodeId = NodeId(0);

    /// A root alone.
    pub(super) fn new() -> Self {
        let mut trie = Self {
            nodes: Vec::new(),
            literals: HashTable::new(),
            texts: String::new(),
            hasher: RandomState::default(),
        };
        trie.add(Self::ROOT, "");
        trie
    }

    pub(super) fn value(&self, at: NodeId) -> Option<&T> {
        self.nodes.get(at.0 as usize).map(|node| &node.value)
    }

    pub(super) fn value_mut(&mut self, at: NodeId) -> Option<&mut T> {
        self.nodes.get_mut(at.0 as usize).map(|node| &mut node.value)
    }

    /// Where exactly this segment leads.
    pub(super) fn literal(&self, from: NodeId, segment: &str) -> Option<NodeId> {
        if !self.nodes.get(from.0 as usize)?.branches {
            return None;
        }
        let leads = |&to: &u32| {
            self.nodes.get(to as usize).is_some_and(|node| node.parent == from.0 && self.text(node) == segment)
        };
        self.literals.find(self.hash(from.0, segment), leads).map(|&to| NodeId(to))
    }

    /// Where any segment that is not empty leads.
    pub(super) fn any(&self, from: NodeId) -> Option<NodeId> {
        self.nodes.get(from.0 as usize)?.any.map(|to| NodeId(to.get()))
    }

    /// Where exactly this segment leads; a new node where it led nowhere.
    pub(super) fn literal_or_new(&mut self, from: NodeId, segment: &str) -> NodeId {
        if let Some(known) = self.literal(from, segment) {
            return known;
        }
        let new = self.add(from, segment);
        if let Some(node) = self.nodes.get_mut(from.0 as usize) {
            node.branches = true;
        }
        let Self { nodes, literals, texts, hasher } = self;
        let hash_of = |&to: &u32| {
            let node = nodes.get(to as usize);
            node.map_or(0, |node| hasher.hash_one((node.parent, text_of(texts, node))))
        };
        literals.insert_unique(hasher.hash_one((from.0, segment)), new.0, hash_of);
        new
    }

    /// Where any segment that is not empty leads; a new node where it led nowhere.
    pub(super) fn any_or_new(&mut self, from: NodeId) -> NodeId {
        if let Some(known) = self.any(from) {
            return known;
        }
        let new = self.add(from, "");
        if let Some(node) = self.nodes.get_mut(from.0 as usize) {
            node.any = NonZeroU32::new(new.0);
        }
        new
    }

    fn add(&mut self, parent: NodeId, text: &str) -> NodeId {
        // there is no memory for more than fit; a node or text that did not would match nothing
        let number = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
        let new = NodeId(number(self.nodes.len()));
        let begin = number(self.texts.len());
        self.texts.push_str(text);
        let text = (begin, number(self.texts.len()));
        self.nodes.push(Node { parent: parent.0, text, branches: false, any: None, value: T::default() });
        new
    }

    fn text(&self, node: &Node<T>) -> &str {
        text_of(&self.texts, node)
    }

    fn hash(&self, from: u32, segment: &str) -> u64 {
        self.hasher.hash_one((from, segment))
    }
}

fn text_of<'t, T>(texts: &'t str, node: &Node<T>) -> &'t str {
    let (begin, end) = node.text;
    texts.get(begin as usize..end as usize).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_leads_from_its_own_node_only() {
        let mut trie = Trie::<()>::new();
        let root = Trie::<()>::ROOT;
        let (a, any) = (trie.literal_or_new(root, "a"), trie.any_or_new(root));
        let (ab, aa) = (trie.literal_or_new(a, "b"), trie.literal_or_new(a, "a"));
        let (empty, any_a) = (trie.literal_or_new(a, ""), trie.literal_or_new(any, "a"));
        let all = [root, a, any, ab, aa, empty, any_a];
        assert!(all.iter().enumerate().all(|(index, id)| all.iter().position(|other| other == id) == Some(index)));
        for (from, segment, to) in [
            (root, "a", Some(a)),
            (root, "b", None),
            (root, "", None),
            (a, "b", Some(ab)),
            (a, "a", Some(aa)),
            (a, "", Some(empty)),
            (any, "a", Some(any_a)),
            (any, "", None),
            (ab, "a", None),
        ] {
            assert_eq!(trie.literal(from, segment), to, "{from:?} {segment}");
            if let Some(to) = to {
                assert_eq!(trie.literal_or_new(from, segment), to, "{from:?} {segment}");
            }
        }
        assert_eq!((trie.any(root), trie.any(a), trie.any_or_new(root)), (Some(any), None, any));
    }
}
