//! HTTP as bytes: pure functions over what came in and what goes out, each total over hostile input.

pub mod target;
pub mod authorization;
pub mod challenge;
pub mod fields;
pub mod forwarded;
pub mod accept;
pub mod body;
pub mod frames;
pub mod opaque;
pub mod upgrade;
pub mod http1;
