//! Another snapshot in place of the one in force: checked whole, then swapped; a bad one is reported and the old stays.

use super::{Running, bootstrap, start};
use crate::config::snapshot::Snapshot;
use crate::listen::Mode;

impl Running {
    /// Reads the file again and puts it in force, where it is good.
    pub async fn reload(&mut self) {
        let source = self.source.clone();
        // a large file takes its time, and this thread may hold others up
        let loaded = tokio::task::spawn_blocking(move || start::load(&source)).await;
        let outcome = match loaded {
            Ok(Ok(snapshot)) => self.put_in_force(snapshot).await,
            Ok(Err(problems)) => Err(problems.to_string()),
            Err(panic) => Err(panic.to_string()),
        };
        let metrics = &self.gateway.state().metrics;
        match outcome {
            Ok(()) => {
                metrics.config_reloads.with_label_values(&["ok"]).inc();
                self.gateway.loaded();
                tracing::info!("configuration reloaded");
            }
            Err(problems) => {
                metrics.config_reloads.with_label_values(&["failed"]).inc();
                tracing::error!("configuration not reloaded, the old one stays in force\n{problems}");
            }
        }
    }

    async fn put_in_force(&mut self, snapshot: Snapshot) -> Result<(), String> {
        for (address, acceptor) in &self.acceptors {
            let listener = snapshot.listeners.iter().find(|listener| listener.address == *address);
            if let Some(Mode::Tls(settings)) = listener.map(|listener| &listener.mode) {
                acceptor.reload(settings).map_err(|error| error.to_string())?;
                acceptor.record(&self.gateway.state().metrics);
            }
        }
        let generated = bootstrap::create(&snapshot, &*self.store, &self.passwords).await;
        for made in generated.map_err(|error| error.to_string())? {
            made.show();
        }
        self.warn_of_what_waits(&snapshot);
        let state = self.gateway.state();
        state.limits.apply(&snapshot.limits, snapshot.routes.routes());
        state.fleet.apply(&snapshot.upstreams, self.background.handle());
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
