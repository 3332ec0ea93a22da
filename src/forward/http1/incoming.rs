//! The body of a response that did not come at once with its head, streamed as fast as it is read and no faster.
//!
//! It holds the connection and gives it back at its end. Where the response began before the request had ended, the rest
//! of the request is sent as well; the response's end is the end of that too, and the connection is dropped.

use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::io::AsyncReadExt as _;

use super::chunked::{Decoder, Piece};
use super::sending::Sending;
use super::{Error, Transport};
use crate::wire::body::BodyError;

/// What is read at once: little where little comes, more where reads fill up.
const READ_BYTES_MIN: usize = 8 * 1024;
const READ_BYTES_MAX: usize = 64 * 1024;

/// A body on its way from a server.
pub(super) struct Incoming<S, H> {
    /// `None` once the body has ended in whatever way.
    stream: Option<S>,
    /// Takes the connection at the end, where the server keeps it open.
    home: Option<H>,
    /// What is left of the request.
    sending: Option<Sending>,
    decoder: Decoder,
    at_hand: Bytes,
    room: BytesMut,
    read_bytes: usize,
}

impl<S: Transport, H: FnOnce(S) + Unpin> Incoming<S, H> {
    pub(super) fn new(stream: S, home: Option<H>, sending: Option<Sending>, decoder: Decoder, at_hand: Bytes) -> Self {
        Self {
            stream: Some(stream),
            home,
            sending,
            decoder,
            at_hand,
            room: BytesMut::new(),
            read_bytes: READ_BYTES_MIN,
        }
    }

    fn end(&mut self) {
        let stream = self.stream.take();
        let free = self.sending.is_none() && self.at_hand.is_empty();
        if let (true, Some(stream), Some(home)) = (free, stream, self.home.take()) {
            home(stream);
        }
        (self.sending, self.at_hand, self.room) = (None, Bytes::new(), BytesMut::new());
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
            Poll::Ready(Err(Error::Io(_))) => {
                // it takes no more, and may have answered nevertheless
                (self.sending, self.home) = (None, None);
            }
            Poll::Ready(Err(error)) => return Err(error),
        }
        Ok(())
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, Error>> {
        self.send(cx)?;
        loop {
            match self.decoder.next(&mut self.at_hand)? {
                Piece::More => {}
                piece @ (Piece::Data(_) | Piece::Trailers(_) | Piece::End) => return Poll::Ready(Ok(piece)),
            }
            if ready!(self.poll_read(cx))? == 0 {
                let ended = self.decoder.ends_with_connection();
                return Poll::Ready(if ended { Ok(Piece::End) } else { Err(Error::Closed) });
            }
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, Error>> {
        let Some(stream) = &mut self.stream else { return Poll::Ready(Ok(0)) };
        // one byte beyond the end, so that the read is a short one, after which no other is needed to find the socket empty
        let left = self.decoder.left().and_then(|left| usize::try_from(left).ok()?.checked_add(1));
        let wanted = left.map_or(self.read_bytes, |left| left.min(self.read_bytes));
        if self.room.capacity() < wanted.min(self.read_bytes / 2) {
            self.room.reserve(wanted);
        }
        let room = self.room.capacity();
        let bytes = ready!(pin!(stream.read_buf(&mut self.room)).poll(cx)).map_err(Error::Io)?;
        if bytes == room {
            self.read_bytes = (self.read_bytes * 2).min(READ_BYTES_MAX);
        } else if bytes < self.read_bytes / 4 {
            self.read_bytes = (self.read_bytes / 2).max(READ_BYTES_MIN);
        }
        self.at_hand = self.room.split().freeze();
        Poll::Ready(Ok(bytes))
    }
}

impl<S: Transport, H: FnOnce(S) + Unpin> HttpBody for Incoming<S, H> {
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
                if incoming.decoder.has_ended() {
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
        self.decoder.left().map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
