//! Text to snapshot.
pub mod snapshot;
