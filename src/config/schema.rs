//! The JSON Schema (2020-12) of the whole file, with descriptions, so that editors complete it and check it.
//!
//! Each mapping bears as its title what problems call it. A test holds it against the keys that are really read.

use serde_json::{Map, Value, json};

use super::methods::EVERY;
use super::model::endpoints::{ACTIONS, ENDS, INCOMPLETE, SOURCES};
use super::model::expect::STATUSES;
use super::model::issuers::public_algorithms;
use super::model::settings::CODES;
use crate::authenticate::keys::Algorithm;
use crate::forward::Balance;
use crate::principal::Scheme;

/// What a reference to the environment looks like; it may stand wherever a scalar does.
const REFERENCE: &str = r"\$\{[A-Za-z_][A-Za-z0-9_]*(:-[^}]*)?\}";

/// The schema.
#[expect(clippy::too_many_lines, reason = "one line a section")]
pub fn schema() -> Value {
    let mut file = mapping(
        "the file",
        "The configuration of Portcullis. Only `upstreams` and `routes` are required; all else has safe defaults.",
        &["upstreams", "routes"],
        vec![
            (
                "listeners",
                some(
                    listener(),
                    "Where callers are served. Default: 127.0.0.1:8443 with a self-signed certificate for localhost.",
                ),
            ),
            ("workers", count_or_auto("Threads that serve; `auto`: one per core.", 1024)),
            (
                "trusted_proxies",
                list(
                    text("An address or a network, such as 10.0.0.0/8."),
                    "Who is believed in X-Forwarded-For and -Proto. Default: nobody.",
                ),
            ),
            (
                "admin",
                mapping("admin", "Metrics and health; never on a public listener.", &[], vec![("address", address())]),
            ),
            ("store", store()),
            ("auth", auth()),
            ("tokens", tokens()),
            (
                "passwords",
                mapping(
                    "passwords",
                    "Bounds of new passwords.",
                    &[],
                    vec![
                        ("min_bytes", count("The fewest bytes. Default: 8.", 1, 4096)),
                        ("max_bytes", count("The most bytes. Default: 1024.", 1, 4096)),
                    ],
                ),
            ),
            ("identity_headers", identity_headers()),
            ("errors", errors("The texts of refusals, for clients that match on another API's.")),
            ("paths", paths()),
            ("limits", limits()),
            ("timeouts", timeouts()),
            (
                "endpoints",
                list(endpoint(), "What the gateway answers itself, ahead of routes. Default: the standard endpoints."),
            ),
            ("upstreams", named(upstream(), "Named groups of servers.")),
            (
                "routes",
                list(
                    route(),
                    "Who may go where. The most specific path decides, whatever the order; what no route names is refused.",
                ),
            ),
            (
                "expect",
                list(
                    expectation(),
                    "The rules' own tests: run by `check`, at start and before every reload; one that fails refuses it.",
                ),
            ),
            (
                "log",
                mapping(
                    "log",
                    "What is logged.",
                    &[],
                    vec![
                        ("access", words("A JSON line a request. Default: json.", &["json", "off"])),
                        (
                            "audit",
                            words(
                                "A JSON line for each login, failure, token, reload and change. Default: json.",
                                &["json", "off"],
                            ),
                        ),
                        (
                            "level",
                            words(
                                "What the process says of itself. Default: info.",
                                &["error", "warn", "info", "debug", "trace"],
                            ),
                        ),
                    ],
                ),
            ),
            (
                "bootstrap",
                mapping(
                    "bootstrap",
                    "Created at start where absent, never changed after.",
                    &[],
                    vec![
                        (
                            "users",
                            list(
                                account("a user", "name", "password"),
                                "Users. One without a password gets one that is printed once.",
                            ),
                        ),
                        ("clients", list(account("a client", "id", "secret"), "OAuth clients.")),
                    ],
                ),
            ),
        ],
    );
    if let Some(file) = file.as_object_mut() {
        file.insert("$schema".into(), "https://json-schema.org/draft/2020-12/schema".into());
    }
    file
}

