//! `deploy/`: three gateways, `PostgreSQL`, Redis, a load balancer, Prometheus. No container is started here: each file passes
//! the checker of the program that reads it, and the same files, with other addresses in them, make the same topology from
//! plain processes.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use tempfile::TempDir;

use crate::support::databases::database;
use crate::support::gateway::project;
use crate::support::redis::{Make, Redis};
use crate::support::{Connection, Gateway, Request, Setup, Upstream, eventually, get, post, wait};

/// The promise of contract 6 is a second; a probe on a busy machine may take some more.
const REVOKED_WITHIN: Duration = Duration::from_millis(2500);

const PASSWORDS: [(&str, &str); 3] =
    [("DB_PASSWORD", "database1"), ("REDIS_PASSWORD", "redis1"), ("ADMIN_PASSWORD", "adminpassword")];

fn file(name: &str) -> String {
    std::fs::read_to_string(project().join("deploy").join(name)).unwrap()
}

/// A program of Debian's, some of which are where only root looks.
fn program(name: &str) -> Command {
    let mut command = Command::new(name);
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/sbin")).current_dir(project().join("deploy"));
    command.envs(PASSWORDS);
    command
}

#[track_caller]
fn passes(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}: see tests/databases.sh"));
    let [out, err] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    assert!(output.status.success(), "{command:?}\n{out}\n{err}");
    out
}

#[test]
fn each_file_passes_the_checker_of_what_reads_it() {
    passes(program("haproxy").args(["-c", "-f", "haproxy.cfg"]));
    passes(program("promtool").args(["check", "config", "prometheus.yml"]));
    passes(program(env!("CARGO_BIN_EXE_portcullis")).args(["check", "gateway.yaml"]));
    let composed = passes(program("docker-compose").args(["-f", "compose.yaml", "config"]));
    // what the other files name is what the services are called
    for service in ["gateway1", "gateway2", "gateway3", "postgres", "valkey", "api", "balancer", "prometheus"] {
        assert!(composed.contains(&format!("\n  {service}:\n")), "{service}\n{composed}");
    }
    for (name, parts) in [
        ("gateway.yaml", &["@postgres:5432/", "@valkey:6379", "http://api:9000", "172.30.7.10"][..]),
        ("prometheus.yml", &["gateway1:9901", "gateway2:9901", "gateway3:9901"]),
        ("haproxy.cfg", &["gateway1:8080", "gateway2:8080", "gateway3:8080", "port 9901"]),
    ] {
        assert!(parts.iter().all(|part| file(name).contains(part)), "{name}");
    }
    assert!(composed.contains("172.30.7.10") && composed.contains("internal: true"), "{composed}");
    // without secrets of one's own nothing starts
    let mut without = program("docker-compose");
    without.args(["-f", "compose.yaml", "config"]).env_remove("DB_PASSWORD");
    assert!(!without.output().unwrap().status.success());
}

/// A file of `deploy/` with other addresses in it; each must have been there.
fn with_addresses(name: &str, addresses: &[(&str, String)]) -> String {
    addresses.iter().fold(file(name), |text, (old, new)| {
        assert!(text.contains(old), "{old} in {name}");
        text.replace(old, new)
    })
}

/// A real `HAProxy` with the file of `deploy/`.
struct Balancer {
    child: Child,
    address: SocketAddr,
    _dir: TempDir,
}

impl Balancer {
    fn before(gateways: &[Gateway; 3]) -> Self {
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
        let servers = ["gateway1", "gateway2", "gateway3"].map(|name| format!("server {name} {name}:8080"));
        let mut addresses = vec![("bind :8080", format!("bind {address}"))];
        for (server, gateway) in servers.iter().zip(gateways) {
            let (name, _) = server.rsplit_once(' ').unwrap();
            addresses.push((server, format!("{name} {} port {}", gateway.address(), gateway.admin.port())));
        }
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("haproxy.cfg");
        std::fs::write(&path, with_addresses("haproxy.cfg", &addresses)).unwrap();
        let child = program("haproxy").arg("-f").arg(&path).stdout(Stdio::null()).spawn().unwrap();
        let balancer = Self { child, address, _dir: dir };
        eventually("the balancer has all gateways", || {
            drop(TcpStream::connect(address).map_err(|error| error.to_string())?);
            match balancer.send(&get("/health")) {
                200 => Ok(()),
                status => Err(status.to_string()),
            }
        });
        balancer
    }

