//! Portcullis, an authentication gateway: a reverse proxy that lets nobody reach an API who may not.
//!
//! The modules stand in the order in which a request meets them; [`gateway`] is the way itself, on one screen.
//! `ARCHITECTURE.md` says who may import whom, and where state lives.

// vocabulary: values without I/O, for everyone
pub mod secret;
pub mod clock;
pub mod principal;
pub mod template;
pub mod rejection;
pub mod wire;
// beside the flow, lowest in imports
pub mod store;
pub mod record;
// the stages
pub mod listen;
pub mod limit;
pub mod route;
pub mod authenticate;
pub mod authorize;
pub mod forward;
pub mod endpoint;
// text -> snapshot, and what holds it all together
pub mod config;
pub mod decision;
pub mod gateway;
pub mod admin;
pub mod cli;
