//! Every key of the schema is told where it changes, or is known to change nothing that anybody gets.

use std::collections::BTreeSet;
use std::path::Path;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::{Printed, beside, diff};
use crate::config::snapshot::Snapshot;
use crate::config::{Environment, load_text, schema};

/// A file that says something of everything.
const BASE: &str = r#"
listeners:
  - { address: '127.0.0.1:8443', tls: { certificates: [{ cert: a.pem, key: a.key }], min_version: "1.2" } }
  - { address: '127.0.0.1:8444', tls: { self_signed: [localhost] } }
  - { address: '127.0.0.1:8080' }
workers: 1
trusted_proxies: [10.0.0.0/8]
admin: { address: '127.0.0.1:9901' }
store:
  url: sqlite:a.db
  users:
    table: users
    id: user_id
    name: username
    password: hash
    roles: { table: user_roles, user: of_user, role: role_id, names: { table: all_roles, id: id_of_role, name: role_name } }
    flags: { is_admin: admin }
    active: is_active
  tokens: { table: tokens, token: secret, expires_at: ends_at, user: owner }
  rehash: false
auth:
  realm: api
  schemes: [basic, token, bearer]
  cache: { ttl: 30s, capacity: 1000, negative_ttl: 2s, stale_if_store_down: 5m }
  jwt:
    issuer: https://own.example
    audience: [orders]
    leeway: 30s
    roles: store
    subject: sub
    type: { claim: kind, access: a, refresh: r, missing: access }
    subject_kind: user
    require_exp: true
    require_iss: true
    require_jti: false
    require_account: false
    keys:
      - { id: k1, algorithm: HS256, secret: canary-canary-canary-canary-canary-1 }
      - { id: k2, algorithm: HS256, secret: { file: secret1 } }
      - { id: k3, algorithm: EdDSA, private_key: own1.key }
      - { id: k4, algorithm: ES256, public_key: a.pub }
  issuers:
    - { issuer: 'https://file.example', jwks: set1.json }
    - issuer: https://idp.example
      jwks: https://idp.example/keys?canary=1
      tls: { ca: a.pem, server_name: idp, cert: a.pem, key: a.key }
      audience: [them]
      algorithms: [RS256]
      roles: groups
      user: name
      user_prefix: 'idp:'
tokens:
  access_ttl: 15m
  refresh_ttl: 7d
  opaque_ttl: 24h
  default_role: user
  refresh_format: opaque
  refresh_grace: 10s
  claims: { sub: { n: '{user}' } }
  sub_as: json_text
passwords: { min_bytes: 8, max_bytes: 1024 }
identity_headers: { user: X-User, roles: X-Roles, scheme: X-Scheme }
errors: { member: message, messages: { no_route: gone } }
paths: { encoded_slash: refuse, encoded_query: refuse, semicolon: refuse, empty_segments: refuse }
limits:
  token_endpoints:
    per_address: { rate: 31/m, burst: 11 }
    per_account: { rate: 6/m, burst: 6 }
    per_account_anywhere: { rate: 101/h, burst: 101 }
  unauthenticated: { rate: 21/s, burst: 102 }
  shared: { url: 'rediss://own:canary-1-of-redis@cache:7000', tls: { ca: a.pem, server_name: counts, cert: a.pem, key: a.key } }
  header_bytes: 32KiB
  headers: 100
  body_bytes: 1KiB
  connections: 1000
timeouts: { handshake: 9s, request_header: 11s, idle: 75s, connect: 3s, response_header: 60s, drain: 29s }
endpoints:
  - path: /in
    action: login
    fields: { username: email }
    reply: { a: '{access}' }
    status: 200
    errors: { member: text, messages: { invalid_credentials: no } }
    from: members
    incomplete: member
  - { path: /out, action: revoke, ends: family }
  - { path: /token, action: oauth_token, password_grant: false }
