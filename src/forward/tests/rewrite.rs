//! What a request becomes on its way: the same in the bytes for HTTP/1.1, in a map, and in substance over HTTP/2.

use http::{HeaderMap, HeaderName, Uri, request};
use proptest::prelude::*;

use super::super::rewrite::{Departure, Framing, Outbound};
use super::*;
use crate::wire::fields::{Hop, IdentityNames};

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
const NEW_TRACE: &str = "00-07070707070707070707070707070707-0707070707070707-01";

fn head(method: &str, fields: &[(&str, &str)]) -> request::Parts {
    let (mut head, ()) = Request::builder().method(method).uri("/orders/7?a=%20b").body(()).unwrap().into_parts();
    for (name, value) in fields {
        let name: HeaderName = name.parse().unwrap();
        head.headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    head
}

/// What decides, but for the caller's head.
struct Case {
    route: Route,
    identity: Option<Arc<Identity>>,
    names: IdentityNames,
    origin: Origin<'static>,
}

impl Case {
    fn new() -> Self {
        let origin = Origin {
            peer: [192, 0, 2, 7].into(),
            trusted: false,
            https: true,
            host: HeaderValue::from_static("api.example.com:8443"),
            request_id: &REQUEST_ID,
            random: [7; 24],
        };
        Self { route: route(), identity: Some(identity()), names: IdentityNames::default(), origin }
    }

    /// The head as bytes, as a map for HTTP/1.1 and as one for HTTP/2.
    fn rewritten(&self, head: &request::Parts, framing: &Framing) -> (String, request::Parts, request::Parts) {
        let target = Target::parse(&head.uri, &PathPolicy::default()).unwrap();
        let outbound = Outbound {
            route: &self.route,
            identity: self.identity.as_deref(),
            names: &self.names,
            target: &target,
            origin: &self.origin,
        };
        let hop = Hop::of(&head.headers);
        let departure = Departure::new(head, &hop, outbound);
        let mut text = Vec::new();
        let server = HeaderValue::from_static("server.internal:9001");
        departure.write_http1(framing, &server, &mut text);
        let text = text.iter().copied().map(char::from).collect();
        let over_http2 = departure.http2(framing, (Protocol::H2c, &server)).unwrap();
        (text, departure.http1(framing, &server).unwrap(), over_http2)
    }
}

/// Fields as sorted lines.
fn lines<'a>(fields: impl IntoIterator<Item = (&'a HeaderName, &'a HeaderValue)>) -> Vec<String> {
    let value = |value: &HeaderValue| value.as_bytes().iter().copied().map(char::from).collect::<String>();
    let mut lines: Vec<String> = fields.into_iter().map(|(name, text)| format!("{name}: {}", value(text))).collect();
    lines.sort();
    lines
}

/// What every request is told with, when nothing else is asked for.
fn usual() -> Vec<String> {
    [
        "host: api.example.com:8443",
        "x-forwarded-for: 192.0.2.7",
        "x-forwarded-proto: https",
        "x-forwarded-host: api.example.com:8443",
        "x-request-id: id-1",
        "x-auth-user: ann",
        "x-auth-roles: user,admin",
        "x-auth-scheme: bearer",
    ]
    .map(str::to_owned)
    .to_vec()
}

fn fields_of(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = text.trim_end().split("\r\n").skip(1).map(str::to_owned).collect();
    lines.sort();
    lines
}

