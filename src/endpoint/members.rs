//! The members of a request's body, JSON or form (contract 5).
//!
//! Read once, bounded in size and time, into texts that are wiped when dropped. Whoever asks for a member gets a text, or
//! a refusal that names the member as the caller spells it. Unknown members are ignored; a member that comes twice is
//! refused, since another reader might take the other one.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body_util::BodyExt as _;
use percent_encoding::percent_decode;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use zeroize::Zeroizing;

use crate::rejection::{MemberFault, Rejection};
use crate::secret::Secret;
use crate::wire::body::{Body, BodyError};

/// The longest body that is read, in bytes; a JWT of 8 KiB in a form fits well.
pub const BODY_BYTES_MAX: u64 = 64 * 1024;

/// How long a body may take to arrive as a whole.
const BODY_WITHIN: Duration = Duration::from_secs(10);

/// What a configuration calls the members, by their standard names.
pub type Fields = HashMap<Box<str>, Box<str>>;

/// The members of one request.
#[derive(Debug)]
pub struct Members<'a> {
    fields: &'a Fields,
    found: HashMap<String, Member>,
    came: bool,
}

#[derive(Debug)]
enum Member {
    Text(Secret<String>),
    Null,
    /// A number, a list, …; what it holds is of no use to anybody.
    Other,
}

impl<'a> Members<'a> {
    /// Of a request whose body is not looked at.
    pub fn none(fields: &'a Fields) -> Self {
        Self { fields, found: HashMap::new(), came: false }
    }

    /// Reads a body. One without a byte has no members, whatever its type.
    ///
    /// # Errors
    /// [`Rejection::BodyTooLarge`], [`Rejection::RequestTimeout`], [`Rejection::UnsupportedMediaType`] for a body that is
    /// neither JSON nor a form, and [`Rejection::MalformedBody`] for one that does not parse.
    pub async fn read(fields: &'a Fields, headers: &HeaderMap, body: Body) -> Result<Self, Rejection> {
        let bytes = collect(body).await?;
        if bytes.is_empty() {
            return Ok(Self::none(fields));
        }
        let parsed = match media_type(headers) {
            Some(MediaType::Json) => json(&bytes),
            Some(MediaType::Form) => form(&bytes),
            None => return Err(Rejection::UnsupportedMediaType),
        };
        let found = parsed.map_err(Rejection::MalformedBody)?;
        Ok(Self { fields, found, came: true })
    }

    /// Whether there was a body.
    pub const fn came(&self) -> bool {
        self.came
    }

    /// What there is of a member, by its standard name: its text, or why there is none.
    ///
    /// # Errors
    /// [`MemberFault::Missing`], [`MemberFault::Null`] or [`MemberFault::WrongType`].
    pub fn look(&self, name: &str) -> Result<&str, MemberFault> {
        match self.found.get(self.spelt(name)) {
            None => Err(MemberFault::Missing),
            Some(Member::Text(text)) => Ok(text.expose()),
            Some(Member::Null) => Err(MemberFault::Null),
            Some(Member::Other) => Err(MemberFault::WrongType),
        }
    }

    /// A text, by its standard name; `None` where there is no such member.
    ///
    /// # Errors
    /// [`Rejection::InvalidMembers`] where it is not a text.
    pub fn text(&self, name: &str) -> Result<Option<&str>, Rejection> {
        match self.look(name) {
            Ok(text) => Ok(Some(text)),
            Err(MemberFault::Missing) => Ok(None),
            Err(fault) => Err(self.wrong(&[(name, fault)])),
        }
    }

    /// Texts that must be there; all that are not are named.
    ///
    /// # Errors
    /// [`Rejection::InvalidMembers`] where one is missing or not a text.
    pub fn all<const N: usize>(&self, names: [&str; N]) -> Result<[&str; N], Rejection> {
        let found = names.map(|name| (name, self.look(name)));
        let faults: Vec<_> = found.iter().filter_map(|(name, found)| found.err().map(|fault| (*name, fault))).collect();
        if faults.is_empty() { Ok(found.map(|(_, found)| found.unwrap_or_default())) } else { Err(self.wrong(&faults)) }
    }

