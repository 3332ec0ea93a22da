//! The immutable result of reading a configuration: finished things only.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use http::{Method, StatusCode};

use super::report::Place;
use crate::endpoint::{self, Endpoints};
use crate::forward::{self, UpstreamSettings};
use crate::principal::{Role, Scheme, SchemeSet, Scope};
use crate::record;
use crate::rejection::Texts;
use crate::route::Allow;
use crate::secret::Secret;
pub use crate::store::sql::Location as StoreLocation;
use crate::store::tables::Tables;
use crate::wire::fields::IdentityNames;
use crate::wire::forwarded::TrustedProxies;
use crate::wire::target::PathPolicy;
use crate::{authenticate, limit, listen, route};

/// One validated configuration. A reload builds a new one and swaps it whole.
#[derive(Debug)]
pub struct Snapshot {
    /// At least one.
    pub listeners: Vec<listen::Settings>,
    /// Threads that serve.
    pub workers: usize,
    /// Where metrics and health are served.
    pub admin: SocketAddr,
    /// The database.
    pub store: StoreLocation,
    /// Tables of another application in it.
    pub tables: Tables,
    /// Whose forwarding fields are believed.
    pub trusted_proxies: TrustedProxies,
    /// The section `auth`.
    pub auth: authenticate::Settings,
    /// Schemes offered where there is no route to say which (`auth.schemes`).
    pub schemes: SchemeSet,
    /// The sections `tokens` and `passwords`.
    pub tokens: endpoint::Settings,
    /// The names of the identity headers.
    pub identity: IdentityNames,
    /// The section `errors`.
    pub texts: Arc<Texts>,
    /// What an ambiguous path gets.
    pub paths: PathPolicy,
    /// Rates.
    pub limits: limit::Settings,
    /// Where the counts of all gateways are; `None`: each counts for itself.
    pub shared_limits: Option<limit::shared::Settings>,
    /// How long callers may take, and how much they may send.
    pub terms: listen::Terms,
    /// The largest request body in bytes; 0: no limit.
    pub body_bytes_max: u64,
    /// Towards upstreams.
    pub upstream_timeouts: forward::Timeouts,
    /// What the gateway answers itself.
    pub endpoints: Endpoints,
    /// By [`route::UpstreamId`].
    pub upstreams: Vec<UpstreamSettings>,
    /// The rules.
    pub routes: route::Table,
    /// The rules' own tests.
    pub expect: Vec<Expectation>,
    /// The section `log`.
    pub log: record::Settings,
    /// Users and clients to create where absent.
    pub bootstrap: Bootstrap,
    /// Files besides the configuration that it was read from; a change of one is a reason to reload.
    pub files: Vec<PathBuf>,
    /// Where the relative paths of the file begin.
    pub directory: PathBuf,
    /// What of it came from the environment.
    pub variables: Variables,
}

/// What of a file comes from the environment.
#[derive(Debug, Default)]
pub struct Variables {
    /// Each value that does.
    pub each: Vec<Variable>,
    /// All that has a name of its own in the file: the items of its lists, and its upstreams.
    pub items: BTreeSet<String>,
}

/// A value that comes from the environment.
#[derive(Debug)]
pub struct Variable {
    /// Under which keys, and of which route; to be shown.
    pub key: String,
    /// Under which keys, whatever its upstream is called.
    pub kind: String,
    /// Of which item.
    pub item: Option<String>,
    /// Whether that is a route.
    pub is_of_route: bool,
    /// Whether it is one of the roles or scopes that a route asks for.
    pub is_name: bool,
    /// The names of the variables.
    pub names: Vec<String>,
    /// The value as it is written, with defaults, which may be secrets.
    pub written: Secret<String>,
    /// What `.env` says of those that were set already when it was read, and which it does not override.
    pub overruled: Secret<Vec<Option<String>>>,
    /// Whether somebody can have more by it.
    pub gives: Gives,
}

/// Whether somebody can have more by a value of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Gives {
    /// No.
    Nothing,
    /// By another value in its place.
    AnotherValue,
    /// By that too that it comes from a variable.
    FromAVariable,
}

/// One of `expect`: what a request of a caller should get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expectation {
    /// Where it stands.
    pub place: Place,
    /// The method.
    pub method: Method,
    /// A path, or a URL with a host.
    pub url: Box<str>,
    /// As whom.
    pub caller: ExpectedCaller,
    /// The status; 200 where the request passes.
    pub status: StatusCode,
}

/// As whom a request is expected to get something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExpectedCaller {
    /// Without credentials.
    Anyone,
    /// As a principal.
    Principal {
        /// Its roles.
        roles: Vec<Role>,
        /// The scopes of its credential.
        scopes: Vec<Scope>,
        /// The scheme of its credential; `None`: one that the route offers.
        scheme: Option<Scheme>,
    },
}

/// The section `bootstrap`.
#[derive(Debug, Default)]
pub struct Bootstrap {
    /// Users; one without a password is given one that is printed once.
    pub users: Vec<BootstrapUser>,
    /// Clients.
    pub clients: Vec<BootstrapClient>,
}

/// A user to create where absent.
#[derive(Debug)]
pub struct BootstrapUser {
    /// The name.
    pub name: Box<str>,
    /// The password; `None`: generated.
    pub password: Option<Secret<String>>,
    /// The roles.
    pub roles: Vec<Role>,
}

impl Snapshot {
    /// The roles that the file defines: those that rules and endpoints ask for, and those that accounts are given. What an
    /// expectation alone names is not among them.
    pub fn roles(&self) -> BTreeSet<Box<str>> {
        let of_rules = self.routes.routes().iter().map(|route| route.allow.clone());
        let of_endpoints = self.endpoints.values().map(|endpoint| endpoint.action.for_whom());
        let asked = of_rules.chain(of_endpoints).filter_map(|allow| match allow {
            Allow::Roles(roles) => Some(roles),
            Allow::Anyone | Allow::Authenticated => None,
        });
        let users = self.bootstrap.users.iter().map(|user| user.roles.clone());
        let clients = self.bootstrap.clients.iter().map(|client| client.roles.clone());
        let all = asked.chain(users).chain(clients).flatten().chain([self.tokens.default_role.clone()]);
        all.map(|role| role.as_str().into()).collect()
    }
}

/// A client to create where absent.
#[derive(Debug)]
pub struct BootstrapClient {
    /// The `client_id`.
    pub id: Box<str>,
    /// The `client_secret`; `None`: generated.
    pub secret: Option<Secret<String>>,
    /// The roles.
    pub roles: Vec<Role>,
    /// The scopes it may ask for.
    pub scopes: Vec<Scope>,
}
