//! HTTP/1.1 from callers: one request at a time, in one task, over a socket that nobody else reads.
//!
//! A request is read strictly by [`super::head`], its body as the handler wants it ([`body`]), and its response is written
//! by [`response`]; a small one of each takes one read and one write. While nothing is under way there is no buffer. What
//! the sweeper finds overdue, it says by the [`Link`](super::link::Link).

mod body;
mod caller;
mod response;
#[cfg(test)]
mod tests;

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::BytesMut;
use http::{Response, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use self::caller::{Arrived, Caller, Expected, Outlet};
use self::response::{Asked, Form};
use super::Handler;
use super::connection::Service;
use super::head::Head;
use super::link::{Guard, Order};
use super::rewound::Rewound;
use crate::wire::body::Body;
use crate::wire::http1::sending::{Outward, Sending, Unsent};
use crate::wire::upgrade::{self, Upgraded};

/// A caller's socket.
pub(super) trait Socket: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// Where it is closed from here on, the caller sees that it broke off. Over TLS the missing farewell says so.
    fn reset_when_closed(&mut self);
}

impl Socket for TcpStream {
    fn reset_when_closed(&mut self) {
        // where it cannot be set, the connection is closed all the same
        drop(self.set_zero_linger());
    }
}

impl Socket for TlsStream<TcpStream> {
    fn reset_when_closed(&mut self) {}
}

/// A connection that turned out to speak HTTP/2, and what was read from it.
pub(super) struct Http2<S> {
    pub(super) socket: S,
    pub(super) ahead: BytesMut,
    pub(super) guard: Guard,
}

/// What follows a response.
enum Next {
    /// Another request.
    Request,
    /// The end; `lingers` where the caller may be sending what nobody reads.
    End { lingers: bool },
    /// The end at once: the caller is gone, or must see that the response broke off.
    Break,
    /// Another protocol.
    Upgraded(Promise),
}

type Promise = tokio::sync::oneshot::Sender<Upgraded>;

/// Serves the requests of a connection. Gives it back where it speaks HTTP/2, which it may only with `or_http2`.
pub(super) fn serve<S: Socket, H: Handler>(
    socket: S,
    or_http2: bool,
    service: &Service<H>,
    guard: Guard,
) -> impl Future<Output = Option<Http2<S>>> {
    // an `async fn` would keep room for the socket, which over TLS is more than all else
    let connection = Connection { caller: Caller::new(socket, &service.worker.spares, &service.link), service };
    async move {
        let mut served = pin!(connection.serve(or_http2));
        let end = poll_fn(|cx| match service.link.ordered(cx) {
            Some(Order::Abort) => Poll::Ready(End::Closed),
            Some(Order::Finish) | None => served.as_mut().poll(cx),
        });
        match end.await {
            End::Closed => None,
            End::Upgraded(promise) => {
                if let Some((socket, ahead)) = connection.caller.leave() {
                    // nobody may want it any more
                    drop(promise.send(Box::new(Rewound::new(socket, ahead, guard))));
                }
                None
            }
            End::Http2 => connection.caller.leave().map(|(socket, ahead)| Http2 { socket, ahead, guard }),
        }
    }
}

/// How a connection ended as one of HTTP/1.1.
enum End {
    Closed,
    Upgraded(Promise),
    Http2,
}

struct Connection<'a, S: Socket, H> {
    caller: Rc<Caller<S>>,
    service: &'a Service<H>,
}

impl<S: Socket, H> Drop for Connection<'_, S, H> {
    fn drop(&mut self) {
        // a body that somebody still has keeps the caller, but not the socket
        self.caller.close();
    }
}

