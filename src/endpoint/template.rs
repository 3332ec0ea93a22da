//! Templates: the members of a reply, and further claims of a JWT, with placeholders such as `{access}`.
//!
//! Compiled once when a configuration is read, so that a misspelt placeholder is found then, and so that it is known which
//! tokens a reply names: what it does not name is not issued. `{{` and `}}` stand for the braces themselves.

use std::fmt;

use serde_json::{Map, Value};

use crate::principal::Principal;

/// The members of a reply (contract 5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    members: Vec<(Box<str>, Node)>,
    issues: What,
    /// As it was read; nothing of a default.
    written: Map<String, Value>,
}

/// Further claims of issued JWTs: the templates of a reply, without the tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claims {
    members: Vec<(Box<str>, Node)>,
}

/// The tokens that a reply names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct What {
    /// An access JWT.
    pub access: bool,
    /// A refresh token.
    pub refresh: bool,
    /// An opaque token.
    pub token: bool,
}

/// A text that is no template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateError {
    /// What stands between the braces; the whole text where they are unbalanced.
    pub placeholder: String,
    fault: Fault,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Unknown,
    Unbalanced,
    NoTokens,
}

/// What the placeholders stand for.
#[derive(Clone, Copy, Debug)]
pub struct Values<'a> {
    /// `{access}`
    pub access: Option<&'a str>,
    /// `{refresh}`
    pub refresh: Option<&'a str>,
    /// `{token}`
    pub token: Option<&'a str>,
    /// `{expires_in}`, in seconds.
    pub expires_in: u64,
    /// `{user}`, `{user_id}`, `{role}`, `{roles}`
    pub principal: Option<&'a Principal>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Node {
    /// Holds no placeholder anywhere.
    Constant(Value),
    /// One placeholder and nothing else: a number stays a number, a list a list.
    Whole(Placeholder),
    /// Written out.
    Text(Vec<Piece>),
    List(Vec<Node>),
    Object(Vec<(Box<str>, Node)>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Literal(Box<str>),
    Placeholder(Placeholder),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Placeholder {
    Access,
    Refresh,
    Token,
    ExpiresIn,
    User,
    UserId,
    Role,
    Roles,
}

impl Reply {
    /// The names that may stand between braces, for messages.
    pub const PLACEHOLDERS: [&'static str; 8] =
        ["access", "refresh", "token", "expires_in", "user", "user_id", "role", "roles"];

    /// Reads the members of a reply.
    ///
    /// # Errors
    /// A placeholder that nobody knows, or braces that do not match.
    pub fn compile(members: Map<String, Value>) -> Result<Self, TemplateError> {
        let written = members.clone();
        let members = compile_members(members)?;
        let mut issues = What::default();
        each_placeholder(&members, &mut |placeholder| match placeholder {
            Placeholder::Access => issues.access = true,
            Placeholder::Refresh => issues.refresh = true,
            Placeholder::Token => issues.token = true,
            Placeholder::ExpiresIn
            | Placeholder::User
            | Placeholder::UserId
            | Placeholder::Role
            | Placeholder::Roles => {}
        });
        Ok(Self { members, issues, written })
    }

    /// The members as they were read.
    pub fn written(&self) -> Value {
        self.written.clone().into()
    }

    /// The reply of `login`, `client_login` and `refresh` where none is configured.
    pub fn of_tokens() -> Self {
        let whole = |name: &str, placeholder| (name.into(), Node::Whole(placeholder));
        Self {
            members: vec![
                whole("access_token", Placeholder::Access),
                whole("refresh_token", Placeholder::Refresh),
                ("token_type".into(), Node::Constant("Bearer".into())),
                whole("expires_in", Placeholder::ExpiresIn),
            ],
            issues: What { access: true, refresh: true, token: false },
            written: Map::new(),
        }
    }

    /// A reply that says `message`.
    pub fn of_message(message: &str) -> Self {
        Self {
            members: vec![("message".into(), Node::Constant(message.into()))],
            issues: What::default(),
            written: Map::new(),
        }
    }

    /// A reply without members.
    pub fn of_nothing() -> Self {
        Self { members: Vec::new(), issues: What { access: false, refresh: false, token: false }, written: Map::new() }
    }

    /// The tokens that it names.
    pub const fn issues(&self) -> What {
        self.issues
    }

    /// The reply with its values.
    pub fn render(&self, values: &Values<'_>) -> Map<String, Value> {
        render_members(&self.members, values)
    }
}

impl Claims {
    /// Reads further claims.
    ///
    /// # Errors
    /// As [`Reply::compile`], and a placeholder for a token: a token is not part of another.
    pub fn compile(members: Map<String, Value>) -> Result<Self, TemplateError> {
        let reply = Reply::compile(members)?;
        for (named, placeholder) in
            [(reply.issues.access, "access"), (reply.issues.refresh, "refresh"), (reply.issues.token, "token")]
        {
            if named {
                return Err(TemplateError { placeholder: placeholder.to_owned(), fault: Fault::NoTokens });
            }
        }
        Ok(Self { members: reply.members })
    }

    /// Whether it sets the claim of this name.
    pub fn sets(&self, claim: &str) -> bool {
        self.members.iter().any(|(name, _)| **name == *claim)
    }

    /// The claims of a JWT for `principal` that lives for `expires_in` seconds.
    pub fn render(&self, principal: &Principal, expires_in: u64) -> Map<String, Value> {
        let values = Values { access: None, refresh: None, token: None, expires_in, principal: Some(principal) };
        render_members(&self.members, &values)
    }
}

impl What {
    /// Whether it names any.
    pub const fn any(self) -> bool {
        self.access || self.refresh || self.token
    }
}

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.fault {
            Fault::Unknown => write!(f, "unknown placeholder `{{{}}}`", self.placeholder),
            Fault::Unbalanced => {
                write!(f, "unbalanced brace in `{}`; a brace itself is written twice", self.placeholder)
            }
            Fault::NoTokens => write!(f, "`{{{}}}` can stand in a reply only", self.placeholder),
        }
    }
}

