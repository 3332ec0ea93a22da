//! The table of refusals, row by row, in each of its forms (contract 4).

use serde_json::Value;

use crate::support::upstream::refusing;
use crate::support::{Gate, Gateway, HS256, Reply, SECRET, Signer, USERS, Upstream, eventually, get, post, routes};

#[test]
fn every_row_of_authentication_has_its_status_code_message_and_challenges() {
    let upstream = Upstream::hello();
    let gateway = Gateway::start(&format!("{USERS}{HS256}{}", routes(&upstream)));
    let basic = r#"Basic realm="api", charset="UTF-8""#;
    let (token, bearer) = (r#"Token realm="api""#, r#"Bearer realm="api""#);
    for (authorization, status, code, message, challenges) in [
        (None, 401, "missing_credentials", "Authorization header is missing", vec![basic, token, bearer]),
        (Some("Digest x"), 401, "unsupported_scheme", "Unsupported authentication method", vec![basic, token, bearer]),
        (Some("Basic eDp5"), 401, "invalid_credentials", "Invalid credentials", vec![basic]),
        (Some("Token pct_x"), 401, "invalid_token", "Invalid or expired token", vec![token]),
    ] {
        let mut request = get("/user/x");
        if let Some(value) = authorization {
            request = request.authorization(value);
        }
        let response = gateway.send(&request).refused(status, code);
        assert_eq!(response.member("message"), message);
        assert_eq!(response.all("WWW-Authenticate"), challenges, "{authorization:?}");
        let body = response.json();
        let members: Vec<&String> = body.as_object().unwrap().keys().collect();
        assert_eq!(members, ["error", "message", "request_id"]);
    }
    let forbidden = gateway.send(&get("/admin/x").basic("user", "userpassword"));
    let forbidden = forbidden.refused(403, "insufficient_permissions");
    assert_eq!(forbidden.member("message"), "Access forbidden: Insufficient permissions");
    assert_eq!(forbidden.header("WWW-Authenticate"), None);
    for fields in [["Basic a", "Basic b"], ["Bearer a", "Basic b"]] {
        let two = get("/user/x").authorization(fields[0]).authorization(fields[1]);
        gateway.send(&two).refused(400, "bad_request");
    }
    assert!(upstream.received().is_empty());
}

#[test]
fn upstreams_that_fail_are_told_apart() {
    let gate = Gate::default();
    let waiting = gate.clone();
    let slow = Upstream::start(move |_| {
        waiting.wait();
        Reply::text("late")
    });
    let breaking = Upstream::start(|_| Reply::close());
    let nonsense = Upstream::start(|_| Reply::raw("SSH-2.0-OpenSSH_9.2\r\n"));
    let sick = Upstream::start(|_| Reply::new(500, &[], "sick"));
    let (_kept, refusing) = refusing();
    let gateway = Gateway::start(&format!(
        "
upstreams:
  refusing: {{ servers: ['http://{}'] }}
  breaking: {{ servers: ['{}'] }}
  nonsense: {{ servers: ['{}'] }}
  slow: {{ servers: ['{}'] }}
  sick: {{ servers: ['{}'], health: {{ path: /, interval: 100ms, timeout: 1s, unhealthy_after: 1, healthy_after: 1 }} }}
routes:
  - {{ path: /refusing, allow: anyone, to: refusing }}
  - {{ path: /breaking, allow: anyone, to: breaking }}
  - {{ path: /nonsense, allow: anyone, to: nonsense }}
  - {{ path: /slow, allow: anyone, timeout: 300ms, to: slow }}
  - {{ path: /sick, allow: anyone, to: sick }}
",
        refusing,
        breaking.url(),
        nonsense.url(),
        slow.url(),
        sick.url()
    ));
    gateway.send(&get("/refusing")).refused(502, "upstream_unavailable");
    gateway.send(&get("/breaking")).refused(502, "upstream_unavailable");
    gateway.send(&get("/nonsense")).refused(502, "upstream_unavailable");
    gateway.send(&get("/slow")).refused(504, "upstream_timeout");
    gate.open();
    eventually("the sick server is taken out", || {
        let response = gateway.send(&get("/sick"));
        if response.status == 503 { Ok(response) } else { Err(response.status) }
    })
    .refused(503, "no_healthy_upstream");
}

#[test]
fn a_caller_that_prefers_problems_gets_them() {
    let upstream = Upstream::hello();
    let gateway = Gateway::start(&format!("{USERS}{}", routes(&upstream)));
    for (accept, expected) in [
        ("application/problem+json", "application/problem+json"),
        ("application/problem+json, application/json;q=0.5", "application/problem+json"),
        ("application/json, application/problem+json;q=0.5", "application/json"),
        ("application/problem+json;q=0", "application/json"),
        ("*/*", "application/json"),
        ("text/html", "application/json"),
    ] {
        let response = gateway.send(&get("/user/x").header("Accept", accept)).expect(401);
        assert_eq!(response.header("Content-Type"), Some(expected), "{accept}");
        assert_eq!(response.all("WWW-Authenticate").len(), 3, "{accept}");
        let body = response.json();
        assert_eq!(body["error"], "missing_credentials");
        if expected.ends_with("problem+json") {
            assert_eq!(body["status"], 401);
            assert_eq!(body["message"], "Authorization header is missing");
            assert!(body["type"].is_string() && body["title"].is_string(), "{body}");
        }
    }
}

#[test]
fn a_caller_of_grpc_gets_a_status_of_grpc() {
    let upstream = Upstream::hello();
    let (_kept, refusing) = refusing();
    let gateway = Gateway::start(&format!(
        "{USERS}
upstreams: {{ api: {{ servers: ['{}'] }}, gone: {{ servers: ['http://{}'] }} }}
routes:
  - {{ path: /admin.Service/**, allow: [admin], to: api }}
  - {{ path: /gone.Service/**, allow: anyone, to: gone }}
  - {{ path: /slow.Service/**, allow: anyone, rate: {{ rate: 1/h, burst: 1, by: address }}, to: gone }}
",
        upstream.url(),
        refusing
    ));
    let call = |path: &str| post(path).header("Content-Type", "application/grpc+proto").body("\0\0\0\0\0");
    gateway.send(&call("/slow.Service/Do"));
    for (request, status) in [
        (call("/admin.Service/Do"), "16"),
        (call("/admin.Service/Do").basic("user", "userpassword"), "7"),
        (call("/gone.Service/Do"), "14"),
        (call("/slow.Service/Do"), "8"),
    ] {
        let response = gateway.send(&request).expect(200);
        assert_eq!(response.header("grpc-status"), Some(status), "{}", request.target);
        assert!(response.header("grpc-message").is_some());
        assert!(response.header("Content-Type").unwrap().starts_with("application/grpc"));
        assert!(response.body.is_empty());
    }
    assert!(upstream.received().is_empty());
}

#[test]
fn a_refusal_of_grpc_is_of_the_kind_that_its_caller_reads() {
    let (gateway, upstream) = crate::support::usual();
    for (sent, answered) in [
        ("application/grpc", "application/grpc"),
        ("application/grpc+proto", "application/grpc+proto"),
        ("application/grpc+json; charset=utf-8", "application/grpc+json"),
        ("application/grpc-web", "application/grpc-web"),
        ("application/grpc-web+proto", "application/grpc-web+proto"),
        ("application/grpc-web-text", "application/grpc-web-text"),
        ("Application/GRPC-Web-Text+Proto", "application/grpc-web-text+proto"),
        // whatever it is, it is not said back
        ("application/grpc+\"x\"", "application/grpc"),
        ("application/grpc+thrift", "application/grpc"),
    ] {
        let response = gateway.send(&post("/admin/Do").header("Content-Type", sent).body("\0\0\0\0\0")).expect(200);
        assert_eq!(response.header("Content-Type"), Some(answered), "{sent}");
        assert_eq!(response.header("grpc-status"), Some("16"), "{sent}");
        assert!(response.body.is_empty(), "{sent}");
    }
    // it only begins like one
    let response = gateway.send(&post("/admin/Do").header("Content-Type", "application/grpcx").body("x"));
    response.refused(401, "missing_credentials");
    assert!(upstream.received().is_empty());
}

#[test]
fn the_texts_can_be_another_apis() {
    let upstream = Upstream::hello();
    let errors = "
errors:
  member: msg
  messages:
    missing_credentials: Missing Authorization Header
    invalid_token: Token is invalid
    invalid_token.expired: Token has expired
    invalid_token.bad_signature: Signature verification failed
";
    let gateway = Gateway::start(&format!("{USERS}{HS256}{errors}{}", routes(&upstream)));
    let signer = Signer::hs256(SECRET);
    let mut expired = crate::support::keys::claims("user");
    expired["exp"] = Value::from(1_000_000);
    for (authorization, message) in [
        (None, "Missing Authorization Header"),
        (Some(format!("Bearer {}", signer.token(&expired))), "Token has expired"),
        (
            Some(format!("Bearer {}", Signer::hs256("x".repeat(40).as_str()).good("user"))),
            "Signature verification failed",
        ),
        (Some("Bearer abc".to_owned()), "Token is invalid"),
    ] {
        let mut request = get("/user/x");
        if let Some(value) = &authorization {
            request = request.authorization(value);
        }
        let response = gateway.send(&request).expect(401);
        assert_eq!(response.member("msg"), message);
        assert_eq!(response.json().get("message"), None);
    }
}

#[test]
fn every_reason_can_have_the_text_of_the_system_that_is_replaced() {
    let upstream = Upstream::hello();
    let errors = "
errors:
  member: msg
  messages:
    unsupported_scheme: Unsupported scheme
    invalid_credentials: Bad username or password
    insufficient_permissions: Not for you
    invalid_token.malformed: Not enough segments
    invalid_token.bad_signature: Signature verification failed
    invalid_token.unsupported: The specified alg value is not allowed
    invalid_token.expired: Token has expired
    invalid_token.not_yet_valid: The token is not yet valid (nbf)
    invalid_token.wrong_issuer: Invalid issuer
    invalid_token.wrong_type: Only non-refresh tokens are allowed
    invalid_token.missing_claim: Token has no 'exp' claim
    invalid_token.unknown_subject: User not found
    invalid_token.unknown: Token is unknown
";
    let gateway = Gateway::start(&format!("{USERS}{HS256}{errors}{}", routes(&upstream)));
    let signer = Signer::hs256(SECRET);
    let with = |name: &str, value: Value| {
        let mut claims = crate::support::keys::claims("user");
        claims[name] = value;
        if claims[name].is_null() {
            claims.as_object_mut().unwrap().remove(name);
        }
        format!("Bearer {}", signer.token(&claims))
    };
    let typed =
        signer.sign(&serde_json::json!({ "alg": "HS256", "typ": "rt+jwt" }), &crate::support::keys::claims("user"));
    let good = crate::support::client::basic("user", "userpassword");
    for (authorization, text) in [
        ("Digest x".to_owned(), "Unsupported scheme"),
        ("Basic eDp5".to_owned(), "Bad username or password"),
        (good, "Not for you"),
        ("Bearer abc".to_owned(), "Not enough segments"),
        (format!("Bearer {}", Signer::hs256(&"x".repeat(40)).good("user")), "Signature verification failed"),
        (format!("Bearer {}", Signer::hs512(SECRET).good("user")), "The specified alg value is not allowed"),
        (with("exp", 1_000_000.into()), "Token has expired"),
        (with("nbf", 9_000_000_000_i64.into()), "The token is not yet valid (nbf)"),
        (with("iss", "x".into()), "Invalid issuer"),
        (format!("Bearer {typed}"), "Only non-refresh tokens are allowed"),
        (with("exp", Value::Null), "Token has no 'exp' claim"),
        (with("sub", "ghost".into()), "User not found"),
        ("Token x".to_owned(), "Token is unknown"),
    ] {
        let response = gateway.send(&get("/admin/x").authorization(&authorization));
        assert_eq!(response.member("msg"), text, "{authorization}");
    }
    assert!(upstream.received().is_empty());
}

#[test]
fn a_refusal_to_head_has_no_body_and_a_refused_body_does_not_become_a_request() {
    let upstream = Upstream::hello();
    let gateway = Gateway::start(&format!("{USERS}{}", routes(&upstream)));
    let mut connection = gateway.connect();
    let head = connection.send(&crate::support::Request::new("HEAD", "/user/x"));
    assert_eq!(head.status, 401);
    // the refused body looks like a request; the connection's next answer is not to it
    let smuggled = "GET /open/smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let answer = connection.send(&post("/user/x").body(smuggled));
    assert_eq!(answer.status, 401);
    drop(connection.write(&get("/open/next").to_bytes()));
    drop(connection.response("GET"));
    assert!(upstream.received().iter().all(|received| received.target == "/open/next"));
}
