//! A reload takes the whole file: listeners come, go and change under load, and what callers are held to (contract 7).

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use rustls::version::{TLS12, TLS13};
use tokio_tungstenite::tungstenite::Message;

use crate::support::keys::Trusting;
use crate::support::upstream::nobody;
use crate::support::{Certificate, Connection, Gate, Gateway, Reply, Setup, Upstream, eventually, get, websocket};

fn rules(upstream: &Upstream) -> String {
    format!(
        "upstreams: {{ api: {{ servers: ['{}'] }} }}\nroutes: [{{ path: /**, allow: anyone, to: api }}]\n",
        upstream.url()
    )
}

fn plain(addresses: &[SocketAddr]) -> String {
    let entries: Vec<_> = addresses.iter().map(|address| format!("{{ address: '{address}' }}")).collect();
    format!("listeners: [{}]\n", entries.join(", "))
}

/// Reloads, and fails where the file was refused.
#[track_caller]
fn accepted(gateway: &Gateway, yaml: &str) {
    let failed = gateway.metric("portcullis_config_reloads_total", &[("result", "failed")]);
    gateway.reload(yaml);
    let now = gateway.metric("portcullis_config_reloads_total", &[("result", "failed")]);
    assert!((failed - now).abs() < 0.1, "{}", gateway.stderr());
}

fn nobody_listens(address: SocketAddr) {
    eventually("the listener is closed", || TcpStream::connect(address).map_or(Ok(()), |_| Err(address)));
}

/// Asks on one connection until it is told that a response is the last; every request is answered.
fn asks_until_told(address: SocketAddr) -> u32 {
    let (mut served, mut connection) = (0, Connection::plain(address));
    loop {
        let response = connection.send(&get("/x"));
        assert_eq!((response.status, response.text().as_str()), (200, "hello"));
        served += 1;
        if response.header("Connection").is_some_and(|value| value.eq_ignore_ascii_case("close")) {
            return served;
        }
    }
}

