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
use super::socket::Speaks;
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
        .map(|BoundListener { socket, label, speaks, .. }| {
            let listener = Listener {
                label,
                speaks,
                handler: handler.clone(),
                worker: Rc::clone(&worker),
                shutdown: shutdown.clone(),
                connections: Arc::clone(&worker.settings.shared.connections),
            };
            Abandoned(spawn_local(listener.run(socket)))
        })
        .collect();
    shutdown.wait().await;
    // first, since connections without a request make room for those that wait at the cap; later ones are told as they begin
    worker.order(Order::Finish);
    let drained = async {
        for mut listener in accepting {
            if let Err(error) = (&mut listener.0).await {
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
    label: Arc<str>,
    speaks: Speaks,
    handler: H,
    worker: Rc<Worker>,
    shutdown: Shutdown,
    connections: Arc<Semaphore>,
}

/// A connection that was accepted, and who is at its other end.
type Accepted = (TcpStream, SocketAddr);

impl<H: Handler> Listener<H> {
    async fn run(self, socket: std::net::TcpListener) {
        let socket = match TcpListener::from_std(socket) {
            Ok(socket) => socket,
            Err(error) => return tracing::error!(listener = %self.label, %error, "cannot listen"),
        };
        let mut held = None;
        tokio::select! {
            () = self.accept(&socket, &mut held) => {}
            () = self.shutdown.wait() => {}
        }
        // what waits in the queue would be reset where the socket closes
        let queued = std::iter::from_fn(|| socket.accept().now_or_never()?.ok());
        let accepted: Vec<Accepted> = held.into_iter().chain(queued).collect();
        drop(socket);
        for one in accepted {
            self.start_in_turn(&mut Some(one)).await;
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
                        tracing::warn!(listener = %self.label, %error, "cannot accept connections");
                    }
                    failed_before = true;
                    sleep(PAUSE).await;
                }
            }
        }
    }

    /// Serves a connection once there is room; until then it stays where it is.
    async fn start_in_turn(&self, held: &mut Option<Accepted>) {
        let Ok(permit) = Arc::clone(&self.connections).acquire_owned().await else { return };
        if let Some((stream, address)) = held.take() {
            self.start(stream, address, permit);
        }
    }

    fn start(&self, stream: TcpStream, address: SocketAddr, permit: OwnedSemaphorePermit) {
        let (speaks, worker) = (self.speaks.clone(), Rc::clone(&self.worker));
        let guard = Guard::new(&worker, &self.label, permit);
        let peer = Rc::new(Peer {
            address,
            listener: Arc::clone(&self.label),
            https: matches!(speaks, Speaks::Tls(_)),
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