/// Name, change of the case, what the caller says, what is told of it beside what is usual, and what is not.
type Row<'a> = (&'a str, fn(&mut Case), &'a [(&'a str, &'a str)], Vec<&'a str>, &'a [&'a str]);

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn what_a_caller_says_passes_unless_it_is_not_theirs_to_say() {
    let from_proxy = |case: &mut Case| case.origin.trusted = true;
    let keep = |_: &mut Case| {};
    let new_trace = format!("traceparent: {NEW_TRACE}");
    let traced = format!("traceparent: {TRACE}");
    let rows: [Row<'_>; 14] = [
        (
            "ordinary fields",
            keep,
            &[("accept", "*/*"), ("x-a", "1"), ("x-a", "2")],
            vec![&new_trace, "accept: */*", "x-a: 1", "x-a: 2"],
            &[],
        ),
        ("the credential stays here", keep, &[("authorization", "Bearer x")], vec![&new_trace], &[]),
        (
            "unless the route sends it on",
            |case| case.route.forward_credentials = true,
            &[("authorization", "Bearer x")],
            vec![&new_trace, "authorization: Bearer x"],
            &[],
        ),
        (
            "nobody says who they are",
            keep,
            &[("x-auth-user", "root"), ("x_auth_user", "root"), ("x.auth.user", "root"), ("x-auth-roles", "admin")],
            vec![&new_trace],
            &[],
        ),
        (
            "nor by what they came",
            keep,
            &[
                ("x-forwarded-for", "127.0.0.1"),
                ("x-forwarded-host", "a"),
                ("x-forwarded-proto", "http"),
                ("forwarded", "for=a"),
                ("x-original-url", "/admin"),
            ],
            vec![&new_trace],
            &[],
        ),
        (
            "a trusted proxy does",
            from_proxy,
            &[
                ("x-forwarded-for", "203.0.113.7"),
                ("x-forwarded-for", "10.0.0.2"),
                ("x-forwarded-host", "a"),
                ("forwarded", "for=a"),
            ],
            vec![
                &new_trace,
                "x-forwarded-for: 203.0.113.7, 10.0.0.2, 192.0.2.7",
                "x-forwarded-host: a",
                "forwarded: for=a",
            ],
            &["x-forwarded-for: 192.0.2.7", "x-forwarded-host: api.example.com:8443"],
        ),
        (
            "a hop's fields end here, with what it names",
            keep,
            &[
                ("connection", "keep-alive, X-Secret"),
                ("keep-alive", "5"),
                ("x-secret", "1"),
                ("proxy-authorization", "Basic x"),
                ("upgrade", "h2c"),
                ("http2-settings", "x"),
            ],
            vec![&new_trace],
            &[],
        ),
        (
            "host and id are ours",
            keep,
            &[("host", "evil"), ("x-request-id", "mine"), ("expect", "100-continue")],
            vec![&new_trace],
            &[],
        ),
        (
            "a trace goes on",
            keep,
            &[("traceparent", TRACE), ("tracestate", "a=b")],
            vec![&traced, "tracestate: a=b"],
            &[],
        ),
        (
            "one that ends with the hop does not",
            keep,
            &[("connection", "traceparent"), ("traceparent", TRACE), ("tracestate", "a=b")],
            vec![&new_trace],
            &[],
        ),
        (
            "nor two",
            keep,
            &[("traceparent", TRACE), ("traceparent", TRACE), ("tracestate", "a=b")],
            vec![&new_trace],
            &[],
        ),
        (
            "cookies become one field",
            keep,
            &[("cookie", "a=1"), ("x-a", "1"), ("cookie", "b=2")],
            vec![&new_trace, "cookie: a=1; b=2", "x-a: 1"],
            &[],
        ),
        (
            "trailers that a server may send are asked for",
            keep,
            &[("te", "gzip, trailers")],
            vec![&new_trace, "te: trailers", "connection: te"],
            &[],
        ),
        (
            "framing of the caller's hop says nothing",
            keep,
            &[("content-length", "5"), ("transfer-encoding", "chunked"), ("trailer", "x")],
            vec![&new_trace],
            &[],
        ),
    ];
    for (name, change, said, more, less) in rows {
        let mut case = Case::new();
        change(&mut case);
        let mut expected: Vec<String> = usual().into_iter().filter(|line| !less.contains(&&**line)).collect();
        expected.extend(more.into_iter().map(str::to_owned));
        expected.sort();
        let (text, map, _) = case.rewritten(&head("GET", said), &Framing::Empty);
        assert!(text.starts_with("GET /orders/7?a=%20b HTTP/1.1\r\n") && text.ends_with("\r\n\r\n"), "{name}: {text}");
        assert_eq!(fields_of(&text), expected, "{name}");
        assert_eq!(lines(&map.headers), expected, "{name}, as a map");
    }
}

