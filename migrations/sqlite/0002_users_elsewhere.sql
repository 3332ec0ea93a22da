-- Of users that live in a table of another application: what that table has no column for.
CREATE TABLE portcullis_user_state (
    name TEXT PRIMARY KEY COLLATE BINARY,
    user_id TEXT NOT NULL,                          -- of the row as last seen: another one is another user
    mark BLOB NOT NULL,                             -- SHA-256 of the password's hash as last seen
    session_version INTEGER NOT NULL DEFAULT 1,
    sessions_ended_at INTEGER NOT NULL DEFAULT 0,   -- unix seconds
    disabled INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
