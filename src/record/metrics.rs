//! Every metric, its name and labels (contract 8).
//!
//! What is counted for each request lives in cells of the worker that counts it, so that no two workers write to the same
//! line of memory; a scrape sums them. Everything else is plain prometheus. Label values come from the configuration or
//! from enumerations of ours, never from a request, so their number is bounded.

mod routes;
mod upstreams;

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::Method;
use prometheus::core::{Collector, Desc};
use prometheus::proto;
use prometheus::{
    Gauge, GaugeVec, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

use self::routes::Routes;
pub use self::routes::{Outcome, Place};
pub use self::upstreams::{Counter, Timer};
use crate::principal::{Scheme, SchemeSet};

/// Upper bounds of the buckets for requests, in seconds.
const REQUEST_BUCKETS: [f64; 14] =
    [0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

/// The methods that have a label of their own, registered by RFC 9110 9 and RFC 5789; others count as `other`.
static METHODS: [Method; 9] = [
    Method::GET,
    Method::HEAD,
    Method::POST,
    Method::PUT,
    Method::DELETE,
    Method::CONNECT,
    Method::OPTIONS,
    Method::TRACE,
    Method::PATCH,
];

/// What stands for the others.
pub const OTHER_METHOD: &str = "other";

/// The name of a method that is registered. Others have none that may be told of: what stands there is the caller's.
pub fn registered(method: &Method) -> Option<&'static str> {
    METHODS.iter().find(|known| *known == method).map(Method::as_str)
}

/// The route label of a request without a route.
pub const NO_ROUTE: &str = "-";

/// How a credential fared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthOutcome {
    /// It proved a principal.
    Accepted,
    /// It did not.
    Refused,
    /// The store could not say.
    Unavailable,
}

impl AuthOutcome {
    const ALL: [Self; 3] = [Self::Accepted, Self::Refused, Self::Unavailable];

    const fn name(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Refused => "refused",
            Self::Unavailable => "unavailable",
        }
    }
}

/// How a look-up of a principal was served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheResult {
    /// From the cache.
    Hit,
    /// By the store.
    Miss,
    /// From the cache past its time, since the store does not answer.
    Stale,
}

