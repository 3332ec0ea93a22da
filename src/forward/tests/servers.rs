//! Which servers get requests: balance, checks, cool-downs, reloads.

use super::*;

async fn named(name: &'static str) -> Handled {
    Handled::start(Speaks::Http1, move |_| async move { Response::new(Body::full(name)) }).await
}

#[test]
fn requests_go_in_turn() {
    local(async {
        let (a, b) = (named("a").await, named("b").await);
        let bench = Bench::new(vec![server(a.address), server(b.address)]);
        let mut told = String::new();
        for _ in 0..6 {
            told += bench.told(get("/")).await.trim_start_matches("200 ");
        }
        assert!(["ababab", "bababa"].contains(&told.as_str()), "{told}");
    });
}

#[test]
fn a_server_with_a_request_under_way_is_busier_until_its_response_has_ended() {
    local(async {
        let whole = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nslow";
        let part = whole.strip_suffix("ow").unwrap();
        let slow = Upstream::start(vec![vec![Head, say(part), Hold], vec![Head, say(whole), Hold]]).await;
        let fast = named("fast").await;
        let bench = Bench::with(vec![server(slow.address), server(fast.address)], |group| {
            group.balance = Balance::LeastRequests;
        });
        // of two idle ones the turn decides; the second of two requests reaches the slow one at the latest
        let mut held = bench.send(get("/")).await.unwrap();
        if slow.connections() == 0 {
            held = bench.send(get("/")).await.unwrap();
        }
        for _ in 0..4 {
            assert_eq!(bench.told(get("/")).await, "200 fast");
        }
        drop(held);
        let (one, two) = (bench.told(get("/")).await, bench.told(get("/")).await);
        assert_ne!(one, two);
    });
}

fn check() -> HealthCheck {
    HealthCheck {
        path: "/health?deep".into(),
        interval: Duration::from_millis(10),
        timeout: Duration::from_secs(2),
        unhealthy_after: 2,
        healthy_after: 2,
    }
}

#[test]
fn a_server_whose_check_fails_gets_no_requests_until_it_is_back() {
    for protocol in [Protocol::Http1, Protocol::H2c, Protocol::Https] {
        local(async move {
            let status = Rc::new(Cell::new(200_u16));
            let answered = Rc::clone(&status);
            let (acceptor, config) = http2::tls(&[b"h2", b"http/1.1"]);
            let speaks = match protocol {
                Protocol::Http1 => Speaks::Http1,
                Protocol::H2c => Speaks::Http2,
                Protocol::Https => Speaks::Tls(acceptor),
            };
            let upstream = Handled::start(speaks, move |request| {
                let status = if request.uri().path() == "/health" { answered.get() } else { 200 };
                async move { Response::builder().status(status).body(Body::empty()).unwrap() }
            })
            .await;
            let bench = Bench::with(vec![server_of(upstream.address, protocol)], |group| {
                group.health = Some(check());
                group.tls = Some(UpstreamTls {
                    config,
                    server_name: Some("localhost".into()),
                    files: crate::forward::TlsFiles::default(),
                    content: [0; 32],
                });
            });
            let label = server_of(upstream.address, protocol).label;
            let gauge = |up: i64| format!("portcullis_upstream_healthy{{server=\"{label}\",upstream=\"orders\"}} {up}");
            assert!(bench.metric(&gauge(1)));
            assert_eq!(bench.told(get("/")).await, "200 ");
            status.set(500);
            eventually("down", || bench.fleet.healthy("orders", &label) == Some(false)).await;
            assert!(bench.metric(&gauge(0)));
            assert_eq!(bench.told(get("/")).await, "no_healthy_upstream");
            status.set(302);
            eventually("up", || bench.fleet.healthy("orders", &label) == Some(true)).await;
            assert!(bench.metric(&gauge(1)));
            assert_eq!(bench.told(get("/")).await, "200 ");
            // without the check nothing is known against it
            status.set(500);
            eventually("down", || bench.fleet.healthy("orders", &label) == Some(false)).await;
            let UpstreamKind::Servers(group) = &bench.settings[0].kind else { panic!() };
            let kind = UpstreamKind::Servers(Arc::new(ServerGroup { health: None, ..ServerGroup::clone(group) }));
            let settings = [UpstreamSettings { name: "orders".into(), kind }];
            bench.fleet.apply(&settings, &tokio::runtime::Handle::current());
            assert_eq!(bench.fleet.healthy("orders", &label), Some(true));
            assert!(bench.metric(&gauge(1)));
        });
    }
}