    /// A text that must be there.
    ///
    /// # Errors
    /// [`Rejection::InvalidMembers`] where it is missing or not a text.
    pub fn required(&self, name: &str) -> Result<&str, Rejection> {
        self.look(name).map_err(|fault| self.wrong(&[(name, fault)]))
    }

    /// A text that counts as missing where it is empty (RFC 6749 3.2).
    ///
    /// # Errors
    /// [`Rejection::InvalidMembers`] where it is not a text.
    pub fn filled(&self, name: &str) -> Result<Option<&str>, Rejection> {
        Ok(self.text(name)?.filter(|text| !text.is_empty()))
    }

    /// The refusal of a request without this member.
    pub fn missing(&self, name: &str) -> Rejection {
        self.wrong(&[(name, MemberFault::Missing)])
    }

    /// The refusal of a request for these members, by their standard names.
    pub fn wrong(&self, faults: &[(&str, MemberFault)]) -> Rejection {
        Rejection::InvalidMembers(faults.iter().map(|&(name, fault)| (self.spelt(name).into(), fault)).collect())
    }

    /// The name by which the caller knows a member.
    pub fn spelt<'n>(&'n self, name: &'n str) -> &'n str {
        self.fields.get(name).map_or(name, |spelt| spelt)
    }
}

async fn collect(body: Body) -> Result<Zeroizing<Vec<u8>>, Rejection> {
    let collected = tokio::time::timeout(BODY_WITHIN, body.capped(BODY_BYTES_MAX).collect()).await;
    match collected {
        Ok(Ok(collected)) => Ok(Zeroizing::new(collected.to_bytes().into())),
        Ok(Err(BodyError::TooLarge)) => Err(Rejection::BodyTooLarge),
        Ok(Err(BodyError::Stalled)) | Err(_) => Err(Rejection::RequestTimeout),
        Ok(Err(BodyError::Broken(_) | BodyError::Cut)) => Err(Rejection::BadRequest("the body broke off")),
    }
}

enum MediaType {
    Json,
    Form,
}

/// What the body says it is. A coding (gzip) would be another media type to us, and a second field another opinion.
fn media_type(headers: &HeaderMap) -> Option<MediaType> {
    if only(headers, &CONTENT_ENCODING).is_some_and(|coding| !coding.eq_ignore_ascii_case("identity")) {
        return None;
    }
    let essence = only(headers, &CONTENT_TYPE)?.split(';').next()?.trim().to_ascii_lowercase();
    match essence.as_str() {
        "application/json" => Some(MediaType::Json),
        "application/x-www-form-urlencoded" => Some(MediaType::Form),
        other if other.starts_with("application/") && other.ends_with("+json") => Some(MediaType::Json),
        _ => None,
    }
}

/// The one value of a field; an unusable text where there are two or it is not visible ASCII.
fn only<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?;
    let usable = if values.next().is_some() { None } else { HeaderValue::to_str(first).ok() };
    Some(usable.unwrap_or("-"))
}

const NOT_AN_OBJECT: &str = "the body must be a JSON object with each member once";

fn json(bytes: &[u8]) -> Result<HashMap<String, Member>, &'static str> {
    serde_json::from_slice::<Object>(bytes).map(|object| object.0).map_err(|_| NOT_AN_OBJECT)
}

fn form(bytes: &[u8]) -> Result<HashMap<String, Member>, &'static str> {
    let mut found = HashMap::new();
    for pair in bytes.split(|&byte| byte == b'&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_at(pair.iter().position(|&byte| byte == b'=').unwrap_or(pair.len()));
        let value = value.strip_prefix(b"=").unwrap_or(value);
        let (Some(name), Some(value)) = (form_text(name), form_text(value)) else {
            return Err("the form must be UTF-8, with two hexadecimal digits behind each `%`");
        };
        if found.insert(name, Member::Text(Secret::new(value))).is_some() {
            return Err("the form must have each member once");
        }
    }
    Ok(found)
}