upstreams:
  api:
    servers: ['https://one.example']
    balance: round_robin
    health: { path: /up, interval: 5s, timeout: 1s, unhealthy_after: 3, healthy_after: 2 }
    keep_alive: 64
    tls: { ca: a.pem, server_name: one, cert: a.pem, key: a.key }
  demo: { builtin: echo }
routes:
  - path: /a/b/**
    methods: [GET]
    hosts: [own.example]
    allow: [user]
    scopes: [read]
    schemes: [basic]
    strip_prefix: /a
    request_headers: { set: { X-Tenant: blue }, remove: [Cookie] }
    response_headers: { set: { X-Frame: deny }, remove: [Server] }
    cors: { origins: ['https://app.example'], headers: [X-A], max_age: 10m, credentials: false }
    end_streams_on: [revocation]
    forward_credentials: false
    rate: { rate: 100/s, burst: 50, by: principal }
    timeout: 5s
    body_bytes: 1MiB
    to: api
  - { path: /d, allow: authenticated, to: demo }
expect:
  - { request: GET /d, as: { roles: [user], scopes: [read], scheme: basic }, is: 200 }
log: { access: json, audit: json, level: info }
bootstrap:
  users: [{ name: ann, password: canary-password, roles: [user] }, { name: bob, password: { file: secret1 } }]
  clients: [{ id: robot, secret: canary-secret, roles: [user], scopes: [read] }, { id: r2, secret: { file: secret1 } }]
"#;

/// Each key, what of [`BASE`] is written otherwise, and what is told.
const TOLD: &[(&str, &str, &str, &str)] = &[
    ("listeners[].tls.min_version", "min_version: \"1.2\"", "min_version: '1.3'", "listeners.127.0.0.1:8443: tls"),
    ("listeners[].tls.certificates[].cert", "cert: a.pem, key: a.key }]", "cert: b.pem, key: b.key }]", "b.pem"),
    ("listeners[].tls.self_signed", "[localhost]", "[other]", "listeners.127.0.0.1:8444.certificates: self_signed"),
    ("listeners[].redirect", "8080' }", "8080', redirect: https }", "8080: plain -> redirect: https"),
    ("listeners[].address", "8080'", "8081'", "listeners: [127.0.0.1:8080, "),
    ("trusted_proxies", "10.0.0.0/8", "10.1.0.0/16", "trusted_proxies: [10.0.0.0/8] -> [10.1.0.0/16]"),
    ("admin.address", "9901", "9902", "admin.address: 127.0.0.1:9901 -> 127.0.0.1:9902"),
    ("store.users.table", "table: users", "table: people", "store.users: { table: users"),
    ("store.users.id", "id: user_id", "id: uid", "store.users"),
    ("store.users.name", "name: username", "name: login", "store.users"),
    ("store.users.password", "password: hash", "password: pw", "store.users"),
    ("store.users.role", "flags: { is_admin: admin }", "role: role", "role: role"),
    ("store.users.roles.table", "table: user_roles", "table: memberships", "store.users"),
    ("store.users.roles.user", "of_user", "member", "store.users"),
    ("store.users.roles.role", "role: role_id", "role: rid", "store.users"),
    ("store.users.roles.names.table", "all_roles", "kinds", "store.users"),
    ("store.users.roles.names.id", "id_of_role", "rid", "store.users"),
    ("store.users.roles.names.name", "role_name", "label", "store.users"),
    ("store.users.flags", "is_admin: admin", "is_admin: root", "store.users"),
    ("store.users.active", "is_active", "enabled", "store.users"),
    ("store.tokens.table", "table: tokens", "table: sessions", "store.tokens"),
    ("store.tokens.token", "token: secret", "token: text", "store.tokens"),
    ("store.tokens.expires_at", "ends_at", "end", "store.tokens"),
    ("store.tokens.user", "owner", "whose", "store.tokens"),
    ("store.rehash", "rehash: false", "rehash: true", "store.rehash: false -> true"),
    ("auth.realm", "realm: api", "realm: apis", "auth.realm: api -> apis"),
    ("auth.schemes", "[basic, token, bearer]", "[basic, token]", "schemes: [basic, bearer, token] -> [basic, token]"),
    ("auth.cache.ttl", "ttl: 30s, c", "ttl: 31s, c", "auth.cache.ttl: 30s -> 31s"),
    ("auth.cache.capacity", "1000,", "1001,", "auth.cache.capacity: 1000 -> 1001"),
    ("auth.cache.negative_ttl", "2s, stale", "3s, stale", "auth.cache.negative_ttl: 2s -> 3s"),
    ("auth.cache.stale_if_store_down", "5m }", "6m }", "auth.cache.stale_if_store_down: 5m -> 6m"),
    ("auth.jwt.issuer", "own.example\n    aud", "other.example\n    aud", "auth.jwt.issuer: https://own.example -> "),
    ("auth.jwt.audience", "[orders]", "[bills]", "auth.jwt.audience: [orders] -> [bills]"),
    ("auth.jwt.leeway", "leeway: 30s", "leeway: 5s", "auth.jwt.leeway: 30s -> 5s"),
    ("auth.jwt.roles", "roles: store", "roles: groups.of", "auth.jwt.roles: store -> groups.of"),
    ("auth.jwt.subject", "subject: sub", "subject: sub.n", "auth.jwt.subject: sub -> sub.n"),
    ("auth.jwt.type.claim", "claim: kind", "claim: type", "auth.jwt.type: { claim: kind"),
    ("auth.jwt.type.access", "access: a,", "access: b,", "auth.jwt.type"),
    ("auth.jwt.type.refresh", "refresh: r,", "refresh: s,", "auth.jwt.type"),
    ("auth.jwt.type.missing", ", missing: access }", " }", "auth.jwt.type"),
    ("auth.jwt.subject_kind", "subject_kind: user", "subject_kind: client", "auth.jwt.subject_kind: user -> client"),
    ("auth.jwt.require_exp", "require_exp: true", "require_exp: false", "auth.jwt.require_exp: true -> false"),
    ("auth.jwt.require_iss", "require_iss: true", "require_iss: false", "auth.jwt.require_iss: true -> false"),
    ("auth.jwt.require_jti", "require_jti: false", "require_jti: true", "auth.jwt.require_jti: false -> true"),
    ("auth.jwt.require_account", "_account: false", "_account: true", "auth.jwt.require_account: false -> true"),
    ("auth.jwt.keys[].id", "id: k1", "id: k0", "auth.jwt.keys: [k1 (HS256), "),
    ("auth.jwt.keys[].algorithm", "k1, algorithm: HS256", "k1, algorithm: HS384", "k1 (HS384)"),
    ("auth.jwt.keys[].secret", "-canary-1", "-canary-2", "auth.jwt.keys: another value (not shown)"),
    (
        "auth.jwt.keys[].secret.file",
        "{ file: secret1 } }\n      - { id: k3",
        "{ file: secret2 } }\n      - { id: k3",
        "auth.jwt.keys: another value (not shown)",
    ),
    ("auth.jwt.keys[].private_key", "own1.key", "own2.key", "auth.jwt.keys: another value (not shown)"),
    ("auth.jwt.keys[].public_key", "a.pub", "b.pub", "auth.jwt.keys: another value (not shown)"),
    (
        "auth.issuers[].issuer",
        "https://file.example",
        "https://files.example",
        "auth.issuers: [https://file.example, https://idp.example] -> [https://files.example, ",
    ),
    (
        "auth.issuers[].jwks",
        "set1.json",
        "set2.json",
        "auth.issuers.https://file.example.jwks: another value (not shown)",
    ),
    (
        "auth.issuers[].tls.ca",
        "ca: a.pem, server_name: idp",
        "ca: b.pem, server_name: idp",
        "auth.issuers.https://idp.example.tls: another value (not shown)",
    ),
    (
        "auth.issuers[].tls.server_name",
        "server_name: idp",
        "server_name: idp2",
        "auth.issuers.https://idp.example.tls.server_name: idp -> idp2",
    ),
    (
        "auth.issuers[].tls.cert",
        "server_name: idp, cert: a.pem, key: a.key",
        "server_name: idp, cert: b.pem, key: b.key",
        "auth.issuers.https://idp.example.tls: another",
    ),
    ("auth.issuers[].audience", "[them]", "[others]", "auth.issuers.https://idp.example.audience: [them] -> [others]"),
    (
        "auth.issuers[].algorithms",
        "[RS256]",
        "[RS256, ES256]",
        "auth.issuers.https://idp.example.algorithms: [RS256] -> [ES256, RS256]",
    ),
    (
        "auth.issuers[].roles",
        "roles: groups",
        "roles: realm_access.roles",
        "auth.issuers.https://idp.example.roles: groups -> realm_access.roles",
    ),
    ("auth.issuers[].user", "user: name", "user: sub", "auth.issuers.https://idp.example.user: name -> sub"),
    ("auth.issuers[].user_prefix", "'idp:'", "'them:'", "auth.issuers.https://idp.example.user_prefix: idp: -> them:"),
    ("tokens.access_ttl", "access_ttl: 15m", "access_ttl: 5m", "tokens.access_ttl: 15m -> 5m"),
    ("tokens.refresh_ttl", "refresh_ttl: 7d", "refresh_ttl: 8d", "tokens.refresh_ttl: 7d -> 8d"),
    ("tokens.opaque_ttl", "opaque_ttl: 24h", "opaque_ttl: 25h", "tokens.opaque_ttl: 1d -> 25h"),
    ("tokens.default_role", "default_role: user", "default_role: guest", "tokens.default_role: user -> guest"),
    ("tokens.refresh_format", "_format: opaque", "_format: jwt", "tokens.refresh_format: opaque -> jwt"),
    ("tokens.refresh_grace", "refresh_grace: 10s", "refresh_grace: 0s", "tokens.refresh_grace: 10s -> 0ms"),
    ("tokens.claims", "'{user}' }", "'{user_id}' }", "tokens.claims: {\"sub\":{\"n\":\"{user}\"}} -> "),
    ("tokens.sub_as", "  sub_as: json_text\n", "", "tokens.sub_as: json_text -> none"),
    ("passwords.min_bytes", "min_bytes: 8", "min_bytes: 9", "passwords.min_bytes: 8 -> 9"),
    ("passwords.max_bytes", "max_bytes: 1024", "max_bytes: 1023", "passwords.max_bytes: 1024 -> 1023"),
    ("identity_headers.user", "X-User", "X-Who", "identity_headers.user: x-user -> x-who"),
    ("identity_headers.roles", "X-Roles", "X-What", "identity_headers.roles: x-roles -> x-what"),
    ("identity_headers.scheme", "X-Scheme", "X-How", "identity_headers.scheme: x-scheme -> x-how"),
    ("errors.member", "member: message", "member: msg", "errors.member: message -> msg"),
    ("errors.messages", "no_route: gone", "no_route: nothing", "errors.messages.no_route: gone -> nothing"),
    ("paths.encoded_slash", "encoded_slash: refuse", "encoded_slash: keep", "paths.encoded_slash: refuse -> keep"),
    ("paths.encoded_query", "encoded_query: refuse", "encoded_query: keep", "paths.encoded_query: refuse -> keep"),
    ("paths.semicolon", "semicolon: refuse", "semicolon: keep", "paths.semicolon: refuse -> keep"),
    ("paths.empty_segments", "segments: refuse", "segments: merge", "paths.empty_segments: refuse -> merge"),
    (
        "limits.token_endpoints.per_address.rate",
        "31/m",
        "32/m",
        "limits.token_endpoints.per_address: { rate: 31/m, burst: 11 } -> { rate: 32/m",
    ),
    ("limits.token_endpoints.per_address.burst", "burst: 11 ", "burst: 12 ", "limits.token_endpoints.per_address"),
    ("limits.token_endpoints.per_account.rate", "6/m", "7/m", "limits.token_endpoints.per_account:"),
    ("limits.token_endpoints.per_account.burst", "burst: 6 ", "burst: 7 ", "limits.token_endpoints.per_account:"),
    (
        "limits.token_endpoints.per_account_anywhere.rate",
        "101/h",
        "102/h",
        "limits.token_endpoints.per_account_anywhere",
    ),
    (
        "limits.token_endpoints.per_account_anywhere.burst",
        "burst: 101",
        "burst: 100",
        "limits.token_endpoints.per_account_anywhere",
    ),
    (
        "limits.unauthenticated.rate",
        "21/s",
        "22/s",
        "limits.unauthenticated: { rate: 21/s, burst: 102 } -> { rate: 22/s",
    ),
    ("limits.unauthenticated.burst", "{ rate: 21/s, burst: 102 }", "off", "burst: 102 } -> off"),
    ("limits.shared.url", "canary-1-of-redis", "canary-2-of-redis", "limits.shared: another value (not shown)"),
    (
        "limits.shared.tls.ca",
        "ca: a.pem, server_name: counts",
        "ca: b.pem, server_name: counts",
        "limits.shared: another",
    ),
    ("limits.shared.tls.server_name", "server_name: counts", "server_name: others", "limits.shared: another"),
    (
        "limits.shared.tls.cert",
        "counts, cert: a.pem, key: a.key",
        "counts, cert: b.pem, key: b.key",
        "limits.shared: another",
    ),
    (
        "limits.shared.file",
        "{ url: 'rediss://own:canary-1-of-redis@cache:7000', tls: { ca: a.pem, server_name: counts, cert: a.pem, key: a.key } }",
        "{ file: redis }",
        "limits.shared: cache:7000 -> other:6379",
    ),
    (
        "limits.shared.url.file",
        "url: 'rediss://own:canary-1-of-redis@cache:7000'",
        "url: { file: redis-tls }",
        "limits.shared: cache:7000 -> other:6379",
    ),
    ("limits.header_bytes", "32KiB", "31KiB", "limits.header_bytes: 32KiB -> 31KiB"),
    ("limits.headers", "headers: 100", "headers: 99", "limits.headers: 100 -> 99"),
    ("limits.body_bytes", "body_bytes: 1KiB", "body_bytes: 2KiB", "limits.body_bytes: 1KiB -> 2KiB"),
    ("limits.connections", "connections: 1000", "connections: 999", "limits.connections: 1000 -> 999"),
    ("timeouts.handshake", "handshake: 9s", "handshake: 8s", "timeouts.handshake: 9s -> 8s"),
    ("timeouts.request_header", "request_header: 11s", "request_header: 12s", "timeouts.request_header: 11s -> 12s"),
    ("timeouts.idle", "idle: 75s", "idle: 76s", "timeouts.idle: 75s -> 76s"),
    ("timeouts.connect", "connect: 3s", "connect: 4s", "timeouts.connect: 3s -> 4s"),
    (
        "timeouts.response_header",
        "response_header: 60s",
        "response_header: 61s",
        "/d every method\n    ~ timeouts.response_header: 1m -> 61s",
    ),
    ("timeouts.drain", "drain: 29s", "drain: 28s", "timeouts.drain: 29s -> 28s"),
    ("endpoints[].path", "path: /out", "path: /away", "/away POST\n"),
    ("endpoints[].action", "action: revoke, ends: family", "action: jwks", "answer: endpoint revoke -> 405"),
    ("endpoints[].fields", "username: email", "username: login", "fields.username: email -> login"),
    (
        "endpoints[].reply",
        "{ a: '{access}' }",
        "{ b: '{access}' }",
        "reply: {\"a\":\"{access}\"} -> {\"b\":\"{access}\"}",
    ),
    ("endpoints[].status", "status: 200", "status: 201", "status: 200 -> 201"),
    ("endpoints[].errors.member", "member: text", "member: said", "errors.member: text -> said"),
    (
        "endpoints[].errors.messages",
        "credentials: no }",
        "credentials: never }",
        "errors.messages.invalid_credentials: no -> never",
    ),
    ("endpoints[].from", "from: members", "from: authorization", "from: members -> authorization"),
    ("endpoints[].incomplete", "incomplete: member", "incomplete: credentials", "incomplete: member -> credentials"),
    ("endpoints[].ends", "ends: family", "ends: refresh", "ends: family -> refresh"),
    ("endpoints[].password_grant", "grant: false", "grant: true", "password_grant: false -> true"),
    (
        "upstreams.*.servers",
        "one.example",
        "two.example",
        "upstreams.api.servers: [https://one.example] -> [https://two.example]",
    ),
    ("upstreams.*.balance", "round_robin", "least_requests", "upstreams.api.balance: round_robin -> least_requests"),
    ("upstreams.*.health.path", "path: /up", "path: /alive", "upstreams.api.health: { path: /up"),
    ("upstreams.*.health.interval", "interval: 5s", "interval: 6s", "upstreams.api.health"),
    ("upstreams.*.health.timeout", "timeout: 1s", "timeout: 2s", "upstreams.api.health"),
    ("upstreams.*.health.unhealthy_after", "unhealthy_after: 3", "unhealthy_after: 4", "upstreams.api.health"),
    ("upstreams.*.health.healthy_after", " healthy_after: 2", " healthy_after: 3", "upstreams.api.health"),
    ("upstreams.*.keep_alive", "keep_alive: 64", "keep_alive: 63", "upstreams.api.keep_alive: 64 -> 63"),
    (
        "upstreams.*.tls.ca",
        "ca: a.pem, server_name: one",
        "ca: b.pem, server_name: one",
        "upstreams.api.tls.ca: a.pem -> b.pem",
    ),
    (
        "upstreams.*.tls.server_name",
        "server_name: one",
        "server_name: two",
        "upstreams.api.tls.server_name: one -> two",
    ),
    (
        "upstreams.*.tls.cert",
        "one, cert: a.pem, key: a.key",
        "one, cert: b.pem, key: b.key",
        "upstreams.api.tls.cert: a.pem -> b.pem",
    ),
    ("upstreams.*.builtin", "{ builtin: echo }", "{ servers: ['http://a'] }", "builtin: echo -> none"),
    ("routes[].path", "path: /d,", "path: /e,", "/e every method\n    + any principal"),
    ("routes[].methods", "methods: [GET]", "methods: [PUT]", "/a/b/** PUT on own.example\n    + user"),
    (
        "routes[].hosts",
        "hosts: [own.example]",
        "hosts: [other.example]",
        "/a/b/** GET, HEAD on other.example\n    + user",
    ),
    ("routes[].allow", "allow: [user]", "allow: [guest]", "+ guest"),
    ("routes[].scopes", "scopes: [read]\n    sch", "scopes: [write]\n    sch", "~ scopes: [read] -> [write]"),
    ("routes[].schemes", "schemes: [basic]", "schemes: [token]", "~ schemes: [basic] -> [token]"),
    ("routes[].strip_prefix", "strip_prefix: /a\n", "strip_prefix: /a/b\n", "strip_prefix: /a -> /a/b"),
    ("routes[].request_headers.set", "X-Tenant: blue", "X-Tenant: red", "request_headers.set.x-tenant: blue -> red"),
    ("routes[].request_headers.remove", "[Cookie]", "[Accept]", "request_headers.remove: [cookie] -> [accept]"),
    ("routes[].response_headers.set", "X-Frame: deny", "X-Frame: same", "response_headers.set.x-frame: deny -> same"),
    ("routes[].response_headers.remove", "[Server]", "[Via]", "response_headers.remove: [server] -> [via]"),
    (
        "routes[].cors.origins",
        "https://app.example",
        "https://web.example",
        "cors.origins: [https://app.example] -> [https://web.example]",
    ),
    ("routes[].cors.headers", "[X-A]", "[X-B]", "cors.headers: [x-a] -> [x-b]"),
    ("routes[].cors.max_age", "max_age: 10m", "max_age: 5m", "cors.max_age: 10m -> 5m"),
    ("routes[].cors.credentials", "credentials: false }", "credentials: true }", "cors.credentials: false -> true"),
    ("routes[].end_streams_on", "[revocation]", "[]", "end_streams_on: [revocation] -> []"),
    ("routes[].forward_credentials", "_credentials: false", "_credentials: true", "forward_credentials: false -> true"),
    ("routes[].rate.rate", "100/s", "99/s", "rate: { rate: 100/s, burst: 50, by: principal } -> { rate: 99/s"),
    ("routes[].rate.burst", "burst: 50", "burst: 51", "rate: { rate: 100/s, burst: 50, by: principal } -> "),
    ("routes[].rate.by", "by: principal", "by: address", "by: principal } -> { rate: 100/s, burst: 50, by: address }"),
    ("routes[].timeout", "timeout: 5s", "timeout: 6s", "timeout: 5s -> 6s"),
    ("routes[].body_bytes", "1MiB", "2MiB", "body_bytes: 1MiB -> 2MiB"),
    ("routes[].to", "to: demo", "to: api", "to: demo -> api"),
    ("log.access", "access: json", "access: off", "log.access: json -> off"),
    ("log.audit", "audit: json", "audit: off", "log.audit: json -> off"),
    ("log.level", "level: info", "level: warn", "log.level: info -> warn"),
    (
        "bootstrap.users[].name",
        "name: ann",
        "name: eve",
        "bootstrap.users: [ann (user), bob ()] -> [bob (), eve (user)]",
    ),
    (
        "bootstrap.users[].roles",
        "canary-password, roles: [user]",
        "canary-password, roles: [admin]",
        "[ann (admin), bob ()]",
    ),
    ("bootstrap.clients[].id", "id: robot", "id: droid", "[droid (user; read), "),
    (
        "bootstrap.clients[].roles",
        "canary-secret, roles: [user]",
        "canary-secret, roles: [admin]",
        "robot (admin; read)",
    ),
    ("bootstrap.clients[].scopes", "[read] }, {", "[write] }, {", "robot (user; write)"),
];

/// Keys of which nothing is told, and why.
const NOT_TOLD: &[(&str, &str)] = &[
    ("workers", "how many threads serve is nothing that a caller gets; a reload says that it needs a restart"),
    ("store.url", "where accounts are kept says nothing of them; a reload says that it needs a restart"),
    ("listeners[].tls.certificates[].key", "it is the one that fits `cert`"),
    ("auth.issuers[].tls.key", "it is the one that fits `cert`"),
    ("limits.shared.tls.key", "it is the one that fits `cert`"),
    ("upstreams.*.tls.key", "it is the one that fits `cert`"),
    ("expect[].request", "it is a test of the rules, and no rule"),
    ("expect[].as.roles", "it is a test of the rules, and no rule"),
    ("expect[].as.scopes", "it is a test of the rules, and no rule"),
    ("expect[].as.scheme", "it is a test of the rules, and no rule"),
    ("expect[].is", "it is a test of the rules, and no rule"),
    ("bootstrap.users[].password", "that of an account which is there is never changed"),
    ("bootstrap.users[].password.file", "that of an account which is there is never changed"),
    ("bootstrap.clients[].secret", "that of an account which is there is never changed"),
    ("bootstrap.clients[].secret.file", "that of an account which is there is never changed"),
];

/// All keys of a schema; the codes of errors are one.
fn keys(node: &Value, at: &str, found: &mut BTreeSet<String>) {
    for alternative in node["anyOf"].as_array().into_iter().flatten() {
        keys(alternative, at, found);
    }
    for (member, sign) in [("items", "[]"), ("additionalProperties", ".*")] {
        if node[member].is_object() {
            keys(&node[member], &format!("{at}{sign}"), found);
        }
    }
    for (key, value) in node["properties"].as_object().into_iter().flatten() {
        let at = format!("{at}.{key}");
        if !at.ends_with(".errors.messages") {
            keys(value, &at, found);
        }
        found.insert(at.trim_start_matches('.').to_owned());
    }
}

/// The files that [`BASE`] names, and others that may stand in their place.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    for name in ["a", "b"] {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        write(&format!("{name}.pem"), &made.cert.pem());
        write(&format!("{name}.key"), &made.signing_key.serialize_pem());
        write(&format!("{name}.pub"), &made.signing_key.public_key_pem());
    }
    write("redis", "redis://:canary@other");
    write("redis-tls", "rediss://:canary@other");
    for name in ["1", "2"] {
        write(&format!("own{name}.key"), &rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap().serialize_pem());
        write(&format!("secret{name}"), &format!("canary-canary-canary-canary-canary-{name}"));
        let pair = Ed25519KeyPair::generate().unwrap();
        let x = URL_SAFE_NO_PAD.encode(pair.public_key());
        let set = json!({ "keys": [{ "kty": "OKP", "crv": "Ed25519", "x": x, "kid": "k" }] });
        write(&format!("set{name}.json"), &set.to_string());
    }
    folder
}

fn load(text: &str, folder: &Path) -> Snapshot {
    load_text(text, folder, "a.yaml", &Environment::default()).unwrap_or_else(|problems| panic!("{problems}"))
}

#[test]
fn every_key_is_told_or_known_to_change_nothing() {
    let mut known = BTreeSet::new();
    keys(&schema::schema(), "", &mut known);
    let named: BTreeSet<&str> = TOLD.iter().map(|told| told.0).chain(NOT_TOLD.iter().map(|not| not.0)).collect();
    assert_eq!(named.len(), TOLD.len() + NOT_TOLD.len(), "a key stands twice");
    for key in &known {
        let has_others_below =
            known.iter().any(|other| other.strip_prefix(key.as_str()).is_some_and(|rest| rest.starts_with(['.', '['])));
        assert!(
            has_others_below || named.contains(key.as_str()),
            "{key}: make it a fact of `diff`, or say in NOT_TOLD why nobody gets anything else by it"
        );
    }
    for key in named {
        assert!(known.contains(key), "{key} is no key");
    }
}

#[test]
fn a_change_of_each_key_is_told() {
    let folder = folder();
    let base = load(BASE, folder.path());
    assert!(diff(&base, &load(BASE, folder.path())).unwrap().is_empty());
    assert_eq!(beside(&base, &load(BASE, folder.path())), [""; 0]);
    for (key, old, new, expected) in TOLD {
        assert_eq!(BASE.matches(old).count(), 1, "{key}: {old} is not at one place");
        let changed = load(&BASE.replace(old, new), folder.path());
        for (from, to) in [(&base, &changed), (&changed, &base)] {
            let told = format!("{}{}", Printed(&diff(from, to).unwrap()), beside(from, to).join("\n"));
            assert!(!told.is_empty(), "{key}");
            assert!(!told.contains("canary"), "{key}: {told}");
        }
        let told = format!("{}{}", Printed(&diff(&base, &changed).unwrap()), beside(&base, &changed).join("\n"));
        assert!(told.contains(expected), "{key}: {told}");
    }
}

/// What is read from a file counts, not what the file is called.
#[test]
fn the_same_in_another_file_is_no_change() {
    let folder = folder();
    let mut text = BASE.to_owned();
    for name in ["a.pem", "a.key", "set1.json", "own1.key", "secret1", "a.pub"] {
        std::fs::copy(folder.path().join(name), folder.path().join(format!("copy-{name}"))).unwrap();
        text = text.replace(name, &format!("copy-{name}"));
    }
    let told = Printed(&diff(&load(BASE, folder.path()), &load(&text, folder.path())).unwrap()).to_string();
    assert_eq!(told, "");
}
