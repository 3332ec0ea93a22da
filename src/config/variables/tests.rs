//! Every key of the schema is one or the other, and told so wherever it stands.

use std::collections::BTreeSet;

use super::*;
use crate::config::listing::Listing;
use crate::config::report::Report;
use crate::config::tests::{OTHER_WAYS, WHOLE};
use crate::config::{schema, tree};

/// Keys by which it is decided who may do what.
const ACCESS: &[&str] = &[
    "listeners.tls.min_version",
    "trusted_proxies",
    "store.users.table",
    "store.users.id",
    "store.users.name",
    "store.users.password",
    "store.users.role",
    "store.users.roles.table",
    "store.users.roles.user",
    "store.users.roles.role",
    "store.users.roles.names.table",
    "store.users.roles.names.id",
    "store.users.roles.names.name",
    "store.users.flags",
    "store.users.active",
    "store.tokens.table",
    "store.tokens.token",
    "store.tokens.expires_at",
    "store.tokens.user",
    "auth.schemes",
    "auth.jwt.audience",
    "auth.jwt.roles",
    "auth.jwt.subject",
    "auth.jwt.type.claim",
    "auth.jwt.type.access",
    "auth.jwt.type.refresh",
    "auth.jwt.type.missing",
    "auth.jwt.subject_kind",
    "auth.jwt.require_exp",
    "auth.jwt.require_iss",
    "auth.jwt.require_jti",
    "auth.jwt.require_account",
    "auth.issuers.issuer",
    "auth.issuers.jwks",
    "auth.issuers.audience",
    "auth.issuers.algorithms",
    "auth.issuers.roles",
    "auth.issuers.user",
    "auth.issuers.user_prefix",
    "tokens.default_role",
    "tokens.claims",
    "passwords.min_bytes",
    "identity_headers.user",
    "identity_headers.roles",
    "identity_headers.scheme",
    "paths.encoded_slash",
    "paths.encoded_query",
    "paths.semicolon",
    "paths.empty_segments",
    "limits.token_endpoints.per_address.rate",
    "limits.token_endpoints.per_address.burst",
    "limits.token_endpoints.per_account.rate",
    "limits.token_endpoints.per_account.burst",
    "limits.token_endpoints.per_account_anywhere.rate",
    "limits.token_endpoints.per_account_anywhere.burst",
    "limits.unauthenticated.rate",
    "limits.unauthenticated.burst",
    "endpoints.path",
    "endpoints.action",
    "endpoints.reply",
    "endpoints.from",
    "endpoints.ends",
    "endpoints.password_grant",
    "routes.path",
    "routes.methods",
    "routes.hosts",
    "routes.allow",
    "routes.scopes",
    "routes.schemes",
    "routes.strip_prefix",
    "routes.request_headers.remove",
    "routes.response_headers.remove",
    "routes.cors.origins",
    "routes.cors.headers",
    "routes.cors.credentials",
    "routes.end_streams_on",
    "routes.forward_credentials",
    "routes.rate.rate",
    "routes.rate.burst",
    "routes.rate.by",
    "routes.to",
    "expect.request",
    "expect.as.roles",
    "expect.as.scopes",
    "expect.as.scheme",
    "expect.is",
    "bootstrap.users.roles",
    "bootstrap.clients.roles",
    "bootstrap.clients.scopes",
];

/// A file that says something of everything.
const EVERYTHING: &str = include_str!("../../decision/diff/every_key/base.yaml");

/// All keys of a schema, without the signs of lists; those that other keys stand below as well.
fn keys(node: &serde_json::Value, at: &str, found: &mut BTreeSet<String>) {
    for alternative in node["anyOf"].as_array().into_iter().flatten() {
        keys(alternative, at, found);
    }
    if node["items"].is_object() {
        keys(&node["items"], at, found);
    }
    if node["additionalProperties"].is_object() {
        keys(&node["additionalProperties"], &format!("{at}.*"), found);
    }
    for (key, value) in node["properties"].as_object().into_iter().flatten() {
        let at = format!("{at}.{key}");
        if !at.ends_with(".errors.messages") {
            keys(value, &at, found);
        }
        found.insert(at.trim_start_matches('.').to_owned());
    }
}

