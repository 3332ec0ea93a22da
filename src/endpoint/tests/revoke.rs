use super::*;

#[tokio::test]
async fn a_log_out_ends_all_that_was_issued_with_the_token() {
    let rig = Rig::start().await;
    let all = json!({"access": "{access}", "refresh": "{refresh}", "token": "Token {token}"});
    let (login, revoke) = (with_reply(Action::Login, &all), endpoint(Action::Revoke));
    for by in ["access", "token"] {
        let said = rig.post(&login, Some(&basic(ANN)), &json!(null)).await;
        let (access, token) = (bearer(&said.text("access")), said.text("token"));
        assert!(rig.accepts(&access).await && rig.accepts(&token).await);
        let out = rig.post(&revoke, Some(if by == "access" { &access } else { &token }), &json!(null)).await;
        assert_eq!((out.status, &out.body), (200, &json!({})), "{by}");
        assert!(!rig.accepts(&access).await, "{by}");
        assert!(!rig.accepts(&token).await, "{by}");
        assert_eq!(rig.refreshed(&said.text("refresh")).await.status, 401, "{by}");
    }
    assert_eq!(rig.service.metrics.tokens_revoked.with_label_values(&["access"]).get(), 1);
    assert_eq!(rig.service.metrics.tokens_revoked.with_label_values(&["token"]).get(), 1);
}

/// A log-out is often the first thing that a caller does after a long time.
#[tokio::test]
async fn a_log_out_with_a_token_whose_time_is_over_ends_what_was_issued_with_it() {
    let (rig, revoke) = (Rig::start().await, endpoint(Action::Revoke));
    let said = rig.logged_in().await;
    let (text, refresh) = (said.text("access_token"), said.text("refresh_token"));
    rig.clock.advance(Duration::from_hours(1));
    assert!(!rig.accepts(&bearer(&text)).await);
    let refreshed = rig.refreshed(&refresh).await;
    let later = bearer(&refreshed.text("access_token"));
    let (signed, signature) = text.rsplit_once('.').unwrap();
    let forged = format!("{signed}.{}", signature.chars().rev().collect::<String>());
    for (name, authorization, body) in [
        ("by whoever made one up", Some(bearer(&forged)), json!(null)),
        ("as a token that is to end alone (RFC 7009)", None, json!({ "token": text })),
    ] {
        assert_eq!(rig.post(&revoke, authorization.as_deref(), &body).await.status, 200, "{name}");
        assert!(rig.accepts(&later).await, "{name}");
    }
    assert_eq!(rig.post(&revoke, Some(&bearer(&text)), &json!(null)).await.status, 200);
    assert!(!rig.accepts(&later).await);
    assert_eq!(rig.refreshed(&refreshed.text("refresh_token")).await.status, 401);
}

#[tokio::test]
async fn a_token_without_a_family_ends_alone() {
    let rig = Rig::start().await;
    let login = with_reply(Action::Login, &json!({"access": "{access}"}));
    let (one, two) = (
        bearer(&rig.post(&login, Some(&basic(ANN)), &json!(null)).await.text("access")),
        bearer(&rig.post(&login, Some(&basic(ANN)), &json!(null)).await.text("access")),
    );
    assert!(rig.accepts(&one).await && rig.accepts(&two).await);
    assert_eq!(rig.post(&endpoint(Action::Revoke), Some(&one), &json!(null)).await.status, 200);
    assert!(!rig.accepts(&one).await);
    assert!(rig.accepts(&two).await);
}

