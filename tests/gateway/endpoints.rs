//! The endpoints that the gateway answers itself, and their templates (contract 5).

use serde_json::{Value, json};

use crate::support::keys::{claims_of, header_of};
use crate::support::{Gateway, HS256, Request, Response, USERS, Upstream, eventually, get, post, routes};

fn gateway(rest: &str) -> (Gateway, Upstream) {
    let upstream = Upstream::hello();
    (Gateway::start(&format!("{USERS}{HS256}{rest}{}", routes(&upstream))), upstream)
}

fn login(user: &str, password: &str) -> Request {
    post("/auth/login").json(&json!({ "username": user, "password": password }))
}

fn refresh(token: &str) -> Request {
    post("/auth/refresh").json(&json!({ "refresh_token": token }))
}

fn text(response: &Response, member: &str) -> String {
    response.member(member)
}

#[test]
fn login_answers_with_tokens_that_work() {
    let (gateway, _upstream) = gateway("");
    let form = post("/auth/login").form("username=user&password=userpassword");
    for request in [login("user", "userpassword"), form, post("/auth/login").basic("user", "userpassword")] {
        let response = gateway.send(&request).expect(200);
        assert_eq!(response.header("Content-Type"), Some("application/json"));
        assert_eq!(response.header("Cache-Control"), Some("no-store"));
        let body = response.json();
        assert_eq!((&body["token_type"], &body["expires_in"]), (&json!("Bearer"), &json!(900)));
        let access = text(&response, "access_token");
        let claims = claims_of(&access);
        assert_eq!((&claims["iss"], &claims["sub"]), (&json!("portcullis"), &json!("user")));
        assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 900);
        assert_eq!(header_of(&access)["typ"], "at+jwt");
        assert!(text(&response, "refresh_token").starts_with("pcr_"));
        gateway.send(&get("/user/x").bearer(&access)).expect(200);
    }
}

#[test]
fn a_challenge_names_what_the_endpoint_takes() {
    let (gateway, _upstream) = gateway("");
    let schemes = |request: &Request| -> Vec<String> {
        let response = gateway.send(request).expect(401);
        response.all("WWW-Authenticate").iter().map(|line| line.split(' ').next().unwrap().to_owned()).collect()
    };
    assert_eq!(schemes(&post("/auth/refresh")), ["Bearer"]);
    assert_eq!(schemes(&post("/auth/refresh").token("x")), ["Bearer"]);
    assert_eq!(schemes(&post("/auth/change-password")), ["Basic", "Bearer"]);
    assert_eq!(schemes(&post("/auth/change-password").token("x")), ["Basic", "Bearer"]);
    assert_eq!(schemes(&get("/auth/login").header("Accept", "text/html")), ["Basic"]);
    assert_eq!(schemes(&get("/user/x")), ["Basic", "Token", "Bearer"]);
}

#[test]
fn a_new_name_and_its_password_are_members() {
    // Basic says who asks; a stale credential that a program sends with everything must not become an account
    let endpoints = "endpoints: [{ path: /register, action: register }, { path: /auth/login, action: login }]\n";
    let (gateway, _upstream) = gateway(endpoints);
    let refused = gateway.send(&post("/register").basic("new", "new password")).refused(400, "invalid_request");
    assert_eq!(refused.member("message"), "`username` is missing; `password` is missing");
    gateway.send(&login("new", "new password")).expect(401);
}

#[test]
fn a_form_has_no_half_escapes() {
    let (gateway, _upstream) = gateway("");
    for body in ["username=user&password=userpassword%zz", "username=user%4&password=x", "username=user&password=%"] {
        gateway.send(&post("/auth/login").form(body)).refused(400, "invalid_request");
    }
    gateway.send(&post("/auth/login").form("username=us%65r&password=userpass%77ord")).expect(200);
}

