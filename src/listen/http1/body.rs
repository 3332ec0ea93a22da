//! The body of a request that did not come at once with its head, read as fast as it is wanted and no faster.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};

use super::Socket;
use super::caller::Caller;
use crate::wire::body::BodyError;

/// A body on its way from a caller.
pub(super) struct RequestBody<S: Socket> {
    /// `None` once the body has ended in whatever way.
    caller: Option<Rc<Caller<S>>>,
}

impl<S: Socket> RequestBody<S> {
    pub(super) const fn new(caller: Rc<Caller<S>>) -> Self {
        Self { caller: Some(caller) }
    }
}

impl<S: Socket> HttpBody for RequestBody<S> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let body = self.get_mut();
        let Some(caller) = &body.caller else { return Poll::Ready(None) };
        let frame = ready!(caller.poll_frame(cx));
        if !caller.awaits_body() {
            body.caller = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.caller.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        let left = self.caller.as_ref().map_or(Some(0), |caller| caller.body_left());
        left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl<S: Socket> Drop for RequestBody<S> {
    fn drop(&mut self) {
        if let Some(caller) = &self.caller {
            caller.drop_body();
        }
    }
}
