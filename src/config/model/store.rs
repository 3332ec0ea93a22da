//! The section `store`: where it is, and which tables of another application it stands on (contract 2.1).

use super::super::decode::{self, Section};
use super::super::report::Report;
use super::super::tree::{Node, Value};
use crate::principal::Role;
use crate::store::sql::ServerUrl;
use crate::store::tables::{Identifier, NamesTable, RolesTable, Tables, TokensTable, UsersTable};

/// The section.
#[derive(Debug)]
pub struct Store {
    /// Where.
    pub location: Location,
    /// Tables of another application.
    pub tables: Tables,
}

/// Where a store is.
#[derive(Debug)]
pub enum Location {
    /// `sqlite:`, without it: the path of a file.
    File(Box<str>),
    /// `postgres://…` or `mysql://…`.
    Server(ServerUrl),
}

const FILE: &str = "portcullis.db";
/// What the keys take, for messages.
const LOCATION: &str =
    "`sqlite:` with the path of a file, such as `sqlite:portcullis.db`, `postgres://…` or `mysql://…`";
const TABLE: &str =
    "the name of a table: letters, digits, `_` and `$`, with its schema and a point before it if need be";
const COLUMN: &str = "the name of a column: letters, digits, `_` and `$`";

impl Default for Store {
    fn default() -> Self {
        Self { location: Location::File(FILE.into()), tables: Tables::default() }
    }
}

impl Store {
    /// Reads the section, or gives the default.
    pub fn read(node: Option<&Node>, report: &mut Report) -> Self {
        let mut store = Self::default();
        let Some(node) = node else { return store };
        if !matches!(node.value, Value::Map(_)) {
            store.location = location(node, report).unwrap_or(store.location);
            return store;
        }
        let section = Section::open(node, "`store`", &["url", "users", "tokens", "rehash"], &[], report);
        let Some(section) = section else { return store };
        store.location = section.required("url", LOCATION, report, location).unwrap_or(store.location);
        store.tables = Tables {
            users: section.read("users", report, users),
            tokens: section.read("tokens", report, tokens),
            rehash: section.read("rehash", report, decode::boolean).unwrap_or_default(),
        };
        if let (Some(tokens), None) = (section.node("tokens"), section.node("users")) {
            report.add(tokens.place, "`tokens` needs `users` beside it: whose they are is found there");
        }
        store
    }
}

fn location(node: &Node, report: &mut Report) -> Option<Location> {
    let url = decode::full_text(node, report)?;
    // the URL is never in a message: it may hold a password
    match ServerUrl::parse(url) {
        Some(Ok(server)) => return Some(Location::Server(server)),
        Some(Err(wrong)) => {
            report.add(node.place, wrong);
            return None;
        }
        None => {}
    }
    let path = url.strip_prefix("sqlite:").map(|path| path.strip_prefix("//").unwrap_or(path));
    match path {
        Some(path) if !path.is_empty() && !path.contains([':', '?', '\0']) => Some(Location::File(path.into())),
        Some(_) | None => {
            report.add(node.place, format!("expected {LOCATION}"));
            None
        }
    }
}

fn users(node: &Node, report: &mut Report) -> Option<UsersTable> {
    let keys = &["table", "id", "name", "password", "role", "roles", "flags", "active"];
    let section = Section::open(node, "`users`", keys, &[], report)?;
    let table = section.required("table", TABLE, report, table);
    let id = section.required("id", COLUMN, report, column);
    let name = section.required("name", COLUMN, report, column);
    let password = section.required("password", COLUMN, report, column);
    let role = section.read("role", report, column);
    let roles = section.read("roles", report, roles);
    let active = section.read("active", report, column);
    let flags = section.node("flags").map(|node| flags(node, report)).unwrap_or_default();
    Some(UsersTable { table: table?, id: id?, name: name?, password: password?, role, roles, flags, active })
}

/// Columns of true or false, each with a role.
fn flags(node: &Node, report: &mut Report) -> Vec<(Identifier, Role)> {
    let mut flags = Vec::new();
    for (key, role) in decode::entries(node, report) {
        let Some(column) = Identifier::column(key.value) else {
            report.add(key.place, "not the name of a column");
            continue;
        };
        if let Some(role) = super::auth::role(role, report) {
            flags.push((column, role));
        }
    }
    flags
}

fn roles(node: &Node, report: &mut Report) -> Option<RolesTable> {
    let section = Section::open(node, "`roles`", &["table", "user", "role", "names"], &[], report)?;
    let table = section.required("table", TABLE, report, table);
    let user = section.required("user", COLUMN, report, column);
    let role = section.required("role", COLUMN, report, column);
    let names = section.read("names", report, names);
    Some(RolesTable { table: table?, user: user?, role: role?, names })
}

fn names(node: &Node, report: &mut Report) -> Option<NamesTable> {
    let section = Section::open(node, "`names`", &["table", "id", "name"], &[], report)?;
    let table = section.required("table", TABLE, report, table);
    let id = section.required("id", COLUMN, report, column);
    let name = section.required("name", COLUMN, report, column);
    Some(NamesTable { table: table?, id: id?, name: name? })
}

fn tokens(node: &Node, report: &mut Report) -> Option<TokensTable> {
    let section = Section::open(node, "`tokens`", &["table", "token", "expires_at", "user"], &[], report)?;
    let table = section.required("table", TABLE, report, table);
    let token = section.required("token", COLUMN, report, column);
    let user = section.required("user", COLUMN, report, column);
    let expires_at = section.read("expires_at", report, column);
    Some(TokensTable { table: table?, token: token?, expires_at, user: user? })
}

fn table(node: &Node, report: &mut Report) -> Option<Identifier> {
    decode::parsed(node, TABLE, report, |text| Identifier::table(text).ok_or_else(|| format!("not {TABLE}")))
}

fn column(node: &Node, report: &mut Report) -> Option<Identifier> {
    decode::parsed(node, COLUMN, report, |text| Identifier::column(text).ok_or_else(|| format!("not {COLUMN}")))
}
