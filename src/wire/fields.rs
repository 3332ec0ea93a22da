//! Fields by what they mean to a gateway: of one hop, of identity, of a proxy, of a trailer (RFC 9110 6.5.1, 7.6.1).
//!
//! All work in place on the request's own map, and copy nothing where nothing has to go.

use http::header::{
    ACCEPT_ENCODING, AGE, AUTHORIZATION, CACHE_CONTROL, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE,
    CONTENT_TYPE, COOKIE, DATE, EXPECT, EXPIRES, FORWARDED, HOST, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE,
    IF_UNMODIFIED_SINCE, LOCATION, MAX_FORWARDS, PRAGMA, RANGE, RETRY_AFTER, SET_COOKIE, TE, TRAILER, UPGRADE, VARY,
    WWW_AUTHENTICATE,
};
use http::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use crate::principal::Role;

/// Whether the value of such a field is a credential, or probably one: it is not shown then.
pub fn may_bear_secret(name: &HeaderName) -> bool {
    const WORDS: [&str; 12] = [
        "apikey",
        "auth",
        "authorization",
        "cookie",
        "credential",
        "credentials",
        "key",
        "passwd",
        "password",
        "secret",
        "signature",
        "token",
    ];
    // what browsers are told is none, such as `Access-Control-Allow-Credentials: true`
    !name.as_str().starts_with("access-control-") && name.as_str().split('-').any(|word| WORDS.contains(&word))
}

/// The names of the identity headers. `None`: not told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityNames {
    /// Of the user or client.
    pub user: Option<HeaderName>,
    /// Of the roles.
    pub roles: Option<HeaderName>,
    /// Of the scheme.
    pub scheme: Option<HeaderName>,
}

impl Default for IdentityNames {
    fn default() -> Self {
        Self { scheme: Some(HeaderName::from_static("x-auth-scheme")), ..Self::pair("x-auth-user", "x-auth-roles") }
    }
}

impl IdentityNames {
    /// `remote`, as Apache and Authelia have it.
    pub fn remote() -> Self {
        Self::pair("remote-user", "remote-groups")
    }

    /// `forwarded`, as oauth2-proxy has it.
    pub fn forwarded() -> Self {
        Self::pair("x-forwarded-user", "x-forwarded-groups")
    }

    /// `consumer`, as Kong has it.
    pub fn consumer() -> Self {
        Self::pair("x-consumer-username", "x-consumer-groups")
    }

    const fn pair(user: &'static str, roles: &'static str) -> Self {
        Self { user: Some(HeaderName::from_static(user)), roles: Some(HeaderName::from_static(roles)), scheme: None }
    }

    /// Whether `name` is one of them.
    pub fn contains(&self, name: &HeaderName) -> bool {
        [&self.user, &self.roles, &self.scheme].into_iter().flatten().any(|own| own == name)
    }
}

/// Whether a field means something to the next hop only (RFC 9110 7.6.1; `HTTP2-Settings` of RFC 7540 3.2.1). Told from its
/// text: every field of every request is asked about, and a list of names would be made and dropped each time.
pub fn is_hop_by_hop(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
            | "http2-settings"
    )
}

/// What the fields of one hop say.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Hop {
    /// `TE: trailers`: the other side wants them.
    pub takes_trailers: bool,
    /// The protocol of `Upgrade`, where `Connection` names it (RFC 9110 7.8).
    pub upgrade: Option<HeaderValue>,
    /// The fields that `Connection` takes away beside those that are always of one hop.
    named: Vec<Box<str>>,
}

impl Hop {
    /// Reads what these fields say of the hop that they came by.
    pub fn of(headers: &HeaderMap) -> Self {
        // One look at each name is cheaper than a search for each field that may be there: nearly always none or one is.
        if !headers.keys().any(is_hop_by_hop) {
            return Self::default();
        }
        let takes_trailers = options(headers, &TE).any(|option| option.eq_ignore_ascii_case("trailers"));
        let upgrades = options(headers, &CONNECTION).any(|option| option.eq_ignore_ascii_case("upgrade"));
        // Nearly always there is none but these, and nothing is allocated.
        let named = options(headers, &CONNECTION)
            .filter(|option| {
                !["close", "keep-alive", "upgrade", "te"].iter().any(|known| known.eq_ignore_ascii_case(option))
            })
            .filter(|option| !is_end_to_end(option))
            .map(Box::from)
            .collect();
        Self { takes_trailers, upgrade: headers.get(UPGRADE).filter(|_| upgrades).cloned(), named }
    }

