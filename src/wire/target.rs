//! A request target made unambiguous, or refused (RFC 3986 6.2.2, RFC 9112 3.2).
//!
//! What is matched is what is sent: a [`Target`] holds one spelling of the path, and nothing behind this file looks at
//! the caller's. Most paths are canonical as they come; they are shared with the request, not copied.

use std::borrow::Cow;
use std::fmt;
use std::net::Ipv6Addr;
use std::ops::Range;

use bytes::Bytes;
use http::header::HOST;
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderMap, Uri, Version};

use crate::rejection::Rejection;

/// The section `paths`: what an ambiguous path gets. Everything is refused by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "four independent keys of the configuration")]
pub struct PathPolicy {
    /// `%2F` stays the content of one segment and is sent on as such.
    pub keep_encoded_slash: bool,
    /// `%3F` and `%23` stay the content of one segment.
    pub keep_encoded_query: bool,
    /// `;` and `%3B` are part of the segment.
    pub keep_semicolon: bool,
    /// `//` is read as `/`.
    pub merge_empty_segments: bool,
}

impl PathPolicy {
    /// Keeps whatever can be kept; what a pattern may spell.
    pub(crate) const KEEP_ALL: Self =
        Self { keep_encoded_slash: true, keep_encoded_query: true, keep_semicolon: true, merge_empty_segments: false };
}

/// The one control character behind the blank.
const DEL: u8 = 0x7f;

/// Why a target is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetError {
    /// No form of a target.
    Malformed,
    /// `host:port` alone, as `CONNECT` has it.
    AuthorityForm,
    /// `*`, as `OPTIONS` of a whole server has it.
    AsteriskForm,
    /// A scheme other than `http` and `https`.
    ForeignScheme,
    /// A path that does not begin with `/`.
    NoLeadingSlash,
    /// `.` or `..`, however it is written.
    DotSegment,
    /// `//`.
    EmptySegment,
    /// `\` or `%5C`.
    Backslash,
    /// `%2F`.
    EncodedSlash,
    /// `%3F` or `%23`.
    EncodedQuery,
    /// `;` or `%3B`.
    Semicolon,
    /// A NUL or control character, encoded or not.
    Control,
    /// `#`.
    Fragment,
    /// A byte that RFC 3986 does not allow in a path.
    InvalidByte,
    /// `%` without two hexadecimal digits.
    InvalidEscape,
    /// Escapes that do not decode to UTF-8, or to an overlong form of it.
    NotUtf8,
    /// A blank or a control character in the query.
    InvalidQuery,
    /// A query that only an HTTP/1.1 server can be sent.
    UnescapedQuery,
}

impl TargetError {
    /// What the caller is told.
    pub const fn message(self) -> &'static str {
        match self {
            Self::Malformed => "target is malformed",
            Self::AuthorityForm => "authority form is not served",
            Self::AsteriskForm => "asterisk form is not served",
            Self::ForeignScheme => "target has another scheme than http or https",
            Self::NoLeadingSlash => "path does not begin with a slash",
            Self::DotSegment => "path has a dot segment",
            Self::EmptySegment => "path has an empty segment",
            Self::Backslash => "path has a backslash",
            Self::EncodedSlash => "path has an encoded slash",
            Self::EncodedQuery => "path has an encoded question mark or number sign",
            Self::Semicolon => "path has a semicolon",
            Self::Control => "path has a control character",
            Self::Fragment => "target has a fragment",
            Self::InvalidByte => "path has a byte that must be percent-encoded",
            Self::InvalidEscape => "path has an invalid escape",
            Self::NotUtf8 => "path is not UTF-8",
            Self::InvalidQuery => "query has a blank or a control character",
            Self::UnescapedQuery => "query has a byte that must be percent-encoded for this upstream",
        }
    }
}

impl fmt::Display for TargetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message())
    }
}

impl std::error::Error for TargetError {}

impl From<TargetError> for Rejection {
    fn from(error: TargetError) -> Self {
        Self::BadRequest(error.message())
    }
}

/// A query that [`Uri`] cannot hold: with `"`, `<`, `>`, or bytes that are not UTF-8. A query goes on byte for byte.
#[derive(Clone, PartialEq, Eq)]
pub struct RawQuery(Bytes);

impl RawQuery {
    /// Without its `?`.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Not what it says, which may be secret.
impl fmt::Debug for RawQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RawQuery")
    }
}

