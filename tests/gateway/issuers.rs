//! `auth.issuers`: tokens that others issued, and a provider that others wrote to issue them.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::support::idp::Idp;
use crate::support::keys::{claims_of, header_of};
use crate::support::{Gateway, HS256, SECRET, Setup, Signer, USERS, Upstream, get, post, routes, unix_now};

/// A gateway that believes `idp`, with more beside.
fn believing(idp: &Idp, upstream: &Upstream, more: &str) -> Setup {
    let issuer = idp.issuer();
    let setup = Setup::new(&format!(
        "{USERS}
auth:
  issuers:
    - issuer: {issuer}
      jwks: {issuer}/jwks
      tls: {{ ca: ca.pem }}
      audience: [orders-api]
      algorithms: [RS256, ES256, EdDSA]
      roles: realm_access.roles
{more}{}",
        routes(upstream)
    ));
    setup.write("ca.pem", &idp.ca);
    setup
}

#[test]
fn tokens_of_a_provider_that_others_wrote_open_what_their_roles_may() {
    let (idp, upstream) = (Idp::start(), Upstream::hello());
    let gateway = believing(&idp, &upstream, "").start();
    for algorithm in ["RS256", "ES256", "EdDSA"] {
        let token = idp.token(algorithm);
        assert_eq!((&header_of(&token)["alg"], &header_of(&token)["typ"]), (&json!(algorithm), &json!("at+jwt")));
        gateway.send(&get("/user/x").bearer(&token)).expect(200);
        assert_eq!(upstream.last().header("X-Auth-User"), Some("robot"));
        assert_eq!(upstream.last().header("X-Auth-Roles"), Some("user"));
        gateway.send(&get("/admin/x").bearer(&token)).refused(403, "insufficient_permissions");
        let (input, _) = token.rsplit_once('.').unwrap();
        let (_, signature) = idp.token(algorithm).rsplit_once('.').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
        gateway.send(&get("/user/x").bearer(&format!("{input}.{signature}"))).refused(401, "invalid_token");
    }
    assert_eq!(idp.fetches(), 1);
    let issuer = idp.issuer();
    assert!(gateway.metric("portcullis_jwks_keys", &[("issuer", &issuer)]) >= 3.0);
    // the same question on the command line
    let token = format!("Bearer {}", idp.token("ES256"));
    let asked = ["explain", "gateway.yaml", "GET", "/user/x", "--authorization", "-", "--json"];
    let said = gateway.setup.cli_plain(&asked, &token).expect(0).json();
    assert_eq!(said["outcome"], "forwarded", "{said}");
}

#[test]
fn keys_are_changed_under_load_without_a_valid_token_refused() {
    const CHANGES: usize = 12;
    let (idp, upstream) = (Idp::start(), Upstream::hello());
    let gateway = believing(&idp, &upstream, "").start();
    let (done, newest) =
        (AtomicBool::new(false), ["RS256", "ES256", "EdDSA", "ES256"].map(|name| (name, AtomicUsize::new(0))));
    let wrong = std::thread::scope(|scope| {
        let callers: Vec<_> = newest
            .iter()
            .map(|(algorithm, newest)| {
                let (idp, gateway, done) = (&idp, &gateway, &done);
                scope.spawn(move || {
                    let mut wrong = Vec::new();
                    while !done.load(Ordering::SeqCst) {
                        let token = idp.token(algorithm);
                        let kid = header_of(&token)["kid"].as_str().unwrap().to_owned();
                        for _ in 0..3 {
                            let response = gateway.send(&get("/user/x").bearer(&token));
                            if response.status != 200 {
                                wrong.push((kid.clone(), response.status, response.text()));
                            }
                        }
                        newest.store(kid.rsplit('-').next().unwrap().parse().unwrap(), Ordering::SeqCst);
                    }
                    wrong
                })
            })
            .collect();
        for change in 1..=CHANGES {
            idp.rotate();
            // nobody's token is older than the last change but one, whose keys are still published
            crate::support::eventually("every caller has used a new key", || {
                let newest = newest.each_ref().map(|(_, newest)| newest.load(Ordering::SeqCst));
                if newest.iter().all(|&newest| newest > change) { Ok(()) } else { Err(newest) }
            });
        }
        done.store(true, Ordering::SeqCst);
        callers.into_iter().flat_map(|caller| caller.join().unwrap()).collect::<Vec<_>>()
    });
    assert!(wrong.is_empty(), "{} refused: {:?}", wrong.len(), wrong.iter().take(3).collect::<Vec<_>>());
    // each change was learnt of by one fetch, or by two where one was under way
    let fetches = usize::try_from(idp.fetches()).unwrap();
    assert!((CHANGES..=2 * CHANGES + 2).contains(&fetches), "{fetches} fetches for {CHANGES} changes");
}

