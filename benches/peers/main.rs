//! What a request costs beside other proxies that do the same: CPU time of all processes of a proxy, kernel's share included,
//! for each answer.
//!
//! Each proxy runs alone on one processor; callers and the upstream, which are this process, on another. They are asked in
//! turns, so that what else the machine does meets all of them alike. What is told is a proxy's cost as a part of that of
//! nginx without authentication in the same round, and of all rounds the median: the time itself says more of the machine.
//! Before it is measured each has to let a good credential through, and no other.
//!
//!     cargo bench --bench peers [-- [--short] [--write] [WORKLOAD]…]
//!
//! Proxies that are not installed are left out; so is what one cannot do.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)] // a bench fails by panicking
#![allow(clippy::disallowed_methods, reason = "a bench measures and waits in real time")]
#![allow(clippy::indexing_slicing, clippy::string_slice, reason = "of texts and arrays that it made itself")]
#![allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)] // of figures
#![allow(clippy::wildcard_enum_match_arm, reason = "of other crates' kinds")]

#[path = "../support/figures.rs"]
mod figures;
#[path = "../support/http2.rs"]
mod http2;
#[allow(dead_code, unreachable_pub, clippy::pedantic, reason = "of the tests, which use more of it")]
#[path = "../../tests/gateway/support/keys.rs"]
mod keys;
#[path = "../support/load.rs"]
mod load;
#[path = "../support/paced.rs"]
mod paced;
#[allow(dead_code, reason = "lines are of other benches")]
#[path = "../support/plot.rs"]
mod plot;
#[path = "../support/process.rs"]
mod process;
mod proxies;
#[path = "../support/secrets.rs"]
mod secrets;
#[allow(dead_code, unreachable_pub, clippy::pedantic, reason = "of the tests, which use more of it")]
#[path = "../../tests/gateway/support/wait.rs"]
mod wait;
mod workloads;

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs::{default_provider, kx_group};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use figures::{Wanted, median, micros, table, within};
use load::{Callers, Target, Until, get, once};
use process::Cpu;
use proxies::{PROXIES, Proxy, Running, Setup};
use secrets::{Proof, Secrets};
use workloads::{Asking, Workload, prefix, workloads};

const TOKENS: usize = 100_000;
const JWTS: usize = 100;
const TOKENS_ASKED: usize = 1_000;
/// Of unknown ones. A refusal is remembered for two seconds, and so all of them are looked up in each round: of so many, about as
/// often for a request as where a thousand are asked for without pause.
const REFUSED_ASKED: usize = 250;
const ROUTES_ASKED: usize = 1_000;
const ROUTES_FEW: usize = 10;
const PACED_CALLERS: u32 = 16;

/// Of a proxy, in one round.
#[derive(Clone, Copy, Default)]
struct Round {
    /// Microseconds of CPU time for an answer, or bytes for an idle connection.
    cost: f64,
    p50: Duration,
    p99: Duration,
}

/// One proxy and what it was found to take.
struct Measured {
    name: &'static str,
    /// It is there to compare with: nginx without authentication, or the same proxy with few routes.
    is_reference: bool,
    rounds: Vec<Round>,
}

/// What all workloads share.
struct Bench<'a> {
    wanted: &'a Wanted,
    secrets: &'a Secrets,
    upstream: SocketAddr,
    apart: Vec<String>,
    folder: &'a Path,
    proxies: Vec<&'static Proxy>,
}

/// A proxy that runs, and how it is asked.
struct Asked {
    running: Option<Running>,
    target: Target,
    workload: Workload,
    callers: Option<Callers>,
    _folder: Option<tempfile::TempDir>,
}