/// Undoes application/x-www-form-urlencoded: `+` is a space. `None`: not UTF-8, or a `%` that begins no escape, which some
/// readers take literally and others drop.
pub(super) fn form_text(encoded: &[u8]) -> Option<String> {
    let begins_escape =
        |at: usize| encoded.get(at + 1..at + 3).is_some_and(|two| two.iter().all(u8::is_ascii_hexdigit));
    if !memchr::memchr_iter(b'%', encoded).all(begins_escape) {
        return None;
    }
    let spaced = Zeroizing::new(encoded.iter().map(|&byte| if byte == b'+' { b' ' } else { byte }).collect::<Vec<_>>());
    String::from_utf8(percent_decode(&spaced).collect()).ok()
}

/// A JSON object whose members come once each. `serde_json::Map` would keep the last of two.
struct Object(HashMap<String, Member>);

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Once;

        impl<'de> Visitor<'de> for Once {
            type Value = Object;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Object, A::Error> {
                let mut found = HashMap::new();
                while let Some((name, member)) = members.next_entry::<String, Member>()? {
                    if found.insert(name, member).is_some() {
                        return Err(serde::de::Error::custom("a member twice"));
                    }
                }
                Ok(Object(found))
            }
        }

        deserializer.deserialize_map(Once)
    }
}

impl<'de> Deserialize<'de> for Member {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextOrOther;

        impl<'de> Visitor<'de> for TextOrOther {
            type Value = Member;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any value")
            }

            fn visit_str<E>(self, text: &str) -> Result<Member, E> {
                Ok(Member::Text(Secret::new(text.to_owned())))
            }

            fn visit_string<E>(self, text: String) -> Result<Member, E> {
                Ok(Member::Text(Secret::new(text)))
            }

            fn visit_unit<E>(self) -> Result<Member, E> {
                Ok(Member::Null)
            }

            fn visit_bool<E>(self, _: bool) -> Result<Member, E> {
                Ok(Member::Other)
            }

            fn visit_i64<E>(self, _: i64) -> Result<Member, E> {
                Ok(Member::Other)
            }

            fn visit_u64<E>(self, _: u64) -> Result<Member, E> {
                Ok(Member::Other)
            }

