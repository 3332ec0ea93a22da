//! What is known of one connection while it lives: shared between its task, its responses and the sweeper.
//!
//! A timer per request would cost more than the rest of its bookkeeping, so nobody here sets one: a connection notes the
//! worker's tick when something begins, and one sweeper a worker looks for what is overdue, a few times within the
//! shortest limit.

use std::cell::{Cell, OnceCell, RefCell};
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use prometheus::IntGauge;
use tokio::sync::Notify;

use super::backlog::{Backlog, Share};
use super::listeners::Offer;
use super::room::Place;
use super::stall::{Stream, Streams};
use super::{ListenState, Timeouts};
use crate::clock::Clock;
use crate::wire::body::{Body, BodyError};
use crate::wire::http1::spares::Spares;

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
    /// The end of its TLS handshake, which has a limit of its own.
    Handshake,
    /// The first byte of its first request.
    Opened,
    /// The rest of a head.
    Head,
    /// The next request.
    Idle,
    /// A request is under way.
    Busy,
}

/// How long a connection may be without a request, or with half a handshake or head, before it makes way for another at the
/// cap. A caller on a bad line needs that long to say what it wants.
const MAKES_WAY_AFTER: Duration = Duration::from_secs(1);

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
    now: Cell<u32>,
    /// Between two looks of the sweeper.
    period: Cell<u32>,
}

/// A time as HTTP writes it (RFC 9110 5.6.7).
type Date = [u8; 29];

/// The time of now.
fn date() -> Date {
    let text = httpdate::fmt_http_date(Clock::system().wall());
    text.as_bytes().try_into().unwrap_or(*b"Thu, 01 Jan 1970 00:00:00 GMT")
}

/// What the connections of one worker share.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) state: Arc<ListenState>,
    /// Connections that are open, upgraded ones included.
    pub(super) open: Arc<Open>,
    /// Buffers of connections on which nothing is under way.
    pub(super) spares: Rc<Spares>,
    /// What is on its way to callers of HTTP/2.
    pub(super) backlog: Arc<Backlog>,
    /// For `Date`, as of the sweeper's last look.
    pub(super) date: Cell<Date>,
    time: Rc<Time>,
    links: RefCell<Vec<Weak<Link>>>,
    draining: Cell<bool>,
}

impl Worker {
    pub(super) fn new(state: Arc<ListenState>) -> Self {
        Self {
            state,
            open: Arc::default(),
            spares: Rc::default(),
            backlog: Arc::default(),
            date: Cell::new(date()),
            time: Rc::default(),
            links: RefCell::default(),
            draining: Cell::new(false),
        }
    }

    /// A connection, and under which offer it came.
    pub(super) fn link(&self, offer: Arc<Offer>) -> Rc<Link> {
        let link = Rc::new(Link::new(Rc::clone(&self.time), offer));
        if self.draining.get() {
            link.order(Order::Finish);
        }
        self.links.borrow_mut().push(Rc::downgrade(&link));
        link
    }

    /// How often the sweeper is to look.
    pub(super) fn period(&self) -> Duration {
        period(&self.state.terms().timeouts)
    }

    /// Moves time by one period and ends what is overdue.
    pub(super) fn sweep(&self) {
        let limits = Limits::of(&self.state.terms().timeouts);
        self.time.period.set(limits.period);
        self.time.now.set(self.time.now.get().wrapping_add(limits.period));
        self.date.set(date());
        self.links.borrow_mut().retain(|link| link.strong_count() > 0);
        self.each(|link| link.sweep(limits));
    }

