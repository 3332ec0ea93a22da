//! Statements that several operations share; each is one step of somebody's transaction.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sqlx::Transaction;
use sqlx::sqlite::{Sqlite, SqliteConnection};

use super::rows::{column, digest_column, failed, json, refresh};
use super::{Change, NewToken, RefreshStanding, RefreshToken, StoreError, StoredKey, TokenDigest};
use crate::clock::UnixSeconds;
use crate::principal::{Scope, Subject};

type Tx = Transaction<'static, Sqlite>;

/// Where a refresh token stands, for reading and, inside a transaction, for using it up.
pub(super) async fn standing(
    connection: &mut SqliteConnection,
    digest: TokenDigest,
) -> Result<RefreshStanding, StoreError> {
    let row = sqlx::query(
        "SELECT t.owner_kind AS kind, t.owner_name AS name, t.client_id AS client_id, t.scopes AS scopes, \
         t.family AS family, t.expires_at AS expires_at, t.session_version AS session_version, \
         t.used_at_ms AS used_at_ms, t.replay AS replay, \
         t.revoked OR a.id IS NULL OR a.disabled OR a.session_version <> t.session_version \
         OR EXISTS (SELECT 1 FROM portcullis_revocations r WHERE r.id = t.family) AS revoked \
         FROM portcullis_tokens t \
         LEFT JOIN portcullis_accounts a ON a.kind = t.owner_kind AND a.name = t.owner_name \
         WHERE t.digest = ? AND t.kind = 'refresh'",
    )
    .bind(digest.0.as_slice())
    .fetch_optional(connection)
    .await
    .map_err(failed)?;
    let Some(row) = row else { return Ok(RefreshStanding::Unknown) };
    let token = refresh(&row)?;
    if column(&row, "revoked")? {
        return Ok(RefreshStanding::Revoked(token));
    }
    Ok(match column::<Option<i64>>(&row, "used_at_ms")? {
        Some(used_at_ms) => RefreshStanding::Used { token, used_at_ms, replay: column(&row, "replay")? },
        None => RefreshStanding::Live(token),
    })
}

pub(super) async fn insert_token(tx: &mut Tx, token: &NewToken, now: UnixSeconds) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO portcullis_tokens \
         (kind, digest, owner_kind, owner_name, session_version, scopes, family, issued_at, expires_at) \
         VALUES ('token', ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(token.digest.0.as_slice())
    .bind(token.owner.kind.name())
    .bind(&*token.owner.name)
    .bind(token.session_version)
    .bind(json(&token.scopes.iter().map(Scope::as_str).collect::<Vec<_>>()))
    .bind(token.session.as_deref())
    .bind(now)
    .bind(token.expires_at)
    .execute(&mut **tx)
    .await
    .map(drop)
    .map_err(failed)
}

pub(super) async fn insert_refresh(
    tx: &mut Tx,
    digest: TokenDigest,
    token: &RefreshToken,
    now: UnixSeconds,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO portcullis_tokens \
         (kind, digest, owner_kind, owner_name, session_version, scopes, family, issued_at, expires_at, client_id) \
         VALUES ('refresh', ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(digest.0.as_slice())
    .bind(token.owner.kind.name())
    .bind(&*token.owner.name)
    .bind(token.session_version)
    .bind(json(&token.scopes.iter().map(Scope::as_str).collect::<Vec<_>>()))
    .bind(&*token.family)
    .bind(now)
    .bind(token.expires_at)
    .bind(token.client_id.as_deref())
    .execute(&mut **tx)
    .await
    .map(drop)
    .map_err(failed)
}

pub(super) async fn insert_key(tx: &mut Tx, key: &StoredKey) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO portcullis_keys (id, algorithm, private_key, signs_from, verifies_until) VALUES (?, ?, ?, ?, ?)",
    )
    .bind(&*key.id)
    .bind(&*key.algorithm)
    .bind(key.private_key.expose().as_slice())
    .bind(key.signs_from)
    .bind(key.verifies_until)
    .execute(&mut **tx)
    .await
    .map(drop)
    .map_err(failed)
}

/// Opaque tokens go; refresh tokens stay until they expire, so that one that is used again is known for what it is.
pub(super) async fn end_sessions(tx: &mut Tx, subject: &Subject) -> Result<(), StoreError> {
    for statement in [
        "DELETE FROM portcullis_tokens WHERE owner_kind = ? AND owner_name = ? AND kind = 'token'",
        "UPDATE portcullis_tokens SET revoked = 1, replay = NULL WHERE owner_kind = ? AND owner_name = ?",
    ] {
        sqlx::query(statement)
            .bind(subject.kind.name())
            .bind(&*subject.name)
            .execute(&mut **tx)
            .await
            .map_err(failed)?;
    }
    Ok(())
}

pub(super) async fn end_family(
    tx: &mut Tx,
    family: &str,
    until: UnixSeconds,
    now: UnixSeconds,
) -> Result<(), StoreError> {
    let gone = sqlx::query("DELETE FROM portcullis_tokens WHERE family = ? AND kind = 'token' RETURNING digest")
        .bind(family)
        .fetch_all(&mut **tx)
        .await
        .map_err(failed)?;
    for row in &gone {
        note(tx, &Change::Token(digest_column(row)?), now).await?;
    }
    sqlx::query("UPDATE portcullis_tokens SET revoked = 1, replay = NULL WHERE family = ?")
        .bind(family)
        .execute(&mut **tx)
        .await
        .map_err(failed)?;
    revoke_id(tx, family, until).await?;
    note(tx, &Change::Session(family.into()), now).await
}

pub(super) async fn revoke_id(tx: &mut Tx, id: &str, until: UnixSeconds) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO portcullis_revocations (id, until) VALUES (?, ?) \
         ON CONFLICT (id) DO UPDATE SET until = max(until, excluded.until)",
    )
    .bind(id)
    .bind(until)
    .execute(&mut **tx)
    .await
    .map(drop)
    .map_err(failed)
}

/// Writes a change for the other processes, in the transaction that makes it.
pub(super) async fn note(tx: &mut Tx, change: &Change, now: UnixSeconds) -> Result<(), StoreError> {
    let (kind, value) = match change {
        Change::Subject(subject) => (subject.kind.name(), subject.name.to_string()),
        Change::Token(digest) => ("token", URL_SAFE_NO_PAD.encode(digest.0)),
        Change::Session(id) => ("session", id.to_string()),
        Change::Keys => ("keys", String::new()),
        Change::All => ("all", String::new()),
    };
    sqlx::query("INSERT INTO portcullis_changes (kind, value, at) VALUES (?, ?, ?)")
        .bind(kind)
        .bind(value)
        .bind(now)
        .execute(&mut **tx)
        .await
        .map(drop)
        .map_err(failed)
}

pub(super) async fn last_change(connection: &mut SqliteConnection) -> Result<i64, StoreError> {
    let last: Option<i64> =
        sqlx::query_scalar("SELECT max(seq) FROM portcullis_changes").fetch_one(connection).await.map_err(failed)?;
    Ok(last.unwrap_or(0))
}
