//! What the upstream is told about the caller, and that no caller can say it themselves (contract 4).

use crate::support::{Gateway, Reply, USERS, Upstream, get, routes};

#[test]
fn a_callers_own_identity_fields_never_pass_in_any_spelling() {
    let upstream = Upstream::hello();
    let gateway = Gateway::start(&format!("{USERS}{}", routes(&upstream)));
    for name in [
        "X-Auth-User",
        "x-auth-user",
        "X-AUTH-ROLES",
        "X-Auth-Scheme",
        "X_Auth_User",
        "x-auth_user",
        "X.Auth.User",
        "X-Auth.Roles",
        "X!Auth-User",
        "X-Forwarded-For",
        "X-Forwarded-Proto",
        "X-Forwarded-Host",
        "X-Forwarded-Port",
        "X-Forwarded-Prefix",
        "Forwarded",
        "X-Real-IP",
        "X-Original-URL",
        "X-Rewrite-URL",
        "X_Forwarded_For",
    ] {
        for path in ["/open/x", "/user/x"] {
            let request = get(path).basic("user", "userpassword").header(name, "admin-evil");
            gateway.send(&request).expect(200);
            let head = upstream.last().head;
            assert!(!head.contains("admin-evil"), "{name} on {path}: {head}");
        }
    }
    // neither by `Connection`, which removes hop-by-hop fields after us
    let request = get("/user/x").basic("user", "userpassword");
    let request = request.header("Connection", "close, X-Auth-User, X-Auth-Roles, X-Forwarded-For, X-Request-Id");
    gateway.send(&request).expect(200);
    let received = upstream.last();
    assert_eq!(received.all("X-Auth-User"), ["user"]);
    assert_eq!(received.all("X-Auth-Roles"), ["user"]);
    assert!(received.header("X-Forwarded-For").is_some() && received.header("X-Request-Id").is_some());
}

#[test]
fn names_and_roles_that_no_field_can_bear_are_encoded() {
    let upstream = Upstream::hello();
    let users = "
bootstrap:
  users:
    - { name: 'jürgen 100%', password: password-1, roles: [user, 'a,b', 'x y'] }
";
    let gateway = Gateway::start(&format!("{users}{}", routes(&upstream)));
    gateway.send(&get("/user/x").basic("jürgen 100%", "password-1")).expect(200);
    let received = upstream.last();
    assert_eq!(received.header("X-Auth-User"), Some("j%C3%BCrgen%20100%25"));
    assert_eq!(received.header("X-Auth-Roles"), Some("user,a%2Cb,x%20y"));
    assert_eq!(received.header("X-Auth-Scheme"), Some("basic"));
}

#[test]
fn the_names_can_be_chosen_one_by_one_or_as_a_known_set() {
    for (setting, user, roles) in [
        ("{ user: Remote_User-Name, roles: X-Groups, scheme: X-How }", None, "X-Groups"),
        ("{ user: X-Who, roles: X-Groups, scheme: X-How }", Some("X-Who"), "X-Groups"),
        ("remote", Some("Remote-User"), "Remote-Groups"),
        ("forwarded", Some("X-Forwarded-User"), "X-Forwarded-Groups"),
        ("consumer", Some("X-Consumer-Username"), "X-Consumer-Groups"),
    ] {
        let upstream = Upstream::hello();
        let setup = crate::support::Setup::new(&format!("{USERS}identity_headers: {setting}\n{}", routes(&upstream)));
        let Some(user) = user else {
            // a name that many servers fold into another one
            setup.cli_plain(&["check", "gateway.yaml"], "").expect(1);
            continue;
        };
        let gateway = setup.start();
        let request = get("/user/x").basic("admin", "adminpassword").header(user, "evil").header(roles, "evil");
        gateway.send(&request).expect(200);
        let received = upstream.last();
        assert_eq!((received.all(user), received.all(roles)), (vec!["admin"], vec!["admin"]), "{setting}");
    }
}

#[test]
fn the_id_of_a_request_is_the_gateways_in_both_directions() {
    let upstream = Upstream::start(|_| Reply::new(200, &[("X-Request-Id", "theirs")], "ok"));
    let gateway = Gateway::start(&format!("{USERS}{}", routes(&upstream)));
    let response = gateway.send(&get("/open/x").header("X-Request-Id", "mine")).expect(200);
    let received = upstream.last();
    let ids: Vec<&str> = received.all("X-Request-Id");
    assert_eq!(ids.len(), 1);
    assert!(!["mine", "theirs"].contains(&ids[0]), "{ids:?}");
    let told: Vec<&str> = response.all("X-Request-Id");
    assert_eq!(told, ids);
}

#[test]
fn the_upstream_is_told_whence_and_how_the_request_came() {
    let upstream = Upstream::hello();
    let gateway = Gateway::start(&format!("{USERS}{}", routes(&upstream)));
    let request = get("/open/x").header("Host", "api.example.com:8443").header("X-Forwarded-For", "6.6.6.6");
    let response = gateway.send(&request).expect(200);
    let received = upstream.last();
    assert_eq!(received.all("X-Forwarded-For"), ["127.0.0.1"]);
    assert_eq!(received.all("X-Forwarded-Proto"), ["http"]);
    assert_eq!(received.all("X-Forwarded-Host"), ["api.example.com:8443"]);
    assert_eq!(received.header("X-Request-Id"), response.header("X-Request-Id"));
    let trace = received.header("traceparent").unwrap();
    assert_eq!(trace.split('-').map(str::len).collect::<Vec<_>>(), [2, 32, 16, 2], "{trace}");
}

#[test]
fn only_a_trusted_proxy_is_believed() {
    let upstream = Upstream::hello();
    let yaml = format!("{USERS}trusted_proxies: [127.0.0.0/8, 10.0.0.0/8]\n{}", routes(&upstream));
    let gateway = Gateway::start(&yaml);
    for (sent, expected) in [
        ("203.0.113.7", "203.0.113.7"),
        ("6.6.6.6, 203.0.113.7", "203.0.113.7"),
        ("203.0.113.7, 10.0.0.1", "203.0.113.7"),
        ("nonsense", "127.0.0.1"),
    ] {
        let request = get("/open/whence").header("X-Forwarded-For", sent).header("X-Forwarded-Proto", "https");
        gateway.send(&request.header("X-Request-Id", "from-proxy-1")).expect(200);
        let received = upstream.last();
        let line = crate::support::eventually("a line of the log", || {
            let lines = gateway.access_log("/open/whence");
            if lines.len() == upstream.received().len() { Ok(lines.last().cloned().unwrap()) } else { Err(lines) }
        });
        assert_eq!(line["address"], expected, "{sent}");
        assert_eq!(received.header("X-Forwarded-Proto"), Some("https"));
        assert_eq!(received.header("X-Request-Id"), Some("from-proxy-1"));
        assert!(received.all("X-Forwarded-For").join(", ").ends_with("127.0.0.1"), "{:?}", received.head);
    }
    let untrusting = Gateway::start(&format!("{USERS}{}", routes(&upstream)));
    let request = get("/open/x").header("X-Request-Id", "mine").header("traceparent", "nonsense");
    let response = untrusting.send(&request).expect(200);
    assert_ne!(response.header("X-Request-Id"), Some("mine"));
    assert_ne!(upstream.last().header("traceparent"), Some("nonsense"));
}
