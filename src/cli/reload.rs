//! Another snapshot in place of the one in force: checked whole, then swapped; a bad one is reported and the old stays.

use std::path::PathBuf;

use tokio::sync::oneshot;

use super::watch::Rest;
use super::{Running, bootstrap, start};
use crate::config::snapshot::{Snapshot, StoreLocation};
use crate::decision::diff::{Change, Row, TooMuch, beside, for_requests, joined};
use crate::record::audit::Event;
use crate::record::metrics::{Metrics, RESTART_KEYS};
use crate::store::tables::Tables;

/// Differences that are told one by one after a reload; the others are counted.
const ROWS_TOLD_MAX: usize = 200;

/// Why a reload was refused, in the audit log.
const REASON_CHARS_MAX: usize = 500;

/// What holds until the process ends, whatever the file says later.
#[derive(Debug)]
pub(super) struct AtStart {
    workers: usize,
    store: StoreLocation,
    tables: Tables,
}

impl AtStart {
    pub(super) fn of(snapshot: &Snapshot) -> Self {
        Self { workers: snapshot.workers, store: snapshot.store.clone(), tables: snapshot.tables.clone() }
    }

    /// The keys for whose values in `snapshot` a restart is needed. Threads have their sockets, in whose queues connections
    /// wait that no other thread can take over; tokens and keys are of the store that they were made in.
    fn overtaken(&self, snapshot: &Snapshot, metrics: &Metrics) -> Vec<&'static str> {
        let differ = [self.workers != snapshot.workers, self.store != snapshot.store || self.tables != snapshot.tables];
        let keys = RESTART_KEYS.into_iter().zip(differ);
        for (key, differs) in keys.clone() {
            metrics.config_restart_needed.with_label_values(&[key]).set(differs.into());
            if differs {
                tracing::warn!(key, "changed in the file, and not in force before a restart of the gateway");
            }
        }
        keys.filter_map(|(key, differs)| differs.then_some(key)).collect()
    }
}

/// What another configuration changes.
struct Changes {
    rules: Result<Vec<Row>, TooMuch>,
    /// What no request can tell.
    beside: Vec<Change>,
}

impl Changes {
    fn between(old: &Snapshot, new: &Snapshot) -> Self {
        Self { rules: for_requests(old, new), beside: beside(old, new) }
    }
}

/// Does it on a thread of its own, for which nobody waits where the process ends. `None` where it has panicked.
async fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> std::io::Result<Option<T>> {
    let (done, result) = oneshot::channel();
    std::thread::Builder::new().name("reload".into()).spawn(move || {
        // nobody waits any more where it fails
        drop(done.send(work()));
    })?;
    Ok(result.await.ok())
}

impl Running {
    /// Reads the file again and puts it in force, where it is good. Returns the files that it names, good or not. Dropped
    /// before it is ready, it has put nothing in force; nor has it where the file was to `rest` meanwhile and did not.
    pub(super) async fn reload(&mut self, rest: Option<&Rest>) -> Vec<PathBuf> {
        let source = self.source.clone();
        let old = self.gateway.snapshot();
        // a large file takes its time, and this thread may hold others up
        let loaded = apart(move || start::load(&source)).await;
        let is_half = rest.is_some_and(|rest| !rest.goes_on());
        let (files, outcome) = match loaded {
            Ok(Some(loaded)) if is_half => {
                tracing::info!("the configuration changed while it was read: it is read again once it rests");
                return loaded.map_or_else(|problems| problems.files().to_vec(), |snapshot| snapshot.files);
            }
            Ok(Some(Ok(snapshot))) => {
                let (files, audit) = (snapshot.files.clone(), snapshot.log.audit);
                let put = self.put_in_force(snapshot).await;
                if let Ok(overtaken) = &put {
                    if audit {
                        self.audit.switch(true);
                    }
                    // what is to be closed is closed by now, however long it takes to say what has changed
                    let new = self.gateway.snapshot();
                    let changes = apart(move || Changes::between(&old, &new)).await;
                    self.tell(changes.ok().flatten(), overtaken);
                    // that it ends is the last that the audit has to say
                    self.audit.switch(audit);
                }
                (files, put.map(drop))
            }
            Ok(Some(Err(problems))) => (problems.files().to_vec(), Err(problems.to_string())),
            Ok(None) => (Vec::new(), Err("reading it ended by a panic".into())),
            Err(error) => (Vec::new(), Err(error.to_string())),
        };
        let metrics = &self.gateway.state().metrics;
        match outcome {
            Ok(()) => {
                metrics.config_reloads.with_label_values(&["ok"]).inc();
                self.gateway.loaded();
                tracing::info!("configuration reloaded");
            }
            Err(problems) => {
                // the first problem, as it is printed; the log has them all
                let reason: String =
                    problems.lines().next().unwrap_or_default().chars().take(REASON_CHARS_MAX).collect();
                self.audited("reload_refused", &[("reason", &reason)]);
                tracing::error!("configuration not reloaded, the old one stays in force\n{problems}");
                metrics.config_reloads.with_label_values(&["failed"]).inc();
            }
        }
        files
    }

