//! Another snapshot in place of the one in force: checked whole, then swapped; a bad one is reported and the old stays.

use std::path::PathBuf;
use std::sync::Arc;

use super::{Running, bootstrap, start};
use crate::config::Problems;
use crate::config::snapshot::Snapshot;
use crate::decision::diff::{Row, diff};
use crate::listen::Mode;
use crate::record::audit::Event;
use crate::route::regions::TooMany;

/// Differences that are told one by one after a reload; the others are counted.
const ROWS_TOLD_MAX: usize = 200;

impl Running {
    /// Reads the file again and puts it in force, where it is good. Returns the files that it names, good or not.
    pub async fn reload(&mut self) -> Vec<PathBuf> {
        let source = self.source.clone();
        let old = self.gateway.snapshot();
        // a large file takes its time, and this thread may hold others up
        let loaded = tokio::task::spawn_blocking(move || {
            let new = start::load(&source)?;
            let differences = diff(&old, &new);
            Ok::<_, Problems>((new, differences))
        });
        let (files, outcome) = match loaded.await {
            Ok(Ok((snapshot, differences))) => {
                let files = snapshot.files.clone();
                let put = self.put_in_force(snapshot).await;
                (files, put.map(|()| self.tell(differences)))
            }
            Ok(Err(problems)) => (problems.files().to_vec(), Err(problems.to_string())),
            Err(panic) => (Vec::new(), Err(panic.to_string())),
        };
        let metrics = &self.gateway.state().metrics;
        match outcome {
            Ok(()) => {
                metrics.config_reloads.with_label_values(&["ok"]).inc();
                self.gateway.loaded();
                tracing::info!("configuration reloaded");
            }
            Err(problems) => {
                self.audited("reload_refused", &[]);
                metrics.config_reloads.with_label_values(&["failed"]).inc();
                tracing::error!("configuration not reloaded, the old one stays in force\n{problems}");
            }
        }
        files
    }

    /// Logs and audits what a reload has changed, in the words of `diff`.
    fn tell(&self, differences: Result<Vec<Row>, TooMany>) {
        let rows = match differences {
            Ok(rows) => rows,
            Err(error) => {
                tracing::warn!(%error, "what the reload changes is not listed");
                return self.audited("reloaded", &[("rules", "changed, too many kinds of paths to compare")]);
            }
        };
        self.audited("reloaded", &[("rules", if rows.is_empty() { "unchanged" } else { "changed" })]);
        for row in rows.iter().take(ROWS_TOLD_MAX) {
            let (place, gains, loses, changes) =
                (row.place(), row.gains.join(", "), row.loses.join(", "), row.changes.join("; "));
            tracing::info!(rule = %place, gains = %gains, loses = %loses, changes = %changes, "rule changed");
            let details = [("rule", &*place), ("gains", &gains), ("loses", &loses), ("changes", &changes)];
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

    /// Whatever can fail comes before whatever replaces a part of what is in force.
    async fn put_in_force(&mut self, snapshot: Snapshot) -> Result<(), String> {
        let mut prepared = Vec::new();
        for (address, acceptor) in &self.acceptors {
            let listener = snapshot.listeners.iter().find(|listener| listener.address == *address);
            if let Some(Mode::Tls(settings)) = listener.map(|listener| &listener.mode) {
                let ready = acceptor.prepare(settings).map_err(|error| error.to_string())?;
                prepared.push((Arc::clone(acceptor), ready));
            }
        }
        let generated = bootstrap::create(&snapshot, &*self.store, &self.passwords).await;
        for made in generated.map_err(|error| error.to_string())? {
            made.show();
        }
        self.warn_of_what_waits(&snapshot);
        let state = self.gateway.state();
        for (acceptor, ready) in prepared {
            acceptor.replace(ready);
            acceptor.record(&state.metrics);
        }
        state.limits.apply(&snapshot.limits, snapshot.routes.routes());
        state.fleet.apply(&snapshot.upstreams, &self.background);
        state.authenticator.configure(&snapshot.auth.cache);
        self.audit.switch(snapshot.log.audit);
        self.gateway.swap(snapshot);
        Ok(())
    }

    /// Some sections are read at the start only: sockets, threads and the store outlive a snapshot.
    fn warn_of_what_waits(&self, new: &Snapshot) {
        let old = self.gateway.snapshot();
        let listens = |snapshot: &Snapshot| -> Vec<_> {
            snapshot
                .listeners
                .iter()
                .map(|listener| (listener.address, std::mem::discriminant(&listener.mode)))
                .collect()
        };
        for (section, differs) in [
            ("listeners", listens(&old) != listens(new)),
            ("workers", old.workers != new.workers),
            ("admin", old.admin != new.admin),
            ("store", old.store != new.store || old.tables != new.tables),
            ("timeouts of callers", old.caller_timeouts != new.caller_timeouts),
            ("header_bytes, headers or connections", old.bounds != new.bounds),
        ] {
            if differs {
                tracing::warn!(section, "changed; it is in force after a restart");
            }
        }
    }
}