/// The target that stands in a request line at `place`, and its query where the [`Uri`] cannot hold it and so has none.
///
/// nginx and Envoy send on any query that has no blank, control character or `#`. So do we: no reader takes a request line
/// apart elsewhere, and a query is no part of what was authorized.
///
/// # Errors
/// A fragment, which the type would drop with whatever stands behind it; a blank or a control character in the query; a path,
/// or what stands before it, that is none.
pub fn read(line: &Bytes, place: Range<usize>) -> Result<(Uri, Option<RawQuery>), TargetError> {
    if memchr::memchr(b'#', line.get(place.clone()).unwrap_or_default()).is_some() {
        return Err(TargetError::Fragment);
    }
    match Uri::from_maybe_shared(line.slice(place.clone())) {
        Ok(uri) => Ok((uri, None)),
        Err(_) => read_apart(&line.slice(place)),
    }
}

/// A target that no [`Uri`] can hold as a whole, and might but for bytes of its query.
#[cold]
fn read_apart(target: &Bytes) -> Result<(Uri, Option<RawQuery>), TargetError> {
    let end = memchr::memchr(b'?', target).unwrap_or(target.len());
    let path = target.slice(..end);
    let wrong = if path.starts_with(b"/") { TargetError::InvalidByte } else { TargetError::Malformed };
    let uri = Uri::from_maybe_shared(path).map_err(|_| wrong)?;
    let query = target.slice((end + 1).min(target.len())..);
    if query.iter().any(|&byte| byte <= b' ' || byte == DEL) {
        return Err(TargetError::InvalidQuery);
    }
    // what stands before a query may be nothing that has one, such as a host alone
    let plain: Vec<u8> = target.iter().enumerate().map(|(at, &byte)| if at > end { b'q' } else { byte }).collect();
    Uri::try_from(plain).map_err(|_| TargetError::Malformed)?;
    Ok((uri, Some(RawQuery(query))))
}

/// A path in its one spelling, with the query as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The query where this can hold it.
    path_and_query: PathAndQuery,
    raw_query: Option<RawQuery>,
}

impl Target {
    /// Makes the path of a request's target unambiguous.
    ///
    /// # Errors
    /// Where it cannot be read in one way only, or `policy` does not let it pass.
    pub fn parse(uri: &Uri, policy: &PathPolicy) -> Result<Self, TargetError> {
        let Some(given) = uri.path_and_query() else { return Err(TargetError::AuthorityForm) };
        if uri.scheme().is_some_and(|scheme| *scheme != Scheme::HTTP && *scheme != Scheme::HTTPS) {
            return Err(TargetError::ForeignScheme);
        }
        if given.as_str() == "*" {
            return Err(TargetError::AsteriskForm);
        }
        // An empty path is `/`, but only behind an authority (RFC 9112 3.2.1, RFC 9110 4.2.3).
        let absent = !given.as_str().starts_with('/');
        if absent && uri.authority().is_none() {
            return Err(TargetError::NoLeadingSlash);
        }
        // which the type takes for text
        if given.query().is_some_and(|query| memchr::memchr(DEL, query.as_bytes()).is_some()) {
            return Err(TargetError::InvalidQuery);
        }
        let path = canonical_path(given.path(), policy)?;
        if matches!(path, Cow::Borrowed(_)) && !absent {
            return Ok(Self { path_and_query: given.clone(), raw_query: None });
        }
        let mut text = path.into_owned();
        if let Some(query) = given.query() {
            text.push('?');
            text.push_str(query);
        }
        let path_and_query = PathAndQuery::try_from(text).map_err(|_| TargetError::InvalidByte)?;
        Ok(Self { path_and_query, raw_query: None })
    }

    /// With the query that the [`Uri`] could not hold, as [`read`] gives it.
    #[must_use]
    pub fn with(self, raw_query: Option<&RawQuery>) -> Self {
        Self { raw_query: raw_query.cloned(), ..self }
    }

    /// The path that is matched and sent.
    pub fn path(&self) -> &str {
        self.path_and_query.path()
    }

    /// The query, byte for byte, without its `?`.
    pub fn query(&self) -> Option<&[u8]> {
        let held = || self.path_and_query.query().map(str::as_bytes);
        self.raw_query.as_ref().map(RawQuery::as_bytes).or_else(held)
    }

    /// Writes what an HTTP/1.1 server is sent. A `strip_prefix` is taken off by whole segments; a path that it does not
    /// begin is sent as it is.
    pub fn write(&self, strip_prefix: Option<&str>, to: &mut Vec<u8>) {
        if strip_prefix.is_none() && self.raw_query.is_none() {
            to.extend_from_slice(self.path_and_query.as_str().as_bytes());
            return;
        }
        to.extend_from_slice(self.stripped(strip_prefix).as_bytes());
        if let Some(query) = self.query() {
            to.push(b'?');
            to.extend_from_slice(query);
        }
    }

