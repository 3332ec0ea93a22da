use super::*;

fn token_endpoint() -> Endpoint {
    let texts = Arc::new(Texts { oauth: true, ..Texts::default() });
    Endpoint { texts, password_grant: true, ..endpoint(Action::OauthToken) }
}

#[tokio::test]
async fn client_credentials_give_an_access_token() {
    let rig = Rig::start().await;
    let said = rig.form(&token_endpoint(), Some(&basic(CLIENT)), "grant_type=client_credentials").await;
    assert_eq!(
        (said.headers["cache-control"].as_bytes(), said.headers["pragma"].as_bytes()),
        (&b"no-store"[..], &b"no-cache"[..])
    );
    let access = said.text("access_token");
    assert_eq!(
        said.body,
        json!({"access_token": access, "token_type": "Bearer", "expires_in": 900,
        "scope": "read write"})
    );
    let found = claims(&access);
    assert_eq!((&found["client_id"], &found["sub_type"]), (&json!("api"), &json!("client")));
    assert!(rig.accepts(&bearer(&access)).await);
    let members = json!({"grant_type": "client_credentials", "client_id": CLIENT.0, "client_secret": CLIENT.1});
    assert_eq!(rig.post(&token_endpoint(), None, &members).await.status, 200, "as JSON members");
}

#[tokio::test]
async fn a_client_may_write_its_id_and_secret_form_encoded() {
    let rig = Rig::start().await;
    let per_account = Some(quota(1, 1));
    rig.limit(&limit::Settings { per_account, per_address: None, per_account_anywhere: None, unauthenticated: None });
    for _ in 0..3 {
        let encoded = basic(("%61pi", "client+secret%2F%2B%3D%7E"));
        let said = rig.form(&token_endpoint(), Some(&encoded), "grant_type=client_credentials").await;
        assert_eq!(said.status, 200, "{said:?}");
    }
}

#[tokio::test]
async fn refusals_are_those_of_rfc_6749() {
    let rig = Rig::start().await;
    let good = basic(CLIENT);
    for (name, authorization, body, expected) in [
        ("no grant type", Some(&good), "scope=read", (400, "invalid_request")),
        ("an empty grant type", Some(&good), "grant_type=", (400, "invalid_request")),
        ("an unknown grant type", Some(&good), "grant_type=magic", (400, "unsupported_grant_type")),
        ("a code", Some(&good), "grant_type=authorization_code&code=x", (400, "unsupported_grant_type")),
        ("twice", Some(&good), "grant_type=client_credentials&grant_type=password", (400, "invalid_request")),
        ("no client", None, "grant_type=client_credentials", (401, "invalid_client")),
        ("no secret", None, "grant_type=client_credentials&client_id=api", (401, "invalid_client")),
        ("no id", None, "grant_type=client_credentials&client_secret=x", (400, "invalid_request")),
        (
            "a wrong secret",
            None,
            "grant_type=client_credentials&client_id=api&client_secret=x",
            (401, "invalid_client"),
        ),
        ("two clients", Some(&good), "grant_type=client_credentials&client_id=other", (400, "invalid_request")),
        ("two secrets", Some(&good), "grant_type=client_credentials&client_secret=x", (400, "invalid_request")),
        ("an unknown scope", Some(&good), "grant_type=client_credentials&scope=read+admin", (400, "invalid_scope")),
        ("a malformed scope", Some(&good), "grant_type=client_credentials&scope=read++write", (400, "invalid_scope")),
        ("a quoted scope", Some(&good), "grant_type=client_credentials&scope=%22", (400, "invalid_scope")),
        ("a wrong password", None, "grant_type=password&username=ann&password=x", (400, "invalid_grant")),
        ("no password", None, "grant_type=password&username=ann", (400, "invalid_request")),
        (
            "a user's scope",
            None,
            "grant_type=password&username=ann&password=correct+horse&scope=read",
            (400, "invalid_scope"),
        ),
        ("no refresh token", None, "grant_type=refresh_token", (400, "invalid_request")),
        ("an unknown refresh token", None, "grant_type=refresh_token&refresh_token=x", (400, "invalid_grant")),
    ] {
        let said = rig.form(&token_endpoint(), authorization.map(String::as_str), body).await;
        assert_eq!(said.error(), expected, "{name}");
        assert!(said.body["error_description"].is_string(), "{name}");
        assert_eq!(said.status == 401, !said.challenges().is_empty(), "{name}");
        assert_eq!(said.headers["cache-control"], "no-store", "{name}");
    }
    let off = Endpoint { password_grant: false, ..token_endpoint() };
    let said = rig.form(&off, None, "grant_type=password&username=ann&password=correct+horse").await;
    assert_eq!(said.error(), (400, "unsupported_grant_type"));
}

