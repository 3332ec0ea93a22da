//! The section `routes`, each value checked by itself.

use std::collections::HashSet;
use std::hash::Hash;
use std::num::NonZeroU32;
use std::time::Duration;

use http::header::{CONTENT_LENGTH, EXPECT, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION};
use http::{HeaderName, HeaderValue, Method};

use super::super::decode::{self, Placed, Section};
use super::super::methods::Doubt;
use super::super::report::{Place, Report};
use super::super::tree::{Node, Value};
use super::super::units;
use crate::limit::Quota;
use crate::principal::{SchemeSet, Scope};
use crate::route::pattern::Segment;
use crate::route::{Allow, Cors, FieldEdits, Pattern, RateBy, RouteRate, StreamEnds};
use crate::wire::fields::{self, may_bear_secret};

/// One of `routes`.
#[derive(Debug)]
pub struct Route {
    /// Where it stands.
    pub place: Place,
    /// `path` as written.
    pub path: Option<Placed<Box<str>>>,
    /// `path` in a message.
    pub shown_path: String,
    /// `path`, compiled.
    pub pattern: Option<Pattern>,
    /// `hosts`.
    pub hosts: Vec<Box<str>>,
    /// `methods`.
    pub methods: Vec<Method>,
    /// `allow`.
    pub allow: Allow,
    /// `scopes`.
    pub scopes: Vec<Scope>,
    /// `schemes`; `None`: those of `auth`.
    pub schemes: Option<SchemeSet>,
    /// `to`.
    pub to: Option<Placed<Box<str>>>,
    /// Whether `to` came from the environment and is not shown.
    pub to_expanded: bool,
    /// `strip_prefix`.
    pub strip_prefix: Option<Box<str>>,
    /// `request_headers`, each name with its place.
    pub request_fields: FieldEdits,
    /// Where each name of `request_headers` stands.
    pub request_field_places: Vec<Placed<HeaderName>>,
    /// `response_headers`.
    pub response_fields: FieldEdits,
    /// `cors`.
    pub cors: Option<Cors>,
    /// `end_streams_on`.
    pub ends_streams: Option<StreamEnds>,
    /// `forward_credentials`.
    pub forward_credentials: bool,
    /// `rate`.
    pub rate: Option<RouteRate>,
    /// `timeout`.
    pub timeout: Option<Duration>,
    /// `body_bytes`.
    pub body_bytes: Option<u64>,
}

/// Methods of one route; some forty are registered.
const METHODS_MAX: usize = 100;

const KEYS: &[&str] = &[
    "path",
    "methods",
    "hosts",
    "allow",
    "scopes",
    "schemes",
    "strip_prefix",
    "request_headers",
    "response_headers",
    "cors",
    "end_streams_on",
    "forward_credentials",
    "rate",
    "timeout",
    "body_bytes",
    "to",
];

