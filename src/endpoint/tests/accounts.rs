use super::*;

#[tokio::test]
async fn a_registered_user_can_log_in_with_the_default_role() {
    let rig = Rig::start().await;
    let register = endpoint(Action::Register);
    let body = json!({"username": "jürgen", "password": "pässwörd-€", "role": "admin", "roles": ["admin"]});
    let said = rig.post(&register, None, &body).await;
    assert_eq!((said.status, &said.body), (201, &json!({"message": "User registered successfully"})));
    let account = rig.service.store.account(Subject::user("jürgen")).await.unwrap().unwrap();
    assert_eq!(*account.roles, [Role::from("user")]);
    let login = rig.post(&endpoint(Action::Login), None, &body).await;
    assert_eq!(login.status, 200);
    let again = rig.post(&register, None, &json!({"username": "jürgen", "password": "another one"})).await;
    assert_eq!((again.status, again.text("message").as_str()), (400, "Username already exists"));
    assert_eq!(rig.post(&endpoint(Action::Login), None, &body).await.status, 200, "the password is still the first");
}

#[tokio::test]
async fn a_name_that_another_has_or_had_cannot_be_registered() {
    let rig = Rig::start().await;
    let register = endpoint(Action::Register);
    rig.add(Subject::user("gone"), "old password", &["admin"], &[]).await;
    assert!(rig.service.store.remove_account(Subject::user("gone")).await.unwrap());
    rig.add(Subject::client("old-client"), "old password", &["admin"], &[]).await;
    assert!(rig.service.store.remove_account(Subject::client("old-client")).await.unwrap());
    for (name, user, status) in [
        ("a user's", ANN.0, 400),
        ("a client's", CLIENT.0, 400),
        ("a removed user's", "gone", 400),
        ("a removed client's, which no upstream knows as a user", "old-client", 201),
        ("nobody's", "new", 201),
    ] {
        let said = rig.post(&register, None, &json!({"username": user, "password": "new password"})).await;
        assert_eq!(said.status, status, "{name}");
        if status == 400 {
            assert_eq!(said.text("message"), "Username already exists", "{name}");
        }
    }
    assert!(rig.service.store.account(Subject::user("gone")).await.unwrap().is_none());
    // an operator knows who comes back
    rig.add(Subject::user("gone"), "new password", &["user"], &[]).await;
    assert!(rig.accepts(&basic(("gone", "new password"))).await);
}

#[tokio::test]
async fn a_user_who_was_unknown_a_moment_ago_is_known_at_once() {
    let rig = Rig::start().await;
    let credential = basic(("new", "new password"));
    assert!(!rig.accepts(&credential).await);
    rig.post(&endpoint(Action::Register), None, &json!({"username": "new", "password": "new password"})).await;
    assert!(rig.accepts(&credential).await);
}

#[tokio::test]
async fn names_and_passwords_outside_the_rules_are_refused_by_name() {
    let rig = Rig::start().await;
    let register = endpoint(Action::Register);
    let (shortest, longest) = ("a".repeat(8), "a".repeat(64));
    for (name, body, expected) in [
        ("no name", json!({"password": "12345678"}), "`username` is missing"),
        ("no password", json!({"username": "u"}), "`password` is missing"),
        ("a number", json!({"username": "u", "password": 12_345_678}), "`password` must be a text"),
        ("null", json!({"username": null, "password": "12345678"}), "`username` must be a text"),
        ("an empty name", json!({"username": "", "password": "12345678"}), "`username` must not be empty"),
        ("a colon", json!({"username": "a:b", "password": "12345678"}), "`username` must not have a colon"),
        (
            "a control character",
            json!({"username": "a\u{1}", "password": "12345678"}),
            "`username` must not have control characters",
        ),
        ("too short", json!({"username": "u", "password": "1234567"}), "`password` must have at least 8 bytes"),
        (
            "too long",
            json!({"username": "u", "password": format!("{longest}a")}),
            "`password` must have at most 64 bytes",
        ),
        ("a NUL", json!({"username": "u", "password": "12345678\u{0}"}), "`password` must not have control characters"),
    ] {
        let said = rig.post(&register, None, &body).await;
        assert_eq!((said.error(), said.text("message").as_str()), ((400, "invalid_request"), expected), "{name}");
    }
    for (user, password) in [("shortest", &shortest), ("longest", &longest)] {
        assert_eq!(
            rig.post(&register, None, &json!({"username": user, "password": password})).await.status,
            201,
            "{user}"
        );
    }
}

#[tokio::test]
async fn a_registration_may_give_tokens() {
    let rig = Rig::start().await;
    let register = with_reply(Action::Register, &json!({"user": "{user}", "access": "{access}"}));
    let said = rig.post(&register, None, &json!({"username": "new", "password": "new password"})).await;
    assert_eq!((said.status, said.text("user").as_str()), (201, "new"));
    assert!(rig.accepts(&bearer(&said.text("access"))).await);
}

