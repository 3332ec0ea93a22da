//! Who is believed and what is issued: the sections `auth`, `tokens` and `bootstrap`.

use std::time::Duration;

use serde_json::{Map, Value};

use super::super::decode::{self, Placed, SecretSource, Section};
use super::super::report::{Place, Report};
use super::super::tree::{self, Node};
use super::issuers::{self, Issuer};
use crate::authenticate::bearer::JwtKind;
use crate::authenticate::keys::Algorithm;
use crate::authenticate::{CacheSettings, ClaimPath, JwtSettings, RoleSource, TypeSource};
use crate::endpoint::RefreshFormat;
use crate::endpoint::refresh::REFRESH_GRACE_MAX;
use crate::principal::{Role, Scheme, SchemeSet, Scope, SubjectKind};

const CACHE_CAPACITY_MAX: u64 = 100_000_000;

/// The section `auth`.
#[derive(Debug)]
pub struct Auth {
    /// `realm`.
    pub realm: Box<str>,
    /// `schemes`.
    pub schemes: SchemeSet,
    /// `cache`.
    pub cache: CacheSettings,
    /// `jwt`, all but its keys.
    pub jwt: JwtSettings,
    /// `jwt.keys`, and where they stand; `None`: those in the store.
    pub jwt_keys: Option<Placed<Vec<Key>>>,
    /// `issuers`.
    pub issuers: Vec<Issuer>,
}

impl Auth {
    /// Reads the section, or gives the defaults.
    pub fn read(node: Option<&Node>, report: &mut Report) -> Self {
        let keys = &["realm", "schemes", "cache", "jwt", "issuers"];
        let section = node.and_then(|node| Section::open(node, "`auth`", keys, &[], report));
        let child = |key| section.as_ref().and_then(|section| section.node(key));
        let (jwt, jwt_keys) = jwt(child("jwt"), report);
        Self {
            realm: child("realm").and_then(|node| realm(node, report)).unwrap_or_else(|| "api".into()),
            schemes: child("schemes").and_then(|node| schemes(node, report)).unwrap_or_else(SchemeSet::all),
            cache: cache(child("cache"), report),
            jwt,
            jwt_keys,
            issuers: child("issuers").and_then(|node| issuers::read(node, report)).unwrap_or_default(),
        }
    }
}

/// A realm goes into a quoted string of `WWW-Authenticate` (RFC 9110 5.6.4).
fn realm(node: &Node, report: &mut Report) -> Option<Box<str>> {
    let realm = decode::full_text(node, report)?;
    if !realm.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        report.add(node.place, "a realm has visible ASCII characters and spaces only");
        return None;
    }
    Some(realm.into())
}

/// A list of schemes.
pub fn schemes(node: &Node, report: &mut Report) -> Option<SchemeSet> {
    let words = Scheme::ALL.map(|scheme| (scheme.name(), scheme));
    let schemes = decode::some(node, report, decode::one_of(&words))?;
    Some(schemes.into_iter().collect())
}

fn cache(node: Option<&Node>, report: &mut Report) -> CacheSettings {
    let mut cache = CacheSettings {
        ttl: Duration::from_secs(30),
        capacity: 100_000,
        negative_ttl: Duration::from_secs(2),
        stale_if_store_down: Duration::from_mins(5),
    };
    let keys = &["ttl", "capacity", "negative_ttl", "stale_if_store_down"];
    let section = node.and_then(|node| Section::open(node, "`cache`", keys, &[], report));
    let Some(section) = section else { return cache };
    cache.ttl = section.read("ttl", report, decode::duration).unwrap_or(cache.ttl);
    cache.capacity = section.read("capacity", report, decode::whole(1, CACHE_CAPACITY_MAX)).unwrap_or(cache.capacity);
    cache.negative_ttl = section.read("negative_ttl", report, decode::duration).unwrap_or(cache.negative_ttl);
    let stale = section.read("stale_if_store_down", report, decode::duration);
    cache.stale_if_store_down = stale.unwrap_or(cache.stale_if_store_down);
    cache
}

/// One of `auth.jwt.keys`.
#[derive(Debug)]
pub struct Key {
    /// Where it stands.
    pub place: Place,
    /// `id`.
    pub id: Placed<Box<str>>,
    /// `algorithm`.
    pub algorithm: Option<Algorithm>,
    /// `secret`, `private_key` or `public_key`.
    pub material: Option<KeyMaterial>,
}

