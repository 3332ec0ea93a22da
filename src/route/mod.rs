//! What a rule means once compiled, and the table that finds the one that decides.

pub mod pattern;
pub mod table;
pub mod cors;
pub mod regions;
pub mod explain;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};

use crate::limit::Quota;
use crate::principal::{Role, SchemeSet, Scope};

pub use cors::{Cors, Origins};
pub use pattern::{Pattern, PatternError};
pub use table::{Conflict, Miss, Table};

/// Whom a route lets through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Allow {
    /// Everyone; no credential is looked at.
    Anyone,
    /// Any principal.
    Authenticated,
    /// A principal with any one of these roles.
    Roles(Vec<Role>),
}

/// The index of an upstream in [`crate::config::snapshot::Snapshot::upstreams`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct UpstreamId(pub usize);

/// Whose requests share a route's budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RateBy {
    /// Those of one principal; of one address where anyone is allowed.
    Principal,
    /// Those of one caller's address.
    Address,
}

/// A route's own budget.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteRate {
    /// How much.
    pub quota: Quota,
    /// For whom.
    pub by: RateBy,
}

/// Fields that a route sets and removes. What it sets may be an upstream's API key, and is not printed.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct FieldEdits {
    /// Set after the removal; replaces all fields of that name.
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// Removed.
    pub remove: Vec<HeaderName>,
}

impl fmt::Debug for FieldEdits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.set.iter().map(|(name, _)| name).collect();
        f.debug_struct("FieldEdits").field("set", &names).field("remove", &self.remove).finish()
    }
}

/// What ends a route's open streams before their time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamEnds {
    /// That the credential would no longer be let pass: revoked, its principal disabled or without the role.
    pub revocation: bool,
    /// That the credential has ended.
    pub expiry: bool,
}

/// Who is shut out is shut out of what is open too. That a credential has ended says nothing against who has it, and few
/// clients expect that a download or a subscription ends with a token that lives for minutes.
impl Default for StreamEnds {
    fn default() -> Self {
        Self { revocation: true, expiry: false }
    }
}

/// One rule of the configuration, compiled.
#[derive(Clone, Debug)]
pub struct Route {
    /// The path pattern as written; the metrics label.
    pub name: Arc<str>,
    /// The line of the file where it stands, from 1.
    pub line: usize,
    /// Which paths.
    pub pattern: Pattern,
    /// Which hosts, lower case, without port; empty: all.
    pub hosts: Vec<Box<str>>,
    /// Which methods; empty: all. HEAD is allowed where GET is.
    pub methods: Vec<Method>,
    /// Who.
    pub allow: Allow,
    /// Scopes that the credential must bear, all of them.
    pub scopes: Vec<Scope>,
    /// Schemes that are offered.
    pub schemes: SchemeSet,
    /// Where to.
    pub upstream: UpstreamId,
    /// A prefix of whole segments that is taken off before the path is sent, such as `/orders`.
    pub strip_prefix: Option<Box<str>>,
    /// Edits of the request's fields.
    pub request_fields: FieldEdits,
    /// Edits of the response's fields.
    pub response_fields: FieldEdits,
    /// Which pages of other origins may read its responses; `None`: what the upstream says of it passes.
    pub cors: Option<Arc<Cors>>,
    /// What ends its open streams.
    pub ends_streams: StreamEnds,
    /// Whether `Authorization` is sent on.
    pub forward_credentials: bool,
    /// The route's budget.
    pub rate: Option<RouteRate>,
    /// How long the upstream may take to begin its response, instead of `timeouts.response_header`.
    pub timeout: Option<Duration>,
    /// The largest request body in bytes, instead of `limits.body_bytes`; 0: no limit.
    pub body_bytes_max: Option<u64>,
}

/// A route for tests: everything of its path, for everyone.
#[cfg(test)]
pub(crate) fn test_route(path: &str) -> Route {
    Route {
        name: path.into(),
        line: 1,
        pattern: Pattern::parse(path).unwrap(),
        hosts: Vec::new(),
        methods: Vec::new(),
        allow: Allow::Anyone,
        scopes: Vec::new(),
        schemes: SchemeSet::all(),
        upstream: UpstreamId(0),
        strip_prefix: None,
        request_fields: FieldEdits::default(),
        response_fields: FieldEdits::default(),
        cors: None,
        ends_streams: StreamEnds::default(),
        forward_credentials: false,
        rate: None,
        timeout: None,
        body_bytes_max: None,
    }
}
