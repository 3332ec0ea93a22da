//! `run`: serves until it is told to end; reloads when it is told to, or when a file has changed.

use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Registry, fmt, reload};

use super::watch::{LOOK_EVERY, Watch};
use super::{BROKEN, Running, start};
use crate::clock::Clock;

#[expect(clippy::print_stderr, reason = "this is a command")]
/// Serves the configuration at `source` until SIGTERM or SIGINT.
pub fn run(source: &Path) -> ExitCode {
    let level = log_to_stderr();
    raise_descriptor_limit();
    let mut running = match start(source, Clock::system()) {
        Ok(running) => running,
        Err(error) => {
            eprintln!("portcullis: {error}");
            return ExitCode::from(BROKEN);
        }
    };
    follow_level(&level, &running);
    greet(&running);
    let handle = running.background();
    if let Err(error) = handle.block_on(serve(&mut running, &level)) {
        eprintln!("portcullis: cannot hear signals: {error}");
        return ExitCode::from(BROKEN);
    }
    running.drain();
    ExitCode::SUCCESS
}

/// Waits for signals and changed files; returns when it is time to end.
async fn serve(running: &mut Running, level: &LevelHandle) -> std::io::Result<()> {
    let (mut hangup, mut terminate, mut interrupt) =
        (signal(SignalKind::hangup())?, signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut watch = watch(running);
    let mut look = tokio::time::interval(LOOK_EVERY);
    loop {
        let reload = tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => true,
            _ = look.tick() => watch.changed(),
        };
        if reload {
            running.reload().await;
            follow_level(level, running);
            watch = self::watch(running);
        }
    }
    tokio::spawn(end_at_once(terminate, interrupt));
    Ok(())
}

/// A second signal does not wait for requests under way.
async fn end_at_once(mut terminate: Signal, mut interrupt: Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    std::process::exit(i32::from(BROKEN));
}

fn watch(running: &Running) -> Watch {
    let snapshot = running.gateway().snapshot();
    Watch::of(std::iter::once(running.source()).chain(snapshot.files.iter().map(AsRef::as_ref)))
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
    let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal()).with_target(false);
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