impl std::error::Error for TemplateError {}

fn compile_members(members: Map<String, Value>) -> Result<Vec<(Box<str>, Node)>, TemplateError> {
    members.into_iter().map(|(name, value)| Ok((name.into(), compile(value)?))).collect()
}

fn compile(value: Value) -> Result<Node, TemplateError> {
    Ok(match value {
        Value::String(text) => compile_text(&text)?,
        Value::Array(items) => Node::List(items.into_iter().map(compile).collect::<Result<_, _>>()?),
        Value::Object(members) => Node::Object(compile_members(members)?),
        constant @ (Value::Null | Value::Bool(_) | Value::Number(_)) => Node::Constant(constant),
    })
}

fn compile_text(text: &str) -> Result<Node, TemplateError> {
    let unbalanced = || TemplateError { placeholder: text.to_owned(), fault: Fault::Unbalanced };
    let (mut pieces, mut literal, mut rest) = (Vec::new(), String::new(), text);
    while let Some((before, brace, after)) = split_at_brace(rest) {
        literal.push_str(before);
        if let Some(after) = after.strip_prefix(brace) {
            literal.push(brace);
            rest = after;
            continue;
        }
        if brace == '}' {
            return Err(unbalanced());
        }
        let (name, after) = after.split_once('}').ok_or_else(unbalanced)?;
        if !literal.is_empty() {
            pieces.push(Piece::Literal(std::mem::take(&mut literal).into()));
        }
        pieces.push(Piece::Placeholder(Placeholder::from_name(name)?));
        rest = after;
    }
    literal.push_str(rest);
    Ok(match pieces.as_slice() {
        [] => Node::Constant(literal.into()),
        [Piece::Placeholder(placeholder)] if literal.is_empty() => Node::Whole(*placeholder),
        [..] => {
            if !literal.is_empty() {
                pieces.push(Piece::Literal(literal.into()));
            }
            Node::Text(pieces)
        }
    })
}

/// What stands before the first brace, the brace, and what follows.
fn split_at_brace(text: &str) -> Option<(&str, char, &str)> {
    let at = text.find(['{', '}'])?;
    let (before, from) = text.split_at_checked(at)?;
    let mut chars = from.chars();
    let brace = chars.next()?;
    Some((before, brace, chars.as_str()))
}

