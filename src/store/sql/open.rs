//! How a database is opened: a file that is made where it is absent, or a server that is reached.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use sqlx::mysql::{MySqlConnectOptions, MySqlPoolOptions};
use sqlx::pool::PoolConnectionMetadata;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, Executor as _};
use tracing::warn;

use super::super::StoreError;
use super::engine::Pool;
use super::{ACQUIRE_TIMEOUT, BUSY_TIMEOUT};
use crate::secret::Secret;

/// Connections that read an `SQLite` file.
const READERS: u32 = 4;

/// Connections to a server; each gateway has its own.
const SERVER_CONNECTIONS: u32 = 10;

/// A connection that was idle for longer is asked whether it still works.
pub(super) const TRUSTED_FOR: Duration = Duration::from_secs(1);

/// How long a connection may take to answer that, or to undo what was begun.
const PING_TIMEOUT: Duration = Duration::from_millis(500);

/// Where a server's database is; it may hold a password and is never shown.
#[derive(Debug)]
pub struct ServerUrl {
    kind: ServerKind,
    url: Secret<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ServerKind {
    Postgres,
    MySql,
}

impl Clone for ServerUrl {
    fn clone(&self) -> Self {
        Self { kind: self.kind, url: Secret::new(self.url.expose().clone()) }
    }
}

impl PartialEq for ServerUrl {
    fn eq(&self, other: &Self) -> bool {
        self.kind == other.kind && self.url.matches(other.url.expose().as_bytes())
    }
}

impl Eq for ServerUrl {}

impl ServerUrl {
    /// Reads `postgres://…`, `mysql://…` and their other names; `None` for another scheme.
    ///
    /// # Errors
    /// It is one of these and no URL, or names no database. The message does not show the URL.
    pub fn parse(url: &str) -> Option<Result<Self, &'static str>> {
        let (scheme, rest) = url.split_once(':')?;
        let (kind, name) = match scheme {
            "postgres" | "postgresql" => (ServerKind::Postgres, "postgres"),
            "mysql" | "mariadb" => (ServerKind::MySql, "mysql"),
            _ => return None,
        };
        let found = Self { kind, url: Secret::new(format!("{name}:{rest}")) };
        let database = match kind {
            ServerKind::Postgres => found.postgres().map(|options| options.get_database().is_some()),
            ServerKind::MySql => found.mysql().map(|options| options.get_database().is_some()),
        };
        Some(match database {
            Ok(true) if rest.starts_with("//") => Ok(found),
            Ok(false) => Err("this URL names no database: expected `SCHEME://USER:PASSWORD@HOST/DATABASE`"),
            Ok(true) | Err(_) => Err("not a URL such as `SCHEME://USER:PASSWORD@HOST/DATABASE`"),
        })
    }

    /// Where it is, without who goes there and by which password.
    pub fn place(&self) -> String {
        let place = |name: &str, host: &str, port: u16, database: Option<&str>| {
            format!("{name}://{host}:{port}/{}", database.unwrap_or_default())
        };
        match self.kind {
            ServerKind::Postgres => self
                .postgres()
                .map(|options| place("postgres", options.get_host(), options.get_port(), options.get_database())),
            ServerKind::MySql => self
                .mysql()
                .map(|options| place("mysql", options.get_host(), options.get_port(), options.get_database())),
        }
        // it was read when the file was
        .unwrap_or_default()
    }

    /// Of all that leads there; not to be printed, since a password could be guessed from it.
    pub fn fingerprint(&self) -> [u8; 32] {
        let mut out = [0; 32];
        out.copy_from_slice(digest(&SHA256, self.url.expose().as_bytes()).as_ref());
        out
    }

    fn postgres(&self) -> Result<PgConnectOptions, sqlx::Error> {
        let options = PgConnectOptions::from_str(self.url.expose())?;
        // a transaction of a process that vanished does not hold the lock for ever
        Ok(options
            .application_name("portcullis")
            .options([
                ("lock_timeout", "1500"),
                ("statement_timeout", "20000"),
                ("idle_in_transaction_session_timeout", "10000"),
            ])
            .disable_statement_logging())
    }

    fn mysql(&self) -> Result<MySqlConnectOptions, sqlx::Error> {
        Ok(MySqlConnectOptions::from_str(self.url.expose())?.disable_statement_logging())
    }
}

/// Connections to a server; none is made yet. Must be called within a runtime.
pub(super) fn server(url: &ServerUrl) -> Result<Pool, StoreError> {
    let unusable = |_| StoreError::Broken("its URL cannot be used".into());
    Ok(match url.kind {
        ServerKind::Postgres => Pool::Postgres(
            PgPoolOptions::new()
                .max_connections(SERVER_CONNECTIONS)
                .acquire_timeout(ACQUIRE_TIMEOUT)
                .test_before_acquire(false)
                .before_acquire(|connection, metadata| Box::pin(works(connection, metadata)))
                .after_release(|connection, _| Box::pin(answers(connection)))
                .connect_lazy_with(url.postgres().map_err(unusable)?),
        ),
        ServerKind::MySql => Pool::MySql(
            MySqlPoolOptions::new()
                .max_connections(SERVER_CONNECTIONS)
                .acquire_timeout(ACQUIRE_TIMEOUT)
                .test_before_acquire(false)
                .before_acquire(|connection, metadata| Box::pin(works(connection, metadata)))
                .after_release(|connection, _| Box::pin(answers(connection)))
                .after_connect(|connection, _| {
                    Box::pin(async move {
                        // what does not fit is refused and not cut off; the other is for MariaDB alone
                        connection
                            .execute(
                                "SET SESSION sql_mode = CONCAT(@@sql_mode, ',STRICT_ALL_TABLES'), \
                                 SESSION innodb_lock_wait_timeout = 1 \
                                 /*M!100300 , SESSION idle_transaction_timeout = 10 */",
                            )
                            .await?;
                        connection.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED").await?;
                        Ok(())
                    })
                })
                .connect_lazy_with(url.mysql().map_err(unusable)?),
        ),
    })
}

