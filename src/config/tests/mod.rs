//! What a person sees of a mistake, where values come from, and what a file means that has no mistake.

mod bounds;
mod messages;
mod doubts;
mod sources;
mod keys;
mod meaning;

use super::*;

/// A file that has nothing but what it must have.
pub(super) const LEAST: &str =
    "upstreams: { demo: { builtin: echo } }\nroutes:\n  - { path: /, allow: anyone, to: demo }\n";

fn environment() -> Environment {
    [("NAME", "value"), ("EMPTY", ""), ("CANARY", "canary"), ("PORT", "9001"), ("ODD", "adm\u{200b}in")]
        .into_iter()
        .collect()
}

fn load(text: &str) -> Result<Snapshot, Problems> {
    let directory = tempfile::tempdir().unwrap();
    load_text(text, directory.path(), "gateway.yaml", &environment())
}

fn problems(text: &str) -> String {
    load(text).map_or_else(|problems| problems.to_string(), |_| String::new())
}

/// `LEAST` with more before it.
fn problems_of(section: &str) -> String {
    problems(&format!("{section}\n{LEAST}"))
}

/// Fails with all that was wrong with a table.
fn none_wrong(wrong: &[String]) {
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

fn with(section: &str) -> Snapshot {
    load(&format!("{section}\n{LEAST}")).unwrap_or_else(|problems| panic!("{problems}"))
}

fn with_route(more: &str) -> Result<Snapshot, Problems> {
    load(&format!(
        "upstreams: {{ demo: {{ builtin: echo }} }}\nroutes:\n  - path: /orders/{{id}}\n    to: demo\n{more}"
    ))
}

/// Everything of contract 2 that is built.
pub(super) const WHOLE: &str = r#"
listeners:
  - address: 0.0.0.0:8443
    tls:
      certificates:
        - { cert: certs/api.pem, key: certs/api.key }
      min_version: "1.3"
  - address: 0.0.0.0:8080
    redirect: https
workers: auto
trusted_proxies: [10.0.0.0/8, "::1", 192.0.2.7]
admin:
  address: 127.0.0.1:9901
store: sqlite:data/portcullis.db
auth:
  realm: api
  schemes: [basic, token, bearer]
  cache: { ttl: 30s, capacity: 100000, negative_ttl: 2s, stale_if_store_down: 5m }
  jwt:
    issuer: https://api.example.com
    audience: [orders-api]
    leeway: 30s
    roles: realm_access.roles
    subject: sub.username
    type: { claim: type, access: access, refresh: refresh, missing: access }
    require_exp: true
    require_iss: true
    require_jti: true
    require_account: true
    subject_kind: user
    keys:
      - { id: k1, algorithm: HS256, secret: ${JWT_SECRET_KEY} }
      - { id: k0, algorithm: ES256, private_key: keys/es256.pem }
  issuers:
    - issuer: https://idp.example.com/realms/main
      jwks: https://idp.example.com/realms/main/protocol/openid-connect/certs
      tls: { ca: certs/api.pem, server_name: idp.example.com, cert: certs/api.pem, key: certs/api.key }
      audience: [orders-api]
      algorithms: [RS256, ES256]
      roles: realm_access.roles
      user: preferred_username
      user_prefix: "main:"
tokens:
  access_ttl: 15m
  refresh_ttl: 7d
  opaque_ttl: 24h
  default_role: user
  refresh_format: jwt
  refresh_grace: 10s
  claims: { user_id: "{user_id}", sub: { username: "{user}", role: "{role}" } }
  sub_as: json_text
passwords: { min_bytes: 8, max_bytes: 1024 }
identity_headers:
  user: X-Auth-User
  roles: X-Auth-Roles
  scheme: X-Auth-Scheme
errors:
  member: message
  messages: { missing_credentials: Missing Authorization Header, invalid_token.expired: Token has expired }
paths:
  encoded_slash: refuse
  encoded_query: refuse
  semicolon: refuse
  empty_segments: merge
limits:
  token_endpoints:
    per_address: { rate: 30/m, burst: 10 }
    per_account: { rate: 5/m, burst: 5 }
    per_account_anywhere: { rate: 100/h, burst: 100 }
  unauthenticated: { rate: 20/s, burst: 100 }
  header_bytes: 32KiB
  headers: 100
  body_bytes: 0
  connections: auto
  shared: { url: 'rediss://:secret@redis/1', tls: { ca: certs/api.pem, server_name: localhost, cert: certs/api.pem, key: certs/api.key } }
timeouts: { handshake: 10s, request_header: 10s, idle: 75s, connect: 2s, response_header: 60s, drain: 30s }
endpoints:
  - { path: /oauth/token, action: oauth_token }
  - { path: /login/, action: login, from: members, incomplete: member }
  - { path: /revoke, action: revoke, fields: { token: refresh }, ends: refresh }
upstreams:
  orders:
    servers: [http://127.0.0.1:9001, http://127.0.0.1:9002]
    balance: least_requests
    health: { path: /health, interval: 5s, timeout: 1s, unhealthy_after: 3, healthy_after: 2 }
    keep_alive: 64
  inner:
    servers: [https://10.0.0.7]
    tls: { ca: certs/api.pem, server_name: localhost, cert: certs/api.pem, key: certs/api.key }
  demo: { builtin: echo }
routes:
  - path: /health
    allow: anyone
    to: orders
  - path: /orders/**
    methods: [GET, HEAD]
    allow: [user, admin]
    to: orders
  - path: /orders/{id}/refund
    methods: [POST]
    hosts: [api.example.com]
    allow: [admin]
    scopes: [orders:write]
    schemes: [bearer]
    strip_prefix: /orders
    request_headers: { set: { X-Tenant: blue }, remove: [Cookie] }
    response_headers: { set: { Cache-Control: no-store } }
    forward_credentials: false
    rate: { rate: 100/s, burst: 50, by: principal }
    timeout: 5s
    body_bytes: 1MiB
    to: orders
log: { access: json, audit: json, level: info }
bootstrap:
  users:
    - { name: admin, roles: [admin] }
    - { name: guest, password: { file: guest.txt }, roles: [guest] }
  clients:
    - { id: ${API_CLIENT_ID}, secret: ${API_CLIENT_SECRET}, roles: [user] }
"#;

/// What [`WHOLE`] leaves out, because something else stands in its place.
pub(super) const OTHER_WAYS: &str = r"
store:
  url: sqlite:a.db
  users: { table: user, id: id, name: username, password: hash, roles: { table: r, user: u, role: r, names: { table: n, id: i, name: n } } }
  tokens: { table: token, token: token, user: user }
listeners: [{ address: 127.0.0.1:1, tls: { self_signed: [localhost] } }]
endpoints: [{ path: /a, action: login, fields: { username: email }, errors: { member: msg } }]
upstreams: { demo: { builtin: echo } }
routes:
  - { path: /a, allow: anyone, to: demo, cors: { origins: ['*'] }, end_streams_on: [] }
expect:
  - { request: GET /a, as: { roles: [a] }, is: 200 }
";
