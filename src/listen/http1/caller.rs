//! A caller's socket and what was read from it, shared by the connection's task and the body of the request under way.
//!
//! A buffer is here only while bytes are in it. The body's reader and the task never wait for the socket at once: while
//! there is a body that somebody wants, its reader reads; else the task does, to see the caller hang up.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::request;
use http_body::Frame;
use tokio::io::{AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep, timeout};

use super::Socket;
use super::body::RequestBody;
use crate::listen::connection::PREFACE;
use crate::listen::head::{self, Fault, Head, HeadBounds};
use crate::listen::link::{Link, Phase};
use crate::wire::body::{Body, BodyError};
use crate::wire::http1::Framing;
use crate::wire::http1::chunked::{Decoder, Piece, TRAILER_BYTES_MAX, whole_chunks};
use crate::wire::http1::intake::{Broken, Intake};
use crate::wire::http1::spares::{Buffer, Spares};

/// How long a response may take for a caller who has ended their side: one who has said all, or who is gone, which looks
/// the same until something is written.
const HALF_CLOSED: Duration = Duration::from_secs(2);

/// How long what still comes is dropped at the end, since a reset could overtake the response; and how long nothing may come
/// meanwhile. Many a sender reads only once all was sent.
const LINGER: Duration = Duration::from_secs(10);
const LINGER_SILENCE: Duration = Duration::from_secs(2);

/// What is read of a body that nobody wants, without waiting for it, so that the connection can serve another request.
const DRAIN_BYTES_MAX: usize = 64 * 1024;

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// One caller's connection.
pub(super) struct Caller<S> {
    state: RefCell<State<S>>,
    /// Whether the connection's task is at work, and sees by itself what has changed.
    at_work: Cell<bool>,
    link: Rc<Link>,
}

struct State<S> {
    /// `None` once it was given away or closed.
    socket: Option<S>,
    /// Read and not yet understood.
    held: Option<Buffer>,
    /// How much of that was looked at in vain.
    seen: usize,
    /// Bytes of empty lines before the next request.
    empty_bytes: usize,
    coming: Coming,
    /// Whether the caller waits for 100 before the body.
    expects: bool,
    /// What is left of an interim response to be written.
    interim: &'static [u8],
    /// The caller has ended their side; until when the response may leave.
    half_closed: Option<Pin<Box<Sleep>>>,
    /// Another task, which reads the body.
    reader: Option<Waker>,
    spares: Rc<Spares>,
    link: Rc<Link>,
}

/// The body of the request under way.
enum Coming {
    /// All of it has come.
    Nothing,
    /// Somebody reads it.
    Wanted(Box<Intake>),
    /// Nobody does any more.
    Unwanted(Box<Intake>),
    /// It has no end.
    Broken,
}

/// What has come.
pub(super) enum Arrived {
    /// A request: its head and its body.
    Request(Head, Body),
    /// What is none.
    /// What is no request, and what could be read of it.
    Refused(Fault, Box<request::Parts>),
    /// The caller speaks HTTP/2.
    Http2,
    /// Nothing more.
    End,
}

/// What heads are held to.
#[derive(Clone, Copy)]
pub(super) struct Expected {
    pub(super) bounds: HeadBounds,
    /// Whether the connection's first bytes may be those of HTTP/2.
    pub(super) or_http2: bool,
}

impl<S: Socket> Caller<S> {
    pub(super) fn new(socket: S, spares: &Rc<Spares>, link: &Rc<Link>) -> Rc<Self> {
        let state = RefCell::new(State {
            socket: Some(socket),
            held: None,
            seen: 0,
            empty_bytes: 0,
            coming: Coming::Nothing,
            expects: false,
            interim: b"",
            half_closed: None,
            reader: None,
            spares: Rc::clone(spares),
            link: Rc::clone(link),
        });
        Rc::new(Self { state, at_work: Cell::new(false), link: Rc::clone(link) })
    }

