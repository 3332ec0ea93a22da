use super::*;

#[tokio::test]
async fn a_login_gives_tokens_that_hold() {
    let rig = Rig::start().await;
    let said = rig.logged_in().await;
    assert_eq!(said.headers["cache-control"], "no-store");
    assert_eq!(said.headers["content-type"], "application/json");
    let (access, refresh) = (said.text("access_token"), said.text("refresh_token"));
    assert_eq!(
        said.body,
        json!({"access_token": access, "refresh_token": refresh, "token_type": "Bearer",
        "expires_in": 900})
    );
    assert!(refresh.starts_with("pcr_"));
    assert_eq!(header(&access)["typ"], "at+jwt");
    let found = claims(&access);
    assert_eq!(
        (&found["iss"], &found["sub"], &found["sub_type"]),
        (&json!("portcullis"), &json!("ann"), &json!("user"))
    );
    assert_eq!(found["exp"].as_i64().unwrap() - found["iat"].as_i64().unwrap(), 900);
    assert!(found["jti"].as_str().unwrap().len() == 22 && found["sid"].as_str().unwrap().len() == 22);
    assert!(found.get("roles").is_none() && found.get("scope").is_none() && found.get("aud").is_none());
    assert!(rig.accepts(&bearer(&access)).await);
    assert!(!rig.accepts(&bearer(&refresh)).await);
    assert_eq!(rig.service.metrics.tokens_issued.with_label_values(&["access"]).get(), 1);
    assert_eq!(rig.service.metrics.tokens_issued.with_label_values(&["token"]).get(), 0);
    assert_eq!(rig.audited(3, &[ANN.1, &access, &refresh]).await, ["login", "token_issued", "token_refused"]);
}

#[tokio::test]
async fn credentials_that_prove_nothing_look_alike() {
    let rig = Rig::start().await;
    rig.add(Subject::user("off"), "a password", &[], &[]).await;
    rig.service.store.set_disabled(Subject::user("off"), true).await.unwrap();
    let endpoint = endpoint(Action::Login);
    for (name, username, password) in [
        ("a wrong password", "ann", "wrong"),
        ("an unknown user", "bob", "correct horse"),
        ("a disabled user", "off", "a password"),
        ("a client as user", CLIENT.0, CLIENT.1),
        ("another case", "Ann", "correct horse"),
        ("an empty password", "ann", ""),
        ("an empty name", "", "correct horse"),
        ("a NUL behind the password", "ann", "correct horse\0"),
        ("a NUL behind the name", "ann\0", "correct horse"),
        ("a control character in the name", "ann\n", "correct horse"),
        ("a very long name", &"a".repeat(5_000), "correct horse"),
        ("a very long password", "ann", &"a".repeat(5_000)),
    ] {
        let said = rig.post(&endpoint, None, &json!({"username": username, "password": password})).await;
        assert_eq!(said.error(), (401, "invalid_credentials"), "{name}");
        assert_eq!(said.body["message"], "Invalid username or password", "{name}");
        assert!(said.challenges().concat().starts_with("Basic realm=\"api\""), "{name}");
    }
    assert!(rig.audited(12, &["correct horse", "a password"]).await.iter().all(|kind| kind == "login_failed"));
}

