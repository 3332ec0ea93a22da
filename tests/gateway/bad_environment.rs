//! Where the gateway cannot start, it says why in one clear line and ends with 2; where it loses something, it fails closed.

use std::net::TcpListener;

use crate::support::{Setup, USERS, Upstream, eventually, get, post, routes};

/// How a start fails that must.
fn refused(setup: &Setup) -> String {
    let end = setup.try_start().err().expect("it does not start");
    assert_eq!(end.code, Some(2), "{end:?}");
    assert!(!end.stderr.contains("panicked") && !end.stderr.contains("stack backtrace"), "{}", end.stderr);
    end.stderr
}

#[test]
fn a_port_in_use() {
    let upstream = Upstream::hello();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let holder = TcpListener::bind(taken).unwrap();
    let address = holder.local_addr().unwrap().to_string();
    for yaml in [format!("listeners: [{{ address: '{address}' }}]\n"), format!("admin: {{ address: '{address}' }}\n")] {
        let text = refused(&Setup::new(&format!("{yaml}{}", routes(&upstream))));
        assert!(text.contains(&address), "{text}");
    }
}

#[test]
fn a_missing_or_broken_certificate() {
    let upstream = Upstream::hello();
    let tls = "listeners: [{ address: '127.0.0.1:0', tls: { certificates: [{ cert: a.pem, key: a.key }] } }]\n";
    let setup = Setup::new(&format!("{tls}{}", routes(&upstream)));
    assert!(refused(&setup).contains("a.pem"));
    let (one, two) = (crate::support::Certificate::of(&["a"]), crate::support::Certificate::of(&["a"]));
    setup.write("a.pem", &one.cert);
    setup.write("a.key", &two.key);
    let text = refused(&setup);
    assert!(text.contains("a.key") || text.contains("a.pem"), "{text}");
    setup.write("a.pem", "garbage");
    assert!(refused(&setup).contains("a.pem"));
}

#[test]
fn garbage_as_a_configuration() {
    for yaml in ["routes: [", "\u{7}", "just text", "routes: 7\nupstreams: 7\n"] {
        let text = refused(&Setup::new(yaml));
        assert!(text.contains("gateway.yaml:"), "{yaml:?}: {text}");
    }
}

#[test]
fn a_store_that_cannot_be_used() {
    let upstream = Upstream::hello();
    let setup = Setup::new(&format!("store: sqlite:foreign.db\n{}", routes(&upstream)));
    setup.write("foreign.db", "this is no database, whatever its name says".repeat(100));
    assert!(refused(&setup).contains("foreign.db"));
    let setup = Setup::new(&format!("store: sqlite:missing/folder/x.db\n{}", routes(&upstream)));
    assert!(refused(&setup).contains("x.db"));
    let setup = Setup::new(&format!("store: sqlite:folder\n{}", routes(&upstream)));
    std::fs::create_dir(setup.path("folder")).unwrap();
    assert!(refused(&setup).contains("folder"));
}

#[test]
fn a_read_only_place_for_the_store() {
    // root may write anywhere; /proc lets nobody
    let upstream = Upstream::hello();
    let setup = Setup::new(&format!("store: sqlite:/proc/portcullis.db\n{}", routes(&upstream)));
    assert!(refused(&setup).contains("portcullis.db"));
}

#[test]
fn a_locked_store_fails_closed_and_heals() {
    let upstream = Upstream::hello();
    let cache = "auth: { cache: { ttl: 1s, negative_ttl: 1s, stale_if_store_down: 0s } }\n";
    let gateway = Setup::new(&format!("{USERS}{cache}{}", routes(&upstream))).start();
    let request = get("/user/x").basic("user", "userpassword");
    gateway.send(&request).expect(200);
    let token = gateway.opaque("user");
    let path = gateway.setup.path("portcullis.db");
    // another process holds the lock for writing, until it is told to end
    let mut holder = crate::support::outside::python()
        .args([
            "-c",
            "
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=20)
db.execute('begin immediate')
print('locked', flush=True)
sys.stdin.read()
",
        ])
        .arg(&path)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(holder.stdout.as_mut().unwrap()), &mut line).unwrap();
    assert_eq!(line, "locked\n");
    // readers of a write-ahead log may go on; whatever it is, nothing is opened and nothing panics
    let login = crate::support::post("/auth/token")
        .json(&serde_json::json!({ "username": "user", "password": "userpassword" }));
    let refused = gateway.send(&login);
    assert_eq!(refused.status, 503, "{}", refused.text());
    assert!(refused.header("Retry-After").is_some());
    refused.refused(503, "store_unavailable");
    let seen = gateway.send(&get("/user/x").token(&token)).status;
    assert!([200, 503].contains(&seen), "{seen}");
    gateway.send(&get("/user/x").token("pct_x")).expect(401);
    drop(holder.stdin.take());
    holder.wait().unwrap();
    eventually("the store is used again", || match gateway.send(&login).status {
        200 => Ok(()),
        status => Err(status),
    });
}

