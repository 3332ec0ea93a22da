//! What a file says beside its rules: what holds for all requests alike, what the process does besides answering them, and
//! what waits for a restart.
//!
//! Each struct is taken apart by name, so that a new setting is looked at here before anything compiles. A value says what
//! it gives where by another one somebody may be believed, become somebody, or reach what he could not; how fast, how much
//! and where to gives nothing.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use http::HeaderName;
use ipnet::IpNet;

use super::accounts::{accounts, foreign};
use super::fact::{Fact, Gives, NONE};
use super::facts::{bytes, guesses, messages, quota, secretly, time};
use crate::authenticate::issuers::{Issuer, Jwks};
use crate::authenticate::{self, CacheSettings, JwtSettings, RoleSource, TypeSource};
use crate::config::snapshot::{Expectation, ExpectedCaller, Snapshot, StoreLocation};
use crate::endpoint::{self, RefreshFormat};
use crate::limit::{self, Quota};
use crate::listen::redirect::https_port;
use crate::listen::tls::{CertificateSource, MinVersion};
use crate::listen::{self, Mode};
use crate::principal::{Role, Scope};
use crate::wire::fields::IdentityNames;
use crate::{forward, record};

/// What holds for all requests alike.
pub(super) fn of_requests(snapshot: &Snapshot) -> Vec<Fact> {
    let Snapshot {
        trusted_proxies,
        auth,
        tokens,
        identity,
        texts,
        limits,
        shared_limits,
        terms,
        upstream_timeouts,
        listeners,
        bootstrap,
        // told of the routes, endpoints and paths that they are about
        schemes: _,
        body_bytes_max: _,
        paths: _,
        endpoints: _,
        upstreams: _,
        routes: _,
        // told of the process
        admin: _,
        log: _,
        expect: _,
        // in force by a restart
        workers: _,
        store: _,
        tables: _,
        // what was in them is compared
        files: _,
        directory: _,
        // of what both files come to nothing is to be seen
        variables: _,
    } = snapshot;
    let mut facts = names(identity);
    // the fewest networks of the same addresses, however they are written
    let proxies = IpNet::aggregate(&trusted_proxies.0);
    let shown = proxies.iter().map(ToString::to_string);
    facts.push(Fact::list("trusted_proxies", shown).giving(Gives::Within(proxies.clone())));
    facts.extend(credentials(auth));
    facts.extend(issued(tokens));
    facts.push(Fact::new("errors.member", &*texts.member));
    facts.extend(messages(texts.messages.iter()));
    facts.extend(budgets(limits));
    let shared = shared_limits.as_ref().map(|shared| format!("{shared:?}"));
    let fingerprint = secretly(&shared_limits.as_ref().map(limit::shared::Settings::fingerprint));
    // each gateway that counts for itself lets as many guesses through
    let apart = Gives::this_if(shared.is_none(), "as many guesses at each gateway");
    facts.push(Fact::optional("limits.shared", shared).comparing(fingerprint).giving(apart));
    facts.extend(bounds(terms, *upstream_timeouts));
    // which there are is told of the process
    facts.extend(listeners.iter().map(|listener| served(listener).detail()));
    facts.extend(redirects(listeners));
    facts.extend(accounts(bootstrap));
    facts
}

/// What the process does besides, for whoever reads what a reload has changed; and by which tests it lets itself be changed.
pub(super) fn of_process(snapshot: &Snapshot) -> Vec<Fact> {
    let record::Settings { access, audit, level } = snapshot.log;
    let word = |on: bool| if on { "json" } else { "off" };
    let admin = snapshot.admin.to_string();
    // whoever reaches one that only redirects has nothing by it
    let serving = snapshot.listeners.iter().filter(|listener| !matches!(listener.mode, Mode::Redirect));
    let serving = serving.filter(|listener| is_reached(listener.address));
    let reached = Gives::these(serving.map(|listener| listener.address.to_string()));
    let mut facts = vec![
        Fact::new("admin.address", &*admin).giving(Gives::this_if(is_reached(snapshot.admin), &admin)),
        Fact::list("listeners", snapshot.listeners.iter().map(|listener| listener.address.to_string())).giving(reached),
        Fact::new("log.access", word(access)),
        Fact::new("log.audit", word(audit)),
        Fact::new("log.level", level.as_str().to_ascii_lowercase()),
    ];
    facts.extend(snapshot.listeners.iter().filter_map(|listener| certificates(listener, &snapshot.directory)));
    facts.extend(snapshot.expect.iter().map(expectation));
    facts
}

