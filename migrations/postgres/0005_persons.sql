-- What is kept beside a user of another application is of one person: one row for an id, with the name as last seen. Of
-- several rows for one id all but one are of names from before. The one that stays, where it disables anybody that one, is
-- above them all and judged anew; the names of the others are left as those of removed accounts are.
-- Nobody knows which ids the removed accounts had, so an id that was never seen is above them all too: kind 'ids'.
-- Whoever writes has this row first.
SELECT version FROM portcullis_schema FOR UPDATE;
LOCK TABLE portcullis_user_state IN ACCESS EXCLUSIVE MODE;

INSERT INTO portcullis_tombstones (kind, name, session_version, removed_at)
SELECT 'ids', '', t.highest, t.latest
FROM (SELECT max(session_version) AS highest, max(removed_at) AS latest FROM portcullis_tombstones WHERE kind = 'user') t
WHERE t.highest IS NOT NULL;

CREATE TEMPORARY TABLE portcullis_ranked ON COMMIT DROP AS
SELECT * FROM (
    SELECT name, session_version, row_number() OVER (PARTITION BY user_id ORDER BY disabled DESC, session_version DESC, name) AS place,
        max(session_version) OVER (PARTITION BY user_id) AS highest, count(*) OVER (PARTITION BY user_id) AS many
    FROM portcullis_user_state
) r WHERE r.many > 1;

INSERT INTO portcullis_tombstones (kind, name, session_version, removed_at)
SELECT 'user', name, highest, CAST(floor(EXTRACT(EPOCH FROM now())) AS BIGINT) FROM portcullis_ranked WHERE place > 1
ON CONFLICT (kind, name) DO UPDATE
SET session_version = GREATEST(portcullis_tombstones.session_version, excluded.session_version),
    removed_at = GREATEST(portcullis_tombstones.removed_at, excluded.removed_at);

DELETE FROM portcullis_user_state s USING portcullis_ranked r WHERE r.name = s.name AND r.place > 1;

UPDATE portcullis_user_state s
SET session_version = r.highest + 1,
    sessions_ended_at = GREATEST(s.sessions_ended_at, CAST(floor(EXTRACT(EPOCH FROM now())) AS BIGINT))
FROM portcullis_ranked r WHERE r.name = s.name AND r.place = 1;

-- a name is null where somebody else has it since
ALTER TABLE portcullis_user_state
    DROP CONSTRAINT portcullis_user_state_pkey,
    ALTER COLUMN user_id TYPE TEXT COLLATE "C",
    ALTER COLUMN name DROP NOT NULL,
    ADD PRIMARY KEY (user_id),
    ADD CONSTRAINT portcullis_user_state_name UNIQUE (name);
