//! `oauth_token`, `revoke`, `introspect` as their RFCs have them (RFC 6749, 7009, 7662).

use serde_json::json;

use crate::support::{Gateway, HS256, Request, USERS, Upstream, get, post, routes};

const ROBOT: (&str, &str) = ("robot", "robot-secret-1");

fn gateway(rest: &str) -> (Gateway, Upstream) {
    let upstream = Upstream::hello();
    (Gateway::start(&format!("{USERS}{HS256}{rest}{}", routes(&upstream))), upstream)
}

fn token(form: &str) -> Request {
    post("/oauth/token").form(form)
}

#[test]
fn a_client_gets_a_token_for_its_secret() {
    let (gateway, _upstream) = gateway("");
    for request in [
        token("grant_type=client_credentials").basic(ROBOT.0, ROBOT.1),
        token("grant_type=client_credentials&client_id=robot&client_secret=robot-secret-1"),
    ] {
        let response = gateway.send(&request).expect(200);
        assert_eq!(response.header("Cache-Control"), Some("no-store"));
        let body = response.json();
        assert_eq!(body["token_type"].as_str().unwrap().to_lowercase(), "bearer");
        assert_eq!(body["expires_in"], 900);
        assert!(body.get("refresh_token").is_none(), "RFC 6749 4.4.3");
        gateway.send(&get("/user/x").bearer(body["access_token"].as_str().unwrap())).expect(200);
    }
}

#[test]
fn scopes_are_at_most_those_of_the_client() {
    let (gateway, _upstream) = gateway("");
    let ask = |scope: &str| {
        gateway.send(&token(&format!("grant_type=client_credentials&scope={scope}")).basic(ROBOT.0, ROBOT.1))
    };
    let narrow = ask("orders:read").expect(200).json();
    assert_eq!(crate::support::keys::claims_of(narrow["access_token"].as_str().unwrap())["scope"], "orders:read");
    assert_eq!(ask("orders:read+admin").refused(400, "invalid_scope").header("Cache-Control"), Some("no-store"));
}

#[test]
fn an_opaque_token_has_the_scopes_of_its_client_and_no_others() {
    let upstream = Upstream::hello();
    let gateway = Gateway::start(&format!(
        "{USERS}
endpoints:
  - {{ path: /auth/token, action: client_login, reply: {{ token: '{{token}}' }} }}
upstreams: {{ api: {{ servers: ['{}'] }} }}
routes:
  - {{ path: /read, allow: [user], scopes: ['orders:read'], schemes: [token], to: api }}
  - {{ path: /write, allow: [user], scopes: ['orders:read', 'orders:write'], schemes: [token], to: api }}
",
        upstream.url()
    ));
    let client = ["client", "add", "reader", "--role", "user", "--scope", "orders:read", "--secret-stdin"];
    gateway.cli(&client, "reader-secret").expect(0);
    for (id, secret, write) in [("robot", "robot-secret-1", 200), ("reader", "reader-secret", 403)] {
        let request = post("/auth/token").json(&json!({ "client_id": id, "client_secret": secret }));
        let issued = gateway.send(&request).expect(200).member("token");
        assert!(issued.starts_with("pct_"), "{issued}");
        for (path, status) in [("/read", 200), ("/write", write)] {
            assert_eq!(gateway.send(&get(path).token(&issued)).status, status, "{path} by {id}");
        }
    }
}

