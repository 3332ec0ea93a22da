//! The sections that stand for themselves: limits, timeouts, paths, passwords, identity headers, errors, log.

use std::num::NonZeroU32;
use std::time::Duration;

use http::HeaderName;

use super::super::decode::{self, Placed, SecretSource, Section};
use super::super::report::Report;
use super::super::tree::{Node, Value};
use super::super::units;
use super::upstreams::{self, Tls};
use crate::limit::{self, Quota};
use crate::principal::Scheme;
use crate::record;
use crate::rejection::texts::{Message, OWN_MEMBERS};
use crate::rejection::{MALFORMED_BODY, MemberFault, Texts, TokenFault};
use crate::wire::fields::IdentityNames;
use crate::wire::target::PathPolicy;

/// Bursts, fields in a head, and the like: larger numbers are mistakes.
const BURST_MAX: u64 = 1_000_000;
const HEADERS_MAX: u64 = 1000;
const HEADER_BYTES: (u64, u64) = (4 << 10, 1 << 20);
const CONNECTIONS_MAX: u64 = 10_000_000;
const PASSWORD_BYTES_MAX: u64 = 4096;

/// The section `limits`.
#[derive(Debug)]
pub struct Limits {
    /// Rates.
    pub rates: limit::Settings,
    /// `shared`.
    pub shared: Option<Shared>,
    /// `header_bytes`.
    pub header_bytes: usize,
    /// `headers`.
    pub headers: usize,
    /// `body_bytes`.
    pub body_bytes: u64,
    /// `connections`; `None`: from the descriptor limit.
    pub connections: Option<usize>,
}

/// `limits.shared`: a URL, or a mapping with one.
#[derive(Debug)]
pub struct Shared {
    /// Where; it may hold a password.
    pub url: Placed<SecretSource>,
    /// `tls`.
    pub tls: Option<Tls>,
}

impl Limits {
    /// Reads the section, or gives the defaults.
    pub fn read(node: Option<&Node>, report: &mut Report) -> Self {
        let minute = Duration::from_mins(1);
        let mut limits = Self {
            rates: limit::Settings {
                per_address: quota(30, minute, 10),
                per_account: quota(5, minute, 5),
                per_account_anywhere: quota(100, Duration::from_hours(1), 100),
                unauthenticated: quota(20, Duration::from_secs(1), 100),
            },
            shared: None,
            header_bytes: 32 << 10,
            headers: 100,
            body_bytes: 0,
            connections: None,
        };
        let keys =
            &["token_endpoints", "unauthenticated", "shared", "header_bytes", "headers", "body_bytes", "connections"];
        let section = node.and_then(|node| Section::open(node, "`limits`", keys, &[], report));
        let Some(section) = section else { return limits };
        if let Some(node) = section.node("token_endpoints") {
            token_endpoints(node, &mut limits.rates, report);
        }
        budget(&section, "unauthenticated", &mut limits.rates.unauthenticated, report);
        limits.shared = section.read("shared", report, shared);
        limits.bounds(&section, report);
        limits
    }

    /// What bounds one request, and how many there are. `off` is the largest that there may be: a head that nothing bounds
    /// would let anybody take all memory, and nobody has more connections than the system gives descriptors for.
    fn bounds(&mut self, section: &Section<'_>, report: &mut Report) {
        let header_bytes = decode::or_off(HEADER_BYTES.1, decode::size_within(HEADER_BYTES.0, HEADER_BYTES.1));
        let header_bytes = section.read("header_bytes", report, header_bytes);
        self.header_bytes = header_bytes.and_then(|bytes| bytes.try_into().ok()).unwrap_or(self.header_bytes);
        let headers = decode::or_off(HEADERS_MAX, decode::whole(1, HEADERS_MAX));
        let headers = section.read("headers", report, headers);
        self.headers = headers.and_then(|count| count.try_into().ok()).unwrap_or(self.headers);
        self.body_bytes =
            section.read("body_bytes", report, decode::or_off(0, decode::size)).unwrap_or(self.body_bytes);
        let connections =
            decode::or_off(None, |node, report| super::number_or_auto(node, 1, CONNECTIONS_MAX, report).map(Some));
        self.connections = section.read("connections", report, connections).flatten();
    }
}

