//! Where accounts are: our own table, or that of another application.
//!
//! Built once when a store is opened, of names that were checked against the live database. Each relation gives the same
//! columns, so that whoever looks an account up need not know where it is.

use super::super::tables::{RolesTable, Tables, TokensTable, UsersTable};
use super::super::{Account, StoreError};
use super::beside::{is_of_one_person, mark};
use super::catalog::{Table, Type};
use super::engine::{Db, Engine, Param, Row};
use crate::principal::{Role, Subject, SubjectKind};
use crate::record::told::Told;
use crate::secret::Secret;

/// An argon2id hash of ours has 97 characters.
const OUR_HASH_CHARS: i64 = 97;

/// Where to look.
#[derive(Debug)]
pub(in crate::store) struct Relations {
    pub(super) users: Relation,
    pub(super) clients: Relation,
    pub(super) foreign: Option<Foreign>,
    pub(super) rehash: bool,
    /// Of which names it was told that two users have them.
    pub(super) doubled: Told,
}

/// A select list, what it is from, and how one name is found; the name is the only value to bind.
#[derive(Debug)]
pub(super) struct Relation {
    kind: SubjectKind,
    pub(super) columns: String,
    pub(super) from: String,
    pub(super) by_name: String,
    /// All of the kind, for listings.
    pub(super) all: String,
    /// What they are listed by.
    pub(super) order: String,
}

/// The users of another application, with names quoted for the engine.
#[derive(Debug)]
pub(super) struct Foreign {
    pub(super) engine: Engine,
    pub(super) settings: UsersTable,
    pub(super) table: String,
    pub(super) id: String,
    pub(super) name: String,
    pub(super) password: String,
    /// How long a name may be.
    pub(super) name_chars: Option<i64>,
    id_type: Type,
    password_type: Type,
    flag_types: Vec<Type>,
    active_type: Option<Type>,
    pub(super) tokens: Option<ForeignTokens>,
}

/// Its tokens.
#[derive(Debug)]
pub(super) struct ForeignTokens {
    pub(super) table: String,
    pub(super) token: String,
    pub(super) user: String,
    /// The token as text, its end in unix seconds, and whether it has one.
    pub(super) columns: String,
}

/// An account as found.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) account: Account,
    /// Whether what is kept beside another application's row is of that row as it is now.
    pub(super) settled: bool,
}

impl Relations {
    /// Checks the tables of a configuration against the database.
    pub(super) async fn check(mut db: Db<'_>, tables: &Tables) -> Result<Self, StoreError> {
        let engine = db.engine();
        let clients = Relation::own(engine, SubjectKind::Client);
        let Some(settings) = &tables.users else {
            let users = Relation::own(engine, SubjectKind::User);
            return Ok(Self { users, clients, foreign: None, rehash: tables.rehash, doubled: Told::default() });
        };
        let mut foreign = Foreign::check(&mut db, settings, tables.rehash).await?;
        if let Some(tokens) = &tables.tokens {
            foreign.tokens = Some(ForeignTokens::check(&mut db, tokens).await?);
        }
        let users = foreign.relation();
        Ok(Self { users, clients, foreign: Some(foreign), rehash: tables.rehash, doubled: Told::default() })
    }

    /// # Errors
    /// Nobody of another issuer is in a store: to look for one, or to make one, is a mistake of ours.
    pub(super) fn of(&self, kind: SubjectKind) -> Result<&Relation, StoreError> {
        match kind {
            SubjectKind::User => Ok(&self.users),
            SubjectKind::Client => Ok(&self.clients),
            SubjectKind::Foreign(_) => Err(StoreError::Cannot("users of another issuer are not in the store".into())),
        }
    }

    /// The table of another application that holds `subject`.
    pub(super) fn foreign(&self, kind: SubjectKind) -> Option<&Foreign> {
        match kind {
            SubjectKind::User => self.foreign.as_ref(),
            SubjectKind::Client | SubjectKind::Foreign(_) => None,
        }
    }

    /// Another application's tokens, where there are any and `text` could be one.
    pub(super) fn clear_tokens(&self, text: &Secret<String>) -> Option<(&Foreign, &ForeignTokens)> {
        let foreign = self.foreign.as_ref()?;
        foreign.tokens.as_ref().filter(|_| !text.expose().contains('\0')).map(|tokens| (foreign, tokens))
    }

