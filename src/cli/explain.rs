//! `portcullis explain FILE METHOD URL`: what a request would get, and why. Asks the function that serves requests.
//!
//! A credential that is given is proved against the store, as a request's would be, and a token of another issuer by the
//! keys at its URL; nothing else is asked over a network.

use std::fmt::Write as _;
use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::{Value, json};

use super::operator::{CliError, Operator};
use super::output::{complain, print};
use super::{BROKEN, load};
use crate::authenticate::issuers::Issuers;
use crate::authenticate::keys::Keys;
use crate::authenticate::password::PasswordPool;
use crate::authenticate::{Authenticator, Caller, Identity, LookUp, Visit};
use crate::clock::Clock;
use crate::config;
use crate::config::model::endpoints::action_name;
use crate::config::snapshot::{Snapshot, StoreLocation};
use crate::decision::Request;
use crate::decision::explain::{Asker, Question, allow_json, explain as explained, reach, upstream, who_may};
use crate::endpoint::Endpoint;
use crate::limit::Limits;
use crate::principal::{Principal, Role, Scheme, SchemeSet, Scope, Subject, SubjectKind};
use crate::record::audit::Audit;
use crate::record::metrics::{Metrics, WorkerMetrics};
use crate::rejection::{CredentialsFault, Rejection};
use crate::route::{Allow, Route};
use crate::store::changes::Changes;
use crate::store::sql::SqlStore;
use crate::store::{Account, Store};
use crate::wire::authorization::{self, Credential};

/// The longest `Authorization` that is read from standard input, in bytes.
const AUTHORIZATION_BYTES_MAX: u64 = 64 << 10;

/// `portcullis explain …`
#[derive(Debug, Args)]
pub struct ExplainArguments {
    /// The configuration file
    file: PathBuf,
    /// The method, such as GET
    #[arg(requires = "url")]
    method: Option<String>,
    /// A path, or a URL with a host
    url: Option<String>,
    /// As this user, with the roles that the store knows
    #[arg(long, value_name = "NAME", conflicts_with_all = ["role", "authorization", "anyone"])]
    user: Option<String>,
    /// As somebody with this role; may be given several times
    #[arg(long, value_name = "ROLE", conflicts_with_all = ["authorization", "anyone"])]
    role: Vec<String>,
    /// With a credential that bears this scope; may be given several times
    #[arg(long, value_name = "SCOPE", conflicts_with_all = ["authorization", "anyone"])]
    scope: Vec<String>,
    /// By this scheme: basic, token or bearer
    #[arg(long, value_name = "SCHEME", value_parser = scheme, conflicts_with_all = ["authorization", "anyone"])]
    scheme: Option<Scheme>,
    /// With this Authorization, which is proved against the store; `-` reads it from standard input
    #[arg(long, value_name = "VALUE", requires = "url", conflicts_with = "anyone", hide_env_values = true)]
    authorization: Option<String>,
    /// As a caller without credentials
    #[arg(long, requires = "url")]
    anyone: bool,
    /// With this field, as `Name: value`; may be given several times. With `Origin` and `Access-Control-Request-Method`,
    /// `OPTIONS` is a preflight
    #[arg(long, value_name = "FIELD", requires = "url", value_parser = field)]
    header: Vec<(HeaderName, HeaderValue)>,
    /// From this address
    #[arg(long, value_name = "ADDRESS", requires = "url", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    address: IpAddr,
    /// As JSON
    #[arg(long)]
    json: bool,
}

fn scheme(name: &str) -> Result<Scheme, String> {
    Scheme::from_name(name).ok_or_else(|| "expected basic, token or bearer".to_owned())
}

fn field(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text.split_once(':').ok_or("expected `Name: value`")?;
    let name: HeaderName = name.parse().map_err(|_| "this is not the name of a field")?;
    // what they would say is said otherwise, or is about a body, and there is none
    let instead = match name.as_str() {
        "host" => Some("the host is a part of the URL"),
        "authorization" => Some("a credential is given by `--authorization`"),
        "content-length" | "transfer-encoding" | "upgrade" | "expect" => {
            Some("what is asked about has no body, nor another protocol")
        }
        _ => None,
    };
    if let Some(instead) = instead {
        return Err(instead.to_owned());
    }
    let value = HeaderValue::from_str(value.trim_matches([' ', '\t']));
    value.map(|value| (name, value)).map_err(|_| "this cannot be the value of a field".to_owned())
}