impl Route {
    /// Reads one item. What is wrong by itself is reported and left open, so that the rest is still held against the file.
    pub fn read(node: &Node, report: &mut Report) -> Option<Self> {
        let section = Section::open(node, "a route", KEYS, &[], report)?;
        let path =
            section.required("path", "a pattern such as `/orders/{id}` or `/orders/**`", report, decode::placed_text);
        let pattern = section.read("path", report, pattern);
        let hosts = section.read("hosts", report, |node, report| distinct(node, report, host)).unwrap_or_default();
        let methods = section.read("methods", report, |node, report| {
            decode::is_at_most(METHODS_MAX, node, report).then(|| distinct(node, report, method)).flatten()
        });
        let methods = methods.unwrap_or_default();
        let allow = section.required("allow", ALLOW, report, allow);
        let scopes = section.read("scopes", report, |node, report| decode::list(node, report, super::auth::scope));
        let scopes = scopes.unwrap_or_default();
        if let (Some(Allow::Anyone), Some(node), false) = (&allow, section.node("scopes"), scopes.is_empty()) {
            report.add(node.place, "`scopes` with `allow: anyone`: no credential is looked at");
        }
        let schemes = section.read("schemes", report, super::auth::schemes);
        let strip_prefix =
            section.read("strip_prefix", report, |node, report| strip_prefix(node, pattern.as_ref()?, report));
        let mut request_field_places = Vec::new();
        let request_fields = section.read("request_headers", report, |node, report| {
            field_edits(node, "`request_headers`", &mut request_field_places, report)
        });
        let response_fields = section.read("response_headers", report, |node, report| {
            field_edits(node, "`response_headers`", &mut Vec::new(), report)
        });
        let cors = section.read("cors", report, super::cors::cors);
        let ends_streams = section.read("end_streams_on", report, ends_streams);
        let forward_credentials = section.read("forward_credentials", report, decode::boolean).unwrap_or_default();
        let rate = section.read("rate", report, rate);
        let timeout = section.read("timeout", report, decode::some_time);
        let body_bytes = section.read("body_bytes", report, decode::or_off(0, decode::size));
        let to = section.required("to", "the name of one of `upstreams`", report, decode::placed_text);
        Some(Self {
            place: section.place(),
            path,
            shown_path: section.node("path").map(decode::shown_node).unwrap_or_default(),
            pattern,
            hosts,
            methods,
            // with what was reported there will be no snapshot; until then it lets nobody through
            allow: allow.unwrap_or(Allow::Roles(Vec::new())),
            scopes,
            schemes,
            to,
            to_expanded: section.node("to").is_some_and(decode::is_expanded),
            strip_prefix,
            request_fields: request_fields.unwrap_or_default(),
            request_field_places,
            response_fields: response_fields.unwrap_or_default(),
            cors,
            ends_streams,
            forward_credentials,
            rate,
            timeout,
            body_bytes,
        })
    }
}

fn pattern(node: &Node, report: &mut Report) -> Option<Pattern> {
    // where it is no text this was reported already
    let text = decode::full_text(node, &mut Report::default())?;
    let pattern = Pattern::parse(text);
    if let Err(error) = &pattern {
        let hidden = decode::is_expanded(node).then(|| "the value of this variable is not a path pattern".to_owned());
        let is_quoted = hidden.is_none() && decode::has_foreign_quotes(text);
        let hint = if is_quoted { decode::FOREIGN_QUOTES } else { "" };
        report.add_with_hint(node.place, hidden.unwrap_or_else(|| error.to_string()), hint);
    }
    pattern.ok()
}

/// What `allow` takes, for messages.
const ALLOW: &str = "`anyone`, `authenticated` or a list of roles such as `[user, admin]`";

/// `anyone`, `authenticated`, or a list of roles. There is no default: a rule says whom it lets through.
fn allow(node: &Node, report: &mut Report) -> Option<Allow> {
    let words = [("anyone", Allow::Anyone), ("authenticated", Allow::Authenticated)];
    if let Value::Scalar(_) = node.value {
        if let Some((_, allow)) = words.iter().find(|(word, _)| decode::is_word(node, word)) {
            return Some(allow.clone());
        }
        report.add(node.place, format!("expected {ALLOW}"));
        return None;
    }
    let roles = decode::some(node, report, |item, report| {
        let is = |word: &str| matches!(&item.value, Value::Scalar(text) if text.text.eq_ignore_ascii_case(word));
        if let Some((word, _)) = words.iter().find(|(word, _)| is(word)) {
            report.add(item.place, format!("{} is not a role; write `allow: {word}`", decode::shown_node(item)));
            return None;
        }
        super::auth::role(item, report)
    })?;
    Some(Allow::Roles(roles))
}

/// A list in which nothing stands twice; a route would tie with itself.
fn distinct<T: Eq + Hash + Clone>(
    node: &Node,
    report: &mut Report,
    read: impl Fn(&Node, &mut Report) -> Option<T>,
) -> Option<Vec<T>> {
    let mut seen: HashSet<T> = HashSet::new();
    decode::some(node, report, |item, report| {
        let value = read(item, report)?;
        if !seen.insert(value.clone()) {
            report.add(item.place, "this stands in the list already");
            return None;
        }
        Some(value)
    })
}