    /// The account in a row; `None` where the row has none, as an outer join gives it, or has no name that anybody could give.
    pub(super) fn found(&self, kind: SubjectKind, row: &Row) -> Result<Option<Found>, StoreError> {
        let (Some(id), Some(name)) = (row.legible("id")?, row.legible("name")?) else { return Ok(None) };
        // one that is damaged is nobody's password
        let hash = row.legible("password_hash")?.unwrap_or_default();
        let (mut roles, mut disabled, mut settled) = (list(row, "roles")?, row.truth("disabled")?, true);
        if let Some(foreign) = self.foreign(kind) {
            // a join gives them in any order
            roles.sort();
            foreign.further_roles(row, &mut roles)?;
            let same_name = row.maybe_text("state_name")?.as_deref() == Some(&*name);
            let same_hash = row.maybe_bytes("state_mark")?.as_deref() == Some(mark(&hash).as_slice());
            settled = same_name && same_hash;
            // what is kept of the id may be another person's
            disabled &= same_name || same_hash && is_of_one_person(&hash);
            disabled |= foreign.settings.active.is_some() && row.maybe_number("active")? != Some(1);
        }
        let account = Account {
            subject: Subject { kind, name: name.into() },
            id: id.into(),
            password_hash: Secret::new(hash),
            roles: roles.into_iter().map(Role::from).collect(),
            scopes: list(row, "account_scopes")?.into_iter().map(Into::into).collect(),
            disabled,
            session_version: row.maybe_number("session_version")?.unwrap_or(1),
            sessions_ended_at: row.maybe_number("sessions_ended_at")?.unwrap_or(0),
            created_at: row.number("created_at")?,
        };
        Ok(Some(Found { account, settled }))
    }
}

/// A list of texts as JSON; what an aggregate makes of nothing is null.
fn list(row: &Row, name: &str) -> Result<Vec<String>, StoreError> {
    let Some(json) = row.legible(name)? else { return Ok(Vec::new()) };
    let texts: Vec<Option<String>> = serde_json::from_str(&json)
        .map_err(|_| StoreError::Broken(format!("a row's {name} are no list of texts").into()))?;
    Ok(texts.into_iter().flatten().filter(|text| !text.is_empty()).collect())
}

impl Relation {
    fn own(engine: Engine, kind: SubjectKind) -> Self {
        let of_kind = format!("a.kind = '{}'", kind.name());
        Self {
            kind,
            columns: format!(
                "{} AS id, a.name AS name, a.password_hash AS password_hash, a.roles AS roles, \
                 a.scopes AS account_scopes, a.disabled AS disabled, a.session_version AS session_version, \
                 a.sessions_ended_at AS sessions_ended_at, a.created_at AS created_at",
                engine.as_text("a.id")
            ),
            from: "portcullis_accounts a".to_owned(),
            by_name: format!("{of_kind} AND a.name = ?"),
            all: of_kind,
            order: "a.name".to_owned(),
        }
    }

    pub(super) const fn kind(&self) -> SubjectKind {
        self.kind
    }
}

impl Foreign {
    async fn check(db: &mut Db<'_>, settings: &UsersTable, rehash: bool) -> Result<Self, StoreError> {
        let engine = db.engine();
        let table = Table::find(db.again(), "users", &settings.table).await?;
        let id = table.column(&settings.id, &[Type::Integer, Type::Text, Type::Uuid])?.kind.clone();
        let name_chars = table.column(&settings.name, &[Type::Text])?.chars;
        let password = table.column(&settings.password, &[Type::Text, Type::Bytes])?;
        if rehash && engine != Engine::Sqlite && password.chars.is_some_and(|chars| chars < OUR_HASH_CHARS) {
            let text = format!(
                "`store.rehash`: the column `{}` takes fewer than the {OUR_HASH_CHARS} characters of a new hash",
                settings.password.as_str()
            );
            return Err(StoreError::Broken(text.into()));
        }
        let password_expression = match (&password.kind, engine) {
            // the same text for every hash that is one, and some text whatever the bytes are
            (Type::Bytes, Engine::Postgres) => {
                format!("encode(u.{}, 'escape')", engine.quoted(settings.password.as_str()))
            }
            _ => engine.as_text(&format!("u.{}", engine.quoted(settings.password.as_str()))),
        };
        let password_type = password.kind.clone();
        if let Some(role) = &settings.role {
            table.any(role)?;
        }
        let mut flag_types = Vec::new();
        for (flag, _) in &settings.flags {
            flag_types.push(table.column(flag, &[Type::Boolean, Type::Integer])?.kind.clone());
        }
        let active_type = match &settings.active {
            Some(active) => Some(table.column(active, &[Type::Boolean, Type::Integer])?.kind.clone()),
            None => None,
        };
        if let Some(roles) = &settings.roles {
            let table = Table::find(db.again(), "users.roles", &roles.table).await?;
            table.any(&roles.user)?;
            table.any(&roles.role)?;
            if let Some(names) = &roles.names {
                let table = Table::find(db.again(), "users.roles.names", &names.table).await?;
                table.any(&names.id)?;
                table.any(&names.name)?;
            }
        }
        Ok(Self {
            engine,
            table: engine.quoted(settings.table.as_str()),
            id: engine.quoted(settings.id.as_str()),
            name: engine.quoted(settings.name.as_str()),
            password: password_expression,
            settings: settings.clone(),
            name_chars,
            id_type: id,
            password_type,
            flag_types,
            active_type,
            tokens: None,
        })
    }

