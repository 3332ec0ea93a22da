//! Accounts, wherever they are: how they are found, made, changed and removed.
//!
//! What another application's table has no column for is kept beside: see `beside.rs`.

use super::super::{Claimed, StoreError};
use super::beside::{bury, forget, mark, take_tombstone};
use super::engine::{Db, Param, Query, Tx, query};
use super::errors::failed;
use super::relations::{Foreign, Found, Relations};
use crate::clock::UnixSeconds;
use crate::principal::{Role, Scope, Subject, SubjectKind};
use crate::secret::Secret;
use crate::store::Added;
use crate::store::rows::json;

/// Rows that a name may find: a collation may take other names for the same.
const ALIKE_MAX: i64 = 64;

fn cannot(why: impl Into<String>) -> StoreError {
    StoreError::Cannot(why.into().into())
}

impl Relations {
    /// The account of `subject` as its row says, which may be out of step with what is kept beside.
    pub(super) async fn find(&self, db: Db<'_>, subject: &Subject) -> Result<Option<Found>, StoreError> {
        // no database has a row for it, and one would call it a mistake
        if subject.name.contains('\0') {
            return Ok(None);
        }
        let relation = self.of(subject.kind)?;
        let text = format!("SELECT {} FROM {} WHERE {} LIMIT ?", relation.columns, relation.from, relation.by_name);
        let rows = query(text).bind(&*subject.name).bind(ALIKE_MAX).rows(db).await?;
        self.exactly(subject, &rows)
    }

    /// Of rows that a collation takes for the same the one that is. Two of one name could be told apart by nobody, so that
    /// neither is anybody; it is no error, by which whoever asks would learn of them.
    pub(super) fn exactly(&self, subject: &Subject, rows: &[super::engine::Row]) -> Result<Option<Found>, StoreError> {
        let mut only = None;
        for row in rows {
            let found = self.found(subject.kind, row)?;
            if let Some(found) = found.filter(|found| found.account.subject.name == subject.name)
                && only.replace(found).is_some()
            {
                if self.doubled.is_new(subject) {
                    tracing::warn!(name = %subject.name, "two users have the same name: neither can log in by it");
                }
                return Ok(None);
            }
        }
        Ok(only)
    }

    /// The user whose row has this id.
    pub(super) async fn find_id(&self, db: Db<'_>, id: &str) -> Result<Option<Found>, StoreError> {
        let (condition, param) = if let Some(foreign) = &self.foreign {
            (format!("u.{} = {}", foreign.id, foreign.id_place()), foreign.id_param(id))
        } else {
            let number = id.parse::<i64>().ok().filter(|number| number.to_string() == id);
            (format!("{} AND a.id = ?", self.users.all), number.map(Param::from))
        };
        let Some(param) = param else { return Ok(None) };
        let text = format!("SELECT {} FROM {} WHERE {condition}", self.users.columns, self.users.from);
        let row = query(text).bind(param).row(db).await?;
        let found = row.map(|row| self.found(SubjectKind::User, &row)).transpose()?.flatten();
        Ok(found.filter(|found| *found.account.id == *id))
    }
}

impl From<Found> for Claimed {
    fn from(Found { account, settled }: Found) -> Self {
        if settled { Self::Account(account) } else { Self::Unseen { password_hash: account.password_hash } }
    }
}

fn names<T>(list: &[T], text: impl Fn(&T) -> &str) -> String {
    json(&list.iter().map(text).collect::<Vec<_>>())
}

