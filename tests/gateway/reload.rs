//! A new configuration is checked whole and then swapped; a bad one leaves the old one in place (contract 7).

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustls::version::{TLS12, TLS13};

use crate::support::keys::Trusting;
use crate::support::{Certificate, Connection, Gateway, Setup, Upstream, eventually, get};

fn yaml(upstream: &Upstream, path: &str) -> String {
    format!(
        "upstreams: {{ api: {{ servers: ['{}'] }} }}\nroutes: [{{ path: '{path}', allow: anyone, to: api }}]\n",
        upstream.url()
    )
}

#[test]
fn sighup_swaps_the_rules_and_connections_live_on() {
    let upstream = Upstream::hello();
    let gateway = Gateway::start(&yaml(&upstream, "/old"));
    let mut kept = gateway.connect();
    kept.send(&get("/old")).expect(200);
    gateway.reload(&yaml(&upstream, "/new"));
    kept.send(&get("/new")).expect(200);
    kept.send(&get("/old")).refused(404, "no_route");
    gateway.send(&get("/new")).expect(200);
}

#[test]
fn a_changed_file_is_noticed_without_a_signal() {
    let upstream = Upstream::hello();
    let gateway = Gateway::start(&yaml(&upstream, "/old"));
    gateway.setup.configure(&yaml(&upstream, "/new"));
    eventually("the new rules", || match gateway.send(&get("/new")).status {
        200 => Ok(()),
        status => Err(status),
    });
}

/// Rules whose load waits until somebody writes to the pipe `secret`.
fn slow(setup: &Setup, upstream: &Upstream, path: &str) -> String {
    assert!(Command::new("mkfifo").arg(setup.path("secret")).status().unwrap().success());
    format!("{}bootstrap: {{ users: [{{ name: ann, password: {{ file: secret }} }}] }}\n", yaml(upstream, path))
}

/// Waits until a load reads the pipe; it goes on when something is written and the pipe is dropped.
fn loading(setup: &Setup) -> std::fs::File {
    std::fs::OpenOptions::new().write(true).open(setup.path("secret")).unwrap()
}

#[test]
fn what_is_saved_during_a_reload_is_put_in_force_too() {
    let upstream = Upstream::hello();
    let gateway = Gateway::start(&yaml(&upstream, "/old"));
    let setup = &gateway.setup;
    setup.configure(&slow(setup, &upstream, "/slow"));
    let mut pipe = loading(setup);
    setup.configure(&yaml(&upstream, "/new"));
    pipe.write_all(b"annpassword").unwrap();
    drop(pipe);
    eventually("the rules that were saved last", || match gateway.send(&get("/new")).status {
        200 => Ok(()),
        status => Err(status),
    });
}

/// Rules each of which crosses many, so that it takes seconds to say what becomes of them.
fn crossing(upstream: &Upstream, role: &str, path: &str) -> String {
    let rule = |n| {
        format!(
            "  - {{ path: '/l{n}/{{x}}', allow: [{role}], to: api }}\n  - {{ path: '/{{x}}/m{n}', allow: [{role}], to: api }}\n"
        )
    };
    format!(
        "upstreams: {{ api: {{ servers: ['{}'] }} }}\nroutes:\n  - {{ path: '{path}', allow: anyone, to: api }}\n{}",
        upstream.url(),
        (0..100).map(rule).collect::<String>()
    )
}

#[test]
fn new_rules_are_in_force_before_it_is_found_out_what_they_change() {
    let upstream = Upstream::hello();
    let gateway = Gateway::start(&crossing(&upstream, "user", "/old"));
    gateway.setup.configure(&crossing(&upstream, "admin", "/new"));
    let said = || gateway.stderr().contains("rule changed");
    eventually("the new rules", || match gateway.send(&get("/new")).status {
        200 => Ok(()),
        status => Err(status),
    });
    assert!(!said(), "what they change was to be found out first");
    gateway.send(&get("/old")).refused(404, "no_route");
    eventually("what they change", || if said() { Ok(()) } else { Err(()) });
}