#[test]
fn a_silent_server_fails_its_check() {
    local(async {
        let upstream = Upstream::start(vec![vec![Hold]]).await;
        let bench = Bench::with(vec![server(upstream.address)], |group| {
            group.health = Some(HealthCheck { timeout: Duration::from_millis(20), ..check() });
        });
        let label = server(upstream.address).label;
        eventually("down", || bench.fleet.healthy("orders", &label) == Some(false)).await;
    });
}

#[test]
fn a_server_that_refuses_connections_is_set_aside_where_there_are_others() {
    local(async {
        let down = server(closed_address().await);
        let up = named("up").await;
        let mut bench = Bench::new(vec![down.clone(), server(up.address)]);
        for _ in 0..20 {
            assert_eq!(bench.told(get("/")).await, "200 up");
        }
        let failed = |count: u32| {
            let label = &down.label;
            let labels = format!("outcome=\"connect_failed\",server=\"{label}\",upstream=\"orders\"");
            format!("portcullis_upstream_requests_total{{{labels}}} {count}")
        };
        assert!(bench.metric(&failed(3)), "three in a row, then none");
        assert_eq!(bench.fleet.healthy("orders", &down.label), Some(false));
        // a reload, whose settings are equal and not the same
        let UpstreamKind::Servers(group) = &bench.settings[0].kind else { panic!() };
        let kind = UpstreamKind::Servers(Arc::new(ServerGroup::clone(group)));
        bench.settings = vec![UpstreamSettings { name: "orders".into(), kind }];
        bench.fleet.apply(&bench.settings, &tokio::runtime::Handle::current());
        bench.upstreams.apply(&bench.settings);
        assert_eq!(bench.fleet.healthy("orders", &down.label), Some(false));
        assert_eq!(bench.told(get("/")).await, "200 up");
        assert!(bench.metric(&failed(3)), "it stays aside");
        bench.clock.advance(Duration::from_secs(5));
        for _ in 0..4 {
            assert_eq!(bench.told(get("/")).await, "200 up");
        }
        assert!(bench.metric(&failed(4)), "and once more each time it is looked at again");
    });
}

#[test]
fn a_server_that_breaks_off_is_set_aside_where_there_are_others() {
    local(async {
        let broken = Upstream::start(vec![vec![Head, Reset]]).await;
        let up = named("up").await;
        let bench = Bench::new(vec![server(broken.address), server(up.address)]);
        let tell = async |times: usize| {
            let mut lost = 0;
            for _ in 0..times {
                match &*bench.told(post("/", "x")).await {
                    "200 up" => {}
                    "upstream_unavailable" => lost += 1,
                    told => panic!("{told}"),
                }
            }
            lost
        };
        assert_eq!(tell(40).await, 5, "five in a row, then none");
        bench.clock.advance(Duration::from_secs(5));
        assert_eq!(tell(20).await, 1, "one finds out whether it is back");
        // what may be said again is answered by the other one
        bench.clock.advance(Duration::from_secs(5));
        for _ in 0..4 {
            assert_eq!(bench.told(get("/")).await, "200 up");
        }
        assert_eq!(broken.connections(), 7);
    });
}