/// Makes an account.
pub(super) async fn add(
    relations: &Relations,
    tx: &mut Tx,
    subject: &Subject,
    hash: &Secret<String>,
    (roles, scopes): (&[Role], &[Scope]),
    now: UnixSeconds,
) -> Result<Added, StoreError> {
    if let Some(foreign) = relations.foreign(subject.kind) {
        let added = foreign.add(tx, subject, hash, roles).await?;
        if added == Added::Yes {
            relations.settle(tx, subject, now).await?;
        }
        return Ok(added);
    }
    if relations.find(tx.db(), subject).await?.is_some() {
        return Ok(Added::Taken);
    }
    let before = take_tombstone(tx, subject.kind.name(), &subject.name).await?;
    query(
        "INSERT INTO portcullis_accounts \
         (kind, name, password_hash, roles, scopes, session_version, sessions_ended_at, created_at) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(subject.kind.name())
    .bind(&*subject.name)
    .bind(hash.expose().as_str())
    .bind(names(roles, Role::as_str))
    .bind(names(scopes, Scope::as_str))
    .bind(before.map_or(1, |before| before.session_version.saturating_add(1)))
    .bind(before.map_or(0, |before| before.removed_at))
    .bind(now)
    .execute(tx.db())
    .await?;
    Ok(Added::Yes)
}

/// Replaces the password and raises the session version; whether there is such an account, which still has the session
/// version that was `proven`, where one was, and is not disabled.
pub(super) async fn set_password(
    relations: &Relations,
    tx: &mut Tx,
    subject: &Subject,
    (hash, proven): (&Secret<String>, Option<i64>),
    now: UnixSeconds,
) -> Result<bool, StoreError> {
    if let Some(foreign) = relations.foreign(subject.kind) {
        let Some(account) = relations.settle(tx, subject, now).await? else { return Ok(false) };
        if proven.is_some_and(|version| account.disabled || account.session_version != version) {
            return Ok(false);
        }
        foreign.write_password(tx, &account.id, hash).await?;
        query(
            "UPDATE portcullis_user_state SET mark = ?, session_version = session_version + 1, \
             sessions_ended_at = GREATEST(sessions_ended_at, ?) WHERE user_id = ?",
        )
        .bind(mark(hash.expose()))
        .bind(now)
        .bind(&*account.id)
        .execute(tx.db())
        .await?;
        foreign.end_tokens(tx, &account.id).await?;
        return Ok(true);
    }
    let still = if proven.is_some() { " AND session_version = ? AND NOT disabled" } else { "" };
    let update = query(format!(
        "UPDATE portcullis_accounts SET password_hash = ?, session_version = session_version + 1, \
         sessions_ended_at = GREATEST(sessions_ended_at, ?) WHERE kind = ? AND name = ?{still}"
    ))
    .bind(hash.expose().as_str())
    .bind(now)
    .bind(subject.kind.name())
    .bind(&*subject.name);
    Ok(proven.into_iter().fold(update, Query::bind).execute(tx.db()).await? > 0)
}

/// Puts `new` in the place of `old`.
pub(super) async fn rehash(
    relations: &Relations,
    tx: &mut Tx,
    subject: &Subject,
    (old, new): (&Secret<String>, &Secret<String>),
    now: UnixSeconds,
) -> Result<bool, StoreError> {
    if let Some(foreign) = relations.foreign(subject.kind) {
        let account = relations.settle(tx, subject, now).await?;
        let Some(account) = account.filter(|account| old.matches(account.password_hash.expose().as_bytes())) else {
            return Ok(false);
        };
        foreign.write_password(tx, &account.id, new).await?;
        query("UPDATE portcullis_user_state SET mark = ? WHERE user_id = ?")
            .bind(mark(new.expose()))
            .bind(&*account.id)
            .execute(tx.db())
            .await?;
        return Ok(true);
    }
    let done =
        query("UPDATE portcullis_accounts SET password_hash = ? WHERE kind = ? AND name = ? AND password_hash = ?")
            .bind(new.expose().as_str())
            .bind(subject.kind.name())
            .bind(&*subject.name)
            .bind(old.expose().as_str())
            .execute(tx.db())
            .await?;
    Ok(done > 0)
}

/// Replaces the roles.
pub(super) async fn set_roles(
    relations: &Relations,
    tx: &mut Tx,
    subject: &Subject,
    roles: &[Role],
    now: UnixSeconds,
) -> Result<bool, StoreError> {
    if let Some(foreign) = relations.foreign(subject.kind) {
        let Some(account) = relations.settle(tx, subject, now).await? else { return Ok(false) };
        foreign.write_roles(tx, &account.id, roles).await?;
        return Ok(true);
    }
    let done = query("UPDATE portcullis_accounts SET roles = ? WHERE kind = ? AND name = ?")
        .bind(names(roles, Role::as_str))
        .bind(subject.kind.name())
        .bind(&*subject.name)
        .execute(tx.db())
        .await?;
    Ok(done > 0)
}

/// Disables, which raises the session version, or enables.
pub(super) async fn set_disabled(
    relations: &Relations,
    tx: &mut Tx,
    subject: &Subject,
    disabled: bool,
    now: UnixSeconds,
) -> Result<bool, StoreError> {
    let (raise, ended_at) = (i64::from(disabled), if disabled { now } else { 0 });
    let change = |table: &str, condition: &str| {
        query(format!(
            "UPDATE {table} SET disabled = ?, session_version = session_version + ?, \
             sessions_ended_at = GREATEST(sessions_ended_at, ?) WHERE {condition}"
        ))
        .bind(disabled)
        .bind(raise)
        .bind(ended_at)
    };
    if let Some(foreign) = relations.foreign(subject.kind) {
        let Some(account) = relations.settle(tx, subject, now).await? else { return Ok(false) };
        foreign.write_active(tx, &account.id, !disabled).await?;
        change("portcullis_user_state", "user_id = ?").bind(&*account.id).execute(tx.db()).await?;
        if disabled {
            foreign.end_tokens(tx, &account.id).await?;
        }
        return Ok(true);
    }
    let change = change("portcullis_accounts", "kind = ? AND name = ?").bind(subject.kind.name()).bind(&*subject.name);
    Ok(change.execute(tx.db()).await? > 0)
}

/// Removes an account and leaves a tombstone.
pub(super) async fn remove(
    relations: &Relations,
    tx: &mut Tx,
    subject: &Subject,
    now: UnixSeconds,
) -> Result<bool, StoreError> {
    let version = if let Some(foreign) = relations.foreign(subject.kind) {
        let Some(account) = relations.settle(tx, subject, now).await? else { return Ok(false) };
        foreign.remove(tx, &account.id).await?;
        forget(tx, &account, now).await?;
        account.session_version
    } else {
        let Some(found) = relations.find(tx.db(), subject).await? else { return Ok(false) };
        query("DELETE FROM portcullis_accounts WHERE kind = ? AND name = ?")
            .bind(subject.kind.name())
            .bind(&*subject.name)
            .execute(tx.db())
            .await?;
        found.account.session_version
    };
    bury(tx, subject, version, now).await?;
    Ok(true)
}

/// Roles as this table can hold them.
struct Placed<'r> {
    /// Of the column.
    role: Option<&'r Role>,
    /// Of the table beside.
    listed: Vec<&'r Role>,
    /// Each flag's.
    flags: Vec<bool>,
}

