//! What a rule means once compiled, and the table that finds the one that decides.

pub mod pattern;
mod trie;
pub mod table;
pub mod cors;
pub mod patterns;
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
pub struct UpstreamId(u32);

impl UpstreamId {
    /// Of the upstream at this index. One that is not among the first four thousand millions is none.
    pub fn new(index: usize) -> Self {
        Self(u32::try_from(index).unwrap_or(u32::MAX))
    }

    /// The index.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

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
///
/// In this order, and aligned: what every request reads is in the first two lines of the processor's memory. Among many
/// routes each request meets one that is in none of its caches.
#[derive(Clone, Debug)]
#[repr(C, align(64))]
pub struct Route {
    /// Who.
    pub allow: Allow,
    /// Which methods; empty: all. HEAD is allowed where GET is.
    pub methods: Box<[Method]>,
    /// Where to.
    pub upstream: UpstreamId,
    /// Schemes that are offered.
    pub schemes: SchemeSet,
    /// What ends its open streams.
    pub ends_streams: StreamEnds,
    /// Whether `Authorization` is sent on.
    pub forward_credentials: bool,
    /// Which pages of other origins may read its responses; `None`: what the upstream says of it passes.
    pub cors: Option<Arc<Cors>>,
    /// Edits of the request's fields. Routes without any share one that is empty.
    pub request_fields: Arc<FieldEdits>,
    /// Edits of the response's fields, likewise.
    pub response_fields: Arc<FieldEdits>,
    /// The route's budget.
    pub rate: Option<Box<RouteRate>>,
    /// How long the upstream may take to begin its response, instead of `timeouts.response_header`.
    pub timeout: Option<Duration>,
    /// The largest request body in bytes, instead of `limits.body_bytes`; 0: no limit.
    pub body_bytes_max: Option<u64>,
    /// A prefix of whole segments that is taken off before the path is sent, such as `/orders`.
    pub strip_prefix: Option<Box<str>>,
    /// Scopes that the credential must bear, all of them.
    pub scopes: Vec<Scope>,
    /// The path pattern as written; the metrics label.
    pub name: Arc<str>,
    /// The line of the file where it stands, from 1.
    pub line: usize,
    /// Which paths.
    pub pattern: Pattern,
    /// Which hosts, lower case, without port; empty: all.
    pub hosts: Vec<Box<str>>,
}

/// A route for tests: everything of its path, for everyone.
#[cfg(test)]
pub(crate) fn test_route(path: &str) -> Route {
    Route {
        allow: Allow::Anyone,
        methods: Box::default(),
        upstream: UpstreamId::new(0),
        schemes: SchemeSet::all(),
        ends_streams: StreamEnds::default(),
        forward_credentials: false,
        cors: None,
        request_fields: Arc::default(),
        response_fields: Arc::default(),
        rate: None,
        timeout: None,
        body_bytes_max: None,
        strip_prefix: None,
        scopes: Vec::new(),
        name: path.into(),
        line: 1,
        pattern: Pattern::parse(path).unwrap(),
        hosts: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use super::Route;

    #[test]
    fn what_every_request_reads_is_in_two_lines_of_memory() {
        assert_eq!((offset_of!(Route, scopes), align_of::<Route>()), (128, 64));
    }
}
