//! The listeners of the process: opened, changed and closed while it serves.
//!
//! A change is prepared first: whatever can fail does so before anything that is in force is touched. A listener whose
//! address stays keeps its sockets and its connections; what is offered on it may be replaced. One that goes accepts what
//! waits in its queue, and the handshakes under way, and no more; its connections end after the requests that are under
//! way.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use arc_swap::ArcSwap;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::socket::{self, BindError, meet};
use super::tls::{self, Acceptor, TlsError};
use super::{Mode, Settings, Shutdown, redirect};
use crate::record::metrics::{HANDSHAKES, Metrics};

/// A bound socket of one worker.
#[derive(Debug)]
pub(super) struct BoundListener {
    pub(super) socket: TcpListener,
    pub(super) listener: Arc<Listener>,
}

/// What a worker is told to listen on.
#[derive(Debug)]
pub struct Bound(pub(super) UnboundedReceiver<BoundListener>);

/// A listener, shared by the sockets of all workers at its address.
#[derive(Debug)]
pub(super) struct Listener {
    /// With the port that was picked.
    address: SocketAddr,
    pub(super) label: Arc<str>,
    /// For connections to come.
    pub(super) offer: ArcSwap<Offer>,
    /// Begun where it is to accept no more.
    pub(super) closed: Shutdown,
}

/// What a listener offers to those who connect.
#[derive(Debug)]
pub(super) struct Offer {
    pub(super) speaks: Speaks,
    withdrawn: AtomicBool,
}

/// What is spoken on a listener.
#[derive(Clone, Debug)]
pub(super) enum Speaks {
    Tls(Arc<Acceptor>),
    Plain,
    Redirect { https_port: u16 },
}

impl Offer {
    pub(super) fn new(speaks: Speaks) -> Self {
        Self { speaks, withdrawn: AtomicBool::new(false) }
    }

    fn withdraw(&self) {
        self.withdrawn.store(true, Relaxed);
    }

    /// Whether a connection that took it should end when it can: after a response that says so.
    pub(super) fn is_withdrawn(&self) -> bool {
        self.withdrawn.load(Relaxed)
    }
}

/// A listener that is open.
#[derive(Clone, Debug)]
struct Open {
    settings: Settings,
    listener: Arc<Listener>,
}

/// What the process listens on, and the workers that do.
#[derive(Debug)]
pub struct Listeners {
    open: Vec<Open>,
    workers: Vec<UnboundedSender<BoundListener>>,
}

/// One listener of those to come.
#[derive(Debug)]
struct Step {
    open: Open,
    /// Of a new one, for each worker.
    sockets: Vec<TcpListener>,
    /// What it offers, where that is something else.
    offer: Option<Offer>,
    /// What its TLS does from now on, where it had TLS before.
    tls: Option<(Arc<Acceptor>, tls::Prepared)>,
}

/// A change that can be made: all its sockets are bound, all its certificates are read. Dropped, it changes nothing.
#[derive(Debug)]
#[must_use = "dropped, it changes nothing"]
pub struct Change {
    steps: Vec<Step>,
}

impl Listeners {
    /// Binds every address for each of `workers`, to which the returned halves belong.
    ///
    /// # Errors
    /// The first address that cannot be bound, or certificates that cannot be used. Nothing stays bound then.
    pub fn bind(settings: &[Settings], workers: usize) -> Result<(Self, Vec<Bound>), BindError> {
        let (senders, receivers) = (0..workers).map(|_| unbounded_channel()).unzip::<_, _, Vec<_>, Vec<_>>();
        let mut listeners = Self { open: Vec::new(), workers: senders };
        let change = listeners.prepare(settings)?;
        listeners.apply(change);
        Ok((listeners, receivers.into_iter().map(Bound).collect()))
    }

    /// Makes ready what these settings ask for. What is in force stays, until [`Listeners::apply`].
    ///
    /// # Errors
    /// As [`Listeners::bind`].
    pub fn prepare(&self, wanted: &[Settings]) -> Result<Change, BindError> {
        let mut left = self.open.clone();
        let mut steps = Vec::with_capacity(wanted.len());
        for settings in wanted {
            // several may have asked for any port: the first of them stays the first
            let kept = left.iter().position(|open| open.settings.address == settings.address);
            steps.push(match kept {
                Some(at) => keep(left.remove(at), settings)?,
                None => self.open(settings)?,
            });
        }
        let bound = steps.iter().map(|step| (&step.open.settings.mode, step.open.listener.address));
        if let Some(https_port) = redirect::https_port(bound) {
            for step in &mut steps {
                step.redirect_to(https_port);
            }
        }
        Ok(Change { steps })
    }