    fn send(&self, request: &Request) -> u16 {
        Connection::plain(self.address).send(request).status
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
fn the_same_topology_loses_no_request_with_a_gateway_and_obeys_everywhere() {
    let Some(url) = database("PORTCULLIS_TEST_POSTGRES", "deploy") else { return };
    let (upstream, redis) = (Upstream::hello(), Redis::of(Make::Valkey, Some("redis1"), &[]));
    let (_, place) = url.rsplit_once('@').unwrap();
    let yaml = with_addresses(
        "gateway.yaml",
        &[
            ("0.0.0.0:8080", "127.0.0.1:0".into()),
            ("0.0.0.0:9901", "127.0.0.1:0".into()),
            ("172.30.7.10", "127.0.0.1".into()),
            ("portcullis:${DB_PASSWORD}@postgres:5432/portcullis", format!("postgres:${{DB_PASSWORD}}@{place}")),
            ("valkey:6379", redis.address().to_string()),
            ("http://api:9000", upstream.url()),
        ],
    );
    let setup = PASSWORDS.iter().fold(Setup::new(&yaml), |setup, (name, value)| setup.variable(name, value));
    let gateways: [Gateway; 3] = std::thread::scope(|scope| {
        [(); 3].map(|()| scope.spawn(|| setup.beside().start())).map(|start| start.join().unwrap())
    });
    for gateway in &gateways {
        eventually("the shared limits answer", || match gateway.metric("portcullis_limits_shared_up", &[]) {
            up if up > 0.5 => Ok(()),
            _ => Err(gateway.stderr()),
        });
    }
    let balancer = Balancer::before(&gateways);
    for user in ["ann", "bob"] {
        setup.cli(&["user", "add", user, "--role", "user", "--password-stdin"], "a-password").expect(0);
    }

    one_budget(&balancer, &get("/orders/7").basic("ann", "a-password"));
    callers_have_no_say_in_where_they_come_from(&balancer);

    let admin = gateways[2].opaque("admin");
    let bobs = get("/orders/7").token(&gateways[2].opaque("bob"));
    let (load, posts) = (Load::default(), Posts::default());
    std::thread::scope(|scope| {
        let ended = EndsLoad(&load);
        for _ in 0..POSTING {
            let (load, posts, balancer, admin) = (&load, &posts, &balancer, &admin);
            scope.spawn(move || posts.run(load, balancer, admin));
        }
        for number in 0..READING {
            let request = get(&format!("/admin/{number}")).token(&admin);
            let (load, balancer) = (&load, &balancer);
            scope.spawn(move || load.run(balancer, &request));
        }
        load.goes_on();
        gateways[0].signal("KILL");
        load.goes_on();
        // and one that ends as it is asked to
        gateways[1].signal("TERM");
        load.goes_on();
        drop(ended);
    });
    let lost = load.lost.into_inner().unwrap();
    assert!(lost.is_empty(), "{} requests that another could serve: {:?}", lost.len(), lost.first());
    posts.are_sent_once(&upstream);
    assert!(gateways[0].wait().code().is_none() && gateways[1].wait().success());

    // the third and a fresh one obey what a process of its own changes
    let fresh = setup.beside().start();
    for gateway in [&gateways[2], &fresh] {
        gateway.send(&bobs).expect(200);
    }
    assert_eq!(balancer.send(&bobs), 200);
    setup.cli(&["user", "disable", "bob"], "").expect(0);
    let begin = Instant::now();
    for gateway in [&gateways[2], &fresh] {
        wait::within(REVOKED_WITHIN, "401", || match gateway.send(&bobs).status {
            401 => Ok(()),
            status => Err(status),
        });
    }
    assert_eq!(balancer.send(&bobs), 401);
    assert!(begin.elapsed() < REVOKED_WITHIN, "{:?}", begin.elapsed());
}

/// The route grants 200 at once and 100 a second, whichever gateway is asked.
fn one_budget(balancer: &Balancer, request: &Request) {
    let begin = Instant::now();
    let granted = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                for _ in 0..100 {
                    match balancer.send(request) {
                        200 => _ = granted.fetch_add(1, Ordering::Relaxed),
                        status => assert_eq!(status, 429),
                    }
                }
            });
        }
    });
    let (granted, due) = (granted.into_inner(), 200.0 + 100.0 * begin.elapsed().as_secs_f64());
    assert!(granted >= 200 && f64::from(granted) <= due * 1.01, "{granted} of {due}");
}