fn shared(node: &Node, report: &mut Report) -> Option<Shared> {
    let url = |node: &Node, report: &mut Report| {
        decode::secret(node, report).map(|value| Placed { value, place: node.place })
    };
    match &node.value {
        Value::Map(entries) if !entries.iter().any(|entry| &*entry.key == "file") => {
            let section = Section::open(node, "`shared`", &["url", "tls"], &[], report)?;
            let tls = section.read("tls", report, upstreams::tls);
            Some(Shared { url: section.required("url", "a URL such as `redis://localhost`", report, url)?, tls })
        }
        Value::Scalar(_) | Value::List(_) | Value::Map(_) => Some(Shared { url: url(node, report)?, tls: None }),
    }
}

fn quota(count: u32, per: Duration, burst: u32) -> Option<Quota> {
    Some(Quota { count: NonZeroU32::new(count)?, per, burst: NonZeroU32::new(burst)? })
}

fn token_endpoints(node: &Node, rates: &mut limit::Settings, report: &mut Report) {
    if decode::is_word(node, "off") {
        (rates.per_address, rates.per_account, rates.per_account_anywhere) = (None, None, None);
        return;
    }
    let keys = &["per_address", "per_account", "per_account_anywhere"];
    let Some(section) = Section::open(node, "`token_endpoints`", keys, &[], report) else { return };
    budget(&section, "per_address", &mut rates.per_address, report);
    budget(&section, "per_account", &mut rates.per_account, report);
    budget(&section, "per_account_anywhere", &mut rates.per_account_anywhere, report);
}

/// `off`, or a mapping; what it leaves out stays as it is.
fn budget(section: &Section<'_>, key: &str, quota: &mut Option<Quota>, report: &mut Report) {
    let Some(node) = section.node(key) else { return };
    if decode::is_word(node, "off") {
        *quota = None;
        return;
    }
    let Some(section) = Section::open(node, &format!("`{key}`"), &["rate", "burst"], &[], report) else { return };
    let rate = section.read("rate", report, rate);
    let burst = section.read("burst", report, burst);
    if let Some(quota) = quota {
        (quota.count, quota.per) = rate.unwrap_or((quota.count, quota.per));
        quota.burst = burst.unwrap_or(quota.burst);
    }
}

/// A rate such as `30/m`.
pub fn rate(node: &Node, report: &mut Report) -> Option<(NonZeroU32, Duration)> {
    decode::parsed(node, units::RATE, report, units::rate)
}

/// A burst; never zero.
pub fn burst(node: &Node, report: &mut Report) -> Option<NonZeroU32> {
    decode::whole(1, BURST_MAX)(node, report).and_then(NonZeroU32::new)
}

/// The section `timeouts`.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// `handshake`.
    pub handshake: Duration,
    /// `request_header`.
    pub request_header: Duration,
    /// `idle`.
    pub idle: Duration,
    /// `connect`.
    pub connect: Duration,
    /// `response_header`.
    pub response_header: Duration,
    /// `drain`; zero: at once.
    pub drain: Duration,
}

impl Timeouts {
    /// Reads the section, or gives the defaults.
    pub fn read(node: Option<&Node>, report: &mut Report) -> Self {
        let keys = &["handshake", "request_header", "idle", "connect", "response_header", "drain"];
        let section = node.and_then(|node| Section::open(node, "`timeouts`", keys, &[], report));
        let mut time = |key, default| {
            let given = section.as_ref().and_then(|section| section.read(key, report, decode::some_time));
            given.unwrap_or(Duration::from_secs(default))
        };
        Self {
            handshake: time("handshake", 10),
            request_header: time("request_header", 10),
            idle: time("idle", 75),
            connect: time("connect", 2),
            response_header: time("response_header", 60),
            drain: section
                .as_ref()
                .and_then(|section| section.read("drain", report, decode::duration))
                .unwrap_or(Duration::from_secs(30)),
        }
    }
}

