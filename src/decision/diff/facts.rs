//! What single rules do besides letting people through: keys of the file with their values, as somebody would write them.
//!
//! Lists that are sets are sorted, and a default is the same whether it is written out or not. A value that may be a
//! secret is compared but never shown.

use std::collections::HashMap;
use std::fmt::Debug;
use std::time::Duration;

use http::HeaderValue;

use crate::config::model::endpoints::{ENDS, INCOMPLETE, SOURCES, action_name};
use crate::config::report::is_unseen;
use crate::config::snapshot::Snapshot;
use crate::config::units::{show_duration, show_rate, show_size};
use crate::endpoint::Endpoint;
use crate::forward::{FileDigest, HealthCheck, ServerGroup, UpstreamKind, UpstreamSettings};
use crate::limit::Quota;
use crate::rejection::Texts;
use crate::rejection::texts::Message;
use crate::route::{Cors, FieldEdits, Origins, RateBy, Route, RouteRate};
use crate::wire::target::PathPolicy;

/// What a key that is left out and has no default is shown as.
pub(super) const NONE: &str = "none";

/// One key with its value.
#[derive(Clone, Debug)]
pub(super) struct Fact {
    /// By which two are compared.
    id: String,
    /// The key as the file has it.
    key: String,
    shown: String,
    /// What is compared; another text than what is shown where that is a secret, or means nothing by itself.
    full: String,
    /// Whether it is told only where the other side has it too.
    is_detail: bool,
}

impl Fact {
    pub(super) fn new(key: impl Into<String>, shown: impl Into<String>) -> Self {
        let (key, shown) = (key.into(), shown.into());
        Self { id: key.clone(), full: shown.clone(), key, shown, is_detail: false }
    }

    /// A list whose order means nothing.
    pub(super) fn list<T: Into<String>>(key: impl Into<String>, items: impl Iterator<Item = T>) -> Self {
        Self::new(key, set(items))
    }

    pub(super) fn optional(key: impl Into<String>, value: Option<impl Into<String>>) -> Self {
        Self::new(key, value.map_or_else(|| NONE.to_owned(), Into::into))
    }

    pub(super) fn word(key: impl Into<String>, value: bool) -> Self {
        Self::new(key, value.to_string())
    }

    pub(super) fn comparing(self, full: impl Into<String>) -> Self {
        Self { full: full.into(), ..self }
    }

    pub(super) fn detail(self) -> Self {
        Self { is_detail: true, ..self }
    }

    /// Compared with what stands under `id` on the other side.
    fn called(self, id: &str) -> Self {
        Self { id: id.to_owned(), ..self }
    }

    /// What is compared.
    pub(super) fn compared(&self) -> (&str, &str) {
        (&self.id, &self.full)
    }

    /// Its value.
    pub(super) fn shown(&self) -> &str {
        &self.shown
    }
}

/// Each difference, on one line: `timeout: 5s -> 10s`.
pub(super) fn changes(old: &[Fact], new: &[Fact]) -> Vec<String> {
    let by_id = |facts: &'_ [Fact]| facts.iter().map(|fact| (fact.id.clone(), fact.clone())).collect::<HashMap<_, _>>();
    let (olds, news) = (by_id(old), by_id(new));
    let another_upstream = olds.get("to").map(Fact::shown) != news.get("to").map(Fact::shown);
    let gone = old.iter().filter(|fact| !news.contains_key(&fact.id));
    let ids = new.iter().chain(gone).map(|fact| &fact.id);
    ids.filter_map(|id| {
        let (old, new) = (olds.get(id), news.get(id));
        if let (Some(fact), None) | (None, Some(fact)) = (old, new)
            && fact.is_detail
        {
            return None;
        }
        let key = match (old, new) {
            (Some(old), Some(new)) if old.key != new.key => id,
            (Some(fact), None) | (None, Some(fact)) if another_upstream && fact.key.starts_with("upstreams.") => id,
            (_, Some(fact)) | (Some(fact), None) => &fact.key,
            (None, None) => id,
        };
        let value = |fact: Option<&Fact>| {
            fact.map_or((NONE.to_owned(), NONE.to_owned()), |fact| (fact.full.clone(), fact.shown.clone()))
        };
        let ((old_full, old), (new_full, new)) = (value(old), value(new));
        if old_full == new_full {
            None
        } else if old == new {
            Some(on_one_line(&format!("{key}: another value (not shown)")))
        } else {
            Some(on_one_line(&format!("{key}: {old} -> {new}")))
        }
    })
    .collect()
}

