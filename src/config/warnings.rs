//! What is no mistake by itself, but probably one (contract 7): found by what the rules mean, not by how they look.

mod roles;
mod letters;
mod methods;

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::HashSet;
use std::net::SocketAddr;

use http::HeaderName;

use super::decode::{FOREIGN_QUOTES, Placed, has_foreign_quotes};
use super::model::{ListenerMode, Model};
use super::reach::{Reach, Unseen};
use super::report::{self, Place, Report};
use super::snapshot::Snapshot;
use super::source::{self, Part, Reference};
use super::tree::{Node, Plain, Value};
use super::variables;
use crate::decision::is_tunnel;
use crate::endpoint::Action;
use crate::route::pattern::Segment;
use crate::route::patterns::Patterns;
use crate::route::{Allow, Pattern, Route};
use crate::wire::fields::may_bear_secret;
use crate::wire::target::canonical_path;

/// Restricted prefixes above open routes that a check looks at; less than a second.
const PREFIXES_MAX: usize = 2_000_000;

/// Where the parts of a snapshot stand in the file.
#[derive(Debug)]
pub(super) struct Places {
    /// Listeners that serve in clear.
    plain: Vec<Placed<SocketAddr>>,
    /// The admin listener, which has no TLS.
    admin: Placed<SocketAddr>,
    /// The paths of routes, as shown in messages.
    routes: Vec<(Place, String)>,
}

impl Places {
    pub(super) fn of(model: &Model) -> Self {
        let is_plain = |mode: &ListenerMode| matches!(mode, ListenerMode::Plain);
        Self {
            plain: model.listeners.iter().filter(|one| is_plain(&one.mode)).map(|one| one.address.clone()).collect(),
            admin: model.admin.clone(),
            routes: model
                .routes
                .iter()
                .filter_map(|route| Some((route.path.as_ref()?.place, route.shown_path.clone())))
                .collect(),
        }
    }
}

/// What the text itself shows: secrets, variables, and names that nothing else knows.
pub(super) fn of_file(root: &Node, snapshot: &Snapshot, report: &mut Report) {
    urls(root, report);
    fields(root, report);
    let accounts = |kind: &str| items(child(child(Some(root), "bootstrap"), kind));
    for (node, key) in accounts("users").map(|user| (user, "password")).chain(
        accounts("clients")
            .chain(items(child(child(child(Some(root), "auth"), "jwt"), "keys")))
            .map(|one| (one, "secret")),
    ) {
        if let Some(secret) = child(Some(node), key)
            && in_clear(secret).is_some()
        {
            let message = format!("this {key} stands in the file in clear text");
            report.warn(secret.place, message, "write `${NAME}` and set it in the environment, or `{ file: path }`");
        }
    }
    variables::told(root, report);
    variables::without_braces(root, report);
    foreign_quotes(root, report);
    short_secrets(root, snapshot, report);
    short_passwords(root, snapshot, report);
    same_names(root, snapshot, report);
    roles::told(root, snapshot, report);
    methods::told(root, snapshot, report);
    of_nobody(root, snapshot, report);
}

/// The text that the file itself has for a scalar: that which stands there, or what is taken where variables are not set. None
/// where all that is secret in it could come from the environment.
fn in_clear(node: &Node) -> Option<Cow<'_, str>> {
    let Value::Scalar(scalar) = &node.value else { return None };
    let Some(written) = &scalar.written else {
        return (scalar.kind() == Plain::Text).then_some(Cow::Borrowed(&*scalar.text));
    };
    let (mut text, mut has_default) = (String::new(), false);
    for part in source::parts(written) {
        match part {
            Part::Text(itself) => text.push_str(itself),
            Part::Reference(Reference { default, .. }) => {
                let default = default.unwrap_or_default();
                has_default |= !default.is_empty();
                text.push_str(default);
            }
            Part::Unclosed => {}
        }
    }
    has_default.then_some(Cow::Owned(text))
}

/// Quotes as word processors write them are letters of a text: a role in them is another role.
fn foreign_quotes(node: &Node, report: &mut Report) {
    match &node.value {
        Value::Scalar(scalar) => {
            if !scalar.is_expanded() && has_foreign_quotes(&scalar.text) {
                let message = "the quotes around this are typographic ones, which YAML takes for letters of the text";
                report.warn(node.place, message, FOREIGN_QUOTES);
            }
        }
        Value::List(items) => items.iter().for_each(|item| foreign_quotes(item, report)),
        Value::Map(entries) => entries.iter().for_each(|entry| foreign_quotes(&entry.value, report)),
    }
}

