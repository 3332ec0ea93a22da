//! No credential is where nobody needs it: whatever is sent or goes wrong, all that the gateway writes, says and keeps is
//! searched for credentials that can be recognised, in every encoding in which they may have been carried along.

use std::fmt::Write as _;
use std::io::Read as _;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use portcullis::authenticate::keys::{Algorithm, Key};
use portcullis::config::{Environment, load_text};
use portcullis::endpoint::members::{Fields, Members};
use portcullis::rejection::Rejection;
use portcullis::secret::Secret;
use portcullis::wire::authorization;
use portcullis::wire::body::Body;
use serde_json::json;

use crate::support::client::basic;
use crate::support::http2::{END_HEADERS, END_STREAM, HEADERS, frame, hello, request};
use crate::support::{Gateway, Reply, Request, Response, Setup, Upstream, get, post};

/// A word in every credential of these tests; in nothing else.
const SECRET: &str = "c4n4ry";
/// A word in what passes to an upstream as it came, and is no less private: query, cookies, bodies.
const PASSED: &str = "p4553r";

/// How a text may look once it has gone through something: as it is, escaped, in hexadecimal, and within base64 at each of
/// the three places where it may begin.
fn forms(text: &str) -> Vec<String> {
    let hex: String = text.bytes().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").unwrap();
        hex
    });
    let escaped: String = text.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let listed = format!("{:?}", text.as_bytes());
    let mut forms = vec![text.to_owned(), hex, escaped, listed.trim_matches(['[', ']']).to_owned()];
    for before in 0..3 {
        let encoded = STANDARD.encode(format!("{}{text}", "\0".repeat(before)));
        let (first, last) = ((before * 8).div_ceil(6), (before + text.len()) * 8 / 6);
        let inner = &encoded[first..last];
        forms.extend([inner.to_owned(), inner.replace('+', "-").replace('/', "_")]);
    }
    forms
}

/// Asserts that none of `secrets` is in `text`, in whatever form.
#[track_caller]
fn clean(place: &str, text: &[u8], secrets: &[String]) {
    let lower = text.to_ascii_lowercase();
    for secret in secrets {
        for (index, form) in forms(secret).into_iter().enumerate() {
            // base64 has two cases
            let (text, form) = if index < 4 { (&lower, form.to_ascii_lowercase()) } else { (&text.to_vec(), form) };
            if let Some(at) = memchr::memmem::find(text, form.as_bytes()) {
                let around = &text[at.saturating_sub(200)..text.len().min(at + form.len() + 40)];
                panic!("{secret:?} as {form:?} in {place}: …{}…", String::from_utf8_lossy(around));
            }
        }
    }
}

/// What a response says, but for its body where it was granted.
fn said(response: &Response) -> Vec<u8> {
    let mut said = format!("{:?}", response.headers).into_bytes();
    if response.status >= 300 {
        said.extend_from_slice(&response.body);
    }
    said
}

/// Every file of the store.
fn stored(setup: &Setup) -> Vec<u8> {
    let mut bytes = Vec::new();
    for entry in std::fs::read_dir(setup.path(".")).unwrap().flatten() {
        if entry.file_name().to_string_lossy().starts_with("portcullis.db") {
            std::fs::File::open(entry.path()).unwrap().read_to_end(&mut bytes).unwrap();
        }
    }
    bytes
}

