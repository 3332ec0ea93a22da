//! Variables on which it depends who may do what. Where the file does not say it, a review, a diff and the tests of a pipeline
//! see another value than the one that is served.
//!
//! Every variable is told but those of keys that are known to be about something else, so that none is forgotten.

use std::fmt::Write as _;

use super::report::Report;
use super::snapshot::{Gives, Variable, Variables};
use super::source::{Environment, Part, parts};
use super::tree::{Node, Scalar, Value};
use crate::principal::NAME_BYTES_MAX;
use crate::secret::Secret;

/// Keys that differ from one place of work to another: where things are, secrets, names, texts, sizes, times and what is logged.
/// `*` stands for any name, a last `**` for whatever is below. What has one form only is here too.
const OTHERWISE: &[&str] = &[
    "listeners.tls.certificates.cert",
    "listeners.tls.certificates.key",
    "listeners.tls.self_signed",
    "workers",
    "store.rehash",
    "auth.realm",
    "auth.cache.capacity",
    "auth.cache.negative_ttl",
    "auth.issuers.tls.ca",
    "auth.issuers.tls.server_name",
    "auth.issuers.tls.cert",
    "auth.issuers.tls.key",
    "tokens.refresh_format",
    "tokens.sub_as",
    "passwords.max_bytes",
    "errors.member",
    "errors.messages.**",
    "limits.shared.**",
    "limits.header_bytes",
    "limits.headers",
    "limits.body_bytes",
    "limits.connections",
    "timeouts.handshake",
    "timeouts.request_header",
    "timeouts.idle",
    "timeouts.connect",
    "timeouts.response_header",
    "timeouts.drain",
    "endpoints.fields.**",
    "endpoints.status",
    "endpoints.errors.member",
    "endpoints.errors.messages.**",
    "endpoints.incomplete",
    "upstreams.*.servers",
    "upstreams.*.balance",
    "upstreams.*.health.path",
    "upstreams.*.health.interval",
    "upstreams.*.health.timeout",
    "upstreams.*.health.unhealthy_after",
    "upstreams.*.health.healthy_after",
    "upstreams.*.keep_alive",
    "upstreams.*.tls.ca",
    "upstreams.*.tls.server_name",
    "upstreams.*.tls.cert",
    "upstreams.*.tls.key",
    "upstreams.*.builtin",
    "routes.request_headers.set.**",
    "routes.response_headers.set.**",
    "routes.cors.max_age",
    "routes.timeout",
    "routes.body_bytes",
    "log.access",
    "log.audit",
    "log.level",
];

/// More of them, by which somebody can have more than before nevertheless: an account, a longer life of what it was given, a key
/// that signs, a listener. The issuer of this gateway is another one elsewhere.
const GIVING: &[&str] = &[
    "listeners.address",
    "listeners.redirect",
    "admin.address",
    "store",
    "store.url",
    "auth.cache.ttl",
    "auth.cache.stale_if_store_down",
    "auth.jwt.issuer",
    "auth.jwt.leeway",
    "auth.jwt.keys.id",
    "auth.jwt.keys.algorithm",
    "auth.jwt.keys.secret.**",
    "auth.jwt.keys.private_key",
    "auth.jwt.keys.public_key",
    "tokens.access_ttl",
    "tokens.refresh_ttl",
    "tokens.opaque_ttl",
    "tokens.refresh_grace",
    "bootstrap.users.name",
    "bootstrap.users.password.**",
    "bootstrap.clients.id",
    "bootstrap.clients.secret.**",
];

/// What depends on a variable, by where it stands; the first that fits.
const DEPENDS: &[(&str, &str)] = &[
    ("trusted_proxies.**", "whose word for a caller's address is taken"),
    ("listeners.**", "how callers are served"),
    ("store.**", "who has which account and roles"),
    ("auth.issuers.**", "whose tokens are taken, and for whom,"),
    ("auth.jwt.**", "which tokens are taken, and for whom,"),
    ("tokens.claims.**", "what issued tokens say"),
    ("passwords.**", "which passwords may be chosen"),
    ("identity_headers.**", "what upstreams are told of a caller"),
    ("paths.**", "which paths are taken for which"),
    ("limits.**", "how much anybody may try"),
    ("routes.rate.**", "how much anybody may ask for"),
    ("endpoints.**", "what the gateway answers, and to whom,"),
    ("expect.**", "what the rules are tested for"),
    ("**", "who may do what"),
];

/// Warns of each.
pub(super) fn told(root: &Node, report: &mut Report) {
    each(root, &mut Vec::new(), &mut |node, _, keys| {
        if !is_otherwise(keys) {
            let what = DEPENDS.iter().find(|(pattern, _)| fits(pattern, keys)).map_or("", |(_, what)| *what);
            let message = format!("{what} depends on this variable: elsewhere it can be another than was checked here");
            report.warn(node.place, message, "write it out, so that whoever reads or compares the file sees it");
        }
    });
}

