//! What attackers put into a JWT that `bearer` does not have (RFC 8725, RFC 7515 4.1 and 10).

use std::time::Instant;

use aws_lc_rs::hmac;
use serde_json::json;

use crate::support::keys::{claims, encode};
use crate::support::{Gateway, HS256, SECRET, Setup, Signer, USERS, Upstream, get, routes, unix_now};

fn gateway() -> (Gateway, Upstream) {
    let upstream = Upstream::hello();
    (Gateway::start(&format!("{USERS}{HS256}{}", routes(&upstream))), upstream)
}

/// With the right secret, whatever the bytes say.
fn signed(header: &str, payload: &str) -> String {
    let input = format!("{}.{}", encode(header), encode(payload));
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    format!("{input}.{}", encode(hmac::sign(&key, input.as_bytes())))
}

#[test]
fn a_header_and_claims_are_read_strictly_even_under_a_good_signature() {
    let (gateway, upstream) = gateway();
    let (header, end) = (r#"{"alg":"HS256"}"#, unix_now() + 600);
    let good = format!(r#"{{"iss":"portcullis","sub":"user","exp":{end}}}"#);
    gateway.send(&get("/user/x").bearer(&signed(header, &good))).expect(200);
    let exp = |exp: &str| format!(r#"{{"iss":"portcullis","sub":"user","exp":{exp}}}"#);
    for (name, header, payload) in [
        ("alg twice", r#"{"alg":"HS256","alg":"none"}"#, good.clone()),
        ("alg twice, escaped", r#"{"alg":"none","\u0061lg":"HS256"}"#, good.clone()),
        ("alg in lower case", r#"{"alg":"hs256"}"#, good.clone()),
        ("alg with a blank", r#"{"alg":"HS256 "}"#, good.clone()),
        ("alg as a list", r#"{"alg":["HS256"]}"#, good.clone()),
        ("alg of a JWE", r#"{"alg":"dir","enc":"A256GCM"}"#, good.clone()),
        ("an unencoded payload", r#"{"alg":"HS256","b64":false,"crit":["b64"]}"#, good.clone()),
        ("an unencoded payload, not said to be critical", r#"{"alg":"HS256","b64":false}"#, good.clone()),
        ("a kid that is a number", r#"{"alg":"HS256","kid":1}"#, good.clone()),
        ("a kid that is SQL", r#"{"alg":"HS256","kid":"' OR 1=1 --"}"#, good.clone()),
        ("a kid that is a command", r#"{"alg":"HS256","kid":"|/bin/true"}"#, good.clone()),
        ("a kid with a NUL", r#"{"alg":"HS256","kid":"k1\u0000"}"#, good.clone()),
        ("text behind the header", r#"{"alg":"HS256"} {"alg":"none"}"#, good.clone()),
        ("a list as header", r#"["HS256"]"#, good.clone()),
        ("the subject twice", header, format!(r#"{{"iss":"portcullis","sub":"guest","sub":"user","exp":{end}}}"#)),
        ("exp twice", header, format!(r#"{{"iss":"portcullis","sub":"user","exp":1,"exp":{end}}}"#)),
        ("text behind the claims", header, format!("{good}{good}")),
        ("exp in the year zero", header, exp("-62167219200")),
        ("exp below all numbers", header, exp("-1e400")),
        ("exp beyond all numbers", header, exp("1e400")),
        ("exp as true", header, exp("true")),
        ("exp as a list", header, exp(&format!("[{end}]"))),
        ("exp as an object", header, exp(&format!(r#"{{"$numberLong":"{end}"}}"#))),
        ("exp as null", header, exp("null")),
        ("iat as text", header, format!(r#"{{"iss":"portcullis","sub":"user","exp":{end},"iat":"0"}}"#)),
        ("nbf as text", header, format!(r#"{{"iss":"portcullis","sub":"user","exp":{end},"nbf":"0"}}"#)),
        ("nbf beyond all numbers", header, format!(r#"{{"iss":"portcullis","sub":"user","exp":{end},"nbf":1e308}}"#)),
        ("iss as a list", header, format!(r#"{{"iss":["portcullis"],"sub":"user","exp":{end}}}"#)),
        ("iss with a blank", header, format!(r#"{{"iss":"portcullis ","sub":"user","exp":{end}}}"#)),
        ("sub as a list", header, format!(r#"{{"iss":"portcullis","sub":["user"],"exp":{end}}}"#)),
        ("sub with a NUL", header, format!(r#"{{"iss":"portcullis","sub":"user\u0000","exp":{end}}}"#)),
        ("sub in another case", header, format!(r#"{{"iss":"portcullis","sub":"User","exp":{end}}}"#)),
        ("a lone surrogate", header, format!(r#"{{"iss":"portcullis","sub":"user","x":"\ud800","exp":{end}}}"#)),
        ("NaN", header, exp("NaN")),
    ] {
        let response = gateway.send(&get("/user/x").bearer(&signed(header, &payload)));
        assert_eq!(response.status, 401, "{name}: {}", response.text());
        response.refused(401, "invalid_token");
    }
    assert_eq!(upstream.received().len(), 1);
}

#[test]
fn a_token_has_one_text() {
    let (gateway, upstream) = gateway();
    let good = signed(r#"{"alg":"HS256"}"#, &claims("user").to_string());
    let (input, signature) = good.rsplit_once('.').unwrap();
    // 32 bytes are 43 characters, whose last two bits say nothing
    let digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let last = digits.find(&signature[42..]).unwrap();
    let respelt = &digits[last + 1..last + 2];
    for (name, token) in [
        ("unused bits", format!("{input}.{}{respelt}", &signature[..42])),
        ("padding", format!("{good}=")),
        ("the other alphabet", good.replace('-', "+").replace('_', "/") + "+"),
        ("a line end", format!("{input}.{}%0a", &signature[..42])),
        ("a dot more", format!("{good}.")),
        ("a dot before", format!(".{good}")),
        ("five parts", format!("{good}.{signature}.{signature}")),
    ] {
        let response = gateway.send(&get("/user/x").bearer(&token));
        assert_eq!(response.status, 401, "{name}: {}", response.text());
    }
    assert!(upstream.received().is_empty());
}

/// `signature + L`, the other spelling of an Ed25519 signature (RFC 8032 5.1.7 forbids it).
fn with_order_added(signature: &[u8]) -> Vec<u8> {
    const ORDER: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let mut forged = signature.to_vec();
    let mut carry = 0;
    for (byte, order) in forged[32..].iter_mut().zip(ORDER) {
        let sum = u16::from(*byte) + u16::from(order) + carry;
        *byte = sum.to_le_bytes()[0];
        carry = sum >> 8;
    }
    forged
}

#[test]
fn signatures_that_are_almost_good_are_not() {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let upstream = Upstream::hello();
    for signer in [Signer::eddsa(), Signer::es256()] {
        let name = signer.algorithm();
        let keys = format!("auth:\n  jwt:\n    keys: [{{ id: k1, algorithm: {name}, private_key: key.pem }}]\n");
        let setup = Setup::new(&format!("{USERS}{keys}{}", routes(&upstream)));
        setup.write("key.pem", signer.pem());
        let gateway = setup.start();
        let good = signer.good("user");
        gateway.send(&get("/user/x").bearer(&good)).expect(200);
        let (input, signature) = good.rsplit_once('.').unwrap();
        let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
        let mut flipped = signature.clone();
        flipped[63] ^= 1;
        for (what, forged) in [
            ("plus the order", with_order_added(&signature)),
            ("zeros", vec![0; 64]),
            ("zero s", [&signature[..32], &[0; 32]].concat()),
            ("zero r", [&[0; 32], &signature[32..]].concat()),
            ("one bit", flipped),
            ("a byte more", [&signature[..], &[0]].concat()),
            ("a byte less", signature[..63].to_vec()),
            ("nothing", Vec::new()),
            ("DER", [&[0x30, 68, 2, 32][..], &signature[..32], &[2, 32], &signature[32..]].concat()),
        ] {
            let response = gateway.send(&get("/user/x").bearer(&format!("{input}.{}", encode(forged))));
            assert_eq!(response.status, 401, "{name} {what}: {}", response.text());
        }
    }
}

#[test]
fn nothing_that_a_token_names_is_fetched_and_nothing_is_slow() {
    // whoever connects to it, it would be the gateway
    let trap = Upstream::hello();
    let (gateway, _upstream) = gateway();
    let url = trap.url();
    for header in [
        json!({ "alg": "HS256", "jku": url }),
        json!({ "alg": "HS256", "x5u": url }),
        json!({ "alg": "HS256", "kid": url }),
        json!({ "alg": "RS256", "jku": url, "kid": "evil" }),
        json!({ "alg": "RS256", "x5c": ["AAAA"], "x5u": url }),
    ] {
        let token = Signer::hs256(SECRET).sign(&header, &json!({ "iss": url, "sub": "user", "exp": unix_now() + 60 }));
        gateway.send(&get("/user/x").bearer(&token)).refused(401, "invalid_token");
    }
    assert_eq!(trap.connections(), 0);
    let deep = format!(r#"{{"alg":"HS256","x":{}{}}}"#, "[".repeat(5_000), "]".repeat(5_000));
    for (name, token) in [
        ("30,000 bytes", "a".repeat(30_000)),
        ("30,000 dots", ".".repeat(30_000)),
        ("a deep header", format!("{}.e30.AAAA", encode(deep))),
        (
            "many members",
            format!(
                "{}.e30.AAAA",
                encode(format!("{{{}}}", (0..1500).map(|n| format!(r#""{n}":0"#)).collect::<Vec<_>>().join(",")))
            ),
        ),
    ] {
        let start = Instant::now();
        let status = gateway.send(&get("/user/x").bearer(&token)).status;
        assert!([401, 431].contains(&status), "{name}: {status}");
        assert!(start.elapsed().as_millis() < 1500, "{name}: {:?}", start.elapsed());
    }
    let huge = gateway.raw(&get("/user/x").bearer(&"a".repeat(1024 * 1024)).to_bytes());
    assert!(huge.starts_with(b"HTTP/1.1 431 "), "a megabyte is not read to its end");
}

#[test]
fn our_own_tokens_of_other_kinds_open_nothing() {
    let upstream = Upstream::hello();
    let gateway = Gateway::start(&format!("tokens: {{ refresh_format: jwt }}\n{USERS}{}", routes(&upstream)));
    let issued = gateway.login("user", "userpassword");
    let refresh = issued["refresh_token"].as_str().unwrap();
    gateway.send(&get("/user/x").bearer(issued["access_token"].as_str().unwrap())).expect(200);
    gateway.send(&get("/user/x").bearer(refresh)).refused(401, "invalid_token");
    gateway.send(&get("/user/x").token(refresh)).refused(401, "invalid_token");
    gateway.send(&get("/user/x").token(issued["access_token"].as_str().unwrap())).refused(401, "invalid_token");
    gateway.send(&get("/user/x").bearer(&gateway.opaque("user"))).refused(401, "invalid_token");
    assert_eq!(upstream.received().len(), 1);
}