impl<S: Socket, H: Handler> Connection<'_, S, H> {
    async fn serve(&self, mut or_http2: bool) -> End {
        loop {
            let arrived = poll_fn(|cx| {
                let bounds = self.service.head_bounds();
                self.caller.poll_request(cx, Expected { bounds, or_http2 })
            });
            let next = match arrived.await {
                // boxed, so that a connection without a request has no room for it
                Arrived::Request(head, body) => Box::pin(self.answer(head, body)).await,
                Arrived::Refused(fault, asked) => {
                    let response = self.service.refuse(&asked, fault.into());
                    let responded = Box::pin(self.respond(response, Asked::by_what_is_refused(&asked))).await;
                    responded.map_or(Next::Break, |_| Next::End { lingers: true })
                }
                Arrived::Http2 => return End::Http2,
                Arrived::End => Next::End { lingers: false },
            };
            or_http2 = false;
            match next {
                Next::Request => {}
                Next::End { lingers } => {
                    self.end(lingers).await;
                    return End::Closed;
                }
                Next::Break => return End::Closed,
                Next::Upgraded(promise) => return End::Upgraded(promise),
            }
        }
    }

    /// One request and its response.
    async fn answer(&self, head: Head, body: Body) -> Next {
        let under_way = self.service.link.begin();
        let asked = Asked::new(&head);
        let Head { mut parts, upgrades, .. } = head;
        let promise = upgrades.then(|| {
            let (promise, promised) = upgrade::promise();
            parts.extensions.insert(promised);
            promise
        });
        let response = {
            let mut answered = pin!(self.service.answer(parts, body));
            let response = poll_fn(|cx| {
                if let Poll::Ready(response) = self.caller.at_work(|| answered.as_mut().poll(cx)) {
                    return Poll::Ready(Some(response));
                }
                self.caller.poll_gone(cx).map(|()| None)
            });
            response.await
        };
        let Some(response) = response else { return Next::Break };
        let under_way = under_way.answered();
        let upgrades = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        let Some(closes) = self.respond(response, asked).await else { return Next::Break };
        drop(under_way);
        if upgrades {
            // one that was not asked for is followed by nothing that we could read
            return promise.map_or(Next::Break, Next::Upgraded);
        }
        let over = poll_fn(|cx| {
            let over = self.caller.poll_body_over(cx);
            if over.is_pending() && (closes || self.service.link.must_end()) { Poll::Ready(false) } else { over }
        });
        let over = over.await;
        if closes || !over { Next::End { lingers: !over || self.caller.holds() } } else { Next::Request }
    }

    /// Writes a response; whether it is the last one, or `None` where it could not be written whole.
    async fn respond(&self, response: Response<Body>, asked: Asked) -> Option<bool> {
        let (head, body) = response.into_parts();
        let leaves_body = poll_fn(|cx| Poll::Ready(self.caller.leaves_body(cx))).await;
        let worker = &self.service.worker;
        let mut lead = worker.spares.to_write();
        let last = leaves_body || self.service.link.is_finishing();
        let Form { framing, closes } = response::write(&mut lead, &head, &body, asked, last, &worker.date.get());
        drop(head);
        let (ends_by_close, bodiless) = (matches!(framing, Outward::Close), matches!(framing, Outward::None));
        let mut sending = Sending::new(lead, framing, (!bodiless).then_some(body));
        self.caller.answers();
        match self.write(&mut sending, Sending::poll).await? {
            Ok(()) => {
                worker.spares.was_written(sending.into_lead());
                Some(closes)
            }
            Err(unsent) => {
                tracing::debug!(?unsent, "response broke off");
                if !matches!(unsent, Unsent::Io(_)) {
                    // nobody is left to tell where this fails too
                    drop(self.write(&mut sending, Sending::poll_taken_over).await?);
                }
                if ends_by_close {
                    self.caller.reset();
                }
                None
            }
        }
    }

    /// Writes what `step` gives to write; `None` where the caller is gone.
    async fn write<'c, T>(
        &'c self,
        sending: &mut Sending<Body>,
        mut step: impl FnMut(&mut Sending<Body>, &mut Context<'_>, &mut Outlet<'c, S>) -> Poll<T>,
    ) -> Option<T> {
        poll_fn(|cx| {
            let polled = self.caller.at_work(|| step(sending, cx, &mut Outlet(&self.caller)));
            self.service.link.blocked(sending.is_blocked());
            match polled {
                Poll::Ready(done) => Poll::Ready(Some(done)),
                Poll::Pending => self.caller.poll_gone(cx).map(|()| None),
            }
        })
        .await
    }

    async fn end(&self, lingers: bool) {
        if poll_fn(|cx| self.caller.poll_shutdown(cx)).await.is_ok() && lingers {
            self.caller.linger().await;
        }
    }
}