#[tokio::test]
async fn a_named_refresh_token_ends_its_family_and_a_named_access_token_itself() {
    for format in [RefreshFormat::Opaque, RefreshFormat::Jwt] {
        let mut rig = Rig::start().await;
        rig.tokens.refresh_format = format;
        let revoke = endpoint(Action::Revoke);
        let said = rig.logged_in().await;
        let (access, refresh) = (said.text("access_token"), said.text("refresh_token"));
        assert_eq!(rig.form(&revoke, None, &format!("token={access}&token_type_hint=refresh_token")).await.status, 200);
        assert!(!rig.accepts(&bearer(&access)).await);
        let said = rig.refreshed(&refresh).await;
        assert_eq!(said.status, 200);
        let (access, refresh) = (said.text("access_token"), said.text("refresh_token"));
        assert!(rig.accepts(&bearer(&access)).await);
        assert_eq!(rig.post(&revoke, None, &json!({"token": refresh})).await.status, 200);
        assert!(!rig.accepts(&bearer(&access)).await);
        assert_eq!(rig.refreshed(&refresh).await.status, 401);
        assert_eq!(rig.post(&revoke, None, &json!({"token": refresh})).await.status, 200, "twice");
    }
}

#[tokio::test]
async fn what_is_unknown_has_ended_and_what_is_missing_is_named() {
    let rig = Rig::start().await;
    let said = rig.logged_in().await;
    let revoke = endpoint(Action::Revoke);
    let (good, bad) = (basic(CLIENT), basic(("api", "wrong")));
    let token = json!({"token": said.text("refresh_token")});
    for (name, authorization, body, expected) in [
        ("garbage", None, json!({"token": "abc"}), (200, "")),
        ("a broken JWT", None, json!({"token": "a.b.c"}), (200, "")),
        ("garbage as Authorization", Some("Token abc"), json!(null), (200, "")),
        ("nothing", None, json!(null), (400, "invalid_request")),
        ("an empty token", None, json!({"token": ""}), (400, "invalid_request")),
        ("a number", None, json!({"token": 7}), (400, "invalid_request")),
        ("a client that is none", Some(&*bad), token.clone(), (401, "invalid_client")),
        ("an id without a secret", None, json!({"token": "x", "client_id": "api"}), (401, "invalid_client")),
        ("a client, of a token of nobody's client", Some(&*good), token, (200, "")),
    ] {
        assert_eq!(rig.post(&revoke, authorization, &body).await.error(), expected, "{name}");
    }
}

#[tokio::test]
async fn a_client_ends_no_other_clients_tokens() {
    let rig = Rig::start().await;
    rig.add(Subject::client("other"), "other secret", &[], &[]).await;
    let granting = Endpoint { password_grant: true, ..endpoint(Action::OauthToken) };
    let said =
        rig.form(&granting, Some(&basic(CLIENT)), "grant_type=password&username=ann&password=correct+horse").await;
    let revoke = endpoint(Action::Revoke);
    let others = basic(("other", "other secret"));
    for member in ["access_token", "refresh_token"] {
        let token = json!({"token": said.text(member)});
        assert_eq!(rig.post(&revoke, Some(&others), &token).await.error(), (400, "invalid_grant"), "{member}");
        assert!(rig.accepts(&bearer(&said.text("access_token"))).await, "{member}");
    }
    assert_eq!(
        rig.post(&revoke, Some(&basic(CLIENT)), &json!({"token": said.text("refresh_token")})).await.status,
        200
    );
    assert!(!rig.accepts(&bearer(&said.text("access_token"))).await);

    // nor what another client got for itself, of whatever form
    let all =
        with_reply(Action::ClientLogin, &json!({"access": "{access}", "refresh": "{refresh}", "token": "{token}"}));
    let said = rig.post(&all, Some(&basic(CLIENT)), &json!(null)).await;
    for member in ["access", "token", "refresh"] {
        let token = json!({"token": said.text(member)});
        assert_eq!(rig.post(&revoke, Some(&others), &token).await.error(), (400, "invalid_grant"), "{member}");
    }
    for (member, scheme) in [("access", "Bearer"), ("token", "Token")] {
        assert!(rig.accepts(&format!("{scheme} {}", said.text(member))).await, "{member}");
    }
    for member in ["access", "token", "refresh"] {
        let token = json!({"token": said.text(member)});
        assert_eq!(rig.post(&revoke, Some(&basic(CLIENT)), &token).await.error(), (200, ""), "{member}");
    }
}

