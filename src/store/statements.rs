//! Statements that several operations share; each is one step of somebody's transaction.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::rows::{digest_column, json, refresh};
use super::sql::engine::{Db, Engine, Tx, query};
use super::{Change, Ended, NewToken, RefreshToken, StoreError, StoredKey, TokenDigest};
use crate::clock::UnixSeconds;
use crate::principal::{Scope, Subject};

/// A longer id of a JWT is kept as its digest.
const ID_BYTES_MAX: usize = 200;

/// Joins to a token `t` the client that it was issued to, as `c`, while the sessions last that it was issued in. Of one
/// that does not say which they were, seconds tell, which are coarse.
pub(super) const WITH_CLIENT: &str = "LEFT JOIN portcullis_accounts c ON c.kind = 'client' AND c.name = t.client_id \
     AND NOT c.disabled AND (c.session_version = t.client_version \
     OR t.client_version IS NULL AND t.issued_at > c.sessions_ended_at)";

/// The session version of that client when it got the token; where the row does not say it, the present one, so that what comes
/// of the token says it.
pub(super) const CLIENT_VERSION: &str = "COALESCE(t.client_version, c.session_version) AS client_version";

/// A refresh token as its row says; whether it is alive depends on its owner too.
pub(super) struct RefreshRow {
    pub(super) token: RefreshToken,
    pub(super) revoked: bool,
    pub(super) used_at_ms: Option<i64>,
    pub(super) replay: Option<Vec<u8>>,
}

pub(super) async fn refresh_row(db: Db<'_>, digest: TokenDigest) -> Result<Option<RefreshRow>, StoreError> {
    let row = query(format!(
        "SELECT t.owner_kind AS kind, t.owner_name AS name, t.client_id AS client_id, \
         {CLIENT_VERSION}, c.id AS living_client, t.scopes AS scopes, t.family AS family, \
         t.expires_at AS expires_at, t.session_version AS session_version, t.used_at_ms AS used_at_ms, \
         t.replay AS replay, t.revoked AS revoked, r.until AS revoked_until \
         FROM portcullis_tokens t LEFT JOIN portcullis_revocations r ON r.id = t.family {WITH_CLIENT} \
         WHERE t.digest = ? AND t.kind = 'refresh'"
    ))
    .bind(digest.0.as_slice())
    .row(db)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let token = refresh(&row)?;
    let orphaned = token.client.is_some() && row.maybe_number("living_client")?.is_none();
    Ok(Some(RefreshRow {
        token,
        revoked: orphaned || row.truth("revoked")? || row.maybe_number("revoked_until")?.is_some(),
        used_at_ms: row.maybe_number("used_at_ms")?,
        replay: row.maybe_bytes("replay")?,
    }))
}

