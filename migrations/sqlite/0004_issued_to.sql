-- A token that a client got is alive only while client_version is that client's session version. Without one it is from
-- before this step, or from a gateway that does not know it yet: alive while the client is, and was since.
ALTER TABLE portcullis_tokens ADD COLUMN client_version INTEGER;