/// What a key is made of.
#[derive(Debug)]
pub enum KeyMaterial {
    /// For HMAC.
    Secret(Place, SecretSource),
    /// The path of a private key in PEM.
    PrivateFile(Placed<Box<str>>),
    /// The path of a public key in PEM.
    PublicFile(Placed<Box<str>>),
}

const JWT_KEYS: &[&str] = &[
    "issuer",
    "audience",
    "leeway",
    "roles",
    "subject",
    "subject_kind",
    "type",
    "require_exp",
    "require_iss",
    "require_jti",
    "require_account",
    "keys",
];

/// The section `auth.jwt`: all but the keys, and the keys.
fn jwt(node: Option<&Node>, report: &mut Report) -> (JwtSettings, Option<Placed<Vec<Key>>>) {
    let mut jwt = JwtSettings::of("portcullis");
    let section = node.and_then(|node| Section::open(node, "`jwt`", JWT_KEYS, &[], report));
    let Some(section) = section else { return (jwt, None) };
    jwt.issuer = section.read("issuer", report, decode::full_text).map_or(jwt.issuer, Into::into);
    let audience = section.read("audience", report, |node, report| {
        decode::some(node, report, |item, report| decode::full_text(item, report).map(Into::into))
    });
    jwt.audience = audience.unwrap_or_default();
    jwt.leeway = section.read("leeway", report, decode::duration).unwrap_or(jwt.leeway);
    let roles = section.read("roles", report, |node, report| {
        if decode::is_word(node, "store") { None } else { claim_path(node, report).map(RoleSource::Claim) }
    });
    jwt.roles = roles.unwrap_or(jwt.roles);
    jwt.subject = section.read("subject", report, claim_path).unwrap_or(jwt.subject);
    jwt.token_type = section.read("type", report, token_type).unwrap_or(jwt.token_type);
    jwt.require_exp = section.read("require_exp", report, decode::boolean).unwrap_or(jwt.require_exp);
    jwt.require_iss = section.read("require_iss", report, decode::boolean).unwrap_or(jwt.require_iss);
    jwt.require_jti = section.read("require_jti", report, decode::boolean).unwrap_or(jwt.require_jti);
    let account = section.read("require_account", report, decode::boolean);
    jwt.require_account = account.unwrap_or(jwt.require_account);
    let kinds = [SubjectKind::User, SubjectKind::Client].map(|kind| (kind.name(), kind));
    jwt.subject_kind = section.read("subject_kind", report, decode::one_of(&kinds)).unwrap_or(jwt.subject_kind);
    let keys = section.read("keys", report, |node, report| {
        decode::some(node, report, key).map(|value| Placed { value, place: node.place })
    });
    (jwt, keys)
}

/// A path such as `realm_access.roles`, or a list of names that are taken as they are.
pub fn claim_path(node: &Node, report: &mut Report) -> Option<ClaimPath> {
    let path = match &node.value {
        tree::Value::List(items) => {
            let names = decode::some(node, report, decode::full_text)?;
            // one that is none is reported already
            if names.len() < items.len() {
                return None;
            }
            ClaimPath::of(names)
        }
        tree::Value::Scalar(_) | tree::Value::Map(_) => ClaimPath::parse(decode::full_text(node, report)?),
    };
    if path.is_none() {
        report.add_with_hint(
            node.place,
            format!("{} is not a claim path such as `realm_access.roles`", decode::shown_node(node)),
            "a name with dots in it stands in a list: [com.example.roles]",
        );
    }
    path
}

fn token_type(node: &Node, report: &mut Report) -> Option<TypeSource> {
    let section = Section::open(node, "`type`", &["claim", "access", "refresh", "missing"], &[], report)?;
    let claim = section.required("claim", "the path of the claim that says what a token is", report, claim_path);
    let access: Box<str> = section.read("access", report, decode::full_text).unwrap_or("access").into();
    let refresh: Box<str> = section.read("refresh", report, decode::full_text).unwrap_or("refresh").into();
    if access == refresh {
        report.add(node.place, "`access` and `refresh` are the same: no token could be told from the other");
        return None;
    }
    let unmarked = section.read("missing", report, decode::one_of(&[("access", JwtKind::Access)]));
    Some(TypeSource::Claim { claim: claim?, access, refresh, unmarked })
}