#[test]
fn a_route_edits_all_but_what_only_the_gateway_says() {
    let mut case = Case::new();
    case.route.strip_prefix = Some("/orders".into());
    let value = HeaderValue::from_static("ours");
    let set = ["x-tenant", "authorization", "x-request-id", "x-auth-user", "x-forwarded-proto"];
    case.route.request_fields = Arc::new(FieldEdits {
        set: set.iter().map(|name| (HeaderName::from_static(name), value.clone())).collect(),
        remove: ["cookie", "x-forwarded-for", "traceparent"].map(HeaderName::from_static).to_vec(),
    });
    let said = [("x-tenant", "theirs"), ("cookie", "a"), ("authorization", "Bearer x"), ("traceparent", TRACE)];
    let (text, map, _) = case.rewritten(&head("GET", &said), &Framing::Empty);
    let mut expected = usual();
    expected.retain(|line| !line.starts_with("x-forwarded-for") && !line.starts_with("x-forwarded-proto"));
    expected.extend(["authorization: ours", "x-tenant: ours", "x-forwarded-proto: ours"].map(str::to_owned));
    expected.sort();
    assert_eq!((fields_of(&text), lines(&map.headers)), (expected.clone(), expected));
    assert!(text.starts_with("GET /7?a=%20b HTTP/1.1\r\n"), "{text}");

    // where nobody was identified an edit cannot say that somebody was
    case.identity = None;
    let (text, ..) = case.rewritten(&head("GET", &said), &Framing::Empty);
    assert!(!text.contains("x-auth-"), "{text}");
}

#[test]
fn a_secret_that_a_route_sets_is_not_there_to_be_told_back() {
    let mut case = Case::new();
    let mut secret = HeaderValue::from_static("canary");
    secret.set_sensitive(true);
    let tenant = (HeaderName::from_static("x-tenant"), HeaderValue::from_static("blue"));
    let set = vec![(HeaderName::from_static("x-key"), secret), tenant];
    case.route.request_fields = Arc::new(FieldEdits { set, remove: Vec::new() });
    for (method, is_sent) in [("GET", true), ("OPTIONS", true), ("TRACE", false)] {
        let (text, http1, http2) = case.rewritten(&head(method, &[("x-key", "theirs")]), &Framing::Empty);
        assert_eq!(text.contains("x-key: canary\r\n"), is_sent, "{method}");
        assert!(text.contains("x-tenant: blue\r\n") && !text.contains("theirs"), "{method}");
        assert_eq!((http1.headers.contains_key("x-key"), http2.headers.contains_key("x-key")), (is_sent, is_sent));
    }
}

#[test]
fn framing_is_by_the_body() {
    let announced = || vec![HeaderValue::from_static("x-sum"), HeaderValue::from_static("x-b")];
    for (method, framing, http1, http2) in [
        ("GET", Framing::Empty, &[][..], &[][..]),
        ("POST", Framing::Empty, &["content-length: 0"], &[]),
        ("PUT", Framing::Length(7), &["content-length: 7"], &["content-length: 7"]),
        (
            "POST",
            Framing::Chunked(announced()),
            &["trailer: x-sum", "trailer: x-b", "transfer-encoding: chunked"],
            &["trailer: x-sum", "trailer: x-b"],
        ),
        ("GET", Framing::Chunked(Vec::new()), &["transfer-encoding: chunked"], &[]),
    ] {
        let said = [("content-length", "99"), ("transfer-encoding", "gzip, chunked"), ("trailer", "x-sum")];
        let (text, map, over_http2) = Case::new().rewritten(&head(method, &said), &framing);
        let framed = |lines: Vec<String>| {
            let is =
                |line: &String| ["content-length", "transfer-", "trailer"].iter().any(|name| line.starts_with(name));
            lines.into_iter().filter(is).collect::<std::collections::BTreeSet<_>>()
        };
        let expected = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect();
        assert_eq!(framed(fields_of(&text)), expected(http1), "{method} {framing:?}");
        assert_eq!(framed(lines(&map.headers)), expected(http1), "{method} {framing:?}");
        assert_eq!(framed(lines(&over_http2.headers)), expected(http2), "{method} {framing:?}");
    }
}

