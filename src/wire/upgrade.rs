//! A caller's connection that goes over to another protocol (RFC 9110 7.8).
//!
//! A request that asks for it bears an [`OnUpgrade`] among its extensions. Once a response of 101 was written, it gives the
//! connection, with whatever the caller has said meanwhile.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;

/// A connection as bytes both ways.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// The caller's end of an upgraded connection.
pub type Upgraded = Box<dyn Duplex>;

/// The promise of an upgraded connection; clones are the same promise, and the first to ask has it.
#[derive(Clone)]
pub struct OnUpgrade(Arc<Mutex<Option<oneshot::Receiver<Upgraded>>>>);

/// A promise, and what keeps it.
pub fn promise() -> (oneshot::Sender<Upgraded>, OnUpgrade) {
    let (sender, receiver) = oneshot::channel();
    (sender, OnUpgrade(Arc::new(Mutex::new(Some(receiver)))))
}

impl OnUpgrade {
    /// The connection; `None` where the response was another, or could not be written.
    pub async fn upgraded(self) -> Option<Upgraded> {
        let receiver = self.0.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        receiver.await.ok()
    }
}

impl fmt::Debug for OnUpgrade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnUpgrade")
    }
}