/// Prints the answer: 0 where the request would pass or, nobody being named, somebody may; 1 where it would be refused.
pub fn explain(arguments: &ExplainArguments) -> ExitCode {
    let Some(snapshot) = load(&arguments.file) else { return ExitCode::from(BROKEN) };
    let answer = match (&arguments.method, &arguments.url) {
        (Some(method), Some(url)) => one(&snapshot, arguments, method, url),
        (Some(_) | None, _) => all(&snapshot, arguments),
    };
    answer.unwrap_or_else(|error| {
        complain(&format!("portcullis: {error}\n"));
        error.exit_code()
    })
}

/// What one request gets.
fn one(snapshot: &Snapshot, arguments: &ExplainArguments, method: &str, url: &str) -> Result<ExitCode, CliError> {
    let method: Method = method.parse().map_err(|_| CliError::Usage("a method is a word such as GET".to_owned()))?;
    let mut request = Request::parse(&method, url);
    let authorization = authorization(arguments)?;
    if let Ok(request) = &mut request {
        for (name, value) in &arguments.header {
            request.headers.append(name, value.clone());
        }
    }
    if let (Ok(request), Some(value)) = (&mut request, &authorization) {
        request.headers.insert(AUTHORIZATION, value.clone());
    }
    let question = Question::of(&method, url, request).from(arguments.address).at_a_listener();
    let explanation = if let Some(value) = authorization {
        let prover = Prover::open(snapshot)?;
        explained(
            snapshot,
            question,
            Asker::Proving(Box::new(|schemes, kind| prover.prove(snapshot, (schemes, kind), value, arguments))),
        )
    } else if arguments.anyone {
        explained(snapshot, question, Asker::Anyone)
    } else {
        match claim(snapshot, arguments)? {
            None => explained(snapshot, question, Asker::Open),
            Some(Claim { disabled: true, .. }) => {
                let refuse = |_, _| Err(Rejection::InvalidCredentials(CredentialsFault::Disabled));
                explained(snapshot, question, Asker::Proving(Box::new(refuse)))
            }
            Some(Claim { principal, .. }) => explained(snapshot, question, Asker::Claimed(principal, arguments.scheme)),
        }
    };
    if arguments.json {
        print(&format!("{:#}\n", explanation.json()))?;
    } else {
        print(&explanation.to_string())?;
    }
    Ok(if explanation.is_refused() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// All that a principal reaches.
fn all(snapshot: &Snapshot, arguments: &ExplainArguments) -> Result<ExitCode, CliError> {
    let Some(claim) = claim(snapshot, arguments)? else {
        let usage = "expected a method and a URL, or a `--role` or `--user` whose reach is listed";
        return Err(CliError::Usage(usage.to_owned()));
    };
    let (mut reached, mut endpoints) = (Vec::new(), Vec::new());
    if !claim.disabled {
        reached = reach(snapshot, &claim.principal, arguments.scheme);
        endpoints = endpoints_of(snapshot, &claim.principal);
    }
    if arguments.json {
        let routes = reached.iter().map(|(route, _)| as_json(snapshot, route));
        let list = routes.chain(endpoints.iter().map(|endpoint| endpoint_as_json(endpoint))).collect::<Value>();
        print(&format!("{list:#}\n"))?;
        return known(snapshot, &arguments.role);
    }
    let mut lines = String::new();
    for (route, missing) in &reached {
        let mut line = format!("{} (line {}): ", route.name, route.line);
        line.push_str(&if route.methods.is_empty() { "every method".to_owned() } else { methods(route).join(", ") });
        if !route.hosts.is_empty() {
            write!(line, ", on {}", route.hosts.join(", ")).ok();
        }
        // writing to a text cannot fail
        write!(line, ", to {}; for {}", upstream(snapshot, route), who_may(route)).ok();
        if !missing.is_empty() {
            let names: Vec<&str> = missing.iter().map(Scope::as_str).collect();
            write!(line, " (the credential must bear {})", names.join(", ")).ok();
        }
        lines.push_str(&line);
        lines.push('\n');
    }
    for endpoint in &endpoints {
        let methods: Vec<&str> = endpoint.methods().iter().map(Method::as_str).collect();
        let (path, action) = (&endpoint.path, action_name(endpoint.action));
        writeln!(lines, "{path} (endpoint {action}): {}; for clients with that role", methods.join(", ")).ok();
    }
    if lines.is_empty() {
        lines.push_str("nothing\n");
    }
    print(&lines)?;
    known(snapshot, &arguments.role)
}

/// Whether the file knows each of these roles: what one that nobody has reaches is no answer to whoever misspelt another.
fn known(snapshot: &Snapshot, asked: &[String]) -> Result<ExitCode, CliError> {
    let known = snapshot.roles();
    let Some(role) = asked.iter().find(|role| !known.contains(role.as_str())) else { return Ok(ExitCode::SUCCESS) };
    let names: Vec<&str> = known.iter().map(|name| &**name).collect();
    let question = config::report::nearest(role, &names).map(|name| format!(": did you mean `{name}`?"));
    let role = config::report::quoted(role);
    Err(CliError::No(format!("no rule or account of this file names the role {role}{}", question.unwrap_or_default())))
}

/// The endpoints that are for a role of the principal. The others are for everybody, or for all who have a credential.
fn endpoints_of<'s>(snapshot: &'s Snapshot, principal: &Principal) -> Vec<&'s Endpoint> {
    let is_for = |endpoint: &&Endpoint| match endpoint.action.for_whom() {
        Allow::Roles(roles) => roles.iter().any(|role| principal.has_role(role)),
        Allow::Anyone | Allow::Authenticated => false,
    };
    let mut endpoints: Vec<&Endpoint> =
        snapshot.endpoints.values().map(|endpoint| &**endpoint).filter(is_for).collect();
    endpoints.sort_by_key(|endpoint| &*endpoint.path);
    endpoints
}