#[test]
fn an_opaque_token_of_the_token_endpoint_has_the_scopes_that_were_asked_for() {
    let upstream = Upstream::hello();
    let gateway = Gateway::start(&format!(
        "{USERS}
endpoints:
  - path: /oauth/token
    action: oauth_token
    password_grant: true
    reply: {{ access_token: '{{token}}', refresh_token: '{{refresh}}', token_type: Token, expires_in: '{{expires_in}}', scope: '{{scope}}' }}
upstreams: {{ api: {{ servers: ['{}'] }} }}
routes:
  - {{ path: /read, allow: [user], scopes: ['orders:read'], schemes: [token], to: api }}
  - {{ path: /write, allow: [user], scopes: ['orders:write'], schemes: [token], to: api }}
",
        upstream.url()
    ));
    let ask = |form: &str| gateway.send(&token(form).basic(ROBOT.0, ROBOT.1));
    let opens = |said: &serde_json::Value, path: &str| {
        gateway.send(&get(path).token(said["access_token"].as_str().unwrap())).status
    };
    let both = "orders:read orders:write";
    for (form, scope, read, write) in [
        ("grant_type=client_credentials", both, 200, 200),
        ("grant_type=client_credentials&scope=orders:read", "orders:read", 200, 403),
        ("grant_type=client_credentials&scope=orders:write", "orders:write", 403, 200),
        ("grant_type=password&username=user&password=userpassword&scope=orders:write", "orders:write", 403, 200),
    ] {
        let said = ask(form).expect(200).json();
        assert_eq!((said["scope"].as_str(), said["token_type"].as_str()), (Some(scope), Some("Token")), "{form}");
        assert_eq!((opens(&said, "/read"), opens(&said, "/write")), (read, write), "{form}");
        assert!(said["expires_in"].as_u64().unwrap() > 900, "as long as an opaque token lives: {said}");
    }
    ask("grant_type=client_credentials&scope=admin").refused(400, "invalid_scope");
    // narrowed once more, and again the whole of the grant
    let first = ask("grant_type=password&username=user&password=userpassword").expect(200).json();
    let again = |said: &serde_json::Value, more: &str| {
        let refresh = said["refresh_token"].as_str().unwrap();
        ask(&format!("grant_type=refresh_token&refresh_token={refresh}{more}")).expect(200).json()
    };
    let narrow = again(&first, "&scope=orders:read");
    assert_eq!(
        (&narrow["scope"], opens(&narrow, "/read"), opens(&narrow, "/write")),
        (&json!("orders:read"), 200, 403)
    );
    // a retry gets what it got, whatever it asks for now
    assert_eq!(again(&first, "&scope=orders:write"), narrow);
    let whole = again(&narrow, "");
    assert_eq!((&whole["scope"], opens(&whole, "/read"), opens(&whole, "/write")), (&json!(both), 200, 200));
}

#[test]
fn errors_are_those_of_the_rfc() {
    let (gateway, _upstream) = gateway("");
    for (name, request, status, code) in [
        ("a wrong secret", token("grant_type=client_credentials").basic("robot", "nope"), 401, "invalid_client"),
        ("an unknown client", token("grant_type=client_credentials").basic("x", "nope"), 401, "invalid_client"),
        ("no client", token("grant_type=client_credentials"), 401, "invalid_client"),
        ("no grant", token("x=y").basic(ROBOT.0, ROBOT.1), 400, "invalid_request"),
        ("a strange grant", token("grant_type=implicit").basic(ROBOT.0, ROBOT.1), 400, "unsupported_grant_type"),
        (
            "a password grant that is off",
            token("grant_type=password&username=user&password=userpassword").basic(ROBOT.0, ROBOT.1),
            400,
            "unsupported_grant_type",
        ),
        (
            "an unknown refresh token",
            token("grant_type=refresh_token&refresh_token=pcr_x").basic(ROBOT.0, ROBOT.1),
            400,
            "invalid_grant",
        ),
        (
            "a member twice",
            token("grant_type=client_credentials&grant_type=password").basic(ROBOT.0, ROBOT.1),
            400,
            "invalid_request",
        ),
        (
            "two ways of authentication",
            token("grant_type=client_credentials&client_id=robot&client_secret=robot-secret-1").basic(ROBOT.0, ROBOT.1),
            400,
            "invalid_request",
        ),
    ] {
        let response = gateway.send(&request);
        assert_eq!(response.status, status, "{name}: {}", response.text());
        assert_eq!(response.member("error"), code, "{name}");
        assert_eq!(response.header("Cache-Control"), Some("no-store"), "{name}");
        assert!(response.json()["error_description"].is_string(), "{name}: {}", response.text());
        if status == 401 {
            assert!(response.header("WWW-Authenticate").is_some(), "{name}");
        }
    }
}