#[tokio::test]
async fn scopes_are_narrowed_and_stay_so() {
    let rig = Rig::start().await;
    let (endpoint, client) = (token_endpoint(), basic(CLIENT));
    let said = rig.form(&endpoint, Some(&client), "grant_type=client_credentials&scope=write+write").await;
    assert_eq!(
        (said.text("scope"), &claims(&said.text("access_token"))["scope"]),
        ("write".to_owned(), &json!("write"))
    );
    let password = "grant_type=password&username=ann&password=correct+horse";
    let granted = rig.form(&endpoint, Some(&client), password).await;
    assert_eq!(granted.text("scope"), "read write");
    let refresh = |token: String, scope: &str| format!("grant_type=refresh_token&refresh_token={token}{scope}");
    let narrowed = rig.form(&endpoint, Some(&client), &refresh(granted.text("refresh_token"), "&scope=read")).await;
    assert_eq!(
        (narrowed.text("scope"), &claims(&narrowed.text("access_token"))["scope"]),
        ("read".to_owned(), &json!("read"))
    );
    let exceeding = refresh(narrowed.text("refresh_token"), "&scope=read+admin");
    assert_eq!(rig.form(&endpoint, Some(&client), &exceeding).await.error(), (400, "invalid_scope"));
    // RFC 6749 6: the new refresh token has the scope of the one before
    let again = rig.form(&endpoint, Some(&client), &refresh(narrowed.text("refresh_token"), "")).await;
    assert_eq!(again.text("scope"), "read write");
}

#[tokio::test]
async fn a_refresh_token_is_its_clients_alone() {
    let rig = Rig::start().await;
    rig.add(Subject::client("other"), "other secret", &[], &["read", "write"]).await;
    let endpoint = token_endpoint();
    let (theirs, others) = (basic(CLIENT), basic(("other", "other secret")));
    let password = "grant_type=password&username=ann&password=correct+horse";
    let bound = rig.form(&endpoint, Some(&theirs), password).await;
    assert_eq!(claims(&bound.text("access_token"))["client_id"], "api");
    let free = rig.form(&endpoint, None, password).await;
    let by_login = rig.post(&super::endpoint(Action::ClientLogin), Some(&theirs), &json!(null)).await;
    for (name, token, client, expected) in [
        ("bound, without its client", &bound, None, (400, "invalid_grant")),
        ("bound, by another client", &bound, Some(&others), (400, "invalid_grant")),
        ("bound, by its client", &bound, Some(&theirs), (200, "")),
        ("a user's own, by a client", &free, Some(&theirs), (400, "invalid_grant")),
        ("a user's own, without a client", &free, None, (200, "")),
        ("a client's own, by another", &by_login, Some(&others), (400, "invalid_grant")),
        ("a client's own, without a client", &by_login, None, (400, "invalid_grant")),
        ("a client's own, by itself", &by_login, Some(&theirs), (200, "")),
    ] {
        let body = format!("grant_type=refresh_token&refresh_token={}", token.text("refresh_token"));
        let said = rig.form(&endpoint, client.map(String::as_str), &body).await;
        assert_eq!(said.error(), expected, "{name}");
    }
    let bound = rig.form(&endpoint, Some(&theirs), password).await.text("refresh_token");
    assert_eq!(rig.refreshed(&bound).await.error(), (401, "invalid_token"), "at `refresh`, without its client");
}

