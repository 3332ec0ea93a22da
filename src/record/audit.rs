//! What happened to accounts and credentials, one JSON line an event: logins, failures, tokens, changes.
//!
//! Names who, from where and by which request; never a password, a secret, a token or a digest.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Map, Value};

use super::lines::Lines;
use crate::clock::Clock;
use crate::principal::Subject;
use crate::wire::opaque;

/// Events whose subject is whom a caller claims to be, be it the truth or not.
const CLAIMS: [&str; 2] = ["login_failed", "locked_out"];

/// Something that happened.
#[derive(Clone, Copy, Debug)]
pub struct Event<'a> {
    /// What: `login`, `login_failed`, `token_issued`, …
    pub kind: &'static str,
    /// To whom, as far as that is known; for a failure, whom the caller claimed to be.
    pub subject: Option<&'a Subject>,
    /// The caller's address; `None` for what an operator did.
    pub address: Option<IpAddr>,
    /// The request, or the command; empty where there is none.
    pub request_id: &'a str,
    /// Further members, such as the reason of a failure.
    pub details: &'a [(&'static str, &'a str)],
}

impl Event<'_> {
    /// The line that tells of it, for a gateway to tell: see [`Audit::pass_on`].
    pub fn written(&self, clock: &Clock) -> String {
        line(&humantime::format_rfc3339_millis(clock.wall()).to_string(), self).to_string()
    }
}

/// The audit log.
#[derive(Debug)]
pub struct Audit {
    lines: Option<Lines>,
    on: AtomicBool,
    clock: Clock,
}

impl Audit {
    /// An audit log that goes to `lines`.
    pub const fn new(lines: Lines, clock: Clock) -> Self {
        Self { lines: Some(lines), on: AtomicBool::new(true), clock }
    }

    /// One that goes nowhere.
    pub fn disabled() -> Self {
        Self { lines: None, on: AtomicBool::new(false), clock: Clock::system() }
    }

    /// Turns it on or off, as a reload may.
    pub fn switch(&self, on: bool) {
        self.on.store(on, Ordering::Relaxed);
    }

    /// Tells of an event.
    pub fn event(&self, event: &Event<'_>) {
        if let (Some(lines), true) = (&self.lines, self.on.load(Ordering::Relaxed)) {
            let time = humantime::format_rfc3339_millis(self.clock.wall()).to_string();
            lines.line(line(&time, event).to_string().into_bytes());
        }
    }

    /// Tells of what a command has done, as it has written it. What is no JSON object is not told.
    pub fn pass_on(&self, written: &str) {
        if let (Some(lines), true, Ok(event)) =
            (&self.lines, self.on.load(Ordering::Relaxed), serde_json::from_str::<Map<_, _>>(written))
        {
            lines.line(Value::Object(event).to_string().into_bytes());
        }
    }
}

/// Written by a serializer, so that no name can break out of its member. Events are rare beside requests.
fn line(time: &str, event: &Event<'_>) -> Value {
    let mut members = Map::new();
    members.insert("time".into(), time.into());
    members.insert("audit".into(), event.kind.into());
    if let Some(subject) = event.subject {
        members.insert("kind".into(), subject.kind.name().into());
        // many a client sends its token where a name belongs; an account that is one is told, whatever it is called
        if !(CLAIMS.contains(&event.kind) && opaque::looks_like_token(&subject.name)) {
            members.insert("subject".into(), (&*subject.name).into());
        }
    }
    if let Some(address) = event.address {
        members.insert("address".into(), address.to_string().into());
    }
    if !event.request_id.is_empty() {
        members.insert("request_id".into(), event.request_id.into());
    }
    members.extend(event.details.iter().map(|(name, text)| ((*name).to_owned(), Value::from(*text))));
    Value::Object(members)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_in_place_of_a_name_is_not_told() {
        let opaque = opaque::mint(opaque::OpaqueKind::Token).unwrap();
        for (name, told) in [
            ("ann", true),
            ("pct", true),
            ("a.b.c", true),
            (opaque.expose(), false),
            ("pcr_short", false),
            ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJl", false),
            ("eyJhbGciOiJIUzI1NiJ9", false),
        ] {
            let subject = Subject::user(name);
            for (kind, told) in [("login_failed", told), ("locked_out", told), ("login", true), ("token_issued", true)]
            {
                let event = Event { kind, subject: Some(&subject), address: None, request_id: "", details: &[] };
                let line = line("", &event);
                assert_eq!(line.get("subject").is_some(), told, "{kind} {name}");
                assert_eq!(line["kind"], "user", "{kind} {name}");
            }
        }
    }

    #[test]
    fn a_line_is_json_whatever_the_name() {
        let subject = Subject::user("a\n\"}{");
        let event = Event {
            kind: "login_failed",
            subject: Some(&subject),
            address: Some("::1".parse().unwrap()),
            request_id: "r1",
            details: &[("reason", "wrong_password")],
        };
        let line = line("2026-01-01T00:00:00Z", &event).to_string();
        assert!(!line.contains('\n'));
        let read: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(read["subject"], "a\n\"}{");
        assert_eq!((&read["audit"], &read["reason"]), (&"login_failed".into(), &"wrong_password".into()));
    }
}
