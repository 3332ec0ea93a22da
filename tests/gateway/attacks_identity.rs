//! Attempts to be somebody else that `identity` does not have (contract 4).

use crate::support::client::basic;
use crate::support::{Gateway, Request, USERS, Upstream, get, routes, usual};

#[test]
fn two_credentials_are_none() {
    let (gateway, upstream) = usual();
    let (user, admin) = (basic("user", "userpassword"), basic("admin", "adminpassword"));
    for (first, second) in
        [(&user, &admin), (&admin, &user), (&user, &user), (&admin, &String::new()), (&String::new(), &admin)]
    {
        for path in ["/user/x", "/admin/x", "/any/x"] {
            let request = get(path).authorization(first).header("authorization", second);
            gateway.send(&request).refused(400, "bad_request");
        }
    }
    for value in [format!("{user}, {admin}"), format!("{user} {admin}"), format!("{user},")] {
        assert_eq!(gateway.send(&get("/user/x").authorization(&value)).status, 401, "{value}");
    }
    assert!(upstream.received().is_empty());
}

#[test]
fn a_credential_anywhere_else_is_none() {
    let (gateway, upstream) = usual();
    let token = gateway.opaque("admin");
    let basic = basic("admin", "adminpassword");
    let cases: Vec<Request> = vec![
        get(&format!("/admin/x?token={token}")),
        get(&format!("/admin/x?access_token={token}&authorization=Token%20{token}")),
        get("/admin/x").header("Cookie", &format!("Authorization={basic}; token={token}")),
        get("/admin/x").header("Proxy-Authorization", &basic),
        get("/admin/x").header("X-Authorization", &basic),
        get("/admin/x").header("X-Forwarded-Authorization", &basic),
        get("/admin/x").header("Authorization_", &basic),
        get("/admin/x").header("X-API-Key", &token),
        get("/admin/x").header("Sec-WebSocket-Protocol", &format!("bearer, {token}")),
    ];
    for request in &cases {
        gateway.send(request).refused(401, "missing_credentials");
    }
    // also not in the target's authority
    let answer = gateway.raw(
        b"GET http://admin:adminpassword@localhost/admin/x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    );
    assert!(answer.starts_with(b"HTTP/1.1 400 "), "{}", String::from_utf8_lossy(&answer));
    assert!(upstream.received().is_empty());
}

#[test]
fn a_trailer_says_nothing_of_who_somebody_is() {
    let (gateway, upstream) = usual();
    let answer = gateway.raw(
        format!(
            "POST /user/x HTTP/1.1\r\nHost: a\r\nAuthorization: {}\r\nTransfer-Encoding: chunked\r\nTE: trailers\r\n\
             Trailer: X-Auth-User, Authorization, X-Sum\r\nConnection: close\r\n\r\n3\r\nabc\r\n0\r\nX-Auth-User: admin\r\n\
             Authorization: Basic eDp5\r\nX-Auth_Roles: admin\r\nX-Forwarded-For: 6.6.6.6\r\nHost: b\r\nX-Sum: 1\r\n\r\n",
            basic("user", "userpassword")
        )
        .as_bytes(),
    );
    assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer));
    let received = upstream.last();
    assert_eq!(received.all("X-Auth-User"), ["user"]);
    for (name, _) in &received.trailers {
        assert!(name.eq_ignore_ascii_case("x-sum"), "{name} passed as a trailer");
    }
}

#[test]
fn nor_does_a_trailer_of_a_name_that_was_chosen_for_it() {
    let upstream = Upstream::hello();
    let names = "identity_headers: { user: X-Who, roles: X-What, scheme: How }\n";
    let gateway = Gateway::start(&format!("{USERS}{names}{}", routes(&upstream)));
    for path in ["/user/x", "/open/x"] {
        let answer = gateway.raw(
            format!(
                "POST {path} HTTP/1.1\r\nHost: a\r\nAuthorization: {}\r\nTransfer-Encoding: chunked\r\nTrailer: X-Who, \
                 X-What, How, X-Sum\r\nConnection: close\r\n\r\n3\r\nabc\r\n0\r\nX-Who: admin\r\nx-what: admin\r\nHOW: \
                 bearer\r\nX-Sum: 1\r\n\r\n",
                basic("user", "userpassword")
            )
            .as_bytes(),
        );
        assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer));
        let received = upstream.last();
        assert_eq!(received.trailers, [("x-sum".to_owned(), "1".to_owned())], "{path}");
        let who = if path == "/user/x" { vec!["user"] } else { Vec::new() };
        assert_eq!(received.all("X-Who"), who, "{path}");
    }
}

#[test]
fn identity_fields_in_number_do_not_pass_either() {
    let (gateway, upstream) = usual();
    let mut request = get("/user/x").basic("user", "userpassword");
    for name in ["X-Auth-User", "x-auth-user", "X-Auth-Roles", "X-AUTH-SCHEME"] {
        for _ in 0..10 {
            request = request.header(name, "admin");
        }
    }
    let request = request.header("Connection", "x-auth-user").header("Connection", "X-Auth-Roles, keep-alive");
    gateway.send(&request).expect(200);
    let received = upstream.last();
    let identity = [received.all("X-Auth-User"), received.all("X-Auth-Roles"), received.all("X-Auth-Scheme")];
    assert_eq!(identity, [["user"], ["user"], ["basic"]]);
}