fn main() {
    let wanted = Wanted::from_arguments();
    let folder = tempfile::TempDir::new().unwrap();
    raise_descriptors();
    let apart = process::apart();
    let secrets = Secrets::new(folder.path(), wanted.of(TOKENS, TOKENS, 100));
    let proxies: Vec<&Proxy> = PROXIES.iter().filter(|proxy| wanted.measures || proxy.name == "Portcullis").collect();
    let (there, missing): (Vec<&Proxy>, Vec<&Proxy>) = proxies.into_iter().partition(|proxy| proxy.is_there());
    for proxy in missing {
        eprintln!("{} is not installed, and is left out", proxy.name);
    }
    let upstream = load::answering();
    let bench = Bench { wanted: &wanted, secrets: &secrets, upstream, apart, folder: folder.path(), proxies: there };
    let mut found = Vec::new();
    for workload in workloads().into_iter().filter(|workload| wanted.includes(workload.id)) {
        let measured = bench.measure(&workload);
        for one in &measured {
            let costs = || one.rounds.iter().map(|round| round.cost);
            let [least, most] = [costs().fold(f64::MAX, f64::min), costs().fold(0.0, f64::max)];
            let (middle, what) = (median(costs().collect()), if one.is_reference { ", to compare with" } else { "" });
            println!("{:4} {:10} {middle:10.2} ({least:.2}..{most:.2}){what}", workload.id, one.name);
        }
        found.push((workload, measured));
    }
    report(&wanted, &found);
}

/// Idle connections take one each.
fn raise_descriptors() {
    let limit = rlimit::increase_nofile_limit(u64::MAX).unwrap();
    assert!(limit >= 1024, "{limit} descriptors are too few");
}

