//! WebSocket through the gateway: `Upgrade` (RFC 9110 7.8) and extended CONNECT (RFC 8441), towards either.
//!
//! Only `websocket` is ever upgraded. Behind an upgrade the gateway is blind, and `h2c` or a protocol of a server's own
//! would let a caller send requests there that no route has seen. A connection that was upgraded is nobody else's again.

use std::rc::Rc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{CONNECTION, CONTENT_LENGTH, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version, request, response};
use hyper::ext::Protocol as ConnectProtocol;
use hyper::upgrade::OnUpgrade as OnHyperUpgrade;
use hyper_util::rt::TokioIo;
use prometheus::IntGauge;
use sha1::{Digest, Sha1};

use super::leash::Leash;
use super::tunnel;
use crate::listen::TunnelStream;
use crate::wire::fields::Hop;
use crate::wire::upgrade::{OnUpgrade, Upgraded};

const WEBSOCKET: &str = "websocket";

/// RFC 6455 1.3.
const ACCEPT_GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// A caller's wish for a WebSocket.
pub(super) struct Asked {
    caller: Promised,
    form: Form,
    /// The key that the upstream has to confirm: the caller's, or one of ours.
    key: HeaderValue,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// `Upgrade: websocket`.
    Upgrade,
    /// `:method CONNECT`, `:protocol websocket`.
    ExtendedConnect,
}

/// The caller's end once the response was written, as their protocol has it.
enum Promised {
    Http1(OnUpgrade),
    Http2(OnHyperUpgrade),
}

impl Promised {
    async fn upgraded(self) -> Option<Upgraded> {
        match self {
            Self::Http1(promised) => promised.upgraded().await,
            Self::Http2(promised) => promised.await.ok().map(|stream| -> Upgraded { Box::new(TokioIo::new(stream)) }),
        }
    }
}

/// How an upstream took the wish.
pub(super) enum Outcome {
    /// It agreed: the head for the caller, and the two ends.
    Agreed(Tunnel),
    /// It did not: an ordinary response.
    Declined,
    /// It answered what cannot be passed on.
    Broken,
}

/// The two ends of what will be a tunnel once the caller has its response.
pub(super) struct Tunnel {
    caller: Promised,
    upstream: OnHyperUpgrade,
}

/// The wish for a WebSocket of a caller's head, taken out of it. Any other upgrade is not passed on: the server may ignore the
/// wish (RFC 9110 7.8), and here never hears of it.
pub(super) fn asked(head: &mut request::Parts, hop: &Hop, has_body: bool) -> Option<Asked> {
    if head.method == Method::CONNECT {
        let protocol = head.extensions.remove::<ConnectProtocol>()?;
        if !protocol.as_str().eq_ignore_ascii_case(WEBSOCKET) {
            return None;
        }
        let caller = Promised::Http2(head.extensions.remove::<OnHyperUpgrade>()?);
        let mut random = [0; 16];
        getrandom::fill(&mut random).ok()?;
        let key = HeaderValue::from_str(&STANDARD.encode(random)).ok()?;
        return Some(Asked { caller, form: Form::ExtendedConnect, key });
    }
    let wanted = hop.upgrade.as_ref().is_some_and(|token| token.as_bytes().eq_ignore_ascii_case(WEBSOCKET.as_bytes()));
    if !wanted || has_body || head.method != Method::GET || head.version != Version::HTTP_11 {
        return None;
    }
    let key = head.headers.get(SEC_WEBSOCKET_KEY)?.clone();
    let caller = Promised::Http1(head.extensions.remove::<OnUpgrade>()?);
    Some(Asked { caller, form: Form::Upgrade, key })
}

impl Asked {
    /// Puts the wish into a head for an HTTP/1.1 server.
    pub(super) fn ask_http1(&self, head: &mut request::Parts) {
        head.method = Method::GET;
        head.headers.insert(SEC_WEBSOCKET_KEY, self.key.clone());
        head.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        head.headers.insert(UPGRADE, HeaderValue::from_static(WEBSOCKET));
    }

    /// Puts the wish into a head for an HTTP/2 server (RFC 8441 5).
    pub(super) fn ask_http2(head: &mut request::Parts) {
        head.method = Method::CONNECT;
        head.headers.remove(SEC_WEBSOCKET_KEY);
        head.headers.remove(CONTENT_LENGTH);
        head.extensions.insert(ConnectProtocol::from_static(WEBSOCKET));
    }

