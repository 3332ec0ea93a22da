//! Each refusal as it is read.

use http::header::{ACCESS_CONTROL_EXPOSE_HEADERS, WWW_AUTHENTICATE};
use http_body::Body as _;
use serde_json::{Value, json};

use super::Scheme::{Bearer, Token};
use super::texts::Message;
use super::*;

fn audience(texts: &Texts, format: Format) -> Audience<'_> {
    Audience { realm: "api", schemes: SchemeSet::all(), texts, method: "GET", request_id: "r1", format }
}

#[test]
fn a_missing_credential_challenges_for_each_scheme() {
    let texts = Texts::default();
    let response = Rejection::MissingCredentials.respond(&audience(&texts, Format::Json));
    assert_eq!(response.status(), 401);
    assert_eq!(response.headers().get_all(WWW_AUTHENTICATE).iter().count(), 3);
    let body: Value = serde_json::from_slice(response.body()).unwrap();
    assert_eq!(body["error"], "missing_credentials");
    assert_eq!(body["message"], "Authorization header is missing");
    assert_eq!(body["request_id"], "r1");
}

#[test]
fn a_refusal_says_the_same_in_lines_and_in_a_map() {
    let exhausted = Exhausted {
        limit: "route",
        quota: 3,
        window: Duration::from_mins(1),
        retry_after: Duration::from_millis(1500),
    };
    let texts = Texts::default();
    for rejection in [
        Rejection::MissingCredentials,
        Rejection::InvalidToken(Bearer, TokenFault::Expired),
        Rejection::MethodNotAllowed(HeaderValue::from_static("GET, HEAD")),
        Rejection::RateLimited(exhausted),
        Rejection::StoreUnavailable,
        Rejection::BadRequest("bad"),
    ] {
        for format in [Format::Json, Format::Problem, Format::Grpc("application/grpc")] {
            let audience = audience(&texts, format);
            let (in_map, in_lines) = (rejection.respond(&audience), rejection.respond_in_lines(&audience));
            assert_eq!(in_lines.status(), in_map.status());
            assert!(in_lines.headers().is_empty());
            let said = in_map.headers().iter().map(|(name, value)| format!("{name}: {}\r\n", value.to_str().unwrap()));
            let mut said: Vec<String> = said.collect();
            let lines = in_lines.body().lines().unwrap();
            let lines = str::from_utf8(&lines.text).unwrap().split_inclusive("\r\n").map(str::to_owned);
            let mut lines: Vec<String> = lines.collect();
            said.sort();
            lines.sort();
            assert_eq!(lines, said, "{rejection:?} {format:?}");
            assert_eq!(in_lines.body().size_hint().exact(), Some(in_map.body().len() as u64));
        }
    }
}

#[test]
fn what_is_left_of_a_budget_is_told() {
    let exhausted = Exhausted {
        limit: "per_address",
        quota: 30,
        window: Duration::from_mins(1),
        retry_after: Duration::from_millis(1500),
    };
    let texts = Texts::default();
    let response = Rejection::RateLimited(exhausted).respond(&audience(&texts, Format::Json));
    for (name, value) in [
        ("retry-after", "2"),
        ("ratelimit-policy", "\"per_address\";q=30;w=60"),
        ("ratelimit", "\"per_address\";r=0;t=2"),
    ] {
        assert_eq!(response.headers()[name], value);
    }
}

#[test]
fn whatever_a_text_has_in_it_the_body_is_json() {
    let odd = "say \"no\" \\ é\n\u{1}";
    let texts =
        Texts { member: odd.into(), messages: [("bad_request".into(), Message::Text(odd.into()))].into(), oauth: true };
    let audience = Audience { request_id: "a\"b\\", ..audience(&texts, Format::Json) };
    let response = Rejection::BadRequest("bad").respond(&audience);
    let body = std::str::from_utf8(response.body()).unwrap();
    let expected =
        json!({ "error": "bad_request", "error_description": odd, odd: odd, "request_id": "a\"b\\" }).to_string();
    assert_eq!(body, expected);
    let problem = Rejection::BadRequest("bad").respond(&Audience { format: Format::Problem, ..audience });
    let problem: Value = serde_json::from_slice(problem.body()).unwrap();
    assert_eq!((&problem["detail"], &problem[odd]), (&json!(odd), &json!(odd)));
}

#[test]
fn texts_are_replaced_by_code_and_more_finely() {
    let texts = Texts {
        member: "msg".into(),
        messages: [("invalid_token", "Bad"), ("invalid_token.expired", "Token has expired")]
            .map(|(code, text)| (code.into(), Message::Text(text.into())))
            .into(),
        oauth: false,
    };
    for (fault, expected) in [(TokenFault::Expired, "Token has expired"), (TokenFault::BadSignature, "Bad")] {
        let response = Rejection::InvalidToken(Scheme::Bearer, fault).respond(&audience(&texts, Format::Json));
        let body: Value = serde_json::from_slice(response.body()).unwrap();
        assert_eq!(body["msg"], expected);
    }
}

