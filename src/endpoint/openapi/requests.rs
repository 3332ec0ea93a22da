//! What an endpoint takes: the members of its body, and the schemes of its `Authorization`.

use http::Method;
use serde_json::{Map, Value, json};

use crate::endpoint::{Action, Endpoint, Settings, Source};
use crate::principal::NAME_BYTES_MAX;

const JSON: &str = "application/json";
const FORM: &str = "application/x-www-form-urlencoded";

/// The longest that a character is in UTF-8, in bytes. A schema counts characters: it asks for what a text must have that
/// has so many bytes.
const CHARACTER_BYTES_MAX: usize = 4;

/// A member of a request.
struct Member {
    name: &'static str,
    required: bool,
    schema: Value,
}

/// The body of a request; `None` where there is none.
pub(super) fn body(endpoint: &Endpoint, settings: &Settings) -> Option<Value> {
    let members = members(endpoint, settings);
    if members.is_empty() || !endpoint.reads_body(&Method::POST) {
        return None;
    }
    let (mut properties, mut required) = (Map::new(), Vec::new());
    for Member { name, required: is_required, schema } in members {
        let spelt = endpoint.fields.get(name).map_or(name, |spelt| spelt);
        if is_required {
            required.push(spelt);
        }
        properties.insert(spelt.to_owned(), schema);
    }
    let secret_is_optional = properties.contains_key("client_secret") && !required.contains(&"client_secret");
    let mut schema = Map::new();
    schema.insert("type".into(), "object".into());
    schema.insert("required".into(), json!(required));
    schema.insert("properties".into(), properties.into());
    if secret_is_optional {
        schema.insert("dependentRequired".into(), json!({ "client_secret": ["client_id"] }));
    }
    // a list would be a member that comes several times
    let mut form = schema.clone();
    form.insert("additionalProperties".into(), text());
    // RFC 6749, 7009 and 7662 know forms only, so those come first
    let by_rfc = matches!(endpoint.action, Action::OauthToken | Action::Revoke | Action::Introspect);
    let media_types = if by_rfc { [FORM, JSON] } else { [JSON, FORM] };
    let of = |name| if name == FORM { &form } else { &schema };
    let content: Map<_, _> =
        media_types.into_iter().map(|name| (name.to_owned(), json!({ "schema": of(name) }))).collect();
    Some(json!({ "required": needs_body(endpoint), "content": content }))
}

/// Whether nothing in `Authorization` can stand for the members. A log-in takes Basic too, which no document can say beside a
/// body that must come where Basic does not: it tells the way that needs nothing else.
fn needs_body(endpoint: &Endpoint) -> bool {
    let by_either = matches!(endpoint.action, Action::Refresh | Action::Revoke);
    !by_either || endpoint.from == Source::Members
}

/// The members that must be there, by the names in use.
pub(super) fn required(endpoint: &Endpoint) -> Vec<Box<str>> {
    let names: &[&str] = match endpoint.action {
        Action::Login | Action::Register => &["username", "password"],
        Action::ClientLogin => &["client_id", "client_secret"],
        Action::Refresh => &["refresh_token"],
        Action::Revoke | Action::Introspect => &["token"],
        Action::ChangePassword => &["password", "new_password"],
        Action::OauthToken => &["grant_type"],
        Action::Jwks | Action::Metadata | Action::Openapi | Action::Docs => &[],
    };
    names.iter().map(|name| endpoint.fields.get(*name).map_or_else(|| (*name).into(), Clone::clone)).collect()
}

fn members(endpoint: &Endpoint, settings: &Settings) -> Vec<Member> {
    let required = |name, schema| Member { name, required: true, schema };
    let optional = |name| Member { name, required: false, schema: text() };
    let client = || [optional("client_id"), Member { schema: secret(), ..optional("client_secret") }];
    let token = || [required("token", filled()), optional("token_type_hint")].into_iter().chain(client()).collect();
    match endpoint.action {
        Action::Login => vec![required("username", text()), required("password", secret())],
        Action::ClientLogin => vec![required("client_id", text()), required("client_secret", secret())],
        Action::Refresh => vec![required("refresh_token", text())],
        Action::Revoke | Action::Introspect => token(),
        Action::Register => vec![required("username", name()), required("password", new_password(settings))],
        Action::ChangePassword => {
            vec![required("password", secret()), required("new_password", new_password(settings))]
        }
        Action::OauthToken => {
            let mut grants = vec!["client_credentials", "refresh_token"];
            let mut members = vec![optional("scope"), optional("refresh_token")];
            members.extend(client());
            if endpoint.password_grant {
                grants.push("password");
                members.extend([optional("username"), Member { schema: secret(), ..optional("password") }]);
            }
            members.insert(0, required("grant_type", json!({ "type": "string", "enum": grants })));
            members
        }
        Action::Jwks | Action::Metadata | Action::Openapi | Action::Docs => Vec::new(),
    }
}

fn text() -> Value {
    json!({ "type": "string" })
}

fn filled() -> Value {
    json!({ "type": "string", "minLength": 1 })
}

fn secret() -> Value {
    json!({ "type": "string", "format": "password" })
}

fn name() -> Value {
    json!({
        "type": "string",
        "minLength": 1,
        "maxLength": NAME_BYTES_MAX,
        "pattern": r"^[^:\u0000-\u001f\u007f-\u009f]*$",
        "description": format!("At most {NAME_BYTES_MAX} bytes of UTF-8, without colons and control characters."),
    })
}

fn new_password(settings: &Settings) -> Value {
    let Settings { password_bytes_min: min, password_bytes_max: max, .. } = settings;
    json!({
        "type": "string",
        "format": "password",
        "minLength": min.div_ceil(CHARACTER_BYTES_MAX),
        "maxLength": max,
        "pattern": r"^[^\u0000-\u001f\u007f-\u009f]*$",
        "description": format!("From {min} to {max} bytes of UTF-8, without control characters."),
    })
}

/// The alternatives of `Authorization` (an empty one: none is needed).
pub(super) fn security(endpoint: &Endpoint) -> Value {
    let schemes = endpoint.schemes();
    let schemes = schemes.iter().map(|scheme| json!({ scheme.name(): [] }));
    // the credentials of all others may be members of the body
    let only = endpoint.action == Action::ChangePassword || endpoint.from == Source::Authorization;
    let without = (!only).then(|| json!({}));
    let alternatives: Vec<_> = without.into_iter().chain(schemes).collect();
    if alternatives.len() > 1 || only { alternatives.into() } else { json!([]) }
}

/// The schemes that these alternatives name, and what each is.
pub(super) fn security_schemes(named: &[Value]) -> Value {
    let mut schemes = Map::new();
    for (name, scheme) in [
        (
            "basic",
            json!({ "type": "http", "scheme": "basic", "description": "A name and a password, or a client's id and secret." }),
        ),
        (
            "bearer",
            json!({ "type": "http", "scheme": "bearer", "description": "An access token; to refresh, a refresh token." }),
        ),
        (
            "token",
            json!({
                "type": "apiKey",
                "in": "header",
                "name": "Authorization",
                "description": "The word `Token`, a space, and an opaque token.",
            }),
        ),
    ] {
        let alternatives = named.iter().filter_map(Value::as_array).flatten();
        if alternatives.into_iter().any(|alternative| alternative.get(name).is_some()) {
            schemes.insert(name.to_owned(), scheme);
        }
    }
    schemes.into()
}