/// RFC 9700 2.2, 4.14: a client that is trusted no more is not trusted with what it got before.
#[tokio::test]
async fn what_a_client_got_for_a_user_ends_with_the_client() {
    for (name, removed) in [("disabled, and enabled again", false), ("removed, and another of the same id", true)] {
        let rig = Rig::start().await;
        rig.add(Subject::client("reader"), "reader secret", &["introspect"], &[]).await;
        let reply = json!({"access": "{access}", "refresh": "{refresh}", "token": "{token}"});
        let endpoint = Endpoint { password_grant: true, ..with_reply(Action::OauthToken, &reply) };
        let password = "grant_type=password&username=ann&password=correct+horse";
        let [bound, free] =
            [rig.form(&endpoint, Some(&basic(CLIENT)), password).await, rig.form(&endpoint, None, password).await];
        let texts = |said: &Said| ["access", "refresh", "token"].map(|member| said.text(member));
        let (theirs, users) = (texts(&bound), texts(&free));
        assert!(claims(&theirs[0])["cv"].is_i64() && claims(&users[0])["cv"].is_null(), "{name}");
        let state = async |[access, refresh, token]: &[String; 3]| {
            let mut state = vec![rig.accepts(&bearer(access)).await, rig.accepts(&format!("Token {token}")).await];
            for text in [access, refresh, token] {
                let reader = basic(("reader", "reader secret"));
                let asked = json!({ "token": text });
                let described = rig.post(&super::endpoint(Action::Introspect), Some(&reader), &asked).await;
                state.push(described.body["active"] == true);
            }
            state
        };
        assert_eq!((state(&theirs).await, state(&users).await), (vec![true; 5], vec![true; 5]), "{name}");
        let (store, client) = (&rig.service.store, Subject::client(CLIENT.0));
        if removed {
            store.remove_account(client.clone()).await.unwrap();
            rig.add(client.clone(), CLIENT.1, &[], &["read", "write"]).await;
        } else {
            store.set_disabled(client.clone(), true).await.unwrap();
            store.set_disabled(client.clone(), false).await.unwrap();
        }
        rig.service.changes.note(&Change::Subject(client));
        assert_eq!((state(&theirs).await, state(&users).await), (vec![false; 5], vec![true; 5]), "{name}");
        let body = format!("grant_type=refresh_token&refresh_token={}", theirs[1]);
        assert_eq!(rig.form(&endpoint, Some(&basic(CLIENT)), &body).await.error(), (400, "invalid_grant"), "{name}");
    }
}

#[tokio::test]
async fn a_parameter_without_a_value_is_as_one_that_is_not_there() {
    let rig = Rig::start().await;
    let endpoint = token_endpoint();
    let password = "grant_type=password&username=ann&password=correct+horse";
    let proof = basic(CLIENT);
    for (name, credentials, more, expected) in [
        ("both", None, "&client_id=&client_secret=", (200, "")),
        ("the id", None, "&client_id=", (200, "")),
        ("both, beside Basic", Some(&proof), "&client_id=&client_secret=", (200, "")),
        ("the secret alone has one", None, "&client_id=&client_secret=x", (401, "invalid_client")),
        ("the id alone has one", None, "&client_id=api&client_secret=", (401, "invalid_client")),
    ] {
        let said = rig.form(&endpoint, credentials.map(String::as_str), &format!("{password}{more}")).await;
        assert_eq!(said.error(), expected, "{name}");
    }
}

#[tokio::test]
async fn a_retry_at_the_token_endpoint_gets_the_same_tokens() {
    let rig = Rig::start().await;
    let endpoint = token_endpoint();
    let first =
        rig.form(&endpoint, Some(&basic(CLIENT)), "grant_type=password&username=ann&password=correct+horse").await;
    let body = format!("grant_type=refresh_token&scope=read&refresh_token={}", first.text("refresh_token"));
    let answer = rig.form(&endpoint, Some(&basic(CLIENT)), &body).await;
    assert_eq!(answer.text("scope"), "read");
    rig.add(Subject::client("other"), "other secret", &[], &[]).await;
    for thief in [Some(basic(("other", "other secret"))), None] {
        let said = rig.form(&endpoint, thief.as_deref(), &body).await;
        assert_eq!(said.error(), (400, "invalid_grant"), "within the grace, but not its client");
    }
    assert_eq!(rig.form(&endpoint, Some(&basic(CLIENT)), &body).await.body, answer.body);
    rig.clock.advance(Duration::from_secs(11));
    assert_eq!(rig.form(&endpoint, Some(&basic(CLIENT)), &body).await.error(), (400, "invalid_grant"));
    assert!(!rig.accepts(&bearer(&answer.text("access_token"))).await);
}