    /// Whether a field of this name ends with the hop.
    pub fn ends(&self, name: &HeaderName) -> bool {
        is_hop_by_hop(name) || self.names(name)
    }

    /// Whether `Connection` takes this field away.
    pub fn names(&self, name: &HeaderName) -> bool {
        self.named.iter().any(|named| named.eq_ignore_ascii_case(name.as_str()))
    }
}

/// Removes the fields of one hop, and those that `Connection` names. To be called before the gateway adds its own.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    if headers.keys().any(is_hop_by_hop) {
        let hop = Hop::of(headers);
        remove_where(headers, |name| hop.ends(name));
    }
}

/// Fields that `Connection` cannot take away, because they concern every recipient (RFC 9110 7.6.1). Otherwise a caller
/// could have removed what a trusted proxy said of them, the request's host, or the length of its body.
fn is_end_to_end(name: &str) -> bool {
    let fixed = [HOST, CONTENT_LENGTH, CONTENT_TYPE, CACHE_CONTROL, AUTHORIZATION, COOKIE];
    fixed.iter().any(|field| field.as_str().eq_ignore_ascii_case(name)) || is_proxy_field(&name.to_ascii_lowercase())
}

/// The elements of a field that is a list of tokens.
fn options<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let elements = headers.get_all(name).into_iter().flat_map(|field| field.as_bytes().split(|&byte| byte == b','));
    elements.filter_map(|option| std::str::from_utf8(option.trim_ascii()).ok())
}

/// Fields by which a proxy in front tells who calls and what for, and by which a server is made to take a request for
/// another one than was authorised; believed of trusted peers only. `Proxy` becomes `HTTP_PROXY` in CGI's environment.
/// `name` is in lower case.
fn is_proxy_field(name: &str) -> bool {
    let named = matches!(
        name,
        "forwarded"
            | "proxy"
            | "x-real-ip"
            | "x-original-url"
            | "x-original-uri"
            | "x-original-host"
            | "x-original-method"
            | "x-rewrite-url"
            | "x-http-method"
            | "x-http-method-override"
            | "x-method-override"
    );
    named || name.starts_with("x-forwarded-")
}

