//! Accepting on one worker, up to the cap, and draining: no connection that was made is lost.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::link::{Guard, Order, Worker};
use super::listeners::{BoundListener, Listener, Speaks};
use super::room::Place;
use super::socket::begin_no_more;
use super::{Bound, Handler, ListenState, Peer, Shutdown, connection};

/// How long accepting pauses where descriptors or memory have run out: a connection that ends meanwhile is worth more than
/// another attempt.
const PAUSE: Duration = Duration::from_millis(100);

/// How long connections that are kept without a request stay open once the process is to end, and further ones are taken: a
/// request may be on its way, and is lost where it meets a closed socket. Long enough for a balancer that asks `/readyz`
/// every second to have sent its last, and for a caller who is busy to hear of it by a response.
const LAST_REQUEST: Duration = Duration::from_secs(2);

/// How long the last handshakes may take that were begun before a listener closes: a round trip to its callers.
const LAST_HANDSHAKES: Duration = Duration::from_millis(500);

/// How long aborted connections may take to be gone.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// Serves on one worker's listeners, those to come included, until `shutdown` has begun and all connections have ended, or
/// the time for that is over. Runs on a current-thread runtime that can spawn local tasks.
pub async fn serve<H: Handler>(bound: Bound, handler: H, state: Arc<ListenState>, shutdown: Shutdown) {
    let Bound(mut bound) = bound;
    let worker = Rc::new(Worker::new(state));
    let sweeper = Abandoned(spawn_local(sweep(Rc::clone(&worker))));
    let accept = |BoundListener { socket, listener }| {
        let accepting =
            Accepting { listener, handler: handler.clone(), worker: Rc::clone(&worker), shutdown: shutdown.clone() };
        Abandoned(spawn_local(accepting.run(socket)))
    };
    let mut accepting: Vec<Abandoned> = Vec::new();
    let opened = async {
        while let Some(listener) = bound.recv().await {
            accepting.retain(|task| !task.0.is_finished());
            accepting.push(accept(listener));
        }
        // nobody is left who could open one; those that are open stay
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = opened => {}
        () = shutdown.wait() => {}
    }
    // one that a reload has opened just now may have a queue already
    accepting.extend(std::iter::from_fn(|| bound.try_recv().ok()).map(accept));
    // first, since connections that end make room for those that wait at the cap; later ones are told as they begin
    worker.dismiss();
    let drain = worker.state.terms().timeouts.drain;
    let dismissal = {
        let worker = Rc::clone(&worker);
        Abandoned(spawn_local(async move {
            sleep(last_request(drain)).await;
            worker.order(Order::Finish);
        }))
    };
    let drained = async {
        for mut task in accepting {
            if let Err(error) = (&mut task.0).await {
                tracing::error!(%error, "a listener ended by a panic");
            }
        }
        worker.open.none().await;
    };
    if timeout(drain, drained).await.is_err() {
        worker.order(Order::Abort);
        // where they are not gone by then, the end of the runtime ends them
        drop(timeout(LAST_WORDS, worker.open.none()).await);
    }
    drop((sweeper, dismissal));
}

/// [`LAST_REQUEST`], where there are so long until the deadline.
fn last_request(drain: Duration) -> Duration {
    LAST_REQUEST.min(drain / 2)
}

/// A task that ends with its owner.
struct Abandoned(JoinHandle<()>);