    fn open(&self, settings: &Settings) -> Result<Step, BindError> {
        let ours = self.open.iter().any(|open| meet(open.listener.address, settings.address));
        let (sockets, address) = socket::sockets(settings.address, self.workers.len(), ours)
            .map_err(|error| BindError::Address { address: settings.address, error })?;
        let listener = Listener {
            address,
            label: address.to_string().into(),
            offer: ArcSwap::from_pointee(Offer::new(speaks(&settings.mode)?)),
            closed: Shutdown::new(),
        };
        let open = Open { settings: settings.clone(), listener: Arc::new(listener) };
        Ok(Step { open, sockets, offer: None, tls: None })
    }

    /// Makes a prepared change. From here on it cannot fail.
    pub fn apply(&mut self, change: Change) {
        let before = std::mem::take(&mut self.open);
        for Step { open, sockets, offer, tls } in change.steps {
            if let Some(offer) = offer {
                open.listener.offer.swap(Arc::new(offer)).withdraw();
            }
            if let Some((acceptor, prepared)) = tls {
                acceptor.replace(prepared);
            }
            for (worker, socket) in self.workers.iter().zip(sockets) {
                // a worker that is gone listens to nothing any more
                drop(worker.send(BoundListener { socket, listener: Arc::clone(&open.listener) }));
            }
            self.open.push(open);
        }
        for gone in before {
            if !self.open.iter().any(|open| Arc::ptr_eq(&open.listener, &gone.listener)) {
                gone.listener.offer.load().withdraw();
                gone.listener.closed.begin();
            }
        }
    }

    /// Where it listens, in the order of the configuration, and whether it speaks TLS there.
    pub fn addresses(&self) -> impl Iterator<Item = (SocketAddr, bool)> {
        self.open.iter().map(|open| (open.listener.address, matches!(open.settings.mode, Mode::Tls(_))))
    }

    /// Says in the metrics when each certificate ends, and which listeners there are: each is counted from nothing on.
    pub fn record(&self, metrics: &Metrics) {
        metrics.certificate_expiry.reset();
        for open in &self.open {
            let label = &*open.listener.label;
            metrics.connections.with_label_values(&[label]);
            if let Speaks::Tls(acceptor) = &open.listener.offer.load().speaks {
                acceptor.record(metrics);
                for (version, result) in HANDSHAKES {
                    metrics.tls_handshakes.with_label_values(&[label, version, result]);
                }
            }
        }
    }
}

/// What becomes of a listener whose address stays.
fn keep(open: Open, settings: &Settings) -> Result<Step, TlsError> {
    let (mut offer, mut tls) = (None, None);
    let offered = open.listener.offer.load_full();
    match (&offered.speaks, &settings.mode) {
        (Speaks::Tls(acceptor), Mode::Tls(settings)) => tls = Some((Arc::clone(acceptor), acceptor.prepare(settings)?)),
        (Speaks::Plain, Mode::Plain) | (Speaks::Redirect { .. }, Mode::Redirect) => {}
        (Speaks::Tls(_), Mode::Plain | Mode::Redirect)
        | (Speaks::Plain, Mode::Tls(_) | Mode::Redirect)
        | (Speaks::Redirect { .. }, Mode::Tls(_) | Mode::Plain) => offer = Some(Offer::new(speaks(&settings.mode)?)),
    }
    let open = Open { settings: settings.clone(), listener: open.listener };
    Ok(Step { open, sockets: Vec::new(), offer, tls })
}

fn speaks(mode: &Mode) -> Result<Speaks, TlsError> {
    Ok(match mode {
        Mode::Tls(settings) => Speaks::Tls(Arc::new(Acceptor::new(settings)?)),
        Mode::Plain => Speaks::Plain,
        // the port is known once all are bound
        Mode::Redirect => Speaks::Redirect { https_port: 0 },
    })
}

