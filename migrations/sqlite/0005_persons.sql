-- What is kept beside a user of another application is of one person: one row for an id, with the name as last seen. Of
-- several rows for one id all but one are of names from before. The one that stays, where it disables anybody that one, is
-- above them all and judged anew; the names of the others are left as those of removed accounts are.
-- Nobody knows which ids the removed accounts had, so an id that was never seen is above them all too: kind 'ids'.
INSERT INTO portcullis_tombstones (kind, name, session_version, removed_at)
SELECT 'ids', '', highest, latest
FROM (SELECT max(session_version) AS highest, max(removed_at) AS latest FROM portcullis_tombstones WHERE kind = 'user')
WHERE highest IS NOT NULL;

CREATE TABLE portcullis_user_state_by_id (
    user_id TEXT PRIMARY KEY COLLATE BINARY,
    name TEXT COLLATE BINARY,                       -- null: somebody else has it since
    mark BLOB NOT NULL,                             -- SHA-256 of the password's hash as last seen
    session_version INTEGER NOT NULL DEFAULT 1,
    sessions_ended_at INTEGER NOT NULL DEFAULT 0,   -- unix seconds
    disabled INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

CREATE TABLE portcullis_ids_of_several AS
SELECT user_id FROM portcullis_user_state GROUP BY user_id HAVING count(*) > 1;

INSERT INTO portcullis_user_state_by_id (user_id, name, mark, session_version, sessions_ended_at, disabled)
SELECT user_id, name, mark, session_version, sessions_ended_at, disabled FROM portcullis_user_state
WHERE user_id NOT IN (SELECT user_id FROM portcullis_ids_of_several)
ORDER BY user_id;

INSERT INTO portcullis_user_state_by_id (user_id, name, mark, session_version, sessions_ended_at, disabled)
SELECT user_id, name, mark, highest + 1, max(sessions_ended_at, CAST(strftime('%s', 'now') AS INTEGER)), disabled
FROM (
    SELECT *, row_number() OVER (PARTITION BY user_id ORDER BY disabled DESC, session_version DESC, name) AS place,
        max(session_version) OVER (PARTITION BY user_id) AS highest
    FROM portcullis_user_state WHERE user_id IN (SELECT user_id FROM portcullis_ids_of_several)
)
WHERE place = 1;

INSERT INTO portcullis_tombstones (kind, name, session_version, removed_at)
SELECT 'user', o.name, n.session_version - 1, CAST(strftime('%s', 'now') AS INTEGER)
FROM portcullis_user_state o JOIN portcullis_user_state_by_id n ON n.user_id = o.user_id
WHERE n.name <> o.name
ON CONFLICT (kind, name) DO UPDATE
SET session_version = max(session_version, excluded.session_version), removed_at = max(removed_at, excluded.removed_at);

DROP TABLE portcullis_ids_of_several;
DROP TABLE portcullis_user_state;
ALTER TABLE portcullis_user_state_by_id RENAME TO portcullis_user_state;
CREATE UNIQUE INDEX portcullis_user_state_name ON portcullis_user_state (name);