/// The section `paths`.
pub fn paths(node: Option<&Node>, report: &mut Report) -> PathPolicy {
    let keys = &["encoded_slash", "encoded_query", "semicolon", "empty_segments"];
    let section = node.and_then(|node| Section::open(node, "`paths`", keys, &[], report));
    let Some(section) = section else { return PathPolicy::default() };
    let mut relaxed =
        |key, word| section.read(key, report, decode::one_of(&[("refuse", false), (word, true)])).unwrap_or_default();
    PathPolicy {
        keep_encoded_slash: relaxed("encoded_slash", "keep"),
        keep_encoded_query: relaxed("encoded_query", "keep"),
        keep_semicolon: relaxed("semicolon", "keep"),
        merge_empty_segments: relaxed("empty_segments", "merge"),
    }
}

/// The section `passwords`: the fewest and the most bytes of a new one.
pub fn passwords(node: Option<&Node>, report: &mut Report) -> (usize, usize) {
    let section = node.and_then(|node| Section::open(node, "`passwords`", &["min_bytes", "max_bytes"], &[], report));
    let Some(section) = section else { return (8, 1024) };
    let min = section.read("min_bytes", report, decode::whole(1, PASSWORD_BYTES_MAX)).unwrap_or(8);
    let max = section.read("max_bytes", report, decode::whole(1, PASSWORD_BYTES_MAX)).unwrap_or(1024);
    if min > max {
        report.add(section.place(), "`min_bytes` is above `max_bytes`: no password would do");
    }
    (min, max)
}

/// The section `identity_headers`: a word for a known set, or a name each.
pub fn identity(node: Option<&Node>, report: &mut Report) -> IdentityNames {
    let mut names = IdentityNames::default();
    let Some(node) = node else { return names };
    if matches!(node.value, super::Value::Scalar(_)) {
        let sets: [(_, fn() -> IdentityNames); 3] = [
            ("remote", IdentityNames::remote),
            ("forwarded", IdentityNames::forwarded),
            ("consumer", IdentityNames::consumer),
        ];
        return decode::one_of(&sets)(node, report).map_or(names, |set| set());
    }
    let section = Section::open(node, "`identity_headers`", &["user", "roles", "scheme"], &["assertion"], report);
    let Some(section) = section else { return names };
    for (key, name) in [("user", &mut names.user), ("roles", &mut names.roles), ("scheme", &mut names.scheme)] {
        *name = section.read(key, report, identity_name).or_else(|| name.take());
    }
    if names.user == names.roles || names.user == names.scheme || names.roles == names.scheme {
        report.add(section.place(), "two identity headers have the same name");
    }
    names
}

/// A name that can be ours alone: a field that HTTP itself or the gateway gives a meaning to cannot bear an identity.
fn identity_name(node: &Node, report: &mut Report) -> Option<HeaderName> {
    let name = super::routes::field_name(node, report)?;
    let taken = ["host", "authorization", "cookie", "content-type", "x-request-id", "traceparent", "forwarded"];
    let forwarding = ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"];
    if super::routes::is_framing(&name) || taken.contains(&name.as_str()) || forwarding.contains(&name.as_str()) {
        report.add(node.place, format!("`{name}` cannot be an identity header: it means something else"));
        return None;
    }
    Some(name)
}

/// The codes of errors (contract 4 and 5); finer ones are `code.reason`.
pub const CODES: [&str; 26] = [
    "bad_request",
    "body_too_large",
    "busy",
    "headers_too_large",
    "insufficient_permissions",
    "internal_error",
    "invalid_client",
    "invalid_credentials",
    "invalid_grant",
    "invalid_request",
    "invalid_scope",
    "invalid_token",
    "method_not_allowed",
    "missing_credentials",
    "no_healthy_upstream",
    "no_route",
    "rate_limited",
    "request_timeout",
    "store_unavailable",
    "unauthorized_client",
    "unsupported_grant_type",
    "unsupported_media_type",
    "unsupported_scheme",
    "upstream_timeout",
    "upstream_unavailable",
    "username_taken",
];