fn endpoint_as_json(endpoint: &Endpoint) -> Value {
    json!({
        "path": &*endpoint.path,
        "line": null,
        "endpoint": action_name(endpoint.action),
        "hosts": [],
        "methods": endpoint.methods().iter().map(Method::as_str).collect::<Vec<_>>(),
        "allow": allow_json(&endpoint.action.for_whom()),
        "scopes": [],
        "schemes": endpoint.schemes().iter().map(Scheme::name).collect::<Vec<_>>(),
        "upstream": null,
    })
}

fn methods(route: &Route) -> Vec<&str> {
    route.listed_methods().map(Method::as_str).collect()
}

fn as_json(snapshot: &Snapshot, route: &Route) -> Value {
    json!({
        "path": &*route.name,
        "line": route.line,
        "endpoint": null,
        "hosts": route.hosts,
        "methods": methods(route),
        "allow": allow_json(&route.allow),
        "scopes": route.scopes.iter().map(Scope::as_str).collect::<Vec<_>>(),
        "schemes": route.schemes.iter().map(Scheme::name).collect::<Vec<_>>(),
        "upstream": upstream(snapshot, route),
    })
}

/// Whom the arguments name.
struct Claim {
    principal: Principal,
    disabled: bool,
}

fn claim(snapshot: &Snapshot, arguments: &ExplainArguments) -> Result<Option<Claim>, CliError> {
    let scopes: Arc<[Scope]> = arguments.scope.iter().map(|scope| Scope::from(scope.as_str())).collect();
    if let Some(name) = &arguments.user {
        if let Some(path) = absent(&snapshot.store) {
            let (name, path) = (config::report::quoted(name), path.display());
            return Err(CliError::No(format!("there is no user {name}: there is no store at {path} yet")));
        }
        let operator = Operator::open(snapshot)?;
        let account = operator.wait(operator.store().account(Subject::user(name.as_str())))?;
        let Some(Account { subject, id, roles, disabled, .. }) = account else {
            return Err(CliError::No(format!("there is no user {}", config::report::quoted(name))));
        };
        return Ok(Some(Claim { principal: Principal { subject, user_id: Some(id), roles, scopes }, disabled }));
    }
    if arguments.role.is_empty() && scopes.is_empty() && arguments.scheme.is_none() {
        return Ok(None);
    }
    if arguments.role.iter().any(|role| role.starts_with('@')) {
        let usage = "the name of a role does not begin with `@`: `--anyone` asks for a caller without credentials, and \
                     `--scheme` without a role for a principal that has none";
        return Err(CliError::Usage(usage.to_owned()));
    }
    let roles = arguments.role.iter().map(|role| Role::from(role.as_str())).collect();
    let principal = Principal { subject: Subject::user("somebody"), user_id: None, roles, scopes };
    Ok(Some(Claim { principal, disabled: false }))
}

fn authorization(arguments: &ExplainArguments) -> Result<Option<HeaderValue>, CliError> {
    let Some(given) = &arguments.authorization else { return Ok(None) };
    let mut text = given.clone();
    if given == "-" {
        text.clear();
        let mut input = std::io::stdin().take(AUTHORIZATION_BYTES_MAX);
        input.read_to_string(&mut text).map_err(|error| CliError::Io("reading the credential", error))?;
    }
    let value = HeaderValue::from_str(text.trim_end_matches(['\r', '\n']));
    value.map(Some).map_err(|_| CliError::Usage("this cannot be the value of a header".to_owned()))
}

/// The file of a store that nobody has made yet. Whoever only asks makes none.
fn absent(store: &StoreLocation) -> Option<&Path> {
    match store {
        StoreLocation::Sqlite(path) => Some(&**path).filter(|path| !path.exists()),
        StoreLocation::Server(_) => None,
    }
}