#[test]
fn a_server_that_does_not_answer_is_set_aside_until_it_does() {
    local(async {
        let silent = vec![vec![Head, Hold]; 5];
        let upstream = Upstream::start([silent, vec![vec![Head, say(OK), Hold]]].concat()).await;
        let up = named("up").await;
        let (address, mut connections) = (server(upstream.address), 0);
        let bench = Bench::new(vec![address.clone(), server(up.address)]);
        while bench.fleet.healthy("orders", &address.label) == Some(true) {
            let mut asked = std::pin::pin!(bench.told(get("/")));
            // to one and the other in turn: which one it is, its connection or its answer tells
            let told = loop {
                tokio::select! {
                    told = &mut asked => break told,
                    () = tokio::time::sleep(Duration::from_millis(5)) => {}
                }
                // again where the request was not sent yet
                if upstream.connections() > connections {
                    bench.clock.advance(Duration::from_secs(61));
                }
            };
            connections = upstream.connections();
            assert!(["upstream_timeout", "200 up"].contains(&&*told), "{told}");
        }
        assert_eq!(connections, 5);
        bench.clock.advance(Duration::from_secs(5));
        let told = [bench.told(get("/")).await, bench.told(get("/")).await, bench.told(get("/")).await];
        assert!(told.contains(&"200 ok".to_owned()), "{told:?}");
        assert_eq!(bench.fleet.healthy("orders", &address.label), Some(true));
    });
}

