-- A token that a client got is alive only while client_version is that client's session version. Only MariaDB can add a
-- column where it is absent, and a step that was cut off is begun again.
SET @portcullis_step = IF(
    (SELECT count(*) FROM information_schema.columns
     WHERE table_schema = DATABASE() AND table_name = 'portcullis_tokens' AND column_name = 'client_version') = 0,
    'ALTER TABLE portcullis_tokens ADD COLUMN client_version BIGINT',
    'DO 0');
PREPARE portcullis_step FROM @portcullis_step;
EXECUTE portcullis_step;
DEALLOCATE PREPARE portcullis_step;
UPDATE portcullis_tokens SET client_version =
    (SELECT session_version FROM portcullis_accounts WHERE kind = 'client' AND name = portcullis_tokens.client_id)
WHERE client_id IS NOT NULL;
