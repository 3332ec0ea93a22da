use super::*;

#[tokio::test]
async fn a_refresh_token_is_used_once() {
    for format in [RefreshFormat::Opaque, RefreshFormat::Jwt] {
        let mut rig = Rig::start().await;
        rig.tokens.refresh_format = format;
        let first = rig.logged_in().await;
        let (first_access, first_refresh) = (first.text("access_token"), first.text("refresh_token"));
        assert_eq!(format == RefreshFormat::Jwt, first_refresh.contains('.'));
        let second = rig.refreshed(&first_refresh).await;
        assert_eq!(second.status, 200, "{format:?} {second:?}");
        assert_eq!(second.headers["cache-control"], "no-store");
        let second_refresh = second.text("refresh_token");
        assert_ne!(first_refresh, second_refresh);
        assert_eq!(claims(&first_access)["sid"], claims(&second.text("access_token"))["sid"]);
        assert!(rig.accepts(&bearer(&second.text("access_token"))).await);
        let third = rig.post(&endpoint(Action::Refresh), Some(&bearer(&second_refresh)), &json!(null)).await;
        assert_eq!(third.status, 200, "by Authorization");
        assert!(!rig.accepts(&bearer(&third.text("refresh_token"))).await);
    }
}

#[tokio::test]
async fn a_retry_within_the_grace_gets_the_same_tokens_and_a_later_use_ends_the_family() {
    let rig = Rig::start().await;
    let used = rig.logged_in().await.text("refresh_token");
    let answer = rig.refreshed(&used).await;
    rig.clock.advance(Duration::from_secs(8));
    let retried = rig.refreshed(&used).await;
    assert_eq!((retried.status, &retried.body), (200, &answer.body));
    assert_eq!(rig.service.metrics.refresh_reuse.get(), 0);
    let (access, successor) = (answer.text("access_token"), answer.text("refresh_token"));
    assert!(rig.accepts(&bearer(&access)).await);
    rig.clock.advance(Duration::from_millis(2_001));
    let reused = rig.refreshed(&used).await;
    assert_eq!((reused.error(), reused.text("message").as_str()), ((401, "invalid_token"), "Invalid or expired token"));
    assert!(reused.challenges().concat().contains("error=\"invalid_token\""));
    assert_eq!(rig.service.metrics.refresh_reuse.get(), 1);
    assert_eq!(rig.service.metrics.tokens_revoked.with_label_values(&["refresh"]).get(), 1);
    assert_eq!(rig.refreshed(&successor).await.status, 401);
    assert!(!rig.accepts(&bearer(&access)).await);
    let expected = [
        "login",
        "token_issued",
        "token_refreshed",
        "refresh_repeated",
        "refresh_reused",
        "refresh_failed",
        "refresh_failed",
        "token_refused",
    ];
    assert_eq!(rig.audited(expected.len(), &[&used, &successor, &access]).await, expected);
}

#[tokio::test]
async fn a_use_of_the_successor_ends_the_grace_of_all_before_it() {
    for format in [RefreshFormat::Opaque, RefreshFormat::Jwt] {
        let mut rig = Rig::start().await;
        rig.tokens.refresh_format = format;
        let mut chain = vec![rig.logged_in().await.text("refresh_token")];
        for _ in 0..3 {
            let last = rig.refreshed(chain.last().unwrap()).await;
            assert_eq!(last.status, 200, "{format:?}");
            chain.push(last.text("refresh_token"));
        }
        // the last use may be retried, as often as it takes
        for _ in 0..2 {
            assert_eq!(rig.refreshed(&chain[2]).await.text("refresh_token"), chain[3], "{format:?}");
        }
        assert_eq!(rig.service.metrics.refresh_reuse.get(), 0);
        assert_eq!(rig.refreshed(&chain[1]).await.error(), (401, "invalid_token"), "{format:?}");
        assert_eq!(rig.service.metrics.refresh_reuse.get(), 1);
        for token in &chain {
            assert_eq!(rig.refreshed(token).await.error(), (401, "invalid_token"), "{format:?}");
        }
    }
}

/// Whether a refresh token that was used may be used once more, so long after its use: the store says when that was, so that
/// both sides of the grace can be met to the millisecond.
async fn usable_after(rig: &Rig, used: &str, after_ms: i64) -> bool {
    let standing = rig.service.store.refresh_token(crate::store::digest(used)).await.unwrap();
    let crate::store::RefreshStanding::Used { used_at_ms, .. } = &standing else { panic!("{standing:?}") };
    let asked = Asked {
        auth: &rig.auth,
        tokens: &rig.tokens,
        endpoints: &rig.endpoints,
        address: rig.address.get(),
        request_id: &HeaderValue::from_static("r1"),
        https: true,
        metrics: &rig.metrics,
        proven: &Proven::default(),
    };
    let endpoint = endpoint(Action::Refresh);
    Call { service: &rig.service, endpoint: &endpoint, asked }.usable(&standing, used_at_ms + after_ms).await.is_ok()
}

