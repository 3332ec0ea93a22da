//! What single rules do besides letting people through: keys of the file with their values, as somebody would write them.
//!
//! Lists that are sets are sorted, and a default is the same whether it is written out or not. A value that may be a
//! secret is compared but never shown.

use std::fmt::Debug;
use std::time::Duration;

use http::header::ACCESS_CONTROL_ALLOW_ORIGIN;
use http::{HeaderName, HeaderValue, Method};

use super::fact::{Fact, Gives, Stops, set};
use crate::config::model::endpoints::{ENDS, INCOMPLETE, SOURCES};
use crate::config::snapshot::Snapshot;
use crate::config::units::{show_duration, show_rate, show_size};
use crate::endpoint::{Action, Endpoint, Ends, Source};
use crate::forward::{FileDigest, HealthCheck, ServerGroup, UpstreamKind, UpstreamSettings};
use crate::limit::Quota;
use crate::rejection::Texts;
use crate::rejection::texts::Message;
use crate::route::cors::OURS;
use crate::route::{Cors, FieldEdits, Origins, RateBy, Route, RouteRate};
use crate::wire::fields::may_bear_secret;
use crate::wire::target::PathPolicy;

/// What a route does. `budget`: which one of both sides its `rate` is of.
pub(super) fn of_route(route: &Route, budget: usize, own: &Snapshot, other: &Snapshot) -> Vec<Fact> {
    let Route {
        upstream,
        strip_prefix,
        request_fields,
        response_fields,
        cors,
        ends_streams,
        forward_credentials,
        rate,
        timeout,
        body_bytes_max,
        // for which requests it is and who may pass is told by patterns and people
        pattern: _,
        hosts: _,
        // what a preflight is told of them is a fact
        methods: _,
        allow: _,
        scopes: _,
        schemes: _,
        // the writer's
        name: _,
        line: _,
    } = route;
    let mut facts =
        own.upstreams.get(upstream.index()).map(|upstream| of_upstream(upstream, other)).unwrap_or_default();
    let ends = [(ends_streams.expiry, "expiry"), (ends_streams.revocation, "revocation")];
    let which = |on: bool| ends.iter().filter(move |(ends, _)| *ends == on).map(|(_, name)| *name);
    facts.push(Fact::optional("strip_prefix", strip_prefix.as_deref()));
    facts.extend(edits(&REQUEST, request_fields, &[]));
    // what an upstream says of CORS is replaced, whatever the route writes; and means nothing where it is without its origin
    let hides_origin = response_fields.remove.contains(&ACCESS_CONTROL_ALLOW_ORIGIN)
        && response_fields.set.iter().all(|(name, _)| *name != ACCESS_CONTROL_ALLOW_ORIGIN);
    let replaced = if cors.is_some() || hides_origin { &OURS[..] } else { &[] };
    facts.extend(edits(&RESPONSE, response_fields, replaced));
    facts.extend(of_cors(cors.as_deref()));
    facts.extend(cors.is_some().then(|| preflight_methods(route)));
    facts.extend(rate.is_some().then(|| counted(route, budget)));
    facts.extend([
        // a stream outlives what does not end it
        Fact::list("end_streams_on", which(true)).giving(Gives::these(which(false))),
        Fact::word("forward_credentials", *forward_credentials)
            .giving(Gives::this_if(*forward_credentials, "the credential, to the upstream")),
        Fact::optional("rate", rate.as_deref().map(of_rate)),
        match *timeout {
            Some(own) => time("timeout", own),
            None => time("timeouts.response_header", own.upstream_timeouts.response_header).called("timeout"),
        },
        match *body_bytes_max {
            Some(own) => bytes("body_bytes", own),
            None => bytes("limits.body_bytes", own.body_bytes_max).called("body_bytes"),
        },
    ]);
    facts
}