fn key(node: &Node, report: &mut Report) -> Option<Key> {
    let keys = &["id", "algorithm", "secret", "private_key", "public_key"];
    let section = Section::open(node, "a key", keys, &[], report)?;
    let id = section.required("id", "a name of your choice: the `kid` of its tokens", report, super::name);
    let algorithm = section.required("algorithm", "one such as `EdDSA`, `ES256` or `HS256`", report, algorithm);
    let mut materials = Vec::new();
    if let Some(node) = section.node("secret") {
        materials.extend(decode::secret(node, report).map(|source| KeyMaterial::Secret(node.place, source)));
    }
    let private = section.read("private_key", report, decode::placed_text);
    materials.extend(private.map(KeyMaterial::PrivateFile));
    materials.extend(section.read("public_key", report, decode::placed_text).map(KeyMaterial::PublicFile));
    let given = ["secret", "private_key", "public_key"].iter().filter(|key| section.node(key).is_some()).count();
    if given != 1 {
        report.add(node.place, "a key has one of `secret`, `private_key` and `public_key`");
    }
    // what is reported is left open, so that the name is still held against the others
    Some(Key { place: node.place, id: id?, algorithm, material: materials.pop().filter(|_| given == 1) })
}

fn algorithm(node: &Node, report: &mut Report) -> Option<Algorithm> {
    decode::one_of(&Algorithm::ALL.map(|algorithm| (algorithm.name(), algorithm)))(node, report)
}

const TOKENS_KEYS: &[&str] =
    &["access_ttl", "refresh_ttl", "opaque_ttl", "default_role", "refresh_format", "refresh_grace", "claims", "sub_as"];

/// The section `tokens`.
#[derive(Debug)]
pub struct Tokens {
    /// `access_ttl`.
    pub access_ttl: Duration,
    /// `refresh_ttl`.
    pub refresh_ttl: Duration,
    /// `opaque_ttl`.
    pub opaque_ttl: Duration,
    /// `default_role`.
    pub default_role: Role,
    /// `refresh_format`.
    pub refresh_format: RefreshFormat,
    /// `refresh_grace`.
    pub refresh_grace: Duration,
    /// `claims`, with the place of each.
    pub claims: Map<String, Value>,
    /// Where each of `claims` stands.
    pub claim_places: Vec<Placed<Box<str>>>,
    /// Whether `sub_as: json_text` is given.
    pub sub_as_json_text: bool,
}

impl Tokens {
    /// Reads the section, or gives the defaults.
    pub fn read(node: Option<&Node>, report: &mut Report) -> Self {
        let mut tokens = Self {
            access_ttl: Duration::from_mins(15),
            refresh_ttl: Duration::from_hours(7 * 24),
            opaque_ttl: Duration::from_hours(24),
            default_role: "user".into(),
            refresh_format: RefreshFormat::Opaque,
            refresh_grace: REFRESH_GRACE_MAX,
            claims: Map::new(),
            claim_places: Vec::new(),
            sub_as_json_text: false,
        };
        let section = node.and_then(|node| Section::open(node, "`tokens`", TOKENS_KEYS, &[], report));
        let Some(section) = section else { return tokens };
        tokens.access_ttl = section.read("access_ttl", report, whole_seconds).unwrap_or(tokens.access_ttl);
        tokens.refresh_ttl = section.read("refresh_ttl", report, whole_seconds).unwrap_or(tokens.refresh_ttl);
        tokens.opaque_ttl = section.read("opaque_ttl", report, whole_seconds).unwrap_or(tokens.opaque_ttl);
        tokens.default_role = section.read("default_role", report, role).unwrap_or(tokens.default_role);
        let formats = [("opaque", RefreshFormat::Opaque), ("jwt", RefreshFormat::Jwt)];
        let format = section.read("refresh_format", report, decode::one_of(&formats));
        tokens.refresh_format = format.unwrap_or(tokens.refresh_format);
        tokens.refresh_grace = section.read("refresh_grace", report, refresh_grace).unwrap_or(tokens.refresh_grace);
        if let Some(node) = section.node("claims") {
            tokens.claims = decode::json_map(node, report).unwrap_or_default();
            tokens.claim_places = decode::key_places(node);
        }
        tokens.sub_as_json_text =
            section.read("sub_as", report, decode::one_of(&[("json_text", true)])).unwrap_or_default();
        tokens
    }
}