/// Keys of which a comparison takes the name of a variable for the value: what is listed there is a name and no more.
const NAMES: &[&str] = &["routes.allow", "routes.scopes"];

/// Keys by which one of a list is told from the others.
const NAMED_BY: &[&str] = &["id", "name", "issuer", "path", "address"];

/// Every place whose value comes from variables, for a comparison: each of two files is read in one environment, and served
/// in another.
pub(super) fn of(root: &Node, environment: &Environment) -> Variables {
    let mut found = Variables::default();
    let mut walk = Walk { environment, keys: Vec::new(), found: &mut found };
    walk.see(root, None);
    found
}

/// Has the names of variables stand where a comparison takes them for the values.
pub(super) fn name(root: &mut Node) {
    name_below(root, &mut Vec::new());
}

fn name_below(node: &mut Node, keys: &mut Vec<Box<str>>) {
    match &mut node.value {
        Value::Scalar(_) => {}
        Value::Map(entries) => {
            for entry in entries {
                keys.push(entry.key.clone());
                name_below(&mut entry.value, keys);
                keys.pop();
            }
        }
        Value::List(items) => {
            let are_names = is_among(NAMES, &keys.iter().map(|key| &**key).collect::<Vec<_>>());
            for item in items {
                match &mut item.value {
                    Value::Scalar(Scalar { text, written: Some(written), .. }) if are_names => {
                        *text = as_name(written).into();
                    }
                    Value::Scalar(_) => {}
                    Value::List(_) | Value::Map(_) => name_below(item, keys),
                }
            }
        }
    }
}

/// What is written, as a role or scope may be called: another for each.
fn as_name(written: &str) -> String {
    let mut name = String::with_capacity(written.len());
    for byte in written.bytes() {
        if byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\' | b'%') {
            name.push(char::from(byte));
        } else {
            write!(name, "%{byte:02X}").ok();
        }
    }
    if name.len() <= NAME_BYTES_MAX {
        return name;
    }
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, written.as_bytes());
    digest.as_ref().iter().fold("%".to_owned(), |mut name, byte| {
        write!(name, "{byte:02x}").ok();
        name
    })
}

struct Walk<'n, 'f> {
    environment: &'f Environment,
    keys: Vec<&'n str>,
    found: &'f mut Variables,
}

/// One of a list, or of the upstreams.
struct Item<'n> {
    id: String,
    /// The path of a route as it is written.
    route: Option<&'n str>,
}

impl<'n> Walk<'n, '_> {
    fn see(&mut self, node: &'n Node, item: Option<&Item<'n>>) {
        match &node.value {
            Value::Scalar(scalar) => self.note(scalar, item, false),
            Value::List(items) => {
                for one in items {
                    if let Value::Scalar(scalar) = &one.value {
                        self.note(scalar, item, is_among(NAMES, &self.keys));
                        continue;
                    }
                    let item_of = self.item(one, item);
                    self.see(one, item_of.as_ref().or(item));
                }
            }
            Value::Map(entries) => {
                for entry in entries {
                    let upstream =
                        (self.keys == ["upstreams"]).then(|| self.known(format!("upstreams {}", entry.key), None));
                    self.keys.push(&entry.key);
                    self.see(&entry.value, upstream.as_ref().or(item));
                    self.keys.pop();
                }
            }
        }
    }

    /// One of a list of mappings, and by what it is told from the others.
    fn item(&mut self, node: &'n Node, outer: Option<&Item<'n>>) -> Option<Item<'n>> {
        let Value::Map(entries) = &node.value else { return None };
        let of = |key: &str| entries.iter().find(|entry| &*entry.key == key).map(|entry| &entry.value);
        let is_route = self.keys == ["routes"];
        let route = of("path").and_then(text).filter(|_| is_route);
        let mut id = format!("{} {}", outer.map_or("", |outer| &outer.id), self.keys.join("."));
        if let Some(path) = route {
            // a placeholder is the same whatever it is called
            let segments = path.split('/').map(|segment| if segment.starts_with('{') { "{}" } else { segment });
            id.push_str(&segments.collect::<Vec<_>>().join("/"));
            for key in ["methods", "hosts"] {
                let Some(Value::List(items)) = of(key).map(|node| &node.value) else { continue };
                id.extend(items.iter().filter_map(text).flat_map(|item| [" ", item]));
            }
        } else if let Some(name) = NAMED_BY.iter().find_map(|key| of(key).and_then(text)) {
            id.push_str(name);
        }
        Some(self.known(id, route))
    }

    fn note(&mut self, scalar: &Scalar, item: Option<&Item<'_>>, is_name: bool) {
        if scalar.is_expanded() {
            let variable = self.variable(scalar, item, is_name);
            self.found.each.push(variable);
        }
    }

    fn known(&mut self, id: String, route: Option<&'n str>) -> Item<'n> {
        self.found.items.insert(id.clone());
        Item { id, route }
    }

    fn variable(&self, scalar: &Scalar, item: Option<&Item<'_>>, is_name: bool) -> Variable {
        let keys = &self.keys;
        let written = scalar.written.as_deref().unwrap_or_default();
        let references = parts(written).into_iter().filter_map(|part| match part {
            Part::Reference(reference) => Some(reference),
            Part::Text(_) | Part::Unclosed => None,
        });
        let references: Vec<_> = references.collect();
        // without a default nothing is served where it is not set, and who sets it is no writer of the file
        let has_default = references.iter().any(|reference| reference.default.is_some());
        let gives = match (!is_otherwise(keys), is_among(GIVING, keys)) {
            (true, _) => Gives::FromAVariable,
            (false, true) if has_default => Gives::FromAVariable,
            (false, true) => Gives::AnotherValue,
            (false, false) => Gives::Nothing,
        };
        let (path, route) = (keys.join("."), item.and_then(|item| item.route));
        Variable {
            key: route.map_or_else(|| path.clone(), |route| format!("{path} of the route {route}")),
            kind: if let ["upstreams", _, rest @ ..] = keys.as_slice() { rest.join(".") } else { path },
            item: item.map(|item| item.id.clone()),
            is_of_route: route.is_some(),
            is_name,
            names: references.iter().map(|reference| reference.name.to_owned()).collect(),
            written: Secret::new(written.to_owned()),
            overruled: Secret::new(
                references
                    .iter()
                    .map(|reference| self.environment.overruled(reference.name).map(str::to_owned))
                    .collect(),
            ),
            gives,
        }
    }
}