/// A list of what ends streams; it may be empty.
fn ends_streams(node: &Node, report: &mut Report) -> Option<StreamEnds> {
    let mut ends = StreamEnds { revocation: false, expiry: false };
    decode::list(node, report, |item, report| {
        let words = [("revocation", true), ("expiry", false)];
        let named = if decode::one_of(&words)(item, report)? { &mut ends.revocation } else { &mut ends.expiry };
        *named = true;
        Some(())
    })?;
    Some(ends)
}

/// A method (RFC 9110 9.1): a token. Methods are case-sensitive, so that `get` would match nothing, and nor would `*`.
pub fn method(node: &Node, report: &mut Report) -> Option<Method> {
    let name = decode::full_text(node, report)?;
    if let Some(doubt @ (Doubt::Every | Doubt::LowerCase(_))) = Doubt::of(name) {
        let hint = doubt.question().filter(|_| !decode::is_expanded(node));
        let hint = if doubt == Doubt::Every { Some("leave `methods` out for all methods".to_owned()) } else { hint };
        report.add_with_hint(node.place, doubt.message(&decode::shown_node(node)), hint.unwrap_or_default());
        return None;
    }
    let method = Method::from_bytes(name.as_bytes());
    if method.is_err() {
        let is_several = name.contains(|letter: char| letter == ',' || letter.is_whitespace());
        let hint = if is_several { "several are written `[GET, POST]`, without quotes around them all" } else { "" };
        report.add_with_hint(node.place, format!("{} is not a method", decode::shown_node(node)), hint);
    }
    method.ok()
}

/// A host without its port, in lower case.
fn host(node: &Node, report: &mut Report) -> Option<Box<str>> {
    let host = decode::full_text(node, report)?.to_ascii_lowercase();
    let name = host.strip_suffix('.').unwrap_or(&host);
    let bracketed = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    let host = match bracketed {
        // in the one spelling in which requests are matched
        Some(address) => address.parse::<std::net::Ipv6Addr>().ok().map(|address| format!("[{address}]")),
        None => Some(name.to_owned())
            .filter(|name| !name.contains(':') && rustls::pki_types::ServerName::try_from(name.as_str()).is_ok()),
    };
    if host.is_none() {
        let hint = "expected a host name without a port, such as `api.example.com`";
        let hint = if name.contains('*') { "each host is named; leave `hosts` out for all hosts" } else { hint };
        report.add_with_hint(node.place, format!("{} is not a host", decode::shown_node(node)), hint);
    }
    host.map(Into::into)
}

/// A prefix of whole literal segments of `path`: what is taken off is the same for every request of the route. It is
/// kept in the spelling in which paths are matched and sent.
fn strip_prefix(node: &Node, pattern: &Pattern, report: &mut Report) -> Option<Box<str>> {
    let text = decode::full_text(node, report)?;
    let canonical = Pattern::parse(text).ok().filter(|prefix| !prefix.is_prefix()).and_then(|prefix| {
        let segments = prefix.segments();
        let literal = segments.iter().map(|segment| match segment {
            Segment::Literal(literal) if !literal.is_empty() => Some(format!("/{literal}")),
            Segment::Literal(_) | Segment::Any(_) => None,
        });
        literal.collect::<Option<String>>().filter(|_| pattern.segments().starts_with(segments))
    });
    if canonical.is_none() {
        let message = format!("{} is not a prefix of whole literal segments of `path`", decode::shown_node(node));
        report.add_with_hint(node.place, message, "expected one such as `/orders` for `/orders/{id}`");
    }
    canonical.map(Into::into)
}

