//! What the fields of a refusal say.

use std::time::Duration;

use http::header::{ACCESS_CONTROL_EXPOSE_HEADERS, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, StatusCode};

use super::{Audience, Challenges, Exhausted, Row};
use crate::principal::Scheme;
use crate::wire::challenge::{Challenge, push_challenge};
use crate::wire::http1::encode::decimal;
use crate::wire::http1::lines::Fields;

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// The status of gRPC that stands for a status of HTTP (contract 4).
pub(super) fn grpc_fields(fields: &mut impl Fields, media_type: &str, status: StatusCode, message: &str) {
    let code = match status.as_u16() {
        400 | 413 | 415 | 431 => 3,
        401 => 16,
        403 => 7,
        404 | 405 => 12,
        408 => 4,
        429 => 8,
        502..=504 => 14,
        _ => 13,
    };
    fields.make(&HeaderName::from_static("grpc-status"), |text| decimal(text, code));
    fields.make(&HeaderName::from_static("grpc-message"), |text| {
        percent_encoding::utf8_percent_encode(message, GRPC_MESSAGE)
            .for_each(|part| text.extend_from_slice(part.as_bytes()));
    });
    // a page of another origin, where it may read the response at all, sees no field that is not named here
    if media_type.starts_with("application/grpc-web") {
        fields.pass(&ACCESS_CONTROL_EXPOSE_HEADERS, &HeaderValue::from_static("grpc-status, grpc-message"));
    }
}

/// What `grpc-message` percent-encodes: all but visible ASCII, and `%`.
const GRPC_MESSAGE: &percent_encoding::AsciiSet = &percent_encoding::CONTROLS.add(b'%');

/// A challenge for each scheme that would be taken (RFC 9110 11.6.1).
pub(super) fn challenge_fields(fields: &mut impl Fields, row: &Row, message: &str, audience: &Audience<'_>) {
    let mut say = |scheme, error| {
        let challenge = Challenge { scheme, realm: audience.realm, error };
        fields.make(&WWW_AUTHENTICATE, |text| push_challenge(text, &challenge));
    };
    match row.challenges {
        Challenges::None => {}
        Challenges::EachScheme => audience.schemes.iter().for_each(|scheme| say(scheme, None)),
        Challenges::Only(scheme) => say(scheme, None),
        Challenges::Bearer(code) => say(Scheme::Bearer, Some((code, message))),
    }
}

/// How much there was of a budget, and when there will be more.
pub(super) fn rate_limit_fields(fields: &mut impl Fields, exhausted: &Exhausted) {
    let wait = whole_seconds(exhausted.retry_after);
    // by hand: who asks too often should not cost more than who does not
    let budget = |text: &mut Vec<u8>, [(first, one), (second, other)]: [(&[u8], u64); 2]| {
        text.push(b'"');
        text.extend_from_slice(exhausted.limit.as_bytes());
        text.extend_from_slice(b"\";");
        text.extend_from_slice(first);
        decimal(text, one);
        text.extend_from_slice(second);
        decimal(text, other);
    };
    fields.make(&RETRY_AFTER, |text| decimal(text, wait));
    let (quota, window) = (u64::from(exhausted.quota), whole_seconds(exhausted.window));
    fields.make(&RATE_LIMIT_POLICY, |text| budget(text, [(b"q=", quota), (b";w=", window)]));
    fields.make(&RATE_LIMIT, |text| budget(text, [(b"r=", 0), (b";t=", wait)]));
}

/// Seconds, rounded up, at least one: `Retry-After: 0` would ask for a busy loop.
pub(super) fn whole_seconds(duration: Duration) -> u64 {
    (duration.as_secs() + u64::from(duration.subsec_nanos() > 0)).max(1)
}