impl Drop for Abandoned {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Looks after the connections, as often as the terms in force ask for.
async fn sweep(worker: Rc<Worker>) {
    loop {
        let period = worker.period();
        let mut ticks = interval(period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.tick().await;
        while worker.period() == period {
            ticks.tick().await;
            worker.sweep();
        }
    }
}

/// One worker's side of a listener.
struct Accepting<H> {
    listener: Arc<Listener>,
    handler: H,
    worker: Rc<Worker>,
    shutdown: Shutdown,
}

/// A connection that was accepted, and who is at its other end.
type Accepted = (TcpStream, SocketAddr);

impl<H: Handler> Accepting<H> {
    async fn run(self, socket: std::net::TcpListener) {
        let socket = match TcpListener::from_std(socket) {
            Ok(socket) => socket,
            Err(error) => return tracing::error!(listener = %self.listener.label, %error, "cannot listen"),
        };
        let mut held = None;
        tokio::select! {
            () = self.accept(&socket, &mut held) => {}
            () = self.closes(&socket) => {}
        }
        let drain = self.worker.state.terms().timeouts.drain;
        match timeout(drain, self.empty(socket, held)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(listener = %self.listener.label, %error, "cannot empty the listen queue"),
            Err(_) => tracing::warn!(listener = %self.listener.label, "closed with connections that had to wait"),
        }
    }

    /// Until there is nothing more to wait for but what is in the queue. A reload closes a listener at once; where the
    /// process ends, those who have not heard of it may still come.
    async fn closes(&self, socket: &TcpListener) {
        let drain = || self.worker.state.terms().timeouts.drain;
        let ends = async {
            self.shutdown.wait().await;
            sleep(last_request(drain())).await;
        };
        tokio::select! {
            () = ends => {}
            () = self.listener.closed.wait() => {}
        }
        if let Err(error) = begin_no_more(socket) {
            tracing::debug!(listener = %self.listener.label, %error, "connections may come until it is closed");
        }
        sleep(LAST_HANDSHAKES.min(drain() / 4)).await;
    }

    /// Serves who waits in the queue, each once there is room, and closes the socket: what waited there would be reset. The
    /// socket itself says when there is nobody left; a runtime may have one wait although there is.
    async fn empty(&self, socket: TcpListener, mut held: Option<Accepted>) -> io::Result<()> {
        let socket = socket.into_std()?;
        loop {
            if held.is_some() {
                self.start_in_turn(&mut held).await;
            }
            match socket.accept() {
                // one that cannot be made ready says nothing of the others
                Ok((stream, address)) => held = ready(stream).ok().map(|stream| (stream, address)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if is_of_the_peer(&error) => {}
                // descriptors come back as connections end
                Err(_) => sleep(PAUSE).await,
            }
        }
    }

    /// Accepts for ever. At the cap one connection is `held`, and the others wait in the listen queue: to wait for room
    /// before there is a connection would keep room from another worker that has one.
    async fn accept(&self, socket: &TcpListener, held: &mut Option<Accepted>) {
        let mut failed_before = false;
        loop {
            match socket.accept().await {
                Ok(accepted) => {
                    failed_before = false;
                    *held = Some(accepted);
                    self.start_in_turn(held).await;
                }
                Err(error) if is_of_the_peer(&error) => {}
                Err(error) => {
                    if !failed_before {
                        tracing::warn!(listener = %self.listener.label, %error, "cannot accept connections");
                    }
                    failed_before = true;
                    sleep(PAUSE).await;
                }
            }
        }
    }

    /// Serves a connection once there is room; until then it stays where it is. At the cap those who ask nothing make way
    /// for it, or ten thousand silent callers would keep all others out.
    async fn start_in_turn(&self, held: &mut Option<Accepted>) {
        let room = &self.worker.state.room;
        let place = loop {
            let another_look = sleep(PAUSE);
            tokio::select! {
                biased;
                place = room.enter() => break place,
                () = self.worker.make_way(another_look) => {}
            }
        };
        if let Some((stream, address)) = held.take() {
            self.start(stream, address, place);
        }
    }

    fn start(&self, stream: TcpStream, address: SocketAddr, place: Place) {
        let offer = self.listener.offer.load_full();
        let guard = Guard::new(&self.worker, &self.listener.label, place);
        let peer = Rc::new(Peer {
            address,
            listener: Arc::clone(&self.listener.label),
            https: matches!(offer.speaks, Speaks::Tls(_)),
            shutdown: self.shutdown.clone(),
        });
        connection::start(stream, offer, peer, self.handler.clone(), Rc::clone(&self.worker), guard);
    }
}

/// For the runtime, what the system accepted.
fn ready(stream: std::net::TcpStream) -> io::Result<TcpStream> {
    stream.set_nonblocking(true)?;
    TcpStream::from_std(stream)
}

/// Whether a failed accept says something of one connection only (accept(2)), and the next may be tried at once.
fn is_of_the_peer(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}