/// No text of a file can end its line: what stood on the next one would be read as another difference.
fn on_one_line(text: &str) -> String {
    text.chars().map(|c| if is_unseen(c) { c.escape_default().to_string() } else { c.to_string() }).collect()
}

/// What a route does.
pub(super) fn of_route(route: &Route, own: &Snapshot, other: &Snapshot) -> Vec<Fact> {
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
        methods: _,
        allow: _,
        scopes: _,
        schemes: _,
        // the writer's
        name: _,
        line: _,
    } = route;
    let mut facts = own.upstreams.get(upstream.0).map(|upstream| of_upstream(upstream, other)).unwrap_or_default();
    let ends = [(ends_streams.expiry, "expiry"), (ends_streams.revocation, "revocation")];
    facts.push(Fact::optional("strip_prefix", strip_prefix.as_deref()));
    facts.extend(edits("request_headers", request_fields));
    facts.extend(edits("response_headers", response_fields));
    facts.extend(of_cors(cors.as_deref()));
    facts.extend([
        Fact::list("end_streams_on", ends.iter().filter(|(on, _)| *on).map(|(_, name)| *name)),
        Fact::word("forward_credentials", *forward_credentials),
        Fact::optional("rate", rate.as_ref().map(of_rate)),
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
    let stays = other.upstreams.iter().any(|other| *other.name == *name);
    let to = Fact::new("to", name).comparing(if stays { name } else { "" });
    let group = match &upstream.kind {
        UpstreamKind::Echo => vec![Fact::new("builtin", "echo")],
        UpstreamKind::Servers(group) => of_group(group),
    };
    let of_this = |fact: Fact| Fact { key: format!("upstreams.{name}.{}", fact.key), ..fact };
    std::iter::once(to).chain(group.into_iter().map(of_this)).collect()
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

fn edits(section: &str, edits: &FieldEdits) -> Vec<Fact> {
    let set = edits.set.iter().map(|(name, value)| field(&format!("{section}.set.{name}"), value));
    let remove = edits.remove.iter().map(http::HeaderName::as_str);
    set.chain([Fact::list(format!("{section}.remove"), remove)]).collect()
}

fn field(key: &str, value: &HeaderValue) -> Fact {
    let text = String::from_utf8_lossy(value.as_bytes()).into_owned();
    let shown = if value.is_sensitive() { "********" } else { &text };
    Fact::new(key, shown).comparing(&*text)
}

fn of_cors(cors: Option<&Cors>) -> Vec<Fact> {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let origins = cors.map(|cors| match &cors.origins {
        Origins::Any => "['*']".to_owned(),
        Origins::Listed(origins) => set(origins.iter().map(text)),
    });
    let headers = cors.and_then(|cors| cors.headers.as_ref()).map(text).unwrap_or_default();
    let headers = headers.split(',').map(|name| name.trim_ascii().to_owned()).filter(|name| !name.is_empty());
    let max_age = cors.and_then(|cors| cors.max_age.as_ref()).and_then(|age| text(age).parse().ok());
    vec![
        Fact::optional("cors.origins", origins),
        Fact::list("cors.headers", headers),
        Fact::optional("cors.max_age", max_age.map(|seconds| show_duration(Duration::from_secs(seconds)))),
        Fact::word("cors.credentials", cors.is_some_and(|cors| cors.credentials)),
    ]
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

/// What an endpoint does; the first is its action.
pub(super) fn of_endpoint(endpoint: &Endpoint, of_file: &Texts) -> Vec<Fact> {
    // a file is made of the others
    let Endpoint { path: _, action, fields, reply, status, texts, password_grant, from, incomplete, ends, file: _ } =
        endpoint;
    let mut facts = vec![
        Fact::new("action", action_name(*action)),
        Fact::optional("status", status.map(|status| status.as_u16().to_string())),
        Fact::word("password_grant", *password_grant),
        Fact::new("reply", reply.as_ref().map_or_else(|| "default".to_owned(), |reply| reply.written().to_string())),
    ];
    facts.extend([
        Fact::optional("from", name_of(&SOURCES, *from)),
        Fact::optional("incomplete", name_of(&INCOMPLETE, *incomplete)),
        Fact::optional("ends", name_of(&ENDS, *ends)),
    ]);
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

/// Sorted, each once, as a list of YAML.
fn set<T: Into<String>>(items: impl Iterator<Item = T>) -> String {
    let items: std::collections::BTreeSet<String> = items.map(Into::into).collect();
    format!("[{}]", items.into_iter().collect::<Vec<_>>().join(", "))
}