#[test]
fn a_flood_of_unknown_keys_is_one_fetch_and_holds_nobody_up() {
    let (idp, upstream) = (Idp::start(), Upstream::hello());
    let gateway = believing(&idp, &upstream, "limits: { unauthenticated: off }\n").start();
    let good = idp.token("ES256");
    gateway.send(&get("/user/x").bearer(&good)).expect(200);
    let before = idp.fetches();
    let signer = Signer::es256();
    for number in 0..200 {
        let header = json!({ "alg": "ES256", "typ": "at+jwt", "kid": format!("made-up-{number}") });
        let token = signer.sign(&header, &claims_of(&good));
        gateway.send(&get("/user/x").bearer(&token)).refused(401, "invalid_token");
        if number % 50 == 0 {
            gateway.send(&get("/user/x").bearer(&idp.token("RS256"))).expect(200);
        }
    }
    let more = idp.fetches() - before;
    // the pause is ten seconds; a slow machine may get past one
    assert!((1..=3).contains(&more), "{more} fetches");
}

#[test]
fn a_server_whose_certificate_is_not_trusted_gives_no_keys() {
    let (idp, upstream) = (Idp::start(), Upstream::hello());
    let setup = believing(&idp, &upstream, "");
    let another = crate::support::keys::Certificate::of(&["localhost"]);
    setup.write("ca.pem", &another.cert);
    let gateway = setup.start();
    let response = gateway.send(&get("/user/x").bearer(&idp.token("ES256"))).refused(503, "store_unavailable");
    assert!(response.header("Retry-After").is_some());
    assert_eq!(idp.fetches(), 0);
    assert!(upstream.received().is_empty());
    // once it is, it is asked
    setup.write("ca.pem", &idp.ca);
    let token = idp.token("ES256");
    crate::support::eventually("the issuer is believed", || {
        let response = gateway.send(&get("/user/x").bearer(&token));
        if response.status == 200 { Ok(()) } else { Err(response.status) }
    });
}

/// A gateway whose issuer's keys are in a file, and who signs for that issuer.
fn of_file(more: &str, upstream: &Upstream) -> (Gateway, Signer) {
    let signer = Signer::eddsa();
    let setup = Setup::new(&format!(
        "{USERS}
auth:
  jwt:
    keys: [{{ id: k1, algorithm: HS256, secret: {SECRET} }}]
  issuers:
    - issuer: https://idp.example.com
      jwks: keys.json
{more}{}",
        routes(upstream)
    ));
    setup.write("keys.json", signer.jwks("k1").to_string());
    (setup.start(), signer)
}

#[test]
fn claims_with_dots_in_their_names_are_found() {
    let upstream = Upstream::hello();
    let of_us = json!(["user"]);
    for (path, claims) in [
        ("https://api.example.com/roles", json!({ "https://api.example.com/roles": of_us })),
        ("[com.example.roles]", json!({ "com.example.roles": of_us })),
        ("['https://api.example.com/app', roles]", json!({ "https://api.example.com/app": { "roles": of_us } })),
        ("[realm.access, 'a.b']", json!({ "realm.access": { "a.b": "user" } })),
    ] {
        let (gateway, signer) = of_file(&format!("      roles: {path}\n"), &upstream);
        let ask = |more: &Value| {
            let mut token = foreign("ann", json!(["admin"]));
            token.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            gateway.send(&get("/user/x").bearer(&signer.token(&token))).status
        };
        assert_eq!(ask(&claims), 200, "{path}");
        assert_eq!(upstream.last().header("X-Auth-Roles"), Some("user"), "{path}");
        // nothing that is nested where the name has a dot, and nothing of one name where it is nested
        let nested = json!({ "https://api": { "example": { "com/roles": of_us } }, "com": { "example": { "roles": of_us } },
            "https://api.example.com/app.roles": of_us, "realm": { "access": { "a": { "b": "user" } } } });
        assert_eq!(ask(&nested), 403, "{path}");
    }
}

#[test]
fn a_token_is_refused_whose_roles_are_where_no_roles_can_be() {
    let upstream = Upstream::hello();
    let (gateway, signer) = of_file("      roles: realm_access.roles\n", &upstream);
    let ask = |name: &str, realm_access: Value| {
        let mut token = foreign(name, json!(["user"]));
        token["realm_access"] = realm_access;
        gateway.send(&get("/any/x").bearer(&signer.token(&token)))
    };
    for realm_access in [json!({ "roles": ["user"] }), json!({}), Value::Null] {
        ask("ann", realm_access).expect(200);
    }
    for realm_access in [json!("user"), json!(7), json!(["user"]), json!({ "roles": 7 })] {
        ask("bob", realm_access).refused(401, "invalid_token");
    }
}

fn foreign(subject: &str, roles: Value) -> Value {
    let now = unix_now();
    json!({ "iss": "https://idp.example.com", "sub": subject, "iat": now, "exp": now + 600, "roles": roles,
        "jti": format!("{subject} {roles}") })
}

