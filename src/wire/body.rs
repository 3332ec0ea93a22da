//! The one body type: what is streamed between a caller and an upstream, or made by us.
//!
//! A [`Body`] never collects. It can be capped, it gives up where nothing moves, and it says once how it ended. Trailers
//! pass through [`crate::wire::fields::keep_trailers`].

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Sleep;

use crate::wire::fields;
use crate::wire::http1::lines::Lines;

/// Why a body ended before its end.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// It is longer than it may be.
    #[error("body too large")]
    TooLarge,
    /// Nothing moved for too long.
    #[error("body stalled")]
    Stalled,
    /// The other side broke off.
    #[error("body broke off")]
    Broken(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It was cut on purpose: the route's streams end with the credential.
    #[error("body was cut")]
    Cut,
}

/// How a body ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyEnd {
    /// All of it passed.
    Complete,
    /// It broke on the side it came from, was too large, or stalled.
    Failed,
    /// The side it went to stopped reading.
    Dropped,
}

type Hook = Box<dyn FnOnce(BodyEnd, u64)>;

/// A streamed body. What there is to one that is more than empty is boxed, since bodies are handed on by value, and often.
pub struct Body(Option<Box<Inner>>);

struct Inner {
    source: Source,
    /// Bytes that passed.
    passed: u64,
    bytes_max: Option<u64>,
    stall_after: Option<Duration>,
    stall: Option<Pin<Box<Sleep>>>,
    hook: Option<Hook>,
    lingers: bool,
    lines: Option<Lines>,
}

/// What is read of a body that nobody wants, and for how long, so that its sender comes to read the answer. Silence says
/// sooner that nothing comes: a sender on a bad line or a busy machine is slow, but not silent.
const LINGER_BYTES_MAX: u64 = 1024 * 1024;
const LINGER: Duration = Duration::from_secs(30);
const LINGER_SILENCE: Duration = Duration::from_secs(5);

enum Source {
    Empty,
    Full(Bytes),
    Streamed(Incoming),
    Boxed(Pin<Box<dyn HttpBody<Data = Bytes, Error = BodyError>>>),
}

impl Body {
    /// No body.
    pub const fn empty() -> Self {
        Self(None)
    }

    /// These bytes.
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        if bytes.is_empty() { Self::empty() } else { Self::of(Source::Full(bytes)) }
    }

    /// What the other side of a connection sends.
    pub fn streamed(incoming: Incoming) -> Self {
        Self::of(Source::Streamed(incoming))
    }

    /// Any other body.
    pub fn boxed(body: impl HttpBody<Data = Bytes, Error = BodyError> + 'static) -> Self {
        Self::of(Source::Boxed(Box::pin(body)))
    }

    fn of(source: Source) -> Self {
        Self(Some(Box::new(Inner::of(source))))
    }

    /// Also where it is empty.
    fn inner(&mut self) -> &mut Inner {
        self.0.get_or_insert_with(|| Box::new(Inner::of(Source::Empty)))
    }

    /// With a change that only matters to a body of which something is to come.
    fn with(mut self, change: impl FnOnce(&mut Inner)) -> Self {
        self.0.as_deref_mut().map(change);
        self
    }

    /// Whether all of it is here, and nothing is waited for.
    pub fn is_here(&self) -> bool {
        self.0.as_ref().is_none_or(|inner| matches!(inner.source, Source::Empty | Source::Full(_)))
    }

    /// Fails with [`BodyError::TooLarge`] once more than `bytes_max` have come.
    #[must_use]
    pub fn capped(self, bytes_max: u64) -> Self {
        self.with(|inner| inner.bytes_max = Some(bytes_max))
    }

    /// Fails with [`BodyError::Stalled`] where nothing comes for `after` while somebody waits.
    #[must_use]
    pub fn stalling_after(self, after: Duration) -> Self {
        self.with(|inner| inner.stall_after = Some(after))
    }

    /// Where nobody reads it to its end, what still comes is read and dropped for a while, by a task of the worker's own.
    /// For HTTP/2: a stream that is answered while its body comes is reset at once else, which RFC 9113 8.1 allows and
    /// usual clients take for a failure.
    #[must_use]
    pub fn lingering(self) -> Self {
        self.with(|inner| inner.lingers = true)
    }

    /// With fields that came along, which stand in no map. Only a connection of HTTP/1 can hand them on.
    #[must_use]
    pub fn behind(mut self, lines: Option<Lines>) -> Self {
        if lines.is_some() {
            self.inner().lines = lines;
        }
        self
    }

    /// The fields that came along.
    pub fn lines(&self) -> Option<&Lines> {
        self.0.as_ref()?.lines.as_ref()
    }

    /// The same, to add to them.
    pub fn lines_mut(&mut self) -> Option<&mut Lines> {
        self.0.as_mut()?.lines.as_mut()
    }

    /// Calls `hook` once when the body has ended, with the bytes that passed; after those that were there before.
    #[must_use]
    pub fn on_end(mut self, hook: impl FnOnce(BodyEnd, u64) + 'static) -> Self {
        let inner = self.inner();
        inner.hook = Some(match inner.hook.take() {
            None => Box::new(hook),
            Some(first) => Box::new(move |end, bytes| {
                first(end, bytes);
                hook(end, bytes);
            }),
        });
        self
    }
}