fn listener() -> Value {
    let tls = mapping(
        "tls",
        "Serve over TLS, with `certificates` or `self_signed`.",
        &[],
        vec![
            (
                "certificates",
                some(
                    mapping(
                        "a certificate",
                        "A certificate with its key.",
                        &["cert", "key"],
                        vec![
                            ("cert", text("The path of the certificate chain, in PEM.")),
                            ("key", text("The path of the private key, in PEM.")),
                        ],
                    ),
                    "Picked by SNI from the names in each certificate; the first is the fallback.",
                ),
            ),
            (
                "self_signed",
                some(text("A host name or an address."), "Made at first start for these names, kept beside the store."),
            ),
            ("min_version", spelt("The lowest TLS version. Default: \"1.2\".", &json!(["1.2", "1.3", 1.2, 1.3]))),
        ],
    );
    let tls = with_one_of(tls, &["certificates", "self_signed"]);
    let listener = mapping(
        "a listener",
        "An address where callers are served.",
        &["address"],
        vec![("address", address()), ("tls", tls), ("redirect", words("308 to the same URL on https.", &["https"]))],
    );
    with(listener, "not", json!({ "required": ["tls", "redirect"] }))
}

fn store() -> Value {
    let column = |what: &str| text(&format!("The column of {what}."));
    let names = mapping(
        "names",
        "Where roles have their names, if the table holds ids of them.",
        &["table", "id", "name"],
        vec![("table", text("The table.")), ("id", column("the id")), ("name", column("the name"))],
    );
    let roles = mapping(
        "roles",
        "A table of roles, one a row.",
        &["table", "user", "role"],
        vec![
            ("table", text("The table.")),
            ("user", column("the user's id")),
            ("role", column("the role")),
            ("names", names),
        ],
    );
    let users = mapping(
        "users",
        "The user table of another application.",
        &["table", "id", "name", "password"],
        vec![
            ("table", text("The table.")),
            ("id", column("the id")),
            ("name", column("the name")),
            ("password", column("the password's hash")),
            ("role", column("the role")),
            ("roles", roles),
            ("flags", named(text("The role."), "Roles by columns that say yes or no.")),
            ("active", column("whether the user may do anything")),
        ],
    );
    let tokens = mapping(
        "tokens",
        "Its table of tokens, stored in clear text.",
        &["table", "token", "user"],
        vec![
            ("table", text("The table.")),
            ("token", column("the token")),
            ("expires_at", column("its end")),
            ("user", column("the user's id")),
        ],
    );
    let whole = mapping(
        "store",
        "A store whose users another application keeps.",
        &["url"],
        vec![
            ("url", text("As where `store` is one text.")),
            ("users", users),
            ("tokens", tokens),
            ("rehash", boolean("Write argon2id back after a good login. Default: false.")),
        ],
    );
    let url = text("sqlite:, postgres:// or mysql://. Default: sqlite:portcullis.db.");
    json!({ "description": "Where users, clients, tokens and revocations live.", "anyOf": [url, whole] })
}

