//! The body of a response that did not come at once with its head, streamed as fast as it is read and no faster.
//!
//! It holds the connection and gives it back at its end. Where the response began before the request had ended, the rest
//! of the request is sent as well; the response's end is the end of that too, and the connection is dropped.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};

use super::super::outgoing::Outgoing;
use super::{Error, Transport};
use crate::wire::body::BodyError;
use crate::wire::http1::chunked::Piece;
use crate::wire::http1::intake::Intake;
use crate::wire::http1::sending::{Sending, Unsent};

/// A body on its way from a server.
pub(super) struct Incoming<S, H> {
    /// `None` once the body has ended in whatever way.
    stream: Option<S>,
    /// Takes the connection at the end, where the server keeps it open.
    home: Option<H>,
    /// What is left of the request.
    sending: Option<Sending<Outgoing>>,
    intake: Intake,
}

impl<S: Transport, H: FnOnce(S, Option<Instant>) + Unpin> Incoming<S, H> {
    pub(super) const fn new(stream: S, home: Option<H>, sending: Option<Sending<Outgoing>>, intake: Intake) -> Self {
        Self { stream: Some(stream), home, sending, intake }
    }

    fn end(&mut self) {
        let stream = self.stream.take();
        let free = self.sending.is_none() && self.intake.at_hand.is_empty();
        if let (true, Some(stream), Some(home)) = (free, stream, self.home.take()) {
            home(stream, None);
        }
        (self.sending, self.intake.at_hand) = (None, Bytes::new());
    }

    fn fail(&mut self, error: Error) -> BodyError {
        self.home = None;
        self.end();
        BodyError::Broken(error.into())
    }

    /// Sends on what is left of the request.
    fn send(&mut self, cx: &mut Context<'_>) -> Result<(), Error> {
        let (Some(sending), Some(stream)) = (&mut self.sending, &mut self.stream) else { return Ok(()) };
        match sending.poll(cx, stream) {
            Poll::Pending => {}
            Poll::Ready(Ok(())) => self.sending = None,
            Poll::Ready(Err(Unsent::Io(_))) => {
                // it takes no more, and may have answered nevertheless
                (self.sending, self.home) = (None, None);
            }
            Poll::Ready(Err(error)) => return Err(error.into()),
        }
        Ok(())
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, Error>> {
        self.send(cx)?;
        let Some(stream) = &mut self.stream else { return Poll::Ready(Ok(Piece::End)) };
        self.intake.poll(cx, stream).map_err(Error::from)
    }
}

impl<S: Transport, H: FnOnce(S, Option<Instant>) + Unpin> HttpBody for Incoming<S, H> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let incoming = self.get_mut();
        if incoming.stream.is_none() {
            return Poll::Ready(None);
        }
        Poll::Ready(match ready!(incoming.poll_piece(cx)) {
            Err(error) => Some(Err(incoming.fail(error))),
            Ok(Piece::Data(data)) => {
                if incoming.intake.decoder.has_ended() {
                    incoming.end();
                }
                Some(Ok(Frame::data(data)))
            }
            Ok(Piece::Trailers(trailers)) => {
                incoming.end();
                Some(Ok(Frame::trailers(trailers)))
            }
            Ok(Piece::End | Piece::More) => {
                incoming.end();
                None
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.stream.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.intake.decoder.left().map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
