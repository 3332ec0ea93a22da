//! The socket of an HTTP/1.1 connection as hyper sees it: one request at a time, and none with two readings.
//!
//! On the way in, [`Scanner`] follows the framing. A request that it refuses is cut off and ended with a byte that no head
//! may hold, so that hyper refuses it too, in its turn. The next request is held back until the response to the one before
//! has left. On the way out, hyper's own refusal, which is empty, is replaced by ours: it is known by its place, as what is
//! written while no request was handed to the handler since the last response had left. No content can be taken for it.
//! At the end, what the caller still sends is read and dropped for a while, since a reset could overtake the response.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::head::{Fault, Scanned, Scanner};
use super::link::{Guard, Link, Phase};
use crate::rejection::Rejection;

/// A NUL is refused wherever in a head it stands; hyper looks at a head that came in pieces only where an empty line ends it.
const POISON: &[u8] = b"\0\n\n";

/// What is read ahead of a response, to notice a caller who hangs up.
const AHEAD: usize = 4096;

/// How long a response may take for a caller who has ended their side: one who has said all, or who is gone, which looks
/// the same until something is written.
const HALF_CLOSED: Duration = Duration::from_secs(2);

/// How long what still comes is dropped.
const LINGER: Duration = Duration::from_secs(2);

/// What comes next from the caller.
#[derive(Debug)]
enum Inward {
    /// A request, or the rest of one.
    Request,
    /// Nothing before the response to the last request has left.
    Held,
    /// Nothing: a request was refused. What is left of [`POISON`].
    Refused(&'static [u8]),
    /// Nothing: the framing of a body is broken.
    Broken,
    /// Another protocol.
    Upgraded,
}

/// The socket, guarded.
pub(super) struct Gate<S> {
    socket: S,
    link: Arc<Link>,
    scanner: Scanner,
    inward: Inward,
    /// Read from the socket, not yet looked at.
    ahead: BytesMut,
    /// Whom to wake where `ahead` may be looked at.
    reader: Option<Waker>,
    /// Until when the response may leave, where the caller has ended their side.
    half_closed: Option<Pin<Box<Sleep>>>,
    fault: Option<Fault>,
    /// Handler calls at the moment when the request that comes, or came last, was let pass.
    calls_before: u64,
    /// Handler calls at the moment when all responses had left; `None` within a response.
    between: Option<u64>,
    outward: Outward,
    ending: Ending,
    _guard: Guard,
}

/// What goes to the caller.
#[derive(Debug)]
enum Outward {
    /// What hyper writes.
    Responses,
    /// Our refusal in the place of hyper's, once it is written.
    Awaited,
    /// What is left of it.
    Refusal(BytesMut),
}

#[derive(Debug)]
enum Ending {
    NotYet,
    Lingering(Pin<Box<Sleep>>),
}

impl<S: AsyncRead + AsyncWrite + Unpin> Gate<S> {
    /// `ahead` was read from `socket` before.
    pub(super) fn new(socket: S, ahead: BytesMut, link: Arc<Link>, scanner: Scanner, guard: Guard) -> Self {
        let calls_before = link.calls();
        Self {
            socket,
            link,
            scanner,
            inward: Inward::Request,
            ahead,
            reader: None,
            half_closed: None,
            fault: None,
            calls_before,
            between: Some(calls_before),
            outward: Outward::Responses,
            ending: Ending::NotYet,
            _guard: guard,
        }
    }

    /// Passes on what may be passed of `piece`, and keeps the rest; how much was passed.
    fn look_at(&mut self, piece: &[u8]) -> (usize, Inward) {
        let scanned = self.scanner.scan(piece);
        if self.scanner.in_head() && self.link.phase() != Phase::Busy {
            self.link.enter(Phase::Head);
        }
        match scanned {
            Scanned::More => (piece.len(), Inward::Request),
            Scanned::End { taken } => (taken, Inward::Held),
            Scanned::Refused { taken, fault } => {
                self.fault = Some(fault);
                (taken, Inward::Refused(POISON))
            }
            Scanned::Broken { taken } => (taken, Inward::Broken),
        }
    }

