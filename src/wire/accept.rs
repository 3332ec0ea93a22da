//! What a caller would rather read: as far as refusals come in two media types (RFC 9110 12.5.1), and files packed or not
//! (12.5.3).

/// The quality of a media range that is not named.
const UNNAMED: u16 = 0;

/// Whether this `Accept` prefers `application/problem+json` over `application/json`: it is given a higher quality.
pub fn prefers_problem(accept: &[u8]) -> bool {
    let Ok(accept) = std::str::from_utf8(accept) else { return false };
    let (mut problem, mut json) = (UNNAMED, UNNAMED);
    for range in accept.split(',') {
        let mut parts = range.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let quality = parts.find_map(quality).unwrap_or(1000);
        if name.eq_ignore_ascii_case("application/problem+json") {
            problem = quality;
        } else if name.eq_ignore_ascii_case("application/json") {
            json = quality;
        }
    }
    problem > json
}

/// Whether this `Accept-Encoding` lets a response be packed by gzip.
pub fn takes_gzip(accept: &[u8]) -> bool {
    let Ok(accept) = std::str::from_utf8(accept) else { return false };
    let (mut gzip, mut any) = (None, None);
    for coding in accept.split(',') {
        let mut parts = coding.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let quality = parts.find_map(quality).unwrap_or(1000);
        if name.eq_ignore_ascii_case("gzip") || name.eq_ignore_ascii_case("x-gzip") {
            gzip = Some(quality);
        } else if name == "*" {
            any = Some(quality);
        }
    }
    gzip.or(any).is_some_and(|quality| quality > 0)
}

/// `q=0.5` in thousandths; nothing for another parameter. One that is malformed counts as zero.
fn quality(parameter: &str) -> Option<u16> {
    let value = parameter.strip_prefix("q=").or_else(|| parameter.strip_prefix("Q="))?;
    let quality: f32 = value.parse().unwrap_or(0.0);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 0..=1000")]
    Some((quality.clamp(0.0, 1.0) * 1000.0) as u16)
}

#[cfg(test)]
mod tests {
    use super::{prefers_problem, takes_gzip};

    #[test]
    fn gzip_goes_to_who_takes_it() {
        for (accept, expected) in [
            ("gzip", true),
            ("GZip", true),
            ("x-gzip", true),
            ("deflate, gzip;q=0.5, br", true),
            ("*", true),
            ("gzip;q=0", false),
            ("gzip;q=0.0, *", false),
            ("*;q=0", false),
            ("identity", false),
            ("br", false),
            ("gzipped", false),
            ("gzip;q=x", false),
            ("", false),
        ] {
            assert_eq!(takes_gzip(accept.as_bytes()), expected, "{accept}");
        }
        assert!(!takes_gzip(b"gzip,\xff"));
    }

    #[test]
    fn problem_details_go_to_who_prefers_them() {
        for (accept, expected) in [
            ("application/problem+json", true),
            ("Application/Problem+JSON;q=0.9, application/json;q=0.5", true),
            ("application/json, application/problem+json", false),
            ("application/json;q=0.5, application/problem+json", true),
            ("application/problem+json;q=0", false),
            ("application/problem+json;q=x", false),
            ("*/*", false),
            ("text/html, application/problem+json;q=0.1", true),
            ("", false),
        ] {
            assert_eq!(prefers_problem(accept.as_bytes()), expected, "{accept}");
        }
        assert!(!prefers_problem(b"\xff"));
    }
}
