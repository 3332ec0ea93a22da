//! What differs in each region, told by as few patterns as say it exactly.
//!
//! The paths of a pattern are its own region and those of the patterns below it. So what differs in a region is said of
//! its whole pattern, except for the regions below in which it is not so; what is said of a region's whole pattern so is
//! not said again. Each statement is therefore true for all requests that it is about.

use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;

use super::effort::{Effort, TooMuch};
use super::names::Names;
use crate::route::Pattern;
use crate::route::patterns::Patterns;

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
#[derive(Clone, Debug)]
pub(super) struct Spot {
    /// Of its paths, and those of the regions below.
    pub(super) pattern: Pattern,
    /// Of the pattern.
    pub(super) shape: Rc<str>,
    /// One of its paths.
    pub(super) path: String,
    /// Of how many rules its paths are; always more than in a region above.
    pub(super) rules: usize,
    /// Regions of other marks have no paths in common.
    pub(super) marks: u8,
    pub(super) blocks: Vec<Block>,
    /// The least specific pattern that decides a request of a block, on each side; `None` where nothing may.
    pub(super) least: [Option<Rc<Pattern>>; 2],
}

/// What differs for all requests of a pattern but those of the exceptions.
#[derive(Debug)]
pub(super) struct Statement {
    pub(super) pattern: Pattern,
    pub(super) except: Vec<Pattern>,
    pub(super) marks: u8,
    pub(super) block: Block,
}

/// Says all that differs in `spots`. `against` gives the regions within a spot in which a block of it is not so.
///
/// # Errors
/// There is more to say than `effort` allows, and those of `against`.
pub(super) fn cover(
    spots: Vec<Rc<Spot>>,
    effort: &Effort,
    mut against: impl FnMut(&Spot, &Block) -> Result<Vec<Rc<Spot>>, TooMuch>,
) -> Result<Vec<Statement>, TooMuch> {
    let mut queue = Queue {
        entries: Vec::new(),
        order: BTreeSet::new(),
        known: HashMap::new(),
        patterns: Patterns::default(),
        effort,
    };
    for spot in spots {
        let left = spot.blocks.clone();
        queue.add(spot, left, Origin::Given)?;
    }
    let mut statements = Vec::new();
    while let Some((spot, blocks)) = queue.next() {
        for block in blocks {
            let mut others = against(&spot, &block)?;
            others.sort_by(|a, b| a.order().cmp(&b.order()));
            let mut known = Patterns::default();
            others.retain(|other| {
                let is_new = !known.cover(&other.pattern);
                if is_new {
                    known.insert(&other.pattern, ());
                }
                is_new
            });
            queue.say(&spot, &block, &known)?;
            effort.spend(known.take_work())?;
            let except: Vec<Pattern> = others.iter().map(|other| other.pattern.clone()).collect();
            let patterns = except.iter().chain([&spot.pattern]);
            effort.keep(block.size() + patterns.map(pattern_size).sum::<usize>())?;
            for other in others {
                queue.except(other, &block)?;
            }
            statements.push(Statement { pattern: spot.pattern.clone(), except, marks: spot.marks, block });
        }
    }
    Ok(statements)
}

/// Why something is to be said of a region.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// Something differs there, all of which is said.
    Given,
    /// It was excepted from what is said of a region above, of which some is so nevertheless.
    Excepted,
}

/// A region, with what is left to say of it.
struct Entry {
    spot: Rc<Spot>,
    left: Vec<Block>,
    origin: Origin,
}

/// Regions of which something is left to say.
struct Queue<'e> {
    entries: Vec<Entry>,
    /// Those that are not taken yet: what is above comes before what is below.
    order: BTreeSet<(usize, String, usize)>,
    known: HashMap<(Rc<str>, u8), usize>,
    patterns: Patterns<usize>,
    effort: &'e Effort,
}