    /// The next request.
    pub(super) fn poll_request(self: &Rc<Self>, cx: &mut Context<'_>, expected: Expected) -> Poll<Arrived> {
        let mut state = self.state.borrow_mut();
        let mut buffer = state.held.take().unwrap_or_else(|| state.spares.to_read());
        let polled = state.poll_head(&mut buffer, cx, expected);
        let polled = polled.map(|read| match read {
            Ok(Read::Head(head)) => {
                buffer.skip(head.length);
                state.empty_bytes = 0;
                let body = state.begin(self, &head, &mut buffer, expected.bounds);
                Arrived::Request(head, body)
            }
            Ok(Read::Http2) => Arrived::Http2,
            Ok(Read::End) => Arrived::End,
            Err(fault) => Arrived::Refused(fault, Box::new(head::glimpse(buffer.filled(), expected.bounds))),
        });
        state.hold(buffer);
        polled
    }

    /// Does a piece of the connection's own work; what the body's reader changes meanwhile need not wake its task.
    pub(super) fn at_work<T>(&self, work: impl FnOnce() -> T) -> T {
        self.at_work.set(true);
        let done = work();
        self.at_work.set(false);
        done
    }

    /// Ready once the caller is gone, as far as that can be known while a response is made.
    pub(super) fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.state.borrow_mut().poll_gone(cx)
    }

    /// From here on the caller gets a response; it is too late for 100.
    pub(super) fn answers(&self) {
        self.state.borrow_mut().expects = false;
    }

    /// Whether the body was read to its end; ready where that is known, which for a body that nobody wants any more is now.
    pub(super) fn poll_body_over(&self, cx: &mut Context<'_>) -> Poll<bool> {
        self.state.borrow_mut().poll_body_over(cx)
    }

    /// Whether nobody will read the rest of the body, and it is not at hand either.
    pub(super) fn leaves_body(&self, cx: &mut Context<'_>) -> bool {
        self.poll_body_over(cx) == Poll::Ready(false)
    }

    /// Whether something was said behind the last request.
    pub(super) fn holds(&self) -> bool {
        self.state.borrow().held.is_some()
    }

    /// The socket, and what was read from it.
    pub(super) fn leave(&self) -> Option<(S, BytesMut)> {
        let mut state = self.state.borrow_mut();
        let held = state.held.take();
        let socket = state.socket.take()?;
        Some((socket, held.map_or_else(BytesMut::new, |buffer| BytesMut::from(buffer.filled()))))
    }

    /// Ends the connection such that nobody takes what was sent for the whole.
    pub(super) fn reset(&self) {
        if let Some(socket) = &mut self.state.borrow_mut().socket {
            socket.reset_when_closed();
        }
    }

    /// Ends our side.
    pub(super) fn poll_shutdown(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let state = &mut *self.state.borrow_mut();
        state.socket.as_mut().map_or(Poll::Ready(Ok(())), |socket| Pin::new(socket).poll_shutdown(cx))
    }

    /// Drops what still comes, until the caller hangs up or enough was waited.
    pub(super) async fn linger(&self) {
        let reader = {
            let mut state = self.state.borrow_mut();
            state.coming = Coming::Broken;
            state.reader.take()
        };
        if let Some(reader) = reader {
            reader.wake();
        }
        let hung_up = async {
            let more = || std::future::poll_fn(|cx| self.state.borrow_mut().poll_drop_input(cx));
            while matches!(timeout(LINGER_SILENCE, more()).await, Ok(true)) {}
        };
        // who does not hang up is cut off
        drop(timeout(LINGER, hung_up).await);
    }

    /// The socket is gone; whoever waits for a body is told.
    pub(super) fn close(&self) {
        let mut state = self.state.borrow_mut();
        let (socket, reader) = (state.socket.take(), state.reader.take());
        if let Some(buffer) = state.held.take() {
            state.spares.was_read(buffer);
        }
        drop(state);
        drop(socket);
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    pub(super) fn poll_frame(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let state = &mut *self.state.borrow_mut();
        let polled = state.poll_body(cx);
        if polled.is_pending() {
            state.reader = (!self.at_work.get()).then(|| cx.waker().clone());
        } else if !state.awaits_body() {
            self.tell();
        }
        polled
    }

    /// Whether the body has more to give.
    pub(super) fn awaits_body(&self) -> bool {
        self.state.borrow().awaits_body()
    }

    /// Bytes that are to come of the body, where that is known.
    pub(super) fn body_left(&self) -> Option<u64> {
        match &self.state.borrow().coming {
            Coming::Wanted(intake) => intake.decoder.left(),
            Coming::Nothing | Coming::Unwanted(_) | Coming::Broken => Some(0),
        }
    }

    /// Nobody wants the rest of the body.
    pub(super) fn drop_body(&self) {
        let state = &mut *self.state.borrow_mut();
        if let Coming::Wanted(intake) = std::mem::replace(&mut state.coming, Coming::Nothing) {
            state.coming = Coming::Unwanted(intake);
        }
        state.reader = None;
        self.tell();
    }

    /// The body is over: the connection's task may go on.
    fn tell(&self) {
        if !self.at_work.get() {
            self.link.wake();
        }
    }
}

