//! The section `endpoints`, and the standard ones of contract 5.1.

use http::StatusCode;
use serde_json::{Map, Value};

use super::super::decode::{self, Placed, Section};
use super::super::report::{Place, Report, alternatives};
use super::super::tree::Node;
use super::settings;
use crate::endpoint::{Action, Ends, Incomplete, Source};
use crate::rejection::Texts;

/// One of `endpoints`.
#[derive(Debug)]
pub struct Endpoint {
    /// `path`.
    pub path: Placed<Box<str>>,
    /// `action`.
    pub action: Option<Action>,
    /// `fields`: standard name to the name in use.
    pub fields: Vec<(Box<str>, Box<str>)>,
    /// `reply`.
    pub reply: Option<Map<String, Value>>,
    /// Where each member of `reply` stands.
    pub reply_places: Vec<Placed<Box<str>>>,
    /// `status`.
    pub status: Option<StatusCode>,
    /// `errors`, over the section `errors`.
    pub errors: Option<Node>,
    /// `password_grant`.
    pub password_grant: bool,
    /// `from`.
    pub from: Source,
    /// `incomplete`.
    pub incomplete: Incomplete,
    /// `ends`.
    pub ends: Ends,
}

/// The actions by their names in the file.
pub const ACTIONS: [(&str, Action); 12] = [
    ("login", Action::Login),
    ("client_login", Action::ClientLogin),
    ("refresh", Action::Refresh),
    ("oauth_token", Action::OauthToken),
    ("revoke", Action::Revoke),
    ("introspect", Action::Introspect),
    ("register", Action::Register),
    ("change_password", Action::ChangePassword),
    ("jwks", Action::Jwks),
    ("metadata", Action::Metadata),
    ("openapi", Action::Openapi),
    ("docs", Action::Docs),
];

/// The name of an action in the file.
pub fn action_name(action: Action) -> &'static str {
    ACTIONS.iter().find(|(_, known)| *known == action).map_or("", |(name, _)| name)
}

const KEYS: &[&str] =
    &["path", "action", "fields", "reply", "status", "errors", "password_grant", "from", "incomplete", "ends"];

/// Keys that only some actions have.
const OF_ACTIONS: [(&str, &[Action]); 4] = [
    ("password_grant", &[Action::OauthToken]),
    ("from", &[Action::Login, Action::ClientLogin, Action::Refresh, Action::Revoke]),
    ("incomplete", &[Action::Login, Action::ClientLogin, Action::Refresh]),
    ("ends", &[Action::Revoke]),
];

/// The words of `from`; without it both places count.
pub const SOURCES: [(&str, Source); 2] = [("members", Source::Members), ("authorization", Source::Authorization)];

/// The words of `incomplete`.
pub const INCOMPLETE: [(&str, Incomplete); 2] =
    [("member", Incomplete::Member), ("credentials", Incomplete::Credentials)];

/// The words of `ends`.
pub const ENDS: [(&str, Ends); 2] = [("family", Ends::Family), ("refresh", Ends::Refresh)];

impl Endpoint {
    /// Reads one item. An action that is none is reported and left open.
    pub fn read(node: &Node, report: &mut Report) -> Option<Self> {
        let section = Section::open(node, "an endpoint", KEYS, &[], report)?;
        let path = section.required("path", "an exact path such as `/auth/login`", report, path);
        let actions = alternatives(&ACTIONS.map(|(name, _)| name));
        let action = section.required("action", &actions, report, decode::one_of(&ACTIONS));
        let fields = match (section.node("fields"), action) {
            (Some(node), Some(action)) => fields(node, action, report),
            (Some(_) | None, _) => Vec::new(),
        };
        let reply = section.read("reply", report, decode::json_map);
        let reply_places = section.node("reply").map(decode::key_places).unwrap_or_default();
        if let (Some(node), Some(action)) = (section.node("reply"), action) {
            forbid_reply(action, node.place, report);
        }
        let status = section.read("status", report, decode::whole::<u16>(200, 299));
        let errors = section.node("errors");
        if let Some(node) = errors {
            settings::texts(Some(node), &Texts::default(), report);
        }
        let password_grant = section.read("password_grant", report, decode::boolean).unwrap_or_default();
        for (key, actions) in OF_ACTIONS {
            if let (Some(node), Some(action)) = (section.node(key), action)
                && !actions.contains(&action)
            {
                let names: Vec<_> = actions.iter().map(|action| action_name(*action)).collect();
                report.add(node.place, format!("`{key}` belongs to `action: {}`", names.join("`, `")));
            }
        }
        Some(Self {
            path: path?,
            action,
            fields,
            reply,
            reply_places,
            status: status.and_then(|status| StatusCode::from_u16(status).ok()),
            errors: errors.cloned(),
            password_grant,
            from: section.read("from", report, decode::one_of(&SOURCES)).unwrap_or(Source::Either),
            incomplete: section.read("incomplete", report, decode::one_of(&INCOMPLETE)).unwrap_or(Incomplete::Standard),
            ends: section.read("ends", report, decode::one_of(&ENDS)).unwrap_or(Ends::Family),
        })
    }
}