/// What a sealed answer is kept for at most.
fn refresh_grace(node: &Node, report: &mut Report) -> Option<Duration> {
    let grace = decode::duration(node, report)?;
    if grace > REFRESH_GRACE_MAX {
        report.add(node.place, format!("`refresh_grace` is at most {}s", REFRESH_GRACE_MAX.as_secs()));
        return None;
    }
    Some(grace)
}

/// A lifetime: tokens and the store count in seconds.
fn whole_seconds(node: &Node, report: &mut Report) -> Option<Duration> {
    let lifetime = decode::some_time(node, report)?;
    if lifetime.subsec_millis() != 0 {
        report.add(node.place, "a token's lifetime is in whole seconds");
        return None;
    }
    Some(lifetime)
}

/// The section `bootstrap`.
#[derive(Debug, Default)]
pub struct Bootstrap {
    /// `users`.
    pub users: Vec<Account>,
    /// `clients`.
    pub clients: Vec<Account>,
}

/// One of `bootstrap.users` or `bootstrap.clients`.
#[derive(Debug)]
pub struct Account {
    /// `name` or `id`.
    pub name: Placed<Box<str>>,
    /// `password` or `secret`, and where it stands.
    pub secret: Option<Placed<SecretSource>>,
    /// `roles`.
    pub roles: Vec<Role>,
    /// `scopes`, of clients.
    pub scopes: Vec<Scope>,
}

impl Bootstrap {
    /// Reads the section; default: nobody.
    pub fn read(node: Option<&Node>, report: &mut Report) -> Self {
        let section = node.and_then(|node| Section::open(node, "`bootstrap`", &["users", "clients"], &[], report));
        let Some(section) = section else { return Self::default() };
        let users = section.read("users", report, |node, report| {
            decode::list(node, report, |item, report| account(item, "a user", &["name", "password", "roles"], report))
        });
        let clients = section.read("clients", report, |node, report| {
            let keys = &["id", "secret", "roles", "scopes"];
            decode::list(node, report, |item, report| account(item, "a client", keys, report))
        });
        let bootstrap = Self { users: users.unwrap_or_default(), clients: clients.unwrap_or_default() };
        unique(&bootstrap.users, "user", report);
        unique(&bootstrap.clients, "client", report);
        bootstrap
    }
}

fn unique(accounts: &[Account], what: &str, report: &mut Report) {
    let mut seen = std::collections::HashSet::new();
    for account in accounts {
        if !seen.insert(&account.name.value) {
            report.add(account.name.place, format!("a {what} of this name is given above already"));
        }
    }
}

fn account(node: &Node, what: &str, keys: &[&str], report: &mut Report) -> Option<Account> {
    let section = Section::open(node, what, keys, &[], report)?;
    let (name_key, secret_key) = if keys.contains(&"id") { ("id", "secret") } else { ("name", "password") };
    let name = section.required(name_key, "a name without a colon", report, super::account_name);
    let secret = section.read(secret_key, report, |node, report| {
        decode::secret(node, report).map(|value| Placed { value, place: node.place })
    });
    let roles = section.read("roles", report, |node, report| decode::list(node, report, role)).unwrap_or_default();
    let scopes = section.read("scopes", report, |node, report| decode::list(node, report, scope)).unwrap_or_default();
    Some(Account { name: name?, secret, roles, scopes })
}

/// What was probably meant by a role that cannot be one.
const NOT_ROLES: &str = "for everybody write `allow: anyone`, for every principal `allow: authenticated`";

/// A role's name. What begins with `@` is no role: `@anyone` and `@authenticated` are what a diff calls everybody. Nor is `*`,
/// which is what other gateways call them.
pub fn role(node: &Node, report: &mut Report) -> Option<Role> {
    let name = super::name(node, report)?;
    if name.value.starts_with('@') {
        report.add_with_hint(name.place, "the name of a role does not begin with `@`", NOT_ROLES);
        return None;
    }
    if &*name.value == "*" {
        report.add_with_hint(name.place, "`*` is not a role", NOT_ROLES);
        return None;
    }
    Some(name.value.into())
}

/// A scope (RFC 6749 3.3): visible ASCII without spaces, `"` and `\`.
pub fn scope(node: &Node, report: &mut Report) -> Option<Scope> {
    let name = super::name(node, report)?;
    if !name.value.bytes().all(|byte| matches!(byte, b'!' | b'#'..=b'[' | b']'..=b'~')) {
        report.add(name.place, "a scope has visible ASCII characters without spaces, `\"` and `\\`");
        return None;
    }
    Some(name.value.into())
}
