//! Streams end with the credential that opened them (`end_streams_on`).
//!
//! A stream that is open for long has a [`Leash`]. One sweeper a worker looks every [`SWEEP`] whether a credential has
//! ended or something that it rests on has changed; where it has, the credential is judged again as a new request's would
//! be, and the stream is cut where that would be refused. While nobody can say, it stays open and is asked about again.

use std::cell::{Cell, OnceCell, RefCell};
use std::num::NonZeroI64;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::{Body as HttpBody, Frame, SizeHint};

use crate::authenticate::{self, Authenticator, Caller, Failure, Identity, Tie};
use crate::authorize;
use crate::clock::{Clock, UnixSeconds};
use crate::principal::Scheme;
use crate::rejection::{CredentialsFault, Rejection, TokenFault};
use crate::route::Route;
use crate::wire::body::{Body, BodyError};

/// Changes of other processes are heard within 200 ms; with this and the check a stream ends well within a second.
const SWEEP: Duration = Duration::from_millis(250);

/// `UNAUTHENTICATED` of gRPC.
const GRPC_UNAUTHENTICATED: HeaderValue = HeaderValue::from_static("16");

/// Why a stream is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// The credential is no longer good, or no longer good for this route.
    Revoked,
    /// The credential has ended.
    Expired,
}

impl Cause {
    /// What the caller is told.
    pub(super) const fn text(self) -> &'static str {
        match self {
            Self::Revoked => "credential revoked",
            Self::Expired => "credential expired",
        }
    }
}

/// Which of the two directions waits.
#[derive(Clone, Copy, Debug)]
pub(super) enum Side {
    /// Towards the upstream.
    Request,
    /// Towards the caller.
    Response,
}

/// What ties one open stream to its credential.
pub(super) struct Leash {
    cause: Cell<Option<Cause>>,
    wakers: [RefCell<Option<Waker>>; 2],
    tie: Cell<Option<Tie>>,
    ends_at: Option<UnixSeconds>,
    scheme: Scheme,
    credential: HeaderValue,
    route: Route,
    checking: Cell<bool>,
}

/// What a leash is made of, kept while a request is under way; most never become a stream.
pub(super) struct Tether<'a> {
    route: &'a Route,
    identity: &'a Arc<Identity>,
    headers: &'a HeaderMap,
    leash: OnceCell<Rc<Leash>>,
}

/// The leashes of one worker.
#[derive(Default)]
pub(super) struct Leashes {
    list: Rc<List>,
}

#[derive(Default)]
struct List {
    entries: RefCell<Vec<Weak<Leash>>>,
    sweeping: Cell<bool>,
    authority: RefCell<Option<Rc<Authority>>>,
}

/// Who judges credentials, and by which settings.
struct Authority {
    authenticator: Arc<Authenticator>,
    settings: authenticate::Settings,
    clock: Clock,
}

impl Leashes {
    /// Takes the settings by which credentials are judged from here on. Those that were verified with keys of the
    /// configuration are judged again: a key may be gone.
    pub(super) fn obey(&self, authenticator: &Arc<Authenticator>, settings: &authenticate::Settings, clock: &Clock) {
        let authority =
            Authority { authenticator: Arc::clone(authenticator), settings: settings.clone(), clock: clock.clone() };
        *self.list.authority.borrow_mut() = Some(Rc::new(authority));
        for leash in self.list.entries.borrow().iter().filter_map(Weak::upgrade) {
            if leash.scheme == Scheme::Bearer {
                leash.tie.set(None);
            }
        }
    }

    /// The leash of a request whose response, or whose own body, is a stream.
    pub(super) fn leash(&self, tether: &Tether<'_>) -> Rc<Leash> {
        Rc::clone(tether.leash.get_or_init(|| {
            let now = self.list.authority.borrow().as_ref().map_or(0, |authority| authority.clock.unix());
            let leash = Rc::new(Leash::new(tether, now));
            self.list.entries.borrow_mut().push(Rc::downgrade(&leash));
            if !self.list.sweeping.replace(true) {
                tokio::task::spawn_local(sweep(Rc::downgrade(&self.list)));
            }
            leash
        }))
    }
}

impl<'a> Tether<'a> {
    /// `None` where nothing ends the streams of this route, or nobody in particular asks.
    pub(super) fn of(route: &'a Route, identity: Option<&'a Arc<Identity>>, headers: &'a HeaderMap) -> Option<Self> {
        let ends = route.ends_streams;
        let identity = identity.filter(|_| ends.revocation || ends.expiry)?;
        Some(Self { route, identity, headers, leash: OnceCell::new() })
    }
}

impl Leash {
    fn new(tether: &Tether<'_>, now: UnixSeconds) -> Self {
        let Tether { route, identity, headers, .. } = tether;
        // Copied: a value that came pins the whole buffer that it was read into. Where there is none nobody was identified, and
        // nobody is when it is judged again.
        let credential = headers.get(http::header::AUTHORIZATION).map(HeaderValue::as_bytes).unwrap_or_default();
        let mut credential = HeaderValue::from_bytes(credential).unwrap_or_else(|_| HeaderValue::from_static(""));
        credential.set_sensitive(true);
        // one that was taken past its end, by the leeway, is good until the end of that
        let expires_at = identity.expires_at.map(NonZeroI64::get);
        let past = expires_at.is_some_and(|end| now >= end);
        let ends_at = if past { identity.tie.and_then(Tie::ends_at) } else { expires_at };
        Self {
            cause: Cell::default(),
            wakers: Default::default(),
            tie: Cell::new(identity.tie),
            ends_at: ends_at.filter(|_| route.ends_streams.expiry),
            scheme: identity.scheme,
            credential,
            route: (*route).clone(),
            checking: Cell::new(false),
        }
    }

