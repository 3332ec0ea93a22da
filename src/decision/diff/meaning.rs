//! What a rule answers and to whom, in a form in which two can be compared and their differences told.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::fmt;

use super::fact::{Change, Fact, changes};
use super::facts;
use crate::config::model::endpoints::action_name;
use crate::config::snapshot::Snapshot;
use crate::endpoint::{Action, Endpoint};
use crate::principal::{Role, SchemeSet, Scope};
use crate::route::{Allow, Route};

/// Somebody, as far as rules tell people apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Who {
    /// A caller without credentials.
    Anyone,
    /// A principal with no role that a rule names.
    Authenticated,
    /// A principal with this role.
    Role(Role),
}

impl Who {
    fn cmp_role(&self, role: &Role) -> Ordering {
        match self {
            Self::Anyone | Self::Authenticated => Ordering::Less,
            Self::Role(own) => own.cmp(role),
        }
    }

    /// The name in a diff.
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Anyone => "@anyone",
            Self::Authenticated => "@authenticated",
            Self::Role(role) => role.as_str(),
        }
    }
}

/// What a role or a scope takes in a set, about.
const NAME_BYTES: usize = 32;

/// What a rule answers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Meaning {
    answer: Answer,
    access: Access,
    facts: Vec<Fact>,
}

/// What kind of answer it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Answer {
    Refused(u16),
    Endpoint(Action),
    Route,
}

/// Who gets something else than a refusal, and under which conditions.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Access {
    anyone: bool,
    authenticated: bool,
    roles: BTreeSet<Role>,
    scopes: BTreeSet<Scope>,
    schemes: SchemeSet,
}

impl Meaning {
    /// A refusal.
    pub(super) fn refused(status: u16) -> Self {
        let access = Access::of(&Allow::Roles(Vec::new()), &[], SchemeSet::default());
        Self { answer: Answer::Refused(status), access, facts: Vec::new() }
    }

    /// What the gateway answers itself. Where credentials may come, and what they are good for, is one of the facts.
    pub(super) fn endpoint(endpoint: &Endpoint, own: &Snapshot) -> Self {
        let access = Access::of(&endpoint.action.for_whom(), &[], SchemeSet::all());
        Self { answer: Answer::Endpoint(endpoint.action), access, facts: facts::of_endpoint(endpoint, &own.texts) }
    }

    /// What a route does. `budget`: which one of both sides its `rate` is of. `other` is the other side: an upstream that
    /// has another name there is still the same.
    pub(super) fn route(route: &Route, budget: usize, own: &Snapshot, other: &Snapshot) -> Self {
        let access = Access::of(&route.allow, &route.scopes, route.schemes);
        let mut facts = vec![
            Fact::list("scopes", access.scopes.iter().map(Scope::as_str)),
            Fact::list("schemes", access.schemes.iter().map(crate::principal::Scheme::name)),
        ];
        facts.extend(facts::of_route(route, budget, own, other));
        Self { answer: Answer::Route, access, facts }
    }

    /// About how many bytes it takes.
    pub(super) fn size(&self) -> usize {
        let Access { roles, scopes, .. } = &self.access;
        size_of::<Self>() + self.facts.iter().map(Fact::size).sum::<usize>() + NAME_BYTES * (roles.len() + scopes.len())
    }

    /// A text that is the same for rules that can stand for each other, and no other.
    pub(super) fn key(&self) -> String {
        let facts: Vec<_> = self.facts.iter().map(Fact::compared).collect();
        format!("{:?} {:?} {facts:?}", self.answer, self.access)
    }

    /// Who of `everybody` gets something by `new` that this refuses, under some condition at least. What a route leads to
    /// and what an endpoint does have nothing in common: where one takes the place of another, all that it lets through gain.
    /// By their places among `everybody`, which is sorted.
    pub(super) fn opens(&self, new: &Self, everybody: &[Who]) -> Vec<usize> {
        let is_another = self.answer != new.answer;
        let (old, new) = (&self.access, &new.access);
        let conditions_stay =
            old.scopes.is_subset(&new.scopes) && new.schemes.iter().all(|scheme| old.schemes.contains(scheme));
        // both in order
        let (mut had, mut opened) = (old.through(everybody).into_iter().peekable(), new.through(everybody));
        opened.retain(|place| {
            while had.next_if(|had| had < place).is_some() {}
            is_another || had.peek() != Some(place) || !conditions_stay && everybody.get(*place) != Some(&Who::Anyone)
        });
        opened
    }

    /// How many of so many people it is asked of whether it lets them through.
    pub(super) fn asked_of(&self, everybody: usize) -> usize {
        if self.access.authenticated { everybody } else { self.access.roles.len() }
    }

    /// What else `new` does differently, by the keys and values of the file.
    pub(super) fn changes(&self, new: &Self) -> Vec<Change> {
        match (&self.answer, &new.answer) {
            // who gains or loses says it
            (Answer::Refused(_), Answer::Route) | (Answer::Route, Answer::Refused(_)) => Vec::new(),
            (old, new_answer) if old != new_answer => {
                vec![Change::besides(format!("answer: {old} -> {new_answer}"))]
            }
            _ => changes(&self.facts, &new.facts),
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(status) => write!(f, "{status}"),
            Self::Route => f.write_str("route"),
            Self::Endpoint(action) => write!(f, "endpoint {}", action_name(*action)),
        }
    }
}

impl Access {
    fn of(allow: &Allow, scopes: &[Scope], schemes: SchemeSet) -> Self {
        let (authenticated, roles) = match allow {
            // no credential is looked at
            Allow::Anyone => return Self::everybody(),
            Allow::Authenticated => (true, BTreeSet::new()),
            Allow::Roles(roles) => (false, roles.iter().cloned().collect()),
        };
        Self { anyone: false, authenticated, roles, scopes: scopes.iter().cloned().collect(), schemes }
    }

    fn everybody() -> Self {
        let none = BTreeSet::new();
        Self { anyone: true, authenticated: true, roles: BTreeSet::new(), scopes: none, schemes: SchemeSet::all() }
    }

    /// The places of those whom it lets through.
    fn through(&self, everybody: &[Who]) -> Vec<usize> {
        if self.authenticated {
            let from = usize::from(!self.anyone && everybody.first() == Some(&Who::Anyone));
            return (from..everybody.len()).collect();
        }
        // of many people it lets through those of its roles at most
        self.roles.iter().filter_map(|role| everybody.binary_search_by(|who| who.cmp_role(role)).ok()).collect()
    }
}