#[tokio::test]
async fn credentials_come_as_members_or_as_basic() {
    let rig = Rig::start().await;
    let endpoint = endpoint(Action::Login);
    let both = json!({"username": ANN.0, "password": ANN.1});
    for (name, authorization, body, expected) in [
        ("basic alone", Some(basic(ANN)), json!(null), (200, "")),
        ("both, the same", Some(basic(ANN)), both.clone(), (200, "")),
        ("members, and a stale basic", Some(basic(("ann", "wrong"))), both.clone(), (200, "")),
        ("members, and basic of another", Some(basic(("bob", ANN.1))), both.clone(), (200, "")),
        ("basic, and another name", Some(basic(ANN)), json!({"username": "bob"}), (400, "invalid_request")),
        ("members, and a stale token", Some(bearer("broken")), both.clone(), (200, "")),
        ("members, and an unknown scheme", Some("Digest x".to_owned()), both.clone(), (200, "")),
        ("a token alone", Some(bearer("broken")), json!(null), (400, "invalid_request")),
        ("broken basic", Some("Basic %%%".to_owned()), json!(null), (401, "invalid_credentials")),
        ("no credentials", None, json!(null), (400, "invalid_request")),
        ("no password", None, json!({"username": "ann"}), (400, "invalid_request")),
        ("no name", None, json!({"password": "x"}), (400, "invalid_request")),
        ("a number as name", None, json!({"username": 1, "password": "x"}), (400, "invalid_request")),
        ("null as password", None, json!({"username": "ann", "password": null}), (400, "invalid_request")),
        ("a list as body", None, json!(["ann"]), (400, "invalid_request")),
    ] {
        let said = rig.post(&endpoint, authorization.as_deref(), &body).await;
        assert_eq!(said.error(), expected, "{name}");
    }
    let form = rig.form(&endpoint, None, "username=ann&password=correct+horse").await;
    assert_eq!(form.status, 200);
    let query = Request::post("/e?username=ann&password=correct%20horse").body(Body::empty()).unwrap();
    assert_eq!(rig.sent(&endpoint, query).await.status, 400);
    let twice = Request::post("/e").header("authorization", basic(ANN)).header("authorization", basic(ANN));
    assert_eq!(rig.sent(&endpoint, twice.body(Body::empty()).unwrap()).await.error(), (400, "bad_request"));
}

#[tokio::test]
async fn a_refusal_names_the_member_as_it_is_configured() {
    let rig = Rig::start().await;
    let endpoint = Endpoint { fields: [("username".into(), "email".into())].into(), ..endpoint(Action::Login) };
    let said = rig.post(&endpoint, None, &json!({"username": ANN.0, "password": ANN.1})).await;
    assert_eq!(said.body["message"], "`email` is missing");
    let said = rig.post(&endpoint, None, &json!({"email": ANN.0, "password": ANN.1})).await;
    assert_eq!(said.status, 200);
}

#[tokio::test]
async fn a_get_logs_in_by_basic_only() {
    let rig = Rig::start().await;
    let login = endpoint(Action::Login);
    let basic = basic(ANN);
    for (name, authorization, accept, expected) in [
        ("basic", Some(basic.as_str()), "*/*", (200, "")),
        ("a token", Some("Bearer x"), "*/*", (401, "unsupported_scheme")),
        ("nothing, by a program", None, "*/*", (405, "method_not_allowed")),
        ("nothing, by a browser", None, "text/html,*/*;q=0.8", (401, "missing_credentials")),
    ] {
        let mut request = Request::get("/e").header("accept", accept);
        if let Some(authorization) = authorization {
            request = request.header("authorization", authorization);
        }
        let said = rig.sent(&login, request.body(Body::empty()).unwrap()).await;
        assert_eq!(said.error(), expected, "{name}");
    }
    for (action, method, allow) in [
        (Action::Login, "PUT", "POST"),
        (Action::ClientLogin, "GET", "POST"),
        (Action::Refresh, "GET", "POST"),
        (Action::OauthToken, "GET", "POST"),
        (Action::Revoke, "DELETE", "POST"),
        (Action::Jwks, "POST", "GET, HEAD"),
    ] {
        let said = rig.send(&endpoint(action), method, Some(&basic), None, "").await;
        assert_eq!((said.status, &said.headers["allow"]), (405, &HeaderValue::from_static(allow)), "{action:?}");
    }
}