fn auth() -> Value {
    let cache = mapping(
        "cache",
        "How long looked-up principals are remembered.",
        &[],
        vec![
            ("ttl", duration("How long one serves without another look-up. Default: 30s.")),
            ("capacity", count("Entries, at most. Default: 100000.", 1, 100_000_000)),
            ("negative_ttl", duration("How long a refusal is remembered. Default: 2s.")),
            (
                "stale_if_store_down",
                duration("How long a principal keeps working while the store does not answer. Default: 5m."),
            ),
        ],
    );
    let token_type = mapping(
        "type",
        "A claim that tells access from refresh tokens. Default: the `typ` header.",
        &["claim"],
        vec![
            ("claim", claim_path("The path of the claim.")),
            ("access", text("Its value in access tokens. Default: access.")),
            ("refresh", text("Its value in refresh tokens. Default: refresh.")),
            ("missing", words("What a token without the claim is. Default: refused.", &["access"])),
        ],
    );
    let key = mapping(
        "a key",
        "A key; the first signs, all verify. One of `secret`, `private_key` and `public_key`.",
        &["id", "algorithm"],
        vec![
            ("id", text("Its `kid`.")),
            ("algorithm", words("How it signs.", &Algorithm::ALL.map(Algorithm::name))),
            ("secret", secret("For HMAC.")),
            ("private_key", text("The path of a private key, in PEM.")),
            ("public_key", text("The path of a public key, in PEM; it verifies only.")),
        ],
    );
    let key = with_one_of(key, &["secret", "private_key", "public_key"]);
    let jwt = mapping(
        "jwt",
        "How JWTs are read and written.",
        &[],
        vec![
            ("issuer", text("`iss`, issued and required. Default: portcullis.")),
            ("audience", some(text("An audience."), "`aud`, issued and required. Default: none.")),
            ("leeway", duration("Tolerance of times. Default: 30s.")),
            (
                "roles",
                claim_path(
                    "`store`: looked up by the subject; or a claim path, such as `realm_access.roles`. Default: store.",
                ),
            ),
            ("subject", claim_path("The claim path of the user or client. Default: sub.")),
            ("type", token_type),
            ("subject_kind", words("Whom a token is about that does not say it. Default: user.", &["user", "client"])),
            ("require_exp", boolean("Refuse tokens without `exp`. Default: true.")),
            (
                "require_iss",
                boolean(
                    "Refuse tokens without `iss`; false for those that a replaced system signed with one of `keys`. Default: true.",
                ),
            ),
            ("require_jti", boolean("Refuse tokens without `jti`. Default: false.")),
            (
                "require_account",
                boolean(
                    "Refuse tokens whose subject has no account, and take only those roles of a claim that it still has. Default: false.",
                ),
            ),
            ("keys", some(key, "Default: one EdDSA key, generated and kept in the store.")),
        ],
    );
    mapping(
        "auth",
        "Who is believed.",
        &[],
        vec![
            ("realm", text("The protection space named in challenges. Default: api.")),
            ("schemes", schemes("The schemes offered when a route names none. Default: all.")),
            ("cache", cache),
            ("jwt", jwt),
            ("issuers", list(issuer(), "Whose tokens are taken beside ours. Default: nobody's.")),
        ],
    )
}

fn issuer() -> Value {
    mapping(
        "an issuer",
        "Somebody whose tokens are taken beside ours.",
        &["issuer", "jwks"],
        vec![
            ("issuer", text("The `iss` of its tokens, byte for byte.")),
            (
                "jwks",
                text(
                    "The JWK Set with its keys: an https:// URL (http:// on this machine only), or the path of a file.",
                ),
            ),
            ("tls", client_tls("Towards the server of that URL.")),
            (
                "audience",
                some(
                    text("An audience."),
                    "`aud`, one of which is required. Default: none, and tokens that name any are refused.",
                ),
            ),
            (
                "algorithms",
                some(
                    words("How it signs.", &public_algorithms().iter().map(|one| one.name()).collect::<Vec<_>>()),
                    "Default: all that verify with a public key.",
                ),
            ),
            ("roles", claim_path("The claim path of the roles, such as `realm_access.roles`. Default: roles.")),
            ("user", claim_path("The claim path of the user's name, such as `preferred_username`. Default: sub.")),
            ("user_prefix", text("What upstreams and logs see before that name, to tell users of two issuers apart.")),
        ],
    )
}

fn client_tls(description: &str) -> Value {
    mapping(
        "tls",
        description,
        &[],
        vec![
            ("ca", text("The path of the roots, in PEM. Default: the system's.")),
            ("server_name", text("The name to expect. Default: the URL's host.")),
            ("cert", text("The path of a client certificate, in PEM.")),
            ("key", text("The path of its key, in PEM.")),
        ],
    )
}

fn tokens() -> Value {
    mapping(
        "tokens",
        "What is issued.",
        &[],
        vec![
            ("access_ttl", duration("Of access JWTs. Default: 15m.")),
            ("refresh_ttl", duration("Of refresh tokens. Default: 7d.")),
            ("opaque_ttl", duration("Of tokens of the `Token` scheme. Default: 24h.")),
            ("default_role", described("Of a registered user. Default: user.", role())),
            ("refresh_format", words("How refresh tokens are written. Default: opaque.", &["opaque", "jwt"])),
            (
                "refresh_grace",
                duration(
                    "How long after its use a refresh token gets the same answer again, at most 10s. Default: 10s.",
                ),
            ),
            ("claims", free("Further claims of issued JWTs: constants and templates such as \"{user_id}\".")),
            ("sub_as", words("Write a `sub` that is a mapping as JSON text.", &["json_text"])),
        ],
    )
}

