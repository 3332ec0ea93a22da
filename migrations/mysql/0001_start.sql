-- DDL cannot be undone here: a step that was interrupted is begun again, so each statement does nothing where it was done.
-- What is compared is kept as bytes, which no collation takes for equal to others.

-- Users and clients. A user and a client of one name are two rows.
CREATE TABLE IF NOT EXISTS portcullis_accounts (
    id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
    kind VARBINARY(8) NOT NULL,
    name VARBINARY(255) NOT NULL,
    password_hash VARBINARY(1024) NOT NULL,
    roles MEDIUMBLOB NOT NULL,                      -- JSON list, in the order in which they were given
    scopes MEDIUMBLOB NOT NULL,                     -- JSON list
    disabled BOOLEAN NOT NULL DEFAULT FALSE,
    session_version BIGINT NOT NULL DEFAULT 1,
    sessions_ended_at BIGINT NOT NULL DEFAULT 0,    -- unix seconds
    created_at BIGINT NOT NULL,                     -- unix seconds
    UNIQUE KEY portcullis_accounts_name (kind, name)
) ENGINE = InnoDB;

-- What is left of removed accounts, so that a session version never comes twice under one name.
CREATE TABLE IF NOT EXISTS portcullis_tombstones (
    kind VARBINARY(8) NOT NULL,
    name VARBINARY(255) NOT NULL,
    session_version BIGINT NOT NULL,
    removed_at BIGINT NOT NULL,
    PRIMARY KEY (kind, name)
) ENGINE = InnoDB;

-- Opaque and refresh tokens, by SHA-256 of their text. A row is alive only while session_version is its owner's.
CREATE TABLE IF NOT EXISTS portcullis_tokens (
    id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
    kind VARBINARY(8) NOT NULL DEFAULT 'token',
    digest VARBINARY(32) NOT NULL,
    owner_kind VARBINARY(8) NOT NULL,
    owner_name VARBINARY(255) NOT NULL,
    session_version BIGINT NOT NULL DEFAULT 1,
    scopes MEDIUMBLOB NOT NULL,                     -- JSON list
    family VARBINARY(255),                          -- always there for a refresh token
    issued_at BIGINT NOT NULL DEFAULT 0,            -- unix seconds
    expires_at BIGINT,                              -- unix seconds; null: never
    -- of refresh tokens
    client_id VARBINARY(255),
    used_at_ms BIGINT,                              -- unix milliseconds
    replay MEDIUMBLOB,                              -- the answer to its use, sealed with the token
    revoked BOOLEAN NOT NULL DEFAULT FALSE,
    UNIQUE KEY portcullis_tokens_digest (digest),
    KEY portcullis_tokens_owner (owner_kind, owner_name),
    KEY portcullis_tokens_family (family),
    KEY portcullis_tokens_expiry (expires_at),
    KEY portcullis_tokens_used (used_at_ms)
) ENGINE = InnoDB;

-- JWTs by jti and families by sid.
CREATE TABLE IF NOT EXISTS portcullis_revocations (
    id VARBINARY(255) NOT NULL PRIMARY KEY,
    until BIGINT NOT NULL,                          -- unix seconds
    KEY portcullis_revocations_until (until)
) ENGINE = InnoDB;

CREATE TABLE IF NOT EXISTS portcullis_keys (
    number BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
    id VARBINARY(255) NOT NULL,
    algorithm VARBINARY(32) NOT NULL,
    private_key BLOB NOT NULL,
    signs_from BIGINT NOT NULL,                     -- unix seconds
    verifies_until BIGINT,                          -- unix seconds; null: it is current
    UNIQUE KEY portcullis_keys_id (id)
) ENGINE = InnoDB;

-- What every process on this store hears of. Numbers are given under the lock of portcullis_schema: they have no gaps,
-- and none becomes visible before a smaller one.
CREATE TABLE IF NOT EXISTS portcullis_changes (
    seq BIGINT NOT NULL PRIMARY KEY,
    kind VARBINARY(16) NOT NULL,
    value BLOB NOT NULL,
    at BIGINT NOT NULL,                             -- unix seconds
    KEY portcullis_changes_at (at)
) ENGINE = InnoDB;