    /// The same, for who needs it as a value.
    ///
    /// # Errors
    /// [`TargetError::UnescapedQuery`] where that cannot hold the query.
    ///
    /// # Panics
    /// Never: what is left of a valid path after whole segments is a valid path.
    pub fn path_and_query(&self, strip_prefix: Option<&str>) -> Result<PathAndQuery, TargetError> {
        if self.raw_query.is_some() {
            return Err(TargetError::UnescapedQuery);
        }
        if strip_prefix.is_none() {
            return Ok(self.path_and_query.clone());
        }
        let mut text = Vec::new();
        self.write(strip_prefix, &mut text);
        Ok(PathAndQuery::try_from(text).expect("the end of a valid path, with its query, is valid"))
    }

    /// The path without the prefix, if that begins it.
    fn stripped(&self, prefix: Option<&str>) -> &str {
        let rest = prefix.and_then(|prefix| strip_segments(self.path(), prefix));
        rest.map_or(self.path(), |rest| if rest.is_empty() { "/" } else { rest })
    }
}

/// What follows `prefix` in `path`: empty, or beginning with `/`.
fn strip_segments<'a>(path: &'a str, prefix: &str) -> Option<&'a str> {
    path.strip_prefix(prefix.trim_end_matches('/')).filter(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// What a byte may be in a path.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    /// `unreserved`: the same with and without an escape.
    Unreserved,
    /// `sub-delims` but `;`, and `:` and `@`: may stand, but differs from its escape.
    Reserved,
    Slash,
    Semicolon,
    Percent,
    Backslash,
    Control,
    Hash,
    Question,
    /// May only come as an escape.
    Other,
}

const fn class(byte: u8) -> Class {
    match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => Class::Unreserved,
        b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b'=' | b':' | b'@' => Class::Reserved,
        b'/' => Class::Slash,
        b';' => Class::Semicolon,
        b'%' => Class::Percent,
        b'\\' => Class::Backslash,
        0..=0x1f | 0x7f => Class::Control,
        b'#' => Class::Hash,
        b'?' => Class::Question,
        _ => Class::Other,
    }
}

/// Whether nothing about `path` needs a closer look: plain bytes, and no segment that is empty or begins with a dot.
fn is_plain(path: &[u8]) -> bool {
    let mut before = b'a';
    for &byte in path {
        let plain = match class(byte) {
            Class::Unreserved => byte != b'.' || before != b'/',
            Class::Reserved => true,
            Class::Slash => before != b'/',
            Class::Semicolon
            | Class::Percent
            | Class::Backslash
            | Class::Control
            | Class::Hash
            | Class::Question
            | Class::Other => false,
        };
        if !plain {
            return false;
        }
        before = byte;
    }
    path.first() == Some(&b'/')
}

/// The one spelling of `path`; borrowed where it is that already.
///
/// An escaped percent sign stays one: `%252e` means the four characters `%2e`, and is sent as `%252e`. An upstream that
/// decodes twice would read a dot there, but to refuse it would refuse every path that holds a percent sign as content.
///
/// # Errors
/// As for [`Target::parse`].
pub fn canonical_path<'a>(path: &'a str, policy: &PathPolicy) -> Result<Cow<'a, str>, TargetError> {
    if is_plain(path.as_bytes()) {
        return Ok(Cow::Borrowed(path));
    }
    if !path.starts_with('/') {
        return Err(TargetError::NoLeadingSlash);
    }
    let mut canonical = String::with_capacity(path.len());
    let mut decoded = Vec::with_capacity(path.len());
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        match class(byte) {
            Class::Unreserved | Class::Reserved => canonical.push(char::from(byte)),
            Class::Slash if !canonical.ends_with('/') => canonical.push('/'),
            Class::Slash if policy.merge_empty_segments => {}
            Class::Slash => return Err(TargetError::EmptySegment),
            Class::Semicolon if policy.keep_semicolon => canonical.push(';'),
            Class::Semicolon => return Err(TargetError::Semicolon),
            Class::Backslash => return Err(TargetError::Backslash),
            Class::Control => return Err(TargetError::Control),
            Class::Hash => return Err(TargetError::Fragment),
            Class::Question | Class::Other => return Err(TargetError::InvalidByte),
            Class::Percent => {
                let escaped = escaped(bytes.next(), bytes.next())?;
                decoded.push(escaped);
                push_escaped(&mut canonical, escaped, *policy)?;
                continue;
            }
        }
        decoded.push(byte);
    }
    let decoded = std::str::from_utf8(&decoded).map_err(|_| TargetError::NotUtf8)?;
    // those of C1 too, which come as two escapes: U+0085 ends a line for some
    if decoded.chars().any(char::is_control) {
        return Err(TargetError::Control);
    }
    if has_dot_segment(&canonical) {
        return Err(TargetError::DotSegment);
    }
    Ok(if canonical == path { Cow::Borrowed(path) } else { Cow::Owned(canonical) })
}

