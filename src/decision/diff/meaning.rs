//! What a rule answers and to whom, in a form in which two can be compared and their differences told.

use std::collections::BTreeSet;

use super::facts::{self, Fact};
use crate::config::snapshot::Snapshot;
use crate::endpoint::Endpoint;
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
    /// The name in a diff.
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Anyone => "@anyone",
            Self::Authenticated => "@authenticated",
            Self::Role(role) => role.as_str(),
        }
    }
}

/// What a rule answers.
#[derive(Clone, Debug)]
pub(super) struct Meaning {
    answer: Answer,
    access: Access,
    facts: Vec<Fact>,
}

/// What kind of answer it is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Answer {
    Refused(u16),
    Endpoint,
    Route,
}

/// Who gets something else than a refusal, and under which conditions.
#[derive(Clone, Debug, PartialEq, Eq)]
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
        let access = Access {
            anyone: false,
            authenticated: false,
            roles: BTreeSet::new(),
            scopes: BTreeSet::new(),
            schemes: SchemeSet::default(),
        };
        Self { answer: Answer::Refused(status), access, facts: Vec::new() }
    }

    /// What the gateway answers itself: everybody gets something else than a refusal by the rules.
    pub(super) fn endpoint(endpoint: &Endpoint, own: &Snapshot) -> Self {
        let facts = facts::of_endpoint(endpoint, &own.texts);
        Self { answer: Answer::Endpoint, access: Access::everybody(), facts }
    }

    /// What a route does. `other` is the other side: an upstream that has another name there is still the same.
    pub(super) fn route(route: &Route, own: &Snapshot, other: &Snapshot) -> Self {
        let access = Access::of(route);
        let mut facts = vec![
            Fact::list("scopes", access.scopes.iter().map(Scope::as_str)),
            Fact::list("schemes", access.schemes.iter().map(crate::principal::Scheme::name)),
        ];
        facts.extend(facts::of_route(route, own, other));
        Self { answer: Answer::Route, access, facts }
    }

    /// A text that is the same for rules that can stand for each other, and no other.
    pub(super) fn key(&self) -> String {
        let facts: Vec<_> = self.facts.iter().map(Fact::compared).collect();
        format!("{:?} {:?} {facts:?}", self.answer, self.access)
    }

    /// Who of `everybody` gets something by `new` that this refuses, under some condition at least.
    pub(super) fn opens<'w>(&self, new: &Self, everybody: &'w [Who]) -> Vec<&'w Who> {
        let opens = |who: &&Who| {
            let (old, new) = (&self.access, &new.access);
            let conditions_stay =
                old.scopes.is_subset(&new.scopes) && new.schemes.iter().all(|scheme| old.schemes.contains(scheme));
            new.lets(who) && !(old.lets(who) && (**who == Who::Anyone || conditions_stay))
        };
        everybody.iter().filter(opens).collect()
    }

    /// What else `new` does differently, by the keys and values of the file.
    pub(super) fn changes(&self, new: &Self) -> Vec<String> {
        match (&self.answer, &new.answer) {
            // who gains or loses says it
            (Answer::Refused(_), Answer::Route) | (Answer::Route, Answer::Refused(_)) => Vec::new(),
            (old, new_answer) if old != new_answer => {
                vec![format!("answer: {} -> {}", self.answer(), new.answer())]
            }
            _ => facts::changes(&self.facts, &new.facts),
        }
    }

    fn answer(&self) -> String {
        match self.answer {
            Answer::Refused(status) => status.to_string(),
            Answer::Route => "route".to_owned(),
            Answer::Endpoint => format!("endpoint {}", self.facts.first().map(Fact::shown).unwrap_or_default()),
        }
    }
}

impl Access {
    fn everybody() -> Self {
        let none = BTreeSet::new();
        Self { anyone: true, authenticated: true, roles: BTreeSet::new(), scopes: none, schemes: SchemeSet::all() }
    }

    fn of(route: &Route) -> Self {
        let scopes = route.scopes.iter().cloned().collect();
        let (authenticated, roles) = match &route.allow {
            Allow::Anyone => return Self::everybody(),
            Allow::Authenticated => (true, BTreeSet::new()),
            Allow::Roles(roles) => (false, roles.iter().cloned().collect()),
        };
        Self { anyone: false, authenticated, roles, scopes, schemes: route.schemes }
    }

    fn lets(&self, who: &Who) -> bool {
        match who {
            Who::Anyone => self.anyone,
            Who::Authenticated => self.authenticated,
            Who::Role(role) => self.authenticated || self.roles.contains(role),
        }
    }
}
