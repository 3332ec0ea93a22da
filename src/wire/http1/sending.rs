//! A message on its way out: its head, and its body as one side gives it and the other takes it.
//!
//! What is small goes along with the head or the chunk's line in one write; what is large is not copied. The body is asked
//! for more only once the other side has taken all that was written, so that a slow reader slows the writer behind us.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http::{HeaderMap, HeaderValue};
use http_body::{Body, Frame};
use tokio::io::AsyncWrite;

use super::encode;
use crate::wire::body::BodyError;

/// Data up to this size is copied behind what goes before it; beyond, a second buffer in the same write costs less.
const COPIED_BYTES_MAX: usize = 8 * 1024;

/// Bytes that are gathered from a body before they are written.
const GATHERED_BYTES_MAX: usize = 16 * 1024;

/// A message that is being written.
pub(crate) struct Sending<B> {
    /// To be written: this from `at` on, then `data`, then `tail`.
    lead: Vec<u8>,
    at: usize,
    data: Bytes,
    tail: &'static [u8],
    /// Where there is one.
    body: Option<B>,
    framing: Outward,
    /// All of the body was taken over.
    ended: bool,
    /// The other side did not take all that there was to write.
    blocked: bool,
    begun: bool,
}

/// How a head says that its body is framed.
pub(crate) enum Outward {
    /// There is none.
    None,
    /// Bytes that are left of what the head says.
    Length(u64),
    /// Chunks, with the values of `Trailer`.
    Chunked(Vec<HeaderValue>),
    /// As it is, to the end of the connection.
    Close,
}

/// Why a message is not wholly written.
#[derive(Debug)]
pub(crate) enum Unsent {
    /// The socket.
    Io(io::Error),
    /// Its own body.
    Body(BodyError),
    /// Its body is not what its head says.
    Length,
}

impl<B: Body<Data = Bytes, Error = BodyError> + Unpin> Sending<B> {
    /// A message whose head is in `lead` and says how its body is framed.
    pub(crate) fn new(lead: Vec<u8>, framing: Outward, body: Option<B>) -> Self {
        let (data, tail, ended) = (Bytes::new(), &b""[..], body.is_none());
        Self { lead, at: 0, data, tail, body, framing, ended, blocked: false, begun: false }
    }

    /// Whether nothing was written, and nothing taken of a body, which is asked for before the first write: the message can
    /// go elsewhere as it is.
    pub(crate) const fn is_untouched(&self) -> bool {
        !self.begun && self.body.is_none()
    }

    /// The buffer, once all was written.
    pub(crate) fn into_lead(self) -> Vec<u8> {
        self.lead
    }

    /// Whether what is waited for is that the other side takes what was written.
    pub(crate) const fn is_blocked(&self) -> bool {
        self.blocked
    }