#[test]
fn a_reload_that_fails_at_one_listener_changes_none() {
    let upstream = Upstream::hello();
    let free = [(); 2].map(|()| std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    let [one, two] = free.map(|listener| listener.local_addr().unwrap());
    let listeners = |cert: &str| {
        format!(
            "listeners:
  - {{ address: '{one}', tls: {{ certificates: [{{ cert: {cert}.pem, key: {cert}.key }}] }} }}
  - {{ address: '{two}', tls: {{ certificates: [{{ cert: other.pem, key: other.key }}] }} }}
"
        )
    };
    let setup = Setup::new(&format!("{}{}", listeners("old"), yaml(&upstream, "/old")));
    let [old, new, other] = ["old", "new", "other"].map(|name| {
        let certificate = Certificate::of(&["localhost"]);
        setup.write(&format!("{name}.pem"), &certificate.cert);
        setup.write(&format!("{name}.key"), &certificate.key);
        certificate
    });
    let gateway = setup.start();
    setup.configure(&format!("{}{}", listeners("new"), slow(&setup, &upstream, "/new")));
    let mut pipe = loading(&setup);
    // its certificates were checked by now
    std::fs::remove_file(setup.path("other.key")).unwrap();
    pipe.write_all(b"annpassword").unwrap();
    drop(pipe);
    eventually("the refusal", || {
        let told = gateway.stderr();
        if told.contains("other.key") { Ok(()) } else { Err(told) }
    });
    for (address, expected) in [(one, &old), (two, &other)] {
        let client = Trusting::new();
        let config = client.config(&[&TLS12, &TLS13], &[]);
        Connection::tls(address, "localhost", config).unwrap().send(&get("/old")).expect(200);
        assert_eq!(client.shown(), expected.der());
        assert_ne!(client.shown(), new.der());
    }
}

#[test]
fn what_a_refused_configuration_lacks_may_come_later() {
    let upstream = Upstream::hello();
    let gateway = Gateway::start(&yaml(&upstream, "/old"));
    let setup = &gateway.setup;
    gateway.reload(&format!(
        "{}bootstrap: {{ users: [{{ name: ann, password: {{ file: later }} }}] }}\n",
        yaml(&upstream, "/new")
    ));
    gateway.send(&get("/new")).refused(404, "no_route");
    setup.write("later", "annpassword");
    eventually("the file is noticed", || match gateway.send(&get("/new")).status {
        200 => Ok(()),
        status => Err(status),
    });
}

#[test]
fn a_file_of_variables_that_appears_is_noticed() {
    let upstream = Upstream::hello();
    let gateway = Gateway::start(&yaml(&upstream, "/${PLACE:-old}"));
    gateway.send(&get("/old")).expect(200);
    gateway.setup.write(".env", "PLACE=new\n");
    eventually("the variable is noticed", || match gateway.send(&get("/new")).status {
        200 => Ok(()),
        status => Err(status),
    });
}

#[test]
fn a_signal_during_the_start_is_heard() {
    let upstream = Upstream::hello();
    for (signal, ends) in [("TERM", true), ("INT", true), ("HUP", false)] {
        let setup = Setup::new("");
        setup.configure(&slow(&setup, &upstream, "/slow"));
        let mut gateway = Command::new(env!("CARGO_BIN_EXE_portcullis"))
            .args(["run", "--config"])
            .arg(setup.path("gateway.yaml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut pipe = loading(&setup);
        let kill = Command::new("sh").args(["-c", &format!("kill -{signal} {}", gateway.id())]).status().unwrap();
        assert!(kill.success());
        if ends {
            let status = eventually("it ends", || gateway.try_wait().unwrap().ok_or(signal));
            assert_eq!(status.code(), Some(0), "{signal}");
            continue;
        }
        setup.configure(&yaml(&upstream, "/new"));
        pipe.write_all(b"annpassword").unwrap();
        drop(pipe);
        let mut lines = std::io::BufRead::lines(std::io::BufReader::new(gateway.stderr.take().unwrap()));
        assert!(lines.any(|line| line.unwrap().contains("configuration reloaded")), "{signal}");
        gateway.kill().unwrap();
        gateway.wait().unwrap();
    }
}

#[test]
fn a_signal_to_end_does_not_wait_for_a_reload() {
    let upstream = Upstream::hello();
    let gateway = Gateway::start(&yaml(&upstream, "/old"));
    gateway.setup.configure(&slow(&gateway.setup, &upstream, "/new"));
    // it reads from here on, and nobody ever writes
    let pipe = loading(&gateway.setup);
    gateway.signal("TERM");
    assert_eq!(gateway.wait().code(), Some(0));
    drop(pipe);
}

#[test]
fn a_bad_file_is_reported_and_the_old_rules_stay() {
    let upstream = Upstream::hello();
    let gateway = Gateway::start(&yaml(&upstream, "/old"));
    for (bad, named) in [
        ("routes: [", "gateway.yaml:"),
        (yaml(&upstream, "/new', alow: 'anyone").as_str(), "alow"),
        (yaml(&upstream, "/new").replace("to: api", "to: apo").as_str(), "apo"),
        ("", "gateway.yaml"),
        (
            format!("{}expect: [{{ request: GET /new, as: anyone, is: 401 }}]\n", yaml(&upstream, "/new")).as_str(),
            "GET /new",
        ),
    ] {
        gateway.reload(bad);
        // what is written comes through a pipe, and a reload by the watch may have been counted for this one
        eventually(named, || if gateway.stderr().contains(named) { Ok(()) } else { Err(gateway.stderr()) });
        gateway.send(&get("/old")).expect(200);
        gateway.send(&get("/new")).refused(404, "no_route");
    }
    gateway.reload(&yaml(&upstream, "/new"));
    eventually("the new rules", || match gateway.send(&get("/new")).status {
        200 => Ok(()),
        status => Err(status),
    });
}

#[test]
fn a_file_that_vanishes_leaves_the_old_rules() {
    let upstream = Upstream::hello();
    let gateway = Gateway::start(&yaml(&upstream, "/old"));
    std::fs::remove_file(gateway.setup.path("gateway.yaml")).unwrap();
    let before = gateway.reloads();
    gateway.signal("HUP");
    eventually("the failed reload", || if gateway.reloads() > before { Ok(()) } else { Err(gateway.stderr()) });
    gateway.send(&get("/old")).expect(200);
    assert_eq!(gateway.ended(), None);
}

#[test]
fn no_request_fails_while_rules_are_swapped() {
    let upstream = Upstream::hello();
    let gateway = Gateway::start(&yaml(&upstream, "/{always}"));
    let done = AtomicBool::new(false);
    let served = std::thread::scope(|scope| {
        let callers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let (mut served, mut connection) = (0, gateway.connect());
                    while !done.load(Ordering::SeqCst) {
                        let response = connection.send(&get("/x"));
                        assert_eq!((response.status, response.text().as_str()), (200, "hello"));
                        served += 1;
                    }
                    served
                })
            })
            .collect();
        for n in 0..10 {
            let path = if n % 2 == 0 { "/**" } else { "/{always}" };
            gateway.reload(&yaml(&upstream, path));
        }
        done.store(true, Ordering::SeqCst);
        callers.into_iter().map(|caller| caller.join().unwrap()).sum::<u32>()
    });
    assert!(served > 10, "{served}");
}