/// Passwords in URLs, wherever one may stand: `postgres://user:password@host`, `…?password=…`.
fn urls(node: &Node, report: &mut Report) {
    match &node.value {
        Value::Scalar(_) => {
            if in_clear(node).is_some_and(|text| has_password(&text)) {
                let hint =
                    "write `${NAME}` in the place of the password, or of the whole, and set it in the environment";
                report.warn(node.place, "the password in this URL stands in the file in clear text", hint);
            }
        }
        Value::List(items) => items.iter().for_each(|item| urls(item, report)),
        Value::Map(entries) => entries.iter().for_each(|entry| urls(&entry.value, report)),
    }
}

fn has_password(text: &str) -> bool {
    let Some((_, rest)) = text.split_once("://") else { return false };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, rest) = rest.split_at_checked(end).unwrap_or((rest, ""));
    let password = authority.rsplit_once('@').and_then(|(user, _)| user.split_once(':'));
    // a `/` or `?` in a password that is not escaped ends what looks like the authority
    let cut_off = password.is_none() && authority.contains(':') && rest.contains('@');
    let query = rest.split_once('?').map(|(_, query)| query).unwrap_or_default();
    let named = query.split('&').filter_map(|pair| pair.split_once('='));
    cut_off
        || password.is_some_and(|(_, password)| !password.is_empty())
        || named.into_iter().any(|(name, value)| name.eq_ignore_ascii_case("password") && !value.is_empty())
}

/// Credentials that routes put into requests: an upstream's API key.
fn fields(root: &Node, report: &mut Report) {
    for route in items(child(Some(root), "routes")) {
        let Some(Node { value: Value::Map(set), .. }) = child(child(Some(route), "request_headers"), "set") else {
            continue;
        };
        for entry in set {
            let name = HeaderName::from_bytes(entry.key.as_bytes());
            let is_credential = name.is_ok_and(|name| may_bear_secret(&name));
            if is_credential && in_clear(&entry.value).is_some_and(|value| !value.is_empty()) {
                let message = format!("the value of {} stands in the file in clear text", report::quoted(&entry.key));
                report.warn(entry.value.place, message, "write `${NAME}` and set it in the environment");
            }
        }
    }
}

/// Secrets that sign tokens and can be found from one of them.
fn short_secrets(root: &Node, snapshot: &Snapshot, report: &mut Report) {
    let nodes = items(child(child(child(Some(root), "auth"), "jwt"), "keys"));
    let ring = snapshot.auth.jwt.keys.iter().flat_map(|ring| ring.iter());
    for (key, node) in ring.zip(nodes).filter(|(key, _)| key.is_short()) {
        let (algorithm, bytes_min) = (key.algorithm().name(), key.algorithm().secret_bytes_min().unwrap_or_default());
        let place = child(Some(node), "secret").map_or(node.place, |secret| secret.place);
        let message = format!("this secret has fewer than the {bytes_min} bytes that {algorithm} needs (RFC 7518 3.2)");
        report.warn(place, message, "whoever has one token can search for it; take a longer one, or another algorithm");
    }
}

/// Passwords of first users that nobody could choose later. Who writes this file may; it is told.
fn short_passwords(root: &Node, snapshot: &Snapshot, report: &mut Report) {
    let bytes_min = snapshot.tokens.password_bytes_min;
    let nodes = items(child(child(Some(root), "bootstrap"), "users"));
    for (user, node) in snapshot.bootstrap.users.iter().zip(nodes) {
        if user.password.as_ref().is_some_and(|password| password.expose().len() < bytes_min) {
            let place = child(Some(node), "password").map_or(node.place, |password| password.place);
            let message = format!("this password has fewer than the {bytes_min} bytes that a new one must have");
            report.warn(place, message, "take a longer one, or leave it out: one is then generated and printed once");
        }
    }
}

