//! One request and its response over a connection that nobody else uses.
//!
//! The connection goes back to where it came from once the request was wholly written, the response wholly read and
//! nothing is left behind it; for a small response that is before the caller has its first byte. Otherwise it is dropped.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use http::{Method, response};
use tokio::io::{AsyncRead, ReadBuf};

use super::super::outgoing::Outgoing;
use super::super::rewrite::Framing;
use super::decode::{self, Fields, Head, Step};
use super::incoming::Incoming;
use super::{Error, Malformed, RESPONSE_HEAD_BYTES_MAX, Transport};
use crate::clock::Clock;
use crate::wire::body::Body;
use crate::wire::http1::chunked::{Decoder, TRAILER_BYTES_MAX, whole};
use crate::wire::http1::intake::Intake;
use crate::wire::http1::sending::{Outward, Sending, Unsent};
use crate::wire::http1::spares::{Buffer, Spares};

/// Interim responses before a response, at most.
const INTERIM_MAX: u32 = 16;

/// A response.
pub(in crate::forward) struct Answer {
    pub(in crate::forward) head: response::Parts,
    pub(in crate::forward) body: Body,
    /// All of it has come, and the connection is no longer needed.
    pub(in crate::forward) whole: bool,
    /// When its head was there.
    pub(in crate::forward) came: Instant,
}

/// Why there was no response.
pub(in crate::forward) enum Failed {
    /// Nothing was written, and there was no body.
    Unsent,
    /// The connection broke; `answered` if any byte had come over it.
    Lost { answered: bool, error: Error },
}

/// What a worker has for all its exchanges.
#[derive(Clone, Copy)]
pub(in crate::forward) struct Means<'a> {
    pub(in crate::forward) spares: &'a Spares,
    pub(in crate::forward) clock: &'a Clock,
}

/// What of a request decides how its response is read.
#[derive(Clone, Copy)]
pub(in crate::forward) struct Expected<'a> {
    pub(in crate::forward) method: &'a Method,
    pub(in crate::forward) fields: Fields,
}

/// Sends a request over `stream` and waits for the response's head. `lead` is the request's head, and says that the body is framed so; `home` takes the connection once it is free again, and is told when that was if it is known.
pub(in crate::forward) async fn exchange<S: Transport>(
    mut stream: S,
    expected: Expected<'_>,
    lead: Vec<u8>,
    framing: &Framing,
    body: &mut Outgoing,
    Means { spares, clock }: Means<'_>,
    home: impl FnOnce(S, Option<Instant>) + Unpin + 'static,
) -> Result<Answer, Failed> {
    let mut sending = Some(begun(lead, framing, body));
    let mut receiving = Receiving::default();
    let received = poll_fn(|cx| {
        if let Some(out) = &mut sending {
            match out.poll(cx, &mut stream) {
                Poll::Pending => {}
                Poll::Ready(Ok(())) => {
                    if let Some(out) = sending.take() {
                        spares.was_written(out.into_lead());
                    }
                }
                Poll::Ready(Err(Unsent::Io(error))) => {
                    if sending.take().is_some_and(|out| out.is_untouched()) {
                        return Poll::Ready(Err(Failed::Unsent));
                    }
                    // what the server had to say before it stopped reading may have come
                    receiving.unread = Some(Error::Io(error));
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(receiving.failed(error.into()))),
            }
        }
        receiving.poll(cx, &mut stream, expected, spares).map_err(|error| receiving.failed(error))
    });
    let received = received.await?;
    let came = clock.now();
    let request_ended = sending.is_none() && receiving.unread.is_none();
    let Head { parts: head, framing, lines, keep_alive, mut rest } = received;
    if let Some(content) = whole(framing, &mut rest) {
        if keep_alive && request_ended && rest.is_empty() {
            home(stream, Some(came));
        }
        return Ok(Answer { head, body: Body::full(content).behind(lines), whole: true, came });
    }
    let Some(decoder) = Decoder::new(framing, TRAILER_BYTES_MAX) else {
        return Ok(Answer { head, body: Body::empty(), whole: true, came });
    };
    let home = (keep_alive && receiving.unread.is_none()).then_some(home);
    let body = Body::boxed(Incoming::new(stream, home, sending, Intake::new(decoder, rest)));
    Ok(Answer { head, body, whole: false, came })
}

