//! `run`: serves until it is told to end; reloads when it is told to, or when a file has changed.

use std::path::Path;
use std::process::ExitCode;

use tokio::runtime::Handle;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::MissedTickBehavior;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Registry, fmt, reload};

use super::watch::{LOOK_EVERY, Watch};
use super::{BROKEN, Running, StartError, background, start};
use crate::clock::Clock;

/// Serves the configuration at `source` until SIGTERM or SIGINT.
pub fn run(source: &Path) -> ExitCode {
    let level = log_to_stderr();
    raise_descriptor_limit();
    let background = match background() {
        Ok(background) => background,
        Err(error) => return broken(&StartError::System(error)),
    };
    match background.block_on(serve(source, &level)) {
        Ok(Some(running)) => running.drain(background),
        // it never served: nothing is under way, and what it waits for may never come
        Ok(None) => background.shutdown_background(),
        Err(error) => {
            background.shutdown_background();
            return broken(&error);
        }
    }
    ExitCode::SUCCESS
}

#[expect(clippy::print_stderr, reason = "this is a command")]
fn broken(error: &StartError) -> ExitCode {
    eprintln!("portcullis: {error}");
    ExitCode::from(BROKEN)
}

/// What others tell the process.
struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// From here on no signal ends the process by itself.
    fn hear() -> std::io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Returns when it is time to end.
    async fn end(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Starts, and reloads as signals and changed files ask for, until it is time to end: then returns what serves, or nothing
/// where that was before it did.
async fn serve(source: &Path, level: &LevelHandle) -> Result<Option<Running>, StartError> {
    let mut signals = Signals::hear()?;
    let clock = Clock::system();
    let mut watch = Watch::of(source, clock.clone());
    let (source, background) = (source.to_owned(), Handle::current());
    let starting = tokio::task::spawn_blocking(move || start(&source, clock, &background));
    let mut running = tokio::select! {
        biased;
        started = starting => started.map_err(std::io::Error::from)??,
        () = signals.end() => return Ok(None),
    };
    watch.follow(running.gateway().snapshot().files.iter().cloned());
    follow_level(level, &running);
    greet(&running);
    let mut look = tokio::time::interval(LOOK_EVERY);
    // a reload may have taken long; what rests, rests between two looks
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let rest = tokio::select! {
            _ = signals.terminate.recv() => break,
            _ = signals.interrupt.recv() => break,
            _ = signals.hangup.recv() => {
                watch.settle();
                None
            }
            _ = look.tick() => {
                if !watch.changed() {
                    continue;
                }
                Some(watch.rest())
            }
        };
        let read = tokio::select! {
            biased;
            () = signals.end() => break,
            read = running.reload(rest.as_ref()) => read,
        };
        // those of a refused configuration too: what it lacks may come, and those in force may still be what changes
        watch.follow(running.gateway().snapshot().files.iter().cloned().chain(read));
        follow_level(level, &running);
    }
    // a second signal does not wait for requests under way
    tokio::spawn(async move {
        signals.end().await;
        std::process::exit(i32::from(BROKEN));
    });
    Ok(Some(running))
}

/// Says where it listens and, the first time, what was generated. On standard error: standard output is the logs'.
fn greet(running: &Running) {
    for listening in running.listeners() {
        eprintln!("portcullis: listening on {}://{}", if listening.tls { "https" } else { "http" }, listening.address);
    }
    eprintln!("portcullis: admin on http://{}", running.admin());
    for made in running.generated() {
        made.show();
    }
    if let Some(line) = running.first_request() {
        eprintln!("portcullis: try  {line}");
    }
    eprintln!("portcullis: ready");
}

type LevelHandle = reload::Handle<LevelFilter, Registry>;

/// What the process says of itself goes to standard error, at `info` until the configuration says otherwise.
fn log_to_stderr() -> LevelHandle {
    let (filter, handle) = reload::Layer::new(LevelFilter::INFO);
    let lines = fmt::layer().with_writer(std::io::stderr).with_target(false);
    if let Err(error) = Registry::default().with(filter).with(lines).try_init() {
        eprintln!("portcullis: no log: {error}");
    }
    handle
}

fn follow_level(handle: &LevelHandle, running: &Running) {
    let level = LevelFilter::from_level(running.gateway().snapshot().log.level);
    if let Err(error) = handle.reload(level) {
        tracing::warn!(%error, "log level not changed");
    }
}

/// A connection takes a descriptor, and often one more towards an upstream: as many as the system grants.
fn raise_descriptor_limit() {
    let raised = rlimit::Resource::NOFILE.get().and_then(|(_, hard)| rlimit::Resource::NOFILE.set(hard, hard));
    if let Err(error) = raised {
        tracing::warn!(%error, "descriptor limit not raised");
    }
}
