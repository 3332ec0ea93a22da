//! Which servers are up: asked actively where there is a `health` section, noticed passively everywhere.
//!
//! One [`Fleet`] for the process, keyed by upstream and server, so that what is known survives a reload that leaves the
//! server as it was. Workers read two atomics per choice. A server is held to be up until it was found to be down.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, Uri, Version, header};
use http_body_util::Empty;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prometheus::IntGauge;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use super::dial::{DialError, Dialed, Dialer, Offer, connections_max};
use super::heirs::{Heir, OfServer, ServerKey, groups, heirs, is_reached_alike};
use super::room::{Room, Share};
use super::{HealthCheck, Protocol, ServerAddress, ServerGroup, UpstreamSettings, UpstreamTls};
use crate::clock::Clock;
use crate::record::metrics::Metrics;

/// Connects that fail in a row until a server is set aside.
const CONNECT_FAILURES_MAX: u32 = 3;

/// Requests that were lost, or not answered in time, in a row and with no answer between them, until a server is set aside.
/// More than of connects: a caller may know of a request by which a server breaks off.
const LOST_MAX: u32 = 5;

/// How long it is set aside: one caller then finds out whether it is back.
const SET_ASIDE_FOR: Duration = Duration::from_secs(5);

/// Probes are spread by up to this part of their interval, so that gateways do not probe in step.
const JITTER_PART: u32 = 10;

const USER_AGENT: HeaderValue = HeaderValue::from_static("portcullis-health");

/// What is known of one server, for all workers.
pub(super) struct Health {
    checked: AtomicBool,
    up: AtomicBool,
    connects: Failures,
    answers: Failures,
    epoch: Instant,
    /// Where it is shown, by the name that the upstream has now; nowhere where no configuration in force has the server.
    gauge: Mutex<Option<IntGauge>>,
}

/// Failures of one kind in a row.
struct Failures {
    max: u32,
    in_a_row: AtomicU32,
    /// Nanoseconds after the epoch until which they have the server set aside; zero: they have not.
    until: AtomicU64,
}

impl Failures {
    const fn up_to(max: u32) -> Self {
        Self { max, in_a_row: AtomicU32::new(0), until: AtomicU64::new(0) }
    }

    fn one_more(&self, until: u64) {
        if self.in_a_row.fetch_add(1, Ordering::Relaxed).saturating_add(1) >= self.max {
            self.until.store(until, Ordering::Relaxed);
        }
    }

    fn over(&self) {
        // nearly always so, and then nothing is written that other workers read
        if self.in_a_row.load(Ordering::Relaxed) != 0 || self.until.load(Ordering::Relaxed) != 0 {
            self.in_a_row.store(0, Ordering::Relaxed);
            self.until.store(0, Ordering::Relaxed);
        }
    }

    /// Where the time of being set aside is over, whoever asks first has until `until` to find out; others wait for that.
    fn try_out(&self, now: u64, until: u64) {
        let ended = self.until.load(Ordering::Relaxed);
        if ended != 0 && ended <= now {
            // whoever was faster has found out the same
            self.until.compare_exchange(ended, until, Ordering::Relaxed, Ordering::Relaxed).ok();
        }
    }
}

impl Health {
    fn new(epoch: Instant, gauge: Option<IntGauge>) -> Self {
        if let Some(gauge) = &gauge {
            gauge.set(1);
        }
        Self {
            checked: AtomicBool::new(false),
            up: AtomicBool::new(true),
            connects: Failures::up_to(CONNECT_FAILURES_MAX),
            answers: Failures::up_to(LOST_MAX),
            epoch,
            gauge: Mutex::new(gauge),
        }
    }

    /// Whether the active check holds the server to be up; always where there is none.
    pub(super) fn is_up(&self) -> bool {
        self.up.load(Ordering::Relaxed) || !self.checked.load(Ordering::Relaxed)
    }

    /// Whether it is set aside after failures.
    pub(super) fn is_set_aside(&self, now: Instant) -> bool {
        // nearly always zero, and then the clock is not needed
        let until = self.set_aside_until();
        until != 0 && self.since_epoch(now) < until
    }

    fn set_aside_until(&self) -> u64 {
        self.connects.until.load(Ordering::Relaxed).max(self.answers.until.load(Ordering::Relaxed))
    }