/// Ten log-ins at once from one address, whatever a caller says of itself.
fn callers_have_no_say_in_where_they_come_from(balancer: &Balancer) {
    let statuses = (0..30).map(|number| {
        let login = post("/auth/login").json(&json!({ "username": "nobody", "password": number.to_string() }));
        balancer.send(&login.header("X-Forwarded-For", &format!("192.0.2.{number}")))
    });
    assert!(statuses.into_iter().any(|status| status == 429));
}

/// Requests without an end, and those of them that failed.
#[derive(Default)]
struct Load {
    is_over: AtomicBool,
    answered: AtomicUsize,
    lost: std::sync::Mutex<Vec<String>>,
}

impl Load {
    fn run(&self, balancer: &Balancer, request: &Request) {
        while !self.is_over.load(Ordering::Relaxed) {
            let mut connection = Connection::plain(balancer.address);
            // some on one connection
            for _ in 0..20 {
                let response = connection.send(request);
                if response.status != 200 {
                    self.lost.lock().unwrap().push(format!("{response:?}"));
                }
                self.answered.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Waits until it has gone on for a good while.
    fn goes_on(&self) {
        let goal = self.answered.load(Ordering::Relaxed) + 600;
        eventually("requests are answered", || match self.answered.load(Ordering::Relaxed) {
            answered if answered >= goal => Ok(()),
            answered => Err(answered),
        });
    }
}

/// Threads that send what has consequences.
const POSTING: usize = 2;

/// Threads that send what has none.
const READING: usize = 6;

/// Requests with consequences: each with a number of its own, and what became of it.
#[derive(Default)]
struct Posts {
    sent: AtomicUsize,
    lost: std::sync::Mutex<Vec<(usize, u16)>>,
}

impl Posts {
    fn run(&self, load: &Load, balancer: &Balancer, token: &str) {
        while !load.is_over.load(Ordering::Relaxed) {
            let number = self.sent.fetch_add(1, Ordering::Relaxed);
            let status = balancer.send(&post(&format!("/admin/post-{number}")).token(token).body("x"));
            if status != 200 {
                self.lost.lock().unwrap().push((number, status));
            }
        }
    }

    /// Each at most once, those that were answered exactly once; lost are those alone that were on a connection to what was
    /// killed, and their callers are told so. The balancer keeps connections, of which there are as many as callers, and may
    /// put a request on one before it has heard that it is closed: it cannot know then whether the request came. What ends as
    /// it is asked to closes none that the balancer may still use.
    fn are_sent_once(self, upstream: &Upstream) {
        let mut seen = vec![0; self.sent.into_inner()];
        for received in upstream.received() {
            if let Some(number) = received.target.strip_prefix("/admin/post-") {
                seen[number.parse::<usize>().unwrap()] += 1;
            }
        }
        let lost = self.lost.into_inner().unwrap();
        // of one gateway
        assert!(lost.len() <= POSTING + READING && lost.iter().all(|(_, status)| *status == 502), "{lost:?}");
        for (number, times) in seen.into_iter().enumerate() {
            let is_lost = lost.iter().any(|(lost, _)| *lost == number);
            assert!(times == 1 || is_lost && times == 0, "{number} came {times} times, lost: {lost:?}");
        }
    }
}

/// Ends the load also where a test fails, or nobody would.
struct EndsLoad<'a>(&'a Load);

impl Drop for EndsLoad<'_> {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::Relaxed);
    }
}