fn field_edits(
    node: &Node,
    what: &str,
    places: &mut Vec<Placed<HeaderName>>,
    report: &mut Report,
) -> Option<FieldEdits> {
    let section = Section::open(node, what, &["set", "remove"], &[], report)?;
    let (mut edits, mut known) = (FieldEdits::default(), HashSet::new());
    if let Some(node) = section.node("set") {
        for (key, value) in decode::entries(node, report) {
            let name = editable(key.value, key.place, report);
            let is_expanded = decode::is_expanded(value);
            let value = field_value(value, report);
            let Some((name, mut value)) = name.zip(value) else { continue };
            // what is not shown: `explain` and `diff` write into logs of pipelines
            value.set_sensitive(is_expanded || may_bear_secret(&name));
            if !known.insert(name.clone()) {
                report.add(key.place, format!("`{name}` is set twice"));
            }
            places.push(Placed { value: name.clone(), place: key.place });
            edits.set.push((name, value));
        }
    }
    let remove = section.read("remove", report, |node, report| {
        decode::list(node, report, |item, report| {
            let name = editable(decode::full_text(item, report)?, item.place, report)?;
            places.push(Placed { value: name.clone(), place: item.place });
            Some(name)
        })
    });
    edits.remove = remove.unwrap_or_default();
    Some(edits)
}

/// A field that a route may edit. Framing is made by the gateway from the body; so is `Host`, which HTTP/2 has as
/// `:authority` too, and two that disagree are how caches and virtual hosts are confused.
fn editable(name: &str, place: Place, report: &mut Report) -> Option<HeaderName> {
    let name = parse_field_name(name, place, report)?;
    if is_framing(&name) || name == http::header::HOST {
        report.add(place, format!("`{name}` is made by the gateway and cannot be edited"));
        return None;
    }
    Some(name)
}

/// Fields that belong to one connection or frame a message (RFC 9110 7.6.1, RFC 9112 6).
pub fn is_framing(name: &HeaderName) -> bool {
    // a proxy's credentials are of one hop, and yet an operator's to give
    let given = *name == PROXY_AUTHENTICATE || *name == PROXY_AUTHORIZATION;
    *name == CONTENT_LENGTH || *name == EXPECT || (fields::is_hop_by_hop(name) && !given)
}

/// The name of a field, of letters, digits and `-` only.
pub fn field_name(node: &Node, report: &mut Report) -> Option<HeaderName> {
    parse_field_name(decode::full_text(node, report)?, node.place, report)
}

fn parse_field_name(name: &str, place: Place, report: &mut Report) -> Option<HeaderName> {
    let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    let parsed = HeaderName::from_bytes(name.as_bytes()).ok().filter(|_| plain);
    if parsed.is_none() {
        // many servers fold `_` and `.` to `-`, so that two names become one
        report.add(place, "the name of a header has letters, digits and `-` only");
    }
    parsed
}

fn field_value(node: &Node, report: &mut Report) -> Option<HeaderValue> {
    let text = decode::text(node, report)?;
    let value = HeaderValue::from_str(text).ok().filter(|_| text.trim_matches([' ', '\t']) == text);
    if value.is_none() {
        report.add(node.place, "the value of a header is visible ASCII, without spaces around it");
    }
    value
}

fn rate(node: &Node, report: &mut Report) -> Option<RouteRate> {
    let section = Section::open(node, "`rate`", &["rate", "burst", "by"], &[], report)?;
    let rate = section.required("rate", units::RATE, report, super::settings::rate);
    let burst = section.read("burst", report, super::settings::burst);
    let whose = [("principal", RateBy::Principal), ("address", RateBy::Address)];
    let by = section.read("by", report, decode::one_of(&whose)).unwrap_or(RateBy::Principal);
    let (count, per) = rate?;
    Some(RouteRate { quota: Quota { count, per, burst: burst.unwrap_or_else(|| one_second(count, per)) }, by })
}

/// The burst of a rate that gives none: what the rate grants in one second, at least one.
fn one_second(count: NonZeroU32, per: Duration) -> NonZeroU32 {
    let seconds = u32::try_from(per.as_secs()).unwrap_or(u32::MAX).max(1);
    NonZeroU32::new(count.get().div_ceil(seconds)).unwrap_or(NonZeroU32::MIN)
}