#[test]
fn what_login_refuses() {
    let (gateway, _upstream) = gateway("");
    for (user, password) in [("user", "nope"), ("nobody", "userpassword"), ("user", ""), ("user", "userpassword\0")] {
        let response = gateway.send(&login(user, password)).refused(401, "invalid_credentials");
        assert_eq!(text(&response, "message"), "Invalid username or password");
        assert_eq!(response.header("Cache-Control"), Some("no-store"));
    }
    for (name, body, status) in [
        ("broken JSON", "{", 400),
        ("a list", "[]", 400),
        ("null", "null", 400),
        ("a member missing", r#"{"username":"user"}"#, 400),
        ("a number", r#"{"username":"user","password":1}"#, 400),
        ("null as a member", r#"{"username":null,"password":null}"#, 400),
        ("an object as a member", r#"{"username":{"$ne":""},"password":{"$ne":""}}"#, 400),
        ("two of a member", r#"{"username":"user","username":"admin","password":"adminpassword"}"#, 400),
    ] {
        let request = post("/auth/login").header("Content-Type", "application/json").body(body);
        let response = gateway.send(&request);
        assert_eq!(response.status, status, "{name}: {}", response.text());
        response.refused(400, "invalid_request");
    }
    let named = post("/auth/login").json(&json!({ "username": "user" }));
    assert!(text(&gateway.send(&named), "message").contains("password"));
    let plain = post("/auth/login").header("Content-Type", "text/plain").body("{}");
    gateway.send(&plain).refused(415, "unsupported_media_type");
    let allow = gateway.send(&get("/auth/login")).refused(405, "method_not_allowed");
    assert!(allow.header("Allow").unwrap().contains("POST"));
    let charset = Request {
        headers: vec![("Content-Type".into(), "application/json; charset=utf-8".into())],
        ..login("user", "userpassword")
    };
    gateway.send(&charset).expect(200);
    let huge = post("/auth/login").json(&json!({ "username": "user", "password": "x".repeat(3 << 20) }));
    let huge = gateway.send(&huge).status;
    assert!([400, 413].contains(&huge), "{huge}");
}

#[test]
fn a_client_logs_in_by_its_secret() {
    let (gateway, upstream) = gateway("endpoints:\n  - { path: /client, action: client_login }\n");
    let ask = |id: &str, secret: &str| post("/client").json(&json!({ "client_id": id, "client_secret": secret }));
    for request in [
        ask("robot", "robot-secret-1"),
        post("/client").form("client_id=robot&client_secret=robot-secret-1"),
        post("/client").basic("robot", "robot-secret-1"),
    ] {
        let access = text(&gateway.send(&request).expect(200), "access_token");
        gateway.send(&get("/user/x").bearer(&access)).expect(200);
        assert_eq!(upstream.last().header("X-Auth-User"), Some("robot"));
    }
    for request in
        [ask("robot", "nope"), ask("nobody", "robot-secret-1"), ask("user", "userpassword"), ask("robot", "")]
    {
        let response = gateway.send(&request).refused(401, "invalid_client");
        assert_eq!(text(&response, "message"), "Invalid client credentials");
    }
    let nulls = post("/client").json(&json!({ "client_id": null, "client_secret": null }));
    gateway.send(&nulls).refused(400, "invalid_request");
    // the standard endpoints are on only where none are given
    gateway.send(&login("user", "userpassword")).refused(404, "no_route");
}

#[test]
fn a_refresh_token_is_used_once_and_its_reuse_ends_the_family() {
    let (gateway, _upstream) = gateway("");
    let first = gateway.send(&login("user", "userpassword"));
    let first = text(&first, "refresh_token");
    let second = gateway.send(&refresh(&first)).expect(200);
    assert_eq!(second.header("Cache-Control"), Some("no-store"));
    let second_refresh = text(&second, "refresh_token");
    assert_ne!(first, second_refresh);

    // a retried request within the grace is answered with the same tokens
    let again = gateway.send(&refresh(&first)).expect(200);
    assert_eq!(text(&again, "refresh_token"), second_refresh);
    assert_eq!(text(&again, "access_token"), text(&second, "access_token"));

    // once the successor was used, the retry is no retry, however soon it comes
    let third = gateway.send(&post("/auth/refresh").bearer(&second_refresh)).expect(200);
    let access = text(&third, "access_token");
    gateway.send(&get("/user/x").bearer(&access)).expect(200);
    let reused = gateway.send(&refresh(&first)).refused(401, "invalid_token");
    assert_eq!(text(&reused, "message"), "Invalid or expired token");
    gateway.send(&refresh(&text(&third, "refresh_token"))).refused(401, "invalid_token");
    gateway.send(&get("/user/x").bearer(&access)).refused(401, "invalid_token");
    assert!((gateway.metric("portcullis_refresh_reuse_total", &[]) - 1.0).abs() < f64::EPSILON);
    // another family of the same user lives on
    gateway.access("user");
}

#[test]
fn what_refresh_refuses() {
    let (gateway, _upstream) = gateway("");
    let tokens = gateway.login("user", "userpassword");
    for token in [tokens["access_token"].as_str().unwrap(), &gateway.opaque("user"), "pcr_x", "", "a.b.c"] {
        let response = gateway.send(&refresh(token)).expect(401);
        assert_eq!(text(&response, "message"), "Invalid or expired token", "{token}");
        assert!(response.header("WWW-Authenticate").is_some());
    }
    let missing = gateway.send(&post("/auth/refresh").json(&json!({})));
    assert!([400, 401].contains(&missing.status), "{}", missing.status);
    gateway.send(&get("/user/x").bearer(tokens["refresh_token"].as_str().unwrap())).refused(401, "invalid_token");
}

#[test]
fn parallel_uses_of_one_refresh_token_make_one_successor() {
    let (gateway, _upstream) = gateway("");
    let token = gateway.login("user", "userpassword")["refresh_token"].as_str().unwrap().to_owned();
    let answers: Vec<Response> = std::thread::scope(|scope| {
        let asked: Vec<_> = (0..8).map(|_| scope.spawn(|| gateway.send(&refresh(&token)))).collect();
        asked.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let mut successors: Vec<String> =
        answers.iter().filter(|answer| answer.status == 200).map(|answer| text(answer, "refresh_token")).collect();
    assert_eq!(successors.len(), 8, "{answers:#?}");
    successors.dedup();
    assert_eq!(successors.len(), 1);
}

#[test]
fn a_refresh_that_gives_no_new_refresh_token_leaves_the_old_one() {
    let endpoints = "
endpoints:
  - { path: /auth/login, action: login }
  - { path: /auth/refresh, action: refresh, reply: { access_token: '{access}' } }
";
    let (gateway, _upstream) = gateway(endpoints);
    let token = gateway.login("user", "userpassword")["refresh_token"].as_str().unwrap().to_owned();
    for _ in 0..3 {
        let response = gateway.send(&refresh(&token)).expect(200);
        assert_eq!(response.json().as_object().unwrap().keys().collect::<Vec<_>>(), ["access_token"]);
        gateway.send(&get("/user/x").bearer(&text(&response, "access_token"))).expect(200);
    }
}

#[test]
fn refresh_tokens_can_be_jwts() {
    let (gateway, _upstream) = gateway("tokens: { refresh_format: jwt }\n");
    let tokens = gateway.login("user", "userpassword");
    let token = tokens["refresh_token"].as_str().unwrap();
    assert_eq!(claims_of(token)["sub"], "user");
    gateway.send(&get("/user/x").bearer(token)).refused(401, "invalid_token");
    let second = gateway.send(&post("/auth/refresh").bearer(token)).expect(200);
    gateway.send(&get("/user/x").bearer(&text(&second, "access_token"))).expect(200);
}

#[test]
fn fields_replies_statuses_and_texts_are_the_files() {
    let endpoints = "
tokens: { access_ttl: 5m, claims: { user_id: '{user_id}', kind: access } }
endpoints:
  - path: /api/login
    action: login
    fields: { username: email, password: pass }
    reply: { jwt: 'Bearer {access}', who: '{user}', role: '{role}', roles: '{roles}', lives: '{expires_in}', id: '{user_id}', v: 1 }
    status: 201
    errors: { member: msg, messages: { invalid_credentials: Bad username or password } }
";
    let (gateway, _upstream) = gateway(endpoints);
    let ask = |password: &str| post("/api/login").json(&json!({ "email": "admin", "pass": password }));
    let body = gateway.send(&ask("adminpassword")).expect(201).json();
    let access = body["jwt"].as_str().unwrap().strip_prefix("Bearer ").unwrap();
    assert_eq!(
        (&body["who"], &body["role"], &body["lives"], &body["v"]),
        (&json!("admin"), &json!("admin"), &json!(300), &json!(1))
    );
    assert_eq!(body["roles"], json!(["admin"]));
    let claims = claims_of(access);
    assert_eq!((&claims["user_id"], &claims["kind"]), (&body["id"], &json!("access")));
    assert!(body.get("refresh_token").is_none());
    gateway.send(&get("/admin/x").bearer(access)).expect(200);
    let refused = gateway.send(&ask("nope")).expect(401).json();
    assert_eq!(refused["msg"], "Bad username or password");
    assert_eq!(gateway.metric("portcullis_tokens_issued_total", &[("kind", "refresh")]).to_bits(), 0.0_f64.to_bits());
}

#[test]
fn a_subject_can_be_written_as_json_text() {
    let upstream = Upstream::hello();
    let yaml = "
auth:
  jwt:
    subject: sub.username
    roles: sub.role
    keys: [{ id: k1, algorithm: HS256, secret: an-hmac-secret-of-more-than-32-bytes }]
tokens: { sub_as: json_text, claims: { sub: { username: '{user}', role: '{role}' } } }
";
    let gateway = Gateway::start(&format!("{USERS}{yaml}{}", routes(&upstream)));
    let access = gateway.access("admin");
    let subject: Value = serde_json::from_str(claims_of(&access)["sub"].as_str().unwrap()).unwrap();
    assert_eq!(subject, json!({ "username": "admin", "role": "admin" }));
    gateway.send(&get("/admin/x").bearer(&access)).expect(200);
}

#[test]
fn registration_makes_a_user_with_the_default_role_whatever_is_asked() {
    let endpoints = "
endpoints:
  - { path: /register, action: register }
  - { path: /auth/login, action: login }
";
    let (gateway, upstream) = gateway(endpoints);
    let ask = |name: &str, password: &str| {
        post("/register").json(&json!({ "username": name, "password": password, "role": "admin", "roles": ["admin"] }))
    };
    let made = gateway.send(&ask("fresh", "Secret-1!")).expect(201);
    assert_eq!(made.json(), json!({ "message": "User registered successfully" }));
    let access = text(&gateway.send(&login("fresh", "Secret-1!")).expect(200), "access_token");
    gateway.send(&get("/user/x").bearer(&access)).expect(200);
    gateway.send(&get("/admin/x").bearer(&access)).refused(403, "insufficient_permissions");

    let taken = gateway.send(&ask("fresh", "Another-1!")).expect(400);
    assert_eq!(text(&taken, "message"), "Username already exists");
    gateway.send(&login("fresh", "Another-1!")).expect(401);
    for (name, user, password, status) in [
        ("a password of 7 bytes", "a1", "1234567", 400),
        ("one of 8", "a2", "12345678", 201),
        ("one of 1024", "a3", &"x".repeat(1024), 201),
        ("one of 1025", "a4", &"x".repeat(1025), 400),
        ("a NUL in the password", "a5", "1234567\u{0}8", 400),
        ("no name", "", "12345678", 400),
        ("a colon in the name", "a:b", "12345678", 400),
        ("a control character", "a\nb", "12345678", 400),
        ("a name of 255 bytes", &"n".repeat(255), "12345678", 201),
        ("one of 256", &"n".repeat(256), "12345678", 400),
    ] {
        let response = gateway.send(&ask(user, password));
        assert_eq!(response.status, status, "{name}: {}", response.text());
    }
    // off unless asked for
    let standard = Gateway::start(&format!("{USERS}{}", routes(&upstream)));
    for path in ["/register", "/auth/register"] {
        standard.send(&post(path).json(&json!({ "username": "x", "password": "12345678" }))).refused(404, "no_route");
    }
}

#[test]
fn a_changed_password_ends_every_session() {
    let (gateway, _upstream) = gateway("");
    let tokens = gateway.login("user", "userpassword");
    let (access, old) = (tokens["access_token"].as_str().unwrap(), tokens["refresh_token"].as_str().unwrap());
    let opaque = gateway.opaque("user");
    gateway.send(&get("/user/x").bearer(access)).expect(200);
    gateway.send(&get("/user/x").token(&opaque)).expect(200);
    gateway.send(&get("/user/x").basic("user", "userpassword")).expect(200);

    let change = |password: &str, new: &str| {
        let body = json!({ "password": password, "new_password": new });
        gateway.send(&post("/auth/change-password").bearer(access).json(&body))
    };
    assert_eq!(change("nope", "new-password-1").status, 401);
    assert_eq!(change("userpassword", "short").status, 400);
    gateway.send(&get("/user/x").bearer(access)).expect(200);
    change("userpassword", "new-password-1").expect(200);

    gateway.send(&get("/user/x").bearer(access)).refused(401, "invalid_token");
    gateway.send(&get("/user/x").token(&opaque)).refused(401, "invalid_token");
    gateway.send(&get("/user/x").basic("user", "userpassword")).refused(401, "invalid_credentials");
    gateway.send(&refresh(old)).refused(401, "invalid_token");
    gateway.send(&get("/user/x").basic("user", "new-password-1")).expect(200);
}

#[test]
fn the_keys_are_published_without_their_secrets() {
    let upstream = Upstream::hello();
    let shared = Gateway::start(&format!("{USERS}{HS256}{}", routes(&upstream)));
    let set = shared.send(&get("/.well-known/jwks.json")).expect(200).json();
    assert_eq!(set["keys"], json!([]), "a secret is nobody else's");

    let own = Gateway::start(&format!("{USERS}{}", routes(&upstream)));
    let set = own.send(&get("/.well-known/jwks.json")).expect(200).json();
    let key = &set["keys"][0];
    assert_eq!(
        (&key["kty"], &key["crv"], &key["alg"], &key["use"]),
        (&json!("OKP"), &json!("Ed25519"), &json!("EdDSA"), &json!("sig"))
    );
    assert_eq!(key["kid"], header_of(&own.access("user"))["kid"]);
    assert!(key.get("d").is_none(), "{key}");

    let metadata = own.send(&get("/.well-known/oauth-authorization-server")).expect(200).json();
    assert_eq!(metadata["issuer"], "portcullis");
    for member in ["token_endpoint", "jwks_uri", "revocation_endpoint", "introspection_endpoint"] {
        assert!(metadata[member].as_str().is_some_and(|url| url.contains('/')), "{member}: {metadata}");
    }
    let revocation = &metadata["revocation_endpoint_auth_methods_supported"];
    assert_eq!(*revocation, json!(["client_secret_basic", "client_secret_post", "none"]));
}

#[test]
fn an_endpoint_comes_before_a_route_of_its_path() {
    let upstream = Upstream::hello();
    let gateway = Gateway::start(&format!(
        "{USERS}
upstreams: {{ api: {{ servers: ['{}'] }} }}
routes: [{{ path: /**, allow: anyone, to: api }}]
",
        upstream.url()
    ));
    gateway.login("user", "userpassword");
    gateway.send(&post("/auth/%6cogin").json(&json!({}))).refused(400, "invalid_request");
    assert!(upstream.received().is_empty());
    gateway.send(&post("/auth/login/").json(&json!({}))).expect(200);
    assert_eq!(upstream.received().len(), 1);
}

#[test]
fn one_of_many_who_register_a_name_at_once_gets_it() {
    let (gateway, _upstream) = gateway("endpoints: [{ path: /register, action: register }]\n");
    let ask = |n: usize| {
        let body = json!({ "username": "wanted", "password": format!("password-{n}") });
        gateway.send(&post("/register").json(&body)).status
    };
    let ask = &ask;
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let asked: Vec<_> = (0..8).map(|n| scope.spawn(move || ask(n))).collect();
        asked.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(statuses.iter().filter(|&&status| status == 201).count(), 1, "{statuses:?}");
    assert!(statuses.iter().all(|status| [201, 400, 503].contains(status)), "{statuses:?}");
}

#[test]
fn a_flood_of_logins_is_answered_or_put_off_and_others_are_served_meanwhile() {
    // one, so that they are taken in the order in which they come
    let (gateway, _upstream) = gateway("workers: 1\n");
    let token = gateway.access("user");
    let waiting = || gateway.metric("portcullis_password_queue", &[]);
    // more than can wait, and than are verified until the last has come
    let mut flood: Vec<_> = (0..400)
        .map(|number| {
            let mut connection = gateway.connect();
            connection.write(&login(&format!("user-{number}"), "wrong-password").to_bytes()).unwrap();
            connection
        })
        .collect();
    let put_off = flood.pop().unwrap().response("POST").unwrap().expect(503);
    assert!(put_off.header("Retry-After").is_some(), "{put_off:?}");
    assert!(waiting() > 200.0, "{}", waiting());
    flood.first_mut().unwrap().response("POST").unwrap().expect(401);
    for _ in 0..20 {
        gateway.send(&get("/user/x").bearer(&token)).expect(200);
    }
    // whoever has gone is not waited for
    drop(flood);
    eventually("the queue is empty", || if waiting() < 1.0 { Ok(()) } else { Err(waiting()) });
    gateway.login("user", "userpassword");
}
