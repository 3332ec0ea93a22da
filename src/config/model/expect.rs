//! The section `expect`: the rules' own tests.

use http::{Method, StatusCode};

use super::super::decode::{self, Section};
use super::super::report::Report;
use super::super::snapshot::{Expectation, ExpectedCaller};
use super::super::tree::{Node, Value};
use crate::principal::Scheme;

/// What the rules by themselves can answer; a passed request counts as 200, whatever the upstream will say.
pub const STATUSES: [u16; 6] = [200, 400, 401, 403, 404, 405];

/// What each key takes, for messages.
const REQUEST: &str = "a method and a URL, such as `GET /orders/7`";
const CALLER: &str = "`anyone` or a principal such as `{ roles: [user] }`";
const STATUS: &str = "200 for a request that passes, or 400, 401, 403, 404 or 405";

/// Reads one item.
pub(super) fn read(node: &Node, report: &mut Report) -> Option<Expectation> {
    let section = Section::open(node, "an expectation", &["request", "as", "is"], &[], report)?;
    let request = section.required("request", REQUEST, report, request);
    let caller = section.required("as", CALLER, report, caller);
    let status = section.required("is", STATUS, report, status);
    let (method, url) = request?;
    Some(Expectation { place: node.place, method, url, caller: caller?, status: status? })
}

/// A method and a URL, such as `GET /orders/7`.
fn request(node: &Node, report: &mut Report) -> Option<(Method, Box<str>)> {
    let text = decode::full_text(node, report)?;
    let parts = text.split_once(' ').filter(|(_, url)| !url.is_empty() && !url.contains(char::is_whitespace));
    let parsed = parts.and_then(|(method, url)| Some((Method::from_bytes(method.as_bytes()).ok()?, url.into())));
    if parsed.is_none() {
        let message = format!("{} is not a request", decode::shown_node(node));
        report.add_with_hint(node.place, message, format!("expected {REQUEST}"));
    }
    parsed
}

fn caller(node: &Node, report: &mut Report) -> Option<ExpectedCaller> {
    if decode::is_word(node, "anyone") {
        return Some(ExpectedCaller::Anyone);
    }
    if !matches!(node.value, Value::Map(_)) {
        report.add(node.place, format!("expected {CALLER}"));
        return None;
    }
    let section = Section::open(node, "`as`", &["roles", "scopes", "scheme"], &[], report)?;
    let roles = section.read("roles", report, |node, report| decode::list(node, report, super::auth::role));
    let scopes = section.read("scopes", report, |node, report| decode::list(node, report, super::auth::scope));
    let schemes = Scheme::ALL.map(|scheme| (scheme.name(), scheme));
    let scheme = section.read("scheme", report, decode::one_of(&schemes));
    Some(ExpectedCaller::Principal { roles: roles.unwrap_or_default(), scopes: scopes.unwrap_or_default(), scheme })
}

fn status(node: &Node, report: &mut Report) -> Option<StatusCode> {
    let status: u16 =
        decode::parsed(node, STATUS, report, |text| text.parse().map_err(|_| format!("no status; expected {STATUS}")))?;
    if !STATUSES.contains(&status) {
        let hint = format!("expected {STATUS}");
        report.add_with_hint(node.place, format!("the rules never answer {status}"), hint);
        return None;
    }
    StatusCode::from_u16(status).ok()
}