/// What may stand behind `code.`: reasons, schemes, and a scheme with a reason.
fn reasons(code: &str) -> Vec<String> {
    match code {
        "invalid_token" => {
            let of_scheme = |prefix: &str| TokenFault::ALL.map(|fault| format!("{prefix}{}", fault.name()));
            let schemes = [Scheme::Token, Scheme::Bearer].map(Scheme::name);
            let exact = schemes.iter().flat_map(|scheme| of_scheme(&format!("{scheme}.")));
            of_scheme("").into_iter().chain(schemes.iter().map(ToString::to_string)).chain(exact).collect()
        }
        "invalid_request" => {
            MemberFault::ALL.map(MemberFault::name).into_iter().chain([MALFORMED_BODY]).map(str::to_owned).collect()
        }
        "rate_limited" => limit::NAMES.map(str::to_owned).into(),
        _ => Vec::new(),
    }
}

/// A message: a text, or the members of the body.
fn message(code: &str, node: &Node, report: &mut Report) -> Option<Message> {
    if !matches!(node.value, Value::Map(_)) {
        return decode::text(node, report).map(|text| Message::Text(text.into()));
    }
    for member in decode::key_places(node) {
        if OWN_MEMBERS.contains(&&*member.value) {
            report.add(member.place, format!("`{}` is another member of every error", member.value));
        }
    }
    match Message::members(code, decode::json_map(node, report)?) {
        Ok(message) => Some(message),
        Err(error) => {
            decode::no_template(node.place, &error, report);
            None
        }
    }
}

/// The section `errors`, for all or, over what holds `for_all`, for one endpoint.
pub fn texts(node: Option<&Node>, for_all: &Texts, report: &mut Report) -> Texts {
    let mut texts = for_all.clone();
    let section = node.and_then(|node| Section::open(node, "`errors`", &["member", "messages"], &[], report));
    let Some(section) = section else { return texts };
    if let Some(member) = section.read("member", report, decode::full_text) {
        if let (true, Some(node)) = (OWN_MEMBERS.contains(&member), section.node("member")) {
            report.add(node.place, format!("`{member}` is another member of every error"));
        }
        texts.member = member.into();
    }
    if let Some(node) = section.node("messages") {
        for (code, message) in decode::entries(node, report) {
            let base = code.value.split('.').next().unwrap_or_default();
            if !CODES.contains(&base) {
                report.unknown(code.place, "error code", code.value, CODES);
            } else if let Some(reason) = code.value.strip_prefix(base).and_then(|rest| rest.strip_prefix('.'))
                && !reasons(base).iter().any(|known| known == reason)
            {
                let known = reasons(base);
                report.unknown(code.place, "reason", reason, known.iter().map(String::as_str));
            }
            if let Some(message) = self::message(code.value, message, report) {
                texts.messages.insert(code.value.into(), message);
            }
        }
    }
    texts
}

/// The section `log`.
pub fn log(node: Option<&Node>, report: &mut Report) -> record::Settings {
    use tracing::Level;
    let mut settings = record::Settings { access: true, audit: true, level: Level::INFO };
    let section = node.and_then(|node| Section::open(node, "`log`", &["access", "audit", "level"], &[], report));
    let Some(section) = section else { return settings };
    let formats = [("off", false), ("json", true)];
    let levels = [
        ("error", Level::ERROR),
        ("warn", Level::WARN),
        ("info", Level::INFO),
        ("debug", Level::DEBUG),
        ("trace", Level::TRACE),
    ];
    settings.access = section.read("access", report, decode::one_of(&formats)).unwrap_or(settings.access);
    settings.audit = section.read("audit", report, decode::one_of(&formats)).unwrap_or(settings.audit);
    settings.level = section.read("level", report, decode::one_of(&levels)).unwrap_or(settings.level);
    settings
}
