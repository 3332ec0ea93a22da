//! One way to talk to three engines: text with `?` for its values, and rows that are read by name.
//!
//! Statements are written once, in what the engines have in common; [`Engine::text`] puts in what they spell differently.
//! Values are always bound. Errors name no value.

use std::borrow::Cow;

use sqlx::mysql::{MySql, MySqlConnection, MySqlPool, MySqlRow};
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnection, PgPool, PgRow, Postgres};
use sqlx::sqlite::{Sqlite, SqliteConnection, SqlitePool, SqliteRow};
use sqlx::{AssertSqlSafe, Row as _, Transaction};

use super::super::StoreError;
use super::errors::failed;

/// The engines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum Engine {
    Sqlite,
    Postgres,
    /// `MySQL` and `MariaDB`.
    MySql,
}

impl Engine {
    /// A statement as this engine reads it.
    fn text(self, common: &str) -> Cow<'_, str> {
        match self {
            Self::MySql => Cow::Borrowed(common),
            Self::Sqlite => Cow::Owned(common.replace("GREATEST(", "max(")),
            Self::Postgres => {
                let mut numbered = String::with_capacity(common.len() + 16);
                for (number, piece) in common.split('?').enumerate() {
                    if number > 0 {
                        numbered.push('$');
                        numbered.push_str(&number.to_string());
                    }
                    numbered.push_str(piece);
                }
                Cow::Owned(numbered)
            }
        }
    }

    /// A name between this engine's quotes; a point sets a schema off from its table. The name was checked to have no quote.
    pub(in crate::store) fn quoted(self, name: &str) -> String {
        let quote = match self {
            Self::Sqlite | Self::Postgres => '"',
            Self::MySql => '`',
        };
        name.split('.').map(|part| format!("{quote}{part}{quote}")).collect::<Vec<_>>().join(".")
    }

    /// An expression as text.
    pub(in crate::store) fn as_text(self, expression: &str) -> String {
        match self {
            Self::Sqlite | Self::Postgres => format!("CAST({expression} AS TEXT)"),
            Self::MySql => format!("CONVERT({expression} USING utf8mb4)"),
        }
    }

    /// An expression as a number of 64 bits.
    pub(in crate::store) fn as_number(self, expression: &str) -> String {
        match self {
            Self::Sqlite => format!("CAST({expression} AS INTEGER)"),
            Self::Postgres => format!("CAST({expression} AS BIGINT)"),
            Self::MySql => format!("CAST({expression} AS SIGNED)"),
        }
    }
}

/// Connections to one of them.
#[derive(Clone, Debug)]
pub(in crate::store) enum Pool {
    /// One that writes, and some that read.
    Sqlite {
        writer: SqlitePool,
        readers: SqlitePool,
    },
    Postgres(PgPool),
    MySql(MySqlPool),
}

impl Pool {
    pub(in crate::store) const fn engine(&self) -> Engine {
        match self {
            Self::Sqlite { .. } => Engine::Sqlite,
            Self::Postgres(_) => Engine::Postgres,
            Self::MySql(_) => Engine::MySql,
        }
    }

    /// A connection to read with.
    pub(in crate::store) async fn reading(&self) -> Result<Reading, StoreError> {
        Ok(match self {
            Self::Sqlite { readers, .. } => Reading::Sqlite(readers.acquire().await.map_err(failed)?),
            Self::Postgres(pool) => Reading::Postgres(pool.acquire().await.map_err(failed)?),
            Self::MySql(pool) => Reading::MySql(pool.acquire().await.map_err(failed)?),
        })
    }

    /// A transaction; in `SQLite` it holds the write lock.
    pub(in crate::store) async fn begin(&self) -> Result<Tx, StoreError> {
        Ok(match self {
            Self::Sqlite { writer, .. } => Tx::Sqlite(writer.begin_with("BEGIN IMMEDIATE").await.map_err(failed)?),
            Self::Postgres(pool) => {
                Tx::Postgres(pool.begin_with("BEGIN ISOLATION LEVEL READ COMMITTED").await.map_err(failed)?)
            }
            Self::MySql(pool) => Tx::MySql(pool.begin().await.map_err(failed)?),
        })
    }

    /// Ends every connection once its work is done.
    pub(in crate::store) async fn close(&self) {
        match self {
            Self::Sqlite { writer, readers } => {
                readers.close().await;
                writer.close().await;
            }
            Self::Postgres(pool) => pool.close().await,
            Self::MySql(pool) => pool.close().await,
        }
    }
}

/// A connection out of the pool.
#[derive(Debug)]
pub(in crate::store) enum Reading {
    Sqlite(PoolConnection<Sqlite>),
    Postgres(PoolConnection<Postgres>),
    MySql(PoolConnection<MySql>),
}