/// What is in force by a restart alone.
pub(super) fn of_start(snapshot: &Snapshot) -> Vec<Fact> {
    let (shown, full) = match &snapshot.store {
        StoreLocation::Sqlite(path) => {
            // the same file below another folder is the same store of another gateway
            let path = path.strip_prefix(&snapshot.directory).unwrap_or(path);
            (format!("sqlite:{}", path.display()), path.display().to_string())
        }
        StoreLocation::Server(url) => (url.place(), secretly(&url.fingerprint())),
    };
    let store = Fact::new("store.url", shown).comparing(full).giving(Gives::Something);
    let mut facts = vec![store, Fact::new("workers", snapshot.workers.to_string())];
    facts.extend(foreign(&snapshot.tables));
    facts
}

/// A test of the rules by its request and its caller.
fn expectation(Expectation { place: _, method, url, caller, status }: &Expectation) -> Fact {
    Fact::new(format!("expect `{method} {url}` as {}", caller_of(caller)), status.as_str())
}

fn caller_of(caller: &ExpectedCaller) -> String {
    let ExpectedCaller::Principal { roles, scopes, scheme } = caller else { return "anyone".to_owned() };
    let list = |key: &str, names: Vec<&str>| {
        (!names.is_empty()).then(|| {
            let quoted = |name: &&str| if name.contains(',') { format!("{name:?}") } else { (*name).to_owned() };
            format!("{key}: [{}]", names.iter().map(quoted).collect::<Vec<_>>().join(", "))
        })
    };
    let parts = [
        list("roles", roles.iter().map(Role::as_str).collect()),
        list("scopes", scopes.iter().map(Scope::as_str).collect()),
        scheme.map(|scheme| format!("scheme: {}", scheme.name())),
    ];
    format!("{{ {} }}", parts.into_iter().flatten().collect::<Vec<_>>().join(", "))
}

fn names(names: &IdentityNames) -> Vec<Fact> {
    let IdentityNames { user, roles, scheme } = names;
    // a caller's own field of the old name passes from then on, and an upstream may still believe it
    let name = |key: &str, name: &Option<HeaderName>| {
        let name = name.as_ref().map(HeaderName::as_str);
        Fact::optional(format!("identity_headers.{key}"), name).giving(Gives::Something)
    };
    vec![name("user", user), name("roles", roles), name("scheme", scheme)]
}

fn credentials(settings: &authenticate::Settings) -> Vec<Fact> {
    let authenticate::Settings { realm, cache, jwt, issuers } = settings;
    let CacheSettings { ttl, capacity, negative_ttl, stale_if_store_down } = cache;
    let mut facts = vec![
        Fact::new("auth.realm", &**realm),
        lasting("auth.cache.ttl", *ttl),
        Fact::new("auth.cache.capacity", capacity.to_string()),
        time("auth.cache.negative_ttl", *negative_ttl),
        lasting("auth.cache.stale_if_store_down", *stale_if_store_down),
    ];
    facts.extend(own_tokens(jwt));
    let names = || issuers.iter().map(|issuer| &*issuer.claims.issuer);
    facts.push(Fact::list("auth.issuers", names()).giving(Gives::these(names())));
    facts.extend(issuers.iter().flat_map(issuer));
    facts
}

fn own_tokens(jwt: &JwtSettings) -> Vec<Fact> {
    let JwtSettings {
        issuer,
        require_iss,
        audience,
        leeway,
        roles,
        subject,
        subject_is_id,
        subject_kind,
        token_type,
        require_exp,
        require_jti,
        require_account,
        keys,
    } = jwt;
    let token_type = match token_type {
        TypeSource::Header => None,
        TypeSource::Claim { claim, access, refresh, unmarked } => {
            let missing = unmarked.map_or("", |_| ", missing: access");
            Some(format!("{{ claim: {claim}, access: {access}, refresh: {refresh}{missing} }}"))
        }
    };
    let named = keys.as_ref().map(|keys| {
        let names = keys.names().map(|(id, algorithm)| format!("{id} ({})", algorithm.name()));
        // the first one signs
        format!("[{}]", names.collect::<Vec<_>>().join(", "))
    });
    let trusted = keys.as_ref().map_or_else(
        || Gives::these(["those of the store"]),
        |keys| Gives::these(keys.fingerprints().map(|fingerprint| secretly(&fingerprint))),
    );
    vec![
        Fact::new("auth.jwt.issuer", &**issuer).giving(Gives::Something),
        required("auth.jwt.require_iss", *require_iss),
        audiences("auth.jwt.audience".to_owned(), audience),
        lasting("auth.jwt.leeway", *leeway),
        Fact::new("auth.jwt.roles", source(roles)).comparing(format!("{roles:?}")).giving(Gives::Something),
        Fact::new("auth.jwt.subject", subject.to_string())
            .comparing(format!("{subject:?} {subject_is_id}"))
            .giving(Gives::Something),
        Fact::new("auth.jwt.subject_kind", subject_kind.name()).giving(Gives::Something),
        Fact::optional("auth.jwt.type", token_type).giving(Gives::Something),
        required("auth.jwt.require_exp", *require_exp),
        required("auth.jwt.require_jti", *require_jti),
        required("auth.jwt.require_account", *require_account),
        Fact::optional("auth.jwt.keys", named)
            .comparing(secretly(&keys.as_ref().map(|keys| keys.fingerprint())))
            .giving(trusted),
    ]
}

