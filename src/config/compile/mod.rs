//! Model to snapshot: names resolved, files read, keys parsed, routes compiled.

mod listeners;
mod keys;
mod limits;
mod issuers;
mod tls;
mod upstreams;
mod routes;
mod endpoints;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value};

use super::decode::{Placed, SecretSource, no_template};
use super::listing::is_key_material;
use super::model::store::Location;
use super::model::{Model, auth};
use super::report::{Report, quoted};
use super::snapshot::{Bootstrap, BootstrapClient, BootstrapUser, Snapshot, StoreLocation, Variables};
use super::source;
use crate::endpoint::issue::PROTECTED_CLAIMS;
use crate::endpoint::template::Claims;
use crate::secret::Secret;
use crate::template::TemplateError;
use crate::wire::forwarded::TrustedProxies;
use crate::{authenticate, endpoint, forward, listen};

/// The file of the default store.
const DEFAULT_STORE: &str = "portcullis.db";

/// Files that a configuration names: where relative paths begin, and which were read.
#[derive(Debug)]
pub struct Files {
    directory: PathBuf,
    read: BTreeSet<PathBuf>,
}

impl Files {
    /// Relative paths begin at `directory`.
    pub fn below(directory: &Path) -> Self {
        Self { directory: directory.to_owned(), read: BTreeSet::new() }
    }

    /// Remembers that a file was read.
    pub fn note(&mut self, path: PathBuf) {
        self.read.insert(path);
    }

    /// Those that were read, or would have been.
    pub fn list(&self) -> Vec<PathBuf> {
        self.read.iter().cloned().collect()
    }

    fn path(&self, relative: &str) -> PathBuf {
        self.directory.join(relative)
    }

    /// The bytes of a small file.
    fn read(&mut self, path: &Placed<Box<str>>, report: &mut Report) -> Option<Vec<u8>> {
        let full = self.path(&path.value);
        // one that is missing is watched too: it may come
        self.note(full.clone());
        source::read(&full, source::SIDE_FILE_BYTES_MAX)
            .map_err(|error| refuse(path, &format!("cannot be read: {error}"), report))
            .ok()
    }

    /// A secret; the line end of its file is not part of it.
    fn secret(&mut self, source: SecretSource, report: &mut Report) -> Option<Secret<String>> {
        let path = match source {
            SecretSource::Text(secret) => return Some(secret),
            SecretSource::File(path) => path,
        };
        let bytes = zeroize::Zeroizing::new(self.read(&path, report)?);
        let Ok(text) = std::str::from_utf8(&bytes) else {
            refuse(&path, "is not UTF-8", report);
            return None;
        };
        let text = text.strip_suffix('\n').map_or(text, |text| text.strip_suffix('\r').unwrap_or(text));
        if text.is_empty() {
            refuse(&path, "is empty, and should hold a secret", report);
            return None;
        }
        Some(Secret::new(text.to_owned()))
    }
}

/// Says what is wrong with a file that the configuration names. Not by name where that came from the environment, or is
/// no path at all: somebody may have put a secret there.
fn refuse(path: &Placed<Box<str>>, what: &str, report: &mut Report) {
    let is_shown = !report.is_expanded(path.place) && !is_key_material(&path.value);
    let name = if is_shown { format!("the file {}", quoted(&path.value)) } else { "this file".to_owned() };
    report.add(path.place, format!("{name} {what}"));
}

/// The snapshot, or `None` where something without which there is none was wrong; what was is in the report.
pub fn compile(model: Model, files: &mut Files, report: &mut Report) -> Option<Snapshot> {
    let (store, beside) = match model.store.location {
        Location::File(path) => {
            let path = files.path(&path);
            (StoreLocation::Sqlite(path.clone()), path)
        }
        // what is kept beside a file is then kept beside the configuration
        Location::Server(url) => (StoreLocation::Server(url), files.path(DEFAULT_STORE)),
    };
    let listeners = listeners::compile(&model.listeners, &beside, &model.admin, files, report);
    let subject_is_id = names_an_id(&model.tokens.claims, &model.auth.jwt.subject);
    let schemes = model.auth.schemes;
    let mut roots = tls::SystemRoots::default();
    let auth = auth_settings(model.auth, subject_is_id, &mut roots, files, report);
    let tokens = token_settings(model.tokens, model.passwords, report);
    let endpoints = endpoints::compile(model.endpoints, &model.texts, tokens.as_ref(), report);
    let names = upstreams::Names::of(&model.upstreams);
    let routes = routes::compile(model.routes, &names, schemes, &model.identity, report);
    let upstreams = upstreams::compile(model.upstreams, &mut roots, files, report);
    let shared_limits = model.limits.shared.and_then(|shared| limits::shared(shared, &mut roots, files, report));
    let bootstrap = bootstrap(model.bootstrap, model.passwords.1, files, report);
    let timeouts = model.timeouts;
    Some(Snapshot {
        listeners,
        workers: model.workers.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, Into::into)),
        admin: model.admin.value,
        store,
        tables: model.store.tables,
        trusted_proxies: TrustedProxies(model.trusted_proxies),
        auth,
        schemes,
        tokens: tokens?,
        identity: model.identity,
        texts: Arc::new(model.texts),
        paths: model.paths,
        limits: model.limits.rates,
        shared_limits,
        terms: listen::Terms {
            timeouts: listen::Timeouts {
                handshake: timeouts.handshake,
                request_header: timeouts.request_header,
                idle: timeouts.idle,
                drain: timeouts.drain,
            },
            bounds: listen::Bounds {
                header_bytes_max: model.limits.header_bytes,
                headers_max: model.limits.headers,
                // `auto`: as many as to servers
                connections_max: model.limits.connections.unwrap_or_else(forward::connections_max),
            },
        },
        body_bytes_max: model.limits.body_bytes,
        upstream_timeouts: forward::Timeouts {
            connect: timeouts.connect,
            response_header: timeouts.response_header,
            idle: timeouts.idle,
        },
        endpoints,
        upstreams: upstreams?,
        routes: routes?,
        expect: model.expect,
        log: model.log,
        bootstrap,
        files: files.list(),
        directory: files.directory.clone(),
        variables: Variables::default(),
    })
}