    /// Takes from what was read ahead, or else from the socket.
    fn poll_request(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.ahead.is_empty() {
            let before = buf.filled().len();
            ready!(Pin::new(&mut self.socket).poll_read(cx, buf))?;
            let piece = buf.filled().get(before..).unwrap_or_default();
            let (taken, next) = self.look_at(piece);
            self.ahead.extend_from_slice(piece.get(taken..).unwrap_or_default());
            buf.set_filled(before + taken);
            self.inward = next;
        } else {
            let mut piece = self.ahead.split_to(self.ahead.len().min(buf.remaining()));
            let (taken, next) = self.look_at(&piece);
            buf.put_slice(piece.get(..taken).unwrap_or_default());
            piece.advance(taken);
            piece.unsplit(self.ahead.split());
            self.ahead = piece;
            self.inward = next;
        }
        Poll::Ready(Ok(()))
    }

    /// Lets the next request pass where the last is answered; meanwhile reads a little, to see the caller hang up. A reset
    /// is an error at once; the end of what they send leaves the response a while.
    fn poll_held(&mut self, cx: &mut Context<'_>, buf: &ReadBuf<'_>) -> Poll<io::Result<Held>> {
        if self.link.is_upgraded() {
            return Poll::Ready(Ok(Held::Upgraded));
        }
        if self.may_release() {
            self.calls_before = self.link.calls();
            return Poll::Ready(Ok(Held::Released));
        }
        self.reader = Some(cx.waker().clone());
        if !self.ahead.is_empty() || buf.remaining() == 0 {
            return Poll::Pending;
        }
        if self.half_closed.is_none() {
            let mut space = [std::mem::MaybeUninit::uninit(); AHEAD];
            let mut ahead = ReadBuf::uninit(&mut space);
            ready!(Pin::new(&mut self.socket).poll_read(cx, &mut ahead))?;
            self.ahead.extend_from_slice(ahead.filled());
            if !self.ahead.is_empty() {
                return Poll::Pending;
            }
        }
        let patience = self.half_closed.get_or_insert_with(|| Box::pin(tokio::time::sleep(HALF_CLOSED)));
        patience.as_mut().poll(cx).map(|()| Ok(Held::HungUp))
    }

    /// Whether the request that was let pass last has been answered, and the answer has left. Hyper reads on before it
    /// calls the handler, so that nothing is under way does not say so.
    fn may_release(&self) -> bool {
        let calls = self.link.calls();
        calls != self.calls_before && !self.link.is_busy() && self.between == Some(calls)
    }

    /// At the first bytes of a refusal by hyper, makes ours.
    fn replace(&mut self, written: &[u8]) {
        if self.between.take().is_none_or(|calls| calls != self.link.calls()) || self.link.is_upgraded() {
            return;
        }
        let rejection = match self.fault.take() {
            Some(fault) => fault.into(),
            None => automatic(written),
        };
        self.link.want_refusal(rejection);
        self.outward = Outward::Awaited;
        self.inward = Inward::Refused(&[]);
    }

    /// Writes what is left of our refusal, and then takes what hyper wrote (all `instead_of` bytes) as written.
    fn poll_refusal(&mut self, cx: &mut Context<'_>, instead_of: usize) -> Poll<io::Result<usize>> {
        if matches!(self.outward, Outward::Awaited) {
            // the connection's task writes it where this poll returns, and polls again
            let Some(refusal) = self.link.take_refusal() else { return Poll::Pending };
            self.outward = Outward::Refusal(BytesMut::from(refusal.as_slice()));
        }
        while let Outward::Refusal(left) = &mut self.outward
            && !left.is_empty()
        {
            let written = ready!(Pin::new(&mut self.socket).poll_write(cx, left))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            left.advance(written);
        }
        self.outward = Outward::Responses;
        Poll::Ready(Ok(instead_of))
    }

    fn noted<T>(&self, polled: Poll<T>) -> Poll<T> {
        self.link.blocked(polled.is_pending());
        polled
    }

