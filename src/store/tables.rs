//! Tables of another application that hold users or tokens (contract 2.1), as a configuration names them.

use crate::principal::Role;

/// What the section `store` says beside where it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tables {
    /// Users are read from here, and written here; `None`: they are in our own table.
    pub users: Option<UsersTable>,
    /// Tokens in clear text that are good beside ours; only with `users`.
    pub tokens: Option<TokensTable>,
    /// Whether another hash than ours is replaced after a good login.
    pub rehash: bool,
}

/// A table of users.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsersTable {
    /// The table.
    pub table: Identifier,
    /// Its key: a whole number, a text or a UUID.
    pub id: Identifier,
    /// What a user logs in with.
    pub name: Identifier,
    /// The hash of the password.
    pub password: Identifier,
    /// A column that holds one role.
    pub role: Option<Identifier>,
    /// A table that holds any number of roles.
    pub roles: Option<RolesTable>,
    /// Columns of true or false, each with the role that true means.
    pub flags: Vec<(Identifier, Role)>,
    /// A column that is true for those who may log in.
    pub active: Option<Identifier>,
}

/// A table with a row for each role of each user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RolesTable {
    /// The table.
    pub table: Identifier,
    /// Whose: the user's `id`.
    pub user: Identifier,
    /// The role's name, or its id in `names`.
    pub role: Identifier,
    /// Where roles have their names, if elsewhere.
    pub names: Option<NamesTable>,
}

/// A table with the names of roles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamesTable {
    /// The table.
    pub table: Identifier,
    /// Its key.
    pub id: Identifier,
    /// The role's name.
    pub name: Identifier,
}

/// A table of tokens in clear text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokensTable {
    /// The table.
    pub table: Identifier,
    /// The token itself.
    pub token: Identifier,
    /// When it ends, in UTC: a date and time, or unix seconds. `None`, or null in a row: never.
    pub expires_at: Option<Identifier>,
    /// Whose: the user's `id`.
    pub user: Identifier,
}

/// The name of a table or column: letters, digits, `_` and `$`, and for a table a point behind its schema. Nothing in it
/// could end a quoted name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identifier(Box<str>);

impl Identifier {
    /// The longest, in bytes: as `PostgreSQL` has it, for a schema and a table.
    const BYTES_MAX: usize = 127;

    /// The name of a table.
    pub fn table(text: &str) -> Option<Self> {
        let mut parts = text.split('.');
        let fits = text.len() <= Self::BYTES_MAX && parts.by_ref().take(2).all(is_name) && parts.next().is_none();
        fits.then(|| Self(text.into()))
    }

    /// The name of a column.
    pub fn column(text: &str) -> Option<Self> {
        (text.len() <= Self::BYTES_MAX && is_name(text)).then(|| Self(text.into()))
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_name(part: &str) -> bool {
    let mut bytes = part.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_that_no_quote_can_end() {
        for (text, table, column) in [
            ("user", true, true),
            ("_Auth$2", true, true),
            ("app.user", true, false),
            ("a.b.c", false, false),
            (".user", false, false),
            ("app.", false, false),
            ("", false, false),
            ("2fa", false, false),
            ("user\"", false, false),
            ("user`", false, false),
            ("us er", false, false),
            ("user;--", false, false),
            ("us?er", false, false),
            ("üser", false, false),
            (&*"a".repeat(127), true, true),
            (&*"a".repeat(128), false, false),
        ] {
            assert_eq!(Identifier::table(text).is_some(), table, "{text}");
            assert_eq!(Identifier::column(text).is_some(), column, "{text}");
        }
    }
}