/// Where a route leads. Its name means nothing by itself: one that has another name on the other side is the same.
fn of_upstream(upstream: &UpstreamSettings, other: &Snapshot) -> Vec<Fact> {
    let name = &*upstream.name;
    let group = of_kind(&upstream.kind);
    let compared = |group: &[Fact]| -> Vec<(String, String)> {
        group.iter().map(Fact::compared).map(|(id, full)| (id.to_owned(), full.to_owned())).collect()
    };
    // the name of another one over there says no more than one that is not there
    let stays =
        other.upstreams.iter().any(|other| *other.name == *name && compared(&of_kind(&other.kind)) == compared(&group));
    let to = Fact::new("to", name).comparing(if stays { name } else { "" });
    let section = format!("upstreams.{name}");
    std::iter::once(to).chain(group.into_iter().map(|fact| fact.within(&section))).collect()
}

fn of_kind(kind: &UpstreamKind) -> Vec<Fact> {
    match kind {
        UpstreamKind::Echo => vec![Fact::new("builtin", "echo")],
        UpstreamKind::Servers(group) => of_group(group),
    }
}

fn of_group(group: &ServerGroup) -> Vec<Fact> {
    let tls = group.tls.as_ref();
    vec![
        Fact::list("servers", group.servers.iter().map(|server| &*server.label)),
        Fact::new("balance", group.balance.name()).detail(),
        Fact::optional("health", group.health.as_ref().map(health)).detail(),
        Fact::new("keep_alive", group.keep_alive.to_string()).detail(),
        Fact::optional("tls.server_name", tls.and_then(|tls| tls.server_name.as_deref())).detail(),
        certificates("tls.ca", tls.and_then(|tls| tls.files.ca.as_ref())),
        certificates("tls.cert", tls.and_then(|tls| tls.files.cert.as_ref())),
    ]
}

/// What is in a file decides, not what it is called.
fn certificates(key: &str, file: Option<&FileDigest>) -> Fact {
    Fact::optional(key, file.map(|file| &*file.path)).comparing(format!("{:?}", file.map(|file| file.sha256))).detail()
}

fn health(check: &HealthCheck) -> String {
    format!(
        "{{ path: {}, interval: {}, timeout: {}, unhealthy_after: {}, healthy_after: {} }}",
        check.path,
        show_duration(check.interval),
        show_duration(check.timeout),
        check.unhealthy_after,
        check.healthy_after
    )
}

/// A section of a route that changes fields.
struct Section {
    name: &'static str,
    /// The key for the fields that do not pass.
    remove: &'static str,
    /// What a field gives that the route writes itself.
    given: fn(&HeaderName, &HeaderValue) -> Gives,
    /// What passes where it is not written any more.
    passes: &'static str,
}

const REQUEST: Section = Section {
    name: "request_headers",
    remove: "request_headers.remove",
    given: given_upstream,
    passes: "the caller's own",
};

const RESPONSE: Section = Section {
    name: "response_headers",
    remove: "response_headers.remove",
    given: given_to_pages,
    passes: "the upstream's own",
};

/// `replaced` are the fields that something else of the route writes anew.
fn edits(section: &Section, edits: &FieldEdits, replaced: &[HeaderName]) -> Vec<Fact> {
    let set = edits.set.iter().map(|(name, value)| {
        let stops = Stops { name: name.to_string(), by: section.remove, passes: section.passes };
        field(&format!("{}.set.{name}", section.name), value).giving((section.given)(name, value)).stopping(stops)
    });
    let remove = edits.remove.iter().map(HeaderName::as_str);
    // what is neither taken away nor written anew passes as the other end says it
    let written = edits.set.iter().map(|(name, _)| name).chain(replaced);
    let stopped = written.map(HeaderName::as_str).chain(remove.clone());
    let passes = Gives::AllBut(stopped.map(str::to_owned).collect());
    set.chain([Fact::list(section.remove, remove).giving(passes)]).collect()
}

/// What pages of other origins have by a field of the response that a route writes itself, without `cors`.
fn given_to_pages(name: &HeaderName, value: &HeaderValue) -> Gives {
    let whole = String::from_utf8_lossy(value.as_bytes());
    match name.as_str() {
        "access-control-allow-origin" if whole == "*" => Gives::Everything,
        // one origin, or `true`
        "access-control-allow-origin" | "access-control-allow-credentials" | "access-control-allow-private-network" => {
            Gives::these([whole])
        }
        "access-control-allow-methods" | "access-control-allow-headers" | "access-control-expose-headers" => {
            Gives::these(whole.split(',').map(str::trim).filter(|item| !item.is_empty()))
        }
        _ => Gives::Nothing,
    }
}