impl Inner {
    const fn of(source: Source) -> Self {
        Self {
            source,
            passed: 0,
            bytes_max: None,
            stall_after: None,
            stall: None,
            hook: None,
            lingers: false,
            lines: None,
        }
    }

    fn finish(&mut self, end: BodyEnd) {
        self.stall = None;
        if let Some(hook) = self.hook.take() {
            hook(end, self.passed);
        }
    }

    fn poll_source(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.source {
            Source::Empty => Poll::Ready(None),
            Source::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                self.source = Source::Empty;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Source::Streamed(incoming) => {
                Pin::new(incoming).poll_frame(cx).map_err(|error| BodyError::Broken(error.into()))
            }
            Source::Boxed(body) => body.as_mut().poll_frame(cx),
        }
    }

    /// Ready once nothing has come for too long. The timer is made where somebody waits, so that a body that is there
    /// already costs none.
    fn poll_stall(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(after) = self.stall_after else { return Poll::Pending };
        let stall = self.stall.get_or_insert_with(|| Box::pin(tokio::time::sleep(after)));
        stall.as_mut().poll(cx)
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = match self.poll_source(cx) {
            Poll::Ready(polled) => polled,
            Poll::Pending => {
                ready!(self.poll_stall(cx));
                self.finish(BodyEnd::Failed);
                return Poll::Ready(Some(Err(BodyError::Stalled)));
            }
        };
        self.stall = None;
        match polled {
            None => {
                self.finish(BodyEnd::Complete);
                Poll::Ready(None)
            }
            Some(Err(error)) => {
                self.finish(BodyEnd::Failed);
                Poll::Ready(Some(Err(error)))
            }
            Some(Ok(mut frame)) => {
                if let Some(data) = frame.data_ref() {
                    self.passed += data.remaining() as u64;
                    if self.bytes_max.is_some_and(|max| self.passed > max) {
                        self.finish(BodyEnd::Failed);
                        return Poll::Ready(Some(Err(BodyError::TooLarge)));
                    }
                } else if let Some(trailers) = frame.trailers_mut() {
                    fields::keep_trailers(trailers);
                }
                if self.is_end_stream() {
                    self.finish(BodyEnd::Complete);
                }
                Poll::Ready(Some(Ok(frame)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Empty => true,
            Source::Full(_) => false,
            Source::Streamed(incoming) => incoming.is_end_stream(),
            Source::Boxed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Empty => SizeHint::with_exact(0),
            Source::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Source::Streamed(incoming) => incoming.size_hint(),
            Source::Boxed(body) => body.size_hint(),
        }
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.0.as_mut().map_or(Poll::Ready(None), |inner| inner.poll_frame(cx))
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(|inner| inner.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.0.as_ref().map_or_else(|| SizeHint::with_exact(0), |inner| inner.size_hint())
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let end = if self.is_end_stream() { BodyEnd::Complete } else { BodyEnd::Dropped };
        self.finish(end);
        // without a runtime the connection ends as well
        if self.lingers && end == BodyEnd::Dropped && tokio::runtime::Handle::try_current().is_ok() {
            let rest = Body::of(std::mem::replace(&mut self.source, Source::Empty));
            let rest = rest.capped(LINGER_BYTES_MAX).stalling_after(LINGER_SILENCE);
            tokio::task::spawn_local(tokio::time::timeout(LINGER, read_and_drop(rest)));
        }
    }
}

async fn read_and_drop(mut body: Body) {
    while let Some(Ok(_)) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {}
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let passed = self.0.as_ref().map_or(0, |inner| inner.passed);
        f.debug_struct("Body").field("passed", &passed).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use http_body_util::BodyExt;

    use super::*;

    type Seen = Rc<Cell<Option<(BodyEnd, u64)>>>;

    fn watched(body: Body) -> (Body, Seen) {
        let seen = Rc::new(Cell::new(None));
        let inner = Rc::clone(&seen);
        (body.on_end(move |end, bytes| inner.set(Some((end, bytes)))), seen)
    }

    #[tokio::test]
    async fn the_last_byte_that_fits_passes_and_the_next_does_not() {
        for (bytes_max, fits) in [(3, true), (2, false)] {
            let (body, seen) = watched(Body::full("abc").capped(bytes_max));
            assert_eq!(body.collect().await.is_ok(), fits, "{bytes_max}");
            assert_eq!(seen.get().unwrap().0, if fits { BodyEnd::Complete } else { BodyEnd::Failed });
        }
    }

    #[tokio::test]
    async fn a_body_nobody_reads_is_dropped() {
        let (body, seen) = watched(Body::full("abc"));
        drop(body);
        assert_eq!(seen.get(), Some((BodyEnd::Dropped, 0)));
    }

    #[tokio::test]
    async fn hooks_are_called_once_each_in_order() {
        let calls = Rc::new(std::cell::RefCell::new(Vec::new()));
        let (first, second) = (Rc::clone(&calls), Rc::clone(&calls));
        let body = Body::empty()
            .on_end(move |_, _| first.borrow_mut().push(1))
            .on_end(move |_, _| second.borrow_mut().push(2));
        drop(body.collect().await);
        assert_eq!(*calls.borrow(), [1, 2]);
    }
}
