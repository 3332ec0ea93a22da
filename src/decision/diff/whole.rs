//! What a file says beside its rules: what holds for all requests alike, and what the process does besides answering them.
//!
//! Each struct is taken apart by name, so that a new setting is looked at here before anything compiles.

use http::HeaderName;

use super::facts::{Fact, NONE, bytes, messages, quota, secretly, time};
use crate::authenticate::issuers::{Issuer, Jwks};
use crate::authenticate::{self, CacheSettings, JwtSettings, RoleSource, TypeSource};
use crate::config::snapshot::{Bootstrap, BootstrapClient, BootstrapUser, Snapshot};
use crate::endpoint::{self, RefreshFormat};
use crate::limit::{self, Quota};
use crate::listen::tls::{CertificateSource, MinVersion};
use crate::listen::{self, Mode};
use crate::principal::{Role, Scope};
use crate::store::tables::{Identifier, NamesTable, RolesTable, Tables, TokensTable, UsersTable};
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
        tables,
        // told of the routes, endpoints and paths that they are about
        schemes: _,
        body_bytes_max: _,
        paths: _,
        endpoints: _,
        upstreams: _,
        routes: _,
        // no request can tell
        workers: _,
        admin: _,
        log: _,
        expect: _,
        // where it is kept says nothing of what is kept
        store: _,
        // what was in them is compared
        files: _,
    } = snapshot;
    let mut facts = names(identity);
    facts.push(Fact::list("trusted_proxies", trusted_proxies.0.iter().map(ToString::to_string)));
    facts.extend(credentials(auth));
    facts.extend(issued(tokens));
    facts.push(Fact::new("errors.member", &*texts.member));
    facts.extend(messages(texts.messages.iter()));
    facts.extend(budgets(limits));
    let shared = shared_limits.as_ref().map(|shared| format!("{shared:?}"));
    let fingerprint = secretly(&shared_limits.as_ref().map(limit::shared::Settings::fingerprint));
    facts.push(Fact::optional("limits.shared", shared).comparing(fingerprint));
    facts.extend(bounds(terms, *upstream_timeouts));
    facts.extend(listeners.iter().map(|listener| served(listener).detail()));
    facts.extend(accounts(bootstrap));
    facts.extend(foreign(tables));
    facts
}

/// What the process does besides, for whoever reads what a reload has changed.
pub(super) fn of_process(snapshot: &Snapshot) -> Vec<Fact> {
    let record::Settings { access, audit, level } = snapshot.log;
    let word = |on: bool| if on { "json" } else { "off" };
    let mut facts = vec![
        Fact::new("admin.address", snapshot.admin.to_string()),
        Fact::list("listeners", snapshot.listeners.iter().map(|listener| listener.address.to_string())),
        Fact::new("log.access", word(access)),
        Fact::new("log.audit", word(audit)),
        Fact::new("log.level", level.as_str().to_ascii_lowercase()),
    ];
    facts.extend(snapshot.listeners.iter().filter_map(certificates));
    facts
}

fn names(names: &IdentityNames) -> Vec<Fact> {
    let IdentityNames { user, roles, scheme } = names;
    let name = |key: &str, name: &Option<HeaderName>| {
        Fact::optional(format!("identity_headers.{key}"), name.as_ref().map(HeaderName::as_str))
    };
    vec![name("user", user), name("roles", roles), name("scheme", scheme)]
}