    /// Logs and audits what a reload has changed, in the words of `diff`.
    fn tell(&self, changes: Option<Changes>, overtaken: &[&str]) {
        let (differences, beside) = changes.map_or((None, Vec::new()), |changes| (Some(changes.rules), changes.beside));
        let rules = match &differences {
            Some(Ok(rows)) if rows.is_empty() => "unchanged",
            Some(Ok(_)) => "changed",
            Some(Err(error)) => {
                tracing::warn!(%error, "what the reload changes is not listed");
                "changed, too much to compare"
            }
            None => {
                tracing::warn!("what the reload changes is not listed: comparing failed");
                "not compared"
            }
        };
        let widening = joined(beside.iter().filter(|change| change.widens));
        let (overtaken, beside, mut details) = (overtaken.join(", "), joined(&beside), vec![("rules", rules)]);
        if !beside.is_empty() {
            tracing::info!(changes = %beside, widens = %widening, "settings of the process changed");
            details.extend([("settings", &*beside), ("widens", &*widening)]);
        }
        if !overtaken.is_empty() {
            details.push(("restart_needed", &*overtaken));
        }
        self.audited("reloaded", &details);
        let rows = differences.and_then(Result::ok).unwrap_or_default();
        for row in rows.iter().take(ROWS_TOLD_MAX) {
            let (place, gains, loses) = (row.place(), row.gains.words(), row.loses.words());
            let (changes, widens) = (joined(&row.changes), joined(row.widening()));
            tracing::info!(rule = %place, gains = %gains, loses = %loses, changes = %changes, widens = %widens, "rule changed");
            let details =
                [("rule", &*place), ("gains", &gains), ("loses", &loses), ("changes", &changes), ("widens", &widens)];
            self.audited("rule_changed", &details);
        }
        if let Some(more) = rows.len().checked_sub(ROWS_TOLD_MAX).filter(|&more| more > 0) {
            tracing::info!(more, "further rules changed");
            self.audited("rules_changed", &[("more", &more.to_string())]);
        }
    }

    fn audited(&self, kind: &'static str, details: &[(&'static str, &str)]) {
        self.audit.event(&Event { kind, subject: None, address: None, request_id: "", details });
    }

    /// Whatever can fail, or be left undone, comes before whatever replaces a part of what is in force. Returns the keys
    /// whose new values are not in force.
    async fn put_in_force(&mut self, snapshot: Snapshot) -> Result<Vec<&'static str>, String> {
        let listeners = self.listeners.prepare(&snapshot.listeners).map_err(|error| error.to_string())?;
        let admin = self.admin.prepare(snapshot.admin).map_err(|error| error.to_string())?;
        let generated = bootstrap::create(&snapshot, &*self.store, &self.passwords, &self.audit).await;
        for made in generated.map_err(|error| error.to_string())? {
            made.show();
        }
        let state = self.gateway.state();
        let overtaken = self.at_start.overtaken(&snapshot, &state.metrics);
        state.limits.apply(&snapshot.limits);
        state.limits.share(snapshot.shared_limits.as_ref(), &state.metrics, &self.background).await;
        state.fleet.apply(&snapshot.upstreams, &self.background);
        state.authenticator.configure(&snapshot.auth, &self.background);
        self.listening.configure(snapshot.terms);
        self.gateway.swap(snapshot);
        // last, so that a connection to what is new finds the rules that belong to it
        self.listeners.apply(listeners);
        self.listeners.record(&state.metrics);
        if let Some(admin) = admin {
            self.admin.move_to(admin);
        }
        Ok(overtaken)
    }
}