/// What bytes come to.
enum Read {
    Head(Head),
    Http2,
    End,
}

impl<S: Socket> State<S> {
    /// Keeps a buffer that has something in it.
    fn hold(&mut self, buffer: Buffer) {
        if buffer.filled().is_empty() {
            self.spares.was_read(buffer);
        } else {
            self.held = Some(buffer);
        }
    }

    fn poll_head(
        &mut self,
        buffer: &mut Buffer,
        cx: &mut Context<'_>,
        expected: Expected,
    ) -> Poll<Result<Read, Fault>> {
        loop {
            if let Some(read) = self.look_at(buffer, expected)? {
                return Poll::Ready(Ok(read));
            }
            let begun = !buffer.filled().is_empty();
            if begun && self.link.head_is_overdue() {
                return Poll::Ready(Err(Fault::TooSlow));
            }
            if self.half_closed.is_some() {
                return Poll::Ready(Ok(Read::End));
            }
            // a head may be as large as it may be, and one byte more tells that it is larger
            let room = expected.bounds.bytes_max.saturating_add(1);
            let Poll::Ready(read) = self.poll_read(buffer, room, cx) else {
                // one that has not begun its first request is told by the response to that
                let over = !begun && self.link.must_end() && self.link.phase() == Phase::Idle;
                return if over { Poll::Ready(Ok(Read::End)) } else { Poll::Pending };
            };
            if !matches!(read, Ok(1..)) {
                return Poll::Ready(Ok(Read::End));
            }
        }
    }

    /// Looks at what was not seen before.
    fn look_at(&mut self, buffer: &mut Buffer, expected: Expected) -> Result<Option<Read>, Fault> {
        let empty = head::empty_lines(buffer.filled());
        if empty > 0 {
            (self.seen, self.empty_bytes) = (0, self.empty_bytes + empty);
            buffer.skip(empty);
        }
        let bytes_max = expected.bounds.bytes_max.saturating_sub(self.empty_bytes);
        let bytes = buffer.filled();
        if bytes.len() == self.seen {
            return if bytes_max == 0 { Err(Fault::TooLarge) } else { Ok(None) };
        }
        let unseen = bytes.get(self.seen..).unwrap_or_default();
        if expected.or_http2 && self.empty_bytes == 0 {
            let known = bytes.len().min(PREFACE.len());
            if bytes.get(..known) == PREFACE.get(..known) {
                self.seen = if known == PREFACE.len() { 0 } else { bytes.len() };
                self.link.enter(Phase::Head);
                return Ok((known == PREFACE.len()).then_some(Read::Http2));
            }
        }
        // a head that comes in crumbs is not parsed at each of them
        let looked_at = self.seen == 0 || bytes.len() >= bytes_max || memchr::memchr(b'\n', unseen).is_some();
        let bounds = HeadBounds { bytes_max, ..expected.bounds };
        if looked_at && let Some(head) = head::read(bytes, bounds)? {
            self.seen = 0;
            return Ok(Some(Read::Head(head)));
        }
        self.seen = bytes.len();
        self.link.enter(Phase::Head);
        Ok(None)
    }