fn credentials(settings: &authenticate::Settings) -> Vec<Fact> {
    let authenticate::Settings { realm, cache, jwt, issuers } = settings;
    let CacheSettings { ttl, capacity, negative_ttl, stale_if_store_down } = cache;
    let mut facts = vec![
        Fact::new("auth.realm", &**realm),
        time("auth.cache.ttl", *ttl),
        Fact::new("auth.cache.capacity", capacity.to_string()),
        time("auth.cache.negative_ttl", *negative_ttl),
        time("auth.cache.stale_if_store_down", *stale_if_store_down),
    ];
    facts.extend(own_tokens(jwt));
    facts.push(Fact::list("auth.issuers", issuers.iter().map(|issuer| &*issuer.claims.issuer)));
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
            Some(format!("{{ claim: {}, access: {access}, refresh: {refresh}{missing} }}", claim.0.join(".")))
        }
    };
    let named = keys.as_ref().map(|keys| {
        let names = keys.names().map(|(id, algorithm)| format!("{id} ({})", algorithm.name()));
        // the first one signs
        format!("[{}]", names.collect::<Vec<_>>().join(", "))
    });
    vec![
        Fact::new("auth.jwt.issuer", &**issuer),
        Fact::word("auth.jwt.require_iss", *require_iss),
        Fact::list("auth.jwt.audience", audience.iter().map(|audience| &**audience)),
        time("auth.jwt.leeway", *leeway),
        Fact::new("auth.jwt.roles", source(roles)),
        Fact::new("auth.jwt.subject", subject.0.join(".")).comparing(format!("{subject:?} {subject_is_id}")),
        Fact::new("auth.jwt.subject_kind", subject_kind.name()),
        Fact::optional("auth.jwt.type", token_type),
        Fact::word("auth.jwt.require_exp", *require_exp),
        Fact::word("auth.jwt.require_jti", *require_jti),
        Fact::word("auth.jwt.require_account", *require_account),
        Fact::optional("auth.jwt.keys", named).comparing(secretly(&keys.as_ref().map(|keys| keys.fingerprint()))),
    ]
}

fn source(roles: &RoleSource) -> String {
    match roles {
        RoleSource::Store => "store".to_owned(),
        RoleSource::Claim(path) => path.0.join("."),
    }
}