#[test]
fn no_request_fails_while_listeners_come_and_go() {
    let upstream = Upstream::hello();
    let [stays, comes] = [(); 2].map(|()| nobody());
    let yaml = |addresses: &[SocketAddr]| format!("{}{}", plain(addresses), rules(&upstream));
    let gateway = Gateway::start(&yaml(&[stays]));
    let (done, served) = (AtomicBool::new(false), AtomicU32::new(0));
    std::thread::scope(|scope| {
        for keeps in [true, true, false, false] {
            let (done, served) = (&done, &served);
            scope.spawn(move || {
                let mut connection = Connection::plain(stays);
                while !done.load(Ordering::SeqCst) {
                    if !keeps {
                        connection = Connection::plain(stays);
                    }
                    let response = connection.send(&get("/x"));
                    assert_eq!((response.status, response.text().as_str()), (200, "hello"));
                    assert_eq!(response.header("Connection"), None, "this listener stays");
                    served.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        for round in 0..10 {
            accepted(&gateway, &yaml(&[stays, comes]));
            let callers: Vec<_> = (0..4).map(|_| scope.spawn(move || asks_until_told(comes))).collect();
            eventually("callers at the new listener", || {
                let open = gateway.metric("portcullis_connections", &[("listener", &comes.to_string())]);
                if open > 3.9 { Ok(()) } else { Err(open) }
            });
            accepted(&gateway, &yaml(&[stays]));
            for caller in callers {
                assert!(caller.join().unwrap() > 0, "{round}");
            }
            nobody_listens(comes);
        }
        done.store(true, Ordering::SeqCst);
    });
    assert!(served.load(Ordering::SeqCst) > 100, "{served:?}");
}

#[test]
fn a_removed_listener_finishes_what_it_has_begun() {
    let gate = Gate::default();
    let held = gate.clone();
    let upstream = Upstream::start(move |request| {
        if let Some(reply) = websocket::answer(request) {
            return reply;
        }
        if request.target == "/slow" {
            held.wait();
        }
        Reply::text("hello")
    });
    let [stays, goes] = [(); 2].map(|()| nobody());
    let gateway = Gateway::start(&format!("{}{}", plain(&[stays, goes]), rules(&upstream)));
    let (mut busy, mut idle) = (Connection::plain(goes), Connection::plain(goes));
    let mut session = websocket::open(goes, "/ws", &[]);
    idle.send(&get("/x")).expect(200);
    busy.write(&get("/slow").to_bytes()).unwrap();
    eventually("the request is under way", || {
        upstream.received().into_iter().find(|request| request.target == "/slow").ok_or("none")
    });
    accepted(&gateway, &format!("{}{}", plain(&[stays]), rules(&upstream)));
    nobody_listens(goes);
    gate.open();
    for (connection, sent) in [(&mut busy, true), (&mut idle, false)] {
        if !sent {
            connection.write(&get("/y").to_bytes()).unwrap();
        }
        let response = connection.response("GET").unwrap().expect(200);
        assert_eq!(response.header("Connection"), Some("close"));
        assert!(connection.rest().unwrap().is_empty());
    }
    session.send(Message::text("still here")).unwrap();
    assert_eq!(session.read().unwrap(), Message::text("still here"));
}

#[test]
fn a_listener_that_cannot_be_bound_refuses_the_whole_reload() {
    let upstream = Upstream::hello();
    let [stays, free] = [(); 2].map(|()| nobody());
    let gateway = Gateway::start(&format!("{}{}", plain(&[stays]), rules(&upstream)));
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = holder.local_addr().unwrap();
    let more = "limits: { header_bytes: 4KiB }\n";
    for (yaml, told) in [
        (plain(&[stays, free, taken]), format!("cannot listen on {taken}: address already in use")),
        (
            format!("{}admin: {{ address: '{taken}' }}\n", plain(&[stays, free])),
            format!("cannot listen on {taken} (admin): "),
        ),
    ] {
        gateway.reload(&format!("{yaml}{more}{}", rules(&upstream).replace("/**", "/new")));
        assert!(gateway.stderr().contains(&told), "{told}: {}", gateway.stderr());
        let refused = eventually("the refusal is audited", || {
            let of_this = |line: &&str| line.contains("\"audit\":\"reload_refused\"") && line.contains(&told);
            gateway.stdout().lines().find(of_this).map(str::to_owned).ok_or("not yet")
        });
        assert!(refused.contains(&format!("\"reason\":\"{told}")), "{refused}");
        gateway.send(&get("/old").header("A", &"x".repeat(6000))).expect(200);
        nobody_listens(free);
    }
    drop(holder);
    accepted(&gateway, &format!("{}{}", plain(&[stays, taken]), rules(&upstream)));
    Connection::plain(taken).send(&get("/x")).expect(200);
}

#[test]
fn what_a_listener_speaks_changes_at_its_address() {
    let upstream = Upstream::hello();
    let [changes, https] = [(); 2].map(|()| nobody());
    let tls = |address: SocketAddr| {
        format!("{{ address: '{address}', tls: {{ certificates: [{{ cert: a.pem, key: a.key }}] }} }}")
    };
    let yaml = |entries: &[String]| format!("listeners: [{}]\n{}", entries.join(", "), rules(&upstream));
    let setup = Setup::new(&yaml(&[format!("{{ address: '{changes}' }}")]));
    let certificate = Certificate::of(&["localhost"]);
    setup.write("a.pem", &certificate.cert);
    setup.write("a.key", &certificate.key);
    let gateway = setup.start();
    let mut before = Connection::plain(changes);
    before.send(&get("/x")).expect(200);

    accepted(&gateway, &yaml(&[format!("{{ address: '{changes}', redirect: https }}"), tls(https)]));
    let moved = Connection::plain(changes).send(&get("/x?y")).expect(308);
    assert_eq!(moved.header("Location"), Some(format!("https://localhost:{}/x?y", https.port()).as_str()));
    // who came before is answered as they were promised, once more
    let last = before.send(&get("/x")).expect(200);
    assert_eq!(last.header("Connection"), Some("close"));

    accepted(&gateway, &yaml(&[tls(changes)]));
    let client = Trusting::new();
    let connect = |config: Arc<rustls::ClientConfig>| Connection::tls(changes, "localhost", config);
    connect(client.config(&[&TLS12, &TLS13], &[])).unwrap().send(&get("/x")).expect(200);
    assert_eq!(client.shown(), certificate.der());
    nobody_listens(https);
}

#[test]
fn a_redirect_names_the_port_that_was_picked() {
    let upstream = Upstream::hello();
    let gateway = Gateway::start(&format!(
        "listeners:
  - {{ address: '127.0.0.1:0', redirect: https }}
  - {{ address: '127.0.0.1:0', tls: {{ self_signed: [localhost] }} }}
{}",
        rules(&upstream)
    ));
    let https = gateway.listeners[1].1;
    let moved = gateway.send(&get("/x")).expect(308);
    assert_eq!(moved.header("Location"), Some(format!("https://localhost:{}/x", https.port()).as_str()));
}

#[test]
fn what_callers_are_held_to_is_taken_at_a_reload() {
    let upstream = Upstream::hello();
    let listener = plain(&[nobody()]);
    let yaml = |more: &str| format!("{listener}{more}{}", rules(&upstream));
    let gateway = Gateway::start(&yaml(""));
    let large = get("/x").header("A", &"x".repeat(6000));
    let many = (0..30).fold(get("/x"), |request, number| request.header(&format!("A-{number}"), "x"));
    let mut kept = gateway.connect();
    kept.send(&large).expect(200);
    gateway.send(&many).expect(200);

    accepted(&gateway, &yaml("limits: { header_bytes: 4KiB, headers: 20 }\n"));
    gateway.send(&large).refused(431, "headers_too_large");
    gateway.send(&many).refused(431, "headers_too_large");
    kept.send(&get("/x")).expect(200);

    accepted(&gateway, &yaml("timeouts: { request_header: 300ms, idle: 300ms }\n"));
    gateway.send(&large).expect(200);
    let told = String::from_utf8(gateway.raw(b"GET /x")).unwrap();
    assert!(told.starts_with("HTTP/1.1 408 "), "{told}");
    let mut idle = gateway.connect();
    idle.send(&get("/x")).expect(200);
    assert!(idle.rest().unwrap().is_empty(), "closed, and long before the 75 s of the start");
    assert!(kept.rest().unwrap().is_empty(), "so is one that was there before");

    accepted(&gateway, &yaml("limits: { connections: 2 }\n"));
    let mut two = [gateway.connect(), gateway.connect()];
    for one in &mut two {
        one.send(&get("/x")).expect(200);
    }
    let mut third = gateway.connect();
    third.write(&get("/x").to_bytes()).unwrap();
    let label = gateway.address().to_string();
    let open = gateway.metric("portcullis_connections", &[("listener", &label)]);
    assert!((open - 2.0).abs() < 0.1, "{open}");
    accepted(&gateway, &yaml("limits: { connections: 3 }\n"));
    third.response("GET").unwrap().expect(200);
}

#[test]
fn the_admin_endpoint_moves() {
    let upstream = Upstream::hello();
    let [old, new] = [(); 2].map(|()| nobody());
    let yaml = |address: SocketAddr| format!("admin: {{ address: '{address}' }}\n{}", rules(&upstream));
    let gateway = Gateway::start(&yaml(old));
    let mut scraper = Connection::plain(old);
    scraper.send(&get("/healthz")).expect(200);
    gateway.setup.configure(&yaml(new));
    gateway.signal("HUP");
    nobody_listens(old);
    Connection::plain(new).send(&get("/readyz")).expect(200);
    scraper.send(&get("/metrics")).expect(200);
    // once it was found out what has changed
    eventually("it is counted", || {
        let told = Connection::plain(new).send(&get("/metrics")).expect(200).text();
        if told.contains("portcullis_config_reloads_total{result=\"ok\"} 1") { Ok(()) } else { Err(told) }
    });
}

#[test]
fn what_needs_a_restart_is_told() {
    let upstream = Upstream::hello();
    let yaml =
        |store: &str, workers: u32| format!("store: sqlite:{store}.db\nworkers: {workers}\n{}", rules(&upstream));
    let gateway = Gateway::start(&yaml("one", 2));
    let needed = |key: &str| gateway.metric("portcullis_config_restart_needed", &[("key", key)]) > 0.5;
    let audited = || {
        let text = gateway.stdout();
        let last = text.lines().rfind(|line| line.contains("\"reloaded\"")).map(str::to_owned);
        last.map(|line| serde_json::from_str::<serde_json::Value>(&line).unwrap()["restart_needed"].clone())
    };
    for (round, (store, workers, keys)) in
        [("two", 3, "workers, store"), ("two", 2, "store"), ("two", 2, "store"), ("one", 2, "")].into_iter().enumerate()
    {
        accepted(&gateway, &yaml(store, workers));
        assert_eq!((needed("workers"), needed("store")), (keys.contains("workers"), keys.contains("store")), "{round}");
        eventually("the audit", || match audited() {
            Some(told) if told.as_str().unwrap_or_default() == keys => Ok(()),
            told => Err(told),
        });
        // each time that it is so
        eventually("the warnings", || match gateway.stderr().matches("key=\"store\"").count() {
            warned if warned == (round + 1).min(3) => Ok(()),
            _ => Err(gateway.stderr()),
        });
    }
    assert!(gateway.stderr().contains("not in force before a restart"));
}