fn escaped(high: Option<u8>, low: Option<u8>) -> Result<u8, TargetError> {
    let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
    let (Some(high), Some(low)) = (digit(high), digit(low)) else { return Err(TargetError::InvalidEscape) };
    u8::try_from(high << 4 | low).map_err(|_| TargetError::InvalidEscape)
}

fn push_escaped(canonical: &mut String, byte: u8, policy: PathPolicy) -> Result<(), TargetError> {
    match class(byte) {
        Class::Unreserved => {
            canonical.push(char::from(byte));
            return Ok(());
        }
        Class::Slash if !policy.keep_encoded_slash => return Err(TargetError::EncodedSlash),
        Class::Hash | Class::Question if !policy.keep_encoded_query => return Err(TargetError::EncodedQuery),
        // Many servers decode first and look for parameters then.
        Class::Semicolon if !policy.keep_semicolon => return Err(TargetError::Semicolon),
        Class::Backslash => return Err(TargetError::Backslash),
        Class::Control => return Err(TargetError::Control),
        Class::Reserved
        | Class::Slash
        | Class::Hash
        | Class::Question
        | Class::Semicolon
        | Class::Percent
        | Class::Other => {}
    }
    let hex = |digit: u8| char::from_digit(u32::from(digit), 16).unwrap_or('0').to_ascii_uppercase();
    canonical.extend(['%', hex(byte >> 4), hex(byte & 0xf)]);
    Ok(())
}

/// Whether an upstream could read `.` or `..` somewhere, also one that cuts off parameters (`..;x`) or decodes before it
/// splits. `path` is canonical, so that dots are literal and escapes are upper case.
fn has_dot_segment(path: &str) -> bool {
    let mut segments = path.split('/').flat_map(|segment| segment.split("%2F"));
    segments.any(|segment| {
        let dots = segment.bytes().take_while(|&byte| byte == b'.').count();
        let Some(rest) = segment.get(dots..) else { return false };
        let ends =
            rest.is_empty() || rest.starts_with(';') || ["%3B", "%3F", "%23"].iter().any(|e| rest.starts_with(e));
        (dots == 1 || dots == 2) && ends
    })
}

/// Why the host of a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostError {
    /// Neither `Host` nor an authority.
    Missing,
    /// More than one `Host`.
    Repeated,
    /// Not a host name or address with an optional port.
    Invalid,
    /// `Host` and the target's authority differ.
    Disagrees,
}

impl HostError {
    /// What the caller is told.
    pub const fn message(self) -> &'static str {
        match self {
            Self::Missing => "Host header is missing",
            Self::Repeated => "more than one Host header",
            Self::Invalid => "Host is not valid",
            Self::Disagrees => "Host differs from the target",
        }
    }
}

impl fmt::Display for HostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message())
    }
}

impl std::error::Error for HostError {}

impl From<HostError> for Rejection {
    fn from(error: HostError) -> Self {
        Self::BadRequest(error.message())
    }
}

/// A host's longest name (RFC 1035 2.3.4).
const HOST_BYTES_MAX: usize = 255;

/// The host that a request is for: lower case, without port and trailing dot, an IPv6 address in brackets. Empty for a
/// request of HTTP/1.0 that names none; no route with `hosts` matches that.
///
/// # Errors
/// RFC 9112 3.2: HTTP/1.1 has exactly one `Host`, whatever the form of the target, and it agrees with the target; so does
/// `:authority` with a `Host` beside it (RFC 9113 8.3.1).
pub fn host<'a>(uri: &'a Uri, headers: &'a HeaderMap, version: Version) -> Result<Cow<'a, str>, HostError> {
    let mut fields = headers.get_all(HOST).iter();
    let field = match fields.next() {
        Some(field) => Some(host_and_port(field.as_bytes())?),
        None => None,
    };
    if fields.next().is_some() {
        return Err(HostError::Repeated);
    }
    let target = match uri.authority() {
        Some(authority) => Some(host_and_port(authority.as_str().as_bytes())?),
        None => None,
    };
    match (field, target) {
        (Some((host, port)), Some((other, other_port))) => {
            let default = if uri.scheme() == Some(&Scheme::HTTPS) { 443 } else { 80 };
            if host == other && port.unwrap_or(default) == other_port.unwrap_or(default) {
                Ok(host)
            } else {
                Err(HostError::Disagrees)
            }
        }
        (Some((host, _)), None) => Ok(host),
        (None, Some((host, _))) if version != Version::HTTP_11 => Ok(host),
        (None, None) if version == Version::HTTP_10 => Ok(Cow::Borrowed("")),
        (None, _) => Err(HostError::Missing),
    }
}