#[test]
fn who_is_limited_stays_so_however_the_rule_is_rewritten() {
    let upstream = Upstream::hello();
    let yaml = |more: &str| {
        format!(
            "upstreams: {{ api: {{ servers: ['{}'] }}, other: {{ servers: ['{}'] }} }}
routes: [{{ path: /x, allow: anyone, rate: {{ rate: 1/h, burst: 1, by: address }}, to: api{more} }}]
",
            upstream.url(),
            upstream.url()
        )
    };
    let gateway = Gateway::start(&yaml(", methods: [GET]"));
    gateway.send(&get("/x")).expect(200);
    for more in [
        ", methods: [GET, POST]",
        "",
        ", hosts: [localhost]",
        ", hosts: [localhost, other], methods: [GET]",
        ", timeout: 7s",
        ", request_headers: { remove: [Cookie] }",
    ] {
        gateway.reload(&yaml(more));
        gateway.send(&get("/x")).refused(429, "rate_limited");
    }
    gateway.reload(&yaml("").replace("1/h", "2/h"));
    gateway.send(&get("/x")).expect(200);
}

/// Callers ask all the time while the rule is rewritten again and again: none gets more than the budget.
#[test]
fn no_request_draws_on_no_budget_while_rules_are_swapped() {
    let upstream = Upstream::hello();
    let yaml = |methods: &str| {
        format!(
            "upstreams: {{ api: {{ servers: ['{}'] }} }}
routes: [{{ path: /x, methods: [{methods}], allow: anyone, rate: {{ rate: 1/h, burst: 5, by: address }}, to: api }}]
",
            upstream.url()
        )
    };
    let gateway = Gateway::start(&yaml("GET"));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut connection = gateway.connect();
                while !done.load(Ordering::SeqCst) {
                    let status = connection.send(&get("/x")).status;
                    assert!([200, 429].contains(&status), "{status}");
                }
            });
        }
        for methods in ["GET, POST", "GET", "GET, PUT"].iter().cycle().take(15) {
            gateway.reload(&yaml(methods));
        }
        done.store(true, Ordering::SeqCst);
    });
    assert_eq!(upstream.received().len(), 5);
}