impl Bench<'_> {
    fn measure(&self, workload: &Workload) -> Vec<Measured> {
        let workload = &self.scaled(workload);
        let is_idle = matches!(workload.asking, Asking::Idle(_));
        let (mut measured, mut plan, mut running) = (Vec::new(), Vec::new(), Vec::new());
        for (proxy, is_reference, workload) in self.plan(workload) {
            let name = proxy.map_or("no proxy", |proxy| proxy.name);
            let started = self.start(proxy, &workload).and_then(|asked| {
                let Some(asked) = asked else { return Ok(None) };
                self.check(&asked).map(|()| Some(asked))
            });
            let asked = match started {
                Ok(Some(asked)) => asked,
                // one that cannot do it is nobody to measure
                Ok(None) => continue,
                Err(said) => {
                    assert!(name != "Portcullis", "{}: {said}", workload.id);
                    eprintln!("{} {name} fails, and is left out: {said}", workload.id);
                    continue;
                }
            };
            measured.push(Measured { name, is_reference, rounds: Vec::new() });
            plan.push((proxy, workload));
            // memory that was taken is seldom given back: then a new process each round
            if !is_idle {
                running.push(asked);
            }
        }
        for asked in &mut running {
            // connections are made, and credentials remembered
            self.ask(asked, self.wanted.of(Duration::from_millis(400), Duration::from_millis(200), BRIEFLY));
        }
        let span = self.wanted.of(Duration::from_millis(500), Duration::from_millis(250), BRIEFLY);
        let rounds = self.wanted.of(if is_idle { 2 } else { 5 }, if is_idle { 1 } else { 3 }, 1);
        for _ in 0..rounds {
            for (index, one) in measured.iter_mut().enumerate() {
                let round = if is_idle {
                    let (proxy, workload) = &plan[index];
                    self.idle(&mut self.start(*proxy, workload).unwrap().unwrap())
                } else {
                    self.ask(&mut running[index], span)
                };
                one.rounds.push(round);
            }
        }
        measured
    }

    /// Fewer of everything where nothing is measured.
    fn scaled(&self, workload: &Workload) -> Workload {
        let mut workload = workload.clone();
        if !self.wanted.measures {
            workload.routes = workload.routes.min(100);
            workload.upload = workload.upload.min(100_000);
            if let Asking::Idle(count) = &mut workload.asking {
                *count = 20;
            }
        }
        workload
    }

    /// Who is asked what. What others are compared with comes first.
    fn plan(&self, workload: &Workload) -> Vec<(Option<&'static Proxy>, bool, Workload)> {
        let mut plan = Vec::new();
        if matches!(workload.asking, Asking::Paced(_)) {
            plan.push((None, true, workload.clone()));
        }
        if workload.proof.is_some() || workload.refused.is_some() {
            let bare = Workload { proof: None, refused: None, ..workload.clone() };
            plan.extend(
                self.proxies
                    .iter()
                    .filter(|proxy| proxy.name == "nginx")
                    .map(|&proxy| (Some(proxy), true, bare.clone())),
            );
        }
        for &proxy in &self.proxies {
            if workload.routes > 0 {
                plan.push((Some(proxy), true, Workload { routes: ROUTES_FEW, ..workload.clone() }));
            }
            plan.push((Some(proxy), false, workload.clone()));
        }
        plan
    }

    /// `None` where it cannot do this.
    fn start(&self, proxy: Option<&Proxy>, workload: &Workload) -> Result<Option<Asked>, String> {
        let Some(proxy) = proxy else {
            let target = Target { address: self.upstream, tls: None };
            return Ok(Some(Asked { running: None, target, workload: workload.clone(), callers: None, _folder: None }));
        };
        let folder = tempfile::TempDir::new_in(self.folder).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (secrets, upstream) = (self.secrets, self.upstream);
        let setup = Setup { workload, secrets, folder: folder.path().to_path_buf(), port, upstream };
        let Some(command) = (proxy.command)(&setup) else { return Ok(None) };
        let running = Some(Running::start(&command, &self.apart, &setup)?);
        let protocol = if matches!(workload.asking, Asking::Streams(..)) { "h2" } else { "http/1.1" };
        let tls = workload.tls.then(|| caller_of_tls(&secrets.file("cert.pem"), protocol));
        let target = Target { address: ([127, 0, 0, 1], port).into(), tls };
        Ok(Some(Asked { running, target, workload: workload.clone(), callers: None, _folder: Some(folder) }))
    }

    /// That it forwards what it should, and refuses what it should.
    fn check(&self, asked: &Asked) -> Result<(), String> {
        let workload = &asked.workload;
        let mut target = asked.target.clone();
        if let Asking::Streams(..) = workload.asking {
            target.tls = Some(caller_of_tls(&self.secrets.file("cert.pem"), "http/1.1"));
        }
        let path = Self::paths(workload).swap_remove(0);
        let ask = |authorization: Option<String>| {
            let fields = authorization.map_or_else(String::new, |value| format!("Authorization: {value}\r\n"));
            once(&target, &get(&path, &fields)).map_err(|error| error.to_string())
        };
        let good = workload.proof.map(|proof| self.secrets.authorizations(proof, 1).swap_remove(0));
        let got = ask(good)?;
        if got != (200, workload.answer) {
            return Err(format!("a good request gets {got:?}"));
        }
        let Some(proof) = workload.proof else { return Ok(()) };
        for bad in [Some(self.secrets.wrong(proof)), None] {
            let (status, _) = ask(bad.clone())?;
            if !matches!(status, 401 | 403) {
                return Err(format!("{bad:?} gets {status}"));
            }
        }
        Ok(())
    }

    fn paths(workload: &Workload) -> Vec<String> {
        let routes = workload.routes;
        if routes > 0 {
            let asked = (0..routes).step_by(routes.div_ceil(ROUTES_ASKED)).map(|number| number * 7919 % routes);
            return asked.map(|number| format!("{}/x", prefix(number))).collect();
        }
        vec![if workload.answer == load::SMALL { "/small".to_owned() } else { format!("/bytes/{}", workload.answer) }]
    }

    /// Everything that is asked, in turn.
    fn requests(&self, workload: &Workload) -> Vec<Vec<u8>> {
        let mut fields = vec![String::new()];
        if let Some(proof) = workload.proof {
            let count = match (proof, workload.refused) {
                (Proof::Token, Some(_)) => REFUSED_ASKED,
                (Proof::Token, None) => TOKENS_ASKED,
                _ => JWTS,
            };
            let mut values = self.secrets.authorizations(proof, count);
            if workload.refused.is_some() {
                for value in &mut values {
                    value.replace_range(value.len() - 6.., "nobody");
                }
            }
            fields = values.into_iter().map(|value| format!("Authorization: {value}\r\n")).collect();
        }
        let paths = Self::paths(workload);
        if workload.upload > 0 {
            let head =
                format!("POST {} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n", paths[0], workload.upload);
            let mut request = head.into_bytes();
            request.resize(request.len() + workload.upload, b'x');
            return vec![request];
        }
        paths.iter().flat_map(|path| fields.iter().map(move |fields| get(path, fields))).collect()
    }

    fn ask(&self, asked: &mut Asked, span: Duration) -> Round {
        let workload = asked.workload.clone();
        let cpu = |running: &Option<Running>| running.as_ref().map_or_else(Cpu::default, Running::cpu);
        let before = cpu(&asked.running);
        let mut took = match workload.asking {
            Asking::Paced(rate) => {
                let span = self.wanted.of(span * 2, span * 2, span);
                paced::latencies(asked.target.address, &self.requests(&workload), PACED_CALLERS, rate, span)
            }
            Asking::Streams(connections, streams) => {
                let heads = match workload.proof {
                    Some(proof) => {
                        let values = self.secrets.authorizations(proof, JWTS);
                        values.iter().map(|value| http2::head("/small", Some(value))).collect()
                    }
                    None => vec![http2::head("/small", None)],
                };
                let done = http2::ask(&asked.target, &heads, connections, streams, span);
                assert!(done.errors == 0, "{}: {} of {} went wrong", workload.id, done.errors, done.answers);
                done.took
            }
            Asking::Kept(count) | Asking::Brief(count) | Asking::Idle(count) => {
                let status = workload.refused.unwrap_or(200);
                let callers = asked.callers.get_or_insert_with(|| {
                    let callers = Callers::new(asked.target.clone(), count, self.requests(&workload), status);
                    if matches!(workload.asking, Asking::Brief(_)) { callers.brief() } else { callers }
                });
                let done = callers.ask(Until::Passed(span));
                // a limit lets one through now and then
                let errors = if workload.refused.is_some() { done.errors.saturating_sub(5) } else { done.errors };
                assert!(errors == 0, "{}: {errors} of {} went wrong", workload.id, done.answers);
                done.took
            }
        };
        let spent = cpu(&asked.running).since(&before) as f64 / 1000.0;
        let answers = took.len().max(1) as f64;
        Round { cost: spent / answers, p50: within(&mut took, 50.0), p99: within(&mut took, 99.0) }
    }

    /// What a connection takes that has made one request.
    fn idle(&self, asked: &mut Asked) -> Round {
        let Asking::Idle(count) = asked.workload.asking else { return Round::default() };
        let Some(running) = &asked.running else { return Round::default() };
        let requests = self.requests(&asked.workload);
        let mut few = Callers::new(asked.target.clone(), 20, requests.clone(), 200);
        few.ask(Until::Asked(200));
        let before = running.memory();
        let mut many = Callers::new(asked.target.clone(), count, requests, 200);
        let done = many.ask_with(count.min(50), Until::Asked(count));
        assert!(done.errors == 0, "{} of {count} connections failed", done.errors);
        std::thread::sleep(self.wanted.of(SETTLED, SETTLED, BRIEFLY));
        Round { cost: running.memory().saturating_sub(before) as f64 / count as f64, ..Round::default() }
    }
}