/// An exact path in its one spelling, so that it is found by comparing bytes.
fn path(node: &Node, report: &mut Report) -> Option<Placed<Box<str>>> {
    let path = decode::placed_text(node, report)?;
    // a last slash is part of the path, as frameworks write it
    let segments = path.value.strip_prefix('/').map(|rest| rest.strip_suffix('/').unwrap_or(rest).split('/'));
    let is_exact = segments.is_some_and(|mut segments| {
        // what is a wildcard in a route would be read as one
        segments.all(|segment| !matches!(segment, "" | "." | ".." | "*" | "**") && segment.bytes().all(is_plain))
    });
    if !is_exact {
        let message = format!("{} is not the path of an endpoint", decode::shown_node(node));
        report.add_with_hint(path.place, message, "expected an exact path without escapes, such as `/auth/login`");
        return None;
    }
    Some(path)
}

/// A byte that stands for itself in a path (RFC 3986 3.3), `;` not included.
const fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')')
        || matches!(byte, b'*' | b'+' | b',' | b'=' | b':' | b'@')
}

/// The members whose names may be chosen; those of RFC 6749 and 7662 may not.
const fn members(action: Action) -> &'static [&'static str] {
    match action {
        Action::Login | Action::Register => &["username", "password"],
        Action::ClientLogin => &["client_id", "client_secret"],
        Action::Refresh => &["refresh_token"],
        Action::Revoke => &["token"],
        Action::ChangePassword => &["password", "new_password"],
        Action::OauthToken | Action::Introspect | Action::Jwks | Action::Metadata | Action::Openapi | Action::Docs => {
            &[]
        }
    }
}

fn fields(node: &Node, action: Action, report: &mut Report) -> Vec<(Box<str>, Box<str>)> {
    let mut fields: Vec<(Box<str>, Box<str>)> = Vec::new();
    let members = members(action);
    for (standard, name) in decode::entries(node, report) {
        if members.is_empty() {
            report.add(standard.place, "the members of this action are fixed");
        } else if !members.contains(&standard.value) {
            report.unknown(standard.place, "request member", standard.value, members.iter().copied());
        }
        let Some(chosen) = decode::full_text(name, report) else { continue };
        if fields.iter().any(|(_, taken)| **taken == *chosen) {
            report.add(name.place, "two members have the same name");
        }
        fields.push((standard.value.into(), chosen.into()));
    }
    fields
}

fn forbid_reply(action: Action, place: Place, report: &mut Report) {
    match action {
        Action::Login
        | Action::ClientLogin
        | Action::Refresh
        | Action::OauthToken
        | Action::Register
        | Action::ChangePassword
        | Action::Revoke => {}
        Action::Introspect | Action::Jwks | Action::Metadata | Action::Openapi | Action::Docs => {
            report.add(place, "the reply of this action is fixed");
        }
    }
}

/// The standard endpoints: path and action.
pub const STANDARD: [(&str, Action); 12] = [
    ("/oauth/token", Action::OauthToken),
    ("/oauth/revoke", Action::Revoke),
    ("/oauth/introspect", Action::Introspect),
    ("/auth/login", Action::Login),
    ("/auth/refresh", Action::Refresh),
    ("/auth/logout", Action::Revoke),
    (OPAQUE_LOGIN, Action::Login),
    ("/auth/change-password", Action::ChangePassword),
    ("/.well-known/jwks.json", Action::Jwks),
    ("/.well-known/oauth-authorization-server", Action::Metadata),
    ("/auth/openapi.json", Action::Openapi),
    ("/auth/docs", Action::Docs),
];

/// The standard endpoint that replies with an opaque token.
pub const OPAQUE_LOGIN: &str = "/auth/token";

/// Its reply.
pub fn opaque_reply() -> Map<String, Value> {
    [("token", "{token}"), ("expires_in", "{expires_in}")]
        .map(|(member, template)| (member.to_owned(), template.into()))
        .into_iter()
        .collect()
}
