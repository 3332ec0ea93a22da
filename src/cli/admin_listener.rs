//! Where the admin endpoint listens, and what it asks.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::runtime::Handle;

use crate::admin::{self, AdminState};
use crate::authenticate::password::PasswordPool;
use crate::gateway::Gateway;
use crate::listen::{self, Shutdown};

/// What the admin endpoint asks.
pub(super) struct Admin {
    pub(super) gateway: Arc<Gateway>,
    pub(super) passwords: Arc<PasswordPool>,
    pub(super) draining: Arc<AtomicBool>,
    pub(super) store_answers: Arc<AtomicBool>,
}

impl AdminState for Admin {
    fn metrics(&self) -> Option<String> {
        let state = self.gateway.state();
        state.metrics.auth_cache_entries.set(i64::try_from(state.authenticator.entries()).unwrap_or(i64::MAX));
        state.metrics.password_queue.set(i64::try_from(self.passwords.waiting()).unwrap_or(i64::MAX));
        state.metrics.text().ok()
    }

    fn is_ready(&self) -> bool {
        !self.draining.load(Ordering::Relaxed) && self.store_answers.load(Ordering::Relaxed)
    }
}

/// The address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} (admin): {}", listen::reason(.error))]
pub struct AdminError {
    address: SocketAddr,
    error: std::io::Error,
}

/// A bound address that is not served yet.
pub(super) struct AdminBound {
    configured: SocketAddr,
    listener: TcpListener,
    picked: SocketAddr,
}

impl AdminBound {
    /// Binds.
    pub(super) fn at(address: SocketAddr) -> Result<Self, AdminError> {
        admin::bind(address)
            .and_then(|listener| {
                let picked = listener.local_addr()?;
                Ok(Self { configured: address, listener, picked })
            })
            .map_err(|error| AdminError { address, error })
    }
}

/// The admin endpoint as it is served; it may move.
pub(super) struct AdminListener {
    configured: SocketAddr,
    picked: SocketAddr,
    state: Arc<Admin>,
    closed: Shutdown,
    background: Handle,
}

impl AdminListener {
    /// Serves what was bound.
    pub(super) fn serve(bound: AdminBound, state: Arc<Admin>, background: &Handle) -> Self {
        let AdminBound { configured, listener, picked } = bound;
        let closed = Shutdown::new();
        let serving = admin::serve(listener, Arc::clone(&state) as _, closed.clone());
        background.spawn(async move {
            if let Err(error) = serving.await {
                tracing::error!(%error, "the admin endpoint is not served");
            }
        });
        Self { configured, picked, state, closed, background: background.clone() }
    }

    /// With the port that was picked.
    pub(super) const fn address(&self) -> SocketAddr {
        self.picked
    }

    /// What a move to this address takes; nothing where it is there already.
    pub(super) fn prepare(&self, address: SocketAddr) -> Result<Option<AdminBound>, AdminError> {
        if address == self.configured { Ok(None) } else { AdminBound::at(address).map(Some) }
    }

    /// Serves there from now on. Connections to where it was live on.
    pub(super) fn move_to(&mut self, bound: AdminBound) {
        let next = Self::serve(bound, Arc::clone(&self.state), &self.background);
        std::mem::replace(self, next).closed.begin();
        tracing::info!(address = %self.picked, "the admin endpoint has moved");
    }
}