/// Whether issued JWTs have the id of the user's row where the subject is looked for: `{user_id}` and nothing else.
fn names_an_id(claims: &Map<String, Value>, subject: &authenticate::ClaimPath) -> bool {
    let Some((first, rest)) = subject.0.split_first() else { return false };
    let found = rest.iter().try_fold(claims.get(&**first), |found, step| Some(found?.get(&**step)));
    found.flatten().and_then(Value::as_str) == Some("{user_id}")
}

fn auth_settings(
    auth: auth::Auth,
    subject_is_id: bool,
    roots: &mut tls::SystemRoots,
    files: &mut Files,
    report: &mut Report,
) -> authenticate::Settings {
    let auth::Auth { realm, cache, jwt, jwt_keys, issuers, .. } = auth;
    let issuers = issuers::compile(issuers, &jwt, roots, files, report);
    let keys = jwt_keys.and_then(|keys| keys::compile(keys, files, report));
    let jwt = authenticate::JwtSettings { subject_is_id, keys: keys.map(Arc::new), ..jwt };
    authenticate::Settings { realm, cache, jwt: Arc::new(jwt), issuers: issuers.into() }
}

fn token_settings(tokens: auth::Tokens, passwords: (usize, usize), report: &mut Report) -> Option<endpoint::Settings> {
    for claim in tokens.claim_places.iter().filter(|claim| PROTECTED_CLAIMS.contains(&&*claim.value)) {
        report.add(claim.place, format!("the claim `{}` is set by the gateway", claim.value));
    }
    each_template(&tokens.claims, &tokens.claim_places, report, |claim| Claims::compile(claim).map(drop));
    Some(endpoint::Settings {
        access_ttl: tokens.access_ttl,
        refresh_ttl: tokens.refresh_ttl,
        opaque_ttl: tokens.opaque_ttl,
        default_role: tokens.default_role,
        refresh_format: tokens.refresh_format,
        refresh_grace: tokens.refresh_grace,
        claims: Claims::compile(tokens.claims).ok()?,
        sub_as_json_text: tokens.sub_as_json_text,
        password_bytes_min: passwords.0,
        password_bytes_max: passwords.1,
    })
}

/// Compiles each member by itself, so that a mistake is reported at its place. All are good if each one is: templates of
/// different members know nothing of each other.
fn each_template(
    members: &Map<String, Value>,
    places: &[Placed<Box<str>>],
    report: &mut Report,
    compile: impl Fn(Map<String, Value>) -> Result<(), TemplateError>,
) {
    for Placed { value: name, place } in places {
        let member = members.get(&**name).map(|value| (name.to_string(), value.clone()));
        if let Err(error) = compile(member.into_iter().collect()) {
            no_template(*place, &error, report);
        }
    }
}

fn bootstrap(model: auth::Bootstrap, bytes_max: usize, files: &mut Files, report: &mut Report) -> Bootstrap {
    let mut secret = |source: Option<Placed<SecretSource>>, report: &mut Report| {
        let Placed { value, place } = source?;
        let secret = files.secret(value, report)?;
        // neither could ever be presented (RFC 7617 2, and the bound of `passwords`)
        if secret.expose().chars().any(char::is_control) {
            report.add(place, "a password or secret has no control characters");
        } else if secret.expose().len() > bytes_max {
            report.add(place, format!("a password or secret has at most {bytes_max} bytes (`passwords.max_bytes`)"));
        }
        Some(secret)
    };
    let mut bootstrap = Bootstrap::default();
    for auth::Account { name, secret: source, roles, .. } in model.users {
        bootstrap.users.push(BootstrapUser { name: name.value, password: secret(source, report), roles });
    }
    for auth::Account { name, secret: source, roles, scopes } in model.clients {
        bootstrap.clients.push(BootstrapClient { id: name.value, secret: secret(source, report), roles, scopes });
    }
    bootstrap
}