fn identity_headers() -> Value {
    let name = |what: &str| text(&format!("The header that tells the upstream {what}."));
    let names = mapping(
        "identity_headers",
        "The name of each header.",
        &[],
        vec![
            ("user", name("who calls. Default: X-Auth-User")),
            ("roles", name("the roles, comma separated. Default: X-Auth-Roles")),
            ("scheme", name("by which scheme. Default: X-Auth-Scheme")),
        ],
    );
    json!({
        "description": "What the upstream is told; a caller's own headers of these names never pass.",
        "anyOf": [words("A known set of names.", &["remote", "forwarded", "consumer"]), names],
    })
}

fn errors(description: &str) -> Value {
    let message = json!({
        "description": "The message, or members in the place of it, with {field} and {method} in their texts and names.",
        "type": ["string", "object"],
    });
    let codes = CODES.iter().map(|code| ((*code).to_owned(), message.clone())).collect::<Map<_, _>>();
    let fine = format!("^({})\\.", CODES.join("|"));
    mapping(
        "errors",
        description,
        &[],
        vec![
            ("member", text("The name of the member that bears the message. Default: message.")),
            (
                "messages",
                json!({
                    "description": "Messages by error code, or more exactly: `invalid_token.expired`, `invalid_token.bearer`, `invalid_token.bearer.expired`, `invalid_request.missing`.",
                    "type": "object",
                    "properties": codes,
                    "patternProperties": { fine: message },
                    "additionalProperties": false,
                }),
            ),
        ],
    )
}

fn paths() -> Value {
    mapping(
        "paths",
        "What an ambiguous path gets; all is refused by default.",
        &[],
        vec![
            ("encoded_slash", words("%2F: refused, or one segment's content.", &["refuse", "keep"])),
            ("encoded_query", words("%3F and %23: refused, or content.", &["refuse", "keep"])),
            ("semicolon", words("`;`: refused, or part of the segment.", &["refuse", "keep"])),
            ("empty_segments", words("`//`: refused, or read as `/`.", &["refuse", "merge"])),
        ],
    )
}

fn limits() -> Value {
    let budget = |key: &str, description: &str| {
        let rates = mapping(key, description, &[], vec![("rate", rate()), ("burst", burst())]);
        json!({ "description": description, "anyOf": [words("No limit.", &["off"]), rates] })
    };
    let endpoints = mapping(
        "token_endpoints",
        "Of every endpoint under `endpoints`.",
        &[],
        vec![
            ("per_address", budget("per_address", "Requests of one address. Default: 30/m, burst 10.")),
            (
                "per_account",
                budget("per_account", "Failed attempts for one name from one address. Default: 5/m, burst 5."),
            ),
            (
                "per_account_anywhere",
                budget("per_account_anywhere", "The same from all addresses together. Default: 100/h, burst 100."),
            ),
        ],
    );
    mapping(
        "limits",
        "Budgets and bounds.",
        &[],
        vec![
            ("token_endpoints", json!({ "anyOf": [words("No limits.", &["off"]), endpoints] })),
            (
                "unauthenticated",
                budget("unauthenticated", "Failed credentials of one address, on any route. Default: 20/s, burst 100."),
            ),
            ("shared", shared_limits()),
            ("header_bytes", or_off(size("The largest head of a request; `off`: 1MiB. Default: 32KiB."))),
            ("headers", or_off(count("The most header fields; `off`: 1000. Default: 100.", 1, 1000))),
            ("body_bytes", or_off(size("The largest body; 0 or `off`: no limit. Default: 0."))),
            (
                "connections",
                or_off(count_or_auto(
                    "Connections of callers; `auto` or `off`: as many as the descriptor limit leaves. Default: auto.",
                    10_000_000,
                )),
            ),
        ],
    )
}

fn shared_limits() -> Value {
    let url = secret("redis://USER:PASSWORD@HOST:PORT/DATABASE, or rediss:// for TLS.");
    let tls = client_tls("Towards the server of that URL.");
    let whole = mapping("shared", "With its TLS.", &["url"], vec![("url", url.clone()), ("tls", tls)]);
    json!({
        "description": "A Redis or Valkey in which all gateways count together; while it does not answer, each counts for itself.",
        "anyOf": [url, whole],
    })
}

