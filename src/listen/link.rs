//! What is known of one connection while it lives: shared between its task, its socket, its responses and the sweeper.
//!
//! A timer per request would cost more than the rest of its bookkeeping, so nobody here sets one: a connection notes the
//! worker's tick when something begins, and one sweeper a worker looks for what is overdue, a few times within the
//! shortest limit.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use prometheus::IntGauge;
use tokio::sync::Notify;

use super::listeners::Offer;
use super::room::Place;
use super::stall::{Stream, Streams};
use super::{ListenState, Timeouts};
use crate::rejection::Rejection;
use crate::wire::body::{Body, BodyError};

/// What a connection is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// End once nothing is under way.
    Finish,
    /// End now.
    Abort,
}

/// What a connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The first byte of its first request.
    Opened,
    /// The rest of a head.
    Head,
    /// The next request.
    Idle,
    /// A request is under way.
    Busy,
}

/// How long a connection that was asked to finish may take over telling so.
const FAREWELL: Duration = Duration::from_secs(5);

/// How old a connection may be that has sent nothing when the process is told to end: its first request may be on its way.
pub(super) const FIRST_BYTE: Duration = Duration::from_millis(500);

/// Requests of a connection that may be taken back at once before it matters how many were not.
const TAKEN_BACK_MAX: u32 = 100;

/// What a tick is. Few enough fit a `u32` for longer than anything here lasts: they may wrap, after more than a year.
const TICK: Duration = Duration::from_millis(10);

/// The limits, in ticks.
#[derive(Clone, Copy, Debug)]
struct Limits {
    request_header: u32,
    idle: u32,
    farewell: u32,
    first_byte: u32,
    /// Between two looks of the sweeper.
    period: u32,
}

impl Limits {
    fn of(timeouts: &Timeouts) -> Self {
        let period = period(timeouts);
        // a look more than the limit, since the first one may have been cut short
        let of = |limit: Duration| ticks(limit).saturating_add(ticks(period) - 1);
        Self {
            request_header: of(timeouts.request_header),
            idle: of(timeouts.idle),
            farewell: of(FAREWELL),
            first_byte: of(FIRST_BYTE),
            period: ticks(period),
        }
    }
}

fn period(timeouts: &Timeouts) -> Duration {
    (timeouts.request_header.min(timeouts.idle) / 8).clamp(TICK, Duration::from_secs(1))
}

fn ticks(time: Duration) -> u32 {
    u32::try_from(time.as_nanos().div_ceil(TICK.as_nanos())).unwrap_or(u32::MAX)
}

/// The time of a worker's connections, as the sweeper moves it.
#[derive(Debug, Default)]
struct Time {
    now: AtomicU32,
    /// Between two looks of the sweeper.
    period: AtomicU32,
}

/// What the connections of one worker share.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) state: Arc<ListenState>,
    /// Connections that are open, upgraded ones included.
    pub(super) open: Arc<Open>,
    time: Arc<Time>,
    links: RefCell<Vec<Weak<Link>>>,
    draining: Cell<bool>,
}

impl Worker {
    pub(super) fn new(state: Arc<ListenState>) -> Self {
        Self {
            state,
            open: Arc::default(),
            time: Arc::default(),
            links: RefCell::default(),
            draining: Cell::new(false),
        }
    }

    /// A connection whose protocol is known, and under which offer it came.
    pub(super) fn link(&self, offer: Arc<Offer>) -> Arc<Link> {
        let link = Arc::new(Link::new(Arc::clone(&self.time), offer));
        if self.draining.get() {
            link.order(Order::Finish);
        }
        self.links.borrow_mut().push(Arc::downgrade(&link));
        link
    }

    /// How often the sweeper is to look.
    pub(super) fn period(&self) -> Duration {
        period(&self.state.terms().timeouts)
    }

    /// Moves time by one period and ends what is overdue.
    pub(super) fn sweep(&self) {
        let limits = Limits::of(&self.state.terms().timeouts);
        self.time.period.store(limits.period, Relaxed);
        self.time.now.store(self.time.now.load(Relaxed).wrapping_add(limits.period), Relaxed);
        self.links.borrow_mut().retain(|link| link.strong_count() > 0);
        self.each(|link| link.sweep(limits));
    }

