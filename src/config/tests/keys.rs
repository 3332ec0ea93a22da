//! The keys that are read: those of the schema and no others, and nothing that a text can do to their reader.

use super::*;

#[test]
fn every_section_knows_its_keys() {
    let mut wrong = Vec::new();
    for (section, place, message) in [
        ("listener: []", "1:1", "unknown key `listener` in the file"),
        ("listeners:\n  - { adress: 127.0.0.1:1 }", "2:7", "unknown key `adress` in a listener"),
        (
            "listeners:\n  - { address: 127.0.0.1:1, tls: { self_singed: [a] } }",
            "2:36",
            "unknown key `self_singed` in `tls`",
        ),
        ("admin: { addr: 127.0.0.1:1 }", "1:10", "unknown key `addr` in `admin`"),
        ("auth: { relm: a }", "1:9", "unknown key `relm` in `auth`"),
        ("auth: { cache: { tll: 1s } }", "1:18", "unknown key `tll` in `cache`"),
        ("auth: { issuers: [{ isuer: a, jwks: https://a/k }] }", "1:21", "unknown key `isuer` in an issuer"),
        ("auth: { jwt: { isuer: a } }", "1:16", "unknown key `isuer` in `jwt`"),
        ("auth: { jwt: { keys: [{ id: a, algoritm: HS256, secret: b }] } }", "1:32", "unknown key `algoritm` in a key"),
        ("auth: { jwt: { type: { claims: a } } }", "1:24", "unknown key `claims` in `type`"),
        ("tokens: { acess_ttl: 1m }", "1:11", "unknown key `acess_ttl` in `tokens`"),
        ("passwords: { min: 8 }", "1:14", "unknown key `min` in `passwords`"),
        ("identity_headers: { usr: X-A }", "1:21", "unknown key `usr` in `identity_headers`"),
        ("errors: { membre: a }", "1:11", "unknown key `membre` in `errors`"),
        ("errors: { messages: { no_rout: a } }", "1:23", "unknown error code `no_rout`"),
        ("paths: { semi_colon: keep }", "1:10", "unknown key `semi_colon` in `paths`"),
        ("limits: { headrs: 1 }", "1:11", "unknown key `headrs` in `limits`"),
        ("limits: { token_endpoints: { per_acount: off } }", "1:30", "unknown key `per_acount` in `token_endpoints`"),
        ("limits: { unauthenticated: { rat: 1/s } }", "1:30", "unknown key `rat` in `unauthenticated`"),
        ("timeouts: { ilde: 1s }", "1:13", "unknown key `ilde` in `timeouts`"),
        ("endpoints: [{ pth: /a, action: jwks }]", "1:15", "unknown key `pth` in an endpoint"),
        ("log: { acces: off }", "1:8", "unknown key `acces` in `log`"),
        ("bootstrap: { usres: [] }", "1:14", "unknown key `usres` in `bootstrap`"),
        ("bootstrap: { users: [{ name: a, role: b }] }", "1:33", "unknown key `role` in a user"),
        ("bootstrap: { clients: [{ id: a, scope: b }] }", "1:33", "unknown key `scope` in a client"),
    ] {
        let printed = problems_of(section);
        if !printed.contains(&format!("gateway.yaml:{place}: {message}\n")) {
            wrong.push(format!("{section}\nexpected {place}: {message}\n{printed}"));
        }
        assert!(printed.contains("^ did you mean `") || printed.contains("^ expected `"), "{printed}");
    }
    none_wrong(&wrong);
    for (key, section) in [("builtn: echo", "an upstream"), ("servers: [http://a], helth: {}", "an upstream")] {
        let printed = problems(&format!("upstreams: {{ a: {{ {key} }} }}\nroutes: []"));
        assert!(printed.contains(&format!("in {section}\n")), "{printed}");
    }
    let printed = with_route("    allow: anyone\n    method: [GET]\n").unwrap_err().to_string();
    assert!(printed.starts_with("gateway.yaml:6:5: unknown key `method` in a route\n"), "{printed}");
    assert!(printed.contains("did you mean `methods`?"), "{printed}");
}

#[test]
fn the_schema_knows_exactly_the_keys_that_are_read() {
    // what is wrong with the values does not matter here
    drop((load(WHOLE), load(OTHER_WAYS)));
    let mut described = std::collections::BTreeSet::new();
    let mut left = vec![schema::schema()];
    while let Some(value) = left.pop() {
        if let (Some(title), Some(keys)) = (value["title"].as_str(), value["properties"].as_object()) {
            let mut keys: Vec<String> = keys.keys().cloned().collect();
            keys.sort();
            described.insert((title.to_owned(), keys));
            assert_eq!(value["additionalProperties"], false, "{title}");
        }
        match value {
            serde_json::Value::Object(members) => left.extend(members.into_iter().map(|(_, member)| member)),
            serde_json::Value::Array(items) => left.extend(items),
            serde_json::Value::Null
            | serde_json::Value::Bool(_)
            | serde_json::Value::Number(_)
            | serde_json::Value::String(_) => {}
        }
    }
    let read = decode::opened::all();
    let only = |a: &std::collections::BTreeSet<_>, b: &_| a.difference(b).cloned().collect::<Vec<_>>();
    assert_eq!(
        (only(&read, &described), only(&described, &read)),
        (vec![], vec![]),
        "read, but not described; and the other way"
    );
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(200))]
    #[test]
    fn no_text_breaks_the_reader_and_none_shows_the_secret(
        from in 0..WHOLE.len(),
        length in 0_usize..40,
        inserted in r##"[\x20-\x7e\n\t\u{e9}]{0,6}|\$\{|[\[\]{}&*!|>:'"#-]{1,3}"##,
    ) {
        let secret = WHOLE.replace("${API_CLIENT_SECRET}", "canary-canary");
        let (start, rest) = secret.split_at(from.min(secret.len()));
        let rest: String = rest.chars().skip(length).collect();
        let text = format!("{start}{inserted}{rest}");
        if let Err(problems) = load(&text) {
            let printed = problems.to_string();
            // what is left of the secret may stand where nothing says any more that it is one
            let intact = text.contains("secret: canary-canary");
            proptest::prop_assert!(!intact || !printed.contains("canary-canary"), "{}", printed);
            proptest::prop_assert!(problems.count() > 0);
        }
    }
}
