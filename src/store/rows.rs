//! Rows to values and values to columns, and what an error of the database means.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sqlx::Row;
use sqlx::sqlite::{Sqlite, SqliteRow};

use super::{Account, Change, RefreshToken, StoreError, StoredKey, TokenDigest, TokenListing};
use crate::principal::{Subject, SubjectKind};
use crate::secret::Secret;

/// The words in the column `kind` of tokens.
const TOKEN: &str = "token";
pub(super) const REFRESH: &str = "refresh";

pub(super) fn unavailable(why: &str) -> StoreError {
    StoreError::Unavailable(why.into())
}

/// What an error of the database means for us: come back later, or have somebody look at it.
#[expect(clippy::needless_pass_by_value, reason = "it is what map_err hands over")]
pub(super) fn failed(error: sqlx::Error) -> StoreError {
    let Some(refused) = error.as_database_error() else {
        return if matches!(error, sqlx::Error::PoolTimedOut) {
            unavailable("no connection was free in time")
        } else if matches!(error, sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed | sqlx::Error::Io(_)) {
            StoreError::Unavailable(error.to_string().into())
        } else {
            StoreError::Broken(error.to_string().into())
        };
    };
    // the low byte is the primary code (sqlite.org/rescode.html)
    let code = refused.code().and_then(|code| code.parse::<i64>().ok()).map_or(0, |code| code & 0xff);
    match code {
        5 | 6 => unavailable("it is locked"),
        8 => StoreError::Broken("it is read-only".into()),
        9 => unavailable("interrupted"),
        10 => unavailable("reading or writing the file failed"),
        13 => unavailable("the disk is full"),
        14 => unavailable("the file cannot be opened"),
        11 => StoreError::Broken("the file is damaged".into()),
        26 => StoreError::Broken("the file is no SQLite database".into()),
        _ => StoreError::Broken(refused.message().into()),
    }
}

pub(super) fn column<'r, T>(row: &'r SqliteRow, name: &str) -> Result<T, StoreError>
where
    T: sqlx::Decode<'r, Sqlite> + sqlx::Type<Sqlite>,
{
    row.try_get(name).map_err(failed)
}

pub(super) fn json(texts: &[&str]) -> String {
    serde_json::Value::from(texts).to_string()
}

pub(super) fn list<T: From<String>>(row: &SqliteRow, name: &str) -> Result<Arc<[T]>, StoreError> {
    let texts: Vec<String> = serde_json::from_str(column(row, name)?)
        .map_err(|_| StoreError::Broken(format!("a row's {name} are no list of texts").into()))?;
    Ok(texts.into_iter().map(T::from).collect())
}

fn subject_kind(word: &str) -> Result<SubjectKind, StoreError> {
    [SubjectKind::User, SubjectKind::Client]
        .into_iter()
        .find(|kind| kind.name() == word)
        .ok_or_else(|| StoreError::Broken("a row is of neither a user nor a client".into()))
}

pub(super) fn digest_column(row: &SqliteRow) -> Result<TokenDigest, StoreError> {
    let bytes: &[u8] = column(row, "digest")?;
    bytes.try_into().map(TokenDigest).map_err(|_| StoreError::Broken("a digest is not of 32 bytes".into()))
}

pub(super) fn account(row: &SqliteRow) -> Result<Account, StoreError> {
    let kind = subject_kind(column(row, "kind")?)?;
    Ok(Account {
        subject: Subject { kind, name: column::<String>(row, "name")?.into() },
        id: column::<i64>(row, "id")?.to_string().into(),
        password_hash: Secret::new(column(row, "password_hash")?),
        roles: list(row, "roles")?,
        scopes: list(row, "account_scopes")?,
        disabled: column(row, "disabled")?,
        session_version: column(row, "session_version")?,
        sessions_ended_at: column(row, "sessions_ended_at")?,
        created_at: column(row, "created_at")?,
    })
}

pub(super) fn listing(row: &SqliteRow) -> Result<TokenListing, StoreError> {
    let kind = subject_kind(column(row, "kind")?)?;
    Ok(TokenListing {
        id: column(row, "id")?,
        owner: Subject { kind, name: column::<String>(row, "name")?.into() },
        kind: if column::<&str>(row, "token_kind")? == REFRESH { REFRESH } else { TOKEN },
        issued_at: column(row, "issued_at")?,
        expires_at: column(row, "expires_at")?,
    })
}

pub(super) fn key(row: &SqliteRow) -> Result<StoredKey, StoreError> {
    Ok(StoredKey {
        id: column::<String>(row, "id")?.into(),
        algorithm: column::<String>(row, "algorithm")?.into(),
        private_key: Secret::new(column(row, "private_key")?),
        signs_from: column(row, "signs_from")?,
        verifies_until: column(row, "verifies_until")?,
    })
}

pub(super) fn refresh(row: &SqliteRow) -> Result<RefreshToken, StoreError> {
    let kind = subject_kind(column(row, "kind")?)?;
    Ok(RefreshToken {
        owner: Subject { kind, name: column::<String>(row, "name")?.into() },
        client_id: column::<Option<String>>(row, "client_id")?.map(Arc::from),
        scopes: list(row, "scopes")?,
        family: column::<String>(row, "family")?.into(),
        expires_at: column(row, "expires_at")?,
        session_version: column(row, "session_version")?,
    })
}

pub(super) fn change(row: &SqliteRow) -> Result<Change, StoreError> {
    let value: String = column(row, "value")?;
    Ok(match column::<&str>(row, "kind")? {
        "user" => Change::Subject(Subject::user(value)),
        "client" => Change::Subject(Subject::client(value)),
        "token" => digest_of(&value).map_or(Change::All, Change::Token),
        "session" => Change::Session(value.into()),
        "keys" => Change::Keys,
        // written by a newer version: whatever it was, it is covered
        _ => Change::All,
    })
}

fn digest_of(text: &str) -> Option<TokenDigest> {
    URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok().map(TokenDigest)
}