    /// What an upstream's response comes to. Where it agreed, `head` becomes the caller's.
    pub(super) fn outcome(self, head: &mut response::Parts, over_http2: bool) -> Outcome {
        let agreed = if over_http2 { head.status.is_success() } else { head.status == StatusCode::SWITCHING_PROTOCOLS };
        if !agreed {
            // to a CONNECT any 2xx would say that there is a tunnel
            let misleading = head.status == StatusCode::SWITCHING_PROTOCOLS
                || self.form == Form::ExtendedConnect && head.status.is_success();
            return if misleading { Outcome::Broken } else { Outcome::Declined };
        }
        if !over_http2 && !self.confirmed(&head.headers) {
            return Outcome::Broken;
        }
        let Some(upstream) = head.extensions.remove::<OnHyperUpgrade>() else { return Outcome::Broken };
        match self.form {
            Form::ExtendedConnect => head.status = StatusCode::OK,
            Form::Upgrade => head.status = StatusCode::SWITCHING_PROTOCOLS,
        }
        Outcome::Agreed(Tunnel { caller: self.caller, upstream })
    }

    /// Writes what belongs to the caller's own hop into the response of an agreed upgrade, after everything else.
    pub(super) fn fields(&self) -> HopFields {
        HopFields { form: self.form, accept: accept(&self.key) }
    }

    /// Whether the upstream agreed to what was asked, and to this very request (RFC 6455 4.1).
    fn confirmed(&self, headers: &HeaderMap) -> bool {
        let token =
            headers.get(UPGRADE).is_some_and(|token| token.as_bytes().eq_ignore_ascii_case(WEBSOCKET.as_bytes()));
        token && headers.get(SEC_WEBSOCKET_ACCEPT) == accept(&self.key).as_ref()
    }
}

/// Fields of the caller's hop in the response to an agreed upgrade.
pub(super) struct HopFields {
    form: Form,
    accept: Option<HeaderValue>,
}

impl HopFields {
    pub(super) fn write(self, headers: &mut HeaderMap) {
        headers.remove(CONTENT_LENGTH);
        match self.form {
            Form::ExtendedConnect => drop(headers.remove(SEC_WEBSOCKET_ACCEPT)),
            Form::Upgrade => {
                headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
                headers.insert(UPGRADE, HeaderValue::from_static(WEBSOCKET));
                if let Some(accept) = self.accept {
                    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
                }
            }
        }
    }
}

/// RFC 6455 4.2.2.
fn accept(key: &HeaderValue) -> Option<HeaderValue> {
    let digest = Sha1::new().chain_update(key.as_bytes()).chain_update(ACCEPT_GUID).finalize();
    HeaderValue::from_str(&STANDARD.encode(digest)).ok()
}

/// Counts one open stream while it lives.
pub(super) struct OpenStream(IntGauge);

impl OpenStream {
    pub(super) fn new(gauge: IntGauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Tunnel {
    /// Carries bytes both ways until both sides have ended, one breaks or takes nothing for `stall`, the leash is cut, or
    /// the worker ends. There is no idle bound: an open WebSocket may be silent for hours, and TCP finds out about a dead
    /// peer. `held` lives as long as the tunnel. To be called by the task of the request.
    pub(super) fn carry(self, leash: Option<Rc<Leash>>, stall: Duration, held: impl Sized + 'static) {
        let stream = TunnelStream::current();
        tokio::task::spawn_local(async move {
            let held = held;
            // the caller's end is there once the response was written; the upstream's own bytes wait in its socket
            if let (Some(caller), Ok(upstream)) = (self.caller.upgraded().await, self.upstream.await) {
                let carried = tunnel::carry(caller, TokioIo::new(upstream), leash.as_deref(), stall);
                if let Err(error) = carried.await {
                    tracing::debug!(error = %error.kind(), "tunnel broke");
                    // what waits for window is not to wait on
                    stream.inspect(TunnelStream::reset);
                }
            }
            drop(held);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_accepted_as_the_rfc_says() {
        let key = HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(accept(&key).unwrap(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
