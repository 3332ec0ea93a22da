//! Forwarding over real sockets.

use std::future::Future;

/// Runs on a worker's kind of runtime.
pub(super) fn local<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default())
        .unwrap()
        .block_on(future)
}
