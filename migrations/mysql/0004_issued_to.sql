-- A token that a client got is alive only while client_version is that client's session version. Without one it is from
-- before this step, or from a gateway that does not know it yet: alive while the client is, and was since.
-- Only MariaDB can add a column where it is absent, and a step that was cut off is begun again.
SET @portcullis_step = IF(
    (SELECT count(*) FROM information_schema.columns
     WHERE table_schema = DATABASE() AND table_name = 'portcullis_tokens' AND column_name = 'client_version') = 0,
    'ALTER TABLE portcullis_tokens ADD COLUMN client_version BIGINT',
    'DO 0');
PREPARE portcullis_step FROM @portcullis_step;
EXECUTE portcullis_step;
DEALLOCATE PREPARE portcullis_step;