#[tokio::test]
async fn only_what_the_reply_names_is_issued() {
    let rig = Rig::start().await;
    let reply = json!({"token": "Token {token}", "expires_in": "{expires_in}", "id": "{user_id}", "roles": "{roles}"});
    let login = Endpoint { status: Some(StatusCode::CREATED), ..with_reply(Action::Login, &reply) };
    let said = rig.post(&login, Some(&basic(ANN)), &json!(null)).await;
    assert_eq!((said.status, &said.body["expires_in"]), (201, &json!(86_400)));
    assert_eq!(said.body["roles"], json!(["admin", "user"]));
    assert!(said.body["id"].is_string());
    let token = said.text("token");
    assert!(token.starts_with("Token pct_"));
    assert!(rig.accepts(&token).await);
    let listed = rig.service.store.tokens(None, rig.clock.unix()).await.unwrap();
    assert_eq!(listed.iter().map(|token| token.kind).collect::<Vec<_>>(), ["token"]);
    let access = rig.post(&with_reply(Action::Login, &json!({"t": "{access}"})), Some(&basic(ANN)), &json!(null)).await;
    assert!(claims(&access.text("t")).get("sid").is_none());
    assert_eq!(rig.service.store.tokens(None, rig.clock.unix()).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_client_logs_in_with_its_secret() {
    let rig = Rig::start().await;
    let login = endpoint(Action::ClientLogin);
    let said = rig.post(&login, None, &json!({"client_id": CLIENT.0, "client_secret": CLIENT.1, "scope": "x"})).await;
    assert_eq!(said.status, 200);
    let access = said.text("access_token");
    let found = claims(&access);
    assert_eq!(
        (&found["sub"], &found["sub_type"], &found["client_id"]),
        (&json!("api"), &json!("client"), &json!("api"))
    );
    assert_eq!(found["scope"], "read write");
    assert!(rig.accepts(&bearer(&access)).await);
    assert_eq!(rig.refreshed(&said.text("refresh_token")).await.status, 200);
    for (name, id, secret) in
        [("wrong", "api", "no"), ("unknown", "nobody", CLIENT.1), ("a user", ANN.0, ANN.1), ("empty", "", "")]
    {
        let said = rig.post(&login, None, &json!({"client_id": id, "client_secret": secret})).await;
        assert_eq!(
            (said.error(), said.text("message").as_str()),
            ((401, "invalid_client"), "Invalid client credentials"),
            "{name}"
        );
    }
    for body in [json!({"client_id": null, "client_secret": null}), json!({"client_id": "api"}), json!({})] {
        assert_eq!(rig.post(&login, None, &body).await.error(), (400, "invalid_request"), "{body}");
    }
}

#[tokio::test]
async fn only_failed_attempts_are_counted_for_an_account() {
    let rig = Rig::start().await;
    let per_account = Some(quota(5, 2));
    rig.limit(&limit::Settings { per_account, per_address: None, per_account_anywhere: None, unauthenticated: None });
    let endpoint = endpoint(Action::Login);
    let (good, bad) = (json!({"username": "ann", "password": ANN.1}), json!({"username": "ann", "password": "bad"}));
    for _ in 0..4 {
        assert_eq!(rig.post(&endpoint, None, &good).await.status, 200);
    }
    assert_eq!(rig.post(&endpoint, None, &bad).await.status, 401);
    assert_eq!(rig.post(&endpoint, None, &bad).await.status, 401);
    let said = rig.post(&endpoint, None, &good).await;
    assert_eq!(said.error(), (429, "rate_limited"));
    assert!(said.headers.contains_key("retry-after"));
    let other = json!({"username": "bob", "password": "bad"});
    assert_eq!(rig.post(&endpoint, None, &other).await.status, 401);
    assert_eq!(rig.from("192.0.2.2").post(&endpoint, None, &good).await.status, 200);
    rig.from("192.0.2.1").clock.advance(Duration::from_secs(13));
    assert_eq!(rig.post(&endpoint, None, &good).await.status, 200);
}

#[tokio::test]
async fn while_the_store_does_not_answer_nobody_is_refused_or_loses_an_attempt() {
    let mut rig = Rig::start().await;
    let per_account = Some(quota(1, 1));
    rig.limit(&limit::Settings { per_account, per_address: None, per_account_anywhere: None, unauthenticated: None });
    let refresh_token = rig.logged_in().await.text("refresh_token");
    rig.background.take().unwrap().shutdown_background();
    let credentials = json!({"username": ANN.0, "password": "wrong"});
    for _ in 0..3 {
        let said = rig.post(&endpoint(Action::Login), None, &credentials).await;
        assert_eq!(said.error(), (503, "store_unavailable"));
        assert!(said.headers.contains_key("retry-after"));
    }
    assert_eq!(rig.refreshed(&refresh_token).await.error(), (503, "store_unavailable"));
    let revoked = rig.post(&endpoint(Action::Revoke), None, &json!({"token": refresh_token})).await;
    assert_eq!(revoked.error(), (503, "store_unavailable"));
}

#[tokio::test]
async fn every_endpoint_costs_its_caller() {
    let rig = Rig::start().await;
    let per_address = Some(quota(30, 2));
    rig.limit(&limit::Settings { per_address, per_account: None, per_account_anywhere: None, unauthenticated: None });
    assert_eq!(rig.send(&endpoint(Action::Jwks), "GET", None, None, "").await.status, 200);
    assert_eq!(rig.logged_in().await.status, 200);
    let said = rig.send(&endpoint(Action::Metadata), "GET", None, None, "").await;
    assert_eq!(said.error(), (429, "rate_limited"));
}

#[tokio::test]
async fn configured_claims_are_issued_and_ours_stay() {
    let mut jwt = JwtSettings::of("portcullis");
    jwt.audience = vec!["orders-api".into()];
    jwt.token_type = by_claim();
    jwt.subject = path("sub.username");
    jwt.roles = RoleSource::Claim(path("realm.roles"));
    let mut rig = Rig::with(jwt).await;
    let further = json!({"sub": {"username": "{user}", "role": "{role}"}, "user_id": "{user_id}", "exp": 1, "sv": 99});
    rig.tokens.claims = Claims::compile(further.as_object().unwrap().clone()).unwrap();
    rig.tokens.sub_as_json_text = true;
    let access = rig.logged_in().await.text("access_token");
    let found = claims(&access);
    assert_eq!(found["sub"], r#"{"username":"ann","role":"admin"}"#);
    assert_eq!(found["realm"]["roles"], json!(["admin", "user"]));
    assert_eq!((&found["type"], &found["aud"]), (&json!("access"), &json!("orders-api")));
    assert!(found["exp"].as_i64().unwrap() > rig.clock.unix() && found["sv"] != 99);
    assert!(found["user_id"].is_string());
    assert_eq!(header(&access)["typ"], "JWT");
    assert!(rig.accepts(&bearer(&access)).await);
}

#[tokio::test]
async fn a_subject_is_put_where_it_will_be_looked_for() {
    for (subject, json_text) in [
        ("user", false),
        ("who.name", false),
        ("sub.username", true),
        ("sub.username", false),
        ("sub", true),
        ("id", false),
    ] {
        let mut jwt = JwtSettings::of("portcullis");
        jwt.subject = path(subject);
        let mut rig = Rig::with(jwt).await;
        rig.tokens.sub_as_json_text = json_text;
        rig.tokens.refresh_format = RefreshFormat::Jwt;
        // an id is no name: who has the id of another's name must not become them
        let claims = json!({"id": "{user_id}", "sub": {"role": "{role}"}});
        rig.tokens.claims = Claims::compile(claims.as_object().unwrap().clone()).unwrap();
        let said = rig.logged_in().await;
        assert_eq!(rig.refreshed(&said.text("refresh_token")).await.status, 200, "{subject}");
        assert!(rig.accepts(&bearer(&said.text("access_token"))).await, "{subject}");
    }
}

#[tokio::test]
async fn a_body_that_stops_coming_is_not_waited_for() {
    struct Never;

    impl http_body::Body for Never {
        type Data = bytes::Bytes;
        type Error = crate::wire::body::BodyError;

        fn poll_frame(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<http_body::Frame<bytes::Bytes>, Self::Error>>> {
            std::task::Poll::Pending
        }
    }

    let rig = Rig::start().await;
    let stalled = Body::boxed(Never).stalling_after(Duration::from_millis(1));
    let request = Request::post("/e").header("content-type", "application/json").body(stalled).unwrap();
    assert_eq!(rig.sent(&endpoint(Action::Login), request).await.error(), (408, "request_timeout"));
}

#[tokio::test]
async fn credentials_are_looked_for_where_the_endpoint_says() {
    let rig = Rig::start().await;
    let (good, body) = (basic(ANN), json!({"username": ANN.0, "password": ANN.1}));
    let wrong = basic((ANN.0, "wrong"));
    for (name, from, authorization, body, expected) in [
        ("either, body", Source::Either, None, body.clone(), (200, "")),
        ("either, Basic", Source::Either, Some(&good), json!(null), (200, "")),
        ("either, the body goes first", Source::Either, Some(&wrong), body.clone(), (200, "")),
        ("either, nothing", Source::Either, None, json!({}), (400, "invalid_request")),
        ("members", Source::Members, None, body.clone(), (200, "")),
        ("members, Basic is not looked at", Source::Members, Some(&good), json!({}), (400, "invalid_request")),
        ("members, wrong Basic beside", Source::Members, Some(&wrong), body.clone(), (200, "")),
        ("authorization", Source::Authorization, Some(&good), json!(null), (200, "")),
        (
            "authorization, the body is not looked at",
            Source::Authorization,
            None,
            body.clone(),
            (401, "missing_credentials"),
        ),
        ("authorization, wrong", Source::Authorization, Some(&wrong), body, (401, "invalid_credentials")),
    ] {
        let endpoint = Endpoint { from, ..endpoint(Action::Login) };
        let said = rig.post(&endpoint, authorization.map(String::as_str), &body).await;
        assert_eq!(said.error(), expected, "{name}");
        let challenges = said.challenges().concat();
        assert!(said.status != 401 || challenges.contains("Basic"), "{name}: {challenges}");
    }
    let bearer = bearer("x");
    let endpoint = Endpoint { from: Source::Authorization, ..endpoint(Action::Login) };
    assert_eq!(rig.post(&endpoint, Some(&bearer), &json!(null)).await.error(), (401, "unsupported_scheme"));
}

#[tokio::test]
async fn incomplete_credentials_are_refused_as_the_endpoint_says() {
    let rig = Rig::start().await;
    let (request, wrong) = ((400, "invalid_request"), (401, "invalid_credentials"));
    for (name, body, [standard, member, credentials]) in [
        ("nothing", json!({}), [request, request, wrong]),
        ("no password", json!({"username": "ann"}), [request, request, wrong]),
        ("no name", json!({"password": ANN.1}), [request, request, wrong]),
        ("an empty password", json!({"username": "ann", "password": ""}), [wrong, request, wrong]),
        ("an empty name", json!({"username": "", "password": ANN.1}), [wrong, request, wrong]),
        ("a number", json!({"username": "ann", "password": 7}), [request; 3]),
        ("a wrong password", json!({"username": "ann", "password": "wrong"}), [wrong; 3]),
    ] {
        let kinds = [Incomplete::Standard, Incomplete::Member, Incomplete::Credentials];
        for (incomplete, expected) in kinds.into_iter().zip([standard, member, credentials]) {
            let endpoint = Endpoint { incomplete, ..endpoint(Action::Login) };
            assert_eq!(rig.post(&endpoint, None, &body).await.error(), expected, "{name}, {incomplete:?}");
        }
    }
}