fn told(messages: &Value, rejection: &Rejection, format: Format) -> Value {
    let message = |(code, message): (&String, &Value)| {
        let message = match message.as_object() {
            Some(members) => Message::members(code, members.clone()).unwrap(),
            None => Message::Text(message.as_str().unwrap().into()),
        };
        (code.as_str().into(), message)
    };
    let messages = messages.as_object().unwrap().iter().map(message).collect();
    let texts = Texts { member: "detail".into(), messages, oauth: false };
    let response = rejection.respond(&audience(&texts, format));
    let mut body: Value = serde_json::from_slice(response.body()).unwrap();
    for own in ["error", "request_id", "type", "title", "status"] {
        body.as_object_mut().unwrap().remove(own);
    }
    body
}

#[test]
fn a_message_can_be_members_and_the_most_exact_one_counts() {
    let messages = json!({
        "invalid_token": { "detail": "any", "code": "a" },
        "invalid_token.token": "of tokens",
        "invalid_token.expired": { "detail": "over", "messages": [{ "is": "{method}" }] },
        "invalid_token.bearer.expired": { "{method}": "bearer" },
    });
    for (scheme, fault, expected) in [
        (Bearer, TokenFault::Revoked, json!({ "detail": "any", "code": "a" })),
        (Token, TokenFault::Revoked, json!({ "detail": "of tokens" })),
        (Token, TokenFault::Expired, json!({ "detail": "over", "messages": [{ "is": "GET" }] })),
        (Bearer, TokenFault::Expired, json!({ "GET": "bearer" })),
    ] {
        let rejection = Rejection::InvalidToken(scheme, fault);
        assert_eq!(told(&messages, &rejection, Format::Json), expected, "{fault:?} {scheme:?}");
    }
    let problem = told(&messages, &Rejection::InvalidToken(Bearer, TokenFault::Revoked), Format::Problem);
    assert_eq!(problem, json!({ "detail": "any", "code": "a" }));
}

#[test]
fn each_wrong_member_is_named() {
    let members = vec![("name".into(), MemberFault::Missing), ("pass".into(), MemberFault::WrongType)];
    let rejection = Rejection::InvalidMembers(members);
    for (messages, expected) in [
        (json!({}), json!({ "detail": "`name` is missing; `pass` must be a text" })),
        (json!({ "invalid_request": "bad" }), json!({ "detail": "bad" })),
        (json!({ "invalid_request.missing": { "{field}": ["required"] } }), json!({ "name": ["required"] })),
        (
            json!({
                "invalid_request.missing": { "detail": "no", "errors": { "{field}": "'{field}' is required" } },
                "invalid_request.wrong_type": { "detail": "never", "errors": { "{field}": "not a text" } },
            }),
            json!({ "detail": "no", "errors": { "name": "'name' is required", "pass": "not a text" } }),
        ),
    ] {
        assert_eq!(told(&messages, &rejection, Format::Json), expected);
    }
}

#[test]
fn members_of_a_message_are_templates() {
    for (code, members, expected) in [
        ("invalid_request.missing", json!({ "{field}": "{method} {{x}}" }), None),
        ("invalid_token", json!({ "a": "{field}" }), Some("`{field}` can stand in `invalid_request` only")),
        ("invalid_token", json!({ "{access}": "a" }), Some("unknown placeholder `{access}`")),
    ] {
        let compiled = Message::members(code, members.as_object().unwrap().clone());
        assert_eq!(compiled.err().map(|error| error.to_string()).as_deref(), expected);
    }
}

#[test]
fn grpc_gets_its_own_status() {
    let texts = Texts::default();
    for media_type in ["application/grpc", "application/grpc+proto", "application/grpc-web-text"] {
        let response = Rejection::InsufficientPermissions(Some(Scheme::Token))
            .respond(&audience(&texts, Format::Grpc(media_type)));
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["grpc-status"], "7");
        assert_eq!(response.headers()[CONTENT_TYPE], media_type);
        let is_exposed = response.headers().contains_key(ACCESS_CONTROL_EXPOSE_HEADERS);
        assert_eq!(is_exposed, media_type.contains("web"), "{media_type}");
        assert!(response.body().is_empty());
    }
}

#[test]
fn waiting_is_rounded_up_and_never_zero() {
    for (ms, seconds) in [(0, 1), (1, 1), (1000, 1), (1001, 2)] {
        assert_eq!(whole_seconds(Duration::from_millis(ms)), seconds);
    }
}