    /// Asks all connections to end, and those to come.
    pub(super) fn order(&self, order: Order) {
        self.draining.set(true);
        let limits = Limits::of(&self.state.terms().timeouts);
        self.each(|link| {
            link.order(order);
            link.sweep(limits);
        });
    }

    /// To wake a task runs nothing of it, so nobody borrows the list a second time.
    fn each(&self, visit: impl Fn(&Link)) {
        for link in self.links.borrow().iter().filter_map(Weak::upgrade) {
            visit(&link);
        }
    }
}

/// How many connections are open.
#[derive(Debug, Default)]
pub(super) struct Open {
    count: AtomicUsize,
    emptied: Notify,
}

impl Open {
    /// Ready where none is.
    pub(super) async fn none(&self) {
        loop {
            let emptied = self.emptied.notified();
            if self.count.load(Relaxed) == 0 {
                return;
            }
            emptied.await;
        }
    }
}

/// Counts a connection while it lives.
#[derive(Debug)]
pub(super) struct Guard {
    open: Arc<Open>,
    gauge: IntGauge,
    _place: Place,
}

impl Guard {
    pub(super) fn new(worker: &Worker, listener: &str, place: Place) -> Self {
        let gauge = worker.state.metrics.connections.with_label_values(&[listener]);
        gauge.inc();
        worker.open.count.fetch_add(1, Relaxed);
        Self { open: Arc::clone(&worker.open), gauge, _place: place }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.gauge.dec();
        if self.open.count.fetch_sub(1, Relaxed) == 1 {
            self.open.emptied.notify_waiters();
        }
    }
}

/// One connection. Its cells are atomic only since an upgraded socket must be `Send`; they are written by one thread.
#[derive(Debug)]
pub(super) struct Link {
    time: Arc<Time>,
    offer: Arc<Offer>,
    /// Whether it can be asked to end without a request being lost that is on its way: HTTP/2 tells how far it got.
    multiplexed: AtomicBool,
    phase: AtomicU32,
    since: AtomicU32,
    /// Since when the socket takes no more of a response.
    blocked: Since,
    /// Since when it has been asked to finish.
    finishing: Since,
    aborted: AtomicBool,
    task: OnceLock<Waker>,
    /// Requests handed to the handler, ever.
    calls: AtomicU64,
    /// Requests under way.
    under_way: AtomicU32,
    /// Requests that the caller took back at once.
    taken_back: AtomicU32,
    head_overdue: AtomicBool,
    upgraded: AtomicBool,
    refusal_wanted: AtomicBool,
    refusal: Mutex<Refusal>,
    /// Of HTTP/2.
    streams: Streams,
}

/// A refusal in the making: the socket says which, the connection's task, which has the handler, how.
#[derive(Debug)]
enum Refusal {
    None,
    Wanted(Rejection),
    Written(Vec<u8>),
}

/// The tick at which something began, if it has.
#[derive(Debug, Default)]
pub(super) struct Since {
    begun: AtomicBool,
    at: AtomicU32,
}

impl Since {
    fn begin(&self, now: u32) {
        if !self.begun.load(Relaxed) {
            self.at.store(now, Relaxed);
            self.begun.store(true, Relaxed);
        }
    }

    fn end(&self) {
        self.begun.store(false, Relaxed);
    }

    fn has_begun(&self) -> bool {
        self.begun.load(Relaxed)
    }

    pub(super) fn exceeds(&self, now: u32, limit: u32) -> bool {
        self.has_begun() && now.wrapping_sub(self.at.load(Relaxed)) > limit
    }
}

impl Phase {
    const ALL: [Self; 4] = [Self::Opened, Self::Head, Self::Idle, Self::Busy];
}