#[test]
fn an_answer_now_and_then_keeps_a_server_in_use() {
    local(async {
        let breaks = vec![vec![Head, Reset]; 4];
        let answers = vec![vec![Head, say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")]];
        let upstream = Upstream::start([breaks.clone(), answers.clone(), breaks, answers].concat()).await;
        let up = named("up").await;
        let address = server(upstream.address);
        let bench = Bench::new(vec![address.clone(), server(up.address)]);
        for _ in 0..20 {
            bench.told(post("/", "x")).await;
        }
        assert_eq!((upstream.connections(), bench.fleet.healthy("orders", &address.label)), (10, Some(true)));
    });
}

#[test]
fn connections_past_the_room_for_them_are_refused_and_not_held_against_the_server() {
    local(async {
        let half = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf";
        let upstream = Upstream::start(vec![vec![Head, say(half), Hold], vec![Head, say(OK), Hold]]).await;
        let address = server(upstream.address);
        let bench = Bench::new(vec![address.clone()]);
        let room = bench.fleet.room();
        room.forget_permits(room.available_permits() - 1);
        let first = bench.send(get("/")).await.unwrap();
        for _ in 0..5 {
            assert_eq!(bench.told(get("/")).await, "upstream_unavailable");
        }
        assert_eq!(bench.fleet.healthy("orders", &address.label), Some(true));
        drop(first);
        eventually("room", || room.available_permits() == 1).await;
        assert_eq!(bench.told(get("/")).await, "200 ok");
        assert_eq!(upstream.connections(), 2);
    });
}

#[test]
fn the_only_server_is_always_tried() {
    local(async {
        let address = closed_address().await;
        let bench = Bench::new(vec![server(address)]);
        for _ in 0..5 {
            assert_eq!(bench.told(get("/")).await, "upstream_unavailable");
        }
        let listener = TcpListener::bind(address).await.unwrap();
        spawn_local(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(OK.as_bytes()).await.unwrap();
            std::future::pending::<()>().await;
        });
        assert_eq!(bench.fleet.healthy("orders", &server(address).label), Some(false));
        assert_eq!(bench.told(post("/", "x")).await, "200 ok");
        assert_eq!(bench.fleet.healthy("orders", &server(address).label), Some(true));
    });
}

#[test]
fn a_reload_keeps_connections_to_servers_that_stay_and_forgets_those_that_go() {
    local(async {
        let (stays, goes) = (named("stays").await, named("goes").await);
        let mut bench = Bench::new(vec![server(stays.address), server(goes.address)]);
        for _ in 0..4 {
            bench.told(get("/")).await;
        }
        assert_eq!((stays.connections.get(), goes.connections.get()), (1, 1));
        let UpstreamKind::Servers(group) = bench.settings[0].kind.clone() else { panic!() };
        let mut group = ServerGroup::clone(&group);
        group.servers.truncate(1);
        let new = vec![UpstreamSettings { name: "orders".into(), kind: UpstreamKind::Servers(Arc::new(group)) }];
        bench.fleet.apply(&new, &tokio::runtime::Handle::current());
        bench.upstreams.apply(&new);
        let old = std::mem::replace(&mut bench.settings, new);
        for _ in 0..3 {
            assert_eq!(bench.told(get("/")).await, "200 stays");
        }
        assert_eq!(stays.connections.get(), 1, "its connection was kept");
        let gone = server(goes.address).label;
        assert_eq!(bench.fleet.healthy("orders", &gone), None);
        assert!(!bench.metrics.text().unwrap().contains(&format!("portcullis_upstream_healthy{{server=\"{gone}\"")));
        // a request that began under the old configuration still ends under it
        bench.settings = old;
        let told = [bench.told(get("/")).await, bench.told(get("/")).await, bench.told(get("/")).await];
        assert!(told.iter().all(|told| told.starts_with("200 ")), "{told:?}");
        assert_eq!(stays.connections.get(), 1);
    });
}

/// Of two upstreams that swap their names, and of one that is called by another, nothing changes but what they are called.
#[test]
fn an_upstream_that_is_called_by_another_name_keeps_its_connections_and_what_is_known_of_its_servers() {
    local(async {
        let (up, other) = (named("up").await, named("other").await);
        let down = server(closed_address().await);
        let mut bench = Bench::new(vec![down.clone(), server(up.address)]);
        let UpstreamKind::Servers(orders) = bench.settings[0].kind.clone() else { panic!() };
        let others = Arc::new(ServerGroup { servers: vec![server(other.address)], ..ServerGroup::clone(&orders) });
        let called = |names: [&str; 2]| -> Vec<UpstreamSettings> {
            let groups = [&orders, &others].map(|group| UpstreamKind::Servers(Arc::new(ServerGroup::clone(group))));
            let settings = names.into_iter().zip(groups);
            settings.map(|(name, kind)| UpstreamSettings { name: name.into(), kind }).collect()
        };
        let apply = |bench: &mut Bench, names| {
            bench.settings = called(names);
            bench.fleet.apply(&bench.settings, &tokio::runtime::Handle::current());
            bench.upstreams.apply(&bench.settings);
        };
        apply(&mut bench, ["orders", "others"]);
        for _ in 0..8 {
            assert_eq!(bench.told(get("/")).await, "200 up");
        }
        assert_eq!(bench.fleet.healthy("orders", &down.label), Some(false));
        assert_eq!(up.connections.get(), 1);
        for names in [["renamed", "others"], ["others", "renamed"], ["others", "orders"], ["orders", "others"]] {
            apply(&mut bench, names);
            assert_eq!(bench.fleet.healthy(names[0], &down.label), Some(false), "{names:?}");
            for name in ["orders", "others", "renamed"].into_iter().filter(|name| *name != names[0]) {
                assert_eq!(bench.fleet.healthy(name, &down.label), None, "{name} of {names:?}");
            }
            for _ in 0..4 {
                assert_eq!(bench.told(get("/")).await, "200 up", "{names:?}");
            }
            let text = bench.metrics.text().unwrap();
            let shown = text.lines().filter(|line| line.starts_with("portcullis_upstream_healthy{")).count();
            assert_eq!(shown, 3, "{names:?}: {text}");
        }
        assert_eq!((up.connections.get(), other.connections.get()), (1, 0));
        let labels = format!("outcome=\"ok\",server=\"{}\",upstream=\"renamed\"", server(up.address).label);
        assert!(bench.metric(&format!("portcullis_upstream_requests_total{{{labels}}} 4")), "counted under its name");
        // a request that began before a rename uses the connection, and leaves nothing under the old name
        let before = called(["orders", "others"]);
        apply(&mut bench, ["renamed", "others"]);
        let after = std::mem::replace(&mut bench.settings, before);
        assert_eq!(bench.told(get("/")).await, "200 up");
        assert_eq!((up.connections.get(), bench.fleet.healthy("orders", &down.label)), (1, None));
        let text = bench.metrics.text().unwrap();
        let shown = |line: &&str| line.starts_with("portcullis_upstream_healthy{") && line.contains("\"orders\"");
        assert_eq!(text.lines().find(shown), None);
        bench.settings = after;
        apply(&mut bench, ["orders", "others"]);
        // a name that is new beside one that stays takes nothing from it
        let mut both = called(["orders", "others"]);
        both.push(UpstreamSettings { name: "more".into(), kind: UpstreamKind::Servers(Arc::clone(&orders)) });
        bench.settings = both;
        bench.fleet.apply(&bench.settings, &tokio::runtime::Handle::current());
        bench.upstreams.apply(&bench.settings);
        assert_eq!(bench.fleet.healthy("orders", &down.label), Some(false));
        assert_eq!(bench.fleet.healthy("more", &down.label), Some(true));
        assert_eq!(bench.told(get("/")).await, "200 up");
        assert_eq!(up.connections.get(), 1);
    });
}

/// Two upstreams may ask one server about different things.
#[test]
fn the_verdict_of_a_check_goes_with_the_check_where_names_are_swapped() {
    local(async {
        let upstream = Handled::start(Speaks::Http1, |request| {
            let status = if request.uri().path() == "/bad" { 500 } else { 200 };
            async move { Response::builder().status(status).body(Body::empty()).unwrap() }
        })
        .await;
        let checked = |path: &str| HealthCheck { path: path.into(), ..check() };
        let mut bench = Bench::with(vec![server(upstream.address)], |group| group.health = Some(checked("/bad")));
        let label = server(upstream.address).label;
        let UpstreamKind::Servers(bad) = bench.settings[0].kind.clone() else { panic!() };
        let good = Arc::new(ServerGroup { health: Some(checked("/good")), ..ServerGroup::clone(&bad) });
        let apply = |bench: &mut Bench, names: [&str; 2]| {
            let settings = names.into_iter().zip([&bad, &good]);
            let of = |(name, group): (&str, &Arc<ServerGroup>)| UpstreamSettings {
                name: name.into(),
                kind: UpstreamKind::Servers(Arc::clone(group)),
            };
            bench.settings = settings.map(of).collect();
            bench.fleet.apply(&bench.settings, &tokio::runtime::Handle::current());
            bench.upstreams.apply(&bench.settings);
        };
        apply(&mut bench, ["orders", "others"]);
        eventually("down", || bench.fleet.healthy("orders", &label) == Some(false)).await;
        for names in [["others", "orders"], ["renamed", "others"], ["orders", "renamed"]] {
            apply(&mut bench, names);
            let known = names.map(|name| bench.fleet.healthy(name, &label));
            assert_eq!(known, [Some(false), Some(true)], "{names:?}");
        }
    });
}

#[test]
fn idle_connections_are_closed_without_a_request() {
    local(async {
        let upstream = Upstream::start(vec![vec![Head, say(OK), Until("never")]]).await;
        let mut bench = Bench::new(vec![server(upstream.address)]);
        bench.timeouts.idle = Duration::from_millis(200);
        assert_eq!(bench.told(get("/")).await, "200 ok");
        let kept = || {
            let state = std::fs::read_to_string("/proc/net/tcp").unwrap();
            let remote = format!(":{:04X} 01 ", upstream.address.port());
            state.lines().any(|line| line.contains(&remote))
        };
        assert!(kept());
        bench.clock.advance(Duration::from_secs(1));
        eventually("closed", || !kept()).await;
    });
}

#[test]
fn a_server_may_be_given_by_name() {
    local(async {
        let up = named("up").await;
        let address = ServerAddress { host: "localhost".into(), ..server(up.address) };
        let bench = Bench::new(vec![address]);
        assert_eq!(bench.told(get("/")).await, "200 up");
    });
}