/// A scalar as it is written.
fn text(node: &Node) -> Option<&str> {
    match &node.value {
        Value::Scalar(scalar) => Some(scalar.written.as_deref().unwrap_or(&scalar.text)),
        Value::List(_) | Value::Map(_) => None,
    }
}

/// Shows all scalars below that have variables, each with the keys under which it stands.
fn each<'n>(node: &'n Node, keys: &mut Vec<&'n str>, see: &mut impl FnMut(&'n Node, &'n Scalar, &[&'n str])) {
    match &node.value {
        Value::Scalar(scalar) if scalar.is_expanded() => see(node, scalar, keys),
        Value::Scalar(_) => {}
        Value::List(items) => items.iter().for_each(|item| each(item, keys, see)),
        Value::Map(entries) => {
            for entry in entries {
                keys.push(&entry.key);
                each(&entry.value, keys, see);
                keys.pop();
            }
        }
    }
}

/// Whether no warning is given of a variable there.
fn is_otherwise(keys: &[&str]) -> bool {
    is_among(OTHERWISE, keys) || is_among(GIVING, keys)
}

fn is_among(patterns: &[&str], keys: &[&str]) -> bool {
    patterns.iter().any(|pattern| fits(pattern, keys))
}

/// Whether a pattern is for what stands under these keys, from the outermost on. Keys may have dots.
fn fits(pattern: &str, keys: &[&str]) -> bool {
    let mut keys = keys.iter();
    for part in pattern.split('.') {
        match (part, keys.next()) {
            ("**", _) => return true,
            ("*", Some(_)) => {}
            (name, Some(key)) if name == *key => {}
            (_, Some(_) | None) => return false,
        }
    }
    keys.next().is_none()
}

/// Warns of `$NAME` and `$(NAME)`, which stand for themselves: a password would be that word, for everybody to read.
pub(super) fn without_braces(node: &Node, report: &mut Report) {
    match &node.value {
        Value::Scalar(scalar) => {
            if !scalar.is_expanded() && names_a_variable(&scalar.text) {
                let message = "a `$` without braces names no variable: this text stands for itself";
                report.warn(node.place, message, "a variable is written `${NAME}`");
            }
        }
        Value::List(items) => items.iter().for_each(|item| without_braces(item, report)),
        Value::Map(entries) => entries.iter().for_each(|entry| without_braces(&entry.value, report)),
    }
}

/// Whether a text has a `$` before a name as variables have, of capital letters: alone, or in parentheses.
fn names_a_variable(text: &str) -> bool {
    text.split('$').skip(1).any(|rest| {
        let in_parentheses = rest.strip_prefix('(').and_then(|rest| rest.split_once(')')).map(|(name, _)| name);
        let end = rest.find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_').unwrap_or(rest.len());
        let name = in_parentheses.or_else(|| rest.get(..end)).unwrap_or_default();
        let of_a_name = |letter: u8| letter.is_ascii_uppercase() || letter.is_ascii_digit() || letter == b'_';
        name.len() > 1 && name.starts_with(|first: char| first.is_ascii_uppercase()) && name.bytes().all(of_a_name)
    })
}

#[cfg(test)]
mod tests;
