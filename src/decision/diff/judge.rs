//! Asks both sides, and says what differs.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;
use std::sync::Arc;

use http::header::HOST;
use http::{HeaderMap, HeaderValue, Method, Uri};

use super::cover::{Block, Effect, Spot, Statement};
use super::effort::{Effort, TooMuch};
use super::fact::Change;
use super::facts;
use super::meaning::Who;
use super::names::Names;
use super::people::People;
use super::policies::Policies;
use super::row::Row;
use super::sides::{Decider, Numbered, Side};
use crate::endpoint::{Action, Endpoints};
use crate::route::regions::Region;
use crate::route::{Allow, Pattern};
use crate::wire::target::Target;

/// What is held of one question while a region is looked at, about.
const QUESTION_BYTES: usize = 64;

/// What differs for a request.
#[derive(Clone, Debug)]
struct Difference {
    gains: People,
    loses: People,
    changes: Arc<[Change]>,
}

/// The places of those who gain and of those who lose, and what else differs.
type Parts = (Arc<[u32]>, Arc<[u32]>, Arc<[Change]>);

/// Asks both sides, and numbers what differs.
pub(super) struct Judge<'d, 's> {
    sides: &'d [Side<'s>; 2],
    effort: &'d Effort,
    /// Sorted.
    everybody: Vec<Who>,
    /// Of everybody.
    names: Arc<[Box<str>]>,
    by_deciders: HashMap<[Decider; 2], Option<Effect>>,
    known: HashMap<Parts, Effect>,
    differences: Vec<Difference>,
}