/// Issuers whose users an upstream could take for those of another, or for ours: it is told a name and nothing else.
fn same_names(root: &Node, snapshot: &Snapshot, report: &mut Report) {
    let nodes = items(child(child(Some(root), "auth"), "issuers"));
    let has_own = has_accounts(snapshot);
    let mut seen = HashSet::new();
    for (issuer, node) in snapshot.auth.issuers.iter().zip(nodes) {
        if !seen.insert(&*issuer.user_prefix) {
            let message = "users of this issuer and of another above are told upstream by the same names";
            report.warn(node.place, message, "give it a `user_prefix` of its own");
        } else if has_own && !issuer.user_prefix.contains(':') {
            let message = "users of this issuer may be told upstream by the names of users of this gateway's own";
            report.warn(
                node.place,
                message,
                "give it a `user_prefix` with a colon, such as `idp:`: no name here has one",
            );
        }
    }
}

/// Keys of routes for anyone that are about who it is.
fn of_nobody(root: &Node, snapshot: &Snapshot, report: &mut Report) {
    let nodes = items(child(Some(root), "routes"));
    let of_anyone = snapshot.routes.routes().iter().zip(nodes).filter(|(route, _)| route.allow == Allow::Anyone);
    for (_, node) in of_anyone {
        if let Some(schemes) = child(Some(node), "schemes") {
            let message = "`schemes` with `allow: anyone`: no credential is looked at";
            report.warn(schemes.place, message, "leave it out, or say who may pass");
        }
        let by = child(child(Some(node), "rate"), "by");
        if let Some(by) = by.filter(|by| word(by) == Some("principal")) {
            let message = "`by: principal` with `allow: anyone`: nobody is known here, and each address is counted";
            report.warn(by.place, message, "write `by: address`, or say who may pass");
        }
    }
}

/// Whether the file shows that there are users or clients of the gateway's own.
fn has_accounts(snapshot: &Snapshot) -> bool {
    !snapshot.bootstrap.users.is_empty()
        || !snapshot.bootstrap.clients.is_empty()
        || snapshot.tables.users.is_some()
        || snapshot.endpoints.values().any(|endpoint| endpoint.action == Action::Register)
}

fn child<'n>(node: Option<&'n Node>, key: &str) -> Option<&'n Node> {
    match &node?.value {
        Value::Map(entries) => entries.iter().find(|entry| &*entry.key == key).map(|entry| &entry.value),
        Value::List(_) | Value::Scalar(_) => None,
    }
}

fn items(node: Option<&Node>) -> impl Iterator<Item = &Node> {
    let items = match node.map(|node| &node.value) {
        Some(Value::List(items)) => items.as_slice(),
        Some(Value::Map(_) | Value::Scalar(_)) | None => &[],
    };
    items.iter()
}

fn word(node: &Node) -> Option<&str> {
    match &node.value {
        Value::Scalar(scalar) => Some(&scalar.text),
        Value::List(_) | Value::Map(_) => None,
    }
}

/// What the rules mean together.
pub(super) fn of_rules(snapshot: &Snapshot, places: &Places, report: &mut Report) {
    for listener in places.plain.iter().filter(|listener| !listener.value.ip().is_loopback()) {
        let message = format!("{} is served without TLS and is not loopback", listener.value);
        report.warn(listener.place, message, "credentials cross the network in clear; give it `tls`");
    }
    if !places.admin.value.ip().is_loopback() {
        let message = format!("the admin listener {} is without TLS and is not loopback", places.admin.value);
        let hint = "whoever reaches it reads the metrics; keep it on a network that no caller reaches";
        report.warn(places.admin.place, message, hint);
    }
    open_below_restricted(snapshot, places, report);
    let routes = snapshot.routes.routes();
    for (route, (place, shown)) in routes.iter().zip(&places.routes) {
        if let Some((sign, hint)) = route.pattern.segments().iter().find_map(of_another_language) {
            let message = format!("{shown} has a segment with `{sign}`, which stands for itself");
            report.warn(*place, message, hint);
        }
    }
    let found = Reach::of(snapshot);
    let Unseen { decides, falls } = found.unseen;
    for (from, what) in [(decides, "which routes can never match"), (falls, "which methods fall to a wider route")] {
        not_looked_at(from, what, places, report);
    }
    for (route, (place, shown)) in routes.iter().zip(&places.routes) {
        if route.methods.iter().any(is_tunnel) {
            let hint = "no tunnel is given; a WebSocket counts as GET, over HTTP/2 as well";
            report.warn(*place, format!("CONNECT for {shown} is always refused"), hint);
        }
    }
    for ((route, won), (place, shown)) in routes.iter().zip(&found.decides).zip(&places.routes) {
        if !won {
            report.warn(*place, format!("{shown} can never match"), never(snapshot, route));
        }
    }
    for ((from, to), methods) in &found.falls {
        let (Some((place, shown)), Some((to_place, to_shown))) = (places.routes.get(*from), places.routes.get(*to))
        else {
            continue;
        };
        let message = format!(
            "{} for {shown}: decided by {to_shown} on line {}, which lets others pass",
            methods.iter().map(String::as_str).collect::<Vec<_>>().join(", "),
            to_place.line
        );
        report.warn(*place, message, "leave `methods` out, or give the others a route of their own");
    }
}

