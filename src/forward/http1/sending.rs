//! A request on its way out: its head, and its body as the caller gives it and the server takes it.
//!
//! What is small goes along with the head or the chunk's line in one write; what is large is not copied. The body is asked
//! for more only once the server has taken all that was written, so that a slow server slows its caller.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http::HeaderMap;
use http_body::{Body as _, Frame};
use tokio::io::AsyncWrite;

use super::super::outgoing::Outgoing;
use super::super::rewrite::Framing;
use super::{Error, encode};

/// Data up to this size is copied behind what goes before it; beyond, a second buffer in the same write costs less.
const COPIED_BYTES_MAX: usize = 8 * 1024;

/// Bytes that are gathered from a body before they are written.
const GATHERED_BYTES_MAX: usize = 16 * 1024;

/// A request that is being written.
pub(super) struct Sending {
    /// To be written: this from `at` on, then `data`, then `tail`.
    lead: Vec<u8>,
    at: usize,
    data: Bytes,
    tail: &'static [u8],
    /// Where there is one.
    body: Option<Outgoing>,
    /// What the head says of the body, less what was taken of it.
    left: Framing,
    /// All of the body was taken over.
    ended: bool,
    /// The server did not take all that there was to write.
    blocked: bool,
    begun: bool,
}

impl Sending {
    /// A request whose head, in `lead`, says that its body is framed so. Takes a body that there is, and gives
    /// [`Outgoing::empty`] for it.
    pub(super) fn new(lead: Vec<u8>, framing: &Framing, body: &mut Outgoing) -> Self {
        let body = (*framing != Framing::Empty).then(|| std::mem::replace(body, Outgoing::empty()));
        let (data, tail, ended) = (Bytes::new(), &b""[..], body.is_none());
        Self { lead, at: 0, data, tail, body, left: framing.clone(), ended, blocked: false, begun: false }
    }

    /// Whether nothing was written, and nothing taken of a body, which is asked for before the first write: the request can
    /// go elsewhere as it is.
    pub(super) const fn is_untouched(&self) -> bool {
        !self.begun && self.body.is_none()
    }

    /// The buffer, once all was written.
    pub(super) fn into_lead(self) -> Vec<u8> {
        self.lead
    }

    /// Ready once the request was wholly written.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<Result<(), Error>> {
        loop {
            let waits = !self.blocked && self.gather(cx)?;
            self.blocked = true;
            ready!(self.poll_write(cx, stream)).map_err(Error::Io)?;
            self.blocked = false;
            if waits || self.ended {
                ready!(Pin::new(&mut *stream).poll_flush(cx)).map_err(Error::Io)?;
                return if self.ended { Poll::Ready(Ok(())) } else { Poll::Pending };
            }
        }
    }

    /// Takes over what the body has; whether it has to be waited for.
    fn gather(&mut self, cx: &mut Context<'_>) -> Result<bool, Error> {
        while !self.ended && self.data.is_empty() && self.lead.len() < GATHERED_BYTES_MAX {
            let Some(body) = &mut self.body else { return self.end(None).map(|()| false) };
            match Pin::new(body).poll_frame(cx) {
                Poll::Pending => return Ok(true),
                Poll::Ready(None) => self.end(None)?,
                Poll::Ready(Some(frame)) => self.take(frame.map_err(Error::Body)?)?,
            }
        }
        Ok(false)
    }

    fn take(&mut self, frame: Frame<Bytes>) -> Result<(), Error> {
        let data = match frame.into_data() {
            Ok(data) => data,
            Err(frame) => return self.end(frame.into_trailers().ok().as_ref()),
        };
        if !data.is_empty() {
            self.take_data(data)?;
        }
        if self.body.as_ref().is_none_or(http_body::Body::is_end_stream) { self.end(None) } else { Ok(()) }
    }

    fn take_data(&mut self, data: Bytes) -> Result<(), Error> {
        let tail = match &mut self.left {
            Framing::Empty => return Err(Error::Length),
            Framing::Length(left) => {
                // what goes beyond the length would be the next request
                *left = left.checked_sub(data.len() as u64).ok_or(Error::Length)?;
                &b""[..]
            }
            Framing::Chunked(_) => {
                encode::chunk_size(&mut self.lead, data.len());
                encode::CRLF
            }
        };
        if data.len() <= COPIED_BYTES_MAX {
            self.lead.extend_from_slice(&data);
            self.lead.extend_from_slice(tail);
        } else {
            (self.data, self.tail) = (data, tail);
        }
        Ok(())
    }

    fn end(&mut self, trailers: Option<&HeaderMap>) -> Result<(), Error> {
        self.ended = true;
        match &self.left {
            Framing::Empty | Framing::Length(0) => Ok(()),
            Framing::Length(_) => Err(Error::Length),
            Framing::Chunked(announced) => {
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
        self.tail = self.tail.get(written - of_lead - of_data..).unwrap_or_default();
    }
}