/// Some APIs want the claim in every token.
#[tokio::test]
async fn a_token_of_nobodys_client_is_its_holders_to_end_whatever_its_claims_say() {
    let mut rig = Rig::start().await;
    rig.tokens.claims = Claims::compile(json!({"client_id": "api"}).as_object().unwrap().clone()).unwrap();
    let access = rig.logged_in().await.text("access_token");
    assert_eq!(claims(&access)["client_id"], "api");
    assert!(rig.accepts(&bearer(&access)).await);
    assert_eq!(rig.post(&endpoint(Action::Revoke), None, &json!({"token": access})).await.status, 200);
    assert!(!rig.accepts(&bearer(&access)).await);
}

/// RFC 7009 2.1: its client is asked for first.
#[tokio::test]
async fn a_clients_token_is_ended_by_its_client_or_by_its_holder_at_a_log_out() {
    let rig = Rig::start().await;
    let all = json!({"access_token": "{access}", "refresh_token": "{refresh}", "token": "{token}"});
    let granting = Endpoint { password_grant: true, ..with_reply(Action::OauthToken, &all) };
    let revoke = endpoint(Action::Revoke);
    let of_user = "grant_type=password&username=ann&password=correct+horse";
    let mut told = 0;
    for (grant, owner) in [(of_user, ("user", "ann")), ("grant_type=client_credentials", ("client", "api"))] {
        let said = rig.form(&granting, Some(&basic(CLIENT)), grant).await;
        let credentials = [bearer(&said.text("access_token")), format!("Token {}", said.text("token"))];
        told += 1;
        for member in ["access_token", "token", "refresh_token"] {
            let token = json!({"token": said.text(member)});
            let refused = rig.post(&revoke, None, &token).await;
            assert_eq!(refused.error(), (401, "invalid_client"), "{owner:?} {member}");
            // a token of the same client is not its secret
            let refused = rig.post(&revoke, Some(&credentials[0]), &token).await;
            assert_eq!(refused.error(), (401, "invalid_client"), "{owner:?} {member}");
            told += 2;
            let event = rig.last_told(told).await;
            assert_eq!((&event["audit"], &event["reason"]), (&json!("revocation_refused"), &json!("wrong_client")));
            assert_eq!(
                (&event["kind"], &event["subject"], &event["client"]),
                (&json!(owner.0), &json!(owner.1), &json!("api"))
            );
        }
        for credential in &credentials {
            assert!(rig.accepts(credential).await, "{owner:?}");
        }
        let refreshing = format!("grant_type=refresh_token&refresh_token={}", said.text("refresh_token"));
        let renewed = rig.form(&granting, Some(&basic(CLIENT)), &refreshing).await;
        assert_eq!(renewed.status, 200, "{owner:?}: {renewed:?}");
        assert_eq!(rig.post(&revoke, Some(&credentials[1]), &json!(null)).await.status, 200, "{owner:?}");
        assert!(!rig.accepts(&credentials[1]).await, "{owner:?}");
        // the refresh, the log-out, and the token refused
        told += 3;
    }
    rig.last_told(told).await;
}

#[tokio::test]
async fn introspection_is_for_clients_with_its_role() {
    let rig = Rig::start().await;
    rig.add(Subject::client("reader"), "reader secret", &["introspect"], &[]).await;
    let (introspect, reader) = (endpoint(Action::Introspect), basic(("reader", "reader secret")));
    let token = json!({"token": "abc"});
    for (name, authorization, body, expected) in [
        ("nobody", None, &token, (401, "invalid_client")),
        ("a user", Some(basic(ANN)), &token, (401, "invalid_client")),
        ("a client without the role", Some(basic(CLIENT)), &token, (403, "insufficient_permissions")),
        ("no token", Some(reader.clone()), &json!({}), (400, "invalid_request")),
        ("a number", Some(reader.clone()), &json!({"token": 1}), (400, "invalid_request")),
        ("an unknown token", Some(reader.clone()), &token, (200, "")),
    ] {
        let said = rig.post(&introspect, authorization.as_deref(), body).await;
        assert_eq!(said.error(), expected, "{name}");
        if said.status == 200 {
            assert_eq!(said.body, json!({"active": false}));
        }
    }
}