#[test]
fn budgets_outlive_a_reload_that_does_not_change_them() {
    let upstream = Upstream::hello();
    let yaml = |more: &str| {
        format!(
            "upstreams: {{ api: {{ servers: ['{}'] }} }}
routes:
  - {{ path: /x, allow: anyone, rate: {{ rate: 1/h, burst: 1, by: address }}, to: api }}
{more}",
            upstream.url()
        )
    };
    let gateway = Gateway::start(&yaml(""));
    gateway.send(&get("/x")).expect(200);
    gateway.send(&get("/x")).refused(429, "rate_limited");
    gateway.reload(&yaml("  - { path: /y, allow: anyone, to: api }\n"));
    gateway.send(&get("/y")).expect(200);
    gateway.send(&get("/x")).refused(429, "rate_limited");
}

/// Writes a text where it is to be found.
type Save<'s> = &'s dyn Fn(&str);

/// A file may be renamed over, swapped behind a link as Kubernetes does it, written in place, or moved away and written
/// anew as editors do it. Each is one reload, and a half of it none.
#[test]
fn every_way_of_saving_is_one_reload() {
    let upstream = Upstream::hello();
    let setup = Setup::new(&yaml(&upstream, "/0"));
    let text = std::fs::read_to_string(setup.path("gateway.yaml")).unwrap();
    let at = |n: usize| text.replace("'/0'", &format!("'/{n}'"));
    let (file, data) = (setup.path("gateway.yaml"), setup.path("..data"));
    setup.write("..first/gateway.yaml", &text);
    std::os::unix::fs::symlink("..first", &data).unwrap();
    std::fs::remove_file(&file).unwrap();
    std::os::unix::fs::symlink("..data/gateway.yaml", &file).unwrap();
    let gateway = setup.start();
    let started = gateway.metric("portcullis_config_loaded_timestamp_seconds", &[]);
    assert!(started > 1e9, "{started}");
    let saves: [(&str, Save<'_>); 5] = [
        ("a link is swapped", &|text| {
            setup.write("..second/gateway.yaml", text);
            std::os::unix::fs::symlink("..second", setup.path("..data_tmp")).unwrap();
            std::fs::rename(setup.path("..data_tmp"), &data).unwrap();
        }),
        ("renamed over", &|text| {
            std::fs::rename(setup.write("new", text), &file).unwrap();
        }),
        ("written in place, in parts", &|text| {
            let mut open = std::fs::File::create(&file).unwrap();
            for part in text.as_bytes().chunks(7) {
                open.write_all(part).unwrap();
                open.sync_all().unwrap();
            }
        }),
        ("moved away and written anew", &|text| {
            std::fs::rename(&file, setup.path("gateway.yaml~")).unwrap();
            std::fs::write(&file, text).unwrap();
        }),
        ("removed, and there again", &|text| {
            std::fs::remove_file(&file).unwrap();
            std::fs::write(&file, text).unwrap();
        }),
    ];
    for (n, (name, save)) in (1_usize..).zip(saves) {
        save(&at(n));
        eventually(name, || match gateway.send(&get(&format!("/{n}"))).status {
            200 => Ok(()),
            status => Err((status, gateway.stderr())),
        });
        gateway.send(&get(&format!("/{}", n - 1))).refused(404, "no_route");
        eventually("it is counted", || match gateway.reloads() {
            reloads if reloads == n as u64 => Ok(()),
            reloads => Err(reloads),
        });
    }
    let counted = |result: &str| gateway.metric("portcullis_config_reloads_total", &[("result", result)]);
    assert!((counted("ok") - 5.0).abs() < 0.1 && counted("failed") < 0.1, "{}", gateway.stderr());
    assert!(gateway.metric("portcullis_config_loaded_timestamp_seconds", &[]) >= started);
    // what needs a restart is said until it is taken back
    let needed = || gateway.metric("portcullis_config_restart_needed", &[("key", "workers")]);
    for (workers, expected) in [("workers: 3", 1.0), ("workers: 2", 0.0)] {
        let loads = gateway.reloads();
        std::fs::write(&file, at(5).replace("workers: 2", workers)).unwrap();
        eventually("a reload", || if gateway.reloads() > loads { Ok(()) } else { Err(gateway.stderr()) });
        assert!((needed() - expected).abs() < 0.1, "{workers}: {}", needed());
    }
}

/// A file that is written slowly, whose last line closes what the lines before it open: what it says on the way is never in
/// force, however long a writer sleeps between two looks, or writes on and on.
#[test]
fn a_half_of_a_file_is_never_in_force() {
    let upstream = Upstream::hello();
    let rules = |version: &str| {
        format!(
            "{}routes:
  - {{ path: '/**', allow: anyone, to: api }}
  - {{ path: /{version}, allow: anyone, to: api }}
  - {{ path: /admin, allow: [admin], to: api }}
",
            yaml(&upstream, "").lines().next().map(|line| format!("{line}\n")).unwrap()
        )
    };
    let setup = Setup::new(&rules("zero"));
    let file = setup.path("gateway.yaml");
    // the routes last
    let text = std::fs::read_to_string(&file).unwrap();
    let (upstreams, rest) = text.split_at(text.find("routes:").unwrap());
    let (routes, defaults) = rest.split_once("\n\n").unwrap();
    let zero = format!("{upstreams}{defaults}\n{routes}\n");
    std::fs::write(&file, &zero).unwrap();
    let gateway = setup.start();
    let append = |text: &str| {
        let mut open = std::fs::File::options().append(true).open(&file).unwrap();
        open.write_all(text.as_bytes()).unwrap();
    };
    let said = || gateway.stderr().matches("keeps changing").count();
    let closed_for = |time: Duration| {
        let until = Instant::now() + time;
        while Instant::now() < until {
            gateway.send(&get("/admin")).refused(401, "missing_credentials");
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    let in_force = |loads: u64| {
        eventually("the whole file", || {
            gateway.send(&get("/admin")).refused(401, "missing_credentials");
            if gateway.reloads() == loads { Ok(()) } else { Err(gateway.stderr()) }
        });
    };
    let one = zero.replace("/zero", "/one");
    let (half, rest) = one.split_at(one.find("  - { path: /admin").unwrap());
    std::fs::write(&file, half).unwrap();
    closed_for(Duration::from_millis(1_600));
    append(rest);
    in_force(1);
    assert_eq!(said(), 0, "{}", gateway.stderr());

    std::fs::write(&file, half).unwrap();
    for n in 0..18 {
        append(&format!("  - {{ path: /more/{n}, allow: anyone, to: api }}\n"));
        closed_for(Duration::from_millis(500));
    }
    append(rest);
    in_force(2);
    assert_eq!(said(), 1, "{}", gateway.stderr());

    // who says so has it read at once, and answers for what it says
    std::fs::write(&file, half).unwrap();
    gateway.signal("HUP");
    eventually("the half of it", || match gateway.send(&get("/admin")).status {
        200 => Ok(()),
        status => Err(status),
    });
}
