//! What refusals say: the section `errors`, for all or for one endpoint.
//!
//! A message is a text, or a mapping of members with `{field}` and `{method}` in them, for clients that read another API's
//! bodies. The most exact key counts: `code.scheme.reason`, `code.reason`, `code.scheme`, `code`.

use std::borrow::Cow;
use std::collections::HashMap;

use serde_json::{Map, Value};

use crate::principal::Scheme;
use crate::template::{self, Fault, Members, Names, TemplateError};

/// The members that every error has (contract 4, RFC 9457 3.1): none can be replaced.
pub const OWN_MEMBERS: [&str; 6] = ["error", "request_id", "type", "title", "status", "error_description"];

/// The texts of refusals.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Texts {
    /// The name of the member that bears the message.
    pub member: Box<str>,
    /// Messages by code, or more exactly.
    pub messages: HashMap<Box<str>, Message>,
    /// Whether `error_description` is sent beside (RFC 6749 5.2).
    pub oauth: bool,
}

/// What a refusal says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// The value of [`Texts::member`].
    Text(Box<str>),
    /// Members in the place of it; as they are read, and as they were written.
    Members(Members<Blank>, Map<String, Value>),
}

/// What may stand between braces in the members of a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blank {
    /// `{field}`: the request member that is wrong.
    Field,
    /// `{method}`: the request's.
    Method,
}

/// What is said to one caller.
#[derive(Debug)]
pub(super) struct Told<'a> {
    /// In one text, for the challenge and for gRPC.
    pub(super) message: Cow<'a, str>,
    /// The members that say it; none where the message alone does.
    pub(super) members: Map<String, Value>,
}

/// A refusal as it is looked up: why, in the words of the keys, and which request member it is about.
#[derive(Debug)]
pub(super) struct Cause<'a> {
    pub(super) reason: Option<&'static str>,
    pub(super) field: &'a str,
}

impl template::Placeholder for Blank {
    const ALL: &'static [(&'static str, Self)] = &[("field", Self::Field), ("method", Self::Method)];
}

impl Default for Texts {
    fn default() -> Self {
        Self { member: "message".into(), messages: HashMap::new(), oauth: false }
    }
}

impl Message {
    /// Reads members; `code` says of which refusals.
    ///
    /// # Errors
    /// A text that is no template, or a `{field}` where a refusal is about none.
    pub fn members(code: &str, members: Map<String, Value>) -> Result<Self, TemplateError> {
        let written = members.clone();
        let members = template::compile(members, Names::Templates)?;
        let mut misplaced = false;
        template::each_placeholder(&members, &mut |blank| {
            misplaced |= *blank == Blank::Field && code.split('.').next() != Some("invalid_request");
        });
        if misplaced {
            return Err(TemplateError { placeholder: "field".to_owned(), fault: Fault::OnlyIn("`invalid_request`") });
        }
        Ok(Self::Members(members, written))
    }

    /// As it stands in the file; members as JSON.
    pub fn written(&self) -> String {
        match self {
            Self::Text(text) => text.to_string(),
            Self::Members(_, written) => Value::Object(written.clone()).to_string(),
        }
    }
}

impl Texts {
    /// What a refusal says: of several causes the members of all, of the first where two say the same.
    pub(super) fn tell<'a>(
        &'a self,
        code: &str,
        scheme: Option<Scheme>,
        causes: &[Cause<'_>],
        (default, method): (&'a str, &str),
    ) -> Told<'a> {
        let mut members = Map::new();
        let mut message = None;
        for cause in causes {
            match self.find(code, scheme, cause.reason) {
                Some(Message::Text(text)) => {
                    message.get_or_insert(&**text);
                }
                Some(Message::Members(template, _)) => {
                    let value = |blank: &Blank| match blank {
                        Blank::Field => cause.field.into(),
                        Blank::Method => method.into(),
                    };
                    merge(&mut members, template::render(template, &value));
                }
                None => {}
            }
        }
        if members.is_empty() {
            return Told { message: Cow::Borrowed(message.unwrap_or(default)), members };
        }
        if let Some(text) = message {
            members.entry(&*self.member).or_insert(text.into());
        }
        let message = members.get(&*self.member).and_then(Value::as_str).unwrap_or(default).to_owned();
        Told { message: Cow::Owned(message), members }
    }

    fn find(&self, code: &str, scheme: Option<Scheme>, reason: Option<&str>) -> Option<&Message> {
        let of = |key: &str| self.messages.get(key);
        let scheme = scheme.map(Scheme::name);
        scheme
            .zip(reason)
            .and_then(|(scheme, reason)| of(&format!("{code}.{scheme}.{reason}")))
            .or_else(|| reason.and_then(|reason| of(&format!("{code}.{reason}"))))
            .or_else(|| scheme.and_then(|scheme| of(&format!("{code}.{scheme}"))))
            .or_else(|| of(code))
    }
}

/// Adds what is not there yet, within objects too.
fn merge(into: &mut Map<String, Value>, more: Map<String, Value>) {
    for (name, value) in more {
        match (into.get_mut(&name), value) {
            (Some(Value::Object(known)), Value::Object(value)) => merge(known, value),
            (Some(_), _) => {}
            (None, value) => drop(into.insert(name, value)),
        }
    }
}