/// Whether a connection may be taken out of the pool: a server that was started anew ends those that it had.
async fn works<C: Connection>(connection: &mut C, metadata: PoolConnectionMetadata) -> Result<bool, sqlx::Error> {
    if metadata.idle_for < TRUSTED_FOR {
        return Ok(true);
    }
    answers(connection).await
}

/// Whether a connection answers, once what was left undone on it is undone. An error closes it hard.
async fn answers<C: Connection>(connection: &mut C) -> Result<bool, sqlx::Error> {
    match tokio::time::timeout(PING_TIMEOUT, connection.ping()).await {
        Ok(answer) => answer.map(|()| true),
        Err(_) => Err(sqlx::Error::PoolTimedOut),
    }
}

/// Connections to a file, which is made where it is absent. Must be called within a runtime.
pub(super) fn file(path: &Path) -> Result<Pool, StoreError> {
    create(path)?;
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(false)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(BUSY_TIMEOUT)
        .foreign_keys(true)
        .thread_name(|number| format!("store-{number}"))
        .disable_statement_logging();
    let pool = |most| {
        SqlitePoolOptions::new()
            .max_connections(most)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .test_before_acquire(false)
            .idle_timeout(None)
            .max_lifetime(None)
            .after_release(|connection, _| Box::pin(is_clean(connection)))
    };
    let reading = options.clone().pragma("query_only", "ON");
    Ok(Pool::Sqlite { writer: pool(1).connect_lazy_with(options), readers: pool(READERS).connect_lazy_with(reading) })
}

/// Makes the file where it is absent. `SQLite` gives its `-wal` and `-shm` the same mode. A file that is there is not opened:
/// closing it would drop the locks that this process holds on it (sqlite.org/howtocorrupt.html, 2.2).
fn create(path: &Path) -> Result<(), StoreError> {
    let failed = |error: io::Error| StoreError::Broken(format!("cannot open {}: {error}", path.display()).into());
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(file) => {
            // the name is to survive a power loss too
            let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            file.sync_all().and_then(|()| File::open(directory)?.sync_all()).map_err(failed)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let found = path.metadata().map_err(failed)?;
            if !found.is_file() {
                return Err(failed(io::ErrorKind::IsADirectory.into()));
            }
            if found.permissions().mode() & 0o077 != 0 {
                warn!(path = %path.display(), "the store can be read by others than its owner");
            }
            Ok(())
        }
        Err(error) => Err(failed(error)),
    }
}

/// Whether a connection may be used again. Where `SQLite` ends a transaction by itself, as it does when the disk is full, the
/// driver goes on counting it as begun and would refuse every later one.
async fn is_clean(connection: &mut sqlx::SqliteConnection) -> Result<bool, sqlx::Error> {
    // a rollback is only queued when its transaction is dropped; this waits for it
    connection.ping().await?;
    Ok(!connection.is_in_transaction())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_read_without_being_shown() {
        for (url, expected) in [
            ("postgres://ann:canary@db/app", Some(true)),
            ("postgresql://db:5433/app?sslmode=require", Some(true)),
            ("mysql://ann:canary@db:3306/app", Some(true)),
            ("mariadb://ann:canary@db/app", Some(true)),
            ("mysql://ann:canary@db", Some(false)),
            ("postgres://ann:canary@db:port/app", Some(false)),
            ("postgres:", Some(false)),
            ("sqlite:a", None),
            ("canary", None),
        ] {
            let parsed = ServerUrl::parse(url);
            assert_eq!(parsed.as_ref().map(Result::is_ok), expected, "{url}");
            assert!(!format!("{parsed:?}").contains("canary"), "{url}");
        }
    }

    #[test]
    fn where_it_is_can_be_said_and_told_from_elsewhere() {
        let parse = |url: &str| ServerUrl::parse(url).unwrap().unwrap();
        for (url, expected) in [
            ("postgres://ann:canary@db/app?password=canary", "postgres://db:5432/app"),
            ("postgresql://db:5433/app", "postgres://db:5433/app"),
            ("mariadb://ann:canary@db/app", "mysql://db:3306/app"),
        ] {
            assert_eq!(parse(url).place(), expected);
        }
        let [one, other] = ["postgres://ann:a@db/app", "postgres://ann:b@db/app"].map(|url| parse(url).fingerprint());
        assert!(one != other && one == parse("postgresql://ann:a@db/app").fingerprint());
    }
}