    /// Says that the process is to end: each connection is told so by its next response. Those that are kept without a request
    /// stay as they are, so that one that is on its way is answered (RFC 9112 9.6); others, and those to come, end once nothing
    /// is under way.
    pub(super) fn dismiss(&self) {
        self.draining.set(true);
        let limits = Limits::of(&self.state.terms().timeouts);
        self.each(|link| {
            if link.is_kept() {
                link.dismissed.set(true);
            } else {
                link.order(Order::Finish);
            }
            link.sweep(limits);
        });
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

    /// Ends the connection that has waited longest for its caller, if that is long enough, and then waits for `pause`.
    pub(super) async fn make_way(&self, pause: impl Future<Output = ()>) {
        if let Some((_, link)) = self.waiting().max_by_key(|(waited, _)| *waited) {
            link.order(if link.phase() == Phase::Idle { Order::Finish } else { Order::Abort });
        }
        pause.await;
    }

    /// Connections without a request that were not asked to end yet, and for how long they have had none.
    fn waiting(&self) -> impl Iterator<Item = (u32, Rc<Link>)> {
        let links: Vec<_> = self.links.borrow().iter().filter_map(Weak::upgrade).collect();
        let long = ticks(MAKES_WAY_AFTER);
        links.into_iter().filter(|link| link.phase() != Phase::Busy && !link.must_end()).filter_map(move |link| {
            let waited = link.now().wrapping_sub(link.since.get());
            (waited > long).then_some((waited, link))
        })
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

/// One connection.
#[derive(Debug)]
pub(super) struct Link {
    time: Rc<Time>,
    offer: Arc<Offer>,
    /// Whether it can be asked to end without a request being lost that is on its way: HTTP/2 tells how far it got.
    multiplexed: Cell<bool>,
    phase: Cell<Phase>,
    since: Cell<u32>,
    /// Since when the socket takes no more of a response.
    blocked: Since,
    /// Whether its next response is the last, although it is not asked to end.
    dismissed: Cell<bool>,
    /// Since when it has been asked to finish.
    finishing: Since,
    aborted: Cell<bool>,
    task: OnceCell<Waker>,
    /// Requests handed to the handler, ever.
    calls: Cell<u64>,
    /// Requests under way.
    under_way: Cell<u32>,
    /// Requests that the caller took back at once.
    taken_back: Cell<u32>,
    head_overdue: Cell<bool>,
    /// Of HTTP/2.
    streams: Streams,
    /// How often the task of HTTP/2 has written what there was to write.
    rounds: Cell<u32>,
    /// Who waits for the next time.
    next_round: RefCell<Vec<Waker>>,
}

/// The tick at which something began, if it has.
#[derive(Debug, Default)]
pub(super) struct Since(Cell<Option<u32>>);

impl Since {
    pub(super) fn begin(&self, now: u32) {
        if self.0.get().is_none() {
            self.0.set(Some(now));
        }
    }

    pub(super) fn end(&self) {
        self.0.set(None);
    }

    fn has_begun(&self) -> bool {
        self.0.get().is_some()
    }

    pub(super) fn exceeds(&self, now: u32, limit: u32) -> bool {
        self.0.get().is_some_and(|at| now.wrapping_sub(at) > limit)
    }
}

impl Link {
    fn new(time: Rc<Time>, offer: Arc<Offer>) -> Self {
        let since = Cell::new(time.now.get());
        Self {
            time,
            offer,
            multiplexed: Cell::new(false),
            phase: Cell::new(Phase::Opened),
            since,
            blocked: Since::default(),
            dismissed: Cell::new(false),
            finishing: Since::default(),
            aborted: Cell::new(false),
            task: OnceCell::new(),
            calls: Cell::new(0),
            under_way: Cell::new(0),
            taken_back: Cell::new(0),
            head_overdue: Cell::new(false),
            streams: Streams::default(),
            rounds: Cell::new(0),
            next_round: RefCell::default(),
        }
    }

    fn now(&self) -> u32 {
        self.time.now.get()
    }

    pub(super) fn enter(&self, phase: Phase) {
        if self.phase() != phase {
            self.phase.set(phase);
            self.since.set(self.now());
        }
    }

    pub(super) const fn phase(&self) -> Phase {
        self.phase.get()
    }

    /// Whether the head under way is too slow.
    pub(super) const fn head_is_overdue(&self) -> bool {
        self.head_overdue.get()
    }

    /// Notes whether the socket takes what is written.
    pub(super) fn blocked(&self, blocked: bool) {
        if blocked { self.blocked.begin(self.now()) } else { self.blocked.end() }
    }

    /// Whether a request is under way: from the call of the handler to the end of the response's body.
    const fn is_busy(&self) -> bool {
        self.under_way.get() > 0
    }

    /// Notes that this is HTTP/2.
    pub(super) fn multiplex(&self) {
        self.multiplexed.set(true);
        self.enter(Phase::Idle);
    }

    /// Whether a response should say that it is the last: of a connection that is asked to end, or of one whose listener
    /// is closed or offers something else, or whose process ends. The latter are not asked, since a request may be on its way.
    pub(super) fn is_finishing(&self) -> bool {
        self.finishing.has_begun() || self.dismissed.get() || self.offer.is_withdrawn()
    }

    /// Whether it is a connection of HTTP/1.1 that has served a request, or does, and may bring another at any time. HTTP/2
    /// tells its caller how far it got.
    fn is_kept(&self) -> bool {
        let has_served = match self.phase() {
            Phase::Idle | Phase::Busy => true,
            Phase::Head => self.calls.get() > 0,
            Phase::Handshake | Phase::Opened => false,
        };
        has_served && !self.multiplexed.get()
    }

    /// Whether it is asked to end once nothing is under way.
    pub(super) fn must_end(&self) -> bool {
        self.finishing.has_begun()
    }

    /// Notes a request that is handed to the handler, until the returned value is dropped.
    pub(super) fn begin(self: &Rc<Self>) -> UnderWay {
        self.calls.set(self.calls.get().wrapping_add(1));
        self.under_way.set(self.under_way.get() + 1);
        self.enter(Phase::Busy);
        UnderWay { link: Rc::clone(self), since: self.now(), answered: false }
    }

    /// Notes a request that was taken back before it was answered, between two or three looks of the sweeper. A caller may change their mind;
    /// one who mostly does so is after our work and the upstream's (CVE-2023-44487, paced so that h2 does not see it).
    fn take_back(&self, since: u32) {
        if self.now().wrapping_sub(since) > self.time.period.get() {
            return;
        }
        let taken_back = self.taken_back.get() + 1;
        self.taken_back.set(taken_back);
        if taken_back > TAKEN_BACK_MAX && u64::from(taken_back) * 2 > self.calls.get() {
            self.order(Order::Abort);
        }
    }

    /// Asks the connection's task for something; a stronger order stays.
    pub(super) fn order(&self, order: Order) {
        if order == Order::Abort {
            self.aborted.set(true);
        }
        self.finishing.begin(self.now());
        self.wake();
    }

    /// What is asked of the task that polls; it is woken for the next order. A task's waker stays the same.
    pub(super) fn ordered(&self, cx: &Context<'_>) -> Option<Order> {
        self.task.get_or_init(|| cx.waker().clone());
        if self.aborted.get() {
            return Some(Order::Abort);
        }
        self.finishing.has_begun().then_some(Order::Finish)
    }

    /// Has the connection's task look again.
    pub(super) fn wake(&self) {
        if let Some(waker) = self.task.get() {
            waker.wake_by_ref();
        }
    }

    pub(super) const fn streams(&self) -> &Streams {
        &self.streams
    }

    /// Notes that the task of HTTP/2 has written what there was to write, as far as the socket took it.
    pub(super) fn wrote(&self) {
        self.rounds.set(self.rounds.get().wrapping_add(1));
        for waker in self.next_round.borrow_mut().drain(..) {
            waker.wake();
        }
    }

    /// Ready once that was done after `round`.
    fn poll_after(&self, round: u32, cx: &Context<'_>) -> Poll<()> {
        if self.rounds.get() != round {
            return Poll::Ready(());
        }
        self.next_round.borrow_mut().push(cx.waker().clone());
        self.wake();
        Poll::Pending
    }

    fn sweep(&self, limits: Limits) {
        let now = self.now();
        let waited = now.wrapping_sub(self.since.get());
        if self.offer.is_withdrawn() && self.multiplexed.get() {
            self.order(Order::Finish);
        }
        match self.phase() {
            Phase::Head if waited > limits.request_header => {
                self.head_overdue.set(true);
                self.wake();
            }
            Phase::Opened if waited > limits.request_header => self.order(Order::Abort),
            Phase::Opened if self.finishing.has_begun() && waited > limits.first_byte => self.order(Order::Abort),
            Phase::Idle if waited > limits.idle && !self.streams.have_tunnel() => self.order(Order::Finish),
            Phase::Handshake | Phase::Opened | Phase::Head | Phase::Idle | Phase::Busy => {}
        }
        let is_done = !self.is_busy() && !self.streams.have_tunnel();
        let unanswered = self.finishing.exceeds(now, limits.farewell) && is_done;
        if unanswered || self.blocked.exceeds(now, limits.idle) {
            self.order(Order::Abort);
        }
        self.streams.sweep(now, limits.idle);
    }
}

/// A request under way.
#[derive(Debug)]
pub(super) struct UnderWay {
    link: Rc<Link>,
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
        link.under_way.set(link.under_way.get() - 1);
        if !link.is_busy() {
            link.enter(Phase::Idle);
        }
    }
}

/// The body of a response over HTTP/2, which ends the request when it ends.
#[derive(Debug)]
pub(super) struct Tracked {
    body: Body,
    under_way: UnderWay,
    stream: Option<Rc<Stream>>,
    /// Of its connection, where what is written of it counts: what is here already takes no more by being handed on.
    share: Option<Arc<Share>>,
    /// How it broke off, and in which round.
    broken: Option<(BodyError, u32)>,
}

impl Tracked {
    pub(super) fn new(body: Body, under_way: UnderWay, share: &Arc<Share>) -> Self {
        debug_assert!(body.lines().is_none(), "HTTP/2 has its fields from the map");
        let share = (!body.is_here()).then(|| Arc::clone(share));
        let tracked = Self { body, under_way, stream: Stream::current(), share, broken: None };
        tracked.is_asked(false);
        tracked
    }

    /// Notes whether this is to give more. One that is asked and has nothing yet is not the caller's fault.
    fn is_asked(&self, asked: bool) {
        let Some(stream) = &self.stream else { return };
        if asked { stream.unasked.end() } else { stream.unasked.begin(self.under_way.link.now()) }
    }

    /// The next of the body. That it broke off is told only once what came before is written: h2 forgets with the stream what
    /// it has yet to write of it, the head of the response first, and the caller would see neither status nor content.
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let link = &self.under_way.link;
        let (error, round) = match self.broken.take() {
            Some(broken) => broken,
            None => match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Err(error)) => (error, link.rounds.get()),
                frame => return Poll::Ready(frame),
            },
        };
        if link.poll_after(round, cx).is_pending() {
            self.broken = Some((error, round));
            return Poll::Pending;
        }
        Poll::Ready(Some(Err(error)))
    }
}

impl HttpBody for Tracked {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let tracked = self.get_mut();
        if tracked.share.as_ref().is_some_and(|share| share.poll_room(cx).is_pending()) {
            // its caller has enough that it does not take
            tracked.is_asked(false);
            return Poll::Pending;
        }
        let polled = tracked.poll_body(cx).map_ok(|frame| match &tracked.share {
            Some(share) => frame.map_data(|data| share.count(data)),
            None => frame,
        });
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