#[tokio::test]
async fn the_grace_has_an_exact_end() {
    let rig = Rig::start().await;
    for (after_ms, expected) in [(10_000, 200), (10_001, 401)] {
        let used = rig.logged_in().await.text("refresh_token");
        assert_eq!(rig.refreshed(&used).await.status, 200);
        let usable = usable_after(&rig, &used, after_ms).await;
        assert_eq!(usable, expected == 200, "{after_ms}");
        assert_eq!(rig.refreshed(&used).await.status, expected, "{after_ms}");
    }
}

#[tokio::test]
async fn the_grace_is_as_long_as_the_settings_say_and_may_be_none() {
    for (grace_ms, after_ms, expected) in [(3_000, 3_000, true), (3_000, 3_001, false), (0, 0, false), (1, 1, true)] {
        let mut rig = Rig::start().await;
        rig.tokens.refresh_grace = Duration::from_millis(grace_ms);
        let used = rig.logged_in().await.text("refresh_token");
        let answer = rig.refreshed(&used).await;
        assert_eq!(answer.status, 200);
        let usable = usable_after(&rig, &used, after_ms).await;
        assert_eq!(usable, expected, "{after_ms} of {grace_ms} ms");
        // with its family, whoever asks
        let successor = rig.refreshed(&answer.text("refresh_token")).await.status;
        assert_eq!(successor == 200, expected, "{after_ms} of {grace_ms} ms");
    }
}

#[tokio::test]
async fn two_uses_at_once_rotate_once_and_get_one_answer() {
    let rig = Rig::start().await;
    for _ in 0..5 {
        let used = rig.logged_in().await.text("refresh_token");
        let answers = futures_util::future::join_all((0..8).map(|_| rig.refreshed(&used))).await;
        for answer in &answers {
            assert_eq!((answer.status, &answer.body), (200, &answers[0].body));
        }
        assert_eq!(rig.refreshed(&answers[0].text("refresh_token")).await.status, 200);
    }
    assert_eq!(rig.service.metrics.refresh_reuse.get(), 0);
}

#[tokio::test]
async fn a_refresh_token_stays_good_where_the_reply_gives_no_other() {
    let mut rig = Rig::start().await;
    rig.tokens.refresh_ttl = Duration::from_hours(1);
    let token = rig.logged_in().await.text("refresh_token");
    let refresh = with_reply(Action::Refresh, &json!({"access_token": "{access}"}));
    for _ in 0..3 {
        rig.clock.advance(Duration::from_secs(1_000));
        let said = rig.post(&refresh, Some(&bearer(&token)), &json!(null)).await;
        assert_eq!((said.status, said.body.as_object().unwrap().len()), (200, 1));
        assert!(rig.accepts(&bearer(&said.text("access_token"))).await);
    }
    rig.clock.advance(Duration::from_secs(560));
    assert_eq!(rig.post(&refresh, Some(&bearer(&token)), &json!(null)).await.status, 200);
    // the clock goes on by itself meanwhile, on a busy machine for seconds
    rig.clock.advance(Duration::from_secs(41));
    assert_eq!(rig.post(&refresh, Some(&bearer(&token)), &json!(null)).await.error(), (401, "invalid_token"));
}

#[tokio::test]
async fn a_subject_that_is_gone_gets_nothing() {
    for (name, change) in [("disabled", 0), ("removed", 1), ("another password", 2), ("removed and made anew", 3)] {
        let rig = Rig::start().await;
        let store = &rig.service.store;
        let said = rig.logged_in().await;
        let subject = Subject::user("ann");
        match change {
            0 => assert!(store.set_disabled(subject.clone(), true).await.unwrap()),
            2 => assert!(store.set_password(subject.clone(), Secret::new("x".to_owned())).await.unwrap()),
            _ => assert!(store.remove_account(subject.clone()).await.unwrap()),
        }
        if change == 3 {
            rig.add(subject, "another password", &["user"], &[]).await;
        }
        let refused = rig.refreshed(&said.text("refresh_token")).await;
        assert_eq!(refused.error(), (401, "invalid_token"), "{name}");
    }
}