fn each_placeholder(members: &[(Box<str>, Node)], visit: &mut impl FnMut(Placeholder)) {
    fn node(of: &Node, visit: &mut impl FnMut(Placeholder)) {
        match of {
            Node::Constant(_) => {}
            Node::Whole(placeholder) => visit(*placeholder),
            Node::Text(pieces) => pieces.iter().for_each(|piece| match piece {
                Piece::Literal(_) => {}
                Piece::Placeholder(placeholder) => visit(*placeholder),
            }),
            Node::List(items) => items.iter().for_each(|item| node(item, visit)),
            Node::Object(members) => members.iter().for_each(|(_, member)| node(member, visit)),
        }
    }
    for (_, member) in members {
        node(member, visit);
    }
}

fn render_members(members: &[(Box<str>, Node)], values: &Values<'_>) -> Map<String, Value> {
    members.iter().map(|(name, node)| (name.to_string(), render(node, values))).collect()
}

fn render(node: &Node, values: &Values<'_>) -> Value {
    match node {
        Node::Constant(constant) => constant.clone(),
        Node::Whole(placeholder) => placeholder.value(values),
        Node::Text(pieces) => pieces.iter().map(|piece| written(piece, values)).collect::<String>().into(),
        Node::List(items) => items.iter().map(|item| render(item, values)).collect(),
        Node::Object(members) => Value::Object(render_members(members, values)),
    }
}

/// A piece as part of a longer text; a list is comma separated, as roles are in identity headers.
fn written(piece: &Piece, values: &Values<'_>) -> String {
    let value = match piece {
        Piece::Literal(literal) => return literal.to_string(),
        Piece::Placeholder(placeholder) => placeholder.value(values),
    };
    match value {
        Value::Null => String::new(),
        Value::String(text) => text,
        Value::Array(items) => items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(","),
        other @ (Value::Bool(_) | Value::Number(_) | Value::Object(_)) => other.to_string(),
    }
}

impl Placeholder {
    fn from_name(name: &str) -> Result<Self, TemplateError> {
        Ok(match name {
            "access" => Self::Access,
            "refresh" => Self::Refresh,
            "token" => Self::Token,
            "expires_in" => Self::ExpiresIn,
            "user" => Self::User,
            "user_id" => Self::UserId,
            "role" => Self::Role,
            "roles" => Self::Roles,
            unknown => return Err(TemplateError { placeholder: unknown.to_owned(), fault: Fault::Unknown }),
        })
    }

