//! What differs in each region, told by as few patterns as say it exactly.
//!
//! The paths of a pattern are its own region and those of the patterns below it. So what differs in a region is said of
//! its whole pattern, except for the regions below in which it is not so; what of those is covered is not said again.
//! Each statement is therefore true for all requests that it is about.

use std::collections::HashMap;

use super::names::Names;
use crate::route::Pattern;
use crate::route::regions::TooMany;

/// Steps that finding them may take; a file that needs more has very many patterns that cross each other.
const STEPS_MAX: usize = 100_000_000;

/// What differs, by its number.
pub(super) type Effect = usize;

/// Requests for which the same differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) hosts: Names,
    pub(super) methods: Names,
    pub(super) effect: Effect,
}

/// A region, and what differs there; nothing where there is no block. No two blocks are about the same request.
#[derive(Debug)]
pub(super) struct Spot {
    /// Of its paths, and those of the regions below.
    pub(super) pattern: Pattern,
    /// One of its paths.
    pub(super) path: String,
    /// Of how many rules its paths are; always more than in a region above.
    pub(super) rules: usize,
    /// Regions of other marks have no paths in common.
    pub(super) marks: u8,
    pub(super) blocks: Vec<Block>,
}

/// What differs for all requests of a pattern but those of the exceptions.
#[derive(Debug)]
pub(super) struct Statement {
    pub(super) pattern: Pattern,
    pub(super) except: Vec<Pattern>,
    pub(super) marks: u8,
    pub(super) block: Block,
}

/// Says all that differs.
///
/// # Errors
/// It takes too many steps.
pub(super) fn cover(mut spots: Vec<Spot>) -> Result<Vec<Statement>, TooMany> {
    // what is above comes before what is below
    spots.sort_by(|a, b| a.rules.cmp(&b.rules).then_with(|| a.path.cmp(&b.path)));
    let mut tree = Tree::of(&spots);
    let mut left: Vec<Vec<Block>> = spots.iter().map(|spot| spot.blocks.clone()).collect();
    let mut statements = Vec::new();
    // by which statement a region was excepted last
    let mut excepted = vec![usize::MAX; spots.len()];
    for (index, spot) in spots.iter().enumerate() {
        let blocks = left.get_mut(index).map(std::mem::take).unwrap_or_default();
        if blocks.is_empty() {
            continue;
        }
        let below = tree.below(index, &spots)?;
        for block in blocks {
            let mut except = Vec::new();
            let number = statements.len();
            for &at in &below {
                let Some(other) = spots.get(at).filter(|_| excepted.get(at) != Some(&number)) else { continue };
                if other.says(&block) {
                    if let Some(rest) = left.get_mut(at) {
                        take(rest, &block);
                    }
                    continue;
                }
                for further in tree.below(at, &spots)? {
                    if let Some(last) = excepted.get_mut(further) {
                        *last = number;
                    }
                }
                except.push(other.pattern.clone());
            }
            statements.push(Statement { pattern: spot.pattern.clone(), except, marks: spot.marks, block });
        }
    }
    Ok(statements)
}

impl Spot {
    /// Whether all that `block` says is so here.
    fn says(&self, block: &Block) -> bool {
        let mut hosts = block.hosts.clone();
        let alike = self.blocks.iter().filter(|own| own.effect == block.effect);
        for own in alike.filter(|own| block.methods.without(&own.methods).is_empty()) {
            hosts = hosts.without(&own.hosts);
        }
        hosts.is_empty()
    }
}

/// Takes out what `said` says.
fn take(blocks: &mut Vec<Block>, said: &Block) {
    let rest = std::mem::take(blocks).into_iter().flat_map(|block| {
        if block.effect != said.effect {
            return vec![block];
        }
        let elsewhere = Block { hosts: block.hosts.without(&said.hosts), ..block.clone() };
        let (hosts, methods) = (block.hosts.and(&said.hosts), block.methods.without(&said.methods));
        vec![elsewhere, Block { hosts, methods, ..block }]
    });
    *blocks = rest.filter(|block| !block.hosts.is_empty() && !block.methods.is_empty()).collect();
}

/// Regions by the segments of their paths.
struct Tree {
    nodes: Vec<Node>,
    steps: usize,
}

#[derive(Default)]
struct Node {
    children: HashMap<Box<str>, usize>,
    spots: Vec<usize>,
}

impl Tree {
    fn of(spots: &[Spot]) -> Self {
        let mut nodes = vec![Node::default()];
        for (index, spot) in spots.iter().enumerate() {
            let mut at = 0;
            for text in spot.path.strip_prefix('/').unwrap_or(&spot.path).split('/') {
                let next = nodes.len();
                let Some(node) = nodes.get_mut(at) else { break };
                at = *node.children.entry(text.into()).or_insert(next);
                if at == next {
                    nodes.push(Node::default());
                }
            }
            if let Some(node) = nodes.get_mut(at) {
                node.spots.push(index);
            }
        }
        Self { nodes, steps: 0 }
    }

