//! What whoever changes rules waits for: a check of many routes, and the comparison of two large files.
//!
//! Each bench says in `benches/README.md` what it stands for.
#![allow(missing_docs, reason = "criterion's macros make items without documentation")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a bench fails by panicking")]

use std::fmt::Write as _;
use std::hint::black_box;
use std::path::Path;

use criterion::{Criterion, criterion_group, criterion_main};
use portcullis::config::{self, Environment, Snapshot};
use portcullis::decision::diff::diff;

/// Routes of every kind: literals, placeholders, prefixes over them, hosts and methods; a tenth of them for `role`.
fn text(routes: usize, role: &str) -> String {
    let mut text = "upstreams: { api: { servers: ['http://127.0.0.1:9'] } }\nroutes:\n".to_owned();
    for n in 0..routes {
        let who = if n % 10 == 0 { role } else { "user" };
        let path = match n % 4 {
            0 => format!("/s{}/r{n}", n % 50),
            1 => format!("/s{}/r{n}/{{id}}", n % 50),
            2 => format!("/s{}/{{kind}}/r{n}/**", n % 50),
            _ => format!("/s{}/r{n}/**", n % 50),
        };
        let more = match n % 3 {
            0 => "methods: [GET, POST], ",
            1 => "hosts: [api.example.com], ",
            _ => "",
        };
        writeln!(text, "  - {{ path: '{path}', {more}allow: [{who}], to: api }}").unwrap();
    }
    text
}

/// So many routes of each kind, `#` being the number of each; those of two kinds cross.
fn crossing(routes: usize, kinds: &[&str]) -> String {
    let mut text = "upstreams: { api: { servers: ['http://127.0.0.1:9'] } }\nroutes:\n".to_owned();
    for n in 0..routes {
        for kind in kinds {
            writeln!(text, "  - {{ {}, to: api }}", kind.replace('#', &n.to_string())).unwrap();
        }
    }
    text
}

fn load(text: &str) -> Snapshot {
    let environment: Environment = std::iter::empty::<(String, String)>().collect();
    config::load_text(text, Path::new("."), "bench.yaml", &environment).unwrap_or_else(|problems| panic!("{problems}"))
}

fn check(c: &mut Criterion) {
    let text = text(10_000, "admin");
    let environment: Environment = std::iter::empty::<(String, String)>().collect();
    let check = || config::check_text(black_box(&text), Path::new("."), "bench.yaml", &environment).map(drop);
    assert!(check().is_ok());
    c.bench_function("check/10000", |b| b.iter(check));
    let text = crossing(500, &["path: '/l#/{x}', methods: [GET], allow: [r]", "path: '/{x}/m#', allow: anyone"]);
    let check = || config::check_text(black_box(&text), Path::new("."), "bench.yaml", &environment).map(drop);
    assert!(check().is_ok());
    c.bench_function("check/1000 crossing", |b| b.iter(check));
}

fn compare(c: &mut Criterion) {
    let (old, new) = (load(&text(1000, "admin")), load(&text(1000, "operator")));
    assert_eq!(diff(&old, &new).unwrap().len(), 100);
    c.bench_function("diff/1000", |b| b.iter(|| diff(black_box(&old), black_box(&new))));
    let other = load(&text(1000, "admin").replace("path: '/s", "path: '/t"));
    assert!(diff(&old, &other).unwrap().len() >= 2000);
    c.bench_function("diff/1000 all", |b| b.iter(|| diff(black_box(&old), black_box(&other))));
    let kinds = ["path: '/l#/{x}', allow: [r#]", "path: '/{x}/m#', allow: [s#]"];
    let [old, new] = kinds.map(|kind| load(&crossing(200, &[kind])));
    assert!(diff(&old, &new).unwrap().len() >= 200 * 200);
    c.bench_function("diff/200 crossing", |b| b.iter(|| diff(black_box(&old), black_box(&new))));
    let both = |role| ["path: '/l#/{x}'", "path: '/{x}/m#'"].map(|path| format!("{path}, allow: [{role}#]"));
    let [old, new] = ["r", "s"].map(|role| {
        let kinds = both(role);
        load(&crossing(500, &kinds.each_ref().map(String::as_str)))
    });
    assert_eq!(diff(&old, &new).unwrap().len(), 1000);
    c.bench_function("diff/1000 crossing", |b| b.iter(|| diff(black_box(&old), black_box(&new))));
}

criterion_group! {
    name = rules;
    config = Criterion::default().sample_size(10);
    targets = check, compare
}
criterion_main!(rules);
