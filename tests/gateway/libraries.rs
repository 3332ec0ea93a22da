//! The libraries of the replaced APIs themselves, flask-jwt-extended, `SimpleJWT` and `PyJWT`: what the examples issue passes
//! in them, and what they issue passes in the examples, in every layout of claims.

use serde_json::{Value, json};

use crate::support::example::{self, Started};
use crate::support::outside::run_python;
use crate::support::{Connection, Request, Upstream, get, post};

const FLASK: &str = include_str!("libraries/flask_jwt.py");
const SIMPLE: &str = include_str!("libraries/simplejwt.py");
const PYJWT: &str = include_str!("libraries/pyjwt.py");

/// One example, and how its API is talked to.
struct Replaced {
    system: &'static str,
    library: &'static str,
    /// What gives tokens, and the members that they are in.
    login: Request,
    members: (&'static str, Option<&'static str>),
    /// What asks for an access token.
    guarded: &'static str,
    /// What takes a refresh token.
    refresh: Option<fn(&str) -> Request>,
    /// Whom the library finds in a token, and whom the upstream is told of.
    identity: &'static str,
    user: &'static str,
    id: i64,
}

/// Who it is: JSON in a text is the same with other blanks in it.
fn who(said: &Value) -> Value {
    said.as_str().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_else(|| said.clone())
}

#[track_caller]
fn agrees(replaced: &Replaced) {
    let (path, cases) = example::cases();
    let secret = cases["systems"][replaced.system]["fixtures"]["jwt_secret"].as_str().unwrap();
    let upstream = Upstream::hello();
    let gateway = Started::new(replaced.system, &upstream.url(), &path);
    let send = |request: &Request| Connection::plain(gateway.address).send(request);
    let guarded = |token: &str| send(&get(replaced.guarded).bearer(token));

    let issued = send(&replaced.login).expect(200).json();
    let member = |name: &str| issued[name].as_str().unwrap().trim_start_matches("Bearer ").to_owned();
    let mut tokens = json!({ "access": member(replaced.members.0), "foreign": "" });
    if let Some(name) = replaced.members.1 {
        tokens["refresh"] = member(name).into();
    }
    guarded(tokens["access"].as_str().unwrap()).expect(200);
    let ask = |secret: &str, tokens: &Value| -> Value {
        let asked = json!({ "secret": secret, "identity": replaced.identity, "id": replaced.id, "tokens": tokens });
        serde_json::from_str(&run_python(replaced.library, &[&asked.to_string()])).unwrap()
    };
    // one of somebody else's is no good in either
    let others = ask("another-secret-of-more-than-thirty-two-bytes", &json!({}));
    tokens["foreign"] = others["made"]["access"].clone();
    let said = ask(secret, &tokens);

    let (read, identity) = (&said["read"], who(&replaced.identity.into()));
    assert_eq!(who(&read["access"]["access"]), identity, "ours in the library: {said}");
    assert!(read["access"]["refresh"].is_null() && read["foreign"]["access"].is_null(), "{said}");
    if tokens.get("refresh").is_some() {
        assert_eq!(who(&read["refresh"]["refresh"]), identity, "{said}");
        assert!(read["refresh"]["access"].is_null(), "{said}");
    }

    let made = |kind: &str| said["made"][kind].as_str().unwrap().to_owned();
    guarded(&made("access")).expect(200);
    assert_eq!(upstream.last().header("X-Auth-User"), Some(replaced.user));
    guarded(others["made"]["access"].as_str().unwrap()).expect(401);
    if let Some(refresh) = replaced.refresh {
        guarded(&made("refresh")).expect(401);
        send(&refresh(&made("access"))).expect(401);
        let again = send(&refresh(&made("refresh"))).expect(200).json();
        let renewed = again[replaced.members.0].as_str().unwrap().to_owned();
        guarded(&renewed).expect(200);
        assert_eq!(who(&ask(secret, &json!({ "renewed": renewed }))["read"]["renewed"]["access"]), identity);
    }
}

fn by_bearer(token: &str) -> Request {
    post("/refresh").bearer(token)
}

#[test]
fn flask_jwt_extended_and_the_gateway_take_each_others_tokens_of_users() {
    agrees(&Replaced {
        system: "S1a",
        library: FLASK,
        login: post("/login").json(&json!({ "email": "john@example.com", "password": "correct horse" })),
        members: ("access_token", Some("refresh_token")),
        guarded: "/protected",
        refresh: Some(by_bearer),
        identity: "john@example.com",
        user: "john@example.com",
        id: 1,
    });
    agrees(&Replaced {
        system: "S2",
        library: FLASK,
        login: post("/login").json(&json!({ "username": "user1", "password": "password1" })),
        members: ("access_token", None),
        guarded: "/protected",
        refresh: None,
        identity: "user1",
        user: "user1",
        id: 1,
    });
}

#[test]
fn flask_jwt_extended_and_the_gateway_take_each_others_tokens_of_clients() {
    let login = json!({ "client_id": "client-one", "client_secret": "client-one-secret/+=~" });
    agrees(&Replaced {
        system: "S0",
        library: FLASK,
        login: post("/generate-token").json(&login),
        members: ("access_token", Some("refresh_token")),
        guarded: "/protected",
        refresh: Some(by_bearer),
        identity: "client-one",
        user: "client-one",
        id: 1,
    });
}

#[test]
fn flask_jwt_extended_and_the_gateway_take_each_others_tokens_with_json_in_the_subject() {
    for (system, guarded) in [("S4c", "/auth/jwt-user"), ("S4d", "/auth/combined-user")] {
        agrees(&Replaced {
            system,
            library: FLASK,
            login: post("/auth/get_jwt_token").json(&json!({ "username": "user", "password": "userpassword" })),
            members: ("access_token", None),
            guarded,
            refresh: None,
            identity: r#"{"username": "user", "role": "user"}"#,
            user: "user",
            id: 1,
        });
    }
}

#[test]
fn simplejwt_and_the_gateway_take_each_others_tokens() {
    agrees(&Replaced {
        system: "S1b",
        library: SIMPLE,
        login: post("/api/token/").json(&json!({ "username": "jane@example.com", "password": "pa:ss:word" })),
        members: ("access", Some("refresh")),
        guarded: "/api/protected/",
        refresh: Some(|token| post("/api/token/refresh/").json(&json!({ "refresh": token }))),
        identity: "jane@example.com",
        user: "jane@example.com",
        id: 2,
    });
}

#[test]
fn pyjwt_and_the_gateway_take_each_others_tokens_with_the_user_in_a_claim_of_its_own() {
    agrees(&Replaced {
        system: "S3",
        library: PYJWT,
        login: get("/login").basic("alice", "password"),
        members: ("token", None),
        guarded: "/protected",
        refresh: None,
        identity: "alice",
        user: "alice",
        id: 1,
    });
}
