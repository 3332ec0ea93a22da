-- What commands have done, for the next gateway that looks to tell in its audit log; a row goes once it is told.
CREATE TABLE IF NOT EXISTS portcullis_audit (
    seq BIGINT NOT NULL PRIMARY KEY,
    entry MEDIUMBLOB NOT NULL                       -- a JSON object
) ENGINE = InnoDB;