impl Link {
    fn new(time: Arc<Time>, offer: Arc<Offer>) -> Self {
        let since = AtomicU32::new(time.now.load(Relaxed));
        Self {
            time,
            offer,
            multiplexed: AtomicBool::new(false),
            phase: AtomicU32::new(Phase::Opened as u32),
            since,
            blocked: Since::default(),
            finishing: Since::default(),
            aborted: AtomicBool::new(false),
            task: OnceLock::new(),
            calls: AtomicU64::new(0),
            under_way: AtomicU32::new(0),
            taken_back: AtomicU32::new(0),
            head_overdue: AtomicBool::new(false),
            upgraded: AtomicBool::new(false),
            refusal_wanted: AtomicBool::new(false),
            refusal: Mutex::new(Refusal::None),
            streams: Streams::default(),
        }
    }

    fn now(&self) -> u32 {
        self.time.now.load(Relaxed)
    }

    pub(super) fn enter(&self, phase: Phase) {
        if self.phase() != phase {
            self.phase.store(phase as u32, Relaxed);
            self.since.store(self.now(), Relaxed);
        }
    }

    pub(super) fn phase(&self) -> Phase {
        let stored = self.phase.load(Relaxed);
        Phase::ALL.into_iter().find(|phase| *phase as u32 == stored).unwrap_or(Phase::Opened)
    }

    /// Whether the head under way is too slow.
    pub(super) fn head_is_overdue(&self) -> bool {
        self.head_overdue.load(Relaxed)
    }

    /// Notes whether the socket takes what is written.
    pub(super) fn blocked(&self, blocked: bool) {
        if blocked { self.blocked.begin(self.now()) } else { self.blocked.end() }
    }

    pub(super) fn calls(&self) -> u64 {
        self.calls.load(Relaxed)
    }

    /// Whether a request is under way: from the call of the handler to the end of the response's body.
    pub(super) fn is_busy(&self) -> bool {
        self.under_way.load(Relaxed) > 0
    }

    pub(super) fn is_upgraded(&self) -> bool {
        self.upgraded.load(Relaxed)
    }

    pub(super) fn upgrade(&self) {
        self.upgraded.store(true, Relaxed);
    }

    /// Notes that this is HTTP/2.
    pub(super) fn multiplex(&self) {
        self.multiplexed.store(true, Relaxed);
        self.enter(Phase::Idle);
    }

    /// Whether a response should say that it is the last: of a connection that is asked to end, or of one whose listener
    /// is closed or offers something else. The latter is not asked, since a request may be on its way.
    pub(super) fn is_finishing(&self) -> bool {
        self.finishing.has_begun() || self.offer.is_withdrawn()
    }

    /// Notes a request that is handed to the handler, until the returned value is dropped.
    pub(super) fn begin(self: &Arc<Self>) -> UnderWay {
        self.calls.store(self.calls().wrapping_add(1), Relaxed);
        self.under_way.store(self.under_way.load(Relaxed) + 1, Relaxed);
        self.enter(Phase::Busy);
        UnderWay { link: Arc::clone(self), since: self.now(), answered: false }
    }

    /// Notes a request that was taken back before it was answered, between two or three looks of the sweeper. A caller may change their mind;
    /// one who mostly does so is after our work and the upstream's (CVE-2023-44487, paced so that h2 does not see it).
    fn take_back(&self, since: u32) {
        if self.now().wrapping_sub(since) > self.time.period.load(Relaxed) {
            return;
        }
        let taken_back = self.taken_back.load(Relaxed) + 1;
        self.taken_back.store(taken_back, Relaxed);
        if taken_back > TAKEN_BACK_MAX && u64::from(taken_back) * 2 > self.calls() {
            self.order(Order::Abort);
        }
    }

    /// Asks the connection's task for something; a stronger order stays.
    pub(super) fn order(&self, order: Order) {
        if order == Order::Abort {
            self.aborted.store(true, Relaxed);
        }
        self.finishing.begin(self.now());
        self.wake();
    }

    /// What is asked of the task that polls; it is woken for the next order. A task's waker stays the same.
    pub(super) fn ordered(&self, cx: &Context<'_>) -> Option<Order> {
        self.task.get_or_init(|| cx.waker().clone());
        if self.aborted.load(Relaxed) {
            return Some(Order::Abort);
        }
        self.finishing.has_begun().then_some(Order::Finish)
    }

