//! Where two files may differ, and where what is said of one place is not so of another.
//!
//! A request is decided by one rule of each side, or by none of one. Where two rules decide some request together, they do so
//! in a region of the pattern that they have in common ([`regions`]); all of these are looked at. So the work grows with the
//! number of pairs of rules that cross each other, and not with the ways in which many of them can.
//!
//! [`regions`]: crate::route::regions

use std::collections::HashSet;

use super::TooMany;
use super::cover::{Block, Spot};
use super::judge::Judge;
use super::policies::Policies;
use super::sides::Side;
use crate::route::Pattern;
use crate::route::regions::{Region, Regions};
use crate::wire::target::canonical_path;

/// Looks at regions that a comparison may take; some minutes.
const LOOKS_MAX: usize = 20_000_000;

/// Two files on the same ground.
pub(super) struct Survey<'d, 's> {
    pub(super) sides: &'d [Side<'s>; 2],
    pub(super) regions: &'d Regions<'s>,
    pub(super) policies: &'d Policies,
    pub(super) judge: Judge<'d, 's>,
    /// At how many regions it was looked.
    pub(super) looks: usize,
}

impl<'d> Survey<'d, '_> {
    /// The regions in which something differs, at least one for each pair of rules that decide a request together.
    ///
    /// # Errors
    /// They are too many to look at.
    pub(super) fn spots(&mut self) -> Result<Vec<Spot>, TooMany> {
        let (mut spots, mut seen, mut asked) = (Vec::new(), HashSet::new(), HashSet::new());
        let mut look = |survey: &mut Self, pattern: &Pattern, marks: u8| -> Result<(), TooMany> {
            if !asked.insert((pattern.shape(), marks)) {
                return Ok(());
            }
            for (region, path, marks) in survey.places(pattern, marks)? {
                if seen.insert((region.pattern().shape(), marks)) {
                    spots.push(survey.judge.spot(&region, &path, marks));
                }
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
        spots.retain(|spot: &Spot| !spot.blocks.is_empty());
        Ok(spots)
    }

    /// The regions below a spot in which what is said of the spot is not so: enough of them that their patterns hold all
    /// requests of which it is not.
    ///
    /// # Errors
    /// They are too many to look at.
    pub(super) fn against(&mut self, spot: &Spot, block: &Block) -> Result<Vec<Spot>, TooMany> {
        let (mut found, mut seen, mut asked) = (Vec::new(), HashSet::new(), HashSet::new());
        let mut look = |survey: &mut Self, pattern: &Pattern| -> Result<bool, TooMany> {
            let shape = pattern.shape();
            let mut is_whole = false;
            if !asked.insert(shape.clone()) {
                return Ok(is_whole);
            }
            for (region, path, marks) in survey.places(pattern, spot.marks)? {
                if marks != spot.marks || survey.judge.agrees(&region, &path, block) {
                    continue;
                }
                let own = region.pattern().shape();
                is_whole |= own == shape;
                if seen.insert(own) {
                    found.push(survey.judge.spot(&region, &path, marks));
                }
            }
            Ok(is_whole)
        };
        let [old, new] = [0, 1].map(|side| self.rivals(side, &spot.pattern, spot));
        for rival in &old {
            let Some(both) = spot.pattern.meet(rival) else { continue };
            // what is not so in all of it need not be looked at further; nor do two rules decide where one side cannot read
            if look(self, &both)? || spot.marks != 0 {
                continue;
            }
            for third in self.rivals(1, &both, spot) {
                if let Some(all) = both.meet(&third) {
                    look(self, &all)?;
                }
            }
        }
        for rival in new.iter().filter_map(|rival| spot.pattern.meet(rival)) {
            look(self, &rival)?;
        }
        Ok(found)
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

    /// The regions of a pattern, each with a path that holds these marks.
    fn places(&mut self, pattern: &Pattern, marks: u8) -> Result<Vec<(Region<'d>, String, u8)>, TooMany> {
        let (policies, sides, regions) = (self.policies, self.sides, self.regions);
        let within = policies.within(marks);
        let found = regions.of(pattern, policies.groups(), within);
        self.looks += 1 + found.len();
        if self.looks > LOOKS_MAX {
            return Err(TooMany(LOOKS_MAX));
        }
        let places = found.into_iter().map(|region| {
            let marks = region.marks | marks;
            let path = policies.spelled(&region.path, marks);
            (region, path, marks)
        });
        // what neither side can read matches nothing
        let is_readable = |path: &str| sides.iter().any(|side| canonical_path(path, &side.snapshot.paths).is_ok());
        Ok(places.filter(|(_, path, _)| is_readable(path)).collect())
    }
}