#[test]
fn over_http2_the_host_is_the_authority() {
    let said = [("cookie", "a=1"), ("cookie", "b=2"), ("host", "evil"), ("te", "trailers")];
    let (_, _, head) = Case::new().rewritten(&head("GET", &said), &Framing::Empty);
    assert_eq!(head.uri, Uri::from_static("http://api.example.com:8443/orders/7?a=%20b"));
    let found = lines(&head.headers);
    let mut expected = usual();
    expected.retain(|line| !line.starts_with("host"));
    expected.extend(["cookie: a=1", "cookie: b=2", "te: trailers"].map(str::to_owned));
    expected.push(format!("traceparent: {NEW_TRACE}"));
    expected.sort();
    assert_eq!(found, expected);
}

/// Names that mean something, and some that do not.
fn field() -> impl Strategy<Value = (String, String)> {
    let names = prop::sample::select(vec![
        "accept",
        "authorization",
        "connection",
        "content-length",
        "cookie",
        "expect",
        "forwarded",
        "host",
        "keep-alive",
        "proxy",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "x-a",
        "x_a",
        "x-auth-user",
        "x_auth_user",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-real-ip",
        "x-request-id",
        "traceparent",
        "tracestate",
    ]);
    let value = prop_oneof![
        "[!-~]{0,12}",
        prop::sample::select(vec!["close, x-a", "traceparent", "x-auth-user, cookie", "trailers", TRACE])
            .prop_map(str::to_owned),
    ];
    (names.prop_map(str::to_owned), value)
}

proptest! {
    #[test]
    fn bytes_and_map_say_the_same(
        said in proptest::collection::vec(field(), 0..10),
        trusted: bool,
        forwards: bool,
        known: bool,
    ) {
        let mut case = Case::new();
        (case.origin.trusted, case.route.forward_credentials) = (trusted, forwards);
        case.identity = case.identity.filter(|_| known);
        let said: Vec<(&str, &str)> = said.iter().map(|(name, value)| (&**name, &**value)).collect();
        let (text, map, over_http2) = case.rewritten(&head("GET", &said), &Framing::Empty);
        prop_assert_eq!(fields_of(&text), lines(&map.headers));
        for headers in [&map.headers, &over_http2.headers] {
            let one = |name: &str, expected: &str| headers.get_all(name).iter().eq([expected]);
            let none = |name: &str| !HeaderMap::contains_key(headers, name);
            prop_assert!(one("x-request-id", "id-1") && one("x-forwarded-proto", "https"));
            let told = if known { one("x-auth-user", "ann") } else { none("x-auth-user") };
            prop_assert!(told);
            prop_assert!(headers.get_all("traceparent").iter().count() == 1 && headers.get_all("x-forwarded-for").iter().count() == 1);
            for name in ["x_a", "x_auth_user", "keep-alive", "proxy-connection", "upgrade", "transfer-encoding", "expect", "content-length"] {
                prop_assert!(none(name), "{}", name);
            }
            prop_assert!(trusted || none("forwarded") && none("proxy") && none("x-real-ip"));
            prop_assert!(forwards || none("authorization"));
        }
    }
}