    fn relation(&self) -> Relation {
        let engine = self.engine;
        let [id, name] = [&self.id, &self.name].map(|column| engine.as_text(&format!("u.{column}")));
        let nothing = match engine {
            Engine::Sqlite | Engine::MySql => "NULL".to_owned(),
            Engine::Postgres => "CAST(NULL AS TEXT)".to_owned(),
        };
        let mut columns = vec![format!(
            "{} AS id, {name} AS name, {} AS password_hash, {nothing} AS account_scopes, st.disabled AS disabled, \
             st.session_version AS session_version, st.sessions_ended_at AS sessions_ended_at, {} AS created_at, \
             st.name AS state_name, st.mark AS state_mark",
            id,
            self.password,
            engine.as_number("0"),
        )];
        let roles = self.settings.roles.as_ref().map_or(nothing, |roles| self.role_list(roles));
        columns.push(format!("{roles} AS roles"));
        if let Some(role) = &self.settings.role {
            let role = engine.as_text(&format!("u.{}", engine.quoted(role.as_str())));
            columns.push(format!("{role} AS role"));
        }
        for (number, ((flag, _), kind)) in self.settings.flags.iter().zip(&self.flag_types).enumerate() {
            columns.push(format!("{} AS flag_{number}", self.truth(flag.as_str(), kind)));
        }
        if let (Some(active), Some(kind)) = (&self.settings.active, &self.active_type) {
            columns.push(format!("{} AS active", self.truth(active.as_str(), kind)));
        }
        // compared as bytes whatever the collation of an id of text is
        let same = match engine {
            Engine::Sqlite => format!("st.user_id = {id}"),
            Engine::Postgres => format!("st.user_id = {id} COLLATE \"C\""),
            Engine::MySql => format!("st.user_id = CAST({id} AS BINARY)"),
        };
        Relation {
            kind: SubjectKind::User,
            columns: columns.join(", "),
            from: format!("({} u LEFT JOIN portcullis_user_state st ON {same})", self.table),
            by_name: format!("u.{} = ?", self.name),
            all: "1 = 1".to_owned(),
            order: format!("u.{}", self.name),
        }
    }

    /// 1 or 0; null is 0.
    fn truth(&self, column: &str, kind: &Type) -> String {
        let column = format!("u.{}", self.engine.quoted(column));
        let condition =
            if self.engine == Engine::Postgres && *kind == Type::Integer { format!("{column} <> 0") } else { column };
        self.engine.as_number(&format!("CASE WHEN {condition} THEN 1 ELSE 0 END"))
    }

    fn role_list(&self, roles: &RolesTable) -> String {
        let engine = self.engine;
        let quoted = |name: &super::super::tables::Identifier| engine.quoted(name.as_str());
        let (from, role) = match &roles.names {
            None => (format!("{} j", quoted(&roles.table)), format!("j.{}", quoted(&roles.role))),
            Some(names) => (
                format!(
                    "{} j JOIN {} n ON n.{} = j.{}",
                    quoted(&roles.table),
                    quoted(&names.table),
                    quoted(&names.id),
                    quoted(&roles.role)
                ),
                format!("n.{}", quoted(&names.name)),
            ),
        };
        let role = engine.as_text(&role);
        let list = match engine {
            Engine::Sqlite => format!("json_group_array({role})"),
            Engine::Postgres => format!("CAST(json_agg({role}) AS TEXT)"),
            Engine::MySql => format!("JSON_ARRAYAGG({role})"),
        };
        format!("(SELECT {list} FROM {from} WHERE j.{} = u.{})", quoted(&roles.user), self.id)
    }