impl Reading {
    pub(in crate::store) fn db(&mut self) -> Db<'_> {
        match self {
            Self::Sqlite(connection) => Db::Sqlite(connection),
            Self::Postgres(connection) => Db::Postgres(connection),
            Self::MySql(connection) => Db::MySql(connection),
        }
    }
}

/// A transaction; one that is dropped did not happen.
#[derive(Debug)]
pub(in crate::store) enum Tx {
    Sqlite(Transaction<'static, Sqlite>),
    Postgres(Transaction<'static, Postgres>),
    MySql(Transaction<'static, MySql>),
}

impl Tx {
    pub(in crate::store) fn db(&mut self) -> Db<'_> {
        match self {
            Self::Sqlite(tx) => Db::Sqlite(tx),
            Self::Postgres(tx) => Db::Postgres(tx),
            Self::MySql(tx) => Db::MySql(tx),
        }
    }

    pub(in crate::store) async fn commit(self) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(tx) => tx.commit().await,
            Self::Postgres(tx) => tx.commit().await,
            Self::MySql(tx) => tx.commit().await,
        }
        .map_err(failed)
    }
}

/// Where a statement goes.
#[derive(Debug)]
pub(in crate::store) enum Db<'c> {
    Sqlite(&'c mut SqliteConnection),
    Postgres(&'c mut PgConnection),
    MySql(&'c mut MySqlConnection),
}

impl Db<'_> {
    pub(in crate::store) const fn engine(&self) -> Engine {
        match self {
            Self::Sqlite(_) => Engine::Sqlite,
            Self::Postgres(_) => Engine::Postgres,
            Self::MySql(_) => Engine::MySql,
        }
    }

    /// The same connection for one statement of several.
    pub(in crate::store) fn again(&mut self) -> Db<'_> {
        match self {
            Self::Sqlite(connection) => Db::Sqlite(connection),
            Self::Postgres(connection) => Db::Postgres(connection),
            Self::MySql(connection) => Db::MySql(connection),
        }
    }

    /// Several statements at once, without values.
    pub(in crate::store) async fn script(self, text: &'static str) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(connection) => sqlx::raw_sql(text).execute(connection).await.map(drop),
            Self::Postgres(connection) => sqlx::raw_sql(text).execute(connection).await.map(drop),
            Self::MySql(connection) => sqlx::raw_sql(text).execute(connection).await.map(drop),
        }
        .map_err(failed)
    }
}

/// A value to bind.
#[derive(Clone)]
pub(in crate::store) enum Param {
    Number(Option<i64>),
    Text(Option<String>),
    Bytes(Option<Vec<u8>>),
    Truth(bool),
}

macro_rules! param_from {
    ($($from:ty => |$value:ident| $param:expr,)*) => {
        $(impl From<$from> for Param {
            fn from($value: $from) -> Self {
                $param
            }
        })*
    };
}

param_from! {
    i64 => |value| Self::Number(Some(value)),
    Option<i64> => |value| Self::Number(value),
    &str => |value| Self::Text(Some(value.to_owned())),
    Option<&str> => |value| Self::Text(value.map(str::to_owned)),
    String => |value| Self::Text(Some(value)),
    &[u8] => |value| Self::Bytes(Some(value.to_vec())),
    Vec<u8> => |value| Self::Bytes(Some(value)),
    bool => |value| Self::Truth(value),
}

/// A statement with its values.
#[must_use]
pub(in crate::store) struct Query {
    text: Cow<'static, str>,
    params: Vec<Param>,
}

/// A statement. Its text is a constant or was built of checked, quoted names; it holds no value.
pub(in crate::store) fn query(text: impl Into<Cow<'static, str>>) -> Query {
    Query { text: text.into(), params: Vec::new() }
}

macro_rules! prepared {
    ($engine:expr, $query:expr) => {{
        let text = $engine.text(&$query.text).into_owned();
        let mut prepared = sqlx::query(AssertSqlSafe(text));
        for param in $query.params {
            prepared = match param {
                Param::Number(value) => prepared.bind(value),
                Param::Text(value) => prepared.bind(value),
                Param::Bytes(value) => prepared.bind(value),
                Param::Truth(value) => prepared.bind(value),
            };
        }
        prepared
    }};
}

impl Query {
    pub(in crate::store) fn bind(mut self, value: impl Into<Param>) -> Self {
        self.params.push(value.into());
        self
    }

    /// Carries it out; how many rows it was about.
    pub(in crate::store) async fn execute(self, db: Db<'_>) -> Result<u64, StoreError> {
        self.try_execute(db).await.map_err(failed)
    }

