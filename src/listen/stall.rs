//! Responses over HTTP/2 that their callers do not take.
//!
//! A caller who grants no window and answers pings would keep a response, and behind it a connection to a server, for ever.
//! hyper asks a body for more only where there is window, so that one which is not asked for too long ends its stream.
//! The connection stays: behind a proxy its other streams are of other callers.

use std::cell::{OnceCell, RefCell};
use std::rc::{Rc, Weak};

use futures_util::FutureExt as _;
use tokio::task::{AbortHandle, spawn_local};

use super::link::Since;

tokio::task_local! {
    static CURRENT: Rc<Stream>;
}

/// One request and its response.
#[derive(Debug, Default)]
pub(super) struct Stream {
    /// Since when the body could give more and is not asked.
    pub(super) unasked: Since,
    task: OnceCell<AbortHandle>,
    /// Whether this is what is written to a caller once a request has become a tunnel (RFC 8441): a task of its own.
    tunnels: bool,
    /// That of this request.
    tunnel: OnceCell<AbortHandle>,
}

impl Stream {
    /// The stream whose task this is; HTTP/1.1 has none.
    pub(super) fn current() -> Option<Rc<Self>> {
        CURRENT.try_with(Rc::clone).ok()
    }
}

/// The stream of a request over HTTP/2 that becomes a tunnel.
#[derive(Debug)]
pub struct TunnelStream(Rc<Stream>);

impl TunnelStream {
    /// That of the request whose task this is; HTTP/1.1 has none.
    pub fn current() -> Option<Self> {
        Stream::current().map(Self)
    }

    /// Gives up what is still to be written to the caller.
    pub fn reset(&self) {
        if let Some(task) = self.0.tunnel.get() {
            task.abort();
        }
    }
}

/// The streams of a connection.
#[derive(Debug, Default)]
pub(super) struct Streams(RefCell<Vec<Weak<Stream>>>);

impl Streams {
    /// Runs a stream on this worker.
    pub(super) fn run<F: Future + 'static>(&self, future: F) {
        // hyper begins the writing of a tunnel within the task of its request
        let request = Stream::current();
        let stream = Rc::new(Stream { tunnels: request.is_some(), ..Stream::default() });
        self.note(&stream);
        // no `async` block, which would have room for the future twice, and copy it from one place to the other
        let scoped = CURRENT.scope(Rc::clone(&stream), future.map(drop));
        // the task has not begun: it runs on this thread
        let task = stream.task.get_or_init(|| spawn_local(scoped).abort_handle());
        if let Some(request) = request {
            request.tunnel.get_or_init(|| task.clone());
        }
    }

    /// Whether one has become a tunnel and is open.
    pub(super) fn have_tunnel(&self) -> bool {
        self.0.borrow().iter().filter_map(Weak::upgrade).any(|stream| stream.tunnels)
    }

    fn note(&self, stream: &Rc<Stream>) {
        let mut streams = self.0.borrow_mut();
        // at most twice as many as were ever open at once, without a look at all of them for each
        if streams.len() == streams.capacity() {
            streams.retain(|stream| stream.strong_count() > 0);
        }
        streams.push(Rc::downgrade(stream));
    }

    /// Ends those that were not taken for more than `limit` ticks.
    pub(super) fn sweep(&self, now: u32, limit: u32) {
        let mut streams = self.0.borrow_mut();
        streams.retain(|stream| {
            let Some(stream) = stream.upgrade() else { return false };
            let stalled = stream.unasked.exceeds(now, limit);
            if stalled && let Some(task) = stream.task.get() {
                task.abort();
            }
            !stalled
        });
    }
}
