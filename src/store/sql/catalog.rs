//! What the live database says of another application's tables: whether they are there, with which columns, of which
//! types. A configuration that names something else is refused at the start, with what there is.

use super::super::StoreError;
use super::super::tables::Identifier;
use super::engine::{Db, Engine, query};

/// What we can do with a column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Type {
    Integer,
    /// With a fraction.
    Number,
    Text,
    Bytes,
    Uuid,
    Boolean,
    Time,
    /// `SQLite` keeps what it is given.
    Any,
    Other(String),
}

impl Type {
    fn of(engine: Engine, name: &str) -> Self {
        let name = name.to_ascii_lowercase();
        if engine == Engine::Sqlite {
            // only what has integer affinity compares as a number (sqlite.org/datatype3.html, 3.1)
            return if name.contains("int") { Self::Integer } else { Self::Any };
        }
        match name.as_str() {
            "int2" | "int4" | "int8" | "int" | "bigint" | "smallint" | "mediumint" | "tinyint" => Self::Integer,
            "float4" | "float8" | "numeric" | "decimal" | "float" | "double" => Self::Number,
            "text" | "varchar" | "bpchar" | "citext" | "name" | "char" | "tinytext" | "mediumtext" | "longtext"
            | "enum" => Self::Text,
            "bytea" | "binary" | "varbinary" | "blob" | "tinyblob" | "mediumblob" | "longblob" => Self::Bytes,
            "uuid" => Self::Uuid,
            "bool" | "bit" => Self::Boolean,
            "timestamp" | "timestamptz" | "date" | "datetime" => Self::Time,
            _ => Self::Other(name),
        }
    }
}

/// The length of a type such as `VARCHAR(50)`, which `SQLite` keeps as it was written.
fn declared_chars(engine: Engine, name: &str) -> Option<i64> {
    let name = name.to_ascii_lowercase();
    let (kind, length) = name.split_once('(')?;
    if engine != Engine::Sqlite || !kind.contains("char") {
        return None;
    }
    length.trim_end().strip_suffix(')')?.trim().parse().ok()
}

/// A column as it is.
#[derive(Debug)]
pub(super) struct Column {
    name: String,
    pub(super) kind: Type,
    /// How many characters it says that it takes; `None`: as many as we need. `SQLite` takes more all the same.
    pub(super) chars: Option<i64>,
}

/// The columns of a table.
#[derive(Debug)]
pub(super) struct Table<'a> {
    key: &'static str,
    name: &'a Identifier,
    columns: Vec<Column>,
}

/// Columns named in a message.
const NAMED_MAX: usize = 30;

impl<'a> Table<'a> {
    /// Looks `name` up; `key` is where the configuration names it.
    pub(super) async fn find(db: Db<'_>, key: &'static str, name: &'a Identifier) -> Result<Self, StoreError> {
        let engine = db.engine();
        let rows = match engine {
            Engine::Sqlite => {
                let (schema, table) = name.as_str().split_once('.').unwrap_or(("main", name.as_str()));
                query("SELECT name, type, NULL AS chars FROM pragma_table_info(?, ?)").bind(table).bind(schema)
            }
            Engine::Postgres => query(
                "SELECT CAST(a.attname AS TEXT) AS name, CAST(t.typname AS TEXT) AS type, \
                 CAST(CASE WHEN a.atttypmod > 4 AND t.typname IN ('varchar', 'bpchar') THEN a.atttypmod - 4 END AS BIGINT) \
                 AS chars FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid \
                 WHERE a.attrelid = to_regclass(?) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum",
            )
            .bind(engine.quoted(name.as_str())),
            Engine::MySql => {
                let (schema, table) = match name.as_str().split_once('.') {
                    Some((schema, table)) => (Some(schema), table),
                    None => (None, name.as_str()),
                };
                query(
                    "SELECT column_name AS name, data_type AS type, \
                     CAST(character_maximum_length AS SIGNED) AS chars FROM information_schema.columns \
                     WHERE table_schema = COALESCE(?, DATABASE()) AND table_name = ? ORDER BY ordinal_position",
                )
                .bind(schema)
                .bind(table)
            }
        }
        .rows(db)
        .await?;
        let columns = rows
            .iter()
            .map(|row| {
                let name = row.text("type")?;
                let chars = row.maybe_number("chars")?.or_else(|| declared_chars(engine, &name));
                Ok(Column { name: row.text("name")?, kind: Type::of(engine, &name), chars })
            })
            .collect::<Result<Vec<_>, StoreError>>()?;
        if columns.is_empty() {
            let text = format!("`store.{key}`: the database has no table `{}` that this login may see", name.as_str());
            return Err(StoreError::Broken(text.into()));
        }
        Ok(Self { key, name, columns })
    }

    /// The column `name`, where it is of one of `kinds`.
    pub(super) fn column(&self, name: &Identifier, kinds: &[Type]) -> Result<&Column, StoreError> {
        let Some(column) = self.columns.iter().find(|column| column.name == name.as_str()) else {
            let there: Vec<_> = self.columns.iter().take(NAMED_MAX).map(|column| column.name.as_str()).collect();
            return Err(self.wrong(&format!(
                "the table `{}` has no column `{}`; its columns are {}",
                self.name.as_str(),
                name.as_str(),
                there.join(", ")
            )));
        };
        if column.kind != Type::Any && !kinds.contains(&column.kind) {
            let text = format!("the column `{}` is of a type that cannot be used there", name.as_str());
            return Err(self.wrong(&text));
        }
        Ok(column)
    }

    /// The column `name`, whatever it holds.
    pub(super) fn any(&self, name: &Identifier) -> Result<(), StoreError> {
        match self.columns.iter().find(|column| column.name == name.as_str()) {
            Some(_) => Ok(()),
            None => self.column(name, &[]).map(drop),
        }
    }

    fn wrong(&self, text: &str) -> StoreError {
        StoreError::Broken(format!("`store.{}`: {text}", self.key).into())
    }
}