fn configuration(upstream: &Upstream, nobody: &Upstream) -> String {
    format!(
        "
log: {{ access: json, audit: json, level: trace }}
bootstrap:
  users:
    - {{ name: user, password: {SECRET}-password, roles: [user] }}
    - {{ name: guest, password: {SECRET}-password-of-guest, roles: [guest] }}
  clients:
    - {{ id: robot, secret: '${{ROBOT_SECRET}}', roles: [user, introspect] }}
auth:
  realm: api
  jwt:
    keys:
      - {{ id: k1, algorithm: HS256, secret: '{SECRET}-hmac-secret-of-more-than-32-bytes' }}
      - {{ id: k2, algorithm: HS256, secret: {{ file: hmac }} }}
endpoints:
  - {{ path: /auth/login, action: login }}
  - {{ path: /auth/client, action: client_login }}
  - {{ path: /auth/token, action: login, reply: {{ token: '{{token}}' }} }}
  - {{ path: /auth/refresh, action: refresh }}
  - {{ path: /oauth/token, action: oauth_token, password_grant: true }}
  - {{ path: /oauth/revoke, action: revoke }}
  - {{ path: /oauth/introspect, action: introspect }}
  - {{ path: /auth/register, action: register }}
  - {{ path: /auth/change-password, action: change_password }}
upstreams:
  api: {{ servers: ['{}'] }}
  gone: {{ servers: ['{}'] }}
routes:
  - {{ path: /open/**, allow: anyone, to: api }}
  - {{ path: /user/**, allow: [user], to: api }}
  - {{ path: /admin/**, allow: [admin], to: api }}
  - {{ path: /basic/**, allow: [user], schemes: [basic], to: api }}
  - {{ path: /limited, allow: [user], rate: {{ rate: 1/h, burst: 1, by: principal }}, to: api }}
  - {{ path: /gone, allow: [user], to: gone }}
  - {{ path: /small, allow: [user], body_bytes: 1, to: api }}
",
        upstream.url(),
        nobody.url()
    )
}

/// Tokens of the gateway: the part of each that nobody could guess.
struct Tokens {
    access: String,
    refresh: String,
    opaque: String,
}

impl Tokens {
    fn get(gateway: &Gateway) -> Self {
        let tokens = gateway.login("user", &format!("{SECRET}-password"));
        let body = json!({ "username": "user", "password": format!("{SECRET}-password") });
        let opaque = gateway.send(&post("/auth/token").json(&body)).expect(200).member("token");
        let text = |name: &str| tokens[name].as_str().unwrap().to_owned();
        Self { access: text("access_token"), refresh: text("refresh_token"), opaque }
    }

    fn secrets(&self) -> Vec<String> {
        let signature = self.access.rsplit('.').next().unwrap();
        [signature, &self.refresh[4..], &self.opaque[4..]].map(|secret| secret[..20].to_owned()).to_vec()
    }
}

/// Requests with credentials, good and bad, in every place and by every way to fail.
fn requests(tokens: &Tokens) -> Vec<Request> {
    let secret = |what: &str| format!("{SECRET}-{what}");
    let password = secret("password");
    let (good, wrong) = (basic("user", &password), basic("user", &secret("wrong")));
    let authorizations = [
        good.clone(),
        wrong.clone(),
        basic("nobody", &secret("nobody")),
        basic("guest", &secret("password-of-guest")),
        basic("user", &secret("with a NUL\0")),
        format!("Basic {}", STANDARD.encode(secret("without a colon"))),
        format!("Basic {SECRET}"),
        format!("Basic {}!", STANDARD.encode(format!("user:{SECRET}"))),
        format!("Bearer {}", tokens.access),
        format!("Bearer {}x", tokens.access),
        format!("Bearer {SECRET}.{SECRET}.{SECRET}"),
        format!("Bearer {SECRET} {SECRET}"),
        format!("Bearer {}", tokens.refresh),
        format!("Token {}", tokens.opaque),
        format!("Token pct_{SECRET}"),
        format!("Token {SECRET}é"),
        format!("Digest username=\"user\", response=\"{SECRET}\""),
        SECRET.to_owned(),
        format!("Basic:{SECRET}"),
        format!("Bearer {}", SECRET.repeat(3000)),
    ];
    let paths =
        ["/user/x", "/admin/x", "/basic/x", "/limited", "/gone", "/open/x", "/nowhere", "/user/../x", "/user/%zz"];
    let mut requests = Vec::new();
    for authorization in &authorizations {
        for path in paths {
            requests.push(get(path).authorization(authorization));
        }
        requests.push(get("/user/x").authorization(authorization).authorization(&wrong));
        requests.push(get("/user/x").authorization(authorization).header("Content-Type", "application/grpc"));
        requests.push(get("/user/x").authorization(authorization).header("Accept", "application/problem+json"));
        requests.push(post("/small").authorization(authorization).body("xx"));
        for action in ["login", "client", "refresh", "token", "change-password", "register"] {
            requests.push(post(&format!("/auth/{action}")).authorization(authorization));
        }
        for action in ["token", "revoke", "introspect"] {
            requests.push(post(&format!("/oauth/{action}")).authorization(authorization).form("token=x"));
        }
    }
    let robot = basic("robot", &secret("of-robot"));
    requests.extend([
        get(&format!("/user/x?token={PASSED}&password={PASSED}")).authorization(&good),
        get(&format!("/user/../x?token={PASSED}")),
        get(&format!("/nowhere?access_token={PASSED}")),
        get("/user/x").authorization(&good).header("Cookie", &format!("session={PASSED}")),
        get("/user/x").header("Cookie", &format!("session={PASSED}")).header("X-Api-Key", PASSED),
        post("/open/x").body(format!("password={PASSED}")),
        get(&format!("http://user:{SECRET}@localhost/open/x")),
        get("/open/x").header("Host", &format!("user:{SECRET}@localhost")),
        get("/open/x").header("Proxy-Authorization", &good),
        Request::new("CONNECT", &format!("user:{SECRET}@localhost:443")),
        get("/user/x").authorization(&good).header("Content-Length", "1").header("Transfer-Encoding", "chunked"),
        get("/user/x").authorization(&good).header("X-Bad\u{1}", "x"),
        get("/user/x").authorization(&good).header("X-Large", &"x".repeat(40_000)),
        post("/auth/login").json(&json!({ "username": "user", "password": secret("wrong") })),
        post("/auth/login").json(&json!({ "username": "user", "password": [secret("listed")] })),
        post("/auth/login").json(&json!({ "username": ["user"], "password": secret("x") })),
        post("/auth/login").json(&json!({ "password": secret("alone") })),
        post("/auth/login").header("Content-Type", "application/json").body(format!("{{\"password\":\"{SECRET}")),
        post("/auth/login").header("Content-Type", "application/json").body(SECRET),
        post("/auth/login")
            .header("Content-Type", "application/json")
            .body(format!("{{\"{SECRET}\":1,\"{SECRET}\":2}}")),
        post("/auth/login").header("Content-Type", "text/plain").body(format!("password={SECRET}")),
        post("/auth/login").form(&format!("username=user&password={SECRET}%zz")),
        post("/auth/login").form(&format!("username=user&password={SECRET}&password={SECRET}")),
        post("/auth/login").form(&format!("username=user&password={}", SECRET.repeat(20_000))),
        post("/auth/refresh").json(&json!({ "refresh_token": secret("no-token") })),
        post("/auth/refresh").json(&json!({ "refresh_token": format!("pcr_{SECRET}") })),
        post("/auth/refresh").bearer(&tokens.access),
        post("/auth/register").json(&json!({ "username": "new", "password": secret("of-new") })),
        post("/auth/register").json(&json!({ "username": "new", "password": secret("of-new") })),
        post("/auth/register").json(&json!({ "username": "a:b", "password": secret("x") })),
        post("/auth/register").json(&json!({ "username": "other", "password": format!("{SECRET}\n") })),
        post("/auth/register").json(&json!({ "username": "other", "password": SECRET.repeat(500) })),
        post("/auth/change-password")
            .authorization(&good)
            .json(&json!({ "password": secret("wrong"), "new_password": secret("new") })),
        post("/auth/change-password")
            .authorization(&good)
            .json(&json!({ "password": password, "new_password": "c4n4ry" })),
        post("/oauth/token")
            .form(&format!("grant_type=client_credentials&client_id=robot&client_secret={SECRET}-of-robot")),
        post("/oauth/token").form(&format!("grant_type=client_credentials&client_id=robot&client_secret={SECRET}")),
        post("/oauth/token")
            .authorization(&robot)
            .form(&format!("grant_type=password&username=user&password={password}")),
        post("/oauth/token")
            .authorization(&robot)
            .form(&format!("grant_type=password&username=user&password={SECRET}")),
        post("/oauth/token")
            .authorization(&robot)
            .form(&format!("grant_type=password&client_secret={SECRET}&username=user")),
        post("/oauth/token").authorization(&robot).form(&format!("grant_type={SECRET}")),
        post("/oauth/token").form(&format!("grant_type=refresh_token&refresh_token={SECRET}")),
        post("/oauth/introspect").authorization(&robot).form(&format!("token={}", tokens.access)),
        post("/oauth/introspect").authorization(&robot).form(&format!("token={}", tokens.opaque)),
        post("/oauth/introspect").authorization(&robot).form(&format!("token={SECRET}")),
        post("/oauth/revoke").authorization(&robot).form(&format!("token={SECRET}")),
        // the tokens' ends, last
        post("/auth/refresh").json(&json!({ "refresh_token": tokens.refresh })),
        post("/auth/refresh").json(&json!({ "refresh_token": tokens.refresh })),
        post("/oauth/revoke").form(&format!("token={}", tokens.opaque)),
        post("/oauth/revoke").bearer(&tokens.access),
        get("/user/x").bearer(&tokens.access),
        get("/user/x").token(&tokens.opaque),
    ]);
    requests
}

/// Credentials where a method should be: behind a length that is too short, and in requests that are some.
fn in_place_of_a_method() -> [String; 4] {
    let empty = "POST /open/x HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n";
    [
        format!("{empty}pct_{SECRET}TOKEN x\r\n\r\n"),
        format!("{empty}password /{SECRET} x\r\n\r\n"),
        format!("pct_{SECRET} /open/x HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"),
        format!("pct_{SECRET} /nowhere HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"),
    ]
}

/// The same credentials in the fields and the body of a request over HTTP/2.
fn over_http2(gateway: &Gateway) -> Vec<u8> {
    let mut connection = gateway.connect();
    connection.write(&hello()).unwrap();
    let password = basic("user", &format!("{SECRET}-password"));
    let wrong = format!("Bearer {SECRET}");
    let fields: [&[(&str, &str)]; 5] = [
        &[("authorization", &password)],
        &[("authorization", &wrong)],
        &[("authorization", &password), ("authorization", &wrong)],
        &[("authorization", &password), ("connection", "close")],
        &[("authorization", "Basic \n"), ("cookie", PASSED)],
    ];
    for (index, fields) in fields.into_iter().enumerate() {
        let stream = u32::try_from(index * 2 + 1).unwrap();
        let head = request("GET", "/user/x", fields);
        connection.write(&frame(HEADERS, END_HEADERS | END_STREAM, stream, &head)).unwrap();
    }
    // to an end of which both know
    connection.write(&frame(crate::support::http2::GOAWAY, 0, 0, &[0; 8])).unwrap();
    connection.rest().unwrap()
}

#[test]
fn the_search_finds_what_was_encoded() {
    let caught =
        |text: &str| std::panic::catch_unwind(|| clean("a test", text.as_bytes(), &[SECRET.to_owned()])).is_err();
    for before in ["", "a", "ab", "abc"] {
        let text = format!("{before}{SECRET}é?");
        assert!(caught(&STANDARD.encode(&text)), "{before:?}");
        assert!(caught(&base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(&text)), "{before:?}");
        assert!(caught(&format!("{:?}", text.as_bytes())), "{before:?}");
        assert!(caught(&text.to_uppercase()) && caught(&text), "{before:?}");
    }
    assert!(caught("%63%34%6E%34%72%79") && caught("63346E347279"));
    assert!(!caught("a canary"));
}

#[test]
fn no_credential_is_written_said_or_kept_whatever_is_sent() {
    let upstream = Upstream::start(|received| match received.header("X-Then") {
        Some("break") => Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx"),
        Some("garbage") => Reply::raw("garbage\r\n\r\n"),
        _ => Reply::text("hello"),
    });
    let gone = Upstream::start(|_| Reply::close());
    let setup = Setup::new(&configuration(&upstream, &gone));
    setup.write("hmac", format!("{SECRET}-hmac-secret-in-a-file-of-32-bytes\n"));
    setup.write(".env", format!("ROBOT_SECRET={SECRET}-of-robot\n"));
    let gateway = setup.start();
    let tokens = Tokens::get(&gateway);
    let mut secrets = tokens.secrets();
    secrets.push(SECRET.to_owned());
    let mut private = secrets.clone();
    private.push(PASSED.to_owned());
    for request in requests(&tokens) {
        let bytes = request.to_bytes();
        let mut connection = gateway.connect();
        // what is refused early may be closed before all is read
        drop(connection.write(&bytes));
        let Ok(response) = connection.response(&request.method) else { continue };
        clean(&format!("the answer to {} {}", request.method, request.target), &said(&response), &private);
    }
    let good = basic("user", &format!("{SECRET}-password"));
    for then in ["break", "garbage"] {
        let request = get("/user/x").authorization(&good).header("X-Then", then);
        drop(gateway.connect().write(&request.to_bytes()));
    }
    for request in in_place_of_a_method() {
        let mut connection = gateway.connect();
        connection.write(request.as_bytes()).unwrap();
        clean(&format!("the answer to {request:?}"), &connection.rest().unwrap(), &private);
    }
    clean("answers over HTTP/2", &over_http2(&gateway), &private);
    let received: String = upstream.received().iter().map(|received| received.head.clone()).collect();
    assert!(received.contains(PASSED), "what is the application's passes");
    clean("what upstreams were sent", received.as_bytes(), &secrets);
    clean("what a broken upstream was sent", format!("{:?}", gone.received()).as_bytes(), &secrets);

    // the same with a store that is gone
    let kept = stored(&setup);
    let mut lost = Vec::new();
    for name in ["portcullis.db", "portcullis.db-wal", "portcullis.db-shm"] {
        std::fs::write(setup.path(name), [b'x'; 4096]).unwrap();
    }
    for authorization in [basic("user", SECRET), format!("Token pct_{SECRET}"), format!("Token {}x", tokens.opaque)] {
        let response = gateway.send(&get("/user/lost").authorization(&authorization));
        lost.push(response.status);
        clean("a refusal without a store", &said(&response), &private);
    }
    assert!(lost.contains(&503), "{lost:?}");
    let body = json!({ "username": "user", "password": format!("{SECRET}-password") });
    clean("a log-in without a store", &said(&gateway.send(&post("/auth/login").json(&body))), &private);

    let process = Path::new("/proc").join(gateway.id().to_string());
    for place in ["cmdline", "environ"] {
        clean(place, &std::fs::read(process.join(place)).unwrap(), &private);
    }
    clean("the metrics", gateway.admin("/metrics").text().as_bytes(), &private);
    for path in ["/", "/healthz", "/readyz"] {
        clean(path, &gateway.admin(path).body, &private);
    }
    gateway.signal("TERM");
    gateway.wait();
    clean("standard output", gateway.stdout().as_bytes(), &private);
    clean("standard error", gateway.stderr().as_bytes(), &private);
    assert!(gateway.stdout().contains("\"login_failed\"") && gateway.stderr().contains("TRACE"), "they do tell");
    clean("the store", &kept, &private);
}

/// What every configuration needs.
const MINIMAL: &str = "upstreams: { api: { builtin: echo } }\nroutes: [{ path: /x, allow: anyone, to: api }]\n";

#[test]
fn no_secret_of_a_file_is_shown_with_a_mistake_in_it() {
    let cases = [
        ("a key of no known algorithm", "auth: { jwt: { keys: [{ id: a, algorithm: HS999, secret: SECRET }] } }"),
        ("a key of another kind", "auth: { jwt: { keys: [{ id: a, algorithm: RS256, secret: SECRET }] } }"),
        ("a misspelt key", "auth: { jwt: { keys: [{ id: a, algorithm: HS256, secrte: SECRET }] } }"),
        (
            "a key in the place of a file",
            "auth: { jwt: { keys: [{ id: a, algorithm: ES256, private_key: '-----BEGIN PRIVATE KEY----- SECRET' }] } }",
        ),
        ("a list for a password", "bootstrap: { users: [{ name: a, password: [SECRET], roles: [x] }] }"),
        ("a mapping for a password", "bootstrap: { users: [{ name: a, password: { text: SECRET }, roles: [x] }] }"),
        ("a password beside a wrong role", "bootstrap: { users: [{ name: a, password: SECRET, roles: 7 }] }"),
        ("a password of a line", "bootstrap: { users: [{ name: a, password: \"SECRET\\nx\", roles: [x] }] }"),
        ("two passwords", "bootstrap: { users: [{ name: a, password: SECRET, password: SECRET2, roles: [x] }] }"),
        ("a password on its line", "bootstrap:\n  users:\n    - name: a\n      passwort: SECRET\n      roles: [x]"),
        ("a block", "bootstrap:\n  clients:\n    - id: a\n      secret: |\n        SECRET\n      role: [x]"),
        ("no YAML", "bootstrap: { clients: [{ id: a, secret: \"SECRET }] }"),
        ("no YAML, further on", "bootstrap: { clients: [{ id: a, secret: SECRET }] }\n  x: ]"),
        ("a store of no known kind", "store: postgress://user:SECRET@127.0.0.1:1/x"),
        ("a store that is down", "store: postgres://user:SECRET@127.0.0.1:1/x"),
        ("another store that is down", "store: mysql://user:SECRET@127.0.0.1:1/x"),
        ("a store of no port", "store: mysql://user:SECRET@127.0.0.1:99999999/x"),
        (
            "credentials in an upstream's address",
            "upstreams: { other: { servers: ['http://user:SECRET@127.0.0.1:1'] } }",
        ),
        (
            "credentials in a field for an upstream",
            "routes: [{ path: /x, allow: anyone, to: api, request_headers: { set: { Authorization: 'Bearer SECRET', 'X Y': z } } }]",
        ),
        ("a secret in no place", "secret: SECRET"),
        ("a secret under a wrong section", "auth: { client_secret: SECRET }"),
        ("a reference to nothing", "bootstrap: { clients: [{ id: a, secret: 'SECRET${NOT_THERE}', roles: [x] }] }"),
        ("a file that is none", "bootstrap: { clients: [{ id: a, secret: { flie: SECRET }, roles: [x] }] }"),
    ];
    // each for itself, since a store that is down is waited for
    std::thread::scope(|scope| {
        for (name, yaml) in cases {
            scope.spawn(move || mistaken(name, &yaml.replace("SECRET", &format!("{SECRET}-of-the-file"))));
        }
    });
}

/// Asserts that `yaml` is refused by one command at least, and that none shows a secret.
fn mistaken(name: &str, yaml: &str) {
    let mut yaml = yaml.to_owned();
    for line in MINIMAL.lines() {
        if !yaml.contains(line.split(' ').next().unwrap()) {
            write!(yaml, "\n{line}").unwrap();
        }
    }
    let setup = Setup::new(&yaml);
    setup.write("good.yaml", MINIMAL);
    let mut codes = Vec::new();
    for arguments in [
        &["check", "gateway.yaml"][..],
        &["check", "gateway.yaml", "--format", "json"],
        &["explain", "gateway.yaml", "GET", "/x", "--authorization", "-"],
        &["diff", "gateway.yaml", "good.yaml"],
        &["user", "list", "--config", "gateway.yaml"],
        &["run", "--config", "gateway.yaml"],
    ] {
        assert!(arguments[0] != "run" || codes.iter().any(|&code| code != Some(0)), "{name}: it is a mistake");
        let done = setup.cli_plain(arguments, &format!("Bearer {SECRET}"));
        clean(&format!("{name}: {arguments:?}"), format!("{done:?}").as_bytes(), &[SECRET.to_owned()]);
        codes.push(done.code);
    }
}

#[test]
fn commands_say_no_secret_that_they_are_given() {
    let setup = Setup::new("upstreams: { api: { builtin: echo } }\nroutes: [{ path: /x, allow: [user], to: api }]\n");
    setup.write("wrong.htpasswd", format!("ann:{SECRET}\n"));
    setup.write("nameless.htpasswd", format!("{SECRET}\n"));
    for (arguments, input) in [
        (&["user", "add", "ann", "--role", "user", "--password-stdin"][..], format!("{SECRET}-password\n")),
        (&["user", "add", "ann", "--role", "user", "--password-stdin"], format!("{SECRET}-password\n")),
        (&["user", "add", "bob", "--password-stdin"], format!("{SECRET}\0\n")),
        (&["user", "add", "bob", "--password-stdin"], format!("{}\n", SECRET.repeat(500))),
        (&["user", "password", "ann", "--password-stdin"], format!("{SECRET}-another\n")),
        (&["user", "password", "nobody", "--password-stdin"], format!("{SECRET}-another\n")),
        (&["user", "list", "--json"], String::new()),
        (&["user", "show", "ann"], String::new()),
        (&["client", "add", "robot", "--secret-stdin"], format!("{SECRET}-of-robot\n")),
        (&["client", "list", "--json"], String::new()),
        (&["token", "revoke", "--stdin"], format!("pct_{SECRET}\n")),
        (&["token", "revoke", "--stdin"], format!("{SECRET}\n")),
        (&["token", "list", "--json"], String::new()),
        (&["import", "htpasswd", "wrong.htpasswd"], String::new()),
        (&["import", "htpasswd", "nameless.htpasswd"], String::new()),
        (&["key", "list", "--json"], String::new()),
    ] {
        let done = setup.cli(arguments, &input);
        clean(&format!("{arguments:?}"), format!("{done:?}").as_bytes(), &[SECRET.to_owned()]);
    }
    for value in ["Basic x", "Bearer c4n4ry.c4n4ry.c4n4ry", "Token pct_c4n4ry", "Digest c4n4ry", "c4n4ry"] {
        let basic = basic("ann", &format!("{SECRET}-another"));
        for value in [value, &basic] {
            let done = setup.cli_plain(&["explain", "gateway.yaml", "GET", "/x", "--authorization", "-"], value);
            clean(&format!("explain with {value}"), format!("{done:?}").as_bytes(), &[SECRET.to_owned()]);
        }
    }
}

#[test]
fn no_value_shows_a_credential_when_it_is_printed() {
    let mut told = String::new();
    for authorization in [
        basic("user", SECRET),
        basic("user", &format!("{SECRET}\0")),
        format!("Basic {SECRET}"),
        format!("Token {SECRET}"),
        format!("Token pct_{SECRET}"),
        format!("Bearer {SECRET}"),
        format!("Bearer {SECRET} {SECRET}"),
        format!("Digest {SECRET}"),
        SECRET.to_owned(),
    ] {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, authorization.parse().unwrap());
        let credential = authorization::credential(&headers);
        writeln!(told, "{:?}\n{credential:?}", authorization::presented(&headers)).unwrap();
        if let Err(error) = credential {
            writeln!(told, "{error}\n{:?}", Rejection::from(error)).unwrap();
        }
    }
    let fields = Fields::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    for (media_type, body) in [
        ("application/json", format!("{{\"password\":\"{SECRET}\"}}")),
        ("application/json", format!("{{\"password\":[\"{SECRET}\"]}}")),
        ("application/json", format!("{{\"password\":\"{SECRET}")),
        ("application/json", format!("\"{SECRET}\"")),
        ("application/x-www-form-urlencoded", format!("password={SECRET}")),
        ("application/x-www-form-urlencoded", format!("password={SECRET}%")),
        ("application/x-www-form-urlencoded", format!("password={SECRET}&password={SECRET}")),
        ("text/plain", SECRET.to_owned()),
    ] {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, media_type.parse().unwrap());
        let members = runtime.block_on(Members::read(&fields, &headers, Body::full(body)));
        writeln!(told, "{members:?}").unwrap();
        if let Ok(members) = members {
            writeln!(told, "{:?}", members.text("password").map(|_| ())).unwrap();
        }
    }
    for pem in [SECRET.to_owned(), format!("-----BEGIN PRIVATE KEY-----\n{SECRET}\n-----END PRIVATE KEY-----\n")] {
        writeln!(told, "{:?}", Key::private_pem("k", Algorithm::ES256, pem.as_bytes())).unwrap();
    }
    let key = Key::hmac("k", Algorithm::HS256, Secret::new(format!("{SECRET}{SECRET}{SECRET}{SECRET}{SECRET}").into()));
    writeln!(told, "{key:?}").unwrap();
    for store in ["postgres://user:c4n4ry@127.0.0.1:1/x", "mysql://user:c4n4ry@127.0.0.1:1/x", "sqlite:portcullis.db"] {
        let yaml = format!(
            "
store: {store}
auth: {{ jwt: {{ keys: [{{ id: k1, algorithm: HS256, secret: '{SECRET}-hmac-secret-of-more-than-32-bytes' }}] }} }}
bootstrap:
  users: [{{ name: user, password: {SECRET}-password, roles: [user] }}]
  clients: [{{ id: robot, secret: '${{ROBOT_SECRET}}', roles: [user] }}]
upstreams: {{ api: {{ builtin: echo }} }}
routes:
  - {{ path: /x, allow: anyone, request_headers: {{ set: {{ X-Api-Key: {SECRET}-of-the-upstream }} }}, to: api }}
"
        );
        let environment = Environment::from_iter([("ROBOT_SECRET", format!("{SECRET}-of-robot"))]);
        let directory = tempfile::tempdir().unwrap();
        let snapshot = load_text(&yaml, directory.path(), "gateway.yaml", &environment);
        assert!(snapshot.is_ok(), "{:?}", snapshot.err());
        writeln!(told, "{snapshot:?}").unwrap();
    }
    clean("printed values", told.as_bytes(), &[SECRET.to_owned()]);
}
