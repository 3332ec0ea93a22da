//! Where two files may differ, and where what is said of one place is not so of another.
//!
//! A request is decided by one rule of each side, or by none of one. Where two rules decide some request together, they do so
//! in a region of the pattern that they have in common ([`regions`]); all of these are looked at. So the work grows with the
//! number of pairs of rules that cross each other, and not with the ways in which many of them can.
//!
//! [`regions`]: crate::route::regions

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use super::TooMany;
use super::cover::{Block, Spot};
use super::judge::Judge;
use super::policies::Policies;
use super::sides::Side;
use crate::route::Pattern;
use crate::route::patterns::Patterns;
use crate::route::regions::Regions;

/// Looks at regions that a comparison may take; some minutes.
const LOOKS_MAX: usize = 20_000_000;
/// Patterns of which it is remembered what differs there; some hundred megabytes where all differ.
const KNOWN_MAX: usize = 200_000;

/// Two files on the same ground.
pub(super) struct Survey<'d, 's> {
    sides: &'d [Side<'s>; 2],
    regions: &'d Regions<'s>,
    policies: &'d Policies,
    pub(super) judge: Judge<'d, 's>,
    /// At how many regions it was looked.
    pub(super) looks: usize,
    /// What differs in the regions of a pattern, by its shape and the marks of its paths.
    known: HashMap<(String, u8), Rc<[Rc<Spot>]>>,
}

impl<'d, 's> Survey<'d, 's> {
    pub(super) fn of(sides: &'d [Side<'s>; 2], regions: &'d Regions<'s>, policies: &'d Policies) -> Self {
        Self { sides, regions, policies, judge: Judge::of(sides), looks: 0, known: HashMap::new() }
    }

    /// The regions in which something differs, at least one for each pair of rules that decide a request together.
    ///
    /// # Errors
    /// They are too many to look at.
    pub(super) fn spots(&mut self) -> Result<Vec<Rc<Spot>>, TooMany> {
        let (mut spots, mut seen, mut asked) = (Vec::new(), HashSet::new(), HashSet::new());
        let mut look = |survey: &mut Self, pattern: &Pattern, marks: u8| -> Result<(), TooMany> {
            if asked.insert((pattern.shape(), marks)) {
                let found = survey.places(pattern, marks)?;
                let differing = found.iter().filter(|spot| !spot.blocks.is_empty());
                spots.extend(differing.filter(|spot| seen.insert((spot.pattern.shape(), spot.marks))).cloned());
            }
            Ok(())
        };
        let places = self.sides.each_ref().map(Side::places);
        let [old, new] = &places;
        for (side, own, other) in [(0, old, new), (1, new, old)] {
            for rule in self.regions.rules(side) {
                let shape = rule.pattern.shape();
                if !own.agree(other, &shape) {
                    look(self, &rule.pattern, 0)?;
                }
                // of two rules each of which has another of its shape on the other side, only one can win over the other
                if !other.take(&shape, rule) {
                    for crossing in self.regions.crossing(&rule.pattern, 1 - side) {
                        let crossing = self.regions.rules(1 - side).get(crossing);
                        if let Some(both) = crossing.and_then(|crossing| rule.pattern.meet(&crossing.pattern)) {
                            look(self, &both, 0)?;
                        }
                    }
                }
                // of paths that one side refuses to read, each rule of the other decides by itself
                for marks in self.policies.kinds().skip(1) {
                    look(self, &rule.pattern, marks)?;
                }
            }
        }
        Ok(spots)
    }

    /// The regions below a spot in which what is said of the spot is not so: enough of them that their patterns hold all
    /// requests of which it is not.
    ///
    /// # Errors
    /// They are too many to look at.
    pub(super) fn against(&mut self, spot: &Spot, block: &Block) -> Result<Vec<Rc<Spot>>, TooMany> {
        let mut excepted = Excepted::default();
        let [old, new] = [0, 1].map(|side| self.rivals(side, &spot.pattern, spot));
        for both in old.iter().filter_map(|rival| spot.pattern.meet(rival)) {
            // nor do two rules decide where one side cannot read
            if !excepted.look(self, &both, spot.marks, block)? || spot.marks != 0 {
                continue;
            }
            for all in self.rivals(1, &both, spot).iter().filter_map(|third| both.meet(third)) {
                excepted.look(self, &all, spot.marks, block)?;
            }
        }
        for both in new.iter().filter_map(|rival| spot.pattern.meet(rival)) {
            excepted.look(self, &both, spot.marks, block)?;
        }
        Ok(excepted.found)
    }

    /// The patterns of a side that match some paths of `pattern` and not all, and win over what decides in a spot.
    fn rivals(&self, side: usize, pattern: &Pattern, spot: &Spot) -> Vec<Pattern> {
        let rules = self.regions.rules(side);
        let crossing = self.regions.crossing(pattern, side);
        let crossing = crossing.into_iter().filter_map(|index| rules.get(index)).map(|rule| &rule.pattern);
        let least = spot.least.get(side).and_then(Option::as_ref);
        let wins = |rival: &&Pattern| least.is_none_or(|least| rival.compare(least).is_lt()) && !rival.covers(pattern);
        crossing.filter(wins).cloned().collect()
    }

    /// What differs in each region of a pattern, of paths that hold these marks.
    fn places(&mut self, pattern: &Pattern, marks: u8) -> Result<Rc<[Rc<Spot>]>, TooMany> {
        let key = (pattern.shape(), marks);
        if let Some(known) = self.known.get(&key) {
            return Ok(Rc::clone(known));
        }
        let found = self.regions.of(pattern, self.policies.groups(), self.policies.within(marks));
        self.looks += 1 + found.len();
        if self.looks > LOOKS_MAX {
            return Err(TooMany(LOOKS_MAX));
        }
        let places = found.into_iter().filter_map(|region| {
            let marks = region.marks | marks;
            self.judge.spot(&region, &self.policies.spelled(&region.path, marks), marks).map(Rc::new)
        });
        let places: Rc<[Rc<Spot>]> = places.collect();
        if self.known.len() < KNOWN_MAX {
            self.known.insert(key, Rc::clone(&places));
        }
        Ok(places)
    }
}

/// The regions in which what is said of a spot is not so, as far as they are found.
#[derive(Default)]
struct Excepted {
    found: Vec<Rc<Spot>>,
    /// Their patterns: what they hold need not be looked at further.
    patterns: Patterns<()>,
    asked: HashSet<String>,
}

impl Excepted {
    /// Looks at a pattern for the first time. Whether there is more to look for within it.
    fn look(
        &mut self,
        survey: &mut Survey<'_, '_>,
        pattern: &Pattern,
        marks: u8,
        block: &Block,
    ) -> Result<bool, TooMany> {
        if self.patterns.cover(pattern) || !self.asked.insert(pattern.shape()) {
            return Ok(false);
        }
        for spot in survey.places(pattern, marks)?.iter() {
            if spot.marks == marks && !spot.says(block) && !self.patterns.cover(&spot.pattern) {
                self.patterns.insert(&spot.pattern, ());
                self.found.push(Rc::clone(spot));
            }
        }
        Ok(!self.patterns.cover(pattern))
    }
}
