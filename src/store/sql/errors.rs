//! What an error of a database means for us: come back later, have somebody look at it, or it cannot be.
//!
//! An error's own text may name a value of a row, so it is told only where it is about tables, columns and rights.

use sqlx::error::DatabaseError;
use sqlx::mysql::MySqlDatabaseError;
use sqlx::postgres::PgDatabaseError;

use super::super::StoreError;

pub(in crate::store) fn unavailable(why: &str) -> StoreError {
    StoreError::Unavailable(why.into())
}

/// What an error of the database means.
#[expect(clippy::needless_pass_by_value, reason = "it is what map_err hands over")]
pub(in crate::store) fn failed(error: sqlx::Error) -> StoreError {
    let Some(refused) = error.as_database_error() else {
        let passes = matches!(
            error,
            sqlx::Error::PoolClosed
                | sqlx::Error::WorkerCrashed
                | sqlx::Error::BeginFailed
                | sqlx::Error::Io(_)
                | sqlx::Error::Tls(_)
                | sqlx::Error::Protocol(_)
        );
        return if matches!(error, sqlx::Error::PoolTimedOut) {
            unavailable("no connection was free or could be made in time")
        } else if passes {
            StoreError::Unavailable(error.to_string().into())
        } else {
            StoreError::Broken(error.to_string().into())
        };
    };
    if let Some(refused) = refused.try_downcast_ref::<PgDatabaseError>() {
        of_postgres(refused.code(), refused.message())
    } else if let Some(refused) = refused.try_downcast_ref::<MySqlDatabaseError>() {
        of_mysql(refused.number(), refused.message())
    } else {
        of_sqlite(refused)
    }
}

fn of_sqlite(refused: &dyn DatabaseError) -> StoreError {
    // the low byte is the primary code (sqlite.org/rescode.html)
    let code = refused.code().and_then(|code| code.parse::<i64>().ok()).map_or(0, |code| code & 0xff);
    match code {
        5 | 6 => unavailable("it is locked"),
        8 => StoreError::Broken("it is read-only".into()),
        9 => unavailable("interrupted"),
        10 => unavailable("reading or writing the file failed"),
        13 => unavailable("the disk is full"),
        14 => unavailable("the file cannot be opened"),
        11 => StoreError::Broken("the file is damaged".into()),
        19 => StoreError::Cannot(refused.message().into()),
        26 => StoreError::Broken("the file is no SQLite database".into()),
        _ => StoreError::Broken(refused.message().into()),
    }
}

/// By `SQLSTATE` (postgresql.org/docs/current/errcodes-appendix.html).
fn of_postgres(code: &str, message: &str) -> StoreError {
    let class = code.get(..2).unwrap_or_default();
    match (class, code) {
        // serialization and deadlocks, lock not available, out of means, an operator stops it, a standby
        ("08" | "40" | "53" | "57" | "58", _) | (_, "25006" | "25P03" | "55P03") => {
            StoreError::Unavailable(message.into())
        }
        ("23", _) => StoreError::Cannot(format!("a constraint of the table forbids it ({code})").into()),
        ("22", _) => StoreError::Cannot(format!("a value does not fit its column ({code})").into()),
        // about names, rights and who may log in
        ("28" | "3D" | "3F" | "42", _) => StoreError::Broken(message.into()),
        _ => StoreError::Broken(format!("PostgreSQL refused a statement ({code})").into()),
    }
}

/// By number (mariadb.com/kb/en/mariadb-error-code-reference).
fn of_mysql(number: u16, message: &str) -> StoreError {
    match number {
        // too many connections, out of means, shut down, locks and deadlocks, killed, read-only replica, too slow
        1020
        | 1021
        | 1037..=1041
        | 1053
        | 1114
        | 1158..=1161
        | 1180
        | 1203
        | 1205
        | 1213
        | 1226
        | 1290
        | 1317
        | 1792
        | 1836
        | 1927
        | 1969
        | 3024
        | 4031 => StoreError::Unavailable(format!("error {number}").into()),
        // a key taken, no value for a column, another row refers to it
        1048 | 1062 | 1216 | 1217 | 1364 | 1451 | 1452 | 4025 => {
            StoreError::Cannot(format!("a constraint of the table forbids it ({number})").into())
        }
        1264..=1266 | 1366 | 1406 => StoreError::Cannot(format!("a value does not fit its column ({number})").into()),
        // about names, rights and who may log in
        1044..=1046 | 1049 | 1054 | 1064 | 1142..=1143 | 1146 => StoreError::Broken(message.into()),
        _ => StoreError::Broken(format!("MySQL refused a statement ({number})").into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_by_itself_is_told_from_what_somebody_must_look_at() {
        let word = |error: StoreError| match error {
            StoreError::Unavailable(_) => "unavailable",
            StoreError::Broken(_) => "broken",
            StoreError::Cannot(_) => "cannot",
        };
        for (code, expected) in [
            ("57P01", "unavailable"),
            ("40P01", "unavailable"),
            ("55P03", "unavailable"),
            ("53300", "unavailable"),
            ("25006", "unavailable"),
            ("23505", "cannot"),
            ("22001", "cannot"),
            ("42P01", "broken"),
            ("28P01", "broken"),
            ("XX000", "broken"),
            ("", "broken"),
        ] {
            assert_eq!(word(of_postgres(code, "text")), expected, "{code}");
        }
        for (number, expected) in [
            (1205, "unavailable"),
            (1040, "unavailable"),
            (1062, "cannot"),
            (1406, "cannot"),
            (1146, "broken"),
            (1, "broken"),
        ] {
            assert_eq!(word(of_mysql(number, "text")), expected, "{number}");
        }
    }

    #[test]
    fn the_text_of_an_error_that_may_name_a_value_is_not_told() {
        for error in [of_mysql(1062, "Duplicate entry 'canary' for key"), of_postgres("22P02", "invalid: \"canary\"")] {
            assert!(!error.to_string().contains("canary"), "{error}");
        }
    }
}