pub(super) async fn insert_token(tx: &mut Tx, token: &NewToken, now: UnixSeconds) -> Result<(), StoreError> {
    query(
        "INSERT INTO portcullis_tokens \
         (kind, digest, owner_kind, owner_name, session_version, scopes, family, issued_at, expires_at, client_id, \
         client_version) \
         VALUES ('token', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(token.digest.0.as_slice())
    .bind(token.owner.kind.name())
    .bind(&*token.owner.name)
    .bind(token.session_version)
    .bind(json(&token.scopes.iter().map(Scope::as_str).collect::<Vec<_>>()))
    .bind(token.session.as_deref())
    .bind(now)
    .bind(token.expires_at)
    .bind(token.client.as_ref().map(|client| &*client.id))
    .bind(token.client.as_ref().map(|client| client.session_version))
    .execute(tx.db())
    .await
    .map(drop)
}

pub(super) async fn insert_refresh(
    tx: &mut Tx,
    digest: TokenDigest,
    token: &RefreshToken,
    now: UnixSeconds,
) -> Result<(), StoreError> {
    query(
        "INSERT INTO portcullis_tokens \
         (kind, digest, owner_kind, owner_name, session_version, scopes, family, issued_at, expires_at, client_id, \
         client_version) \
         VALUES ('refresh', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(digest.0.as_slice())
    .bind(token.owner.kind.name())
    .bind(&*token.owner.name)
    .bind(token.session_version)
    .bind(json(&token.scopes.iter().map(Scope::as_str).collect::<Vec<_>>()))
    .bind(&*token.family)
    .bind(now)
    .bind(token.expires_at)
    .bind(token.client.as_ref().map(|client| &*client.id))
    .bind(token.client.as_ref().map(|client| client.session_version))
    .execute(tx.db())
    .await
    .map(drop)
}

pub(super) async fn insert_key(tx: &mut Tx, key: &StoredKey) -> Result<(), StoreError> {
    query("INSERT INTO portcullis_keys (id, algorithm, private_key, signs_from, verifies_until) VALUES (?, ?, ?, ?, ?)")
        .bind(&*key.id)
        .bind(&*key.algorithm)
        .bind(key.private_key.expose().as_slice())
        .bind(key.signs_from)
        .bind(key.verifies_until)
        .execute(tx.db())
        .await
        .map(drop)
}

/// Opaque tokens go; refresh tokens stay until they expire, so that one that is used again is known for what it is.
pub(super) async fn end_sessions(tx: &mut Tx, subject: &Subject) -> Result<Ended, StoreError> {
    let of_owner = |statement| query(statement).bind(subject.kind.name()).bind(&*subject.name);
    let opaque = "DELETE FROM portcullis_tokens WHERE owner_kind = ? AND owner_name = ? AND kind = 'token'";
    let opaque = of_owner(opaque).execute(tx.db()).await?;
    let living = "SELECT digest FROM portcullis_tokens \
                  WHERE owner_kind = ? AND owner_name = ? AND NOT revoked AND used_at_ms IS NULL";
    let refresh = of_owner(living).rows(tx.db()).await?.len() as u64;
    // used ones too: within the grace they would be answered again
    let all = "UPDATE portcullis_tokens SET revoked = TRUE, replay = NULL WHERE owner_kind = ? AND owner_name = ?";
    of_owner(all).execute(tx.db()).await?;
    Ok(Ended { opaque, refresh })
}

pub(super) async fn end_family(
    tx: &mut Tx,
    family: &str,
    until: UnixSeconds,
    now: UnixSeconds,
) -> Result<(), StoreError> {
    let gone = query("SELECT digest FROM portcullis_tokens WHERE family = ? AND kind = 'token'")
        .bind(family)
        .rows(tx.db())
        .await?;
    query("DELETE FROM portcullis_tokens WHERE family = ? AND kind = 'token'").bind(family).execute(tx.db()).await?;
    for row in &gone {
        note(tx, &Change::Token(digest_column(row)?), now).await?;
    }
    query("UPDATE portcullis_tokens SET revoked = TRUE, replay = NULL WHERE family = ?")
        .bind(family)
        .execute(tx.db())
        .await?;
    revoke_id(tx, family, until).await?;
    note(tx, &Change::Session(family.into()), now).await
}

pub(super) async fn revoke_id(tx: &mut Tx, id: &str, until: UnixSeconds) -> Result<(), StoreError> {
    let latest = match tx.db().engine() {
        Engine::Sqlite | Engine::Postgres => {
            "ON CONFLICT (id) DO UPDATE SET until = GREATEST(portcullis_revocations.until, excluded.until)"
        }
        Engine::MySql => "ON DUPLICATE KEY UPDATE until = GREATEST(until, VALUES(until))",
    };
    query(format!("INSERT INTO portcullis_revocations (id, until) VALUES (?, ?) {latest}"))
        .bind(&*revocation_id(id))
        .bind(until)
        .execute(tx.db())
        .await
        .map(drop)
}

/// Others' JWTs may have ids of any length and content; a column has not.
pub(super) fn revocation_id(id: &str) -> Cow<'_, str> {
    if id.len() <= ID_BYTES_MAX && !id.contains('\0') {
        return Cow::Borrowed(id);
    }
    // no id is as long as this one and holds a blank
    Cow::Owned(format!("sha256 {}", URL_SAFE_NO_PAD.encode(super::digest(id).0)))
}

/// Writes a change for the other processes, in the transaction that makes it. The transaction holds the lock, so that
/// numbers have no gaps and become visible in their order.
pub(super) async fn note(tx: &mut Tx, change: &Change, now: UnixSeconds) -> Result<(), StoreError> {
    let (kind, value) = match change {
        Change::Subject(subject) => (subject.kind.name(), subject.name.to_string()),
        Change::Token(digest) => ("token", URL_SAFE_NO_PAD.encode(digest.0)),
        // one that no column can hold is told as everything
        Change::Session(id) if id.contains('\0') => ("all", String::new()),
        Change::Session(id) => ("session", id.to_string()),
        Change::Keys => ("keys", String::new()),
        Change::All => ("all", String::new()),
    };
    let next = last_change(tx.db()).await?.saturating_add(1);
    query("INSERT INTO portcullis_changes (seq, kind, value, at) VALUES (?, ?, ?, ?)")
        .bind(next)
        .bind(kind)
        .bind(value)
        .bind(now)
        .execute(tx.db())
        .await
        .map(drop)
}

pub(super) async fn last_change(db: Db<'_>) -> Result<i64, StoreError> {
    let row = query("SELECT max(seq) AS last FROM portcullis_changes").one(db).await?;
    Ok(row.maybe_number("last")?.unwrap_or(0))
}