    /// Ready once the message was wholly written.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<Result<(), Unsent>> {
        loop {
            let waits = !self.blocked && self.gather(cx)?;
            self.blocked = true;
            ready!(self.poll_write(cx, stream)).map_err(Unsent::Io)?;
            if waits || self.ended {
                ready!(Pin::new(&mut *stream).poll_flush(cx)).map_err(Unsent::Io)?;
            }
            self.blocked = false;
            if self.ended {
                return Poll::Ready(Ok(()));
            }
            if waits {
                return Poll::Pending;
            }
        }
    }

    /// Ready once all was written that was taken over before the body broke, so that the other side sees how far it came.
    pub(crate) fn poll_taken_over(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<io::Result<()>> {
        self.blocked = true;
        ready!(self.poll_write(cx, stream))?;
        ready!(Pin::new(&mut *stream).poll_flush(cx))?;
        self.blocked = false;
        Poll::Ready(Ok(()))
    }

    /// Takes over what the body has; whether it has to be waited for.
    fn gather(&mut self, cx: &mut Context<'_>) -> Result<bool, Unsent> {
        while !self.ended && self.data.is_empty() && self.lead.len() < GATHERED_BYTES_MAX {
            let Some(body) = &mut self.body else { return self.end(None).map(|()| false) };
            match Pin::new(body).poll_frame(cx) {
                Poll::Pending => return Ok(true),
                Poll::Ready(None) => self.end(None)?,
                Poll::Ready(Some(frame)) => self.take(frame.map_err(Unsent::Body)?)?,
            }
        }
        Ok(false)
    }

    fn take(&mut self, frame: Frame<Bytes>) -> Result<(), Unsent> {
        let data = match frame.into_data() {
            Ok(data) => data,
            Err(frame) => return self.end(frame.into_trailers().ok().as_ref()),
        };
        if !data.is_empty() {
            self.take_data(data)?;
        }
        if self.body.as_ref().is_none_or(Body::is_end_stream) { self.end(None) } else { Ok(()) }
    }

    fn take_data(&mut self, data: Bytes) -> Result<(), Unsent> {
        let tail = match &mut self.framing {
            Outward::None => return Err(Unsent::Length),
            Outward::Length(left) => {
                // what goes beyond the length would be the next message
                *left = left.checked_sub(data.len() as u64).ok_or(Unsent::Length)?;
                &b""[..]
            }
            Outward::Chunked(_) => {
                encode::chunk_size(&mut self.lead, data.len());
                encode::CRLF
            }
            Outward::Close => &b""[..],
        };
        if data.len() <= COPIED_BYTES_MAX {
            self.lead.extend_from_slice(&data);
            self.lead.extend_from_slice(tail);
        } else {
            (self.data, self.tail) = (data, tail);
        }
        Ok(())
    }

    fn end(&mut self, trailers: Option<&HeaderMap>) -> Result<(), Unsent> {
        self.ended = true;
        match &self.framing {
            Outward::None | Outward::Length(0) | Outward::Close => Ok(()),
            Outward::Length(_) => Err(Unsent::Length),
            Outward::Chunked(announced) => {
                if self.data.is_empty() {
                    encode::last_chunk(&mut self.lead, trailers, announced);
                } else {
                    // trailers are taken only once the data has gone
                    self.tail = encode::CRLF_AND_LAST_CHUNK;
                }
                Ok(())
            }
        }
    }

    /// Ready once all that is there was written.
    fn poll_write(&mut self, cx: &mut Context<'_>, stream: &mut (impl AsyncWrite + Unpin)) -> Poll<io::Result<()>> {
        loop {
            let lead = self.lead.get(self.at..).unwrap_or_default();
            let written = if self.data.is_empty() && self.tail.is_empty() {
                if lead.is_empty() {
                    self.lead.clear();
                    self.at = 0;
                    return Poll::Ready(Ok(()));
                }
                ready!(Pin::new(&mut *stream).poll_write(cx, lead))?
            } else {
                let slices = [IoSlice::new(lead), IoSlice::new(&self.data), IoSlice::new(self.tail)];
                ready!(Pin::new(&mut *stream).poll_write_vectored(cx, &slices))?
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.begun = true;
            self.advance(written);
        }
    }

    fn advance(&mut self, written: usize) {
        let of_lead = written.min(self.lead.len() - self.at);
        let of_data = (written - of_lead).min(self.data.len());
        self.at += of_lead;
        self.data.advance(of_data);
        if self.data.is_empty() {
            // or whoever reads the body would not have the room back in which it came
            self.data = Bytes::new();
        }
        self.tail = self.tail.get(written - of_lead - of_data..).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use http_body_util::StreamBody;
    use proptest::prelude::*;

    use super::*;
    use crate::wire::http1::Framing;
    use crate::wire::http1::chunked::{Decoder, Piece, TRAILER_BYTES_MAX};

    /// What is written of a body in chunks.
    fn written(frames: Vec<Frame<Bytes>>) -> Vec<u8> {
        let body = StreamBody::new(futures_util::stream::iter(frames.into_iter().map(Ok::<_, BodyError>)));
        let announced = vec![HeaderValue::from_static("x-sum")];
        let mut sending = Sending::new(Vec::new(), Outward::Chunked(announced), Some(body));
        let mut bytes = Vec::new();
        assert!(matches!(sending.poll(&mut Context::from_waker(Waker::noop()), &mut bytes), Poll::Ready(Ok(()))));
        bytes
    }

    /// What is read of it, in these pieces: content and trailers, and nothing left.
    fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<u8>, Option<HeaderMap>) {
        let mut decoder = Decoder::new(Framing::Chunked, TRAILER_BYTES_MAX).unwrap();
        let (mut content, mut end) = (Vec::new(), None);
        for piece in pieces {
            assert!(end.is_none(), "something follows the end");
            let mut at_hand = Bytes::copy_from_slice(piece);
            end = loop {
                match decoder.next(&mut at_hand).unwrap() {
                    Piece::More => break None,
                    Piece::Data(data) => content.extend_from_slice(&data),
                    Piece::Trailers(trailers) => break Some(Some(trailers)),
                    Piece::End => break Some(None),
                }
            };
            assert!(at_hand.is_empty());
        }
        (content, end.unwrap())
    }

    proptest! {
        #[test]
        fn what_is_written_in_chunks_is_read_wherever_it_is_cut(
            chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..6),
            large in prop::option::weighted(0.1, (COPIED_BYTES_MAX - 1)..(COPIED_BYTES_MAX + 2)),
            sum in proptest::option::of("[!-~]{1,20}"),
        ) {
            let large = large.map(|bytes| vec![b'x'; bytes]);
            let chunks: Vec<Vec<u8>> = chunks.into_iter().chain(large).collect();
            let trailers = sum.map(|sum| HeaderMap::from_iter([("x-sum".parse().unwrap(), sum.parse().unwrap())]));
            let data = chunks.iter().map(|chunk| Frame::data(Bytes::from(chunk.clone())));
            let bytes = written(data.chain(trailers.clone().map(Frame::trailers)).collect());
            let expected = (chunks.concat(), trailers);
            prop_assert_eq!(&read(bytes.chunks(1)), &expected);
            for at in 0..bytes.len().min(300) {
                let (one, two) = bytes.split_at(at);
                prop_assert_eq!(&read([one, two]), &expected, "cut at {}", at);
            }
        }
    }
}