#[tokio::test]
async fn what_is_no_refresh_token_is_refused() {
    let rig = Rig::start().await;
    let said = rig.logged_in().await;
    let refresh = endpoint(Action::Refresh);
    let (access, good) = (said.text("access_token"), said.text("refresh_token"));
    for (name, token) in [
        ("an access token", access.as_str()),
        ("nothing", ""),
        ("one segment", "abc"),
        ("one character less", good.strip_suffix(|_: char| true).unwrap()),
        ("an unknown one", crate::wire::opaque::mint(crate::wire::opaque::OpaqueKind::Refresh).unwrap().expose()),
        ("an opaque one", crate::wire::opaque::mint(crate::wire::opaque::OpaqueKind::Token).unwrap().expose()),
        ("dots", ".."),
    ] {
        assert_eq!(rig.refreshed(token).await.error(), (401, "invalid_token"), "{name}");
    }
    for (name, authorization, body, expected) in [
        ("nothing at all", None, json!(null), (401, "missing_credentials")),
        ("an empty object", None, json!({}), (400, "invalid_request")),
        ("a number", None, json!({"refresh_token": 1}), (400, "invalid_request")),
        ("null", None, json!({"refresh_token": null}), (400, "invalid_request")),
        ("a list", None, json!({"refresh_token": [good]}), (400, "invalid_request")),
        ("Basic", Some(basic(ANN)), json!(null), (401, "unsupported_scheme")),
        ("two words", Some("Bearer a b".to_owned()), json!(null), (401, "invalid_token")),
        ("the member goes before a stale token", Some(bearer(&access)), json!({"refresh_token": good}), (200, "")),
    ] {
        assert_eq!(rig.post(&refresh, authorization.as_deref(), &body).await.error(), expected, "{name}");
    }
}

#[tokio::test]
async fn refresh_tokens_of_the_replaced_system_are_taken_over() {
    let mut jwt = JwtSettings::of("portcullis");
    jwt.token_type = by_claim();
    jwt.keys = Some(Arc::new(hs256()));
    let rig = Rig::with(jwt).await;
    let now = rig.clock.unix();
    let made = |changed: Value| {
        let mut claims = json!({"iss": "portcullis", "sub": "ann", "type": "refresh", "jti": "old-1", "iat": now - 10,
            "exp": now + 1_000});
        claims.as_object_mut().unwrap().extend(changed.as_object().unwrap().clone());
        claims.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        hs256().sign("JWT", claims.as_object().unwrap()).unwrap()
    };
    let store = &rig.service.store;
    store.revoke_jwt("gone".into(), now + 10_000).await.unwrap();
    rig.add(Subject::user("eve"), "correct horse", &[], &[]).await;
    assert!(store.set_disabled(Subject::user("eve"), true).await.unwrap());
    let mut told = 0;
    for (name, changed, reason, whose) in [
        ("an access token", json!({"type": "access"}), "wrong_type", json!("ann")),
        ("one without an end", json!({"exp": null}), "missing_claim", json!("ann")),
        ("one that ended", json!({"exp": now - 900}), "expired", json!("ann")),
        ("one that ended, within the leeway", json!({"exp": now - 1}), "expired", json!("ann")),
        ("one that was revoked", json!({"jti": "gone"}), "revoked", json!("ann")),
        ("one of who is disabled", json!({"sub": "eve"}), "disabled", json!("eve")),
        ("one of somebody else", json!({"sub": "ghost"}), "unknown_subject", json!("ghost")),
        ("one of ours that the store does not know", json!({"sv": 1}), "unknown", json!("ann")),
        ("one of another issuer", json!({"iss": "other"}), "wrong_issuer", Value::Null),
    ] {
        assert_eq!(rig.refreshed(&made(changed)).await.error(), (401, "invalid_token"), "{name}");
        told += 1;
        let event = rig.last_told(told).await;
        assert_eq!((&event["audit"], &event["reason"]), (&json!("refresh_failed"), &json!(reason)), "{name}");
        assert_eq!(event["subject"], whose, "{name}");
    }
    let old = made(json!({}));
    let answers = futures_util::future::join_all((0..4).map(|_| rig.refreshed(&old))).await;
    for answer in &answers {
        assert_eq!((answer.status, &answer.body), (200, &answers[0].body));
    }
    let successor = answers[0].text("refresh_token");
    rig.clock.advance(Duration::from_secs(11));
    assert_eq!(rig.refreshed(&old).await.status, 401);
    assert_eq!(rig.refreshed(&successor).await.status, 401);
    let revoked = made(json!({"jti": "old-2"}));
    let said = rig.post(&endpoint(Action::Revoke), None, &json!({"token": revoked})).await;
    assert_eq!(said.status, 200);
    assert_eq!(rig.refreshed(&revoked).await.status, 401);
}