fn host_and_port(authority: &[u8]) -> Result<(Cow<'_, str>, Option<u16>), HostError> {
    let text = std::str::from_utf8(authority).map_err(|_| HostError::Invalid)?;
    if let Some(rest) = text.strip_prefix('[') {
        let (address, rest) = rest.split_once(']').ok_or(HostError::Invalid)?;
        let address: Ipv6Addr = address.parse().map_err(|_| HostError::Invalid)?;
        let port = if rest.is_empty() { None } else { port(rest.strip_prefix(':').ok_or(HostError::Invalid)?)? };
        return Ok((Cow::Owned(format!("[{address}]")), port));
    }
    let end = text.bytes().position(|byte| byte == b':').unwrap_or(text.len());
    let (name, rest) = text.split_at_checked(end).ok_or(HostError::Invalid)?;
    let port = rest.strip_prefix(':').map_or(Ok(None), port)?;
    let name = name.strip_suffix('.').unwrap_or(name);
    // Userinfo, escapes and all else that a name server does not know have no place in a host. Looked at once: every
    // request has one.
    let (mut upper, mut label_is_empty) = (false, true);
    for byte in name.bytes() {
        match byte {
            b'.' if label_is_empty => return Err(HostError::Invalid),
            b'.' => label_is_empty = true,
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => label_is_empty = false,
            b'A'..=b'Z' => (upper, label_is_empty) = (true, false),
            _ => return Err(HostError::Invalid),
        }
    }
    if label_is_empty || name.len() > HOST_BYTES_MAX {
        return Err(HostError::Invalid);
    }
    Ok((if upper { Cow::Owned(name.to_ascii_lowercase()) } else { Cow::Borrowed(name) }, port))
}