/// Whether every server reads this name as the same. `_` and `.` are folded to `-` by many (CGI, WSGI), so that
/// `X_Auth_User` would pass for `X-Auth-User`.
fn is_plain_name(name: &HeaderName) -> bool {
    name.as_str().bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// Whether a caller may not say this: names that a server could read as another, identity headers, and, unless
/// `peer_trusted`, what only a proxy says.
pub fn is_untrusted(name: &HeaderName, identity: &IdentityNames, peer_trusted: bool) -> bool {
    !is_plain_name(name) || identity.contains(name) || (!peer_trusted && is_proxy_field(name.as_str()))
}

/// Removes what a caller may not say.
pub fn strip_untrusted(headers: &mut HeaderMap, identity: &IdentityNames, peer_trusted: bool) {
    remove_where(headers, |name| is_untrusted(name, identity, peer_trusted));
}

fn remove_where(headers: &mut HeaderMap, unwanted: impl Fn(&HeaderName) -> bool) {
    let names: Vec<HeaderName> = headers.keys().filter(|name| unwanted(name)).cloned().collect();
    for name in &names {
        headers.remove(name);
    }
}

/// Fields that have no business in a trailer: framing, routing, authentication, request modifiers, response control, and
/// how content is to be read (RFC 9110 6.5.1).
static NEVER_TRAILERS: [HeaderName; 31] = [
    ACCEPT_ENCODING,
    AGE,
    AUTHORIZATION,
    CACHE_CONTROL,
    CONTENT_ENCODING,
    CONTENT_LENGTH,
    CONTENT_RANGE,
    CONTENT_TYPE,
    COOKIE,
    DATE,
    EXPECT,
    EXPIRES,
    FORWARDED,
    HOST,
    IF_MATCH,
    IF_MODIFIED_SINCE,
    IF_NONE_MATCH,
    IF_RANGE,
    IF_UNMODIFIED_SINCE,
    LOCATION,
    MAX_FORWARDS,
    PRAGMA,
    RANGE,
    RETRY_AFTER,
    SET_COOKIE,
    VARY,
    WWW_AUTHENTICATE,
    HeaderName::from_static("warning"),
    HeaderName::from_static("authentication-info"),
    HeaderName::from_static("proxy-authentication-info"),
    HeaderName::from_static("x-request-id"),
];

/// How names begin that say who somebody is: the default and the known sets of identity headers. A server that merges
/// trailers into fields would take them for ours.
const IDENTITY_PREFIXES: [&str; 3] = ["x-auth-", "remote-", "x-consumer-"];

/// Removes the trailers that may not pass.
pub fn keep_trailers(trailers: &mut HeaderMap) {
    remove_where(trailers, |name| !may_be_a_trailer(name));
}

fn may_be_a_trailer(name: &HeaderName) -> bool {
    !(!is_plain_name(name)
        || is_hop_by_hop(name)
        || NEVER_TRAILERS.contains(name)
        || is_proxy_field(name.as_str())
        || IDENTITY_PREFIXES.iter().any(|prefix| name.as_str().starts_with(prefix)))
}

/// The values of `Trailer`, without the names of trailers that do not pass: nothing is announced that does not come.
/// `unwanted`: what does not pass beside.
pub fn announced_trailers(headers: &HeaderMap, unwanted: impl Fn(&HeaderName) -> bool) -> Vec<HeaderValue> {
    let passes = |name: &[u8]| {
        let name = HeaderName::from_bytes(name.trim_ascii());
        name.is_ok_and(|name| may_be_a_trailer(&name) && !unwanted(&name))
    };
    let kept = |value: &HeaderValue| {
        let names = || value.as_bytes().split(|&byte| byte == b',');
        if names().all(passes) {
            return Some(value.clone());
        }
        let names: Vec<&[u8]> = names().filter(|name| passes(name)).map(<[u8]>::trim_ascii).collect();
        if names.is_empty() { None } else { HeaderValue::from_bytes(&names.join(&b", "[..])).ok() }
    };
    headers.get_all(TRAILER).iter().filter_map(kept).collect()
}

/// What is percent-encoded in an identity header: all that is not visible ASCII, and `%` so that it can be undone.
const OPAQUE: &AsciiSet = &CONTROLS.add(b' ').add(b'%');
const OPAQUE_IN_LIST: &AsciiSet = &OPAQUE.add(b',');

/// `text` as an identity header bears it; where it is one of a list (`comma`), its commas are encoded as well.
pub fn encode_identity(text: &str, comma: bool) -> HeaderValue {
    visible(utf8_percent_encode(text, if comma { OPAQUE_IN_LIST } else { OPAQUE }).to_string())
}

/// Roles as an identity header bears them.
pub fn roles_field(roles: &[Role]) -> HeaderValue {
    let mut list = String::new();
    for (index, role) in roles.iter().enumerate() {
        if index > 0 {
            list.push(',');
        }
        list.extend(utf8_percent_encode(role.as_str(), OPAQUE_IN_LIST));
    }
    visible(list)
}

/// Visible ASCII is always a field's value; if it were not, nothing is told rather than something else.
fn visible(text: String) -> HeaderValue {
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn headers(fields: &[(&str, &str)]) -> HeaderMap {
        fields
            .iter()
            .map(|(name, value)| {
                (name.parse::<HeaderName>().unwrap(), HeaderValue::from_bytes(value.as_bytes()).unwrap())
            })
            .collect()
    }

    fn names(headers: &HeaderMap) -> Vec<&str> {
        let mut names: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn fields_of_one_hop_do_not_pass() {
        for (name, fields, left) in [
            ("nothing to do", &[("accept", "*/*")][..], &["accept"][..]),
            ("keep-alive", &[("connection", "keep-alive"), ("keep-alive", "x"), ("accept", "*/*")], &["accept"]),
            (
                "all of them",
                &[
                    ("proxy-connection", "x"),
                    ("proxy-authenticate", "x"),
                    ("proxy-authorization", "x"),
                    ("te", "gzip"),
                    ("trailer", "x"),
                    ("transfer-encoding", "chunked"),
                    ("upgrade", "h2c"),
                    ("http2-settings", "x"),
                ],
                &[],
            ),
            (
                "what is named, in any case",
                &[("connection", "close, X-Foo"), ("x-foo", "1"), ("x-bar", "1")],
                &["x-bar"],
            ),
            ("named in a second field", &[("connection", "close"), ("connection", "x-foo"), ("x-foo", "1")], &[]),
            (
                "but nothing that concerns everyone",
                &[
                    ("connection", "host, Content-Length,authorization ,X-FORWARDED-FOR, x-real-ip, cookie"),
                    ("host", "a"),
                    ("content-length", "1"),
                    ("authorization", "x"),
                    ("cookie", "x"),
                    ("x-forwarded-for", "10.0.0.1"),
                    ("x-real-ip", "10.0.0.1"),
                ],
                &["authorization", "content-length", "cookie", "host", "x-forwarded-for", "x-real-ip"],
            ),
            ("rubbish is nothing", &[("connection", ",, ?,=, a b,é"), ("accept", "*/*")], &["accept"]),
        ] {
            let mut headers = headers(fields);
            strip_hop_by_hop(&mut headers);
            assert_eq!(names(&headers), left, "{name}");
        }
    }

    #[test]
    fn what_the_hop_asked_for_is_remembered() {
        let asked = headers(&[("connection", "Upgrade, TE"), ("upgrade", "websocket"), ("te", "gzip;q=0.5, Trailers")]);
        let hop = Hop::of(&asked);
        let websocket = Some(HeaderValue::from_static("websocket"));
        assert_eq!(hop, Hop { takes_trailers: true, upgrade: websocket, named: Vec::new() });
        assert_eq!(Hop::of(&headers(&[("upgrade", "websocket")])), Hop::default());
    }

    #[test]
    fn a_caller_cannot_say_who_they_are() {
        let said = [
            ("X-Auth-User", "root"),
            ("x_auth_user", "root"),
            ("x.auth.user", "root"),
            ("x-auth_user", "root"),
            ("X-AUTH-ROLES", "admin"),
            ("x-auth-scheme", "basic"),
            ("x-forwarded-for", "127.0.0.1"),
            ("x-forwarded-anything", "x"),
            ("forwarded", "for=127.0.0.1"),
            ("x-real-ip", "127.0.0.1"),
            ("x-original-url", "/admin"),
            ("x-rewrite-url", "/admin"),
            ("x-tenant", "blue"),
            ("accept", "*/*"),
        ];
        let mut from_anyone = headers(&said);
        from_anyone.append("x-auth-user", HeaderValue::from_static("again"));
        strip_untrusted(&mut from_anyone, &IdentityNames::default(), false);
        assert_eq!(names(&from_anyone), ["accept", "x-tenant"]);

        let mut from_a_proxy = headers(&said);
        strip_untrusted(&mut from_a_proxy, &IdentityNames::default(), true);
        assert_eq!(names(&from_a_proxy).len(), 8, "{:?}", names(&from_a_proxy));

        // an identity header that is named like a proxy's is still an identity header
        let mut from_a_proxy = headers(&[("x-forwarded-user", "root"), ("x-forwarded-for", "127.0.0.1")]);
        strip_untrusted(&mut from_a_proxy, &IdentityNames::forwarded(), true);
        assert_eq!(names(&from_a_proxy), ["x-forwarded-for"]);
    }

    #[test]
    fn only_harmless_trailers_pass() {
        let mut trailers = headers(&[
            ("grpc-status", "0"),
            ("grpc-message", "x"),
            ("x-checksum", "x"),
            ("server-timing", "x"),
            ("content-length", "1"),
            ("transfer-encoding", "chunked"),
            ("host", "a"),
            ("authorization", "Bearer x"),
            ("set-cookie", "a=b"),
            ("te", "x"),
            ("x-auth-user", "root"),
            ("remote-user", "root"),
            ("x-consumer-groups", "admin"),
            ("x-forwarded-for", "127.0.0.1"),
            ("x_checksum", "x"),
            ("a.b", "x"),
        ]);
        keep_trailers(&mut trailers);
        assert_eq!(names(&trailers), ["grpc-message", "grpc-status", "server-timing", "x-checksum"]);
    }

    #[test]
    fn an_identity_is_visible_ascii() {
        for (text, alone, in_list) in [
            ("alice", "alice", "alice"),
            ("a,b", "a,b", "a%2Cb"),
            ("100%", "100%25", "100%25"),
            ("a b", "a%20b", "a%20b"),
            ("é", "%C3%A9", "%C3%A9"),
            ("a\r\nX-Auth-Roles: admin", "a%0D%0AX-Auth-Roles:%20admin", "a%0D%0AX-Auth-Roles:%20admin"),
            ("\u{7f}\t", "%7F%09", "%7F%09"),
            ("", "", ""),
        ] {
            assert_eq!(encode_identity(text, false), alone);
            assert_eq!(encode_identity(text, true), in_list);
        }
        assert_eq!(roles_field(&["a".into(), "b,c".into(), "d e".into()]), "a,b%2Cc,d%20e");
        assert_eq!(roles_field(&[]), "");
    }

    proptest! {
        #[test]
        fn an_identity_can_be_decoded(text in ".{0,20}") {
            let value = encode_identity(&text, true);
            prop_assert!(value.as_bytes().iter().all(u8::is_ascii_graphic));
            prop_assert!(!value.as_bytes().contains(&b','));
            let decoded = percent_encoding::percent_decode(value.as_bytes()).decode_utf8().unwrap();
            prop_assert_eq!(decoded, text);
        }
    }
}