impl Queue<'_> {
    fn add(&mut self, spot: Rc<Spot>, left: Vec<Block>, origin: Origin) -> Result<(), TooMuch> {
        let at = self.entries.len();
        let (rules, path) = spot.order();
        self.effort.keep(spot.size())?;
        self.order.insert((rules, path.to_owned(), at));
        self.known.insert((Rc::clone(&spot.shape), spot.marks), at);
        self.patterns.insert(&spot.pattern, at);
        self.entries.push(Entry { spot, left, origin });
        Ok(())
    }

    /// The next spot, and what is left to say of it.
    fn next(&mut self) -> Option<(Rc<Spot>, Vec<Block>)> {
        let (.., at) = self.order.pop_first()?;
        let Entry { spot, left, .. } = self.entries.get_mut(at)?;
        Some((Rc::clone(spot), std::mem::take(left)))
    }

    /// Leaves out what is said by this of all paths of a spot.
    fn say(&mut self, said: &Spot, block: &Block, except: &Patterns<()>) -> Result<(), TooMuch> {
        let within = self.patterns.within(&said.pattern);
        self.effort.spend(self.patterns.take_work())?;
        for at in within {
            let Some(Entry { spot, left, .. }) = self.entries.get_mut(at) else { continue };
            self.effort.spend(spot.weight() + left.len())?;
            if spot.marks == said.marks
                && !left.is_empty()
                && spot.says(block)
                && except.crossing(&spot.pattern).is_empty()
            {
                take(left, block);
            }
        }
        Ok(())
    }

    /// What `block` says, and is not said of `other`, is to be said by itself where it is so.
    fn except(&mut self, other: Rc<Spot>, block: &Block) -> Result<(), TooMuch> {
        let alike = other.blocks.iter().filter(|own| own.effect == block.effect);
        let rest = alike.map(|own| Block {
            hosts: own.hosts.and(&block.hosts),
            methods: own.methods.and(&block.methods),
            effect: block.effect,
        });
        let rest: Vec<Block> = rest.filter(|rest| !rest.hosts.is_empty() && !rest.methods.is_empty()).collect();
        let known = self.known.get(&(Rc::clone(&other.shape), other.marks)).and_then(|&at| self.entries.get_mut(at));
        match known {
            Some(Entry { origin: Origin::Given, .. }) => {}
            Some(Entry { left, .. }) => {
                for block in rest {
                    self.effort.spend(left.len())?;
                    self.effort.keep(block.size())?;
                    take(left, &block);
                    left.push(block);
                }
            }
            None if rest.is_empty() => {}
            None => return self.add(other, rest, Origin::Excepted),
        }
        Ok(())
    }
}

impl Spot {
    fn order(&self) -> (usize, &str) {
        (self.rules, &self.path)
    }

    /// About how many bytes it takes.
    pub(super) fn size(&self) -> usize {
        // the least patterns are those of rules
        let pattern = pattern_size(&self.pattern);
        size_of::<Self>()
            + pattern
            + self.path.len()
            + self.shape.len()
            + self.blocks.iter().map(Block::size).sum::<usize>()
    }

    /// How many names are compared where it is asked what is said.
    pub(super) fn weight(&self) -> usize {
        1 + self.blocks.iter().map(|block| 1 + block.hosts.len() + block.methods.len()).sum::<usize>()
    }

    /// Whether all that `block` says is so here.
    pub(super) fn says(&self, block: &Block) -> bool {
        let mut hosts = block.hosts.clone();
        let alike = self.blocks.iter().filter(|own| own.effect == block.effect);
        for own in alike.filter(|own| block.methods.without(&own.methods).is_empty()) {
            hosts = hosts.without(&own.hosts);
        }
        hosts.is_empty()
    }
}

impl Block {
    /// About how many bytes it takes.
    pub(super) fn size(&self) -> usize {
        size_of::<Self>() + NAME_BYTES * (self.hosts.len() + self.methods.len())
    }
}

/// What a name takes in a set, about.
const NAME_BYTES: usize = 64;

/// About how many bytes a pattern takes.
fn pattern_size(pattern: &Pattern) -> usize {
    SEGMENT_BYTES * (1 + pattern.segments().len())
}

/// What a segment takes, about.
const SEGMENT_BYTES: usize = 48;

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

#[cfg(test)]
mod tests {
    use super::super::effort::Bounds;
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
            shape: pattern.shape().into(),
            pattern,
            path: path.to_owned(),
            rules,
            marks: 0,
            least: [None, None],
            blocks: blocks.iter().map(|&block| block.clone()).collect(),
        }
    }

    fn said(spots: Vec<Spot>) -> Vec<String> {
        let spots: Vec<Rc<Spot>> = spots.into_iter().map(Rc::new).collect();
        let all = spots.clone();
        let statements = cover(spots, &Effort::within(Bounds::COMMAND), |spot, block| {
            let below = all.iter().filter(|other| spot.pattern.covers(&other.pattern) && !other.says(block));
            Ok(below.cloned().collect())
        });
        let statements = statements.unwrap();
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