    /// A request goes to it. Where it was set aside, that is the one that finds out whether it is back.
    pub(super) fn chosen(&self, now: Instant) {
        if self.set_aside_until() != 0 {
            let (now, until) = (self.since_epoch(now), self.since_epoch(now + SET_ASIDE_FOR));
            self.connects.try_out(now, until);
            self.answers.try_out(now, until);
        }
    }

    /// A worker connected.
    pub(super) fn connected(&self) {
        self.connects.over();
    }

    /// A worker could not connect.
    pub(super) fn connect_failed(&self, now: Instant) {
        self.connects.one_more(self.since_epoch(now + SET_ASIDE_FOR));
    }

    /// A response began, whatever its status.
    pub(super) fn answered(&self) {
        self.answers.over();
    }

    /// A request was lost by the server's doing, or not answered in time.
    pub(super) fn lost(&self, now: Instant) {
        self.answers.one_more(self.since_epoch(now + SET_ASIDE_FOR));
    }

    fn since_epoch(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.epoch).as_nanos()).unwrap_or(u64::MAX)
    }

    fn set_up(&self, up: bool) {
        let gauge = self.gauge();
        self.up.store(up, Ordering::Relaxed);
        if let Some(gauge) = &*gauge {
            gauge.set(i64::from(up));
        }
    }

    /// Shows it under another name from here on.
    fn shown_by(&self, gauge: IntGauge) {
        let mut own = self.gauge();
        gauge.set(i64::from(self.up.load(Ordering::Relaxed)));
        *own = Some(gauge);
    }

    fn gauge(&self) -> MutexGuard<'_, Option<IntGauge>> {
        self.gauge.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The health of all servers; one a process.
pub struct Fleet {
    members: Mutex<HashMap<ServerKey, Member>>,
    /// Each upstream's side of the room, while somebody has it.
    shares: Mutex<HashMap<Arc<str>, Weak<Share>>>,
    metrics: Arc<Metrics>,
    clock: Clock,
    epoch: Instant,
    /// A place for each connection of a worker to a server.
    room: Room,
}

struct Member {
    health: Arc<Health>,
    address: ServerAddress,
    check: Option<HealthCheck>,
    /// By which the probing task connects.
    tls: Option<UpstreamTls>,
    /// The probing task.
    probe: Option<AbortHandle>,
}

impl Drop for Member {
    fn drop(&mut self) {
        if let Some(probe) = &self.probe {
            probe.abort();
        }
    }
}

impl std::fmt::Debug for Fleet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fleet").finish_non_exhaustive()
    }
}

impl Fleet {
    /// A fleet without servers.
    pub fn new(metrics: Arc<Metrics>, clock: Clock) -> Self {
        let epoch = clock.now();
        let room = Room::new(connections_max());
        Self { members: Mutex::default(), shares: Mutex::default(), metrics, clock, epoch, room }
    }

    /// The places for connections that are free.
    #[cfg(test)]
    pub(super) fn room(&self) -> &tokio::sync::Semaphore {
        self.room.free()
    }

    /// The upstream's side of the room for connections to servers; one for all workers.
    pub(super) fn share(&self, upstream: &Arc<str>) -> Arc<Share> {
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(share) = shares.get(upstream).and_then(Weak::upgrade) {
            return share;
        }
        shares.retain(|_, share| share.strong_count() > 0);
        let share = Arc::new(self.room.share());
        shares.insert(Arc::clone(upstream), Arc::downgrade(&share));
        share
    }

    /// Takes the servers of a configuration: begins checks on the `background` runtime, ends those that are no longer
    /// asked for, and forgets servers that are gone. To be called before the workers take the same configuration.
    pub fn apply(&self, upstreams: &[UpstreamSettings], background: &Handle) {
        let mut members = self.members();
        let known = std::mem::take(&mut *members);
        let mut names: HashSet<ServerKey> = known.keys().cloned().collect();
        let mut heirs = heirs(known, upstreams);
        for (upstream, group) in groups(upstreams) {
            for address in &group.servers {
                let key = (Arc::clone(upstream), Arc::clone(&address.label));
                let mut member = match heirs.remove(&key) {
                    Some(Heir::Same(member)) => member,
                    Some(Heir::Renamed(member)) => {
                        member.health.shown_by(self.gauge(upstream, address));
                        member
                    }
                    None => self.member(upstream, address),
                };
                member.check(group, background, &self.clock);
                names.remove(&key);
                members.insert(key, member);
            }
        }
        for (upstream, server) in names {
            // fails where the label was never used, and then it is gone as well
            self.metrics.upstream_healthy.remove_label_values(&[&*upstream, &*server]).unwrap_or_default();
        }
    }