    /// Reads into what is left of a buffer; zero where the caller has ended their side.
    fn poll_read(&mut self, buffer: &mut Buffer, bytes_max: usize, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Some(socket) = &mut self.socket else { return Poll::Ready(Ok(0)) };
        let mut room = ReadBuf::new(buffer.room(bytes_max));
        ready!(Pin::new(socket).poll_read(cx, &mut room))?;
        let bytes = room.filled().len();
        buffer.fill(bytes);
        Poll::Ready(Ok(bytes))
    }

    /// The body of the request that has begun; a small one is mostly here with its head.
    fn begin(&mut self, caller: &Rc<Caller<S>>, head: &Head, buffer: &mut Buffer, bounds: HeadBounds) -> Body {
        let rest = buffer.filled();
        let whole = match head.framing {
            Framing::Empty => return Body::empty(),
            Framing::Length(length) => usize::try_from(length)
                .ok()
                .and_then(|length| Some((Bytes::copy_from_slice(rest.get(..length)?), length))),
            Framing::Chunked => whole_chunks(rest).map(|(content, used)| (Bytes::from(content), used)),
            Framing::Close => None,
        };
        if let Some((content, used)) = whole {
            buffer.skip(used);
            return Body::full(content);
        }
        let trailer_bytes_max = TRAILER_BYTES_MAX.min(bounds.bytes_max);
        let Some(decoder) = Decoder::new(head.framing, trailer_bytes_max) else { return Body::empty() };
        self.coming = Coming::Wanted(Box::new(Intake::new(decoder, Bytes::copy_from_slice(rest))));
        self.expects = head.expects && rest.is_empty();
        let used = rest.len();
        buffer.skip(used);
        Body::boxed(RequestBody::new(Rc::clone(caller)))
    }
    fn awaits_body(&self) -> bool {
        matches!(self.coming, Coming::Wanted(_))
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut intake = match std::mem::replace(&mut self.coming, Coming::Nothing) {
            Coming::Wanted(intake) => intake,
            // who still asks has not had its end
            other @ (Coming::Nothing | Coming::Unwanted(_) | Coming::Broken) => {
                self.coming = other;
                return Poll::Ready(Some(Err(BodyError::Broken(Broken::Closed.into()))));
            }
        };
        let polled = self.poll_intake(&mut intake, cx);
        let frame = match polled {
            Poll::Pending => None,
            Poll::Ready(Ok(Piece::Data(data))) => Some(Some(Ok(Frame::data(data)))),
            Poll::Ready(Ok(Piece::Trailers(trailers))) => {
                self.body_ended(&intake);
                return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
            }
            Poll::Ready(Ok(Piece::End | Piece::More)) => {
                self.body_ended(&intake);
                return Poll::Ready(None);
            }
            Poll::Ready(Err(broken)) => {
                self.body_broke(&broken);
                return Poll::Ready(Some(Err(BodyError::Broken(broken.into()))));
            }
        };
        if intake.decoder.has_ended() {
            self.body_ended(&intake);
        } else {
            self.coming = Coming::Wanted(intake);
        }
        frame.map_or(Poll::Pending, Poll::Ready)
    }

    fn poll_intake(&mut self, intake: &mut Intake, cx: &mut Context<'_>) -> Poll<Result<Piece, Broken>> {
        if std::mem::take(&mut self.expects) {
            self.interim = CONTINUE;
        }
        ready!(self.poll_interim(cx)).map_err(Broken::Io)?;
        let Some(socket) = &mut self.socket else { return Poll::Ready(Err(Broken::Closed)) };
        intake.poll(cx, socket)
    }

