//! Who there is, as far as a file says it: accounts that are made, and the tables of another application that others are in.

use std::collections::BTreeSet;

use super::fact::{Fact, Gives};
use crate::config::snapshot::{Bootstrap, BootstrapClient, BootstrapUser};
use crate::principal::Role;
use crate::store::tables::{Identifier, NamesTable, RolesTable, Tables, TokensTable, UsersTable};

/// Who is made where absent; a password or a secret is never changed.
pub(super) fn accounts(bootstrap: &Bootstrap) -> [Fact; 2] {
    let Bootstrap { users, clients } = bootstrap;
    let names = |roles: &[Role]| roles.iter().map(|role| role.as_str().to_owned()).collect::<Vec<_>>();
    let user = |BootstrapUser { name, password: _, roles }: &BootstrapUser| (name.to_string(), names(roles), None);
    let client = |BootstrapClient { id, secret: _, roles, scopes }: &BootstrapClient| {
        let scopes = scopes.iter().map(|scope| scope.as_str().to_owned()).collect();
        (id.to_string(), names(roles), Some(scopes))
    };
    [
        listed("bootstrap.users", &users.iter().map(user).collect::<Vec<_>>()),
        listed("bootstrap.clients", &clients.iter().map(client).collect::<Vec<_>>()),
    ]
}

/// The name of an account, its roles, and of a client its scopes.
type Account = (String, Vec<String>, Option<Vec<String>>);

fn listed(key: &str, accounts: &[Account]) -> Fact {
    let shown = accounts.iter().map(|(name, roles, scopes)| {
        let scopes = scopes.as_ref().map(|scopes| format!("; {}", scopes.join(", "))).unwrap_or_default();
        format!("{name} ({}{scopes})", roles.join(", "))
    });
    // an account, and each role and scope that it has
    let has = accounts.iter().flat_map(|(name, roles, scopes)| {
        let of = |what: &'static str, names: &[String]| -> Vec<String> {
            names.iter().map(|own| format!("{name:?} {what} {own:?}")).collect()
        };
        let scopes = scopes.as_deref().unwrap_or_default();
        std::iter::once(format!("{name:?}")).chain(of("role", roles)).chain(of("scope", scopes))
    });
    let compared: BTreeSet<String> = accounts.iter().map(|account| format!("{account:?}")).collect();
    Fact::list(key, shown).comparing(format!("{compared:?}")).giving(Gives::these(has))
}

/// What is read of another application's tables.
pub(super) fn foreign(tables: &Tables) -> [Fact; 3] {
    let Tables { users, tokens, rehash } = tables;
    [
        Fact::optional("store.users", users.as_ref().map(users_table)).giving(Gives::Something),
        Fact::optional("store.tokens", tokens.as_ref().map(tokens_table)).giving(Gives::Something),
        Fact::word("store.rehash", *rehash),
    ]
}

fn users_table(users: &UsersTable) -> String {
    let UsersTable { table, id, name, password, role, roles, flags, active } = users;
    let flags: Vec<_> = flags.iter().map(|(flag, role)| format!("{}: {}", flag.as_str(), role.as_str())).collect();
    members(&[
        ("table", column(table)),
        ("id", column(id)),
        ("name", column(name)),
        ("password", column(password)),
        ("role", role.as_ref().and_then(column)),
        ("roles", roles.as_ref().map(roles_table)),
        ("flags", (!flags.is_empty()).then(|| format!("{{ {} }}", flags.join(", ")))),
        ("active", active.as_ref().and_then(column)),
    ])
}

fn roles_table(roles: &RolesTable) -> String {
    let RolesTable { table, user, role, names } = roles;
    let names = names.as_ref().map(|NamesTable { table, id, name }| {
        members(&[("table", column(table)), ("id", column(id)), ("name", column(name))])
    });
    members(&[("table", column(table)), ("user", column(user)), ("role", column(role)), ("names", names)])
}

fn tokens_table(tokens: &TokensTable) -> String {
    let TokensTable { table, token, expires_at, user } = tokens;
    let expires_at = expires_at.as_ref().and_then(column);
    members(&[("table", column(table)), ("token", column(token)), ("expires_at", expires_at), ("user", column(user))])
}

#[expect(clippy::unnecessary_wraps, reason = "what is there, beside what may not be")]
fn column(name: &Identifier) -> Option<String> {
    Some(name.as_str().to_owned())
}

/// A mapping of YAML, of those members that there are.
fn members(all: &[(&str, Option<String>)]) -> String {
    let there = all.iter().filter_map(|(key, value)| Some(format!("{key}: {}", value.as_ref()?)));
    format!("{{ {} }}", there.collect::<Vec<_>>().join(", "))
}