fn port(digits: &str) -> Result<Option<u16>, HostError> {
    if digits.is_empty() {
        return Ok(None); // RFC 3986 3.2.3: a colon alone is no port
    }
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(HostError::Invalid);
    }
    digits.parse().map(Some).map_err(|_| HostError::Invalid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    const STRICT: PathPolicy = PathPolicy {
        keep_encoded_slash: false,
        keep_encoded_query: false,
        keep_semicolon: false,
        merge_empty_segments: false,
    };
    const LAX: PathPolicy = PathPolicy { merge_empty_segments: true, ..PathPolicy::KEEP_ALL };

    /// A target as it stands in a request line.
    fn parsed(target: &[u8]) -> Result<Target, TargetError> {
        let line = Bytes::from([b"GET ", target, b" HTTP/1.1"].concat());
        let (uri, raw_query) = read(&line, 4..4 + target.len())?;
        Ok(Target::parse(&uri, &STRICT)?.with(raw_query.as_ref()))
    }

    /// What an HTTP/1.1 server is sent; and that whoever is sent a value gets the same, or nothing.
    fn sent(target: &Target, strip_prefix: Option<&str>) -> String {
        let mut written = Vec::new();
        target.write(strip_prefix, &mut written);
        match target.path_and_query(strip_prefix) {
            Ok(value) => assert_eq!(value.as_str().as_bytes(), written),
            Err(error) => assert_eq!(error, TargetError::UnescapedQuery),
        }
        written.iter().copied().map(char::from).collect()
    }

    #[test]
    fn a_query_goes_on_byte_for_byte_or_not_at_all() {
        use TargetError as E;
        for (target, expected) in [
            (&b"/a?b=\"c\"&d=<e>"[..], Ok("/a?b=\"c\"&d=<e>")),
            (b"/%61?\"", Ok("/a?\"")),
            (b"/a?caf\xe9", Ok("/a?caf\u{e9}")),
            (b"/a?\xc3\xa9", Ok("/a?\u{c3}\u{a9}")),
            (b"/a?\xff\x80?\"", Ok("/a?\u{ff}\u{80}?\"")),
            (b"/a?{}|\\^`", Ok("/a?{}|\\^`")),
            (b"http://h/a?<", Ok("/a?<")),
            (b"http://h?<", Ok("/?<")),
            (b"/a?\"#b", Err(E::Fragment)),
            (b"/a#?\"", Err(E::Fragment)),
            (b"/a?\"\x7f", Err(E::InvalidQuery)),
            (b"/a?\x7f", Err(E::InvalidQuery)),
            (b"/a?\" b", Err(E::InvalidQuery)),
            (b"/a?b c", Err(E::InvalidQuery)),
            (b"/a?\"\t", Err(E::InvalidQuery)),
            (b"/a?\"\r\nX-Auth-User: admin", Err(E::InvalidQuery)),
            (b"/a?\"\0", Err(E::InvalidQuery)),
            (b"/../a?\"", Err(E::DotSegment)),
            (b"/<?\"", Err(E::InvalidByte)),
            (b"/\xe9?\"", Err(E::InvalidByte)),
            (b"/<", Err(E::InvalidByte)),
            (b"*?\"", Err(E::Malformed)),
            (b"h?\"", Err(E::Malformed)),
            (b"h?tp://a/b", Err(E::Malformed)),
            (b"?\"", Err(E::Malformed)),
            (b"<?\"", Err(E::Malformed)),
            (b"ftp://h/a?\"", Err(E::ForeignScheme)),
        ] {
            let sent = parsed(target).map(|target| sent(&target, None));
            assert_eq!(sent, expected.map(str::to_owned), "{}", String::from_utf8_lossy(target));
        }
        assert!(!format!("{:?}", parsed(b"/a?token=\"secret\"").unwrap()).contains("secret"));
    }

    #[test]
    fn a_path_has_one_spelling_or_none() {
        use TargetError as E;
        for (path, strict, lax) in [
            ("/", Ok("/"), Ok("/")),
            ("/a/b", Ok("/a/b"), Ok("/a/b")),
            ("/a/", Ok("/a/"), Ok("/a/")),
            ("/%61%2D%7e", Ok("/a-~"), Ok("/a-~")),
            ("/caf%c3%a9", Ok("/caf%C3%A9"), Ok("/caf%C3%A9")),
            ("/a%20b%2c", Ok("/a%20b%2C"), Ok("/a%20b%2C")),
            ("/a:b@c!$&'()*+,=", Ok("/a:b@c!$&'()*+,="), Ok("/a:b@c!$&'()*+,=")),
            ("/.well-known/x", Ok("/.well-known/x"), Ok("/.well-known/x")),
            ("/...", Ok("/..."), Ok("/...")),
            ("/a..b/c.", Ok("/a..b/c."), Ok("/a..b/c.")),
            ("/%252e%252e/a", Ok("/%252e%252e/a"), Ok("/%252e%252e/a")),
            ("/100%25", Ok("/100%25"), Ok("/100%25")),
            ("/.", Err(E::DotSegment), Err(E::DotSegment)),
            ("/a/..", Err(E::DotSegment), Err(E::DotSegment)),
            ("/a/../b", Err(E::DotSegment), Err(E::DotSegment)),
            ("/a/./b", Err(E::DotSegment), Err(E::DotSegment)),
            ("/a/%2e%2E/b", Err(E::DotSegment), Err(E::DotSegment)),
            ("/a/.%2e/b", Err(E::DotSegment), Err(E::DotSegment)),
            ("/a/%2e", Err(E::DotSegment), Err(E::DotSegment)),
            ("/a/..;x/b", Err(E::Semicolon), Err(E::DotSegment)),
            ("/a/%2e%2e%3bx", Err(E::Semicolon), Err(E::DotSegment)),
            ("/a/..%2fb", Err(E::EncodedSlash), Err(E::DotSegment)),
            ("/a/b%2F..", Err(E::EncodedSlash), Err(E::DotSegment)),
            ("/a/..%3fb", Err(E::EncodedQuery), Err(E::DotSegment)),
            ("//", Err(E::EmptySegment), Ok("/")),
            ("/a//b", Err(E::EmptySegment), Ok("/a/b")),
            ("/a///", Err(E::EmptySegment), Ok("/a/")),
            ("/a%2fb", Err(E::EncodedSlash), Ok("/a%2Fb")),
            ("/a%3fb%23", Err(E::EncodedQuery), Ok("/a%3Fb%23")),
            ("/a;b", Err(E::Semicolon), Ok("/a;b")),
            ("/a%3bb", Err(E::Semicolon), Ok("/a%3Bb")),
            ("/a\\b", Err(E::Backslash), Err(E::Backslash)),
            ("/a%5cb", Err(E::Backslash), Err(E::Backslash)),
            ("/a%00", Err(E::Control), Err(E::Control)),
            ("/a%0d%0a", Err(E::Control), Err(E::Control)),
            ("/a%1F", Err(E::Control), Err(E::Control)),
            ("/a%7f", Err(E::Control), Err(E::Control)),
            ("/a\u{1}", Err(E::Control), Err(E::Control)),
            ("/a%c2%80", Err(E::Control), Err(E::Control)),
            ("/a%C2%85b", Err(E::Control), Err(E::Control)),
            ("/a%C2%9F", Err(E::Control), Err(E::Control)),
            ("/a%C2%A0", Ok("/a%C2%A0"), Ok("/a%C2%A0")),
            ("/a#b", Err(E::Fragment), Err(E::Fragment)),
            ("/a b", Err(E::InvalidByte), Err(E::InvalidByte)),
            ("/a|b", Err(E::InvalidByte), Err(E::InvalidByte)),
            ("/{a}", Err(E::InvalidByte), Err(E::InvalidByte)),
            ("/a\"", Err(E::InvalidByte), Err(E::InvalidByte)),
            ("/a^", Err(E::InvalidByte), Err(E::InvalidByte)),
            ("/[a]", Err(E::InvalidByte), Err(E::InvalidByte)),
            ("/é", Err(E::InvalidByte), Err(E::InvalidByte)),
            ("/%", Err(E::InvalidEscape), Err(E::InvalidEscape)),
            ("/%2", Err(E::InvalidEscape), Err(E::InvalidEscape)),
            ("/%zz", Err(E::InvalidEscape), Err(E::InvalidEscape)),
            ("/%+1", Err(E::InvalidEscape), Err(E::InvalidEscape)),
            ("/%c0%af", Err(E::NotUtf8), Err(E::NotUtf8)),
            ("/%c0%ae%c0%ae", Err(E::NotUtf8), Err(E::NotUtf8)),
            ("/%ff", Err(E::NotUtf8), Err(E::NotUtf8)),
            ("/%c3/%a9", Err(E::NotUtf8), Err(E::NotUtf8)),
            ("/%ed%a0%80", Err(E::NotUtf8), Err(E::NotUtf8)),
            ("", Err(E::NoLeadingSlash), Err(E::NoLeadingSlash)),
            ("a/b", Err(E::NoLeadingSlash), Err(E::NoLeadingSlash)),
        ] {
            assert_eq!(canonical_path(path, &STRICT).as_deref(), strict.as_ref().copied(), "{path}");
            assert_eq!(canonical_path(path, &LAX).as_deref(), lax.as_ref().copied(), "{path}, relaxed");
        }
    }

    #[test]
    fn a_canonical_path_is_not_copied() {
        for path in ["/", "/orders/7", "/a.b/c_d~", "/.well-known/x", "/a%20b"] {
            assert!(matches!(canonical_path(path, &STRICT), Ok(Cow::Borrowed(_))), "{path}");
        }
    }

    #[test]
    fn a_target_is_in_origin_or_absolute_form() {
        for (target, expected) in [
            ("/a?b=%2e%2E//c", Ok("/a?b=%2e%2E//c")),
            ("/%61?b", Ok("/a?b")),
            ("/a?", Ok("/a?")),
            ("http://h/a?b", Ok("/a?b")),
            ("https://h", Ok("/")),
            ("https://h?b", Ok("/?b")),
            ("ftp://h/a", Err(TargetError::ForeignScheme)),
            ("h:443", Err(TargetError::AuthorityForm)),
            ("h", Err(TargetError::AuthorityForm)),
            ("*", Err(TargetError::AsteriskForm)),
            ("/a/../b", Err(TargetError::DotSegment)),
        ] {
            let sent = parsed(target.as_bytes()).map(|target| sent(&target, None));
            assert_eq!(sent, expected.map(str::to_owned), "{target}");
        }
        assert_eq!(
            Target::parse(&PathAndQuery::from_static("?a").into(), &STRICT).map(|_| ()),
            Err(TargetError::NoLeadingSlash)
        );
    }

    #[test]
    fn a_prefix_is_stripped_by_whole_segments() {
        for (target, prefix, expected) in [
            ("/orders/7?x=1", "/orders", "/7?x=1"),
            ("/orders", "/orders", "/"),
            ("/orders?x", "/orders", "/?x"),
            ("/orders/", "/orders", "/"),
            ("/orders/", "/orders/", "/"),
            ("/ordersx/7", "/orders", "/ordersx/7"),
            ("/a/b/c", "/a/b", "/c"),
            ("/a", "/", "/a"),
            ("/orders/7?<x>", "/orders", "/7?<x>"),
            ("/orders?\"", "/orders", "/?\""),
        ] {
            let target = parsed(target.as_bytes()).unwrap();
            assert_eq!(sent(&target, Some(prefix)), expected, "{target:?} without {prefix}");
        }
    }

    #[test]
    fn the_host_is_one_and_agrees() {
        use HostError as E;
        let (v0, v1, v2) = (Version::HTTP_10, Version::HTTP_11, Version::HTTP_2);
        for (name, target, fields, version, expected) in [
            ("as it came", "/", &["api.example.com"][..], v1, Ok("api.example.com")),
            ("without port", "/", &["a:8443"], v1, Ok("a")),
            ("an empty port is none", "/", &["a:"], v1, Ok("a")),
            ("in lower case", "/", &["API.Example.com"], v1, Ok("api.example.com")),
            ("without the root's dot", "/", &["a.b."], v1, Ok("a.b")),
            ("but not two", "/", &["a.."], v1, Err(E::Invalid)),
            ("an IPv6 address", "/", &["[2001:DB8::0:1]:443"], v1, Ok("[2001:db8::1]")),
            ("an IPv6 address without brackets", "/", &["::1"], v1, Err(E::Invalid)),
            ("rubbish behind brackets", "/", &["[::1]x"], v1, Err(E::Invalid)),
            ("an open bracket", "/", &["[::1"], v1, Err(E::Invalid)),
            ("userinfo", "/", &["u@a"], v1, Err(E::Invalid)),
            ("userinfo with a password", "/", &["u:p@a"], v1, Err(E::Invalid)),
            ("a path", "/", &["a/b"], v1, Err(E::Invalid)),
            ("an escape", "/", &["a%2eb"], v1, Err(E::Invalid)),
            ("a list", "/", &["a, b"], v1, Err(E::Invalid)),
            ("nothing", "/", &[""], v1, Err(E::Invalid)),
            ("a port too large", "/", &["a:65536"], v1, Err(E::Invalid)),
            ("the largest port", "/", &["a:65535"], v1, Ok("a")),
            ("a port with a sign", "/", &["a:+1"], v1, Err(E::Invalid)),
            ("two", "/", &["a", "a"], v1, Err(E::Repeated)),
            ("none", "/", &[], v1, Err(E::Missing)),
            ("none in 1.0", "/", &[], v0, Ok("")),
            ("none beside an absolute target", "http://a/", &[], v1, Err(E::Missing)),
            ("only :authority", "https://A:8443/", &[], v2, Ok("a")),
            ("neither in 2", "/", &[], v2, Err(E::Missing)),
            ("both, the same", "http://a/", &["A:80"], v1, Ok("a")),
            ("both, another port", "http://a:81/", &["a"], v1, Err(E::Disagrees)),
            ("both, another host", "http://a/", &["b"], v1, Err(E::Disagrees)),
            ("both in 2", "https://a/", &["b"], v2, Err(E::Disagrees)),
            ("userinfo in the target", "http://u@a/", &["a"], v1, Err(E::Invalid)),
        ] {
            let uri: Uri = target.parse().unwrap();
            let mut headers = HeaderMap::new();
            for field in fields {
                headers.append(HOST, HeaderValue::from_static(field));
            }
            assert_eq!(host(&uri, &headers, version).as_deref(), expected.as_ref().copied(), "{name}");
        }
    }

    #[test]
    fn a_host_is_at_most_as_long_as_a_name_can_be() {
        for (length, valid) in [(HOST_BYTES_MAX, true), (HOST_BYTES_MAX + 1, false)] {
            assert_eq!(host_and_port("a".repeat(length).as_bytes()).is_ok(), valid, "{length}");
        }
    }

    proptest! {
        #[test]
        fn what_is_canonical_stays_as_it_is(path in "/([a.;/%]|%2[eEfF5]|%3[bf]|%C3%A9|%41){0,12}", lax: bool) {
            let policy = if lax { LAX } else { STRICT };
            if let Ok(once) = canonical_path(&path, &policy) {
                let twice = canonical_path(&once, &policy);
                prop_assert_eq!(twice.as_deref(), Ok(&*once));
            }
        }

        #[test]
        fn what_is_matched_is_what_is_sent(
            path in "/([ab./%]|%2e|%C3%A9){0,10}",
            query in proptest::option::of(proptest::collection::vec(0x1f_u8.., 0..8)),
        ) {
            let query = query.map(|bytes| [b"?", &*bytes].concat()).unwrap_or_default();
            if let Ok(target) = parsed(&[path.as_bytes(), &query].concat()) {
                let mut sent = Vec::new();
                target.write(None, &mut sent);
                prop_assert_eq!(&sent, &[target.path().as_bytes(), &query].concat());
                prop_assert!(!sent.iter().any(|&byte| byte <= b' ' || byte == DEL || byte == b'#'));
                // whoever reads it as a URL resolves it to itself
                prop_assert!(!target.path().split('/').any(|segment| segment == "." || segment == ".."));
            }
        }

        #[test]
        fn no_text_makes_it_panic(path in ".{0,40}", bytes: Vec<u8>) {
            let _any = canonical_path(&path, &LAX);
            let _any = parsed(&bytes);
            let _any = host_and_port(&bytes);
        }
    }
}