const BRIEFLY: Duration = Duration::from_millis(50);

/// How long after its last request a connection is idle, and says so by what it takes.
const SETTLED: Duration = Duration::from_millis(1_500);

/// With the key exchange that every proxy has, so that all of them do the same work; each handshake is a full one.
fn caller_of_tls(certificate: &Path, protocol: &str) -> Arc<rustls::ClientConfig> {
    let provider = rustls::crypto::CryptoProvider { kx_groups: vec![kx_group::X25519], ..default_provider() };
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(certificate).unwrap()).unwrap();
    let builder = rustls::ClientConfig::builder_with_provider(Arc::new(provider));
    let builder = builder.with_protocol_versions(&[&rustls::version::TLS13]).unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
    Arc::new(config)
}

/// A proxy's cost in the terms of its row: what it is compared with comes from the same round.
fn told(workload: &Workload, measured: &[Measured], name: &str) -> Option<f64> {
    let at = measured.iter().position(|one| one.name == name && !one.is_reference)?;
    let one = &measured[at];
    let reference = if workload.routes > 0 { measured.get(at.checked_sub(1)?)? } else { measured.first()? };
    let pairs = || one.rounds.iter().zip(&reference.rounds);
    match workload.asking {
        Asking::Idle(_) => Some(median(one.rounds.iter().map(|round| round.cost).collect())),
        Asking::Paced(_) => Some(median(pairs().map(|(one, direct)| micros(one.p50) - micros(direct.p50)).collect())),
        Asking::Kept(_) | Asking::Brief(_) | Asking::Streams(..) => {
            // the first is nginx, where it is there
            (workload.routes > 0 || reference.name == "nginx")
                .then(|| median(pairs().map(|(one, reference)| one.cost / reference.cost).collect()))
        }
    }
}