fn timeouts() -> Value {
    mapping(
        "timeouts",
        "Bounds in time.",
        &[],
        vec![
            ("handshake", duration("For a TLS handshake. Default: 10s.")),
            ("request_header", duration("For the head of a request. Default: 10s.")),
            ("idle", duration("For a connection or a body without movement. Default: 75s.")),
            ("connect", duration("For a connection to an upstream. Default: 2s.")),
            ("response_header", duration("For the head of an upstream's response. Default: 60s.")),
            ("drain", duration("For requests under way when the gateway ends. Default: 30s.")),
        ],
    )
}

fn endpoint() -> Value {
    mapping(
        "an endpoint",
        "A path that the gateway answers itself.",
        &["path", "action"],
        vec![
            ("path", text("The exact path, such as /auth/login.")),
            ("action", words("What it does.", &ACTIONS.map(|(name, _)| name))),
            ("fields", named(text("The name in use."), "Names of request members, by their standard names.")),
            ("reply", free("The response's members, each a template such as \"{access}\".")),
            ("status", count("The status of success.", 200, 299)),
            ("errors", errors("As the section `errors`, for this endpoint alone.")),
            (
                "from",
                words(
                    "Where `login`, `client_login`, `refresh` and `revoke` look for credentials. Default: in the body, else in Authorization.",
                    &SOURCES.map(|(name, _)| name),
                ),
            ),
            (
                "incomplete",
                words(
                    "How missing and empty credentials are refused: 400 that names the member, or 401. Default: a missing one 400, an empty one 401.",
                    &INCOMPLETE.map(|(name, _)| name),
                ),
            ),
            (
                "ends",
                words(
                    "What ends with a refresh token at `revoke`: its family with all access tokens, or it alone. Default: family.",
                    &ENDS.map(|(name, _)| name),
                ),
            ),
            ("password_grant", boolean("Whether `oauth_token` offers the password grant. Default: false.")),
        ],
    )
}

fn upstream() -> Value {
    let health = mapping(
        "health",
        "Active checks.",
        &[],
        vec![
            ("path", text("The path of the probe; 2xx and 3xx are healthy. Default: /health.")),
            ("interval", duration("Between probes. Default: 5s.")),
            ("timeout", duration("For one probe. Default: 1s.")),
            ("unhealthy_after", count("Failures in a row that take a server out. Default: 3.", 1, 1000)),
            ("healthy_after", count("Successes in a row that bring it back. Default: 2.", 1, 1000)),
        ],
    );
    let upstream = mapping(
        "an upstream",
        "Servers, or what is built in.",
        &[],
        vec![
            (
                "servers",
                some(
                    text("A URL: http://, https:// or h2c://, a host and a port."),
                    "The servers. One that cannot be reached, or does not answer, is set aside for 5 s where there are others.",
                ),
            ),
            ("balance", words("How one is chosen. Default: least_requests.", &Balance::ALL.map(Balance::name))),
            ("health", health),
            ("keep_alive", count("Idle connections kept per worker and server. Default: 64.", 0, 10_000)),
            ("tls", client_tls("Towards https:// servers.")),
            ("builtin", words("Answer with what was received, as JSON.", &["echo"])),
        ],
    );
    with_one_of(upstream, &["servers", "builtin"])
}

/// The words of `allow` that are no roles.
const EVERYBODY: [&str; 2] = ["anyone", "authenticated"];

