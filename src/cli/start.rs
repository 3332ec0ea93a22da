//! A configuration to a gateway that serves: builds the state, starts the workers, and ends them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::{Builder, Handle, LocalOptions, LocalRuntime, Runtime};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use super::admin_listener::{Admin, AdminBound, AdminError, AdminListener};
use super::bootstrap::{self, BootstrapError, Generated};
use super::changes;
use super::reload::AtStart;
use crate::authenticate::issuers::Issuers;
use crate::authenticate::keys::{Keys, KeysError};
use crate::authenticate::password::PasswordPool;
use crate::authenticate::{Authenticator, LookUp};
use crate::clock::Clock;
use crate::config::snapshot::Snapshot;
use crate::config::{self, Environment, Problems};
use crate::decision::expectations;
use crate::endpoint::Service;
use crate::forward::Fleet;
use crate::gateway::{Gateway, State, Worker};
use crate::limit::Limits;
use crate::listen::{self, BindError, Bound, ListenState, Listeners, Shutdown};
use crate::record::audit::Audit;
use crate::record::lines::Lines;
use crate::record::metrics::Metrics;
use crate::store::changes::Changes;
use crate::store::sql::SqlStore;
use crate::store::{Store, StoreError};

/// Threads for the store, health checks and other work that is not a worker's.
const BACKGROUND_THREADS: usize = 2;
/// How often what has expired is forgotten, in the store and in the limits.
const SWEEP_EVERY: Duration = Duration::from_mins(1);

/// How often the store is asked to forget at each sweep while there is more, and how long it has for others between.
const PURGES_MAX: u32 = 100;
const PURGE_PAUSE: Duration = Duration::from_millis(100);
/// How long the end waits for work that is not a worker's, after the workers have ended.
const LAST_WORK: Duration = Duration::from_secs(5);

