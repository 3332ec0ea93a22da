-- Of users that live in a table of another application: what that table has no column for.
CREATE TABLE IF NOT EXISTS portcullis_user_state (
    name VARBINARY(255) NOT NULL PRIMARY KEY,
    user_id VARBINARY(255) NOT NULL,                -- of the row as last seen: another one is another user
    mark VARBINARY(32) NOT NULL,                    -- SHA-256 of the password's hash as last seen
    session_version BIGINT NOT NULL DEFAULT 1,
    sessions_ended_at BIGINT NOT NULL DEFAULT 0,    -- unix seconds
    disabled BOOLEAN NOT NULL DEFAULT FALSE
) ENGINE = InnoDB;