/// A credential that a route sets is the gateway's own: whoever passes acts by it at the upstream. Another one in its place
/// is most likely the same, renewed.
fn given_upstream(name: &HeaderName, value: &HeaderValue) -> Gives {
    Gives::this_if(may_bear_secret(name) && !value.is_empty(), "a credential")
}

fn field(key: &str, value: &HeaderValue) -> Fact {
    let text = String::from_utf8_lossy(value.as_bytes()).into_owned();
    let shown = if value.is_sensitive() { "********" } else { &text };
    Fact::new(key, shown).comparing(&*text)
}

/// A page of another origin reads answers where this lets it.
fn of_cors(cors: Option<&Cors>) -> Vec<Fact> {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let (origins, read_by) = match cors.map(|cors| &cors.origins) {
        None => (None, Gives::Nothing),
        Some(Origins::Any) => (Some("['*']".to_owned()), Gives::Everything),
        Some(Origins::Listed(origins)) => (Some(set(origins.iter().map(text))), Gives::these(origins.iter().map(text))),
    };
    let headers = cors.and_then(|cors| cors.headers.as_ref()).map(text).unwrap_or_default();
    let headers: Vec<&str> = headers.split(',').map(str::trim_ascii).filter(|name| !name.is_empty()).collect();
    let max_age = cors.and_then(|cors| cors.max_age.as_ref()).and_then(|age| text(age).parse().ok());
    let credentials = cors.is_some_and(|cors| cors.credentials);
    let mut origins = Fact::optional("cors.origins", origins).giving(read_by);
    if cors.is_some() {
        let name = ACCESS_CONTROL_ALLOW_ORIGIN.to_string();
        origins = origins.stopping(Stops { name, by: RESPONSE.remove, passes: "what the upstream says of CORS" });
    }
    vec![
        origins,
        Fact::list("cors.headers", headers.iter().copied()).giving(Gives::these(headers.iter().copied())),
        Fact::optional("cors.max_age", max_age.map(|seconds| show_duration(Duration::from_secs(seconds)))),
        Fact::word("cors.credentials", credentials).giving(Gives::this_if(credentials, "with credentials")),
    ]
}

/// What a preflight is told that a browser may send afterwards without another one.
fn preflight_methods(route: &Route) -> Fact {
    let mut listed: Vec<&str> = route.listed_methods().map(Method::as_str).collect();
    listed.sort_unstable();
    // a route for one method or for all is told of none but the one that is asked for
    let is_asked = listed.len() <= 1;
    let shown = if is_asked { "the one asked for".to_owned() } else { set(listed.iter().copied()) };
    // no preflight is needed for the others
    let needed = listed.into_iter().filter(|method| !["GET", "HEAD", "POST"].contains(method));
    Fact::new("cors: methods that a preflight allows", shown).giving(Gives::these(needed)).detail()
}

/// With which requests those of a route are counted. A route that is split has two budgets, of which one is fresh.
fn counted(route: &Route, budget: usize) -> Fact {
    let methods = route.methods.iter().map(Method::as_str).collect::<Vec<_>>().join(", ");
    let hosts = route.hosts.join(", ");
    let words = [("", &*route.name), (" for ", &*methods), (" on ", &*hosts)];
    let shown = words.iter().filter(|(_, word)| !word.is_empty()).flat_map(|(before, word)| [*before, *word]);
    Fact::new("rate counts the requests of", shown.collect::<String>()).comparing(budget.to_string()).detail()
}

fn of_rate(rate: &RouteRate) -> String {
    let by = match rate.by {
        RateBy::Principal => "principal",
        RateBy::Address => "address",
    };
    format!("{{ {}, by: {by} }}", quota(&rate.quota))
}

/// The keys of a budget.
pub(super) fn quota(quota: &Quota) -> String {
    format!("rate: {}, burst: {}", show_rate(quota.count, quota.per), quota.burst)
}

/// How many guesses a budget lets through.
pub(super) fn guesses(quota: Option<&Quota>) -> Gives {
    const DAY_NANOS: u128 = 24 * 3_600 * 1_000_000_000;
    quota.map_or(Gives::Everything, |quota| {
        let a_day = u128::from(quota.count.get()) * DAY_NANOS / quota.per.as_nanos().max(1);
        Gives::UpTo(vec![a_day, quota.burst.get().into()])
    })
}