impl Step {
    /// Where it redirects, and redirects elsewhere so far, it is to redirect to this port.
    fn redirect_to(&mut self, https_port: u16) {
        let offered = self.open.listener.offer.load();
        let speaks = self.offer.as_ref().map_or(&offered.speaks, |offer| &offer.speaks);
        match speaks {
            Speaks::Redirect { https_port: known } if *known != https_port => {
                self.offer = Some(Offer::new(Speaks::Redirect { https_port }));
            }
            Speaks::Redirect { .. } | Speaks::Tls(_) | Speaks::Plain => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(address: SocketAddr, mode: Mode) -> Settings {
        Settings { address, mode }
    }

    fn any() -> SocketAddr {
        "127.0.0.1:0".parse().unwrap()
    }

    fn addresses(listeners: &Listeners) -> Vec<SocketAddr> {
        listeners.addresses().map(|(address, _)| address).collect()
    }

    fn reload(listeners: &mut Listeners, wanted: &[Settings]) {
        let change = listeners.prepare(wanted).unwrap();
        listeners.apply(change);
    }

    #[test]
    fn what_stays_keeps_its_sockets_and_what_goes_is_closed() {
        let (mut listeners, mut workers) =
            Listeners::bind(&[entry(any(), Mode::Plain), entry(any(), Mode::Plain)], 2).unwrap();
        let [first, second] = addresses(&listeners)[..] else { panic!("two listeners") };
        let mut told = |worker: usize| std::iter::from_fn(|| workers[worker].0.try_recv().ok()).collect::<Vec<_>>();
        let bound = [told(0), told(1)];
        assert_eq!(bound.each_ref().map(Vec::len), [2, 2]);

        reload(&mut listeners, &[entry(any(), Mode::Plain)]);
        assert_eq!(addresses(&listeners), [first], "of two that asked for any port the first stays");
        assert!([told(0), told(1)].iter().all(Vec::is_empty));
        let [kept, gone] = &bound[0][..] else { panic!("two listeners") };
        assert!(!kept.listener.closed.has_begun() && !kept.listener.offer.load().is_withdrawn());
        assert!(gone.listener.closed.has_begun() && gone.listener.offer.load().is_withdrawn());

        reload(&mut listeners, &[entry(any(), Mode::Plain), entry(any(), Mode::Plain)]);
        let [same, third] = addresses(&listeners)[..] else { panic!("two listeners") };
        assert!(same == first && third != second, "its sockets are still held by the workers");
        assert_eq!([told(0).len(), told(1).len()], [1, 1]);
    }

    #[test]
    fn a_change_that_cannot_be_made_changes_nothing() {
        let (listeners, _workers) = Listeners::bind(&[entry(any(), Mode::Plain)], 1).unwrap();
        let taken = TcpListener::bind(any()).unwrap();
        let (free, busy) = (entry(any(), Mode::Plain), entry(taken.local_addr().unwrap(), Mode::Plain));
        let error = listeners.prepare(&[free, busy]).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("cannot listen on {}: address already in use", taken.local_addr().unwrap())
        );
        let open = &listeners.open[0].listener;
        assert!(!open.closed.has_begun() && !open.offer.load().is_withdrawn());
    }

    #[test]
    fn an_address_that_covers_one_of_ours_takes_its_place() {
        let (mut listeners, _workers) = Listeners::bind(&[entry(any(), Mode::Plain)], 2).unwrap();
        let all = SocketAddr::from(([0, 0, 0, 0], addresses(&listeners)[0].port()));
        reload(&mut listeners, &[entry(all, Mode::Plain)]);
        assert_eq!(addresses(&listeners), [all]);
    }

    #[test]
    fn redirects_go_to_the_port_that_was_picked() {
        let directory = tempfile::tempdir().unwrap();
        let tls = |name: &str| {
            let source =
                tls::CertificateSource::SelfSigned { names: vec![name.into()], directory: directory.path().to_owned() };
            Mode::Tls(Arc::new(tls::Settings { source, min_version: tls::MinVersion::Tls12, shown: None }))
        };
        let (mut listeners, _workers) =
            Listeners::bind(&[entry(any(), Mode::Redirect), entry(any(), tls("localhost"))], 1).unwrap();
        let told = |listeners: &Listeners| {
            let offer = listeners.open[0].listener.offer.load_full();
            let Speaks::Redirect { https_port } = offer.speaks else { panic!("{offer:?}") };
            (https_port, offer)
        };
        let (port, offer) = told(&listeners);
        assert_eq!(port, addresses(&listeners)[1].port());
        reload(&mut listeners, &[entry(any(), Mode::Redirect), entry(any(), tls("localhost"))]);
        assert!(Arc::ptr_eq(&offer, &told(&listeners).1), "nothing has changed");

        let free = TcpListener::bind(any()).unwrap().local_addr().unwrap();
        reload(&mut listeners, &[entry(any(), Mode::Redirect), entry(free, tls("localhost"))]);
        assert_eq!(told(&listeners).0, free.port());
        assert!(offer.is_withdrawn());
    }

    #[test]
    fn what_is_offered_can_change_at_the_same_address() {
        let (mut listeners, mut workers) = Listeners::bind(&[entry(any(), Mode::Plain)], 1).unwrap();
        let bound = workers[0].0.try_recv().unwrap();
        let before = bound.listener.offer.load_full();
        let address = addresses(&listeners);
        let directory = tempfile::tempdir().unwrap();
        let source = tls::CertificateSource::SelfSigned {
            names: vec!["localhost".into()],
            directory: directory.path().to_owned(),
        };
        let tls = Mode::Tls(Arc::new(tls::Settings { source, min_version: tls::MinVersion::Tls12, shown: None }));
        reload(&mut listeners, &[entry(any(), tls)]);
        assert_eq!(addresses(&listeners), address);
        assert!(workers[0].0.try_recv().is_err(), "no further socket");
        assert!(matches!(bound.listener.offer.load().speaks, Speaks::Tls(_)));
        assert!(before.is_withdrawn() && !bound.listener.closed.has_begun());
    }
}