fn route() -> Value {
    let edits = |title: &str, description: &str| {
        mapping(
            title,
            description,
            &[],
            vec![
                ("set", named(text("The value."), "Set; replaces all fields of that name.")),
                ("remove", list(text("A name."), "Removed.")),
            ],
        )
    };
    let cors = mapping(
        "cors",
        "Which pages of other origins may read the responses.",
        &["origins"],
        vec![
            ("origins", some(text("An origin."), "Origins such as https://app.example.com, or `*` alone for any.")),
            ("headers", list(text("A name."), "Request fields that a page may set.")),
            ("max_age", duration("How long a browser may remember the answer to a preflight.")),
            ("credentials", boolean("Whether cookies go along. Default: false.")),
        ],
    );
    let rate = mapping(
        "rate",
        "The route's own budget.",
        &["rate"],
        vec![
            ("rate", rate()),
            ("burst", burst()),
            ("by", words("Whose requests share it. Default: principal.", &["principal", "address"])),
        ],
    );
    let allow = json!({
        "description": "Who may pass: anyone without a look at credentials, any principal, or one with any of these roles.",
        "anyOf": [
            words("Everyone, or any principal.", &EVERYBODY),
            some(but(role(), &EVERYBODY), "Any one of these roles."),
        ],
    });
    mapping(
        "a route",
        "One rule.",
        &["path", "allow", "to"],
        vec![
            (
                "path",
                json!({
                    "description": "/a/b exactly that; {name} one segment; a last /** the prefix and everything below it.",
                    "type": "string",
                    "pattern": "^/|\\$\\{",
                }),
            ),
            ("methods", some(method(), "Default: all. HEAD is allowed where GET is.")),
            ("hosts", some(text("A host name without a port."), "Default: all.")),
            ("allow", allow),
            ("scopes", list(text("A scope."), "Scopes that the credential must bear, all of them.")),
            ("schemes", schemes("The schemes that are offered. Default: those of `auth`.")),
            (
                "strip_prefix",
                text("A prefix of whole segments that is taken off before the path is sent, such as /orders."),
            ),
            ("request_headers", edits("request_headers", "Edits of what the upstream is sent.")),
            ("response_headers", edits("response_headers", "Edits of what the caller gets.")),
            ("cors", cors),
            (
                "end_streams_on",
                list(
                    words("What.", &["revocation", "expiry"]),
                    "What ends an open stream of this route. Default: [revocation].",
                ),
            ),
            ("forward_credentials", boolean("Whether Authorization is sent on. Default: false.")),
            ("rate", rate),
            ("timeout", duration("Instead of timeouts.response_header.")),
            (
                "body_bytes",
                or_off(size("The largest request body, instead of limits.body_bytes; 0 or `off`: no limit.")),
            ),
            ("to", text("The name of an upstream.")),
        ],
    )
}

fn expectation() -> Value {
    let principal = mapping(
        "as",
        "A principal.",
        &[],
        vec![
            ("roles", roles("Its roles.", 0)),
            ("scopes", list(text("A scope."), "The scopes of its credential.")),
            (
                "scheme",
                words(
                    "The scheme of its credential. Default: one that the route offers.",
                    &Scheme::ALL.map(Scheme::name),
                ),
            ),
        ],
    );
    mapping(
        "an expectation",
        "What a request should get.",
        &["request", "as", "is"],
        vec![
            (
                "request",
                described(
                    "A method and a URL, such as GET /orders/7 or GET https://api.example.com/orders.",
                    quoted("[^ ]+ [^ ]+"),
                ),
            ),
            (
                "as",
                json!({ "description": "Who asks.", "anyOf": [words("Without credentials.", &["anyone"]), principal] }),
            ),
            ("is", status("The status; 200: it passes.")),
        ],
    )
}

fn account(title: &str, name: &str, password: &str) -> Value {
    let mut keys = vec![
        (name, text("The name.")),
        (password, secret("Default: generated, and printed once.")),
        ("roles", roles("The roles.", 0)),
    ];
    if name == "id" {
        keys.push(("scopes", list(text("A scope."), "The scopes that it may ask for.")));
    }
    mapping(title, "Created at start where absent.", &[name], keys)
}

/// A mapping whose keys are all known.
fn mapping(title: &str, description: &str, required: &[&str], keys: Vec<(&str, Value)>) -> Value {
    let keys: Map<String, Value> = keys.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    json!({
        "title": title,
        "description": description,
        "type": "object",
        "properties": keys,
        "required": required,
        "additionalProperties": false,
    })
}

/// A mapping whose keys are names of the user's.
fn named(value: impl Into<Value>, description: &str) -> Value {
    json!({ "description": description, "type": "object", "additionalProperties": value.into() })
}

fn free(description: &str) -> Value {
    json!({ "description": description, "type": "object" })
}

fn list(item: impl Into<Value>, description: &str) -> Value {
    json!({ "description": description, "type": "array", "items": item.into() })
}

/// A mapping that has one of these keys and no other of them.
fn with_one_of(mapping: Value, keys: &[&str]) -> Value {
    with(mapping, "oneOf", keys.iter().map(|key| json!({ "required": [key] })).collect())
}

/// A mapping of which something more is so.
fn with(mut mapping: Value, keyword: &str, rule: Value) -> Value {
    if let Some(members) = mapping.as_object_mut() {
        members.insert(keyword.into(), rule);
    }
    mapping
}