/// A request whose head, in `lead`, says that its body is framed so. Takes a body that there is, and gives
/// [`Outgoing::empty`] for it.
fn begun(lead: Vec<u8>, framing: &Framing, body: &mut Outgoing) -> Sending<Outgoing> {
    let framing = match framing {
        Framing::Empty => return Sending::new(lead, Outward::None, None),
        Framing::Length(length) => Outward::Length(*length),
        Framing::Chunked(announced) => Outward::Chunked(announced.clone()),
    };
    Sending::new(lead, framing, Some(std::mem::replace(body, Outgoing::empty())))
}

/// What has come of a response's head.
#[derive(Default)]
struct Receiving {
    held: Option<Buffer>,
    interim: u32,
    answered: bool,
    /// Why the rest of the request could not be written.
    unread: Option<Error>,
}

impl Receiving {
    fn failed(&mut self, error: Error) -> Failed {
        // a server that hung up and one that reset the connection have done the same
        let error = match (self.unread.take(), error) {
            (Some(unread), Error::Closed) => unread,
            (_, error) => error,
        };
        Failed::Lost { answered: self.answered, error }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut (impl AsyncRead + Unpin),
        expected: Expected<'_>,
        spares: &Spares,
    ) -> Poll<Result<Head, Error>> {
        let mut buffer = self.held.take().unwrap_or_else(|| spares.to_read());
        let polled = self.poll_into(&mut buffer, cx, stream, expected);
        if polled.is_pending() && !buffer.filled().is_empty() {
            self.held = Some(buffer);
        } else {
            spares.was_read(buffer);
        }
        polled
    }

    fn poll_into(
        &mut self,
        buffer: &mut Buffer,
        cx: &mut Context<'_>,
        stream: &mut (impl AsyncRead + Unpin),
        expected: Expected<'_>,
    ) -> Poll<Result<Head, Error>> {
        loop {
            let room = buffer.room(RESPONSE_HEAD_BYTES_MAX);
            if room.is_empty() {
                return Poll::Ready(Err(Malformed::TooLarge.into()));
            }
            let mut read = ReadBuf::new(room);
            ready!(Pin::new(&mut *stream).poll_read(cx, &mut read)).map_err(Error::Io)?;
            let bytes = read.filled().len();
            if bytes == 0 {
                return Poll::Ready(Err(Error::Closed));
            }
            self.answered = true;
            let known = buffer.filled().len();
            buffer.fill(bytes);
            if let Some(head) = self.take(buffer, known, expected)? {
                return Poll::Ready(Ok(head));
            }
        }
    }

    /// The response's head, if it is in the buffer, of which `known` bytes were looked at before.
    fn take(
        &mut self,
        buffer: &mut Buffer,
        known: usize,
        Expected { method, fields }: Expected<'_>,
    ) -> Result<Option<Head>, Malformed> {
        // a head that comes in crumbs is not parsed at each of them
        let unseen = buffer.filled().get(known.saturating_sub(3)..).unwrap_or_default();
        if known > 0 && memchr::memmem::find(unseen, b"\r\n\r\n").is_none() {
            return Ok(None);
        }
        loop {
            match decode::head(buffer.filled(), method, fields)? {
                Step::More => return Ok(None),
                Step::Head(head) => return Ok(Some(head)),
                Step::Interim(length) => {
                    self.interim += 1;
                    if self.interim > INTERIM_MAX {
                        return Err(Malformed::Interim);
                    }
                    buffer.skip(length);
                }
            }
        }
    }
}
