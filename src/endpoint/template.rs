//! The templates of replies, and of further claims of a JWT, with placeholders such as `{access}`.
//!
//! It is known from them which tokens a reply names: what it does not name is not issued.

use serde_json::{Map, Value};

use super::issue::scope_text;
use crate::principal::{Principal, Role};
use crate::template::{self, Fault, Members, Names, Node, TemplateError, Text};

/// The members of a reply (contract 5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    members: Members<Placeholder>,
    issues: What,
    /// As it was read; nothing of a default.
    written: Map<String, Value>,
}

/// Further claims of issued JWTs: the templates of a reply, without the tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claims {
    members: Members<Placeholder>,
    /// As they were read.
    written: Map<String, Value>,
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
    /// `{user}`, `{user_id}`, `{role}`, `{roles}`, and `{scope}` where nothing else is said of it
    pub principal: Option<&'a Principal>,
    /// `{scope}`
    pub scope: Option<&'a str>,
}

/// What may stand between braces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placeholder {
    /// `{access}`
    Access,
    /// `{refresh}`
    Refresh,
    /// `{token}`
    Token,
    /// `{expires_in}`
    ExpiresIn,
    /// `{user}`
    User,
    /// `{user_id}`
    UserId,
    /// `{role}`
    Role,
    /// `{roles}`
    Roles,
    /// `{scope}`
    Scope,
}

impl Reply {
    /// The names that may stand between braces, for messages.
    pub const PLACEHOLDERS: [&'static str; 9] =
        ["access", "refresh", "token", "expires_in", "user", "user_id", "role", "roles", "scope"];

    /// Reads the members of a reply.
    ///
    /// # Errors
    /// A placeholder that nobody knows, or braces that do not match.
    pub fn compile(members: Map<String, Value>) -> Result<Self, TemplateError> {
        let written = members.clone();
        let members = template::compile(members, Names::Verbatim)?;
        let mut issues = What::default();
        template::each_placeholder(&members, &mut |placeholder| match placeholder {
            Placeholder::Access => issues.access = true,
            Placeholder::Refresh => issues.refresh = true,
            Placeholder::Token => issues.token = true,
            Placeholder::ExpiresIn
            | Placeholder::User
            | Placeholder::UserId
            | Placeholder::Role
            | Placeholder::Roles
            | Placeholder::Scope => {}
        });
        Ok(Self { members, issues, written })
    }

    /// The members as they were read.
    pub fn written(&self) -> Value {
        self.written.clone().into()
    }

    /// The reply of `login`, `client_login` and `refresh` where none is configured.
    pub fn of_tokens() -> Self {
        let whole = |name: &str, placeholder| (Text::verbatim(name), Node::Whole(placeholder));
        Self {
            members: vec![
                whole("access_token", Placeholder::Access),
                whole("refresh_token", Placeholder::Refresh),
                (Text::verbatim("token_type"), Node::Constant("Bearer".into())),
                whole("expires_in", Placeholder::ExpiresIn),
            ],
            issues: What { access: true, refresh: true, token: false },
            written: Map::new(),
        }
    }

    /// A reply that says `message`.
    pub fn of_message(message: &str) -> Self {
        let members = vec![(Text::verbatim("message"), Node::Constant(message.into()))];
        Self { members, issues: What::default(), written: Map::new() }
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
        template::render(&self.members, &|placeholder: &Placeholder| placeholder.value(values))
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
                let fault = Fault::OnlyIn("a reply");
                return Err(TemplateError { placeholder: placeholder.to_owned(), fault });
            }
        }
        Ok(Self { members: reply.members, written: reply.written })
    }

    /// The claims as they were read.
    pub fn written(&self) -> Value {
        self.written.clone().into()
    }

    /// Whether it sets the claim of this name.
    pub fn sets(&self, claim: &str) -> bool {
        self.members.iter().any(|(name, _)| name.literal() == Some(claim))
    }

    /// The claims of a JWT for `principal` that lives for `expires_in` seconds.
    pub fn render(&self, principal: &Principal, expires_in: u64) -> Map<String, Value> {
        let values = Values { expires_in, principal: Some(principal), ..Values::none() };
        template::render(&self.members, &|placeholder: &Placeholder| placeholder.value(&values))
    }
}

impl What {
    /// Whether it names any.
    pub const fn any(self) -> bool {
        self.access || self.refresh || self.token
    }
}

impl template::Placeholder for Placeholder {
    const ALL: &'static [(&'static str, Self)] = &[
        ("access", Self::Access),
        ("refresh", Self::Refresh),
        ("token", Self::Token),
        ("expires_in", Self::ExpiresIn),
        ("user", Self::User),
        ("user_id", Self::UserId),
        ("role", Self::Role),
        ("roles", Self::Roles),
        ("scope", Self::Scope),
    ];
}

impl Placeholder {
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
            Self::Role => of(|principal| principal.roles.first().map(Role::as_str).into()),
            Self::Roles => of(|principal| principal.roles.iter().map(Role::as_str).collect()),
            Self::Scope => {
                values.scope.map_or_else(|| of(|principal| scope_text(&principal.scopes).into()), Value::from)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::principal::{Scope, Subject};

    fn members(value: &Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    fn ann() -> Principal {
        Principal {
            subject: Subject::user("ann"),
            user_id: Some("7".into()),
            roles: [Role::from("admin"), Role::from("user")].into(),
            scopes: [Scope::from("read"), Scope::from("write")].into(),
        }
    }

    #[test]
    fn placeholders_are_replaced() {
        let ann = ann();
        let values = Values {
            access: Some("A"),
            refresh: Some("R"),
            token: Some("T"),
            expires_in: 900,
            principal: Some(&ann),
            scope: None,
        };
        for (name, template, expected) in [
            ("a token", json!("{access}"), json!("A")),
            ("a token within a text", json!("Token {token}"), json!("Token T")),
            ("two in one text", json!("{user}:{refresh}"), json!("ann:R")),
            ("a number alone is a number", json!("{expires_in}"), json!(900)),
            ("a number within a text is written out", json!("{expires_in}s"), json!("900s")),
            ("a list alone is a list", json!("{roles}"), json!(["admin", "user"])),
            ("a list within a text is written out", json!("roles={roles}"), json!("roles=admin,user")),
            ("the first role", json!("{role}"), json!("admin")),
            ("scopes are one text (RFC 6749 3.3)", json!("{scope}"), json!("read write")),
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
        let narrowed = Values { scope: Some("read"), ..values };
        assert_eq!(Reply::compile(members(&json!({"m": "{scope}"}))).unwrap().render(&narrowed)["m"], "read");
    }

    #[test]
    fn what_there_is_not_is_null_alone_and_empty_in_a_text() {
        let nobody = Values::none();
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