#[test]
fn the_password_grant_works_where_it_is_asked_for() {
    let (gateway, _upstream) =
        gateway("endpoints:\n  - { path: /oauth/token, action: oauth_token, password_grant: true }\n");
    let ask = |password: &str| {
        gateway.send(&token(&format!("grant_type=password&username=user&password={password}")).basic(ROBOT.0, ROBOT.1))
    };
    let body = ask("userpassword").expect(200).json();
    gateway.send(&get("/user/x").bearer(body["access_token"].as_str().unwrap())).expect(200);
    ask("nope").refused(400, "invalid_grant");

    let old = body["refresh_token"].as_str().unwrap();
    let refresh = |client: (&str, &str)| {
        gateway.send(&token(&format!("grant_type=refresh_token&refresh_token={old}")).basic(client.0, client.1))
    };
    gateway.cli(&["client", "add", "other", "--secret-stdin"], "other-secret-1\n").expect(0);
    refresh(("other", "other-secret-1")).refused(400, "invalid_grant");
    let renewed = refresh(ROBOT).expect(200).json();
    assert_ne!(renewed["refresh_token"], body["refresh_token"]);
}

#[test]
fn revocation_answers_200_and_holds() {
    let (gateway, _upstream) = gateway("");
    let tokens = gateway.login("user", "userpassword");
    let opaque = gateway.opaque("user");
    let (access, refresh) = (tokens["access_token"].as_str().unwrap(), tokens["refresh_token"].as_str().unwrap());
    gateway.send(&get("/user/x").token(&opaque)).expect(200);
    gateway.send(&get("/user/x").bearer(access)).expect(200);

    let revoke =
        |token: &str| gateway.send(&post("/oauth/revoke").form(&format!("token={token}")).basic(ROBOT.0, ROBOT.1));
    revoke("unknown").expect(200);
    gateway.send(&post("/auth/logout").token(&opaque)).expect(200);
    gateway.send(&get("/user/x").token(&opaque)).refused(401, "invalid_token");
    gateway.send(&post("/auth/logout").bearer(access)).expect(200);
    gateway.send(&get("/user/x").bearer(access)).refused(401, "invalid_token");
    revoke(refresh).expect(200);
    gateway.send(&post("/auth/refresh").json(&json!({ "refresh_token": refresh }))).refused(401, "invalid_token");
    assert!(gateway.metric("portcullis_tokens_revoked_total", &[("kind", "token")]) >= 1.0);
}

#[test]
fn introspection_is_for_clients_with_the_role() {
    let (gateway, _upstream) = gateway("");
    gateway
        .cli(&["client", "add", "inspector", "--role", "introspect", "--secret-stdin"], "inspector-secret\n")
        .expect(0);
    let ask = |client: (&str, &str), token: &str| {
        gateway.send(&post("/oauth/introspect").form(&format!("token={token}")).basic(client.0, client.1))
    };
    let inspector = ("inspector", "inspector-secret");
    let access = gateway.access("user");
    let seen = ask(inspector, &access).expect(200).json();
    assert_eq!((&seen["active"], &seen["sub"]), (&json!(true), &json!("user")));
    let opaque = gateway.opaque("user");
    assert_eq!(ask(inspector, &opaque).expect(200).json()["active"], true);
    for dead in ["x", "a.b.c", "pct_x"] {
        assert_eq!(ask(inspector, dead).expect(200).json(), json!({ "active": false }));
    }
    ask(ROBOT, &access).expect(403);
    ask(("inspector", "nope"), &access).expect(401);
}