    /// Ready once an interim response that was begun has left.
    fn poll_interim(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(socket) = &mut self.socket else { return Poll::Ready(Ok(())) };
        if self.interim.is_empty() {
            return Poll::Ready(Ok(()));
        }
        while !self.interim.is_empty() {
            let written = ready!(Pin::new(&mut *socket).poll_write(cx, self.interim))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.interim = self.interim.get(written..).unwrap_or_default();
        }
        Pin::new(socket).poll_flush(cx)
    }

    /// What came behind the body is of the next request.
    fn body_ended(&mut self, intake: &Intake) {
        if !intake.at_hand.is_empty() {
            let mut buffer = self.held.take().unwrap_or_else(|| self.spares.to_read());
            buffer.append(&intake.at_hand);
            self.held = Some(buffer);
        }
    }

    fn body_broke(&mut self, broken: &Broken) {
        self.coming = Coming::Broken;
        if matches!(broken, Broken::Closed) {
            self.half_close();
        }
    }

    /// The caller has ended their side.
    fn half_close(&mut self) -> &mut Pin<Box<Sleep>> {
        self.half_closed.get_or_insert_with(|| Box::pin(sleep(HALF_CLOSED)))
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.half_closed.is_none() {
            // the body's reader is told, or nothing can be known before the next request is looked at
            if !matches!(self.coming, Coming::Nothing) || self.held.is_some() {
                return Poll::Pending;
            }
            let mut buffer = self.spares.to_read();
            let read = self.poll_read(&mut buffer, usize::MAX, cx);
            self.hold(buffer);
            match ready!(read) {
                Err(_) => return Poll::Ready(()),
                Ok(1..) => return Poll::Pending,
                Ok(0) => {}
            }
        }
        self.half_close().as_mut().poll(cx)
    }

    fn poll_body_over(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        let mut drained = 0;
        loop {
            let mut intake = match std::mem::replace(&mut self.coming, Coming::Nothing) {
                Coming::Nothing => return Poll::Ready(true),
                Coming::Unwanted(intake) => intake,
                other @ (Coming::Wanted(_) | Coming::Broken) => {
                    self.coming = other;
                    return if self.awaits_body() { Poll::Pending } else { Poll::Ready(false) };
                }
            };
            let Some(socket) = &mut self.socket else { return Poll::Ready(false) };
            match intake.poll(cx, socket) {
                Poll::Ready(Ok(Piece::Data(data))) => drained += data.len(),
                Poll::Ready(Ok(Piece::Trailers(_) | Piece::End | Piece::More)) => {
                    self.body_ended(&intake);
                    return Poll::Ready(true);
                }
                Poll::Ready(Err(broken)) => self.body_broke(&broken),
                Poll::Pending => drained = usize::MAX,
            }
            if matches!(self.coming, Coming::Nothing) {
                self.coming = Coming::Unwanted(intake);
                if drained > DRAIN_BYTES_MAX {
                    return Poll::Ready(false);
                }
            }
        }
    }

    /// Drops what has come; whether there may be more.
    fn poll_drop_input(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        let mut buffer = self.held.take().unwrap_or_else(|| self.spares.to_read());
        buffer.clear();
        let read = self.poll_read(&mut buffer, usize::MAX, cx);
        buffer.clear();
        self.spares.was_read(buffer);
        read.map(|read| matches!(read, Ok(1..)))
    }
}

/// A caller's connection as what is written to it.
pub(super) struct Outlet<'a, S>(pub(super) &'a Caller<S>);

impl<S: Socket> Outlet<'_, S> {
    fn with<T>(
        &self,
        cx: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut S>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let state = &mut *self.0.state.borrow_mut();
        // a part of an interim response may be out
        ready!(state.poll_interim(cx))?;
        match &mut state.socket {
            Some(socket) => write(Pin::new(socket), cx),
            None => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }
}

impl<S: Socket> AsyncWrite for Outlet<'_, S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.with(cx, |socket, cx| socket.poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.with(cx, |socket, cx| socket.poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(cx, AsyncWrite::poll_flush)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_shutdown(cx)
    }
}