    /// What it stands for; null where there is no such thing, such as the role of a principal without any.
    fn value(self, values: &Values<'_>) -> Value {
        let of = |part: fn(&Principal) -> Value| values.principal.map_or(Value::Null, part);
        match self {
            Self::Access => values.access.into(),
            Self::Refresh => values.refresh.into(),
            Self::Token => values.token.into(),
            Self::ExpiresIn => values.expires_in.into(),
            Self::User => of(|principal| (&*principal.subject.name).into()),
            Self::UserId => of(|principal| principal.user_id.as_deref().into()),
            Self::Role => of(|principal| principal.roles.first().map(crate::principal::Role::as_str).into()),
            Self::Roles => of(|principal| principal.roles.iter().map(crate::principal::Role::as_str).collect()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::principal::{Role, Subject};

    fn members(value: &Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    fn ann() -> Principal {
        Principal {
            subject: Subject::user("ann"),
            user_id: Some("7".into()),
            roles: [Role::from("admin"), Role::from("user")].into(),
            scopes: [].into(),
        }
    }

    #[test]
    fn placeholders_are_replaced() {
        let ann = ann();
        let values =
            Values { access: Some("A"), refresh: Some("R"), token: Some("T"), expires_in: 900, principal: Some(&ann) };
        for (name, template, expected) in [
            ("a token", json!("{access}"), json!("A")),
            ("a token within a text", json!("Token {token}"), json!("Token T")),
            ("two in one text", json!("{user}:{refresh}"), json!("ann:R")),
            ("a number alone is a number", json!("{expires_in}"), json!(900)),
            ("a number within a text is written out", json!("{expires_in}s"), json!("900s")),
            ("a list alone is a list", json!("{roles}"), json!(["admin", "user"])),
            ("a list within a text is written out", json!("roles={roles}"), json!("roles=admin,user")),
            ("the first role", json!("{role}"), json!("admin")),
            ("the id is a text", json!("{user_id}"), json!("7")),
            ("constants stay", json!([1, true, null, "x"]), json!([1, true, null, "x"])),
            ("below objects and lists", json!({"a": [{"b": "{user}"}]}), json!({"a": [{"b": "ann"}]})),
            ("a doubled brace is a brace", json!("{{user}} {user} }}{{"), json!("{user} ann }{")),
            ("a brace around a value", json!("{{{user}}}"), json!("{ann}")),
            ("an empty text", json!(""), json!("")),
        ] {
            let reply = Reply::compile(members(&json!({"m": template}))).unwrap();
            assert_eq!(reply.render(&values)["m"], expected, "{name}");
        }
    }

    #[test]
    fn what_there_is_not_is_null_alone_and_empty_in_a_text() {
        let nobody = Values { access: None, refresh: None, token: None, expires_in: 0, principal: None };
        let reply = Reply::compile(members(&json!({"role": "{role}", "text": "[{role}]"}))).unwrap();
        assert_eq!(Value::Object(reply.render(&nobody)), json!({"role": null, "text": "[]"}));
    }

    #[test]
    fn a_text_that_is_no_template_is_refused_by_name() {
        for (text, placeholder, message) in [
            ("{acess}", "acess", "unknown placeholder `{acess}`"),
            ("{ access}", " access", "unknown placeholder `{ access}`"),
            ("{Access}", "Access", "unknown placeholder `{Access}`"),
            ("{}", "", "unknown placeholder `{}`"),
            ("a{user", "a{user", "unbalanced brace in `a{user`; a brace itself is written twice"),
            ("a}b", "a}b", "unbalanced brace in `a}b`; a brace itself is written twice"),
            ("{{user}", "{{user}", "unbalanced brace in `{{user}`; a brace itself is written twice"),
        ] {
            let error = Reply::compile(members(&json!({"m": [{"x": text}]}))).unwrap_err();
            assert_eq!((error.placeholder.as_str(), error.to_string().as_str()), (placeholder, message), "{text}");
        }
    }

    #[test]
    fn what_a_reply_does_not_name_is_not_issued() {
        for (reply, access, refresh, token) in [
            (json!({"t": "Bearer {access}"}), true, false, false),
            (json!({"a": {"b": ["{refresh}"]}}), false, true, false),
            (json!({"t": "{token}", "e": "{expires_in}"}), false, false, true),
            (json!({"t": "{{access}}", "access": 1, "u": "{user}"}), false, false, false),
        ] {
            let issues = Reply::compile(members(&reply)).unwrap().issues();
            assert_eq!(issues, What { access, refresh, token });
        }
        let compiled = Reply::compile(members(&json!({"access_token": "{access}", "refresh_token": "{refresh}",
            "token_type": "Bearer", "expires_in": "{expires_in}"})));
        let (compiled, default) = (compiled.unwrap(), Reply::of_tokens());
        assert_eq!((compiled.members, compiled.issues), (default.members, default.issues));
    }

    #[test]
    fn claims_hold_no_tokens() {
        for (claims, refused) in [
            (json!({"user_id": "{user_id}", "sub": {"username": "{user}", "role": "{role}"}}), None),
            (json!({"a": "{access}"}), Some("access")),
            (json!({"a": ["x{refresh}"]}), Some("refresh")),
            (json!({"a": {"b": "{token}"}}), Some("token")),
        ] {
            let compiled = Claims::compile(members(&claims));
            assert_eq!(compiled.err().map(|error| error.placeholder).as_deref(), refused);
        }
        let claims = Claims::compile(members(&json!({"sub": {"username": "{user}"}}))).unwrap();
        assert!(claims.sets("sub") && !claims.sets("username"));
        assert_eq!(Value::Object(claims.render(&ann(), 1)), json!({"sub": {"username": "ann"}}));
    }
}