#[test]
fn a_user_of_an_issuer_is_no_user_of_the_store() {
    let upstream = Upstream::hello();
    let (gateway, signer) = of_file("      user_prefix: 'idp:'\n", &upstream);
    let token = signer.token(&foreign("admin", json!(["user"])));
    gateway.send(&get("/user/x").bearer(&token)).expect(200);
    assert_eq!(upstream.last().header("X-Auth-User"), Some("idp:admin"));
    // what our admin may is not what theirs may
    gateway.send(&get("/admin/x").bearer(&token)).refused(403, "insufficient_permissions");
    let change = json!({ "password": "adminpassword", "new_password": "another-password" });
    gateway.send(&post("/auth/change-password").bearer(&token).json(&change)).refused(403, "insufficient_permissions");
    gateway.send(&get("/admin/x").basic("admin", "adminpassword")).expect(200);
    // our admin may be disabled without anything changing for theirs
    gateway.cli(&["user", "disable", "admin"], "").expect(0);
    gateway.send(&get("/any/x").bearer(&token)).expect(200);
    // and the shared secret signs for us alone
    let forged = Signer::hs256(SECRET).token(&foreign("admin", json!(["admin"])));
    gateway.send(&get("/admin/x").bearer(&forged)).refused(401, "invalid_token");
}

#[test]
fn a_token_of_an_issuer_can_be_ended_here() {
    let upstream = Upstream::hello();
    let (gateway, signer) = of_file("", &upstream);
    let [logged_out, revoked, other] = ["a", "b", "c"].map(|name| signer.token(&foreign(name, json!(["user"]))));
    for token in [&logged_out, &revoked, &other] {
        gateway.send(&get("/user/x").bearer(token)).expect(200);
    }
    gateway.send(&post("/auth/logout").bearer(&logged_out)).expect(200);
    gateway.send(&get("/user/x").bearer(&logged_out)).refused(401, "invalid_token");
    gateway.cli(&["token", "revoke", "--stdin"], &revoked).expect(0);
    crate::support::eventually("the other process has heard", || {
        let response = gateway.send(&get("/user/x").bearer(&revoked));
        if response.status == 401 { Ok(()) } else { Err(response.status) }
    });
    gateway.send(&get("/user/x").bearer(&other)).expect(200);
    let forged = Signer::eddsa().token(&foreign("c", json!(["user"])));
    gateway.send(&post("/auth/logout").bearer(&forged)).expect(200);
    gateway.send(&get("/user/x").bearer(&other)).expect(200);
}

#[test]
fn keys_in_a_file_are_read_again_when_it_changes() {
    let upstream = Upstream::hello();
    let (gateway, first) = of_file("", &upstream);
    let (second, claims) = (Signer::eddsa(), foreign("ann", json!(["user"])));
    gateway.send(&get("/user/x").bearer(&first.token(&claims))).expect(200);
    gateway.send(&get("/user/x").bearer(&second.token(&claims))).refused(401, "invalid_token");
    gateway.setup.write("keys.json", second.jwks("k1").to_string());
    crate::support::eventually("the new key is in force", || {
        let response = gateway.send(&get("/user/x").bearer(&second.token(&claims)));
        if response.status == 200 { Ok(()) } else { Err(response.status) }
    });
    gateway.send(&get("/user/x").bearer(&first.token(&claims))).refused(401, "invalid_token");
}

#[test]
fn what_cannot_be_an_issuer_is_told_before_anything_serves() {
    let upstream = Upstream::hello();
    let with = |issuer: &str| format!("{HS256}  issuers:\n    - {{ {issuer} }}\n{}", routes(&upstream));
    let secret = json!({ "keys": [{ "kty": "oct", "k": "c2VjcmV0LWNhbmFyeQ" }] });
    for (issuer, keys, expected) in [
        ("issuer: https://a, jwks: keys.json", Some(secret.to_string()), "a shared secret is for `auth.jwt.keys`"),
        ("issuer: https://a, jwks: keys.json", Some("{}".to_owned()), "it is not a JWK Set"),
        (
            "issuer: https://a, jwks: keys.json",
            Some(r#"{"keys":[]}"#.to_owned()),
            "the file `keys.json` is a JWK Set without a key",
        ),
        ("issuer: https://a, jwks: keys.json", None, "the file `keys.json` cannot be read: there is no such file"),
        ("issuer: https://a, jwks: 'http://a.example/k'", None, "keys are fetched over `https://`"),
    ] {
        let setup = Setup::new(&with(issuer));
        if let Some(keys) = keys {
            setup.write("keys.json", keys);
        }
        let checked = setup.cli_plain(&["check", "gateway.yaml"], "");
        assert!(checked.code == Some(2) || checked.code == Some(1), "{checked:?}");
        let printed = format!("{}{}", checked.stdout, checked.stderr);
        assert!(printed.contains(expected) && !printed.contains("c2VjcmV0"), "{printed}");
    }
}