/// More routes overlap than are looked at; what is not said of those behind is not known.
fn not_looked_at(from: Option<usize>, what: &str, places: &Places, report: &mut Report) {
    if let Some((place, shown)) = from.and_then(|index| places.routes.get(index)) {
        let message = format!("{what} was not looked at from {shown} on: too many routes overlap");
        report.warn_surely(*place, message, "`explain FILE METHOD URL` says of any one request what decides it");
    }
}

/// What means something in the patterns of other programs, and here only itself; and what is written instead.
fn of_another_language(segment: &Segment) -> Option<(char, &'static str)> {
    let Segment::Literal(text) = segment else { return None };
    if text.contains('*') {
        return Some(('*', "any one segment is `{name}`, and everything below is a last `/**`"));
    }
    let name = text.strip_prefix(':')?;
    name.starts_with(|first: char| first.is_ascii_alphabetic()).then_some((':', "any one segment is `{name}`"))
}

fn never(snapshot: &Snapshot, route: &Route) -> String {
    let path = route.pattern.to_string();
    let literal = route.pattern == Pattern::exact(&path);
    if !route.methods.is_empty() && route.methods.iter().all(is_tunnel) {
        return "every such request is refused: no tunnel is given".to_owned();
    }
    if let Err(error) = canonical_path(&path.replace(['{', '}'], ""), &snapshot.paths) {
        return format!("every such request is refused by `paths`: {error}");
    }
    if literal && snapshot.endpoints.contains_key(path.as_str()) {
        return "an endpoint of the gateway has this path".to_owned();
    }
    "more specific routes decide all of its requests".to_owned()
}

/// `allow: anyone` on paths that another route's prefix restricts. What everything is below, `/**`, is no such prefix.
fn open_below_restricted(snapshot: &Snapshot, places: &Places, report: &mut Report) {
    let routes = snapshot.routes.routes();
    let mut prefixes = Patterns::default();
    for (index, route) in routes.iter().enumerate() {
        if route.pattern.is_prefix() && !route.pattern.segments().is_empty() && route.allow != Allow::Anyone {
            prefixes.insert(&route.pattern, index);
        }
    }
    let mut looks_left = PREFIXES_MAX;
    let open = routes.iter().zip(&places.routes).enumerate().filter(|(_, (route, _))| route.allow == Allow::Anyone);
    for (index, (route, (place, shown))) in open {
        let above = prefixes.crossing(&route.pattern);
        let Some(left) = looks_left.checked_sub(above.len()) else {
            return not_looked_at(Some(index), "which open routes lie below a restricted prefix", places, report);
        };
        looks_left = left;
        let above = above.into_iter().filter(|&index| {
            routes.get(index).is_some_and(|above| {
                // where the restricted one is the more specific, it decides itself
                route.pattern.compare(&above.pattern).is_le()
                    && (above.hosts.is_empty()
                        || route.hosts.is_empty()
                        || above.hosts.iter().any(|host| route.hosts.contains(host)))
            })
        });
        // the one that says most of the path; of those of one length the first of the file
        let length = |index: usize| routes.get(index).map_or(0, |above| above.pattern.segments().len());
        let above = above.min_by_key(|&index| (Reverse(length(index)), index));
        if let Some((above_place, above)) = above.and_then(|index| places.routes.get(index)) {
            let message =
                format!("{shown} lets anyone pass, below {above} on line {}, which does not", above_place.line);
            report.warn(*place, message, "is it meant to be open?");
        }
    }
}