#[tokio::test]
async fn a_token_is_described_while_it_holds() {
    let rig = Rig::start().await;
    rig.add(Subject::client("reader"), "reader secret", &["introspect"], &[]).await;
    let (introspect, reader) = (endpoint(Action::Introspect), basic(("reader", "reader secret")));
    let all = json!({"access": "{access}", "refresh": "{refresh}", "token": "{token}"});
    let said = rig.post(&with_reply(Action::ClientLogin, &all), Some(&basic(CLIENT)), &json!(null)).await;
    for (member, token_type, ttl) in
        [("access", "Bearer", 900), ("token", "Token", 86_400), ("refresh", "refresh_token", 604_800)]
    {
        let described = rig.post(&introspect, Some(&reader), &json!({"token": said.text(member)})).await.body;
        assert_eq!(described["active"], true, "{member}");
        assert_eq!((&described["sub"], &described["client_id"]), (&json!("api"), &json!("api")), "{member}");
        assert_eq!(
            (&described["token_type"], &described["scope"]),
            (&json!(token_type), &json!("read write")),
            "{member}"
        );
        let left = described["exp"].as_i64().unwrap() - rig.clock.unix();
        assert!((ttl - 60..=ttl).contains(&left), "{member} {left}");
    }
    rig.post(&endpoint(Action::Revoke), Some(&basic(CLIENT)), &json!({"token": said.text("refresh")})).await;
    for member in ["access", "token", "refresh"] {
        let described = rig.post(&introspect, Some(&reader), &json!({"token": said.text(member)})).await.body;
        assert_eq!(described, json!({"active": false}), "{member}");
    }
    let user = rig.logged_in().await;
    let described = rig.post(&introspect, Some(&reader), &json!({"token": user.text("access_token")})).await.body;
    assert_eq!((&described["username"], &described["roles"]), (&json!("ann"), &json!(["admin", "user"])));
    rig.clock.advance(Duration::from_secs(931));
    let described = rig.post(&introspect, Some(&reader), &json!({"token": user.text("access_token")})).await.body;
    assert_eq!(described, json!({"active": false}), "expired");
}

#[tokio::test]
async fn a_refresh_token_can_end_without_the_access_tokens_of_its_family() {
    for format in [RefreshFormat::Opaque, RefreshFormat::Jwt] {
        let mut rig = Rig::start().await;
        rig.tokens.refresh_format = format;
        let revoke = Endpoint { ends: Ends::Refresh, ..endpoint(Action::Revoke) };
        let first = rig.logged_in().await;
        let second = rig.refreshed(&first.text("refresh_token")).await;
        let refresh = second.text("refresh_token");
        assert_eq!(rig.post(&revoke, None, &json!({ "token": refresh })).await.status, 200);
        for said in [&first, &second] {
            assert!(rig.accepts(&bearer(&said.text("access_token"))).await, "{format:?}");
        }
        assert_eq!(rig.refreshed(&refresh).await.status, 401, "{format:?}");
        // an access token ends itself, and at a log-out by `Authorization` all of its session
        let access = bearer(&second.text("access_token"));
        assert_eq!(rig.post(&revoke, Some(&access), &json!(null)).await.status, 200);
        assert!(!rig.accepts(&access).await && !rig.accepts(&bearer(&first.text("access_token"))).await, "{format:?}");
    }
}
