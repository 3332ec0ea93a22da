//! Accepting on one worker, up to the cap, and draining: nothing that was accepted is lost.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::link::{Guard, Order, Worker};
use super::{BoundListener, Handler, Peer, ServeSettings, Shutdown, connection};

/// How long accepting pauses where descriptors or memory have run out: a connection that ends meanwhile is worth more than
/// another attempt.
const PAUSE: Duration = Duration::from_millis(100);

/// How long aborted connections may take to be gone.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// Serves on one worker's listeners until `shutdown` has begun and all connections have ended, or the time for that is
/// over. Runs on a current-thread runtime that can spawn local tasks.
pub async fn serve<H: Handler>(listeners: Vec<BoundListener>, handler: H, settings: ServeSettings, shutdown: Shutdown) {
    let drain = settings.timeouts.drain;
    let worker = Rc::new(Worker::new(settings));
    let sweeper = Abandoned(spawn_local(sweep(Rc::clone(&worker))));
    let accepting: Vec<_> = listeners
        .into_iter()
        .map(|listener| Listener::new(listener, handler.clone(), &worker, &shutdown))
        .map(|listener| Abandoned(spawn_local(listener.run())))
        .collect();
    shutdown.wait().await;
    // what was accepted last is served too, so the connections are told after the listeners have closed
    for mut listener in accepting {
        if let Err(error) = (&mut listener.0).await {
            tracing::error!(%error, "a listener ended by a panic");
        }
    }
    worker.order(Order::Finish);
    if timeout(drain, worker.open.none()).await.is_err() {
        worker.order(Order::Abort);
        // where they are not gone by then, the end of the runtime ends them
        drop(timeout(LAST_WORDS, worker.open.none()).await);
    }
    drop(sweeper);
}

/// A task that ends with its owner.
struct Abandoned(JoinHandle<()>);

impl Drop for Abandoned {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn sweep(worker: Rc<Worker>) {
    let mut ticks = interval(worker.period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        worker.sweep();
    }
}

struct Listener<H> {
    bound: BoundListener,
    handler: H,
    worker: Rc<Worker>,
    shutdown: Shutdown,
    connections: Arc<Semaphore>,
}

impl<H: Handler> Listener<H> {
    fn new(bound: BoundListener, handler: H, worker: &Rc<Worker>, shutdown: &Shutdown) -> Self {
        let connections = Arc::clone(&worker.settings.shared.connections);
        Self { bound, handler, worker: Rc::clone(worker), shutdown: shutdown.clone(), connections }
    }

    async fn run(self) {
        let socket = match self.bound.socket.try_clone().and_then(TcpListener::from_std) {
            Ok(socket) => socket,
            Err(error) => return tracing::error!(listener = %self.bound.label, %error, "cannot listen"),
        };
        // the clone above is of the descriptor only: the socket closes with the last of both
        tokio::select! {
            () = self.accept(&socket) => {}
            () = self.shutdown.wait() => {}
        }
        self.empty(&socket);
    }

    /// Accepts for ever. At the cap one connection is held, and the others wait in the listen queue: to wait for room before
    /// there is a connection would keep room from another worker that has one.
    async fn accept(&self, socket: &TcpListener) {
        let mut failed_before = false;
        loop {
            match socket.accept().await {
                Ok((stream, address)) => {
                    failed_before = false;
                    let Ok(permit) = Arc::clone(&self.connections).acquire_owned().await else { return };
                    self.start(stream, address, permit);
                }
                Err(error) if is_of_the_peer(&error) => {}
                Err(error) => {
                    if !failed_before {
                        tracing::warn!(listener = %self.bound.label, %error, "cannot accept connections");
                    }
                    failed_before = true;
                    sleep(PAUSE).await;
                }
            }
        }
    }

    /// Accepts what waits in the queue, which closing the socket would reset.
    fn empty(&self, socket: &TcpListener) {
        while let Some(Ok((stream, address))) = socket.accept().now_or_never() {
            let Ok(permit) = Arc::clone(&self.connections).try_acquire_owned() else { return };
            self.start(stream, address, permit);
        }
    }

    fn start(&self, stream: TcpStream, address: SocketAddr, permit: OwnedSemaphorePermit) {
        let (speaks, worker) = (self.bound.speaks.clone(), Rc::clone(&self.worker));
        let guard = Guard::new(&worker, &self.bound.label, permit);
        let peer = Rc::new(Peer {
            address,
            listener: Arc::clone(&self.bound.label),
            https: self.bound.acceptor().is_some(),
            shutdown: self.shutdown.clone(),
        });
        spawn_local(connection::serve(stream, speaks, peer, self.handler.clone(), worker, guard));
    }
}

/// Whether a failed accept says something of one connection only (accept(2)), and the next may be tried at once.
fn is_of_the_peer(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}