    /// Whether a server is used: up by its check, and not set aside. `None` for one that is not known.
    #[cfg(test)]
    pub(super) fn healthy(&self, upstream: &str, server: &str) -> Option<bool> {
        let health = Arc::clone(&self.members().get(&(upstream.into(), server.into()))?.health);
        Some(health.is_up() && !health.is_set_aside(self.clock.now()))
    }

    /// What workers read of one server. Of one that the applied configuration does not have, nothing is known, nor shown.
    pub(super) fn health(&self, upstream: &Arc<str>, address: &ServerAddress) -> Arc<Health> {
        let key = (Arc::clone(upstream), Arc::clone(&address.label));
        let known = self.members().get(&key).map(|member| Arc::clone(&member.health));
        known.unwrap_or_else(|| Arc::new(Health::new(self.epoch, None)))
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    fn member(&self, upstream: &str, address: &ServerAddress) -> Member {
        let health = Arc::new(Health::new(self.epoch, Some(self.gauge(upstream, address))));
        Member { health, address: address.clone(), check: None, tls: None, probe: None }
    }

    fn gauge(&self, upstream: &str, address: &ServerAddress) -> IntGauge {
        self.metrics.upstream_healthy.with_label_values(&[upstream, &address.label])
    }

    fn members(&self) -> MutexGuard<'_, HashMap<ServerKey, Member>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OfServer for Member {
    fn is_of(&self, address: &ServerAddress, _: &ServerGroup) -> bool {
        self.address == *address
    }

    fn may_be_renamed(&self, address: &ServerAddress, group: &ServerGroup) -> bool {
        self.is_of(address, group) && self.is_checked_by(group)
    }

    /// What two upstreams know of one server may differ for a moment; whatever is wrong will be found again.
    fn is_last_choice(&self) -> bool {
        !self.health.is_up()
    }
}

impl Member {
    /// Whether it is checked as the group says.
    fn is_checked_by(&self, group: &ServerGroup) -> bool {
        self.check == group.health && is_reached_alike(&self.address, self.tls.as_ref(), group)
    }

