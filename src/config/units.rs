//! Durations, sizes and rates as they are written: `30s`, `64KiB`, `30/m`.

use std::num::NonZeroU32;
use std::time::Duration;

/// Ten years; a longer duration is a mistake.
const DURATION_MAX: Duration = Duration::from_hours(3650 * 24);
/// 1 TiB; a larger size is a mistake.
const SIZE_MAX: u64 = 1 << 40;
/// A million; a larger count in a rate is a mistake.
const COUNT_MAX: u32 = 1_000_000;

/// Why a text is not a quantity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// Not of the form of one.
    #[error("not {0}")]
    Form(&'static str),
    /// Above the bound.
    #[error("too much; at most {0}")]
    TooMuch(&'static str),
    /// Zero where it would mean nothing.
    #[error("nothing; it must be above zero")]
    Zero,
}

/// What a duration looks like.
pub const DURATION: &str = "a duration such as `250ms`, `30s`, `15m`, `2h` or `7d`";
/// What a size looks like.
pub const SIZE: &str = "a size in bytes such as `65536`, `64KiB`, `10MiB` or `1GiB`";
/// What a rate looks like.
pub const RATE: &str = "a rate such as `10/s`, `30/m`, `1000/h` or `500/d`";

/// Reads `250ms`, `30s`, `15m`, `2h`, `7d`; zero with any unit.
///
/// # Errors
/// Where it is of another form, or above ten years.
pub fn duration(text: &str) -> Result<Duration, UnitError> {
    let (number, unit) = split(text).ok_or(UnitError::Form(DURATION))?;
    let unit_ms: u64 = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(UnitError::Form(DURATION)),
    };
    let ms = number.checked_mul(unit_ms).ok_or(UnitError::TooMuch("`3650d`"))?;
    let duration = Duration::from_millis(ms);
    if duration > DURATION_MAX { Err(UnitError::TooMuch("`3650d`")) } else { Ok(duration) }
}

/// Reads a number of bytes: `65536`, `64KiB`, `10MiB`, `1GiB`.
///
/// # Errors
/// Where it is of another form, or above 1 TiB.
pub fn size(text: &str) -> Result<u64, UnitError> {
    let (number, unit) = split(text).ok_or(UnitError::Form(SIZE))?;
    let unit: u64 = match unit {
        "" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(UnitError::Form(SIZE)),
    };
    let bytes = number.checked_mul(unit).ok_or(UnitError::TooMuch("`1024GiB`"))?;
    if bytes > SIZE_MAX { Err(UnitError::TooMuch("`1024GiB`")) } else { Ok(bytes) }
}

/// Reads `10/s`, `30/m`, `1000/h`, `500/d`.
///
/// # Errors
/// Where it is of another form, zero, or above a million.
pub fn rate(text: &str) -> Result<(NonZeroU32, Duration), UnitError> {
    let (number, unit) = split(text).ok_or(UnitError::Form(RATE))?;
    let seconds = match unit {
        "/s" => 1,
        "/m" => 60,
        "/h" => 3600,
        "/d" => 86_400,
        _ => return Err(UnitError::Form(RATE)),
    };
    let count =
        u32::try_from(number).ok().filter(|&count| count <= COUNT_MAX).ok_or(UnitError::TooMuch("`1000000`"))?;
    Ok((NonZeroU32::new(count).ok_or(UnitError::Zero)?, Duration::from_secs(seconds)))
}

/// Writes a duration as it is read, in the largest unit that it is a number of.
pub fn show_duration(duration: Duration) -> String {
    let ms = duration.as_millis();
    let units = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)];
    let unit = units.iter().find(|(_, length)| ms != 0 && ms.is_multiple_of(*length));
    unit.map_or_else(|| format!("{ms}ms"), |(unit, length)| format!("{}{unit}", ms / length))
}

/// Writes a number of bytes as it is read.
pub fn show_size(bytes: u64) -> String {
    let units = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    let unit = units.iter().find(|(_, length)| bytes != 0 && bytes.is_multiple_of(*length));
    unit.map_or_else(|| bytes.to_string(), |(unit, length)| format!("{}{unit}", bytes / length))
}