    /// Ready with the reason once the stream is to end.
    pub(super) fn poll_cut(&self, side: Side, cx: &Context<'_>) -> Poll<Cause> {
        if let Some(cause) = self.cause.get() {
            return Poll::Ready(cause);
        }
        let [request, response] = &self.wakers;
        let place = match side {
            Side::Request => request,
            Side::Response => response,
        };
        let mut place = place.borrow_mut();
        if !place.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
            *place = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Ends once the stream is to end.
    pub(super) async fn cut(&self, side: Side) -> Cause {
        std::future::poll_fn(|cx| self.poll_cut(side, cx)).await
    }

    /// Why the stream was cut, as a refusal, where it was cut before it began.
    pub(super) fn rejection(&self) -> Rejection {
        match (self.scheme, self.cause.get()) {
            (Scheme::Basic, _) => Rejection::InvalidCredentials(CredentialsFault::Disabled),
            (scheme, Some(Cause::Expired)) => Rejection::InvalidToken(scheme, TokenFault::Expired),
            (scheme, Some(Cause::Revoked) | None) => Rejection::InvalidToken(scheme, TokenFault::Revoked),
        }
    }

    /// A response's body that ends with the credential.
    pub(super) fn hold(self: Rc<Self>, body: Body, form: Form) -> Body {
        Body::boxed(Leashed { body: Some(body), leash: self, form })
    }

    fn end(&self, cause: Cause) {
        if self.cause.replace(Some(cause)).is_none() {
            tracing::debug!(route = &*self.route.name, cause = cause.text(), "stream cut");
        }
        for waker in self.wakers.iter().filter_map(|place| place.borrow_mut().take()) {
            waker.wake();
        }
    }

    /// Whether nothing that the credential rests on has changed.
    fn holds(&self, authenticator: &Authenticator) -> bool {
        let Some(mut tie) = self.tie.get() else { return false };
        let holds = authenticator.holds(&mut tie);
        if holds {
            self.tie.set(Some(tie));
        }
        holds
    }

    /// Judges the credential as if it came with a new request.
    async fn judge(self: Rc<Self>, authority: Rc<Authority>) {
        let Authority { authenticator, settings, .. } = &*authority;
        match authenticator.still(settings, self.route.schemes, &self.credential).await {
            Ok(identity) => {
                let tie = identity.tie;
                match authorize::permit(&self.route, Caller::Known(identity)) {
                    Ok(_) => self.tie.set(tie),
                    Err(_) => self.end(Cause::Revoked),
                }
            }
            // also one that has only ended, where that alone does not end streams: whether it was revoked as well is not known
            Err(Failure::Refused(_)) => self.end(Cause::Revoked),
            Err(Failure::Unavailable | Failure::NoKeys | Failure::Busy | Failure::Internal | Failure::Exhausted(_)) => {
            }
        }
        self.checking.set(false);
    }
}

/// Runs while there are leashes.
async fn sweep(list: Weak<List>) {
    loop {
        tokio::time::sleep(SWEEP).await;
        let Some(list) = list.upgrade() else { return };
        list.entries.borrow_mut().retain(|leash| leash.strong_count() > 0);
        if list.entries.borrow().is_empty() {
            // a burst's list is not kept for ever
            list.entries.take();
            list.sweeping.set(false);
            return;
        }
        let Some(authority) = list.authority.borrow().clone() else { continue };
        let now = authority.clock.unix();
        for leash in list.entries.borrow().iter().filter_map(Weak::upgrade) {
            if leash.cause.get().is_some() {
                continue;
            }
            if leash.ends_at.is_some_and(|end| now >= end) {
                leash.end(Cause::Expired);
            } else if leash.route.ends_streams.revocation
                && !leash.holds(&authority.authenticator)
                && !leash.checking.replace(true)
            {
                tokio::task::spawn_local(leash.judge(Rc::clone(&authority)));
            }
        }
    }
}

/// How a stream is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// By its end, where the format has no other (server-sent events).
    End,
    /// By the trailers of gRPC.
    GrpcTrailers,
    /// By breaking off, where an end would look like the whole.
    Abort,
}

struct Leashed {
    /// `None` once it has ended; dropping it tells the server.
    body: Option<Body>,
    leash: Rc<Leash>,
    form: Form,
}

impl HttpBody for Leashed {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let leashed = self.get_mut();
        let Some(body) = &mut leashed.body else { return Poll::Ready(None) };
        if let Poll::Ready(cause) = leashed.leash.poll_cut(Side::Response, cx) {
            leashed.body = None;
            return Poll::Ready(match leashed.form {
                Form::End => None,
                Form::GrpcTrailers => Some(Ok(Frame::trailers(grpc_trailers(cause)))),
                Form::Abort => Some(Err(BodyError::Cut)),
            });
        }
        Pin::new(body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), HttpBody::size_hint)
    }
}

fn grpc_trailers(cause: Cause) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert(HeaderName::from_static("grpc-status"), GRPC_UNAUTHENTICATED);
    trailers.insert(HeaderName::from_static("grpc-message"), HeaderValue::from_static(cause.text()));
    trailers
}