macro_rules! metrics {
    ($($(#[$doc:meta])* $field:ident: $kind:ident = $name:literal [$($label:literal),*] $help:literal;)*) => {
        /// The metrics of the process.
        #[derive(Debug)]
        pub struct Metrics {
            registry: Registry,
            workers: Workers,
            $($(#[$doc])* pub $field: $kind,)*
        }

        impl Metrics {
            fn register() -> prometheus::Result<Self> {
                let registry = Registry::new();
                let workers = Workers::new()?;
                registry.register(Box::new(workers.clone()))?;
                $(
                    let $field = metrics!(@make $kind, $name, $help, [$($label),*]);
                    registry.register(Box::new($field.clone()))?;
                )*
                Ok(Self { registry, workers, $($field,)* })
            }
        }
    };
    (@make IntCounter, $name:literal, $help:literal, []) => { IntCounter::new($name, $help)? };
    (@make IntGauge, $name:literal, $help:literal, []) => { IntGauge::new($name, $help)? };
    (@make Gauge, $name:literal, $help:literal, []) => { Gauge::new($name, $help)? };
    (@make HistogramVec, $name:literal, $help:literal, [$($label:literal),*]) => {
        HistogramVec::new(HistogramOpts::new($name, $help).buckets(REQUEST_BUCKETS.to_vec()), &[$($label),*])?
    };
    (@make $kind:ident, $name:literal, $help:literal, [$($label:literal),*]) => {
        $kind::new(Opts::new($name, $help), &[$($label),*])?
    };
}

metrics! {
    /// Entries in the cache of principals.
    auth_cache_entries: IntGauge = "portcullis_auth_cache_entries" [] "Principals that are remembered";
    /// Fetches of other issuers' keys.
    jwks_fetches: IntCounterVec = "portcullis_jwks_fetches_total" ["issuer", "result"] "Fetches of the keys of other issuers: ok or failed";
    /// Keys of other issuers that are in use.
    jwks_keys: IntGaugeVec = "portcullis_jwks_keys" ["issuer"] "Keys of other issuers";
    /// Seconds that a query took.
    store_duration: HistogramVec = "portcullis_store_duration_seconds" ["operation"] "Time of queries to the store";
    /// Checks that wait for the password pool.
    password_queue: IntGauge = "portcullis_password_queue" [] "Password checks that wait";
    /// Refusals by a limit.
    rate_limited: IntCounterVec = "portcullis_rate_limited_total" ["limit"] "Requests refused by a limit";
    /// Draws on budgets that gateways share.
    limits_shared: IntCounterVec = "portcullis_limits_shared_total" ["counted"] "Draws on shared limits: shared, or own where nobody answered";
    /// 1 while the counts that gateways share can be reached; absent where none are shared.
    limits_shared_up: IntGaugeVec = "portcullis_limits_shared_up" [] "Whether the shared limits answer";
    /// Tokens issued.
    tokens_issued: IntCounterVec = "portcullis_tokens_issued_total" ["kind"] "Tokens issued: access, refresh or token";
    /// Tokens revoked.
    tokens_revoked: IntCounterVec = "portcullis_tokens_revoked_total" ["kind"] "Tokens revoked: access, refresh or token";
    /// Second uses of refresh tokens.
    refresh_reuse: IntCounter = "portcullis_refresh_reuse_total" [] "Refresh tokens used a second time; each ended its family";
    /// Upgraded connections and open event streams.
    open_streams: IntGaugeVec = "portcullis_open_streams" ["kind"] "Open streams: websocket, sse, grpc or other";
    /// Connections of callers.
    connections: IntGaugeVec = "portcullis_connections" ["listener"] "Open connections of callers";
    /// TLS handshakes.
    tls_handshakes: IntCounterVec = "portcullis_tls_handshakes_total" ["listener", "version", "result"] "TLS handshakes";
    /// Unix time of a certificate's end.
    certificate_expiry: GaugeVec = "portcullis_certificate_expiry_seconds" ["name"] "When a certificate ends, in unix seconds";
    /// 1 where a server is healthy.
    upstream_healthy: IntGaugeVec = "portcullis_upstream_healthy" ["upstream", "server"] "Whether a server is used";
    /// Reloads.
    config_reloads: IntCounterVec = "portcullis_config_reloads_total" ["result"] "Reloads of the configuration: ok or failed";
    /// Unix time of the last good load.
    config_loaded: Gauge = "portcullis_config_loaded_timestamp_seconds" [] "When the configuration in force was loaded, in unix seconds";
    /// 1 where the file has a value for a key that is in force only after a restart.
    config_restart_needed: IntGaugeVec = "portcullis_config_restart_needed" ["key"] "Whether a key was changed that needs a restart";
    /// Constant 1.
    build_info: IntGaugeVec = "portcullis_build_info" ["version"] "The version that runs";
    /// Lines of the access log that were dropped since their reader is too slow.
    log_lines_dropped: IntCounter = "portcullis_log_lines_dropped_total" [] "Log lines dropped since their reader is too slow";
}

/// The kinds of tokens that are issued and revoked.
pub const TOKEN_KINDS: [&str; 3] = ["access", "refresh", "token"];

/// How TLS handshakes end: the version, and the result.
pub const HANDSHAKES: [(&str, &str); 4] = [("1.3", "ok"), ("1.2", "ok"), ("-", "failed"), ("-", "timeout")];

/// Keys whose new values are in force only after a restart.
pub const RESTART_KEYS: [&str; 2] = ["workers", "store"];

impl Metrics {
    /// All metrics, at zero.
    ///
    /// # Panics
    /// Never: the names above are valid and differ.
    pub fn new() -> Self {
        let metrics = Self::register().expect("metric names are valid and differ");
        metrics.build_info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        // what may never happen is there from the start, so that its first time is an increase
        for result in ["ok", "failed"] {
            metrics.config_reloads.with_label_values(&[result]);
        }
        for kind in TOKEN_KINDS {
            metrics.tokens_issued.with_label_values(&[kind]);
            metrics.tokens_revoked.with_label_values(&[kind]);
        }
        for key in RESTART_KEYS {
            metrics.config_restart_needed.with_label_values(&[key]).set(0);
        }
        #[cfg(target_os = "linux")]
        metrics
            .registry
            .register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))
            .expect("nothing else is named process_*");
        metrics
    }

    /// The cells of one more worker.
    pub fn worker(&self) -> WorkerMetrics {
        let shared = Arc::new(Cells::default());
        lock(&self.workers.cells).push(Arc::clone(&shared));
        WorkerMetrics {
            shared,
            routes: Routes::default(),
            auth: RefCell::default(),
            rate_limited: self.rate_limited.clone(),
            limited: RefCell::default(),
        }
    }

    /// The Prometheus text format.
    ///
    /// # Errors
    /// Where the text cannot be made, which says that a metric has no name: a bug of ours.
    pub fn text(&self) -> prometheus::Result<String> {
        prometheus::TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

type Cell = Arc<AtomicU64>;

/// What one worker has counted, as a scrape reads it. Its locks are taken where a label is seen first, and at a scrape.
#[derive(Debug, Default)]
struct Cells {
    routes: routes::Shared,
    auth: Mutex<Vec<(&'static str, &'static str, Cell)>>,
    cache: [AtomicU64; 3],
    in_flight: AtomicU64,
    upstreams: upstreams::Cells,
}

/// In this order: what is short, as most is, touches one line of memory.
#[derive(Debug, Default)]
#[repr(C)]
struct Durations {
    count: AtomicU64,
    sum_ns: AtomicU64,
    /// One per bound of [`REQUEST_BUCKETS`], not cumulated; what exceeds all counts in none.
    buckets: [AtomicU64; REQUEST_BUCKETS.len()],
}

/// One worker's side of its cells; not shared between threads.
#[derive(Debug)]
pub struct WorkerMetrics {
    shared: Arc<Cells>,
    routes: Routes,
    auth: RefCell<Vec<(Scheme, AuthOutcome, Cell)>>,
    rate_limited: IntCounterVec,
    /// The limits that refused something here.
    limited: RefCell<Vec<(&'static str, IntCounter)>>,
}

impl WorkerMetrics {
    /// Where requests of this route, or of whatever else bears this label, are counted. To be kept by who asks often.
    pub fn place(&self, route: &Arc<str>) -> Place {
        self.routes.place(&self.shared.routes, route)
    }

    /// Counts a request that has ended, and took so long. `reason` is why it was refused.
    pub fn request(
        &self,
        place: Place,
        (method, status): (&Method, u16),
        (outcome, reason): (Outcome, Option<&'static str>),
        took: Duration,
    ) {
        self.routes.count(&self.shared.routes, place, (method, status), (outcome, reason), took);
    }

    /// Counts a credential.
    pub fn auth(&self, scheme: Scheme, outcome: AuthOutcome) {
        let mut auth = self.auth.borrow_mut();
        if let Some((_, _, cell)) = auth.iter().find(|(s, o, _)| (*s, *o) == (scheme, outcome)) {
            return add(cell, 1);
        }
        let cell = Arc::new(AtomicU64::new(1));
        lock(&self.shared.auth).push((scheme.name(), outcome.name(), Arc::clone(&cell)));
        auth.push((scheme, outcome, cell));
    }

    /// Counts a refusal by a limit.
    pub fn limited(&self, limit: &'static str) {
        let mut limited = self.limited.borrow_mut();
        if let Some((_, counter)) = limited.iter().find(|(known, _)| *known == limit) {
            return counter.inc();
        }
        let counter = self.rate_limited.with_label_values(&[limit]);
        counter.inc();
        limited.push((limit, counter));
    }

    /// Counts a request that has begun.
    pub fn begun(&self) {
        add(&self.shared.in_flight, 1);
    }

    /// Counts that a request is under way no more.
    pub fn ended(&self) {
        add(&self.shared.in_flight, u64::MAX);
    }

    /// Counts a look-up of a principal.
    pub fn cache(&self, result: CacheResult) {
        let [hit, miss, stale] = &self.shared.cache;
        match result {
            CacheResult::Hit => add(hit, 1),
            CacheResult::Miss => add(miss, 1),
            CacheResult::Stale => add(stale, 1),
        }
    }
}

/// Adds to a cell that only this thread writes: no locked instruction is needed.
fn add(cell: &AtomicU64, by: u64) {
    cell.store(cell.load(Ordering::Relaxed).wrapping_add(by), Ordering::Relaxed);
}

impl Durations {
    fn observe(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        let bucket = REQUEST_BUCKETS.iter().zip(&self.buckets).find(|(bound, _)| seconds <= **bound);
        if let Some((_, bucket)) = bucket {
            add(bucket, 1);
        }
        add(&self.count, 1);
        add(&self.sum_ns, u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }
}

/// Sums the cells of all workers at a scrape.
#[derive(Clone, Debug)]
struct Workers {
    cells: Arc<Mutex<Vec<Arc<Cells>>>>,
    requests: Desc,
    decisions: Desc,
    durations: Desc,
    auth: Desc,
    cache: Desc,
    in_flight: Desc,
    upstream_requests: Desc,
    upstream_durations: Desc,
}

impl Workers {
    fn new() -> prometheus::Result<Self> {
        let desc = |name: &str, help: &str, labels: &[&str]| {
            Desc::new(name.into(), help.into(), labels.iter().map(ToString::to_string).collect(), HashMap::new())
        };
        Ok(Self {
            cells: Arc::default(),
            requests: desc("portcullis_requests_total", "Requests answered", &["route", "method", "status"])?,
            decisions: desc(
                "portcullis_decisions_total",
                "What was decided of requests, and why",
                &["route", "outcome", "reason"],
            )?,
            durations: desc(
                "portcullis_request_duration_seconds",
                "Time from a request's head to its response's end",
                &["route"],
            )?,
            auth: desc("portcullis_auth_total", "Credentials looked at", &["scheme", "outcome"])?,
            cache: desc("portcullis_auth_cache_total", "Look-ups of principals", &["result"])?,
            in_flight: desc("portcullis_requests_in_flight", "Requests under way", &[])?,
            upstream_requests: desc(
                "portcullis_upstream_requests_total",
                "Requests sent to servers",
                &["outcome", "server", "upstream"],
            )?,
            upstream_durations: desc(
                "portcullis_upstream_duration_seconds",
                "Time until an upstream began its response",
                &["upstream"],
            )?,
        })
    }
}

impl Collector for Workers {
    fn desc(&self) -> Vec<&Desc> {
        vec![
            &self.requests,
            &self.decisions,
            &self.durations,
            &self.auth,
            &self.cache,
            &self.in_flight,
            &self.upstream_requests,
            &self.upstream_durations,
        ]
    }

    fn collect(&self) -> Vec<proto::MetricFamily> {
        let (mut requests, mut decisions, mut auth, mut cache) = (Sum::new(), Sum::new(), Sum::new(), Sum::new());
        let (mut durations, mut upstream_durations) = (SumOfDurations::new(), SumOfDurations::new());
        let mut upstream_requests = Sum::new();
        // each that there may be: the first one is to be an increase
        for scheme in SchemeSet::all().iter() {
            for outcome in AuthOutcome::ALL {
                auth.begin(vec![scheme.name().to_owned(), outcome.name().to_owned()]);
            }
        }
        let mut in_flight = 0_u64;
        for cells in lock(&self.cells).iter() {
            in_flight = in_flight.wrapping_add(cells.in_flight.load(Ordering::Relaxed));
            cells.routes.each_way(|route, ended, number| {
                let status = ended.status.to_string();
                requests.add(vec![route.to_string(), ended.method.to_owned(), status], number);
                decisions.add(vec![route.to_string(), ended.outcome.to_owned(), ended.reason.to_owned()], number);
            });
            for (scheme, outcome, cell) in lock(&cells.auth).iter() {
                auth.add(vec![(*scheme).to_owned(), (*outcome).to_owned()], cell);
            }
            for (result, cell) in ["hit", "miss", "stale"].into_iter().zip(&cells.cache) {
                cache.add(vec![result.to_owned()], cell);
            }
            // of many routes most may never be asked for, and each would be a score of lines
            cells.routes.each_duration(|route, observed| {
                if observed.count.load(Ordering::Relaxed) > 0 {
                    sum_up(&mut durations, route, observed);
                }
            });
            for (upstream, server, outcome, cell) in lock(&cells.upstreams.requests).iter() {
                upstream_requests.add(vec![(*outcome).to_owned(), server.to_string(), upstream.to_string()], cell);
            }
            for (upstream, observed) in lock(&cells.upstreams.durations).iter() {
                sum_up(&mut upstream_durations, upstream, observed);
            }
        }
        let mut families = vec![
            requests.family(&self.requests),
            decisions.family(&self.decisions),
            histogram(&self.durations, durations),
            auth.family(&self.auth),
            cache.family(&self.cache),
            gauge(&self.in_flight, in_flight),
            upstream_requests.family(&self.upstream_requests),
            histogram(&self.upstream_durations, upstream_durations),
        ];
        families.retain(|family| !family.get_metric().is_empty());
        families
    }
}

/// Counters by their label values.
struct Sum(HashMap<Vec<String>, u64>);

impl Sum {
    fn new() -> Self {
        Self(HashMap::new())
    }

    /// There is such a number, if only 0.
    fn begin(&mut self, labels: Vec<String>) {
        self.0.entry(labels).or_default();
    }

    fn add(&mut self, labels: Vec<String>, cell: &AtomicU64) {
        *self.0.entry(labels).or_default() += cell.load(Ordering::Relaxed);
    }

    #[expect(clippy::cast_precision_loss, reason = "Prometheus counts in doubles")]
    fn family(self, desc: &Desc) -> proto::MetricFamily {
        let metrics = self.0.into_iter().map(|(values, total)| {
            let mut counter = proto::Counter::default();
            counter.set_value(total as f64);
            let mut metric = proto::Metric::from_label(labels(desc, values));
            metric.set_counter(counter);
            metric
        });
        family(desc, proto::MetricType::COUNTER, metrics.collect())
    }
}

/// By one label's value: what is in each bucket, how many there are, and their sum in nanoseconds.
type SumOfDurations = HashMap<Arc<str>, (Vec<u64>, u64, u64)>;

/// Adds what was observed.
fn sum_up(totals: &mut SumOfDurations, label: &Arc<str>, observed: &Durations) {
    let (buckets, count, sum_ns) =
        totals.entry(Arc::clone(label)).or_insert_with(|| (vec![0; REQUEST_BUCKETS.len()], 0, 0));
    for (total, bucket) in buckets.iter_mut().zip(&observed.buckets) {
        *total += bucket.load(Ordering::Relaxed);
    }
    *count += observed.count.load(Ordering::Relaxed);
    *sum_ns += observed.sum_ns.load(Ordering::Relaxed);
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus sums in doubles")]
fn histogram(desc: &Desc, durations: SumOfDurations) -> proto::MetricFamily {
    let metrics = durations.into_iter().map(|(label, (buckets, count, sum_ns))| {
        let mut histogram = proto::Histogram::default();
        let mut cumulated = 0;
        let buckets = REQUEST_BUCKETS.iter().zip(buckets).map(|(bound, in_bucket)| {
            cumulated += in_bucket;
            let mut bucket = proto::Bucket::default();
            bucket.set_upper_bound(*bound);
            bucket.set_cumulative_count(cumulated);
            bucket
        });
        histogram.set_bucket(buckets.collect());
        histogram.set_sample_count(count);
        histogram.set_sample_sum(sum_ns as f64 / 1e9);
        let mut metric = proto::Metric::from_label(labels(desc, vec![label.to_string()]));
        metric.set_histogram(histogram);
        metric
    });
    family(desc, proto::MetricType::HISTOGRAM, metrics.collect())
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus counts in doubles")]
fn gauge(desc: &Desc, value: u64) -> proto::MetricFamily {
    let mut gauge = proto::Gauge::default();
    gauge.set_value(value as f64);
    let mut metric = proto::Metric::default();
    metric.set_gauge(gauge);
    family(desc, proto::MetricType::GAUGE, vec![metric])
}

fn labels(desc: &Desc, values: Vec<String>) -> Vec<proto::LabelPair> {
    desc.variable_labels
        .iter()
        .zip(values)
        .map(|(name, value)| {
            let mut pair = proto::LabelPair::default();
            pair.set_name(name.clone());
            pair.set_value(value);
            pair
        })
        .collect()
}

fn family(desc: &Desc, kind: proto::MetricType, metrics: Vec<proto::Metric>) -> proto::MetricFamily {
    let mut family = proto::MetricFamily::default();
    family.set_name(desc.fq_name.clone());
    family.set_help(desc.help.clone());
    family.set_field_type(kind);
    family.set_metric(metrics);
    family
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether there is such a line, in whatever order its labels stand.
    fn has(text: &str, line: &str) -> bool {
        let sorted = |text: &str| {
            let mut parts: Vec<_> = text.split(['{', '}', ',']).map(str::to_owned).collect();
            parts.sort();
            parts
        };
        let line = sorted(line);
        text.lines().any(|found| sorted(found) == line)
    }

    #[test]
    fn a_scrape_sums_what_the_workers_counted() {
        let metrics = Metrics::new();
        let (one, two) = (metrics.worker(), metrics.worker());
        let route: Arc<str> = "/orders/**".into();
        for worker in [&one, &one, &two] {
            let place = worker.place(&route);
            worker.request(place, (&Method::GET, 200), (Outcome::Forwarded, None), Duration::from_millis(2));
        }
        let purge = Method::from_bytes(b"PURGE").unwrap();
        let refused = (Outcome::Refused, Some("method_not_allowed"));
        two.request(two.place(&route), (&purge, 405), refused, Duration::ZERO);
        two.auth(Scheme::Bearer, AuthOutcome::Accepted);
        one.cache(CacheResult::Hit);
        let (upstream, server): (Arc<str>, Arc<str>) = ("orders".into(), "http://a:1".into());
        for worker in [&one, &one, &two] {
            worker.upstream_requests(&upstream, &server, "ok").inc();
            worker.upstream_duration(&upstream).observe(Duration::from_millis(2));
        }
        let text = metrics.text().unwrap();
        for line in [
            r#"portcullis_requests_total{method="GET",route="/orders/**",status="200"} 3"#,
            r#"portcullis_requests_total{method="other",route="/orders/**",status="405"} 1"#,
            r#"portcullis_decisions_total{outcome="refused",reason="method_not_allowed",route="/orders/**"} 1"#,
            r#"portcullis_request_duration_seconds_bucket{route="/orders/**",le="0.0025"} 4"#,
            r#"portcullis_request_duration_seconds_bucket{route="/orders/**",le="+Inf"} 4"#,
            r#"portcullis_auth_total{outcome="accepted",scheme="bearer"} 1"#,
            r#"portcullis_auth_cache_total{result="hit"} 1"#,
            r#"portcullis_upstream_requests_total{outcome="ok",server="http://a:1",upstream="orders"} 3"#,
            r#"portcullis_upstream_duration_seconds_bucket{upstream="orders",le="0.0025"} 3"#,
        ] {
            assert!(has(&text, line), "{line}\n{text}");
        }
    }

    #[test]
    fn routes_and_ways_to_end_are_counted_however_many_there_are() {
        let metrics = Metrics::new();
        let workers = [metrics.worker(), metrics.worker()];
        let routes: Vec<Arc<str>> = (0..100).map(|number| format!("/r{number}").into()).collect();
        for worker in &workers {
            // first met in another order by the other, and under the same name again by the next snapshot
            for route in routes.iter().rev().chain(&routes) {
                let place = worker.place(route);
                for status in 200..210 {
                    worker.request(place, (&Method::GET, status), (Outcome::Forwarded, None), Duration::from_micros(9));
                    let refused = (Outcome::Refused, Some("unknown"));
                    worker.request(place, (&Method::PUT, status), refused, Duration::from_secs(99));
                }
            }
        }
        let text = metrics.text().unwrap();
        let numbers = |family: &str, value: &str| {
            let lines = text.lines().filter(|line| line.starts_with(family) && line.ends_with(&format!(" {value}")));
            lines.count()
        };
        assert_eq!(numbers("portcullis_requests_total", "4"), 100 * 2 * 10);
        assert_eq!(numbers("portcullis_decisions_total", "40"), 100 * 2);
        assert_eq!(numbers("portcullis_request_duration_seconds_count", "80"), 100);
        assert_eq!(numbers("portcullis_request_duration_seconds_bucket", "40"), 100 * REQUEST_BUCKETS.len());
        for line in [
            r#"portcullis_requests_total{method="PUT",route="/r99",status="209"} 4"#,
            r#"portcullis_decisions_total{outcome="refused",reason="unknown",route="/r0"} 40"#,
        ] {
            assert!(has(&text, line), "{line}");
        }
        assert!(!text.contains(r#"route="-""#), "no request was without a route");
    }

    #[test]
    fn reloads_are_counted_from_nothing_on() {
        let text = Metrics::new().text().unwrap();
        for series in [
            "config_reloads_total{result=\"ok\"}",
            "config_reloads_total{result=\"failed\"}",
            "config_restart_needed{key=\"store\"}",
            "config_restart_needed{key=\"workers\"}",
        ] {
            assert!(text.contains(&format!("\nportcullis_{series} 0\n")), "{series}\n{text}");
        }
    }

    #[test]
    fn the_process_and_the_build_are_described() {
        let text = Metrics::new().text().unwrap();
        assert!(text.contains("process_resident_memory_bytes"));
        assert!(text.contains("portcullis_build_info{version=\""));
    }
}
