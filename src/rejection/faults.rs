//! Why credentials, tokens and requests are no good. The caller is told of it what the table says, and the log the word.

/// Why a token was refused; for the log, and for `errors.messages` as `invalid_token.<name>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenFault {
    /// The field does not hold one credential: nothing behind the scheme, more than one word, other bytes, too long.
    MalformedHeader,
    /// Not of the form of a token: segments, base64, JSON, header members, duplicate or mistyped claims, too long.
    Malformed,
    /// The signature is not by a key of ours.
    BadSignature,
    /// `alg`, `crit` or another header member asks for what is not accepted.
    Unsupported,
    /// `exp` is past, or the opaque token's lifetime.
    Expired,
    /// `nbf` or `iat` lies in the future.
    NotYetValid,
    /// `iss` is missing or another's.
    WrongIssuer,
    /// `aud` is missing or another's.
    WrongAudience,
    /// A refresh token where an access token is wanted, or any other type.
    WrongType,
    /// A required claim (`exp`, `jti`) is missing.
    MissingClaim,
    /// It does not say whose it is.
    MissingSubject,
    /// Revoked by itself, with its family, or by a change of its subject.
    Revoked,
    /// The subject is unknown or deleted.
    UnknownSubject,
    /// The subject may do nothing.
    Disabled,
    /// No such opaque token.
    Unknown,
    /// It was issued to another client (RFC 6749 6).
    WrongClient,
}

impl TokenFault {
    /// Every fault.
    pub const ALL: [Self; 16] = [
        Self::MalformedHeader,
        Self::Malformed,
        Self::BadSignature,
        Self::Unsupported,
        Self::Expired,
        Self::NotYetValid,
        Self::WrongIssuer,
        Self::WrongAudience,
        Self::WrongType,
        Self::MissingClaim,
        Self::MissingSubject,
        Self::Revoked,
        Self::UnknownSubject,
        Self::Disabled,
        Self::Unknown,
        Self::WrongClient,
    ];

    /// The word in the log and behind `invalid_token.`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::MalformedHeader => "malformed_header",
            Self::Malformed => "malformed",
            Self::BadSignature => "bad_signature",
            Self::Unsupported => "unsupported",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::WrongIssuer => "wrong_issuer",
            Self::WrongAudience => "wrong_audience",
            Self::WrongType => "wrong_type",
            Self::MissingClaim => "missing_claim",
            Self::MissingSubject => "missing_subject",
            Self::Revoked => "revoked",
            Self::UnknownSubject => "unknown_subject",
            Self::Disabled => "disabled",
            Self::Unknown => "unknown",
            Self::WrongClient => "wrong_client",
        }
    }
}

/// Why Basic credentials or a login were refused; for the log alone. The caller cannot tell them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CredentialsFault {
    /// Not strict base64, no colon, not UTF-8, a control character.
    Malformed,
    /// No user or client of this name.
    UnknownSubject,
    /// The password or secret does not match.
    WrongPassword,
    /// The user or client is disabled.
    Disabled,
}

impl CredentialsFault {
    /// The word in the log.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::UnknownSubject => "unknown_subject",
            Self::WrongPassword => "wrong_password",
            Self::Disabled => "disabled",
        }
    }
}

/// What is wrong with one member of a request; for `errors.messages` as `invalid_request.<name>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberFault {
    /// It is not there.
    Missing,
    /// It is null.
    Null,
    /// It is a text without a character, where that is not taken.
    Empty,
    /// It is no text.
    WrongType,
}

impl MemberFault {
    /// Every fault.
    pub const ALL: [Self; 4] = [Self::Missing, Self::Null, Self::Empty, Self::WrongType];

    /// The word behind `invalid_request.`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Null => "null",
            Self::Empty => "empty",
            Self::WrongType => "wrong_type",
        }
    }

    pub(super) fn message(self, member: &str) -> String {
        match self {
            Self::Missing => format!("`{member}` is missing"),
            Self::Null | Self::WrongType => format!("`{member}` must be a text"),
            Self::Empty => format!("`{member}` is empty"),
        }
    }
}

/// The word behind `invalid_request.` of a body that does not parse.
pub const MALFORMED_BODY: &str = "malformed";
