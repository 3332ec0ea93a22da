//! Where two files may differ, and where what is said of one place is not so of another.
//!
//! A request is decided by one rule of each side, or by none of one. Where two rules decide some request together, they do so
//! in a region of the pattern that they have in common ([`regions`]); all of these are looked at. So the work grows with the
//! number of pairs of rules that cross each other, and not with the ways in which many of them can.
//!
//! [`regions`]: crate::route::regions

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use super::cover::{Block, Spot};
use super::effort::{Effort, TooMuch};
use super::judge::Judge;
use super::policies::Policies;
use super::sides::Side;
use crate::route::Pattern;
use crate::route::patterns::Patterns;
use crate::route::regions::Regions;

/// What it takes to remember something by a shape, beside the shape.
const ENTRY_BYTES: usize = 64;

type Spots = Rc<[Rc<Spot>]>;

/// Two files on the same ground.
pub(super) struct Survey<'d, 's> {
    sides: &'d [Side<'s>; 2],
    regions: &'d Regions<'s>,
    policies: &'d Policies,
    effort: &'d Effort,
    pub(super) judge: Judge<'d, 's>,
    /// What differs in the regions of a pattern, by its shape and the marks of its paths.
    known: HashMap<(Rc<str>, u8), Spots>,
}

impl<'d, 's> Survey<'d, 's> {
    pub(super) fn of(
        sides: &'d [Side<'s>; 2],
        regions: &'d Regions<'s>,
        policies: &'d Policies,
        effort: &'d Effort,
    ) -> Self {
        Self { sides, regions, policies, effort, judge: Judge::of(sides, effort), known: HashMap::new() }
    }

    /// The regions in which something differs, at least one for each pair of rules that decide a request together.
    ///
    /// # Errors
    /// They are too many to look at.
    pub(super) fn spots(&mut self) -> Result<Vec<Rc<Spot>>, TooMuch> {
        let (mut spots, mut seen, mut asked) = (Vec::new(), HashSet::new(), HashSet::new());
        let mut look = |survey: &mut Self, pattern: &Pattern, shape: &Rc<str>, marks: u8| -> Result<(), TooMuch> {
            if asked.insert((Rc::clone(shape), marks)) {
                let found = survey.places(pattern, shape, marks)?;
                let differing = found.iter().filter(|spot| !spot.blocks.is_empty());
                spots.extend(differing.filter(|spot| seen.insert((Rc::clone(&spot.shape), spot.marks))).cloned());
            }
            Ok(())
        };
        let places = self.sides.each_ref().map(Side::places);
        let [old, new] = &places;
        for (side, own, other) in [(0, old, new), (1, new, old)] {
            let mut compared = HashSet::new();
            for rule in self.regions.rules(side) {
                let shape: Rc<str> = rule.pattern.shape().into();
                if compared.insert(Rc::clone(&shape)) && !own.agree(other, &shape) {
                    look(self, &rule.pattern, &shape, 0)?;
                }
                // of two rules each of which has another of its shape on the other side, only one can win over the other
                let (hosts, methods) = (1 + rule.hosts.len(), 2 + rule.methods.len());
                self.effort.spend(1 + other.count(&shape).saturating_mul(hosts).saturating_mul(methods))?;
                if !other.take(&shape, rule) {
                    let crossing = self.regions.crossing(&rule.pattern, 1 - side);
                    self.worked(crossing.len())?;
                    for crossing in crossing {
                        let crossing = self.regions.rules(1 - side).get(crossing);
                        if let Some(both) = crossing.and_then(|crossing| rule.pattern.meet(&crossing.pattern)) {
                            look(self, &both, &both.shape().into(), 0)?;
                        }
                    }
                }
                // of paths that one side refuses to read, each rule of the other decides by itself
                for marks in self.policies.kinds().skip(1) {
                    look(self, &rule.pattern, &shape, marks)?;
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
    pub(super) fn against(&mut self, spot: &Spot, block: &Block) -> Result<Vec<Rc<Spot>>, TooMuch> {
        let mut excepted = Excepted::default();
        let old = self.rivals(0, &spot.pattern, spot)?;
        for both in old.iter().filter_map(|rival| spot.pattern.meet(rival)) {
            // nor do two rules decide where one side cannot read
            if !excepted.look(self, &both, spot.marks, block)? || spot.marks != 0 {
                continue;
            }
            for all in self.rivals(1, &both, spot)?.iter().filter_map(|third| both.meet(third)) {
                excepted.look(self, &all, spot.marks, block)?;
            }
        }
        let new = self.rivals(1, &spot.pattern, spot)?;
        for both in new.iter().filter_map(|rival| spot.pattern.meet(rival)) {
            excepted.look(self, &both, spot.marks, block)?;
        }
        Ok(excepted.found)
    }

    /// The patterns of a side that match some paths of `pattern` and not all, and win over what decides in a spot.
    fn rivals(&self, side: usize, pattern: &Pattern, spot: &Spot) -> Result<Vec<&'d Pattern>, TooMuch> {
        let regions = self.regions;
        let rules = regions.rules(side);
        let crossing = regions.crossing(pattern, side);
        self.worked(crossing.len() * (1 + pattern.segments().len()))?;
        let crossing = crossing.into_iter().filter_map(|index| rules.get(index)).map(|rule| &rule.pattern);
        let least = spot.least.get(side).and_then(Option::as_deref);
        let wins = |rival: &&Pattern| least.is_none_or(|least| rival.compare(least).is_lt()) && !rival.covers(pattern);
        Ok(crossing.filter(wins).collect())
    }

    /// What differs in each region of a pattern of this shape, of paths that hold these marks.
    fn places(&mut self, pattern: &Pattern, shape: &Rc<str>, marks: u8) -> Result<Spots, TooMuch> {
        let key = (Rc::clone(shape), marks);
        if let Some(known) = self.known.get(&key) {
            self.effort.spend(1 + known.len())?;
            return Ok(Rc::clone(known));
        }
        let found = self.regions.of(pattern, self.policies.groups(), self.policies.within(marks));
        self.worked(found.len())?;
        let mut places = Vec::new();
        for region in found {
            let marks = region.marks | marks;
            places.extend(self.judge.spot(&region, &self.policies.spelled(&region.path, marks), marks)?.map(Rc::new));
        }
        self.effort.keep(ENTRY_BYTES + shape.len())?;
        let places: Spots = places.into();
        self.known.insert(key, Rc::clone(&places));
        Ok(places)
    }

    /// Counts what a question about patterns took, and so many patterns that it found.
    fn worked(&self, found: usize) -> Result<(), TooMuch> {
        self.effort.spend(self.regions.take_work() + found)
    }
}

/// The regions in which what is said of a spot is not so, as far as they are found.
#[derive(Default)]
struct Excepted {
    found: Vec<Rc<Spot>>,
    /// Their patterns: what they hold need not be looked at further.
    patterns: Patterns<()>,
    asked: HashSet<Rc<str>>,
}

impl Excepted {
    /// Looks at a pattern for the first time. Whether there is more to look for within it.
    fn look(
        &mut self,
        survey: &mut Survey<'_, '_>,
        pattern: &Pattern,
        marks: u8,
        block: &Block,
    ) -> Result<bool, TooMuch> {
        // most have met in the same before, and that is found out sooner than what covers it
        let shape: Rc<str> = pattern.shape().into();
        survey.effort.spend(1 + pattern.segments().len())?;
        if !self.asked.insert(Rc::clone(&shape)) {
            return Ok(false);
        }
        survey.effort.fits(self.asked.len() * (ENTRY_BYTES + shape.len()))?;
        if self.covers(pattern, survey.effort)? {
            return Ok(false);
        }
        let before = self.found.len();
        for spot in survey.places(pattern, &shape, marks)?.iter() {
            survey.effort.spend(spot.weight())?;
            if spot.marks == marks && !spot.says(block) && !self.covers(&spot.pattern, survey.effort)? {
                self.patterns.insert(&spot.pattern, ());
                self.found.push(Rc::clone(spot));
            }
        }
        Ok(self.found.len() == before || !self.covers(pattern, survey.effort)?)
    }

    fn covers(&self, pattern: &Pattern, effort: &Effort) -> Result<bool, TooMuch> {
        let is_covered = self.patterns.cover(pattern);
        effort.spend(self.patterns.take_work())?;
        Ok(is_covered)
    }
}
