-- Users and clients. A user and a client of one name are two rows. Names compare byte for byte.
CREATE TABLE portcullis_accounts (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL CHECK (kind IN ('user', 'client')),
    name TEXT NOT NULL COLLATE BINARY,
    password_hash TEXT NOT NULL,
    roles TEXT NOT NULL DEFAULT '[]',               -- JSON list, in the order in which they were given
    scopes TEXT NOT NULL DEFAULT '[]',              -- JSON list
    disabled INTEGER NOT NULL DEFAULT 0,
    session_version INTEGER NOT NULL DEFAULT 1,
    sessions_ended_at INTEGER NOT NULL DEFAULT 0,   -- unix seconds
    created_at INTEGER NOT NULL,                    -- unix seconds
    UNIQUE (kind, name)
) STRICT;

-- What is left of removed accounts, so that a session version never comes twice under one name.
CREATE TABLE portcullis_tombstones (
    kind TEXT NOT NULL,
    name TEXT NOT NULL COLLATE BINARY,
    session_version INTEGER NOT NULL,
    removed_at INTEGER NOT NULL,
    PRIMARY KEY (kind, name)
) STRICT, WITHOUT ROWID;

-- Opaque and refresh tokens, by SHA-256 of their text. A row is alive only while session_version is its owner's.
-- Enough for an opaque token: (digest, owner_kind, owner_name, expires_at); an account that was never changed has version 1.
CREATE TABLE portcullis_tokens (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL DEFAULT 'token' CHECK (kind IN ('token', 'refresh')),
    digest BLOB NOT NULL UNIQUE CHECK (length(digest) = 32),
    owner_kind TEXT NOT NULL CHECK (owner_kind IN ('user', 'client')),
    owner_name TEXT NOT NULL COLLATE BINARY,
    session_version INTEGER NOT NULL DEFAULT 1,
    scopes TEXT NOT NULL DEFAULT '[]',              -- JSON list
    family TEXT,                                    -- always there for a refresh token
    issued_at INTEGER NOT NULL DEFAULT 0,           -- unix seconds
    expires_at INTEGER,                             -- unix seconds; null: never
    -- of refresh tokens
    client_id TEXT,
    used_at_ms INTEGER,                             -- unix milliseconds
    replay BLOB,                                    -- the answer to its use, sealed with the token
    revoked INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX portcullis_tokens_owner ON portcullis_tokens (owner_kind, owner_name);
CREATE INDEX portcullis_tokens_family ON portcullis_tokens (family) WHERE family IS NOT NULL;
CREATE INDEX portcullis_tokens_expiry ON portcullis_tokens (expires_at) WHERE expires_at IS NOT NULL;
CREATE INDEX portcullis_tokens_replay ON portcullis_tokens (used_at_ms) WHERE replay IS NOT NULL;

-- JWTs by jti and families by sid.
CREATE TABLE portcullis_revocations (
    id TEXT PRIMARY KEY COLLATE BINARY,
    until INTEGER NOT NULL                          -- unix seconds
) STRICT, WITHOUT ROWID;
CREATE INDEX portcullis_revocations_until ON portcullis_revocations (until);

CREATE TABLE portcullis_keys (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    algorithm TEXT NOT NULL,
    private_key BLOB NOT NULL,
    signs_from INTEGER NOT NULL,                    -- unix seconds
    verifies_until INTEGER                          -- unix seconds; null: it is current
) STRICT;

-- What every process on this store hears of.
CREATE TABLE portcullis_changes (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL,
    value TEXT NOT NULL,
    at INTEGER NOT NULL                             -- unix seconds
) STRICT;
CREATE INDEX portcullis_changes_at ON portcullis_changes (at);