/// A list of at least one.
fn some(item: impl Into<Value>, description: &str) -> Value {
    json!({ "description": description, "type": "array", "items": item.into(), "minItems": 1 })
}

fn roles(description: &str, least: u64) -> Value {
    json!({ "description": description, "type": "array", "items": role(), "minItems": least })
}

/// A name that does not begin with the sign of those who are no role.
fn role() -> Value {
    described("A role.", quoted("[^@].*"))
}

/// A token (RFC 9110 5.6.2) in upper case, and not what stands for every method elsewhere.
fn method() -> Value {
    but(described("A method, in upper case.", quoted("[!#$%&'*+.^_`|~0-9A-Z-]+")), &EVERY)
}

/// The same without these.
fn but(mut schema: Value, words: &[&str]) -> Value {
    if let Some(members) = schema.as_object_mut() {
        members.insert("not".into(), json!({ "enum": words }));
    }
    schema
}

fn schemes(description: &str) -> Value {
    some(words("A scheme.", &Scheme::ALL.map(Scheme::name)), description)
}

fn text(description: &str) -> Value {
    json!({ "description": description, "type": "string" })
}

fn claim_path(description: &str) -> Value {
    let names = some(text("A name, dots and all."), "Names, from the outermost on.");
    json!({ "description": description, "anyOf": [text("Names with dots between them; or one URL."), names] })
}

fn address() -> Value {
    text("An address with its port, such as 127.0.0.1:8443 or [::]:8443.")
}

fn boolean(description: &str) -> Value {
    json!({ "description": description, "anyOf": [{ "type": "boolean" }, reference()] })
}

/// A text in which a variable stands: what it becomes is not known here.
fn reference() -> Value {
    json!({ "type": "string", "pattern": REFERENCE })
}

fn words(description: &str, words: &[&str]) -> Value {
    spelt(description, &json!(words))
}

/// One of these, or a text that becomes one.
fn spelt(description: &str, values: &Value) -> Value {
    json!({ "description": description, "anyOf": [{ "enum": values }, reference()] })
}

fn status(description: &str) -> Value {
    let numbers = STATUSES.iter().map(|status| json!(status));
    spelt(description, &numbers.chain(STATUSES.iter().map(|status| status.to_string().into())).collect())
}

fn count(description: &str, least: u64, most: u64) -> Value {
    json!({
        "description": description,
        "anyOf": [{ "type": "integer", "minimum": least, "maximum": most }, quoted("[0-9]+")],
    })
}

fn count_or_auto(description: &str, most: u64) -> Value {
    let number = json!({ "type": "integer", "minimum": 1, "maximum": most });
    json!({ "description": description, "anyOf": [{ "const": "auto" }, number, quoted("[0-9]+")] })
}

fn duration(description: &str) -> Value {
    described(description, quoted("[0-9]+(ms|s|m|h|d)"))
}

fn size(description: &str) -> Value {
    json!({ "description": description, "anyOf": [{ "type": "integer", "minimum": 0 }, quoted("[0-9]+(KiB|MiB|GiB)?")] })
}

/// One of its forms, or `off`.
fn or_off(mut schema: Value) -> Value {
    if let Some(forms) = schema.get_mut("anyOf").and_then(Value::as_array_mut) {
        forms.insert(0, json!({ "const": "off" }));
    }
    schema
}

fn rate() -> Value {
    described("Such as 10/s, 30/m or 1000/h.", quoted("[0-9]+/(s|m|h|d)"))
}

fn described(description: &str, mut schema: Value) -> Value {
    if let Some(members) = schema.as_object_mut() {
        members.insert("description".into(), description.into());
    }
    schema
}

fn burst() -> Value {
    count("How many may come at once.", 1, 1_000_000)
}

/// A text of this form, or one in which a variable stands.
fn quoted(form: &str) -> Value {
    json!({ "type": "string", "pattern": format!("^{form}$|{REFERENCE}") })
}

fn secret(description: &str) -> Value {
    let file =
        mapping("a secret", "A secret in a file of its own.", &["file"], vec![("file", text("The path of the file."))]);
    json!({ "description": description, "anyOf": [text("The secret; write ${NAME} and set it in the environment."), file] })
}
