-- A token that a client got is alive only while client_version is that client's session version.
ALTER TABLE portcullis_tokens ADD COLUMN client_version INTEGER;
UPDATE portcullis_tokens SET client_version =
    (SELECT session_version FROM portcullis_accounts WHERE kind = 'client' AND name = portcullis_tokens.client_id)
WHERE client_id IS NOT NULL;