    fn check(&mut self, group: &ServerGroup, background: &Handle, clock: &Clock) {
        // a task with old settings would probe with a certificate that is gone; one that begins anew has forgotten what it
        // has counted
        if self.is_checked_by(group) && (self.probe.is_some() || self.check.is_none()) {
            return;
        }
        self.tls.clone_from(&group.tls);
        if let Some(probe) = self.probe.take() {
            probe.abort();
        }
        self.check.clone_from(&group.health);
        self.health.checked.store(self.check.is_some(), Ordering::Relaxed);
        match self.check.clone() {
            None => self.health.set_up(true),
            Some(check) => {
                let dialer = Dialer::new(&self.address, group.tls.as_ref(), clock.clone());
                let task = background.spawn(watch(dialer, check, Arc::clone(&self.health)));
                self.probe = Some(task.abort_handle());
            }
        }
    }
}

/// Counts in a row, and when they turn the verdict.
struct Streak {
    up: bool,
    against: u32,
}

impl Streak {
    /// Takes one more result; `Some` where the verdict turns.
    fn take(&mut self, success: bool, check: &HealthCheck) -> Option<bool> {
        if success == self.up {
            self.against = 0;
            return None;
        }
        self.against += 1;
        let enough = if self.up { check.unhealthy_after } else { check.healthy_after };
        if self.against < enough {
            return None;
        }
        *self = Self { up: success, against: 0 };
        Some(success)
    }
}

async fn watch(dialer: Dialer, check: HealthCheck, health: Arc<Health>) {
    let mut streak = Streak { up: health.up.load(Ordering::Relaxed), against: 0 };
    loop {
        let result = tokio::time::timeout(check.timeout, probe(&dialer, &check)).await;
        let success = matches!(result, Ok(Ok(status)) if status.is_success() || status.is_redirection());
        if let Some(up) = streak.take(success, &check) {
            health.set_up(up);
            let server = &*dialer.address.label;
            if up {
                tracing::info!(server, "server marked up");
            } else {
                tracing::warn!(server, "server marked down");
            }
        }
        tokio::time::sleep(check.interval + jitter(check.interval)).await;
    }
}

fn jitter(interval: Duration) -> Duration {
    let part = getrandom::u32().unwrap_or_default() % 1000;
    interval / JITTER_PART * part / 1000
}

#[derive(Debug, thiserror::Error)]
enum ProbeError {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error(transparent)]
    Http(#[from] hyper::Error),
    #[error("health path is no target")]
    Target(#[from] http::Error),
}

/// One probe over a connection of its own: what is asked is whether a caller could be served now.
async fn probe(dialer: &Dialer, check: &HealthCheck) -> Result<StatusCode, ProbeError> {
    let Dialed { stream, http2 } = dialer.dial(Offer::Any).await?;
    let (protocol, authority) = (dialer.address.protocol, dialer.address.authority());
    let request = Request::builder().method(Method::GET).header(header::USER_AGENT, USER_AGENT);
    let io = TokioIo::new(stream);
    if http2 {
        let scheme = if protocol == Protocol::Https { "https" } else { "http" };
        let uri = Uri::builder().scheme(scheme).authority(authority.as_bytes()).path_and_query(&*check.path).build()?;
        let request = request.version(Version::HTTP_2).uri(uri).body(Empty::<Bytes>::new())?;
        let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await?;
        let connection = tokio::spawn(connection);
        let answered = sender.send_request(request).await.map(|response| response.status());
        connection.abort();
        return Ok(answered?);
    }
    let request = request.uri(&*check.path).header(header::HOST, authority).body(Empty::<Bytes>::new())?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await?;
    let connection = tokio::spawn(connection);
    let answered = sender.send_request(request).await.map(|response| response.status());
    connection.abort();
    Ok(answered?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verdict_turns_after_as_many_as_the_settings_say() {
        let check = HealthCheck {
            path: "/".into(),
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            unhealthy_after: 3,
            healthy_after: 2,
        };
        for (name, results, expected) in [
            ("two failures do not", "--", "uu"),
            ("three do", "---", "uud"),
            ("a success between starts anew", "--+--", "uuuuu"),
            ("one success does not bring back", "---+", "uudd"),
            ("two do", "---++", "uuddu"),
            ("a failure between starts anew", "---+-+", "uudddd"),
        ] {
            let mut streak = Streak { up: true, against: 0 };
            let verdicts: String = results
                .chars()
                .map(|result| {
                    streak.take(result == '+', &check);
                    if streak.up { 'u' } else { 'd' }
                })
                .collect();
            assert_eq!(verdicts, expected, "{name}");
        }
    }

    #[test]
    fn a_server_that_cannot_be_reached_is_set_aside_for_a_while() {
        let clock = Clock::system();
        let health = Health::new(clock.now(), None);
        for _ in 1..CONNECT_FAILURES_MAX {
            health.connect_failed(clock.now());
            assert!(!health.is_set_aside(clock.now()));
        }
        health.connect_failed(clock.now());
        assert!(health.is_set_aside(clock.now()));
        assert!(health.is_up(), "its check was not asked");
        clock.advance(SET_ASIDE_FOR);
        assert!(!health.is_set_aside(clock.now()));
        health.connect_failed(clock.now());
        assert!(health.is_set_aside(clock.now()), "once more is enough");
        health.connected();
        assert!(!health.is_set_aside(clock.now()));
    }

    #[test]
    fn a_server_that_answers_no_request_is_set_aside_whether_it_can_be_reached_or_not() {
        let clock = Clock::system();
        let health = Health::new(clock.now(), None);
        let lose = |times: u32| (0..times).for_each(|_| health.lost(clock.now()));
        lose(LOST_MAX - 1);
        health.answered();
        lose(LOST_MAX - 1);
        assert!(!health.is_set_aside(clock.now()), "not in a row");
        lose(1);
        health.connected();
        assert!(health.is_set_aside(clock.now()), "that it can be reached says nothing");
        clock.advance(SET_ASIDE_FOR);
        assert!(!health.is_set_aside(clock.now()));
        health.chosen(clock.now());
        assert!(health.is_set_aside(clock.now()), "while one finds out");
        clock.advance(SET_ASIDE_FOR);
        assert!(!health.is_set_aside(clock.now()), "of which nobody has heard");
        health.answered();
        health.chosen(clock.now());
        assert!(!health.is_set_aside(clock.now()));
        // as a failure leaves it that is noted while an answer ends the row
        health.answers.until.store(health.since_epoch(clock.now() + SET_ASIDE_FOR), Ordering::Relaxed);
        health.answered();
        assert!(!health.is_set_aside(clock.now()), "an answer ends it, whatever was counted");
    }
}
