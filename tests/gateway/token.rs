//! `Authorization: Token`: opaque tokens.

use serde_json::json;

use crate::support::{Gateway, HS256, SECRET, Signer, USERS, Upstream, eventually, get, post, routes};

#[test]
fn an_issued_token_opens_what_its_owner_may() {
    let upstream = Upstream::hello();
    let gateway = Gateway::start(&format!("{USERS}{}", routes(&upstream)));
    let body = json!({ "username": "user", "password": "userpassword" });
    let issued = gateway.send(&post("/auth/token").json(&body)).expect(200);
    let token = issued.member("token");
    assert!(token.starts_with("pct_"), "{token}");
    assert_eq!(issued.json()["expires_in"], json!(24 * 3600));
    assert_eq!(issued.header("Cache-Control"), Some("no-store"));

    for value in [format!("Token {token}"), format!("token   {token}"), format!("TOKEN {token}")] {
        gateway.send(&get("/user/x").authorization(&value)).expect(200);
        gateway.send(&get("/admin/x").authorization(&value)).refused(403, "insufficient_permissions");
    }
    assert_eq!(upstream.last().header("X-Auth-User"), Some("user"));
    assert_eq!(upstream.last().header("X-Auth-Scheme"), Some("token"));
}

#[test]
fn a_token_of_the_command_line_is_as_good() {
    let upstream = Upstream::hello();
    let gateway = Gateway::start(&format!("{USERS}{}", routes(&upstream)));
    let token = gateway.opaque("admin");
    gateway.send(&get("/admin/x").token(&token)).expect(200);
}

#[test]
fn what_is_no_token_of_ours_is_refused() {
    let upstream = Upstream::hello();
    let gateway = Gateway::start(&format!("{USERS}{HS256}{}", routes(&upstream)));
    let token = gateway.opaque("user");
    let refresh = gateway.login("user", "userpassword")["refresh_token"].as_str().unwrap().to_owned();
    let flipped = format!("{}{}", &token[..token.len() - 1], if token.ends_with('a') { 'b' } else { 'a' });
    for (name, value) in [
        ("one that was never issued", "pct_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA".to_owned()),
        ("a wrong last character", flipped),
        ("a part of one", token[..20].to_owned()),
        ("one in upper case", token.to_uppercase()),
        ("one with its prefix changed", token.replace("pct_", "pcr_")),
        ("two words", format!("{token} more")),
        ("a JWT", Signer::hs256(SECRET).good("user")),
        ("a refresh token", refresh),
        ("a very long one", "a".repeat(8000)),
        ("SQL", "' OR 1=1 --".to_owned()),
    ] {
        let response = gateway.send(&get("/user/x").token(&value)).refused(401, "invalid_token");
        assert_eq!(response.member("message"), "Invalid or expired token", "{name}");
        assert_eq!(response.all("WWW-Authenticate"), [r#"Token realm="api""#], "{name}");
    }
    gateway.send(&get("/user/x").bearer(&token)).refused(401, "invalid_token");
    assert!(upstream.received().is_empty());
}

#[test]
fn a_token_ends_with_its_time() {
    let upstream = Upstream::hello();
    let gateway = Gateway::start(&format!("{USERS}tokens: {{ opaque_ttl: 2s }}\n{}", routes(&upstream)));
    let body = json!({ "username": "user", "password": "userpassword" });
    let token = gateway.send(&post("/auth/token").json(&body)).expect(200).member("token");
    let ended = eventually("the token expires", || {
        let response = gateway.send(&get("/user/x").token(&token));
        if response.status == 401 { Ok(response) } else { Err(response.status) }
    });
    ended.refused(401, "invalid_token");
}

#[test]
fn a_token_is_stored_only_as_a_digest() {
    let upstream = Upstream::hello();
    let gateway = Gateway::start(&format!("{USERS}{}", routes(&upstream)));
    let tokens = gateway.login("user", "userpassword");
    let secrets = [gateway.opaque("user"), tokens["refresh_token"].as_str().unwrap().to_owned()];
    for file in std::fs::read_dir(gateway.setup.path(".")).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap_or_default();
        for secret in secrets.iter().map(String::as_str).chain(["userpassword"]) {
            let body = secret.trim_start_matches("pct_").trim_start_matches("pcr_");
            let found = bytes.windows(body.len()).any(|window| window == body.as_bytes());
            // the configuration has the bootstrap's passwords
            assert!(!found || bytes.starts_with(b"\nbootstrap:"), "{secret} stands in a file");
        }
    }
}