fn report(wanted: &Wanted, found: &[(Workload, Vec<Measured>)]) {
    let names: Vec<&str> = PROXIES.iter().map(|proxy| proxy.name).collect();
    let mut head = vec!["workload", "nginx bare"];
    head.extend(&names);
    head.push("goal");
    let (mut rows, mut bars, mut paced) = (Vec::new(), Vec::new(), Vec::new());
    for (workload, measured) in found {
        let values: Vec<Option<f64>> = names.iter().map(|name| told(workload, measured, name)).collect();
        let cell = |value: &Option<f64>| match (value, workload.asking) {
            (None, _) => String::new(),
            (Some(bytes), Asking::Idle(_)) => format!("{} B", plot::grouped(bytes.round() as u64)),
            (Some(us), Asking::Paced(_)) => format!("{:.3} ms", us / 1000.0),
            (Some(times), _) if *times >= 100.0 => plot::grouped(times.round() as u64),
            (Some(times), _) => format!("{times:.2}"),
        };
        let first = measured.first().filter(|one| one.name == "nginx" && !matches!(workload.asking, Asking::Idle(_)));
        let bare_cost = first.map_or_else(String::new, |one| {
            format!("{:.1} us", median(one.rounds.iter().map(|round| round.cost).collect()))
        });
        let mut row = vec![format!("{} {}", workload.id, workload.title), bare_cost];
        row.extend(values.iter().map(cell));
        row.push(workload.goal.to_owned());
        rows.push(row);
        match workload.asking {
            Asking::Idle(_) => {}
            Asking::Paced(_) => {
                let of = |pick: fn(&Round) -> Duration| {
                    let one = |one: &Measured| {
                        Some(median(one.rounds.iter().map(|round| micros(pick(round)) / 1000.0).collect()))
                    };
                    measured.iter().map(one).collect::<Vec<_>>()
                };
                let labels: Vec<&str> = measured.iter().map(|one| one.name).collect();
                paced.push((
                    labels,
                    vec![("p50".to_owned(), of(|round| round.p50)), ("p99".to_owned(), of(|round| round.p99))],
                ));
            }
            Asking::Kept(_) | Asking::Brief(_) | Asking::Streams(..) => {
                bars.push((format!("{} {}", workload.id, workload.title), values));
            }
        }
    }
    wanted.tell("peers", &table(&head, &rows));
    let all = plot::Bars {
        title: "CPU time of a request, nginx without authentication = 1",
        series: &names,
        most: 4.0,
        mark: Some(1.0),
        unit: "",
    };
    if wanted.named.is_empty() {
        wanted.draw("peers.svg", &all.draw(&bars));
        for (labels, groups) in &paced {
            let most = groups
                .iter()
                .flat_map(|(_, values)| values.iter().flatten())
                .fold(0.0, |most: f64, value| most.max(*value));
            let title = "What an answer takes at 4,000 requests a second";
            let drawn = plot::Bars { title, series: labels, most: most * 1.05, mark: None, unit: " ms" }.draw(groups);
            wanted.draw("latency.svg", &drawn);
        }
    }
}
