-- What is kept beside a user of another application is of one person: one row for an id, with the name as last seen. Of
-- several rows for one id all but one are of names from before. The one that stays, where it disables anybody that one, is
-- above them all and judged anew; the names of the others are left as those of removed accounts are.
-- Nobody knows which ids the removed accounts had, so an id that was never seen is above them all too: kind 'ids'.
-- Each statement is kept at once, and each may come again: a step that was cut off is begun again.
INSERT INTO portcullis_tombstones (kind, name, session_version, removed_at)
SELECT 'ids', '', t.highest, t.latest
FROM (SELECT max(session_version) AS highest, max(removed_at) AS latest FROM portcullis_tombstones WHERE kind = 'user') t
WHERE t.highest IS NOT NULL
ON DUPLICATE KEY UPDATE session_version = GREATEST(portcullis_tombstones.session_version, VALUES(session_version));

INSERT INTO portcullis_tombstones (kind, name, session_version, removed_at)
SELECT 'user', r.name, r.highest, UNIX_TIMESTAMP()
FROM (
    SELECT name, session_version, row_number() OVER (PARTITION BY user_id ORDER BY disabled DESC, session_version DESC, name) AS place,
        max(session_version) OVER (PARTITION BY user_id) AS highest, count(*) OVER (PARTITION BY user_id) AS many
    FROM portcullis_user_state
) r
WHERE r.place > 1
ON DUPLICATE KEY UPDATE session_version = GREATEST(portcullis_tombstones.session_version, VALUES(session_version)),
    removed_at = GREATEST(portcullis_tombstones.removed_at, VALUES(removed_at));

UPDATE portcullis_user_state s
JOIN (
    SELECT name, session_version, row_number() OVER (PARTITION BY user_id ORDER BY disabled DESC, session_version DESC, name) AS place,
        max(session_version) OVER (PARTITION BY user_id) AS highest, count(*) OVER (PARTITION BY user_id) AS many
    FROM portcullis_user_state
) r ON r.name = s.name
SET s.session_version = r.highest + 1, s.sessions_ended_at = GREATEST(s.sessions_ended_at, UNIX_TIMESTAMP())
WHERE r.place = 1 AND r.many > 1;

DELETE s FROM portcullis_user_state s
JOIN (
    SELECT name, session_version, row_number() OVER (PARTITION BY user_id ORDER BY disabled DESC, session_version DESC, name) AS place,
        max(session_version) OVER (PARTITION BY user_id) AS highest, count(*) OVER (PARTITION BY user_id) AS many
    FROM portcullis_user_state
) r ON r.name = s.name
WHERE r.place > 1;

-- a name is null where somebody else has it since
SET @portcullis_step = IF(
    (SELECT count(*) FROM information_schema.key_column_usage
     WHERE table_schema = DATABASE() AND table_name = 'portcullis_user_state' AND constraint_name = 'PRIMARY'
     AND column_name = 'name') = 1,
    'ALTER TABLE portcullis_user_state DROP PRIMARY KEY, MODIFY name VARBINARY(255) NULL, ADD PRIMARY KEY (user_id), ADD UNIQUE KEY portcullis_user_state_name (name)',
    'DO 0');
PREPARE portcullis_step FROM @portcullis_step;
EXECUTE portcullis_step;
DEALLOCATE PREPARE portcullis_step;