fn known() -> BTreeSet<String> {
    let mut known = BTreeSet::new();
    keys(&schema::schema(), "", &mut known);
    known
}

#[test]
fn every_key_is_about_access_or_known_to_be_about_something_else() {
    let known = known();
    for key in &known {
        let has_others_below = known.iter().any(|other| other.starts_with(&format!("{key}.")));
        let is_otherwise = is_otherwise(&key.split('.').collect::<Vec<_>>());
        let is_access = ACCESS.contains(&key.as_str());
        assert!(
            has_others_below || is_otherwise != is_access,
            "{key}: may another value elsewhere open something? then ACCESS, else OTHERWISE ({is_access}, {is_otherwise})"
        );
    }
    for key in ACCESS.iter().chain(OTHERWISE).chain(GIVING) {
        assert!(known.contains(key.trim_end_matches(".**")), "{key} is no key");
    }
}

/// Does it to each scalar, with the keys under which it stands.
fn each(node: &mut Node, at: &[String], index: &mut usize, wanted: usize) -> Option<Vec<String>> {
    match &mut node.value {
        Value::Scalar(scalar) => {
            *index += 1;
            (*index == wanted).then(|| {
                scalar.written = Some("${A}".into());
                at.to_vec()
            })
        }
        Value::List(items) => items.iter_mut().find_map(|item| each(item, at, index, wanted)),
        Value::Map(entries) => entries.iter_mut().find_map(|entry| {
            let mut at = at.to_vec();
            at.push(entry.key.to_string());
            each(&mut entry.value, &at, index, wanted)
        }),
    }
}

#[test]
fn a_variable_is_told_wherever_access_depends_on_it_and_nowhere_else() {
    let known = known();
    let mut seen = BTreeSet::new();
    for text in [EVERYTHING, WHOLE, OTHER_WAYS, "identity_headers: remote\nroutes: [{ allow: anyone }]"] {
        let root = tree::parse(text, &mut Report::default()).unwrap();
        for wanted in 1.. {
            let mut root = root.clone();
            let Some(mut keys) = each(&mut root, &[], &mut 0, wanted) else { break };
            if keys.first().is_some_and(|key| key == "upstreams") {
                "*".clone_into(&mut keys[1]);
            }
            // below a key under which names are free, they are none of the schema
            while !known.contains(&keys.join(".")) {
                keys.pop();
            }
            let key = keys.join(".");
            let mut report = Report::default();
            told(&root, &mut report);
            let warnings = report.into_warnings("a.yaml", &Listing::of_tree(text, &root)).to_string();
            let is_access = ACCESS.contains(&key.as_str()) || key == "identity_headers";
            assert_eq!(warnings.contains("depends on this variable: "), is_access, "{key}: {warnings}");
            seen.insert(key);
        }
    }
    let unseen: Vec<_> = ACCESS.iter().filter(|key| !seen.contains(**key)).collect();
    assert_eq!(unseen, [&"store.users.role"], "no file has these");
}

#[test]
fn a_dollar_before_a_name_looks_like_a_variable() {
    for (text, expected) in [
        ("$ROLE", true),
        ("/v1/$TENANT/x", true),
        ("$(API_URL)", true),
        ("http://$HOST:$PORT", true),
        ("$A1", true),
        ("US$5", false),
        ("cost in $", false),
        ("$5", false),
        ("$A", false),
        ("$argon2id$v=19$m=1", false),
        ("pa$Word", false),
        ("$(a b)", false),
        ("^/a$", false),
        ("", false),
    ] {
        assert_eq!(names_a_variable(text), expected, "{text}");
    }
}
