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
use tokio::sync::{Notify, OwnedSemaphorePermit};

use super::stall::{Stream, Streams};
use super::{ServeSettings, Timeouts};
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

/// Requests of a connection that may be taken back at once before it matters how many were not.
const TAKEN_BACK_MAX: u32 = 100;

/// The limits, in ticks.
#[derive(Clone, Copy, Debug)]
struct Limits {
    request_header: u32,
    idle: u32,
    farewell: u32,
}

/// What the connections of one worker share.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) settings: ServeSettings,
    /// How often the sweeper looks.
    pub(super) period: Duration,
    /// Connections that are open, upgraded ones included.
    pub(super) open: Arc<Open>,
    limits: Limits,
    now: Arc<AtomicU32>,
    links: RefCell<Vec<Weak<Link>>>,
    draining: Cell<bool>,
}

impl Worker {
    pub(super) fn new(settings: ServeSettings) -> Self {
        let Timeouts { request_header, idle, .. } = settings.timeouts;
        let period = (request_header.min(idle) / 8).clamp(Duration::from_millis(10), Duration::from_secs(1));
        let ticks = |limit: Duration| u32::try_from(limit.as_nanos().div_ceil(period.as_nanos())).unwrap_or(u32::MAX);
        let limits = Limits { request_header: ticks(request_header), idle: ticks(idle), farewell: ticks(FAREWELL) };
        Self {
            settings,
            period,
            open: Arc::default(),
            limits,
            now: Arc::default(),
            links: RefCell::default(),
            draining: Cell::new(false),
        }
    }

    /// A connection whose protocol is known.
    pub(super) fn link(&self) -> Arc<Link> {
        let link = Arc::new(Link::new(Arc::clone(&self.now)));
        if self.draining.get() {
            link.order(Order::Finish);
        }
        self.links.borrow_mut().push(Arc::downgrade(&link));
        link
    }

    /// Moves time by one tick and ends what is overdue.
    pub(super) fn sweep(&self) {
        self.now.store(self.now.load(Relaxed).wrapping_add(1), Relaxed);
        self.links.borrow_mut().retain(|link| link.strong_count() > 0);
        self.each(|link| link.sweep(self.limits));
    }

    /// Asks all connections to end, and those to come.
    pub(super) fn order(&self, order: Order) {
        self.draining.set(true);
        self.each(|link| link.order(order));
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
    _permit: OwnedSemaphorePermit,
}

impl Guard {
    pub(super) fn new(worker: &Worker, listener: &str, permit: OwnedSemaphorePermit) -> Self {
        let gauge = worker.settings.metrics.connections.with_label_values(&[listener]);
        gauge.inc();
        worker.open.count.fetch_add(1, Relaxed);
        Self { open: Arc::clone(&worker.open), gauge, _permit: permit }
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
    now: Arc<AtomicU32>,
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
    fn new(now: Arc<AtomicU32>) -> Self {
        let since = AtomicU32::new(now.load(Relaxed));
        Self {
            now,
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
        self.now.load(Relaxed)
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

    /// Whether a response should say that it is the last.
    pub(super) fn is_finishing(&self) -> bool {
        self.finishing.has_begun()
    }

    /// Notes a request that is handed to the handler, until the returned value is dropped.
    pub(super) fn begin(self: &Arc<Self>) -> UnderWay {
        self.calls.store(self.calls().wrapping_add(1), Relaxed);
        self.under_way.store(self.under_way.load(Relaxed) + 1, Relaxed);
        self.enter(Phase::Busy);
        UnderWay { link: Arc::clone(self), since: self.now(), answered: false }
    }

    /// Notes a request that was taken back before it was answered, within a tick or two. A caller may change their mind;
    /// one who mostly does so is after our work and the upstream's (CVE-2023-44487, paced so that h2 does not see it).
    fn take_back(&self, since: u32) {
        if self.now().wrapping_sub(since) > 1 {
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
        self.is_finishing().then_some(Order::Finish)
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
        // a tick more than the limit, since the first one may have been cut short
        match self.phase() {
            Phase::Head if waited > limits.request_header => {
                self.head_overdue.store(true, Relaxed);
                self.wake();
            }
            Phase::Opened if waited > limits.request_header => self.order(Order::Abort),
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
