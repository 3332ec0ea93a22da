-- What commands have done, for the next gateway that looks to tell in its audit log; a row goes once it is told.
CREATE TABLE portcullis_audit (
    seq BIGINT PRIMARY KEY,
    entry TEXT NOT NULL                             -- a JSON object
);
