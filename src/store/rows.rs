//! Rows to values and values to columns.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::sql::engine::Row;
use super::{Change, IssuedTo, RefreshToken, StoreError, StoredKey, TokenDigest, TokenListing};
use crate::principal::{Subject, SubjectKind};
use crate::secret::Secret;

/// The words in the column `kind` of tokens.
const TOKEN: &str = "token";
pub(super) const REFRESH: &str = "refresh";

pub(super) fn json(texts: &[&str]) -> String {
    serde_json::Value::from(texts).to_string()
}

pub(super) fn list<T: From<String>>(row: &Row, name: &str) -> Result<Arc<[T]>, StoreError> {
    let texts: Vec<String> = serde_json::from_str(&row.text(name)?)
        .map_err(|_| StoreError::Broken(format!("a row's {name} are no list of texts").into()))?;
    Ok(texts.into_iter().map(T::from).collect())
}

/// The columns `kind` and `name`.
pub(super) fn subject(row: &Row) -> Result<Subject, StoreError> {
    let word = row.text("kind")?;
    let kind = [SubjectKind::User, SubjectKind::Client]
        .into_iter()
        .find(|kind| kind.name() == word)
        .ok_or_else(|| StoreError::Broken("a row is of neither a user nor a client".into()))?;
    Ok(Subject { kind, name: row.text("name")?.into() })
}

pub(super) fn digest_column(row: &Row) -> Result<TokenDigest, StoreError> {
    let bytes = row.maybe_bytes("digest")?.and_then(|bytes| bytes.try_into().ok());
    bytes.map(TokenDigest).ok_or_else(|| StoreError::Broken("a digest is not of 32 bytes".into()))
}

pub(super) fn listing(row: &Row) -> Result<TokenListing, StoreError> {
    Ok(TokenListing {
        id: row.number("id")?,
        owner: subject(row)?,
        kind: if row.text("token_kind")? == REFRESH { REFRESH } else { TOKEN },
        issued_at: row.number("issued_at")?,
        expires_at: row.maybe_number("expires_at")?,
    })
}

pub(super) fn key(row: &Row) -> Result<StoredKey, StoreError> {
    Ok(StoredKey {
        id: row.text("id")?.into(),
        algorithm: row.text("algorithm")?.into(),
        private_key: Secret::new(row.maybe_bytes("private_key")?.unwrap_or_default()),
        signs_from: row.number("signs_from")?,
        verifies_until: row.maybe_number("verifies_until")?,
    })
}

/// The columns `client_id` and `client_version`.
pub(super) fn issued_to(row: &Row) -> Result<Option<IssuedTo>, StoreError> {
    let Some(id) = row.maybe_text("client_id")? else { return Ok(None) };
    // without one there is no such client any more, and the token is dead
    let session_version = row.maybe_number("client_version")?.unwrap_or(0);
    Ok(Some(IssuedTo { id: id.into(), session_version }))
}

pub(super) fn refresh(row: &Row) -> Result<RefreshToken, StoreError> {
    Ok(RefreshToken {
        owner: subject(row)?,
        client: issued_to(row)?,
        scopes: list(row, "scopes")?,
        family: row.text("family")?.into(),
        expires_at: row.number("expires_at")?,
        session_version: row.number("session_version")?,
    })
}

pub(super) fn change(row: &Row) -> Result<Change, StoreError> {
    let value = row.text("value")?;
    Ok(match row.text("kind")?.as_str() {
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
