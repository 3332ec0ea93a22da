//! A request's body on its way to a server: watched, so that it is known which side is slow and how it ended.

use std::cell::{Cell, OnceCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};

use super::leash::{Leash, Side};
use crate::clock::Clock;
use crate::rejection::Rejection;
use crate::wire::body::{Body, BodyError};
use crate::wire::fields::{self, IdentityNames};

/// The body that connections to servers send.
pub(super) struct Outgoing {
    body: Body,
    progress: Option<Rc<Progress>>,
}

/// How far a request's body has come.
pub(super) struct Progress {
    moved: Cell<Instant>,
    state: Cell<State>,
    /// Ends the body with the credential that it came with.
    leash: OnceCell<Rc<Leash>>,
    /// A caller's trailers may not say who they are.
    identity: IdentityNames,
    clock: Clock,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// The server has to take more.
    Taking,
    /// The caller has to send more; the body has its own bound for that.
    AwaitingCaller,
    /// All of it was handed over.
    Ended,
    /// The caller broke off or went away.
    Broken,
    /// It is longer than it may be.
    TooLarge,
    /// The caller sent nothing for too long.
    Stalled,
    /// The gateway cut it.
    Cut,
}

impl Outgoing {
    /// A body and, unless it is empty, the watch over it.
    pub(super) fn new(body: Body, clock: &Clock, identity: &IdentityNames) -> (Self, Option<Rc<Progress>>) {
        if body.is_end_stream() {
            return (Self { body, progress: None }, None);
        }
        let progress = Rc::new(Progress {
            moved: Cell::new(clock.now()),
            state: Cell::new(State::Taking),
            leash: OnceCell::new(),
            identity: identity.clone(),
            clock: clock.clone(),
        });
        (Self { body, progress: Some(Rc::clone(&progress)) }, Some(progress))
    }

    pub(super) const fn empty() -> Self {
        Self { body: Body::empty(), progress: None }
    }

    pub(super) fn into_body(self) -> Body {
        self.body
    }
}

impl Progress {
    /// When a response is too late: `response` after the body's end. Before that, the server may refuse to read for `idle`.
    pub(super) fn deadline(&self, response: Duration, idle: Duration) -> Instant {
        match self.state.get() {
            State::Taking => self.moved.get() + idle,
            // asked again when that time has come
            State::AwaitingCaller => self.clock.now() + idle,
            State::Ended | State::Broken | State::TooLarge | State::Stalled | State::Cut => self.moved.get() + response,
        }
    }

    /// Why the request failed, where its own body is why.
    pub(super) fn rejection(&self) -> Option<Rejection> {
        match self.state.get() {
            State::Taking | State::AwaitingCaller | State::Ended => None,
            State::Broken => Some(Rejection::BadRequest("the body broke off")),
            State::TooLarge => Some(Rejection::BodyTooLarge),
            State::Stalled => Some(Rejection::RequestTimeout),
            State::Cut => Some(self.leash.get().map_or(Rejection::Internal, |leash| leash.rejection())),
        }
    }

    /// Ends the body once this is cut.
    pub(super) fn obey(&self, leash: Rc<Leash>) {
        // a second one would be the same
        drop(self.leash.set(leash));
    }

    fn see(&self, polled: &mut Poll<Option<Result<Frame<Bytes>, BodyError>>>, ended: bool) {
        if polled.is_ready() {
            self.moved.set(self.clock.now());
        }
        self.state.set(match polled {
            Poll::Pending => State::AwaitingCaller,
            Poll::Ready(None) => State::Ended,
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(trailers) = frame.trailers_mut() {
                    fields::strip_untrusted(trailers, &self.identity, false);
                }
                if ended { State::Ended } else { State::Taking }
            }
            Poll::Ready(Some(Err(error))) => match error {
                BodyError::TooLarge => State::TooLarge,
                BodyError::Stalled => State::Stalled,
                BodyError::Broken(_) => State::Broken,
                BodyError::Cut => State::Cut,
            },
        });
    }
}

impl HttpBody for Outgoing {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let outgoing = self.get_mut();
        let leash = outgoing.progress.as_ref().and_then(|progress| progress.leash.get());
        let mut polled = match leash.map(|leash| leash.poll_cut(Side::Request, cx)) {
            Some(Poll::Ready(_)) => Poll::Ready(Some(Err(BodyError::Cut))),
            Some(Poll::Pending) | None => Pin::new(&mut outgoing.body).poll_frame(cx),
        };
        if let Some(progress) = &outgoing.progress {
            progress.see(&mut polled, outgoing.body.is_end_stream());
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

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderName, HeaderValue};
    use http_body_util::{BodyExt, StreamBody};

    use super::*;

    /// Over HTTP/1.1 they are not announced, and so do not pass either; over HTTP/2 nothing is announced.
    #[tokio::test]
    async fn no_trailer_says_who_somebody_is_by_a_name_that_was_chosen_for_it() {
        let field = |name| Some(HeaderName::from_static(name));
        let names = IdentityNames { user: field("x-who"), roles: field("x-what"), scheme: field("how") };
        let said = ["x-who", "x-what", "how", "x_sum", "x-sum"];
        let trailers: HeaderMap =
            said.into_iter().map(|name| (HeaderName::from_static(name), HeaderValue::from_static("1"))).collect();
        let frames = [Ok(Frame::data(Bytes::from_static(b"a"))), Ok::<_, BodyError>(Frame::trailers(trailers))];
        let body = Body::boxed(StreamBody::new(futures_util::stream::iter(frames)));
        let (outgoing, _progress) = Outgoing::new(body, &Clock::system(), &names);
        let passed = outgoing.collect().await.unwrap().trailers().cloned().unwrap();
        assert_eq!(passed.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-sum"]);
    }
}