    fn wake(&self) {
        if let Some(waker) = self.task.get() {
            waker.wake_by_ref();
        }
    }

    pub(super) const fn streams(&self) -> &Streams {
        &self.streams
    }

    /// Asks the connection's task to write a refusal.
    pub(super) fn want_refusal(&self, rejection: Rejection) {
        *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = Refusal::Wanted(rejection);
        self.refusal_wanted.store(true, Relaxed);
    }

    /// Writes the refusal that is wanted, if one is.
    pub(super) fn write_refusal(&self, write: impl FnOnce(Rejection) -> Vec<u8>) -> bool {
        if !self.refusal_wanted.load(Relaxed) {
            return false;
        }
        self.refusal_wanted.store(false, Relaxed);
        let mut refusal = self.refusal.lock().unwrap_or_else(PoisonError::into_inner);
        let Refusal::Wanted(rejection) = std::mem::replace(&mut *refusal, Refusal::None) else { return false };
        *refusal = Refusal::Written(write(rejection));
        true
    }

    /// The refusal, once it is written.
    pub(super) fn take_refusal(&self) -> Option<Vec<u8>> {
        let mut refusal = self.refusal.lock().unwrap_or_else(PoisonError::into_inner);
        match std::mem::replace(&mut *refusal, Refusal::None) {
            Refusal::Written(text) => Some(text),
            other @ (Refusal::None | Refusal::Wanted(_)) => {
                *refusal = other;
                None
            }
        }
    }

    fn sweep(&self, limits: Limits) {
        let now = self.now();
        let waited = now.wrapping_sub(self.since.load(Relaxed));
        if self.offer.is_withdrawn() && self.multiplexed.load(Relaxed) {
            self.order(Order::Finish);
        }
        match self.phase() {
            Phase::Head if waited > limits.request_header => {
                self.head_overdue.store(true, Relaxed);
                self.wake();
            }
            Phase::Opened if waited > limits.request_header => self.order(Order::Abort),
            Phase::Opened if self.finishing.has_begun() && waited > limits.first_byte => self.order(Order::Abort),
            Phase::Idle if waited > limits.idle && !self.is_upgraded() => self.order(Order::Finish),
            Phase::Opened | Phase::Head | Phase::Idle | Phase::Busy => {}
        }
        let unanswered = self.finishing.exceeds(now, limits.farewell) && !self.is_busy() && !self.is_upgraded();
        if unanswered || self.blocked.exceeds(now, limits.idle) {
            self.order(Order::Abort);
        }
        self.streams.sweep(now, limits.idle);
    }
}

/// A request under way.
#[derive(Debug)]
pub(super) struct UnderWay {
    link: Arc<Link>,
    since: u32,
    answered: bool,
}

impl UnderWay {
    /// Notes that there is a response; its body may still be long.
    pub(super) fn answered(mut self) -> Self {
        self.answered = true;
        self
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let Self { link, since, answered } = self;
        if !*answered {
            link.take_back(*since);
        }
        link.under_way.store(link.under_way.load(Relaxed) - 1, Relaxed);
        if !link.is_busy() {
            link.enter(Phase::Idle);
        }
    }
}

/// The body of a response, which ends the request when it ends.
#[derive(Debug)]
pub(super) struct Tracked {
    body: Body,
    under_way: UnderWay,
    stream: Option<Arc<Stream>>,
}

impl Tracked {
    pub(super) fn new(body: Body, under_way: UnderWay) -> Self {
        let tracked = Self { body, under_way, stream: Stream::current() };
        tracked.is_asked(false);
        tracked
    }

    /// Notes whether this is to give more. One that is asked and has nothing yet is not the caller's fault.
    fn is_asked(&self, asked: bool) {
        let Some(stream) = &self.stream else { return };
        if asked { stream.unasked.end() } else { stream.unasked.begin(self.under_way.link.now()) }
    }
}

impl HttpBody for Tracked {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let tracked = self.get_mut();
        let polled = Pin::new(&mut tracked.body).poll_frame(cx);
        tracked.is_asked(true);
        if polled.is_ready() {
            tracked.is_asked(false);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