/// Something that a token must have.
fn required(key: &str, is: bool) -> Fact {
    Fact::word(key, is).giving(Gives::this_if(!is, "a token without it"))
}

/// For how long a credential, or what is known of it, is good.
fn lasting(key: &str, time_of: Duration) -> Fact {
    time(key, time_of).giving(Gives::up_to(time_of.as_nanos()))
}

/// Where there is none, tokens for everybody are taken.
fn audiences(key: String, audience: &[Box<str>]) -> Fact {
    let names = || audience.iter().map(|name| &**name);
    Fact::list(key, names()).giving(if audience.is_empty() { Gives::Everything } else { Gives::these(names()) })
}

fn source(roles: &RoleSource) -> String {
    match roles {
        RoleSource::Store => "store".to_owned(),
        RoleSource::Claim(path) => path.to_string(),
    }
}

/// One of `auth.issuers`; that there is one more or less is told by their list.
fn issuer(issuer: &Issuer) -> Vec<Fact> {
    let Issuer { id: _, claims, algorithms, user_prefix, jwks } = issuer;
    // of the other members each is the same for all, or that of `auth.jwt`
    let JwtSettings { issuer: name, audience, roles, subject, .. } = claims;
    let key = |key: &str| format!("auth.issuers.{name}.{key}");
    let mut facts = vec![
        audiences(key("audience"), audience),
        Fact::list(key("algorithms"), algorithms.iter().map(|algorithm| algorithm.name()))
            .giving(Gives::these(algorithms.iter().map(|algorithm| algorithm.name()))),
        Fact::new(key("roles"), source(roles)).comparing(secretly(roles)).giving(Gives::Something),
        Fact::new(key("user"), subject.to_string()).comparing(secretly(subject)).giving(Gives::Something),
        Fact::new(key("user_prefix"), if user_prefix.is_empty() { NONE } else { user_prefix }).giving(Gives::Something),
    ];
    match jwks {
        Jwks::File(keys) => {
            let count = format!("a file of {} keys", keys.len());
            let content = keys.content();
            let trusted = Gives::these(content.iter().map(secretly));
            facts.push(Fact::new(key("jwks"), count).comparing(secretly(&content)).giving(trusted));
        }
        Jwks::Remote(location) => {
            // a query may hold what gives access to the keys
            let shown = location.url.split('?').next().unwrap_or_default();
            facts.push(Fact::new(key("jwks"), shown).comparing(&*location.url).giving(Gives::Something));
            if let Some(tls) = &location.tls {
                let server_name = tls.name.to_str();
                // whoever shows what is asked for there says which keys are good
                facts.push(Fact::new(key("tls.server_name"), server_name).giving(Gives::Something));
                facts.push(Fact::new(key("tls"), "").comparing(secretly(&tls.content)).giving(Gives::Something));
            }
        }
    }
    facts.into_iter().map(Fact::detail).collect()
}