/// One of `auth.issuers`; that there is one more or less is told by their list.
fn issuer(issuer: &Issuer) -> Vec<Fact> {
    let Issuer { id: _, claims, algorithms, user_prefix, jwks } = issuer;
    // of the other members each is the same for all, or that of `auth.jwt`
    let JwtSettings { issuer: name, audience, roles, subject, .. } = claims;
    let key = |key: &str| format!("auth.issuers.{name}.{key}");
    let mut facts = vec![
        Fact::list(key("audience"), audience.iter().map(|audience| &**audience)),
        Fact::list(key("algorithms"), algorithms.iter().map(|algorithm| algorithm.name())),
        Fact::new(key("roles"), source(roles)).comparing(secretly(roles)),
        Fact::new(key("user"), subject.0.join(".")).comparing(secretly(subject)),
        Fact::new(key("user_prefix"), if user_prefix.is_empty() { NONE } else { user_prefix }),
    ];
    match jwks {
        Jwks::File(keys) => {
            let count = format!("a file of {} keys", keys.len());
            facts.push(Fact::new(key("jwks"), count).comparing(secretly(&keys.content())));
        }
        Jwks::Remote(location) => {
            // a query may hold what gives access to the keys
            let shown = location.url.split('?').next().unwrap_or_default();
            facts.push(Fact::new(key("jwks"), shown).comparing(&*location.url));
            if let Some(tls) = &location.tls {
                let server_name = tls.name.to_str();
                facts.push(Fact::new(key("tls.server_name"), server_name));
                facts.push(Fact::new(key("tls"), "").comparing(secretly(&tls.content)));
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
        time("tokens.access_ttl", *access_ttl),
        time("tokens.refresh_ttl", *refresh_ttl),
        time("tokens.opaque_ttl", *opaque_ttl),
        Fact::new("tokens.default_role", default_role.as_str()),
        Fact::new("tokens.refresh_format", format),
        time("tokens.refresh_grace", *refresh_grace),
        Fact::new("tokens.claims", claims.written().to_string()),
        Fact::optional("tokens.sub_as", sub_as_json_text.then_some("json_text")),
        Fact::new("passwords.min_bytes", password_bytes_min.to_string()),
        Fact::new("passwords.max_bytes", password_bytes_max.to_string()),
    ]
}

fn budgets(limits: &limit::Settings) -> Vec<Fact> {
    let limit::Settings { per_address, per_account, per_account_anywhere, unauthenticated } = limits;
    let budget = |key: &str, budget: &Option<Quota>| {
        let shown = budget.as_ref().map_or_else(|| "off".to_owned(), |budget| format!("{{ {} }}", quota(budget)));
        Fact::new(format!("limits.{key}"), shown)
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

/// How callers are served at an address. Which addresses there are is no rule: who reaches them decides.
fn served(listener: &listen::Settings) -> Fact {
    let listen::Settings { address, mode } = listener;
    let how = match mode {
        Mode::Plain => "plain".to_owned(),
        Mode::Redirect => "redirect: https".to_owned(),
        Mode::Tls(tls) => {
            let oldest = match tls.min_version {
                MinVersion::Tls12 => "1.2",
                MinVersion::Tls13 => "1.3",
            };
            format!("tls: {{ min_version: {oldest} }}")
        }
    };
    Fact::new(format!("listeners.{address}"), how)
}

fn certificates(listener: &listen::Settings) -> Option<Fact> {
    let Mode::Tls(tls) = &listener.mode else { return None };
    let shown = match &tls.source {
        CertificateSource::Files(files) => files.iter().map(|pair| pair.cert.display().to_string()).collect(),
        CertificateSource::SelfSigned { names, directory: _ } => vec![format!("self_signed: {}", names.join(", "))],
    };
    Some(Fact::new(format!("listeners.{}.certificates", listener.address), shown.join(", ")).detail())
}

/// Who is made where absent; a password or a secret is never changed.
fn accounts(bootstrap: &Bootstrap) -> [Fact; 2] {
    let Bootstrap { users, clients } = bootstrap;
    let roles = |roles: &[Role]| roles.iter().map(Role::as_str).collect::<Vec<_>>().join(", ");
    let scopes = |scopes: &[Scope]| scopes.iter().map(Scope::as_str).collect::<Vec<_>>().join(", ");
    let users = users.iter().map(|BootstrapUser { name, password: _, roles: own }| format!("{name} ({})", roles(own)));
    let clients = clients.iter().map(|BootstrapClient { id, secret: _, roles: own, scopes: granted }| {
        format!("{id} ({}; {})", roles(own), scopes(granted))
    });
    [Fact::list("bootstrap.users", users), Fact::list("bootstrap.clients", clients)]
}

/// What is read of another application's tables.
fn foreign(tables: &Tables) -> [Fact; 3] {
    let Tables { users, tokens, rehash } = tables;
    [
        Fact::optional("store.users", users.as_ref().map(users_table)),
        Fact::optional("store.tokens", tokens.as_ref().map(tokens_table)),
        Fact::word("store.rehash", *rehash),
    ]
}

fn users_table(users: &UsersTable) -> String {
    let UsersTable { table, id, name, password, role, roles, flags, active } = users;
    let flags: Vec<_> = flags.iter().map(|(flag, role)| format!("{}: {}", flag.as_str(), role.as_str())).collect();
    members(&[
        ("table", column(table)),
        ("id", column(id)),
        ("name", column(name)),
        ("password", column(password)),
        ("role", role.as_ref().and_then(column)),
        ("roles", roles.as_ref().map(roles_table)),
        ("flags", (!flags.is_empty()).then(|| format!("{{ {} }}", flags.join(", ")))),
        ("active", active.as_ref().and_then(column)),
    ])
}

fn roles_table(roles: &RolesTable) -> String {
    let RolesTable { table, user, role, names } = roles;
    let names = names.as_ref().map(|NamesTable { table, id, name }| {
        members(&[("table", column(table)), ("id", column(id)), ("name", column(name))])
    });
    members(&[("table", column(table)), ("user", column(user)), ("role", column(role)), ("names", names)])
}

fn tokens_table(tokens: &TokensTable) -> String {
    let TokensTable { table, token, expires_at, user } = tokens;
    let expires_at = expires_at.as_ref().and_then(column);
    members(&[("table", column(table)), ("token", column(token)), ("expires_at", expires_at), ("user", column(user))])
}

#[expect(clippy::unnecessary_wraps, reason = "what is there, beside what may not be")]
fn column(name: &Identifier) -> Option<String> {
    Some(name.as_str().to_owned())
}

/// A mapping of YAML, of those members that there are.
fn members(all: &[(&str, Option<String>)]) -> String {
    let there = all.iter().filter_map(|(key, value)| Some(format!("{key}: {}", value.as_ref()?)));
    format!("{{ {} }}", there.collect::<Vec<_>>().join(", "))
}
