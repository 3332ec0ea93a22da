//! What the body of a refusal says.

use bytes::Bytes;
use serde_json::{Map, Value};

use super::texts::{OWN_MEMBERS, Told};
use super::{Audience, Row};
use crate::wire::challenge::is_plain;

/// As `application/json`.
pub(super) fn json(row: &Row, told: &Told<'_>, audience: &Audience<'_>) -> Bytes {
    if told.members.is_empty() {
        return json_of_text(row, told, audience);
    }
    let mut members = Map::new();
    members.insert("error".into(), row.code.into());
    if audience.texts.oauth {
        members.insert("error_description".into(), (*told.message).into());
    }
    members.extend(told.members.clone());
    members.insert("request_id".into(), audience.request_id.into());
    Value::Object(members).to_string().into()
}

/// The same where a message is all that is said, as it nearly always is: written at once, since whoever sends bad
/// credentials in masses should not cost more than those who send good ones.
fn json_of_text(row: &Row, told: &Told<'_>, audience: &Audience<'_>) -> Bytes {
    let member = &*audience.texts.member;
    let description = audience.texts.oauth.then_some(("error_description", &*told.message));
    let members = [("error", row.code)].into_iter().chain(description);
    let members = members.chain([(member, &*told.message), ("request_id", audience.request_id)]);
    let mut text = Vec::with_capacity(96 + row.code.len() + 2 * told.message.len() + audience.request_id.len());
    for (name, value) in members {
        text.push(if text.is_empty() { b'{' } else { b',' });
        push_json(&mut text, name);
        text.push(b':');
        push_json(&mut text, value);
    }
    text.push(b'}');
    text.into()
}

fn push_json(to: &mut Vec<u8>, text: &str) {
    if is_plain(text) {
        to.push(b'"');
        to.extend_from_slice(text.as_bytes());
        to.push(b'"');
    } else {
        serde_json::to_writer(to, text).expect("a text is written to memory");
    }
}

/// As `application/problem+json` (RFC 9457).
pub(super) fn problem(row: &Row, told: &Told<'_>, audience: &Audience<'_>) -> Bytes {
    let mut members = Map::new();
    members.insert("type".into(), "about:blank".into());
    members.insert("title".into(), row.status.canonical_reason().unwrap_or_default().into());
    members.insert("status".into(), row.status.as_u16().into());
    members.insert("detail".into(), (*told.message).into());
    members.insert("error".into(), row.code.into());
    if told.members.is_empty() && *audience.texts.member != *"detail" {
        members.insert((*audience.texts.member).into(), (*told.message).into());
    }
    let further = told.members.iter().filter(|(name, _)| *name != "detail" && !OWN_MEMBERS.contains(&name.as_str()));
    members.extend(further.map(|(name, value)| (name.clone(), value.clone())));
    members.insert("request_id".into(), audience.request_id.into());
    Value::Object(members).to_string().into()
}