/// Writes a rate as it is read.
pub fn show_rate(count: NonZeroU32, per: Duration) -> String {
    let unit = match per.as_secs() {
        1 => "s",
        60 => "m",
        3600 => "h",
        _ => "d",
    };
    format!("{count}/{unit}")
}

/// The digits, and what follows them.
fn split(text: &str) -> Option<(u64, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    Some((number.parse().ok()?, unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_what_was_read() {
        for text in ["0ms", "1ms", "1500ms", "90s", "5s", "1m", "90m", "2h", "36h", "7d"] {
            assert_eq!(show_duration(duration(text).unwrap()), text);
        }
        for (text, shown) in [("60s", "1m"), ("24h", "1d"), ("1000ms", "1s"), ("0s", "0ms")] {
            assert_eq!(show_duration(duration(text).unwrap()), shown);
        }
        for text in ["0", "1", "1000", "1025", "64KiB", "10MiB", "1GiB", "1024GiB"] {
            assert_eq!(show_size(size(text).unwrap()), text);
        }
        for text in ["10/s", "30/m", "1000/h", "500/d"] {
            let (count, per) = rate(text).unwrap();
            assert_eq!(show_rate(count, per), text);
        }
    }

    #[test]
    fn durations_have_one_number_and_one_unit() {
        for (text, expected) in [
            ("250ms", Ok(Duration::from_millis(250))),
            ("30s", Ok(Duration::from_secs(30))),
            ("15m", Ok(Duration::from_mins(15))),
            ("2h", Ok(Duration::from_hours(2))),
            ("7d", Ok(Duration::from_hours(168))),
            ("0s", Ok(Duration::ZERO)),
            ("3650d", Ok(DURATION_MAX)),
            ("3651d", Err(UnitError::TooMuch("`3650d`"))),
            ("18446744073709551615d", Err(UnitError::TooMuch("`3650d`"))),
            ("18446744073709551616s", Err(UnitError::Form(DURATION))),
            ("30", Err(UnitError::Form(DURATION))),
            ("30 s", Err(UnitError::Form(DURATION))),
            ("-1s", Err(UnitError::Form(DURATION))),
            ("+1s", Err(UnitError::Form(DURATION))),
            ("1.5s", Err(UnitError::Form(DURATION))),
            ("1h30m", Err(UnitError::Form(DURATION))),
            ("5M", Err(UnitError::Form(DURATION))),
            ("", Err(UnitError::Form(DURATION))),
        ] {
            assert_eq!(duration(text), expected, "{text}");
        }
    }

    #[test]
    fn sizes_are_bytes_or_binary_multiples() {
        for (text, expected) in [
            ("0", Ok(0)),
            ("100", Ok(100)),
            ("64KiB", Ok(65_536)),
            ("10MiB", Ok(10_485_760)),
            ("1024GiB", Ok(SIZE_MAX)),
            ("1025GiB", Err(UnitError::TooMuch("`1024GiB`"))),
            ("64KB", Err(UnitError::Form(SIZE))),
            ("64kib", Err(UnitError::Form(SIZE))),
            ("KiB", Err(UnitError::Form(SIZE))),
        ] {
            assert_eq!(size(text), expected, "{text}");
        }
    }

    #[test]
    fn rates_are_never_zero() {
        let count = |count| NonZeroU32::new(count).unwrap();
        for (text, expected) in [
            ("10/s", Ok((count(10), Duration::from_secs(1)))),
            ("30/m", Ok((count(30), Duration::from_mins(1)))),
            ("1000/h", Ok((count(1000), Duration::from_hours(1)))),
            ("1000000/d", Ok((count(1_000_000), Duration::from_hours(24)))),
            ("1000001/s", Err(UnitError::TooMuch("`1000000`"))),
            ("0/s", Err(UnitError::Zero)),
            ("10", Err(UnitError::Form(RATE))),
            ("10/sec", Err(UnitError::Form(RATE))),
        ] {
            assert_eq!(rate(text), expected, "{text}");
        }
    }
}