fn issued(tokens: &endpoint::Settings) -> Vec<Fact> {
    let endpoint::Settings {
        access_ttl,
        refresh_ttl,
        opaque_ttl,
        default_role,
        refresh_format,
        refresh_grace,
        claims,
        sub_as_json_text,
        password_bytes_min,
        password_bytes_max,
    } = tokens;
    let format = match refresh_format {
        RefreshFormat::Opaque => "opaque",
        RefreshFormat::Jwt => "jwt",
    };
    vec![
        lasting("tokens.access_ttl", *access_ttl),
        lasting("tokens.refresh_ttl", *refresh_ttl),
        lasting("tokens.opaque_ttl", *opaque_ttl),
        // what a role opens at an upstream is not known here
        Fact::new("tokens.default_role", default_role.as_str()).giving(Gives::Something),
        Fact::new("tokens.refresh_format", format),
        lasting("tokens.refresh_grace", *refresh_grace),
        Fact::new("tokens.claims", claims.written().to_string()).giving(Gives::Something),
        Fact::optional("tokens.sub_as", sub_as_json_text.then_some("json_text")),
        Fact::new("passwords.min_bytes", password_bytes_min.to_string())
            .giving(Gives::up_to(u128::MAX - *password_bytes_min as u128)),
        Fact::new("passwords.max_bytes", password_bytes_max.to_string()),
    ]
}

fn budgets(limits: &limit::Settings) -> Vec<Fact> {
    let limit::Settings { per_address, per_account, per_account_anywhere, unauthenticated } = limits;
    let budget = |key: &str, budget: &Option<Quota>| {
        let shown = budget.as_ref().map_or_else(|| "off".to_owned(), |budget| format!("{{ {} }}", quota(budget)));
        Fact::new(format!("limits.{key}"), shown).giving(guesses(budget.as_ref()))
    };
    vec![
        budget("token_endpoints.per_address", per_address),
        budget("token_endpoints.per_account", per_account),
        budget("token_endpoints.per_account_anywhere", per_account_anywhere),
        budget("unauthenticated", unauthenticated),
    ]
}

fn bounds(terms: &listen::Terms, upstreams: forward::Timeouts) -> Vec<Fact> {
    let listen::Terms { timeouts, bounds } = terms;
    let listen::Timeouts { handshake, request_header, idle, drain } = timeouts;
    let listen::Bounds { header_bytes_max, headers_max, connections_max } = bounds;
    // the first is told of the routes that have no `timeout`, the second is that of callers
    let forward::Timeouts { connect, response_header: _, idle: _ } = upstreams;
    vec![
        bytes("limits.header_bytes", *header_bytes_max as u64),
        Fact::new("limits.headers", headers_max.to_string()),
        Fact::new("limits.connections", connections_max.to_string()),
        time("timeouts.handshake", *handshake),
        time("timeouts.request_header", *request_header),
        time("timeouts.idle", *idle),
        time("timeouts.connect", connect),
        time("timeouts.drain", *drain),
    ]
}

/// Whether others than those on this machine reach an address.
const fn is_reached(address: SocketAddr) -> bool {
    !address.ip().to_canonical().is_loopback()
}

/// How callers are served at an address.
fn served(listener: &listen::Settings) -> Fact {
    let listen::Settings { address, mode } = listener;
    let (how, by) = match mode {
        Mode::Plain => ("plain", &["plain"][..]),
        Mode::Redirect => ("redirect: https", &[][..]),
        Mode::Tls(tls) => match tls.min_version {
            MinVersion::Tls12 => ("tls: { min_version: 1.2 }", &["1.2", "1.3"][..]),
            MinVersion::Tls13 => ("tls: { min_version: 1.3 }", &["1.3"][..]),
        },
    };
    let by = if is_reached(*address) { by } else { &[] };
    Fact::new(format!("listeners.{address}"), how).giving(Gives::these(by.iter().copied()))
}

/// Where redirects lead.
fn redirects(listeners: &[listen::Settings]) -> impl Iterator<Item = Fact> {
    let https = https_port(listeners.iter().map(|listener| (&listener.mode, listener.address)));
    let redirecting = listeners.iter().filter(|listener| matches!(listener.mode, Mode::Redirect));
    redirecting.filter_map(move |listener| {
        let key = format!("listeners.{}.redirect", listener.address);
        Some(Fact::new(key, format!("port {}", https?)).detail())
    })
}

/// What is in the files decides, not what they are called.
fn certificates(listener: &listen::Settings, directory: &Path) -> Option<Fact> {
    let Mode::Tls(tls) = &listener.mode else { return None };
    let path = |path: &Path| path.strip_prefix(directory).unwrap_or(path).display().to_string();
    let shown = match &tls.source {
        CertificateSource::Files(files) => files.iter().map(|pair| path(&pair.cert)).collect(),
        CertificateSource::SelfSigned { names, directory: _ } => vec![format!("self_signed: {}", names.join(", "))],
    };
    let shown = shown.join(", ");
    let full = tls.shown.map_or_else(|| shown.clone(), |shown| secretly(&shown));
    Some(Fact::new(format!("listeners.{}.certificates", listener.address), shown).comparing(full).detail())
}
