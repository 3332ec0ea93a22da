//! Who a request was found to come from.
//!
//! Plain values, made by the authentication stage and the store, read by everyone behind it.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};

/// How a credential was presented: the auth-scheme of RFC 9110 11.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scheme {
    /// RFC 7617.
    Basic,
    /// `Token <opaque>`, as the Django and Flask APIs behind us use it.
    Token,
    /// RFC 6750, always a JWT here.
    Bearer,
}

impl Scheme {
    /// Every scheme, in the order in which challenges are sent.
    pub const ALL: [Self; 3] = [Self::Basic, Self::Token, Self::Bearer];

    /// The name in the configuration, in metrics and in identity headers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Basic => "basic",
            Self::Token => "token",
            Self::Bearer => "bearer",
        }
    }

    /// The name as it is written in `Authorization` and `WWW-Authenticate`.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Basic => "Basic",
            Self::Token => "Token",
            Self::Bearer => "Bearer",
        }
    }

    /// The scheme of this name, in any case (RFC 9110 11.1).
    pub fn from_name(name: impl AsRef<[u8]>) -> Option<Self> {
        Self::ALL.into_iter().find(|scheme| scheme.name().as_bytes().eq_ignore_ascii_case(name.as_ref()))
    }
}

/// A set of schemes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct SchemeSet(u8);

impl SchemeSet {
    /// All schemes.
    pub fn all() -> Self {
        Scheme::ALL.into_iter().collect()
    }

    /// Whether `scheme` is one of them.
    pub const fn contains(self, scheme: Scheme) -> bool {
        self.0 & (1 << scheme as u8) != 0
    }

    /// Whether there is none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Its members, in the order of [`Scheme::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Scheme> {
        Scheme::ALL.into_iter().filter(move |&scheme| self.contains(scheme))
    }
}

impl FromIterator<Scheme> for SchemeSet {
    fn from_iter<I: IntoIterator<Item = Scheme>>(schemes: I) -> Self {
        Self(schemes.into_iter().fold(0, |set, scheme| set | 1 << scheme as u8))
    }
}

/// An issuer of tokens other than us, for whoever compares names: 128 bits of SHA-256 of its `iss`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IssuerId([u8; 16]);

impl IssuerId {
    /// Of an `iss`, byte for byte.
    pub fn of(iss: &str) -> Self {
        let mut id = [0; 16];
        id.copy_from_slice(digest(&SHA256, iss.as_bytes()).as_ref().split_at(16).0);
        Self(id)
    }

    /// The same in every process.
    pub const fn bytes(self) -> [u8; 16] {
        self.0
    }
}

/// What kind of principal a name belongs to. A user and a client of the same name are two principals, and so are two
/// whom two issuers call the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SubjectKind {
    /// A person, with a password.
    User,
    /// An OAuth client, with a secret (RFC 6749 2).
    Client,
    /// Whoever another issuer says it is. Nobody of the store, whatever the name.
    Foreign(IssuerId),
}

impl SubjectKind {
    /// The word in the store, in tokens and in the audit log.
    pub const fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Client => "client",
            Self::Foreign(_) => "foreign",
        }
    }
}

/// A user's name or a client's id.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Subject {
    /// Whose namespace the name is in.
    pub kind: SubjectKind,
    /// The name itself, compared byte for byte.
    pub name: Arc<str>,
}

impl Subject {
    /// The user of this name.
    pub fn user(name: impl Into<Arc<str>>) -> Self {
        Self { kind: SubjectKind::User, name: name.into() }
    }

    /// Whom an issuer calls so.
    pub fn foreign(issuer: IssuerId, name: impl Into<Arc<str>>) -> Self {
        Self { kind: SubjectKind::Foreign(issuer), name: name.into() }
    }

    /// The client of this id.
    pub fn client(id: impl Into<Arc<str>>) -> Self {
        Self { kind: SubjectKind::Client, name: id.into() }
    }
}

/// The longest name of a user or client, in bytes.
pub const NAME_BYTES_MAX: usize = 255;

/// Why a new user or client cannot be called so (contract 5, `register`); `None` where it can. A colon would end the name
/// in Basic (RFC 7617 2), a control character would forge lines wherever names are shown.
pub fn name_fault(name: &str) -> Option<&'static str> {
    if name.is_empty() {
        Some("the name is empty")
    } else if name.len() > NAME_BYTES_MAX {
        Some("the name is longer than 255 bytes")
    } else if name.contains(':') {
        Some("the name has a colon")
    } else if name.chars().any(char::is_control) {
        Some("the name has a control character")
    } else {
        None
    }
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl<T: Into<Arc<str>>> From<T> for $name {
            fn from(name: T) -> Self {
                Self(name.into())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    };
}

name_type!(
    /// A role's name; roles compare exactly, there is no ladder.
    Role
);
name_type!(
    /// An OAuth scope (RFC 6749 3.3).
    Scope
);

/// Who a request comes from, with what they may.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// The user or client.
    pub subject: Subject,
    /// The id of the user's row, where there is one; the template `{user_id}`.
    pub user_id: Option<Arc<str>>,
    /// In the order in which they were given; the template `{role}` is the first.
    pub roles: Arc<[Role]>,
    /// What the credential was limited to; empty where it bears no scopes.
    pub scopes: Arc<[Scope]>,
}

impl Principal {
    /// Whether the principal has this role.
    pub fn has_role(&self, role: &Role) -> bool {
        self.roles.contains(role)
    }

    /// Whether the credential bears this scope.
    pub fn has_scope(&self, scope: &Scope) -> bool {
        self.scopes.contains(scope)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scheme_is_found_in_any_case() {
        for (name, expected) in
            [("bEaReR", Some(Scheme::Bearer)), ("TOKEN", Some(Scheme::Token)), ("basic ", None), ("Digest", None)]
        {
            assert_eq!(Scheme::from_name(name), expected, "{name}");
        }
    }

    #[test]
    fn a_set_holds_what_was_put_in() {
        let set: SchemeSet = [Scheme::Bearer, Scheme::Basic].into_iter().collect();
        assert_eq!(set.iter().collect::<Vec<_>>(), [Scheme::Basic, Scheme::Bearer]);
        assert!(!set.contains(Scheme::Token));
        assert!(SchemeSet::default().is_empty());
    }

    #[test]
    fn a_name_is_one_that_every_scheme_can_carry() {
        for (name, good) in [
            ("ann", true),
            ("ann@example.com", true),
            (" ann jörgensen ", true),
            (&*"a".repeat(255), true),
            (&*"a".repeat(256), false),
            ("", false),
            ("a:b", false),
            ("a\nb", false),
            ("a\0", false),
            ("a\u{85}", false),
        ] {
            assert_eq!(name_fault(name).is_none(), good, "{name:?}");
        }
    }

    #[test]
    fn one_name_of_two_kinds_or_two_issuers_is_two_principals() {
        let [one, other] = ["https://one.example", "https://one.example/"].map(IssuerId::of);
        let all = [Subject::user("a"), Subject::client("a"), Subject::foreign(one, "a"), Subject::foreign(other, "a")];
        for (at, subject) in all.iter().enumerate() {
            assert_eq!(all.iter().position(|found| found == subject), Some(at), "{subject:?}");
        }
    }
}