impl<'d, 's> Judge<'d, 's> {
    pub(super) fn of(sides: &'d [Side<'s>; 2], effort: &'d Effort) -> Self {
        let roles: BTreeSet<Who> = sides
            .iter()
            .flat_map(|side| side.snapshot.routes.routes())
            .map(|route| route.allow.clone())
            .chain(endpoints_of_one(sides).map(Action::for_whom))
            .flat_map(|allow| match allow {
                Allow::Anyone | Allow::Authenticated => Vec::new(),
                Allow::Roles(roles) => roles,
            })
            .map(Who::Role)
            .collect();
        let everybody: Vec<Who> = [Who::Anyone, Who::Authenticated].into_iter().chain(roles).collect();
        let names = everybody.iter().map(|who| who.name().into()).collect();
        let (by_deciders, known, differences) = (HashMap::new(), HashMap::new(), Vec::new());
        Self { sides, effort, everybody, names, by_deciders, known, differences }
    }

    /// What differs in a region for requests of one path, which is in it; `None` where neither side can read it, so that it
    /// matches nothing.
    ///
    /// # Errors
    /// There is more to ask, or to keep, than is allowed.
    pub(super) fn spot(&mut self, region: &Region<'_>, path: &str, marks: u8) -> Result<Option<Spot>, TooMuch> {
        let Ok(uri) = path.parse::<Uri>() else { return Ok(None) };
        let targets = self.sides.each_ref().map(|side| side.target(&uri));
        if targets.iter().all(Result::is_err) {
            return Ok(None);
        }
        let (hosts, methods) = (region.hosts(), region.methods());
        let questions = hosts.len() * methods.len();
        self.effort.spend(questions.saturating_mul(region.work + region.listed()))?;
        self.effort.fits(questions.saturating_mul(QUESTION_BYTES))?;
        let mut met: BTreeMap<Effect, BTreeMap<&str, BTreeSet<&str>>> = BTreeMap::new();
        let mut least: [Option<Option<Rc<Pattern>>>; 2] = [None, None];
        for (host, method, deciders) in self.ask(&hosts, &methods, &uri, &targets) {
            let Some(effect) = self.effect(&deciders)? else { continue };
            met.entry(effect).or_default().entry(host).or_default().insert(method.as_str());
            for ((side, decider), least) in self.sides.iter().zip(&deciders).zip(&mut least) {
                let found = side.pattern(decider);
                *least = Some(match (least.take(), found) {
                    (Some(known), found) => known.zip(found).map(|(a, b)| if a.compare(&b).is_gt() { a } else { b }),
                    (None, found) => found,
                });
            }
        }
        let all_methods: Vec<&str> = methods.iter().map(|method| method.as_str()).collect();
        let mut blocks = Vec::new();
        for (effect, by_host) in met {
            let mut by_methods: BTreeMap<Names, BTreeSet<&str>> = BTreeMap::new();
            for (host, set) in by_host {
                by_methods.entry(Names::of(&set, &all_methods)).or_default().insert(host);
            }
            let named = by_methods.into_iter();
            blocks.extend(named.map(|(methods, set)| Block { hosts: Names::of(&set, &hosts), methods, effect }));
        }
        let (pattern, least) = (region.pattern(), least.map(Option::flatten));
        let (shape, path, rules) = (pattern.shape().into(), path.to_owned(), region.rules.len());
        let spot = Spot { pattern, shape, path, rules, marks, blocks, least };
        self.effort.keep(spot.size())?;
        Ok(Some(spot))
    }

    /// What decides on each side, for every kind of host and method.
    fn ask<'r>(
        &self,
        hosts: &[&'r str],
        methods: &[&'r Method],
        uri: &Uri,
        targets: &[Result<Target, Decider>; 2],
    ) -> Vec<(&'r str, &'r Method, [Decider; 2])> {
        let mut asked = Vec::new();
        for host in hosts {
            let Ok(value) = HeaderValue::from_str(host) else { continue };
            let headers: HeaderMap = std::iter::once((HOST, value)).collect();
            let decider = |side: &Side<'_>, target: &Result<Target, Decider>, method| match target {
                Ok(target) => side.ask(method, uri, &headers, target),
                Err(refused) => refused.clone(),
            };
            let ([old, new], [old_target, new_target]) = (self.sides, targets);
            let both = |method| [decider(old, old_target, method), decider(new, new_target, method)];
            asked.extend(methods.iter().map(|method| (*host, *method, both(method))));
        }
        asked
    }

    fn effect(&mut self, deciders: &[Decider; 2]) -> Result<Option<Effect>, TooMuch> {
        if let Some(known) = self.by_deciders.get(deciders) {
            return Ok(*known);
        }
        let [old, new] = deciders;
        let effect = if self.same(old, new) { None } else { Some(self.difference(old, new)?) };
        self.effort.keep(size_of::<([Decider; 2], Option<Effect>)>())?;
        self.by_deciders.insert(deciders.clone(), effect);
        Ok(effect)
    }

    /// The number of what differs between these two.
    fn difference(&mut self, old: &Decider, new: &Decider) -> Result<Effect, TooMuch> {
        let [before, after] = self.sides;
        let (was, is) = (before.meaning(old), after.meaning(new));
        self.effort.spend(was.asked_of(self.everybody.len()) + is.asked_of(self.everybody.len()))?;
        let people = |places: Vec<usize>| People::of(&self.names, &places);
        let difference = Difference {
            gains: people(was.opens(&is, &self.everybody)),
            loses: people(is.opens(&was, &self.everybody)),
            changes: was.changes(&is).into(),
        };
        let next = self.differences.len();
        let Difference { gains, loses, changes } = &difference;
        let key = (Arc::clone(gains.places()), Arc::clone(loses.places()), Arc::clone(changes));
        if let Some(known) = self.known.get(&key) {
            return Ok(*known);
        }
        let changes = changes.iter().map(Change::size).sum::<usize>();
        self.effort.keep(2 * size_of::<Difference>() + 4 * (gains.len() + loses.len()) + changes)?;
        self.known.insert(key, next);
        self.differences.push(difference);
        Ok(next)
    }

    fn same(&self, old: &Decider, new: &Decider) -> bool {
        let [before, after] = self.sides;
        match (before.numbered(old), after.numbered(new)) {
            (Some(Numbered(_, old)), Some(Numbered(_, new))) => old == new,
            // that a path cannot be read and that nothing is there come to the same
            (None, None) => old == new || nothing_there(old) && nothing_there(new),
            (Some(_), None) | (None, Some(_)) => false,
        }
    }

    /// What is said, as a row; `None` where it is of no number known.
    ///
    /// # Errors
    /// It is more than may be kept.
    pub(super) fn row(&self, statement: Statement, policies: &Policies) -> Result<Option<Row>, TooMuch> {
        let Statement { pattern, except, marks, block: Block { hosts, methods, effect } } = statement;
        let Some(Difference { gains, loses, changes }) = self.differences.get(effect).cloned() else { return Ok(None) };
        let held = || policies.held(marks);
        self.effort.keep(size_of::<Row>() + changes.iter().map(Change::size).sum::<usize>())?;
        Ok(Some(Row {
            path: pattern.to_string(),
            except: except.iter().map(ToString::to_string).collect(),
            holding: held().map(|(marks, _)| marks.join(" or ")).collect(),
            hosts,
            methods,
            gains,
            loses,
            changes: held().map(|(_, change)| Change::besides(change.clone())).chain(changes.iter().cloned()).collect(),
        }))
    }
}

/// What endpoints do for which there is none that does the same on the other side. Of those that there are on both, it is
/// not told whom they are for.
fn endpoints_of_one(sides: &[Side<'_>; 2]) -> impl Iterator<Item = Action> {
    let [old, new] = sides.each_ref().map(|side| &side.snapshot.endpoints);
    // a path that one side alone reads leads to an endpoint there alone
    let [old_reads, new_reads] = sides.each_ref().map(|side| facts::of_paths(side.snapshot.paths));
    let alike = old_reads == new_reads;
    let alone = |own: &'_ Endpoints, other: &'_ Endpoints| -> Vec<Action> {
        let is_there = |path: &str, action| alike && other.get(path).is_some_and(|endpoint| endpoint.action == action);
        let own = own.iter().filter(|(path, endpoint)| !is_there(path, endpoint.action));
        own.map(|(_, endpoint)| endpoint.action).collect()
    };
    [alone(old, new), alone(new, old)].into_iter().flatten()
}

fn nothing_there(decider: &Decider) -> bool {
    matches!(decider, Decider::Refused(400 | 404))
}