/// An empty store in the place of one that nobody has made yet, in a folder of our own; gone when it is dropped.
struct Stand(PathBuf);

impl Stand {
    fn new() -> std::io::Result<Self> {
        let random = getrandom::u64().map_err(std::io::Error::other)?;
        let folder = std::env::temp_dir().join(format!("portcullis-explain-{random:016x}"));
        // fails where somebody else has made it
        std::fs::DirBuilder::new().mode(0o700).create(&folder)?;
        Ok(Self(folder))
    }

    fn location(&self) -> StoreLocation {
        StoreLocation::Sqlite(self.0.join("store.db"))
    }
}

impl Drop for Stand {
    fn drop(&mut self) {
        // what cannot be removed is empty
        std::fs::remove_dir_all(&self.0).ok();
    }
}

/// Finds out who a credential belongs to, as the gateway does.
struct Prover {
    runtime: tokio::runtime::Runtime,
    store: Arc<SqlStore>,
    authenticator: Authenticator,
    metrics: WorkerMetrics,
    clock: Clock,
    /// Dropped last.
    _stand: Option<Stand>,
}

impl Prover {
    fn open(snapshot: &Snapshot) -> Result<Self, CliError> {
        let starting = |error| CliError::Io("starting", error);
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().map_err(starting)?;
        let clock = Clock::system();
        let stand = absent(&snapshot.store).map(|_| Stand::new()).transpose().map_err(starting)?;
        let location = stand.as_ref().map_or_else(|| snapshot.store.clone(), Stand::location);
        let store =
            Arc::new(SqlStore::open(&location, &snapshot.tables, runtime.handle().clone(), clock.clone(), |_, _| {})?);
        let shared = Arc::clone(&store) as Arc<dyn Store>;
        let keys = runtime
            .block_on(Keys::load(Arc::clone(&shared), clock.clone()))
            .map_err(|error| CliError::Usage(format!("signing keys: {error}")))?;
        let limits = Limits::new(clock.clone());
        limits.apply(&snapshot.limits);
        let (changes, metrics) = (Arc::<Changes>::default(), Arc::new(Metrics::new()));
        let look_up = LookUp {
            store: shared,
            passwords: Arc::new(PasswordPool::start(1).map_err(starting)?),
            keys: Arc::new(keys),
            issuers: Arc::new(Issuers::new(Arc::clone(&changes), clock.clone(), Arc::clone(&metrics))),
            changes,
            clock: clock.clone(),
        };
        let authenticator =
            Authenticator::new(look_up, Arc::new(limits), &snapshot.auth.cache, runtime.handle().clone())
                .map_err(|_| CliError::Usage("no randomness".to_owned()))?;
        authenticator.configure(&snapshot.auth, runtime.handle());
        Ok(Self { runtime, store, authenticator, metrics: metrics.worker(), clock, _stand: stand })
    }

    fn prove(
        &self,
        snapshot: &Snapshot,
        (schemes, kind): (SchemeSet, SubjectKind),
        value: HeaderValue,
        arguments: &ExplainArguments,
    ) -> Result<Caller, Rejection> {
        let headers: HeaderMap = std::iter::once((AUTHORIZATION, value)).collect();
        if kind == SubjectKind::Client && schemes.contains(Scheme::Basic) {
            return self.prove_client(&headers);
        }
        let now = self.clock.now();
        let (audit, request_id) = (&Audit::disabled(), &HeaderValue::from_static(""));
        let visit = Visit { address: arguments.address, now, metrics: &self.metrics, recent: None, audit, request_id };
        self.runtime.block_on(self.authenticator.caller(&snapshot.auth, schemes, &headers, visit))
    }
}

impl Prover {
    /// A client, by the Basic that only endpoints take.
    fn prove_client(&self, headers: &HeaderMap) -> Result<Caller, Rejection> {
        let (user, password) = match authorization::credential(headers) {
            Ok(Some(Credential::Basic { user, password })) => (user, password),
            Ok(None) => return Err(Rejection::MissingCredentials),
            Ok(Some(Credential::Token(_) | Credential::Bearer(_))) => return Err(Rejection::UnsupportedScheme),
            Err(error) => return Err(error.into()),
        };
        let account = self.runtime.block_on(self.authenticator.verify_password(Subject::client(user), password))?;
        let Account { subject, id, roles, scopes, .. } = account;
        let principal = Principal { subject, user_id: Some(id), roles, scopes };
        Ok(Caller::Known(Arc::new(Identity::new(principal, Scheme::Basic, None))))
    }
}

impl Drop for Prover {
    fn drop(&mut self) {
        // what is not closed in order loses nothing, it only leaves more files behind
        self.runtime.block_on(self.store.close()).ok();
    }
}
