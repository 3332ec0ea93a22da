//! `Authorization: Bearer`: JWTs (RFC 6750, RFC 7519, RFC 8725).

use serde_json::{Value, json};

use crate::support::keys::{claims, encode};
use crate::support::{Gateway, HS256, SECRET, Setup, Signer, USERS, Upstream, get, routes, unix_now};

/// The claims of `user`, with one of them changed, or taken out by null.
fn with(name: &str, value: Value) -> Value {
    let mut claims = claims("user");
    if value.is_null() {
        claims.as_object_mut().unwrap().remove(name);
    } else {
        claims[name] = value;
    }
    claims
}

#[test]
fn a_token_of_a_shared_secret_opens_what_its_subject_may() {
    let upstream = Upstream::hello();
    let gateway = Gateway::start(&format!("{USERS}{HS256}{}", routes(&upstream)));
    let signer = Signer::hs256(SECRET);
    for (subject, path, status) in [("user", "/user/x", 200), ("user", "/admin/x", 403), ("admin", "/admin/x", 200)] {
        let response = gateway.send(&get(path).bearer(&signer.good(subject)));
        assert_eq!(response.status, status, "{subject} on {path}");
    }
    let forbidden =
        gateway.send(&get("/admin/x").bearer(&signer.good("user"))).refused(403, "insufficient_permissions");
    assert!(forbidden.header("WWW-Authenticate").unwrap().contains(r#"error="insufficient_scope""#));
    assert_eq!(upstream.last().header("X-Auth-User"), Some("admin"));
    assert_eq!(upstream.last().header("X-Auth-Roles"), Some("admin"));
    assert_eq!(upstream.last().header("X-Auth-Scheme"), Some("bearer"));
    assert_eq!(upstream.last().header("Authorization"), None);
}

#[test]
fn what_does_not_verify_is_refused_and_challenged() {
    let upstream = Upstream::hello();
    let gateway = Gateway::start(&format!("{USERS}{HS256}{}", routes(&upstream)));
    let signer = Signer::hs256(SECRET);
    let good = signer.good("user");
    let segments: Vec<&str> = good.split('.').collect();
    let (header, body, signature) = (segments[0], segments[1], segments[2]);
    let with_header = |header: Value| signer.sign(&header, &claims("user"));
    let admin = encode(claims("admin").to_string());
    for (name, token) in [
        ("one word that is no JWT", "abc".to_owned()),
        ("two segments", format!("{header}.{body}")),
        ("four segments", format!("{good}.{signature}")),
        ("no signature", format!("{header}.{body}.")),
        ("another's signature", format!("{header}.{body}.{}", encode([7; 32]))),
        ("padding", format!("{good}=")),
        ("claims changed behind the signature", format!("{header}.{admin}.{signature}")),
        ("another key", Signer::hs256("another secret of more than 32 bytes!").good("user")),
        ("another algorithm with the right secret", Signer::hs512(SECRET).good("user")),
        ("alg none", format!("{}.{body}.", encode(r#"{"alg":"none","typ":"JWT"}"#))),
        ("alg nOnE", format!("{}.{body}.", encode(r#"{"alg":"nOnE","typ":"JWT"}"#))),
        ("alg none with a signature", format!("{}.{body}.{signature}", encode(r#"{"alg":"none"}"#))),
        ("no alg", with_header(json!({ "typ": "JWT" }))),
        ("an unknown crit", with_header(json!({ "alg": "HS256", "crit": ["x"], "x": 1 }))),
        ("an empty crit", with_header(json!({ "alg": "HS256", "crit": [] }))),
        ("an unknown kid", with_header(json!({ "alg": "HS256", "kid": "k9" }))),
        ("a kid that is a path", with_header(json!({ "alg": "HS256", "kid": "../../dev/null" }))),
        ("a foreign typ", with_header(json!({ "alg": "HS256", "typ": "logout+jwt" }))),
        ("a refresh token's typ", with_header(json!({ "alg": "HS256", "typ": "rt+jwt" }))),
        ("expired", signer.token(&with("exp", json!(unix_now() - 120)))),
        ("no exp", signer.token(&with("exp", Value::Null))),
        ("exp as text", signer.token(&with("exp", json!((unix_now() + 600).to_string())))),
        ("nbf in an hour", signer.token(&with("nbf", json!(unix_now() + 3600)))),
        ("iat in an hour", signer.token(&with("iat", json!(unix_now() + 3600)))),
        ("another issuer", signer.token(&with("iss", json!("https://evil.example")))),
        ("no issuer", signer.token(&with("iss", Value::Null))),
        ("no subject", signer.token(&with("sub", Value::Null))),
        ("an empty subject", signer.token(&with("sub", json!("")))),
        ("a number as subject", signer.token(&with("sub", json!(1)))),
        ("a subject that does not exist", signer.good("ghost")),
        ("a list as claims", signer.token(&json!([]))),
        ("no JSON inside", format!("{}.{}.{}", encode("{"), encode("{"), signature)),
    ] {
        let response = gateway.send(&get("/user/x").bearer(&token));
        assert_eq!(response.status, 401, "{name}: {}", response.text());
        let response = response.refused(401, "invalid_token");
        assert_eq!(response.member("message"), "Invalid or expired token", "{name}");
        let challenges = response.all("WWW-Authenticate");
        assert_eq!(challenges.len(), 1, "{name}");
        assert!(challenges[0].starts_with(r#"Bearer realm="api""#), "{name}: {challenges:?}");
        assert!(challenges[0].contains(r#"error="invalid_token""#), "{name}: {challenges:?}");
        assert!(challenges[0].contains(r#"error_description=""#), "{name}: {challenges:?}");
    }
    assert!(upstream.received().is_empty());
    gateway.send(&get("/user/x").bearer(&good)).expect(200);
}

#[test]
fn both_sides_of_the_leeway() {
    let upstream = Upstream::hello();
    let gateway = Gateway::start(&format!("{USERS}{HS256}{}", routes(&upstream)));
    let signer = Signer::hs256(SECRET);
    // a leeway of 30 s, and some seconds that the request may take
    for (name, claim, seconds, status) in [
        ("exp within", "exp", -15, 200),
        ("exp past", "exp", -45, 401),
        ("nbf within", "nbf", 15, 200),
        ("nbf past", "nbf", 60, 401),
        ("iat within", "iat", 15, 200),
        ("iat past", "iat", 60, 401),
    ] {
        let token = signer.token(&with(claim, json!(unix_now() + seconds)));
        let response = gateway.send(&get("/user/x").bearer(&token));
        assert_eq!(response.status, status, "{name}: {}", response.text());
    }
}

#[test]
fn the_spelling_of_the_field_is_as_the_rfcs_have_it() {
    let upstream = Upstream::hello();
    let gateway = Gateway::start(&format!("{USERS}{HS256}{}", routes(&upstream)));
    let token = Signer::hs256(SECRET).good("user");
    for (value, status) in [
        (format!("bearer {token}"), 200),
        (format!("BEARER   {token}"), 200),
        (format!("Bearer\t{token}"), 401),
        (format!("Bearer {token} more"), 401),
        (format!("Bearer {token}, Basic abc"), 401),
        (format!("Bearer={token}"), 401),
        (token.clone(), 401),
        ("Bearer".to_owned(), 401),
    ] {
        let response = gateway.send(&get("/user/x").authorization(&value));
        assert_eq!(response.status, status, "{value}: {}", response.text());
    }
    // nowhere but in the field
    gateway.send(&get(&format!("/user/x?access_token={token}"))).refused(401, "missing_credentials");
    gateway
        .send(&get("/user/x").header("Cookie", &format!("access_token={token}")))
        .refused(401, "missing_credentials");
}

#[test]
fn every_kind_of_key_of_the_file_verifies() {
    let upstream = Upstream::hello();
    let signers = [Signer::rs256(), Signer::es256(), Signer::eddsa()];
    let keys: Vec<String> = signers
        .iter()
        .map(|signer| {
            let name = signer.algorithm();
            format!("{{ id: {name}, algorithm: {name}, private_key: {name}.pem }}")
        })
        .collect();
    let auth = format!("auth:\n  jwt:\n    keys: [{}]\n", keys.join(", "));
    let setup = Setup::new(&format!("{USERS}{auth}{}", routes(&upstream)));
    for signer in &signers {
        setup.write(&format!("{}.pem", signer.algorithm()), signer.pem());
    }
    let gateway = setup.start();
    for signer in &signers {
        let name = signer.algorithm();
        let header = json!({ "alg": name, "kid": name });
        let good = signer.sign(&header, &claims("user"));
        assert_eq!(gateway.send(&get("/user/x").bearer(&good)).status, 200, "{name}");
        // the public key taken for an HMAC secret
        let confused = Signer::hs256(&signer.public_pem());
        let forged = confused.sign(&json!({ "alg": "HS256", "kid": name }), &claims("admin"));
        assert_eq!(gateway.send(&get("/user/x").bearer(&forged)).status, 401, "{name}");
        // another key of the same kind under this name
        let other = match name {
            "RS256" => Signer::rs256(),
            "ES256" => Signer::es256(),
            _ => Signer::eddsa(),
        };
        let forged = other.sign(&header, &claims("user"));
        assert_eq!(gateway.send(&get("/user/x").bearer(&forged)).status, 401, "{name}");
    }
    // one key's token under the name of another
    let crossed = signers[0].sign(&json!({ "alg": "RS256", "kid": "ES256" }), &claims("user"));
    gateway.send(&get("/user/x").bearer(&crossed)).refused(401, "invalid_token");
}

#[test]
fn a_public_key_verifies_and_signs_nothing() {
    let upstream = Upstream::hello();
    let (rsa, ecdsa) = (Signer::rs256(), Signer::es256());
    let auth = "
auth:
  jwt:
    roles: role
    keys:
      - { id: k1, algorithm: HS256, secret: an-hmac-secret-of-more-than-32-bytes }
      - { id: RS256, algorithm: RS256, public_key: RS256.pem }
      - { id: ES256, algorithm: ES256, public_key: ES256.pem }
";
    let setup = Setup::new(&format!("{USERS}{auth}{}", routes(&upstream)));
    for signer in [&rsa, &ecdsa] {
        setup.write(&format!("{}.pem", signer.algorithm()), signer.public_pem());
    }
    let gateway = setup.start();
    for signer in [&rsa, &ecdsa] {
        let header = json!({ "alg": signer.algorithm(), "typ": "JWT", "kid": signer.algorithm() });
        let token = signer.sign(&header, &with("role", json!("admin")));
        gateway.send(&get("/admin/x").bearer(&token)).expect(200);
        let forged =
            Signer::hs256(&signer.public_pem()).sign(&json!({ "alg": "HS256" }), &with("role", json!("admin")));
        gateway.send(&get("/admin/x").bearer(&forged)).refused(401, "invalid_token");
    }
    let published = gateway.send(&get("/.well-known/jwks.json")).expect(200).json();
    assert_eq!(published["keys"].as_array().unwrap().len(), 2, "{published}");
}

#[test]
fn a_key_in_the_token_chooses_nothing() {
    let upstream = Upstream::hello();
    let gateway = Gateway::start(&format!("{USERS}{}", routes(&upstream)));
    let attacker = Signer::es256();
    let jwk = json!({ "kty": "oct", "k": encode(SECRET), "alg": "HS256" });
    for header in [
        json!({ "alg": "ES256", "jwk": { "kty": "EC", "crv": "P-256", "x": "AA", "y": "AA" } }),
        json!({ "alg": "ES256", "jku": "https://evil.example/jwks.json" }),
        json!({ "alg": "ES256", "x5u": "https://evil.example/cert.pem" }),
    ] {
        let token = attacker.sign(&header, &claims("admin"));
        gateway.send(&get("/admin/x").bearer(&token)).refused(401, "invalid_token");
    }
    let token = Signer::hs256(SECRET).sign(&json!({ "alg": "HS256", "jwk": jwk }), &claims("admin"));
    gateway.send(&get("/admin/x").bearer(&token)).refused(401, "invalid_token");
}

#[test]
fn an_audience_is_required_where_one_is_configured() {
    let upstream = Upstream::hello();
    let auth = "
auth:
  jwt:
    audience: [orders-api, billing-api]
    issuer: https://api.example.com
    keys: [{ id: k1, algorithm: HS256, secret: an-hmac-secret-of-more-than-32-bytes }]
";
    let gateway = Gateway::start(&format!("{USERS}{auth}{}", routes(&upstream)));
    let signer = Signer::hs256(SECRET);
    for (audience, status) in [
        (json!("orders-api"), 200),
        (json!(["x", "billing-api"]), 200),
        (json!("x"), 401),
        (json!(["x", "orders-api2"]), 401),
        (json!([]), 401),
        (json!(7), 401),
        (json!({ "orders-api": 1 }), 401),
        (Value::Null, 401),
    ] {
        let mut claims = with("aud", audience.clone());
        claims["iss"] = json!("https://api.example.com");
        let response = gateway.send(&get("/user/x").bearer(&signer.token(&claims)));
        assert_eq!(response.status, status, "{audience}");
    }
    // what we issue ourselves is accepted by us
    let token = gateway.access("user");
    gateway.send(&get("/user/x").bearer(&token)).expect(200);
}

#[test]
fn roles_can_come_from_a_claim_and_the_subject_from_json_text() {
    let upstream = Upstream::hello();
    let auth = "
auth:
  jwt:
    roles: sub.role
    subject: sub.username
    type: { claim: type, access: access, refresh: refresh }
    require_exp: false
    leeway: 0s
    keys: [{ id: k1, algorithm: HS256, secret: an-hmac-secret-of-more-than-32-bytes }]
";
    let gateway = Gateway::start(&format!("{auth}{}", routes(&upstream)));
    let signer = Signer::hs256(SECRET);
    let token = |subject: &str, kind: &str| {
        let claims = json!({ "iss": "portcullis", "sub": subject, "type": kind });
        signer.sign(&json!({ "alg": "HS256", "typ": "JWT" }), &claims)
    };
    let subject = r#"{"username": "stranger", "role": "admin"}"#;
    for (name, token, path, status) in [
        ("roles from within the text", token(subject, "access"), "/admin/x", 200),
        ("a refresh token", token(subject, "refresh"), "/admin/x", 401),
        ("another type", token(subject, "logout"), "/admin/x", 401),
        ("no JSON text", token("stranger", "access"), "/any/x", 401),
        ("another role", token(r#"{"username": "a", "role": "adm"}"#, "access"), "/admin/x", 403),
        ("no role", token(r#"{"username": "a"}"#, "access"), "/user/x", 403),
    ] {
        let response = gateway.send(&get(path).authorization(&format!("Bearer {token}")));
        assert_eq!(response.status, status, "{name}: {}", response.text());
    }
    assert_eq!(upstream.last().header("X-Auth-User"), Some("stranger"));
}

#[test]
fn tokens_that_a_replaced_system_signed_stay_good() {
    let upstream = Upstream::hello();
    let keys = "keys: [{ id: k1, algorithm: HS256, secret: an-hmac-secret-of-more-than-32-bytes }]";
    let start = |jwt: &str, tokens: &str| {
        let clients = "bootstrap:
  users: [{ name: ann, password: ann-password, roles: [user] }]
  clients: [{ id: app, secret: app-secret, roles: [user] }]";
        Gateway::start(&format!("auth:\n  jwt:\n    {keys}\n{jwt}\n{tokens}\n{clients}\n{}", routes(&upstream)))
    };
    let signer = Signer::hs256(SECRET);
    let now = unix_now();
    let flask = |subject: &str, kind: &str| {
        json!({ "fresh": false, "iat": now, "jti": format!("{subject}{kind}"), "type": kind, "sub": subject,
            "nbf": now, "csrf": "c", "exp": now + 300 })
    };
    let simple = json!({ "token_type": "access", "exp": now + 300, "iat": now, "jti": "j", "user_id": "1" });
    let of_type = |claim: &str| format!("    type: {{ claim: {claim} }}\n    require_iss: false");
    for (name, jwt, tokens, claims, user) in [
        ("flask-jwt-extended", of_type("type"), "", flask("ann", "access"), Some("ann")),
        ("the same, not said to be taken", "    type: { claim: type }".to_owned(), "", flask("ann", "access"), None),
        ("its refresh token", of_type("type"), "", flask("ann", "refresh"), None),
        (
            "its token of a client",
            of_type("type") + "\n    subject_kind: client",
            "",
            flask("app", "access"),
            Some("app"),
        ),
        ("of a client, taken for a user", of_type("type"), "", flask("app", "access"), None),
        (
            "SimpleJWT",
            of_type("token_type") + "\n    subject: user_id",
            "tokens: { claims: { user_id: '{user_id}' } }",
            simple,
            Some("ann"),
        ),
        (
            "PyJWT by hand",
            "    require_iss: false\n    subject: user".to_owned(),
            "",
            json!({ "user": "ann", "exp": now + 300 }),
            Some("ann"),
        ),
        (
            "JSON text in sub",
            of_type("type") + "\n    subject: sub.username\n    roles: sub.role",
            "",
            flask(r#"{"username": "old", "role": "user"}"#, "access"),
            Some("old"),
        ),
    ] {
        let gateway = start(&jwt, tokens);
        let token = signer.sign(&json!({ "alg": "HS256", "typ": "JWT" }), &claims);
        let before = upstream.received().len();
        let response = gateway.send(&get("/user/x").bearer(&token));
        assert_eq!(response.status, if user.is_some() { 200 } else { 401 }, "{name}: {}", response.text());
        match user {
            Some(user) => assert_eq!(upstream.last().header("X-Auth-User"), Some(user), "{name}"),
            None => assert_eq!(upstream.received().len(), before, "{name}"),
        }
    }
}

#[test]
fn a_list_of_roles_and_a_text_of_roles_mean_the_same() {
    let upstream = Upstream::hello();
    let auth = "
auth:
  jwt:
    roles: realm.roles
    keys: [{ id: k1, algorithm: HS256, secret: an-hmac-secret-of-more-than-32-bytes }]
";
    let gateway = Gateway::start(&format!("{auth}{}", routes(&upstream)));
    let signer = Signer::hs256(SECRET);
    for (roles, status) in [
        (json!(["guest", "admin"]), 200),
        (json!("guest admin"), 200),
        (json!("guest,admin"), 200),
        (json!("administrator"), 403),
        (json!(["Admin"]), 403),
        (json!([]), 403),
    ] {
        let token = signer.token(&with("realm", json!({ "roles": roles })));
        let response = gateway.send(&get("/admin/x").bearer(&token));
        assert_eq!(response.status, status, "{roles}: {}", response.text());
    }
}

#[test]
fn without_keys_in_the_file_one_is_made_and_outlives_the_process() {
    let upstream = Upstream::hello();
    let gateway = Gateway::start(&format!("{USERS}{}", routes(&upstream)));
    let token = gateway.access("user");
    assert_eq!(crate::support::keys::header_of(&token)["alg"], "EdDSA");
    assert_eq!(crate::support::keys::header_of(&token)["typ"], "at+jwt");
    gateway.send(&get("/user/x").bearer(&token)).expect(200);
    let setup = gateway.setup.beside();
    drop(gateway);
    setup.start().send(&get("/user/x").bearer(&token)).expect(200);
}