impl Foreign {
    fn place<'r>(&self, roles: &'r [Role]) -> Result<Placed<'r>, StoreError> {
        let settings = &self.settings;
        let flags = settings.flags.iter().map(|(_, role)| roles.contains(role)).collect();
        let mut others = roles.iter().filter(|role| !settings.flags.iter().any(|(_, flagged)| flagged == *role));
        let role = if settings.role.is_some() { others.next() } else { None };
        let listed: Vec<_> = others.collect();
        if let (None, Some(role)) = (&settings.roles, listed.first()) {
            return Err(cannot(format!("the users table has no place for the role `{role}`")));
        }
        Ok(Placed { role, listed, flags })
    }

    async fn add(
        &self,
        tx: &mut Tx,
        subject: &Subject,
        hash: &Secret<String>,
        roles: &[Role],
    ) -> Result<Added, StoreError> {
        // whatever the column takes for the same name is the same name to the application
        let taken = query(format!("SELECT 1 AS one FROM {} u WHERE u.{} = ?", self.table, self.name))
            .bind(&*subject.name)
            .row(tx.db())
            .await?;
        if taken.is_some() {
            return Ok(Added::Taken);
        }
        let chars = i64::try_from(subject.name.chars().count()).unwrap_or(i64::MAX);
        if let Some(most) = self.name_chars.filter(|most| chars > *most) {
            return Ok(Added::TooLong(most));
        }
        let placed = self.place(roles)?;
        let quoted = |name: &str| self.engine.quoted(name);
        let mut columns = vec![self.name.clone(), quoted(self.settings.password.as_str())];
        let mut values = vec!["?", self.password_place()];
        let mut params = vec![Param::from(&*subject.name), Param::from(hash.expose().as_str())];
        if let Some(column) = &self.settings.role {
            columns.push(quoted(column.as_str()));
            values.push("?");
            params.push(placed.role.map_or("", Role::as_str).into());
        }
        for (number, ((flag, _), value)) in self.settings.flags.iter().zip(&placed.flags).enumerate() {
            columns.push(quoted(flag.as_str()));
            values.push("?");
            params.push(self.flag_param(number, *value));
        }
        if let Some(active) = &self.settings.active {
            columns.push(quoted(active.as_str()));
            values.push("?");
            params.push(self.active_param(true));
        }
        let text = format!("INSERT INTO {} ({}) VALUES ({})", self.table, columns.join(", "), values.join(", "));
        let inserted = params.into_iter().fold(query(text), Query::bind).try_execute(tx.db()).await;
        match inserted {
            Ok(_) => {}
            // somebody else was faster, who does not take our lock
            Err(error) if error.as_database_error().is_some_and(sqlx::error::DatabaseError::is_unique_violation) => {
                return Ok(Added::Taken);
            }
            Err(error) => return Err(failed(error)),
        }
        if !placed.listed.is_empty() {
            let text = format!("SELECT {} AS id FROM {} u WHERE u.{} = ?", self.id_text(), self.table, self.name);
            let id = query(text).bind(&*subject.name).one(tx.db()).await?.text("id")?;
            self.write_listed(tx, &id, &placed.listed).await?;
        }
        Ok(Added::Yes)
    }

    fn id_text(&self) -> String {
        self.engine.as_text(&format!("u.{}", self.id))
    }

    fn id_of(&self, id: &str) -> Result<Param, StoreError> {
        self.id_param(id).ok_or_else(|| StoreError::Broken("a user's id is not of its column's type".into()))
    }

    async fn write_password(&self, tx: &mut Tx, id: &str, hash: &Secret<String>) -> Result<(), StoreError> {
        let column = self.engine.quoted(self.settings.password.as_str());
        let (place, id_place) = (self.password_place(), self.id_place());
        query(format!("UPDATE {} SET {column} = {place} WHERE {} = {id_place}", self.table, self.id))
            .bind(hash.expose().as_str())
            .bind(self.id_of(id)?)
            .execute(tx.db())
            .await
            .map(drop)
    }

    async fn write_active(&self, tx: &mut Tx, id: &str, active: bool) -> Result<(), StoreError> {
        let Some(column) = &self.settings.active else { return Ok(()) };
        let column = self.engine.quoted(column.as_str());
        query(format!("UPDATE {} SET {column} = ? WHERE {} = {}", self.table, self.id, self.id_place()))
            .bind(self.active_param(active))
            .bind(self.id_of(id)?)
            .execute(tx.db())
            .await
            .map(drop)
    }

    async fn write_roles(&self, tx: &mut Tx, id: &str, roles: &[Role]) -> Result<(), StoreError> {
        let placed = self.place(roles)?;
        let (mut sets, mut params) = (Vec::new(), Vec::new());
        if let Some(column) = &self.settings.role {
            sets.push(format!("{} = ?", self.engine.quoted(column.as_str())));
            params.push(Param::from(placed.role.map_or("", Role::as_str)));
        }
        for (number, ((flag, _), value)) in self.settings.flags.iter().zip(&placed.flags).enumerate() {
            sets.push(format!("{} = ?", self.engine.quoted(flag.as_str())));
            params.push(self.flag_param(number, *value));
        }
        if !sets.is_empty() {
            params.push(self.id_of(id)?);
            let text = format!("UPDATE {} SET {} WHERE {} = {}", self.table, sets.join(", "), self.id, self.id_place());
            params.into_iter().fold(query(text), Query::bind).execute(tx.db()).await?;
        }
        if self.settings.roles.is_some() {
            self.forget_listed(tx, id).await?;
            self.write_listed(tx, id, &placed.listed).await?;
        }
        Ok(())
    }

    async fn write_listed(&self, tx: &mut Tx, id: &str, roles: &[&Role]) -> Result<(), StoreError> {
        let Some(table) = &self.settings.roles else { return Ok(()) };
        let quoted = |name: &super::super::tables::Identifier| self.engine.quoted(name.as_str());
        let into = format!("INSERT INTO {} ({}, {})", quoted(&table.table), quoted(&table.user), quoted(&table.role));
        let user = format!("{} u WHERE u.{} = {}", self.table, self.id, self.id_place());
        for role in roles {
            let text = match &table.names {
                None => format!("{into} SELECT u.{}, {} FROM {user}", self.id, self.engine.as_text("?")),
                Some(names) => format!(
                    "{into} SELECT u.{}, n.{} FROM {} n, {user} AND n.{} = ?",
                    self.id,
                    quoted(&names.id),
                    quoted(&names.table),
                    quoted(&names.name)
                ),
            };
            let (id, role_param) = (self.id_of(id)?, Param::from(role.as_str()));
            let (first, second) = if table.names.is_none() { (role_param, id) } else { (id, role_param) };
            if query(text).bind(first).bind(second).execute(tx.db()).await? == 0 {
                return Err(cannot(format!("the application has no role `{role}`")));
            }
        }
        Ok(())
    }

    async fn forget_listed(&self, tx: &mut Tx, id: &str) -> Result<(), StoreError> {
        let Some(table) = &self.settings.roles else { return Ok(()) };
        let (from, user) = (self.engine.quoted(table.table.as_str()), self.engine.quoted(table.user.as_str()));
        query(format!("DELETE FROM {from} WHERE {user} = {}", self.id_place()))
            .bind(self.id_of(id)?)
            .execute(tx.db())
            .await
            .map(drop)
    }

    /// The application's own tokens of a user.
    async fn end_tokens(&self, tx: &mut Tx, id: &str) -> Result<(), StoreError> {
        let Some(tokens) = &self.tokens else { return Ok(()) };
        query(format!("DELETE FROM {} WHERE {} = {}", tokens.table, tokens.user, self.id_place()))
            .bind(self.id_of(id)?)
            .execute(tx.db())
            .await
            .map(drop)
    }

    async fn remove(&self, tx: &mut Tx, id: &str) -> Result<(), StoreError> {
        self.end_tokens(tx, id).await?;
        self.forget_listed(tx, id).await?;
        query(format!("DELETE FROM {} WHERE {} = {}", self.table, self.id, self.id_place()))
            .bind(self.id_of(id)?)
            .execute(tx.db())
            .await
            .map(drop)
    }
}