    fn further_roles(&self, row: &Row, roles: &mut Vec<String>) -> Result<(), StoreError> {
        if self.settings.role.is_some()
            && let Some(role) = row.legible("role")?.filter(|role| !role.is_empty())
        {
            // the one that the column names comes first: it is the template `{role}`
            roles.retain(|other| *other != role);
            roles.insert(0, role);
        }
        for (number, (_, role)) in self.settings.flags.iter().enumerate() {
            if row.maybe_number(&format!("flag_{number}"))? == Some(1) && !roles.iter().any(|has| has == role.as_str())
            {
                roles.push(role.as_str().to_owned());
            }
        }
        Ok(())
    }

    /// An id as the column compares it; `None` for one that no row can have.
    pub(super) fn id_param(&self, id: &str) -> Option<Param> {
        match self.id_type {
            // one spelling each: `07` is not the id 7
            Type::Integer => id.parse::<i64>().ok().filter(|number| number.to_string() == id).map(Param::from),
            Type::Uuid => (id.len() == 36
                && id.bytes().enumerate().all(|(at, byte)| match at {
                    8 | 13 | 18 | 23 => byte == b'-',
                    _ => byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte),
                }))
            .then(|| Param::from(id)),
            Type::Number | Type::Text | Type::Bytes | Type::Boolean | Type::Time | Type::Any | Type::Other(_) => {
                (!id.contains('\0')).then(|| Param::from(id))
            }
        }
    }

    /// What stands for an id in a statement.
    pub(super) const fn id_place(&self) -> &'static str {
        match (&self.id_type, self.engine) {
            (Type::Uuid, Engine::Postgres) => "CAST(? AS UUID)",
            _ => "?",
        }
    }

    /// What stands for a password's hash in a statement: text, or its bytes.
    pub(super) fn password_place(&self) -> &'static str {
        match (&self.password_type, self.engine) {
            (Type::Bytes, Engine::Postgres) => "convert_to(?, 'UTF8')",
            _ => "?",
        }
    }

    /// A truth as a column takes it.
    pub(super) fn flag_param(&self, number: usize, value: bool) -> Param {
        self.truth_param(self.flag_types.get(number), value)
    }

    /// The same for the column `active`.
    pub(super) fn active_param(&self, value: bool) -> Param {
        self.truth_param(self.active_type.as_ref(), value)
    }

    fn truth_param(&self, kind: Option<&Type>, value: bool) -> Param {
        if self.engine == Engine::Postgres && kind == Some(&Type::Boolean) {
            Param::from(value)
        } else {
            Param::from(i64::from(value))
        }
    }
}

impl ForeignTokens {
    async fn check(db: &mut Db<'_>, settings: &TokensTable) -> Result<Self, StoreError> {
        let engine = db.engine();
        let table = Table::find(db.again(), "tokens", &settings.table).await?;
        table.column(&settings.token, &[Type::Text])?;
        table.any(&settings.user)?;
        let token = engine.quoted(settings.token.as_str());
        let mut columns = vec![format!("{} AS clear_token", engine.as_text(&format!("t.{token}")))];
        match &settings.expires_at {
            None => {
                columns.push(format!("{} AS ends, {} AS ends_at", engine.as_number("0"), engine.as_number("0")));
            }
            Some(name) => {
                let kind = &table.column(name, &[Type::Time, Type::Integer, Type::Number])?.kind;
                let column = format!("t.{}", engine.quoted(name.as_str()));
                let ends = engine.as_number(&format!("CASE WHEN {column} IS NULL THEN 0 ELSE 1 END"));
                columns.push(format!("{ends} AS ends, {} AS ends_at", seconds(engine, kind, &column)));
            }
        }
        Ok(Self {
            table: engine.quoted(settings.table.as_str()),
            token,
            user: engine.quoted(settings.user.as_str()),
            columns: columns.join(", "),
        })
    }
}

/// A column in UTC as unix seconds, fractions cut off; null where it is no time.
fn seconds(engine: Engine, kind: &Type, column: &str) -> String {
    match (engine, kind) {
        // text as SQLAlchemy and Django write it, or a number
        (Engine::Sqlite, _) => format!(
            "CASE typeof({column}) WHEN 'integer' THEN {column} WHEN 'real' THEN CAST({column} AS INTEGER) \
             ELSE CAST(strftime('%s', {column}) AS INTEGER) END"
        ),
        (Engine::Postgres, Type::Time) => engine.as_number(&format!("FLOOR(EXTRACT(EPOCH FROM {column}))")),
        (Engine::MySql, Type::Time) => format!("TIMESTAMPDIFF(SECOND, '1970-01-01 00:00:00', {column})"),
        (Engine::Postgres | Engine::MySql, _) => engine.as_number(&format!("FLOOR({column})")),
    }
}