/// How an endpoint does what it does.
pub(super) fn of_endpoint(endpoint: &Endpoint, of_file: &Texts) -> Vec<Fact> {
    // a file is made of the others
    let Endpoint { path: _, action: _, fields, reply, status, texts, password_grant, from, incomplete, ends, file: _ } =
        endpoint;
    let mut facts = vec![
        Fact::optional("status", status.map(|status| status.as_u16().to_string())),
        Fact::word("password_grant", *password_grant).giving(Gives::this_if(*password_grant, "tokens for a password")),
        Fact::new("reply", reply.as_ref().map_or_else(|| "default".to_owned(), |reply| reply.written().to_string()))
            .giving(issued(endpoint)),
        Fact::optional("from", name_of(&SOURCES, *from)).giving(Gives::these(match from {
            Source::Either => vec!["members", "authorization"],
            Source::Members => vec!["members"],
            Source::Authorization => vec!["authorization"],
        })),
        Fact::optional("incomplete", name_of(&INCOMPLETE, *incomplete)),
        Fact::optional("ends", name_of(&ENDS, *ends))
            .giving(Gives::this_if(*ends == Ends::Refresh, "an access token that outlives its session")),
    ];
    let mut fields: Vec<_> = fields.iter().collect();
    fields.sort();
    facts.extend(fields.into_iter().map(|(name, used)| Fact::new(format!("fields.{name}"), &**used)));
    // what it has of the file is told of the file
    if texts.member != of_file.member {
        facts.push(Fact::new("errors.member", &*texts.member));
    }
    let own = texts.messages.iter().filter(|(code, text)| of_file.messages.get(*code) != Some(text));
    facts.extend(messages(own));
    facts
}

/// The tokens that whoever asks is given, and what the one that he has shown is still good for.
fn issued(endpoint: &Endpoint) -> Gives {
    let issues = endpoint.reply().issues();
    // an access token, and beside it a refresh token to whoever showed one, or a user's password
    let by_rfc = endpoint.action == Action::OauthToken && endpoint.reply.is_none();
    let stays = matches!(endpoint.action, Action::Refresh | Action::OauthToken) && !issues.refresh && !by_rfc;
    let kinds = [
        (issues.access || by_rfc, "access"),
        (issues.refresh, "refresh"),
        (issues.token, "token"),
        (stays, "a refresh token that can be used again"),
    ];
    Gives::these(kinds.into_iter().filter(|(given, _)| *given).map(|(_, kind)| kind))
}

pub(super) fn messages<'t>(messages: impl Iterator<Item = (&'t Box<str>, &'t Message)>) -> Vec<Fact> {
    let mut messages: Vec<_> = messages.collect();
    messages.sort_by_key(|(code, _)| *code);
    messages
        .into_iter()
        .map(|(code, message)| Fact::new(format!("errors.messages.{code}"), message.written()))
        .collect()
}

/// The word of a setting in the file; `None` for a default that has none.
fn name_of<T: Copy + PartialEq>(words: &[(&str, T)], value: T) -> Option<String> {
    words.iter().find(|(_, known)| *known == value).map(|(word, _)| (*word).to_owned())
}

/// For comparing alone.
pub(super) fn secretly(value: &impl Debug) -> String {
    format!("{value:?}")
}

/// What `paths` says of each kind of ambiguity.
pub(super) fn of_paths(policy: PathPolicy) -> [(&'static str, &'static str); 4] {
    let word = |kept: bool, word: &'static str| if kept { word } else { "refuse" };
    [
        ("paths.encoded_slash", word(policy.keep_encoded_slash, "keep")),
        ("paths.encoded_query", word(policy.keep_encoded_query, "keep")),
        ("paths.semicolon", word(policy.keep_semicolon, "keep")),
        ("paths.empty_segments", word(policy.merge_empty_segments, "merge")),
    ]
}

pub(super) fn time(key: &str, value: Duration) -> Fact {
    Fact::new(key, show_duration(value))
}

pub(super) fn bytes(key: &str, value: u64) -> Fact {
    Fact::new(key, show_size(value))
}