/// Why the gateway did not start. Each but [`StartError::Configuration`] is one line.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The file has problems.
    #[error("the configuration is not used\n{0}")]
    Configuration(#[from] Problems),
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A listener cannot be bound.
    #[error(transparent)]
    Listen(#[from] BindError),
    /// The admin address cannot be bound.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// The first users and clients cannot be made.
    #[error(transparent)]
    Bootstrap(#[from] BootstrapError),
    /// Signing keys cannot be made or read.
    #[error("signing keys: {0}")]
    Keys(#[from] KeysError),
    /// The system has no thread, descriptor or randomness to give.
    #[error("cannot start: {0}")]
    System(#[from] std::io::Error),
    /// The system has no randomness to give.
    #[error("cannot start: no randomness")]
    Random(#[from] aws_lc_rs::error::Unspecified),
}

/// A gateway that serves.
pub struct Running {
    pub(super) source: PathBuf,
    pub(super) gateway: Arc<Gateway>,
    pub(super) listeners: Listeners,
    pub(super) listening: Arc<ListenState>,
    pub(super) admin: AdminListener,
    pub(super) at_start: AtStart,
    pub(super) store: Arc<SqlStore>,
    pub(super) passwords: Arc<PasswordPool>,
    pub(super) audit: Arc<Audit>,
    pub(super) background: Handle,
    generated: Vec<Generated>,
    draining: Arc<AtomicBool>,
    shutdown: Shutdown,
    /// What asks the store again and again.
    upkeep: JoinSet<()>,
    workers: Vec<JoinHandle<()>>,
    log: JoinHandle<()>,
}

/// A listener that is open.
#[derive(Clone, Copy, Debug)]
pub struct Listening {
    /// Where.
    pub address: SocketAddr,
    /// Whether it speaks TLS.
    pub tls: bool,
}

/// What lives as long as the process, and is shared by what serves and what keeps it going.
struct Parts {
    store: Arc<SqlStore>,
    changes: Arc<Changes>,
    keys: Arc<Keys>,
    passwords: Arc<PasswordPool>,
    audit: Arc<Audit>,
}

/// Where work that is not a worker's runs: the store, health checks, signals.
///
/// # Errors
/// The system has no threads to give.
pub fn background() -> std::io::Result<Runtime> {
    Builder::new_multi_thread().worker_threads(BACKGROUND_THREADS).thread_name("background").enable_all().build()
}

/// Starts the gateway of the configuration at `source`: when this returns, it serves. Blocks; what is not a worker's
/// runs on `background`.
///
/// # Errors
/// Whatever keeps it from serving.
pub fn start(source: &Path, clock: Clock, background: &Handle) -> Result<Running, StartError> {
    let snapshot = load(source)?;
    let metrics = Arc::new(Metrics::new());
    let (listeners, bound) = Listeners::bind(&snapshot.listeners, snapshot.workers)?;
    let admin = AdminBound::at(snapshot.admin)?;
    let (lines, log) = Lines::to(std::io::stdout(), metrics.log_lines_dropped.clone())?;
    let parts = parts(&snapshot, background, &clock, &metrics, &lines)?;
    let state = state(&snapshot, &parts, background, clock, &metrics, lines)?;
    let generated = background.block_on(bootstrap::create(&snapshot, &*parts.store, &parts.passwords, &parts.audit))?;
    let heard = background.block_on(changes::begin(&*parts.store, &parts.changes, &parts.keys))?;

    listeners.record(&metrics);
    let at_start = AtStart::of(&snapshot);
    let listening = Arc::new(ListenState::new(snapshot.terms, metrics));
    let gateway = Arc::new(Gateway::new(snapshot, state));
    let draining = Arc::new(AtomicBool::new(false));
    let store_answers = Arc::new(AtomicBool::new(true));
    let upkeep = keep_going(background, &parts, &gateway, &store_answers, heard);
    let told = Admin {
        gateway: Arc::clone(&gateway),
        passwords: Arc::clone(&parts.passwords),
        draining: Arc::clone(&draining),
        store_answers,
    };
    let admin = AdminListener::serve(admin, Arc::new(told), background);
    let shutdown = Shutdown::new();
    let workers = spawn_workers(bound, &gateway, &listening, &shutdown)?;
    gateway.loaded();
    Ok(Running {
        source: source.to_owned(),
        gateway,
        listeners,
        listening,
        admin,
        at_start,
        store: parts.store,
        passwords: parts.passwords,
        audit: parts.audit,
        background: background.clone(),
        generated,
        draining,
        shutdown,
        upkeep,
        workers,
        log,
    })
}

/// The configuration at `source`, whose own tests are met.
///
/// # Errors
/// Everything that is wrong with it.
pub(super) fn load(source: &Path) -> Result<Snapshot, Problems> {
    let snapshot = config::load(source, &Environment::of_process())?;
    let failed = expectations::problems(&snapshot, &source.display().to_string());
    if failed.count() == 0 { Ok(snapshot) } else { Err(failed.naming(snapshot.files)) }
}

fn parts(
    snapshot: &Snapshot,
    background: &Handle,
    clock: &Clock,
    metrics: &Arc<Metrics>,
    lines: &Lines,
) -> Result<Parts, StartError> {
    let observer = Arc::clone(metrics);
    let observe = move |operation: &'static str, took: Duration| {
        observer.store_duration.with_label_values(&[operation]).observe(took.as_secs_f64());
    };
    let store =
        Arc::new(SqlStore::open(&snapshot.store, &snapshot.tables, background.clone(), clock.clone(), observe)?);
    let keys = background.block_on(Keys::load(Arc::clone(&store) as Arc<dyn Store>, clock.clone()))?;
    let passwords = PasswordPool::start(PasswordPool::default_threads())?;
    passwords.resemble(background.block_on(store.hashes_in_use())?);
    let audit = Audit::new(lines.clone(), clock.clone());
    audit.switch(snapshot.log.audit);
    Ok(Parts {
        store,
        changes: Arc::default(),
        keys: Arc::new(keys),
        passwords: Arc::new(passwords),
        audit: Arc::new(audit),
    })
}

fn state(
    snapshot: &Snapshot,
    parts: &Parts,
    background: &Handle,
    clock: Clock,
    metrics: &Arc<Metrics>,
    lines: Lines,
) -> Result<State, StartError> {
    let limits = Arc::new(Limits::new(clock.clone()));
    limits.apply(&snapshot.limits);
    background.block_on(limits.share(snapshot.shared_limits.as_ref(), metrics, background));
    let fleet = Arc::new(Fleet::new(Arc::clone(metrics), clock.clone()));
    fleet.apply(&snapshot.upstreams, background);
    let look_up = LookUp {
        store: Arc::clone(&parts.store) as Arc<dyn Store>,
        passwords: Arc::clone(&parts.passwords),
        keys: Arc::clone(&parts.keys),
        issuers: Arc::new(Issuers::new(Arc::clone(&parts.changes), clock.clone(), Arc::clone(metrics))),
        changes: Arc::clone(&parts.changes),
        clock: clock.clone(),
    };
    let authenticator =
        Arc::new(Authenticator::new(look_up, Arc::clone(&limits), &snapshot.auth.cache, background.clone())?);
    authenticator.configure(&snapshot.auth, background);
    let endpoints = Service {
        store: Arc::clone(&parts.store) as Arc<dyn Store>,
        passwords: Arc::clone(&parts.passwords),
        limits: Arc::clone(&limits),
        changes: Arc::clone(&parts.changes),
        authenticator: Arc::clone(&authenticator),
        keys: Arc::clone(&parts.keys),
        clock: clock.clone(),
        metrics: Arc::clone(metrics),
        audit: Arc::clone(&parts.audit),
    };
    let metrics = Arc::clone(metrics);
    Ok(State { clock, authenticator, endpoints: Arc::new(endpoints), limits, fleet, metrics, lines })
}

/// Starts what keeps the state fresh: hearing of changes, and forgetting what has expired.
fn keep_going(
    background: &Handle,
    parts: &Parts,
    gateway: &Arc<Gateway>,
    store_answers: &Arc<AtomicBool>,
    heard: i64,
) -> JoinSet<()> {
    let mut upkeep = JoinSet::new();
    let (store, noted, keys) = (Arc::clone(&parts.store), Arc::clone(&parts.changes), Arc::clone(&parts.keys));
    let store_answers = Arc::clone(store_answers);
    let hearing = async move { changes::hear(&*store, &noted, &keys, &store_answers, heard).await };
    upkeep.spawn_on(hearing, background);
    let (store, audit) = (Arc::clone(&parts.store), Arc::clone(&parts.audit));
    upkeep.spawn_on(async move { changes::tell(&store, &audit).await }, background);
    let (store, passwords, gateway) = (Arc::clone(&parts.store), Arc::clone(&parts.passwords), Arc::clone(gateway));
    let sweep = async move {
        let mut tick = interval(SWEEP_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            gateway.sweep();
            for _ in 0..PURGES_MAX {
                match store.purge(gateway.state().clock.unix()).await {
                    Ok(true) => tokio::time::sleep(PURGE_PAUSE).await,
                    Ok(false) => break,
                    Err(error) => {
                        tracing::warn!(%error, "expired tokens not purged");
                        break;
                    }
                }
            }
            // users come, and hashes that are made anew cost something else
            if let Ok(hashes) = store.hashes_in_use().await {
                passwords.resemble(hashes);
            }
        }
    };
    upkeep.spawn_on(sweep, background);
    upkeep
}

/// How many tasks a worker runs before it looks whether sockets have something to read. While a flood keeps it busy, others
/// wait as long; what a look costs, it costs only then.
const TASKS_BETWEEN_LOOKS: u32 = 16;

fn worker_runtime() -> std::io::Result<LocalRuntime> {
    let mut builder = Builder::new_current_thread();
    builder.enable_all().event_interval(TASKS_BETWEEN_LOOKS).build_local(LocalOptions::default())
}

/// One thread a worker, each with a runtime of its own.
fn spawn_workers(
    bound: Vec<Bound>,
    gateway: &Arc<Gateway>,
    listening: &Arc<ListenState>,
    shutdown: &Shutdown,
) -> Result<Vec<JoinHandle<()>>, StartError> {
    let mut workers = Vec::new();
    for (number, bound) in bound.into_iter().enumerate() {
        let (gateway, listening, shutdown) = (Arc::clone(gateway), Arc::clone(listening), shutdown.clone());
        let worker =
            std::thread::Builder::new().name(format!("worker-{number}")).spawn(move || match worker_runtime() {
                Ok(runtime) => runtime.block_on(async {
                    listen::serve(bound, Worker::new(gateway), listening, shutdown).await;
                }),
                Err(error) => tracing::error!(%error, "worker not started"),
            })?;
        workers.push(worker);
    }
    Ok(workers)
}

impl Running {
    /// What it listens on.
    pub fn listeners(&self) -> Vec<Listening> {
        self.listeners.addresses().map(|(address, tls)| Listening { address, tls }).collect()
    }

    /// Where metrics and health are.
    pub const fn admin(&self) -> SocketAddr {
        self.admin.address()
    }

    /// Secrets that were generated at this start.
    pub fn generated(&self) -> &[Generated] {
        &self.generated
    }

    /// The configuration file.
    pub fn source(&self) -> &Path {
        &self.source
    }

    /// The gateway itself.
    pub const fn gateway(&self) -> &Arc<Gateway> {
        &self.gateway
    }

    /// Ends: no request is taken any more, those under way have until the drain's deadline, and what was logged is
    /// written. `background` is the runtime that it was started on.
    pub fn drain(self, background: Runtime) {
        let Self { draining, shutdown, mut upkeep, workers, log, store, gateway, audit, admin, .. } = self;
        draining.store(true, Ordering::Relaxed);
        shutdown.begin();
        for worker in workers {
            if worker.join().is_err() {
                tracing::error!("a worker ended by a panic");
            }
        }
        background.block_on(upkeep.shutdown());
        if let Err(error) = background.block_on(store.close()) {
            tracing::warn!(%error, "store not closed");
        }
        background.shutdown_timeout(LAST_WORK);
        // all that writes lines: the log ends with the last of them
        drop((gateway, audit, admin));
        if log.join().is_err() {
            tracing::error!("the log ended by a panic");
        }
    }
}