    /// The same, for who looks at the error.
    pub(in crate::store) async fn try_execute(self, db: Db<'_>) -> Result<u64, sqlx::Error> {
        match db {
            Db::Sqlite(connection) => {
                prepared!(Engine::Sqlite, self).execute(connection).await.map(|done| done.rows_affected())
            }
            Db::Postgres(connection) => {
                prepared!(Engine::Postgres, self).execute(connection).await.map(|done| done.rows_affected())
            }
            Db::MySql(connection) => {
                prepared!(Engine::MySql, self).execute(connection).await.map(|done| done.rows_affected())
            }
        }
    }

    pub(in crate::store) async fn rows(self, db: Db<'_>) -> Result<Vec<Row>, StoreError> {
        Ok(match db {
            Db::Sqlite(connection) => {
                let rows = prepared!(Engine::Sqlite, self).fetch_all(connection).await.map_err(failed)?;
                rows.into_iter().map(Row::Sqlite).collect()
            }
            Db::Postgres(connection) => {
                let rows = prepared!(Engine::Postgres, self).fetch_all(connection).await.map_err(failed)?;
                rows.into_iter().map(Row::Postgres).collect()
            }
            Db::MySql(connection) => {
                let rows = prepared!(Engine::MySql, self).fetch_all(connection).await.map_err(failed)?;
                rows.into_iter().map(Row::MySql).collect()
            }
        })
    }

    /// The first row, where there is any.
    pub(in crate::store) async fn row(self, db: Db<'_>) -> Result<Option<Row>, StoreError> {
        Ok(self.rows(db).await?.into_iter().next())
    }

    /// The one row of a statement that always has one.
    pub(in crate::store) async fn one(self, db: Db<'_>) -> Result<Row, StoreError> {
        self.row(db).await?.ok_or_else(|| StoreError::Broken("a row is missing".into()))
    }
}

/// A row, read by the names of its columns.
pub(in crate::store) enum Row {
    Sqlite(SqliteRow),
    Postgres(PgRow),
    MySql(MySqlRow),
}

fn missing(column: &str) -> StoreError {
    StoreError::Broken(format!("a row has no {column}").into())
}

macro_rules! get {
    ($self:ident, $name:ident, $type:ty) => {
        match $self {
            Self::Sqlite(row) => row.try_get::<Option<$type>, _>($name),
            Self::Postgres(row) => row.try_get::<Option<$type>, _>($name),
            // text is kept as bytes there, and the type of an expression is what the server happens to choose
            Self::MySql(row) => row.try_get_unchecked::<Option<$type>, _>($name),
        }
        .map_err(failed)
    };
}

impl Row {
    pub(in crate::store) fn maybe_number(&self, name: &str) -> Result<Option<i64>, StoreError> {
        get!(self, name, i64)
    }

    pub(in crate::store) fn number(&self, name: &str) -> Result<i64, StoreError> {
        self.maybe_number(name)?.ok_or_else(|| missing(name))
    }

    pub(in crate::store) fn maybe_text(&self, name: &str) -> Result<Option<String>, StoreError> {
        get!(self, name, String)
    }

    /// The text of another application, which may be damaged: what is no UTF-8 is as good as nothing.
    pub(in crate::store) fn legible(&self, name: &str) -> Result<Option<String>, StoreError> {
        match self {
            // the others keep no such text, or make another of it
            Self::Sqlite(_) => Ok(self.maybe_bytes(name)?.and_then(|bytes| String::from_utf8(bytes).ok())),
            Self::Postgres(_) | Self::MySql(_) => self.maybe_text(name),
        }
    }

    pub(in crate::store) fn text(&self, name: &str) -> Result<String, StoreError> {
        self.maybe_text(name)?.ok_or_else(|| missing(name))
    }

    pub(in crate::store) fn maybe_bytes(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        get!(self, name, Vec<u8>)
    }

    /// False where it is null.
    pub(in crate::store) fn truth(&self, name: &str) -> Result<bool, StoreError> {
        match self {
            Self::Sqlite(_) | Self::MySql(_) => Ok(self.maybe_number(name)?.is_some_and(|number| number != 0)),
            Self::Postgres(row) => row.try_get::<Option<bool>, _>(name).map(Option::unwrap_or_default).map_err(failed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_is_spelt_as_the_engine_has_it() {
        let common = "UPDATE t SET a = GREATEST(a, ?) WHERE b = ?";
        for (engine, expected) in [
            (Engine::Sqlite, "UPDATE t SET a = max(a, ?) WHERE b = ?"),
            (Engine::Postgres, "UPDATE t SET a = GREATEST(a, $1) WHERE b = $2"),
            (Engine::MySql, common),
        ] {
            assert_eq!(engine.text(common), expected);
        }
    }

    #[test]
    fn names_are_quoted_part_by_part() {
        assert_eq!(Engine::Postgres.quoted("app.user"), "\"app\".\"user\"");
        assert_eq!(Engine::MySql.quoted("user"), "`user`");
    }
}