            fn visit_f64<E>(self, _: f64) -> Result<Member, E> {
                Ok(Member::Other)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Member, A::Error> {
                while items.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Member::Other)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Member, A::Error> {
                while members.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Member::Other)
            }
        }

        deserializer.deserialize_any(TextOrOther)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(content_type: &[&str], body: &str) -> Result<String, String> {
        let fields = Fields::from([("username".into(), "email".into())]);
        let mut headers = HeaderMap::new();
        for value in content_type {
            headers.append(CONTENT_TYPE, value.parse().unwrap());
        }
        let told = |rejection: Rejection| {
            if rejection.code() == "invalid_request" { rejection.message() } else { rejection.code().to_owned() }
        };
        let members = Members::read(&fields, &headers, Body::full(body.to_owned())).await.map_err(told)?;
        members.required("username").map(str::to_owned).map_err(told)
    }

    #[tokio::test]
    async fn a_member_is_read_by_the_name_that_is_configured() {
        const JSON: &[&str] = &["application/json"];
        const FORM: &[&str] = &["application/x-www-form-urlencoded"];
        const NOT_A_FORM: &str = "the form must be UTF-8, with two hexadecimal digits behind each `%`";
        for (name, content_type, body, expected) in [
            ("json", JSON, r#"{"email":"ann"}"#, Ok("ann")),
            ("json with a charset", &["Application/JSON; charset=utf-8"], r#"{"email":"ann"}"#, Ok("ann")),
            ("another kind of json", &["application/vnd.api+json"], r#"{"email":"ann"}"#, Ok("ann")),
            ("escapes", JSON, r#"{"em\u0061il":"\u0061nn"}"#, Ok("ann")),
            ("further members", JSON, r#"{"x":[1,{"a":null}],"email":"ann","y":{"z":1.5}}"#, Ok("ann")),
            ("a form", FORM, "email=a%6En+x&x=&y", Ok("ann x")),
            ("a form with =", FORM, "email=a=b", Ok("a=b")),
            ("an empty text is there", JSON, r#"{"email":""}"#, Ok("")),
            ("missing", JSON, r#"{"username":"ann"}"#, Err("`email` is missing")),
            ("missing in a form", FORM, "username=ann", Err("`email` is missing")),
            ("no body at all", &[], "", Err("`email` is missing")),
            ("an empty body of json", JSON, "", Err("`email` is missing")),
            ("null", JSON, r#"{"email":null}"#, Err("`email` must be a text")),
            ("a number", JSON, r#"{"email":1}"#, Err("`email` must be a text")),
            ("a negative number", JSON, r#"{"email":-1}"#, Err("`email` must be a text")),
            ("a fraction", JSON, r#"{"email":1.5}"#, Err("`email` must be a text")),
            ("a truth", JSON, r#"{"email":true}"#, Err("`email` must be a text")),
            ("a list", JSON, r#"{"email":["ann"]}"#, Err("`email` must be a text")),
            ("an object", JSON, r#"{"email":{"$ne":""}}"#, Err("`email` must be a text")),
            ("twice", JSON, r#"{"email":"ann","email":"bob"}"#, Err(NOT_AN_OBJECT)),
            ("twice, spelt otherwise", JSON, r#"{"email":"ann","\u0065mail":"ann"}"#, Err(NOT_AN_OBJECT)),
            ("twice in a form", FORM, "email=ann&email=ann", Err("the form must have each member once")),
            ("not UTF-8 in a form", FORM, "email=%ff", Err(NOT_A_FORM)),
            ("no escape in a form", FORM, "email=%zz", Err(NOT_A_FORM)),
            ("half an escape in a form", FORM, "email=ann&x=%4", Err(NOT_A_FORM)),
            ("no escape in a name of a form", FORM, "email=ann&%=1", Err(NOT_A_FORM)),
            ("an escaped escape in a form", FORM, "email=%25zz", Ok("%zz")),
            ("a list as body", JSON, r#"["email"]"#, Err(NOT_AN_OBJECT)),
            ("null as body", JSON, "null", Err(NOT_AN_OBJECT)),
            ("broken", JSON, r#"{"email":"#, Err(NOT_AN_OBJECT)),
            ("something behind", JSON, r#"{"email":"ann"} x"#, Err(NOT_AN_OBJECT)),
            ("half a surrogate pair", JSON, r#"{"email":"\ud800"}"#, Err(NOT_AN_OBJECT)),
            ("text", &["text/plain"], r#"{"email":"ann"}"#, Err("unsupported_media_type")),
            ("no type", &[], r#"{"email":"ann"}"#, Err("unsupported_media_type")),
            ("two types", &["application/json", "text/plain"], r#"{"email":"ann"}"#, Err("unsupported_media_type")),
            ("multipart", &["multipart/form-data; boundary=x"], "--x--", Err("unsupported_media_type")),
        ] {
            let expected = expected.map(str::to_owned).map_err(str::to_owned);
            assert_eq!(read(content_type, body).await, expected, "{name}");
        }
    }

    #[tokio::test]
    async fn the_largest_body_is_read_and_one_byte_more_is_not() {
        let frame = r#"{"email":""}"#.len();
        let most = usize::try_from(BODY_BYTES_MAX).unwrap() - frame;
        for (bytes, expected) in [(most, true), (most + 1, false)] {
            let body = format!(r#"{{"email":"{}"}}"#, "a".repeat(bytes));
            assert_eq!(read(&["application/json"], &body).await.is_ok(), expected);
        }
    }

    #[tokio::test]
    async fn deep_nesting_ends_nothing() {
        let deep = format!(r#"{{"x":{}{},"email":"ann"}}"#, "[".repeat(20_000), "]".repeat(20_000));
        let told = read(&["application/json"], &deep).await;
        assert!(told == Ok("ann".to_owned()) || told == Err(NOT_AN_OBJECT.to_owned()));
    }

    #[tokio::test]
    async fn a_coding_is_not_undone() {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        let fields = Fields::new();
        let refused = Members::read(&fields, &headers, Body::full("{}")).await.unwrap_err();
        assert_eq!(refused.code(), "unsupported_media_type");
    }
}