#[test]
fn a_store_that_cannot_be_written_promises_nothing_and_heals() {
    let upstream = Upstream::hello();
    let yaml = format!(
        "{USERS}auth: {{ cache: {{ ttl: 1s, negative_ttl: 1s }} }}
endpoints:
  - {{ path: /auth/login, action: login }}
  - {{ path: /token, action: login, reply: {{ token: '{{token}}' }} }}
  - {{ path: /refresh, action: refresh }}
  - {{ path: /logout, action: revoke }}
  - {{ path: /register, action: register }}
  - {{ path: /change-password, action: change_password }}
{}",
        routes(&upstream)
    );
    let gateway = Setup::new(&yaml).on_a_disk_that_may_fill_up().start();
    let (token, kept) = (gateway.opaque("user"), gateway.opaque("user"));
    let refresh = gateway.login("user", "userpassword")["refresh_token"].as_str().unwrap().to_owned();
    let account = serde_json::json!({ "username": "user", "password": "userpassword" });
    let new = serde_json::json!({ "username": "ann", "password": "ann-password" });
    let writes = [
        post("/auth/login").json(&account),
        post("/token").json(&account),
        post("/refresh").json(&serde_json::json!({ "refresh_token": refresh })),
        post("/logout").token(&token),
        post("/register").json(&new),
        post("/change-password")
            .basic("user", "userpassword")
            .json(&serde_json::json!({ "password": "userpassword", "new_password": "another-password" })),
    ];
    let wal = gateway.setup.path("portcullis.db-wal");
    let full = || std::fs::metadata(&wal).map_or(0, |wal| wal.len());
    for (name, takes) in [("a full disk", Some(full())), ("a read-only one", Some(0))] {
        gateway.disk_takes(takes);
        // what is in the log already may be written over: until that is used up, what is answered for is kept
        let mut refusals = 0;
        eventually(name, || {
            let answer = gateway.send(&writes[0]);
            refusals = if answer.status == 503 { refusals + 1 } else { 0 };
            if refusals > 2 { Ok(()) } else { Err(answer) }
        });
        for request in &writes {
            let refused = gateway.send(request);
            assert!(refused.header("Retry-After").is_some(), "{name}: {request:?}: {refused:?}");
            refused.refused(503, "store_unavailable");
        }
        // reading goes on, and nobody is let in who may not
        for (request, status) in [
            (get("/user/x").token(&token), 200),
            (get("/user/x").basic("user", "userpassword"), 200),
            (get("/admin/x").token(&token), 403),
            (get("/user/x").basic("user", "another-password"), 401),
            (get("/any/x").basic("ann", "ann-password"), 401),
            (get("/user/x").token("pct_x"), 401),
            (get("/open/x"), 200),
        ] {
            gateway.send(&request).expect(status);
        }
        assert_eq!(gateway.admin("/healthz").status, 200, "{name}");
        gateway.disk_takes(None);
        eventually("the store is written again", || match gateway.send(&writes[0]).status {
            200 => Ok(()),
            status => Err(status),
        });
    }
    assert_eq!(gateway.ended(), None);
    // what was refused was not done, and can be asked for again
    for (request, status) in writes.iter().zip([200, 200, 200, 200, 201, 200]) {
        gateway.send(request).expect(status);
    }
    gateway.send(&get("/user/x").token(&token)).expect(401);
    let setup = gateway.setup.beside();
    gateway.signal("KILL");
    gateway.wait();
    let gateway = setup.start();
    gateway.send(&get("/user/x").token(&kept)).expect(401);
    gateway.send(&get("/any/x").basic("ann", "ann-password")).expect(200);
    gateway.send(&get("/user/x").basic("user", "another-password")).expect(200);
}

#[test]
fn a_store_that_is_removed_opens_nothing() {
    let upstream = Upstream::hello();
    let cache = "auth: { cache: { ttl: 1s, negative_ttl: 1s, stale_if_store_down: 0s } }\n";
    let gateway = Setup::new(&format!("{USERS}{cache}{}", routes(&upstream))).start();
    let token = gateway.opaque("user");
    gateway.send(&get("/user/x").token(&token)).expect(200);
    for file in ["portcullis.db", "portcullis.db-wal", "portcullis.db-shm"] {
        // two of them are there only while it is written to
        drop(std::fs::remove_file(gateway.setup.path(file)));
    }
    // whoever may is let in or told that nobody knows; whoever may not is never let in
    for _ in 0..20 {
        for (request, allowed) in [
            (get("/user/x").token(&token), &[200, 503][..]),
            (get("/user/x").basic("user", "userpassword"), &[200, 503]),
            (get("/user/x").token("pct_x"), &[401, 503]),
            (get("/user/x").basic("user", "wrong"), &[401, 503]),
            (get("/admin/x").token(&token), &[403, 503]),
            (get("/open/x"), &[200]),
        ] {
            let status = gateway.send(&request).status;
            assert!(allowed.contains(&status), "{request:?}: {status}");
        }
    }
    assert_eq!(gateway.ended(), None);
}

#[test]
fn an_unset_variable_and_a_missing_secret() {
    let upstream = Upstream::hello();
    let key = |secret: &str| {
        format!(
            "auth: {{ jwt: {{ keys: [{{ id: k1, algorithm: HS256, secret: {secret} }}] }} }}\n{}",
            routes(&upstream)
        )
    };
    assert!(refused(&Setup::new(&key("'${NO_SUCH_SECRET}'"))).contains("NO_SUCH_SECRET"));
    assert!(refused(&Setup::new(&key("{ file: no-such-file }"))).contains("no-such-file"));
    // an empty secret would let anybody sign
    let setup = Setup::new(&key("'${EMPTY}'")).variable("EMPTY", "");
    refused(&setup);
}