    /// Whether the caller may be sending what nobody will read.
    fn leaves_unread(&self) -> bool {
        match self.inward {
            Inward::Request => !self.scanner.at_start() || !self.ahead.is_empty(),
            Inward::Held => !self.ahead.is_empty(),
            Inward::Refused(_) | Inward::Broken => true,
            Inward::Upgraded => false,
        }
    }
}

enum Held {
    Released,
    Upgraded,
    HungUp,
}

/// What hyper refuses by itself, told by the status that it would have answered.
fn automatic(written: &[u8]) -> Rejection {
    match written.get(9..12) {
        Some(b"431" | b"414") => Rejection::HeadersTooLarge,
        Some(_) | None => Rejection::BadRequest("the request is malformed"),
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Gate<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let gate = self.get_mut();
        loop {
            match gate.inward {
                Inward::Request => {
                    if gate.link.head_is_overdue() && gate.scanner.in_head() {
                        gate.fault = Some(Fault::TooSlow);
                        gate.inward = Inward::Refused(POISON);
                        continue;
                    }
                    let (before, hungry) = (buf.filled().len(), buf.remaining() > 0);
                    ready!(gate.poll_request(cx, buf))?;
                    // nothing passed, and yet the caller has not hung up
                    if buf.filled().len() == before && hungry && !matches!(gate.inward, Inward::Request) {
                        continue;
                    }
                    return Poll::Ready(Ok(()));
                }
                Inward::Held => match ready!(gate.poll_held(cx, buf))? {
                    Held::Released => gate.inward = Inward::Request,
                    Held::Upgraded => gate.inward = Inward::Upgraded,
                    Held::HungUp => return Poll::Ready(Ok(())),
                },
                Inward::Refused(left) => {
                    if left.is_empty() {
                        return Poll::Pending; // hyper has refused, and does not ask again
                    }
                    let (now, later) = left.split_at(left.len().min(buf.remaining()));
                    buf.put_slice(now);
                    gate.inward = Inward::Refused(later);
                    return Poll::Ready(Ok(()));
                }
                Inward::Broken => {
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "broken chunk")));
                }
                Inward::Upgraded => {
                    if gate.ahead.is_empty() {
                        return Pin::new(&mut gate.socket).poll_read(cx, buf);
                    }
                    let piece = gate.ahead.split_to(gate.ahead.len().min(buf.remaining()));
                    buf.put_slice(&piece);
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Gate<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let gate = self.get_mut();
        gate.replace(bufs.first().map_or(&[], |first| first));
        let polled = match (&gate.outward, bufs) {
            (Outward::Awaited | Outward::Refusal(_), bufs) => {
                gate.poll_refusal(cx, bufs.iter().map(|buf| buf.len()).sum())
            }
            (Outward::Responses, [one]) => Pin::new(&mut gate.socket).poll_write(cx, one),
            (Outward::Responses, several) => Pin::new(&mut gate.socket).poll_write_vectored(cx, several),
        };
        gate.noted(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    /// hyper flushes where it has nothing left to write: the place where responses are known to have left.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let gate = self.get_mut();
        let polled = Pin::new(&mut gate.socket).poll_flush(cx);
        ready!(gate.noted(polled))?;
        if !gate.link.is_busy() {
            gate.between = Some(gate.link.calls());
        }
        // only where there is something to let pass: hyper flushes at every poll, and would be polled for ever
        if (gate.may_release() || gate.link.is_upgraded())
            && let Some(reader) = gate.reader.take()
        {
            reader.wake();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let gate = self.get_mut();
        if matches!(gate.ending, Ending::NotYet) {
            ready!(Pin::new(&mut gate.socket).poll_shutdown(cx))?;
            if !gate.leaves_unread() {
                return Poll::Ready(Ok(()));
            }
            gate.ending = Ending::Lingering(Box::pin(tokio::time::sleep(LINGER)));
        }
        let Ending::Lingering(timer) = &mut gate.ending else { return Poll::Ready(Ok(())) };
        let mut space = [std::mem::MaybeUninit::uninit(); AHEAD];
        loop {
            if timer.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Ok(()));
            }
            let mut dropped = ReadBuf::uninit(&mut space);
            let read = ready!(Pin::new(&mut gate.socket).poll_read(cx, &mut dropped));
            if read.is_err() || dropped.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }
}