    /// The others that lie in the pattern of this one, what is above first.
    fn below(&mut self, index: usize, spots: &[Spot]) -> Result<Vec<usize>, TooMany> {
        let Some(spot) = spots.get(index) else { return Ok(Vec::new()) };
        let mut at = vec![0];
        for segment in spot.pattern.segments() {
            let nodes = at.iter().filter_map(|&node| self.nodes.get(node));
            at = nodes.flat_map(|node| node.matching(segment)).collect();
            self.steps += at.len();
        }
        let mut found: Vec<usize> = Vec::new();
        while let Some(node) = at.pop().and_then(|node| self.nodes.get(node)) {
            self.steps += 1 + node.spots.len();
            if self.steps > STEPS_MAX {
                return Err(TooMany(spots.len()));
            }
            found.extend(&node.spots);
            if spot.pattern.is_prefix() {
                at.extend(node.children.values());
            }
        }
        found.retain(|&other| other != index && spots.get(other).is_some_and(|other| other.marks == spot.marks));
        found.sort_unstable();
        Ok(found)
    }
}

impl Node {
    fn matching(&self, segment: &crate::route::pattern::Segment) -> Vec<usize> {
        use crate::route::pattern::Segment;
        match segment {
            Segment::Literal(text) => self.children.get(text).copied().into_iter().collect(),
            Segment::Any(_) => {
                self.children.iter().filter(|(text, _)| !text.is_empty()).map(|(_, &child)| child).collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(effect: Effect, hosts: &[&str], methods: &[&str]) -> Block {
        let names = |list: &[&str]| match list {
            [] => Names::all(),
            some => Names::Only(some.iter().map(|&name| name.to_owned()).collect()),
        };
        Block { hosts: names(hosts), methods: names(methods), effect }
    }

    fn spot(pattern: &str, path: &str, rules: usize, blocks: &[&Block]) -> Spot {
        let pattern = Pattern::parse(pattern).unwrap();
        Spot {
            pattern,
            path: path.to_owned(),
            rules,
            marks: 0,
            blocks: blocks.iter().map(|&block| block.clone()).collect(),
        }
    }

    fn said(spots: Vec<Spot>) -> Vec<String> {
        let statements = cover(spots).unwrap();
        let show = |Statement { pattern, except, block, .. }: &Statement| {
            let except: Vec<String> = except.iter().map(ToString::to_string).collect();
            let Block { hosts, methods, effect } = block;
            format!("{pattern} [{}] {} {} {effect}", except.join(" "), hosts.list().join(" "), methods.list().join(" "))
        };
        statements.iter().map(show).collect()
    }

    #[test]
    fn what_is_below_is_covered_or_excepted() {
        let all = block(1, &[], &[]);
        let get = block(1, &[], &["GET"]);
        for (name, spots, expected) in [
            ("covered", vec![spot("/a/**", "/a", 1, &[&all]), spot("/a/b", "/a/b", 2, &[&all])], &["/a/** []   1"][..]),
            ("excepted", vec![spot("/a/**", "/a", 1, &[&all]), spot("/a/b", "/a/b", 2, &[])], &["/a/** [/a/b]   1"]),
            (
                "excepted with what is below, which is said by itself",
                vec![
                    spot("/a/**", "/a", 1, &[&all]),
                    spot("/a/{x}/**", "/a/x", 2, &[]),
                    spot("/a/b/c", "/a/b/c", 3, &[&all]),
                ],
                &["/a/** [/a/{x}/**]   1", "/a/b/c []   1"],
            ),
            (
                "covered, and more",
                vec![spot("/a/**", "/a", 1, &[&get]), spot("/a/b", "/a/b", 2, &[&block(1, &[], &["GET", "PUT"])])],
                &["/a/** []  GET 1", "/a/b []  PUT 1"],
            ),
            (
                "not for all hosts",
                vec![spot("/a/**", "/a", 1, &[&get]), spot("/a/b", "/a/b", 2, &[&block(1, &["h"], &["GET"])])],
                &["/a/** [/a/b]  GET 1", "/a/b [] h GET 1"],
            ),
            (
                "another thing",
                vec![spot("/a/**", "/a", 1, &[&all]), spot("/a/b", "/a/b", 2, &[&block(2, &[], &[])])],
                &["/a/** [/a/b]   1", "/a/b []   2"],
            ),
        ] {
            assert_eq!(said(spots), expected, "{name}");
        }
    }
}