#[tokio::test]
async fn a_changed_password_ends_every_session() {
    let rig = Rig::start().await;
    let change = endpoint(Action::ChangePassword);
    let body = json!({"password": ANN.1, "new_password": "another horse"});
    let said = rig.logged_in().await;
    let access = bearer(&said.text("access_token"));
    let token =
        rig.post(&with_reply(Action::Login, &json!({"t": "Token {token}"})), Some(&basic(ANN)), &json!(null)).await;
    assert!(rig.accepts(&access).await && rig.accepts(&basic(ANN)).await && rig.accepts(&token.text("t")).await);
    let revoked = &rig.service.metrics.tokens_revoked;
    let counted = || ["token", "refresh", "access"].map(|kind| revoked.with_label_values(&[kind]).get());
    assert_eq!(counted(), [0, 0, 0]);
    assert_eq!(rig.post(&change, Some(&access), &body).await.status, 200);
    assert_eq!(counted(), [1, 1, 0], "JWTs are not stored, so nobody knows how many there were");
    assert!(!rig.accepts(&access).await);
    assert!(!rig.accepts(&basic(ANN)).await);
    assert!(!rig.accepts(&token.text("t")).await);
    assert_eq!(rig.refreshed(&said.text("refresh_token")).await.status, 401);
    let new = basic(("ann", "another horse"));
    assert!(rig.accepts(&new).await);
    let back = json!({"password": "another horse", "new_password": ANN.1});
    assert_eq!(rig.post(&change, Some(&new), &back).await.status, 200, "by Basic");
}

#[tokio::test]
async fn a_password_is_changed_by_who_knows_it() {
    let rig = Rig::start().await;
    let change = endpoint(Action::ChangePassword);
    let access = bearer(&rig.logged_in().await.text("access_token"));
    let client = rig.post(&endpoint(Action::ClientLogin), Some(&basic(CLIENT)), &json!(null)).await;
    let client = bearer(&client.text("access_token"));
    let token =
        rig.post(&with_reply(Action::Login, &json!({"t": "Token {token}"})), Some(&basic(ANN)), &json!(null)).await;
    let good = json!({"password": ANN.1, "new_password": "another horse"});
    for (name, authorization, body, expected) in [
        ("nobody", None, good.clone(), (401, "missing_credentials")),
        ("a token that is none", Some("Bearer x.y.z".to_owned()), good.clone(), (401, "invalid_token")),
        ("an opaque token", Some(token.text("t")), good.clone(), (401, "unsupported_scheme")),
        ("a wrong password by Basic", Some(basic(("ann", "wrong"))), good.clone(), (401, "invalid_credentials")),
        ("a client", Some(client), good.clone(), (403, "insufficient_permissions")),
        (
            "a found token without the password",
            Some(access.clone()),
            json!({"password": "wrong", "new_password": "another horse"}),
            (401, "invalid_credentials"),
        ),
        ("no old one", Some(access.clone()), json!({"new_password": "another horse"}), (400, "invalid_request")),
        ("no new one", Some(access.clone()), json!({"password": ANN.1}), (400, "invalid_request")),
        (
            "a short new one",
            Some(access.clone()),
            json!({"password": ANN.1, "new_password": "short"}),
            (400, "invalid_request"),
        ),
        (
            "a number",
            Some(access.clone()),
            json!({"password": ANN.1, "new_password": 12_345_678}),
            (400, "invalid_request"),
        ),
    ] {
        assert_eq!(rig.post(&change, authorization.as_deref(), &body).await.error(), expected, "{name}");
    }
    assert_eq!(rig.logged_in().await.status, 200);
}

#[tokio::test]
async fn keys_and_metadata_are_public() {
    let mut rig = Rig::start().await;
    let token = Endpoint { path: "/oauth/token".into(), ..endpoint(Action::OauthToken) };
    rig.endpoints.insert("/oauth/token".into(), Arc::new(token));
    let keys = rig.send(&endpoint(Action::Jwks), "GET", None, None, "").await;
    assert_eq!(keys.headers["content-type"], "application/jwk-set+json");
    assert_eq!(keys.headers["cache-control"], format!("public, max-age={}", metadata::KEYS_KEPT_SECONDS));
    let access = rig.logged_in().await.text("access_token");
    assert_eq!(keys.body["keys"][0]["kid"], header(&access)["kid"]);
    assert!(keys.body["keys"][0].get("d").is_none());
    let head = rig.send(&endpoint(Action::Jwks), "HEAD", None, None, "").await;
    assert_eq!((head.body, &head.headers["content-length"]), (Value::Null, &keys.headers["content-length"]));
    let metadata = rig.send(&endpoint(Action::Metadata), "GET", None, None, "").await;
    assert_eq!(metadata.body["token_endpoint"], "https://api.example.com/oauth/token");
    assert_eq!(metadata.headers["cache-control"], "no-store", "a cache would give one caller's host to all");
    rig.auth.jwt = Arc::new(JwtSettings::of("https://id.example.com/tenant"));
    let metadata = rig.send(&endpoint(Action::Metadata), "GET", None, None, "").await;
    assert_eq!(metadata.body["token_endpoint"], "https://id.example.com/oauth/token");
    assert_eq!(metadata.headers["cache-control"], "public, max-age=60");
}
