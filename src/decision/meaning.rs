//! What a rule is and does, in a form in which two can be compared and their differences told.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use crate::config::model::endpoints::action_name;
use crate::config::snapshot::Snapshot;
use crate::endpoint::Endpoint;
use crate::forward::{UpstreamKind, UpstreamSettings};
use crate::principal::{Role, SchemeSet, Scope};
use crate::route::{Allow, FieldEdits, Origins, Route};

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
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Meaning {
    access: Access,
    facts: Vec<Fact>,
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

/// One thing that a rule does besides.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Fact {
    label: &'static str,
    shown: String,
    /// What is compared; not shown where it may hold a secret.
    full: String,
}

impl Fact {
    fn new(label: &'static str, shown: impl Into<String>) -> Self {
        let shown = shown.into();
        Self { label, full: shown.clone(), shown }
    }
}

impl Meaning {
    /// A refusal.
    pub(super) fn refused(status: u16) -> Self {
        let nobody = Access {
            anyone: false,
            authenticated: false,
            roles: BTreeSet::new(),
            scopes: BTreeSet::new(),
            schemes: SchemeSet::default(),
        };
        Self { access: nobody, facts: vec![Fact::new("answer", status.to_string())] }
    }

    /// What the gateway answers itself: everybody gets something else than a refusal by the rules.
    pub(super) fn endpoint(endpoint: &Endpoint) -> Self {
        // a file is made of the others
        let Endpoint { path: _, action, fields, reply, status, texts, password_grant, file: _ } = endpoint;
        let mut names: Vec<_> = fields.iter().collect();
        names.sort();
        let mut action = Fact::new("answer", format!("endpoint {}", action_name(*action)));
        // what the messages say is not shown: they are long
        let mut messages: Vec<_> = texts.messages.iter().collect();
        messages.sort();
        write!(action.full, " {names:?} {reply:?} {status:?} {password_grant} {} {messages:?}", texts.member).ok();
        Self { access: Access::everybody(), facts: vec![action] }
    }

    /// What a route does.
    pub(super) fn route(snapshot: &Snapshot, route: &Route) -> Self {
        let access = Access::of(route);
        let list = |names: Vec<&str>| if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        let mut facts = vec![
            Fact::new("answer", "route"),
            Fact::new("scopes", list(access.scopes.iter().map(Scope::as_str).collect())),
            Fact::new("schemes", list(access.schemes.iter().map(crate::principal::Scheme::name).collect())),
        ];
        if let Some(upstream) = snapshot.upstreams.get(route.upstream.0) {
            facts.extend(upstream_facts(upstream));
        }
        let stream_ends = [(route.ends_streams.revocation, "revocation"), (route.ends_streams.expiry, "expiry")];
        facts.extend([
            Fact::new("strip_prefix", route.strip_prefix.as_deref().unwrap_or("none")),
            edits("request_headers", &route.request_fields),
            edits("response_headers", &route.response_fields),
            cors(route),
            Fact::new(
                "end_streams_on",
                list(stream_ends.iter().filter(|(on, _)| *on).map(|(_, name)| *name).collect()),
            ),
            Fact::new("forward_credentials", route.forward_credentials.to_string()),
            Fact::new("rate", rate(route)),
            Fact::new("timeout", time(route.timeout.unwrap_or(snapshot.upstream_timeouts.response_header))),
            Fact::new("body_bytes", bytes(route.body_bytes_max.unwrap_or(snapshot.body_bytes_max))),
        ]);
        Self { access, facts }
    }

    /// A text that is the same for rules that can stand for each other, and no other.
    pub(super) fn key(&self) -> String {
        format!("{self:?}")
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

    /// What else `new` does differently, each in a few words.
    pub(super) fn changes(&self, new: &Self) -> Vec<String> {
        let answers = |meaning: &Self| meaning.facts.first().map(|fact| fact.shown.clone()).unwrap_or_default();
        let (old_answer, new_answer) = (answers(self), answers(new));
        if old_answer != new_answer {
            // to a route or from one, who gains or loses says it
            let told = [&old_answer, &new_answer].iter().any(|answer| *answer == "route");
            let by_endpoint = [&old_answer, &new_answer].iter().any(|answer| answer.starts_with("endpoint"));
            return if told && !by_endpoint {
                Vec::new()
            } else {
                vec![format!("answer: {old_answer} → {new_answer}")]
            };
        }
        let mut changes = Vec::new();
        for fact in &new.facts {
            match self.facts.iter().find(|old| old.label == fact.label) {
                Some(old) if old.shown != fact.shown => {
                    changes.push(format!("{}: {} → {}", fact.label, old.shown, fact.shown));
                }
                Some(old) if old.full != fact.full => changes.push(format!("{}: other values", fact.label)),
                Some(_) => {}
                None => changes.push(format!("{}: {}", fact.label, fact.shown)),
            }
        }
        changes
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

fn upstream_facts(upstream: &UpstreamSettings) -> Vec<Fact> {
    let name = Fact::new("upstream", &*upstream.name);
    let UpstreamKind::Servers(group) = &upstream.kind else {
        return vec![name, Fact::new("servers", "echo")];
    };
    let mut labels: Vec<&str> = group.servers.iter().map(|server| &*server.label).collect();
    labels.sort_unstable();
    let health = group.health.as_ref().map_or_else(
        || "none".to_owned(),
        |check| {
            let (every, within) = (time(check.interval), time(check.timeout));
            format!("{} every {every} within {within}, {}/{}", check.path, check.unhealthy_after, check.healthy_after)
        },
    );
    let server_name = group.tls.as_ref().and_then(|tls| tls.server_name.as_deref()).unwrap_or("by URL");
    vec![
        name,
        Fact::new("servers", labels.join(", ")),
        Fact::new("balance", format!("{:?}", group.balance)),
        Fact::new("health", health),
        Fact::new("keep_alive", group.keep_alive.to_string()),
        Fact::new("server_name", server_name),
    ]
}

/// Names only: a value may be an API key.
fn edits(label: &'static str, edits: &FieldEdits) -> Fact {
    let mut set: Vec<_> = edits.set.iter().collect();
    set.sort_by_key(|(name, _)| name.as_str());
    let mut removed: Vec<&str> = edits.remove.iter().map(http::HeaderName::as_str).collect();
    removed.sort_unstable();
    let mut parts: Vec<String> = set.iter().map(|(name, _)| format!("set {name}")).collect();
    parts.extend(removed.iter().map(|name| format!("remove {name}")));
    let shown = if parts.is_empty() { "none".to_owned() } else { parts.join(", ") };
    Fact { label, full: format!("{set:?} {removed:?}"), shown }
}

fn cors(route: &Route) -> Fact {
    let shown = match route.cors.as_ref().map(|cors| &cors.origins) {
        None => "none".to_owned(),
        Some(Origins::Any) => "any origin".to_owned(),
        Some(Origins::Listed(origins)) => {
            origins.iter().map(|origin| String::from_utf8_lossy(origin.as_bytes())).collect::<Vec<_>>().join(", ")
        }
    };
    Fact { label: "cors", full: format!("{:?}", route.cors), shown }
}

fn rate(route: &Route) -> String {
    route.rate.as_ref().map_or_else(
        || "none".to_owned(),
        |rate| {
            format!("{} per {}, burst {}, by {:?}", rate.quota.count, time(rate.quota.per), rate.quota.burst, rate.by)
        },
    )
}

fn time(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

fn bytes(number: u64) -> String {
    if number == 0 { "no limit".to_owned() } else { number.to_string() }
}
